//! QuantizeLinear and DequantizeLinear: values against the reference interpreter bit for bit, gradients against plain loops,
//! and where numbers saturate against finite differences.

use std::sync::Arc;

use rayon::ThreadPoolBuilder;

use crate::graph::op::{self, Cast, Op, RoundMode};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, GraphBuilder, Name, Node, TensorType, eval};
use crate::learn::exec::compile::Mode;
use crate::learn::exec::host::Host;
use crate::learn::exec::numbers::singles;
use crate::learn::exec::program::{Primitive, Program};
use crate::learn::exec::testing::{Inputs, close, numbers, request, run_generic, run_host};

fn f32s(shape: &[usize], values: Vec<f32>) -> Tensor {
    Tensor::new(shape, values).expect("as many")
}

fn random(shape: &[usize], factor: f32) -> Tensor {
    let values = numbers(shape).to_vec::<f64>().expect("numbers");
    f32s(shape, values.into_iter().map(|value| value as f32 * factor).collect())
}

/// Integers of any type.
fn integers(dtype: DType, shape: &[usize], values: &[i32]) -> Tensor {
    let values = f32s(shape, values.iter().map(|&value| value as f32).collect());
    let cast = Op::Cast(Cast { to: dtype, saturate: true, round_mode: RoundMode::Up });
    eval::operator(&cast, &[Some(values)], 1).expect("they fit").remove(0).expect("an output")
}

fn wide(tensor: &Tensor) -> Vec<f64> {
    match tensor.as_slice::<f64>() {
        Ok(values) => values.to_vec(),
        Err(_) => tensor.to_f32s().expect("floats").iter().map(|&value| value.into()).collect(),
    }
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.to_f32s().expect("floats").iter().map(|value| value.to_bits()).collect()
}

fn on_axis(axis: i64) -> op::QuantizeLinear {
    op::QuantizeLinear { axis, ..Default::default() }
}

/// The value through both nodes, and the integers in between.
fn through(builder: &mut GraphBuilder, quantize: op::QuantizeLinear, x: &Name, steps: &[&Name]) -> [Name; 2] {
    let after = op::DequantizeLinear { axis: quantize.axis, block_size: quantize.block_size, output_dtype: None };
    let integers = builder.node(Op::QuantizeLinear(quantize), &[&[x], steps].concat());
    let y = builder.node(Op::DequantizeLinear(after), &[&[&integers], steps].concat());
    [integers, y]
}

/// `Σ weights · y`
fn weighted_sum(builder: &mut GraphBuilder, y: &Name, shape: &[usize]) -> (Name, Vec<f64>) {
    let weights = random(shape, 1.0);
    let values = wide(&weights);
    let weights = builder.initializer("weights", weights);
    let product = builder.node(Op::Mul, &[y, &weights]);
    let sum = builder.node(Op::ReduceSum(op::Reduce { keepdims: false, noop_with_empty_axes: false }), &[&product]);
    (sum, values)
}

fn count(program: &Program, is: impl Fn(&Primitive) -> bool) -> usize {
    program.steps.iter().filter(|step| is(&step.primitive)).count()
}

fn n_fake(program: &Program) -> usize {
    count(program, |primitive| matches!(primitive, Primitive::FakeQuantize(_)))
}

fn n_reference(program: &Program) -> usize {
    count(program, |primitive| matches!(primitive, Primitive::Reference { .. }))
}

const TYPES: [DType; 8] = [DType::I8, DType::U8, DType::I16, DType::U16, DType::I4, DType::U4, DType::I2, DType::U2];

