//! `aludel inspect`: what is in a file, in totals, by operator and by layer.

use std::path::Path;

use indexmap::IndexMap;
use serde::Serialize;

use super::load::{self, ModelArguments};
use super::table::{Side, table};
use super::{Outcome, format};
use crate::graph::cost::{self, Cost, Counts, NodeCost};
use crate::graph::structure::blocks::{self, Structure};
use crate::graph::structure::groups::{self, Groups};
use crate::graph::{Model, ValueInfo};

/// Say what is in a file: parameters, multiply-accumulates, memory, operators
///
/// Symbolic dimensions count as 1 unless they are bound, so give those that matter: `--bind batch=8`.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  aludel inspect model.onnx --bind seq=128 --layers\n  aludel inspect model.onnx --groups --structure"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Add a row for every node that has parameters or multiply-accumulates
    #[arg(long)]
    layers: bool,
    /// Add the coupled groups: channels, heads and units that can be taken out, and those that cannot, with the reason
    #[arg(long)]
    groups: bool,
    /// Add residual blocks, attention, encoder layers and recurrent layers
    #[arg(long)]
    structure: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// What is in a file.
#[derive(Serialize)]
pub(super) struct Report {
    file: String,
    file_bytes: u64,
    producer: String,
    ir_version: u32,
    opset: u32,
    domains: IndexMap<String, u32>,
    bindings: IndexMap<String, usize>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    /// What contradicts itself or is not known, a sentence each.
    notes: Vec<String>,
    cost: Cost,
    shapes: IndexMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Groups>,
    #[serde(skip_serializing_if = "Option::is_none")]
    structure: Option<Structure>,
    /// The groups and the structure as text.
    #[serde(skip)]
    parts: String,
}

#[derive(Serialize)]
struct Value {
    name: String,
    declared: Option<String>,
    inferred: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let path = &arguments.model.model;
    let loaded = load::load(path)?;
    let bound = load::bound(&loaded.model, &arguments.model.bind.bindings)?;
    let mut report = inspect(&path.display().to_string(), &loaded.model, loaded.file_bytes, &bound)?;
    add_parts(&mut report, &loaded.model, arguments)?;
    if arguments.json { Outcome::json(&report) } else { Ok(Outcome::done(text(&report, arguments.layers))) }
}

/// Everything there is to say of a model with these symbols bound.
pub(super) fn inspect(file: &str, model: &Model, file_bytes: u64, bound: &[(String, usize)]) -> anyhow::Result<Report> {
    let types = load::infer(Path::new(file), model, bound)?;
    let graph = &model.graph;
    let value = |info: &ValueInfo| Value {
        name: info.name.to_string(),
        declared: info.value_type.as_ref().map(ToString::to_string),
        inferred: types.get(&info.name).map(ToString::to_string),
    };
    let cost = cost::cost(graph, &types);
    let mut notes: Vec<String> = types.notes().iter().map(ToString::to_string).collect();
    if cost.is_incomplete() {
        notes.push("some shapes are not known, so that the counts are too low".to_string());
    }
    let shapes = cost.nodes.iter().filter_map(|node| Some((node.output.clone(), types.get(&node.output)?.to_string())));
    let about = &model.about;
    Ok(Report {
        file: file.to_string(),
        file_bytes,
        producer: format!("{} {}", about.producer_name, about.producer_version).trim().to_string(),
        ir_version: model.ir_version,
        opset: model.opset,
        domains: model.domains.clone(),
        bindings: bound.iter().cloned().collect(),
        inputs: graph.inputs.iter().map(value).collect(),
        outputs: graph.outputs.iter().map(value).collect(),
        notes,
        shapes: shapes.collect(),
        cost,
        groups: None,
        structure: None,
        parts: String::new(),
    })
}

/// What the network is made of. Its open dimensions stay open, so that none is taken for channels.
fn add_parts(report: &mut Report, model: &Model, arguments: &Arguments) -> anyhow::Result<()> {
    if !arguments.groups && !arguments.structure {
        return Ok(());
    }
    let types = load::infer(&arguments.model.model, model, &[])?;
    if arguments.groups {
        let groups = groups::groups(&model.graph, &types);
        report.parts.push_str(&format!("\n{groups}"));
        report.groups = Some(groups);
    }
    if arguments.structure {
        let structure = blocks::structure(&model.graph, &types);
        report.parts.push_str(&format!("\n{}", blocks::show(&structure, &model.graph)));
        report.structure = Some(structure);
    }
    Ok(())
}

