//! Blocks that repeat, and a network without some of them.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::{BlockReport, Depth, StudentError};
use crate::graph::shape::{Bindings, Types, infer};
use crate::graph::structure::blocks::{
    EncoderLayer, RecurrentLayer, ResidualBlock, Skip, Span, Structure, bypass, structure,
};
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

/// A network without some of its blocks.
pub(super) struct Shallow {
    pub(super) graph: Graph,
    pub(super) blocks: Vec<BlockReport>,
}

/// The network with the blocks that are to be kept.
pub(super) fn apply(teacher: &Graph, depth: Option<&Depth>) -> Result<Shallow, StudentError> {
    let Some(depth) = depth else { return Ok(Shallow { graph: teacher.clone(), blocks: Vec::new() }) };
    let types = infer(teacher, &Bindings::default())?;
    let blocks = blocks(teacher, &types);
    let kept = match depth {
        Depth::Keep(part) => {
            let count = |n: usize| super::width::part_of(n, *part);
            check_repeated(&blocks, *part < 1.0, "depth.keep")?;
            kept_of_stacks(&blocks, count)
        }
        Depth::Layers(n_layers) => {
            let kept = kept_of_stacks(&blocks, |n| n.min(*n_layers));
            check_layers(&blocks, &kept, *n_layers)?;
            kept
        }
        Depth::Blocks(positions) => kept_by_position(&blocks, positions)?,
    };
    let spans: Vec<Span> =
        (0..).zip(&blocks).filter(|(idx, _)| !kept.contains(idx)).map(|(_, block)| block.span.clone()).collect();
    let graph = if spans.is_empty() { teacher.clone() } else { bypass(teacher, &types, &spans)? };
    let report = |(idx, Block { kind, span, stays, .. })| BlockReport { kind, span, kept: kept.contains(&idx), stays };
    Ok(Shallow { graph, blocks: (0..).zip(blocks).map(report).collect() })
}

/// The positions of the blocks of each stack.
fn stacks(blocks: &[Block]) -> Vec<Vec<usize>> {
    let mut stacks: Vec<Vec<usize>> = Vec::new();
    for (idx, block) in blocks.iter().enumerate() {
        match stacks.last_mut().filter(|stack| blocks[stack[0]].stack == block.stack) {
            Some(stack) => stack.push(idx),
            None => stacks.push(vec![idx]),
        }
    }
    stacks
}

fn reasons(blocks: &[Block]) -> Vec<String> {
    let reason = |(idx, block): (usize, &Block)| match &block.stays {
        Some(reason) => format!("block {idx}, {}: {reason}", block.span),
        None => format!("block {idx}, {}: no other like it beside it", block.span),
    };
    blocks.iter().enumerate().map(reason).collect()
}

fn check_repeated(blocks: &[Block], asks: bool, key: &'static str) -> Result<(), StudentError> {
    let repeats = |stack: &Vec<usize>| stack.len() > 1 && stack.iter().any(|&idx| blocks[idx].stays.is_none());
    match asks && !stacks(blocks).iter().any(repeats) {
        true => Err(StudentError::NoBlocks { key, reasons: reasons(blocks) }),
        false => Ok(()),
    }
}

fn check_layers(blocks: &[Block], kept: &BTreeSet<usize>, n_layers: usize) -> Result<(), StudentError> {
    let key = "depth.layers";
    check_repeated(blocks, true, key)?;
    let stacks = stacks(blocks);
    let longest = stacks.iter().map(Vec::len).max().unwrap_or(0);
    if n_layers > longest {
        return Err(StudentError::FewLayers { asked: n_layers, longest });
    }
    for stack in stacks {
        let kept: Vec<usize> = stack.into_iter().filter(|idx| kept.contains(idx)).collect();
        let held = kept.iter().find_map(|&idx| Some((idx, blocks[idx].stays.clone()?)));
        if let Some((block, reason)) = held.filter(|_| kept.len() > n_layers) {
            return Err(StudentError::BlockStays { key, block, reason });
        }
    }
    Ok(())
}

fn kept_by_position(blocks: &[Block], positions: &[usize]) -> Result<BTreeSet<usize>, StudentError> {
    let n_blocks = blocks.len();
    if let Some(&block) = positions.iter().find(|&&block| block >= n_blocks) {
        return Err(StudentError::NoSuchBlock { block, n_blocks });
    }
    let kept: BTreeSet<usize> = positions.iter().copied().collect();
    let held = blocks.iter().enumerate().filter(|(idx, _)| !kept.contains(idx));
    match held.into_iter().find_map(|(block, found)| Some((block, found.stays.clone()?))) {
        Some((block, reason)) => Err(StudentError::BlockStays { key: "depth.blocks", block, reason }),
        None => Ok(kept),
    }
}

fn kept_of_stacks(blocks: &[Block], count: impl Fn(usize) -> usize) -> BTreeSet<usize> {
    let stacks = stacks(blocks);
    let kept = stacks.iter().flat_map(|stack| {
        let stays: Vec<bool> = stack.iter().map(|&idx| blocks[idx].stays.is_some()).collect();
        evenly(&stays, count(stack.len())).into_iter().map(|position| stack[position])
    });
    kept.collect()
}

/// So many of these positions as are wanted, evenly, and every one that has to stay: it takes the place of the nearest.
fn evenly(stays: &[bool], n_wanted: usize) -> BTreeSet<usize> {
    let (last, steps) = (stays.len().saturating_sub(1), n_wanted.saturating_sub(1));
    let place = |j: usize| if steps == 0 { 0 } else { (2 * j * last + steps) / (2 * steps) };
    let mut kept: BTreeSet<usize> = (0..n_wanted).map(place).collect();
    for (position, _) in stays.iter().enumerate().filter(|(_, stays)| **stays) {
        if kept.insert(position) {
            let free = kept.iter().copied().filter(|&other| !stays[other]);
            if let Some(nearest) = free.min_by_key(|other| other.abs_diff(position)) {
                kept.remove(&nearest);
            }
        }
    }
    kept
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

#[cfg(test)]
mod tests {
    use super::evenly;

    #[test]
    fn blocks_are_kept_evenly() {
        let check = |stays: &str, n_wanted: usize, expected: &[usize]| {
            let stays: Vec<bool> = stays.chars().map(|c| c == 'x').collect();
            let kept: Vec<usize> = evenly(&stays, n_wanted).into_iter().collect();
            assert_eq!(kept, expected, "{n_wanted} of {stays:?}");
        };
        check("......", 3, &[0, 3, 5]);
        check("............", 6, &[0, 2, 4, 7, 9, 11]); // as DistilBERT has it
        check("............", 4, &[0, 4, 7, 11]);
        check("..", 1, &[0]);
        check("...", 3, &[0, 1, 2]);
        check(".....", 2, &[0, 4]);
        check("x...", 2, &[0, 3]);
        check(".x..", 2, &[1, 3]);
        check("..x..", 1, &[2]);
        check("xx..", 1, &[0, 1]);
        check(".", 1, &[0]);
    }
}
