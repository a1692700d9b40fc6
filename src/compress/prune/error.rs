//! Why a network is not pruned.

use crate::compress::observe::ObserveError;
use crate::graph::Name;
use crate::graph::check::CheckError;
use crate::graph::patch::PatchError;
use crate::graph::probe::ProbeError;
use crate::graph::shape::ShapeError;
use crate::graph::structure::removal::RemovalError;
use crate::graph::tensor::TensorError;
use crate::learn::train::TrainError;

/// A network is not pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// An option is out of its range.
    #[error("`{option}` {problem}")]
    Option {
        /// the option as it stands in TOML
        option: &'static str,
        /// what it should be
        problem: String,
    },
    /// A pattern means none of the network's nodes or weights.
    #[error("`{pattern}` means nothing in the network (hint: `aludel inspect --groups` lists the groups)")]
    Pattern {
        /// the pattern
        pattern: String,
    },
    /// Nothing in the network can be taken out as asked.
    #[error("nothing can be pruned: {reason}")]
    Nothing {
        /// why
        reason: String,
    },
    /// No place of the network can be recalibrated.
    #[error("nothing can be recalibrated: {reason}")]
    NothingToRecalibrate {
        /// why
        reason: String,
    },
    /// So much cannot be taken out.
    #[error("{asked} cannot be taken out: {reached} is the most (hint: {remedy})")]
    Amount {
        /// what was asked for
        asked: String,
        /// what can be
        reached: String,
        /// what to do about it
        remedy: &'static str,
    },
    /// A mask does not fit the network that it is of, or is not kept.
    #[error("the mask of `{weight}` {problem}")]
    Mask {
        /// the initializer
        weight: Name,
        /// what is wrong
        problem: String,
    },
    /// The multiplications are not known.
    #[error(
        "the multiplications of {node} cannot be counted (hint: give sizes for the inputs, or an amount of `params`)"
    )]
    Uncounted {
        /// the node
        node: String,
    },
    /// The network's values cannot be counted.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The network cannot be run.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The network does not learn.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Units cannot be taken out.
    #[error(transparent)]
    Removal(#[from] RemovalError),
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
