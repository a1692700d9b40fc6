//! Operators that take elements by index, and those that find indices.

use super::EvalError;
use super::args::Args;
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn arg_max(args: Args<'_>, op: &op::ArgMax) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn arg_min(args: Args<'_>, op: &op::ArgMax) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn cum_sum(args: Args<'_>, op: &op::CumSum) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn gather(args: Args<'_>, op: &op::Gather) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn gather_elements(args: Args<'_>, op: &op::Gather) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn gather_nd(args: Args<'_>, op: &op::GatherND) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn non_zero(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn one_hot(args: Args<'_>, op: &op::OneHot) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn scatter_elements(args: Args<'_>, op: &op::ScatterElements) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn scatter_nd(args: Args<'_>, op: &op::ScatterND) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn top_k(args: Args<'_>, op: &op::TopK) -> Result<Vec<Option<Tensor>>, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}
