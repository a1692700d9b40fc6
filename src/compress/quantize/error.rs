//! What can keep a network from being quantized.

use crate::compress::observe::ObserveError;
use crate::graph::patch::PatchError;
use crate::graph::probe::ProbeError;
use crate::graph::shape::ShapeError;
use crate::graph::tensor::TensorError;
use crate::graph::{CheckError, Name};

/// Why a network is not quantized.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// An option is out of its range.
    #[error("`{option}` {problem}")]
    Option {
        /// the option as it stands in TOML
        option: &'static str,
        /// what it should be
        problem: String,
    },
    /// A pattern means none of the network's nodes.
    #[error("`{pattern}` means no node of the network (hint: `aludel inspect` lists their names)")]
    Pattern {
        /// the pattern
        pattern: String,
    },
    /// Nothing in the network can be quantized as asked.
    #[error("nothing can be quantized: {reason}")]
    Nothing {
        /// why, of the first node that is left in floats
        reason: String,
    },
    /// An input or output of the network cannot be integers.
    #[error("`{name}` cannot become integers: {reason}")]
    Port {
        /// the input or output
        name: Name,
        /// why
        reason: String,
    },
    /// A value has no statistics.
    #[error("`{value}` has no range (hint: {remedy})")]
    NoRange {
        /// the value
        value: Name,
        /// what to do about it
        remedy: &'static str,
    },
    /// A constant holds numbers that no integer stands for.
    #[error("the constant `{name}` holds numbers that are infinite, or none (hint: exclude the node that reads it)")]
    Constant {
        /// the constant
        name: Name,
    },
    /// A value has another shape than in floats.
    #[error("`{value}` has shape {got:?}, in floats {expected:?} (hint: are both files of one network?)")]
    Different {
        /// the value
        value: Name,
        /// its shape in floats
        expected: Vec<usize>,
        /// the other
        got: Vec<usize>,
    },
    /// The network's values cannot be counted.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The network cannot be run on the data.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The types of the network do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The result does not fit: a fault of aludel's.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// The result is no graph: a fault of aludel's.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A tensor is not what it should be.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl PartialEq for QuantizeError {
    /// By what they say.
    fn eq(&self, other: &QuantizeError) -> bool {
        self.to_string() == other.to_string()
    }
}
