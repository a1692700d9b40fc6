//! What runs: the nodes of a runtime's graph with their types and shares of the time, what they stand for in the file, and
//! whether a quantized file's operators really run on integers.

use indexmap::IndexMap;
use serde::Serialize;

use super::account::{Account, Fate, account, constants};
use super::kind::{self, Arithmetic, arithmetic};
use crate::graph::shape::Types;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Node};
use crate::measure::runtime::explain::{Explanation, Fact, RunNode};
use crate::measure::runtime::tract;
use crate::measure::statistics::{mean, median, quantile, sorted};
use crate::onnx;

/// A figure over the runs: its median and the two quartiles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the runs were below it.
    pub median: f64,
    /// A quarter of the runs was below it.
    pub low: f64,
    /// A quarter of the runs was above it.
    pub high: f64,
}

impl Spread {
    fn of(samples: &[f64]) -> Spread {
        let ascending = sorted(samples);
        Spread { median: median(&ascending), low: quantile(&ascending, 0.25), high: quantile(&ascending, 0.75) }
    }
}

/// What a runtime runs.
#[derive(Clone, Debug, Serialize)]
pub struct Execution {
    /// Timed runs.
    pub n_runs: usize,
    /// Time of a whole run in microseconds, with the runtime's own measuring of its nodes.
    pub run_us: Spread,
    /// The unit in which the runtime counts a node's time, in microseconds; 0 where it is finer than matters.
    pub resolution_us: f64,
    /// The nodes of the runtime by operator and type, those that take longest first.
    pub operators: Vec<OperatorRow>,
    /// The nodes of the runtime in the order in which they run.
    pub layers: Vec<Layer>,
    /// What became of the file's operators, in the order in which they first stand there.
    pub sources: IndexMap<String, Fates>,
    /// Whether it runs on integers; none for a file without quantization.
    pub quantization: Option<Quantization>,
    /// What could not be seen, a sentence each.
    pub notes: Vec<String>,
}

/// All nodes of one operator and one type.
#[derive(Clone, Debug, Serialize)]
pub struct OperatorRow {
    /// The runtime's operator, with its domain where that is not ONNX's own.
    pub operator: String,
    /// Element types in and out.
    pub types: String,
    /// What they compute in.
    pub arithmetic: Arithmetic,
    /// How many there are.
    pub n_nodes: usize,
    /// Their time in a run, in microseconds: the mean of the middle half of the runs.
    pub time_us: f64,
    /// Their part of the time of all nodes; the parts of all rows add up to 1.
    pub share: f64,
    /// The part that they had in single runs.
    pub share_of_runs: Spread,
    /// Operators of the file that they stand for, and how many of each.
    pub stands_for: IndexMap<String, usize>,
}

/// One node of a runtime's graph.
#[derive(Clone, Debug, Serialize)]
pub struct Layer {
    /// The runtime's name for it.
    pub name: String,
    /// As in [`OperatorRow`].
    pub operator: String,
    /// As in [`OperatorRow`].
    pub types: String,
    /// As in [`OperatorRow`].
    pub arithmetic: Arithmetic,
    /// The shape of its first output; empty also where the runtime keeps it in a form of its own.
    pub shape: Vec<usize>,
    /// As in [`OperatorRow`].
    pub time_us: f64,
    /// As in [`OperatorRow`].
    pub share: f64,
    /// Nodes of the file that it stands for, by operator and name.
    pub stands_for: Vec<String>,
    /// The node of the file that it is a part of, where another node of the runtime stands for that.
    pub part_of: Option<String>,
}

/// What became of the nodes of one operator of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fates {
    /// All of them.
    pub n: usize,
    /// The main work of a node of the runtime.
    pub n_at_work: usize,
    /// Taken in by another.
    pub n_absorbed: usize,
    /// Computed when the model was loaded.
    pub n_at_load: usize,
    /// Not there any more.
    pub n_gone: usize,
}

/// How much of a quantized file runs on integers.
#[derive(Clone, Debug, Serialize)]
pub struct Quantization {
    /// Only constants are quantized: the file asks for no integer arithmetic.
    pub weights_only: bool,
    /// The operators that the file quantizes, those with weights first: how many of each, and how many on integers.
    pub operators: IndexMap<String, IntegerCount>,
    /// Those that run in float, and why where that can be seen.
    pub in_float: Vec<InFloat>,
    /// Operators that the file itself leaves in float: how many of each.
    pub left_in_float: IndexMap<String, usize>,
    /// QuantizeLinear and DequantizeLinear that run as work of their own.
    pub n_conversions: usize,
    /// Their part of the time of all nodes.
    pub conversion_share: f64,
}

