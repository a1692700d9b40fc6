//! How work is cut into pieces, and where the widest vector instructions of the machine are taken.
//!
//! Pieces depend on shapes only. Whether they run one after the other or spread over threads changes nothing in them.

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

/// Work of one piece, in cheap operations on one element: 64 kB of `f32`, which fits the second cache several times.
pub(super) const PIECE: usize = 1 << 14;

/// Work below which waking other threads costs more than they save.
pub(super) const WORTH_SPREADING: usize = 1 << 16;

/// Lanes over which a sum of `f32` is spread: the widest vector register.
pub(super) const N_LANES: usize = 16;

/// Runs `work` compiled for the widest vectors that the machine has. What it calls must be inlined into it.
#[inline(always)]
pub(super) fn simd<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// How many of the `n` units, each of this cost, make one piece.
pub(super) fn units_per_piece(unit_cost: usize) -> usize {
    (PIECE / unit_cost.max(1)).max(1)
}

/// Runs `work` on consecutive ranges of `0..n`, each a piece's worth of units of this cost.
pub(super) fn for_ranges(n: usize, unit_cost: usize, work: impl Fn(Range<usize>) + Sync) {
    let spread = n.saturating_mul(unit_cost) > WORTH_SPREADING;
    for_pieces(n, units_per_piece(unit_cost), spread, work);
}

/// Runs `work` on consecutive ranges of `0..n`, each of `per_piece` units but for the last.
pub(super) fn for_pieces(n: usize, per_piece: usize, spread: bool, work: impl Fn(Range<usize>) + Sync) {
    let n_pieces = n.div_ceil(per_piece);
    let range = |piece: usize| piece * per_piece..((piece + 1) * per_piece).min(n);
    if n_pieces > 1 && spread {
        (0..n_pieces).into_par_iter().for_each(|piece| work(range(piece)));
    } else {
        (0..n_pieces).for_each(|piece| work(range(piece)));
    }
}

/// A slice that several pieces write at once, each its own part.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    start: *mut f32,
    len: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer is to `f32`s that nobody else holds for `'a`; `Parts::part` asks that no two threads overlap.
unsafe impl Send for Parts<'_> {}
// SAFETY: as above.
unsafe impl Sync for Parts<'_> {}

impl<'a> Parts<'a> {
    pub(super) fn new(slice: &'a mut [f32]) -> Self {
        Parts { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The elements of this range.
    ///
    /// # Safety
    /// While the part lives, no other part that overlaps it does.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, range: Range<usize>) -> &'a mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len, "a part lies within its slice");
        // SAFETY: the range is inside the slice, and the caller keeps parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }

    /// Where the element of this index is.
    #[inline(always)]
    pub(super) fn pointer(&self, index: usize) -> *mut f32 {
        assert!(index < self.len, "an index lies within its slice");
        // SAFETY: the index is inside the slice.
        unsafe { self.start.add(index) }
    }
}

/// The sum of `function` of each element, spread over lanes that are added in their order.
#[inline(always)]
pub(super) fn sum_of(x: &[f32], function: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; N_LANES];
    let chunks = x.chunks_exact(N_LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += function(value);
        }
    }
    fold_lanes(lanes) + rest.iter().map(|&value| function(value)).sum::<f32>()
}

/// The sum of `function` of each pair of elements, as [`sum_of`].
#[inline(always)]
pub(super) fn sum_of_pairs(x: &[f32], y: &[f32], function: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; N_LANES];
    let (xs, ys) = (x.chunks_exact(N_LANES), y.chunks_exact(N_LANES));
    let rest = xs.remainder().iter().zip(ys.remainder());
    for (x, y) in xs.zip(ys) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += function(x, y);
        }
    }
    fold_lanes(lanes) + rest.map(|(&x, &y)| function(x, y)).sum::<f32>()
}

/// The largest element; minus infinity where there is none. NaN where one is.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; N_LANES];
    let chunks = x.chunks_exact(N_LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, value);
        }
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
}

/// The larger of two, NaN where one is.
#[inline(always)]
pub(super) fn larger(x: f32, y: f32) -> f32 {
    if x > y || x.is_nan() { x } else { y }
}

/// The smaller of two, NaN where one is.
#[inline(always)]
pub(super) fn smaller(x: f32, y: f32) -> f32 {
    if x < y || x.is_nan() { x } else { y }
}

#[inline(always)]
fn fold_lanes(mut lanes: [f32; N_LANES]) -> f32 {
    let mut width = N_LANES / 2;
    while width > 0 {
        for lane_idx in 0..width {
            lanes[lane_idx] += lanes[lane_idx + width];
        }
        width /= 2;
    }
    lanes[0]
}
