//! Padding and cropping, by ONNX's four modes, and the transpose.

#![allow(unsafe_code)]

use std::ops::Range;

use super::super::parallel::{Parts, for_ranges};

/// What stands outside the tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// This value.
    Constant(f32),
    /// The tensor mirrored at its first and last elements, which are not repeated.
    Reflect,
    /// The first or last element.
    Edge,
    /// The tensor again.
    Wrap,
}

/// `y` is `x` with elements put before and after along each axis, or taken away where a pad is negative.
///
/// # Panics
/// When lengths are not those of the shapes, as [`pad_gradient`].
pub fn pad(mode: PadMode, x: &[f32], shape: &[usize], pads: &[(isize, isize)], y: &mut [f32]) {
    let plan = Plan::new(mode, shape, pads);
    assert_eq!((x.len(), y.len()), (plan.n_inputs, plan.n_rows * plan.width), "x and y have their shapes");
    let outside = if let PadMode::Constant(value) = mode { value } else { 0.0 };
    let parts = Parts::new(y);
    for_ranges(plan.n_rows, plan.width, |range| {
        for row in range {
            // SAFETY: each row belongs to one piece.
            let y = unsafe { parts.part(row * plan.width..(row + 1) * plan.width) };
            let Some(start) = plan.source_row(row) else {
                y.fill(outside);
                continue;
            };
            let x = &x[start..start + plan.inner_size];
            y[plan.inside.clone()].copy_from_slice(&x[plan.inside_source.clone()]);
            for column in (0..plan.inside.start).chain(plan.inside.end..plan.width) {
                y[column] = plan.columns[column].map_or(outside, |source| x[source]);
            }
        }
    });
}

/// The transpose of [`pad`]: `dx` has the sum of `dy` over every place an element went to.
pub fn pad_gradient(mode: PadMode, dy: &[f32], shape: &[usize], pads: &[(isize, isize)], dx: &mut [f32]) {
    let plan = Plan::new(mode, shape, pads);
    assert_eq!((dx.len(), dy.len()), (plan.n_inputs, plan.n_rows * plan.width), "dx and dy have their shapes");
    // Axes before the first that is padded cut both tensors into slabs that have nothing to do with each other.
    let padded = pads.iter().position(|&pad| pad != (0, 0)).unwrap_or(pads.len()).min(shape.len().saturating_sub(1));
    let n_slabs: usize = shape[..padded].iter().product();
    if dx.is_empty() || n_slabs == 0 {
        return;
    }
    let (slab_len, slab_rows) = (dx.len() / n_slabs, plan.n_rows / n_slabs);
    let parts = Parts::new(dx);
    for_ranges(n_slabs, slab_rows * plan.width, |slabs| {
        // SAFETY: slabs of different pieces are disjoint.
        let dx = unsafe { parts.part(slabs.start * slab_len..slabs.end * slab_len) };
        dx.fill(0.0);
        for row in slabs.start * slab_rows..slabs.end * slab_rows {
            let Some(start) = plan.source_row(row) else { continue };
            let (dy, dx) = (&dy[row * plan.width..][..plan.width], &mut dx[start - slabs.start * slab_len..]);
            let inside = dx[plan.inside_source.clone()].iter_mut();
            inside.zip(&dy[plan.inside.clone()]).for_each(|(dx, dy)| *dx += dy);
            for column in (0..plan.inside.start).chain(plan.inside.end..plan.width) {
                if let Some(source) = plan.columns[column] {
                    dx[source] += dy[column];
                }
            }
        }
    });
}

/// Where each element of the padded tensor comes from.
struct Plan {
    /// Of each axis but the last: the source of every index, and the stride of the source.
    outer: Vec<(Vec<Option<usize>>, usize)>,
    /// The same of the last axis.
    columns: Vec<Option<usize>>,
    /// The columns that are copied as they are, and from where.
    inside: Range<usize>,
    inside_source: Range<usize>,
    inner_size: usize,
    n_rows: usize,
    width: usize,
    n_inputs: usize,
}

impl Plan {
    fn new(mode: PadMode, shape: &[usize], pads: &[(isize, isize)]) -> Self {
        assert_eq!(shape.len(), pads.len(), "one pair of pads an axis");
        let mut maps: Vec<(Vec<Option<usize>>, usize)> = Vec::new();
        let mut stride = 1;
        for (&size, &(before, after)) in shape.iter().zip(pads).rev() {
            let padded = (size.cast_signed() + before + after).max(0);
            maps.push(((0..padded).map(|idx| source(mode, idx - before, size)).collect(), stride));
            stride *= size;
        }
        maps.reverse();
        let (columns, _) = maps.pop().unwrap_or((vec![Some(0)], 1));
        let inner_size = shape.last().copied().unwrap_or(1);
        let before = pads.last().map_or(0, |pads| pads.0);
        let start = before.max(0).cast_unsigned().min(columns.len());
        let source_start = (-before).max(0).cast_unsigned().min(inner_size);
        let len = (columns.len() - start).min(inner_size - source_start);
        Plan {
            n_rows: maps.iter().map(|(map, _)| map.len()).product(),
            width: columns.len(),
            n_inputs: stride,
            inside: start..start + len,
            inside_source: source_start..source_start + len,
            inner_size,
            outer: maps,
            columns,
        }
    }

    /// Where the source of this row starts; none where the row lies outside.
    fn source_row(&self, mut row: usize) -> Option<usize> {
        let mut start = 0;
        for (map, stride) in self.outer.iter().rev() {
            start += map[row % map.len()]? * stride;
            row /= map.len();
        }
        Some(start)
    }
}

/// The index within `size` that stands at `idx`, which may lie outside.
fn source(mode: PadMode, idx: isize, size: usize) -> Option<usize> {
    if (0..size.cast_signed()).contains(&idx) {
        return Some(idx.cast_unsigned());
    }
    let last = size.checked_sub(1)?.cast_signed();
    match mode {
        PadMode::Constant(_) => None,
        PadMode::Edge => Some(idx.clamp(0, last).cast_unsigned()),
        PadMode::Wrap => Some(idx.rem_euclid(last + 1).cast_unsigned()),
        PadMode::Reflect if last == 0 => Some(0),
        PadMode::Reflect => {
            let within = idx.rem_euclid(2 * last);
            Some(within.min(2 * last - within).cast_unsigned())
        }
    }
}
