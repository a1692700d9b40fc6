//! `aludel compare`: how far the outputs of two files lie apart, on each runtime and between the runtimes, and where they part.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use indexmap::IndexMap;
use serde::Serialize;

use super::feeds::{self, Feed};
use super::load::{self, BindArguments, RuntimeArguments};
use super::progress::Progress;
use super::table::{Side, table};
use super::validate::Judged;
use super::{Outcome, device, format};
use crate::compress::quantize::debug::Distance;
use crate::graph::Name;
use crate::graph::tensor::Tensor;
use crate::measure::difference::{self, Difference};
use crate::measure::runtime::remote::Device;
use crate::measure::runtime::{ModelBytes, Options, Runtime, ValueInfo};
use crate::measure::target;
use crate::recipe::debug::{self, Layers};
use crate::recipe::emulate::Emulated;

/// How far the outputs of two files lie apart, or whether a student may replace its teacher
///
/// With --data, labelled samples: accuracy beside the teacher's with intervals and a verdict at a margin, agreement, size, and latency in
/// turns; exit code 0 where the student passes. `aludel gate` reads the report.
///
/// Both files run on the same inputs: arrays of a `.npz` named after the model's inputs (`x` for a single one), or seeded
/// random ones. Outputs are matched by name, or by position where the names differ. With two runtimes each file is also compared between them; --arithmetic adds machines that are not at hand.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aludel compare teacher.onnx student.onnx\n  aludel compare float.onnx int8.onnx --inputs calib.npz --runtime ort --json\n  aludel compare int8.onnx --runtime ort --arithmetic x86-avx2 --inputs calib.npz\n  aludel compare teacher.onnx student.onnx --data test.toml --margin 0.02 --report report.json"
)]
pub(super) struct Arguments {
    /// The reference
    a: PathBuf,
    /// The other; without it only the runtimes are compared
    b: Option<PathBuf>,
    #[command(flatten)]
    runtimes: RuntimeArguments,
    /// Also as onnxruntime on another machine would compute it in integers: x86-avx2 (no VNNI), x86-vnni, arm64 or
    /// microcontroller; computed on this one
    #[arg(long, value_name = "MACHINE", value_delimiter = ',', value_parser = Emulated::named)]
    arithmetic: Vec<Emulated>,
    /// Also on devices, by the agent there (repeatable): a name of `aludel targets list`, or a TOML file; emulated ones count, too
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',')]
    target: Vec<String>,
    #[command(flatten)]
    bind: BindArguments,
    /// Arrays named after the inputs; where the first dimension is fixed to 1, one run a row
    #[arg(long, value_name = "FILE.npz", conflicts_with = "samples")]
    inputs: Option<PathBuf>,
    /// Runs on random inputs
    #[arg(long, default_value_t = 4)]
    samples: u64,
    /// Threads that a run may use
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Seed of the random inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also compare inner values and weights, by name, on the last of the runtimes: which operator adds most noise
    #[arg(long, requires = "b")]
    layers: bool,
    #[command(flatten)]
    judged: Judged,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    aludel: &'static str,
    n_runs: usize,
    inputs: String,
    rows: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    layers: Option<Layers>,
}

/// One output of one pair.
#[derive(Serialize)]
struct Row {
    reference: String,
    other: String,
    output: String,
    #[serde(flatten)]
    difference: Difference,
}

/// What a file gave on a runtime.
struct Answers {
    label: String,
    outputs: Vec<Answer>,
}

/// One output: its shape in each run, and the elements of all runs, one after another.
struct Answer {
    name: String,
    shapes: Vec<Vec<usize>>,
    numbers: Vec<f64>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    if let (true, Some(b)) = (arguments.judged.is_asked(), &arguments.b) {
        return arguments.judged.run(&arguments.a, b, &arguments.runtimes.choice, arguments.json);
    }
    let mut runtimes: Vec<Named> =
        load::open_runtimes(&arguments.runtimes.choice)?.into_iter().map(|open| Named::of(open.runtime)).collect();
    let n_found = runtimes.len();
    runtimes.extend(arguments.arithmetic.iter().map(|machine| Named::of(Box::new(*machine))));
    for name in &arguments.target {
        for model in [Some(&arguments.a), arguments.b.as_ref()].into_iter().flatten() {
            device::whole(model)?;
        }
        let target = target::find(name)?;
        runtimes.push(Named { name: target.name.clone(), runtime: Box::new(Device::new(target)) });
    }
    if arguments.b.is_none() && runtimes.len() < 2 {
        bail!("nothing to compare with: give a second model, or have both runtimes at hand");
    }
    let progress = Progress::start("running");
    let mut rows = Vec::new();
    let mut n_runs = 0;
    let mut before: Option<Pair> = None;
    for (runtime_idx, runtime) in runtimes.iter().enumerate() {
        progress.set_message(format!("running on {}", runtime.name));
        let pair = match pair(arguments, runtime) {
            Ok(pair) => pair,
            Err(error)
                if arguments.runtimes.choice.runtime.is_empty() && runtime_idx < n_found && runtimes.len() > 1 =>
            {
                tracing::warn!("{} is left out: {error:#}", runtime.name);
                continue;
            }
            Err(error) => return Err(error),
        };
        n_runs = pair.n_runs;
        if let Some(b) = &pair.b {
            rows.extend(differences(&pair.a, b)?);
        }
        if let Some(before) = &before {
            rows.extend(differences(&before.a, &pair.a)?);
            if let (Some(b_before), Some(b)) = (&before.b, &pair.b) {
                rows.extend(differences(b_before, b)?);
            }
        }
        before = Some(pair);
    }
    if rows.is_empty() {
        bail!("nothing was compared: fewer runtimes than needed ran the files");
    }
    let layers = match (&arguments.b, runtimes[..n_found].last()) {
        (Some(b), Some(runtime)) if arguments.layers => {
            progress.set_message(format!("comparing inner values on {}", runtime.name));
            Some(layers(arguments, runtime.runtime.as_ref(), b)?)
        }
        _ => None,
    };
    drop(progress);
    let inputs = match &arguments.inputs {
        Some(path) => path.display().to_string(),
        None => format!("random, seed {}", arguments.seed),
    };
    let report = Report { aludel: env!("CARGO_PKG_VERSION"), n_runs, inputs, rows, layers };
    if arguments.json { Outcome::json(&report) } else { Ok(Outcome::done(text(&report))) }
}

