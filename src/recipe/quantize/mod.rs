//! The quantization of a network's file: tidied, calibrated on a runtime, and written in integers.

mod report;
mod samples;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::rounding::{self, OnGrid};
use super::score::{Judge, Scorer};
use super::{RecipeError, prepare, probe};
use crate::compress::quantize::half::{HalfOptions, HalfType, Kept, to_half};
use crate::compress::quantize::histogram::Statistics;
use crate::compress::quantize::mixed::{Mixed, mixed};
use crate::compress::quantize::options::{Choice, Form, Ports, QuantizeOptions, Target};
use crate::compress::quantize::plan::{Float, WeightSite};
use crate::compress::quantize::ports::IntegerPort;
use crate::compress::quantize::prepare::{ChannelStatistics, measure};
use crate::compress::quantize::qoperator::{Declined, QOperatorOptions, to_qoperator};
use crate::compress::quantize::scheme::{Scheme, Weights};
use crate::compress::quantize::sensitivity::Layer;
use crate::compress::quantize::slow::{Slow, slow_nodes};
use crate::compress::quantize::{self, Narrowed, Plan, QuantizeError, Ranges, Rounding, Scales, nbits};
use crate::graph::probe::Score as _;
use crate::graph::shape::{self, Bindings, Types};
use crate::graph::simplify;
use crate::graph::structure::blocks;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, Model, Name, Node, Op};
use crate::measure::inputs;
use crate::measure::runtime::{ModelBytes, Options, Runtime, ValueInfo};
use crate::onnx;
pub(super) use samples::{BatchSize, Purpose, batches};

pub use report::{Harm, Precision, Report};
pub use samples::Samples;

/// A quantized network.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The network.
    pub model: Model,
    /// What its values looked like; none where nobody looked.
    pub ranges: Option<Ranges>,
    /// What was found to be better off in floats; none where nobody looked.
    pub left: Option<Left>,
    /// What was done.
    pub report: Report,
}

/// Samples that a calibration takes where nobody says how many.
pub(super) const N_SAMPLES: usize = 512;

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

/// Quantizes a network. `runtime` runs the samples; `told` how many are done. `known` are the nodes of which a run before has found
/// that they had better stay in floats; where nobody has looked, they are looked for now.
///
/// # Errors
/// When the options cannot be carried out on the network, samples are missing or do not fit, or the runtime fails.
pub fn quantize(
    model: &Model,
    options: &QuantizeOptions,
    target: Target,
    samples: Option<&Samples>,
    runtime: &dyn Runtime,
    known: Option<&Left>,
    told: &mut dyn FnMut(u64),
) -> Result<Quantized, RecipeError> {
    let ready = ready(model, options, target)?;
    let (ready, prepared) = prepare::prepare(&ready, samples, options, runtime, told)?;
    let Ready { model, types, mut choice } = ready;
    rounding::prefer(&mut choice, options, samples);
    let mut look = Look { model: &model, types: &types, samples, options, runtime, told };
    if let Some(dtype) = options.to.half() {
        return halved(&mut look, choice, dtype);
    }
    if !choice.form.is_calibrated() {
        let mut quantized = narrowed(&mut look, choice.clone())?;
        quantized.report.harm = if known.is_none() { look.harm_of(&quantized, target)? } else { None };
        let slow = quantized.report.harm.as_ref().is_some_and(|harm| harm.slow.all.low > 1.0);
        if choice.form == Form::Dynamic && Left::is_sought(options, target) {
            let is_left = known.map_or(slow, |known| !known.slow.is_empty());
            quantized = if is_left { undone(&model, &types, choice, quantized)? } else { quantized };
            quantized.left.get_or_insert_default();
        }
        quantized.report.notes.splice(0..0, prepared);
        return Ok(quantized);
    }
    let calibrated = look.calibrated(&choice)?;
    let mut calibrated = look.settled(calibrated, &choice, target, known)?;
    if calibrated.plan.integer.is_empty() {
        let mut quantized = floats(&model, &types, choice, calibrated)?;
        look.rejudge(&mut quantized)?;
        quantized.report.notes.extend(prepared);
        return Ok(quantized);
    }
    let (float, corrected) = match choice.rounding {
        Rounding::Nearest => prepare::correct(&mut look, &mut calibrated)?,
        Rounding::Gptq | Rounding::Adaround => rounding::plan(&mut look, &choice, &mut calibrated)?,
    };
    let graph = quantize::insert(&float, &calibrated.plan, &calibrated.scales)?;
    let mut quantized = finish(&model, &graph, choice, calibrated, target)?;
    look.rejudge(&mut quantized)?;
    quantized.report.notes.extend(prepared.into_iter().chain(corrected));
    Ok(quantized)
}

