//! Sums and the like over any set of axes, their derivatives, and broadcasting back.
//!
//! A long reduction is cut into blocks of its own, so that it neither loses accuracy nor stays on one thread; blocks are
//! joined in their order.

#![allow(unsafe_code)]

use super::movement::copy_strided;
use super::parallel::{
    N_LANES, PIECE, Parts, WORTH_SPREADING, for_pieces, for_ranges, larger, simd, smaller, units_per_piece,
};
use super::strided::broadcast;

/// What many numbers become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    SumSquares,
    SumAbs,
}

/// Elements of a row that are folded at once.
const ROW_BLOCK: usize = 4096;
/// Fewest rows that are folded into one partial row.
const MIN_ROWS: usize = 32;

/// `y` is `x` of this shape reduced over these axes; a reduced axis has size 1 in `y` or is left out, as its reader likes.
///
/// # Panics
/// When lengths are not those of the shapes, as every function here.
#[rustfmt::skip] // a line a reduction
pub fn reduce(reduction: Reduction, x: &[f32], shape: &[usize], axes: &[usize], y: &mut [f32]) {
    let plan = Plan::new(shape, axes);
    assert_eq!((x.len(), y.len()), (shape.iter().product(), plan.n_outputs()), "x and y have their shapes");
    let add = |a: f64, b: f64| a + b;
    match reduction {
        Reduction::Sum | Reduction::Mean => plan.run(x, y, 0.0, #[inline(always)] |sum, x| sum + x, add),
        Reduction::SumSquares => plan.run(x, y, 0.0, #[inline(always)] |sum, x| sum + x * x, add),
        Reduction::SumAbs => plan.run(x, y, 0.0, #[inline(always)] |sum, x| sum + x.abs(), add),
        Reduction::Prod => plan.run(x, y, 1.0, #[inline(always)] |product, x| product * x, |a, b| a * b),
        Reduction::Max => plan.run(x, y, f32::NEG_INFINITY, larger, |a, b| if a > b || a.is_nan() { a } else { b }),
        Reduction::Min => plan.run(x, y, f32::INFINITY, smaller, |a, b| if a < b || a.is_nan() { a } else { b }),
    }
    if reduction == Reduction::Mean {
        let factor = 1.0 / plan.n_reduced() as f32;
        y.iter_mut().for_each(|y| *y *= factor);
    }
}

/// The sum of all elements.
#[must_use]
pub fn sum(x: &[f32]) -> f32 {
    let mut y = [0.0];
    reduce(Reduction::Sum, x, &[x.len()], &[0], &mut y);
    y[0]
}

/// `y` of shape `to` is `x` of shape `from`, broadcast.
pub fn expand(x: &[f32], from: &[usize], to: &[usize], y: &mut [f32]) {
    copy_strided(x, 0, to, &broadcast(from, to), y);
}

/// The sums of the columns of `x`, of rows like `y`; added to what `y` has with `accumulate`.
pub fn column_sums(x: &[f32], accumulate: bool, y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    let shape = [x.len() / y.len(), y.len()];
    if accumulate {
        let mut sums = vec![0.0; y.len()];
        reduce(Reduction::Sum, x, &shape, &[0], &mut sums);
        y.iter_mut().zip(&sums).for_each(|(y, sum)| *y += sum);
    } else {
        reduce(Reduction::Sum, x, &shape, &[0], y);
    }
}

/// Axes by their sizes and strides in `x`, neighbours of a kind joined.
struct Plan {
    kept: Vec<(usize, usize)>,
    reduced: Vec<(usize, usize)>,
    /// The innermost axis: its size, and whether it is reduced. It is in neither list.
    inner: (usize, bool),
}

impl Plan {
    fn new(shape: &[usize], axes: &[usize]) -> Self {
        let mut groups: Vec<(usize, bool)> = Vec::new();
        for (axis, &size) in shape.iter().enumerate().filter(|&(_, &size)| size != 1) {
            let is_reduced = axes.contains(&axis);
            match groups.last_mut() {
                Some((joined, kind)) if *kind == is_reduced => *joined *= size,
                Some(_) | None => groups.push((size, is_reduced)),
            }
        }
        let inner = groups.pop().unwrap_or((1, true));
        let (mut kept, mut reduced, mut stride) = (Vec::new(), Vec::new(), inner.0);
        for &(size, is_reduced) in groups.iter().rev() {
            if is_reduced { &mut reduced } else { &mut kept }.push((size, stride));
            stride *= size;
        }
        Plan { kept, reduced, inner }
    }

    fn n_kept(&self) -> usize {
        self.kept.iter().map(|(size, _)| size).product()
    }

    fn n_outputs(&self) -> usize {
        self.n_kept() * if self.inner.1 { 1 } else { self.inner.0 }
    }

    fn n_reduced(&self) -> usize {
        self.reduced.iter().map(|(size, _)| size).product::<usize>() * if self.inner.1 { self.inner.0 } else { 1 }
    }

    #[inline(always)]
    fn run(
        &self,
        x: &[f32],
        y: &mut [f32],
        start: f32,
        step: impl Fn(f32, f32) -> f32 + Sync,
        join: impl Fn(f64, f64) -> f64 + Sync,
    ) {
        if x.is_empty() {
            y.fill(start);
        } else if self.inner.1 {
            self.fold_rows(x, y, start, step, join);
        } else {
            self.fold_columns(x, y, start, step, join);
        }
    }

    /// The innermost axis is reduced: each output is folded from rows.
    #[inline(always)]
    fn fold_rows(
        &self,
        x: &[f32],
        y: &mut [f32],
        start: f32,
        step: impl Fn(f32, f32) -> f32 + Sync,
        join: impl Fn(f64, f64) -> f64 + Sync,
    ) {
        let row_len = self.inner.0;
        let n_rows: usize = self.reduced.iter().map(|(size, _)| size).product();
        let n_blocks = row_len.div_ceil(ROW_BLOCK);
        let block = |output: usize, idx: usize| {
            let (row, column) = (idx / n_blocks, idx % n_blocks * ROW_BLOCK);
            let offset = offset(&self.kept, output) + offset(&self.reduced, row) + column;
            let x = &x[offset..offset + ROW_BLOCK.min(row_len - column)];
            f64::from(simd(
                #[inline(always)]
                || fold(x, start, &step, &join),
            ))
        };
        let n_parts = n_rows * n_blocks;
        let parts = Parts::new(y);
        if n_parts >= 64 && parts.len() < 64 {
            let mut folded = vec![0f32; n_parts * parts.len()];
            let blocks = Parts::new(&mut folded);
            let per_piece = units_per_piece(row_len.min(ROW_BLOCK));
            for_pieces(blocks.len(), per_piece, x.len() > WORTH_SPREADING, |range| {
                for idx in range {
                    // SAFETY: each index belongs to one piece.
                    unsafe { blocks.part(idx..idx + 1)[0] = block(idx / n_parts, idx % n_parts) as f32 };
                }
            });
            for (output, of_output) in folded.chunks(n_parts).enumerate() {
                let value = of_output.iter().map(|&part| f64::from(part)).reduce(&join).unwrap_or(f64::from(start));
                // SAFETY: this loop alone writes.
                unsafe { parts.part(output..output + 1)[0] = value as f32 };
            }
        } else {
            for_ranges(parts.len(), n_rows * row_len, |range| {
                for output in range {
                    let value = (0..n_parts).map(|idx| block(output, idx)).reduce(&join).unwrap_or(f64::from(start));
                    // SAFETY: each output belongs to one piece.
                    unsafe { parts.part(output..output + 1)[0] = value as f32 };
                }
            });
        }
    }

    /// The innermost axis is kept: rows are folded into a row.
    #[inline(always)]
    fn fold_columns(
        &self,
        x: &[f32],
        y: &mut [f32],
        start: f32,
        step: impl Fn(f32, f32) -> f32 + Sync,
        join: impl Fn(f64, f64) -> f64 + Sync,
    ) {
        let width = self.inner.0;
        let n_rows: usize = self.reduced.iter().map(|(size, _)| size).product();
        let rows_per_block = (PIECE / width).max(MIN_ROWS);
        let n_blocks = n_rows.div_ceil(rows_per_block);
        let n_cuts = width.div_ceil(PIECE);
        let mut partial = if n_blocks > 1 { vec![0f32; y.len() * n_blocks] } else { Vec::new() };
        let target = if n_blocks > 1 { Parts::new(&mut partial) } else { Parts::new(y) };
        let n_units = self.n_kept() * n_blocks * n_cuts;
        let per_piece = units_per_piece(rows_per_block.min(n_rows) * width.min(PIECE));
        for_pieces(n_units, per_piece, x.len() > WORTH_SPREADING, |units| {
            for unit in units {
                let (row_idx, cut) = (unit / n_cuts, unit % n_cuts);
                let (kept, block) = (row_idx / n_blocks, row_idx % n_blocks);
                let columns = cut * PIECE..((cut + 1) * PIECE).min(width);
                let base = offset(&self.kept, kept);
                // SAFETY: each unit has columns of its own in a row of its own.
                let sums = unsafe { target.part(row_idx * width + columns.start..row_idx * width + columns.end) };
                simd(
                    #[inline(always)]
                    || {
                        sums.fill(start);
                        for row in block * rows_per_block..((block + 1) * rows_per_block).min(n_rows) {
                            let x = &x[base + offset(&self.reduced, row)..][columns.clone()];
                            sums.iter_mut().zip(x).for_each(|(sum, &x)| *sum = step(*sum, x));
                        }
                    },
                );
            }
        });
        if n_blocks > 1 {
            for (y, blocks) in y.chunks_mut(width).zip(partial.chunks(n_blocks * width)) {
                y.copy_from_slice(&blocks[..width]);
                for block in blocks[width..].chunks(width) {
                    y.iter_mut().zip(block).for_each(|(y, &x)| *y = join(f64::from(*y), f64::from(x)) as f32);
                }
            }
        }
    }
}

/// Where the element of this index among axes, innermost first, is.
#[inline(always)]
fn offset(axes: &[(usize, usize)], mut idx: usize) -> usize {
    let mut offset = 0;
    for &(size, stride) in axes {
        offset += idx % size * stride;
        idx /= size;
    }
    offset
}

#[inline(always)]
fn fold(x: &[f32], start: f32, step: impl Fn(f32, f32) -> f32, join: impl Fn(f64, f64) -> f64) -> f32 {
    let mut lanes = [start; N_LANES];
    let chunks = x.chunks_exact(N_LANES);
    let rest = chunks.remainder().iter().fold(start, |folded, &x| step(folded, x));
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = step(*lane, x);
        }
    }
    lanes.into_iter().fold(f64::from(rest), |folded, lane| join(folded, f64::from(lane))) as f32
}

#[cfg(test)]
mod tests {
    use super::super::strided::{Walk, contiguous};
    use super::super::testing::{close, numbers, on_any_pool, wide};
    use super::*;

    fn exact(reduction: Reduction, x: &[f64], shape: &[usize], axes: &[usize], n: usize) -> Vec<f64> {
        let mut groups = vec![Vec::new(); n];
        let kept: Vec<usize> =
            (0..shape.len()).map(|axis| if axes.contains(&axis) { 1 } else { shape[axis] }).collect();
        let mut strides = contiguous(&kept);
        axes.iter().for_each(|&axis| strides[axis] = 0);
        let walk = Walk::new(shape, [&strides]);
        walk.segments(0..x.len(), |start, len, [offset], [stride]| {
            for idx in 0..len {
                groups[(offset + idx.cast_signed() * stride).cast_unsigned()].push(x[start + idx]);
            }
        });
        let of = |group: &Vec<f64>| -> f64 {
            let group = group.iter().copied();
            match reduction {
                Reduction::Sum => group.sum(),
                Reduction::Mean => group.clone().sum::<f64>() / group.len() as f64,
                Reduction::Max => group.fold(f64::NEG_INFINITY, f64::max),
                Reduction::Min => group.fold(f64::INFINITY, f64::min),
                Reduction::Prod => group.product(),
                Reduction::SumSquares => group.map(|x| x * x).sum(),
                Reduction::SumAbs => group.map(f64::abs).sum(),
            }
        };
        groups.iter().map(of).collect()
    }

    const ALL: [Reduction; 7] = [
        Reduction::Sum,
        Reduction::Mean,
        Reduction::Max,
        Reduction::Min,
        Reduction::Prod,
        Reduction::SumSquares,
        Reduction::SumAbs,
    ];

    fn check(shape: &[usize], axes: &[usize]) {
        let x = numbers(shape.iter().product(), 1);
        let n: usize = (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).product();
        for reduction in ALL {
            let y = on_any_pool(|| {
                let mut y = vec![f32::NAN; n];
                reduce(reduction, &x, shape, axes, &mut y);
                y
            });
            close(&format!("{reduction:?} {shape:?} {axes:?}"), &y, &exact(reduction, &wide(&x), shape, axes, n), 1e-5);
        }
    }

    #[test]
    fn reductions_over_any_axes() {
        for axes in [&[][..], &[0], &[1], &[2], &[0, 2], &[1, 2], &[0, 1], &[0, 1, 2]] {
            check(&[5, 7, 3], axes);
            check(&[1, 7, 1], axes);
        }
        check(&[3, 4, 2, 5], &[0, 2]);
        check(&[3, 4, 2, 5], &[1, 3]);
        check(&[300_000], &[0]);
        check(&[2, 100_000], &[1]);
        check(&[70_000, 3], &[0]);
        check(&[2, 50_001], &[0]);
        check(&[64, 10, 31, 33], &[0, 2, 3]);
        check(&[], &[]);
    }

    #[test]
    fn nothing_reduces_to_the_neutral_element_and_nan_stays() {
        for (reduction, expected) in
            [(Reduction::Sum, 0.0), (Reduction::Prod, 1.0), (Reduction::Max, f32::NEG_INFINITY)]
        {
            let mut y = [f32::NAN; 3];
            reduce(reduction, &[], &[3, 0], &[1], &mut y);
            assert_eq!(y, [expected; 3]);
        }
        for (at, reduction) in (0..40).flat_map(|at| [(at, Reduction::Max), (at, Reduction::Min)]) {
            let mut x = numbers(40, 1);
            x[at] = f32::NAN;
            let mut y = [0.0];
            reduce(reduction, &x, &[40], &[0], &mut y);
            assert!(y[0].is_nan(), "{reduction:?} {at}");
        }
    }

    #[test]
    fn broadcasting_and_sums_of_columns() {
        let (from, to) = ([3, 1, 2], [4, 3, 5, 2]);
        let x = numbers(6, 1);
        let mut y = vec![f32::NAN; 120];
        expand(&x, &from, &to, &mut y);
        let expected: Vec<f32> = (0..120).map(|idx| x[idx / 10 % 3 * 2 + idx % 2]).collect();
        assert_eq!(y, expected);
        let mut columns = [1.0, 2.0];
        column_sums(&[1.0, 2.0, 3.0, 4.0], true, &mut columns);
        assert_eq!((columns, sum(&[1.0, 2.0, 3.5])), ([5.0, 8.0], 6.5));
    }
}
