//! Nodes that give a value another shape and leave the order of its elements: Reshape, Flatten, Squeeze, Unsqueeze.

use super::edits::Edits;
use super::view::{View, same_dim};
use crate::graph::op::{self, Op};
use crate::graph::tensor::Tensor;
use crate::graph::{Dim, Name, Node};

/// The most reshapes one after another that are looked through.
const MOST_CHAINED: usize = 16;

/// Gives a Reshape whose shape is computed a constant one, where the types know enough of it.
pub(super) fn computed(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx).filter(|node| matches!(node.op, Op::Reshape(_))) else { return };
    let (Some(data), Some(shape), Some(output)) = (node.input(0), node.input(1), node.output(0)) else { return };
    // a shape that a caller may override is not computed, and not known either
    if view.constant(shape).is_some() || view.uses.producer_idx(shape).is_none() {
        return;
    }
    let Some(spelled) = spelled(view, data, output) else {
        edits.decline(node_idx, "more than one dimension of its output is unknown, or one is 0");
        return;
    };
    if let Some(patch) = edits.take(&[node_idx]) {
        let shape = patch.add_initializer(shape, Tensor::vector(spelled));
        patch.replace(node_idx, vec![reshape(node, data, &shape)]);
    }
}

/// Makes one Reshape of two nodes that give another shape, the first of which only the second reads.
pub(super) fn consecutive(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx).filter(|node| keeps_order(&node.op)) else { return };
    let (Some(between), Some(output)) = (node.input(0), node.output(0)) else { return };
    let Some(before_idx) = view.uses.producer_idx(between) else { return };
    let Some(before) = view.node(before_idx).filter(|before| keeps_order(&before.op)) else { return };
    if view.uses.sole_reader(between).is_none() {
        return;
    }
    let Some((data, spelled)) = before.input(0).and_then(|data| Some((data, spelled(view, data, output)?))) else {
        return;
    };
    if let Some(patch) = edits.take(&[node_idx, before_idx]) {
        let shape = patch.add_initializer(&format!("{output}_shape"), Tensor::vector(spelled));
        patch.remove(before_idx);
        patch.replace(node_idx, vec![reshape(node, data, &shape)]);
    }
}

/// The value that a chain of such nodes begins with, or one on its way, that is the same as its end.
pub(super) fn same_before<'a>(view: &View<'a>, node: &'a Node, output: &Name) -> Option<&'a Name> {
    let mut node = node;
    for _ in 0..MOST_CHAINED {
        let input = node.input(0)?;
        if same_elements(view, input, output) {
            return Some(input);
        }
        node = view.uses.producer(input).filter(|node| keeps_order(&node.op))?;
    }
    None
}

/// Whether an operator keeps all elements in their order.
fn keeps_order(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Flatten(_) | Op::Squeeze | Op::Unsqueeze)
}

/// A Reshape in the place of this node.
pub(super) fn reshape(node: &Node, data: &Name, shape: &Name) -> Node {
    let op = Op::Reshape(op::Reshape::default());
    Node { op, inputs: vec![Some(data.clone()), Some(shape.clone())], ..node.clone() }
}

/// Whether two values of the same elements have the same shape: all dimensions but one are the same, and so is that, since
/// the number of elements is. (A symbol stands for a size other than zero.)
fn same_elements(view: &View<'_>, a: &Name, b: &Name) -> bool {
    let (Some(a), Some(b)) = (view.dims(a), view.dims(b)) else { return false };
    let is_zero = |dim: &Dim| *dim == Dim::Known(0);
    let n_open = a.iter().zip(b).filter(|&pair| !same_dim(pair)).count();
    a.len() == b.len() && (n_open == 0 || (n_open == 1 && !a.iter().chain(b).any(is_zero)))
}

/// The shape by which a Reshape makes a value of `output`'s type out of `data`, which has as many elements: 0 copies a
/// dimension, -1 stands for one that follows from the rest.
pub(super) fn spelled(view: &View<'_>, data: &Name, output: &Name) -> Option<Vec<i64>> {
    let (from, to) = (view.dims(data)?, view.dims(output)?);
    let copied = |axis: usize, dim: &Dim| from.get(axis).is_some_and(|from| same_dim((from, dim)));
    let size = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Known(0) => None,
        Dim::Known(size) => i64::try_from(*size).ok(),
        Dim::Symbol(_) | Dim::Unknown => Some(if copied(axis, dim) { 0 } else { -1 }),
    };
    let sizes: Vec<i64> = to.iter().enumerate().map(size).collect::<Option<_>>()?;
    (sizes.iter().filter(|&&size| size == -1).count() <= 1).then_some(sizes)
}
