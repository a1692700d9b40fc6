//! Scales, zero points and the integers of constants: `r = scale · (q − zero_point)` (Jacob et al., "Quantization and Training of
//! Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018, equation 1).

use super::scheme::{Activations, Granularity, Integer, Weights};
use crate::graph::tensor::{Tensor, TensorError};

/// Scale and zero point of an activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// What a step is worth.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
}

impl Parameters {
    /// Those whose integers cover a range that holds 0. A range of nothing has the scale 1.
    pub fn of_range((low, high): (f32, f32), activations: Activations) -> Parameters {
        let Activations { dtype, symmetric } = activations;
        let (least, greatest) = bounds(dtype);
        let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
        let middle = middle(dtype);
        if symmetric {
            let scale = positive(high.max(-low) / f64::from(greatest - middle));
            return Parameters { scale, zero_point: middle };
        }
        let scale = positive((high - low) / f64::from(greatest - least));
        let zero_point = f64::from(least) - low / f64::from(scale);
        Parameters { scale, zero_point: (zero_point.round_ties_even() as i32).clamp(least, greatest) }
    }

    /// The least and the greatest number that there is an integer for.
    pub fn range(&self, dtype: Integer) -> (f32, f32) {
        let (least, greatest) = bounds(dtype);
        let number = |q: i32| ((f64::from(q) - f64::from(self.zero_point)) * f64::from(self.scale)) as f32;
        (number(least), number(greatest))
    }
}

/// The least and the greatest number of a type.
pub fn bounds(dtype: Integer) -> (i32, i32) {
    let n_values = 1 << dtype.n_bits();
    if dtype.is_signed() { (-n_values / 2, n_values / 2 - 1) } else { (0, n_values - 1) }
}

/// A scale: positive and no denormal, so that a quotient by it is finite.
fn positive(scale: f64) -> f32 {
    match scale as f32 {
        scale if scale >= f32::MIN_POSITIVE && scale.is_finite() => scale,
        scale if scale > 0.0 && scale < f32::MIN_POSITIVE => f32::MIN_POSITIVE,
        _ => 1.0,
    }
}

/// A constant in integers.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedConstant {
    /// The integers, in the constant's shape.
    pub integers: Tensor,
    /// A scale for all, one for each position along the axis, or one for each block along it.
    pub scales: Tensor,
    /// Zero points of the integers' type, in the shape of the scales.
    pub zero_points: Tensor,
    /// The axis along which scales differ; none for one scale.
    pub axis: Option<usize>,
    /// How many neighbours along it share a scale, where they do.
    pub block: Option<usize>,
}

/// A constant's integers, each nearest to its number, by [`of_constant`].
///
/// # Errors
/// When the constant holds no `f32`.
pub fn quantize_constant(
    constant: &Tensor,
    axis: Option<usize>,
    weights: Weights,
) -> Result<QuantizedConstant, TensorError> {
    with_parameters(constant, axis, weights, &of_constant(constant, axis, weights, |_| 0.0)?)
}

/// Scales and zero points whose integers cover all numbers of a constant. `axis` is that of the scales; with blocks the axis along
/// which they lie. `least_scale` gives, by channel, a scale below which it must not be, as a bias may ask.
///
/// # Errors
/// When the constant holds no `f32`.
pub fn of_constant(
    constant: &Tensor,
    axis: Option<usize>,
    weights: Weights,
    least_scale: impl Fn(usize) -> f64,
) -> Result<Vec<Parameters>, TensorError> {
    let numbers = constant.as_slice::<f32>()?;
    let layout = Layout::new(constant.shape(), axis, weights.granularity);
    let mut ranges = vec![(0f32, 0f32); layout.n_scales];
    for (position, &x) in numbers.iter().enumerate() {
        let range = &mut ranges[layout.scale_of(position)];
        *range = (range.0.min(x), range.1.max(x));
    }
    let parameters = ranges
        .iter()
        .enumerate()
        .map(|(channel, &(low, high))| of_range((f64::from(low), f64::from(high)), weights, least_scale(channel)));
    Ok(parameters.collect())
}

/// Those whose integers cover a range of weights that holds 0, with a scale no less than `least_scale`.
pub(super) fn of_range((low, high): (f64, f64), weights: Weights, least_scale: f64) -> Parameters {
    let (least, greatest) = used(weights);
    let middle = middle(weights.dtype);
    let scale = match weights.symmetric {
        true => high.max(-low) / f64::from(greatest - middle),
        false => (high - low) / f64::from(greatest - least),
    };
    let scale = positive(scale.max(least_scale));
    let zero_point = match weights.symmetric {
        true => middle,
        false => ((f64::from(least) - low / f64::from(scale)).round_ties_even() as i32).clamp(least, greatest),
    };
    Parameters { scale, zero_point }
}

