//! Why a network is not computed as another machine would.

use crate::graph::eval::EvalError;
use crate::graph::tensor::TensorError;

/// Why a network is not computed as another machine would.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum IntegerError {
    /// An operator computes on integers in a way that is not known of that machine.
    #[error("{node}: {problem}")]
    Unsupported {
        /// the node
        node: String,
        /// what is not known, and what to do
        problem: String,
    },
    /// A value that is needed was not given.
    #[error("{0}")]
    NoValue(String),
    /// An operator on integers gets something other than its definition has.
    #[error("{node}: {problem}")]
    Invalid {
        /// the node
        node: String,
        /// what
        problem: String,
    },
    /// The reference does not compute an operator.
    #[error("{node}: {source}")]
    Reference {
        /// the node
        node: String,
        /// why
        source: Box<EvalError>,
    },
    /// A tensor's parts do not fit together.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
