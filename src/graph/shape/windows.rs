//! Operators that move a window over the spatial axes, and `Resize`. The arithmetic of a window is `graph::window`'s.

use super::dims::{self, Shape, expect_agreement};
use super::fact::{Call, Fact, Outputs, Problem, one, problem};
use crate::graph::Dim;
use crate::graph::op::{AspectRatioPolicy, Conv, ConvTranspose, CoordinateTransformation, Op, Resize};
use crate::graph::tensor::DType;
use crate::graph::window::{
    Axis, Window, WindowError, average_pool_axes, conv_axes, conv_transpose_axes, max_pool_axes,
    qlinear_average_pool_axes,
};

fn misfit(error: WindowError) -> Problem {
    problem("the window", "one that fits", error)
}

/// `Conv`
pub(super) fn conv(call: &Call<'_>) -> Outputs {
    let Op::Conv(attributes) = call.op else { return one(None, None) };
    one(call.same_dtype(0..3)?, conv_shape(call, attributes, [0, 1, 2])?)
}

/// `ConvInteger`
pub(super) fn conv_integer(call: &Call<'_>) -> Outputs {
    let Op::ConvInteger(attributes) = call.op else { return one(None, None) };
    one(Some(DType::I32), conv_shape(call, attributes, [0, 1, NO_BIAS])?)
}

/// `QLinearConv`: to the type of the output's zero point.
pub(super) fn qlinear_conv(call: &Call<'_>) -> Outputs {
    let Op::QLinearConv(attributes) = call.op else { return one(None, None) };
    one(call.dtype(7), conv_shape(call, attributes, [0, 3, 8])?)
}

const NO_BIAS: usize = usize::MAX;

/// The shape of a convolution whose input, weight `[out, in / group, …]` and bias stand at these positions.
fn conv_shape(call: &Call<'_>, attributes: &Conv, [input, weight, bias]: [usize; 3]) -> Result<Shape, Problem> {
    let Some(rank) = common_rank(call, input, weight)? else { return Ok(None) };
    let group = group(attributes.group)?;
    let in_channels = dims::product([&call.dim(weight, 1), &Dim::Known(group)]);
    expect_agreement("the channels that the weight and `group` make", &call.dim(input, 1), &in_channels)?;
    let out_channels = expect_bias(call, bias, &call.dim(weight, 0))?;
    if let Some(channels) = out_channels.known().filter(|channels| channels % group != 0) {
        return Err(problem("the number of output channels", format!("a multiple of `group` {group}"), channels));
    }
    let mut dims = vec![call.dim(input, 0), out_channels];
    match kernel(call, weight, &attributes.kernel_shape) {
        Some(kernel) => {
            let axes = conv_axes(attributes, &kernel).map_err(misfit)?;
            dims.extend(places(call, input, 2, &axes)?);
        }
        None => dims.resize(rank, Dim::Unknown),
    }
    Ok(Some(dims))
}

fn expect_bias(call: &Call<'_>, bias: usize, channels: &Dim) -> Result<Dim, Problem> {
    if !call.has(bias) {
        return Ok(channels.clone());
    }
    call.expect_rank(bias, 1)?;
    expect_agreement("the length of the bias", channels, &call.dim(bias, 0))
}

/// The number of dimensions of an input, which its weight has too: a batch, channels and at least one spatial axis.
fn common_rank(call: &Call<'_>, input: usize, weight: usize) -> Result<Option<usize>, Problem> {
    let rank = call.dims(input).or(call.dims(weight)).map(<[Dim]>::len);
    let Some(rank) = rank else { return Ok(None) };
    if rank < 2 {
        return Err(problem("the number of dimensions", "2 or more", rank));
    }
    call.expect_rank(weight, rank)?;
    Ok(Some(rank))
}

fn group(group: i64) -> Result<usize, Problem> {
    usize::try_from(group).ok().filter(|&group| group > 0).ok_or_else(|| problem("`group`", "1 or more", group))
}

/// The spatial dimensions of a weight; from the attribute where the weight's are not known.
fn kernel(call: &Call<'_>, weight: usize, attribute: &[i64]) -> Option<Vec<usize>> {
    let of_weight = call.dims(weight).and_then(|dims| dims.get(2..));
    let of_weight: Option<Vec<usize>> = of_weight.and_then(|dims| dims.iter().map(Dim::known).collect());
    of_weight.or_else(|| {
        let stated: Option<Vec<usize>> = attribute.iter().map(|&size| usize::try_from(size).ok()).collect();
        stated.filter(|stated| !stated.is_empty())
    })
}

