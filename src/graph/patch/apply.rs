//! Applying a patch: the edits in a fixed order, each checked.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Patch, PatchError, Place, Port, rename, unused};
use crate::graph::op::Op;
use crate::graph::shape::{self, Bindings, Note, Typed, Types};
use crate::graph::{Dim, Graph, GraphParts, Name, Node, TensorType, ValueInfo, ValueType};

pub(super) fn apply(patch: &Patch, types: Option<&Types>) -> Result<Graph, PatchError> {
    check_positions(patch)?;
    let mut parts = patch.graph.to_parts();
    let targets = targets(patch)?;
    edit_nodes(patch, &mut parts, &targets)?;
    edit_initializers(patch, &mut parts)?;
    edit_inputs(patch, &mut parts)?;
    check_redirected(patch, &parts, &targets)?;
    if let Some(types) = types {
        check_types(patch, types, &targets)?;
    }
    let mut names = patch.names.clone();
    keep_output_names(patch, &mut parts, &targets, &mut names)?;
    edit_outputs(patch, &mut parts, &mut names)?;
    if patch.removes_unused_initializers {
        remove_unused_initializers(&mut parts);
    }
    check_removed(patch, &parts)?;
    forget_stale_types(patch, &mut parts);
    let graph = close(&patch.graph, parts)?;
    if patch.retyped.is_empty() { Ok(graph) } else { restated(&graph) }
}

/// The graph of changed parts: a whole network stays one, a body captures nothing new.
pub(super) fn close(before: &Graph, parts: GraphParts) -> Result<Graph, PatchError> {
    if before.captures().is_empty() {
        return Ok(Graph::new(parts)?);
    }
    let graph = Graph::body(parts)?;
    match graph.captures().difference(before.captures()).next() {
        Some(name) => Err(PatchError::Captures { name: name.clone() }),
        None => Ok(graph),
    }
}

fn check_positions(patch: &Patch) -> Result<(), PatchError> {
    let n_nodes = patch.graph.nodes.len();
    if let Some(node) = patch.edited_twice.and_then(|node_idx| patch.graph.nodes.get(node_idx)) {
        return Err(PatchError::EditedTwice { node: node.label() });
    }
    let places = patch.inserted.iter().filter_map(|(place, _)| match place {
        Place::Before(node_idx) | Place::After(node_idx) => Some(node_idx),
        Place::End => None,
    });
    match patch.replaced.keys().chain(places).find(|&&node_idx| node_idx >= n_nodes) {
        Some(&node_idx) => Err(PatchError::NoSuchNode { node_idx, n_nodes }),
        None => Ok(()),
    }
}

/// Where the uses of each redirected value end.
fn targets(patch: &Patch) -> Result<HashMap<Name, Name>, PatchError> {
    let mut targets = HashMap::new();
    for (old, mut new) in &patch.redirected {
        let mut n_steps = 0;
        while let Some(further) = patch.redirected.get(new) {
            n_steps += 1;
            if n_steps > patch.redirected.len() {
                return Err(PatchError::Circle { name: old.clone() });
            }
            new = further;
        }
        targets.insert(old.clone(), new.clone());
    }
    Ok(targets)
}

fn edit_nodes(patch: &Patch, parts: &mut GraphParts, targets: &HashMap<Name, Name>) -> Result<(), PatchError> {
    let mut at: HashMap<Place, Vec<&Node>> = HashMap::new();
    for (place, node) in &patch.inserted {
        at.entry(*place).or_default().push(node);
    }
    let mut take = |place| at.remove(&place).unwrap_or_default().into_iter().cloned();
    let mut nodes = Vec::with_capacity(parts.nodes.len() + patch.inserted.len());
    for (node_idx, mut node) in std::mem::take(&mut parts.nodes).into_iter().enumerate() {
        nodes.extend(take(Place::Before(node_idx)));
        match patch.replaced.get(&node_idx) {
            Some(instead) => nodes.extend(instead.iter().cloned()),
            None => {
                rename::reads(&mut node, targets)?;
                nodes.push(node);
            }
        }
        nodes.extend(take(Place::After(node_idx)));
    }
    nodes.extend(take(Place::End));
    parts.nodes = nodes;
    let kept = produced(parts);
    let gone = |(old, _): &(&Name, &Name)| !kept.contains(*old) && !patch.initializers.contains_key(*old);
    let gone: HashMap<Name, Name> = targets.iter().filter(gone).map(|(old, new)| (old.clone(), new.clone())).collect();
    if !gone.is_empty() {
        parts.nodes.iter_mut().try_for_each(|node| rename::reads(node, &gone))?;
    }
    Ok(())
}

