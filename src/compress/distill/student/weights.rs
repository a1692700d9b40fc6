//! What becomes of inherited weights: scaled, or begun anew.

use super::{Inherit, StudentError};
use crate::graph::patch::Patch;
use crate::graph::shape::{Bindings, infer};
use crate::graph::structure::groups::{Role as AxisRole, groups};
use crate::graph::{Graph, Name, Node, Op};
use crate::learn::train::floats::tensor_of;
use crate::learn::train::init::{Initialisation, Scheme, initialise};
use crate::learn::train::roles::{Role, roles};

/// The network with its weights as they are to be.
pub(super) fn apply(graph: &Graph, inherit: Inherit, seed: u64) -> Result<Graph, StudentError> {
    let scheme = match inherit {
        Inherit::Whole => return Ok(graph.clone()),
        Inherit::Scaled(factor) => Scheme::Scaled(factor),
        Inherit::Fresh => Scheme::default(),
    };
    let types = infer(graph, &Bindings::default())?;
    let roles = roles(graph, &types);
    let found = groups(graph, &types);
    let made = found.groups.iter().flat_map(|group| group.with_role(AxisRole::Made)).map(|member| &member.value);
    for weight in made.chain(found.refused.iter().map(|refused| &refused.weight)) {
        if !matches!(roles.get(weight), Some(Role::Weight(_) | Role::Embedding)) {
            let weight = stored(graph, weight);
            return Err(StudentError::Weight { weight: weight.clone(), reason: reason(graph, weight) });
        }
    }
    let drawn = initialise(graph, &Initialisation { scheme, zero_gamma: false }, seed)?;
    if inherit != Inherit::Fresh {
        return Ok(drawn);
    }
    let mut patch = Patch::new(&drawn);
    for (name, role) in &roles {
        let Some(tensor) = drawn.initializers.get(name) else { continue };
        let one = match role {
            Role::Bias => false,
            Role::Scale => true,
            Role::Statistic => is_variance(&drawn, name),
            Role::Weight(_) | Role::Embedding | Role::Slope | Role::StepSize | Role::Constant => continue,
        };
        let value = if one { 1.0 } else { 0.0 };
        patch.replace_initializer(name, tensor_of(tensor.dtype(), tensor.shape(), &vec![value; tensor.len()])?);
    }
    Ok(patch.apply(Some(&types))?)
}

/// The initializer of which a weight is dequantized; itself where it is not.
fn stored<'a>(graph: &'a Graph, weight: &'a Name) -> &'a Name {
    let makes = |node: &&Node| node.outputs.first().and_then(Option::as_ref) == Some(weight);
    let maker = graph.nodes.iter().find(makes).filter(|node| matches!(node.op, Op::DequantizeLinear(_)));
    maker.and_then(|node| node.input(0)).filter(|name| graph.initializers.contains_key(*name)).unwrap_or(weight)
}

fn reason(graph: &Graph, weight: &Name) -> String {
    match graph.initializers.get(weight) {
        None => "it is a Constant node's; simplify the network first".to_string(),
        Some(tensor) if !tensor.dtype().is_float() => {
            format!("it is stored as {}; give the network before its quantization", tensor.dtype())
        }
        Some(_) => "it is read through operators that cannot be followed; simplify the network first".to_string(),
    }
}

/// Whether a statistic is a batch normalisation's variance.
fn is_variance(graph: &Graph, name: &Name) -> bool {
    graph.nodes.iter().any(|node| matches!(node.op, Op::BatchNormalization(_)) && node.input(4) == Some(name))
}