/// The number of places of each window, over the axes of an input from `first` on.
fn places(call: &Call<'_>, input: usize, first: usize, axes: &[Axis]) -> Result<Vec<Dim>, Problem> {
    let sizes = (first..).map(|axis| call.dim(input, axis));
    axes.iter().zip(sizes).map(|(axis, size)| over(&size, |size| axis.over(size), |window| window.n_places)).collect()
}

fn over(
    size: &Dim,
    window: impl FnOnce(usize) -> Result<Window, WindowError>,
    result: impl FnOnce(Window) -> usize,
) -> Result<Dim, Problem> {
    match size.known() {
        Some(size) => Ok(Dim::Known(result(window(size).map_err(misfit)?))),
        None => Ok(Dim::Unknown),
    }
}

/// `ConvTranspose`: weight `[in, out / group, …]`.
pub(super) fn conv_transpose(call: &Call<'_>) -> Outputs {
    let Op::ConvTranspose(attributes) = call.op else { return one(None, None) };
    one(call.same_dtype(0..3)?, conv_transpose_shape(call, attributes)?)
}

fn conv_transpose_shape(call: &Call<'_>, attributes: &ConvTranspose) -> Result<Shape, Problem> {
    let Some(rank) = common_rank(call, 0, 1)? else { return Ok(None) };
    expect_agreement("the input channels of the weight", &call.dim(0, 1), &call.dim(1, 0))?;
    let group = group(attributes.group)?;
    let out_channels = expect_bias(call, 2, &dims::product([&call.dim(1, 1), &Dim::Known(group)]))?;
    let mut dims = vec![call.dim(0, 0), out_channels];
    match kernel(call, 1, &attributes.kernel_shape) {
        Some(kernel) => {
            let axes = conv_transpose_axes(attributes, &kernel).map_err(misfit)?;
            for (position, axis) in axes.iter().enumerate() {
                dims.push(over(&call.dim(0, position + 2), |size| axis.over(size), |window| window.size)?);
            }
        }
        None => dims.resize(rank, Dim::Unknown),
    }
    Ok(Some(dims))
}

/// `MaxPool`: values and where they come from.
pub(super) fn max_pool(call: &Call<'_>) -> Outputs {
    let Op::MaxPool(attributes) = call.op else { return one(None, None) };
    let shape = pooled(call, &max_pool_axes(attributes).map_err(misfit)?)?;
    Ok(vec![Fact::new(call.dtype(0), shape.clone()), Fact::new(Some(DType::I64), shape)])
}

/// `AveragePool`
pub(super) fn average_pool(call: &Call<'_>) -> Outputs {
    let Op::AveragePool(attributes) = call.op else { return one(None, None) };
    one(call.dtype(0), pooled(call, &average_pool_axes(attributes).map_err(misfit)?)?)
}

/// `QLinearAveragePool`
pub(super) fn qlinear_average_pool(call: &Call<'_>) -> Outputs {
    let Op::QLinearAveragePool(attributes) = call.op else { return one(None, None) };
    let axes = qlinear_average_pool_axes(attributes).map_err(misfit)?;
    if !attributes.channels_last {
        return one(call.dtype(0), pooled(call, &axes)?);
    }
    call.expect_rank(0, axes.len() + 2)?;
    let mut dims = vec![call.dim(0, 0)];
    dims.extend(places(call, 0, 1, &axes)?);
    dims.push(call.dim(0, axes.len() + 1));
    one(call.dtype(0), Some(dims))
}

fn pooled(call: &Call<'_>, axes: &[Axis]) -> Result<Shape, Problem> {
    call.expect_rank(0, axes.len() + 2)?;
    let mut dims = vec![call.dim(0, 0), call.dim(0, 1)];
    dims.extend(places(call, 0, 2, axes)?);
    Ok(Some(dims))
}

/// `GlobalAveragePool`, `GlobalMaxPool`
pub(super) fn global_pool(call: &Call<'_>) -> Outputs {
    one(call.dtype(0), one_place(call, 2..usize::MAX))
}

/// `QLinearGlobalAveragePool`
pub(super) fn qlinear_global_average_pool(call: &Call<'_>) -> Outputs {
    let channels_last = matches!(call.op, Op::QLinearGlobalAveragePool(attributes) if attributes.channels_last);
    let rank = call.dims(0).map_or(0, <[Dim]>::len);
    one(call.dtype(0), one_place(call, if channels_last { 1..rank.saturating_sub(1) } else { 2..rank }))
}

