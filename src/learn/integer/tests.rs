//! Products as machines compute them: values that onnxruntime gave on such a machine, and a plain model of its kernel.

use indexmap::IndexMap;

use super::{Arithmetic, Network, Ran};
use crate::graph::op::{self, Op};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, TensorType, eval};

const OLD: &str = "x86-avx2";

fn ran(graph: &Graph, arithmetic: &str, input: &Tensor) -> Ran {
    let network = Network::new(graph, arithmetic.parse().expect("a machine"), true).expect("it is known");
    network.run(&IndexMap::from([(graph.inputs[0].name.clone(), input.clone())])).expect("it runs")
}

fn output(graph: &Graph, arithmetic: &str, input: &Tensor) -> Tensor {
    ran(graph, arithmetic, input).outputs.into_values().next().expect("an output")
}

/// Bytes that depend on nothing but their place.
fn byte(place: usize) -> u8 {
    (place.wrapping_mul(2_654_435_761) >> 13) as u8
}

fn bytes(shape: &[usize]) -> Tensor {
    Tensor::new(shape, (0..shape.iter().product()).map(byte).collect()).expect("as many as the shape has")
}

fn weights(shape: &[usize]) -> Tensor {
    let weights = (0..shape.iter().product()).map(|place| byte(place + 77).cast_signed());
    Tensor::new(shape, weights.collect()).expect("as many as the shape has")
}

/// `MatMulInteger`, the zero point of the activations 7.
fn mat_mul(depth: usize, n_outputs: usize) -> (Graph, Tensor) {
    let weights = weights(&[depth, n_outputs]);
    let mut builder = GraphBuilder::new("product");
    let x = builder.input("x", TensorType::new(DType::U8, [Dim::from("n"), depth.into()]));
    let w = builder.initializer("w", weights.clone());
    let zero = builder.initializer("zero", Tensor::scalar(7u8));
    let y = builder.node(Op::MatMulInteger, &[&x, &w, &zero]);
    builder.output(&y);
    (builder.finish().expect("a graph"), weights)
}

/// `QLinearConv` of `[n_outputs, group_inputs, 3, 3]` over 8 by 8, padded, with a scale for each channel.
fn conv(n_groups: usize, group_inputs: usize, n_outputs: usize, stride: i64) -> (Graph, Tensor) {
    let n_channels = n_groups * group_inputs;
    let weights = weights(&[n_outputs, group_inputs, 3, 3]);
    let mut builder = GraphBuilder::new("convolution");
    let x = builder.input("x", TensorType::new(DType::U8, [Dim::from("n"), n_channels.into(), 8.into(), 8.into()]));
    let scales = (0..n_outputs).map(|output| 0.01 + 0.001 * output as f32).collect();
    let bias = (0..n_outputs).map(|output| 300 * output as i32 - 500).collect::<Vec<i32>>();
    let constants = [
        ("x_scale", Tensor::scalar(0.05f32)),
        ("x_zero", Tensor::scalar(9u8)),
        ("w", weights.clone()),
        ("w_scale", Tensor::vector::<f32>(scales)),
        ("w_zero", Tensor::zeros(DType::I8, &[n_outputs]).expect("zeros")),
        ("y_scale", Tensor::scalar(1.7f32)),
        ("y_zero", Tensor::scalar(101u8)),
        ("bias", Tensor::vector(bias)),
    ];
    let mut inputs = vec![x];
    inputs.extend(constants.map(|(name, tensor)| builder.initializer(name, tensor)));
    let op = op::Conv { group: n_groups as i64, pads: vec![1; 4], strides: vec![stride; 2], ..op::Conv::default() };
    let y = builder.node(Op::QLinearConv(op), &inputs.iter().collect::<Vec<_>>());
    builder.output(&y);
    (builder.finish().expect("a graph"), weights)
}

#[test]
fn a_machine_without_vnni_saturates_pairs_as_onnxruntime_does_there() {
    // onnxruntime 1.31 under `qemu-x86_64 -cpu Haswell`, and on a machine with VNNI.
    let (graph, _) = mat_mul(13, 3);
    let given = ran(&graph, OLD, &bytes(&[2, 13]));
    let saturated = [25622, 2889, -11140, 24373, 36116, -4531];
    assert_eq!(given.outputs[0].as_slice::<i32>().expect("sums"), saturated);
    let exact = output(&graph, "x86-vnni", &bytes(&[2, 13]));
    assert_eq!(exact.as_slice::<i32>().expect("sums"), [31916, 2889, -12852, 24373, 36116, -4531]);
    let [one] = &given.saturation[..] else { panic!("one product") };
    assert_eq!([one.n_pairs, one.n_saturable], [18, 6]);
    assert_eq!([one.n_sums, one.n_saturated], [36, 2]);
}

