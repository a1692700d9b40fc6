//! Whether probabilities mean what they say: calibration error, Brier score, log loss.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::classification::{predicted, right};
use super::rows::check_labels;
use super::{MetricError, Rows, at, check_length};

/// How many bins the calibration error is usually given with (Guo et al. 2017).
pub const N_BINS: usize = 15;

/// Softmax of each row of logits.
///
/// # Errors
/// When a logit is NaN or +∞, or all of a row are −∞.
pub fn probabilities(logits: &Rows) -> Result<Rows, MetricError> {
    let logs = log_probabilities(logits)?;
    Rows::new(logs.numbers().iter().map(|log| log.exp()).collect(), logits.n_columns())
}

/// The logarithm of softmax of each row of logits, exact where the probability itself underflows; −∞ for a logit of −∞.
///
/// # Errors
/// As [`probabilities`].
pub fn log_probabilities(logits: &Rows) -> Result<Rows, MetricError> {
    let mut logs = Vec::with_capacity(logits.numbers().len());
    for (sample, row) in logits.iter().enumerate() {
        let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let value = row.iter().copied().find(|logit| logit.is_nan()).unwrap_or(greatest);
        if !value.is_finite() {
            return Err(MetricError::NotNumber { what: "logits", sample, value });
        }
        let log_sum = greatest + row.iter().map(|logit| (logit - greatest).exp()).sum::<f64>().ln();
        logs.extend(row.iter().map(|logit| logit - log_sum));
    }
    Rows::new(logs, logits.n_columns())
}

/// −log of the probability of each sample's class, from logits: the cross-entropy, the lower the better. Infinite where
/// the logit of the class is −∞.
///
/// # Errors
/// As [`probabilities`], when there are more or fewer labels than samples, or one is no class.
pub fn log_losses(logits: &Rows, labels: &[usize]) -> Result<Vec<f64>, MetricError> {
    check(logits, labels)?;
    let logs = log_probabilities(logits)?;
    // A certain class has −0 otherwise.
    Ok(logs.iter().zip(labels).map(|(row, &label)| 0.0 - row[label]).collect())
}

/// Σ (probability − 1 for the class, − 0 for the others)² of each sample, from 0 to 2 (Brier 1950), the lower the
/// better. For two classes twice the score of one probability.
///
/// # Errors
/// When a probability is not finite, there are more or fewer labels than samples, or one is no class.
pub fn brier_scores(probabilities: &Rows, labels: &[usize]) -> Result<Vec<f64>, MetricError> {
    check(probabilities, labels)?;
    probabilities.check_finite("probabilities")?;
    let score = |row: &[f64], label: usize| {
        let distance = |(class, p): (usize, &f64)| p - f64::from(class == label);
        row.iter().enumerate().map(|pair| distance(pair).powi(2)).sum::<f64>()
    };
    Ok(probabilities.iter().zip(labels).map(|(row, &label)| score(row, label)).collect())
}

fn check(rows: &Rows, labels: &[usize]) -> Result<(), MetricError> {
    check_length("labels", rows.n_rows(), labels.len())?;
    check_labels(labels, rows.n_columns())
}

/// The probability of the predicted class of each sample, and whether that class is right.
///
/// # Errors
/// When a probability is NaN, there are more or fewer labels than samples, or one is no class.
pub fn confidences(probabilities: &Rows, labels: &[usize]) -> Result<(Vec<f64>, Vec<bool>), MetricError> {
    let right = right(probabilities, labels)?;
    let predicted = predicted(probabilities)?;
    Ok((probabilities.iter().zip(predicted).map(|(row, class)| row[class]).collect(), right))
}

/// The samples whose confidence is in one part of the range from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bin {
    /// Samples in it.
    pub n_samples: usize,
    /// Their mean confidence; 0 for none.
    pub confidence: f64,
    /// The part of them that is right; 0 for none.
    pub accuracy: f64,
}

/// A reliability diagram and its summaries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Calibration {
    /// Bins of equal width from 0 to 1, each without its lower end and with its upper (the first with both).
    pub bins: Vec<Bin>,
    /// Σ n/N · |accuracy − confidence| over the bins (expected calibration error; Guo et al. 2017, equation 3).
    pub expected_error: f64,
    /// The greatest |accuracy − confidence| of a bin (equation 5).
    pub greatest_error: f64,
}