/// Through integers of a type: halves, bounds and what lies beyond, by `n_scales` scales along an axis or one.
#[track_caller]
fn check_values(dtype: DType, shape: &[usize], axis: i64, n_scales: Option<usize>) {
    let what = format!("{dtype} {shape:?} on {axis}");
    let (least, greatest) = dtype.integer_range().expect("integers");
    let (least, greatest) = (i32::try_from(least).expect("16 bits"), i32::try_from(greatest).expect("16 bits"));
    let steps: Vec<usize> = n_scales.into_iter().collect();
    let n = n_scales.unwrap_or(1);
    let scale: Vec<f32> = (0..n).map(|idx| 0.1 + 0.037 * idx as f32).collect();
    let zeros: Vec<i32> = (0..n).map(|idx| [0, 1, least, greatest, least / 2 + 1][idx % 5]).collect();
    let n_elements: usize = shape.iter().product();
    let span = f64::from(greatest) - f64::from(least);
    let edges = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, -0.0, 1e-40];
    let x = (0..n_elements).map(|idx| {
        let quotient = (idx as f64 * 0.37 * span).rem_euclid(2.5 * span) - 1.25 * span;
        let halves = (quotient * 2.0).round() / 2.0;
        let scaled = |quotient: f64| (quotient * f64::from(scale[idx % n])) as f32;
        match idx % 5 {
            0 => scaled(quotient),
            1 | 2 => scaled(halves),
            3 => scaled((idx % 9) as f64 / 2.0 - 2.0),
            _ => edges[idx / 5 % edges.len()],
        }
    });
    let x = f32s(shape, x.collect());
    let mut builder = GraphBuilder::new("values");
    let input = builder.input("x", TensorType::of(&x));
    let scale = builder.initializer("scale", f32s(&steps, scale));
    let zero_point = builder.initializer("zero", integers(dtype, &steps, &zeros));
    // a buffer that may be written in place
    let minus = builder.node(Op::Neg, &[&input]);
    let [between, y] = through(&mut builder, on_axis(axis), &minus, &[&scale, &zero_point]);
    builder.output(&y);
    let graph = builder.finish().expect("a graph");
    let given: Inputs = [(input, x)].into_iter().collect();
    let ends = [y, between];
    let expected = eval::run_with(&graph, &given, &ends).expect("the reference runs it");
    for learns in [vec![], vec![scale]] {
        let request = request(&given, Mode::Inference, &ends[..1], None, &learns);
        let program = Program::compile(&graph, &request).expect("it compiles");
        assert_eq!((n_fake(&program), n_reference(&program)), (1, 0), "{what}");
        let found = run_host(&graph, &given, &request).expect("it runs");
        assert_eq!(bits(&found[0]), bits(&expected[&ends[0]]), "{what}");
        let (found, _) = run_generic(&graph, &given, &request).expect("it runs");
        let rounded = f32s(shape, wide(&found[0]).into_iter().map(|value| value as f32).collect());
        assert_eq!(rounded, expected[&ends[0]], "{what}, on candle's tensors");
    }
    // who asks for the integers has them as well
    let request = request(&given, Mode::Inference, &ends, None, &[]);
    let found = run_host(&graph, &given, &request).expect("it runs");
    assert_eq!((&found[0], &found[1]), (&expected[&ends[0]], &expected[&ends[1]]), "{what}");
}

#[test]
fn values_are_those_of_the_reference() {
    for dtype in TYPES {
        check_values(dtype, &[97], 1, None);
        check_values(dtype, &[7, 9], 0, Some(7));
        check_values(dtype, &[7, 9], -1, Some(9));
    }
    check_values(DType::I8, &[], 1, None);
    check_values(DType::I8, &[13], 1, Some(13));
    check_values(DType::I8, &[13], 0, Some(1));
    for (axis, n_scales) in [(0, 3), (1, 4), (2, 5), (-1, 2)] {
        check_values(DType::U8, &[3, 4, 5, 2], axis, Some(n_scales));
    }
    check_values(DType::I8, &[2, 3, 4, 5, 6], 1, Some(3));
    check_values(DType::I8, &[2, 3, 4, 5, 6], 3, Some(5));
    check_values(DType::I8, &[2, 3, 70], 1, None);
}

