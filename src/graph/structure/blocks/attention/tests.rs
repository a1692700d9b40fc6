//! Attentions in the spellings of different exporters, all of two heads of four features unless the test says so.

use crate::graph::op::{Attention, Cast, Concat, Einsum, Gemm, RoundMode, Shape, Softmax};
use crate::graph::structure::blocks::networks::{HEAD_SIZE, N_HEADS, Net, WIDTH, found, lines};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, Name, Op, TensorType};

/// The attentions of a network as text, each with what its four projections give.
fn listed(graph: &Graph) -> String {
    let attentions = found(graph).attentions;
    let shown = lines(graph, "attention");
    let projections = attentions.iter().map(|attention| {
        let nodes = [
            attention.query_projection,
            attention.key_projection,
            attention.value_projection,
            attention.output_projection,
        ];
        nodes.map(|idx| idx.and_then(|idx| graph.nodes[idx].output(0)).map_or("none", Name::as_str))
    });
    let sizes = |line: &str| line.split("  ").next().unwrap_or_default().to_string();
    let texts = shown.lines().zip(projections).map(|(line, names)| format!("{}; {}", sizes(line), names.join(" ")));
    texts.collect::<Vec<_>>().join("\n")
}

fn check(build: impl FnOnce(&mut Net, &Name) -> Name, expected: &str) {
    let mut net = Net::new();
    let x = net.steps();
    let output = build(&mut net, &x);
    assert_eq!(listed(&net.finish(&output)), expected);
}

/// Softmax and the rest behind scores.
fn rest(net: &mut Net, scores: &Name, values: &Name) -> Name {
    let weights = net.softmax(scores);
    let context = net.op(Op::MatMul, &[&weights, values]);
    let merged = net.merge(&context);
    net.linear(&merged, WIDTH, WIDTH)
}

fn three_heads(net: &mut Net, x: &Name) -> [Name; 3] {
    [(); 3].map(|()| {
        let projected = net.linear(x, WIDTH, WIDTH);
        net.heads(&projected)
    })
}

fn scores_of(net: &mut Net, queries: &Name, keys: &Name) -> Name {
    let keys = net.transpose(keys, &[0, 1, 3, 2]);
    net.op(Op::MatMul, &[queries, &keys])
}

#[test]
fn three_projections_as_in_bert() {
    check(
        |net, x| {
            let mask = net.builder.input("mask", TensorType::new(DType::F32, [3usize]));
            net.attention(x, Some(&mask))
        },
        "2 heads x 4, scale 0.5000, mask mask; matmul matmul_2 matmul_3 matmul_6",
    );
}

#[test]
fn one_projection_split_in_three_as_in_gpt2() {
    check(
        |net, x| {
            let all = net.linear(x, WIDTH, 3 * WIDTH);
            let parts = net.split(&all, 3, -1);
            let [queries, keys, values] = [0, 1, 2].map(|idx| net.heads(&parts[idx]));
            let scores = scores_of(net, &queries, &keys);
            let causal = Tensor::new(&[3, 3], vec![true, false, false, true, true, false, true, true, true]);
            let causal = net.builder.initializer("causal", causal.expect("nine"));
            let far = net.scalar(-1e9);
            let scores = net.op(Op::Where, &[&causal, &scores, &far]);
            rest(net, &scores, &values)
        },
        "2 heads x 4, scale 1.0000, mask causal; matmul matmul matmul matmul_4",
    );
}

#[test]
fn one_projection_taken_apart_by_gather_as_in_vit() {
    check(
        |net, x| {
            let all = net.linear(x, WIDTH, 3 * WIDTH);
            let all = net.reshape(&all, &[1, 3, 3, 2, 4]);
            let all = net.transpose(&all, &[2, 0, 3, 1, 4]);
            let [queries, keys, values] = [0, 1, 2].map(|idx| net.pick(&all, idx, 0));
            let half = net.scalar(0.5);
            let queries = net.op(Op::Mul, &[&queries, &half]);
            let scores = scores_of(net, &queries, &keys);
            rest(net, &scores, &values)
        },
        "2 heads x 4, scale 0.5000; matmul matmul matmul matmul_4",
    );
}

#[test]
fn queries_and_keys_scaled_alike_and_rows_without_keys_as_in_pytorch() {
    check(
        |net, x| {
            let [queries, keys, values] = three_heads(net, x);
            let root = net.scalar(0.5f32.sqrt());
            let queries = net.op(Op::Mul, &[&queries, &root]);
            let keys = net.transpose(&keys, &[0, 1, 3, 2]);
            let keys = net.op(Op::Mul, &[&root, &keys]);
            let scores = net.op(Op::MatMul, &[&queries, &keys]);
            let weights = net.softmax(&scores);
            let (empty, zero) = (net.op(Op::IsNaN, &[&weights]), net.scalar(0.0));
            let weights = net.op(Op::Where, &[&empty, &zero, &weights]);
            let context = net.op(Op::MatMul, &[&weights, &values]);
            let merged = net.merge(&context);
            net.linear(&merged, WIDTH, WIDTH)
        },
        "2 heads x 4, scale 0.5000; matmul matmul_2 matmul_3 matmul_6",
    );
}

