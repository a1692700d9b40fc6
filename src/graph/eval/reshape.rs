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