/// A runtime, and what its rows are called.
struct Named {
    name: String,
    runtime: Box<dyn Runtime>,
}

impl Named {
    fn of(runtime: Box<dyn Runtime>) -> Named {
        Named { name: runtime.name().to_string(), runtime }
    }
}

/// The inner values of both files on a runtime.
fn layers(arguments: &Arguments, runtime: &dyn Runtime, b: &Path) -> anyhow::Result<Layers> {
    let [float, quantized] = [&arguments.a, b].map(load::load);
    let (float, quantized) = (float?.model, quantized?.model);
    let session = runtime.load(&load::model_bytes(&arguments.a)?, &Options::default())?;
    let batches = make_feeds(arguments, session.inputs())?;
    let batches: Vec<IndexMap<Name, Tensor>> = batches
        .into_iter()
        .map(|feed| feed.into_iter().map(|(name, tensor)| (name.into(), tensor)).collect())
        .collect();
    Ok(debug::layers(&float, &quantized, &batches, runtime)?)
}

/// Both files on one runtime.
struct Pair {
    n_runs: usize,
    a: Answers,
    b: Option<Answers>,
}

fn pair(arguments: &Arguments, runtime: &Named) -> anyhow::Result<Pair> {
    let (feeds, a) = answers(arguments, runtime, &arguments.a, None)?;
    let b = match &arguments.b {
        Some(path) => Some(answers(arguments, runtime, path, Some(&feeds))?.1),
        None => None,
    };
    Ok(Pair { n_runs: feeds.len(), a, b })
}

/// Runs a file on a runtime, on the feeds given or on those that its own inputs call for.
fn answers(
    arguments: &Arguments,
    runtime: &Named,
    path: &Path,
    feeds: Option<&[Feed]>,
) -> anyhow::Result<(Vec<Feed>, Answers)> {
    let model: ModelBytes = load::model_bytes(path)?;
    let options =
        Options { n_threads: arguments.threads, optimization: arguments.runtimes.optimization, ..Options::default() };
    let mut session = runtime.runtime.load(&model, &options)?;
    let feeds = match feeds {
        Some(feeds) => feeds.iter().map(|feed| renamed(feed, session.inputs(), path)).collect::<anyhow::Result<_>>()?,
        None => make_feeds(arguments, session.inputs())?,
    };
    let mut outputs: Vec<Answer> = Vec::new();
    for outputs_of_run in session.run_all(&feeds)? {
        for (idx, (name, tensor)) in outputs_of_run.into_iter().enumerate() {
            let numbers = difference::numbers(&tensor)
                .with_context(|| format!("output `{name}` is {}, not numbers", tensor.dtype()))?;
            let shape = tensor.shape().to_vec();
            match outputs.get_mut(idx) {
                Some(answer) => {
                    answer.numbers.extend(numbers);
                    answer.shapes.push(shape);
                }
                None => outputs.push(Answer { name, shapes: vec![shape], numbers }),
            }
        }
    }
    let label = format!("{} · {}", path.file_name().unwrap_or(path.as_os_str()).display(), runtime.name);
    Ok((feeds, Answers { label, outputs }))
}

fn make_feeds(arguments: &Arguments, infos: &[ValueInfo]) -> anyhow::Result<Vec<Feed>> {
    if let Some(path) = &arguments.inputs {
        return feeds::from_file(path, infos);
    }
    feeds::random(infos, &arguments.bind.bindings, arguments.seed, arguments.samples)
}

