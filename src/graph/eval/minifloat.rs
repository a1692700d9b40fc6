//! The narrow float formats: how their bits are read, and how a `f64` is rounded to them, once.
//!
//! `f16` and `bf16` are here too, because a way through `f32` would round twice.

use crate::graph::op::RoundMode;
use crate::graph::tensor::DType;

/// A binary float format of at most 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    n_exponent_bits: u32,
    n_mantissa_bits: u32,
    bias: i32,
    specials: Specials,
    /// The bits of NaN that are written; none where the format has none.
    nan: Option<u16>,
}

/// What a format has beside the finite numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Specials {
    /// Infinities and NaN in the highest exponent, as IEEE 754 has it.
    Ieee,
    /// The pattern of all ones is NaN, for either sign; no infinities.
    AllOnesNan,
    /// What would be minus zero is NaN; no infinities.
    MinusZeroNan,
    /// Finite numbers only.
    None,
}

/// What becomes of numbers that round to more than the largest finite one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    /// Infinity where the format has one, else NaN (in a format that has neither, the largest number).
    Special,
    /// The largest number of that sign, for infinities too (ONNX, operator Cast, `saturate`).
    Saturate,
}

/// The format of an element type; none for `f64`, `f32`, `f8e8m0` (which has neither sign nor zero) and what is no
/// float.
pub(super) fn format(dtype: DType) -> Option<Format> {
    let (n_exponent_bits, n_mantissa_bits, bias, specials, nan) = match dtype {
        DType::F16 => (5, 10, 15, Specials::Ieee, Some(0x7e00)),
        DType::BF16 => (8, 7, 127, Specials::Ieee, Some(0x7fc0)),
        DType::F8E4M3FN => (4, 3, 7, Specials::AllOnesNan, Some(0x7f)),
        DType::F8E4M3FNUZ => (4, 3, 8, Specials::MinusZeroNan, Some(0x80)),
        DType::F8E5M2 => (5, 2, 15, Specials::Ieee, Some(0x7f)),
        DType::F8E5M2FNUZ => (5, 2, 16, Specials::MinusZeroNan, Some(0x80)),
        DType::F6E2M3 => (2, 3, 1, Specials::None, None),
        DType::F6E3M2 => (3, 2, 3, Specials::None, None),
        DType::F4E2M1 => (2, 1, 1, Specials::None, None),
        DType::F64 | DType::F32 | DType::F8E8M0 => return None,
        DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::I2 => return None,
        DType::U64 | DType::U32 | DType::U16 | DType::U8 | DType::U4 | DType::U2 => return None,
        DType::Bool | DType::String | DType::Complex64 | DType::Complex128 => return None,
    };
    Some(Format { n_exponent_bits, n_mantissa_bits, bias, specials, nan })
}

impl Format {
    fn sign_bit(self) -> u16 {
        1 << (self.n_exponent_bits + self.n_mantissa_bits)
    }

    /// The bits of the largest finite number.
    fn greatest(self) -> u16 {
        let all_ones = self.sign_bit() - 1;
        match self.specials {
            Specials::Ieee => all_ones - (1 << self.n_mantissa_bits),
            Specials::AllOnesNan => all_ones - 1,
            Specials::MinusZeroNan | Specials::None => all_ones,
        }
    }

    /// The number with these bits.
    pub(super) fn decode(self, bits: u16) -> f64 {
        let magnitude = bits & (self.sign_bit() - 1);
        let sign = if bits & self.sign_bit() == 0 { 1.0 } else { -1.0 };
        let is_nan = match self.specials {
            Specials::Ieee if magnitude == self.greatest() + 1 => return sign * f64::INFINITY,
            Specials::Ieee | Specials::AllOnesNan => magnitude > self.greatest(),
            Specials::MinusZeroNan => bits == self.sign_bit(),
            Specials::None => false,
        };
        if is_nan {
            return f64::NAN;
        }
        let mantissa = magnitude & ((1 << self.n_mantissa_bits) - 1);
        let exponent = i32::from(magnitude >> self.n_mantissa_bits);
        let implied_one = if exponent == 0 { 0 } else { 1 << self.n_mantissa_bits };
        let quantum = power_of_two(exponent.max(1) - self.bias - self.n_mantissa_bits as i32);
        sign * f64::from(mantissa + implied_one) * quantum
    }

