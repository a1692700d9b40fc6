//! Depthwise convolution, where every channel has its own kernel and sees no other channel.

#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop)] // channels and vectors count through several arrays at once

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::conv::Activation;
use super::conv::planes::{self, Layout, Sweep};
use super::conv::tile::relu;
use super::conv::tile::{Registers, Slot, accumulate, slots, store};
use super::scratch;
use super::window::ConvShape;

/// As [`super::conv::forward`].
pub(super) fn forward(
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    let (layout, sweep) = planes::forward(shape);
    let planes = (x, shape.input_plane());
    sweep_planes(shape, &layout, &[sweep], planes, weight, bias, activation, (y, shape.output_plane()));
}

/// As [`super::conv::input_gradient`].
pub(super) fn input_gradient(shape: &ConvShape, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let (layout, sweeps) = planes::backward(shape);
    let planes = (dy, shape.output_plane());
    sweep_planes(shape, &layout, &sweeps, planes, weight, None, Activation::None, (dx, shape.input_plane()));
}

/// Planes small enough to share a task.
const PIECE: usize = 1 << 14;

#[allow(clippy::too_many_arguments)] // two planes, and what turns one into the other
fn sweep_planes(
    shape: &ConvShape,
    layout: &Layout,
    sweeps: &[Sweep],
    (source, n_source): (&[f32], usize),
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    (destination, n_destination): (&mut [f32], usize),
) {
    if destination.is_empty() {
        return;
    }
    let registers = Registers::of_this_machine();
    let prepared: Vec<Prepared<'_>> = sweeps
        .iter()
        .map(|sweep| Prepared {
            slots: slots(layout, sweep, registers.n_lanes),
            offsets: sweep.offsets.iter().map(|&offset| offset as u32).collect(),
            sweep,
        })
        .collect();
    let (n_channels, n_taps) = (shape.groups(), shape.window().n_taps());
    let planes_a_piece = PIECE / n_destination + 1;
    destination.par_chunks_mut(n_destination * planes_a_piece).enumerate().for_each(|(piece_idx, destination)| {
        scratch::with(layout.n_plane() + registers.n_lanes, |laid| {
            for (idx, destination) in destination.chunks_mut(n_destination).enumerate() {
                let plane_idx = piece_idx * planes_a_piece + idx;
                let channel = plane_idx % n_channels;
                Arch::new().dispatch(Plane {
                    layout,
                    prepared: &prepared,
                    weight: &weight[channel * n_taps..][..n_taps],
                    bias: bias.map_or(0.0, |bias| bias[channel]),
                    activation,
                    source: &source[plane_idx * n_source..][..n_source],
                    laid,
                    destination,
                });
            }
        });
    });
}

struct Prepared<'a> {
    slots: Vec<Slot>,
    offsets: Vec<u32>,
    sweep: &'a Sweep,
}

struct Plane<'a> {
    layout: &'a Layout,
    prepared: &'a [Prepared<'a>],
    weight: &'a [f32],
    bias: f32,
    activation: Activation,
    source: &'a [f32],
    laid: &'a mut [f32],
    destination: &'a mut [f32],
}

impl WithSimd for Plane<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let n_laid = self.layout.n_plane();
        self.layout.fill(self.source, &mut self.laid[..n_laid]);
        let mut weights = Vec::with_capacity(self.weight.len());
        for prepared in self.prepared {
            weights.clear();
            weights.extend(prepared.sweep.taps.iter().map(|&tap| self.weight[tap]));
            let (fours, rest) = prepared.slots.as_chunks::<4>();
            for [a, b, c, d] in fours {
                self.vectors(simd, prepared, &weights, [a, b, c, d]);
            }
            for slot in rest {
                self.vectors(simd, prepared, &weights, [slot]);
            }
        }
    }
}