/// The network in a form in which only weights are known to be narrow before it runs.
fn narrowed(look: &mut Look<'_>, mut choice: Choice) -> Result<Quantized, RecipeError> {
    let (graph, types) = (&look.model.graph, look.types);
    let (sites, level) = match choice.form {
        Form::Weights => (quantize::weight_sites(graph, types, &choice.scheme)?, 0),
        Form::MatMulNBits => {
            (nbits::sites(graph, types, &choice.scheme)?, look.options.accuracy_level.unwrap_or(nbits::USUAL_LEVEL))
        }
        Form::Dynamic | Form::Qdq | Form::Qoperator | Form::Whole => (Vec::new(), 0),
    };
    let OnGrid { graph, parameters, seen, notes } = rounding::on_grid(look, &mut choice, &sites)?;
    let scheme = &choice.scheme;
    let Narrowed { graph, integer, n_weights, float } = match choice.form {
        Form::Dynamic => quantize::dynamic(&graph, types, scheme)?,
        Form::MatMulNBits => {
            let grid = |site: &WeightSite| (site.name.clone(), site.axis.unwrap_or(0), site.weights);
            let grids = sites.iter().map(grid).zip(parameters).collect();
            quantize::mat_mul_n_bits(&graph, types, scheme, level, &grids)?
        }
        Form::Weights | Form::Qdq | Form::Qoperator | Form::Whole => {
            let graph = quantize::insert_weights_with(&graph, &sites, &parameters)?;
            Narrowed { graph, integer: Vec::new(), n_weights: sites.len(), float: Vec::new() }
        }
    };
    let (calibrated_on, n_samples) = seen.map_or((None, 0), |(runtime, n)| (Some(runtime), n));
    let integer = by_operator(&look.model.graph, &integer);
    let report = Report { calibrated_on, n_samples, integer, n_weights, float, notes, ..Report::new(choice) };
    Ok(Quantized { model: look.model.with_graph(graph), ranges: None, left: None, report })
}

/// A dynamic network that is slower than floats: its weights alone are narrow.
fn undone(model: &Model, types: &Types, mut choice: Choice, dynamic: Quantized) -> Result<Quantized, RecipeError> {
    choice.form = Form::Weights;
    let mut quantized = match weights_alone(model, types, choice.clone()) {
        Err(RecipeError::Quantize(QuantizeError::Nothing { .. })) => {
            Quantized { model: model.clone(), ranges: None, left: None, report: Report::new(choice) }
        }
        quantized => quantized?,
    };
    let reads_made =
        |node: &&Node| matches!(node.op, Op::MatMulInteger | Op::ConvInteger(_) | Op::DynamicQuantizeLSTM(_));
    let made = dynamic.model.graph.nodes.iter().filter(reads_made).filter_map(|node| node.output(0).cloned());
    let slow: Vec<Name> = made.collect();
    quantized.report.harm =
        dynamic.report.harm.map(|harm| Harm { slow: Slow { nodes: slow.clone(), ..harm.slow }, ..harm });
    quantized.left = Some(Left { slow, sensitive: Vec::new() });
    Ok(quantized)
}

