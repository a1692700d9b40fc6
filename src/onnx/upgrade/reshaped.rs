//! What is said in another way, or by several nodes.

use bytes::Bytes;

use super::super::raw::{Context, RawNode, derived};
use super::inputs::element_type;
use super::{Form, Outcome, canonical, set, take, with_op};
use crate::graph::attribute::{Attribute, AttributeError, SparseTensor};
use crate::graph::op::{Cast, Constant, Flatten, Reshape, Shape, Softmax};
use crate::graph::tensor::{DType, Tensor, n_elements};
use crate::graph::{Dim, Name, Node, Op};

/// Up to opset 12 Softmax and its kin flattened their input to two dimensions at `axis`. That is the canonical meaning
/// where the dimensions after the axis have size 1 or do not exist; elsewhere the flattening is said by nodes.
pub(super) fn flattened_axis(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    let axis = take::<i64>(node, "axis")?.unwrap_or(1);
    let (Some(data), Some(output)) = (node.input(0).cloned(), node.outputs.first().cloned().flatten()) else {
        return Ok(Form::Opaque);
    };
    if axis == -1 || is_alone(axis, context.known(&data).shape.as_deref()) {
        set(node, "axis", Attribute::Int(axis));
        return Ok(Form::Raw);
    }
    let op = match node.op_type.as_str() {
        "LogSoftmax" => Op::LogSoftmax(Softmax { axis: -1 }),
        "Hardmax" => Op::Hardmax(Softmax { axis: -1 }),
        "Softmax" => Op::Softmax(Softmax { axis: -1 }),
        _ => return Ok(Form::Opaque),
    };
    let mut fresh = |suffix| Some(context.fresh(&format!("{output}_{suffix}")));
    let (flat, result, shape) = (fresh("flat"), fresh("rows"), fresh("shape"));
    let data = Some(data);
    let flatten = Node::new(Op::Flatten(Flatten { axis }), vec![data.clone()], vec![flat.clone()]);
    let softmax = Node { inputs: vec![flat], outputs: vec![result.clone()], ..with_op(node, op) };
    let dims = Node::new(Op::Shape(Shape { start: 0, end: None }), vec![data], vec![shape.clone()]);
    let reshape = Op::Reshape(Reshape { allowzero: true });
    let reshape = Node::new(reshape, vec![result, shape], vec![Some(output)]);
    Ok(Form::Nodes(vec![flatten, softmax, dims, reshape]))
}

/// Whether no dimension after `axis` has a size other than 1.
fn is_alone(axis: i64, shape: Option<&[Dim]>) -> bool {
    let Some(shape) = shape else { return false };
    let axis = match usize::try_from(axis) {
        Ok(axis) => Some(axis),
        Err(_) => axis.checked_neg().and_then(|n| usize::try_from(n).ok()).and_then(|n| shape.len().checked_sub(n)),
    };
    axis.and_then(|axis| shape.get(axis..)?.get(1..)).is_some_and(|after| after.iter().all(|dim| *dim == Dim::Known(1)))
}

/// Opset 7 and 8 could keep statistics an element instead of a channel.
pub(super) fn spatial(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    let spatial = take::<bool>(node, "spatial")?.unwrap_or(true);
    Ok(if spatial { Form::Raw } else { Form::Opaque })
}

/// Up to opset 13 a BatchNormalization in training was one with more outputs, which were others than today's.
pub(super) fn one_output(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    if node.outputs.iter().skip(1).any(Option::is_some) {
        return Ok(Form::Opaque);
    }
    node.outputs.truncate(1);
    Ok(Form::Raw)
}

/// Up to opset 9 the mask of a Dropout was of the type of the data; nothing is dropped, so it holds ones.
pub(super) fn dropout_mask(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    let Some(mask) = node.outputs.get(1).cloned().flatten() else {
        return Ok(Form::Raw);
    };
    let Some(dtype) = element_type(node, context) else {
        return Ok(Form::Opaque);
    };
    let kept = Some(context.fresh(&format!("{mask}_bool")));
    node.outputs = vec![node.outputs.first().cloned().flatten(), kept.clone()];
    let mut nodes = canonical(node.clone())?;
    let cast = Op::Cast(Cast { to: dtype, saturate: true, round_mode: crate::graph::op::RoundMode::Up });
    nodes.push(Node::new(cast, vec![kept], vec![Some(mask)]));
    Ok(Form::Nodes(nodes))
}

