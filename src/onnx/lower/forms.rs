//! The form of one node at an older opset: inputs that were attributes, outputs and attributes that were not there yet.
//! Each rule is the inverse of one of `upgrade`.

use bytes::Bytes;

use super::super::raw::{Context, RawAttribute, RawNode, derived, position};
use super::{Problem, Target};
use crate::graph::attribute::Attribute;
use crate::graph::op::{
    Approximate, CoordinateTransformation, Gelu, MICROSOFT, NearestMode, Pad, PadMode, Resize, ResizeMode, Softmax,
};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Name, Node, Op};

type Raw = RawNode<RawAttribute>;
type Written = Result<(), Problem>;

/// (operators, attribute, the first opset in which it may have a value other than its default)
const LATE_ATTRIBUTES: &[(&[&str], &str, u32)] = &[
    (&["ArgMax", "ArgMin"], "select_last_index", 12),
    (&["Attention"], "left_window_size", 25),
    (&["Attention"], "right_window_size", 25),
    (&["AveragePool", "MaxPool"], "ceil_mode", 10),
    (&["AveragePool"], "dilations", 19),
    (&["BatchNormalization"], "training_mode", 14),
    (&["Cast", "CastLike"], "round_mode", 24),
    (&["Cast", "CastLike", "QuantizeLinear"], "saturate", 19),
    (&["DepthToSpace"], "mode", 11),
    (&["DequantizeLinear", "QuantizeLinear"], "axis", 13),
    (&["DequantizeLinear", "QuantizeLinear"], "block_size", 21),
    (&["DequantizeLinear"], "output_dtype", 23),
    (&["GRU", "LSTM", "RNN"], "layout", 14),
    (&["GatherND"], "batch_dims", 12),
    (&["MaxPool"], "dilations", 10),
    (&["MaxPool"], "storage_order", 8),
    (&["QuantizeLinear"], "output_dtype", 21),
    (&["QuantizeLinear"], "precision", 23),
    (&["Range"], "stash_type", 27),
    (&["Reshape"], "allowzero", 14),
    (&["Resize"], "antialias", 18),
    (&["Resize"], "axes", 18),
    (&["Resize"], "keep_aspect_ratio_policy", 18),
    (&["Shape"], "end", 15),
    (&["Shape"], "start", 15),
    (&["SpaceToDepth"], "mode", 28),
    (&["TopK"], "largest", 11),
];

/// (operator, position, the first opset that has the input)
const LATE_INPUTS: &[(&str, usize, u32)] = &[("Attention", 6, 24), ("Pad", 3, 18)];

type Rule = fn(&Node, &mut Raw, Target, &mut Context) -> Written;

/// (operator, the first opset that needs no rule, the rule)
const RULES: &[(&str, u32, Rule)] = &[
    ("AveragePool", 19, pool),
    ("BatchNormalization", 15, batch_normalization),
    ("Clip", 11, clip),
    ("DequantizeLinear", 23, quantize),
    ("Dropout", 12, dropout),
    ("Gather", 11, gather),
    ("Gelu", 20, microsoft_gelu),
    ("Gemm", 11, gemm),
    ("Hardmax", 13, flattened_axis),
    ("LogSoftmax", 13, flattened_axis),
    ("Max", 8, same_shapes),
    ("MaxPool", 10, pool),
    ("Mean", 8, same_shapes),
    ("Min", 8, same_shapes),
    ("Mod", 28, modulus),
    ("Pad", 19, pad),
    ("Pow", 12, pow),
    ("QuantizeLinear", 23, quantize),
    ("ReduceL1", 18, axes),
    ("ReduceL2", 18, axes),
    ("ReduceLogSum", 18, axes),
    ("ReduceLogSumExp", 18, axes),
    ("ReduceMax", 18, axes),
    ("ReduceMean", 18, axes),
    ("ReduceMin", 18, axes),
    ("ReduceProd", 18, axes),
    ("ReduceSum", 13, axes),
    ("ReduceSumSquare", 18, axes),
    ("Reshape", 14, reshape),
    ("Resize", 19, resize),
    ("ScatterElements", 18, reduction),
    ("ScatterND", 18, reduction),
    ("Slice", 10, slice),
    ("Softmax", 13, flattened_axis),
    ("Split", 18, split),
    ("Squeeze", 13, axes),
    ("Sum", 8, same_shapes),
    ("TopK", 11, top_k),
    ("Unsqueeze", 13, axes),
];

