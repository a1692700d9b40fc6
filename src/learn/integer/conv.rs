//! Convolutions of bytes, channels last: each position's window as a row, tap by tap and within each tap channel by channel.

use rayon::prelude::*;

use super::matrix::{Sums, room};
use super::operands::Bytes;
use super::pairs::is_exact;
use super::weights::Packed;
use crate::graph::op;
use crate::graph::tensor::turned;
use crate::graph::window::{Window, conv_axes};

/// Positions that one thread takes at a time.
const N_POSITIONS: usize = 64;

/// The weights of a convolution.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    /// Those of each group.
    groups: Vec<Packed>,
    /// Less their zero points, `[taps, channels]`, where each channel is a group of its own.
    depthwise: Option<Vec<i32>>,
    kernel: Vec<usize>,
    group_inputs: usize,
    n_outputs: usize,
}

impl Filters {
    /// Of weights `[n_outputs, group_inputs, kernel…]`. Depthwise kernels sum in 32 bits on every machine.
    pub(super) fn new(
        weights: &[i32],
        shape: &[usize],
        n_groups: i64,
        zero_points: &[i32],
        saturating: bool,
    ) -> Result<Filters, String> {
        let [n_outputs, group_inputs, kernel @ ..] = shape else {
            return Err(format!("a convolution's weight has shape {shape:?}"));
        };
        let (n_outputs, group_inputs) = (*n_outputs, *group_inputs);
        let n_groups = usize::try_from(n_groups).ok().filter(|&n_groups| n_groups > 0 && n_outputs % n_groups == 0);
        let n_groups = n_groups.ok_or_else(|| format!("groups that {n_outputs} channels cannot be cut into"))?;
        if weights.is_empty() {
            return Err(format!("a convolution's weight has shape {shape:?}"));
        }
        let (n_taps, group_outputs) = (kernel.iter().product::<usize>(), n_outputs / n_groups);
        if zero_points.len() > 1 && zero_points.len() != n_outputs {
            return Err(format!("{} zero points for {n_outputs} channels", zero_points.len()));
        }
        let mut filters =
            Filters { groups: Vec::new(), depthwise: None, kernel: kernel.to_vec(), group_inputs, n_outputs };
        if is_exact(group_inputs, group_outputs) {
            let zero_point = |channel: usize| zero_points.get(channel).or(zero_points.first()).copied().unwrap_or(0);
            let taps_first = turned(weights, n_outputs, n_taps);
            let centred = taps_first.iter().enumerate().map(|(place, weight)| weight - zero_point(place % n_outputs));
            filters.depthwise = Some(centred.collect());
            return Ok(filters);
        }
        // Within each output from channel by tap to tap by channel.
        let ordered = turned(weights, group_inputs, n_taps);
        let depth = n_taps * group_inputs;
        for (group, weights) in ordered.chunks_exact(group_outputs * depth).enumerate() {
            let own = if zero_points.len() > 1 {
                &zero_points[group * group_outputs..][..group_outputs]
            } else {
                zero_points
            };
            filters.groups.push(Packed::new(weights, depth, own, saturating));
        }
        Ok(filters)
    }

