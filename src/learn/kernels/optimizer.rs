//! Steps of the optimizers in place, norms of gradients, running averages of weights.

#![allow(unsafe_code)]

use super::parallel::{Parts, for_ranges, simd};
use super::reduce::{Reduction, reduce};

/// The settings of [`adamw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub rate: f32,
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root.
    pub epsilon: f32,
    /// Decoupled weight decay, times the rate.
    pub decay: f32,
}

/// The settings of [`sgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Learning rate of this step.
    pub rate: f32,
    /// Part of the velocity that is kept; 0 needs none.
    pub momentum: f32,
    /// Looks one step ahead along the velocity.
    pub nesterov: bool,
    /// L2 penalty, added to the gradient.
    pub decay: f32,
}

/// The settings of [`lion`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// Learning rate of this step.
    pub rate: f32,
    /// The mean's part in the direction.
    pub beta1: f32,
    /// Decay of the mean.
    pub beta2: f32,
    /// Decoupled weight decay, times the rate.
    pub decay: f32,
}

/// One step of `AdamW` (Loshchilov and Hutter, 2019, algorithm 2), the `n_steps`-th, counted from 1. `mean` and `square`
/// start at 0. The gradient is multiplied by `gradient_scale` first, as clipping by the global norm asks.
///
/// # Panics
/// When slices differ in length, as every function here.
pub fn adamw(
    settings: AdamW,
    n_steps: u64,
    gradient_scale: f32,
    gradient: &[f32],
    weight: &mut [f32],
    mean: &mut [f32],
    square: &mut [f32],
) {
    let AdamW { rate, beta1, beta2, epsilon, decay } = settings;
    let correction = |beta: f32| 1.0 - f64::from(beta).powf(n_steps as f64);
    let step = (f64::from(rate) / correction(beta1)) as f32;
    let root_scale = (1.0 / correction(beta2).sqrt()) as f32;
    let keep = 1.0 - rate * decay;
    let (rest1, rest2) = (1.0 - beta1, 1.0 - beta2);
    each(gradient, [weight, mean, square], |gradient, [weight, mean, square]| {
        simd(
            #[inline(always)]
            || {
                for (((gradient, weight), mean), square) in gradient.iter().zip(weight).zip(mean).zip(square) {
                    let gradient = gradient_scale * gradient;
                    *mean = beta1 * *mean + rest1 * gradient;
                    *square = beta2 * *square + rest2 * gradient * gradient;
                    *weight = *weight * keep - step * *mean / (square.sqrt() * root_scale + epsilon);
                }
            },
        );
    });
}

/// One step of stochastic gradient descent as PyTorch has it: `v = momentum v + g`, and `w −= rate v`, or with Nesterov's
/// `w −= rate (g + momentum v)`. `velocity` starts at 0 and may be empty where the momentum is 0.
pub fn sgd(settings: Sgd, gradient_scale: f32, gradient: &[f32], weight: &mut [f32], velocity: &mut [f32]) {
    let Sgd { rate, momentum, nesterov, decay } = settings;
    if momentum == 0.0 {
        each(gradient, [weight], |gradient, [weight]| {
            simd(
                #[inline(always)]
                || {
                    for (gradient, weight) in gradient.iter().zip(weight) {
                        *weight -= rate * (gradient_scale * gradient + decay * *weight);
                    }
                },
            );
        });
        return;
    }
    let (of_gradient, of_velocity) = if nesterov { (1.0, momentum) } else { (0.0, 1.0) };
    each(gradient, [weight, velocity], |gradient, [weight, velocity]| {
        simd(
            #[inline(always)]
            || {
                for ((gradient, weight), velocity) in gradient.iter().zip(weight).zip(velocity) {
                    let gradient = gradient_scale * gradient + decay * *weight;
                    *velocity = momentum * *velocity + gradient;
                    *weight -= rate * (of_gradient * gradient + of_velocity * *velocity);
                }
            },
        );
    });
}

/// One step of Lion (Chen et al., 2023, algorithm 2). `mean` starts at 0.
pub fn lion(settings: Lion, gradient_scale: f32, gradient: &[f32], weight: &mut [f32], mean: &mut [f32]) {
    let Lion { rate, beta1, beta2, decay } = settings;
    let keep = 1.0 - rate * decay;
    each(gradient, [weight, mean], |gradient, [weight, mean]| {
        simd(
            #[inline(always)]
            || {
                for ((gradient, weight), mean) in gradient.iter().zip(weight).zip(mean) {
                    let gradient = gradient_scale * gradient;
                    let direction = beta1 * *mean + (1.0 - beta1) * gradient;
                    let sign = if direction == 0.0 { 0.0 } else { 1f32.copysign(direction) };
                    *mean = beta2 * *mean + (1.0 - beta2) * gradient;
                    *weight = *weight * keep - rate * sign;
                }
            },
        );
    });
}

