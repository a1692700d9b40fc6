//! Rules kept, broken and undecided, on reports made by hand.

use super::gate::{Budget, Finding, Status, Tolerance, by_baseline, by_budget};
use super::*;
use crate::measure::paired::Counts;
use crate::measure::paired::verdict::{Options, judge_counts};

fn interval(estimate: f64, half: f64) -> Option<Interval> {
    Some(Interval { estimate, low: estimate - half, high: estimate + half, confidence: 0.95 })
}

fn timing(us: f64, ratio: Option<f64>) -> Latency {
    let around = interval(us, 0.02 * us);
    Latency {
        label: String::new(),
        n: 1000,
        n_rounds: 20,
        n_warm_up: 10,
        min_us: us,
        median_us: us,
        interval_us: around,
        mean_us: us,
        p90_us: us,
        p90_interval_us: around,
        p95_us: us,
        p95_interval_us: around,
        p99_us: us,
        p99_interval_us: None,
        p999_us: us,
        spread_us: 1.0,
        is_tight: true,
        ratio_to_first: ratio.and_then(|ratio| interval(ratio, 0.02 * ratio)),
    }
}

/// A student that gets these samples wrong of `n`, its teacher none; it takes a quarter of the teacher's 4 ms.
fn report(n: usize, wrong: &[usize]) -> Report {
    let machine = Machine {
        cpu: Some("cpu".into()),
        n_cpus: 2,
        features: Vec::new(),
        os: "linux".into(),
        arch: "x86_64".into(),
        memory_bytes: None,
    };
    let file = |name: &str, bytes: u64| FilePart {
        path: name.into(),
        sha256: name.into(),
        bytes,
        compressed: Compressed { gzip: bytes / 2, zstd: bytes / 2 },
        parameters: bytes / 4,
        macs: Some(1000),
    };
    let counts = Counts { n_both_right: n - wrong.len(), n_teacher_only: wrong.len(), ..Counts::default() };
    let judged = judge_counts(&counts, &Options::at(0.01)).expect("samples");
    let accuracy = 1.0 - wrong.len() as f64 / n as f64;
    let metric = Metric {
        name: "accuracy".into(),
        is_higher_better: true,
        teacher: 1.0,
        student: accuracy,
        difference: Some(judged.interval),
        judgement: Some(judged),
    };
    let run = Run {
        device: "host".into(),
        runtime: "tract".into(),
        version: "1".into(),
        metrics: vec![metric],
        agreement: None,
        confusion: None,
        wrong: Some(wrong.to_vec()),
        latency: Some(Beside { teacher: timing(4000.0, None), student: timing(1000.0, Some(0.25)) }),
    };
    Report {
        schema: SCHEMA,
        aludel: "1".into(),
        machine,
        data: DataPart { path: "d".into(), sha256: "s".into(), split: "test".into(), n_samples: n },
        margin: 0.01,
        teacher: file("teacher", 40_000),
        student: file("student", 10_000),
        runs: vec![run],
    }
}

fn found(findings: &[Finding]) -> Vec<(&str, Status)> {
    findings.iter().map(|finding| (finding.rule.as_str(), finding.status)).collect()
}

#[test]
fn budgets_are_kept_broken_or_undecided() {
    let report = report(10_000, &[5, 6]);
    let check = |budget: &str, expected: &[(&str, Status)]| {
        let findings = by_budget(&report, &Budget::parse(budget).expect("a budget")).expect("findings");
        assert_eq!(found(&findings), expected, "{budget}: {findings:?}");
    };
    check("accuracy_drop = 0.01", &[("accuracy_drop", Status::Kept)]);
    check("accuracy_drop = 0.0001", &[("accuracy_drop", Status::Undecided)]);
    check("accuracy = 0.9999", &[("accuracy", Status::Broken)]);
    check("size_kib = 10\nsize_zstd_kib = 4", &[("size_kib", Status::Kept), ("size_zstd_kib", Status::Broken)]);
    check("latency_median_ms = 1.1", &[("latency_median_ms", Status::Kept)]);
    check("latency_p95_ms = 1.0", &[("latency_p95_ms", Status::Undecided)]);
    check("latency_p90_ms = 0.9", &[("latency_p90_ms", Status::Broken)]);
    // of its tail nothing is known
    check("latency_p99_ms = 2.0", &[("latency_p99_ms", Status::Undecided)]);
    check("speed_up = 3", &[("speed_up", Status::Kept)]);
    check("[budget]\nspeed_up = 5", &[("speed_up", Status::Broken)]);
    check("speed_up = 3\n[host]\nspeed_up = 5", &[("speed_up", Status::Broken)]);
    check("[raspberry-pi-4]\nsize_kib = 1", &[("device", Status::Broken)]);
}

