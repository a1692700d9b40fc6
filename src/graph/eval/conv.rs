//! Convolutions: plain and transposed, of floats, of integers and quantized.

use std::ops::{AddAssign, Mul, Range};

use super::args::{Args, allocation};
use super::floats::{expect_shape, float_scalar, floats, integer_scalar, integers, one_type, optional_floats};
use super::numbers::Numbers;
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::window::{Window, conv_axes, conv_transpose_axes};

/// `Conv`: `X [N, C, spatial…]`, `W [M, C/group, kernel…]`, `B [M]`.
pub(super) fn conv(args: Args<'_>, op: &op::Conv) -> Result<Tensor, EvalError> {
    let convolution = Convolution::plain(args, 0, 1, op)?;
    floating(args, &convolution)
}

/// `ConvTranspose`: `X [N, C, spatial…]`, `W [C, M/group, kernel…]`, `B [M]`.
pub(super) fn conv_transpose(args: Args<'_>, op: &op::ConvTranspose) -> Result<Tensor, EvalError> {
    let convolution = Convolution::transposed(args, op)?;
    floating(args, &convolution)
}

/// `ConvInteger`: the exact sum of `(x − x_zero_point)(w − w_zero_point)`, wrapped into 32 bits.
pub(super) fn conv_integer(args: Args<'_>, op: &op::Conv) -> Result<Tensor, EvalError> {
    let convolution = Convolution::plain(args, 0, 1, op)?;
    let shape = convolution.output_shape()?;
    let mut sums = vec![0; allocation(&shape)?];
    let x = centred(args, 0, 2, 1)?;
    let w = centred(args, 1, 3, convolution.n_outputs())?;
    convolution.accumulate(&x, &w, &mut sums);
    let sums = Numbers::Int(sums.into_iter().map(i128::from).collect());
    sums.into_tensor(DType::I32, &shape)
}

/// `QLinearConv`: the exact integer sum with the bias, scaled, rounded half to even, then saturated.
pub(super) fn qlinear_conv(args: Args<'_>, op: &op::Conv) -> Result<Tensor, EvalError> {
    const BIAS: usize = 8;
    let convolution = Convolution::plain(args, 0, 3, op)?;
    let (shape, n_outputs) = (convolution.output_shape()?, convolution.n_outputs());
    let n_elements = allocation(&shape)?;
    let x = centred(args, 0, 2, 1)?;
    let w = centred(args, 3, 5, n_outputs)?;
    let multipliers = multipliers(args, n_outputs)?;
    expect_shape(args, BIAS, &[n_outputs])?;
    let bias = match args.optional(BIAS) {
        Some(tensor) => Some(tensor.as_slice::<i32>()?.iter().map(|&b| i64::from(b)).collect::<Vec<_>>()),
        None => None,
    };
    let mut sums = convolution.begin(bias.as_deref(), n_elements);
    convolution.accumulate(&x, &w, &mut sums);
    let dtype = args.get(7)?.dtype();
    let (least, greatest) = byte_range(args, dtype)?;
    let zero_point = integer_scalar(args, 7)?.unwrap_or(0);
    let quantize = |(position, &sum): (usize, &i64)| {
        let channel = position / convolution.output_plane() % n_outputs;
        let scaled = (sum as f64 * multipliers[channel]).round_ties_even() + zero_point as f64;
        scaled.clamp(least as f64, greatest as f64) as i128
    };
    let quantized = sums.iter().enumerate().map(quantize).collect();
    Numbers::Int(quantized).into_tensor(dtype, &shape)
}

fn floating(args: Args<'_>, convolution: &Convolution) -> Result<Tensor, EvalError> {
    let dtype = one_type(args, &[0, 1, 2])?;
    let shape = convolution.output_shape()?;
    let n_elements = allocation(&shape)?;
    expect_shape(args, 2, &[convolution.n_outputs()])?;
    let mut y = convolution.begin(optional_floats(args, 2)?.as_deref(), n_elements);
    convolution.accumulate(&floats(args, 0)?, &floats(args, 1)?, &mut y);
    Numbers::Float(y).into_tensor(dtype, &shape)
}