#[test]
fn biases_of_positions_and_no_scale_as_in_t5() {
    check(
        |net, x| {
            let mask = net.builder.input("mask", TensorType::new(DType::F32, [3usize]));
            let bias = net.weights(&[N_HEADS, 3, 3]);
            let [queries, keys, values] = three_heads(net, x);
            let scores = scores_of(net, &queries, &keys);
            let scores = net.op(Op::Add, &[&scores, &bias]);
            let scores = net.op(Op::Add, &[&mask, &scores]);
            rest(net, &scores, &values)
        },
        "2 heads x 4, scale 1.0000, mask w, mask; matmul matmul_2 matmul_3 matmul_6",
    );
}

#[test]
fn heads_among_the_batch_as_in_bart() {
    check(
        |net, x| {
            let [queries, keys, values] = three_heads(net, x).map(|heads| net.reshape(&heads, &[2, -1, 4]));
            let keys = net.transpose(&keys, &[0, 2, 1]);
            let scores = net.op(Op::MatMul, &[&queries, &keys]);
            let scores = net.reshape(&scores, &[1, 2, 3, 3]);
            let bias = net.weights(&[3]);
            let scores = net.op(Op::Add, &[&scores, &bias]);
            let scores = net.reshape(&scores, &[2, 3, 3]);
            let weights = net.softmax(&scores);
            let context = net.op(Op::MatMul, &[&weights, &values]);
            let context = net.reshape(&context, &[1, 2, 3, 4]);
            let merged = net.merge(&context);
            net.linear(&merged, WIDTH, WIDTH)
        },
        "2 heads x 4, scale 1.0000, mask w_7; matmul matmul_2 matmul_3 matmul_6",
    );
}

#[test]
fn einsum_in_either_order() {
    for (products, first) in [("bqhd,bkhd->bhqk", 0), ("bkhd,bqhd->bhqk", 1)] {
        check(
            |net, x| {
                let parts = [(); 3].map(|()| {
                    let projected = net.linear(x, WIDTH, WIDTH);
                    net.reshape(&projected, &[1, 3, 2, 4])
                });
                let einsum = |equation: &str| Op::Einsum(Einsum { equation: equation.to_string() });
                let scores = net.op(einsum(products), &[&parts[first], &parts[1 - first]]);
                let weights = net.softmax(&scores);
                let context = net.op(einsum("bhqk,bkhd->bqhd"), &[&weights, &parts[2]]);
                let merged = net.reshape(&context, &[1, 3, 8]);
                net.linear(&merged, WIDTH, WIDTH)
            },
            "2 heads x 4, scale 1.0000; matmul matmul_2 matmul_3 matmul_4",
        );
    }
}

#[test]
fn heads_that_share_keys_and_values_and_turn_with_their_position_as_in_llama() {
    check(
        |net, x| {
            let queries = net.linear(x, WIDTH, WIDTH);
            let queries = net.heads(&queries);
            let [keys, values] = [(); 2].map(|()| {
                let projected = net.linear(x, WIDTH, HEAD_SIZE);
                let heads = net.reshape(&projected, &[1, 3, 1, 4]);
                net.transpose(&heads, &[0, 2, 1, 3])
            });
            let [queries, keys] = [queries, keys].map(|heads| {
                let (cosine, sine) = (net.weights(&[3, HEAD_SIZE]), net.weights(&[3, HEAD_SIZE]));
                let halves = net.split(&heads, 2, -1);
                let other = net.op(Op::Neg, &[&halves[1]]);
                let turned = net.op(Op::Concat(Concat { axis: -1 }), &[&other, &halves[0]]);
                let (left, right) = (net.op(Op::Mul, &[&heads, &cosine]), net.op(Op::Mul, &[&turned, &sine]));
                net.op(Op::Add, &[&left, &right])
            });
            let [keys, values] = [keys, values].map(|heads| {
                let shape = net.ints(&[1, 2, 3, 4]);
                net.op(Op::Expand, &[&heads, &shape])
            });
            let scores = scores_of(net, &queries, &keys);
            let half = net.scalar(0.5);
            let scores = net.op(Op::Mul, &[&half, &scores]);
            rest(net, &scores, &values)
        },
        "2 heads x 4, 1 of keys and values, scale 0.5000; matmul matmul_2 matmul_3 matmul_6",
    );
}

