//! May the student replace the teacher: a verdict of non-inferiority at a margin.
//!
//! A two-sided interval of student − teacher decides, on both sides of the margin: with 95 % confidence each side errs
//! with at most 2.5 %, so a student that is worse by just the margin passes once in forty times. That is the convention
//! of drug trials (ICH E9, §3.3.2), and the interval that is shown is the one that decides.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sample_size::{self, Plan};
use super::{
    Counts, StatisticsError, bootstrap, check_between_0_and_1, check_finite, check_margin, mcnemar, proportions,
};
use crate::measure::statistics::{Interval, mean};

/// Whether the student is worse by less than the margin. `Display` reads "passes", "fails" or "not decidable with 500
/// samples (need about 2000)".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is above −margin.
    Passes,
    /// The whole interval is below −margin.
    Fails,
    /// −margin lies within the interval.
    Undecided {
        /// Samples there were.
        n: usize,
        /// Samples that would decide with the power asked for, if the true difference is the one observed; none where
        /// it is just at the margin.
        needed: Option<usize>,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Passes => f.pad("passes"),
            Verdict::Fails => f.pad("fails"),
            Verdict::Undecided { n, needed: Some(needed) } => {
                write!(f, "not decidable with {n} samples (need about {})", two_digits_up(*needed))
            }
            Verdict::Undecided { n, needed: None } => {
                write!(f, "not decidable with {n} samples, nor with more (the difference is at the margin)")
            }
        }
    }
}

/// Rounded up to two digits: an estimate has no more.
fn two_digits_up(n: usize) -> usize {
    let unit = 10usize.pow(n.max(1).ilog10().saturating_sub(1));
    n.div_ceil(unit).saturating_mul(unit)
}

/// How a verdict is reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Options {
    /// How much worse the student may be, in the scores' units; 0 or more.
    pub margin: f64,
    /// The probability with which the number of samples named for an undecided verdict would decide.
    pub power: f64,
    /// The interval's confidence; resamples and seed where it is bootstrapped.
    pub interval: bootstrap::Options,
}

impl Options {
    /// 95 % confidence and a power of 0.8.
    pub fn at(margin: f64) -> Options {
        Options { margin, power: 0.8, interval: bootstrap::Options::default() }
    }
}

/// Where an interval comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Tango's score interval for right and wrong, see [`proportions`].
    Tango,
    /// The BCa interval of the paired bootstrap, see [`bootstrap`].
    Bootstrap,
}

/// A verdict with what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// The interval of student − teacher.
    pub interval: Interval,
    /// Where the interval comes from.
    pub method: Method,
    /// How much worse the student may be.
    pub margin: f64,
    /// Samples on which both were scored.
    pub n_samples: usize,
    /// p-value of no difference at all, by McNemar's exact test; none for scores other than right and wrong.
    pub p_exact: Option<f64>,
}

/// The verdict on scores of the same samples, the higher the better. Where all are 0 or 1 the interval is Tango's, as
/// in [`judge_counts`], else the bootstrap's.
///
/// # Errors
/// When there are no scores or not equally many, one is NaN or infinite, or an option is out of range.
pub fn judge(student: &[f64], teacher: &[f64], options: &Options) -> Result<Judgement, StatisticsError> {
    let differences = super::differences(student, teacher)?;
    let right = |scores: &[f64]| -> Option<Vec<bool>> {
        scores.iter().map(|&score| (score == 0.0 || score == 1.0).then_some(score == 1.0)).collect()
    };
    match (right(student), right(teacher)) {
        (Some(student), Some(teacher)) => judge_counts(&Counts::of(&student, &teacher)?, options),
        (None, _) | (_, None) => judge_differences(&differences, options),
    }
}

/// The verdict on accuracies, by Tango's interval.
///
/// # Errors
/// When there are no samples, or an option is out of range.
pub fn judge_counts(counts: &Counts, options: &Options) -> Result<Judgement, StatisticsError> {
    let interval = proportions::interval(counts, options.interval.confidence)?;
    let n = counts.n_samples();
    // One more on either side (Bonett and Price 2012): no disagreement so far does not promise none ever.
    let discordance = (counts.n_discordant() + 2) as f64 / (n + 2) as f64;
    let plan = plan(&interval, options);
    let needed = || sample_size::of_proportions(&plan, discordance.clamp(interval.estimate.abs(), 1.0));
    let verdict = decide(&interval, options, n, needed)?;
    let p_exact = Some(mcnemar::mcnemar(counts).p_exact);
    Ok(Judgement { verdict, interval, method: Method::Tango, margin: options.margin, n_samples: n, p_exact })
}

/// The verdict on differences student − teacher of any kind, by the bootstrap.
///
/// # Errors
/// When there are none, one is NaN or infinite, or an option is out of range.
pub fn judge_differences(differences: &[f64], options: &Options) -> Result<Judgement, StatisticsError> {
    check_finite(differences)?;
    let interval = bootstrap::mean_interval(differences, &options.interval)?.interval;
    let n = differences.len();
    let centre = mean(differences);
    let squares: f64 = differences.iter().map(|difference| (difference - centre).powi(2)).sum();
    let deviation = (squares / n.saturating_sub(1).max(1) as f64).sqrt();
    let verdict = of_interval(&interval, n, deviation, options)?;
    Ok(Judgement { verdict, interval, method: Method::Bootstrap, margin: options.margin, n_samples: n, p_exact: None })
}

