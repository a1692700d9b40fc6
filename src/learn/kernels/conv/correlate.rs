//! Forward and input gradient: both are sweeps over planes that are laid out for them.

#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop)] // channels and vectors count through several arrays at once

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Activation;
use super::planes::{Layout, Sweep};
use super::tile::{MOST_VECTORS, Registers, Slot, accumulate, has_many_registers, relu, slots, store};
use crate::learn::kernels::scratch;

/// A direction of a convolution: from the planes of `source` to those of a destination, group by group.
pub(super) struct Correlation {
    pub(super) n: usize,
    pub(super) groups: usize,
    /// Channels of a group, in the source and in the destination.
    pub(super) from: usize,
    pub(super) to: usize,
    /// Steps in the weight from one channel of the source, and of the destination, to the next; taps are neighbours.
    pub(super) weight_steps: [usize; 2],
    pub(super) n_source_plane: usize,
    pub(super) n_destination_plane: usize,
    pub(super) layout: Layout,
    pub(super) sweeps: Vec<Sweep>,
}

/// A sweep with its vectors and the offsets of all (channel, tap) pairs.
struct Prepared {
    slots: Vec<Slot>,
    offsets: Vec<u32>,
    step: usize,
    /// Where the sweep's weights begin among a group's packed ones.
    weights: usize,
}

impl Correlation {
    /// Writes every element of `destination`.
    pub(super) fn run(
        &self,
        source: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        activation: Activation,
        destination: &mut [f32],
    ) {
        if destination.is_empty() {
            return;
        }
        let registers = Registers::of_this_machine();
        let n_blocks = self.to.div_ceil(registers.block);
        let (prepared, n_packed) = self.prepare(registers, n_blocks);
        // channels are spread over pieces too where there are few images
        let most_pieces = 8usize.div_ceil(self.n * self.groups);
        let divides = |n: &usize| self.to.is_multiple_of(n * registers.block);
        let n_pieces = (1..=most_pieces).rev().find(divides).unwrap_or(1);
        let to_piece = self.to / n_pieces;
        scratch::with(n_packed * self.groups, |packed| {
            self.pack(&prepared, registers, weight, packed);
            let packed = &*packed;
            destination.par_chunks_mut(to_piece * self.n_destination_plane).enumerate().for_each(
                |(idx, destination)| {
                    let (piece, group) = (idx % n_pieces, idx / n_pieces % self.groups);
                    let first = group * self.to + piece * to_piece;
                    let planes = self.from * self.n_source_plane;
                    let source = &source[idx / n_pieces * planes..][..planes];
                    let n_laid = self.from * self.layout.n_plane();
                    scratch::with(n_laid + registers.n_lanes, |laid| {
                        Arch::new().dispatch(Piece {
                            whole: self,
                            prepared: &prepared,
                            packed: &packed[group * n_packed..][..n_packed],
                            blocks: [piece * to_piece / registers.block, to_piece.div_ceil(registers.block)],
                            bias: bias.map(|bias| &bias[first..first + to_piece]),
                            activation,
                            source,
                            laid,
                            destination,
                        });
                    });
                },
            );
        });
    }

    fn prepare(&self, registers: Registers, n_blocks: usize) -> (Vec<Prepared>, usize) {
        let mut n_packed = 0;
        let prepare = |sweep: &Sweep| {
            let channels = (0..self.from).map(|channel| channel * self.layout.n_plane());
            let offsets: Vec<u32> =
                channels.flat_map(|base| sweep.offsets.iter().map(move |offset| (base + offset) as u32)).collect();
            let weights = n_packed;
            n_packed += offsets.len() * n_blocks * registers.block;
            let slots = slots(&self.layout, sweep, registers.n_lanes);
            Prepared { slots, offsets, step: sweep.steps[1], weights }
        };
        let prepared = self.sweeps.iter().map(prepare).collect();
        (prepared, n_packed)
    }

