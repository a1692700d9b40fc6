//! Elements put elsewhere: transposing, slicing, joining; indexing in a file of its own.

#![allow(unsafe_code)]

mod indexing;

pub use indexing::{gather, gather_gradient};

use super::parallel::{Parts, for_ranges};
use super::strided::{Walk, contiguous};

/// Rows and columns of the tiles in which a matrix is transposed: a tile's lines stay in the first cache.
const TILE: usize = 16;

/// `y` is `x` with its axes permuted: axis `i` of `y` is axis `permutation[i]` of `x`.
///
/// # Panics
/// When lengths are not those of the shapes, as every function here.
pub fn transpose(x: &[f32], shape: &[usize], permutation: &[usize], y: &mut [f32]) {
    let strides = contiguous(shape);
    let shape: Vec<usize> = permutation.iter().map(|&axis| shape[axis]).collect();
    let strides: Vec<isize> = permutation.iter().map(|&axis| strides[axis]).collect();
    copy_strided(x, 0, &shape, &strides, y);
}

/// `y`, contiguous of this shape, has the elements of `x` from `offset` on by these strides, which may be 0 or negative.
pub fn copy_strided(x: &[f32], offset: usize, shape: &[usize], strides: &[isize], y: &mut [f32]) {
    assert_eq!(y.len(), shape.iter().product::<usize>(), "y has its shape");
    if y.is_empty() {
        return;
    }
    assert_reach(offset, shape, strides, x.len());
    let walk = Walk::new(shape, [strides]);
    let dims: Vec<(usize, isize)> = walk.dims().map(|(size, [stride])| (size, stride)).collect();
    let fastest = dims.iter().position(|&(_, stride)| stride == 1);
    match (dims.last(), fastest) {
        (Some(&(_, stride)), Some(axis)) if stride > 1 && dims[axis].0 >= 4 => {
            copy_tiles(x, offset, &dims, axis, y);
        }
        (_, _) => copy_rows(x, offset, &walk, y),
    }
}

/// `y` of shape `y_shape` has the elements of `x` from `starts` on in `steps`, which may be negative.
pub fn slice(x: &[f32], shape: &[usize], starts: &[usize], steps: &[isize], y_shape: &[usize], y: &mut [f32]) {
    let (offset, strides) = slice_strides(shape, starts, steps);
    copy_strided(x, offset, y_shape, &strides, y);
}

/// The transpose of [`slice()`]: `dx` has `dy` where it was sliced from, 0 elsewhere.
pub fn slice_gradient(
    dy: &[f32],
    dy_shape: &[usize],
    starts: &[usize],
    steps: &[isize],
    shape: &[usize],
    dx: &mut [f32],
) {
    for_ranges_of(dx, |_, dx| dx.fill(0.0));
    write_slice(dy, dy_shape, starts, steps, shape, dx);
}

/// Writes `x` of shape `x_shape` into the slice of `y` that [`slice()`] would read; the rest of `y` stays.
pub fn write_slice(x: &[f32], x_shape: &[usize], starts: &[usize], steps: &[isize], shape: &[usize], y: &mut [f32]) {
    assert_eq!(x.len(), x_shape.iter().product::<usize>(), "x has its shape");
    assert_eq!(y.len(), shape.iter().product::<usize>(), "y has its shape");
    if x.is_empty() {
        return;
    }
    let (offset, strides) = slice_strides(shape, starts, steps);
    assert_reach(offset, x_shape, &strides, y.len());
    let walk = Walk::new(x_shape, [&strides]);
    let parts = Parts::new(y);
    for_ranges(x.len(), 1, |range| {
        walk.segments(range, |start, len, [at], [stride]| {
            let (x, at) = (&x[start..start + len], offset.wrapping_add_signed(at));
            if stride == 1 {
                // SAFETY: elements of a slice lie at places of their own, each written by the piece that reads it.
                unsafe { parts.part(at..at + len).copy_from_slice(x) };
                return;
            }
            for (idx, &x) in x.iter().enumerate() {
                // SAFETY: as above.
                unsafe { *parts.pointer(at.wrapping_add_signed(idx.cast_signed() * stride)) = x };
            }
        });
    });
}

/// Joins `n_rows` rows of each part into rows of `y`, in order. A part is its elements and the width of its rows: the
/// product of the sizes from the joined axis on.
pub fn concat(n_rows: usize, parts: &[(&[f32], usize)], y: &mut [f32]) {
    let width: usize = parts.iter().map(|(_, width)| width).sum();
    assert_eq!(y.len(), n_rows * width, "y has the rows of all parts");
    for (x, width) in parts {
        assert_eq!(x.len(), n_rows * width, "a part has its rows");
    }
    let rows = Parts::new(y);
    for_ranges(n_rows, width, |range| {
        for row in range {
            let mut start = row * width;
            for (x, width) in parts {
                // SAFETY: each row belongs to one piece.
                unsafe { rows.part(start..start + width).copy_from_slice(&x[row * width..][..*width]) };
                start += width;
            }
        }
    });
}

