//! Normalizations.

use super::EvalError;
use super::args::Args;
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn batch_normalization(
    args: Args<'_>,
    op: &op::BatchNormalization,
) -> Result<Vec<Option<Tensor>>, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn group_normalization(args: Args<'_>, op: &op::GroupNormalization) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn instance_normalization(args: Args<'_>, op: &op::InstanceNormalization) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn lrn(args: Args<'_>, op: &op::LRN) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn layer_normalization(
    args: Args<'_>,
    op: &op::LayerNormalization,
) -> Result<Vec<Option<Tensor>>, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn lp_normalization(args: Args<'_>, op: &op::LpNormalization) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn rms_normalization(args: Args<'_>, op: &op::LayerNormalization) -> Result<Tensor, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}

pub(super) fn skip_layer_normalization(
    args: Args<'_>,
    op: &op::SkipLayerNormalization,
) -> Result<Vec<Option<Tensor>>, EvalError> {
    let _ = op;
    Err(EvalError::Undefined(args.op.name().to_string()))
}
