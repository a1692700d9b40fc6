//! `aludel simplify`: the same network, tidied.

use std::path::PathBuf;

use anyhow::Context as _;
use indexmap::IndexMap;
use serde::Serialize;

use super::table::{Side, table};
use super::{Outcome, format, load};
use crate::graph::Graph;
use crate::graph::simplify::{self, Declined, Options, Simplified};
use crate::onnx::{self, WriteOptions, Written};

/// Write a tidied copy of a network: constants folded, operators fused, dead ends removed
///
/// Every output stays as it was up to rounding. What matched but was not done is listed, with the reason, under --verbose. No
/// operator is introduced that the file's opset does not have; --opset allows newer ones.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  aludel simplify model.onnx -o tidy.onnx")]
pub(super) struct Arguments {
    /// An ONNX file
    model: PathBuf,
    /// Where to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Keep weights that are stored in half precision as they are: the file stays half the size
    #[arg(long)]
    keep_narrow_weights: bool,
    /// Leave batch normalisations as they are: a network that is trained further learns better with them
    #[arg(long)]
    keep_batch_norms: bool,
    /// Keep constants that the file also lists among its inputs open to the caller; they are then not folded or fused
    #[arg(long)]
    keep_overridable: bool,
    /// The opset to write, and to choose operators from; without it the file's own
    #[arg(long, value_name = "N")]
    opset: Option<u32>,
    /// Fix an open dimension for good (repeatable): its symbol, or INPUT#AXIS where it has none; those not given stay open
    #[arg(long = "bind", value_name = "SYMBOL=NUMBER")]
    bindings: Vec<load::Binding>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    output: PathBuf,
    opset: u32,
    /// Why the opset is not the file's own, where nobody asked for another.
    raised_because: Option<String>,
    /// How often each rewrite was applied.
    rewrites: IndexMap<&'static str, usize>,
    before: Size,
    after: Size,
    /// The file beside it that holds the weights, where there is one.
    data: Option<PathBuf>,
    declined: Vec<NotDone>,
}

/// How much there is of a network, branches and bodies included.
#[derive(Serialize)]
struct Size {
    nodes: usize,
    constants: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct NotDone {
    rewrite: &'static str,
    node: String,
    reason: String,
}

pub(super) fn run(arguments: &Arguments, verbose: bool) -> anyhow::Result<Outcome> {
    let load::Loaded { model, file_bytes } = load::load(&arguments.model)?;
    let opset = arguments.opset.unwrap_or(model.opset);
    let options = Options {
        keep_narrow_weights: arguments.keep_narrow_weights,
        keep_batch_norms: arguments.keep_batch_norms,
        keep_overridable: arguments.keep_overridable,
        opset: Some(opset),
    };
    let graph = load::fixed(&model, &arguments.bindings)?;
    let simplified = simplify::simplify(&graph, &options);
    let simplified = simplified.with_context(|| format!("{} was not simplified", arguments.model.display()))?;
    let options = WriteOptions { opset: arguments.opset, ..WriteOptions::default() };
    let written = onnx::write(&model.with_graph(simplified.graph.clone()), &arguments.output, &options)
        .with_context(|| format!("{} was not written", arguments.output.display()))?;
    let report = report(arguments, &model.graph, file_bytes, &simplified, written);
    if arguments.json { Outcome::json(&report) } else { Ok(Outcome::done(text(&report, verbose))) }
}

fn report(arguments: &Arguments, before: &Graph, file_bytes: u64, simplified: &Simplified, written: Written) -> Report {
    let mut rewrites = IndexMap::new();
    for applied in &simplified.applied {
        *rewrites.entry(applied.rewrite).or_default() += 1;
    }
    let not_done = |declined: &Declined| {
        let Declined { rewrite, node, reason } = declined.clone();
        NotDone { rewrite, node, reason }
    };
    Report {
        output: arguments.output.clone(),
        opset: written.opset,
        raised_because: written.raised,
        rewrites,
        before: size(before, file_bytes),
        after: size(&simplified.graph, written.n_bytes),
        data: written.data,
        declined: simplified.declined.iter().map(not_done).collect(),
    }
}

fn size(graph: &Graph, bytes: u64) -> Size {
    fn add(graph: &Graph, size: &mut Size) {
        size.nodes += graph.nodes.len();
        size.constants += graph.initializers.len() + graph.sparse_initializers.len();
        graph.nodes.iter().flat_map(|node| node.op.bodies()).for_each(|body| add(body, size));
    }
    let mut size = Size { nodes: 0, constants: 0, bytes };
    add(graph, &mut size);
    size
}

fn text(report: &Report, verbose: bool) -> String {
    let mut text = String::new();
    if !report.rewrites.is_empty() {
        let rows = report.rewrites.iter().map(|(rewrite, n)| vec![rewrite.to_string(), n.to_string()]);
        text.push_str(&table(&[("rewrite", Side::Left), ("times", Side::Right)], rows));
        text.push('\n');
    }
    let Report { before, after, .. } = report;
    let rows = [
        ("nodes", before.nodes.to_string(), after.nodes.to_string()),
        ("constants", before.constants.to_string(), after.constants.to_string()),
        ("file", format::bytes(before.bytes), format::bytes(after.bytes)),
    ];
    let rows = rows.map(|(what, before, after)| vec![what.to_string(), before, after]);
    text.push_str(&table(&[("", Side::Left), ("before", Side::Right), ("after", Side::Right)], rows));
    if let Some(data) = &report.data {
        text.push_str(&format!("the weights are in {}, which must stay beside it\n", data.display()));
    }
    if let Some(reason) = &report.raised_because {
        text.push_str(&format!("the opset was raised to {}: {reason}\n", report.opset));
    }
    if verbose && !report.declined.is_empty() {
        let cells = |row: &NotDone| vec![row.rewrite.to_string(), row.node.clone(), row.reason.clone()];
        let columns = [("not done", Side::Left), ("node", Side::Left), ("reason", Side::Left)];
        text.push('\n');
        text.push_str(&table(&columns, report.declined.iter().map(cells)));
    }
    text
}
