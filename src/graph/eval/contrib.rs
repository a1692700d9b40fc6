//! Operators of onnxruntime's own domain: those that it puts into quantized and optimized files.
//!
//! The quantized ones compute in `f32`, in onnxruntime's order, so that its results (1.31, x86-64) come out bit for bit;
//! the poolings average exactly, which moves some of its results by one.

use super::args::{Args, allocation, axis};
use super::elementwise::{gelu_exact, gelu_tanh, sigmoid_of};
use super::numbers::{Numbers, float_scalar, int_scalar};
use super::packed::pick;
use super::pool::average_pool;
use super::quantize::quantized;
use super::shapes::{broadcast, broadcast_positions, coordinates, extent, strides};
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::op::Op;
use crate::graph::tensor::{DType, Tensor};

pub(super) fn bias_gelu(args: Args<'_>) -> Result<Tensor, EvalError> {
    biased(args, args.get(1).map(Some)?, gelu_exact)
}

pub(super) fn fast_gelu(args: Args<'_>) -> Result<Tensor, EvalError> {
    biased(args, args.optional(1), gelu_tanh)
}

fn biased(args: Args<'_>, bias: Option<&Tensor>, function: impl Fn(f64) -> f64) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let dtype = x.dtype();
    if !matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
        return Err(args.undefined(dtype));
    }
    let mut values = Numbers::floats(x)?;
    if let Some(bias) = bias {
        if bias.dtype() != dtype {
            return Err(invalid(format!("{} of {dtype} with a bias of {}", args.op.name(), bias.dtype())));
        }
        let positions = broadcast_positions(bias.shape(), x.shape())?;
        let bias = Numbers::floats(bias)?;
        values.iter_mut().zip(positions).for_each(|(value, position)| *value += bias[position]);
    }
    Numbers::Float(values.into_iter().map(function).collect()).into_tensor(dtype, x.shape())
}

pub(super) fn qlinear_add(args: Args<'_>) -> Result<Tensor, EvalError> {
    binary(args, |a, b, c| {
        let (a_ratio, b_ratio) = (a.scale / c.scale, b.scale / c.scale);
        let shift = c.zero_point - (a_ratio * a.zero_point + b_ratio * b.zero_point);
        move |x: f32, y: f32| x.mul_add(a_ratio, y.mul_add(b_ratio, shift))
    })
}

pub(super) fn qlinear_mul(args: Args<'_>) -> Result<Tensor, EvalError> {
    binary(args, |a, b, c| {
        let ratio = a.scale * b.scale / c.scale;
        move |x: f32, y: f32| (x - a.zero_point) * (y - b.zero_point) * ratio + c.zero_point
    })
}

pub(super) fn qlinear_sigmoid(args: Args<'_>) -> Result<Tensor, EvalError> {
    unary(args, |x| sigmoid_of(x.into()) as f32)
}

pub(super) fn qlinear_leaky_relu(args: Args<'_>, op: &op::QLinearLeakyRelu) -> Result<Tensor, EvalError> {
    unary(args, |x| if x >= 0.0 { x } else { x * op.alpha })
}

