//! Where a network's values become integers: which activations, weights and biases, and which nodes compute on them.
//!
//! A product (Conv, Gemm, MatMul) is worth integers by itself. What joins or pools (Add, Concat, AveragePool) is only where
//! all it reads are integers already and an integer node reads what it makes. What moves numbers (Reshape, MaxPool) goes
//! along with one scale on both sides, and a Relu, or a Clip from 0, behind an integer node is implied by the range of what
//! it makes. Each value is quantized once, however many read it.

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexMap;

use super::QuantizeError;
use super::scheme::{Activations, Granularity, Scheme, Weights};
use crate::graph::axes::axes;
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, Op};

/// Where a network's values become integers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The values that are quantized, in the order in which they are made: inputs of the network first.
    pub values: IndexMap<Name, Quantized>,
    /// The constants that are quantized, one for each place that reads them.
    pub weights: Vec<WeightSite>,
    /// The biases, which have the scale of what they are added to.
    pub biases: Vec<BiasSite>,
    /// The nodes that compute in integers, by position.
    pub integer: Vec<usize>,
    /// Those of them that are worth it by themselves: products.
    pub products: Vec<usize>,
    /// The nodes that only move integers, or that a range implies, by position.
    pub along: Vec<usize>,
    /// The nodes that could and do not, and why.
    pub float: Vec<Float>,
}

/// How a value is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantized {
    /// To what.
    pub activations: Activations,
    /// Values of one number have one scale.
    pub group: usize,
}

/// A constant that is quantized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSite {
    /// The node that reads it.
    pub node_idx: usize,
    /// Which of its inputs it is.
    pub position: usize,
    /// The constant.
    pub name: Name,
    /// The axis of the output channels, where each has its own scale.
    pub axis: Option<usize>,
    /// To what.
    pub weights: Weights,
}

impl WeightSite {
    /// What is made of the constant: the same for sites of one key.
    pub(super) fn key(&self) -> (&Name, Option<usize>, Weights) {
        (&self.name, self.axis, self.weights)
    }
}

/// A bias that is quantized to 32 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BiasSite {
    /// The node that reads it.
    pub node_idx: usize,
    /// Which of its inputs it is.
    pub position: usize,
    /// The constant.
    pub name: Name,
    /// The activation whose scale goes into its own.
    pub input: Name,
    /// The weight whose scale does, by its place in [`Plan::weights`].
    pub weight: usize,
}

/// A node that stays in floats although its operator is one that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Float {
    /// The node.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// What a node is to quantization.
#[derive(Clone, Debug, PartialEq)]
enum Role {
    /// Worth integers by itself; `weight` is its constant operand, `needs_output` whether what it makes must be integers too.
    Product { weight: Option<(usize, Option<usize>)>, bias: Option<usize>, needs_output: bool },
    /// Goes along where everything that it reads is integers.
    Join,
    /// Moves numbers of its first input.
    Pass,
    /// What it does is implied by the range of what it makes.
    Implied,
    /// Computes in floats.
    Float,
}

/// Where the values of a simplified graph become integers.
///
/// # Errors
/// When the scheme cannot be carried out, one of its patterns means no node, or no node is left to quantize.
pub fn plan(graph: &Graph, types: &Types, scheme: &Scheme) -> Result<Plan, QuantizeError> {
    scheme.check()?;
    if let Some(pattern) = scheme.idle_patterns(&graph.nodes).first() {
        return Err(QuantizeError::Pattern { pattern: pattern.to_string() });
    }
    for weights in scheme.all_weights() {
        let option = |option, problem: &str| Err(QuantizeError::Option { option, problem: problem.to_string() });
        if let Granularity::Block(_) = weights.granularity {
            return option("weights.granularity", "is by block, which is for weights alone: take the form `weights`");
        }
        if !weights.symmetric && weights.granularity == Granularity::Channel {
            let problem = "is false by channel, whose zero points would differ; runtimes take one: take `tensor`, or symmetric weights";
            return option("weights.symmetric", problem);
        }
    }
    if scheme.operators.iter().any(|name| name == "LSTM") {
        let problem = "has LSTM, which computes on integers in the form `dynamic` alone; leave it out".to_string();
        return Err(QuantizeError::Option { option: "operators", problem });
    }
    let mut planner = Planner::new(graph, types, scheme);
    if scheme.integer_ports {
        planner.take_ports();
    }
    planner.reach_forward();
    planner.ask_backward();
    let plan = planner.finish()?;
    if plan.integer.is_empty() {
        let named = |float: &Float| format!("{}: {}", float.node, float.reason);
        let reason = plan.float.first().map_or("it has no operator that the scheme names".to_string(), named);
        return Err(QuantizeError::Nothing { reason });
    }
    Ok(plan)
}

