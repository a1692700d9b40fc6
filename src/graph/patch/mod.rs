//! The only way to change a graph: an edit as data, checked and then applied in one place.
//!
//! A [`Patch`] is made for one graph and holds it, so that a node's position cannot mean another node. It collects what
//! is to change; [`Patch::apply`] refuses what would leave a value dangling or give it another element type or shape
//! than its readers know, and returns a new graph. The graph that it was made for stays as it is.

mod apply;
mod beside;
mod rename;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::shape::{ShapeError, Types};
use super::tensor::Tensor;
use super::{CheckError, Graph, Name, Node, ValueInfo};

pub use beside::beside;

/// Why a patch is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// A position is beyond the graph's nodes.
    #[error("the graph has {n_nodes} nodes, there is none at {node_idx}")]
    NoSuchNode {
        /// the position
        node_idx: usize,
        /// how many nodes there are
        n_nodes: usize,
    },
    /// A node is removed or replaced more than once.
    #[error("{node} is removed or replaced twice")]
    EditedTwice {
        /// the node
        node: String,
    },
    /// A name stands for nothing of this kind in the graph.
    #[error("the graph has no {kind} `{name}`")]
    NoSuch {
        /// `value`, `initializer`, `input` or `output`
        kind: &'static str,
        /// the name
        name: Name,
    },
    /// A name that is to be new stands for something already.
    #[error("the name `{name}` is taken")]
    NameTaken {
        /// the name
        name: Name,
    },
    /// Something still reads a value that is no longer produced.
    #[error("`{value}` is removed, but {reader} reads it")]
    StillUsed {
        /// the value
        value: Name,
        /// who reads it
        reader: String,
    },
    /// What takes a value's place has another type.
    #[error("`{value}` is {expected}, what takes its place is {got}")]
    Type {
        /// the value
        value: Name,
        /// its type
        expected: String,
        /// the type of what takes its place
        got: String,
    },
    /// Uses are redirected in a circle.
    #[error("the uses of `{name}` are redirected to itself")]
    Circle {
        /// a value of the circle
        name: Name,
    },
    /// An output that is an input too cannot become another value under the same name.
    #[error("the output `{name}` is an input, too: it cannot be another value")]
    OutputIsInput {
        /// the value
        name: Name,
    },
    /// A body would have another number of inputs or outputs, which its node fixes.
    #[error("{node}: its body has {expected} {kind}, the patched one {got}")]
    Body {
        /// the node with the body
        node: String,
        /// `inputs` or `outputs`
        kind: &'static str,
        /// how many there are
        expected: usize,
        /// how many there would be
        got: usize,
    },
    /// A body would read a value from outside that it did not read before.
    #[error("the body would read `{name}` from outside, which it did not before")]
    Captures {
        /// the value
        name: Name,
    },
    /// The result is no graph.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The types of the result do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

/// Where a new node stands. Nodes that would come before what they read are sorted behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Before the node at this position.
    Before(usize),
    /// After the node at this position.
    After(usize),
    /// After all nodes.
    End,
}

/// An edit of one graph.
///
/// ```
/// # use aludel::graph::{GraphBuilder, Node, Op, TensorType, tensor::DType};
/// use aludel::graph::patch::{Patch, Place};
///
/// # let mut builder = GraphBuilder::new("example");
/// # let x = builder.input("x", TensorType::new(DType::F32, [4usize]));
/// # let y = builder.node(Op::Neg, &[&x]);
/// # builder.output(&y);
/// # let graph = builder.finish()?;
/// let mut patch = Patch::new(&graph);
/// let clipped = patch.fresh("clipped");
/// patch.insert(Place::End, Node::new(Op::Relu, vec![Some(y.clone())], vec![Some(clipped.clone())]));
/// patch.replace_uses(&y, &clipped);
/// let patched = patch.apply(None)?;
/// assert_eq!(patched.outputs[0].name, y); // the output keeps its name
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Patch {
    graph: Graph,
    names: BTreeSet<Name>,
    replaced: BTreeMap<usize, Vec<Node>>,
    edited_twice: Option<usize>,
    inserted: Vec<(Place, Node)>,
    initializers: IndexMap<Name, Tensor>,
    removed_initializers: BTreeSet<Name>,
    redirected: IndexMap<Name, Name>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    retyped: BTreeSet<Name>,
    removes_unused_initializers: bool,
}

/// A change to the list of inputs or outputs.
#[derive(Clone, Debug)]
enum Port {
    Add(ValueInfo),
    Remove(Name),
    Rename(Name, Name),
}

impl Patch {
    /// A patch that changes nothing yet.
    pub fn new(graph: &Graph) -> Patch {
        Patch {
            graph: graph.clone(),
            names: graph.all_names(),
            replaced: BTreeMap::new(),
            edited_twice: None,
            inserted: Vec::new(),
            initializers: IndexMap::new(),
            removed_initializers: BTreeSet::new(),
            redirected: IndexMap::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            retyped: BTreeSet::new(),
            removes_unused_initializers: false,
        }
    }

