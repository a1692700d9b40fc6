//! What a user says of a pruning.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sparse::SparseOptions;
use super::{Amount, Limits, Match, PruneError, Scope, Sensitivity};
use crate::compress::importance::{Criterion, Normalize};

/// What a user says of a pruning: one of `channels`, `macs`, `params`, `bytes`, `max_time`, `layers` and `sparse`, and how.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PruneOptions {
    /// The share of the units that goes.
    pub channels: Option<f64>,
    /// The share of the multiplications that goes.
    pub macs: Option<f64>,
    /// The share of the parameters that goes.
    pub params: Option<f64>,
    /// The share of the weights' bytes that goes.
    pub bytes: Option<f64>,
    /// The most time that a run may take on the runtime, in times of that before.
    pub max_time: Option<f64>,
    /// So many residual blocks or encoder layers go, those that are missed least.
    pub layers: Option<usize>,
    /// Single weights become zero, and stay it.
    pub sparse: Option<SparseOptions>,
    /// By what units are told apart.
    pub criterion: Criterion,
    /// Among which units the least important are looked for.
    pub scope: Scope,
    /// By what the importance of a group's units is divided, so that groups can be compared; what suits the criterion where it is not
    /// given.
    pub normalize: Option<Normalize>,
    /// The units that each group keeps at least; 1 where it is not given.
    pub min_width: Option<usize>,
    /// What stays in a group is a multiple of this: what the runtime's kernels are quick with; 1 where it is not given.
    pub round_to: Option<usize>,
    /// The most of a group's units that go, as a share; all but `min_width` where it is not given.
    pub max_share: Option<f64>,
    /// How the weights that read what is left make up for what is gone; where it is not given and there are samples, in
    /// order.
    pub compensate: Option<Compensation>,
    /// What is measured anew on samples once units are gone: in a network with batch normalisations their statistics; else what each
    /// product makes gets the mean, or mean and spread, that it had in the whole network.
    pub recalibrate: Option<Match>,
    /// What each group alone costs, as was measured: of each group as much goes as costs least together.
    pub curves: Option<Sensitivity>,
    /// Groups that stay as they are, by patterns for their names: those of the weights that make the units.
    pub exclude: Vec<String>,
    /// The only groups that are pruned, by such patterns; all where none is given.
    pub only: Vec<String>,
    /// Samples that importance and compensation look at; 512 where it is not given.
    pub samples: Option<usize>,
}

/// How weights make up for units that they no longer read, by least squares on samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compensation {
    /// They stay as they are.
    None,
    /// All at once, each to what it reads in the whole network.
    Together,
    /// One after the other, each to what it reads where those before are fitted: a pass over the samples for each.
    InOrder,
}

/// What is taken out.
#[derive(Clone, Debug, PartialEq)]
pub enum What<'a> {
    /// Units, so many.
    Units(Amount),
    /// Units, until a run takes this part of the time.
    Time(f64),
    /// Residual blocks or encoder layers.
    Layers(usize),
    /// Single weights.
    Weights(&'a SparseOptions),
}