/// The report as a person reads it.
pub(super) fn text(report: &Report, layers: bool) -> String {
    let mut text = heading(report);
    text.push('\n');
    text.push_str(&totals(report));
    text.push('\n');
    text.push_str(&by_operator(&report.cost));
    if layers {
        text.push('\n');
        text.push_str(&by_layer(report));
    }
    text.push_str(&report.parts);
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn heading(report: &Report) -> String {
    let mut facts = vec![format::bytes(report.file_bytes), format!("opset {}", report.opset)];
    facts.extend(report.domains.iter().map(|(domain, version)| format!("{domain} {version}")));
    facts.push(format!("IR {}", report.ir_version));
    if !report.producer.is_empty() {
        facts.push(format!("by {}", report.producer));
    }
    let mut text = format!("{} · {}\n\n", report.file, facts.join(" · "));
    let width = report.inputs.iter().chain(&report.outputs).map(|value| value.name.chars().count()).max().unwrap_or(0);
    for (word, values) in [("input", &report.inputs), ("output", &report.outputs)] {
        for value in values {
            let declared = value.declared.as_deref().unwrap_or("undeclared");
            let inferred = value.inferred.as_deref().filter(|inferred| Some(*inferred) != value.declared.as_deref());
            let inferred = inferred.map(|inferred| format!("  ->  {inferred}")).unwrap_or_default();
            text.push_str(&format!("{word:<7} {:<width$}  {declared}{inferred}\n", value.name));
        }
    }
    text
}

fn totals(report: &Report) -> String {
    let total = &report.cost.total;
    let bound: Vec<String> = report.bindings.iter().map(|(symbol, size)| format!("{symbol} = {size}")).collect();
    let with = if bound.is_empty() { String::new() } else { format!(" with {}", bound.join(", ")) };
    let rows = [
        ("parameters", format!("{} ({} stored)", format::count(total.parameters), format::bytes(total.weight_bytes))),
        ("multiply-accumulates", format!("{}{with}", format::count(total.macs))),
        ("other arithmetic", format!("{} elements", format::count(total.elementwise))),
        ("activations", format!("{} written", format::bytes(total.activation_bytes))),
        ("activation peak", format::bytes(report.cost.peak_activation_bytes)),
        ("nodes", report.cost.nodes.len().to_string()),
    ];
    rows.iter().map(|(word, figure)| format!("{word:<22}{figure}\n")).collect()
}

fn add(sum: &mut Counts, counts: &Counts) {
    sum.parameters += counts.parameters;
    sum.weight_bytes += counts.weight_bytes;
    sum.macs += counts.macs;
    sum.elementwise += counts.elementwise;
    sum.activation_bytes += counts.activation_bytes;
}

fn by_operator(cost: &Cost) -> String {
    let mut sums: IndexMap<&str, (usize, Counts)> = IndexMap::new();
    for node in &cost.nodes {
        let (n, counts) = sums.entry(&node.operator).or_default();
        *n += 1;
        add(counts, &node.counts);
    }
    sums.sort_by(|_, a, _, b| {
        (b.1.macs, b.1.parameters, b.1.elementwise).cmp(&(a.1.macs, a.1.parameters, a.1.elementwise))
    });
    let columns = [&[("operator", Side::Left), ("nodes", Side::Right)], &COUNT_COLUMNS[..]].concat();
    let rows = sums.iter().map(|(operator, (n, counts))| {
        let mut cells = vec![operator.to_string(), n.to_string()];
        cells.extend(count_cells(counts, cost.total.macs));
        cells
    });
    table(&columns, rows)
}

fn by_layer(report: &Report) -> String {
    let columns = ["layer", "operator", "output"].map(|column| (column, Side::Left));
    let columns = [&columns[..], &COUNT_COLUMNS[..]].concat();
    let counted = |node: &&NodeCost| node.counts.macs > 0 || node.counts.parameters > 0;
    let rows = report.cost.nodes.iter().filter(counted).map(|node| {
        let name = if node.name.is_empty() { &node.output } else { &node.name };
        let shape = report.shapes.get(&node.output).cloned().unwrap_or_default();
        let mut cells = vec![name.clone(), node.operator.clone(), shape];
        cells.extend(count_cells(&node.counts, report.cost.total.macs));
        cells
    });
    table(&columns, rows)
}

/// What [`count_cells`] fills.
const COUNT_COLUMNS: [(&str, Side); 6] = [
    ("parameters", Side::Right),
    ("stored", Side::Right),
    ("MACs", Side::Right),
    ("share", Side::Right),
    ("other", Side::Right),
    ("activations", Side::Right),
];

fn count_cells(counts: &Counts, total_macs: u64) -> [String; 6] {
    let none = || "–".to_string();
    let some = |n: u64, show: &dyn Fn(u64) -> String| if n == 0 { none() } else { show(n) };
    let share = |macs: u64| format::percent(macs as f64 / total_macs as f64);
    [
        some(counts.parameters, &format::count),
        some(counts.weight_bytes, &format::bytes),
        some(counts.macs, &format::count),
        some(counts.macs, &share),
        some(counts.elementwise, &format::count),
        some(counts.activation_bytes, &format::bytes),
    ]
}
