//! A whole network: products of integers by the arithmetic of the machine, everything else by the reference.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use rayon::prelude::*;
use serde::Serialize;

use super::product::{Product, Values, View};
use super::{Arithmetic, IntegerError, Pairs, Rounding};
use crate::graph::eval;
use crate::graph::op::Op;
use crate::graph::shape::{self, Bindings};
use crate::graph::tensor::Tensor;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, ValueInfo};

/// A network as a machine computes it.
#[derive(Clone, Debug)]
pub struct Network {
    graph: Graph,
    steps: Vec<Step>,
    rounding: Rounding,
    refusal: Option<IntegerError>,
}

/// A node, and the values that nothing needs after it.
#[derive(Clone, Debug)]
struct Step {
    node: Node,
    product: Option<Product>,
    dead: Vec<Name>,
}

/// Products of a node in pairs that saturate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Saturation {
    /// The node.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Pairs of its weights.
    pub n_pairs: usize,
    /// Pairs of them that some activations make saturate.
    pub n_saturable: usize,
    /// Sums of pairs that were computed.
    pub n_sums: u64,
    /// Sums of them that saturated.
    pub n_saturated: u64,
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The outputs, in their order.
    pub outputs: IndexMap<Name, Tensor>,
    /// The products of integers with constant weights, in their order.
    pub saturation: Vec<Saturation>,
}

impl Network {
    /// Gets a network ready. Products of integers are the operators on integers (`QLinearConv`, `QLinearMatMul`, `QGemm`,
    /// `MatMulInteger`), and products of dequantized integers that onnxruntime computes on the integers and gives as floats.
    /// `shifts` says that the machine takes signed activations as unsigned ones with another zero point.
    ///
    /// # Errors
    /// When weights do not fit their node.
    pub fn new(graph: &Graph, arithmetic: Arithmetic, shifts: bool) -> Result<Network, IntegerError> {
        let uses = Uses::of(graph);
        let types = shape::infer(graph, &Bindings::default()).ok();
        let view = View { graph, uses: &uses, types: types.as_ref(), shifts };
        let mut products = HashMap::new();
        for (node_idx, node) in graph.nodes.iter().enumerate() {
            let invalid = |problem| IntegerError::Invalid { node: node.label(), problem };
            if let Some(product) = Product::of(&view, node, arithmetic).map_err(invalid)? {
                products.insert(node_idx, product);
            }
        }
        let refusal = graph.nodes.iter().find_map(|node| expect_known(node, arithmetic).err());
        let steps = schedule(graph, products);
        Ok(Network { graph: graph.clone(), steps, rounding: arithmetic.rounding, refusal })
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// When a node computes in a way that is not known of the machine.
    pub fn check(&self) -> Result<(), IntegerError> {
        self.refusal.clone().map_or(Ok(()), Err)
    }

    /// Computes the outputs, and counts what saturates on the way.
    ///
    /// # Errors
    /// As [`check`](Network::check); when an input is missing, or does not fit.
    pub fn run(&self, inputs: &IndexMap<Name, Tensor>) -> Result<Ran, IntegerError> {
        self.check()?;
        let mut state = State { graph: &self.graph, values: HashMap::new() };
        state.values.extend(inputs.iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
        for (name, tensor) in &self.graph.sparse_initializers {
            let dense = eval::densify(tensor).map_err(|error| reference(name.to_string(), error))?;
            state.values.insert(name.clone(), dense);
        }
        let mut counts = Vec::new();
        for step in &self.steps {
            let (outputs, counted) = self.compute(step, &state)?;
            counts.push(counted);
            let named = step.node.outputs.iter().zip(outputs);
            state.values.extend(named.filter_map(|(name, tensor)| Some((name.clone()?, tensor?))));
            step.dead.iter().for_each(|name| drop(state.values.remove(name)));
        }
        let output = |output: &ValueInfo| -> Result<(Name, Tensor), IntegerError> {
            let tensor = state.get(&output.name).map_err(IntegerError::NoValue)?;
            Ok((output.name.clone(), tensor.clone()))
        };
        let outputs = self.graph.outputs.iter().map(output);
        Ok(Ran { outputs: outputs.collect::<Result<_, _>>()?, saturation: self.saturation_of(&counts) })
    }

    /// The products with constant weights and what can saturate in them, before anything ran.
    pub fn saturation(&self) -> Vec<Saturation> {
        self.saturation_of(&[])
    }

    fn saturation_of(&self, counts: &[[u64; 2]]) -> Vec<Saturation> {
        let of = |(place, step): (usize, &Step)| {
            let (n_saturable, n_pairs) = step.product.as_ref()?.n_saturable();
            let [n_saturated, n_sums] = counts.get(place).copied().unwrap_or_default();
            let (node, operator) = (step.node.label(), step.node.op.name().to_string());
            Some(Saturation { node, operator, n_pairs, n_saturable, n_sums, n_saturated })
        };
        self.steps.iter().enumerate().filter_map(of).collect()
    }

    fn compute(&self, step: &Step, state: &State<'_>) -> Result<(Vec<Option<Tensor>>, [u64; 2]), IntegerError> {
        let node = &step.node;
        let invalid = |problem| IntegerError::Invalid { node: node.label(), problem };
        if let Some(product) = &step.product {
            let (tensor, counts) = product.compute(state).map_err(invalid)?;
            return Ok((vec![Some(tensor)], counts));
        }
        let input = |name: &Option<Name>| name.as_ref().map(|name| state.get(name).cloned()).transpose();
        let inputs = node.inputs.iter().map(input).collect::<Result<Vec<_>, _>>().map_err(IntegerError::NoValue)?;
        if let Some(quantized) = self.quantized(&node.op, &inputs)? {
            return Ok((vec![Some(quantized)], [0, 0]));
        }
        let outputs = eval::operator(&node.op, &inputs, node.outputs.len());
        Ok((outputs.map_err(|error| reference(node.label(), error))?, [0, 0]))
    }

    /// Floats as bytes of one scale, rounded as the machine does.
    fn quantized(&self, op: &Op, inputs: &[Option<Tensor>]) -> Result<Option<Tensor>, IntegerError> {
        let (Op::QuantizeLinear(_), [Some(x), Some(scale), Some(zero_point)]) = (op, inputs) else { return Ok(None) };
        let (Ok(numbers), Ok(&[scale])) = (x.as_slice::<f32>(), scale.as_slice::<f32>()) else { return Ok(None) };
        let rounded = |zero_point: f32, least: f32, greatest: f32| {
            let quantize = move |number: &f32| {
                let quotient = number / scale;
                let clamped = quotient.max(least - zero_point).min(greatest - zero_point);
                self.rounding.round(clamped) + zero_point
            };
            numbers.par_iter().map(quantize)
        };
        let (shape, unsigned, signed) = (x.shape(), zero_point.as_slice::<u8>(), zero_point.as_slice::<i8>());
        Ok(match (unsigned, signed) {
            (Ok(&[zero]), _) => {
                Some(Tensor::new(shape, rounded(zero.into(), 0.0, 255.0).map(|byte| byte as u8).collect())?)
            }
            (_, Ok(&[zero])) => {
                Some(Tensor::new(shape, rounded(zero.into(), -128.0, 127.0).map(|byte| byte as i8).collect())?)
            }
            _ => None,
        })
    }
}

/// What is at hand while a network runs.
struct State<'a> {
    graph: &'a Graph,
    values: HashMap<Name, Tensor>,
}

impl Values for State<'_> {
    fn get(&self, name: &Name) -> Result<&Tensor, String> {
        self.values
            .get(name)
            .or_else(|| self.graph.initializers.get(name))
            .ok_or_else(|| format!("`{name}` has no value"))
    }
}

