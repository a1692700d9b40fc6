//! Whether a student may ship: rules that a report keeps or breaks, by a budget or beside the report of a release before.
//!
//! A rule on a measured figure is broken where its whole interval is beyond the limit, and undecided where the limit lies within.
//! Latency is held against a baseline as the ratio to the teacher, which both reports have measured in turns with the student: what
//! slows the whole machine cancels.

use std::fmt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{Metric, Report, Run};
use crate::measure::paired::verdict::{self, Verdict};
use crate::measure::paired::{Counts, StatisticsError};
use crate::measure::statistics::Interval;

/// What a student may cost; what is not given is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// How much worse than its teacher the student may be, in the unit of the metric that decides.
    pub accuracy_drop: Option<f64>,
    /// The least that the metric which decides may be.
    pub accuracy: Option<f64>,
    /// Milliseconds of the median run.
    pub latency_median_ms: Option<f64>,
    /// Milliseconds that 90 % of the runs take at most.
    pub latency_p90_ms: Option<f64>,
    /// Milliseconds that 95 % of the runs take at most.
    pub latency_p95_ms: Option<f64>,
    /// Milliseconds that 99 % of the runs take at most.
    pub latency_p99_ms: Option<f64>,
    /// How many times quicker than the teacher it must be.
    pub speed_up: Option<f64>,
    /// KiB of the file.
    pub size_kib: Option<f64>,
    /// KiB of the file compressed by zstd.
    pub size_zstd_kib: Option<f64>,
}

/// A budget: limits for every device, and others for some.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// For all.
    pub all: Limits,
    /// By device; what is given here goes before what is given for all.
    pub devices: IndexMap<String, Limits>,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The budget is none.
    #[error("the budget {problem}")]
    Budget {
        /// what is wrong with it
        problem: String,
    },
    /// The baseline cannot be held beside the report.
    #[error("the baseline is of other {what}: {baseline} and not {report} (hint: {remedy})")]
    Baseline {
        /// what differs
        what: &'static str,
        /// in the baseline
        baseline: String,
        /// in the report
        report: String,
        /// what to do
        remedy: &'static str,
    },
    /// Figures cannot be compared.
    #[error(transparent)]
    Statistics(#[from] StatisticsError),
}

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Kept.
    Kept,
    /// It cannot be told.
    Undecided,
    /// Broken.
    Broken,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Status::Kept => "kept",
            Status::Undecided => "undecided",
            Status::Broken => "broken",
        })
    }
}

/// A rule and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Finding {
    /// The rule's name, as the budget has it.
    pub rule: String,
    /// The device and the runtime; empty for rules on the file.
    pub on: String,
    /// What became of it.
    pub status: Status,
    /// In words: the figure, its interval, the limit.
    pub text: String,
}

impl Finding {
    fn new(rule: &str, run: Option<&Run>, status: Status, text: String) -> Finding {
        let on = run.map_or(String::new(), |run| format!("{} on {}", run.runtime, run.device));
        Finding { rule: rule.to_string(), on, status, text }
    }
}

impl Budget {
    /// A budget in TOML: the keys of [`Limits`], alone or in a table `[budget]`, and tables of them named after devices.
    ///
    /// # Errors
    /// When it is no TOML, has an unknown key or a value that is no limit.
    pub fn parse(text: &str) -> Result<Budget, GateError> {
        let wrong = |problem: String| GateError::Budget { problem };
        let table: Table = toml::from_str(text).map_err(|error| wrong(format!("is no TOML: {error}")))?;
        let table = match table.get("budget") {
            Some(Value::Table(inner)) if table.len() == 1 => inner.clone(),
            Some(_) => return Err(wrong("has keys beside its table `budget`".to_string())),
            None => table,
        };
        let mut budget = Budget::default();
        let mut all = Table::new();
        for (key, value) in table {
            match value {
                Value::Table(limits) => {
                    let limits = limits_of(limits, &format!("{key}."))?;
                    budget.devices.insert(key, limits);
                }
                value => drop(all.insert(key, value)),
            }
        }
        budget.all = limits_of(all, "")?;
        if budget == Budget::default() {
            return Err(wrong("has no limit".to_string()));
        }
        Ok(budget)
    }

