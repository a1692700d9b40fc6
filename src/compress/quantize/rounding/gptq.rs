//! Rounding column after column, where those to come make up for the errors of those before (Frantar et al., "GPTQ: Accurate
//! Post-Training Quantization for Generative Pre-trained Transformers", 2023, algorithm 1).

use super::super::scheme::Weights;
use super::clip;
use super::grid::{Grid, Rows};
use crate::compress::observe::factor::{pull, targets};

/// In what order columns are rounded, and what rounding one does to the others.
#[derive(Debug)]
pub(super) struct Course<'a> {
    /// The columns.
    pub(super) order: &'a [usize],
    /// Of the moments in this order, from [`crate::compress::observe::factor::factor`].
    pub(super) factor: &'a [f32],
    /// Where columns stand in their own order and so many neighbours share a scale: it is chosen anew when the first of them is
    /// rounded, for what they have become by then. With the importance of each column.
    pub(super) blocks: Option<(usize, Weights, &'a [f32])>,
}

/// The levels of these rows. Grids of blocks are changed where the course says so.
pub(super) fn gptq(rows: &mut Rows, course: &Course<'_>) -> Vec<f32> {
    let n = rows.n_columns;
    let mut levels = vec![0f32; rows.numbers.len()];
    let mut pulled = vec![0f32; rows.numbers.len()];
    for (idx, &column) in course.order.iter().enumerate() {
        let factor = &course.factor[idx * n..][..n];
        for (row, pulled) in pulled.chunks_exact_mut(n).enumerate() {
            if let Some((size, weights, importance)) = course.blocks.filter(|(size, ..)| idx % size == 0) {
                let columns = idx..(idx + size).min(n);
                let targets = targets(course.factor, columns.clone(), &rows.numbers[row * n..][..n], pulled);
                let grid = Grid::new(clip::best(&targets, &importance[columns.clone()], weights, 0.0), weights);
                rows.grids[row * n..][columns].fill(grid);
            }
            let position = row * n + column;
            let (x, grid) = (rows.numbers[position], rows.grids[position]);
            let level = grid.nearest(x + pulled[idx] / factor[idx]);
            levels[position] = level;
            pull(x - level * grid.step, &factor[idx + 1..], &mut pulled[idx + 1..]);
        }
    }
    levels
}
