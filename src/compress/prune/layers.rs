//! Whole blocks left out: encoder layers, residual blocks and recurrent layers, by what the network loses when they are skipped.
//!
//! Blocks go one by one: the one without which the network is least harmed, then, measured anew without it, the next (Song et al.,
//! "SLEB: Streamlining LLMs through Redundancy Verification and Elimination of Transformer Blocks", 2024, algorithm 1): of blocks that
//! stand in for one another, the last is missed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PruneError;
use crate::graph::Graph;
use crate::graph::probe::{Quality, Score};
use crate::graph::shape::Types;
use crate::graph::structure::blocks::{Block, BlockKind, Span, blocks, bypass};

/// How many of the blocks that can go are to go.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LayerAmount {
    /// So many.
    Count(usize),
    /// A share, rounded up.
    Share(f64),
}

/// By what the harm is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Harm {
    /// The power of the change of the outputs over that of the outputs.
    #[default]
    Noise,
    /// The accuracy that is lost on labelled samples; of equals, the noise.
    Accuracy,
}

/// A block that may be left out, and what the network is worth without it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Skipped {
    /// What it is.
    pub kind: BlockKind,
    /// From what it reads to what it gives.
    pub span: Span,
    /// How good the network is without it, and without those that went before it.
    pub quality: Quality,
}

/// A block that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stays {
    /// What it is.
    pub kind: BlockKind,
    /// From what it reads to what it gives.
    pub span: Span,
    /// Why.
    pub reason: String,
}

/// A network without some of its blocks.
#[derive(Clone, Debug)]
pub struct LayersOut {
    /// The network.
    pub graph: Graph,
    /// The blocks that went, in the order in which they did.
    pub gone: Vec<Skipped>,
    /// Each block that can go, alone left out, in the order of the graph.
    pub harm: Vec<Skipped>,
    /// The blocks that cannot go.
    pub refused: Vec<Stays>,
}

/// Leaves out the blocks that harm least, one after the other. What is left of the network in between is always made of the whole one,
/// so that blocks which follow one another may all go. `told` hears how many networks are judged, and of how many.
///
/// # Errors
/// When the amount is no share or more than can go, a network cannot be run, or accuracy is asked for where there are no labels.
pub fn leave_out(
    graph: &Graph,
    types: &Types,
    amount: LayerAmount,
    harm: Harm,
    score: &mut dyn Score,
    told: &mut dyn FnMut(usize, usize),
) -> Result<LayersOut, PruneError> {
    let (mut open, mut refused) = candidates(graph, types);
    let n_wanted = n_wanted(amount, open.len(), &refused)?;
    let n_to_judge = (0..n_wanted).map(|n_gone| open.len() - n_gone).sum();
    let mut out = LayersOut { graph: graph.clone(), gone: Vec::new(), harm: Vec::new(), refused: Vec::new() };
    let mut n_judged = 0;
    while out.gone.len() < n_wanted {
        let mut best: Option<(usize, Graph, Skipped)> = None;
        for (idx, block) in open.iter().enumerate() {
            told(n_judged, n_to_judge);
            n_judged += 1;
            let spans: Vec<Span> = out.gone.iter().map(|gone| &gone.span).chain([&block.span]).cloned().collect();
            // Side by side, or in one another, what could go alone may be needed.
            let Ok(without) = bypass(graph, types, &spans) else { continue };
            let quality = score.quality(&without)?;
            let skipped = Skipped { kind: block.kind, span: block.span.clone(), quality };
            if out.gone.is_empty() {
                out.harm.push(skipped.clone());
            }
            let is_better = match &best {
                Some((.., best)) => key(harm, &quality)? < key(harm, &best.quality)?,
                None => key(harm, &quality).map(|_| true)?,
            };
            if is_better {
                best = Some((idx, without, skipped));
            }
        }
        let Some((idx, without, skipped)) = best else {
            let asked = format!("{n_wanted} blocks");
            let reached = format!("{}, without which none of the others can go,", out.gone.len());
            return Err(PruneError::Amount { asked, reached, remedy: "ask for fewer" });
        };
        open.remove(idx);
        out.gone.push(skipped);
        out.graph = without;
    }
    out.refused.append(&mut refused);
    Ok(out)
}

