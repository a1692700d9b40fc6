//! `aludel train`: a recipe's network learns, is written as ONNX, and is scored on the written file.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use indicatif::HumanDuration;
use serde::Serialize;

use super::load::{self, RuntimeChoice};
use super::screen::Screen;
use super::table::{Side, table};
use super::{Outcome, format};
use crate::data::Split;
use crate::learn::train::diagnosis::{Diagnosis, Epoch};
use crate::learn::train::fit::{Flow, Observer, State, StepReport};
use crate::learn::train::{TrainError, checkpoint, events, safetensors};
use crate::onnx;
use crate::recipe::evaluate::{Evaluation, evaluate};
use crate::recipe::{self, Prepared, Recipe};
use crate::store;

/// Train a network from the zoo, or any ONNX file, and score the written file
///
/// The recipe says what learns from which data, and how. The weights of the best epoch by the validation split are written; the
/// test split is scored on the written file, by every runtime at hand. A checkpoint is kept beside the output until the
/// training is done: Ctrl-C finishes the step and saves, and --resume goes on to the same bytes.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  aludel train models/digits/recipe.toml -o digits.onnx")]
pub(super) struct Arguments {
    /// A recipe: name, [data], [model], [train]
    recipe: PathBuf,
    /// Where to write the network
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Go on from the checkpoint beside the output, if there is one
    #[arg(long)]
    resume: bool,
    /// Write the weights as safetensors, too
    #[arg(long, value_name = "FILE")]
    safetensors: Option<PathBuf>,
    /// Write a line of JSON a step and an epoch to this file
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// Write an event a step and an epoch to a file of this folder, for TensorBoard
    #[arg(long, value_name = "FOLDER")]
    tensorboard: Option<PathBuf>,
    #[command(flatten)]
    runtimes: RuntimeChoice,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    recipe: PathBuf,
    output: PathBuf,
    /// Values that learn.
    parameters: usize,
    bytes: usize,
    epochs: Vec<Epoch>,
    best_epoch: Option<usize>,
    diagnosis: Option<Diagnosis>,
    test: Vec<Evaluation>,
    /// The samples of the test split that two runtimes give different classes.
    disagreements: usize,
    seconds: f64,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let recipe = Recipe::read(&arguments.recipe)?;
    let prepared =
        Prepared::new(&recipe).with_context(|| format!("{} cannot be carried out", arguments.recipe.display()))?;
    for finding in prepared.data.findings().iter() {
        tracing::warn!("{finding}");
    }
    let kept = checkpoint_path(&arguments.output);
    let state = if arguments.resume && kept.exists() {
        Some(checkpoint::from_bytes(&store::read(&kept)?, &recipe.sha256)?)
    } else {
        None
    };
    let mut watch = Watch::new(arguments, &recipe, &kept, state.as_ref().map(|state| state.n_steps))?;
    let trained = recipe::train(&recipe, &prepared, state, &mut watch)?;
    watch.screen.bar.finish_and_clear();
    let Some(model) = trained.model else {
        store::write_atomic(&kept, &checkpoint::to_bytes(&trained.fitted.state, &recipe.sha256)?)?;
        anyhow::bail!("stopped: {} holds where it stands; --resume goes on from there", kept.display());
    };
    let bytes = onnx::to_bytes(&model)?;
    store::write_atomic(&arguments.output, &bytes)?;
    if let Some(path) = &arguments.safetensors {
        store::write_atomic(path, &safetensors::to_bytes(&model.graph)?)?;
    }
    let test = score(arguments, &prepared)?;
    if kept.exists() {
        std::fs::remove_file(&kept).with_context(|| format!("cannot remove {}", kept.display()))?;
    }
    let state = trained.fitted.state;
    let report = Report {
        recipe: arguments.recipe.clone(),
        output: arguments.output.clone(),
        parameters: state.numbers.get("weight").map_or(0, |lists| lists.iter().map(Vec::len).sum()),
        bytes: bytes.len(),
        best_epoch: state.best,
        epochs: state.epochs,
        diagnosis: trained.fitted.diagnosis,
        disagreements: disagreements(&test),
        test,
        seconds: begun.elapsed().as_secs_f64(),
    };
    if arguments.json { Outcome::json(&report) } else { Ok(Outcome::done(text(&report))) }
}

