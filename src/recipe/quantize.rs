//! The quantization of a network's file: tidied, calibrated on a runtime, and written in integers.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;

use super::probe::{self, columns};
use super::{RecipeError, normalization};
use crate::compress::quantize::options::{Choice, Form, QuantizeOptions, Target};
use crate::compress::quantize::plan::{Float, WeightSite};
use crate::compress::quantize::scheme::{Scheme, Weights};
use crate::compress::quantize::{self, QuantizeError, Ranges};
use crate::data::{Dataset, Split, npz};
use crate::graph::shape::{self, Bindings, Types};
use crate::graph::simplify;
use crate::graph::structure::blocks;
use crate::graph::tensor::Tensor;
use crate::graph::{Dim, Graph, Model, Name, Op};
use crate::measure::runtime::Runtime;

/// Where the samples of a calibration come from.
#[derive(Clone, Debug)]
pub enum Samples {
    /// An archive of arrays named after the network's inputs, or `x` for a single one; read as it is needed.
    Archive(PathBuf),
    /// The calibration split of a data set; its training split where it has none.
    Dataset(Arc<Dataset>),
    /// Batches of the network's inputs.
    Batches(Vec<IndexMap<Name, Tensor>>),
    /// What a calibration before has seen.
    Ranges(Box<Ranges>),
}

/// What was done to a network.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was chosen, and why.
    pub choice: Choice,
    /// The runtime that the samples ran on; none where there were none.
    pub calibrated_on: Option<String>,
    /// How many samples there were.
    pub n_samples: u64,
    /// The nodes that compute in integers, by operator.
    pub integer: IndexMap<String, usize>,
    /// The constants that are integers.
    pub n_weights: usize,
    /// The nodes that could compute in integers and do not.
    pub float: Vec<Float>,
}

/// A quantized network.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The network.
    pub model: Model,
    /// What its values looked like; none where nobody looked.
    pub ranges: Option<Ranges>,
    /// What was done.
    pub report: Report,
}

/// Samples that a calibration takes where nobody says how many.
const N_SAMPLES: usize = 512;

/// Quantizes a network. `runtime` runs the samples; `told` how many are done.
///
/// # Errors
/// When the options cannot be carried out on the network, samples are missing or do not fit, or the runtime fails.
pub fn quantize(
    model: &Model,
    options: &QuantizeOptions,
    target: Target,
    samples: Option<&Samples>,
    runtime: &dyn Runtime,
    told: &mut dyn FnMut(u64),
) -> Result<Quantized, RecipeError> {
    let tidy = simplify::simplify(&model.graph, &simplify::Options { opset: Some(model.opset), ..Default::default() })?;
    let model = model.with_graph(tidy.graph);
    let types = shape::infer(&model.graph, &Bindings::default())?;
    let choice = options.choose(&blocks::structure(&model.graph, &types), target);
    if choice.form == Form::Weights {
        let sites = quantize::weight_sites(&model.graph, &types, &choice.scheme)?;
        let graph = quantize::insert_weights(&model.graph, &sites)?;
        let report = Report {
            choice,
            calibrated_on: None,
            n_samples: 0,
            integer: IndexMap::new(),
            n_weights: sites.len(),
            float: Vec::new(),
        };
        return Ok(Quantized { model: model.with_graph(graph), ranges: None, report });
    }
    let plan = quantize::plan(&model.graph, &types, &choice.scheme)?;
    let (ranges, calibrated_on) = match samples {
        Some(Samples::Ranges(ranges)) => ((**ranges).clone(), None),
        Some(samples) => {
            let values: Vec<Name> = plan.values.keys().cloned().collect();
            let mut network = probe::open(runtime, &model, &values, "the network")?;
            let batches =
                batches(&model, samples, options.samples.unwrap_or(N_SAMPLES), batch_size(&model, &types, &values))?;
            let histograms = choice.calibrator.needs_histogram();
            let ranges = quantize::calibrate(network.as_mut(), &values, histograms, batches, told)?;
            (ranges, Some(runtime.name().to_string()))
        }
        None => {
            let problem =
                "is missing: ranges of activations come from samples; give some hundreds, or quantize weights alone";
            return Err(RecipeError::Part { part: "data".to_string(), problem: problem.to_string() });
        }
    };
    let bounds = ranges.bounds(&plan.values, choice.calibrator)?;
    let scales = quantize::scales(&model.graph, &plan, &bounds)?;
    let graph = quantize::insert(&model.graph, &plan, &scales)?;
    let (graph, n_stored) = stored(&graph, &choice.scheme)?;
    let report = Report {
        calibrated_on,
        n_samples: ranges.n_samples,
        integer: by_operator(&model.graph, &plan.integer),
        n_weights: plan.weights.len() + n_stored,
        float: plan.float,
        choice,
    };
    Ok(Quantized { model: model.with_graph(graph), ranges: Some(ranges), report })
}

