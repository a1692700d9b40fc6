//! Rounding up or down learned by gradient descent (Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization",
//! 2020, equations 21 to 25).
//!
//! Of a linear layer the paper's objective is the quadratic form of the second moments, so no samples are run again: a step
//! takes all that was seen.

use super::grid::{Grid, Rows};
use crate::compress::observe::factor::pulls;
use crate::learn::kernels::elementwise::{Unary, forward_in_place};

/// Fewer than the paper's, which sees a batch a step.
const N_STEPS: usize = 500;
/// Steps before the regulariser begins, as part of all.
const WARM_UP: f32 = 0.2;
/// The exponent of the regulariser, from wide to narrow.
const BETA: (f32, f32) = (20.0, 2.0);
/// The weight of the regulariser beside the error, of which a weight rounded at random would make one twelfth.
const REGULARIZER: f32 = 0.01;
const RATE: f32 = 1e-2;
/// Between what the sigmoid is stretched before it is clipped to 0 and 1.
const STRETCH: (f32, f32) = (-0.1, 1.1);
const WIDTH: f32 = STRETCH.1 - STRETCH.0;

/// The levels of these rows: of each number the one below or above it.
pub(super) fn adaround(rows: &Rows, moments: &[f32]) -> Vec<f32> {
    let n = rows.n_columns;
    let below: Vec<f32> = rows.numbers.iter().zip(&rows.grids).map(|(x, grid)| (x / grid.step).floor()).collect();
    let mut learner = Learner::new(rows, &below);
    let costs = costs(rows, moments);
    for step in 0..N_STEPS {
        learner.look();
        let mut slopes = pulls(&learner.errors(), n, moments);
        for (slopes, cost) in slopes.chunks_mut(n.max(1)).zip(&costs) {
            slopes.iter_mut().for_each(|slope| *slope *= 2.0 / cost);
        }
        learner.step(step, &slopes);
    }
    learner.look();
    let level =
        |((below, grid), sigmoid): ((f32, &Grid), &f32)| grid.hold(below + f32::from(u8::from(*sigmoid >= 0.5)));
    below.into_iter().zip(&rows.grids).zip(&learner.sigmoids).map(level).collect()
}

/// By row, what an error of one step in one weight costs on average.
fn costs(rows: &Rows, moments: &[f32]) -> Vec<f32> {
    let n = rows.n_columns;
    let cost = |grids: &[Grid]| {
        let costs = grids.iter().enumerate().map(|(column, grid)| grid.step * grid.step * moments[column * n + column]);
        (costs.sum::<f32>() / n as f32).max(f32::MIN_POSITIVE)
    };
    rows.grids.chunks(n.max(1)).map(cost).collect()
}

/// What is learned of each number, and Adam's moments of it.
struct Learner {
    values: Vec<f32>,
    means: Vec<f32>,
    squares: Vec<f32>,
    /// Of the values.
    sigmoids: Vec<f32>,
    /// What the level below is off by.
    errors_below: Vec<f32>,
    /// What the level above has more; nothing where only one of both exists.
    steps: Vec<f32>,
}

impl Learner {
    /// Begins with what stands for the numbers as they are.
    fn new(rows: &Rows, below: &[f32]) -> Learner {
        let n = below.len();
        let mut learner = Learner {
            values: Vec::with_capacity(n),
            means: vec![0.0; n],
            squares: vec![0.0; n],
            sigmoids: Vec::with_capacity(n),
            errors_below: Vec::with_capacity(n),
            steps: Vec::with_capacity(n),
        };
        for ((&x, grid), &below) in rows.numbers.iter().zip(&rows.grids).zip(below) {
            let part = (x / grid.step - below).clamp(0.0, 1.0);
            let (least, most) = (grid.hold(below), grid.hold(below + 1.0));
            learner.values.push(-(WIDTH / (part - STRETCH.0) - 1.0).ln());
            learner.errors_below.push(least * grid.step - x);
            learner.steps.push((most - least) * grid.step);
        }
        learner
    }

    fn look(&mut self) {
        self.sigmoids.clone_from(&self.values);
        forward_in_place(Unary::Sigmoid, &mut self.sigmoids);
    }

    /// What the numbers are off by, between the level below and that above (equations 22 and 23).
    fn errors(&self) -> Vec<f32> {
        let error = |((sigmoid, below), step): ((&f32, &f32), &f32)| below + stretched(*sigmoid).clamp(0.0, 1.0) * step;
        self.sigmoids.iter().zip(&self.errors_below).zip(&self.steps).map(error).collect()
    }

    /// A step of Adam along the slopes of the error by number, and of the regulariser `Σ 1 − |2h − 1|^β` (equation 24).
    fn step(&mut self, step: usize, slopes: &[f32]) {
        const DECAY: (f32, f32) = (0.9, 0.999);
        let after = (step as f32 / N_STEPS as f32 - WARM_UP) / (1.0 - WARM_UP);
        let beta = BETA.1 + (BETA.0 - BETA.1) * (1.0 - after);
        let weight = if after > 0.0 { REGULARIZER * 2.0 * beta } else { 0.0 };
        let powers = powers(&self.sigmoids, beta - 1.0);
        let count = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let (mean_part, square_part) = (1.0 - DECAY.0.powi(count), 1.0 - DECAY.1.powi(count));
        let Learner { values, means, squares, sigmoids, steps, .. } = self;
        let moved = values.iter_mut().zip(means.iter_mut().zip(squares));
        let seen = sigmoids.iter().zip(steps.iter()).zip(powers.iter().zip(slopes));
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for ((value, (mean, square)), ((&sigmoid, &step), (&power, &slope))) in moved.zip(seen) {
                    let h = stretched(sigmoid);
                    let own = if (0.0..=1.0).contains(&h) { sigmoid * (1.0 - sigmoid) * WIDTH } else { 0.0 };
                    let gradient = (slope * step - weight * power * (2.0 * h - 1.0).signum()) * own;
                    *mean = DECAY.0 * *mean + (1.0 - DECAY.0) * gradient;
                    *square = DECAY.1 * *square + (1.0 - DECAY.1) * gradient * gradient;
                    *value -= RATE * (*mean / mean_part) / ((*square / square_part).sqrt() + 1e-8);
                }
            },
        );
    }
}

/// The sigmoid before it is clipped (equation 23).
#[inline(always)]
fn stretched(sigmoid: f32) -> f32 {
    sigmoid * WIDTH + STRETCH.0
}

/// `|2h − 1|` to this power.
fn powers(sigmoids: &[f32], exponent: f32) -> Vec<f32> {
    let side = |&sigmoid: &f32| (2.0 * stretched(sigmoid).clamp(0.0, 1.0) - 1.0).abs();
    let mut powers: Vec<f32> = sigmoids.iter().map(side).collect();
    forward_in_place(Unary::Log, &mut powers);
    powers.iter_mut().for_each(|power| *power *= exponent);
    forward_in_place(Unary::Exp, &mut powers);
    powers
}
