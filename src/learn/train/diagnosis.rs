//! What the curves of a training say: fitted, underfitted, overfitted, diverged or not finished, by how much, and what
//! treats it.
//!
//! Losses are read as what is left to learn: `(loss − least) / (chance − least)`, one for a network that knows nothing
//! of its input and zero for a perfect one. `train`, `validation` are what is left at the best epoch, the one of the
//! least validation loss. The first rule that holds decides:
//!
//! 1. **diverged**: a loss of the last epoch is not finite, or the training loss is greater than the first epoch's and
//!    than chance.
//! 2. **overfitted**: validation is left more than 0.10 behind training (`gap`), or rose by more than 0.10 from the
//!    best epoch to the last (`rise`).
//! 3. **not finished**: over the last fifth of the epochs the mean validation loss fell by more than 0.02 against the
//!    fifth before (`fall`). One epoch is never finished.
//! 4. **underfitted**: both training and validation are left with more than 0.20.
//! 5. **fitted** otherwise.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What one epoch ended with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// The mean loss over the training split, as it was trained on.
    pub train_loss: f64,
    /// The mean loss over the validation split.
    pub validation_loss: f64,
    /// The metric over the validation split.
    pub metric: f64,
}

/// Between which losses a network learns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossRange {
    /// The loss of the best constant answer: `ln n_classes` for cross-entropy over equally frequent classes, the
    /// targets' variance for the squared error.
    pub chance: f64,
    /// The least loss that can be reached: 0, or the entropy of smoothed labels.
    pub least: f64,
}

impl LossRange {
    /// Of cross-entropy over equally frequent classes; with label smoothing `s` a label is `1 − s` and `s / n_classes`
    /// is added to each class, whose entropy is the least loss.
    pub fn cross_entropy(n_classes: usize, label_smoothing: f64) -> LossRange {
        let n = n_classes.max(1) as f64;
        let other = label_smoothing / n;
        let entropy = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
        let least = entropy(1.0 - label_smoothing + other) + (n - 1.0) * entropy(other);
        LossRange { chance: n.ln(), least }
    }

    fn left(self, loss: f64) -> f64 {
        // Where nothing can be learned, everything is learned.
        (loss - self.least) / (self.chance - self.least).max(f64::EPSILON)
    }
}

/// What the curves say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It learned what there was to learn.
    Fitted,
    /// It does not even know the training split.
    Underfitted,
    /// It knows the training split much better than other data.
    Overfitted,
    /// Training made it worse than not training.
    Diverged,
    /// It was still learning when it stopped.
    NotFinished,
}

/// What can be done about it, in the words of our options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// Alter the training samples.
    Augmentation,
    /// More weight decay, dropout or label smoothing.
    MoreRegularisation,
    /// Less weight decay, dropout, label smoothing or augmentation.
    LessRegularisation,
    /// More width or depth.
    LargerNetwork,
    /// Less width or depth.
    SmallerNetwork,
    /// Train longer.
    MoreEpochs,
    /// Learn from a teacher's outputs as well.
    Distillation,
    /// A smaller learning rate, a longer warm-up, or clipped gradients.
    SmallerSteps,
}

impl Treatment {
    /// What it is called in text.
    pub fn text(self) -> &'static str {
        match self {
            Treatment::Augmentation => "augmentation",
            Treatment::MoreRegularisation => "more regularisation",
            Treatment::LessRegularisation => "less regularisation",
            Treatment::LargerNetwork => "a larger network",
            Treatment::SmallerNetwork => "a smaller network",
            Treatment::MoreEpochs => "more epochs",
            Treatment::Distillation => "distillation",
            Treatment::SmallerSteps => "a smaller learning rate, warm-up or clipping",
        }
    }
}

/// A verdict with what it rests on. All but the epoch are parts of what there is to learn, see the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// What the curves say.
    pub verdict: Verdict,
    /// The epoch of the least validation loss, from 0; none where none is finite.
    pub best_epoch: Option<usize>,
    /// The metric at the best epoch.
    pub metric: Option<f64>,
    /// What is left of the training loss at the best epoch.
    pub train: f64,
    /// What is left of the validation loss at the best epoch.
    pub validation: f64,
    /// `validation − train`
    pub gap: f64,
    /// By how much the validation loss rose from the best epoch to the last.
    pub rise: f64,
    /// By how much the validation loss fell over the last fifth of the epochs.
    pub fall: f64,
    /// What treats it, the most likely first.
    pub treatments: Vec<Treatment>,
}