/// The reliability diagram of confidences from 0 to 1.
///
/// # Errors
/// When there are no samples or bins, not equally many of both, or a confidence is outside of 0 to 1 (by more than
/// rounding).
pub fn calibration(confidences: &[f64], right: &[bool], n_bins: usize) -> Result<Calibration, MetricError> {
    super::check_pairs("confidences", right.len(), confidences.len())?;
    if n_bins == 0 {
        return Err(MetricError::Parameter { what: "the number of bins", value: 0.0, range: "at least 1" });
    }
    let mut bins = vec![Bin::default(); n_bins];
    for (sample, (&confidence, &right)) in confidences.iter().zip(right).enumerate() {
        if !(-1e-6..=1.0 + 1e-6).contains(&confidence) {
            return Err(MetricError::NotNumber { what: "confidences", sample, value: confidence });
        }
        let above = (confidence * n_bins as f64).ceil().max(1.0) as usize;
        let bin = &mut bins[above.min(n_bins) - 1];
        bin.n_samples += 1;
        bin.confidence += confidence;
        bin.accuracy += f64::from(right);
    }
    for bin in bins.iter_mut().filter(|bin| bin.n_samples > 0) {
        bin.confidence /= bin.n_samples as f64;
        bin.accuracy /= bin.n_samples as f64;
    }
    let gap = |bin: &Bin| (bin.accuracy - bin.confidence).abs();
    let expected_error = bins.iter().map(|bin| bin.n_samples as f64 * gap(bin)).sum::<f64>() / right.len() as f64;
    let greatest_error = bins.iter().map(gap).fold(0.0, f64::max);
    Ok(Calibration { bins, expected_error, greatest_error })
}

/// The expected calibration error of the samples at these places, for the bootstrap.
///
/// # Errors
/// As [`calibration`], and when a place is none of the samples'.
pub fn calibration_error_of(
    confidences: &[f64],
    right: &[bool],
    n_bins: usize,
    places: &[usize],
) -> Result<f64, MetricError> {
    super::check_pairs("confidences", right.len(), confidences.len())?;
    Ok(calibration(&at(confidences, places)?, &at(right, places)?, n_bins)?.expected_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 15] = [2.0, 0.5, -1.0, 0.1, 0.2, 0.3, -3.0, 4.0, 0.0, 1.0, 1.5, 1.2, 0.0, -1.0, 2.5];
    const LABELS: [usize; 5] = [0, 2, 1, 0, 1];

    fn logits() -> Rows {
        Rows::new(LOGITS.to_vec(), 3).expect("5 rows")
    }

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-14, "{got} {expected}");
    }

    /// `log_loss` and `brier_score_loss` of scikit-learn 1.9.1 over `scipy.special.softmax`; the calibration error by
    /// the formula in NumPy.
    #[test]
    fn scores_are_those_of_scikit_learn() {
        let losses = log_losses(&logits(), &LABELS).expect("numbers");
        close(super::super::mean(&losses), 1.2443999624749726);
        let probabilities = probabilities(&logits()).expect("numbers");
        let brier = brier_scores(&probabilities, &LABELS).expect("numbers");
        close(super::super::mean(&brier), 0.6542757553983678);
        let (confidence, right) = confidences(&probabilities, &LABELS).expect("numbers");
        assert_eq!(right, [true, true, true, false, false]);
        let got = calibration(&confidence, &right, N_BINS).expect("probabilities");
        close(got.expected_error, 0.43823342928028586);
        close(got.greatest_error, 0.8990522695867426);
        assert_eq!(got.bins.iter().map(|bin| bin.n_samples).sum::<usize>(), 5);
        let error = calibration_error_of(&confidence, &right, N_BINS, &[0, 1, 2, 3, 4]);
        assert_eq!(error, Ok(got.expected_error));
    }

    #[test]
    fn bins_have_their_upper_end() {
        let got = calibration(&[0.0, 0.5, 0.500001, 1.0], &[true; 4], 2).expect("probabilities");
        assert_eq!(got.bins.iter().map(|bin| bin.n_samples).collect::<Vec<_>>(), [2, 2]);
        close(got.expected_error, 0.5 - 0.000_000_25);
    }

    #[test]
    fn certain_and_impossible_classes_have_a_loss() {
        let logits = Rows::new(vec![0.0, f64::NEG_INFINITY, 2000.0, 0.0], 2).expect("2 rows");
        assert_eq!(log_losses(&logits, &[0, 1]), Ok(vec![0.0, 2000.0]));
        assert_eq!(log_losses(&logits, &[1, 0]), Ok(vec![f64::INFINITY, 0.0]));
        assert_eq!(probabilities(&logits).expect("numbers").numbers(), [1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for value in [f64::NAN, f64::INFINITY] {
            let logits = Rows::new(vec![0.0, 1.0, value, 1.0], 2).expect("2 rows");
            assert!(matches!(probabilities(&logits), Err(MetricError::NotNumber { sample: 1, .. })));
        }
        assert!(probabilities(&Rows::new(vec![f64::NEG_INFINITY; 2], 2).expect("a row")).is_err());
        assert!(calibration(&[1.5], &[true], 15).is_err());
        assert!(calibration(&[f64::NAN], &[true], 15).is_err());
        assert!(calibration(&[0.5], &[true], 0).is_err());
        assert_eq!(calibration(&[], &[], 15), Err(MetricError::Empty));
    }
}
