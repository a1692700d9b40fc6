//! Parts of a network that can be taken out: what reads their exit then reads their entry.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::flow::{Flow, Region, live};
use crate::graph::patch::{Patch, PatchError};
use crate::graph::shape::Types;
use crate::graph::{Dim, Graph, Name, TensorType};

/// A part of a network, from the value that it reads to the value that it gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Span {
    /// What it reads, beside side inputs that do not depend on this value.
    pub entry: Name,
    /// What it gives.
    pub exit: Name,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.entry, self.exit)
    }
}

/// Why a part of a network is not taken out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StructureError {
    /// The span is none: its exit does not depend on its entry.
    #[error("{span}: the exit does not depend on the entry")]
    NoSpan {
        /// the span
        span: Span,
    },
    /// Something about the span stands against it.
    #[error("{span} stays: {reason}")]
    Blocked {
        /// the span
        span: Span,
        /// what stands against it
        reason: String,
    },
    /// The graph without it does not fit together.
    #[error(transparent)]
    Patch(#[from] PatchError),
}

/// The graph without these parts: everything that reads a span's exit reads its entry, and what nothing needs any more is
/// gone. Spans may follow one another or lie in one another.
///
/// # Errors
/// When a span's exit does not depend on its entry, when the two are not of one type, when something outside reads a value
/// of the inside, or when the result does not fit together. Names the span.
pub fn bypass(graph: &Graph, types: &Types, spans: &[Span]) -> Result<Graph, StructureError> {
    let flow = Flow::of(graph, types);
    let redirected = widest(&flow, spans);
    let live = live(graph, &redirected);
    let is_live = |node_idx: usize| live.get(node_idx).is_some_and(|&live| live);
    for span in spans {
        let between = flow.between(&span.entry, &span.exit);
        if between.is_empty() {
            return Err(StructureError::NoSpan { span: span.clone() });
        }
        let reason = unlike(&flow, span).or_else(|| {
            let kept = between.iter().find(|node_idx| is_live(**node_idx))?;
            Some(format!("{} inside it is needed outside", flow.node(*kept)?.label()))
        });
        if let Some(reason) = reason {
            return Err(StructureError::Blocked { span: span.clone(), reason });
        }
    }
    let mut patch = Patch::new(graph);
    for (exit, entry) in &redirected {
        patch.replace_uses(exit, entry);
    }
    for node_idx in (0..graph.nodes.len()).filter(|&node_idx| !is_live(node_idx)) {
        patch.remove(node_idx);
    }
    patch.remove_unused_initializers();
    Ok(patch.apply(Some(types))?)
}

/// Why a span cannot be taken out; none where it can.
pub(super) fn blocked(flow: &Flow<'_>, span: &Span, region: &Region) -> Option<String> {
    unlike(flow, span).or_else(|| region.escape.as_ref().map(|escape| escape.reason.clone()))
}

/// How the exit differs from the entry; none where, as far as is known, it does not.
fn unlike(flow: &Flow<'_>, span: &Span) -> Option<String> {
    let (entry, exit) = (flow.types.tensor(&span.entry)?, flow.types.tensor(&span.exit)?);
    let unlike = entry.dtype != exit.dtype || !may_agree(entry, exit);
    unlike.then(|| format!("it reads {entry} and gives {exit}"))
}

/// Where the uses of each exit go: of spans that end alike, the one that begins first holds the others.
fn widest<'a>(flow: &Flow<'_>, spans: &'a [Span]) -> BTreeMap<&'a Name, &'a Name> {
    let n_nodes = |span: &Span| flow.between(&span.entry, &span.exit).len();
    let mut widest: BTreeMap<&Name, &Span> = BTreeMap::new();
    for span in spans {
        let chosen = widest.entry(&span.exit).or_insert(span);
        if n_nodes(span) > n_nodes(chosen) {
            *chosen = span;
        }
    }
    widest.into_iter().map(|(exit, span)| (exit, &span.entry)).collect()
}

/// Whether, as far as is known, two values are of one shape.
pub(super) fn same_shape(flow: &Flow<'_>, one: &str, other: &str) -> bool {
    match (flow.types.tensor(one), flow.types.tensor(other)) {
        (Some(one), Some(other)) => may_agree(one, other),
        (Some(_), None) | (None, Some(_)) | (None, None) => true,
    }
}

