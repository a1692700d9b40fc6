//! `aludel compare --data`: whether a student may replace its teacher, on labelled samples.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use super::load::{self, RuntimeChoice, word};
use super::progress::Progress;
use super::table::{Side, table};
use super::{Outcome, format};
use crate::data::{Dataset, Descriptor, Split};
use crate::graph::Name;
use crate::measure::latency::{self, Latency};
use crate::measure::paired::verdict::Verdict;
use crate::measure::runtime::Runtime;
use crate::measure::statistics::Interval;
use crate::recipe::validate::{Comparison, validate};
use crate::report::{Beside, FilePart, Metric, Report, Run, markdown};
use crate::store;

/// How a student is judged.
#[derive(clap::Args)]
pub(super) struct Judged {
    /// Judge the second file as a student of the first: labelled samples, a data descriptor (TOML) or a .npz with an array `label`
    #[arg(long, value_name = "FILE", requires = "b", conflicts_with_all = ["inputs", "samples", "seed", "layers", "arithmetic", "target", "bindings", "threads"])]
    data: Option<PathBuf>,
    /// The split to judge by; the test split where there is one
    #[arg(long, value_name = "NAME", value_parser = word::<Split>, requires = "data")]
    split: Option<Split>,
    /// How much worse the student may be: in accuracy, or in the unit of labels that are numbers
    #[arg(long, value_name = "DROP", default_value_t = 0.01, requires = "data")]
    margin: f64,
    /// The output that meets the labels; the first without it
    #[arg(long, value_name = "NAME", requires = "data")]
    output: Option<String>,
    /// Seconds to time the two on each runtime; 0 leaves it out
    #[arg(long, default_value_t = 10.0, requires = "data")]
    seconds: f64,
    /// Write the report as JSON, for `aludel gate`
    #[arg(long, value_name = "FILE.json", requires = "data")]
    report: Option<PathBuf>,
    /// Write a summary in Markdown
    #[arg(long, value_name = "FILE.md", requires = "data")]
    markdown: Option<PathBuf>,
    /// What a verdict that cannot be decided with so few samples comes to: fail (exit code 1) or pass
    #[arg(long, value_name = "WORD", default_value = "fail", requires = "data")]
    undecided: Undecided,
}

/// What comes of what cannot be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Undecided {
    Fail,
    Pass,
}

impl Judged {
    /// Whether a student is to be judged.
    pub(super) fn is_asked(&self) -> bool {
        self.data.is_some()
    }

    pub(super) fn run(&self, a: &Path, b: &Path, choice: &RuntimeChoice, json: bool) -> anyhow::Result<Outcome> {
        let path = self.data.as_deref().context("--data is missing")?;
        let data = Arc::new(open(path)?);
        let split = self.split.unwrap_or_else(|| judged_split(&data));
        let open = load::open_runtimes(choice)?;
        let runtimes: Vec<&dyn Runtime> = open.iter().map(|open| open.runtime.as_ref()).collect();
        let latency = latency::Options::default().with_budget_s(self.seconds).context("--seconds is no time")?;
        let (teacher, student) = (load::model_bytes(a)?, load::model_bytes(b)?);
        let output = self.output.as_deref().map(Name::from);
        let comparison = Comparison {
            teacher: &teacher,
            student: &student,
            data: &data,
            data_path: &path.display().to_string(),
            split,
            output: output.as_ref(),
            runtimes: &runtimes,
            margin: self.margin,
            latency: (self.seconds > 0.0).then_some(latency),
        };
        let progress = Progress::start("comparing");
        let report = validate(&comparison, &mut |what| progress.set_message(what.to_string()))?;
        drop(progress);
        if let Some(path) = &self.report {
            store::write_atomic(path, &serde_json::to_vec_pretty(&report)?)?;
        }
        if let Some(path) = &self.markdown {
            store::write_atomic(path, markdown(&report).as_bytes())?;
        }
        let outcome = if json { Outcome::json(&report)? } else { Outcome::done(text(&report)) };
        Ok(Outcome { code: code(&report, self.undecided), ..outcome })
    }
}

/// A data set by its descriptor, or the arrays of an archive.
pub(super) fn open(path: &Path) -> anyhow::Result<Dataset> {
    Ok(match path.extension().is_some_and(|extension| extension == "npz") {
        true => Dataset::load(&Descriptor::npz(path))?,
        false => Dataset::open(path)?,
    })
}

