//! The normal distribution: probabilities and quantiles to the precision of `f64`.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// The probability of at most `x`.
pub(super) fn cumulative(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// The number that is not exceeded with this probability: infinite for 0 and 1, NaN outside.
///
/// Begun at the rational approximation 26.2.23 of Abramowitz and Stegun (1964), wrong by less than 4.5e-4, and made
/// exact by Halley's steps, each of which cubes the error.
pub(super) fn quantile(probability: f64) -> f64 {
    if !(0.0..=1.0).contains(&probability) {
        return f64::NAN;
    }
    // In the lower tail nothing is lost to the distance from 1.
    if probability > 0.5 {
        return -quantile(1.0 - probability);
    }
    if probability == 0.0 {
        return f64::NEG_INFINITY;
    }
    let t = (-2.0 * probability.ln()).sqrt();
    let above = (0.010_328 * t + 0.802_853) * t + 2.515_517;
    let below = ((0.001_308 * t + 0.189_269) * t + 1.432_788) * t + 1.0;
    let mut x = above / below - t;
    for _ in 0..3 {
        let step = (cumulative(x) - probability) * (2.0 * PI).sqrt() * (0.5 * x * x).exp();
        x -= step / (1.0 + 0.5 * x * step);
    }
    x
}

/// How many standard deviations hold this part of a normal distribution around its mean: 1.96 for 0.95.
pub(super) fn two_sided(confidence: f64) -> f64 {
    -quantile((1.0 - confidence) / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `scipy.stats.norm.ppf` and `scipy.stats.norm.cdf` of SciPy 1.17.1.
    #[test]
    fn numbers_are_scipy_s() {
        let check = |got: f64, expected: f64| {
            let is_near = (got - expected).abs() <= 4e-15 * expected.abs().max(1e-3);
            assert!(is_near, "{got} {expected}");
        };
        check(quantile(1e-12), -7.034483825301131);
        check(quantile(1e-5), -4.264890793922825);
        check(quantile(0.025), -1.9599639845400545);
        check(quantile(0.3), -0.5244005127080409);
        check(quantile(0.8), 0.8416212335729143);
        check(quantile(0.975), 1.959963984540054);
        check(quantile(0.999_999), 4.753424308817087);
        check(cumulative(-8.0), 6.22096057427174e-16);
        check(cumulative(-1.5), 0.06680720126885807);
        check(cumulative(0.3), 0.6179114221889526);
        check(cumulative(3.0), 0.9986501019683699);
    }

    #[test]
    fn ends_are_infinite_and_outside_is_nothing() {
        assert_eq!([0.0, 1.0].map(quantile), [f64::NEG_INFINITY, f64::INFINITY]);
        assert!([-0.1, 1.1, f64::NAN].into_iter().all(|p| quantile(p).is_nan()));
        assert!(quantile(0.5).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn the_quantile_undoes_the_probability(x in -37.0..8.0f64) {
            let got = quantile(cumulative(x));
            // Near 1 a probability has few digits left to tell x by.
            let tolerance = if x < 0.0 { 1e-12 * x.abs().max(1.0) } else { 1e-15 * (0.5 * x * x).exp() + 1e-12 };
            prop_assert!((got - x).abs() < tolerance.max(1e-12), "{x} {got}");
        }
    }
}
