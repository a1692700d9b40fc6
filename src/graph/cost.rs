//! What a network costs, by counting: parameters, multiplications, bytes. What it costs in time only measuring tells.

mod fixed;
mod peak;
#[cfg(test)]
mod tests;
mod work;

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::attribute::SparseTensor;
use super::op::Op;
use super::shape::Types;
use super::tensor::{DType, Tensor};
use super::{Graph, Name, Node};
use work::Work;

/// What a network, or a node of it, costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Elements of constants that were learned: of every constant but those of `i64`, `u64`, `bool` and strings, which
    /// hold shapes, positions and conditions. A constant counts once, at the first node that reads it.
    pub parameters: u64,
    /// Bytes of all constants as they are stored, packed ones packed; each once, too.
    pub weight_bytes: u64,
    /// Multiplications with an addition in convolutions, matrix products, recurrent cells and attention. Biases and
    /// zero points are not counted.
    pub macs: u64,
    /// Elements that other computing operators make, or take where these are more (poolings: taps). Operators that only
    /// move elements count nothing.
    pub elementwise: u64,
    /// Bytes of the values that nodes write, each taken to be written.
    pub activation_bytes: u64,
}

/// One node's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeCost {
    /// The node's own name; may be empty.
    pub name: String,
    /// Its operator.
    pub operator: String,
    /// Its first output.
    pub output: String,
    /// What it costs, its bodies included: of an `If` the branch that is taken, or the one with more MACs where the
    /// condition is not known; of a `Loop` or `Scan` the body times its iterations.
    pub counts: Counts,
    /// Whether shapes, or a number of iterations, were missing, so that something is not counted.
    pub incomplete: bool,
}

/// What a network costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// All nodes together, and the constants that no node reads.
    pub total: Counts,
    /// The most bytes of values that are there at once when the nodes run in their order. Inputs are there all the time,
    /// an output from its node on, any other value from its node to its last reader; while a node runs, what it reads and
    /// what it writes are both there. Constants are not counted, nor what an operator needs while it works.
    pub peak_activation_bytes: u64,
    /// Each node, in order.
    pub nodes: Vec<NodeCost>,
}

impl Cost {
    /// Whether something is not counted because shapes are not known.
    pub fn is_incomplete(&self) -> bool {
        self.nodes.iter().any(|node| node.incomplete)
    }
}

/// Counts what a graph costs whose values have these types.
///
/// A node that reads nothing but constants is taken to be computed once, when the network is loaded: a Cast of weights
/// stored as `f16` is no work of a run, and what it writes no activation.
pub fn cost(graph: &Graph, types: &Types) -> Cost {
    let mut constants = Constants::default();
    constants.add(graph);
    let fixed = fixed::fixed(graph, &HashSet::new());
    let nodes: Vec<NodeCost> = graph
        .nodes
        .iter()
        .enumerate()
        .map(|(node_idx, node)| {
            let (mut counts, incomplete) = work_of(node_idx, node, types, &fixed);
            for name in node.reads().chain(node.outputs.iter().flatten()) {
                constants.take(name, &mut counts);
            }
            for body in node.op.bodies() {
                constants.take_body(body, &mut counts);
            }
            NodeCost {
                name: node.name.clone(),
                operator: node.op.name().to_string(),
                output: node.outputs.iter().flatten().next().map(Name::to_string).unwrap_or_default(),
                counts,
                incomplete,
            }
        })
        .collect();
    let mut total = Counts::default();
    constants.take_all(&mut total);
    nodes.iter().for_each(|node| total.add(&node.counts, 1));
    Cost { total, peak_activation_bytes: peak::peak(graph, types, &fixed), nodes }
}

/// How often a node multiplies and adds; none where shapes are missing, or it does something else.
pub(super) fn macs(node: &Node, types: &Types) -> Option<u64> {
    match work::work(node, types)? {
        work::Work::Macs(macs) => Some(macs),
        work::Work::Elementwise(_) | work::Work::Moves | work::Work::Bodies => None,
    }
}

impl Counts {
    fn add(&mut self, other: &Counts, n_times: u64) {
        let add = |sum: &mut u64, part: u64| *sum = sum.saturating_add(part.saturating_mul(n_times));
        add(&mut self.parameters, other.parameters);
        add(&mut self.weight_bytes, other.weight_bytes);
        add(&mut self.macs, other.macs);
        add(&mut self.elementwise, other.elementwise);
        add(&mut self.activation_bytes, other.activation_bytes);
    }
}

/// Constants by name that have not been counted yet: (parameters, bytes).
#[derive(Default)]
struct Constants(HashMap<Name, (u64, u64)>);

impl Constants {
    fn add(&mut self, graph: &Graph) {
        self.0.extend(graph.initializers.iter().map(|(name, tensor)| (name.clone(), of_tensor(tensor))));
        self.0.extend(graph.sparse_initializers.iter().map(|(name, tensor)| (name.clone(), of_sparse(tensor))));
        for node in &graph.nodes {
            if let (Op::Constant(constant), Some(name)) = (&node.op, node.output(0)) {
                self.0.insert(name.clone(), of_tensor(&constant.value));
            }
        }
    }