/// A constant's integers by these scales and zero points, as many as [`of_constant`] would choose.
///
/// # Errors
/// When the constant holds no `f32`, or there is another number of parameters.
pub fn with_parameters(
    constant: &Tensor,
    axis: Option<usize>,
    weights: Weights,
    parameters: &[Parameters],
) -> Result<QuantizedConstant, TensorError> {
    let numbers = constant.as_slice::<f32>()?;
    let layout = Layout::new(constant.shape(), axis, weights.granularity);
    let (scales, zero_points): (Vec<f32>, Vec<i32>) = parameters.iter().map(|it| (it.scale, it.zero_point)).unzip();
    let scales = Tensor::new(&layout.shape, scales)?;
    let integer = |(position, &x): (usize, &f32)| nearest(x, parameters[layout.scale_of(position)], weights);
    let integers: Vec<i32> = numbers.iter().enumerate().map(integer).collect();
    Ok(QuantizedConstant {
        integers: integer_tensor(weights.dtype, constant.shape(), &integers)?,
        scales,
        zero_points: integer_tensor(weights.dtype, &layout.shape, &zero_points)?,
        axis: axis.filter(|_| !layout.shape.is_empty()),
        block: layout.block,
    })
}

/// What a constant's integers by these scales and zero points stand for.
///
/// # Errors
/// As [`with_parameters`].
pub fn rounded(
    constant: &Tensor,
    axis: Option<usize>,
    weights: Weights,
    parameters: &[Parameters],
) -> Result<Vec<f32>, TensorError> {
    let layout = Layout::new(constant.shape(), axis, weights.granularity);
    let number = |(position, &x): (usize, &f32)| {
        let own = parameters[layout.scale_of(position)];
        (nearest(x, own, weights) - own.zero_point) as f32 * own.scale
    };
    Ok(constant.as_slice::<f32>()?.iter().enumerate().map(number).collect())
}

/// The integer nearest to a number.
fn nearest(x: f32, Parameters { scale, zero_point }: Parameters, weights: Weights) -> i32 {
    let (least, greatest) = used(weights);
    ((x / scale).round_ties_even() as i32).saturating_add(zero_point).clamp(least, greatest)
}

/// The integer in the middle of a type, which stands for 0 in a symmetric scheme.
fn middle(dtype: Integer) -> i32 {
    if dtype.is_signed() { 0 } else { 1 << (dtype.n_bits() - 1) }
}

/// The integers that a scheme uses: symmetric ones without the least, which has no opposite.
pub(super) fn used(weights: Weights) -> (i32, i32) {
    let (least, greatest) = bounds(weights.dtype);
    let spare = weights.dtype.n_bits() - weights.n_bits();
    let middle = middle(weights.dtype);
    let half = (greatest - middle) >> spare;
    match weights.symmetric {
        true => (middle - half, middle + half),
        false if spare > 0 => (middle - half - 1, middle + half),
        false => (least, greatest),
    }
}

/// A tensor of an integer type.
///
/// # Errors
/// When the shape has another number of elements.
pub(super) fn integer_tensor(dtype: Integer, shape: &[usize], integers: &[i32]) -> Result<Tensor, TensorError> {
    let low = |q: i32| q.to_le_bytes()[0];
    let bytes: Vec<u8> = match dtype {
        Integer::I8 | Integer::U8 => integers.iter().map(|&q| low(q)).collect(),
        Integer::I16 | Integer::U16 => {
            integers.iter().flat_map(|&q| [q.to_le_bytes()[0], q.to_le_bytes()[1]]).collect()
        }
        Integer::I4 | Integer::U4 => {
            let pair = |pair: &[i32]| (low(pair[0]) & 15) | (pair.get(1).map_or(0, |&q| low(q) & 15) << 4);
            integers.chunks(2).map(pair).collect()
        }
    };
    Tensor::from_bytes(dtype.dtype(), shape, bytes.into())
}

/// Which scale is for which element.
pub(super) struct Layout {
    shape: Vec<usize>,
    pub(super) n_scales: usize,
    size: usize,
    inner: usize,
    block: Option<usize>,
}

impl Layout {
    pub(super) fn new(shape: &[usize], axis: Option<usize>, granularity: Granularity) -> Layout {
        let Some(axis) = axis.filter(|&axis| axis < shape.len()) else {
            return Layout { shape: Vec::new(), n_scales: 1, size: 1, inner: usize::MAX, block: None };
        };
        let (size, inner) = (shape[axis], shape[axis + 1..].iter().product());
        match granularity {
            Granularity::Block(block) => {
                let mut scales = shape.to_vec();
                scales[axis] = size.div_ceil(block);
                Layout { n_scales: scales.iter().product(), shape: scales, size, inner, block: Some(block) }
            }
            Granularity::Tensor | Granularity::Channel => {
                Layout { shape: vec![size], n_scales: size, size, inner, block: None }
            }
        }
    }