/// How many of an operator's nodes run on integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IntegerCount {
    /// All that the runtime runs.
    pub n: usize,
    /// Those on integers of at most 8 bits.
    pub n_int8: usize,
}

/// A node of a quantized file that runs in float.
#[derive(Clone, Debug, Serialize)]
pub struct InFloat {
    /// Operator and name in the file.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Why.
    pub why: WhyFloat,
    /// Why, in a sentence.
    pub reason: String,
}

/// Why an operator that a file quantizes runs in float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyFloat {
    /// One of its inputs does not come from a DequantizeLinear.
    Input,
    /// Its result does not go to one QuantizeLinear alone.
    Result,
    /// It is quantized on all sides, and the runtime does not fuse it.
    Runtime,
}

/// Makes the table of an explanation. `types` are those of the file's values.
pub(super) fn execution(runtime: &str, graph: &Graph, types: &Types, explanation: &Explanation) -> Execution {
    let mut notes = Vec::new();
    let nodes = &explanation.nodes;
    let written = explanation.optimized_model.as_ref().map(|bytes| onnx::read_bytes(bytes.clone(), None));
    let written: Vec<Option<WrittenNode>> = match written {
        Some(Ok(model)) => pair(nodes, &model.graph),
        Some(Err(error)) => {
            notes.push(format!(
                "the optimized graph cannot be read, fused nodes are known by their names only: {error}"
            ));
            nodes.iter().map(|_| None).collect()
        }
        None => nodes.iter().map(|_| None).collect(),
    };
    let known = |node: &Option<WrittenNode>| node.as_ref().map(|node| node.outputs.clone()).unwrap_or_default();
    let outputs: Vec<Vec<String>> = written.iter().map(known).collect();
    let domains: Vec<&str> = written.iter().map(|node| node.as_ref().map_or("", |node| node.domain.as_str())).collect();
    let account = account(graph, types, nodes, &outputs);
    let layers = layers(graph, explanation, &account, &domains);
    let operators = operators(graph, explanation, &account, &layers);
    let run_us = Spread::of(&explanation.run_us);
    let quantization = quantization(runtime, graph, explanation, &account, &layers);
    let sources = sources(graph, &account);
    let (n_runs, resolution_us) = (explanation.run_us.len(), explanation.resolution_us);
    Execution { n_runs, run_us, resolution_us, operators, layers, sources, quantization, notes }
}

/// What the written graph says of a node beside its profile.
struct WrittenNode {
    domain: String,
    outputs: Vec<String>,
}

/// Each profiled node's counterpart in the graph that the runtime wrote: by position where both list the same operators,
/// else by name and operator.
fn pair(nodes: &[RunNode], graph: &Graph) -> Vec<Option<WrittenNode>> {
    let written = |node: &Node| WrittenNode {
        domain: node.op.domain().to_owned(),
        outputs: node.outputs.iter().flatten().map(ToString::to_string).collect(),
    };
    let same_order = nodes.len() == graph.nodes.len()
        && nodes.iter().zip(&graph.nodes).all(|(run, node)| run.operator == node.op.name());
    if same_order {
        return graph.nodes.iter().map(|node| Some(written(node))).collect();
    }
    let find = |run: &RunNode| {
        let mut found = graph.nodes.iter().filter(|node| node.name == run.name && node.op.name() == run.operator);
        let first = found.next()?;
        found.next().is_none().then(|| written(first))
    };
    nodes.iter().map(find).collect()
}

fn layers(graph: &Graph, explanation: &Explanation, account: &Account, domains: &[&str]) -> Vec<Layer> {
    let runs = middle_runs(explanation);
    let time =
        |node: &RunNode| mean(&runs.iter().filter_map(|&run| node.times_us.get(run).copied()).collect::<Vec<_>>());
    let times: Vec<f64> = explanation.nodes.iter().map(time).collect();
    let total: f64 = times.iter().sum();
    let layer = |(idx, node): (usize, &RunNode)| {
        let stands_for: Vec<String> =
            account.stands_for[idx].iter().map(|&source_idx| graph.nodes[source_idx].label()).collect();
        let anchor = account.anchors[idx].filter(|_| stands_for.is_empty());
        let domain = domains[idx];
        Layer {
            name: node.name.clone(),
            operator: if domain.is_empty() { node.operator.clone() } else { format!("{domain}.{}", node.operator) },
            types: types_of(node),
            arithmetic: arithmetic(node),
            shape: node.outputs.first().map(|fact| fact.shape.clone()).unwrap_or_default(),
            time_us: times[idx],
            share: if total > 0.0 { times[idx] / total } else { 0.0 },
            stands_for,
            part_of: anchor.map(|source_idx| graph.nodes[source_idx].label()),
        }
    };
    explanation.nodes.iter().enumerate().map(layer).collect()
}

