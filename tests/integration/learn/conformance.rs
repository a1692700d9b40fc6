//! ONNX's own node tests, run as a network that learns is run: lowered to primitives and computed on candle's tensors.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Graph, Name, Op, ValueInfo, eval};
use aludel::learn::exec::{Mode, Request, run};
use aludel::onnx;
use bytes::Bytes;
use indexmap::IndexMap;

use super::{cast, numbers};
use crate::conformance::{Case, cases};
use crate::support::{data, say};

/// As ONNX's own test runner has them.
const RELATIVE_TOLERANCE: f64 = 1e-3;
const ABSOLUTE_TOLERANCE: f64 = 1e-7;

/// The tensors of these files, of the types that the graph declares: ONNX's files hold bf16 as u16.
fn tensors(files: &BTreeMap<usize, Bytes>, infos: &[ValueInfo]) -> Option<Vec<Tensor>> {
    let tensor = |(idx, bytes): (usize, &Bytes)| {
        let tensor = onnx::read_tensor(bytes.clone()).ok()?;
        let declared = infos.get(idx).and_then(ValueInfo::tensor_type).map(|declared| declared.dtype);
        match (declared, tensor.dtype(), tensor.bytes()) {
            (Some(DType::BF16), DType::U16, Some(bits)) => {
                Tensor::from_bytes(DType::BF16, tensor.shape(), bits.clone()).ok()
            }
            _ => Some(tensor),
        }
    };
    files.values().enumerate().map(tensor).collect()
}

/// How a case went.
enum Outcome {
    Primitives,
    Reference,
    LeftOut(&'static str),
    Wrong(String),
}

fn outcome(case: &Case) -> Outcome {
    let Ok(model) = onnx::read_bytes(case.model.clone(), None) else {
        return Outcome::LeftOut("aludel does not read it");
    };
    let graph = model.graph;
    if graph.nodes.iter().any(|node| matches!(node.op, Op::Opaque(_))) {
        return Outcome::LeftOut("it has an operator that aludel does not know");
    }
    let (inputs, outputs) = (tensors(&case.inputs, &graph.inputs), tensors(&case.outputs, &graph.outputs));
    let Some((inputs, expected)) = inputs.zip(outputs) else {
        return Outcome::LeftOut("its inputs or outputs are no tensors");
    };
    if !expected.iter().any(|tensor| tensor.dtype().is_float()) {
        return Outcome::LeftOut("no output is floating-point");
    }
    let named: IndexMap<Name, Tensor> =
        graph.inputs.iter().map(|input| input.name.clone()).zip(inputs.iter().cloned()).collect();
    let is_right = |values: IndexMap<Name, Tensor>| agree(&expected, &values.into_values().collect::<Vec<_>>());
    if !eval::run(&graph, &named).is_ok_and(|values| is_right(values).is_ok()) {
        return Outcome::LeftOut("the reference interpreter computes something else, too");
    }
    let (graph, named) = match with_constants(&graph, &named) {
        Ok(both) => both,
        Err(problem) => return Outcome::Wrong(problem),
    };
    let shapes = named.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect();
    let request = Request {
        shapes,
        mode: Mode::Inference,
        outputs: graph.outputs.iter().map(|output| output.name.clone()).collect(),
        loss: None,
        trainable: Default::default(),
        variable: Default::default(),
    };
    match run(&graph, &named, &request) {
        Err(error) => Outcome::Wrong(error.to_string()),
        Ok(run) => {
            let has_reference = !run.by_reference.is_empty();
            match is_right(run.outputs) {
                Err(problem) => Outcome::Wrong(problem),
                Ok(()) if has_reference => Outcome::Reference,
                Ok(()) => Outcome::Primitives,
            }
        }
    }
}

/// The graph with what is not floating-point as constants: shapes, axes and indices, on which shapes depend.
fn with_constants(graph: &Graph, inputs: &IndexMap<Name, Tensor>) -> Result<(Graph, IndexMap<Name, Tensor>), String> {
    let mut parts = graph.to_parts();
    let is_given = |name: &Name| {
        let is_shape = graph.nodes.iter().any(|node| matches!(node.op, Op::Resize(_)) && node.input(0) != Some(name));
        inputs.get(name).is_some_and(|tensor| tensor.dtype().is_float()) && !is_shape
    };
    let (given, constants): (Vec<ValueInfo>, Vec<ValueInfo>) =
        parts.inputs.into_iter().partition(|info| is_given(&info.name));
    for info in constants {
        if let Some(tensor) = inputs.get(&info.name) {
            parts.initializers.insert(info.name, tensor.clone());
        }
    }
    let named = given.iter().map(|info| (info.name.clone(), inputs[&info.name].clone())).collect();
    parts.inputs = given;
    Ok((Graph::new(parts).map_err(|error| error.to_string())?, named))
}

fn agree(expected: &[Tensor], got: &[Tensor]) -> Result<(), String> {
    for (idx, expected) in expected.iter().enumerate() {
        let got = got.get(idx).ok_or_else(|| format!("output {idx} is missing"))?;
        if expected.shape() != got.shape() {
            return Err(format!("output {idx}: expected shape {:?}, got {:?}", expected.shape(), got.shape()));
        }
        let got = cast(got, expected.dtype());
        let Some((expected, got)) = numbers(expected).zip(numbers(&got)) else {
            if *expected == got {
                continue;
            }
            return Err(format!("output {idx} differs"));
        };
        let is_apart = |&(_, (a, b)): &(usize, (&f64, &f64))| {
            let same = a == b || (a.is_nan() && b.is_nan());
            !(same || (a - b).abs() <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * a.abs())
        };
        if let Some((at, (a, b))) = expected.iter().zip(&got).enumerate().find(is_apart) {
            return Err(format!("output {idx}, element {at}: expected {a}, got {b}"));
        }
    }
    Ok(())
}

#[test]
fn onnx_node_tests_pass_as_primitives() {
    let Some(data) = data() else { return };
    let (mut n_primitives, mut n_reference) = (0, 0);
    let mut left_out: BTreeMap<&str, usize> = BTreeMap::new();
    let mut by_reference = Vec::new();
    let mut wrong = String::new();
    let cases = cases(&data.join("onnx-node-tests/node-tests.tar.gz"));
    for (name, case) in &cases {
        match outcome(case) {
            Outcome::Primitives => n_primitives += 1,
            Outcome::Reference => {
                n_reference += 1;
                by_reference.push(name.trim_start_matches("test_"));
            }
            Outcome::LeftOut(reason) => *left_out.entry(reason).or_default() += 1,
            Outcome::Wrong(problem) => {
                let _ = writeln!(wrong, "{name} | {}", problem.chars().take(200).collect::<String>());
            }
        }
    }
    say(&format!("node tests by primitives {n_primitives}, through the reference {n_reference}: {by_reference:?}\n"));
    left_out.iter().for_each(|(reason, n)| say(&format!("left out {n}: {reason}\n")));
    assert!(wrong.is_empty(), "\n{wrong}");
}