/// What the straight-through estimator and LSQ say, element by element: gradients of `x` and of the scales.
fn by_hand(
    x: &[f64],
    dy: &[f64],
    [scale, zero]: [&[f64]; 2],
    inner: usize,
    (least, greatest): (f64, f64),
) -> [Vec<f64>; 2] {
    let (mut dx, mut dscale) = (Vec::new(), vec![0.0; scale.len()]);
    for (idx, (x, dy)) in x.iter().zip(dy).enumerate() {
        let position = idx / inner % scale.len();
        let (v, low, high) = (x / scale[position], least - zero[position], greatest - zero[position]);
        let is_inside = v >= low && v <= high;
        dx.push(if is_inside { *dy } else { 0.0 });
        let outside = if v < low { low } else { high };
        dscale[position] += dy * if is_inside { v.round_ties_even() - v } else { outside };
    }
    [dx, dscale]
}

/// Gradients of a weighted sum with respect to `x` and scales, on either backend; a part of `x` saturates.
#[track_caller]
fn check_gradients(dtype: DType, shape: &[usize], axis: Option<usize>) {
    let what = format!("{dtype} {shape:?} on {axis:?}");
    let steps: Vec<usize> = axis.map(|axis| shape[axis]).into_iter().collect();
    let n = steps.iter().product();
    let (least, greatest) = dtype.integer_range().expect("integers");
    let (least, greatest) = (least as f64, greatest as f64);
    let scale: Vec<f32> = (0..n).map(|idx| 0.011 + 0.003 * idx as f32).collect();
    let zero = |idx: usize| (((least + greatest) / 2.0) as i32 + idx as i32 % 3).min(greatest as i32);
    let zeros: Vec<i32> = (0..n).map(zero).collect();
    let x = random(shape, ((greatest - least) * 0.01) as f32);
    let mut builder = GraphBuilder::new("gradients");
    let input = builder.input("x", TensorType::of(&x));
    let scales = builder.initializer("scale", f32s(&steps, scale.clone()));
    let zero_point = builder.initializer("zero", integers(dtype, &steps, &zeros));
    let quantize = on_axis(axis.map_or(1, |axis| axis as i64));
    let [_, y] = through(&mut builder, quantize, &input, &[&scales, &zero_point]);
    let (loss, dy) = weighted_sum(&mut builder, &y, shape);
    builder.output(&loss);
    let graph = builder.finish().expect("a graph");
    let inner = axis.map_or(shape.iter().product(), |axis| shape[axis + 1..].iter().product());
    let wide_scale: Vec<f64> = scale.iter().map(|&scale| scale.into()).collect();
    let zeros: Vec<f64> = zeros.iter().map(|&zero| zero.into()).collect();
    let [dx, dscale] = by_hand(&wide(&x), &dy, [&wide_scale, &zeros], inner, (least, greatest));
    let given: Inputs = [(input.clone(), x)].into_iter().collect();
    let expected = |name: &Name| {
        let values = if *name == input { dx.clone() } else { dscale.clone() };
        Tensor::new(if *name == input { shape } else { &steps }, values).expect("as many")
    };
    for learns in [vec![input.clone(), scales.clone()], vec![input.clone()], vec![scales]] {
        let request = request(&given, Mode::Training, &[], Some(&loss), &learns);
        let (_, gradients) = run_generic(&graph, &given, &request).expect("it runs");
        assert_eq!(gradients.len(), learns.len(), "{what}");
        let single = run_host(&graph, &given, &request).expect("it runs");
        for ((name, double), single) in gradients.iter().zip(&single) {
            close(&format!("{what}: {name}"), double, &expected(name), 1e-9);
            close(&format!("{what}: {name} on the host"), single, &expected(name), 1e-4);
        }
    }
}

#[test]
fn gradients_are_those_of_the_papers() {
    for dtype in TYPES {
        check_gradients(dtype, &[31], None);
        check_gradients(dtype, &[6, 11], Some(1));
    }
    check_gradients(DType::I8, &[], None);
    for axis in 0..4 {
        check_gradients(DType::I8, &[3, 4, 5, 2], Some(axis));
    }
    check_gradients(DType::U8, &[2, 3, 2, 2, 3], Some(1));
    check_gradients(DType::I8, &[40, 70, 90], Some(1));
}

