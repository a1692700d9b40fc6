//! The weight's gradient: for each (channel, tap) pair the products with all output channels, summed over all places.

#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop)] // channels and vectors count through several arrays at once

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::planes::{self, Layout, Sweep};
use super::tile::{Registers, has_many_registers};
use crate::learn::kernels::scratch;
use crate::learn::kernels::window::ConvShape;

/// Images are summed in at most this many pieces, each with a gradient of its own.
const MOST_PIECES: usize = 8;

/// Writes every element of `dw`.
pub(super) fn weight_gradient(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let registers = Registers::of_this_machine();
    let (layout, sweep) = planes::forward(shape);
    let ([from, to], n_taps) = (shape.group(), shape.window().n_taps());
    let row = from * n_taps;
    let padded = to.next_multiple_of(registers.n_lanes);
    let n_group = row * padded;
    let n_part = shape.groups() * n_group;
    if shape.n_output() == 0 || dw.is_empty() {
        return dw.fill(0.0);
    }
    let images_a_piece = shape.n().div_ceil(MOST_PIECES);
    let n_pieces = shape.n().div_ceil(images_a_piece);
    let offsets: Vec<usize> = (0..from)
        .flat_map(|channel| sweep.offsets.iter().map(move |offset| (channel, offset)))
        .map(|(channel, offset)| channel * layout.n_plane() + offset)
        .collect();
    scratch::with(n_part * n_pieces, |parts| {
        parts.par_chunks_mut(n_part).enumerate().for_each(|(piece_idx, part)| {
            part.fill(0.0);
            let images = piece_idx * images_a_piece..((piece_idx + 1) * images_a_piece).min(shape.n());
            let n_laid = from * layout.n_plane();
            scratch::with(n_laid + shape.output_plane() * padded, |room| {
                let (laid, turned) = room.split_at_mut(n_laid);
                for (image, group) in images.flat_map(|image| (0..shape.groups()).map(move |group| (image, group))) {
                    let at = image * shape.groups() + group;
                    Arch::new().dispatch(Piece {
                        layout: &layout,
                        sweep: &sweep,
                        offsets: &offsets,
                        padded,
                        x: &x[at * from * shape.input_plane()..][..from * shape.input_plane()],
                        dy: &dy[at * to * shape.output_plane()..][..to * shape.output_plane()],
                        laid,
                        turned,
                        gradient: &mut part[group * n_group..][..n_group],
                    });
                }
            });
        });
        add_parts(parts, n_part);
        let sum = &parts[..n_part];
        dw.par_chunks_mut(row).enumerate().for_each(|(channel, dw)| {
            let sum = &sum[channel / to * n_group + channel % to..];
            for (value, sum) in dw.iter_mut().zip(sum.iter().step_by(padded)) {
                *value = *sum;
            }
        });
    });
}

/// Adds all parts to the first, in their order.
fn add_parts(parts: &mut [f32], n_part: usize) {
    const PIECE: usize = 1 << 13;
    let (sum, rest) = parts.split_at_mut(n_part);
    sum.par_chunks_mut(PIECE).enumerate().for_each(|(idx, sum)| {
        for part in rest.chunks_exact(n_part) {
            for (sum, value) in sum.iter_mut().zip(&part[idx * PIECE..]) {
                *sum += value;
            }
        }
    });
}

/// What one group of one image adds to the gradient.
struct Piece<'a> {
    layout: &'a Layout,
    sweep: &'a Sweep,
    /// Where each (channel, tap) pair sees the first place.
    offsets: &'a [usize],
    /// Output channels, rounded up to whole vectors.
    padded: usize,
    x: &'a [f32],
    dy: &'a [f32],
    laid: &'a mut [f32],
    /// The output's gradient with the channels innermost.
    turned: &'a mut [f32],
    /// `[pair][padded]`
    gradient: &'a mut [f32],
}

impl WithSimd for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        self.layout.fill(self.x, self.laid);
        turn(self.dy, self.sweep.places[0] * self.sweep.places[1], self.padded, self.turned);
        let n_vectors = self.padded / S::F32_LANES;
        let mut first = 0;
        while first < n_vectors {
            first += match n_vectors - first {
                4.. if has_many_registers::<S>() => self.vectors::<S, 4, 6>(simd, first),
                2.. if has_many_registers::<S>() => self.vectors::<S, 2, 9>(simd, first),
                2.. => self.vectors::<S, 2, 4>(simd, first),
                _ if has_many_registers::<S>() => self.vectors::<S, 1, 12>(simd, first),
                _ => self.vectors::<S, 1, 8>(simd, first),
            };
        }
    }
}