#[test]
fn exact_arithmetic_is_the_references() {
    let check = |graph: &Graph, input: &Tensor| {
        let inputs = IndexMap::from([(graph.inputs[0].name.clone(), input.clone())]);
        let expected = eval::run(graph, &inputs).expect("it runs").into_values().next().expect("an output");
        for name in ["x86-vnni", "arm64"] {
            assert_eq!(output(graph, name, input), expected, "{}", graph.name);
        }
    };
    for (depth, n_outputs) in [(1, 1), (5, 3), (300, 70), (600, 2)] {
        check(&mat_mul(depth, n_outputs).0, &bytes(&[3, depth]));
    }
    for (n_groups, group_inputs, n_outputs, stride) in
        [(1, 3, 5, 1), (1, 8, 16, 2), (2, 3, 4, 1), (6, 1, 6, 2), (3, 1, 6, 1)]
    {
        check(&conv(n_groups, group_inputs, n_outputs, stride).0, &bytes(&[2, n_groups * group_inputs, 8, 8]));
    }
}

/// Sums of a row and a column in pairs of sixteen bits.
fn in_pairs(row: &[u8], column: &[i8]) -> i32 {
    let products: Vec<i32> = row.iter().zip(column).map(|(&a, &b)| i32::from(a) * i32::from(b)).collect();
    products.chunks(2).map(|pair| pair.iter().sum::<i32>().clamp(-32768, 32767)).sum()
}

#[test]
fn matrices_saturate_along_their_inner_axis() {
    for (n_rows, depth, n_outputs) in [(1, 7, 3), (70, 64, 33), (2, 601, 5)] {
        let (graph, weights) = mat_mul(depth, n_outputs);
        let (x, w) = (bytes(&[n_rows, depth]), weights.as_slice::<i8>().expect("bytes").to_vec());
        let sums = output(&graph, OLD, &x);
        let sums = sums.as_slice::<i32>().expect("sums");
        for (place, &sum) in sums.iter().enumerate() {
            let row = &x.as_slice::<u8>().expect("bytes")[place / n_outputs * depth..][..depth];
            let column: Vec<i8> = w[place % n_outputs..].iter().step_by(n_outputs).copied().collect();
            let zero: i32 = column.iter().map(|&weight| 7 * i32::from(weight)).sum();
            assert_eq!(sum, in_pairs(row, &column) - zero, "{n_rows} {depth} {n_outputs} at {place}");
        }
    }
}

#[test]
fn convolutions_saturate_tap_by_tap_and_depthwise_ones_do_not() {
    for (n_groups, group_inputs, n_outputs) in [(1, 3, 5), (1, 4, 16), (2, 3, 4), (3, 1, 6)] {
        let (graph, weights) = conv(n_groups, group_inputs, n_outputs, 1);
        let n_channels = n_groups * group_inputs;
        let (x, w) = (bytes(&[1, n_channels, 8, 8]), weights.as_slice::<i8>().expect("bytes").to_vec());
        let given = output(&graph, OLD, &x);
        let x = x.as_slice::<u8>().expect("bytes");
        for (place, &byte) in given.as_slice::<u8>().expect("bytes").iter().enumerate() {
            let (output, top, left) = (place / 64, place / 8 % 8, place % 8);
            let first = output / (n_outputs / n_groups) * group_inputs;
            let (mut row, mut column) = (Vec::new(), Vec::new());
            for (tap, channel) in (0..9).flat_map(|tap| (0..group_inputs).map(move |channel| (tap, channel))) {
                let (y, x_at) = ((top + tap / 3).wrapping_sub(1), (left + tap % 3).wrapping_sub(1));
                let inside = y < 8 && x_at < 8;
                row.push(if inside { x[((first + channel) * 8 + y) * 8 + x_at] } else { 9 });
                column.push(w[(output * group_inputs + channel) * 9 + tap]);
            }
            let zero: i32 = column.iter().map(|&weight| 9 * i32::from(weight)).sum();
            let sum = in_pairs(&row, &column) - zero + 300 * output as i32 - 500;
            let scaled = sum as f32 * (0.05f32 * (0.01 + 0.001 * output as f32) / 1.7);
            let expected = (scaled.round_ties_even() + 101.0).clamp(0.0, 255.0) as u8;
            assert_eq!(byte, expected, "{n_groups} {group_inputs} {n_outputs} at {place}");
        }
    }
    let (graph, _) = conv(6, 1, 6, 1);
    let x = bytes(&[2, 6, 8, 8]);
    assert_eq!(output(&graph, OLD, &x), output(&graph, "x86-vnni", &x));
}

/// `Gemm` between DequantizeLinear and a float output, of bytes as they are given; its weight `[n_outputs, depth]`.
fn dequantized_gemm(activations: DType, depth: usize, n_outputs: usize) -> (Graph, Tensor) {
    let weights = weights(&[n_outputs, depth]);
    let mut builder = GraphBuilder::new("gemm");
    let x = builder.input("x", TensorType::new(activations, [Dim::from("n"), depth.into()]));
    let scales = (0..n_outputs).map(|output| 0.25 + 0.125 * output as f32).collect();
    let mut constant = |name: &str, tensor: Tensor| builder.initializer(name, tensor);
    let x_scale = constant("x_scale", Tensor::scalar(0.5f32));
    let w = constant("w", weights.clone());
    let w_scale = constant("w_scale", Tensor::vector::<f32>(scales));
    let bias = constant("bias", Tensor::vector((0..n_outputs).map(|output| 1000 - 77 * output as i32).collect()));
    let bias_scale =
        constant("bias_scale", Tensor::vector((0..n_outputs).map(|output| 0.125 + 0.0625 * output as f32).collect()));
    let by_row = || Op::DequantizeLinear(op::DequantizeLinear { axis: 0, ..op::DequantizeLinear::default() });
    let a = builder.node(by_row(), &[&x, &x_scale]);
    let b = builder.node(by_row(), &[&w, &w_scale]);
    let c = builder.node(by_row(), &[&bias, &bias_scale]);
    let op = op::Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
    let y = builder.node(Op::Gemm(op), &[&a, &b, &c]);
    builder.output(&y);
    (builder.finish().expect("a graph"), weights)
}