#[test]
fn what_is_no_budget_is_refused() {
    for (text, expected) in [
        ("", "has no limit"),
        ("latency = 3", "unknown field `latency`"),
        ("size_kib = -1", "has size_kib = -1, which is no limit"),
        ("[host]\nsize_kib = \"big\"", "host."),
        ("[budget]\nspeed_up = 2\n[other]\nspeed_up = 1", "has keys beside its table `budget`"),
        ("size_kib", "is no TOML"),
    ] {
        let error = Budget::parse(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn a_release_is_held_against_the_one_before() {
    let before = report(2_000, &[1, 2, 3]);
    let check = |now: &Report, expected: &[(&str, Status)]| {
        let findings = by_baseline(now, &before, &Tolerance::default()).expect("the same samples");
        assert_eq!(found(&findings), expected, "{findings:?}");
    };
    let kept = [("size", Status::Kept), ("accuracy", Status::Kept), ("latency", Status::Kept)];
    check(&before, &kept);
    check(&report(2_000, &[1, 2, 4]), &kept);
    let lost: Vec<usize> = (0..80).collect();
    check(&report(2_000, &lost), &[kept[0], ("accuracy", Status::Broken), kept[2]]);
    let some: Vec<usize> = (0..20).collect();
    check(&report(2_000, &some), &[kept[0], ("accuracy", Status::Undecided), kept[2]]);
    let mut slow = before.clone();
    slow.runs[0].latency = Some(Beside { teacher: timing(4000.0, None), student: timing(1200.0, Some(0.30)) });
    check(&slow, &[kept[0], kept[1], ("latency", Status::Broken)]);
    // Both slower: the machine's doing.
    slow.runs[0].latency = Some(Beside { teacher: timing(8000.0, None), student: timing(2000.0, Some(0.25)) });
    check(&slow, &kept);
    let mut large = before.clone();
    large.student.bytes = 11_000;
    check(&large, &[("size", Status::Broken), kept[1], kept[2]]);
    let mut other = before.clone();
    other.runs[0].runtime = "onnxruntime".into();
    check(&other, &[kept[0], ("run", Status::Broken)]);
    other.data.sha256 = "t".into();
    assert!(by_baseline(&other, &before, &Tolerance::default()).is_err());
}

/// A student that is worse by a known part: what the interval's theory says at these numbers of samples, of which a fiftieth more
/// disagree either way.
#[test]
fn verdicts_are_those_of_theory() {
    let verdict = |n: usize, drop: f64| {
        let either = n / 50;
        let n_teacher_only = either + (drop * n as f64) as usize;
        let counts = Counts {
            n_both_right: n - either - n_teacher_only,
            n_student_only: either,
            n_teacher_only,
            ..Counts::default()
        };
        judge_counts(&counts, &Options::at(0.02)).expect("samples").verdict
    };
    // A half width of 1.96 √(0.04 + drop) / √n: 1.8, 0.9 and 0.4 points at no drop, 2.4, 1.2 and 0.5 at four.
    let undecided = |verdict: Verdict| matches!(verdict, Verdict::Undecided { .. });
    assert!(undecided(verdict(500, 0.01)) && undecided(verdict(500, 0.02)) && undecided(verdict(500, 0.04)));
    assert!(undecided(verdict(2_000, 0.02)) && verdict(2_000, 0.04) == Verdict::Fails);
    assert_eq!(verdict(10_000, 0.01), Verdict::Passes);
    assert!(undecided(verdict(10_000, 0.02)));
    assert_eq!(verdict(10_000, 0.04), Verdict::Fails);
    assert!(verdict(2_000, 0.0) == Verdict::Passes);
}

#[test]
fn reports_are_read_as_they_were_written() {
    let report = report(100, &[1]);
    let json = serde_json::to_vec(&report).expect("plain numbers");
    assert_eq!(Report::from_json(&json), Ok(report.clone()));
    let newer = String::from_utf8(json).expect("text").replacen("\"schema\":1", "\"schema\":2", 1);
    assert!(Report::from_json(newer.as_bytes()).expect_err("newer").contains("form 2, this aludel reads 1"));
    assert!(Report::from_json(b"{}").expect_err("none").contains("is no report"));
    let text = markdown(&report);
    assert!(text.starts_with("**The student not decidable with 100 samples"), "{text}");
    assert!(
        text.contains("| accuracy, tract | 1.0000 | 0.9900 |") && text.contains("| bytes | 40000 | 10000 | 4.00 × |"),
        "{text}"
    );
}
