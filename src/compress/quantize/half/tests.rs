//! Narrowed networks against the reference in `f32`, and what stays in `f32`.

#[allow(clippy::duplicate_mod)] // the tests of `graph::structure` have it, too, as a private one
#[path = "../../../../tests/integration/random_graphs.rs"]
mod random_graphs;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use proptest::prelude::*;

use super::{HalfOptions, HalfType, Halved, QuantizeHalfError, to_half};
use crate::graph::eval;
use crate::graph::op::{self, Cast, Op, RoundMode};
use crate::graph::shape::{Bindings, Note, infer};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, Node, TensorType};

fn options() -> HalfOptions {
    HalfOptions::default()
}

/// Narrowed, and everything stated of its types true.
fn narrowed(graph: &Graph, options: &HalfOptions) -> Halved {
    let halved = to_half(graph, options).expect("it can be narrowed");
    halved.graph.check().expect("a graph");
    let types = infer(&halved.graph, &Bindings::default()).expect("types fit");
    let contradicted = types.notes().iter().find(|note| matches!(note, Note::Declared { .. }));
    assert_eq!(contradicted, None);
    halved
}

fn cast_to(dtype: DType) -> Op {
    Op::Cast(Cast { to: dtype, saturate: true, round_mode: RoundMode::Up })
}

/// Numbers in [-1, 1] for every input, a symbol taken for 2.
fn inputs(graph: &Graph) -> IndexMap<Name, Tensor> {
    let mut state = 3u32;
    let mut number = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    };
    let mut tensor = |info: &crate::graph::ValueInfo| {
        let stated = info.tensor_type().expect("a type");
        let shape: Vec<usize> =
            stated.shape.as_ref().expect("a shape").iter().map(|dim| dim.known().unwrap_or(2)).collect();
        let numbers = (0..shape.iter().product()).map(|_| number()).collect::<Vec<f32>>();
        converted(&Tensor::new(&shape, numbers).expect("as many"), stated.dtype)
    };
    graph.inputs.iter().map(|info| (info.name.clone(), tensor(info))).collect()
}

fn converted(tensor: &Tensor, dtype: DType) -> Tensor {
    let outputs = eval::operator(&cast_to(dtype), &[Some(tensor.clone())], 1).expect("a cast");
    outputs.into_iter().next().flatten().expect("one output")
}

fn outputs(graph: &Graph) -> Vec<f32> {
    let outputs = eval::run(graph, &inputs(graph)).expect("it runs");
    outputs.values().flat_map(|tensor| converted(tensor, DType::F32).to_vec::<f32>().expect("floats")).collect()
}

/// Outputs alike within a share of the greatest of them.
fn check_alike(before: &Graph, after: &Graph, share: f32) -> Result<(), String> {
    let (before, after) = (outputs(before), outputs(after));
    let greatest = before.iter().fold(0f32, |greatest, y| greatest.max(y.abs()));
    let apart = |(a, b): &(&f32, &f32)| (*a - *b).abs() > share * greatest.max(1e-3) || a.is_nan() != b.is_nan();
    match before.iter().zip(&after).find(apart) {
        Some((a, b)) => Err(format!("{a} and {b}, up to {greatest}")),
        None if before.len() == after.len() => Ok(()),
        None => Err("of other lengths".to_string()),
    }
}

/// `x` of `[2, 4]` through what `build` makes of it.
fn network(build: impl FnOnce(&mut GraphBuilder, &Name) -> Name) -> Graph {
    let mut builder = GraphBuilder::new("net");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 4.into()]));
    let y = build(&mut builder, &x);
    builder.output(&y);
    builder.finish().expect("a graph")
}

fn scalar(builder: &mut GraphBuilder, value: f32) -> Name {
    builder.initializer("constant", Tensor::scalar(value))
}