/// The verdict that an interval of student − teacher gives, wherever it is from. `deviation` is the standard deviation
/// of a single sample's difference; for a statistic that has none, width · √n / (2 z) of its interval.
///
/// # Errors
/// When the interval's ends are NaN or an option is out of range.
pub fn of_interval(
    interval: &Interval,
    n: usize,
    deviation: f64,
    options: &Options,
) -> Result<Verdict, StatisticsError> {
    let plan = plan(interval, options);
    decide(interval, options, n, || sample_size::of_means(&plan, deviation))
}

fn plan(interval: &Interval, options: &Options) -> Plan {
    let Options { margin, power, .. } = *options;
    Plan { difference: interval.estimate, margin, confidence: interval.confidence, power }
}

fn decide(
    interval: &Interval,
    options: &Options,
    n: usize,
    needed: impl FnOnce() -> Result<Option<usize>, StatisticsError>,
) -> Result<Verdict, StatisticsError> {
    check_margin(options.margin)?;
    check_between_0_and_1("the power", options.power)?;
    for value in [interval.low, interval.high] {
        if value.is_nan() {
            let range = "an interval between numbers";
            return Err(StatisticsError::Parameter { what: "an end of the interval", value, range });
        }
    }
    if interval.low > -options.margin {
        return Ok(Verdict::Passes);
    }
    if interval.high < -options.margin {
        return Ok(Verdict::Fails);
    }
    // These were not enough, whatever an approximation says of as many.
    Ok(Verdict::Undecided { n, needed: needed()?.map(|needed| needed.max(n.saturating_add(1))) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(n_student_only: usize, n_teacher_only: usize, n: usize) -> Counts {
        let n_both_right = n - n_student_only - n_teacher_only;
        Counts { n_both_right, n_student_only, n_teacher_only, n_both_wrong: 0 }
    }

    #[test]
    fn verdicts_read_as_promised() {
        let check = |student_only, teacher_only, n, margin, expected: &str| {
            let got = judge_counts(&counts(student_only, teacher_only, n), &Options::at(margin)).expect("a verdict");
            assert_eq!(got.verdict.to_string(), expected, "{got:?}");
        };
        check(40, 40, 2000, 0.02, "passes");
        check(10, 90, 2000, 0.02, "fails");
        check(10, 10, 500, 0.01, "not decidable with 500 samples (need about 3600)");
        check(0, 0, 100, 0.01, "not decidable with 100 samples (need about 1800)");
        check(5, 10, 500, 0.01, "not decidable with 500 samples, nor with more (the difference is at the margin)");
        check(0, 0, 1000, 0.01, "passes");
    }

    #[test]
    fn rights_and_wrongs_go_by_counts_and_other_scores_by_the_bootstrap() {
        let teacher = [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        let student = [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0];
        let got = judge(&student, &teacher, &Options::at(0.5)).expect("a verdict");
        assert_eq!((got.method, got.n_samples, got.p_exact), (Method::Tango, 10, Some(1.0)));
        let halved: Vec<f64> = student.iter().map(|score| score * 0.9).collect();
        let got = judge(&halved, &teacher, &Options::at(0.5)).expect("a verdict");
        assert_eq!((got.method, got.verdict, got.p_exact), (Method::Bootstrap, Verdict::Passes, None));
        assert!(judge(&[f64::NAN], &[1.0], &Options::at(0.1)).is_err());
        assert!(judge(&[1.0], &[1.0], &Options::at(-0.1)).is_err());
    }

    #[test]
    fn judgements_are_kept_as_json() {
        let judgement = judge_counts(&counts(10, 10, 500), &Options::at(0.01)).expect("a verdict");
        let json = serde_json::to_string(&judgement).expect("plain numbers");
        assert!(json.contains(r#""verdict":{"undecided":{"n":500,"needed":"#), "{json}");
        assert!(json.contains(r#""method":"tango""#), "{json}");
        let back: Judgement = serde_json::from_str(&json).expect("our own");
        assert_eq!((back.verdict, back.n_samples), (judgement.verdict, 500));
    }

    #[test]
    fn a_point_is_decided_unless_it_is_the_margin() {
        let verdict = |value: f64| judge_differences(&[value; 20], &Options::at(0.25)).expect("a verdict").verdict;
        assert_eq!([verdict(0.0), verdict(-0.5)], [Verdict::Passes, Verdict::Fails]);
        assert_eq!(verdict(-0.25), Verdict::Undecided { n: 20, needed: None });
    }

    proptest! {
        #[test]
        fn a_wider_margin_never_does_harm(
            a in 0usize..100,
            b in 0usize..100,
            rest in 1usize..3000,
            margin in 0.0..0.1f64,
        ) {
            let verdict = |margin: f64| {
                judge_counts(&counts(a, b, a + b + rest), &Options::at(margin)).expect("a verdict").verdict
            };
            let rank = |verdict: Verdict| match verdict {
                Verdict::Fails => 0,
                Verdict::Undecided { n, needed } => {
                    assert!(needed.is_none_or(|needed| needed > n));
                    1
                }
                Verdict::Passes => 2,
            };
            prop_assert!(rank(verdict(margin)) <= rank(verdict(margin + 0.01)));
        }

        /// Six times the samples that were asked for, with the same parts, decide.
        #[test]
        fn what_is_needed_decides(a in 0usize..40, b in 0usize..40, margin in 0.005..0.05f64) {
            let n = 1000;
            let judged = judge_counts(&counts(a, b, n), &Options::at(margin)).expect("a verdict");
            if let Verdict::Undecided { needed: Some(needed), .. } = judged.verdict && needed < 10_000_000 {
                let times = 6 * needed.div_ceil(n);
                let more = counts(a * times, b * times, n * times);
                let judged = judge_counts(&more, &Options::at(margin)).expect("a verdict");
                prop_assert!(!matches!(judged.verdict, Verdict::Undecided { .. }), "{judged:?}");
            }
        }
    }
}
