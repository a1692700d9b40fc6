//! Operators and forms that an older opset lacks, computed by those that it has. What comes out is canonical again, and
//! lowered in turn. Every case computes the same values up to the rounding of the operators that it is made of.

use half::{bf16, f16};

use super::super::raw::{Context, derived, position};
use super::normalization;
use crate::graph::op::{Approximate, Cast, Gelu, HardSigmoid, RoundMode, Shape, Split, Transpose};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Name, Node, Op};

type Rule = fn(&Node, &mut Parts<'_>) -> Option<()>;

const RULES: &[(&str, Rule)] = &[
    ("CastLike", cast_like),
    ("Celu", celu),
    ("Constant", initializer),
    ("GRU", layout),
    ("Gelu", gelu),
    ("Gemm", gemm),
    ("GreaterOrEqual", or_equal),
    ("GroupNormalization", normalization::group),
    ("HardSwish", hard_swish),
    ("Hardmax", last_axis),
    ("LSTM", layout),
    ("LayerNormalization", normalization::layer),
    ("LessOrEqual", or_equal),
    ("LogSoftmax", last_axis),
    ("Mean", mean),
    ("Mish", mish),
    ("Pad", pad_all_axes),
    ("QuantizeLinear", zero_point),
    ("RMSNormalization", normalization::root_mean_square),
    ("RNN", layout),
    ("ReduceMax", noop),
    ("ReduceMean", noop),
    ("ReduceMin", noop),
    ("ReduceProd", noop),
    ("ReduceSum", noop),
    ("Resize", resize_all_axes),
    ("Shape", shape),
    ("Softmax", last_axis),
    ("Split", split),
    ("Sum", sum),
    ("Swish", swish),
];

/// Nodes that compute what `node` does without the form for which it was refused; none where there is no such way, or
/// where what it takes is not known of its inputs.
pub(super) fn decompose(node: &Node, context: &mut Context) -> Option<Vec<Node>> {
    let (_, rule) = RULES.iter().find(|(name, _)| *name == node.op.name() && node.op.domain().is_empty())?;
    let n_added = context.n_added();
    let mut parts = Parts { node, context, nodes: Vec::new() };
    if rule(node, &mut parts).is_some() {
        return Some(parts.nodes);
    }
    context.take_back(n_added);
    None
}

/// The nodes that take the place of one.
pub(super) struct Parts<'a> {
    node: &'a Node,
    pub(super) context: &'a mut Context,
    nodes: Vec<Node>,
}

impl Parts<'_> {
    /// An inner node with a new output.
    pub(super) fn inner(&mut self, op: Op, inputs: &[&Name], suffix: &str) -> Name {
        let output = self.context.fresh(&derived(&self.node.outputs, self.node.op.name(), suffix));
        self.push(op, inputs, &output);
        output
    }

    fn push(&mut self, op: Op, inputs: &[&Name], output: &Name) {
        let inputs = inputs.iter().map(|&name| Some(name.clone())).collect();
        self.nodes.push(Node::new(op, inputs, vec![Some(output.clone())]));
    }

    /// The node that makes an output of the original; the first output's keeps its name and notes.
    pub(super) fn last(&mut self, op: Op, inputs: &[&Name], position: usize) -> Option<()> {
        let output = self.node.output(position)?.clone();
        self.push(op, inputs, &output);
        if let (0, Some(node)) = (position, self.nodes.last_mut()) {
            node.name.clone_from(&self.node.name);
            node.notes.clone_from(&self.node.notes);
        }
        Some(())
    }

    /// The original in another form.
    fn keep(&mut self, op: Op, inputs: Vec<Option<Name>>, outputs: Vec<Option<Name>>) {
        self.nodes.push(Node { op, inputs, outputs, ..self.node.clone() });
    }

    pub(super) fn constant(&mut self, tensor: Tensor, suffix: &str) -> Name {
        self.context.add_constant(&derived(&self.node.outputs, self.node.op.name(), suffix), tensor)
    }

    /// A constant number of this type.
    pub(super) fn number(&mut self, value: f64, dtype: DType, suffix: &str) -> Option<Name> {
        let tensor = scalar(value, dtype)?;
        Some(self.constant(tensor, suffix))
    }

    pub(super) fn dtype(&self, name: &Name) -> Option<DType> {
        self.context.known(name).dtype
    }

    pub(super) fn cast(&mut self, name: &Name, to: DType, suffix: &str) -> Name {
        self.inner(Op::Cast(Cast { to, saturate: true, round_mode: RoundMode::Up }), &[name], suffix)
    }
}

