//! Single weights, N of every M and blocks of weights at zero, in networks whose shapes stay as they are.
//!
//! | what | where |
//! |---|---|
//! | which weights, and how their elements are compared | [`plan()`] |
//! | which elements go, by the network alone | [`by_weights`] |
//! | … by the gradients of its loss | [`by_gradients`] |
//! | … by what its products read | [`by_samples`] |
//! | … more and more of them as it trains, or the same all along | [`Sparsifier`], handed to [`fit_with`](crate::learn::train::fit::fit_with) |
//! | what came of it | [`report()`] |
//!
//! A zero takes as much room as any other number and as long to multiply by: what it is worth, [`report::gains`] says.

mod choose;
mod criteria;
mod layout;
mod masks;
mod optimal;
mod options;
mod plan;
pub mod report;
mod schedule;
#[cfg(test)]
mod tests;
mod train;

use indexmap::IndexMap;
use serde::Serialize;

pub use masks::{Mask, Masks, apply, hold};
pub use options::{Criterion, Pattern, SparseOptions};
pub use plan::{Left, Operand, Plan, plan};
pub use report::{SparsityReport, report};
pub use schedule::{Phase, Schedule};
pub use train::Sparsifier;

use super::PruneError;
use crate::compress::observe::ObserveError;
use crate::compress::observe::moments::{Gram, grams, of_products};
use crate::graph::patch::Patch;
use crate::graph::probe::Forward;
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name};
use crate::learn::train::TrainError;
use crate::learn::train::learner::Learner;

/// A network with zeros.
#[derive(Clone, Debug)]
pub struct Sparse {
    /// The network: the same but for elements of the plan's weights.
    pub graph: Graph,
    /// Which elements are out.
    pub masks: Masks,
    /// What that does to what products make, in the order of the plan; nothing where no samples were seen.
    pub changes: Vec<Change>,
}

/// What the zeros of a weight change in what its products make: the mean square of the change, summed over channels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The weight.
    pub name: Name,
    /// With as many zeros chosen by magnitude and the other elements as they were.
    pub error_of_magnitude: f64,
    /// As it is.
    pub error: f64,
}

/// Takes the elements of a plan's weights out that the weights themselves say matter least: by [`Criterion::Magnitude`] or
/// [`Criterion::Random`].
///
/// # Errors
/// For the other criteria, which need more, and where the options cannot be carried out.
pub fn by_weights(graph: &Graph, plan: &Plan, options: &SparseOptions, seed: u64) -> Result<Sparse, PruneError> {
    options.check()?;
    let scores = match options.criterion {
        Criterion::Magnitude => criteria::magnitude(graph, plan)?,
        Criterion::Random => criteria::random(graph, plan, seed),
        Criterion::Snip | Criterion::Movement => return Err(options.criterion.needs("the gradients of a loss")),
        Criterion::Wanda | Criterion::SparseGpt => return Err(options.criterion.needs("samples")),
    };
    masked(graph, plan, options, &scores)
}

/// Takes the elements out whose going changes the loss least, by its gradients over these batches: [`Criterion::Snip`]. The learner
/// is of the same network and does not learn; its running statistics move.
///
/// # Errors
/// For the other criteria, when there are no batches, one does not fit the network, or a weight of the plan has no gradient.
pub fn by_gradients<E: From<PruneError>>(
    graph: &Graph,
    plan: &Plan,
    options: &SparseOptions,
    learner: &mut Learner,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
    seed: u64,
) -> Result<Sparse, E> {
    options.check()?;
    match options.criterion {
        Criterion::Snip => {}
        Criterion::Movement => {
            return Err(options.criterion.needs("a training, by whose steps it is summed up").into());
        }
        Criterion::Magnitude | Criterion::Random => return Err(options.criterion.needs("no gradients").into()),
        Criterion::Wanda | Criterion::SparseGpt => return Err(options.criterion.needs("samples").into()),
    }
    let mut sums: Vec<Vec<f32>> = plan.operands.iter().map(|operand| vec![0.0; operand.layout.n_weights()]).collect();
    let mut n_batches = 0u64;
    for batch in batches {
        let learned = learner.learn(&batch?, seed.wrapping_add(n_batches)).map_err(PruneError::from)?;
        for (operand, sum) in plan.operands.iter().zip(&mut sums) {
            let (what, name) = ("weight that learns", operand.name.clone());
            let gradient = learned.gradient(&operand.name);
            let gradient = gradient.ok_or_else(|| PruneError::from(TrainError::Name { what, name }))?;
            sum.iter_mut().zip(gradient).for_each(|(sum, gradient)| *sum += gradient);
        }
        n_batches += 1;
    }
    if n_batches == 0 {
        return Err(PruneError::from(ObserveError::NoSamples).into());
    }
    let scores = criteria::snip(graph, plan, &sums).map_err(E::from)?;
    masked(graph, plan, options, &scores).map_err(E::from)
}

