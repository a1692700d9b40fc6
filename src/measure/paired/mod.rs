//! Comparing a student with its teacher on the same samples. Pure functions on numbers: no clock, no files.
//!
//! Every comparison begins with one number a sample for each of the two, the higher the better (1 for right and 0 for
//! wrong, or any score; a loss is negated), and asks about the mean of student − teacher. [`verdict::judge`] answers
//! the question of a release in one call; the parts that it is made of are here as well:
//!
//! | question | answer |
//! |---|---|
//! | may the student replace the teacher, at most a margin worse? | [`verdict`] |
//! | how many samples would tell? | [`sample_size`] |
//! | how far are two accuracies from each other? | [`proportions`] |
//! | how far are two means, or two values of any statistic, from each other? | [`bootstrap`] |
//! | do the two differ at all? | [`mcnemar`] |
//! | and when several such questions are asked at once? | [`holm`] |

pub mod bootstrap;
#[cfg(test)]
mod coverage;
pub mod holm;
pub mod mcnemar;
pub mod proportions;
pub mod sample_size;
pub mod verdict;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why numbers cannot be compared.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StatisticsError {
    /// There is nothing to compare.
    #[error("no samples to compare")]
    Empty,
    /// A comparison is of the same samples.
    #[error("the student has {student} scores and the teacher {teacher}: give both for the same samples")]
    Length {
        /// scores of the student
        student: usize,
        /// scores of the teacher
        teacher: usize,
    },
    /// A score is NaN or infinite.
    #[error("the score of sample {sample} is {value}: leave the sample out of both, or give it a finite score")]
    NotFinite {
        /// its place among the samples
        sample: usize,
        /// the score
        value: f64,
    },
    /// A number that steers the statistics is out of its range.
    #[error("{what} is {value}: give {range}")]
    Parameter {
        /// what it is
        what: &'static str,
        /// what was given
        value: f64,
        /// what is allowed
        range: &'static str,
    },
    /// A statistic has no value on the data, or on too many resamples of them.
    #[error("the statistic has no value on {n_undefined} of {n_resamples} resamples: give more samples")]
    Undefined {
        /// resamples, or 1 for the data themselves
        n_resamples: usize,
        /// how many of them have no value
        n_undefined: usize,
    },
}

/// How often which of the two was right on the same samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Samples that both got right.
    pub n_both_right: usize,
    /// Samples that only the student got right.
    pub n_student_only: usize,
    /// Samples that only the teacher got right.
    pub n_teacher_only: usize,
    /// Samples that both got wrong.
    pub n_both_wrong: usize,
}

impl Counts {
    /// Counts over the same samples in the same order.
    ///
    /// # Errors
    /// When one of the two has more of them, or there are none.
    pub fn of(student_right: &[bool], teacher_right: &[bool]) -> Result<Counts, StatisticsError> {
        check_lengths(student_right.len(), teacher_right.len())?;
        let mut counts = Counts::default();
        for pair in student_right.iter().zip(teacher_right) {
            match pair {
                (true, true) => counts.n_both_right += 1,
                (true, false) => counts.n_student_only += 1,
                (false, true) => counts.n_teacher_only += 1,
                (false, false) => counts.n_both_wrong += 1,
            }
        }
        Ok(counts)
    }

    /// All samples.
    pub fn n_samples(&self) -> usize {
        self.n_both_right + self.n_both_wrong + self.n_discordant()
    }

    /// Samples on which exactly one was right: only they say which is better.
    pub fn n_discordant(&self) -> usize {
        self.n_student_only + self.n_teacher_only
    }

    /// Accuracy of the student less that of the teacher. NaN for no samples.
    pub fn difference(&self) -> f64 {
        (self.n_student_only as f64 - self.n_teacher_only as f64) / self.n_samples() as f64
    }
}

/// Student − teacher, sample by sample.
///
/// # Errors
/// When one of the two has more scores, there are none, or one is NaN or infinite.
pub fn differences(student: &[f64], teacher: &[f64]) -> Result<Vec<f64>, StatisticsError> {
    check_lengths(student.len(), teacher.len())?;
    check_finite(student)?;
    check_finite(teacher)?;
    Ok(student.iter().zip(teacher).map(|(student, teacher)| student - teacher).collect())
}

fn check_lengths(student: usize, teacher: usize) -> Result<(), StatisticsError> {
    if student != teacher {
        return Err(StatisticsError::Length { student, teacher });
    }
    if student == 0 { Err(StatisticsError::Empty) } else { Ok(()) }
}

fn check_finite(scores: &[f64]) -> Result<(), StatisticsError> {
    match scores.iter().position(|score| !score.is_finite()) {
        Some(sample) => Err(StatisticsError::NotFinite { sample, value: scores[sample] }),
        None => Ok(()),
    }
}

/// Confidence, power and the like.
fn check_between_0_and_1(what: &'static str, value: f64) -> Result<(), StatisticsError> {
    let is_inside = value > 0.0 && value < 1.0;
    let range = "a number between 0 and 1, neither included";
    if is_inside { Ok(()) } else { Err(StatisticsError::Parameter { what, value, range }) }
}

fn check_margin(margin: f64) -> Result<(), StatisticsError> {
    let is_margin = margin >= 0.0 && margin.is_finite();
    let error = StatisticsError::Parameter { what: "the margin", value: margin, range: "0 or more" };
    if is_margin { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_counted_by_who_was_right() {
        let (t, f) = (true, false);
        let counts = Counts::of(&[t, t, f, f, f], &[t, f, t, t, f]).expect("five pairs");
        let expected = Counts { n_both_right: 1, n_student_only: 1, n_teacher_only: 2, n_both_wrong: 1 };
        assert_eq!(counts, expected);
        assert_eq!((counts.n_samples(), counts.n_discordant(), counts.difference()), (5, 3, -0.2));
    }

    #[test]
    fn unequal_missing_and_infinite_scores_are_refused() {
        let check = |student: &[f64], teacher: &[f64], message: &str| {
            assert_eq!(differences(student, teacher).expect_err(message).to_string(), message);
        };
        check(&[1.0], &[], "the student has 1 scores and the teacher 0: give both for the same samples");
        check(&[], &[], "no samples to compare");
        let message = "the score of sample 1 is NaN: leave the sample out of both, or give it a finite score";
        check(&[1.0, 2.0], &[1.0, f64::NAN], message);
        assert_eq!(differences(&[1.0, 0.5], &[0.5, 1.0]), Ok(vec![0.5, -0.5]));
        assert_eq!(Counts::of(&[], &[]), Err(StatisticsError::Empty));
    }
}
