//! QuantizeLinear and DequantizeLinear into a graph, where a plan says and with scales from ranges: the form that ONNX runtimes
//! recognise and fuse into integer kernels.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::QuantizeError;
use super::parameters::{Parameters, QuantizedConstant, quantize_constant};
use super::plan::{BiasSite, Plan, WeightSite};
use crate::graph::op::{DequantizeLinear, QuantizeLinear};
use crate::graph::patch::{Patch, Place};
use crate::graph::tensor::Tensor;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, Op};

/// The network with its values quantized, `bounds` being the range of each value of the plan. Its inputs and outputs stay as they
/// are.
///
/// # Errors
/// When a value of the plan has no range.
pub fn insert(graph: &Graph, plan: &Plan, bounds: &IndexMap<Name, (f32, f32)>) -> Result<Graph, QuantizeError> {
    let mut inserter = Inserter {
        graph,
        plan,
        uses: Uses::of(graph),
        patch: Patch::new(graph),
        inputs: BTreeMap::new(),
        parameters: IndexMap::new(),
    };
    for (name, quantized) in &plan.values {
        let range = bounds.get(name).copied();
        let remedy = "calibrate the network as it is quantized";
        let range = range.ok_or_else(|| QuantizeError::NoRange { value: name.clone(), remedy })?;
        inserter.parameters.insert(name, Parameters::of_range(range, quantized.activations));
    }
    inserter.constants()?;
    inserter.activations()?;
    inserter.finish()
}

struct Inserter<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    uses: Uses<'a>,
    patch: Patch,
    /// What nodes read instead, by node and input.
    inputs: BTreeMap<usize, BTreeMap<usize, Name>>,
    parameters: IndexMap<&'a Name, Parameters>,
}

impl Inserter<'_> {
    /// Weights and biases as integers behind a DequantizeLinear. A constant that is read in several places with the same
    /// result stands once.
    fn constants(&mut self) -> Result<(), QuantizeError> {
        let mut made: Vec<(&Name, QuantizedConstant, Name)> = Vec::new();
        for (weight_idx, site) in self.plan.weights.iter().enumerate() {
            let quantized = self.weight(weight_idx, site)?;
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

    /// A weight's integers, its scales so large that the bias fits 32 bits.
    fn weight(&self, weight_idx: usize, site: &WeightSite) -> Result<QuantizedConstant, QuantizeError> {
        /// What a bias may be in integers: half of what fits, the other half for what it is added to.
        const MOST: f64 = (1u64 << 30) as f64;
        let bias = self.plan.biases.iter().find(|bias| bias.weight == weight_idx);
        let least = match bias {
            None => Vec::new(),
            Some(bias) => {
                let scale = f64::from(self.parameters[&bias.input].scale);
                let numbers = self.graph.initializers[&bias.name].as_slice::<f32>()?;
                numbers.iter().map(|b| f64::from(b.abs()) / scale / MOST).collect()
            }
        };
        let greatest = least.iter().copied().fold(0.0, f64::max);
        let at =
            |channel: usize| if site.axis.is_some() { least.get(channel).copied().unwrap_or(0.0) } else { greatest };
        Ok(quantize_constant(&self.graph.initializers[&site.name], site.axis, site.weights, at)?)
    }

    /// A bias as 32-bit integers whose scale is the product of those of what it is added to.
    fn bias(&mut self, site: &BiasSite, weight: &QuantizedConstant) -> Result<Name, QuantizeError> {
        let bias = self.graph.initializers[&site.name].clone();
        let input_scale = self.parameters[&site.input].scale;
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
        };
        Ok(dequantized(&mut self.patch, &site.name, &quantized))
    }

    /// A QuantizeLinear behind what makes each value, and a DequantizeLinear that all its readers read.
    fn activations(&mut self) -> Result<(), QuantizeError> {
        let mut scales: IndexMap<usize, (Name, Name)> = IndexMap::new();
        for (name, quantized) in &self.plan.values {
            let Parameters { scale, zero_point } = self.parameters[name];
            let dtype = quantized.activations.dtype;
            // Runtimes compare the names of scales, not only their numbers, to see that both sides of a Reshape have one.
            let (scale, zero_point) = match scales.get(&quantized.group) {
                Some(names) => names.clone(),
                None => {
                    let zero = super::parameters::integer_tensor(dtype, &[], &[zero_point])?;
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
        Ok(())
    }

    fn finish(mut self) -> Result<Graph, QuantizeError> {
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
fn dequantized(patch: &mut Patch, name: &Name, quantized: &QuantizedConstant) -> Name {
    let QuantizedConstant { integers, scales, zero_points, axis } = quantized;
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
pub(super) fn block_size(quantized: &QuantizedConstant) -> i64 {
    let (whole, scales) = (quantized.integers.shape(), quantized.scales.shape());
    match quantized.axis {
        Some(axis) if scales.len() == whole.len() && scales.len() > 1 => {
            i64::try_from(whole[axis].div_ceil(scales[axis].max(1))).expect("no larger than a tensor")
        }
        Some(_) | None => 0,
    }
}

pub(super) fn named(op: Op, inputs: Vec<Option<Name>>, output: &Name) -> Node {
    let mut node = Node::new(op, inputs, vec![Some(output.clone())]);
    node.name = output.to_string();
    node
}
