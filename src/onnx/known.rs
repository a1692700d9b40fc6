//! What a canonical node tells of its outputs while nodes are converted one after the other: element types and numbers
//! of dimensions, and sizes where they are plain. Whoever has a whole graph asks `graph::shape`.

use super::raw::{Context, Known};
use crate::graph::tensor::DType;
use crate::graph::{Dim, Name, Node, Op};

/// Learns what the outputs of this node are.
pub(super) fn learn(node: &Node, context: &mut Context) {
    if let (Op::Constant(constant), Some(output)) = (&node.op, node.output(0)) {
        context.declare_constant(output, &constant.value);
        return;
    }
    let inputs: Vec<Known> =
        node.inputs.iter().map(|name| name.as_ref().map(|name| context.known(name)).unwrap_or_default()).collect();
    let integers = |position: usize| node.input(position).and_then(|name| integers(context, name));
    let known = outputs(&node.op, &Inputs { known: &inputs, integers: &integers });
    for (position, output) in node.outputs.iter().enumerate() {
        let rest_alike = matches!(node.op, Op::Split(_));
        let known = if rest_alike { known.first() } else { known.get(position) };
        if let (Some(output), Some(known)) = (output, known) {
            context.learn(output, known.clone());
        }
    }
}

/// The elements of a constant of integers.
pub(super) fn integers(context: &Context, name: &Name) -> Option<Vec<i64>> {
    let tensor = context.constant(name)?;
    let narrow = || tensor.as_slice::<i32>().map(|values| values.iter().map(|&value| i64::from(value)).collect());
    tensor.to_vec::<i64>().or_else(|_| narrow()).ok()
}

struct Inputs<'a> {
    known: &'a [Known],
    integers: &'a dyn Fn(usize) -> Option<Vec<i64>>,
}

impl Inputs<'_> {
    fn get(&self, position: usize) -> Known {
        self.known.get(position).cloned().unwrap_or_default()
    }

    fn dtype(&self, position: usize) -> Option<DType> {
        self.get(position).dtype
    }

    fn shape(&self, position: usize) -> Option<Vec<Dim>> {
        self.get(position).shape
    }

    fn rank(&self, position: usize) -> Option<usize> {
        self.shape(position).map(|shape| shape.len())
    }

    /// The input's type with a shape.
    fn with_shape(&self, position: usize, shape: Option<Vec<Dim>>) -> Vec<Known> {
        vec![Known { dtype: self.dtype(position), shape }]
    }

    fn with_dtype(&self, position: usize, dtype: Option<DType>) -> Vec<Known> {
        vec![Known { dtype, shape: self.shape(position) }]
    }

    /// The shape that these inputs have when they are broadcast.
    fn broadcast(&self, positions: impl Iterator<Item = usize>) -> Option<Vec<Dim>> {
        positions.map(|position| self.shape(position)).reduce(|a, b| Some(broadcast(&a?, &b?))).flatten()
    }
}