/// The middle half of the runs by their length. Their mean is as steady as a median and, unlike it, not coarser than the
/// runtime's clock; and the means of parts add up to that of the whole.
fn middle_runs(explanation: &Explanation) -> Vec<usize> {
    let mut runs: Vec<usize> = (0..explanation.run_us.len()).collect();
    runs.sort_by(|&a, &b| explanation.run_us[a].total_cmp(&explanation.run_us[b]));
    let left_out = runs.len() / 4;
    runs[left_out..runs.len() - left_out].to_vec()
}

/// `f32`, or `u8 → f32` where the first output's type is another than the first input's.
fn types_of(node: &RunNode) -> String {
    let first = |facts: &[Fact]| facts.iter().find_map(|fact| fact.dtype).map(|dtype| dtype.name());
    match (first(&node.inputs), first(&node.outputs)) {
        (Some(input), Some(output)) if input != output => format!("{input} → {output}"),
        (Some(one), _) | (None, Some(one)) => one.to_owned(),
        (None, None) => "–".to_owned(),
    }
}

fn operators(graph: &Graph, explanation: &Explanation, account: &Account, layers: &[Layer]) -> Vec<OperatorRow> {
    let mut groups: IndexMap<(&str, &str), Vec<usize>> = IndexMap::new();
    for (idx, layer) in layers.iter().enumerate() {
        groups.entry((&layer.operator, &layer.types)).or_default().push(idx);
    }
    let n_runs = explanation.run_us.len();
    let time_in_run = |members: &[usize], run_idx: usize| -> f64 {
        members.iter().filter_map(|&idx| explanation.nodes[idx].times_us.get(run_idx)).sum()
    };
    let everything: Vec<usize> = (0..layers.len()).collect();
    let totals: Vec<f64> = (0..n_runs).map(|run_idx| time_in_run(&everything, run_idx)).collect();
    let row = |((operator, types), members): (&(&str, &str), &Vec<usize>)| {
        let shares = totals.iter().enumerate().filter(|(_, total)| **total > 0.0);
        let shares: Vec<f64> = shares.map(|(run_idx, total)| time_in_run(members, run_idx) / total).collect();
        let mut stands_for: IndexMap<String, usize> = IndexMap::new();
        for source_idx in members.iter().flat_map(|&idx| &account.stands_for[idx]) {
            *stands_for.entry(graph.nodes[*source_idx].op.name().to_owned()).or_default() += 1;
        }
        OperatorRow {
            operator: (*operator).to_owned(),
            types: (*types).to_owned(),
            arithmetic: layers[members[0]].arithmetic,
            n_nodes: members.len(),
            time_us: members.iter().map(|&idx| layers[idx].time_us).sum(),
            share: members.iter().map(|&idx| layers[idx].share).sum(),
            share_of_runs: Spread::of(&shares),
            stands_for,
        }
    };
    let mut rows: Vec<OperatorRow> = groups.iter().map(row).collect();
    rows.sort_by(|a, b| b.time_us.total_cmp(&a.time_us));
    rows
}

fn sources(graph: &Graph, account: &Account) -> IndexMap<String, Fates> {
    let mut sources: IndexMap<String, Fates> = IndexMap::new();
    for (node, fate) in graph.nodes.iter().zip(&account.fates) {
        let fates = sources.entry(node.op.name().to_owned()).or_default();
        fates.n += 1;
        match fate {
            Fate::Works(_) => fates.n_at_work += 1,
            Fate::Absorbed(_) => fates.n_absorbed += 1,
            Fate::AtLoad => fates.n_at_load += 1,
            Fate::Gone => fates.n_gone += 1,
        }
    }
    sources
}

