//! A tensor's elements as plain numbers: `f64` for the float types, `i128` for the integers and `bool`.
//!
//! Every operator of the reference computes on these and rounds once, at the end, to its output's type.

use bytes::Bytes;
use half::{bf16, f16};

use super::minifloat::{self, Overflow};
use super::packed::{pack, unpack};
use super::{EvalError, invalid};
use crate::graph::op::RoundMode;
use crate::graph::tensor::{DType, Element, Tensor};

/// The elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Numbers {
    /// Of any float type: every one of them fits `f64` exactly.
    Float(Vec<f64>),
    /// Of any integer type, and `bool` as 0 and 1.
    Int(Vec<i128>),
}

impl Numbers {
    /// The elements of a tensor.
    ///
    /// # Errors
    /// For strings and complex numbers.
    pub(super) fn of(tensor: &Tensor) -> Result<Numbers, EvalError> {
        fn ints<T: Element + Into<i128>>(tensor: &Tensor) -> Result<Numbers, EvalError> {
            Ok(Numbers::Int(tensor.as_slice::<T>()?.iter().map(|&x| x.into()).collect()))
        }
        let dtype = tensor.dtype();
        match dtype {
            DType::F64 => Ok(Numbers::Float(tensor.to_vec()?)),
            DType::F32 => Ok(Numbers::Float(tensor.as_slice::<f32>()?.iter().map(|&x| x.into()).collect())),
            DType::F16 => Ok(Numbers::Float(tensor.as_slice::<f16>()?.iter().map(|x| x.to_f64()).collect())),
            DType::BF16 => Ok(Numbers::Float(tensor.as_slice::<bf16>()?.iter().map(|x| x.to_f64()).collect())),
            DType::I64 => ints::<i64>(tensor),
            DType::I32 => ints::<i32>(tensor),
            DType::I16 => ints::<i16>(tensor),
            DType::I8 => ints::<i8>(tensor),
            DType::U64 => ints::<u64>(tensor),
            DType::U32 => ints::<u32>(tensor),
            DType::U16 => ints::<u16>(tensor),
            DType::U8 => ints::<u8>(tensor),
            DType::Bool => ints::<bool>(tensor),
            DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
                Ok(Numbers::Int(unpack(tensor)?.into_iter().map(|bits| wrapped(bits.into(), dtype)).collect()))
            }
            DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F6E2M3
            | DType::F6E3M2
            | DType::F4E2M1 => {
                let format = minifloat::format(dtype).expect("every one of these has a format");
                Ok(Numbers::Float(unpack(tensor)?.into_iter().map(|bits| format.decode(bits.into())).collect()))
            }
            DType::F8E8M0 => Ok(Numbers::Float(unpack(tensor)?.into_iter().map(minifloat::decode_e8m0).collect())),
            DType::String | DType::Complex64 | DType::Complex128 => {
                Err(EvalError::Undefined(format!("arithmetic on {dtype}")))
            }
        }
    }

    /// The elements of a tensor, integers turned into floats; those of more than 53 bits are rounded.
    ///
    /// # Errors
    /// As [`Numbers::of`].
    pub(super) fn floats(tensor: &Tensor) -> Result<Vec<f64>, EvalError> {
        Ok(match Numbers::of(tensor)? {
            Numbers::Float(floats) => floats,
            Numbers::Int(ints) => ints.into_iter().map(|x| x as f64).collect(),
        })
    }

    /// The elements of a tensor of an integer type or `bool`.
    ///
    /// # Errors
    /// When it is of another type.
    pub(super) fn ints(tensor: &Tensor) -> Result<Vec<i128>, EvalError> {
        match Numbers::of(tensor)? {
            Numbers::Int(ints) => Ok(ints),
            Numbers::Float(_) => Err(invalid(format!("expected a tensor of integers, got {}", tensor.dtype()))),
        }
    }

    /// A tensor of these numbers. Floats are rounded to the nearest number of the type, of two that are equally near to
    /// the even one, and to infinity (or NaN, where the type has none) beyond its range; integers are wrapped into the
    /// type's range. Floats become integers as [`truncated`] says; `bool` is what differs from zero.
    ///
    /// # Errors
    /// When the shape has another number of elements, and for strings and complex numbers.
    pub(super) fn into_tensor(self, dtype: DType, shape: &[usize]) -> Result<Tensor, EvalError> {
        self.rounded(dtype, shape, Overflow::Special, RoundMode::Nearest)
    }

    /// As [`Numbers::into_tensor`], but numbers beyond the range of an integer type or of an 8-, 6- or 4-bit float type
    /// become the least or greatest number of it, floats being rounded half to even first.
    ///
    /// # Errors
    /// As [`Numbers::into_tensor`].
    pub(super) fn into_tensor_saturated(self, dtype: DType, shape: &[usize]) -> Result<Tensor, EvalError> {
        match dtype.integer_range() {
            None => self.rounded(dtype, shape, Overflow::Saturate, RoundMode::Nearest),
            Some((least, greatest)) => {
                let ints = match self {
                    Numbers::Int(ints) => ints,
                    Numbers::Float(floats) => floats.into_iter().map(|x| x.round_ties_even() as i128).collect(),
                };
                let ints = ints.into_iter().map(|x| x.clamp(least, greatest)).collect();
                Numbers::Int(ints).into_tensor(dtype, shape)
            }
        }
    }

    /// As [`Numbers::into_tensor`], with a say in what happens beyond the range of the 8-, 6- and 4-bit float types,
    /// and how `f8e8m0` rounds.
    ///
    /// # Errors
    /// As [`Numbers::into_tensor`].
    pub(super) fn rounded(
        self,
        dtype: DType,
        shape: &[usize],
        overflow: Overflow,
        mode: RoundMode,
    ) -> Result<Tensor, EvalError> {
        fn ints<T: Element + TryFrom<i128>>(numbers: Numbers, shape: &[usize]) -> Result<Tensor, EvalError> {
            let elements = numbers.wrapped(T::DTYPE).map(|x| T::try_from(x).ok());
            let elements: Option<Vec<T>> = elements.collect();
            Ok(Tensor::new(shape, elements.expect("the numbers are wrapped into the type's range"))?)
        }
        let bits16 = |numbers: Numbers, overflow| {
            let format = minifloat::format(dtype).expect("every narrow float type but f8e8m0 has a format");
            numbers.into_floats().map(move |x| format.encode(x, overflow))
        };
        Ok(match dtype {
            DType::F64 => Tensor::new(shape, self.into_nearest_f64())?,
            DType::F32 => Tensor::new(shape, self.into_floats().map(|x| x as f32).collect())?,
            DType::F16 => Tensor::new(shape, bits16(self, Overflow::Special).map(f16::from_bits).collect())?,
            DType::BF16 => Tensor::new(shape, bits16(self, Overflow::Special).map(bf16::from_bits).collect())?,
            DType::I64 => ints::<i64>(self, shape)?,
            DType::I32 => ints::<i32>(self, shape)?,
            DType::I16 => ints::<i16>(self, shape)?,
            DType::I8 => ints::<i8>(self, shape)?,
            DType::U64 => ints::<u64>(self, shape)?,
            DType::U32 => ints::<u32>(self, shape)?,
            DType::U16 => ints::<u16>(self, shape)?,
            DType::U8 => ints::<u8>(self, shape)?,
            DType::Bool => Tensor::new(shape, self.into_bools())?,
            DType::I4 | DType::U4 | DType::I2 | DType::U2 => {
                let low_bits = self.wrapped(dtype).map(|x| (x & 0xff) as u8).collect();
                pack(dtype, shape, low_bits)?
            }
            DType::F8E4M3FN
            | DType::F8E4M3FNUZ
            | DType::F8E5M2
            | DType::F8E5M2FNUZ
            | DType::F6E2M3
            | DType::F6E3M2
            | DType::F4E2M1 => pack(dtype, shape, bits16(self, overflow).map(|bits| (bits & 0xff) as u8).collect())?,
            DType::F8E8M0 => {
                let bits: Vec<u8> = self.into_floats().map(|x| minifloat::encode_e8m0(x, mode, overflow)).collect();
                Tensor::from_bytes(dtype, shape, Bytes::from(bits))?
            }
            DType::String | DType::Complex64 | DType::Complex128 => {
                return Err(EvalError::Undefined(format!("arithmetic on {dtype}")));
            }
        })
    }

    fn into_bools(self) -> Vec<bool> {
        match self {
            Numbers::Float(floats) => floats.into_iter().map(|x| x != 0.0).collect(),
            Numbers::Int(ints) => ints.into_iter().map(|x| x != 0).collect(),
        }
    }

    fn into_nearest_f64(self) -> Vec<f64> {
        match self {
            Numbers::Float(floats) => floats,
            Numbers::Int(ints) => ints.into_iter().map(|x| x as f64).collect(),
        }
    }

    /// As floats that are yet to be rounded to a narrower type.
    fn into_floats(self) -> Box<dyn Iterator<Item = f64>> {
        match self {
            Numbers::Float(floats) => Box::new(floats.into_iter()),
            Numbers::Int(ints) => Box::new(ints.into_iter().map(rounded_to_odd)),
        }
    }

    fn wrapped(self, dtype: DType) -> Box<dyn Iterator<Item = i128>> {
        match self {
            Numbers::Float(floats) => Box::new(floats.into_iter().map(move |x| wrapped(truncated(x, dtype), dtype))),
            Numbers::Int(ints) => Box::new(ints.into_iter().map(move |x| wrapped(x, dtype))),
        }
    }
}

