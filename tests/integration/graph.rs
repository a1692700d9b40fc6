//! Graphs of real files: types of every value, and what they cost.

use std::collections::BTreeMap;
use std::path::Path;

use aludel::graph::cost::{Cost, cost};
use aludel::graph::shape::{Bindings, Types, infer};
use aludel::graph::tensor::Tensor;
use aludel::graph::{Graph, Model, Name, TensorType};
use aludel::onnx;
use flate2::read::GzDecoder;

use crate::support;

/// A file, numbers for its symbols, whole shapes for inputs whose dimensions have no name.
type Bound = (&'static str, &'static [(&'static str, usize)], &'static [(&'static str, &'static [usize])]);

/// The shared models with what must be said of their inputs.
const MODELS: &[Bound] = &[
    ("minilm-l6/model_f16w.onnx", &[("batch", 2), ("seq", 48)], &[]),
    ("onnx-models/armkws_cnn_s.onnx", &[], &[]),
    ("onnx-models/armkws_dnn_s.onnx", &[], &[]),
    ("onnx-models/armkws_ds_cnn_l.onnx", &[], &[]),
    ("onnx-models/armkws_ds_cnn_s.onnx", &[], &[]),
    ("onnx-models/byte_bidi_lstm.onnx", &[("batch", 3), ("length", 20)], &[]),
    ("onnx-models/mnist_cntk_opset8.onnx", &[], &[]),
    ("onnx-models/qtdnn_qlinearconv.onnx", &[], &[("input", &[9, 10])]),
    ("onnx-models/silero_vad_16k_op15_if.onnx", &[("batch", 1), ("sequence", 576)], &[]),
    ("onnx-models/silero_vad_lstm_16k.onnx", &[], &[]),
    ("onnx-models/ultraface_rfb320.onnx", &[], &[]),
    ("onnx-models/ultraface_slim320_bn.onnx", &[], &[]),
];

fn model(data: &Path, file: &str) -> Model {
    onnx::read(&data.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn types(file: &str, graph: &Graph, bindings: &Bindings) -> Types {
    infer(graph, bindings).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn bindings(symbols: &[(&str, usize)], shapes: &[(&str, &[usize])]) -> Bindings {
    let shapes: BTreeMap<Name, Vec<usize>> =
        shapes.iter().map(|&(name, shape)| (name.into(), shape.to_vec())).collect();
    Bindings { shapes, ..Bindings::of(symbols.iter().copied()) }
}

#[test]
fn every_value_of_the_shared_models_gets_a_shape() {
    let Some(data) = support::data() else { return };
    for &(file, symbols, shapes) in MODELS {
        let graph = model(&data, file).graph;
        let types = types(file, &graph, &bindings(symbols, shapes));
        assert_eq!(types.unresolved(&graph), Vec::<Name>::new(), "{file}");
    }
}

#[test]
fn a_free_batch_stays_in_every_shape() {
    let Some(data) = support::data() else { return };
    let graph = model(&data, "minilm-l6/model_f16w.onnx").graph;
    let types = types("MiniLM", &graph, &Bindings::default());
    let unranked = graph.value_names().filter(|name| types.tensor(name).and_then(TensorType::rank).is_none());
    assert_eq!(unranked.count(), 0);
    let shown = types.tensor("last_hidden_state").map(TensorType::to_string);
    assert_eq!(shown.as_deref(), Some("f32[batch, seq, 384]"));
}

fn cost_of(data: &Path, file: &str) -> Cost {
    let &(_, symbols, shapes) = MODELS.iter().find(|(name, ..)| *name == file).expect("a model of the list");
    let graph = model(data, file).graph;
    let cost = cost(&graph, &types(file, &graph, &bindings(symbols, shapes)));
    assert!(!cost.is_incomplete(), "{file}");
    cost
}

#[test]
fn costs_agree_with_counting_by_hand() {
    let Some(data) = support::data() else { return };

    // 5 × 5 kernels over padded 28 × 28 and 14 × 14, then 16 · 4 · 4 = 256 to 10
    let conv_1 = 28 * 28 * 8 * (5 * 5);
    let conv_2 = 14 * 14 * 16 * (8 * 5 * 5);
    let mnist = cost_of(&data, "onnx-models/mnist_cntk_opset8.onnx").total;
    assert_eq!(mnist.macs, conv_1 + conv_2 + 256 * 10);
    assert_eq!(mnist.parameters, 8 * 25 + 8 + 16 * 8 * 25 + 16 + 256 * 10 + 10);

    // 250 inputs, three layers of 144, 12 classes
    let keywords = cost_of(&data, "onnx-models/armkws_dnn_s.onnx").total;
    assert_eq!(keywords.macs, 250 * 144 + 144 * 144 + 144 * 144 + 144 * 12);
    assert_eq!(keywords.parameters, keywords.macs + 3 * 144 + 12);

    let faces = cost_of(&data, "onnx-models/ultraface_slim320_bn.onnx").total;
    assert_eq!(faces.macs, ultraface_slim_macs());

    // words, positions and kinds of 384 with their LayerNorm; six layers of four projections, two of the feed-forward
    // part and two LayerNorms; seven scalars of formulas. The published 22.7 M count a pooler (384 · 384 + 384) that
    // this file does not have.
    let (n, wide) = (384, 1536);
    let layer = 4 * (n * n + n) + (n * wide + wide) + (wide * n + n) + 4 * n;
    let language = cost_of(&data, "minilm-l6/model_f16w.onnx").total;
    assert_eq!(language.parameters, (30_522 + 512 + 2) * n + 2 * n + 6 * layer + 7);
    assert_eq!(language.parameters - 7 + n * n + n, 22_713_216);
    // for each of 2 · 48 tokens: the weights, and in each layer twice every other token's 384
    assert_eq!(language.macs, 2 * 48 * 6 * (4 * n * n + 2 * n * wide + 2 * 48 * n));
}

/// The face detector on 320 × 240: places × channels × weights of each 3 × 3 depthwise and 1 × 1 pointwise convolution.
fn ultraface_slim_macs() -> u64 {
    let (p1, p2, p3, p4, p5, p6) = (120 * 160, 60 * 80, 30 * 40, 15 * 20, 8 * 10, 4 * 5);
    let depthwise = |places: u64, channels: u64| places * channels * 9;
    let pointwise = |places: u64, from: u64, to: u64| places * from * to;
    // two heads a scale: scores (2 a box) and boxes (4 a box)
    let heads = |places: u64, channels: u64, boxes: u64| {
        2 * depthwise(places, channels)
            + pointwise(places, channels, 2 * boxes)
            + pointwise(places, channels, 4 * boxes)
    };
    let first = p1 * 16 * (3 * 9);
    let at_120 = depthwise(p1, 16) + pointwise(p1, 16, 32);
    let at_60 = 2 * (depthwise(p2, 32) + pointwise(p2, 32, 32));
    let at_30 = depthwise(p3, 32) + pointwise(p3, 32, 64) + 3 * (depthwise(p3, 64) + pointwise(p3, 64, 64));
    let at_15 = depthwise(p4, 64) + pointwise(p4, 64, 128) + 2 * (depthwise(p4, 128) + pointwise(p4, 128, 128));
    let at_8 = depthwise(p5, 128) + pointwise(p5, 128, 256) + depthwise(p5, 256) + pointwise(p5, 256, 256);
    let extra = pointwise(p5, 256, 64) + depthwise(p6, 64) + pointwise(p6, 64, 256);
    let last_heads = p6 * 256 * 9 * (6 + 12);
    let other_heads = heads(p3, 64, 3) + heads(p4, 128, 2) + heads(p5, 256, 2);
    first + at_120 + at_60 + at_30 + at_15 + at_8 + extra + other_heads + last_heads
}

/// The files of each node test: `model.onnx`, `input_0.pb`, …
fn node_tests(data: &Path) -> BTreeMap<String, BTreeMap<String, Vec<u8>>> {
    use std::io::Read as _;
    let file = std::fs::File::open(data.join("onnx-node-tests/node-tests.tar.gz")).expect("the archive is there");
    let mut cases: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for entry in tar::Archive::new(GzDecoder::new(file)).entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("the whole entry");
        let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        if let (Some(case), Some(name), false) = (part(path.iter().next()), part(path.file_name()), bytes.is_empty()) {
            cases.entry(case).or_default().insert(name, bytes);
        }
    }
    cases
}

/// The data of these are the bits of the output in another type.
const STORED_AS_BITS: &[&str] = &["test_cast_FLOAT_to_BFLOAT16"];

/// What the specification's own outputs are is what inference says of them: with the inputs' types alone it may leave
/// dimensions open, with their values none.
#[test]
fn inference_agrees_with_the_outputs_of_the_node_tests() {
    let Some(data) = support::data() else { return };
    let mut wrong = Vec::new();
    let mut open = Vec::new();
    for (case, files) in node_tests(&data).into_iter().filter(|(case, _)| !STORED_AS_BITS.contains(&case.as_str())) {
        for values_known in [false, true] {
            let graph = node_test_graph(&case, &files, values_known);
            let types = match infer(&graph, &Bindings::default()) {
                Ok(types) => types,
                Err(error) => {
                    wrong.push(format!("{case}: {error}"));
                    continue;
                }
            };
            for (n, output) in graph.outputs.iter().enumerate() {
                let bytes = files.get(&format!("output_{n}.pb")).cloned();
                let Some(Ok(expected)) = bytes.map(|bytes| onnx::read_tensor(bytes.into())) else { continue };
                match types.tensor(&output.name) {
                    Some(got) if !fits(got, &expected) => wrong.push(format!("{case}: {got}, not {expected:?}")),
                    Some(got) if values_known && got.known_shape().is_none() => open.push(case.clone()),
                    Some(_) => {}
                    None => wrong.push(format!("{case}: `{}` is not known", output.name)),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(open, Vec::<String>::new(), "with every value known, every shape is");
}

/// The graph of a node test, without what its file states of its outputs.
fn node_test_graph(case: &str, files: &BTreeMap<String, Vec<u8>>, values_known: bool) -> Graph {
    let model = onnx::read_bytes(files["model.onnx"].clone().into(), None);
    let mut parts = model.unwrap_or_else(|error| panic!("{case}: {error}")).graph.to_parts();
    parts.outputs.iter_mut().for_each(|output| output.value_type = None);
    parts.value_info.clear();
    let inputs = std::mem::take(&mut parts.inputs);
    for (n, input) in inputs.into_iter().enumerate() {
        let bytes = files.get(&format!("input_{n}.pb")).filter(|_| values_known && input.tensor_type().is_some());
        match bytes.map(|bytes| onnx::read_tensor(bytes.clone().into())) {
            Some(Ok(tensor)) => drop(parts.initializers.insert(input.name, tensor)),
            _ => parts.inputs.push(input),
        }
    }
    Graph::new(parts).expect("the nodes are what they were")
}

fn fits(got: &TensorType, expected: &Tensor) -> bool {
    let same = |(dim, &size): (&aludel::graph::Dim, &usize)| dim.known().is_none_or(|known| known == size);
    let shape_fits = got
        .shape
        .as_ref()
        .is_none_or(|dims| dims.len() == expected.rank() && dims.iter().zip(expected.shape()).all(same));
    got.dtype == expected.dtype() && shape_fits
}