impl PruneOptions {
    /// What is to go.
    ///
    /// # Errors
    /// When nothing or several things are asked for, or a number is out of its range.
    pub fn what(&self) -> Result<What<'_>, PruneError> {
        let option = |option, problem: &str| PruneError::Option { option, problem: problem.to_string() };
        let shares = [
            ("channels", self.channels.map(Amount::Channels)),
            ("macs", self.macs.map(Amount::Macs)),
            ("params", self.params.map(Amount::Params)),
            ("bytes", self.bytes.map(Amount::Bytes)),
        ];
        let mut asked: Vec<(&'static str, What<'_>)> =
            shares.into_iter().filter_map(|(name, amount)| Some((name, What::Units(amount?)))).collect();
        asked.extend(self.max_time.map(|ratio| ("max_time", What::Time(ratio))));
        asked.extend(self.layers.map(|n| ("layers", What::Layers(n))));
        asked.extend(self.sparse.as_ref().map(|sparse| ("sparse", What::Weights(sparse))));
        let what = match asked.pop() {
            None => {
                return Err(option(
                    "macs",
                    "or `channels`, `params`, `bytes`, `max_time`, `layers` or `sparse` is missing: how much is to go",
                ));
            }
            Some((name, _)) if !asked.is_empty() => {
                let problem = format!("goes together with `{}`: say one of them", asked[0].0);
                return Err(PruneError::Option { option: name, problem });
            }
            Some((name, what)) => {
                let share = match &what {
                    What::Units(
                        Amount::Channels(share) | Amount::Macs(share) | Amount::Params(share) | Amount::Bytes(share),
                    )
                    | What::Time(share) => *share,
                    What::Layers(0) => return Err(option("layers", "is 0; give how many are to go")),
                    What::Layers(_) => 0.5,
                    What::Weights(sparse) => {
                        sparse.check()?;
                        0.5
                    }
                };
                if !(share > 0.0 && share < 1.0) {
                    return Err(PruneError::Option {
                        option: name,
                        problem: format!("is {share}; give a share between 0 and 1"),
                    });
                }
                what
            }
        };
        self.check()?;
        self.of_units_alone(&what)?;
        Ok(what)
    }

    /// That the numbers are in their ranges.
    ///
    /// # Errors
    /// Names the one that is not.
    pub fn check(&self) -> Result<(), PruneError> {
        let option = |option, problem: &str| Err(PruneError::Option { option, problem: problem.to_string() });
        if self.max_share.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
            return option("max_share", "should be above 0 and at most 1");
        }
        let numbers = [("min_width", self.min_width), ("round_to", self.round_to), ("samples", self.samples)];
        match numbers.into_iter().find(|(_, number)| *number == Some(0)) {
            Some((name, _)) => option(name, "is 0; give 1 or more"),
            None => Ok(()),
        }
    }

    /// That nothing is said which only holds of units, where none of them go one by one.
    fn of_units_alone(&self, what: &What<'_>) -> Result<(), PruneError> {
        let instead = match what {
            What::Units(_) | What::Time(_) => return Ok(()),
            What::Layers(_) => "`layers`",
            What::Weights(_) => "`sparse`",
        };
        let usual = PruneOptions::default();
        let said = [
            ("criterion", self.criterion != usual.criterion),
            ("scope", self.scope != usual.scope),
            ("normalize", self.normalize.is_some()),
            ("min_width", self.min_width.is_some()),
            ("round_to", self.round_to.is_some()),
            ("max_share", self.max_share.is_some()),
            ("compensate", self.compensate.is_some()),
            ("recalibrate", self.recalibrate.is_some()),
            ("curves", self.curves.is_some()),
            ("only", !self.only.is_empty()),
            ("exclude", !self.exclude.is_empty()),
        ];
        match said.into_iter().find(|(_, is_said)| *is_said) {
            Some((option, _)) => {
                let problem = format!("is of units that go one by one; with {instead} leave it out");
                Err(PruneError::Option { option, problem })
            }
            None => Ok(()),
        }
    }

    /// Whether weights are fitted to what is left, given samples.
    pub fn compensates(&self) -> bool {
        self.layers.is_none() && self.sparse.is_none() && self.compensate != Some(Compensation::None)
    }

    /// What must be left.
    pub fn limits(&self) -> Limits {
        let usual = Limits::default();
        Limits {
            min_width: self.min_width.unwrap_or(usual.min_width),
            round_to: self.round_to.unwrap_or(usual.round_to),
            max_share: self.max_share.unwrap_or(usual.max_share),
        }
    }

    /// What one of several equal rounds takes out: of what the rounds before have left, each the same part, so that together they
    /// leave what one would; layers go evenly. `round` counts from 0. Zeros of single weights have a schedule of their own.
    pub fn of_round(&self, round: usize, n_rounds: usize) -> PruneOptions {
        let n = n_rounds.max(1) as f64;
        let part = |share: Option<f64>| share.map(|share| 1.0 - (1.0 - share).powf(1.0 / n));
        let of_layers = |n_layers: usize| n_layers * (round + 1) / n_rounds.max(1) - n_layers * round / n_rounds.max(1);
        PruneOptions {
            channels: part(self.channels),
            macs: part(self.macs),
            params: part(self.params),
            bytes: part(self.bytes),
            max_time: self.max_time.map(|ratio| ratio.powf(1.0 / n)),
            layers: self.layers.map(of_layers),
            ..self.clone()
        }
    }
}
