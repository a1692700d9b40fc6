//! `aludel run`: a recipe of several steps, its ledger, and what came of it in a table.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use super::load::{self, RuntimeChoice};
use super::screen::Screen;
use super::table::{Side, table};
use super::{Outcome, format};
use crate::learn::train::TrainError;
use crate::learn::train::diagnosis::Epoch;
use crate::learn::train::fit::{Flow, Observer, State, StepReport};
use crate::measure::latency;
use crate::measure::machine::Machine;
use crate::measure::runtime::Runtime;
use crate::recipe::pipeline::{Ledger, Line, Pipeline, RunOptions, Watcher, run as carry_out, schema};

/// Carry out a recipe: a teacher, its students, and what each of them goes through
///
/// Every step writes its network and a line of the ledger into the folder: accuracy, agreement with the teacher, bytes, latency.
/// A step whose inputs have not changed is not done again. Ctrl-C finishes the training step and saves.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aludel run recipe.toml -o out\n  aludel run recipe.toml -o out --set student.width=0.5 --resume\n  aludel run --schema > recipe.schema.json"
)]
pub(super) struct Arguments {
    /// A recipe: name, [data], [teacher], [student], [[step]]
    #[arg(required = true)]
    recipe: Option<PathBuf>,
    /// The folder to write into; the recipe's name without it
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Go on with a training that was stopped
    #[arg(long)]
    resume: bool,
    /// Do this step only, by its name in the ledger
    #[arg(long, value_name = "STEP")]
    only: Option<String>,
    /// Set a key of the recipe (repeatable): student.width=0.5
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Take decisions that were made by measuring from another run's ledger
    #[arg(long, value_name = "LEDGER")]
    replay: Option<PathBuf>,
    #[command(flatten)]
    runtimes: RuntimeChoice,
    /// Seconds in which each network's latency is measured on a runtime
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    latency_budget: f64,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of a recipe, for editors that complete and check TOML by one
    #[arg(long, exclusive = true)]
    schema: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, as in student.width=0.5")?;
    Ok((key.trim().to_string(), value.trim().to_string()))
}

/// What came of a run, in a form that stays: new keys may come, none go without another `schema`.
#[derive(Serialize)]
pub(super) struct Report {
    schema: u32,
    aludel: &'static str,
    recipe: String,
    seed: u64,
    folder: PathBuf,
    machine: Machine,
    /// The threads that a latency is measured on.
    latency_threads: usize,
    steps: Vec<Line>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let Some(recipe) = &arguments.recipe else { return Outcome::json(&schema()) };
    let pipeline = Pipeline::read(recipe, &arguments.set)?;
    let folder = arguments.output.clone().unwrap_or_else(|| PathBuf::from(&pipeline.name));
    let replay = arguments.replay.as_deref().map(Ledger::read).transpose()?;
    let opened = load::open_runtimes(&arguments.runtimes)?;
    let runtimes: Vec<&dyn Runtime> = opened.iter().map(|opened| opened.runtime.as_ref()).collect();
    let latency = latency::Options::default().with_budget_s(arguments.latency_budget);
    let options = RunOptions {
        folder: &folder,
        resume: arguments.resume,
        only: arguments.only.as_deref(),
        runtimes: &runtimes,
        replay: replay.as_ref(),
        latency: latency.context("--latency-budget is no time")?,
    };
    let report = report(&pipeline, &options)?;
    if arguments.json { Outcome::json(&report) } else { Ok(Outcome::done(text(&report))) }
}

/// Carries a recipe out before the eyes of a person.
pub(super) fn report(pipeline: &Pipeline, options: &RunOptions<'_>) -> anyhow::Result<Report> {
    let mut watch = Watch { screen: Screen::new()?, step: String::new(), n_epochs: 0 };
    let ledger = carry_out(pipeline, options, &mut watch)?;
    watch.screen.bar.finish_and_clear();
    Ok(Report {
        schema: 1,
        aludel: env!("CARGO_PKG_VERSION"),
        recipe: pipeline.name.clone(),
        seed: pipeline.seed,
        folder: options.folder.to_owned(),
        machine: Machine::this(),
        latency_threads: 1,
        steps: ledger.lines,
    })
}