    /// The bits of the nearest number, of two that are equally near the even one.
    pub(super) fn encode(self, value: f64, overflow: Overflow) -> u16 {
        if value.is_nan() {
            return self.nan.unwrap_or(self.greatest());
        }
        let greatest = self.greatest();
        let magnitude = match (self.magnitude(value.abs()), overflow, self.specials) {
            (magnitude, _, _) if magnitude <= u32::from(greatest) => magnitude as u16,
            (_, Overflow::Saturate, _) | (_, Overflow::Special, Specials::None) => greatest,
            (_, Overflow::Special, Specials::Ieee | Specials::AllOnesNan) => greatest + 1,
            (_, Overflow::Special, Specials::MinusZeroNan) => return self.sign_bit(),
        };
        let unsigned_zero = magnitude == 0 && self.specials == Specials::MinusZeroNan;
        if value.is_sign_negative() && !unsigned_zero { magnitude | self.sign_bit() } else { magnitude }
    }

    /// The bits of the number nearest to a non-negative one, as if the exponent had no upper bound.
    fn magnitude(self, value: f64) -> u32 {
        let value = value.min(f64::MAX);
        let least_exponent = 1 - self.bias;
        let exponent = exponent_of(value).max(least_exponent);
        let n_quanta = (value / power_of_two(exponent - self.n_mantissa_bits as i32)).round_ties_even();
        (((exponent - least_exponent) as u32) << self.n_mantissa_bits) + n_quanta as u32
    }
}

/// The number that these bits of a `f8e8m0` stand for: a power of two, or NaN.
pub(super) fn decode_e8m0(bits: u8) -> f64 {
    if bits == u8::MAX { f64::NAN } else { power_of_two(i32::from(bits) - 127) }
}

/// The bits of a positive number in `f8e8m0`. Where ONNX leaves it open (numbers below zero): NaN.
pub(super) fn encode_e8m0(value: f64, mode: RoundMode, overflow: Overflow) -> u8 {
    const NAN: u8 = u8::MAX;
    let outside = |bits: u8| if overflow == Overflow::Saturate { bits } else { NAN };
    if value.is_nan() || value < 0.0 {
        return NAN;
    }
    if value < power_of_two(-127) {
        return outside(0);
    }
    let exponent = exponent_of(value);
    let significand = value.min(f64::MAX) / power_of_two(exponent.min(1023));
    let rounds_up = match mode {
        RoundMode::Up => significand > 1.0,
        RoundMode::Down => false,
        RoundMode::Nearest => significand >= 1.5,
    };
    let biased = exponent + 127 + i32::from(rounds_up);
    u8::try_from(biased).ok().filter(|&bits| bits != NAN).unwrap_or_else(|| outside(NAN - 1))
}

