//! Linear maps with weights of their own: projections, and what else learns.

use super::flow::Flow;
use crate::graph::{Name, Node, Op};

/// A node that multiplies an activation by a weight: a fully connected layer, however it is spelt.
pub(super) struct Linear<'a> {
    pub(super) node_idx: usize,
    /// What it is applied to.
    pub(super) input: &'a Name,
    /// What it gives.
    pub(super) output: &'a Name,
    /// The size of the dimension that it sums over.
    pub(super) n_in: Option<usize>,
    /// The size of the dimension that takes its place.
    pub(super) n_out: Option<usize>,
}

/// Whether a node has weights that mix what it computes on: a layer, not an elementwise function.
pub(super) fn is_layer(flow: &Flow<'_>, node: &Node) -> bool {
    match &node.op {
        Op::Conv(_) | Op::ConvTranspose(_) | Op::ConvInteger(_) | Op::QLinearConv(_) => true,
        Op::LSTM(_) | Op::GRU(_) | Op::RNN(_) | Op::DynamicQuantizeLSTM(_) => true,
        Op::MatMulNBits(_) => true,
        Op::MatMul | Op::MatMulInteger | Op::Gemm(_) | Op::QGemm(_) | Op::QLinearMatMul | Op::Einsum(_) => {
            let data = weights_and_data(node).filter(|name| flow.is_activation(name)).count();
            data == 1
        }
        _ => false,
    }
}

/// The fully connected layer at this node: a product with a constant, or a convolution whose kernel is one element.
pub(super) fn linear<'a>(flow: &Flow<'a>, node_idx: usize) -> Option<Linear<'a>> {
    let node = flow.node(node_idx)?;
    let (input, n_in, n_out) = match &node.op {
        Op::MatMul | Op::MatMulInteger | Op::QLinearMatMul => {
            let [left, right] = factors(node)?;
            let shape = |name: &Name| flow.types.known_shape(name);
            match (flow.is_activation(left), flow.is_activation(right)) {
                (true, false) => (left, last_but(shape(right), 1), last_but(shape(right), 0)),
                (false, true) => (right, last_but(shape(left), 0), last_but(shape(left), 1)),
                (true, true) | (false, false) => return None,
            }
        }
        Op::Gemm(_) | Op::QGemm(_) => {
            let [left, right] = factors(node)?;
            if !flow.is_activation(left) || flow.is_activation(right) {
                return None;
            }
            let transposed = matches!(&node.op, Op::Gemm(gemm) if gemm.trans_b)
                || matches!(&node.op, Op::QGemm(gemm) if gemm.trans_b);
            let shape = flow.types.known_shape(right);
            let sizes = (last_but(shape.clone(), 1), last_but(shape, 0));
            if transposed { (left, sizes.1, sizes.0) } else { (left, sizes.0, sizes.1) }
        }
        Op::MatMulNBits(packed) => {
            let size = |size: i64| usize::try_from(size).ok();
            (node.input(0)?, size(packed.k), size(packed.n))
        }
        Op::Conv(conv) if conv.group == 1 => {
            let shape = flow.types.known_shape(node.input(1)?)?;
            if shape.iter().skip(2).any(|&size| size != 1) {
                return None;
            }
            (node.input(0)?, shape.get(1).copied(), shape.first().copied())
        }
        Op::Einsum(_) => {
            if node.inputs.len() != 2 {
                return None;
            }
            (flow.sole_data_input(node)?, None, None)
        }
        _ => return None,
    };
    flow.is_activation(input).then_some(())?;
    Some(Linear { node_idx, input, output: node.output(0)?, n_in, n_out })
}

/// The product of two activations at this node, by what it multiplies.
pub(super) fn product<'a>(flow: &Flow<'a>, node_idx: usize) -> Option<[&'a Name; 2]> {
    let node = flow.node(node_idx)?;
    let multiplies = matches!(node.op, Op::MatMul | Op::MatMulInteger | Op::QLinearMatMul | Op::Gemm(_) | Op::QGemm(_))
        || matches!(node.op, Op::Einsum(_)) && node.inputs.len() == 2;
    let factors = multiplies.then(|| factors(node)).flatten()?;
    factors.iter().all(|name| flow.is_activation(name)).then_some(factors)
}

/// The two matrices that a product multiplies.
fn factors(node: &Node) -> Option<[&Name; 2]> {
    let right = if matches!(node.op, Op::QLinearMatMul | Op::QGemm(_)) { 3 } else { 1 };
    Some([node.input(0)?, node.input(right)?])
}

fn weights_and_data(node: &Node) -> impl Iterator<Item = &Name> {
    factors(node).into_iter().flatten()
}

fn last_but(shape: Option<Vec<usize>>, n_after: usize) -> Option<usize> {
    shape?.iter().rev().nth(n_after).copied()
}
