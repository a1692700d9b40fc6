//! Operators that arrange the same elements in another way, join, split and repeat them.

use super::dims::{self, Shape, expect_agreement, text};
use super::fact::{Call, Fact, Outputs, Problem, one, problem};
use super::value::Element;
use crate::graph::Dim;
use crate::graph::op::{DepthToSpace, Op};

/// `Reshape`: 0 keeps a dimension (unless `allowzero`), −1 is what is left.
pub(super) fn reshape(call: &Call<'_>) -> Outputs {
    let Some(target) = call.elements(1) else { return one(call.dtype(0), call.spelled_shape(1)) };
    let allowzero = matches!(call.op, Op::Reshape(attributes) if attributes.allowzero);
    let mut inferred = None;
    let mut dims = Vec::with_capacity(target.len());
    for (axis, element) in target.iter().enumerate() {
        dims.push(match element {
            Element::Known(0) if !allowzero => match call.dims(0) {
                Some(input) if axis >= input.len() => {
                    return Err(problem("the new shape", format!("one that keeps axes of {}", text(input)), "another"));
                }
                _ => call.dim(0, axis),
            },
            Element::Known(-1) if inferred.replace(axis).is_none() => Dim::Unknown,
            Element::Known(size) if *size < 0 => {
                return Err(problem("the new shape", "sizes and at most one -1", spelled(&target)));
            }
            element => element.dim(),
        });
    }
    if let Some(input) = call.dims(0) {
        match inferred {
            Some(axis) => {
                let others: Vec<Dim> =
                    dims.iter().enumerate().filter(|&(a, _)| a != axis).map(|(_, d)| d.clone()).collect();
                dims[axis] = dims::quotient(input, &others)?;
            }
            None => expect_same_count(input, &dims)?,
        }
    }
    one(call.dtype(0), Some(dims))
}

fn spelled(elements: &[Element]) -> String {
    let numbers = elements.iter().map(|element| match element {
        Element::Known(number) => number.to_string(),
        Element::Symbol(symbol) => symbol.to_string(),
        Element::Unknown => "?".to_string(),
    });
    format!("[{}]", numbers.collect::<Vec<_>>().join(", "))
}

fn expect_same_count(before: &[Dim], after: &[Dim]) -> Result<(), Problem> {
    match (dims::product(before).known(), dims::product(after).known()) {
        (Some(n_before), Some(n_after)) if n_before != n_after => {
            Err(problem("the new shape", format!("one with the elements of {}", text(before)), text(after)))
        }
        _ => Ok(()),
    }
}

/// `Flatten`
pub(super) fn flatten(call: &Call<'_>) -> Outputs {
    let (Op::Flatten(attributes), Some(dims)) = (call.op, call.dims(0)) else {
        return one(call.dtype(0), Some(vec![Dim::Unknown; 2]));
    };
    let axis = dims::axis_or_end(attributes.axis, dims.len())?;
    let (outer, inner) = dims.split_at(axis);
    one(call.dtype(0), Some(vec![dims::product(outer), dims::product(inner)]))
}

/// `Transpose`
pub(super) fn transpose(call: &Call<'_>) -> Outputs {
    let perm = if let Op::Transpose(attributes) = call.op { attributes.perm.as_slice() } else { &[] };
    let Some(dims) = call.dims(0) else {
        return one(call.dtype(0), (!perm.is_empty()).then(|| vec![Dim::Unknown; perm.len()]));
    };
    if perm.is_empty() {
        return one(call.dtype(0), Some(dims.iter().rev().cloned().collect()));
    }
    let axes: Vec<usize> = perm.iter().map(|&axis| dims::axis(axis, dims.len())).collect::<Result<_, _>>()?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..dims.len()) {
        return Err(problem("`perm`", format!("each axis of {} once", text(dims)), format!("{perm:?}")));
    }
    one(call.dtype(0), Some(axes.into_iter().map(|axis| dims[axis].clone()).collect()))
}

