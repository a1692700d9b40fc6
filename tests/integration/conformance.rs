//! ONNX's own node tests: every case is read, written, read back equal, and computed by the reference and, from the
//! written bytes, by both runtimes. What does not pass stands in `conformance_exclusions.txt` with its reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Graph, Model, ValueInfo, eval};
use aludel::measure::runtime::{ModelBytes, Options, Runtime};
use aludel::onnx;
use bytes::Bytes;
use indexmap::IndexMap;

use crate::{round_trip, support};

/// As ONNX's own test runner has them.
const RELATIVE_TOLERANCE: f64 = 1e-3;
const ABSOLUTE_TOLERANCE: f64 = 1e-7;

const WRITTEN_BACK: &str = "read, written, read";
const REFERENCE: &str = "reference";

/// A node test: a model, and the files of its inputs and outputs by position.
#[derive(Default)]
pub(crate) struct Case {
    pub(crate) model: Bytes,
    pub(crate) inputs: BTreeMap<usize, Bytes>,
    pub(crate) outputs: BTreeMap<usize, Bytes>,
}

/// The node tests in an archive, by name.
pub(crate) fn cases(archive: &Path) -> BTreeMap<String, Case> {
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    let file = File::open(archive).expect("the archive of node tests is there");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in archive.entries().expect("a tar archive") {
        let mut entry = entry.expect("a whole tar archive");
        let path = entry.path().expect("a path").to_string_lossy().into_owned();
        let Some((name, file)) = path.trim_start_matches("./").split_once('/') else { continue };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("a whole tar archive");
        let case = cases.entry(name.to_string()).or_default();
        let number = |prefix: &str| file.strip_prefix(prefix)?.strip_suffix(".pb")?.parse().ok();
        if file == "model.onnx" {
            case.model = bytes.into();
        } else if let Some(number) = number("test_data_set_0/input_") {
            case.inputs.insert(number, bytes.into());
        } else if let Some(number) = number("test_data_set_0/output_") {
            case.outputs.insert(number, bytes.into());
        }
    }
    cases.retain(|_, case| !case.model.is_empty());
    cases
}

/// (who, case) -> reason; `*` at the end of a case stands for any ending.
fn exclusions() -> Vec<(String, String, String)> {
    let lines = include_str!("conformance_exclusions.txt").lines();
    lines
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut fields = line.splitn(3, '|').map(|field| field.trim().to_string());
            let mut next = || fields.next().expect("who | case | reason");
            (next(), next(), next())
        })
        .collect()
}

/// The tensors of these files, of the types that the graph declares: ONNX's files hold bf16 as u16.
fn tensors(files: &BTreeMap<usize, Bytes>, infos: &[ValueInfo]) -> Result<Vec<Tensor>, String> {
    let tensor = |(idx, bytes): (usize, &Bytes)| {
        let tensor = onnx::read_tensor(bytes.clone()).map_err(|error| error.to_string())?;
        let declared = infos.get(idx).and_then(ValueInfo::tensor_type).map(|declared| declared.dtype);
        match (declared, tensor.dtype(), tensor.bytes()) {
            (Some(DType::BF16), DType::U16, Some(bits)) => {
                Tensor::from_bytes(DType::BF16, tensor.shape(), bits.clone()).map_err(|error| error.to_string())
            }
            _ => Ok(tensor),
        }
    };
    files.values().enumerate().map(tensor).collect()
}

/// The graph with every input but the first as a constant, which is what tract wants shapes, axes and scales to be.
fn with_constants(model: &Model, inputs: &[Tensor]) -> Result<(Graph, Bytes), String> {
    let mut parts = model.graph.to_parts();
    let constants = parts.inputs.split_off(1.min(parts.inputs.len()));
    parts.initializers.extend(constants.into_iter().map(|info| info.name).zip(inputs.iter().skip(1).cloned()));
    let graph = Graph::new(parts).map_err(|error| error.to_string())?;
    let bytes = onnx::to_bytes(&model.with_graph(graph.clone())).map_err(|error| error.to_string())?;
    Ok((graph, bytes))
}

fn named_inputs(graph: &Graph, inputs: &[Tensor]) -> IndexMap<aludel::graph::Name, Tensor> {
    graph.inputs.iter().map(|input| input.name.clone()).zip(inputs.iter().cloned()).collect()
}

