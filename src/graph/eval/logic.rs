//! l

use super::EvalError;
use super::args::Args;
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn and(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn equal(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn greater(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn greater_or_equal(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn is_inf(args: Args<'_>, op: &op::IsInf) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn is_nan(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn less(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn less_or_equal(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn not(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn or(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn where_(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn xor(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}
