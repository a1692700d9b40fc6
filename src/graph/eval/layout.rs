//! Operators that move elements without looking at them, and those about shapes.

use super::EvalError;
use super::args::Args;
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn concat(args: Args<'_>, op: &op::Concat) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn constant(args: Args<'_>, op: &op::Constant) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn constant_of_shape(args: Args<'_>, op: &op::ConstantOfShape) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn depth_to_space(args: Args<'_>, op: &op::DepthToSpace) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn dropout(args: Args<'_>, op: &op::Dropout) -> Result<Vec<Option<Tensor>>, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn expand(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn flatten(args: Args<'_>, op: &op::Flatten) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn identity(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn pad(args: Args<'_>, op: &op::Pad) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn range(args: Args<'_>, op: &op::Range) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn reshape(args: Args<'_>, op: &op::Reshape) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn shape(args: Args<'_>, op: &op::Shape) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn size(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn slice(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn space_to_depth(args: Args<'_>, op: &op::DepthToSpace) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn split(args: Args<'_>, op: &op::Split) -> Result<Vec<Option<Tensor>>, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn squeeze(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn tile(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn transpose(args: Args<'_>, op: &op::Transpose) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn trilu(args: Args<'_>, op: &op::Trilu) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn unsqueeze(args: Args<'_>) -> Result<Tensor, EvalError> {
    Err(EvalError::Undefined(args.op.name().to_string()))
}
