//! The pruning of a network's file: tidied, looked at on a runtime, and smaller.

mod layers;
mod report;
mod units;
mod weights;

use serde::{Deserialize, Serialize};

use super::RecipeError;
use super::look::Look;
use super::samples::Samples;
use crate::compress::importance::Criterion;
use crate::compress::prune::options::{PruneOptions, What};
use crate::compress::prune::sparse::Sparsifier;
use crate::compress::prune::{PruneError, Sensitivity};
use crate::compress::quantize::half::{HalfOptions, HalfType, to_half};
use crate::graph::probe::{Score as _, TimeRatio};
use crate::graph::shape::{self, Bindings, Types};
use crate::graph::structure::groups::{Groups, groups};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, Model, Name, simplify};
use crate::measure::runtime::Runtime;

pub use report::{GroupReport, Report, Sizes, Zeros};
pub use weights::keeper_of_zeros;

/// A pruned network.
#[derive(Clone, Debug)]
pub struct Pruned {
    /// The network.
    pub model: Model,
    /// Which units went where time decided it.
    pub decided: Option<Decided>,
    /// Who holds weights at zero, or brings them there, while the network learns.
    pub sparsifier: Option<Sparsifier>,
    /// What was done.
    pub report: Report,
}

/// Units that went: what a run that is replayed takes out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided(pub Vec<Gone>);

/// Units of a group that went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gone {
    /// The group's place among those of the network: a weight can make several.
    pub group: usize,
    /// The weight that makes its units.
    pub name: Name,
    /// Which of them went.
    pub units: Vec<usize>,
}

/// What a pruning is done with.
pub struct Means<'a> {
    /// What the network is looked at with.
    pub samples: Option<&'a Samples>,
    /// What runs them.
    pub runtime: &'a dyn Runtime,
    /// The output that is to meet labels; the first where it is not given.
    pub output: Option<&'a Name>,
    /// What everything random depends on.
    pub seed: u64,
    /// Whether the network learns afterwards: then its batch normalisations stay.
    pub learns: bool,
    /// What a run before has decided.
    pub known: Option<&'a Decided>,
    /// Whether the runtime is the one that will run the file: then the pruned network is timed against the whole one.
    pub is_timed: bool,
    /// Gets the number of samples that are done.
    pub told: &'a mut dyn FnMut(u64),
}

impl<'a> Means<'a> {
    fn basis(&self) -> Basis<'a> {
        let Means { output, seed, learns, known, .. } = *self;
        Basis { output, seed, learns, known }
    }
}

/// What of the means decides what goes.
#[derive(Clone, Copy)]
struct Basis<'a> {
    output: Option<&'a Name>,
    seed: u64,
    learns: bool,
    known: Option<&'a Decided>,
}

