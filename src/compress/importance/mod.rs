//! How much a unit of a coupled group matters: by its weights, by what it gives on data, by the gradients of a loss.
//!
//! | criterion | a unit's number | weights that count | across groups |
//! |---|---|---|---|
//! | `l1`, `l2` | norms of its slices, each over the group's mean | all that make, sum over or scale units | over the mean |
//! | `fpgm` | distances to the other units' slices, each over the group's mean | those that make units | over the mean |
//! | `lamp` | its squared norm over those of all that are no less | as `l2` | as it is |
//! | `batch-norm` | the mean of its scales' magnitudes | scales | as it is |
//! | `taylor`, `fisher`, `movement` | sums over all its slices | as `l2`, and biases | over the mean |
//! | `activation` | mean magnitudes of its values, each over the group's mean | none | over the mean |
//! | `apoz` | the share of its values that are not zero | none | as it is |
//! | `first`, `random` | its position, a drawn number | none | over the mean, as it is |
//!
//! The last column is [`Criterion::normalize`]: what [`comparable`] is to do before units of several groups are compared.

mod activations;
mod gradients;
#[cfg(test)]
mod tests;
mod weights;

use rand::RngExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::graph::shape::Types;
use crate::graph::structure::groups::Group;
use crate::graph::{Graph, Name};
use crate::learn::train::init::generator;
use weights::Weights;

pub use activations::{activation_values, by_activations};
pub use gradients::{Gradients, by_gradients};

/// By what units are ranked, as TOML has it: `"l2"`, `"batch-norm"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// The sum of magnitudes of a unit's weights: Li et al., "Pruning Filters for Efficient ConvNets" (2017),
    /// section 3.1.
    L1,
    /// Their Euclidean norm: He et al., "Soft Filter Pruning" (2018), equation 2 with p = 2.
    #[default]
    L2,
    /// The first matter most.
    First,
    /// Any, by the seed.
    Random,
    /// The magnitude of what a normalisation scales the unit by: Liu et al., "Learning Efficient Convolutional Networks
    /// through Network Slimming" (2017), section 3.
    BatchNorm,
    /// The sum of distances to the other units, so that those in the middle go, which the others can stand in for: He et
    /// al., "Filter Pruning via Geometric Median" (2019), equation 5.
    Fpgm,
    /// The squared norm over the sum of those that are no less: Lee et al., "Layer-adaptive Sparsity for the
    /// Magnitude-based Pruning" (2021), equation 1, of units in the place of weights.
    Lamp,
    /// The square of the change of the loss without the unit, to first order: Molchanov et al., "Importance Estimation for
    /// Neural Network Pruning" (2019), equation 8.
    Taylor,
    /// The change of the loss by the diagonal of its curvature, in whose place stand squared gradients: LeCun et al.,
    /// "Optimal Brain Damage" (1990), equation 5; Theis et al., "Faster gaze prediction with dense networks and Fisher
    /// pruning" (2018), equation 6.
    Fisher,
    /// The mean magnitude of what the unit gives: Polyak and Wolf, "Channel-level acceleration of deep face
    /// representations" (2015); Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient
    /// Inference" (2017), section 2.2.
    Activation,
    /// The share of what the unit gives that is not zero: Hu et al., "Network Trimming" (2016), equation 1.
    Apoz,
    /// How far training moves the unit's weights away from zero: Sanh et al., "Movement Pruning" (2020), equation 3.
    Movement,
}

/// What must be looked at before units can be ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Needs {
    /// The weights alone: [`importance()`].
    Nothing,
    /// What the units give on data: [`activation_values`], then [`by_activations`].
    Activations,
    /// The gradients of a loss on data: [`by_gradients`].
    Gradients,
}

impl Criterion {
    /// What it takes to rank by it.
    pub fn needs(self) -> Needs {
        match self {
            Criterion::L1 | Criterion::L2 | Criterion::First | Criterion::Random => Needs::Nothing,
            Criterion::BatchNorm | Criterion::Fpgm | Criterion::Lamp => Needs::Nothing,
            Criterion::Activation | Criterion::Apoz => Needs::Activations,
            Criterion::Taylor | Criterion::Fisher | Criterion::Movement => Needs::Gradients,
        }
    }

    /// How its numbers are made comparable across groups where nothing else is said.
    pub fn normalize(self) -> Normalize {
        match self {
            Criterion::L1 | Criterion::L2 | Criterion::First | Criterion::Fpgm | Criterion::Activation => {
                Normalize::Mean
            }
            Criterion::Taylor | Criterion::Fisher | Criterion::Movement => Normalize::Mean,
            Criterion::Random | Criterion::BatchNorm | Criterion::Lamp | Criterion::Apoz => Normalize::None,
        }
    }
}

/// Why the units of a group cannot be told apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{group}` {}", self.reason())]
pub struct Unranked {
    /// the group
    pub group: Name,
    /// the weight, or another value of the group
    pub weight: Name,
    /// what stands in the way
    pub problem: &'static str,
    /// what can be done about it
    pub remedy: &'static str,
}

impl Unranked {
    /// What is to be said of the group.
    pub fn reason(&self) -> String {
        let Unranked { weight, problem, remedy, .. } = self;
        format!("cannot be ranked: `{weight}` {problem}; {remedy}")
    }

    /// For a criterion that is told by something else than what is at hand.
    fn by_other_means(group: &Group, criterion: Criterion) -> Unranked {
        let remedy = match criterion.needs() {
            Needs::Nothing => "the criterion is one of weights alone",
            Needs::Activations => "the criterion is told by activations on data",
            Needs::Gradients => "the criterion is told by gradients on data",
        };
        Unranked {
            group: group.name().clone(),
            weight: group.name().clone(),
            problem: "was not looked at for it",
            remedy,
        }
    }
}