/// The elements of a tensor that says how to compute, not what: axes, shapes, counts.
///
/// # Errors
/// When it holds no integers, or one that does not fit 64 signed bits.
pub(super) fn int_list(tensor: &Tensor) -> Result<Vec<i64>, EvalError> {
    let ints = Numbers::ints(tensor)?;
    ints.into_iter().map(|x| i64::try_from(x).map_err(|_| invalid(format!("{x} is too large")))).collect()
}

/// The only element of such a tensor.
///
/// # Errors
/// As [`int_list`], and when it has more elements or none.
pub(super) fn int_scalar(tensor: &Tensor) -> Result<i64, EvalError> {
    match int_list(tensor)?[..] {
        [only] => Ok(only),
        _ => Err(invalid(format!("expected one integer, got a tensor of shape {:?}", tensor.shape()))),
    }
}

/// The only element of a tensor, as a float.
///
/// # Errors
/// When it has more elements or none, and for strings and complex numbers.
pub(super) fn float_scalar(tensor: &Tensor) -> Result<f64, EvalError> {
    match Numbers::floats(tensor)?[..] {
        [only] => Ok(only),
        _ => Err(invalid(format!("expected one number, got a tensor of shape {:?}", tensor.shape()))),
    }
}

/// The bits of an integer that fit the type, read in it.
pub(super) fn wrapped(value: i128, dtype: DType) -> i128 {
    let Some((least, greatest)) = dtype.integer_range() else {
        return value;
    };
    let n_values = greatest - least + 1;
    (value.rem_euclid(n_values) - least).rem_euclid(n_values) + least
}

