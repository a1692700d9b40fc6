//! Residual blocks, attention, feed-forward parts, the layers made of them, and recurrent layers; and taking blocks and
//! layers out.
//!
//! Everything is found along activations: what a network computes from its inputs, not its weights, its constants or the
//! arithmetic of its shapes. A block or layer is a [`Span`] of values: side inputs from outside, such as a mask, may enter
//! it, and what leaves it by another way than its exit stands against taking it out. One of more than 4096 nodes is not looked for.

mod attention;
mod encoder;
mod feed_forward;
mod flow;
mod linear;
#[cfg(test)]
mod networks;
mod recurrent;
mod residual;
mod sizes;
mod span;
mod stacks;

use std::fmt::Write as _;

use serde::Serialize;

use crate::graph::shape::Types;
use crate::graph::{Graph, Name, Node};
use encoder::encoder_layers;
use feed_forward::{activation_name, feed_forwards};
use flow::Flow;
use recurrent::recurrent_layers;
use residual::residual_blocks;

pub use attention::Attention;
pub use encoder::{EncoderLayer, Norm};
pub use feed_forward::FeedForward;
pub use recurrent::RecurrentLayer;
pub use residual::{ResidualBlock, Skip};
pub use span::{Span, StructureError, bypass};
pub use stacks::{Block, BlockKind, blocks};

/// The parts of a network that are more than single operators, and its recurrent operators. The bodies of its nodes are
/// not looked into. Nodes stand as their positions in the graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Structure {
    /// The residual blocks, in the order of their ends: one inside another comes first.
    pub residual_blocks: Vec<ResidualBlock>,
    /// The attentions, in order.
    pub attentions: Vec<Attention>,
    /// The feed-forward parts, in order.
    pub feed_forwards: Vec<FeedForward>,
    /// The layers made of them, in order.
    pub encoder_layers: Vec<EncoderLayer>,
    /// The recurrent layers, in order.
    pub recurrent: Vec<RecurrentLayer>,
}

/// What a graph is made of. What no output depends on is passed over.
pub fn structure(graph: &Graph, types: &Types) -> Structure {
    let flow = Flow::of(graph, types);
    let residual_blocks = residual_blocks(&flow);
    let attentions = attention::attentions(&flow);
    let feed_forwards = feed_forwards(&flow, &residual_blocks);
    let encoder_layers = encoder_layers(&flow, &residual_blocks, &attentions, &feed_forwards);
    let recurrent = recurrent_layers(&flow);
    Structure { residual_blocks, attentions, feed_forwards, encoder_layers, recurrent }
}

/// The structure as text, a line a part; the same for the same graph.
pub fn show(structure: &Structure, graph: &Graph) -> String {
    let mut text = String::new();
    for (idx, layer) in structure.encoder_layers.iter().enumerate() {
        line(&mut text, &encoder_layer(structure, graph, idx, layer));
    }
    for (idx, block) in structure.residual_blocks.iter().enumerate() {
        line(&mut text, &residual_block(graph, idx, block));
    }
    for (idx, part) in structure.attentions.iter().enumerate() {
        let at = node(graph, part.softmax);
        line(&mut text, &format!("attention {idx}  {}  at {at}  {}", attention(part), n_nodes(part.nodes.len())));
    }
    for (idx, part) in structure.feed_forwards.iter().enumerate() {
        let span = format!("{} -> {}", part.entry, part.exit);
        let what = feed_forward(graph, part);
        line(&mut text, &format!("feed-forward {idx}  {span}  {what}  {}", n_nodes(part.nodes.len())));
    }
    for (idx, layer) in structure.recurrent.iter().enumerate() {
        line(&mut text, &recurrent(graph, idx, layer));
    }
    text
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{}", line.trim_end()).expect("a String takes everything");
}

fn encoder_layer(structure: &Structure, graph: &Graph, idx: usize, layer: &EncoderLayer) -> String {
    let norm = match layer.norm {
        Norm::Pre => "pre-norm",
        Norm::Post => "post-norm",
        Norm::Absent => "no norm",
    };
    let parts = layer.attentions.iter().filter_map(|&idx| structure.attentions.get(idx));
    let mut parts: Vec<String> = parts.map(|part| format!("attention {}", attention(part))).collect();
    let last = structure.feed_forwards.get(layer.feed_forward);
    parts.extend(last.map(|part| format!("feed-forward {}", feed_forward(graph, part))));
    let (parts, n_nodes) = (parts.join("; "), n_nodes(layer.private.len().max(layer.nodes.len())));
    format!("encoder layer {idx}  {norm}  {}  {parts}  {n_nodes}  {}", layer.span, removable(layer.blocked.as_deref()))
}

fn residual_block(graph: &Graph, idx: usize, block: &ResidualBlock) -> String {
    let skip = match &block.skip {
        Skip::Identity => "identity".to_string(),
        Skip::Projection { nodes } => {
            let names: Vec<&str> =
                nodes.iter().filter_map(|&idx| graph.nodes.get(idx)).map(|node| node.op.name()).collect();
            format!("projection ({})", names.join(", "))
        }
    };
    let n_nodes = n_nodes(block.private.len().max(block.nodes.len()));
    format!("residual block {idx}  {}  {skip}  {n_nodes}  {}", block.span, removable(block.blocked.as_deref()))
}

fn removable(blocked: Option<&str>) -> String {
    blocked.map_or_else(|| "removable".to_string(), |reason| format!("stays: {reason}"))
}

fn attention(part: &Attention) -> String {
    let heads = if part.n_heads == Some(1) { "head" } else { "heads" };
    let mut text = format!("{} {heads} x {}", size(part.n_heads), size(part.head_size));
    if part.n_kv_heads != part.n_heads {
        let _ = write!(text, ", {} of keys and values", size(part.n_kv_heads));
    }
    match part.scale {
        Some(scale) => {
            let _ = write!(text, ", scale {scale:.4}");
        }
        None => text.push_str(", scale ?"),
    }
    if !part.masks.is_empty() {
        let masks: Vec<&str> = part.masks.iter().map(Name::as_str).collect();
        let _ = write!(text, ", mask {}", masks.join(", "));
    }
    text
}

fn feed_forward(graph: &Graph, part: &FeedForward) -> String {
    let nodes: Vec<&Node> = part.activation.iter().filter_map(|&idx| graph.nodes.get(idx)).collect();
    let gated = if part.gated { ", gated" } else { "" };
    format!("{} ({}{gated})", size(part.size), activation_name(&nodes))
}

fn recurrent(graph: &Graph, idx: usize, layer: &RecurrentLayer) -> String {
    let direction = match (layer.n_directions, layer.reverse) {
        (1, false) => "forward",
        (1, true) => "reverse",
        _ => "both directions",
    };
    let sizes = format!("{} -> {}", size(layer.input_size), size(layer.hidden_size));
    format!("recurrent layer {idx}  {} {sizes}  {direction}  at {}", layer.operator, node(graph, layer.node))
}

fn n_nodes(n: usize) -> String {
    if n == 1 { "1 node".to_string() } else { format!("{n} nodes") }
}

fn size(size: Option<usize>) -> String {
    size.map_or_else(|| "?".to_string(), |size| size.to_string())
}

fn node(graph: &Graph, node_idx: usize) -> String {
    graph.nodes.get(node_idx).map(Node::label).unwrap_or_default()
}
