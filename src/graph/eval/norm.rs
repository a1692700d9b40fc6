//! Normalizations: less the mean, divided by the deviation, scaled and shifted.
//!
//! `stash_type` says in which type others compute the first stage; here all of it is `f64`, so that it only decides
//! the type of the statistics that come out.

use super::args::{Args, axis};
use super::floats::{expect_shape, floats, map_lanes, one_type, stretched};
use super::numbers::Numbers;
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::{DType, Tensor};

/// `BatchNormalization`: by channel, with the given statistics or, in `training_mode`, with those of the batch, which
/// are then also blended into the running ones.
pub(super) fn batch_normalization(
    args: Args<'_>,
    op: &op::BatchNormalization,
) -> Result<Vec<Option<Tensor>>, EvalError> {
    let x = args.get(0)?;
    let (n_channels, n_plane) = channels(x)?;
    one_type(args, &[1, 2])?;
    let statistics_type = one_type(args, &[3, 4])?;
    for parameter in 1..=4 {
        expect_shape(args, parameter, &[n_channels])?;
    }
    let values = floats(args, 0)?;
    let (scale, bias) = (floats(args, 1)?, floats(args, 2)?);
    let (given_mean, given_variance) = (floats(args, 3)?, floats(args, 4)?);
    let current = op.training_mode.then(|| channel_moments(&values, n_channels, n_plane));
    let normalize = |(idx, &x): (usize, &f64)| {
        let channel = idx / n_plane % n_channels;
        let (mean, variance) =
            current.as_ref().map_or((given_mean[channel], given_variance[channel]), |current| current[channel]);
        (x - mean) / (variance + f64::from(op.epsilon)).sqrt() * scale[channel] + bias[channel]
    };
    let y = Numbers::Float(values.iter().enumerate().map(normalize).collect()).into_tensor(x.dtype(), x.shape())?;
    let Some(current) = current else { return Ok(vec![Some(y)]) };
    let momentum = f64::from(op.momentum);
    let blend = |(given, now): (&f64, f64)| given * momentum + now * (1.0 - momentum);
    let means = given_mean.iter().zip(current.iter().map(|moments| moments.0)).map(blend).collect();
    let variances = given_variance.iter().zip(current.iter().map(|moments| moments.1)).map(blend).collect();
    let running = |values: Vec<f64>| Numbers::Float(values).into_tensor(statistics_type, &[n_channels]);
    Ok(vec![Some(y), Some(running(means)?), Some(running(variances)?)])
}

/// `InstanceNormalization`: every channel of every instance by itself.
pub(super) fn instance_normalization(args: Args<'_>, op: &op::InstanceNormalization) -> Result<Tensor, EvalError> {
    let (_, n_plane) = channels(args.get(0)?)?;
    by_channel_groups(args, n_plane, op.epsilon)
}

/// `GroupNormalization`: every group of channels of every instance by itself.
pub(super) fn group_normalization(args: Args<'_>, op: &op::GroupNormalization) -> Result<Tensor, EvalError> {
    stash_type(op.stash_type)?;
    let (n_channels, n_plane) = channels(args.get(0)?)?;
    let n_groups = usize::try_from(op.num_groups).ok().filter(|&n| n > 0 && n_channels.is_multiple_of(n));
    let n_groups = n_groups
        .ok_or_else(|| invalid(format!("{n_channels} channels do not divide into {} groups", op.num_groups)))?;
    by_channel_groups(args, n_channels / n_groups * n_plane, op.epsilon)
}

