//! Programs: a network for one set of input shapes as a list of primitives over values of static shape.
//!
//! About fifty primitives stand for all of ONNX's floating-point operators, so that a backend and the rules of
//! differentiation have fifty cases and not two hundred. A program is data: it is emitted, differentiated, fused and planned
//! before anything runs.

use std::sync::Arc;

use super::quantization::Quantization;
use crate::graph::op::Cast;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Name, Op};
use crate::learn::kernels::elementwise::{Binary, Side, Unary};

/// A value of a program, by position.
pub(crate) type Id = usize;

/// What kind of elements a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Numbers to compute with, in the element type of the backend.
    Float,
    /// Positions, made and read by primitives only.
    Index,
    /// Anything else, as the graph has it: integers, truth values, strings.
    Plain(DType),
}

/// What is known of a value before anything runs.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) kind: Kind,
    pub(crate) shape: Vec<usize>,
    pub(crate) source: Source,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// What the caller gives: the position in [`Program::inputs`].
    Input(usize),
    /// What is kept from run to run: the position in [`Program::parameters`].
    Parameter(usize),
    /// The same in every run.
    Constant(Tensor),
    /// A step computes it.
    Step,
}

/// One primitive at work.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) primitive: Primitive,
    pub(crate) inputs: Vec<Id>,
    pub(crate) outputs: Vec<Id>,
    /// The node that it stands for, by position in [`Program::origins`].
    pub(crate) origin: usize,
}

/// What a reduction makes of the elements of its axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
}

/// A convolution's window, spatial axis by spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConvWindow {
    pub(crate) strides: Vec<usize>,
    pub(crate) dilations: Vec<usize>,
    /// Positions added before the first and after the last.
    pub(crate) pads: Vec<(usize, usize)>,
    pub(crate) groups: usize,
}

/// A pooling's window, spatial axis by spatial axis. How often it fits is told by the output's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolWindow {
    pub(crate) kernel: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) dilations: Vec<usize>,
    pub(crate) pads: Vec<(usize, usize)>,
}

/// A linear map along one axis, as the few input positions that each output position sums, and their weights.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AxisMap {
    pub(crate) n_in: usize,
    /// By output position.
    pub(crate) terms: Vec<Vec<(usize, f64)>>,
}

impl AxisMap {
    /// The map that carries gradients back.
    pub(crate) fn transposed(&self) -> AxisMap {
        let mut terms = vec![Vec::new(); self.n_in];
        for (out_idx, from) in self.terms.iter().enumerate() {
            for &(in_idx, weight) in from {
                terms[in_idx].push((out_idx, weight));
            }
        }
        AxisMap { n_in: self.terms.len(), terms }
    }
}

