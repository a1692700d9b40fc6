//! Normalizations: the output has the input's shape, the parameters must fit its channels or last axes.

use super::dims::{self, Shape, expect_agreement};
use super::fact::{Call, Fact, Outputs, Problem, one};
use crate::graph::Dim;
use crate::graph::op::Op;
use crate::graph::tensor::DType;

/// `BatchNormalization`: the output, and in training the running mean and variance.
pub(super) fn batch(call: &Call<'_>) -> Outputs {
    expect_channels(call, 1..5)?;
    let running = |position| Fact::new(call.dtype(position), call.shape(position));
    Ok(vec![Fact::new(call.dtype(0), call.shape(0)), running(3), running(4)])
}

/// `InstanceNormalization`, `GroupNormalization`
pub(super) fn by_channel(call: &Call<'_>) -> Outputs {
    expect_channels(call, 1..3)?;
    one(call.same_dtype(0..3)?, call.shape(0))
}

fn expect_channels(call: &Call<'_>, parameters: std::ops::Range<usize>) -> Result<(), Problem> {
    // a tensor of one dimension has no channel axis of its own
    let mut channels = if call.dims(0).is_some_and(|dims| dims.len() >= 2) { call.dim(0, 1) } else { Dim::Unknown };
    for position in parameters {
        call.expect_rank(position, 1)?;
        let what = format!("the length of input {position}");
        channels = expect_agreement(&what, &channels, &call.dim(position, 0))?;
    }
    Ok(())
}

/// `LayerNormalization`: the output, mean and inverse standard deviation.
pub(super) fn layer(call: &Call<'_>) -> Outputs {
    let Op::LayerNormalization(attributes) = call.op else { return one(call.dtype(0), call.shape(0)) };
    let stash = i32::try_from(attributes.stash_type).ok().and_then(DType::from_onnx);
    let statistics = Fact::new(stash, statistics_shape(call, attributes.axis)?);
    Ok(vec![Fact::new(call.same_dtype(0..1)?, normalized_shape(call, 1..3)?), statistics.clone(), statistics])
}

fn statistics_shape(call: &Call<'_>, axis: i64) -> Result<Shape, Problem> {
    let Some(mut dims) = call.shape(0) else { return Ok(None) };
    let axis = dims::axis(axis, dims.len())?;
    dims.iter_mut().skip(axis).for_each(|dim| *dim = Dim::Known(1));
    Ok(Some(dims))
}

/// `RMSNormalization`
pub(super) fn root_mean_square(call: &Call<'_>) -> Outputs {
    one(call.dtype(0), normalized_shape(call, 1..2)?)
}

/// The shape of the input, to which the parameters must broadcast.
fn normalized_shape(call: &Call<'_>, parameters: std::ops::Range<usize>) -> Result<Shape, Problem> {
    for position in parameters.filter(|&position| call.has(position)) {
        dims::broadcast(call.dims(0), call.dims(position))?;
    }
    Ok(call.shape(0))
}

/// `SkipLayerNormalization`: the output, mean and inverse standard deviation (of which onnxruntime states no shape), and
/// the sum that was normalized.
pub(super) fn skip_layer(call: &Call<'_>) -> Outputs {
    dims::broadcast(call.dims(0), call.dims(1))?;
    let shape = normalized_shape(call, 2..5)?;
    let output = Fact::new(call.same_dtype(0..5)?, shape);
    let statistics = Fact::new(Some(DType::F32), None);
    Ok(vec![output.clone(), statistics.clone(), statistics, output])
}
