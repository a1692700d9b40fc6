//! What a quantization's options do to a network of floats before its values are calibrated, and to its biases after.

use indexmap::IndexMap;

use super::RecipeError;
use super::look::Look;
use super::quantize::{Calibrated, Ready, Work};
use super::samples::Samples;
use crate::compress::quantize::options::{Form, QuantizeOptions};
use crate::compress::quantize::prepare::{
    Declined, Prepared, absorb_high_bias, absorb_values, correct_biases, correct_values, equalize, smooth,
    smooth_values,
};
use crate::graph::shape::{self, Bindings};
use crate::graph::{Graph, Name};
use crate::measure::runtime::Runtime;

/// What channels are looked at for.
const MISSING: &str =
    "`equalize`, `smooth` and `bias_correction` look at channels of activations, which no ranges hold; give samples";

/// The network with its channels equalized and smoothed as the options say, and in words what was done. The samples are run anew for
/// each step that needs them: it must see what the step before has made.
///
/// # Errors
/// When a step cannot be done, or its samples are missing.
pub(super) fn prepare(
    ready: &Ready,
    samples: Option<&Samples>,
    options: &QuantizeOptions,
    runtime: &dyn Runtime,
    told: &mut dyn FnMut(u64),
) -> Result<(Ready, Vec<String>), RecipeError> {
    let changes_values = options.equalize || options.smooth.is_some();
    if changes_values && ready.choice.form != Form::Weights && matches!(samples, Some(Samples::Ranges(_))) {
        let problem = "may be of other channels than `equalize` and `smooth` make: give samples";
        return Err(RecipeError::Part { part: "ranges".to_string(), problem: problem.to_string() });
    }
    let mut ready = ready.clone();
    let mut notes = std::mem::take(&mut ready.notes);
    let mut seen = |ready: &Ready, values: IndexMap<Name, usize>| match values.is_empty() {
        true => Ok(IndexMap::new()),
        false => {
            let Ready { model, types, .. } = ready;
            Look { model, types, samples, n_samples: options.samples, runtime, told: &mut *told }
                .channels(&values, MISSING)
        }
    };
    if options.equalize {
        let equalized = equalize(&ready.model.graph, &ready.types)?;
        take(&mut ready, equalized, "equalized", &mut notes)?;
        // Weights alone gain nothing by narrower activations.
        if !matches!(ready.choice.form, Form::Weights | Form::MatMulNBits) {
            let seen = seen(&ready, absorb_values(&ready.model.graph, &ready.types))?;
            let absorbed = absorb_high_bias(&ready.model.graph, &ready.types, &seen)?;
            // Why not is as with the equalization, or padding: nothing that a user could change.
            let absorbed = Prepared { declined: Vec::new(), ..absorbed };
            if !absorbed.done.is_empty() {
                take(&mut ready, absorbed, "freed of high biases", &mut notes)?;
            }
        }
    }
    if let Some(alpha) = options.smooth {
        let seen = seen(&ready, smooth_values(&ready.model.graph, &ready.types))?;
        let smoothed = smooth(&ready.model.graph, &ready.types, &seen, alpha)?;
        take(&mut ready, smoothed, "smoothed", &mut notes)?;
    }
    Ok((ready, notes))
}

/// The network with biases that make up for the rounding of its weights where the options ask for it, and in words what was done.
///
/// # Errors
/// When its samples are missing.
pub(super) fn correct(work: &mut Work<'_>, calibrated: &mut Calibrated) -> Result<(Graph, Vec<String>), RecipeError> {
    let Work { look, options, .. } = work;
    let graph = &look.model.graph;
    if !options.bias_correction {
        return Ok((graph.clone(), Vec::new()));
    }
    let seen = look.channels(&correct_values(graph, look.types, &calibrated.plan), MISSING)?;
    let corrected = correct_biases(graph, look.types, &calibrated.plan, &calibrated.scales, &seen)?;
    calibrated.plan = corrected.plan;
    Ok((corrected.graph, notes("corrected by its bias", &corrected.done, &corrected.declined)))
}

fn take(ready: &mut Ready, step: Prepared, what: &str, said: &mut Vec<String>) -> Result<(), RecipeError> {
    said.extend(notes(what, &step.done, &step.declined));
    ready.model = ready.model.with_graph(step.graph);
    ready.types = shape::infer(&ready.model.graph, &Bindings::default())?;
    Ok(())
}

fn notes(what: &str, done: &[String], declined: &[Declined]) -> Vec<String> {
    let first = match done {
        [] => format!("{what}: nothing"),
        [node] => format!("{what}: {node}"),
        [first, .., last] => format!("{what}: {} nodes, {first} to {last}", done.len()),
    };
    let left = declined.iter().map(|Declined { node, reason }| format!("not {what}: {node}: {reason}"));
    std::iter::once(first).chain(left).collect()
}
