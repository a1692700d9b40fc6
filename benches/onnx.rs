//! Reading, writing and understanding a real file (MiniLM, 45 MB) against copying its bytes, and, where
//! `ALUDEL_PEER_PYTHON` names a Python with the package onnx, against `onnx.load` and `onnx.shape_inference`.

#![allow(clippy::print_stdout)] // figures are what a bench is for

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use aludel::graph::shape::{self, Bindings};
use aludel::onnx::{self, WriteOptions};
use bytes::Bytes;

fn main() {
    let Some(data) = support::data() else { return };
    support::print_machine();
    let path = data.join("minilm-l6/model_f16w.onnx");
    let bytes = Bytes::from(fs::read(&path).expect("MiniLM can be read"));
    let model = onnx::read_bytes(bytes.clone(), None).expect("MiniLM is a network");
    let bindings = Bindings::of([("batch", 1), ("seq", 128)]);

    let copy = || bytes.to_vec();
    support::against("read MiniLM from memory", || onnx::read_bytes(bytes.clone(), None), "copy its bytes", copy);
    let read_file = || fs::read(&path);
    support::against("read MiniLM from its file", || onnx::read(&path), "read the file's bytes", read_file);
    support::against("write MiniLM to memory", || onnx::to_bytes(&model), "copy its bytes", copy);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ours, plain) = (folder.path().join("ours.onnx"), folder.path().join("plain.onnx"));
    let write_plainly = || {
        let mut file = fs::File::create(&plain).expect("the folder is ours");
        file.write_all(&bytes).and_then(|()| file.sync_all()).expect("there is space");
    };
    let write_file = || onnx::write(&model, &ours, &WriteOptions::default());
    support::against("write MiniLM to a file, flushed", write_file, "write its bytes, flushed", write_plainly);
    let infer = || shape::infer(&model.graph, &bindings);
    support::against("infer MiniLM's shapes", infer, "copy its bytes", copy);

    if let Some(python) = std::env::var_os("ALUDEL_PEER_PYTHON") {
        peers(Path::new(&python), &path, &bindings);
    } else {
        println!("left out: ALUDEL_PEER_PYTHON does not name a Python with the package onnx");
    }
}

/// Runs the peer's script and our own work in turns.
fn peers(python: &Path, model_path: &Path, bindings: &Bindings) {
    const ROUNDS: usize = 5;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/onnx_load.py");
    let mut times: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let model = onnx::read(model_path).expect("MiniLM is a network");
        let load_ms = start.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        shape::infer(&model.graph, bindings).expect("MiniLM's shapes fit together");
        let infer_ms = start.elapsed().as_secs_f64() * 1e3;

        let output = Command::new(python).arg(&script).arg(model_path).output().expect("the peer's script runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        let mut theirs = text.split_whitespace().map(|number| number.parse::<f64>().expect("milliseconds"));
        times.entry("onnx.load").or_default().push((load_ms, theirs.next().expect("load time")));
        times
            .entry("onnx.shape_inference.infer_shapes")
            .or_default()
            .push((infer_ms, theirs.next().expect("inference time")));
    }
    for (name, pairs) in times {
        let mut ratios: Vec<f64> = pairs.iter().map(|(ours, theirs)| theirs / ours).collect();
        ratios.sort_by(f64::total_cmp);
        let (ours, theirs) = pairs[ROUNDS / 2];
        println!(
            "{name}: ours {ours:.2} ms, theirs {theirs:.2} ms; {:.1} times quicker [{:.1}, {:.1}] ({ROUNDS} pairs in turns)",
            ratios[ROUNDS / 2],
            ratios[0],
            ratios[ROUNDS - 1]
        );
    }
}
