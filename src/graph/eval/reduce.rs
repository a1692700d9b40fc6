//! Reductions along axes.

use super::EvalError;
use super::args::Args;
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn reduce_l1(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn reduce_l2(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn reduce_log_sum(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn reduce_log_sum_exp(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn reduce_max(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn reduce_mean(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn reduce_min(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn reduce_prod(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn reduce_sum(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn reduce_sum_square(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}
