//! Classes of atoms that go together, and what pins them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::space::{AxisId, Space};
use super::{Kind, Role};
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

/// Atoms as axis and index, ascending.
pub(super) type Atoms = Vec<(AxisId, usize)>;

/// One class of atoms.
pub(super) struct Class {
    /// The atoms.
    pub(super) atoms: Atoms,
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
        Classes {
            atoms: Sets::new(space.n_atoms()),
            axes: Sets::new(space.n_axes()),
            pinned_atoms: vec![None; space.n_atoms()],
            pinned_axes: (0..space.n_axes()).map(|id| space.axis(id).size == 1).collect(),
            reasons: Vec::new(),
        }
    }

    pub(super) fn tie(&mut self, space: &Space, a: AxisId, b: AxisId, map: &Map) {
        let (first, other) = (space.axis(a), space.axis(b));
        map.for_each(first.size, |i, j| self.atoms.join(first.first_atom + i, other.first_atom + j));
        if map.is_same() {
            self.axes.join(a, b);
        }
    }

    pub(super) fn pin_axis(&mut self, space: &Space, id: AxisId, reason: impl FnOnce() -> String) {
        self.pinned_axes[id] = true;
        let axis = space.axis(id);
        let pinned = &mut self.pinned_atoms[axis.first_atom..axis.first_atom + axis.size];
        if pinned.iter().all(Option::is_some) {
            return;
        }
        let reason_idx = u32::try_from(self.reasons.len()).unwrap_or(u32::MAX);
        self.reasons.push(reason());
        pinned.iter_mut().for_each(|pinned| _ = pinned.get_or_insert(reason_idx));
    }

    /// Ties each axis that consists of several to one of them, and pins the others, which cannot lose slices then. What is
    /// forced comes first; where there is a choice, an axis that a weight makes is taken, else heads, else the one of most
    /// slices. Of heads of heads, those are taken that more axes consist of: queries have all of them, keys and values only
    /// those that they do not share. Where all are pinned, one of them says why.
    pub(super) fn fold(&mut self, facts: &[Axes], space: &Space, graph: &Graph) {
        let open = self.open(facts, space, graph);
        self.join_alike(space, &open);
        let mut marks = Marks::of(self, space, &open);
        marks.spread_heads(self, &open, &counterparts(facts, space, graph));
        let mut folds_of: HashMap<usize, Vec<usize>> = HashMap::new();
        for (fold_idx, fold) in open.iter().enumerate() {
            let ids = fold.factors.iter().chain([&fold.whole]);
            ids.for_each(|&id| folds_of.entry(self.axes.find(id)).or_default().push(fold_idx));
        }
        let mut forced: BTreeSet<usize> =
            (0..open.len()).filter(|&fold_idx| self.is_forced(&open[fold_idx], &marks)).collect();
        let mut undecided: BTreeSet<usize> = (0..open.len()).collect();
        while let Some(fold_idx) = forced.pop_first().or_else(|| undecided.first().copied()) {
            if !undecided.remove(&fold_idx) {
                continue;
            }
            let fold = &open[fold_idx];
            let free = self.free(fold, &marks);
            let candidates = if free.is_empty() { (0..fold.factors.len()).collect() } else { free };
            let choice = candidates.into_iter().max_by_key(|&position| {
                let set = self.axes.find(fold.factors[position]);
                let heads = marks.heads[set].then_some(marks.n_folds[set]);
                (marks.made[set], heads, fold.fold.factors[position].1, Reverse(position))
            });
            let choice = choice.expect("an axis consists of at least one");
            for set in self.resolve(space, fold, choice, &mut marks) {
                let concerned =
                    folds_of.get(&set).into_iter().flatten().filter(|fold_idx| undecided.contains(fold_idx));
                forced.extend(concerned.filter(|&&fold_idx| self.is_forced(&open[fold_idx], &marks)));
            }
        }
    }

    /// The axes that consist of others. Those of too many slices are pinned.
    fn open<'a>(&mut self, facts: &'a [Axes], space: &Space, graph: &Graph) -> Vec<Open<'a>> {
        let mut open = Vec::new();
        for (node_idx, fold) in
            facts.iter().enumerate().flat_map(|(idx, axes)| axes.folds.iter().map(move |f| (idx, f)))
        {
            let id = |slot| space.id(graph, node_idx, slot);
            let label = graph.nodes[node_idx].label();
            let ids: Vec<Option<AxisId>> = fold.factors.iter().map(|(slot, _)| id(*slot)).collect();
            match (ids.iter().copied().collect(), id(fold.whole)) {
                (Some(factors), Some(whole)) => open.push(Open { label, fold, factors, whole }),
                (_, whole) => ids.into_iter().chain([whole]).flatten().for_each(|id| {
                    self.pin_axis(space, id, || format!("{label}: an axis of it has too many slices"));
                }),
            }
        }
        open
    }

    /// Axes that have the same slices lose them along the same factor: where the factors' sizes are the same, those have the
    /// same slices too.
    fn join_alike(&mut self, space: &Space, open: &[Open<'_>]) {
        let mut joined = true;
        while std::mem::take(&mut joined) {
            let mut first: HashMap<(usize, Vec<usize>), &Open<'_>> = HashMap::new();
            for fold in open {
                let sizes = fold.fold.factors.iter().map(|&(_, size)| size).collect();
                let other = *first.entry((self.axes.find(fold.whole), sizes)).or_insert(fold);
                for (&a, &b) in other.factors.iter().zip(&fold.factors) {
                    if self.axes.find(a) != self.axes.find(b) {
                        self.tie(space, a, b, &Map::SAME);
                        joined = true;
                    }
                }
            }
        }
    }

    /// Whether nothing is gained by waiting for what other folds are decided to be.
    fn is_forced(&mut self, fold: &Open<'_>, marks: &Marks) -> bool {
        marks.pinned[self.axes.find(fold.whole)] || self.free(fold, marks).len() < 2
    }

    /// The factors that nothing pins.
    fn free(&mut self, fold: &Open<'_>, marks: &Marks) -> Vec<usize> {
        (0..fold.factors.len()).filter(|&position| !marks.pinned[self.axes.find(fold.factors[position])]).collect()
    }

    /// Ties the whole to the chosen factor, so that what holds one holds the other. The sets that are pinned by that.
    fn resolve(&mut self, space: &Space, fold: &Open<'_>, choice: usize, marks: &mut Marks) -> Vec<usize> {
        let mut newly_pinned = Vec::new();
        for (position, &id) in fold.factors.iter().enumerate().filter(|&(position, _)| position != choice) {
            let (set, size) = (self.axes.find(id), fold.fold.factors[position].1);
            // What is pinned already has a reason of its own, which says more.
            if !std::mem::replace(&mut marks.pinned[set], true) {
                self.pin_axis(space, id, || format!("{}: an axis of {size} becomes part of another", fold.label));
                newly_pinned.push(set);
            }
        }
        let ends = [fold.factors[choice], fold.whole].map(|id| self.axes.find(id));
        if ends.iter().any(|&set| marks.pinned[set]) {
            newly_pinned.extend(ends.into_iter().filter(|&set| !marks.pinned[set]));
            ends.into_iter().for_each(|set| marks.pinned[set] = true);
        }
        self.tie(space, fold.factors[choice], fold.whole, &part(fold.fold, choice));
        newly_pinned
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

/// An axis that consists of others, before it is decided along which of them it can lose slices.
struct Open<'a> {
    label: String,
    fold: &'a Fold,
    factors: Vec<AxisId>,
    whole: AxisId,
}

/// What is known of each set of axes that have the same slices.
struct Marks {
    /// Something holds every slice of one of them.
    pinned: Vec<bool>,
    /// A weight makes one of them.
    made: Vec<bool>,
    /// Heads lie along one of them.
    heads: Vec<bool>,
    /// How many axes consist of one of them and others.
    n_folds: Vec<usize>,
}

impl Marks {
    fn of(classes: &mut Classes, space: &Space, open: &[Open<'_>]) -> Marks {
        let mut held = vec![false; space.n_atoms()];
        for atom in (0..space.n_atoms()).filter(|&atom| classes.pinned_atoms[atom].is_some()) {
            held[classes.atoms.find(atom)] = true;
        }
        let none = || vec![false; space.n_axes()];
        let mut marks = Marks { pinned: none(), made: none(), heads: none(), n_folds: vec![0; space.n_axes()] };
        for id in 0..space.n_axes() {
            let (set, axis) = (classes.axes.find(id), space.axis(id));
            let mut atoms = axis.first_atom..axis.first_atom + axis.size;
            marks.pinned[set] |= classes.pinned_axes[id] || atoms.all(|atom| held[classes.atoms.find(atom)]);
            marks.made[set] |= axis.role == Some(Role::Made);
            marks.heads[set] |= axis.kind == Some(Kind::Heads);
        }
        open.iter().flat_map(|fold| &fold.factors).for_each(|&id| marks.n_folds[classes.axes.find(id)] += 1);
        marks
    }

    /// Marks as heads what heads are repeated from, joined from or taken from, what they consist of, and what consists of
    /// nothing but heads.
    fn spread_heads(&mut self, classes: &mut Classes, open: &[Open<'_>], counterparts: &[(AxisId, AxisId)]) {
        let mut spreads = true;
        while std::mem::take(&mut spreads) {
            let mut mark = |set: usize, heads: &mut Vec<bool>| spreads |= !std::mem::replace(&mut heads[set], true);
            for &(a, b) in counterparts {
                let (a, b) = (classes.axes.find(a), classes.axes.find(b));
                if self.heads[a] || self.heads[b] {
                    [a, b].into_iter().for_each(|set| mark(set, &mut self.heads));
                }
            }
            for fold in open {
                let whole = classes.axes.find(fold.whole);
                let factors: Vec<usize> = fold.factors.iter().map(|&id| classes.axes.find(id)).collect();
                if self.heads[whole] || factors.iter().all(|&set| self.heads[set]) {
                    factors.into_iter().chain([whole]).for_each(|set| mark(set, &mut self.heads));
                }
            }
        }
    }
}

/// Axes of different sizes, slices of which are the same things: where they are repeated, joined, split or picked.
fn counterparts(facts: &[Axes], space: &Space, graph: &Graph) -> Vec<(AxisId, AxisId)> {
    let ties = facts.iter().enumerate().flat_map(|(node_idx, axes)| axes.ties.iter().map(move |tie| (node_idx, tie)));
    let one_to_one = ties.filter(|(_, tie)| match tie.map {
        Map::Blocks { inner, .. } => inner == 1 && !tie.map.is_same(),
        Map::Range { .. } | Map::Picks(_) => true,
    });
    let ids = one_to_one.map(|(node_idx, tie)| [tie.a, tie.b].map(|slot| space.id(graph, node_idx, slot)));
    ids.filter_map(|[a, b]| a.zip(b)).collect()
}

/// Which indices of the whole belong to those of one of its factors.
fn part(fold: &Fold, position: usize) -> Map {
    let size = |factors: &[(_, usize)]| factors.iter().map(|(_, size)| size).product();
    Map::Blocks { outer: size(&fold.factors[..position]), inner: size(&fold.factors[position + 1..]) }
}
