//! The quantization of a network's file: tidied, calibrated on a runtime, and written in integers.

mod calibrated;
mod recurrent;
mod report;

use indexmap::IndexMap;

use super::look::Look;
use super::rounding::{self, OnGrid};
use super::samples::Samples;
use super::{RecipeError, prepare};
use crate::compress::quantize::half::{HalfOptions, HalfType, Kept, to_half};
use crate::compress::quantize::histogram::Statistics;
use crate::compress::quantize::options::{Choice, Form, QuantizeOptions, Target};
use crate::compress::quantize::plan::{Float, WeightSite};
use crate::compress::quantize::ports::IntegerPort;
use crate::compress::quantize::qoperator::{Declined, QOperatorOptions, to_qoperator};
use crate::compress::quantize::scheme::{Scheme, Weights};
use crate::compress::quantize::sensitivity::Layer;
use crate::compress::quantize::slow::Slow;
use crate::compress::quantize::{self, Narrowed, QuantizeError, Ranges, Rounding, nbits};
use crate::graph::shape::{self, Bindings, Types};
use crate::graph::simplify;
use crate::graph::structure::blocks;
use crate::graph::tensor::DType;
use crate::graph::{Graph, Model, Name, Node, Op};
use crate::measure::runtime::Runtime;

pub(super) use calibrated::Calibrated;
pub use calibrated::Left;
pub use recurrent::quantize;
pub use report::{Harm, Precision, Report};

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

/// A network, tidied, and what is to become of it.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    pub(super) model: Model,
    pub(super) types: Types,
    pub(super) choice: Choice,
    /// What was done to it beside tidying, in words.
    pub(super) notes: Vec<String>,
}

/// Tidies a network and chooses what is not said.
///
/// # Errors
/// When the options do not go together, or the types of the network do not.
pub(super) fn ready(model: &Model, options: &QuantizeOptions, target: Target) -> Result<Ready, RecipeError> {
    let tidy = simplify::simplify(&model.graph, &simplify::Options { opset: Some(model.opset), ..Default::default() })?;
    let (model, notes) = recurrent::written_out(model.with_graph(tidy.graph), options)?;
    let types = shape::infer(&model.graph, &Bindings::default())?;
    let mut choice = options.choose(&blocks::structure(&model.graph, &types), target)?;
    recurrent::share_scales(&mut choice, options);
    Ok(Ready { model, types, choice, notes })
}

/// The network as the options ask, whatever that does to recurrent operators.
fn as_asked(
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
    let mut work = Work::new(&ready, samples, options, target, runtime, told);
    rounding::prefer(&mut work);
    if let Some(dtype) = options.to.half() {
        return halved(&mut work, dtype);
    }
    if !work.choice.form.is_calibrated() {
        let mut quantized = narrowed(&mut work)?;
        quantized.report.harm = if known.is_none() { work.harm_of(&quantized)? } else { None };
        let slow = quantized.report.harm.as_ref().is_some_and(|harm| harm.slow.all.low > 1.0);
        if work.choice.form == Form::Dynamic && Left::is_sought(options, target) {
            let is_left = known.map_or(slow, |known| !known.slow.is_empty());
            quantized = if is_left { undone(&work, quantized)? } else { quantized };
            quantized.left.get_or_insert_default();
        }
        quantized.report.notes.splice(0..0, prepared);
        return Ok(quantized);
    }
    let calibrated = work.calibrated()?;
    let mut calibrated = work.settled(calibrated, known)?;
    if calibrated.plan.integer.is_empty() {
        let mut quantized = floats(&work, calibrated)?;
        work.rejudge(&mut quantized)?;
        quantized.report.notes.extend(prepared);
        return Ok(quantized);
    }
    let (float, corrected) = match work.choice.rounding {
        Rounding::Nearest => prepare::correct(&mut work, &mut calibrated)?,
        Rounding::Gptq | Rounding::Adaround => rounding::plan(&mut work, &mut calibrated)?,
    };
    let graph = quantize::insert(&float, &calibrated.plan, &calibrated.scales)?;
    let mut quantized = finish(&work, &graph, calibrated)?;
    if work.choice.rounding != Rounding::Nearest || options.bias_correction {
        work.rejudge(&mut quantized)?;
    }
    quantized.report.notes.extend(prepared.into_iter().chain(corrected));
    Ok(quantized)
}

