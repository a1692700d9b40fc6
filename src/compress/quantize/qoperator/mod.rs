//! From Q/DQ form to QOperator form: an operator between `DequantizeLinear` and `QuantizeLinear` becomes the operator on
//! integers that computes the same within one step, and one that only moves numbers works on the integers as they are.
//!
//! What does not match stays as it is and is named with the reason.

mod elementwise;
mod passing;
mod products;
#[cfg(test)]
mod tests;
mod view;

use crate::graph::op::Op;
use crate::graph::patch::{Patch, PatchError};
use crate::graph::shape::{self, Bindings, ShapeError, Types};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Node};
use view::View;

/// How to lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QOperatorOptions {
    /// Also makes operators of onnxruntime's own domain. Without them there are `QLinearConv` and `QLinearMatMul`, which are
    /// all that tract has.
    pub microsoft: bool,
}

impl Default for QOperatorOptions {
    fn default() -> QOperatorOptions {
        QOperatorOptions { microsoft: true }
    }
}

/// A node that computes on integers now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoweredNode {
    /// The node as it was.
    pub node: String,
    /// The operator that it became.
    pub operator: String,
}

/// A node that reads dequantized numbers and was left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// The node.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// A lowered network.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The result.
    pub graph: Graph,
    /// What computes on integers now, in the order of the graph.
    pub lowered: Vec<LoweredNode>,
    /// What was left as it is, in the order of the graph.
    pub declined: Vec<Declined>,
}

/// Why a network cannot be lowered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QOperatorError {
    /// The types of the network do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A lowered node does not fit: a fault of aludel's.
    #[error("a lowered node does not fit: {0}")]
    Patch(#[from] PatchError),
}

/// The same network with operators on integers wherever Q/DQ pairs say exactly what they compute. Branches and bodies are
/// left as they are.
///
/// # Errors
/// When the network's types do not fit together.
pub fn to_qoperator(graph: &Graph, options: &QOperatorOptions) -> Result<Lowered, QOperatorError> {
    let types = shape::infer(graph, &Bindings::default())?;
    let uses = Uses::of(graph);
    let view = View { graph, uses: &uses, types: &types, microsoft: options.microsoft };
    let mut patch = Patch::new(graph);
    let (mut lowered, mut declined) = (Vec::new(), Vec::new());
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        if !view.is_candidate(node) {
            continue;
        }
        match lower(&view, &mut patch, node) {
            Ok(replacement) => {
                let operator = replacement.node.op.name().to_string();
                lowered.push(LoweredNode { node: node.label(), operator });
                patch.replace(node_idx, vec![replacement.node]);
                replacement.absorbed.into_iter().for_each(|node_idx| patch.remove(node_idx));
            }
            Err(reason) => declined.push(Declined { node: node.label(), reason }),
        }
    }
    let graph = if lowered.is_empty() { graph.clone() } else { without_idle(&patch.apply(Some(&types))?)? };
    Ok(Lowered { graph, lowered, declined })
}

/// What takes a node's place, and the nodes behind it that go with it.
struct Replacement {
    node: Node,
    absorbed: Vec<usize>,
}

fn lower(view: &View<'_>, patch: &mut Patch, node: &Node) -> Result<Replacement, String> {
    match &node.op {
        Op::Conv(conv) => products::conv(view, patch, node, conv),
        Op::MatMul => products::mat_mul(view, patch, node),
        Op::Gemm(gemm) => products::gemm(view, patch, node, gemm),
        op if passing::passes(op) => {
            let moved = passing::on_integers(view, node);
            if let (Err(_), Op::Concat(concat)) = (&moved, op) {
                return elementwise::concat(view, patch, node, concat);
            }
            moved
        }
        _ => elementwise::lower(view, patch, node),
    }
}

/// Without the dequantizations and constants that nothing reads any more.
fn without_idle(graph: &Graph) -> Result<Graph, PatchError> {
    let uses = Uses::of(graph);
    let idle = |node: &Node| {
        let unread = |name: &crate::graph::Name| uses.readers(name).is_empty() && !uses.is_output(name);
        matches!(node.op, Op::DequantizeLinear(_)) && node.outputs.iter().flatten().all(unread)
    };
    let mut patch = Patch::new(graph);
    let idle_nodes = graph.nodes.iter().enumerate().filter(|(_, node)| idle(node));
    idle_nodes.for_each(|(node_idx, _)| patch.remove(node_idx));
    patch.remove_unused_initializers();
    patch.apply(None::<&Types>)
}