/// A float of the types in which activations are computed.
fn scalar(value: f64, dtype: DType) -> Option<Tensor> {
    match dtype {
        DType::F64 => Some(Tensor::scalar(value)),
        DType::F32 => Tensor::scalar(value).to_f32s().ok()?.first().copied().map(Tensor::scalar),
        DType::F16 => Some(Tensor::scalar(f16::from_f64(value))),
        DType::BF16 => Some(Tensor::scalar(bf16::from_f64(value))),
        DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::I2 => None,
        DType::U64 | DType::U32 | DType::U16 | DType::U8 | DType::U4 | DType::U2 => None,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => None,
        DType::F6E2M3 | DType::F6E3M2 => None,
        DType::Bool | DType::String | DType::Complex64 | DType::Complex128 => None,
    }
}

fn cast_like(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let Op::CastLike(op) = &node.op else { return None };
    let to = parts.dtype(node.input(1)?)?;
    let cast = Cast { to, saturate: op.saturate, round_mode: op.round_mode };
    parts.last(Op::Cast(cast), &[node.input(0)?], 0)
}

/// A constant among the initializers, which may be of every type.
fn initializer(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let Op::Constant(op) = &node.op else { return None };
    parts.context.place_constant(node.output(0)?, op.value.clone());
    Some(())
}

/// `alpha * Elu(x / alpha)`, as ONNX defines it.
fn celu(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (Op::Celu(op), x) = (&node.op, node.input(0)?) else { return None };
    let alpha = parts.number(op.alpha.into(), parts.dtype(x)?, "alpha")?;
    let scaled = parts.inner(Op::Div, &[x, &alpha], "scaled");
    let elu = parts.inner(Op::Elu(crate::graph::op::Alpha { alpha: 1.0 }), &[&scaled], "elu");
    parts.last(Op::Mul, &[&alpha, &elu], 0)
}

/// `x / 2 * (1 + erf(x / √2))`, or `x / 2 * (1 + tanh(√(2/π) * (x + 0.044715 * x³)))`.
fn gelu(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (Op::Gelu(Gelu { approximate }), x) = (&node.op, node.input(0)?) else { return None };
    let dtype = parts.dtype(x)?;
    let half = parts.number(0.5, dtype, "half")?;
    let one = parts.number(1.0, dtype, "one")?;
    let bent = match approximate {
        Approximate::None => {
            let root = parts.number(std::f64::consts::SQRT_2, dtype, "root")?;
            let scaled = parts.inner(Op::Div, &[x, &root], "scaled");
            parts.inner(Op::Erf, &[&scaled], "erf")
        }
        Approximate::Tanh => {
            let factor = parts.number(0.044715, dtype, "factor")?;
            let root = parts.number((2.0 / std::f64::consts::PI).sqrt(), dtype, "root")?;
            let square = parts.inner(Op::Mul, &[x, x], "square");
            let cube = parts.inner(Op::Mul, &[&square, x], "cube");
            let weighted = parts.inner(Op::Mul, &[&factor, &cube], "weighted");
            let total = parts.inner(Op::Add, &[x, &weighted], "total");
            let scaled = parts.inner(Op::Mul, &[&root, &total], "scaled");
            parts.inner(Op::Tanh, &[&scaled], "tanh")
        }
    };
    let gate = parts.inner(Op::Add, &[&bent, &one], "gate");
    let product = parts.inner(Op::Mul, &[x, &gate], "product");
    parts.last(Op::Mul, &[&product, &half], 0)
}

/// The sum with a third input of zero.
fn gemm(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let dtype = parts.dtype(a).or_else(|| parts.dtype(b))?;
    if node.input(2).is_some() {
        return None;
    }
    let zero = parts.constant(Tensor::zeros(dtype, &[1]).ok()?, "C");
    parts.keep(node.op.clone(), vec![Some(a.clone()), Some(b.clone()), Some(zero)], node.outputs.clone());
    Some(())
}

/// Greater or equal, which unlike "not less" is false of NaN.
fn or_equal(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    let strictly = if matches!(node.op, Op::GreaterOrEqual) { Op::Greater } else { Op::Less };
    let strictly = parts.inner(strictly, &[a, b], "strictly");
    let equal = parts.inner(Op::Equal, &[a, b], "equal");
    parts.last(Op::Or, &[&strictly, &equal], 0)
}

fn hard_swish(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let x = node.input(0)?;
    let gate = parts.inner(Op::HardSigmoid(HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }), &[x], "gate");
    parts.last(Op::Mul, &[x, &gate], 0)
}

