//! How an algorithm looks at a network without knowing how it runs.

use indexmap::IndexMap;

use serde::{Deserialize, Serialize};

use super::tensor::Tensor;
use super::{Graph, Name};

/// A network could not be run.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct ProbeError {
    /// what was run
    pub what: String,
    /// why it could not
    pub problem: String,
}

/// A network that runs somewhere: a runtime on a file, or the training engine.
pub trait Forward {
    /// The values that it was made to give, in their order, of a batch of its inputs.
    ///
    /// # Errors
    /// When it cannot run on them.
    fn forward(&mut self, inputs: &IndexMap<Name, Tensor>) -> Result<Vec<Tensor>, ProbeError>;
}

/// How long one network takes over how long another does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimeRatio {
    /// The lower end of its interval.
    pub low: f64,
    /// Its median.
    pub median: f64,
    /// The upper end of its interval.
    pub high: f64,
}

/// How good a network's answers are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Of what it says, the power of the difference from what the original says over the power of that.
    pub noise: f64,
    /// The share of labelled samples that it puts right; none where none have labels.
    pub accuracy: Option<f64>,
}

impl Quality {
    /// Signal to noise in dB; infinite where nothing differs.
    pub fn sqnr_db(&self) -> f64 {
        -10.0 * self.noise.log10()
    }
}

/// Something that tells what a network is worth where it will run.
pub trait Score {
    /// The time of `candidate` over that of `baseline`, measured in turns on the bytes that would be written.
    ///
    /// # Errors
    /// When one of them cannot be run.
    fn time_ratio(&mut self, baseline: &Graph, candidate: &Graph) -> Result<TimeRatio, ProbeError>;

    /// How good the candidate's answers are.
    ///
    /// # Errors
    /// When it cannot be run, or there is nothing to run it on.
    fn quality(&mut self, candidate: &Graph) -> Result<Quality, ProbeError>;

    /// The bytes of the candidate's file.
    ///
    /// # Errors
    /// When it cannot be written.
    fn n_bytes(&mut self, candidate: &Graph) -> Result<u64, ProbeError>;
}
