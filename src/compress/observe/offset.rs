//! Where a number for each channel can be added to what a product makes.

use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, Op};

/// Where a number for each channel that a product makes can be added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::compress) struct Offset {
    pub(in crate::compress) node_idx: usize,
    pub(in crate::compress) position: usize,
    /// The axis of the channels, from the last.
    pub(in crate::compress) from_last: usize,
    /// What the constant is multiplied by before it is added.
    pub(in crate::compress) factor: f64,
}

/// A constant of `f32` that a caller cannot override.
pub(in crate::compress) fn constant<'a>(graph: &'a Graph, name: &Name) -> Option<&'a Tensor> {
    graph.constant(name).filter(|tensor| tensor.dtype() == DType::F32)
}

/// Whether the input at this position is a [`constant`].
pub(in crate::compress) fn is_constant(graph: &Graph, node: &Node, position: usize) -> bool {
    node.input(position).is_some_and(|name| constant(graph, name).is_some())
}

/// Where the bias of a Conv, Gemm or MatMul is or could be, which makes so many channels along an axis of its output; in words why
/// nowhere.
pub(in crate::compress) fn offset(
    graph: &Graph,
    types: &Types,
    uses: &Uses<'_>,
    node_idx: usize,
    output_axis: usize,
    n_outputs: usize,
) -> Result<Offset, String> {
    let node = &graph.nodes[node_idx];
    let own = |factor| Offset { node_idx, position: 2, from_last: 0, factor };
    match &node.op {
        Op::Conv(_) | Op::Gemm(_) if node.input(2).is_some() && !is_constant(graph, node, 2) => {
            Err("its bias is no constant".to_string())
        }
        Op::Gemm(op) if op.beta == 0.0 => Err("its beta is 0: it adds no bias".to_string()),
        Op::Gemm(op) => Ok(own(f64::from(op.beta))),
        Op::Conv(_) => Ok(own(1.0)),
        _ => {
            let none = || "no constant is added to what it alone makes".to_string();
            let output = node.output(0).ok_or_else(none)?;
            let reader = uses.sole_reader(output).ok_or_else(none)?;
            let sum = &graph.nodes[reader.node_idx];
            let position = 1 - reader.position.filter(|&position| position < 2).ok_or_else(none)?;
            let rank = types.tensor(output).and_then(|known| known.rank()).ok_or_else(none)?;
            let summed = sum.input(position).and_then(|name| constant(graph, name));
            let from_last = rank.checked_sub(output_axis + 1).ok_or_else(none)?;
            // One that makes more channels of what the product makes is none of its bias.
            let n_channels = |tensor: &Tensor| tensor.shape().iter().rev().nth(from_last).copied().unwrap_or(1);
            let fits = |tensor: &Tensor| [1, n_outputs].contains(&n_channels(tensor));
            match summed {
                Some(tensor) if matches!(sum.op, Op::Add) && tensor.rank() <= rank && fits(tensor) => {
                    Ok(Offset { node_idx: reader.node_idx, position, from_last, factor: 1.0 })
                }
                _ => Err(none()),
            }
        }
    }
}
