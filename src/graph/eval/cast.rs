//! Conversions between element types.

use bytes::Bytes;
use half::{bf16, f16};

use super::args::Args;
use super::minifloat::Overflow;
use super::numbers::Numbers;
use super::{EvalError, invalid};
use crate::graph::op::{self, RoundMode};
use crate::graph::tensor::{DType, Tensor};

/// Beyond the range of the target: floats become infinite, or the largest number where a type of 8 bits saturates or
/// one of fewer has nothing else; of integers the low bits stay; floats to integers as
/// [`truncated`](super::numbers::truncated) has it. Strings are read as decimal numbers, `inf` and `nan` in any case,
/// and written as the shortest decimals that read back the same, those of 16-bit floats as those of the `f32` they are.
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
            let floats = strings.iter().map(parsed::<f32>).collect::<Result<_, _>>()?;
            Ok(Tensor::new(tensor.shape(), floats)?)
        }
        Some(strings) if to.is_float() => {
            let floats = strings.iter().map(parsed::<f64>).collect::<Result<_, _>>()?;
            Numbers::Float(floats).rounded(to, tensor.shape(), overflow, mode)
        }
        Some(strings) => {
            let ints = strings.iter().map(parsed_int).collect::<Result<_, _>>()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{elements, output, tensor};
    use crate::graph::op::Op;

    fn cast_to(to: DType, x: &Tensor) -> Result<Tensor, EvalError> {
        output(&Op::Cast(op::Cast { to, saturate: true, round_mode: RoundMode::Up }), &[x])
    }

    fn texts(tensor: &Tensor) -> Vec<String> {
        let strings = tensor.strings().unwrap_or_default();
        strings.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    fn strings(list: &[&'static str]) -> Tensor {
        Tensor::from_strings(&[list.len()], list.iter().map(|&text| Bytes::from(text)).collect()).expect("as many")
    }

    #[test]
    fn every_type_goes_to_every_other_and_back() {
        let ones = tensor(&[3], [1f32, 1.0, 1.0]);
        let castable = || DType::all().filter(|dtype| !matches!(dtype, DType::Complex64 | DType::Complex128));
        for from in castable() {
            for to in castable().filter(|&to| from != DType::Bool || to != DType::String) {
                let there_and_back = cast_to(from, &ones)
                    .and_then(|tensor| cast_to(to, &tensor))
                    .and_then(|tensor| cast_to(DType::F32, &tensor));
                assert_eq!(there_and_back, Ok(ones.clone()), "{from} to {to}");
            }
        }
        assert!(cast_to(DType::Complex64, &ones).is_err());
    }

    #[test]
    fn eight_bits_saturate_only_when_asked() {
        let x = tensor(&[2], [1e6f32, -1e6]);
        for (saturate, expected) in [(true, [0x7e, 0xfe]), (false, [0x7f, 0xff])] {
            let op = Op::Cast(op::Cast { to: DType::F8E4M3FN, saturate, round_mode: RoundMode::Up });
            let bits = output(&op, &[&x]).map(|tensor| tensor.bytes().map(|bytes| bytes.to_vec()));
            assert_eq!(bits, Ok(Some(expected.to_vec())));
        }
    }

    /// Expectations from ml_dtypes 0.5, by which ONNX's reference casts.
    #[test]
    fn six_bits_have_no_infinity_to_go_to() {
        let x = tensor(&[5], [1f32, -2.4, 0.19, f32::INFINITY, -1e9]);
        for (to, expected, back) in [
            (DType::F6E2M3, [0x88, 0x2c, 0x7c, 0x3f], [1f32, -2.5, 0.25, 7.5, -7.5]),
            (DType::F6E3M2, [0x4c, 0x3c, 0x7c, 0x3f], [1f32, -2.5, 0.1875, 28.0, -28.0]),
        ] {
            for saturate in [true, false] {
                let op = Op::Cast(op::Cast { to, saturate, round_mode: RoundMode::Up });
                let narrow = output(&op, &[&x]).expect("defined");
                assert_eq!(narrow.bytes().map(|bytes| bytes.to_vec()), Some(expected.to_vec()), "{to}");
                assert_eq!(cast_to(DType::F32, &narrow).map(|t| elements(&t)), Ok(back.to_vec()), "{to}");
            }
        }
    }

    #[test]
    fn strings_are_decimal_numbers() {
        let floats = cast_to(DType::F32, &strings(&["1.5", "-1e3", " 2", "+INF", "-inf", "0.1"]));
        let expected = vec![1.5f32, -1000.0, 2.0, f32::INFINITY, f32::NEG_INFINITY, 0.1];
        assert_eq!(floats.map(|t| elements(&t)), Ok(expected));
        let ints = cast_to(DType::I64, &strings(&["100.5", "-7", "9223372036854775807"]));
        assert_eq!(ints.map(|t| elements::<i64>(&t)), Ok(vec![100, -7, i64::MAX]));
        let refused = |to, text| cast_to(to, &strings(&[text])).expect_err("refused").to_string();
        assert_eq!(refused(DType::F32, "one"), "`one` is not a number");
        assert_eq!(refused(DType::I32, "nan"), "`nan` is not an integer");
        let written = cast_to(DType::String, &tensor(&[5], [0.1f32, 100.0, 1e10, f32::NAN, f32::NEG_INFINITY]));
        assert_eq!(
            written.map(|t| texts(&t)),
            Ok(["0.1", "100", "10000000000", "NaN", "-INF"].map(str::to_string).to_vec())
        );
    }

    #[test]
    fn the_type_may_come_from_another_tensor() {
        let like = output(&Op::CastLike(op::CastLike::default()), &[&Tensor::scalar(-1i32), &Tensor::scalar(0u8)]);
        assert_eq!(like.map(|t| elements::<u8>(&t)), Ok(vec![255]));
    }
}
