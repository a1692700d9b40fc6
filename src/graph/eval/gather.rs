//! Operators that take elements by index, and OneHot, which turns indices into elements.

use super::args::{Args, allocation, axis};
use super::numbers::{Numbers, float_scalar, int_list};
use super::packed::pick;
use super::shapes::{coordinates, strides};
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn gather(args: Args<'_>, op: &op::Gather) -> Result<Tensor, EvalError> {
    let (data, indices) = (args.get(0)?, args.get(1)?);
    let along = axis(op.axis, data.rank())?;
    let (outer, rest) = data.shape().split_at(along);
    let (dim, inner) = (rest[0], &rest[1..]);
    let shape = [outer, indices.shape(), inner].concat();
    if allocation(&shape)? == 0 {
        return pick(&[data], &shape, |_| (0, 0));
    }
    let indices = resolved(indices, |_| dim)?;
    let n_inner: usize = inner.iter().product();
    pick(&[data], &shape, |position| {
        let (outer, rest) = (position / n_inner / indices.len(), position / n_inner % indices.len());
        (0, (outer * dim + indices[rest]) * n_inner + position % n_inner)
    })
}

/// Every index counted from the start, the one at a position being into a dimension of size `dim(position)`.
///
/// # Errors
/// When one is outside its dimension.
fn resolved(indices: &Tensor, dim: impl Fn(usize) -> usize) -> Result<Vec<usize>, EvalError> {
    let resolve = |(position, index): (usize, i64)| {
        let dim = dim(position);
        axis(index, dim).map_err(|_| invalid(format!("index {index} is outside a dimension of {dim}")))
    };
    int_list(indices)?.into_iter().enumerate().map(resolve).collect()
}

pub(super) fn gather_elements(args: Args<'_>, op: &op::Gather) -> Result<Tensor, EvalError> {
    let (data, indices) = (args.get(0)?, args.get(1)?);
    let sources = positions_along(data.shape(), indices, op.axis)?;
    pick(&[data], indices.shape(), |position| (0, sources[position]))
}

/// For each of the indices the position in a tensor of shape `data` at the index's own coordinates, but for the one
/// `along` an axis, which it replaces.
pub(super) fn positions_along(data: &[usize], indices: &Tensor, along: i64) -> Result<Vec<usize>, EvalError> {
    let along = axis(along, data.len())?;
    let fits = |(axis, (&own, &dim)): (usize, (&usize, &usize))| axis == along || own <= dim;
    let same_rank = indices.rank() == data.len();
    if !same_rank || !indices.shape().iter().zip(data).enumerate().all(fits) {
        return Err(invalid(format!("indices of shape {:?} into shape {data:?}", indices.shape())));
    }
    let steps = strides(data);
    let indices_along = resolved(indices, |_| data[along])?;
    let position = |(number, index): (usize, usize)| {
        let mut at = coordinates(number, indices.shape());
        at[along] = index;
        at.iter().zip(&steps).map(|(coordinate, step)| coordinate * step).sum()
    };
    Ok(indices_along.into_iter().enumerate().map(position).collect())
}

pub(super) fn gather_nd(args: Args<'_>, op: &op::GatherND) -> Result<Tensor, EvalError> {
    let (data, indices) = (args.get(0)?, args.get(1)?);
    let n_batch_dims = usize::try_from(op.batch_dims).map_err(|_| invalid("negative batch_dims"))?;
    let blocks = blocks(data.shape(), indices, n_batch_dims)?;
    let shape = [&indices.shape()[..indices.rank() - 1], blocks.shape].concat();
    let n_inner: usize = if allocation(&shape)? == 0 { 1 } else { blocks.shape.iter().product() };
    pick(&[data], &shape, |position| (0, blocks.starts[position / n_inner] + position % n_inner))
}

/// The blocks of a tensor that tuples of indices name.
pub(super) struct Blocks<'a> {
    /// The shape of each.
    pub(super) shape: &'a [usize],
    /// The position of each one's first element.
    pub(super) starts: Vec<usize>,
}

/// The blocks of a tensor of shape `data` that `indices` names, whose last axis holds tuples and whose first ones, which
/// are those of the data, are batches.
pub(super) fn blocks<'a>(data: &'a [usize], indices: &Tensor, n_batch_dims: usize) -> Result<Blocks<'a>, EvalError> {
    let refused = || invalid(format!("indices of shape {:?} into shape {data:?}", indices.shape()));
    let (&n_each, tuples) = indices.shape().split_last().ok_or_else(refused)?;
    let n_indexed = n_batch_dims.checked_add(n_each).filter(|&n| n <= data.len()).ok_or_else(refused)?;
    if n_each == 0 || tuples.get(..n_batch_dims) != data.get(..n_batch_dims) {
        return Err(refused());
    }
    let steps = strides(data);
    let resolved = resolved(indices, |position| data[n_batch_dims + position % n_each])?;
    if resolved.is_empty() || data.contains(&0) {
        return Ok(Blocks { shape: &data[n_indexed..], starts: vec![0; resolved.len() / n_each] });
    }
    let n_in_batch: usize = tuples[n_batch_dims..].iter().product();
    let n_in_batch_data: usize = data[n_batch_dims..].iter().product();
    let start = |(number, tuple): (usize, &[usize])| {
        let inside: usize = tuple.iter().zip(&steps[n_batch_dims..]).map(|(index, step)| index * step).sum();
        number / n_in_batch * n_in_batch_data + inside
    };
    let starts = resolved.chunks(n_each).enumerate().map(start).collect();
    Ok(Blocks { shape: &data[n_indexed..], starts })
}

