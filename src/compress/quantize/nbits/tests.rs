//! Products by blocks: what a network becomes, what it computes, and what is left in floats.

use proptest::prelude::*;

use crate::compress::quantize::nbits::Grids;
use crate::compress::quantize::parameters::{bounds, quantize_constant};
use crate::compress::quantize::scheme::{Granularity, Integer, Scheme, Weights};
use crate::compress::quantize::tests::{difference, inputs, outputs, wave};
use crate::compress::quantize::{Narrowed, QuantizeError, mat_mul_n_bits};
use crate::graph::op::{self, Op};
use crate::graph::shape::{self, Bindings};
use crate::graph::structure::random_graphs;
use crate::graph::tensor::DType;
use crate::graph::{Graph, GraphBuilder, Name, TensorType, simplify};

fn lowered(graph: &Graph, scheme: &str) -> Result<Narrowed, QuantizeError> {
    let types = shape::infer(graph, &Bindings::default()).expect("types fit");
    let narrowed =
        mat_mul_n_bits(graph, &types, &toml::from_str::<Scheme>(scheme).expect("a scheme"), 0, &Grids::default())?;
    narrowed.graph.check().expect("a graph");
    shape::infer(&narrowed.graph, &Bindings::default()).expect("types fit");
    Ok(narrowed)
}

fn network(shape: &[usize], build: impl FnOnce(&mut GraphBuilder, &Name) -> Name) -> Graph {
    let mut builder = GraphBuilder::new("net");
    let x = builder.input("x", TensorType::new(DType::F32, shape.iter().copied()));
    let y = build(&mut builder, &x);
    builder.output(&y);
    builder.finish().expect("a graph")
}

fn blocks(dtype: &str, block: usize) -> String {
    let symmetric = dtype.starts_with('i');
    format!("weights = {{ dtype = '{dtype}', symmetric = {symmetric}, granularity = {{ block = {block} }} }}")
}

/// A product with the integers of a scheme, in plain loops.
fn check(dtype: Integer, symmetric: bool, block: usize, inner: usize) {
    let columns = 3;
    let weight = wave(&[inner, columns], 0.3);
    let graph = network(&[2, inner], |net, x| {
        let weight = net.initializer("weight", weight.clone());
        net.node(Op::MatMul, &[x, &weight])
    });
    let name = dtype.dtype().to_string();
    let scheme = blocks(&name, block).replace("true", &symmetric.to_string()).replace("false", &symmetric.to_string());
    let narrowed = lowered(&graph, &scheme).expect("a product");
    let n_blocks = inner.div_ceil(block);
    let weights = Weights { dtype, symmetric, granularity: Granularity::Block(block), bits: None, fits_pairs: false };
    let parameters = quantize_constant(&weight, Some(0), weights).expect("floats");
    let (scales, w) = (parameters.scales.to_vec::<f32>(), weight.to_vec::<f32>());
    let (scales, w) = (scales.expect("floats"), w.expect("floats"));
    let x = inputs(&graph, 0.4).swap_remove("x").expect("the input").to_vec::<f32>().expect("floats");
    let (low, high) = bounds(dtype);
    let got = outputs(&narrowed.graph, 0.4);
    for column in 0..columns {
        let restored = |k: usize| {
            let at = |k: usize| w[k * columns + column];
            let scale = scales[k / block * columns + column];
            let first = k / block * block;
            let least = (first..inner.min(first + block)).map(at).fold(0f32, f32::min);
            // symmetric integers leave out the least, asymmetric ones begin at what stands for the least number
            let zero = if symmetric { 0.0 } else { (low as f32 - least / scale).round_ties_even() };
            let bound = if symmetric { (-(high as f32), high as f32) } else { (low as f32, high as f32) };
            let (zero, bound) = match symmetric && !dtype.is_signed() {
                true => (128f32.min(((high + 1) / 2) as f32), (1.0, high as f32)),
                false => (zero, bound),
            };
            (((at(k) / scale).round_ties_even() + zero).clamp(bound.0, bound.1) - zero) * scale
        };
        for row in 0..2 {
            let sum: f32 = (0..inner).map(|k| x[row * inner + k] * restored(k)).sum();
            let got = got[row * columns + column];
            assert!((got - sum).abs() < 1e-4, "{dtype:?} {symmetric} {block} {inner}: {got} {sum}");
        }
    }
    let integers = narrowed.graph.initializers.iter().find(|(name, _)| name.as_str().ends_with("_quantized"));
    let size = dtype.n_bits() as usize * block / 8;
    assert_eq!(integers.expect("packed").1.shape(), [columns, n_blocks, size]);
}

