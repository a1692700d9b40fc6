//! `aludel audit`: what each runtime makes of a file, whether it runs in int8, and whether it is right.

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::Serialize;

use super::feeds::{self, Feed};
use super::load::{self, ModelArguments, OpenRuntime, RuntimeArguments};
use super::progress::Progress;
use super::table::{Side, table};
use super::{Outcome, format, saturation};
use crate::audit::{
    self, Audit, AuditError, CheckOptions, Correctness, Execution, InFloat, Quantization, Settings, Verdict, WhyFloat,
    WrongOperator,
};
use crate::graph::Model;
use crate::learn::integer::Saturation;
use crate::measure::machine::Machine;
use crate::measure::runtime::explain::Runs;
use crate::measure::runtime::{ModelBytes, Options};

/// Say what runtimes make of a model: what they fuse, what runs in int8, and whether it is right
///
/// Each runtime's own optimized graph and profile are read, and its outputs compared with those of aludel's reference interpreter.
/// Where they differ, each operator is tried by itself and the first that goes wrong is named; the exit code is then 1. The
/// reference is slow: bind open dimensions to small numbers.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aludel audit int8.onnx --runtime tract,ort\n  aludel audit model.onnx --runtime ort --data calib.npz --samples 8 --layers"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    runtimes: RuntimeArguments,
    /// Arrays named after the inputs; where the first dimension is fixed to 1, one run a row. Without it inputs are random
    #[arg(long, value_name = "FILE.npz")]
    data: Option<PathBuf>,
    /// Inputs to compare the outputs on: this many of the file's, or random ones
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    samples: u64,
    /// Seed of the random inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Timed runs
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Threads that a run may use
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Greatest difference of an output, as part of its greatest magnitude; without it 1e-4 for floats, 0.02 or two steps
    /// where the network is quantized
    #[arg(long, value_name = "PART", value_parser = part)]
    tolerance: Option<f64>,
    /// Keep onnxruntime from fusing QuantizeLinear and DequantizeLinear, as is right where only weights are quantized
    #[arg(long)]
    no_fuse_quantization: bool,
    /// Try every operator by itself even where the outputs agree
    #[arg(long)]
    every_operator: bool,
    /// Add a row for every node of the runtime's graph
    #[arg(long)]
    layers: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    aludel: &'static str,
    machine: Machine,
    model: String,
    inputs: String,
    audits: Vec<Audit>,
    refused: Vec<Refused>,
    /// Products whose sums can saturate on x86 without VNNI.
    saturable: Vec<Saturation>,
}

