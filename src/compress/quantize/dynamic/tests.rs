//! Products on integers that are made as they come: what a network becomes, what it computes, and what is left in floats.

use proptest::prelude::*;

use crate::compress::quantize::scheme::Scheme;
use crate::compress::quantize::tests::{difference, inputs, outputs, wave};
use crate::compress::quantize::{Narrowed, QuantizeError, dynamic};
use crate::graph::op::{self, Direction, Op};
use crate::graph::shape::{self, Bindings};
use crate::graph::structure::random_graphs;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, Node, TensorType, eval, simplify};

const ALL: &str = "operators = ['Conv', 'Gemm', 'LSTM', 'MatMul']";

fn lowered(graph: &Graph, scheme: &str) -> Result<Narrowed, QuantizeError> {
    let types = shape::infer(graph, &Bindings::default()).expect("types fit");
    let narrowed = dynamic(graph, &types, &toml::from_str::<Scheme>(scheme).expect("a scheme"))?;
    narrowed.graph.check().expect("a graph");
    shape::infer(&narrowed.graph, &Bindings::default()).expect("types fit");
    Ok(narrowed)
}

/// A network of an input of this shape.
fn network(shape: &[usize], build: impl FnOnce(&mut GraphBuilder, &Name) -> Name) -> Graph {
    let mut builder = GraphBuilder::new("net");
    let x = builder.input("x", TensorType::new(DType::F32, shape.iter().copied()));
    let y = build(&mut builder, &x);
    builder.output(&y);
    builder.finish().expect("a graph")
}

fn operators(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|node| node.op.name()).collect()
}

/// The operators that come out, and numbers near those in floats.
fn check(graph: &Graph, scheme: &str, expected: &[&str]) {
    let narrowed = lowered(graph, scheme).expect("it has products");
    assert_eq!(operators(&narrowed.graph), expected);
    assert_eq!(narrowed.float, []);
    let difference = difference(graph, &narrowed.graph);
    assert!(difference < 0.05, "{difference}");
}

const PRODUCT: [&str; 5] = ["DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul", "Mul"];

#[test]
fn readers_of_an_activation_share_its_integers() {
    let graph = network(&[2, 3, 8], |net, x| {
        let first = net.initializer("first", wave(&[8, 5], 0.0));
        let second = net.initializer("second", wave(&[8, 5], 0.7));
        let bias = net.initializer("bias", wave(&[5], 0.1));
        let a = net.node(Op::MatMul, &[x, &first]);
        let a = net.node(Op::Add, &[&a, &bias]);
        let b = net.node(Op::MatMul, &[x, &second]);
        net.node(Op::Add, &[&a, &b])
    });
    let again = ["MatMulInteger", "Cast", "Mul", "Mul", "Add"];
    check(&graph, "", &[&PRODUCT[..], &["Add"], &again].concat());
    let by_tensor = "weights = { dtype = 'u8', symmetric = false, granularity = 'tensor' }";
    check(&graph, by_tensor, &[&PRODUCT[..], &["Add"], &again].concat());
}

