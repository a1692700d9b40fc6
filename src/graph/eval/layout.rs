//! Operators that move elements without looking at them, each a map from the indices of an output to those of a source.

use super::args::{Args, allocation, axis};
use super::numbers::{int_list, int_scalar};
use super::packed::pick;
use super::shapes::{broadcast, strides};
use super::{EvalError, invalid};
use crate::graph::op::{self, DepthMode, PadMode};
use crate::graph::tensor::Tensor;

pub(super) fn concat(args: Args<'_>, op: &op::Concat) -> Result<Tensor, EvalError> {
    let tensors: Vec<&Tensor> = args.all().collect();
    joined(&tensors, op.axis)
}

/// The tensors one after another along an axis.
///
/// # Errors
/// When there is none, or they differ in element type or in another axis.
pub(super) fn joined(tensors: &[&Tensor], along: i64) -> Result<Tensor, EvalError> {
    let first = tensors.first().ok_or_else(|| invalid("nothing to concatenate"))?;
    let along = axis(along, first.rank())?;
    let mut shape = first.shape().to_vec();
    shape[along] = 0;
    for tensor in tensors {
        let mut expected = shape.clone();
        expected[along] = tensor.shape().get(along).copied().unwrap_or(0);
        if tensor.shape() != expected {
            let (got, expected) = (tensor.shape(), first.shape());
            return Err(invalid(format!("shapes {expected:?} and {got:?} differ beside axis {along}")));
        }
        shape[along] =
            shape[along].checked_add(expected[along]).ok_or_else(|| EvalError::TooLarge(expected.to_vec()))?;
    }
    if allocation(&shape)? == 0 {
        return pick(tensors, &shape, |_| (0, 0));
    }
    let inner: usize = shape[along + 1..].iter().product();
    let blocks: Vec<(usize, usize)> =
        tensors.iter().map(|tensor| tensor.shape()[along] * inner).enumerate().filter(|block| block.1 > 0).collect();
    let n_outer: usize = shape[..along].iter().product();
    let mut picks = (0..n_outer).flat_map(|outer| {
        blocks.iter().flat_map(move |&(source, size)| (0..size).map(move |idx| (source, outer * size + idx)))
    });
    pick(tensors, &shape, |_| picks.next().unwrap_or((tensors.len(), 0)))
}

/// A tensor whose element at the coordinates `c` is that of `data` at `source(axis, c[axis])` along every axis, where
/// `steps[axis]` is how far apart neighbours along it are in `data`, or `outside` where one axis has no source.
///
/// # Errors
/// When the shape is too large, or `outside` is needed and not one element of the same type.
pub(super) fn pick_along(
    data: &Tensor,
    outside: &Tensor,
    shape: &[usize],
    steps: &[usize],
    source: impl Fn(usize, usize) -> Option<usize>,
) -> Result<Tensor, EvalError> {
    if allocation(shape)? == 0 {
        return pick(&[data, outside], shape, |_| (0, 0));
    }
    let leads: Vec<Vec<Option<usize>>> = shape
        .iter()
        .zip(steps)
        .enumerate()
        .map(|(axis, (&dim, &step))| (0..dim).map(|idx| Some(source(axis, idx)?.saturating_mul(step))).collect())
        .collect();
    let mut coordinates = vec![0; shape.len()];
    // The position in `data` that the coordinates up to each axis lead to: only what changes is added anew.
    let mut reached = vec![Some(0usize); shape.len() + 1];
    let mut changed_from = 0;
    pick(&[data, outside], shape, |_| {
        for axis in changed_from..shape.len() {
            let lead = leads[axis][coordinates[axis]];
            reached[axis + 1] = reached[axis].zip(lead).map(|(position, lead)| position.saturating_add(lead));
        }
        let picked = reached[shape.len()].map_or((1, 0), |position| (0, position));
        changed_from = advance(&mut coordinates, shape);
        picked
    })
}

/// Steps to the next coordinates in row-major order, from the last to the first; the first axis that changed.
pub(super) fn advance(coordinates: &mut [usize], shape: &[usize]) -> usize {
    for axis in (0..shape.len()).rev() {
        coordinates[axis] += 1;
        if coordinates[axis] < shape[axis] {
            return axis;
        }
        coordinates[axis] = 0;
    }
    0
}

