//! `aludel targets`: devices: which there are, what each is, whether a network fits, and an agent for it.

mod fits;
mod probe;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::load::ModelArguments;
use super::progress::Progress;
use super::table::{Side, table};
use super::{Outcome, format};
use crate::measure::child::RuntimeName;
use crate::measure::runtime::remote;
use crate::measure::target::{self, Runner, Target};

/// See devices, ask them what they are, build the agent for them
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the devices that are built in
    List {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one: built in, or a file
    Show {
        /// A name, or a TOML file
        target: String,
        /// The file itself, to begin one's own with; of a built-in device only
        #[arg(long, conflicts_with = "json")]
        toml: bool,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask a device what it is: processor, clocks, heat, throttling, memory, rate of a matrix product
    Probe {
        /// A name, or a TOML file
        target: String,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Build the agent for a device, from aludel's sources in the current folder
    ///
    /// With what this machine has: cargo, Rust's standard library for the device, a compiler. What is missing is named with the command that installs
    /// it. The agent is made small: optimized for size across all crates, stripped. That takes minutes.
    Build {
        /// A name, or a TOML file
        target: String,
        /// Where the agent goes; without it, it stays where cargo puts it
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Say whether a network fits into a device's memory and flash: exit code 1 where it does not
    ///
    /// On a microcontroller activations take memory and weights flash; elsewhere both take memory. A network in Q/DQ form is counted with operators on integers
    /// wherever it says exactly what they compute. Code and an engine's own buffers are not counted: leave room for them.
    Fits {
        /// A name, or a TOML file
        target: String,
        #[command(flatten)]
        model: ModelArguments,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(command: &Command) -> anyhow::Result<Outcome> {
    match command {
        Command::List { json } => list(*json),
        Command::Show { target, toml, json } => show(target, *toml, *json),
        Command::Probe { target, json } => probe::run(&target::find(target)?, *json),
        Command::Build { target, output, json } => build(&target::find(target)?, output.as_deref(), *json),
        Command::Fits { target, model, json } => fits::run(&target::find(target)?, model, *json),
    }
}

fn list(json: bool) -> anyhow::Result<Outcome> {
    let targets = target::names().map(target::find).collect::<Result<Vec<Target>, _>>()?;
    if json {
        return Outcome::json(&targets);
    }
    let columns = [
        ("name", Side::Left),
        ("device", Side::Left),
        ("architecture", Side::Left),
        ("cores", Side::Right),
        ("memory", Side::Right),
        ("flash", Side::Right),
        ("runtime", Side::Left),
    ];
    let unknown = || "–".to_string();
    let rows = targets.iter().map(|target| {
        vec![
            target.name.clone(),
            target.title.clone(),
            target.arch.clone(),
            target.n_cores.map_or_else(unknown, |n| n.to_string()),
            target.memory_bytes.map_or_else(unknown, format::bytes),
            target.flash_bytes.map_or_else(unknown, format::bytes),
            target.runtime.map_or_else(unknown, |runtime| runtime_words(runtime).to_string()),
        ]
    });
    Ok(Outcome::done(table(&columns, rows)))
}

fn runtime_words(runtime: RuntimeName) -> &'static str {
    match runtime {
        RuntimeName::Tract => "tract",
        RuntimeName::Ort => "onnxruntime",
    }
}

fn show(name: &str, toml: bool, json: bool) -> anyhow::Result<Outcome> {
    let target = target::find(name)?;
    if toml {
        let text = target::built_in_text(name).filter(|_| !Path::new(name).is_file());
        let text =
            text.with_context(|| format!("{name} is a file already: only built-in devices are printed as one"))?;
        return Ok(Outcome::done(text.to_string()));
    }
    if json { Outcome::json(&target) } else { Ok(Outcome::done(text(&target))) }
}

fn text(target: &Target) -> String {
    let mut text = format!("{}: {}\n", target.name, target.title);
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text.push_str(&format!("  {key:<16} {value}\n"));
        }
    };
    line("architecture", Some(target.arch.clone()));
    line("instruction set", Some(target.instruction_set.join(", ")));
    line("cores", target.n_cores.map(|n| n.to_string()));
    line("memory", target.memory_bytes.map(format::bytes));
    line("flash", target.flash_bytes.map(format::bytes));
    line("runtime", target.runtime.map(|runtime| format!("{}, threads: {}", runtime_words(runtime), target.n_threads)));
    line("arithmetic", target.arithmetic.clone());
    line("runner", Some(runner(&target.runner)));
    line("agent for", target.build.clone());
    let budget = &target.budget;
    line("95 % of runs", budget.latency_p95_ms.map(|ms| format!("at most {ms} ms")));
    line("budget, memory", budget.memory_kib.map(|kib| format!("at most {kib} KiB")));
    line("budget, size", budget.size_kib.map(|kib| format!("at most {kib} KiB")));
    text
}

fn runner(runner: &Runner) -> String {
    match runner {
        Runner::None => "none: no device is at hand".to_string(),
        Runner::Local(_) => "local: a process on this machine".to_string(),
        Runner::Ssh(ssh) => {
            let user = ssh.user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
            let port = ssh.port.map_or_else(String::new, |port| format!(", port {port}"));
            format!("ssh: {user}{}{port}", ssh.host)
        }
        Runner::Qemu(qemu) => format!("qemu: {} {}", qemu.program.display(), qemu.agent.display()),
        Runner::Command(commanded) => format!("command: {}", commanded.command.join(" ")),
    }
}

#[derive(Serialize)]
struct Built {
    target: String,
    triple: Option<String>,
    agent: PathBuf,
    size_bytes: u64,
}

fn build(target: &Target, output: Option<&Path>, json: bool) -> anyhow::Result<Outcome> {
    let progress = Progress::start("building the agent");
    let build = remote::build(target, Path::new("."))?;
    drop(progress);
    let agent = match output {
        Some(output) => {
            std::fs::copy(&build.path, output)
                .with_context(|| format!("cannot copy {} to {}", build.path.display(), output.display()))?;
            output.to_owned()
        }
        None => build.path,
    };
    let built = Built { target: target.name.clone(), triple: build.triple, agent, size_bytes: build.size_bytes };
    if json {
        return Outcome::json(&built);
    }
    let for_what = built.triple.as_deref().unwrap_or("this machine");
    Ok(Outcome::done(format!("{}: {}, for {for_what}\n", built.agent.display(), format::bytes(built.size_bytes))))
}