/// What is known of each output.
fn outputs(op: &Op, inputs: &Inputs<'_>) -> Vec<Known> {
    match op {
        Op::Abs
        | Op::Acos
        | Op::Acosh
        | Op::Asin
        | Op::Asinh
        | Op::Atan
        | Op::Atanh
        | Op::Ceil
        | Op::Cos
        | Op::Cosh => {
            vec![inputs.get(0)]
        }
        Op::Erf | Op::Exp | Op::Floor | Op::HardSwish | Op::Identity | Op::Log | Op::Mish | Op::Neg | Op::Not => {
            vec![inputs.get(0)]
        }
        Op::Reciprocal | Op::Relu | Op::Round | Op::Sigmoid | Op::Sign | Op::Sin | Op::Sinh | Op::Softplus => {
            vec![inputs.get(0)]
        }
        Op::Softsign | Op::Sqrt | Op::Tan | Op::Tanh | Op::Clip | Op::Celu(_) | Op::Elu(_) | Op::Swish(_) => {
            vec![inputs.get(0)]
        }
        Op::ThresholdedRelu(_) | Op::LeakyRelu(_) | Op::Selu(_) | Op::HardSigmoid(_) | Op::Gelu(_) | Op::PRelu => {
            vec![inputs.get(0)]
        }
        Op::Softmax(_) | Op::LogSoftmax(_) | Op::Hardmax(_) | Op::BatchNormalization(_) | Op::LRN(_) => {
            vec![inputs.get(0)]
        }
        Op::LayerNormalization(_) | Op::RMSNormalization(_) | Op::GroupNormalization(_) => vec![inputs.get(0)],
        Op::InstanceNormalization(_) | Op::LpNormalization(_) | Op::CumSum(_) | Op::Trilu(_) => vec![inputs.get(0)],
        Op::ScatterElements(_) | Op::ScatterND(_) | Op::FastGelu | Op::BiasGelu | Op::SkipLayerNormalization(_) => {
            vec![inputs.get(0)]
        }
        Op::Dropout(_) => vec![inputs.get(0), Known { dtype: Some(DType::Bool), shape: inputs.shape(0) }],
        Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Pow | Op::Mod(_) => inputs.with_shape(0, inputs.broadcast(0..2)),
        Op::Max | Op::Min | Op::Mean | Op::Sum => inputs.with_shape(0, inputs.broadcast(0..inputs.known.len())),
        Op::And | Op::Or | Op::Xor | Op::Equal | Op::Greater | Op::GreaterOrEqual | Op::Less | Op::LessOrEqual => {
            vec![Known { dtype: Some(DType::Bool), shape: inputs.broadcast(0..2) }]
        }
        Op::Where => vec![Known { dtype: inputs.dtype(1), shape: inputs.broadcast(0..3) }],
        Op::IsNaN | Op::IsInf(_) => inputs.with_dtype(0, Some(DType::Bool)),
        Op::Cast(cast) => inputs.with_dtype(0, Some(cast.to)),
        Op::CastLike(_) => inputs.with_dtype(0, inputs.dtype(1)),
        Op::QuantizeLinear(quantize) => {
            let absent = inputs.known.get(2).is_none().then_some(DType::U8);
            inputs.with_dtype(0, quantize.output_dtype.or(inputs.dtype(2)).or(absent))
        }
        Op::DequantizeLinear(dequantize) => inputs.with_dtype(0, dequantize.output_dtype.or(inputs.dtype(1))),
        Op::DynamicQuantizeLinear => {
            let scalar = |dtype| Known { dtype: Some(dtype), shape: Some(Vec::new()) };
            let quantized = Known { dtype: Some(DType::U8), shape: inputs.shape(0) };
            vec![quantized, scalar(DType::F32), scalar(DType::U8)]
        }
        Op::Conv(_) | Op::ConvTranspose(_) => inputs.with_shape(0, channels_and_windows(inputs, None)),
        Op::ConvInteger(_) => vec![Known { dtype: Some(DType::I32), shape: channels_and_windows(inputs, None) }],
        Op::QLinearConv(_) => vec![Known { dtype: inputs.dtype(7), shape: channels_and_windows(inputs, None) }],
        Op::AveragePool(_) => inputs.with_shape(0, channels_and_windows(inputs, inputs.shape(0))),
        Op::MaxPool(_) => {
            let shape = channels_and_windows(inputs, inputs.shape(0));
            vec![Known { dtype: inputs.dtype(0), shape: shape.clone() }, Known { dtype: Some(DType::I64), shape }]
        }
        Op::GlobalAveragePool | Op::GlobalMaxPool => inputs.with_shape(0, pooled_to_one(inputs.shape(0))),
        Op::Gemm(_) => inputs.with_shape(0, Some(vec![Dim::Unknown; 2])),
        Op::MatMul => inputs.with_shape(0, matrix_product(inputs.rank(0), inputs.rank(1))),
        Op::MatMulInteger => {
            vec![Known { dtype: Some(DType::I32), shape: matrix_product(inputs.rank(0), inputs.rank(1)) }]
        }
        Op::QLinearMatMul => {
            vec![Known { dtype: inputs.dtype(7), shape: matrix_product(inputs.rank(0), inputs.rank(3)) }]
        }
        Op::Flatten(_) => inputs.with_shape(0, Some(vec![Dim::Unknown; 2])),
        Op::Reshape(reshape) => inputs.with_shape(0, reshaped(inputs, reshape.allowzero)),
        Op::Transpose(transpose) => inputs.with_shape(0, transposed(inputs.shape(0), &transpose.perm)),
        Op::Squeeze => inputs.with_shape(0, squeezed(inputs)),
        Op::Unsqueeze => inputs.with_shape(0, unsqueezed(inputs)),
        Op::Concat(_) | Op::Slice | Op::Pad(_) | Op::Split(_) | Op::Tile | Op::Resize(_) | Op::TopK(_) => {
            let mut known = inputs.with_shape(0, unknown(inputs.rank(0)));
            known.push(Known { dtype: Some(DType::I64), shape: unknown(inputs.rank(0)) });
            known
        }
        Op::DepthToSpace(_) | Op::SpaceToDepth(_) => inputs.with_shape(0, Some(vec![Dim::Unknown; 4])),
        Op::Gather(_) => {
            let rank = inputs.rank(0).zip(inputs.rank(1)).and_then(|(data, indices)| (data + indices).checked_sub(1));
            inputs.with_shape(0, unknown(rank))
        }
        Op::GatherElements(_) => inputs.with_shape(0, inputs.shape(1)),
        Op::Expand => {
            let target = (inputs.integers)(1).map(|dims| dims.iter().map(|&dim| size(dim)).collect::<Vec<_>>());
            let target = target.or_else(|| unknown(length(inputs.shape(1))));
            inputs.with_shape(0, inputs.shape(0).zip(target).map(|(a, b)| broadcast(&a, &b)))
        }
        Op::ArgMax(arg) | Op::ArgMin(arg) => {
            let rank = inputs.rank(0).and_then(|rank| rank.checked_sub(usize::from(!arg.keepdims)));
            vec![Known { dtype: Some(DType::I64), shape: unknown(rank) }]
        }
        Op::ReduceL1(r) | Op::ReduceL2(r) | Op::ReduceLogSum(r) | Op::ReduceLogSumExp(r) | Op::ReduceMax(r) => {
            inputs.with_shape(0, reduced(inputs, r.keepdims))
        }
        Op::ReduceMean(r) | Op::ReduceMin(r) | Op::ReduceProd(r) | Op::ReduceSum(r) | Op::ReduceSumSquare(r) => {
            inputs.with_shape(0, reduced(inputs, r.keepdims))
        }
        Op::Shape(shape) => {
            let whole = shape.start == 0 && shape.end.is_none();
            let rank = inputs.rank(0).filter(|_| whole).map_or(Dim::Unknown, Dim::Known);
            vec![Known { dtype: Some(DType::I64), shape: Some(vec![rank]) }]
        }
        Op::Size => vec![Known { dtype: Some(DType::I64), shape: Some(Vec::new()) }],
        Op::ConstantOfShape(constant) => {
            vec![Known { dtype: Some(constant.value.dtype()), shape: unknown(length(inputs.shape(0))) }]
        }
        Op::NonZero => vec![Known { dtype: Some(DType::I64), shape: Some(vec![Dim::Unknown; 2]) }],
        Op::Range(_) => inputs.with_shape(0, Some(vec![Dim::Unknown])),
        Op::OneHot(_) => vec![Known { dtype: inputs.dtype(2), shape: unknown(inputs.rank(0).map(|rank| rank + 1)) }],
        Op::LSTM(_) | Op::GRU(_) | Op::RNN(_) | Op::DynamicQuantizeLSTM(_) => {
            let state = Known { dtype: inputs.dtype(0), shape: Some(vec![Dim::Unknown; 3]) };
            vec![Known { dtype: inputs.dtype(0), shape: Some(vec![Dim::Unknown; 4]) }, state.clone(), state]
        }
        Op::Einsum(_) | Op::GatherND(_) | Op::Attention(_) | Op::MatMulNBits(_) => inputs.with_shape(0, None),
        Op::QGemm(_) | Op::QLinearConcat(_) => Vec::new(),
        Op::QLinearAdd | Op::QLinearMul | Op::QLinearAveragePool(_) | Op::QLinearGlobalAveragePool(_) => {
            inputs.with_shape(0, unknown(inputs.rank(0)))
        }
        Op::QLinearLeakyRelu(_) | Op::QLinearSigmoid | Op::QLinearSoftmax(_) => vec![inputs.get(0)],
        Op::Constant(_) | Op::If(_) | Op::Loop(_) | Op::Scan(_) | Op::Opaque(_) => Vec::new(),
    }
}

