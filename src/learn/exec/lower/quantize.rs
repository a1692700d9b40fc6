//! Quantized numbers on their way back: `DequantizeLinear`.
//!
//! After a `QuantizeLinear` with the same scale, zero point and axis it is one primitive that a gradient passes, whoever else reads
//! the integers. Of integers that are the same in every run it is a product, so that a scale which is not can learn. The rest is
//! the reference interpreter's: other scales on either side, scales for blocks of what is computed, types that are none of
//! integers, scales of zero and below that are known before.

use super::{Lowered, Lowering};
use crate::graph::eval;
use crate::graph::op::{Cast, DequantizeLinear, RoundMode};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Name, Op};
use crate::learn::exec::ExecError;
use crate::learn::exec::emit::Emitter;
use crate::learn::exec::numbers::singles;
use crate::learn::exec::program::{Id, Kind};
use crate::learn::exec::quantization::{Quantization, from_start};

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    let Op::DequantizeLinear(attributes) = op else { return Ok(None) };
    let [integers, scale] = [lowering.input(0)?, lowering.input(1)?];
    if lowering.emit().kind(scale) != Kind::Float {
        return Ok(None);
    }
    let y = match (lowering.constant_of(integers).cloned(), lowering.constant_of(scale).is_some()) {
        (Some(_), true) => return Ok(None),
        (Some(known), false) => of_constant(lowering, attributes, known, scale)?,
        (None, _) => fake_quantized(lowering, attributes, integers, scale)?,
    };
    let Some(y) = y else { return Ok(None) };
    Ok(Some(vec![in_stated_type(lowering, y)]))
}

/// The number before it was quantized, rounded to what the integers stand for, where a `QuantizeLinear` made them alike.
fn fake_quantized(
    lowering: &mut Lowering<'_, '_>,
    attributes: &DequantizeLinear,
    integers: Id,
    scale: Id,
) -> Result<Option<Id>, ExecError> {
    let Kind::Plain(dtype) = lowering.emit().kind(integers) else { return Ok(None) };
    let name = lowering.node.input(0);
    let maker = lowering.compiler.graph.nodes.iter().find(|node| node.output(0) == name);
    let Some((node, Op::QuantizeLinear(before))) = maker.map(|node| (node, &node.op)) else { return Ok(None) };
    let quantizing = Lowering { compiler: &mut *lowering.compiler, node };
    let [x, scale_before] = [quantizing.input(0)?, quantizing.input(1)?];
    let n_scales = quantizing.compiler.emitter.program.n_elements(scale);
    let zero_points_before = zero_points(&quantizing, n_scales)?;
    let Some(zero_points) = zero_points(lowering, n_scales)?.filter(|own| Some(own) == zero_points_before.as_ref())
    else {
        return Ok(None);
    };
    if lowering.emit().kind(x) != Kind::Float || !is_same(lowering, scale_before, scale) {
        return Ok(None);
    }
    let (shape, scale_shape) = (lowering.emit().shape(x).to_vec(), lowering.emit().shape(scale).to_vec());
    let is_per_tensor = scale_shape.is_empty() || scale_shape == [1];
    let Some(quantization) = Quantization::of(before, attributes, dtype, shape.len(), is_per_tensor) else {
        return Ok(None);
    };
    if quantization.axis.is_some_and(|axis| scale_shape != [shape[axis]]) {
        return Ok(None);
    }
    let known = lowering.constant_of(scale).map(singles).transpose()?;
    if known.is_some_and(|scales| scales.iter().any(|&scale| scale <= 0.0)) {
        return Ok(None);
    }
    let emit = lowering.emit();
    let zero_points = emit.constant(Tensor::vector(zero_points));
    Ok(Some(emit.fake_quantize(quantization, [x, scale, zero_points])))
}

/// Whether two values are the same in every run.
fn is_same(lowering: &Lowering<'_, '_>, one: Id, other: Id) -> bool {
    let numbers = |id: Id| lowering.constant_of(id).and_then(|tensor| singles(tensor).ok());
    one == other || numbers(one).zip(numbers(other)).is_some_and(|(one, other)| one == other)
}

