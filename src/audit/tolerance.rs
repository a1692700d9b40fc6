//! How far a runtime's value may lie from the reference's before something is wrong.
//!
//! The reference computes in f64 and rounds once; a runtime sums in f32, in an order of its own. That moves a float by
//! parts of a millionth of the greatest, and an integer that came from rounding by at most one step. Through a whole
//! quantized network such steps add up: one flipped step in an early layer is several in the last.

use serde::Serialize;

use crate::graph::tensor::{DType, Tensor};
use crate::measure::difference::{Difference, DifferenceError, difference};

/// Floats of one operator, or of a network without quantization: part of the greatest magnitude.
pub const FLOAT: f64 = 1e-4;

/// The same where elements are f16 or bf16.
pub const HALF: f64 = 1e-2;

/// Outputs of a network with quantization: part of the greatest magnitude, about five steps of 255.
pub const QUANTIZED: f64 = 2e-2;

/// What may lie between two tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tolerance {
    /// One operator on its own: `steps` where its integers come from rounding.
    Single { steps: bool },
    /// Several operators with quantization among them; `step` is the size of one where the last is known.
    Quantized { steps: bool, step: f64 },
    /// Part of the greatest magnitude.
    Relative(f64),
}

/// How two tensors compare.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Their distance in numbers; none where they cannot be compared so.
    pub difference: Option<Difference>,
    /// The greatest absolute difference allowed.
    pub allowed: f64,
    /// Whether it is within what is allowed.
    pub agrees: bool,
    /// Why they cannot be compared: other types or shapes.
    pub problem: Option<String>,
}

/// Compares a runtime's tensor with the reference's.
pub(super) fn compare(expected: &Tensor, got: &Tensor, tolerance: Tolerance) -> Comparison {
    match difference(expected, got) {
        Ok(difference) => {
            let allowed = allowed(expected.dtype(), difference.reference_magnitude, tolerance);
            // An integer beyond 2⁵³ may be another though its number is the same.
            let is_exact = allowed > 0.0 || difference.n_different == 0;
            let agrees = difference.agrees_outside_numbers() && difference.max_absolute <= allowed && is_exact;
            Comparison { difference: Some(difference), allowed, agrees, problem: None }
        }
        Err(DifferenceError::NotNumeric(_)) => {
            let agrees = expected == got;
            let problem = (!agrees).then(|| "elements differ".to_owned());
            Comparison { difference: None, allowed: 0.0, agrees, problem }
        }
        Err(error @ (DifferenceError::Type { .. } | DifferenceError::Shape { .. })) => {
            Comparison { difference: None, allowed: 0.0, agrees: false, problem: Some(error.to_string()) }
        }
    }
}

fn allowed(dtype: DType, magnitude: f64, tolerance: Tolerance) -> f64 {
    let float = match dtype {
        DType::F16 | DType::BF16 => HALF,
        _ if dtype.is_float() => FLOAT,
        _ => 0.0,
    };
    match tolerance {
        Tolerance::Single { steps } if float == 0.0 => f64::from(u8::from(steps)),
        Tolerance::Single { .. } => float * magnitude,
        Tolerance::Quantized { steps, .. } if float == 0.0 => {
            if steps {
                (QUANTIZED * magnitude).max(2.0)
            } else {
                0.0
            }
        }
        Tolerance::Quantized { step, .. } => (QUANTIZED * magnitude).max(2.0 * step),
        Tolerance::Relative(relative) => relative * magnitude,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_depends_on_the_type_and_on_rounding() {
        let check = |expected: &Tensor, got: &Tensor, tolerance| {
            let comparison = compare(expected, got, tolerance);
            (comparison.agrees, comparison.allowed)
        };
        let single = |steps| Tolerance::Single { steps };
        let floats = |last: f32| Tensor::vector(vec![100f32, last]);
        assert_eq!(check(&floats(1.0), &floats(1.009), single(false)), (true, 0.01));
        assert_eq!(check(&floats(1.0), &floats(1.02), single(true)), (false, 0.01));
        let bytes = |last: u8| Tensor::vector(vec![100u8, last]);
        assert_eq!(check(&bytes(7), &bytes(8), single(true)), (true, 1.0));
        assert_eq!(check(&bytes(7), &bytes(9), single(true)), (false, 1.0));
        assert_eq!(check(&bytes(7), &bytes(8), single(false)), (false, 0.0));
        let quantized = Tolerance::Quantized { steps: false, step: 1.5 };
        assert_eq!(check(&floats(1.0), &floats(3.9), quantized), (true, 3.0));
        assert_eq!(check(&floats(1.0), &floats(4.1), quantized), (false, 3.0));
        assert!(check(&floats(f32::NAN), &floats(f32::NAN), single(false)).0);
        assert!(!check(&floats(f32::NAN), &floats(1.0), Tolerance::Relative(1.0)).0);
        let big = |last: i64| Tensor::vector(vec![(1i64 << 60) + last]);
        assert_eq!(check(&big(0), &big(1), single(false)), (false, 0.0));
    }

    #[test]
    fn other_types_shapes_and_words_are_problems() {
        let single = Tolerance::Single { steps: false };
        let problem = |expected: &Tensor, got: &Tensor| compare(expected, got, single).problem;
        let shape = problem(&Tensor::scalar(1f32), &Tensor::vector(vec![1f32]));
        assert_eq!(shape.as_deref(), Some("expected shape [], got [1]"));
        let words = |word: &'static str| Tensor::from_strings(&[1], vec![word.into()]).expect("one word");
        assert_eq!(problem(&words("a"), &words("a")), None);
        assert_eq!(problem(&words("a"), &words("b")).as_deref(), Some("elements differ"));
    }
}
