//! How the axes of a node's inputs and outputs hang together, and where its weight, bias and channel axes are.
//!
//! Two slices are tied where one cannot be taken out without the other. What an operator's definition does not allow to be
//! taken out is pinned, with the reason. A dimension of size one is broadcast and says nothing of the others.

mod attention;
mod elementwise;
mod index;
mod layout;
mod norm;
mod product;
mod recurrent;
mod rules;
#[cfg(test)]
mod tests;

pub(super) use layout::from_start;

use super::shape::Types;
use super::{Dim, Name, Node};

/// Which value of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// The input at this position.
    Input(usize),
    /// The output at this position.
    Output(usize),
    /// No value: something that slices of several values belong to, a group of channels or a head. See
    /// [`Axes::bundles`].
    Bundle(usize),
}

/// An axis of one of a node's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// The value.
    pub port: Port,
    /// The axis.
    pub axis: usize,
}

/// An axis of an input.
pub(super) fn input(position: usize, axis: usize) -> Slot {
    Slot { port: Port::Input(position), axis }
}

/// An axis of an output.
pub(super) fn output(position: usize, axis: usize) -> Slot {
    Slot { port: Port::Output(position), axis }
}

/// Which indices of an axis `b` belong to index `i` of an axis `a`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Map {
    /// `(o · n + i) · inner + r` for all `o < outer` and `r < inner`, `n` the size of `a`. Everything one: the same index.
    Blocks {
        /// how often the whole of `a` is repeated
        outer: usize,
        /// how many neighbours belong together
        inner: usize,
    },
    /// `from + k` belongs to `to + k` for all `k < len`.
    Range {
        /// the first index of `a`
        from: usize,
        /// the first index of `b`
        to: usize,
        /// how many
        len: usize,
    },
    /// Every `k` for which `picks[k] = i`.
    Picks(Vec<usize>),
}

impl Map {
    /// The same index.
    pub const SAME: Map = Map::Blocks { outer: 1, inner: 1 };

    /// Whether it is [`Map::SAME`].
    pub fn is_same(&self) -> bool {
        *self == Map::SAME
    }

    /// Calls `pair` with every index of `a` (of size `n`) and an index of `b` that belongs to it.
    pub fn for_each(&self, n: usize, mut pair: impl FnMut(usize, usize)) {
        match self {
            Map::Blocks { outer, inner } if n > 0 && *inner > 0 => {
                for o in 0..*outer {
                    for i in 0..n {
                        (0..*inner).for_each(|r| pair(i, (o * n + i) * inner + r));
                    }
                }
            }
            Map::Blocks { .. } => {}
            Map::Range { from, to, len } => (0..*len).for_each(|k| pair(from + k, to + k)),
            Map::Picks(picks) => picks.iter().enumerate().for_each(|(k, &i)| pair(i, k)),
        }
    }
}

/// Slices of two axes that go together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tie {
    /// One axis.
    pub a: Slot,
    /// The other.
    pub b: Slot,
    /// Which indices.
    pub map: Map,
}

/// One axis that is the same as several, the last varying quickest: slices of the whole can be taken out along one of its
/// factors, and of them only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fold {
    /// The axis whose size is the product.
    pub whole: Slot,
    /// The axes larger than one that it consists of, with their sizes.
    pub factors: Vec<(Slot, usize)>,
}

/// A constant that makes channels of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Weight {
    /// Which input it is.
    pub position: usize,
    /// The axis of the channels that are made: Conv 0, MatMul the last.
    pub output_axis: usize,
    /// The axis that is summed over; none for an embedding.
    pub input_axis: Option<usize>,
    /// Which input the bias is.
    pub bias: Option<usize>,
}

/// What one node says of its axes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axes {
    /// The sizes of the bundles.
    pub bundles: Vec<usize>,
    /// What goes together.
    pub ties: Vec<Tie>,
    /// Axes that consist of others.
    pub folds: Vec<Fold>,
    /// Axes of which nothing can be taken out, and why.
    pub pinned: Vec<(Slot, &'static str)>,
    /// Axes that are summed over in a product, a pair each: where the effect of a slice ends.
    pub contracted: Vec<(Slot, Slot)>,
    /// Axes of inputs over which the node normalises or reduces: without a slice the others change.
    pub crossed: Vec<Slot>,
    /// The weights.
    pub weights: Vec<Weight>,
}

/// The facts of a node. `types` are those of its graph.
pub fn axes(node: &Node, types: &Types) -> Axes {
    let mut facts = Facts { node, types, axes: Axes::default() };
    rules::apply(&mut facts);
    facts.axes
}

/// An axis as ONNX counts it, from the back where it is negative; none where it is outside.
pub(crate) fn axis_from_start(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis.checked_add(i64::try_from(rank).ok()?)? } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// The axes of a node as they are collected.
struct Facts<'a> {
    node: &'a Node,
    types: &'a Types,
    axes: Axes,
}

