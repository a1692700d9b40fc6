//! How much a unit of a group matters, told from the weights.

use indexmap::IndexMap;
use rand::RngExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::graph::eval;
use crate::graph::op::{DequantizeLinear, Op};
use crate::graph::shape::Types;
use crate::graph::structure::groups::{Group, Member, Role};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node};
use crate::learn::train::init::generator;
use crate::learn::train::roles::{self, roles};

/// By what units are chosen that are kept, as TOML has it: `"l2"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// The sum of magnitudes of a unit's weights: Li et al., "Pruning Filters for Efficient ConvNets" (2017),
    /// section 3.1.
    L1,
    /// Their Euclidean norm: He et al., "Soft Filter Pruning" (2018), equation 2 with p = 2.
    #[default]
    L2,
    /// The first are kept.
    First,
    /// Any, by the seed.
    Random,
}

/// Why the units of a group cannot be told apart by its weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{group}` {}", self.reason())]
pub struct Unranked {
    /// the group
    pub group: Name,
    /// the weight
    pub weight: Name,
    /// what stands in the way
    pub problem: &'static str,
}

impl Unranked {
    /// What is to be said of the group.
    pub(super) fn reason(&self) -> String {
        let Unranked { weight, problem, .. } = self;
        format!("cannot be ranked: `{weight}` {problem}; use the criterion `first` or `random`")
    }
}

/// A number for each unit of each group: the more, the more it matters. `types` and `groups` are the graph's.
///
/// For `l1` and `l2` it is the sum, over every weight that makes the units, that sums over them, or that scales them in
/// a normalisation, of the norm of the slices that belong to the unit, divided by the mean of these norms over the
/// group's units. So the slices of coupled layers count together (Fang et al., "DepGraph" (2023), section 3.3), and each
/// layer as much as any other, whatever its size and scale. Biases do not count. A unit that nothing reads, all slices
/// that sum over it being zero, is at zero whatever makes it, unless something normalises over it.
///
/// For `first` it falls with the position; for `random` it is drawn, from the seed and the group's place and name.
/// Weights of integers are taken for the numbers that they stand for.
///
/// # Errors
/// A group's, when the numbers of one of its weights are not to be had.
pub fn importance(
    graph: &Graph,
    types: &Types,
    groups: &[Group],
    criterion: Criterion,
    seed: u64,
) -> Vec<Result<Vec<f64>, Unranked>> {
    let power = match criterion {
        Criterion::L1 => 1,
        Criterion::L2 => 2,
        Criterion::First => return groups.iter().map(|group| Ok(falling(group.n_units))).collect(),
        Criterion::Random => {
            return groups.iter().enumerate().map(|(idx, group)| Ok(drawn(group, idx, seed))).collect();
        }
    };
    let weights = Weights { graph, uses: Uses::of(graph), roles: roles(graph, types) };
    groups.iter().map(|group| weights.importance(group, power)).collect()
}

fn falling(n: usize) -> Vec<f64> {
    (0..n).map(|unit| (n - unit) as f64).collect()
}

fn drawn(group: &Group, group_idx: usize, seed: u64) -> Vec<f64> {
    let mut generator = generator(seed, &format!("{group_idx} {}", group.name()));
    (0..group.n_units).map(|_| generator.random()).collect()
}

struct Weights<'a> {
    graph: &'a Graph,
    uses: Uses<'a>,
    roles: IndexMap<Name, roles::Role>,
}

