//! Cross-layer equalization (Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization and
//! Bias Correction", 2019, section 4.1): factors between products so that the weights of both fill their ranges alike.

use std::collections::BTreeMap;

use super::edits::Edits;
use super::link::{Link, View};
use super::product::{Product, fixed};
use super::{Declined, Prepared};
use crate::compress::quantize::QuantizeError;
use crate::graph::Graph;
use crate::graph::shape::Types;

/// The rounds after which it ends, however far the factors still move.
const MOST_ROUNDS: usize = 200;
/// The part of itself by which the last round moves a factor at most, else there is another one.
const STILL: f64 = 1e-3;
/// What a factor is at most, and its reciprocal at least: beyond, one of the two products says next to nothing of the channel.
const GREATEST: f64 = 1e4;

/// Gives the channels between products of constant weights the factors of equation 11, `s = √(r₁ r₂) / r₂` with the greatest
/// magnitudes `r₁` of the weights that make a channel and `r₂` of those that read it, link by link in the order of the graph and
/// again until they stay. A value may be read by several products; what else reads it, or passes on no factor, is declined.
/// What the network computes stays the same, but for rounding.
///
/// # Errors
/// When a constant leaves the range of `f32`.
pub fn equalize(graph: &Graph, types: &Types) -> Result<Prepared, QuantizeError> {
    let view = View::of(graph, types);
    let (mut links, mut declined) = (Vec::new(), Vec::new());
    for (&source, product) in &view.products {
        let followed = match fixed(graph, &view.uses, product) {
            Some(reason) => Err(reason),
            None => view.follow(source, product.output_axis),
        };
        match followed {
            Ok(link) => links.extend(link),
            Err(reason) => declined.push(Declined::new(&graph.nodes[source], reason)),
        }
    }
    let factors = factors(&view, &links);
    let mut edits = Edits::new(graph, &view.uses);
    for (link, factors) in links.iter().zip(&factors) {
        view.scale(&mut edits, &view.made_by(&view.products[&link.source]), link, factors);
    }
    let graph = edits.apply()?;
    let done = links.iter().map(|link| graph.nodes[link.source].label()).collect();
    Ok(Prepared { graph, done, declined })
}

/// The factors of each link by channel.
fn factors(view: &View<'_>, links: &[Link]) -> Vec<Vec<f64>> {
    let magnitudes: BTreeMap<usize, Magnitudes<'_>> =
        view.products.iter().map(|(&node_idx, product)| (node_idx, Magnitudes::of(view, product))).collect();
    let mut factors: Vec<Vec<f64>> = links.iter().map(|link| vec![1.0; link.n_channels]).collect();
    let link_into: BTreeMap<usize, usize> = links
        .iter()
        .enumerate()
        .flat_map(|(idx, link)| link.readers.iter().map(move |&reader| (reader, idx)))
        .collect();
    let link_from: BTreeMap<usize, usize> = links.iter().enumerate().map(|(idx, link)| (link.source, idx)).collect();
    for _ in 0..MOST_ROUNDS {
        let mut moved = 0f64;
        for link_idx in 0..links.len() {
            let link = &links[link_idx];
            let read_factor = |node_idx: usize, read: usize| {
                link_into.get(&node_idx).map_or(1.0, |&into| factors[into][links[into].channel_of[read]])
            };
            let made_factor =
                |node_idx: usize, made: usize| link_from.get(&node_idx).map_or(1.0, |&from| factors[from][made]);
            let mut makes = vec![0f64; link.n_channels];
            magnitudes[&link.source].for_each(|made, read, x| {
                makes[made] = makes[made].max(x * read_factor(link.source, read));
            });
            let mut reads = vec![0f64; link.n_channels];
            for &reader in &link.readers {
                magnitudes[&reader].for_each(|made, read, x| {
                    let channel = link.channel_of[read];
                    reads[channel] = reads[channel].max(x / made_factor(reader, made));
                });
            }
            for (channel, factor) in factors[link_idx].iter_mut().enumerate() {
                let wanted = (makes[channel] / reads[channel]).sqrt();
                if wanted.is_finite() && wanted > 0.0 {
                    let next = wanted.clamp(GREATEST.recip(), GREATEST);
                    moved = moved.max((next / *factor).ln().abs());
                    *factor = next;
                }
            }
        }
        if moved < STILL {
            break;
        }
    }
    factors
}

/// The greatest magnitude of a weight for each pair of a channel that it makes and one that it reads.
struct Magnitudes<'a> {
    product: &'a Product,
    greatest: Vec<f32>,
}

impl<'a> Magnitudes<'a> {
    fn of(view: &'a View<'_>, product: &'a Product) -> Magnitudes<'a> {
        let numbers = view.graph.initializers[&product.name].as_slice::<f32>().unwrap_or_default();
        let n_summed = product.n_summed();
        let mut greatest = vec![0f32; product.n_outputs * n_summed];
        product.for_each(|position, made, read| {
            let pair = &mut greatest[made * n_summed + read % n_summed];
            *pair = pair.max(numbers[position].abs());
        });
        Magnitudes { product, greatest }
    }

    fn for_each(&self, mut each: impl FnMut(usize, usize, f64)) {
        for (made, row) in self.greatest.chunks(self.product.n_summed()).enumerate() {
            for (place, &x) in row.iter().enumerate() {
                each(made, self.product.read(made, place), f64::from(x));
            }
        }
    }
}