struct Planner<'a> {
    graph: &'a Graph,
    types: &'a Types,
    scheme: &'a Scheme,
    uses: Uses<'a>,
    roles: Vec<Role>,
    float: Vec<Float>,
    /// Values that could be integers.
    reached: HashSet<&'a Name>,
    /// Values that an integer node reads as integers.
    asked: HashSet<&'a Name>,
    /// The nodes that turn out to compute in integers.
    integer: HashSet<usize>,
}

impl<'a> Planner<'a> {
    fn new(graph: &'a Graph, types: &'a Types, scheme: &'a Scheme) -> Planner<'a> {
        let mut planner = Planner {
            graph,
            types,
            scheme,
            uses: Uses::of(graph),
            roles: Vec::new(),
            float: Vec::new(),
            reached: HashSet::new(),
            asked: HashSet::new(),
            integer: HashSet::new(),
        };
        for node in &graph.nodes {
            let role = match planner.role(node) {
                Ok(role) => role,
                Err(reason) => {
                    planner.float.push(Float { node: node.label(), reason });
                    Role::Float
                }
            };
            planner.roles.push(role);
        }
        planner
    }

    /// What a node is; an error where its operator is one that is asked for and it cannot be.
    fn role(&self, node: &Node) -> Result<Role, String> {
        let is_asked = self.scheme.has(&node.op);
        match self.scheme.excludes(node) {
            Some(pattern) if is_asked => return Err(format!("excluded by `{pattern}`")),
            Some(_) => return Ok(Role::Float),
            None => {}
        }
        match &node.op {
            Op::Conv(_) if is_asked => self.product(node, true),
            Op::Gemm(op) if is_asked => {
                if op.trans_a || op.alpha != 1.0 || op.beta != 1.0 {
                    return Err("its alpha and beta are not 1, or its first input is transposed".to_string());
                }
                self.product(node, self.scheme.product_outputs)
            }
            Op::MatMul if is_asked => match self.product(node, self.scheme.product_outputs) {
                Err(_) if !self.is_constant(node, 0) && !self.is_constant(node, 1) => {
                    if !self.scheme.activation_products {
                        return Err("both its inputs are activations".to_string());
                    }
                    Ok(Role::Product { weight: None, bias: None, needs_output: self.scheme.product_outputs })
                }
                role => role,
            },
            Op::Add | Op::Mul | Op::Concat(_) if is_asked => self.all_floats(node).map(|()| Role::Join),
            Op::AveragePool(_) | Op::GlobalAveragePool | Op::LeakyRelu(_) | Op::Sigmoid | Op::Softmax(_)
                if is_asked =>
            {
                self.all_floats(node).map(|()| Role::Join)
            }
            Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Flatten(_)
            | Op::Squeeze
            | Op::Unsqueeze
            | Op::Slice
            | Op::MaxPool(_)
                if node.outputs.len() == 1 && !self.is_constant(node, 0) && self.is_f32(node.input(0)) =>
            {
                Ok(Role::Pass)
            }
            Op::Relu if !self.scheme.activations_of(node).symmetric => Ok(Role::Implied),
            Op::Clip if !self.scheme.activations_of(node).symmetric && self.is_clip_from_zero(node) => {
                Ok(Role::Implied)
            }
            _ => Ok(Role::Float),
        }
    }

    /// A node with one constant operand that makes channels of an activation.
    fn product(&self, node: &Node, needs_output: bool) -> Result<Role, String> {
        let facts = axes(node, self.types);
        let constant = |position: usize| node.input(position).and_then(|name| self.constant(name));
        let weight = facts.weights.iter().find(|weight| constant(weight.position).is_some());
        let Some(weight) = weight else { return Err("its weight is no constant".to_string()) };
        let other = if weight.position == 0 { 1 } else { 0 };
        if !self.is_f32(node.input(other)) || self.is_constant(node, other) {
            return Err("its other input is no activation of floats".to_string());
        }
        let tensor = constant(weight.position).expect("found above");
        if tensor.dtype() != DType::F32 {
            return Err(format!("its weight is {}; simplify first", tensor.dtype()));
        }
        let bias = match weight.bias {
            Some(position) => match constant(position) {
                Some(bias) if bias.dtype() == DType::F32 && is_by_channel(bias, tensor, weight.output_axis) => {
                    Some(position)
                }
                Some(_) | None => return Err("its bias is no constant with a number a channel".to_string()),
            },
            None => None,
        };
        // Runtimes take scales by channel only of a matrix that stands second.
        let has_channels = !matches!(node.op, Op::MatMul) || (weight.position == 1 && tensor.rank() == 2);
        let axis = has_channels.then_some(weight.output_axis);
        Ok(Role::Product { weight: Some((weight.position, axis)), bias, needs_output })
    }

    /// A constant that a caller cannot override.
    fn constant(&self, name: &Name) -> Option<&'a Tensor> {
        self.graph.constant(name)
    }

