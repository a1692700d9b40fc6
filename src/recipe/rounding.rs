//! Weights rounded by what a network's products read, on samples that run on a runtime.

use super::RecipeError;
use super::look::{MOMENT_BYTES, Shown, mean_percent};
use super::quantize::{Calibrated, Work};
use super::samples::Samples;
use crate::compress::quantize::QuantizeError;
use crate::compress::quantize::options::{Form, To};
use crate::compress::quantize::parameters::Parameters;
use crate::compress::quantize::plan::{Float, WeightSite};
use crate::compress::quantize::rounding::{Rounded, Rounding, Start, Task, round, task};
use crate::graph::Graph;

/// Weights of four bits are rounded by what meets them where there are samples and nobody says otherwise: the nearest integers of
/// so few lose points.
pub(super) fn prefer(work: &mut Work<'_>) {
    let are_there = work.look.samples.is_some_and(|samples| !matches!(samples, Samples::Ranges(_)));
    let takes_it = matches!(work.choice.form, Form::Weights | Form::MatMulNBits);
    if work.options.to == To::Int4 && takes_it && work.options.rounding.is_none() && are_there {
        work.choice.rounding = Rounding::Gptq;
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
pub(super) fn on_grid(work: &mut Work<'_>, sites: &[WeightSite]) -> Result<OnGrid, RecipeError> {
    let graph = &work.look.model.graph;
    let start = Start::of_sites(graph, sites)?;
    let task = task(graph, work.look.types, sites);
    let is_asked = work.options.rounding.is_some();
    let nothing = nothing(&task).filter(|_| !is_asked);
    if work.choice.rounding == Rounding::Nearest || nothing.is_some() {
        let none_run = || work.look.samples.map(|_| "no samples were run: this form needs none".to_string());
        let why = nothing.filter(|_| work.choice.rounding != Rounding::Nearest);
        let notes =
            why.map(|problem| format!("weights have the nearest integers: rounding {problem}")).or_else(none_run);
        work.choice.rounding = Rounding::Nearest;
        let (graph, parameters) = (graph.clone(), start.parameters);
        return Ok(OnGrid { graph, parameters, seen: None, notes: notes.into_iter().collect() });
    }
    if !is_asked {
        let reason = "weights rounded by GPTQ: with four bits the nearest integers lose points that it keeps";
        work.choice.reasons.push(reason.to_string());
    }
    let (rounded, n_samples, notes) = rounded(work, &task, start)?;
    let Rounded { graph, parameters, .. } = rounded;
    Ok(OnGrid { graph, parameters, seen: Some((work.look.runtime.name().to_string(), n_samples)), notes })
}

/// The network in floats whose weights are to be inserted, with the scales by which they were rounded in `calibrated`, and what to
/// say of it.
pub(super) fn plan(work: &mut Work<'_>, calibrated: &mut Calibrated) -> Result<(Graph, Vec<String>), RecipeError> {
    let graph = &work.look.model.graph;
    if work.choice.rounding == Rounding::Nearest {
        return Ok((graph.clone(), Vec::new()));
    }
    let start = Start::of_plan(graph, &calibrated.plan, &calibrated.scales)?;
    let task = task(graph, work.look.types, &calibrated.plan.weights);
    let (rounded, _, notes) = rounded(work, &task, start)?;
    calibrated.scales.weights = rounded.parameters;
    Ok((rounded.graph, notes))
}

/// Rounds the constants of a task, as many at a time as their second moments leave room for.
fn rounded(work: &mut Work<'_>, task: &Task, start: Start) -> Result<(Rounded, u64, Vec<String>), RecipeError> {
    const MISSING: &str =
        "weights are rounded by what meets them in samples; give some hundreds, or say `rounding = \"nearest\"`";
    if let Some(problem) = nothing(task) {
        let problem = format!("{problem}; leave it out");
        return Err(QuantizeError::Option { option: "rounding", problem }.into());
    }
    let Work { look, choice, .. } = work;
    let (mut n_samples, mut start) = (0, start);
    let mut all = Rounded { graph: look.model.graph.clone(), parameters: Vec::new(), constants: Vec::new() };
    for part in task.parts(MOMENT_BYTES) {
        let Shown { mut network, batches } = look.shown(&part.values(), MISSING)?;
        let told = |n: u64| {
            n_samples = n;
            (look.told)(n);
        };
        let rounded = round(&all.graph, &part, &start, choice.rounding, network.as_mut(), batches, told)?;
        start.parameters.clone_from(&rounded.parameters);
        all.constants.extend(rounded.constants);
        (all.graph, all.parameters) = (rounded.graph, rounded.parameters);
    }
    let notes = notes(&all, task);
    Ok((all, n_samples, notes))
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
    let mut notes = vec![format!(
        "{} weights rounded: what their products make is off by {:.0} % of what the nearest integers would cost, squared, on the geometric mean",
        constants.len(),
        mean_percent(&parts)
    )];
    if let Some(Float { node, reason }) = task.left.first() {
        notes.push(format!("{} weights have the nearest integers; `{node}`: {reason}", task.left.len()));
    }
    notes
}