/// The same tensors under the names of the other file's inputs, where those differ.
fn renamed(feed: &[(String, Tensor)], infos: &[ValueInfo], path: &Path) -> anyhow::Result<Feed> {
    if feed.len() != infos.len() {
        bail!("{} has {} inputs, the reference has {}", path.display(), infos.len(), feed.len());
    }
    let named = |name: &str| feed.iter().find(|(own, _)| own == name);
    let tensor =
        |(idx, info): (usize, &ValueInfo)| (info.name.clone(), named(&info.name).unwrap_or(&feed[idx]).1.clone());
    Ok(infos.iter().enumerate().map(tensor).collect())
}

fn differences(a: &Answers, b: &Answers) -> anyhow::Result<Vec<Row>> {
    if a.outputs.len() != b.outputs.len() {
        bail!("{} has {} outputs, {} has {}", a.label, a.outputs.len(), b.label, b.outputs.len());
    }
    let mut rows = Vec::new();
    for (idx, reference) in a.outputs.iter().enumerate() {
        let same_name = b.outputs.iter().find(|other| other.name == reference.name);
        let other = same_name.unwrap_or(&b.outputs[idx]);
        if reference.shapes != other.shapes {
            let [one, two] =
                [reference, other].map(|answer| format!("{:?}", answer.shapes.first().cloned().unwrap_or_default()));
            bail!("`{}` has shape {one} in {}, `{}` {two} in {}", reference.name, a.label, other.name, b.label);
        }
        let output = match same_name {
            Some(_) => reference.name.clone(),
            None => format!("{} / {}", reference.name, other.name),
        };
        let difference = difference::between(&reference.numbers, &other.numbers);
        rows.push(Row { reference: a.label.clone(), other: b.label.clone(), output, difference });
    }
    Ok(rows)
}

fn text(report: &Report) -> String {
    let columns = [
        ("reference", Side::Left),
        ("against", Side::Left),
        ("output", Side::Left),
        ("elements", Side::Right),
        ("differ", Side::Right),
        ("max abs", Side::Right),
        ("mean abs", Side::Right),
        ("max / magnitude", Side::Right),
        ("cosine", Side::Right),
        ("SQNR dB", Side::Right),
    ];
    let rows = report.rows.iter().map(|row| {
        let difference = &row.difference;
        let number = |value: Option<f64>, show: &dyn Fn(f64) -> String| value.map_or("–".to_string(), show);
        let mismatches = difference.n_nan_mismatches + difference.n_infinity_mismatches;
        let outside = if mismatches == 0 { String::new() } else { format!(" (+{mismatches} NaN or infinite)") };
        vec![
            row.reference.clone(),
            row.other.clone(),
            row.output.clone(),
            difference.n_elements.to_string(),
            format!("{}{outside}", difference.n_different),
            format::scientific(difference.max_absolute),
            format::scientific(difference.mean_absolute),
            number(difference.max_relative, &format::scientific),
            number(difference.cosine, &|value| format!("{value:.7}")),
            number(difference.sqnr_db, &|value| format!("{value:.1}")),
        ]
    });
    let runs = if report.n_runs == 1 { "1 run" } else { &format!("{} runs", report.n_runs) };
    let inner = report.layers.as_ref().map_or_else(String::new, layers_text);
    format!("{runs}, inputs: {}\n\n{}{inner}", report.inputs, table(&columns, rows))
}

/// The worst values and weights.
fn layers_text(layers: &Layers) -> String {
    const SHOWN: usize = 20;
    let per_cent = |noise: Option<f64>| noise.map_or("–".to_string(), |noise| format!("{:.3} %", 100.0 * noise));
    let figures = |distance: &Distance| {
        let decibels = distance.sqnr_db.map_or("–".to_string(), |value| format!("{value:.1}"));
        let cosine = distance.cosine.map_or("–".to_string(), |value| format!("{value:.5}"));
        vec![decibels, cosine, per_cent(distance.noise)]
    };
    let figure_columns = [("SQNR dB", Side::Right), ("cosine", Side::Right), ("noise / signal", Side::Right)];
    let named = |first, second| [(first, Side::Left), (second, Side::Left)].into_iter().chain(figure_columns);
    let more = |n: usize| if n > SHOWN { format!("… and {} others\n", n - SHOWN) } else { String::new() };

    let columns: Vec<(&str, Side)> = named("value", "made by").chain([("added here", Side::Right)]).collect();
    let values = layers.values.iter().take(SHOWN).map(|error| {
        let names = vec![error.value.to_string(), error.operator.clone()];
        [names, figures(&error.distance), vec![per_cent(error.added)]].concat()
    });
    let mut text = format!("\ninner values on {}, what adds most noise first\n\n", layers.runtime);
    text.push_str(&table(&columns, values));
    text.push_str(&more(layers.values.len()));
    if !layers.weights.is_empty() {
        let columns: Vec<(&str, Side)> = named("weight", "read by").collect();
        let weights =
            layers.weights.iter().take(SHOWN).map(|error| {
                [vec![error.weight.to_string(), error.operator.clone()], figures(&error.distance)].concat()
            });
        text.push_str("\nweights, the worst first\n\n");
        text.push_str(&table(&columns, weights));
        text.push_str(&more(layers.weights.len()));
    }
    text
}
