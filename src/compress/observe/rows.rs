//! The vectors that a product multiplies its constant with, taken out of a value row by row.

use std::borrow::Cow;
use std::ops::Range;

use rayon::prelude::*;

use super::product::{Geometry, Read};
use crate::graph::probe::ProbeError;
use crate::graph::tensor::{Tensor, turned};
use crate::graph::window::Window;

/// Places of a window that are looked at of each sample: spread over the image, others for each sample.
const N_PLACES: usize = 128;

/// Samples whose patches are held at once.
const N_SAMPLES: usize = 8;

/// Hands the vectors of a batch to `take`, group by group, as contiguous rows of `n_columns`: of several tensors of one shape, which
/// hold the same value in several networks, those of the same places.
///
/// # Errors
/// When the value has another shape than the product says, or the tensors are not of one shape.
pub(super) fn for_rows<const N: usize>(
    read: &Read,
    n_columns: usize,
    tensors: [&Tensor; N],
    mut take: impl FnMut(usize, [&[f32]; N]),
) -> Result<(), ProbeError> {
    let failed = |problem: String| ProbeError { what: format!("`{}`", read.value), problem };
    let shape = tensors.first().map_or(&[][..], |tensor| tensor.shape());
    let misfit = || failed(format!("has the shape {shape:?}, which does not fit the weight that it meets"));
    if tensors.iter().any(|tensor| tensor.shape() != shape) {
        return Err(failed("has several shapes".to_string()));
    }
    let numbers: Vec<Cow<'_, [f32]>> = tensors
        .iter()
        .map(|tensor| tensor.to_f32s().map_err(|error| failed(error.to_string())))
        .collect::<Result<_, ProbeError>>()?;
    let x: [&[f32]; N] = std::array::from_fn(|idx| &*numbers[idx]);
    match &read.geometry {
        Geometry::Along { from_back } => {
            let from_back = (*from_back).min(shape.len());
            let axis = shape.len().checked_sub(from_back).filter(|_| from_back > 0).ok_or_else(misfit)?;
            if shape[axis] != n_columns {
                return Err(misfit());
            }
            let inner: usize = shape[axis + 1..].iter().product();
            match inner {
                1 => take(0, x),
                _ => take(0, x.map(|x| turned(x, n_columns, inner)).each_ref().map(|rows| &rows[..])),
            }
            Ok(())
        }
        Geometry::Windows { n_groups, axes } => {
            let [n_samples, n_channels, sizes @ ..] = shape else { return Err(misfit()) };
            let n_taps: usize = axes.iter().map(|axis| axis.kernel).product();
            if sizes.len() != axes.len() || n_taps * (n_channels / n_groups) != n_columns {
                return Err(misfit());
            }
            let windows: Result<Vec<Window>, _> = axes.iter().zip(sizes).map(|(axis, &size)| axis.over(size)).collect();
            let patches = Patches {
                windows: windows.map_err(|error| failed(error.to_string()))?,
                n_channels: *n_channels,
                n_pixels: sizes.iter().product(),
                n_taps,
            };
            let per_group = n_channels / n_groups;
            for start in (0..*n_samples).step_by(N_SAMPLES) {
                let samples = start..(start + N_SAMPLES).min(*n_samples);
                for group in 0..*n_groups {
                    let channels = group * per_group..(group + 1) * per_group;
                    let rows = x.map(|x| patches.rows(x, samples.clone(), channels.clone()));
                    take(group, rows.each_ref().map(|rows| &rows[..]));
                }
            }
            Ok(())
        }
    }
}

/// What a window sees of a batch of images.
struct Patches {
    windows: Vec<Window>,
    n_channels: usize,
    n_pixels: usize,
    n_taps: usize,
}

impl Patches {
    /// What is seen of these channels of these samples, a place a row: channels, then taps.
    fn rows(&self, x: &[f32], samples: Range<usize>, channels: Range<usize>) -> Vec<f32> {
        let n_places: usize = self.windows.iter().map(|window| window.n_places).product();
        let per_sample = n_places.min(N_PLACES);
        let n_columns = channels.len() * self.n_taps;
        let mut rows = vec![0f32; samples.len() * per_sample * n_columns];
        rows.par_chunks_mut((per_sample * n_columns).max(1)).enumerate().for_each(|(sample_idx, rows)| {
            let sample = samples.start + sample_idx;
            let start = (sample * self.n_channels + channels.start) * self.n_pixels;
            let image = &x[start..start + channels.len() * self.n_pixels];
            for (idx, row) in rows.chunks_exact_mut(n_columns.max(1)).enumerate() {
                let place = if n_places <= N_PLACES { idx } else { spread(sample * per_sample + idx, n_places) };
                let pixels = self.pixels(place);
                for (taps, plane) in row.chunks_exact_mut(self.n_taps).zip(image.chunks_exact(self.n_pixels.max(1))) {
                    for (tap, pixel) in taps.iter_mut().zip(&pixels) {
                        *tap = pixel.map_or(0.0, |pixel| plane[pixel]);
                    }
                }
            }
        });
        rows
    }

    /// The pixel under each tap at a place; none in the padding.
    fn pixels(&self, place: usize) -> Vec<Option<usize>> {
        let mut pixels = vec![Some(0)];
        let mut below: usize = self.windows.iter().map(|window| window.n_places).product();
        let mut rest = place;
        for window in &self.windows {
            below /= window.n_places.max(1);
            let start = rest / below.max(1) * window.stride;
            rest %= below.max(1);
            let along = |tap: usize| {
                let pixel = (start + tap * window.dilation).checked_sub(window.pad_begin);
                pixel.filter(|&pixel| pixel < window.size)
            };
            let next =
                |before: Option<usize>| (0..window.kernel).map(move |tap| Some(before? * window.size + along(tap)?));
            pixels = pixels.into_iter().flat_map(next).collect();
        }
        pixels
    }
}

/// One of `n` places: those of consecutive numbers lie apart, as evenly as the golden ratio lays them.
fn spread(number: usize, n: usize) -> usize {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let fraction = (number as u64).wrapping_mul(GOLDEN);
    ((u128::from(fraction) * n as u128) >> 64) as usize
}
