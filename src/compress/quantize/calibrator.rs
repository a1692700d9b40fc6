//! From what was seen of a value to the range that its integers cover.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::histogram::{Histogram, Statistics};
use super::scheme::Activations;

/// By what the range of an activation is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Calibrator {
    /// From the least to the greatest element seen.
    MinMax,
    /// The moving average of the batches' least and greatest elements.
    MovingAverage,
    /// So many percent of the elements, the outermost on both sides left out: 99.99.
    Percentile(f64),
    /// Where integers tell the most of the distribution: the least Kullback–Leibler divergence between the elements and what
    /// their integers stand for (Migacz, "8-bit Inference with TensorRT", 2017).
    Entropy,
    /// Where the mean squared error of the integers is least (Banner, Nahshan and Soudry, "Post training 4-bit quantization of
    /// convolutional networks for rapid-deployment", 2019).
    Mse,
}

impl Default for Calibrator {
    /// All but one in a hundred thousand: of the convolutional networks that were tried it kept more than the whole range did, or
    /// as much, and of a transformer as much, where ten times as many left out cost points.
    fn default() -> Calibrator {
        Calibrator::Percentile(99.999)
    }
}

impl Calibrator {
    /// Whether it needs to know how often which elements occur.
    pub fn needs_histogram(&self) -> bool {
        match self {
            Calibrator::MinMax | Calibrator::MovingAverage => false,
            Calibrator::Percentile(_) | Calibrator::Entropy | Calibrator::Mse => true,
        }
    }

    /// What is wrong with it, if anything.
    pub fn problem(&self) -> Option<String> {
        match self {
            Calibrator::Percentile(percent) if !(*percent > 50.0 && *percent <= 100.0) => {
                Some(format!("is {percent} percent; give more than 50 and at most 100, as in 99.99"))
            }
            _ => None,
        }
    }

    /// The range of a value, zero included.
    pub fn range(&self, seen: &Statistics, activations: Activations) -> (f32, f32) {
        let all = (seen.min.min(0.0), seen.max.max(0.0));
        let n_levels = 2f64.powi(activations.dtype.n_bits() as i32);
        let (low, high) = match (self, &seen.histogram) {
            (Calibrator::MovingAverage, _) => (seen.average_min, seen.average_max),
            (Calibrator::Percentile(percent), Some(histogram)) => percentile(histogram, *percent),
            (Calibrator::Entropy, Some(histogram)) => {
                shrunk(histogram, all, |within| divergence(histogram, within, n_levels))
            }
            (Calibrator::Mse, Some(histogram)) => {
                let bounds = |within| grid(within, activations, n_levels);
                shrunk(histogram, all, |within| squared_error(histogram, bounds(within)))
            }
            (Calibrator::MinMax, _) | (_, None) => all,
        };
        (low.clamp(all.0, 0.0), high.clamp(0.0, all.1))
    }
}

/// The bounds between which so many percent of the elements lie.
fn percentile(histogram: &Histogram, percent: f64) -> (f32, f32) {
    let outside = histogram.n_values() as f64 * (100.0 - percent) / 100.0 / 2.0;
    let mut bins: Vec<(f64, u64)> = histogram.bins().collect();
    let bound = |bins: &[(f64, u64)]| {
        let mut n = 0.0;
        let is_beyond = |(_, count): &&(f64, u64)| {
            n += *count as f64;
            n > outside
        };
        bins.iter().find(is_beyond).map_or(0.0, |(middle, _)| *middle)
    };
    let low = bound(&bins) - histogram.width / 2.0;
    bins.reverse();
    let high = bound(&bins) + histogram.width / 2.0;
    (low as f32, high as f32)
}

/// The range within `all` of the least loss: first both ends drawn in by the same part, then each by itself around that.
fn shrunk(histogram: &Histogram, all: (f32, f32), loss: impl Fn((f64, f64)) -> f64) -> (f32, f32) {
    const N_STEPS: usize = 64;
    let all = (f64::from(all.0), f64::from(all.1));
    if histogram.width == 0.0 {
        return (0.0, 0.0);
    }
    let at = |low: usize, high: usize| (all.0 * low as f64 / N_STEPS as f64, all.1 * high as f64 / N_STEPS as f64);
    let least = |candidates: &mut dyn Iterator<Item = (usize, usize)>| {
        let mut best = (f64::INFINITY, (N_STEPS, N_STEPS));
        for (low, high) in candidates {
            let value = loss(at(low, high));
            if value < best.0 {
                best = (value, (low, high));
            }
        }
        best.1
    };
    // From the widest on: of equal losses the range that cuts off least.
    let (both, _) = least(&mut (1..=N_STEPS).rev().map(|step| (step, step)));
    let (low, _) = least(&mut (1..=N_STEPS).rev().map(|step| (step, both)));
    let (low, high) = least(&mut (1..=N_STEPS).rev().map(|step| (low, step)));
    let (low, high) = at(low, high);
    (low as f32, high as f32)
}

/// The least and the greatest number that integers over a range stand for, and the step between them.
fn grid((low, high): (f64, f64), activations: Activations, n_levels: f64) -> (f64, f64, f64) {
    if activations.symmetric {
        let bound = high.max(-low);
        let step = bound / (n_levels / 2.0 - 1.0);
        (-bound, bound, step)
    } else {
        let step = (high - low) / (n_levels - 1.0);
        let zero = if step > 0.0 { (-low / step).round() } else { 0.0 };
        (-zero * step, (n_levels - 1.0 - zero) * step, step)
    }
}

