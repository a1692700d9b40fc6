//! What can keep a graph from running or learning here.

use crate::graph::Name;
use crate::graph::eval::EvalError;
use crate::graph::shape::ShapeError;
use crate::graph::tensor::{DType, TensorError};

/// Why a graph cannot be compiled, run or differentiated.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The graph's types do not fit together, or an input's shape does not fit the graph.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A value's shape depends on what the network is given, and not only on the shapes of what it is given.
    #[error(
        "{node}: the shape of `{value}` depends on the values of the inputs (hint: simplify the model, or fix that shape)"
    )]
    DynamicShape {
        /// the node
        node: String,
        /// its output
        value: Name,
    },
    /// Something that is not computed here.
    #[error("{node}: {what} (hint: {remedy})")]
    Unsupported {
        /// the node
        node: String,
        /// what about it
        what: String,
        /// what to do about it
        remedy: &'static str,
    },
    /// A gradient would have to pass through something that has none here.
    #[error("{node}: no gradient passes through it, and `{wanted}` lies before it (hint: freeze `{wanted}`)")]
    NoGradient {
        /// the node
        node: String,
        /// what should learn
        wanted: Name,
    },
    /// A name that is wanted is not in the graph, or not of the kind that is wanted.
    #[error("`{name}`: {problem}")]
    Name {
        /// the value
        name: Name,
        /// what is wrong with it
        problem: String,
    },
    /// An input is not as the program was compiled for.
    #[error("input `{input}` should be {expected}, got {got}")]
    Input {
        /// the input
        input: Name,
        /// element type and shape compiled for
        expected: String,
        /// what was given
        got: String,
    },
    /// An index is outside what it points into.
    #[error("{node}: index {index} is outside an axis of {size}")]
    Index {
        /// the node
        node: String,
        /// the index
        index: i64,
        /// the size of the axis
        size: usize,
    },
    /// Numbers cannot be quantized by a scale of zero or below.
    #[error(
        "{node}: the scale at position {position} is {scale}, not above 0 (hint: calibrate it anew, freeze it, or learn it at a lower rate)"
    )]
    Scale {
        /// the node
        node: String,
        /// which of its scales
        position: usize,
        /// the scale
        scale: f64,
    },
    /// The reference interpreter cannot compute an operator.
    #[error("{node}: {source}")]
    Eval {
        /// the node
        node: String,
        /// why
        source: EvalError,
    },
    /// An element type that is not computed with.
    #[error("`{name}` is of {dtype}, and only floating-point values learn")]
    Type {
        /// the value
        name: Name,
        /// its type
        dtype: DType,
    },
    /// A tensor's parts do not fit together.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// candle says no.
    #[error("{node}: {source}")]
    Candle {
        /// the node
        node: String,
        /// what it says
        source: candle_core::Error,
    },
}