fn edit_initializers(patch: &Patch, parts: &mut GraphParts) -> Result<(), PatchError> {
    for name in &patch.removed_initializers {
        let dense = parts.initializers.shift_remove(name).is_some();
        let sparse = parts.sparse_initializers.shift_remove(name).is_some();
        if !dense && !sparse {
            return Err(PatchError::NoSuch { kind: "initializer", name: name.clone() });
        }
        parts.overridable.shift_remove(name);
    }
    let mut others: HashSet<&Name> = parts.nodes.iter().flat_map(|node| node.outputs.iter().flatten()).collect();
    others.extend(parts.inputs.iter().map(|input| &input.name));
    others.extend(parts.sparse_initializers.keys());
    if let Some(&name) = others.iter().find(|name| patch.initializers.contains_key(**name)) {
        return Err(PatchError::NoSuch { kind: "initializer", name: name.clone() });
    }
    parts.initializers.extend(patch.initializers.iter().map(|(name, tensor)| (name.clone(), tensor.clone())));
    Ok(())
}

fn edit_inputs(patch: &Patch, parts: &mut GraphParts) -> Result<(), PatchError> {
    for port in &patch.inputs {
        match port {
            Port::Add(info) => parts.inputs.push(info.clone()),
            Port::Remove(name) => {
                let position = position("input", &parts.inputs, name)?;
                parts.inputs.remove(position);
            }
            Port::Rename(old, new) => {
                let position = position("input", &parts.inputs, old)?;
                check_free(patch, parts, new)?;
                if parts.outputs.iter().any(|output| output.name == *old) {
                    return Err(PatchError::OutputIsInput { name: old.clone() });
                }
                rename::value(parts, old, new)?;
                parts.inputs[position].name = new.clone();
            }
        }
    }
    Ok(())
}

fn edit_outputs(patch: &Patch, parts: &mut GraphParts, names: &mut BTreeSet<Name>) -> Result<(), PatchError> {
    for port in &patch.outputs {
        match port {
            Port::Add(info) => parts.outputs.push(info.clone()),
            Port::Remove(name) => {
                let position = position("output", &parts.outputs, name)?;
                parts.outputs.remove(position);
            }
            Port::Rename(old, new) => {
                let position = position("output", &parts.outputs, old)?;
                check_free(patch, parts, new)?;
                parts.outputs[position].name = new.clone();
                give_name(parts, old, new)?;
                names.insert(new.clone());
            }
        }
    }
    Ok(())
}

fn position(kind: &'static str, infos: &[ValueInfo], name: &Name) -> Result<usize, PatchError> {
    let position = infos.iter().position(|info| info.name == *name);
    position.ok_or_else(|| PatchError::NoSuch { kind, name: name.clone() })
}

fn check_free(patch: &Patch, parts: &GraphParts, name: &Name) -> Result<(), PatchError> {
    let taken = patch.graph.all_names().contains(name) || produced(parts).contains(name);
    if taken { Err(PatchError::NameTaken { name: name.clone() }) } else { Ok(()) }
}

fn produced(parts: &GraphParts) -> HashSet<&Name> {
    let inputs = parts.inputs.iter().map(|input| &input.name);
    let constants = parts.initializers.keys().chain(parts.sparse_initializers.keys());
    let outputs = parts.nodes.iter().flat_map(|node| node.outputs.iter().flatten());
    inputs.chain(constants).chain(outputs).collect()
}

/// Both ends of every redirection must be there.
fn check_redirected(patch: &Patch, parts: &GraphParts, targets: &HashMap<Name, Name>) -> Result<(), PatchError> {
    let before: HashSet<&Name> = patch.graph.value_names().chain(patch.graph.captures()).collect();
    let mut after = produced(parts);
    after.extend(patch.graph.captures());
    for old in patch.redirected.keys() {
        let missing = [(old, &before), (&targets[old], &after)].into_iter().find(|(name, there)| !there.contains(name));
        if let Some((name, _)) = missing {
            return Err(PatchError::NoSuch { kind: "value", name: name.clone() });
        }
    }
    Ok(())
}

