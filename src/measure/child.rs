//! Measurements that need a process of their own: peak memory, and the first run of a model. The program starts itself
//! again with [`SUBCOMMAND`], which calls [`serve`]; a crash inside a runtime ends the child only.
//!
//! A request goes to the child's stdin and a reply comes on its stdout, each one line of JSON. The reply's line begins
//! with [`MARK`]: runtimes may print to stdout, and what they print is passed over.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::inputs::{self, Bindings, InputError};
use super::latency::timed;
use super::memory;
use super::runtime::{self, ModelBytes, Optimization, Options, Runtime, RuntimeError};
use crate::store::{self, StoreError};

/// The hidden subcommand that the program must answer with [`serve`].
pub const SUBCOMMAND: &str = "__child";

/// What the line of the reply begins with.
pub const MARK: &str = "aludel-child: ";

/// A runtime by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeName {
    /// tract.
    Tract,
    /// onnxruntime.
    Ort,
}

impl RuntimeName {
    /// The runtime itself; `library` is the path that the user names for onnxruntime, if any.
    ///
    /// # Errors
    /// When onnxruntime's library cannot be had.
    pub fn open(self, library: Option<&Path>) -> Result<Box<dyn Runtime>, RuntimeError> {
        match self {
            RuntimeName::Tract => Ok(Box::new(runtime::tract::Tract)),
            RuntimeName::Ort => Ok(Box::new(runtime::ort::Onnxruntime::open(library)?)),
        }
    }
}

/// What the child is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The model's file.
    pub model: PathBuf,
    /// The runtime.
    pub runtime: RuntimeName,
    /// onnxruntime's library, where the user names it.
    pub library: Option<PathBuf>,
    /// Threads within an operator.
    pub n_threads: usize,
    /// How much the runtime may rewrite the graph.
    pub optimization: Optimization,
    /// See [`Options::fuse_quantization`].
    pub fuse_quantization: bool,
    /// Runs, the first included; at least one is done.
    pub n_runs: usize,
    /// Seed of the inputs.
    pub seed: u64,
    /// Numbers for symbolic dimensions.
    pub bindings: Bindings,
}

impl Request {
    /// Ten runs on one thread on inputs of seed 0.
    pub fn new(model: impl Into<PathBuf>, runtime: RuntimeName) -> Request {
        Request {
            model: model.into(),
            runtime,
            library: None,
            n_threads: 1,
            optimization: Optimization::All,
            fuse_quantization: true,
            n_runs: 10,
            seed: 0,
            bindings: Bindings::new(),
        }
    }
}

/// What the child found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Resident memory with the runtime's code loaded, before the model is read; none where the system does not say.
    pub rss_before_load_bytes: Option<u64>,
    /// With the model loaded and the file's bytes given back.
    pub rss_after_load_bytes: Option<u64>,
    /// The most of it all, the file's bytes while it loads and every run included.
    pub rss_peak_bytes: Option<u64>,
    /// Why the three are not known, where they are not.
    pub rss_unknown: Option<String>,
    /// Loading and optimizing, in microseconds, without reading the file.
    pub load_us: f64,
    /// The first run, in microseconds; tract plans in it where shapes are symbolic.
    pub first_run_us: f64,
    /// Runs done.
    pub n_runs: usize,
}

