//! Dynamic quantization: weights are integers in the file, activations become integers as they come, over the range that they
//! have there and then. No samples are needed.
//!
//! A product is `DynamicQuantizeLinear`, `MatMulInteger` (or `ConvInteger`), a `Cast`, the product of both scales and what is
//! added: the shape that onnxruntime fuses into one operator. All readers of an activation share its `DynamicQuantizeLinear`.

mod lstm;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use super::QuantizeError;
use super::dense::{Dense, Key, Narrowed, constant, floats, reads_floats};
use super::insert::named;
use super::parameters::{QuantizedConstant, quantize_constant};
use super::plan::Float;
use super::scheme::{Granularity, Scheme, Weights};
use super::weights::store_others;
use crate::graph::op::{self, Cast, Op, RoundMode};
use crate::graph::patch::{Patch, Place};
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node};

/// The operators that it knows.
pub const OPERATORS: [&str; 4] = ["Conv", "Gemm", "LSTM", "MatMul"];

/// A simplified network whose operators of the scheme compute on integers, their activations quantized as they come. An `LSTM`
/// becomes com.microsoft's `DynamicQuantizeLSTM`. What else has weights keeps them narrow in the file and computes in floats.
///
/// # Errors
/// When the scheme cannot be carried out, one of its patterns means no node, or no node is left to quantize.
pub fn dynamic(graph: &Graph, types: &Types, scheme: &Scheme) -> Result<Narrowed, QuantizeError> {
    scheme.check()?;
    if let Some(pattern) = scheme.idle_patterns(&graph.nodes).first() {
        return Err(QuantizeError::Pattern { pattern: pattern.to_string() });
    }
    let mut lowering = Lowering {
        graph,
        types,
        uses: Uses::of(graph),
        patch: Patch::new(graph),
        activations: HashMap::new(),
        matrices: HashMap::new(),
    };
    let (mut integer, mut float, mut n_weights) = (Vec::new(), Vec::new(), 0);
    let is_asked = |op: &Op| scheme.has(op) && OPERATORS.contains(&op.name());
    for (node_idx, node) in graph.nodes.iter().enumerate().filter(|(_, node)| is_asked(&node.op)) {
        let lowered = match scheme.excludes(node) {
            Some(pattern) => Err(format!("excluded by `{pattern}`")),
            None => check_weights(scheme.weights_of(node)).and_then(|weights| lowering.lower(node, weights)),
        };
        match lowered {
            Ok(nodes) => {
                n_weights += if matches!(node.op, Op::LSTM(_)) { 2 } else { 1 };
                lowering.patch.replace(node_idx, nodes);
                integer.push(node_idx);
            }
            Err(reason) => float.push(Float { node: node.label(), reason }),
        }
    }
    let mut patch = lowering.patch;
    n_weights += store_others(&mut patch, graph, types, scheme, &integer)?;
    patch.remove_unused_initializers();
    Narrowed { graph: patch.apply(Some(types))?, integer, n_weights, float }.checked()
}

/// Weights that a product of integers takes.
fn check_weights(weights: Weights) -> Result<Weights, String> {
    match weights.granularity {
        Granularity::Block(_) => Err("its weights are to have scales by block".to_string()),
        Granularity::Channel if !weights.symmetric => {
            Err("its weights are to have a zero point for each channel".to_string())
        }
        _ if weights.dtype.n_bits() != 8 => Err("its weights are to have other than eight bits".to_string()),
        Granularity::Channel | Granularity::Tensor => Ok(weights),
    }
}

/// What a `DynamicQuantizeLinear` makes of an activation.
#[derive(Clone)]
struct Activation {
    integers: Name,
    scale: Name,
    zero_point: Name,
}

/// A weight as it stands in the file.
#[derive(Clone)]
struct Stored {
    integers: Name,
    scale: Name,
    /// None for zero.
    zero_point: Option<Name>,
}

struct Lowering<'a> {
    graph: &'a Graph,
    types: &'a Types,
    uses: Uses<'a>,
    patch: Patch,
    activations: HashMap<Name, Activation>,
    matrices: HashMap<Key, Stored>,
}

