//! Which of a file's nodes each node of a runtime's graph stands for.
//!
//! A runtime keeps names: onnxruntime those of values, tract those of nodes, to which it adds a dot and a word. A node of
//! the runtime is *anchored* at the node of the file whose name it bears. What it bears may be the beginning of what it
//! has taken in (a convolution's output that has become `u8`): then it also stands for what follows up to the value of
//! that type. What no node bears the name of went into whatever reads it.

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use super::kind::{self, Arithmetic};
use crate::graph::shape::Types;
use crate::graph::tensor::DType;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Node};
use crate::measure::runtime::explain::RunNode;

/// What became of one node of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is the main work of this node of the runtime.
    Works(usize),
    /// It went into this node of the runtime, whose main work is another.
    Absorbed(usize),
    /// It depends on constants only and was computed when the model was loaded.
    AtLoad,
    /// Nothing does it.
    Gone,
}

/// The whole account.
#[derive(Debug)]
pub(super) struct Account {
    /// What became of each node of the file.
    pub(super) fates: Vec<Fate>,
    /// For each node of the runtime, the nodes of the file that it stands for, in the file's order.
    pub(super) stands_for: Vec<Vec<usize>>,
    /// For each node of the runtime, the node of the file whose name it bears.
    pub(super) anchors: Vec<Option<usize>>,
}

/// The nodes that depend on no input of the graph.
pub(super) fn constants(graph: &Graph) -> Vec<bool> {
    let mut known: HashSet<&str> = graph.initializers.keys().map(|name| name.as_str()).collect();
    known.extend(graph.sparse_initializers.keys().map(|name| name.as_str()));
    let mut constants = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let is_random = node.op.name().starts_with("Random") || node.op.name() == "Bernoulli";
        let is_constant = !is_random && node.reads().all(|name| known.contains(name.as_str()));
        if is_constant {
            known.extend(node.outputs.iter().flatten().map(|name| name.as_str()));
        }
        constants.push(is_constant);
    }
    constants
}

/// Takes the account. `outputs` are the names of the values that each node of the runtime computes, where it says so.
pub(super) fn account(graph: &Graph, types: &Types, nodes: &[RunNode], outputs: &[Vec<String>]) -> Account {
    let uses = Uses::of(graph);
    let labels = labels(graph);
    let mut anchors = Vec::with_capacity(nodes.len());
    let mut owners: Vec<Option<usize>> = vec![None; graph.nodes.len()];
    let slowness = |idx: usize| nodes[idx].times_us.iter().sum::<f64>();
    for (run_idx, node) in nodes.iter().enumerate() {
        let own = outputs.get(run_idx).map_or(&[][..], Vec::as_slice);
        let value = own.iter().find(|name| uses.producer_idx(name).is_some());
        let anchor = match value {
            Some(name) => uses.producer_idx(name),
            None => by_blocked_value(&uses, node)
                .or_else(|| by_label(&labels, graph, node, !own.is_empty()))
                .or_else(|| by_position(graph, node)),
        };
        anchors.push(anchor);
    }
    by_elimination(graph, nodes, &mut anchors);
    for (run_idx, anchor) in anchors.iter().enumerate() {
        if let Some(anchor) = *anchor {
            // Of several nodes that bear one name (a product and its packing) the slowest is the one that does the work.
            let owner = &mut owners[anchor];
            if owner.is_none_or(|before| slowness(run_idx) > slowness(before)) {
                *owner = Some(run_idx);
            }
        }
    }
    for (run_idx, anchor) in anchors.iter().enumerate() {
        let Some(anchor) = anchor.filter(|&anchor| owners[anchor] == Some(run_idx)) else { continue };
        let dtype = nodes[run_idx].outputs.first().and_then(|fact| fact.dtype);
        let reached = reach(graph, types, &uses, anchor, dtype);
        if reached.iter().all(|&idx| idx == anchor || owners[idx].is_none()) {
            reached.into_iter().for_each(|idx| owners[idx] = Some(run_idx));
        }
    }
    let constants = constants(graph);
    for source_idx in (0..graph.nodes.len()).rev().filter(|&idx| !constants[idx]) {
        if owners[source_idx].is_none() {
            let read = graph.nodes[source_idx].outputs.iter().flatten().flat_map(|name| uses.readers(name));
            owners[source_idx] = read.filter_map(|reader| owners[reader.node_idx]).next();
        }
    }
    settle(graph, &constants, &owners, anchors, nodes)
}

