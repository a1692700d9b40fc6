//! Poolings: the maximum or the average of every window, and of every whole plane.

use std::ops::Range;

use rayon::prelude::*;

use super::window::PoolShape;

/// The index of a maximum where the window holds no element.
pub const NOWHERE: u32 = u32::MAX;

/// Maxima of all windows, and where in its input plane each was found.
///
/// Of equal ones the first is taken, and a NaN is the greatest. A window that holds no element gives `-∞` at [`NOWHERE`].
pub fn max_forward(shape: &PoolShape, x: &[f32], y: &mut [f32], argmax: &mut [u32]) {
    let (n_input, n_output) = sizes(shape, x.len(), y.len());
    assert_eq!(argmax.len(), y.len(), "one index for each maximum");
    if n_output == 0 {
        return;
    }
    let (rows, columns) = (places(shape, 0), places(shape, 1));
    let [_, width] = shape.input();
    y.par_chunks_mut(n_output).zip(argmax.par_chunks_mut(n_output)).enumerate().for_each(|(plane_idx, (y, argmax))| {
        let x = &x[plane_idx * n_input..][..n_input];
        let outputs = y.chunks_mut(columns.len()).zip(argmax.chunks_mut(columns.len()));
        for (row, (y, argmax)) in rows.iter().zip(outputs) {
            for ((column, y), argmax) in columns.iter().zip(y).zip(argmax) {
                (*y, *argmax) = maximum(x, width, row, column);
            }
        }
    });
}

fn maximum(x: &[f32], width: usize, row: &Place, column: &Place) -> (f32, u32) {
    let (mut best, mut best_idx) = (f32::NEG_INFINITY, NOWHERE);
    for i in row.positions() {
        let line = &x[i * width..][..width];
        for j in column.positions() {
            let value = line[j];
            if value > best || (value.is_nan() && !best.is_nan()) || best_idx == NOWHERE {
                (best, best_idx) = (value, (i * width + j) as u32);
            }
        }
    }
    (best, best_idx)
}

/// Spreads the gradient of the maxima to where they were found; windows that share their maximum add up, in their order.
pub fn max_backward(shape: &PoolShape, dy: &[f32], argmax: &[u32], dx: &mut [f32]) {
    let (n_input, n_output) = sizes(shape, dx.len(), dy.len());
    assert_eq!(argmax.len(), dy.len(), "one index for each maximum");
    if n_input == 0 {
        return;
    }
    dx.par_chunks_mut(n_input).enumerate().for_each(|(plane_idx, dx)| {
        dx.fill(0.0);
        let range = plane_idx * n_output..(plane_idx + 1) * n_output;
        for (&gradient, &idx) in dy[range.clone()].iter().zip(&argmax[range]) {
            if idx != NOWHERE {
                dx[idx as usize] += gradient;
            }
        }
    });
}

/// Averages of all windows, over the taps inside the input or, with `count_include_pad`, inside its padding too. A window
/// that counts no tap gives zero.
pub fn average_forward(shape: &PoolShape, count_include_pad: bool, x: &[f32], y: &mut [f32]) {
    let (n_input, n_output) = sizes(shape, x.len(), y.len());
    if n_output == 0 {
        return;
    }
    let (rows, columns) = (places(shape, 0), places(shape, 1));
    let [_, width] = shape.input();
    y.par_chunks_mut(n_output).enumerate().for_each(|(plane_idx, y)| {
        let x = &x[plane_idx * n_input..][..n_input];
        for (row, y) in rows.iter().zip(y.chunks_mut(columns.len())) {
            for (column, y) in columns.iter().zip(y) {
                let mut sum = 0.0;
                for i in row.positions() {
                    let line = &x[i * width..][..width];
                    for j in column.positions() {
                        sum += line[j];
                    }
                }
                *y = sum * reciprocal(row, column, count_include_pad);
            }
        }
    });
}

