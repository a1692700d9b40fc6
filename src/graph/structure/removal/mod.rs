//! Taking units out of a network: every weight, bias and norm loses its slices, and whatever spells a size, a position or a
//! number of groups is written anew, all in one patch.

mod edit;
mod gone;
mod operand;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use super::groups::Group;
use crate::graph::patch::{Patch, PatchError};
use crate::graph::shape::{self, ShapeError, Types, dims_text};
use crate::graph::{Dim, Graph, Name, Node, TensorType, ValueType};
use gone::Gone;

/// Units of one group to take out.
#[derive(Clone, Copy, Debug)]
pub struct Removal<'a> {
    /// The group, of the same graph.
    pub group: &'a Group,
    /// Which of its units, in any order.
    pub units: &'a [usize],
}

/// Why units cannot be taken out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemovalError {
    /// The group has fewer units.
    #[error("the group of `{group}` has {n_units} units, there is no unit {unit}")]
    NoSuchUnit {
        /// the group's name
        group: Name,
        /// the unit asked for
        unit: usize,
        /// how many there are
        n_units: usize,
    },
    /// Nothing would be left of an axis.
    #[error("nothing would be left of axis {axis} of `{value}`: keep at least one unit")]
    Empties {
        /// the value
        value: Name,
        /// its axis
        axis: usize,
    },
    /// A group is of another graph.
    #[error("`{value}` has no axis {axis} of {size} slices: the group is of another graph")]
    Foreign {
        /// the value
        value: Name,
        /// its axis
        axis: usize,
        /// the size of the axis as the group has it
        size: usize,
    },
    /// An operand that spells sizes cannot be written anew.
    #[error("{node}: its {operand} cannot be written for the smaller network")]
    Operand {
        /// the node
        node: String,
        /// which operand
        operand: &'static str,
    },
    /// A node does not take what is left: a fault of aludel's, found before anything is written.
    #[error("{node}: its output should be {expected} now, it is {got}")]
    Misfit {
        /// the node
        node: String,
        /// the shape that is left
        expected: String,
        /// the shape that the node makes
        got: String,
    },
    /// The types of what is left do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The result is no graph.
    #[error(transparent)]
    Patch(#[from] PatchError),
}

/// The graph without these units. What made them, summed over them or carried them is smaller; the rest computes what it
/// did with the summing weights' slices at zero. A layer that normalises over the units does so over those that are left,
/// and attention keeps its scale. Constants that a caller may override are cut like others: their inputs change. `types` are those that the groups were found with.
///
/// # Errors
/// When an axis would lose its last slice, and when a size cannot be written anew; the graph is then as it was.
pub fn remove(graph: &Graph, types: &Types, removals: &[Removal<'_>]) -> Result<Graph, RemovalError> {
    let gone = Gone::of(types, removals)?;
    let mut work = Work { patch: Patch::new(graph), types: types.clone(), changed: HashSet::new(), gone: &gone };
    for (name, tensor) in &graph.initializers {
        if let Some(masks) = gone.of_value(name) {
            let smaller = slices::without(tensor, masks);
            work.state(name, shape::of_tensor(&smaller));
            work.patch.replace_initializer(name, smaller);
            work.patch.retype(name);
        }
    }
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        if node.reads().any(|name| work.changed.contains(name)) || makes_less(node, &gone) {
            rewrite(&mut work, node_idx, node)?;
        }
    }
    work.patch.remove_unused_initializers();
    Ok(work.patch.apply(None)?)
}

/// The patch as it grows, and the types of the smaller network as far as it has come.
struct Work<'a> {
    patch: Patch,
    types: Types,
    changed: HashSet<Name>,
    gone: &'a Gone,
}

impl Work<'_> {
    fn state(&mut self, name: &Name, typed: shape::Typed) {
        self.types.insert(name, typed);
        self.changed.insert(name.clone());
    }
}

