//! Fake quantization on candle's tensors. Quotients are rounded as those of `f32`, whatever the type.

use candle_core::{DType, Result, Tensor};

use super::unary;
use crate::learn::exec::quantization::Quantization;
use crate::learn::kernels::elementwise::Unary;

/// `y` from `x`, scale and zero point.
pub(super) fn forward(quantization: Quantization, [x, scale, zero_point]: [&Tensor; 3]) -> Result<Tensor> {
    let [scale, zero_point] = beside(quantization, x, [scale, zero_point])?;
    let (least, greatest) = (f64::from(quantization.least), f64::from(quantization.greatest));
    let integer = rounded(x, &scale)?.broadcast_add(&zero_point)?;
    // NaN is not above the least
    let integer = integer.gt(least)?.where_cond(&integer, &integer.ones_like()?.affine(least, 0.0)?)?;
    let integer = integer.minimum(greatest)?;
    integer.broadcast_sub(&zero_point)?.broadcast_mul(&scale)
}

/// 1 in the range of the integers, 0 where `x` saturates.
pub(super) fn input_derivative(quantization: Quantization, inputs: [&Tensor; 3]) -> Result<Tensor> {
    let Parts { quotient, low, high, .. } = parts(quantization, inputs)?;
    let dtype = inputs[0].dtype();
    quotient.ge(&low)?.to_dtype(dtype)? * quotient.le(&high)?.to_dtype(dtype)?
}

/// What an element adds to the derivative of its scale.
pub(super) fn scale_derivative(quantization: Quantization, inputs: [&Tensor; 3]) -> Result<Tensor> {
    let Parts { quotient, rounded, low, high } = parts(quantization, inputs)?;
    let inside = (rounded - &quotient)?;
    let at_most = quotient.ge(&low)?.where_cond(&inside, &low)?;
    quotient.gt(&high)?.where_cond(&high, &at_most)
}

struct Parts {
    quotient: Tensor,
    rounded: Tensor,
    /// The bounds of the quotient.
    low: Tensor,
    high: Tensor,
}

fn parts(quantization: Quantization, [x, scale, zero_point]: [&Tensor; 3]) -> Result<Parts> {
    let [scale, zero_point] = beside(quantization, x, [scale, zero_point])?;
    let bound = |integer: i32| zero_point.affine(-1.0, integer.into())?.broadcast_as(x.shape())?.contiguous();
    Ok(Parts {
        quotient: x.broadcast_div(&scale)?.contiguous()?,
        rounded: rounded(x, &scale)?,
        low: bound(quantization.least)?,
        high: bound(quantization.greatest)?,
    })
}

/// The quotient of `f32`, rounded half to even.
fn rounded(x: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let quotient = x.to_dtype(DType::F32)?.broadcast_div(&scale.to_dtype(DType::F32)?)?;
    unary::forward(Unary::Round, &quotient)?.to_dtype(x.dtype())
}

/// Scales and zero points with an axis for each of `x`.
fn beside(quantization: Quantization, x: &Tensor, steps: [&Tensor; 2]) -> Result<[Tensor; 2]> {
    let mut shape = vec![1; x.rank()];
    if let Some(axis) = quantization.axis {
        shape[axis] = x.dims()[axis];
    }
    let [scale, zero_point] = steps.map(|step| step.reshape(shape.as_slice()));
    Ok([scale?, zero_point?])
}
