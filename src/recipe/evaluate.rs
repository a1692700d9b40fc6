//! Accuracy on a split, measured by a runtime on a file's bytes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{RecipeError, normalization};
use crate::data::{Batch, Dataset, LABEL, Split};
use crate::graph::tensor::Tensor;
use crate::learn::train::TrainError;
use crate::learn::train::metrics::{Confusion, greatest};
use crate::measure::runtime::{ModelBytes, Options, Runtime, ValueInfo, run_rows};
use crate::onnx;

/// What a runtime made of a split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The runtime.
    pub runtime: String,
    /// How many samples there are.
    pub n_samples: u64,
    /// How many of them got their class.
    pub n_right: u64,
    /// The part of them.
    pub accuracy: f64,
    /// The class said for each sample, in their order.
    #[serde(skip)]
    pub predictions: Vec<usize>,
}

/// Runs a network over a split and counts how often its greatest output is the sample's class. Inputs are the data's columns
/// of those names, or the only column for the only input; raw, where the file says that it normalises them.
///
/// # Errors
/// When the file is no network that aludel reads, the runtime refuses it, or its first output has no number a class.
pub fn evaluate(
    runtime: &dyn Runtime,
    model: &ModelBytes,
    data: &Arc<Dataset>,
    split: Split,
    batch_size: usize,
) -> Result<Evaluation, RecipeError> {
    evaluate_on(runtime, model, data, data.samples(split), batch_size)
}

/// As [`evaluate`], over these samples.
///
/// # Errors
/// As [`evaluate`].
pub(super) fn evaluate_on(
    runtime: &dyn Runtime,
    model: &ModelBytes,
    data: &Arc<Dataset>,
    samples: &[usize],
    batch_size: usize,
) -> Result<Evaluation, RecipeError> {
    let data = &normalization::data_for(&onnx::read_bytes(model.bytes().clone(), model.folder())?, data)?;
    let mut session = runtime.load(model, &Options::default())?;
    let n_classes = data.classes().len();
    let mut confusion = Confusion::new(n_classes, 1);
    let mut predictions = Vec::new();
    for samples in samples.chunks(batch_size.max(1)) {
        let batch = data.batch(samples)?;
        let feeds = feeds(session.inputs(), &batch, data)?;
        let outputs = run_rows(session.as_mut(), &feeds)?;
        let wrong = |problem: String| TrainError::Task { problem, remedy: "give a classifier of these classes" };
        let (_, scores) = outputs.first().ok_or_else(|| wrong("the network has no output".to_string()))?;
        let scores = scores.to_f32s().map_err(TrainError::from)?;
        let labels = batch.get(LABEL).ok_or_else(|| wrong("the data has no labels".to_string()))?;
        let labels = labels.as_slice::<i64>().map_err(TrainError::from)?;
        confusion.add(&scores, labels).map_err(|error| wrong(error.to_string()))?;
        predictions.extend(scores.chunks(n_classes.max(1)).map(greatest));
    }
    let n_samples = predictions.len() as u64;
    let n_right: u64 = (0..n_classes).filter_map(|class| confusion.count(class, class)).sum();
    let accuracy = n_right as f64 / n_samples.max(1) as f64;
    Ok(Evaluation { runtime: runtime.name().to_string(), n_samples, n_right, accuracy, predictions })
}

/// What a session's inputs get of a batch.
///
/// # Errors
/// When the data has no column for an input.
pub(super) fn feeds(inputs: &[ValueInfo], batch: &Batch, data: &Dataset) -> Result<Vec<(String, Tensor)>, TrainError> {
    let feed = |input: &ValueInfo| {
        let name = &input.name;
        let tensor = batch.get(data.column_for(name, inputs.len()));
        let tensor = tensor.ok_or_else(|| TrainError::Name { what: "column of data", name: name.as_str().into() })?;
        Ok((name.clone(), tensor.clone()))
    };
    inputs.iter().map(feed).collect()
}
