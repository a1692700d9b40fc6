//! Constants, dead code, duplicates, branches.

use super::{check, check_declined, check_kept, check_with, graph, simplified};
use crate::graph::op::If;
use crate::graph::simplify::Options;
use crate::graph::{GraphBuilder, Node, Op};

#[test]
fn what_constants_make_is_a_constant() {
    check(
        "in x: f32[2]
         init a: f32[2] 1 2
         init b: f32[2] 3 5
         c = Add(a, b)
         d = Neg(c)
         y = Mul(x, d)
         out y",
        "init %d: f32[2] [-4.0, -7.0]
         %y = Mul(%x, %d)",
    );
}

#[test]
fn the_shape_of_a_known_shape_is_a_constant() {
    check(
        "in x: f32[n, 6]
         init one: i64[] 1
         init zero: i64[1] 0
         s = Shape(x)
         n = Gather(s, one)
         n1 = Unsqueeze(n, zero)
         y = Cast(n1) {to=1}
         z = Add(x, y)
         out z",
        "init %y: f32[1] [6.0]
         %z = Add(%x, %y)",
    );
}

#[test]
fn half_precision_weights_are_widened_or_kept() {
    let text = "in x: i64[n]
         init w: f16[32, 4]
         f = Cast(w) {to=1}
         y = Gather(f, x)
         out y";
    check(
        text,
        "init %f: f32[32, 4] #4c1f2c91
         %y = Gather(%f, %x)",
    );
    check_with(
        &Options { keep_narrow_weights: true, ..Options::default() },
        text,
        "init %w: f16[32, 4] #50b8a02d
         %y_narrow = Gather(%w, %x)
         %y = Cast(%y_narrow) {to=1}",
    );
}

#[test]
fn what_explodes_is_declined() {
    check_declined(
        "in x: f32[512, 512]
         init one: f32[] 1
         init shape: i64[2] 512 512
         big = Expand(one, shape)
         y = Add(x, big)
         out y",
        &["it would take 1048576 bytes"],
    );
}

#[test]
fn what_takes_long_is_declined() {
    check_declined(
        "in x: f32[1000]
         init a: f32[100, 1000] 1
         init b: f32[1000, 1000] 1
         c = MatMul(a, b)
         y = Add(x, c)
         out y",
        &["it would take 100000000 multiplications"],
    );
}

#[test]
fn quantized_weights_stay_quantized() {
    check_kept(
        "in x: f32[4]
         init w: i8[4] 1 2 3 4
         init s: f32[] 0.5
         d = DequantizeLinear(w, s)
         e = Neg(d)
         y = Add(x, e)
         out y",
    );
}

#[test]
fn a_constant_that_a_caller_may_override_is_frozen_or_left() {
    let text = "in x: f32[2]
         open a: f32[2] 1 2
         b = Neg(a)
         y = Mul(x, b)
         out y";
    check(
        text,
        "init %b: f32[2] [-1.0, -2.0]
         %y = Mul(%x, %b)",
    );
    check_with(
        &Options { keep_overridable: true, ..Options::default() },
        text,
        "init? %a: f32[2] [1.0, 2.0]
         %b = Neg(%a)
         %y = Mul(%x, %b)",
    );
}

#[test]
fn an_output_that_is_constant_keeps_its_name() {
    check(
        "in x: f32[2]
         init a: f32[2] 1 2
         y = Neg(a)
         z = Relu(x)
         out y
         out z",
        "init %y_2: f32[2] [-1.0, -2.0]
         %z = Relu(%x)
         %y = Identity(%y_2)",
    );
}

#[test]
fn what_nobody_reads_is_removed() {
    check(
        "in x: f32[4, 4]
         init unread: f32[3]
         a = Exp(x)
         b = Neg(a)
         y, mask = Dropout(x)
         z = Relu(y)
         v, i = TopK(x, k)
         init k: i64[1] 2
         out z
         out v",
        "init %k: i64[1] [2]
         %z = Relu(%x)
         %v, %i = TopK(%x, %k)",
    );
}

