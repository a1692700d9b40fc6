//! Linear quantization: from floats to narrow numbers and back, per tensor, per axis or per block.

use super::args::{Args, axis};
use super::minifloat::Overflow;
use super::numbers::{Numbers, nearest};
use super::{EvalError, invalid};
use crate::graph::op::{self, RoundMode};
use crate::graph::tensor::{DType, Tensor};

/// `saturate(round(x / y_scale) + y_zero_point)`; NaN becomes the least integer.
///
/// The quotient is rounded to `precision`, by default the type of the scale, as ONNX has it; onnxruntime 1.31 divides
/// halves in `f32`, which moves about one in sixty results by one.
pub(super) fn quantize_linear(args: Args<'_>, op: &op::QuantizeLinear) -> Result<Tensor, EvalError> {
    let (x, scale) = (args.get(0)?, args.get(1)?);
    let zero_point = args.optional(2);
    let dtype = match (zero_point.map(Tensor::dtype), op.output_dtype) {
        (Some(given), Some(stated)) if given != stated => {
            return Err(invalid(format!("output_dtype is {stated}, the zero point is {given}")));
        }
        (given, stated) => given.or(stated).unwrap_or(DType::U8),
    };
    if !is_quantized(dtype) {
        return Err(args.undefined(dtype));
    }
    let precision = division_type(op.precision.unwrap_or(scale.dtype()));
    let blocks = blocks(x.shape(), scale.shape(), op.axis, op.block_size)?;
    let scales = Numbers::floats(scale)?;
    let zero_points = zero_points(zero_point, scale)?;
    let quotient = |(x, &block): (f64, &usize)| {
        let quotient = nearest(x, precision) / nearest(scales[block], precision);
        (nearest(quotient, precision), zero_points[block])
    };
    let quotients = Numbers::floats(x)?.into_iter().zip(&blocks).map(quotient);
    quantized(quotients, dtype, x.shape(), op.saturate)
}

/// `(x - x_zero_point) · x_scale`
pub(super) fn dequantize_linear(args: Args<'_>, op: &op::DequantizeLinear) -> Result<Tensor, EvalError> {
    let (x, scale) = (args.get(0)?, args.get(1)?);
    if !is_quantized(x.dtype()) && x.dtype() != DType::I32 {
        return Err(args.undefined(x.dtype()));
    }
    let dtype = op.output_dtype.unwrap_or(scale.dtype());
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Err(EvalError::Undefined(format!("DequantizeLinear to {dtype}")));
    }
    let zero_point = args.optional(2);
    if let Some(other) = zero_point.filter(|zero_point| zero_point.dtype() != x.dtype()) {
        return Err(invalid(format!("x is {}, the zero point is {}", x.dtype(), other.dtype())));
    }
    let blocks = blocks(x.shape(), scale.shape(), op.axis, op.block_size)?;
    let scales = Numbers::floats(scale)?;
    let zero_points = zero_points(zero_point, scale)?;
    let value = |(x, &block): (f64, &usize)| nearest(x - zero_points[block], DType::F32) * scales[block];
    let values = Numbers::floats(x)?.into_iter().zip(&blocks).map(value).collect();
    Numbers::Float(values).into_tensor(dtype, x.shape())
}

/// To `u8` over the range of the data, zero included; computed in `f32` step by step, as the operator's definition in
/// primitive operators has it.
pub(super) fn dynamic_quantize_linear(args: Args<'_>) -> Result<Vec<Option<Tensor>>, EvalError> {
    let x = args.get(0)?;
    let floats = x.as_slice::<f32>()?;
    let (least, greatest) = floats.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
    let scale = if least == greatest { 1.0 } else { (greatest - least) / 255.0 };
    let zero_point = (0.0 - least / scale).clamp(0.0, 255.0).round_ties_even();
    let quantized = floats.iter().map(|&x| to_int((x / scale).into(), zero_point.into(), (0, 255))).collect();
    Ok(vec![
        Some(Numbers::Int(quantized).into_tensor(DType::U8, x.shape())?),
        Some(Tensor::scalar(scale)),
        Some(Numbers::Float(vec![zero_point.into()]).into_tensor(DType::U8, &[])?),
    ])
}

