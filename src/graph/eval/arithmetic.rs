//! a

use super::EvalError;
use super::args::Args;
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn add(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn clip(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn div(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn max(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn mean(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn min(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn mod_(args: Args<'_>, op: &op::Mod) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn mul(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn prelu(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn pow(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn sub(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn sum(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}