fn may_agree(one: &TensorType, other: &TensorType) -> bool {
    let agree = |(one, other): (&Dim, &Dim)| match (one.known(), other.known()) {
        (Some(one), Some(other)) => one == other,
        // 1 beside an open size is a broadcast
        (Some(size), None) | (None, Some(size)) => size != 1,
        (None, None) => true,
    };
    match (&one.shape, &other.shape) {
        (Some(one), Some(other)) => one.len() == other.len() && one.iter().zip(other).all(agree),
        (Some(_), None) | (None, Some(_)) | (None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::structure::blocks::networks::{HIDDEN, Net, Style, WIDTH, encoder, found, output, types};
    use crate::graph::{Name, Op};

    fn span(entry: &str, exit: &str) -> Span {
        Span { entry: entry.into(), exit: exit.into() }
    }

    #[test]
    fn an_encoder_without_a_layer_is_the_shorter_encoder() {
        for style in [Style::PreNorm, Style::PostNorm, Style::Decomposed] {
            let whole = encoder(style, &[0, 1, 2]);
            let layers = found(&whole).encoder_layers;
            assert_eq!(layers.len(), 3, "{style:?}");
            for (left_out, kept) in
                [(vec![0], vec![1, 2]), (vec![1], vec![0, 2]), (vec![2, 0], vec![1]), (vec![0, 1, 2], vec![])]
            {
                let spans: Vec<Span> = left_out.iter().map(|&idx: &usize| layers[idx].span.clone()).collect();
                let without = bypass(&whole, &types(&whole), &spans).expect("each layer can go");
                let shorter = encoder(style, &kept);
                assert_eq!(output(&without), output(&shorter), "{style:?} without {left_out:?}");
                // the mask is for the layers alone: with them it goes, and stands unused in the encoder of none
                let n_unused = usize::from(kept.is_empty());
                assert_eq!(without.nodes.len() + n_unused, shorter.nodes.len(), "{style:?} without {left_out:?}");
                assert_eq!(without.initializers.len() + n_unused, shorter.initializers.len());
                without.check().expect("a graph");
                assert_eq!(found(&without).encoder_layers.len(), kept.len());
            }
        }
    }

    #[test]
    fn spans_that_end_alike_go_in_any_order() {
        let whole = encoder(Style::PreNorm, &[0, 1]);
        let parts = found(&whole);
        let layer = &parts.encoder_layers[1].span;
        let block = parts.residual_blocks.iter().find(|block| block.span.exit == layer.exit && block.span != *layer);
        let block = &block.expect("a pre-norm layer ends with a block of its own").span;
        let shorter = output(&encoder(Style::PreNorm, &[0]));
        for spans in [[layer, block], [block, layer]] {
            let without = bypass(&whole, &types(&whole), &spans.map(Clone::clone)).expect("both can go");
            assert_eq!(output(&without), shorter);
        }
    }

    #[test]
    fn refusals_name_the_span_and_the_reason() {
        let mut net = Net::new();
        let x = net.steps();
        let hidden = net.linear(&x, WIDTH, HIDDEN);
        let back = net.linear(&hidden, HIDDEN, WIDTH);
        let sum = net.op(Op::Add, &[&x, &back]);
        let wide = net.linear(&hidden, HIDDEN, WIDTH);
        let last = net.op(Op::Mul, &[&sum, &wide]);
        let graph = net.finish(&last);
        let refused = |span| bypass(&graph, &types(&graph), &[span]).expect_err("refused").to_string();
        assert_eq!(refused(span(&x, &hidden)), "x -> add stays: it reads f32[1, 3, 8] and gives f32[1, 3, 12]");
        assert_eq!(refused(span(&x, &sum)), "x -> add_3 stays: MatMul `matmul` inside it is needed outside");
        assert_eq!(refused(span(&sum, &x)), "add_3 -> x: the exit does not depend on the entry");
    }

    #[test]
    fn an_exit_that_is_handed_out_keeps_its_name() {
        let mut net = Net::new();
        let x = net.steps();
        let branch = net.linear(&x, WIDTH, WIDTH);
        let sum = net.op(Op::Add, &[&x, &branch]);
        let graph = net.finish(&sum);
        let without = bypass(&graph, &types(&graph), &[span(&x, &sum)]).expect("the block can go");
        assert_eq!(without.outputs[0].name, sum);
        assert_eq!(without.nodes.len(), 1, "an Identity");
    }

    /// A network of these blocks, each with the weights of its number: `kinds` says what a block is.
    fn chain(kinds: &[usize], kept: &[bool]) -> Graph {
        let mut net = Net::new();
        let x = net.image();
        let mut stream = net.conv(&x, [4, 4], 3, 1, 1);
        for (idx, (kind, _)) in kinds.iter().zip(kept).enumerate().filter(|(_, (_, kept))| **kept) {
            net.seed(idx + 1);
            let read = stream.clone();
            let branch = match kind % 4 {
                0 => {
                    let inner = net.conv(&read, [4, 4], 3, 1, 1);
                    let inner = net.op(Op::Relu, &[&inner]);
                    net.conv(&inner, [4, 4], 3, 1, 1)
                }
                1 => {
                    let wide = net.conv(&read, [4, 8], 1, 1, 1);
                    let deep = net.conv(&wide, [8, 8], 3, 1, 8);
                    net.conv(&deep, [8, 4], 1, 1, 1)
                }
                2 => {
                    let inner = net.conv(&read, [4, 4], 3, 1, 1);
                    let gate = net.op(Op::GlobalAveragePool, &[&inner]);
                    let gate = net.op(Op::Sigmoid, &[&gate]);
                    net.op(Op::Mul, &[&inner, &gate])
                }
                _ => {
                    let flat = net.reshape(&read, &[1, 4, 36]);
                    let mixed = net.linear(&flat, 36, 36);
                    net.reshape(&mixed, &[1, 4, 6, 6])
                }
            };
            stream = net.op(Op::Add, &[&stream, &branch]);
        }
        net.seed(0);
        let last = net.conv(&stream, [4, 2], 1, 1, 1);
        net.finish(&last)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_chain_without_blocks_is_the_shorter_chain(blocks in prop::collection::vec((0..4usize, any::<bool>()), 1..6)) {
            let (kinds, kept): (Vec<usize>, Vec<bool>) = blocks.into_iter().unzip();
            let whole = chain(&kinds, &vec![true; kinds.len()]);
            let found = found(&whole).residual_blocks;
            prop_assert_eq!(found.len(), kinds.len());
            let left_out = found.iter().zip(&kept).filter(|(_, kept)| !**kept);
            let spans: Vec<Span> = left_out.map(|(block, _)| block.span.clone()).collect();
            let without = bypass(&whole, &types(&whole), &spans).expect("each block can go");
            without.check().expect("a graph");
            let shorter = chain(&kinds, &kept);
            prop_assert_eq!(output(&without), output(&shorter));
            let names = |graph: &Graph| graph.outputs.iter().map(|output| output.name.clone()).collect::<Vec<Name>>();
            prop_assert_eq!(names(&without), names(&whole));
            prop_assert_eq!(without.nodes.len(), shorter.nodes.len());
        }
    }
}