/// `x_scale · w_scale / y_scale` for every output channel.
fn multipliers(args: Args<'_>, n_outputs: usize) -> Result<Vec<f64>, EvalError> {
    let ratio = |w_scale: &f64, x_scale: f64, y_scale: f64| x_scale * w_scale / y_scale;
    let (x_scale, w_scales, y_scale) = (float_scalar(args, 1)?, floats(args, 4)?, float_scalar(args, 6)?);
    match w_scales[..] {
        [w_scale] => Ok(vec![ratio(&w_scale, x_scale, y_scale); n_outputs]),
        _ if w_scales.len() == n_outputs => Ok(w_scales.iter().map(|w| ratio(w, x_scale, y_scale)).collect()),
        _ => Err(invalid(format!("w_scale has {} elements for {n_outputs} channels", w_scales.len()))),
    }
}

fn byte_range(args: Args<'_>, dtype: DType) -> Result<(i128, i128), EvalError> {
    dtype.integer_range().filter(|_| dtype.n_bits() == 8).ok_or_else(|| args.undefined(dtype))
}

/// The 8-bit input less its zero point, which is one number or one for each of `n_channels` outermost slices.
fn centred(args: Args<'_>, input: usize, zero_point: usize, n_channels: usize) -> Result<Vec<i64>, EvalError> {
    byte_range(args, one_type(args, &[input, zero_point])?)?;
    let narrow = |value: i128| i64::try_from(value).expect("an 8-bit integer");
    let values = integers(args, input)?;
    let zero_points = match args.optional(zero_point) {
        Some(_) => integers(args, zero_point)?,
        None => vec![0],
    };
    if zero_points.len() != 1 && zero_points.len() != n_channels {
        return Err(invalid(format!("a zero point has {} elements for {n_channels} channels", zero_points.len())));
    }
    let per_slice = (values.len() / zero_points.len().max(1)).max(1);
    let slices = values.chunks(per_slice).zip(&zero_points);
    Ok(slices.flat_map(|(slice, zero)| slice.iter().map(move |value| narrow(value - zero))).collect())
}

/// The sizes of a convolution, checked against its inputs.
struct Convolution {
    n_batches: usize,
    n_groups: usize,
    group_inputs: usize,
    group_outputs: usize,
    windows: Vec<Window>,
    transposed: bool,
}

impl Convolution {
    fn plain(args: Args<'_>, input: usize, weight: usize, op: &op::Conv) -> Result<Convolution, EvalError> {
        let (x, w) = ranks_agree(args, input, weight)?;
        let n_groups = n_groups(op.group, w[0])?;
        if w[1].checked_mul(n_groups) != Some(x[1]) {
            return Err(invalid(format!("{n_groups} groups of {} channels over an input of {}", w[1], x[1])));
        }
        let axes = conv_axes(op, &w[2..]).map_err(|error| invalid(error.to_string()))?;
        let windows = axes.iter().zip(&x[2..]).map(|(axis, &size)| axis.over(size)).collect::<Result<_, _>>();
        Ok(Convolution {
            n_batches: x[0],
            n_groups,
            group_inputs: w[1],
            group_outputs: w[0] / n_groups,
            windows: windows.map_err(|error| invalid(error.to_string()))?,
            transposed: false,
        })
    }

    fn transposed(args: Args<'_>, op: &op::ConvTranspose) -> Result<Convolution, EvalError> {
        let (x, w) = ranks_agree(args, 0, 1)?;
        let n_groups = n_groups(op.group, w[0])?;
        if w[0] != x[1] || w[1].checked_mul(n_groups).is_none() {
            return Err(invalid(format!("a weight of shape {w:?} over an input of {} channels", x[1])));
        }
        let axes = conv_transpose_axes(op, &w[2..]).map_err(|error| invalid(error.to_string()))?;
        let windows = axes.iter().zip(&x[2..]).map(|(axis, &size)| axis.over(size)).collect::<Result<_, _>>();
        Ok(Convolution {
            n_batches: x[0],
            n_groups,
            group_inputs: w[0] / n_groups,
            group_outputs: w[1],
            windows: windows.map_err(|error| invalid(error.to_string()))?,
            transposed: true,
        })
    }

    fn n_outputs(&self) -> usize {
        self.n_groups * self.group_outputs
    }

    fn output_shape(&self) -> Result<Vec<usize>, EvalError> {
        let spatial = self.windows.iter().map(|window| if self.transposed { window.size } else { window.n_places });
        let shape: Vec<usize> = [self.n_batches, self.n_outputs()].into_iter().chain(spatial).collect();
        allocation(&shape)?;
        Ok(shape)
    }

