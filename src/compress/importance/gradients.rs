//! What the gradients of a loss tell: how much it changes without a unit.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use rayon::prelude::*;

use super::{Criterion, Needs, Unranked, for_runs};
use crate::compress::observe::ObserveError;
use crate::graph::shape::Types;
use crate::graph::structure::groups::{Group, Member, Role};
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name};
use crate::learn::train::TrainError;
use crate::learn::train::learner::Learner;
use crate::learn::train::loss::Loss;
use crate::learn::train::roles::{self, roles};

/// What gradients tell of the units of groups, added up batch by batch.
///
/// With `w` and `g` the weights and gradients of a batch, and the sums over all slices that belong to a unit, of the weights
/// that make it, sum over it or scale it and of the biases, which go with it, too:
///
/// | criterion | number |
/// |---|---|
/// | `taylor` | `(Σ g w)²`, the mean over the batches |
/// | `fisher` | `½ Σ g² w²`, the mean over the batches; with batches of one sample the empirical Fisher information |
/// | `movement` | `−Σ g w`, the sum over the batches, a step of a training after each |
///
/// A unit that makes itself, in a recurrent layer, counts that weight twice: once made, once summed over.
#[derive(Clone, Debug)]
pub struct Gradients {
    groups: Vec<Sums>,
    n_batches: u64,
}

/// The values of an initializer and their gradients.
type Slopes<'a> = (&'a [f32], &'a [f32]);

/// The sums of one group.
#[derive(Clone, Debug)]
struct Sums {
    name: Name,
    members: Vec<Slices>,
    /// Why they say nothing.
    problem: Option<(Name, &'static str)>,
    taylor: Vec<f64>,
    fisher: Vec<f64>,
    movement: Vec<f64>,
}

/// The slices of one weight.
#[derive(Clone, Debug)]
struct Slices {
    member: Member,
    shape: Vec<usize>,
}

impl Gradients {
    /// Nothing added yet. `types` and `groups` are the graph's.
    pub fn new(graph: &Graph, types: &Types, groups: &[Group]) -> Gradients {
        let roles = roles(graph, types);
        let counts = |member: &&Member| match (member.role, roles.get(&member.value)) {
            (Role::Made | Role::Summed, _) => true,
            (Role::Constant, Some(roles::Role::Scale | roles::Role::Bias)) => true,
            (Role::Constant | Role::Inner, _) => false,
        };
        let sums = |group: &Group| {
            let zeros = vec![0f64; group.n_units];
            let (mut members, mut problem) = (Vec::new(), None);
            for member in group.members.iter().filter(counts) {
                match graph.initializers.get(&member.value) {
                    Some(tensor) => members.push(Slices { member: member.clone(), shape: tensor.shape().to_vec() }),
                    None => problem = Some((member.value.clone(), NO_GRADIENT)),
                }
            }
            let (taylor, fisher, movement) = (zeros.clone(), zeros.clone(), zeros);
            Sums { name: group.name().clone(), members, problem, taylor, fisher, movement }
        };
        Gradients { groups: groups.iter().map(sums).collect(), n_batches: 0 }
    }

    /// Adds a batch: `of` gives the values of an initializer and their gradients, row-major, where it has any.
    pub fn add<'a>(&mut self, mut of: impl FnMut(&Name) -> Option<Slopes<'a>>) {
        let given: Vec<Vec<Option<Slopes<'a>>>> = self
            .groups
            .iter()
            .map(|group| group.members.iter().map(|slices| of(&slices.member.value)).collect())
            .collect();
        self.groups.par_iter_mut().zip(given).for_each(|(group, given)| group.add(&given));
        self.n_batches += 1;
    }

    /// A number for each unit of each group.
    ///
    /// # Errors
    /// A group's, when a weight that makes its units or sums over them had no gradient; every group's, when nothing was
    /// added, and for criteria that are not told by gradients.
    pub fn importance(&self, criterion: Criterion) -> Vec<Result<Vec<f64>, Unranked>> {
        let mean = |sums: &[f64]| sums.iter().map(|sum| sum / self.n_batches as f64).collect();
        let of_group = |group: &Sums| {
            let unranked = |weight: &Name, problem, remedy| {
                Err(Unranked { group: group.name.clone(), weight: weight.clone(), problem, remedy })
            };
            match (&group.problem, criterion.needs()) {
                (_, Needs::Nothing | Needs::Activations) => {
                    unranked(&group.name, "was looked at for its gradients", "use `taylor`, `fisher` or `movement`")
                }
                (Some((weight, problem)), _) => unranked(weight, problem, "use a criterion of weights, such as `l2`"),
                (None, _) if self.n_batches == 0 => {
                    unranked(&group.name, "has no gradients yet", "give samples to take them on")
                }
                (None, Needs::Gradients) => Ok(match criterion {
                    Criterion::Taylor => mean(&group.taylor),
                    Criterion::Fisher => mean(&group.fisher),
                    _ => group.movement.clone(),
                }),
            }
        };
        self.groups.iter().map(of_group).collect()
    }
}

