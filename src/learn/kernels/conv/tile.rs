//! Blocks of vectors that are computed in registers, and how places are gathered into vectors.

#![allow(unsafe_code)]
#![allow(clippy::needless_range_loop)] // channels and vectors count through several arrays at once

use pulp::{Arch, Simd, WithSimd};

use super::planes::{Layout, Sweep};

/// Vectors of places that are computed together.
pub(crate) const MOST_VECTORS: usize = 3;

/// How this machine's registers are used.
#[derive(Clone, Copy)]
pub(crate) struct Registers {
    /// Elements of a vector.
    pub(crate) n_lanes: usize,
    /// Channels that are computed together.
    pub(crate) block: usize,
}

impl Registers {
    pub(crate) fn of_this_machine() -> Self {
        struct Ask;
        impl WithSimd for Ask {
            type Output = Registers;
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> Registers {
                Registers { n_lanes: S::F32_LANES, block: if has_many_registers::<S>() { 8 } else { 4 } }
            }
        }
        Arch::new().dispatch(Ask)
    }
}

/// Whether there are registers for blocks of eight channels by three vectors.
#[inline(always)]
pub(crate) fn has_many_registers<S: Simd>() -> bool {
    S::REGISTER_COUNT >= 32
}

/// A vector of places: neighbours in the layout.
pub(crate) struct Slot {
    /// Where the first lies in a plane of the layout, before a tap's offset.
    pub(crate) source: usize,
    /// What of the vector is written where in the destination's plane.
    pub(crate) pieces: Vec<Piece>,
    /// Whether all of it is one piece, and where that goes.
    pub(crate) is_whole: bool,
    pub(crate) first: usize,
}

/// Lanes of a vector that lie next to each other in the destination.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) lane: usize,
    pub(crate) n_lanes: usize,
    pub(crate) to: usize,
}

/// Covers the places of a sweep with vectors: row by row, or through the ends of the rows where that takes fewer.
pub(crate) fn slots(layout: &Layout, sweep: &Sweep, n_lanes: usize) -> Vec<Slot> {
    let ([n_rows, n_columns], pitch) = (sweep.places, layout.pitch());
    if n_rows == 0 || n_columns == 0 {
        return Vec::new();
    }
    let through = ((n_rows - 1) * pitch + n_columns).div_ceil(n_lanes);
    if n_rows * n_columns.div_ceil(n_lanes) <= through {
        let row = |row| (0..n_columns).step_by(n_lanes).map(move |column| row * pitch + column);
        return (0..n_rows).flat_map(row).map(|source| slot(pitch, sweep, n_lanes, source, 1)).collect();
    }
    let starts = (0..through).map(|idx| idx * n_lanes);
    starts.map(|source| slot(pitch, sweep, n_lanes, source, usize::MAX)).collect()
}

fn slot(pitch: usize, sweep: &Sweep, n_lanes: usize, source: usize, most_rows: usize) -> Slot {
    let [n_rows, n_columns] = sweep.places;
    let mut pieces = Vec::new();
    for row in (source / pitch..n_rows).take(most_rows) {
        let (start, end) = (source.max(row * pitch), (source + n_lanes).min(row * pitch + n_columns));
        if row * pitch >= source + n_lanes {
            break;
        }
        if start < end {
            let to = sweep.first + row * sweep.steps[0] + (start - row * pitch) * sweep.steps[1];
            pieces.push(Piece { lane: start - source, n_lanes: end - start, to });
        }
    }
    let is_whole = pieces.first().is_some_and(|piece| piece.n_lanes == n_lanes);
    let first = pieces.first().map_or(0, |piece| piece.to);
    Slot { source, pieces, is_whole, first }
}

/// A block of channels at a few vectors of places: `bias[m] + Σ_k weights[k · M + m] · source[v][offsets[k]]`.
///
/// # Safety
/// Each source is valid for reads of a vector at each offset, and `weights` for `offsets.len() · M` elements.
#[inline(always)]
pub(crate) unsafe fn accumulate<S: Simd, const M: usize, const V: usize>(
    simd: S,
    offsets: &[u32],
    weights: *const f32,
    sources: [*const f32; V],
    bias: [f32; M],
) -> [[S::f32s; V]; M] {
    let mut sums = [[simd.splat_f32s(0.0); V]; M];
    for m in 0..M {
        sums[m] = [simd.splat_f32s(bias[m]); V];
    }
    let mut weights = weights;
    for &offset in offsets {
        let mut seen = [simd.splat_f32s(0.0); V];
        for v in 0..V {
            // SAFETY: the caller promises a vector at each offset of each source.
            seen[v] = unsafe { sources[v].add(offset as usize).cast::<S::f32s>().read_unaligned() };
        }
        for m in 0..M {
            // SAFETY: the caller promises M weights for each offset.
            let weight = simd.splat_f32s(unsafe { *weights.add(m) });
            for v in 0..V {
                sums[m][v] = simd.mul_add_e_f32s(weight, seen[v], sums[m][v]);
            }
        }
        weights = weights.wrapping_add(M);
    }
    sums
}

/// Writes vectors to their slots in a plane, lanes `step` apart.
///
/// # Safety
/// `plane` is valid for writes wherever the slots' pieces go.
#[inline(always)]
pub(crate) unsafe fn store<S: Simd, const V: usize>(
    vectors: [S::f32s; V],
    slots: [&Slot; V],
    step: usize,
    plane: *mut f32,
) {
    if step == 1 && slots.iter().all(|slot| slot.is_whole) {
        for v in 0..V {
            // SAFETY: the whole vector is one piece, and the caller promises that the plane holds it.
            unsafe { plane.add(slots[v].first).cast::<S::f32s>().write_unaligned(vectors[v]) };
        }
        return;
    }
    let lanes: &[f32] = bytemuck::cast_slice(&vectors);
    for (slot, lanes) in slots.iter().zip(lanes.chunks_exact(S::F32_LANES)) {
        for piece in &slot.pieces {
            for (idx, lane) in lanes[piece.lane..piece.lane + piece.n_lanes].iter().enumerate() {
                // SAFETY: the caller promises that the plane holds the piece.
                unsafe { *plane.add(piece.to + idx * step) = *lane };
            }
        }
    }
}

/// The greater of a value and zero; a NaN stays one.
#[inline(always)]
pub(crate) fn relu<S: Simd>(simd: S, value: S::f32s, zero: S::f32s) -> S::f32s {
    simd.select_f32s(simd.less_than_f32s(value, zero), zero, value)
}
