//! `aludel bench`: latency and memory of models on runtimes, measured in turns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::load::{self, BindArguments, OpenRuntime, RuntimeArguments};
use super::progress::Progress;
use super::table::{Side, table};
use super::{Outcome, device, format};
use crate::measure::child::{self, Request, RuntimeName};
use crate::measure::inputs::{self, Bindings};
use crate::measure::latency::{self, Contender, Latency, WarmUp};
use crate::measure::machine::Machine;
use crate::measure::runtime::remote::Measuring;
use crate::measure::runtime::{ModelBytes, Options, RuntimeError, Session};
use crate::measure::target;
use crate::store;

/// Measure latency and memory of models on runtimes
///
/// Every model is timed on every runtime with every number of threads, all in turns, until the 95 % interval of each median is as
/// tight as asked for or the time is up. Each also runs once in a process of its own, to see its memory alone. Ratios are to the first row that ran.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aludel bench teacher.onnx student.onnx\n  aludel bench model.onnx --runtime ort --threads 1,2,4 --bind batch=8 --json\n  aludel bench model.onnx --target my-board.toml"
)]
pub(super) struct Arguments {
    /// ONNX files
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
    #[command(flatten)]
    runtimes: RuntimeArguments,
    /// Threads that a run may use
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    threads: Vec<usize>,
    #[command(flatten)]
    bind: BindArguments,
    /// Seconds to measure at the most
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Stop when every interval is this narrow, relative to its median
    #[arg(long, default_value_t = 0.02)]
    precision: f64,
    /// Runs before the timed ones; without it, until they no longer become quicker
    #[arg(long, value_name = "RUNS")]
    warm_up: Option<usize>,
    /// Seed of the inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// On devices instead, by the agent there (repeatable): a name of `aludel targets list`, or a TOML file; the runtime and its threads are the
    /// device's
    #[arg(long, value_name = "NAME|FILE", value_delimiter = ',', conflicts_with_all = ["runtime", "library", "threads", "warm_up", "no_memory", "dump_optimized"])]
    target: Vec<String>,
    /// Leave out the processes that see the memory
    #[arg(long)]
    no_memory: bool,
    /// Write what the runtime made of the model into this folder
    #[arg(long, value_name = "FOLDER")]
    dump_optimized: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// What was measured, and on what.
#[derive(Serialize)]
pub(super) struct Report {
    aludel: &'static str,
    machine: Machine,
    bindings: Bindings,
    seed: u64,
    rows: Vec<Row>,
}

/// One model on one runtime with a number of threads.
#[derive(Serialize)]
struct Row {
    model: String,
    /// Of the file itself; weights in files beside it are not in it.
    model_sha256: String,
    file_bytes: usize,
    runtime: &'static str,
    runtime_version: String,
    n_threads: usize,
    /// Numbers given to the model's open dimensions; the others are 1.
    bindings: Bindings,
    latency: Option<Latency>,
    memory: Option<child::Report>,
    /// Why there is no figure.
    refused: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    if !arguments.target.is_empty() {
        return on_devices(arguments);
    }
    let mut models = Vec::new();
    for path in &arguments.models {
        models.push(load::model_bytes(path)?);
    }
    let bindings = arguments.bind.bindings.iter().map(|binding| (binding.symbol.clone(), binding.size)).collect();
    let plan = Plan {
        runtimes: load::open_runtimes(&arguments.runtimes.choice)?,
        options: Options { optimization: arguments.runtimes.optimization, ..Options::default() },
        library: arguments.runtimes.choice.library.clone(),
        threads: arguments.threads.clone(),
        bindings,
        seed: arguments.seed,
        timing: latency::Options {
            relative_width: arguments.precision,
            warm_up: arguments.warm_up.map_or(WarmUp::Detect, WarmUp::Runs),
            budget: Duration::try_from_secs_f64(arguments.seconds).context("--seconds is no time")?,
            ..latency::Options::default()
        },
        memory: !arguments.no_memory,
        dump_optimized: arguments.dump_optimized.clone(),
    };
    let report = plan.measure(&models)?;
    let code = if report.rows.iter().any(|row| row.refused.is_some()) { 2 } else { 0 };
    let outcome = if arguments.json { Outcome::json(&report)? } else { Outcome::done(text(&report)) };
    Ok(Outcome { code, ..outcome })
}

fn on_devices(arguments: &Arguments) -> anyhow::Result<Outcome> {
    Duration::try_from_secs_f64(arguments.seconds).context("--seconds is no time")?;
    let targets = arguments.target.iter().map(|name| target::find(name)).collect::<Result<_, _>>()?;
    let plan = device::Plan {
        models: &arguments.models,
        targets,
        bindings: &arguments.bind.bindings,
        seed: arguments.seed,
        measuring: Measuring {
            optimization: arguments.runtimes.optimization,
            budget_s: arguments.seconds,
            relative_width: arguments.precision,
        },
    };
    device::bench(&plan, arguments.json)
}

/// What to measure, and how.
pub(super) struct Plan {
    pub(super) runtimes: Vec<OpenRuntime>,
    pub(super) options: Options,
    pub(super) library: Option<PathBuf>,
    pub(super) threads: Vec<usize>,
    pub(super) bindings: Bindings,
    pub(super) seed: u64,
    pub(super) timing: latency::Options,
    pub(super) memory: bool,
    pub(super) dump_optimized: Option<PathBuf>,
}

impl Plan {
    /// Loads every model everywhere, times all of them in turns, then looks at the memory of each alone.
    pub(super) fn measure(&self, models: &[ModelBytes]) -> anyhow::Result<Report> {
        if let Some(folder) = &self.dump_optimized {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let progress = Progress::start("loading");
        let mut rows: Vec<Row> = Vec::new();
        let mut contenders = Vec::new();
        let mut symbols = BTreeSet::new();
        for model in models {
            let sha256 = store::sha256(model.bytes());
            for open in &self.runtimes {
                for &n_threads in &self.threads {
                    let mut row = row(model, &sha256, open, n_threads);
                    match self.load(model, open, n_threads, rows.len()) {
                        Ok(session) => {
                            let open_dimensions = inputs::open_dimensions(session.inputs());
                            row.bindings = self.bindings.clone();
                            row.bindings.retain(|name, _| open_dimensions.contains(name));
                            symbols.extend(open_dimensions);
                            let listing = self.dump_path(model, open, n_threads, rows.len());
                            let listing = listing.filter(|_| open.name == RuntimeName::Tract);
                            match contender(session, rows.len(), &row.bindings, self.seed, listing.as_deref()) {
                                Ok(contender) => contenders.push(contender),
                                Err(error) => row.refused = Some(format!("{error:#}")),
                            }
                        }
                        Err(error) => row.refused = Some(error.to_string()),
                    }
                    rows.push(row);
                }
            }
        }
        if let Some(unknown) = self.bindings.keys().find(|name| !contenders.is_empty() && !symbols.contains(*name)) {
            anyhow::bail!("no input has a dimension `{unknown}`; the symbols are: {}", listed(&symbols));
        }
        let latencies = latency::interleaved(&mut contenders, &self.timing, &mut |so_far| {
            let width = format::percent(so_far.relative_width);
            progress.set_message(format!("timing in turns: round {}, widest interval {width}", so_far.n_rounds));
        })?;
        drop(contenders);
        for latency in latencies {
            let idx: usize = latency.label.parse().context("labels are positions of rows")?;
            rows[idx].latency = Some(latency);
        }
        if self.memory {
            for row in rows.iter_mut().filter(|row| row.refused.is_none()) {
                progress.set_message(format!("memory of {} on {}", row.model, row.runtime));
                row.memory = self.child(row).map_err(|error| tracing::warn!("memory not measured: {error}")).ok();
            }
        }
        for row in &mut rows {
            if let Some(latency) = &mut row.latency {
                latency.label = format!("{} {} {}", row.model, row.runtime, row.n_threads);
            }
        }
        Ok(Report {
            aludel: env!("CARGO_PKG_VERSION"),
            machine: Machine::this(),
            bindings: self.bindings.clone(),
            seed: self.seed,
            rows,
        })
    }

    /// Where what the runtime made of the model goes: named after the row, so that no two models meet.
    fn dump_path(&self, model: &ModelBytes, open: &OpenRuntime, n_threads: usize, row_idx: usize) -> Option<PathBuf> {
        let name = model.name();
        let stem = Path::new(&name).file_stem().map_or(name.clone(), |stem| stem.to_string_lossy().into_owned());
        let (runtime, extension) = match open.name {
            RuntimeName::Tract => ("tract", "txt"),
            RuntimeName::Ort => ("ort", "onnx"),
        };
        let file = format!("{row_idx:02}-{stem}-{runtime}-{n_threads}.{extension}");
        self.dump_optimized.as_ref().map(|folder| folder.join(file))
    }

    fn load(
        &self,
        model: &ModelBytes,
        open: &OpenRuntime,
        n_threads: usize,
        row_idx: usize,
    ) -> Result<Box<dyn Session>, RuntimeError> {
        // onnxruntime writes ONNX itself; tract's graph is asked for after the first run.
        let writes_itself = open.name == RuntimeName::Ort;
        let optimized_model = self.dump_path(model, open, n_threads, row_idx).filter(|_| writes_itself);
        open.runtime.load(model, &Options { n_threads, optimized_model, ..self.options.clone() })
    }

    fn child(&self, row: &Row) -> anyhow::Result<child::Report> {
        const TIMEOUT: Duration = Duration::from_secs(120);
        let open = self.runtimes.iter().find(|open| open.runtime.name() == row.runtime);
        let name = open.context("a row's runtime is one of the plan's")?.name;
        let request = Request {
            library: self.library.clone(),
            n_threads: row.n_threads,
            optimization: self.options.optimization,
            fuse_quantization: self.options.fuse_quantization,
            seed: self.seed,
            bindings: row.bindings.clone(),
            ..Request::new(&row.model, name)
        };
        Ok(child::measure(&request, TIMEOUT)?)
    }
}

fn row(model: &ModelBytes, sha256: &str, open: &OpenRuntime, n_threads: usize) -> Row {
    Row {
        model: model.name(),
        model_sha256: sha256.to_string(),
        file_bytes: model.bytes().len(),
        runtime: open.runtime.name(),
        runtime_version: open.runtime.version(),
        n_threads,
        bindings: Bindings::new(),
        latency: None,
        memory: None,
        refused: None,
    }
}

/// A session that is ready to be timed: it has run once. What it made of the model goes to `listing`.
fn contender(
    mut session: Box<dyn Session>,
    row_idx: usize,
    bindings: &Bindings,
    seed: u64,
    listing: Option<&Path>,
) -> anyhow::Result<Contender<'static, RuntimeError>> {
    let tensors = inputs::random(session.inputs(), bindings, seed)?;
    session.run(&tensors)?;
    if let (Some(path), Some(graph)) = (listing, session.optimized_graph()) {
        store::write_atomic(path, graph.as_bytes())?;
    }
    let run = Box::new(move || session.run(&tensors).map(drop));
    Ok(Contender { label: row_idx.to_string(), run })
}

fn listed(symbols: &BTreeSet<String>) -> String {
    if symbols.is_empty() { "none".to_string() } else { symbols.iter().cloned().collect::<Vec<_>>().join(", ") }
}

/// The report as a person reads it.
pub(super) fn text(report: &Report) -> String {
    let columns = [
        ("model", Side::Left),
        ("runtime", Side::Left),
        ("threads", Side::Right),
        ("median", Side::Right),
        ("95 % interval", Side::Right),
        ("p90", Side::Right),
        ("p95", Side::Right),
        ("p99", Side::Right),
        ("spread", Side::Right),
        ("runs", Side::Right),
        ("ratio", Side::Right),
        ("peak memory", Side::Right),
        ("load", Side::Right),
        ("file", Side::Right),
    ];
    let mut text = heading(report);
    let measured = report.rows.iter().filter(|row| row.refused.is_none()).enumerate();
    text.push_str(&table(&columns, measured.map(|(idx, row)| cells(row, idx == 0))));
    let loose = report.rows.iter().any(|row| row.latency.as_ref().is_some_and(|latency| !latency.is_tight));
    if loose {
        text.push_str("~ the interval did not become as narrow as asked for: measure longer (--seconds) or on a quieter machine\n");
    }
    for row in &report.rows {
        if let Some(reason) = &row.refused {
            text.push_str(&format!("refused: {} on {}: {reason}\n", row.model, row.runtime));
        }
    }
    text
}

fn heading(report: &Report) -> String {
    let machine = &report.machine;
    let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
    let mut text = format!("{cpu} · {} cores · {} {}\n", machine.n_cpus, machine.os, machine.arch);
    let runtimes: BTreeSet<String> =
        report.rows.iter().map(|row| format!("{} {}", row.runtime, row.runtime_version)).collect();
    text.push_str(&format!("{}\n", runtimes.into_iter().collect::<Vec<_>>().join(" · ")));
    if !report.bindings.is_empty() {
        let bound: Vec<String> = report.bindings.iter().map(|(symbol, size)| format!("{symbol} = {size}")).collect();
        text.push_str(&format!("{}; other open dimensions 1\n", bound.join(", ")));
    }
    text.push('\n');
    text
}

fn cells(row: &Row, is_first: bool) -> Vec<String> {
    let name = Path::new(&row.model).file_name().map_or(row.model.clone(), |name| name.to_string_lossy().into_owned());
    let mut cells = vec![name, row.runtime.to_string(), row.n_threads.to_string()];
    match &row.latency {
        Some(latency) => cells.extend(latency_cells(latency, is_first)),
        None => cells.extend((0..8).map(|_| "–".to_string())),
    }
    let peak = row.memory.as_ref().and_then(|memory| memory.rss_peak_bytes);
    cells.push(peak.map_or("–".to_string(), format::bytes));
    cells.push(row.memory.as_ref().map_or("–".to_string(), |memory| format::duration_us(memory.load_us)));
    cells.push(format::bytes(u64::try_from(row.file_bytes).unwrap_or(u64::MAX)));
    cells
}

fn latency_cells(latency: &Latency, is_first: bool) -> [String; 8] {
    let interval = latency.interval_us.map_or("–".to_string(), |interval| {
        let loose = if latency.is_tight { "" } else { "~ " };
        format!("{loose}{} – {}", format::duration_us(interval.low), format::duration_us(interval.high))
    });
    let unknown = if is_first { "1" } else { "–" };
    let ratio = latency.ratio_to_first.map_or(unknown.to_string(), |ratio| {
        format!(
            "{} ({}–{})",
            format::three_digits(ratio.estimate),
            format::three_digits(ratio.low),
            format::three_digits(ratio.high)
        )
    });
    [
        format::duration_us(latency.median_us),
        interval,
        format::duration_us(latency.p90_us),
        format::duration_us(latency.p95_us),
        format::duration_us(latency.p99_us),
        format::duration_us(latency.spread_us),
        latency.n.to_string(),
        ratio,
    ]
}