/// Where a training is kept while it is not done.
fn checkpoint_path(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".checkpoint");
    PathBuf::from(name)
}

/// The test split on the written file, by every runtime asked for.
fn score(arguments: &Arguments, prepared: &Prepared) -> anyhow::Result<Vec<Evaluation>> {
    if prepared.data.samples(Split::Test).is_empty() || prepared.data.classes().is_empty() {
        return Ok(Vec::new());
    }
    let model = load::model_bytes(&arguments.output)?;
    let mut test = Vec::new();
    for opened in load::open_runtimes(&arguments.runtimes)? {
        test.push(evaluate(opened.runtime.as_ref(), &model, &prepared.output, &prepared.data, Split::Test)?);
    }
    Ok(test)
}

fn disagreements(test: &[Evaluation]) -> usize {
    let Some((first, others)) = test.split_first() else { return 0 };
    let differs = |sample: &usize| others.iter().any(|other| other.predictions[*sample] != first.predictions[*sample]);
    (0..first.predictions.len()).filter(differs).count()
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let Report { best_epoch, epochs, parameters, bytes, output, seconds, .. } = report;
    let size = format::bytes(*bytes as u64);
    text.push_str(&format!("{} · {parameters} values · {size} · {:.1} s\n", output.display(), seconds));
    if let Some((idx, epoch)) = best_epoch.and_then(|idx| Some((idx, epochs.get(idx)?))) {
        text.push_str(&format!(
            "best epoch {} of {}: training loss {:.4}, validation loss {:.4}, metric {:.4}\n",
            idx + 1,
            epochs.len(),
            epoch.train_loss,
            epoch.validation_loss,
            epoch.metric,
        ));
    }
    if let Some(diagnosis) = &report.diagnosis {
        text.push_str(&format!("{diagnosis}\n"));
    }
    if !report.test.is_empty() {
        let rows = report.test.iter().map(|test| {
            vec![
                test.runtime.clone(),
                test.n_right.to_string(),
                test.n_samples.to_string(),
                format::exact_percent(test.accuracy),
            ]
        });
        let header = [("runtime", Side::Left), ("right", Side::Right), ("of", Side::Right), ("accuracy", Side::Right)];
        text.push('\n');
        text.push_str(&table(&header, rows));
        if report.test.len() > 1 {
            text.push_str(&format!(
                "test samples that the runtimes give different classes: {}\n",
                report.disagreements
            ));
        }
    }
    text
}

/// The batches since the last step of the optimizer.
struct Step {
    begun: Instant,
    n_steps: u64,
    loss: f64,
    n_samples: usize,
}

impl Step {
    fn begin(n_steps: u64) -> Step {
        Step { begun: Instant::now(), n_steps, loss: 0.0, n_samples: 0 }
    }
}

/// What is shown and kept while a network learns.
struct Watch {
    screen: Screen,
    kept: PathBuf,
    recipe: String,
    metrics: Option<File>,
    events: Option<File>,
    begun: Instant,
    step: Step,
    /// Why a step was not written down.
    unwritten: Option<std::io::Error>,
    n_samples: usize,
    n_epochs: usize,
    n_epochs_done: usize,
}

impl Watch {
    fn new(arguments: &Arguments, recipe: &Recipe, kept: &Path, n_steps: Option<u64>) -> anyhow::Result<Watch> {
        let screen = Screen::new()?;
        let metrics =
            arguments.metrics.as_deref().map(|path| opened(path, n_steps, events::lines_until)).transpose()?;
        let events = match &arguments.tensorboard {
            Some(folder) => {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
                let mut file = opened(&folder.join("events.out.tfevents.aludel"), n_steps, events::records_until)?;
                if file.metadata()?.len() == 0 {
                    events::write_header(&mut file, now())?;
                }
                Some(file)
            }
            None => None,
        };
        Ok(Watch {
            screen,
            kept: kept.to_owned(),
            recipe: recipe.sha256.clone(),
            metrics,
            events,
            begun: Instant::now(),
            step: Step::begin(n_steps.unwrap_or(0)),
            unwritten: None,
            n_samples: 0,
            n_epochs: recipe.train.epochs,
            n_epochs_done: 0,
        })
    }

