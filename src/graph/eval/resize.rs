//! Resize, one axis after another: what it does to each is a weighted sum of the elements along it.

use super::args::{Args, allocation};
use super::layout::{distinct_axes, pick_along, sizes};
use super::numbers::Numbers;
use super::packed::pick;
use super::shapes::strides;
use super::{EvalError, invalid};
use crate::graph::op::{self, AspectRatioPolicy, CoordinateTransformation, NearestMode, ResizeMode};
use crate::graph::tensor::Tensor;

/// What becomes of one axis.
#[derive(Clone, Copy, Debug)]
struct Axis {
    from: usize,
    to: usize,
    /// The new size before it is made whole: `from` times the scale.
    exact: f64,
    /// Start and end of the region of interest, in units of the whole axis.
    roi: (f64, f64),
}

/// The size that `scales` gives is rounded down after a multiplication in `f32`, their type: a scale of 0.7 makes 7 out of
/// 10, though it is slightly less. Numbers between those of an integer type are rounded half to even, and saturate.
pub(super) fn resize(args: Args<'_>, op: &op::Resize) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let axes = new_axes(args.inputs, op, data.shape())?;
    let shape: Vec<usize> = axes.iter().map(|axis| axis.to).collect();
    if allocation(&shape)? == 0 {
        return pick(&[data], &shape, |_| (0, 0));
    }
    if data.is_empty() {
        return Err(invalid(format!("shape {:?} cannot be resized to {shape:?}", data.shape())));
    }
    if op.mode == ResizeMode::Nearest {
        let outside = Numbers::Float(vec![op.extrapolation_value.into()]);
        let outside = if data.dtype().is_float() || data.dtype().is_integer() {
            outside.into_tensor_saturated(data.dtype(), &[])?
        } else {
            Tensor::zeros(data.dtype(), &[])?
        };
        return pick_along(data, &outside, &shape, &strides(data.shape()), |along, idx| {
            source(&axes[along], idx, op).map(|at| nearest(at, axes[along].from, op.nearest_mode))
        });
    }
    let mut elements = Numbers::floats(data)?;
    let mut current = data.shape().to_vec();
    for (along, axis) in axes.iter().enumerate() {
        if !axis.is_kept(op) {
            current[along] = axis.to;
            allocation(&current)?;
            elements = resized_along(&elements, &current, along, axis, op);
        }
    }
    Numbers::Float(elements).into_tensor_saturated(data.dtype(), &shape)
}

/// For every position of the output along an axis the positions of the input that it is a weighted sum of, with their
/// weights; none where it is extrapolated.
#[cfg(feature = "learn")]
pub(crate) type AxisWeights = Vec<Option<Vec<(usize, f64)>>>;

/// What a resize does along each axis; nothing where an axis stays as it is. `inputs` are the operator's, of which the
/// data is not read.
///
/// # Errors
/// When the inputs do not fit the shape, or an axis of no elements is to have some.
#[cfg(feature = "learn")]
pub(crate) fn axis_weights(
    op: &op::Resize,
    shape: &[usize],
    inputs: &[Option<Tensor>],
) -> Result<Vec<Option<AxisWeights>>, EvalError> {
    let weights = |at: f64, axis: &Axis| match op.mode {
        ResizeMode::Nearest => vec![(nearest(at, axis.from, op.nearest_mode), 1.0)],
        ResizeMode::Linear | ResizeMode::Cubic => taps(at, axis, op),
    };
    let of_axis = |axis: &Axis| {
        if axis.from == 0 {
            return Err(invalid(format!("shape {shape:?} cannot be resized")));
        }
        allocation(&[axis.to])?;
        let position = |idx: usize| source(axis, idx, op).map(|at| weights(at, axis));
        Ok((!axis.is_kept(op)).then(|| (0..axis.to).map(position).collect()))
    };
    new_axes(inputs, op, shape)?.iter().map(of_axis).collect()
}

