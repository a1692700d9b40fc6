//! `aludel evaluate`: what a file's answers are worth on labelled samples.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use super::Outcome;
use super::load::{self, RuntimeChoice, word};
use super::progress::Progress;
use super::table::{Side, table};
use super::validate::{judged_split, open};
use crate::data::Split;
use crate::graph::Name;
use crate::recipe::validate::{Worth, worth};

/// What a file's answers are worth on labelled samples
///
/// Accuracy with its 95 % interval, macro F1, log loss and calibration of classes, and figures of each; errors of numbers. On every
/// runtime, from the file as it is.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  aludel evaluate model.onnx --data test.toml\n  aludel evaluate model.onnx --data test.npz --runtime ort --json"
)]
pub(super) struct Arguments {
    /// An ONNX file
    model: PathBuf,
    /// Labelled samples: a data descriptor (TOML) or a .npz with an array `label`
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The split; the test split where there is one
    #[arg(long, value_name = "NAME", value_parser = word::<Split>)]
    split: Option<Split>,
    /// The output that meets the labels; the first without it
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    #[command(flatten)]
    runtime: RuntimeChoice,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    aludel: &'static str,
    split: String,
    runs: Vec<Worth>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let data = Arc::new(open(&arguments.data)?);
    let split = arguments.split.unwrap_or_else(|| judged_split(&data));
    let model = load::model_bytes(&arguments.model)?;
    let output = arguments.output.as_deref().map(Name::from);
    let progress = Progress::start("evaluating");
    let mut runs = Vec::new();
    for open in load::open_runtimes(&arguments.runtime)? {
        progress.set_message(format!("on {}", open.runtime.name()));
        runs.push(worth(open.runtime.as_ref(), &model, output.as_ref(), &data, split)?);
    }
    drop(progress);
    let answer = Answer { aludel: env!("CARGO_PKG_VERSION"), split: split.to_string(), runs };
    if arguments.json { Outcome::json(&answer) } else { Ok(Outcome::done(text(&answer))) }
}

fn text(answer: &Answer) -> String {
    let Some(first) = answer.runs.first() else { return String::new() };
    let mut columns = vec![("", Side::Left)];
    columns.extend(answer.runs.iter().map(|run| (run.runtime.as_str(), Side::Right)));
    let rows = first.metrics.iter().enumerate().map(|(idx, (name, _))| {
        let figure = |run: &Worth| {
            let interval = run.interval.filter(|_| idx == 0);
            let interval = interval.map_or(String::new(), |it| format!(" [{:.4}, {:.4}]", it.low, it.high));
            run.metrics.get(idx).map_or(String::new(), |(_, figure)| format!("{figure:.4}{interval}"))
        };
        [name.clone()].into_iter().chain(answer.runs.iter().map(figure)).collect()
    });
    let mut text = format!("{} {} samples\n\n{}", first.n_samples, answer.split, table(&columns, rows));
    if !first.classes.is_empty() {
        let columns = [
            ("class", Side::Left),
            ("samples", Side::Right),
            ("precision", Side::Right),
            ("recall", Side::Right),
            ("F1", Side::Right),
        ];
        let number = |figure: Option<f64>| figure.map_or("–".to_string(), |figure| format!("{figure:.4}"));
        let rows = first.classes.iter().map(|(name, figures)| {
            let [precision, recall, f1] = [figures.precision, figures.recall, figures.f1].map(number);
            vec![name.clone(), figures.n_samples.to_string(), precision, recall, f1]
        });
        text.push_str(&format!("\non {}\n\n{}", first.runtime, table(&columns, rows)));
    }
    text
}
