//! Nodes that hand on what they are given.

use super::edits::Edits;
use super::reshape;
use super::view::View;
use crate::graph::op::Op;
use crate::graph::{Name, Node};

/// Lets everything read a node's input where its output is the same. That the shapes are the same must follow from the
/// types: where a dimension is unknown the node stays.
pub(super) fn at(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx) else { return };
    let Some(output) = only_output(view, node) else { return };
    let Some(same) = same_as(view, node, output).filter(|same| view.can_become(output, same)) else { return };
    if let Some(patch) = edits.take(&[node_idx]) {
        patch.remove(node_idx);
        patch.replace_uses(output, same);
    }
}

/// The output that anybody reads, where it is the first.
fn only_output<'a>(view: &View<'_>, node: &'a Node) -> Option<&'a Name> {
    let unread = |name: &Name| view.uses.readers(name).is_empty() && !view.uses.is_output(name);
    node.outputs.iter().skip(1).flatten().all(unread).then(|| node.output(0)).flatten()
}

/// The value that a node's output is the same as.
fn same_as<'a>(view: &View<'a>, node: &'a Node, output: &Name) -> Option<&'a Name> {
    let first = node.input(0);
    let first_if = |holds: bool| first.filter(|_| holds);
    let constant = |position: usize| node.input(position).and_then(|name| view.integers(name));
    let same_shape = || first.is_some_and(|first| view.same_type(first, output));
    match &node.op {
        Op::Identity => first,
        Op::Dropout(_) => {
            let is_training = node.input(2).is_some_and(|name| !view.is_all(name, 0.0));
            first_if(!is_training)
        }
        Op::Cast(cast) => first_if(view.dtype(first?)? == cast.to),
        Op::CastLike(_) => first_if(view.dtype(first?)? == view.dtype(node.input(1)?)?),
        Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze | Op::Unsqueeze => reshape::same_before(view, node, output),
        Op::Expand => first_if(same_shape()),
        Op::Tile => first_if(constant(1)?.iter().all(|&n| n == 1)),
        Op::Pad(_) => first_if(constant(1)?.iter().all(|&n| n == 0)),
        Op::Slice => {
            let forwards = node.input(4).is_none_or(|steps| view.is_all(steps, 1.0));
            first_if(forwards && (same_shape() || takes_all(view, node)))
        }
        Op::Transpose(transpose) => {
            let mut axes = 0..;
            first_if(!transpose.perm.is_empty() && transpose.perm.iter().all(|&axis| axes.next() == Some(axis)))
        }
        Op::Concat(_) | Op::Max | Op::Min | Op::Sum | Op::Mean => first_if(node.inputs.len() == 1),
        Op::Split(_) => first_if(node.outputs.len() == 1 && same_shape()),
        Op::Clip => first_if(node.input(1).is_none() && node.input(2).is_none()),
        Op::Add | Op::Or | Op::Xor => neutral(view, node, output, 0.0, true),
        Op::Mul | Op::And => neutral(view, node, output, 1.0, true),
        Op::Sub => neutral(view, node, output, 0.0, false),
        Op::Div | Op::Pow => neutral(view, node, output, 1.0, false),
        _ => None,
    }
}

/// Whether a Slice goes from the first element to beyond the last along every axis, however many there are.
fn takes_all(view: &View<'_>, node: &Node) -> bool {
    // exporters write the greatest number of either width for "to the end"
    let is_end = |&end: &i64| end >= i64::from(i32::MAX);
    let all = |position: usize, holds: &dyn Fn(&i64) -> bool| {
        node.input(position).and_then(|name| view.integers(name)).is_some_and(|numbers| numbers.iter().all(holds))
    };
    all(1, &|&start| start == 0) && all(2, &is_end)
}

/// The input of a binary operator whose other is all this number, which changes nothing: the second, or either.
fn neutral<'a>(view: &View<'a>, node: &'a Node, output: &Name, number: f64, either: bool) -> Option<&'a Name> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let unchanged = |kept: &Name, other: &Name| view.is_all(other, number) && view.same_type(kept, output);
    if unchanged(a, b) {
        return Some(a);
    }
    Some(b).filter(|_| either && unchanged(b, a))
}
