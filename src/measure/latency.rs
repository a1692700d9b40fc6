//! How long a run takes. Several contenders are timed in turns, so that what disturbs the machine disturbs all alike.
//!
//! A round times a block of runs of each contender, in an order that moves on by one from round to round. Runs of one
//! block are not independent of each other; rounds very nearly are: intervals are therefore over the rounds' medians.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::statistics::{self, Interval};

/// When to stop, and how sure to be.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Stop when the 95 % interval of every median is at most this wide, relative to the median.
    pub relative_width: f64,
    /// Stop at the latest after this time, warm-up included; a run that has begun is ended.
    pub budget: Duration,
    /// Never stop before this many rounds, unless the budget has ended. Six are the least that give an interval.
    pub min_rounds: usize,
    /// Time that a block of runs should take: long enough for a contender to get its caches back from the one before.
    pub block: Duration,
    /// When a contender is warm.
    pub warm_up: WarmUp,
}

/// When the runs before the first timed one are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmUp {
    /// When they no longer become quicker, or a fifth of the budget, shared by all contenders, has gone by.
    Detect,
    /// After this many, or when the budget has ended. After none a block is a single run: how many would fill it is
    /// learned in the warm-up.
    Runs(usize),
}

impl Options {
    /// The same with this budget, given in seconds; none where that is no time.
    pub fn with_budget_s(self, seconds: f64) -> Option<Options> {
        Some(Options { budget: Duration::try_from_secs_f64(seconds).ok()?, ..self })
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            relative_width: 0.02,
            budget: Duration::from_secs(10),
            min_rounds: 10,
            block: Duration::from_millis(10),
            warm_up: WarmUp::Detect,
        }
    }
}

/// Something whose runs are timed.
pub struct Contender<'a, E> {
    /// What the result calls it.
    pub label: String,
    /// One run.
    pub run: Box<dyn FnMut() -> Result<(), E> + 'a>,
}

/// What was measured of one contender. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "learn", derive(schemars::JsonSchema))]
pub struct Latency {
    /// The contender's.
    pub label: String,
    /// Runs timed.
    pub n: usize,
    /// Rounds in which they were timed.
    pub n_rounds: usize,
    /// Runs before that.
    pub n_warm_up: usize,
    /// Quickest run.
    pub min_us: f64,
    /// Median run.
    pub median_us: f64,
    /// 95 % interval of the rounds' medians; none for fewer than six rounds.
    pub interval_us: Option<Interval>,
    /// Mean run.
    pub mean_us: f64,
    /// 90 % of the runs took at most this.
    pub p90_us: f64,
    /// 95 % interval of it, as if runs were independent; none for too few runs.
    #[serde(default)]
    pub p90_interval_us: Option<Interval>,
    /// 95 % of the runs took at most this.
    pub p95_us: f64,
    /// As of the 90 %.
    #[serde(default)]
    pub p95_interval_us: Option<Interval>,
    /// 99 % of the runs took at most this; look at `n` before leaning on it.
    pub p99_us: f64,
    /// As of the 90 %.
    #[serde(default)]
    pub p99_interval_us: Option<Interval>,
    /// 99.9 % of the runs took at most this; look at `n` before leaning on it.
    #[serde(default)]
    pub p999_us: f64,
    /// Median absolute deviation from the median.
    pub spread_us: f64,
    /// Whether the interval became as tight as asked for.
    pub is_tight: bool,
    /// This contender's time over the first contender's, round by round: median and 95 % interval; none for the first.
    pub ratio_to_first: Option<Interval>,
}

/// Confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// How far the measuring is; for progress lines.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Rounds done.
    pub n_rounds: usize,
    /// Widest interval of all contenders, relative to its median; infinite as long as there is none.
    pub relative_width: f64,
    /// Time since the beginning.
    pub elapsed: Duration,
}

