//! Two classes told apart by one score, such as anomaly or not: areas under curves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MetricError, at, check_pairs};

/// Whether each sample is on its side of the threshold: positives at or above it, the others below.
///
/// # Errors
/// When a score is NaN, or there are none or not as many as classes.
pub fn right(scores: &[f64], is_positive: &[bool], threshold: f64) -> Result<Vec<bool>, MetricError> {
    check(scores, is_positive)?;
    Ok(scores.iter().zip(is_positive).map(|(&score, &is_positive)| (score >= threshold) == is_positive).collect())
}

/// The area under the receiver operating characteristic: the probability that a positive sample scores higher than
/// another, equal scores counted by half (Mann and Whitney 1947). Anomalies are the positives, and errors or distances
/// their scores.
///
/// # Errors
/// When all samples are of one class, a score is NaN, or there are none or not as many as classes.
pub fn roc_auc(scores: &[f64], is_positive: &[bool]) -> Result<f64, MetricError> {
    let mut above = 0.0;
    let totals = totals(scores, is_positive)?;
    for step in steps(scores, is_positive) {
        above += step.n_positive as f64
            * ((totals.n_negative - step.n_negative_before) as f64 - 0.5 * step.n_negative as f64);
    }
    Ok(above / (totals.n_positive as f64 * totals.n_negative as f64))
}

/// Average precision, the area under the steps of precision over recall: Σ (recall − recall before) · precision, from
/// the greatest score down, equal scores in one step (as in scikit-learn; no interpolation, which would flatter).
///
/// # Errors
/// When no sample is positive, a score is NaN, or there are none or not as many as classes.
pub fn average_precision(scores: &[f64], is_positive: &[bool]) -> Result<f64, MetricError> {
    check(scores, is_positive)?;
    let n_positive = is_positive.iter().filter(|&&is_positive| is_positive).count();
    if n_positive == 0 {
        return Err(MetricError::OneClass { n_samples: scores.len(), class: "negative" });
    }
    let mut area = 0.0;
    for step in steps(scores, is_positive) {
        let n_found = (step.n_positive_before + step.n_positive) as f64;
        let n_said = n_found + (step.n_negative_before + step.n_negative) as f64;
        area += step.n_positive as f64 / n_positive as f64 * n_found / n_said;
    }
    Ok(area)
}

/// [`roc_auc`] of the samples at these places, for the bootstrap; none where they are of one class.
///
/// # Errors
/// As [`roc_auc`] but for that, and when a place is none of the samples'.
pub fn roc_auc_of(scores: &[f64], is_positive: &[bool], places: &[usize]) -> Result<Option<f64>, MetricError> {
    check_pairs("scores", is_positive.len(), scores.len())?;
    unless_one_class(roc_auc(&at(scores, places)?, &at(is_positive, places)?))
}

/// [`average_precision`] of the samples at these places, for the bootstrap; none where no sample is positive.
///
/// # Errors
/// As [`average_precision`] but for that, and when a place is none of the samples'.
pub fn average_precision_of(
    scores: &[f64],
    is_positive: &[bool],
    places: &[usize],
) -> Result<Option<f64>, MetricError> {
    check_pairs("scores", is_positive.len(), scores.len())?;
    unless_one_class(average_precision(&at(scores, places)?, &at(is_positive, places)?))
}

fn unless_one_class(value: Result<f64, MetricError>) -> Result<Option<f64>, MetricError> {
    match value {
        Err(MetricError::OneClass { .. }) => Ok(None),
        value => value.map(Some),
    }
}

/// What a threshold finds: samples at or above it are said to be positive.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// The threshold.
    pub threshold: f64,
    /// The part of the positives that is found: recall, the true positive rate.
    pub recall: f64,
    /// The part of the negatives that is said to be positive.
    pub false_positive_rate: f64,
    /// The part of those found that is positive.
    pub precision: f64,
}

/// Both curves, a point for each score that occurs, from the greatest down.
///
/// # Errors
/// As [`roc_auc`].
pub fn curve(scores: &[f64], is_positive: &[bool]) -> Result<Vec<Point>, MetricError> {
    let totals = totals(scores, is_positive)?;
    let point = |step: Step| {
        let n_found = (step.n_positive_before + step.n_positive) as f64;
        let n_false = (step.n_negative_before + step.n_negative) as f64;
        Point {
            threshold: step.score,
            recall: n_found / totals.n_positive as f64,
            false_positive_rate: n_false / totals.n_negative as f64,
            precision: n_found / (n_found + n_false),
        }
    };
    Ok(steps(scores, is_positive).into_iter().map(point).collect())
}

/// Samples of one score, and how many there are above it.
struct Step {
    score: f64,
    n_positive: usize,
    n_negative: usize,
    n_positive_before: usize,
    n_negative_before: usize,
}

/// The scores that occur, the greatest first.
fn steps(scores: &[f64], is_positive: &[bool]) -> Vec<Step> {
    let mut pairs: Vec<(f64, bool)> = scores.iter().copied().zip(is_positive.iter().copied()).collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut n_positive_before, mut n_negative_before) = (0, 0);
    let mut steps = Vec::new();
    // Not by their order: 0 and −0 are one score.
    for pairs in pairs.chunk_by(|a, b| a.0 == b.0) {
        let n_positive = pairs.iter().filter(|pair| pair.1).count();
        let n_negative = pairs.len() - n_positive;
        steps.push(Step { score: pairs[0].0, n_positive, n_negative, n_positive_before, n_negative_before });
        n_positive_before += n_positive;
        n_negative_before += n_negative;
    }
    steps
}

