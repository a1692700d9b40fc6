//! Nodes as a file of some opset has them, before reading brings them to the canonical form and after writing has taken
//! them out of it; and what either direction knows of the values around a node.
//!
//! What an operator's versions mean is the affair of `upgrade` and `lower`, bytes are that of `read` and `write`.

use std::collections::{HashMap, HashSet};

use indexmap::{IndexMap, IndexSet};

use bytes::Bytes;

use crate::graph::attribute::{Attribute, SparseTensor};
use crate::graph::shape::{MOST_DIMS, Typed, Types, Value, infer_node, of_tensor};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, GraphParts, Name, Node, NodeNotes, Op, TensorType, ValueInfo, ValueType};

/// A node in the form of a file's own opset. In a file that is read its graphs are canonical already; in one to be
/// written they are raw as well (`RawNode<RawAttribute>`).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RawNode<A = Attribute> {
    pub(super) name: String,
    pub(super) domain: String,
    pub(super) op_type: String,
    pub(super) attributes: Vec<(String, A)>,
    pub(super) inputs: Vec<Option<Name>>,
    pub(super) outputs: Vec<Option<Name>>,
    pub(super) notes: NodeNotes,
}

impl<A> RawNode<A> {
    /// How messages name it: operator, and its own name or that of its first output.
    pub(super) fn label(&self) -> String {
        let own = Some(self.name.as_str()).filter(|name| !name.is_empty());
        match own.or(self.outputs.iter().flatten().next().map(Name::as_str)) {
            Some(name) => format!("{} `{name}`", self.op_type),
            None => self.op_type.clone(),
        }
    }

    /// The input at this position; none where it is left out.
    pub(super) fn input(&self, position: usize) -> Option<&Name> {
        self.inputs.get(position).and_then(Option::as_ref)
    }

    /// Puts an input at this position, leaving out what comes before.
    pub(super) fn set_input(&mut self, position: usize, name: Name) {
        if self.inputs.len() <= position {
            self.inputs.resize(position + 1, None);
        }
        if let Some(input) = self.inputs.get_mut(position) {
            *input = Some(name);
        }
    }
}

/// A name derived from this one: `{name}_{suffix}`; the operator's where the node has no output.
pub(super) fn derived(outputs: &[Option<Name>], op_type: &str, suffix: &str) -> String {
    let base = outputs.iter().flatten().next().map_or(op_type, Name::as_str);
    format!("{base}_{suffix}")
}

/// An attribute on its way into a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RawAttribute {
    /// Anything that holds no graph.
    Plain(Attribute),
    /// `AttributeProto.g`
    Graph(Box<RawGraph>),
    /// `AttributeProto.graphs`
    Graphs(Vec<RawGraph>),
}

/// The parts of a graph on its way into a file, as [`crate::graph::GraphParts`] otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RawGraph {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) inputs: Vec<ValueInfo>,
    pub(super) outputs: Vec<ValueInfo>,
    pub(super) initializers: IndexMap<Name, Tensor>,
    pub(super) sparse_initializers: IndexMap<Name, SparseTensor>,
    pub(super) overridable: IndexSet<Name>,
    pub(super) nodes: Vec<RawNode<RawAttribute>>,
    pub(super) value_info: IndexMap<Name, ValueInfo>,
    pub(super) metadata: Vec<(String, String)>,
    pub(super) quantization_annotations: Vec<Bytes>,
}

/// What is known of a value while nodes are converted one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    pub(super) dtype: Option<DType>,
    pub(super) shape: Option<Vec<Dim>>,
    /// The type of a value that is no tensor.
    pub(super) other: Option<ValueType>,
}

/// The values around the node that is being converted: constants, types, and which names are taken. One context serves a
/// whole model; [`Context::enter`] and [`Context::leave`] go into its graph and the bodies inside.
#[derive(Debug, Default)]
pub(super) struct Context {
    taken: HashSet<Name>,
    /// The last number that a base has been tried with: names are not searched from the start each time, which a file
    /// that repeats one a hundred thousand times would make slow.
    numbers: HashMap<Name, u64>,
    scopes: Vec<Scope>,
    /// What sparse constants have been made whole in, in bytes.
    n_filled: usize,
    /// The elements of the values longer than shapes that have been learned.
    n_learned: usize,
}

