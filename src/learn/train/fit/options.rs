//! How a network is trained.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::MOST_UNLABELLED;
use crate::graph::{Graph, Name};
use crate::learn::train::TrainError;
use crate::learn::train::attack::Attack;
use crate::learn::train::loss::Loss;
use crate::learn::train::named::{NameOrTable, name_or_table};
use crate::learn::train::optimizer::Optimizer;
use crate::learn::train::schedule::Schedule;

/// How a network is trained, as the part `train` of a recipe has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// How often the training split is seen.
    pub epochs: usize,
    /// Samples a step.
    pub batch_size: usize,
    /// The greatest learning rate.
    pub lr: f64,
    /// What a step makes of gradients.
    #[serde(deserialize_with = "name_or_table")]
    #[schemars(with = "NameOrTable<Optimizer>")]
    pub optimizer: Optimizer,
    /// How the rate goes over the steps.
    pub schedule: Schedule,
    /// Decay of weights, times the rate; none of biases and norms.
    pub weight_decay: f32,
    /// What `Σ |w|` over the weights adds to the loss.
    pub l1: f32,
    /// The greatest norm of all gradients together.
    pub clip: Option<f32>,
    /// Batches whose gradients make one step.
    pub accumulate: usize,
    /// The part of a moving average of the weights that is kept at each step; the average is validated and written.
    pub ema: Option<f32>,
    /// What a prediction is measured by.
    #[serde(deserialize_with = "name_or_table")]
    #[schemars(with = "NameOrTable<Loss>")]
    pub loss: Loss,
    /// The part of a label that is spread over all classes: Szegedy et al., "Rethinking the Inception Architecture" (2016),
    /// section 7.
    pub label_smoothing: f64,
    /// A weight a class, in the order of the classes.
    pub class_weights: Option<Vec<f32>>,
    /// Epochs without a better validation metric after which training ends; of inner values that are taught, a better training loss.
    pub patience: Option<usize>,
    /// Whether samples of like length come in one batch.
    pub buckets: bool,
    /// What the length of a batch of samples of several lengths is rounded up to a multiple of, so that batches have few
    /// shapes; without it batches are as long as their longest sample.
    pub length_multiple: Option<usize>,
    /// How many of the data's unlabelled samples there are for each labelled one; only a teacher has something to say of them.
    pub unlabelled: f64,
    /// Learns from attacked samples in place of those of the data.
    pub attack: Option<Attack>,
    /// Initializers that do not learn: names, or beginnings of names that end in `*`.
    pub freeze: Vec<String>,
}

impl Default for TrainOptions {
    fn default() -> TrainOptions {
        TrainOptions {
            epochs: 10,
            batch_size: 64,
            lr: 1e-3,
            optimizer: Optimizer::default(),
            schedule: Schedule::default(),
            weight_decay: 0.01,
            l1: 0.0,
            clip: None,
            accumulate: 1,
            ema: None,
            loss: Loss::default(),
            label_smoothing: 0.0,
            class_weights: None,
            patience: None,
            buckets: false,
            length_multiple: None,
            unlabelled: 0.0,
            attack: None,
            freeze: Vec::new(),
        }
    }
}

impl TrainOptions {
    /// Refuses options outside of their range.
    ///
    /// # Errors
    /// Names the option and its range.
    pub fn check(&self) -> Result<(), TrainError> {
        let option = |option, is_good: bool, value: String, range| match is_good {
            true => Ok(()),
            false => Err(TrainError::Option { option, value, range }),
        };
        option("epochs", self.epochs > 0, self.epochs.to_string(), "1 or more")?;
        option("batch_size", self.batch_size > 0, self.batch_size.to_string(), "1 or more")?;
        option("accumulate", self.accumulate > 0, self.accumulate.to_string(), "1 or more")?;
        option("lr", self.lr > 0.0 && self.lr.is_finite(), self.lr.to_string(), "a number above 0")?;
        option("weight_decay", self.weight_decay >= 0.0, self.weight_decay.to_string(), "0 or more")?;
        option("l1", self.l1 >= 0.0, self.l1.to_string(), "0 or more")?;
        let smoothing = (0.0..1.0).contains(&self.label_smoothing);
        option("label_smoothing", smoothing, self.label_smoothing.to_string(), "a number from 0, below 1")?;
        let clip = self.clip.is_none_or(|clip| clip > 0.0);
        option("clip", clip, format!("{:?}", self.clip), "a number above 0")?;
        let ema = self.ema.is_none_or(|ema| (0.0..1.0).contains(&ema));
        option("ema", ema, format!("{:?}", self.ema), "a number from 0, below 1")?;
        let multiple = self.length_multiple.is_none_or(|multiple| multiple > 0);
        option("length_multiple", multiple, format!("{:?}", self.length_multiple), "1 or more")?;
        let unlabelled = (0.0..=MOST_UNLABELLED).contains(&self.unlabelled);
        option("unlabelled", unlabelled, self.unlabelled.to_string(), "a number from 0 to 1000")?;
        let weighted = self.class_weights.is_none() || self.loss == Loss::CrossEntropy;
        option("class_weights", weighted, "of another loss".to_string(), "them with `cross-entropy` alone")?;
        self.attack.as_ref().map_or(Ok(()), Attack::check)?;
        let schedule = self.schedule.check();
        schedule.map_err(|error| TrainError::Task { problem: error.to_string(), remedy: "change `schedule`" })
    }

    /// The initializers of a graph that do not learn.
    ///
    /// # Errors
    /// When a name, or a beginning of names, is none of the graph's.
    pub fn frozen(&self, graph: &Graph) -> Result<BTreeSet<Name>, TrainError> {
        let mut frozen = BTreeSet::new();
        for pattern in &self.freeze {
            let is_meant = |name: &&Name| match pattern.strip_suffix('*') {
                Some(beginning) => name.as_str().starts_with(beginning),
                None => name.as_str() == pattern,
            };
            let mut meant = graph.initializers.keys().filter(is_meant).peekable();
            if meant.peek().is_none() {
                let name = Name::from(pattern.as_str());
                return Err(TrainError::Name { what: "initializer to freeze", name });
            }
            frozen.extend(meant.cloned());
        }
        Ok(frozen)
    }
}
