//! Softmax and its kin.

use super::EvalError;
use super::args::Args;
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn hardmax(args: Args<'_>, op: &op::Softmax) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn log_softmax(args: Args<'_>, op: &op::Softmax) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn softmax(args: Args<'_>, op: &op::Softmax) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}
