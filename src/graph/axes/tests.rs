//! What the rules say of single operators, as text: `X1~Y1` for axes with the same slices (inputs are letters from `A` on,
//! outputs from `Y` on, `#` bundles), `A1~Y1*2.3` where a slice is found `outer` times and `inner` wide, `A0+2~Y0+0` from an
//! offset on; `!A1` is pinned, `A1.B0` is summed over, `/A1` is crossed, `A1=Y1·Y2` is a fold.

use super::*;
use crate::graph::op;
use crate::graph::shape::{Bindings, infer};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{GraphBuilder, Op, TensorType};

/// An input: a shape of floats, or a constant of integers.
enum Given<'a> {
    Shape(&'a [usize]),
    Integers(&'a [i64]),
}

use Given::{Integers, Shape};

fn slot_text(slot: Slot) -> String {
    let letter = |first: u8, position: usize| char::from(first + u8::try_from(position).expect("few"));
    match slot.port {
        Port::Input(position) => format!("{}{}", letter(b'A', position), slot.axis),
        Port::Output(position) => format!("{}{}", letter(b'Y', position), slot.axis),
        Port::Bundle(bundle_idx) => format!("#{bundle_idx}"),
    }
}

fn text(axes: &Axes) -> String {
    let mut words = Vec::new();
    for Tie { a, b, map } in &axes.ties {
        let [a, b] = [a, b].map(|slot| slot_text(*slot));
        words.push(match map {
            Map::Blocks { outer: 1, inner: 1 } => format!("{a}~{b}"),
            Map::Blocks { outer, inner } => format!("{a}~{b}*{outer}.{inner}"),
            Map::Range { from, to, len } => format!("{a}+{from}~{b}+{to}:{len}"),
            Map::Picks(picks) => format!("{a}~{b}@{picks:?}"),
        });
    }
    for Fold { whole, factors } in &axes.folds {
        let factors: Vec<String> = factors.iter().map(|(slot, _)| slot_text(*slot)).collect();
        words.push(format!("{}={}", slot_text(*whole), factors.join("·")));
    }
    words.extend(axes.contracted.iter().map(|(a, b)| format!("{}.{}", slot_text(*a), slot_text(*b))));
    words.extend(axes.crossed.iter().map(|slot| format!("/{}", slot_text(*slot))));
    let mut pinned: Vec<String> = axes.pinned.iter().map(|(slot, _)| format!("!{}", slot_text(*slot))).collect();
    pinned.sort();
    pinned.dedup();
    words.extend(pinned);
    words.join(" ")
}

fn of(op: Op, given: &[Given<'_>], n_outputs: usize) -> Axes {
    let mut builder = GraphBuilder::new("one");
    let names: Vec<Name> = given
        .iter()
        .map(|given| match given {
            Shape(shape) => builder.input("x", TensorType::new(DType::F32, shape.iter().copied())),
            Integers(integers) => builder.initializer("k", Tensor::vector(integers.to_vec())),
        })
        .collect();
    let names: Vec<&Name> = names.iter().collect();
    let outputs = builder.node_with_outputs(op, &names, n_outputs);
    outputs.iter().for_each(|name| builder.output(name));
    let graph = builder.finish().expect("a graph");
    let types = infer(&graph, &Bindings::default()).expect("types fit");
    axes(&graph.nodes[0], &types)
}

fn check(op: Op, given: &[Given<'_>], expected: &str) {
    let label = format!("{op:?}");
    assert_eq!(text(&of(op, given, 1)), expected, "{label}");
}

#[test]
fn broadcasting_ties_what_has_the_same_size() {
    check(Op::Add, &[Shape(&[2, 3, 1]), Shape(&[3, 4])], "A0~Y0 A1~Y1 B0~Y1 B1~Y2");
    check(Op::Sum, &[Shape(&[2, 3]), Shape(&[3]), Shape(&[1])], "A0~Y0 A1~Y1 B0~Y1");
    check(Op::Expand, &[Shape(&[3, 1]), Integers(&[2, 3, 4])], "A0~Y1");
    check(Op::Tile, &[Shape(&[3, 2]), Integers(&[2, 1])], "A0~Y0*2.1 A1~Y1");
}

#[test]
fn products() {
    check(Op::MatMul, &[Shape(&[5, 2, 3]), Shape(&[5, 3, 4])], "A2~B1 B2~Y2 A1~Y1 A0~Y0 B0~Y0 A2.B1");
    check(Op::MatMul, &[Shape(&[2, 3]), Shape(&[3])], "A1~B0 A0~Y0 A1.B0");
    check(Op::MatMul, &[Shape(&[3]), Shape(&[3, 4])], "A0~B0 B1~Y0 A0.B0");
    let gemm = op::Gemm { trans_a: true, trans_b: true, ..op::Gemm::default() };
    check(Op::Gemm(gemm), &[Shape(&[3, 2]), Shape(&[4, 3]), Shape(&[4])], "A1~Y0 B0~Y1 A0~B1 C0~Y1 A0.B1");
    let einsum = |equation: &str| Op::Einsum(op::Einsum { equation: equation.to_string() });
    check(einsum("bik,bkj->bij"), &[Shape(&[2, 3, 4]), Shape(&[2, 4, 5])], "Y0~A0 Y1~A1 Y0~B0 A2~B1 Y2~B2 A2.B1");
    check(einsum("ij->j"), &[Shape(&[2, 3])], "Y0~A1 /A0");
    check(einsum("...i->...i"), &[Shape(&[2, 3])], "!A0 !A1 !Y0 !Y1");
}

#[test]
fn groups_of_a_transposed_convolution_go_whole() {
    let op = Op::ConvTranspose(op::ConvTranspose { group: 2, ..op::ConvTranspose::default() });
    let expected = "A1~B0 #0~A1*1.2 #0~Y1*1.3 !A2 !B1 !B2 !Y2";
    check(op, &[Shape(&[1, 4, 5]), Shape(&[4, 3, 2])], expected);
}

#[test]
fn axes_come_and_go() {
    check(Op::Squeeze, &[Shape(&[2, 1, 3]), Integers(&[1])], "A0~Y0 A2~Y1");
    check(Op::Unsqueeze, &[Shape(&[2, 3]), Integers(&[0, -1])], "A0~Y1 A1~Y2");
    check(Op::Transpose(op::Transpose { perm: vec![] }), &[Shape(&[2, 3, 4])], "A2~Y0 A1~Y1 A0~Y2");
    check(Op::Flatten(op::Flatten { axis: 2 }), &[Shape(&[2, 3, 4])], "A2~Y1 Y0=A0·A1");
    let reshape = || Op::Reshape(op::Reshape { allowzero: false });
    check(reshape(), &[Shape(&[2, 12]), Integers(&[2, 3, 1, 4])], "A0~Y0 A1=Y1·Y3");
    check(reshape(), &[Shape(&[2, 3, 4]), Integers(&[6, 4])], "A2~Y1 Y0=A0·A1");
    check(reshape(), &[Shape(&[4, 3]), Integers(&[6, 2])], "!A0 !A1 !Y0 !Y1");
}

#[test]
fn joining_splitting_and_cutting_move_slices() {
    check(Op::Concat(op::Concat { axis: 0 }), &[Shape(&[2, 3]), Shape(&[4, 3])], "A1~Y1 A0+0~Y0+0:2 B1~Y1 B0+0~Y0+2:4");
    let split = Op::Split(op::Split { axis: 0, num_outputs: None });
    assert_eq!(text(&of(split, &[Shape(&[5]), Integers(&[2, 3])], 2)), "A0+0~Y0+0:2 A0+2~Z0+0:3");
    let slice = |steps: &'static [i64], expected: &str| {
        let given = [Shape(&[5]), Integers(&[1]), Integers(&[-1]), Integers(&[0]), Integers(steps)];
        check(Op::Slice, &given, expected);
    };
    slice(&[1], "A0+1~Y0+0:3");
    slice(&[2], "!A0 !Y0");
    let pad = |mode, expected: &str| check(Op::Pad(op::Pad { mode }), &[Shape(&[3]), Integers(&[1, 2])], expected);
    pad(op::PadMode::Constant, "A0+0~Y0+1:3");
    pad(op::PadMode::Reflect, "!A0 !Y0");
    let gather = || Op::Gather(op::Gather { axis: 0 });
    check(gather(), &[Shape(&[3, 2]), Integers(&[2, -2])], "A1~Y1 A0~Y0@[2, 1]");
}

#[test]
fn what_counts_with_an_index_is_pinned() {
    let arg = op::ArgMax { axis: 1, ..op::ArgMax::default() };
    check(Op::ArgMax(arg), &[Shape(&[2, 3])], "A0~Y0 !A1");
    let top = Op::TopK(op::TopK { axis: 0, ..op::TopK::default() });
    assert_eq!(text(&of(top, &[Shape(&[5, 2]), Integers(&[3])], 2)), "A1~Y1 A1~Z1 !A0 !Y0 !Z0");
    check(Op::Trilu(op::Trilu { upper: true }), &[Shape(&[2, 3])], "!A0 !A1 !Y0 !Y1");
    let lrn = op::LRN { alpha: 1e-4, beta: 0.75, bias: 1.0, size: 3 };
    check(Op::LRN(lrn), &[Shape(&[2, 3, 4])], "A0~Y0 A1~Y1 A2~Y2 !A1");
}

#[test]
fn normalisations_and_reductions_cross() {
    check(Op::Softmax(op::Softmax { axis: -1 }), &[Shape(&[2, 3])], "A0~Y0 A1~Y1 /A1");
    let reduce = |keepdims| op::Reduce { keepdims, noop_with_empty_axes: false };
    check(Op::ReduceMean(reduce(true)), &[Shape(&[2, 3, 4]), Integers(&[1])], "A0~Y0 A2~Y2 /A1");
    check(Op::ReduceMax(reduce(false)), &[Shape(&[2, 3, 4]), Integers(&[-3])], "A1~Y0 A2~Y1 /A0");
    check(Op::ReduceSum(reduce(true)), &[Shape(&[2, 3])], "/A0 /A1");
}

#[test]
fn scales_follow_the_axis_that_they_stand_for() {
    let quantize = |axis| Op::QuantizeLinear(op::QuantizeLinear { axis, ..op::QuantizeLinear::default() });
    check(quantize(1), &[Shape(&[2, 3]), Shape(&[3])], "A0~Y0 A1~Y1 B0~A1");
    check(quantize(1), &[Shape(&[3]), Shape(&[3])], "A0~Y0 B0~A0");
    check(quantize(1), &[Shape(&[2, 3]), Shape(&[])], "A0~Y0 A1~Y1");
    let given = [Shape(&[2, 3])];
    assert_eq!(text(&of(Op::DynamicQuantizeLinear, &given, 3)), "A0~Y0 A1~Y1 /A0 /A1");
}

#[test]
fn heads_of_the_operator_attention_are_bundled() {
    let attention = |q_num_heads, kv_num_heads| {
        Op::Attention(op::Attention { q_num_heads, kv_num_heads, ..op::Attention::default() })
    };
    let flat = [Shape(&[2, 5, 8]), Shape(&[2, 6, 4]), Shape(&[2, 6, 4])];
    let pinned = "!A0 !A1 !B0 !B1 !C0 !C1 !Y0 !Y1";
    let ties = "#0~A2*1.4 #0~B2*1.2 #0~C2*1.2 #0~Y2*1.4";
    check(attention(Some(4), Some(2)), &flat, &format!("{ties} {pinned}"));
    let apart = [Shape(&[2, 4, 5, 3]), Shape(&[2, 4, 6, 3]), Shape(&[2, 4, 6, 3]), Shape(&[4, 5, 6])];
    let pinned = "!A0 !A2 !A3 !B0 !B2 !B3 !C0 !C2 !C3 !D1 !D2 !Y0 !Y2 !Y3";
    let ties = "#0~A1*1.1 #0~B1*1.1 #0~C1*1.1 #0~Y1*1.1 #0~D0*1.1";
    check(attention(None, None), &apart, &format!("{} {pinned}", ties.replace("*1.1", "")));
}

#[test]
fn a_value_of_unknown_rank_pins_everything() {
    let mut builder = GraphBuilder::new("unranked");
    let x = builder.input("x", TensorType::new(DType::F32, [2usize, 3]));
    let z = builder.input("z", TensorType::unranked(DType::F32));
    let y = builder.node(Op::Add, &[&x, &z]);
    builder.output(&y);
    let graph = builder.finish().expect("a graph");
    let types = infer(&graph, &Bindings::default()).expect("types fit");
    assert_eq!(text(&axes(&graph.nodes[0], &types)), "!A0 !A1");
}