/// Where everything saturates, the function is smooth.
#[test]
fn saturated_numbers_agree_with_finite_differences() {
    let (x, scale, zero) = ([3.0f32, -2.0, 9.5, -4.0], 0.01f32, 5);
    let mut builder = GraphBuilder::new("saturated");
    let input = builder.input("x", TensorType::new(DType::F32, [4usize]));
    let scales = builder.initializer("scale", Tensor::scalar(scale));
    let zero_point = builder.initializer("zero", Tensor::scalar(5i8));
    let [_, y] = through(&mut builder, on_axis(1), &input, &[&scales, &zero_point]);
    let (loss, dy) = weighted_sum(&mut builder, &y, &[4]);
    builder.output(&loss);
    let graph = builder.finish().expect("a graph");
    let given: Inputs = [(input.clone(), f32s(&[4], x.to_vec()))].into_iter().collect();
    let request = request(&given, Mode::Training, &[], Some(&loss), &[input.clone(), scales]);
    let (_, gradients) = run_generic(&graph, &given, &request).expect("it runs");
    let sum = |x: &[f64], scale: f64| -> f64 {
        let zero = f64::from(zero);
        let integer = |x: f64| ((x / scale).round_ties_even() + zero).clamp(-128.0, 127.0) - zero;
        x.iter().zip(&dy).map(|(&x, dy)| dy * integer(x) * scale).sum()
    };
    let (x, scale, step) = (x.map(f64::from), f64::from(scale), 1e-6);
    for (name, gradient) in &gradients {
        let found = wide(gradient);
        if *name != input {
            let difference = (sum(&x, scale + step) - sum(&x, scale - step)) / (2.0 * step);
            assert!((found[0] - difference).abs() < 1e-5 * difference.abs(), "{found:?} for {difference}");
            continue;
        }
        for idx in 0..x.len() {
            let moved = |by: f64| {
                let mut moved = x;
                moved[idx] += by;
                sum(&moved, scale)
            };
            assert_eq!(found[idx], (moved(step) - moved(-step)) / (2.0 * step));
        }
    }
    assert_eq!(gradients.len(), 2);
}

/// A pair whose second node differs from the first as `change` says, with `x` behind an addition that learns.
fn mismatched(quantize: op::QuantizeLinear, change: impl Fn(&mut GraphBuilder, &mut Node)) -> (Graph, Name) {
    let mut builder = GraphBuilder::new("mismatched");
    let input = builder.input("x", TensorType::new(DType::F32, [2usize, 4]));
    let bias = builder.initializer("bias", random(&[4], 0.3));
    let x = builder.node(Op::Add, &[&input, &bias]);
    let shape: &[usize] = if quantize.block_size == 0 { &[] } else { &[2, 2] };
    let scale = builder.initializer("scale", f32s(shape, vec![0.1; shape.iter().product()]));
    let after = op::DequantizeLinear { axis: quantize.axis, block_size: quantize.block_size, output_dtype: None };
    let integers = builder.node(Op::QuantizeLinear(quantize), &[&x, &scale]);
    let y = Name::from("y");
    let mut node = Node::new(Op::DequantizeLinear(after), vec![Some(integers), Some(scale)], vec![Some(y.clone())]);
    change(&mut builder, &mut node);
    builder.push(node);
    let (loss, _) = weighted_sum(&mut builder, &y, &[2, 4]);
    builder.output(&loss);
    (builder.finish().expect("a graph"), loss)
}