    fn is_constant(&self, node: &Node, position: usize) -> bool {
        node.input(position).is_some_and(|name| self.constant(name).is_some())
    }

    fn is_f32(&self, name: Option<&Name>) -> bool {
        name.and_then(|name| self.types.tensor(name)).is_some_and(|known| known.dtype == DType::F32)
    }

    fn all_floats(&self, node: &Node) -> Result<(), String> {
        let inputs: Vec<&Name> = node.inputs.iter().flatten().collect();
        match inputs.iter().all(|name| self.is_f32(Some(name))) {
            true if inputs.iter().all(|name| self.constant(name).is_some()) => {
                Err("it reads only constants".to_string())
            }
            true => Ok(()),
            false => Err("it reads other values than floats".to_string()),
        }
    }

    /// Whether it clips from 0 to some number above: what it makes then has its least value at the least integer.
    fn is_clip_from_zero(&self, node: &Node) -> bool {
        let number = |position: usize| {
            let tensor = self.constant(node.input(position)?)?;
            tensor.as_slice::<f32>().ok()?.first().copied()
        };
        number(1) == Some(0.0) && (node.input(2).is_none() || number(2).is_some_and(|high| high > 0.0))
    }

    /// What a node reads as activations.
    fn activations(&self, node_idx: usize) -> Vec<&'a Name> {
        let node = &self.graph.nodes[node_idx];
        let constant = |name: &&Name| self.constant(name).is_some();
        match &self.roles[node_idx] {
            Role::Product { weight, .. } => {
                let is_weight = |position: usize| weight.is_some_and(|(weight, _)| weight == position);
                (0..2).filter(|&position| !is_weight(position)).filter_map(|position| node.input(position)).collect()
            }
            Role::Join => node.inputs.iter().flatten().filter(|name| !constant(name)).collect(),
            Role::Pass | Role::Implied => node.input(0).into_iter().collect(),
            Role::Float => Vec::new(),
        }
    }

    /// The network's inputs are integers at once, and its outputs are asked for.
    fn take_ports(&mut self) {
        let (inputs, outputs) = (self.graph.inputs.iter(), self.graph.outputs.iter());
        let floats = |name: &&'a Name| self.is_f32(Some(name));
        let inputs: Vec<&Name> = inputs.map(|input| &input.name).filter(floats).collect();
        let outputs: Vec<&Name> = outputs.map(|output| &output.name).filter(floats).collect();
        self.reached.extend(inputs);
        self.asked.extend(outputs);
    }

    /// Which values could be integers, from the inputs on.
    fn reach_forward(&mut self) {
        for node_idx in 0..self.graph.nodes.len() {
            let Some(output) = self.graph.nodes[node_idx].output(0) else { continue };
            let reads = self.activations(node_idx);
            match &self.roles[node_idx] {
                Role::Product { .. } => {
                    self.reached.extend(reads);
                    self.reached.insert(output);
                }
                Role::Join | Role::Pass | Role::Implied if self.are_reached(&reads) => {
                    self.reached.insert(output);
                }
                Role::Join | Role::Pass | Role::Implied | Role::Float => {}
            }
        }
    }

    /// Which of them are read as integers, from the outputs on.
    fn ask_backward(&mut self) {
        for node_idx in (0..self.graph.nodes.len()).rev() {
            let Some(output) = self.graph.nodes[node_idx].output(0) else { continue };
            let reads = self.activations(node_idx);
            let (is_asked, are_reached) = (self.asked.contains(output), self.are_reached(&reads));
            match &self.roles[node_idx] {
                Role::Product { .. } => {
                    self.integer.insert(node_idx);
                    self.asked.extend(reads);
                }
                Role::Join if are_reached && (is_asked || self.is_implied_behind(output)) => {
                    self.integer.insert(node_idx);
                    self.asked.extend(reads);
                }
                Role::Pass if are_reached && is_asked => self.asked.extend(reads),
                Role::Join | Role::Pass | Role::Implied | Role::Float => {}
            }
        }
    }

    /// Whether the only reader of a value implies it and is asked for: the value itself then need not be quantized.
    fn is_implied_behind(&self, name: &Name) -> bool {
        self.implied_by(name).is_some_and(|made| self.asked.contains(made))
    }

    /// Whether all these values could be integers.
    fn are_reached(&self, reads: &[&Name]) -> bool {
        reads.iter().all(|name| self.reached.contains(name))
    }

    /// What a Relu or Clip that alone reads a value makes of it.
    fn implied_by(&self, name: &Name) -> Option<&'a Name> {
        let reader = self.uses.sole_reader(name)?;
        // Where zero is in the middle of the integers, negative ones would pass.
        if self.uses.producer(name).is_none_or(|node| self.scheme.activations_of(node).symmetric) {
            return None;
        }
        let is_implied = self.roles[reader.node_idx] == Role::Implied && reader.position == Some(0);
        self.graph.nodes[reader.node_idx].output(0).filter(|_| is_implied)
    }

    fn finish(mut self) -> Result<Plan, QuantizeError> {
        let mut claims = Claims::default();
        let mut one_scale: Vec<Vec<&'a Name>> = Vec::new();
        let mut along = Vec::new();
        for node_idx in 0..self.graph.nodes.len() {
            let node = &self.graph.nodes[node_idx];
            let Some(output) = node.output(0) else { continue };
            let activations = (self.scheme.activations_of(node), self.scheme.has_own_activations(node));
            let reads = self.activations(node_idx);
            let made = self.implied_by(output).unwrap_or(output);
            match &self.roles[node_idx] {
                Role::Pass if self.asked.contains(output) && self.are_reached(&reads) => {
                    let together: Vec<&Name> = reads.into_iter().chain([output]).collect();
                    together.iter().try_for_each(|name| claims.claim(name, activations))?;
                    one_scale.push(together);
                    along.push(node_idx);
                }
                Role::Product { needs_output, .. } => {
                    reads.iter().try_for_each(|name| claims.claim(name, activations))?;
                    if *needs_output || self.asked.contains(made) {
                        claims.claim(made, activations)?;
                    }
                }
                Role::Join if self.integer.contains(&node_idx) => {
                    let together: Vec<&Name> = reads.into_iter().chain([made]).collect();
                    together.iter().try_for_each(|name| claims.claim(name, activations))?;
                    if self.scheme.one_scale.iter().any(|name| name == node.op.name()) {
                        one_scale.push(together);
                    }
                }
                Role::Implied if self.asked.contains(output) => {
                    claims.claim(output, (activations.0, false))?;
                    along.push(node_idx);
                }
                Role::Join => self.float.push(Float {
                    node: node.label(),
                    reason: "not all that it reads are integers, or none that reads it is".to_string(),
                }),
                Role::Pass | Role::Implied | Role::Float => {}
            }
        }
        let mut plan = Plan { float: std::mem::take(&mut self.float), along, ..Plan::default() };
        plan.values = in_order(self.graph, &claims.0, &one_scale);
        let mut integer: Vec<usize> = self.integer.iter().copied().collect();
        integer.sort_unstable();
        for &node_idx in &integer {
            self.constants(node_idx, &mut plan);
        }
        let is_product = |node_idx: &usize| matches!(self.roles[*node_idx], Role::Product { .. });
        plan.products = integer.iter().copied().filter(is_product).collect();
        plan.integer = integer;
        let constants = plan.weights.iter().map(|site| &site.name).chain(plan.biases.iter().map(|site| &site.name));
        check_finite(self.graph, constants)?;
        Ok(plan)
    }

    /// The constants of an integer node.
    fn constants(&self, node_idx: usize, plan: &mut Plan) {
        let node = &self.graph.nodes[node_idx];
        match &self.roles[node_idx] {
            Role::Product { weight: Some((position, axis)), bias, .. } => {
                let weights = self.scheme.weights_of(node);
                let axis = axis.filter(|_| weights.granularity != Granularity::Tensor);
                let named = |position: usize| node.input(position).expect("found before").clone();
                let site = WeightSite { node_idx, position: *position, name: named(*position), axis, weights };
                plan.weights.push(site);
                let input = self.activations(node_idx)[0].clone();
                plan.biases.extend(bias.map(|position| BiasSite {
                    node_idx,
                    position,
                    name: named(position),
                    input,
                    weight: plan.weights.len() - 1,
                }));
            }
            Role::Join => {
                let Activations { dtype, symmetric } = self.scheme.activations_of(node);
                let weights =
                    Weights { dtype, symmetric, granularity: Granularity::Tensor, bits: None, fits_pairs: false };
                for (position, name) in node.inputs.iter().enumerate() {
                    if let Some(name) = name.as_ref().filter(|name| self.constant(name).is_some()) {
                        let site = WeightSite { node_idx, position, name: name.clone(), axis: None, weights };
                        plan.weights.push(site);
                    }
                }
            }
            Role::Product { weight: None, .. } | Role::Pass | Role::Implied | Role::Float => {}
        }
    }
}