    /// Appends numbers to the files that were asked for.
    fn append(&mut self, step: u64, epoch: usize, values: &[(&str, f64)]) -> std::io::Result<()> {
        if let Some(file) = &mut self.metrics {
            let line = events::Line { step, epoch: epoch as u64, values: values.iter().copied().collect() };
            events::write_line(file, &line)?;
        }
        if let Some(file) = &mut self.events {
            let scalars: Vec<(&str, f32)> = values.iter().map(|&(name, value)| (name, value as f32)).collect();
            events::write_scalars(file, now(), step, &scalars)?;
        }
        Ok(())
    }

    /// Appends a step of the optimizer, once the last of its batches is there.
    fn append_step(&mut self, report: &StepReport) {
        self.step.loss += f64::from(report.loss) * report.n_samples as f64;
        self.step.n_samples += report.n_samples;
        if report.n_steps == self.step.n_steps {
            return;
        }
        let Step { begun, loss, n_samples, .. } = std::mem::replace(&mut self.step, Step::begin(report.n_steps));
        let values = [
            ("loss", loss / n_samples.max(1) as f64),
            ("learning_rate", report.rate),
            ("samples_per_second", n_samples as f64 / begun.elapsed().as_secs_f64().max(1e-9)),
        ];
        if let Err(error) = self.append(report.n_steps, report.epoch + 1, &values) {
            self.unwritten.get_or_insert(error);
        }
    }
}

/// A file that metrics are appended to: a new one, or what a training that is taken up had written until this step.
fn opened(path: &Path, n_steps: Option<u64>, until: fn(&[u8], u64) -> usize) -> anyhow::Result<File> {
    let file = || -> std::io::Result<File> {
        let Some(n_steps) = n_steps.filter(|_| path.exists()) else { return File::create(path) };
        let kept = until(&std::fs::read(path)?, n_steps);
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(kept as u64)?;
        Ok(file)
    };
    file().with_context(|| format!("cannot write {}", path.display()))
}

impl Observer for Watch {
    fn step(&mut self, report: &StepReport) -> Flow {
        self.n_samples += report.n_samples;
        self.append_step(report);
        let elapsed = self.begun.elapsed();
        let per_second = self.n_samples as f64 / elapsed.as_secs_f64().max(1e-9);
        let n_steps = (self.n_epochs_done * report.n_batches + report.batch + 1).max(1);
        let n_left =
            (self.n_epochs * report.n_batches).saturating_sub(report.epoch * report.n_batches + report.batch + 1);
        let left = elapsed.mul_f64(n_left as f64 / n_steps as f64);
        let prefix = format!("epoch {}/{}", report.epoch + 1, self.n_epochs);
        let left = HumanDuration(left);
        let message = format!("loss {:.4} · {per_second:.0} samples/s · {left} left", report.loss);
        self.screen.show(prefix, report.batch + 1, report.n_batches, message);
        self.screen.flow()
    }

    fn epoch(&mut self, epoch: &Epoch, state: &State) -> Result<(), TrainError> {
        self.n_epochs_done += 1;
        let kept = |problem: String| TrainError::Task { problem, remedy: "make room on the disk, then --resume" };
        let Epoch { train_loss, validation_loss, metric } = epoch;
        let values = [("train_loss", *train_loss), ("validation_loss", *validation_loss), ("metric", *metric)];
        let written = match self.unwritten.take() {
            Some(error) => Err(error),
            None => self.append(state.n_steps, state.epoch, &values),
        };
        // before the checkpoint: what is written of steps beyond it is cut when the training is taken up
        written.map_err(|error| kept(format!("the metrics were not written: {error}")))?;
        store::write_atomic(&self.kept, &checkpoint::to_bytes(state, &self.recipe)?)
            .map_err(|error| kept(error.to_string()))?;
        // what validates is no part of the next step
        self.step = Step::begin(state.n_steps);
        self.screen.say_epoch("", state.epoch, epoch);
        Ok(())
    }

    fn note(&mut self, note: &str) {
        self.screen.say(note);
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |duration| duration.as_secs_f64())
}