    /// The limits for a device.
    fn of(&self, device: &str) -> Limits {
        let own = self.devices.get(device).cloned().unwrap_or_default();
        let all = &self.all;
        Limits {
            accuracy_drop: own.accuracy_drop.or(all.accuracy_drop),
            accuracy: own.accuracy.or(all.accuracy),
            latency_median_ms: own.latency_median_ms.or(all.latency_median_ms),
            latency_p90_ms: own.latency_p90_ms.or(all.latency_p90_ms),
            latency_p95_ms: own.latency_p95_ms.or(all.latency_p95_ms),
            latency_p99_ms: own.latency_p99_ms.or(all.latency_p99_ms),
            speed_up: own.speed_up.or(all.speed_up),
            size_kib: own.size_kib.or(all.size_kib),
            size_zstd_kib: own.size_zstd_kib.or(all.size_zstd_kib),
        }
    }
}

fn limits_of(table: Table, prefix: &str) -> Result<Limits, GateError> {
    let below = table.iter().find_map(|(key, value)| {
        let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64))?;
        (!number.is_finite() || number < 0.0).then(|| format!("has {prefix}{key} = {number}, which is no limit"))
    });
    if let Some(problem) = below {
        return Err(GateError::Budget { problem });
    }
    let problem = |error: toml::de::Error| GateError::Budget { problem: format!("{prefix}: {}", error.message()) };
    Limits::deserialize(Value::Table(table)).map_err(problem)
}

/// What becomes of each limit of a budget. Devices that the budget names and the report has not are broken rules: nothing is known.
///
/// # Errors
/// When a limit is out of its range.
pub fn by_budget(report: &Report, budget: &Budget) -> Result<Vec<Finding>, GateError> {
    let mut findings = Vec::new();
    for device in budget.devices.keys().filter(|device| report.runs.iter().all(|run| run.device != **device)) {
        let text = format!("nothing was measured on {device}");
        findings.push(Finding { on: device.clone(), ..Finding::new("device", None, Status::Broken, text) });
    }
    let sizes = budget.of("");
    let file = &report.student;
    for (rule, limit, bytes) in
        [("size_kib", sizes.size_kib, file.bytes), ("size_zstd_kib", sizes.size_zstd_kib, file.compressed.zstd)]
    {
        let Some(limit) = limit else { continue };
        let kib = bytes as f64 / 1024.0;
        let status = if kib <= limit { Status::Kept } else { Status::Broken };
        findings.push(Finding::new(rule, None, status, format!("{kib:.1} KiB of {limit} KiB")));
    }
    for run in &report.runs {
        let limits = budget.of(&run.device);
        accuracy(report, run, &limits, &mut findings)?;
        latency(run, &limits, &mut findings);
    }
    Ok(findings)
}