/// A row a network, and a sentence for the last.
pub(super) fn text(report: &Report) -> String {
    let runtimes: Vec<&str> = report
        .steps
        .first()
        .map_or_else(Vec::new, |line| line.speed.iter().map(|speed| speed.runtime.as_str()).collect());
    let mut header = vec![
        ("step".to_string(), Side::Left),
        ("parameters".to_string(), Side::Right),
        ("file".to_string(), Side::Right),
        ("MACs".to_string(), Side::Right),
        ("training".to_string(), Side::Right),
        ("test".to_string(), Side::Right),
        ("as teacher".to_string(), Side::Right),
    ];
    let is_attacked = report.steps.iter().any(|line| line.attacked.is_some());
    if is_attacked {
        header.push(("attacked".to_string(), Side::Right));
    }
    header.extend(runtimes.iter().map(|runtime| (format!("{runtime}, µs"), Side::Right)));
    header.push(("seconds".to_string(), Side::Right));
    let rows = report.steps.iter().map(|line| {
        let percent = |part: Option<f64>| part.map_or_else(|| "–".to_string(), format::exact_percent);
        let mut row = vec![
            line.step.clone(),
            line.parameters.to_string(),
            format::bytes(line.bytes),
            line.macs.map_or_else(|| "–".to_string(), |macs| macs.to_string()),
            percent(line.train_accuracy),
            percent(line.test.first().map(|test| test.accuracy)),
            percent(line.agreement),
        ];
        if is_attacked {
            row.push(percent(line.attacked));
        }
        row.extend(runtimes.iter().map(|runtime| {
            let speed = line.speed.iter().find(|speed| speed.runtime == *runtime);
            speed.map_or_else(|| "–".to_string(), |speed| format!("{:.1}", speed.median_us))
        }));
        row.push(format!("{:.1}", line.seconds));
        row
    });
    let header: Vec<(&str, Side)> = header.iter().map(|(name, side)| (name.as_str(), *side)).collect();
    let mut text = table(&header, rows);
    if let Some(sentence) = sentence(&report.steps) {
        text.push_str(&format!("\n{sentence}\n"));
    }
    text.push_str(&format!("The networks and the ledger are in {}/\n", report.folder.display()));
    text
}

/// What the last network is beside its teacher.
fn sentence(lines: &[Line]) -> Option<String> {
    let (teacher, student) = (lines.iter().find(|line| line.step == "teacher")?, lines.last()?);
    let (theirs, ours) = (teacher.test.first()?, student.test.first()?);
    if theirs.n_samples != ours.n_samples {
        // a specialist is tested on what it is for
        return None;
    }
    let ratio = student.speed.first()?.ratio_to_teacher?;
    let points = 100.0 * (ours.accuracy - theirs.accuracy);
    Some(format!(
        "`{}` has {:.1} % of its teacher's parameters, takes {:.0} % of its time on {} (interval {:.0} to {:.0} %), and puts {} of {} \
         test samples right where the teacher puts {}: {points:+.2} points.",
        student.step,
        100.0 * student.parameters as f64 / teacher.parameters.max(1) as f64,
        100.0 * ratio.estimate,
        student.speed.first()?.runtime,
        100.0 * ratio.low,
        100.0 * ratio.high,
        ours.n_right,
        ours.n_samples,
        theirs.n_right,
    ))
}

/// What is shown while a recipe is carried out.
struct Watch {
    screen: Screen,
    step: String,
    n_epochs: usize,
}

impl Observer for Watch {
    fn step(&mut self, report: &StepReport) -> Flow {
        let prefix = format!("{} · epoch {}/{}", self.step, report.epoch + 1, self.n_epochs);
        self.screen.show(prefix, report.batch + 1, report.n_batches, format!("loss {:.4}", report.loss));
        self.screen.flow()
    }

    fn epoch(&mut self, epoch: &Epoch, state: &State) -> Result<(), TrainError> {
        self.screen.say_epoch(&format!("{}  ", self.step), state.epoch, epoch);
        Ok(())
    }

    fn note(&mut self, note: &str) {
        self.screen.say(note);
    }
}

impl Watcher for Watch {
    fn begins(&mut self, step: &str, n_epochs: usize) {
        (self.step, self.n_epochs) = (step.to_string(), n_epochs);
    }

    fn targets(&mut self, n_done: usize, n_rows: usize) -> Flow {
        self.screen.show("the teacher's values".to_string(), n_done, n_rows, String::new());
        self.screen.flow()
    }

    fn ended(&mut self, line: &Line, was_done: bool) {
        let how = if was_done { format!("done in {:.1} s", line.seconds) } else { "as before".to_string() };
        let best = line.best.map_or_else(String::new, |best| format!(", metric {:.4}", best.metric));
        self.screen.say(&format!("{}: {how}{best}", line.step));
        if let Some(diagnosis) = &line.diagnosis {
            self.screen.say(&format!("  {diagnosis}"));
        }
    }
}
