//! Softmax and its logarithm along an axis, forward and backward.

#![allow(unsafe_code)]

use super::math;
use super::parallel::{Parts, for_ranges, larger, largest, simd, sum_of, sum_of_pairs};

/// The cost of one element, in cheap operations.
const COST: usize = 4;

/// Which of the two functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Softmax {
    /// `e^x / Σ e^x`
    Plain,
    /// `x − ln Σ e^x`
    Log,
}

/// `y = softmax(x)` along `n`, where both are `[outer, n, inner]`. A slice of minus infinities alone gives NaN.
///
/// # Panics
/// When lengths are not those of the shapes, as every function here.
pub fn softmax(softmax: Softmax, [outer, n, inner]: [usize; 3], x: &[f32], y: &mut [f32]) {
    assert_eq!((x.len(), y.len()), (outer * n * inner, outer * n * inner), "x and y have their shape");
    let parts = Parts::new(y);
    for_ranges(outer, n * inner * COST, |range| {
        for slab in range {
            let range = slab * n * inner..(slab + 1) * n * inner;
            // SAFETY: each slab belongs to one piece.
            let y = unsafe { parts.part(range.clone()) };
            y.copy_from_slice(&x[range]);
            simd(
                #[inline(always)]
                || match (softmax, inner) {
                    (Softmax::Plain, 1) => softmax_row(y),
                    (Softmax::Log, 1) => log_softmax_row(y),
                    (_, _) => columns(softmax, n, inner, y),
                },
            );
        }
    });
}

/// `dx` from the output `y` and `dy`: `y (dy − Σ dy y)`, of the logarithm `dy − e^y Σ dy`.
pub fn softmax_gradient(softmax: Softmax, [outer, n, inner]: [usize; 3], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert_eq!((y.len(), dy.len(), dx.len()), (outer * n * inner, y.len(), y.len()), "all have their shape");
    let parts = Parts::new(dx);
    for_ranges(outer, n * inner * COST, |range| {
        for slab in range {
            let range = slab * n * inner..(slab + 1) * n * inner;
            // SAFETY: each slab belongs to one piece.
            let dx = unsafe { parts.part(range.clone()) };
            let (y, dy) = (&y[range.clone()], &dy[range]);
            simd(
                #[inline(always)]
                || match (softmax, inner) {
                    (Softmax::Plain, 1) => softmax_row_gradient(y, dy, dx),
                    (Softmax::Log, 1) => log_softmax_row_gradient(y, dy, dx),
                    (_, _) => columns_gradient(softmax, inner, y, dy, dx),
                },
            );
        }
    });
}

#[inline(always)]
pub(super) fn softmax_row(y: &mut [f32]) {
    let max = largest(y);
    for y in y.iter_mut() {
        *y = math::exp(*y - max);
    }
    let factor = 1.0 / sum_of(y, |y| y);
    y.iter_mut().for_each(|y| *y *= factor);
}

#[inline(always)]
fn log_softmax_row(y: &mut [f32]) {
    let max = largest(y);
    let sum = sum_of(
        y,
        #[inline(always)]
        |y| math::exp(y - max),
    );
    let log = math::log(sum);
    y.iter_mut().for_each(|y| *y = (*y - max) - log);
}

#[inline(always)]
fn softmax_row_gradient(y: &[f32], dy: &[f32], dx: &mut [f32]) {
    let dot = sum_of_pairs(y, dy, |y, dy| y * dy);
    dx.iter_mut().zip(y).zip(dy).for_each(|((dx, y), dy)| *dx = y * (dy - dot));
}

#[inline(always)]
fn log_softmax_row_gradient(y: &[f32], dy: &[f32], dx: &mut [f32]) {
    let sum = sum_of(dy, |dy| dy);
    for ((dx, &y), dy) in dx.iter_mut().zip(y).zip(dy) {
        *dx = dy - math::exp(y) * sum;
    }
}

/// Columns that are normalised side by side.
const N_COLUMNS: usize = 64;