/// A network that is being quantized.
pub(super) struct Work<'a> {
    pub(super) look: Look<'a>,
    pub(super) options: &'a QuantizeOptions,
    pub(super) choice: Choice,
    pub(super) target: Target,
}

impl<'a> Work<'a> {
    /// On a network that is ready, and looked at with these samples.
    pub(super) fn new(
        ready: &'a Ready,
        samples: Option<&'a Samples>,
        options: &'a QuantizeOptions,
        target: Target,
        runtime: &'a dyn Runtime,
        told: &'a mut dyn FnMut(u64),
    ) -> Work<'a> {
        let Ready { model, types, choice, .. } = ready;
        let look = Look { model, types, samples, n_samples: options.samples, runtime, told };
        Work { look, options, choice: choice.clone(), target }
    }
}

/// The network in a form in which only weights are known to be narrow before it runs.
fn narrowed(work: &mut Work<'_>) -> Result<Quantized, RecipeError> {
    let (model, types) = (work.look.model, work.look.types);
    let scheme = work.choice.scheme.clone();
    let (sites, level) = match work.choice.form {
        Form::Weights => (quantize::weight_sites(&model.graph, types, &scheme)?, 0),
        Form::MatMulNBits => {
            (nbits::sites(&model.graph, types, &scheme)?, work.options.accuracy_level.unwrap_or(nbits::USUAL_LEVEL))
        }
        Form::Dynamic | Form::Qdq | Form::Qoperator | Form::Whole => (Vec::new(), 0),
    };
    let OnGrid { graph, parameters, seen, notes } = rounding::on_grid(work, &sites)?;
    let Narrowed { graph, integer, n_weights, float } = match work.choice.form {
        Form::Dynamic => quantize::dynamic(&graph, types, &scheme)?,
        Form::MatMulNBits => {
            let grid = |site: &WeightSite| (site.name.clone(), site.axis.unwrap_or(0), site.weights);
            let grids = sites.iter().map(grid).zip(parameters).collect();
            quantize::mat_mul_n_bits(&graph, types, &scheme, level, &grids)?
        }
        Form::Weights | Form::Qdq | Form::Qoperator | Form::Whole => {
            let graph = quantize::insert_weights_with(&graph, &sites, &parameters)?;
            Narrowed { graph, integer: Vec::new(), n_weights: sites.len(), float: Vec::new() }
        }
    };
    let (calibrated_on, n_samples) = seen.map_or((None, 0), |(runtime, n)| (Some(runtime), n));
    let integer = by_operator(&model.graph, &integer);
    let choice = work.choice.clone();
    let report = Report { calibrated_on, n_samples, integer, n_weights, float, notes, ..Report::new(choice) };
    Ok(Quantized { model: model.with_graph(graph), ranges: None, left: None, report })
}

/// A dynamic network that is slower than floats: its weights alone are narrow.
fn undone(work: &Work<'_>, dynamic: Quantized) -> Result<Quantized, RecipeError> {
    let mut quantized = weights_alone(work, &[])?;
    let reads_made =
        |node: &&Node| matches!(node.op, Op::MatMulInteger | Op::ConvInteger(_) | Op::DynamicQuantizeLSTM(_));
    let made = dynamic.model.graph.nodes.iter().filter(reads_made).filter_map(|node| node.output(0).cloned());
    let slow: Vec<Name> = made.collect();
    quantized.report.harm =
        dynamic.report.harm.map(|harm| Harm { slow: Slow { nodes: slow.clone(), ..harm.slow }, ..harm });
    quantized.left = Some(Left { slow, ..Left::default() });
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
    let (ready, _) = prepare::prepare(&ready, Some(samples), options, runtime, &mut |_| ())?;
    if !ready.choice.form.is_calibrated() {
        let problem = "is of integer activations: say `form = \"qdq\"`";
        return Err(RecipeError::Part { part: "sensitivity".to_string(), problem: problem.to_string() });
    }
    let ignored = &mut |_| ();
    let mut work = Work::new(&ready, Some(samples), options, target, runtime, ignored);
    let calibrated = work.calibrated()?;
    let written = written(&work.choice, target, &[]);
    let mut scorer = work.look.scorer(&written)?;
    scorer.judge = Some(work.look.judge(None)?);
    let Ready { model, types, choice, .. } = &ready;
    Ok(quantize::sensitivity::sensitivity(&model.graph, types, choice, &calibrated.ranges, true, &mut scorer, told)?)
}

