//! A training step (forward, backward, optimizer) beside PyTorch's on the CPU, where `ALUDEL_PEER_PYTHON` names a Python with
//! torch: the better of its two memory layouts, each in a process of its own, in turns, on `ALUDEL_BENCH_THREADS` threads (2).
//! Peak memory of each process, with and without what it takes to start.
//!
//! Arguments name the cases to run. The rows are written as JSON to the file that `ALUDEL_BENCH_JSON` names.

#![allow(clippy::print_stdout)] // figures are what a bench is for

#[path = "support/networks.rs"]
mod networks;
#[path = "support/steps.rs"]
mod steps;
#[allow(dead_code)] // processes are timed here, not functions
mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use aludel::graph::Name;
use aludel::learn::train::learner::Learner;
use aludel::measure::machine::Machine;
use aludel::measure::memory::resident;
use aludel::measure::statistics::{median, median_interval, sorted};
use indexmap::IndexMap;
use networks::{CASES, Case};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use steps::Steps;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often everybody has a turn, and how long one is.
const ROUNDS: usize = 15;
const TURN_MS: f64 = 250.0;

/// What a process says after some steps.
#[derive(Serialize, Deserialize)]
struct Answer {
    times_ms: Vec<f64>,
    peak_bytes: u64,
    before_bytes: u64,
    version: String,
}

fn main() {
    let n_threads: usize = std::env::var("ALUDEL_BENCH_THREADS").map_or(2, |n| n.parse().expect("a number of threads"));
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [flag, name] = arguments.as_slice()
        && flag == "--steps-of"
    {
        let case = CASES.iter().find(|case| case.name == name).expect("a case of the table");
        return serve(case, n_threads);
    }
    support::print_machine();
    let python = std::env::var_os("ALUDEL_PEER_PYTHON").map(PathBuf::from);
    if python.is_none() {
        println!("left out: ALUDEL_PEER_PYTHON does not name a Python with torch");
    }
    println!("{n_threads} threads, {ROUNDS} rounds in turns; ratio: PyTorch's time in its better layout, ours 1");
    let wanted = CASES.iter().filter(|case| arguments.is_empty() || arguments.iter().any(|name| name == case.name));
    let rows: Vec<Value> = wanted.map(|case| row(case, n_threads, python.as_deref())).collect();
    if let Some(path) = std::env::var_os("ALUDEL_BENCH_JSON") {
        let machine = Machine::this();
        let report =
            json!({"aludel": env!("CARGO_PKG_VERSION"), "machine": machine, "n_threads": n_threads, "rows": rows});
        let text = serde_json::to_string_pretty(&report).expect("numbers and text");
        std::fs::write(path, text + "\n").expect("ALUDEL_BENCH_JSON can be written");
    }
}

/// A process that takes steps when it is told to.
struct Contender {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// Steps of a turn.
    n_steps: usize,
    /// The median step of each turn.
    medians_ms: Vec<f64>,
    last: Option<Answer>,
}

impl Contender {
    fn start(name: &'static str, command: &mut Command) -> Contender {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut contender = Contender { name, child, stdin, stdout, n_steps: 5, medians_ms: Vec::new(), last: None };
        // the first steps allocate, the next tell how long one takes
        contender.turn();
        contender.turn();
        let step_ms = contender.medians_ms.last().copied().expect("there were two turns");
        contender.n_steps = ((TURN_MS / step_ms) as usize).max(3);
        contender.medians_ms.clear();
        contender
    }

    fn turn(&mut self) {
        let stdin = self.stdin.as_mut().expect("it is open until the end");
        writeln!(stdin, "{}", self.n_steps).expect("the process listens");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the process answers");
        let answer: Answer = serde_json::from_str(&line).expect("a line of JSON");
        self.medians_ms.push(median(&sorted(&answer.times_ms)));
        self.last = Some(answer);
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        self.stdin = None;
        self.child.wait().expect("it ends when nobody speaks to it");
    }
}

