//! Paired bootstrap: intervals of a mean, or of any statistic, by drawing the samples anew with replacement.
//!
//! The interval is the bias-corrected and accelerated one (BCa; Efron 1987, "Better bootstrap confidence intervals";
//! Efron and Tibshirani 1993, §14.3). A resample takes teacher and student together, so what the two have in common
//! cancels. The numbers depend on the data and the seed only, never on the number of threads.
//!
//! The bootstrap knows no more than the samples show: where all differences are equal its interval is that one point,
//! and where only a handful differ it is too narrow. For right and wrong use [`super::proportions`].

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{StatisticsError, check_between_0_and_1, check_finite};
use crate::measure::normal;
use crate::measure::statistics::{Interval, mean, quantile, sorted};

/// How the samples are drawn anew.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Options {
    /// How often.
    pub n_resamples: usize,
    /// Of the two-sided interval.
    pub confidence: f64,
    /// The same seed gives the same interval.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { n_resamples: 10_000, confidence: 0.95, seed: 0 }
    }
}

/// An interval with what it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Bootstrap {
    /// The statistic on the data, and its interval.
    pub interval: Interval,
    /// The bias correction z₀, in standard deviations.
    pub bias: f64,
    /// The acceleration a: how quickly the statistic's spread changes with its value.
    pub acceleration: f64,
    /// Resamples on which the statistic has a value.
    pub n_resamples: usize,
    /// Resamples on which it has none, left out.
    pub n_undefined: usize,
}

/// Resamples of one stream of random numbers: one piece of work.
const PIECE: usize = 64;
/// Most groups of samples that are left out in turn for the acceleration.
const MOST_GROUPS: usize = 1000;
/// Most resamples, as a part of all, on which a statistic may have no value.
const UNDEFINED_ALLOWED: f64 = 0.05;

/// The mean of the numbers, usually [`differences`](super::differences) of student and teacher.
///
/// # Errors
/// When there are none, one is NaN or infinite, or the options are out of range.
pub fn mean_interval(numbers: &[f64], options: &Options) -> Result<Bootstrap, StatisticsError> {
    check_options(options, numbers.len())?;
    check_finite(numbers)?;
    let n = numbers.len();
    let resampled = resampled(
        options,
        || (),
        |(), random| {
            let sum: f64 = (0..n).map(|_| numbers[random.random_range(0..n)]).sum();
            Some(sum / n as f64)
        },
    );
    // Leaving a number out moves the mean by its distance from the mean, times the same for all.
    let centre = mean(numbers);
    let influences: Vec<f64> = numbers.iter().map(|number| number - centre).collect();
    finish(centre, &influences, resampled, options)
}

/// Any statistic of `n_samples` samples: it gets the places of the samples that were drawn, some of them several times,
/// and answers its value, or none where it has none (an area under a curve without samples of one class). For the
/// difference of two networks it computes both on these places and subtracts.
///
/// The acceleration is by the jackknife; of more than 1,000 samples groups are left out together, which estimates the
/// same number: the skewness of a group's sum falls as the number of groups does.
///
/// # Errors
/// When there are no samples, the options are out of range, or the statistic has no value on the samples or on more
/// than a twentieth of the resamples. NaN and infinities are no values.
pub fn statistic_interval(
    n_samples: usize,
    statistic: &(dyn Fn(&[usize]) -> Option<f64> + Sync),
    options: &Options,
) -> Result<Bootstrap, StatisticsError> {
    check_options(options, n_samples)?;
    let value = |places: &[usize]| statistic(places).filter(|value| value.is_finite());
    let all: Vec<usize> = (0..n_samples).collect();
    let estimate = value(&all).ok_or(StatisticsError::Undefined { n_resamples: 1, n_undefined: 1 })?;
    let resampled = resampled(
        options,
        || vec![0; n_samples],
        |places, random| {
            places.fill_with(|| random.random_range(0..n_samples));
            value(places)
        },
    );
    let n_groups = n_samples.min(MOST_GROUPS);
    let left_out: Vec<Option<f64>> = (0..n_groups)
        .into_par_iter()
        .map(|group| value(&all.iter().copied().filter(|place| place % n_groups != group).collect::<Vec<_>>()))
        .collect();
    // A statistic that needs the one sample left out has no value there, and that sample no say.
    let left_out: Vec<f64> = left_out.into_iter().flatten().collect();
    let centre = mean(&left_out);
    let influences: Vec<f64> = left_out.iter().map(|value| centre - value).collect();
    finish(estimate, &influences, resampled, options)
}

fn check_options(options: &Options, n_samples: usize) -> Result<(), StatisticsError> {
    check_between_0_and_1("the confidence", options.confidence)?;
    if options.n_resamples == 0 {
        let range = "at least 1; some thousands for a 95 % interval";
        return Err(StatisticsError::Parameter { what: "the number of resamples", value: 0.0, range });
    }
    if n_samples == 0 { Err(StatisticsError::Empty) } else { Ok(()) }
}

