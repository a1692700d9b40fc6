//! A constant for each channel that multiplies or is added after a linear operator becomes part of its weight or bias.

use super::linear::{Affine, Linear, fold_into_producer, per_channel};
use super::{Edits, View};
use crate::graph::op::Op;

/// Folds `Mul` and `Div` by a constant for each channel into the weight of the operator before.
pub(super) fn fold_scale(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let divides = match view.graph.nodes[node_idx].op {
        Op::Mul => false,
        Op::Div => true,
        _ => return,
    };
    let Some((linear, constant)) = with_constant(view, node_idx, !divides) else { return };
    let factor = |x: f64| if divides { 1.0 / x } else { x };
    let affine = Affine { scale: Some(constant.into_iter().map(factor).collect()), shift: None };
    if let Err(reason) = fold_into_producer(view, node_idx, &linear, &affine, edits) {
        edits.decline(node_idx, reason);
    }
}

/// Folds `Add` and `Sub` of a constant for each channel into the bias of the operator before; a `MatMul` of two matrices
/// becomes a `Gemm`. One of more dimensions has no bias, and keeps its `Add`: both runtimes take the pair as one.
pub(super) fn fold_bias(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let subtracts = match view.graph.nodes[node_idx].op {
        Op::Add => false,
        Op::Sub => true,
        _ => return,
    };
    let Some((linear, constant)) = with_constant(view, node_idx, !subtracts) else { return };
    if matches!(view.graph.nodes[linear.node_idx()].op, Op::MatMul) && linear.rank(view) != Some(2) {
        return;
    }
    let term = |x: f64| if subtracts { -x } else { x };
    let affine = Affine { scale: None, shift: Some(constant.into_iter().map(term).collect()) };
    if let Err(reason) = fold_into_producer(view, node_idx, &linear, &affine, edits) {
        edits.decline(node_idx, reason);
    }
}

