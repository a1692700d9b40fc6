//! The quantization of a network's file: tidied, calibrated on a runtime, and written in integers.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;

use super::probe::{self, columns};
use super::score::Timer;
use super::{RecipeError, normalization};
use crate::compress::quantize::half::{HalfOptions, HalfType, Kept, to_half};
use crate::compress::quantize::histogram::Statistics;
use crate::compress::quantize::options::{Choice, Form, QuantizeOptions, Target};
use crate::compress::quantize::plan::{Float, WeightSite};
use crate::compress::quantize::qoperator::{Declined, QOperatorOptions, to_qoperator};
use crate::compress::quantize::scheme::{Scheme, Weights};
use crate::compress::quantize::slow::{Slow, slow_nodes};
use crate::compress::quantize::{self, Plan, QuantizeError, Ranges, Scales};
use crate::data::{Dataset, Split, npz};
use crate::graph::probe::TimeRatio;
use crate::graph::shape::{self, Bindings, Types};
use crate::graph::simplify;
use crate::graph::structure::blocks;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, Model, Name, Op};
use crate::measure::inputs;
use crate::measure::runtime::{ModelBytes, Options, Runtime};
use crate::onnx;

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
    /// The constants that are narrow.
    pub n_weights: usize,
    /// The nodes that compute in 16-bit floats.
    pub n_halved: usize,
    /// The nodes that could compute in narrow numbers and do not.
    pub float: Vec<Float>,
    /// Where floats were measured to be quicker; none where nobody measured.
    pub harm: Option<Harm>,
    /// What else was done that changes values by more than rounding.
    pub notes: Vec<String>,
}

/// What was measured so that integers do no harm.
#[derive(Clone, Debug, Serialize)]
pub struct Harm {
    /// The runtime, one thread, one sample.
    pub runtime: String,
    /// What was timed, and what became of it.
    #[serde(flatten)]
    pub slow: Slow,
    /// The time that it took.
    pub seconds: f64,
}

impl Harm {
    /// In words, what was found.
    pub fn lines(&self) -> Vec<String> {
        let Harm { runtime, slow, seconds } = self;
        let ratio = |ratio: &TimeRatio| format!("{:.2} [{:.2}, {:.2}]", ratio.median, ratio.low, ratio.high);
        let mut lines =
            vec![format!("in integers the network takes {} of its time in floats on {runtime}", ratio(&slow.all))];
        for timed in slow.regions.iter().filter(|timed| timed.is_slow) {
            let first = timed.nodes.first().map_or("", Name::as_str);
            let others =
                if timed.nodes.len() > 1 { format!(" and {} others", timed.nodes.len() - 1) } else { String::new() };
            lines.push(format!("back in floats, with which it takes {}: {first}{others}", ratio(&timed.in_floats)));
        }
        match &slow.rest {
            Some(rest) => lines.push(format!("the rest in integers takes {}", ratio(rest))),
            None if !slow.nodes.is_empty() => lines.push(
                "all of it went back to floats, its weights alone are narrow; `keep_slow` keeps integers".to_string(),
            ),
            None => {}
        }
        lines.push(format!("timing took {seconds:.1} s"));
        lines
    }
}

impl Report {
    fn new(choice: Choice) -> Report {
        Report {
            choice,
            calibrated_on: None,
            n_samples: 0,
            integer: IndexMap::new(),
            n_weights: 0,
            n_halved: 0,
            float: Vec::new(),
            harm: None,
            notes: Vec::new(),
        }
    }
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

/// A network, tidied, and what is to become of it.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub(super) model: Model,
    pub(super) types: Types,
    pub(super) choice: Choice,
}

/// Tidies a network and chooses what is not said.
///
/// # Errors
/// When the options do not go together, or the types of the network do not.
pub(super) fn ready(model: &Model, options: &QuantizeOptions, target: Target) -> Result<Ready, RecipeError> {
    let tidy = simplify::simplify(&model.graph, &simplify::Options { opset: Some(model.opset), ..Default::default() })?;
    let model = model.with_graph(tidy.graph);
    let types = shape::infer(&model.graph, &Bindings::default())?;
    let choice = options.choose(&blocks::structure(&model.graph, &types), target)?;
    Ok(Ready { model, types, choice })
}

