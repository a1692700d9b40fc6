//! Random numbers that depend on nothing but the seed and what they are for.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a stream of random numbers is for; streams of different purposes have nothing in common.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// Which sample goes into which split.
    Split,
    /// The order of an epoch.
    Order,
    /// The order of an epoch's batches of like length.
    Buckets,
    /// What is done to a sample.
    Augment,
    /// Which sample is mixed in, and how much of it.
    Mixup,
}

/// The stream for this purpose and these two numbers (epoch and sample, class and nothing, …).
pub(super) fn stream(seed: u64, purpose: Purpose, first: u64, second: u64) -> ChaCha8Rng {
    let purpose: u64 = match purpose {
        Purpose::Split => 1,
        Purpose::Order => 2,
        Purpose::Buckets => 3,
        Purpose::Augment => 4,
        Purpose::Mixup => 5,
    };
    let mut key = [0u8; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip([seed, purpose, first, second]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}