#[test]
fn optional_outputs_are_left_out() {
    check(
        "in x: f32[1, 1, 4, 4]
         y, i = MaxPool(x) {kernel_shape=[2, 2]}
         out y",
        "%y = MaxPool(%x) {kernel_shape=[2, 2]}",
    );
}

#[test]
fn equal_constants_and_nodes_are_merged() {
    check(
        "in x: f32[2]
         init a: f32[2] 1 2
         init b: f32[2] 1 2
         c = Mul(x, a)
         d = Mul(x, b)
         e = Relu(c)
         f = Relu(d)
         y = Sub(e, f)
         out y",
        "init %a: f32[2] [1.0, 2.0]
         %c = Mul(%x, %a)
         %e = Relu(%c)
         %y = Sub(%e, %e)",
    );
}

#[test]
fn nodes_that_differ_in_an_attribute_are_not_merged() {
    check_kept(
        "in x: f32[2]
         a = LeakyRelu(x) {alpha=0.5}
         b = LeakyRelu(x) {alpha=0.25}
         y = Sub(a, b)
         out y",
    );
}

/// An If on whether the first dimension of `x` is `size`.
fn branching(size: i64) -> crate::graph::Graph {
    let branch = |op: Op, output: &str| {
        let mut branch = GraphBuilder::new(output);
        branch.push(Node::new(op, vec![Some("x".into())], vec![Some(output.into())]));
        branch.output(&output.into());
        branch.finish_body().expect("a branch may capture")
    };
    let base = graph(&format!(
        "in x: f32[2, n]
         init first: i64[] 0
         init size: i64[] {size}
         s = Shape(x)
         d = Gather(s, first)
         c = Equal(d, size)
         out c"
    ));
    let mut parts = base.to_parts();
    let op = Op::If(If { then_branch: branch(Op::Relu, "then"), else_branch: branch(Op::Neg, "else") });
    parts.nodes.push(Node::new(op, vec![Some("c".into())], vec![Some("y".into())]));
    parts.outputs = vec![crate::graph::ValueInfo::untyped("y")];
    crate::graph::Graph::new(parts).expect("a graph")
}

#[test]
fn a_branch_that_is_always_taken_stands_in_the_graph() {
    for (size, operator) in [(2, "Relu"), (3, "Neg")] {
        let after = simplified(&branching(size), &Options::default());
        let names: Vec<&str> = after.graph.nodes.iter().map(|node| node.op.name()).collect();
        assert_eq!(names, [operator]);
    }
}

#[test]
fn a_branch_that_depends_on_an_input_stays() {
    let mut parts = branching(2).to_parts();
    parts.inputs[0] = crate::graph::ValueInfo::new("x", super::tensor_type("f32[m, n]"));
    let after = simplified(&crate::graph::Graph::new(parts).expect("a graph"), &Options::default());
    assert!(after.graph.nodes.iter().any(|node| matches!(node.op, Op::If(_))));
}

#[test]
fn branches_are_simplified_inside() {
    let mut parts = branching(2).to_parts();
    parts.inputs[0] = crate::graph::ValueInfo::new("x", super::tensor_type("f32[m, n]"));
    for node in &mut parts.nodes {
        for body in node.op.bodies_mut() {
            let mut inner = body.to_parts();
            let output = inner.outputs[0].name.clone();
            let before: crate::graph::Name = format!("{output}_before").into();
            inner.nodes[0].outputs = vec![Some(before.clone())];
            inner.nodes.push(Node::new(Op::Identity, vec![Some(before)], vec![Some(output)]));
            *body = crate::graph::Graph::body(inner).expect("a branch");
        }
    }
    let after = simplified(&crate::graph::Graph::new(parts).expect("a graph"), &Options::default());
    let bodies = after.graph.nodes.iter().flat_map(|node| node.op.bodies());
    assert_eq!(bodies.map(|body| body.nodes.len()).collect::<Vec<_>>(), [1, 1]);
}