/// As [`pick_along`] where every element of the output has a source.
fn pick_inside(
    data: &Tensor,
    shape: &[usize],
    steps: &[usize],
    source: impl Fn(usize, usize) -> usize,
) -> Result<Tensor, EvalError> {
    pick_along(data, data, shape, steps, |axis, idx| Some(source(axis, idx)))
}

pub(super) fn transpose(args: Args<'_>, op: &op::Transpose) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let order = if op.perm.is_empty() {
        (0..data.rank()).rev().collect()
    } else {
        let order = distinct_axes(&op.perm, data.rank())?;
        if order.len() != data.rank() {
            return Err(invalid(format!("perm {:?} of a tensor of {} dimensions", op.perm, data.rank())));
        }
        order
    };
    transposed(data, &order)
}

/// The tensor with its axes in this order, which is a permutation.
fn transposed(data: &Tensor, order: &[usize]) -> Result<Tensor, EvalError> {
    let permuted = |values: &[usize]| order.iter().map(|&axis| values[axis]).collect::<Vec<_>>();
    pick_inside(data, &permuted(data.shape()), &permuted(&strides(data.shape())), |_, idx| idx)
}

/// Axes, counted from the end where negative, none of them twice.
pub(super) fn distinct_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, EvalError> {
    let mut seen = vec![false; rank];
    let distinct = |&along: &i64| {
        let along = axis(along, rank)?;
        if std::mem::replace(&mut seen[along], true) {
            return Err(invalid(format!("axis {along} is listed twice")));
        }
        Ok(along)
    };
    axes.iter().map(distinct).collect()
}

pub(super) fn split(args: Args<'_>, op: &op::Split) -> Result<Vec<Option<Tensor>>, EvalError> {
    let data = args.get(0)?;
    let along = axis(op.axis, data.rank())?;
    let dim = data.shape()[along];
    let sizes = match args.optional(1) {
        Some(sizes) => {
            let refused = || invalid(format!("sizes of parts should be positive and sum to {dim}"));
            let sizes: Result<Vec<usize>, _> = int_list(sizes)?.into_iter().map(usize::try_from).collect();
            let sizes = sizes.map_err(|_| refused())?;
            let sum = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
            if sum == Some(dim) { sizes } else { return Err(refused()) }
        }
        None => even_parts(dim, op.num_outputs, args.n_outputs)?,
    };
    let steps = strides(data.shape());
    let mut start = 0;
    let mut parts = Vec::new();
    for size in sizes {
        let mut shape = data.shape().to_vec();
        shape[along] = size;
        parts.push(Some(pick_inside(data, &shape, &steps, |a, idx| if a == along { start + idx } else { idx })?));
        start += size;
    }
    Ok(parts)
}

/// Parts of equal size, the last one smaller where they do not come out even.
fn even_parts(dim: usize, stated: Option<i64>, n_outputs: usize) -> Result<Vec<usize>, EvalError> {
    if stated.is_some_and(|stated| usize::try_from(stated) != Ok(n_outputs)) || n_outputs == 0 {
        return Err(invalid(format!("num_outputs {stated:?} of a node with {n_outputs} outputs")));
    }
    let size = dim.div_ceil(n_outputs);
    let last = dim.checked_sub(size * (n_outputs - 1));
    let last = last.ok_or_else(|| invalid(format!("dimension {dim} cannot be split into {n_outputs} parts")))?;
    let mut sizes = vec![size; n_outputs - 1];
    sizes.push(last);
    Ok(sizes)
}

pub(super) fn slice(args: Args<'_>) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let (starts, ends) = (int_list(args.get(1)?)?, int_list(args.get(2)?)?);
    let axes = match args.optional(3) {
        Some(axes) => distinct_axes(&int_list(axes)?, data.rank())?,
        None => (0..starts.len()).collect(),
    };
    let steps = args.optional(4).map_or_else(|| Ok(vec![1; starts.len()]), int_list)?;
    let same_length = starts.len() == ends.len() && starts.len() == axes.len() && starts.len() == steps.len();
    if !same_length || axes.len() > data.rank() {
        return Err(invalid("starts, ends, axes and steps should be of one length, at most the number of dimensions"));
    }
    let mut shape = data.shape().to_vec();
    let mut walks = vec![(0, 1); data.rank()];
    for (position, &along) in axes.iter().enumerate() {
        let walk = walk(shape[along], starts[position], ends[position], steps[position])?;
        shape[along] = walk.1;
        walks[along] = (walk.0, steps[position].into());
    }
    pick_inside(data, &shape, &strides(data.shape()), |axis, idx| {
        let (start, step) = walks[axis];
        usize::try_from(start + idx as i128 * step).expect("start and number of steps keep within the dimension")
    })
}