/// Brings `raw`, which stands in canonical form, to the form of the target.
pub(super) fn write(node: &Node, raw: &mut Raw, target: Target, context: &mut Context) -> Written {
    if !node.op.domain().is_empty() {
        return Ok(());
    }
    since(node, target)?;
    for &(_, _, rule) in RULES.iter().filter(|&&(name, until, _)| name == node.op.name() && target.opset < until) {
        rule(node, raw, target, context)?;
    }
    late_attributes(raw, target.opset)?;
    for &(_, position, least) in LATE_INPUTS.iter().filter(|row| row.0 == node.op.name() && target.opset < row.2) {
        if let Some(input) = raw.input(position) {
            return Err(Problem::new(least, format!("it has the input `{input}`")));
        }
    }
    if target.opset < 11 && target.opset != target.own_opset {
        count_from_the_front(node, raw, context)?;
    }
    Ok(())
}

/// (operator, the first opset that can say it, where that is not the one that has the name)
const SINCE: &[(&str, u32)] = &[("GroupNormalization", 21), ("Resize", 7), ("Scan", 9), ("ScatterElements", 9)];

fn since(node: &Node, target: Target) -> Written {
    let name = node.op.name();
    let of_microsoft = matches!(node.op, Op::Gelu(Gelu { approximate: Approximate::None })) && target.microsoft;
    let least = match SINCE.iter().find(|(op, _)| *op == name) {
        Some(&(_, least)) => least,
        None if of_microsoft => 1,
        None => node.op.since().unwrap_or(1),
    };
    if target.opset < least { Err(Problem::new(least, "the operator is newer")) } else { Ok(()) }
}

fn late_attributes(raw: &Raw, opset: u32) -> Written {
    let rows = LATE_ATTRIBUTES.iter().filter(|(ops, _, least)| *least > opset && ops.contains(&raw.op_type.as_str()));
    for &(_, name, least) in rows {
        if raw.attributes.iter().any(|(key, _)| key == name) {
            return Err(Problem::new(least, format!("its attribute `{name}` has another value than by default")));
        }
    }
    Ok(())
}

fn remove(raw: &mut Raw, name: &str) {
    raw.attributes.retain(|(key, _)| key != name);
}

fn set(raw: &mut Raw, name: &str, value: Attribute) {
    remove(raw, name);
    raw.attributes.push((name.to_string(), RawAttribute::Plain(value)));
}

/// The integers of a constant input.
fn constant_integers(raw: &Raw, at: usize, what: &str, least: u32, context: &Context) -> Result<Vec<i64>, Problem> {
    let name = raw.input(at).ok_or_else(|| Problem::new(least, format!("it has no `{what}`")))?;
    context.integers(name).ok_or_else(|| not_constant(what, name, least))
}

fn not_constant(what: &str, name: &Name, least: u32) -> Problem {
    Problem::new(
        least,
        format!("its input `{name}` ({what}) is computed or given by the caller, and was an attribute before"),
    )
}

/// The one element of a constant input of floats, if an `f32` holds it.
fn constant_float(raw: &Raw, at: usize, what: &str, least: u32, context: &Context) -> Result<f32, Problem> {
    let name = raw.input(at).ok_or_else(|| Problem::new(least, format!("it has no `{what}`")))?;
    let tensor = context.constant(name).ok_or_else(|| not_constant(what, name, least))?;
    let narrowed = tensor.to_f32s().ok().filter(|values| values.len() == 1).and_then(|values| values.first().copied());
    let kept = |&value: &f32| tensor.as_slice::<f64>().is_ok_and(|wide| wide == [f64::from(value)]);
    narrowed
        .filter(|value| tensor.dtype() != DType::F64 || kept(value))
        .ok_or_else(|| Problem::new(least, format!("its input `{name}` ({what}) is no single number of 32 bits")))
}

