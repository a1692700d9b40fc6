//! Classes: what was predicted, what was right, and the confusion matrix with what follows from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rows::check_labels;
use super::{MetricError, Rows, at, check_length, mean};

/// The class of each sample's greatest score: of equal ones the first.
///
/// # Errors
/// When a score is NaN.
pub fn predicted(scores: &Rows) -> Result<Vec<usize>, MetricError> {
    scores.check_no_nan("scores")?;
    let greater = |row: &[f64], best: usize, class: usize| if row[class] > row[best] { class } else { best };
    Ok(scores.iter().map(|row| (1..row.len()).fold(0, |best, class| greater(row, best, class))).collect())
}

/// Whether each sample's class has the greatest score (top-1). Its mean is the accuracy.
///
/// # Errors
/// As [`in_top`].
pub fn right(scores: &Rows, labels: &[usize]) -> Result<Vec<bool>, MetricError> {
    in_top(scores, labels, 1)
}

/// Whether each sample's class is among the `k` greatest scores; of equal scores the first classes count as the
/// greater.
///
/// # Errors
/// When a score is NaN, there are more or fewer labels than samples, or a label is no class.
pub fn in_top(scores: &Rows, labels: &[usize], k: usize) -> Result<Vec<bool>, MetricError> {
    check_length("labels", scores.n_rows(), labels.len())?;
    check_labels(labels, scores.n_columns())?;
    scores.check_no_nan("scores")?;
    let n_before = |row: &[f64], label: usize| {
        let is_before = |(class, &score): (usize, &f64)| score > row[label] || (score == row[label] && class < label);
        row.iter().enumerate().filter(|&pair| is_before(pair)).count()
    };
    Ok(scores.iter().zip(labels).map(|(row, &label)| n_before(row, label) < k).collect())
}

/// 1 for right and 0 for wrong, as the paired statistics take them.
pub fn as_scores(right: &[bool]) -> Vec<f64> {
    right.iter().map(|&right| f64::from(right)).collect()
}

/// The part that is right.
///
/// # Errors
/// When there are no samples.
pub fn accuracy(right: &[bool]) -> Result<f64, MetricError> {
    if right.is_empty() { Err(MetricError::Empty) } else { Ok(mean(&as_scores(right))) }
}

/// How often each class was predicted for samples of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Confusion {
    /// A row for each class, in it a count for each predicted class.
    pub rows: Vec<Vec<u64>>,
}

/// How well one class is recognised. The names are those of information retrieval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClassFigures {
    /// Part of the predictions of this class that are right; none where it was never predicted.
    pub precision: Option<f64>,
    /// Part of the samples of this class that were predicted so; none where there are none.
    pub recall: Option<f64>,
    /// 2 · hits / (samples + predictions); none where there are neither.
    pub f1: Option<f64>,
    /// Samples of this class.
    pub n_samples: u64,
}

impl Confusion {
    /// Counts the predictions for samples of these labels.
    ///
    /// # Errors
    /// When there are more or fewer predictions than labels, or one of either is no class.
    pub fn of(labels: &[usize], predictions: &[usize], n_classes: usize) -> Result<Confusion, MetricError> {
        check_length("predictions", labels.len(), predictions.len())?;
        check_labels(labels, n_classes)?;
        check_labels(predictions, n_classes)?;
        let mut rows = vec![vec![0; n_classes]; n_classes];
        for (&label, &prediction) in labels.iter().zip(predictions) {
            rows[label][prediction] += 1;
        }
        Ok(Confusion { rows })
    }

    /// All samples.
    pub fn n_samples(&self) -> u64 {
        self.rows.iter().flatten().sum()
    }

    /// The part of the samples on the diagonal; none for no samples.
    pub fn accuracy(&self) -> Option<f64> {
        let n_samples = self.n_samples();
        let n_right: u64 = (0..self.rows.len()).map(|class| self.count(class, class)).sum();
        (n_samples > 0).then(|| n_right as f64 / n_samples as f64)
    }

    /// Figures of every class, in their order.
    pub fn classes(&self) -> Vec<ClassFigures> {
        let figures = |class: usize| {
            let n_samples: u64 = (0..self.rows.len()).map(|other| self.count(class, other)).sum();
            let n_predicted: u64 = (0..self.rows.len()).map(|other| self.count(other, class)).sum();
            let hits = self.count(class, class) as f64;
            let part_of = |n: u64| (n > 0).then(|| hits / n as f64);
            let f1 = part_of(n_samples + n_predicted).map(|half| 2.0 * half);
            ClassFigures { precision: part_of(n_predicted), recall: part_of(n_samples), f1, n_samples }
        };
        (0..self.rows.len()).map(figures).collect()
    }

    /// The mean of F1 over the classes that occur, as a label or as a prediction, as in scikit-learn; none for no
    /// samples.
    pub fn macro_f1(&self) -> Option<f64> {
        let f1: Vec<f64> = self.classes().iter().filter_map(|figures| figures.f1).collect();
        (!f1.is_empty()).then(|| mean(&f1))
    }

