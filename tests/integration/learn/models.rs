//! Real models: values as the reference has them, and gradients of the recurrent ones.

use std::collections::BTreeSet;

use aludel::graph::op::{self, Op};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Graph, GraphParts, Name, Node, eval};
use aludel::learn::exec::{Mode, Request, Run, run};
use aludel::onnx;
use indexmap::IndexMap;

use super::{cast, numbers};
use crate::support::{data, say};

type Inputs = IndexMap<Name, Tensor>;

fn read(path: &str) -> Option<Graph> {
    let path = data()?.join(path);
    Some(onnx::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).graph)
}

/// Numbers between −1 and 1, or small integers, for every input; axes of any size have this one.
fn inputs(graph: &Graph, any: usize) -> Inputs {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let of = |info: &aludel::graph::ValueInfo| {
        let declared = info.tensor_type().expect("inputs are tensors");
        let shape = declared.shape.as_ref().expect("inputs have a rank");
        let shape: Vec<usize> = shape.iter().map(|dim| dim.known().unwrap_or(any)).collect();
        let n: usize = shape.iter().product();
        let values: Vec<f32> = if declared.dtype.is_float() {
            (0..n).map(|_| next()).collect()
        } else {
            (0..n).map(|idx| (idx % 2) as f32).collect()
        };
        (info.name.clone(), cast(&Tensor::new(&shape, values).expect("as many"), declared.dtype))
    };
    let is_given = |info: &&aludel::graph::ValueInfo| !graph.initializers.contains_key(&info.name);
    graph.inputs.iter().filter(is_given).map(of).collect()
}

fn request(graph: &Graph, inputs: &Inputs) -> Request {
    Request {
        shapes: inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect(),
        mode: Mode::Inference,
        outputs: graph.outputs.iter().map(|output| output.name.clone()).collect(),
        loss: None,
        trainable: BTreeSet::new(),
        variable: BTreeSet::new(),
    }
}

/// Every output within this part of its largest magnitude of what the reference computes.
fn check(path: &str, any: usize, tolerance: f64) {
    let Some(graph) = read(path) else { return };
    let inputs = inputs(&graph, any);
    let expected = eval::run(&graph, &inputs).unwrap_or_else(|error| panic!("{path}: {error}"));
    let found = run(&graph, &inputs, &request(&graph, &inputs)).unwrap_or_else(|error| panic!("{path}: {error}"));
    for (name, expected) in &expected {
        let found = &found.outputs[name];
        assert_eq!(found.shape(), expected.shape(), "{path}: {name}");
        let Some((found, expected)) = numbers(found).zip(numbers(expected)) else { continue };
        let largest = expected.iter().fold(1e-6f64, |largest, value| largest.max(value.abs()));
        let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(apart <= tolerance * largest, "{path}: {name} is {apart} off, of {largest}");
    }
    say(&format!("{path}: computed by the reference {:?}\n", found.by_reference));
}

#[test]
fn small_models_compute_the_same() {
    for name in ["mnist_cntk_opset8", "silero_vad_lstm_16k", "byte_bidi_lstm", "qtdnn_qlinearconv"] {
        check(&format!("onnx-models/{name}.onnx"), 9, 1e-5);
    }
}

#[test]
fn keyword_spotters_compute_the_same() {
    for name in ["armkws_ds_cnn_s", "armkws_cnn_s", "armkws_dnn_s", "armkws_ds_cnn_l"] {
        check(&format!("onnx-models/{name}.onnx"), 1, 1e-5);
    }
}

#[test]
fn face_detectors_compute_the_same() {
    for name in ["ultraface_slim320_bn", "ultraface_rfb320"] {
        check(&format!("onnx-models/{name}.onnx"), 1, 1e-5);
    }
}

#[test]
fn a_sentence_encoder_computes_the_same() {
    check("minilm-l6/model_f16w.onnx", 4, 1e-5);
}

/// The graph with its floating-point constants among the initializers.
fn with_initializers(graph: &Graph) -> Graph {
    let mut parts = graph.to_parts();
    parts.nodes.retain(|node| match (&node.op, node.output(0)) {
        (Op::Constant(constant), Some(name)) if constant.value.dtype().is_float() => {
            parts.initializers.insert(name.clone(), constant.value.clone());
            false
        }
        _ => true,
    });
    Graph::new(parts).expect("whole")
}