fn mish(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let x = node.input(0)?;
    let softplus = parts.inner(Op::Softplus, &[x], "softplus");
    let gate = parts.inner(Op::Tanh, &[&softplus], "gate");
    parts.last(Op::Mul, &[x, &gate], 0)
}

fn swish(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (Op::Swish(op), x) = (&node.op, node.input(0)?) else { return None };
    let scaled = if op.alpha == 1.0 {
        x.clone()
    } else {
        let alpha = parts.number(op.alpha.into(), parts.dtype(x)?, "alpha")?;
        parts.inner(Op::Mul, &[&alpha, x], "scaled")
    };
    let gate = parts.inner(Op::Sigmoid, &[&scaled], "gate");
    parts.last(Op::Mul, &[x, &gate], 0)
}

/// Reducing nothing is the identity where the operator does nothing else to the elements.
fn noop(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let none = node.input(1).is_none_or(|name| parts.context.integers(name).is_some_and(|axes| axes.is_empty()));
    let stays = node.op.attributes().iter().any(|(name, _)| name == "noop_with_empty_axes");
    if none && stays { parts.last(Op::Identity, &[node.input(0)?], 0) } else { None }
}

/// The whole shape, then a slice of it; both clamp what reaches outside.
fn shape(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (Op::Shape(op), x) = (&node.op, node.input(0)?) else { return None };
    let whole = parts.inner(Op::Shape(Shape { start: 0, end: None }), &[x], "whole");
    let start = parts.constant(Tensor::vector(vec![op.start]), "start");
    let end = parts.constant(Tensor::vector(vec![op.end.unwrap_or(i64::MAX)]), "end");
    if op.start == 0 && op.end.is_none() {
        return None;
    }
    parts.last(Op::Slice, &[&whole, &start, &end], 0)
}

/// With the axis moved to the end.
fn last_axis(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let x = node.input(0)?;
    let axis = node.op.attributes().iter().find_map(|(name, value)| match value {
        crate::graph::attribute::Attribute::Int(axis) if name == "axis" => Some(*axis),
        _ => None,
    })?;
    let rank = parts.context.rank(x)?;
    let (axis, last) = (position(axis, rank)?, rank.checked_sub(1)?);
    if axis == last {
        return None;
    }
    let at_the_end = crate::graph::op::Softmax { axis: -1 };
    let op = match node.op.name() {
        "Softmax" => Op::Softmax(at_the_end),
        "LogSoftmax" => Op::LogSoftmax(at_the_end),
        "Hardmax" => Op::Hardmax(at_the_end),
        _ => return None,
    };
    let mut perm: Vec<i64> = (0..rank).map(i64::try_from).collect::<Result<_, _>>().ok()?;
    perm.swap(axis, last);
    let swap = Op::Transpose(Transpose { perm });
    let swapped = parts.inner(swap.clone(), &[x], "swapped");
    let result = parts.inner(op, &[&swapped], "result");
    parts.last(swap, &[&result], 0)
}

/// One addition after the other: only those broadcast up to opset 7.
fn sum(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let inputs: Vec<&Name> = node.inputs.iter().flatten().collect();
    let ([first, between @ .., last], 2..) = (inputs.as_slice(), inputs.len()) else { return None };
    let total = between.iter().fold((*first).clone(), |total, name| parts.inner(Op::Add, &[&total, name], "partial"));
    parts.last(Op::Add, &[&total, last], 0)
}

fn mean(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let inputs: Vec<&Name> = node.inputs.iter().flatten().collect();
    let (first, rest) = inputs.split_first()?;
    let n_inputs = u32::try_from(inputs.len()).ok()?;
    let n_inputs = parts.number(n_inputs.into(), parts.dtype(first)?, "count")?;
    let total = rest.iter().fold((*first).clone(), |total, name| parts.inner(Op::Add, &[&total, name], "partial"));
    parts.last(Op::Div, &[&total, &n_inputs], 0)
}

/// A zero point says the type that `output_dtype` does.
fn zero_point(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let Op::QuantizeLinear(op) = &node.op else { return None };
    let (x, scale) = (node.input(0)?, node.input(1)?);
    let shape = parts.context.known(scale).shape?.iter().map(Dim::known).collect::<Option<Vec<_>>>()?;
    if node.input(2).is_some() {
        return None;
    }
    let zero = parts.constant(Tensor::zeros(op.output_dtype?, &shape).ok()?, "zero_point");
    let op = crate::graph::op::QuantizeLinear { output_dtype: None, ..op.clone() };
    let inputs = vec![Some(x.clone()), Some(scale.clone()), Some(zero)];
    parts.keep(Op::QuantizeLinear(op), inputs, node.outputs.clone());
    Some(())
}

