//! Elements taken out column after column, those to come making up for them (Frantar and Alistarh, "SparseGPT: Massive Language
//! Models Can Be Accurately Pruned in One-Shot", 2023, algorithm 1).

use std::ops::Range;

use rayon::prelude::*;

use super::choose::{lowest, of_group, share};
use super::layout::Layout;
use super::options::Pattern;
use crate::compress::observe::factor::{costs, factor, pull, targets};

/// Columns among which elements are chosen that go: the paper's block size for masks.
const N_TOGETHER: usize = 128;

/// Rows that are settled together: as many as share what is read of the factor.
const N_ROWS: usize = 64;

/// The mean square of what these numbers in the place of a weight change in what its products make, summed over channels.
pub(super) fn cost(layout: &Layout, weights: &[f32], numbers: &[f32], moments: &[Vec<f64>]) -> f64 {
    let matrices = layout.matrices;
    let of_group = |(group, moments): (usize, &Vec<f64>)| {
        let error = |position: usize| numbers[position] - weights[position];
        let row = |row: usize| (0..matrices.n_columns).map(move |column| matrices.position(group, row, column));
        let errors: Vec<f32> = (0..matrices.n_rows).flat_map(row).map(error).collect();
        let moments: Vec<f32> = moments.iter().map(|&moment| moment as f32).collect();
        costs(&errors, matrices.n_columns, &moments).iter().sum::<f64>()
    };
    moments.iter().enumerate().map(of_group).sum()
}

/// The numbers of a weight of which `sparsity` are zero, and which these are; `moments` are of each of its groups.
pub(super) fn solve(layout: &Layout, weights: &[f32], moments: &[Vec<f64>], sparsity: f64) -> (Vec<f32>, Vec<bool>) {
    let matrices = layout.matrices;
    let mut numbers = weights.to_vec();
    let mut is_out = vec![false; weights.len()];
    let order: Vec<usize> = (0..matrices.n_columns).map(|place| layout.column(place)).collect();
    for (group, moments) in moments.iter().enumerate() {
        let position = |row: usize, place: usize| matrices.position(group, row, order[place]);
        let places = |row: usize| (0..order.len()).map(move |place| (row, place));
        let rows = (0..matrices.n_rows).flat_map(places).map(|(row, place)| weights[position(row, place)]).collect();
        let solved = Group::new(rows, factor(moments, &order)).solve(layout, sparsity);
        for (idx, (row, place)) in (0..matrices.n_rows).flat_map(places).enumerate() {
            numbers[position(row, place)] = solved.settled[idx];
            is_out[position(row, place)] = solved.is_out[idx];
        }
    }
    (numbers, is_out)
}

/// Rows on their way, their columns in the order in which they are settled.
struct Group {
    n_columns: usize,
    factor: Vec<f32>,
    /// The numbers as they were.
    rows: Vec<f32>,
    /// What the errors of the columns that are settled pull at each.
    pulled: Vec<f32>,
    settled: Vec<f32>,
    is_out: Vec<bool>,
}

impl Group {
    fn new(rows: Vec<f32>, factor: Vec<f32>) -> Group {
        let (settled, pulled, is_out) = (rows.clone(), vec![0.0; rows.len()], vec![false; rows.len()]);
        Group { n_columns: factor.len().isqrt(), factor, rows, pulled, settled, is_out }
    }

    fn solve(mut self, layout: &Layout, sparsity: f64) -> Group {
        let spans = layout.spans();
        for window in windows(layout, &spans) {
            self.choose(layout, &spans, window.clone(), sparsity);
            self.settle(spans[window.start].start..spans[window.end - 1].end);
        }
        self
    }

    /// Marks what goes of a window of spans: what it costs to take each unit out alone, `w² / [H⁻¹]` with the numbers as the columns
    /// before have made them.
    fn choose(&mut self, layout: &Layout, spans: &[Range<usize>], window: Range<usize>, sparsity: f64) {
        let n = self.n_columns;
        let columns = spans[window.start].start..spans[window.end - 1].end;
        let own = &spans[window.clone()];
        let loss = |(rows, pulled): (&[f32], &[f32])| {
            let moved = targets(&self.factor, columns.clone(), rows, pulled);
            let loss = |(place, moved): (usize, f32)| {
                let loss = f64::from(moved) * f64::from(self.factor[place * n + place]);
                loss * loss
            };
            let losses: Vec<f64> = columns.clone().zip(moved).map(loss).collect();
            let of_span = |span: &Range<usize>| {
                losses[span.start - columns.start..span.end - columns.start].iter().sum::<f64>() / span.len() as f64
            };
            own.iter().map(of_span).collect::<Vec<f64>>()
        };
        let losses: Vec<Vec<f64>> = self.rows.par_chunks(n).zip(self.pulled.par_chunks(n)).map(loss).collect();
        let (height, n_strips) = (layout.unit().0, layout.n_strips());
        let of_strip = |rows: &[Vec<f64>]| {
            let mean = |span: usize| rows.iter().map(|losses| losses[span]).sum::<f64>() / rows.len() as f64;
            (0..own.len()).map(mean).collect::<Vec<f64>>()
        };
        let units: Vec<f64> = losses.chunks(height).flat_map(of_strip).collect();
        let chosen = match layout.pattern {
            Pattern::NM { m, .. } => lowest(&units, m, of_group(m, sparsity)),
            Pattern::Free | Pattern::Block { .. } => {
                // so that rounding does not add up from window to window
                let until = |span: usize| share(n_strips * span, sparsity);
                lowest(&units, units.len(), until(window.end) - until(window.start))
            }
        };
        for (unit, _) in chosen.iter().enumerate().filter(|(_, chosen)| **chosen) {
            let (strip, span) = (unit / own.len(), &own[unit % own.len()]);
            for rows in self.is_out.chunks_mut(n).skip(strip * height).take(height) {
                rows[span.clone()].fill(true);
            }
        }
    }

    /// Settles some columns: what is out at zero, all others where they make up for the errors before.
    fn settle(&mut self, columns: Range<usize>) {
        let n = self.n_columns;
        let size = N_ROWS * n;
        let (rows, factor) = (self.rows.par_chunks(size).zip(self.is_out.par_chunks(size)), &self.factor);
        let pieces = rows.zip(self.pulled.par_chunks_mut(size).zip(self.settled.par_chunks_mut(size)));
        pieces.for_each(|((rows, is_out), (pulled, settled))| {
            for place in columns.clone() {
                let factor = &factor[place * n..][..n];
                for (row, pulled) in pulled.chunks_exact_mut(n).enumerate() {
                    let position = row * n + place;
                    let moved = rows[position] + pulled[place] / factor[place];
                    settled[position] = if is_out[position] { 0.0 } else { moved };
                    pull(rows[position] - settled[position], &factor[place + 1..], &mut pulled[place + 1..]);
                }
            }
        });
    }
}

/// Spans among which elements are chosen: every group of M on its own, else as many as fit into so many columns.
fn windows(layout: &Layout, spans: &[Range<usize>]) -> Vec<Range<usize>> {
    let size = match layout.pattern {
        Pattern::NM { m, .. } => m,
        Pattern::Free => N_TOGETHER,
        Pattern::Block { columns, .. } => (N_TOGETHER / columns.max(1)).max(1),
    };
    (0..spans.len()).step_by(size).map(|start| start..(start + size).min(spans.len())).collect()
}