/// How much each layer of a network suffers from integers, alone in them and alone out of them: what harms most for the work that it
/// saves first.
///
/// # Errors
/// As [`quantize()`]; when there are no samples, or the form has no integer activations.
pub fn sensitivity(
    model: &Model,
    options: &QuantizeOptions,
    target: Target,
    samples: &Samples,
    runtime: &dyn Runtime,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Layer>, RecipeError> {
    let ready = ready(model, options, target)?;
    let Ready { model, types, choice } = prepare::prepare(&ready, Some(samples), options, runtime, &mut |_| ())?.0;
    if !choice.form.is_calibrated() {
        let problem = "is of integer activations: say `form = \"qdq\"`";
        return Err(RecipeError::Part { part: "sensitivity".to_string(), problem: problem.to_string() });
    }
    let mut look = Look { model: &model, types: &types, samples: Some(samples), options, runtime, told: &mut |_| () };
    let calibrated = look.calibrated(&choice)?;
    let written = written(&choice, target, &[]);
    let mut scorer = look.scorer(&written)?;
    scorer.judge = Some(look.judge()?);
    Ok(quantize::sensitivity::sensitivity(&model.graph, &types, &choice, &calibrated.ranges, true, &mut scorer, told)?)
}

/// The network with its weights alone in integers.
fn weights_alone(model: &Model, types: &Types, choice: Choice) -> Result<Quantized, RecipeError> {
    let sites = quantize::weight_sites(&model.graph, types, &choice.scheme)?;
    let graph = quantize::insert_weights(&model.graph, &sites)?;
    let report = Report { n_weights: sites.len(), ..Report::new(choice) };
    Ok(Quantized { model: model.with_graph(graph), ranges: None, left: None, report })
}

/// The network of which nothing is left in integers: the weights of what is not sensitive alone are.
pub(super) fn floats(
    model: &Model,
    types: &Types,
    mut choice: Choice,
    calibrated: Calibrated,
) -> Result<Quantized, RecipeError> {
    choice.form = Form::Weights;
    let whole = choice.clone();
    choice.scheme = choice.scheme.without(calibrated.left.iter().flat_map(|left| &left.sensitive));
    let quantized = match weights_alone(model, types, choice) {
        Err(RecipeError::Quantize(QuantizeError::Nothing { .. })) => {
            Quantized { model: model.clone(), ranges: None, left: None, report: Report::new(whole) }
        }
        quantized => quantized?,
    };
    let report = Report {
        calibrated_on: calibrated.by,
        n_samples: calibrated.ranges.n_samples,
        harm: calibrated.harm,
        mixed: calibrated.mixed,
        ..quantized.report
    };
    Ok(Quantized { ranges: Some(calibrated.ranges), left: calibrated.left, report, ..quantized })
}

/// Where a network's values become integers, and by which scales.
pub(super) struct Calibrated {
    pub(super) plan: Plan,
    pub(super) scales: Scales,
    ranges: Ranges,
    by: Option<String>,
    /// What is left in floats; none where nobody looked.
    pub(super) left: Option<Left>,
    harm: Option<Harm>,
    mixed: Option<Precision>,
}

/// Nodes that were found to be better off in floats, by the first output of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Left {
    /// Those that integers make slower; their weights are narrow all the same.
    pub slow: Vec<Name>,
    /// Those that the network's budget of accuracy has no room for.
    pub sensitive: Vec<Name>,
}

impl Left {
    /// Whether anybody has anything to find out.
    pub(super) fn is_sought(options: &QuantizeOptions, target: Target) -> bool {
        options.budget.is_something() || Left::seeks_slow(options, target)
    }

    /// Whether integers that are slower than floats go back to them. Inputs and outputs that are integers must stay so.
    fn seeks_slow(options: &QuantizeOptions, target: Target) -> bool {
        !options.keep_slow && target != Target::Any && options.ports != Some(Ports::Int)
    }
}