/// The statistic on every resample, in an order that threads do not change: each piece of the work has its own stream.
fn resampled<T>(
    options: &Options,
    workspace: impl Fn() -> T + Sync,
    draw: impl Fn(&mut T, &mut ChaCha8Rng) -> Option<f64> + Sync,
) -> Vec<Option<f64>> {
    let n_pieces = options.n_resamples.div_ceil(PIECE);
    let piece = |piece_idx: usize| {
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        random.set_stream(piece_idx as u64);
        let mut workspace = workspace();
        let n = PIECE.min(options.n_resamples - piece_idx * PIECE);
        (0..n).map(|_| draw(&mut workspace, &mut random)).collect::<Vec<_>>()
    };
    (0..n_pieces).into_par_iter().map(piece).collect::<Vec<_>>().concat()
}

/// The interval, given how far each sample (or group of samples) pulls the statistic, up to one factor for all.
fn finish(
    estimate: f64,
    influences: &[f64],
    resampled: Vec<Option<f64>>,
    options: &Options,
) -> Result<Bootstrap, StatisticsError> {
    let n_all = resampled.len();
    let values: Vec<f64> = resampled.into_iter().flatten().collect();
    let n_undefined = n_all - values.len();
    if values.is_empty() || n_undefined as f64 > UNDEFINED_ALLOWED * n_all as f64 {
        return Err(StatisticsError::Undefined { n_resamples: n_all, n_undefined });
    }
    let values = sorted(&values);
    let bias = bias(&values, estimate);
    let acceleration = acceleration(influences);
    let end = |tail: f64| quantile(&values, adjusted_level(tail, bias, acceleration));
    let tail = (1.0 - options.confidence) / 2.0;
    let interval = Interval { estimate, low: end(tail), high: end(1.0 - tail), confidence: options.confidence };
    Ok(Bootstrap { interval, bias, acceleration, n_resamples: values.len(), n_undefined })
}

/// z₀: the normal quantile of the part of the resamples below the estimate, those equal to it counted by half. Kept
/// finite where all lie on one side.
fn bias(ascending: &[f64], estimate: f64) -> f64 {
    let n = ascending.len() as f64;
    let below = ascending.partition_point(|&value| value < estimate) as f64;
    let not_above = ascending.partition_point(|&value| value <= estimate) as f64;
    let half_a_resample = 0.5 / n;
    normal::quantile(((below + not_above) / (2.0 * n)).clamp(half_a_resample, 1.0 - half_a_resample))
}

/// a = Σ u³ / (6 (Σ u²)^1.5) (Efron 1987, equation 7.3); 0 where nothing pulls.
fn acceleration(influences: &[f64]) -> f64 {
    let sum = |power: i32| influences.iter().map(|influence| influence.powi(power)).sum::<f64>();
    let spread = sum(2).powf(1.5);
    if spread > 0.0 { sum(3) / (6.0 * spread) } else { 0.0 }
}

