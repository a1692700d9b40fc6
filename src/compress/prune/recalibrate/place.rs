//! Where statistics can be set right, in which order, and how the constants there change.

use std::collections::HashMap;

use super::{Declined, Match, Move};
use crate::compress::observe::offset::{Offset, constant, is_constant, offset};
use crate::compress::observe::product::{Matrices, product};
use crate::compress::prune::PruneError;
use crate::graph::axes::{Port, Slot, axes};
use crate::graph::patch::Patch;
use crate::graph::shape::Types;
use crate::graph::tensor::Tensor;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, Op};

/// Places by level: none of a level comes before another of it, and all before it in the levels before.
pub(super) struct Places<T> {
    pub(super) levels: Vec<Vec<T>>,
    pub(super) declined: Vec<Declined>,
}

/// A BatchNormalization whose statistics are constants of its own.
pub(super) struct Normalisation {
    pub(super) node_idx: usize,
    pub(super) input: Name,
    pub(super) mean: Name,
    pub(super) variance: Name,
}

/// A product to which a number for each channel is or can be added.
pub(super) struct Output {
    /// The product.
    pub(super) node_idx: usize,
    /// What it makes, with its bias, and the axis of its channels.
    pub(super) value: Name,
    pub(super) axis: usize,
    pub(super) n_channels: usize,
    offset: Offset,
    /// The bias; none where there is none yet.
    bias: Option<Name>,
    /// What is scaled with it; none where nothing is to be.
    weight: Option<(Name, Matrices)>,
}

/// The normalisations of a graph that can be set right.
pub(super) fn normalisations(graph: &Graph) -> Places<Normalisation> {
    let uses = Uses::of(graph);
    let mut found = Vec::new();
    let mut declined = Vec::new();
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        let Op::BatchNormalization(op) = &node.op else { continue };
        let own = |position: usize| {
            let name = node.input(position)?;
            (constant(graph, name).is_some() && is_own(&uses, name)).then(|| name.clone())
        };
        match (op.training_mode, node.input(0), own(3), own(4)) {
            (true, ..) => declined.push(left(node, "normalises by the samples that it is given together")),
            (false, Some(input), Some(mean), Some(variance)) => {
                found.push((node_idx, Normalisation { node_idx, input: input.clone(), mean, variance }));
            }
            (false, ..) => declined.push(left(node, "has statistics that are no constants of f32, or not its own")),
        }
    }
    Places { levels: levels(graph, found), declined }
}

/// The products of a graph whose outputs can be set right.
pub(super) fn outputs(graph: &Graph, types: &Types, what: Match) -> Places<Output> {
    let uses = Uses::of(graph);
    let mut found = Vec::new();
    let mut declined = Vec::new();
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        let positions = match &node.op {
            Op::Conv(_) | Op::Gemm(_) => 1..2,
            Op::MatMul => 0..2,
            _ => continue,
        };
        let constants: Vec<usize> =
            positions.filter(|&at| node.input(at).is_some_and(|name| graph.constant(name).is_some())).collect();
        // Of two computed values no channel is made by a weight; of two constants nothing is left to compute.
        let [position] = constants[..] else { continue };
        match output(graph, types, &uses, node_idx, position, what) {
            Ok(place) => found.push((place.offset.node_idx, place)),
            Err(reason) => declined.push(left(node, &reason)),
        }
    }
    Places { levels: levels(graph, found), declined }
}

fn output(
    graph: &Graph,
    types: &Types,
    uses: &Uses<'_>,
    node_idx: usize,
    position: usize,
    what: Match,
) -> Result<Output, String> {
    let node = &graph.nodes[node_idx];
    if !is_constant(graph, node, position) {
        return Err("has a weight that is not of f32".to_string());
    }
    let matrices = product(graph, types, node_idx, position).map_err(|reason| stays(&reason))?.matrices;
    let n_channels = matrices.n_groups * matrices.n_rows;
    let facts = axes(node, types);
    let weight = facts.weights.iter().find(|weight| weight.position == position).ok_or("makes no channels")?;
    let own = Slot { port: Port::Input(position), axis: weight.output_axis };
    let tie = facts.ties.iter().find(|tie| tie.a == own && tie.b.port == Port::Output(0)).ok_or("makes no channels")?;
    let axis = tie.b.axis;
    let offset = offset(graph, types, uses, node_idx, axis, n_channels).map_err(|reason| stays(&reason))?;
    let bias = match graph.nodes[offset.node_idx].input(offset.position) {
        None => None,
        Some(name) => {
            let along = constant(graph, name).and_then(|bias| bias.shape().iter().rev().nth(offset.from_last).copied());
            if along != Some(n_channels) || !is_own(uses, name) {
                return Err("adds a constant that has not a number for each channel, or is read elsewhere, too".into());
            }
            Some(name.clone())
        }
    };
    let scaled = || {
        let name = node.input(position).filter(|name| is_own(uses, name));
        let name =
            name.ok_or("has a weight that is read elsewhere, too, and cannot be scaled: match the mean alone")?;
        Ok::<_, String>((name.clone(), matrices))
    };
    let weight = match what {
        Match::Mean => None,
        Match::Spread => Some(scaled()?),
    };
    let value = graph.nodes[offset.node_idx].output(0).cloned().ok_or("makes nothing")?;
    Ok(Output { node_idx, value, axis, n_channels, offset, bias, weight })
}