fn accuracy(report: &Report, run: &Run, limits: &Limits, findings: &mut Vec<Finding>) -> Result<(), GateError> {
    let decides = run.metrics.iter().find_map(|metric| Some((metric, metric.judgement?)));
    let nothing = |rule: &str| Finding::new(rule, Some(run), Status::Broken, "no metric was judged".to_string());
    if let Some(margin) = limits.accuracy_drop {
        findings.push(match decides {
            None => nothing("accuracy_drop"),
            Some((metric, judgement)) if margin == report.margin => {
                let text = told(metric, &judgement.interval, margin, &judgement.verdict);
                Finding::new("accuracy_drop", Some(run), status(&judgement.verdict), text)
            }
            Some((metric, judgement)) => {
                let n = judgement.n_samples;
                let width = judgement.interval.high - judgement.interval.low;
                let deviation = width * (n as f64).sqrt() / (2.0 * 1.96);
                let verdict = verdict::of_interval(&judgement.interval, n, deviation, &verdict::Options::at(margin))?;
                let text = told(metric, &judgement.interval, margin, &verdict);
                Finding::new("accuracy_drop", Some(run), status(&verdict), text)
            }
        });
    }
    if let Some(least) = limits.accuracy {
        findings.push(match decides {
            None => nothing("accuracy"),
            Some((metric, _)) => {
                let Metric { name, student, is_higher_better, .. } = metric;
                let is_kept = if *is_higher_better { *student >= least } else { *student <= least };
                let status = if is_kept { Status::Kept } else { Status::Broken };
                Finding::new("accuracy", Some(run), status, format!("{name} {student:.4}, asked for {least}"))
            }
        });
    }
    Ok(())
}

fn told(metric: &Metric, interval: &Interval, margin: f64, verdict: &Verdict) -> String {
    let Interval { estimate, low, high, .. } = interval;
    format!("{} {estimate:+.4} [{low:+.4}, {high:+.4}], at most −{margin}: {verdict}", metric.name)
}

fn status(verdict: &Verdict) -> Status {
    match verdict {
        Verdict::Passes => Status::Kept,
        Verdict::Fails => Status::Broken,
        Verdict::Undecided { .. } => Status::Undecided,
    }
}

fn latency(run: &Run, limits: &Limits, findings: &mut Vec<Finding>) {
    let student = run.latency.as_ref().map(|latency| &latency.student);
    let asked = [
        ("latency_median_ms", limits.latency_median_ms),
        ("latency_p90_ms", limits.latency_p90_ms),
        ("latency_p95_ms", limits.latency_p95_ms),
        ("latency_p99_ms", limits.latency_p99_ms),
    ];
    for (rule, limit) in asked {
        let Some(limit) = limit else { continue };
        let measured = student.map(|latency| match rule {
            "latency_median_ms" => (latency.median_us, latency.interval_us),
            "latency_p90_ms" => (latency.p90_us, latency.p90_interval_us),
            "latency_p95_ms" => (latency.p95_us, latency.p95_interval_us),
            _ => (latency.p99_us, latency.p99_interval_us),
        });
        findings.push(match measured {
            None => Finding::new(rule, Some(run), Status::Broken, "nothing was timed".to_string()),
            Some((us, interval)) => {
                let (low, high) = interval.map_or((0.0, f64::INFINITY), |it| (it.low / 1e3, it.high / 1e3));
                let text = format!("{:.4} ms [{low:.4}, {high:.4}] of {limit} ms", us / 1e3);
                Finding::new(rule, Some(run), against(low, high, limit), text)
            }
        });
    }
    if let Some(least) = limits.speed_up {
        let ratio = student.and_then(|latency| latency.ratio_to_first);
        findings.push(match ratio {
            None => Finding::new("speed_up", Some(run), Status::Broken, "nothing was timed in turns".to_string()),
            Some(Interval { estimate, low, high, .. }) => {
                let text =
                    format!("{:.2} [{:.2}, {:.2}] times, asked for {least}", 1.0 / estimate, 1.0 / high, 1.0 / low);
                Finding::new("speed_up", Some(run), against(low, high, 1.0 / least), text)
            }
        });
    }
}

/// What becomes of a limit that an interval should not be above.
fn against(low: f64, high: f64, limit: f64) -> Status {
    match (high <= limit, low > limit) {
        (true, _) => Status::Kept,
        (false, true) => Status::Broken,
        (false, false) => Status::Undecided,
    }
}

/// By how much a student may differ from that of a release before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// How much worse, in the unit of the metric that decides.
    pub accuracy_drop: f64,
    /// How much slower, as a part of what it was; what is surely slower is broken, what may be is kept.
    pub slower: f64,
    /// How much larger the file, as a part of what it was.
    pub larger: f64,
}