/// The most bytes that the sparse constants of a model, which take few in its file, are made whole in.
const MOST_FILLED: usize = 1 << 24;

/// The most elements of computed values, those that are no shapes, that are kept: a short file can ask for a long list
/// again and again.
const MOST_LEARNED: usize = 1 << 18;

#[derive(Debug, Default)]
struct Scope {
    constants: HashMap<Name, Tensor>,
    types: HashMap<Name, Typed>,
    added: IndexMap<Name, Tensor>,
}

impl Context {
    /// A context for a model in which these names occur, bodies included.
    pub(super) fn new(names: impl IntoIterator<Item = Name>) -> Context {
        Context { taken: names.into_iter().collect(), ..Context::default() }
    }

    /// Goes into a graph or body. The caller then declares its inputs, outputs, stated types and initializers, and
    /// converts its nodes in order.
    pub(super) fn enter(&mut self) {
        self.scopes.push(Scope::default());
    }

    /// Comes out of it, with the constants that conversion has added there: they belong among its initializers.
    pub(super) fn leave(&mut self) -> IndexMap<Name, Tensor> {
        self.scopes.pop().map(|scope| scope.added).unwrap_or_default()
    }

    /// Learns what the parts of a graph state, its nodes aside.
    pub(super) fn declare_all(&mut self, parts: &GraphParts) {
        for info in parts.value_info.values().chain(&parts.outputs).chain(&parts.inputs) {
            self.declare(info);
        }
        for (name, tensor) in &parts.initializers {
            if parts.overridable.contains(name) {
                self.declare(&ValueInfo::new(name, TensorType::of(tensor)));
            } else {
                self.declare_constant(name, tensor);
            }
        }
        for (name, sparse) in &parts.sparse_initializers {
            let tensor_type = TensorType::new(sparse.values.dtype(), sparse.shape.iter().copied());
            self.declare(&ValueInfo::new(name, tensor_type));
        }
    }

    /// Learns what a file states of a value.
    pub(super) fn declare(&mut self, info: &ValueInfo) {
        if let (Some(scope), Some(value_type)) = (self.scopes.last_mut(), &info.value_type) {
            scope.types.insert(info.name.clone(), Typed { value_type: value_type.clone(), value: None });
        }
    }

