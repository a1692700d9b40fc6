//! Taking a graph from the canonical form to that of an opset to be written.
//!
//! A node is written by the inverse of the rule that read it (`forms`); where the opset has no such form, it is
//! decomposed into operators that the opset has, if they compute the same (`decompose`); otherwise it is refused by
//! name. Nodes that reading had made of one are put together again (`fuse`).

mod decompose;
mod forms;
mod fuse;
mod normalization;
mod types;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use super::raw::{Context, RawAttribute, RawGraph, RawNode};
use crate::graph::attribute::Attribute;
use crate::graph::{Graph, Name, Node, Op};
use fuse::Fused;

/// The oldest opset that is written.
const OLDEST: u32 = 7;

/// What a graph is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The version of the default operator set asked for.
    pub(super) opset: u32,
    /// The version that the network's file had, the only one for which its opaque operators are meant.
    pub(super) own_opset: u32,
    /// Whether the file imports the domain `com.microsoft`.
    pub(super) microsoft: bool,
}

/// Why a graph cannot be written at an opset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// The operator, or the way in which it is used, is newer.
    #[error("{node} needs opset {least}, not {opset}: {reason}")]
    Needs {
        /// operator, and name or first output
        node: String,
        /// the first opset that has it
        least: u32,
        /// the opset asked for
        opset: u32,
        /// what is newer
        reason: String,
    },
    /// The way in which the operator is used is older.
    #[error("{node} cannot be written after opset {newest}, at {opset}: {reason}")]
    Gone {
        /// operator, and name or first output
        node: String,
        /// the last opset that has it
        newest: u32,
        /// the opset asked for
        opset: u32,
        /// what is gone
        reason: String,
    },
    /// The operator is not known, so it is not known what it means at another opset.
    #[error("{node} is not known to aludel and cannot be taken from opset {own_opset} to {opset}")]
    Opaque {
        /// operator, and name or first output
        node: String,
        /// the opset of the file that it is from
        own_opset: u32,
        /// the opset asked for
        opset: u32,
    },
    /// Older than anything that is written.
    #[error("opset {opset} cannot be written, {OLDEST} is the oldest")]
    TooOld {
        /// the opset asked for
        opset: u32,
    },
}

impl LowerError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            LowerError::Needs { .. } => "ask for the opset that it needs, or a later one",
            LowerError::Gone { .. } => "ask for the last opset that has it, or an earlier one",
            LowerError::Opaque { .. } => "keep the opset of the file",
            LowerError::TooOld { .. } => "ask for a later opset",
        }
    }
}

/// What keeps one node from being written.
#[derive(Debug)]
enum Problem {
    /// The form is newer.
    Newer { least: u32, reason: String },
    /// The form is gone.
    Older { newest: u32, reason: String },
    /// What the operator means at this opset is not known.
    Opaque,
}

impl Problem {
    fn new(least: u32, reason: impl Into<String>) -> Problem {
        Problem::Newer { least, reason: reason.into() }
    }

    fn of(self, node: &Node, target: Target) -> LowerError {
        let (node, opset, own_opset) = (node.label(), target.opset, target.own_opset);
        match self {
            Problem::Newer { least, reason } => LowerError::Needs { node, least, opset, reason },
            Problem::Older { newest, reason } => LowerError::Gone { node, newest, opset, reason },
            Problem::Opaque => LowerError::Opaque { node, own_opset, opset },
        }
    }
}

/// The graph, bodies included, in the form of `target.opset`. Constants that have become attributes are left out.
///
/// # Errors
/// Names the node that this opset cannot express.
pub(super) fn lower(graph: &Graph, target: Target) -> Result<RawGraph, LowerError> {
    if target.opset < OLDEST && target.opset != target.own_opset {
        return Err(LowerError::TooOld { opset: target.opset });
    }
    lower_graph(graph, target, &mut Context::new(graph.all_names()))
}

