//! Float tensors as numbers and back.

use crate::graph::tensor::{DType, Tensor, TensorError};

/// The elements of a tensor of `f64`, `f32`, `f16` or `bf16`.
///
/// # Errors
/// For the other types.
pub(super) fn numbers(tensor: &Tensor) -> Result<Vec<f64>, TensorError> {
    match tensor.dtype() {
        DType::F64 => tensor.to_vec::<f64>(),
        _ => Ok(tensor.to_f32s()?.iter().map(|&value| f64::from(value)).collect()),
    }
}

/// A tensor of `f64`, `f16`, `bf16`, or of `f32` for any other type, rounded to nearest.
pub(crate) fn tensor_of(dtype: DType, shape: &[usize], values: &[f64]) -> Result<Tensor, TensorError> {
    match dtype {
        DType::F64 => Tensor::new(shape, values.to_vec()),
        DType::F16 => Tensor::new(shape, values.iter().map(|&value| half::f16::from_f64(value)).collect()),
        DType::BF16 => Tensor::new(shape, values.iter().map(|&value| half::bf16::from_f64(value)).collect()),
        _ => Tensor::new(shape, values.iter().map(|&value| value as f32).collect::<Vec<f32>>()),
    }
}
