//! Pooling.

use super::EvalError;
use super::args::Args;
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn average_pool(args: Args<'_>, op: &op::AveragePool) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn global_average_pool(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn global_max_pool(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn max_pool(args: Args<'_>, op: &op::MaxPool) -> Result<Vec<Option<Tensor>>, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}
