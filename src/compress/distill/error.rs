//! What can keep a student from being distilled.

use std::fmt;

use crate::data::DataError;
use crate::graph::Name;
use crate::graph::patch::PatchError;
use crate::graph::probe::ProbeError;
use crate::graph::shape::ShapeError;
use crate::graph::tensor::TensorError;
use crate::learn::train::TrainError;
use crate::store::StoreError;

/// Which of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that learns.
    Student,
    /// The one that it learns from.
    Teacher,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Student => "student",
            Side::Teacher => "teacher",
        })
    }
}

/// Why a student is not distilled.
#[derive(Debug, thiserror::Error)]
pub enum DistillError {
    /// A tap is not among a network's values.
    #[error("{objective}: the {side} has no value `{tap}`{}", known_names(.nearest))]
    Tap {
        /// the objective as it stands in TOML
        objective: &'static str,
        /// whose value
        side: Side,
        /// the tap
        tap: Name,
        /// the names that are most like it
        nearest: Vec<Name>,
    },
    /// An objective does not cover the values that it is to compare.
    #[error("{objective}: {problem} (hint: {remedy})")]
    Unfit {
        /// the objective as it stands in TOML
        objective: &'static str,
        /// what does not fit, with the names of the values
        problem: String,
        /// what to do about it
        remedy: &'static str,
    },
    /// An option is out of its range.
    #[error("{objective}: `{option}` is {value}; give {range}")]
    Option {
        /// the objective as it stands in TOML, or `distill`
        objective: &'static str,
        /// as it stands in TOML
        option: &'static str,
        /// what was given
        value: String,
        /// what it may be
        range: &'static str,
    },
    /// What the teacher says cannot be kept.
    #[error("the teacher's `{value}`: {problem} (hint: {remedy})")]
    Target {
        /// which of its values
        value: Name,
        /// what is wrong with it
        problem: String,
        /// what to do about it
        remedy: &'static str,
    },
    /// Somebody stopped it; what was kept stays.
    #[error("stopped")]
    Stopped,
    /// The teacher cannot be asked.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A file of targets cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The student cannot be trained.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A network's types do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The objectives cannot be put behind the student.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// A tensor's parts do not fit together.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

fn known_names(names: &[Name]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { String::new() } else { format!(" (hint: it has {})", names.join(", ")) }
}