impl Lowering<'_> {
    /// What takes a node's place; in words why nothing does.
    fn lower(&mut self, node: &Node, weights: Weights) -> Result<Vec<Node>, String> {
        match &node.op {
            Op::MatMul | Op::Gemm(_) => self.dense(node, weights),
            Op::Conv(conv) => self.conv(node, conv, weights),
            Op::LSTM(lstm) => lstm::lower(self.graph, self.types, &mut self.patch, node, lstm, weights),
            _ => Err("it has no form on integers that are made as they come".to_string()),
        }
    }

    fn dense(&mut self, node: &Node, weights: Weights) -> Result<Vec<Node>, String> {
        let dense = Dense::of(self.graph, self.types, node)?;
        let bias = dense.bias.as_ref().map(|bias| bias.name(&mut self.patch));
        let key = (dense.key.clone(), weights);
        let stored = match self.matrices.get(&key) {
            Some(stored) => stored.clone(),
            None => {
                let axis = dense.channels().filter(|_| weights.granularity == Granularity::Channel);
                let quantized = quantized(&dense.weight, axis, weights)?;
                let stored = self.stored(&key.0.0, &quantized, quantized.scales.clone(), weights)?;
                self.matrices.insert(key, stored.clone());
                stored
            }
        };
        let x = self.activation(&dense.activation);
        Ok(self.product(node, Op::MatMulInteger, &x, &stored, bias))
    }

    fn conv(&mut self, node: &Node, conv: &op::Conv, weights: Weights) -> Result<Vec<Node>, String> {
        if !reads_floats(self.graph, self.types, node, 0) {
            return Err("its first input is no activation of floats".to_string());
        }
        let (x, name) = (node.input(0).expect("it reads floats"), node.input(1).ok_or("it has no weight")?);
        let weight = floats(self.graph, node, 1)?;
        let [n_channels, inner @ ..] = weight.shape() else { return Err("its weight is a scalar".to_string()) };
        // Along axis 1 of what it makes: [1, channels, 1, 1].
        let mut by_channel = vec![1, *n_channels];
        by_channel.resize(inner.len() + 1, 1);
        let bias = match node.input(2) {
            None => None,
            Some(bias) => {
                let tensor = constant(self.graph, node, 2).ok_or("its bias is no constant")?;
                let spread = tensor.reshaped(&by_channel[..]).map_err(|error| error.to_string())?;
                Some(self.patch.add_initializer(&format!("{bias}_spread"), spread))
            }
        };
        let axis = (weights.granularity == Granularity::Channel).then_some(0);
        let quantized = quantized(weight, axis, weights)?;
        let scales = match axis {
            Some(_) => quantized.scales.reshaped(&by_channel).map_err(|error| error.to_string())?,
            None => quantized.scales.clone(),
        };
        let stored = self.stored(name, &quantized, scales, weights)?;
        let x = self.activation(x);
        Ok(self.product(node, Op::ConvInteger(conv.clone()), &x, &stored, bias))
    }

    /// Integers, scale and zero point of a weight as initializers.
    fn stored(
        &mut self,
        name: &Name,
        quantized: &QuantizedConstant,
        scales: Tensor,
        weights: Weights,
    ) -> Result<Stored, String> {
        let zero_point = match weights.symmetric && weights.dtype.is_signed() {
            true => None,
            // All the same: those that differ by channel are not symmetric, and refused.
            false => {
                let bytes = quantized.zero_points.bytes().and_then(|bytes| bytes.get(..1)).unwrap_or(&[0]);
                let zero = Tensor::from_bytes(weights.dtype.dtype(), &[], bytes.to_vec().into());
                let zero = zero.map_err(|error| error.to_string())?;
                Some(self.patch.add_initializer(&format!("{name}_zero_point"), zero))
            }
        };
        Ok(Stored {
            integers: self.patch.add_initializer(&format!("{name}_quantized"), quantized.integers.clone()),
            scale: self.patch.add_initializer(&format!("{name}_scale"), scales),
            zero_point,
        })
    }

    /// An activation's integers, made once behind what makes the activation.
    fn activation(&mut self, name: &Name) -> Activation {
        if let Some(known) = self.activations.get(name) {
            return known.clone();
        }
        let mut fresh = |what| self.patch.fresh(&format!("{name}_{what}"));
        let made = Activation { integers: fresh("quantized"), scale: fresh("scale"), zero_point: fresh("zero_point") };
        let mut node = named(Op::DynamicQuantizeLinear, vec![Some(name.clone())], &made.integers);
        node.outputs.extend([Some(made.scale.clone()), Some(made.zero_point.clone())]);
        let place = self.uses.producer_idx(name).map_or(Place::Before(0), Place::After);
        self.patch.insert(place, node);
        self.activations.insert(name.clone(), made.clone());
        made
    }

    /// The product of integers in place of a node, scaled, and added to.
    fn product(&mut self, node: &Node, op: Op, x: &Activation, w: &Stored, bias: Option<Name>) -> Vec<Node> {
        let output = node.output(0).cloned().unwrap_or_else(|| self.patch.fresh("product"));
        let mut fresh = |what| self.patch.fresh(&format!("{output}_{what}"));
        let (sums, floats, scale) = (fresh("sums"), fresh("cast"), fresh("scale"));
        let scaled = if bias.is_some() { fresh("scaled") } else { output.clone() };
        let some = |names: [&Name; 2]| names.map(|name| Some(name.clone())).to_vec();
        let mut inputs = some([&x.integers, &w.integers]);
        inputs.push(Some(x.zero_point.clone()));
        inputs.extend(w.zero_point.clone().map(Some));
        let cast = Op::Cast(Cast { to: DType::F32, saturate: true, round_mode: RoundMode::Up });
        let mut nodes = vec![
            named(op, inputs, &sums),
            named(cast, vec![Some(sums)], &floats),
            named(Op::Mul, some([&x.scale, &w.scale]), &scale),
            named(Op::Mul, some([&floats, &scale]), &scaled),
        ];
        nodes.extend(bias.map(|bias| named(Op::Add, some([&scaled, &bias]), &output)));
        if let Some(last) = nodes.last_mut() {
            last.name.clone_from(&node.name);
            last.notes.clone_from(&node.notes);
        }
        nodes
    }
}

fn quantized(weight: &Tensor, axis: Option<usize>, weights: Weights) -> Result<QuantizedConstant, String> {
    let granularity = if axis.is_some() { Granularity::Channel } else { Granularity::Tensor };
    quantize_constant(weight, axis, Weights { granularity, ..weights }).map_err(|error| error.to_string())
}
