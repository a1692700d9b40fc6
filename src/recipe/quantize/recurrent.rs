//! Recurrent operators written out, so that integers reach their products; and left whole where that turns out quicker.

use super::{Left, Quantized, Work, as_asked, ready, weights_alone};
use crate::compress::quantize::QuantizeError;
use crate::compress::quantize::options::{Choice, QuantizeOptions, Recurrent, Target};
use crate::graph::probe::{Score as _, TimeRatio};
use crate::graph::shape::{self, Bindings};
use crate::graph::unroll::unroll;
use crate::graph::{Graph, Model, Op, simplify};
use crate::measure::runtime::Runtime;
use crate::recipe::RecipeError;
use crate::recipe::look::Look;
use crate::recipe::samples::Samples;

/// Quantizes a network. `runtime` runs the samples; `told` how many are done. `known` are the nodes of which a run before has found
/// that they had better stay in floats; where nobody has looked, they are looked for now.
///
/// Recurrent operators that are written out are held against the network in which they are whole, too, where anything is timed:
/// where the steps are slower, they stay whole.
///
/// # Errors
/// When the options cannot be carried out on the network, samples are missing or do not fit, or the runtime fails.
pub fn quantize(
    model: &Model,
    options: &QuantizeOptions,
    target: Target,
    samples: Option<&Samples>,
    runtime: &dyn Runtime,
    known: Option<&Left>,
    told: &mut dyn FnMut(u64),
) -> Result<Quantized, RecipeError> {
    let is_known_whole = known.is_some_and(|known| known.recurrent_whole);
    let mut why_whole = is_known_whole.then(|| "recurrent operators stay whole, as was found before".to_string());
    if !is_known_whole {
        let mut quantized = as_asked(model, options, target, samples, runtime, known, told)?;
        let is_written_out = n_recurrent(&quantized.model.graph) < n_recurrent(&model.graph);
        if !is_written_out || known.is_some() || !Left::seeks_slow(options, target) {
            return Ok(quantized);
        }
        let ratio = time_ratio(model, &quantized.model, samples, options, runtime)?;
        let TimeRatio { low, median, high } = ratio;
        let of_time = format!("{median:.2} [{low:.2}, {high:.2}] of its time");
        let whole = "with recurrent operators whole in floats";
        let found = format!("written out and narrow, the network takes {of_time} {whole} on {}", runtime.name());
        if low <= 1.0 && !quantized.report.integer.is_empty() {
            quantized.report.notes.push(found);
            return Ok(quantized);
        }
        why_whole = Some(format!("{found}: they stay whole; `keep_slow` keeps them written out"));
    }
    let whole = QuantizeOptions { recurrent: Recurrent::Keep, ..options.clone() };
    let mut quantized = match as_asked(model, &whole, target, samples, runtime, known, told) {
        // Nothing but recurrent operators: what is left are their weights.
        Err(RecipeError::Quantize(QuantizeError::Nothing { .. })) => {
            let ready = ready(model, &whole, target)?;
            weights_alone(&Work::new(&ready, samples, &whole, target, runtime, told), &[])?
        }
        quantized => quantized?,
    };
    quantized.left.get_or_insert_default().recurrent_whole = true;
    quantized.report.notes.extend(why_whole);
    Ok(quantized)
}

fn n_recurrent(graph: &Graph) -> usize {
    graph.nodes.iter().filter(|node| matches!(node.op, Op::RNN(_) | Op::GRU(_) | Op::LSTM(_))).count()
}

/// The time of a network over that of another, on a sample.
fn time_ratio(
    before: &Model,
    after: &Model,
    samples: Option<&Samples>,
    options: &QuantizeOptions,
    runtime: &dyn Runtime,
) -> Result<TimeRatio, RecipeError> {
    let types = shape::infer(&before.graph, &Bindings::default())?;
    let look = Look { model: before, types: &types, samples, n_samples: options.samples, runtime, told: &mut |_| () };
    let written = |graph: &Graph| Ok(graph.clone());
    let ratio = look.scorer(&written)?.time_ratio(&before.graph, &after.graph);
    Ok(ratio.map_err(QuantizeError::from)?)
}

/// The tidied network with its recurrent operators written out where the options ask for it, and in words what was done.
///
/// # Errors
/// When the result does not fit: a fault of aludel's.
pub(super) fn written_out(model: Model, options: &QuantizeOptions) -> Result<(Model, Vec<String>), RecipeError> {
    if options.recurrent == Recurrent::Keep {
        return Ok((model, Vec::new()));
    }
    let types = shape::infer(&model.graph, &Bindings::default())?;
    let unrolled = unroll(&model.graph, &types)?;
    let mut notes: Vec<String> = unrolled.done.iter().map(|node| format!("written out step by step: {node}")).collect();
    let declined = unrolled.declined.iter();
    notes.extend(declined.map(|declined| format!("{} is not written out: {}", declined.node, declined.reason)));
    if notes.is_empty() {
        notes.push("written out step by step: nothing, for it has no recurrent operator".to_string());
    }
    let tidy = simplify::Options { opset: Some(model.opset), ..Default::default() };
    let graph = simplify::simplify(&unrolled.graph, &tidy)?.graph;
    Ok((model.with_graph(graph), notes))
}

/// One scale for the states of all steps: they come together in a Concat, which then moves integers.
pub(super) fn share_scales(choice: &mut Choice, options: &QuantizeOptions) {
    if options.recurrent == Recurrent::Keep || choice.scheme.one_scale.iter().any(|name| name == "Concat") {
        return;
    }
    choice.scheme.one_scale.push("Concat".to_string());
    let reason =
        "one scale for all that a Concat joins: the states of a recurrent operator's steps then meet as integers";
    choice.reasons.push(reason.to_string());
}
