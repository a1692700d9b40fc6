//! Resizing of planes, driven by a table for each axis: which input positions, with which weights, make an output position.

use rayon::prelude::*;

use super::scratch;

/// How the positions of one output axis are made from those of the input: each is a weighted sum of a few.
///
/// Nearest, linear and cubic interpolation all become such a table.
#[derive(Clone, Debug, PartialEq)]
pub struct ResizeAxis {
    n_input: usize,
    ends: Vec<usize>,
    parts: Vec<(usize, f32)>,
}

impl ResizeAxis {
    /// A table with one list of (input position, weight) for each output position; `None` where a position is not below
    /// `n_input`.
    pub fn new<L: IntoIterator<Item = (usize, f32)>>(
        n_input: usize,
        positions: impl IntoIterator<Item = L>,
    ) -> Option<Self> {
        let (mut ends, mut parts) = (Vec::new(), Vec::new());
        for position in positions {
            parts.extend(position);
            ends.push(parts.len());
        }
        parts.iter().all(|&(position, _)| position < n_input).then_some(Self { n_input, ends, parts })
    }

    /// Positions of the input.
    pub fn n_input(&self) -> usize {
        self.n_input
    }

    /// Positions of the output.
    pub fn n_output(&self) -> usize {
        self.ends.len()
    }

    fn positions(&self) -> impl Iterator<Item = &[(usize, f32)]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(&start, &end)| &self.parts[start..end])
    }
}

/// Resizes every plane of `x`, first along its rows, then across them.
pub fn forward([rows, columns]: [&ResizeAxis; 2], x: &[f32], y: &mut [f32]) {
    let (n_input, n_output) = sizes([rows, columns], x.len(), y.len());
    if n_output == 0 {
        return;
    }
    let (width, out_width) = (columns.n_input(), columns.n_output());
    y.par_chunks_mut(n_output).enumerate().for_each(|(plane_idx, y)| {
        let x = &x[plane_idx * n_input..][..n_input];
        scratch::with(rows.n_input() * out_width, |narrow| {
            for (x, narrow) in x.chunks(width.max(1)).zip(narrow.chunks_mut(out_width)) {
                for (parts, value) in columns.positions().zip(narrow) {
                    *value = parts.iter().map(|&(position, weight)| weight * x[position]).sum();
                }
            }
            for (parts, y) in rows.positions().zip(y.chunks_mut(out_width)) {
                y.fill(0.0);
                for &(position, weight) in parts {
                    add_scaled(y, weight, &narrow[position * out_width..][..out_width]);
                }
            }
        });
    });
}

/// The gradient of [`forward`] by its input: its transpose.
pub fn backward([rows, columns]: [&ResizeAxis; 2], dy: &[f32], dx: &mut [f32]) {
    let (n_input, n_output) = sizes([rows, columns], dx.len(), dy.len());
    if n_input == 0 {
        return;
    }
    let (width, out_width) = (columns.n_input(), columns.n_output());
    dx.par_chunks_mut(n_input).enumerate().for_each(|(plane_idx, dx)| {
        dx.fill(0.0);
        if n_output == 0 {
            return;
        }
        let dy = &dy[plane_idx * n_output..][..n_output];
        scratch::with(rows.n_input() * out_width, |narrow| {
            narrow.fill(0.0);
            for (parts, dy) in rows.positions().zip(dy.chunks(out_width)) {
                for &(position, weight) in parts {
                    add_scaled(&mut narrow[position * out_width..][..out_width], weight, dy);
                }
            }
            for (dx, narrow) in dx.chunks_mut(width).zip(narrow.chunks(out_width)) {
                for (parts, &value) in columns.positions().zip(narrow) {
                    for &(position, weight) in parts {
                        dx[position] += weight * value;
                    }
                }
            }
        });
    });
}

fn add_scaled(to: &mut [f32], scale: f32, from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += scale * from;
    }
}

/// The elements of one plane of the input and of the output.
fn sizes([rows, columns]: [&ResizeAxis; 2], n_x: usize, n_y: usize) -> (usize, usize) {
    let (n_input, n_output) = (rows.n_input() * columns.n_input(), rows.n_output() * columns.n_output());
    assert_eq!(n_x * n_output, n_y * n_input, "as many planes in as out");
    assert!(n_input == 0 || n_x.is_multiple_of(n_input), "whole planes");
    (n_input, n_output)
}

#[cfg(test)]
mod tests {
    //! Against the product with the whole table, in `f64`.

    use super::super::checking::{Random, check_near};
    use super::super::testing::on_any_pool;
    use super::*;

    fn axis(random: &mut Random) -> ResizeAxis {
        let (n_input, n_output) = (random.within(1, 9), random.within(1, 13));
        let lists: Vec<Vec<(usize, f32)>> = (0..n_output)
            .map(|_| (0..random.within(0, 4)).map(|_| (random.within(0, n_input - 1), random.normal())).collect())
            .collect();
        ResizeAxis::new(n_input, lists).expect("positions below n_input")
    }

    #[test]
    fn both_ways_are_the_product_with_the_table() {
        for seed in 0..30 {
            let mut random = Random::new(seed);
            let (rows, columns, n_planes) = (axis(&mut random), axis(&mut random), random.within(1, 4));
            let (h, w, oh, ow) = (rows.n_input(), columns.n_input(), rows.n_output(), columns.n_output());
            let (x, dy) = (random.normals(n_planes * h * w), random.normals(n_planes * oh * ow));
            let (mut y_expected, mut dx_expected) = (vec![0f64; dy.len()], vec![0f64; x.len()]);
            for plane in 0..n_planes {
                for (oy, row) in rows.positions().enumerate() {
                    for (ox, column) in columns.positions().enumerate() {
                        for (&(i, a), &(j, b)) in row.iter().flat_map(|r| column.iter().map(move |c| (r, c))) {
                            let (to, from) = ((plane * oh + oy) * ow + ox, (plane * h + i) * w + j);
                            let weight = f64::from(a) * f64::from(b);
                            y_expected[to] += weight * f64::from(x[from]);
                            dx_expected[from] += weight * f64::from(dy[to]);
                        }
                    }
                }
            }
            let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
            forward([&rows, &columns], &x, &mut y);
            backward([&rows, &columns], &dy, &mut dx);
            check_near(&y, &y_expected, &(&rows, &columns));
            check_near(&dx, &dx_expected, &(&rows, &columns));
            on_any_pool(|| {
                let (mut y, mut dx) = (y.clone(), dx.clone());
                forward([&rows, &columns], &x, &mut y);
                backward([&rows, &columns], &y, &mut dx);
                dx
            });
        }
    }

    #[test]
    fn a_position_beyond_the_input_is_refused() {
        assert_eq!(ResizeAxis::new(3, [[(3, 1.0)]]), None);
    }
}
