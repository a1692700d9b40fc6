//! The program's subcommands: arguments in, text or JSON out. The only room that prints.
//!
//! Data goes to standard output, progress and logs to standard error. Exit codes: 0 done, 1 a gate failed, 2 an error.

mod audit;
mod bench;
mod compare;
mod convert;
mod demo;
mod device;
mod evaluate;
mod feeds;
mod format;
mod gate;
mod inspect;
mod load;
mod progress;
mod prune;
mod quantize;
mod run;
mod runtime;
mod saturation;
mod screen;
mod show;
mod simplify;
mod table;
mod targets;
mod train;
mod validate;

use std::io::{self, Write};

use clap::{CommandFactory, Parser, Subcommand};

use crate::measure::runtime::RuntimeError;
use crate::measure::runtime::library::LibraryError;
use crate::measure::runtime::remote::{BuildError, RemoteError};
use crate::measure::target::TargetError;
use crate::onnx::OnnxError;

/// What a command ends with: text for standard output and an exit code.
struct Outcome {
    text: String,
    code: u8,
}

impl Outcome {
    fn done(text: String) -> Outcome {
        Outcome { text, code: 0 }
    }

    fn json(value: &impl serde::Serialize) -> anyhow::Result<Outcome> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        Ok(Outcome::done(text))
    }
}

/// Compresses a trained ONNX network for edge devices and proves on the written file what that cost and won.
#[derive(Parser)]
#[command(name = "aludel", version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    /// Say more on standard error; twice: everything.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Inspect(inspect::Arguments),
    Show(show::Arguments),
    Simplify(simplify::Arguments),
    Run(run::Arguments),
    Train(train::Arguments),
    Prune(prune::Arguments),
    Quantize(quantize::Arguments),
    Convert(convert::Arguments),
    Bench(bench::Arguments),
    Evaluate(evaluate::Arguments),
    Compare(compare::Arguments),
    Gate(gate::Arguments),
    Audit(audit::Arguments),
    #[command(subcommand)]
    Targets(targets::Command),
    #[command(subcommand)]
    Runtime(runtime::Command),
    /// Write a completion script for a shell to standard output
    ///
    /// For example: aludel completions bash > ~/.local/share/bash-completion/completions/aludel
    Completions {
        /// The shell that the script is for
        shell: clap_complete::Shell,
    },
    /// Measure one model and answer on standard output: what `bench` starts to see a model's memory alone
    #[command(name = crate::measure::child::SUBCOMMAND, hide = true)]
    Child,
}

/// Runs the program on its command line and returns the exit code.
pub fn main() -> u8 {
    let arguments = Arguments::parse();
    log_to_stderr(arguments.verbose);
    match run(arguments.command, arguments.verbose > 0) {
        Ok(outcome) => match print(&outcome.text) {
            Ok(()) => outcome.code,
            Err(error) => report(&anyhow::Error::new(error).context("cannot write to standard output")),
        },
        Err(error) => report(&error),
    }
}

fn run(command: Command, verbose: bool) -> anyhow::Result<Outcome> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Show(arguments) => show::run(&arguments),
        Command::Simplify(arguments) => simplify::run(&arguments, verbose),
        Command::Run(arguments) => run::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Prune(arguments) => prune::run(&arguments),
        Command::Quantize(arguments) => quantize::run(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Gate(arguments) => gate::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Targets(command) => targets::run(&command),
        Command::Runtime(command) => runtime::run(&command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "aludel", &mut script);
            Ok(Outcome::done(String::from_utf8(script)?))
        }
        Command::Child => {
            crate::measure::child::serve(io::stdin().lock(), io::stdout().lock())?;
            Ok(Outcome::done(String::new()))
        }
    }
}

/// Writes all of it; a reader that has closed the pipe (`aludel show … | head`) has seen enough.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes an error, its causes and, where one is known, the remedy.
fn report(error: &anyhow::Error) -> u8 {
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many errors end with their cause already.
        if !text.contains(&cause) {
            text.push_str(&format!("  because: {cause}\n"));
        }
    }
    if let Some(hint) = error.chain().find_map(hint) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    // When even standard error is closed there is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
    2
}

/// What a user can do about an error, as the room that it comes from has it.
fn hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<OnnxError>() {
        return error.hint().map(str::to_string);
    }
    if let Some(error) = error.downcast_ref::<LibraryError>() {
        return Some(error.hint().to_string());
    }
    if let Some(error) = error.downcast_ref::<TargetError>() {
        return Some(error.hint().to_string());
    }
    if let Some(error) = error.downcast_ref::<RemoteError>() {
        return Some(error.hint().to_string());
    }
    if let Some(error) = error.downcast_ref::<BuildError>() {
        return Some(error.hint().to_string());
    }
    error.downcast_ref::<RuntimeError>().map(|error| error.hint().to_string())
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("ALUDEL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("error,aludel={level}")));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).without_time().init();
}
