//! Comparisons, logic, and choosing by them.

use super::args::Args;
use super::numbers::Numbers;
use super::packed::pick;
use super::shapes::{broadcast, broadcast_positions};
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn and(args: Args<'_>) -> Result<Tensor, EvalError> {
    of_bools(args, |a, b| a && b)
}

pub(super) fn or(args: Args<'_>) -> Result<Tensor, EvalError> {
    of_bools(args, |a, b| a || b)
}

pub(super) fn xor(args: Args<'_>) -> Result<Tensor, EvalError> {
    of_bools(args, |a, b| a != b)
}

pub(super) fn not(args: Args<'_>) -> Result<Tensor, EvalError> {
    let tensor = args.get(0)?;
    let bools = tensor.as_slice::<bool>()?.iter().map(|x| !x).collect();
    Ok(Tensor::new(tensor.shape(), bools)?)
}

pub(super) fn equal(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    match (a.strings(), b.strings()) {
        (Some(x), Some(y)) => pairwise(a, b, |i, j| x[i] == y[j]),
        _ => compared(args, |a, b| a == b, |a, b| a == b),
    }
}

pub(super) fn less(args: Args<'_>) -> Result<Tensor, EvalError> {
    compared(args, |a, b| a < b, |a, b| a < b)
}

pub(super) fn less_or_equal(args: Args<'_>) -> Result<Tensor, EvalError> {
    compared(args, |a, b| a <= b, |a, b| a <= b)
}

pub(super) fn greater(args: Args<'_>) -> Result<Tensor, EvalError> {
    compared(args, |a, b| a > b, |a, b| a > b)
}

pub(super) fn greater_or_equal(args: Args<'_>) -> Result<Tensor, EvalError> {
    compared(args, |a, b| a >= b, |a, b| a >= b)
}

pub(super) fn is_nan(args: Args<'_>) -> Result<Tensor, EvalError> {
    classified(args, f64::is_nan)
}

pub(super) fn is_inf(args: Args<'_>, op: &op::IsInf) -> Result<Tensor, EvalError> {
    classified(args, |x| (op.detect_positive && x == f64::INFINITY) || (op.detect_negative && x == f64::NEG_INFINITY))
}

/// Of any element type.
pub(super) fn where_(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (condition, x, y) = (args.get(0)?, args.get(1)?, args.get(2)?);
    let shape = broadcast(&[condition.shape(), x.shape(), y.shape()])?;
    let condition_at = broadcast_positions(condition.shape(), &shape)?;
    let (x_at, y_at) = (broadcast_positions(x.shape(), &shape)?, broadcast_positions(y.shape(), &shape)?);
    let condition = condition.as_slice::<bool>()?;
    pick(&[x, y], &shape, |idx| if condition[condition_at[idx]] { (0, x_at[idx]) } else { (1, y_at[idx]) })
}

fn of_bools(args: Args<'_>, function: impl Fn(bool, bool) -> bool) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    let (x, y) = (a.as_slice::<bool>()?, b.as_slice::<bool>()?);
    pairwise(a, b, |i, j| function(x[i], y[j]))
}

fn compared(
    args: Args<'_>,
    of_floats: impl Fn(f64, f64) -> bool,
    of_ints: impl Fn(i128, i128) -> bool,
) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    if a.dtype() != b.dtype() {
        return Err(invalid(format!("{} of {} and {}", args.op.name(), a.dtype(), b.dtype())));
    }
    match (Numbers::of(a)?, Numbers::of(b)?) {
        (Numbers::Float(x), Numbers::Float(y)) => pairwise(a, b, |i, j| of_floats(x[i], y[j])),
        (Numbers::Int(x), Numbers::Int(y)) => pairwise(a, b, |i, j| of_ints(x[i], y[j])),
        (Numbers::Float(_), Numbers::Int(_)) | (Numbers::Int(_), Numbers::Float(_)) => Err(args.undefined(a.dtype())),
    }
}

fn pairwise(a: &Tensor, b: &Tensor, function: impl Fn(usize, usize) -> bool) -> Result<Tensor, EvalError> {
    let shape = broadcast(&[a.shape(), b.shape()])?;
    let positions = broadcast_positions(a.shape(), &shape)?.into_iter().zip(broadcast_positions(b.shape(), &shape)?);
    Ok(Tensor::new(&shape, positions.map(|(i, j)| function(i, j)).collect())?)
}

fn classified(args: Args<'_>, function: impl Fn(f64) -> bool) -> Result<Tensor, EvalError> {
    let tensor = args.get(0)?;
    match Numbers::of(tensor)? {
        Numbers::Float(xs) => Ok(Tensor::new(tensor.shape(), xs.into_iter().map(function).collect())?),
        Numbers::Int(_) => Err(args.undefined(tensor.dtype())),
    }
}
