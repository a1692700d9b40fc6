//! Two files of one network side by side on a runtime, value by value.

use indexmap::IndexMap;
use serde::Serialize;

use super::{RecipeError, probe};
use crate::compress::quantize::debug::{ValueError, WeightError, common_values, value_errors, weight_errors};
use crate::graph::shape::{self, Bindings};
use crate::graph::simplify;
use crate::graph::tensor::Tensor;
use crate::graph::{Model, Name};
use crate::measure::runtime::Runtime;

/// How far a quantized network is off, value by value and weight by weight.
#[derive(Clone, Debug, Serialize)]
pub struct Layers {
    /// The runtime that both ran on.
    pub runtime: String,
    /// Batches of inputs that were run.
    pub n_runs: usize,
    /// Inner values that both networks have; the one to which its operator adds most noise comes first.
    pub values: Vec<ValueError>,
    /// Weights that are not the same, the worst first.
    pub weights: Vec<WeightError>,
}

/// Runs a network of floats and a quantized one on the same inputs, and compares their inner values by name. An inner value that is
/// looked at cannot be fused away: what is compared is the arithmetic of the Q/DQ form, which integer kernels follow within a step.
///
/// # Errors
/// When a network cannot be run, or they have no inner value in common.
pub fn layers(
    float: &Model,
    quantized: &Model,
    inputs: &[IndexMap<Name, Tensor>],
    runtime: &dyn Runtime,
) -> Result<Layers, RecipeError> {
    // As quantization does first: batch normalizations are in the weights.
    let options = simplify::Options { opset: Some(float.opset), ..simplify::Options::default() };
    let float = &float.with_graph(simplify::simplify(&float.graph, &options)?.graph);
    let [types, their_types] = [float, quantized].map(|model| shape::infer(&model.graph, &Bindings::default()));
    let values = common_values(&float.graph, &types?, &quantized.graph, &their_types?);
    if values.is_empty() {
        let problem =
            "have no inner value of floats in common: compare the Q/DQ form with the file that it was made of";
        return Err(RecipeError::Part { part: "layers".to_string(), problem: problem.to_string() });
    }
    let mut ours = probe::open(runtime, float, &values, "the network of floats")?;
    let mut theirs = probe::open(runtime, quantized, &values, "the quantized network")?;
    let batches = inputs.iter().cloned().map(Ok::<_, RecipeError>);
    Ok(Layers {
        runtime: runtime.name().to_string(),
        n_runs: inputs.len(),
        values: value_errors(&float.graph, &values, ours.as_mut(), theirs.as_mut(), batches)?,
        weights: weight_errors(&float.graph, &quantized.graph)?,
    })
}