/// Where a slice of a dimension starts, and how many elements it has.
fn walk(dim: usize, start: i64, end: i64, step: i64) -> Result<(i128, usize), EvalError> {
    if step == 0 {
        return Err(invalid("a slice with step 0"));
    }
    if dim == 0 {
        return Ok((0, 0));
    }
    let (dim, step) = (dim as i128, i128::from(step));
    let from_end = |at: i64| if at < 0 { i128::from(at) + dim } else { at.into() };
    let (start, end) = (from_end(start), from_end(end));
    let (start, end) = if step > 0 {
        (start.clamp(0, dim), end.clamp(0, dim))
    } else {
        (start.clamp(0, dim - 1), end.clamp(-1, dim - 1))
    };
    let n_steps = (end - start + step - step.signum()) / step;
    Ok((start, usize::try_from(n_steps.max(0)).expect("no more than the dimension")))
}

pub(super) fn expand(args: Args<'_>) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let target = sizes(args.get(1)?)?;
    let shape = broadcast(&[data.shape(), &target])?;
    let n_new = shape.len() - data.rank();
    let own = |axis: usize| axis.checked_sub(n_new).map_or(1, |axis| data.shape()[axis]);
    let mut steps = vec![0; n_new];
    steps.extend(strides(data.shape()));
    pick_inside(data, &shape, &steps, |axis, idx| if own(axis) == 1 { 0 } else { idx })
}

/// A list of sizes: no negative one.
pub(super) fn sizes(tensor: &Tensor) -> Result<Vec<usize>, EvalError> {
    let size = |size: i64| usize::try_from(size).map_err(|_| invalid(format!("a size of {size}")));
    int_list(tensor)?.into_iter().map(size).collect()
}

pub(super) fn tile(args: Args<'_>) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let repeats = sizes(args.get(1)?)?;
    if repeats.len() != data.rank() {
        return Err(invalid(format!("repeats {repeats:?} of a tensor of {} dimensions", data.rank())));
    }
    let shape: Vec<usize> = data.shape().iter().zip(&repeats).map(|(&dim, &n)| dim.saturating_mul(n)).collect();
    pick_inside(data, &shape, &strides(data.shape()), |axis, idx| idx % data.shape()[axis])
}

pub(super) fn pad(args: Args<'_>, op: &op::Pad) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let listed = int_list(args.get(1)?)?;
    let axes = match args.optional(3) {
        Some(axes) => distinct_axes(&int_list(axes)?, data.rank())?,
        None => (0..data.rank()).collect(),
    };
    if listed.len() != 2 * axes.len() {
        return Err(invalid(format!("{} pads for {} axes", listed.len(), axes.len())));
    }
    let outside = match args.optional(2) {
        Some(value) if value.len() == 1 => value.clone(),
        Some(value) => return Err(invalid(format!("constant_value of shape {:?}", value.shape()))),
        None => Tensor::zeros(data.dtype(), &[])?,
    };
    let mut shape = data.shape().to_vec();
    let mut pads = vec![(0i128, 0i128); data.rank()];
    for (position, &along) in axes.iter().enumerate() {
        pads[along] = (listed[position].into(), listed[axes.len() + position].into());
        let padded = shape[along] as i128 + pads[along].0 + pads[along].1;
        shape[along] = usize::try_from(padded).map_err(|_| invalid(format!("axis {along} padded to {padded}")))?;
    }
    if op.mode != PadMode::Constant {
        for ((&dim, &padded), &(begin, end)) in data.shape().iter().zip(&shape).zip(&pads) {
            if padded > 0 && dim as i128 + begin.min(0) + end.min(0) < 1 {
                return Err(invalid(format!("no element of shape {:?} to pad with", data.shape())));
            }
        }
    }
    pick_along(data, &outside, &shape, &strides(data.shape()), |axis, idx| {
        let kept = (-pads[axis].0.min(0), data.shape()[axis] as i128 + pads[axis].1.min(0));
        padding_source(idx as i128 - pads[axis].0, kept, op.mode)
    })
}

