//! The program as a user meets it: what it prints, where, and how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aludel::graph::op::{LayerNormalization, Softmax};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Dim, GraphBuilder, Model, Op, TensorType};
use aludel::onnx;
use serde_json::Value;

use crate::support;

fn aludel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aludel")).args(arguments).output().expect("the program starts")
}

fn stdout(arguments: &[&str]) -> String {
    let output = aludel(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "aludel {}: {stderr}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("the program writes UTF-8")
}

/// Standard error of a call that ends with exit code 2 and writes nothing to standard output.
fn refusal(arguments: &[&str]) -> String {
    let output = aludel(arguments);
    assert_eq!(output.status.code(), Some(2), "aludel {}", arguments.join(" "));
    assert!(output.stdout.is_empty(), "aludel {}", arguments.join(" "));
    String::from_utf8(output.stderr).expect("the program writes UTF-8")
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(arguments)).expect("JSON")
}

/// `[batch, 4]` in, a layer normalization, a product with `[4, 3]`, softmax; at opset 17.
fn small(folder: &Path) -> PathBuf {
    let mut builder = GraphBuilder::new("small");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), Dim::from(4)]));
    let scale = builder.initializer("scale", Tensor::vector(vec![1f32; 4]));
    let x = builder.node(Op::LayerNormalization(LayerNormalization::default()), &[&x, &scale]);
    let weight = builder.initializer("weight", Tensor::new(&[4, 3], vec![0.5f32; 12]).expect("4 by 3"));
    let x = builder.node(Op::MatMul, &[&x, &weight]);
    let y = builder.node(Op::Softmax(Softmax::default()), &[&x]);
    builder.output(&y);
    let model = Model { opset: 17, ir_version: 8, ..Model::new(builder.finish().expect("a graph")) };
    let path = folder.join("small.onnx");
    fs::write(&path, onnx::to_bytes(&model).expect("it can be written")).expect("the folder is ours");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

#[test]
fn a_network_is_shown_as_stable_text() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = small(folder.path());
    let shown = stdout(&["show", text(&path)]);
    insta::assert_snapshot!(shown, @r#"
    graph "small"
      in   %x: f32[batch, 4]
      out  %softmax
      init %scale: f32[4] [1.0, 1.0, 1.0, 1.0]
      init %weight: f32[4, 3] #343f1c61
      %layernormalization = LayerNormalization(%x, %scale)
      %matmul = MatMul(%layernormalization, %weight)
      %softmax = Softmax(%matmul)
    "#);
    assert_eq!(shown, stdout(&["show", text(&path)]));
    let typed = stdout(&["show", text(&path), "--types", "--bind", "batch=2"]);
    assert!(typed.contains("f32[2, 3]"), "{typed}");
}

#[test]
fn inspect_counts_what_is_in_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = small(folder.path());
    let report = json(&["inspect", text(&path), "--bind", "batch=5", "--json"]);
    assert_eq!(report["cost"]["total"]["parameters"], 4 + 12);
    assert_eq!(report["cost"]["total"]["macs"], 5 * 4 * 3);
    assert_eq!(report["outputs"][0]["inferred"], "f32[5, 3]");
    let table = stdout(&["inspect", text(&path), "--layers"]);
    for part in ["opset 17", "input   x        f32[batch, 4]  ->  f32[1, 4]", "parameters", "MatMul", "matmul"] {
        assert!(table.contains(part), "`{part}` is not in\n{table}");
    }
}

#[test]
fn dimensions_without_a_name_are_bound_by_input_and_axis() {
    let Some(data) = support::data() else { return };
    let path = data.join("onnx-models/qtdnn_qlinearconv.onnx");
    let report = json(&["inspect", text(&path), "--bind", "input#0=24", "--json"]);
    assert_eq!(report["inputs"][0]["inferred"], "f32[24, 10]");
    assert!(report["cost"]["total"]["macs"].as_u64() > Some(0), "{}", report["cost"]["total"]);
}

#[test]
fn minilm_s_parameters_are_those_of_its_tensors() {
    let Some(data) = support::data() else { return };
    let path = data.join("minilm-l6/model_f16w.onnx");
    let report = json(&["inspect", text(&path), "--bind", "seq=128", "--json"]);
    // 22,713,216 as published less the pooler (384 · 384 + 384), which the file does not have, and 7 numbers of formulas.
    assert_eq!(report["cost"]["total"]["parameters"], 22_713_216 - (384 * 384 + 384) + 7);
}

