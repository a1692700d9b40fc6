//! What the weights alone tell: norms of slices, scales, distances between units.

use std::borrow::Cow;

use indexmap::IndexMap;

use super::{Unranked, add_over_mean, for_runs};
use crate::graph::eval;
use crate::graph::op::{DequantizeLinear, Op};
use crate::graph::shape::Types;
use crate::graph::structure::groups::{Group, Member, Role};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node};
use crate::learn::kernels::gemm::{Matrix, gemm};
use crate::learn::train::roles::{self, roles};

/// The weights of a graph as numbers.
pub(super) struct Weights<'a> {
    graph: &'a Graph,
    uses: Uses<'a>,
    roles: IndexMap<Name, roles::Role>,
}

impl<'a> Weights<'a> {
    pub(super) fn of(graph: &'a Graph, types: &Types) -> Weights<'a> {
        Weights { graph, uses: Uses::of(graph), roles: roles(graph, types) }
    }

    /// For each unit the norms of its slices, each over the group's mean. A unit that nothing reads is at zero.
    pub(super) fn norms(&self, group: &Group, power: i32) -> Result<Vec<f64>, Unranked> {
        let mut total = vec![0f64; group.n_units];
        let mut is_read = vec![false; group.n_units];
        let mut n_summed = 0;
        for member in group.members.iter().filter(|member| self.counts(member)) {
            let norms = self.norms_of(group, member, power)?;
            if member.role == Role::Summed {
                n_summed += 1;
                is_read.iter_mut().zip(&norms).for_each(|(is_read, &norm)| *is_read |= norm > 0.0);
            }
            add_over_mean(&mut total, &norms);
        }
        if n_summed > 0 && group.crosses.is_empty() {
            total.iter_mut().zip(is_read).filter(|(_, is_read)| !is_read).for_each(|(total, _)| *total = 0.0);
        }
        Ok(total)
    }

    /// For each unit the mean magnitude of what scales it.
    pub(super) fn scales(&self, group: &Group) -> Result<Vec<f64>, Unranked> {
        let scales: Vec<&Member> = group.with_role(Role::Constant).filter(|member| self.counts(member)).collect();
        if scales.is_empty() {
            let problem = "makes units that no normalisation scales";
            let remedy = "prune before normalisations become part of convolutions, or use the criterion `l2`";
            return Err(Unranked { group: group.name().clone(), weight: group.name().clone(), problem, remedy });
        }
        let mut total = vec![0f64; group.n_units];
        for member in &scales {
            let n = (scales.len() * member.n_per_unit) as f64;
            let magnitudes = self.norms_of(group, member, 1)?;
            total.iter_mut().zip(&magnitudes).for_each(|(total, magnitude)| *total += magnitude / n);
        }
        Ok(total)
    }

    /// For each unit the sums of distances to the others, each over the group's mean.
    pub(super) fn distances(&self, group: &Group) -> Result<Vec<f64>, Unranked> {
        let mut total = vec![0f64; group.n_units];
        for member in group.with_role(Role::Made) {
            let tensor = self.tensor(&member.value).ok_or_else(|| not_stored(group, member))?;
            let slices = slices(&tensor, member, group.n_units).ok_or_else(|| of_other_type(group, member))?;
            let sums = distances(slices, group.n_units);
            if !sums.iter().all(|sum| sum.is_finite()) {
                return Err(not_finite(group, member));
            }
            add_over_mean(&mut total, &sums);
        }
        Ok(total)
    }

    /// Whether it makes, sums over or scales the units.
    fn counts(&self, member: &Member) -> bool {
        match member.role {
            Role::Made | Role::Summed => true,
            Role::Constant => matches!(self.roles.get(&member.value), Some(roles::Role::Scale)),
            Role::Inner => false,
        }
    }

    /// The norm of each unit's slices.
    fn norms_of(&self, group: &Group, member: &Member, power: i32) -> Result<Vec<f64>, Unranked> {
        let tensor = self.tensor(&member.value).ok_or_else(|| not_stored(group, member))?;
        let sums = by_index(&tensor, member.axis, power).ok_or_else(|| of_other_type(group, member))?;
        let norm = |unit: usize| {
            let sum: f64 = member.of_unit(unit).iter().filter_map(|&index| sums.get(index)).sum();
            if power == 1 { sum } else { sum.sqrt() }
        };
        let norms: Vec<f64> = (0..group.n_units).map(norm).collect();
        match norms.iter().all(|norm| norm.is_finite()) {
            true => Ok(norms),
            false => Err(not_finite(group, member)),
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
    let mut sums = vec![0f64; *shape.get(axis)?];
    match tensor.dtype() {
        DType::F64 => {
            let numbers = tensor.as_slice::<f64>().ok()?;
            for_runs(shape, axis, |index, run| numbers[run].iter().for_each(|x| sums[index] += x.abs().powi(power)));
        }
        _ => {
            let numbers = tensor.to_f32s().ok()?;
            for_runs(shape, axis, |index, run| {
                numbers[run].iter().for_each(|&x| sums[index] += f64::from(x).abs().powi(power));
            });
        }
    }
    Some(sums)
}

/// The elements of each unit, one behind the other, in rows of the same length.
fn slices(tensor: &Tensor, member: &Member, n_units: usize) -> Option<Vec<f32>> {
    let numbers = match tensor.dtype() {
        DType::F64 => Cow::Owned(tensor.as_slice::<f64>().ok()?.iter().map(|&x| x as f32).collect()),
        _ => tensor.to_f32s().ok()?,
    };
    let size = *tensor.shape().get(member.axis)?;
    let n_inner: usize = tensor.shape()[member.axis + 1..].iter().product();
    let mut slices = Vec::with_capacity(numbers.len());
    for unit in 0..n_units {
        for block in numbers.chunks_exact((size * n_inner).max(1)) {
            for index in member.of_unit(unit) {
                slices.extend_from_slice(block.get(index * n_inner..(index + 1) * n_inner)?);
            }
        }
    }
    Some(slices)
}

/// For each of `n` rows the sum of its Euclidean distances to the others, up to a factor that all have in common.
///
/// Of rows around their mean, `|a − b|² = |a|² + |b|² − 2 a·b`: one product of matrices, some rows at a time.
fn distances(mut rows: Vec<f32>, n: usize) -> Vec<f64> {
    const N_TOGETHER: usize = 256;
    let length = rows.len() / n.max(1);
    if length == 0 {
        return vec![0.0; n];
    }
    centre(&mut rows, n);
    let square = |row: &[f32]| row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
    let squares: Vec<f64> = rows.chunks_exact(length).map(square).collect();
    let all = Matrix::rows(&rows, length).transposed();
    let mut sums = Vec::with_capacity(n);
    for some in rows.chunks(N_TOGETHER * length) {
        let n_rows = some.len() / length;
        let mut products = vec![0f32; n_rows * n];
        gemm([n_rows, n, length], 1.0, Matrix::rows(some, length), all, false, &mut products);
        for products in products.chunks_exact(n) {
            let row = sums.len();
            let distance = |other: usize| {
                let squared = squares[row] + squares[other] - 2.0 * f64::from(products[other]);
                // Rounding takes those of equal rows below zero; what is no number stays so.
                if squared < 0.0 { 0.0 } else { squared.sqrt() }
            };
            sums.push((0..n).filter(|&other| other != row).map(distance).sum());
        }
    }
    sums
}

/// Takes the mean row from every row, and the greatest magnitude from all as a factor.
fn centre(rows: &mut [f32], n: usize) {
    let length = rows.len() / n;
    let mut mean = vec![0f64; length];
    for row in rows.chunks_exact(length) {
        mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x) / n as f64);
    }
    let largest = rows.iter().fold(0f64, |largest, &x| largest.max(f64::from(x).abs()));
    let factor = if largest > 0.0 { 1.0 / largest } else { 1.0 };
    for row in rows.chunks_exact_mut(length) {
        row.iter_mut().zip(&mean).for_each(|(x, mean)| *x = ((f64::from(*x) - mean) * factor) as f32);
    }
}

const REMEDY: &str = "use the criterion `first` or `random`";

fn unranked(group: &Group, member: &Member, problem: &'static str) -> Unranked {
    Unranked { group: group.name().clone(), weight: member.value.clone(), problem, remedy: REMEDY }
}

fn not_stored(group: &Group, member: &Member) -> Unranked {
    unranked(group, member, "is not stored as numbers")
}

fn of_other_type(group: &Group, member: &Member) -> Unranked {
    unranked(group, member, "is of another type than weights")
}

fn not_finite(group: &Group, member: &Member) -> Unranked {
    unranked(group, member, "holds what is no finite number")
}
