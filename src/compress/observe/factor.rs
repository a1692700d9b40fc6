//! The triangular factor of second moments, by which columns are settled one after the other, put on a grid or taken out, and weights
//! are fitted.

use std::ops::Range;

use rayon::prelude::*;

use crate::learn::kernels::gemm::{Matrix, gemm};

/// What is added to the diagonal, as part of its mean (Frantar et al., 2023, section 3.3).
const DAMPING: f64 = 0.01;

/// What is added at least to a matrix that is not positive definite.
const LEAST_DAMPING: f64 = 1e-12;

/// Columns that are finished together.
const PANEL: usize = 32;

/// Rows that are solved for together: as many as share what is read of the factor.
const N_ROWS: usize = 16;

/// The upper triangle `R` with `R Rᵀ` the moments in this order of columns, damped; row-major, zero below the diagonal.
///
/// GPTQ takes the Cholesky factor of the inverse, `U = R⁻¹` with `H⁻¹ = Uᵀ U`; what it subtracts from the columns to come when it
/// has rounded one is, in terms of `R`, the sum of the errors before times this factor, over its diagonal. So nothing is inverted.
pub(in crate::compress) fn factor(moments: &[f64], order: &[usize]) -> Vec<f32> {
    let n = order.len();
    let (lower, _) = damped(n, DAMPING, |i, row| {
        let from = &moments[order[n - 1 - i] * n..][..n];
        row.iter_mut().zip(order.iter().rev()).for_each(|(to, &column)| *to = from[column]);
    });
    let mut upper = vec![0f32; n * n];
    for (i, row) in upper.chunks_exact_mut(n.max(1)).enumerate() {
        let from = &lower[(n - 1 - i) * n..][..n - i];
        row[i..].iter_mut().zip(from.iter().rev()).for_each(|(to, &from)| *to = from as f32);
    }
    upper
}

/// The lower triangle `L` with `L Lᵀ` a symmetric matrix of `n` rows, damped, and what was added to its diagonal: `damping` parts of
/// the diagonal's mean, ten times as much for as long as the matrix is not positive definite. Row-major; what is above the diagonal
/// means nothing. `fill` writes a row.
pub(in crate::compress) fn damped(n: usize, damping: f64, fill: impl Fn(usize, &mut [f64])) -> (Vec<f64>, f64) {
    let mut lower = vec![0f64; n * n];
    let refill = |lower: &mut [f64]| {
        lower.chunks_exact_mut(n.max(1)).enumerate().for_each(|(i, row)| fill(i, row));
    };
    refill(&mut lower);
    let mean = (0..n).rev().map(|i| lower[i * n + i]).sum::<f64>() / n.max(1) as f64;
    let (mut added, least) = if mean > 0.0 { (damping * mean, LEAST_DAMPING * mean) } else { (1.0, 1.0) };
    loop {
        (0..n).for_each(|i| lower[i * n + i] += added);
        if cholesky(&mut lower, n) {
            return (lower, added);
        }
        added = (added * 10.0).max(least);
        refill(&mut lower);
    }
}

/// Solves `L Lᵀ x = b` for each of some rows `b`, in their place. `lower` is `L` as [`damped`] gives it.
pub(in crate::compress) fn solve(lower: &[f64], n: usize, rows: &mut [f64]) {
    rows.par_chunks_mut((N_ROWS * n).max(1)).for_each(|rows| {
        let panels = || (0..n).step_by(PANEL).map(|start| start..(start + PANEL).min(n));
        for panel in panels() {
            rows.chunks_exact_mut(n).for_each(|row| finish(lower, n, panel.clone(), row));
        }
        for panel in panels().rev() {
            rows.chunks_exact_mut(n).for_each(|row| take_back(lower, n, panel.clone(), row));
        }
    });
}

/// The elements of a row in these columns, the last first, of which those behind are known and taken off already.
fn take_back(lower: &[f64], n: usize, columns: Range<usize>, row: &mut [f64]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for j in columns.rev() {
                let (before, rest) = row.split_at_mut(j);
                let of_row = &lower[j * n..][..=j];
                rest[0] /= of_row[j];
                let x = rest[0];
                before.iter_mut().zip(of_row).for_each(|(to, l)| *to -= x * l);
            }
        },
    );
}

/// `to += by · from`: what a column's error `by` does to those to come, `from` being its row of the factor.
#[inline(always)]
pub(in crate::compress) fn pull(by: f32, from: &[f32], to: &mut [f32]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || to.iter_mut().zip(from).for_each(|(to, from)| *to += by * from),
    );
}

/// What the numbers of these columns, the next to be settled, would best be were they not changed otherwise: `numbers` are all of a
/// row in the order of the factor, `pulled` what the errors of the columns before pull at them.
pub(in crate::compress) fn targets(factor: &[f32], columns: Range<usize>, numbers: &[f32], pulled: &[f32]) -> Vec<f32> {
    let n = numbers.len();
    let mut pulled = pulled[columns.clone()].to_vec();
    let mut targets = Vec::with_capacity(columns.len());
    for (idx, column) in columns.clone().enumerate() {
        let factor = &factor[column * n..][columns.clone()];
        let moved = pulled[idx] / factor[idx];
        targets.push(numbers[column] + moved);
        pull(-moved, &factor[idx + 1..], &mut pulled[idx + 1..]);
    }
    targets
}

/// Rows of errors times the moments: half the slopes of [`costs()`].
pub(in crate::compress) fn pulls(errors: &[f32], n: usize, moments: &[f32]) -> Vec<f32> {
    let mut pulls = vec![0f32; errors.len()];
    let size = [errors.len() / n.max(1), n, n];
    gemm(size, 1.0, Matrix::rows(errors, n), Matrix::rows(moments, n), false, &mut pulls);
    pulls
}

/// By row, what errors of `n` columns change in what the product makes, squared, on average.
pub(in crate::compress) fn costs(errors: &[f32], n: usize, moments: &[f32]) -> Vec<f64> {
    let n = n.max(1);
    let pulls = pulls(errors, n, moments);
    let product = |(error, pull): (&f32, &f32)| f64::from(*error) * f64::from(*pull);
    let of_row = |(errors, pulls): (&[f32], &[f32])| errors.iter().zip(pulls).map(product).sum();
    errors.chunks(n).zip(pulls.chunks(n)).map(of_row).collect()
}

/// The lower Cholesky factor in the place of a symmetric matrix; what is above the diagonal stays. False where the matrix is not
/// positive definite.
fn cholesky(a: &mut [f64], n: usize) -> bool {
    for start in (0..n).step_by(PANEL) {
        let end = (start + PANEL).min(n);
        let (top, bottom) = a.split_at_mut(end * n);
        for i in start..end {
            let (before, row) = top.split_at_mut(i * n);
            let row = &mut row[..n];
            finish(before, n, start..i, row);
            let pivot = row[i] - dot(&row[..i], &row[..i]);
            if pivot.is_nan() || pivot <= f64::MIN_POSITIVE {
                return false;
            }
            row[i] = pivot.sqrt();
        }
        bottom.par_chunks_mut(n).for_each(|row| finish(top, n, start..end, row));
    }
    true
}

/// The elements of a row in these columns, whose own rows are among those before.
fn finish(before: &[f64], n: usize, columns: Range<usize>, row: &mut [f64]) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for j in columns {
                let other = &before[j * n..][..=j];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
        },
    );
}

/// A sum over lanes that are added in their order.
#[inline(always)]
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const N_LANES: usize = 16;
    let mut lanes = [0f64; N_LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(N_LANES), b.chunks_exact(N_LANES));
    let rest: f64 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..N_LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f64>() + rest
}