/// `Squeeze`: the axes given, or every dimension of 1.
pub(super) fn squeeze(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return one(call.dtype(0), None) };
    if !call.has(1) {
        let known = dims.iter().all(|dim| dim.known().is_some());
        let kept = dims.iter().filter(|dim| dim.known() != Some(1)).cloned().collect();
        return one(call.dtype(0), known.then_some(kept));
    }
    let Some(axes) = call.integers(1) else {
        let rank = call.length(1).and_then(|n| dims.len().checked_sub(n));
        return one(call.dtype(0), rank.map(|rank| vec![Dim::Unknown; rank]));
    };
    let mut squeezed = vec![false; dims.len()];
    for axis in axes {
        let axis = dims::axis(axis, dims.len())?;
        expect_agreement("a squeezed dimension", &Dim::Known(1), &dims[axis])?;
        squeezed[axis] = true;
    }
    let kept = dims.iter().zip(squeezed).filter(|(_, squeezed)| !squeezed);
    one(call.dtype(0), Some(kept.map(|(dim, _)| dim.clone()).collect()))
}

/// `Unsqueeze`
pub(super) fn unsqueeze(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else { return one(call.dtype(0), None) };
    let Some(axes) = call.integers(1) else {
        let added = call.length(1).filter(|&n| n <= super::MOST_DIMS);
        return one(call.dtype(0), added.map(|added| vec![Dim::Unknown; dims.len() + added]));
    };
    let rank = dims.len() + axes.len();
    let mut expanded: Vec<Option<Dim>> = vec![None; rank];
    for axis in axes {
        let axis = dims::axis(axis, rank)?;
        if expanded[axis].replace(Dim::Known(1)).is_some() {
            return Err(problem("the axes", "different ones", format!("{axis} twice")));
        }
    }
    let mut rest = dims.iter().cloned();
    let filled = expanded.into_iter().map(|dim| dim.or_else(|| rest.next()).unwrap_or(Dim::Unknown));
    one(call.dtype(0), Some(filled.collect()))
}

/// `Concat`
pub(super) fn concat(call: &Call<'_>) -> Outputs {
    let Op::Concat(attributes) = call.op else { return one(call.dtype(0), None) };
    let positions: Vec<usize> = (0..call.inputs.len()).collect();
    one(call.same_dtype(positions.iter().copied())?, concat_shape(call, attributes.axis, &positions)?)
}

/// The shape of these inputs one after the other along an axis.
pub(super) fn concat_shape(call: &Call<'_>, axis: i64, positions: &[usize]) -> Result<Shape, Problem> {
    let Some(mut joined) = positions.iter().find_map(|&position| call.shape(position)) else { return Ok(None) };
    let axis = dims::axis(axis, joined.len())?;
    for &position in positions {
        call.expect_rank(position, joined.len())?;
        for (other, dim) in joined.iter_mut().enumerate().filter(|&(other, _)| other != axis) {
            let what = format!("dimension {other} of input {position}");
            *dim = expect_agreement(&what, dim, &call.dim(position, other))?;
        }
    }
    let parts: Vec<Dim> = positions.iter().map(|&position| call.dim(position, axis)).collect();
    joined[axis] = dims::sum(&parts);
    Ok(Some(joined))
}

/// `Split`: as the second input says, else in equal parts of which the last may be smaller.
pub(super) fn split(call: &Call<'_>) -> Outputs {
    let Op::Split(attributes) = call.op else { return one(call.dtype(0), None) };
    let n_outputs = call.n_outputs;
    let Some(dims) = call.dims(0) else {
        return Ok(vec![Fact::new(call.dtype(0), None); n_outputs]);
    };
    let axis = dims::axis(attributes.axis, dims.len())?;
    if let Some(n) = attributes.num_outputs.filter(|&n| usize::try_from(n) != Ok(n_outputs)) {
        return Err(problem("`num_outputs`", n_outputs, n));
    }
    let parts = if call.has(1) { given_parts(call, &dims[axis])? } else { equal_parts(&dims[axis], n_outputs) };
    let part = |size: Dim| {
        let mut dims = dims.to_vec();
        dims[axis] = size;
        Fact::new(call.dtype(0), Some(dims))
    };
    Ok(parts.into_iter().map(part).collect())
}

