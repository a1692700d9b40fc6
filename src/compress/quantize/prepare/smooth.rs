//! SmoothQuant (Xiao, Lin, Seznec, Wu, Demouth and Han, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large
//! Language Models", 2023): the outliers of some channels go from what products read into their weights.

use indexmap::IndexMap;

use super::edits::{Array, Edits, constant, is_constant};
use super::link::{Link, Part, View};
use super::product::fixed;
use super::{Declined, Prepared};
use crate::compress::observe::channels::ChannelStatistics;
use crate::compress::quantize::QuantizeError;
use crate::graph::shape::Types;
use crate::graph::{Graph, Name, Node, Op};

/// What a factor is at least: a channel that is zero on all the data has none.
const LEAST: f64 = 1e-5;

/// The values that [`smooth`] has to know, with the axes of their channels.
pub fn smooth_values(graph: &Graph, types: &Types) -> IndexMap<Name, usize> {
    let view = View::of(graph, types);
    let places = (0..graph.nodes.len()).filter_map(|node_idx| place(&view, node_idx).ok().flatten());
    places.map(|place| (place.link.value, place.link.axis)).collect()
}

/// Divides each channel `j` that products read by `s_j = max|x_j|^α / max|w_j|^(1 − α)` (equation 4) and multiplies their weights
/// by it. The division becomes part of what makes the value: the scale and bias of a LayerNormalization, the constant of a Mul, or
/// the weight and bias of another product. Where that is not to be found, or others than products read the value, it is declined.
/// What the network computes stays the same, but for rounding.
///
/// # Errors
/// When `alpha` is not between 0 and 1, or a constant leaves the range of `f32`.
pub fn smooth(
    graph: &Graph,
    types: &Types,
    statistics: &IndexMap<Name, ChannelStatistics>,
    alpha: f64,
) -> Result<Prepared, QuantizeError> {
    if !(0.0..=1.0).contains(&alpha) {
        return Err(QuantizeError::Option { option: "smooth", problem: format!("is {alpha}; give 0 to 1, as in 0.5") });
    }
    let view = View::of(graph, types);
    let mut edits = Edits::new(graph, &view.uses);
    let (mut done, mut reasons) = (Vec::<usize>::new(), IndexMap::new());
    for node_idx in 0..graph.nodes.len() {
        let Place { parts, link } = match place(&view, node_idx) {
            Ok(Some(place)) => place,
            Ok(None) => continue,
            Err(reason) => {
                reasons.extend(graph.nodes[node_idx].output(0).map(|name| (name.clone(), reason)));
                continue;
            }
        };
        let Some(seen) = statistics.get(&link.value).filter(|seen| seen.axis == link.axis) else { continue };
        if seen.n_channels() != link.channel_of.len() || done.contains(&link.readers[0]) {
            continue;
        }
        let mut greatest = vec![0f64; link.n_channels];
        for (index, &channel) in link.channel_of.iter().enumerate() {
            greatest[channel] = greatest[channel].max(seen.greatest_magnitude(index));
        }
        let factor = |(x, w): (&f64, f64)| match x.powf(alpha) / w.powf(1.0 - alpha) {
            factor if factor.is_finite() && factor > 0.0 && *x > 0.0 => factor.max(LEAST),
            _ => 1.0,
        };
        let factors: Vec<f64> = greatest.iter().zip(view.greatest_read(&link)).map(factor).collect();
        view.scale(&mut edits, &parts, &link, &factors);
        done.extend(&link.readers);
    }
    let left = view.products.keys().filter(|&node_idx| !done.contains(node_idx));
    let declined =
        left.map(|&node_idx| Declined::new(&graph.nodes[node_idx], reason(&view, &reasons, node_idx))).collect();
    done.sort_unstable();
    let done = done.into_iter().map(|node_idx| graph.nodes[node_idx].label()).collect();
    Ok(Prepared { graph: edits.apply()?, done, declined })
}

/// Constants that a factor of each channel can become part of, and the products that read the channels.
struct Place {
    parts: Vec<Part>,
    link: Link,
}

fn place(view: &View<'_>, node_idx: usize) -> Result<Option<Place>, String> {
    let node = &view.graph.nodes[node_idx];
    let rank = || view.types.tensor(node.output(0)?)?.rank().filter(|&rank| rank > 0);
    let part = |position, from_last, n: usize| Part { node_idx, position, from_last, channel_of: (0..n).collect() };
    let (axis, positions): (usize, Vec<usize>) = match &node.op {
        _ if view.products.contains_key(&node_idx) => {
            let product = &view.products[&node_idx];
            if let Some(reason) = fixed(view.graph, &view.uses, product) {
                return Err(reason);
            }
            let link = view.follow(node_idx, product.output_axis)?;
            return Ok(link.map(|link| Place { parts: view.made_by(product), link }));
        }
        Op::LayerNormalization(_) | Op::RMSNormalization(_) => {
            let Some(rank) = rank() else { return Ok(None) };
            (rank - 1, if node.input(2).is_some() { vec![1, 2] } else { vec![1] })
        }
        Op::Mul => {
            let Some(position) = (0..2).find(|&position| is_constant(view.graph, node, position)) else {
                return Ok(None);
            };
            let first = node.output(0).and_then(|name| view.uses.readers(name).first());
            let Some(product) = first.and_then(|reader| view.products.get(&reader.node_idx)) else { return Ok(None) };
            (product.input_axis, vec![position])
        }
        _ => return Ok(None),
    };
    let Some(rank) = rank().filter(|&rank| rank > axis) else { return Ok(None) };
    let Some(link) = view.follow(node_idx, axis)? else { return Ok(None) };
    let from_last = rank - 1 - axis;
    for &position in &positions {
        let known = node.input(position).and_then(|name| constant(view.graph, name));
        let known = known.ok_or_else(|| "its scale or bias is no constant".to_string())?;
        // A normalisation takes numbers for what it normalises, and no others.
        if !matches!(node.op, Op::Mul) && Array::of(known).size(from_last) != Some(link.n_channels) {
            return Err("its scale has not a number for each channel".to_string());
        }
        if known.rank() > rank {
            return Err("its constant has more axes than what it multiplies".to_string());
        }
    }
    let parts = positions.into_iter().map(|position| part(position, from_last, link.n_channels)).collect();
    Ok(Some(Place { parts, link }))
}

/// Why what a product reads was left. `reasons` are those of what makes the values.
fn reason(view: &View<'_>, reasons: &IndexMap<Name, String>, node_idx: usize) -> String {
    let product = &view.products[&node_idx];
    if let Some(reason) = fixed(view.graph, &view.uses, product) {
        return reason;
    }
    let Some(value) = view.graph.nodes[node_idx].input(product.activation) else {
        return "it reads nothing".to_string();
    };
    let maker = view.uses.producer(value).map(Node::label);
    match (reasons.get(value), maker) {
        (Some(reason), Some(maker)) => format!("{maker}: {reason}"),
        (_, None) => "it reads an input of the network".to_string(),
        (None, Some(maker)) => format!("{maker}, which makes what it reads, has no constant for a factor"),
    }
}