    /// Elements of an output channel.
    fn output_plane(&self) -> usize {
        if self.transposed { self.positions() } else { self.places() }
    }

    fn positions(&self) -> usize {
        self.windows.iter().map(|window| window.size).product()
    }

    fn places(&self) -> usize {
        self.windows.iter().map(|window| window.n_places).product()
    }

    /// An output of zeros, or of the bias.
    fn begin<T: Copy + Default>(&self, bias: Option<&[T]>, n_elements: usize) -> Vec<T> {
        let mut y = vec![T::default(); n_elements];
        if let Some(bias) = bias
            && !y.is_empty()
        {
            let channels = bias.iter().cycle();
            for (plane, &bias) in y.chunks_mut(self.output_plane()).zip(channels) {
                plane.fill(bias);
            }
        }
        y
    }

    /// Adds the convolution to `y`: for every output by tap, then by input channel.
    fn accumulate<T: Copy + AddAssign + Mul<Output = T>>(&self, x: &[T], w: &[T], y: &mut [T]) {
        if y.is_empty() || x.is_empty() {
            return;
        }
        let n_taps: usize = self.windows.iter().map(|window| window.kernel).product();
        let output_plane = self.output_plane();
        let input_plane = if self.transposed { self.places() } else { self.positions() };
        for (channel_idx, y) in y.chunks_mut(output_plane).enumerate() {
            let (batch, output) = (channel_idx / self.n_outputs(), channel_idx % self.n_outputs());
            let (group, output) = (output / self.group_outputs, output % self.group_outputs);
            for tap in 0..n_taps {
                let steps = self.steps(tap);
                for input in 0..self.group_inputs {
                    let kernel_idx = if self.transposed {
                        (group * self.group_inputs + input) * self.group_outputs + output
                    } else {
                        (group * self.group_outputs + output) * self.group_inputs + input
                    };
                    let plane_idx = (batch * self.n_groups + group) * self.group_inputs + input;
                    let x = &x[plane_idx * input_plane..][..input_plane];
                    add_tap(&steps, w[kernel_idx * n_taps + tap], x, y, self.transposed);
                }
            }
        }
    }

    /// Where the tap with this number lies, by axis.
    fn steps(&self, tap: usize) -> Vec<Step> {
        let mut rest = tap;
        let (mut place_stride, mut position_stride) = (1, 1);
        let mut steps = Vec::with_capacity(self.windows.len());
        for window in self.windows.iter().rev() {
            let (places, first) = window.places(rest % window.kernel);
            steps.push(Step { places, place_stride, first, stride: window.stride, position_stride });
            rest /= window.kernel;
            place_stride *= window.n_places;
            position_stride *= window.size;
        }
        steps.reverse();
        steps
    }
}

/// Along one axis: the places where a tap lies inside the input, and its positions there.
struct Step {
    places: Range<usize>,
    place_stride: usize,
    first: usize,
    stride: usize,
    position_stride: usize,
}

fn add_tap<T>(steps: &[Step], weight: T, x: &[T], y: &mut [T], transposed: bool)
where
    T: Copy + AddAssign + Mul<Output = T>,
{
    let Some(last) = steps.last() else { return };
    let (n, stride) = (last.places.len(), last.stride);
    let mut row = |place: usize, position: usize| {
        if transposed {
            let ys = y[position..].iter_mut().step_by(stride);
            ys.zip(&x[place..][..n]).for_each(|(y, &x)| *y += weight * x);
        } else if stride == 1 {
            let ys = y[place..][..n].iter_mut();
            ys.zip(&x[position..][..n]).for_each(|(y, &x)| *y += weight * x);
        } else {
            let ys = y[place..][..n].iter_mut();
            ys.zip(x[position..].iter().step_by(stride)).for_each(|(y, &x)| *y += weight * x);
        }
    };
    rows(steps, 0, 0, &mut row);
}

