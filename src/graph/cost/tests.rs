//! Counts of small graphs, worked out by hand.

use super::cost;
use crate::graph::attribute::Attribute;
use crate::graph::op::{Conv, If, LSTM, Reshape};
use crate::graph::shape::{Bindings, infer};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, Node, Op, TensorType};

fn weights(shape: &[usize]) -> Tensor {
    Tensor::zeros(DType::F32, shape).expect("a small tensor")
}

fn check(build: impl FnOnce(&mut GraphBuilder, &Name) -> Name, input: &[usize], expected: &str) {
    let mut builder = GraphBuilder::new("test");
    let x = builder.input("x", TensorType::new(DType::F32, input.to_vec()));
    let y = build(&mut builder, &x);
    builder.output(&y);
    let graph = builder.finish().expect("the graph is whole");
    let cost = cost(&graph, &infer(&graph, &Bindings::default()).expect("shapes fit"));
    let total = cost.total;
    let text = format!(
        "{} parameters in {} bytes, {} MACs, {} elementwise, {} bytes written, peak {}{}",
        total.parameters,
        total.weight_bytes,
        total.macs,
        total.elementwise,
        total.activation_bytes,
        cost.peak_activation_bytes,
        if cost.is_incomplete() { ", incomplete" } else { "" }
    );
    assert_eq!(text, expected);
}

fn conv(group: i64) -> Op {
    Op::Conv(Conv { group, ..Conv::default() })
}

#[test]
fn products_count_each_multiplication() {
    // output [1, 4, 3, 3]; each of its 36 elements takes 2 · 2 · 2 weights; 144 bytes beside an input of 128
    check(
        |builder, x| {
            let w = builder.initializer("w", weights(&[4, 2, 2, 2]));
            let b = builder.initializer("b", weights(&[4]));
            builder.node(conv(1), &[x, &w, &b])
        },
        &[1, 2, 4, 4],
        "36 parameters in 144 bytes, 288 MACs, 0 elementwise, 144 bytes written, peak 272",
    );
    // depthwise: each element of [1, 2, 3, 3] takes 1 · 2 · 2 weights
    check(
        |builder, x| {
            let w = builder.initializer("w", weights(&[2, 1, 2, 2]));
            builder.node(conv(2), &[x, &w])
        },
        &[1, 2, 4, 4],
        "8 parameters in 32 bytes, 72 MACs, 0 elementwise, 72 bytes written, peak 200",
    );
    // [2, 3] · [3, 5]
    check(
        |builder, x| {
            let w = builder.initializer("w", weights(&[3, 5]));
            builder.node(Op::MatMul, &[x, &w])
        },
        &[2, 3],
        "15 parameters in 60 bytes, 30 MACs, 0 elementwise, 40 bytes written, peak 64",
    );
    // 5 steps of a batch of 1: 4 gates of 2 units, each with 3 inputs and 2 states; Y [5, 1, 1, 2]
    check(
        |builder, x| {
            let w = builder.initializer("w", weights(&[1, 8, 3]));
            let r = builder.initializer("r", weights(&[1, 8, 2]));
            builder.node(Op::LSTM(LSTM { hidden_size: Some(2), ..LSTM::default() }), &[x, &w, &r])
        },
        &[5, 1, 3],
        "40 parameters in 160 bytes, 200 MACs, 0 elementwise, 40 bytes written, peak 100",
    );
}

#[test]
fn other_operators_count_elements_and_moving_counts_nothing() {
    // pooling [1, 1, 4, 4] to [1, 1, 3, 3] with 4 taps each
    check(
        |builder, x| {
            let pooled = builder.node(max_pool(&[2, 2]), &[x]);
            let shape = builder.initializer("shape", Tensor::vector(vec![9i64]));
            builder.node(Op::Reshape(Reshape::default()), &[&pooled, &shape])
        },
        &[1, 1, 4, 4],
        "0 parameters in 8 bytes, 0 MACs, 36 elementwise, 72 bytes written, peak 136",
    );
}

fn max_pool(kernel: &[i64]) -> Op {
    let attributes = vec![("kernel_shape".to_string(), Attribute::Ints(kernel.to_vec()))];
    Op::read("", "MaxPool", attributes).expect("a kernel is all that it needs")
}

