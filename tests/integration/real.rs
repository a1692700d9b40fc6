//! The real models that tests run, and what each must be told.

use std::fs;
use std::path::{Path, PathBuf};

use aludel::graph::tensor::Tensor;
use aludel::measure::difference::difference;
use aludel::measure::inputs::{self, Bindings};
use aludel::measure::runtime::{ModelBytes, Options, Runtime, RuntimeError, ValueInfo};

/// A real model, and what it must be told to run.
pub(crate) struct Real {
    pub(crate) path: PathBuf,
    pub(crate) bindings: Bindings,
    /// Inputs that random numbers would send astray.
    pub(crate) fixed: Vec<(String, Tensor)>,
    /// Why tract refuses it, in its own words; empty where it does not.
    pub(crate) tract_refuses: &'static str,
}

pub(crate) fn real_models(data: &Path) -> Vec<Real> {
    let folder = fs::read_dir(data.join("onnx-models")).expect("the folder is there");
    let files = folder.map(|entry| entry.expect("readable").path());
    let mut paths: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "onnx")).collect();
    paths.push(data.join("minilm-l6/model_f16w.onnx"));
    paths.sort();
    let real = |path: PathBuf| {
        let mut real = Real { path, bindings: Bindings::new(), fixed: Vec::new(), tract_refuses: "" };
        match real.path.file_name().and_then(|name| name.to_str()).expect("the names are ASCII") {
            "model_f16w.onnx" => real.bindings = bindings(&[("batch", 2), ("seq", 16)]),
            "byte_bidi_lstm.onnx" => real.bindings = bindings(&[("batch", 2), ("length", 20)]),
            "qtdnn_qlinearconv.onnx" => real.bindings = bindings(&[("input#0", 24)]),
            "silero_vad_16k_op15_if.onnx" => {
                real.bindings = bindings(&[("sequence", 576)]);
                real.fixed.push(("sr".to_owned(), Tensor::scalar(16_000i64)));
                real.tract_refuses = SILERO_IF;
            }
            _ => {}
        }
        real
    };
    paths.into_iter().map(real).collect()
}

/// tract 0.23.9 wants both branches of an If to have outputs of one shape.
const SILERO_IF: &str = "IfThenElse: Condition failed: `self.then_body.output_fact(i)?";

pub(crate) fn bindings(rows: &[(&str, usize)]) -> Bindings {
    rows.iter().map(|&(name, size)| (name.to_owned(), size)).collect()
}

pub(crate) fn model(path: &Path) -> ModelBytes {
    ModelBytes::new(fs::read(path).expect("readable")).at(path)
}

pub(crate) type Outputs = Vec<(String, Tensor)>;

/// Greatest difference between outputs of the same names, relative to the largest magnitude that the output had before.
pub(crate) fn apart(before: &Outputs, after: &Outputs) -> f64 {
    assert_eq!(before.len(), after.len());
    let rows = before.iter().zip(after).map(|((name, a), (same, b))| {
        assert_eq!(name, same);
        difference(a, b).expect("types and shapes stay")
    });
    rows.map(|row| row.max_relative.unwrap_or(f64::INFINITY)).fold(0.0, f64::max)
}

/// What the file gives on seeded inputs.
pub(crate) fn run(runtime: &dyn Runtime, real: &Real, options: &Options) -> Result<Outputs, RuntimeError> {
    run_bytes(runtime, real, &model(&real.path), options)
}

/// What these bytes give on the inputs that the file would get.
pub(crate) fn run_bytes(
    runtime: &dyn Runtime,
    real: &Real,
    model: &ModelBytes,
    options: &Options,
) -> Result<Outputs, RuntimeError> {
    let mut session = runtime.load(model, options)?;
    let given = real.given(session.inputs());
    session.run(&given)
}

impl Real {
    /// Seeded inputs of this kind, those in need of a fixed value given it.
    fn given(&self, infos: &[ValueInfo]) -> Outputs {
        let mut given = inputs::random(infos, &self.bindings, 7).expect("every input is declared");
        given.retain(|(name, _)| !self.fixed.iter().any(|(fixed, _)| fixed == name));
        given.extend(self.fixed.clone());
        given
    }

    /// The inputs that [`run`] gives it.
    pub(crate) fn feed(&self, runtime: &dyn Runtime) -> Outputs {
        let session = runtime.load(&model(&self.path), &Options::default()).expect("the runtime loads it");
        self.given(session.inputs())
    }
}
