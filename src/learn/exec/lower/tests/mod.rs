//! Every rule: its values against the reference interpreter, its gradients against finite differences, in `f64`.

mod index;
mod layout;
mod norm;
mod quantize;
mod recurrent;
mod rest;
mod window;

use crate::graph::Op;
use crate::graph::op;
use crate::graph::tensor::Tensor;
use crate::learn::exec::testing::{check, numbers};

fn some(shapes: &[&[usize]]) -> Vec<Option<Tensor>> {
    shapes.iter().map(|shape| Some(numbers(shape))).collect()
}

fn integers(values: &[i64]) -> Option<Tensor> {
    Some(Tensor::vector(values.to_vec()))
}

#[test]
fn functions_of_one_number() {
    let alpha = || op::Alpha { alpha: 0.7 };
    let anywhere = [
        Op::Abs,
        Op::Atan,
        Op::Asinh,
        Op::Celu(alpha()),
        Op::Cos,
        Op::Cosh,
        Op::Elu(alpha()),
        Op::Erf,
        Op::Exp,
        Op::Gelu(op::Gelu { approximate: op::Approximate::None }),
        Op::Gelu(op::Gelu { approximate: op::Approximate::Tanh }),
        Op::HardSigmoid(op::HardSigmoid { alpha: 0.4, beta: 0.3 }),
        Op::HardSwish,
        Op::Identity,
        Op::LeakyRelu(op::LeakyRelu { alpha: 0.1 }),
        Op::Mish,
        Op::Neg,
        Op::Relu,
        Op::Selu(op::Selu { alpha: 1.6, gamma: 1.05 }),
        Op::Sigmoid,
        Op::Sin,
        Op::Sinh,
        Op::Softplus,
        Op::Softsign,
        Op::Swish(alpha()),
        Op::Tan,
        Op::Tanh,
        Op::ThresholdedRelu(op::Alpha { alpha: 0.3 }),
        Op::Acos,
        Op::Asin,
        Op::Atanh,
    ];
    for op in anywhere {
        check(op, &some(&[&[3, 7]]), &[0], &[]);
    }
    let positive = || Some(Tensor::vector(vec![0.2f64, 0.7, 1.3, 2.5]));
    for op in [Op::Log, Op::Sqrt, Op::Reciprocal] {
        check(op, &[positive()], &[0], &[]);
    }
    check(Op::Acosh, &[Some(Tensor::vector(vec![1.2f64, 1.7, 3.3]))], &[0], &[]);
    for op in [Op::Floor, Op::Ceil, Op::Round, Op::Sign] {
        check(op, &some(&[&[3, 7]]), &[], &[]);
    }
    let bounds = || [Some(Tensor::scalar(-0.4f64)), Some(Tensor::scalar(0.5f64))];
    for fixed in [vec![1, 2], vec![]] {
        let [min, max] = bounds();
        check(Op::Clip, &[Some(numbers(&[3, 7])), min, max], &[0], &fixed);
    }
}

#[test]
fn functions_of_two_numbers_broadcast() {
    let shapes: [[&[usize]; 2]; 5] =
        [[&[2, 3], &[2, 3]], [&[2, 3], &[]], [&[3], &[2, 3]], [&[2, 1, 3], &[4, 1]], [&[1], &[2, 2]]];
    for [a, b] in shapes {
        for op in [Op::Add, Op::Sub, Op::Mul, Op::Max, Op::Min, Op::Div] {
            check(op, &some(&[a, b]), &[0, 1], &[]);
        }
    }
    check(Op::PRelu, &some(&[&[2, 3, 4], &[3, 1]]), &[0, 1], &[]);
    let positive = || Some(Tensor::vector(vec![0.2f64, 0.7, 1.3]));
    check(Op::Pow, &[positive(), Some(numbers(&[2, 3]))], &[0, 1], &[]);
    check(Op::Pow, &[Some(numbers(&[2, 3])), Some(Tensor::scalar(3.0f64))], &[0], &[1]);
    check(Op::Pow, &[positive(), Some(Tensor::scalar(2i64))], &[0], &[]);
    check(Op::Sum, &some(&[&[2, 3], &[3], &[1]]), &[0, 1, 2], &[]);
    check(Op::Mean, &some(&[&[2, 3], &[3], &[1]]), &[0, 1, 2], &[]);
    check(Op::Max, &some(&[&[2, 3], &[3], &[2, 1]]), &[0, 1, 2], &[]);
    let truth = Some(Tensor::new(&[3], vec![true, false, true]).expect("three"));
    check(Op::Where, &[truth, Some(numbers(&[2, 3])), Some(numbers(&[1]))], &[1, 2], &[]);
}