/// The network in integers as it is written, and what was done.
pub(super) fn finish(
    model: &Model,
    graph: &Graph,
    choice: Choice,
    calibrated: Calibrated,
    target: Target,
) -> Result<Quantized, RecipeError> {
    let Calibrated { plan, ranges, by, left, harm, mixed, .. } = calibrated;
    let mut float = plan.float.clone();
    let (mut graph, n_stored) = stored(graph, &choice.scheme, left.as_ref().map_or(&[], |left| &left.slow))?;
    if choice.form == Form::Qoperator {
        let lowered = to_qoperator(&graph, &qoperators(target))?;
        float.extend(lowered.declined.into_iter().map(|Declined { node, reason }| Float { node, reason }));
        graph = lowered.graph;
    }
    let mut model = model.clone();
    let mut ports = Vec::new();
    if choice.scheme.integer_ports {
        let integer = quantize::integer_ports(&graph)?;
        model.about.metadata.extend(integer.ports.iter().map(IntegerPort::metadata));
        (graph, ports) = (integer.graph, integer.ports);
    }
    let report = Report {
        ports,
        calibrated_on: by,
        n_samples: ranges.n_samples,
        integer: by_operator(&model.graph, &plan.integer),
        n_weights: plan.weights.len() + n_stored,
        float,
        harm,
        mixed,
        ..Report::new(choice)
    };
    Ok(Quantized { model: model.with_graph(graph), ranges: Some(ranges), left, report })
}

