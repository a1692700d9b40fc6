//! Which values follow from constants alone, so that a runtime computes them when it loads the network.

use std::collections::HashSet;

use crate::graph::{Graph, Name, Node};

/// The values of a graph that are constants or follow from them, with those of the graphs around it.
pub(super) fn fixed(graph: &Graph, around: &HashSet<Name>) -> HashSet<Name> {
    let captured = graph.captures().iter().filter(|name| around.contains(*name));
    let constants = graph.initializers.keys().chain(graph.sparse_initializers.keys());
    let mut fixed: HashSet<Name> = constants.chain(captured).cloned().collect();
    for node in &graph.nodes {
        if node.reads().all(|name| fixed.contains(name)) {
            fixed.extend(node.outputs.iter().flatten().cloned());
        }
    }
    fixed
}

/// Whether a node's outputs are among them.
pub(super) fn is_fixed(node: &Node, fixed: &HashSet<Name>) -> bool {
    node.outputs.iter().flatten().all(|name| fixed.contains(name))
}
