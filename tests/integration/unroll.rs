//! Recurrent operators written out step by step: the same numbers on both runtimes, integers in every product, the command.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use aludel::audit::{self, CheckOptions, Settings, Verdict};
use aludel::compress::quantize::options::{QuantizeOptions, Target};
use aludel::graph::op::{Direction, GRU, LSTM, Op, RNN};
use aludel::graph::shape::{self, Bindings};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::unroll::unroll;
use aludel::graph::{Dim, Graph, GraphBuilder, Model, Name, Node, TensorType};
use aludel::measure::runtime::explain::Runs;
use aludel::measure::runtime::{ModelBytes, Options, Runtime};
use aludel::onnx;
use aludel::recipe::quantize::{Left, Quantized, quantize};
use aludel::recipe::samples::Samples;
use indexmap::IndexMap;

use crate::{conformance, support};

const N_STEPS: usize = 6;
const N_INPUTS: usize = 8;
const HIDDEN: usize = 16;
const KINDS: [&str; 3] = ["RNN", "GRU", "LSTM"];

fn op(kind: &str, direction: Direction) -> Op {
    let (activations, activation_alpha, activation_beta) = (Vec::new(), Vec::new(), Vec::new());
    let (clip, hidden_size, layout) = (None, i64::try_from(HIDDEN).ok(), 0);
    match kind {
        "RNN" => Op::RNN(RNN { activations, activation_alpha, activation_beta, clip, direction, hidden_size, layout }),
        "GRU" => Op::GRU(GRU {
            activations,
            activation_alpha,
            activation_beta,
            clip,
            direction,
            hidden_size,
            layout,
            linear_before_reset: true,
        }),
        _ => Op::LSTM(LSTM {
            activations,
            activation_alpha,
            activation_beta,
            clip,
            direction,
            hidden_size,
            layout,
            input_forget: false,
        }),
    }
}

/// `[length, batch, 8]` in, a recurrent operator, a product of its whole sequence and its last state.
fn network(kind: &str, direction: Direction, length: Dim) -> Model {
    of_batch(kind, direction, length, Dim::from("batch"))
}

fn of_batch(kind: &str, direction: Direction, length: Dim, batch: Dim) -> Model {
    let n_gates = [("RNN", 1), ("GRU", 3), ("LSTM", 4)].iter().find(|(name, _)| *name == kind).expect("known").1;
    let n_directions = if direction == Direction::Bidirectional { 2 } else { 1 };
    let wave = |shape: &[usize], step: f32| {
        let numbers = (0..shape.iter().product::<usize>()).map(|k| 0.4 * (k as f32 * step).sin()).collect();
        Tensor::new(shape, numbers).expect("as many numbers as the shape has")
    };
    let mut builder = GraphBuilder::new("recurrent");
    let x = builder.input("x", TensorType::new(DType::F32, [length, batch, N_INPUTS.into()]));
    let w = builder.initializer("W", wave(&[n_directions, n_gates * HIDDEN, N_INPUTS], 1.7));
    let r = builder.initializer("R", wave(&[n_directions, n_gates * HIDDEN, HIDDEN], 2.3));
    let b = builder.initializer("B", wave(&[n_directions, 2 * n_gates * HIDDEN], 0.9));
    let inputs = [x, w, r, b].map(Some).to_vec();
    let (y, last): (Name, Name) = ("Y".into(), "Y_h".into());
    let mut node = Node::new(op(kind, direction), inputs, vec![Some(y.clone()), Some(last.clone())]);
    node.name = "layer".to_string();
    builder.push(node);
    let head = builder.initializer("head", wave(&[HIDDEN, 5], 1.1));
    let product = builder.node(Op::MatMul, &[&y, &head]);
    builder.output(&product);
    builder.output(&last);
    Model::new(builder.finish().expect("a graph"))
}

fn feed() -> Vec<(String, Tensor)> {
    let shape = [N_STEPS, 1, N_INPUTS];
    let numbers = (0..shape.iter().product::<usize>()).map(|k| (k as f32 * 0.37).cos()).collect();
    vec![("x".to_string(), Tensor::new(&shape, numbers).expect("as many numbers as the shape has"))]
}

fn bytes(model: &Model) -> ModelBytes {
    ModelBytes::new(onnx::to_bytes(model).expect("it can be written"))
}

fn run(runtime: &dyn Runtime, model: &Model) -> Vec<Tensor> {
    let mut session = runtime.load(&bytes(model), &Options::default()).expect("it loads");
    session.run(&feed()).expect("it runs").into_iter().map(|(_, tensor)| tensor).collect()
}

fn unrolled(graph: &Graph) -> aludel::graph::unroll::Unrolled {
    unroll(graph, &shape::infer(graph, &Bindings::default()).expect("types fit")).expect("it fits")
}

fn is_recurrent(node: &Node) -> bool {
    matches!(node.op, Op::RNN(_) | Op::GRU(_) | Op::LSTM(_))
}

