//! What an operator's implementation is given, and what can go wrong.

use super::run::Scope;
use crate::graph::op::Op;
use crate::graph::tensor::{DType, Tensor, TensorError, n_elements};

/// Why an operator or a graph has no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// Something about the inputs is not as the operator's definition has it.
    #[error("{0}")]
    Invalid(String),
    /// The operator's definition does not have this element type, or this combination of attributes.
    #[error("{0} is not defined")]
    Undefined(String),
    /// The reference does not compute this operator: it is opaque.
    #[error("operator `{0}` is not one that aludel knows")]
    Opaque(String),
    /// A value would be larger than the reference computes.
    #[error("a value of shape {0:?} is too large for the reference interpreter")]
    TooLarge(Vec<usize>),
    /// A value that the graph needs was not given, or is no tensor.
    #[error("`{0}` has no value")]
    NoValue(String),
    /// A tensor's parts do not fit together.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// An error inside a graph, with the node where it happened.
    #[error("{node}: {source}")]
    Node {
        /// the node
        node: String,
        /// what happened there
        source: Box<EvalError>,
    },
}

/// An operator's inputs, in the order of its signature.
#[derive(Clone, Copy)]
pub(super) struct Args<'a> {
    pub(super) op: &'a Op,
    pub(super) inputs: &'a [Option<Tensor>],
    /// How many outputs the node names; an implementation may return fewer or more.
    pub(super) n_outputs: usize,
    /// The values that a graph inside the operator may read by name.
    pub(super) scope: Scope<'a>,
}

impl<'a> Args<'a> {
    /// The input at this position.
    pub(super) fn get(&self, position: usize) -> Result<&'a Tensor, EvalError> {
        self.optional(position).ok_or_else(|| invalid(format!("{} lacks input {position}", self.op.name())))
    }

    /// The input at this position, none where it is left out.
    pub(super) fn optional(&self, position: usize) -> Option<&'a Tensor> {
        self.inputs.get(position).and_then(Option::as_ref)
    }

    /// Every input that is there, for operators that take any number.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a Tensor> {
        self.inputs.iter().flatten()
    }

    /// The operator is not defined for this element type.
    pub(super) fn undefined(&self, dtype: DType) -> EvalError {
        EvalError::Undefined(format!("{} on {dtype}", self.op.name()))
    }
}

pub(super) fn invalid(problem: impl Into<String>) -> EvalError {
    EvalError::Invalid(problem.into())
}

/// The most elements that a value may have here: a hostile shape must not take the memory.
const MOST_ELEMENTS: usize = 1 << 28;

/// The number of elements of an output, to be asked before it is allocated.
pub(super) fn allocation(shape: &[usize]) -> Result<usize, EvalError> {
    n_elements(shape).filter(|&n| n <= MOST_ELEMENTS).ok_or_else(|| EvalError::TooLarge(shape.to_vec()))
}

/// An axis counted from the end where it is negative.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, EvalError> {
    let signed_rank = i64::try_from(rank).unwrap_or(i64::MAX);
    let positive = if axis < 0 { axis.checked_add(signed_rank) } else { Some(axis) };
    positive
        .and_then(|axis| usize::try_from(axis).ok())
        .filter(|&axis| axis < rank)
        .ok_or_else(|| invalid(format!("axis {axis} is outside a tensor of {rank} dimensions")))
}