/// What nodes want the values to be that they read and make, and whether an exception says so.
#[derive(Default)]
struct Claims<'a>(HashMap<&'a Name, (Activations, bool)>);

impl<'a> Claims<'a> {
    /// The first claim counts, and an exception before all that are none.
    fn claim(&mut self, name: &'a Name, (activations, is_own): (Activations, bool)) -> Result<(), QuantizeError> {
        match self.0.get(name) {
            Some((before, true)) if is_own && *before != activations => {
                let problem = format!("asks for two types of `{name}`, by who makes and by who reads it");
                Err(QuantizeError::Option { option: "override", problem })
            }
            Some((_, before)) if *before || !is_own => Ok(()),
            Some(_) | None => {
                self.0.insert(name, (activations, is_own));
                Ok(())
            }
        }
    }
}

/// That constants hold numbers that integers can stand for.
///
/// # Errors
/// Names the first that does not.
pub(super) fn check_finite<'a>(graph: &Graph, names: impl Iterator<Item = &'a Name>) -> Result<(), QuantizeError> {
    for name in names {
        let is_finite = graph.initializers[name].as_slice::<f32>()?.iter().all(|x| x.is_finite());
        if !is_finite {
            return Err(QuantizeError::Constant { name: name.clone() });
        }
    }
    Ok(())
}

