//! What the real models are made of, and a transformer with layers taken out.

use aludel::graph::eval;
use aludel::graph::shape::{Bindings, infer};
use aludel::graph::structure::blocks::{Attention, Norm, Span, Structure, bypass, show, structure};
use aludel::graph::tensor::Tensor;
use aludel::graph::{Graph, Name};
use aludel::onnx;

use crate::support;

const MINILM: &str = "minilm-l6/model_f16w.onnx";

fn found(file: &str) -> Option<(Graph, Structure)> {
    let data = support::data()?;
    let graph = onnx::read(&data.join(file)).unwrap_or_else(|error| panic!("{file}: {error}")).graph;
    let types = infer(&graph, &Bindings::default()).unwrap_or_else(|error| panic!("{file}: {error}"));
    let structure = structure(&graph, &types);
    Some((graph, structure))
}

fn check(file: &str, expected: &str) {
    let Some((graph, structure)) = found(file) else { return };
    assert_eq!(show(&structure, &graph), expected, "{file}");
}

#[test]
fn minilm_has_six_layers() {
    let Some((graph, structure)) = found(MINILM) else { return };
    assert_eq!(structure.encoder_layers.len(), 6);
    assert_eq!(structure.residual_blocks.len(), 12);
    assert_eq!(structure.attentions.len(), 6);
    let spans: Vec<Span> = structure.encoder_layers.iter().map(|layer| layer.span.clone()).collect();
    assert!(spans.windows(2).all(|pair| pair[0].exit == pair[1].entry), "one follows the other");
    for (idx, layer) in structure.encoder_layers.iter().enumerate() {
        assert_eq!((layer.attentions.as_slice(), layer.feed_forward, layer.norm), (&[idx][..], idx, Norm::Post));
        assert_eq!((layer.nodes.len(), layer.private.len(), &layer.blocked), (34, 40, &None));
        let Attention { n_heads, n_kv_heads, head_size, scale, .. } = structure.attentions[idx];
        assert_eq!((n_heads, n_kv_heads, head_size), (Some(12), Some(12), Some(32)));
        assert!((scale.expect("a constant") - 1.0 / 32f64.sqrt()).abs() < 1e-6);
        assert_eq!(structure.attentions[idx].masks, [Name::from("mul_12")]);
        assert_eq!(structure.feed_forwards[idx].size, Some(1536));
    }
    let first = show(&structure, &graph);
    assert_eq!(
        first.lines().next(),
        Some(
            "encoder layer 0  post-norm  layernormalization_8 -> layernormalization_46  \
             attention 12 heads x 32, scale 0.1768, mask mul_12; feed-forward 1536 (Gelu)  40 nodes  removable"
        )
    );
}

#[test]
fn minilm_without_its_last_layers_gives_what_the_first_gave() {
    let Some((graph, structure)) = found(MINILM) else { return };
    let types = infer(&graph, &Bindings::default()).expect("shapes fit");
    let last: Vec<Span> = structure.encoder_layers[1..].iter().map(|layer| layer.span.clone()).collect();
    let without = bypass(&graph, &types, &last).expect("the layers can go");
    without.check().expect("a graph");
    assert_eq!(graph.nodes.len() - without.nodes.len(), 5 * 40);
    let ids = |first: i64| Tensor::new(&[1, 3], vec![first, 2003, 102]).expect("three");
    let ones = |number: i64| Tensor::new(&[1, 3], vec![number; 3]).expect("three");
    let given = [("input_ids", ids(101)), ("attention_mask", ones(1)), ("token_type_ids", ones(0))];
    let given = given.into_iter().map(|(name, tensor)| (Name::from(name), tensor)).collect();
    let (inner, output) = (structure.encoder_layers[0].span.exit.clone(), Name::from("last_hidden_state"));
    let expected = eval::run_with(&graph, &given, std::slice::from_ref(&inner)).expect("it runs");
    let got = eval::run_with(&without, &given, std::slice::from_ref(&output)).expect("it runs");
    assert_eq!(got[&output], expected[&inner]);
}

#[test]
fn the_other_models() {
    check("onnx-models/armkws_ds_cnn_s.onnx", "");
    check("onnx-models/ultraface_slim320_bn.onnx", "");
    check(
        "onnx-models/ultraface_rfb320.onnx",
        "residual block 0  283 -> 313  projection (Conv)  18 nodes  removable\n",
    );
    check(
        "onnx-models/byte_bidi_lstm.onnx",
        "recurrent layer 0  LSTM 32 -> 128  both directions  at LSTM `LSTM_9`\n\
         recurrent layer 1  LSTM 256 -> 64  both directions  at LSTM `LSTM_20`\n",
    );
    check(
        "onnx-models/silero_vad_lstm_16k.onnx",
        "recurrent layer 0  LSTM 128 -> 128  forward  at LSTM `F2::If_0_then_branch__Inline_0__/decoder/rnn/LSTM`\n",
    );
}
