//! What the tests of windows share beside `testing`: sizes and numbers at random, and how near is near.

use std::fmt::Debug;

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