#[track_caller]
fn check_refused(quantize: op::QuantizeLinear, change: impl Fn(&mut GraphBuilder, &mut Node)) {
    let (graph, loss) = mismatched(quantize, change);
    let given: Inputs = [(Name::from("x"), random(&[2, 4], 1.0))].into_iter().collect();
    let of = |learns: &[Name], loss: Option<&Name>| request(&given, Mode::Training, &["y".into()], loss, learns);
    let found = run_host(&graph, &given, &of(&[], None)).expect("the reference computes it");
    let expected = eval::run_with(&graph, &given, &["y".into()]).expect("it runs");
    assert_eq!(found[0], expected["y"]);
    let refused = Program::compile(&graph, &of(&["bias".into()], Some(&loss))).expect_err("no gradient passes");
    let expected = "DequantizeLinear `y`: no gradient passes through it, and `bias` lies before it";
    assert!(refused.to_string().starts_with(expected), "{refused}");
}

#[test]
fn what_is_no_pair_is_the_references_and_refuses_gradients() {
    let plain = || on_axis(1);
    check_refused(plain(), |builder, node| {
        node.inputs[1] = Some(builder.initializer("other", Tensor::scalar(0.2f32)));
    });
    check_refused(plain(), |builder, node| {
        node.inputs.push(Some(builder.initializer("zero", Tensor::scalar(3u8))));
    });
    // integers of 16 bits are quantized numbers too
    check_refused(op::QuantizeLinear { output_dtype: Some(DType::I16), ..plain() }, |builder, node| {
        node.inputs[1] = Some(builder.initializer("other", Tensor::scalar(0.2f32)));
    });
    check_refused(op::QuantizeLinear { output_dtype: Some(DType::F8E4M3FN), ..plain() }, |_, _| {});
    check_refused(op::QuantizeLinear { precision: Some(DType::F16), ..plain() }, |_, _| {});
    check_refused(op::QuantizeLinear { block_size: 2, ..plain() }, |_, _| {});
}

#[test]
fn equal_constants_and_other_readers_do_not_part_a_pair() {
    let compiled = |change: &dyn Fn(&mut GraphBuilder, &mut Node)| {
        let (graph, loss) = mismatched(on_axis(1), change);
        let given: Inputs = [(Name::from("x"), random(&[2, 4], 1.0))].into_iter().collect();
        let request = request(&given, Mode::Training, &["y".into()], Some(&loss), &["bias".into()]);
        Program::compile(&graph, &request).map(|program| (n_fake(&program), n_reference(&program)))
    };
    let equal = compiled(&|builder, node| {
        node.inputs[1] = Some(builder.initializer("same", Tensor::scalar(0.1f32)));
        node.inputs.push(Some(builder.initializer("zero", Tensor::scalar(0u8))));
    });
    assert_eq!(equal.expect("it is a pair"), (1, 0));
    let read_twice = compiled(&|builder, node| {
        let again = Node::new(node.op.clone(), node.inputs.clone(), vec![Some("again".into())]);
        builder.push(again);
    });
    assert_eq!(read_twice.expect("it is a pair"), (1, 0));
}

#[test]
fn scales_of_zero_and_below_are_not_divided_by() {
    for scale in [0.0f32, -0.1] {
        let (graph, loss) = mismatched(on_axis(1), |_, _| {});
        let mut parts = graph.to_parts();
        parts.initializers.insert("scale".into(), Tensor::scalar(scale));
        let graph = Graph::new(parts).expect("a graph");
        let given: Inputs = [(Name::from("x"), random(&[2, 4], 1.0))].into_iter().collect();
        let learns = [Name::from("scale")];
        let learning = request(&given, Mode::Training, &["y".into()], Some(&loss), &learns);
        let expected = format!("DequantizeLinear `y`: the scale at position 0 is {scale}, not above 0");
        let single = run_host(&graph, &given, &learning).expect_err("it is refused").to_string();
        let double = run_generic(&graph, &given, &learning).expect_err("it is refused").to_string();
        let shortest = double.replace(&f64::from(scale).to_string(), &scale.to_string());
        assert!(single.replace(&f64::from(scale).to_string(), &scale.to_string()).starts_with(&expected), "{single}");
        assert!(shortest.starts_with(&expected), "{double}");
        // known before, it is the reference's
        let fixed = request(&given, Mode::Training, &["y".into()], None, &[]);
        let expected = eval::run_with(&graph, &given, &["y".into()]).expect("it runs");
        assert_eq!(run_host(&graph, &given, &fixed).expect("it runs")[0], expected["y"]);
    }
}

