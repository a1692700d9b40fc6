//! `aludel demo`: the main job on the built-in digits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Outcome;
use super::load::{self, RuntimeChoice};
use super::run::{report, text};
use crate::measure::latency;
use crate::measure::runtime::Runtime;
use crate::recipe::pipeline::{Pipeline, RunOptions};

/// The recipe, as `aludel run` takes it.
const RECIPE: &str = include_str!("../../models/digits/distill.toml");

/// Distil a small network for the built-in digits, and measure what that cost and won
///
/// A residual network learns 1,258 handwritten digits; a student is made out of it and learns from it; both are written as
/// ONNX and measured on tract, and on onnxruntime where that is found. About a minute on two cores, without network.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The folder to write into
    #[arg(short, long, value_name = "FOLDER", default_value = "aludel-demo")]
    output: PathBuf,
    #[command(flatten)]
    runtimes: RuntimeChoice,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let pipeline = Pipeline::parse(RECIPE, Path::new(""), &[])?;
    let opened = load::open_runtimes(&arguments.runtimes)?;
    let runtimes: Vec<&dyn Runtime> = opened.iter().map(|opened| opened.runtime.as_ref()).collect();
    let options = RunOptions {
        folder: &arguments.output,
        resume: true,
        only: None,
        runtimes: &runtimes,
        replay: None,
        latency: latency::Options { budget: Duration::from_secs(2), ..latency::Options::default() },
    };
    let report = report(&pipeline, &options)?;
    if arguments.json { Outcome::json(&report) } else { Ok(Outcome::done(text(&report))) }
}