/// Which quantile of the resamples is the end of the interval (Efron 1987, equation 3.8).
fn adjusted_level(tail: f64, bias: f64, acceleration: f64) -> f64 {
    let shifted = bias + normal::quantile(tail);
    let stretch = 1.0 - acceleration * shifted;
    if stretch <= 0.0 {
        return if shifted > 0.0 { 1.0 } else { 0.0 };
    }
    normal::cumulative(bias + shifted / stretch)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [f64; 15] = [0.3, -0.1, 0.05, 0.8, -0.4, 0.15, 0.0, 0.22, 1.9, -0.05, 0.12, 0.33, -0.2, 0.6, 0.01];
    const OPTIONS: Options = Options { n_resamples: 20_000, confidence: 0.95, seed: 7 };

    fn check(got: Result<Bootstrap, StatisticsError>, low: f64, high: f64, tolerance: f64) {
        let got = got.expect("an interval").interval;
        assert!((got.low - low).abs() < tolerance && (got.high - high).abs() < tolerance, "{got:?} {low} {high}");
    }

    /// `scipy.stats.bootstrap(method="BCa")` of SciPy 1.17.1 with 200,000 resamples and more; its ends differ by 0.003
    /// from seed to seed.
    #[test]
    fn intervals_are_scipy_s() {
        check(mean_interval(&SCORES, &OPTIONS), 0.0562, 0.6509, 0.012);
        let rights: Vec<f64> =
            [(1.0, 12), (-1.0, 20), (0.0, 168)].iter().flat_map(|&(value, n)| vec![value; n]).collect();
        check(mean_interval(&rights, &OPTIONS), -0.095, 0.015, 0.006);
        let a = [1.2, 2.3, 0.7, 3.1, 2.9, 4.4, 5.2, 3.8, 6.1, 5.0, 7.7, 6.5];
        let b = [0.9, 2.0, 1.5, 2.2, 3.5, 3.9, 4.1, 5.2, 5.5, 6.3, 6.0, 8.1];
        let correlation = |places: &[usize]| {
            let centre = |x: &[f64]| mean(&places.iter().map(|&place| x[place]).collect::<Vec<_>>());
            let (centre_a, centre_b) = (centre(&a), centre(&b));
            let product = |x: &[f64], x0: f64, y: &[f64], y0: f64| {
                places.iter().map(|&place| (x[place] - x0) * (y[place] - y0)).sum::<f64>()
            };
            let spread = product(&a, centre_a, &a, centre_a) * product(&b, centre_b, &b, centre_b);
            (spread > 0.0).then(|| product(&a, centre_a, &b, centre_b) / spread.sqrt())
        };
        let got = statistic_interval(12, &correlation, &OPTIONS).expect("an interval");
        assert!((got.interval.estimate - 0.8757119259478515).abs() < 1e-12, "{got:?}");
        check(Ok(got), 0.676, 0.9424, 0.012);
    }

    #[test]
    fn a_mean_is_a_statistic() {
        let as_statistic =
            |places: &[usize]| Some(mean(&places.iter().map(|&place| SCORES[place]).collect::<Vec<_>>()));
        let one = mean_interval(&SCORES, &OPTIONS).expect("an interval");
        let other = statistic_interval(SCORES.len(), &as_statistic, &OPTIONS).expect("an interval");
        assert!((one.acceleration - other.acceleration).abs() < 1e-12, "{one:?} {other:?}");
        check(Ok(other), one.interval.low, one.interval.high, 1e-12);
    }

    #[test]
    fn groups_left_out_give_nearly_the_same_acceleration() {
        let skewed: Vec<f64> = (0..20_000).map(|idx| -(((idx * 7919 % 20_000) as f64 + 0.5) / 20_000.0).ln()).collect();
        let of_all = mean_interval(&skewed, &Options { n_resamples: 100, ..OPTIONS }).expect("an interval");
        let as_statistic =
            |places: &[usize]| Some(mean(&places.iter().map(|&place| skewed[place]).collect::<Vec<_>>()));
        let options = Options { n_resamples: 100, ..OPTIONS };
        let of_groups = statistic_interval(skewed.len(), &as_statistic, &options).expect("an interval");
        assert!((of_all.acceleration - 2.0 / (6.0 * 20_000f64.sqrt())).abs() < 1e-4, "{of_all:?}");
        assert!((of_all.acceleration - of_groups.acceleration).abs() < 0.004, "{of_all:?} {of_groups:?}");
    }

    #[test]
    fn threads_do_not_change_a_bit_and_seeds_do() {
        let with_threads = |n_threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("threads can be started");
            pool.install(|| mean_interval(&SCORES, &OPTIONS)).expect("an interval")
        };
        let one = with_threads(1);
        assert_eq!(one, with_threads(2));
        assert_eq!(one, with_threads(7));
        assert_ne!(Ok(one), mean_interval(&SCORES, &Options { seed: 8, ..OPTIONS }));
    }

    #[test]
    fn equal_numbers_give_a_point() {
        let got = mean_interval(&[0.25; 30], &OPTIONS).expect("an interval");
        assert_eq!((got.interval.low, got.interval.estimate, got.interval.high), (0.25, 0.25, 0.25));
        assert_eq!((got.bias.abs() < 1e-12, got.acceleration), (true, 0.0));
        assert!(mean_interval(&[0.1], &OPTIONS).is_ok_and(|got| got.interval.low == 0.1 && got.interval.high == 0.1));
    }

    #[test]
    fn what_has_no_value_is_left_out_or_refused() {
        let needs_first = |places: &[usize]| places.contains(&0).then_some(places.len() as f64);
        let error = statistic_interval(10, &needs_first, &OPTIONS).expect_err("a third of the resamples lacks it");
        assert!(
            matches!(error, StatisticsError::Undefined { n_resamples: 20_000, n_undefined: 6000..8000 }),
            "{error}"
        );
        let needs_half = |places: &[usize]| places.iter().any(|&place| place < 4).then_some(1.0);
        let got = statistic_interval(10, &needs_half, &OPTIONS).expect("few resamples lack all four");
        assert!(got.n_undefined > 0 && got.n_undefined + got.n_resamples == 20_000, "{got:?}");
        let undefined = StatisticsError::Undefined { n_resamples: 1, n_undefined: 1 };
        assert_eq!(statistic_interval(3, &|_| Some(f64::NAN), &OPTIONS), Err(undefined));
        assert_eq!(mean_interval(&[], &OPTIONS), Err(StatisticsError::Empty));
        assert!(mean_interval(&[1.0, f64::INFINITY], &OPTIONS).is_err());
        let error = mean_interval(&[1.0], &Options { n_resamples: 0, ..OPTIONS }).expect_err("no resamples");
        assert!(error.to_string().starts_with("the number of resamples is 0"), "{error}");
    }
}
