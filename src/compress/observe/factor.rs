//! The triangular factor of second moments by which columns are rounded one after the other.

use std::ops::Range;

use rayon::prelude::*;

/// What is added to the diagonal, as part of its mean (Frantar et al., 2023, section 3.3).
const DAMPING: f64 = 0.01;

/// Columns that are finished together.
const PANEL: usize = 32;

/// The upper triangle `R` with `R Rᵀ` the moments in this order of columns, damped; row-major, zero below the diagonal.
///
/// GPTQ takes the Cholesky factor of the inverse, `U = R⁻¹` with `H⁻¹ = Uᵀ U`; what it subtracts from the columns to come when it
/// has rounded one is, in terms of `R`, the sum of the errors before times this factor, over its diagonal. So nothing is inverted.
pub(in crate::compress) fn factor(moments: &[f64], order: &[usize]) -> Vec<f32> {
    let n = order.len();
    let mean = order.iter().map(|&j| moments[j * n + j]).sum::<f64>() / n.max(1) as f64;
    let mut damping = if mean > 0.0 { DAMPING * mean } else { 1.0 };
    let mut lower = vec![0f64; n * n];
    loop {
        for (i, row) in lower.chunks_exact_mut(n.max(1)).enumerate() {
            let from = &moments[order[n - 1 - i] * n..][..n];
            row.iter_mut().zip(order.iter().rev()).for_each(|(to, &column)| *to = from[column]);
            row[i] += damping;
        }
        if cholesky(&mut lower, n) {
            break;
        }
        damping *= 10.0;
    }
    let mut upper = vec![0f32; n * n];
    for (i, row) in upper.chunks_exact_mut(n.max(1)).enumerate() {
        let from = &lower[(n - 1 - i) * n..][..n - i];
        row[i..].iter_mut().zip(from.iter().rev()).for_each(|(to, &from)| *to = from as f32);
    }
    upper
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
