//! Quantiles and distribution-free intervals. Pure functions on numbers; nothing here measures.

use serde::{Deserialize, Serialize};

use super::normal;

/// A figure with the interval that holds the true one with the stated confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "learn", derive(schemars::JsonSchema))]
pub struct Interval {
    /// The figure.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Probability that the interval, before it was measured, would hold the true value; at least what was asked for.
    pub confidence: f64,
}

impl Interval {
    /// Width over estimate; infinite where the estimate is 0.
    pub fn relative_width(&self) -> f64 {
        if self.estimate == 0.0 { f64::INFINITY } else { (self.high - self.low) / self.estimate.abs() }
    }
}

/// The samples in ascending order, NaN last.
pub fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The `fraction` (0 to 1) quantile of samples in ascending order, interpolated linearly between order statistics
/// (definition 7 of Hyndman and Fan 1996, as in NumPy). NaN for no samples.
pub fn quantile(ascending: &[f64], fraction: f64) -> f64 {
    let Some(last) = ascending.len().checked_sub(1) else { return f64::NAN };
    let position = fraction.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    ascending[below] + (position - below as f64) * (ascending[above] - ascending[below])
}

/// The median of samples in ascending order. NaN for no samples.
pub fn median(ascending: &[f64]) -> f64 {
    quantile(ascending, 0.5)
}

/// The arithmetic mean. NaN for no samples.
pub fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len() as f64
}

/// The median of the distances from the median: half of the samples lie this near to it.
pub fn median_absolute_deviation(ascending: &[f64]) -> f64 {
    let centre = median(ascending);
    let distances: Vec<f64> = ascending.iter().map(|sample| (sample - centre).abs()).collect();
    median(&sorted(&distances))
}

/// The median of independent samples in ascending order with an interval between two order statistics: whatever the
/// distribution, the number of samples below its median is binomial with one half (David and Nagaraja 2003, §7.1).
/// None where there are too few samples for the confidence (six for 95 %).
pub fn median_interval(ascending: &[f64], confidence: f64) -> Option<Interval> {
    let n = ascending.len();
    let (rank, reached) = order_statistic(n, confidence)?;
    Some(Interval {
        estimate: median(ascending),
        low: ascending[rank - 1],
        high: ascending[n - rank],
        confidence: reached,
    })
}

/// A part of `n` independent samples with the score interval of Wilson (1927), equation 3: it stays within 0 and 1, and holds what it
/// promises near them. None for no samples.
pub fn proportion_interval(n_of_kind: u64, n: u64, confidence: f64) -> Option<Interval> {
    let (k, n) = (n_of_kind as f64, n as f64);
    let z = normal::two_sided(confidence);
    let centre = (k + z * z / 2.0) / (n + z * z);
    let half = z / (n + z * z) * (k * (n - k) / n + z * z / 4.0).sqrt();
    (n > 0.0).then(|| Interval {
        estimate: k / n,
        low: (centre - half).max(0.0),
        high: (centre + half).min(1.0),
        confidence,
    })
}

/// The `fraction` quantile of independent samples in ascending order with an interval between two order statistics: the number of
/// samples below the quantile is binomial, here taken to be normal (David and Nagaraja 2003, §7.1). None where the interval would reach
/// beyond the samples.
pub fn quantile_interval(ascending: &[f64], fraction: f64, confidence: f64) -> Option<Interval> {
    // 1.96 for 95 %: half of a step is added for the discreteness of ranks
    let n = ascending.len() as f64;
    let reach = normal::two_sided(confidence) * (n * fraction * (1.0 - fraction)).sqrt() + 0.5;
    let (low, high) = ((n * fraction - reach).floor(), (n * fraction + reach).ceil());
    if !(low >= 1.0 && high <= n) {
        return None;
    }
    let at = |rank: f64| ascending[rank as usize - 1];
    Some(Interval { estimate: quantile(ascending, fraction), low: at(low), high: at(high), confidence })
}

