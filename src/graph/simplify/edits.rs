//! What one pass of a rewrite over a graph brings together: a patch, and the words for it.

use std::collections::BTreeSet;

use super::{Applied, Declined};
use crate::graph::patch::Patch;
use crate::graph::{Graph, Name};

/// The edits of one pass. Nodes that an edit looks at and counts on are its own: another edit of the same pass that needs
/// one of them waits for the next round.
pub(super) struct Edits {
    graph: Graph,
    rewrite: &'static str,
    reserved: BTreeSet<Name>,
    patch: Option<Patch>,
    taken: BTreeSet<usize>,
    applied: Vec<Applied>,
    declined: Vec<Declined>,
}

impl Edits {
    /// No edits yet; new names will differ from the reserved ones, too: those of the graphs around a body.
    pub(super) fn new(graph: &Graph, rewrite: &'static str, reserved: BTreeSet<Name>) -> Edits {
        Edits {
            graph: graph.clone(),
            rewrite,
            reserved,
            patch: None,
            taken: BTreeSet::new(),
            applied: vec![],
            declined: vec![],
        }
    }

    /// The patch to edit, where none of these nodes is taken by another edit; they are then. The first is the node that
    /// the report names.
    pub(super) fn take(&mut self, nodes: &[usize]) -> Option<&mut Patch> {
        let first = self.graph.nodes.get(*nodes.first()?)?.label();
        if nodes.iter().any(|node_idx| self.taken.contains(node_idx)) {
            return None;
        }
        self.taken.extend(nodes);
        Some(self.apply(first))
    }

    /// The patch to edit for a change that concerns no node; the report names this.
    pub(super) fn apply(&mut self, what: String) -> &mut Patch {
        self.applied.push(Applied { rewrite: self.rewrite, node: what });
        self.patch.get_or_insert_with(|| {
            let mut patch = Patch::new(&self.graph);
            patch.reserve(&self.reserved);
            patch
        })
    }

    /// Says why what matched at this node is not done.
    pub(super) fn decline(&mut self, node_idx: usize, reason: impl Into<String>) {
        let node = self.graph.nodes.get(node_idx).map(|node| node.label()).unwrap_or_default();
        self.declined.push(Declined { rewrite: self.rewrite, node, reason: reason.into() });
    }

    /// The patch where there is anything to apply, what it does, and what is not done.
    pub(super) fn finish(mut self) -> (Option<Patch>, Vec<Applied>, Vec<Declined>) {
        if let Some(patch) = &mut self.patch {
            patch.remove_unused_initializers();
        }
        (self.patch, self.applied, self.declined)
    }
}
