//! Weights rounded by what a network's products read, on samples that run on a runtime.

use super::quantize::{BatchSize, Calibrated, Look, N_SAMPLES, Purpose, Samples, batches};
use super::{RecipeError, probe};
use crate::compress::quantize::QuantizeError;
use crate::compress::quantize::options::{Choice, Form, QuantizeOptions, To};
use crate::compress::quantize::parameters::Parameters;
use crate::compress::quantize::plan::{Float, WeightSite};
use crate::compress::quantize::rounding::{Rounded, Rounding, Start, Task, round, task};
use crate::graph::Graph;

/// Weights of four bits are rounded by what meets them where there are samples and nobody says otherwise: the nearest integers of
/// so few lose points.
pub(super) fn prefer(choice: &mut Choice, options: &QuantizeOptions, samples: Option<&Samples>) {
    let are_there = samples.is_some_and(|samples| !matches!(samples, Samples::Ranges(_)));
    let takes_it = matches!(choice.form, Form::Weights | Form::MatMulNBits);
    if options.to == To::Int4 && takes_it && options.rounding.is_none() && are_there {
        choice.rounding = Rounding::Gptq;
    }
}

/// A network of which these weights lie on their grids, rounded as was chosen.
pub(super) struct OnGrid {
    /// The network in floats.
    pub(super) graph: Graph,
    /// The grids, by site.
    pub(super) parameters: Vec<Vec<Parameters>>,
    /// The runtime that samples ran on, and how many there were; none where none were run.
    pub(super) seen: Option<(String, u64)>,
    /// What to say of it.
    pub(super) notes: Vec<String>,
}

/// Puts weights on their grids. Where nobody asked for the rounding that was preferred, and there is nothing to round, the nearest
/// integers are taken.
pub(super) fn on_grid(look: &mut Look<'_>, choice: &mut Choice, sites: &[WeightSite]) -> Result<OnGrid, RecipeError> {
    let start = Start::of_sites(&look.model.graph, sites)?;
    let task = task(&look.model.graph, look.types, sites);
    let nothing = nothing(&task).filter(|_| look.options.rounding.is_none());
    if choice.rounding == Rounding::Nearest || nothing.is_some() {
        let none_run = || look.samples.map(|_| "no samples were run: this form needs none".to_string());
        let why = nothing.filter(|_| choice.rounding != Rounding::Nearest);
        let notes =
            why.map(|problem| format!("weights have the nearest integers: rounding {problem}")).or_else(none_run);
        choice.rounding = Rounding::Nearest;
        let (graph, parameters) = (look.model.graph.clone(), start.parameters);
        return Ok(OnGrid { graph, parameters, seen: None, notes: notes.into_iter().collect() });
    }
    if look.options.rounding.is_none() {
        let reason = "weights rounded by GPTQ: with four bits the nearest integers lose points that it keeps";
        choice.reasons.push(reason.to_string());
    }
    let (rounded, n_samples, notes) = rounded(look, choice.rounding, &task, &start)?;
    let Rounded { graph, parameters, .. } = rounded;
    Ok(OnGrid { graph, parameters, seen: Some((look.runtime.name().to_string(), n_samples)), notes })
}

/// The network in floats whose weights are to be inserted, with the scales by which they were rounded in `calibrated`, and what to
/// say of it.
pub(super) fn plan(
    look: &mut Look<'_>,
    choice: &Choice,
    calibrated: &mut Calibrated,
) -> Result<(Graph, Vec<String>), RecipeError> {
    if choice.rounding == Rounding::Nearest {
        return Ok((look.model.graph.clone(), Vec::new()));
    }
    let start = Start::of_plan(&look.model.graph, &calibrated.plan, &calibrated.scales)?;
    let task = task(&look.model.graph, look.types, &calibrated.plan.weights);
    let (rounded, _, notes) = rounded(look, choice.rounding, &task, &start)?;
    calibrated.scales.weights = rounded.parameters;
    Ok((rounded.graph, notes))
}

fn rounded(
    look: &mut Look<'_>,
    method: Rounding,
    task: &Task,
    start: &Start,
) -> Result<(Rounded, u64, Vec<String>), RecipeError> {
    let samples = look.samples.filter(|samples| !matches!(samples, Samples::Ranges(_)));
    let Some(samples) = samples else {
        let problem = "is missing: weights are rounded by what meets them in samples; give some hundreds, or say `rounding = \"nearest\"`";
        return Err(RecipeError::Part { part: "data".to_string(), problem: problem.to_string() });
    };
    if let Some(problem) = nothing(task) {
        let problem = format!("{problem}; leave it out");
        return Err(QuantizeError::Option { option: "rounding", problem }.into());
    }
    let values = task.values();
    let mut network = probe::open(look.runtime, look.model, &values, "the network")?;
    let size = BatchSize::of(look.model, look.types, &values);
    let batches = batches(look.model, samples, Purpose::Calibrate, look.options.samples.unwrap_or(N_SAMPLES), &size)?;
    let mut n_samples = 0;
    let told = |n: u64| {
        n_samples = n;
        (look.told)(n);
    };
    let rounded = round(&look.model.graph, task, start, method, network.as_mut(), batches, told)?;
    let notes = notes(&rounded, task);
    Ok((rounded, n_samples, notes))
}

/// Why there is nothing to round, where there is not.
fn nothing(task: &Task) -> Option<String> {
    let reason = task.left.first().map_or(String::new(), |Float { node, reason }| format!(": `{node}`: {reason}"));
    task.values().is_empty().then(|| format!("finds no weight of a product{reason}"))
}

/// What rounding gained, and what it left.
fn notes(rounded: &Rounded, task: &Task) -> Vec<String> {
    let constants = &rounded.constants;
    let parts: Vec<f64> =
        constants.iter().filter(|it| it.error_of_nearest > 0.0).map(|it| it.error / it.error_of_nearest).collect();
    let mean = (parts.iter().map(|part| part.max(1e-9).ln()).sum::<f64>() / parts.len().max(1) as f64).exp();
    let mut notes = vec![format!(
        "{} weights rounded: what their products make is off by {:.0} % of what the nearest integers would cost, squared, on the geometric mean",
        constants.len(),
        100.0 * mean
    )];
    if let Some(Float { node, reason }) = task.left.first() {
        notes.push(format!("{} weights have the nearest integers; `{node}`: {reason}", task.left.len()));
    }
    notes
}