/// The greatest rank r such that the r-th smallest and r-th greatest of `n` hold the median with `confidence`, and the
/// confidence that this gives.
fn order_statistic(n: usize, confidence: f64) -> Option<(usize, f64)> {
    let tail_allowed = (1.0 - confidence) / 2.0;
    // Logarithms, since one half to the power of thousands underflows.
    let mut log_probability = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    let mut found = None;
    for rank in 1..=n / 2 {
        tail += log_probability.exp();
        if tail > tail_allowed {
            break;
        }
        found = Some((rank, 1.0 - 2.0 * tail));
        log_probability += ((n - rank + 1) as f64).ln() - (rank as f64).ln();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_numpy_s() {
        let samples = [1.0, 2.0, 3.0, 4.0, 10.0];
        let check = |fraction: f64, expected: f64| {
            let got = quantile(&samples, fraction);
            assert!((got - expected).abs() < 1e-12, "{fraction}: {got} {expected}");
        };
        check(0.0, 1.0);
        check(0.5, 3.0);
        check(0.9, 7.6);
        check(0.95, 8.8);
        check(1.0, 10.0);
        assert!(quantile(&[], 0.5).is_nan());
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn spread_is_the_median_of_the_distances() {
        assert_eq!(median_absolute_deviation(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]), 1.0);
    }

    /// Ranks from the binomial tables (Conover 1999, §3.2): 6 → 1, 10 → 2, 20 → 6, 50 → 18, 100 → 40.
    #[test]
    fn ranks_are_those_of_the_tables() {
        let rank = |n: usize| order_statistic(n, 0.95).map(|(rank, _)| rank);
        assert_eq!(rank(5), None);
        assert_eq!([6, 10, 20, 50, 100].map(|n| rank(n).unwrap_or(0)), [1, 2, 6, 18, 40]);
        let (_, reached) = order_statistic(10, 0.95).expect("ten suffice");
        assert!((reached - 0.978_515_625).abs() < 1e-9, "{reached}");
        assert_eq!(rank(100_000).map(|rank| rank.abs_diff(49_690) < 5), Some(true));
    }

    /// `statsmodels.stats.proportion.proportion_confint(k, n, method="wilson")`.
    #[test]
    fn proportions_have_wilson_s_interval() {
        let check = |k: u64, n: u64, low: f64, high: f64| {
            let interval = proportion_interval(k, n, 0.95).expect("samples");
            assert!((interval.low - low).abs() < 1e-6 && (interval.high - high).abs() < 1e-6, "{interval:?}");
        };
        check(90, 100, 0.825_634, 0.944_771);
        check(0, 20, 0.0, 0.161_125);
        check(20, 20, 0.838_875, 1.0);
        assert_eq!(proportion_interval(0, 0, 0.95), None);
    }

    /// Between the order statistics around `n p ∓ z √(n p (1 − p))`, half a step wider: 950 ∓ 14.01.
    #[test]
    fn tails_have_intervals_where_there_are_runs_enough() {
        let samples: Vec<f64> = (1..=1000).map(f64::from).collect();
        let interval = quantile_interval(&samples, 0.95, 0.95).expect("a thousand suffice");
        assert_eq!((interval.low, interval.high), (935.0, 965.0));
        assert!(interval.low < interval.estimate && interval.estimate < interval.high);
        assert_eq!(quantile_interval(&samples[..100], 0.99, 0.95), None);
        assert_eq!(quantile_interval(&[], 0.5, 0.95), None);
    }

    #[test]
    fn the_interval_is_between_order_statistics() {
        let samples: Vec<f64> = (1..=10).map(f64::from).collect();
        let interval = median_interval(&samples, 0.95).expect("ten suffice");
        assert_eq!((interval.low, interval.estimate, interval.high), (2.0, 5.5, 9.0));
    }
}