/// `LayerNormalization`: over the axes from `axis` on; also gives the mean and the inverse deviation.
pub(super) fn layer_normalization(
    args: Args<'_>,
    op: &op::LayerNormalization,
) -> Result<Vec<Option<Tensor>>, EvalError> {
    let x = args.get(0)?;
    let dtype = one_type(args, &[0, 1, 2])?;
    let stash_type = stash_type(op.stash_type)?;
    let axis = axis(op.axis, x.rank())?;
    let mut values = floats(args, 0)?;
    let (means, inverse_deviations) = standardize(&mut values, lane_length(x, axis), op.epsilon);
    scale_and_shift(&mut values, &stretched(args, 1, x.shape())?, optional_stretched(args, 2, x.shape())?.as_deref());
    let mut statistics_shape = x.shape().to_vec();
    statistics_shape[axis..].fill(1);
    let statistics = |values: Vec<f64>| Numbers::Float(values).into_tensor(stash_type, &statistics_shape);
    let mut outputs = vec![Some(Numbers::Float(values).into_tensor(dtype, x.shape())?)];
    if args.n_outputs > 1 {
        outputs.extend([Some(statistics(means)?), Some(statistics(inverse_deviations)?)]);
    }
    Ok(outputs)
}

/// `RMSNormalization`: divided by the root mean square over the axes from `axis` on.
pub(super) fn rms_normalization(args: Args<'_>, op: &op::LayerNormalization) -> Result<Tensor, EvalError> {
    let (x, scale) = (args.get(0)?, args.get(1)?);
    stash_type(op.stash_type)?;
    let axis = axis(op.axis, x.rank())?;
    let mut values = floats(args, 0)?;
    for lane in values.chunks_mut(lane_length(x, axis)) {
        let mean_square = lane.iter().map(|x| x * x).sum::<f64>() / lane.len() as f64;
        let root = (mean_square + f64::from(op.epsilon)).sqrt();
        lane.iter_mut().for_each(|x| *x /= root);
    }
    scale_and_shift(&mut values, &stretched(args, 1, x.shape())?, None);
    Numbers::Float(values).into_tensor(scale.dtype(), x.shape())
}

/// com.microsoft `SkipLayerNormalization`: `LayerNormalization` over the last axis of `input + skip + bias`, which may
/// come out too. `skip` may lack the batch axis.
pub(super) fn skip_layer_normalization(
    args: Args<'_>,
    op: &op::SkipLayerNormalization,
) -> Result<Vec<Option<Tensor>>, EvalError> {
    let x = args.get(0)?;
    let dtype = one_type(args, &[0, 1, 2, 3, 4])?;
    let Some((&n_lane, outer)) = x.shape().split_last().filter(|(_, outer)| !outer.is_empty()) else {
        return Err(invalid(format!(
            "SkipLayerNormalization takes an input of 2 or 3 dimensions, got {:?}",
            x.shape()
        )));
    };
    for parameter in 2..=4 {
        expect_shape(args, parameter, &[n_lane])?;
    }
    let bias = optional_stretched(args, 4, x.shape())?;
    let mut values = floats(args, 0)?;
    values.iter_mut().zip(stretched(args, 1, x.shape())?).for_each(|(x, skip)| *x += skip);
    if let Some(bias) = bias {
        values.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
    }
    let sum = Numbers::Float(values.clone()).into_tensor(dtype, x.shape())?;
    let (means, inverse_deviations) = standardize(&mut values, n_lane.max(1), op.epsilon);
    scale_and_shift(&mut values, &stretched(args, 2, x.shape())?, optional_stretched(args, 3, x.shape())?.as_deref());
    let mut outputs = vec![Some(Numbers::Float(values).into_tensor(dtype, x.shape())?)];
    if args.n_outputs > 1 {
        let statistics_shape: Vec<usize> = outer.iter().copied().chain([1]).collect();
        let statistics = |values: Vec<f64>| Numbers::Float(values).into_tensor(DType::F32, &statistics_shape);
        outputs.extend([Some(statistics(means)?), Some(statistics(inverse_deviations)?), Some(sum)]);
    }
    Ok(outputs)
}

