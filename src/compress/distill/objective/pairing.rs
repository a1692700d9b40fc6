//! Which values of student and teacher belong together, where a mix does not say.
//!
//! Found by shape and structure, not by name: images by their resolution, encoder layers by their place among the layers, the
//! features before the last linear map by that map. What is not found is refused, with what to name instead.

use std::collections::HashSet;

use super::options::{Mix, Objective, Pair};
use super::site::Ends;
use crate::compress::distill::DistillError;
use crate::graph::shape::{Bindings, Types, infer};
use crate::graph::structure::blocks::{Attention, EncoderLayer, Structure, structure};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, Op};

/// The mix with every empty list of pairs filled in.
///
/// - `hint` and `vid`: encoder layers, else the last image of each resolution, else the features before the last linear map;
///   `attention-transfer` and `nst`: the last image of each resolution; `similarity`: the last of what `hint` compares.
/// - `relational`, `pkt`, `crd`: the features before the last linear map.
/// - `fsp`: the first and the last residual block of each resolution.
/// - `tinybert-hidden`, `tinybert-attention`: layer `m` of `M` and layer `m N / M` of `N`, rounded down: Jiao et al., "TinyBERT" (2020),
///   section 3.1. `tinybert-embedding`: what the first layers read. `minilm`, `minilm-v2`: the last layers.
///
/// # Errors
/// When a network has nothing of what an objective compares, or not enough of it.
pub fn resolve(mix: &Mix, student: (&Graph, &Name), teacher: (&Graph, &Name)) -> Result<Mix, DistillError> {
    let mut mix = mix.clone();
    let is_open = |objective: &mut Objective| objective.pairs_mut().iter().any(|pairs| pairs.is_empty());
    let mut open: Vec<&mut Objective> = mix.loss.iter_mut().map(|term| &mut term.objective).collect();
    open.retain_mut(|objective| is_open(objective));
    if open.is_empty() {
        return Ok(mix);
    }
    let types = [infer(student.0, &Bindings::default())?, infer(teacher.0, &Bindings::default())?];
    let both = [Parts::of(student, &types[0]), Parts::of(teacher, &types[1])];
    for objective in open {
        let found = found(objective, &both)?;
        for (pairs, found) in objective.pairs_mut().into_iter().zip(found) {
            if pairs.is_empty() {
                *pairs = found;
            }
        }
    }
    Ok(mix)
}

/// What is known of a network.
struct Parts<'a> {
    graph: &'a Graph,
    types: &'a Types,
    structure: Structure,
    ends: Ends,
}

impl<'a> Parts<'a> {
    fn of((graph, output): (&'a Graph, &Name), types: &'a Types) -> Parts<'a> {
        Parts { graph, types, structure: structure(graph, types), ends: Ends::of(graph, output) }
    }
}

