//! Bias correction (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2):
//! the rounding of a weight shifts the mean of what it makes; the bias takes that back.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::Declined;
use super::edits::Edits;
use super::link::View;
use super::product::Product;
use crate::compress::observe::channels::ChannelStatistics;
use crate::compress::quantize::QuantizeError;
use crate::compress::quantize::insert::Scales;
use crate::compress::quantize::parameters::{Parameters, rounded};
use crate::compress::quantize::plan::{BiasSite, Plan, WeightSite};
use crate::graph::shape::Types;
use crate::graph::window::{Axis, conv_axes};
use crate::graph::{Graph, Name, Op};

/// A network with other biases, and its plan.
#[derive(Clone, Debug)]
pub struct Corrected {
    /// The network of floats.
    pub graph: Graph,
    /// The plan with the biases that were not there before; the scales stay those of the weights and activations.
    pub plan: Plan,
    /// The products that were corrected, in the order of the plan.
    pub done: Vec<String>,
    /// The products that were not, and why.
    pub declined: Vec<Declined>,
}

/// The values that [`correct_biases`] has to know, with the axes of their channels.
pub fn correct_values(graph: &Graph, types: &Types, plan: &Plan) -> IndexMap<Name, usize> {
    let view = View::of(graph, types);
    let read = sites(&view, plan).filter_map(|(_, product)| {
        let name = graph.nodes[product.node_idx].input(product.activation)?;
        Some((name.clone(), product.input_axis))
    });
    read.collect()
}

/// Adds `−E[(W̃ − W) x]` (equation 17) to the bias of each product whose weight the scales round to `W̃`, with the mean of each
/// channel of `x` over the samples. Where a convolution pads with zeros, each tap counts as often as it lies inside. A Conv or Gemm
/// without a bias gets one; a MatMul needs an Add of a constant, in floats, behind it.
///
/// # Errors
/// When the scales are not those of the plan, or a bias leaves the range of `f32`.
pub fn correct_biases(
    graph: &Graph,
    types: &Types,
    plan: &Plan,
    scales: &Scales,
    statistics: &IndexMap<Name, ChannelStatistics>,
) -> Result<Corrected, QuantizeError> {
    let view = View::of(graph, types);
    let integer: BTreeSet<usize> = plan.integer.iter().copied().collect();
    let mut edits = Edits::new(graph, &view.uses);
    let (mut plan, mut done, mut declined) = (plan.clone(), Vec::new(), Vec::new());
    let mut made = Vec::new();
    for (weight_idx, product) in sites(&view, &plan) {
        let node = &graph.nodes[product.node_idx];
        let offset = match product.offset(graph, types, &view.uses) {
            Ok(offset) if offset.node_idx != product.node_idx && integer.contains(&offset.node_idx) => {
                let reason = format!("{} rounds what would correct it", graph.nodes[offset.node_idx].label());
                declined.push(Declined::new(node, reason));
                continue;
            }
            Ok(offset) => offset,
            Err(reason) => {
                declined.push(Declined::new(node, reason));
                continue;
            }
        };
        let Some(means) = means(graph, product, statistics) else {
            declined.push(Declined::new(node, "the mean of what it reads is not known"));
            continue;
        };
        let shifts = shifts(&view, product, &plan.weights[weight_idx], &scales.weights[weight_idx], &means)?;
        let array = edits.array(offset.node_idx, offset.position, &[shifts.len()]);
        array.widen(offset.from_last, shifts.len());
        array.change(offset.from_last, |channel, x| *x -= product.alpha * shifts[channel] / offset.factor);
        done.push(node.label());
        made.push((weight_idx, product.node_idx, offset));
    }
    for site in &plan.weights {
        let node = &graph.nodes[site.node_idx];
        if matches!(node.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul) && !view.products.contains_key(&site.node_idx) {
            declined.push(Declined::new(node, "its channels cannot be told apart"));
        }
    }
    let corrected = edits.apply()?;
    for (weight_idx, node_idx, offset) in made {
        let known = |bias: &&mut BiasSite| bias.node_idx == offset.node_idx && bias.position == offset.position;
        let name = corrected.nodes[offset.node_idx].input(offset.position).cloned();
        let (Some(name), true) = (name, offset.node_idx == node_idx) else { continue };
        let activation = corrected.nodes[node_idx].input(view.products[&node_idx].activation).cloned();
        match (plan.biases.iter_mut().find(known), activation) {
            (Some(bias), _) => bias.name = name,
            (None, Some(input)) => {
                plan.biases.push(BiasSite { node_idx, position: offset.position, name, input, weight: weight_idx });
            }
            (None, None) => {}
        }
    }
    Ok(Corrected { graph: corrected, plan, done, declined })
}

/// The products whose weights a plan rounds, by the weight's place in it.
fn sites<'a>(view: &'a View<'_>, plan: &Plan) -> impl Iterator<Item = (usize, &'a Product)> {
    let product = |(weight_idx, site): (usize, &WeightSite)| {
        let product = view.products.get(&site.node_idx)?;
        (product.weight == site.position).then_some((weight_idx, product))
    };
    plan.weights.iter().enumerate().filter_map(product).collect::<Vec<_>>().into_iter()
}

/// The mean of each channel that a product reads.
fn means(graph: &Graph, product: &Product, statistics: &IndexMap<Name, ChannelStatistics>) -> Option<Vec<f64>> {
    let seen = statistics.get(graph.nodes[product.node_idx].input(product.activation)?)?;
    let fits = seen.axis == product.input_axis && seen.n_channels() == product.n_inputs;
    fits.then(|| (0..product.n_inputs).map(|channel| seen.mean(channel)).collect())
}

/// `E[(W̃ − W) x]` of each channel that a product makes.
fn shifts(
    view: &View<'_>,
    product: &Product,
    site: &WeightSite,
    parameters: &[Parameters],
    means: &[f64],
) -> Result<Vec<f64>, QuantizeError> {
    let constant = &view.graph.initializers[&site.name];
    let (numbers, rounded) = (constant.as_slice::<f32>()?, rounded(constant, site.axis, site.weights, parameters)?);
    let inside = inside(view, product);
    let mut shifts = vec![0f64; product.n_outputs];
    product.for_each(|position, made, read| {
        let error = f64::from(rounded[position]) - f64::from(numbers[position]);
        shifts[made] += error * means[read] * inside[position % inside.len()];
    });
    Ok(shifts)
}

/// For each tap of a kernel in which part of the places it lies inside the input; one where that is not known, or there is no kernel.
fn inside(view: &View<'_>, product: &Product) -> Vec<f64> {
    let node = &view.graph.nodes[product.node_idx];
    let kernel = product.kernel();
    let by_axis = || -> Option<Vec<Vec<f64>>> {
        let Op::Conv(op) = &node.op else { return None };
        let dims = view.types.tensor(node.input(product.activation)?)?.shape.as_ref()?.get(2..)?;
        let part = |(axis, size): (Axis, usize)| {
            let window = axis.over(size).ok().filter(|window| window.n_places > 0)?;
            Some((0..window.kernel).map(|tap| window.places(tap).0.len() as f64 / window.n_places as f64).collect())
        };
        let axes = conv_axes(op, kernel).ok()?;
        axes.into_iter().zip(dims).map(|(axis, size)| part((axis, size.known()?))).collect()
    };
    let Some(by_axis) = by_axis() else { return vec![1.0] };
    by_axis.iter().fold(vec![1.0], |taps, axis| {
        taps.iter().flat_map(|&outer| axis.iter().map(move |&inner| outer * inner)).collect()
    })
}
