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
