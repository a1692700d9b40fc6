//! Reading and writing over real files: every shared model and every node test of ONNX's own.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aludel::graph::Model;
use aludel::onnx;
use bytes::Bytes;
use flate2::read::GzDecoder;

use crate::support::{data, left_out};

/// The shared models, in the order of their names.
fn models(data: &Path) -> Vec<PathBuf> {
    let mut paths = vec![data.join("minilm-l6/model_f16w.onnx")];
    if let Ok(folder) = fs::read_dir(data.join("onnx-models")) {
        paths.extend(folder.filter_map(|entry| Some(entry.ok()?.path())));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "onnx") && path.is_file());
    paths.sort();
    paths
}

/// Every model of ONNX's node tests: name, bytes.
fn node_tests(data: &Path) -> Option<Vec<(String, Bytes)>> {
    let file = fs::File::open(data.join("onnx-node-tests/node-tests.tar.gz")).ok()?;
    let mut archive = tar::Archive::new(GzDecoder::new(file));
    let mut tests = Vec::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("a whole archive");
        let path = entry.path().expect("a path").into_owned();
        if path.ends_with("model.onnx") {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("a whole archive");
            tests.push((path.display().to_string(), bytes.into()));
        }
    }
    Some(tests)
}

/// What a file that is written at its own operator set must keep to; the reason where it does not.
fn round_trip(model: &Model) -> Result<(), String> {
    let bytes = onnx::to_bytes(model).map_err(|error| format!("cannot be written: {error}"))?;
    let again = onnx::read_bytes(bytes.clone(), None).map_err(|error| format!("cannot be read again: {error}"))?;
    if again.opset != model.opset.max(7) {
        return Err(format!("operator set {} has become {}", model.opset, again.opset));
    }
    if again.graph != model.graph {
        return Err("reads differently".to_string());
    }
    if again.about != model.about || again.domains != model.domains || again.ir_version != model.ir_version {
        return Err("says something else of itself".to_string());
    }
    if onnx::to_bytes(&again).ok() != Some(bytes) {
        return Err("is written differently the second time".to_string());
    }
    Ok(())
}

fn check(files: impl IntoIterator<Item = (String, Result<Model, onnx::OnnxError>)>) {
    let faults: Vec<String> = files
        .into_iter()
        .filter_map(|(name, model)| match model {
            Err(error) => Some(error.to_string()),
            Ok(model) => round_trip(&model).err().map(|fault| format!("{name} {fault}")),
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_shared_model_is_written_as_it_was_read() {
    let Some(data) = data() else { return };
    let models = models(&data);
    if models.is_empty() {
        return left_out("the shared models are missing");
    }
    check(models.iter().map(|path| (path.display().to_string(), onnx::read(path))));
}

#[test]
fn every_node_test_is_written_as_it_was_read() {
    let Some(data) = data() else { return };
    let Some(tests) = node_tests(&data) else {
        return left_out("the node tests are missing");
    };
    assert_eq!(tests.len(), 530);
    check(tests.into_iter().map(|(name, bytes)| (name, onnx::read_bytes(bytes, None))));
}
