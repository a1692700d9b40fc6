//! `aludel bench --target`: latency and memory of models on devices, each measured there by the agent.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::feeds::{self, Feed};
use super::load::{self, Binding, RuntimeChoice};
use super::progress::Progress;
use super::table::{Side, table};
use super::{Outcome, format};
use crate::measure::agent::Program;
use crate::measure::latency::Latency;
use crate::measure::runtime::remote::{self, Figures, Measuring};
use crate::measure::runtime::{ModelBytes, Options};
use crate::measure::target::{Budget, Target};
use crate::{onnx, store};

/// What to measure, where, and how.
pub(super) struct Plan<'a> {
    pub(super) models: &'a [PathBuf],
    pub(super) targets: Vec<Target>,
    pub(super) bindings: &'a [Binding],
    pub(super) seed: u64,
    pub(super) measuring: Measuring,
}

#[derive(Serialize)]
struct Report {
    aludel: &'static str,
    seed: u64,
    rows: Vec<Row>,
}

/// One model on one device.
#[derive(Serialize)]
struct Row {
    model: String,
    model_sha256: String,
    file_bytes: usize,
    target: String,
    n_threads: usize,
    program: Option<Program>,
    runtime: Option<Program>,
    figures: Option<Figures>,
    /// What the target's budget does not allow, a sentence each.
    over_budget: Vec<String>,
    /// Why there is no figure.
    refused: Option<String>,
}

/// Measures every model on every device; exit code 2 where one could not be.
pub(super) fn bench(plan: &Plan<'_>, json: bool) -> anyhow::Result<Outcome> {
    let mut rows = Vec::new();
    let progress = Progress::start("preparing");
    for path in plan.models {
        let model = whole(path)?;
        let feed = feed(&model, plan)?;
        let sha256 = store::sha256(model.bytes());
        for target in &plan.targets {
            progress.set_message(format!("{} on {}", path.display(), target.name));
            let mut row = Row {
                model: path.display().to_string(),
                model_sha256: sha256.clone(),
                file_bytes: model.bytes().len(),
                target: target.name.clone(),
                n_threads: target.n_threads,
                program: None,
                runtime: None,
                figures: None,
                over_budget: Vec::new(),
                refused: None,
            };
            match remote::run_agent(target, &model, std::slice::from_ref(&feed), &plan.measuring) {
                Ok(report) => {
                    row.over_budget = over_budget(&target.budget, &report.figures, row.file_bytes);
                    (row.program, row.runtime) = (Some(report.program), report.runtime);
                    row.figures = Some(report.figures);
                }
                Err(error) => row.refused = Some(format!("{error}\nhint: {}", error.hint())),
            }
            rows.push(row);
        }
    }
    drop(progress);
    let report = Report { aludel: env!("CARGO_PKG_VERSION"), seed: plan.seed, rows };
    let code = if report.rows.iter().any(|row| row.refused.is_some()) { 2 } else { 0 };
    let outcome = if json { Outcome::json(&report)? } else { Outcome::done(text(&report)) };
    Ok(Outcome { code, ..outcome })
}

/// A model that is one file: what lies beside it would not go to the device.
pub(super) fn whole(path: &Path) -> anyhow::Result<ModelBytes> {
    let model = load::model_bytes(path)?;
    if onnx::read_bytes(model.bytes().clone(), None).is_err() {
        // Whatever is wrong, it is said better with the folder known.
        onnx::read(path)?;
        anyhow::bail!(
            "{} keeps weights in files beside it, and only the file itself goes to a device: write it as one with `aludel convert`",
            path.display()
        );
    }
    Ok(model)
}

