//! Linear quantization: from floats to narrow numbers and back, per tensor, per axis or per block.

use super::args::{Args, allocation, axis};
use super::minifloat::Overflow;
use super::numbers::{Numbers, nearest};
use super::shapes::extent;
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
    let n_elements = allocation(shape)?;
    if scales.is_empty() || scales == [1] {
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
    let inner = extent(&shape[along + 1..]);
    let block = |element: usize| {
        let (outer, position, within) =
            (element / inner / shape[along], element / inner % shape[along], element % inner);
        match position.checked_div(block_size) {
            None => position,
            Some(block) => (outer * expected[along] + block) * inner + within,
        }
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
        DType::F6E2M3 | DType::F6E3M2 => true,
        DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::F8E8M0 => false,
        DType::I64 | DType::I32 | DType::U64 | DType::U32 => false,
        DType::Bool | DType::String | DType::Complex64 | DType::Complex128 => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::operator;
    use crate::graph::eval::testing::{elements, output, tensor};
    use crate::graph::op::Op;

    fn quantize(op: op::QuantizeLinear, inputs: &[&Tensor]) -> Result<Tensor, EvalError> {
        output(&Op::QuantizeLinear(op), inputs)
    }

    fn dequantize(op: op::DequantizeLinear, inputs: &[&Tensor]) -> Result<Tensor, EvalError> {
        output(&Op::DequantizeLinear(op), inputs)
    }

    /// Expectations from onnxruntime 1.31.
    #[test]
    fn quotients_round_half_to_even_before_the_zero_point() {
        let x = tensor(&[8], [-1.5f32, -0.5, 0.0, 0.5, 1.5, 2.5, 37.3, 1000.0]);
        let bytes = quantize(op::QuantizeLinear::default(), &[&x, &Tensor::scalar(1f32), &Tensor::scalar(3i8)]);
        assert_eq!(bytes.map(|t| elements::<i8>(&t)), Ok(vec![1, 3, 3, 3, 5, 5, 40, 127]));
        let bytes = quantize(op::QuantizeLinear::default(), &[&x, &Tensor::scalar(0.3f32), &Tensor::scalar(128u8)]);
        assert_eq!(bytes.map(|t| elements::<u8>(&t)), Ok(vec![123, 126, 128, 130, 133, 136, 252, 255]));
        let nan = tensor(&[2], [f32::NAN, f32::INFINITY]);
        let bytes = quantize(op::QuantizeLinear::default(), &[&nan, &Tensor::scalar(1f32)]);
        assert_eq!(bytes.map(|t| elements::<u8>(&t)), Ok(vec![0, 255]));
    }

    #[test]
    fn scales_are_for_all_for_an_axis_or_for_blocks() {
        let x = tensor(&[2, 3], [2f32, 4.0, 6.0, 8.0, 10.0, 12.0]);
        let of = |op: op::QuantizeLinear, scale: &Tensor| quantize(op, &[&x, scale]).map(|t| elements::<u8>(&t));
        let axis = |axis| op::QuantizeLinear { axis, ..Default::default() };
        assert_eq!(of(axis(1), &tensor(&[1], [2f32])), Ok(vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(of(axis(-2), &tensor(&[2], [1f32, 2.0])), Ok(vec![2, 4, 6, 4, 5, 6]));
        assert_eq!(of(axis(1), &tensor(&[3], [1f32, 2.0, 6.0])), Ok(vec![2, 2, 1, 8, 5, 2]));
        let blocked = op::QuantizeLinear { axis: 1, block_size: 2, ..Default::default() };
        assert_eq!(of(blocked, &tensor(&[2, 2], [1f32, 2.0, 4.0, 6.0])), Ok(vec![2, 4, 3, 2, 2, 2]));
        assert_eq!(
            of(axis(1), &tensor(&[2], [1f32, 2.0])).expect_err("three positions").to_string(),
            "scales of shape [3] are needed on axis 1 of [2, 3], got [2]"
        );
    }

    #[test]
    fn the_type_is_that_of_the_zero_point_or_stated() {
        let x = tensor(&[2], [-1f32, 9.0]);
        let stated = |dtype| op::QuantizeLinear { output_dtype: Some(dtype), ..Default::default() };
        let nibbles = quantize(stated(DType::I4), &[&x, &Tensor::scalar(1f32)]).and_then(|t| Numbers::ints(&t));
        assert_eq!(nibbles, Ok(vec![-1, 7]));
        let narrow = quantize(stated(DType::F8E4M3FN), &[&x, &Tensor::scalar(0.01f32)]);
        assert_eq!(narrow.and_then(|t| Numbers::floats(&t)), Ok(vec![-96.0, 448.0]));
        let narrow = quantize(stated(DType::F6E3M2), &[&x, &Tensor::scalar(0.5f32)]).expect("defined");
        assert_eq!(Numbers::floats(&narrow), Ok(vec![-2.0, 16.0]));
        let wide = dequantize(op::DequantizeLinear::default(), &[&narrow, &Tensor::scalar(0.5f32)]);
        assert_eq!(wide.map(|t| elements::<f32>(&t)), Ok(vec![-1.0, 8.0]));
        let message = |dtype, inputs: &[&Tensor]| quantize(stated(dtype), inputs).expect_err("refused").to_string();
        let scale = Tensor::scalar(1f32);
        assert_eq!(message(DType::I8, &[&x, &scale, &Tensor::scalar(0u8)]), "output_dtype is i8, the zero point is u8");
        assert_eq!(message(DType::F32, &[&x, &scale]), "QuantizeLinear on f32 is not defined");
    }

    #[test]
    fn the_quotient_has_the_precision_of_the_scale_or_that_stated() {
        // 101.47 is between 101.4375 and 101.5 in `f16`, nearer to the second.
        let x = Tensor::scalar(101.47f32);
        let scale = Tensor::scalar(half::f16::from_f32(1.0));
        let with = |precision| {
            let op = op::QuantizeLinear { precision, ..Default::default() };
            quantize(op, &[&x, &scale]).map(|t| elements::<u8>(&t)[0])
        };
        assert_eq!(with(None), Ok(102));
        assert_eq!(with(Some(DType::F32)), Ok(101));
    }

    #[test]
    fn dequantized_values_are_exact_to_the_output_type() {
        let x = tensor(&[2, 2], [0u8, 3, 128, 255]);
        let (scale, zero) = (tensor(&[2], [0.5f32, 0.1]), tensor(&[2], [3u8, 255]));
        let values = dequantize(op::DequantizeLinear::default(), &[&x, &scale, &zero]);
        assert_eq!(values.map(|t| elements::<f32>(&t)), Ok(vec![-1.5, -252f32 * 0.1, 62.5, 0.0]));
        let wide = dequantize(op::DequantizeLinear::default(), &[&tensor(&[1], [i32::MAX]), &Tensor::scalar(1f32)]);
        assert_eq!(wide.map(|t| elements::<f32>(&t)), Ok(vec![i32::MAX as f32]));
        let message = |inputs: &[&Tensor]| dequantize(op::DequantizeLinear::default(), inputs).expect_err("refused");
        assert_eq!(message(&[&x, &scale, &Tensor::scalar(0i8)]).to_string(), "x is u8, the zero point is i8");
        assert_eq!(message(&[&x, &scale, &Tensor::scalar(0u8)]).to_string(), "1 zero points for 2 scales");
        assert_eq!(message(&[&scale, &scale]).to_string(), "DequantizeLinear on f32 is not defined");
    }

    #[test]
    fn a_tensor_without_elements_has_any_dimensions() {
        let shape = [1 << 40, 1 << 40, 0];
        let x = Tensor::zeros(DType::F32, &shape).expect("no bytes");
        let quantized = quantize(op::QuantizeLinear::default(), &[&x, &Tensor::scalar(1f32)]);
        assert_eq!(quantized, Tensor::zeros(DType::U8, &shape).map_err(EvalError::from));
    }

    /// Expectations from onnxruntime 1.31.
    #[test]
    fn the_range_of_the_data_gives_the_scale() {
        let x = tensor(&[7], [-1.5f32, -0.5, 0.0, 0.5, 1.5, 2.5, 37.3]);
        let outputs = operator(&Op::DynamicQuantizeLinear, &[Some(x)], 3).expect("defined");
        let expected =
            [tensor(&[7], [0u8, 7, 10, 13, 20, 26, 255]), Tensor::scalar(0.152_156_86_f32), Tensor::scalar(10u8)];
        assert_eq!(outputs, expected.map(Some));
        let zeros = operator(&Op::DynamicQuantizeLinear, &[Some(tensor(&[1], [0f32]))], 3).expect("defined");
        assert_eq!(zeros[1], Some(Tensor::scalar(1f32)));
    }
}