fn axes(_node: &Node, raw: &mut Raw, _target: Target, context: &mut Context) -> Written {
    let least = if matches!(raw.op_type.as_str(), "ReduceSum" | "Squeeze" | "Unsqueeze") { 13 } else { 18 };
    let axes = match raw.input(1) {
        Some(_) => constant_integers(raw, 1, "axes", least, context)?,
        None => Vec::new(),
    };
    let noop = raw.attributes.iter().any(|(name, _)| name == "noop_with_empty_axes");
    if axes.is_empty() && noop {
        return Err(Problem::new(least, "without axes it reduces nothing (`noop_with_empty_axes`)"));
    }
    remove(raw, "noop_with_empty_axes");
    raw.inputs.truncate(1);
    if !axes.is_empty() || raw.op_type == "Unsqueeze" {
        set(raw, "axes", Attribute::Ints(axes));
    }
    Ok(())
}

fn batch_normalization(node: &Node, _raw: &mut Raw, target: Target, context: &mut Context) -> Written {
    let opset = target.opset;
    if opset < 14 && node.outputs.iter().skip(1).any(Option::is_some) {
        return Err(Problem::new(14, "its statistics are among its outputs"));
    }
    if opset < 14 {
        return (1..5).try_for_each(|position| same_types(node, position, 14, context));
    }
    same_types(node, 1, 15, context)
}

/// Fails where the input at `position` is of another type than the first.
fn same_types(node: &Node, position: usize, least: u32, context: &Context) -> Written {
    let dtype = |position: usize| node.input(position).and_then(|name| context.known(name).dtype);
    match (dtype(0), dtype(position)) {
        (Some(first), Some(other)) if first != other => {
            Err(Problem::new(least, format!("its inputs are of different types, {first} and {other}")))
        }
        _ => Ok(()),
    }
}

fn pool(node: &Node, raw: &mut Raw, target: Target, _context: &mut Context) -> Written {
    let ones = |attribute: &RawAttribute| matches!(attribute, RawAttribute::Plain(Attribute::Ints(list)) if list.iter().all(|&step| step == 1));
    raw.attributes.retain(|(name, attribute)| name != "dilations" || !ones(attribute));
    if target.opset < 8 && node.output(1).is_some() {
        return Err(Problem::new(8, "its indices are among its outputs"));
    }
    Ok(())
}

fn clip(_node: &Node, raw: &mut Raw, _target: Target, context: &mut Context) -> Written {
    for (position, name) in [(1, "min"), (2, "max")] {
        if raw.input(position).is_some() {
            let limit = constant_float(raw, position, name, 11, context)?;
            set(raw, name, Attribute::Float(limit));
        }
    }
    raw.inputs.truncate(1);
    Ok(())
}

fn quantize(node: &Node, raw: &mut Raw, target: Target, context: &mut Context) -> Written {
    let opset = target.opset;
    let scale = node.input(1).map(|name| context.known(name)).unwrap_or_default();
    let per_tensor = matches!(scale.shape.as_deref(), Some([] | [Dim::Known(1)]));
    if opset < 13 && !per_tensor {
        return Err(Problem::new(13, "its scale is not known to be a single number"));
    }
    if opset < 13 {
        remove(raw, "axis");
    }
    let quantizes = matches!(node.op, Op::QuantizeLinear(_));
    let same = if quantizes { node.input(2).is_some() } else { stated_type(raw) == scale.dtype };
    if same && opset < if quantizes { 21 } else { 23 } {
        remove(raw, "output_dtype");
    }
    if quantizes && opset >= 19 { same_types(node, 1, 23, context) } else { Ok(()) }
}

fn stated_type(raw: &Raw) -> Option<DType> {
    raw.attributes.iter().find(|(name, _)| name == "output_dtype").and_then(|(_, attribute)| match attribute {
        RawAttribute::Plain(Attribute::Int(number)) => i32::try_from(*number).ok().and_then(DType::from_onnx),
        RawAttribute::Plain(_) | RawAttribute::Graph(_) | RawAttribute::Graphs(_) => None,
    })
}

/// In training only opset 12 and later say what is dropped; the seed matters to training alone.
fn dropout(_node: &Node, raw: &mut Raw, target: Target, context: &mut Context) -> Written {
    if let Some(training) = raw.input(2) {
        let off = context.constant(training).and_then(|tensor| tensor.to_vec::<bool>().ok());
        if off.is_none_or(|values| values.contains(&true)) {
            return Err(Problem::new(12, format!("`{training}` may set it to training")));
        }
    }
    if raw.input(1).is_some() {
        let ratio = constant_float(raw, 1, "ratio", 12, context)?;
        set(raw, "ratio", Attribute::Float(ratio));
    }
    remove(raw, "seed");
    raw.inputs.truncate(1);
    let mask = raw.outputs.get(1).is_some_and(Option::is_some);
    let defined = target.own_opset >= 12;
    if !mask || (!defined && target.opset >= 10) {
        return Ok(());
    }
    Err(Problem::new(if defined { 12 } else { 10 }, "its mask was of another type before, or undefined"))
}

