//! How activations flow through a graph: which inputs of which nodes carry what the network computes on, and not its
//! weights, its constants or the arithmetic of its shapes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::graph::shape::Types;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, Op};

/// The most nodes that are looked at for a region: more than any block of a real network has.
const LARGEST_REGION: usize = 1024;

/// A graph seen along its activations.
pub(super) struct Flow<'a> {
    pub(super) graph: &'a Graph,
    pub(super) types: &'a Types,
    pub(super) uses: Uses<'a>,
    activations: HashSet<&'a str>,
    /// By node: the nodes that produce the activations that it computes on.
    sources: Vec<Vec<usize>>,
    /// By node: the producer of each value that it reads, as often as it reads it.
    producers: Vec<Vec<usize>>,
    /// By node: how often live nodes read its outputs and the graph hands them out.
    n_needed: Vec<usize>,
    /// By node: whether an output of the graph depends on it.
    live: Vec<bool>,
    marks: RefCell<Marks>,
}

/// A set of nodes that is emptied at no cost, whatever its size.
#[derive(Default)]
struct Marks {
    /// By node: the number of the set that it was last put into.
    of: Vec<usize>,
    number: usize,
}

impl Marks {
    fn clear(&mut self) {
        self.number += 1;
    }

    fn contains(&self, node_idx: usize) -> bool {
        self.of.get(node_idx) == Some(&self.number)
    }

    /// Whether the node was not yet in the set.
    fn insert(&mut self, node_idx: usize) -> bool {
        if self.of.len() <= node_idx {
            self.of.resize(node_idx + 1, 0);
        }
        std::mem::replace(&mut self.of[node_idx], self.number) != self.number
    }
}

/// A part of a graph that begins at one value and ends at another.
pub(super) struct Region {
    /// The nodes on the way from the first value to the last, in order; the last one produces the last value.
    pub(super) between: Vec<usize>,
    /// The nodes that nothing would need any more if the last value's readers read the first, in order: those between, and
    /// what only they read.
    pub(super) private: Vec<usize>,
    /// A value of the part, not its last, that something outside needs.
    pub(super) escape: Option<Escape>,
}

/// A value of a region that something outside needs.
pub(super) struct Escape {
    /// Which value, and who needs it how.
    pub(super) reason: String,
    /// Whether it is computed on, and not only asked for its shape or handed out.
    pub(super) as_data: bool,
}

