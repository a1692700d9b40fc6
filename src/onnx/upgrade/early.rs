//! Forms of opset 1 to 6, for which nothing is promised: what is simply said in canonical form is, the rest stays opaque.

use super::super::raw::{Context, RawNode, derived};
use super::{Form, Outcome, set, take};
use crate::graph::attribute::Attribute;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Node, Op};

/// What has no canonical form.
pub(super) fn keep(_node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    Ok(Form::Opaque)
}

/// The binary operators: with `axis`, the second operand's dimensions stand from there on in the first one's.
pub(super) fn broadcast(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    let axis = take::<i64>(node, "axis")?;
    let broadcast = take::<bool>(node, "broadcast")?.unwrap_or(false);
    let Some(axis) = axis.filter(|_| broadcast) else {
        return Ok(Form::Raw);
    };
    let rank = |position| node.input(position).and_then(|name| context.rank(name)).and_then(|r| i64::try_from(r).ok());
    let (Some(rank_a), Some(rank_b)) = (rank(0), rank(1)) else {
        return Ok(Form::Opaque);
    };
    let axis = if axis < 0 { axis.checked_add(rank_a) } else { Some(axis) };
    let n_after = axis.and_then(|axis| rank_a.checked_sub(axis)?.checked_sub(rank_b));
    match (axis, n_after) {
        (_, Some(0)) => Ok(Form::Raw),
        (Some(0..), Some(n_after @ 1..)) => unsqueezed(node, context, (rank_b..rank_b + n_after).collect()),
        (_, _) => Ok(Form::Opaque),
    }
}

/// A slope a channel, without dimensions for the axes after.
pub(super) fn prelu(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    let rank = node.input(0).and_then(|name| context.rank(name)).and_then(|rank| i64::try_from(rank).ok());
    let slope = node.input(1).map(|name| context.known(name)).and_then(|known| known.shape);
    match (rank, slope.as_deref()) {
        (_, Some([] | [crate::graph::Dim::Known(1)])) => Ok(Form::Raw),
        (Some(rank), Some([_])) if rank > 2 => unsqueezed(node, context, (1..rank - 1).collect()),
        (Some(2), Some([_])) => Ok(Form::Raw),
        _ => Ok(Form::Opaque),
    }
}

/// The node with dimensions of size 1 at `axes` of its second input.
fn unsqueezed(node: &mut RawNode, context: &mut Context, axes: Vec<i64>) -> Outcome {
    let Some(second) = node.input(1).cloned() else {
        return Ok(Form::Opaque);
    };
    let axes = context.add_constant(&derived(&node.outputs, &node.op_type, "axes"), Tensor::vector(axes));
    let aligned = context.fresh(&derived(&node.outputs, &node.op_type, "aligned"));
    node.set_input(1, aligned.clone());
    let op = Op::read("", &node.op_type, node.attributes.clone())?;
    let unsqueeze = Node::new(Op::Unsqueeze, vec![Some(second), Some(axes)], vec![Some(aligned)]);
    Ok(Form::Nodes(vec![unsqueeze, super::with_op(node, op)]))
}

pub(super) fn gemm(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    take::<bool>(node, "broadcast")?;
    Ok(Form::Raw)
}

/// Below opset 7 an attribute said whether a node was in training.
pub(super) fn inference_only(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    let is_test = take::<bool>(node, "is_test")?.unwrap_or(false);
    Ok(if is_test { Form::Raw } else { Form::Opaque })
}

pub(super) fn concat_axis(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    let axis = take::<i64>(node, "axis")?.unwrap_or(1);
    set(node, "axis", Attribute::Int(axis));
    Ok(Form::Raw)
}

pub(super) fn selu(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    for (name, default) in [("alpha", 1.6732), ("gamma", 1.0507)] {
        let value = take::<f32>(node, name)?.unwrap_or(default);
        set(node, name, Attribute::Float(value));
    }
    Ok(Form::Raw)
}

pub(super) fn paddings(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    if let Some(paddings) = take::<Vec<i64>>(node, "paddings")? {
        set(node, "pads", Attribute::Ints(paddings));
    }
    Ok(Form::Raw)
}

/// Opset 1 took the sizes as an input of the data's own type.
pub(super) fn split(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    Ok(if node.input(1).is_some() { Form::Opaque } else { Form::Raw })
}

/// `to` by its name in `TensorProto.DataType`.
pub(super) fn named_type(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    let named = node.attributes.iter().any(|(name, value)| name == "to" && matches!(value, Attribute::String(_)));
    if !named {
        return Ok(Form::Raw);
    }
    let dtype = match take::<String>(node, "to")?.unwrap_or_default().as_str() {
        "FLOAT" => DType::F32,
        "DOUBLE" => DType::F64,
        "FLOAT16" => DType::F16,
        "INT64" => DType::I64,
        "INT32" => DType::I32,
        "INT16" => DType::I16,
        "INT8" => DType::I8,
        "UINT64" => DType::U64,
        "UINT32" => DType::U32,
        "UINT16" => DType::U16,
        "UINT8" => DType::U8,
        "BOOL" => DType::Bool,
        _ => return Ok(Form::Opaque),
    };
    set(node, "to", Attribute::Int(dtype.onnx().into()));
    Ok(Form::Raw)
}