impl<'a> Basis<'a> {
    /// The output that is to meet labels.
    fn output_of(&self, graph: &'a Graph) -> Result<&'a Name, PruneError> {
        let first = || graph.outputs.first().map(|output| &output.name);
        let none = || PruneError::Nothing { reason: "the network has no outputs".to_string() };
        self.output.or_else(first).ok_or_else(none)
    }
}

/// Prunes a network.
///
/// # Errors
/// When the options cannot be carried out on the network, samples are missing or do not fit, or the runtime fails.
pub fn prune(model: &Model, options: &PruneOptions, means: &mut Means<'_>) -> Result<Pruned, RecipeError> {
    let what = options.what()?;
    let narrow = narrow(&model.graph);
    let n_inputs = model.graph.inputs.len();
    let (model, types) = tidy(model, means.learns || options.criterion == Criterion::BatchNorm)?;
    let basis = means.basis();
    let is_timed = means.is_timed && !matches!(what, What::Weights(_));
    let look = look(&model, &types, options, means);
    let mut pruned = match what {
        What::Units(amount) => units::prune(look, options, units::Until::Amount(amount), basis),
        What::Time(ratio) => units::prune(look, options, units::Until::Time(ratio), basis),
        What::Layers(n_layers) => layers::prune(&look, options, n_layers),
        What::Weights(sparse) => weights::prune(look, options, sparse, basis),
    }?;
    let n_fixed = n_inputs.saturating_sub(model.graph.inputs.len());
    if n_fixed > 0 {
        let told = format!("{n_fixed} inputs that have a value in the file are constants now");
        pruned.report.notes.push(told);
    }
    if is_timed {
        timed(&self::look(&model, &types, options, means), &what, &mut pruned)?;
    }
    if let Some(dtype) = narrow.filter(|_| !basis.learns) {
        let options = HalfOptions { dtype, weights_only: true, ..HalfOptions::default() };
        let halved = to_half(&pruned.model.graph, &options)?;
        let opset = pruned.model.opset.max(halved.opset);
        pruned.model = Model { opset, ..pruned.model.with_graph(halved.graph) };
        pruned.report.notes.push("weights are stored in 16 bits, as they were".to_string());
    }
    Ok(pruned)
}

/// Says how long the pruned network takes on the runtime in times of the whole one, and whether that is what was asked for.
fn timed(look: &Look<'_>, what: &What<'_>, pruned: &mut Pruned) -> Result<(), RecipeError> {
    let written = |graph: &Graph| Ok(graph.clone());
    let (before, after) = (&look.model.graph, &pruned.model.graph);
    let TimeRatio { low, median, high } = look.scorer(&written)?.time_ratio(before, after).map_err(PruneError::from)?;
    let slow = match what {
        What::Units(_) | What::Time(_) if low > 1.0 => {
            ": kernels want multiples of some number of channels, `round_to = 16` leaves them"
        }
        What::Units(_) | What::Time(_) | What::Layers(_) | What::Weights(_) => "",
    };
    let name = look.runtime.name();
    let told = format!("the network takes {median:.2} [{low:.2}, {high:.2}] of its time before on {name}{slow}");
    pruned.report.time = Some(TimeRatio { low, median, high });
    pruned.report.notes.push(told);
    if let What::Time(most) = *what
        && median > most
    {
        pruned.report.is_missed = low > most;
        let how = if low > most { "is missed" } else { "is within the noise of the machine" };
        pruned.report.notes.push(format!("the limit of {most} {how}: `max_time` a little lower leaves room"));
    }
    Ok(())
}

/// The 16-bit floats that most bytes of a network's weights are stored in.
fn narrow(graph: &Graph) -> Option<HalfType> {
    let bytes = |dtype: DType| -> usize {
        let stored = graph.initializers.values().filter(|tensor| tensor.dtype() == dtype);
        stored.map(Tensor::n_bytes).sum()
    };
    let halves = [HalfType::F16, HalfType::BF16].into_iter().filter(|half| bytes(half.dtype()) > bytes(DType::F32));
    halves.max_by_key(|half| bytes(half.dtype()))
}

/// What each group of a network alone costs at several shares of its units.
///
/// # Errors
/// As [`prune`].
pub fn sensitivity(
    model: &Model,
    options: &PruneOptions,
    shares: &[f64],
    means: &mut Means<'_>,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Sensitivity, RecipeError> {
    options.check()?;
    let (model, types) = tidy(model, means.learns || options.criterion == Criterion::BatchNorm)?;
    let basis = means.basis();
    units::sensitivity(look(&model, &types, options, means), options, shares, basis, told)
}

/// The groups of a network as it is pruned.
///
/// # Errors
/// When its types do not fit together.
pub fn groups_of(model: &Model) -> Result<Groups, RecipeError> {
    let (model, types) = tidy(model, false)?;
    Ok(groups(&model.graph, &types))
}

fn tidy(model: &Model, keep_batch_norms: bool) -> Result<(Model, Types), RecipeError> {
    let tidy = simplify::Options { opset: Some(model.opset), keep_batch_norms, ..simplify::Options::default() };
    let model = model.with_graph(simplify::simplify(&model.graph, &tidy)?.graph);
    let types = shape::infer(&model.graph, &Bindings::default())?;
    Ok((model, types))
}

fn look<'a>(model: &'a Model, types: &'a Types, options: &PruneOptions, means: &'a mut Means<'_>) -> Look<'a> {
    let Means { samples, runtime, told, .. } = means;
    Look { model, types, samples: *samples, n_samples: options.samples, runtime: *runtime, told: &mut **told }
}
