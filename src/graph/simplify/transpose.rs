//! Transposes on their own, and those that a neighbour can take in.

use super::edits::Edits;
use super::reshape;
use super::view::View;
use crate::graph::axes::axis_from_start;
use crate::graph::eval;
use crate::graph::op::{self, Op};
use crate::graph::patch::Place;
use crate::graph::tensor::Tensor;
use crate::graph::{Dim, Name, Node};

/// The order of axes of a Transpose: axis `i` of its output is axis `order[i]` of its input.
pub(super) fn order(view: &View<'_>, node: &Node) -> Option<Vec<usize>> {
    let Op::Transpose(transpose) = &node.op else { return None };
    let rank = view.rank(node.input(0)?)?;
    if transpose.perm.is_empty() {
        return Some((0..rank).rev().collect());
    }
    let order: Vec<usize> = transpose.perm.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<_>>()?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    sorted.into_iter().eq(0..rank).then_some(order)
}

/// The order of a Transpose by `first` and one by `second` after it.
pub(super) fn composed(first: &[usize], second: &[usize]) -> Option<Vec<usize>> {
    second.iter().map(|&axis| first.get(axis).copied()).collect()
}

/// The order that undoes this one.
pub(super) fn inverse(order: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; order.len()];
    for (axis, &from) in order.iter().enumerate() {
        if let Some(place) = inverse.get_mut(from) {
            *place = axis;
        }
    }
    inverse
}

pub(super) fn is_identity(order: &[usize]) -> bool {
    order.iter().copied().eq(0..order.len())
}

/// A Transpose by this order.
pub(super) fn transpose(order: &[usize], input: &Name, output: &Name) -> Node {
    let perm = order.iter().map(|&axis| i64::try_from(axis).unwrap_or(i64::MAX)).collect();
    Node::new(Op::Transpose(op::Transpose { perm }), vec![Some(input.clone())], vec![Some(output.clone())])
}

/// Makes one Transpose of two, or none where the second undoes the first.
pub(super) fn consecutive(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx) else { return };
    let Some(second) = order(view, node) else { return };
    let (Some(between), Some(output)) = (node.input(0), node.output(0)) else { return };
    let Some(before_idx) = view.uses.producer_idx(between) else { return };
    let Some(before) = view.node(before_idx) else { return };
    let Some(both) = order(view, before).and_then(|first| composed(&first, &second)) else { return };
    let Some(input) = before.input(0) else { return };
    if is_identity(&both) {
        if view.can_become(output, input)
            && let Some(patch) = edits.take(&[node_idx, before_idx])
        {
            patch.remove(node_idx);
            patch.replace_uses(output, input);
        }
    } else if view.uses.sole_reader(between).is_some()
        && let Some(patch) = edits.take(&[node_idx, before_idx])
    {
        let Node { op, .. } = transpose(&both, input, output);
        patch.remove(before_idx);
        patch.replace(node_idx, vec![Node { op, inputs: vec![Some(input.clone())], ..node.clone() }]);
    }
}

/// Makes a Reshape of a Transpose that moves none but dimensions of size 1.
pub(super) fn as_reshape(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx) else { return };
    let Some(order) = order(view, node).filter(|order| !is_identity(order)) else { return };
    let (Some(data), Some(output)) = (node.input(0), node.output(0)) else { return };
    let Some(dims) = view.dims(data) else { return };
    let is_wide = |axis: &&usize| dims.get(**axis) != Some(&Dim::Known(1));
    if !order.iter().filter(is_wide).is_sorted() {
        return;
    }
    let Some(shape) = reshape::spelled(view, data, output) else { return };
    if let Some(patch) = edits.take(&[node_idx]) {
        let shape = patch.add_initializer(&format!("{output}_shape"), Tensor::vector(shape));
        patch.replace(node_idx, vec![reshape::reshape(node, data, &shape)]);
    }
}

