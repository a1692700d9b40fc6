//! QuantizeLinear and DequantizeLinear into a graph, where a plan says and with scales from ranges: the form that ONNX runtimes
//! recognise and fuse into integer kernels.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::QuantizeError;
use super::calibrate::Ranges;
use super::calibrator::Calibrator;
use super::pairs;
use super::parameters::{Parameters, QuantizedConstant, integer_tensor, of_constant, with_parameters};
use super::plan::{BiasSite, Plan, plan};
use super::scheme::Scheme;
use crate::graph::op::{DequantizeLinear, QuantizeLinear};
use crate::graph::patch::{Patch, Place};
use crate::graph::shape::Types;
use crate::graph::tensor::Tensor;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, Op};

/// Scales and zero points of everything in a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Scales {
    /// By value.
    pub activations: IndexMap<Name, Parameters>,
    /// By weight, in the order of the plan.
    pub weights: Vec<Vec<Parameters>>,
}

/// Those whose integers cover the range of each value, and of each channel of a weight all its numbers.
///
/// # Errors
/// When a value of the plan has no range, or a constant no numbers.
pub fn scales(graph: &Graph, plan: &Plan, bounds: &IndexMap<Name, (f32, f32)>) -> Result<Scales, QuantizeError> {
    let mut activations = IndexMap::new();
    for (name, quantized) in &plan.values {
        let remedy = "calibrate the network as it is quantized";
        let range = bounds.get(name).copied().ok_or_else(|| QuantizeError::NoRange { value: name.clone(), remedy })?;
        activations.insert(name.clone(), Parameters::of_range(range, quantized.activations));
    }
    let weights = plan.weights.iter().enumerate().map(|(weight_idx, site)| {
        let least = least_scales(graph, plan, weight_idx, &activations)?;
        let at = |channel: usize| least.get(channel).copied().unwrap_or(0.0);
        Ok(of_constant(&graph.initializers[&site.name], site.axis, site.weights, at)?)
    });
    let weights = weights.collect::<Result<_, QuantizeError>>()?;
    Ok(Scales { activations, weights })
}

/// For each scale of a weight the least with which its bias fits 32 bits and, where the scheme asks for it, its pairs fit 16; none where
/// there is no bound.
pub(super) fn least_scales(
    graph: &Graph,
    plan: &Plan,
    weight_idx: usize,
    activations: &IndexMap<Name, Parameters>,
) -> Result<Vec<f64>, QuantizeError> {
    let site = &plan.weights[weight_idx];
    let of_pairs = match site.weights.fits_pairs {
        true => pairs::least_scales(&graph.nodes[site.node_idx].op, &graph.initializers[&site.name], site.axis)?,
        false => Vec::new(),
    };
    let of_bias = match plan.biases.iter().find(|bias| bias.weight == weight_idx) {
        Some(bias) => bias_scales(graph, bias, site.axis, f64::from(activations[&bias.input].scale))?,
        None => Vec::new(),
    };
    let n_scales = of_pairs.len().max(of_bias.len());
    let at = |scales: &[f64], idx: usize| scales.get(idx).copied().unwrap_or(0.0);
    Ok((0..n_scales).map(|idx| at(&of_pairs, idx).max(at(&of_bias, idx))).collect())
}

/// For each scale of a weight the least with which its bias fits 32 bits.
fn bias_scales(
    graph: &Graph,
    bias: &BiasSite,
    axis: Option<usize>,
    input_scale: f64,
) -> Result<Vec<f64>, QuantizeError> {
    /// What a bias may be in integers: half of what fits, the other half for what it is added to.
    const MOST: f64 = (1u64 << 30) as f64;
    let numbers = graph.initializers[&bias.name].as_slice::<f32>()?;
    let by_channel: Vec<f64> = numbers.iter().map(|b| f64::from(b.abs()) / input_scale / MOST).collect();
    match axis {
        Some(_) => Ok(by_channel),
        None => Ok(vec![by_channel.into_iter().fold(0.0, f64::max)]),
    }
}