/// A float as an integer, its fraction cut off. ONNX leaves open what becomes of numbers beyond the type's range; here
/// it is what onnxruntime and NumPy do on x86: the conversion goes through `i32` (types of up to 16 bits) or `i64`, whose
/// least number stands for what it cannot hold, NaN too. Only `u64` has the numbers above as well, and 0 beyond them.
/// The types of less than a byte saturate, as ONNX's own tests have it.
pub(super) fn truncated(value: f64, dtype: DType) -> i128 {
    if let (0..8, Some((least, greatest))) = (dtype.n_bits(), dtype.integer_range()) {
        return (value as i128).clamp(least, greatest);
    }
    let (least, greatest) = if dtype.n_bits() <= 16 || dtype == DType::I32 {
        (i32::MIN.into(), i32::MAX.into())
    } else if dtype == DType::U64 {
        (i64::MIN.into(), u64::MAX.into())
    } else {
        (i64::MIN.into(), i64::MAX.into())
    };
    let whole = value as i128;
    match (least..=greatest).contains(&whole) && !value.is_nan() {
        true => whole,
        false if dtype == DType::U64 && whole > greatest => 0,
        false => least,
    }
}

/// An integer as a float of 53 bits, of which the last is set where something was lost: rounding that to 51 bits or fewer
/// gives what rounding the integer would.
fn rounded_to_odd(value: i128) -> f64 {
    let magnitude = value.unsigned_abs();
    let n_lost = (u128::BITS - magnitude.leading_zeros()).saturating_sub(f64::MANTISSA_DIGITS);
    let sticky = u128::from(magnitude & ((1 << n_lost) - 1) != 0);
    let rounded = (((magnitude >> n_lost) | sticky) << n_lost) as f64;
    if value < 0 { -rounded } else { rounded }
}