fn new_axes(inputs: &[Option<Tensor>], op: &op::Resize, shape: &[usize]) -> Result<Vec<Axis>, EvalError> {
    let named = if op.axes.is_empty() { (0..shape.len()).collect() } else { distinct_axes(&op.axes, shape.len())? };
    let given = |position: usize| inputs.get(position).and_then(Option::as_ref);
    let list = |position: usize| given(position).filter(|tensor| !tensor.is_empty());
    let wrong_length = |what: &str, n: usize| invalid(format!("{n} {what} for {} axes", named.len()));
    let mut axes: Vec<Axis> =
        shape.iter().map(|&dim| Axis { from: dim, to: dim, exact: dim as f64, roi: (0.0, 1.0) }).collect();
    if op.coordinate_transformation_mode == CoordinateTransformation::TfCropAndResize {
        let roi = list(1).map_or_else(|| Err(invalid("tf_crop_and_resize needs a roi")), Numbers::floats)?;
        if roi.len() != 2 * named.len() {
            return Err(wrong_length("bounds of the roi", roi.len()));
        }
        for (position, &along) in named.iter().enumerate() {
            axes[along].roi = (roi[position], roi[named.len() + position]);
        }
    }
    match (list(2), list(3)) {
        (Some(scales), None) => {
            let scales = scales.to_f32s()?;
            if scales.len() != named.len() {
                return Err(wrong_length("scales", scales.len()));
            }
            for (&along, &scale) in named.iter().zip(scales.iter()) {
                axes[along].scale(scale)?;
            }
        }
        (None, Some(tensor)) => {
            let wanted = sizes(tensor)?;
            if wanted.len() != named.len() {
                return Err(wrong_length("sizes", wanted.len()));
            }
            fit(&mut axes, &named, &wanted, op.keep_aspect_ratio_policy)?;
        }
        // Empty lists are how a scalar, of no axes, gives either.
        (None, None) if named.is_empty() => {}
        (Some(_), Some(_)) | (None, None) => return Err(invalid("takes either scales or sizes")),
    }
    Ok(axes)
}

/// Makes the axes as large as wanted, or as near to it as the ratio between them allows.
fn fit(axes: &mut [Axis], named: &[usize], wanted: &[usize], policy: AspectRatioPolicy) -> Result<(), EvalError> {
    let by_ratio = |&(to, from): &(usize, usize), other: &(usize, usize)| {
        (to as u128 * other.1 as u128).cmp(&(other.0 as u128 * from as u128))
    };
    let ratios = wanted.iter().zip(named).map(|(&to, &along)| (to, axes[along].from));
    let common = match policy {
        AspectRatioPolicy::Stretch => None,
        AspectRatioPolicy::NotLarger => ratios.min_by(by_ratio),
        AspectRatioPolicy::NotSmaller => ratios.max_by(by_ratio),
    };
    for (&along, &wanted) in named.iter().zip(wanted) {
        let axis = &mut axes[along];
        (axis.to, axis.exact) = match common {
            None => (wanted, wanted as f64),
            Some((_, 0)) => return Err(invalid("an axis of size 0 has no aspect ratio to keep")),
            Some((to, from)) => {
                let (product, from) = (axis.from as u128 * to as u128, from as u128);
                let half_up = product.checked_mul(2).map(|twice| (twice + from) / (2 * from));
                let size = half_up.and_then(|size| usize::try_from(size).ok());
                (size.ok_or_else(|| EvalError::TooLarge(vec![axis.from, to]))?, product as f64 / from as f64)
            }
        };
    }
    Ok(())
}

impl Axis {
    fn scale(&mut self, scale: f32) -> Result<(), EvalError> {
        let to = (self.from as f32 * scale).floor();
        if !(scale > 0.0 && to < usize::MAX as f32) {
            return Err(invalid(format!("a scale of {scale}")));
        }
        self.to = to as usize;
        self.exact = self.from as f64 * f64::from(scale);
        Ok(())
    }

    /// Whether every element stays what it is.
    fn is_kept(&self, op: &op::Resize) -> bool {
        let whole = op.coordinate_transformation_mode != CoordinateTransformation::TfCropAndResize;
        (whole || self.roi == (0.0, 1.0)) && self.from == self.to && self.exact == self.from as f64
    }
}

