//! Group norm over `[batch, channels, positions]`; with as many groups as channels it is instance norm.

#![allow(unsafe_code)]

use super::super::parallel::{Parts, for_ranges, simd, sum_of, sum_of_pairs};
use super::{Affine, AffineGradient, COST, add_blocks};

/// `y = (x − mean) / √(variance + epsilon) · scale + bias`, mean and variance those of a group of neighbouring channels
/// of one sample, scale and bias those of the channel. Keeps the mean and the inverse deviation of each sample and group,
/// of which there are as many as `kept` has room for.
///
/// # Panics
/// When lengths do not fit together, as [`group_norm_gradient`].
#[allow(clippy::needless_pass_by_value)] // results, as everywhere
pub fn group_norm(
    [batch, channels, positions]: [usize; 3],
    epsilon: f32,
    x: &[f32],
    affine: Affine<'_>,
    y: &mut [f32],
    kept: (&mut [f32], &mut [f32]),
) {
    let n_rows = kept.1.len();
    let n = row_len([batch, channels, positions], n_rows, affine.scale.len());
    assert_eq!((x.len(), y.len(), kept.0.len()), (n * n_rows, n * n_rows, n_rows), "x and y have their shape");
    let (parts, means, inverses) = (Parts::new(y), Parts::new(kept.0), Parts::new(kept.1));
    for_ranges(n_rows, n * COST, |range| {
        for row in range {
            // SAFETY: each row belongs to one piece.
            let (y, mean, inverse) =
                unsafe { (parts.part(row * n..(row + 1) * n), means.part(row..row + 1), inverses.part(row..row + 1)) };
            let (x, first) = (&x[row * n..][..n], row * n / positions % channels);
            simd(
                #[inline(always)]
                || {
                    let m = sum_of(x, |x| x) / n as f32;
                    let r = 1.0 / (sum_of(x, |x| (x - m) * (x - m)) / n as f32 + epsilon).sqrt();
                    (mean[0], inverse[0]) = (m, r);
                    for (idx, (y, x)) in y.chunks_mut(positions).zip(x.chunks(positions)).enumerate() {
                        let factor = r * affine.scale[first + idx];
                        let term = affine.bias.map_or(0.0, |bias| bias[first + idx]);
                        y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - m) * factor + term);
                    }
                },
            );
        }
    });
}

/// The gradients of [`group_norm`] from what it kept: the means and the inverse deviations.
pub fn group_norm_gradient(
    [batch, channels, positions]: [usize; 3],
    (x, scale): (&[f32], &[f32]),
    (means, inverses): (&[f32], &[f32]),
    dy: &[f32],
    dx: &mut [f32],
    d_affine: AffineGradient<'_>,
) {
    let n_rows = inverses.len();
    let n = row_len([batch, channels, positions], n_rows, scale.len());
    assert_eq!((x.len(), dy.len(), dx.len()), (n * n_rows, x.len(), x.len()), "all have their shape");
    let per_group = n.checked_div(positions).unwrap_or(0);
    let mut sums = vec![0f32; batch * 2 * channels];
    let (parts, blocks) = (Parts::new(dx), Parts::new(&mut sums));
    for_ranges(n_rows, n * COST, |range| {
        for row in range {
            let first = row * per_group % channels;
            let block = row * per_group / channels * 2 * channels + first;
            // SAFETY: each row and its channels of its sample belong to one piece.
            let (dx, dscale, dbias) = unsafe {
                let dscale = blocks.part(block..block + per_group);
                (
                    parts.part(row * n..(row + 1) * n),
                    dscale,
                    blocks.part(block + channels..block + channels + per_group),
                )
            };
            let (x, dy, scale) = (&x[row * n..][..n], &dy[row * n..][..n], &scale[first..first + per_group]);
            simd(
                #[inline(always)]
                || row_gradient(positions, (x, scale), (means[row], inverses[row]), dy, dx, (dscale, dbias)),
            );
        }
    });
    add_blocks(&sums, d_affine);
}

#[inline(always)]
fn row_gradient(
    positions: usize,
    (x, scale): (&[f32], &[f32]),
    (mean, inverse): (f32, f32),
    dy: &[f32],
    dx: &mut [f32],
    (dscale, dbias): (&mut [f32], &mut [f32]),
) {
    let (mut of_mean, mut of_deviation) = (0.0, 0.0);
    for (idx, (x, dy)) in x.chunks(positions).zip(dy.chunks(positions)).enumerate() {
        dbias[idx] = sum_of(dy, |dy| dy);
        dscale[idx] = sum_of_pairs(dy, x, |dy, x| dy * (x - mean)) * inverse;
        of_mean += scale[idx] * dbias[idx];
        of_deviation += scale[idx] * dscale[idx];
    }
    let n = x.len() as f32;
    let (of_mean, of_deviation) = (of_mean / n, of_deviation * inverse / n);
    for (idx, dx) in dx.chunks_mut(positions).enumerate() {
        let range = idx * positions..(idx + 1) * positions;
        for ((dx, x), dy) in dx.iter_mut().zip(&x[range.clone()]).zip(&dy[range]) {
            *dx = inverse * (dy * scale[idx] - of_mean - (x - mean) * of_deviation);
        }
    }
}

fn row_len([batch, channels, positions]: [usize; 3], n_rows: usize, n_scales: usize) -> usize {
    assert_eq!(n_scales, channels, "one factor a channel");
    if n_rows == 0 {
        return 0;
    }
    let n_groups = n_rows / batch.max(1);
    assert!(n_groups * batch == n_rows && channels.is_multiple_of(n_groups), "channels divide into groups");
    channels / n_groups * positions
}
