//! The runtimes and what is measured through them, on real models and on small ones written here.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aludel::graph::tensor::{DType, Tensor};
use aludel::measure::child::{self, Request, RuntimeName};
use aludel::measure::difference::{Difference, difference};
use aludel::measure::inputs::{self, Bindings, SplitMix64};
use aludel::measure::latency::{self, Contender};
use aludel::measure::runtime::tract::Tract;
use aludel::measure::runtime::{Dim, ModelBytes, Optimization, Options, Runtime, RuntimeError, Session, library};

use crate::support;

/// The real models, with numbers for their symbolic dimensions.
fn real_models(data: &Path) -> Vec<(PathBuf, Bindings)> {
    let folder = fs::read_dir(data.join("onnx-models")).expect("the folder is there");
    let files = folder.map(|entry| entry.expect("readable").path());
    let mut models: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    models.push(data.join("minilm-l6/model_f16w.onnx"));
    models.sort();
    let bound = |path: PathBuf| {
        let text = Bindings::from([("batch".to_owned(), 2), ("seq".to_owned(), 16)]);
        let bindings = if path.ends_with("model_f16w.onnx") { text } else { Bindings::new() };
        (path, bindings)
    };
    models.into_iter().map(bound).collect()
}

#[test]
fn probe() {
    let Some(data) = support::data() else { return };
    let ort = support::onnxruntime();
    eprintln!("{} {} / {}", ort.name(), ort.version(), ort.library().display());
    for (path, bindings) in real_models(&data) {
        eprintln!("== {}", path.display());
        let model = ModelBytes::new(fs::read(&path).expect("readable")).at(&path);
        let mut all = Vec::new();
        for runtime in [&Tract as &dyn Runtime, ort] {
            let mut session = match runtime.load(&model, &Options::default()) {
                Ok(s) => s,
                Err(e) => {
                    eprintln!("{e}");
                    continue;
                }
            };
            for i in session.inputs() {
                eprint!("{i}; ");
            }
            eprint!(" -> ");
            for i in session.outputs() {
                eprint!("{i}; ");
            }
            eprintln!();
            let given = inputs::random(session.inputs(), &bindings, 7);
            let given = match given {
                Ok(g) => g,
                Err(e) => {
                    eprintln!("{e}");
                    continue;
                }
            };
            match session.run(&given) {
                Ok(o) => all.push(o),
                Err(e) => eprintln!("{e}"),
            }
        }
        if let [a, b] = &all[..] {
            for (x, y) in a.iter().zip(b) {
                eprintln!("{} {:?}", x.0, difference(&y.1, &x.1));
            }
        }
    }
}