pub(super) fn qlinear_concat(args: Args<'_>, op: &op::QLinearConcat) -> Result<Tensor, EvalError> {
    let output = Affine::of(args, 0, 1)?;
    let dtype = args.get(1)?.dtype();
    let n_inputs = args.inputs.len().saturating_sub(2) / 3;
    let mut parts = Vec::with_capacity(n_inputs);
    for first in (2..).step_by(3).take(n_inputs) {
        let x = args.get(first)?;
        let input = Affine::of(args, first + 1, first + 2)?;
        let values = input.values(args, x)?.into_iter();
        parts.push(output.quantized(values, dtype, x.shape())?);
    }
    let first = parts.first().ok_or_else(|| invalid("QLinearConcat of nothing"))?;
    let along = axis(op.axis, first.shape().len())?;
    let mut shape = first.shape().to_vec();
    let sizes = parts.iter().filter_map(|part| part.shape().get(along));
    shape[along] = sizes.fold(0, |sum: usize, &size| sum.saturating_add(size));
    for part in &parts {
        let alike = part.shape().len() == shape.len()
            && part.shape().iter().zip(&shape).enumerate().all(|(axis, (a, b))| axis == along || a == b);
        if !alike {
            return Err(invalid(format!("QLinearConcat of {:?} into {shape:?}", part.shape())));
        }
    }
    if allocation(&shape)? == 0 {
        return Ok(Tensor::zeros(dtype, &shape)?);
    }
    let inner = extent(&shape[along + 1..]);
    let owners: Vec<(usize, usize)> =
        parts.iter().enumerate().flat_map(|(idx, part)| (0..part.shape()[along]).map(move |at| (idx, at))).collect();
    let parts: Vec<&Tensor> = parts.iter().collect();
    pick(&parts, &shape, |element| {
        let (outer, position, within) =
            (element / inner / shape[along], element / inner % shape[along], element % inner);
        let (part, at) = owners[position];
        (part, (outer * parts[part].shape()[along] + at) * inner + within)
    })
}

/// By onnxruntime's table of exponentials in whole numbers; what is divided by is `1 / y_scale`, cut off to one.
pub(super) fn qlinear_softmax(args: Args<'_>, op: &op::QLinearSoftmax) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let output = Affine::of(args, 3, 4)?;
    let dtype = args.get(4)?.dtype();
    let x_scale = Affine::of(args, 1, 2)?.scale;
    if !(x_scale > 0.0 && x_scale.is_finite() && output.scale > f32::MIN_POSITIVE) {
        return Err(invalid(format!("QLinearSoftmax with scales {x_scale} and {}", output.scale)));
    }
    expect_bytes(args, &[x, args.get(4)?])?;
    let along = axis(op.axis, x.shape().len())?;
    let (n_lane, inner): (usize, usize) = match op.opset {
        ..13 => (extent(&x.shape()[along..]), 1),
        13.. => (x.shape()[along], extent(&x.shape()[along + 1..])),
    };
    let unit = (f64::from(u32::MAX) / n_lane as f64).min(f64::from(0x7f_ffff));
    let n_steps = (1.0 / output.scale).floor() as i128;
    let mut values = Numbers::ints(x)?;
    if values.is_empty() {
        return Ok(Tensor::zeros(dtype, x.shape())?);
    }
    for block in values.chunks_mut(n_lane * inner) {
        for start in 0..inner {
            let lane = (start..block.len()).step_by(inner);
            let greatest = lane.clone().map(|at| block[at]).max().unwrap_or(0);
            let power = |x: i128| (((x - greatest) as f64 * f64::from(x_scale)).exp() * unit).round() as i128;
            let sum: i128 = lane.clone().map(|at| power(block[at])).sum();
            for at in lane {
                block[at] = (power(block[at]) * n_steps + sum / 2) / sum + output.zero_point as i128;
            }
        }
    }
    Numbers::Int(values).into_tensor_saturated(dtype, x.shape())
}

pub(super) fn qlinear_global_average_pool(
    args: Args<'_>,
    op: &op::QLinearGlobalAveragePool,
) -> Result<Tensor, EvalError> {
    let (input, output) = (Affine::of(args, 1, 2)?, Affine::of(args, 3, 4)?);
    let x = channels_first(args.get(0)?, op.channels_last)?;
    expect_bytes(args, &[&x, args.get(4)?])?;
    let [batch, channels, spatial @ ..] = x.shape() else {
        return Err(invalid(format!("QLinearGlobalAveragePool of {:?}", x.shape())));
    };
    let n_plane = extent(spatial);
    let ratio = input.scale / (output.scale * n_plane as f32);
    let shape: Vec<usize> = [*batch, *channels].into_iter().chain(spatial.iter().map(|_| 1)).collect();
    let values = Numbers::floats(&x)?;
    let sums = values.chunks(n_plane.max(1)).map(|plane| {
        let sum: f64 = plane.iter().map(|x| x - f64::from(input.zero_point)).sum();
        (f64::from(sum as f32 * ratio), f64::from(output.zero_point))
    });
    channels_back(&quantized(sums, args.get(4)?.dtype(), &shape, true)?, op.channels_last)
}

