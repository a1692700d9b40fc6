//! Scales that cut off the largest weights where the others gain more by it (Banner, Nahshan and Soudry, 2019, for weights; each
//! error counts by how large the input is that it meets).

use rayon::prelude::*;

use super::super::parameters::{Layout, Parameters, of_range};
use super::super::scheme::Weights;
use super::grid::Grid;
use crate::graph::tensor::{Tensor, TensorError};

/// The least part of the range that is tried, and the steps from there to all of it.
const LEAST: f64 = 0.3;
const N_STEPS: usize = 70;

/// The scale by which the squared error of these numbers, each with its importance, is least, of some that cover the whole range or
/// a part of it. No scale is less than `least_scale`. Of equal ones the largest.
pub(super) fn best(numbers: &[f32], importance: &[f32], weights: Weights, least_scale: f64) -> Parameters {
    let (low, high) = numbers.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
    let candidate = |step: usize| {
        let part = 1.0 - (1.0 - LEAST) * step as f64 / N_STEPS as f64;
        of_range((f64::from(low) * part, f64::from(high) * part), weights, least_scale)
    };
    let mut found = (f64::INFINITY, candidate(0));
    for parameters in (0..=N_STEPS).map(candidate) {
        let error = squared_error(numbers, importance, Grid::new(parameters, weights));
        if error < found.0 {
            found = (error, parameters);
        }
    }
    found.1
}

fn squared_error(numbers: &[f32], importance: &[f32], grid: Grid) -> f64 {
    const N_LANES: usize = 16;
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let mut lanes = [0f32; N_LANES];
            let (xs, weights) = (numbers.chunks_exact(N_LANES), importance.chunks_exact(N_LANES));
            let rest = xs.remainder().iter().zip(weights.remainder());
            let rest: f32 = rest.map(|(&x, &weight)| weight * square_of_error(x, grid)).sum();
            for (x, weight) in xs.zip(weights) {
                for lane in 0..N_LANES {
                    lanes[lane] += weight[lane] * square_of_error(x[lane], grid);
                }
            }
            f64::from(lanes.iter().sum::<f32>()) + f64::from(rest)
        },
    )
}

#[inline(always)]
fn square_of_error(x: f32, grid: Grid) -> f32 {
    let error = grid.nearest(x) * grid.step - x;
    error * error
}

/// The best scales of a constant. `importance` is of each element; `least_scale` by scale, none where it has no bound.
///
/// # Errors
/// When the constant holds no `f32`.
pub(super) fn clipped(
    constant: &Tensor,
    axis: Option<usize>,
    weights: Weights,
    importance: &[f32],
    least_scale: impl Fn(usize) -> f64 + Sync,
) -> Result<Vec<Parameters>, TensorError> {
    let numbers = constant.as_slice::<f32>()?;
    let layout = Layout::new(constant.shape(), axis, weights.granularity);
    let mut members: Vec<(Vec<f32>, Vec<f32>)> = vec![Default::default(); layout.n_scales];
    for (position, (&x, &importance)) in numbers.iter().zip(importance).enumerate() {
        let (numbers, importances) = &mut members[layout.scale_of(position)];
        numbers.push(x);
        importances.push(importance);
    }
    let best = |(scale_idx, (numbers, importance)): (usize, &(Vec<f32>, Vec<f32>))| {
        best(numbers, importance, weights, least_scale(scale_idx))
    };
    Ok(members.par_iter().enumerate().map(best).collect())
}
