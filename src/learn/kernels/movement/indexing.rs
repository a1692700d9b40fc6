//! Reading and adding by indices, which come from data and are checked before anything is written.

#![allow(unsafe_code)]

use thiserror::Error;

use super::super::parallel::{PIECE, Parts, WORTH_SPREADING, for_pieces, for_ranges};

/// An index outside its axis.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("index {index} lies outside an axis of {size}")]
pub struct IndexError {
    /// The index.
    pub index: i64,
    /// The size of the axis.
    pub size: usize,
}

/// What becomes of an element that an update goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scatter {
    /// It is replaced; the last of several updates counts.
    Replace,
    /// The update is added to it.
    Add,
}

/// `y`, `[outer, indices, inner]`, has the rows of `x`, `[outer, n, inner]`, that `indices` name; negative ones count from
/// the end.
///
/// # Errors
/// When an index lies outside `-n..n`; `y` is as it was.
///
/// # Panics
/// When lengths are not those of the shapes, as every function here.
pub fn gather([outer, n, inner]: [usize; 3], x: &[f32], indices: &[i64], y: &mut [f32]) -> Result<(), IndexError> {
    assert_eq!(x.len(), outer * n * inner, "x has its shape");
    assert_eq!(y.len(), outer * indices.len() * inner, "y has its shape");
    let indices = within(indices, n)?;
    let parts = Parts::new(y);
    for_ranges(outer * indices.len(), inner, |range| {
        for row in range {
            let source = (row / indices.len()) * n + indices[row % indices.len()];
            // SAFETY: each row belongs to one piece.
            let y = unsafe { parts.part(row * inner..(row + 1) * inner) };
            y.copy_from_slice(&x[source * inner..][..inner]);
        }
    });
    Ok(())
}

/// The transpose of [`gather`]: each row of `dy` is added to the row of `dx` that it was read from, in the order of the
/// indices; `dx` starts from 0, or with `accumulate` from what it holds.
///
/// # Errors
/// As [`gather`].
pub fn gather_gradient(
    [outer, n, inner]: [usize; 3],
    dy: &[f32],
    indices: &[i64],
    accumulate: bool,
    dx: &mut [f32],
) -> Result<(), IndexError> {
    assert_eq!(dx.len(), outer * n * inner, "dx has its shape");
    assert_eq!(dy.len(), outer * indices.len() * inner, "dy has its shape");
    let indices = within(indices, n)?;
    // Each piece owns rows of `dx` and looks through all indices for them.
    let n_blocks = if outer >= 16 { 1 } else { (n * inner).div_ceil(PIECE).clamp(1, 16) };
    let rows_per_block = n.div_ceil(n_blocks);
    let parts = Parts::new(dx);
    for_pieces(outer * n_blocks, 1, parts.len() + dy.len() > WORTH_SPREADING, |pieces| {
        for piece in pieces {
            let (slab, block) = (piece / n_blocks, piece % n_blocks);
            let rows = (block * rows_per_block).min(n)..((block + 1) * rows_per_block).min(n);
            // SAFETY: each piece has rows of its own.
            let dx = unsafe { parts.part((slab * n + rows.start) * inner..(slab * n + rows.end) * inner) };
            if !accumulate {
                dx.fill(0.0);
            }
            for (idx, row) in indices.iter().enumerate().filter(|(_, row)| rows.contains(row)) {
                let dy = &dy[(slab * indices.len() + idx) * inner..][..inner];
                dx[(row - rows.start) * inner..].iter_mut().zip(dy).for_each(|(dx, dy)| *dx += dy);
            }
        }
    });
    Ok(())
}

/// `y`, of the shape of the indices, has for each index the element of `x` that lies there along `axis` and where the
/// index itself lies along the other axes. Its transpose is [`scatter_elements`] with [`Scatter::Add`] into zeros.
///
/// # Errors
/// As [`gather`].
pub fn gather_elements(
    x: &[f32],
    shape: &[usize],
    axis: usize,
    (indices, indices_shape): (&[i64], &[usize]),
    y: &mut [f32],
) -> Result<(), IndexError> {
    assert_eq!((x.len(), y.len()), (shape.iter().product(), indices.len()), "x and y have their shapes");
    let places = places(shape, axis, indices, indices_shape)?;
    y.iter_mut().zip(&places).for_each(|(y, &place)| *y = x[place]);
    Ok(())
}

/// Puts each update, of the shape of the indices, where [`gather_elements`] would read it from.
///
/// # Errors
/// As [`gather`].
pub fn scatter_elements(
    scatter: Scatter,
    updates: &[f32],
    axis: usize,
    (indices, indices_shape): (&[i64], &[usize]),
    shape: &[usize],
    y: &mut [f32],
) -> Result<(), IndexError> {
    assert_eq!((y.len(), updates.len()), (shape.iter().product(), indices.len()), "y and updates have their shapes");
    for (&place, &update) in places(shape, axis, indices, indices_shape)?.iter().zip(updates) {
        match scatter {
            Scatter::Replace => y[place] = update,
            Scatter::Add => y[place] += update,
        }
    }
    Ok(())
}

/// The indices counted from the start.
fn within(indices: &[i64], size: usize) -> Result<Vec<usize>, IndexError> {
    let of = |&index: &i64| {
        let counted = if index < 0 { index.checked_add_unsigned(size as u64) } else { Some(index) };
        let counted = counted.and_then(|index| usize::try_from(index).ok());
        counted.filter(|&index| index < size).ok_or(IndexError { index, size })
    };
    indices.iter().map(of).collect()
}

/// Where in a tensor of this shape each index points to.
fn places(shape: &[usize], axis: usize, indices: &[i64], indices_shape: &[usize]) -> Result<Vec<usize>, IndexError> {
    assert_eq!(indices.len(), indices_shape.iter().product::<usize>(), "indices have their shape");
    assert_eq!(shape.len(), indices_shape.len(), "indices have the rank of the tensor");
    let fits = |other: usize| other == axis || indices_shape[other] <= shape[other];
    assert!((0..shape.len()).all(fits), "indices reach no further than the tensor");
    let along = within(indices, shape[axis])?;
    let place = |(mut flat, index): (usize, usize)| {
        let (mut place, mut stride) = (0, 1);
        for other in (0..shape.len()).rev() {
            let here = flat % indices_shape[other];
            flat /= indices_shape[other];
            place += stride * if other == axis { index } else { here };
            stride *= shape[other];
        }
        place
    };
    Ok(along.into_iter().enumerate().map(place).collect())
}