/// The index in the source of index `at`, which may lie outside what is `kept` of it: from the first, up to the second.
pub(crate) fn padding_source(at: i128, kept: (i128, i128), mode: PadMode) -> Option<usize> {
    let (first, n_kept) = (kept.0, kept.1 - kept.0);
    let from_first = at - first;
    let source = match mode {
        PadMode::Constant => Some(from_first).filter(|at| (0..n_kept).contains(at))?,
        PadMode::Edge => from_first.clamp(0, n_kept - 1),
        PadMode::Wrap => from_first.rem_euclid(n_kept),
        PadMode::Reflect => {
            let there = from_first.rem_euclid((2 * (n_kept - 1)).max(1));
            there.min(2 * (n_kept - 1) - there)
        }
    };
    usize::try_from(first + source).ok()
}

pub(super) fn depth_to_space(args: Args<'_>, op: &op::DepthToSpace) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let (size, [n, depth, height, width]) = blocks(data, op)?;
    if depth % size != 0 || (depth / size) % size != 0 {
        return Err(invalid(format!("depth {depth} is no multiple of {size}²")));
    }
    let channels = depth / size / size;
    let (apart, order) = match op.mode {
        DepthMode::Dcr => ([n, size, size, channels, height, width], [0, 3, 4, 1, 5, 2]),
        DepthMode::Crd => ([n, channels, size, size, height, width], [0, 1, 4, 2, 5, 3]),
    };
    let moved = transposed(&data.reshaped(&apart)?, &order)?;
    Ok(moved.reshaped(&[n, channels, height.saturating_mul(size), width.saturating_mul(size)])?)
}

pub(super) fn space_to_depth(args: Args<'_>, op: &op::DepthToSpace) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let (size, [n, channels, height, width]) = blocks(data, op)?;
    if height % size != 0 || width % size != 0 {
        return Err(invalid(format!("height {height} or width {width} is no multiple of {size}")));
    }
    let order = match op.mode {
        DepthMode::Dcr => [0, 3, 5, 1, 2, 4],
        DepthMode::Crd => [0, 1, 3, 5, 2, 4],
    };
    let apart = data.reshaped(&[n, channels, height / size, size, width / size, size])?;
    let depth = channels.saturating_mul(size).saturating_mul(size);
    Ok(transposed(&apart, &order)?.reshaped(&[n, depth, height / size, width / size])?)
}

fn blocks(data: &Tensor, op: &op::DepthToSpace) -> Result<(usize, [usize; 4]), EvalError> {
    let size = usize::try_from(op.blocksize).ok().filter(|&size| size > 0);
    let size = size.ok_or_else(|| invalid(format!("blocks of size {}", op.blocksize)))?;
    let shape = data.shape().try_into();
    Ok((size, shape.map_err(|_| invalid(format!("expected four dimensions, got {:?}", data.shape())))?))
}

