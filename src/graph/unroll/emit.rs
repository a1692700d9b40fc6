//! The nodes and constants of one operator that is written out.

use super::op::{self, Op};
use super::{Name, Node, Patch};
use crate::graph::tensor::Tensor;

/// Collects nodes, each named after the operator, the step and what it makes.
pub(super) struct Emit<'a> {
    patch: &'a mut Patch,
    base: String,
    prefix: String,
    nodes: Vec<Node>,
    /// Small constants, which stand once.
    constants: Vec<(Tensor, Name)>,
}

impl<'a> Emit<'a> {
    pub(super) fn new(patch: &'a mut Patch, base: &str) -> Emit<'a> {
        let (base, prefix) = (base.to_string(), base.to_string());
        Emit { patch, base, prefix, nodes: Vec::new(), constants: Vec::new() }
    }

    /// Names begin with this from now on.
    pub(super) fn begin(&mut self, prefix: &str) {
        self.prefix = prefix.to_string();
    }

    pub(super) fn finish(self) -> Vec<Node> {
        self.nodes
    }

    /// A constant of its own.
    pub(super) fn weight(&mut self, what: &str, tensor: Tensor) -> Name {
        self.patch.add_initializer(&format!("{}.{what}", self.prefix), tensor)
    }

    pub(super) fn scalar(&mut self, what: &str, number: f32) -> Name {
        self.shared(what, Tensor::scalar(number))
    }

    pub(super) fn integers(&mut self, what: &str, integers: &[i64]) -> Name {
        self.shared(what, Tensor::vector(integers.to_vec()))
    }

    fn shared(&mut self, what: &str, tensor: Tensor) -> Name {
        if let Some((_, name)) = self.constants.iter().find(|(other, _)| *other == tensor) {
            return name.clone();
        }
        let name = self.patch.add_initializer(&format!("{}.{what}", self.base), tensor.clone());
        self.constants.push((tensor, name.clone()));
        name
    }

    pub(super) fn node(&mut self, what: &str, op: Op, inputs: &[&Name]) -> Name {
        let output = self.patch.fresh(&format!("{}.{what}", self.prefix));
        self.push(op, inputs, vec![output.clone()]);
        output
    }

    fn push(&mut self, op: Op, inputs: &[&Name], outputs: Vec<Name>) {
        let name = outputs.first().map(ToString::to_string).unwrap_or_default();
        let inputs = inputs.iter().map(|&input| Some(input.clone())).collect();
        let node = Node::new(op, inputs, outputs.into_iter().map(Some).collect());
        self.nodes.push(Node { name, ..node });
    }

    pub(super) fn transpose(&mut self, what: &str, x: &Name, perm: &[i64]) -> Name {
        self.node(what, Op::Transpose(op::Transpose { perm: perm.to_vec() }), &[x])
    }

    /// Parts of these sizes along an axis.
    pub(super) fn split(&mut self, what: &str, x: &Name, axis: i64, sizes: &[usize]) -> Vec<Name> {
        if sizes.len() == 1 {
            return vec![x.clone()];
        }
        let signed: Vec<i64> = sizes.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
        let split = self.integers("split", &signed);
        let parts = sizes.iter().map(|_| self.patch.fresh(&format!("{}.{what}", self.prefix))).collect::<Vec<_>>();
        self.push(Op::Split(op::Split { axis, num_outputs: None }), &[x, &split], parts.clone());
        parts
    }

    /// The parts one after the other along an axis.
    pub(super) fn concat(&mut self, what: &str, parts: &[Name], axis: i64) -> Name {
        match parts {
            [one] => one.clone(),
            parts => self.node(what, Op::Concat(op::Concat { axis }), &parts.iter().collect::<Vec<_>>()),
        }
    }

    /// Lets a value stand for an output of the operator.
    pub(super) fn become_output(&mut self, value: &Name, output: &Name) {
        self.patch.replace_uses(output, value);
    }
}