#[test]
fn products_are_those_of_the_restored_weights() {
    for block in [16, 32, 64] {
        for inner in [block, 2 * block, 2 * block + 7, 5] {
            for (dtype, symmetric) in [
                (Integer::I4, true),
                (Integer::U4, true),
                (Integer::U4, false),
                (Integer::I8, true),
                (Integer::U8, false),
                (Integer::I8, false),
            ] {
                check(dtype, symmetric, block, inner);
            }
        }
    }
}

#[test]
fn a_gemm_takes_its_factors_along_and_others_are_stored_narrow() {
    let graph = network(&[1, 3, 10, 10], |net, x| {
        let kernel = net.initializer("kernel", wave(&[12, 3, 3, 3], 0.0));
        let x = net.node(Op::Conv(op::Conv::default()), &[x, &kernel]);
        let x = net.node(Op::GlobalAveragePool, &[&x]);
        let x = net.node(Op::Flatten(op::Flatten::default()), &[&x]);
        let weight = net.initializer("weight", wave(&[5, 12], 0.0));
        let bias = net.initializer("bias", wave(&[5], 0.1));
        let gemm = op::Gemm { alpha: 0.5, beta: 2.0, trans_a: false, trans_b: true };
        net.node(Op::Gemm(gemm), &[&x, &weight, &bias])
    });
    let narrowed = lowered(&graph, &blocks("i8", 16)).expect("a product");
    let operators: Vec<&str> = narrowed.graph.nodes.iter().map(|node| node.op.name()).collect();
    let expected = ["Cast", "Mul", "Conv", "GlobalAveragePool", "Flatten", "MatMulNBits", "Add"];
    assert_eq!((operators, narrowed.n_weights), (expected.to_vec(), 2));
    assert!(difference(&graph, &narrowed.graph) < 0.02);
}

#[test]
fn what_has_no_such_form_is_named() {
    let product = |shape: &[usize]| {
        network(&[2, 5, 5], |net, x| {
            let weight = net.initializer("weight", wave(shape, 0.0));
            net.node(Op::MatMul, &[x, &weight])
        })
    };
    let refused = |graph: &Graph, scheme: &str| lowered(graph, scheme).expect_err("nothing is left").to_string();
    let nothing = |reason: &str| format!("nothing can be quantized: MatMul `matmul`: {reason}");
    assert_eq!(refused(&product(&[2, 5, 5]), &blocks("i4", 16)), nothing("its constant is no matrix"));
    let matrix = product(&[5, 5]);
    assert!(refused(&matrix, "").contains("scales by other than blocks of [16, 32, 64, 128, 256]"));
    assert!(refused(&matrix, &blocks("i16", 16)).contains("16 bits, not 4 or 8"));
    let excluded = format!("{}\nexclude = ['MatMul']", blocks("i4", 16));
    assert_eq!(refused(&matrix, &excluded), nothing("excluded by `MatMul`"));
}

/// What was lowered computes nearly the same.
fn check_any(graph: &Graph) -> Result<(), TestCaseError> {
    let graph = simplify::simplify(graph, &simplify::Options::default()).expect("it simplifies").graph;
    match lowered(&graph, &blocks("u8", 16)) {
        Ok(narrowed) => {
            let n_left = narrowed.graph.nodes.iter().filter(|node| matches!(node.op, Op::MatMul | Op::Gemm(_))).count();
            prop_assert_eq!(n_left, narrowed.float.len());
            let difference = difference(&graph, &narrowed.graph);
            prop_assert!(difference < 0.1, "{difference}");
        }
        Err(QuantizeError::Nothing { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_sequential_network_can_be_quantized(blocks in random_graphs::blocks(), seed in any::<u64>()) {
        check_any(&random_graphs::sequential(&blocks, seed))?;
    }
}