/// Main work and what went into it, from who owns what.
fn settle(
    graph: &Graph,
    constants: &[bool],
    owners: &[Option<usize>],
    anchors: Vec<Option<usize>>,
    nodes: &[RunNode],
) -> Account {
    let mut stands_for: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (source_idx, owner) in owners.iter().enumerate() {
        if let Some(run_idx) = owner {
            stands_for[*run_idx].push(source_idx);
        }
    }
    let main: HashMap<usize, usize> = stands_for
        .iter()
        .enumerate()
        .filter_map(|(run_idx, sources)| {
            let is_conversion = kind::arithmetic(&nodes[run_idx]) == Arithmetic::Conversion;
            let weight = |idx: &&usize| {
                let node = &graph.nodes[**idx];
                if is_conversion { u8::from(kind::converts(&node.op)) } else { weight(node) }
            };
            // Of equals the first: a convolution before the activation that follows it.
            let main = sources.iter().rev().max_by_key(weight)?;
            Some((run_idx, *main))
        })
        .collect();
    let fates = owners.iter().enumerate().map(|(source_idx, owner)| match owner {
        Some(run_idx) if main.get(run_idx) == Some(&source_idx) => Fate::Works(*run_idx),
        Some(run_idx) => Fate::Absorbed(*run_idx),
        None if constants[source_idx] => Fate::AtLoad,
        None => Fate::Gone,
    });
    Account { fates: fates.collect(), stands_for, anchors }
}

/// How much of a node's work this operator is likely to be.
fn weight(node: &Node) -> u8 {
    match &node.op {
        op if kind::converts(op) => 0,
        op if kind::only_moves(op) => 1,
        op if kind::is_clamp(op) => 2,
        op if kind::multiplies(op) => 4,
        _ => 3,
    }
}

/// The anchor, and what follows it up to a value of this type where its own is of another.
fn reach(graph: &Graph, types: &Types, uses: &Uses<'_>, anchor: usize, dtype: Option<DType>) -> Vec<usize> {
    let mut reached = vec![anchor];
    let Some(wanted) = dtype else { return reached };
    let mut node = &graph.nodes[anchor];
    loop {
        let Some(name) = node.output(0) else { return vec![anchor] };
        match types.tensor(name).map(|value| value.dtype) {
            Some(dtype) if dtype == wanted => return reached,
            Some(_) => {}
            None => return vec![anchor],
        }
        let Some(reader) = uses.sole_reader(name) else { return vec![anchor] };
        reached.push(reader.node_idx);
        node = &graph.nodes[reader.node_idx];
    }
}

/// onnxruntime names a node whose result it keeps in blocks of channels after the value that the result stands for.
fn by_blocked_value(uses: &Uses<'_>, node: &RunNode) -> Option<usize> {
    uses.producer_idx(node.name.strip_suffix("_nchwc")?)
}

/// onnxruntime names a node that the file does not after its operator and its position in the file.
fn by_position(graph: &Graph, node: &RunNode) -> Option<usize> {
    let position: usize = node.name.strip_prefix(&node.operator)?.strip_prefix('_')?.parse().ok()?;
    let source = graph.nodes.get(position)?;
    (source.name.is_empty() && source.op.name() == node.operator).then_some(position)
}