/// The sum of the squares of a gradient.
#[must_use]
pub fn squared_norm(gradient: &[f32]) -> f32 {
    let mut y = [0.0];
    reduce(Reduction::SumSquares, gradient, &[gradient.len()], &[0], &mut y);
    y[0]
}

/// `average = decay · average + (1 − decay) · weight`
pub fn moving_average(decay: f32, weight: &[f32], average: &mut [f32]) {
    each(weight, [average], |weight, [average]| {
        simd(
            #[inline(always)]
            || {
                for (weight, average) in weight.iter().zip(average) {
                    *average += (1.0 - decay) * (weight - *average);
                }
            },
        );
    });
}

/// Calls `work` with pieces of `x` and the same pieces of what is changed; `x` may be empty.
fn each<const N: usize>(x: &[f32], changed: [&mut [f32]; N], work: impl Fn(&[f32], [&mut [f32]; N]) + Sync) {
    let n = changed[0].len();
    assert!(x.is_empty() || x.len() == n, "as many gradients as weights");
    assert!(changed.iter().all(|changed| changed.len() == n), "as much state as weights");
    let parts = changed.map(Parts::new);
    for_ranges(n, N, |range| {
        // SAFETY: ranges of different pieces are disjoint, and the slices are different ones.
        let changed = parts.map(|parts| unsafe { parts.part(range.clone()) });
        work(x.get(range).unwrap_or(&[]), changed);
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, numbers, on_any_pool, wide};
    use super::*;

    const N: usize = 70_001;
    const SCALE: f32 = 0.5;

    /// Three steps from the same start, in `f32` by `run` and in `f64` by `exact`, of a weight and two states.
    fn check(
        what: &str,
        run: impl Fn(u64, &[f32], [&mut [f32]; 3]) + Sync,
        exact: impl Fn(i32, f64, [f64; 3]) -> [f64; 3],
    ) {
        let weight = numbers(N, 1);
        let gradients: Vec<Vec<f32>> = (2..5).map(|seed| numbers(N, seed)).collect();
        let got = on_any_pool(|| {
            let (mut weight, mut first, mut second) = (weight.clone(), vec![0.0; N], vec![0.0; N]);
            for (step, gradient) in (1..).zip(&gradients) {
                run(step, gradient, [&mut weight, &mut first, &mut second]);
            }
            [weight, first].concat()
        });
        let mut states: Vec<[f64; 3]> = wide(&weight).iter().map(|&weight| [weight, 0.0, 0.0]).collect();
        for (step, gradient) in (1..).zip(&gradients) {
            for (state, &gradient) in states.iter_mut().zip(gradient) {
                *state = exact(step, f64::from(gradient) * f64::from(SCALE), *state);
            }
        }
        for (idx, name) in ["weight", "state"].iter().enumerate() {
            let expected: Vec<f64> = states.iter().map(|state| state[idx]).collect();
            close(&format!("{what}: {name}"), &got[idx * N..][..N], &expected, 3e-6);
        }
    }

    #[test]
    fn steps_are_those_of_the_papers() {
        let settings = AdamW { rate: 1e-2, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, decay: 0.1 };
        check(
            "AdamW",
            |step, gradient, [weight, mean, square]| adamw(settings, step, SCALE, gradient, weight, mean, square),
            |step, g, [w, m, v]| {
                let (m, v) = (0.9f32 as f64 * m + (1.0 - 0.9f32 as f64) * g, 0.99 * v + 0.01 * g * g);
                let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(step)), v / (1.0 - 0.99f64.powi(step)));
                [w - 1e-3 * w - 1e-2 * m_hat / (v_hat.sqrt() + 1e-8), m, v]
            },
        );
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let settings = Sgd { rate: 1e-2, momentum, nesterov, decay: 0.1 };
            check(
                "SGD",
                |_, gradient, [weight, velocity, _]| sgd(settings, SCALE, gradient, weight, velocity),
                |_, g, [w, v, _]| {
                    let (g, momentum) = (g + 0.1 * w, f64::from(momentum));
                    let v = momentum * v + g;
                    let direction = if nesterov { g + momentum * v } else { v };
                    [w - 1e-2 * direction, if momentum == 0.0 { 0.0 } else { v }, 0.0]
                },
            );
        }
        let settings = Lion { rate: 1e-2, beta1: 0.9, beta2: 0.99, decay: 0.1 };
        check(
            "Lion",
            |_, gradient, [weight, mean, _]| lion(settings, SCALE, gradient, weight, mean),
            |_, g, [w, m, _]| [w - 1e-3 * w - 1e-2 * (0.9 * m + 0.1 * g).signum(), 0.99 * m + 0.01 * g, 0.0],
        );
    }

    #[test]
    fn norms_and_averages() {
        let x = numbers(N, 1);
        let norm = on_any_pool(|| vec![squared_norm(&x)]);
        close("norm", &norm, &[wide(&x).iter().map(|x| x * x).sum()], 1e-6);
        let mut y = [3.0, 6.0];
        moving_average(0.75, &[7.0, 2.0], &mut y);
        assert_eq!(y, [4.0, 5.0]);
    }
}