    /// Weights as the blocks read them: for each group, sweep and block of channels, in the order of the offsets.
    fn pack(&self, prepared: &[Prepared], registers: Registers, weight: &[f32], packed: &mut [f32]) {
        let n_packed = packed.len() / self.groups;
        let [from_step, to_step] = self.weight_steps;
        let n_group = weight.len() / self.groups;
        if n_packed == 0 {
            return;
        }
        for (packed, weight) in packed.chunks_exact_mut(n_packed).zip(weight.chunks_exact(n_group)) {
            for (sweep, prepared) in self.sweeps.iter().zip(prepared) {
                let n_block = prepared.offsets.len() * registers.block;
                for first in (0..self.to).step_by(registers.block) {
                    let packed = &mut packed[prepared.weights + first / registers.block * n_block..][..n_block];
                    let mut columns = packed.chunks_exact_mut(registers.block);
                    for from in 0..self.from {
                        for (tap, column) in sweep.taps.iter().zip(&mut columns) {
                            for (to, value) in (first..).zip(column) {
                                let at = from * from_step + to * to_step + tap;
                                *value = if to < self.to { weight[at] } else { 0.0 };
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The channels of one group, or some of them, of one image.
struct Piece<'a> {
    whole: &'a Correlation,
    prepared: &'a [Prepared],
    packed: &'a [f32],
    /// The first block of channels, and how many.
    blocks: [usize; 2],
    bias: Option<&'a [f32]>,
    activation: Activation,
    source: &'a [f32],
    /// Room for the source's layout, and a vector more; none where the source serves as it is.
    laid: &'a mut [f32],
    destination: &'a mut [f32],
}

impl WithSimd for Piece<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let n_laid = self.whole.from * self.whole.layout.n_plane();
        if !self.laid.is_empty() {
            self.whole.layout.fill(self.source, &mut self.laid[..n_laid]);
        }
        if has_many_registers::<S>() { self.blocks::<S, 8>(simd) } else { self.blocks::<S, 4>(simd) }
    }
}

/// What has more elements than this does not stay in the second cache from one use to the next.
const MOST_CACHED: usize = 1 << 17;

impl Piece<'_> {
    #[inline(always)]
    fn blocks<S: Simd, const M: usize>(mut self, simd: S) {
        let [first, n_blocks] = self.blocks;
        for prepared in self.prepared {
            let n_tiles = prepared.slots.len().div_ceil(MOST_VECTORS);
            let tile = |idx: usize| {
                let bounds = [idx, idx + 1].map(|idx| prepared.slots.len() * idx / n_tiles);
                &prepared.slots[bounds[0]..bounds[1]]
            };
            let n_block = prepared.offsets.len() * M;
            // one block after the other writes few planes at a time; only planes that do not stay in the cache are gone
            // through once, unless the weights would not stay either
            let by_block = self.source.len() <= MOST_CACHED || n_block * n_blocks > MOST_CACHED;
            let (n_outer, n_inner) = if by_block { (n_blocks, n_tiles) } else { (n_tiles, n_blocks) };
            for outer in 0..n_outer {
                for inner in 0..n_inner {
                    let (block, slots) = if by_block { (outer, tile(inner)) } else { (inner, tile(outer)) };
                    let weights = &self.packed[prepared.weights + (first + block) * n_block..][..n_block];
                    match slots {
                        [a, b, c] => self.tile::<S, M, 3>(simd, prepared, weights, block, [a, b, c]),
                        [a, b] => self.tile::<S, M, 2>(simd, prepared, weights, block, [a, b]),
                        [a] => self.tile::<S, M, 1>(simd, prepared, weights, block, [a]),
                        _ => unreachable!("a tile has one to three vectors"),
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const M: usize, const V: usize>(
        &mut self,
        simd: S,
        prepared: &Prepared,
        weights: &[f32],
        block: usize,
        slots: [&Slot; V],
    ) {
        let n_plane = self.whole.n_destination_plane;
        let n_channels = (self.destination.len() / n_plane - block * M).min(M);
        let mut bias = [0.0; M];
        if let Some(values) = self.bias {
            bias[..n_channels].copy_from_slice(&values[block * M..][..n_channels]);
        }
        let laid = if self.laid.is_empty() { self.source } else { &*self.laid };
        let mut sources = [laid.as_ptr(); V];
        for v in 0..V {
            sources[v] = sources[v].wrapping_add(slots[v].source);
        }
        // SAFETY: a slot begins at a place of the sweep, so its first lane lies in the planes at every offset, and the
        // buffer goes on for a vector after the last plane, or no vector hangs over its end; `weights` holds M for each
        // offset.
        let sums = unsafe { accumulate::<S, M, V>(simd, &prepared.offsets, weights.as_ptr(), sources, bias) };
        let zero = simd.splat_f32s(0.0);
        for m in 0..M {
            if m >= n_channels {
                break;
            }
            let plane = &mut self.destination[(block * M + m) * n_plane..][..n_plane];
            let mut row = sums[m];
            if self.activation == Activation::Relu {
                for v in 0..V {
                    row[v] = relu(simd, row[v], zero);
                }
            }
            // SAFETY: pieces go to places of the sweep, which lie in the destination's plane.
            unsafe { store::<S, V>(row, slots, prepared.step, plane.as_mut_ptr()) };
        }
    }
}
