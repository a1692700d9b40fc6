//! How many bytes of values are there at once.

use std::collections::{HashMap, HashSet};

use super::fixed::{fixed, is_fixed};
use super::{n_bytes, taken};
use crate::graph::op::Op;
use crate::graph::shape::Types;
use crate::graph::{Graph, Name, Node};

/// The most bytes at once, along the order of the nodes; a value of unknown size counts nothing.
pub(super) fn peak(graph: &Graph, types: &Types, constant: &HashSet<Name>) -> u64 {
    let inputs = graph.inputs.iter().filter_map(|input| n_bytes(types, &input.name));
    let mut live = inputs.fold(0u64, u64::saturating_add);
    let mut peak = live;
    let last_use = last_uses(graph);
    let mut ends: HashMap<usize, Vec<&Name>> = HashMap::new();
    let produced = graph.nodes.iter().enumerate().filter(|(_, node)| !is_fixed(node, constant));
    let produced: Vec<(usize, &Name)> =
        produced.flat_map(|(idx, node)| node.outputs.iter().flatten().map(move |name| (idx, name))).collect();
    for &(node_idx, name) in &produced {
        // what nothing reads is there while its node runs
        ends.entry(last_use.get(name).copied().unwrap_or(node_idx)).or_default().push(name);
    }
    let bytes = |name: &Name| n_bytes(types, name).unwrap_or(0);
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        if !is_fixed(node, constant) {
            live = node.outputs.iter().flatten().map(bytes).fold(live, u64::saturating_add);
        }
        peak = peak.max(live.saturating_add(inside(node_idx, node, types, constant)));
        let ended = ends.remove(&node_idx).unwrap_or_default();
        live = ended.into_iter().map(bytes).fold(live, u64::saturating_sub);
    }
    peak
}

/// The last node that reads each value; outputs are read at the end.
fn last_uses(graph: &Graph) -> HashMap<&Name, usize> {
    let mut last_use = HashMap::new();
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        last_use.extend(node.reads().map(|name| (name, node_idx)));
    }
    last_use.extend(graph.outputs.iter().map(|output| (&output.name, usize::MAX)));
    last_use
}

/// The most bytes at once in a node's bodies, of which one runs at a time.
fn inside(node_idx: usize, node: &Node, types: &Types, constant: &HashSet<Name>) -> u64 {
    let bodies = node.op.bodies().into_iter().enumerate();
    let only = if matches!(node.op, Op::If(_)) { taken(node, types) } else { None };
    let running = bodies.filter(|(body_idx, _)| only.is_none_or(|only| only == *body_idx));
    let peaks = running
        .filter_map(|(body_idx, body)| Some(peak(body, types.body(node_idx, body_idx)?, &fixed(body, constant))));
    peaks.max().unwrap_or(0)
}