/// The test split where there is one, else what else nothing was learned from, else all.
pub(super) fn judged_split(data: &Dataset) -> Split {
    let splits = [Split::Test, Split::Validation];
    splits.into_iter().find(|&split| !data.samples(split).is_empty()).unwrap_or(Split::Train)
}

fn code(report: &Report, undecided: Undecided) -> u8 {
    match report.verdict() {
        Some(Verdict::Passes) => 0,
        Some(Verdict::Undecided { .. }) if undecided == Undecided::Pass => 0,
        Some(Verdict::Undecided { .. } | Verdict::Fails) | None => 1,
    }
}

fn text(report: &Report) -> String {
    let verdict = report.verdict().map_or("is not judged".to_string(), |verdict| verdict.to_string());
    let DataSummary { n_samples, path, split } = DataSummary::of(report);
    let mut text = format!(
        "the student {verdict}: at most {} below its teacher on the {n_samples} {split} samples of {path}\n\n",
        report.margin
    );
    let columns = [("", Side::Left), ("teacher", Side::Right), ("student", Side::Right), ("", Side::Left)];
    let (teacher, student) = (&report.teacher, &report.student);
    let sized = |what: &str, of: fn(&FilePart) -> u64, show: fn(u64) -> String| {
        let (a, b) = (of(teacher), of(student));
        vec![what.to_string(), show(a), show(b), times(a as f64, b as f64)]
    };
    let mut rows = vec![
        sized("file", |file| file.bytes, format::bytes),
        sized("by zstd", |file| file.compressed.zstd, format::bytes),
        sized("parameters", |file| file.parameters, format::count),
        sized("MACs", |file| file.macs.unwrap_or(0), format::count),
    ];
    report.runs.iter().for_each(|run| run_rows(run, &mut rows));
    text.push_str(&table(&columns, rows));
    let timed = report.runs.iter().filter_map(|run| run.latency.as_ref());
    if timed.clone().any(|both| !(both.teacher.is_tight && both.student.is_tight)) {
        text.push_str("times did not become as sure as wanted: measure longer (--seconds) or on a quieter machine\n");
    }
    text
}

struct DataSummary<'a> {
    n_samples: usize,
    path: &'a str,
    split: &'a str,
}

impl DataSummary<'_> {
    fn of(report: &Report) -> DataSummary<'_> {
        DataSummary { n_samples: report.data.n_samples, path: &report.data.path, split: &report.data.split }
    }
}

fn run_rows(run: &Run, rows: &mut Vec<Vec<String>>) {
    let on = &run.runtime;
    for Metric { name, teacher, student, difference, judgement, .. } in &run.metrics {
        let interval =
            difference.map_or(String::new(), |it| format!("{:+.4} [{:+.4}, {:+.4}]", it.estimate, it.low, it.high));
        let verdict = judgement.map_or(String::new(), |judgement| format!(": {}", judgement.verdict));
        rows.push(vec![
            format!("{name}, {on}"),
            format!("{teacher:.4}"),
            format!("{student:.4}"),
            format!("{interval}{verdict}"),
        ]);
    }
    if let Some(agreement) = &run.agreement {
        let flips = format!("{} lost, {} gained", agreement.flips.lost.len(), agreement.flips.gained.len());
        rows.push(vec![format!("agreement, {on}"), String::new(), format!("{:.4}", agreement.share), flips]);
    }
    if let Some(Beside { teacher, student }) = &run.latency {
        let time = |what: &str, of: fn(&Latency) -> f64| {
            let (a, b) = (of(teacher), of(student));
            vec![format!("{what} µs, {on}"), format!("{a:.1}"), format!("{b:.1}"), times(a, b)]
        };
        let mut median = time("median", |latency| latency.median_us);
        if let Some(ratio) = student.ratio_to_first {
            let Interval { estimate, low, high, .. } = ratio;
            median[3] = format!("{:.2} × [{:.2}, {:.2}]", 1.0 / estimate, 1.0 / high, 1.0 / low);
        }
        rows.push(median);
        rows.push(time("p95", |latency| latency.p95_us));
        rows.push(time("p99", |latency| latency.p99_us));
    }
}

/// How many times less.
fn times(teacher: f64, student: f64) -> String {
    if teacher > 0.0 && student > 0.0 { format!("{:.2} ×", teacher / student) } else { String::new() }
}