/// Indices from the end came with opset 11.
fn gather(node: &Node, _raw: &mut Raw, target: Target, context: &mut Context) -> Written {
    let negative = node.input(1).and_then(|name| context.integers(name)).is_some_and(|all| all.iter().any(|&i| i < 0));
    if negative && target.opset != target.own_opset {
        return Err(Problem::new(11, "its indices count from the end"));
    }
    Ok(())
}

fn microsoft_gelu(_node: &Node, raw: &mut Raw, _target: Target, _context: &mut Context) -> Written {
    raw.domain = MICROSOFT.to_string();
    Ok(())
}

fn gemm(node: &Node, _raw: &mut Raw, _target: Target, _context: &mut Context) -> Written {
    if node.input(2).is_none() { Err(Problem::new(11, "it has no third input")) } else { Ok(()) }
}

fn pow(node: &Node, _raw: &mut Raw, _target: Target, context: &mut Context) -> Written {
    same_types(node, 1, 12, context)
}

/// Up to opset 7 these did not broadcast.
fn same_shapes(node: &Node, _raw: &mut Raw, target: Target, context: &mut Context) -> Written {
    let shapes: Vec<_> = node.inputs.iter().flatten().map(|name| context.known(name).shape).collect();
    let known = shapes.iter().all(|shape| shape.as_ref().is_some_and(|shape| !shape.contains(&Dim::Unknown)));
    let (first, rest) = (shapes.first(), shapes.iter().skip(1));
    let same = known && rest.clone().all(|shape| Some(shape) == first);
    let different = rest.zip(shapes.iter()).any(|(a, b)| {
        let sizes = |shape: &Option<Vec<Dim>>| {
            shape.as_ref().and_then(|dims| dims.iter().map(Dim::known).collect::<Option<Vec<_>>>())
        };
        sizes(a).zip(sizes(b)).is_some_and(|(a, b)| a != b)
    });
    if same || shapes.len() < 2 || (!different && target.opset == target.own_opset) {
        return Ok(());
    }
    Err(Problem::new(8, "its inputs are not known to have the same shape"))
}

fn modulus(node: &Node, raw: &mut Raw, _target: Target, context: &mut Context) -> Written {
    if raw.attributes.iter().any(|(name, _)| name == "fmod") {
        return Ok(());
    }
    match node.input(0).and_then(|name| context.known(name).dtype) {
        Some(dtype) if dtype.is_float() => Err(Problem::new(28, "it takes the floor of a quotient of floats")),
        Some(_) | None => Ok(()),
    }
}

fn pad(node: &Node, raw: &mut Raw, target: Target, context: &mut Context) -> Written {
    let Op::Pad(Pad { mode }) = &node.op else { return Ok(()) };
    if *mode == PadMode::Wrap {
        return Err(Problem::new(19, "it wraps around"));
    }
    if target.opset >= 11 || raw.input(3).is_some() {
        return Ok(());
    }
    let pads = constant_integers(raw, 1, "pads", 11, context)?;
    if raw.input(2).is_some() && *mode == PadMode::Constant {
        let value = constant_float(raw, 2, "constant_value", 11, context)?;
        set(raw, "value", Attribute::Float(value));
    }
    set(raw, "pads", Attribute::Ints(pads));
    raw.inputs.truncate(1);
    Ok(())
}

/// A constant shape without a zero means the same either way.
fn reshape(_node: &Node, raw: &mut Raw, _target: Target, context: &mut Context) -> Written {
    let shape = raw.input(1).and_then(|name| context.integers(name));
    if shape.is_some_and(|shape| !shape.contains(&0)) {
        remove(raw, "allowzero");
    }
    Ok(())
}

fn reduction(_node: &Node, raw: &mut Raw, target: Target, _context: &mut Context) -> Written {
    let stated = raw.attributes.iter().find(|(name, _)| name == "reduction").map(|(_, attribute)| attribute);
    let least = match stated {
        None => 1,
        Some(RawAttribute::Plain(Attribute::String(text))) if matches!(text.as_ref(), b"add" | b"mul") => 16,
        Some(_) => 18,
    };
    if target.opset < least {
        return Err(Problem::new(least, "its reduction is newer"));
    }
    if target.opset < 11 {
        raw.op_type = "Scatter".to_string();
    }
    Ok(())
}

