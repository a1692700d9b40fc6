//! Blocks that repeat: encoder layers, residual blocks and recurrent layers, in stacks of those that are alike.

use std::fmt;

use serde::Serialize;

use super::{EncoderLayer, RecurrentLayer, ResidualBlock, Skip, Span, Structure, bypass, structure};
use crate::graph::shape::Types;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Op};

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// A layer of an encoder or decoder.
    EncoderLayer,
    /// A residual block outside of such layers.
    ResidualBlock,
    /// One of several recurrent layers.
    RecurrentLayer,
}

/// A block that may repeat.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Block {
    /// What it is.
    pub kind: BlockKind,
    /// From what it reads to what it gives.
    pub span: Span,
    /// The number of its stack: blocks that follow one another and are alike have the same.
    pub stack: usize,
    /// Why it cannot be taken out; none where it can.
    pub stays: Option<String>,
}

/// The blocks of a network, in order: encoder layers, residual blocks outside of them and recurrent layers outside of
/// both. Of residual blocks inside one another the innermost count.
///
/// A block joins the stack of the one before where it reads what that one gives, but for activations, norms and
/// reshapes, and they are built alike: residual blocks of the same operators and encoder layers of as many attentions and
/// the same place of norms, that give values of one type; recurrent layers of the same operator, size and directions. A
/// residual block with a projection begins a stack and stays.
pub fn blocks(graph: &Graph, types: &Types) -> Vec<Block> {
    let parts = structure(graph, types);
    let mut found = found(graph, types, &parts);
    found.sort_by_key(|block| block.first_node);
    let uses = Uses::of(graph);
    let mut blocks: Vec<Block> = Vec::new();
    let mut before: Option<&Found> = None;
    for block in &found {
        let is_next = before.is_some_and(|before| {
            before.likeness == block.likeness
                && !block.is_projected
                && reads(graph, &uses, &block.span.entry, &before.span.exit)
        });
        let last = blocks.last().map(|block| block.stack);
        let stack = last.map_or(0, |last| if is_next { last } else { last + 1 });
        let (kind, span, stays) = (block.kind, block.span.clone(), block.stays.clone());
        blocks.push(Block { kind, span, stack, stays });
        before = Some(block);
    }
    blocks
}

/// A block and what it is compared by.
struct Found {
    kind: BlockKind,
    span: Span,
    first_node: usize,
    likeness: String,
    stays: Option<String>,
    is_projected: bool,
}

fn found(graph: &Graph, types: &Types, parts: &Structure) -> Vec<Found> {
    let in_layer = |nodes: &[usize]| parts.encoder_layers.iter().any(|layer| lies_in(nodes, &layer.nodes));
    let residual: Vec<&ResidualBlock> = parts.residual_blocks.iter().filter(|block| !in_layer(&block.nodes)).collect();
    let is_outer = |block: &ResidualBlock| {
        residual.iter().any(|inner| inner.nodes.len() < block.nodes.len() && lies_in(&inner.nodes, &block.nodes))
    };
    let innermost = residual.iter().filter(|block| !is_outer(block));
    let in_block = |node: usize| in_layer(&[node]) || residual.iter().any(|block| lies_in(&[node], &block.nodes));
    let recurrent: Vec<&RecurrentLayer> = parts.recurrent.iter().filter(|layer| !in_block(layer.node)).collect();
    let mut found: Vec<Found> = parts.encoder_layers.iter().map(|layer| encoder_layer(types, layer)).collect();
    found.extend(innermost.map(|block| residual_block(graph, types, block)));
    found.extend(recurrent_layers(graph, types, &recurrent));
    found
}

/// Whether ascending positions are all among others.
fn lies_in(nodes: &[usize], others: &[usize]) -> bool {
    nodes.iter().all(|node| others.binary_search(node).is_ok())
}

fn given(types: &Types, span: &Span) -> String {
    types.tensor(&span.exit).map(ToString::to_string).unwrap_or_default()
}