/// The coordinate in the source of an index of the output; none where the output is to be extrapolated.
fn source(axis: &Axis, idx: usize, op: &op::Resize) -> Option<f64> {
    let (idx, from) = (idx as f64, axis.from as f64);
    // Multiplied before it is divided, so that what should come out whole does.
    let half_pixel = (idx + 0.5) * from / axis.exact - 0.5;
    Some(match op.coordinate_transformation_mode {
        CoordinateTransformation::HalfPixel => half_pixel,
        // `offset + half_pixel` of the definition, in one fraction.
        CoordinateTransformation::HalfPixelSymmetric => {
            (from - 1.0) / 2.0 + from * (2.0 * idx + 1.0 - axis.to as f64) / (2.0 * axis.exact)
        }
        CoordinateTransformation::PytorchHalfPixel if axis.to == 1 => 0.0,
        CoordinateTransformation::PytorchHalfPixel => half_pixel,
        CoordinateTransformation::AlignCorners if axis.to == 1 => 0.0,
        // ONNX's definition has the whole size here, its reference implementation and test cases the exact one.
        CoordinateTransformation::AlignCorners => idx * (from - 1.0) / (axis.exact - 1.0),
        CoordinateTransformation::Asymmetric => idx * from / axis.exact,
        CoordinateTransformation::TfHalfPixelForNn => (idx + 0.5) * from / axis.exact,
        CoordinateTransformation::TfCropAndResize => {
            let (start, end) = axis.roi;
            let at = if axis.to == 1 {
                0.5 * (start + end) * (from - 1.0)
            } else {
                start * (from - 1.0) + idx * (end - start) * (from - 1.0) / (axis.to as f64 - 1.0)
            };
            return Some(at).filter(|at| (0.0..=from - 1.0).contains(at));
        }
    })
}

fn nearest(at: f64, dim: usize, mode: NearestMode) -> usize {
    let whole = match mode {
        NearestMode::RoundPreferFloor => (at - 0.5).ceil(),
        NearestMode::RoundPreferCeil => (at + 0.5).floor(),
        NearestMode::Floor => at.floor(),
        NearestMode::Ceil => at.ceil(),
    };
    whole.clamp(0.0, (dim - 1) as f64) as usize
}

/// The elements with the axis `along` resized, which makes their shape `shape`.
fn resized_along(elements: &[f64], shape: &[usize], along: usize, axis: &Axis, op: &op::Resize) -> Vec<f64> {
    let inner: usize = shape[along + 1..].iter().product();
    let outer: usize = shape[..along].iter().product();
    let taps: Vec<Option<Vec<(usize, f64)>>> =
        (0..axis.to).map(|idx| source(axis, idx, op).map(|at| taps(at, axis, op))).collect();
    let mut resized = Vec::with_capacity(outer * axis.to * inner);
    for start in (0..outer).map(|outer| outer * axis.from * inner) {
        for taps in &taps {
            for line in start..start + inner {
                resized.push(match taps {
                    Some(taps) => taps.iter().map(|&(idx, weight)| elements[line + idx * inner] * weight).sum(),
                    None => op.extrapolation_value.into(),
                });
            }
        }
    }
    resized
}

/// The elements around a coordinate that count, with their weights. Those outside the tensor are its outermost ones.
fn taps(at: f64, axis: &Axis, op: &op::Resize) -> Vec<(usize, f64)> {
    let shrink = if op.antialias { (axis.exact / axis.from as f64).min(1.0) } else { 1.0 };
    let reach = if op.mode == ResizeMode::Cubic { 2.0 } else { 1.0 } / shrink;
    let (first, last) = ((at - reach).ceil() as i64, (at + reach).floor() as i64);
    let greatest = axis.from as i64 - 1;
    let mut taps = Vec::new();
    let mut sum = 0.0;
    for idx in first..=last {
        let distance = (idx as f64 - at).abs() * shrink;
        let weight = match op.mode {
            ResizeMode::Cubic => cubic(distance, op.cubic_coeff_a.into()),
            ResizeMode::Linear | ResizeMode::Nearest => (1.0 - distance).max(0.0),
        };
        // A weight of zero must not bring in an infinity from an element that does not count.
        let excluded = op.exclude_outside && !(0..=greatest).contains(&idx);
        if weight != 0.0 && !excluded {
            sum += weight;
            taps.push((idx.clamp(0, greatest) as usize, weight));
        }
    }
    if op.antialias || op.exclude_outside {
        taps.iter_mut().for_each(|(_, weight)| *weight /= sum);
    }
    taps
}

