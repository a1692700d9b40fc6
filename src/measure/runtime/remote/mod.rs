//! Runs a model on a device, by whatever runner its [`Target`] names, and brings values, times and memory back.
//!
//! The device does the work with our agent, or with any program that speaks its protocol ([`crate::measure::agent`]): a folder is
//! written, taken there, answered in, and brought back. No argument passes through a shell on this machine; what ssh hands to
//! the shell of the device is quoted.

mod build;
mod error;
mod process;
mod session;
mod ssh;

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use serde::Serialize;

use super::{ModelBytes, Optimization};
use crate::measure::agent::{self, Measure, Memory, Program, Request, Response, Task, Values};
use crate::measure::child::RuntimeName;
use crate::measure::latency::{self, Latency};
use crate::measure::machine::Machine;
use crate::measure::probe::Probe;
use crate::measure::target::{Commanded, Local, Qemu, Runner, Target};
use crate::store;
use process::Step;

pub use build::{Build, BuildError, build, missing};
pub use error::RemoteError;
pub use session::Device;

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Measuring {
    /// How much the runtime may rewrite the graph.
    pub optimization: Optimization,
    /// Seconds to time the first run's inputs; 0: values only.
    pub budget_s: f64,
    /// Stop timing when the median's 95 % interval is this narrow, relative to the median.
    pub relative_width: f64,
}

impl Default for Measuring {
    fn default() -> Measuring {
        Measuring { optimization: Optimization::All, budget_s: 10.0, relative_width: 0.02 }
    }
}

/// What a device found of a model.
#[derive(Clone, Debug)]
pub struct AgentReport {
    /// The target's name.
    pub target: String,
    /// What ran on the device.
    pub program: Program,
    /// What computed there, where the program says.
    pub runtime: Option<Program>,
    /// The outputs of every run, in the order of the inputs.
    pub outputs: Vec<Values>,
    /// What it took.
    pub figures: Figures,
}

/// What runs took: on the device, or unknown, since an emulator's clock says nothing about the device that it stands for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "measured_on", rename_all = "kebab-case")]
pub enum Figures {
    /// Measured on the device.
    Device(Box<Measured>),
    /// An emulator stood in: its values count, its times do not.
    Emulator,
}

/// What runs took on a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// The device, where the program says.
    pub machine: Option<Machine>,
    /// Reading, checking and optimizing the model, in microseconds.
    pub load_us: Option<f64>,
    /// The first run, in microseconds.
    pub first_run_us: Option<f64>,
    /// Times of runs; none where none were asked for or given.
    pub latency: Option<Latency>,
    /// The process's memory.
    pub memory: Option<Memory>,
}

impl Figures {
    /// Whether an emulator stood in for the device.
    pub fn is_emulated(&self) -> bool {
        matches!(self, Figures::Emulator)
    }

    /// Times of runs on the device; none of an emulator.
    pub fn latency(&self) -> Option<&Latency> {
        match self {
            Figures::Device(measured) => measured.latency.as_ref(),
            Figures::Emulator => None,
        }
    }
}

