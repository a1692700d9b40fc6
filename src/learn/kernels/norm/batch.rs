//! Batch norm over `[batch, channels, positions]`, with the `ReLU` that often follows it.

#![allow(unsafe_code)]

use super::super::parallel::{Parts, for_ranges, simd, sum_of};
use super::COST;

/// A batch norm of `[batch, channels, positions]`.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    /// Batch, channels, positions.
    pub dims: [usize; 3],
    /// Added to the variance.
    pub epsilon: f32,
    /// One factor a channel.
    pub scale: &'a [f32],
    /// One term a channel.
    pub bias: &'a [f32],
    /// Whether negative results become 0.
    pub relu: bool,
}

/// Normalises by the statistics of the batch; keeps the mean and the inverse deviation of each channel.
///
/// # Panics
/// When lengths do not fit together, as every function here.
pub fn batch_norm_train(layer: BatchNorm<'_>, x: &[f32], y: &mut [f32], (means, inverses): (&mut [f32], &mut [f32])) {
    let [batch, channels, positions] = layer.checked();
    let n = (batch * positions) as f32;
    assert_eq!((x.len(), y.len()), (batch * channels * positions, x.len()), "x and y have their shape");
    assert_eq!((means.len(), inverses.len()), (channels, channels), "one mean and one deviation a channel");
    let (parts, means, inverses) = (Parts::new(y), Parts::new(means), Parts::new(inverses));
    for_ranges(channels, batch * positions * COST, |range| {
        for channel in range {
            let one = channel..channel + 1;
            // SAFETY: each channel belongs to one piece.
            let (mean, inverse) = unsafe { (means.part(one.clone()), inverses.part(one)) };
            let planes = (0..batch).map(|sample| (sample * channels + channel) * positions);
            simd(
                #[inline(always)]
                || {
                    let plane = |start: usize| &x[start..start + positions];
                    let sum: f64 = planes.clone().map(|start| f64::from(sum_of(plane(start), |x| x))).sum();
                    let m = sum as f32 / n;
                    let squares = |start| f64::from(sum_of(plane(start), |x| (x - m) * (x - m)));
                    let v = planes.clone().map(squares).sum::<f64>() as f32 / n;
                    (mean[0], inverse[0]) = (m, 1.0 / (v + layer.epsilon).sqrt());
                },
            );
            layer.normalise_channel(channel, mean[0], inverse[0], x, &parts);
        }
    });
}

/// The gradients of [`batch_norm_train`] from what it kept and, with the `ReLU`, its output `y`, else empty: of `x`, of
/// the scale and of the bias.
pub fn batch_norm_gradient(
    layer: BatchNorm<'_>,
    (x, y): (&[f32], &[f32]),
    (means, inverses): (&[f32], &[f32]),
    dy: &[f32],
    dx: &mut [f32],
    (dscale, dbias): (&mut [f32], &mut [f32]),
) {
    let [batch, channels, positions] = layer.checked();
    assert_eq!((x.len(), dy.len(), dx.len()), (batch * channels * positions, x.len(), x.len()), "all have their shape");
    assert_eq!((means.len(), inverses.len()), (channels, channels), "one mean and one deviation a channel");
    assert_eq!((dscale.len(), dbias.len()), (channels, channels), "one gradient a channel");
    let y = if layer.relu { y } else { dy };
    assert_eq!(y.len(), x.len(), "y has its shape");
    let (parts, dscales, dbiases) = (Parts::new(dx), Parts::new(dscale), Parts::new(dbias));
    for_ranges(channels, batch * positions * COST, |range| {
        for channel in range {
            let (mean, inverse) = (means[channel], inverses[channel]);
            let planes = (0..batch).map(|sample| {
                let start = (sample * channels + channel) * positions;
                start..start + positions
            });
            let (mut of_bias, mut of_scale) = (0f64, 0f64);
            simd(
                #[inline(always)]
                || {
                    for plane in planes.clone() {
                        let of = (&x[plane.clone()], &y[plane.clone()], &dy[plane]);
                        let (bias, scale) = if layer.relu { sums::<true>(of, mean) } else { sums::<false>(of, mean) };
                        of_bias += f64::from(bias);
                        of_scale += f64::from(scale);
                    }
                },
            );
            let (dbias, dscale) = (of_bias as f32, of_scale as f32 * inverse);
            // SAFETY: each channel belongs to one piece.
            unsafe {
                dbiases.part(channel..channel + 1)[0] = dbias;
                dscales.part(channel..channel + 1)[0] = dscale;
            }
            let n = (batch * positions) as f32;
            let (of_mean, of_deviation) = (dbias / n, dscale * inverse / n);
            let factor = layer.scale[channel] * inverse;
            simd(
                #[inline(always)]
                || {
                    for plane in planes.clone() {
                        // SAFETY: each channel belongs to one piece.
                        let dx = unsafe { parts.part(plane.clone()) };
                        let of = x[plane.clone()].iter().zip(&y[plane.clone()]).zip(&dy[plane]);
                        for (dx, ((x, &y), &dy)) in dx.iter_mut().zip(of) {
                            let dy = if !layer.relu || y > 0.0 { dy } else { 0.0 };
                            *dx = factor * (dy - of_mean - (x - mean) * of_deviation);
                        }
                    }
                },
            );
        }
    });
}

/// The sums of what comes through the `ReLU`, and of it times `x − mean`.
#[inline(always)]
fn sums<const RELU: bool>((x, y, dy): (&[f32], &[f32], &[f32]), mean: f32) -> (f32, f32) {
    const N: usize = super::super::parallel::N_LANES;
    let (mut of_bias, mut of_scale) = ([0f32; N], [0f32; N]);
    let through = |y: f32, dy: f32| if !RELU || y > 0.0 { dy } else { 0.0 };
    let whole = x.len() / N * N;
    for ((x, y), dy) in x.chunks_exact(N).zip(y.chunks_exact(N)).zip(dy.chunks_exact(N)) {
        for lane in 0..N {
            let dy = through(y[lane], dy[lane]);
            of_bias[lane] += dy;
            of_scale[lane] += dy * (x[lane] - mean);
        }
    }
    let (mut bias, mut scale) = (sum_of(&of_bias, |x| x), sum_of(&of_scale, |x| x));
    for idx in whole..x.len() {
        let dy = through(y[idx], dy[idx]);
        bias += dy;
        scale += dy * (x[idx] - mean);
    }
    (bias, scale)
}

impl BatchNorm<'_> {
    fn checked(&self) -> [usize; 3] {
        let channels = self.dims[1];
        assert_eq!((self.scale.len(), self.bias.len()), (channels, channels), "one factor and one term a channel");
        self.dims
    }

    fn normalise_channel(&self, channel: usize, mean: f32, inverse: f32, x: &[f32], y: &Parts<'_>) {
        let [batch, channels, positions] = self.dims;
        let (factor, term) = (self.scale[channel] * inverse, self.bias[channel]);
        let floor = if self.relu { 0.0 } else { f32::NEG_INFINITY };
        simd(
            #[inline(always)]
            || {
                for sample in 0..batch {
                    let start = (sample * channels + channel) * positions;
                    // SAFETY: the caller owns this channel.
                    let y = unsafe { y.part(start..start + positions) };
                    for (y, x) in y.iter_mut().zip(&x[start..start + positions]) {
                        let value = (x - mean) * factor + term;
                        *y = if value < floor { floor } else { value };
                    }
                }
            },
        );
    }
}
