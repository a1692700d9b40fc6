//! Planes laid out so that a convolution of any stride, dilation and padding becomes one of stride 1 without padding.
//!
//! A padded plane is cut into its phases: the positions that leave the same remainder by the stride. Within a phase, what
//! a tap sees at all places is one contiguous line, shifted: tap `t` of place `p` lies at `offset(t) + p`, where `p`
//! counts with the phase's pitch. No column of an image is ever copied for each of its taps.

use std::ops::Range;

use crate::learn::kernels::window::ConvShape;

/// One axis of a plane, padded and cut into phases: position `j` of phase `f` is the source's `j · stride + f − origin`.
struct Cut {
    size: usize,
    stride: usize,
    origin: isize,
    phases: Vec<usize>,
    length: usize,
}

impl Cut {
    /// The positions of a phase that lie in the source, and where the first of them does.
    fn inside(&self, phase: usize) -> (Range<usize>, usize) {
        let from = phase as isize - self.origin;
        let before = |end: isize| usize::try_from(end - from).map_or(0, |room| room.div_ceil(self.stride));
        let (first, end) = (before(0).min(self.length), before(self.size as isize).min(self.length));
        if first >= end {
            return (0..0, 0);
        }
        (first..end, ((first * self.stride) as isize + from) as usize)
    }

    fn n_positions(&self) -> usize {
        self.phases.len() * self.length
    }

    /// Writes a line of the source into its phases, each `step` after the one before.
    #[inline(always)]
    fn cut(&self, values: &[f32], step: usize, to: &mut [f32]) {
        for (idx, &phase) in self.phases.iter().enumerate() {
            let (inside, first) = self.inside(phase);
            if !inside.is_empty() {
                gather(&values[first..], self.stride, &mut to[idx * step..][inside]);
            }
        }
    }

    /// Whether a line is cut into two whole halves.
    fn is_halved(&self) -> bool {
        self.stride == 2 && self.phases.len() == 2 && (0..2 * self.length as isize).contains(&self.origin)
    }

    /// As [`Self::cut`], both halves at once, which takes no more than shuffles. `padded` is a padded line, zero around
    /// the source.
    #[inline(always)]
    fn halve(&self, values: &[f32], step: usize, to: &mut [f32], padded: &mut [f32]) {
        let room = &mut padded[self.origin as usize..];
        let n_seen = room.len().min(values.len());
        room[..n_seen].copy_from_slice(&values[..n_seen]);
        let (even, odd) = to.split_at_mut(step);
        let halves = even[..self.length].iter_mut().zip(&mut odd[..self.length]);
        for ((even, odd), pair) in halves.zip(padded.as_chunks::<2>().0) {
            (*even, *odd) = (pair[0], pair[1]);
        }
    }
}

/// How a plane is laid out.
pub(crate) struct Layout {
    cuts: [Cut; 2],
}

impl Layout {
    /// Elements from one plane to the next: lines of the cache, and an odd number of them, because planes that are
    /// powers of two apart would share few places in it.
    pub(crate) fn n_plane(&self) -> usize {
        const LINE: usize = 16;
        let n_lines = self.n_used().div_ceil(LINE);
        (n_lines + usize::from(n_lines.is_multiple_of(2))) * LINE
    }

    fn n_used(&self) -> usize {
        self.cuts[0].n_positions() * self.cuts[1].n_positions()
    }

    /// Elements from one row of a phase to the next.
    pub(crate) fn pitch(&self) -> usize {
        self.cuts[1].length
    }

    fn offset(&self, phases: [usize; 2], shifts: [usize; 2]) -> usize {
        let [rows, columns] = &self.cuts;
        let idx = |cut: &Cut, phase| cut.phases.iter().position(|&f| f == phase).unwrap_or_default();
        let phase_idx = idx(rows, phases[0]) * columns.phases.len() + idx(columns, phases[1]);
        (phase_idx * rows.length + shifts[0]) * columns.length + shifts[1]
    }

    /// Whether the layout is the source itself.
    pub(crate) fn is_source(&self) -> bool {
        self.cuts.iter().all(|cut| cut.stride == 1 && cut.origin == 0 && cut.length == cut.size)
    }

    /// Writes planes of the source into the layout.
    #[inline(always)]
    pub(crate) fn fill(&self, source: &[f32], planes: &mut [f32]) {
        let [rows, columns] = &self.cuts;
        let (n_source, n_phase, n_used) = (rows.size * columns.size, rows.length * columns.length, self.n_used());
        if n_used == 0 {
            return;
        }
        if self.is_source() {
            let pairs = planes.chunks_exact_mut(self.n_plane()).zip(source.chunks_exact(n_source));
            return pairs.for_each(|(plane, source)| plane[..n_source].copy_from_slice(source));
        }
        planes.fill(0.0);
        let mut line = vec![0.0; if columns.is_halved() { 2 * columns.length } else { 0 }];
        for (idx, plane) in planes.chunks_exact_mut(self.n_plane()).enumerate() {
            let source = &source[idx * n_source..][..n_source];
            let bands = plane[..n_used].chunks_exact_mut(n_phase * columns.phases.len());
            for (&row_phase, band) in rows.phases.iter().zip(bands) {
                let (down, first) = rows.inside(row_phase);
                for (row, source_row) in down.zip((first..).step_by(rows.stride)) {
                    let values = &source[source_row * columns.size..][..columns.size];
                    if line.is_empty() {
                        columns.cut(values, n_phase, &mut band[row * columns.length..]);
                    } else {
                        columns.halve(values, n_phase, &mut band[row * columns.length..], &mut line);
                    }
                }
            }
        }
    }
}

