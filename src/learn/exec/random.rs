//! Random numbers that depend on a seed, a stream and a position only, so that they are the same whatever runs when.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// Elements that a generator of their own makes: pieces of work may be done in any order.
const PIECE: usize = 1 << 14;

/// For each element of a dropout 0 with probability `ratio`, else `1 / (1 − ratio)`.
pub(super) fn dropout(n: usize, ratio: f64, seed: u64, stream: u64) -> Vec<f32> {
    let mut factors = vec![0.0; n];
    dropout_into(&mut factors, ratio, seed, stream);
    factors
}

/// As [`dropout`], into a slice.
pub(super) fn dropout_into(factors: &mut [f32], ratio: f64, seed: u64, stream: u64) {
    let kept = (1.0 / (1.0 - ratio)) as f32;
    for (piece_idx, piece) in factors.chunks_mut(PIECE).enumerate() {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        generator.set_word_pos(piece_idx as u128 * PIECE as u128);
        // 32 random bits decide: a ratio is met to 2⁻³²
        let threshold = (ratio * f64::from(u32::MAX)) as u32;
        piece.iter_mut().for_each(|factor| *factor = if generator.random::<u32>() < threshold { 0.0 } else { kept });
    }
}