    /// Names that [`Patch::fresh`] must not give: for a body, those of the graphs around it.
    pub fn reserve<'a>(&mut self, names: impl IntoIterator<Item = &'a Name>) {
        self.names.extend(names.into_iter().cloned());
    }

    /// A name that nothing in the graph or the patch has: `base`, or `base` with a number. The same calls give the same
    /// names.
    pub fn fresh(&mut self, base: &str) -> Name {
        let name = unused(&self.names, base);
        self.names.insert(name.clone());
        name
    }

    /// The position of the node that produces a value.
    pub fn producer(&self, name: &str) -> Option<usize> {
        let produces = |node: &Node| node.outputs.iter().flatten().any(|output| output.as_str() == name);
        self.graph.nodes.iter().position(produces)
    }

    /// Removes the node at this position.
    pub fn remove(&mut self, node_idx: usize) {
        self.replace(node_idx, Vec::new());
    }

    /// Puts these nodes in the place of the one at this position.
    pub fn replace(&mut self, node_idx: usize, nodes: Vec<Node>) {
        if self.replaced.insert(node_idx, nodes).is_some() {
            self.edited_twice = Some(node_idx);
        }
    }

    /// Adds a node. It reads the values as they are named before any redirection.
    pub fn insert(&mut self, place: Place, node: Node) {
        self.inserted.push((place, node));
    }

    /// Adds a constant, under `base` or `base` with a number.
    pub fn add_initializer(&mut self, base: &str, tensor: Tensor) -> Name {
        let name = self.fresh(base);
        self.initializers.insert(name.clone(), tensor);
        name
    }

    /// Gives a constant another value, of the same type unless it is retyped. What a removed node produced can become a
    /// constant in this way, too.
    pub fn replace_initializer(&mut self, name: &Name, tensor: Tensor) {
        self.initializers.insert(name.clone(), tensor);
    }

    /// Removes a constant.
    pub fn remove_initializer(&mut self, name: &Name) {
        self.removed_initializers.insert(name.clone());
    }

    /// Removes every constant that nothing reads once the rest is done, but for those that a caller may override.
    pub fn remove_unused_initializers(&mut self) {
        self.removes_unused_initializers = true;
    }

    /// Lets everything that reads `old` read `new`, bodies included, except for the nodes that this patch brings: those do
    /// only where `old` is gone afterwards.
    ///
    /// An output of the graph keeps its name: where `old` is one, `new` is renamed to it, and `old`, if it is still
    /// there, gets another name. Where `new` is itself redirected, it is followed to the end.
    pub fn replace_uses(&mut self, old: &Name, new: &Name) {
        self.redirected.insert(old.clone(), new.clone());
    }

    /// Adds an input at the end.
    pub fn add_input(&mut self, info: ValueInfo) {
        self.inputs.push(Port::Add(info));
    }

    /// Removes an input, which nothing may read any more.
    pub fn remove_input(&mut self, name: &Name) {
        self.inputs.push(Port::Remove(name.clone()));
    }

    /// Gives an input another name.
    pub fn rename_input(&mut self, old: &Name, new: &Name) {
        self.inputs.push(Port::Rename(old.clone(), new.clone()));
    }

    /// Adds an output at the end.
    pub fn add_output(&mut self, info: ValueInfo) {
        self.outputs.push(Port::Add(info));
    }

    /// Removes an output; the value stays.
    pub fn remove_output(&mut self, name: &Name) {
        self.outputs.push(Port::Remove(name.clone()));
    }

    /// Gives an output another name.
    pub fn rename_output(&mut self, old: &Name, new: &Name) {
        self.outputs.push(Port::Rename(old.clone(), new.clone()));
    }

    /// States that a value's type is meant to change. The types of the whole result are then inferred, and must fit.
    pub fn retype(&mut self, name: &Name) {
        self.retyped.insert(name.clone());
    }

    /// The changed graph.
    ///
    /// Whatever takes the place of a value (a node or constant of the same name, or what its uses are redirected to) must
    /// have its element type and, as far as `types` knows them, its dimensions. Without `types` only the rest is checked.
    ///
    /// # Errors
    /// When something does not fit; see [`PatchError`].
    pub fn apply(&self, types: Option<&Types>) -> Result<Graph, PatchError> {
        apply::apply(self, types)
    }
}

fn unused(names: &BTreeSet<Name>, base: &str) -> Name {
    let mut name = Name::from(base);
    let mut number = 1;
    while names.contains(&name) {
        number += 1;
        name = format!("{base}_{number}").into();
    }
    name
}

/// The graph with each body of its nodes changed by `edit`, which is given the node's position, the body's (in the order of
/// [`super::Op::bodies`]) and the body. Bodies inside bodies are the caller's, who calls this for them.
///
/// # Errors
/// Those of `edit`; when a body has another number of inputs or outputs afterwards; when the result is no graph.
pub fn map_bodies(
    graph: &Graph,
    mut edit: impl FnMut(usize, usize, &Graph) -> Result<Graph, PatchError>,
) -> Result<Graph, PatchError> {
    let mut parts = graph.to_parts();
    for (node_idx, node) in parts.nodes.iter_mut().enumerate() {
        let label = node.label();
        for (body_idx, body) in node.op.bodies_mut().into_iter().enumerate() {
            let edited = edit(node_idx, body_idx, body)?;
            let ports = [
                ("inputs", body.inputs.len(), edited.inputs.len()),
                ("outputs", body.outputs.len(), edited.outputs.len()),
            ];
            if let Some((kind, expected, got)) = ports.into_iter().find(|(_, expected, got)| expected != got) {
                return Err(PatchError::Body { node: label, kind, expected, got });
            }
            *body = edited;
        }
    }
    apply::close(graph, parts)
}
