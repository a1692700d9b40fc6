//! Linear maps along one axis, driven by a table: which input positions, with which weights, make an output position.
//! Resizing of every kind is one, and padding by what is at the edge.

use rayon::prelude::*;

use super::parallel::{WORTH_SPREADING, units_per_piece};

/// How the positions of an axis of the output are made from those of the input: each is a weighted sum of a few.
#[derive(Clone, Debug, PartialEq)]
pub struct AxisTable {
    n_input: usize,
    ends: Vec<usize>,
    terms: Vec<(usize, f32)>,
}

impl AxisTable {
    /// A table with one list of (input position, weight) for each output position; `None` where a position is not below
    /// `n_input`.
    pub fn new<L: IntoIterator<Item = (usize, f32)>>(
        n_input: usize,
        positions: impl IntoIterator<Item = L>,
    ) -> Option<Self> {
        let (mut ends, mut terms) = (Vec::new(), Vec::new());
        for position in positions {
            terms.extend(position);
            ends.push(terms.len());
        }
        terms.iter().all(|&(position, _)| position < n_input).then_some(Self { n_input, ends, terms })
    }

    /// The terms of an output position.
    fn terms(&self, output: usize) -> &[(usize, f32)] {
        let start = if output == 0 { 0 } else { self.ends[output - 1] };
        &self.terms[start..self.ends[output]]
    }
}

/// Applies a table to the middle axis of `x`, `[outer, n_input, inner]`: `y` is `[outer, n_output, inner]`.
pub fn map_axis(table: &AxisTable, inner: usize, x: &[f32], y: &mut [f32]) {
    let (n_input, n_output) = (table.n_input, table.ends.len());
    assert_eq!(x.len() * n_output, y.len() * n_input, "as many slabs in as out");
    if y.is_empty() {
        return;
    }
    // a unit is a row of `inner` elements, or where those are single, all positions of the axis
    let is_last = inner == 1;
    let unit = if is_last { n_output } else { inner };
    let per_piece = units_per_piece(unit);
    let work = |(piece_idx, piece): (usize, &mut [f32])| {
        for (idx, y) in piece.chunks_mut(unit).enumerate() {
            let idx = piece_idx * per_piece + idx;
            if is_last {
                let x = &x[idx * n_input..][..n_input];
                for (output, y) in y.iter_mut().enumerate() {
                    *y = table.terms(output).iter().map(|&(position, weight)| weight * x[position]).sum();
                }
            } else {
                let slab = &x[idx / n_output * n_input * inner..][..n_input * inner];
                sum_rows(table.terms(idx % n_output), slab, y);
            }
        }
    };
    if y.len() > WORTH_SPREADING {
        y.par_chunks_mut(per_piece * unit).enumerate().for_each(work);
    } else {
        y.chunks_mut(per_piece * unit).enumerate().for_each(work);
    }
}

/// The weighted sum of rows as long as `y`.
fn sum_rows(terms: &[(usize, f32)], x: &[f32], y: &mut [f32]) {
    let row = |position: usize| &x[position * y.len()..][..y.len()];
    let Some((&(position, weight), others)) = terms.split_first() else { return y.fill(0.0) };
    let first = row(position);
    let others: Vec<(&[f32], f32)> = others.iter().map(|&(position, weight)| (row(position), weight)).collect();
    y.iter_mut().zip(first).for_each(|(y, x)| *y = weight * x);
    for (x, weight) in others {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
    }
}

#[cfg(test)]
mod tests {
    //! Against the product with the whole table, in `f64`.

    use super::super::checking::{Random, check_near};
    use super::super::testing::on_any_pool;
    use super::*;

    fn check([outer, n_input, n_output, inner]: [usize; 4], seed: u64) {
        let mut random = Random::new(seed);
        let lists: Vec<Vec<(usize, f32)>> = (0..n_output)
            .map(|_| (0..random.within(0, 4)).map(|_| (random.within(0, n_input - 1), random.normal())).collect())
            .collect();
        let table = AxisTable::new(n_input, lists.clone()).expect("positions below n_input");
        let x = random.normals(outer * n_input * inner);
        let mut expected = vec![0f64; outer * n_output * inner];
        for (idx, expected) in expected.iter_mut().enumerate() {
            let (slab, output, column) = (idx / inner / n_output, idx / inner % n_output, idx % inner);
            for &(position, weight) in &lists[output] {
                *expected += f64::from(weight) * f64::from(x[(slab * n_input + position) * inner + column]);
            }
        }
        let y = on_any_pool(|| {
            let mut y = vec![f32::NAN; outer * n_output * inner];
            map_axis(&table, inner, &x, &mut y);
            y
        });
        check_near(&y, &expected, &(outer, n_input, n_output, inner));
    }

    #[test]
    fn it_is_the_product_with_the_table() {
        for (seed, inner) in (0..30).zip([1, 2, 7].into_iter().cycle()) {
            let mut random = Random::new(1000 + seed);
            check([random.within(1, 5), random.within(1, 9), random.within(1, 13), inner], seed);
        }
        check([70, 40, 80, 30], 30);
        check([300, 200, 400, 1], 31);
    }

    #[test]
    fn a_position_beyond_the_input_is_refused() {
        assert_eq!(AxisTable::new(3, [[(3, 1.0)]]), None);
    }
}
