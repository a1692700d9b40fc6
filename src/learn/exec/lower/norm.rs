//! Normalizations.

use super::{Lowered, Lowering, axis};
use crate::graph::Op;
use crate::graph::op::{BatchNormalization, GroupNormalization, LRN, LayerNormalization};
use crate::graph::tensor::Tensor;
use crate::learn::exec::ExecError;
use crate::learn::exec::emit::Emitter;
use crate::learn::exec::program::{AxisMap, Id, Reduction};
use crate::learn::kernels::elementwise::Unary;

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    match op {
        Op::BatchNormalization(attributes) => batch(lowering, attributes),
        Op::LayerNormalization(attributes) => layer(lowering, attributes).map(Some),
        Op::RMSNormalization(attributes) => root_mean_square(lowering, attributes).map(|y| Some(vec![y])),
        Op::InstanceNormalization(attributes) => by_channel(lowering, None, attributes.epsilon),
        Op::GroupNormalization(GroupNormalization { epsilon, num_groups, stash_type: _ }) => {
            by_channel(lowering, Some(*num_groups), *epsilon)
        }
        Op::SkipLayerNormalization(attributes) => {
            let [x, skip] = [lowering.input(0)?, lowering.input(1)?];
            let [scale, bias] = [Some(lowering.input(2)?), lowering.optional(3)?];
            let before = lowering.optional(4)?;
            let emit = lowering.emit();
            let sum = emit.add(x, skip);
            let sum = before.map_or(sum, |before| emit.add(sum, before));
            let along = emit.rank(sum) - 1;
            let mut outputs = layers(lowering, sum, along, attributes.epsilon.into(), scale, bias)?;
            outputs.push(sum);
            Ok(Some(outputs))
        }
        Op::LRN(attributes) => Ok(Some(vec![local_response(lowering, attributes)?])),
        _ => Ok(None),
    }
}

/// `BatchNormalization`: by the batch's statistics where the network learns, or was exported so; they are then blended
/// into the running ones, which are parameters that a run replaces.
fn batch(lowering: &mut Lowering<'_, '_>, attributes: &BatchNormalization) -> Lowered {
    let x = lowering.input(0)?;
    let [scale, bias] = [lowering.input(1)?, lowering.input(2)?];
    let running = [lowering.input(3)?, lowering.input(4)?];
    if lowering.emit().rank(x) < 2 || lowering.emit().program.n_elements(x) == 0 {
        return Ok(None);
    }
    let (epsilon, momentum) = (f64::from(attributes.epsilon), f64::from(attributes.momentum));
    let is_training = lowering.is_training();
    if !is_training && !attributes.training_mode {
        let emit = lowering.emit();
        let deviation = emit.affine(running[1], 1.0, epsilon);
        let deviation = emit.unary(Unary::Sqrt, deviation);
        let factor = emit.div(scale, deviation);
        let offset = emit.mul(running[0], factor);
        let offset = emit.sub(bias, offset);
        return Ok(Some(vec![scaled_channels(emit, x, factor, Some(offset))]));
    }
    let emit = lowering.emit();
    let [y, mean, _, variance] = emit.batch_norm([x, scale, bias], epsilon, false);
    let now = [mean, variance];
    let blended = [0, 1].map(|idx| blend(emit, running[idx], now[idx], momentum));
    if is_training {
        for idx in [0, 1] {
            let name = lowering.node.input(3 + idx);
            let name = name.filter(|name| lowering.compiler.graph.initializers.contains_key(*name));
            let updates = &lowering.compiler.emitter.program.updates;
            match (name, updates.iter().position(|(known, _)| Some(known) == name)) {
                (None, _) => {}
                (Some(name), None) => lowering.emit().program.updates.push((name.clone(), blended[idx])),
                // a layer that is called twice: its statistics are brought up to date twice
                (Some(_), Some(update_idx)) => {
                    let emit = lowering.emit();
                    let before = emit.program.updates[update_idx].1;
                    emit.program.updates[update_idx].1 = blend(emit, before, now[idx], momentum);
                }
            }
        }
    }
    Ok(Some(vec![y, blended[0], blended[1]]))
}

/// `running · momentum + now · (1 − momentum)`
fn blend(emit: &mut Emitter, running: Id, now: Id, momentum: f64) -> Id {
    let kept = emit.affine(running, momentum, 0.0);
    let new = emit.affine(now, 1.0 - momentum, 0.0);
    emit.add(kept, new)
}

/// `x · factor + offset`, channel by channel.
fn scaled_channels(emit: &mut Emitter, x: Id, factor: Id, offset: Option<Id>) -> Id {
    let mut channels = vec![1; emit.rank(x)];
    channels[1] = emit.shape(x)[1];
    let factor = emit.reshape(factor, &channels);
    let y = emit.mul(x, factor);
    match offset {
        Some(offset) => {
            let offset = emit.reshape(offset, &channels);
            emit.add(y, offset)
        }
        None => y,
    }
}

fn layer(lowering: &mut Lowering<'_, '_>, attributes: &LayerNormalization) -> Result<Vec<Id>, ExecError> {
    let x = lowering.input(0)?;
    let (scale, bias) = (lowering.optional(1)?, lowering.optional(2)?);
    let along = axis(attributes.axis, lowering.emit().rank(x));
    layers(lowering, x, along, attributes.epsilon.into(), scale, bias)
}