/// Integers that are known, with one scale, one for each position of an axis, or one for each block.
#[track_caller]
fn check_constant(dtype: DType, axis: i64, block_size: i64, steps: &[usize]) {
    let shape = [4, 6];
    let values: Vec<i32> = (0..24).map(|idx| idx % 4).collect();
    let n = steps.iter().product();
    let mut builder = GraphBuilder::new("constant");
    let weight = builder.initializer("weight", integers(dtype, &shape, &values));
    let scale = builder.initializer("scale", f32s(steps, (0..n).map(|idx| 0.1 + 0.07 * idx as f32).collect()));
    let zeros: Vec<i32> = (0..n).map(|idx| idx as i32 % 2).collect();
    let zero = builder.initializer("zero", integers(dtype, steps, &zeros));
    let attributes = op::DequantizeLinear { axis, block_size, output_dtype: None };
    let y = builder.node(Op::DequantizeLinear(attributes), &[&weight, &scale, &zero]);
    let (loss, dy) = weighted_sum(&mut builder, &y, &shape);
    builder.output(&loss);
    let graph = builder.finish().expect("a graph");
    let given = Inputs::new();
    let ends = [y];
    let fixed = Program::compile(&graph, &request(&given, Mode::Inference, &ends, None, &[])).expect("it compiles");
    assert_eq!(fixed.steps.len(), 0);
    let learning = request(&given, Mode::Training, &ends, Some(&loss), std::slice::from_ref(&scale));
    let found = run_host(&graph, &given, &learning).expect("it runs");
    let expected = eval::run_with(&graph, &given, &ends).expect("it runs");
    assert_eq!(bits(&found[0]), bits(&expected[&ends[0]]), "{dtype} {axis} {block_size}");
    let axis_idx = if axis < 0 { 1 } else { axis as usize };
    let mut sums = vec![0.0; n];
    for (idx, dy) in dy.iter().enumerate() {
        let places = [idx / 6, idx % 6];
        let step = match (steps.len(), usize::try_from(block_size)) {
            (0, _) => 0,
            (1, _) => places[axis_idx],
            (_, Ok(size)) => {
                let mut places = places;
                places[axis_idx] /= size;
                places[0] * steps[1] + places[1]
            }
            (_, Err(_)) => 0,
        };
        sums[step] += dy * f64::from(values[idx] - zeros[step]);
    }
    close("the scale's gradient", &found[1], &Tensor::new(steps, sums).expect("as many"), 1e-5);
}

#[test]
fn scales_of_known_integers_learn() {
    for dtype in [DType::I8, DType::U8, DType::I4, DType::U4, DType::U2, DType::U16] {
        check_constant(dtype, 1, 0, &[]);
        check_constant(dtype, 0, 0, &[4]);
        check_constant(dtype, -1, 0, &[6]);
        check_constant(dtype, 0, 2, &[2, 6]);
        check_constant(dtype, 1, 4, &[4, 2]);
    }
}