/// Gives the name of each redirected output to the value that its uses are redirected to.
fn keep_output_names(
    patch: &Patch,
    parts: &mut GraphParts,
    targets: &HashMap<Name, Name>,
    names: &mut BTreeSet<Name>,
) -> Result<(), PatchError> {
    let mut renamed: HashMap<&Name, &Name> = HashMap::new();
    for old in patch.redirected.keys() {
        if !parts.outputs.iter().any(|output| output.name == *old) {
            continue;
        }
        if parts.inputs.iter().any(|input| input.name == *old) || parts.overridable.contains(old) {
            return Err(PatchError::OutputIsInput { name: old.clone() });
        }
        if produced(parts).contains(old) {
            let elsewhere = unused(names, old);
            names.insert(elsewhere.clone());
            rename::value(parts, old, &elsewhere)?;
        }
        let target = &targets[old];
        let new = renamed.get(target).copied().unwrap_or(target);
        if give_name(parts, new, old)? {
            renamed.insert(target, old);
        }
    }
    Ok(())
}

/// Lets `value` be known as `name`, which is free: by renaming it where only nodes know its name (then true), else through
/// an Identity.
fn give_name(parts: &mut GraphParts, value: &Name, name: &Name) -> Result<bool, PatchError> {
    let produces = |node: &Node| node.outputs.iter().flatten().any(|output| output == value);
    let is_output = parts.outputs.iter().any(|output| output.name == *value);
    if parts.nodes.iter().any(produces) && !is_output {
        rename::value(parts, value, name)?;
        return Ok(true);
    }
    parts.nodes.push(Node::new(Op::Identity, vec![Some(value.clone())], vec![Some(name.clone())]));
    Ok(false)
}

fn remove_unused_initializers(parts: &mut GraphParts) {
    let read: HashSet<Name> = parts.nodes.iter().flat_map(Node::reads).cloned().collect();
    let is_output = |name: &Name| parts.outputs.iter().any(|output| output.name == *name);
    let unused = |name: &Name| !read.contains(name) && !is_output(name) && !parts.overridable.contains(name);
    let initializers: Vec<Name> = parts
        .initializers
        .keys()
        .chain(parts.sparse_initializers.keys())
        .filter(|name| unused(name))
        .cloned()
        .collect();
    let unused: HashSet<Name> = initializers.into_iter().collect();
    parts.initializers.retain(|name, _| !unused.contains(name));
    parts.sparse_initializers.retain(|name, _| !unused.contains(name));
}

/// Nothing may read what the graph had and no longer has.
fn check_removed(patch: &Patch, parts: &GraphParts) -> Result<(), PatchError> {
    let produced = produced(parts);
    let removed: HashSet<&Name> = patch.graph.value_names().filter(|name| !produced.contains(name)).collect();
    for node in &parts.nodes {
        if let Some(value) = node.reads().find(|name| removed.contains(name)) {
            return Err(PatchError::StillUsed { value: value.clone(), reader: node.label() });
        }
    }
    match parts.outputs.iter().find(|output| removed.contains(&output.name)) {
        Some(output) => {
            Err(PatchError::StillUsed { value: output.name.clone(), reader: "the list of outputs".to_string() })
        }
        None => Ok(()),
    }
}

/// Drops what the file stated of values that are gone, or that are not what they were.
fn forget_stale_types(patch: &Patch, parts: &mut GraphParts) {
    let new_nodes = patch.replaced.values().flatten().chain(patch.inserted.iter().map(|(_, node)| node));
    let renewed: HashSet<&Name> = new_nodes
        .flat_map(|node| node.outputs.iter().flatten())
        .chain(&patch.retyped)
        .chain(patch.initializers.keys())
        .chain(patch.redirected.keys())
        .collect();
    let mut value_info = std::mem::take(&mut parts.value_info);
    let produced = produced(parts);
    value_info.retain(|name, _| produced.contains(name) && !renewed.contains(name));
    parts.value_info = value_info;
}

