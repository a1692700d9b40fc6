//! The axes of a graph's values, numbered, and their atoms.

use std::collections::HashMap;

use super::{Kind, Role};
use crate::graph::axes::{Axes, Port, Slot};
use crate::graph::shape::Types;
use crate::graph::tensor::Tensor;
use crate::graph::{Dim, Graph, Name, Op};

/// The number of an axis.
pub(super) type AxisId = usize;

/// One axis of known size of one value, or a bundle.
pub(super) struct Axis {
    /// The value; none for a bundle.
    pub(super) value: Option<Name>,
    /// Which of its axes.
    pub(super) axis: usize,
    /// How many slices it has.
    pub(super) size: usize,
    /// The number of its first atom.
    pub(super) first_atom: usize,
    /// Whether the value is stored in the file.
    pub(super) is_initializer: bool,
    /// Whether the value follows from stored ones alone.
    pub(super) is_constant: bool,
    /// What it is to a weight, if it is one's.
    pub(super) role: Option<Role>,
    /// What the weight's operator makes of it.
    pub(super) kind: Option<Kind>,
    /// The nodes that normalise or reduce over it.
    pub(super) crossed_by: Vec<usize>,
}

/// The most atoms that are looked at: as many as a few thousand values of a few thousand channels have. What is beyond is
/// as an axis of unknown size.
const MOST_ATOMS: usize = 1 << 24;

/// How many times longer an axis may be than the longest of any constant. Units lie on longer axes than their weights' only
/// where channels are joined or taken apart.
const MOST_TIMES_LONGER: usize = 64;

/// All of them, but for axes so long that no unit lies on them.
pub(super) struct Space {
    axes: Vec<Axis>,
    longest: usize,
    by_value: HashMap<Name, Vec<Option<AxisId>>>,
    bundles: HashMap<(usize, usize), AxisId>,
    n_atoms: usize,
}

impl Space {
    /// Numbers the constants' axes, then those of inputs and of what the nodes make, in their order.
    pub(super) fn of(graph: &Graph, types: &Types, facts: &[Axes]) -> Space {
        let longest = longest_axis(graph).saturating_mul(MOST_TIMES_LONGER);
        let mut space = Space { axes: vec![], longest, by_value: HashMap::new(), bundles: HashMap::new(), n_atoms: 0 };
        for name in graph.initializers.keys() {
            space.add_value(name, types, true, true);
        }
        for input in &graph.inputs {
            space.add_value(&input.name, types, false, false);
        }
        for (node_idx, node) in graph.nodes.iter().enumerate() {
            let stores = matches!(node.op, Op::Constant(_));
            let computes = node.op.bodies().is_empty() && !matches!(node.op, Op::Opaque(_));
            let known = |name: &Name| space.is_constant(name) || types.constant(name).is_some();
            let constant = computes && node.inputs.iter().flatten().all(known);
            for name in node.outputs.iter().flatten() {
                space.add_value(name, types, stores, constant);
            }
            for (bundle_idx, &size) in facts[node_idx].bundles.iter().enumerate() {
                if let Some(id) = space.add(None, 0, size, false, false) {
                    space.bundles.insert((node_idx, bundle_idx), id);
                }
            }
        }
        space
    }

    fn add_value(&mut self, name: &Name, types: &Types, is_initializer: bool, is_constant: bool) {
        let dims = types.tensor(name).and_then(|tensor| tensor.shape.as_deref()).unwrap_or_default();
        let ids = dims.iter().enumerate().map(|(axis, dim)| match dim {
            Dim::Known(size) => self.add(Some(name.clone()), axis, *size, is_initializer, is_constant),
            Dim::Symbol(_) | Dim::Unknown => None,
        });
        let ids = ids.collect();
        self.by_value.insert(name.clone(), ids);
    }

    fn add(
        &mut self,
        value: Option<Name>,
        axis: usize,
        size: usize,
        is_initializer: bool,
        is_constant: bool,
    ) -> Option<AxisId> {
        if size > self.longest || size > MOST_ATOMS - self.n_atoms {
            return None;
        }
        let first_atom = self.n_atoms;
        self.n_atoms += size;
        let (role, kind, crossed_by) = (None, None, Vec::new());
        self.axes.push(Axis { value, axis, size, first_atom, is_initializer, is_constant, role, kind, crossed_by });
        Some(self.axes.len() - 1)
    }

    /// Whether a value follows from stored ones alone.
    pub(super) fn is_constant(&self, name: &Name) -> bool {
        let ids = self.by_value.get(name).map(Vec::as_slice).unwrap_or_default();
        ids.iter().flatten().next().is_some_and(|&id| self.axes[id].is_constant)
    }

    /// How many axes a value has.
    pub(super) fn rank(&self, name: &Name) -> usize {
        self.by_value.get(name).map_or(0, Vec::len)
    }

    pub(super) fn n_axes(&self) -> usize {
        self.axes.len()
    }

    pub(super) fn n_atoms(&self) -> usize {
        self.n_atoms
    }

    pub(super) fn axis(&self, id: AxisId) -> &Axis {
        &self.axes[id]
    }

    pub(super) fn axis_mut(&mut self, id: AxisId) -> &mut Axis {
        &mut self.axes[id]
    }

    /// The axes of known size of a value.
    pub(super) fn of_value(&self, name: &Name) -> impl Iterator<Item = AxisId> + '_ {
        self.by_value.get(name).into_iter().flatten().flatten().copied()
    }

    /// The axis at a slot of a node.
    pub(super) fn id(&self, graph: &Graph, node_idx: usize, slot: Slot) -> Option<AxisId> {
        let node = &graph.nodes[node_idx];
        let name = match slot.port {
            Port::Input(position) => node.input(position)?,
            Port::Output(position) => node.output(position)?,
            Port::Bundle(bundle_idx) => return self.bundles.get(&(node_idx, bundle_idx)).copied(),
        };
        *self.by_value.get(name)?.get(slot.axis)?
    }
}

fn longest_axis(graph: &Graph) -> usize {
    let computed = graph.nodes.iter().filter_map(|node| match &node.op {
        Op::Constant(attributes) => Some(&attributes.value),
        _ => None,
    });
    let constants = graph.initializers.values().chain(computed);
    constants.flat_map(Tensor::shape).copied().max().unwrap_or(0)
}