fn weight(builder: &mut GraphBuilder, magnitude: f32) -> Name {
    let numbers = (0..16).map(|idx| magnitude * ((idx * 7 % 11) as f32 / 5.0 - 1.0)).collect::<Vec<f32>>();
    builder.initializer("weight", Tensor::new(&[4, 4], numbers).expect("as many"))
}

fn dense(builder: &mut GraphBuilder, x: &Name) -> Name {
    let w = weight(builder, 0.5);
    let y = builder.node(Op::MatMul, &[x, &w]);
    builder.node(Op::Relu, &[&y])
}

fn reason(halved: &Halved, node: &str) -> String {
    let kept = halved.kept.iter().find(|kept| kept.node.starts_with(node));
    kept.unwrap_or_else(|| panic!("{node} is not among {:?}", halved.kept)).reason.clone()
}

fn operators(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|node| node.op.name()).collect()
}

#[test]
fn casts_stand_at_the_ports_only() {
    let graph = network(dense);
    let halved = narrowed(&graph, &options());
    assert_eq!(operators(&halved.graph), ["Cast", "MatMul", "Relu", "Cast"]);
    assert_eq!((halved.kept.as_slice(), halved.n_narrowed, halved.opset), (&[][..], 2, 7));
    assert_eq!(halved.graph.initializers["weight"].dtype(), DType::F16);
    assert_eq!(halved.graph.outputs[0].name, graph.outputs[0].name);
    check_alike(&graph, &halved.graph, 2e-3).expect("alike");
}

#[test]
fn ports_can_be_narrow_too() {
    let graph = network(dense);
    for dtype in [HalfType::F16, HalfType::BF16] {
        let halved = narrowed(&graph, &HalfOptions { keep_ports: false, dtype, ..options() });
        assert_eq!(operators(&halved.graph), ["MatMul", "Relu"]);
        let port = |info: &crate::graph::ValueInfo| info.tensor_type().map(|stated| stated.dtype);
        assert_eq!(port(&halved.graph.inputs[0]), Some(dtype.dtype()));
        check_alike(&graph, &halved.graph, 2e-2).expect("alike");
    }
}

#[test]
fn weights_alone_are_stored_narrow() {
    let graph = network(|builder, x| {
        let y = dense(builder, x);
        let two = scalar(builder, 2.0);
        builder.node(Op::Mul, &[&y, &two])
    });
    let halved = narrowed(&graph, &HalfOptions { weights_only: true, ..options() });
    assert_eq!(operators(&halved.graph), ["Cast", "MatMul", "Relu", "Mul"]);
    assert_eq!(halved.n_narrowed, 1);
    assert_eq!(halved.graph.initializers["weight_f16"].dtype(), DType::F16);
    assert_eq!(halved.graph.initializers["constant"].dtype(), DType::F32);
    check_alike(&graph, &halved.graph, 2e-3).expect("alike");
    let keep = ["weight".to_string()].into();
    let halved = narrowed(&graph, &HalfOptions { weights_only: true, keep, ..options() });
    assert_eq!((reason(&halved, "constant `weight`"), halved.graph == graph), ("it was asked for".to_string(), true));
}

#[test]
fn weights_of_nodes_are_stored_narrow_too_and_those_of_callers_are_not() {
    let graph = network(|builder, x| {
        let value = Tensor::new(&[4, 4], (0..16).map(|idx| idx as f32 / 8.0 - 1.0).collect::<Vec<f32>>()).expect("16");
        let w = builder.node(Op::Constant(op::Constant { value }), &[]);
        builder.node(Op::MatMul, &[x, &w])
    });
    let only = HalfOptions { weights_only: true, ..options() };
    let halved = narrowed(&graph, &only);
    assert_eq!((operators(&halved.graph), halved.n_narrowed), (vec!["Cast", "MatMul"], 1));
    check_alike(&graph, &halved.graph, 2e-3).expect("alike");

    let mut parts = network(dense).to_parts();
    parts.overridable.insert("weight".into());
    let graph = Graph::new(parts).expect("a graph");
    for options in [only, options()] {
        let halved = narrowed(&graph, &options);
        assert!(halved.notes[0].starts_with("`weight` and 0 other weights stay f32"), "{:?}", halved.notes);
        assert_eq!(halved.graph.initializers["weight"].dtype(), DType::F32);
    }
}