pub(super) fn qlinear_average_pool(args: Args<'_>, op: &op::QLinearAveragePool) -> Result<Tensor, EvalError> {
    let (input, output) = (Affine::of(args, 1, 2)?, Affine::of(args, 3, 4)?);
    let x = channels_first(args.get(0)?, op.channels_last)?;
    expect_bytes(args, &[&x])?;
    let dtype = args.optional(4).map_or(x.dtype(), Tensor::dtype);
    let centred = Numbers::floats(&x)?.into_iter().map(|x| x - f64::from(input.zero_point)).collect();
    let pool = op::AveragePool {
        auto_pad: op.auto_pad,
        ceil_mode: op.ceil_mode,
        count_include_pad: op.count_include_pad,
        dilations: Vec::new(),
        kernel_shape: op.kernel_shape.clone(),
        pads: op.pads.clone(),
        strides: op.strides.clone(),
    };
    let inputs = [Some(Tensor::new::<f64>(x.shape(), centred)?)];
    let averages = average_pool(Args { op: &Op::AveragePool(pool.clone()), inputs: &inputs, ..args }, &pool)?;
    let shifted = |x: &f64| (f64::from((x * f64::from(input.scale)) as f32 / output.scale + output.zero_point), 0.0);
    let quotients = averages.as_slice::<f64>()?.iter().map(shifted);
    channels_back(&quantized(quotients, dtype, averages.shape(), true)?, op.channels_last)
}

/// How a tensor's integers stand for numbers: `scale · (x - zero_point)`.
#[derive(Clone, Copy)]
struct Affine {
    scale: f32,
    zero_point: f32,
}

impl Affine {
    /// From the inputs at these positions; no zero point is 0.
    fn of(args: Args<'_>, scale: usize, zero_point: usize) -> Result<Affine, EvalError> {
        let zero_point = args.optional(zero_point).map(int_scalar).transpose()?.unwrap_or(0);
        Ok(Affine { scale: float_scalar(args.get(scale)?)? as f32, zero_point: zero_point as f32 })
    }

    fn values(self, args: Args<'_>, tensor: &Tensor) -> Result<Vec<f32>, EvalError> {
        expect_bytes(args, &[tensor])?;
        Ok(Numbers::floats(tensor)?.into_iter().map(|x| self.scale * (x as f32 - self.zero_point)).collect())
    }

    fn quantized(self, values: impl Iterator<Item = f32>, dtype: DType, shape: &[usize]) -> Result<Tensor, EvalError> {
        let quotients = values.map(|value| (f64::from(value / self.scale), f64::from(self.zero_point)));
        quantized(quotients, dtype, shape, true)
    }
}

fn expect_bytes(args: Args<'_>, tensors: &[&Tensor]) -> Result<(), EvalError> {
    match tensors.iter().find(|tensor| !matches!(tensor.dtype(), DType::I8 | DType::U8)) {
        Some(other) => Err(args.undefined(other.dtype())),
        None => Ok(()),
    }
}

/// Of the integers of inputs 0 and 3 to an integer that is yet to be rounded.
fn binary<F: Fn(f32, f32) -> f32>(
    args: Args<'_>,
    function: impl Fn(Affine, Affine, Affine) -> F,
) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(3)?);
    expect_bytes(args, &[a, b])?;
    let function = function(Affine::of(args, 1, 2)?, Affine::of(args, 4, 5)?, Affine::of(args, 6, 7)?);
    let shape = broadcast(&[a.shape(), b.shape()])?;
    let positions = broadcast_positions(a.shape(), &shape)?.into_iter().zip(broadcast_positions(b.shape(), &shape)?);
    let (x, y) = (Numbers::floats(a)?, Numbers::floats(b)?);
    let results = positions.map(|(i, j)| (f64::from(function(x[i] as f32, y[j] as f32)), 0.0));
    quantized(results, a.dtype(), &shape, true)
}

