//! Groups of small networks, layer by layer. Each network has a first convolution (or dense layer) of its own before the
//! layer and a classifier behind it, whose three classes are the network's output.

use super::*;
use crate::graph::op;
use crate::graph::shape::{Bindings, infer};
use crate::graph::structure::random_graphs::{Block, Layer, convolutional, sequential};
use crate::graph::structure::shared_heads::{REPEATS, SharedHeads};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{GraphBuilder, Op, TensorType};

fn text(graph: &Graph) -> String {
    groups(graph, &infer(graph, &Bindings::default()).expect("types fit")).to_string()
}

/// The lines of a network, without the counts of other members and without the refusal of the last layer.
fn brief(graph: &Graph) -> Vec<String> {
    let lines = text(graph);
    let mut lines: Vec<String> = lines
        .lines()
        .map(|line| match (line.split_once("; in "), line.split_once("; crosses ")) {
            (Some((line, _)), Some((_, crossed))) => format!("{line}; crosses {crossed}"),
            (Some((line, _)), None) => line.to_string(),
            (None, _) => line.to_string(),
        })
        .collect();
    let last = lines.pop().expect("the last layer is refused");
    assert!(last.starts_with("refused 3 of ") && last.ends_with("is an output of the network"), "{last}");
    lines
}

fn check_layer(layer: &Layer, expected: &[&str]) {
    assert_eq!(brief(&convolutional(std::slice::from_ref(layer), false, 7)), expected, "{layer:?}");
}

fn check_block(block: &Block, expected: &[&str]) {
    assert_eq!(brief(&sequential(std::slice::from_ref(block), 7)), expected, "{block:?}");
}

#[test]
fn layers_that_only_carry_channels_add_nothing() {
    let carried = ["4 channels: weight[0] -> weight_2[1]"];
    check_layer(&Layer::BatchNorm, &carried);
    check_layer(&Layer::InstanceNorm, &carried);
    check_layer(&Layer::Activation { which: 1 }, &carried);
    check_layer(&Layer::PRelu, &carried);
    check_layer(&Layer::Swish, &carried);
    check_layer(&Layer::Pool { max: true }, &carried);
    check_layer(&Layer::ReverseChannels, &carried);
    check_layer(&Layer::PadChannels, &carried);
    check_layer(&Layer::Resize, &carried);
    assert_eq!(brief(&convolutional(&[], true, 7)), ["4 channels: weight[0] -> weight_2[1]x16"], "flattened");
}

#[test]
fn convolutions() {
    let conv = Layer::Conv { channels: 5, kernel: 3, bias: true };
    check_layer(&conv, &["4 channels: weight[0] -> weight_2[1]", "5 channels: weight_2[0] -> weight_3[1]"]);
    let quantized = ["4 channels: weight[0] -> integers[1]", "5 channels: integers[0] -> weight_2[1]"];
    check_layer(&Layer::Quantized { channels: 5 }, &quantized);
    let transposed = Layer::Transposed { channels: 3 };
    check_layer(&transposed, &["4 channels: weight[0] -> weight_2[0]", "3 channels: weight_2[1] -> weight_3[1]"]);
    check_layer(&Layer::Depthwise { multiplier: 2 }, &["4 channels: weight[0] weight_2[0]x2 -> weight_3[1]x2"]);
    check_layer(&Layer::Grouped { per_group: 3 }, &["2 channels: weight[0]x2 weight_2[0]x3 -> weight_3[1]x3"]);
}

#[test]
fn channels_that_meet_go_together() {
    let residual =
        ["4 channels: weight[0] weight_3[0] -> weight_2[1] weight_4[1]", "3 channels: weight_2[0] -> weight_3[1]"];
    check_layer(&Layer::Residual { channels: 3 }, &residual);
    check_layer(&Layer::SqueezeExcite { channels: 3 }, &residual);
    let projection =
        ["4 channels: weight[0] -> weight_2[1] weight_3[1]", "3 channels: weight_2[0] weight_3[0] -> weight_4[1]"];
    check_layer(&Layer::Projection { channels: 3 }, &projection);
    let joined = ["4 channels: weight[0] -> weight_2[1] weight_3[1]", "3 channels: weight_2[0] -> weight_3[1]"];
    check_layer(&Layer::Dense { channels: 3 }, &joined);
}