#[test]
fn reductions() {
    let all: [fn(op::Reduce) -> Op; 10] = [
        Op::ReduceSum,
        Op::ReduceMean,
        Op::ReduceMax,
        Op::ReduceMin,
        Op::ReduceProd,
        Op::ReduceL1,
        Op::ReduceL2,
        Op::ReduceSumSquare,
        Op::ReduceLogSumExp,
        Op::ReduceLogSum,
    ];
    for make in all {
        for (axes, keepdims) in [(None, false), (integers(&[1]), true), (integers(&[-1, 0]), false)] {
            let op = make(op::Reduce { keepdims, noop_with_empty_axes: false });
            let x = if matches!(op, Op::ReduceLogSum(_)) {
                Tensor::new(&[2, 2, 3], (1..13).map(f64::from).collect()).expect("twelve")
            } else {
                numbers(&[2, 2, 3])
            };
            check(op, &[Some(x), axes], &[0], &[1]);
        }
    }
    for axis in [0, 1, -1] {
        check(Op::Softmax(op::Softmax { axis }), &some(&[&[2, 3, 4]]), &[0], &[]);
        check(Op::LogSoftmax(op::Softmax { axis }), &some(&[&[2, 3, 4]]), &[0], &[]);
        for p in [1, 2] {
            check(Op::LpNormalization(op::LpNormalization { axis, p }), &some(&[&[2, 3, 4]]), &[0], &[]);
            let zeros = Tensor::new(&[2, 2], vec![0.0, 0.0, 0.0, 3.0]).expect("four");
            check(Op::LpNormalization(op::LpNormalization { axis, p }), &[Some(zeros)], &[], &[]);
        }
    }
    check(Op::GlobalAveragePool, &some(&[&[2, 3, 4, 2]]), &[0], &[]);
    check(Op::GlobalMaxPool, &some(&[&[2, 3, 5]]), &[0], &[]);
}

#[test]
fn products() {
    let shapes: [[&[usize]; 2]; 7] = [
        [&[2, 3], &[3, 4]],
        [&[5, 2, 3], &[3, 4]],
        [&[3], &[3, 4]],
        [&[2, 3], &[3]],
        [&[3], &[3]],
        [&[2, 1, 2, 3], &[4, 3, 2]],
        [&[2, 3], &[4, 3, 2]],
    ];
    for shapes in shapes {
        check(Op::MatMul, &some(&shapes), &[0, 1], &[]);
    }
    for (trans_a, trans_b) in [(false, false), (true, false), (false, true), (true, true)] {
        let a: &[usize] = if trans_a { &[3, 2] } else { &[2, 3] };
        let b: &[usize] = if trans_b { &[4, 3] } else { &[3, 4] };
        for (alpha, beta) in [(1.0, 1.0), (0.5, 2.0)] {
            let op = || Op::Gemm(op::Gemm { alpha, beta, trans_a, trans_b });
            check(op(), &some(&[a, b]), &[0, 1], &[]);
            check(op(), &some(&[a, b, &[4]]), &[0, 1, 2], &[]);
            check(op(), &some(&[a, b, &[2, 1]]), &[0, 1, 2], &[]);
        }
    }
}

#[test]
fn convolutions() {
    let conv = |strides: &[i64], dilations: &[i64], pads: &[i64], group: i64| op::Conv {
        auto_pad: op::AutoPad::NotSet,
        dilations: dilations.to_vec(),
        group,
        kernel_shape: vec![],
        pads: pads.to_vec(),
        strides: strides.to_vec(),
    };
    let cases: [(op::Conv, [&[usize]; 2]); 6] = [
        (conv(&[], &[], &[], 1), [&[2, 3, 5, 4], &[4, 3, 3, 2]]),
        (conv(&[2, 1], &[1, 2], &[1, 0, 2, 1], 1), [&[2, 3, 5, 6], &[2, 3, 3, 2]]),
        (conv(&[1, 1], &[1, 1], &[1, 1, 1, 1], 3), [&[2, 3, 4, 4], &[3, 1, 3, 3]]),
        (conv(&[2, 2], &[1, 1], &[1, 1, 1, 1], 2), [&[1, 4, 5, 5], &[6, 2, 3, 3]]),
        (conv(&[2], &[1], &[1, 0], 1), [&[2, 3, 7], &[4, 3, 3]]),
        (conv(&[1, 2, 1], &[], &[], 1), [&[1, 2, 3, 4, 3], &[2, 2, 2, 2, 2]]),
    ];
    for (conv, [x, weight]) in cases {
        check(Op::Conv(conv.clone()), &some(&[x, weight]), &[0, 1], &[]);
        check(Op::Conv(conv), &some(&[x, weight, &[weight[0]]]), &[0, 1, 2], &[]);
    }
    let transposed = |strides: &[i64], pads: &[i64], output_padding: &[i64], group: i64| op::ConvTranspose {
        auto_pad: op::AutoPad::NotSet,
        dilations: vec![],
        group,
        kernel_shape: vec![],
        output_padding: output_padding.to_vec(),
        output_shape: vec![],
        pads: pads.to_vec(),
        strides: strides.to_vec(),
    };
    for (op, [x, weight]) in [
        (transposed(&[], &[], &[], 1), [&[2usize, 3, 3, 4] as &[usize], &[3, 2, 3, 2]]),
        (transposed(&[2, 2], &[1, 0, 1, 1], &[1, 0], 1), [&[1, 3, 3, 3], &[3, 2, 3, 3]]),
        (transposed(&[2], &[1, 1], &[], 2), [&[2, 4, 4], &[4, 3, 3]]),
    ] {
        let n_out = weight[1] * usize::try_from(op.group).expect("positive");
        check(Op::ConvTranspose(op), &some(&[x, weight, &[n_out]]), &[0, 1, 2], &[]);
    }
}
