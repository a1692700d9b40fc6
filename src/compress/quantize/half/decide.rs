//! Which nodes compute in the narrow type, and why the others do not.

use std::collections::{HashMap, HashSet};

use super::masks::{self, Masks};
use super::numbers::{Loss, constants, loss};
use super::roles::{Role, role};
use super::{HalfOptions, HalfType};
use crate::graph::op::Op;
use crate::graph::shape::Types;
use crate::graph::tensor::DType;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node};

/// What becomes of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No float of it could be narrow.
    Untouched,
    /// It computes in the narrow type.
    Narrow,
    /// It stays in `f32`, for this reason.
    Stays(String),
}

/// What is to be done, node by node.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) verdicts: Vec<Verdict>,
    pub(super) masks: Masks,
}

/// How a node reads an `f32` input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    Narrow,
    Wide,
    Any,
}

/// How a node would read the input at this position if it computed in the narrow type.
pub(super) fn reads(node: &Node, position: usize, to: HalfType) -> Reads {
    match role(&node.op, to) {
        Role::Computes { any, .. } if any.contains(&position) => Reads::Any,
        Role::Computes { wide, .. } if !wide.contains(&position) => Reads::Narrow,
        Role::Computes { .. } | Role::Integers | Role::Stays(_) => Reads::Wide,
    }
}

/// Whether the `f32` output at this position would be narrow.
pub(super) fn writes_narrow(node: &Node, position: usize, to: HalfType) -> bool {
    matches!(role(&node.op, to), Role::Computes { wide_outputs, .. } if !wide_outputs.contains(&position))
}

/// Decides for every node.
pub(super) fn decide(graph: &Graph, types: &Types, options: &HalfOptions) -> Plan {
    let uses = Uses::of(graph);
    let constants = constants(graph);
    let masks = masks::find(graph, &uses, &constants, options.dtype);
    let losses: HashMap<Name, Loss> = constants
        .iter()
        .filter(|(name, _)| !masks.least.contains_key(name))
        .filter_map(|(name, tensor)| Some((name.clone(), loss(tensor, options.dtype)?)))
        .collect();
    let counts = counts(graph, &uses, types);
    let view = View { graph, types, options, masks: &masks, losses: &losses };
    let mut verdicts: Vec<Verdict> =
        graph.nodes.iter().enumerate().map(|(idx, node)| view.verdict(node, counts.contains(&idx))).collect();
    spread_tiny(&view, &uses, &mut verdicts);
    Plan { verdicts, masks }
}

struct View<'a> {
    graph: &'a Graph,
    types: &'a Types,
    options: &'a HalfOptions,
    masks: &'a Masks,
    losses: &'a HashMap<Name, Loss>,
}

impl View<'_> {
    fn is_f32(&self, name: &Name) -> bool {
        is_f32(self.types, name)
    }

    fn verdict(&self, node: &Node, counts: bool) -> Verdict {
        let to = self.options.dtype;
        let role = role(&node.op, to);
        let floats = match role {
            Role::Integers => false,
            Role::Stays(_) => node.reads().chain(node.outputs.iter().flatten()).any(|name| self.is_f32(name)),
            Role::Computes { .. } => self.narrow_values(node).next().is_some(),
        };
        if let (Role::Stays(reason), true) = (role, floats || matches!(node.op, Op::Opaque(_))) {
            return Verdict::Stays(reason.to_string());
        }
        let unknown = self.unknown(node);
        match unknown.or_else(|| floats.then(|| self.reason(node, counts)).flatten()) {
            Some(reason) => Verdict::Stays(reason),
            None if floats => Verdict::Narrow,
            None => Verdict::Untouched,
        }
    }

    /// The values of a node that would be narrow.
    fn narrow_values<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a Name> {
        let to = self.options.dtype;
        let inputs = node.inputs.iter().enumerate().filter(move |(at, _)| reads(node, *at, to) == Reads::Narrow);
        let outputs = node.outputs.iter().enumerate().filter(move |(at, _)| writes_narrow(node, *at, to));
        inputs.chain(outputs).filter_map(|(_, name)| name.as_ref()).filter(|name| self.is_f32(name))
    }

    /// What comes out of an unknown operator may be of any type, and has to be read as it is.
    fn unknown(&self, node: &Node) -> Option<String> {
        if !matches!(role(&node.op, self.options.dtype), Role::Computes { .. }) {
            return None;
        }
        let unknown = node.inputs.iter().flatten().find(|name| self.types.get(name).is_none());
        unknown.map(|name| format!("the type of `{name}` is not known"))
    }

    fn reason(&self, node: &Node, counts: bool) -> Option<String> {
        let kept = |name: &str| !name.is_empty() && self.options.keep.contains(name);
        let asked =
            [node.name.as_str(), node.op.name()].into_iter().chain(node.outputs.iter().flatten().map(Name::as_str));
        let constants = node.inputs.iter().flatten().filter(|name| self.graph.initializers.contains_key(*name));
        if asked.chain(constants.map(Name::as_str)).any(kept) {
            return Some("it was asked for".to_string());
        }
        if let Some(name) = node.inputs.iter().flatten().find(|name| self.graph.sparse_initializers.contains_key(*name))
        {
            return Some(format!("it reads the sparse constant `{name}`"));
        }
        if counts {
            return Some("it computes a size or a position, which has to be exact".to_string());
        }
        let lost = self.narrow_values(node).find_map(|name| Some((name, self.losses.get(name)?)));
        if let Some((name, loss)) = lost {
            return Some(loss.reason(name, self.options.dtype));
        }
        self.out_of_range(node)
    }

    /// A margin of 2 is left to other data.
    fn out_of_range(&self, node: &Node) -> Option<String> {
        let ranges = self.options.ranges.as_ref()?;
        let limit = self.options.dtype.greatest() / 2.0;
        let seen = |name: &Name| ranges.get(name).copied().filter(|&range| range > limit);
        let values = self.narrow_values(node).filter(|name| !self.masks.values.contains(*name));
        values.filter_map(|name| Some((name, seen(name)?))).next().map(|(name, range)| {
            format!("`{name}` reaches {range:e}, and {} ends at {:e}", self.options.dtype.dtype(), 2.0 * limit)
        })
    }
}

