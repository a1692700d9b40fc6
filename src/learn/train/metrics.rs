//! How good predictions are. Everything is summed in `f64`, batch by batch.

use serde::Serialize;

/// Why numbers cannot be scored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// There are more or fewer numbers than the labels or targets take.
    #[error("{n_labels} labels take {expected} outputs, got {got}")]
    Length {
        /// how many samples there are
        n_labels: usize,
        /// how many numbers they take
        expected: usize,
        /// how many there are
        got: usize,
    },
    /// A label is no class.
    #[error("label {label} of sample {sample} is outside of the {n_classes} classes")]
    Label {
        /// the label
        label: i64,
        /// the sample's position in its batch
        sample: usize,
        /// the number of classes
        n_classes: usize,
    },
}

/// The mean of a loss over samples, batches being of any size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossMean {
    sum: f64,
    n_samples: u64,
}

impl LossMean {
    /// Adds a batch by the mean of its samples' losses.
    pub fn add(&mut self, batch_mean: f64, n_samples: usize) {
        let n_samples = n_samples as u64;
        self.sum += batch_mean * n_samples as f64;
        self.n_samples += n_samples;
    }

    /// The mean; none before the first sample.
    pub fn mean(&self) -> Option<f64> {
        (self.n_samples > 0).then(|| self.sum / self.n_samples as f64)
    }
}

/// Which class was predicted how often for which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    n_classes: usize,
    counts: Vec<u64>,
    k: usize,
    n_in_top_k: u64,
}

/// What a [`Confusion`] says in numbers between 0 and 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassScores {
    /// The part of the samples whose greatest logit is that of their class.
    pub accuracy: f64,
    /// The part of the samples whose class is among the `k` greatest logits.
    pub top_k: f64,
    /// The mean over the classes that occur, as a label or as a prediction, of
    /// `2 · true positives / (labels + predictions)`.
    pub macro_f1: f64,
    /// The number of samples.
    pub n_samples: u64,
}

impl Confusion {
    /// Without samples; a hit among the `k` greatest logits is counted, too.
    pub fn new(n_classes: usize, k: usize) -> Confusion {
        let n_counts = n_classes.checked_mul(n_classes).expect("a network has far fewer classes");
        Confusion { n_classes, counts: vec![0; n_counts], k, n_in_top_k: 0 }
    }

    /// Adds samples by their logits `[n_samples, n_classes]`. Of equal logits the first counts as the greatest; one
    /// that is no number counts as the least.
    ///
    /// # Errors
    /// When there are more or fewer logits, or a label is no class. Nothing is added then.
    pub fn add(&mut self, logits: &[f32], labels: &[i64]) -> Result<(), MetricError> {
        check_length(labels.len(), self.n_classes, logits.len())?;
        let classes = labels
            .iter()
            .enumerate()
            .map(|(sample, &label)| match usize::try_from(label) {
                Ok(class) if class < self.n_classes => Ok(class),
                Ok(_) | Err(_) => Err(MetricError::Label { label, sample, n_classes: self.n_classes }),
            })
            .collect::<Result<Vec<usize>, _>>()?;
        for (&class, logits) in classes.iter().zip(logits.chunks(self.n_classes.max(1))) {
            let predicted = greatest(logits);
            self.counts[class * self.n_classes + predicted] += 1;
            self.n_in_top_k += u64::from(rank(logits, class) < self.k);
        }
        Ok(())
    }

    /// How often `predicted` was said for samples of `class`.
    pub fn count(&self, class: usize, predicted: usize) -> Option<u64> {
        let is_inside = class < self.n_classes && predicted < self.n_classes;
        is_inside.then(|| self.counts[class * self.n_classes + predicted])
    }

    /// The rows of the matrix: for each class, how often each was predicted.
    pub fn rows(&self) -> impl Iterator<Item = &[u64]> {
        self.counts.chunks(self.n_classes.max(1))
    }

    /// The scores; none before the first sample.
    pub fn scores(&self) -> Option<ClassScores> {
        let n_samples: u64 = self.counts.iter().sum();
        if n_samples == 0 {
            return None;
        }
        let part = |n: u64| n as f64 / n_samples as f64;
        let hits: u64 = (0..self.n_classes).filter_map(|class| self.count(class, class)).sum();
        let f1: Vec<f64> = (0..self.n_classes).filter_map(|class| self.f1(class)).collect();
        Some(ClassScores {
            accuracy: part(hits),
            top_k: part(self.n_in_top_k),
            macro_f1: f1.iter().sum::<f64>() / f1.len() as f64,
            n_samples,
        })
    }

    fn f1(&self, class: usize) -> Option<f64> {
        let labels: u64 = (0..self.n_classes).filter_map(|other| self.count(class, other)).sum();
        let predictions: u64 = (0..self.n_classes).filter_map(|other| self.count(other, class)).sum();
        let hits = self.count(class, class)?;
        (labels + predictions > 0).then(|| 2.0 * hits as f64 / (labels + predictions) as f64)
    }
}

/// Squared and absolute errors of predicted numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    squared: f64,
    absolute: f64,
    n_numbers: u64,
}