fn unary(args: Args<'_>, function: impl Fn(f32) -> f32) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let (input, output) = (Affine::of(args, 1, 2)?, Affine::of(args, 3, 4)?);
    let values = input.values(args, x)?.into_iter().map(function);
    output.quantized(values, x.dtype(), x.shape())
}

fn channels_first(tensor: &Tensor, channels_last: bool) -> Result<Tensor, EvalError> {
    let rank = tensor.shape().len();
    if !channels_last || rank < 3 {
        return Ok(tensor.clone());
    }
    permuted(tensor, &[&[0, rank - 1][..], &(1..rank - 1).collect::<Vec<_>>()].concat())
}

fn channels_back(tensor: &Tensor, channels_last: bool) -> Result<Tensor, EvalError> {
    let rank = tensor.shape().len();
    if !channels_last || rank < 3 {
        return Ok(tensor.clone());
    }
    permuted(tensor, &[&[0][..], &(2..rank).collect::<Vec<_>>(), &[1]].concat())
}

fn permuted(tensor: &Tensor, order: &[usize]) -> Result<Tensor, EvalError> {
    let strides = strides(tensor.shape());
    let shape: Vec<usize> = order.iter().map(|&axis| tensor.shape()[axis]).collect();
    pick(&[tensor], &shape, |element| {
        let coordinates = coordinates(element, &shape);
        (0, coordinates.iter().zip(order).map(|(coordinate, &axis)| coordinate * strides[axis]).sum())
    })
}

