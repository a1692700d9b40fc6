//! Quantization that learns: every Q/DQ pair stands around floats, so that weights and scales can be trained as they will be
//! rounded, and becomes integers when the training is over.
//!
//! Rounding passes gradients on as if it were not there (Bengio, Léonard and Courville, "Estimating or Propagating Gradients
//! Through Stochastic Neurons", 2013), and scales get those of Esser et al., "Learned Step Size Quantization", 2020. Zero points
//! stay. A batch normalisation is part of its convolution before (Jacob et al., 2018, section 3.2).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use indexmap::IndexMap;

use super::QuantizeError;
use super::insert::{Inserter, Scales, insert, least_scales, named};
use super::parameters::{Parameters, QuantizedConstant, bounds, used, with_parameters};
use super::plan::{Plan, WeightSite};
use crate::graph::op::{Constant, DequantizeLinear, QuantizeLinear, Reshape};
use crate::graph::patch::{Patch, Place};
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name, Op};

/// A network that can be trained as it will be rounded.
#[derive(Clone, Debug)]
pub struct Fake {
    /// The network: every initializer of floats may learn, scales included.
    pub graph: Graph,
    float: Graph,
    plan: Plan,
    scales: Scales,
    /// The initializer that holds the scale of a value.
    activation_scales: IndexMap<Name, Name>,
    /// The initializers that hold the scales of weights, in the order of the plan.
    weight_scales: Vec<Name>,
}

/// The network with Q/DQ around the floats of a plan. Biases stay floats: 32 bits lose nothing of them.
///
/// # Errors
/// When the scales are not those of the plan.
pub fn fake(graph: &Graph, plan: &Plan, scales: &Scales) -> Result<Fake, QuantizeError> {
    let mut inserter = Inserter::new(graph, plan, scales);
    let mut made = HashMap::new();
    let mut weight_scales = Vec::with_capacity(plan.weights.len());
    for (site, parameters) in plan.weights.iter().zip(&scales.weights) {
        let (floats, scale) = match made.entry(site.key()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let constant = &graph.initializers[&site.name];
                let quantized = with_parameters(constant, site.axis, site.weights, parameters)?;
                place.insert(around(&mut inserter.patch, site, &quantized, parameters)?)
            }
        };
        inserter.inputs.entry(site.node_idx).or_default().insert(site.position, floats.clone());
        weight_scales.push(scale.clone());
    }
    let by_group = inserter.activations()?;
    let activation_scales =
        plan.values.iter().map(|(name, quantized)| (name.clone(), by_group[&quantized.group].clone())).collect();
    let (float, plan, scales) = (graph.clone(), plan.clone(), scales.clone());
    Ok(Fake { graph: inserter.finish()?, float, plan, scales, activation_scales, weight_scales })
}

impl Fake {
    /// The network in integers, with the weights and scales that a training has left in `trained`.
    ///
    /// # Errors
    /// When it is not this network.
    pub fn freeze(&self, trained: &Graph) -> Result<Graph, QuantizeError> {
        let mut patch = Patch::new(&self.float);
        for name in self.float.initializers.keys() {
            if let Some(tensor) = trained.initializers.get(name) {
                patch.replace_initializer(name, tensor.clone());
            }
        }
        let float = patch.apply(None)?;
        let learned = |name: &Name| -> Result<Vec<f32>, QuantizeError> {
            let missing =
                || QuantizeError::NoRange { value: name.clone(), remedy: "give the network that was trained" };
            Ok(trained.initializers.get(name).ok_or_else(missing)?.to_vec::<f32>()?)
        };
        let mut scales = self.scales.clone();
        for (value, name) in &self.activation_scales {
            let parameters = &mut scales.activations[value];
            parameters.scale = usable(learned(name)?.first().copied().unwrap_or(parameters.scale), 0.0);
        }
        for (weight_idx, name) in self.weight_scales.iter().enumerate() {
            let least = least_scales(&float, &self.plan, weight_idx, &scales.activations)?;
            let least = least.into_iter().chain(std::iter::repeat(0.0));
            for ((parameters, learned), least) in scales.weights[weight_idx].iter_mut().zip(learned(name)?).zip(least) {
                parameters.scale = usable(learned, least);
            }
        }
        insert(&float, &self.plan, &scales)
    }
}

/// A learned scale as a runtime takes it: positive, and no less than a bias asks.
fn usable(scale: f32, least: f64) -> f32 {
    scale.abs().max(least as f32).max(f32::MIN_POSITIVE)
}

/// QuantizeLinear and DequantizeLinear around a constant that is held to the integers that its scheme uses, where these are not all
/// of their type; gives what they make, and the initializer of its scales.
fn around(
    patch: &mut Patch,
    site: &WeightSite,
    quantized: &QuantizedConstant,
    parameters: &[Parameters],
) -> Result<(Name, Name), QuantizeError> {
    let name = &site.name;
    let scale = patch.add_initializer(&format!("{name}_scale"), quantized.scales.clone());
    let zero_point = patch.add_initializer(&format!("{name}_zero_point"), quantized.zero_points.clone());
    let axis = quantized.axis.map(|axis| i64::try_from(axis).expect("a tensor has few axes"));
    let axis = axis.unwrap_or(QuantizeLinear::default().axis);
    let mut insert = |op: Op, inputs: &[&Name], what: &str| {
        let made = patch.fresh(&format!("{name}_{what}"));
        let inputs = inputs.iter().map(|&name| Some(name.clone())).collect();
        patch.insert(Place::Before(0), named(op, inputs, &made));
        made
    };
    let mut bounded = name.clone();
    let (least, greatest) = used(site.weights);
    if (least, greatest) != bounds(site.weights.dtype) {
        let shape = quantized.scales.shape();
        for (op, bound, what) in [(Op::Min, greatest, "high"), (Op::Max, least, "low")] {
            let steps = parameters.iter().map(|it| (bound - it.zero_point) as f32).collect();
            let steps =
                insert(Op::Constant(Constant { value: Tensor::new(shape, steps)? }), &[], &format!("{what}_steps"));
            let mut limit = insert(Op::Mul, &[&scale, &steps], what);
            if let Some(axis) = quantized.axis {
                let mut shape = vec![1i64; quantized.integers.rank()];
                shape[axis] = -1;
                let shape =
                    insert(Op::Constant(Constant { value: Tensor::vector(shape) }), &[], &format!("{what}_shape"));
                limit = insert(Op::Reshape(Reshape { allowzero: false }), &[&limit, &shape], &format!("{what}_along"));
            }
            bounded = insert(op, &[&bounded, &limit], &format!("{what}_bounded"));
        }
    }
    let quantize = Op::QuantizeLinear(QuantizeLinear { axis, ..QuantizeLinear::default() });
    let dequantize = Op::DequantizeLinear(DequantizeLinear { axis, ..DequantizeLinear::default() });
    let integers = insert(quantize, &[&bounded, &scale, &zero_point], "quantized");
    let floats = insert(dequantize, &[&integers, &scale, &zero_point], "dequantized");
    Ok((floats, scale))
}