#[test]
fn products_that_give_floats_are_summed_in_integers_all_the_same() {
    let (graph, weights) = dequantized_gemm(DType::U8, 9, 4);
    let x = bytes(&[3, 9]);
    let inputs = IndexMap::from([("x".into(), x.clone())]);
    let expected = eval::run(&graph, &inputs).expect("it runs").into_values().next().expect("an output");
    assert_eq!(output(&graph, "x86-vnni", &x), expected);
    let given = output(&graph, OLD, &x);
    for (place, &number) in given.as_slice::<f32>().expect("floats").iter().enumerate() {
        let row = &x.as_slice::<u8>().expect("bytes")[place / 4 * 9..][..9];
        let column = &weights.as_slice::<i8>().expect("bytes")[place % 4 * 9..][..9];
        let sum = in_pairs(row, column) + 1000 - 77 * (place % 4) as i32;
        assert_eq!(number, sum as f32 * (0.125 + 0.0625 * (place % 4) as f32), "at {place}");
    }
}

#[test]
fn signed_activations_saturate_where_the_machine_takes_them_as_unsigned() {
    let (graph, weights) = dequantized_gemm(DType::I8, 8, 1);
    let signed: Vec<i8> = (0..8).map(|place| byte(place).cast_signed()).collect();
    let x = Tensor::new(&[1, 8], signed.clone()).expect("a row");
    let run = |shifts: bool| {
        let network = Network::new(&graph, OLD.parse().expect("a machine"), shifts).expect("it is known");
        let ran = network.run(&IndexMap::from([("x".into(), x.clone())])).expect("it runs");
        (ran.outputs[0].as_slice::<f32>().expect("floats")[0], ran.saturation[0].n_saturable)
    };
    let column = weights.as_slice::<i8>().expect("bytes");
    let exact: i32 = signed.iter().zip(column).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum();
    assert_eq!(run(false), ((exact + 1000) as f32 * 0.125, 0));
    let moved: Vec<u8> = signed.iter().map(|byte| byte.cast_unsigned() ^ 0x80).collect();
    let zero: i32 = column.iter().map(|&weight| 128 * i32::from(weight)).sum();
    let saturated = in_pairs(&moved, column) - zero;
    assert_eq!(run(true), ((saturated + 1000) as f32 * 0.125, super::pairs::n_saturable(column)));
}

#[test]
fn halves_go_to_the_even_neighbour_or_away_from_zero() {
    let mut builder = GraphBuilder::new("halves");
    let x = builder.input("x", TensorType::new(DType::F32, [4usize]));
    let scale = builder.initializer("scale", Tensor::scalar(1f32));
    let zero = builder.initializer("zero", Tensor::scalar(0i8));
    let op = op::QuantizeLinear { axis: 1, block_size: 0, output_dtype: None, precision: None, saturate: true };
    let y = builder.node(Op::QuantizeLinear(op), &[&x, &scale, &zero]);
    builder.output(&y);
    let graph = builder.finish().expect("a graph");
    let x = Tensor::vector(vec![0.5f32, -2.5, 1.5, 1000.0]);
    assert_eq!(output(&graph, "arm64", &x), Tensor::vector(vec![0i8, -2, 2, 127]));
    assert_eq!(output(&graph, "microcontroller", &x), Tensor::vector(vec![1i8, -3, 2, 127]));
}

#[test]
fn what_is_not_known_of_a_machine_is_refused() {
    let text = "no machine".parse::<Arithmetic>().expect_err("no machine");
    assert_eq!(text, "`no machine` is no arithmetic; there are x86-avx2, x86-vnni, arm64, microcontroller");
    let (graph, _) = mat_mul(4, 2);
    let network = Network::new(&graph, Arithmetic::EXACT, true).expect("it is known");
    let given = |tensor: Tensor| network.run(&IndexMap::from([("x".into(), tensor)])).expect_err("it does not fit");
    assert!(given(bytes(&[2, 5])).to_string().contains("a product of [2, 5] and matrices of 4 rows"));
    assert!(given(Tensor::vector(vec![1f32; 4])).to_string().contains("activations are f32"));
    let none = network.run(&IndexMap::new()).expect_err("no input").to_string();
    assert_eq!(none, "MatMulInteger `matmulinteger`: `x` has no value");
}