pub(super) fn trilu(args: Args<'_>, op: &op::Trilu) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let diagonal = i128::from(args.optional(1).map_or(Ok(0), int_scalar)?);
    let [.., n_rows, n_columns] = data.shape()[..] else {
        return Err(invalid(format!("expected matrices, got shape {:?}", data.shape())));
    };
    let zero = Tensor::zeros(data.dtype(), &[])?;
    pick(&[data, &zero], data.shape(), |position| {
        let (row, column) = (position / n_columns % n_rows, position % n_columns);
        let right_of_diagonal = column as i128 - row as i128 - diagonal;
        let kept = if op.upper { right_of_diagonal >= 0 } else { right_of_diagonal <= 0 };
        if kept { (0, position) } else { (1, 0) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{check, iota, list, outputs, refusal, tensor};
    use crate::graph::op::{Concat, DepthToSpace, Op, Pad, Split, Transpose, Trilu};
    use crate::graph::tensor::DType;
    use bytes::Bytes;

    /// A tensor of six different elements where the type has as many.
    fn sample(dtype: DType) -> Tensor {
        if dtype == DType::String {
            let strings = ["", "a", "bc", "d", "e", "f"].map(|text| Bytes::from_static(text.as_bytes()));
            return Tensor::from_strings(&[2, 3], strings.to_vec()).expect("six strings");
        }
        let n_bytes = dtype.n_bytes(6).expect("a few bytes");
        let bytes: Vec<u8> =
            (0..n_bytes as u8).map(|x| if dtype == DType::Bool { x % 2 } else { 0x1b ^ x.wrapping_mul(37) }).collect();
        let spare = (n_bytes * 8 - 6 * dtype.n_bits()) as u32;
        let bytes: Vec<u8> =
            bytes.iter().enumerate().map(|(at, b)| if at + 1 == n_bytes { b & (0xff >> spare) } else { *b }).collect();
        Tensor::from_bytes(dtype, &[2, 3], bytes.into()).expect("six elements")
    }

    #[test]
    fn every_element_type_is_moved() {
        for dtype in DType::all() {
            let data = sample(dtype);
            let transpose = || Op::Transpose(Transpose { perm: vec![1, 0] });
            let turned = outputs(&transpose(), [data.clone()], 1).expect("a matrix").remove(0);
            assert_eq!(turned.shape(), [3, 2]);
            check(transpose(), [turned], data.clone());
            let split = Op::Split(Split { axis: 1, num_outputs: Some(2) });
            let [left, right] = &outputs(&split, [data.clone()], 2).expect("two parts")[..] else {
                panic!("two parts")
            };
            check(Op::Concat(Concat { axis: -1 }), [left.clone(), right.clone()], data.clone());
            let padded = outputs(&Op::Pad(Pad { mode: PadMode::Constant }), [data.clone(), list([1, 0, 0, 1])], 1);
            check(Op::Slice, [padded.expect("padded").remove(0), list([1, 0]), list([9, -1])], data);
        }
    }

    #[test]
    fn slices_clamp_and_walk_backward() {
        let slice = |start, end, step, expected: &[i64]| {
            let inputs = [iota(&[5]), list([start]), list([end]), list([-1]), list([step])];
            check(Op::Slice, inputs, Tensor::vector(expected.to_vec()));
        };
        slice(1, 4, 1, &[1, 2, 3]);
        slice(-3, i64::MAX, 2, &[2, 4]);
        slice(i64::MAX, i64::MIN, -2, &[4, 2, 0]);
        slice(-2, 0, -1, &[3, 2, 1]);
        slice(-100, i64::MIN, -1, &[0]);
        slice(4, 1, 1, &[]);
        slice(0, 5, i64::MAX, &[0]);
        let axes = [list([0]), list([1]), list([0]), list([0])];
        let [start, end, axis, step] = axes;
        assert_eq!(refusal(Op::Slice, [iota(&[5]), start, end, axis, step]), "a slice with step 0");
        let twice = [iota(&[5, 5]), list([0, 0]), list([1, 1]), list([1, -1])];
        assert_eq!(refusal(Op::Slice, twice), "axis 1 is listed twice");
    }

    #[test]
    fn pads_fill_and_crop() {
        let pad = |mode, pads: [i64; 2], expected: &[i64]| {
            check(Op::Pad(Pad { mode }), [iota(&[4]), list(pads)], Tensor::vector(expected.to_vec()));
        };
        pad(PadMode::Constant, [1, 2], &[0, 0, 1, 2, 3, 0, 0]);
        pad(PadMode::Constant, [-1, -2], &[1]);
        pad(PadMode::Constant, [-5, 3], &[0, 0]);
        pad(PadMode::Edge, [2, 1], &[0, 0, 0, 1, 2, 3, 3]);
        pad(PadMode::Reflect, [2, 5], &[2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]);
        pad(PadMode::Reflect, [2, -1], &[2, 1, 0, 1, 2]);
        pad(PadMode::Wrap, [1, 5], &[3, 0, 1, 2, 3, 0, 1, 2, 3, 0]);
        let along = [Some(iota(&[1, 2])), Some(list([1, 0])), Some(Tensor::scalar(7i64)), Some(list([-1]))];
        check(Op::Pad(Pad { mode: PadMode::Constant }), along, tensor(&[1, 3], [7i64, 0, 1]));
        let refused = |mode, data: Tensor, pads| refusal(Op::Pad(Pad { mode }), [data, list(pads)]);
        assert_eq!(refused(PadMode::Constant, iota(&[4]), [-3, -2]), "axis 0 padded to -1");
        assert_eq!(refused(PadMode::Edge, iota(&[0]), [1, 1]), "no element of shape [0] to pad with");
        assert!(refused(PadMode::Constant, iota(&[4]), [i64::MAX, 1]).contains("too large"));
    }

    #[test]
    fn splits_are_even_or_as_listed() {
        let lengths = |split: Split, sizes: Option<Tensor>, n_outputs| {
            let parts = outputs(&Op::Split(split), [Some(iota(&[7])), sizes], n_outputs);
            parts.map(|parts| parts.iter().map(Tensor::len).collect::<Vec<_>>())
        };
        let plain = || Split { axis: 0, num_outputs: None };
        assert_eq!(lengths(Split { axis: 0, num_outputs: Some(3) }, None, 3), Ok(vec![3, 3, 1]));
        assert_eq!(lengths(plain(), Some(list([0, 2, 5])), 3), Ok(vec![0, 2, 5]));
        assert!(lengths(plain(), Some(list([4, 4])), 2).is_err());
        assert!(lengths(plain(), Some(list([8, -1])), 2).is_err());
        assert!(lengths(Split { axis: 0, num_outputs: Some(2) }, None, 3).is_err());
        assert!(lengths(plain(), None, 5).is_err());
    }

    #[test]
    fn tensors_are_joined_stretched_and_repeated() {
        let concat = |axis| Op::Concat(Concat { axis });
        check(concat(1), [iota(&[2, 1]), iota(&[2, 2])], tensor(&[2, 3], [0i64, 0, 1, 1, 2, 3]));
        assert!(refusal(concat(0), [iota(&[2, 1]), iota(&[2, 2])]).contains("differ beside axis 0"));
        assert!(refusal(concat(0), [iota(&[1]), tensor(&[1], [1f32])]).contains("do not mix"));
        check(
            Op::Expand,
            [iota(&[2, 1]), list([2, 1, 3])],
            tensor(&[2, 2, 3], [0i64, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]),
        );
        assert!(refusal(Op::Expand, [iota(&[2]), list([3])]).contains("do not broadcast"));
        assert_eq!(refusal(Op::Expand, [iota(&[1]), list([-3])]), "a size of -3");
        check(Op::Tile, [iota(&[2]), list([2])], list([0, 1, 0, 1]));
        assert!(refusal(Op::Tile, [iota(&[2]), list([i64::MAX])]).contains("too large"));
    }

    #[test]
    fn transpositions_are_permutations() {
        let transpose = |perm: &[i64]| Op::Transpose(Transpose { perm: perm.to_vec() });
        check(transpose(&[]), [iota(&[2, 3])], tensor(&[3, 2], [0i64, 3, 1, 4, 2, 5]));
        check(transpose(&[1, 2, 0]), [iota(&[2, 1, 3])], tensor(&[1, 3, 2], [0i64, 3, 1, 4, 2, 5]));
        assert_eq!(refusal(transpose(&[0, 0]), [iota(&[2, 3])]), "axis 0 is listed twice");
        assert_eq!(refusal(transpose(&[0]), [iota(&[2, 3])]), "perm [0] of a tensor of 2 dimensions");
    }

    #[test]
    fn depth_and_space_are_inverse() {
        for mode in [DepthMode::Dcr, DepthMode::Crd] {
            let attributes = DepthToSpace { blocksize: 2, mode };
            let deep = outputs(&Op::SpaceToDepth(attributes.clone()), [iota(&[1, 2, 4, 6])], 1).expect("even sides");
            assert_eq!(deep[0].shape(), [1, 8, 2, 3]);
            check(Op::DepthToSpace(attributes), [deep[0].clone()], iota(&[1, 2, 4, 6]));
        }
        let by = |blocksize| Op::DepthToSpace(DepthToSpace { blocksize, mode: DepthMode::Dcr });
        assert!(refusal(by(0), [iota(&[1, 4, 1, 1])]).contains("size 0"));
        assert!(refusal(by(3), [iota(&[1, 4, 1, 1])]).contains("no multiple"));
    }

    #[test]
    fn triangles_are_cut_at_the_diagonal() {
        let trilu = |upper, k: i64, expected: [i64; 6]| {
            check(Op::Trilu(Trilu { upper }), [iota(&[2, 3]), list([k])], tensor(&[2, 3], expected));
        };
        trilu(true, 0, [0, 1, 2, 0, 4, 5]);
        trilu(true, i64::MIN, [0, 1, 2, 3, 4, 5]);
        trilu(false, 0, [0, 0, 0, 3, 4, 0]);
        trilu(false, -1, [0, 0, 0, 3, 0, 0]);
        assert!(refusal(Op::Trilu(Trilu { upper: true }), [iota(&[3])]).contains("expected matrices"));
    }
}
