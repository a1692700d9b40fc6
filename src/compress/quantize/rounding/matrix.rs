//! A constant rounded: grids chosen, rows spread over threads, and never a result worse than the nearest integers.

use rayon::prelude::*;

use super::super::QuantizeError;
use super::super::parameters::{Layout, Parameters};
use super::super::scheme::Granularity;
use super::gptq::{Course, gptq};
use super::grid::{Grid, Rows};
use super::{Item, Rounding};
use super::{adaround::adaround, clip, descent::descend};
use crate::compress::observe::factor;
use crate::graph::tensor::Tensor;

/// Rows that are rounded together: as many as share what is read of the moments.
const N_ROWS: usize = 64;

/// Where a constant stands.
pub(super) struct Site<'a> {
    pub(super) item: &'a Item,
    pub(super) constant: &'a Tensor,
    /// The least that each scale may be.
    pub(super) least_scale: &'a (dyn Fn(usize) -> f64 + Sync),
}

/// A constant on its grid.
pub(super) struct RoundedMatrix {
    pub(super) constant: Tensor,
    pub(super) parameters: Vec<Parameters>,
    pub(super) error_of_nearest: f64,
    pub(super) error: f64,
}

/// Rounds a constant; `moments` are of each of its groups.
///
/// # Errors
/// When the constant holds no `f32`.
pub(super) fn rounded(
    site: &Site<'_>,
    start: &[Parameters],
    method: Rounding,
    moments: &[Vec<f64>],
) -> Result<RoundedMatrix, QuantizeError> {
    let Item { axis, weights, .. } = *site.item;
    let clipped = clip::clipped(site.constant, axis, weights, &importance(site, moments), site.least_scale)?;
    let nearest = on_grid(site, start, Rounding::Nearest, moments)?;
    let mut best = on_grid(site, &clipped, method, moments)?;
    if best.error > nearest.error {
        best = on_grid(site, start, method, moments)?;
    }
    let OnGrid { numbers, parameters, error } = best;
    let constant = Tensor::new(site.constant.shape(), numbers)?;
    Ok(RoundedMatrix { constant, parameters, error_of_nearest: nearest.error, error })
}

/// The numbers of a constant on these grids.
struct OnGrid {
    numbers: Vec<f32>,
    parameters: Vec<Parameters>,
    error: f64,
}

/// How large the input is that each element meets, squared.
fn importance(site: &Site<'_>, moments: &[Vec<f64>]) -> Vec<f32> {
    let matrices = site.item.products[0].matrices;
    let mut importance = vec![0f32; site.constant.len()];
    for (group, moments) in moments.iter().enumerate() {
        for column in 0..matrices.n_columns {
            let square = moments[column * matrices.n_columns + column];
            for row in 0..matrices.n_rows {
                importance[matrices.position(group, row, column)] = square as f32;
            }
        }
    }
    importance
}

/// What a method needs to know of a group's moments.
struct Known {
    moments: Vec<f32>,
    order: Vec<usize>,
    factor: Vec<f32>,
    diagonal: Vec<f32>,
}

impl Known {
    fn new(moments: &[f64], n: usize, method: Rounding, keeps_order: bool) -> Known {
        let diagonal: Vec<f32> = (0..n).map(|column| moments[column * n + column] as f32).collect();
        let mut order: Vec<usize> = (0..n).collect();
        let mut factor = Vec::new();
        if method == Rounding::Gptq {
            if !keeps_order {
                // The most important first, while there are others to make up for their errors.
                order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
            }
            factor = factor::factor(moments, &order);
        }
        Known { moments: moments.iter().map(|&moment| moment as f32).collect(), order, factor, diagonal }
    }
}

fn on_grid(
    site: &Site<'_>,
    parameters: &[Parameters],
    method: Rounding,
    moments: &[Vec<f64>],
) -> Result<OnGrid, QuantizeError> {
    let Item { axis, weights, .. } = *site.item;
    let matrices = site.item.products[0].matrices;
    let numbers = site.constant.as_slice::<f32>()?;
    let layout = Layout::new(site.constant.shape(), axis, weights.granularity);
    let blocks = match weights.granularity {
        Granularity::Block(size) => {
            let scale = |column: usize| layout.scale_of(matrices.position(0, 0, column));
            (0..matrices.n_columns).all(|column| scale(column) == scale(column / size * size)).then_some(size)
        }
        Granularity::Tensor | Granularity::Channel => None,
    };
    let mut rounded = numbers.to_vec();
    let mut parameters = parameters.to_vec();
    let mut error = 0.0;
    for (group, moments) in moments.iter().enumerate() {
        let known = Known::new(moments, matrices.n_columns, method, blocks.is_some());
        let starts: Vec<usize> = (0..matrices.n_rows).step_by(N_ROWS).collect();
        let piece = |&start: &usize| {
            let of_rows = start..(start + N_ROWS).min(matrices.n_rows);
            let positions: Vec<usize> = of_rows
                .flat_map(|row| (0..matrices.n_columns).map(move |column| matrices.position(group, row, column)))
                .collect();
            let mut rows = Rows {
                n_columns: matrices.n_columns,
                numbers: positions.iter().map(|&position| numbers[position]).collect(),
                grids: positions.iter().map(|&at| Grid::new(parameters[layout.scale_of(at)], weights)).collect(),
            };
            let course = Course {
                order: &known.order,
                factor: &known.factor,
                blocks: blocks.map(|size| (size, weights, &known.diagonal[..])),
            };
            let (levels, errors) = solved(&mut rows, method, &known, &course);
            (positions, rows.grids, levels, errors)
        };
        let pieces: Vec<_> = starts.par_iter().map(piece).collect();
        for (positions, grids, levels, errors) in pieces {
            for ((position, grid), level) in positions.into_iter().zip(grids).zip(levels) {
                rounded[position] = level * grid.step;
                parameters[layout.scale_of(position)] = grid.parameters(weights);
            }
            error += errors;
        }
    }
    Ok(OnGrid { numbers: rounded, parameters, error })
}

/// The levels of some rows by a method, each row's no worse than the nearest, and the sum of what they cost.
fn solved(rows: &mut Rows, method: Rounding, known: &Known, course: &Course<'_>) -> (Vec<f32>, f64) {
    let n = rows.n_columns;
    let before = rows.clone();
    let mut nearest = rows.nearest();
    let of_nearest = before.objectives(&nearest, &known.moments);
    let mut levels = match method {
        Rounding::Nearest => return (nearest, of_nearest.iter().sum()),
        Rounding::Gptq => gptq(rows, course),
        Rounding::Adaround => adaround(rows, &known.moments),
    };
    descend(rows, &mut levels, &known.moments);
    let mut costs = rows.objectives(&levels, &known.moments);
    if costs.iter().zip(&of_nearest).any(|(own, nearest)| own > nearest) {
        descend(&before, &mut nearest, &known.moments);
        let better = before.objectives(&nearest, &known.moments);
        for (row, cost) in costs.iter_mut().enumerate().filter(|(row, cost)| **cost > better[*row]) {
            *cost = better[row];
            let range = row * n..(row + 1) * n;
            levels[range.clone()].copy_from_slice(&nearest[range.clone()]);
            rows.grids[range.clone()].copy_from_slice(&before.grids[range]);
        }
    }
    (levels, costs.iter().sum())
}