    fn take(&mut self, name: &Name, counts: &mut Counts) {
        if let Some((parameters, bytes)) = self.0.remove(name) {
            counts.parameters = counts.parameters.saturating_add(parameters);
            counts.weight_bytes = counts.weight_bytes.saturating_add(bytes);
        }
    }

    fn take_all(&mut self, counts: &mut Counts) {
        let names: Vec<Name> = self.0.keys().cloned().collect();
        names.iter().for_each(|name| self.take(name, counts));
    }

    /// The constants of a body, and of those inside, all belong to the node that holds it.
    fn take_body(&mut self, body: &Graph, counts: &mut Counts) {
        let mut own = Constants::default();
        own.add(body);
        own.take_all(counts);
        for inner in body.nodes.iter().flat_map(|node| node.op.bodies()) {
            self.take_body(inner, counts);
        }
    }
}

fn of_tensor(tensor: &Tensor) -> (u64, u64) {
    (if holds_parameters(tensor.dtype()) { wide(tensor.len()) } else { 0 }, wide(tensor.n_bytes()))
}

fn of_sparse(tensor: &SparseTensor) -> (u64, u64) {
    let (parameters, bytes) = of_tensor(&tensor.values);
    (parameters, bytes.saturating_add(wide(tensor.indices.n_bytes())))
}

fn holds_parameters(dtype: DType) -> bool {
    match dtype {
        DType::I64 | DType::U64 | DType::Bool | DType::String => false,
        DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::Complex64 | DType::Complex128 => true,
        DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::I2 => true,
        DType::U32 | DType::U16 | DType::U8 | DType::U4 | DType::U2 => true,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => true,
        DType::F6E2M3 | DType::F6E3M2 => true,
    }
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// The bytes of a value; none where its shape is not known.
fn n_bytes(types: &Types, name: &Name) -> Option<u64> {
    let tensor = types.tensor(name)?;
    let n_elements = super::tensor::n_elements(&tensor.known_shape()?)?;
    tensor.dtype.n_bytes(n_elements).map(wide)
}

/// What a node does, without its constants, and whether something could not be counted.
fn work_of(node_idx: usize, node: &Node, types: &Types, fixed: &HashSet<Name>) -> (Counts, bool) {
    let mut counts = Counts::default();
    if fixed::is_fixed(node, fixed) {
        return (counts, false);
    }
    let mut incomplete = false;
    match work::work(node, types) {
        Some(Work::Macs(macs)) => counts.macs = macs,
        Some(Work::Elementwise(n)) => counts.elementwise = n,
        Some(Work::Moves) => {}
        Some(Work::Bodies) => incomplete |= !add_bodies(&mut counts, node_idx, node, types, fixed),
        None => incomplete = true,
    }
    for name in node.outputs.iter().flatten() {
        match n_bytes(types, name) {
            Some(bytes) => counts.activation_bytes = counts.activation_bytes.saturating_add(bytes),
            None => incomplete = true,
        }
    }
    (counts, incomplete)
}

/// Adds what the bodies of a node do; false where that is not known.
fn add_bodies(counts: &mut Counts, node_idx: usize, node: &Node, types: &Types, fixed: &HashSet<Name>) -> bool {
    let bodies = node.op.bodies();
    let inside = |body_idx: usize| -> Option<(Counts, bool)> {
        let (body, types) = (bodies.get(body_idx)?, types.body(node_idx, body_idx)?);
        let fixed = fixed::fixed(body, fixed);
        let mut sum = Counts::default();
        let mut complete = true;
        for (node_idx, node) in body.nodes.iter().enumerate() {
            let (counts, incomplete) = work_of(node_idx, node, types, &fixed);
            sum.add(&counts, 1);
            complete &= !incomplete;
        }
        Some((sum, complete))
    };
    let (chosen, n_times) = if matches!(node.op, Op::If(_)) {
        (taken(node, types).map_or_else(|| costlier(inside(0), inside(1)), inside), Some(1))
    } else {
        (inside(0), work::n_iterations(node_idx, node, types))
    };
    let (Some((chosen, complete)), Some(n_times)) = (chosen, n_times) else { return false };
    counts.add(&chosen, n_times);
    complete
}

/// The branch that an `If` takes, where its condition is known.
fn taken(node: &Node, types: &Types) -> Option<usize> {
    let condition = types.constant(node.input(0)?)?.as_slice::<bool>().ok()?.first().copied()?;
    Some(usize::from(!condition))
}

fn costlier(a: Option<(Counts, bool)>, b: Option<(Counts, bool)>) -> Option<(Counts, bool)> {
    let (a, b) = (a?, b?);
    Some(if a.0.macs >= b.0.macs { a } else { b })
}