pub(super) fn is_f32(types: &Types, name: &Name) -> bool {
    types.tensor(name).is_some_and(|tensor| tensor.dtype == DType::F32)
}

/// What was added to keep a root or a quotient finite must still be there when it is taken.
fn spread_tiny(view: &View<'_>, uses: &Uses<'_>, verdicts: &mut [Verdict]) {
    for (node_idx, node) in view.graph.nodes.iter().enumerate() {
        if verdicts[node_idx] != Verdict::Narrow {
            continue;
        }
        let root = matches!(node.op, Op::Sqrt | Op::Reciprocal | Op::Log | Op::Pow | Op::Div);
        let operand = if matches!(node.op, Op::Div) { node.input(1) } else { node.input(0) };
        let Some(producer) = operand.filter(|_| root).and_then(|name| uses.producer_idx(name)) else { continue };
        let Verdict::Stays(_) = &verdicts[producer] else { continue };
        if is_tiny(view, &view.graph.nodes[producer]) || is_of_tiny(view, uses, &view.graph.nodes[producer]) {
            let label = view.graph.nodes[producer].label();
            verdicts[node_idx] = Verdict::Stays(format!("it takes what {label} keeps from being zero"));
        }
    }
}

fn is_tiny(view: &View<'_>, node: &Node) -> bool {
    let vanishes = |name: &Name| matches!(view.losses.get(name), Some(Loss::Vanishes(_)));
    node.inputs.iter().flatten().any(vanishes)
}

/// A root of what is tiny.
fn is_of_tiny(view: &View<'_>, uses: &Uses<'_>, node: &Node) -> bool {
    let root = matches!(node.op, Op::Sqrt | Op::Pow);
    let before = node.input(0).filter(|_| root).and_then(|name| uses.producer(name));
    before.is_some_and(|before| is_tiny(view, before))
}

/// The nodes that compute sizes and positions in floats: those from which an operator takes its scales or bounds, and
/// those between a cast from integers and one back to them.
fn counts(graph: &Graph, uses: &Uses<'_>, types: &Types) -> HashSet<usize> {
    let integer =
        |name: Option<&Name>| name.and_then(|name| types.tensor(name)).is_some_and(|tensor| tensor.dtype.is_integer());
    let mut from_integers: HashSet<&str> = HashSet::new();
    for node in &graph.nodes {
        let begins = matches!(&node.op, Op::Cast(cast) if cast.to == DType::F32) && integer(node.input(0));
        let goes_on = exact(&node.op) && node.inputs.iter().flatten().any(|name| from_integers.contains(name.as_str()));
        if begins || goes_on {
            from_integers.extend(node.outputs.iter().flatten().map(Name::as_str));
        }
    }
    let mut found = HashSet::new();
    for node in &graph.nodes {
        for (position, name) in node.inputs.iter().enumerate() {
            let Some(name) = name else { continue };
            let to_integers = matches!(&node.op, Op::Cast(_)) && integer(node.output(0));
            let takes_sizes = matches!(node.op, Op::Range(_)) || (matches!(node.op, Op::Resize(_)) && position > 0);
            if to_integers || takes_sizes {
                walk_back(graph, uses, types, name, takes_sizes, &from_integers, &mut found);
            }
        }
    }
    found
}

fn walk_back(
    graph: &Graph,
    uses: &Uses<'_>,
    types: &Types,
    name: &Name,
    all: bool,
    from_integers: &HashSet<&str>,
    found: &mut HashSet<usize>,
) {
    let mut open = vec![name];
    while let Some(name) = open.pop() {
        let Some(node_idx) = uses.producer_idx(name) else { continue };
        let Some(node) = graph.nodes.get(node_idx) else { continue };
        let counts = all || from_integers.contains(name.as_str());
        if is_f32(types, name) && counts && exact(&node.op) && found.insert(node_idx) {
            open.extend(node.inputs.iter().flatten());
        }
    }
}

/// Operators that sizes and positions are computed by.
fn exact(op: &Op) -> bool {
    let arithmetic = matches!(op, Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Mod(_) | Op::Neg | Op::Abs | Op::Pow);
    let rounding = matches!(op, Op::Floor | Op::Ceil | Op::Round | Op::Min | Op::Max | Op::Clip | Op::Sqrt);
    let parts = matches!(op, Op::Concat(_) | Op::Slice | Op::Gather(_) | Op::Unsqueeze | Op::Squeeze | Op::Reshape(_));
    let others =
        matches!(op, Op::Identity | Op::Cast(_) | Op::Where | Op::Expand | Op::Constant(_) | Op::ReduceProd(_));
    arithmetic || rounding || parts || others
}
