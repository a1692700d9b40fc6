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
    let said = answers(runtime, model, Some(output), data, samples)?;
    let n_classes = data.classes().len();
    if said.n_columns != n_classes {
        let n = samples.len();
        let problem = format!("{n} samples of {n_classes} classes got {} numbers", n * said.n_columns);
        return Err(TrainError::Task { problem, remedy: "give a classifier of these classes" }.into());
    }
    Ok(said.numbers.chunks(n_classes.max(1)).map(greatest).collect())
}

/// What a network says of samples: a row of numbers for each.
pub(super) struct Answers {
    pub(super) numbers: Vec<f32>,
    pub(super) n_columns: usize,
}

/// What an output, the first where none is named, says of each sample.
///
/// # Errors
/// As [`evaluate`].
pub(super) fn answers(
    runtime: &dyn Runtime,
    model: &ModelBytes,
    output: Option<&Name>,
    data: &Arc<Dataset>,
    samples: &[usize],
) -> Result<Answers, RecipeError> {
    const BATCH_SIZE: usize = 64;
    let data = &normalization::data_for(&onnx::read_bytes(model.bytes().clone(), model.folder())?, data)?;
    let mut session = runtime.load(model, &Options::default())?;
    let wrong =
        |problem: String| TrainError::Task { problem, remedy: "give a network with a row of numbers for each sample" };
    let mut numbers = Vec::new();
    for samples in samples.chunks(BATCH_SIZE) {
        let feeds = feeds(session.inputs(), &data.batch(samples)?, data)?;
        let outputs = run_rows(session.as_mut(), &feeds)?;
        let is_meant = |name: &String| output.is_none_or(|output| name == output.as_str());
        let missing = || {
            wrong(
                output
                    .map_or("the network has no output".to_string(), |it| format!("the network has no output `{it}`")),
            )
        };
        let (_, said) = outputs.iter().find(|(name, _)| is_meant(name)).ok_or_else(missing)?;
        numbers.extend_from_slice(&said.to_f32s().map_err(TrainError::from)?);
    }
    let n_columns = numbers.len().checked_div(samples.len()).unwrap_or(0);
    if n_columns * samples.len() != numbers.len() {
        return Err(wrong(format!("{} samples got {} numbers", samples.len(), numbers.len())).into());
    }
    Ok(Answers { numbers, n_columns })
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
