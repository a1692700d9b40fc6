//! What moves numbers and does not compute: slices, joints, gathers.

use super::Run;
use super::memory::Memory;
use crate::learn::exec::program::{Id, Primitive};
use crate::learn::exec::{ExecError, indices};
use crate::learn::kernels::{movement, reduce};

impl Run<'_> {
    /// Whether the step is one of these, and computed.
    ///
    /// # Errors
    /// When an index is outside what it points into.
    pub(super) fn movement(&self, memory: &mut Memory<'_>) -> Result<bool, ExecError> {
        let inputs = self.step.inputs.as_slice();
        let y_id = self.step.outputs[0];
        match &self.step.primitive {
            Primitive::Expand => memory.write([y_id], |memory, [y]| {
                reduce::expand(memory.read(inputs[0]), memory.shape(inputs[0]), memory.shape(y_id), y);
            }),
            Primitive::Transpose(permutation) => memory.write([y_id], |memory, [y]| {
                movement::transpose(memory.read(inputs[0]), memory.shape(inputs[0]), permutation, y);
            }),
            Primitive::Slice { starts, steps } => memory.write([y_id], |memory, [y]| {
                let (x, shape) = (memory.read(inputs[0]), memory.shape(inputs[0]));
                movement::slice(x, shape, starts, steps, memory.shape(y_id), y);
            }),
            Primitive::SliceGradient { starts, steps } => memory.write([y_id], |memory, [dx]| {
                let (dy, shape) = (memory.read(inputs[0]), memory.shape(inputs[0]));
                movement::slice_gradient(dy, shape, starts, steps, memory.shape(y_id), dx);
            }),
            Primitive::Concat(axis) => memory.write([y_id], |memory, [y]| {
                let n_rows = memory.shape(y_id)[..*axis].iter().product();
                let width = |id: Id| memory.shape(id)[*axis..].iter().product();
                let parts: Vec<(&[f32], usize)> = inputs.iter().map(|&id| (memory.read(id), width(id))).collect();
                movement::concat(n_rows, &parts, y);
            }),
            Primitive::Pad { begins, value } => memory.write([y_id], |memory, [y]| {
                y.fill(*value as f32);
                let (x, shape) = (memory.read(inputs[0]), memory.shape(inputs[0]));
                movement::write_slice(x, shape, begins, &vec![1; begins.len()], memory.shape(y_id), y);
            }),
            Primitive::CumSum { axis, exclusive, reverse } => memory.write([y_id], |memory, [y]| {
                let sizes = around(memory.shape(y_id), *axis);
                movement::cumsum(sizes, memory.read(inputs[0]), *exclusive, *reverse, y);
            }),
            Primitive::Gather(axis) => {
                let sizes = around(memory.shape(inputs[0]), *axis);
                let rows = self.rows(memory, inputs[1], sizes[1])?;
                memory.write([y_id], |memory, [y]| {
                    movement::gather(sizes, memory.read(inputs[0]), &rows, y);
                });
            }
            Primitive::GatherGradient(axis) => {
                let sizes = around(memory.shape(y_id), *axis);
                let rows = self.rows(memory, inputs[1], sizes[1])?;
                memory.write([y_id], |memory, [dx]| {
                    movement::gather_gradient(sizes, memory.read(inputs[0]), &rows, dx);
                });
            }
            Primitive::ScatterRows => {
                let rows = self.rows(memory, inputs[1], memory.shape(inputs[0])[0])?;
                memory.write([y_id], |memory, [y]| {
                    y.copy_from_slice(memory.read(inputs[0]));
                    let updates = memory.read(inputs[2]);
                    let width = updates.len() / rows.len().max(1);
                    for (update_idx, &row) in rows.iter().enumerate() {
                        y[row * width..][..width].copy_from_slice(&updates[update_idx * width..][..width]);
                    }
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Indices as row numbers.
    fn rows(&self, memory: &Memory<'_>, id: Id, size: usize) -> Result<Vec<usize>, ExecError> {
        indices::positive(memory.read_plain(id), size).map_err(|index| ExecError::Index {
            node: memory.program.origin(self.step).to_string(),
            index,
            size,
        })
    }
}

/// The elements before an axis, along it and after it.
pub(super) fn around(shape: &[usize], axis: usize) -> [usize; 3] {
    [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()]
}