impl Weights<'_> {
    fn importance(&self, group: &Group, power: i32) -> Result<Vec<f64>, Unranked> {
        let mut total = vec![0f64; group.n_units];
        let mut is_read = vec![false; group.n_units];
        let mut n_summed = 0;
        for member in &group.members {
            if !self.counts(member) {
                continue;
            }
            let norms = self.norms(group, member, power)?;
            if member.role == Role::Summed {
                n_summed += 1;
                is_read.iter_mut().zip(&norms).for_each(|(is_read, &norm)| *is_read |= norm > 0.0);
            }
            let mean = norms.iter().sum::<f64>() / norms.len().max(1) as f64;
            if mean > 0.0 && mean.is_finite() {
                total.iter_mut().zip(&norms).for_each(|(total, norm)| *total += norm / mean);
            }
        }
        if n_summed > 0 && group.crosses.is_empty() {
            total.iter_mut().zip(is_read).filter(|(_, is_read)| !is_read).for_each(|(total, _)| *total = 0.0);
        }
        Ok(total)
    }

    fn counts(&self, member: &Member) -> bool {
        match member.role {
            Role::Made | Role::Summed => true,
            Role::Constant => matches!(self.roles.get(&member.value), Some(roles::Role::Scale)),
            Role::Inner => false,
        }
    }

    /// The norm of each unit's slices.
    fn norms(&self, group: &Group, member: &Member, power: i32) -> Result<Vec<f64>, Unranked> {
        let unranked = |problem| Unranked { group: group.name().clone(), weight: member.value.clone(), problem };
        let tensor = self.tensor(&member.value).ok_or_else(|| unranked("is not stored as numbers"))?;
        let sums = by_index(&tensor, member.axis, power).ok_or_else(|| unranked("is of another type than weights"))?;
        let norm = |unit: usize| {
            let sum: f64 = member.of_unit(unit).iter().filter_map(|&index| sums.get(index)).sum();
            if power == 1 { sum } else { sum.sqrt() }
        };
        let norms: Vec<f64> = (0..group.n_units).map(norm).collect();
        match norms.iter().all(|norm| norm.is_finite()) {
            true => Ok(norms),
            false => Err(unranked("holds what is no finite number")),
        }
    }

    /// An initializer, or what a Constant gives.
    fn stored(&self, name: &Name) -> Option<&Tensor> {
        self.graph.initializers.get(name).or_else(|| match &self.uses.producer(name)?.op {
            Op::Constant(constant) => Some(&constant.value),
            _ => None,
        })
    }

    /// The numbers that a weight stands for.
    fn tensor(&self, name: &Name) -> Option<Tensor> {
        let stored = self.stored(name)?;
        if stored.dtype().is_float() {
            return Some(stored.clone());
        }
        self.uses
            .readers(name)
            .iter()
            .find_map(|reader| self.dequantized(stored, self.graph.nodes.get(reader.node_idx)?, reader.position?))
    }

    /// The numbers that integers stand for to the node that reads them.
    fn dequantized(&self, stored: &Tensor, node: &Node, position: usize) -> Option<Tensor> {
        let last = i64::try_from(stored.rank()).ok()? - 1;
        let attributes = |axis| DequantizeLinear { axis, block_size: 0, output_dtype: None };
        let (attributes, scale, zero_point) = match (&node.op, position) {
            (Op::DequantizeLinear(attributes), 0) => (attributes.clone(), Some(1), 2),
            (Op::QLinearConv(_), 3) => (attributes(0), Some(4), 5),
            (Op::ConvInteger(_), 1) => (attributes(0), None, 3),
            (Op::QLinearMatMul, 3) => (attributes(last), Some(4), 5),
            (Op::MatMulInteger, 1) => (attributes(last), None, 3),
            (_, _) => return None,
        };
        let constant = |position: usize| match node.input(position) {
            Some(name) => Some(Some(self.stored(name)?.clone())),
            None => Some(None),
        };
        let zero_point = constant(zero_point)?;
        let scale = match (scale, &zero_point) {
            (Some(scale), _) => constant(scale)?,
            (None, Some(zero_point)) => Some(Tensor::new(zero_point.shape(), vec![1f32; zero_point.len()]).ok()?),
            (None, None) => Some(Tensor::scalar(1f32)),
        };
        let inputs = [Some(stored.clone()), scale, zero_point];
        eval::operator(&Op::DequantizeLinear(attributes), &inputs, 1).ok()?.into_iter().next().flatten()
    }
}

/// The sum of the magnitudes' powers at each index of an axis.
fn by_index(tensor: &Tensor, axis: usize, power: i32) -> Option<Vec<f64>> {
    let shape = tensor.shape();
    let (&size, inner) = (shape.get(axis)?, shape.get(axis + 1..)?.iter().product::<usize>());
    let mut sums = vec![0f64; size];
    let mut add = |numbers: &mut dyn Iterator<Item = f64>| {
        for (idx, number) in numbers.enumerate() {
            sums[idx / inner % size] += number.abs().powi(power);
        }
    };
    match tensor.dtype() {
        DType::F64 => add(&mut tensor.as_slice::<f64>().ok()?.iter().copied()),
        _ => add(&mut tensor.to_f32s().ok()?.iter().map(|&number| f64::from(number))),
    }
    Some(sums)
}

/// The units in the order of their importance, the greatest first; of equals the first.
pub(super) fn ranked(importance: &[f64]) -> Vec<usize> {
    let mut units: Vec<usize> = (0..importance.len()).collect();
    units.sort_by(|&one, &other| importance[other].total_cmp(&importance[one]));
    units
}

/// The units that are not among the first `n_kept` of a ranking, ascending.
pub(super) fn rest(ranking: &[usize], n_kept: usize) -> Vec<usize> {
    let mut rest = ranking.get(n_kept..).unwrap_or_default().to_vec();
    rest.sort_unstable();
    rest
}
