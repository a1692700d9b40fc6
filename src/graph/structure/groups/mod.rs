//! Coupled groups: the slices of values that can be taken out of a network only together.
//!
//! Every index of every axis of known size is an atom. What the nodes' [`super::super::axes`] tie is joined; the classes that
//! reach into a weight and that nothing pins are the units that can go. Units that lie on the same axes are a group.

mod classes;
mod label;
mod show;
mod space;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::graph::axes::{self, Axes, Slot};
use crate::graph::shape::Types;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Op};

use classes::{Atoms, Classes};
use space::{AxisId, Space};

/// What the units of a group are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Channels of convolutions.
    Channels,
    /// Columns of matrix products and embeddings.
    Features,
    /// Attention heads.
    Heads,
    /// Hidden units of recurrent layers.
    HiddenUnits,
}

/// What an axis of a group is to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The axis of a weight along which the units are made.
    Made,
    /// The axis of a weight along which the units are summed over: where they end.
    Summed,
    /// An axis of another constant: bias, scale, mean.
    Constant,
    /// An axis of a value that is computed.
    Inner,
}

/// The slices of one axis of one value that belong to a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Member {
    /// The value.
    pub value: Name,
    /// Its axis.
    pub axis: usize,
    /// The size of the axis.
    pub size: usize,
    /// What the axis is to the network. A recurrent weight's two axes are two members.
    pub role: Role,
    /// Indices on the axis that go with a unit; the same number for every unit.
    pub n_per_unit: usize,
    /// The indices, unit by unit, ascending within each.
    #[serde(skip)]
    indices: Vec<usize>,
}

impl Member {
    /// The indices that go with a unit, ascending.
    ///
    /// # Panics
    /// When the group has no such unit.
    pub fn of_unit(&self, unit: usize) -> &[usize] {
        &self.indices[unit * self.n_per_unit..(unit + 1) * self.n_per_unit]
    }
}

/// Units that can be taken out one by one, each wherever it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// What the units are.
    pub kind: Kind,
    /// How many there are.
    pub n_units: usize,
    /// Where they are, in the order of the graph.
    pub members: Vec<Member>,
    /// The nodes that normalise or reduce over the units: without one, what is left of the others changes.
    pub crosses: Vec<String>,
}

impl Group {
    /// The weight that makes the units: how a group is called.
    pub fn name(&self) -> &Name {
        let made = self.members.iter().find(|member| member.role == Role::Made);
        &made.or(self.members.first()).expect("a group has members").value
    }

    /// The members of a role.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.role == role)
    }
}

/// Units that cannot be taken out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refused {
    /// The weight that makes them.
    pub weight: Name,
    /// Its axis.
    pub axis: usize,
    /// How many there are.
    pub n_units: usize,
    /// The node, input or output that holds them, and why.
    pub reason: String,
}

/// What can be taken out of a network, and what cannot.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Groups {
    /// What can, in the order of the graph.
    pub groups: Vec<Group>,
    /// What cannot.
    pub refused: Vec<Refused>,
}

/// The coupled groups of a graph. Axes whose size is a symbol have no units; a graph whose shapes are constants, after
/// [`super::super::simplify`], shows more of itself.
pub fn groups(graph: &Graph, types: &Types) -> Groups {
    let uses = Uses::of(graph);
    let facts: Vec<Axes> = graph.nodes.iter().map(|node| axes::axes(node, types)).collect();
    let mut space = Space::of(graph, types, &facts);
    label::label(graph, &facts, &mut space);
    let mut classes = Classes::new(&space);
    pin_ports(graph, &mut classes, &space);
    pin_sizes(graph, types, &uses, &mut classes, &space);
    for (node_idx, axes) in facts.iter().enumerate() {
        join(graph, node_idx, axes, &mut classes, &space);
    }
    classes.fold(&facts, &space, graph);
    collect(graph, &mut classes, &space)
}

/// What the caller of the network gives and gets stays as it is.
fn pin_ports(graph: &Graph, classes: &mut Classes, space: &Space) {
    let mut pin = |name: &Name, what: &str| {
        for id in space.of_value(name) {
            classes.pin_axis(space, id, || format!("`{name}` is {what}"));
        }
    };
    graph.inputs.iter().for_each(|input| pin(&input.name, "an input of the network"));
    graph.outputs.iter().for_each(|output| pin(&output.name, "an output of the network"));
    for body in graph.nodes.iter().flat_map(|node| node.op.bodies()) {
        body.captures().iter().for_each(|name| pin(name, "read by a body, which is not taken apart"));
    }
}

/// An axis whose size is an operand of further arithmetic stays as it is.
fn pin_sizes(graph: &Graph, types: &Types, uses: &Uses<'_>, classes: &mut Classes, space: &Space) {
    for node in &graph.nodes {
        let (first, end) = match &node.op {
            Op::Shape(attributes) => (attributes.start, attributes.end),
            Op::Size => (0, None),
            _ => continue,
        };
        let (Some(data), Some(shape)) = (node.input(0), node.output(0)) else { continue };
        let rank = types.tensor(data).and_then(|tensor| tensor.rank()).unwrap_or(0);
        let start = axes::from_start(first, rank).unwrap_or(0);
        let end = end.and_then(|end| axes::from_start(end, rank)).unwrap_or(rank);
        let read = match (&node.op, sizes_read(graph, types, uses, shape)) {
            (Op::Shape(_), Some(read)) => read.into_iter().map(|position| position + start).collect(),
            (_, _) => (start..end).collect::<Vec<usize>>(),
        };
        for id in space.of_value(data).filter(|&id| read.contains(&space.axis(id).axis)) {
            classes.pin_axis(space, id, || format!("{} reads its size: simplify may help", node.label()));
        }
    }
}