/// Parts of stated sizes, the last one smaller.
fn split(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (Op::Split(op), x) = (&node.op, node.input(0)?) else { return None };
    let shape = parts.context.known(x).shape?;
    let size = i64::try_from(shape.get(position(op.axis, shape.len())?)?.known()?).ok()?;
    let n_parts = op.num_outputs.filter(|&parts| parts > 0 && node.input(1).is_none())?;
    let each = size.checked_add(n_parts - 1)? / n_parts;
    let n_outputs = i64::try_from(node.outputs.len()).ok().filter(|&n_outputs| n_outputs == n_parts)?;
    let sizes: Vec<i64> = (0..n_outputs).map(|part| (size - part * each).clamp(0, each)).collect();
    let sizes = parts.constant(Tensor::vector(sizes), "split");
    let op = Op::Split(Split { axis: op.axis, num_outputs: None });
    parts.keep(op, vec![Some(x.clone()), Some(sizes)], node.outputs.clone());
    Some(())
}

/// Pads for every axis in place of those for some.
fn pad_all_axes(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (x, pads, axes) = (node.input(0)?, node.input(1)?, node.input(3)?);
    let rank = parts.context.rank(x)?;
    let (pads, axes) = (parts.context.integers(pads)?, parts.context.integers(axes)?);
    let mut all = vec![0i64; rank * 2];
    for (idx, &axis) in axes.iter().enumerate() {
        let axis = position(axis, rank)?;
        *all.get_mut(axis)? = *pads.get(idx)?;
        *all.get_mut(axis + rank)? = *pads.get(idx + axes.len())?;
    }
    let all = parts.constant(Tensor::vector(all), "pads");
    let value = node.input(2).map(|value| Some(value.clone()));
    let inputs = [Some(x.clone()), Some(all)].into_iter().chain(value).collect();
    parts.keep(node.op.clone(), inputs, node.outputs.clone());
    Some(())
}

/// Scales for every axis in place of those for some.
fn resize_all_axes(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let (Op::Resize(op), x, scales) = (&node.op, node.input(0)?, node.input(2)?) else { return None };
    let rank = parts.context.rank(x)?;
    let scales = parts.context.constant(scales)?.to_vec::<f32>().ok()?;
    if op.axes.is_empty() || node.input(1).is_some() || node.input(3).is_some() {
        return None;
    }
    let mut all = vec![1f32; rank];
    for (idx, &axis) in op.axes.iter().enumerate() {
        *all.get_mut(position(axis, rank)?)? = *scales.get(idx)?;
    }
    let all = parts.constant(Tensor::vector(all), "scales");
    let op = crate::graph::op::Resize { axes: Vec::new(), ..op.clone() };
    parts.keep(Op::Resize(op), vec![Some(x.clone()), None, Some(all)], node.outputs.clone());
    Some(())
}

/// Batch first, said by transposing what goes in and what comes out.
fn layout(node: &Node, parts: &mut Parts<'_>) -> Option<()> {
    let mut op = node.op.clone();
    let layout = if let Op::GRU(op) = &mut op {
        &mut op.layout
    } else if let Op::LSTM(op) = &mut op {
        &mut op.layout
    } else if let Op::RNN(op) = &mut op {
        &mut op.layout
    } else {
        return None;
    };
    if std::mem::take(layout) != 1 {
        return None;
    }
    let swap = || Op::Transpose(Transpose { perm: vec![1, 0, 2] });
    let mut inputs = node.inputs.clone();
    for position in [0, 5, 6] {
        if let Some(Some(input)) = inputs.get_mut(position) {
            *input = parts.inner(swap(), &[input], "swapped");
        }
    }
    let mut outputs = Vec::new();
    for output in &node.outputs {
        outputs.push(output.as_ref().map(|name| parts.context.fresh(&format!("{name}_swapped"))));
    }
    parts.keep(op, inputs, outputs.clone());
    for (idx, (inner, outer)) in outputs.iter().zip(&node.outputs).enumerate() {
        let back = if idx == 0 { Op::Transpose(Transpose { perm: vec![2, 0, 1, 3] }) } else { swap() };
        if let (Some(inner), Some(outer)) = (inner, outer) {
            parts.push(back, &[inner], outer);
        }
    }
    Some(())
}