/// Keys, "Cubic Convolution Interpolation for Digital Image Processing" (1981), equation 4.
fn cubic(x: f64, a: f64) -> f64 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * x * a - 4.0 * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{iota, list, outputs, tensor};
    use crate::graph::op::Op;

    type Mode = CoordinateTransformation;

    fn resize(op: op::Resize, data: Tensor, rest: [Option<Tensor>; 3]) -> Result<Tensor, EvalError> {
        let [roi, scales, sizes] = rest;
        Ok(outputs(&Op::Resize(op), [Some(data), roi, scales, sizes], 1)?.remove(0))
    }

    fn floats<const N: usize>(elements: [f32; N]) -> Option<Tensor> {
        Some(Tensor::vector(elements.to_vec()))
    }

    /// The elements, to four decimals, that a line becomes.
    fn check(op: op::Resize, line: &[f32], rest: [Option<Tensor>; 3], expected: &[f32]) {
        let name = format!("{op:?}");
        let resized = resize(op, Tensor::vector(line.to_vec()), rest).unwrap_or_else(|error| panic!("{name}: {error}"));
        let rounded = resized.to_vec::<f32>().expect("floats").into_iter().map(|x| (x * 1e4).round() / 1e4);
        assert_eq!(rounded.collect::<Vec<_>>(), expected, "{name}");
    }

    fn with(mode: ResizeMode, coordinate_transformation_mode: Mode) -> op::Resize {
        op::Resize { mode, coordinate_transformation_mode, ..op::Resize::default() }
    }

    /// The expected values are those of `onnx.reference`.
    #[test]
    fn coordinates_follow_their_mode() {
        let cases: [(Mode, [f32; 4], f32, [f32; 2]); 5] = [
            (Mode::HalfPixel, [1.0, 1.9375, 3.0625, 4.0], 2.5, [1.5, 3.5]),
            (Mode::HalfPixelSymmetric, [1.0, 1.9375, 3.0625, 4.0], 2.5, [2.0, 4.0]),
            (Mode::PytorchHalfPixel, [1.0, 1.9375, 3.0625, 4.0], 1.0, [1.5, 3.5]),
            (Mode::AlignCorners, [1.0, 2.0, 3.0, 4.0], 1.0, [1.0, 3.6667]),
            (Mode::Asymmetric, [1.0, 2.125, 3.25, 4.0], 1.0, [1.0, 3.0]),
        ];
        for (mode, four_of_three, one_of_four, half_of_five) in cases {
            let linear = || with(ResizeMode::Linear, mode);
            check(linear(), &[1.0, 2.5, 4.0], [None, None, Some(list([4]))], &four_of_three);
            check(linear(), &[1.0, 2.0, 3.0, 4.0], [None, None, Some(list([1]))], &[one_of_four]);
            check(linear(), &[1.0, 2.0, 3.0, 4.0, 5.0], [None, floats([0.5]), None], &half_of_five);
        }
        let crop = op::Resize { extrapolation_value: 9.0, ..with(ResizeMode::Linear, Mode::TfCropAndResize) };
        let roi = || floats([0.5, 1.5]);
        check(crop.clone(), &[0.0, 1.0, 2.0], [roi(), None, Some(list([3]))], &[1.0, 2.0, 9.0]);
        check(crop.clone(), &[0.0, 1.0, 2.0], [roi(), None, Some(list([1]))], &[2.0]);
        assert!(resize(crop, iota(&[3]), [None, None, Some(list([3]))]).is_err());
    }

    #[test]
    fn nearest_rounds_as_asked_and_moves_any_type() {
        let cases = [
            (NearestMode::RoundPreferFloor, [0, 0, 1, 1, 2, 2]),
            (NearestMode::RoundPreferCeil, [0, 1, 1, 2, 2, 2]),
            (NearestMode::Floor, [0, 0, 1, 1, 2, 2]),
            (NearestMode::Ceil, [0, 1, 1, 2, 2, 2]),
        ];
        for (nearest_mode, expected) in cases {
            let op = op::Resize { nearest_mode, ..with(ResizeMode::Nearest, Mode::Asymmetric) };
            assert_eq!(resize(op, iota(&[3]), [None, floats([2.0]), None]), Ok(list(expected)));
        }
        let strings = Tensor::from_strings(&[2], vec!["a".into(), "b".into()]).expect("two strings");
        let twice = resize(op::Resize::default(), strings, [None, floats([2.0]), None]).expect("any type");
        assert_eq!(twice.strings().map(|strings| strings.concat()), Some(b"aabb".to_vec()));
    }

    /// The expected values are those of `onnx.reference`.
    #[test]
    fn weights_reach_as_far_as_they_should() {
        let cubic = with(ResizeMode::Cubic, Mode::HalfPixel);
        let line = [1.0, 2.0, 3.0, 4.0];
        check(cubic.clone(), &line, [None, floats([0.5]), None], &[1.4063, 3.5938]);
        let excluding = op::Resize { exclude_outside: true, ..cubic.clone() };
        check(excluding, &line, [None, floats([0.5]), None], &[1.3714, 3.6286]);
        let shallow = op::Resize { cubic_coeff_a: -0.5, ..cubic };
        check(shallow, &line, [None, floats([0.5]), None], &[1.4375, 3.5625]);
        let smooth = op::Resize { antialias: true, ..with(ResizeMode::Linear, Mode::HalfPixel) };
        check(smooth, &line, [None, floats([0.5]), None], &[1.625, 3.375]);
    }

    #[test]
    fn sizes_come_from_scales_or_ratios() {
        let shape = |op: op::Resize, rest| resize(op, iota(&[2, 10]), rest).map(|resized| resized.shape().to_vec());
        let plain = op::Resize::default;
        assert_eq!(shape(plain(), [None, floats([1.0, 0.7]), None]), Ok(vec![2, 7]));
        let last = || op::Resize { axes: vec![-1], ..plain() };
        assert_eq!(shape(last(), [None, floats([0.49]), None]), Ok(vec![2, 4]));
        let keep = |keep_aspect_ratio_policy| op::Resize { keep_aspect_ratio_policy, ..plain() };
        let sizes = || [None, None, Some(list([3, 5]))];
        assert_eq!(shape(keep(AspectRatioPolicy::Stretch), sizes()), Ok(vec![3, 5]));
        assert_eq!(shape(keep(AspectRatioPolicy::NotLarger), sizes()), Ok(vec![1, 5]));
        assert_eq!(shape(keep(AspectRatioPolicy::NotSmaller), sizes()), Ok(vec![3, 15]));
        for refused in [[None, None, None], [None, floats([1.0, 1.0]), Some(list([2, 2]))]] {
            assert_eq!(shape(plain(), refused), Err(invalid("takes either scales or sizes")));
        }
        for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e30] {
            assert!(shape(last(), [None, floats([scale]), None]).is_err(), "{scale}");
        }
        assert!(shape(plain(), [None, floats([1.0]), None]).is_err());
        assert!(shape(last(), [None, None, Some(list([-1]))]).is_err());
        assert!(resize(plain(), tensor(&[0], [0f32; 0]), [None, None, Some(list([1]))]).is_err());
    }

    #[test]
    fn integers_are_rounded() {
        let linear = with(ResizeMode::Linear, Mode::AlignCorners);
        let resized = resize(linear, Tensor::vector(vec![0u8, 3]), [None, None, Some(list([3]))]);
        assert_eq!(resized, Ok(Tensor::vector(vec![0u8, 2, 3])));
    }
}