/// The gradient of [`average_forward`] by its input.
pub fn average_backward(shape: &PoolShape, count_include_pad: bool, dy: &[f32], dx: &mut [f32]) {
    let (n_input, n_output) = sizes(shape, dx.len(), dy.len());
    if n_input == 0 {
        return;
    }
    let (rows, columns) = (places(shape, 0), places(shape, 1));
    let [_, width] = shape.input();
    dx.par_chunks_mut(n_input).enumerate().for_each(|(plane_idx, dx)| {
        dx.fill(0.0);
        let dy = &dy[plane_idx * n_output..][..n_output];
        for (row, dy) in rows.iter().zip(dy.chunks(columns.len().max(1))) {
            for (column, &gradient) in columns.iter().zip(dy) {
                let share = gradient * reciprocal(row, column, count_include_pad);
                for i in row.positions() {
                    let line = &mut dx[i * width..][..width];
                    for j in column.positions() {
                        line[j] += share;
                    }
                }
            }
        }
    });
}

/// The elements of one plane of the input and of the output.
fn sizes(shape: &PoolShape, n_x: usize, n_y: usize) -> (usize, usize) {
    let plane = |[height, width]: [usize; 2]| height * width;
    let (n_input, n_output) = (plane(shape.input()), plane(shape.output()));
    assert_eq!(n_x, shape.n_planes() * n_input, "elements of the input");
    assert_eq!(n_y, shape.n_planes() * n_output, "elements of the output");
    (n_input, n_output)
}

/// One place of a window on one axis.
struct Place {
    taps: Range<usize>,
    first: usize,
    step: usize,
    n_with_padding: usize,
}

impl Place {
    fn positions(&self) -> impl Iterator<Item = usize> {
        (0..self.taps.len()).map(|tap| self.first + tap * self.step)
    }
}

fn places(shape: &PoolShape, axis: usize) -> Vec<Place> {
    let (window, size) = (shape.window(), shape.input()[axis]);
    let place = |place| {
        let (taps, first) = window.taps_inside(axis, size, place);
        let n_with_padding = window.n_taps_with_padding(axis, size, place);
        Place { taps, first, step: window.dilations[axis], n_with_padding }
    };
    (0..shape.output()[axis]).map(place).collect()
}

fn reciprocal(row: &Place, column: &Place, count_include_pad: bool) -> f32 {
    let count =
        if count_include_pad { row.n_with_padding * column.n_with_padding } else { row.taps.len() * column.taps.len() };
    if count == 0 { 0.0 } else { 1.0 / count as f32 }
}

#[cfg(test)]
mod tests {
    //! Against plain loops in `f64` over the definition.

    use super::super::checking::{Random, check_near};
    use super::super::testing::on_any_pool;
    use super::*;
    use crate::learn::kernels::window::Window;

    fn shapes() -> Vec<PoolShape> {
        let mut random = Random::new(7);
        let mut shapes = Vec::new();
        while shapes.len() < 60 {
            let mut axis = || {
                let (kernel, stride, dilation) = (random.within(1, 5), random.within(1, 3), random.within(1, 2));
                let pads = [random.within(0, kernel - 1), random.within(0, kernel - 1)];
                let size = random.within(1, 13);
                let room = (size + pads[0] + pads[1]).checked_sub((kernel - 1) * dilation + 1)?;
                let overhang = usize::from(random.within(0, 1) == 1 && room % stride != 0);
                Some((kernel, stride, dilation, pads, size, room / stride + 1 + overhang))
            };
            let (Some(h), Some(w)) = (axis(), axis()) else { continue };
            let (kernel, strides, dilations, pads) = ([h.0, w.0], [h.1, w.1], [h.2, w.2], [h.3, w.3]);
            let window = Window { kernel, strides, dilations, pads };
            shapes.push(PoolShape::new(random.within(1, 5), [h.4, w.4], [h.5, w.5], window).expect("a sound shape"));
        }
        shapes
    }

