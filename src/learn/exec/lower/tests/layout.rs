//! Operators that move elements, and `Pad`.

use super::{integers, some};
use crate::graph::op::{self, DepthMode, PadMode};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{GraphBuilder, Name, Node, Op, TensorType};
use crate::learn::exec::compile::Mode;
use crate::learn::exec::testing::{Inputs, check, close, numbers, request, run_generic, run_host};

/// One operator on `x` of this shape and on constants.
#[track_caller]
fn moved(op: Op, shape: &[usize], constants: Vec<Option<Tensor>>) {
    let fixed: Vec<usize> = (1..=constants.len()).collect();
    let inputs: Vec<Option<Tensor>> = [Some(numbers(shape))].into_iter().chain(constants).collect();
    check(op, &inputs, &[0], &fixed);
}

#[test]
fn shapes_change() {
    moved(Op::Reshape(op::Reshape { allowzero: false }), &[2, 3, 4], vec![integers(&[0, -1])]);
    moved(Op::Flatten(op::Flatten { axis: 2 }), &[2, 3, 4], vec![]);
    moved(Op::Squeeze, &[2, 1, 3, 1], vec![integers(&[1, -1])]);
    moved(Op::Squeeze, &[2, 1, 3, 1], vec![]);
    moved(Op::Unsqueeze, &[2, 3], vec![integers(&[0, -1])]);
    moved(Op::Expand, &[2, 1, 3], vec![integers(&[4, 1, 5, 1])]);
    moved(Op::Tile, &[2, 3, 2], vec![integers(&[2, 1, 3])]);
    for perm in [vec![], vec![2, 0, 1], vec![0, 2, 1]] {
        moved(Op::Transpose(op::Transpose { perm }), &[2, 3, 4], vec![]);
    }
    for mode in [DepthMode::Dcr, DepthMode::Crd] {
        moved(Op::DepthToSpace(op::DepthToSpace { blocksize: 2, mode }), &[1, 8, 2, 3], vec![]);
        moved(Op::SpaceToDepth(op::DepthToSpace { blocksize: 2, mode }), &[1, 2, 4, 6], vec![]);
    }
}

#[test]
fn parts_are_taken_and_joined() {
    for axis in [0, -1] {
        let shapes: [&[usize]; 2] = if axis == 0 { [&[2, 3], &[1, 3]] } else { [&[2, 3], &[2, 2]] };
        check(Op::Concat(op::Concat { axis }), &some(&shapes), &[0, 1], &[]);
    }
    let split = |num_outputs| Op::Split(op::Split { axis: 1, num_outputs });
    moved(split(None), &[2, 5], vec![integers(&[2, 3])]);
    let slice = |starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        moved(Op::Slice, &[4, 5, 6], vec![integers(starts), integers(ends), integers(axes), integers(steps)]);
    };
    slice(&[1, -4], &[3, i64::MAX], &[0, 2], &[1, 2]);
    slice(&[-1], &[i64::MIN], &[1], &[-1]);
    slice(&[10, 4], &[0, 1], &[2, 1], &[-3, -2]);
    slice(&[1], &[2], &[-1], &[i64::MAX]);
    slice(&[3], &[0], &[-1], &[i64::MIN]);
    moved(Op::Slice, &[4, 5], vec![integers(&[1]), integers(&[3])]);
}