    fn count(&self, class: usize, predicted: usize) -> u64 {
        self.rows.get(class).and_then(|row| row.get(predicted)).copied().unwrap_or(0)
    }
}

/// Macro F1 of the samples at these places, for the bootstrap; none for no places.
///
/// # Errors
/// As [`Confusion::of`], and when a place is none of the samples'.
pub fn macro_f1_of(
    labels: &[usize],
    predictions: &[usize],
    n_classes: usize,
    places: &[usize],
) -> Result<Option<f64>, MetricError> {
    check_length("predictions", labels.len(), predictions.len())?;
    Ok(Confusion::of(&at(labels, places)?, &at(predictions, places)?, n_classes)?.macro_f1())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scores() -> Rows {
        Rows::new(vec![2.0, 1.0, 0.0, 0.0, 3.0, 1.0, 1.0, 1.0, 0.5, 0.0, f64::NEG_INFINITY, 4.0], 3).expect("4 rows")
    }

    #[test]
    fn the_greatest_score_is_the_class() {
        assert_eq!(predicted(&scores()), Ok(vec![0, 1, 0, 2]));
        assert_eq!(right(&scores(), &[0, 1, 1, 1]), Ok(vec![true, true, false, false]));
        assert_eq!(in_top(&scores(), &[0, 2, 1, 1], 2), Ok(vec![true, true, true, false]));
        assert_eq!(in_top(&scores(), &[0, 2, 1, 1], 3), Ok(vec![true; 4]));
        assert_eq!(accuracy(&[true, false]), Ok(0.5));
        assert_eq!(accuracy(&[]), Err(MetricError::Empty));
    }

    #[test]
    fn what_cannot_be_scored_is_refused() {
        let nan = Rows::new(vec![1.0, 0.0, f64::NAN, 1.0], 2).expect("2 rows");
        let message = "scores of sample 1 hold NaN, of which there is no score";
        assert_eq!(predicted(&nan).expect_err(message).to_string(), message);
        assert_eq!(right(&nan, &[0, 0]).expect_err(message).to_string(), message);
        assert_eq!(right(&scores(), &[0]).expect_err("short").to_string(), "labels: expected 4, got 1");
        let error = right(&scores(), &[0, 0, 3, 0]).expect_err("no class");
        assert_eq!(error.to_string(), "label 3 of sample 2 is outside of the 3 classes");
        assert!(macro_f1_of(&[0], &[0], 2, &[1]).is_err());
    }

    /// `precision_recall_fscore_support` and `f1_score(average="macro")` of scikit-learn 1.9.1; class 3 occurs only as
    /// a prediction, class 4 not at all.
    #[test]
    fn figures_are_those_of_scikit_learn() {
        let labels = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2];
        let predictions = [0, 1, 0, 1, 1, 1, 2, 2, 3, 2];
        let confusion = Confusion::of(&labels, &predictions, 5).expect("classes");
        assert_eq!(confusion.rows[0], [2, 1, 0, 0, 0]);
        let close = |a: Option<f64>, b: f64| a.is_some_and(|a| (a - b).abs() < 1e-15);
        assert!(close(confusion.accuracy(), 0.7));
        assert!(close(confusion.macro_f1(), 0.5541666666666667), "{:?}", confusion.macro_f1());
        let classes = confusion.classes();
        let check = |class: usize, precision: f64, recall: f64, f1: f64, n_samples: u64| {
            let got = classes[class];
            let is_near = close(got.precision, precision) && close(got.recall, recall) && close(got.f1, f1);
            assert!(is_near && got.n_samples == n_samples, "{class}: {got:?}");
        };
        check(0, 1.0, 0.6666666666666666, 0.8, 3);
        check(1, 0.75, 0.75, 0.75, 4);
        check(2, 0.6666666666666666, 0.6666666666666666, 0.6666666666666666, 3);
        assert_eq!((classes[3].recall, classes[3].precision, classes[3].f1), (None, Some(0.0), Some(0.0)));
        assert_eq!((classes[4].f1, classes[4].n_samples), (None, 0));
        let places: Vec<usize> = (0..10).collect();
        assert_eq!(macro_f1_of(&labels, &predictions, 5, &places), Ok(confusion.macro_f1()));
        let none = Confusion::of(&[], &[], 3).expect("no samples");
        assert_eq!((none.accuracy(), none.macro_f1()), (None, None));
    }

    proptest! {
        #[test]
        fn counts_add_up(pairs in prop::collection::vec((0usize..4, 0usize..4), 1..60)) {
            let (labels, predictions): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
            let confusion = Confusion::of(&labels, &predictions, 4).expect("classes");
            prop_assert_eq!(confusion.n_samples(), labels.len() as u64);
            let support: u64 = confusion.classes().iter().map(|figures| figures.n_samples).sum();
            prop_assert_eq!(support, labels.len() as u64);
            let macro_f1 = confusion.macro_f1().expect("samples");
            prop_assert!((0.0..=1.0).contains(&macro_f1));
            prop_assert_eq!(macro_f1 == 1.0, labels == predictions);
        }
    }
}