impl<'a> Flow<'a> {
    pub(super) fn of(graph: &'a Graph, types: &'a Types) -> Flow<'a> {
        let given = graph.inputs.iter().map(|input| &input.name).chain(graph.captures());
        let mut activations: HashSet<&'a str> = given.map(Name::as_str).collect();
        for node in &graph.nodes {
            if asks_shape(&node.op) {
                continue;
            }
            let reads = |name: &&Name| activations.contains(name.as_str());
            if data_reads(node).any(|name| reads(&name)) {
                let unknown = |name: &&Name| types.constant(name).is_none();
                activations.extend(node.outputs.iter().flatten().filter(unknown).map(Name::as_str));
            }
        }
        let uses = Uses::of(graph);
        let source = |name: &Name| uses.producer_idx(name).filter(|_| activations.contains(name.as_str()));
        let sources = graph.nodes.iter().map(|node| data_reads(node).filter_map(source).collect()).collect();
        let producer = |name: &Name| uses.producer_idx(name);
        let producers = graph.nodes.iter().map(|node| node.reads().filter_map(producer).collect()).collect();
        let live = live(graph, &BTreeMap::new());
        let marks = RefCell::default();
        let mut flow = Flow { graph, types, uses, activations, sources, producers, n_needed: Vec::new(), live, marks };
        let reads = |node: &Node| node.outputs.iter().flatten().map(|name| flow.n_reads(name)).sum();
        flow.n_needed = graph.nodes.iter().map(reads).collect();
        flow
    }

    pub(super) fn node(&self, node_idx: usize) -> Option<&'a Node> {
        self.graph.nodes.get(node_idx)
    }

    /// Whether an output of the graph depends on the node.
    pub(super) fn is_live(&self, node_idx: usize) -> bool {
        self.live.get(node_idx).is_some_and(|&live| live)
    }

    /// Whether the value is computed from the network's inputs, and not only from their shapes.
    pub(super) fn is_activation(&self, name: &str) -> bool {
        self.activations.contains(name)
    }

    /// The activations that a node computes on, in order.
    pub(super) fn data_inputs(&self, node: &'a Node) -> Vec<&'a Name> {
        data_reads(node).filter(|name| self.is_activation(name)).collect()
    }

    /// The only activation that a node computes on.
    pub(super) fn sole_data_input(&self, node: &'a Node) -> Option<&'a Name> {
        match self.data_inputs(node).as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// The nodes that compute on a value, in order, each once.
    pub(super) fn data_readers(&self, name: &str) -> Vec<usize> {
        let readers = self.uses.readers(name).iter().filter(|reader| {
            let reads = |node: &Node| is_data_of(node, reader.position);
            self.is_live(reader.node_idx) && self.node(reader.node_idx).is_some_and(reads)
        });
        readers.map(|reader| reader.node_idx).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The one node that computes on a value, where the graph does not hand the value out.
    pub(super) fn sole_data_reader(&self, name: &str) -> Option<usize> {
        match self.data_readers(name).as_slice() {
            [only] if !self.uses.is_output(name) => Some(*only),
            _ => None,
        }
    }

    /// The value behind copies of it.
    pub(super) fn resolve(&self, name: &'a Name) -> &'a Name {
        let mut name = name;
        while let Some(Node { op: Op::Identity | Op::Dropout(_), inputs, .. }) = self.uses.producer(name) {
            match inputs.first() {
                Some(Some(input)) => name = input,
                Some(None) | None => break,
            }
        }
        name
    }

    /// The nodes on the ways from one value to another along activations, in order; none of them where there is no way.
    pub(super) fn between(&self, entry: &str, exit: &str) -> Vec<usize> {
        self.between_near(entry, exit, usize::MAX).unwrap_or_default()
    }

    /// As [`Flow::between`]; none where more than `most` nodes after the entry lead to the exit.
    fn between_near(&self, entry: &str, exit: &str, most: usize) -> Option<Vec<usize>> {
        let after = self.uses.producer_idx(entry).map_or(0, |node_idx| node_idx + 1);
        let Some(last) = self.uses.producer_idx(exit).filter(|&last| last >= after) else { return Some(Vec::new()) };
        let sources =
            |node_idx: usize| self.sources.get(node_idx).into_iter().flatten().filter(|&&source| source >= after);
        let mut leads_to_exit = self.marks.borrow_mut();
        leads_to_exit.clear();
        leads_to_exit.insert(last);
        let mut in_order = vec![last];
        let mut n_done = 0;
        while let Some(&node_idx) = in_order.get(n_done) {
            in_order.extend(sources(node_idx).filter(|&&source| leads_to_exit.insert(source)));
            n_done += 1;
            if in_order.len() > most {
                return None;
            }
        }
        in_order.sort_unstable();
        let mut reached = leads_to_exit;
        reached.clear();
        for reader in self.uses.readers(entry).iter().filter(|_| self.is_activation(entry)) {
            if self.node(reader.node_idx).is_some_and(|node| is_data_of(node, reader.position)) {
                reached.insert(reader.node_idx);
            }
        }
        in_order.retain(|&node_idx| {
            let found = reached.contains(node_idx) || sources(node_idx).any(|&source| reached.contains(source));
            if found {
                reached.insert(node_idx);
            }
            found
        });
        Some(in_order)
    }

    /// The part of the graph from one value to another; none where the second does not depend on the first, or where it is
    /// larger than any block.
    pub(super) fn region(&self, entry: &Name, exit: &Name) -> Option<Region> {
        let between = self.between_near(entry, exit, LARGEST_REGION)?;
        let last = *between.last()?;
        let private = self.private(entry, exit, last);
        // the last that is not private: what it is needed for lies outside, not further on
        let kept = between.iter().rev().find(|node_idx| !private.contains(node_idx));
        let escape = kept.and_then(|node_idx| self.escape(*node_idx, exit, &private));
        let mut private: Vec<usize> = private.into_iter().collect();
        private.sort_unstable();
        Some(Region { between, private, escape })
    }

    /// The nodes that die with the exit's producer when the exit's readers read the entry.
    fn private(&self, entry: &Name, exit: &Name, last: usize) -> HashSet<usize> {
        let mut private = HashSet::new();
        let of_exit = self.n_reads(exit);
        if self.n_needed.get(last).is_some_and(|&needed| needed > of_exit) {
            return private;
        }
        let mut n_needed: HashMap<usize, usize> = HashMap::new();
        let kept = self.uses.producer_idx(entry);
        let mut dying = vec![last];
        while let Some(node_idx) = dying.pop() {
            private.insert(node_idx);
            for &producer in self.producers.get(node_idx).into_iter().flatten() {
                let needed =
                    n_needed.entry(producer).or_insert_with(|| self.n_needed.get(producer).copied().unwrap_or(0));
                *needed = needed.saturating_sub(1);
                if *needed == 0 && Some(producer) != kept {
                    dying.push(producer);
                }
            }
        }
        private
    }

    /// How often live nodes read a value and the graph hands it out.
    fn n_reads(&self, name: &str) -> usize {
        let readers = self.uses.readers(name).iter().filter(|reader| self.is_live(reader.node_idx));
        readers.count() + usize::from(self.uses.is_output(name))
    }

    /// Why something outside needs an output of the node other than the exit; that it computes on one comes first.
    fn escape(&self, node_idx: usize, exit: &Name, private: &HashSet<usize>) -> Option<Escape> {
        let outputs = self.node(node_idx)?.outputs.iter().flatten().filter(|name| *name != exit);
        let mut found: Option<Escape> = None;
        for name in outputs {
            if self.uses.is_output(name) {
                let reason = format!("`{name}` inside it is an output of the graph");
                found.get_or_insert(Escape { reason, as_data: false });
            }
            for reader in self.uses.readers(name) {
                let outside = self.is_live(reader.node_idx) && !private.contains(&reader.node_idx);
                let Some(node) = self.node(reader.node_idx).filter(|_| outside) else { continue };
                let as_data = !asks_shape(&node.op) && is_data_of(node, reader.position);
                if found.as_ref().is_none_or(|found| as_data && !found.as_data) {
                    let how = if as_data { "is read" } else { "is asked for its shape" };
                    let reason = format!("`{name}` inside it {how} by {}", node.label());
                    found = Some(Escape { reason, as_data });
                }
            }
        }
        found
    }
}

fn asks_shape(op: &Op) -> bool {
    matches!(op, Op::Shape(_) | Op::Size)
}

fn is_data_of(node: &Node, position: Option<usize>) -> bool {
    position.is_none_or(|position| is_data(&node.op, position))
}

/// Whether this input of the operator is something to compute on, and not a shape, axes, sizes or positions.
fn is_data(op: &Op, position: usize) -> bool {
    let only_first = matches!(
        op,
        Op::Reshape(_)
            | Op::Expand
            | Op::Slice
            | Op::Pad(_)
            | Op::Tile
            | Op::Unsqueeze
            | Op::Squeeze
            | Op::Split(_)
            | Op::Resize(_)
            | Op::TopK(_)
            | Op::OneHot(_)
            | Op::Dropout(_)
            | Op::CumSum(_)
            | Op::Trilu(_)
            | Op::Clip
            | Op::ReduceL1(_)
            | Op::ReduceL2(_)
            | Op::ReduceLogSum(_)
            | Op::ReduceLogSumExp(_)
            | Op::ReduceMax(_)
            | Op::ReduceMean(_)
            | Op::ReduceMin(_)
            | Op::ReduceProd(_)
            | Op::ReduceSum(_)
            | Op::ReduceSumSquare(_)
    );
    position == 0 || !only_first
}

fn data_reads(node: &Node) -> impl Iterator<Item = &Name> {
    let inputs = node.inputs.iter().enumerate().filter(|(position, _)| is_data(&node.op, *position));
    let captured = node.op.bodies().into_iter().flat_map(Graph::captures);
    inputs.filter_map(|(_, name)| name.as_ref()).chain(captured)
}

/// By node: whether an output of the graph depends on it, once what reads a key of `redirected` reads its value.
pub(super) fn live(graph: &Graph, redirected: &BTreeMap<&Name, &Name>) -> Vec<bool> {
    let end = |name| {
        let mut name: &Name = name;
        // as many steps as there are redirections: a circle is the patch's to refuse
        for _ in 0..redirected.len() {
            name = redirected.get(name).copied().unwrap_or(name);
        }
        name
    };
    let mut needed: HashSet<&Name> = graph.outputs.iter().map(|output| end(&output.name)).collect();
    let mut live = vec![false; graph.nodes.len()];
    for (live, node) in live.iter_mut().zip(&graph.nodes).rev() {
        *live = node.outputs.iter().flatten().any(|name| needed.contains(name));
        if *live {
            needed.extend(node.reads().map(end));
        }
    }
    live
}
