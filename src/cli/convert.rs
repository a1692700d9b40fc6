//! `aludel convert`: the same network written again, at its own opset or another.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use super::{Outcome, format, load};
use crate::onnx::{self, ExternalData, WriteOptions};

/// Write a network again, at its own opset or another
///
/// Newer operators are taken apart into older ones where that is exact (LayerNormalization below opset 17, say); where it is not, the
/// operator is named and nothing is written.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  aludel convert old.onnx --opset 17 -o new.onnx")]
pub(super) struct Arguments {
    /// An ONNX file
    model: PathBuf,
    /// Where to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The opset to write; without it the file's own
    #[arg(long, value_name = "N")]
    opset: Option<u32>,
    /// Write the weights to a second file beside it (done by itself above 2 GiB)
    #[arg(long)]
    external_data: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    output: PathBuf,
    opset_read: u32,
    opset_written: u32,
    raised_because: Option<String>,
    bytes: u64,
    /// The file beside it that holds the weights, where there is one.
    data: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let model = load::load(&arguments.model)?.model;
    let external = if arguments.external_data { ExternalData::Always } else { ExternalData::WhenNeeded };
    let options = WriteOptions { opset: arguments.opset, external };
    let written = onnx::write(&model, &arguments.output, &options)
        .with_context(|| format!("{} was not converted", arguments.model.display()))?;
    let report = Report {
        output: arguments.output.clone(),
        opset_read: model.opset,
        opset_written: written.opset,
        raised_because: written.raised,
        bytes: written.n_bytes,
        data: written.data,
    };
    if arguments.json {
        return Outcome::json(&report);
    }
    let mut text = format!(
        "{}: opset {} -> {}, {}\n",
        report.output.display(),
        report.opset_read,
        report.opset_written,
        format::bytes(report.bytes)
    );
    if let Some(data) = &report.data {
        text.push_str(&format!("the weights are in {}, which must stay beside it\n", data.display()));
    }
    if let Some(reason) = report.raised_because {
        text.push_str(&format!("the opset was raised: {reason}\n"));
    }
    Ok(Outcome::done(text))
}
