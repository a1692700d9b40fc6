//! Single weights that become zero.

use std::collections::BTreeSet;

use super::report::{Report, Sizes, Zeros};
use super::units::labelled;
use super::{Basis, Pruned};
use crate::compress::prune::options::PruneOptions;
use crate::compress::prune::sparse::report::gains;
use crate::compress::prune::sparse::{
    self, Criterion, Masks, Plan, SparseOptions, Sparsifier, by_gradients, by_samples, by_weights,
};
use crate::graph::shape::{self, Bindings};
use crate::graph::{Graph, Model};
use crate::learn::train::learner::Learner;
use crate::learn::train::loss::Loss;
use crate::measure::compressed::compressed;
use crate::onnx;
use crate::recipe::RecipeError;
use crate::recipe::look::{Look, MOMENT_BYTES, Shown, mean_percent};

pub(super) fn prune(
    mut look: Look<'_>,
    options: &PruneOptions,
    sparse: &SparseOptions,
    basis: Basis<'_>,
) -> Result<Pruned, RecipeError> {
    let model = look.model;
    let plan = sparse::plan(&model.graph, look.types, sparse)?;
    let before = Sizes::of(&model.graph)?;
    let mut report = Report::new(options, before, before);
    report.refused = plan.left.iter().map(|left| (left.weight.to_string(), left.reason.clone())).collect();
    if basis.learns && sparse.grows() {
        let sparsifier = Some(Sparsifier::growing(&plan, sparse, basis.seed)?);
        report.notes.push("weights become zero as the network learns".to_string());
        return Ok(Pruned { model: model.clone(), decided: None, sparsifier, report });
    }
    let (graph, masks) = chosen(&mut look, &plan, sparse, basis, &mut report)?;
    let sparsifier = basis.learns.then(|| Sparsifier::held(&graph, masks)).transpose()?;
    let model = model.with_graph(graph);
    report.zeros = Some(zeros(&model, &plan, sparse)?);
    Ok(Pruned { model, decided: None, sparsifier, report })
}

/// Who keeps the zeros that a network's weights have while it learns; nobody where they have none.
///
/// # Errors
/// When the network's types do not fit together, or it multiplies by no constant.
pub fn keeper_of_zeros(model: &Model) -> Result<Option<Sparsifier>, RecipeError> {
    let types = shape::infer(&model.graph, &Bindings::default())?;
    let all = SparseOptions { embeddings: true, ..SparseOptions::default() };
    let masks = Masks::of_zeros(&model.graph, &sparse::plan(&model.graph, &types, &all)?)?;
    let held = || Sparsifier::held(&model.graph, masks.clone());
    Ok((!masks.is_empty()).then(held).transpose()?)
}

/// How many zeros a network has, and what they are worth.
fn zeros(model: &Model, plan: &Plan, sparse: &SparseOptions) -> Result<Zeros, RecipeError> {
    let of = sparse::report(&model.graph, plan)?;
    let bytes = onnx::to_bytes(model)?;
    let gains = gains(sparse.pattern).into_iter().map(|(runtime, gain)| (runtime.to_string(), gain.to_string()));
    Ok(Zeros { n_bytes: bytes.len() as u64, compressed: compressed(&bytes), gains: gains.collect(), of })
}

/// The network with zeros, and where they are.
fn chosen(
    look: &mut Look<'_>,
    plan: &Plan,
    sparse: &SparseOptions,
    basis: Basis<'_>,
    report: &mut Report,
) -> Result<(Graph, Masks), RecipeError> {
    const MISSING: &str = "the criterion is told by what weights meet in samples";
    let graph = &look.model.graph;
    match sparse.criterion {
        Criterion::Magnitude | Criterion::Random | Criterion::Movement => {
            let sparse = by_weights(graph, plan, sparse, basis.seed)?;
            Ok((sparse.graph, sparse.masks))
        }
        Criterion::Snip => {
            let (output, loss) = (basis.output_of(graph)?, Loss::CrossEntropy);
            let mut learner = Learner::new(graph, output, loss, &BTreeSet::new())?;
            let batches = labelled(look, output, loss)?;
            let sparse = by_gradients::<RecipeError>(graph, plan, sparse, &mut learner, batches, basis.seed)?;
            Ok((sparse.graph, sparse.masks))
        }
        Criterion::Wanda | Criterion::SparseGpt => {
            let (mut graph, mut masks) = (graph.clone(), Masks::default());
            let mut ratios = Vec::new();
            for part in plan.parts(MOMENT_BYTES) {
                let Shown { mut network, batches } = look.shown(&part.values(), MISSING)?;
                let told = |n: u64| {
                    report.n_samples = n;
                    (look.told)(n);
                };
                let done = by_samples::<RecipeError>(&graph, &part, sparse, network.as_mut(), batches, told)?;
                let changes = done.changes.iter().filter(|change| change.error_of_magnitude > 0.0);
                ratios.extend(changes.map(|change| change.error / change.error_of_magnitude));
                graph = done.graph;
                masks.extend(done.masks);
            }
            report.seen_on = Some(look.runtime.name().to_string());
            report.notes.push(format!(
                "what products make is off by {:.0} % of what zeros chosen by magnitude would cost, squared, on the geometric mean",
                mean_percent(&ratios)
            ));
            Ok((graph, masks))
        }
    }
}
