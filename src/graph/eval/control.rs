//! Operators with graphs inside: If, Loop, Scan.

use super::EvalError;
use super::args::Args;
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn if_(args: Args<'_>, op: &op::If) -> Result<Vec<Option<Tensor>>, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn loop_(args: Args<'_>, op: &op::Loop) -> Result<Vec<Option<Tensor>>, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn scan(args: Args<'_>, op: &op::Scan) -> Result<Vec<Option<Tensor>>, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}