fn slice(_node: &Node, raw: &mut Raw, _target: Target, context: &mut Context) -> Written {
    if raw.input(4).is_some() && constant_integers(raw, 4, "steps", 10, context)?.iter().any(|&step| step != 1) {
        return Err(Problem::new(10, "it takes steps other than 1"));
    }
    for (position, name) in [(1, "starts"), (2, "ends"), (3, "axes")] {
        if position < 3 || raw.input(position).is_some() {
            let values = constant_integers(raw, position, name, 10, context)?;
            set(raw, name, Attribute::Ints(values));
        }
    }
    raw.inputs.truncate(1);
    Ok(())
}

/// Up to opset 12 the input was flattened to two dimensions at the axis, by default 1.
fn flattened_axis(node: &Node, raw: &mut Raw, target: Target, context: &mut Context) -> Written {
    let (Op::Softmax(Softmax { axis }) | Op::LogSoftmax(Softmax { axis }) | Op::Hardmax(Softmax { axis })) = node.op
    else {
        return Ok(());
    };
    let shape = node.input(0).and_then(|name| context.known(name).shape);
    let at = shape.as_ref().and_then(|shape| position(axis, shape.len()));
    let after = shape.as_ref().zip(at).and_then(|(shape, at)| shape.get(at + 1..));
    if axis != -1 && !after.is_some_and(|dims| dims.iter().all(|dim| *dim == Dim::Known(1))) {
        return Err(Problem::new(13, "dimensions after its axis are not known to be of size 1"));
    }
    let from_the_front = at.and_then(|at| i64::try_from(at).ok());
    let axis = match from_the_front {
        Some(at) if target.opset < 11 && target.opset != target.own_opset => at,
        Some(_) | None => axis,
    };
    remove(raw, "axis");
    if axis != 1 {
        set(raw, "axis", Attribute::Int(axis));
    }
    Ok(())
}

fn split(node: &Node, raw: &mut Raw, target: Target, context: &mut Context) -> Written {
    if node.input(1).is_some() && target.opset < 13 {
        let sizes = constant_integers(raw, 1, "split", 13, context)?;
        set(raw, "split", Attribute::Ints(sizes));
        raw.inputs.truncate(1);
    }
    let Op::Split(split) = &node.op else { return Ok(()) };
    let parts = split.num_outputs.filter(|_| node.input(1).is_none());
    let n_outputs = node.outputs.len();
    let shape = node.input(0).and_then(|name| context.known(name).shape);
    let size = shape.and_then(|shape| shape.get(position(split.axis, shape.len())?)?.known());
    let even = match (parts, size) {
        (None, _) => true,
        (Some(parts), _) if usize::try_from(parts) != Ok(n_outputs) => false,
        (Some(_), Some(size)) => size.checked_rem(n_outputs) == Some(0),
        (Some(_), None) => target.own_opset < 18,
    };
    remove(raw, "num_outputs");
    if even { Ok(()) } else { Err(Problem::new(18, "its parts are not known to be of the same size")) }
}

fn top_k(_node: &Node, raw: &mut Raw, target: Target, context: &mut Context) -> Written {
    remove(raw, "sorted");
    if target.opset < 10 {
        match constant_integers(raw, 1, "K", 10, context)?.as_slice() {
            [k] => set(raw, "k", Attribute::Int(*k)),
            _ => return Err(Problem::new(10, "its `K` is not a single number")),
        }
        raw.inputs.truncate(1);
    }
    Ok(())
}

fn resize(node: &Node, raw: &mut Raw, target: Target, context: &mut Context) -> Written {
    let Op::Resize(op) = &node.op else { return Ok(()) };
    if op.coordinate_transformation_mode == CoordinateTransformation::HalfPixelSymmetric {
        return Err(Problem::new(19, "its coordinates are newer"));
    }
    match target.opset {
        13.. => Ok(()),
        11 | 12 => resize_11(raw, target.opset, context),
        _ => resize_10(op, raw, target, context),
    }
}

