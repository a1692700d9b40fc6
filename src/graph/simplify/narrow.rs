//! Weights that are stored narrow and stay so.

use super::edits::Edits;
use super::view::View;
use crate::graph::Node;
use crate::graph::op::{Cast, Op};
use crate::graph::tensor::DType;

/// Takes rows out of a narrow constant before they are widened: an embedding's rows, not all of it, are then converted at
/// every inference.
pub(super) fn at(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx) else { return };
    if !view.options.keep_narrow_weights || !matches!(node.op, Op::Gather(_) | Op::Slice) {
        return;
    }
    let (Some(wide), Some(output)) = (node.input(0), node.output(0)) else { return };
    let Some(cast_idx) = view.uses.producer_idx(wide) else { return };
    let Some(cast) = view.node(cast_idx) else { return };
    let Op::Cast(Cast { to, .. }) = cast.op else { return };
    let Some(narrow) = cast.input(0).filter(|name| view.constant(name).is_some()) else { return };
    // Other narrow types are none that Gather and Slice of every opset take.
    if view.dtype(narrow) != Some(DType::F16) || to.n_bits() <= DType::F16.n_bits() {
        return;
    }
    if view.uses.sole_reader(wide).is_none() {
        edits.decline(node_idx, format!("others read `{wide}`, too"));
        return;
    }
    let Some(patch) = edits.take(&[node_idx, cast_idx]) else { return };
    let rows = patch.fresh(&format!("{output}_narrow"));
    let mut taken = Node { outputs: vec![Some(rows.clone())], ..node.clone() };
    if let Some(data) = taken.inputs.first_mut() {
        *data = Some(narrow.clone());
    }
    let widened = Node { inputs: vec![Some(rows)], outputs: vec![Some(output.clone())], ..cast.clone() };
    patch.remove(cast_idx);
    patch.replace(node_idx, vec![taken, widened]);
}
