//! Classes of atoms that go together, and what pins them.

use std::collections::BTreeMap;

use super::space::{AxisId, Space};
use super::{Role, is_same};
use crate::graph::Graph;
use crate::graph::axes::{Axes, Fold, Map};

/// Disjoint sets; the smallest element stands for its set.
struct Sets(Vec<u32>);

impl Sets {
    fn new(n: usize) -> Sets {
        // A graph of more atoms than that would not fit into memory: each stands for a slice of a tensor.
        Sets((0..u32::try_from(n).unwrap_or(u32::MAX)).collect())
    }

    fn find(&mut self, element: usize) -> usize {
        let mut element = element;
        while self.0[element] as usize != element {
            let parent = self.0[element] as usize;
            self.0[element] = self.0[parent];
            element = parent;
        }
        element
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        let (low, high) = (a.min(b), a.max(b));
        self.0[high] = self.0[low];
    }
}

/// One class of atoms.
pub(super) struct Class {
    /// The atoms: axis and index, ascending.
    pub(super) atoms: Vec<(AxisId, usize)>,
    /// What pins them, if anything does.
    pub(super) reason: Option<String>,
}

/// Atoms and whole axes as they are joined.
pub(super) struct Classes {
    atoms: Sets,
    axes: Sets,
    /// Which reason pins an atom, if one does.
    pinned_atoms: Vec<Option<u32>>,
    pinned_axes: Vec<bool>,
    reasons: Vec<String>,
}

impl Classes {
    pub(super) fn new(space: &Space) -> Classes {
        let mut classes = Classes {
            atoms: Sets::new(space.n_atoms()),
            axes: Sets::new(space.n_axes()),
            pinned_atoms: vec![None; space.n_atoms()],
            pinned_axes: vec![false; space.n_axes()],
            reasons: Vec::new(),
        };
        for id in 0..space.n_axes() {
            if space.axis(id).size == 1 {
                let value = space.axis(id).value.as_deref().unwrap_or("a group").to_string();
                classes.pin_axis(space, id, || format!("`{value}` has no other slice"));
            }
        }
        classes
    }

    pub(super) fn tie(&mut self, space: &Space, a: AxisId, b: AxisId, map: &Map) {
        let (first, other) = (space.axis(a), space.axis(b));
        map.for_each(first.size, |i, j| self.atoms.join(first.first_atom + i, other.first_atom + j));
        if is_same(map) {
            self.axes.join(a, b);
        }
    }

    pub(super) fn pin_axis(&mut self, space: &Space, id: AxisId, reason: impl FnOnce() -> String) {
        self.pinned_axes[id] = true;
        let reason_idx = u32::try_from(self.reasons.len()).unwrap_or(u32::MAX);
        self.reasons.push(reason());
        let axis = space.axis(id);
        for pinned in &mut self.pinned_atoms[axis.first_atom..axis.first_atom + axis.size] {
            pinned.get_or_insert(reason_idx);
        }
    }

    /// Ties each axis that consists of several to one of them: to one that is made by a weight, else to the first that
    /// nothing pins. The others cannot lose slices then.
    pub(super) fn fold(&mut self, facts: &[Axes], space: &Space, graph: &Graph) {
        let (pinned, made) = self.axis_marks(space);
        for (node_idx, fold) in
            facts.iter().enumerate().flat_map(|(idx, axes)| axes.folds.iter().map(move |f| (idx, f)))
        {
            let ids: Option<Vec<AxisId>> =
                fold.factors.iter().map(|(slot, _)| space.id(graph, node_idx, *slot)).collect();
            let (Some(ids), Some(whole)) = (ids, space.id(graph, node_idx, fold.whole)) else { continue };
            let mut mark = |marks: &[bool], id: AxisId| marks[self.axes.find(id)];
            let free: Vec<usize> = (0..ids.len()).filter(|&position| !mark(&pinned, ids[position])).collect();
            let chosen = free.iter().find(|&&position| mark(&made, ids[position])).or(free.first()).copied();
            let node = &graph.nodes[node_idx];
            for (position, &id) in ids.iter().enumerate().filter(|&(position, _)| chosen != Some(position)) {
                let size = fold.factors[position].1;
                self.pin_axis(space, id, || format!("{}: an axis of {size} becomes part of another", node.label()));
            }
            match chosen {
                Some(position) => self.tie(space, ids[position], whole, &part(fold, position)),
                None => self.pin_axis(space, whole, || format!("{}: none of its parts can lose slices", node.label())),
            }
        }
    }

    /// By the axes' sets: whether one of them is pinned, and whether one is made by a weight.
    fn axis_marks(&mut self, space: &Space) -> (Vec<bool>, Vec<bool>) {
        let (mut pinned, mut made) = (vec![false; space.n_axes()], vec![false; space.n_axes()]);
        for id in 0..space.n_axes() {
            let set = self.axes.find(id);
            pinned[set] |= self.pinned_axes[id];
            made[set] |= space.axis(id).role == Some(Role::Made);
        }
        (pinned, made)
    }

    /// The classes that reach into a weight, in the order of their first atoms.
    pub(super) fn classes(&mut self, space: &Space) -> Vec<Class> {
        let mut by_root: BTreeMap<usize, Class> = BTreeMap::new();
        let atoms = |id: AxisId| (0..space.axis(id).size).map(move |index| (id, index));
        for id in (0..space.n_axes()).filter(|&id| space.axis(id).role == Some(Role::Made)) {
            for (id, index) in atoms(id) {
                let root = self.atoms.find(space.axis(id).first_atom + index);
                by_root.entry(root).or_insert_with(|| Class { atoms: Vec::new(), reason: None });
            }
        }
        for (id, index) in (0..space.n_axes()).flat_map(atoms) {
            let atom = space.axis(id).first_atom + index;
            let root = self.atoms.find(atom);
            if let Some(class) = by_root.get_mut(&root) {
                class.atoms.push((id, index));
                if let (None, Some(reason_idx)) = (&class.reason, self.pinned_atoms[atom]) {
                    class.reason = self.reasons.get(reason_idx as usize).cloned();
                }
            }
        }
        by_root.into_values().collect()
    }
}

/// Which indices of the whole belong to those of one of its factors.
fn part(fold: &Fold, position: usize) -> Map {
    let size = |factors: &[(_, usize)]| factors.iter().map(|(_, size)| size).product();
    Map::Blocks { outer: size(&fold.factors[..position]), inner: size(&fold.factors[position + 1..]) }
}