    /// For each output element, the indices in the input of its taps inside, and how many lie inside the padding too.
    fn windows(shape: &PoolShape) -> Vec<(Vec<usize>, usize)> {
        let ([h, w], [oh, ow], window) = (shape.input(), shape.output(), shape.window());
        let mut all = Vec::new();
        for plane in 0..shape.n_planes() {
            for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
                let (mut inside, mut n_padded) = (vec![], 0);
                for (ky, kx) in (0..window.kernel[0]).flat_map(|ky| (0..window.kernel[1]).map(move |kx| (ky, kx))) {
                    let at = |axis: usize, o: usize, k: usize| {
                        (o * window.strides[axis] + k * window.dilations[axis]) as isize - window.pads[axis][0] as isize
                    };
                    let (y, x) = (at(0, oy, ky), at(1, ox, kx));
                    let beyond = |axis: usize, size: usize| (size + window.pads[axis][1]) as isize;
                    n_padded += usize::from(y < beyond(0, h) && x < beyond(1, w));
                    if (0..h as isize).contains(&y) && (0..w as isize).contains(&x) {
                        inside.push(plane * h * w + y as usize * w + x as usize);
                    }
                }
                all.push((inside, n_padded));
            }
        }
        all
    }

    #[test]
    fn maxima_and_their_gradient() {
        for shape in shapes() {
            let mut random = Random::new(11);
            let windows = windows(&shape);
            let x: Vec<f32> = (0..shape.n_planes() * shape.input()[0] * shape.input()[1])
                .map(|_| (random.normal() * 3.0).round()) // equal ones among them
                .collect();
            let dy = random.normals(windows.len());
            let (mut values, mut places, mut gradient) = (vec![], vec![], vec![0f64; x.len()]);
            for ((inside, _), dy) in windows.iter().zip(&dy) {
                let best = inside.iter().copied().reduce(|best, idx| if x[idx] > x[best] { idx } else { best });
                values.push(best.map_or(f64::NEG_INFINITY, |idx| f64::from(x[idx])));
                places.push(best.map_or(NOWHERE, |idx| (idx % (shape.input()[0] * shape.input()[1])) as u32));
                if let Some(idx) = best {
                    gradient[idx] += f64::from(*dy);
                }
            }
            let (mut y, mut argmax, mut dx) = (vec![f32::NAN; values.len()], vec![0; values.len()], vec![1.0; x.len()]);
            max_forward(&shape, &x, &mut y, &mut argmax);
            max_backward(&shape, &dy, &argmax, &mut dx);
            assert_eq!(argmax, places, "{shape:?}");
            assert!(y.iter().zip(&values).all(|(y, value)| f64::from(*y) == *value), "{shape:?}");
            check_near(&dx, &gradient, &shape);
        }
    }

    #[test]
    fn a_nan_is_the_greatest() {
        let shape = PoolShape::new(1, [1, 4], [1, 1], Window::of([1, 4])).expect("a sound shape");
        let (mut y, mut argmax) = ([0.0], [0]);
        max_forward(&shape, &[1.0, f32::NAN, 9.0, f32::NAN], &mut y, &mut argmax);
        assert!(y[0].is_nan());
        assert_eq!(argmax, [1]);
        max_forward(&shape, &[f32::NEG_INFINITY; 4], &mut y, &mut argmax);
        assert_eq!((y, argmax), ([f32::NEG_INFINITY], [0]));
    }

    #[test]
    fn averages_and_their_gradient() {
        for shape in shapes() {
            for include in [false, true] {
                let mut random = Random::new(13);
                let windows = windows(&shape);
                let x = random.normals(shape.n_planes() * shape.input()[0] * shape.input()[1]);
                let dy = random.normals(windows.len());
                let (mut values, mut gradient) = (vec![], vec![0f64; x.len()]);
                for ((inside, n_padded), dy) in windows.iter().zip(&dy) {
                    let count = if include { *n_padded } else { inside.len() }.max(1) as f64;
                    values.push(inside.iter().map(|&idx| f64::from(x[idx])).sum::<f64>() / count);
                    inside.iter().for_each(|&idx| gradient[idx] += f64::from(*dy) / count);
                }
                let (mut y, mut dx) = (vec![f32::NAN; values.len()], vec![f32::NAN; x.len()]);
                average_forward(&shape, include, &x, &mut y);
                average_backward(&shape, include, &dy, &mut dx);
                check_near(&y, &values, &shape);
                check_near(&dx, &gradient, &shape);
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        for shape in shapes().iter().take(5) {
            let mut random = Random::new(19);
            let n_output = shape.n_planes() * shape.output()[0] * shape.output()[1];
            let x = random.normals(shape.n_planes() * shape.input()[0] * shape.input()[1]);
            on_any_pool(|| {
                let (mut y, mut argmax, mut dx) = (vec![0.0; n_output], vec![0; n_output], x.clone());
                max_forward(shape, &x, &mut y, &mut argmax);
                max_backward(shape, &y, &argmax, &mut dx);
                average_forward(shape, true, &dx, &mut y);
                average_backward(shape, true, &y, &mut dx);
                dx
            });
        }
    }
}
