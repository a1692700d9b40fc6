//! Random numbers that depend on a seed, a stream and a position only, so that they are the same whatever runs when.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

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
    factors.par_chunks_mut(PIECE).enumerate().for_each(|(piece_idx, piece)| {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        generator.set_word_pos(piece_idx as u128 * PIECE as u128);
        // 32 random bits decide: a ratio is met to 2⁻³²
        let threshold = (ratio * f64::from(u32::MAX)) as u32;
        piece.iter_mut().for_each(|factor| *factor = if generator.random::<u32>() < threshold { 0.0 } else { kept });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_threads_draws_the_same() {
        let n = 5 * PIECE + 7;
        let drawn = |n_threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads can be started");
            pool.install(|| dropout(n, 0.25, 7, 3))
        };
        let alone = drawn(1);
        for n_threads in [2, 8] {
            assert!(drawn(n_threads) == alone, "{n_threads} threads");
        }
        let n_dropped = alone.iter().filter(|&&factor| factor == 0.0).count();
        assert!(n_dropped.abs_diff(n / 4) < n / 100, "{n_dropped} of {n}");
        // a piece begins where the one before it ends, and streams and seeds are apart
        assert_eq!(dropout(PIECE + 1, 0.25, 7, 3)[..], alone[..PIECE + 1]);
        assert!(dropout(n, 0.25, 8, 3) != alone && dropout(n, 0.25, 7, 4) != alone);
    }
}
