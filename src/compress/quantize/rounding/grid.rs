//! Rows of numbers, the grid that each is to lie on, and what it costs to put it there.

use super::super::parameters::{Parameters, used};
use super::super::scheme::Weights;
use crate::compress::observe::factor::costs;

/// The grid of a number: a step, and how many of them there are below and above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Grid {
    pub(super) step: f32,
    pub(super) low: f32,
    pub(super) high: f32,
}

impl Grid {
    pub(super) fn new(parameters: Parameters, weights: Weights) -> Grid {
        let (least, greatest) = used(weights);
        let Parameters { scale, zero_point } = parameters;
        Grid { step: scale, low: (least - zero_point) as f32, high: (greatest - zero_point) as f32 }
    }

    pub(super) fn parameters(&self, weights: Weights) -> Parameters {
        Parameters { scale: self.step, zero_point: used(weights).0 - self.low as i32 }
    }

    /// The level nearest to a number, as [`super::super::parameters::with_parameters`] finds it.
    #[inline(always)]
    pub(super) fn nearest(&self, x: f32) -> f32 {
        self.hold((x / self.step).round_ties_even())
    }

    /// The level that exists nearest to this one.
    #[inline(always)]
    pub(super) fn hold(&self, level: f32) -> f32 {
        level.clamp(self.low, self.high)
    }
}

/// Some rows of a matrix.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub(super) n_columns: usize,
    pub(super) numbers: Vec<f32>,
    /// The grid of each number.
    pub(super) grids: Vec<Grid>,
}

impl Rows {
    pub(super) fn nearest(&self) -> Vec<f32> {
        self.numbers.iter().zip(&self.grids).map(|(&x, grid)| grid.nearest(x)).collect()
    }

    /// What levels are off by.
    pub(super) fn errors(&self, levels: &[f32]) -> Vec<f32> {
        let error = |((level, grid), x): ((&f32, &Grid), &f32)| level * grid.step - x;
        levels.iter().zip(&self.grids).zip(&self.numbers).map(error).collect()
    }

    /// By row, what the errors change in what the product makes, squared, on average.
    pub(super) fn objectives(&self, levels: &[f32], moments: &[f32]) -> Vec<f64> {
        costs(&self.errors(levels), self.n_columns, moments)
    }
}
