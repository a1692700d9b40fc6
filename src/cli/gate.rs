//! `aludel gate`: whether a student may ship, by a budget or beside the release before.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::Outcome;
use super::table::{Side, table};
use super::validate::Undecided;
use crate::report::Report;
use crate::report::gate::{Budget, Finding, Status, Tolerance, by_baseline, by_budget};
use crate::store;

/// Pass or fail a report that `aludel compare --data D --report FILE` wrote
///
/// By a budget (TOML: accuracy_drop, latency_p95_ms, size_kib …, for all devices or for one in a table of its name), by the report of a
/// release before, or both. One line a rule; exit code 1 where one is broken, or cannot be told.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aludel gate report.json --budget budget.toml\n  aludel gate report.json --baseline released.json --junit gate.xml\n  aludel gate report.json --baseline released.json --update"
)]
pub(super) struct Arguments {
    /// The report
    report: PathBuf,
    /// Limits in TOML
    #[arg(long, value_name = "FILE.toml", required_unless_present = "baseline")]
    budget: Option<PathBuf>,
    /// The report of the release before, on the same samples
    #[arg(long, value_name = "FILE.json")]
    baseline: Option<PathBuf>,
    /// How much worse than the baseline's student it may be
    #[arg(long, value_name = "DROP", default_value_t = Tolerance::default().accuracy_drop, requires = "baseline")]
    accuracy_drop: f64,
    /// How much slower than the baseline's student, as a part of its time
    #[arg(long, value_name = "PART", default_value_t = Tolerance::default().slower, requires = "baseline")]
    slower: f64,
    /// How much larger than the baseline's file, as a part of it
    #[arg(long, value_name = "PART", default_value_t = Tolerance::default().larger, requires = "baseline")]
    larger: f64,
    /// Where no rule is broken, write the report in the baseline's place; where there is no baseline yet, as the first
    #[arg(long, requires = "baseline")]
    update: bool,
    /// What a rule that cannot be told comes to: fail (exit code 1) or pass
    #[arg(long, value_name = "WORD", default_value = "fail")]
    undecided: Undecided,
    /// Write the rules as JUnit XML
    #[arg(long, value_name = "FILE.xml")]
    junit: Option<PathBuf>,
    /// Write the rules as a Markdown table
    #[arg(long, value_name = "FILE.md")]
    markdown: Option<PathBuf>,
    /// Also print a line for GitHub Actions for each rule that is not kept
    #[arg(long)]
    github: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    aludel: &'static str,
    report: &'a Path,
    is_passed: bool,
    findings: &'a [Finding],
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let report = read(&arguments.report)?;
    let mut findings = Vec::new();
    if let Some(path) = &arguments.budget {
        let bytes = store::read(path)?;
        let text = std::str::from_utf8(&bytes).with_context(|| format!("{} is no text", path.display()))?;
        let budget = Budget::parse(text).with_context(|| format!("{} is no budget", path.display()))?;
        findings.extend(by_budget(&report, &budget)?);
    }
    let first = arguments.update && arguments.baseline.as_ref().is_some_and(|path| !path.exists());
    if let Some(path) = arguments.baseline.as_ref().filter(|_| !first) {
        let Arguments { accuracy_drop, slower, larger, .. } = *arguments;
        if [accuracy_drop, slower, larger].iter().any(|part| !part.is_finite() || *part < 0.0) {
            bail!("--accuracy-drop, --slower and --larger should be numbers from 0");
        }
        let tolerance = Tolerance { accuracy_drop, slower, larger };
        findings.extend(by_baseline(&report, &read(path)?, &tolerance)?);
    }
    let is_kept = |finding: &Finding| match finding.status {
        Status::Kept => true,
        Status::Undecided => arguments.undecided == Undecided::Pass,
        Status::Broken => false,
    };
    let is_passed = findings.iter().all(is_kept);
    if let Some(path) = &arguments.junit {
        store::write_atomic(path, junit(&findings, &is_kept).as_bytes())?;
    }
    if let Some(path) = &arguments.markdown {
        store::write_atomic(path, markdown(&findings).as_bytes())?;
    }
    let mut written = None;
    if let Some(path) = arguments.baseline.as_ref().filter(|_| arguments.update && is_passed) {
        store::write_atomic(path, &store::read(&arguments.report)?)?;
        written = Some(path);
    }
    let answer =
        Answer { aludel: env!("CARGO_PKG_VERSION"), report: &arguments.report, is_passed, findings: &findings };
    let mut outcome = if arguments.json { Outcome::json(&answer)? } else { Outcome::done(text(&findings, is_passed)) };
    if let Some(path) = written.filter(|_| !arguments.json) {
        let _ = writeln!(outcome.text, "{} is the baseline now", path.display());
    }
    if arguments.github && !arguments.json {
        findings.iter().filter(|finding| !is_kept(finding)).for_each(|finding| {
            let Finding { rule, on, text, .. } = finding;
            let _ = writeln!(
                outcome.text,
                "::error title=aludel gate: {rule}::{}",
                escaped_for_github(&format!("{on} {text}"))
            );
        });
    }
    Ok(Outcome { code: u8::from(!is_passed), ..outcome })
}

fn read(path: &Path) -> anyhow::Result<Report> {
    Report::from_json(&store::read(path)?).map_err(|problem| anyhow::anyhow!("{} {problem}", path.display()))
}

fn text(findings: &[Finding], is_passed: bool) -> String {
    let columns = [("", Side::Left), ("rule", Side::Left), ("on", Side::Left), ("", Side::Left)];
    let row = |finding: &Finding| {
        let Finding { rule, on, status, text } = finding;
        vec![status.to_string(), rule.clone(), on.clone(), text.clone()]
    };
    let verdict = if is_passed { "passed" } else { "not passed" };
    if findings.is_empty() {
        return format!("{verdict}\n");
    }
    format!("{}\n{verdict}\n", table(&columns, findings.iter().map(row)))
}

fn markdown(findings: &[Finding]) -> String {
    let mut text = "| | rule | on | |\n|---|---|---|---|\n".to_string();
    for Finding { rule, on, status, text: told } in findings {
        let _ = writeln!(text, "| {status} | {rule} | {on} | {told} |");
    }
    text
}

/// The rules as the test cases that pipelines show.
fn junit(findings: &[Finding], is_kept: &dyn Fn(&Finding) -> bool) -> String {
    let n_failed = findings.iter().filter(|finding| !is_kept(finding)).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"aludel gate\" tests=\"{}\" failures=\"{n_failed}\">\n",
        findings.len()
    );
    for finding in findings {
        let Finding { rule, on, text: told, status } = finding;
        let [rule, on, told] = [rule, on, told].map(|text| escaped(text));
        let _ = write!(text, "  <testcase name=\"{rule}\" classname=\"{on}\">");
        let _ = match is_kept(finding) {
            true => write!(text, "<system-out>{told}</system-out>"),
            false => write!(text, "<failure message=\"{status}: {told}\"/>"),
        };
        text.push_str("</testcase>\n");
    }
    text.push_str("</testsuite>\n");
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Text in a workflow command of GitHub Actions.
fn escaped_for_github(text: &str) -> String {
    text.trim().replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}