pub(super) fn one_hot(args: Args<'_>, op: &op::OneHot) -> Result<Tensor, EvalError> {
    let (indices, values) = (args.get(0)?, args.get(2)?);
    let depth = float_scalar(args.get(1)?)?;
    if !(0.0..=f64::from(u32::MAX)).contains(&depth) {
        return Err(invalid(format!("a depth of {depth}")));
    }
    if values.len() != 2 {
        return Err(invalid(format!("values of shape {:?}, expected [off, on]", values.shape())));
    }
    let depth = depth as usize;
    let along = axis(op.axis, indices.rank() + 1)?;
    let mut shape = indices.shape().to_vec();
    shape.insert(along, depth);
    if allocation(&shape)? == 0 {
        return pick(&[values], &shape, |_| (0, 0));
    }
    let hot: Vec<i128> = match Numbers::of(indices)? {
        Numbers::Int(ints) => ints,
        Numbers::Float(floats) => floats.into_iter().map(|x| if x.is_nan() { i128::MAX } else { x as i128 }).collect(),
    };
    let signed_depth = depth as i128;
    let hot: Vec<i128> = hot.into_iter().map(|at| if at < 0 { at.saturating_add(signed_depth) } else { at }).collect();
    let n_inner: usize = indices.shape()[along..].iter().product();
    pick(&[values], &shape, |position| {
        let (outer, at, inner) = (position / n_inner / depth, position / n_inner % depth, position % n_inner);
        (0, usize::from(hot[outer * n_inner + inner] == at as i128))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{check, iota, list, refusal, tensor};
    use crate::graph::op::{Gather, GatherND, OneHot, Op};

    #[test]
    fn gather_puts_indices_in_place_of_an_axis() {
        let gather = |axis| Op::Gather(Gather { axis });
        check(gather(0), [iota(&[3, 2]), list([-1, 0])], tensor(&[2, 2], [4i64, 5, 0, 1]));
        check(gather(-1), [iota(&[2, 3]), tensor(&[1, 2], [2i32, 1])], tensor(&[2, 1, 2], [2i64, 1, 5, 4]));
        check(gather(0), [iota(&[3]), Tensor::scalar(1i64)], Tensor::scalar(1i64));
        check(gather(1), [iota(&[2, 0]), list([])], iota(&[2, 0]));
        assert_eq!(refusal(gather(0), [iota(&[3]), list([3])]), "index 3 is outside a dimension of 3");
        assert_eq!(
            refusal(gather(0), [iota(&[3]), list([i64::MIN])]),
            format!("index {} is outside a dimension of 3", i64::MIN)
        );
        assert_eq!(refusal(gather(1), [iota(&[3]), list([0])]), "axis 1 is outside a tensor of 1 dimensions");
    }

    #[test]
    fn gather_elements_keeps_the_other_coordinates() {
        let gather = |axis| Op::GatherElements(Gather { axis });
        check(gather(1), [iota(&[2, 2]), tensor(&[2, 2], [0i64, 0, -1, 0])], tensor(&[2, 2], [0i64, 0, 3, 2]));
        check(gather(0), [iota(&[3, 2]), tensor(&[1, 1], [2i64])], tensor(&[1, 1], [4i64]));
        assert!(refusal(gather(0), [iota(&[2, 1]), tensor(&[1, 2], [0i64, 0])]).contains("into shape [2, 1]"));
        assert!(refusal(gather(0), [iota(&[2]), tensor(&[1, 1], [0i64])]).contains("into shape [2]"));
    }

    #[test]
    fn gather_nd_takes_blocks_within_batches() {
        let gather = |batch_dims| Op::GatherND(GatherND { batch_dims });
        check(gather(0), [iota(&[2, 2]), tensor(&[2, 2], [0i64, 0, 1, -1])], list([0, 3]));
        check(gather(0), [iota(&[2, 2]), tensor(&[1, 1], [1i64])], tensor(&[1, 2], [2i64, 3]));
        check(gather(1), [iota(&[2, 2, 2]), tensor(&[2, 1], [1i64, 0])], tensor(&[2, 2], [2i64, 3, 4, 5]));
        assert!(refusal(gather(1), [iota(&[2, 2]), tensor(&[1, 1], [0i64])]).contains("into shape [2, 2]"));
        assert!(refusal(gather(0), [iota(&[2]), tensor(&[1, 2], [0i64, 0])]).contains("into shape [2]"));
        assert!(refusal(gather(0), [iota(&[2]), Tensor::scalar(0i64)]).contains("into shape [2]"));
        assert!(refusal(gather(-1), [iota(&[2]), list([0])]).contains("negative"));
    }

    #[test]
    fn one_hot_leaves_out_what_is_outside() {
        let one_hot = |axis| Op::OneHot(OneHot { axis });
        let values = || tensor(&[2], [0f32, 5.0]);
        let inputs = |indices: Tensor, depth: i64| [indices, Tensor::scalar(depth), values()];
        check(one_hot(-1), inputs(list([1, -1, 7]), 2), tensor(&[3, 2], [0f32, 5.0, 0.0, 5.0, 0.0, 0.0]));
        check(one_hot(0), inputs(tensor(&[2], [0f32, 1.0]), 2), tensor(&[2, 2], [5f32, 0.0, 0.0, 5.0]));
        assert_eq!(refusal(one_hot(-1), inputs(list([1]), -1)), "a depth of -1");
        assert!(refusal(one_hot(2), inputs(list([1]), 2)).contains("axis 2"));
    }
}