impl Default for Tolerance {
    fn default() -> Tolerance {
        Tolerance { accuracy_drop: 0.01, slower: 0.1, larger: 0.01 }
    }
}

/// The student of a report beside that of a report before.
///
/// # Errors
/// When the two are of other data.
pub fn by_baseline(report: &Report, baseline: &Report, tolerance: &Tolerance) -> Result<Vec<Finding>, GateError> {
    let of = |report: &Report| format!("{} {} ({})", report.data.path, report.data.split, &report.data.sha256);
    if (&report.data.sha256, &report.data.split) != (&baseline.data.sha256, &baseline.data.split) {
        let remedy = "measure both on the same samples, or write a new baseline with --update";
        return Err(GateError::Baseline { what: "samples", baseline: of(baseline), report: of(report), remedy });
    }
    let (now, before) = (report.student.bytes as f64, baseline.student.bytes as f64);
    let is_kept = now <= before * (1.0 + tolerance.larger);
    let status = if is_kept { Status::Kept } else { Status::Broken };
    let mut findings = vec![Finding::new("size", None, status, format!("{now} bytes, before {before}"))];
    for old in &baseline.runs {
        let same = |run: &&Run| (&run.device, &run.runtime) == (&old.device, &old.runtime);
        match report.runs.iter().find(same) {
            None => {
                let text = "was measured before, and is not now".to_string();
                findings.push(Finding::new("run", Some(old), Status::Broken, text));
            }
            Some(run) => {
                findings.extend(accuracy_beside(report, run, old, tolerance)?);
                findings.extend(latency_beside(report, baseline, run, old, tolerance));
            }
        }
    }
    Ok(findings)
}

/// The same samples, right and wrong by both.
fn accuracy_beside(report: &Report, run: &Run, old: &Run, tolerance: &Tolerance) -> Result<Option<Finding>, GateError> {
    let (Some(now), Some(before)) = (&run.wrong, &old.wrong) else { return Ok(None) };
    let right = |wrong: &[usize]| -> Vec<bool> {
        (0..report.data.n_samples).map(|sample| wrong.binary_search(&sample).is_err()).collect()
    };
    let counts = Counts::of(&right(now), &right(before))?;
    let judged = verdict::judge_counts(&counts, &verdict::Options::at(tolerance.accuracy_drop))?;
    let Interval { estimate, low, high, .. } = judged.interval;
    let text = format!(
        "accuracy {estimate:+.4} [{low:+.4}, {high:+.4}] since, at most −{}: {}",
        tolerance.accuracy_drop, judged.verdict
    );
    Ok(Some(Finding::new("accuracy", Some(run), status(&judged.verdict), text)))
}

/// The ratio to the same teacher then and now; to none the times themselves, where the machine is the same.
fn latency_beside(report: &Report, baseline: &Report, run: &Run, old: &Run, tolerance: &Tolerance) -> Option<Finding> {
    let (now, before) = (&run.latency.as_ref()?.student, &old.latency.as_ref()?.student);
    let is_same_teacher = report.teacher.sha256 == baseline.teacher.sha256;
    let (now, before) = match is_same_teacher {
        true => (now.ratio_to_first?, before.ratio_to_first?),
        false if report.machine == baseline.machine => (now.interval_us?, before.interval_us?),
        false => {
            let text = "cannot be told: another teacher, and another machine".to_string();
            return Some(Finding::new("latency", Some(run), Status::Undecided, text));
        }
    };
    let (low, high) = (now.low / before.high, now.high / before.low);
    let limit = 1.0 + tolerance.slower;
    let status = if low > limit { Status::Broken } else { Status::Kept };
    let text =
        format!("{:.3} [{low:.3}, {high:.3}] of its time before, at most {limit}", now.estimate / before.estimate);
    Some(Finding::new("latency", Some(run), status, text))
}