#[test]
fn written_out_networks_compute_the_same_on_both_runtimes() {
    for kind in KINDS {
        for direction in [Direction::Forward, Direction::Reverse, Direction::Bidirectional] {
            let model = network(kind, direction, Dim::Known(N_STEPS));
            let expected = support::reference(&model.graph, &feed()).expect("it runs");
            let written = model.with_graph(unrolled(&model.graph).graph);
            assert!(!written.graph.nodes.iter().any(is_recurrent));
            for runtime in support::runtimes() {
                for (expected, got) in expected.iter().zip(run(runtime, &written)) {
                    let close = support::close(expected, &got, 1e-5, 1e-5);
                    close.unwrap_or_else(|error| panic!("{kind} {direction:?} on {}: {error}", runtime.name()));
                }
            }
        }
    }
}

#[test]
fn onnx_node_tests_of_recurrent_operators_stay_right() {
    let Some(data) = support::data() else { return };
    let cases = conformance::cases(&data.join("onnx-node-tests/node-tests.tar.gz"));
    let (mut n_done, mut n_declined) = (0, 0);
    for (name, case) in &cases {
        let model = onnx::read_bytes(case.model.clone(), None).expect("a network");
        if !model.graph.nodes.iter().any(is_recurrent) {
            continue;
        }
        let tensors = |files: &std::collections::BTreeMap<usize, bytes::Bytes>| {
            files.values().map(|file| onnx::read_tensor(file.clone()).expect("a tensor")).collect::<Vec<_>>()
        };
        let (inputs, expected) = (tensors(&case.inputs), tensors(&case.outputs));
        let mut parts = model.graph.to_parts();
        let constants = parts.inputs.split_off(1);
        let constants = constants.into_iter().map(|info| info.name).zip(inputs.iter().skip(1).cloned());
        parts.initializers.extend(constants);
        let graph = Graph::new(parts).expect("a graph");
        let written = unrolled(&graph);
        match written.declined.as_slice() {
            [] => n_done += 1,
            [declined] => {
                assert!(declined.reason.contains("sequence_lens"), "{name}: {}", declined.reason);
                n_declined += 1;
            }
            _ => panic!("{name} has one operator"),
        }
        let feeds = [(graph.inputs[0].name.to_string(), inputs[0].clone())];
        for (expected, got) in expected.iter().zip(support::reference(&written.graph, &feeds).expect("it runs")) {
            support::close(expected, &got, 1e-3, 1e-6).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    support::say(&format!("node tests of recurrent operators: {n_done} written out, {n_declined} declined\n"));
    assert!(n_done >= 10, "{n_done}");
}

fn quantized(model: &Model, runtime: &dyn Runtime, target: Target, options: &str, known: Option<&Left>) -> Quantized {
    let options: QuantizeOptions = toml::from_str(options).expect("options");
    let batch: IndexMap<Name, Tensor> = feed().into_iter().map(|(name, tensor)| (name.into(), tensor)).collect();
    let samples = Samples::Batches(vec![batch]);
    quantize(model, &options, target, Some(&samples), runtime, known, &mut |_| ()).expect("it is quantized")
}

/// The signal over what was added to it, in decibels.
fn decibels(expected: &[Tensor], got: &[Tensor]) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (a, b) in expected.iter().zip(got) {
        let (a, b) = (support::numbers(a).expect("floats"), support::numbers(b).expect("floats"));
        signal += a.iter().map(|a| a * a).sum::<f64>();
        noise += a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    }
    10.0 * (signal / noise.max(1e-30)).log10()
}

#[test]
fn integers_reach_the_product_of_every_step() {
    let runtimes = support::runtimes();
    let runtime = *runtimes.last().expect("tract at least");
    // With all sizes known onnxruntime joins more operators, which must not be the products.
    let batches = [Dim::from("batch"), Dim::Known(1)];
    for (kind, batch) in KINDS.iter().flat_map(|kind| batches.clone().map(|batch| (*kind, batch))) {
        let model = of_batch(kind, Direction::Bidirectional, Dim::Known(N_STEPS), batch);
        let expected = support::reference(&model.graph, &feed()).expect("it runs");
        let options = "recurrent = 'decompose'\nform = 'qdq'\nkeep_slow = true";
        let made = quantized(&model, runtime, Target::Onnxruntime, options, None);
        // The input's product and one a step but the first, in both directions, and the head.
        let n_products = 2 * N_STEPS + 1;
        assert_eq!(made.report.integer.get("MatMul"), Some(&n_products), "{kind}: {:?}", made.report);
        assert!(
            made.report.notes.iter().any(|note| note.contains("written out step by step: ") && note.contains("layer"))
        );
        let of_weights = made.model.graph.initializers.values().filter(|tensor| tensor.dtype() == DType::I8);
        assert_eq!(of_weights.filter(|tensor| tensor.rank() == 2).count(), 5, "{kind}: W and R stand once a direction");
        for runtime in &runtimes {
            let decibels = decibels(&expected, &run(*runtime, &made.model));
            assert!(decibels > 25.0, "{kind} on {}: {decibels}", runtime.name());
        }
        let Some(ort) = support::onnxruntime() else { continue };
        let runs = Runs { n_warm_up: 1, n_timed: 3 };
        let settings = Settings { runs, check: CheckOptions::default(), options: Options::default() };
        let feeds = [feed()];
        let audit =
            audit::audit(&made.model, &bytes(&made.model), ort, &feeds, &settings, &mut |_| ()).expect("it runs");
        assert_eq!(audit.correctness.verdict, Verdict::Agrees, "{kind}: {:?}", audit.correctness);
        let quantization = audit.execution.quantization.expect("it is quantized");
        let count = quantization.operators.get("MatMul").map(|count| (count.n, count.n_int8));
        assert_eq!(count, Some((n_products, n_products)), "{kind}: {quantization:?}");
    }
}

#[test]
fn operators_on_integers_take_the_steps_too() {
    let runtimes = support::runtimes();
    let runtime = *runtimes.last().expect("tract at least");
    let model = network("GRU", Direction::Forward, Dim::Known(N_STEPS));
    let expected = support::reference(&model.graph, &feed()).expect("it runs");
    let options = "recurrent = 'decompose'\nform = 'qoperator'\nkeep_slow = true";
    let made = quantized(&model, runtime, Target::Any, options, None);
    let n_integer = made.model.graph.nodes.iter().filter(|node| node.op == Op::QLinearMatMul).count();
    assert_eq!(n_integer, N_STEPS + 1, "{:?}", made.report.float);
    for runtime in runtimes {
        let decibels = decibels(&expected, &run(runtime, &made.model));
        assert!(decibels > 25.0, "{}: {decibels}", runtime.name());
    }
}

#[test]
fn steps_that_are_slower_than_the_whole_are_put_back() {
    let Some(ort) = support::onnxruntime() else { return };
    let model = network("GRU", Direction::Forward, Dim::Known(N_STEPS));
    let options = "recurrent = 'decompose'";
    let is_whole = |made: &Quantized| made.model.graph.nodes.iter().any(is_recurrent);
    let made = quantized(&model, ort, Target::Onnxruntime, options, None);
    let found = made.left.as_ref().is_some_and(|left| left.recurrent_whole);
    assert_eq!(is_whole(&made), found, "{:?}", made.report.notes);
    assert!(made.report.notes.iter().any(|note| note.contains("of its time with recurrent operators whole")));
    for recurrent_whole in [false, true] {
        let known = Left { recurrent_whole, ..Left::default() };
        let made = quantized(&model, ort, Target::Onnxruntime, options, Some(&known));
        assert_eq!(is_whole(&made), recurrent_whole, "{:?}", made.report.notes);
    }
}

#[test]
fn of_a_network_of_nothing_else_the_weights_are_narrow_where_steps_are_slower() {
    let Some(ort) = support::onnxruntime() else { return };
    let model = network("GRU", Direction::Forward, Dim::Known(N_STEPS));
    let mut parts = model.graph.to_parts();
    parts.nodes.truncate(1);
    parts.outputs.remove(0);
    parts.initializers.shift_remove("head");
    let model = model.with_graph(Graph::new(parts).expect("a graph"));
    let known = Left { recurrent_whole: true, ..Left::default() };
    let made = quantized(&model, ort, Target::Onnxruntime, "recurrent = 'decompose'", Some(&known));
    assert!(made.report.n_weights == 2 && made.model.graph.nodes.iter().any(is_recurrent), "{:?}", made.report);
}

fn aludel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aludel")).args(arguments).output().expect("the program starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

#[test]
fn the_command_says_what_keeps_an_operator_whole_and_how_to_change_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [open, fixed, out] = ["open.onnx", "fixed.onnx", "out.onnx"].map(|name| folder.path().join(name));
    let model = network("LSTM", Direction::Forward, Dim::from("time"));
    fs::write(&open, onnx::to_bytes(&model).expect("it can be written")).expect("the folder is ours");
    let (open, fixed, out) = (text(&open), text(&fixed), text(&out));
    let refused = aludel(&["quantize", open, "--form", "weights", "--recurrent", "decompose", "-o", out]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && told.contains("`recurrent` is of activations"), "{told}");
    let bound = aludel(&["simplify", open, "--bind", "time=6", "-o", fixed]);
    assert!(bound.status.success(), "{}", String::from_utf8_lossy(&bound.stderr));
    let read = onnx::read(Path::new(fixed)).expect("a network");
    assert_eq!(read.graph.inputs[0].tensor_type().map(ToString::to_string), Some("f32[6, batch, 8]".to_string()));
    let unknown = aludel(&["simplify", open, "--bind", "width=6", "-o", fixed]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no input has a dimension `width`"));
    let declined = &unrolled(&model.graph).declined;
    assert!(declined[0].reason.contains("`aludel simplify --bind time=N`"), "{declined:?}");
    assert_eq!(unrolled(&read.graph).done, ["LSTM `layer`"]);
}