/// Takes the elements out that matter least by what meets them, [`Criterion::Wanda`], or so that the others make up for them,
/// [`Criterion::SparseGpt`]. `network` gives [`Plan::values`] in their order; `told` how many samples are done.
///
/// What is held grows with the square of what a weight sums over: see [`Plan::parts`].
///
/// # Errors
/// For the other criteria, when there are no samples, the network cannot be run, or a value is no finite number.
pub fn by_samples<E: From<PruneError> + From<ObserveError>>(
    graph: &Graph,
    plan: &Plan,
    options: &SparseOptions,
    network: &mut dyn Forward,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
    told: impl FnMut(u64),
) -> Result<Sparse, E> {
    options.check()?;
    match options.criterion {
        Criterion::Wanda | Criterion::SparseGpt => {}
        Criterion::Magnitude | Criterion::Random => return Err(options.criterion.needs("no samples").into()),
        Criterion::Snip | Criterion::Movement => return Err(options.criterion.needs("the gradients of a loss").into()),
    }
    let grams = grams(network, plan.products(), batches, told)?;
    by_moments(graph, plan, options, &grams).map_err(E::from)
}

fn by_moments(graph: &Graph, plan: &Plan, options: &SparseOptions, grams: &[Gram]) -> Result<Sparse, PruneError> {
    let magnitude = criteria::magnitude(graph, plan)?;
    let mut patch = Patch::new(graph);
    let mut masks = Masks::default();
    let mut changes = Vec::with_capacity(plan.operands.len());
    for (operand, magnitude) in plan.operands.iter().zip(&magnitude) {
        let constant = operand.constant(graph)?;
        let weights = constant.as_slice::<f32>()?;
        let moments = of_products(&operand.products, grams);
        let by = |scores: &[f32]| {
            let is_out = choose::of_operand(&operand.layout, scores, options);
            let numbers = weights.iter().zip(&is_out).map(|(&weight, &is_out)| if is_out { 0.0 } else { weight });
            (numbers.collect::<Vec<f32>>(), is_out)
        };
        let cost = |numbers: &[f32]| optimal::cost(&operand.layout, weights, numbers, &moments);
        let plain = by(magnitude);
        let error_of_magnitude = cost(&plain.0);
        let mut own = match options.criterion {
            Criterion::SparseGpt => optimal::solve(&operand.layout, weights, &moments, options.target()),
            _ => by(&criteria::wanda(&operand.layout, weights, &moments)),
        };
        let mut error = cost(&own.0);
        if options.criterion == Criterion::SparseGpt && error > error_of_magnitude {
            (own, error) = (plain, error_of_magnitude);
        }
        let (numbers, is_out) = own;
        patch.replace_initializer(&operand.name, Tensor::new(constant.shape(), numbers)?);
        masks.insert(&operand.name, Mask::new(constant.shape(), is_out));
        changes.push(Change { name: operand.name.clone(), error_of_magnitude, error });
    }
    Ok(Sparse { graph: patch.apply(None)?, masks, changes })
}

/// The network without the elements that score least.
fn masked(graph: &Graph, plan: &Plan, options: &SparseOptions, scores: &[Vec<f32>]) -> Result<Sparse, PruneError> {
    let layouts: Vec<_> = plan.operands.iter().map(|operand| &operand.layout).collect();
    let is_out = choose::of_all(&layouts, scores, options, options.target(), |_, _| false);
    let mut masks = Masks::default();
    for (operand, is_out) in plan.operands.iter().zip(is_out) {
        masks.insert(&operand.name, Mask::new(operand.constant(graph)?.shape(), is_out));
    }
    Ok(Sparse { graph: apply(graph, &masks)?, masks, changes: Vec::new() })
}