/// Nodes of one operator whose names are lost, where as many are left over in the file: one for one, in order.
fn by_elimination(graph: &Graph, nodes: &[RunNode], anchors: &mut [Option<usize>]) {
    let constants = constants(graph);
    let taken: HashSet<usize> = anchors.iter().flatten().copied().collect();
    let mut left: IndexMap<&str, Vec<usize>> = IndexMap::new();
    for (source_idx, node) in graph.nodes.iter().enumerate() {
        if !constants[source_idx] && !taken.contains(&source_idx) && weight(node) > 2 {
            left.entry(node.op.name()).or_default().push(source_idx);
        }
    }
    for (operator, sources) in left {
        let lost = |run_idx: &usize| anchors[*run_idx].is_none() && nodes[*run_idx].operator.ends_with(operator);
        let lost: Vec<usize> = (0..nodes.len()).filter(lost).collect();
        if lost.len() == sources.len() {
            lost.into_iter().zip(sources).for_each(|(run_idx, source_idx)| anchors[run_idx] = Some(source_idx));
        }
    }
}

/// What a runtime calls a node of the file: by its name, or by its first output where it has none.
fn labels<'a>(graph: &'a Graph) -> Vec<(&'a str, usize)> {
    let label = |(idx, node): (usize, &'a Node)| {
        let name = if node.name.is_empty() { node.output(0)?.as_str() } else { node.name.as_str() };
        Some((name, idx))
    };
    graph.nodes.iter().enumerate().filter_map(label).collect()
}

