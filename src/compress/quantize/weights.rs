//! Weights alone as integers: a quarter of the bytes or an eighth, computed in floats as before.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use super::QuantizeError;
use super::insert::{dequantized, named};
use super::parameters::{Parameters, QuantizedConstant, with_parameters};
use super::plan::{WeightSite, check_finite};
use super::rounding::Start;
use super::scheme::{Granularity, Integer, Scheme, Weights};
use crate::graph::axes::axes;
use crate::graph::op::{Cast, RoundMode};
use crate::graph::patch::{Patch, Place};
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, Name, Node, Op};

/// Constants of fewer elements stay floats: what says how to read the integers takes as much room as they save.
const FEWEST: usize = 256;

/// The weights of products, recurrent operators and embeddings.
///
/// # Errors
/// When the scheme cannot be carried out, a pattern of it means no node, or there is no such weight.
pub fn weight_sites(graph: &Graph, types: &Types, scheme: &Scheme) -> Result<Vec<WeightSite>, QuantizeError> {
    scheme.check()?;
    if let Some(pattern) = scheme.idle_patterns(&graph.nodes).first() {
        return Err(QuantizeError::Pattern { pattern: pattern.to_string() });
    }
    let mut sites: Vec<WeightSite> = Vec::new();
    for (node_idx, node) in graph.nodes.iter().enumerate().filter(|(_, node)| scheme.excludes(node).is_none()) {
        for weight in axes(node, types).weights {
            let Some(name) = node.input(weight.position) else { continue };
            let Some(constant) = graph.constant(name).filter(|it| it.dtype() == DType::F32 && it.len() >= FEWEST)
            else {
                continue;
            };
            let is_embedding = weight.input_axis.is_none();
            let weights = if is_embedding { scheme.embedding_of(node) } else { scheme.weights_of(node) };
            let axis = match (weights.granularity, weight.input_axis) {
                (Granularity::Tensor, _) => None,
                // An embedding sums over nothing: a scale for each of its rows, which differ more than its columns do.
                (_, None) => Some(0),
                (Granularity::Channel, _) => Some(weight.output_axis),
                (Granularity::Block(_), Some(summed)) if summed < constant.rank() => Some(summed),
                (Granularity::Block(_), _) => Some(weight.output_axis),
            };
            let granularity = if is_embedding && axis.is_some() { Granularity::Channel } else { weights.granularity };
            let weights = Weights { granularity, ..weights };
            sites.push(WeightSite { node_idx, position: weight.position, name: name.clone(), axis, weights });
        }
    }
    check_finite(graph, sites.iter().map(|site| &site.name))?;
    let reason = || format!("no weight that is not excluded has {FEWEST} elements of f32 or more");
    match sites.is_empty() {
        true => Err(QuantizeError::Nothing { reason: reason() }),
        false => Ok(sites),
    }
}

/// The network with the constants of these sites as integers that the file brings back to floats. Symmetric integers of eight or
/// sixteen bits by tensor or channel stand behind a Cast and a Mul: both runtimes compute these once, when they load the file.
/// Others stand behind a DequantizeLinear.
///
/// # Errors
/// When a constant is no tensor of floats.
pub fn insert_weights(graph: &Graph, sites: &[WeightSite]) -> Result<Graph, QuantizeError> {
    insert_weights_with(graph, sites, &Start::of_sites(graph, sites)?.parameters)
}

/// As [`insert_weights`], by these scales and zero points of each site. Sites of one constant, quantized alike, have the same.
///
/// # Errors
/// As there, and when a site has another number of them.
pub fn insert_weights_with(
    graph: &Graph,
    sites: &[WeightSite],
    parameters: &[Vec<Parameters>],
) -> Result<Graph, QuantizeError> {
    let mut patch = Patch::new(graph);
    store(&mut patch, graph, sites, parameters)?;
    patch.remove_unused_initializers();
    Ok(patch.apply(None)?)
}

/// The same among other edits, which must not be of the nodes of these sites.
pub(super) fn store(
    patch: &mut Patch,
    graph: &Graph,
    sites: &[WeightSite],
    parameters: &[Vec<Parameters>],
) -> Result<(), QuantizeError> {
    let mut nodes: BTreeMap<usize, Node> = BTreeMap::new();
    let mut made = HashMap::new();
    for (site, parameters) in sites.iter().zip(parameters) {
        let floats = match made.entry(site.key()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let constant = &graph.initializers[&site.name];
                let quantized = with_parameters(constant, site.axis, site.weights, parameters)?;
                place.insert(restored(patch, &site.name, &quantized, site.weights)?)
            }
        };
        let node = nodes.entry(site.node_idx).or_insert_with(|| graph.nodes[site.node_idx].clone());
        node.inputs[site.position] = Some(floats.clone());
    }
    nodes.into_iter().for_each(|(node_idx, node)| patch.replace(node_idx, vec![node]));
    Ok(())
}

/// Stores the weights of every node but these, by channel in eight bits where no exception says otherwise. Gives how many.
///
/// # Errors
/// When a weight holds numbers that no integer stands for.
pub(super) fn store_others(
    patch: &mut Patch,
    graph: &Graph,
    types: &Types,
    scheme: &Scheme,
    done: &[usize],
) -> Result<usize, QuantizeError> {
    let scheme = Scheme { weights: Weights::default(), ..scheme.clone() };
    let sites = match weight_sites(graph, types, &scheme) {
        Err(QuantizeError::Nothing { .. }) => Vec::new(),
        sites => sites?,
    };
    let others: Vec<WeightSite> = sites.into_iter().filter(|site| !done.contains(&site.node_idx)).collect();
    store(patch, graph, &others, &Start::of_sites(graph, &others)?.parameters)?;
    Ok(others.len())
}

/// The nodes that make floats of a constant's integers.
fn restored(
    patch: &mut Patch,
    name: &Name,
    quantized: &QuantizedConstant,
    weights: Weights,
) -> Result<Name, QuantizeError> {
    let QuantizedConstant { integers, scales, axis, block, .. } = quantized;
    let is_plain = weights.symmetric && weights.dtype.is_signed() && !matches!(weights.dtype, Integer::I4);
    if !is_plain || block.is_some() {
        return Ok(dequantized(patch, name, quantized));
    }
    let stored = patch.add_initializer(&format!("{name}_quantized"), integers.clone());
    let floats = patch.fresh(&format!("{name}_dequantized"));
    let scale = patch.add_initializer(&format!("{name}_scale"), broadcast(scales, *axis, integers.rank())?);
    let wide = patch.fresh(&format!("{name}_cast"));
    let cast = Op::Cast(Cast { to: DType::F32, saturate: true, round_mode: RoundMode::Up });
    patch.insert(Place::Before(0), named(cast, vec![Some(stored)], &wide));
    patch.insert(Place::Before(0), named(Op::Mul, vec![Some(wide), Some(scale)], &floats));
    Ok(floats)
}

/// Scales along an axis in a shape that broadcasts over a tensor of this rank.
fn broadcast(scales: &Tensor, axis: Option<usize>, rank: usize) -> Result<Tensor, QuantizeError> {
    let Some(axis) = axis else { return Ok(scales.clone()) };
    let mut shape = vec![1; rank];
    shape[axis] = scales.len();
    Ok(scales.reshaped(&shape)?)
}