/// Quantizes a network. `runtime` runs the samples; `told` how many are done. `slow` are the nodes of which a run before has found
/// that floats are quicker; where nobody has looked, they are looked for on the runtime that the network is quantized for.
///
/// # Errors
/// When the options cannot be carried out on the network, samples are missing or do not fit, or the runtime fails.
pub fn quantize(
    model: &Model,
    options: &QuantizeOptions,
    target: Target,
    samples: Option<&Samples>,
    runtime: &dyn Runtime,
    slow: Option<&[Name]>,
    told: &mut dyn FnMut(u64),
) -> Result<Quantized, RecipeError> {
    let Ready { model, types, choice } = ready(model, options, target)?;
    let mut look = Look { model: &model, types: &types, samples, options, runtime, told };
    if let Some(dtype) = options.to.half() {
        return halved(&mut look, choice, dtype);
    }
    if choice.form == Form::Weights {
        let mut quantized = weights_alone(&model, &types, choice)?;
        let none_run = samples.map(|_| "no samples were run: weights alone need none".to_string());
        quantized.report.notes.extend(none_run);
        return Ok(quantized);
    }
    let calibrated = look.calibrated(&choice)?;
    let calibrated = look.unharmed(calibrated, &choice, target, slow)?;
    if calibrated.plan.integer.is_empty() {
        return floats(&model, &types, choice, calibrated);
    }
    let graph = quantize::insert(&model.graph, &calibrated.plan, &calibrated.scales)?;
    finish(&model, &graph, choice, calibrated, target)
}

/// The network with its weights alone in integers.
fn weights_alone(model: &Model, types: &Types, choice: Choice) -> Result<Quantized, RecipeError> {
    let sites = quantize::weight_sites(&model.graph, types, &choice.scheme)?;
    let graph = quantize::insert_weights(&model.graph, &sites)?;
    let report = Report { n_weights: sites.len(), ..Report::new(choice) };
    Ok(Quantized { model: model.with_graph(graph), ranges: None, report })
}

/// The network of which nothing is quicker in integers: its weights alone are.
pub(super) fn floats(
    model: &Model,
    types: &Types,
    mut choice: Choice,
    calibrated: Calibrated,
) -> Result<Quantized, RecipeError> {
    choice.form = Form::Weights;
    choice.reasons.push("weights alone: floats are quicker; `keep_slow` keeps integers".to_string());
    let quantized = weights_alone(model, types, choice)?;
    let report = Report {
        calibrated_on: calibrated.by,
        n_samples: calibrated.ranges.n_samples,
        harm: calibrated.harm,
        ..quantized.report
    };
    Ok(Quantized { ranges: Some(calibrated.ranges), report, ..quantized })
}

/// Where a network's values become integers, and by which scales.
pub(super) struct Calibrated {
    pub(super) plan: Plan,
    pub(super) scales: Scales,
    ranges: Ranges,
    by: Option<String>,
    /// The nodes that are back in floats, by the first output of each.
    pub(super) slow: Vec<Name>,
    pub(super) harm: Option<Harm>,
}

/// The network in integers as it is written, and what was done.
pub(super) fn finish(
    model: &Model,
    graph: &Graph,
    choice: Choice,
    calibrated: Calibrated,
    target: Target,
) -> Result<Quantized, RecipeError> {
    let Calibrated { plan, ranges, by, slow, harm, .. } = calibrated;
    let mut float = plan.float.clone();
    let (mut graph, n_stored) = stored(graph, &choice.scheme, &slow)?;
    if choice.form == Form::Qoperator {
        let lowered = to_qoperator(&graph, &qoperators(target))?;
        float.extend(lowered.declined.into_iter().map(|Declined { node, reason }| Float { node, reason }));
        graph = lowered.graph;
    }
    let report = Report {
        calibrated_on: by,
        n_samples: ranges.n_samples,
        integer: by_operator(&model.graph, &plan.integer),
        n_weights: plan.weights.len() + n_stored,
        float,
        harm,
        ..Report::new(choice)
    };
    Ok(Quantized { model: model.with_graph(graph), ranges: Some(ranges), report })
}