/// The seed's inputs, of the types that a runtime on this machine tells.
fn feed(model: &ModelBytes, plan: &Plan<'_>) -> anyhow::Result<Feed> {
    let runtimes = load::open_runtimes(&RuntimeChoice { runtime: Vec::new(), library: None })?;
    let mut refused = None;
    for open in runtimes {
        match open.runtime.load(model, &Options::default()) {
            Ok(session) => return Ok(feeds::random(session.inputs(), plan.bindings, plan.seed, 1)?.remove(0)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.expect("tract is always at hand").into())
}

fn over_budget(budget: &Budget, figures: &Figures, file_bytes: usize) -> Vec<String> {
    let mut over = Vec::new();
    if let (Some(limit), Some(latency)) = (budget.latency_p95_ms, figures.latency())
        && latency.p95_us > limit * 1e3
    {
        over.push(format!("95 % of runs take up to {}, allowed are {limit} ms", format::duration_us(latency.p95_us)));
    }
    if let (Some(limit), Some(peak)) = (budget.memory_kib, peak_bytes(figures))
        && peak as f64 > limit * 1024.0
    {
        over.push(format!("the process takes {}, allowed are {limit} KiB", format::bytes(peak)));
    }
    if let Some(limit) = budget.size_kib.filter(|limit| file_bytes as f64 > limit * 1024.0) {
        over.push(format!("the file has {}, allowed are {limit} KiB", format::bytes(file_bytes as u64)));
    }
    over
}

fn peak_bytes(figures: &Figures) -> Option<u64> {
    match figures {
        Figures::Device(measured) => measured.memory.map(|memory| memory.rss_peak_bytes),
        Figures::Emulator => None,
    }
}

fn text(report: &Report) -> String {
    let columns = [
        ("model", Side::Left),
        ("device", Side::Left),
        ("runtime", Side::Left),
        ("threads", Side::Right),
        ("median", Side::Right),
        ("95 % interval", Side::Right),
        ("p90", Side::Right),
        ("p95", Side::Right),
        ("p99", Side::Right),
        ("runs", Side::Right),
        ("first run", Side::Right),
        ("load", Side::Right),
        ("peak memory", Side::Right),
    ];
    let measured: Vec<Vec<String>> =
        report.rows.iter().filter_map(|row| Some(cells(row, row.figures.as_ref()?))).collect();
    let mut text = String::new();
    for row in &report.rows {
        let machine = match &row.figures {
            Some(Figures::Device(measured)) => measured.machine.as_ref(),
            Some(Figures::Emulator) | None => None,
        };
        if let Some(machine) = machine {
            let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
            let line = format!("{}: {cpu} · {} cores · {} {}\n", row.target, machine.n_cpus, machine.os, machine.arch);
            if !text.contains(&line) {
                text.push_str(&line);
            }
        }
    }
    if !measured.is_empty() {
        text.push_str(&format!("\n{}", table(&columns, measured)));
    }
    let mut latencies = report.rows.iter().filter_map(|row| row.figures.as_ref()?.latency());
    if latencies.any(|latency| !latency.is_tight) {
        text.push_str("~ the interval did not become as narrow as asked for: measure longer (--seconds) or on a quieter machine\n");
    }
    for row in &report.rows {
        if row.figures.as_ref().is_some_and(Figures::is_emulated) {
            text.push_str(&format!(
                "{} is emulated: {} ran there, and its times say nothing of the device\n",
                row.target, row.model
            ));
        }
        for over in &row.over_budget {
            text.push_str(&format!("over budget: {} on {}: {over}\n", row.model, row.target));
        }
        if let Some(reason) = &row.refused {
            text.push_str(&format!("refused: {}: {reason}\n", row.model));
        }
    }
    text
}

fn cells(row: &Row, figures: &Figures) -> Vec<String> {
    let unknown = || "–".to_string();
    let name = Path::new(&row.model).file_name().map_or(row.model.clone(), |name| name.to_string_lossy().into_owned());
    let runtime = row.runtime.as_ref().map_or_else(unknown, |runtime| format!("{} {}", runtime.name, runtime.version));
    let mut cells = vec![name, row.target.clone(), runtime, row.n_threads.to_string()];
    match figures.latency() {
        Some(latency) => cells.extend(latency_cells(latency)),
        None => cells.extend((0..6).map(|_| unknown())),
    }
    let (first_run_us, load_us) = match figures {
        Figures::Device(measured) => (measured.first_run_us, measured.load_us),
        Figures::Emulator => (None, None),
    };
    cells.extend([first_run_us, load_us].map(|time| time.map_or_else(unknown, format::duration_us)));
    cells.push(peak_bytes(figures).map_or_else(unknown, format::bytes));
    cells
}

fn latency_cells(latency: &Latency) -> [String; 6] {
    let interval = latency.interval_us.map_or("–".to_string(), |interval| {
        let loose = if latency.is_tight { "" } else { "~ " };
        format!("{loose}{} – {}", format::duration_us(interval.low), format::duration_us(interval.high))
    });
    let [median, p90, p95, p99] =
        [latency.median_us, latency.p90_us, latency.p95_us, latency.p99_us].map(format::duration_us);
    [median, interval, p90, p95, p99, latency.n.to_string()]
}