/// A small network of a convolution and a product, all of it quantized; its inputs, its loss and what learns.
fn network() -> (Graph, Inputs, Name, Vec<Name>) {
    let mut builder = GraphBuilder::new("network");
    let x = builder.input("x", TensorType::new(DType::F32, [8usize, 2, 6, 6]));
    let target = builder.input("target", TensorType::new(DType::F32, [8usize, 3]));
    let mut learns = Vec::new();
    let mut quantized = |builder: &mut GraphBuilder, x: &Name, axis: i64, scale: Vec<f32>, zero: i32| {
        let steps: Vec<usize> = if scale.len() == 1 { Vec::new() } else { vec![scale.len()] };
        let dtype = if zero == 0 { DType::I8 } else { DType::U8 };
        let zero = builder.initializer("zero", integers(dtype, &steps, &vec![zero; scale.len()]));
        let scale = builder.initializer("scale", f32s(&steps, scale));
        learns.push(scale.clone());
        let [_, y] = through(builder, on_axis(axis), x, &[&scale, &zero]);
        y
    };
    let image = quantized(&mut builder, &x, 1, vec![0.008], 128);
    let kernel = builder.initializer("kernel", random(&[4, 2, 3, 3], 0.4));
    let weight = quantized(&mut builder, &kernel, 0, vec![0.003; 4], 0);
    let kernel_bias = builder.initializer("kernel bias", random(&[4], 0.1));
    let conv = Op::Conv(op::Conv { strides: vec![2, 2], ..Default::default() });
    let y = builder.node(conv, &[&image, &weight, &kernel_bias]);
    let y = builder.node(Op::Relu, &[&y]);
    let y = quantized(&mut builder, &y, 1, vec![0.01], 1);
    let y = builder.node(Op::Flatten(op::Flatten { axis: 1 }), &[&y]);
    let matrix = builder.initializer("matrix", random(&[3, 16], 0.4));
    let weight = quantized(&mut builder, &matrix, 0, vec![0.004; 3], 0);
    let bias = builder.initializer("bias", random(&[3], 0.1));
    let y = builder.node(Op::Gemm(op::Gemm { trans_b: true, ..Default::default() }), &[&y, &weight, &bias]);
    let difference = builder.node(Op::Sub, &[&y, &target]);
    let square = builder.node(Op::Mul, &[&difference, &difference]);
    let mean = op::Reduce { keepdims: false, noop_with_empty_axes: false };
    let loss = builder.node(Op::ReduceMean(mean), &[&square]);
    builder.output(&loss);
    learns.extend([kernel, kernel_bias, matrix, bias]);
    let given = [(x, random(&[8, 2, 6, 6], 1.0)), (target, random(&[8, 3], 1.0))];
    (builder.finish().expect("a graph"), given.into_iter().collect(), loss, learns)
}

/// The losses of so many steps of gradient descent, and where the parameters are after them.
fn descend(n_steps: usize, rate: f32) -> (Vec<f32>, Vec<(Name, Vec<f32>)>) {
    let (graph, given, loss, learns) = network();
    let request = request(&given, Mode::Training, std::slice::from_ref(&loss), Some(&loss), &learns);
    let program = Arc::new(Program::compile(&graph, &request).expect("it compiles"));
    assert_eq!((n_fake(&program), n_reference(&program)), (4, 0));
    assert_eq!(program.gradients.len(), learns.len());
    let mut host = Host::new(Arc::clone(&program)).expect("it is planned");
    let inputs: Vec<Tensor> = program.inputs.iter().map(|(name, _)| given[name].clone()).collect();
    let values = |name: &Name| singles(&graph.initializers[name]).expect("floats").into_owned();
    let mut parameters: Vec<(Name, Vec<f32>)> =
        program.parameters.iter().map(|(name, _)| (name.clone(), values(name))).collect();
    let mut losses = Vec::new();
    for _ in 0..n_steps {
        let reads: Vec<&[f32]> = parameters.iter().map(|(_, values)| values.as_slice()).collect();
        host.run(&reads, &inputs, 0).expect("it runs");
        losses.push(host.numbers(program.outputs[0].1, &reads)[0]);
        for (name, values) in &mut parameters {
            let (_, id) = program.gradients.iter().find(|(wanted, _)| wanted == name).expect("all learn");
            // a scale is about a hundredth of what it is for
            let rate = if name.starts_with("scale") { rate * 1e-4 } else { rate };
            values.iter_mut().zip(host.computed(*id)).for_each(|(value, gradient)| *value -= rate * gradient);
        }
    }
    (losses, parameters)
}