/// `x` normalized over the axes from `along` on, scaled and shifted, then mean and inverse deviation. Where these are outputs
/// of the node, each is computed by itself, so that a gradient may come from them too.
fn layers(
    lowering: &mut Lowering<'_, '_>,
    x: Id,
    along: usize,
    epsilon: f64,
    scale: Option<Id>,
    bias: Option<Id>,
) -> Result<Vec<Id>, ExecError> {
    let has_statistics = [1, 2].iter().any(|&position| lowering.node.output(position).is_some());
    let emit = lowering.emit();
    let lane = emit.shape(x)[along..].to_vec();
    let fits = |emit: &Emitter, part: Option<Id>| part.is_none_or(|part| emit.shape(part) == lane);
    if !has_statistics && fits(emit, scale) && fits(emit, bias) {
        let scale = match scale {
            Some(scale) => scale,
            None => ones(emit, &lane)?,
        };
        let inputs = [x, scale].into_iter().chain(bias).collect();
        return Ok(emit.layer_norm(inputs, along, epsilon).to_vec());
    }
    let axes: Vec<usize> = (along..emit.rank(x)).collect();
    let mean = emit.reduce(Reduction::Mean, x, &axes);
    let centered = emit.sub(x, mean);
    let squares = emit.mul(centered, centered);
    let variance = emit.reduce(Reduction::Mean, squares, &axes);
    let inverse = inverse_root(emit, variance, epsilon);
    let mut y = emit.mul(centered, inverse);
    if let Some(scale) = scale {
        y = emit.mul(y, scale);
    }
    if let Some(bias) = bias {
        y = emit.add(y, bias);
    }
    Ok(vec![y, mean, inverse])
}

/// `1 / √(x + epsilon)`
fn inverse_root(emit: &mut Emitter, x: Id, epsilon: f64) -> Id {
    let shifted = emit.affine(x, 1.0, epsilon);
    let root = emit.unary(Unary::Sqrt, shifted);
    emit.unary(Unary::Reciprocal, root)
}

fn ones(emit: &mut Emitter, shape: &[usize]) -> Result<Id, ExecError> {
    let tensor = Tensor::new(shape, vec![1f32; shape.iter().product()])?;
    Ok(emit.constant(tensor))
}

fn root_mean_square(lowering: &mut Lowering<'_, '_>, attributes: &LayerNormalization) -> Result<Id, ExecError> {
    let [x, scale] = [lowering.input(0)?, lowering.input(1)?];
    let emit = lowering.emit();
    let rank = emit.rank(x);
    let axes: Vec<usize> = (axis(attributes.axis, rank)..rank).collect();
    let squares = emit.mul(x, x);
    let mean = emit.reduce(Reduction::Mean, squares, &axes);
    let inverse = inverse_root(emit, mean, attributes.epsilon.into());
    let y = emit.mul(x, inverse);
    Ok(emit.mul(y, scale))
}

/// Every group of channels of every instance by itself, or every channel; then scaled and shifted channel by channel.
fn by_channel(lowering: &mut Lowering<'_, '_>, n_groups: Option<i64>, epsilon: f32) -> Lowered {
    let [x, scale, bias] = [lowering.input(0)?, lowering.input(1)?, lowering.input(2)?];
    let emit = lowering.emit();
    let shape = emit.shape(x).to_vec();
    let &[n, n_channels, ref plane @ ..] = shape.as_slice() else { return Ok(None) };
    let n_groups = n_groups.map_or(Some(n_channels), |n_groups| usize::try_from(n_groups).ok());
    let Some(n_groups) = n_groups.filter(|&n| n > 0 && n_channels.is_multiple_of(n)) else { return Ok(None) };
    let length = n_channels / n_groups * plane.iter().product::<usize>();
    if n == 0 || length == 0 {
        return Ok(None);
    }
    let rows = emit.reshape(x, &[n * n_groups, length]);
    let scales = ones(emit, &[length])?;
    let [normalized, ..] = emit.layer_norm(vec![rows, scales], 1, epsilon.into());
    let normalized = emit.reshape(normalized, &shape);
    Ok(Some(vec![scaled_channels(emit, normalized, scale, Some(bias))]))
}

/// `LRN`: the sum of squares over the nearest channels is a linear map along them.
fn local_response(lowering: &mut Lowering<'_, '_>, attributes: &LRN) -> Result<Id, ExecError> {
    let x = lowering.input(0)?;
    let Some(size) = usize::try_from(attributes.size).ok().filter(|&size| size > 0) else {
        return Err(lowering.unsupported(format!("`size` is {}", attributes.size), "use 1 or more"));
    };
    let emit = lowering.emit();
    let n_in = emit.shape(x)[1];
    let (before, after) = ((size - 1) / 2, size / 2);
    let neighbours = |channel: usize| {
        let last = channel.saturating_add(after).min(n_in - 1);
        (channel.saturating_sub(before)..=last).map(|channel| (channel, 1.0)).collect()
    };
    let map = AxisMap { n_in, terms: (0..n_in).map(neighbours).collect() };
    let squares = emit.mul(x, x);
    let sums = emit.map_axis(squares, 1, map.into());
    let scaled = emit.affine(sums, f64::from(attributes.alpha) / size as f64, attributes.bias.into());
    let factor = emit.unary(Unary::PowConstant { exponent: -attributes.beta }, scaled);
    Ok(emit.mul(x, factor))
}