/// Expectations from onnxruntime 1.31.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{elements, output, tensor};

    fn affine<T: crate::graph::tensor::Element>(scale: f32, zero_point: T) -> [Tensor; 2] {
        [Tensor::scalar(scale), Tensor::scalar(zero_point)]
    }

    fn check(op: &Op, inputs: &[&[Tensor]], expected: &Tensor) {
        let inputs: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
        assert_eq!(output(op, &inputs).as_ref(), Ok(expected), "{}", op.name());
    }

    #[test]
    fn sums_and_products_round_after_the_zero_point() {
        let a = [tensor(&[5], [0u8, 3, 128, 200, 255])];
        let b = [tensor(&[5], [255u8, 17, 9, 64, 1])];
        let halves = [&a[..], &affine(0.5, 5u8), &b, &affine(0.25, 7u8), &affine(1.0, 9u8)];
        check(&Op::QLinearAdd, &halves, &tensor(&[5], [68u8, 10, 71, 121, 132]));
        let others = [&a[..], &affine(0.02, 5u8), &b, &affine(0.013, 7u8), &affine(0.05, 9u8)];
        check(&Op::QLinearAdd, &others, &tensor(&[5], [71u8, 11, 59, 102, 107]));
        check(&Op::QLinearMul, &others, &tensor(&[5], [3u8, 9, 10, 67, 1]));
        let float = Tensor::scalar(1f32);
        let refused = output(&Op::QLinearAdd, &[&float; 8]).expect_err("no bytes");
        assert_eq!(refused.to_string(), "QLinearAdd on f32 is not defined");
    }

    #[test]
    fn functions_of_bytes() {
        let x = [tensor(&[5], [-128i8, -7, 0, 5, 127])];
        let sigmoid = [&x[..], &affine(0.05, 5i8), &affine(1.0 / 256.0, -128i8)];
        check(&Op::QLinearSigmoid, &sigmoid, &tensor(&[5], [-128i8, -37, -16, 0, 127]));
        let leaky = Op::QLinearLeakyRelu(op::QLinearLeakyRelu { alpha: 0.1 });
        let inputs = [&x[..], &affine(0.05, 5i8), &affine(0.03, 9i8)];
        check(&leaky, &inputs, &tensor(&[5], [-13i8, 7, 8, 9, 127]));
        let softmax = Op::QLinearSoftmax(op::QLinearSoftmax { axis: 0, opset: 13 });
        let inputs = [&x[..], &affine(0.05, 5i8), &affine(1.0 / 256.0, -128i8)];
        check(&softmax, &inputs, &tensor(&[5], [-128i8, -128, -128, -127, 127]));
        let inputs = [&x[..], &affine(0.05, 5i8), &affine(1.0 / 200.3, -128i8)];
        check(&softmax, &inputs, &tensor(&[5], [-128i8, -128, -128, -128, 71]));
        let [nan, zero] = affine(f32::NAN, 5i8);
        let refused = output(&softmax, &[&x[0], &nan, &zero, &nan, &zero]).expect_err("no scale");
        assert_eq!(refused.to_string(), "QLinearSoftmax with scales NaN and NaN");
    }

    #[test]
    fn parts_of_other_scales_are_brought_to_one() {
        let parts = [tensor(&[2, 1], [-128i8, -7]), tensor(&[2, 2], [-7i8, 0, 5, 127])];
        let op = |axis| Op::QLinearConcat(op::QLinearConcat { axis });
        let inputs = [&affine(0.03, 9i8), &parts[..1], &affine(0.05, 5i8), &parts[1..], &affine(0.02, -3i8)];
        check(&op(1), &inputs, &tensor(&[2, 3], [-128i8, 6, 11, -11, 14, 96]));
        let flat: Vec<&Tensor> = inputs.iter().copied().flatten().collect();
        let refused = output(&op(0), &flat).expect_err("of other widths");
        assert_eq!(refused.to_string(), "QLinearConcat of [2, 2] into [4, 1]");
    }

    #[test]
    fn averages_of_bytes_with_channels_first_or_last() {
        let x = [tensor(&[1, 2, 2, 2], [0u8, 3, 128, 200, 255, 1, 2, 9])];
        let global = |channels_last| Op::QLinearGlobalAveragePool(op::QLinearGlobalAveragePool { channels_last });
        let inputs = [&x[..], &affine(0.02, 5u8), &affine(0.03, 9u8)];
        check(&global(false), &inputs, &tensor(&[1, 2, 1, 1], [61u8, 50]));
        check(&global(true), &inputs, &tensor(&[1, 1, 1, 2], [70u8, 41]));
        let windows = |channels_last| {
            Op::QLinearAveragePool(op::QLinearAveragePool {
                auto_pad: op::AutoPad::NotSet,
                ceil_mode: false,
                channels_last,
                count_include_pad: false,
                kernel_shape: vec![2, 1],
                pads: vec![],
                strides: vec![],
            })
        };
        let inputs = [&x[..], &affine(0.5, 5u8), &affine(1.0, 9u8)];
        check(&windows(false), &inputs, &tensor(&[1, 2, 1, 2], [38u8, 57, 71, 9]));
        check(&windows(true), &inputs, &tensor(&[1, 1, 2, 2], [70u8, 8, 39, 59]));
    }

    #[test]
    fn gelus_take_a_bias() {
        let (x, bias) = (tensor(&[1, 2], [1f32, -2.0]), tensor(&[2], [0.5f32, 1.0]));
        let of = |op: Op, inputs: &[&Tensor]| output(&op, inputs).map(|t| elements::<f32>(&t));
        assert_eq!(of(Op::BiasGelu, &[&x, &bias]), Ok(vec![gelu_exact(1.5) as f32, gelu_exact(-1.0) as f32]));
        assert_eq!(of(Op::FastGelu, &[&x, &bias]), Ok(vec![gelu_tanh(1.5) as f32, gelu_tanh(-1.0) as f32]));
        assert_eq!(of(Op::FastGelu, &[&x]), Ok(vec![gelu_tanh(1.0) as f32, gelu_tanh(-2.0) as f32]));
        let wide = of(Op::BiasGelu, &[&x, &Tensor::scalar(1f64)]).expect_err("of two types");
        assert_eq!(wide.to_string(), "BiasGelu of f32 with a bias of f64");
    }
}