fn given_parts(call: &Call<'_>, whole: &Dim) -> Result<Vec<Dim>, Problem> {
    let Some(elements) = call.elements(1) else { return Ok(vec![Dim::Unknown; call.n_outputs]) };
    if elements.len() != call.n_outputs {
        return Err(problem("the number of parts", call.n_outputs, elements.len()));
    }
    let parts: Vec<Dim> = elements.iter().map(Element::dim).collect();
    expect_agreement("the sum of the parts", whole, &dims::sum(&parts))?;
    Ok(parts)
}

fn equal_parts(whole: &Dim, n_parts: usize) -> Vec<Dim> {
    let Some(size) = whole.known() else { return vec![Dim::Unknown; n_parts] };
    let part = size.div_ceil(n_parts.max(1));
    (0..n_parts).map(|n| Dim::Known(size.saturating_sub(part.saturating_mul(n)).min(part))).collect()
}

/// `Slice`
pub(super) fn slice(call: &Call<'_>) -> Outputs {
    let Some(mut dims) = call.shape(0) else { return one(call.dtype(0), None) };
    let (starts, ends) = (call.elements(1), call.elements(2));
    let n_axes = [&starts, &ends].into_iter().flatten().map(Vec::len).next().or(call.length(1)).or(call.length(2));
    let axes = if call.has(3) {
        call.integers(3)
    } else {
        n_axes.map(|n| (0..n).filter_map(|a| i64::try_from(a).ok()).collect())
    };
    let Some(axes) = axes else { return one(call.dtype(0), Some(vec![Dim::Unknown; dims.len()])) };
    for (n, axis) in axes.into_iter().enumerate() {
        let axis = dims::axis(axis, dims.len())?;
        let at = |elements: &Option<Vec<Element>>| elements.as_ref().and_then(|elements| elements.get(n).cloned());
        let step = if call.has(4) { at(&call.elements(4)) } else { Some(Element::Known(1)) };
        dims[axis] = match (at(&starts), at(&ends), step) {
            (Some(start), Some(end), Some(Element::Known(step))) => sliced(&dims[axis], &start, &end, step)?,
            _ => Dim::Unknown,
        };
    }
    one(call.dtype(0), Some(dims))
}

fn sliced(dim: &Dim, start: &Element, end: &Element, step: i64) -> Result<Dim, Problem> {
    if step == 0 {
        return Err(problem("the step", "other than 0", step));
    }
    if step == 1 && *start == Element::Known(0) && keeps_all(dim, end) {
        return Ok(dim.clone());
    }
    let (Some(size), Some(start), Some(end)) = (dim.known(), start.known(), end.known()) else {
        return Ok(Dim::Unknown);
    };
    let size = i128::try_from(size).unwrap_or(i128::MAX);
    let counted = |position: i64| i128::from(position) + if position < 0 { size } else { 0 };
    let step = i128::from(step);
    let n = if size == 0 {
        0
    } else if step > 0 {
        let (start, end) = (counted(start).clamp(0, size), counted(end).clamp(0, size));
        (end - start + step - 1).div_euclid(step)
    } else {
        let (start, end) = (counted(start).clamp(0, size - 1), counted(end).clamp(-1, size - 1));
        (start - end - step - 1).div_euclid(-step)
    };
    Ok(usize::try_from(n.max(0)).map_or(Dim::Unknown, Dim::Known))
}

/// Whether a slice up to here takes a dimension of any size whole.
fn keeps_all(dim: &Dim, end: &Element) -> bool {
    match (dim, end) {
        (_, Element::Known(end)) => *end >= i64::from(i32::MAX) && dim.known().is_none(),
        (Dim::Symbol(symbol), Element::Symbol(end)) => symbol == end,
        _ => false,
    }
}

/// `Expand`
pub(super) fn expand(call: &Call<'_>) -> Outputs {
    let target = call.spelled_shape(1);
    one(call.dtype(0), dims::broadcast(call.dims(0), target.as_deref())?)
}