#[test]
fn a_quantized_network_learns_with_its_scales() {
    let (losses, parameters) = descend(60, 0.1);
    assert!(losses[59] < 0.3 * losses[0], "{losses:?}");
    let (graph, ..) = network();
    for (name, values) in &parameters {
        assert_ne!(*values, singles(&graph.initializers[name]).expect("floats").to_vec(), "{name}");
        assert!(!name.starts_with("scale") || values.iter().all(|&scale| scale > 0.0), "{name}: {values:?}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads can be started");
        let (losses, parameters) = pool.install(|| descend(3, 0.1));
        let all = losses.into_iter().chain(parameters.into_iter().flat_map(|(_, values)| values));
        all.map(f32::to_bits).collect::<Vec<_>>()
    };
    assert_eq!(on(1), on(2));
}

/// The gradient of a weight that is quantized is that of the numbers it is rounded to, where nothing saturates: the same graph with
/// these in its place has it.
#[track_caller]
fn check_passes(x: &Tensor, weight: &Tensor, build: impl Fn(&mut GraphBuilder, &Name, &Name) -> Name) {
    let scale = 0.01f32;
    let graph = |is_quantized: bool| {
        let mut builder = GraphBuilder::new("passes");
        let input = builder.input("x", TensorType::of(x));
        let rounded = |value: &f32| (value / scale).round_ties_even() * scale;
        let values: Vec<f32> = weight.to_f32s().expect("floats").iter().map(rounded).collect();
        let own = if is_quantized { weight.clone() } else { f32s(weight.shape(), values) };
        let mut read = builder.initializer("weight", own);
        if is_quantized {
            let scale = builder.initializer("scale", Tensor::scalar(scale));
            let zero = builder.initializer("zero", Tensor::scalar(0i8));
            [_, read] = through(&mut builder, on_axis(1), &read, &[&scale, &zero]);
        }
        let y = build(&mut builder, &input, &read);
        let square = builder.node(Op::Mul, &[&y, &y]);
        let mean = op::Reduce { keepdims: false, noop_with_empty_axes: false };
        let loss = builder.node(Op::ReduceMean(mean), &[&square]);
        builder.output(&loss);
        (builder.finish().expect("a graph"), loss)
    };
    let given: Inputs = [(Name::from("x"), x.clone())].into_iter().collect();
    let gradients = |is_quantized: bool, learns: &[Name]| {
        let (graph, loss) = graph(is_quantized);
        let request = request(&given, Mode::Training, &[], Some(&loss), learns);
        run_host(&graph, &given, &request).expect("it runs")
    };
    let plain = gradients(false, &["weight".into()]);
    let found = gradients(true, &["scale".into(), "weight".into()]);
    close("the weight's gradient", &found[1], &plain[0], 1e-5);
    assert!(wide(&found[0])[0] != 0.0 && wide(&found[1]).iter().any(|&value| value != 0.0));
}

#[test]
fn gradients_pass_to_recurrent_weights() {
    check_passes(&random(&[5, 2, 3], 1.0), &random(&[1, 16, 3], 0.5), |builder, x, w| {
        let r = builder.initializer("r", random(&[1, 16, 4], 0.5));
        builder.node(Op::LSTM(op::LSTM { hidden_size: Some(4), ..Default::default() }), &[x, w, &r])
    });
    check_passes(&random(&[5, 2, 3], 1.0), &random(&[1, 12, 3], 0.5), |builder, x, w| {
        let r = builder.initializer("r", random(&[1, 12, 4], 0.5));
        builder.node(Op::GRU(op::GRU { hidden_size: Some(4), ..Default::default() }), &[x, w, &r])
    });
}

#[test]
fn gradients_pass_to_the_weights_of_attention() {
    check_passes(&random(&[2, 3, 8], 1.0), &random(&[8, 8], 0.8), |builder, x, w| {
        let q = builder.node(Op::MatMul, &[x, w]);
        let keys = builder.node(Op::Transpose(op::Transpose { perm: vec![0, 2, 1] }), &[x]);
        let scores = builder.node(Op::MatMul, &[&q, &keys]);
        let probabilities = builder.node(Op::Softmax(op::Softmax { axis: -1 }), &[&scores]);
        builder.node(Op::MatMul, &[&probabilities, x])
    });
}