/// The node of the file whose label a name begins with, the longest where several do. `same_operator`: only one of an
/// operator that the runtime's name contains.
fn by_label(labels: &[(&str, usize)], graph: &Graph, node: &RunNode, same_operator: bool) -> Option<usize> {
    let begins = |label: &str| {
        let rest = node.name.strip_prefix(label);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    let fits = |idx: usize| !same_operator || node.operator.contains(graph.nodes[idx].op.name());
    let fitting = labels.iter().filter(|(label, idx)| begins(label) && fits(*idx));
    fitting.max_by_key(|(label, _)| label.len()).map(|(_, idx)| *idx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::Conv;
    use crate::graph::shape::{self, Bindings};
    use crate::graph::tensor::Tensor;
    use crate::graph::{GraphBuilder, Op, TensorType};
    use crate::measure::runtime::explain::Fact;

    /// DQ → Conv → Relu → Q → DQ, the weights behind a DQ of their own; values are named after the operators.
    fn quantized() -> Graph {
        let mut builder = GraphBuilder::new("quantized");
        let x = builder.input("x", TensorType::new(DType::U8, [1usize, 1, 4, 4]));
        let scale = builder.initializer("scale", Tensor::scalar(0.5f32));
        let zero = builder.initializer("zero", Tensor::scalar(0u8));
        let weight = builder.initializer("weight", Tensor::new(&[1, 1, 1, 1], vec![3u8]).expect("one"));
        let weight = builder.node(Op::DequantizeLinear(Default::default()), &[&weight, &scale, &zero]);
        let x = builder.node(Op::DequantizeLinear(Default::default()), &[&x, &scale, &zero]);
        let y = builder.node(Op::Conv(Conv::default()), &[&x, &weight]);
        let y = builder.node(Op::Relu, &[&y]);
        let y = builder.node(Op::QuantizeLinear(Default::default()), &[&y, &scale, &zero]);
        let y = builder.node(Op::DequantizeLinear(Default::default()), &[&y, &scale, &zero]);
        builder.output(&y);
        builder.finish().expect("a graph")
    }

    fn node(name: &str, operator: &str, dtype: DType, time_us: f64) -> RunNode {
        let fact = Fact { dtype: Some(dtype), shape: vec![] };
        let (name, operator) = (name.to_owned(), operator.to_owned());
        RunNode { name, operator, inputs: vec![], outputs: vec![fact], times_us: vec![time_us] }
    }

    fn check(nodes: &[(RunNode, &str)]) -> String {
        let graph = quantized();
        let types = shape::infer(&graph, &Bindings::default()).expect("types fit");
        let (nodes, outputs): (Vec<RunNode>, Vec<&str>) = nodes.iter().cloned().unzip();
        let outputs: Vec<Vec<String>> =
            outputs.iter().map(|name| name.split_whitespace().map(str::to_owned).collect()).collect();
        let account = account(&graph, &types, &nodes, &outputs);
        let fates = graph.nodes.iter().zip(&account.fates).map(|(node, fate)| {
            let fate = match fate {
                Fate::Works(idx) => format!("is {}", nodes[*idx].name),
                Fate::Absorbed(idx) => format!("in {}", nodes[*idx].name),
                Fate::AtLoad => "at load".to_owned(),
                Fate::Gone => "gone".to_owned(),
            };
            format!("{} {fate}", node.op.name())
        });
        fates.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_fused_node_is_known_by_its_value_and_its_type() {
        let fused = check(&[
            (node("c", "QLinearConv", DType::U8, 1.0), "conv"),
            (node("d", "DequantizeLinear", DType::F32, 1.0), "dequantizelinear_3"),
        ]);
        insta::assert_snapshot!(fused, @"DequantizeLinear at load, DequantizeLinear in c, Conv is c, Relu in c, QuantizeLinear in c, DequantizeLinear is d");
        let by_last = check(&[
            (node("c", "QLinearConv", DType::U8, 1.0), "quantizelinear"),
            (node("d", "DequantizeLinear", DType::F32, 1.0), "dequantizelinear_3"),
        ]);
        assert_eq!(by_last, fused);
    }

    #[test]
    fn a_node_in_several_parts_is_its_slowest() {
        let parts = check(&[
            (node("dequantizelinear_2", "DequantizeLinearF32", DType::F32, 1.0), ""),
            (node("conv.pad", "Pad", DType::F32, 1.0), ""),
            (node("conv.matmatmul", "OptMatMul", DType::F32, 5.0), ""),
            (node("conv.reshape", "IntoShape", DType::U8, 1.0), ""),
            (node("quantizelinear", "QuantizeLinearU8", DType::U8, 1.0), ""),
            (node("dequantizelinear_3", "DequantizeLinearF32", DType::F32, 1.0), ""),
        ]);
        insta::assert_snapshot!(parts, @"DequantizeLinear at load, DequantizeLinear is dequantizelinear_2, Conv is conv.matmatmul, Relu in quantizelinear, QuantizeLinear is quantizelinear, DequantizeLinear is dequantizelinear_3");
    }

    #[test]
    fn a_blocked_result_is_known_by_the_name_of_its_node() {
        let blocked = check(&[
            (node("relu_nchwc", "Conv", DType::F32, 5.0), "reorder"),
            (node("ReorderOutput", "ReorderOutput", DType::F32, 1.0), "relu"),
        ]);
        assert!(blocked.contains("Conv is relu_nchwc, Relu in relu_nchwc"), "{blocked}");
    }

    #[test]
    fn lost_names_are_found_by_position_and_by_elimination() {
        let lost = check(&[
            (node("_token_1", "QLinearConv", DType::U8, 5.0), "_token_2"),
            (node("DequantizeLinear_5", "DequantizeLinear", DType::F32, 1.0), "_token_3"),
        ]);
        assert!(lost.contains("Conv is _token_1, Relu in _token_1"), "{lost}");
        assert!(lost.ends_with("DequantizeLinear is DequantizeLinear_5"), "{lost}");
    }

    #[test]
    fn unknown_names_stand_for_nothing() {
        let none = check(&[
            (node("added", "Reorder", DType::F32, 1.0), "nobody"),
            (node("conv9", "Pool", DType::F32, 1.0), ""),
        ]);
        assert!(!none.contains("is ") && none.contains("Conv gone"), "{none}");
    }
}