    /// Learns a constant: an initializer that no caller can override, or what a `Constant` makes.
    pub(super) fn declare_constant(&mut self, name: &Name, tensor: &Tensor) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.constants.insert(name.clone(), tensor.clone());
        }
    }

    /// Learns what the outputs of a canonical node are. Bodies are not looked into.
    pub(super) fn learn(&mut self, node: &Node) {
        if let (Op::Constant(constant), Some(output)) = (&node.op, node.output(0)) {
            self.declare_constant(output, &constant.value);
        }
        if !node.op.bodies().is_empty() {
            return;
        }
        let mut inputs = Types::default();
        for name in node.inputs.iter().flatten() {
            if let Some(mut typed) = self.typed(name) {
                typed.value.take_if(|value| value.len() > MOST_DIMS && self.n_learned > MOST_LEARNED);
                inputs.insert(name, typed);
            }
        }
        let Some(scope) = self.scopes.last_mut() else { return };
        for (output, inferred) in node.outputs.iter().zip(infer_node(node, &inputs).unwrap_or_default()) {
            let (Some(name), Some(mut typed)) = (output, inferred) else { continue };
            if let Some(stated) = scope.types.get(name) {
                fill(&mut typed.value_type, &stated.value_type);
            }
            let n_elements = typed.value.as_ref().map(Value::len).filter(|&n| n > MOST_DIMS).unwrap_or(0);
            self.n_learned = self.n_learned.saturating_add(n_elements);
            typed.value.take_if(|value| value.len() > MOST_DIMS && self.n_learned > MOST_LEARNED);
            scope.types.insert(name.clone(), typed);
        }
    }

    /// A name that nothing has yet: `base`, or that with a number.
    pub(super) fn fresh(&mut self, base: &str) -> Name {
        let base = Name::from(base);
        if self.taken.insert(base.clone()) {
            return base;
        }
        let number = self.numbers.entry(base.clone()).or_insert(1);
        loop {
            *number += 1;
            let name = Name::from(format!("{base}_{number}"));
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// Adds a constant to the graph that the context is in; its name is `base` or that with a number.
    pub(super) fn add_constant(&mut self, base: &str, tensor: Tensor) -> Name {
        let name = self.fresh(base);
        self.place_constant(&name, tensor);
        name
    }

    /// Adds a constant under a name that the graph has for it already.
    pub(super) fn place_constant(&mut self, name: &Name, tensor: Tensor) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.constants.insert(name.clone(), tensor.clone());
            scope.added.insert(name.clone(), tensor);
        }
    }

    /// Whether another sparse constant may be made whole in this many bytes; if so, they are counted.
    pub(super) fn may_fill(&mut self, n_bytes: usize) -> bool {
        let total = self.n_filled.checked_add(n_bytes).filter(|&total| total <= MOST_FILLED);
        self.n_filled = total.unwrap_or(self.n_filled);
        total.is_some()
    }

    /// How many constants have been added to the graph that the context is in.
    pub(super) fn n_added(&self) -> usize {
        self.scopes.last().map_or(0, |scope| scope.added.len())
    }

    /// Takes back the constants that have been added since there were `n_added`.
    pub(super) fn take_back(&mut self, n_added: usize) {
        if let Some(scope) = self.scopes.last_mut() {
            for (name, _) in scope.added.drain(n_added.min(scope.added.len())..) {
                scope.constants.remove(&name);
                self.taken.remove(&name);
            }
        }
    }

    /// The constant of this name, in this graph or in one around it.
    pub(super) fn constant(&self, name: &Name) -> Option<&Tensor> {
        self.scopes.iter().rev().find_map(|scope| scope.constants.get(name))
    }

    /// The elements of an integer tensor, where they are known before the network runs.
    pub(super) fn integers(&self, name: &Name) -> Option<Vec<i64>> {
        let computed = || self.typed(name).and_then(|typed| typed.value.as_ref()?.known().cloned());
        let tensor = self.constant(name).cloned().or_else(computed)?;
        let narrow = || tensor.as_slice::<i32>().map(|values| values.iter().map(|&value| i64::from(value)).collect());
        tensor.to_vec::<i64>().or_else(|_| narrow()).ok()
    }

    fn typed(&self, name: &Name) -> Option<Typed> {
        let constant = self.constant(name).map(of_tensor);
        constant.or_else(|| self.scopes.iter().rev().find_map(|scope| scope.types.get(name)).cloned())
    }

    /// What is known of a value, in this graph or in one around it.
    pub(super) fn known(&self, name: &Name) -> Known {
        match self.typed(name).map(|typed| typed.value_type) {
            Some(ValueType::Tensor(tensor)) => Known { dtype: Some(tensor.dtype), shape: tensor.shape, other: None },
            other => Known { other, ..Known::default() },
        }
    }

    /// The number of dimensions of a value where it is known.
    pub(super) fn rank(&self, name: &Name) -> Option<usize> {
        self.known(name).shape.map(|shape| shape.len())
    }

    /// The number of dimensions of an input where it is there and that is known.
    pub(super) fn rank_of(&self, input: Option<&Name>) -> Option<usize> {
        input.and_then(|name| self.rank(name))
    }
}

/// Dimensions that a file states and that do not follow from a node's inputs.
fn fill(inferred: &mut ValueType, stated: &ValueType) {
    let (ValueType::Tensor(inferred), Some(stated)) = (inferred, stated.tensor().and_then(|t| t.shape.as_ref())) else {
        return;
    };
    let dims = inferred.shape.get_or_insert_with(|| stated.clone());
    if dims.len() == stated.len() {
        for (dim, stated) in dims.iter_mut().zip(stated).filter(|(dim, _)| **dim == Dim::Unknown) {
            dim.clone_from(stated);
        }
    }
}

/// An axis counted from the front; none where it is out of range.
pub(super) fn position(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis.checked_add(rank)? } else { axis };
    usize::try_from(axis).ok().filter(|_| axis < rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_constants_are_bounded_together() {
        let mut context = Context::default();
        assert!(!context.may_fill(MOST_FILLED + 1));
        assert!(context.may_fill(MOST_FILLED - 8));
        assert!(!context.may_fill(9) && !context.may_fill(usize::MAX));
        assert!(context.may_fill(8));
        assert!(!context.may_fill(1));
    }
}