/// A network in the integers of a scheme, by what was seen of its values.
///
/// # Errors
/// As [`plan`](super::plan()) and [`Ranges::bounds`].
pub(super) fn quantized(
    graph: &Graph,
    types: &Types,
    scheme: &Scheme,
    ranges: &Ranges,
    calibrator: Calibrator,
) -> Result<Graph, QuantizeError> {
    let plan = plan(graph, types, scheme)?;
    let bounds = ranges.bounds(&plan.values, calibrator)?;
    insert(graph, &plan, &scales(graph, &plan, &bounds)?)
}

/// The network with its values quantized. Its inputs and outputs stay as they are.
///
/// # Errors
/// When the scales are not those of the plan.
pub fn insert(graph: &Graph, plan: &Plan, scales: &Scales) -> Result<Graph, QuantizeError> {
    let mut inserter = Inserter::new(graph, plan, scales);
    inserter.constants()?;
    inserter.activations()?;
    inserter.finish()
}

pub(super) struct Inserter<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    scales: &'a Scales,
    uses: Uses<'a>,
    pub(super) patch: Patch,
    /// What nodes read instead, by node and input.
    pub(super) inputs: BTreeMap<usize, BTreeMap<usize, Name>>,
}

impl<'a> Inserter<'a> {
    pub(super) fn new(graph: &'a Graph, plan: &'a Plan, scales: &'a Scales) -> Inserter<'a> {
        let (uses, patch) = (Uses::of(graph), Patch::new(graph));
        Inserter { graph, plan, scales, uses, patch, inputs: BTreeMap::new() }
    }

    /// Weights and biases as integers behind a DequantizeLinear. A constant that is read in several places with the same
    /// result stands once.
    fn constants(&mut self) -> Result<(), QuantizeError> {
        let mut made: Vec<(&Name, QuantizedConstant, Name)> = Vec::new();
        for (weight_idx, site) in self.plan.weights.iter().enumerate() {
            let constant = &self.graph.initializers[&site.name];
            let quantized = with_parameters(constant, site.axis, site.weights, &self.scales.weights[weight_idx])?;
            let same = made.iter().find(|(name, other, _)| *name == &site.name && *other == quantized);
            let dequantized = match same.map(|(.., dequantized)| dequantized.clone()) {
                Some(dequantized) => dequantized,
                None => {
                    let dequantized = dequantized(&mut self.patch, &site.name, &quantized);
                    made.push((&site.name, quantized.clone(), dequantized.clone()));
                    dequantized
                }
            };
            self.inputs.entry(site.node_idx).or_default().insert(site.position, dequantized);
            if let Some(bias) = self.plan.biases.iter().find(|bias| bias.weight == weight_idx) {
                let dequantized = self.bias(bias, &quantized)?;
                self.inputs.entry(bias.node_idx).or_default().insert(bias.position, dequantized);
            }
        }
        Ok(())
    }

    /// A bias as 32-bit integers whose scale is the product of those of what it is added to.
    fn bias(&mut self, site: &BiasSite, weight: &QuantizedConstant) -> Result<Name, QuantizeError> {
        let bias = self.graph.initializers[&site.name].clone();
        let input_scale = self.scales.activations[&site.input].scale;
        let scales: Vec<f32> = weight.scales.as_slice::<f32>()?.iter().map(|scale| scale * input_scale).collect();
        let numbers = bias.as_slice::<f32>()?;
        let integers: Vec<i32> = numbers
            .iter()
            .enumerate()
            .map(|(channel, &b)| {
                let scale = scales[if scales.len() == 1 { 0 } else { channel }];
                (f64::from(b) / f64::from(scale)).round_ties_even() as i32
            })
            .collect();
        let axis = weight.axis.map(|_| bias.rank() - 1);
        let quantized = QuantizedConstant {
            integers: Tensor::new(bias.shape(), integers)?,
            zero_points: Tensor::new(weight.scales.shape(), vec![0i32; scales.len()])?,
            scales: Tensor::new(weight.scales.shape(), scales)?,
            axis,
            block: None,
        };
        Ok(dequantized(&mut self.patch, &site.name, &quantized))
    }

    /// A QuantizeLinear behind what makes each value, and a DequantizeLinear that all its readers read.
    /// Gives the names of the scales, by group.
    pub(super) fn activations(&mut self) -> Result<IndexMap<usize, Name>, QuantizeError> {
        let mut scales: IndexMap<usize, (Name, Name)> = IndexMap::new();
        for (name, quantized) in &self.plan.values {
            let Parameters { scale, zero_point } = self.scales.activations[name];
            let dtype = quantized.activations.dtype;
            // Runtimes compare the names of scales, not only their numbers, to see that both sides of a Reshape have one.
            let (scale, zero_point) = match scales.get(&quantized.group) {
                Some(names) => names.clone(),
                None => {
                    let zero = integer_tensor(dtype, &[], &[zero_point])?;
                    let scale = self.patch.add_initializer(&format!("{name}_scale"), Tensor::scalar(scale));
                    let zero = self.patch.add_initializer(&format!("{name}_zero_point"), zero);
                    scales.insert(quantized.group, (scale.clone(), zero.clone()));
                    (scale, zero)
                }
            };
            let integers = self.patch.fresh(&format!("{name}_quantized"));
            let floats = self.patch.fresh(&format!("{name}_dequantized"));
            let reads = |x: &Name| vec![Some(x.clone()), Some(scale.clone()), Some(zero_point.clone())];
            let quantize = QuantizeLinear::default();
            let dequantize = DequantizeLinear::default();
            let place = self.uses.producer_idx(name).map_or(Place::Before(0), Place::After);
            let quantize = named(Op::QuantizeLinear(quantize), reads(name), &integers);
            let dequantize = named(Op::DequantizeLinear(dequantize), reads(&integers), &floats);
            // What is inserted after a node comes in the order of its insertion.
            self.patch.insert(place, quantize);
            self.patch.insert(place, dequantize);
            for reader in self.uses.readers(name) {
                if let Some(position) = reader.position
                    && self.inputs.contains_key(&reader.node_idx)
                {
                    self.inputs.entry(reader.node_idx).or_default().insert(position, floats.clone());
                }
            }
            self.patch.replace_uses(name, &floats);
        }
        Ok(scales.into_iter().map(|(group, (scale, _))| (group, scale)).collect())
    }

    pub(super) fn finish(mut self) -> Result<Graph, QuantizeError> {
        for (node_idx, inputs) in &self.inputs {
            let mut node = self.graph.nodes[*node_idx].clone();
            for (position, name) in inputs {
                node.inputs[*position] = Some(name.clone());
            }
            self.patch.replace(*node_idx, vec![node]);
        }
        self.patch.remove_unused_initializers();
        Ok(self.patch.apply(None)?)
    }
}

/// A constant's integers, scales and zero points as initializers, and the node that makes floats of them.
pub(super) fn dequantized(patch: &mut Patch, name: &Name, quantized: &QuantizedConstant) -> Name {
    let QuantizedConstant { integers, scales, zero_points, axis, .. } = quantized;
    let integers = patch.add_initializer(&format!("{name}_quantized"), integers.clone());
    let scale = patch.add_initializer(&format!("{name}_scale"), scales.clone());
    let zero_point = patch.add_initializer(&format!("{name}_zero_point"), zero_points.clone());
    let block_size = block_size(quantized);
    let axis =
        axis.map_or(DequantizeLinear::default().axis, |axis| i64::try_from(axis).expect("a tensor has few axes"));
    let op = DequantizeLinear { axis, block_size, ..DequantizeLinear::default() };
    let floats = patch.fresh(&format!("{name}_dequantized"));
    let inputs = vec![Some(integers), Some(scale), Some(zero_point)];
    patch.insert(Place::Before(0), named(Op::DequantizeLinear(op), inputs, &floats));
    floats
}

/// Elements of a block; 0 where scales are not by block.
fn block_size(quantized: &QuantizedConstant) -> i64 {
    quantized.block.map_or(0, |block| i64::try_from(block).unwrap_or(i64::MAX))
}

pub(super) fn named(op: Op, inputs: Vec<Option<Name>>, output: &Name) -> Node {
    let mut node = Node::new(op, inputs, vec![Some(output.clone())]);
    node.name = output.to_string();
    node
}
