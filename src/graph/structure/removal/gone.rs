//! Which slices of which values go.

use std::collections::{BTreeMap, HashMap};

use super::{Removal, RemovalError};
use crate::graph::shape::Types;
use crate::graph::{Dim, Name};

/// A flag a slice: whether it goes.
pub(super) type Mask = Vec<bool>;

/// The slices that go.
pub(super) struct Gone {
    masks: HashMap<Name, BTreeMap<usize, Mask>>,
    /// The shapes of the values concerned as they were.
    shapes: HashMap<Name, Vec<Dim>>,
}

impl Gone {
    /// All slices of all removals; several may concern the same axis.
    ///
    /// # Errors
    /// When a group has no such unit, when a group's axes are not the graph's, and when an axis would be emptied.
    pub(super) fn of(types: &Types, removals: &[Removal<'_>]) -> Result<Gone, RemovalError> {
        let mut gone = Gone { masks: HashMap::new(), shapes: HashMap::new() };
        for Removal { group, units } in removals {
            if let Some(&unit) = units.iter().find(|&&unit| unit >= group.n_units) {
                let n_units = group.n_units;
                return Err(RemovalError::NoSuchUnit { group: group.name().clone(), unit, n_units });
            }
            for member in &group.members {
                let dims = types.tensor(&member.value).and_then(|tensor| tensor.shape.as_ref());
                let (axis, size) = (member.axis, member.size);
                let Some(dims) = dims.filter(|dims| dims.get(axis) == Some(&Dim::Known(size))) else {
                    return Err(RemovalError::Foreign { value: member.value.clone(), axis, size });
                };
                if units.is_empty() {
                    continue;
                }
                gone.shapes.insert(member.value.clone(), dims.clone());
                let masks = gone.masks.entry(member.value.clone()).or_default();
                let mask = masks.entry(axis).or_insert_with(|| vec![false; size]);
                for index in units.iter().flat_map(|&unit| member.of_unit(unit)) {
                    mask[*index] = true;
                }
                if mask.iter().all(|&gone| gone) {
                    return Err(RemovalError::Empties { value: member.value.clone(), axis });
                }
            }
        }
        Ok(gone)
    }

    /// By axis, which slices of a value go.
    pub(super) fn of_value(&self, name: &Name) -> Option<&BTreeMap<usize, Mask>> {
        self.masks.get(name)
    }

    /// Which slices of an axis go.
    pub(super) fn mask(&self, name: Option<&Name>, axis: usize) -> Option<&Mask> {
        self.masks.get(name?)?.get(&axis)
    }

    /// What is left of a value's shape; none where nothing goes.
    pub(super) fn left(&self, name: &Name) -> Option<Vec<Dim>> {
        let mut dims = self.shapes.get(name)?.clone();
        for (&axis, mask) in self.masks.get(name)? {
            dims[axis] = Dim::Known(n_left(mask));
        }
        Some(dims)
    }
}

/// How many slices stay.
pub(super) fn n_left(mask: &[bool]) -> usize {
    mask.iter().filter(|&&gone| !gone).count()
}
