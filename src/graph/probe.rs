//! How an algorithm looks at a network without knowing how it runs.

use indexmap::IndexMap;

use super::Name;
use super::tensor::Tensor;

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