/// `LRN`: divided by a power of the sum of squares over the `size` nearest channels.
pub(super) fn lrn(args: Args<'_>, op: &op::LRN) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let (n_channels, n_plane) = channels(x)?;
    let size = usize::try_from(op.size).ok().filter(|&size| size > 0);
    let size = size.ok_or_else(|| invalid(format!("`size` should be 1 or more, got {}", op.size)))?;
    let (before, after) = ((size - 1) / 2, size / 2);
    let values = floats(args, 0)?;
    let normalize = |idx: usize| {
        let channel = idx / n_plane % n_channels;
        let neighbours = channel.saturating_sub(before)..=channel.saturating_add(after).min(n_channels - 1);
        let first = idx - (channel - neighbours.start()) * n_plane;
        let square_sum: f64 = (0..neighbours.count()).map(|step| values[first + step * n_plane].powi(2)).sum();
        let scaled = f64::from(op.bias) + f64::from(op.alpha) / size as f64 * square_sum;
        values[idx] / scaled.powf(f64::from(op.beta))
    };
    Numbers::Float((0..values.len()).map(normalize).collect()).into_tensor(x.dtype(), x.shape())
}

/// `LpNormalization`: divided by the sum of magnitudes or the root of the sum of squares; zero where that is zero.
pub(super) fn lp_normalization(args: Args<'_>, op: &op::LpNormalization) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let norm: fn(&[f64]) -> f64 = match op.p {
        1 => |lane| lane.iter().map(|x| x.abs()).sum(),
        2 => |lane| lane.iter().map(|x| x * x).sum::<f64>().sqrt(),
        other => return Err(invalid(format!("`p` should be 1 or 2, got {other}"))),
    };
    let mut values = floats(args, 0)?;
    map_lanes(&mut values, x.shape(), axis(op.axis, x.rank())?, |lane| {
        let norm = norm(lane);
        lane.iter_mut().for_each(|x| *x = if norm == 0.0 { 0.0 } else { *x / norm });
    });
    Numbers::Float(values).into_tensor(x.dtype(), x.shape())
}

/// The number of channels and the elements of each in an instance; a vector has one channel.
fn channels(x: &Tensor) -> Result<(usize, usize), EvalError> {
    match x.shape() {
        [] => Err(invalid("a normalization over channels takes an input of batch and channels")),
        [_] => Ok((1, 1)),
        // a product of one or more dimensions of a tensor that has elements does not overflow
        [_, n_channels, ..] if x.is_empty() => Ok((*n_channels, 1)),
        [_, n_channels, spatial @ ..] => Ok((*n_channels, spatial.iter().product())),
    }
}

/// Elements from `axis` on; 1 for an input without elements.
fn lane_length(x: &Tensor, axis: usize) -> usize {
    if x.is_empty() { 1 } else { x.shape()[axis..].iter().product() }
}

/// Mean and population variance.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    (mean, values.map(|x| (x - mean).powi(2)).sum::<f64>() / count)
}

fn channel_moments(values: &[f64], n_channels: usize, n_plane: usize) -> Vec<(f64, f64)> {
    let of_channel =
        |channel: usize| moments(values.chunks(n_plane).skip(channel).step_by(n_channels).flatten().copied());
    (0..n_channels).map(of_channel).collect()
}

/// Brings every run of `n_lane` elements to mean 0 and variance 1; gives the means and the inverse deviations.
fn standardize(values: &mut [f64], n_lane: usize, epsilon: f32) -> (Vec<f64>, Vec<f64>) {
    let each = |lane: &mut [f64]| {
        let (mean, variance) = moments(lane.iter().copied());
        let deviation = (variance + f64::from(epsilon)).sqrt();
        lane.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
        (mean, 1.0 / deviation)
    };
    values.chunks_mut(n_lane).map(each).unzip()
}

fn by_channel_groups(args: Args<'_>, n_lane: usize, epsilon: f32) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let dtype = one_type(args, &[0, 1, 2])?;
    let (n_channels, n_plane) = channels(x)?;
    expect_shape(args, 1, &[n_channels])?;
    expect_shape(args, 2, &[n_channels])?;
    let mut values = floats(args, 0)?;
    let (scale, bias) = (floats(args, 1)?, floats(args, 2)?);
    standardize(&mut values, n_lane.max(1), epsilon);
    for (idx, value) in values.iter_mut().enumerate() {
        let channel = idx / n_plane % n_channels;
        *value = *value * scale[channel] + bias[channel];
    }
    Numbers::Float(values).into_tensor(dtype, x.shape())
}

