//! What the axes of weights are: where units are made, where they are summed over, what an operator calls them.

use super::space::Space;
use super::{Kind, Role};
use crate::graph::axes::{Axes, Port, Slot};
use crate::graph::{Graph, Op};

/// Labels the weights' axes; a weight that is computed from a constant (widened, transposed, dequantized) hands its labels
/// on to it.
pub(super) fn label(graph: &Graph, facts: &[Axes], space: &mut Space) {
    for (node_idx, axes) in facts.iter().enumerate().rev() {
        label_weights(graph, node_idx, axes, space);
        if matches!(graph.nodes[node_idx].op, Op::Attention(_)) {
            label_bundle(graph, node_idx, space);
        }
        for &slot in &axes.crossed {
            if let Some(id) = space.id(graph, node_idx, slot) {
                space.axis_mut(id).crossed_by.push(node_idx);
            }
        }
        hand_on(graph, node_idx, axes, space);
    }
}

fn label_weights(graph: &Graph, node_idx: usize, axes: &Axes, space: &mut Space) {
    let op = &graph.nodes[node_idx].op;
    let kind = match op {
        Op::Conv(_) | Op::ConvInteger(_) | Op::QLinearConv(_) | Op::ConvTranspose(_) => Kind::Channels,
        Op::RNN(_) | Op::GRU(_) | Op::LSTM(_) => Kind::HiddenUnits,
        _ => Kind::Features,
    };
    for weight in &axes.weights {
        let slot = |axis| Slot { port: Port::Input(weight.position), axis };
        let input = weight.input_axis.and_then(|axis| space.id(graph, node_idx, slot(axis)));
        let output = space.id(graph, node_idx, slot(weight.output_axis));
        if let Some(id) = input.filter(|&id| space.axis(id).is_constant) {
            space.axis_mut(id).role.get_or_insert(Role::Summed);
        }
        if let Some(id) = output.filter(|&id| space.axis(id).is_constant) {
            let axis = space.axis_mut(id);
            axis.role = Some(Role::Made);
            axis.kind = axis.kind.max(Some(kind));
        }
    }
    if matches!(op, Op::MatMul) {
        label_heads(graph, node_idx, space);
    }
}

/// The operator Attention says itself what its heads are.
fn label_bundle(graph: &Graph, node_idx: usize, space: &mut Space) {
    if let Some(id) = space.id(graph, node_idx, Slot { port: Port::Bundle(0), axis: 0 }) {
        space.axis_mut(id).kind = Some(Kind::Heads);
    }
}

/// A product of two computed values: what it is done side by side for are heads.
fn label_heads(graph: &Graph, node_idx: usize, space: &mut Space) {
    let node = &graph.nodes[node_idx];
    let is_constant = |position| node.input(position).is_none_or(|name| space.is_constant(name));
    if is_constant(0) || is_constant(1) {
        return;
    }
    for position in 0..2 {
        let rank = node.input(position).map_or(0, |name| space.rank(name));
        for axis in 0..rank.saturating_sub(2) {
            if let Some(id) = space.id(graph, node_idx, Slot { port: Port::Input(position), axis }) {
                space.axis_mut(id).kind = Some(Kind::Heads);
            }
        }
    }
}

fn hand_on(graph: &Graph, node_idx: usize, axes: &Axes, space: &mut Space) {
    let same = axes.ties.iter().filter(|tie| tie.map.is_same()).map(|tie| (tie.a, tie.b));
    let folded = axes.folds.iter().flat_map(|fold| fold.factors.iter().map(|&(factor, _)| (factor, fold.whole)));
    for (a, b) in same.chain(folded) {
        let (from, to) = match (a.port, b.port) {
            (Port::Output(_), Port::Input(_)) => (a, b),
            (Port::Input(_), Port::Output(_)) => (b, a),
            (_, _) => continue,
        };
        let (Some(from), Some(to)) = (space.id(graph, node_idx, from), space.id(graph, node_idx, to)) else { continue };
        if space.axis(from).is_constant && space.axis(to).is_constant {
            let (role, kind) = (space.axis(from).role, space.axis(from).kind);
            let axis = space.axis_mut(to);
            axis.role = [axis.role, role].into_iter().flatten().min();
            axis.kind = axis.kind.max(kind);
        }
    }
}