struct Totals {
    n_positive: usize,
    n_negative: usize,
}

fn totals(scores: &[f64], is_positive: &[bool]) -> Result<Totals, MetricError> {
    check(scores, is_positive)?;
    let n_positive = is_positive.iter().filter(|&&is_positive| is_positive).count();
    let n_negative = scores.len() - n_positive;
    match (n_positive, n_negative) {
        (0, n_samples) => Err(MetricError::OneClass { n_samples, class: "negative" }),
        (n_samples, 0) => Err(MetricError::OneClass { n_samples, class: "positive" }),
        (n_positive, n_negative) => Ok(Totals { n_positive, n_negative }),
    }
}

fn check(scores: &[f64], is_positive: &[bool]) -> Result<(), MetricError> {
    check_pairs("scores", is_positive.len(), scores.len())?;
    match scores.iter().position(|score| score.is_nan()) {
        Some(sample) => Err(MetricError::NotNumber { what: "scores", sample, value: f64::NAN }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCORES: [f64; 10] = [0.1, 0.4, 0.35, 0.8, 0.4, 0.4, 0.9, 0.2, 0.35, 0.6];
    const POSITIVE: [bool; 10] = [false, false, true, true, true, false, true, false, false, true];

    /// `roc_auc_score`, `average_precision_score`, `roc_curve(drop_intermediate=False)` and `precision_recall_curve` of
    /// scikit-learn 1.9.1.
    #[test]
    fn areas_are_those_of_scikit_learn() {
        let close = |got: Result<f64, MetricError>, expected: f64| {
            assert!(got.as_ref().is_ok_and(|got| (got - expected).abs() < 1e-15), "{got:?} {expected}");
        };
        close(roc_auc(&SCORES, &POSITIVE), 0.86);
        close(average_precision(&SCORES, &POSITIVE), 0.8583333333333332);
        let tied = [false, true, false, false, true, false];
        close(roc_auc(&[0.5; 6], &tied), 0.5);
        close(average_precision(&[0.5; 6], &tied), 1.0 / 3.0);
        let points = curve(&SCORES, &POSITIVE).expect("both classes");
        let column = |of: fn(&Point) -> f64| points.iter().map(of).collect::<Vec<_>>();
        assert_eq!(column(|point| point.threshold), [0.9, 0.8, 0.6, 0.4, 0.35, 0.2, 0.1]);
        assert_eq!(column(|point| point.false_positive_rate), [0.0, 0.0, 0.0, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(column(|point| point.recall), [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]);
        assert_eq!(column(|point| point.precision)[2..5], [1.0, 2.0 / 3.0, 0.625]);
    }

    #[test]
    fn one_class_and_no_numbers_are_refused_and_left_to_the_bootstrap() {
        let message = "all 2 samples are positive: give samples of both classes";
        assert_eq!(roc_auc(&[0.1, 0.2], &[true, true]).expect_err(message).to_string(), message);
        assert_eq!(average_precision(&[0.1, 0.2], &[true, true]), Ok(1.0));
        assert!(matches!(average_precision(&[0.1], &[false]), Err(MetricError::OneClass { class: "negative", .. })));
        assert_eq!(roc_auc_of(&SCORES, &POSITIVE, &[0, 1, 7]), Ok(None));
        assert_eq!(roc_auc_of(&SCORES, &POSITIVE, &[0, 3]), Ok(Some(1.0)));
        assert_eq!(average_precision_of(&SCORES, &POSITIVE, &[0, 1]), Ok(None));
        let outside = MetricError::Place { place: 10, n_samples: 10 };
        assert_eq!(roc_auc_of(&SCORES, &POSITIVE, &[10]), Err(outside));
        assert_eq!(roc_auc(&[], &[]), Err(MetricError::Empty));
        assert!(roc_auc(&[f64::NAN, 1.0], &[true, false]).is_err());
        assert_eq!(roc_auc(&[f64::INFINITY, f64::NEG_INFINITY], &[true, false]), Ok(1.0));
        assert_eq!(roc_auc(&[0.0, -0.0], &[true, false]), Ok(0.5));
        assert_eq!(right(&[0.5, 0.4, 0.6], &[true, true, false], 0.5), Ok(vec![true, false, false]));
    }

    proptest! {
        #[test]
        fn order_is_all_that_counts(pairs in prop::collection::vec((-5i32..5, any::<bool>()), 2..50)) {
            let (scores, is_positive): (Vec<f64>, Vec<bool>) =
                pairs.into_iter().map(|(score, class)| (f64::from(score), class)).unzip();
            if let Ok(area) = roc_auc(&scores, &is_positive) {
                prop_assert!((0.0..=1.0).contains(&area));
                let stretched: Vec<f64> = scores.iter().map(|score| score.exp()).collect();
                prop_assert_eq!(roc_auc(&stretched, &is_positive), Ok(area));
                let mirrored: Vec<f64> = scores.iter().map(|score| -score).collect();
                prop_assert!((roc_auc(&mirrored, &is_positive).expect("both classes") - (1.0 - area)).abs() < 1e-12);
                let points = curve(&scores, &is_positive).expect("both classes");
                let start = (0.0, 0.0);
                let corners: Vec<(f64, f64)> =
                    [start].into_iter().chain(points.iter().map(|p| (p.false_positive_rate, p.recall))).collect();
                let under: f64 = corners.windows(2).map(|c| (c[1].0 - c[0].0) * (c[1].1 + c[0].1) / 2.0).sum();
                prop_assert!((under - area).abs() < 1e-12);
            }
        }
    }
}