/// `Tile`
pub(super) fn tile(call: &Call<'_>) -> Outputs {
    let Some(dims) = call.dims(0) else {
        return one(call.dtype(0), call.spelled_shape(1).map(|repeats| vec![Dim::Unknown; repeats.len()]));
    };
    let Some(repeats) = call.spelled_shape(1) else {
        return one(call.dtype(0), Some(vec![Dim::Unknown; dims.len()]));
    };
    if repeats.len() != dims.len() {
        return Err(problem("the number of repeats", dims.len(), repeats.len()));
    }
    one(call.dtype(0), Some(dims.iter().zip(&repeats).map(|(dim, repeat)| dims::product([dim, repeat])).collect()))
}

/// `Pad`: begins, then ends, of each axis or of the axes given; a negative number crops.
pub(super) fn pad(call: &Call<'_>) -> Outputs {
    let Some(mut dims) = call.shape(0) else { return one(call.dtype(0), None) };
    let all: Vec<i64> = (0..dims.len()).filter_map(|axis| i64::try_from(axis).ok()).collect();
    let axes = if call.has(3) { call.integers(3) } else { Some(all) };
    let (Some(axes), Some(pads)) = (axes, call.elements(1)) else {
        return one(call.dtype(0), Some(vec![Dim::Unknown; dims.len()]));
    };
    if pads.len() != 2 * axes.len() {
        return Err(problem("the number of pads", 2 * axes.len(), pads.len()));
    }
    let (begins, ends) = pads.split_at(axes.len());
    for (axis, (begin, end)) in axes.into_iter().zip(begins.iter().zip(ends)) {
        let axis = dims::axis(axis, dims.len())?;
        dims[axis] = match (dims[axis].known(), begin.known(), end.known()) {
            (_, Some(0), Some(0)) => continue,
            (Some(size), Some(begin), Some(end)) => {
                let size = i128::try_from(size).unwrap_or(i128::MAX);
                let padded = size.saturating_add(i128::from(begin) + i128::from(end));
                if padded < 0 {
                    return Err(problem("a padded dimension", "0 or more", padded));
                }
                usize::try_from(padded).map_or(Dim::Unknown, Dim::Known)
            }
            _ => Dim::Unknown,
        };
    }
    one(call.dtype(0), Some(dims))
}

/// `DepthToSpace`: `[n, c, h, w]` to `[n, c / b², h·b, w·b]`.
pub(super) fn depth_to_space(call: &Call<'_>) -> Outputs {
    let Op::DepthToSpace(attributes) = call.op else { return one(call.dtype(0), None) };
    let block = block(attributes)?;
    call.expect_rank(0, 4)?;
    let square = block.checked_mul(block).ok_or_else(|| problem("`blocksize`", "a small number", block))?;
    let channels = divided(&call.dim(0, 1), square, "the number of channels")?;
    let grown = |axis| dims::product([&call.dim(0, axis), &Dim::Known(block)]);
    one(call.dtype(0), Some(vec![call.dim(0, 0), channels, grown(2), grown(3)]))
}

/// `SpaceToDepth`: `[n, c, h, w]` to `[n, c·b², h / b, w / b]`.
pub(super) fn space_to_depth(call: &Call<'_>) -> Outputs {
    let Op::SpaceToDepth(attributes) = call.op else { return one(call.dtype(0), None) };
    let block = block(attributes)?;
    call.expect_rank(0, 4)?;
    let channels = dims::product([&call.dim(0, 1), &Dim::Known(block), &Dim::Known(block)]);
    let height = divided(&call.dim(0, 2), block, "the height")?;
    let width = divided(&call.dim(0, 3), block, "the width")?;
    one(call.dtype(0), Some(vec![call.dim(0, 0), channels, height, width]))
}

fn block(attributes: &DepthToSpace) -> Result<usize, Problem> {
    usize::try_from(attributes.blocksize)
        .ok()
        .filter(|&block| block > 0)
        .ok_or_else(|| problem("`blocksize`", "1 or more", attributes.blocksize))
}

fn divided(dim: &Dim, by: usize, what: &str) -> Result<Dim, Problem> {
    match dim.known() {
        Some(size) if size % by == 0 => Ok(Dim::Known(size / by)),
        Some(size) => Err(problem(what, format!("a multiple of {by}"), size)),
        None => Ok(if by == 1 { dim.clone() } else { Dim::Unknown }),
    }
}
