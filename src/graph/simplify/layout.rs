//! Transposes that a whole part of the network can do without: its nodes work as well on the axes in the order from before.
//!
//! From a Transpose on, the nodes that do not care about the order of axes make a part. Computed in the other order, it
//! needs no Transpose at its inputs that have one, and lets those after it vanish that undo the order; it needs one where a
//! value enters or leaves it otherwise. The part is changed only where there are fewer Transposes afterwards, so that this
//! ends; nodes that do not help are left out of it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::edits::Edits;
use super::transpose::{composed, inverse, is_identity, order, positive, reduction, signed, transpose, transposed};
use super::view::View;
use crate::graph::op::{self, Op};
use crate::graph::patch::Patch;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Name, Node};

/// The most nodes of a part.
const MOST_NODES: usize = 32;

/// The most elements of a constant that is kept in two orders.
const MOST_COPIED: usize = 1 << 10;

/// Finds the part that begins behind a Transpose and lets it work in the order of axes from before.
pub(super) fn at(view: &View<'_>, node_idx: usize, edits: &mut Edits) {
    let Some(node) = view.node(node_idx) else { return };
    let Some(order) = order(view, node).filter(|order| !is_identity(order)) else { return };
    let Some(output) = node.output(0) else { return };
    let layout = Layout { view, order };
    let part = layout.part(output);
    if part.is_empty() || layout.gain(&part) <= 0 {
        return;
    }
    let touched: BTreeSet<usize> =
        part.iter().copied().chain(layout.around(&part)).filter(|&idx| idx != node_idx).collect();
    let nodes: Vec<usize> = [node_idx].into_iter().chain(touched).collect();
    if let Some(patch) = edits.take(&nodes) {
        layout.change(&part, patch);
    }
}

/// An order of axes: a value `v` in the part is the Transpose by it of what the part computes instead.
struct Layout<'a> {
    view: &'a View<'a>,
    order: Vec<usize>,
}

/// What becomes of a value that enters a part.
enum Entry {
    /// It has no axes that matter.
    AsItIs,
    /// A constant, which is kept in the other order.
    Constant,
    /// What a Transpose by the same order reads.
    Before(Name),
    /// A Transpose is needed.
    Moved,
}

