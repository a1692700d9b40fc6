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

/// Running statistics, updated as ONNX does: `running · momentum + batch · (1 − momentum)`, with the variance of the
/// batch as it is, not its unbiased estimate.
#[derive(Debug)]
pub struct Running<'a> {
    /// Of each channel.
    pub mean: &'a mut [f32],
    /// Of each channel.
    pub variance: &'a mut [f32],
    /// The part that is kept.
    pub momentum: f32,
}

/// Normalises by the statistics of the batch; keeps the mean and the inverse deviation of each channel.
///
/// # Panics
/// When lengths do not fit together, as every function here.
#[allow(clippy::needless_pass_by_value)] // results, as everywhere
pub fn batch_norm_train(
    layer: BatchNorm<'_>,
    x: &[f32],
    running: Option<Running<'_>>,
    y: &mut [f32],
    kept: (&mut [f32], &mut [f32]),
) {
    let [batch, channels, positions] = layer.checked();
    let n = (batch * positions) as f32;
    assert_eq!((x.len(), y.len()), (batch * channels * positions, x.len()), "x and y have their shape");
    assert_eq!((kept.0.len(), kept.1.len()), (channels, channels), "one mean and one deviation a channel");
    let mut variances = vec![0f32; channels];
    {
        let (parts, of_variance) = (Parts::new(y), Parts::new(&mut variances));
        let (means, inverses) = (Parts::new(kept.0), Parts::new(kept.1));
        for_ranges(channels, batch * positions * COST, |range| {
            for channel in range {
                // SAFETY: each channel belongs to one piece.
                let (mean, inverse, variance) = unsafe {
                    let one = channel..channel + 1;
                    (means.part(one.clone()), inverses.part(one.clone()), of_variance.part(one))
                };
                let planes = (0..batch).map(|sample| (sample * channels + channel) * positions);
                simd(
                    #[inline(always)]
                    || {
                        let plane = |start: usize| &x[start..start + positions];
                        let sum: f64 = planes.clone().map(|start| f64::from(sum_of(plane(start), |x| x))).sum();
                        let m = sum as f32 / n;
                        let squares = |start| f64::from(sum_of(plane(start), |x| (x - m) * (x - m)));
                        let v = planes.clone().map(squares).sum::<f64>() as f32 / n;
                        let r = 1.0 / (v + layer.epsilon).sqrt();
                        (mean[0], inverse[0], variance[0]) = (m, r, v);
                    },
                );
                layer.normalise_channel(channel, mean[0], inverse[0], x, &parts);
            }
        });
        if let Some(Running { mean, variance, momentum }) = running {
            assert_eq!((mean.len(), variance.len()), (channels, channels), "running statistics of each channel");
            // SAFETY: no piece is at work any more.
            let means = unsafe { means.part(0..channels) };
            let update = |running: &mut f32, batch: f32| *running = *running * momentum + batch * (1.0 - momentum);
            mean.iter_mut().zip(means).for_each(|(running, batch)| update(running, *batch));
            variance.iter_mut().zip(&variances).for_each(|(running, &batch)| update(running, batch));
        }
    }
}

/// Normalises by these means and variances.
pub fn batch_norm_inference(layer: BatchNorm<'_>, x: &[f32], (means, variances): (&[f32], &[f32]), y: &mut [f32]) {
    let [batch, channels, positions] = layer.checked();
    assert_eq!((x.len(), y.len()), (batch * channels * positions, x.len()), "x and y have their shape");
    assert_eq!((means.len(), variances.len()), (channels, channels), "one mean and one variance a channel");
    let parts = Parts::new(y);
    for_ranges(channels, batch * positions, |range| {
        for channel in range {
            let inverse = 1.0 / (variances[channel] + layer.epsilon).sqrt();
            layer.normalise_channel(channel, means[channel], inverse, x, &parts);
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
    d_affine: (&mut [f32], &mut [f32]),
) {
    gradient::<true>(layer, (x, y), (means, inverses), dy, dx, d_affine);
}

/// The gradients of [`batch_norm_inference`], whose means and variances are constants; the rest as
/// [`batch_norm_gradient`].
pub fn batch_norm_inference_gradient(
    layer: BatchNorm<'_>,
    (x, y): (&[f32], &[f32]),
    (means, variances): (&[f32], &[f32]),
    dy: &[f32],
    dx: &mut [f32],
    d_affine: (&mut [f32], &mut [f32]),
) {
    let inverses: Vec<f32> = variances.iter().map(|variance| 1.0 / (variance + layer.epsilon).sqrt()).collect();
    gradient::<false>(layer, (x, y), (means, &inverses), dy, dx, d_affine);
}

fn gradient<const OF_BATCH: bool>(
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
            let (of_mean, of_deviation) = if OF_BATCH { (dbias / n, dscale * inverse / n) } else { (0.0, 0.0) };
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
