//! Layer norm over rows; batch norm over channels in a file of its own.

#![allow(unsafe_code)]

mod batch;

pub use batch::{BatchNorm, batch_norm_gradient, batch_norm_train};

use super::parallel::{PIECE, Parts, WORTH_SPREADING, for_pieces, for_ranges, simd, sum_of, sum_of_pairs};

/// The cost of one element, in cheap operations.
const COST: usize = 2;

/// What a normalised value is multiplied by and what is added to it.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Factors.
    pub scale: &'a [f32],
    /// Terms; none means 0.
    pub bias: Option<&'a [f32]>,
}

/// Where the gradients of [`Affine`] go.
#[derive(Debug)]
pub struct AffineGradient<'a> {
    /// Of the factors.
    pub scale: &'a mut [f32],
    /// Of the terms, where they are wanted.
    pub bias: Option<&'a mut [f32]>,
}

/// `y = (x − mean) / √(variance + epsilon) · scale + bias` over rows of as many elements as the scale has; keeps the mean
/// and the inverse deviation of each row.
///
/// # Panics
/// When lengths do not fit together, as every function here.
#[allow(clippy::needless_pass_by_value)] // results, as everywhere
pub fn layer_norm(epsilon: f32, x: &[f32], affine: Affine<'_>, y: &mut [f32], kept: (&mut [f32], &mut [f32])) {
    let (n, n_rows) = (affine.scale.len(), kept.1.len());
    assert_eq!((x.len(), y.len(), kept.0.len()), (n * n_rows, n * n_rows, n_rows), "rows like the scale");
    assert!(affine.bias.is_none_or(|bias| bias.len() == n), "a bias like the scale");
    let (parts, means, inverses) = (Parts::new(y), Parts::new(kept.0), Parts::new(kept.1));
    for_ranges(n_rows, n * COST, |range| {
        for row in range {
            // SAFETY: each row belongs to one piece.
            let (y, mean, inverse) =
                unsafe { (parts.part(row * n..(row + 1) * n), means.part(row..row + 1), inverses.part(row..row + 1)) };
            let x = &x[row * n..][..n];
            simd(
                #[inline(always)]
                || {
                    let m = sum_of(x, |x| x) / n as f32;
                    let variance = sum_of(x, |x| (x - m) * (x - m)) / n as f32;
                    let r = 1.0 / (variance + epsilon).sqrt();
                    (mean[0], inverse[0]) = (m, r);
                    normalise(x, m, r, affine, y);
                },
            );
        }
    });
}

/// The gradients of [`layer_norm`] from what it kept: the means and the inverse deviations. With `x̂` the normalised value and
/// `g = dy · scale`: `dx = inverse (g − mean(g) − x̂ mean(g x̂))`.
pub fn layer_norm_gradient(
    x: &[f32],
    scale: &[f32],
    (means, inverses): (&[f32], &[f32]),
    dy: &[f32],
    dx: &mut [f32],
    d_affine: AffineGradient<'_>,
) {
    assert_eq!(means.len(), inverses.len(), "a mean and a deviation a row");
    let (n, n_rows) = (scale.len(), inverses.len());
    assert_eq!((x.len(), dy.len(), dx.len()), (n * n_rows, x.len(), x.len()), "rows like the scale");
    assert_eq!(d_affine.scale.len(), n, "a gradient like the scale");
    let rows_per_block = (PIECE / n.max(1)).max(16);
    let n_blocks = n_rows.div_ceil(rows_per_block);
    let mut sums = vec![0f32; n_blocks * 2 * n];
    let (parts, blocks) = (Parts::new(dx), Parts::new(&mut sums));
    for_pieces(n_rows, rows_per_block, x.len() * COST > WORTH_SPREADING, |rows| {
        let block = rows.start / rows_per_block * 2 * n;
        // SAFETY: each block and each row belongs to one piece.
        let (dscale, dbias) = unsafe { (blocks.part(block..block + n), blocks.part(block + n..block + 2 * n)) };
        for row in rows {
            let range = row * n..(row + 1) * n;
            // SAFETY: as above.
            let dx = unsafe { parts.part(range.clone()) };
            simd(
                #[inline(always)]
                || {
                    let (x, dy) = (&x[range.clone()], &dy[range]);
                    row_gradient(x, scale, (means[row], inverses[row]), dy, dx, (dscale, dbias));
                },
            );
        }
    });
    add_blocks(&sums, d_affine);
}

#[inline(always)]
fn normalise(x: &[f32], mean: f32, inverse: f32, affine: Affine<'_>, y: &mut [f32]) {
    let pairs = y.iter_mut().zip(x).zip(affine.scale);
    match affine.bias {
        Some(bias) => pairs.zip(bias).for_each(|(((y, x), scale), bias)| *y = (x - mean) * inverse * scale + bias),
        None => pairs.for_each(|((y, x), scale)| *y = (x - mean) * inverse * scale),
    }
}

#[inline(always)]
fn row_gradient(
    x: &[f32],
    scale: &[f32],
    (mean, inverse): (f32, f32),
    dy: &[f32],
    dx: &mut [f32],
    (dscale, dbias): (&mut [f32], &mut [f32]),
) {
    for ((((dx, x), dy), scale), dscale) in dx.iter_mut().zip(x).zip(dy).zip(scale).zip(dscale) {
        *dx = dy * scale;
        *dscale += dy * (x - mean) * inverse;
    }
    dbias.iter_mut().zip(dy).for_each(|(dbias, dy)| *dbias += dy);
    let n = x.len() as f32;
    let of_mean = sum_of(dx, |g| g) / n;
    let of_deviation = sum_of_pairs(dx, x, |g, x| g * (x - mean)) * inverse * inverse / n;
    for (dx, x) in dx.iter_mut().zip(x) {
        *dx = inverse * (*dx - of_mean - (x - mean) * of_deviation);
    }
}

/// Adds blocks of gradients, of the scale and then of the bias, in their order.
fn add_blocks(blocks: &[f32], gradient: AffineGradient<'_>) {
    let n = gradient.scale.len();
    gradient.scale.fill(0.0);
    let mut bias = gradient.bias;
    if let Some(bias) = &mut bias {
        bias.fill(0.0);
    }
    if n == 0 {
        return;
    }
    for block in blocks.chunks_exact(2 * n) {
        gradient.scale.iter_mut().zip(&block[..n]).for_each(|(sum, x)| *sum += x);
        if let Some(bias) = &mut bias {
            bias.iter_mut().zip(&block[n..]).for_each(|(sum, x)| *sum += x);
        }
    }
}

#[cfg(test)]
mod tests;