fn agree(expected: &[Tensor], got: &[Tensor]) -> Result<(), String> {
    for (idx, expected) in expected.iter().enumerate() {
        let got = got.get(idx).ok_or_else(|| format!("output {idx} is missing"))?;
        support::close(expected, got, RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE)
            .map_err(|problem| format!("output {idx}: {problem}"))?;
    }
    Ok(())
}

fn on_runtime(
    runtime: &dyn Runtime,
    model: &Bytes,
    graph: &Graph,
    inputs: &[Tensor],
    expected: &[Tensor],
) -> Result<(), String> {
    let model = ModelBytes::new(model.clone());
    let mut session = runtime.load(&model, &Options::default()).map_err(|error| error.to_string())?;
    let inputs: Vec<(String, Tensor)> =
        named_inputs(graph, inputs).into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
    let outputs = session.run(&inputs).map_err(|error| error.to_string())?;
    agree(expected, &outputs.into_iter().map(|(_, tensor)| tensor).collect::<Vec<_>>())
}

fn written_back(case: &Case) -> Result<(Model, Bytes), String> {
    let model = onnx::read_bytes(case.model.clone(), None).map_err(|error| error.to_string())?;
    let written = round_trip::written_back(&model)?;
    Ok((model, written))
}

#[test]
fn onnx_node_tests_pass() {
    let Some(data) = support::data() else { return };
    let cases = cases(&data.join("onnx-node-tests/node-tests.tar.gz"));
    assert_eq!(cases.len(), 530, "the archive holds every case");
    let runtimes = support::runtimes();
    let exclusions = exclusions();
    let mut passed: BTreeMap<String, usize> = BTreeMap::new();
    let mut excluded: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = String::new();
    for (name, case) in &cases {
        let mut note = |who: &str, result: Result<(), String>| {
            let exclusion = exclusions.iter().find(|(whose, pattern, _)| {
                whose == who && pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
            });
            match (result, exclusion) {
                (Ok(()), None) => *passed.entry(who.to_string()).or_default() += 1,
                (Err(_), Some(_)) => *excluded.entry(who.to_string()).or_default() += 1,
                (Err(problem), None) => {
                    let problem: String = problem.chars().take(300).collect();
                    let _ = writeln!(wrong, "{who} | {name} | {problem}");
                }
                (Ok(()), Some(_)) => {
                    let _ = writeln!(wrong, "{who} | {name} | passes, but is excluded");
                }
            }
        };
        let (model, written) = match written_back(case) {
            Ok(both) => both,
            Err(problem) => {
                note(WRITTEN_BACK, Err(problem));
                continue;
            }
        };
        note(WRITTEN_BACK, Ok(()));
        let graph = &model.graph;
        let (inputs, outputs) = match (tensors(&case.inputs, &graph.inputs), tensors(&case.outputs, &graph.outputs)) {
            (Ok(inputs), Ok(outputs)) => (inputs, outputs),
            (Err(problem), _) | (_, Err(problem)) => {
                note(REFERENCE, Err(problem.clone()));
                for runtime in &runtimes {
                    note(runtime.name(), Err(problem.clone()));
                }
                continue;
            }
        };
        let reference = eval::run(graph, &named_inputs(graph, &inputs))
            .map_err(|error| error.to_string())
            .and_then(|values| agree(&outputs, &values.into_values().collect::<Vec<_>>()));
        note(REFERENCE, reference);
        for runtime in &runtimes {
            let as_it_is = on_runtime(*runtime, &written, graph, &inputs, &outputs);
            let result = as_it_is.or_else(|problem| {
                let (graph, written) = with_constants(&model, &inputs)?;
                on_runtime(*runtime, &written, &graph, &inputs, &outputs).map_err(|_| problem)
            });
            note(runtime.name(), result);
        }
    }
    let mut table = String::from("ONNX node tests                passed  excluded\n");
    for (who, n) in &passed {
        let _ = writeln!(table, "{who:<30} {n:>6}  {:>8}", excluded.get(who).unwrap_or(&0));
    }
    support::say(&table);
    assert!(wrong.is_empty(), "\n{wrong}");
}