/// The number of a float type that is nearest to this one.
pub(super) fn nearest(value: f64, dtype: DType) -> f64 {
    match minifloat::format(dtype) {
        Some(format) => format.decode(format.encode(value, Overflow::Special)),
        None if dtype == DType::F32 => f64::from(value as f32),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{elements, tensor};

    #[test]
    fn every_type_but_strings_and_complex_numbers_comes_back() {
        for dtype in DType::all() {
            let numbers =
                if dtype.is_float() { Numbers::Float(vec![1.0, 2.0, 0.5]) } else { Numbers::Int(vec![1, 0, 1]) };
            let result = numbers.clone().into_tensor(dtype, &[3]).and_then(|tensor| Numbers::of(&tensor));
            match dtype {
                DType::String | DType::Complex64 | DType::Complex128 => assert!(result.is_err(), "{dtype}"),
                _ => assert_eq!(result, Ok(numbers), "{dtype}"),
            }
        }
    }

    #[test]
    fn integers_wrap_and_saturate() {
        let ints = || Numbers::Int(vec![-129, -9, 8, 300]);
        for (dtype, wrapped, saturated) in [
            (DType::I8, [127, -9, 8, 44], [-128, -9, 8, 127]),
            (DType::U8, [127, 247, 8, 44], [0, 0, 8, 255]),
            (DType::I4, [-1, 7, -8, -4], [-8, -8, 7, 7]),
            (DType::U2, [3, 3, 0, 0], [0, 0, 3, 3]),
        ] {
            let numbers = |tensor: Result<Tensor, EvalError>| tensor.and_then(|tensor| Numbers::ints(&tensor));
            assert_eq!(numbers(ints().into_tensor(dtype, &[4])), Ok(wrapped.to_vec()), "{dtype}");
            assert_eq!(numbers(ints().into_tensor_saturated(dtype, &[4])), Ok(saturated.to_vec()), "{dtype}");
        }
    }

    #[test]
    fn large_integers_are_rounded_to_floats_once() {
        // A bit below half a step of the target, which a rounding to `f64` on the way would make a tie.
        let value = (1i128 << 62) + (1 << 54) + 1;
        let bf16s = Numbers::Int(vec![value]).into_tensor(DType::BF16, &[1]).map(|t| elements::<bf16>(&t));
        assert_eq!(bf16s, Ok(vec![bf16::from_f64(2f64.powi(62) + 2f64.powi(55))]));
        let value = (1i128 << 60) + (1 << 36) + 1;
        let f32s = Numbers::Int(vec![value, -value]).into_tensor(DType::F32, &[2]).map(|t| elements::<f32>(&t));
        assert_eq!(f32s, Ok(vec![value as f32, -value as f32]));
    }

    #[test]
    fn floats_become_integers_as_on_x86() {
        let floats = [300.7, -1.5, 70000.0, 3e9, 1e19, 2e19, -1e19, f64::NAN];
        for (dtype, expected) in [
            (DType::U8, [44, 255, 112, 0, 0, 0, 0, 0]),
            (DType::I16, [300, -1, 4464, 0, 0, 0, 0, 0]),
            (DType::I32, [300, -1, 70000, -(1 << 31), -(1 << 31), -(1 << 31), -(1 << 31), -(1 << 31)]),
            (DType::I64, [300, -1, 70000, 3_000_000_000, -(1 << 63), -(1 << 63), -(1 << 63), -(1 << 63)]),
            (DType::U64, [300, (1 << 64) - 1, 70000, 3_000_000_000, 10_i128.pow(19), 0, 1 << 63, 1 << 63]),
            (DType::I4, [7, -1, 7, 7, 7, 7, -8, 0]),
        ] {
            let ints = Numbers::Float(floats.to_vec()).into_tensor(dtype, &[8]).and_then(|t| Numbers::ints(&t));
            assert_eq!(ints, Ok(expected.to_vec()), "{dtype}");
        }
    }

    #[test]
    fn lists_of_integers_are_checked() {
        assert_eq!(int_list(&tensor(&[2], [3i32, -1])), Ok(vec![3, -1]));
        assert_eq!(int_scalar(&tensor(&[1], [7i64])), Ok(7));
        let message = |error: Result<Vec<i64>, EvalError>| error.expect_err("refused").to_string();
        assert_eq!(message(int_list(&tensor(&[1], [u64::MAX]))), "18446744073709551615 is too large");
        assert_eq!(message(int_list(&tensor(&[1], [1f32]))), "expected a tensor of integers, got f32");
        assert!(int_scalar(&tensor(&[2], [7i64, 7])).is_err());
    }
}