/// A number for each unit of each group, by the weights alone: the more, the more it matters. `types` and `groups` are the
/// graph's.
///
/// For `l1` and `l2` it is the sum, over every weight that makes the units, that sums over them, or that scales them in
/// a normalisation, of the norm of the slices that belong to the unit, divided by the mean of these norms over the
/// group's units. So the slices of coupled layers count together (Fang et al., "DepGraph" (2023), section 3.3), and each
/// layer as much as any other, whatever its size and scale. Biases do not count. A unit that nothing reads, all slices
/// that sum over it being zero, is at zero whatever makes it, unless something normalises over it.
///
/// For `fpgm` only the weights that make the units count, each by the sum of distances to the other units' slices,
/// divided by the mean of these sums. For `lamp` the norms are the numbers of `l2`; of equal ones a later one comes before
/// an earlier one. For `batch-norm` it is the mean magnitude over the scales, which stand for themselves: they are of one
/// kind in the whole network. Where a normalisation over images has become part of its convolution there are none.
///
/// For `first` it falls with the position; for `random` it is drawn, from the seed and the group's place and name.
/// Weights of integers are taken for the numbers that they stand for.
///
/// # Errors
/// A group's, when the numbers of one of its weights are not to be had, when it has no scale for `batch-norm`, and for
/// criteria that need more than weights.
pub fn importance(
    graph: &Graph,
    types: &Types,
    groups: &[Group],
    criterion: Criterion,
    seed: u64,
) -> Vec<Result<Vec<f64>, Unranked>> {
    let weights = Weights::of(graph, types);
    let of_group = |(idx, group): (usize, &Group)| match criterion {
        Criterion::L1 => weights.norms(group, 1),
        Criterion::L2 => weights.norms(group, 2),
        Criterion::First => Ok((0..group.n_units).map(|unit| (group.n_units - unit) as f64).collect()),
        Criterion::Random => Ok(drawn(group, idx, seed)),
        Criterion::BatchNorm => weights.scales(group),
        Criterion::Fpgm => weights.distances(group),
        Criterion::Lamp => weights.norms(group, 2).map(|norms| lamp(&norms)),
        Criterion::Taylor | Criterion::Fisher | Criterion::Movement | Criterion::Activation | Criterion::Apoz => {
            Err(Unranked::by_other_means(group, criterion))
        }
    };
    groups.iter().enumerate().map(of_group).collect()
}

fn drawn(group: &Group, group_idx: usize, seed: u64) -> Vec<f64> {
    let mut generator = generator(seed, &format!("{group_idx} {}", group.name()));
    (0..group.n_units).map(|_| generator.random()).collect()
}

/// Each squared norm over the sum of it and those after it in ascending order.
fn lamp(norms: &[f64]) -> Vec<f64> {
    let mut scores = vec![0f64; norms.len()];
    let mut rest = 0.0;
    for unit in ranked(norms) {
        let square = norms[unit] * norms[unit];
        rest += square;
        scores[unit] = if rest > 0.0 { square / rest } else { 0.0 };
    }
    scores
}

/// The units in the order of their importance, the greatest first; of equals the first.
pub(in crate::compress) fn ranked(importance: &[f64]) -> Vec<usize> {
    let mut units: Vec<usize> = (0..importance.len()).collect();
    units.sort_by(|&one, &other| importance[other].total_cmp(&importance[one]));
    units
}

/// What the numbers of a group are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Normalize {
    /// The mean of their magnitudes: a unit of average importance is as good as one of any other group.
    #[default]
    Mean,
    /// The greatest magnitude: the best of each group are equal.
    Max,
    /// The sum of magnitudes: units of large groups are worth less than those of small ones.
    Sum,
    /// One.
    None,
}

/// Makes the units of several groups comparable: divides the numbers of each by what `normalize` says. The order within
/// a group stays, and a group of zeros stays as it is.
pub fn comparable<'a>(importance: impl IntoIterator<Item = &'a mut Vec<f64>>, normalize: Normalize) {
    for numbers in importance {
        let magnitudes = numbers.iter().map(|number| number.abs());
        let divisor = match normalize {
            Normalize::Mean => mean(magnitudes),
            Normalize::Max => magnitudes.fold(0.0, f64::max),
            Normalize::Sum => magnitudes.sum(),
            Normalize::None => continue,
        };
        if divisor > 0.0 && divisor.is_finite() {
            numbers.iter_mut().for_each(|number| *number /= divisor);
        }
    }
}

fn mean(numbers: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = numbers.len().max(1);
    numbers.sum::<f64>() / n as f64
}

/// Adds numbers to a total, each divided by their mean; nothing where that is zero.
fn add_over_mean(total: &mut [f64], numbers: &[f64]) {
    let mean = mean(numbers.iter().copied());
    if mean > 0.0 && mean.is_finite() {
        total.iter_mut().zip(numbers).for_each(|(total, number)| *total += number / mean);
    }
}

/// Calls `take` with each index of an axis of a tensor and the positions of a run of elements there, in their order.
fn for_runs(shape: &[usize], axis: usize, mut take: impl FnMut(usize, std::ops::Range<usize>)) {
    let (outer, inner) = (&shape[..axis], &shape[axis + 1..]);
    let (n_outer, n_inner) = (outer.iter().product::<usize>(), inner.iter().product::<usize>());
    let mut start = 0;
    for _ in 0..n_outer {
        for index in 0..shape[axis] {
            take(index, start..start + n_inner);
            start += n_inner;
        }
    }
}
