//! Inputs of the float operators as `f64`, and the checks that they share.

use super::args::Args;
use super::numbers::Numbers;
use super::{EvalError, invalid};
use crate::graph::tensor::{DType, Tensor};

/// The input at this position.
///
/// # Errors
/// When it is missing, or of another type than the float types of 16 bits and more.
pub(super) fn floats(args: Args<'_>, position: usize) -> Result<Vec<f64>, EvalError> {
    floats_of(args, args.get(position)?)
}

/// The input at this position, none where it is left out.
///
/// # Errors
/// As [`floats`].
pub(super) fn optional_floats(args: Args<'_>, position: usize) -> Result<Option<Vec<f64>>, EvalError> {
    args.optional(position).map(|tensor| floats_of(args, tensor)).transpose()
}

fn floats_of(args: Args<'_>, tensor: &Tensor) -> Result<Vec<f64>, EvalError> {
    match Numbers::of(tensor)? {
        Numbers::Float(values) if tensor.dtype().n_bits() >= 16 => Ok(values),
        Numbers::Float(_) | Numbers::Int(_) => Err(args.undefined(tensor.dtype())),
    }
}

/// The input at this position as integers, `bool` among them.
///
/// # Errors
/// When it is missing or of another type.
pub(super) fn integers(args: Args<'_>, position: usize) -> Result<Vec<i128>, EvalError> {
    let tensor = args.get(position)?;
    match Numbers::of(tensor)? {
        Numbers::Int(values) => Ok(values),
        Numbers::Float(_) => Err(args.undefined(tensor.dtype())),
    }
}

/// The one number that the input at this position holds.
///
/// # Errors
/// When it holds another number of elements, or is no float.
pub(super) fn float_scalar(args: Args<'_>, position: usize) -> Result<f64, EvalError> {
    match floats(args, position)?[..] {
        [value] => Ok(value),
        _ => Err(one_element(args, position)),
    }
}

/// The one integer that the input at this position holds, none where it is left out.
///
/// # Errors
/// When it holds another number of elements, or is no integer.
pub(super) fn integer_scalar(args: Args<'_>, position: usize) -> Result<Option<i128>, EvalError> {
    if args.optional(position).is_none() {
        return Ok(None);
    }
    match integers(args, position)?[..] {
        [value] => Ok(Some(value)),
        _ => Err(one_element(args, position)),
    }
}

fn one_element(args: Args<'_>, position: usize) -> EvalError {
    invalid(format!("{} takes one element as input {position}", args.op.name()))
}

/// The element type that all the inputs at these positions have, those left out aside.
///
/// # Errors
/// When they differ, or none is there.
pub(super) fn one_type(args: Args<'_>, positions: &[usize]) -> Result<DType, EvalError> {
    let mut types = positions.iter().filter_map(|&position| args.optional(position)).map(Tensor::dtype);
    let dtype = types.next().ok_or_else(|| invalid(format!("{} lacks its inputs", args.op.name())))?;
    match types.find(|&other| other != dtype) {
        Some(other) => Err(invalid(format!("{} takes inputs of one type, got {dtype} and {other}", args.op.name()))),
        None => Ok(dtype),
    }
}

/// The input at this position, where it is there, has this shape.
///
/// # Errors
/// When it has another.
pub(super) fn expect_shape(args: Args<'_>, position: usize, shape: &[usize]) -> Result<(), EvalError> {
    match args.optional(position) {
        Some(tensor) if tensor.shape() != shape => Err(invalid(format!(
            "{} takes input {position} of shape {shape:?}, got {:?}",
            args.op.name(),
            tensor.shape()
        ))),
        Some(_) | None => Ok(()),
    }
}

/// The input at this position, broadcast one way to this shape.
///
/// # Errors
/// When its shape does not broadcast.
pub(super) fn stretched(args: Args<'_>, position: usize, shape: &[usize]) -> Result<Vec<f64>, EvalError> {
    let tensor = args.get(position)?;
    let values = floats(args, position)?;
    let from = tensor.shape();
    let refused = || invalid(format!("{} broadcasts {from:?} to {shape:?}", args.op.name()));
    let n_leading = shape.len().checked_sub(from.len()).ok_or_else(refused)?;
    let aligned = from.iter().zip(&shape[n_leading..]);
    if aligned.clone().any(|(&have, &want)| have != want && have != 1) {
        return Err(refused());
    }
    if shape.contains(&0) {
        return Ok(Vec::new());
    }
    let mut strides = vec![0; shape.len()];
    let mut stride = 1;
    for (axis, &size) in from.iter().enumerate().rev() {
        strides[n_leading + axis] = if size == 1 { 0 } else { stride };
        stride *= size;
    }
    let dims: Vec<(usize, usize)> = shape.iter().copied().zip(strides).collect();
    Ok(offsets(&dims).into_iter().map(|offset| values[offset]).collect())
}

/// The offset of every element of an array of these (size, stride) in row-major order.
pub(super) fn offsets(dims: &[(usize, usize)]) -> Vec<usize> {
    let mut offsets = vec![0];
    for &(size, stride) in dims {
        offsets = offsets.iter().flat_map(|&offset| (0..size).map(move |idx| offset + idx * stride)).collect();
    }
    offsets
}

/// Rewrites every run of elements along an axis.
pub(super) fn map_lanes(values: &mut [f64], shape: &[usize], axis: usize, mut rewrite: impl FnMut(&mut [f64])) {
    if values.is_empty() {
        return;
    }
    let n_lane = shape[axis];
    let inner: usize = shape[axis + 1..].iter().product();
    let mut lane = vec![0.0; n_lane];
    for block in values.chunks_mut(n_lane * inner) {
        for start in 0..inner {
            for (idx, value) in lane.iter_mut().enumerate() {
                *value = block[idx * inner + start];
            }
            rewrite(&mut lane);
            for (idx, &value) in lane.iter().enumerate() {
                block[idx * inner + start] = value;
            }
        }
    }
}
