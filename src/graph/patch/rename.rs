//! Other names for the same values, through the nodes of a graph and the bodies inside.

use std::collections::HashMap;

use super::PatchError;
use crate::graph::{Graph, GraphParts, Name, Node};

/// Lets a node read other values, its bodies included.
pub(super) fn reads(node: &mut Node, names: &HashMap<Name, Name>) -> Result<(), PatchError> {
    for input in node.inputs.iter_mut().flatten() {
        rename(input, names);
    }
    for body in node.op.bodies_mut() {
        if body.captures().iter().any(|name| names.contains_key(name)) {
            *body = captures(body, names)?;
        }
    }
    Ok(())
}

/// A body that captures other values. It defines none of these names, so none of them can stand for something else.
fn captures(body: &Graph, names: &HashMap<Name, Name>) -> Result<Graph, PatchError> {
    let mut parts = body.to_parts();
    for node in &mut parts.nodes {
        reads(node, names)?;
    }
    for output in &mut parts.outputs {
        rename(&mut output.name, names);
    }
    Ok(Graph::body(parts)?)
}

/// Gives a value another name wherever it stands, except in the lists of inputs and outputs.
pub(super) fn value(parts: &mut GraphParts, old: &Name, new: &Name) -> Result<(), PatchError> {
    let names = HashMap::from([(old.clone(), new.clone())]);
    for node in &mut parts.nodes {
        reads(node, &names)?;
        for output in node.outputs.iter_mut().flatten() {
            rename(output, &names);
        }
    }
    if let Some((position, _, tensor)) = parts.initializers.shift_remove_full(old) {
        parts.initializers.shift_insert(position.min(parts.initializers.len()), new.clone(), tensor);
    }
    if let Some((position, _, tensor)) = parts.sparse_initializers.shift_remove_full(old) {
        parts.sparse_initializers.shift_insert(position.min(parts.sparse_initializers.len()), new.clone(), tensor);
    }
    if parts.overridable.shift_remove(old) {
        parts.overridable.insert(new.clone());
    }
    Ok(())
}

fn rename(name: &mut Name, names: &HashMap<Name, Name>) {
    if let Some(new) = names.get(name) {
        *name = new.clone();
    }
}