#[test]
fn slices_that_lie_side_by_side_are_joined_backwards() {
    // every part is read, in another order, one twice, and one element not at all
    let mut builder = GraphBuilder::new("parts");
    let x = builder.input("x", TensorType::new(DType::F64, [2usize, 7]));
    let mut terms = Vec::new();
    for (start, end) in [(5i64, 7i64), (0, 2), (2, 4), (1, 3), (0, 7)] {
        let [start, end, axis] = [start, end, 1].map(|number| Tensor::vector(vec![number]));
        let [start, end, axis] = [("s", start), ("e", end), ("a", axis)].map(|(n, t)| builder.initializer(n, t));
        let part = builder.node(Op::Slice, &[&x, &start, &end, &axis]);
        let square = builder.node(Op::Mul, &[&part, &part]);
        let reduce = op::Reduce { keepdims: false, noop_with_empty_axes: false };
        terms.push(builder.node(Op::ReduceSum(reduce), &[&square]));
    }
    let loss = builder.node(Op::Sum, &terms.iter().collect::<Vec<_>>());
    builder.output(&loss);
    let graph = builder.finish().expect("whole");
    let values = numbers(&[2, 7]);
    let given: Inputs = [(x.clone(), values.clone())].into_iter().collect();
    let request = request(&given, Mode::Inference, &[], Some(&loss), &[x]);
    let (_, gradients) = run_generic(&graph, &given, &request).expect("it runs");
    let counts = [2.0, 3.0, 3.0, 2.0, 1.0, 2.0, 2.0];
    let values = values.to_vec::<f64>().expect("numbers");
    let expected = values.iter().enumerate().map(|(idx, value)| 2.0 * value * counts[idx % 7]).collect();
    close("parts", &gradients[0].1, &Tensor::new(&[2, 7], expected).expect("fourteen"), 1e-12);
}

#[test]
fn paddings() {
    let pad = |mode, shape: &[usize], pads: &[i64], rest: Vec<Option<Tensor>>| {
        let constants = [integers(pads)].into_iter().chain(rest).collect();
        moved(Op::Pad(op::Pad { mode }), shape, constants);
    };
    let value = || Some(Tensor::scalar(0.7f64));
    pad(PadMode::Constant, &[2, 3], &[1, 0, 2, 3], vec![value()]);
    pad(PadMode::Constant, &[2, 3], &[1, -1, -1, 3], vec![]);
    pad(PadMode::Constant, &[2, 3], &[2, 1], vec![value(), integers(&[-1])]);
    for mode in [PadMode::Reflect, PadMode::Edge, PadMode::Wrap] {
        pad(mode, &[2, 4], &[0, 3, 1, 2], vec![]);
        pad(mode, &[3, 4], &[-1, 2, 1, -1], vec![]);
    }
    let inputs = [Some(numbers(&[2, 3])), integers(&[1, 0, 0, 2]), value()];
    check(Op::Pad(op::Pad { mode: PadMode::Constant }), &inputs, &[0, 2], &[1]);
}

#[test]
fn triangles_and_sums() {
    for upper in [false, true] {
        for k in [-1i64, 0, 2] {
            moved(Op::Trilu(op::Trilu { upper }), &[2, 3, 4], vec![Some(Tensor::scalar(k))]);
        }
        for exclusive in [false, true] {
            let op = Op::CumSum(op::CumSum { exclusive, reverse: upper });
            moved(op, &[2, 5], vec![Some(Tensor::scalar(-1i64))]);
        }
    }
}

fn cast(to: DType, saturate: bool) -> Op {
    Op::Cast(op::Cast { to, saturate, round_mode: op::RoundMode::Up })
}

/// `x` through these operators and back to `f64`, squared and summed: the graph with the names of `x`, of what came back
/// and of the sum.
fn there_and_back(there: &[Op], dtype: DType) -> (crate::graph::Graph, [Name; 3]) {
    let mut builder = GraphBuilder::new("rounded");
    let x = builder.input("x", TensorType::new(dtype, [5usize]));
    let mut value = x.clone();
    for op in there.iter().cloned().chain([cast(dtype, true)]) {
        value = builder.node(op, &[&value]);
    }
    let reduce = op::Reduce { keepdims: false, noop_with_empty_axes: false };
    let loss = builder.node(Op::ReduceSumSquare(reduce), &[&value]);
    builder.output(&loss);
    (builder.finish().expect("whole"), [x, value, loss])
}

