//! Nodes behind a network: what makes one number of its values.

use crate::graph::op::{Cast, Op, Reduce, Reshape, RoundMode, Transpose};
use crate::graph::patch::{Patch, PatchError, Place};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, Name, Node, TensorType, ValueInfo};

/// A network on its way to one with more nodes at its end. Values are named after the scope and their operator.
#[derive(Debug)]
pub(crate) struct Behind {
    patch: Patch,
    scope: String,
}

impl Behind {
    /// Nothing yet behind this network.
    pub(crate) fn new(graph: &Graph, scope: &str) -> Behind {
        Behind { patch: Patch::new(graph), scope: scope.to_string() }
    }

    /// What the names of the nodes to come begin with.
    pub(crate) fn enter(&mut self, scope: &str) {
        self.scope = scope.to_string();
    }

    /// An input, under `base` or `base` with a number.
    pub(crate) fn input(&mut self, base: &str, tensor_type: TensorType) -> Name {
        let name = self.patch.fresh(base);
        self.patch.add_input(ValueInfo::new(&name, tensor_type));
        name
    }

    /// A constant, named as it is called within the scope.
    pub(crate) fn tensor(&mut self, base: &str, tensor: Tensor) -> Name {
        self.patch.add_initializer(&format!("{}.{base}", self.scope), tensor)
    }

    /// Gives one of these constants another value.
    pub(crate) fn replace(&mut self, name: &Name, tensor: Tensor) {
        self.patch.replace_initializer(name, tensor);
    }

    pub(crate) fn number(&mut self, value: f64) -> Name {
        self.tensor("number", Tensor::scalar(value as f32))
    }

    fn integers(&mut self, values: &[i64]) -> Name {
        self.tensor("integers", Tensor::vector(values.to_vec()))
    }

    pub(crate) fn integer(&mut self, value: i64) -> Name {
        self.tensor("integer", Tensor::scalar(value))
    }

    /// A node of one output.
    pub(crate) fn node(&mut self, op: Op, inputs: &[&Name]) -> Name {
        self.node_of(op, inputs.iter().map(|&name| Some(name.clone())).collect())
    }

    /// A node that leaves out some of its inputs.
    pub(crate) fn node_of(&mut self, op: Op, inputs: Vec<Option<Name>>) -> Name {
        let output = self.patch.fresh(&format!("{}.{}", self.scope, op.name().to_lowercase()));
        self.patch.insert(Place::End, Node::new(op, inputs, vec![Some(output.clone())]));
        output
    }

    /// A value in `f32`, whatever float it is of.
    pub(crate) fn single(&mut self, x: &Name, dtype: DType) -> Name {
        match dtype {
            DType::F32 => x.clone(),
            _ => self.node(Op::Cast(Cast { to: DType::F32, saturate: true, round_mode: RoundMode::Up }), &[x]),
        }
    }

    pub(crate) fn add(&mut self, a: &Name, b: &Name) -> Name {
        self.node(Op::Add, &[a, b])
    }

    pub(crate) fn sub(&mut self, a: &Name, b: &Name) -> Name {
        self.node(Op::Sub, &[a, b])
    }

    pub(crate) fn mul(&mut self, a: &Name, b: &Name) -> Name {
        self.node(Op::Mul, &[a, b])
    }

    pub(crate) fn div(&mut self, a: &Name, b: &Name) -> Name {
        self.node(Op::Div, &[a, b])
    }

    pub(crate) fn square(&mut self, x: &Name) -> Name {
        self.mul(x, x)
    }

    pub(crate) fn matmul(&mut self, a: &Name, b: &Name) -> Name {
        self.node(Op::MatMul, &[a, b])
    }

    /// `x · factor`, which is `x` where the factor is 1.
    pub(crate) fn times(&mut self, x: &Name, factor: f64) -> Name {
        if factor == 1.0 {
            return x.clone();
        }
        let factor = self.number(factor);
        self.mul(x, &factor)
    }

    /// `x + term`
    pub(crate) fn plus(&mut self, x: &Name, term: f64) -> Name {
        let term = self.number(term);
        self.add(x, &term)
    }

    /// The mean of all elements.
    pub(crate) fn mean(&mut self, x: &Name) -> Name {
        self.node(Op::ReduceMean(Reduce { keepdims: false, noop_with_empty_axes: false }), &[x])
    }

    /// The sum of all elements.
    pub(crate) fn sum(&mut self, x: &Name) -> Name {
        self.node(Op::ReduceSum(Reduce { keepdims: false, noop_with_empty_axes: false }), &[x])
    }

    /// The mean over some axes, which stay with size 1.
    pub(crate) fn mean_over(&mut self, x: &Name, axes: &[i64]) -> Name {
        let axes = self.integers(axes);
        self.node(Op::ReduceMean(Reduce { keepdims: true, noop_with_empty_axes: false }), &[x, &axes])
    }

    /// The sum over some axes, which stay with size 1.
    pub(crate) fn sum_over(&mut self, x: &Name, axes: &[i64]) -> Name {
        let axes = self.integers(axes);
        self.node(Op::ReduceSum(Reduce { keepdims: true, noop_with_empty_axes: false }), &[x, &axes])
    }

    /// The sum over the last axis, which goes.
    pub(crate) fn sum_last(&mut self, x: &Name) -> Name {
        let axes = self.integers(&[-1]);
        self.node(Op::ReduceSum(Reduce { keepdims: false, noop_with_empty_axes: false }), &[x, &axes])
    }

    /// In ONNX's terms: 0 keeps an axis, −1 takes what is left.
    pub(crate) fn reshape(&mut self, x: &Name, shape: &[i64]) -> Name {
        let shape = self.integers(shape);
        self.node(Op::Reshape(Reshape { allowzero: false }), &[x, &shape])
    }

    pub(crate) fn transpose(&mut self, x: &Name, perm: &[i64]) -> Name {
        self.node(Op::Transpose(Transpose { perm: perm.to_vec() }), &[x])
    }

    pub(crate) fn unsqueeze(&mut self, x: &Name, axes: &[i64]) -> Name {
        let axes = self.integers(axes);
        self.node(Op::Unsqueeze, &[x, &axes])
    }

    /// The network with its new nodes; `outputs` are values that it hands out as well.
    pub(crate) fn finish(mut self, outputs: &[&Name]) -> Result<Graph, PatchError> {
        for &output in outputs {
            self.patch.add_output(ValueInfo::untyped(output));
        }
        self.patch.apply(None)
    }

    /// The network with its new nodes; `output` is all that it hands out, in place of these.
    pub(crate) fn finish_with(mut self, former: &[ValueInfo], output: ValueInfo) -> Result<Graph, PatchError> {
        former.iter().for_each(|former| self.patch.remove_output(&former.name));
        self.patch.add_output(output);
        self.patch.apply(None)
    }
}
