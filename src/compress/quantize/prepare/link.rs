//! Channels followed from what makes them to the products that read them.

use std::collections::BTreeMap;

use super::edits::{Array, Edits, is_constant};
use super::product::{Product, fixed, products};
use crate::graph::axes::{Port, Slot, axes};
use crate::graph::shape::Types;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, Op};

/// A graph, and what is looked up in it once.
pub(super) struct View<'a> {
    pub(super) graph: &'a Graph,
    pub(super) types: &'a Types,
    pub(super) uses: Uses<'a>,
    pub(super) products: BTreeMap<usize, Product>,
}

/// A constant with a number for each channel, or for each that they have become on the way.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) node_idx: usize,
    pub(super) position: usize,
    /// The axis of the channels, from the last.
    pub(super) from_last: usize,
    /// The source's channel, by index along that axis.
    pub(super) channel_of: Vec<usize>,
}

/// Channels from their source to products that alone read them. What is between passes on a positive factor by channel.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// The node that makes the channels.
    pub(super) source: usize,
    pub(super) n_channels: usize,
    /// The nodes between, with the value that each reads.
    pub(super) passed: Vec<(usize, Name)>,
    /// The constants that are added on the way.
    pub(super) sums: Vec<Part>,
    /// What the products read, and the axis of the channels.
    pub(super) value: Name,
    pub(super) axis: usize,
    /// The source's channel, by index along that axis.
    pub(super) channel_of: Vec<usize>,
    /// The products, by node.
    pub(super) readers: Vec<usize>,
}

