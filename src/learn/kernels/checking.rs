//! What the tests of kernels share: numbers, comparison with a reference in `f64`, and pools of several sizes.

use std::fmt::Debug;

use rayon::ThreadPoolBuilder;

/// A small generator of test data (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `least` to `most`, both included.
    pub(crate) fn within(&mut self, least: usize, most: usize) -> usize {
        least + (self.next() % (most - least + 1) as u64) as usize
    }

    /// Roughly normal: a sum of uniform numbers, variance one.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
    }

    pub(crate) fn normals(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.normal()).collect()
    }
}

/// Every element within 1e-5 of the reference, relative to the largest of the reference.
pub(crate) fn check_near(got: &[f32], expected: &[f64], case: &(impl Debug + ?Sized)) {
    assert_eq!(got.len(), expected.len(), "{case:?}");
    let scale = expected.iter().fold(1e-3f64, |scale, value| scale.max(value.abs()));
    for (idx, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let off = (f64::from(got) - expected).abs();
        assert!(off <= 1e-5 * scale, "{case:?}: element {idx} is {got}, should be {expected}");
    }
}

/// The same bits from pools of one, two and three threads.
pub(crate) fn same_on_any_number_of_threads(work: impl Fn() -> Vec<f32> + Sync) {
    let on = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads can be started");
        pool.install(&work).into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    let one = on(1);
    assert!([2, 3].into_iter().all(|n_threads| on(n_threads) == one));
}