/// Calls `row` with the first place, and the position there, of every run along the last axis.
fn rows(steps: &[Step], place: usize, position: usize, row: &mut impl FnMut(usize, usize)) {
    match steps {
        [] => {}
        [step] if step.places.is_empty() => {}
        [step] => row(place + step.places.start, position + step.first),
        [step, inner @ ..] => {
            for (count, outer) in step.places.clone().enumerate() {
                let along = (step.first + count * step.stride) * step.position_stride;
                rows(inner, place + outer * step.place_stride, position + along, row);
            }
        }
    }
}

fn ranks_agree<'a>(args: Args<'a>, input: usize, weight: usize) -> Result<(&'a [usize], &'a [usize]), EvalError> {
    let (x, w) = (args.get(input)?.shape(), args.get(weight)?.shape());
    if x.len() < 3 || x.len() != w.len() {
        return Err(invalid(format!("{} takes a weight of shape {w:?} over {x:?}", args.op.name())));
    }
    Ok((x, w))
}

/// The number of groups, which divides that of the channels.
fn n_groups(group: i64, n_channels: usize) -> Result<usize, EvalError> {
    let n_groups = usize::try_from(group).ok().filter(|&group| group > 0 && n_channels.is_multiple_of(group));
    n_groups.ok_or_else(|| invalid(format!("{n_channels} channels do not divide into {group} groups")))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_near as check, input, refused};
    use crate::graph::op::{AutoPad, Conv, ConvTranspose, Op};

    fn line(n_channels: usize, elements: &[f32]) -> Option<crate::graph::tensor::Tensor> {
        input(&[1, n_channels, elements.len() / n_channels], elements)
    }

    #[test]
    fn conv_slides_the_kernel() {
        let x = || line(1, &[1.0, 2.0, 3.0, 4.0]);
        let op = |attributes| Op::Conv(attributes);
        let w = || line(1, &[1.0, 10.0]);
        check(&op(Conv::default()), &[x(), w()], &[(&[1, 1, 3], &[21.0, 32.0, 43.0])]);
        let padded = Conv { pads: vec![1, 2], strides: vec![2], ..Conv::default() };
        check(&op(padded), &[x(), w(), input(&[1], &[100f32])], &[(&[1, 1, 3], &[110.0, 132.0, 104.0])]);
        let dilated = Conv { dilations: vec![2], ..Conv::default() };
        check(&op(dilated), &[x(), w()], &[(&[1, 1, 2], &[31.0, 42.0])]);
        let same = Conv { auto_pad: AutoPad::SameLower, ..Conv::default() };
        check(&op(same), &[x(), w()], &[(&[1, 1, 4], &[10.0, 21.0, 32.0, 43.0])]);
    }

    #[test]
    fn conv_keeps_groups_apart() {
        let x = || line(4, &[1.0, 2.0, 3.0, 4.0]);
        let w = || input(&[2, 2, 1], &[1f32, 10.0, 100.0, 1000.0]);
        check(&Op::Conv(Conv { group: 2, ..Conv::default() }), &[x(), w()], &[(&[1, 2, 1], &[21.0, 4300.0])]);
        for group in [0, 3, -1, 1, i64::MIN] {
            let op = Op::Conv(Conv { group, ..Conv::default() });
            refused(&op, &[x(), w()], "groups");
        }
    }

    #[test]
    fn conv_takes_any_number_of_axes() {
        let x = || input(&[1, 1, 2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let w = input(&[1, 1, 2, 2], &[1f32, 10.0, 100.0, 1000.0]);
        let strided = Conv { strides: vec![2, 1], pads: vec![0, 0, 0, 1], ..Conv::default() };
        check(&Op::Conv(strided), &[x(), w], &[(&[1, 1, 1, 3], &[5421.0, 6532.0, 603.0])]);
        let cube = input(&[1, 1, 1, 1, 2], &[1f32, 2.0]);
        let w = || input(&[1, 1, 1, 1, 1], &[3f32]);
        check(&Op::Conv(Conv::default()), &[cube, w()], &[(&[1, 1, 1, 1, 2], &[3.0, 6.0])]);
        refused(&Op::Conv(Conv::default()), &[x(), w()], "weight of shape");
        let op = Op::Conv(Conv { strides: vec![0, 1], ..Conv::default() });
        refused(&op, &[x(), input(&[1, 1, 1, 1], &[1f32])], "`strides`");
        let op = Op::Conv(Conv { pads: vec![1 << 40; 4], ..Conv::default() });
        refused(&op, &[x(), input(&[1, 1, 1, 1], &[1f32])], "too large");
    }

    #[test]
    fn conv_of_nothing_is_its_bias() {
        let op = Op::Conv(Conv { pads: vec![1, 1], ..Conv::default() });
        let (x, w) = (input::<f32>(&[1, 1, 0], &[]), line(1, &[1.0]));
        check(&op, &[x, w, input(&[1], &[7f32])], &[(&[1, 1, 2], &[7.0, 7.0])]);
        let (x, w) = (input::<f32>(&[0, 1, 5], &[]), line(1, &[1.0]));
        check(&op, &[x, w], &[(&[0, 1, 7], &[])]);
    }

    #[test]
    fn conv_transpose_spreads_the_kernel() {
        let x = || line(1, &[1.0, 2.0]);
        let w = || line(1, &[1.0, 10.0, 100.0]);
        let op = |attributes| Op::ConvTranspose(attributes);
        let strided = || ConvTranspose { strides: vec![2], ..ConvTranspose::default() };
        check(&op(strided()), &[x(), w()], &[(&[1, 1, 5], &[1.0, 10.0, 102.0, 20.0, 200.0])]);
        let cut = ConvTranspose { pads: vec![1, 0], output_padding: vec![1], ..strided() };
        check(&op(cut), &[x(), w(), input(&[1], &[0.5f32])], &[(&[1, 1, 5], &[10.5, 102.5, 20.5, 200.5, 0.5])]);
        let shaped = ConvTranspose { output_shape: vec![4], ..strided() };
        check(&op(shaped), &[x(), w()], &[(&[1, 1, 4], &[10.0, 102.0, 20.0, 200.0])]);
        let w = || input(&[2, 1, 1], &[3f32, 5.0]);
        let grouped = ConvTranspose { group: 2, ..ConvTranspose::default() };
        check(&op(grouped), &[line(2, &[1.0, 2.0]), w()], &[(&[1, 2, 1], &[3.0, 10.0])]);
        refused(&op(ConvTranspose::default()), &[x(), w()], "over an input of 1 channels");
        refused(
            &op(ConvTranspose { output_padding: vec![-1], ..strided() }),
            &[x(), line(1, &[1.0])],
            "`output_padding`",
        );
    }

    #[test]
    fn integers_are_exact() {
        let x = || input(&[1, 1, 3], &[3u8, 4, 255]);
        let w = || input(&[2, 1, 1], &[1i8, -128]);
        let op = Op::ConvInteger(Conv::default());
        let expected = [1.0, 2.0, 253.0, -128.0, -256.0, -32384.0];
        check(&op, &[x(), w(), input(&[], &[2u8])], &[(&[1, 2, 3], &expected)]);
        let expected = [0.0, 0.0, 0.0, -390.0, -520.0, -33150.0];
        check(&op, &[x(), w(), None, input(&[2], &[1i8, 2])], &[(&[1, 2, 3], &expected)]);
        refused(&op, &[x(), w(), input(&[], &[2i8])], "one type");
        refused(&op, &[x(), w(), input(&[2], &[2u8, 2])], "zero point");
        refused(&op, &[input(&[1, 1, 1], &[1f32]), w()], "f32");
    }

    #[test]
    fn quantized_sums_round_half_to_even_and_saturate() {
        let inputs = |w_scale: &[f32]| {
            let scalar = |scale: f32| input(&[], &[scale]);
            vec![
                input(&[1, 1, 3], &[11u8, 13, 255]),
                scalar(0.5),
                input(&[], &[10u8]),
                input(&[2, 1, 1], &[1i8, -1]),
                input(&[w_scale.len()], w_scale),
                input(&[w_scale.len()], &vec![0i8; w_scale.len()]),
                scalar(1.0),
                input(&[], &[100u8]),
                input(&[2], &[0i32, 1]),
            ]
        };
        let op = Op::QLinearConv(Conv::default());
        check(&op, &inputs(&[1.0, 2.0]), &[(&[1, 2, 3], &[100.0, 102.0, 222.0, 100.0, 98.0, 0.0])]);
        check(&op, &inputs(&[4.0]), &[(&[1, 2, 3], &[102.0, 106.0, 255.0, 100.0, 96.0, 0.0])]);
        refused(&op, &inputs(&[1.0, 2.0, 3.0]), "zero point");
    }
}
