//! `aludel show`: a network as stable text, to read and to diff.

use super::Outcome;
use super::load::{self, ModelArguments};
use crate::graph::show;

/// Print a network as stable text, a line a node
///
/// The same network always gives the same text, so that two files can be compared with `diff`. Large constants are shown by type,
/// shape and a hash of their elements.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  diff <(aludel show a.onnx) <(aludel show b.onnx)")]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Write every value's inferred type beside it
    #[arg(long)]
    types: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let path = &arguments.model.model;
    let model = load::load(path)?.model;
    if !arguments.types {
        return Ok(Outcome::done(show::show(&model.graph)));
    }
    let bound = load::bound(&model, &arguments.model.bind.bindings)?;
    let types = load::infer(path, &model, &bound)?;
    Ok(Outcome::done(show::show_typed(&model.graph, &types)))
}
