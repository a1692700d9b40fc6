//! Operators that change a tensor's shape and leave its elements where they are, and those that tell the shape.

use super::args::{Args, axis};
use super::layout::distinct_axes;
use super::numbers::int_list;
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::{Tensor, n_elements};

pub(super) fn identity(args: Args<'_>) -> Result<Tensor, EvalError> {
    Ok(args.get(0)?.clone())
}

pub(super) fn reshape(args: Args<'_>, op: &op::Reshape) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let asked = int_list(args.get(1)?)?;
    let refused = || invalid(format!("shape {:?} cannot become {asked:?}", data.shape()));
    let mut inferred = None;
    let mut shape = Vec::with_capacity(asked.len());
    for (position, &dim) in asked.iter().enumerate() {
        shape.push(match dim {
            0 if !op.allowzero => *data.shape().get(position).ok_or_else(refused)?,
            -1 if inferred.replace(position).is_none() => 1,
            _ => usize::try_from(dim).map_err(|_| refused())?,
        });
    }
    if let Some(position) = inferred {
        let n_others = n_elements(&shape).filter(|&n| n > 0 && data.len() % n == 0).ok_or_else(refused)?;
        shape[position] = data.len() / n_others;
    }
    data.reshaped(&shape).map_err(|_| refused())
}

pub(super) fn flatten(args: Args<'_>, op: &op::Flatten) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    // The axis may also be the one behind the last.
    let at = if usize::try_from(op.axis) == Ok(data.rank()) { data.rank() } else { axis(op.axis, data.rank())? };
    let (outer, inner) = data.shape().split_at(at);
    let product = |dims: &[usize]| n_elements(dims).ok_or_else(|| EvalError::TooLarge(data.shape().to_vec()));
    Ok(data.reshaped(&[product(outer)?, product(inner)?])?)
}

pub(super) fn squeeze(args: Args<'_>) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let dropped = match args.optional(1) {
        Some(axes) => {
            let axes = distinct_axes(&int_list(axes)?, data.rank())?;
            if let Some(&wide) = axes.iter().find(|&&axis| data.shape()[axis] != 1) {
                return Err(invalid(format!("axis {wide} of shape {:?} is not 1", data.shape())));
            }
            axes
        }
        None => (0..data.rank()).filter(|&axis| data.shape()[axis] == 1).collect(),
    };
    let kept = data.shape().iter().enumerate().filter(|(axis, _)| !dropped.contains(axis));
    Ok(data.reshaped(&kept.map(|(_, &dim)| dim).collect::<Vec<_>>())?)
}

pub(super) fn unsqueeze(args: Args<'_>) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let listed = int_list(args.get(1)?)?;
    let rank = data.rank() + listed.len();
    let mut is_new = vec![false; rank];
    for axis in distinct_axes(&listed, rank)? {
        is_new[axis] = true;
    }
    let mut own = data.shape().iter().copied();
    let shape: Vec<usize> = is_new.into_iter().map(|is_new| if is_new { 1 } else { own.next().unwrap_or(1) }).collect();
    Ok(data.reshaped(&shape)?)
}

pub(super) fn shape(args: Args<'_>, op: &op::Shape) -> Result<Tensor, EvalError> {
    let shape = args.get(0)?.shape();
    let bound = |at: i64| {
        let rank = shape.len() as i128;
        let from_start = if at < 0 { i128::from(at) + rank } else { at.into() };
        usize::try_from(from_start.clamp(0, rank)).expect("no more than the number of dimensions")
    };
    let (start, end) = (bound(op.start), op.end.map_or(shape.len(), bound));
    let dims = shape.get(start..end.max(start)).unwrap_or_default();
    let dims: Result<Vec<i64>, _> = dims.iter().map(|&dim| i64::try_from(dim)).collect();
    Ok(Tensor::vector(dims.map_err(|_| EvalError::TooLarge(shape.to_vec()))?))
}

pub(super) fn size(args: Args<'_>) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    Ok(Tensor::scalar(i64::try_from(data.len()).map_err(|_| EvalError::TooLarge(data.shape().to_vec()))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{check, iota, list, outputs, refusal};
    use crate::graph::op::{Flatten, Op, Reshape, Shape};

    /// The shape that the operator makes of a tensor of shape `from`.
    fn made<const N: usize>(op: &Op, from: &[usize], list_input: Option<[i64; N]>) -> Result<Vec<usize>, EvalError> {
        let made = outputs(op, [Some(iota(from)), list_input.map(list)], 1)?;
        Ok(made[0].shape().to_vec())
    }

    #[test]
    fn reshape_copies_zeros_and_infers_one() {
        let reshape = |allowzero| Op::Reshape(Reshape { allowzero });
        assert_eq!(made(&reshape(false), &[2, 3, 4], Some([0, -1])), Ok(vec![2, 12]));
        assert_eq!(made(&reshape(false), &[1], Some([])), Ok(vec![]));
        assert_eq!(made(&reshape(true), &[0, 3], Some([3, 0])), Ok(vec![3, 0]));
        let refused = |from: &[usize], to: [i64; 2]| made(&reshape(true), from, Some(to)).is_err();
        assert!(refused(&[4], [-1, -1]));
        assert!(refused(&[4], [-1, 3]));
        assert!(refused(&[4], [-2, -2]));
        assert!(refused(&[0], [0, -1]));
        assert!(refused(&[4], [i64::MAX, i64::MAX]));
        assert!(made(&reshape(false), &[4], Some([4, 0])).is_err());
    }

    #[test]
    fn axes_of_one_come_and_go() {
        assert_eq!(made::<0>(&Op::Squeeze, &[1, 3, 1], None), Ok(vec![3]));
        assert_eq!(made(&Op::Squeeze, &[1, 3, 1], Some([-1])), Ok(vec![1, 3]));
        assert!(made(&Op::Squeeze, &[1, 3, 1], Some([1])).is_err());
        assert!(made(&Op::Squeeze, &[1, 3, 1], Some([3])).is_err());
        assert_eq!(made(&Op::Unsqueeze, &[3], Some([-1, 0])), Ok(vec![1, 3, 1]));
        assert!(made(&Op::Unsqueeze, &[3], Some([0, 0])).is_err());
        assert!(made(&Op::Unsqueeze, &[3], Some([2])).is_err());
        let flatten = |axis| made::<0>(&Op::Flatten(Flatten { axis }), &[2, 3, 4], None);
        assert_eq!(flatten(0), Ok(vec![1, 24]));
        assert_eq!(flatten(-1), Ok(vec![6, 4]));
        assert_eq!(flatten(3), Ok(vec![24, 1]));
        assert!(flatten(4).is_err());
    }

    #[test]
    fn shapes_are_told() {
        let shape = |start, end| Op::Shape(Shape { start, end });
        check(shape(0, None), [iota(&[2, 3, 4])], list([2, 3, 4]));
        check(shape(-2, Some(-1)), [iota(&[2, 3, 4])], list([3]));
        check(shape(2, Some(i64::MIN)), [iota(&[2, 3, 4])], list([]));
        check(Op::Size, [iota(&[2, 3])], Tensor::scalar(6i64));
        check(Op::Identity, [iota(&[2, 3])], iota(&[2, 3]));
        assert_eq!(refusal(Op::Size, [None::<Tensor>]), "Size lacks input 0");
    }
}
