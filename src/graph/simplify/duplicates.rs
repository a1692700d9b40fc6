//! What is there twice: constants of the same content, nodes that compute the same.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::edits::Edits;
use super::view::View;
use crate::graph::op::Op;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Name, Node};

/// What equal constants have in common: element type, shape, and the hash of [`sampled`].
type Kind<'a> = (DType, &'a [usize], u64);

/// Lets everything read the first of several equal constants. Vectors of one and the same float, biases of zeros and gains
/// of ones, are equal by accident and would be tied by it when the network is trained on: they stay apart.
pub(super) fn constants(view: &View<'_>, edits: &mut Edits) {
    let mut first: HashMap<Kind<'_>, Vec<(&Name, &Tensor)>> = HashMap::new();
    for (name, tensor) in &view.graph.initializers {
        if view.graph.overridable.contains(name) || is_uniform(tensor) {
            continue;
        }
        let alike = first.entry((tensor.dtype(), tensor.shape(), sampled(tensor))).or_default();
        match alike.iter().find(|(_, other)| *other == tensor) {
            Some((kept, _)) if !view.uses.is_output(name) => {
                edits.apply(format!("constant `{name}`")).replace_uses(name, kept);
            }
            Some(_) => {}
            None => alike.push((name, tensor)),
        }
    }
}

fn is_uniform(tensor: &Tensor) -> bool {
    let all_same = |bytes: &[u8], size: usize| bytes.chunks(size).all(|chunk| bytes.starts_with(chunk));
    let size = tensor.dtype().n_bits() / 8;
    let bytes = tensor.bytes().filter(|_| tensor.dtype().is_float() && size > 0 && tensor.len() > 1);
    bytes.is_some_and(|bytes| all_same(bytes, size))
}

/// A hash of some of the bytes, spread over the tensor: equal tensors have the same, and weights of a gigabyte need not be
/// read to see that they differ.
fn sampled(tensor: &Tensor) -> u64 {
    const N_SAMPLES: usize = 64;
    let mut hasher = DefaultHasher::new();
    match (tensor.bytes(), tensor.strings()) {
        (Some(bytes), _) => {
            let step = (bytes.len() / N_SAMPLES).max(1);
            bytes.iter().step_by(step).for_each(|byte| byte.hash(&mut hasher));
        }
        (None, Some(strings)) => strings.hash(&mut hasher),
        (None, None) => {}
    }
    hasher.finish()
}

/// Lets everything read the outputs of the first of several nodes that compute the same from the same values.
pub(super) fn nodes(view: &View<'_>, edits: &mut Edits) {
    let mut kept: HashMap<&str, &Name> = HashMap::new();
    let mut first: HashMap<(&str, Vec<Option<&str>>), Vec<&Node>> = HashMap::new();
    for (node_idx, node) in view.graph.nodes.iter().enumerate().filter(|(_, node)| repeats_itself(&node.op)) {
        let key = node.inputs.iter().map(|name| {
            let name = name.as_ref()?.as_str();
            Some(kept.get(name).map_or(name, |kept| kept.as_str()))
        });
        let alike = first.entry((node.op.name(), key.collect())).or_default();
        let Some(other) = alike.iter().find(|other| covers(other, node)) else {
            alike.push(node);
            continue;
        };
        let pairs = node.outputs.iter().zip(&other.outputs);
        let pairs: Vec<(&Name, &Name)> = pairs.filter_map(|(old, new)| old.as_ref().zip(new.as_ref())).collect();
        if pairs.iter().all(|(old, new)| view.can_become(old, new))
            && let Some(patch) = edits.take(&[node_idx])
        {
            patch.remove(node_idx);
            for (old, new) in pairs {
                patch.replace_uses(old, new);
                kept.insert(old, new);
            }
        }
    }
}

/// Whether an operator gives the same for the same inputs, and holds no graph that reads others.
fn repeats_itself(op: &Op) -> bool {
    match op {
        Op::Opaque(_) | Op::Dropout(_) => false,
        other => other.bodies().is_empty(),
    }
}

/// Whether a node computes what another of the same inputs does, and every output that the other has.
fn covers(node: &Node, other: &Node) -> bool {
    let has = |position: usize, output: &Option<Name>| output.is_none() || node.output(position).is_some();
    node.op == other.op && other.outputs.iter().enumerate().all(|(position, output)| has(position, output))
}