/// The blocks that can go, and those that cannot.
fn candidates(graph: &Graph, types: &Types) -> (Vec<Block>, Vec<Stays>) {
    let (mut open, mut refused) = (Vec::new(), Vec::new());
    for block in blocks(graph, types) {
        let reason = block.stays.clone().or_else(|| {
            let alone = bypass(graph, types, std::slice::from_ref(&block.span));
            alone.err().map(|error| error.to_string())
        });
        match reason {
            None => open.push(block),
            Some(reason) => refused.push(Stays { kind: block.kind, span: block.span, reason }),
        }
    }
    (open, refused)
}

fn n_wanted(amount: LayerAmount, n_open: usize, refused: &[Stays]) -> Result<usize, PruneError> {
    let n_wanted = match amount {
        LayerAmount::Count(n) => n,
        LayerAmount::Share(share) if (0.0..=1.0).contains(&share) => {
            (share * n_open as f64 - 1e-9).ceil().max(0.0) as usize
        }
        LayerAmount::Share(share) => {
            return Err(PruneError::Option {
                option: "share",
                problem: format!("is {share}; give a share from 0 to 1"),
            });
        }
    };
    if n_open == 0 && (n_wanted > 0 || matches!(amount, LayerAmount::Share(share) if share > 0.0)) {
        let reason = match refused.first() {
            Some(first) => format!("no block can be left out ({}: {})", first.span, first.reason),
            None => "the network has no residual blocks, encoder layers or stacked recurrent layers".to_string(),
        };
        return Err(PruneError::Nothing { reason });
    }
    if n_wanted > n_open {
        let (asked, reached) = (format!("{n_wanted} blocks"), format!("{n_open}"));
        return Err(PruneError::Amount { asked, reached, remedy: "ask for fewer" });
    }
    Ok(n_wanted)
}