#[test]
fn one_head_without_a_dimension_of_its_own() {
    check(
        |net, x| {
            let [queries, keys, values] = [(); 3].map(|()| net.linear(x, WIDTH, WIDTH));
            let keys = net.transpose(&keys, &[0, 2, 1]);
            let scores = net.op(Op::MatMul, &[&queries, &keys]);
            let weights = net.softmax(&scores);
            let context = net.op(Op::MatMul, &[&weights, &values]);
            net.linear(&context, WIDTH, WIDTH)
        },
        "1 head x 8, scale 1.0000; matmul matmul_2 matmul_3 matmul_6",
    );
}

#[test]
fn gemm_on_a_single_sequence() {
    check(
        |net, x| {
            let x = net.reshape(x, &[3, 8]);
            let parts = [(); 3].map(|()| {
                let (w, b) = (net.weights(&[WIDTH, WIDTH]), net.weights(&[WIDTH]));
                net.op(Op::Gemm(Gemm { trans_b: true, ..Gemm::default() }), &[&x, &w, &b])
            });
            let product = Op::Gemm(Gemm { alpha: 0.25, trans_b: true, ..Gemm::default() });
            let scores = net.op(product, &[&parts[0], &parts[1]]);
            let weights = net.softmax(&scores);
            net.op(Op::MatMul, &[&weights, &parts[2]])
        },
        "1 head x 8, scale 0.2500; gemm gemm_2 gemm_3 none",
    );
}

#[test]
fn values_before_weights_as_in_image_decoders() {
    check(
        |net, x| {
            let [queries, keys, values] = [(); 3].map(|()| net.linear(x, WIDTH, WIDTH));
            let keys = net.transpose(&keys, &[0, 2, 1]);
            let scores = net.op(Op::MatMul, &[&queries, &keys]);
            let weights = net.softmax(&scores);
            let weights = net.transpose(&weights, &[0, 2, 1]);
            let values = net.transpose(&values, &[0, 2, 1]);
            let context = net.op(Op::MatMul, &[&values, &weights]);
            let context = net.transpose(&context, &[0, 2, 1]);
            net.linear(&context, WIDTH, WIDTH)
        },
        "1 head x 8, scale 1.0000; matmul matmul_2 matmul_3 matmul_6",
    );
}

#[test]
fn the_operator_of_that_name() {
    check(
        |net, x| {
            let [queries, keys, values] = [WIDTH, HEAD_SIZE, HEAD_SIZE].map(|n_out| net.linear(x, WIDTH, n_out));
            let heads = Attention { q_num_heads: Some(2), kv_num_heads: Some(1), ..Attention::default() };
            let context = net.op(Op::Attention(heads), &[&queries, &keys, &values]);
            net.linear(&context, WIDTH, WIDTH)
        },
        "2 heads x 4, 1 of keys and values, scale 0.5000; matmul matmul_2 matmul_3 matmul_4",
    );
}

#[test]
fn a_factor_that_is_not_known_is_said_to_be_so() {
    let mut net = Net::new();
    let x = net.builder.input("x", TensorType::new(DType::F32, [Dim::from(1), Dim::from("steps"), Dim::from(WIDTH)]));
    let n_steps = net.op(Op::Shape(Shape { start: 1, end: Some(2) }), &[&x]);
    let n_steps = net.op(Op::Cast(Cast { to: DType::F32, saturate: true, round_mode: RoundMode::Up }), &[&n_steps]);
    let [queries, keys, values] = three_heads(&mut net, &x);
    let scores = scores_of(&mut net, &queries, &keys);
    let scores = net.op(Op::Div, &[&scores, &n_steps]);
    let output = rest(&mut net, &scores, &values);
    assert_eq!(listed(&net.finish(&output)), "2 heads x 4, scale ?; matmul matmul_2 matmul_3 matmul_6");
}

#[test]
fn what_is_no_attention() {
    // a classifier, a gate, and a softmax over another axis than the keys'
    check(|net, x| net.softmax(x), "");
    check(
        |net, x| {
            let gate = net.linear(x, WIDTH, WIDTH);
            let gate = net.softmax(&gate);
            net.op(Op::Mul, &[&gate, x])
        },
        "",
    );
    check(
        |net, x| {
            let [queries, keys, values] = three_heads(net, x);
            let scores = scores_of(net, &queries, &keys);
            let weights = net.op(Op::Softmax(Softmax { axis: 2 }), &[&scores]);
            net.op(Op::MatMul, &[&weights, &values])
        },
        "",
    );
}