#[test]
fn channels_that_are_moved_are_followed() {
    let alone = "refused 1 of weight[0]: nothing would be left of `split`";
    check_layer(&Layer::SplitConcat, &["3 channels: weight[0] -> weight_2[1]", alone]);
    check_layer(&Layer::SliceChannels, &["2 channels: weight[0] -> weight_2[1]", "2 channels: weight[0]"]);
    for crd in [false, true] {
        check_layer(&Layer::SpaceToDepth { crd }, &["4 channels: weight[0] -> weight_2[1]x4"]);
    }
    let shuffled = [Layer::Conv { channels: 6, kernel: 1, bias: false }, Layer::Shuffle];
    let shuffled = brief(&convolutional(&shuffled, false, 7));
    assert_eq!(shuffled[1], "3 channels: weight_2[0]x2 -> weight_3[1]x2");
    let pixels = |crd| brief(&convolutional(&[Layer::Dense { channels: 4 }, Layer::PixelShuffle { crd }], false, 7));
    assert_eq!(pixels(false), ["2 channels: weight[0]x2 weight_2[0]x2 -> weight_2[1]x2 weight_3[1]"]);
    let whole = ["weight", "weight_2"].map(|name| format!("refused 1 of {name}[0]: nothing would be left of `{name}`"));
    assert_eq!(pixels(true), whole);
}

#[test]
fn normalisations_over_channels_are_crossed() {
    let crossed = |by: &str| format!("4 channels: weight[0] -> weight_2[1]; crosses {by}");
    check_layer(&Layer::NormLast, &[&crossed("LayerNormalization `layernormalization`")]);
    check_layer(&Layer::GroupNorm { groups: 1 }, &[&crossed("GroupNormalization `groupnormalization`")]);
    check_layer(&Layer::GroupNorm { groups: 2 }, &["2 channels: weight[0]x2 -> weight_2[1]x2"]);
    let crossed = |by: &str| format!("6 features: weight[1] -> weight_2[0]; crosses {by}");
    check_block(&Block::LayerNorm, &[&crossed("LayerNormalization `layernormalization`")]);
    check_block(&Block::RootMeanSquare, &[&crossed("ReduceMean `reducemean`")]);
    check_block(&Block::SoftmaxFeatures, &[&crossed("Softmax `softmax`")]);
    check_block(&Block::L2Normalize, &[&crossed("LpNormalization `lpnormalization`")]);
}

#[test]
fn heads() {
    let attention = Block::Attention { heads: 3, size: 2, fused: false };
    let stream = "6 features: weight[1] weight_5[1] -> weight_2[0] weight_3[0] weight_4[0] weight_6[0]";
    check_block(&attention, &[stream, "3 heads: weight_2[1]x2 weight_3[1]x2 weight_4[1]x2 -> weight_5[0]x2"]);
    let stream = "6 features: weight[1] weight_3[1] -> weight_2[0] weight_4[0]";
    let operator = Block::AttentionOperator { heads: 3, size: 2, shared: 2 };
    let heads = "3 heads: weight_2[1]x4 weight_3[1]x2 weight_4[1]x2 -> weight_5[0]x4";
    check_block(
        &operator,
        &["6 features: weight[1] weight_5[1] -> weight_2[0] weight_3[0] weight_4[0] weight_6[0]", heads],
    );
    let fused = Block::Attention { heads: 3, size: 2, fused: true };
    check_block(&fused, &[stream, "3 heads: weight_2[1]x6 -> weight_3[0]x2"]);
}

#[test]
fn shared_heads_go_with_all_that_share_them() {
    for repeat in REPEATS {
        for (n_kept, n_shared, size) in
            [(3, 2, 2), (3, 2, 4), (4, 2, 8), (2, 3, 5), (2, 4, 2), (2, 5, 1), (4, 4, 4), (8, 4, 64), (32, 8, 128)]
        {
            let heads = SharedHeads { n_kept, n_shared, size, repeat };
            let all = n_shared * size;
            let [all, own] = [all, size].map(|n| if n == 1 { String::new() } else { format!("x{n}") });
            let heads_of = format!("{n_kept} heads: queries[1]{all} keys[1]{own} values[1]{own} -> merge[0]{all}");
            let stream = "5 features: first[1] merge[1] -> queries[0] keys[0] values[0] last[0]".to_string();
            assert_eq!(brief(&heads.network(false)), [stream, heads_of], "{heads:?}");
        }
    }
}

/// A mask for each head, from outside, holds the heads; what the values have is left.
#[test]
fn shared_heads_that_are_held_leave_the_features_of_values() {
    for repeat in REPEATS {
        for (n_kept, n_shared, size) in [(3, 2, 2), (3, 2, 4), (2, 4, 8)] {
            let heads = SharedHeads { n_kept, n_shared, size, repeat };
            let features = format!("{size} features: values[1]x{n_kept} -> merge[0]x{}", n_kept * n_shared);
            let [_, left, held] = brief(&heads.network(true)).try_into().expect("three lines");
            assert_eq!(left, features, "{heads:?}");
            assert!(held.ends_with(" of queries[1]: `mask` is an input of the network"), "{heads:?}: {held}");
        }
    }
}

