//! High biases absorbed (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section
//! 4.1.3): what lifts a channel above zero for practically all samples goes through the Relu into the next product's bias, so
//! that the range of the activation need not hold it.

use indexmap::IndexMap;

use super::edits::{Edits, is_constant};
use super::link::{Link, View};
use super::product::{Product, fixed};
use super::{Declined, Prepared};
use crate::compress::observe::channels::ChannelStatistics;
use crate::compress::observe::offset::Offset;
use crate::compress::quantize::QuantizeError;
use crate::graph::op::AutoPad;
use crate::graph::shape::Types;
use crate::graph::{Graph, Name, Op};

/// The values before activations that [`absorb_high_bias`] has to know, with the axes of their channels.
pub fn absorb_values(graph: &Graph, types: &Types) -> IndexMap<Name, usize> {
    let view = View::of(graph, types);
    let places = view.products.values().filter_map(|product| Place::of(&view, product).ok().flatten());
    places.map(|place| (place.value, place.axis)).collect()
}

/// Moves `c = max(0, μ − 3σ)` (equation 16) of each channel before an activation into the biases of the products that read it
/// (equations 12 to 15), and no more than the least that was seen: on the data of the statistics nothing changes but rounding.
/// Products that pad with zeros are declined, since the padding is not lifted.
///
/// # Errors
/// When a constant leaves the range of `f32`.
pub fn absorb_high_bias(
    graph: &Graph,
    types: &Types,
    statistics: &IndexMap<Name, ChannelStatistics>,
) -> Result<Prepared, QuantizeError> {
    let view = View::of(graph, types);
    let mut edits = Edits::new(graph, &view.uses);
    let (mut done, mut declined) = (Vec::new(), Vec::new());
    for product in view.products.values() {
        let label = || graph.nodes[product.node_idx].label();
        let place = match Place::of(&view, product) {
            Ok(Some(place)) => place,
            Ok(None) => continue,
            Err(reason) => {
                declined.push(Declined { node: label(), reason });
                continue;
            }
        };
        let Some(seen) = statistics.get(&place.value) else { continue };
        if seen.axis != place.axis || seen.n_channels() != place.link.n_channels {
            continue;
        }
        let high = |channel: usize| {
            let usual = seen.mean(channel) - 3.0 * seen.standard_deviation(channel);
            usual.min(f64::from(seen.min[channel])).max(0.0)
        };
        let lifts: Vec<f64> = (0..seen.n_channels()).map(high).collect();
        if lifts.iter().any(|&lift| lift > 0.0) {
            place.absorb(&view, &mut edits, &lifts);
            done.push(label());
        }
    }
    Ok(Prepared { graph: edits.apply()?, done, declined })
}

/// Where a bias can go.
struct Place {
    link: Link,
    /// The value before the activation.
    value: Name,
    axis: usize,
    /// Where the bias is now.
    from: Offset,
    /// Where it goes, by reader.
    to: Vec<Offset>,
}

impl Place {
    fn of(view: &View<'_>, product: &Product) -> Result<Option<Place>, String> {
        let graph = view.graph;
        if let Some(reason) = fixed(graph, &view.uses, product) {
            return Err(reason);
        }
        let Some(link) = view.follow(product.node_idx, product.output_axis)? else { return Ok(None) };
        // Without an activation between, a shift is nothing that a range would gain by alone. What is measured is what the product
        // makes, so that only sums may come before.
        let op = |node_idx: usize| &graph.nodes[node_idx].op;
        let behind = link.passed.iter().find(|(node_idx, _)| !matches!(op(*node_idx), Op::Add | Op::Identity));
        let Some((activation, value)) = behind.cloned() else { return Ok(None) };
        if !matches!(op(activation), Op::Relu | Op::LeakyRelu(_) | Op::PRelu) {
            return Ok(None);
        }
        for (node_idx, _) in &link.passed {
            passes_shift(view, *node_idx).map_err(|reason| format!("{} {reason}", graph.nodes[*node_idx].label()))?;
        }
        let from = product.offset(graph, view.types, &view.uses)?;
        let mut to = Vec::with_capacity(link.readers.len());
        for reader in link.readers.iter().map(|reader| &view.products[reader]) {
            let node = &graph.nodes[reader.node_idx];
            let named = |reason: String| format!("{}: {reason}", node.label());
            if matches!(&node.op, Op::Conv(op) if op.pads.iter().any(|&pad| pad != 0)
                || matches!(op.auto_pad, AutoPad::SameUpper | AutoPad::SameLower))
            {
                return Err(named("it pads its input with zeros, which a bias would not lift".to_string()));
            }
            to.push(reader.offset(graph, view.types, &view.uses).map_err(named)?);
        }
        Ok(Some(Place { link, value, axis: product.output_axis, from, to }))
    }

    fn absorb(&self, view: &View<'_>, edits: &mut Edits<'_>, lifts: &[f64]) {
        let array = edits.array(self.from.node_idx, self.from.position, &[lifts.len()]);
        array.widen(self.from.from_last, lifts.len());
        array.change(self.from.from_last, |channel, x| *x -= lifts[channel] / self.from.factor);
        for (reader, offset) in self.link.readers.iter().map(|reader| &view.products[reader]).zip(&self.to) {
            let mut lifted = vec![0f64; reader.n_outputs];
            let weight = edits.array(reader.node_idx, reader.weight, &[]);
            reader.for_each(|position, made, read| {
                lifted[made] += weight.numbers[position] * lifts[self.link.channel_of[read]];
            });
            let array = edits.array(offset.node_idx, offset.position, &[lifted.len()]);
            array.widen(offset.from_last, lifted.len());
            array.change(offset.from_last, |made, x| *x += reader.alpha * lifted[made] / offset.factor);
        }
    }
}

/// In words why a node that passes on factors does not pass on what is added to a channel above zero.
fn passes_shift(view: &View<'_>, node_idx: usize) -> Result<(), &'static str> {
    let node = &view.graph.nodes[node_idx];
    match &node.op {
        Op::Mul => Err("multiplies what would be added to a channel"),
        Op::AveragePool(op) if op.count_include_pad && op.pads.iter().any(|&pad| pad != 0) => {
            Err("pads its input with zeros, which a bias would not lift")
        }
        Op::Add if !is_constant(view.graph, node, 0) && !is_constant(view.graph, node, 1) => {
            Err("joins it with another value")
        }
        _ => Ok(()),
    }
}