impl Layout<'_> {
    /// The nodes nearest to a value that can work in the other order, those that help.
    fn part(&self, start: &Name) -> BTreeSet<usize> {
        let mut part = BTreeSet::new();
        let mut waiting: VecDeque<usize> = self.readers(start).collect();
        while let Some(node_idx) = waiting.pop_front() {
            let Some(node) = self.view.node(node_idx) else { continue };
            if part.len() >= MOST_NODES || part.contains(&node_idx) || self.pushed(node).is_none() {
                continue;
            }
            part.insert(node_idx);
            waiting.extend(node.outputs.iter().flatten().flat_map(|name| self.readers(name)));
            waiting.extend(laid_out(node).filter_map(|name| self.view.uses.producer_idx(name)));
        }
        // one Transpose alone could at best be had elsewhere
        if self.around(&part).into_iter().collect::<BTreeSet<usize>>().len() < 2 {
            BTreeSet::new()
        } else {
            self.reduced(part)
        }
    }

    fn readers(&self, name: &str) -> impl Iterator<Item = usize> {
        self.view.uses.readers(name).iter().map(|reader| reader.node_idx)
    }

    /// The part without the nodes that do not help.
    fn reduced(&self, mut part: BTreeSet<usize>) -> BTreeSet<usize> {
        let mut best = self.gain(&part);
        loop {
            let before = part.len();
            for node_idx in part.clone().into_iter().rev() {
                part.remove(&node_idx);
                let gain = self.gain(&part);
                if gain >= best {
                    best = gain;
                } else {
                    part.insert(node_idx);
                }
            }
            if part.len() == before {
                return part;
            }
        }
    }

    /// How many Transposes fewer there are when the part is changed; the least number there is where a Transpose from one
    /// value of the part to another would have to read both orders.
    fn gain(&self, part: &BTreeSet<usize>) -> i64 {
        let mut gain = 0;
        for name in self.entering(part) {
            let inside = |name: &Name| {
                !self.view.uses.is_output(name) && self.readers(name).all(|node_idx| part.contains(&node_idx))
            };
            gain += match self.entry(name, inside(name)) {
                Entry::AsItIs | Entry::Constant => 0,
                Entry::Before(input) if self.view.uses.producer_idx(&input).is_some_and(|idx| part.contains(&idx)) => {
                    return i64::MIN;
                }
                Entry::Before(_) => i64::from(inside(name)),
                Entry::Moved => -1,
            };
        }
        for name in self.leaving(part) {
            let (undone, merged) = self.transposes_after(name);
            let n_outside = self.readers(name).filter(|node_idx| !part.contains(node_idx)).count();
            let needed = self.view.uses.is_output(name) || n_outside > undone.len() + merged.len();
            gain += i64::try_from(undone.len()).unwrap_or(0) - i64::from(needed);
        }
        gain
    }

    /// The values that the part reads and does not compute.
    fn entering(&self, part: &BTreeSet<usize>) -> BTreeSet<&Name> {
        let nodes = part.iter().filter_map(|&node_idx| self.view.node(node_idx));
        let is_outside = |name: &&Name| self.view.uses.producer_idx(name).is_none_or(|idx| !part.contains(&idx));
        nodes.flat_map(laid_out).filter(is_outside).collect()
    }

    /// The values that the part computes and something else reads.
    fn leaving(&self, part: &BTreeSet<usize>) -> Vec<&Name> {
        let nodes = part.iter().filter_map(|&node_idx| self.view.node(node_idx));
        let is_read = |name: &&Name| {
            self.view.uses.is_output(name) || self.readers(name).any(|node_idx| !part.contains(&node_idx))
        };
        nodes.flat_map(|node| node.outputs.iter().flatten()).filter(is_read).collect()
    }

    /// The Transposes that read a value: those that undo the order, and the others with theirs from before it.
    fn transposes_after(&self, name: &Name) -> (Vec<usize>, Vec<(usize, Vec<usize>)>) {
        let mut found = (Vec::new(), Vec::new());
        for node_idx in self.readers(name) {
            let after = self.view.node(node_idx).and_then(|node| order(self.view, node));
            match after.and_then(|after| composed(&self.order, &after)) {
                Some(both) if is_identity(&both) => found.0.push(node_idx),
                Some(both) => found.1.push((node_idx, both)),
                None => {}
            }
        }
        found
    }

    /// The Transposes before and after the part that change with it.
    fn around(&self, part: &BTreeSet<usize>) -> Vec<usize> {
        let after = self.leaving(part).into_iter().flat_map(|name| {
            let (undone, merged) = self.transposes_after(name);
            undone.into_iter().chain(merged.into_iter().map(|(node_idx, _)| node_idx))
        });
        let before = self.entering(part).into_iter().filter_map(|name| self.view.uses.producer_idx(name));
        let is_transpose = |&idx: &usize| self.view.node(idx).is_some_and(|node| matches!(node.op, Op::Transpose(_)));
        after.chain(before.filter(is_transpose)).collect()
    }

    fn entry(&self, name: &Name, only_here: bool) -> Entry {
        if self.view.rank(name) == Some(0) {
            return Entry::AsItIs;
        }
        if let Some(tensor) = self.view.constant(name) {
            if tensor.len() == 1 && tensor.rank() <= self.order.len() {
                return Entry::AsItIs;
            }
            if only_here || tensor.len() <= MOST_COPIED || tensor.rank() < self.order.len() {
                return Entry::Constant;
            }
        }
        let before = self.view.uses.producer(name).filter(|node| order(self.view, node).as_ref() == Some(&self.order));
        match before.and_then(|node| node.input(0)) {
            Some(input) => Entry::Before(input.clone()),
            None => Entry::Moved,
        }
    }

    /// A constant in the order from before, with all dimensions that broadcasting gives it.
    fn moved(&self, tensor: &Tensor) -> Option<Tensor> {
        let n_missing = self.order.len().checked_sub(tensor.rank())?;
        let shape: Vec<usize> = std::iter::repeat_n(1, n_missing).chain(tensor.shape().iter().copied()).collect();
        transposed(&tensor.reshaped(&shape).ok()?, &inverse(&self.order))
    }

    fn change(&self, part: &BTreeSet<usize>, patch: &mut Patch) {
        let mut names: HashMap<&Name, Name> = HashMap::new();
        let mut before: HashMap<usize, Vec<Node>> = HashMap::new();
        for name in self.entering(part) {
            let readers: Vec<usize> = self.readers(name).filter(|node_idx| part.contains(node_idx)).collect();
            let outside = self.view.uses.is_output(name) || readers.len() < self.readers(name).count();
            let constant = || self.view.constant(name).and_then(|tensor| self.moved(tensor));
            let moved = match (self.entry(name, !outside), constant()) {
                (Entry::AsItIs, _) => name.clone(),
                (Entry::Constant, Some(tensor)) => patch.add_initializer(name, tensor),
                (Entry::Before(input), _) => input,
                (Entry::Moved | Entry::Constant, _) => {
                    let moved = patch.fresh(name);
                    if let Some(&first) = readers.first() {
                        before.entry(first).or_default().push(transpose(&inverse(&self.order), name, &moved));
                    }
                    moved
                }
            };
            names.insert(name, moved);
        }
        let nodes: Vec<(usize, &Node)> = part.iter().filter_map(|&idx| Some((idx, self.view.node(idx)?))).collect();
        for output in nodes.iter().flat_map(|(_, node)| node.outputs.iter().flatten()) {
            names.insert(output, patch.fresh(output));
        }
        let leaving: BTreeSet<&Name> = self.leaving(part).into_iter().collect();
        for (node_idx, node) in nodes {
            let mut instead = before.remove(&node_idx).unwrap_or_default();
            instead.extend(self.renewed(node, &names, patch));
            for name in node.outputs.iter().flatten().filter(|name| leaving.contains(name)) {
                let Some(moved) = names.get(name) else { continue };
                instead.extend(self.after(part, name, moved, patch));
            }
            patch.replace(node_idx, instead);
        }
    }

    /// The node of the part that works in the other order.
    fn renewed(&self, node: &Node, names: &HashMap<&Name, Name>, patch: &mut Patch) -> Option<Node> {
        let Pushed { op, constants } = self.pushed(node)?;
        let laid_out = laid_out_positions(node);
        let renamed = |name: &Name| names.get(name).unwrap_or(name).clone();
        let mut inputs: Vec<Option<Name>> = node.inputs.clone();
        for (position, input) in inputs.iter_mut().enumerate() {
            if laid_out.contains(&position) {
                *input = input.as_ref().map(renamed);
            }
        }
        for (position, elements) in constants {
            let base = node.input(position).map_or("axes", |name| name.as_str());
            let name = patch.add_initializer(base, Tensor::vector(elements));
            inputs.resize(inputs.len().max(position + 1), None);
            if let Some(input) = inputs.get_mut(position) {
                *input = Some(name);
            }
        }
        let outputs = node.outputs.iter().map(|name| name.as_ref().map(renamed)).collect();
        Some(Node { op, inputs, outputs, ..node.clone() })
    }

    /// Lets what follows a value of the part read it in the other order; the Transpose that the rest needs.
    fn after(&self, part: &BTreeSet<usize>, name: &Name, moved: &Name, patch: &mut Patch) -> Option<Node> {
        let (undone, merged) = self.transposes_after(name);
        let n_outside = self.readers(name).filter(|node_idx| !part.contains(node_idx)).count();
        let needed = self.view.uses.is_output(name) || n_outside > undone.len() + merged.len();
        for node_idx in undone {
            let Some(output) = self.view.node(node_idx).and_then(|node| node.output(0)) else { continue };
            patch.remove(node_idx);
            patch.replace_uses(output, moved);
        }
        for (node_idx, both) in merged {
            let Some(node) = self.view.node(node_idx) else { continue };
            let op = Op::Transpose(op::Transpose { perm: signed(&both) });
            patch.replace(node_idx, vec![Node { op, inputs: vec![Some(moved.clone())], ..node.clone() }]);
        }
        needed.then(|| transpose(&self.order, moved, name))
    }

    /// What a node is in the other order; none where it cannot be computed there.
    fn pushed(&self, node: &Node) -> Option<Pushed> {
        let rank = self.order.len();
        let has_rank = |name: &Name| self.view.rank(name) == Some(rank);
        let fits = |name: &Name| {
            let rank_of = self.view.rank(name);
            let is_constant = self.view.constant(name).is_some() && rank_of.is_some_and(|given| given <= rank);
            has_rank(name) || rank_of == Some(0) || is_constant
        };
        if !laid_out(node).all(fits) || !node.outputs.iter().flatten().all(has_rank) {
            return None;
        }
        let axis = |axis: i64| Some(signed(&[*self.order.get(*positive(&[axis], rank)?.first()?)?]).remove(0));
        let axes = |axes: &[i64]| {
            let moved: Option<Vec<i64>> = axes.iter().map(|&given| axis(given)).collect();
            moved
        };
        let op_only = |op: Op| Some(Pushed { op, constants: Vec::new() });
        let softmax = |axis_of: i64| {
            let moved = axis(axis_of)?;
            // before opset 13 it means all axes from there on, and another axis than the last takes Transposes again
            let any = self.view.options.opset.is_none_or(|opset| opset >= 13);
            (any || usize::try_from(moved).ok()? + 1 == rank).then_some(op::Softmax { axis: moved })
        };
        match &node.op {
            op if is_elementwise(op) => op_only(op.clone()),
            Op::Clip => op_only(Op::Clip),
            Op::Concat(concat) => op_only(Op::Concat(op::Concat { axis: axis(concat.axis)? })),
            Op::Split(split) => op_only(Op::Split(op::Split { axis: axis(split.axis)?, ..split.clone() })),
            Op::Softmax(of) => op_only(Op::Softmax(softmax(of.axis)?)),
            Op::LogSoftmax(of) => op_only(Op::LogSoftmax(softmax(of.axis)?)),
            Op::LpNormalization(of) => {
                op_only(Op::LpNormalization(op::LpNormalization { axis: axis(of.axis)?, ..of.clone() }))
            }
            Op::QuantizeLinear(of) if of.block_size == 0 => {
                let axis = if self.is_single(node, 1) { of.axis } else { axis(of.axis)? };
                op_only(Op::QuantizeLinear(op::QuantizeLinear { axis, ..of.clone() }))
            }
            Op::DequantizeLinear(of) if of.block_size == 0 => {
                let axis = if self.is_single(node, 1) { of.axis } else { axis(of.axis)? };
                op_only(Op::DequantizeLinear(op::DequantizeLinear { axis, ..of.clone() }))
            }
            Op::Pad(_) => {
                let pads = self.view.integers(node.input(1)?)?;
                if node.input(3).is_some() {
                    let moved = axes(&self.view.integers(node.input(3)?)?)?;
                    return Some(Pushed { op: node.op.clone(), constants: vec![(3, moved)] });
                }
                let back = inverse(&self.order);
                let side = |start: usize| back.iter().map(move |&axis| start + axis);
                let moved = side(0).chain(side(rank)).map(|idx| pads.get(idx).copied()).collect::<Option<_>>()?;
                Some(Pushed { op: node.op.clone(), constants: vec![(1, moved)] })
            }
            // Its lists are of one type, and the axes are written as i64.
            Op::Slice if self.view.dtype(node.input(1)?)? != DType::I64 => None,
            Op::Slice => {
                let n_axes = self.view.integers(node.input(1)?)?.len();
                let given = match node.input(3) {
                    Some(name) => self.view.integers(name)?,
                    None => signed(&(0..n_axes).collect::<Vec<_>>()),
                };
                Some(Pushed { op: Op::Slice, constants: vec![(3, axes(&given)?)] })
            }
            op => {
                let reduce = reduction(op).filter(|reduce| reduce.keepdims)?;
                let Some(name) = node.input(1) else {
                    return (!reduce.noop_with_empty_axes).then(|| op_only(op.clone()))?;
                };
                let given = self.view.integers(name).filter(|given| !given.is_empty())?;
                Some(Pushed { op: op.clone(), constants: vec![(1, axes(&given)?)] })
            }
        }
    }

    /// Whether an input has one element.
    fn is_single(&self, node: &Node, position: usize) -> bool {
        let shape = node.input(position).and_then(|name| self.view.types.known_shape(name));
        shape.is_some_and(|shape| shape.iter().all(|&size| size == 1))
    }
}

