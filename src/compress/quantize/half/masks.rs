//! Constants that stand for minus infinity: what attention adds to the scores that it masks.

use std::collections::{HashMap, HashSet};

use super::HalfType;
use super::numbers::{Loss, loss, rounded};
use crate::graph::op::Op;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name};

/// The masks of a graph.
#[derive(Debug, Default)]
pub(super) struct Masks {
    /// For each constant the number that lesser ones are raised to.
    pub(super) least: HashMap<Name, f32>,
    /// The values on the way from there to `Softmax`, whose magnitude says nothing.
    pub(super) values: HashSet<Name>,
}

/// The constants that are too low for the narrow type and only ever end in a `Softmax`, where any number that low gives 0:
/// through `Where` or `Max` they can be the lowest number; through `Add` they are half of that, so that the sum with a
/// score is still finite and a row that is masked throughout does not become NaN.
pub(super) fn find(graph: &Graph, uses: &Uses<'_>, constants: &[(Name, Tensor)], to: HalfType) -> Masks {
    let mut masks = Masks::default();
    for (name, tensor) in constants {
        if !is_candidate(tensor, to) {
            continue;
        }
        let mut walk = Walk { graph, uses, values: HashSet::new(), sums: false };
        if !uses.readers(name).is_empty() && walk.ends_in_softmax(name, false) {
            let least = if walk.sums { -to.greatest() / 2.0 } else { -to.greatest() };
            masks.least.insert(name.clone(), least);
            masks.values.extend(walk.values);
        }
    }
    masks
}

fn is_candidate(tensor: &Tensor, to: HalfType) -> bool {
    let Ok(values) = tensor.as_slice::<f32>() else { return false };
    let overflows = |x: &&f32| **x > 0.0 && x.is_finite() && rounded(**x, to).is_infinite();
    matches!(loss(tensor, to), Some(Loss::Overflows(_))) && !values.iter().any(|x| overflows(&x))
}

struct Walk<'a> {
    graph: &'a Graph,
    uses: &'a Uses<'a>,
    values: HashSet<Name>,
    sums: bool,
}

impl Walk<'_> {
    /// Whether everything that reads the value hands it on to a `Softmax`; `joined`: the mask is in the scores already.
    fn ends_in_softmax(&mut self, name: &Name, joined: bool) -> bool {
        if self.uses.is_output(name) {
            return false;
        }
        if !self.values.insert(name.clone()) {
            return true;
        }
        let readers = self.uses.readers(name);
        !readers.is_empty()
            && readers.iter().all(|reader| {
                let Some(position) = reader.position else { return false };
                let Some(node) = self.graph.nodes.get(reader.node_idx) else { return false };
                let joined = match (&node.op, position) {
                    (Op::Softmax(_) | Op::LogSoftmax(_), _) => return joined,
                    (Op::Attention(_), 3) => {
                        self.sums = true;
                        return true;
                    }
                    (Op::Add, _) => {
                        self.sums = true;
                        true
                    }
                    (Op::Max, _) | (Op::Where, 1 | 2) => true,
                    (Op::Mul, _) if !joined => false,
                    (op, 0) if moves(op) => joined,
                    (Op::Concat(_), _) => joined,
                    _ => return false,
                };
                node.output(0).is_some_and(|output| self.ends_in_softmax(output, joined))
            })
    }
}

fn moves(op: &Op) -> bool {
    let layout = matches!(op, Op::Unsqueeze | Op::Squeeze | Op::Reshape(_) | Op::Transpose(_) | Op::Flatten(_));
    let parts = matches!(op, Op::Slice | Op::Gather(_) | Op::Expand | Op::Tile | Op::Trilu(_));
    layout
        || parts
        || matches!(op, Op::Identity | Op::Dropout(_))
        || matches!(op, Op::Cast(cast) if cast.to == DType::F32)
}