/// The graph in `f64`, with a random-weighted sum of its floating-point outputs as `loss`.
fn with_loss(graph: &Graph, outputs: &IndexMap<Name, Tensor>) -> Graph {
    let GraphParts { mut nodes, mut initializers, inputs, .. } = graph.to_parts();
    let mut parts = GraphParts { nodes: vec![], initializers: IndexMap::new(), ..graph.to_parts() };
    for tensor in initializers.values_mut().filter(|tensor| tensor.dtype().is_float()) {
        *tensor = cast(tensor, DType::F64);
    }
    for node in &mut nodes {
        match &mut node.op {
            Op::Constant(constant) if constant.value.dtype().is_float() => {
                constant.value = cast(&constant.value, DType::F64);
            }
            Op::ConstantOfShape(fill) if fill.element().dtype().is_float() => {
                fill.value = Some(cast(&fill.element(), DType::F64));
            }
            Op::Cast(cast) if cast.to.is_float() => cast.to = DType::F64,
            _ => {}
        }
    }
    let mut terms = Vec::new();
    for (idx, (name, value)) in outputs.iter().filter(|(_, value)| value.dtype().is_float()).enumerate() {
        let weights = (0..value.len()).map(|at| ((at * 7 + idx) % 11) as f64 / 5.0 - 1.0).collect();
        let [weight, product, sum] = ["weight", "product", "sum"].map(|what| Name::from(format!("loss {what} {idx}")));
        initializers.insert(weight.clone(), Tensor::new(value.shape(), weights).expect("as many"));
        nodes.push(Node::new(Op::Mul, vec![Some(name.clone()), Some(weight)], vec![Some(product.clone())]));
        let reduce = Op::ReduceSum(op::Reduce { keepdims: false, noop_with_empty_axes: false });
        nodes.push(Node::new(reduce, vec![Some(product)], vec![Some(sum.clone())]));
        terms.push(Some(sum));
    }
    nodes.push(Node::new(Op::Sum, terms, vec![Some("loss".into())]));
    parts.inputs = inputs;
    for info in &mut parts.inputs {
        if let Some(aludel::graph::ValueType::Tensor(declared)) = &mut info.value_type
            && declared.dtype.is_float()
        {
            declared.dtype = DType::F64;
        }
    }
    parts.outputs = vec![aludel::graph::ValueInfo::untyped("loss")];
    (parts.nodes, parts.initializers) = (nodes, initializers);
    parts.value_info.clear();
    Graph::new(parts).expect("the graph is whole")
}

fn loss(graph: &Graph, inputs: &Inputs) -> f64 {
    eval::run(graph, inputs).expect("the reference runs it")["loss"].to_vec::<f64>().expect("a number")[0]
}

/// Gradients with respect to all floating-point initializers are finite, and a few entries of each large one as
/// central differences of the reference in `f64` have them.
fn check_gradients(path: &str, any: usize, n_entries: usize) {
    let Some(graph) = read(path) else { return };
    let given = inputs(&graph, any);
    let outputs = eval::run(&graph, &given).unwrap_or_else(|error| panic!("{path}: {error}"));
    let graph = with_initializers(&graph);
    // a power of a negative number has no derivative with respect to its exponent
    let is_exponent =
        |name: &Name| graph.nodes.iter().any(|node| matches!(node.op, Op::Pow) && node.input(1) == Some(name));
    let floats = graph.initializers.iter().filter(|(name, t)| t.dtype().is_float() && !is_exponent(name));
    let floats: BTreeSet<Name> = floats.map(|(name, _)| name.clone()).collect();
    let graph = with_loss(&graph, &outputs);
    let given: Inputs = given
        .into_iter()
        .map(
            |(name, tensor)| if tensor.dtype().is_float() { (name, cast(&tensor, DType::F64)) } else { (name, tensor) },
        )
        .collect();
    let wanted = Request { loss: Some("loss".into()), trainable: floats, ..request(&graph, &given) };
    let Run { gradients, .. } = run(&graph, &given, &wanted).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(!gradients.is_empty(), "{path}");
    let step = 1e-5;
    for (name, gradient) in &gradients {
        let gradient = numbers(gradient).expect("numbers");
        assert!(gradient.iter().all(|value| value.is_finite()), "{path}: {name}");
        let largest = gradient.iter().fold(1e-3f64, |largest, value| largest.max(value.abs()));
        let values = graph.initializers[name].to_vec::<f64>().expect("numbers");
        for entry in (0..n_entries).map(|count| (count * 7919 + 13) % values.len()) {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[entry] += by;
                let mut parts = graph.to_parts();
                let tensor = Tensor::new(graph.initializers[name].shape(), values).expect("as many");
                parts.initializers.insert(name.clone(), tensor);
                loss(&Graph::new(parts).expect("whole"), &given)
            };
            let expected = (moved(step) - moved(-step)) / (2.0 * step);
            let apart = (gradient[entry] - expected).abs();
            assert!(apart <= 1e-4 * largest, "{path}: {name}[{entry}] is {}, not {expected}", gradient[entry]);
        }
    }
    say(&format!("{path}: {} gradients\n", gradients.len()));
}

#[test]
fn recurrent_models_have_their_gradients() {
    check_gradients("onnx-models/silero_vad_lstm_16k.onnx", 1, 3);
    check_gradients("onnx-models/byte_bidi_lstm.onnx", 5, 3);
}