/// The positions that are read of a shape; none where it may be all of them.
fn sizes_read(graph: &Graph, types: &Types, uses: &Uses<'_>, shape: &Name) -> Option<Vec<usize>> {
    if uses.is_output(shape) {
        return None;
    }
    let length = types.known_shape(shape)?.first().copied()?;
    let mut read = Vec::new();
    for reader in uses.readers(shape) {
        let node = &graph.nodes[reader.node_idx];
        let indices = match (&node.op, reader.position) {
            (Op::Gather(_), Some(0)) => types.value(node.input(1)?)?.elements()?,
            (_, _) => return None,
        };
        for index in indices {
            read.push(axes::from_start(index.known()?, length)?);
        }
    }
    Some(read)
}

fn join(graph: &Graph, node_idx: usize, axes: &Axes, classes: &mut Classes, space: &Space) {
    let node = &graph.nodes[node_idx];
    let id = |slot: Slot| space.id(graph, node_idx, slot);
    for tie in &axes.ties {
        match (id(tie.a), id(tie.b)) {
            (Some(a), Some(b)) => classes.tie(space, a, b, &tie.map),
            (Some(alone), None) | (None, Some(alone)) => {
                classes
                    .pin_axis(space, alone, || format!("{}: it is tied to an axis of too many slices", node.label()));
            }
            (None, None) => {}
        }
    }
    for &(slot, reason) in &axes.pinned {
        if let Some(id) = id(slot) {
            classes.pin_axis(space, id, || format!("{}: {reason}", node.label()));
        }
    }
    for &(a, b) in &axes.contracted {
        let inner = |slot: Slot| id(slot).filter(|&id| !space.axis(id).is_constant);
        if let (Some(a), Some(b)) = (inner(a), inner(b)) {
            for id in [a, b] {
                classes
                    .pin_axis(space, id, || format!("{}: two computed values are multiplied along it", node.label()));
            }
        }
    }
}

/// How many atoms lie on each axis, in the order of the axes.
type Signature = Vec<(AxisId, usize)>;

fn collect(graph: &Graph, classes: &mut Classes, space: &Space) -> Groups {
    let mut found = Groups::default();
    let mut by_signature: BTreeMap<(AxisId, Signature), Vec<Atoms>> = BTreeMap::new();
    let mut refused: BTreeMap<(AxisId, String), usize> = BTreeMap::new();
    for class in classes.classes(space) {
        let Some(&(made, _)) = class.atoms.iter().find(|(id, _)| space.axis(*id).role == Some(Role::Made)) else {
            continue;
        };
        let mut signature = Signature::new();
        for &(id, _) in &class.atoms {
            match signature.last_mut() {
                Some((last, n)) if *last == id => *n += 1,
                Some(_) | None => signature.push((id, 1)),
            }
        }
        let whole = signature.iter().find(|&&(id, n)| n == space.axis(id).size).map(|&(id, _)| only_slice(space, id));
        match class.reason.or(whole) {
            Some(reason) => *refused.entry((made, reason)).or_default() += 1,
            None => by_signature.entry((made, signature)).or_default().push(class.atoms),
        }
    }
    for ((_, signature), units) in by_signature {
        found.groups.push(group(graph, space, &signature, &units));
    }
    found.refused = refused
        .into_iter()
        .map(|((made, reason), n_units)| {
            let axis = space.axis(made);
            Refused { weight: axis.value.clone().expect("a weight is a value"), axis: axis.axis, n_units, reason }
        })
        .collect();
    found
}

fn only_slice(space: &Space, id: AxisId) -> String {
    match &space.axis(id).value {
        Some(value) => format!("nothing would be left of `{value}`"),
        None => "nothing would be left of a group".to_string(),
    }
}

fn group(graph: &Graph, space: &Space, signature: &[(AxisId, usize)], units: &[Atoms]) -> Group {
    let mut members = Vec::new();
    let mut kind = None;
    let mut crossing = BTreeSet::new();
    let mut start = 0;
    for &(id, n_per_unit) in signature {
        let axis = space.axis(id);
        kind = kind.max(axis.kind);
        crossing.extend(axis.crossed_by.iter().copied());
        let range = start..start + n_per_unit;
        start = range.end;
        let Some(value) = axis.value.clone() else { continue };
        let indices = units.iter().flat_map(|unit| unit[range.clone()].iter().map(|&(_, index)| index)).collect();
        let otherwise = if axis.is_initializer { Role::Constant } else { Role::Inner };
        let role = axis.role.filter(|_| axis.is_initializer).unwrap_or(otherwise);
        members.push(Member { value, axis: axis.axis, size: axis.size, role, n_per_unit, indices });
    }
    let crosses = crossing.into_iter().map(|node_idx: usize| graph.nodes[node_idx].label()).collect();
    Group { kind: kind.unwrap_or(Kind::Features), n_units: units.len(), members, crosses }
}