/// What a backend can do. Shapes are those of the values; `[…]` lists inputs, `→` outputs.
#[derive(Clone, Debug)]
pub(crate) enum Primitive {
    /// `[x] → y`
    Unary(Unary),
    /// `[x or y, dy] → dx`, or `[dy] → dx`, as [`Unary::needs`] says.
    UnaryGradient(Unary),
    /// `[a, b] → y` with ONNX's broadcasting.
    Binary(Binary),
    /// `[a, b, dy] → d`: the gradient of one side, of the shape of `dy`.
    BinaryGradient(Binary, Side),
    /// `[a, b] → y`: 1 where the two are equal, else 0, with ONNX's broadcasting.
    Equal,
    /// `[x] → y`, the axes kept with length 1.
    Reduce(Reduction, Vec<usize>),
    /// `[x] → y`: axes of length 1 repeated, and new ones in front, as ONNX broadcasts.
    Expand,
    /// `[x] → y`: the same elements in the same order.
    Reshape,
    /// `[x] → y`: axis `i` of the output is axis `permutation[i]` of the input.
    Transpose(Vec<usize>),
    /// `[x] → y`: element `i` along an axis comes from `start + i · step`.
    Slice { starts: Vec<usize>, steps: Vec<isize> },
    /// `[dy] → dx`: where [`Primitive::Slice`] took from, and zero elsewhere.
    SliceGradient { starts: Vec<usize>, steps: Vec<isize> },
    /// `[x…] → y`
    Concat(usize),
    /// `[x] → y`: a constant around it; the numbers of elements before each axis. What comes after is told by the shapes.
    Pad { begins: Vec<usize>, value: f64 },
    /// `[x] → y`
    MapAxis(usize, Arc<AxisMap>),
    /// `[x, indices] → y`: slices of `x` along the axis; `indices` is plain `i64`, negative ones count from the end.
    Gather(usize),
    /// `[dy, indices] → dx`: what was gathered more than once is summed.
    GatherGradient(usize),
    /// `[x, indices, updates] → y`: `x` with the elements of its first axis that `indices` names replaced; the last
    /// of equal indices stays.
    ScatterRows,
    /// `[x, axis] → y` summed up along an axis.
    CumSum { axis: usize, exclusive: bool, reverse: bool },
    /// `[a, b] → y`: products of matrices, those of either side transposed first; batch axes broadcast.
    MatMul { transpose_a: bool, transpose_b: bool },
    /// `[x, weight, bias] → relu(x · weight + bias)`; `x` of shape `[…, k]`, `weight` of `[k, n]`, or of `[n, k]` if
    /// transposed.
    Linear { transposed: bool, relu: bool },
    /// `[x, weight] → y` or `[x, weight, bias] → y`
    Conv(ConvWindow),
    /// `[dy, weight] → dx`: the transposed convolution.
    ConvInputGradient(ConvWindow),
    /// `[x, dy] → dw`
    ConvWeightGradient(ConvWindow),
    /// `[x] → y, positions`
    MaxPool(PoolWindow),
    /// `[dy, positions] → dx`
    MaxPoolGradient(PoolWindow),
    /// `[x] → y`
    AveragePool { window: PoolWindow, count_padding: bool },
    /// `[dy] → dx`
    AveragePoolGradient { window: PoolWindow, count_padding: bool },
    /// `[x] → y` along an axis.
    Softmax(usize),
    /// `[y, dy] → dx`
    SoftmaxGradient(usize),
    /// `[x] → y` along an axis.
    LogSoftmax(usize),
    /// `[y, dy] → dx`
    LogSoftmaxGradient(usize),
    /// `[x, scale] → y, mean, inverse standard deviation`, or with a bias as third input; over the axes from this one on.
    LayerNorm { axis: usize, epsilon: f64 },
    /// `[x, scale, mean, inverse standard deviation, dy] → dx, dscale, dbias`
    LayerNormGradient { axis: usize },
    /// `[x, scale, bias] → y, mean, inverse standard deviation, variance` over all axes but the second; `relu` is
    /// applied to `y`.
    BatchNorm { epsilon: f64, relu: bool },
    /// `[x, scale, bias, mean, inverse standard deviation, dy] → dx, dscale, dbias`; with `relu` also reads `y`, last.
    BatchNormGradient { relu: bool },
    /// `[condition, a, b] → y`; the condition is plain `bool`.
    Where,
    /// `[q, k, v] → y, probabilities` or with an additive mask as fourth input; all of shape
    /// `[batch, tokens, heads · size]`, the probabilities `[batch, heads, tokens, tokens]`.
    Attention { n_heads: usize, scale: f64 },
    /// `[q, k, v, probabilities, dy] → dq, dk, dv`
    AttentionGradient { n_heads: usize, scale: f64 },
    /// `[sums, recurrent, h] → h', gates`: a step of a GRU that resets after the product; `sums` from the input and `recurrent`
    /// from the state are `[batch, 3 · hidden]`.
    GruCell,
    /// `[gates, recurrent, h, dh'] → dsums, drecurrent, dh`
    GruCellGradient,
    /// `[sums, recurrent, c] → h', c', gates`: a step of an LSTM; `sums` and `recurrent` are `[batch, 4 · hidden]`.
    LstmCell,
    /// `[gates, c, c', dh', dc'] → dsums, dc`; what `recurrent` gets is the same as `sums`.
    LstmCellGradient,
    /// `[x] → y, mask`: elements at random to zero, the others enlarged; the mask holds the factors. `stream` tells one
    /// dropout from the others.
    Dropout { ratio: f64, stream: u64 },
    /// `[x] → y`: rounded to a number of a narrower floating-point type, as the cast to it does. The gradient passes as if
    /// nothing were rounded.
    RoundTo(Cast),
    /// `[x, scale, zero point] → y`: quantized and dequantized; scale and zero point of shape `[n]`, `n` being 1 where one is for
    /// all.
    FakeQuantize(Quantization),
    /// `[x, scale, zero point, dy] → dx`
    FakeQuantizeGradient(Quantization),
    /// `[x, scale, zero point, dy] → d`: what each element adds to the gradient of its scale, of the shape of `dy`.
    FakeQuantizeScaleGradient(Quantization),
    /// `[plain] → y`: integers and truth values as numbers to compute with.
    FromPlain,
    /// The reference interpreter's word for the operator, on values of any kind; `present` tells which of its inputs are given.
    Reference { op: Box<Op>, present: Vec<bool> },
}

/// A network for one set of input shapes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub(crate) values: Vec<Value>,
    pub(crate) steps: Vec<Step>,
    /// What the caller gives.
    pub(crate) inputs: Vec<(Name, Id)>,
    /// What is kept from run to run.
    pub(crate) parameters: Vec<(Name, Id)>,
    /// What the caller asked for, in order.
    pub(crate) outputs: Vec<(Name, Id)>,
    /// Gradients of the loss, in the order in which they were asked for.
    pub(crate) gradients: Vec<(Name, Id)>,
    /// What parameters become after a run in training mode: running statistics.
    pub(crate) updates: Vec<(Name, Id)>,
    /// The labels of the nodes that steps stand for.
    pub(crate) origins: Vec<String>,
}

impl Program {
    pub(crate) fn shape(&self, id: Id) -> &[usize] {
        &self.values[id].shape
    }

    pub(crate) fn n_elements(&self, id: Id) -> usize {
        self.values[id].shape.iter().product()
    }

    /// The label of the node that a step stands for.
    pub(crate) fn origin(&self, step: &Step) -> &str {
        &self.origins[step.origin]
    }
}
