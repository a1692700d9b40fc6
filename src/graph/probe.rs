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

/// Something that tells what a network is worth where it will run.
pub trait Score {
    /// The time of `candidate` over that of `baseline`, measured in turns on the bytes that would be written.
    ///
    /// # Errors
    /// When one of them cannot be run.
    fn time_ratio(&mut self, baseline: &Graph, candidate: &Graph) -> Result<TimeRatio, ProbeError>;
}
