//! The learning rate of each step, as a pure function of the step.

use std::f64::consts::PI;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::named::NameOrTable;

/// How the learning rate goes on after the warm-up, as TOML has it: `"cosine"` or `{ cosine = { last = 0.01 } }`.
/// Factors are of the greatest rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// Always the greatest rate.
    #[default]
    Constant,
    /// Times `factor` after every `every`, a part of all steps between 0 and 1.
    Step {
        /// what the rate is multiplied by
        factor: f64,
        /// after which part of the steps
        every: f64,
    },
    /// Half a cosine down to `last`: Loshchilov and Hutter, "SGDR" (2017), equation 5, without restarts.
    Cosine {
        /// the factor at the end
        last: f64,
    },
    /// A straight line down to `last`.
    Linear {
        /// the factor at the end
        last: f64,
    },
    /// Half a cosine from `first` up to the greatest rate, reached after the part `rise` of the steps, and half a
    /// cosine down to `last`: Smith and Topin, "Super-Convergence" (2018).
    OneCycle {
        /// the factor at the beginning
        first: f64,
        /// the part of the steps that go up, between 0 and 1
        rise: f64,
        /// the factor at the end
        last: f64,
    },
}

/// The learning rate over a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// How it goes on after the warm-up.
    #[schemars(with = "NameOrTable<Written>")]
    pub decay: Decay,
    /// The part of the steps, between 0 and 1, over which the rate first rises along a straight line, from the greatest
    /// divided by the number of these steps.
    pub warm_up: f64,
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule { decay: Decay::Constant, warm_up: 0.0 }
    }
}

/// A parameter of a schedule is outside of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("schedule: `{parameter}` is {value}; give a number {range}")]
pub struct ScheduleError {
    /// as it stands in TOML
    pub parameter: &'static str,
    /// what was given
    pub value: f64,
    /// what it may be
    pub range: &'static str,
}

impl Schedule {
    /// Refuses parameters outside of their range.
    ///
    /// # Errors
    /// Names the parameter and its range.
    pub fn check(&self) -> Result<(), ScheduleError> {
        let within = |parameter, value: f64, is_good: bool, range| match is_good {
            true => Ok(()),
            false => Err(ScheduleError { parameter, value, range }),
        };
        let part = |parameter, value| within(parameter, value, (0.0..1.0).contains(&value), "from 0, below 1");
        let factor = |parameter, value: f64| within(parameter, value, (0.0..=1.0).contains(&value), "between 0 and 1");
        part("warm_up", self.warm_up)?;
        match self.decay {
            Decay::Constant => Ok(()),
            Decay::Step { factor: times, every } => {
                factor("factor", times)?;
                within("every", every, every > 0.0 && every <= 1.0, "above 0, at most 1")
            }
            Decay::Cosine { last } | Decay::Linear { last } => factor("last", last),
            Decay::OneCycle { first, rise, last } => {
                factor("first", first)?;
                part("rise", rise)?;
                factor("last", last)
            }
        }
    }

    /// What the greatest rate is multiplied by at this step of `n_steps`, counted from 0. Steps beyond the end are as
    /// the last.
    pub fn factor(&self, step: u64, n_steps: u64) -> f64 {
        let step = step.min(n_steps.saturating_sub(1));
        let n_warm_up = (self.warm_up * n_steps as f64).round();
        if (step as f64) < n_warm_up {
            return (step as f64 + 1.0) / n_warm_up;
        }
        let n_left = n_steps as f64 - n_warm_up;
        // The first step after the warm-up has progress 0 and the last has 1.
        let progress = if n_left > 1.0 { (step as f64 - n_warm_up) / (n_left - 1.0) } else { 0.0 };
        match self.decay {
            Decay::Constant => 1.0,
            Decay::Step { factor, every } => {
                let n_cuts = ((step as f64 - n_warm_up) / (every * n_left).round().max(1.0)).floor();
                factor.powf(n_cuts)
            }
            Decay::Cosine { last } => half_cosine(1.0, last, progress),
            Decay::Linear { last } => 1.0 + (last - 1.0) * progress,
            Decay::OneCycle { first, rise, last } => {
                if progress < rise {
                    half_cosine(first, 1.0, progress / rise)
                } else {
                    half_cosine(1.0, last, (progress - rise) / (1.0 - rise))
                }
            }
        }
    }
}

fn half_cosine(from: f64, to: f64, progress: f64) -> f64 {
    to + (from - to) * (1.0 + (PI * progress).cos()) / 2.0
}

