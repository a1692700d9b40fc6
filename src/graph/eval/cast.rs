//! Conversions between element types.

use bytes::Bytes;
use half::{bf16, f16};

use super::args::Args;
use super::minifloat::Overflow;
use super::numbers::Numbers;
use super::{EvalError, invalid};
use crate::graph::op::{self, RoundMode};
use crate::graph::tensor::{DType, Tensor};

/// Beyond the range of the target: floats become infinite, or the largest number where an 8-bit type saturates; of
/// integers the low bits stay; floats to integers as [`truncated`](super::numbers::truncated) has it. Strings are read as
/// decimal numbers, `inf` and `nan` in any case, and written as the shortest decimals that read back the same.
pub(super) fn cast(args: Args<'_>, op: &op::Cast) -> Result<Tensor, EvalError> {
    converted(args.get(0)?, op.to, op.saturate, op.round_mode)
}

/// As [`cast`], to the type of the second input.
pub(super) fn cast_like(args: Args<'_>, op: &op::CastLike) -> Result<Tensor, EvalError> {
    converted(args.get(0)?, args.get(1)?.dtype(), op.saturate, op.round_mode)
}

fn converted(tensor: &Tensor, to: DType, saturate: bool, mode: RoundMode) -> Result<Tensor, EvalError> {
    if tensor.dtype() == to {
        return Ok(tensor.clone());
    }
    if to == DType::String {
        return Ok(Tensor::from_strings(tensor.shape(), written(tensor)?)?);
    }
    let overflow = if saturate { Overflow::Saturate } else { Overflow::Special };
    match tensor.strings() {
        None => Numbers::of(tensor)?.rounded(to, tensor.shape(), overflow, mode),
        Some(strings) if to == DType::F32 => {
            let floats = strings.iter().map(|text| parsed::<f32>(text)).collect::<Result<_, _>>()?;
            Ok(Tensor::new(tensor.shape(), floats)?)
        }
        Some(strings) if to.is_float() => {
            let floats = strings.iter().map(|text| parsed::<f64>(text)).collect::<Result<_, _>>()?;
            Numbers::Float(floats).rounded(to, tensor.shape(), overflow, mode)
        }
        Some(strings) => {
            let ints = strings.iter().map(|text| parsed_int(text)).collect::<Result<_, _>>()?;
            Numbers::Int(ints).rounded(to, tensor.shape(), overflow, mode)
        }
    }
}

fn parsed<T: std::str::FromStr>(text: &Bytes) -> Result<T, EvalError> {
    let number = std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| invalid(format!("`{}` is not a number", String::from_utf8_lossy(text))))
}

/// A number with a fraction is cut off, as ONNX allows.
fn parsed_int(text: &Bytes) -> Result<i128, EvalError> {
    match parsed::<i128>(text) {
        Ok(int) => Ok(int),
        Err(_) => match parsed::<f64>(text)? {
            float if float.is_finite() => Ok(float as i128),
            _ => Err(invalid(format!("`{}` is not an integer", String::from_utf8_lossy(text)))),
        },
    }
}

fn written(tensor: &Tensor) -> Result<Vec<Bytes>, EvalError> {
    fn each<T>(numbers: &[T], text: impl Fn(&T) -> String) -> Vec<Bytes> {
        numbers.iter().map(|number| Bytes::from(text(number))).collect()
    }
    if let Ok(floats) = tensor.as_slice::<f32>() {
        return Ok(each(floats, |&x| special(x.into()).unwrap_or_else(|| x.to_string())));
    }
    if let Ok(halves) = tensor.as_slice::<f16>() {
        return Ok(each(halves, |&x| special(x.into()).unwrap_or_else(|| x.to_string())));
    }
    if let Ok(halves) = tensor.as_slice::<bf16>() {
        return Ok(each(halves, |&x| special(x.into()).unwrap_or_else(|| x.to_string())));
    }
    Ok(match Numbers::of(tensor)? {
        Numbers::Float(floats) => each(&floats, |&x| special(x).unwrap_or_else(|| x.to_string())),
        Numbers::Int(ints) => each(&ints, i128::to_string),
    })
}

fn special(x: f64) -> Option<String> {
    if x.is_nan() {
        return Some("NaN".to_string());
    }
    x.is_infinite().then(|| if x > 0.0 { "INF".to_string() } else { "-INF".to_string() })
}