/// The lowest opset, 7 at the least, that has every form in the graph, and the node that needs it and why. Nodes are
/// taken as they are: what an older opset could only express by decomposing it, counts as newer.
pub(super) fn least_opset(graph: &Graph, microsoft: bool) -> (u32, Option<String>) {
    let mut least = (OLDEST, None);
    loop {
        let before = least.0;
        raise(graph, microsoft, &mut Context::new(graph.all_names()), &mut least);
        // What is written as one node at one opset is not at a higher one: look again.
        if least.0 == before {
            return least;
        }
    }
}

fn raise(graph: &Graph, microsoft: bool, context: &mut Context, least: &mut (u32, Option<String>)) {
    context.enter();
    context.declare_all(graph);
    let at = |opset: u32| Target { opset, own_opset: opset, microsoft };
    let fused = fuse::fused(graph, at(least.0), context);
    for (position, node) in graph.nodes.iter().enumerate() {
        loop {
            let n_added = context.n_added();
            let attempt = if fused.contains_key(&position) {
                types::check(node, at(least.0), context)
            } else {
                native(node, at(least.0), context).map(drop)
            };
            context.take_back(n_added);
            match attempt {
                Err(Problem::Newer { least: opset, reason }) if opset > least.0 => {
                    *least = (opset, Some(format!("{}: {reason}", node.label())));
                }
                Ok(()) | Err(_) => break,
            }
        }
        for body in node.op.bodies() {
            raise(body, microsoft, context, least);
        }
        context.learn(node);
    }
    context.leave();
}

fn lower_graph(graph: &Graph, target: Target, context: &mut Context) -> Result<RawGraph, LowerError> {
    context.enter();
    context.declare_all(graph);
    let mut fused = fuse::fused(graph, target, context);
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for (position, node) in graph.nodes.iter().enumerate() {
        match fused.remove(&position) {
            None => lower_node(node, target, context, &mut nodes)?,
            Some(Fused::Away) => {}
            Some(Fused::Into(raw)) => nodes.push(*raw),
            Some(Fused::As(other, output)) => {
                lower_node(&other, target, context, &mut nodes)?;
                if let (Some(raw), Some(_)) = (nodes.last_mut(), &output) {
                    raw.outputs.push(output);
                }
            }
        }
        context.learn(node);
    }
    let mut raw = RawGraph {
        name: graph.name.clone(),
        doc: graph.doc.clone(),
        inputs: graph.inputs.clone(),
        outputs: graph.outputs.clone(),
        initializers: graph.initializers.clone(),
        sparse_initializers: graph.sparse_initializers.clone(),
        overridable: graph.overridable.clone(),
        nodes,
        value_info: graph.value_info.clone(),
        metadata: graph.metadata.clone(),
        quantization_annotations: graph.quantization_annotations.clone(),
    };
    raw.initializers.extend(context.leave());
    drop_unread(graph, &mut raw);
    Ok(raw)
}

fn lower_node(
    node: &Node,
    target: Target,
    context: &mut Context,
    nodes: &mut Vec<RawNode<RawAttribute>>,
) -> Result<(), LowerError> {
    let n_added = context.n_added();
    let problem = match native(node, target, context) {
        Ok(mut raw) => {
            lower_bodies(node, &mut raw, target, context)?;
            nodes.push(raw);
            return Ok(());
        }
        Err(problem) => problem,
    };
    context.take_back(n_added);
    let Some(parts) = decompose::decompose(node, context) else {
        return Err(problem.of(node, target));
    };
    for part in &parts {
        lower_node(part, target, context, nodes)?;
        context.learn(part);
    }
    Ok(())
}