/// The sum of squared errors of the elements' integers. Within the range an element is anywhere between two numbers: step² / 12.
fn squared_error(histogram: &Histogram, (low, high, step): (f64, f64, f64)) -> f64 {
    let error = |x: f64| match x {
        x if x < low => (low - x) * (low - x),
        x if x > high => (x - high) * (x - high),
        // the bins beside zero hold mostly zeros, which every range has exactly
        x if x.abs() <= histogram.width => 0.0,
        _ => step * step / 12.0,
    };
    histogram.bins().map(|(x, count)| count as f64 * error(x)).sum()
}

/// The Kullback–Leibler divergence of the elements, those outside counted at the ends, from what is known of them when only their
/// integers are: each spread evenly over the bins that it stands for and that hold something.
fn divergence(histogram: &Histogram, (low, high): (f64, f64), n_levels: f64) -> f64 {
    let bins: Vec<(f64, u64)> = histogram.bins().collect();
    let step = (high - low) / (n_levels - 1.0);
    if step <= histogram.width {
        return f64::INFINITY;
    }
    let total: f64 = bins.iter().map(|(_, count)| *count as f64).sum();
    let is_within = |x: f64| (low - histogram.width..=high + histogram.width).contains(&x);
    let (mut below, mut above) = (0.0, 0.0);
    let mut within: Vec<(i64, f64)> = Vec::new();
    for &(x, count) in &bins {
        match is_within(x) {
            true => within.push((((x - low) / step).round() as i64, count as f64)),
            false if x < low => below += count as f64,
            false => above += count as f64,
        }
    }
    let (Some(last), false) = (within.len().checked_sub(1), within.is_empty()) else { return f64::INFINITY };
    let mut divergence = 0.0;
    let mut start = 0;
    while start <= last {
        let end = within[start..].iter().position(|bin| bin.0 != within[start].0).map_or(last + 1, |n| start + n);
        let known: f64 = within[start..end].iter().map(|bin| bin.1).sum::<f64>() / (end - start) as f64;
        let known_total = total - below - above;
        for (bin, (_, count)) in within.iter().enumerate().take(end).skip(start) {
            let outside = if bin == 0 { below } else { 0.0 } + if bin == last { above } else { 0.0 };
            let p = (count + outside) / total;
            divergence += p * (p / (known / known_total)).ln();
        }
        start = end;
    }
    divergence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::quantize::scheme::Integer;

    /// Evenly from `low` to `high`, and a few outliers.
    fn seen(low: f32, high: f32, outliers: &[f32]) -> Statistics {
        let mut statistics = Statistics::new(true);
        let even = (0..10_000).map(|i| low + (high - low) * (i as f32 + 0.5) / 10_000.0);
        statistics.add(&"x".into(), &even.chain(outliers.iter().copied()).collect::<Vec<_>>()).expect("finite");
        statistics
    }

    fn check(calibrator: Calibrator, statistics: &Statistics, expected: (f32, f32), tolerance: f32) {
        let (low, high) = calibrator.range(statistics, Activations::default());
        let near = |a: f32, b: f32| (a - b).abs() <= tolerance;
        assert!(near(low, expected.0) && near(high, expected.1), "{calibrator:?}: {low} {high}, not {expected:?}");
    }

    #[test]
    fn ranges_of_even_values() {
        let even = seen(-1.0, 3.0, &[]);
        check(Calibrator::MinMax, &even, (-1.0, 3.0), 1e-3);
        check(Calibrator::MovingAverage, &even, (-1.0, 3.0), 1e-3);
        check(Calibrator::Percentile(99.0), &even, (-0.98, 2.98), 0.01);
        check(Calibrator::Entropy, &even, (-1.0, 3.0), 0.15);
        check(Calibrator::Mse, &even, (-1.0, 3.0), 0.15);
    }

    #[test]
    fn outliers_are_left_out_but_by_min_max() {
        let outliers = seen(0.0, 1.0, &[40.0]);
        check(Calibrator::MinMax, &outliers, (0.0, 40.0), 1e-3);
        check(Calibrator::Percentile(99.9), &outliers, (0.0, 1.0), 0.05);
        let (_, high) = Calibrator::Entropy.range(&outliers, Activations::default());
        assert!(high < 30.0, "{high}");
    }

    /// A million values from 0 to 1 and one of 4: all steps of 4 / 255 cost 10⁶ · (4 / 255)² / 12 = 20.5, the outlier cut off at 1
    /// costs 9, and the steps then 1.3.
    #[test]
    fn an_outlier_is_cut_off_where_that_costs_less_than_wider_steps() {
        let mut statistics = seen(0.0, 1.0, &[4.0]);
        (0..99).for_each(|_| {
            let even: Vec<f32> = (0..10_000).map(|i| (i as f32 + 0.5) / 10_000.0).collect();
            statistics.add(&"x".into(), &even).expect("finite");
        });
        let (_, high) = Calibrator::Mse.range(&statistics, Activations::default());
        assert!((1.0..2.5).contains(&high), "{high}");
    }

    #[test]
    fn the_range_holds_zero_and_nothing_that_was_not_seen() {
        let positive = seen(2.0, 3.0, &[]);
        for calibrator in [
            Calibrator::MinMax,
            Calibrator::MovingAverage,
            Calibrator::Percentile(99.0),
            Calibrator::Entropy,
            Calibrator::Mse,
        ] {
            let (low, high) = calibrator.range(&positive, Activations { dtype: Integer::I8, symmetric: true });
            assert!(low == 0.0 && (2.0..=3.0).contains(&high), "{calibrator:?}: {low} {high}");
            let nothing = Statistics { min: 0.0, max: 0.0, ..Statistics::new(true) };
            assert_eq!(calibrator.range(&nothing, Activations::default()), (0.0, 0.0));
        }
        assert_eq!(Calibrator::Percentile(99.99).problem(), None);
        assert!(Calibrator::Percentile(0.99).problem().is_some());
    }
}