/// A node's zero points, one for each of so many scales; none where they are not known before anything runs.
fn zero_points(lowering: &Lowering<'_, '_>, n_scales: usize) -> Result<Option<Vec<f32>>, ExecError> {
    let Some(id) = lowering.optional(2)? else { return Ok(Some(vec![0.0; n_scales])) };
    let Some(tensor) = lowering.constant_of(id).filter(|tensor| tensor.len() == n_scales) else { return Ok(None) };
    let cast = Op::Cast(Cast { to: DType::F32, saturate: true, round_mode: RoundMode::Up });
    let made = eval::operator(&cast, &[Some(tensor.clone())], 1).map_err(|source| lowering.refused(source))?;
    let numbers = made.into_iter().next().flatten().map(|tensor| tensor.to_vec::<f32>()).transpose()?;
    Ok(numbers)
}

/// `(integers − zero point) · scale`
fn of_constant(
    lowering: &mut Lowering<'_, '_>,
    attributes: &DequantizeLinear,
    integers: Tensor,
    scale: Id,
) -> Result<Option<Id>, ExecError> {
    let zero_point = lowering.optional(2)?.map(|id| lowering.constant_of(id).cloned());
    let Some(zero_point) = zero_point.map_or(Some(None), |known| known.map(Some)) else { return Ok(None) };
    let (shape, scale_shape) = (integers.shape().to_vec(), lowering.emit().shape(scale).to_vec());
    let ones = Tensor::new(&scale_shape, vec![1f32; scale_shape.iter().product()])?;
    let unscaled = Op::DequantizeLinear(DequantizeLinear { output_dtype: Some(DType::F32), ..attributes.clone() });
    let made = eval::operator(&unscaled, &[Some(integers), Some(ones), zero_point], 1);
    let made = made.map_err(|source| lowering.refused(source))?;
    let Some(centered) = made.into_iter().next().flatten() else { return Ok(None) };
    let emit = lowering.emit();
    let centered = emit.constant(centered);
    let Some(scale) = spread(emit, attributes, scale, &shape)? else { return Ok(None) };
    let y = emit.mul(centered, scale);
    Ok(Some(emit.reshape(y, &shape)))
}

/// Scales in a shape that broadcasts to that of the numbers they are for.
fn spread(
    emit: &mut Emitter,
    attributes: &DequantizeLinear,
    scale: Id,
    shape: &[usize],
) -> Result<Option<Id>, ExecError> {
    if emit.program.n_elements(scale) == 1 && emit.rank(scale) <= 1 {
        return Ok(Some(emit.reshape(scale, &[])));
    }
    let Some(axis) = from_start(attributes.axis, shape.len()) else { return Ok(None) };
    if attributes.block_size == 0 {
        let mut along = vec![1; shape.len()];
        along[axis] = shape[axis];
        return Ok(Some(emit.reshape(scale, &along)));
    }
    let positions = (0..shape[axis]).map(|position| i64::try_from(position).unwrap_or(i64::MAX));
    let blocks = emit.constant(Tensor::vector(positions.map(|position| position / attributes.block_size).collect()));
    Ok(Some(emit.gather(scale, axis, blocks)))
}

/// Rounded to the type that the node states, where it is narrower than that of the scale.
fn in_stated_type(lowering: &mut Lowering<'_, '_>, y: Id) -> Id {
    let types = &lowering.compiler.types;
    let dtype = |name: &Name| types.tensor(name).map(|tensor_type| tensor_type.dtype);
    let [scale, stated] = [lowering.node.input(1), lowering.node.output(0)].map(|name| name.and_then(dtype));
    match stated.filter(|_| stated != scale) {
        Some(to @ (DType::F16 | DType::BF16)) => {
            lowering.emit().round_to(Cast { to, saturate: true, round_mode: RoundMode::Up }, y)
        }
        Some(_) | None => y,
    }
}
