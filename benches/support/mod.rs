//! What the benches share: two things timed in turns, and their ratio with its interval.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aludel::measure::machine::Machine;
use aludel::measure::statistics::{self, Interval};

/// Prints the machine once, before the figures.
pub(crate) fn print_machine() {
    let machine = Machine::this();
    let cpu = machine.cpu.as_deref().unwrap_or("unknown processor");
    println!("machine: {cpu} · {} cores · {} {}", machine.n_cpus, machine.os, machine.arch);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Option<f64> = load.split(' ').next().and_then(|load| load.parse().ok());
    // a runtime whose threads wait for each other suffers more from company than one whose threads take what comes
    if let Some(load) = load.filter(|&load| load > 0.5 * machine.n_cpus as f64) {
        println!("the machine was busy in the last minute (load {load}): ratios say little unless it is quiet now");
    }
}

/// The folder of real models; without it there is nothing to measure on.
pub(crate) fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("ALUDEL_DATA").map(PathBuf::from).filter(|folder| folder.is_dir());
    if folder.is_none() {
        println!("left out: ALUDEL_DATA does not name a folder");
    }
    folder
}

fn time_ms<T>(work: &mut impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    let kept = black_box(work());
    let elapsed = start.elapsed();
    drop(kept);
    elapsed.as_secs_f64() * 1e3
}

/// Times `work` and `yardstick` in turns for about three seconds, one thread, and prints the ratio of their times.
pub(crate) fn against<T, U>(
    name: &str,
    mut work: impl FnMut() -> T,
    yardstick_name: &str,
    mut yardstick: impl FnMut() -> U,
) {
    const BUDGET: Duration = Duration::from_secs(3);
    const FEWEST: usize = 11;
    time_ms(&mut work);
    time_ms(&mut yardstick);
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let start = Instant::now();
    while start.elapsed() < BUDGET || ratios.len() < FEWEST {
        let (a, b) = (time_ms(&mut work), time_ms(&mut yardstick));
        ours.push(a);
        theirs.push(b);
        ratios.push(a / b);
    }
    let n_pairs = ratios.len();
    let [ours, theirs, ratio] = [ours, theirs, ratios].map(|sample| median(&sample));
    println!(
        "{name}: {} ms; {yardstick_name}: {} ms; ratio {} ({n_pairs} pairs)",
        shown(ours),
        shown(theirs),
        shown(ratio)
    );
}

fn median(sample: &[f64]) -> Interval {
    statistics::median_interval(&statistics::sorted(sample), 0.95).expect("eleven pairs are enough")
}

fn shown(interval: Interval) -> String {
    format!("{:.2} [{:.2}, {:.2}]", interval.estimate, interval.low, interval.high)
}