/// The operator's definition, and weights to the nearest of 255 steps, in plain loops.
#[test]
fn a_product_is_that_of_the_definition() {
    let (rows, inner, columns) = (4, 8, 5);
    let weight = wave(&[inner, columns], 0.3);
    let graph = network(&[rows, inner], |net, x| {
        let weight = net.initializer("weight", weight.clone());
        net.node(Op::MatMul, &[x, &weight])
    });
    let narrowed = lowered(&graph, "").expect("a product");
    let x = inputs(&graph, 0.4).swap_remove("x").expect("the input").to_vec::<f32>().expect("floats");
    let w = weight.to_vec::<f32>().expect("floats");
    let (low, high) = x.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
    let step = (high - low) / 255.0;
    let zero = (-low / step).round_ties_even();
    let centred = |x: f32| ((x / step).round_ties_even() + zero).clamp(0.0, 255.0) - zero;
    let got = outputs(&narrowed.graph, 0.4);
    for column in 0..columns {
        let greatest = (0..inner).map(|k| w[k * columns + column].abs()).fold(0.0, f32::max);
        let scale = greatest / 127.0;
        for row in 0..rows {
            let factors = (0..inner).map(|k| (centred(x[row * inner + k]), w[k * columns + column]));
            let sum: f32 = factors.map(|(x, w)| x * (w / scale).round_ties_even()).sum();
            let expected = sum * (step * scale);
            let got = got[row * columns + column];
            assert!((got - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{got} {expected}");
        }
    }
}

#[test]
fn a_gemm_takes_its_factors_along() {
    let gemm = |alpha, beta| op::Gemm { alpha, beta, trans_a: false, trans_b: true };
    let graph = network(&[4, 8], |net, x| {
        let weight = net.initializer("weight", wave(&[5, 8], 0.0));
        let bias = net.initializer("bias", wave(&[5], 0.1));
        net.node(Op::Gemm(gemm(0.5, 2.0)), &[x, &weight, &bias])
    });
    check(&graph, "", &[&PRODUCT[..], &["Add"]].concat());
}

#[test]
fn a_convolution_does_where_it_is_asked_for() {
    let graph = network(&[1, 3, 6, 6], |net, x| {
        let weight = net.initializer("weight", wave(&[4, 3, 3, 3], 0.0));
        let bias = net.initializer("bias", wave(&[4], 0.1));
        let conv = op::Conv { pads: vec![1; 4], strides: vec![2, 1], ..op::Conv::default() };
        net.node(Op::Conv(conv), &[x, &weight, &bias])
    });
    let expected = ["DynamicQuantizeLinear", "ConvInteger", "Cast", "Mul", "Mul", "Add"];
    check(&graph, "operators = ['Conv']", &expected);
    let by_tensor = "operators = ['Conv']\nweights = { dtype = 'u8', symmetric = false, granularity = 'tensor' }";
    check(&graph, by_tensor, &expected);
}

fn lstm(layout: i64) -> Graph {
    let (hidden, features) = (6, 8);
    network(&[4, 2, features], |net, x| {
        let w = net.initializer("w", wave(&[2, 4 * hidden, features], 0.0));
        let r = net.initializer("r", wave(&[2, 4 * hidden, hidden], 0.3));
        let b = net.initializer("b", wave(&[2, 8 * hidden], 0.9));
        let op = op::LSTM {
            activation_alpha: vec![],
            activation_beta: vec![],
            activations: vec![],
            clip: None,
            direction: Direction::Bidirectional,
            hidden_size: Some(6),
            input_forget: false,
            layout,
        };
        net.node(Op::LSTM(op), &[x, &w, &r, &b])
    })
}

#[test]
fn a_recurrent_network_does_on_onnxruntime() {
    check(&lstm(0), ALL, &["DynamicQuantizeLSTM"]);
    check(&lstm(0), &format!("{ALL}\nweights = {{ granularity = 'tensor' }}"), &["DynamicQuantizeLSTM"]);
}

fn refused(graph: &Graph, scheme: &str) -> String {
    lowered(graph, scheme).expect_err("nothing is left").to_string()
}

#[test]
fn what_has_no_such_form_is_named() {
    let nothing = |reason: &str| format!("nothing can be quantized: {reason}");
    assert_eq!(
        refused(&lstm(1), ALL),
        nothing("LSTM `lstm`: it has the batch first, which the form on integers has not")
    );
    let product = |constant_first: bool| {
        network(&[5, 5], |net, x| {
            let weight = net.initializer("weight", wave(&[5, 5], 0.0));
            let operands = if constant_first { [&weight, x] } else { [x, x] };
            net.node(Op::MatMul, &operands)
        })
    };
    assert_eq!(refused(&product(true), ""), nothing("MatMul `matmul`: its constant stands first"));
    assert_eq!(refused(&product(false), ""), nothing("MatMul `matmul`: both its inputs are activations"));
    let plain = network(&[5, 5], |net, x| {
        let weight = net.initializer("weight", wave(&[5, 5], 0.0));
        net.node(Op::MatMul, &[x, &weight])
    });
    assert_eq!(refused(&plain, "exclude = ['MatMul']"), nothing("MatMul `matmul`: excluded by `MatMul`"));
    assert!(refused(&plain, "weights = { dtype = 'i16' }").ends_with("its weights are to have other than eight bits"));
    assert!(refused(&plain, "weights = { granularity = { block = 2 } }").ends_with("scales by block"));
    assert_eq!(refused(&plain, "exclude = ['none']"), QuantizeError::Pattern { pattern: "none".into() }.to_string());
}

#[test]
fn what_stays_in_floats_is_stored_narrow() {
    let mut builder = GraphBuilder::new("net");
    let tokens = builder.input("tokens", TensorType::new(DType::I64, [Dim::from("batch")]));
    let table = builder.initializer("table", wave(&[40, 8], 0.0));
    let rows = builder.node(Op::Gather(op::Gather { axis: 0 }), &[&table, &tokens]);
    let weight = builder.initializer("weight", wave(&[8, 4], 0.0));
    let y = builder.node(Op::MatMul, &[&rows, &weight]);
    builder.output(&y);
    let narrowed = lowered(&builder.finish().expect("a graph"), "").expect("a product");
    assert_eq!((narrowed.n_weights, narrowed.integer), (2, vec![1]));
    let constants = narrowed.graph.initializers.values().filter(|tensor| tensor.dtype() == DType::I8);
    assert_eq!(constants.map(Tensor::len).sum::<usize>(), 320 + 32);
}

/// What was lowered runs, and gives as many finite numbers.
fn check_any(graph: &Graph) -> Result<(), TestCaseError> {
    let graph = simplify::simplify(graph, &simplify::Options::default()).expect("it simplifies").graph;
    let narrowed = match lowered(&graph, ALL) {
        Ok(narrowed) => narrowed,
        Err(QuantizeError::Nothing { .. }) => return Ok(()),
        Err(error) => panic!("{error}"),
    };
    let is_left = |node: &Node| matches!(node.op, Op::MatMul | Op::Gemm(_) | Op::Conv(_) | Op::LSTM(_));
    let n_left = narrowed.graph.nodes.iter().filter(|node| is_left(node)).count();
    prop_assert_eq!(n_left, narrowed.float.len());
    let (before, after) = (outputs(&graph, 0.4), outputs(&narrowed.graph, 0.4));
    prop_assert_eq!(before.len(), after.len());
    prop_assert!(after.iter().all(|y| y.is_finite()));
    let values = eval::run_with(&narrowed.graph, &inputs(&narrowed.graph, 0.4), &[]);
    prop_assert!(values.is_ok());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_convolutional_network_can_be_quantized(
        layers in random_graphs::layers(), flat in any::<bool>(), seed in any::<u64>(),
    ) {
        check_any(&random_graphs::convolutional(&layers, flat, seed))?;
    }

    #[test]
    fn any_sequential_network_can_be_quantized(blocks in random_graphs::blocks(), seed in any::<u64>()) {
        check_any(&random_graphs::sequential(&blocks, seed))?;
    }
}