fn makes_less(node: &Node, gone: &Gone) -> bool {
    node.outputs.iter().flatten().any(|name| gone.of_value(name).is_some())
}

fn rewrite(work: &mut Work<'_>, node_idx: usize, node: &Node) -> Result<(), RemovalError> {
    let mut nodes = Vec::new();
    let mut last = edit::edit(work, node)?;
    let mut outputs = fitting(work, node, &last);
    if outputs.is_err() {
        let operand = operand::respelled(work, &last, node)?;
        nodes.extend(operand.before);
        last = operand.node;
        outputs = fitting(work, node, &last);
    }
    let outputs = outputs?;
    for (name, typed) in node.outputs.iter().zip(outputs) {
        if let (Some(name), Some(typed)) = (name, typed) {
            if work.gone.of_value(name).is_some() {
                work.patch.retype(name);
            }
            let typed = with_stated_sizes(work, name, typed);
            work.state(name, typed);
        }
    }
    if last != *node || !nodes.is_empty() {
        nodes.push(last);
        work.patch.replace(node_idx, nodes);
    }
    Ok(())
}

fn infer(work: &mut Work<'_>, node: &Node) -> Result<(), RemovalError> {
    let outputs = shape::infer_node(node, &work.types)?;
    for (name, typed) in node.outputs.iter().zip(outputs) {
        if let (Some(name), Some(typed)) = (name, typed) {
            work.state(name, typed);
        }
    }
    Ok(())
}

/// The types of the edited node's outputs, which must be what is left of those of the node.
fn fitting(work: &Work<'_>, node: &Node, edited: &Node) -> Result<Vec<Option<shape::Typed>>, RemovalError> {
    let outputs = shape::infer_node(edited, &work.types)?;
    match misfit(work, node, &outputs) {
        None => Ok(outputs),
        Some((expected, got)) => Err(RemovalError::Misfit { node: node.label(), expected, got }),
    }
}

/// The first output whose sizes are not those that are left. A size that the file states and inference cannot tell is taken
/// on trust, where no slices go.
fn misfit(work: &Work<'_>, node: &Node, outputs: &[Option<shape::Typed>]) -> Option<(String, String)> {
    for (name, typed) in node.outputs.iter().zip(outputs) {
        let Some(name) = name else { continue };
        let (Some(expected), Some(masks)) = (work.gone.left(name), work.gone.of_value(name)) else { continue };
        let tensor = typed.as_ref().and_then(|typed| typed.value_type.tensor());
        let Some(got) = tensor.and_then(|tensor| tensor.shape.clone()) else {
            return Some((dims_text(&expected), "of unknown rank".to_string()));
        };
        let differs = |(axis, (expected, got)): (usize, (&Dim, &Dim))| {
            let must_be_known = masks.contains_key(&axis) || got.known().is_some();
            expected.known().is_some() && expected != got && must_be_known
        };
        if expected.len() != got.len() || expected.iter().zip(&got).enumerate().any(differs) {
            return Some((dims_text(&expected), dims_text(&got)));
        }
    }
    None
}

/// The type with the sizes that were known before and stay.
fn with_stated_sizes(work: &Work<'_>, name: &Name, mut typed: shape::Typed) -> shape::Typed {
    let before = work.gone.left(name).or_else(|| work.types.tensor(name)?.shape.clone());
    if let ValueType::Tensor(TensorType { shape: Some(dims), .. }) = &mut typed.value_type
        && let Some(before) = before.filter(|before| before.len() == dims.len())
    {
        for (dim, before) in dims.iter_mut().zip(before).filter(|(dim, _)| **dim == Dim::Unknown) {
            *dim = before;
        }
    }
    typed
}

/// A node in the place of another, with what must come before it.
struct Edited {
    node: Node,
    before: Vec<Node>,
}

impl Edited {
    /// A node that needs nothing before it.
    fn of(node: Node) -> Edited {
        Edited { node, before: Vec::new() }
    }
}