/// Opset 11 and 12 took the region and the scales even where they said nothing.
fn resize_11(raw: &mut Raw, opset: u32, context: &mut Context) -> Written {
    late_attributes(raw, opset)?;
    for (position, name) in [(1, "roi"), (2, "scales")] {
        if raw.input(position).is_none() {
            let base = derived(&raw.outputs, "Resize", name);
            raw.set_input(position, context.add_constant(&base, Tensor::vector(Vec::<f32>::new())));
        }
    }
    Ok(())
}

/// Resize as it was in opset 10, or Upsample before.
fn resize_10(op: &Resize, raw: &mut Raw, target: Target, context: &Context) -> Written {
    let opset = target.opset;
    let asymmetric = Resize {
        coordinate_transformation_mode: CoordinateTransformation::Asymmetric,
        nearest_mode: op.nearest_mode,
        mode: op.mode,
        ..Resize::default()
    };
    let scales =
        raw.input(2).cloned().filter(|_| *op == asymmetric && raw.input(1).is_none() && raw.input(3).is_none());
    let scales = scales.ok_or_else(|| Problem::new(11, "its coordinates, its rounding or its sizes are newer"))?;
    let values = context.constant(&scales).and_then(|tensor| tensor.to_vec::<f32>().ok());
    let all = |holds: fn(&f32) -> bool| values.as_ref().is_some_and(|values| values.iter().all(holds));
    let grows = all(|&scale| scale >= 1.0) || (values.is_none() && opset == target.own_opset && opset < 10);
    let at_10 = match (op.mode, op.nearest_mode) {
        (ResizeMode::Linear, _) => true,
        (ResizeMode::Nearest, NearestMode::Floor) => grows,
        (ResizeMode::Nearest, NearestMode::Ceil) => all(|&scale| scale <= 1.0),
        (ResizeMode::Nearest, NearestMode::RoundPreferFloor | NearestMode::RoundPreferCeil) => false,
        (ResizeMode::Cubic, _) => false,
    };
    if !at_10 {
        return Err(Problem::new(11, "before, it could not say how it rounds"));
    }
    if opset < 10 && !grows {
        return Err(Problem::new(10, "its scales are not known to be 1 or more"));
    }
    raw.attributes.clear();
    if op.mode == ResizeMode::Linear {
        set(raw, "mode", Attribute::String(Bytes::from_static(b"linear")));
    }
    raw.inputs = vec![raw.input(0).cloned(), Some(scales)];
    if opset < 10 {
        raw.op_type = "Upsample".to_string();
    }
    if opset < 9 {
        let values = values.ok_or_else(|| Problem::new(9, "its scales are computed or given by the caller"))?;
        set(raw, "scales", Attribute::Floats(values));
        raw.inputs.truncate(1);
    }
    Ok(())
}

/// Before opset 11 axes counted from the front. Where the rank is not known, runtimes take them as they are.
fn count_from_the_front(node: &Node, raw: &mut Raw, context: &Context) -> Written {
    let with_axis = ["ArgMax", "ArgMin", "Concat", "Flatten", "Gather", "Hardmax", "LogSoftmax", "Softmax", "Split"];
    let with_axes = ["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"];
    let further = ["ReduceProd", "ReduceSum", "ReduceSumSquare", "Slice", "Squeeze", "Unsqueeze"];
    let op_type = raw.op_type.as_str();
    let one = with_axis.contains(&op_type);
    if !one && !with_axes.contains(&op_type) && !further.contains(&op_type) {
        return Ok(());
    }
    let mut rank = context.rank_of(node.input(0));
    for (name, attribute) in &mut raw.attributes {
        let axes = match attribute {
            RawAttribute::Plain(Attribute::Int(axis)) if one && name == "axis" => std::slice::from_mut(axis),
            RawAttribute::Plain(Attribute::Ints(axes)) if !one && name == "axes" => {
                if raw.op_type == "Unsqueeze" {
                    rank = rank.map(|rank| rank + axes.len());
                }
                axes.as_mut_slice()
            }
            _ => continue,
        };
        for axis in axes.iter_mut().filter(|axis| **axis < 0) {
            let counted = rank.and_then(|rank| position(*axis, rank)).and_then(|axis| i64::try_from(axis).ok());
            *axis = counted.ok_or_else(|| Problem::new(11, "an axis counts from the end of unknown dimensions"))?;
        }
    }
    Ok(())
}