/// Lets a product of matrices read what a Transpose of two axes reads: a Gemm says itself that an input is transposed.
pub(super) fn into_gemm(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx) else { return };
    let mut gemm = match &node.op {
        Op::Gemm(gemm) => gemm.clone(),
        // before opset 11 a Gemm must have a bias
        Op::MatMul if view.options.opset.is_some_and(|opset| opset < 11) => return,
        Op::MatMul if (0..2).all(|position| node.input(position).and_then(|name| view.rank(name)) == Some(2)) => {
            op::Gemm::default()
        }
        _ => return,
    };
    let is_float = node.output(0).and_then(|name| view.dtype(name)).is_some_and(|dtype| dtype.is_float());
    let transposed = |position: usize| {
        let name = node.input(position).filter(|_| is_float)?;
        let before_idx = view.uses.producer_idx(name).filter(|_| view.uses.sole_reader(name).is_some())?;
        let before = view.node(before_idx)?;
        (order(view, before)? == [1, 0]).then(|| before.input(0).map(|input| (before_idx, input.clone())))?
    };
    let (a, b) = (transposed(0), transposed(1));
    let mut nodes = vec![node_idx];
    nodes.extend(a.iter().chain(&b).map(|(before_idx, _)| *before_idx));
    if nodes.len() == 1 {
        return;
    }
    let Some(patch) = edits.take(&nodes) else { return };
    gemm.trans_a ^= a.is_some();
    gemm.trans_b ^= b.is_some();
    let mut inputs = node.inputs.clone();
    for (input, transposed) in inputs.iter_mut().zip([a, b]) {
        if let Some((before_idx, name)) = transposed {
            patch.remove(before_idx);
            *input = Some(name);
        }
    }
    patch.replace(node_idx, vec![Node { op: Op::Gemm(gemm), inputs, ..node.clone() }]);
}

/// Lets a reduction that drops its axes read what a Transpose reads, where the axes that are left stay in order.
pub(super) fn into_reduction(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx) else { return };
    if reduction(&node.op).is_none_or(|reduce| reduce.keepdims) {
        return;
    }
    let Some(before_idx) = node.input(0).and_then(|name| view.uses.producer_idx(name)) else { return };
    let Some(before) = view.node(before_idx) else { return };
    let Some(order) = order(view, before) else { return };
    let (Some(data), Some(axes)) = (before.input(0), node.input(1).and_then(|name| view.integers(name))) else {
        return;
    };
    let Some(axes) = positive(&axes, order.len()).filter(|axes| !axes.is_empty()) else { return };
    let left: Vec<usize> =
        order.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &from)| from).collect();
    if !left.is_sorted() {
        edits.decline(node_idx, "the axes that are left would be in another order");
        return;
    }
    let moved: Option<Vec<usize>> = axes.iter().map(|&axis| order.get(axis).copied()).collect();
    let (Some(moved), Some(patch)) = (moved, edits.take(&[node_idx, before_idx])) else { return };
    let base = node.input(1).map_or("axes", |axes| axes.as_str());
    let axes = patch.add_initializer(base, Tensor::vector(signed(&moved)));
    patch.replace(node_idx, vec![Node { inputs: vec![Some(data.clone()), Some(axes)], ..node.clone() }]);
}

/// Lets a product with a constant matrix read the rows of a Transpose and a reshape to two dimensions in the order that
/// they had before, with the rows of the matrix in that order.
pub(super) fn into_weights(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx) else { return };
    let is_transposed = match &node.op {
        Op::Gemm(gemm) if !gemm.trans_a => gemm.trans_b,
        Op::MatMul => false,
        _ => return,
    };
    let (Some(rows), Some(weight)) = (node.input(0), node.input(1)) else { return };
    let chain = || {
        let flat_idx = view.uses.producer_idx(rows).filter(|_| view.uses.sole_reader(rows).is_some())?;
        let flat = view.node(flat_idx).filter(|flat| matches!(flat.op, Op::Reshape(_) | Op::Flatten(_)))?;
        let between = flat.input(0).filter(|name| view.uses.sole_reader(name).is_some())?;
        let before_idx = view.uses.producer_idx(between)?;
        Some((flat_idx, before_idx, view.node(before_idx)?))
    };
    let Some((flat_idx, before_idx, before)) = chain() else { return };
    let Some(order) = order(view, before).filter(|order| order.first() == Some(&0)) else { return };
    let Some(data) = before.input(0) else { return };
    let matrix = view.graph.initializers.get(weight).filter(|_| view.uses.sole_reader(weight).is_some());
    let matrix = matrix.filter(|_| view.constant(weight).is_some());
    let Some(permuted) = matrix.and_then(|matrix| rows_permuted(view, data, rows, &order, matrix, is_transposed))
    else {
        return;
    };
    let Some(shape) = reshape::spelled(view, data, rows) else { return };
    let Some(patch) = edits.take(&[node_idx, flat_idx, before_idx]) else { return };
    let shape = patch.add_initializer(&format!("{rows}_shape"), Tensor::vector(shape));
    let flat = patch.fresh(&format!("{rows}_flat"));
    patch.remove(before_idx);
    patch.remove(flat_idx);
    patch.insert(
        Place::Before(node_idx),
        Node::new(Op::Reshape(op::Reshape::default()), vec![Some(data.clone()), Some(shape)], vec![Some(flat.clone())]),
    );
    patch.replace_initializer(weight, permuted);
    let mut inputs = node.inputs.clone();
    if let Some(first) = inputs.first_mut() {
        *first = Some(flat);
    }
    patch.replace(node_idx, vec![Node { inputs, ..node.clone() }]);
}