/// The network with its weights alone in integers, but for those of the `sensitive` nodes; as it is where there are none.
fn weights_alone(work: &Work<'_>, sensitive: &[Name]) -> Result<Quantized, RecipeError> {
    let Work { look, choice, .. } = work;
    let scheme = choice.scheme.without(sensitive);
    let (graph, n_weights) = narrow_weights(&look.model.graph, look.types, &scheme, |_| true)?;
    let report = Report { n_weights, ..Report::new(Choice { form: Form::Weights, ..choice.clone() }) };
    Ok(Quantized { model: look.model.with_graph(graph), ranges: None, left: None, report })
}

/// The network of which nothing is left in integers: the weights of what is not sensitive alone are.
pub(super) fn floats(work: &Work<'_>, calibrated: Calibrated) -> Result<Quantized, RecipeError> {
    let sensitive = calibrated.left.as_ref().map_or(&[][..], |left| &left.sensitive);
    let quantized = weights_alone(work, sensitive)?;
    let report = Report {
        calibrated_on: calibrated.by,
        n_samples: calibrated.ranges.n_samples,
        harm: calibrated.harm,
        mixed: calibrated.mixed,
        ..quantized.report
    };
    Ok(Quantized { ranges: Some(calibrated.ranges), left: calibrated.left, report, ..quantized })
}

/// The network in integers as it is written, and what was done.
pub(super) fn finish(work: &Work<'_>, graph: &Graph, calibrated: Calibrated) -> Result<Quantized, RecipeError> {
    let Work { look, choice, target, .. } = work;
    let Calibrated { plan, ranges, by, left, harm, mixed, .. } = calibrated;
    let mut float = plan.float.clone();
    let (mut graph, n_stored) = stored(graph, &choice.scheme, left.as_ref().map_or(&[], |left| &left.slow))?;
    if choice.form == Form::Qoperator {
        let lowered = to_qoperator(&graph, &qoperators(*target))?;
        float.extend(lowered.declined.into_iter().map(|Declined { node, reason }| Float { node, reason }));
        graph = lowered.graph;
    }
    let mut model = look.model.clone();
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
        ..Report::new(choice.clone())
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
fn halved(work: &mut Work<'_>, dtype: HalfType) -> Result<Quantized, RecipeError> {
    let weights_only = work.choice.form == Form::Weights;
    let mut ranges = None;
    let (model, types) = (work.look.model, work.look.types);
    if !weights_only && work.look.samples.is_some() {
        let is_float = |name: &&Name| types.tensor(name).is_some_and(|known| known.dtype == DType::F32);
        let made = model.graph.nodes.iter().flat_map(|node| node.outputs.iter().flatten());
        let values: Vec<Name> = made.filter(is_float).cloned().collect();
        ranges = Some(work.ranges(&values, false)?.0);
    }
    let greatest = |(name, seen): (&Name, &Statistics)| (name.clone(), seen.min.abs().max(seen.max.abs()));
    let options = HalfOptions {
        dtype,
        weights_only,
        keep: work.options.exclude.iter().cloned().collect(),
        ranges: ranges.as_ref().map(|ranges: &Ranges| ranges.values.iter().map(greatest).collect()),
        ..HalfOptions::default()
    };
    let halved = to_half(&model.graph, &options)?;
    let opset = model.opset.max(halved.opset);
    let report = Report {
        n_samples: ranges.as_ref().map_or(0, |ranges| ranges.n_samples),
        calibrated_on: ranges.as_ref().map(|_| work.look.runtime.name().to_string()),
        n_weights: if weights_only { halved.n_narrowed } else { 0 },
        n_halved: if weights_only { 0 } else { halved.n_narrowed },
        float: halved.kept.into_iter().map(|Kept { node, reason }| Float { node, reason }).collect(),
        notes: halved.notes,
        ..Report::new(work.choice.clone())
    };
    let model = Model { opset, ..model.with_graph(halved.graph) };
    Ok(Quantized { model, ranges, left: None, report })
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
    narrow_weights(graph, &types, &scheme, is_stored)
}

/// The network with these of the weights that a scheme means as integers, and how many there are.
fn narrow_weights(
    graph: &Graph,
    types: &Types,
    scheme: &Scheme,
    is_meant: impl Fn(&WeightSite) -> bool,
) -> Result<(Graph, usize), RecipeError> {
    let mut sites = match quantize::weight_sites(graph, types, scheme) {
        Err(QuantizeError::Nothing { .. }) => Vec::new(),
        sites => sites?,
    };
    sites.retain(is_meant);
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