/// Whether a bias has a number for each channel of a weight, along its last axis.
fn is_by_channel(bias: &Tensor, weight: &Tensor, axis: usize) -> bool {
    let n_channels = weight.shape().get(axis).copied();
    bias.shape().last().copied() == n_channels && Some(bias.len()) == n_channels
}

/// The values in the order in which they are made, those of one scale with one number and the type of the first of them.
fn in_order(
    graph: &Graph,
    claims: &HashMap<&Name, (Activations, bool)>,
    one_scale: &[Vec<&Name>],
) -> IndexMap<Name, Quantized> {
    let order: Vec<&Name> = graph.value_names().filter(|name| claims.contains_key(name)).collect();
    let mut group_of: BTreeMap<&Name, usize> = order.iter().enumerate().map(|(idx, name)| (*name, idx)).collect();
    for names in one_scale {
        let groups: Vec<usize> = names.iter().filter_map(|name| group_of.get(*name).copied()).collect();
        let Some(&least) = groups.iter().min() else { continue };
        group_of.values_mut().filter(|group| groups.contains(group)).for_each(|group| *group = least);
    }
    let quantized = |name: &&Name| {
        let group = group_of[*name];
        Quantized { activations: claims[order[group]].0, group }
    };
    order.iter().map(|name| ((*name).clone(), quantized(name))).collect()
}
