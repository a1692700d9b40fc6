//! Tensors of the graph as the numbers that programs compute with.

use std::borrow::Cow;

use crate::graph::tensor::{Tensor, TensorError};

/// A floating-point tensor's elements in `f32`, rounded where they are wider.
///
/// # Errors
/// When it is no tensor of floating-point numbers.
pub(crate) fn singles(tensor: &Tensor) -> Result<Cow<'_, [f32]>, TensorError> {
    match tensor.as_slice::<f64>() {
        Ok(values) => Ok(values.iter().map(|&value| value as f32).collect::<Vec<_>>().into()),
        Err(_) => tensor.to_f32s(),
    }
}

/// The number that a floating-point tensor of one element is.
pub(super) fn number(tensor: &Tensor) -> Option<f64> {
    let tensor = Some(tensor).filter(|tensor| tensor.len() == 1)?;
    match tensor.as_slice::<f64>() {
        Ok(values) => values.first().copied(),
        Err(_) => tensor.to_f32s().ok()?.first().map(|&value| value.into()),
    }
}
