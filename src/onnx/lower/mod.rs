//! Taking a graph from the canonical form to that of an opset to be written.

use super::raw::RawGraph;
use crate::graph::Graph;

/// What a graph is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The version of the default operator set asked for.
    pub(super) opset: u32,
    /// The version that the network's file had, the only one for which its opaque operators are meant.
    pub(super) own_opset: u32,
    /// Whether the file imports the domain `com.microsoft`.
    pub(super) microsoft: bool,
}

/// Why a graph cannot be written at an opset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// The operator, or the way in which it is used, is newer.
    #[error("{node} needs opset {least}, not {opset}: {reason}")]
    Needs {
        /// operator, and name or first output
        node: String,
        /// the first opset that has it
        least: u32,
        /// the opset asked for
        opset: u32,
        /// what is newer, and the remedy
        reason: String,
    },
}

/// The graph, bodies included, in the form of `target.opset`.
///
/// # Errors
/// Names the node that this opset cannot express.
pub(super) fn lower(graph: &Graph, target: Target) -> Result<RawGraph, LowerError> {
    todo!("{graph:?} {target:?}")
}

/// The lowest opset that has every form in the graph, and the node that needs it.
pub(super) fn least_opset(graph: &Graph, microsoft: bool) -> (u32, Option<String>) {
    todo!("{graph:?} {microsoft}")
}