/// One node in the form of the target, its bodies left empty.
fn native(node: &Node, target: Target, context: &mut Context) -> Result<RawNode<RawAttribute>, Problem> {
    let mut raw = RawNode {
        name: node.name.clone(),
        domain: node.op.domain().to_string(),
        op_type: node.op.name().to_string(),
        attributes: node.op.attributes().into_iter().map(|(name, attribute)| (name, empty_bodies(attribute))).collect(),
        inputs: node.inputs.clone(),
        outputs: node.outputs.clone(),
        notes: node.notes.clone(),
    };
    if let Op::Opaque(opaque) = &node.op {
        let foreign = !opaque.domain.is_empty() || target.opset == target.own_opset;
        return if foreign { Ok(raw) } else { Err(Problem::Opaque) };
    }
    types::check(node, target, context)?;
    forms::write(node, &mut raw, target, context)?;
    Ok(raw)
}

fn empty_bodies(attribute: Attribute) -> RawAttribute {
    match attribute {
        Attribute::Graph(_) => RawAttribute::Graph(Box::default()),
        Attribute::Graphs(_) => RawAttribute::Graphs(Vec::new()),
        other => RawAttribute::Plain(other),
    }
}

fn lower_bodies(
    node: &Node,
    raw: &mut RawNode<RawAttribute>,
    target: Target,
    context: &mut Context,
) -> Result<(), LowerError> {
    if node.op.bodies().is_empty() {
        return Ok(());
    }
    for (name, attribute) in node.op.attributes() {
        let lowered = match attribute {
            Attribute::Graph(graph) => RawAttribute::Graph(Box::new(lower_graph(&graph, target, context)?)),
            Attribute::Graphs(graphs) => {
                let graphs = graphs.iter().map(|graph| lower_graph(graph, target, context));
                RawAttribute::Graphs(graphs.collect::<Result<_, _>>()?)
            }
            _ => continue,
        };
        if let Some((_, place)) = raw.attributes.iter_mut().find(|(key, _)| *key == name) {
            *place = lowered;
        }
    }
    Ok(())
}

/// Leaves out the constants that were read before and are not any more, and what is stated of values that are gone.
fn drop_unread(graph: &Graph, raw: &mut RawGraph) {
    let before = reads(graph);
    let after = raw_reads(raw);
    let unread = |name: &Name| before.contains_key(name) && !after.contains(name);
    raw.initializers.retain(|name, _| raw.overridable.contains(name) || !unread(name));
    raw.nodes.retain(|node| {
        let constant = node.op_type == "Constant" && node.domain.is_empty();
        !(constant && node.outputs.iter().flatten().all(unread))
    });
    let inputs = raw.inputs.iter().map(|info| &info.name);
    let outputs = raw.nodes.iter().flat_map(|node| node.outputs.iter().flatten());
    let constants = raw.initializers.keys().chain(raw.sparse_initializers.keys());
    let values: HashSet<&Name> = inputs.chain(constants).chain(outputs).collect();
    let gone: HashSet<&Name> = graph.value_names().filter(|name| !values.contains(name)).collect();
    raw.value_info.retain(|name, _| !gone.contains(name));
}

/// How often each value is read in the graph and the bodies inside, or is one of its outputs.
fn reads(graph: &Graph) -> HashMap<Name, usize> {
    let mut counts = HashMap::new();
    let outputs = graph.outputs.iter().map(|info| &info.name);
    for name in graph.nodes.iter().flat_map(|node| node.reads()).chain(outputs) {
        *counts.entry(name.clone()).or_insert(0) += 1;
    }
    counts
}

fn raw_reads(raw: &RawGraph) -> HashSet<Name> {
    let mut names: HashSet<Name> = raw.outputs.iter().map(|info| info.name.clone()).collect();
    for node in &raw.nodes {
        names.extend(node.inputs.iter().flatten().cloned());
        for (_, attribute) in &node.attributes {
            match attribute {
                RawAttribute::Plain(_) => {}
                RawAttribute::Graph(body) => names.extend(raw_reads(body)),
                RawAttribute::Graphs(bodies) => names.extend(bodies.iter().flat_map(raw_reads)),
            }
        }
    }
    names
}