/// The operators on integers that a target has.
fn qoperators(target: Target) -> QOperatorOptions {
    QOperatorOptions { microsoft: target != Target::Tract }
}

/// A network in 16-bit floats.
fn halved(look: &mut Look<'_>, choice: Choice, dtype: HalfType) -> Result<Quantized, RecipeError> {
    let weights_only = choice.form == Form::Weights;
    let mut ranges = None;
    if !weights_only && look.samples.is_some() {
        let is_float = |name: &&Name| look.types.tensor(name).is_some_and(|known| known.dtype == DType::F32);
        let made = look.model.graph.nodes.iter().flat_map(|node| node.outputs.iter().flatten());
        let values: Vec<Name> = made.filter(is_float).cloned().collect();
        ranges = Some(look.ranges(&values, false)?.0);
    }
    let greatest = |(name, seen): (&Name, &Statistics)| (name.clone(), seen.min.abs().max(seen.max.abs()));
    let options = HalfOptions {
        dtype,
        weights_only,
        keep: look.options.exclude.iter().cloned().collect(),
        ranges: ranges.as_ref().map(|ranges: &Ranges| ranges.values.iter().map(greatest).collect()),
        ..HalfOptions::default()
    };
    let halved = to_half(&look.model.graph, &options)?;
    let opset = look.model.opset.max(halved.opset);
    let report = Report {
        n_samples: ranges.as_ref().map_or(0, |ranges| ranges.n_samples),
        calibrated_on: ranges.as_ref().map(|_| look.runtime.name().to_string()),
        n_weights: if weights_only { halved.n_narrowed } else { 0 },
        n_halved: if weights_only { 0 } else { halved.n_narrowed },
        float: halved.kept.into_iter().map(|Kept { node, reason }| Float { node, reason }).collect(),
        notes: halved.notes,
        ..Report::new(choice)
    };
    let model = Model { opset, ..look.model.with_graph(halved.graph) };
    Ok(Quantized { model, ranges, report })
}

/// A look at a network's values on data.
pub(super) struct Look<'a> {
    pub(super) model: &'a Model,
    pub(super) types: &'a Types,
    pub(super) samples: Option<&'a Samples>,
    pub(super) options: &'a QuantizeOptions,
    pub(super) runtime: &'a dyn Runtime,
    pub(super) told: &'a mut dyn FnMut(u64),
}

