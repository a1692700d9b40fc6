//! How often which values occur, counted as they come, in memory that does not grow.

use serde::{Deserialize, Serialize};

use crate::compress::observe::ObserveError;
use crate::graph::Name;

/// Bins on each side of zero.
pub const N_BINS: usize = 2048;

/// Bins of one width on both sides of zero. When a value lies beyond the last one, the bins become twice as wide, two
/// becoming one: no count is ever estimated. The same values in the same batches give the same bins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// How wide a bin is.
    pub width: f64,
    /// How many values fell into each, from `-N_BINS · width` on; empty while there were none but zeros.
    pub counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { width: 0.0, counts: Vec::new() }
    }
}

impl Histogram {
    /// Adds values of which none has a greater magnitude than this.
    pub fn add(&mut self, values: &[f32], greatest: f32) {
        self.hold(f64::from(greatest));
        if self.counts.is_empty() {
            self.counts = vec![0; 2 * N_BINS];
        }
        // Neighbours often fall into one bin: several counters keep an addition from waiting for the one before.
        const N_LANES: usize = 4;
        let mut lanes = vec![[0u32; N_LANES]; 2 * N_BINS];
        let inverse = if self.width > 0.0 { (1.0 / self.width) as f32 } else { 0.0 };
        let middle = N_BINS as f32;
        let bin = |value: f32| ((value * inverse + middle) as usize).min(2 * N_BINS - 1);
        for block in values.chunks(1 << 30) {
            let mut fours = block.chunks_exact(N_LANES);
            for four in &mut fours {
                for lane in 0..N_LANES {
                    lanes[bin(four[lane])][lane] += 1;
                }
            }
            fours.remainder().iter().for_each(|&value| lanes[bin(value)][0] += 1);
            for (count, lane) in self.counts.iter_mut().zip(&mut lanes) {
                *count += lane.iter().map(|&n| u64::from(n)).sum::<u64>();
                *lane = [0; N_LANES];
            }
        }
    }

    /// Makes room for values of this magnitude.
    fn hold(&mut self, greatest: f64) {
        if greatest == 0.0 {
            return;
        }
        let n_zeros = if self.width == 0.0 { self.counts.iter().sum() } else { 0 };
        if self.width == 0.0 {
            self.width = greatest / N_BINS as f64;
            self.counts = vec![0; 2 * N_BINS];
            self.counts[N_BINS] = n_zeros;
        }
        while self.width * (N_BINS as f64) < greatest {
            self.width *= 2.0;
            let mut wider = vec![0; 2 * N_BINS];
            for (bin, count) in self.counts.iter().enumerate() {
                wider[(bin + N_BINS) / 2] += count;
            }
            self.counts = wider;
        }
    }

    /// The bins that hold something: the middle of each, and how many values.
    pub fn bins(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let middle = |bin: usize| (bin as f64 - N_BINS as f64 + 0.5) * self.width;
        self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(move |(bin, &count)| (middle(bin), count))
    }

    /// How many values there are.
    pub fn n_values(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What was seen of one value of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// How many batches there were.
    pub n_batches: u64,
    /// How many elements.
    pub n_elements: u64,
    /// The least element.
    pub min: f32,
    /// The greatest.
    pub max: f32,
    /// The moving average of the batches' least elements.
    pub average_min: f32,
    /// The moving average of their greatest.
    pub average_max: f32,
    /// How often which elements occur, where that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
}

impl Statistics {
    /// Nothing yet.
    pub fn new(with_histogram: bool) -> Statistics {
        Statistics {
            n_batches: 0,
            n_elements: 0,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            average_min: 0.0,
            average_max: 0.0,
            histogram: with_histogram.then(Histogram::default),
        }
    }

