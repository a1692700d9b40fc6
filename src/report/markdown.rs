//! A report as Markdown: for a pull request, or the summary of a pipeline.

use std::fmt::Write as _;

use super::{FilePart, Metric, Report, Run};
use crate::measure::paired::verdict::Verdict;

/// The verdict first, then a table for each runtime.
pub fn markdown(report: &Report) -> String {
    let Report { teacher, student, data, margin, .. } = report;
    let verdict = match report.verdict() {
        Some(Verdict::Passes) => "passes".to_string(),
        Some(verdict) => verdict.to_string(),
        None => "is not judged".to_string(),
    };
    let mut text = format!(
        "**The student {verdict}**, at most {margin} below its teacher on {} samples of {}.\n\n",
        data.n_samples, data.path
    );
    text.push_str("| | teacher | student | |\n|---|---|---|---|\n");
    for (what, of) in FIGURES {
        if let (Some(a), Some(b)) = (of(teacher), of(student)) {
            let _ = writeln!(text, "| {what} | {a} | {b} | {} |", ratio(a as f64, b as f64));
        }
    }
    for run in &report.runs {
        run_rows(run, &mut text);
    }
    let _ = write!(text, "\n{}, aludel {}", machine(report), report.aludel);
    text.push('\n');
    text
}

type Figure = (&'static str, fn(&FilePart) -> Option<u64>);

const FIGURES: [Figure; 4] = [
    ("bytes", |file| Some(file.bytes)),
    ("bytes by zstd", |file| Some(file.compressed.zstd)),
    ("parameters", |file| Some(file.parameters)),
    ("MACs", |file| file.macs),
];

fn run_rows(run: &Run, text: &mut String) {
    let on = if run.device == "host" { run.runtime.clone() } else { format!("{} on {}", run.runtime, run.device) };
    for metric in &run.metrics {
        let Metric { name, teacher, student, difference, judgement, .. } = metric;
        let interval =
            difference.map_or(String::new(), |it| format!("{:+.4} [{:+.4}, {:+.4}]", it.estimate, it.low, it.high));
        let verdict = judgement.map_or(String::new(), |judgement| format!(": {}", judgement.verdict));
        let _ = writeln!(text, "| {name}, {on} | {teacher:.4} | {student:.4} | {interval}{verdict} |");
    }
    if let Some(agreement) = &run.agreement {
        let flips = &agreement.flips;
        let _ = writeln!(
            text,
            "| agreement, {on} | | {:.4} | {} lost, {} gained |",
            agreement.share,
            flips.lost.len(),
            flips.gained.len()
        );
    }
    if let Some(latency) = &run.latency {
        for (what, of) in LATENCIES {
            let (a, b) = (of(&latency.teacher), of(&latency.student));
            let _ = writeln!(text, "| {what} µs, {on} | {a:.1} | {b:.1} | {} |", ratio(a, b));
        }
    }
}

type Time = (&'static str, fn(&crate::measure::latency::Latency) -> f64);

const LATENCIES: [Time; 3] =
    [("median", |latency| latency.median_us), ("p95", |latency| latency.p95_us), ("p99", |latency| latency.p99_us)];

fn ratio(teacher: f64, student: f64) -> String {
    if student > 0.0 && teacher > 0.0 { format!("{:.2} ×", teacher / student) } else { String::new() }
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let cpu = machine.cpu.as_deref().unwrap_or(&machine.arch);
    format!("{cpu}, {} processors, one thread", machine.n_cpus)
}