/// Rounded there and back as the reference interpreter has it, with the gradient of what is not rounded, on both
/// backends.
fn straight_through(there: &[Op]) {
    let x_values = [-3.3f64, -0.21, 0.0, 0.7, 2.6];
    for dtype in [DType::F64, DType::F32] {
        let (graph, [x, back, loss]) = there_and_back(there, dtype);
        let tensor = match dtype {
            DType::F64 => Tensor::vector(x_values.to_vec()),
            _ => Tensor::vector(x_values.map(|value| value as f32).to_vec()),
        };
        let given: Inputs = [(x.clone(), tensor)].into_iter().collect();
        let wanted = [back.clone()];
        let request = request(&given, Mode::Inference, &wanted, Some(&loss), &[x]);
        let [rounded, gradient] = if dtype == DType::F64 {
            let (values, gradients) = run_generic(&graph, &given, &request).expect("it runs");
            [values[0].clone(), gradients[0].1.clone()]
        } else {
            run_host(&graph, &given, &request).expect("it runs").try_into().expect("a value and a gradient")
        };
        let reference = crate::graph::eval::run_with(&graph, &given, &wanted).expect("it runs");
        let numbers = |tensor: &Tensor| tensor.to_f32s().expect("numbers").into_owned();
        assert_eq!(numbers(&rounded), numbers(&reference[&back]), "{there:?}");
        let doubled: Vec<f32> = numbers(&rounded).iter().map(|value| 2.0 * value).collect();
        assert_eq!(numbers(&gradient), doubled, "{there:?}");
    }
}

#[test]
fn casts() {
    moved(cast(DType::F64, true), &[2, 3], vec![]);
    check(cast(DType::F64, true), &[integers(&[1, -2])], &[], &[]);
    for narrow in [DType::F16, DType::BF16, DType::F8E4M3FN, DType::F8E5M2, DType::F4E2M1] {
        straight_through(&[cast(narrow, true)]);
    }
    straight_through(&[cast(DType::F8E5M2, false)]);
    straight_through(&[cast(DType::F16, true), cast(DType::F8E4M3FN, true)]);
    // what lies between the two casts, or rounds otherwise, would lose the gradient
    let refused: [&[Op]; 2] = [&[cast(DType::F8E4M3FN, true), Op::Identity], &[cast(DType::I8, true)]];
    for there in refused {
        let (graph, [x, _, loss]) = there_and_back(there, DType::F64);
        let given: Inputs = [(x.clone(), numbers(&[5]))].into_iter().collect();
        let error = run_generic(&graph, &given, &request(&given, Mode::Inference, &[], Some(&loss), &[x]));
        let error = error.expect_err("it is refused").to_string();
        assert!(error.contains("Cast") && error.contains("`x`"), "{error}");
    }
}

/// A dropout of `x` with the outputs' names.
fn dropout(ratio: Option<f64>) -> (crate::graph::Graph, Inputs, [Name; 2]) {
    let mut builder = GraphBuilder::new("dropout");
    let x = builder.input("x", TensorType::new(DType::F64, [40usize, 50]));
    let ratio = ratio.map(|ratio| builder.initializer("ratio", Tensor::scalar(ratio)));
    let names = [Name::from("y"), Name::from("mask")];
    let outputs = names.iter().cloned().map(Some).collect();
    builder.push(Node::new(Op::Dropout(op::Dropout { seed: None }), vec![Some(x.clone()), ratio], outputs));
    names.iter().for_each(|name| builder.output(name));
    let given = [(x, numbers(&[40, 50]))].into_iter().collect();
    (builder.finish().expect("whole"), given, names)
}

#[test]
fn dropout_drops_in_training_only() {
    check(Op::Dropout(op::Dropout { seed: None }), &some(&[&[2, 3]]), &[0], &[]);
    for (ratio, at_least, at_most) in [(None, 850, 1150), (Some(0.1), 130, 270), (Some(0.0), 0, 0)] {
        let (graph, given, [y, _]) = dropout(ratio);
        let request = request(&given, Mode::Training, &[y], None, &[]);
        let (values, _) = run_generic(&graph, &given, &request).expect("it runs");
        let values = values[0].to_vec::<f64>().expect("numbers");
        let n_dropped = values.iter().filter(|&&value| value == 0.0).count();
        assert!((at_least..=at_most).contains(&n_dropped), "{ratio:?}: {n_dropped}");
    }
    for (ratio, wants_mask, expected) in [(Some(1.0), false, "ratio"), (None, true, "`mask`")] {
        let (graph, given, [y, mask]) = dropout(ratio);
        let wanted: Vec<Name> = if wants_mask { vec![y, mask] } else { vec![y] };
        let request = request(&given, Mode::Training, &wanted, None, &[]);
        let error = run_generic(&graph, &given, &request).expect_err("it is refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}