/// Running sums of `x`, `[outer, n, inner]`, along `n`: of what comes before too (`exclusive`), from the end (`reverse`).
///
/// The gradient of a running sum is the running sum of `dy` the other way round, as exclusive as it was.
pub fn cumsum([outer, n, inner]: [usize; 3], x: &[f32], exclusive: bool, reverse: bool, y: &mut [f32]) {
    assert_eq!((x.len(), y.len()), (outer * n * inner, outer * n * inner), "x and y have their shape");
    let slabs = Parts::new(y);
    for_ranges(outer, n * inner, |range| {
        let mut sums = vec![0f32; inner];
        for slab in range {
            sums.fill(0.0);
            for step in 0..n {
                let row = slab * n + if reverse { n - 1 - step } else { step };
                // SAFETY: each slab belongs to one piece.
                let y = unsafe { slabs.part(row * inner..(row + 1) * inner) };
                for ((y, &x), sum) in y.iter_mut().zip(&x[row * inner..]).zip(&mut sums) {
                    let before = *sum;
                    *sum += x;
                    *y = if exclusive { before } else { *sum };
                }
            }
        }
    });
}

fn slice_strides(shape: &[usize], starts: &[usize], steps: &[isize]) -> (usize, Vec<isize>) {
    let strides = contiguous(shape);
    let offset = strides.iter().zip(starts).map(|(&stride, &start)| stride.cast_unsigned() * start).sum();
    (offset, strides.iter().zip(steps).map(|(stride, step)| stride * step).collect())
}

fn assert_reach(offset: usize, shape: &[usize], strides: &[isize], len: usize) {
    let (mut lowest, mut highest) = (offset.cast_signed(), offset.cast_signed());
    for (&size, &stride) in shape.iter().zip(strides) {
        let end = (size.cast_signed() - 1) * stride;
        if end < 0 { lowest += end } else { highest += end }
    }
    assert!(lowest >= 0 && highest < len.cast_signed(), "strides stay within the elements");
}

/// Calls `work` with consecutive pieces of `y` and where each starts.
fn for_ranges_of(y: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
    let parts = Parts::new(y);
    // SAFETY: ranges of different pieces are disjoint.
    for_ranges(parts.len(), 1, |range| work(range.start, unsafe { parts.part(range) }));
}

fn copy_rows(x: &[f32], offset: usize, walk: &Walk<1>, y: &mut [f32]) {
    for_ranges_of(y, |start, y| {
        walk.segments(start..start + y.len(), |at, len, [from], [stride]| {
            let (y, from) = (&mut y[at - start..][..len], offset.wrapping_add_signed(from));
            match stride {
                1 => y.copy_from_slice(&x[from..from + len]),
                0 => y.fill(x[from]),
                _ => {
                    for (idx, y) in y.iter_mut().enumerate() {
                        *y = x[from.wrapping_add_signed(idx.cast_signed() * stride)];
                    }
                }
            }
        });
    });
}

/// Copies where the innermost axis of `y` and the innermost of `x`, which is `fastest`, are two, by tiles of the two.
fn copy_tiles(x: &[f32], offset: usize, dims: &[(usize, isize)], fastest: usize, y: &mut [f32]) {
    let sizes: Vec<usize> = dims.iter().map(|dim| dim.0).collect();
    let y_strides = contiguous(&sizes);
    let (n_rows, n_columns) = (sizes[fastest], sizes[dims.len() - 1]);
    let (row_stride, column_stride) = (y_strides[fastest].cast_unsigned(), dims[dims.len() - 1].1.cast_unsigned());
    let others: Vec<usize> = (0..dims.len() - 1).filter(|&axis| axis != fastest).collect();
    let n_planes: usize = others.iter().map(|&axis| sizes[axis]).product();
    let n_strips = n_rows.div_ceil(TILE);
    let parts = Parts::new(y);
    for_ranges(n_planes * n_strips, TILE * n_columns * 2, |range| {
        for strip in range {
            let (mut plane, first_row) = (strip / n_strips, strip % n_strips * TILE);
            let (mut from, mut to) = (offset.cast_signed(), 0);
            for &axis in others.iter().rev() {
                let idx = (plane % sizes[axis]).cast_signed();
                plane /= sizes[axis];
                from += idx * dims[axis].1;
                to += idx * y_strides[axis];
            }
            let (from, to) = (from.cast_unsigned(), to.cast_unsigned());
            for first_column in (0..n_columns).step_by(TILE) {
                let last_column = (first_column + TILE).min(n_columns);
                for row in first_row..(first_row + TILE).min(n_rows) {
                    let start = to + row * row_stride;
                    // SAFETY: rows of different strips and planes are different parts of `y`.
                    let y = unsafe { parts.part(start + first_column..start + last_column) };
                    let x = &x[from + row + first_column * column_stride..];
                    for (idx, y) in y.iter_mut().enumerate() {
                        *y = x[idx * column_stride];
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests;
