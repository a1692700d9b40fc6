//! q

use super::EvalError;
use super::args::Args;
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn dequantize_linear(args: Args<'_>, op: &op::DequantizeLinear) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn dynamic_quantize_linear(args: Args<'_>) -> Result<Vec<Option<Tensor>>, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn matmul_integer(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn qlinear_matmul(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn quantize_linear(args: Args<'_>, op: &op::QuantizeLinear) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}