/// Every `stride`-th element, the first included.
#[inline(always)]
fn gather(from: &[f32], stride: usize, to: &mut [f32]) {
    match stride {
        1 => to.copy_from_slice(&from[..to.len()]),
        2 => {
            let pairs = from.as_chunks::<2>().0;
            to.iter_mut().zip(pairs).for_each(|(to, pair)| *to = pair[0]);
            if pairs.len() < to.len() {
                to[pairs.len()] = from[2 * pairs.len()];
            }
        }
        _ => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
    }
}

/// Places whose taps lie at fixed offsets from each other: one pass over a layout.
pub(crate) struct Sweep {
    /// The taps that take part, as `ky · kernel_width + kx`.
    pub(crate) taps: Vec<usize>,
    /// Where each lies in a plane of the layout, for the first place.
    pub(crate) offsets: Vec<usize>,
    /// Rows and columns of places.
    pub(crate) places: [usize; 2],
    /// Where in the destination's plane the first place lies, and how far apart rows and columns are.
    pub(crate) first: usize,
    pub(crate) steps: [usize; 2],
}

/// The layout of the input, and the sweep that makes the output of it.
pub(crate) fn forward(shape: &ConvShape) -> (Layout, Sweep) {
    let window = shape.window();
    let cuts = [0, 1].map(|axis| {
        let stride = window.strides[axis];
        let reaches = || (0..window.kernel[axis]).map(|tap| tap * window.dilations[axis]);
        let mut phases: Vec<usize> = reaches().map(|reach| reach % stride).take(stride).collect();
        phases.sort_unstable();
        phases.dedup();
        let length = shape.output()[axis] + reaches().next_back().unwrap_or(0) / stride;
        Cut { size: shape.input()[axis], stride, origin: window.pads[axis][0] as isize, phases, length }
    });
    let layout = Layout { cuts };
    let (taps, offsets) = (0..window.n_taps())
        .map(|tap| {
            let reaches = [tap / window.kernel[1] * window.dilations[0], tap % window.kernel[1] * window.dilations[1]];
            let each = |of: fn(usize, usize) -> usize| [0, 1].map(|axis| of(reaches[axis], window.strides[axis]));
            (tap, layout.offset(each(|reach, stride| reach % stride), each(|reach, stride| reach / stride)))
        })
        .unzip();
    let sweep = Sweep { taps, offsets, places: shape.output(), first: 0, steps: [shape.output()[1], 1] };
    (layout, sweep)
}

/// The layout of the output's gradient, and the sweeps that make the input's of it: one for each phase of the input.
pub(crate) fn backward(shape: &ConvShape) -> (Layout, Vec<Sweep>) {
    let axes = [0, 1].map(|axis| BackwardAxis::new(shape, axis));
    let cuts = [0, 1].map(|axis| {
        let BackwardAxis { shift, least, length, .. } = axes[axis];
        let origin = shift as isize - least as isize;
        Cut { size: shape.output()[axis], stride: 1, origin, phases: vec![0], length }
    });
    let layout = Layout { cuts };
    let mut sweeps = Vec::new();
    for rows in axes[0].phases() {
        for columns in axes[1].phases() {
            let mut taps = Vec::new();
            let mut offsets = Vec::new();
            for &(ky, row) in &rows.taps {
                for &(kx, column) in &columns.taps {
                    taps.push(ky * shape.window().kernel[1] + kx);
                    offsets.push(layout.offset([0, 0], [row, column]));
                }
            }
            let width = shape.input()[1];
            sweeps.push(Sweep {
                taps,
                offsets,
                places: [rows.n_places, columns.n_places],
                first: rows.first * width + columns.first,
                steps: [shape.window().strides[0] * width, shape.window().strides[1]],
            });
        }
    }
    (layout, sweeps)
}

/// One axis of an input whose gradient is wanted. Its padded position `u` is `j · stride + phase`; place `o` sees it
/// with tap `k` where `j = o + k · dilation / stride`.
struct BackwardAxis {
    size: usize,
    pad: usize,
    stride: usize,
    dilation: usize,
    kernel: usize,
    /// The furthest that a tap shifts, the least `j`, and the extent of the layout.
    shift: usize,
    least: usize,
    length: usize,
}

struct BackwardPhase {
    /// Each tap, and where in the layout it sees the first place.
    taps: Vec<(usize, usize)>,
    first: usize,
    n_places: usize,
}

impl BackwardAxis {
    fn new(shape: &ConvShape, axis: usize) -> Self {
        let window = shape.window();
        let (size, pad, stride) = (shape.input()[axis], window.pads[axis][0], window.strides[axis]);
        let (kernel, dilation) = (window.kernel[axis], window.dilations[axis]);
        let shift = (kernel - 1) * dilation / stride;
        let least = pad / stride;
        let length = if size == 0 { 0 } else { (pad + size - 1) / stride + 1 - least + shift };
        Self { size, pad, stride, dilation, kernel, shift, least, length }
    }

    fn phases(&self) -> impl Iterator<Item = BackwardPhase> {
        let &Self { size, pad, stride, dilation, kernel, shift, least, .. } = self;
        (0..stride).filter_map(move |phase| {
            let start = pad.saturating_sub(phase).div_ceil(stride);
            let end = (pad + size).saturating_sub(phase).div_ceil(stride);
            let reaches = (0..kernel).map(|tap| (tap, tap * dilation)).filter(|(_, reach)| reach % stride == phase);
            let taps = reaches.map(|(tap, reach)| (tap, start - least + shift - reach / stride)).collect();
            let first = (start * stride + phase).checked_sub(pad)?;
            (start < end).then(|| BackwardPhase { taps, first, n_places: end - start })
        })
    }
}
