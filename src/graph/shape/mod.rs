//! The element type, shape and, of small integers, the value of everything in a graph, from what is known of its inputs.
//!
//! Dimensions may be symbols; [`Bindings`] gives them numbers. What an operator's definition does not tell is unknown,
//! never guessed. Values are computed by the reference interpreter, and only those of a few elements: weights are
//! neither copied nor read.

mod control;
mod dims;
mod einsum;
mod elementwise;
mod fact;
mod fix;
mod index;
mod layout;
mod normalization;
mod product;
mod quantized;
mod recurrent;
mod reduction;
mod rules;
#[cfg(test)]
mod tests;
mod value;
mod walk;
mod windows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::tensor::Tensor;
use super::{Dim, Graph, Name, Node, TensorType, ValueType};
use fact::{Fact, Problem};

pub(super) use dims::text as dims_text;
pub use fix::{fix_axis, fix_symbol};
pub use value::{Element, Value};

/// More dimensions than any network has: a hostile file must not make us list them at every value.
pub(crate) const MOST_DIMS: usize = 64;

/// What a caller knows of a network's inputs beside what the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Sizes of symbolic dimensions.
    pub symbols: BTreeMap<Name, usize>,
    /// Whole shapes of inputs; they give sizes to the symbols that stand there.
    pub shapes: BTreeMap<Name, Vec<usize>>,
}

impl Bindings {
    /// These sizes for these symbols.
    pub fn of<'a>(symbols: impl IntoIterator<Item = (&'a str, usize)>) -> Bindings {
        let symbols = symbols.into_iter().map(|(symbol, size)| (symbol.into(), size)).collect();
        Bindings { symbols, ..Bindings::default() }
    }
}

/// Why a graph's types do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Something at a node is not as its operator's definition has it.
    #[error("{node}: {what} should be {expected}, got {got}")]
    Node {
        /// the node
        node: String,
        /// what does not fit
        what: String,
        /// what it should be
        expected: String,
        /// what it is
        got: String,
    },
    /// An error in a branch or body.
    #[error("{node}: {source}")]
    Body {
        /// the node that holds it
        node: String,
        /// what happened there
        source: Box<ShapeError>,
    },
    /// A shape given for an input does not fit what the file states of it, or what was given for another.
    #[error("input `{input}` should be {expected}, got {got:?}")]
    Input {
        /// the input
        input: Name,
        /// what the file states, and what is bound already
        expected: String,
        /// the shape given
        got: Vec<usize>,
    },
    /// A binding names nothing that the graph's inputs have.
    #[error("no input has {kind} `{name}`; there is {known}")]
    Unbound {
        /// `the symbol` or `the name`
        kind: &'static str,
        /// the name given
        name: Name,
        /// those that there are
        known: String,
    },
    /// Bodies inside bodies, or loops inside loops, deeper than inference goes.
    #[error("{node}: its graphs are nested too deep")]
    TooDeep {
        /// the node
        node: String,
    },
}

impl ShapeError {
    fn at(node: &Node, problem: Problem) -> ShapeError {
        let Problem { what, expected, got } = problem;
        ShapeError::Node { node: node.label(), what, expected, got }
    }
}

/// What inference noticed and went on from.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// The file states another type than follows from the inputs; the latter is used.
    Declared {
        /// the value
        value: Name,
        /// what the file states
        declared: ValueType,
        /// what follows
        inferred: ValueType,
    },
    /// A graph that will not be run, or not by us, does not fit.
    Unused {
        /// the node that holds it, and what is wrong
        error: ShapeError,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Declared { value, declared, inferred } => {
                write!(f, "`{value}`: the file states {declared}, it is {inferred}")
            }
            Note::Unused { error } => write!(f, "in a graph that is not used: {error}"),
        }
    }
}

/// The type of one value, and what is known of its elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Typed {
    /// The type.
    pub value_type: ValueType,
    /// The elements of a small tensor where they are known before the network runs.
    pub value: Option<Value>,
}

/// The types of a graph's values, and of those in its bodies. A value of which not even the element type is known is
/// not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Types {
    values: HashMap<Name, Typed>,
    bodies: HashMap<(usize, usize), Types>,
    notes: Vec<Note>,
}