/// The graph with what it states of its values brought up to date, after a change of types.
fn restated(graph: &Graph) -> Result<Graph, PatchError> {
    let types = shape::infer(graph, &Bindings::default())?;
    let wrong: HashSet<&Name> = types
        .notes()
        .iter()
        .filter_map(|note| match note {
            Note::Declared { value, .. } => Some(value),
            Note::Unused { .. } => None,
        })
        .collect();
    let mut parts = graph.to_parts();
    parts.value_info.retain(|name, _| !wrong.contains(name));
    for output in parts.outputs.iter_mut().filter(|output| wrong.contains(&output.name)) {
        output.value_type = types.get(&output.name).cloned();
    }
    close(graph, parts)
}

/// What takes a value's place must be of its type.
fn check_types(patch: &Patch, types: &Types, targets: &HashMap<Name, Name>) -> Result<(), PatchError> {
    let renewed = renewed_types(patch, types)?;
    let now = |name: &Name| renewed.get(name).or_else(|| types.get(name));
    let reproduced = renewed.keys().map(|name| (name, name));
    for (old, new) in targets.iter().chain(reproduced).filter(|(old, _)| !patch.retyped.contains(*old)) {
        let (Some(expected), Some(got)) = (types.get(old), now(new)) else { continue };
        if !compatible(expected, got) {
            let (expected, got) = (expected.to_string(), got.to_string());
            return Err(PatchError::Type { value: old.clone(), expected, got });
        }
    }
    Ok(())
}

/// The types of the constants and the nodes' outputs that the patch brings.
fn renewed_types(patch: &Patch, types: &Types) -> Result<HashMap<Name, ValueType>, PatchError> {
    let mut renewed: HashMap<Name, Typed> = HashMap::new();
    let constants = patch.initializers.iter().map(|(name, tensor)| (name.clone(), shape::of_tensor(tensor)));
    renewed.extend(constants);
    for port in &patch.inputs {
        match port {
            Port::Add(info) => {
                let typed = info.value_type.clone().map(|value_type| Typed { value_type, value: None });
                renewed.extend(typed.map(|typed| (info.name.clone(), typed)));
            }
            Port::Rename(old, new) => {
                renewed.extend(types.typed(old).map(|typed| (new.clone(), typed.clone())));
            }
            Port::Remove(_) => {}
        }
    }
    let mut waiting: Vec<&Node> =
        patch.replaced.values().flatten().chain(patch.inserted.iter().map(|(_, node)| node)).collect();
    let mut open: HashSet<&Name> = waiting.iter().flat_map(|node| node.outputs.iter().flatten()).collect();
    while !waiting.is_empty() {
        let (ready, rest): (Vec<&Node>, Vec<&Node>) =
            waiting.into_iter().partition(|node| !node.reads().any(|name| open.contains(name)));
        if ready.is_empty() {
            // a cycle, which the check of the result names
            break;
        }
        for node in ready {
            let outputs = inferred(node, types, &renewed)?;
            for (name, typed) in node.outputs.iter().zip(outputs) {
                let Some(name) = name else { continue };
                open.remove(name);
                renewed.extend(typed.map(|typed| (name.clone(), typed)));
            }
        }
        waiting = rest;
    }
    Ok(renewed.into_iter().map(|(name, typed)| (name, typed.value_type)).collect())
}

fn inferred(node: &Node, types: &Types, renewed: &HashMap<Name, Typed>) -> Result<Vec<Option<Typed>>, PatchError> {
    let mut known = Types::default();
    for name in node.reads() {
        if let Some(typed) = renewed.get(name).or_else(|| types.typed(name)) {
            known.insert(name, typed.clone());
        }
    }
    Ok(shape::infer_node(node, &known)?)
}

fn compatible(expected: &ValueType, got: &ValueType) -> bool {
    match (expected.tensor(), got.tensor()) {
        (Some(expected), Some(got)) => expected.dtype == got.dtype && same_shape(expected, got),
        (None, None) => expected == got,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn same_shape(expected: &TensorType, got: &TensorType) -> bool {
    let (Some(expected), Some(got)) = (&expected.shape, &got.shape) else { return true };
    let same = |(a, b): (&Dim, &Dim)| a.known().is_none() || b.known().is_none() || a == b;
    expected.len() == got.len() && expected.iter().zip(got).all(same)
}
