//! How often the intervals hold the truth, and the verdicts are right, on simulated data: 2,000 draws each, so that a
//! part of 0.95 is known to a standard error of half a point.

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::bootstrap::mean_interval;
use super::sample_size::{Plan, of_proportions};
use super::verdict::{Options, Verdict, judge_counts};
use super::{Counts, bootstrap, proportions};

const N_DRAWS: u64 = 2000;
const TOLERANCE: f64 = 0.015;

/// The part of the draws of which it is true.
fn part_of_draws(is_true: impl Fn(&mut ChaCha8Rng) -> bool + Sync) -> f64 {
    let n_true = (0..N_DRAWS).into_par_iter().filter(|&draw| {
        let mut random = ChaCha8Rng::seed_from_u64(19);
        random.set_stream(draw);
        is_true(&mut random)
    });
    n_true.count() as f64 / N_DRAWS as f64
}

/// Samples of which the student alone gets the part `gains` right, and the teacher alone the part `losses`.
fn drawn(n: usize, gains: f64, losses: f64, random: &mut ChaCha8Rng) -> Counts {
    let mut counts = Counts::default();
    for _ in 0..n {
        let place: f64 = random.random();
        if place < gains {
            counts.n_student_only += 1;
        } else if place < gains + losses {
            counts.n_teacher_only += 1;
        } else {
            counts.n_both_right += 1;
        }
    }
    counts
}

#[test]
fn tango_s_interval_holds_the_truth_in_95_of_100() {
    let check = |n: usize, discordance: f64, difference: f64| {
        let (gains, losses) = ((discordance + difference) / 2.0, (discordance - difference) / 2.0);
        let coverage = part_of_draws(|random| {
            let interval = proportions::interval(&drawn(n, gains, losses, random), 0.95).expect("samples");
            interval.low <= difference && difference <= interval.high
        });
        assert!((coverage - 0.95).abs() <= TOLERANCE, "{n} {discordance} {difference}: {coverage}");
    };
    check(100, 0.2, 0.0);
    check(100, 0.1, -0.04);
    check(500, 0.02, 0.0);
    check(500, 0.05, -0.02);
    check(500, 0.3, -0.1);
    check(2000, 0.01, -0.005);
    check(2000, 0.1, -0.02);
    check(5000, 0.02, -0.01);
}

#[test]
fn the_bootstrap_holds_the_truth_in_95_of_100() {
    let check = |name: &str, n: usize, truth: f64, number: fn(&mut ChaCha8Rng) -> f64| {
        let coverage = part_of_draws(|random| {
            let numbers: Vec<f64> = (0..n).map(|_| number(random)).collect();
            let options = bootstrap::Options { n_resamples: 500, confidence: 0.95, seed: random.random() };
            let interval = mean_interval(&numbers, &options).expect("numbers").interval;
            interval.low <= truth && truth <= interval.high
        });
        assert!((coverage - 0.95).abs() <= TOLERANCE, "{name}: {coverage}");
    };
    check("uniform", 60, 0.0, |random| random.random::<f64>() - 0.5);
    check("skewed", 150, 1.0, |random| -(1.0 - random.random::<f64>()).ln());
    check("right and wrong, a fifth discordant", 150, -0.04, |random| {
        let place: f64 = random.random();
        f64::from(place < 0.08) - f64::from(place > 0.88)
    });
}

#[test]
fn verdicts_err_and_decide_as_often_as_planned() {
    let passes = |n: usize, discordance: f64, difference: f64| {
        let (gains, losses) = ((discordance + difference) / 2.0, (discordance - difference) / 2.0);
        let verdict = |random: &mut ChaCha8Rng| judge_counts(&drawn(n, gains, losses, random), &Options::at(0.02));
        part_of_draws(|random| verdict(random).is_ok_and(|judged| judged.verdict == Verdict::Passes))
    };
    for n in [500, 2000] {
        let wrongly = passes(n, 0.08, -0.02);
        assert!((wrongly - 0.025).abs() <= 0.011, "{n}: {wrongly}");
    }
    for (difference, discordance) in [(0.0, 0.06), (-0.005, 0.05)] {
        let plan = Plan { difference, margin: 0.02, confidence: 0.95, power: 0.8 };
        let n = of_proportions(&plan, discordance).expect("in range").expect("not at the margin");
        let rightly = passes(n, discordance, difference);
        assert!((rightly - 0.8).abs() <= 0.03, "{n} {difference}: {rightly}");
    }
}
