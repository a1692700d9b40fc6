//! How the weight of an objective goes over a training.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a weight is multiplied by, by the share of the training that is done: `"constant"`, `{ linear = { to = 0.3 } }`,
/// `{ between = { from = 0.0, to = 0.3 } }`. Layers that are distilled one after another, and logits after them, have
/// parts of the training that follow one another (Romero et al., "FitNets", 2015, algorithm 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum WeightSchedule {
    /// One all along.
    #[default]
    Constant,
    /// From `start` until `from`, in a straight line to `end` at `to`, and `end` from there on.
    Linear {
        /// the factor at the beginning
        #[serde(default)]
        start: f64,
        /// the factor at the end
        #[serde(default = "one")]
        end: f64,
        /// the share of the training at which the line begins
        #[serde(default)]
        from: f64,
        /// the share at which it ends
        #[serde(default = "one")]
        to: f64,
    },
    /// One in `[from, to)` and zero elsewhere.
    Between {
        /// the share of the training at which it begins
        #[serde(default)]
        from: f64,
        /// the share at which it ends; 1 is the end of the training
        #[serde(default = "one")]
        to: f64,
    },
}

fn one() -> f64 {
    1.0
}

impl WeightSchedule {
    /// The factor at a share of the training, from 0 to 1.
    pub fn factor(&self, progress: f64) -> f64 {
        match *self {
            WeightSchedule::Constant => 1.0,
            WeightSchedule::Linear { start, end, from, to } => {
                start + (end - start) * ((progress - from) / (to - from)).clamp(0.0, 1.0)
            }
            WeightSchedule::Between { from, to } => {
                let is_in = progress >= from && (progress < to || to >= 1.0);
                if is_in { 1.0 } else { 0.0 }
            }
        }
    }

    /// Whether its numbers are in their ranges: shares from 0 to 1 in order, factors not below 0.
    pub fn is_valid(&self) -> bool {
        let is_part = |from: f64, to: f64| (0.0..1.0).contains(&from) && from < to && to <= 1.0;
        match *self {
            WeightSchedule::Constant => true,
            WeightSchedule::Linear { start, end, from, to } => {
                is_part(from, to) && [start, end].iter().all(|factor| *factor >= 0.0 && factor.is_finite())
            }
            WeightSchedule::Between { from, to } => is_part(from, to),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Schedules by hand.

    use super::WeightSchedule;

    #[track_caller]
    fn check(text: &str, expected: &[(f64, f64)]) {
        #[derive(serde::Deserialize)]
        struct Line {
            schedule: WeightSchedule,
        }
        let line: Line = toml::from_str(&format!("schedule = {text}")).expect("a schedule");
        assert!(line.schedule.is_valid(), "{text}");
        for &(progress, factor) in expected {
            let found = line.schedule.factor(progress);
            assert!((found - factor).abs() < 1e-12, "{text} at {progress}: {found}, not {factor}");
        }
    }

    #[test]
    fn weights_change_as_their_schedules_say() {
        check("'constant'", &[(0.0, 1.0), (1.0, 1.0)]);
        check("{ linear = {} }", &[(0.0, 0.0), (0.25, 0.25), (1.0, 1.0)]);
        check("{ linear = { start = 1.0, end = 0.0, from = 0.5 } }", &[(0.2, 1.0), (0.75, 0.5), (1.0, 0.0)]);
        check("{ linear = { to = 0.2 } }", &[(0.1, 0.5), (0.2, 1.0), (0.9, 1.0)]);
        check("{ between = { to = 0.5 } }", &[(0.0, 1.0), (0.49, 1.0), (0.5, 0.0), (1.0, 0.0)]);
        check("{ between = { from = 0.5 } }", &[(0.49, 0.0), (0.5, 1.0), (1.0, 1.0)]);
    }

    #[test]
    fn schedules_out_of_range_are_found() {
        let wrong = [
            WeightSchedule::Between { from: 0.5, to: 0.5 },
            WeightSchedule::Between { from: -0.1, to: 0.5 },
            WeightSchedule::Linear { start: 0.0, end: f64::NAN, from: 0.0, to: 1.0 },
            WeightSchedule::Linear { start: -1.0, end: 1.0, from: 0.0, to: 1.0 },
            WeightSchedule::Linear { start: 0.0, end: 1.0, from: 0.0, to: 1.5 },
        ];
        assert!(wrong.iter().all(|schedule| !schedule.is_valid()));
    }
}
