//! Groups of nodes that reading made of one node of an old opset, put together again where that opset is written.

use std::collections::HashMap;

use super::super::raw::{Context, RawAttribute, RawNode};
use super::{Target, reads};
use crate::graph::attribute::Attribute;
use crate::graph::op::{Reshape, Softmax};
use crate::graph::{Graph, Name, Node, Op};

/// What is written in a node's place.
pub(super) enum Fused {
    /// Nothing: another node says it.
    Away,
    /// A node in the form of the target.
    Into(Box<RawNode<RawAttribute>>),
    /// A canonical node, which has one more output where a name is given.
    As(Box<Node>, Option<Name>),
}

/// By position, the nodes that are written otherwise than one by one.
pub(super) fn fused(graph: &Graph, target: Target, context: &Context) -> HashMap<usize, Fused> {
    let opset = target.opset;
    let mut fused = HashMap::new();
    if opset >= 14 {
        return fused;
    }
    let n_reads = reads(graph);
    let producers = graph
        .nodes
        .iter()
        .enumerate()
        .flat_map(|(position, node)| node.outputs.iter().flatten().map(move |name| (name, position)));
    let network = Network { graph, n_reads, producers: producers.collect() };
    for (position, node) in graph.nodes.iter().enumerate() {
        if matches!(&node.op, Op::Reshape(reshape) if reshape.allowzero) {
            softmax(&network, position, node, opset, context, &mut fused);
        } else if opset < 10 && target.own_opset < 10 && matches!(node.op, Op::Cast(_)) {
            dropout_mask(&network, position, node, &mut fused);
        }
    }
    fused
}

struct Network<'a> {
    graph: &'a Graph,
    n_reads: HashMap<Name, usize>,
    producers: HashMap<&'a Name, usize>,
}

impl<'a> Network<'a> {
    fn producer(&self, name: Option<&Name>) -> Option<(usize, &'a Node)> {
        let position = *self.producers.get(name?)?;
        self.graph.nodes.get(position).map(|node| (position, node))
    }

    fn read_once(&self, name: Option<&Name>) -> bool {
        name.is_some_and(|name| self.n_reads.get(name) == Some(&1))
    }
}

/// Flatten, Softmax, Reshape to the shape of the flattened: what Softmax alone said up to opset 12. At opset 13, which
/// has neither that nor `allowzero`, the Reshape does without: it fails where a dimension is 0, and is the same elsewhere.
fn softmax(
    network: &Network<'_>,
    position: usize,
    reshape: &Node,
    opset: u32,
    context: &Context,
    fused: &mut HashMap<usize, Fused>,
) {
    let Some((shape_at, shape)) = network.producer(reshape.input(1)) else { return };
    let Some((rows_at, rows)) = network.producer(reshape.input(0)) else { return };
    let Some((flat_at, flat)) = network.producer(rows.input(0)) else { return };
    let (Op::Shape(dims), Op::Flatten(flatten)) = (&shape.op, &flat.op) else { return };
    let (Op::Softmax(Softmax { axis: -1 }) | Op::LogSoftmax(Softmax { axis: -1 }) | Op::Hardmax(Softmax { axis: -1 })) =
        &rows.op
    else {
        return;
    };
    if dims.start != 0 || dims.end.is_some() || shape.input(0) != flat.input(0) {
        return;
    }
    if opset == 13 {
        let op = Op::Reshape(Reshape { allowzero: false });
        fused.insert(position, Fused::As(Box::new(Node { op, ..reshape.clone() }), None));
        return;
    }
    let inner = [reshape.input(0), reshape.input(1), rows.input(0)];
    let writable = flatten.axis >= 0 || opset >= 11 || context.rank_of(flat.input(0)).is_some();
    if !writable || !inner.into_iter().all(|name| network.read_once(name)) {
        return;
    }
    let axis = match context.rank_of(flat.input(0)).and_then(|rank| i64::try_from(rank).ok()) {
        Some(rank) if flatten.axis < 0 && opset < 11 => flatten.axis + rank,
        Some(_) | None => flatten.axis,
    };
    let raw = RawNode {
        name: rows.name.clone(),
        domain: String::new(),
        op_type: rows.op.name().to_string(),
        attributes: (axis != 1)
            .then(|| ("axis".to_string(), RawAttribute::Plain(Attribute::Int(axis))))
            .into_iter()
            .collect(),
        inputs: vec![flat.input(0).cloned()],
        outputs: reshape.outputs.clone(),
        notes: rows.notes.clone(),
    };
    fused.extend([(shape_at, Fused::Away), (rows_at, Fused::Away), (flat_at, Fused::Away)]);
    fused.insert(position, Fused::Into(Box::new(raw)));
}

/// A Dropout whose mask is cast: up to opset 9 the mask was of the type of the data.
fn dropout_mask(network: &Network<'_>, position: usize, cast: &Node, fused: &mut HashMap<usize, Fused>) {
    let Some((dropout_at, dropout)) = network.producer(cast.input(0)) else { return };
    if !matches!(dropout.op, Op::Dropout(_)) || dropout.output(1) != cast.input(0) || !network.read_once(cast.input(0))
    {
        return;
    }
    let node = Node { outputs: vec![dropout.output(0).cloned()], ..dropout.clone() };
    fused.insert(dropout_at, Fused::As(Box::new(node), cast.output(0).cloned()));
    fused.insert(position, Fused::Away);
}