#[test]
fn dense_layers() {
    let stream = "6 features: weight[1] weight_3[1] -> weight_2[0] weight_4[0]";
    check_block(&Block::FeedForward { hidden: 5, gelu: true }, &[stream, "5 features: weight_2[1] -> weight_3[0]"]);
    let einsum = ["6 features: weight[1] -> weight_2[1]", "5 features: weight_2[0] -> weight_3[0]"];
    check_block(&Block::Einsum { features: 5 }, &einsum);
    check_block(&Block::ThereAndBack, &["6 features: weight[1] -> weight_2[0]"]);
}

#[test]
fn hidden_units() {
    let first = "6 features: weight[1] -> weight_2[2]";
    for (which, gates) in [(0, ""), (1, "x3"), (2, "x4")] {
        for (both, after) in [(false, ""), (true, "x2")] {
            let units =
                format!("5 hidden units: weight_2[1]{gates} weight_3[1]{gates} -> weight_3[2] weight_4[0]{after}");
            check_block(&Block::Recurrent { which, hidden: 5, both }, &[first, &units]);
        }
    }
}

/// An embedding of five words that also makes the answers.
#[test]
fn tied_embeddings_are_one_group() {
    let mut builder = GraphBuilder::new("tied");
    let words = builder.input("words", TensorType::new(DType::I64, ["batch", "length"]));
    let table = builder.initializer("table", Tensor::new(&[5, 4], vec![0.5f32; 20]).expect("a tensor"));
    let x = builder.node(Op::Gather(op::Gather { axis: 0 }), &[&table, &words]);
    let x = builder.node(Op::Relu, &[&x]);
    let turned = builder.node(Op::Transpose(op::Transpose { perm: vec![1, 0] }), &[&table]);
    let y = builder.node(Op::MatMul, &[&x, &turned]);
    builder.output(&y);
    let graph = builder.finish().expect("a graph");
    insta::assert_snapshot!(text(&graph), @r"
    4 features: table[1]; in 0 other constants, 3 inner values
    refused 5 of table[0]: Gather `gather`: its slices are picked by data
    ");
}

#[test]
fn what_an_uncovered_operator_touches_is_refused_by_name() {
    let mut builder = GraphBuilder::new("uncovered");
    let x = builder.input("x", TensorType::new(DType::F32, [2usize, 3]));
    let weights = [[3, 4], [4, 5], [5, 2]].map(|shape: [usize; 2]| {
        builder.initializer("weight", Tensor::new(&shape, vec![0.5f32; shape[0] * shape[1]]).expect("a tensor"))
    });
    let a = builder.node(Op::MatMul, &[&x, &weights[0]]);
    let b = builder.node(Op::MatMul, &[&a, &weights[1]]);
    let b = builder.node(Op::Trilu(op::Trilu { upper: true }), &[&b]);
    let c = builder.node(Op::MatMul, &[&b, &weights[2]]);
    builder.output(&c);
    insta::assert_snapshot!(text(&builder.finish().expect("a graph")), @r"
    4 features: weight[1] -> weight_2[0]; in 0 other constants, 1 inner values
    refused 5 of weight_2[1]: Trilu `trilu`: it counts with the index
    refused 2 of weight_3[1]: `matmul_3` is an output of the network
    ");
}

#[test]
fn an_axis_whose_size_is_computed_with_is_refused() {
    let mut builder = GraphBuilder::new("size");
    let x = builder.input("x", TensorType::new(DType::F32, [2usize, 3]));
    let weights = [[3, 4], [4, 2]].map(|shape: [usize; 2]| {
        builder.initializer("weight", Tensor::new(&shape, vec![0.5f32; shape[0] * shape[1]]).expect("a tensor"))
    });
    let a = builder.node(Op::MatMul, &[&x, &weights[0]]);
    let shape = builder.node(Op::Shape(op::Shape::default()), &[&a]);
    let which = builder.initializer("which", Tensor::vector(vec![1i64]));
    let n = builder.node(Op::Gather(op::Gather { axis: 0 }), &[&shape, &which]);
    let n = builder.node(Op::Cast(op::Cast { to: DType::F32, saturate: true, round_mode: op::RoundMode::Up }), &[&n]);
    let b = builder.node(Op::Div, &[&a, &n]);
    let c = builder.node(Op::MatMul, &[&b, &weights[1]]);
    builder.output(&c);
    insta::assert_snapshot!(text(&builder.finish().expect("a graph")), @r"
    refused 4 of weight[1]: Shape `shape` reads its size: simplify may help
    refused 2 of weight_2[1]: `matmul_2` is an output of the network
    ");
}