fn stays(reason: &str) -> String {
    format!("stays as it is: {reason}")
}

fn left(node: &Node, reason: &str) -> Declined {
    Declined { name: Name::from(node.label().as_str()), reason: reason.to_string() }
}

fn is_own(uses: &Uses<'_>, name: &Name) -> bool {
    uses.readers(name).len() == 1 && !uses.is_output(name)
}

/// Places, each with the node whose output it changes, by how many of them lie one behind the other before it.
fn levels<T>(graph: &Graph, places: Vec<(usize, T)>) -> Vec<Vec<T>> {
    let mut places: HashMap<usize, T> = places.into_iter().collect();
    let mut behind: HashMap<&Name, usize> = HashMap::new();
    let mut levels: Vec<Vec<T>> = Vec::new();
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        let mut n_before = node.reads().filter_map(|name| behind.get(name)).copied().max().unwrap_or(0);
        if let Some(place) = places.remove(&node_idx) {
            if levels.len() <= n_before {
                levels.resize_with(n_before + 1, Vec::new);
            }
            levels[n_before].push(place);
            n_before += 1;
        }
        behind.extend(node.outputs.iter().flatten().map(|name| (name, n_before)));
    }
    levels
}

/// The graph with the channels of these places moved.
pub(super) fn applied(graph: &Graph, moved: &[(&Output, Vec<Move>)]) -> Result<Graph, PruneError> {
    let mut patch = Patch::new(graph);
    for (place, moves) in moved {
        let shifts = || moves.iter().map(|by| by.shift / place.offset.factor);
        match &place.bias {
            Some(name) => {
                let bias = graph.constant(name).expect("the bias is a constant");
                let inner: usize = bias.shape()[bias.rank() - place.offset.from_last..].iter().product();
                let shifts: Vec<f64> = shifts().collect();
                let change = |position: usize, number: f64| {
                    let channel = position / inner.max(1) % moves.len();
                    moves[channel].scale * number + shifts[channel]
                };
                patch.replace_initializer(name, changed(bias, change)?);
            }
            None => {
                let node = &graph.nodes[place.offset.node_idx];
                let base = format!("{}_bias", place.value);
                let name =
                    patch.add_initializer(&base, Tensor::vector(shifts().map(|x| x as f32).collect::<Vec<f32>>()));
                let mut with_bias = node.clone();
                with_bias.inputs.resize(with_bias.inputs.len().max(place.offset.position + 1), None);
                with_bias.inputs[place.offset.position] = Some(name);
                patch.replace(place.offset.node_idx, vec![with_bias]);
            }
        }
        if let Some((name, matrices)) = &place.weight {
            let weight = graph.constant(name).expect("the weight is a constant");
            let mut scales = vec![1f64; weight.len()];
            for (channel, by) in moves.iter().enumerate() {
                let (group, row) = (channel / matrices.n_rows, channel % matrices.n_rows);
                (0..matrices.n_columns).for_each(|column| scales[matrices.position(group, row, column)] = by.scale);
            }
            patch.replace_initializer(name, changed(weight, |position, number| scales[position] * number)?);
        }
    }
    Ok(patch.apply(None)?)
}

fn changed(tensor: &Tensor, change: impl Fn(usize, f64) -> f64) -> Result<Tensor, PruneError> {
    let numbers = tensor.as_slice::<f32>()?.iter().enumerate();
    Ok(Tensor::new(tensor.shape(), numbers.map(|(position, &x)| change(position, f64::from(x)) as f32).collect())?)
}
