//! Rounding made better one weight at a time: each takes the level that is best for the others as they are, until none moves
//! (Nair and Suggala, "CDQuant: Greedy Coordinate Descent for Accurate LLM Quantization", 2024, cyclic).

use super::grid::{Grid, Rows};
use crate::compress::observe::factor::pulls;

/// Rounds over all columns; few move in the last ones.
const N_ROUNDS: usize = 20;

/// Moves levels where the objective falls by it.
pub(super) fn descend(rows: &Rows, levels: &mut [f32], moments: &[f32]) {
    let n = rows.n_columns;
    let mut pulls = pulls(&rows.errors(levels), n, moments);
    for ((levels, pulls), grids) in levels.chunks_mut(n).zip(pulls.chunks_mut(n)).zip(rows.grids.chunks(n)) {
        for _ in 0..N_ROUNDS {
            if !descend_once(levels, pulls, grids, moments) {
                break;
            }
        }
    }
}

/// Whether any level of a row moved. `pulls` are kept up to date.
fn descend_once(levels: &mut [f32], pulls: &mut [f32], grids: &[Grid], moments: &[f32]) -> bool {
    let n = levels.len();
    let mut moved = false;
    for column in 0..n {
        let own = moments[column * n + column];
        let (grid, level) = (grids[column], levels[column]);
        if own <= 0.0 {
            continue;
        }
        let better = grid.hold((level - pulls[column] / (own * grid.step)).round_ties_even());
        let by = (better - level) * grid.step;
        if better != level && by * (2.0 * pulls[column] + by * own) < 0.0 {
            levels[column] = better;
            moved = true;
            let from = &moments[column * n..][..n];
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || pulls.iter_mut().zip(from).for_each(|(pull, from)| *pull += by * from),
            );
        }
    }
    moved
}
