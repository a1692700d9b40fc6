//! Tensors as rows of numbers, one a sample, and as labels.

use super::{MetricError, check_length};
use crate::graph::tensor::Tensor;
use crate::measure::difference::numbers;

/// A row of equally many numbers for each sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    numbers: Vec<f64>,
    n_rows: usize,
    n_columns: usize,
}

impl Rows {
    /// Rows of `n_columns` numbers, one after the other.
    ///
    /// # Errors
    /// When the numbers do not fill whole rows, and for rows of no numbers.
    pub fn new(numbers: Vec<f64>, n_columns: usize) -> Result<Rows, MetricError> {
        if n_columns == 0 {
            return Err(MetricError::Length { what: "numbers a sample", expected: 1, got: 0 });
        }
        let n_rows = numbers.len() / n_columns;
        check_length("numbers in whole rows", n_rows * n_columns, numbers.len())?;
        Ok(Rows { numbers, n_rows, n_columns })
    }

    /// The samples along the first dimension, all other dimensions in one row.
    ///
    /// # Errors
    /// When the tensor is a scalar, has no numbers or has rows of none.
    pub fn of(tensor: &Tensor) -> Result<Rows, MetricError> {
        let refused = |problem: String| MetricError::Tensor { what: "predictions", problem };
        let numbers =
            numbers(tensor).ok_or_else(|| refused(format!("elements of {} are no numbers", tensor.dtype())))?;
        let (&n_rows, rest) = tensor.shape().split_first().ok_or_else(|| refused("a scalar has no samples".into()))?;
        // Without samples only the shape says how many numbers each would have.
        let of_shape = || rest.iter().copied().fold(1, usize::saturating_mul);
        let n_columns = numbers.len().checked_div(n_rows).unwrap_or_else(of_shape);
        if n_columns == 0 {
            return Err(refused(format!("rows of shape {rest:?} hold no numbers")));
        }
        Ok(Rows { numbers, n_rows, n_columns })
    }

    /// How many samples there are.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// How many numbers each has.
    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// All numbers, row by row.
    pub fn numbers(&self) -> &[f64] {
        &self.numbers
    }

    /// The rows in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.numbers.chunks_exact(self.n_columns)
    }

    /// That no number is NaN; `what` names them in the error.
    pub(super) fn check_no_nan(&self, what: &'static str) -> Result<(), MetricError> {
        self.check(what, |number| !number.is_nan())
    }

    /// That every number is finite.
    pub(super) fn check_finite(&self, what: &'static str) -> Result<(), MetricError> {
        self.check(what, f64::is_finite)
    }

    fn check(&self, what: &'static str, is_allowed: impl Fn(f64) -> bool) -> Result<(), MetricError> {
        match self.numbers.iter().position(|&number| !is_allowed(number)) {
            Some(idx) => Err(MetricError::NotNumber { what, sample: idx / self.n_columns, value: self.numbers[idx] }),
            None => Ok(()),
        }
    }

    /// That the other has as many rows of as many numbers, at least one row.
    pub(super) fn check_like(&self, other: &Rows) -> Result<(), MetricError> {
        check_length("numbers a sample", self.n_columns, other.n_columns)?;
        super::check_pairs("samples", self.n_rows, other.n_rows)
    }
}

/// The classes that a tensor of integers names, one a sample.
///
/// # Errors
/// When the elements are no integers, or one is no class.
pub fn labels(tensor: &Tensor, n_classes: usize) -> Result<Vec<usize>, MetricError> {
    let refused = |problem: String| MetricError::Tensor { what: "labels", problem };
    if !tensor.dtype().is_integer() {
        return Err(refused(format!("elements of {} are no integers", tensor.dtype())));
    }
    let numbers = numbers(tensor).ok_or_else(|| refused("the elements cannot be read".into()))?;
    let class = |(sample, &number): (usize, &f64)| {
        let is_class = number >= 0.0 && number < n_classes as f64;
        let error = MetricError::Label { label: number as i64, sample, n_classes };
        is_class.then_some(number as usize).ok_or(error)
    };
    numbers.iter().enumerate().map(class).collect()
}

/// That every label is a class.
pub(super) fn check_labels(labels: &[usize], n_classes: usize) -> Result<(), MetricError> {
    match labels.iter().position(|&label| label >= n_classes) {
        Some(sample) => {
            let label = i64::try_from(labels[sample]).unwrap_or(i64::MAX);
            Err(MetricError::Label { label, sample, n_classes })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_become_rows() {
        let tensor = Tensor::new(&[2, 3, 1], vec![1i8, 2, 3, 4, 5, 6]).expect("six elements");
        let rows = Rows::of(&tensor).expect("numbers");
        assert_eq!((rows.n_rows(), rows.n_columns()), (2, 3));
        assert_eq!(rows.iter().collect::<Vec<_>>(), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        assert_eq!(Rows::of(&Tensor::vector(vec![0.5f32])), Rows::new(vec![0.5], 1));
        let none = Rows::of(&Tensor::new(&[0, 4], Vec::<f32>::new()).expect("empty")).expect("no rows of four");
        assert_eq!((none.n_rows(), none.n_columns(), none.iter().len()), (0, 4, 0));
    }

    #[test]
    fn tensors_without_rows_are_refused() {
        let check = |tensor: Tensor, message: &str| {
            assert_eq!(Rows::of(&tensor).expect_err(message).to_string(), message);
        };
        check(Tensor::scalar(1f32), "predictions: a scalar has no samples");
        check(Tensor::from_strings(&[0], vec![]).expect("empty"), "predictions: elements of string are no numbers");
        check(
            Tensor::new(&[2, 0], Vec::<f32>::new()).expect("empty"),
            "predictions: rows of shape [0] hold no numbers",
        );
        let error = Rows::new(vec![0.0; 5], 2).expect_err("a row is short");
        assert_eq!(error.to_string(), "numbers in whole rows: expected 4, got 5");
        assert!(Rows::new(vec![], 0).is_err());
    }

    #[test]
    fn labels_are_classes() {
        assert_eq!(labels(&Tensor::vector(vec![0i64, 2]), 3), Ok(vec![0, 2]));
        let error = labels(&Tensor::vector(vec![0i32, -1]), 3).expect_err("-1 is no class");
        assert_eq!(error.to_string(), "label -1 of sample 1 is outside of the 3 classes");
        assert!(labels(&Tensor::vector(vec![3u8]), 3).is_err());
        let error = labels(&Tensor::vector(vec![1f32]), 3).expect_err("floats");
        assert_eq!(error.to_string(), "labels: elements of f32 are no integers");
    }
}
