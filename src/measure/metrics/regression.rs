//! Numbers predicted, and inputs reconstructed: errors of each sample, and R².
//!
//! A reconstruction's error is its anomaly score: see [`roc_auc`](super::binary::roc_auc).

use super::{MetricError, Rows, mean};

/// The mean absolute error of each sample over its numbers. Its mean is the MAE.
///
/// # Errors
/// When the two differ in shape, there are no samples, or a number is NaN or infinite.
pub fn absolute_errors(predictions: &Rows, targets: &Rows) -> Result<Vec<f64>, MetricError> {
    errors(predictions, targets, f64::abs)
}

/// The mean squared error of each sample over its numbers. Its mean is the MSE.
///
/// # Errors
/// As [`absolute_errors`].
pub fn squared_errors(predictions: &Rows, targets: &Rows) -> Result<Vec<f64>, MetricError> {
    errors(predictions, targets, |error| error * error)
}

fn errors(predictions: &Rows, targets: &Rows, of: fn(f64) -> f64) -> Result<Vec<f64>, MetricError> {
    check(predictions, targets)?;
    let error = |(prediction, target): (&[f64], &[f64])| {
        mean(&prediction.iter().zip(target).map(|(prediction, target)| of(prediction - target)).collect::<Vec<_>>())
    };
    Ok(predictions.iter().zip(targets.iter()).map(error).collect())
}

fn check(predictions: &Rows, targets: &Rows) -> Result<(), MetricError> {
    targets.check_like(predictions)?;
    predictions.check_finite("predictions")?;
    targets.check_finite("targets")
}

/// The coefficient of determination, 1 − Σ (prediction − target)² / Σ (target − mean target)², averaged over the
/// columns: 1 for perfect predictions, 0 for the mean of the targets, below 0 for worse.
///
/// # Errors
/// When the targets of a column are all equal, the two differ in shape, there are no samples, or a number is NaN or
/// infinite.
pub fn r2(predictions: &Rows, targets: &Rows) -> Result<f64, MetricError> {
    check(predictions, targets)?;
    let places: Vec<usize> = (0..targets.n_rows()).collect();
    over(predictions, targets, &places)?.ok_or(MetricError::Constant { what: "the targets" })
}

/// [`r2`] of the samples at these places, for the bootstrap; none where the targets of a column are all equal.
///
/// # Errors
/// As [`r2`] but for that, and when a place is none of the samples'.
pub fn r2_of(predictions: &Rows, targets: &Rows, places: &[usize]) -> Result<Option<f64>, MetricError> {
    targets.check_like(predictions)?;
    over(predictions, targets, places)
}

fn over(predictions: &Rows, targets: &Rows, places: &[usize]) -> Result<Option<f64>, MetricError> {
    if places.is_empty() {
        return Ok(None);
    }
    let n_columns = targets.n_columns();
    let mut sum = 0.0;
    for column in 0..n_columns {
        let values = |rows: &Rows| -> Result<Vec<f64>, MetricError> {
            let value = |&place: &usize| {
                let idx = place.checked_mul(n_columns).and_then(|start| start.checked_add(column));
                let number = idx.and_then(|idx| rows.numbers().get(idx)).copied();
                number.ok_or(MetricError::Place { place, n_samples: rows.n_rows() })
            };
            places.iter().map(value).collect()
        };
        let (predictions, targets) = (values(predictions)?, values(targets)?);
        let centre = mean(&targets);
        let spread: f64 = targets.iter().map(|target| (target - centre).powi(2)).sum();
        if targets.iter().all(|&target| target == targets[0]) {
            return Ok(None);
        }
        let squares: f64 = predictions.iter().zip(&targets).map(|(p, t)| (p - t).powi(2)).sum();
        sum += 1.0 - squares / spread;
    }
    Ok(Some(sum / n_columns as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(numbers: &[f64], n_columns: usize) -> Rows {
        Rows::new(numbers.to_vec(), n_columns).expect("whole rows")
    }

    /// `mean_absolute_error`, `mean_squared_error` and `r2_score` of scikit-learn 1.9.1.
    #[test]
    fn errors_are_those_of_scikit_learn() {
        let targets = rows(&[3.0, -0.5, 2.0, 7.0, 4.0, 1.0, 1.0, 1.5, 5.0, 2.0], 2);
        let predictions = rows(&[2.5, 0.0, 0.0, 8.0, 4.0, 2.0, 1.5, 1.0, 4.0, 2.5], 2);
        let absolute = absolute_errors(&predictions, &targets).expect("finite");
        assert_eq!((absolute.as_slice(), mean(&absolute)), ([0.5, 1.5, 0.5, 0.5, 0.75].as_slice(), 0.75));
        let squared = squared_errors(&predictions, &targets).expect("finite");
        assert!((mean(&squared) - 0.825).abs() < 1e-15, "{squared:?}");
        let got = r2(&predictions, &targets).expect("targets differ");
        assert!((got - 0.6824303405572756).abs() < 1e-15, "{got}");
        assert_eq!(r2_of(&predictions, &targets, &[0, 1, 2, 3, 4]), Ok(Some(got)));
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        let one = rows(&[1.0, 2.0], 1);
        assert_eq!(r2(&one, &rows(&[3.0, 3.0], 1)), Err(MetricError::Constant { what: "the targets" }));
        assert_eq!(r2_of(&one, &one, &[1, 1]), Ok(None));
        assert_eq!(r2_of(&one, &one, &[]), Ok(None));
        assert_eq!(r2_of(&one, &one, &[2]), Err(MetricError::Place { place: 2, n_samples: 2 }));
        assert!(absolute_errors(&one, &rows(&[1.0, 2.0], 2)).is_err());
        assert!(squared_errors(&one, &rows(&[1.0], 1)).is_err());
        let error = absolute_errors(&rows(&[1.0, f64::INFINITY], 1), &one).expect_err("infinite");
        assert_eq!(error.to_string(), "predictions of sample 1 hold inf, of which there is no score");
        assert_eq!(absolute_errors(&rows(&[], 1), &rows(&[], 1)), Err(MetricError::Empty));
    }
}