const OVERFITTED: f64 = 0.10;
const UNDERFITTED: f64 = 0.20;
const STILL_FALLING: f64 = 0.02;

/// Judges the epochs of one training; none where there is no epoch.
pub fn diagnose(epochs: &[Epoch], range: LossRange) -> Option<Diagnosis> {
    let (first, last) = (epochs.first()?, epochs.last()?);
    let finite = epochs.iter().enumerate().filter(|(_, epoch)| epoch.validation_loss.is_finite());
    let best = finite.min_by(|(_, a), (_, b)| a.validation_loss.total_cmp(&b.validation_loss));
    let best_epoch = best.map(|(idx, _)| idx);
    let at_best = best.map_or(last, |(_, epoch)| epoch);
    let (train, validation) = (range.left(at_best.train_loss), range.left(at_best.validation_loss));
    let (gap, rise) = (validation - train, range.left(last.validation_loss) - validation);
    let fall = fall(epochs, range);
    let is_worse = last.train_loss > first.train_loss && last.train_loss > range.chance;
    let is_finite = last.train_loss.is_finite() && last.validation_loss.is_finite();
    let verdict = if !is_finite || is_worse {
        Verdict::Diverged
    } else if gap > OVERFITTED || rise > OVERFITTED {
        Verdict::Overfitted
    } else if fall.is_none_or(|fall| fall > STILL_FALLING) {
        Verdict::NotFinished
    } else if train > UNDERFITTED && validation > UNDERFITTED {
        Verdict::Underfitted
    } else {
        Verdict::Fitted
    };
    let metric = best_epoch.map(|_| at_best.metric);
    let fall = fall.unwrap_or(0.0);
    let treatments = treatments(verdict);
    Some(Diagnosis { verdict, best_epoch, metric, train, validation, gap, rise, fall, treatments })
}

/// How much less is left on average over the last fifth of the epochs than over the fifth before; none for one epoch.
fn fall(epochs: &[Epoch], range: LossRange) -> Option<f64> {
    let n_window = (epochs.len() / 5).max(1);
    let start = epochs.len().checked_sub(2 * n_window)?;
    let mean = |epochs: &[Epoch]| epochs.iter().map(|epoch| epoch.validation_loss).sum::<f64>() / n_window as f64;
    let (before, after) = epochs[start..].split_at(n_window);
    Some(range.left(mean(before)) - range.left(mean(after)))
}

fn treatments(verdict: Verdict) -> Vec<Treatment> {
    match verdict {
        Verdict::Fitted => Vec::new(),
        Verdict::Underfitted => vec![
            Treatment::LargerNetwork,
            Treatment::LessRegularisation,
            Treatment::Distillation,
            Treatment::MoreEpochs,
        ],
        Verdict::Overfitted => vec![
            Treatment::Augmentation,
            Treatment::MoreRegularisation,
            Treatment::Distillation,
            Treatment::SmallerNetwork,
        ],
        Verdict::Diverged => vec![Treatment::SmallerSteps],
        Verdict::NotFinished => vec![Treatment::MoreEpochs],
    }
}