/// A tensor of these (quotient, zero point): integers rounded half to even, shifted, saturated, NaN becoming the least;
/// narrow floats shifted, then rounded.
///
/// # Errors
/// When the shape has another number of elements.
pub(super) fn quantized(
    quotients: impl Iterator<Item = (f64, f64)>,
    dtype: DType,
    shape: &[usize],
    saturate: bool,
) -> Result<Tensor, EvalError> {
    let overflow = if saturate { Overflow::Saturate } else { Overflow::Special };
    let numbers = match dtype.integer_range() {
        Some(range) => Numbers::Int(quotients.map(|(quotient, zero)| to_int(quotient, zero, range)).collect()),
        None => Numbers::Float(quotients.map(|(quotient, zero)| quotient + zero).collect()),
    };
    numbers.rounded(dtype, shape, overflow, RoundMode::Nearest)
}

/// Rounded half to even, shifted, saturated; NaN becomes the least.
fn to_int(quotient: f64, zero_point: f64, (least, greatest): (i128, i128)) -> i128 {
    if quotient.is_nan() {
        return least;
    }
    (quotient.round_ties_even() + zero_point).clamp(least as f64, greatest as f64) as i128
}

/// For every element of a tensor, row-major, the number of the scale that is for it: one scale for all, one for each
/// position along an axis, or one for each `block_size` of them.
fn blocks(shape: &[usize], scales: &[usize], along: i64, block_size: i64) -> Result<Vec<usize>, EvalError> {
    let n_elements: usize = shape.iter().product();
    if scales.iter().product::<usize>() == 1 && scales.len() <= 1 {
        return Ok(vec![0; n_elements]);
    }
    let along = if shape.len() == 1 { 0 } else { axis(along, shape.len())? };
    let block_size = usize::try_from(block_size).map_err(|_| invalid(format!("block_size is {block_size}")))?;
    let mut expected = shape.to_vec();
    if block_size == 0 {
        expected = vec![shape[along]];
    } else {
        expected[along] = shape[along].div_ceil(block_size);
    }
    if scales != expected {
        return Err(invalid(format!(
            "scales of shape {expected:?} are needed on axis {along} of {shape:?}, got {scales:?}"
        )));
    }
    let inner: usize = shape[along + 1..].iter().product();
    let block = |element: usize| {
        let (outer, position, within) =
            (element / inner / shape[along], element / inner % shape[along], element % inner);
        if block_size == 0 { position } else { (outer * expected[along] + position / block_size) * inner + within }
    };
    Ok((0..n_elements).map(block).collect())
}

fn zero_points(zero_point: Option<&Tensor>, scale: &Tensor) -> Result<Vec<f64>, EvalError> {
    match zero_point {
        None => Ok(vec![0.0; scale.len()]),
        Some(tensor) if tensor.len() == scale.len() => Numbers::floats(tensor),
        Some(tensor) => Err(invalid(format!("{} zero points for {} scales", tensor.len(), scale.len()))),
    }
}

/// The type to whose precision a quotient by a scale of this type is rounded.
fn division_type(scale: DType) -> DType {
    if matches!(scale, DType::F64 | DType::F16 | DType::BF16) { scale } else { DType::F32 }
}

/// Whether a tensor can be quantized to this type.
fn is_quantized(dtype: DType) -> bool {
    match dtype {
        DType::I16 | DType::I8 | DType::U16 | DType::U8 | DType::I4 | DType::U4 | DType::I2 | DType::U2 => true,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F4E2M1 => true,
        DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::F8E8M0 => false,
        DType::I64 | DType::I32 | DType::U64 | DType::U32 => false,
        DType::Bool | DType::String | DType::Complex64 | DType::Complex128 => false,
    }
}
