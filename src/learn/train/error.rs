//! What can keep a network from learning.

use crate::data::DataError;
use crate::graph::patch::PatchError;
use crate::graph::shape::ShapeError;
use crate::graph::tensor::TensorError;
use crate::graph::{CheckError, Name};
use crate::learn::exec::ExecError;

/// Why training cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The network and the task do not go together.
    #[error("{problem} (hint: {remedy})")]
    Task {
        /// what does not fit
        problem: String,
        /// what to do about it
        remedy: &'static str,
    },
    /// An option is out of its range.
    #[error("`{option}` is {value}; give {range}")]
    Option {
        /// as it stands in TOML
        option: &'static str,
        /// what was given
        value: String,
        /// what it may be
        range: &'static str,
    },
    /// The loss stopped being a number again and again.
    #[error(
        "the loss is no number in epoch {epoch}, with the learning rate cut {n_cuts} times (hint: a smaller `lr`, `clip`, \
         or `schedule = {{ warm_up = 0.1 }}`)"
    )]
    NotANumber {
        /// the epoch, from 1
        epoch: usize,
        /// how often the rate was cut
        n_cuts: usize,
    },
    /// A checkpoint is not of this training.
    #[error(
        "the checkpoint does not fit: {problem} (hint: train without --resume, or give the recipe it was made with)"
    )]
    Checkpoint {
        /// what does not fit
        problem: String,
    },
    /// A name is not in the network.
    #[error("the network has no {what} `{name}`")]
    Name {
        /// `input`, `output` or `initializer`
        what: &'static str,
        /// the name
        name: Name,
    },
    /// The network cannot be run or differentiated.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The network's types do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The network with its loss is no graph.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The loss cannot be put behind the network.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A tensor's parts do not fit together.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