#[test]
fn what_is_beyond_the_range_stays() {
    let graph = network(|builder, x| {
        let w = weight(builder, 1e5);
        let y = builder.node(Op::MatMul, &[x, &w]);
        let small = scalar(builder, 1e-6);
        builder.node(Op::Mul, &[&y, &small])
    });
    let halved = narrowed(&graph, &options());
    assert!(reason(&halved, "MatMul").contains("beyond"));
    let weights = narrowed(&graph, &HalfOptions { weights_only: true, ..options() });
    assert!(reason(&weights, "constant `weight`").contains("beyond"));
    let brain = narrowed(&graph, &HalfOptions { dtype: HalfType::BF16, ..options() });
    assert_eq!(brain.kept, []);
}

#[test]
fn ranges_of_data_decide_with_a_margin_of_two() {
    let graph = network(dense);
    let with = |range: f32| {
        let ranges = Some(BTreeMap::from([(Name::from("matmul"), range)]));
        narrowed(&graph, &HalfOptions { ranges, ..options() })
    };
    assert_eq!(with(32000.0).kept, []);
    let halved = with(33000.0);
    assert!(reason(&halved, "MatMul").contains("`matmul` reaches 3.3e4"));
    assert_eq!(halved.kept.len(), 2, "what reads it, too");
    check_alike(&graph, &halved.graph, 2e-3).expect("alike");
    let ranges = Some(BTreeMap::from([(Name::from("matmul"), f32::NAN)]));
    let refused = to_half(&graph, &HalfOptions { ranges, ..options() }).expect_err("no magnitude");
    assert!(matches!(refused, QuantizeHalfError::Range { .. }));
}

#[test]
fn what_keeps_a_root_from_zero_stays_with_it() {
    let graph = network(|builder, x| {
        let zero = scalar(builder, 0.0);
        let squares = builder.node(Op::Mul, &[x, &zero]);
        let epsilon = scalar(builder, 1e-12);
        let sum = builder.node(Op::Add, &[&squares, &epsilon]);
        let root = builder.node(Op::Sqrt, &[&sum]);
        let y = builder.node(Op::Div, &[&squares, &root]);
        builder.node(Op::Add, &[&y, x])
    });
    let halved = narrowed(&graph, &options());
    let kept: Vec<&str> = halved.kept.iter().map(|kept| kept.node.as_str()).collect();
    assert_eq!(kept, ["Add `add`", "Sqrt `sqrt`", "Div `div`"]);
    check_alike(&graph, &halved.graph, 2e-3).expect("alike");
}

/// Scores, a mask of 1 where a number is greater than 0, and the softmax of what is left.
fn masked(builder: &mut GraphBuilder, x: &Name, lowest: f32) -> Name {
    let zero = scalar(builder, 0.0);
    let mask = builder.node(Op::Greater, &[x, &zero]);
    let mask = builder.node(cast_to(DType::F32), &[&mask]);
    let lowest = scalar(builder, lowest);
    let mask = builder.node(Op::Mul, &[&mask, &lowest]);
    builder.node(Op::Add, &[x, &mask])
}

