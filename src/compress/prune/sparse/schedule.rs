//! How many elements are out at each step of a training.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::PruneError;

/// When elements go, as TOML has it: `"cubic"` or `{ cubic = { end = 0.5 } }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// All before the first step.
    #[default]
    OneShot,
    /// As many each time.
    Linear {
        /// the share of the training before the first go
        #[serde(default)]
        begin: f64,
        /// the share after which all are out
        #[serde(default = "default_end")]
        end: f64,
        /// how often some go
        #[serde(default = "default_updates")]
        updates: u64,
    },
    /// Many at first and few at last: Zhu and Gupta, "To prune, or not to prune" (2017), equation 1, from a sparsity of zero.
    Cubic {
        /// the share of the training before the first go
        #[serde(default)]
        begin: f64,
        /// the share after which all are out
        #[serde(default = "default_end")]
        end: f64,
        /// how often some go
        #[serde(default = "default_updates")]
        updates: u64,
    },
    /// Training, then the same share of what is left each time, the others going back to what they were at an early step, and training
    /// again: Frankle and Carbin, "The Lottery Ticket Hypothesis" (2019), section 2, with the later step of Frankle et al., "Linear
    /// Mode Connectivity" (2020). The rounds divide the steps of the training among them.
    Iterative {
        /// how often some go
        #[serde(default = "default_rounds")]
        rounds: u64,
        /// the step that weights go back to, as a share of those of the first round
        #[serde(default)]
        rewind: f64,
    },
}

fn default_end() -> f64 {
    0.75
}

fn default_updates() -> u64 {
    20
}

fn default_rounds() -> u64 {
    3
}

/// Where in its rounds a training stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// How often elements went.
    pub round: u64,
    /// Steps that the weights have seen since they were first.
    pub n_done: u64,
    /// Steps of a round.
    pub n_steps: u64,
}

/// The rounds of an iterative schedule.
#[derive(Clone, Copy)]
struct Cycle {
    /// Steps of the first round.
    first: u64,
    /// The step that the others begin with.
    rewind: u64,
}

impl Schedule {
    /// Whether its numbers are in their range.
    ///
    /// # Errors
    /// Names what is not.
    pub fn check(&self) -> Result<(), PruneError> {
        let option = |option, problem: &str| Err(PruneError::Option { option, problem: problem.to_string() });
        match *self {
            Schedule::OneShot => Ok(()),
            Schedule::Linear { begin, end, updates } | Schedule::Cubic { begin, end, updates } => {
                if !(begin >= 0.0 && begin < end && end <= 1.0) {
                    return option("schedule", "should have `begin` before `end`, both from 0 to 1");
                }
                if updates == 0 { option("schedule.updates", "should be 1 or more") } else { Ok(()) }
            }
            Schedule::Iterative { rounds: 0, .. } => option("schedule.rounds", "should be 1 or more"),
            Schedule::Iterative { rewind, .. } if !(0.0..1.0).contains(&rewind) => {
                option("schedule.rewind", "should be from 0, below 1")
            }
            Schedule::Iterative { .. } => Ok(()),
        }
    }

    /// Whether a training of so many steps has room for it.
    pub fn fits(&self, n_steps: u64) -> bool {
        match *self {
            Schedule::OneShot => true,
            Schedule::Linear { .. } | Schedule::Cubic { .. } => n_steps > 0,
            Schedule::Iterative { rounds, rewind } => {
                let Cycle { first, rewind } = cycle(rounds, rewind, n_steps);
                first > 0 && first + (rounds - 1) * (first - rewind) < n_steps
            }
        }
    }

    /// The share of elements that are out when `step` of `n_steps` steps are done; `target` at the end.
    pub fn sparsity_at(&self, step: u64, n_steps: u64, target: f64) -> f64 {
        match *self {
            Schedule::OneShot => target,
            Schedule::Linear { begin, end, updates } => target * done(begin, end, updates, step, n_steps),
            Schedule::Cubic { begin, end, updates } => {
                let left = 1.0 - done(begin, end, updates, step, n_steps);
                target * (1.0 - left * left * left)
            }
            Schedule::Iterative { rounds, .. } => {
                let Phase { round, .. } = self.phase(step, n_steps);
                match round {
                    0 => 0.0,
                    round if round >= rounds => target,
                    round => 1.0 - libm::pow(1.0 - target, round as f64 / rounds as f64),
                }
            }
        }
    }

    /// Where in its rounds the training stands when `step` steps are done; without rounds, where it stands.
    pub fn phase(&self, step: u64, n_steps: u64) -> Phase {
        let Schedule::Iterative { rounds, rewind } = *self else { return Phase { round: 0, n_done: step, n_steps } };
        let Cycle { first, rewind } = cycle(rounds, rewind, n_steps);
        let Some(after) = step.checked_sub(first) else { return Phase { round: 0, n_done: step, n_steps: first } };
        let later = (first - rewind).max(1);
        let before = (after / later).min(rounds - 1);
        // what is left over at the end lengthens the last round
        let n_done = (rewind + after - before * later).min(first.saturating_sub(1));
        Phase { round: before + 1, n_done, n_steps: first }
    }