/// Up to opset 20 scale and bias were given a group, not a channel: each is repeated as often as a group has channels.
pub(super) fn group_normalization(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    let n_groups = take::<i64>(node, "num_groups")?.ok_or(AttributeError::Missing("num_groups"))?;
    set(node, "num_groups", Attribute::Int(n_groups));
    let (Some(data), Some(scale), Some(bias)) = (node.input(0), node.input(1), node.input(2)) else {
        return Ok(Form::Opaque);
    };
    let (data, parameters) = (data.clone(), [scale.clone(), bias.clone()]);
    let outputs = node.outputs.clone();
    let base = |suffix: &str| derived(&outputs, "GroupNormalization", suffix);
    let groups = Some(context.add_constant(&base("groups"), Tensor::vector(vec![n_groups])));
    let axis = Some(context.add_constant(&base("axis"), Tensor::vector(vec![1i64])));
    let all = Some(context.add_constant(&base("all"), Tensor::vector(vec![-1i64])));
    let mut nodes = Vec::new();
    let mut push = |context: &mut Context, op: Op, inputs: Vec<Option<Name>>, suffix: &str| {
        let output = Some(context.fresh(&base(suffix)));
        nodes.push(Node::new(op, inputs, vec![output.clone()]));
        output
    };
    let n_channels = push(context, Op::Shape(Shape { start: 1, end: Some(2) }), vec![Some(data)], "channels");
    let repeats = push(context, Op::Div, vec![n_channels, groups.clone()], "repeats");
    let concat = Op::Concat(crate::graph::op::Concat { axis: 0 });
    let grid = push(context, concat, vec![groups, repeats], "grid");
    for (position, (name, suffix)) in parameters.into_iter().zip(["scale", "bias"]).enumerate() {
        let column = push(context, Op::Unsqueeze, vec![Some(name), axis.clone()], suffix);
        let repeated = push(context, Op::Expand, vec![column, grid.clone()], suffix);
        let reshape = Op::Reshape(Reshape { allowzero: false });
        if let Some(channels) = push(context, reshape, vec![repeated, all.clone()], suffix) {
            node.set_input(position + 1, channels);
        }
    }
    nodes.extend(canonical(node.clone())?);
    Ok(Form::Nodes(nodes))
}

/// Scatter is the former name of ScatterElements.
pub(super) fn scatter(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    node.op_type = "ScatterElements".to_string();
    Ok(Form::Raw)
}

/// Upsample is a Resize whose scales are never below 1.
pub(super) fn upsample(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    as_resize(node, "floor")
}

/// Resize of opset 10 did not say how it rounds: where it enlarges it took the element before, where it shrinks the one
/// after (onnxruntime, `GetNearestPixelFromOriginal`, mode `simple`; the node tests of ONNX 1.5).
pub(super) fn resize_10(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    let linear = node
        .attributes
        .iter()
        .any(|(name, value)| name == "mode" && matches!(value, Attribute::String(mode) if mode.as_ref() == b"linear"));
    if linear {
        return as_resize(node, "floor");
    }
    let scales = node.input(1).and_then(|name| context.constant(name)).and_then(|tensor| tensor.to_vec::<f32>().ok());
    match scales {
        Some(scales) if scales.iter().all(|&scale| scale >= 1.0) => as_resize(node, "floor"),
        Some(scales) if scales.iter().all(|&scale| scale <= 1.0) => as_resize(node, "ceil"),
        _ => Ok(Form::Opaque),
    }
}

fn as_resize(node: &mut RawNode, nearest_mode: &'static str) -> Outcome {
    let mode = take::<String>(node, "mode")?.unwrap_or_else(|| "nearest".to_string());
    let mode = if mode == "bilinear" { "linear" } else { mode.as_str() };
    let text = |text: &str| Attribute::String(Bytes::copy_from_slice(text.as_bytes()));
    node.op_type = "Resize".to_string();
    set(node, "mode", text(mode));
    set(node, "coordinate_transformation_mode", text("asymmetric"));
    if mode == "nearest" {
        set(node, "nearest_mode", text(nearest_mode));
    }
    node.inputs.insert(1.min(node.inputs.len()), None);
    Ok(Form::Raw)
}