/// A decay by its name with parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Decay")]
enum Written {
    Constant(NoParameters),
    Step(StepParameters),
    Cosine(LastParameter),
    Linear(LastParameter),
    OneCycle(OneCycleParameters),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct NoParameters {}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
struct StepParameters {
    factor: f64,
    every: f64,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
struct LastParameter {
    last: f64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
struct OneCycleParameters {
    first: f64,
    rise: f64,
    last: f64,
}

impl Default for StepParameters {
    fn default() -> StepParameters {
        StepParameters { factor: 0.1, every: 1.0 / 3.0 }
    }
}

impl Default for OneCycleParameters {
    fn default() -> OneCycleParameters {
        OneCycleParameters { first: 0.04, rise: 0.3, last: 0.0 }
    }
}

impl From<Written> for Decay {
    fn from(written: Written) -> Decay {
        match written {
            Written::Constant(NoParameters {}) => Decay::Constant,
            Written::Step(StepParameters { factor, every }) => Decay::Step { factor, every },
            Written::Cosine(LastParameter { last }) => Decay::Cosine { last },
            Written::Linear(LastParameter { last }) => Decay::Linear { last },
            Written::OneCycle(OneCycleParameters { first, rise, last }) => Decay::OneCycle { first, rise, last },
        }
    }
}

impl<'de> Deserialize<'de> for Decay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Decay, D::Error> {
        deserializer.deserialize_any(DecayVisitor)
    }
}

/// Takes the name alone, which stands for the defaults, or the name with parameters.
struct DecayVisitor;

impl<'de> Visitor<'de> for DecayVisitor {
    type Value = Decay;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a schedule, alone or with its parameters")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Decay, E> {
        let written = match name {
            "constant" => Written::Constant(NoParameters {}),
            "step" => Written::Step(StepParameters::default()),
            "cosine" => Written::Cosine(LastParameter::default()),
            "linear" => Written::Linear(LastParameter::default()),
            "one-cycle" => Written::OneCycle(OneCycleParameters::default()),
            _ => return Err(E::unknown_variant(name, &["constant", "step", "cosine", "linear", "one-cycle"])),
        };
        Ok(written.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Decay, A::Error> {
        Written::deserialize(MapAccessDeserializer::new(map)).map(Decay::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(text: &str) -> Result<Schedule, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(text: &str, n_steps: u64, expected: &[f64]) {
        let schedule = schedule(text).expect("a schedule");
        schedule.check().expect("parameters in their ranges");
        let factors: Vec<f64> = (0..expected.len() as u64).map(|step| schedule.factor(step, n_steps)).collect();
        let apart = factors.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-12, "{text}: {factors:?}");
    }

    #[test]
    fn factors_are_those_by_hand() {
        let half = 0.5f64.sqrt();
        check("", 3, &[1.0, 1.0, 1.0]);
        check("decay = 'constant'\nwarm_up = 0.5", 8, &[0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]);
        check("decay = 'step'", 9, &[1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]);
        check("decay = { step = { factor = 0.5, every = 0.5 } }\nwarm_up = 0.2", 5, &[1.0, 1.0, 1.0, 0.5, 0.5]);
        check("decay = 'cosine'", 5, &[1.0, (1.0 + half) / 2.0, 0.5, (1.0 - half) / 2.0, 0.0]);
        check("decay = { cosine = { last = 0.2 } }", 3, &[1.0, 0.6, 0.2]);
        check("decay = { linear = { last = 0.5 } }\nwarm_up = 0.4", 5, &[0.5, 1.0, 1.0, 0.75, 0.5]);
        let one_cycle = "decay = { one-cycle = { first = 0.2, rise = 0.5, last = 0.1 } }";
        check(one_cycle, 5, &[0.2, 0.6, 1.0, 0.55, 0.1]);
        check("decay = 'linear'", 2, &[1.0, 0.0, 0.0, 0.0]);
        check("decay = 'cosine'", 1, &[1.0, 1.0]);
        check("decay = 'one-cycle'", 0, &[0.04]);
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["'constant'", "'step'", "'cosine'", "{ linear = { last = 0.5 } }", "'one-cycle'"] {
            let read = schedule(&format!("decay = {text}")).expect("a schedule");
            let written = toml::to_string(&read).expect("it has a form in TOML");
            assert_eq!(schedule(&written), Ok(read), "{written}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        let refused = |text: &str| match schedule(text) {
            Ok(schedule) => schedule.check().expect_err("it is refused").to_string(),
            Err(error) => error,
        };
        assert_eq!(refused("warm_up = 1.0"), "schedule: `warm_up` is 1; give a number from 0, below 1");
        assert!(refused("warm_up = nan").contains("`warm_up` is NaN"));
        assert!(refused("decay = { step = { every = 0.0 } }").contains("`every` is 0; give a number above 0"));
        assert!(refused("decay = { cosine = { last = 2.0 } }").contains("`last` is 2; give a number between 0 and 1"));
        assert!(refused("decay = { cosine = { least = 0.1 } }").contains("unknown field `least`"));
        assert!(refused("decay = 'cosin'").contains("unknown variant `cosin`"));
    }
}