fn scale_and_shift(values: &mut [f64], scale: &[f64], bias: Option<&[f64]>) {
    values.iter_mut().zip(scale).for_each(|(x, scale)| *x *= scale);
    if let Some(bias) = bias {
        values.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
    }
}

fn optional_stretched(args: Args<'_>, position: usize, shape: &[usize]) -> Result<Option<Vec<f64>>, EvalError> {
    args.optional(position).map(|_| stretched(args, position, shape)).transpose()
}

/// The type of the statistics that a normalization gives.
fn stash_type(number: i64) -> Result<DType, EvalError> {
    let dtype = i32::try_from(number).ok().and_then(DType::from_onnx);
    let dtype = dtype.filter(|dtype| dtype.is_float() && dtype.n_bits() >= 16);
    dtype.ok_or_else(|| invalid(format!("`stash_type` should be the number of a float type, got {number}")))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_near as check, input, refused};
    use crate::graph::op::{
        BatchNormalization, GroupNormalization, InstanceNormalization, LRN, LayerNormalization, LpNormalization, Op,
        SkipLayerNormalization,
    };
    use crate::graph::tensor::Tensor;
    use half::f16;

    fn vector(elements: &[f32]) -> Option<Tensor> {
        input(&[elements.len()], elements)
    }

    #[test]
    fn batch_normalization_with_given_statistics() {
        let op = |epsilon| Op::BatchNormalization(BatchNormalization { epsilon, momentum: 0.9, training_mode: false });
        let x = || input(&[1, 2, 2], &[1f32, 2.0, 3.0, 4.0]);
        let parameters = || [vector(&[1.0, 10.0]), vector(&[0.0, 5.0]), vector(&[1.0, 3.0]), vector(&[3.0, 0.0])];
        let inputs: Vec<_> = [x()].into_iter().chain(parameters()).collect();
        check(&op(1.0), &inputs, &[(&[1, 2, 2], &[0.0, 0.5, 5.0, 15.0])]);
        let flat: Vec<_> = [input(&[2], &[1f32, 2.0])].into_iter().chain(parameters()).collect();
        refused(&op(1.0), &flat, "of shape [1]");
        let halves: Vec<_> = [input(&[1, 2], &[f16::ONE, f16::ONE])].into_iter().chain(parameters()).collect();
        check(&op(1.0), &halves, &[(&[1, 2], &[0.0, -15.0])]);
    }

    #[test]
    fn batch_normalization_in_training_blends_statistics() {
        let op = Op::BatchNormalization(BatchNormalization { epsilon: 0.0, momentum: 0.75, training_mode: true });
        let x = input(&[2, 1, 2], &[1f32, 3.0, 5.0, 7.0]);
        let inputs = [x, vector(&[1.0]), vector(&[0.0]), input(&[1], &[8f64]), input(&[1], &[1f64])];
        let deviation = 5f64.sqrt();
        let y = [-3.0 / deviation, -1.0 / deviation, 1.0 / deviation, 3.0 / deviation];
        check(&op, &inputs, &[(&[2, 1, 2], &y), (&[1], &[7.0]), (&[1], &[2.0])]);
    }

    #[test]
    fn layers_groups_and_instances() {
        let x = || input(&[1, 4, 1], &[1f32, 3.0, 5.0, 5.0]);
        let (scale, bias) = (|| vector(&[1.0, 2.0, 3.0, 4.0]), || vector(&[0.0, 0.0, 7.0, 8.0]));
        let group = |num_groups| Op::GroupNormalization(GroupNormalization { epsilon: 0.0, num_groups, stash_type: 1 });
        let with_epsilon =
            |num_groups| Op::GroupNormalization(GroupNormalization { epsilon: 3.0, num_groups, stash_type: 1 });
        check(&with_epsilon(2), &[x(), scale(), bias()], &[(&[1, 4, 1], &[-0.5, 1.0, 7.0, 8.0])]);
        refused(&group(3), &[x(), scale(), bias()], "3 groups");
        refused(&group(0), &[x(), scale(), bias()], "0 groups");
        let instance = Op::InstanceNormalization(InstanceNormalization { epsilon: 1.0 });
        check(&instance, &[x(), scale(), bias()], &[(&[1, 4, 1], &[0.0, 0.0, 7.0, 8.0])]);
        let layer = |axis, stash_type| Op::LayerNormalization(LayerNormalization { axis, epsilon: 1.0, stash_type });
        let x = || input(&[2, 2], &[1f32, 3.0, 5.0, 5.0]);
        let root = 0.5f64.sqrt();
        let y = [-root, root, 0.0, 0.0];
        let statistics: [(&[usize], &[f64]); 2] = [(&[2, 1], &[2.0, 5.0]), (&[2, 1], &[root, 1.0])];
        check(&layer(-1, 1), &[x(), vector(&[1.0])], &[(&[2, 2], &y), statistics[0], statistics[1]]);
        let shifted = [2.0 - root, 2.0 + root, 2.0, 2.0];
        check(&layer(1, 1), &[x(), vector(&[1.0]), vector(&[2.0])], &[(&[2, 2], &shifted)]);
        refused(&layer(2, 1), &[x(), vector(&[1.0])], "axis 2");
        refused(&layer(1, 7), &[x(), vector(&[1.0])], "`stash_type`");
        refused(&layer(1, 1), &[x(), vector(&[1.0, 2.0, 3.0])], "broadcasts");
    }

    #[test]
    fn roots_and_powers() {
        let rms = Op::RMSNormalization(LayerNormalization { axis: -1, epsilon: 3.5, stash_type: 1 });
        check(&rms, &[vector(&[3.0, 4.0]), vector(&[1.0, 2.0])], &[(&[2], &[0.75, 2.0])]);
        let lp = |p| Op::LpNormalization(LpNormalization { axis: 0, p });
        let x = || input(&[2, 2], &[3f32, 0.0, -4.0, 0.0]);
        check(&lp(1), &[x()], &[(&[2, 2], &[3.0 / 7.0, 0.0, -4.0 / 7.0, 0.0])]);
        check(&lp(2), &[x()], &[(&[2, 2], &[0.6, 0.0, -0.8, 0.0])]);
        refused(&lp(3), &[x()], "`p`");
        let lrn = |size| Op::LRN(LRN { alpha: 2.0, beta: 1.0, bias: 1.0, size });
        let x = || input(&[1, 3, 1], &[1f32, 2.0, 3.0]);
        check(&lrn(2), &[x()], &[(&[1, 3, 1], &[1.0 / 6.0, 2.0 / 14.0, 3.0 / 10.0])]);
        check(&lrn(i64::MAX), &[x()], &[(&[1, 3, 1], &[1.0, 2.0, 3.0])]);
        refused(&lrn(0), &[x()], "`size`");
    }

    #[test]
    fn skip_layer_normalization_adds_first() {
        let op = Op::SkipLayerNormalization(SkipLayerNormalization { epsilon: 0.0 });
        let (x, skip) = (input(&[2, 1, 2], &[1f32, 2.0, 3.0, 4.0]), input(&[1, 2], &[0f32, 1.0]));
        let inputs = [x, skip, vector(&[2.0, 3.0]), vector(&[0.0, 1.0]), vector(&[1.0, 0.0])];
        let (column, whole): (&[usize], &[usize]) = (&[2, 1, 1], &[2, 1, 2]);
        let sum = [2.0, 3.0, 4.0, 5.0];
        let y = [-2.0, 4.0, -2.0, 4.0];
        check(&op, &inputs, &[(whole, &y), (column, &[2.5, 4.5]), (column, &[2.0, 2.0]), (whole, &sum)]);
        refused(&op, &[vector(&[1.0]), vector(&[1.0]), vector(&[1.0])], "2 or 3 dimensions");
    }
}
