//! Initial states of recurrent operators that are what they would be if they were left out.

use super::edits::Edits;
use super::view::{View, is_all};
use crate::graph::op::Op;
use crate::graph::{Name, Node};

/// Leaves out an initial state that is all zero: exporters make one of the batch's size at run time.
pub(super) fn at(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx) else { return };
    let states: &[usize] = match node.op {
        Op::LSTM(_) => &[5, 6],
        Op::GRU(_) | Op::RNN(_) => &[5],
        _ => return,
    };
    let mut inputs = node.inputs.clone();
    for &position in states {
        if let Some(state) = inputs.get_mut(position)
            && state.as_ref().is_some_and(|name| is_zero(view, name))
        {
            *state = None;
        }
    }
    while inputs.last().is_some_and(Option::is_none) {
        inputs.pop();
    }
    if inputs.iter().flatten().count() < node.inputs.iter().flatten().count()
        && let Some(patch) = edits.take(&[node_idx])
    {
        patch.replace(node_idx, vec![Node { inputs, ..node.clone() }]);
    }
}

fn is_zero(view: &View<'_>, name: &Name) -> bool {
    let filled_with_zero = || match &view.uses.producer(name)?.op {
        Op::ConstantOfShape(fill) => Some(is_all(&fill.element(), 0.0)),
        _ => None,
    };
    view.is_all(name, 0.0) || filled_with_zero().unwrap_or(false)
}