    /// The step whose weights are gone back to; none without rounds.
    pub fn rewinds_to(&self, n_steps: u64) -> Option<u64> {
        match *self {
            Schedule::Iterative { rounds, rewind } => Some(cycle(rounds, rewind, n_steps).rewind),
            Schedule::OneShot | Schedule::Linear { .. } | Schedule::Cubic { .. } => None,
        }
    }
}

/// The first round's steps, such that it and the others make up the training.
fn cycle(rounds: u64, rewind: f64, n_steps: u64) -> Cycle {
    let first = (n_steps as f64 / (1.0 + rounds as f64 * (1.0 - rewind))).floor() as u64;
    Cycle { first, rewind: (rewind * first as f64).floor() as u64 }
}

/// How many of the updates are done, as a share.
fn done(begin: f64, end: f64, updates: u64, step: u64, n_steps: u64) -> f64 {
    let at = |share: f64| (share * n_steps as f64).floor() as u64;
    let (begin, end) = (at(begin), at(end));
    if step >= end {
        return 1.0;
    }
    let n_done = u128::from(step.saturating_sub(begin)) * u128::from(updates) / u128::from((end - begin).max(1));
    n_done as f64 / updates as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Schedule {
        let options: super::super::SparseOptions = toml::from_str(&format!("schedule = {text}")).expect("a schedule");
        options.schedule
    }

    #[track_caller]
    fn check(text: &str, n_steps: u64, expected: &[(u64, f64)]) {
        for &(step, sparsity) in expected {
            let found = schedule(text).sparsity_at(step, n_steps, 0.8);
            assert!((found - sparsity).abs() < 1e-12, "{text} at {step}: {found}, not {sparsity}");
        }
    }

    #[test]
    fn sparsity_grows_as_its_equation_says() {
        check("'one-shot'", 100, &[(0, 0.8), (100, 0.8)]);
        let linear = "{ linear = { begin = 0.1, end = 0.5, updates = 4 } }";
        check(linear, 100, &[(0, 0.0), (10, 0.0), (19, 0.0), (20, 0.2), (29, 0.2), (40, 0.6), (50, 0.8), (100, 0.8)]);
        // s_f (1 − (1 − i / n)³)
        let cubic = "{ cubic = { begin = 0.1, end = 0.5, updates = 4 } }";
        let by = |i: f64| 0.8 * (1.0 - (1.0 - i / 4.0f64).powi(3));
        check(cubic, 100, &[(10, 0.0), (20, by(1.0)), (35, by(2.0)), (40, by(3.0)), (49, by(3.0)), (50, 0.8)]);
        // the same share of what is left, three times
        let left = |round: f64| 1.0 - 0.2f64.powf(round / 3.0);
        let rounds =
            [(0, 0.0), (99, 0.0), (100, left(1.0)), (199, left(1.0)), (200, left(2.0)), (300, 0.8), (400, 0.8)];
        check("'iterative'", 400, &rounds);
    }

    #[test]
    fn sparsity_never_falls_and_ends_at_its_target() {
        for text in ["'linear'", "'cubic'", "'iterative'", "{ iterative = { rounds = 5, rewind = 0.3 } }"] {
            for n_steps in [17, 100, 1003] {
                let schedule = schedule(text);
                assert!(schedule.fits(n_steps), "{text} in {n_steps}");
                let all: Vec<f64> = (0..=n_steps).map(|step| schedule.sparsity_at(step, n_steps, 0.9)).collect();
                assert!(all.windows(2).all(|pair| pair[0] <= pair[1]), "{text}: {all:?}");
                assert_eq!((all[0], all[all.len() - 1]), (0.0, 0.9), "{text}");
            }
        }
    }

    #[test]
    fn rounds_begin_anew_where_weights_go_back_to() {
        let schedule = schedule("{ iterative = { rounds = 2, rewind = 0.25 } }");
        // 40 steps, then twice 30 from the tenth on
        assert_eq!(schedule.rewinds_to(100), Some(10));
        let phases = [0, 39, 40, 69, 70, 99].map(|step| schedule.phase(step, 100));
        assert_eq!(phases.map(|it| (it.round, it.n_done)), [(0, 0), (0, 39), (1, 10), (1, 39), (2, 10), (2, 39)]);
        assert!(phases.iter().all(|it| it.n_steps == 40));
        assert!(schedule.fits(100) && !schedule.fits(2));
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        for (text, expected) in [
            ("{ cubic = { begin = 0.5, end = 0.5 } }", "`schedule` should have `begin` before `end`"),
            ("{ linear = { end = 1.5 } }", "`schedule` should have `begin` before `end`"),
            ("{ linear = { updates = 0 } }", "`schedule.updates` should be 1 or more"),
            ("{ iterative = { rounds = 0 } }", "`schedule.rounds` should be 1 or more"),
            ("{ iterative = { rewind = 1.0 } }", "`schedule.rewind` should be from 0, below 1"),
        ] {
            let error = schedule(text).check().expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