impl<'a> View<'a> {
    pub(super) fn of(graph: &'a Graph, types: &'a Types) -> View<'a> {
        View { graph, types, uses: Uses::of(graph), products: products(graph, types) }
    }

    /// The channels that a node makes along this axis; none where they end at the network's outputs, in words why not where
    /// something else than products whose weights can be changed reads them.
    pub(super) fn follow(&self, source: usize, axis: usize) -> Result<Option<Link>, String> {
        let Some(value) = self.graph.nodes[source].output(0) else { return Ok(None) };
        let known = |name: &Name, axis: usize| self.types.tensor(name)?.shape.as_ref()?.get(axis)?.known();
        let n_channels = known(value, axis).ok_or_else(|| format!("the size of `{value}` is not known"))?;
        let mut link = Link {
            source,
            n_channels,
            passed: Vec::new(),
            sums: Vec::new(),
            value: value.clone(),
            axis,
            channel_of: (0..n_channels).collect(),
            readers: Vec::new(),
        };
        loop {
            let readers = self.uses.readers(&link.value);
            if self.uses.is_output(&link.value) || readers.is_empty() {
                return Ok(None);
            }
            let reads = |node_idx: usize, position: Option<usize>| {
                let product = self.products.get(&node_idx)?;
                let is_along = product.input_axis == link.axis && product.n_inputs == link.channel_of.len();
                (position == Some(product.activation) && is_along).then_some(product)
            };
            let into: Option<Vec<&Product>> =
                readers.iter().map(|reader| reads(reader.node_idx, reader.position)).collect();
            if let Some(into) = into {
                if let Some((product, reason)) =
                    into.iter().find_map(|product| Some((product, fixed(self.graph, &self.uses, product)?)))
                {
                    return Err(format!("{}: {reason}", self.graph.nodes[product.node_idx].label()));
                }
                link.readers = into.iter().map(|product| product.node_idx).collect();
                return Ok(Some(link));
            }
            let [reader] = readers else {
                return Err(format!("`{}` is read by others than products, too", link.value));
            };
            let Some(position) = reader.position else {
                return Err(format!("a body of {} reads it", self.graph.nodes[reader.node_idx].label()));
            };
            self.pass(&mut link, reader.node_idx, position)?;
        }
    }

    /// Goes on behind a node.
    fn pass(&self, link: &mut Link, node_idx: usize, position: usize) -> Result<(), String> {
        let node = &self.graph.nodes[node_idx];
        passes_factor(self.graph, node, position).map_err(|reason| format!("{} {reason}", node.label()))?;
        let lost = || format!("{} mixes the channels with other axes", node.label());
        let (axis, from) = self.behind(node, position, link).ok_or_else(lost)?;
        link.channel_of = from.into_iter().map(|index| link.channel_of[index]).collect();
        link.passed.push((node_idx, link.value.clone()));
        link.axis = axis;
        link.value = node.output(0).ok_or_else(lost)?.clone();
        if matches!(node.op, Op::Add) {
            let rank = self.types.tensor(&link.value).and_then(|known| known.rank()).ok_or_else(lost)?;
            let (from_last, channel_of) = (rank - 1 - axis, link.channel_of.clone());
            link.sums.push(Part { node_idx, position: 1 - position, from_last, channel_of });
        }
        Ok(())
    }

    /// The axis of a node's output on which the channels are, and for each index along it that of the channel before.
    fn behind(&self, node: &Node, position: usize, link: &Link) -> Option<(usize, Vec<usize>)> {
        let facts = axes(node, self.types);
        let here = Slot { port: Port::Input(position), axis: link.axis };
        let (own, size) = (link.channel_of.len(), |slot: Slot| {
            self.types.tensor(node.output(0)?)?.shape.as_ref()?.get(slot.axis)?.known()
        });
        for tie in &facts.ties {
            if tie.a == here && tie.b.port == Port::Output(0) {
                let mut from = vec![None; size(tie.b)?];
                tie.map.for_each(own, |before, after| from[after] = Some(before));
                return Some((tie.b.axis, from.into_iter().collect::<Option<Vec<usize>>>()?));
            }
        }
        for fold in facts.folds.iter().filter(|fold| fold.whole.port == Port::Output(0)) {
            let Some(place) = fold.factors.iter().position(|(slot, _)| *slot == here) else { continue };
            let n_inner: usize = fold.factors[place + 1..].iter().map(|(_, size)| size).product();
            let n_whole = size(fold.whole)?;
            return Some((fold.whole.axis, (0..n_whole).map(|index| index / n_inner % own).collect()));
        }
        None
    }

    /// The constants of a product that make its channels: weight and bias.
    pub(super) fn made_by(&self, product: &Product) -> Vec<Part> {
        let (node_idx, channel_of) = (product.node_idx, (0..product.n_outputs).collect::<Vec<usize>>());
        let part = |position, from_last| Part { node_idx, position, from_last, channel_of: channel_of.clone() };
        let mut parts = vec![part(product.weight, product.made_from_last())];
        let node = &self.graph.nodes[node_idx];
        let has_bias = matches!(node.op, Op::Conv(_) | Op::Gemm(_)) && is_constant(self.graph, node, 2);
        parts.extend(has_bias.then(|| part(2, 0)));
        parts
    }

    /// Divides what these constants make of each channel by its factor, and multiplies what the products make of it.
    pub(super) fn scale(&self, edits: &mut Edits<'_>, source: &[Part], link: &Link, factors: &[f64]) {
        for part in source.iter().chain(&link.sums) {
            let array = edits.array(part.node_idx, part.position, &[]);
            array.widen(part.from_last, part.channel_of.len());
            array.change(part.from_last, |index, x| *x /= factors[part.channel_of[index]]);
        }
        for product in link.readers.iter().map(|reader| &self.products[reader]) {
            let array = edits.array(product.node_idx, product.weight, &[]);
            product.for_each(|position, _, read| array.numbers[position] *= factors[link.channel_of[read]]);
        }
    }

    /// The greatest magnitude that products have for each channel that they read.
    pub(super) fn greatest_read(&self, link: &Link) -> Vec<f64> {
        let mut greatest = vec![0f64; link.n_channels];
        for product in link.readers.iter().map(|reader| &self.products[reader]) {
            let weight = Array::of(&self.graph.initializers[&product.name]);
            product.for_each(|position, _, read| {
                let channel = &mut greatest[link.channel_of[read]];
                *channel = channel.max(weight.numbers[position].abs());
            });
        }
        greatest
    }
}

/// In words why a node does not make of a channel times a positive factor the same times that factor.
fn passes_factor(graph: &Graph, node: &Node, position: usize) -> Result<(), String> {
    if node.outputs.iter().skip(1).any(Option::is_some) {
        return Err("makes more than one value".to_string());
    }
    match &node.op {
        Op::Relu | Op::LeakyRelu(_) | Op::PRelu if position == 0 => Ok(()),
        Op::Identity | Op::Dropout(_) | Op::Transpose(_) => Ok(()),
        Op::MaxPool(_) | Op::AveragePool(_) | Op::GlobalAveragePool | Op::GlobalMaxPool => Ok(()),
        Op::ReduceMean(_) | Op::ReduceMax(_) | Op::ReduceMin(_) if position == 0 => Ok(()),
        Op::Flatten(_) | Op::Reshape(_) | Op::Squeeze | Op::Unsqueeze if position == 0 => Ok(()),
        Op::Add | Op::Mul if is_constant(graph, node, 1 - position.min(1)) => Ok(()),
        Op::Add | Op::Mul => Err("joins it with another value".to_string()),
        Op::Clip => Err("clips it at a number that would have to be another for each channel".to_string()),
        _ => Err("does not pass on a factor of a channel".to_string()),
    }
}
