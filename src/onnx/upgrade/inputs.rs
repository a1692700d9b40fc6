//! What was an attribute and has become an input.

use half::{bf16, f16};

use super::super::raw::{Context, RawNode};
use super::{Form, Outcome, set, set_constant, take};
use crate::graph::attribute::{Attribute, AttributeError};
use crate::graph::tensor::{DType, Tensor};

/// `axes` of Squeeze and the reductions. An empty list and none mean the same: all.
pub(super) fn axes(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    if let Some(axes) = take::<Vec<i64>>(node, "axes")?.filter(|axes| !axes.is_empty()) {
        set_constant(node, context, 1, "axes", Tensor::vector(axes));
    }
    Ok(Form::Raw)
}

pub(super) fn unsqueeze(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    required_list(node, context, 1, "axes")
}

/// Opset 1 to 4.
pub(super) fn reshape(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    required_list(node, context, 1, "shape")
}

fn required_list(node: &mut RawNode, context: &mut Context, position: usize, name: &'static str) -> Outcome {
    match take::<Vec<i64>>(node, name)? {
        Some(values) => set_constant(node, context, position, name, Tensor::vector(values)),
        None if node.input(position).is_some() => {}
        None => return Err(AttributeError::Missing(name)),
    }
    Ok(Form::Raw)
}

pub(super) fn slice(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    required_list(node, context, 1, "starts")?;
    required_list(node, context, 2, "ends")?;
    if let Some(axes) = take::<Vec<i64>>(node, "axes")?.filter(|axes| !axes.is_empty()) {
        set_constant(node, context, 3, "axes", Tensor::vector(axes));
    }
    Ok(Form::Raw)
}

pub(super) fn split(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    if let Some(sizes) = take::<Vec<i64>>(node, "split")?.filter(|sizes| !sizes.is_empty()) {
        set_constant(node, context, 1, "split", Tensor::vector(sizes));
    }
    Ok(Form::Raw)
}

/// Up to opset 17 a Split without sizes makes equal parts, as many as it has outputs.
pub(super) fn split_evenly(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    let stated = node.attributes.iter().any(|(name, _)| name == "num_outputs");
    if let (None, false, Ok(n_outputs)) = (node.input(1), stated, i64::try_from(node.outputs.len())) {
        set(node, "num_outputs", Attribute::Int(n_outputs));
    }
    Ok(Form::Raw)
}

pub(super) fn top_k(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    match take::<i64>(node, "k")? {
        Some(k) => set_constant(node, context, 1, "K", Tensor::vector(vec![k])),
        None if node.input(1).is_some() => {}
        None => return Err(AttributeError::Missing("k")),
    }
    Ok(Form::Raw)
}

/// Opset 7 and 8.
pub(super) fn upsample(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    match take::<Vec<f32>>(node, "scales")? {
        Some(scales) => set_constant(node, context, 1, "scales", Tensor::vector(scales)),
        None if node.input(1).is_some() => {}
        None => return Err(AttributeError::Missing("scales")),
    }
    Ok(Form::Raw)
}

/// The limits are of the type of the input; where that is not known, the node stays as it is.
pub(super) fn clip(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    let dtype = element_type(node, context);
    for (position, name, none) in [(1, "min", f32::MIN), (2, "max", f32::MAX)] {
        if let Some(limit) = take::<f32>(node, name)?.filter(|&limit| limit != none) {
            match dtype.and_then(|dtype| float_scalar(limit, dtype)) {
                Some(tensor) => set_constant(node, context, position, name, tensor),
                None => return Ok(Form::Opaque),
            }
        }
    }
    Ok(Form::Raw)
}

pub(super) fn pad(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    required_list(node, context, 1, "pads")?;
    if let Some(value) = take::<f32>(node, "value")?.filter(|&value| value != 0.0) {
        match element_type(node, context).and_then(|dtype| float_scalar(value, dtype)) {
            Some(tensor) => set_constant(node, context, 2, "constant_value", tensor),
            None => return Ok(Form::Opaque),
        }
    }
    Ok(Form::Raw)
}

pub(super) fn dropout_ratio(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    if let Some(ratio) = take::<f32>(node, "ratio")? {
        set_constant(node, context, 1, "ratio", Tensor::scalar(ratio));
    }
    Ok(Form::Raw)
}

/// The element type of a node's first input, which is that of its first output too.
pub(super) fn element_type(node: &RawNode, context: &Context) -> Option<DType> {
    let first = |names: &[Option<_>]| names.first().cloned().flatten();
    let either = [first(&node.inputs), first(&node.outputs)];
    either.into_iter().flatten().find_map(|name| context.known(&name).dtype)
}

/// `value` as a float of this type; none for the other types, to which an attribute was never converted.
fn float_scalar(value: f32, dtype: DType) -> Option<Tensor> {
    match dtype {
        DType::F32 => Some(Tensor::scalar(value)),
        DType::F64 => Some(Tensor::scalar(f64::from(value))),
        DType::F16 => Some(Tensor::scalar(f16::from_f32(value))),
        DType::BF16 => Some(Tensor::scalar(bf16::from_f32(value))),
        DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::I2 => None,
        DType::U64 | DType::U32 | DType::U16 | DType::U8 | DType::U4 | DType::U2 => None,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => None,
        DType::F6E2M3 | DType::F6E3M2 => None,
        DType::Bool | DType::String | DType::Complex64 | DType::Complex128 => None,
    }
}
