//! `aludel targets probe`: what a device says of itself.

use serde::Serialize;

use super::super::progress::Progress;
use super::super::{Outcome, format};
use crate::measure::probe::{Core, Probe};
use crate::measure::runtime::remote::{self, Probed};
use crate::measure::target::Target;

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    probed: Probed,
    /// Where the device is not what its file says, a sentence each.
    differences: Vec<String>,
}

pub(super) fn run(target: &Target, json: bool) -> anyhow::Result<Outcome> {
    let progress = Progress::start(format!("asking {}", target.name));
    let probed = remote::probe(target)?;
    drop(progress);
    let differences = differences(target, &probed);
    let report = Report { probed, differences };
    if json { Outcome::json(&report) } else { Ok(Outcome::done(text(&report))) }
}

fn differences(target: &Target, probed: &Probed) -> Vec<String> {
    let machine = &probed.probe.machine;
    let mut differences = Vec::new();
    if target.arch != "native" && target.arch != machine.arch {
        differences.push(format!("it is {}, the file says {}", machine.arch, target.arch));
    }
    if probed.is_emulated {
        return differences;
    }
    let lacking: Vec<&str> =
        target.instruction_set.iter().filter(|set| !machine.features.contains(set)).map(String::as_str).collect();
    if !lacking.is_empty() {
        differences.push(format!("it lacks {}", lacking.join(", ")));
    }
    if let Some(n_cores) = target.n_cores.filter(|n_cores| *n_cores != machine.n_cpus) {
        differences.push(format!("it has {} cores, the file says {n_cores}", machine.n_cpus));
    }
    // The kernel and the graphics unit take their part first.
    const USABLE: f64 = 0.7;
    let sizes = (machine.memory_bytes, target.memory_bytes);
    if let (Some(is), Some(said)) = sizes
        && (is as f64) < USABLE * said as f64
    {
        differences.push(format!("it has {} of memory, the file says {}", format::bytes(is), format::bytes(said)));
    }
    differences
}

fn text(report: &Report) -> String {
    let Probed { target, program, is_emulated, probe } = &report.probed;
    let machine = &probe.machine;
    let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
    let mut text = format!("{target}: {cpu} · {} cores · {} {}", machine.n_cpus, machine.os, machine.arch);
    text.push_str(&format!(" · {} {}\n", program.name, program.version));
    if *is_emulated {
        text.push_str("emulated: clocks, heat, memory and rates are not the device's and are left out\n");
    }
    let mut line = |key: &str, value: Option<String>| {
        text.push_str(&format!("  {key:<16} {}\n", value.unwrap_or_else(|| "not said".to_string())));
    };
    line("instruction set", Some(machine.features.join(", ")).filter(|sets| !sets.is_empty()));
    if !is_emulated {
        line("memory", machine.memory_bytes.map(|total| memory(total, probe.available_bytes)));
        line("load", probe.load.map(|load| format!("{load:.2} processes in the last minute")));
        line("clock", clocks(&probe.cores));
        line("governor", governors(&probe.cores));
        line("heat", heat(probe));
        line("throttling", throttling(probe));
        line("matrix product", rate(probe));
    }
    for difference in &report.differences {
        text.push_str(&format!("not as in its file: {difference}\n"));
    }
    if probe.cores.iter().any(|core| core.governor.as_deref().is_some_and(|governor| governor != "performance")) {
        text.push_str("the clock follows the load: times are steadier with the governor `performance`\n");
    }
    text
}

fn memory(total: u64, available: Option<u64>) -> String {
    let available = available.map_or_else(String::new, |bytes| format!(", {} available", format::bytes(bytes)));
    format!("{}{available}", format::bytes(total))
}

/// The slowest and the quickest core now, and what they may do.
fn clocks(cores: &[Core]) -> Option<String> {
    let ends = |of: fn(&Core) -> Option<u64>| {
        let all: Vec<u64> = cores.iter().filter_map(of).collect();
        Some((*all.iter().min()?, *all.iter().max()?))
    };
    let megahertz = |(low, high): (u64, u64)| match low == high {
        true => format!("{} MHz", low / 1000),
        false => format!("{} to {} MHz", low / 1000, high / 1000),
    };
    let now = megahertz(ends(|core| core.current_khz)?);
    let most = ends(|core| core.max_khz).map_or_else(String::new, |most| format!(", at most {}", megahertz(most)));
    Some(format!("{now}{most}"))
}

fn governors(cores: &[Core]) -> Option<String> {
    let mut names: Vec<&str> = cores.iter().filter_map(|core| core.governor.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| names.join(", "))
}

fn heat(probe: &Probe) -> Option<String> {
    let zones: Vec<String> = probe.zones.iter().map(|zone| format!("{} {:.1} °C", zone.name, zone.celsius)).collect();
    (!zones.is_empty()).then(|| zones.join(", "))
}

fn throttling(probe: &Probe) -> Option<String> {
    let throttling = probe.throttling.as_ref()?;
    let words = |words: &[String]| if words.is_empty() { "none".to_string() } else { words.join(", ") };
    let before = words(&throttling.before);
    Some(format!("now: {}; since the start: {before} ({})", words(&throttling.now), throttling.source))
}

fn rate(probe: &Probe) -> Option<String> {
    let rate = probe.rate?;
    let size = rate.size;
    Some(format!("{} GFLOP/s, f32, {size} × {size} × {size}, one thread", format::three_digits(rate.gflops)))
}
