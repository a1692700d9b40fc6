//! Poolings: the average or the maximum of every window, and of every whole channel.

use super::args::{Args, allocation};
use super::floats::floats;
use super::numbers::Numbers;
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::window::{Axis, Window, WindowError, average_pool_axes, max_pool_axes};

/// `AveragePool`: divided by the taps inside the input or, with `count_include_pad`, inside its padding too.
pub(super) fn average_pool(args: Args<'_>, op: &op::AveragePool) -> Result<Tensor, EvalError> {
    let pooling = Pooling::new(args, average_pool_axes(op))?;
    let x = floats(args, 0)?;
    let mut averages = Vec::with_capacity(allocation(&pooling.shape)?);
    for plane in pooling.planes(&x) {
        for place in pooling.places() {
            let mut sum = 0.0;
            let mut n_inside = 0usize;
            pooling.visit(&place, &mut |position| {
                sum += plane[position];
                n_inside += 1;
            });
            let count = if op.count_include_pad { pooling.n_taps_with_padding(&place) } else { n_inside };
            if count == 0 {
                return Err(nothing(args));
            }
            averages.push(sum / count as f64);
        }
    }
    Numbers::Float(averages).into_tensor(args.get(0)?.dtype(), &pooling.shape)
}

/// `MaxPool`, with the index of every maximum in the whole input; of equal ones the first is taken, a NaN is the
/// greatest.
pub(super) fn max_pool(args: Args<'_>, op: &op::MaxPool) -> Result<Vec<Option<Tensor>>, EvalError> {
    let pooling = Pooling::new(args, max_pool_axes(op))?;
    if !(0..=1).contains(&op.storage_order) {
        return Err(invalid(format!("storage_order should be 0 or 1, got {}", op.storage_order)));
    }
    let n_elements = allocation(&pooling.shape)?;
    let x = args.get(0)?;
    let column_major = op.storage_order == 1;
    let (values, indices) = match Numbers::of(x)? {
        Numbers::Float(values) if x.dtype().n_bits() >= 16 => {
            let (values, indices) =
                pooling.maxima(args, &values, n_elements, column_major, |a, b| a > b || (a.is_nan() && !b.is_nan()))?;
            (Numbers::Float(values), indices)
        }
        Numbers::Int(values) if x.dtype() == DType::I8 || x.dtype() == DType::U8 => {
            let (values, indices) = pooling.maxima(args, &values, n_elements, column_major, |a, b| a > b)?;
            (Numbers::Int(values), indices)
        }
        Numbers::Float(_) | Numbers::Int(_) => return Err(args.undefined(x.dtype())),
    };
    let values = values.into_tensor(x.dtype(), &pooling.shape)?;
    Ok(vec![Some(values), Some(Tensor::new(&pooling.shape, indices)?)])
}

/// `GlobalAveragePool`: the mean of every channel.
pub(super) fn global_average_pool(args: Args<'_>) -> Result<Tensor, EvalError> {
    global(args, |plane| plane.iter().sum::<f64>() / plane.len() as f64)
}

/// `GlobalMaxPool`: the maximum of every channel, NaN where one is in it.
pub(super) fn global_max_pool(args: Args<'_>) -> Result<Tensor, EvalError> {
    let greater = |a: f64, &b: &f64| if b > a || b.is_nan() { b } else { a };
    global(args, |plane| plane.iter().fold(f64::NEG_INFINITY, greater))
}

fn global(args: Args<'_>, reduce: impl Fn(&[f64]) -> f64) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let [batch, channels, spatial @ ..] = x.shape() else { return Err(too_flat(args)) };
    let mut shape = vec![*batch, *channels];
    shape.resize(x.rank(), 1);
    if spatial.contains(&0) && allocation(&shape)? > 0 {
        return Err(nothing(args));
    }
    let values = floats(args, 0)?;
    let n_plane = values.len() / allocation(&shape)?.max(1);
    let reduced = values.chunks(n_plane.max(1)).map(reduce).collect();
    Numbers::Float(reduced).into_tensor(x.dtype(), &shape)
}

fn nothing(args: Args<'_>) -> EvalError {
    invalid(format!("a window of {} holds no element of the input", args.op.name()))
}

fn too_flat(args: Args<'_>) -> EvalError {
    invalid(format!("{} takes an input of batch, channels and spatial axes", args.op.name()))
}