/// Why the child gave no report.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started or spoken to.
    #[error("cannot measure in a process of its own: {0}")]
    Process(#[from] io::Error),
    /// It took too long and was ended.
    #[error("measuring {} in a process of its own took longer than {} s and was ended", model.display(), timeout.as_secs())]
    Timeout {
        /// the model
        model: PathBuf,
        /// the time it had
        timeout: Duration,
    },
    /// It ended without a reply: it crashed, or is a program that does not know the subcommand.
    #[error("the process that measured {} ended without a reply ({status}){}", model.display(), said(.stderr))]
    NoReply {
        /// the model
        model: PathBuf,
        /// how it ended
        status: ExitStatus,
        /// the end of what it said
        stderr: String,
    },
    /// The reply or the request is no such thing.
    #[error("the reply of the measuring process cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It found that the measurement cannot be made.
    #[error("{0}")]
    Failed(String),
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

/// Answers one request: what the program does under [`SUBCOMMAND`]. A failed measurement is a reply, too.
///
/// # Errors
/// When the request cannot be read or the reply not be written.
pub fn serve(mut input: impl Read, mut output: impl Write) -> Result<(), ChildError> {
    let mut request = String::new();
    input.read_to_string(&mut request)?;
    let request: Request = serde_json::from_str(&request)?;
    let reply: Result<Report, String> = work(&request).map_err(|error| error.to_string());
    writeln!(output, "{MARK}{}", serde_json::to_string(&reply)?)?;
    output.flush()?;
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Input(#[from] InputError),
}

fn work(request: &Request) -> Result<Report, WorkError> {
    let runtime = request.runtime.open(request.library.as_deref())?;
    let before = memory::resident();
    let model = ModelBytes::new(store::read(&request.model)?).at(&request.model);
    let options = Options {
        n_threads: request.n_threads,
        optimization: request.optimization,
        fuse_quantization: request.fuse_quantization,
        ..Options::default()
    };
    let (session, load) = timed(|| runtime.load(&model, &options));
    let mut session = session?;
    drop(model);
    let after = memory::resident();
    let inputs = inputs::random(session.inputs(), &request.bindings, request.seed)?;
    let (outputs, first_run) = timed(|| session.run(&inputs));
    outputs?;
    let n_runs = request.n_runs.max(1);
    for _ in 1..n_runs {
        session.run(&inputs)?;
    }
    let peak = memory::resident();
    Ok(Report {
        rss_before_load_bytes: before.as_ref().ok().map(|resident| resident.current_bytes),
        rss_after_load_bytes: after.ok().map(|resident| resident.current_bytes),
        rss_peak_bytes: peak.ok().map(|resident| resident.peak_bytes),
        rss_unknown: before.err(),
        load_us: load.as_secs_f64() * 1e6,
        first_run_us: first_run.as_secs_f64() * 1e6,
        n_runs,
    })
}

/// Measures in a child: this program, started again with [`SUBCOMMAND`].
///
/// # Errors
/// When the child cannot be started, does not answer in time, crashes, or finds that the model does not run.
pub fn measure(request: &Request, timeout: Duration) -> Result<Report, ChildError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(SUBCOMMAND);
    measure_with(command, request, timeout)
}

/// Like [`measure`], with another command that ends in [`serve`].
///
/// # Errors
/// As for [`measure`].
pub fn measure_with(mut command: Command, request: &Request, timeout: Duration) -> Result<Report, ChildError> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().expect("it was piped");
    let stdout = child.stdout.take().expect("it was piped");
    let mut stderr = child.stderr.take().expect("it was piped");
    let (sender, replies) = mpsc::channel();
    let lines = thread::spawn(move || {
        let lines = BufReader::new(stdout).split(b'\n').map_while(Result::ok);
        for line in lines.map(|line| String::from_utf8_lossy(&line).into_owned()) {
            if let Some(reply) = line.strip_prefix(MARK) {
                let _ = sender.send(reply.to_owned()); // nobody listens after the timeout
            }
        }
    });
    let words = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text); // what was said before it broke off is enough
        last_lines(&String::from_utf8_lossy(&text))
    });
    // A child that ended already says why by its status.
    let _ = stdin.write_all(serde_json::to_string(request)?.as_bytes());
    drop(stdin);
    let began = Instant::now();
    let reply = replies.recv_timeout(timeout);
    let status = match reply {
        Ok(_) => {
            // What is left is tearing down; a runtime that hangs there must not hang us.
            Some(end(&mut child)?)
        }
        // It closed its stdout, which is not yet its end.
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            status_within(&mut child, timeout.saturating_sub(began.elapsed()))?
        }
        Err(mpsc::RecvTimeoutError::Timeout) => None,
    };
    let Some(status) = status else {
        end(&mut child)?;
        return Err(ChildError::Timeout { model: request.model.clone(), timeout });
    };
    let _ = lines.join();
    let stderr = words.join().unwrap_or_default();
    let Ok(reply) = reply else {
        return Err(ChildError::NoReply { model: request.model.clone(), status, stderr });
    };
    let report: Result<Report, String> = serde_json::from_str(&reply)?;
    report.map_err(ChildError::Failed)
}

pub(super) fn end(child: &mut Child) -> io::Result<ExitStatus> {
    child.kill()?;
    child.wait()
}

/// How the child ended; none if it runs on after this time.
pub(super) fn status_within(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    const PAUSE: Duration = Duration::from_millis(5);
    let began = Instant::now();
    loop {
        let status = child.try_wait()?;
        if status.is_some() || began.elapsed() >= limit {
            return Ok(status);
        }
        thread::sleep(PAUSE);
    }
}

pub(super) fn last_lines(text: &str) -> String {
    const N_LINES: usize = 5;
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(N_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn check(script: &str, timeout: Duration) -> String {
        match measure_with(shell(script), &Request::new("m.onnx", RuntimeName::Tract), timeout) {
            Ok(report) => format!("{report:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[cfg(unix)]
    #[test]
    fn every_way_to_end_without_a_report_is_an_error() {
        let long = Duration::from_secs(20);
        let crashed = check("kill -SEGV $$", long);
        assert!(crashed.starts_with("the process that measured m.onnx ended without a reply (signal: 11"), "{crashed}");
        let refused = check("echo 'unknown command' >&2; exit 2", long);
        assert!(refused.ends_with("(exit status: 2): unknown command"), "{refused}");
        let slow = check("exec sleep 30", Duration::from_millis(50));
        assert!(slow.contains("took longer than"), "{slow}");
        let mute = check("exec >&-; exec sleep 30", Duration::from_millis(500));
        assert!(mute.contains("took longer than"), "{mute}");
        let late = check("exec >&-; sleep 0.1; exit 3", long);
        assert!(late.contains("(exit status: 3)"), "{late}");
        assert_eq!(check("echo 'aludel-child: {\"Err\":\"no\"}'", long), "no");
        assert!(check("echo 'aludel-child: {'", long).contains("cannot be read"));
    }

    #[test]
    fn a_model_that_is_not_there_is_a_reply() {
        let request = serde_json::to_string(&Request::new("/none/m.onnx", RuntimeName::Tract)).expect("it is plain");
        let mut reply = Vec::new();
        serve(request.as_bytes(), &mut reply).expect("a reply is written");
        let reply = String::from_utf8(reply).expect("JSON is UTF-8");
        assert!(reply.starts_with("aludel-child: {\"Err\":\"cannot read /none/m.onnx"), "{reply}");
    }
}