    /// Pairs that can saturate, of all there are.
    pub(super) fn n_saturable(&self) -> (usize, usize) {
        let of = |packed: &Packed| (packed.saturable.len(), packed.saturable.n_all);
        self.groups.iter().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// The sums of a convolution, `[n, positions, channels]`, under the shape `[n, channels, spatial…]` that they will have.
pub(super) fn sums(x: &Bytes, filters: &Filters, attributes: &op::Conv, bias: Option<&[i32]>) -> Result<Sums, String> {
    let [n_pictures, n_channels, spatial @ ..] = &x.shape[..] else {
        return Err(format!("a convolution of shape {:?}", x.shape));
    };
    let (n_pictures, n_channels) = (*n_pictures, *n_channels);
    let n_groups = filters.n_outputs / filters.groups.first().map_or(1, |packed| packed.n_outputs);
    if spatial.len() != filters.kernel.len() || n_channels != n_groups * filters.group_inputs {
        return Err(format!("a convolution of shape {:?} by {} channels a group", x.shape, filters.group_inputs));
    }
    let axes = conv_axes(attributes, &filters.kernel).map_err(|error| error.to_string())?;
    let windows = axes.iter().zip(spatial).map(|(axis, &size)| axis.over(size)).collect::<Result<Vec<_>, _>>();
    let windows = windows.map_err(|error| error.to_string())?;
    let places: Vec<usize> = windows.iter().map(|window| window.n_places).collect();
    let shape: Vec<usize> = [n_pictures, filters.n_outputs].into_iter().chain(places.iter().copied()).collect();
    let (n_positions, n_outputs) = (places.iter().product::<usize>(), filters.n_outputs);
    let sources = sources(&windows, &places, &filters.kernel);
    let n_taps = filters.kernel.iter().product::<usize>();
    let padding = u8::try_from(x.zero_point).map_err(|_| format!("a zero point of {}", x.zero_point))?;
    let mut sums = vec![0; room(&shape)?];
    let picture_size = n_channels * spatial.iter().product::<usize>();
    let mut n_saturated = 0;
    let pictures =
        x.bytes.chunks_exact(picture_size.max(1)).zip(sums.chunks_exact_mut((n_positions * n_outputs).max(1)));
    for (picture, sums) in pictures {
        let pixels = turned(picture, n_channels, picture_size / n_channels.max(1));
        let layer = Layer { pixels: &pixels, n_channels, n_taps, padding, zero_point: x.zero_point, filters };
        let blocks = sums.par_chunks_mut(N_POSITIONS * n_outputs).zip(sources.par_chunks(N_POSITIONS * n_taps));
        n_saturated += blocks.map(|(sums, sources)| layer.block(sources, bias, sums)).sum::<u64>();
    }
    let n_pairs = (filters.n_saturable().1 * n_positions * n_pictures) as u64;
    Ok(Sums { sums, shape, n_saturated, n_pairs })
}

/// For every position and tap the pixel that is read; none in the padding.
fn sources(windows: &[Window], places: &[usize], kernel: &[usize]) -> Vec<Option<usize>> {
    let unravel = |mut index: usize, sizes: &[usize]| {
        let mut indices = vec![0; sizes.len()];
        for (own, &size) in indices.iter_mut().zip(sizes).rev() {
            *own = index % size;
            index /= size;
        }
        indices
    };
    let taps: Vec<Vec<usize>> = (0..kernel.iter().product()).map(|tap| unravel(tap, kernel)).collect();
    let mut sources = Vec::with_capacity(places.iter().product::<usize>() * taps.len());
    for position in 0..places.iter().product() {
        let place = unravel(position, places);
        sources.extend(taps.iter().map(|tap| {
            windows.iter().zip(&place).zip(tap).try_fold(0, |pixel, ((window, place), tap)| {
                let at = (place * window.stride + tap * window.dilation).checked_sub(window.pad_begin)?;
                (at < window.size).then_some(pixel * window.size + at)
            })
        }));
    }
    sources
}

/// One picture, and what it is multiplied by.
struct Layer<'a> {
    pixels: &'a [u8],
    n_channels: usize,
    n_taps: usize,
    padding: u8,
    zero_point: i32,
    filters: &'a Filters,
}

impl Layer<'_> {
    /// The sums at some positions, all channels of each.
    fn block(&self, sources: &[Option<usize>], bias: Option<&[i32]>, sums: &mut [i32]) -> u64 {
        let n_outputs = self.filters.n_outputs;
        let n_saturated = match &self.filters.depthwise {
            Some(weights) => {
                self.depthwise(sources, weights, sums);
                0
            }
            None => self.grouped(sources, sums),
        };
        if let Some(bias) = bias {
            for sums in sums.chunks_exact_mut(n_outputs) {
                sums.iter_mut().zip(bias).for_each(|(sum, &bias)| *sum = sum.wrapping_add(bias));
            }
        }
        n_saturated
    }

    fn depthwise(&self, sources: &[Option<usize>], weights: &[i32], sums: &mut [i32]) {
        let n_channels = self.n_channels;
        sums.fill(0);
        for (sources, sums) in sources.chunks_exact(self.n_taps).zip(sums.chunks_exact_mut(n_channels)) {
            for (source, weights) in sources.iter().zip(weights.chunks_exact(n_channels)) {
                let Some(pixel) = source else { continue };
                let pixel = &self.pixels[pixel * n_channels..][..n_channels];
                for ((sum, &byte), weight) in sums.iter_mut().zip(pixel).zip(weights) {
                    *sum += (i32::from(byte) - self.zero_point) * weight;
                }
            }
        }
    }

    fn grouped(&self, sources: &[Option<usize>], sums: &mut [i32]) -> u64 {
        let (n_outputs, group_inputs) = (self.filters.n_outputs, self.filters.group_inputs);
        let n_positions = sums.len() / n_outputs;
        let mut n_saturated = 0;
        for (group, packed) in self.filters.groups.iter().enumerate() {
            let mut rows = Vec::with_capacity(n_positions * packed.depth);
            for source in sources {
                match source {
                    Some(pixel) => {
                        let from = pixel * self.n_channels + group * group_inputs;
                        rows.extend_from_slice(&self.pixels[from..][..group_inputs]);
                    }
                    None => rows.extend(std::iter::repeat_n(self.padding, group_inputs)),
                }
            }
            if self.filters.groups.len() == 1 {
                n_saturated += packed.sums(&rows, self.zero_point, sums);
                continue;
            }
            let mut own = vec![0; n_positions * packed.n_outputs];
            n_saturated += packed.sums(&rows, self.zero_point, &mut own);
            for (sums, own) in sums.chunks_exact_mut(n_outputs).zip(own.chunks_exact(packed.n_outputs)) {
                sums[group * packed.n_outputs..][..packed.n_outputs].copy_from_slice(own);
            }
        }
        n_saturated
    }
}