    /// Adds the elements of the value in one batch.
    ///
    /// # Errors
    /// When one of them is infinite or not a number; `name` is the value.
    pub fn add(&mut self, name: &Name, elements: &[f32]) -> Result<(), ObserveError> {
        /// Of the batch before in a moving average.
        const MOMENTUM: f32 = 0.9;
        if elements.is_empty() {
            return Ok(());
        }
        let (low, high, poisoned) = extremes(elements);
        if poisoned || !low.is_finite() || !high.is_finite() {
            let number = if elements.iter().any(|x| x.is_nan()) { f64::NAN } else { f64::INFINITY };
            return Err(ObserveError::not_finite(name, number));
        }
        let average =
            |before: f32, now: f32| if self.n_batches == 0 { now } else { MOMENTUM * before + (1.0 - MOMENTUM) * now };
        (self.average_min, self.average_max) = (average(self.average_min, low), average(self.average_max, high));
        self.min = self.min.min(low);
        self.max = self.max.max(high);
        self.n_batches += 1;
        self.n_elements += elements.len() as u64;
        if let Some(histogram) = &mut self.histogram {
            histogram.add(elements, low.abs().max(high.abs()));
        }
        Ok(())
    }
}

/// The least and the greatest element, and whether one is not a number.
fn extremes(elements: &[f32]) -> (f32, f32, bool) {
    const N_LANES: usize = 16;
    let (mut low, mut high) = ([f32::INFINITY; N_LANES], [f32::NEG_INFINITY; N_LANES]);
    // Zero times a number is zero; times anything else it is none, and stays so.
    let mut zero = [0f32; N_LANES];
    let mut blocks = elements.chunks_exact(N_LANES);
    let mut fold = |block: &[f32]| {
        for (lane, &x) in block.iter().enumerate() {
            low[lane] = if x < low[lane] { x } else { low[lane] };
            high[lane] = if x > high[lane] { x } else { high[lane] };
            zero[lane] += 0.0 * x;
        }
    };
    for block in &mut blocks {
        fold(&block[..N_LANES]);
    }
    fold(blocks.remainder());
    let low = low.into_iter().fold(f32::INFINITY, f32::min);
    let high = high.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let is_poisoned = zero.iter().any(|zero| zero.is_nan()) && low.is_finite() && high.is_finite();
    (low, high, is_poisoned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(batches: &[Vec<f32>]) -> Statistics {
        let mut statistics = Statistics::new(true);
        for batch in batches {
            statistics.add(&"x".into(), batch).expect("finite");
        }
        statistics
    }

    #[test]
    fn bins_widen_by_halves_and_keep_every_count() {
        let statistics = counted(&[vec![0.0, 0.0], vec![1.0, -1.0, 0.25], vec![3.5]]);
        let histogram = statistics.histogram.expect("asked for");
        assert_eq!(histogram.width, 4.0 / N_BINS as f64);
        let near = |x: f64| {
            histogram.bins().filter(|(middle, _)| (middle - x).abs() <= histogram.width).map(|bin| bin.1).sum::<u64>()
        };
        assert_eq!([0.0, 1.0, -1.0, 0.25, 3.5].map(near), [2, 1, 1, 1, 1]);
        assert_eq!((statistics.min, statistics.max, statistics.n_elements), (-1.0, 3.5, 6));
    }

    #[test]
    fn averages_move_by_a_tenth_of_each_batch() {
        let statistics = counted(&[vec![-1.0, 1.0], vec![-2.0, 11.0]]);
        let far = (statistics.average_min + 1.1).abs() + (statistics.average_max - 2.0).abs();
        assert!(far < 1e-6, "{statistics:?}");
    }

    #[test]
    fn what_is_no_number_is_named() {
        let message = |x: f32| Statistics::new(false).add(&"y".into(), &[0.0, x]).expect_err("refused").to_string();
        assert!(message(f32::NAN).starts_with("`y` is not a number on the calibration data"));
        assert!(message(f32::INFINITY).starts_with("`y` is infinite"));
    }

    proptest! {
        #[test]
        fn every_element_is_within_a_bin_of_where_it_was_counted(
            batches in prop::collection::vec(prop::collection::vec(-1e3f32..1e3, 1..40), 1..5)
        ) {
            let statistics = counted(&batches);
            let histogram = statistics.histogram.expect("asked for");
            let mut all: Vec<f32> = batches.into_iter().flatten().collect();
            all.sort_by(f32::total_cmp);
            prop_assert_eq!(histogram.n_values(), all.len() as u64);
            let binned = histogram.bins().flat_map(|(middle, n)| std::iter::repeat_n(middle, n as usize));
            for (x, middle) in all.into_iter().zip(binned) {
                prop_assert!((f64::from(x) - middle).abs() <= histogram.width * 1.001, "{} {}", x, middle);
            }
        }
    }
}