fn one_place(call: &Call<'_>, axes: std::ops::Range<usize>) -> Shape {
    let mut dims = call.shape(0)?;
    dims.iter_mut().enumerate().filter(|(axis, _)| axes.contains(axis)).for_each(|(_, dim)| *dim = Dim::Known(1));
    Some(dims)
}

/// `Resize`: by `sizes` or by `scales`.
pub(super) fn resize(call: &Call<'_>) -> Outputs {
    let (Op::Resize(attributes), Some(dims)) = (call.op, call.dims(0)) else { return one(call.dtype(0), None) };
    let axes = if attributes.axes.is_empty() {
        (0..dims.len()).collect()
    } else {
        attributes.axes.iter().map(|&axis| dims::axis(axis, dims.len())).collect::<Result<Vec<usize>, _>>()?
    };
    let given = |position| call.has(position) && call.length(position) != Some(0);
    let resized = if given(3) { resized_to(call, attributes, &axes)? } else { scaled(call, attributes, &axes)? };
    let mut dims = dims.to_vec();
    for (&axis, dim) in axes.iter().zip(resized) {
        dims[axis] = dim;
    }
    one(call.dtype(0), Some(dims))
}

fn expect_length(what: &str, n: usize, axes: &[usize]) -> Result<(), Problem> {
    if n == axes.len() { Ok(()) } else { Err(problem(what, axes.len(), n)) }
}

fn resized_to(call: &Call<'_>, attributes: &Resize, axes: &[usize]) -> Result<Vec<Dim>, Problem> {
    let Some(sizes) = call.spelled_shape(3) else { return Ok(vec![Dim::Unknown; axes.len()]) };
    expect_length("the number of sizes", sizes.len(), axes)?;
    let ratios = || -> Option<Vec<f64>> {
        let pairs = axes.iter().zip(&sizes);
        pairs.map(|(&axis, size)| Some(size.known()? as f64 / call.dim(0, axis).known()? as f64)).collect()
    };
    let ratio = match (attributes.keep_aspect_ratio_policy, ratios()) {
        (AspectRatioPolicy::Stretch, _) => return Ok(sizes),
        (_, None) => return Ok(vec![Dim::Unknown; axes.len()]),
        (AspectRatioPolicy::NotLarger, Some(ratios)) => ratios.into_iter().fold(f64::INFINITY, f64::min),
        (AspectRatioPolicy::NotSmaller, Some(ratios)) => ratios.into_iter().fold(0.0, f64::max),
    };
    let sized =
        |&axis: &usize| call.dim(0, axis).known().map_or(Dim::Unknown, |size| rounded(size as f64 * ratio + 0.5));
    Ok(axes.iter().map(sized).collect())
}

fn scaled(call: &Call<'_>, attributes: &Resize, axes: &[usize]) -> Result<Vec<Dim>, Problem> {
    let Some(scales) = floats(call, 2) else { return Ok(vec![Dim::Unknown; axes.len()]) };
    expect_length("the number of scales", scales.len(), axes)?;
    let crops = attributes.coordinate_transformation_mode == CoordinateTransformation::TfCropAndResize;
    let region = if crops { floats(call, 1) } else { Some(Vec::new()) };
    let Some(region) = region else { return Ok(vec![Dim::Unknown; axes.len()]) };
    let part = |n: usize| match (region.get(n), region.get(n + axes.len())) {
        (Some(start), Some(end)) => end - start,
        _ => 1.0,
    };
    let sized = |(n, (&axis, scale)): (usize, (&usize, f32))| {
        // in f32, as both runtimes and onnx's own inference compute it
        call.dim(0, axis).known().map_or(Dim::Unknown, |size| rounded(f64::from(size as f32 * part(n) * scale)))
    };
    Ok(axes.iter().zip(scales).enumerate().map(sized).collect())
}

fn floats(call: &Call<'_>, position: usize) -> Option<Vec<f32>> {
    let tensor = call.input(position)?.value.as_ref()?.known()?;
    if let Ok(doubles) = tensor.as_slice::<f64>() {
        return Some(doubles.iter().map(|&x| x as f32).collect());
    }
    tensor.to_f32s().ok().map(|floats| floats.into_owned())
}

/// Rounded down.
fn rounded(size: f64) -> Dim {
    const MOST: f64 = 9e15;
    if (0.0..MOST).contains(&size) { Dim::Known(size as usize) } else { Dim::Unknown }
}