/// `2^exponent` for `-1022 <= exponent <= 1023`.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// The exponent of the largest power of two that is not greater; -1023 for zero and subnormal numbers.
fn exponent_of(value: f64) -> i32 {
    ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_reads_back_as_itself() {
        for dtype in DType::all() {
            let Some(format) = format(dtype) else { continue };
            for bits in 0..=format.sign_bit() | (format.sign_bit() - 1) {
                let value = format.decode(bits);
                if !value.is_nan() {
                    assert_eq!(format.encode(value, Overflow::Special), bits, "{dtype} {bits:#x} is {value}");
                }
            }
        }
        for bits in 0..u8::MAX {
            assert_eq!(encode_e8m0(decode_e8m0(bits), RoundMode::Nearest, Overflow::Special), bits);
        }
    }

    #[test]
    fn halves_agree_with_the_half_crate() {
        let (f16, bf16) = (format(DType::F16).expect("a format"), format(DType::BF16).expect("a format"));
        for bits in 0..=u16::MAX {
            let (expected, got) = (half::f16::from_bits(bits).to_f64(), f16.decode(bits));
            assert!(expected == got || (expected.is_nan() && got.is_nan()), "{bits:#x}");
            let (expected, got) = (half::bf16::from_bits(bits).to_f64(), bf16.decode(bits));
            assert!(expected == got || (expected.is_nan() && got.is_nan()), "{bits:#x}");
        }
    }

    fn check(dtype: DType, value: f64, overflow: Overflow, expected: f64) {
        let format = format(dtype).expect("a format");
        let got = format.decode(format.encode(value, overflow));
        assert!(got == expected || (got.is_nan() && expected.is_nan()), "{value} as {dtype}: {got}, not {expected}");
    }

    #[test]
    fn ties_go_to_the_even_number_and_what_is_beyond_f32_still_counts() {
        let half_a_step = 2f64.powi(-11);
        check(DType::F16, 1.0 + half_a_step, Overflow::Special, 1.0);
        check(DType::F16, 1.0 + half_a_step + 2f64.powi(-50), Overflow::Special, 1.0 + 2.0 * half_a_step);
        check(DType::F16, 1.0 + 3.0 * half_a_step, Overflow::Special, 1.0 + 4.0 * half_a_step);
        check(DType::F8E4M3FN, 2f64.powi(-10), Overflow::Special, 0.0);
        check(DType::F8E4M3FN, 2f64.powi(-10) * 1.01, Overflow::Special, 2f64.powi(-9));
        check(DType::F4E2M1, 2.5, Overflow::Special, 2.0);
        check(DType::F4E2M1, 5.0, Overflow::Special, 4.0);
    }

    /// (number, bits as `float6_e2m3fn`, bits as `float6_e3m2fn`) of ml_dtypes 0.5.
    #[test]
    fn six_bits_are_those_of_ml_dtypes() {
        for (value, e2m3, e3m2) in [
            (0.0625, 0, 1),
            (0.03, 0, 0),
            (0.05, 0, 1),
            (0.1875, 2, 3),
            (0.19, 2, 3),
            (1.0625, 8, 12),
            (2.125, 16, 16),
            (3.3, 21, 19),
            (7.74, 31, 24),
            (26.0, 31, 30),
            (27.0, 31, 31),
            (f64::INFINITY, 31, 31),
            (-0.0, 32, 32),
            (-0.01, 32, 32),
            (-7.3, 63, 55),
        ] {
            for (dtype, expected) in [(DType::F6E2M3, e2m3), (DType::F6E3M2, e3m2)] {
                let format = format(dtype).expect("a format");
                assert_eq!(format.encode(value, Overflow::Special), expected, "{value} as {dtype}");
            }
        }
        let decoded = |dtype, bits: &[u16]| -> Vec<f64> {
            let format = format(dtype).expect("a format");
            bits.iter().map(|&bits| format.decode(bits)).collect()
        };
        assert_eq!(decoded(DType::F6E2M3, &[1, 7, 8, 17, 31, 63]), [0.125, 0.875, 1.0, 2.25, 7.5, -7.5]);
        assert_eq!(decoded(DType::F6E3M2, &[1, 3, 4, 13, 31, 63]), [0.0625, 0.1875, 0.25, 1.25, 28.0, -28.0]);
    }

    #[test]
    fn beyond_the_greatest_number() {
        for (dtype, greatest, special) in [
            (DType::F16, 65504.0, f64::INFINITY),
            (DType::F8E4M3FN, 448.0, f64::NAN),
            (DType::F8E4M3FNUZ, 240.0, f64::NAN),
            (DType::F8E5M2, 57344.0, f64::INFINITY),
            (DType::F8E5M2FNUZ, 57344.0, f64::NAN),
            (DType::F6E2M3, 7.5, 7.5),
            (DType::F6E3M2, 28.0, 28.0),
            (DType::F4E2M1, 6.0, 6.0),
        ] {
            check(dtype, greatest, Overflow::Special, greatest);
            for beyond in [greatest * 1.2, f64::INFINITY, f64::MAX] {
                check(dtype, beyond, Overflow::Special, special);
                check(dtype, beyond, Overflow::Saturate, greatest);
                check(dtype, -beyond, Overflow::Saturate, -greatest);
            }
        }
        check(DType::F16, 65519.9, Overflow::Special, 65504.0);
        check(DType::F16, 65520.0, Overflow::Special, f64::INFINITY);
    }

    #[test]
    fn powers_of_two_round_as_asked() {
        for (value, mode, overflow, expected) in [
            (5.0, RoundMode::Up, Overflow::Saturate, 8.0),
            (5.0, RoundMode::Down, Overflow::Saturate, 4.0),
            (5.0, RoundMode::Nearest, Overflow::Saturate, 4.0),
            (6.0, RoundMode::Nearest, Overflow::Saturate, 8.0),
            (0.0, RoundMode::Up, Overflow::Saturate, 2f64.powi(-127)),
            (0.0, RoundMode::Nearest, Overflow::Special, f64::NAN),
            (f64::INFINITY, RoundMode::Up, Overflow::Saturate, 2f64.powi(127)),
            (f64::INFINITY, RoundMode::Up, Overflow::Special, f64::NAN),
            (-1.0, RoundMode::Up, Overflow::Saturate, f64::NAN),
        ] {
            let got = decode_e8m0(encode_e8m0(value, mode, overflow));
            assert!(got == expected || (got.is_nan() && expected.is_nan()), "{value}: {got}, not {expected}");
        }
    }
}
