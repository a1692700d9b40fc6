//! A network without some of the blocks that repeat in it.

use std::collections::BTreeSet;

use super::{BlockReport, Depth, StudentError};
use crate::graph::Graph;
use crate::graph::shape::{Bindings, infer};
use crate::graph::structure::blocks::{Block, Span, blocks, bypass};

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
