//! Branches of which it is known which is taken.

use std::collections::BTreeSet;

use super::edits::Edits;
use super::view::View;
use crate::graph::op::Op;
use crate::graph::{Graph, Name};

/// Puts the branch that an If takes in its place, where the condition is known.
pub(super) fn at(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx) else { return };
    let Op::If(branches) = &node.op else { return };
    let Some(condition) = node.input(0).and_then(|name| view.constant(name)) else { return };
    let Ok([condition]) = condition.as_slice::<bool>() else { return };
    let (taken, other) = (&branches.then_branch, &branches.else_branch);
    let (taken, other) = if *condition { (taken, other) } else { (other, taken) };
    let new: BTreeSet<Name> = taken.value_names().cloned().collect();
    let others = view.graph.nodes.iter().enumerate().filter(|(other_idx, _)| *other_idx != node_idx);
    let mut bodies = others.flat_map(|(_, node)| node.op.bodies()).chain([other]).chain(inner(taken));
    if bodies.any(|body| body.all_names().iter().any(|name| new.contains(name) && !body.captures().contains(name))) {
        edits.decline(node_idx, "another branch or body has a value of the same name as one of the branch taken");
        return;
    }
    if !taken.sparse_initializers.is_empty() {
        edits.decline(node_idx, "the branch taken holds sparse constants");
        return;
    }
    let Some(patch) = edits.take(&[node_idx]) else { return };
    patch.replace(node_idx, taken.nodes.clone());
    for (name, tensor) in &taken.initializers {
        patch.replace_initializer(name, tensor.clone());
    }
    for (output, inner) in node.outputs.iter().zip(&taken.outputs) {
        if let Some(output) = output {
            patch.replace_uses(output, &inner.name);
        }
    }
}

fn inner(graph: &Graph) -> impl Iterator<Item = &Graph> {
    graph.nodes.iter().flat_map(|node| node.op.bodies())
}