/// What is to be least: accuracy lost, then noise. A network that says no number any more is the worst.
fn key(harm: Harm, quality: &Quality) -> Result<(f64, f64), PruneError> {
    let noise = if quality.noise.is_nan() { f64::INFINITY } else { quality.noise };
    match (harm, quality.accuracy) {
        (Harm::Noise, _) => Ok((noise, 0.0)),
        (Harm::Accuracy, Some(accuracy)) => Ok((-accuracy, noise)),
        (Harm::Accuracy, None) => {
            let problem = "is told by labelled samples, and these have no labels: give some, or say `noise`";
            Err(PruneError::Option { option: "harm", problem: problem.to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::prune::testing::{Judge, Net, noise, typed, wave};
    use crate::graph::probe::{ProbeError, TimeRatio};
    use crate::graph::tensor::Tensor;
    use crate::graph::{Name, Op};

    /// Residual blocks whose branches are so strong, between a first and a last product.
    fn residual(strengths: &[f32]) -> Graph {
        let (mut net, x) = Net::of_rows(3);
        let mut stream = net.dense(&x, "first", wave(&[3, 6], 0.1));
        for (idx, &strength) in strengths.iter().enumerate() {
            let up = wave(&[6, 5], idx as f32);
            let down = wave(&[5, 6], idx as f32 + 0.5).to_vec::<f32>().expect("floats");
            let down = Tensor::new(&[5, 6], down.iter().map(|x| x * strength).collect()).expect("as many");
            let hidden = net.dense(&stream, &format!("{idx}.up"), up);
            let hidden = net.0.node(Op::Relu, &[&hidden]);
            let weight = net.0.initializer(&format!("{idx}.down"), down);
            let branch = net.0.node(Op::MatMul, &[&hidden, &weight]);
            stream = net.0.node(Op::Add, &[&stream, &branch]);
        }
        let y = net.dense(&stream, "last", wave(&[6, 2], 0.7));
        net.finish(&y)
    }

    fn run(graph: &Graph, amount: LayerAmount) -> Result<LayersOut, PruneError> {
        let mut n_told = 0;
        let out = leave_out(graph, &typed(graph), amount, Harm::Noise, &mut Judge(graph.clone()), &mut |done, of| {
            assert!(done < of);
            n_told += 1;
        });
        out.inspect(|out| assert_eq!(n_told, (0..out.gone.len()).map(|n_gone| out.harm.len() - n_gone).sum::<usize>()))
    }

    fn weights(graph: &Graph) -> Vec<&str> {
        graph.initializers.keys().map(Name::as_str).filter(|name| name.ends_with(".down")).collect()
    }

    #[test]
    fn the_weakest_block_goes_first() {
        let graph = residual(&[0.5, 0.01, 1.0, 0.1]);
        let out = run(&graph, LayerAmount::Count(2)).expect("two can go");
        assert_eq!(weights(&out.graph), ["0.down", "2.down"]);
        assert_eq!((out.gone.len(), out.harm.len(), out.refused.len()), (2, 4, 0));
        // Both are measured, the second without the first.
        assert_eq!(out.gone[0], out.harm[1]);
        assert!((out.gone[1].quality.noise - noise(&graph, &out.graph)).abs() < 1e-12);
        assert!(out.gone[1].quality.noise >= out.gone[0].quality.noise);
        assert_eq!(run(&graph, LayerAmount::Share(0.3)).expect("two can go").graph, out.graph);
        assert_eq!(run(&graph, LayerAmount::Share(0.0)).expect("none").graph, graph);
        assert_eq!(weights(&run(&graph, LayerAmount::Share(1.0)).expect("all can go").graph), [""; 0]);
    }

    /// Accuracy falls with the blocks that are kept, whatever the noise.
    struct Labels(Judge);

    impl Score for Labels {
        fn time_ratio(&mut self, one: &Graph, other: &Graph) -> Result<TimeRatio, ProbeError> {
            self.0.time_ratio(one, other)
        }

        fn quality(&mut self, candidate: &Graph) -> Result<Quality, ProbeError> {
            let has_first = candidate.initializers.contains_key("0.down");
            let accuracy = Some(if has_first { 0.5 } else { 0.75 });
            Ok(Quality { accuracy, ..self.0.quality(candidate)? })
        }

        fn n_bytes(&mut self, candidate: &Graph) -> Result<u64, ProbeError> {
            self.0.n_bytes(candidate)
        }
    }

    #[test]
    fn accuracy_comes_before_noise() {
        let graph = residual(&[0.5, 0.01, 1.0]);
        let mut score = Labels(Judge(graph.clone()));
        let amount = LayerAmount::Count(2);
        let out = leave_out(&graph, &typed(&graph), amount, Harm::Accuracy, &mut score, &mut |_, _| ()).expect("two");
        assert_eq!(weights(&out.graph), ["2.down"], "the first for its accuracy, then the weakest");
    }

    #[test]
    fn refusals_say_why() {
        let refused = |graph: &Graph, amount| run(graph, amount).map(|out| out.gone).expect_err("refused").to_string();
        let graph = residual(&[0.5, 0.1]);
        assert_eq!(
            refused(&graph, LayerAmount::Count(3)),
            "3 blocks cannot be taken out: 2 is the most (hint: ask for fewer)"
        );
        assert_eq!(refused(&graph, LayerAmount::Share(1.5)), "`share` is 1.5; give a share from 0 to 1");
        let none =
            "nothing can be pruned: the network has no residual blocks, encoder layers or stacked recurrent layers";
        assert_eq!(refused(&residual(&[]), LayerAmount::Share(0.5)), none);
        let no_labels = leave_out(
            &graph,
            &typed(&graph),
            LayerAmount::Count(1),
            Harm::Accuracy,
            &mut Judge(graph.clone()),
            &mut |_, _| (),
        );
        let error = no_labels.map(|out| out.gone).expect_err("refused").to_string();
        assert!(error.starts_with("`harm` is told by labelled samples"), "{error}");
    }

    #[test]
    fn a_block_that_is_read_inside_stays() {
        let (mut net, x) = Net::of_rows(3);
        let stream = net.dense(&x, "first", wave(&[3, 6], 0.1));
        let hidden = net.dense(&stream, "up", wave(&[6, 6], 0.4));
        let branch = net.dense(&hidden, "down", wave(&[6, 6], 0.9));
        let sum = net.0.node(Op::Add, &[&stream, &branch]);
        let y = net.0.node(Op::Mul, &[&sum, &hidden]);
        let graph = net.finish(&y);
        let error = run(&graph, LayerAmount::Count(1)).map(|out| out.gone).expect_err("refused").to_string();
        assert!(error.starts_with("nothing can be pruned: no block can be left out ("), "{error}");
    }
}