/// The lists of pairs of an objective, in the order of [`Objective::pairs_mut`].
fn found(objective: &Objective, both: &[Parts<'_>; 2]) -> Result<Vec<Vec<Pair>>, DistillError> {
    let name = objective.name();
    let one = |pairs: Result<Vec<Pair>, String>| {
        pairs.map(|pairs| vec![pairs]).map_err(|problem| DistillError::Unfit {
            objective: name,
            problem,
            remedy: "name the values: `pairs = [[\"of the student\", \"of the teacher\"]]`",
        })
    };
    let several = |lists: Result<Vec<Vec<Pair>>, String>| {
        let remedy = "name the values of each list: `[[\"of the student\", \"of the teacher\"]]`";
        lists.map_err(|problem| DistillError::Unfit { objective: name, problem, remedy })
    };
    match objective {
        Objective::Kd { .. }
        | Objective::SoftCrossEntropy { .. }
        | Objective::Mse {}
        | Objective::Dkd { .. }
        | Objective::Dist { .. }
        | Objective::Binary { .. }
        | Objective::Regression { .. } => Ok(Vec::new()),
        Objective::Hint { .. } | Objective::Vid { .. } => one(inner(both)),
        Objective::AttentionTransfer { .. } | Objective::Nst { .. } => one(stages(both)),
        Objective::Similarity { .. } => {
            one(inner(both).map(|pairs| pairs.into_iter().next_back().into_iter().collect()))
        }
        Objective::Relational { .. } | Objective::Pkt { .. } | Objective::Crd { .. } => one(features(both)),
        Objective::Fsp { .. } => one(flows(both)),
        Objective::TinybertHidden { .. } => {
            one(layers(both).map(|layers| layers.iter().map(|[s, t]| pair(&s.span.exit, &t.span.exit)).collect()))
        }
        Objective::TinybertEmbedding { .. } => one(first_layers(both)),
        Objective::TinybertAttention { .. } => one(layers(both).and_then(|layers| {
            let scores = |[s, t]: &[&EncoderLayer; 2]| {
                Ok(pair(
                    plain_scores(&both[0], attention(&both[0], s)?)?,
                    plain_scores(&both[1], attention(&both[1], t)?)?,
                ))
            };
            layers.iter().map(scores).collect()
        })),
        Objective::Minilm { .. } => several(last_attentions(both).and_then(|[s, t]| {
            let scores = pair(scores(&both[0], s)?, scores(&both[1], t)?);
            Ok(vec![vec![scores], vec![pair(&s.values, &t.values)]])
        })),
        Objective::MinilmV2 { .. } => several(last_attentions(both).and_then(|[s, t]| {
            check_keys(&both[0], s)?;
            check_keys(&both[1], t)?;
            let named = [(&s.queries, &t.queries), (&s.keys, &t.keys), (&s.values, &t.values)];
            Ok(named.into_iter().map(|(s, t)| vec![pair(s, t)]).collect())
        })),
    }
}

fn pair(student: &Name, teacher: &Name) -> Pair {
    Pair { student: student.clone(), teacher: teacher.clone() }
}

/// Layers, else images, else features.
fn inner(both: &[Parts<'_>; 2]) -> Result<Vec<Pair>, String> {
    let layers = || layers(both).map(|layers| layers.iter().map(|[s, t]| pair(&s.span.exit, &t.span.exit)).collect());
    let none = |_| "the networks have no encoder layers, images or last features in common".to_string();
    layers().or_else(|_| stages(both)).or_else(|_| features(both)).map_err(none)
}

/// The last image of each resolution, outside of attentions: by resolution where both networks have one in common, else in order from the end.
fn stages(both: &[Parts<'_>; 2]) -> Result<Vec<Pair>, String> {
    let [s, t] = [&both[0], &both[1]].map(resolutions);
    let same = s.iter().filter_map(|(size, s)| {
        let (_, t) = t.iter().find(|(other, _)| other == size)?;
        Some(pair(s, t))
    });
    let mut pairs: Vec<Pair> = same.collect();
    if pairs.is_empty() {
        pairs = s.iter().rev().zip(t.iter().rev()).map(|((_, s), (_, t))| pair(s, t)).collect();
        pairs.reverse();
    }
    if pairs.is_empty() {
        let which = if s.is_empty() { "student" } else { "teacher" };
        return Err(format!("the {which} has no images, [batch, channels, height, width], before its last layers"));
    }
    Ok(pairs)
}

/// The resolutions of a network's images, in order, each with the last of those that something of another resolution reads.
/// One pixel is none.
fn resolutions<'a>(parts: &Parts<'a>) -> Vec<([usize; 2], &'a Name)> {
    let uses = Uses::of(parts.graph);
    let mut activations: HashSet<&Name> = parts.graph.inputs.iter().map(|input| &input.name).collect();
    let mut found: Vec<([usize; 2], &Name)> = Vec::new();
    let attentions = parts.structure.attentions.iter().flat_map(|attention| &attention.nodes);
    // heads of tokens have four axes, too
    let attentions: HashSet<usize> = attentions.copied().collect();
    for (node_idx, node) in parts.graph.nodes.iter().enumerate() {
        if !node.reads().any(|name| activations.contains(name)) {
            continue;
        }
        activations.extend(node.outputs.iter().flatten());
        let Some((name, size)) = node.output(0).and_then(|name| Some((name, resolution(parts, name)?))) else {
            continue;
        };
        let mut readers = uses.readers(name).iter().filter_map(|reader| parts.graph.nodes.get(reader.node_idx));
        let is_last = |node: &Node| node.output(0).and_then(|name| resolution(parts, name)) != Some(size);
        if size != [1, 1] && !attentions.contains(&node_idx) && readers.any(is_last) {
            found.retain(|(other, _)| *other != size);
            found.push((size, name));
        }
    }
    found
}

/// Height and width of an image.
fn resolution(parts: &Parts<'_>, name: &Name) -> Option<[usize; 2]> {
    let known = parts.types.tensor(name).filter(|known| known.dtype.is_float())?;
    match known.shape.as_deref()? {
        [_, _, height, width] => Some([height.known()?, width.known()?]),
        _ => None,
    }
}

/// What the last linear map reads.
fn features(both: &[Parts<'_>; 2]) -> Result<Vec<Pair>, String> {
    let missing = |side| format!("the {side}'s logits are not made by a linear map of inner values");
    let s = last_features(&both[0]).ok_or_else(|| missing("student"))?;
    let t = last_features(&both[1]).ok_or_else(|| missing("teacher"))?;
    Ok(vec![pair(s, t)])
}

fn last_features<'a>(parts: &Parts<'a>) -> Option<&'a Name> {
    let uses = Uses::of(parts.graph);
    let is_constant = |name: &Name| parts.graph.initializers.contains_key(name);
    let mut node = uses.producer(&parts.ends.logits)?;
    while let Op::Add | Op::Identity = node.op {
        let input = node.inputs.iter().flatten().find(|name| !is_constant(name))?;
        node = uses.producer(input)?;
    }
    let mut features = match node.op {
        Op::Gemm(_) | Op::MatMul => node.input(0).filter(|name| !is_constant(name))?,
        _ => return None,
    };
    loop {
        match uses.producer(features) {
            Some(Node { op: Op::Dropout(_) | Op::Identity, inputs, .. }) => features = inputs.first()?.as_ref()?,
            // an input of the network is not what the student has made of it
            found => return found.map(|_| features),
        }
    }
}

/// The first and the last residual block of each resolution that both networks have.
fn flows(both: &[Parts<'_>; 2]) -> Result<Vec<Pair>, String> {
    let [s, t] = [&both[0], &both[1]].map(|parts| {
        let mut ends: Vec<([usize; 2], &Name, &Name)> = Vec::new();
        for exit in parts.structure.residual_blocks.iter().map(|block| &block.span.exit) {
            let Some(size) = resolution(parts, exit) else { continue };
            match ends.iter_mut().find(|(other, ..)| *other == size) {
                Some((.., last)) => *last = exit,
                None => ends.push((size, exit, exit)),
            }
        }
        ends.retain(|(_, first, last)| first != last);
        ends
    });
    let same = s.iter().filter_map(|(size, first, last)| {
        let (_, first_t, last_t) = t.iter().find(|(other, ..)| other == size)?;
        Some([pair(first, first_t), pair(last, last_t)])
    });
    let pairs: Vec<Pair> = same.flatten().collect();
    if pairs.is_empty() {
        Err("the networks have no resolution with two residual blocks in common".to_string())
    } else {
        Ok(pairs)
    }
}

/// The student's layers, each with the teacher's at the same share of the way.
fn layers<'p>(both: &'p [Parts<'_>; 2]) -> Result<Vec<[&'p EncoderLayer; 2]>, String> {
    let [s, t] = [&both[0].structure.encoder_layers, &both[1].structure.encoder_layers];
    if s.is_empty() || t.len() < s.len() {
        return Err(format!("the student has {} encoder layers, the teacher {}", s.len(), t.len()));
    }
    let layer = |(idx, layer)| Some([layer, t.get((idx + 1) * t.len() / s.len() - 1)?]);
    Ok(s.iter().enumerate().filter_map(layer).collect())
}

fn first_layers(both: &[Parts<'_>; 2]) -> Result<Vec<Pair>, String> {
    let first = |parts: &Parts<'_>| parts.structure.encoder_layers.first().map(|layer| layer.span.entry.clone());
    match (first(&both[0]), first(&both[1])) {
        (Some(s), Some(t)) => Ok(vec![pair(&s, &t)]),
        (None, _) => Err("the student has no encoder layer".to_string()),
        (_, None) => Err("the teacher has no encoder layer".to_string()),
    }
}

fn last_attentions<'p>(both: &'p [Parts<'_>; 2]) -> Result<[&'p Attention; 2], String> {
    let last = |parts: &'p Parts<'_>, side| {
        let layer = parts.structure.encoder_layers.last().ok_or_else(|| format!("the {side} has no encoder layer"))?;
        attention(parts, layer)
    };
    Ok([last(&both[0], "student")?, last(&both[1], "teacher")?])
}

fn attention<'p>(parts: &'p Parts<'_>, layer: &EncoderLayer) -> Result<&'p Attention, String> {
    let first = layer.attentions.first().and_then(|&idx| parts.structure.attentions.get(idx));
    first.ok_or_else(|| format!("the layer {} has no attention", layer.span))
}

/// What the softmax of an attention reads.
fn scores<'a>(parts: &Parts<'a>, attention: &Attention) -> Result<&'a Name, String> {
    let softmax = parts.graph.nodes.get(attention.softmax).filter(|_| attention.softmax != attention.scores);
    let scores = softmax.and_then(|node| node.input(0));
    scores.ok_or_else(|| format!("the scores of `{}` are inside of one operator", attention.output))
}

/// The scores before a mask hides any: the product, scaled.
fn plain_scores<'a>(parts: &Parts<'a>, attention: &Attention) -> Result<&'a Name, String> {
    scores(parts, attention)?;
    let uses = Uses::of(parts.graph);
    let product = parts.graph.nodes.get(attention.scores).and_then(|node| node.output(0));
    let mut scores = product.ok_or_else(|| format!("the scores of `{}` have no name", attention.output))?;
    let is_factor =
        |name: &Name| parts.types.known_shape(name).is_some_and(|shape| shape.iter().product::<usize>() == 1);
    while let Some(node) = uses.sole_reader(scores).and_then(|reader| parts.graph.nodes.get(reader.node_idx)) {
        let is_scaled = match node.op {
            Op::Mul | Op::Div => node.inputs.iter().flatten().any(is_factor),
            Op::Identity => true,
            _ => false,
        };
        match node.output(0).filter(|_| is_scaled) {
            Some(output) => scores = output,
            None => break,
        }
    }
    Ok(scores)
}

/// Keys of four axes are transposed where they enter a MatMul, and only there.
fn check_keys(parts: &Parts<'_>, attention: &Attention) -> Result<(), String> {
    let is_matmul = parts.graph.nodes.get(attention.scores).is_some_and(|node| matches!(node.op, Op::MatMul));
    let rank = parts.types.tensor(&attention.keys).and_then(|known| known.rank());
    if is_matmul || rank == Some(3) {
        return Ok(());
    }
    Err(format!("the keys `{}` do not enter a MatMul, and their axes are not known", attention.keys))
}