#[inline(always)]
fn columns(softmax: Softmax, n: usize, inner: usize, y: &mut [f32]) {
    for start in (0..inner).step_by(N_COLUMNS) {
        let width = N_COLUMNS.min(inner - start);
        let row = |idx: usize| idx * inner + start..idx * inner + start + width;
        let (mut max, mut sum) = ([f32::NEG_INFINITY; N_COLUMNS], [0f32; N_COLUMNS]);
        for idx in 0..n {
            max.iter_mut().zip(&y[row(idx)]).for_each(|(max, &y)| *max = larger(*max, y));
        }
        for idx in 0..n {
            for ((y, max), sum) in y[row(idx)].iter_mut().zip(&max).zip(&mut sum) {
                let e = math::exp(*y - max);
                *sum += e;
                *y = if softmax == Softmax::Plain { e } else { *y - max };
            }
        }
        for idx in 0..n {
            for (y, &sum) in y[row(idx)].iter_mut().zip(&sum) {
                *y = if softmax == Softmax::Plain { *y / sum } else { *y - math::log(sum) };
            }
        }
    }
}

#[inline(always)]
fn columns_gradient(softmax: Softmax, inner: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    for start in (0..inner).step_by(N_COLUMNS) {
        let columns = start..(start + N_COLUMNS).min(inner);
        let mut sums = [0f32; N_COLUMNS];
        for (y, dy) in y.chunks(inner).zip(dy.chunks(inner)) {
            for ((sum, y), dy) in sums.iter_mut().zip(&y[columns.clone()]).zip(&dy[columns.clone()]) {
                *sum += if softmax == Softmax::Plain { y * dy } else { *dy };
            }
        }
        for ((y, dy), dx) in y.chunks(inner).zip(dy.chunks(inner)).zip(dx.chunks_mut(inner)) {
            let pairs = y[columns.clone()].iter().zip(&dy[columns.clone()]).zip(&sums);
            for (dx, ((&y, dy), sum)) in dx[columns.clone()].iter_mut().zip(pairs) {
                *dx = if softmax == Softmax::Plain { y * (dy - sum) } else { dy - math::exp(y) * sum };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, differences, dot, numbers, on_any_pool, wide};
    use super::*;

    fn exact(kind: Softmax, [outer, n, inner]: [usize; 3], x: &[f64]) -> Vec<f64> {
        let at = |o: usize, i: usize, j: usize| x[(o * n + i) * inner + j];
        (0..outer * n * inner)
            .map(|idx| {
                let (o, j) = (idx / (n * inner), idx % inner);
                let sum: f64 = (0..n).map(|i| at(o, i, j).exp()).sum();
                if kind == Softmax::Plain { x[idx].exp() / sum } else { x[idx] - sum.ln() }
            })
            .collect()
    }

    fn check(dims: [usize; 3]) {
        let size = dims.iter().product();
        let x: Vec<f32> = numbers(size, 1).iter().map(|x| 5.0 * x).collect();
        let dy = numbers(size, 2);
        for kind in [Softmax::Plain, Softmax::Log] {
            let run = || {
                let (mut y, mut dx) = (vec![f32::NAN; size], vec![f32::NAN; size]);
                softmax(kind, dims, &x, &mut y);
                softmax_gradient(kind, dims, &y, &dy, &mut dx);
                [y, dx].concat()
            };
            let got = on_any_pool(run);
            close(&format!("{kind:?} {dims:?}"), &got[..size], &exact(kind, dims, &wide(&x)), 1e-6);
            if size <= 300 {
                let expected = differences(&wide(&x), |x| dot(&exact(kind, dims, x), &dy));
                close(&format!("{kind:?}' {dims:?}"), &got[size..], &expected, 1e-5);
            }
        }
    }

    #[test]
    fn values_and_gradients() {
        for dims in [[3, 7, 1], [5, 1, 1], [1, 40, 1], [2, 5, 3], [1, 3, 70], [700, 131, 1], [30, 11, 301]] {
            check(dims);
        }
    }

    #[test]
    fn large_and_masked_logits() {
        let mut y = [0.0; 3];
        softmax(Softmax::Plain, [1, 3, 1], &[1e30, 1e30, f32::NEG_INFINITY], &mut y);
        assert_eq!(y, [0.5, 0.5, 0.0]);
        softmax(Softmax::Log, [1, 3, 1], &[500.0, -500.0, f32::NEG_INFINITY], &mut y);
        assert_eq!(y, [0.0, -1000.0, f32::NEG_INFINITY]);
    }
}