impl Look<'_> {
    /// Where its values become integers, and by which scales.
    pub(super) fn calibrated(&mut self, choice: &Choice) -> Result<Calibrated, RecipeError> {
        let plan = quantize::plan(&self.model.graph, self.types, &choice.scheme)?;
        let values: Vec<Name> = plan.values.keys().cloned().collect();
        let (ranges, by) = self.ranges(&values, choice.calibrator.needs_histogram())?;
        let bounds = ranges.bounds(&plan.values, choice.calibrator)?;
        let scales = quantize::scales(&self.model.graph, &plan, &bounds)?;
        Ok(Calibrated { plan, scales, ranges, by, slow: Vec::new(), harm: None })
    }

    /// What is left of it where floats are not quicker: those nodes that a run before has found, or those that are found now. Of a
    /// network for nobody in particular all is.
    pub(super) fn unharmed(
        &self,
        calibrated: Calibrated,
        choice: &Choice,
        target: Target,
        known: Option<&[Name]>,
    ) -> Result<Calibrated, RecipeError> {
        if self.options.keep_slow || target == Target::Any {
            return Ok(calibrated);
        }
        let Calibrated { ranges, by, .. } = calibrated;
        let harm = match known {
            Some(_) => None,
            None => Some(self.harm(choice, &ranges, target)?),
        };
        let slow = known.or(harm.as_ref().map(|harm| &harm.slow.nodes[..])).unwrap_or_default().to_vec();
        let plan = match quantize::plan(&self.model.graph, self.types, &choice.scheme.without(&slow)) {
            Err(QuantizeError::Nothing { .. }) => Plan::default(),
            plan => plan?,
        };
        let bounds = ranges.bounds(&plan.values, choice.calibrator)?;
        let scales = quantize::scales(&self.model.graph, &plan, &bounds)?;
        Ok(Calibrated { plan, scales, ranges, by, slow, harm })
    }

    /// Where floats are quicker on the runtime.
    fn harm(&self, choice: &Choice, ranges: &Ranges, target: Target) -> Result<Harm, RecipeError> {
        let written = |graph: &Graph| match choice.form {
            Form::Qoperator => Ok(to_qoperator(graph, &qoperators(target))?.graph),
            Form::Qdq | Form::Weights | Form::Whole => Ok(graph.clone()),
        };
        let mut timer = Timer::new(self.runtime, self.model, self.one_sample()?, &written);
        let slow = slow_nodes(&self.model.graph, self.types, choice, ranges, &mut timer)?;
        Ok(Harm { runtime: self.runtime.name().to_string(), slow, seconds: timer.seconds })
    }

    /// A sample, or a batch of a network of one batch size; one that is made up where there are only ranges.
    fn one_sample(&self) -> Result<Vec<(String, Tensor)>, RecipeError> {
        let size = BatchSize::of(self.model, self.types, &[]);
        let n_samples = if size.is_fixed { size.n_samples } else { 1 };
        let mut batches = self.samples.map(|samples| batches(self.model, samples, n_samples, &size)).transpose()?;
        if let Some(batch) = batches.as_mut().and_then(|batches| batches.next()) {
            let few = |(name, tensor): (Name, Tensor)| {
                let n_rows = tensor.shape().first().map_or(0, |&n_rows| n_rows.min(n_samples));
                Ok((name.to_string(), tensor.rows(0, n_rows).map_err(QuantizeError::from)?))
            };
            return batch?.into_iter().map(few).collect();
        }
        let bytes = ModelBytes::new(onnx::to_bytes(self.model)?);
        let session = self.runtime.load(&bytes, &Options::default())?;
        inputs::random(session.inputs(), &inputs::Bindings::new(), 0).map_err(|error| RecipeError::Part {
            part: "ranges".to_string(),
            problem: format!(
                "are no samples to time the network with, and {error} (hint: give samples, or `keep_slow`)"
            ),
        })
    }

    /// What these values look like, and by which runtime.
    fn ranges(&mut self, values: &[Name], histograms: bool) -> Result<(Ranges, Option<String>), RecipeError> {
        let Some(samples) = self.samples else {
            let problem =
                "is missing: ranges of activations come from samples; give some hundreds, or quantize weights alone";
            return Err(RecipeError::Part { part: "data".to_string(), problem: problem.to_string() });
        };
        if let Samples::Ranges(ranges) = samples {
            return Ok(((**ranges).clone(), None));
        }
        let mut network = probe::open(self.runtime, self.model, values, "the network")?;
        let size = BatchSize::of(self.model, self.types, values);
        let batches = batches(self.model, samples, self.options.samples.unwrap_or(N_SAMPLES), &size)?;
        let ranges = quantize::calibrate(network.as_mut(), values, histograms, batches, &mut *self.told)?;
        Ok((ranges, Some(self.runtime.name().to_string())))
    }
}

