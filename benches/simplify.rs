//! `aludel simplify` on every shared model: its whole process against onnxslim's and onnxsim's where `ALUDEL_PEER_PYTHON`
//! names a Python with those packages; what each leaves (nodes, bytes), and how quickly that runs on both runtimes.
//!
//! The rows are written as JSON to the file that `ALUDEL_BENCH_JSON` names.

#![allow(clippy::print_stdout)] // figures are what a bench is for

#[allow(dead_code)] // whole processes are timed here, not functions
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use aludel::graph::tensor::Tensor;
use aludel::measure::inputs::{self, Bindings};
use aludel::measure::latency::{self, Contender};
use aludel::measure::machine::Machine;
use aludel::measure::runtime::ort::Onnxruntime;
use aludel::measure::runtime::tract::Tract;
use aludel::measure::runtime::{ModelBytes, Options, Runtime, RuntimeError, library};
use aludel::onnx;
use serde_json::{Value, json};

const PEERS: [&str; 2] = ["onnxslim", "onnxsim"];

/// Whole processes are timed this often, in turns.
const ROUNDS: usize = 7;

fn main() {
    let Some(data) = support::data() else { return };
    support::print_machine();
    let python = std::env::var_os("ALUDEL_PEER_PYTHON").map(PathBuf::from);
    if python.is_none() {
        println!("left out: ALUDEL_PEER_PYTHON does not name a Python with onnxslim and onnxsim");
    }
    let place = library::search(None).places.into_iter().find(|place| place.found);
    let ort = place.and_then(|place| Onnxruntime::open(Some(&place.path)).ok());
    let runtimes: Vec<&dyn Runtime> =
        ort.iter().map(|ort| ort as &dyn Runtime).chain([&Tract as &dyn Runtime]).collect();
    let rows: Vec<Value> = models(&data).iter().map(|path| row(path, python.as_deref(), &runtimes)).collect();
    if let Some(path) = std::env::var_os("ALUDEL_BENCH_JSON") {
        let report = json!({"aludel": env!("CARGO_PKG_VERSION"), "machine": Machine::this(), "rows": rows});
        let text = serde_json::to_string_pretty(&report).expect("numbers and text");
        fs::write(path, text + "\n").expect("ALUDEL_BENCH_JSON can be written");
    }
}

fn models(data: &Path) -> Vec<PathBuf> {
    let folder = fs::read_dir(data.join("onnx-models")).expect("the folder is there");
    let files = folder.map(|entry| entry.expect("readable").path());
    let mut paths: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    paths.sort();
    paths.push(data.join("minilm-l6/model_f16w.onnx"));
    paths
}

