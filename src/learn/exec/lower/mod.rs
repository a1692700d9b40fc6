//! From operators to primitives, family by family.
//!
//! A family's functions take a [`Lowering`] and give the ids of the node's outputs, or nothing where they have no rule for
//! the case: then the reference interpreter computes the node, and no gradient passes. What gives no numbers to
//! compute with (shapes, indices, truth values) is always the reference interpreter's, and free where it is known
//! before the network runs.

mod attention;
mod einsum;
mod elementwise;
mod index;
mod layout;
mod linear;
mod norm;
mod pad;
mod quantize;
mod recurrent;
mod reduce;
#[cfg(test)]
mod tests;
mod window;

use super::ExecError;
use super::compile::{Compiler, Mode};
use super::emit::{Emitter, kind_of};
use super::numbers::number;
use super::program::{Id, Kind, Source};
use crate::graph::eval::{self, EvalError};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Name, Node, Op};

/// The outputs of a node, in order; none where a family has no rule.
pub(super) type Lowered = Result<Option<Vec<Id>>, ExecError>;

/// One node on its way to primitives.
pub(super) struct Lowering<'c, 'g> {
    pub(super) compiler: &'c mut Compiler<'g>,
    pub(super) node: &'g Node,
}

/// Emits what computes a node's outputs.
///
/// # Errors
/// When the operator is unknown, or a shape depends on the values of inputs.
pub(super) fn node<'g>(compiler: &mut Compiler<'g>, node: &'g Node) -> Result<(), ExecError> {
    let mut lowering = Lowering { compiler, node };
    let outputs = match lowering.known()? {
        Some(outputs) => outputs,
        None => match lowering.is_float().then(|| dispatch(&mut lowering)).transpose()?.flatten() {
            Some(outputs) => outputs,
            None => lowering.reference()?,
        },
    };
    for (name, id) in node.outputs.iter().zip(outputs) {
        if let Some(name) = name {
            debug_assert!(
                lowering.compiler.types.known_shape(name).is_none_or(|shape| shape == lowering.emit().shape(id)),
                "{}: `{name}` has another shape than inference says",
                node.label(),
            );
            lowering.compiler.set(name, id);
        }
    }
    Ok(())
}

/// The initializers that a node replaces as it learns: running statistics.
pub(super) fn statistics(node: &Node) -> Vec<&Name> {
    match node.op {
        Op::BatchNormalization(_) => node.inputs.iter().skip(3).take(2).flatten().collect(),
        _ => Vec::new(),
    }
}

fn dispatch(lowering: &mut Lowering<'_, '_>) -> Lowered {
    let op = &lowering.node.op;
    let families = [
        elementwise::lower,
        layout::lower,
        pad::lower,
        linear::lower,
        quantize::lower,
        reduce::lower,
        index::lower,
        norm::lower,
        window::lower,
        recurrent::lower,
        attention::lower,
        einsum::lower,
    ];
    for family in families {
        if let Some(outputs) = family(lowering, op)? {
            return Ok(Some(outputs));
        }
    }
    Ok(None)
}