/// Runs a model on a device on these inputs, and times it on the first of them.
///
/// # Errors
/// When the device cannot be reached, its agent is missing or of another version, it refuses the model, or it takes too long: with
/// target, step and remedy.
pub fn run_agent(
    target: &Target,
    model: &ModelBytes,
    inputs: &[Values],
    measuring: &Measuring,
) -> Result<AgentReport, RemoteError> {
    let named = |reason: String| RemoteError::Response { target: target.name.clone(), reason };
    let (runs, bytes) = agent::pack(inputs).map_err(named)?;
    let job = Job {
        task: Task::Measure(Measure {
            model: model_name(model),
            runtime: runtime(target)?.to_owned(),
            n_threads: target.n_threads,
            optimization: measuring.optimization,
            runs,
            budget_s: if target.runner.is_emulated() { 0.0 } else { measuring.budget_s },
            relative_width: measuring.relative_width,
        }),
        model: Some(model.bytes()),
        inputs: &bytes,
    };
    let (response, outputs) = answer(target, &job)?;
    let outputs = agent::unpack(&response.runs, &outputs).map_err(named)?;
    if outputs.len() != inputs.len() {
        return Err(named(format!("it has outputs of {} runs, not of {}", outputs.len(), inputs.len())));
    }
    let figures = match target.runner.is_emulated() {
        true => Figures::Emulator,
        false => Figures::Device(Box::new(Measured {
            latency: response
                .latency
                .or_else(|| latency::of_samples(&target.name, &response.samples_us, measuring.relative_width)),
            machine: response.machine,
            load_us: response.load_us,
            first_run_us: response.first_run_us,
            memory: response.memory,
        })),
    };
    let (program, runtime) = (response.program, response.runtime);
    Ok(AgentReport { target: target.name.clone(), program, runtime, outputs, figures })
}

/// What a device says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Probed {
    /// The target's name.
    pub target: String,
    /// What answered.
    pub program: Program,
    /// Whether an emulator stood in: then clocks, heat and memory are this machine's and are left out, as is the rate.
    pub is_emulated: bool,
    /// What it found.
    pub probe: Probe,
}

/// Asks a device what it is and how it is doing.
///
/// # Errors
/// As [`run_agent`].
pub fn probe(target: &Target) -> Result<Probed, RemoteError> {
    let (response, _) = answer(target, &Job { task: Task::Probe, model: None, inputs: &[] })?;
    let nothing = || RemoteError::Response { target: target.name.clone(), reason: "it has no `probe`".to_owned() };
    let mut probe = response.probe.ok_or_else(nothing)?;
    let is_emulated = target.runner.is_emulated();
    if is_emulated {
        let machine = Machine { cpu: None, memory_bytes: None, ..probe.machine };
        probe = Probe {
            machine,
            cores: Vec::new(),
            available_bytes: None,
            load: None,
            zones: Vec::new(),
            throttling: None,
            rate: None,
        };
    }
    Ok(Probed { target: target.name.clone(), program: response.program, is_emulated, probe })
}

/// What is taken to a device.
struct Job<'a> {
    task: Task,
    model: Option<&'a Bytes>,
    inputs: &'a [u8],
}

/// The model's name on every device: by its content, so that the same one can be left there.
fn model_name(model: &ModelBytes) -> String {
    format!("{}.onnx", store::sha256(model.bytes()))
}

/// The runtime to ask for: the agent has tract only.
fn runtime(target: &Target) -> Result<&'static str, RemoteError> {
    let is_ours = !matches!(target.runner, Runner::Command(_));
    match target.runtime {
        Some(RuntimeName::Ort) if is_ours && !matches!(target.runner, Runner::None) => {
            Err(RemoteError::Runtime { target: target.name.clone() })
        }
        Some(RuntimeName::Ort) => Ok("ort"),
        Some(RuntimeName::Tract) | None => Ok("tract"),
    }
}

/// Has the job done and checks who answers.
fn answer(target: &Target, job: &Job<'_>) -> Result<(Response, Bytes), RemoteError> {
    let step = |timeout_s| Step::new(target, timeout_s);
    let (response, outputs) = match &target.runner {
        Runner::None => return Err(RemoteError::NoDevice { target: target.name.clone() }),
        Runner::Local(local) => in_folder(&step(local.timeout_s), job, |folder| local_command(local, folder))?,
        Runner::Qemu(qemu) => in_folder(&step(qemu.timeout_s), job, |folder| qemu_command(qemu, folder))?,
        Runner::Command(commanded) => {
            in_folder(&step(commanded.timeout_s), job, |folder| own_command(commanded, folder))?
        }
        Runner::Ssh(ssh) => ssh::answer(&step(ssh.timeout_s), ssh, job)?,
    };
    let response = read_response(target, &response)?;
    Ok((response, outputs))
}