fn encoder_layer(types: &Types, layer: &EncoderLayer) -> Found {
    Found {
        kind: BlockKind::EncoderLayer,
        span: layer.span.clone(),
        first_node: layer.nodes.first().copied().unwrap_or(0),
        likeness: format!("{:?} {} {}", layer.norm, layer.attentions.len(), given(types, &layer.span)),
        stays: layer.blocked.clone(),
        is_projected: false,
    }
}

fn residual_block(graph: &Graph, types: &Types, block: &ResidualBlock) -> Found {
    let (projection, projected): (&[usize], _) = match &block.skip {
        Skip::Identity => (&[], None),
        Skip::Projection { nodes } => (nodes, Some("its input reaches the sum through a projection".to_string())),
    };
    let main = block.nodes.iter().filter(|node_idx| !projection.contains(node_idx));
    let mut operators: Vec<&str> = main.filter_map(|&idx| graph.nodes.get(idx)).map(|node| node.op.name()).collect();
    operators.sort_unstable();
    Found {
        kind: BlockKind::ResidualBlock,
        span: block.span.clone(),
        first_node: block.nodes.first().copied().unwrap_or(0),
        likeness: format!("{} {}", operators.join(" "), given(types, &block.span)),
        stays: projected.or_else(|| block.blocked.clone()),
        is_projected: block.skip != Skip::Identity,
    }
}

/// A recurrent layer goes from what it reads to what the next one reads, so the last of them stays.
fn recurrent_layers(graph: &Graph, types: &Types, layers: &[&RecurrentLayer]) -> Vec<Found> {
    let uses = Uses::of(graph);
    let reads_of = |layer: &RecurrentLayer| graph.nodes.get(layer.node).and_then(|node| node.input(0));
    let follower = |layer: &RecurrentLayer| {
        let states = graph.nodes.get(layer.node)?.output(0)?;
        layers.iter().copied().filter_map(reads_of).find(|read| reads(graph, &uses, read, states))
    };
    let found = layers.iter().filter_map(|layer| {
        let node = graph.nodes.get(layer.node)?;
        let entry = node.input(0)?.clone();
        let next = follower(layer);
        let exit = next.or(node.outputs.iter().flatten().next())?.clone();
        let span = Span { entry, exit };
        let stays = match next {
            None => Some("no recurrent layer reads what it gives".to_string()),
            Some(_) => bypass(graph, types, std::slice::from_ref(&span)).err().map(|error| error.to_string()),
        };
        let RecurrentLayer { operator, hidden_size, n_directions, reverse, .. } = layer;
        let likeness = format!("{operator} {hidden_size:?} {n_directions} {reverse}");
        Some(Found {
            kind: BlockKind::RecurrentLayer,
            span,
            first_node: layer.node,
            likeness,
            stays,
            is_projected: false,
        })
    });
    found.collect()
}

/// The most nodes between a block and the next.
const LONGEST_WAY: usize = 8;

/// Whether a value is another but for activations, norms and what moves elements.
fn reads(graph: &Graph, uses: &Uses<'_>, name: &Name, source: &Name) -> bool {
    let mut name = name;
    for _ in 0..=LONGEST_WAY {
        if name == source {
            return true;
        }
        let producer = uses.producer_idx(name).and_then(|node_idx| graph.nodes.get(node_idx));
        match producer.filter(|node| carries_on(&node.op)).and_then(|node| node.input(0)) {
            Some(input) => name = input,
            None => return false,
        }
    }
    false
}

fn carries_on(op: &Op) -> bool {
    matches!(
        op,
        Op::Identity
            | Op::Dropout(_)
            | Op::Cast(_)
            | Op::Relu
            | Op::Clip
            | Op::LeakyRelu(_)
            | Op::PRelu
            | Op::Elu(_)
            | Op::Gelu(_)
            | Op::HardSwish
            | Op::Sigmoid
            | Op::Tanh
            | Op::BatchNormalization(_)
            | Op::LayerNormalization(_)
            | Op::RMSNormalization(_)
            | Op::GroupNormalization(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Squeeze
            | Op::Unsqueeze
    )
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            BlockKind::EncoderLayer => "encoder layer",
            BlockKind::ResidualBlock => "residual block",
            BlockKind::RecurrentLayer => "recurrent layer",
        })
    }
}