impl<'a> Facts<'a> {
    fn name(&self, port: Port) -> Option<&'a Name> {
        match port {
            Port::Input(position) => self.node.input(position),
            Port::Output(position) => self.node.output(position),
            Port::Bundle(_) => None,
        }
    }

    /// The dimensions of a value; none where it is left out or their number is not known.
    fn dims(&self, port: Port) -> Option<&'a [Dim]> {
        self.types.tensor(self.name(port)?)?.shape.as_deref()
    }

    /// Whether it reads or makes a tensor of which not even the number of dimensions is known.
    fn has_unknown_rank(&self) -> bool {
        let inputs = (0..self.node.inputs.len()).map(Port::Input);
        let mut ports = inputs.chain((0..self.node.outputs.len()).map(Port::Output));
        ports.any(|port| self.name(port).is_some() && self.dims(port).is_none())
    }

    fn is_left_out(&self, port: Port) -> bool {
        !matches!(port, Port::Bundle(_)) && self.name(port).is_none()
    }

    fn rank(&self, port: Port) -> usize {
        self.dims(port).map_or(0, <[Dim]>::len)
    }

    fn dim(&self, slot: Slot) -> Option<&'a Dim> {
        self.dims(slot.port)?.get(slot.axis)
    }

    /// The size of an axis where it is known.
    fn size(&self, slot: Slot) -> Option<usize> {
        match slot.port {
            Port::Bundle(bundle_idx) => self.axes.bundles.get(bundle_idx).copied(),
            Port::Input(_) | Port::Output(_) => self.dim(slot)?.known(),
        }
    }

    /// The integers of a small constant input.
    fn integers(&self, position: usize) -> Option<Vec<i64>> {
        let value = self.types.value(self.node.input(position)?)?;
        value.elements()?.iter().map(super::shape::Element::known).collect()
    }

    /// An axis as ONNX counts it, from the back where it is negative.
    fn axis(&self, port: Port, axis: i64) -> Option<usize> {
        axis_from_start(axis, self.rank(port))
    }

    fn bundle(&mut self, size: usize) -> Slot {
        self.axes.bundles.push(size);
        Slot { port: Port::Bundle(self.axes.bundles.len() - 1), axis: 0 }
    }

    /// Ties two axes index by index, where both have the same size; where one has size one it is broadcast, and where
    /// they cannot be compared, neither may lose a slice.
    fn same(&mut self, a: Slot, b: Slot) {
        if self.is_left_out(a.port) || self.is_left_out(b.port) {
            return;
        }
        match (self.size(a), self.size(b)) {
            (Some(a_size), Some(b_size)) if a_size == b_size => {
                if a_size > 1 {
                    self.axes.ties.push(Tie { a, b, map: Map::SAME });
                }
            }
            (Some(1), _) | (_, Some(1)) | (None, None) => {}
            (Some(_), Some(_)) | (Some(_), None) | (None, Some(_)) => {
                self.pin(a, "it meets an axis of another or unknown size");
                self.pin(b, "it meets an axis of another or unknown size");
            }
        }
    }

    /// Ties two axes by a map, where it fits their sizes.
    fn tie(&mut self, a: Slot, b: Slot, map: Map) {
        let fits = match (&map, self.size(a), self.size(b)) {
            (Map::Blocks { outer, inner }, Some(n), Some(size)) => {
                n.checked_mul(*outer).and_then(|n| n.checked_mul(*inner)) == Some(size)
            }
            (Map::Range { from, to, len }, Some(a), Some(b)) => {
                let ends_in = |start: &usize, size| start.checked_add(*len).is_some_and(|end| end <= size);
                ends_in(from, a) && ends_in(to, b)
            }
            (Map::Picks(picks), Some(a), Some(b)) => picks.len() == b && picks.iter().all(|&pick| pick < a),
            (_, None, _) | (_, _, None) => false,
        };
        if fits {
            self.axes.ties.push(Tie { a, b, map });
        } else {
            self.pin(a, "the sizes around it are not known");
            self.pin(b, "the sizes around it are not known");
        }
    }

    fn pin(&mut self, slot: Slot, reason: &'static str) {
        if self.size(slot).is_some() {
            self.axes.pinned.push((slot, reason));
        }
    }

    fn pin_value(&mut self, port: Port, reason: &'static str) {
        (0..self.rank(port)).for_each(|axis| self.pin(Slot { port, axis }, reason));
    }

    /// Pins everything that the node reads and makes.
    fn pin_all(&mut self, reason: &'static str) {
        (0..self.node.inputs.len()).for_each(|position| self.pin_value(Port::Input(position), reason));
        (0..self.node.outputs.len()).for_each(|position| self.pin_value(Port::Output(position), reason));
    }

    fn cross(&mut self, slot: Slot) {
        if self.size(slot).is_some_and(|size| size > 1) {
            self.axes.crossed.push(slot);
        }
    }

    /// Two axes that a product sums over.
    fn contract(&mut self, a: Slot, b: Slot) {
        self.same(a, b);
        self.axes.contracted.push((a, b));
    }
}
