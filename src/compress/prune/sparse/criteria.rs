//! What each element of a plan's weights scores: the less, the sooner it goes.

use rand::RngExt as _;

use super::super::PruneError;
use super::layout::Layout;
use super::plan::Plan;
use crate::graph::Graph;
use crate::learn::train::init::generator;

/// `|w|`
pub(super) fn magnitude(graph: &Graph, plan: &Plan) -> Result<Vec<Vec<f32>>, PruneError> {
    let of_weight = |weights: &[f32]| weights.iter().map(|weight| weight.abs()).collect();
    plan.operands.iter().map(|operand| Ok(of_weight(operand.constant(graph)?.as_slice::<f32>()?))).collect()
}

/// Drawn from the seed and the weight's name.
pub(super) fn random(graph: &Graph, plan: &Plan, seed: u64) -> Vec<Vec<f32>> {
    let known = plan.operands.iter().filter(|operand| graph.initializers.contains_key(&operand.name));
    known.map(|operand| drawn(operand.layout.n_weights(), &operand.name, seed)).collect()
}

/// So many numbers for a weight of this name.
pub(super) fn drawn(n: usize, name: &str, seed: u64) -> Vec<f32> {
    let mut generator = generator(seed, &format!("sparse {name}"));
    (0..n).map(|_| generator.random::<f32>()).collect()
}

/// `|g · w|` with the gradients of each weight.
pub(super) fn snip(graph: &Graph, plan: &Plan, gradients: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, PruneError> {
    let operands = plan.operands.iter().zip(gradients);
    operands.map(|(operand, gradient)| Ok(sensitivity(operand.constant(graph)?.as_slice::<f32>()?, gradient))).collect()
}

/// `|g · w|`
pub(super) fn sensitivity(weights: &[f32], gradients: &[f32]) -> Vec<f32> {
    weights.iter().zip(gradients).map(|(weight, gradient)| (weight * gradient).abs()).collect()
}

/// `|w| · ‖x‖₂`, the norm from the moments of each group: over the number of vectors, which is the same for all.
pub(super) fn wanda(layout: &Layout, weights: &[f32], moments: &[Vec<f64>]) -> Vec<f32> {
    let matrices = layout.matrices;
    let mut scores = vec![0f32; weights.len()];
    for (group, moments) in moments.iter().enumerate() {
        for column in 0..matrices.n_columns {
            let norm = moments[column * matrices.n_columns + column].max(0.0).sqrt();
            for row in 0..matrices.n_rows {
                let position = matrices.position(group, row, column);
                scores[position] = (f64::from(weights[position].abs()) * norm) as f32;
            }
        }
    }
    scores
}
