//! Operators between numbers and their quantized form, and the elementwise ones that work on the latter.

use super::dims;
use super::fact::{Call, Fact, Outputs, one};
use super::layout::concat_shape;
use crate::graph::Dim;
use crate::graph::op::Op;
use crate::graph::tensor::DType;

/// `QuantizeLinear`: to the zero point's type, else the one stated, else `u8`.
pub(super) fn quantize(call: &Call<'_>) -> Outputs {
    let Op::QuantizeLinear(attributes) = call.op else { return one(None, None) };
    let stated = attributes.output_dtype.unwrap_or(DType::U8);
    one(if call.has(2) { call.dtype(2) } else { Some(stated) }, call.shape(0))
}

/// `DequantizeLinear`: to the type stated, else the scale's.
pub(super) fn dequantize(call: &Call<'_>) -> Outputs {
    let Op::DequantizeLinear(attributes) = call.op else { return one(None, None) };
    call.same_dtype([0, 2])?;
    one(attributes.output_dtype.or(call.dtype(1)), call.shape(0))
}

/// `DynamicQuantizeLinear`: `u8`, with its scale and zero point.
pub(super) fn dynamic_quantize(call: &Call<'_>) -> Outputs {
    let scalar = |dtype| Fact::new(Some(dtype), Some(Vec::new()));
    Ok(vec![Fact::new(Some(DType::U8), call.shape(0)), scalar(DType::F32), scalar(DType::U8)])
}

/// `QLinearAdd`, `QLinearMul`: (value, scale, zero point) twice.
pub(super) fn arithmetic(call: &Call<'_>) -> Outputs {
    one(call.same_dtype([0, 3])?, dims::broadcast(call.dims(0), call.dims(3))?)
}

/// `QLinearConcat`: the output's scale and zero point, then (value, scale, zero point) any number of times.
pub(super) fn concat(call: &Call<'_>) -> Outputs {
    let Op::QLinearConcat(attributes) = call.op else { return one(None, None::<Vec<Dim>>) };
    let positions: Vec<usize> = (2..call.inputs.len()).step_by(3).collect();
    let dtype = call.dtype(1).or(call.same_dtype(positions.iter().copied())?);
    one(dtype, concat_shape(call, attributes.axis, &positions)?)
}