/// The network with the weights that nothing reads as integers as integers in the file, too: those of embeddings, recurrent
/// operators, and what makes the values `slow`.
fn stored(graph: &Graph, scheme: &Scheme, slow: &[Name]) -> Result<(Graph, usize), RecipeError> {
    let types = shape::infer(graph, &Bindings::default())?;
    // Seven bits are for sums of products; these are none.
    let scheme = Scheme { weights: Weights { bits: None, ..scheme.weights }, ..scheme.clone() };
    let is_stored = |site: &WeightSite| {
        let node = &graph.nodes[site.node_idx];
        let is_slow = node.output(0).is_some_and(|made| slow.contains(made));
        is_slow || matches!(node.op, Op::Gather(_) | Op::LSTM(_) | Op::GRU(_) | Op::RNN(_))
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

/// How many samples make a batch: the only size that a network takes, or as many as keep what is looked at within some megabytes.
struct BatchSize {
    n_samples: usize,
    /// Whether it takes no other: what fills up an incomplete batch would be looked at, too.
    is_fixed: bool,
}

impl BatchSize {
    fn of(model: &Model, types: &Types, values: &[Name]) -> BatchSize {
        const MOST: usize = 32;
        const MOST_BYTES: usize = 8 << 20;
        let first = model.graph.inputs.first().and_then(|input| input.tensor_type()?.shape.as_ref()?.first().cloned());
        if let Some(Dim::Known(size)) = first {
            return BatchSize { n_samples: size.max(1), is_fixed: true };
        }
        let bytes = |name: &Name| {
            let dims = types.tensor(name).and_then(|known| known.shape.clone()).unwrap_or_default();
            let row = dims.iter().skip(1).map(|dim| dim.known().unwrap_or(1));
            row.fold(4usize, |bytes, size| bytes.saturating_mul(size))
        };
        let bytes = values.iter().map(bytes).fold(0usize, usize::saturating_add);
        BatchSize { n_samples: (MOST_BYTES / bytes.max(1)).clamp(1, MOST), is_fixed: false }
    }

    /// How many of so many samples are run: whole batches where it takes no others, and at least one.
    fn run_of(&self, n_samples: usize) -> usize {
        match self.is_fixed && n_samples >= self.n_samples {
            true => n_samples / self.n_samples * self.n_samples,
            false => n_samples,
        }
    }
}

type Batch = Result<IndexMap<Name, Tensor>, RecipeError>;

/// So many samples, a batch at a time: the first of an archive, of a data set some that lie evenly in it.
fn batches<'a>(
    model: &'a Model,
    samples: &Samples,
    n_samples: usize,
    size: &BatchSize,
) -> Result<Box<dyn Iterator<Item = Batch> + 'a>, RecipeError> {
    match samples {
        Samples::Archive(path) => {
            let inputs: Vec<Name> = model.graph.inputs.iter().map(|input| input.name.clone()).collect();
            let headers = npz::headers(path)?;
            let has = |name: &str| headers.iter().any(|header| header.name == name);
            let array = |input: &Name| match &inputs[..] {
                [_] if !has(input) => "x".to_string(),
                _ => input.to_string(),
            };
            let arrays: Vec<String> = inputs.iter().map(array).collect();
            let n_rows = headers.iter().find(|header| arrays.first() == Some(&header.name));
            let n_rows = n_rows.and_then(|header| header.shape.first().copied()).unwrap_or(0);
            let rows = npz::rows(path, &arrays, size.n_samples, size.run_of(n_rows.min(n_samples)))?;
            let batch = move |batch: Vec<(String, Tensor)>| {
                inputs.iter().cloned().zip(batch.into_iter().map(|(_, tensor)| tensor)).collect()
            };
            Ok(Box::new(rows.map(move |rows| Ok(batch(rows?)))))
        }
        Samples::Dataset(data) => {
            let data = normalization::data_for(model, data)?;
            let own = data.samples(Split::Calibration);
            let all = if own.is_empty() { data.samples(Split::Train) } else { own };
            let n = size.run_of(n_samples.min(all.len()));
            // Files often hold one class after the other.
            let chosen: Vec<usize> = (0..n).map(|place| all[place * all.len() / n]).collect();
            let (columns, n_batch) = (columns(model, &data), size.n_samples);
            let starts = (0..chosen.len()).step_by(n_batch);
            Ok(Box::new(starts.map(move |start| {
                let batch = data.batch(&chosen[start..(start + n_batch).min(chosen.len())])?;
                let column = |(column, name): &(String, Name)| {
                    let problem = format!("has no column `{column}`");
                    let missing = || RecipeError::Part { part: "data".to_string(), problem };
                    Ok((name.clone(), batch.get(column).ok_or_else(missing)?.clone()))
                };
                columns.iter().map(column).collect()
            })))
        }
        Samples::Batches(batches) => Ok(Box::new(batches.clone().into_iter().map(Ok))),
        Samples::Ranges(_) => Ok(Box::new(std::iter::empty())),
    }
}