fn read_response(target: &Target, bytes: &[u8]) -> Result<Response, RemoteError> {
    let wrong = |reason: String| RemoteError::Response { target: target.name.clone(), reason };
    // The protocol first: what another version calls things is not ours to judge.
    #[derive(serde::Deserialize)]
    struct Head {
        protocol: u32,
    }
    let head: Head = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    let version = |got: String, expected: String| RemoteError::Version { target: target.name.clone(), got, expected };
    if head.protocol != agent::PROTOCOL {
        return Err(version(format!("protocol {}", head.protocol), format!("protocol {}", agent::PROTOCOL)));
    }
    let response: Response = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    let ours = Program::agent();
    if response.program.name == ours.name && response.program.version != ours.version {
        let words = |program: &Program| format!("{} {}", program.name, program.version);
        return Err(version(words(&response.program), words(&ours)));
    }
    match response.error {
        Some(reason) => Err(RemoteError::Refused { target: target.name.clone(), reason }),
        None => Ok(response),
    }
}

/// The job in a folder on this machine, answered in by a command.
fn in_folder(
    step: &Step<'_>,
    job: &Job<'_>,
    command: impl FnOnce(&Path) -> Command,
) -> Result<(Bytes, Bytes), RemoteError> {
    let folder = store::temporary_folder()?;
    for (name, content) in job.files()? {
        store::write_atomic(&folder.path().join(name), content.as_ref())?;
    }
    let ended = step.run("run the agent", command(folder.path()))?;
    let response = folder.path().join(agent::RESPONSE);
    if !response.is_file() {
        return Err(step.failed("run the agent", &ended, "it wrote no response.json"));
    }
    let outputs = folder.path().join(agent::OUTPUTS);
    // Copied: a map into a folder that is going away would be worse.
    let outputs = if outputs.is_file() { Bytes::from(store::read(&outputs)?.to_vec()) } else { Bytes::new() };
    Ok((Bytes::from(store::read(&response)?.to_vec()), outputs))
}

impl Job<'_> {
    /// Name and content of every file.
    fn files(&self) -> Result<Vec<(String, Bytes)>, RemoteError> {
        let request = serde_json::to_vec_pretty(&Request::new(self.task.clone())).expect("a request is plain data");
        let mut files = vec![(agent::REQUEST.to_owned(), Bytes::from(request))];
        if let (Task::Measure(measure), Some(model)) = (&self.task, self.model) {
            files.push((measure.model.clone(), model.clone()));
            files.push((agent::INPUTS.to_owned(), Bytes::copy_from_slice(self.inputs)));
        }
        Ok(files)
    }
}

/// What our agent gets: the folder that holds its request.
fn serve(mut command: Command, folder: &Path) -> Command {
    command.arg("--serve").arg(folder);
    command
}

fn local_command(local: &Local, folder: &Path) -> Command {
    serve(Command::new(local.agent.clone().unwrap_or_else(beside_us)), folder)
}

/// The agent beside this program; else its name, for `PATH`.
fn beside_us() -> PathBuf {
    let name = format!("{}{}", agent::NAME, std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(&name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

fn qemu_command(qemu: &Qemu, folder: &Path) -> Command {
    let mut command = Command::new(&qemu.program);
    command.envs(&qemu.environment);
    if let Some(cpu) = &qemu.cpu {
        command.arg("-cpu").arg(cpu);
    }
    if let Some(sysroot) = &qemu.sysroot {
        command.arg("-L").arg(sysroot);
    }
    command.arg(&qemu.agent);
    serve(command, folder)
}

fn own_command(commanded: &Commanded, folder: &Path) -> Command {
    let (program, arguments) = commanded.command.split_first().expect("reading a target checks it");
    let mut command = Command::new(program);
    command.args(arguments).arg(folder);
    command
}
