//! What nobody needs: nodes, optional outputs, constants.

use std::collections::HashSet;

use super::edits::Edits;
use super::view::View;
use crate::graph::op::{Occurs, Op};
use crate::graph::{Name, Node};

/// Removes nodes of which no output is needed, leaves out optional outputs that are not, and removes constants that nothing
/// reads. A constant that a caller may override stays: it is part of what the network takes.
pub(super) fn over(view: &View<'_>, edits: &mut Edits) {
    let mut needed: HashSet<&str> = view.graph.outputs.iter().map(|output| output.name.as_str()).collect();
    let mut dead = Vec::new();
    for (node_idx, node) in view.graph.nodes.iter().enumerate().rev() {
        if node.outputs.iter().flatten().any(|output| needed.contains(output.as_str())) {
            needed.extend(node.reads().map(Name::as_str));
        } else {
            dead.push(node_idx);
        }
    }
    for node_idx in dead.into_iter().rev() {
        if let Some(patch) = edits.take(&[node_idx]) {
            patch.remove(node_idx);
        }
    }
    for (node_idx, node) in view.graph.nodes.iter().enumerate() {
        let alive = node.outputs.iter().flatten().any(|output| needed.contains(output.as_str()));
        if let Some(outputs) = alive.then(|| left_out(view, node)).flatten()
            && let Some(patch) = edits.take(&[node_idx])
        {
            patch.replace(node_idx, vec![Node { outputs, ..node.clone() }]);
        }
    }
    let unread = view.graph.initializers.keys().chain(view.graph.sparse_initializers.keys());
    for name in unread.filter(|name| !needed.contains(name.as_str()) && view.uses.readers(name).is_empty()) {
        if !view.graph.overridable.contains(name) {
            edits.apply(format!("constant `{name}`")).remove_initializer(name);
        }
    }
}

/// The outputs of a node without the optional ones that nobody reads; none where there are none such.
fn left_out(view: &View<'_>, node: &Node) -> Option<Vec<Option<Name>>> {
    // In training mode the running statistics are what the operator is for; onnxruntime asks for them.
    if matches!(&node.op, Op::BatchNormalization(attributes) if attributes.training_mode) {
        return None;
    }
    let formals: Vec<(&str, Occurs)> = node.op.signature()?.outputs().collect();
    let unread = |name: &Name| view.uses.readers(name).is_empty() && !view.uses.is_output(name);
    let optional = |position: usize| formals.get(position).is_some_and(|formal| formal.1 == Occurs::Optional);
    let mut outputs = node.outputs.clone();
    for (position, output) in outputs.iter_mut().enumerate() {
        if optional(position) && output.as_ref().is_some_and(unread) {
            *output = None;
        }
    }
    while outputs.last().is_some_and(Option::is_none) {
        outputs.pop();
    }
    let n_given = |outputs: &[Option<Name>]| outputs.iter().flatten().count();
    (n_given(&outputs) < n_given(&node.outputs)).then_some(outputs)
}