impl Types {
    /// The type of a value of this graph, or of one that it captures.
    pub fn get(&self, name: &str) -> Option<&ValueType> {
        self.values.get(name).map(|typed| &typed.value_type)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The type of a dense tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorType> {
        self.get(name).and_then(ValueType::tensor)
    }

    /// The shape of a dense tensor where every dimension is known.
    pub fn known_shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensor(name).and_then(TensorType::known_shape)
    }

    /// What is known of the elements.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name).and_then(|typed| typed.value.as_ref())
    }

    /// The tensor where every element is known and they are few.
    pub fn constant(&self, name: &str) -> Option<&Tensor> {
        self.value(name).and_then(Value::known)
    }

    /// The types in a body: that of the node at this position, its bodies counted in the order of [`super::Op::bodies`].
    pub fn body(&self, node_idx: usize, body_idx: usize) -> Option<&Types> {
        self.bodies.get(&(node_idx, body_idx))
    }

    /// What inference noticed and went on from, bodies included.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The values, bodies' included, of which not every dimension is known, in the order of the graph.
    pub fn unresolved(&self, graph: &Graph) -> Vec<Name> {
        let known = |name: &Name| self.known_shape(name).is_some();
        let mut names: Vec<Name> = graph.inputs.iter().map(|i| &i.name).filter(|name| !known(name)).cloned().collect();
        for (node_idx, node) in graph.nodes.iter().enumerate() {
            for (body_idx, body) in node.op.bodies().into_iter().enumerate() {
                match self.body(node_idx, body_idx) {
                    Some(types) => names.extend(types.unresolved(body)),
                    None => names.extend(body.value_names().cloned()),
                }
            }
            names.extend(node.outputs.iter().flatten().filter(|name| !known(name)).cloned());
        }
        names
    }

    /// States the type of a value, in place of what was known of it.
    pub(crate) fn insert(&mut self, name: &Name, typed: Typed) {
        self.values.insert(name.clone(), typed);
    }

    /// What is known of a value.
    pub(super) fn typed(&self, name: &str) -> Option<&Typed> {
        self.values.get(name)
    }

    fn state(&mut self, name: &Name, fact: Fact) {
        if let Some(value_type) = fact.value_type() {
            self.insert(name, Typed { value_type, value: fact.value });
        }
    }
}

/// The symbols in the shapes of a graph's inputs: what [`Bindings`] can name.
pub fn symbols(graph: &Graph) -> BTreeSet<Name> {
    let shapes = graph.inputs.iter().filter_map(|input| input.tensor_type()?.shape.as_ref());
    shapes
        .flatten()
        .filter_map(|dim| match dim {
            Dim::Symbol(symbol) => Some(symbol.clone()),
            Dim::Known(_) | Dim::Unknown => None,
        })
        .collect()
}

/// The types of everything in a network.
///
/// An input's declared type is taken for the truth. What the file states of inner values and outputs helps where
/// nothing else is known; where it contradicts, the inferred type holds and a [`Note`] says so. An initializer that a
/// caller may override is taken at the value that the file gives. A symbol is taken to stand for a size other than zero.
///
/// # Errors
/// When a node's inputs do not fit its operator, or a binding does not fit the graph; names the node or the input.
pub fn infer(graph: &Graph, bindings: &Bindings) -> Result<Types, ShapeError> {
    walk::network(graph, bindings)
}

/// The types of a node's outputs in a graph of which the types of what it reads are known; none for an output that is
/// left out or of which not even the element type follows.
///
/// # Errors
/// When the inputs do not fit the operator.
pub fn infer_node(node: &Node, known: &Types) -> Result<Vec<Option<Typed>>, ShapeError> {
    walk::single(node, known)
}

/// How often an `Einsum` of inputs of these shapes multiplies and adds, each term with the product of those before it: the
/// product of all its dimensions, once for each input after the first. None where a dimension is unknown.
pub(super) fn einsum_products(equation: &str, shapes: &[&[Dim]]) -> Option<u64> {
    let sizes = einsum::Notation::parse(equation).and_then(|notation| notation.sizes(shapes)).ok()?;
    let all = sizes.letters.values().chain(&sizes.ellipsis).map(Dim::known);
    let product = all.map(|size| u64::try_from(size?).ok()).try_fold(1u64, |product, size| product.checked_mul(size?));
    product?.checked_mul(u64::try_from(shapes.len().saturating_sub(1)).ok()?)
}

/// What a constant is known to be.
pub fn of_tensor(tensor: &Tensor) -> Typed {
    Typed { value_type: TensorType::of(tensor).into(), value: Value::of(tensor) }
}
