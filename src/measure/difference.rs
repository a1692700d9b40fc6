//! How far one tensor is from another, in numbers: computed in f64 whatever the element type.

use serde::{Deserialize, Serialize};

use crate::graph::tensor::{DType, Tensor};

/// Why two tensors cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DifferenceError {
    /// Their types differ.
    #[error("expected a tensor of {expected}, got {got}")]
    Type {
        /// the reference's
        expected: DType,
        /// the other's
        got: DType,
    },
    /// Their shapes differ.
    #[error("expected shape {expected:?}, got {got:?}")]
    Shape {
        /// the reference's
        expected: Vec<usize>,
        /// the other's
        got: Vec<usize>,
    },
    /// There is no distance between such elements.
    #[error("{0} has no numeric difference")]
    NotNumeric(DType),
}

/// The distance of a tensor from a reference.
///
/// Places where either holds NaN or an infinity are counted and left out of every other figure, so that a figure is
/// never NaN by accident: look at [`agrees_outside_numbers`](Difference::agrees_outside_numbers) as well.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Elements in each.
    pub n_elements: usize,
    /// Places where both are finite; all figures below are over these.
    pub n_finite: usize,
    /// Places where exactly one is NaN.
    pub n_nan_mismatches: usize,
    /// Places where neither is NaN, one is infinite and the other is not the same infinity.
    pub n_infinity_mismatches: usize,
    /// Places whose numbers differ at all; +0 and −0 do not.
    pub n_different: usize,
    /// Greatest absolute difference; 0 for no elements.
    pub max_absolute: f64,
    /// Mean absolute difference; 0 for no elements.
    pub mean_absolute: f64,
    /// Greatest magnitude in the reference.
    pub reference_magnitude: f64,
    /// `max_absolute` over `reference_magnitude`; 0 where both are 0, none where only the latter is.
    pub max_relative: Option<f64>,
    /// Cosine of the angle between the two as vectors; none where either is all zeros.
    pub cosine: Option<f64>,
    /// Signal to quantization noise, 10 · log10(Σ reference² / Σ difference²), in dB; none where there is no noise (the
    /// two are equal) or no signal: JSON has no infinity.
    pub sqnr_db: Option<f64>,
}

impl Difference {
    /// Every element is the same number, the same infinity, or NaN in both.
    pub fn is_none(&self) -> bool {
        self.n_different == 0 && self.agrees_outside_numbers()
    }

    /// NaN and infinities stand in the same places in both.
    pub fn agrees_outside_numbers(&self) -> bool {
        self.n_nan_mismatches == 0 && self.n_infinity_mismatches == 0
    }
}

/// The distance of `other` from `reference`. Booleans count as 0 and 1; 64-bit integers beyond 2⁵³ are rounded, except
/// that unequal ones are still counted as different.
///
/// # Errors
/// When types or shapes differ, and for types that we do not compute with (strings, complex, 8 bits and fewer of float).
pub fn difference(reference: &Tensor, other: &Tensor) -> Result<Difference, DifferenceError> {
    if reference.dtype() != other.dtype() {
        return Err(DifferenceError::Type { expected: reference.dtype(), got: other.dtype() });
    }
    if reference.shape() != other.shape() {
        return Err(DifferenceError::Shape { expected: reference.shape().to_vec(), got: other.shape().to_vec() });
    }
    let reference_numbers = numbers(reference).ok_or(DifferenceError::NotNumeric(reference.dtype()))?;
    let other_numbers = numbers(other).ok_or(DifferenceError::NotNumeric(other.dtype()))?;
    let mut difference = between(&reference_numbers, &other_numbers);
    let n_unequal = n_unequal_integers(reference, other);
    difference.n_different = difference.n_different.max(n_unequal);
    Ok(difference)
}

/// The distance between two equally long vectors of numbers.
///
/// # Panics
/// When they are not equally long.
pub fn between(reference: &[f64], other: &[f64]) -> Difference {
    assert_eq!(reference.len(), other.len(), "vectors of different lengths have no difference");
    let mut sums = Sums::default();
    for (&expected, &got) in reference.iter().zip(other) {
        sums.add(expected, got);
    }
    sums.finish(reference.len())
}

#[derive(Default)]
struct Sums {
    n_finite: usize,
    n_nan_mismatches: usize,
    n_infinity_mismatches: usize,
    n_different: usize,
    max_absolute: f64,
    sum_absolute: f64,
    reference_magnitude: f64,
    signal: f64,
    other_signal: f64,
    product: f64,
    noise: f64,
}

impl Sums {
    fn add(&mut self, expected: f64, got: f64) {
        if expected.is_nan() || got.is_nan() {
            self.n_nan_mismatches += usize::from(expected.is_nan() != got.is_nan());
            return;
        }
        if expected.is_infinite() || got.is_infinite() {
            self.n_infinity_mismatches += usize::from(expected != got);
            return;
        }
        let distance = (expected - got).abs();
        self.n_finite += 1;
        self.n_different += usize::from(distance != 0.0);
        self.max_absolute = self.max_absolute.max(distance);
        self.sum_absolute += distance;
        self.reference_magnitude = self.reference_magnitude.max(expected.abs());
        self.signal += expected * expected;
        self.other_signal += got * got;
        self.product += expected * got;
        self.noise += distance * distance;
    }