#[test]
fn files_are_converted_or_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = small(folder.path());
    let older = folder.path().join("older.onnx");
    let report = json(&["convert", text(&path), "--opset", "13", "-o", text(&older), "--json"]);
    assert_eq!((&report["opset_read"], &report["opset_written"]), (&Value::from(17), &Value::from(13)));
    assert!(!stdout(&["show", text(&older)]).contains("LayerNormalization"));
    let compared = json(&["compare", text(&path), text(&older), "--runtime", "tract", "--json"]);
    let apart = compared["rows"][0]["max_absolute"].as_f64().expect("a number");
    assert!(apart < 1e-6, "{apart}");

    let nowhere = folder.path().join("nowhere.onnx");
    let said = refusal(&["convert", text(&path), "--opset", "99", "-o", text(&nowhere)]);
    assert!(said.contains("operator set 99 cannot be written: choose one from 7 to 28"), "{said}");
    assert!(!nowhere.exists());
}

#[test]
fn errors_name_the_file_and_the_remedy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let missing = folder.path().join("missing.onnx");
    assert!(refusal(&["inspect", text(&missing)]).contains("missing.onnx"));
    let damaged = folder.path().join("damaged.onnx");
    fs::write(&damaged, b"no network at all").expect("the folder is ours");
    let said = refusal(&["inspect", text(&damaged)]);
    assert!(said.contains("damaged.onnx") && said.contains("hint: "), "{said}");
    let said = refusal(&["inspect", text(&small(folder.path())), "--bind", "batsch=2"]);
    assert!(said.contains("no input has a dimension `batsch`; the symbols are: batch"), "{said}");
    let said = refusal(&["bench", text(&damaged), "--runtime", "nobody"]);
    assert!(said.contains("there are tract and ort"), "{said}");
    let library = folder.path().join("libonnxruntime.so");
    let said = refusal(&["bench", text(&damaged), "--runtime", "ort", "--library", text(&library)]);
    assert!(said.contains("libonnxruntime.so") && said.contains("hint: "), "{said}");
}

#[test]
fn bench_measures_time_and_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = small(folder.path());
    let report = json(&[
        "bench",
        text(&path),
        "--runtime",
        "tract",
        "--threads",
        "1,2",
        "--seconds",
        "0.5",
        "--warm-up",
        "30",
        "--json",
    ]);
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        let latency = &row["latency"];
        let [min, median, p90, p99] = ["min_us", "median_us", "p90_us", "p99_us"].map(|key| latency[key].as_f64());
        assert!(min.is_some() && min <= median && median <= p90 && p90 <= p99, "{latency}");
        assert_eq!(latency["n_warm_up"], 30);
        if cfg!(target_os = "linux") {
            assert!(row["memory"]["rss_peak_bytes"].as_u64() > Some(1 << 20), "{row}");
        }
    }
    assert!(rows[1]["latency"]["ratio_to_first"]["estimate"].is_number());
}

#[test]
fn what_a_runtime_makes_of_a_model_can_be_seen() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = small(folder.path());
    let dumps = folder.path().join("dumps");
    let quick = ["--seconds", "0.2", "--no-memory"];
    stdout(&[&["bench", text(&path), "--runtime", "tract", "--dump-optimized", text(&dumps)], &quick[..]].concat());
    let listing = fs::read_to_string(dumps.join("00-small-tract-1.txt")).expect("tract's listing");
    assert!(listing.contains("softmax"), "{listing}");
}

#[test]
fn compare_takes_arrays_row_by_row() {
    let Some(data) = support::data() else { return };
    let model = data.join("onnx-models/qtdnn_qlinearconv.onnx");
    let inputs = data.join("onnx-models/qtdnn_qlinearconv_io.npz");
    let report =
        json(&["compare", text(&model), text(&model), "--inputs", text(&inputs), "--runtime", "tract", "--json"]);
    assert_eq!(report["n_runs"], 1);
    assert_eq!(report["rows"][0]["n_different"], 0);
}

#[test]
fn every_command_explains_itself() {
    let help = stdout(&["--help"]);
    for command in [
        "demo",
        "run",
        "train",
        "inspect",
        "show",
        "convert",
        "bench",
        "compare",
        "audit",
        "targets",
        "runtime",
        "completions",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in\n{help}");
        let own = stdout(&[command, "--help"]);
        assert!(own.lines().next().is_some_and(|line| line.len() > 20), "{own}");
    }
    assert!(!help.contains("__child"), "{help}");
    assert!(stdout(&["completions", "bash"]).contains("complete -F _aludel"));
    assert!(stdout(&["runtime", "status"]).starts_with("tract "));
    assert_eq!(stdout(&["--version"]).trim(), format!("aludel {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_demo_runs_on_what_is_built_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("demo");
    let shown = stdout(&["demo", "-o", output.to_str().expect("UTF-8"), "--runtime", "tract"]);
    for part in ["teacher", "small.1-distill", "training", "tract", "of its teacher's parameters"] {
        assert!(shown.contains(part), "`{part}` is not in\n{shown}");
    }
    assert!(output.join("small.1-distill.onnx").exists() && output.join("ledger.jsonl").exists());
}
