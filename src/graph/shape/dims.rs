//! Arithmetic on dimensions of which some are symbols or unknown. What cannot be known is unknown, never guessed.

use super::fact::{Problem, problem};
use crate::graph::Dim;

/// The dimensions of a value; none where even their number is unknown.
pub(super) type Shape = Option<Vec<Dim>>;

/// `[2, batch, ?]`, for messages.
pub(in crate::graph) fn text(dims: &[Dim]) -> String {
    let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// Two statements of the same dimension in one: a number says more than a symbol, a symbol more than nothing. None
/// where they are different numbers.
pub(super) fn agree(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a, b) {
        (Dim::Known(x), Dim::Known(y)) if x != y => None,
        (Dim::Known(_), _) | (Dim::Symbol(_), Dim::Symbol(_) | Dim::Unknown) => Some(a.clone()),
        (Dim::Unknown, _) | (Dim::Symbol(_), Dim::Known(_)) => Some(b.clone()),
    }
}

/// Two statements of the same dimension, which must not be different numbers.
pub(super) fn expect_agreement(what: &str, expected: &Dim, got: &Dim) -> Result<Dim, Problem> {
    agree(expected, got).ok_or_else(|| problem(what, expected, got))
}

/// What holds whichever of two shapes a value turns out to have.
pub(super) fn either(a: &Shape, b: &Shape) -> Shape {
    let (a, b) = (a.as_ref()?, b.as_ref()?);
    let either = |(a, b): (&Dim, &Dim)| if a == b { a.clone() } else { Dim::Unknown };
    (a.len() == b.len()).then(|| a.iter().zip(b).map(either).collect())
}

/// Numpy's broadcasting of one dimension.
fn broadcast_dim(a: &Dim, b: &Dim) -> Option<Dim> {
    match (a, b) {
        (Dim::Known(1), other) | (other, Dim::Known(1)) => Some(other.clone()),
        (Dim::Known(x), Dim::Known(y)) => (x == y).then_some(Dim::Known(*x)),
        // the other is 1 or the same
        (Dim::Known(x), _) | (_, Dim::Known(x)) => Some(Dim::Known(*x)),
        (Dim::Symbol(x), Dim::Symbol(y)) if x == y => Some(a.clone()),
        (Dim::Symbol(_) | Dim::Unknown, Dim::Symbol(_) | Dim::Unknown) => Some(Dim::Unknown),
    }
}

/// Numpy's broadcasting of two shapes.
///
/// # Errors
/// When two dimensions are different numbers and neither is 1.
pub(super) fn broadcast(a: Option<&[Dim]>, b: Option<&[Dim]>) -> Result<Shape, Problem> {
    let (Some(a), Some(b)) = (a, b) else {
        return Ok(None);
    };
    let (longer, shorter) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let mut dims = longer.to_vec();
    let n_leading = longer.len() - shorter.len();
    for (dim, other) in dims.iter_mut().skip(n_leading).zip(shorter) {
        *dim = broadcast_dim(dim, other)
            .ok_or_else(|| problem("the second shape", format!("one that broadcasts with {}", text(a)), text(b)))?;
    }
    Ok(Some(dims))
}

/// Numpy's broadcasting of any number of shapes.
///
/// # Errors
/// As [`broadcast`].
pub(super) fn broadcast_all<'a>(shapes: impl IntoIterator<Item = Option<&'a [Dim]>>) -> Result<Shape, Problem> {
    let mut all: Shape = Some(Vec::new());
    for shape in shapes {
        all = broadcast(all.as_deref(), shape)?;
    }
    Ok(all)
}

/// The number of elements over these dimensions.
pub(super) fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    let mut known = 1usize;
    let mut open = Vec::new();
    for dim in dims {
        match dim {
            Dim::Known(0) => return Dim::Known(0),
            Dim::Known(size) => match known.checked_mul(*size) {
                Some(product) => known = product,
                None => return Dim::Unknown,
            },
            Dim::Symbol(_) | Dim::Unknown => open.push(dim),
        }
    }
    match (open.as_slice(), known) {
        ([], known) => Dim::Known(known),
        ([only], 1) => (*only).clone(),
        _ => Dim::Unknown,
    }
}

/// The size of what these dimensions make one after the other.
pub(super) fn sum<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    let mut known = 0usize;
    let mut open = Vec::new();
    for dim in dims {
        match dim {
            Dim::Known(size) => match known.checked_add(*size) {
                Some(sum) => known = sum,
                None => return Dim::Unknown,
            },
            Dim::Symbol(_) | Dim::Unknown => open.push(dim),
        }
    }
    match (open.as_slice(), known) {
        ([], known) => Dim::Known(known),
        ([only], 0) => (*only).clone(),
        _ => Dim::Unknown,
    }
}

/// The dimension that is left of `whole` when `part` of it is spoken for: 32 of `[batch, 12, 32]` and `[batch, 12]`.
/// A symbol is taken to be other than zero.
///
/// # Errors
/// When the numbers do not divide.
pub(super) fn quotient(whole: &[Dim], part: &[Dim]) -> Result<Dim, Problem> {
    let mut whole_open: Vec<&Dim> = whole.iter().filter(|dim| dim.known().is_none()).collect();
    let mut part_open = Vec::new();
    for dim in part.iter().filter(|dim| dim.known().is_none()) {
        let same = whole_open.iter().position(|&other| other == dim && *dim != Dim::Unknown);
        match same {
            Some(position) => drop(whole_open.swap_remove(position)),
            None => part_open.push(dim),
        }
    }
    let known = |dims: &[Dim]| dims.iter().filter_map(Dim::known).try_fold(1usize, usize::checked_mul);
    let (Some(n_whole), Some(n_part)) = (known(whole), known(part)) else {
        return Ok(Dim::Unknown);
    };
    match (whole_open.as_slice(), part_open.as_slice()) {
        (_, []) if n_part == 0 => Ok(Dim::Unknown),
        ([], []) if n_whole % n_part == 0 => Ok(Dim::Known(n_whole / n_part)),
        ([], []) => Err(problem("the new shape", format!("one that divides {}", text(whole)), text(part))),
        ([only], []) if n_whole == n_part => Ok((*only).clone()),
        _ => Ok(Dim::Unknown),
    }
}

/// An axis counted from the end where it is negative.
///
/// # Errors
/// When it is outside.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, Problem> {
    axis_within(axis, rank, rank)
}

/// As [`axis`], where one past the last is an axis, too.
///
/// # Errors
/// As [`axis`].
pub(super) fn axis_or_end(axis: i64, rank: usize) -> Result<usize, Problem> {
    axis_within(axis, rank, rank.saturating_add(1))
}

fn axis_within(axis: i64, rank: usize, end: usize) -> Result<usize, Problem> {
    let signed_rank = i64::try_from(rank).unwrap_or(i64::MAX);
    let positive = if axis < 0 { axis.saturating_add(signed_rank) } else { axis };
    usize::try_from(positive)
        .ok()
        .filter(|&axis| axis < end)
        .ok_or_else(|| problem("the axis", format!("one of {rank} dimensions"), axis))
}