fn row(path: &Path, python: Option<&Path>, runtimes: &[&dyn Runtime]) -> Value {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    println!("{name}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = |tool: &str| folder.path().join(format!("{tool}.onnx"));
    let mut tools: Vec<(&str, Vec<f64>, Vec<f64>)> = vec![("aludel", Vec::new(), Vec::new())];
    tools.extend(PEERS.iter().filter(|_| python.is_some()).map(|peer| (*peer, Vec::new(), Vec::new())));
    for _ in 0..ROUNDS {
        for (tool, whole_ms, bare_ms) in &mut tools {
            let mut command = match (*tool, python) {
                ("aludel", _) | (_, None) => {
                    let mut command = Command::new(env!("CARGO_BIN_EXE_aludel"));
                    command.arg("simplify").arg(path).arg("-o").arg(out(tool));
                    command
                }
                (_, Some(python)) => {
                    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/simplify.py");
                    let mut command = Command::new(python);
                    command.arg(script).arg(*tool).arg(path).arg(out(tool));
                    command
                }
            };
            let start = Instant::now();
            let output = command.output().expect("the program starts");
            let elapsed_ms = start.elapsed().as_secs_f64() * 1e3;
            if output.status.success() {
                whole_ms.push(elapsed_ms);
                let printed = String::from_utf8_lossy(&output.stdout);
                let last: Option<f64> = printed.lines().last().and_then(|line| line.parse().ok());
                bare_ms.extend(last);
            }
        }
    }
    let files: Vec<(&str, PathBuf)> = [("original", path.to_owned())]
        .into_iter()
        .chain(tools.iter().filter(|(_, whole_ms, _)| !whole_ms.is_empty()).map(|(tool, ..)| (*tool, out(tool))))
        .collect();
    let latencies: Vec<(String, Vec<Value>)> =
        runtimes.iter().map(|runtime| (runtime.name().to_string(), timed(*runtime, &files))).collect();
    let mut results = Vec::new();
    for (idx, (tool, file)) in files.iter().enumerate() {
        let bytes = fs::metadata(file).expect("it was written").len();
        let nodes = onnx::read(file).map(|model| model.graph.nodes.len()).ok();
        let times = tools.iter().find(|(name, ..)| name == tool);
        let whole_ms = times.and_then(|(_, whole_ms, _)| middle(whole_ms));
        let bare_ms = times.and_then(|(.., bare_ms)| middle(bare_ms));
        let latency: serde_json::Map<String, Value> =
            latencies.iter().map(|(runtime, rows)| (runtime.clone(), rows[idx].clone())).collect();
        let shown: Vec<String> = latency.iter().map(|(runtime, row)| format!("{runtime} {}", shown(row))).collect();
        println!(
            "  {tool:<9} {:>4} nodes {bytes:>9} bytes  whole process {} ms, simplifying {} ms  {}",
            nodes.map_or_else(|| "?".to_string(), |n| n.to_string()),
            whole_ms.map_or_else(|| "–".to_string(), |ms| format!("{ms:.1}")),
            bare_ms.map_or_else(|| "–".to_string(), |ms| format!("{ms:.1}")),
            shown.join("  "),
        );
        results.push(json!({
            "tool": tool, "nodes": nodes, "bytes": bytes, "whole_process_ms": whole_ms, "simplify_ms": bare_ms,
            "latency": latency,
        }));
    }
    json!({"model": name, "results": results})
}

fn shown(row: &Value) -> String {
    match (row["median_us"].as_f64(), row["refused"].as_str()) {
        (Some(median), _) => {
            format!("{median:.1} µs (× {:.3})", row["ratio_to_first"]["estimate"].as_f64().unwrap_or(1.0))
        }
        (None, refused) => format!("refused: {}", refused.unwrap_or_default().chars().take(60).collect::<String>()),
    }
}

fn middle(times: &[f64]) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Every file on one runtime, one thread, in turns.
fn timed(runtime: &dyn Runtime, files: &[(&str, PathBuf)]) -> Vec<Value> {
    let mut rows = vec![Value::Null; files.len()];
    let mut contenders: Vec<Contender<'_, RuntimeError>> = Vec::new();
    for (idx, (_, path)) in files.iter().enumerate() {
        let model = ModelBytes::new(fs::read(path).expect("it was written")).at(path);
        match runtime.load(&model, &Options::default()) {
            Ok(mut session) => {
                let given = feed(session.inputs());
                let run = move || session.run(&given).map(drop);
                contenders.push(Contender { label: idx.to_string(), run: Box::new(run) });
            }
            Err(error) => rows[idx] = json!({"refused": error.to_string()}),
        }
    }
    let options = latency::Options { budget: Duration::from_secs(8), ..latency::Options::default() };
    match latency::interleaved(&mut contenders, &options, &mut |_| ()) {
        Ok(latencies) => {
            for latency in latencies {
                let idx: usize = latency.label.parse().expect("labels are positions");
                rows[idx] = json!({
                    "median_us": latency.median_us, "interval_us": latency.interval_us,
                    "ratio_to_first": latency.ratio_to_first, "n": latency.n,
                });
            }
        }
        Err(error) => {
            rows.iter_mut().filter(|row| row.is_null()).for_each(|row| *row = json!({"refused": error.to_string()}));
        }
    }
    rows
}

/// Inputs of the sizes that the shared models are measured with.
fn feed(infos: &[aludel::measure::runtime::ValueInfo]) -> Vec<(String, Tensor)> {
    let sizes = [("batch", 1), ("seq", 64), ("length", 20), ("sequence", 576), ("input#0", 24)];
    let open = inputs::open_dimensions(infos);
    let sizes = sizes.iter().filter(|(name, _)| open.iter().any(|key| key == name));
    let sizes: Bindings = sizes.map(|&(name, size)| (name.to_string(), size)).collect();
    let mut given = inputs::random(infos, &sizes, 7).expect("every input is declared");
    for (name, tensor) in &mut given {
        if name == "sr" {
            *tensor = Tensor::scalar(16_000i64);
        }
    }
    given
}
