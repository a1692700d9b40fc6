//! Fully connected layers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ZooError;
use super::layers::{Activation, Net};
use crate::graph::Graph;
use crate::graph::op::{self, Op};

/// Hidden layers, each a linear map and an activation, and a linear map to the outputs.
///
/// Input: numbers of any fixed shape, which is flattened.
///
/// Names: `layers.{i}.weight`, `layers.{i}.bias`; with `batch_norm` also `norms.{i}.*`; `head.weight`, `head.bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mlp {
    /// The size of each hidden layer; none makes a linear model.
    pub hidden: Vec<usize>,
    /// After each hidden layer.
    pub activation: Activation,
    /// Whether a batch normalisation stands before each activation.
    pub batch_norm: bool,
    /// The share of elements dropped after each activation.
    pub dropout: f32,
}

impl Default for Mlp {
    fn default() -> Mlp {
        Mlp { hidden: vec![128, 128], activation: Activation::Relu, batch_norm: false, dropout: 0.0 }
    }
}

pub(super) fn build(parameters: &Mlp, mut net: Net<'_>) -> Result<Graph, ZooError> {
    net.check_sizes("hidden", &parameters.hidden)?;
    net.check_dropout(parameters.dropout)?;
    let (mut value, shape) = net.numbers()?;
    let mut size = shape.iter().product();
    if shape.len() != 1 {
        value = net.node("input.flatten", Op::Flatten(op::Flatten::default()), &[&value]);
    }
    for (idx, &n_units) in parameters.hidden.iter().enumerate() {
        let path = format!("layers.{idx}");
        value = net.linear(&path, &value, size, n_units);
        if parameters.batch_norm {
            value = net.batch_norm(&format!("norms.{idx}"), &value, n_units);
        }
        value = net.activation(&path, parameters.activation, &value);
        if idx + 1 < parameters.hidden.len() {
            value = net.dropout(&format!("{path}.dropout"), &value, parameters.dropout);
        }
        size = n_units;
    }
    let dropout = if parameters.hidden.is_empty() { 0.0 } else { parameters.dropout };
    net.finish("head", &value, size, dropout)
}
