//! Products with a constant weight, and which channels its numbers belong to.

use std::collections::BTreeMap;

use super::edits::{constant, is_constant};
use crate::compress::observe::offset::{Offset, offset};
use crate::graph::axes::{Port, Slot, axes};
use crate::graph::shape::Types;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node, Op};

/// A Conv, Gemm or MatMul of an activation with a constant weight.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) node_idx: usize,
    /// The constant, and which input of the node it is.
    pub(super) name: Name,
    pub(super) weight: usize,
    /// Which input the activation is, and the axis of it that is summed over.
    pub(super) activation: usize,
    pub(super) input_axis: usize,
    pub(super) n_inputs: usize,
    /// The axis of the output along which channels are made.
    pub(super) output_axis: usize,
    pub(super) n_outputs: usize,
    shape: Vec<usize>,
    made_along: usize,
    summed_along: usize,
    n_groups: usize,
    /// What the products are multiplied by.
    pub(super) alpha: f64,
}

impl Product {
    /// What a node is, if it is one.
    fn at(graph: &Graph, types: &Types, node_idx: usize) -> Option<Product> {
        let node = &graph.nodes[node_idx];
        let n_groups = match &node.op {
            Op::Conv(op) => usize::try_from(op.group).ok().filter(|&group| group > 0)?,
            Op::Gemm(_) | Op::MatMul => 1,
            _ => return None,
        };
        let facts = axes(node, types);
        let weight = facts.weights.iter().find(|weight| is_constant(graph, node, weight.position))?;
        let activation = usize::from(weight.position == 0);
        if is_constant(graph, node, activation) {
            return None;
        }
        let name = node.input(weight.position)?;
        let shape = constant(graph, name)?.shape().to_vec();
        let (made_along, summed_along) = (weight.output_axis, weight.input_axis?);
        let own = |axis| Slot { port: Port::Input(weight.position), axis };
        let made = facts.ties.iter().find(|tie| tie.a == own(made_along) && tie.b.port == Port::Output(0));
        let input_axis = match (&node.op, &facts.contracted[..]) {
            (Op::Conv(_), _) => 1,
            (_, [(a, b)]) => [a, b].into_iter().find(|slot| slot.port == Port::Input(activation))?.axis,
            _ => return None,
        };
        let n_inputs = shape.get(summed_along)?.checked_mul(n_groups)?;
        let n_outputs = *shape.get(made_along)?;
        if n_inputs == 0 || n_outputs == 0 || n_outputs % n_groups != 0 {
            return None;
        }
        Some(Product {
            node_idx,
            name: name.clone(),
            weight: weight.position,
            activation,
            input_axis,
            n_inputs,
            output_axis: made?.b.axis,
            n_outputs,
            shape,
            made_along,
            summed_along,
            n_groups,
            alpha: if let Op::Gemm(op) = &node.op { f64::from(op.alpha) } else { 1.0 },
        })
    }

    /// How many channels each channel that it makes is made of.
    pub(super) fn n_summed(&self) -> usize {
        self.n_inputs / self.n_groups
    }

    /// The channel that it reads at this place among those which it makes this channel of.
    pub(super) fn read(&self, made: usize, place: usize) -> usize {
        made / (self.n_outputs / self.n_groups) * self.n_summed() + place
    }

    /// Calls `each` with the position of every number of the weight, the channel that it makes and the one that it reads.
    pub(super) fn for_each(&self, mut each: impl FnMut(usize, usize, usize)) {
        let n_after = |axis: usize| self.shape[axis + 1..].iter().product::<usize>();
        let (after_made, after_summed) = (n_after(self.made_along), n_after(self.summed_along));
        let n_summed = self.n_summed();
        for position in 0..self.shape.iter().product() {
            let made = position / after_made % self.n_outputs;
            each(position, made, self.read(made, position / after_summed % n_summed));
        }
    }

    /// The axis of the weight along which channels are made, from the last.
    pub(super) fn made_from_last(&self) -> usize {
        self.shape.len() - 1 - self.made_along
    }

    /// The sizes of the kernel of a convolution.
    pub(super) fn kernel(&self) -> &[usize] {
        &self.shape[2.min(self.shape.len())..]
    }

    /// Where a bias is or could be; in words why nowhere.
    pub(super) fn offset(&self, graph: &Graph, types: &Types, uses: &Uses<'_>) -> Result<Offset, String> {
        offset(graph, types, uses, self.node_idx, self.output_axis, self.n_outputs)
    }
}

/// The products of a graph, by node.
pub(super) fn products(graph: &Graph, types: &Types) -> BTreeMap<usize, Product> {
    (0..graph.nodes.len()).filter_map(|node_idx| Some((node_idx, Product::at(graph, types, node_idx)?))).collect()
}

/// In words why the weight or the bias of a product cannot be changed, if they cannot.
pub(super) fn fixed(graph: &Graph, uses: &Uses<'_>, product: &Product) -> Option<String> {
    let node: &Node = &graph.nodes[product.node_idx];
    if uses.readers(&product.name).len() != 1 || uses.is_output(&product.name) {
        return Some(format!("its weight `{}` is read elsewhere, too", product.name));
    }
    let has_bias = !matches!(node.op, Op::MatMul) && node.input(2).is_some();
    (has_bias && !is_constant(graph, node, 2)).then(|| "its bias is no constant".to_string())
}