/// Windows over an input, and the shape of what comes out.
struct Pooling {
    shape: Vec<usize>,
    windows: Vec<Window>,
}

impl Pooling {
    fn new(args: Args<'_>, axes: Result<Vec<Axis>, WindowError>) -> Result<Pooling, EvalError> {
        let axes = axes.map_err(|error| invalid(error.to_string()))?;
        let [batch, channels, spatial @ ..] = args.get(0)?.shape() else { return Err(too_flat(args)) };
        if spatial.is_empty() || spatial.len() != axes.len() {
            let got = args.get(0)?.shape();
            return Err(invalid(format!("{} with a window of {} axes over {got:?}", args.op.name(), axes.len())));
        }
        let windows = axes.iter().zip(spatial).map(|(axis, &size)| axis.over(size)).collect::<Result<Vec<_>, _>>();
        let windows = windows.map_err(|error| invalid(error.to_string()))?;
        let shape = [*batch, *channels].into_iter().chain(windows.iter().map(|window| window.n_places)).collect();
        Ok(Pooling { shape, windows })
    }

    /// The input's channels.
    fn planes<'a, T>(&self, x: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        let n_planes = if x.is_empty() { 0 } else { self.shape[0] * self.shape[1] };
        x.chunks((x.len() / n_planes.max(1)).max(1))
    }

    /// Every place of the window, row-major.
    fn places(&self) -> impl Iterator<Item = Vec<usize>> {
        let n_places: usize = self.windows.iter().map(|window| window.n_places).product();
        (0..n_places).map(|flat| {
            let mut rest = flat;
            let mut place = vec![0; self.windows.len()];
            for (coordinate, window) in place.iter_mut().zip(&self.windows).rev() {
                *coordinate = rest % window.n_places;
                rest /= window.n_places;
            }
            place
        })
    }

    /// Calls `tap` with the position in its channel of every tap of a place that lies inside, row-major.
    fn visit(&self, place: &[usize], tap: &mut impl FnMut(usize)) {
        fn along(windows: &[Window], place: &[usize], base: usize, tap: &mut impl FnMut(usize)) {
            let ([window, windows @ ..], [coordinate, place @ ..]) = (windows, place) else { return tap(base) };
            let (taps, first) = window.taps(*coordinate);
            for count in 0..taps.len() {
                along(windows, place, base * window.size + first + count * window.dilation, tap);
            }
        }
        along(&self.windows, place, 0, tap);
    }

    fn n_taps_with_padding(&self, place: &[usize]) -> usize {
        let counts = self.windows.iter().zip(place).map(|(window, &place)| window.n_taps_with_padding(place));
        counts.fold(1, usize::saturating_mul)
    }

    fn maxima<T: Copy>(
        &self,
        args: Args<'_>,
        x: &[T],
        n_elements: usize,
        column_major: bool,
        greater: impl Fn(&T, &T) -> bool,
    ) -> Result<(Vec<T>, Vec<i64>), EvalError> {
        let (mut values, mut indices) = (Vec::with_capacity(n_elements), Vec::with_capacity(n_elements));
        for (plane_idx, plane) in self.planes(x).enumerate() {
            for place in self.places() {
                let mut best: Option<usize> = None;
                self.visit(&place, &mut |position| {
                    if best.is_none_or(|best| greater(&plane[position], &plane[best])) {
                        best = Some(position);
                    }
                });
                let best = best.ok_or_else(|| nothing(args))?;
                let within = if column_major { self.column_major(best) } else { best };
                values.push(plane[best]);
                indices.push((plane_idx * plane.len() + within) as i64);
            }
        }
        Ok((values, indices))
    }

    /// A row-major position in a channel, counted with the first spatial axis as the innermost.
    fn column_major(&self, position: usize) -> usize {
        let mut rest = position;
        let mut coordinates = Vec::with_capacity(self.windows.len());
        for window in self.windows.iter().rev() {
            coordinates.push((rest % window.size, window.size));
            rest /= window.size;
        }
        coordinates.iter().fold(0, |flat, (coordinate, size)| flat * size + coordinate)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_near as check, input, refused};
    use crate::graph::op::{AutoPad, AveragePool, MaxPool, Op};
    use crate::graph::tensor::Tensor;

    fn average(kernel_shape: Vec<i64>, pads: Vec<i64>, count_include_pad: bool, ceil_mode: bool) -> Op {
        let auto_pad = AutoPad::NotSet;
        let (dilations, strides) = (vec![], vec![2; kernel_shape.len()]);
        Op::AveragePool(AveragePool { auto_pad, ceil_mode, count_include_pad, dilations, kernel_shape, pads, strides })
    }

    fn max(kernel_shape: Vec<i64>, pads: Vec<i64>, storage_order: i64) -> Op {
        let (auto_pad, dilations, strides) = (AutoPad::NotSet, vec![], vec![]);
        Op::MaxPool(MaxPool { auto_pad, ceil_mode: false, dilations, kernel_shape, pads, storage_order, strides })
    }

    fn line() -> Option<Tensor> {
        input(&[1, 1, 4], &[1f32, 2.0, 4.0, 8.0])
    }

    #[test]
    fn averages_count_what_they_are_told_to() {
        check(&average(vec![2], vec![], false, false), &[line()], &[(&[1, 1, 2], &[1.5, 6.0])]);
        check(&average(vec![3], vec![1, 0], false, true), &[line()], &[(&[1, 1, 2], &[1.5, 14.0 / 3.0])]);
        check(&average(vec![3], vec![1, 0], true, true), &[line()], &[(&[1, 1, 2], &[1.0, 14.0 / 3.0])]);
        // the last window hangs over the end: what is beyond the padding does not count
        check(&average(vec![3], vec![0, 0], true, true), &[line()], &[(&[1, 1, 2], &[7.0 / 3.0, 6.0])]);
    }

    #[test]
    fn a_window_over_nothing_is_refused() {
        refused(&average(vec![1], vec![1, 1], false, false), &[line()], "no element");
        check(&average(vec![1], vec![1, 1], true, false), &[line()], &[(&[1, 1, 3], &[0.0, 2.0, 8.0])]);
        refused(&max(vec![1], vec![1, 1], 0), &[line()], "no element");
        refused(&max(vec![1, 1], vec![], 0), &[line()], "window of 2 axes");
        refused(&max(vec![9], vec![], 0), &[line()], "does not fit");
        refused(&max(vec![1], vec![], 2), &[line()], "storage_order");
        refused(&max(vec![1], vec![], 0), &[input(&[1, 1, 1], &[1i64])], "i64");
    }

    #[test]
    fn maxima_know_where_they_are() {
        let x = || input(&[1, 2, 2, 3], &[1f32, 5.0, 3.0, 4.0, 5.0, 0.0, 9.0, 1.0, 2.0, 3.0, 4.0, 8.0]);
        let shape: &[usize] = &[1, 2, 1, 2];
        let values = [5.0, 5.0, 9.0, 8.0];
        check(&max(vec![2, 2], vec![], 0), &[x()], &[(shape, &values), (shape, &[1.0, 1.0, 6.0, 11.0])]);
        check(&max(vec![2, 2], vec![], 1), &[x()], &[(shape, &values), (shape, &[2.0, 2.0, 6.0, 11.0])]);
        let bytes = input(&[1, 1, 3], &[-5i8, -3, -128]);
        check(&max(vec![2], vec![0, 1], 0), &[bytes], &[(&[1, 1, 3], &[-3.0, -3.0, -128.0])]);
        let nan = input(&[1, 1, 3], &[1f32, f32::NAN, 2.0]);
        check(&max(vec![3], vec![], 0), &[nan], &[(&[1, 1, 1], &[f64::NAN]), (&[1, 1, 1], &[1.0])]);
    }

    #[test]
    fn whole_channels() {
        let x = || input(&[1, 2, 2], &[1f32, 2.0, 4.0, 8.0]);
        check(&Op::GlobalAveragePool, &[x()], &[(&[1, 2, 1], &[1.5, 6.0])]);
        check(&Op::GlobalMaxPool, &[x()], &[(&[1, 2, 1], &[2.0, 8.0])]);
        check(&Op::GlobalMaxPool, &[input::<f32>(&[0, 2, 0], &[])], &[(&[0, 2, 1], &[])]);
        refused(&Op::GlobalMaxPool, &[input::<f32>(&[1, 2, 0], &[])], "no element");
        refused(&Op::GlobalMaxPool, &[input(&[1], &[1f32])], "batch, channels");
    }
}
