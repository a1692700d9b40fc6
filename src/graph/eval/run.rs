//! Running: one operator by its family, a graph node by node.

use indexmap::IndexMap;

use super::EvalError;
use crate::graph::op::Op;
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name};

/// Computes one operator on these inputs (none where an optional one is left out). Graphs inside (`If`, `Loop`,
/// `Scan`) must not read values from outside: [`run`] takes care of those.
///
/// # Errors
/// When the inputs are not as the operator's definition has them, and for opaque operators.
pub fn operator(op: &Op, inputs: &[Option<Tensor>], n_outputs: usize) -> Result<Vec<Option<Tensor>>, EvalError> {
    let _ = (inputs, n_outputs);
    Err(EvalError::Opaque(op.name().to_string()))
}

/// Computes a graph's outputs, in order, from its inputs by name. An overridable initializer may be given too.
///
/// # Errors
/// When an input is missing or a node cannot be computed; names the node.
pub fn run(graph: &Graph, inputs: &IndexMap<Name, Tensor>) -> Result<IndexMap<Name, Tensor>, EvalError> {
    let _ = inputs;
    Err(EvalError::NoValue(graph.name.clone()))
}