/// A runtime that has no audit.
#[derive(Serialize)]
struct Refused {
    runtime: &'static str,
    reason: String,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let runtimes = load::open_runtimes(&arguments.runtimes.choice)?;
    let path = &arguments.model.model;
    let loaded = load::load(path)?;
    let bytes = load::model_bytes(path)?;
    let inputs = match &arguments.data {
        Some(path) => path.display().to_string(),
        None => format!("random, seed {}", arguments.seed),
    };
    let mut report = Report {
        aludel: env!("CARGO_PKG_VERSION"),
        machine: Machine::this(),
        model: path.display().to_string(),
        inputs,
        audits: Vec::new(),
        refused: Vec::new(),
        saturable: saturation::saturable(&loaded.model.graph),
    };
    let progress = Progress::start("auditing");
    let mut errors = Vec::new();
    for open in &runtimes {
        match audit_on(arguments, open, &loaded.model, &bytes, &progress) {
            Ok(audit) => report.audits.push(audit),
            Err(error) => errors.push((open.runtime.name(), error)),
        }
    }
    if report.audits.is_empty()
        && let Some((_, error)) = errors.pop()
    {
        errors.iter().for_each(|(runtime, error)| tracing::warn!("no audit on {runtime}: {error:#}"));
        return Err(error);
    }
    let refused = |(runtime, error): (&'static str, anyhow::Error)| Refused { runtime, reason: format!("{error:#}") };
    report.refused = errors.into_iter().map(refused).collect();
    drop(progress);
    let code = code(&report);
    let outcome = if arguments.json { Outcome::json(&report)? } else { Outcome::done(text(&report, arguments.layers)) };
    Ok(Outcome { code, ..outcome })
}

fn audit_on(
    arguments: &Arguments,
    open: &OpenRuntime,
    model: &Model,
    bytes: &ModelBytes,
    progress: &Progress,
) -> anyhow::Result<Audit> {
    let options = Options {
        n_threads: arguments.threads,
        optimization: arguments.runtimes.optimization,
        fuse_quantization: !arguments.no_fuse_quantization,
        ..Options::default()
    };
    let settings = Settings {
        runs: Runs { n_warm_up: 5, n_timed: usize::try_from(arguments.runs)? },
        check: CheckOptions { tolerance: arguments.tolerance, every_operator: arguments.every_operator },
        options,
    };
    progress.set_message(format!("loading on {}", open.runtime.name()));
    let session = open.runtime.load(bytes, &settings.options)?;
    let mut given: Vec<Feed> = match &arguments.data {
        Some(path) => feeds::from_file(path, session.inputs())?,
        None => feeds::random(session.inputs(), &arguments.model.bind.bindings, arguments.seed, arguments.samples)?,
    };
    given.truncate(usize::try_from(arguments.samples).unwrap_or(usize::MAX));
    drop(session);
    let audit = audit::audit(model, bytes, open.runtime.as_ref(), &given, &settings, &mut |doing| {
        progress.set_message(doing);
    });
    // As what it is, so that its hint is found.
    audit.map_err(|error| match error {
        AuditError::Runtime(error) => error.into(),
        AuditError::NoFeed => error.into(),
    })
}

/// 1 where a result is wrong, 2 where one is missing.
fn code(report: &Report) -> u8 {
    let verdicts = || report.audits.iter().map(|audit| &audit.correctness.verdict);
    let is_wrong = |verdict: &Verdict| match verdict {
        Verdict::OperatorsGoWrong | Verdict::WrongTogether { .. } | Verdict::AddsUp { .. } => true,
        Verdict::Agrees | Verdict::NotChecked { .. } => false,
    };
    if verdicts().any(is_wrong) {
        1
    } else if !report.refused.is_empty() || verdicts().any(|verdict| matches!(verdict, Verdict::NotChecked { .. })) {
        2
    } else {
        0
    }
}

fn text(report: &Report, layers: bool) -> String {
    let mut parts: Vec<String> = Vec::new();
    for audit in &report.audits {
        let mut part = heading(report, audit);
        part.push_str(&operators(&audit.execution));
        if layers {
            part.push('\n');
            part.push_str(&by_layer(&audit.execution));
        }
        part.push('\n');
        part.push_str(&sources(&audit.execution));
        part.push('\n');
        if let Some(quantization) = &audit.execution.quantization {
            part.push_str(&int8(quantization));
        }
        part.push_str(&correctness(&audit.correctness, &report.inputs));
        for note in &audit.execution.notes {
            part.push_str(&format!("note: {note}\n"));
        }
        parts.push(part);
    }
    for refused in &report.refused {
        parts.push(format!("refused by {}: {}\n", refused.runtime, refused.reason));
    }
    if !report.saturable.is_empty() {
        parts.push(saturation::line(&report.saturable));
    }
    if layers && !report.saturable.is_empty() {
        parts.push(saturation::rows(&report.saturable));
    }
    parts.join("\n")
}

fn heading(report: &Report, audit: &Audit) -> String {
    let execution = &audit.execution;
    let threads = if audit.n_threads == 1 { "1 thread".to_string() } else { format!("{} threads", audit.n_threads) };
    let [median, low, high] =
        [execution.run_us.median, execution.run_us.low, execution.run_us.high].map(format::duration_us);
    let unit = if execution.resolution_us > 0.0 {
        format!(" · its profile counts in steps of {}", format::duration_us(execution.resolution_us))
    } else {
        String::new()
    };
    format!(
        "{} on {} {} · {threads} · {} runs, each {median} (quartiles {low} and {high}), measuring included{unit}\n\n",
        report.model, audit.runtime, audit.runtime_version, execution.n_runs
    )
}

fn operators(execution: &Execution) -> String {
    let columns = [
        ("runs", Side::Left),
        ("type", Side::Left),
        ("nodes", Side::Right),
        ("time", Side::Right),
        ("share", Side::Right),
        ("quartiles", Side::Right),
        ("stands for", Side::Left),
    ];
    let rows = execution.operators.iter().map(|row| {
        vec![
            row.operator.clone(),
            row.types.clone(),
            row.n_nodes.to_string(),
            format::duration_us(row.time_us),
            format::percent(row.share),
            format!("{} – {}", format::percent(row.share_of_runs.low), format::percent(row.share_of_runs.high)),
            if row.stands_for.is_empty() { "–".to_string() } else { counts(&row.stands_for) },
        ]
    });
    table(&columns, rows)
}

/// `9 Conv, 1 Gemm`
fn counts(counts: &IndexMap<String, usize>) -> String {
    counts.iter().map(|(operator, n)| format!("{n} {operator}")).collect::<Vec<_>>().join(", ")
}

fn by_layer(execution: &Execution) -> String {
    let columns = [
        ("node", Side::Left),
        ("runs", Side::Left),
        ("type", Side::Left),
        ("shape", Side::Left),
        ("time", Side::Right),
        ("share", Side::Right),
        ("stands for", Side::Left),
    ];
    let rows = execution.layers.iter().map(|layer| {
        let stands_for = match (&layer.stands_for[..], &layer.part_of) {
            ([], Some(whole)) => format!("part of {whole}"),
            ([], None) => "–".to_string(),
            (nodes, _) => nodes.join(", "),
        };
        vec![
            layer.name.clone(),
            layer.operator.clone(),
            layer.types.clone(),
            format!("{:?}", layer.shape),
            format::duration_us(layer.time_us),
            format::percent(layer.share),
            stands_for,
        ]
    });
    table(&columns, rows)
}

fn sources(execution: &Execution) -> String {
    let columns = [
        ("in the file", Side::Left),
        ("nodes", Side::Right),
        ("at work", Side::Right),
        ("fused into others", Side::Right),
        ("done at load", Side::Right),
        ("gone", Side::Right),
    ];
    let some = |n: usize| if n == 0 { "–".to_string() } else { n.to_string() };
    let rows = execution.sources.iter().map(|(operator, fates)| {
        let numbers = [fates.n, fates.n_at_work, fates.n_absorbed, fates.n_at_load, fates.n_gone];
        std::iter::once(operator.clone()).chain(numbers.map(some)).collect()
    });
    table(&columns, rows)
}

fn int8(quantization: &Quantization) -> String {
    let conversions = format!(
        "QuantizeLinear and DequantizeLinear as work of their own: {} nodes, {} of the time\n",
        quantization.n_conversions,
        format::percent(quantization.conversion_share)
    );
    let n: usize = quantization.operators.values().map(|count| count.n).sum();
    let n_int8: usize = quantization.operators.values().map(|count| count.n_int8).sum();
    let each =
        quantization.operators.iter().map(|(operator, count)| format!("{} of {} {operator}", count.n_int8, count.n));
    let answer = match n_int8 {
        _ if quantization.weights_only => "no, nor does the file ask for it: only constants are quantized".to_string(),
        _ if n == 0 => "there is no operator between DequantizeLinear and QuantizeLinear left to run".to_string(),
        0 => format!("no: {}", each.collect::<Vec<_>>().join(", ")),
        some => {
            let part = if some == n { "yes" } else { "in part" };
            format!("{part}: {}", each.collect::<Vec<_>>().join(", "))
        }
    };
    let mut text = format!("Did it run in int8? {answer}\n");
    text.push_str(&in_float(quantization));
    if !quantization.weights_only && !quantization.left_in_float.is_empty() {
        text.push_str(&format!("  left in float by the file: {}\n", counts(&quantization.left_in_float)));
    }
    text + &conversions
}

/// Those in float, together where the reason is of one kind.
fn in_float(quantization: &Quantization) -> String {
    let mut kinds: IndexMap<WhyFloat, Vec<&InFloat>> = IndexMap::new();
    for node in &quantization.in_float {
        kinds.entry(node.why).or_default().push(node);
    }
    let line = |nodes: &Vec<&InFloat>| {
        let mut n_each: IndexMap<String, usize> = IndexMap::new();
        nodes.iter().for_each(|node| *n_each.entry(node.operator.clone()).or_default() += 1);
        match nodes[..] {
            [node] => format!("  in float: {}: {}\n", node.node, node.reason),
            [first, ..] if nodes.iter().all(|node| node.reason == first.reason) => {
                format!("  in float: {}: {}\n", counts(&n_each), first.reason)
            }
            [first, ..] => format!("  in float: {}; of {}: {}\n", counts(&n_each), first.node, first.reason),
            [] => String::new(),
        }
    };
    kinds.values().map(line).collect()
}

fn correctness(correctness: &Correctness, inputs: &str) -> String {
    let answer = match &correctness.verdict {
        Verdict::Agrees if correctness.n_tried > 0 => {
            format!("yes, and so are {} operators tried by themselves", correctness.n_tried)
        }
        Verdict::Agrees => "yes".to_string(),
        Verdict::OperatorsGoWrong => format!(
            "no: {} of the {} operators tried by themselves go wrong",
            correctness.wrong.len(),
            correctness.n_tried
        ),
        Verdict::WrongTogether { nodes } => {
            format!("no: {}, these together are not: {}", each(correctness), nodes.join(", "))
        }
        Verdict::AddsUp { from } => {
            let from = from.as_ref().map(|node| format!(" from {node} on")).unwrap_or_default();
            let each = each(correctness);
            if correctness.untried.is_empty() || !from.is_empty() {
                format!("no: {each}, but small differences, as rounding makes them, add up{from}")
            } else {
                format!("no: {each}; where the difference comes from is not known")
            }
        }
        Verdict::NotChecked { reason } => format!("not known: the reference cannot compute it: {reason}"),
    };
    let runs = if correctness.n_feeds == 1 { "1 input" } else { &format!("{} inputs", correctness.n_feeds) };
    let took = format::duration_us(correctness.reference_us);
    let mut text = format!("Is it right? {answer}\n  on {runs} ({inputs}), against the reference, which took {took}\n");
    for check in &correctness.outputs {
        let comparison = &check.comparison;
        let off = match (&comparison.problem, &comparison.difference) {
            (Some(problem), _) => problem.clone(),
            (None, Some(difference)) => format!(
                "differs by at most {}, allowed are {} (greatest magnitude {})",
                format::scientific(difference.max_absolute),
                format::scientific(comparison.allowed),
                format::three_digits(difference.reference_magnitude)
            ),
            (None, None) => "is the same".to_string(),
        };
        text.push_str(&format!("  output `{}` {off}\n", check.output));
    }
    if let Some((first, others)) = correctness.wrong.split_first() {
        text.push_str(&wrong_operator(first));
        for other in others {
            let remedy = if other.remedy == first.remedy { "the same" } else { &other.remedy };
            text.push_str(&format!("  also wrong: {}: {}; remedy: {remedy}\n", other.node, how_wrong(other)));
        }
    }
    for untried in &correctness.untried {
        text.push_str(&format!("  not tried: {}: {}\n", untried.node, untried.reason));
    }
    text
}

fn wrong_operator(wrong: &WrongOperator) -> String {
    let alone = match wrong.right_alone {
        Some(true) => "; without its neighbours it is right",
        Some(false) => "; it is wrong without its neighbours, too",
        None => "",
    };
    format!(
        "  first wrong operator: {}\n    tried as  {}{alone}\n    given     {}\n    output    {}\n    remedy    {}\n",
        wrong.node,
        wrong.window.join(" → "),
        wrong.inputs.join(", "),
        how_wrong(wrong),
        wrong.remedy
    )
}

fn how_wrong(wrong: &WrongOperator) -> String {
    let off = match (&wrong.comparison.problem, wrong.worst) {
        (Some(problem), _) => problem.clone(),
        (None, Some((idx, expected, got))) => {
            let allowed = wrong.comparison.allowed;
            let allowed = if allowed == 1.0 { "1".to_string() } else { format::scientific(allowed) };
            format!("element {idx} should be {}, is {} ({allowed} off is allowed)", element(expected), element(got))
        }
        (None, None) => "differs".to_string(),
    };
    format!("`{}`: {off}", wrong.output)
}

/// A whole number as it is, any other to five digits.
fn element(value: f64) -> String {
    if value.fract() == 0.0 { value.to_string() } else { format!("{value:.4e}") }
}

/// A part of something: a number that is not negative.
fn part(text: &str) -> Result<f64, String> {
    let part = text.parse::<f64>().ok().filter(|part| part.is_finite() && *part >= 0.0);
    part.ok_or_else(|| format!("`{text}` is no part of a magnitude, as 0.01 is"))
}

/// What is known of the operators one by one.
fn each(correctness: &Correctness) -> String {
    match (correctness.n_tried, correctness.untried.is_empty()) {
        (0, _) => "no operator could be tried by itself".to_string(),
        (_, true) => "every operator is right by itself".to_string(),
        (n, false) => format!("the {n} operators that could be tried are right by themselves"),
    }
}