/// What becomes of a graph before it is written.
fn written<'a>(
    choice: &'a Choice,
    target: Target,
    slow: &'a [Name],
) -> impl Fn(&Graph) -> Result<Graph, RecipeError> + use<'a> {
    move |graph| {
        let graph = stored(graph, &choice.scheme, slow)?.0;
        match choice.form {
            Form::Qoperator => Ok(to_qoperator(&graph, &qoperators(target))?.graph),
            Form::Qdq | Form::Weights | Form::Whole | Form::Dynamic | Form::MatMulNBits => Ok(graph),
        }
    }
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
    Ok(Quantized { model, ranges, left: None, report })
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
        Ok(Calibrated { plan, scales, ranges, by, left: None, harm: None, mixed: None })
    }

    /// What is left of it where floats are not better: by what a run before has found, or by what is found now.
    pub(super) fn settled(
        &self,
        calibrated: Calibrated,
        choice: &Choice,
        target: Target,
        known: Option<&Left>,
    ) -> Result<Calibrated, RecipeError> {
        if !Left::is_sought(self.options, target) {
            return Ok(calibrated);
        }
        let Calibrated { ranges, by, .. } = calibrated;
        let (left, harm, mixed) = match known {
            Some(known) => (known.clone(), None, None),
            None => self.left(choice, &ranges, target)?,
        };
        let scheme = choice.scheme.without(left.slow.iter().chain(&left.sensitive));
        let plan = match quantize::plan(&self.model.graph, self.types, &scheme) {
            Err(QuantizeError::Nothing { .. }) => Plan::default(),
            plan => plan?,
        };
        let bounds = ranges.bounds(&plan.values, choice.calibrator)?;
        let scales = quantize::scales(&self.model.graph, &plan, &bounds)?;
        Ok(Calibrated { plan, scales, ranges, by, left: Some(left), harm, mixed })
    }

    /// What is slower in integers on the runtime, and of the rest what the budget leaves in floats.
    fn left(
        &self,
        choice: &Choice,
        ranges: &Ranges,
        target: Target,
    ) -> Result<(Left, Option<Harm>, Option<Precision>), RecipeError> {
        let mut left = Left::default();
        let (graph, runtime) = (&self.model.graph, self.runtime.name().to_string());
        let mut harm = None;
        if Left::seeks_slow(self.options, target) {
            let written = written(choice, target, &[]);
            let mut scorer = self.scorer(&written)?;
            let slow = slow_nodes(graph, self.types, choice, ranges, &mut scorer)?;
            left.slow.clone_from(&slow.nodes);
            harm = Some(Harm { runtime: runtime.clone(), slow, seconds: scorer.seconds });
        }
        if !self.options.budget.is_something() {
            return Ok((left, harm, None));
        }
        let choice = Choice { scheme: choice.scheme.without(&left.slow), ..choice.clone() };
        let slow = left.slow.clone();
        let written = written(&choice, target, &slow);
        let mut scorer = self.scorer(&written)?;
        scorer.judge = Some(self.judge()?);
        let mixed = match quantize::plan(graph, self.types, &choice.scheme) {
            Err(QuantizeError::Nothing { .. }) => {
                let quality = scorer.quality(graph).map_err(QuantizeError::from)?;
                Mixed { floats: Vec::new(), layers: Vec::new(), in_floats: quality, quality, is_met: true }
            }
            _ => mixed(graph, self.types, &choice, ranges, &self.options.budget, &mut scorer, &mut |_, _| ())?,
        };
        left.sensitive.clone_from(&mixed.floats);
        let precision = Precision { runtime, mixed, seconds: scorer.seconds };
        Ok((left, harm, Some(precision)))
    }

    /// How long a network of narrow weights takes on the runtime in times of floats, where it computes otherwise than floats.
    fn harm_of(&self, quantized: &Quantized, target: Target) -> Result<Option<Harm>, RecipeError> {
        let computes_otherwise = |node: &Node| {
            matches!(
                node.op,
                Op::DequantizeLinear(_) | Op::DynamicQuantizeLinear | Op::DynamicQuantizeLSTM(_) | Op::MatMulNBits(_)
            )
        };
        let graph = &quantized.model.graph;
        if self.options.keep_slow || target == Target::Any || !graph.nodes.iter().any(computes_otherwise) {
            return Ok(None);
        }
        let written = |graph: &Graph| Ok(graph.clone());
        let timed = || {
            let mut scorer = self.scorer(&written)?;
            let all = scorer.time_ratio(&self.model.graph, graph).map_err(QuantizeError::from)?;
            Ok::<_, RecipeError>((all, scorer.seconds))
        };
        let (all, seconds) = match timed() {
            // What is made up need not fit a network that takes no samples to quantize.
            Err(error) if self.samples.is_none() => {
                tracing::warn!("the network is not timed: {error}; give samples, or `keep_slow`");
                return Ok(None);
            }
            timed => timed?,
        };
        let slow = Slow { nodes: Vec::new(), regions: Vec::new(), all, rest: None };
        Ok(Some(Harm { runtime: self.runtime.name().to_string(), slow, seconds }))
    }

    /// Says how good the network is that is written, where the one that was judged before was rounded otherwise.
    fn rejudge(&self, quantized: &mut Quantized) -> Result<(), RecipeError> {
        let Some(Precision { mixed, .. }) = &mut quantized.report.mixed else { return Ok(()) };
        let written = |graph: &Graph| Ok(graph.clone());
        let mut scorer = self.scorer(&written)?;
        scorer.judge = Some(self.judge()?);
        let graph = &quantized.model.graph;
        mixed.quality = scorer.quality(graph).map_err(QuantizeError::from)?;
        let n_bytes = scorer.n_bytes(graph).map_err(QuantizeError::from)?;
        let budget = &self.options.budget;
        let is_kept = budget.is_kept(&mixed.in_floats, &mixed.quality)?;
        mixed.is_met &= is_kept && budget.bytes.is_none_or(|most| n_bytes <= most);
        Ok(())
    }

    /// What times networks on the runtime.
    fn scorer<'s>(
        &'s self,
        written: &'s dyn Fn(&Graph) -> Result<Graph, RecipeError>,
    ) -> Result<Scorer<'s>, RecipeError> {
        let (runtime, model, sample) = (self.runtime, self.model, self.one_sample()?);
        Ok(Scorer { runtime, model, written, sample, judge: None, seconds: 0.0 })
    }

    /// What tells how good answers are: labels where there are any, and what the network says in floats.
    fn judge(&self) -> Result<Judge<'_>, RecipeError> {
        const MOST_SAMPLES: usize = 2_000;
        const MOST_BYTES: usize = 256 << 20;
        let missing = || {
            let problem = "is missing: how good a network is shows on samples".to_string();
            RecipeError::Part { part: "data".to_string(), problem }
        };
        let samples = self.samples.filter(|samples| !matches!(samples, Samples::Ranges(_))).ok_or_else(missing)?;
        let outputs: Vec<Name> = self.model.graph.outputs.iter().map(|output| output.name.clone()).collect();
        let size = BatchSize::of(self.model, self.types, &outputs);
        // What the network says in floats is kept.
        let n_samples = (MOST_BYTES / samples::row_bytes(self.types, &outputs).max(1)).clamp(1, MOST_SAMPLES);
        let labels = samples::labels(samples, Purpose::Judge, n_samples, &size)?;
        let model = self.model;
        let batches = move || batches(model, samples, Purpose::Judge, n_samples, &size);
        Judge::new(self.runtime, self.model, Box::new(batches), labels)
    }

    /// A sample, or a batch of a network of one batch size; one that is made up where there are only ranges.
    fn one_sample(&self) -> Result<Vec<(String, Tensor)>, RecipeError> {
        let size = BatchSize::of(self.model, self.types, &[]);
        let n_samples = if size.is_fixed { size.n_samples } else { 1 };
        let mut batches = self
            .samples
            .map(|samples| batches(self.model, samples, Purpose::Calibrate, n_samples, &size))
            .transpose()?;
        if let Some(batch) = batches.as_mut().and_then(|batches| batches.next()) {
            let few = |(name, tensor): (Name, Tensor)| {
                let n_rows = tensor.shape().first().map_or(0, |&n_rows| n_rows.min(n_samples));
                Ok((name.to_string(), tensor.rows(0, n_rows).map_err(QuantizeError::from)?))
            };
            return batch?.into_iter().map(few).collect();
        }
        let bytes = ModelBytes::new(onnx::to_bytes(self.model)?);
        let session = self.runtime.load(&bytes, &Options::default())?;
        inputs::random(session.inputs(), &usual_sizes(session.inputs()), 0).map_err(|error| RecipeError::Part {
            part: "ranges".to_string(),
            problem: format!(
                "are no samples to time the network with, and {error} (hint: give samples, or `keep_slow`)"
            ),
        })
    }

    /// What the channels of these values look like.
    pub(super) fn channels(
        &mut self,
        values: &IndexMap<Name, usize>,
    ) -> Result<IndexMap<Name, ChannelStatistics>, RecipeError> {
        let samples = match self.samples {
            Some(Samples::Ranges(_)) | None => {
                let problem = "is missing: `equalize`, `smooth` and `bias_correction` look at channels of activations, which no ranges hold; give samples";
                return Err(RecipeError::Part { part: "data".to_string(), problem: problem.to_string() });
            }
            Some(samples) => samples,
        };
        let names: Vec<Name> = values.keys().cloned().collect();
        let mut network = probe::open(self.runtime, self.model, &names, "the network")?;
        let size = BatchSize::of(self.model, self.types, &names);
        let n_samples = self.options.samples.unwrap_or(N_SAMPLES);
        let batches = batches(self.model, samples, Purpose::Calibrate, n_samples, &size)?;
        measure(network.as_mut(), values, batches, &mut *self.told)
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
        let batches =
            batches(self.model, samples, Purpose::Calibrate, self.options.samples.unwrap_or(N_SAMPLES), &size)?;
        let ranges = quantize::calibrate(network.as_mut(), values, histograms, batches, &mut *self.told)?;
        Ok((ranges, Some(self.runtime.name().to_string())))
    }
}

/// Sizes for the open dimensions of inputs that are made up: one sample, and tokens or pixels enough to keep a kernel busy.
fn usual_sizes(infos: &[ValueInfo]) -> inputs::Bindings {
    const USUAL: usize = 64;
    let batch = infos.iter().filter_map(|info| info.dims.as_ref()?.first());
    let batch: Vec<String> = batch.map(ToString::to_string).collect();
    let is_batch = |name: &String| batch.contains(name) || name.ends_with("#0");
    inputs::open_dimensions(infos).into_iter().filter(|name| !is_batch(name)).map(|name| (name, USUAL)).collect()
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
