//! QuantizeLinear and DequantizeLinear one after the other, as one function of numbers: fake quantization.

use super::ExecError;
use crate::graph::axes::axis_from_start;
use crate::graph::op::{DequantizeLinear, QuantizeLinear};
use crate::graph::tensor::DType;

/// Numbers rounded to those that integers stand for, `(clamp(round(x / scale) + zero point) − zero point) · scale`: half to
/// even, the quotient in `f32`, NaN to the least integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantization {
    pub(crate) least: i32,
    pub(crate) greatest: i32,
    /// The axis with a scale and a zero point for each position; none where there is one of each for all.
    pub(crate) axis: Option<usize>,
}

impl Quantization {
    /// What a pair of nodes makes of a value of this rank by scales of this many axes, through integers of this type; none
    /// where the two differ, scales stand for blocks, the type is none of integers, or the quotient is rounded to another type than
    /// `f32`.
    ///
    /// Scales of 16 bits without a stated precision are divided by in `f32`, as onnxruntime does and as all arithmetic is
    /// here, where ONNX has it in their own type.
    pub(crate) fn of(
        quantize: &QuantizeLinear,
        dequantize: &DequantizeLinear,
        dtype: DType,
        rank: usize,
        is_per_tensor: bool,
    ) -> Option<Quantization> {
        if quantize.precision.is_some_and(|precision| precision != DType::F32) || dtype.n_bits() > 16 {
            return None;
        }
        let (least, greatest) = dtype.integer_range()?;
        let axis = match is_per_tensor {
            true => None,
            false if quantize.block_size != 0 || dequantize.block_size != 0 => return None,
            false => {
                let [one, other] = [quantize.axis, dequantize.axis].map(|axis| from_start(axis, rank));
                Some(one.filter(|_| one == other)?)
            }
        };
        Some(Quantization { least: i32::try_from(least).ok()?, greatest: i32::try_from(greatest).ok()?, axis })
    }
}

/// The axis of scales, counted from the start; a vector has one, whatever the attribute says.
pub(super) fn from_start(axis: i64, rank: usize) -> Option<usize> {
    if rank == 1 {
        return Some(0);
    }
    axis_from_start(axis, rank)
}

/// That nothing is divided by zero or turned around. NaN is left to what is computed from it, which is NaN.
///
/// # Errors
/// When a scale is zero or below.
pub(super) fn check_scales(node: &str, scales: impl IntoIterator<Item = impl Into<f64>>) -> Result<(), ExecError> {
    let mut scales = scales.into_iter().map(Into::into).enumerate();
    match scales.find(|(_, scale)| *scale <= 0.0) {
        Some((position, scale)) => Err(ExecError::Scale { node: node.to_string(), position, scale }),
        None => Ok(()),
    }
}