impl<'g> Lowering<'_, 'g> {
    pub(super) fn emit(&mut self) -> &mut Emitter {
        &mut self.compiler.emitter
    }

    pub(super) fn is_training(&self) -> bool {
        self.compiler.request.mode == Mode::Training
    }

    /// The input at this position, none where it is left out.
    pub(super) fn optional(&self, position: usize) -> Result<Option<Id>, ExecError> {
        self.node.input(position).map(|name| self.compiler.get(name)).transpose()
    }

    /// The input at this position.
    pub(super) fn input(&self, position: usize) -> Result<Id, ExecError> {
        self.optional(position)?.ok_or_else(|| self.unsupported(format!("input {position} is missing"), "give it"))
    }

    /// The inputs that are there, in order.
    pub(super) fn inputs(&self) -> Result<Vec<Id>, ExecError> {
        self.node.inputs.iter().flatten().map(|name| self.compiler.get(name)).collect()
    }

    /// The elements of an input that is the same in every run; none where it is left out or not known before.
    pub(super) fn constant(&self, position: usize) -> Option<&Tensor> {
        let name = self.node.input(position)?;
        let fixed = |name: &&Name| !self.compiler.is_changing(name) && !self.compiler.graph.overridable.contains(*name);
        let initializer = self.compiler.graph.initializers.get(name);
        let known = initializer.or_else(|| self.compiler.types.constant(name));
        let known = known.or_else(|| self.constant_of(self.compiler.get(name).ok()?));
        known.filter(|_| fixed(&name))
    }

    /// The tensor that a value is in every run.
    pub(super) fn constant_of(&self, id: Id) -> Option<&Tensor> {
        match &self.compiler.emitter.program.values[id].source {
            Source::Constant(tensor) => Some(tensor),
            Source::Input(_) | Source::Parameter(_) | Source::Step => None,
        }
    }

    /// What the reference interpreter makes of an operator: now where every input is the same in every run, else in a
    /// step.
    ///
    /// # Errors
    /// When the operator does not take those inputs.
    pub(super) fn computed(
        &mut self,
        op: &Op,
        inputs: &[Option<Id>],
        outputs: Vec<(Kind, Vec<usize>)>,
    ) -> Result<Vec<Id>, ExecError> {
        match self.folded(op, inputs, outputs.len())? {
            Some(constants) => Ok(constants),
            None => Ok(self.emit().reference(op, inputs, outputs)),
        }
    }

    /// The one output of an operator over integers and truth values, see [`Lowering::computed`].
    pub(super) fn plain(&mut self, op: &Op, inputs: &[Id], dtype: DType, shape: &[usize]) -> Result<Id, ExecError> {
        let inputs: Vec<Option<Id>> = inputs.iter().copied().map(Some).collect();
        Ok(self.computed(op, &inputs, vec![(Kind::Plain(dtype), shape.to_vec())])?[0])
    }

    /// The outputs of an operator of constants.
    fn folded(&mut self, op: &Op, inputs: &[Option<Id>], n_outputs: usize) -> Result<Option<Vec<Id>>, ExecError> {
        let mut tensors = Vec::with_capacity(inputs.len());
        for input in inputs {
            match input.map(|id| self.constant_of(id).cloned()) {
                None => tensors.push(None),
                Some(Some(tensor)) => tensors.push(Some(tensor)),
                Some(None) => return Ok(None),
            }
        }
        let outputs = eval::operator(op, &tensors, n_outputs).map_err(|source| self.refused(source))?;
        let empty = || Tensor::vector(Vec::<f32>::new());
        let outputs = outputs.into_iter().chain(std::iter::repeat(None)).take(n_outputs);
        Ok(Some(outputs.map(|tensor| self.emit().constant(tensor.unwrap_or_else(empty))).collect()))
    }

    /// The reference interpreter's refusal, with the node.
    pub(super) fn refused(&self, source: EvalError) -> ExecError {
        ExecError::Eval { node: self.node.label(), source }
    }

    /// The integers of an input that is known before anything runs; none where it is left out.
    ///
    /// # Errors
    /// When they depend on what the network is given.
    pub(super) fn integers(&self, position: usize) -> Result<Option<Vec<i64>>, ExecError> {
        let Some(name) = self.node.input(position) else { return Ok(None) };
        let read = |tensor: &Tensor| match (tensor.to_vec::<i64>(), tensor.to_vec::<i32>()) {
            (Ok(wide), _) => Some(wide),
            (Err(_), narrow) => narrow.ok().map(|narrow| narrow.into_iter().map(i64::from).collect()),
        };
        match self.constant(position).and_then(read) {
            Some(integers) => Ok(Some(integers)),
            None => Err(self.unsupported(
                format!("`{name}` is not known before the network runs"),
                "simplify the model, or make that input a constant",
            )),
        }
    }

    /// The number that an input is, where it is one and known before anything runs.
    pub(super) fn number(&self, position: usize) -> Option<f64> {
        self.constant(position).and_then(number)
    }

    /// The shape of the output at this position.
    ///
    /// # Errors
    /// When it depends on what the network is given.
    pub(super) fn shape(&self, position: usize) -> Result<Vec<usize>, ExecError> {
        let Some(name) = self.node.output(position) else { return Ok(Vec::new()) };
        let unknown = || ExecError::DynamicShape { node: self.node.label(), value: name.clone() };
        self.compiler.types.known_shape(name).ok_or_else(unknown)
    }

    pub(super) fn unsupported(&self, what: impl Into<String>, remedy: &'static str) -> ExecError {
        ExecError::Unsupported { node: self.node.label(), what: what.into(), remedy }
    }

    /// The outputs as constants where every one of them is known before anything runs.
    fn known(&mut self) -> Result<Option<Vec<Id>>, ExecError> {
        let depends = self.node.reads().any(|name| self.compiler.is_changing(name));
        let constants: Option<Vec<Tensor>> = self
            .node
            .outputs
            .iter()
            .map(|name| {
                name.as_ref().map_or_else(
                    || Some(Tensor::vector(Vec::<f32>::new())),
                    |name| self.compiler.types.constant(name).cloned(),
                )
            })
            .collect();
        let constants = constants.filter(|_| !depends);
        Ok(constants.map(|constants| constants.into_iter().map(|tensor| self.emit().constant(tensor)).collect()))
    }

    /// Whether the first output holds numbers to compute with.
    fn is_float(&self) -> bool {
        let tensor_type = self.node.output(0).and_then(|name| self.compiler.types.tensor(name));
        tensor_type.is_none_or(|tensor_type| kind_of(tensor_type.dtype) == Kind::Float)
    }

    /// The node as the reference interpreter computes it.
    fn reference(&mut self) -> Result<Vec<Id>, ExecError> {
        if let Op::Opaque(_) = self.node.op {
            return Err(self.unsupported("aludel does not know this operator", "replace it with ONNX's own operators"));
        }
        if self.node.op.bodies().iter().any(|body| !body.captures().is_empty()) {
            return Err(self.unsupported(
                "its graphs read values from outside",
                "simplify the model, or export it without If, Loop and Scan",
            ));
        }
        let inputs = self.node.inputs.iter().map(|name| name.as_ref().map(|name| self.compiler.get(name)).transpose());
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        if let Some(constants) = self.folded(&self.node.op, &inputs, self.node.outputs.len())? {
            return Ok(constants);
        }
        let mut outputs = Vec::new();
        for (position, name) in self.node.outputs.iter().enumerate() {
            let tensor_type = name.as_ref().and_then(|name| self.compiler.types.tensor(name));
            let kind = tensor_type.map_or(Kind::Float, |tensor_type| kind_of(tensor_type.dtype));
            outputs.push((kind, self.shape(position)?));
        }
        Ok(self.compiler.emitter.reference(&self.node.op, &inputs, outputs))
    }
}

/// An axis counted from the start.
pub(super) fn axis(axis: i64, rank: usize) -> usize {
    let signed_rank = i64::try_from(rank).unwrap_or(i64::MAX);
    let from_start = if axis < 0 { axis.saturating_add(signed_rank) } else { axis };
    usize::try_from(from_start).unwrap_or(usize::MAX).min(rank)
}