/// What [`Errors`] says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ErrorScores {
    /// The mean squared error.
    pub mse: f64,
    /// The mean absolute error.
    pub mae: f64,
    /// The number of predicted numbers.
    pub n_numbers: u64,
}

impl Errors {
    /// Adds predictions with their targets.
    ///
    /// # Errors
    /// When there are more or fewer of them.
    pub fn add(&mut self, predicted: &[f32], targets: &[f32]) -> Result<(), MetricError> {
        check_length(targets.len(), 1, predicted.len())?;
        for (&predicted, &target) in predicted.iter().zip(targets) {
            let error = f64::from(predicted) - f64::from(target);
            self.squared += error * error;
            self.absolute += error.abs();
        }
        self.n_numbers += targets.len() as u64;
        Ok(())
    }

    /// The scores; none before the first number.
    pub fn scores(&self) -> Option<ErrorScores> {
        let mean = |sum: f64| sum / self.n_numbers as f64;
        let scores = || ErrorScores { mse: mean(self.squared), mae: mean(self.absolute), n_numbers: self.n_numbers };
        (self.n_numbers > 0).then(scores)
    }
}

fn check_length(n_labels: usize, each: usize, got: usize) -> Result<(), MetricError> {
    match n_labels.checked_mul(each) {
        Some(expected) if expected == got => Ok(()),
        expected => Err(MetricError::Length { n_labels, expected: expected.unwrap_or(usize::MAX), got }),
    }
}

/// A logit in the order of logits.
fn ordered(logit: f32) -> f32 {
    if logit.is_nan() { f32::NEG_INFINITY } else { logit }
}

/// The class of the greatest logit: of equal ones the first; one that is no number counts as the least.
pub fn greatest(logits: &[f32]) -> usize {
    let greater = |best: usize, class: usize| if ordered(logits[class]) > ordered(logits[best]) { class } else { best };
    (0..logits.len()).reduce(greater).unwrap_or(0)
}

/// How many classes come before this one.
fn rank(logits: &[f32], class: usize) -> usize {
    let own = ordered(logits[class]);
    let is_before = |other: usize, value: f32| value > own || (value == own && other < class);
    logits.iter().enumerate().filter(|&(other, &value)| is_before(other, ordered(value))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_counted_and_scored() {
        let mut confusion = Confusion::new(3, 2);
        assert_eq!(confusion.scores(), None);
        // predictions 0, 1, 1, 0; the last two samples' classes are second and last
        let logits = [2.0, 1.0, 0.0, 0.0, 3.0, 1.0, 1.0, 5.0, 2.0, 4.0, 4.0, f32::NAN];
        confusion.add(&logits[..6], &[0, 1]).expect("two samples");
        confusion.add(&logits[6..], &[2, 2]).expect("two samples");
        assert_eq!(confusion.rows().collect::<Vec<_>>(), [[1, 0, 0], [0, 1, 0], [1, 1, 0]]);
        let scores = confusion.scores().expect("four samples");
        // F1: class 0 is 2 · 1 / (1 + 2), class 1 the same, class 2 none of 2
        let expected =
            ClassScores { accuracy: 0.5, top_k: 0.75, macro_f1: (2.0 / 3.0 + 2.0 / 3.0) / 3.0, n_samples: 4 };
        assert_eq!(scores, expected);
    }

    #[test]
    fn a_class_that_never_occurs_has_no_f1() {
        let mut confusion = Confusion::new(4, 1);
        confusion.add(&[1.0, 0.0, 0.0, 0.0], &[0]).expect("one sample");
        assert_eq!(confusion.scores().map(|scores| scores.macro_f1), Some(1.0));
        assert_eq!(confusion.count(0, 4), None);
    }

    #[test]
    fn labels_outside_and_missing_logits_are_refused() {
        let mut confusion = Confusion::new(2, 1);
        let refused = |error: Result<(), MetricError>| error.expect_err("it is refused").to_string();
        assert_eq!(refused(confusion.add(&[0.0; 4], &[0, 2])), "label 2 of sample 1 is outside of the 2 classes");
        assert_eq!(refused(confusion.add(&[0.0; 2], &[-1])), "label -1 of sample 0 is outside of the 2 classes");
        assert_eq!(refused(confusion.add(&[0.0; 3], &[0, 1])), "2 labels take 4 outputs, got 3");
        assert_eq!(confusion.scores(), None, "nothing was added");
        assert!(Errors::default().add(&[0.0], &[]).is_err());
    }

    #[test]
    fn errors_and_losses_are_means_over_samples() {
        let mut errors = Errors::default();
        assert_eq!(errors.scores(), None);
        errors.add(&[1.0, 2.0], &[0.0, 4.0]).expect("two");
        errors.add(&[3.0], &[2.0]).expect("one");
        assert_eq!(errors.scores(), Some(ErrorScores { mse: 2.0, mae: 4.0 / 3.0, n_numbers: 3 }));
        let mut loss = LossMean::default();
        assert_eq!(loss.mean(), None);
        loss.add(1.0, 3);
        loss.add(5.0, 1);
        assert_eq!(loss.mean(), Some(2.0));
    }
}