fn size(dim: i64) -> Dim {
    usize::try_from(dim).map_or(Dim::Unknown, Dim::Known)
}

fn unknown(rank: Option<usize>) -> Option<Vec<Dim>> {
    const MOST_DIMS: usize = 64;
    rank.filter(|&rank| rank <= MOST_DIMS).map(|rank| vec![Dim::Unknown; rank])
}

/// The length of a list of this shape.
fn length(shape: Option<Vec<Dim>>) -> Option<usize> {
    shape?.first()?.known()
}

fn broadcast(a: &[Dim], b: &[Dim]) -> Vec<Dim> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[Dim], position: usize| {
        (position + shape.len()).checked_sub(rank).and_then(|idx| shape.get(idx).cloned()).unwrap_or(Dim::Known(1))
    };
    let one = Dim::Known(1);
    (0..rank)
        .map(|position| match (dim(a, position), dim(b, position)) {
            (a, b) if a == b => a,
            (a, b) if a == one => b,
            (a, b) if b == one => a,
            (a @ Dim::Known(_), _) => a,
            (_, b @ Dim::Known(_)) => b,
            _ => Dim::Unknown,
        })
        .collect()
}

fn channels_and_windows(inputs: &Inputs<'_>, channels: Option<Vec<Dim>>) -> Option<Vec<Dim>> {
    let mut shape = unknown(inputs.rank(0))?;
    for (position, dim) in shape.iter_mut().enumerate().take(2) {
        let source = if position == 0 { inputs.shape(0) } else { channels.clone() };
        *dim = source.and_then(|shape| shape.get(position).cloned()).unwrap_or(Dim::Unknown);
    }
    Some(shape)
}