fn reference(node: String, source: eval::EvalError) -> IntegerError {
    IntegerError::Reference { node, source: Box::new(source) }
}

/// Refuses what would quietly be computed in another way than the machine does.
fn expect_known(node: &Node, arithmetic: Arithmetic) -> Result<(), IntegerError> {
    let unsupported =
        |problem: &str| Err(IntegerError::Unsupported { node: node.label(), problem: problem.to_string() });
    match &node.op {
        Op::DynamicQuantizeLSTM(_) if arithmetic.pairs != Pairs::Exact => {
            unsupported("how this machine sums in DynamicQuantizeLSTM is not known; run the file on the machine itself")
        }
        op if !op.bodies().is_empty() => {
            unsupported("branches and bodies are not computed as another machine would; simplify them away")
        }
        _ => Ok(()),
    }
}

/// The nodes that the outputs need, in order.
fn schedule(graph: &Graph, mut products: HashMap<usize, Product>) -> Vec<Step> {
    let mut needed: HashSet<Name> = graph.outputs.iter().map(|output| output.name.clone()).collect();
    let mut steps = Vec::new();
    for (node_idx, node) in graph.nodes.iter().enumerate().rev() {
        if !node.outputs.iter().flatten().any(|name| needed.contains(name)) {
            continue;
        }
        let product = products.remove(&node_idx);
        let reads: Vec<Name> = match &product {
            Some(product) => product.reads().cloned().collect(),
            None => node.reads().cloned().collect(),
        };
        let unread = node.outputs.iter().flatten().filter(|name| !needed.contains(*name));
        let mut dead: Vec<Name> = unread.cloned().collect();
        dead.extend(reads.into_iter().filter(|name| needed.insert(name.clone())));
        steps.push(Step { node: node.clone(), product, dead });
    }
    steps.reverse();
    steps
}
