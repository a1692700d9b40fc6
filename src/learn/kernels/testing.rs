//! What the tests of the kernels share: numbers, comparisons, finite differences.

use rayon::ThreadPoolBuilder;

/// Numbers in [-1, 1) that look random and are the same every time.
pub(super) fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f32) / 8_388_608.0 - 1.0
    };
    (0..n).map(next).collect()
}

pub(super) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Asserts that the largest difference is at most `bound` times the largest expected magnitude.
#[track_caller]
pub(super) fn close(what: &str, got: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-30, |scale: f64, x| scale.max(x.abs()));
    for (idx, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got) - expected).abs() / scale;
        assert!(error <= bound, "{what}[{idx}]: {got} for {expected}, error {error:.1e}");
    }
}

/// The gradient of `function` at `x` by central differences.
pub(super) fn differences(x: &[f64], function: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut moved = x.to_vec();
    let mut gradient = Vec::with_capacity(x.len());
    for idx in 0..x.len() {
        let step = 1e-5 * x[idx].abs().max(1e-1);
        moved[idx] = x[idx] + step;
        let above = function(&moved);
        moved[idx] = x[idx] - step;
        gradient.push((above - function(&moved)) / (2.0 * step));
        moved[idx] = x[idx];
    }
    gradient
}

pub(super) fn dot(x: &[f64], weights: &[f32]) -> f64 {
    x.iter().zip(weights).map(|(x, &weight)| x * f64::from(weight)).sum()
}

/// What `run` writes, after asserting that pools of one, two and three threads write the same bits.
#[track_caller]
pub(super) fn on_any_pool(run: impl Fn() -> Vec<f32> + Sync) -> Vec<f32> {
    let of = |n_threads| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads can be started");
        pool.install(&run)
    };
    let alone = of(1);
    for n_threads in [2, 3] {
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(&alone) == bits(&of(n_threads)), "{n_threads} threads change bits");
    }
    alone
}
