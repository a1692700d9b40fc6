//! `aludel quantize`: a network in narrow numbers.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::load::{self, RuntimeChoice, word};
use super::progress::Progress;
use super::table::{Side, table};
use super::{Outcome, format, saturation};
use crate::compress::quantize::mixed::Budget;
use crate::compress::quantize::options::{
    ActivationOptions, Form, Ports, QuantizeOptions, Recurrent, Target, To, WeightOptions,
};
use crate::compress::quantize::plan::Float;
use crate::compress::quantize::ports::IntegerPort;
use crate::compress::quantize::scheme::{Granularity, Integer};
use crate::compress::quantize::sensitivity::Layer;
use crate::compress::quantize::{Calibrator, Ranges, Rounding};
use crate::graph::Model;
use crate::graph::probe::Quality;
use crate::learn::integer::Saturation;
use crate::measure::child::RuntimeName;
use crate::measure::runtime::Runtime;
use crate::recipe::quantize::{self as recipe, Quantized};
use crate::recipe::samples::Samples;
use crate::store;

/// Write a network in integers or 16-bit floats, its ranges taken from samples
///
/// What is not said is chosen for the runtime that will run the file, and --explain says why. Weights alone need no samples.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aludel quantize model.onnx --runtime ort --data calib.npz -o int8.onnx\n  aludel quantize model.onnx --form weights -o small.onnx\n  aludel quantize model.onnx --runtime ort --data data.toml --calibrator mse --exclude '/head/*' -o int8.onnx"
)]
pub(super) struct Arguments {
    /// An ONNX file
    model: PathBuf,
    /// Where to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "sensitivity")]
    output: Option<PathBuf>,
    /// int8, int4 (weights alone), fp16 or bf16
    #[arg(long, value_name = "TYPE", default_value = "int8", value_parser = word::<To>)]
    to: To,
    /// qdq, qoperator, dynamic, weights, matmulnbits (onnxruntime), or whole for fp16 and bf16
    #[arg(long, value_name = "FORM", value_parser = word::<Form>)]
    form: Option<Form>,
    /// Samples: a .npz whose arrays are named after the inputs (x for a single one), or a data descriptor (TOML)
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Samples to take of it; 512 where it is not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    samples: Option<u64>,
    /// min-max, moving-average, entropy, mse, or a percentile, 99.999 where it is not given
    #[arg(long, value_name = "NAME", value_parser = calibrator)]
    calibrator: Option<Calibrator>,
    /// Type of activations: u8, i8, u16 or i16
    #[arg(long, value_name = "TYPE", value_parser = word::<Integer>)]
    activations: Option<Integer>,
    /// Put zero in the middle of the type of activations
    #[arg(long)]
    symmetric: bool,
    /// Type of weights: i8, u8, i4, u4, i16 or u16
    #[arg(long, value_name = "TYPE", value_parser = word::<Integer>)]
    weights: Option<Integer>,
    /// Bits of the weights' type that are used; 7 of 8 are safe on x86 without VNNI
    #[arg(long, value_name = "N")]
    weight_bits: Option<u32>,
    /// One scale for a whole weight, not one for each channel
    #[arg(long, conflicts_with = "block")]
    per_tensor: bool,
    /// A scale for so many neighbouring weights
    #[arg(long, value_name = "N")]
    block: Option<usize>,
    /// Type of embeddings; without it i8 where weights have four bits
    #[arg(long, value_name = "TYPE", value_parser = word::<Integer>)]
    embeddings: Option<Integer>,
    /// How weights are rounded: nearest, or by samples gptq or adaround; gptq where weights have four bits and there are samples
    #[arg(long, value_name = "NAME", value_parser = word::<Rounding>)]
    rounding: Option<Rounding>,
    /// Operators that compute in integers
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    operators: Option<Vec<String>>,
    /// Nodes that stay in floats (repeatable): an operator, or a pattern for names of nodes or of what they make
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Quantize products of two activations, as in attention, too
    #[arg(long)]
    activation_products: bool,
    /// Bring the weights of neighbouring products to one range, channel by channel: for depthwise networks, and one scale a weight
    #[arg(long)]
    equalize: bool,
    /// Let biases make up for the mean of what rounding adds
    #[arg(long)]
    bias_correction: bool,
    /// Move so much of the outliers of activations into weights: 0 none, 1 all; 0.5 is usual
    #[arg(long, value_name = "ALPHA")]
    smooth: Option<f64>,
    /// int: inputs and outputs become integers, too, whose scales the file names
    #[arg(long, value_name = "KIND", value_parser = word::<Ports>)]
    ports: Option<Ports>,
    /// decompose: RNN, GRU and LSTM of known length are written out step by step, so that their products compute in integers
    #[arg(long, value_name = "keep|decompose", default_value = "keep", value_parser = word::<Recurrent>)]
    recurrent: Recurrent,
    /// Of matmulnbits, what onnxruntime multiplies in: 4 integers of eight bits (the default), 1 f32, 0 what it likes
    #[arg(long, value_name = "0|1|4")]
    accuracy_level: Option<i64>,
    #[command(flatten)]
    runtime: RuntimeChoice,
    /// Leave in integers what floats were measured to be quicker at on the runtime that is named; nothing is timed then
    #[arg(long)]
    keep_slow: bool,
    /// Points of accuracy that may be lost on labelled samples, 0.01 for one in a hundred: as few layers as can be stay in floats for it
    #[arg(long, value_name = "SHARE")]
    accuracy_drop: Option<f64>,
    /// The least signal over noise of the outputs, in dB: as few layers as can be stay in floats for it
    #[arg(long, value_name = "DB")]
    min_sqnr: Option<f64>,
    /// The most time that the network may take, in times of that in floats: layers stay in floats as far as that allows
    #[arg(long, value_name = "RATIO")]
    max_time: Option<f64>,
    /// The most bytes that the file may have
    #[arg(long, value_name = "N")]
    max_bytes: Option<u64>,
    /// Say how much each layer suffers from integers, alone in them and alone out of them, and write nothing
    #[arg(long, conflicts_with_all = ["output", "save_ranges", "ranges"])]
    sensitivity: bool,
    /// Write what was seen of the values to this file, for --ranges
    #[arg(long, value_name = "FILE.json")]
    save_ranges: Option<PathBuf>,
    /// Take what was seen of the values from this file, and run no samples
    #[arg(long, value_name = "FILE.json", conflicts_with = "data")]
    ranges: Option<PathBuf>,
    /// The opset to write; without it the file's own, raised where integers need it
    #[arg(long, value_name = "N")]
    opset: Option<u32>,
    /// Say why each default was chosen, and which nodes stay in floats
    #[arg(long)]
    explain: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

fn calibrator(text: &str) -> Result<Calibrator, String> {
    match text.parse::<f64>() {
        Ok(percent) => Ok(Calibrator::Percentile(percent)),
        Err(_) => word(text),
    }
}

#[derive(Serialize)]
struct Report {
    aludel: &'static str,
    output: PathBuf,
    opset: u32,
    /// Why the opset is not the file's own, where nobody asked for another.
    raised_because: Option<String>,
    bytes_before: u64,
    bytes_after: u64,
    #[serde(flatten)]
    done: recipe::Report,
    /// Products whose sums can saturate on x86 without VNNI.
    saturable: Vec<Saturation>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let loaded = load::load(&arguments.model)?;
    let samples = samples(arguments)?;
    let (target, runtimes) = match arguments.runtime.runtime[..] {
        [] => (Target::Any, load::open_runtimes(&arguments.runtime)?),
        [RuntimeName::Ort] => (Target::Onnxruntime, load::open_runtimes(&arguments.runtime)?),
        [RuntimeName::Tract] => (Target::Tract, load::open_runtimes(&arguments.runtime)?),
        _ => bail!("a file is quantized for one runtime: name one, or none for a file that is safe everywhere"),
    };
    // onnxruntime comes last where both are at hand, and is the quicker one for networks of floats.
    let runtime = runtimes.last().context("no runtime is at hand to calibrate with")?;
    if arguments.sensitivity {
        return sensitivity(arguments, &loaded.model, target, samples.as_ref(), runtime.runtime.as_ref());
    }
    let progress = Progress::start("calibrating");
    let mut told = |n: u64| progress.set_message(format!("calibrating: {n} samples"));
    let options = options(arguments);
    let quantized =
        recipe::quantize(&loaded.model, &options, target, samples.as_ref(), runtime.runtime.as_ref(), None, &mut told)
            .with_context(|| format!("{} was not quantized", arguments.model.display()))?;
    drop(progress);
    if let Some(path) = &arguments.save_ranges {
        let ranges = quantized.ranges.as_ref().context("--save-ranges: no values were looked at in this form")?;
        store::write_atomic(path, &serde_json::to_vec(ranges)?)?;
    }
    let output = arguments.output.as_ref().context("-o is missing: where to write")?;
    let report = write(arguments, output, &quantized, loaded.file_bytes)?;
    let code = u8::from(report.done.mixed.as_ref().is_some_and(|precision| !precision.mixed.is_met));
    let outcome =
        if arguments.json { Outcome::json(&report)? } else { Outcome::done(text(&report, arguments.explain)) };
    Ok(Outcome { code, ..outcome })
}

/// How much each layer suffers.
fn sensitivity(
    arguments: &Arguments,
    model: &Model,
    target: Target,
    samples: Option<&Samples>,
    runtime: &dyn Runtime,
) -> anyhow::Result<Outcome> {
    let samples = samples.context("--data is missing: how much layers suffer shows on samples")?;
    let progress = Progress::start("calibrating");
    let mut told = |done: usize, of: usize| progress.set_message(format!("layer {} of {of}", done + 1));
    let layers = recipe::sensitivity(model, &options(arguments), target, samples, runtime, &mut told)?;
    drop(progress);
    if arguments.json {
        return Outcome::json(
            &serde_json::json!({ "aludel": env!("CARGO_PKG_VERSION"), "runtime": runtime.name(), "layers": layers }),
        );
    }
    let has_labels = layers.iter().any(|layer| layer.alone.accuracy.is_some());
    let shown = |quality: &Quality| {
        let accuracy =
            has_labels.then(|| quality.accuracy.map_or("–".to_string(), |share| format!("{:.2}", 100.0 * share)));
        [Some(format!("{:.1}", quality.sqnr_db())), accuracy].into_iter().flatten().collect::<Vec<String>>()
    };
    let mut columns = vec![
        ("layer", Side::Left),
        ("operator", Side::Left),
        ("MACs", Side::Right),
        ("alone in integers, dB", Side::Right),
    ];
    columns.extend(has_labels.then_some(("right, %", Side::Right)));
    columns.push(("all but it, dB", Side::Right));
    columns.extend(has_labels.then_some(("right, %", Side::Right)));
    let row = |layer: &Layer| {
        let names = vec![layer.node.to_string(), layer.operator.clone(), format::count(layer.macs)];
        [names, shown(&layer.alone), layer.without.as_ref().map(shown).unwrap_or_default()].concat()
    };
    let title = format!("on {}, what harms most for the work that it saves first\n\n", runtime.name());
    Ok(Outcome::done(title + &table(&columns, layers.iter().map(row))))
}

fn samples(arguments: &Arguments) -> anyhow::Result<Option<Samples>> {
    if let Some(path) = &arguments.ranges {
        let ranges: Ranges = serde_json::from_slice(&store::read(path)?)
            .with_context(|| format!("{} holds no ranges", path.display()))?;
        return Ok(Some(Samples::Ranges(Box::new(ranges))));
    }
    load::samples(arguments.data.as_deref())
}

fn options(arguments: &Arguments) -> QuantizeOptions {
    let granularity = match (arguments.per_tensor, arguments.block) {
        (true, _) => Some(Granularity::Tensor),
        (false, Some(block)) => Some(Granularity::Block(block)),
        (false, None) => None,
    };
    QuantizeOptions {
        to: arguments.to,
        form: arguments.form,
        activations: ActivationOptions { dtype: arguments.activations, symmetric: arguments.symmetric.then_some(true) },
        weights: WeightOptions { dtype: arguments.weights, symmetric: None, granularity, bits: arguments.weight_bits },
        embeddings: arguments.embeddings,
        rounding: arguments.rounding,
        operators: arguments.operators.clone(),
        exclude: arguments.exclude.clone(),
        activation_products: arguments.activation_products.then_some(true),
        calibrator: arguments.calibrator,
        samples: arguments.samples.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        keep_slow: arguments.keep_slow,
        budget: Budget {
            accuracy_drop: arguments.accuracy_drop,
            sqnr_db: arguments.min_sqnr,
            time: arguments.max_time,
            bytes: arguments.max_bytes,
        },
        equalize: arguments.equalize,
        bias_correction: arguments.bias_correction,
        smooth: arguments.smooth,
        ports: arguments.ports,
        recurrent: arguments.recurrent,
        accuracy_level: arguments.accuracy_level,
        ..QuantizeOptions::default()
    }
}

fn write(arguments: &Arguments, output: &Path, quantized: &Quantized, bytes_before: u64) -> anyhow::Result<Report> {
    let (written, bytes_after) = load::write(&quantized.model, output, arguments.opset)?;
    Ok(Report {
        aludel: env!("CARGO_PKG_VERSION"),
        output: output.to_owned(),
        opset: written.opset,
        raised_because: written.raised,
        bytes_before,
        bytes_after,
        done: quantized.report.clone(),
        saturable: saturation::saturable(&quantized.model.graph),
    })
}

fn text(report: &Report, explain: bool) -> String {
    let done = &report.done;
    let mut rows = vec![(
        "file".to_string(),
        format!("{} → {}", format::bytes(report.bytes_before), format::bytes(report.bytes_after)),
    )];
    if !done.integer.is_empty() {
        let operators: Vec<String> = done.integer.iter().map(|(operator, n)| format!("{n} {operator}")).collect();
        rows.push(("in integers".to_string(), operators.join(", ")));
    }
    if done.n_weights > 0 {
        rows.push(("narrow constants".to_string(), done.n_weights.to_string()));
    }
    if done.n_halved > 0 {
        rows.push(("nodes in 16 bits".to_string(), done.n_halved.to_string()));
    }
    if let Some(runtime) = &done.calibrated_on {
        rows.push(("calibrated".to_string(), format!("on {} samples by {runtime}", done.n_samples)));
    }
    for port in &done.ports {
        let side = if port.is_output { "output" } else { "input" };
        let IntegerPort { name, dtype, scale, zero_point, .. } = port;
        rows.push((format!("{side} {name}"), format!("{dtype}, scale {scale}, zero point {zero_point}")));
    }
    if !done.float.is_empty() {
        rows.push(("in f32 although asked".to_string(), format!("{} nodes", done.float.len())));
    }
    let columns = [("quantized", Side::Left), ("", Side::Left)];
    let mut text = table(&columns, rows.into_iter().map(|(what, how)| vec![what, how]));
    if report.bytes_after > report.bytes_before {
        text.push_str("the file has become larger: what says how to read narrow numbers outweighs them, or weights that were stored narrow are no longer\n");
    }
    if let Some(reason) = &report.raised_because {
        text.push_str(&format!("the opset was raised to {}: {reason}\n", report.opset));
    }
    done.measured().iter().for_each(|line| text.push_str(&format!("{line}\n")));
    done.notes.iter().for_each(|note| text.push_str(&format!("{note}\n")));
    text.push_str(&saturation::line(&report.saturable));
    if explain {
        text.push('\n');
        done.choice.reasons.iter().for_each(|reason| text.push_str(&format!("{reason}\n")));
        if !done.float.is_empty() {
            let cells = |float: &Float| vec![float.node.clone(), float.reason.clone()];
            let columns = [("in f32", Side::Left), ("because", Side::Left)];
            text.push('\n');
            text.push_str(&table(&columns, done.float.iter().map(cells)));
        }
        if !report.saturable.is_empty() {
            text.push('\n');
            text.push_str(&saturation::rows(&report.saturable));
        }
    }
    text
}
