//! Real files simplified: they compute the same on both runtimes, there is never more of them, and twice is once.

use std::fmt::Write as _;
use std::process::Command;

use aludel::graph::show::show;
use aludel::graph::simplify::{Options, simplify};
use aludel::graph::{Graph, Model};
use aludel::measure::runtime::{ModelBytes, Options as RunOptions};
use aludel::onnx;
use serde_json::Value;

use crate::real::{Real, apart, real_models, run, run_bytes};
use crate::support;

fn name(real: &Real) -> String {
    real.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn n_nodes(graph: &Graph) -> usize {
    graph.nodes.len() + graph.nodes.iter().flat_map(|node| node.op.bodies()).map(n_nodes).sum::<usize>()
}

fn check(real: &Real, model: &Model, options: &Options, table: &mut String, wrong: &mut String) {
    let once = simplify(&model.graph, options).expect("the types of every shared file fit");
    let twice = simplify(&once.graph, options).expect("what was simplified is a network");
    assert_eq!(show(&once.graph), show(&twice.graph), "{}: twice is once", name(real));
    let (before, after) = (n_nodes(&model.graph), n_nodes(&once.graph));
    assert!(after <= before, "{}: {before} nodes, then {after}", name(real));
    let written = onnx::to_bytes_at(&model.with_graph(once.graph), options.opset.unwrap_or(model.opset));
    let written = ModelBytes::new(written.expect("its own opset has all that is left"));
    let _ = write!(table, "{:<30} {before:>3} -> {after:>3} nodes", name(real));
    for runtime in support::runtimes() {
        let run_options = RunOptions::default();
        match (run(runtime, real, &run_options), run_bytes(runtime, real, &written, &run_options)) {
            (Ok(before), Ok(after)) => {
                let change = apart(&before, &after);
                let _ = write!(table, "  {} {change:.0e}", runtime.name());
                if change > 1e-5 {
                    let _ = writeln!(wrong, "{} on {}: {change:e}", name(real), runtime.name());
                }
            }
            (Err(_), _) if !real.tract_refuses.is_empty() => {}
            (before, after) => {
                let _ =
                    writeln!(wrong, "{} on {}: {:?}, then {:?}", name(real), runtime.name(), before.err(), after.err());
            }
        }
    }
    table.push('\n');
}

#[test]
fn simplified_files_compute_the_same_on_both_runtimes() {
    let Some(data) = support::data() else { return };
    let mut table = String::from("greatest change of an output by simplifying, relative to its largest magnitude\n");
    let mut wrong = String::new();
    for real in real_models(&data) {
        let model = onnx::read(&real.path).expect("every shared file is a network");
        let options = Options { opset: Some(model.opset), ..Options::default() };
        check(&real, &model, &options, &mut table, &mut wrong);
    }
    support::say(&table);
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn weights_kept_narrow_and_newer_operators_compute_the_same() {
    let Some(data) = support::data() else { return };
    let (mut table, mut wrong) = (String::new(), String::new());
    for real in real_models(&data).into_iter().filter(|real| name(real) == "model_f16w.onnx") {
        let model = onnx::read(&real.path).expect("MiniLM is a network");
        let options = Options { keep_narrow_weights: true, opset: Some(21), ..Options::default() };
        check(&real, &model, &options, &mut table, &mut wrong);
        let narrow = simplify(&model.graph, &options).expect("MiniLM's types fit").graph;
        let bytes = onnx::to_bytes_at(&model.with_graph(narrow), 21).expect("opset 21 has all of it");
        assert!(bytes.len() < 46_000_000, "{} bytes", bytes.len());
    }
    support::say(&table);
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_program_says_what_it_did() {
    let Some(data) = support::data() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let out = folder.path().join("out.onnx");
    let call = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aludel"));
        command.arg("simplify").arg(data.join("onnx-models/byte_bidi_lstm.onnx")).arg("-o").arg(&out).args(more);
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("the program writes UTF-8")
    };
    let report: Value = serde_json::from_str(&call(&["--json"])).expect("JSON");
    assert_eq!((&report["before"]["nodes"], &report["after"]["nodes"]), (&27.into(), &12.into()));
    assert_eq!(report["opset"], 9);
    assert_eq!(onnx::read(&out).expect("it was written").graph.nodes.len(), 12);
    let text = call(&[]);
    assert!(text.contains("leave out zero state"), "{text}");
    assert!(text.lines().any(|line| line.split_whitespace().eq(["nodes", "27", "12"])), "{text}");
}