/// The linear operator that computes one input of the node, and the other input, a number for each of its channels.
fn with_constant<'a>(view: &View<'a>, node_idx: usize, commutes: bool) -> Option<(Linear<'a>, Vec<f64>)> {
    let node = &view.graph.nodes[node_idx];
    let (a, b) = (node.input(0)?, node.input(1)?);
    let (x, other) = if commutes && view.constant(a).is_some() { (b, a) } else { (a, b) };
    let tensor = view.constant(other)?;
    let linear = Linear::at(view, view.uses.producer_idx(x)?)?;
    let rank = linear.rank(view)?;
    let numbers = per_channel(tensor, rank, linear.channel_axis(rank)?, linear.n_out())?;
    Some((linear, numbers))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Options;
    use super::super::testing::{Net, check, check_declined, check_declined_with};
    use crate::graph::op::{Conv, ConvTranspose, DequantizeLinear, Gemm, Op};
    use crate::graph::tensor::{DType, Tensor};
    use crate::graph::{Graph, TensorType};

    fn conv() -> Op {
        Op::Conv(Conv::default())
    }

    /// `op(Conv(x), constant of this shape)` of six channels
    fn after_conv(op: Op, shape: &[usize], biased: bool) -> Graph {
        let mut net = Net::new(1);
        let x = net.input(&[2, 4, 5, 5]);
        let w = net.random(&[6, 4, 3, 3]);
        let b = net.random(&[6]);
        let inputs = if biased { vec![&x, &w, &b] } else { vec![&x, &w] };
        let y = net.node(conv(), &inputs);
        let c = net.positive(shape);
        let y = net.node(op, &[&y, &c]);
        net.finish(&y)
    }

    #[test]
    fn constants_for_each_channel_become_weight_and_bias() {
        for op in [Op::Mul, Op::Div, Op::Add, Op::Sub] {
            for shape in [&[6, 1, 1][..], &[1, 6, 1, 1], &[], &[1]] {
                check(&after_conv(op.clone(), shape, true), &["Conv"]);
                check(&after_conv(op.clone(), shape, false), &["Conv"]);
            }
        }
    }

    #[test]
    fn other_constants_are_left() {
        for shape in [&[3][..], &[3, 3], &[6, 1, 3], &[2, 6, 1, 1], &[1, 1, 6, 1, 1]] {
            check_declined(&after_conv(Op::Add, shape, true), &[]);
        }
    }

    #[test]
    fn a_product_and_a_sum_after_a_gemm_become_one_gemm() {
        let mut net = Net::new(2);
        let x = net.input(&[2, 4]);
        let (w, scale, shift) = (net.random(&[4, 3]), net.random(&[3]), net.random(&[1, 3]));
        let y = net.node(Op::Gemm(Gemm { beta: 0.5, ..Gemm::default() }), &[&x, &w]);
        let y = net.node(Op::Mul, &[&scale, &y]);
        let y = net.node(Op::Add, &[&shift, &y]);
        let simplified = check(&net.finish(&y), &["Gemm"]);
        insta::assert_snapshot!(crate::graph::show::show(&simplified.graph), @r#"
        graph "net"
          in   %x: f32[2, 4]
          out  %add
          init %w: f32[4, 3] #08093f84
          init %w_bias: f32[3] [-0.14941669, -0.49184346, 0.22335851]
          %add = Gemm(%x, %w, %w_bias)
        "#);
    }

    #[test]
    fn only_a_matmul_of_two_matrices_becomes_a_gemm() {
        for (shape, operators) in [(&[2, 4][..], &["Gemm"][..]), (&[2, 3, 4], &["MatMul", "Add"])] {
            let mut net = Net::new(3);
            let x = net.input(shape);
            let (w, c) = (net.random(&[4, 3]), net.random(&[3]));
            let y = net.node(Op::MatMul, &[&x, &w]);
            let y = net.node(Op::Add, &[&y, &c]);
            check(&net.finish(&y), operators);
        }
        let mut net = Net::new(4);
        let x = net.input(&[2, 3, 4]);
        let (w, c) = (net.random(&[4, 3]), net.scalar(0.125));
        let y = net.node(Op::MatMul, &[&x, &w]);
        let y = net.node(Op::Mul, &[&y, &c]);
        check(&net.finish(&y), &["MatMul"]);
    }

    #[test]
    fn a_bias_needs_no_constant_weight_but_a_constant_bias() {
        let mut net = Net::new(5);
        let x = net.input(&[2, 4]);
        let w = net.builder.input("given", TensorType::new(DType::F32, [4usize, 3]));
        let c = net.random(&[3]);
        let y = net.node(Op::MatMul, &[&x, &w]);
        let y = net.node(Op::Add, &[&y, &c]);
        check(&net.finish(&y), &["Gemm"]);

        let mut net = Net::new(6);
        let x = net.input(&[2, 4]);
        let bias = net.builder.input("given", TensorType::new(DType::F32, [3usize]));
        let (w, c) = (net.random(&[4, 3]), net.random(&[3]));
        let y = net.node(Op::Gemm(Gemm::default()), &[&x, &w, &bias]);
        let y = net.node(Op::Add, &[&y, &c]);
        check_declined(&net.finish(&y), &["the bias `given` is not constant"]);

        let mut net = Net::new(7);
        let x = net.input(&[2, 4]);
        let (w, c, d) = (net.random(&[4, 3]), net.random(&[2, 1]), net.random(&[3]));
        let y = net.node(Op::Gemm(Gemm::default()), &[&x, &w, &c]);
        let y = net.node(Op::Add, &[&y, &d]);
        check_declined(&net.finish(&y), &["the bias `w_2` is not one number a channel"]);
    }

    #[test]
    fn a_weight_that_is_given_shared_or_quantized_is_left() {
        let mut net = Net::new(8);
        let x = net.input(&[2, 4]);
        let w = net.builder.input("given", TensorType::new(DType::F32, [4usize, 3]));
        let c = net.random(&[3]);
        let y = net.node(Op::MatMul, &[&x, &w]);
        let y = net.node(Op::Mul, &[&y, &c]);
        check_declined(&net.finish(&y), &["the weight `given` is not constant"]);

        let mut net = Net::new(9);
        let x = net.input(&[2, 4]);
        let (w, c) = (net.random(&[4, 4]), net.random(&[4]));
        let y = net.node(Op::MatMul, &[&x, &w]);
        let y = net.node(Op::Mul, &[&y, &c]);
        let y = net.node(Op::MatMul, &[&y, &w]);
        check_declined(&net.finish(&y), &["the weight `w` is read elsewhere, too"]);

        let mut net = Net::new(10);
        let x = net.builder.input("x", TensorType::new(DType::F32, [1usize, 1, 4]));
        let bytes = net.builder.input("bytes", TensorType::new(DType::I8, [1usize, 1, 1]));
        let scale = net.scalar(0.5);
        let w = net.node(Op::DequantizeLinear(DequantizeLinear::default()), &[&bytes, &scale]);
        let y = net.node(conv(), &[&x, &w]);
        let c = net.random(&[1]);
        let y = net.node(Op::Add, &[&y, &c]);
        let simplified = super::super::simplify(&net.finish(&y), &Default::default()).expect("it fits");
        let reason = "the weight `dequantizelinear` is quantized, and so would have to be the bias";
        assert_eq!(simplified.declined[0].reason, reason);
        assert_eq!(simplified.graph.nodes.len(), 3);
    }

    #[test]
    fn a_constant_that_a_caller_may_override_is_left() {
        let graph = after_conv(Op::Add, &[6, 1, 1], true);
        let mut parts = graph.to_parts();
        parts.overridable.insert("p".into());
        let options = Options { keep_overridable: true, ..Options::default() };
        check_declined_with(&options, &Graph::new(parts).expect("a network"), &[]);
    }

    #[test]
    fn what_overflows_is_left() {
        let mut net = Net::new(11);
        let x = net.input(&[2, 4]);
        let (w, c) = (net.random(&[4, 3]), net.builder.initializer("zero", Tensor::vector(vec![0f32; 3])));
        let y = net.node(Op::MatMul, &[&x, &w]);
        let y = net.node(Op::Div, &[&y, &c]);
        let simplified = super::super::simplify(&net.finish(&y), &Default::default()).expect("it fits");
        assert_eq!(simplified.declined[0].reason, "the folded weight `w` does not fit the range of f32");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_chain_becomes_one_operator(
            seed in 0u64..1000, n_groups in 1usize..3, n_out in 1usize..4, transposed: bool,
            ops in prop::collection::vec(prop::sample::select(vec![Op::Mul, Op::Div, Op::Add, Op::Sub]), 1..5),
        ) {
            let mut net = Net::new(seed);
            let x = net.input(&[1, n_groups * 2, 4]);
            let n_channels = n_groups * n_out;
            let group = i64::try_from(n_groups).expect("few");
            let (op, w) = if transposed {
                (Op::ConvTranspose(ConvTranspose { group, ..ConvTranspose::default() }), net.random(&[n_groups * 2, n_out, 2]))
            } else {
                (Op::Conv(Conv { group, ..Conv::default() }), net.random(&[n_channels, 2, 2]))
            };
            let name = op.name().to_string();
            let mut y = net.node(op, &[&x, &w]);
            for op in ops {
                let c = net.positive(&[n_channels, 1]);
                y = net.node(op, &[&y, &c]);
            }
            check(&net.finish(&y), &[&name]);
        }
    }
}