impl Plane<'_> {
    #[inline(always)]
    fn vectors<S: Simd, const V: usize>(
        &mut self,
        simd: S,
        prepared: &Prepared<'_>,
        weights: &[f32],
        slots: [&Slot; V],
    ) {
        let mut sources = [self.laid.as_ptr(); V];
        for v in 0..V {
            sources[v] = sources[v].wrapping_add(slots[v].source);
        }
        // SAFETY: a slot begins at a place of the sweep, so its first lane lies in the plane at every offset, and the
        // buffer goes on for a vector after the plane; there is one weight for each offset.
        let [sums] = unsafe { accumulate::<S, 1, V>(simd, &prepared.offsets, weights.as_ptr(), sources, [self.bias]) };
        let mut sums = sums;
        if self.activation == Activation::Relu {
            for v in 0..V {
                sums[v] = relu(simd, sums[v], simd.splat_f32s(0.0));
            }
        }
        // SAFETY: pieces go to places of the sweep, which lie in the destination's plane.
        unsafe { store::<S, V>(sums, slots, prepared.sweep.steps[1], self.destination.as_mut_ptr()) };
    }
}

/// As [`super::conv::weight_gradient`].
pub(super) fn weight_gradient(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    if shape.n_output() == 0 || dw.is_empty() {
        return dw.fill(0.0);
    }
    let (layout, sweep) = planes::forward(shape);
    let n_lanes = Registers::of_this_machine().n_lanes;
    let n_channels = shape.groups();
    dw.par_chunks_mut(shape.window().n_taps()).enumerate().for_each(|(channel, dw)| {
        let n_laid = layout.n_plane() + n_lanes;
        let n_spread = ((sweep.places[0] - 1) * layout.pitch() + sweep.places[1]).next_multiple_of(n_lanes);
        scratch::with(n_laid + n_spread + dw.len() * n_lanes, |room| {
            let (laid, rest) = room.split_at_mut(n_laid);
            let (spread, sums) = rest.split_at_mut(n_spread);
            // what lies between the rows and after the last meets a zero, and must not be a NaN left from before
            laid.fill(0.0);
            spread.fill(0.0);
            sums.fill(0.0);
            for plane_idx in (0..shape.n()).map(|image| image * n_channels + channel) {
                let x = &x[plane_idx * shape.input_plane()..][..shape.input_plane()];
                let dy = &dy[plane_idx * shape.output_plane()..][..shape.output_plane()];
                Arch::new().dispatch(Products { layout: &layout, sweep: &sweep, x, dy, laid, spread, sums });
            }
            for (value, sums) in dw.iter_mut().zip(sums.chunks_exact(n_lanes)) {
                *value = sums.iter().sum();
            }
        });
    });
}

/// What one plane adds to the gradient of its kernel.
struct Products<'a> {
    layout: &'a Layout,
    sweep: &'a Sweep,
    x: &'a [f32],
    dy: &'a [f32],
    laid: &'a mut [f32],
    /// The output's gradient with the layout's pitch.
    spread: &'a mut [f32],
    /// A vector of sums for each tap.
    sums: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n_laid = self.layout.n_plane();
        self.layout.fill(self.x, &mut self.laid[..n_laid]);
        let rows = self.spread.chunks_mut(self.layout.pitch());
        for (to, from) in rows.zip(self.dy.chunks_exact(self.sweep.places[1])) {
            to[..from.len()].copy_from_slice(from);
        }
        let n_vectors = self.spread.len() / S::F32_LANES;
        let sums = S::as_mut_simd_f32s(self.sums).0;
        let (spread, laid) = (self.spread.as_ptr(), self.laid.as_ptr());
        const TAPS: usize = 9;
        for (sums, offsets) in sums.chunks_mut(TAPS).zip(self.sweep.offsets.chunks(TAPS)) {
            // where fewer taps are left, the last is computed several times and stored once
            let mut at = [laid; TAPS];
            let mut totals = [simd.splat_f32s(0.0); TAPS];
            for tap in 0..TAPS {
                at[tap] = at[tap].wrapping_add(offsets[tap.min(offsets.len() - 1)]);
            }
            for vector in 0..n_vectors {
                // SAFETY: both buffers hold whole vectors up to the last place: `spread` is rounded up to them, and
                // `laid` goes on for one after the plane.
                let gradient = unsafe { spread.cast::<S::f32s>().add(vector).read_unaligned() };
                for tap in 0..TAPS {
                    // SAFETY: as above.
                    let seen = unsafe { at[tap].cast::<S::f32s>().add(vector).read_unaligned() };
                    totals[tap] = simd.mul_add_e_f32s(seen, gradient, totals[tap]);
                }
            }
            for (sum, total) in sums.iter_mut().zip(totals) {
                *sum = simd.add_f32s(*sum, total);
            }
        }
    }
}