    /// The scale of the element at this position of the whole.
    pub(super) fn scale_of(&self, position: usize) -> usize {
        if self.n_scales <= 1 || self.inner == 0 {
            return 0;
        }
        let along = position / self.inner % self.size;
        match self.block {
            None => along,
            Some(block) => {
                let outer = position / self.inner / self.size;
                (outer * self.size.div_ceil(block) + along / block) * self.inner + position % self.inner
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activations(dtype: Integer, symmetric: bool) -> Activations {
        Activations { dtype, symmetric }
    }

    #[test]
    fn ranges_become_scales_and_zero_points() {
        let of = |range, dtype, symmetric| {
            let Parameters { scale, zero_point } = Parameters::of_range(range, activations(dtype, symmetric));
            (scale, zero_point)
        };
        assert_eq!(of((0.0, 255.0), Integer::U8, false), (1.0, 0));
        assert_eq!(of((-51.0, 204.0), Integer::U8, false), (1.0, 51));
        assert_eq!(of((-51.0, 204.0), Integer::I8, false), (1.0, -77));
        assert_eq!(of((-254.0, 127.0), Integer::I8, true), (2.0, 0));
        assert_eq!(of((-12.7, 0.0), Integer::U8, true), (0.1, 128));
        assert_eq!(of((0.0, 65535.0), Integer::U16, false), (1.0, 0));
        assert_eq!(of((0.0, 0.0), Integer::U8, false), (1.0, 0));
        assert_eq!(of((-3.0, 0.0), Integer::U8, false).1, 255);
        assert_eq!(Parameters { scale: 0.5, zero_point: 3 }.range(Integer::U8), (-1.5, 126.0));
    }

    fn weights(dtype: Integer, symmetric: bool, granularity: Granularity, bits: Option<u32>) -> Weights {
        Weights { dtype, symmetric, granularity, bits, fits_pairs: false }
    }

    fn check(w: Weights, axis: Option<usize>, integers: &[i32], scales: &[f32]) {
        let tensor = Tensor::new(&[2, 3], vec![0.92f32, -2.0, 0.5, 10.0, 0.0, -25.4]).expect("six");
        let quantized = quantize_constant(&tensor, axis, w).expect("floats");
        let expected = integer_tensor(w.dtype, &[2, 3], integers).expect("six");
        assert_eq!(quantized.integers, expected, "{w:?}");
        for (got, expected) in quantized.scales.as_slice::<f32>().expect("floats").iter().zip(scales) {
            assert!((got - expected).abs() < 1e-6, "{w:?}: {got} {expected}");
        }
    }

    #[test]
    fn weights_become_integers_by_tensor_channel_and_block() {
        use Granularity::{Block, Channel, Tensor as Whole};
        check(weights(Integer::I8, true, Whole, None), None, &[5, -10, 2, 50, 0, -127], &[0.2]);
        check(weights(Integer::I8, true, Channel, None), Some(0), &[58, -127, 32, 50, 0, -127], &[2.0 / 127.0, 0.2]);
        let seven = [2.0 / 63.0, 25.4 / 63.0];
        check(weights(Integer::I8, true, Channel, Some(7)), Some(0), &[29, -63, 16, 25, 0, -63], &seven);
        check(weights(Integer::I4, true, Channel, None), Some(0), &[3, -7, 2, 3, 0, -7], &[2.0 / 7.0, 25.4 / 7.0]);
        let blocks = [2.0 / 127.0, 0.5 / 127.0, 10.0 / 127.0, 0.2];
        check(weights(Integer::I8, true, Block(2), None), Some(1), &[58, -127, 127, 127, 0, -127], &blocks);
        check(weights(Integer::U8, true, Whole, None), None, &[133, 118, 130, 178, 128, 1], &[0.2]);
        let uneven = [2.92 / 255.0, 35.4 / 255.0];
        check(weights(Integer::U8, false, Channel, None), Some(0), &[255, 0, 219, 255, 183, 0], &uneven);
    }

    #[test]
    fn blocks_that_do_not_divide_the_axis_end_in_a_shorter_one() {
        let numbers: Vec<f32> = (0..5).map(|k| if k < 4 { 1.27 } else { 12.7 }).collect();
        let tensor = Tensor::new(&[5, 1], numbers).expect("five");
        let by_four = weights(Integer::I8, true, Granularity::Block(4), None);
        let quantized = quantize_constant(&tensor, Some(0), by_four).expect("floats");
        assert_eq!((quantized.block, quantized.scales.shape()), (Some(4), &[2usize, 1][..]));
        assert!(quantized.integers.as_slice::<i8>().expect("bytes").iter().all(|&q| q == 127));
    }

    #[test]
    fn a_scale_is_no_less_than_a_bias_asks() {
        let tensor = Tensor::new(&[2, 1], vec![0.0f32, 1.27]).expect("two");
        let parameters = of_constant(&tensor, Some(0), Weights::default(), |channel| [0.25, 0.0][channel]);
        let parameters = parameters.expect("floats");
        let quantized = with_parameters(&tensor, Some(0), Weights::default(), &parameters).expect("floats");
        assert_eq!(quantized.scales.as_slice::<f32>().expect("floats"), [0.25, 1.27 / 127.0]);
        assert_eq!(quantized.axis, Some(0));
    }
}