/// The network with the weights that nothing reads as integers (embeddings, recurrent operators) as integers in the file, too.
fn stored(graph: &Graph, scheme: &Scheme) -> Result<(Graph, usize), RecipeError> {
    let types = shape::infer(graph, &Bindings::default())?;
    // Seven bits are for sums of products; these are none.
    let scheme = Scheme { weights: Weights { bits: None, ..scheme.weights }, ..scheme.clone() };
    let is_stored = |site: &WeightSite| {
        matches!(graph.nodes[site.node_idx].op, Op::Gather(_) | Op::LSTM(_) | Op::GRU(_) | Op::RNN(_))
    };
    let sites = match quantize::weight_sites(graph, &types, &scheme) {
        Err(QuantizeError::Nothing { .. }) => Vec::new(),
        sites => sites?,
    };
    let sites: Vec<WeightSite> = sites.into_iter().filter(is_stored).collect();
    Ok((quantize::insert_weights(graph, &sites)?, sites.len()))
}

fn by_operator(graph: &Graph, nodes: &[usize]) -> IndexMap<String, usize> {
    let mut counts = IndexMap::new();
    for &node_idx in nodes {
        *counts.entry(graph.nodes[node_idx].op.name().to_string()).or_default() += 1;
    }
    counts.sort_keys();
    counts
}

/// The only batch size that a network takes, or as many samples as keep what is looked at within some megabytes.
fn batch_size(model: &Model, types: &Types, values: &[Name]) -> usize {
    const MOST: usize = 32;
    const MOST_BYTES: usize = 8 << 20;
    let first = model.graph.inputs.first().and_then(|input| input.tensor_type()?.shape.as_ref()?.first().cloned());
    if let Some(Dim::Known(size)) = first {
        return size.max(1);
    }
    let bytes = |name: &Name| {
        let dims = types.tensor(name).and_then(|known| known.shape.clone()).unwrap_or_default();
        dims.iter().skip(1).map(|dim| dim.known().unwrap_or(1)).product::<usize>().saturating_mul(4)
    };
    let bytes: usize = values.iter().map(bytes).sum();
    (MOST_BYTES / bytes.max(1)).clamp(1, MOST)
}

type Batch = Result<IndexMap<Name, Tensor>, RecipeError>;

/// The first samples, a batch at a time.
fn batches<'a>(
    model: &'a Model,
    samples: &Samples,
    n_samples: usize,
    batch_size: usize,
) -> Result<Box<dyn Iterator<Item = Batch> + 'a>, RecipeError> {
    match samples {
        Samples::Archive(path) => {
            let inputs: Vec<Name> = model.graph.inputs.iter().map(|input| input.name.clone()).collect();
            let arrays: Vec<String> = npz::headers(path)?.into_iter().map(|header| header.name).collect();
            let array = |input: &Name| match &inputs[..] {
                [_] if !arrays.iter().any(|array| array == input.as_str()) => "x".to_string(),
                _ => input.to_string(),
            };
            let rows = npz::rows(path, &inputs.iter().map(array).collect::<Vec<_>>(), batch_size)?;
            let batch = move |batch: Vec<(String, Tensor)>| {
                inputs.iter().cloned().zip(batch.into_iter().map(|(_, tensor)| tensor)).collect()
            };
            let n_batches = n_samples.div_ceil(batch_size);
            Ok(Box::new(rows.take(n_batches).map(move |rows| Ok(batch(rows?)))))
        }
        Samples::Dataset(data) => {
            let data = normalization::data_for(model, data)?;
            let own = data.samples(Split::Calibration);
            let chosen = if own.is_empty() { data.samples(Split::Train) } else { own };
            let chosen: Vec<usize> = chosen.iter().copied().take(n_samples).collect();
            let columns = columns(model, &data);
            let starts = (0..chosen.len()).step_by(batch_size);
            Ok(Box::new(starts.map(move |start| {
                let batch = data.batch(&chosen[start..(start + batch_size).min(chosen.len())])?;
                let column = |(column, name): &(String, Name)| {
                    let missing =
                        || RecipeError::Part { part: "data".to_string(), problem: format!("has no column `{column}`") };
                    Ok((name.clone(), batch.get(column).ok_or_else(missing)?.clone()))
                };
                columns.iter().map(column).collect()
            })))
        }
        Samples::Batches(batches) => Ok(Box::new(batches.clone().into_iter().map(Ok))),
        Samples::Ranges(_) => Ok(Box::new(std::iter::empty())),
    }
}