#[test]
fn masks_are_as_low_as_they_can_be() {
    for lowest in [f32::MIN, -1e9] {
        let graph = network(|builder, x| {
            let scores = masked(builder, x, lowest);
            builder.node(Op::Softmax(op::Softmax { axis: -1 }), &[&scores])
        });
        let ranges = ["mul", "add_2", "add"].map(|name| (Name::from(name), f32::MAX));
        let halved = narrowed(&graph, &HalfOptions { ranges: Some(ranges.into()), ..options() });
        assert_eq!((halved.kept.as_slice(), halved.notes.len()), (&[][..], 1), "{lowest}");
        check_alike(&graph, &halved.graph, 2e-3).expect("alike");
    }
    let graph = network(|builder, x| masked(builder, x, -1e9));
    assert!(reason(&narrowed(&graph, &options()), "Mul").contains("beyond"));
    let chosen = network(|builder, x| {
        let zero = scalar(builder, 0.0);
        let mask = builder.node(Op::Greater, &[x, &zero]);
        let lowest = scalar(builder, f32::MIN);
        let scores = builder.node(Op::Where, &[&mask, &lowest, x]);
        builder.node(Op::Softmax(op::Softmax { axis: -1 }), &[&scores])
    });
    let halved = narrowed(&chosen, &options());
    assert_eq!(halved.graph.initializers["constant_2"].to_f32s().expect("halves")[0], -65504.0);
    check_alike(&chosen, &halved.graph, 2e-3).expect("alike");
}

#[test]
fn what_is_asked_for_stays() {
    let graph = network(dense);
    for name in ["MatMul", "matmul", "weight"] {
        let halved = narrowed(&graph, &HalfOptions { keep: [name.to_string()].into(), ..options() });
        assert_eq!(reason(&halved, "MatMul"), "it was asked for", "{name}");
        assert_eq!(halved.n_narrowed, 1);
    }
    let keep = ["nothing".to_string()].into();
    let refused = to_half(&graph, &HalfOptions { keep, ..options() }).expect_err("no such name");
    assert_eq!(refused, QuantizeHalfError::NoSuch { name: "nothing".to_string() });
}

#[test]
fn sizes_and_positions_stay_exact() {
    let graph = network(|builder, x| {
        let shape = builder.node(Op::Shape(op::Shape { start: 0, end: Some(1) }), &[x]);
        let size = builder.node(cast_to(DType::F32), &[&shape]);
        let factor = builder.initializer("factor", Tensor::vector(vec![2f32]));
        let size = builder.node(Op::Mul, &[&size, &factor]);
        let size = builder.node(cast_to(DType::I64), &[&size]);
        let four = builder.initializer("four", Tensor::vector(vec![2i64]));
        let shape = builder.node(Op::Concat(op::Concat { axis: 0 }), &[&size, &four]);
        builder.node(Op::Reshape(op::Reshape { allowzero: false }), &[x, &shape])
    });
    let halved = narrowed(&graph, &options());
    assert!(reason(&halved, "Mul").contains("exact"));
    assert_eq!(halved.kept.len(), 2);
    check_alike(&graph, &halved.graph, 2e-3).expect("alike");
}

#[test]
fn operators_without_halves_are_cast_around() {
    let graph = network(|builder, x| {
        let y = dense(builder, x);
        let y = builder.node(Op::Celu(op::Alpha { alpha: 1.0 }), &[&y]);
        dense(builder, &y)
    });
    let halved = narrowed(&graph, &options());
    assert!(reason(&halved, "Celu").contains("f32 only"));
    let casts = operators(&halved.graph).iter().filter(|&&op| op == "Cast").count();
    assert_eq!(casts, 4);
    check_alike(&graph, &halved.graph, 5e-3).expect("alike");
}

#[test]
fn bodies_read_floats_under_their_names() {
    let graph = network(|builder, x| {
        let inner = dense(builder, x);
        let mut branch = GraphBuilder::new("branch");
        let y = branch.node(Op::Neg, &[&inner]);
        branch.output(&y);
        let branch = branch.finish_body().expect("a branch");
        let condition = builder.initializer("condition", Tensor::scalar(true));
        let branches = op::If { then_branch: branch.clone(), else_branch: branch };
        let y = builder.node(Op::If(branches), &[&condition]);
        builder.node(Op::Add, &[&y, &inner])
    });
    for keep_ports in [true, false] {
        let halved = narrowed(&graph, &HalfOptions { keep_ports, ..options() });
        assert!(reason(&halved, "If").contains("bodies"));
        check_alike(&graph, &halved.graph, 5e-3).expect("alike");
    }
}