    fn finish(self, n_elements: usize) -> Difference {
        let relative = if self.max_absolute == 0.0 {
            Some(0.0)
        } else {
            (self.reference_magnitude > 0.0).then(|| self.max_absolute / self.reference_magnitude)
        };
        let lengths = self.signal.sqrt() * self.other_signal.sqrt();
        let sqnr_db = 10.0 * (self.signal / self.noise).log10();
        Difference {
            n_elements,
            n_finite: self.n_finite,
            n_nan_mismatches: self.n_nan_mismatches,
            n_infinity_mismatches: self.n_infinity_mismatches,
            n_different: self.n_different,
            max_absolute: self.max_absolute,
            mean_absolute: if self.n_finite == 0 { 0.0 } else { self.sum_absolute / self.n_finite as f64 },
            reference_magnitude: self.reference_magnitude,
            max_relative: relative,
            cosine: (lengths > 0.0).then(|| (self.product / lengths).clamp(-1.0, 1.0)),
            sqnr_db: sqnr_db.is_finite().then_some(sqnr_db),
        }
    }
}

/// The elements as f64; none for types that we do not compute with.
pub fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    macro_rules! first_that_fits {
        ($($element:ty),*) => {
            $(if let Ok(slice) = tensor.as_slice::<$element>() {
                return Some(slice.iter().map(|&x| Number::number(x)).collect());
            })*
        };
    }
    first_that_fits!(f32, f64, half::f16, half::bf16, i64, i32, i16, i8, u64, u32, u16, u8, bool);
    packed(tensor)
}

/// Packed integers of 4 and 2 bits, the first in the lowest bits.
fn packed(tensor: &Tensor) -> Option<Vec<f64>> {
    let n_bits = tensor.dtype().n_bits();
    let (least, _) = tensor.dtype().integer_range()?;
    let bytes = tensor.bytes()?;
    let span = 1i64 << n_bits;
    let element = |idx: usize| {
        let bit = idx * n_bits;
        let raw = i64::from(bytes[bit / 8] >> (bit % 8)) & (span - 1);
        let signed = if least < 0 && raw >= span / 2 { raw - span } else { raw };
        signed as f64
    };
    Some((0..tensor.len()).map(element).collect())
}

trait Number {
    fn number(self) -> f64;
}

macro_rules! numbers {
    ($($element:ty => $convert:expr),* $(,)?) => {
        $(impl Number for $element { fn number(self) -> f64 { let convert: fn($element) -> f64 = $convert; convert(self) } })*
    };
}
numbers! {
    f64 => |x| x, f32 => f64::from, half::f16 => f64::from, half::bf16 => f64::from,
    i64 => |x| x as f64, u64 => |x| x as f64, i32 => f64::from, i16 => f64::from, i8 => f64::from,
    u32 => f64::from, u16 => f64::from, u8 => f64::from, bool => |x| f64::from(u8::from(x)),
}

fn n_unequal_integers(reference: &Tensor, other: &Tensor) -> usize {
    macro_rules! count {
        ($($element:ty),*) => {
            $(if let (Ok(a), Ok(b)) = (reference.as_slice::<$element>(), other.as_slice::<$element>()) {
                return a.iter().zip(b).filter(|(a, b)| a != b).count();
            })*
        };
    }
    count!(i64, u64);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_computed_by_hand() {
        let difference = between(&[3.0, 4.0, 0.0], &[3.0, 4.0, 1.0]);
        assert_eq!(difference.n_different, 1);
        assert_eq!(difference.max_absolute, 1.0);
        assert!((difference.mean_absolute - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(difference.max_relative, Some(0.25));
        let cosine = difference.cosine.expect("neither is zero");
        assert!((cosine - 25.0 / (5.0 * 26f64.sqrt())).abs() < 1e-15);
        let sqnr_db = difference.sqnr_db.expect("there is noise");
        assert!((sqnr_db - 10.0 * 25f64.log10()).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_number_is_counted_and_left_out() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let difference = between(&[nan, nan, inf, inf, 1.0, 2.0], &[nan, 1.0, inf, -inf, 1.0, nan]);
        assert_eq!((difference.n_nan_mismatches, difference.n_infinity_mismatches), (2, 1));
        assert_eq!((difference.n_finite, difference.max_absolute), (1, 0.0));
        assert!(!difference.is_none());
    }

    #[test]
    fn equal_tensors_have_no_noise_and_empty_ones_no_difference() {
        let equal = between(&[0.0, -0.0], &[-0.0, 0.0]);
        assert!(equal.is_none());
        assert_eq!((equal.sqnr_db, equal.cosine, equal.max_relative), (None, None, Some(0.0)));
        assert!(between(&[], &[]).is_none());
        assert_eq!(between(&[0.0], &[1.0]).max_relative, None);
    }

    #[test]
    fn every_width_of_integer_is_compared() {
        let check = |a: Tensor, b: Tensor| difference(&a, &b).map(|d| (d.n_different, d.max_absolute));
        let big = 1i64 << 60;
        assert_eq!(check(Tensor::vector(vec![big]), Tensor::vector(vec![big + 1])), Ok((1, 0.0)));
        assert_eq!(check(Tensor::vector(vec![true]), Tensor::vector(vec![false])), Ok((1, 1.0)));
        let nibbles =
            |byte: u8| Tensor::from_bytes(DType::I4, &[2], vec![byte].into()).expect("two nibbles are a byte");
        assert_eq!(check(nibbles(0x1f), nibbles(0x17)), Ok((1, 8.0)));
    }

    #[test]
    fn other_types_and_shapes_are_refused() {
        let text = Tensor::from_strings(&[0], vec![]).expect("no strings");
        assert_eq!(difference(&text, &text), Err(DifferenceError::NotNumeric(DType::String)));
        let error = difference(&Tensor::scalar(1f32), &Tensor::vector(vec![1f32]));
        assert_eq!(error.expect_err("ranks differ").to_string(), "expected shape [], got [1]");
        let error = difference(&Tensor::scalar(1f32), &Tensor::scalar(1f64));
        assert_eq!(error.expect_err("types differ").to_string(), "expected a tensor of f32, got f64");
    }
}