fn pooled_to_one(shape: Option<Vec<Dim>>) -> Option<Vec<Dim>> {
    Some(shape?.into_iter().enumerate().map(|(axis, dim)| if axis < 2 { dim } else { Dim::Known(1) }).collect())
}

fn matrix_product(a: Option<usize>, b: Option<usize>) -> Option<Vec<Dim>> {
    let rank = match (a?, b?) {
        (1, 1) => 0,
        (1, rank) | (rank, 1) => rank.checked_sub(1)?,
        (a, b) => a.max(b),
    };
    unknown(Some(rank))
}

fn reshaped(inputs: &Inputs<'_>, allowzero: bool) -> Option<Vec<Dim>> {
    let Some(target) = (inputs.integers)(1) else {
        return unknown(length(inputs.shape(1)));
    };
    let source = inputs.shape(0);
    let dim = |(position, &dim): (usize, &i64)| match dim {
        0 if !allowzero => source.as_ref().and_then(|shape| shape.get(position).cloned()).unwrap_or(Dim::Unknown),
        dim => size(dim),
    };
    Some(target.iter().enumerate().map(dim).collect())
}

fn transposed(shape: Option<Vec<Dim>>, perm: &[i64]) -> Option<Vec<Dim>> {
    let shape = shape?;
    if perm.is_empty() {
        return Some(shape.into_iter().rev().collect());
    }
    perm.iter().map(|&axis| shape.get(usize::try_from(axis).ok()?).cloned()).collect()
}

fn squeezed(inputs: &Inputs<'_>) -> Option<Vec<Dim>> {
    let shape = inputs.shape(0)?;
    let axes = positions(&(inputs.integers)(1)?, shape.len())?;
    Some(shape.into_iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim).collect())
}

fn unsqueezed(inputs: &Inputs<'_>) -> Option<Vec<Dim>> {
    let (mut shape, axes) = (inputs.shape(0)?, (inputs.integers)(1)?);
    let mut axes = positions(&axes, shape.len() + axes.len())?;
    axes.sort_unstable();
    for axis in axes {
        if axis > shape.len() {
            return None;
        }
        shape.insert(axis, Dim::Known(1));
    }
    Some(shape)
}

fn reduced(inputs: &Inputs<'_>, keepdims: bool) -> Option<Vec<Dim>> {
    let shape = inputs.shape(0)?;
    let given = inputs.known.get(1).is_some();
    if keepdims {
        return unknown(Some(shape.len()));
    }
    let axes = if given { (inputs.integers)(1)? } else { return None };
    unknown(shape.len().checked_sub(axes.len()).filter(|_| !axes.is_empty()))
}

/// Axes counted from the front; none where one is out of range.
pub(super) fn positions(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    axes.iter().map(|&axis| position(axis, rank)).collect()
}

/// An axis counted from the front; none where it is out of range.
pub(super) fn position(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 { axis + rank } else { axis };
    usize::try_from(axis).ok().filter(|_| axis < rank)
}