/// The matrix with its rows (its columns where it is transposed) in the order of the data before the Transpose.
fn rows_permuted(
    view: &View<'_>,
    data: &Name,
    rows: &Name,
    order: &[usize],
    matrix: &Tensor,
    is_transposed: bool,
) -> Option<Tensor> {
    let (dims, flat) = (view.dims(data)?, view.dims(rows)?);
    let sizes: Vec<usize> = order.iter().skip(1).map(|&axis| dims.get(axis)?.known()).collect::<Option<_>>()?;
    let n_rows = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
    let &[n_matrix_rows, n_columns] = matrix.shape() else { return None };
    let (n_matrix_rows, n_columns) =
        if is_transposed { (n_columns, n_matrix_rows) } else { (n_matrix_rows, n_columns) };
    // the first dimension is not reshaped: as many rows as elements in the others
    if flat.len() != 2 || flat.get(1)?.known()? != n_rows || n_matrix_rows != n_rows {
        return None;
    }
    let back: Vec<usize> = inverse(order).into_iter().skip(1).map(|axis| axis.checked_sub(1)).collect::<Option<_>>()?;
    let n_axes = sizes.len();
    let (shape, perm): (Vec<usize>, Vec<usize>) = if is_transposed {
        (
            [n_columns].into_iter().chain(sizes).collect(),
            [0].into_iter().chain(back.iter().map(|axis| axis + 1)).collect(),
        )
    } else {
        (sizes.into_iter().chain([n_columns]).collect(), back.into_iter().chain([n_axes]).collect())
    };
    transposed(&matrix.reshaped(&shape).ok()?, &perm)?.reshaped(matrix.shape()).ok()
}

/// A constant with its axes in this order.
pub(super) fn transposed(tensor: &Tensor, order: &[usize]) -> Option<Tensor> {
    let op = Op::Transpose(op::Transpose { perm: signed(order) });
    eval::operator(&op, &[Some(tensor.clone())], 1).ok()?.into_iter().next()?
}

/// The attributes of a reduction.
pub(super) fn reduction(op: &Op) -> Option<&op::Reduce> {
    match op {
        Op::ReduceL1(reduce) | Op::ReduceL2(reduce) | Op::ReduceLogSum(reduce) | Op::ReduceLogSumExp(reduce) => {
            Some(reduce)
        }
        Op::ReduceMax(reduce) | Op::ReduceMean(reduce) | Op::ReduceMin(reduce) | Op::ReduceProd(reduce) => Some(reduce),
        Op::ReduceSum(reduce) | Op::ReduceSumSquare(reduce) => Some(reduce),
        _ => None,
    }
}

/// Axes counted from the start.
pub(super) fn positive(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    axes.iter().map(|&axis| axis_from_start(axis, rank)).collect()
}

/// Axes as attributes and constants hold them.
pub(super) fn signed(axes: &[usize]) -> Vec<i64> {
    axes.iter().map(|&axis| i64::try_from(axis).unwrap_or(i64::MAX)).collect()
}