/// `output_dtype` and `precision` may state their default, which is no type.
pub(super) fn undefined_types(node: &mut RawNode, _opset: u32, _context: &mut Context) -> Outcome {
    let undefined = |(name, value): &(String, Attribute)| {
        matches!(name.as_str(), "output_dtype" | "precision") && *value == Attribute::Int(0)
    };
    node.attributes.retain(|attribute| !undefined(attribute));
    Ok(Form::Raw)
}

/// The six further ways of stating a constant.
pub(super) fn constant(node: &mut RawNode, _opset: u32, context: &mut Context) -> Outcome {
    let tensor = if let Some(value) = take::<f32>(node, "value_float")? {
        Tensor::scalar(value)
    } else if let Some(values) = take::<Vec<f32>>(node, "value_floats")? {
        Tensor::vector(values)
    } else if let Some(value) = take::<i64>(node, "value_int")? {
        Tensor::scalar(value)
    } else if let Some(values) = take::<Vec<i64>>(node, "value_ints")? {
        Tensor::vector(values)
    } else if let Some((name, strings)) = strings(node) {
        let shape: Vec<usize> = if name == "value_string" { Vec::new() } else { vec![strings.len()] };
        node.attributes.retain(|(key, _)| key != name);
        let malformed = |_| malformed(name, "strings", "another type");
        Tensor::from_strings(&shape, strings).map_err(malformed)?
    } else if let Some((_, Attribute::SparseTensor(sparse))) =
        node.attributes.iter().find(|(name, _)| name == "sparse_value")
    {
        match dense(sparse, context)? {
            Some(tensor) => tensor,
            None => return Ok(Form::Opaque),
        }
    } else {
        return Ok(Form::Raw);
    };
    let op = Op::Constant(Constant { value: tensor });
    Ok(Form::Nodes(vec![with_op(node, op)]))
}

fn strings(node: &RawNode) -> Option<(&'static str, Vec<Bytes>)> {
    node.attributes.iter().find_map(|(name, value)| match (name.as_str(), value) {
        ("value_string", Attribute::String(value)) => Some(("value_string", vec![value.clone()])),
        ("value_strings", Attribute::Strings(values)) => Some(("value_strings", values.clone())),
        _ => None,
    })
}

/// The elements of a sparse tensor among zeros; none where it is of a packed type, or where it and those of the model
/// before it are too large.
fn dense(sparse: &SparseTensor, context: &mut Context) -> Result<Option<Tensor>, AttributeError> {
    let dtype = sparse.values.dtype();
    let width = dtype.n_bits() / 8;
    let n_bytes = n_elements(&sparse.shape).and_then(|n| n.checked_mul(width));
    let (Some(n_bytes), Some(values)) = (n_bytes, sparse.values.bytes()) else {
        return Ok(None);
    };
    if dtype == DType::String || !dtype.n_bits().is_multiple_of(8) {
        return Ok(None);
    }
    let outside = || malformed("sparse_value", "indices inside its shape", "others");
    let rank = if sparse.indices.rank() == 2 { sparse.shape.len() } else { 1 };
    let indices = sparse.indices.as_slice::<i64>().map_err(|_| outside())?;
    if Some(indices.len()) != sparse.values.len().checked_mul(rank) {
        return Err(outside());
    }
    if !context.may_fill(n_bytes) {
        return Ok(None);
    }
    let mut bytes = vec![0u8; n_bytes];
    for (index, value) in indices.chunks(rank.max(1)).zip(values.chunks(width.max(1))) {
        let offset = offset(index, sparse).and_then(|offset| offset.checked_mul(width)).ok_or_else(outside)?;
        let place = bytes.get_mut(offset..).and_then(|rest| rest.get_mut(..width)).ok_or_else(outside)?;
        place.copy_from_slice(value);
    }
    Ok(Tensor::from_bytes(dtype, &sparse.shape, Bytes::from(bytes)).ok())
}

/// Where an element stands in row-major order; none where an index is outside its dimension.
fn offset(index: &[i64], sparse: &SparseTensor) -> Option<usize> {
    if sparse.indices.rank() != 2 {
        return index.first().and_then(|&index| usize::try_from(index).ok());
    }
    index.iter().zip(&sparse.shape).try_fold(0usize, |offset, (&index, &dim)| {
        let index = usize::try_from(index).ok().filter(|&index| index < dim)?;
        offset.checked_mul(dim)?.checked_add(index)
    })
}

fn malformed(name: &'static str, expected: &str, got: &str) -> AttributeError {
    AttributeError::Value { name, expected: expected.to_string(), got: got.to_string() }
}