fn quantization(
    runtime: &str,
    graph: &Graph,
    explanation: &Explanation,
    account: &Account,
    layers: &[Layer],
) -> Option<Quantization> {
    let has = |test: fn(&crate::graph::Op) -> bool| graph.nodes.iter().any(|node| test(&node.op));
    let quantizes = has(kind::is_quantize) || has(kind::is_integer_operator);
    if !quantizes && !has(kind::is_dequantize) {
        return None;
    }
    let uses = Uses::of(graph);
    let constants = constants(graph);
    let mut operators: IndexMap<String, IntegerCount> = IndexMap::new();
    let mut left_in_float: IndexMap<String, usize> = IndexMap::new();
    let mut in_float = Vec::new();
    for (source_idx, node) in graph.nodes.iter().enumerate() {
        let (Fate::Works(run_idx) | Fate::Absorbed(run_idx)) = account.fates[source_idx] else { continue };
        if kind::converts(&node.op) || kind::only_moves(&node.op) {
            continue;
        }
        let operator = node.op.name().to_owned();
        let producers = node.inputs.iter().flatten().filter_map(|name| uses.producer_idx(name));
        let is_quantized = |idx: usize| kind::is_dequantize(&graph.nodes[idx].op) && !constants[idx];
        if !kind::is_integer_operator(&node.op) && !producers.clone().any(is_quantized) {
            // An activation before a QuantizeLinear belongs to the operator before it.
            let behind = node.output(0).and_then(|name| uses.sole_reader(name));
            let is_quantized_behind = behind.is_some_and(|reader| kind::is_quantize(&graph.nodes[reader.node_idx].op));
            if !(kind::is_clamp(&node.op) && is_quantized_behind) {
                *left_in_float.entry(operator).or_default() += 1;
            }
            continue;
        }
        let count = operators.entry(operator.clone()).or_default();
        count.n += 1;
        match layers[run_idx].arithmetic {
            Arithmetic::Int8 => count.n_int8 += 1,
            // An activation that a QuantizeLinear makes redundant costs nothing.
            Arithmetic::Conversion if kind::is_clamp(&node.op) => count.n_int8 += 1,
            Arithmetic::Conversion | Arithmetic::Float | Arithmetic::Other => {
                let (why, reason) = why_float(runtime, graph, &uses, node);
                in_float.push(InFloat { node: node.label(), operator, why, reason });
            }
        }
    }
    let is_product = |name: &str| graph.nodes.iter().any(|node| node.op.name() == name && kind::multiplies(&node.op));
    operators.sort_by(|a, _, b, _| is_product(b).cmp(&is_product(a)));
    let conversions: Vec<usize> = (0..layers.len()).filter(|&idx| is_conversion(&explanation.nodes[idx])).collect();
    Some(Quantization {
        weights_only: !quantizes,
        operators,
        in_float,
        left_in_float,
        n_conversions: conversions.len(),
        conversion_share: conversions.iter().fold(0.0, |sum, &idx| sum + layers[idx].share),
    })
}

fn is_conversion(node: &RunNode) -> bool {
    node.operator.contains("QuantizeLinear") || node.operator.contains("DequantizeLinear")
}

/// Why an operator that the file quantizes runs in float, as far as the file and the runtime tell.
fn why_float(runtime: &str, graph: &Graph, uses: &Uses<'_>, node: &Node) -> (WhyFloat, String) {
    let produced = |name: &str| uses.producer(name).filter(|producer| !kind::is_dequantize(&producer.op));
    if let Some((name, producer)) = node.inputs.iter().flatten().find_map(|name| Some((name, produced(name)?))) {
        let from = producer.label();
        return (WhyFloat::Input, format!("its input `{name}` comes from {from}, no DequantizeLinear stands between"));
    }
    let mut end = node;
    while let Some(name) = end.output(0) {
        let reader = uses.sole_reader(name).and_then(|reader| graph.nodes.get(reader.node_idx));
        let problem = match reader {
            Some(reader) if kind::is_quantize(&reader.op) => break,
            Some(reader) if kind::is_clamp(&reader.op) => {
                end = reader;
                continue;
            }
            Some(reader) => format!("goes to {}, no QuantizeLinear stands between", reader.label()),
            None if uses.is_output(name) => "is an output of the network".to_owned(),
            None => format!("is read {} times: one QuantizeLinear should read it", uses.readers(name).len()),
        };
        return (WhyFloat::Result, format!("its result `{name}` {problem}"));
    }
    let reason = if runtime == tract::NAME {
        "tract computes in float between DequantizeLinear and QuantizeLinear".to_owned()
    } else {
        format!(
            "it stands between DequantizeLinear and QuantizeLinear, but {runtime} does not fuse it as it is quantized here"
        )
    };
    (WhyFloat::Runtime, reason)
}