/// The learning rate of the steps that `movement` is summed over.
const MOVEMENT_RATE: f32 = 1e-2;

const NO_GRADIENT: &str = "does not learn, so that it has no gradient";

impl Sums {
    fn add(&mut self, given: &[Option<(&[f32], &[f32])>]) {
        let n_units = self.taylor.len();
        let (mut first, mut second) = (vec![0f64; n_units], vec![0f64; n_units]);
        for (slices, given) in self.members.iter().zip(given) {
            let member = &slices.member;
            let n: usize = slices.shape.iter().product();
            let Some((weights, gradients)) = given.filter(|(w, g)| w.len() == n && g.len() == n) else {
                if member.role != Role::Constant {
                    self.problem = Some((member.value.clone(), NO_GRADIENT));
                }
                continue;
            };
            let mut sums = vec![(0f64, 0f64); member.size];
            for_runs(&slices.shape, member.axis, |index, run| {
                let (first, second) = &mut sums[index];
                for (&w, &g) in weights[run.clone()].iter().zip(&gradients[run]) {
                    let product = f64::from(w) * f64::from(g);
                    *first += product;
                    *second += product * product;
                }
            });
            for unit in 0..n_units {
                for &index in member.of_unit(unit) {
                    first[unit] += sums[index].0;
                    second[unit] += sums[index].1;
                }
            }
        }
        for unit in 0..n_units {
            self.taylor[unit] += first[unit] * first[unit];
            self.fisher[unit] += 0.5 * second[unit];
            self.movement[unit] -= first[unit];
        }
    }
}

/// A number for each unit of each group, by the gradients of a loss on one of the network's outputs. A batch has a tensor for
/// each input of the network and `target`; it is run as in training, with the statistics of the batch in batch
/// normalisations and with dropout, which `seed` decides. Nothing is learned but for `movement`, of which each batch is a step of
/// gradient descent at a rate of 0.01; what comes of it is forgotten. A batch is forgotten before the next one is
/// asked for. `types` and `groups` are the graph's.
///
/// # Errors
/// When there are no batches, the network cannot learn, or a batch does not fit it. A group's as [`Gradients::importance`]
/// has it, and for criteria that are not told by gradients.
#[expect(clippy::too_many_arguments, reason = "a network with its groups, a loss, data, and what to tell of them")]
pub fn by_gradients<E: From<TrainError> + From<ObserveError>>(
    graph: &Graph,
    types: &Types,
    groups: &[Group],
    output: &Name,
    loss: Loss,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
    criterion: Criterion,
    seed: u64,
) -> Result<Vec<Result<Vec<f64>, Unranked>>, E> {
    if criterion.needs() != Needs::Gradients {
        return Ok(groups.iter().map(|group| Err(Unranked::by_other_means(group, criterion))).collect());
    }
    let mut learner = Learner::new(graph, output, loss, &BTreeSet::new())?;
    let mut gradients = Gradients::new(graph, types, groups);
    for (batch, seed) in batches.into_iter().zip((0..).map(|number| seed.wrapping_add(number))) {
        let mut learned = learner.learn(&batch?, seed)?;
        let parameters = learned.parameters();
        let by_name: IndexMap<&Name, (&[f32], &[f32])> = learned
            .gradients()
            .filter_map(|(position, gradient)| {
                let (name, parameter) = parameters.get_index(position)?;
                Some((name, (parameter.values.as_slice(), gradient)))
            })
            .collect();
        gradients.add(|name| by_name.get(name).copied());
        if criterion == Criterion::Movement {
            learned.apply(|_, gradient, parameter| {
                parameter.values.iter_mut().zip(gradient).for_each(|(value, slope)| *value -= MOVEMENT_RATE * slope);
            });
        }
    }
    match gradients.n_batches {
        0 => Err(ObserveError::NoSamples.into()),
        _ => Ok(gradients.importance(criterion)),
    }
}