impl fmt::Display for Diagnosis {
    /// One line: the verdict, the numbers that it rests on, what treats it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnosis { train, validation, gap, rise, fall, .. } = self;
        let percent = |part: &f64| format!("{:.0} %", 100.0 * part);
        let left =
            format!("{} of training and {} of validation are left to learn", percent(train), percent(validation));
        match self.verdict {
            Verdict::Fitted => write!(f, "fitted: {left}")?,
            Verdict::Underfitted => write!(f, "underfitted: {left}")?,
            Verdict::Overfitted => {
                write!(
                    f,
                    "overfitted: {left}, a gap of {}; since the best epoch it rose by {}",
                    percent(gap),
                    percent(rise)
                )?;
            }
            Verdict::Diverged => f.write_str("diverged: the training loss is no better than before training")?,
            Verdict::NotFinished => write!(f, "not finished: {left}, and it was still falling by {}", percent(fall))?,
        }
        let treatments: Vec<&str> = self.treatments.iter().map(|treatment| treatment.text()).collect();
        if treatments.is_empty() { Ok(()) } else { write!(f, "; try {}", treatments.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: LossRange = LossRange { chance: 2.0, least: 0.0 };

    fn diagnosis(curves: &[(f64, f64)]) -> Diagnosis {
        let epoch = |&(train_loss, validation_loss)| Epoch { train_loss, validation_loss, metric: 0.5 };
        let epochs: Vec<Epoch> = curves.iter().map(epoch).collect();
        diagnose(&epochs, RANGE).expect("there are epochs")
    }

    #[track_caller]
    fn check(curves: &[(f64, f64)], expected: Verdict) {
        let diagnosis = diagnosis(curves);
        assert_eq!(diagnosis.verdict, expected, "{diagnosis}");
    }

    /// From (2, 2) down to these, along which what is still to go halves each epoch.
    fn falling_to(train: f64, validation: f64) -> Vec<(f64, f64)> {
        let at = |end: f64, epoch: i32| end + (2.0 - end) * 0.5f64.powi(epoch);
        (0..15).map(|epoch| (at(train, epoch), at(validation, epoch))).collect()
    }

    #[test]
    fn curves_are_judged() {
        check(&falling_to(0.05, 0.1), Verdict::Fitted);
        check(&falling_to(0.3, 0.45), Verdict::Fitted);
        check(&falling_to(0.7, 0.75), Verdict::Underfitted);
        check(&falling_to(0.7, 0.3), Verdict::Fitted);
        check(&falling_to(0.1, 0.4), Verdict::Overfitted);
        check(&falling_to(0.1, 0.2)[..4], Verdict::NotFinished);
        check(&[(2.0, 2.0)], Verdict::NotFinished);
        check(&[(1.0, 1.0), (0.5, 0.5), (0.4, 0.5), (0.1, 0.8)], Verdict::Overfitted);
        check(&[(2.0, 2.0), (1.0, 1.0), (2.5, 2.5)], Verdict::Diverged);
        check(&[(2.0, 2.0), (f64::NAN, 1.0)], Verdict::Diverged);
        check(&[(2.0, f64::NAN), (1.0, f64::INFINITY)], Verdict::Diverged);
        check(&[(2.0, 2.0), (1.0, f64::NAN)], Verdict::Diverged);
        check(&[(0.5, 0.5), (0.6, 0.5), (0.6, 0.5), (0.6, 0.5)], Verdict::Underfitted);
    }

    #[test]
    fn it_says_by_how_much_and_what_to_do() {
        let found = diagnosis(&[(1.0, 1.0), (0.5, 0.9), (0.1, 1.3)]);
        assert_eq!((found.best_epoch, found.metric), (Some(1), Some(0.5)));
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(close(found.gap, 0.2) && close(found.rise, 0.2) && close(found.fall, -0.2), "{found:?}");
        assert_eq!(
            found.to_string(),
            "overfitted: 25 % of training and 45 % of validation are left to learn, a gap of 20 %; since the best epoch it \
             rose by 20 %; try augmentation, more regularisation, distillation, a smaller network"
        );
        let json = serde_json::to_string(&found).expect("it has a form in JSON");
        assert!(json.contains(r#""verdict":"overfitted""#) && json.contains(r#""more-regularisation""#), "{json}");
        assert_eq!(diagnose(&[], RANGE), None);
    }

    #[test]
    fn smoothed_labels_leave_a_loss() {
        let range = LossRange::cross_entropy(10, 0.1);
        // 0.91 and nine times 0.01
        let least = -0.91 * 0.91f64.ln() - 9.0 * 0.01 * 0.01f64.ln();
        assert!((range.least - least).abs() < 1e-12 && (range.chance - 10f64.ln()).abs() < 1e-12);
        assert_eq!(LossRange::cross_entropy(10, 0.0).least, 0.0);
    }
}