#[test]
fn constants_of_nodes_and_casts_are_retyped() {
    let graph = network(|builder, x| {
        let value = Tensor::vector(vec![0.5f32, 1.5, -2.0, 4.0]);
        let added = builder.node(Op::Constant(op::Constant { value }), &[]);
        let y = builder.node(Op::Add, &[x, &added]);
        let shape = builder.node(Op::Shape(op::Shape { start: 0, end: None }), &[&y]);
        let zeros = builder.node(Op::ConstantOfShape(op::ConstantOfShape { value: None }), &[&shape]);
        let y = builder.node(Op::Add, &[&y, &zeros]);
        let stored = Tensor::vector(vec![half::f16::from_f32(0.25); 4]);
        let stored = builder.initializer("stored", stored);
        let stored = builder.node(cast_to(DType::F32), &[&stored]);
        builder.node(Op::Mul, &[&y, &stored])
    });
    let halved = narrowed(&graph, &options());
    assert_eq!(halved.kept, []);
    let casts = operators(&halved.graph).iter().filter(|&&op| op == "Cast").count();
    assert_eq!(casts, 2, "at the ports: {:?}", operators(&halved.graph));
    check_alike(&graph, &halved.graph, 2e-3).expect("alike");
}

#[test]
fn scales_of_resize_and_statistics_stay() {
    let mut builder = GraphBuilder::new("net");
    let x = builder.input("x", TensorType::new(DType::F32, [1usize, 2, 3, 3]));
    let [scale, shift, mean, variance] =
        [1.5f32, 0.5, 0.1, 2.0].map(|value| builder.initializer("parameter", Tensor::vector(vec![value; 2])));
    let norm = Op::BatchNormalization(op::BatchNormalization::default());
    let y = builder.node(norm, &[&x, &scale, &shift, &mean, &variance]);
    let scales = builder.initializer("scales", Tensor::vector(vec![1f32, 1.0, 4.0 / 3.0, 4.0 / 3.0]));
    let resized = Name::from("resized");
    let inputs = vec![Some(y), None, Some(scales)];
    builder.push(Node::new(Op::Resize(op::Resize::default()), inputs, vec![Some(resized.clone())]));
    builder.output(&resized);
    let graph = builder.finish().expect("a graph");
    let halved = narrowed(&graph, &options());
    assert_eq!((halved.kept.as_slice(), halved.opset), (&[][..], 15));
    assert!(halved.graph.initializers.values().all(|tensor| tensor.dtype() == DType::F32));
    check_alike(&graph, &halved.graph, 2e-3).expect("alike");
}

/// What random networks may differ by: a normalization of few numbers enlarges roundings.
const SHARE: f32 = 0.1;

fn check_random(graph: &Graph, weights_only: bool, dtype: HalfType) {
    let halved = narrowed(graph, &HalfOptions { weights_only, dtype, ..options() });
    if dtype == HalfType::F16 {
        check_alike(graph, &halved.graph, SHARE).unwrap_or_else(|message| panic!("{message}\n{:?}", halved.kept));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_convolutional_networks(
        layers in random_graphs::layers(), seed in any::<u64>(), weights_only in any::<bool>(), brain in any::<bool>(),
    ) {
        let dtype = if brain { HalfType::BF16 } else { HalfType::F16 };
        check_random(&random_graphs::convolutional(&layers, true, seed), weights_only, dtype);
    }

    #[test]
    fn random_sequential_networks(
        blocks in random_graphs::blocks(), seed in any::<u64>(), weights_only in any::<bool>(), brain in any::<bool>(),
    ) {
        let dtype = if brain { HalfType::BF16 } else { HalfType::F16 };
        check_random(&random_graphs::sequential(&blocks, seed), weights_only, dtype);
    }
}