#[test]
fn a_value_is_there_until_its_last_reader() {
    // x and one of a, b, c at a time, then two: x 16, and 16 + 16
    check(
        |builder, x| {
            let a = builder.node(Op::Neg, &[x]);
            let b = builder.node(Op::Exp, &[&a]);
            builder.node(Op::Abs, &[&b])
        },
        &[4],
        "0 parameters in 0 bytes, 0 MACs, 12 elementwise, 48 bytes written, peak 48",
    );
    // a is read at the end again
    check(
        |builder, x| {
            let a = builder.node(Op::Neg, &[x]);
            let b = builder.node(Op::Exp, &[&a]);
            let c = builder.node(Op::Abs, &[&b]);
            builder.node(Op::Add, &[&a, &c])
        },
        &[4],
        "0 parameters in 0 bytes, 0 MACs, 16 elementwise, 64 bytes written, peak 64",
    );
}

#[test]
fn a_shared_constant_counts_once() {
    check(
        |builder, x| {
            let w = builder.initializer("w", weights(&[4, 4]));
            let a = builder.node(Op::MatMul, &[x, &w]);
            builder.node(Op::MatMul, &[&a, &w])
        },
        &[1, 4],
        "16 parameters in 64 bytes, 32 MACs, 0 elementwise, 32 bytes written, peak 48",
    );
}

#[test]
fn what_follows_from_constants_is_no_work_of_a_run() {
    // the transposed weight is 48 bytes that no run writes
    check(
        |builder, x| {
            let w = builder.initializer("w", weights(&[3, 4]));
            let v = builder.node(Op::Neg, &[&w]);
            let shape = builder.initializer("shape", Tensor::vector(vec![4i64, 3]));
            let v = builder.node(Op::Reshape(Reshape::default()), &[&v, &shape]);
            builder.node(Op::MatMul, &[x, &v])
        },
        &[1, 4],
        "12 parameters in 64 bytes, 12 MACs, 0 elementwise, 12 bytes written, peak 28",
    );
}

#[test]
fn what_is_not_known_is_said() {
    let mut builder = GraphBuilder::new("test");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), Dim::from(4)]));
    let y = builder.node(Op::Relu, &[&x]);
    builder.output(&y);
    let graph: Graph = builder.finish().expect("the graph is whole");
    let open = cost(&graph, &infer(&graph, &Bindings::default()).expect("shapes fit"));
    assert!(open.is_incomplete());
    let bound = cost(&graph, &infer(&graph, &Bindings::of([("batch", 3)])).expect("shapes fit"));
    assert!(!bound.is_incomplete());
    assert_eq!(bound.total.elementwise, 12);
}

#[test]
fn a_branch_not_taken_costs_only_its_weights() {
    let branch = |name: &str, n: usize| {
        let mut builder = GraphBuilder::new(name);
        let w = builder.initializer(&format!("{name}_w"), weights(&[4, n]));
        let product = Node::new(Op::MatMul, vec![Some("x".into()), Some(w)], vec![Some(format!("{name}_y").into())]);
        builder.push(product);
        builder.output(&format!("{name}_y").into());
        builder.finish_body().expect("a body may capture")
    };
    let network = |condition: Option<bool>| {
        let mut builder = GraphBuilder::new("test");
        builder.input("x", TensorType::new(DType::F32, [1usize, 4]));
        let condition = match condition {
            Some(truth) => builder.initializer("condition", Tensor::scalar(truth)),
            None => builder.input("condition", TensorType { dtype: DType::Bool, shape: Some(Vec::new()) }),
        };
        let op = Op::If(If { then_branch: branch("then", 2), else_branch: branch("else", 3) });
        let y = builder.node(op, &[&condition]);
        builder.output(&y);
        let graph = builder.finish().expect("the graph is whole");
        cost(&graph, &infer(&graph, &Bindings::default()).expect("shapes fit")).total
    };
    assert_eq!(network(Some(true)).macs, 8);
    assert_eq!(network(Some(false)).macs, 12);
    assert_eq!(network(None).macs, 12);
    assert_eq!(network(Some(true)).parameters, 20);
}
