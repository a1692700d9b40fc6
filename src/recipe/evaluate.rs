//! Accuracy on a split, measured by a runtime on a file's bytes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{RecipeError, normalization};
use crate::data::{Batch, Dataset, Split};
use crate::graph::Name;
use crate::graph::tensor::Tensor;
use crate::learn::train::TrainError;
use crate::learn::train::metrics::greatest;
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
    /// The samples that it gets wrong, by their place in the split, ascending.
    #[serde(default)]
    pub wrong: Vec<usize>,
    /// The class said for each sample, in their order.
    #[serde(skip)]
    pub predictions: Vec<usize>,
}

/// Runs a network over a split and counts how often the greatest number of an output is at the sample's class. Inputs are the
/// data's columns of those names, or the only column for the only input; raw, where the file says that it normalises them.
///
/// # Errors
/// When the file is no network that aludel reads, the runtime refuses it, or the output is not there or has no number a class.
pub fn evaluate(
    runtime: &dyn Runtime,
    model: &ModelBytes,
    output: &Name,
    data: &Arc<Dataset>,
    split: Split,
) -> Result<Evaluation, RecipeError> {
    evaluate_on(runtime, model, output, data, data.samples(split))
}

/// As [`evaluate`], over these samples.
///
/// # Errors
/// As [`evaluate`].
pub(super) fn evaluate_on(
    runtime: &dyn Runtime,
    model: &ModelBytes,
    output: &Name,
    data: &Arc<Dataset>,
    samples: &[usize],
) -> Result<Evaluation, RecipeError> {
    let predictions = predict(runtime, model, output, data, samples)?;
    let is_wrong = |place: &usize| data.class(samples[*place]) != Some(predictions[*place]);
    let wrong: Vec<usize> = (0..predictions.len()).filter(is_wrong).collect();
    let n_samples = predictions.len() as u64;
    let n_right = n_samples - wrong.len() as u64;
    let accuracy = n_right as f64 / n_samples.max(1) as f64;
    Ok(Evaluation { runtime: runtime.name().to_string(), n_samples, n_right, accuracy, wrong, predictions })
}

/// The class that a network says for each sample, whether or not it has a label.
///
/// # Errors
/// As [`evaluate`].
pub(super) fn predict(
    runtime: &dyn Runtime,
    model: &ModelBytes,
    output: &Name,
    data: &Arc<Dataset>,
    samples: &[usize],
) -> Result<Vec<usize>, RecipeError> {
    const BATCH_SIZE: usize = 64;
    let data = &normalization::data_for(&onnx::read_bytes(model.bytes().clone(), model.folder())?, data)?;
    let mut session = runtime.load(model, &Options::default())?;
    let n_classes = data.classes().len();
    let mut predictions = Vec::with_capacity(samples.len());
    for samples in samples.chunks(BATCH_SIZE) {
        let feeds = feeds(session.inputs(), &data.batch(samples)?, data)?;
        let outputs = run_rows(session.as_mut(), &feeds)?;
        let wrong = |problem: String| TrainError::Task { problem, remedy: "give a classifier of these classes" };
        let scores = outputs.iter().find(|(name, _)| name == output.as_str());
        let (_, scores) = scores.ok_or_else(|| wrong(format!("the network has no output `{output}`")))?;
        if scores.len() != samples.len() * n_classes {
            let problem = format!("{} samples of {n_classes} classes got {} numbers", samples.len(), scores.len());
            return Err(wrong(problem).into());
        }
        let scores = scores.to_f32s().map_err(TrainError::from)?;
        predictions.extend(scores.chunks(n_classes.max(1)).map(greatest));
    }
    Ok(predictions)
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