impl Piece<'_> {
    /// Adds the gradients of `V` vectors of output channels, `K` pairs at a time, and returns `V`.
    #[inline(always)]
    fn vectors<S: Simd, const V: usize, const K: usize>(&mut self, simd: S, first: usize) -> usize {
        let column = first * S::F32_LANES;
        for pair in (0..self.offsets.len()).step_by(K) {
            // where fewer than K are left, the last is computed several times and stored once
            let last = self.offsets.len() - 1;
            let n_pairs = K.min(self.offsets.len() - pair);
            let mut seen = [self.laid.as_ptr(); K];
            for k in 0..K {
                seen[k] = seen[k].wrapping_add(self.offsets[(pair + k).min(last)]);
            }
            let gradient = &mut self.gradient[pair * self.padded..][..n_pairs * self.padded];
            // SAFETY: every pair sees every place of the sweep within the planes; `turned` has `padded` channels for
            // each place and `gradient` for each of the pairs, and V vectors lie after `column`.
            unsafe {
                add_products::<S, V, K>(
                    simd,
                    (self.sweep.places, self.layout.pitch()),
                    seen,
                    (self.turned.as_ptr().add(column), self.padded),
                    gradient.as_mut_ptr().add(column),
                    n_pairs,
                );
            }
        }
        V
    }
}

/// Adds to `n_pairs` rows of `gradient` the products of what each pair sees with `V` vectors of the output's gradient.
///
/// # Safety
/// `seen` is valid for reads at all places, `turned` for V vectors at each place, `gradient` for V vectors at each pair.
#[inline(always)]
unsafe fn add_products<S: Simd, const V: usize, const K: usize>(
    simd: S,
    ([n_rows, n_columns], pitch): ([usize; 2], usize),
    seen: [*const f32; K],
    (turned, padded): (*const f32, usize),
    gradient: *mut f32,
    n_pairs: usize,
) {
    let mut sums = [[simd.splat_f32s(0.0); V]; K];
    let mut turned = turned;
    for row in 0..n_rows {
        for column in 0..n_columns {
            let place = row * pitch + column;
            let mut vectors = [simd.splat_f32s(0.0); V];
            for v in 0..V {
                // SAFETY: V vectors at each place.
                vectors[v] = unsafe { turned.cast::<S::f32s>().add(v).read_unaligned() };
            }
            for k in 0..K {
                // SAFETY: each pair sees each place.
                let value = simd.splat_f32s(unsafe { *seen[k].add(place) });
                for v in 0..V {
                    sums[k][v] = simd.mul_add_e_f32s(value, vectors[v], sums[k][v]);
                }
            }
            turned = turned.wrapping_add(padded);
        }
    }
    for k in 0..K {
        if k >= n_pairs {
            break;
        }
        for v in 0..V {
            // SAFETY: V vectors at each pair.
            unsafe {
                let to = gradient.add(k * padded).cast::<S::f32s>().add(v);
                to.write_unaligned(simd.add_f32s(to.read_unaligned(), sums[k][v]));
            }
        }
    }
}

/// Turns `[channel][place]` into `[place][padded]`, the rest zero.
///
/// Square blocks go through a buffer: planes are often powers of two apart, where few lines stay in the first cache.
#[inline(always)]
fn turn(from: &[f32], n_places: usize, padded: usize, to: &mut [f32]) {
    const SIDE: usize = 16;
    let n_channels = from.len() / n_places;
    let mut block = [[0f32; SIDE]; SIDE];
    for channel in (0..padded).step_by(SIDE) {
        let (n_rows, width) = (SIDE.min(n_channels.saturating_sub(channel)), SIDE.min(padded - channel));
        block[n_rows..].fill([0.0; SIDE]);
        for place in (0..n_places).step_by(SIDE) {
            let n_columns = SIDE.min(n_places - place);
            for (row, line) in block[..n_rows].iter_mut().enumerate() {
                let values = &from[(channel + row) * n_places + place..];
                match values.first_chunk() {
                    Some(values) => *line = *values,
                    None => line[..n_columns].copy_from_slice(&values[..n_columns]),
                }
            }
            let lines = to[place * padded..].chunks_exact_mut(padded).take(n_columns);
            for (column, line) in lines.enumerate() {
                for (to, values) in line[channel..channel + width].iter_mut().zip(&block) {
                    *to = values[column];
                }
            }
        }
    }
}