fn row(case: &Case, n_threads: usize, python: Option<&Path>) -> Value {
    let own = std::env::current_exe().expect("this program is somewhere");
    let mut command = Command::new(own);
    command.args(["--steps-of", case.name]).env("ALUDEL_BENCH_THREADS", n_threads.to_string());
    let mut contenders = vec![Contender::start("aludel", &mut command)];
    let layouts: &[&'static str] = if case.has_images { &["contiguous", "channels-last"] } else { &["contiguous"] };
    for layout in layouts.iter().filter(|_| python.is_some()) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/training_step.py");
        let mut command = Command::new(python.expect("there is one"));
        command.arg(script).args([case.name, &n_threads.to_string(), layout]);
        contenders.push(Contender::start(layout, &mut command));
    }
    for _ in 0..ROUNDS {
        contenders.iter_mut().for_each(Contender::turn);
    }
    let (ours, theirs) = contenders.split_first().expect("we are one");
    let best = theirs.iter().min_by(|a, b| typical_ms(a).total_cmp(&typical_ms(b)));
    let ratio = best.and_then(|best| {
        let ratios = best.medians_ms.iter().zip(&ours.medians_ms).map(|(theirs, ours)| theirs / ours);
        median_interval(&sorted(&ratios.collect::<Vec<f64>>()), 0.95)
    });
    let shown = ratio.map_or_else(String::new, |ratio| {
        let verdict = if ratio.estimate >= case.goal { "" } else { ", missed" };
        format!("  ratio {:.2} [{:.2}, {:.2}], goal {:.1}{verdict}", ratio.estimate, ratio.low, ratio.high, case.goal)
    });
    println!("{}{shown}", case.name);
    let processes: Vec<Value> = contenders.iter().map(process).collect();
    json!({"case": case.name, "goal": case.goal, "ratio": ratio.map(|ratio| [ratio.estimate, ratio.low, ratio.high]),
        "processes": processes})
}

fn typical_ms(contender: &Contender) -> f64 {
    median(&sorted(&contender.medians_ms))
}

fn process(contender: &Contender) -> Value {
    let last = contender.last.as_ref().expect("it had its turns");
    let [peak, own] =
        [last.peak_bytes, last.peak_bytes - last.before_bytes].map(|bytes| bytes as f64 / (1 << 20) as f64);
    let name = if contender.name == "aludel" { "aludel".to_string() } else { format!("torch, {}", contender.name) };
    let times = median_interval(&sorted(&contender.medians_ms), 0.95).expect("fifteen rounds");
    println!(
        "  {name:<22} {:8.2} ms [{:.2}, {:.2}]  peak {peak:6.0} MiB, {own:6.0} of them since it was started",
        times.estimate, times.low, times.high,
    );
    json!({"name": name, "version": last.version, "step_ms": [times.estimate, times.low, times.high],
        "peak_bytes": last.peak_bytes, "before_bytes": last.before_bytes})
}

/// Takes steps as standard input says.
fn serve(case: &Case, n_threads: usize) {
    rayon::ThreadPoolBuilder::new().num_threads(n_threads).build_global().expect("the pool is not built yet");
    let peak_bytes = || resident().map_or(0, |resident| resident.peak_bytes);
    let before_bytes = peak_bytes();
    let graph = case.network();
    let output = graph.outputs[0].name.clone();
    let learner = Learner::new(&graph, &output, case.loss(), &BTreeSet::new()).expect("a network that learns");
    drop(graph);
    let [x, target] = case.batch();
    let batch = IndexMap::from([(Name::from("x"), x), (learner.target().expect("labels are read").clone(), target)]);
    let mut steps = Steps::new(learner, case.optimizer(), 0.01);
    for line in std::io::stdin().lines() {
        let n_asked: usize = line.expect("standard input").trim().parse().expect("a number of steps");
        let times_ms = (0..n_asked).map(|_| {
            let start = Instant::now();
            steps.step(&batch);
            start.elapsed().as_secs_f64() * 1e3
        });
        let times_ms = times_ms.collect();
        let version = env!("CARGO_PKG_VERSION").to_string();
        let answer = Answer { times_ms, peak_bytes: peak_bytes(), before_bytes, version };
        println!("{}", serde_json::to_string(&answer).expect("numbers"));
    }
}