/// Times the contenders in turns.
///
/// # Errors
/// The first that a run returns.
pub fn interleaved<E>(
    contenders: &mut [Contender<'_, E>],
    options: &Options,
    observe: &mut dyn FnMut(Progress),
) -> Result<Vec<Latency>, E> {
    let began = Instant::now();
    let mut timings = Vec::with_capacity(contenders.len());
    let share = options.budget / 5 / u32::try_from(contenders.len().max(1)).unwrap_or(u32::MAX);
    for contender in contenders.iter_mut() {
        let warm_up_budget = match options.warm_up {
            WarmUp::Detect => share,
            WarmUp::Runs(_) => options.budget.saturating_sub(began.elapsed()),
        };
        timings.push(warm_up(contender, options, warm_up_budget)?);
    }
    let mut n_rounds = 0;
    while !contenders.is_empty() {
        for turn in 0..contenders.len() {
            let idx = (turn + n_rounds) % contenders.len();
            time_block(&mut contenders[idx], &mut timings[idx])?;
        }
        n_rounds += 1;
        let relative_width = timings.iter().map(Timings::relative_width).fold(0.0, f64::max);
        let elapsed = began.elapsed();
        observe(Progress { n_rounds, relative_width, elapsed });
        let is_tight = n_rounds >= options.min_rounds && relative_width <= options.relative_width;
        if is_tight || elapsed >= options.budget {
            break;
        }
    }
    let labels = contenders.iter().map(|contender| contender.label.clone());
    let rows = labels.zip(&timings).enumerate();
    Ok(rows.map(|(idx, (label, row))| summary(label, row, (idx > 0).then(|| &timings[0]), options)).collect())
}

/// Sums up times of single runs that somebody else took; none of none. Each run counts as a round.
pub fn of_samples(label: &str, samples_us: &[f64], relative_width: f64) -> Option<Latency> {
    let samples_us = samples_us.to_vec();
    if samples_us.is_empty() || !samples_us.iter().all(|sample| sample.is_finite()) {
        return None;
    }
    let timings = Timings { n_warm_up: 0, n_in_block: 1, round_medians_us: samples_us.clone(), samples_us };
    Some(summary(label.to_owned(), &timings, None, &Options { relative_width, ..Options::default() }))
}

/// The time of one call, and what it returned.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}

#[derive(Default)]
struct Timings {
    n_warm_up: usize,
    n_in_block: usize,
    samples_us: Vec<f64>,
    round_medians_us: Vec<f64>,
}

impl Timings {
    fn interval(&self) -> Option<Interval> {
        statistics::median_interval(&statistics::sorted(&self.round_medians_us), CONFIDENCE)
    }

    fn relative_width(&self) -> f64 {
        self.interval().map_or(f64::INFINITY, |interval| interval.relative_width())
    }
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn time_once<E>(contender: &mut Contender<'_, E>) -> Result<f64, E> {
    let (result, duration) = timed(|| (contender.run)());
    result.map(|()| microseconds(duration))
}

/// Runs until the contender is warm, but begins none, except the first, after the budget.
fn warm_up<E>(contender: &mut Contender<'_, E>, options: &Options, budget: Duration) -> Result<Timings, E> {
    let began = Instant::now();
    let mut samples_us = Vec::new();
    let is_enough = |samples_us: &[f64]| match options.warm_up {
        WarmUp::Detect => is_warm(samples_us),
        WarmUp::Runs(n) => samples_us.len() >= n,
    };
    while !is_enough(&samples_us) && (samples_us.is_empty() || began.elapsed() < budget) {
        samples_us.push(time_once(contender)?);
    }
    let n_in_block = n_in_block(&samples_us, options.block);
    Ok(Timings { n_warm_up: samples_us.len(), n_in_block, ..Timings::default() })
}

/// Runs that fill a block, from the last of those before it; one if there were none.
fn n_in_block(samples_us: &[f64], block: Duration) -> usize {
    if samples_us.is_empty() {
        return 1;
    }
    let last = &samples_us[samples_us.len().saturating_sub(WARM_UP_WINDOW)..];
    let typical_us = statistics::median(&statistics::sorted(last)).max(0.1);
    (microseconds(block) / typical_us).ceil().clamp(1.0, 1000.0) as usize
}

/// Runs that are compared with as many before them.
const WARM_UP_WINDOW: usize = 5;

/// Whether the last few are no longer clearly quicker than the few before them.
fn is_warm(samples_us: &[f64]) -> bool {
    let Some(start) = samples_us.len().checked_sub(2 * WARM_UP_WINDOW) else { return false };
    let (before, now) = samples_us[start..].split_at(WARM_UP_WINDOW);
    let median = |window: &[f64]| statistics::median(&statistics::sorted(window));
    median(now) >= 0.97 * median(before)
}

/// Times a block. Where it holds several runs, one more goes before it untimed and brings the caches back.
fn time_block<E>(contender: &mut Contender<'_, E>, timings: &mut Timings) -> Result<(), E> {
    if timings.n_in_block > 1 {
        (contender.run)()?;
    }
    let first = timings.samples_us.len();
    for _ in 0..timings.n_in_block {
        let sample_us = time_once(contender)?;
        timings.samples_us.push(sample_us);
    }
    timings.round_medians_us.push(statistics::median(&statistics::sorted(&timings.samples_us[first..])));
    Ok(())
}

fn summary(label: String, timings: &Timings, first: Option<&Timings>, options: &Options) -> Latency {
    let ascending = statistics::sorted(&timings.samples_us);
    let ratios = first.map(|first| {
        let rounds = timings.round_medians_us.iter().zip(&first.round_medians_us);
        statistics::sorted(&rounds.map(|(ours, theirs)| ours / theirs).collect::<Vec<f64>>())
    });
    let tail = |fraction: f64| statistics::quantile_interval(&ascending, fraction, CONFIDENCE);
    Latency {
        label,
        n: ascending.len(),
        n_rounds: timings.round_medians_us.len(),
        n_warm_up: timings.n_warm_up,
        min_us: statistics::quantile(&ascending, 0.0),
        median_us: statistics::median(&ascending),
        interval_us: timings.interval(),
        mean_us: statistics::mean(&ascending),
        p90_us: statistics::quantile(&ascending, 0.90),
        p90_interval_us: tail(0.90),
        p95_us: statistics::quantile(&ascending, 0.95),
        p95_interval_us: tail(0.95),
        p99_us: statistics::quantile(&ascending, 0.99),
        p99_interval_us: tail(0.99),
        p999_us: statistics::quantile(&ascending, 0.999),
        spread_us: statistics::median_absolute_deviation(&ascending),
        is_tight: timings.relative_width() <= options.relative_width,
        ratio_to_first: ratios.and_then(|ratios| statistics::median_interval(&ratios, CONFIDENCE)),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::convert::Infallible;

    use super::*;

    fn spin(duration: Duration) {
        let began = Instant::now();
        while began.elapsed() < duration {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn turns_are_taken_and_ratios_are_right() {
        let order = RefCell::new(Vec::new());
        let contender = |label: &str, us: u64| {
            let (name, order) = (label.to_owned(), &order);
            let run = move || {
                order.borrow_mut().push(name.clone());
                spin(Duration::from_micros(us));
                Ok::<(), Infallible>(())
            };
            Contender { label: label.to_owned(), run: Box::new(run) }
        };
        let mut contenders = [contender("a", 100), contender("b", 300)];
        let options = Options {
            budget: Duration::from_millis(400),
            block: Duration::from_micros(50),
            relative_width: 0.0,
            ..Options::default()
        };
        let results = interleaved(&mut contenders, &options, &mut |_| ()).expect("they cannot fail");
        assert!(results[0].median_us >= 100.0 && results[1].median_us >= 300.0, "{results:?}");
        assert_eq!(results[0].ratio_to_first, None);
        let ratio = results[1].ratio_to_first.expect("rounds enough").estimate;
        assert!((2.0..4.0).contains(&ratio), "{ratio}");
        let order = order.borrow();
        let rounds = &order[results[0].n_warm_up + results[1].n_warm_up..];
        assert_eq!(rounds[..8], ["a", "b", "b", "a", "a", "b", "b", "a"]);
    }

    #[test]
    fn the_first_error_ends_it() {
        let mut contenders = [Contender { label: "a".to_owned(), run: Box::new(|| Err("no")) }];
        assert_eq!(interleaved(&mut contenders, &Options::default(), &mut |_| ()), Err("no"));
    }

    #[test]
    fn warm_is_when_runs_no_longer_become_quicker() {
        let falling: Vec<f64> = (0..10).map(|idx| 100.0 - 5.0 * f64::from(idx)).collect();
        assert!(!is_warm(&falling) && !is_warm(&[1.0; 9]) && is_warm(&[1.0; 10]));
    }

    #[test]
    fn a_warm_up_may_be_a_number_of_runs() {
        let check = |n: usize, budget: Duration| {
            let mut n_runs = 0;
            let run = Box::new(|| {
                n_runs += 1;
                spin(Duration::from_micros(100));
                Ok::<(), Infallible>(())
            });
            let mut contenders = [Contender { label: "a".to_owned(), run }];
            let block = Duration::from_micros(50);
            let options = Options {
                budget,
                block,
                relative_width: f64::INFINITY,
                warm_up: WarmUp::Runs(n),
                ..Options::default()
            };
            let results = interleaved(&mut contenders, &options, &mut |_| ()).expect("they cannot fail");
            drop(contenders);
            assert_eq!(n_runs, results[0].n_warm_up + results[0].n);
            results[0].n_warm_up
        };
        let long = Duration::from_secs(10);
        assert_eq!([0, 1, 3, 25].map(|n| check(n, long)), [0, 1, 3, 25]);
        assert_eq!(check(3, Duration::ZERO), 1);
        assert_eq!([n_in_block(&[], long), n_in_block(&[100.0; 3], Duration::from_micros(250))], [1, 3]);
    }

    #[test]
    fn times_that_somebody_else_took_are_summed_up() {
        let samples: Vec<f64> = (1..=101).map(f64::from).collect();
        let latency = of_samples("board", &samples, 0.1).expect("samples");
        assert_eq!((latency.label.as_str(), latency.n, latency.median_us), ("board", 101, 51.0));
        assert!(latency.interval_us.is_some_and(|interval| interval.low < 51.0 && interval.high > 51.0));
        assert!(!latency.is_tight);
        assert_eq!((of_samples("board", &[], 0.1), of_samples("board", &[f64::NAN], 0.1)), (None, None));
    }

    #[test]
    fn a_summary_is_computed_from_the_samples() {
        let timings = Timings {
            n_warm_up: 3,
            n_in_block: 1,
            samples_us: (1..=100).map(f64::from).collect(),
            round_medians_us: (1..=100).map(f64::from).collect(),
        };
        let latency = summary("x".to_owned(), &timings, Some(&timings), &Options::default());
        assert_eq!((latency.n, latency.min_us, latency.median_us, latency.mean_us), (100, 1.0, 50.5, 50.5));
        assert!((latency.p99_us - 99.01).abs() < 1e-9 && latency.spread_us == 25.0);
        let interval = latency.interval_us.expect("a hundred rounds");
        assert_eq!((interval.low, interval.high), (40.0, 61.0));
        assert_eq!(latency.ratio_to_first.map(|ratio| ratio.estimate), Some(1.0));
    }
}