/// A node in another order of axes: its operator, and the constant inputs that change.
struct Pushed {
    op: Op,
    constants: Vec<(usize, Vec<i64>)>,
}

/// The inputs whose axes are those of the output.
fn laid_out(node: &Node) -> impl Iterator<Item = &Name> {
    laid_out_positions(node).into_iter().filter_map(|position| node.input(position))
}

fn laid_out_positions(node: &Node) -> Vec<usize> {
    if is_broadcasting(&node.op) || matches!(node.op, Op::Concat(_)) {
        return (0..node.inputs.len()).collect();
    }
    vec![0]
}

/// Whether an operator computes each element of its output from those in the same place of its inputs.
fn is_elementwise(op: &Op) -> bool {
    let is_unary = matches!(
        op,
        Op::Abs
            | Op::Acos
            | Op::Acosh
            | Op::Asin
            | Op::Asinh
            | Op::Atan
            | Op::Atanh
            | Op::Cast(_)
            | Op::Ceil
            | Op::Celu(_)
            | Op::Cos
            | Op::Cosh
            | Op::Elu(_)
            | Op::Erf
            | Op::Exp
            | Op::Floor
            | Op::Gelu(_)
            | Op::HardSigmoid(_)
            | Op::HardSwish
            | Op::Identity
            | Op::IsInf(_)
            | Op::IsNaN
            | Op::LeakyRelu(_)
            | Op::Log
            | Op::Mish
            | Op::Neg
            | Op::Not
            | Op::Reciprocal
            | Op::Relu
            | Op::Round
            | Op::Selu(_)
            | Op::Sigmoid
            | Op::Sign
            | Op::Sin
            | Op::Sinh
            | Op::Softplus
            | Op::Softsign
            | Op::Sqrt
            | Op::Swish(_)
            | Op::Tan
            | Op::Tanh
            | Op::ThresholdedRelu(_)
    );
    is_unary || is_broadcasting(op)
}

/// Whether an operator takes any of its inputs for all of the output's shape.
fn is_broadcasting(op: &Op) -> bool {
    matches!(
        op,
        Op::Add
            | Op::And
            | Op::Div
            | Op::Equal
            | Op::Greater
            | Op::GreaterOrEqual
            | Op::Less
            | Op::LessOrEqual
            | Op::Max
            | Op::Mean
            | Op::Min
            | Op::Mod(_)
            | Op::Mul
            | Op::Or
            | Op::PRelu
            | Op::Pow
            | Op::Sub
            | Op::Sum
            | Op::Where
            | Op::Xor
    )
}
