//! Emitting primitives: each call adds a step and says what shape comes of it.
//!
//! The shapes given here come from a graph whose types were inferred, or from other values of the program, so they fit by
//! construction; an operator's own conditions are checked where it is lowered.

use std::collections::HashMap;
use std::sync::Arc;

use super::program::{AxisMap, ConvWindow, Id, Kind, PoolWindow, Primitive, Program, Reduction, Source, Step, Value};
use super::quantization::Quantization;
use crate::graph::Op;
use crate::graph::op::Cast;
use crate::graph::tensor::{DType, Tensor};
use crate::learn::kernels::broadcast_shape;
use crate::learn::kernels::elementwise::{Binary, Needs, Side, Unary};

/// A program in the making.
#[derive(Debug, Default)]
pub(crate) struct Emitter {
    pub(crate) program: Program,
    /// The node that the next steps stand for.
    origin: usize,
    scalars: HashMap<u64, Id>,
    /// By matrix that was made by transposing one: that one.
    untransposed: HashMap<Id, Id>,
}

impl Emitter {
    /// What is emitted from here on stands for this node.
    pub(crate) fn begin(&mut self, label: String) {
        self.origin = self.program.origins.len();
        self.program.origins.push(label);
    }

    /// What is emitted from here on stands for the same node as that step.
    pub(crate) fn resume(&mut self, step: &Step) {
        self.origin = step.origin;
    }

    pub(crate) fn shape(&self, id: Id) -> &[usize] {
        self.program.shape(id)
    }

    pub(crate) fn rank(&self, id: Id) -> usize {
        self.program.shape(id).len()
    }

    pub(crate) fn kind(&self, id: Id) -> Kind {
        self.program.values[id].kind
    }

    pub(crate) fn value(&mut self, kind: Kind, shape: Vec<usize>, source: Source) -> Id {
        self.program.values.push(Value { kind, shape, source });
        self.program.values.len() - 1
    }

    /// The same in every run; floating-point tensors of any type are numbers to compute with.
    pub(crate) fn constant(&mut self, tensor: Tensor) -> Id {
        let kind = kind_of(tensor.dtype());
        self.value(kind, tensor.shape().to_vec(), Source::Constant(tensor))
    }

    /// One number, of no dimensions.
    pub(crate) fn scalar(&mut self, number: f64) -> Id {
        match self.scalars.get(&number.to_bits()) {
            Some(&id) => id,
            None => {
                let id = self.constant(Tensor::scalar(number));
                self.scalars.insert(number.to_bits(), id);
                id
            }
        }
    }

    /// A step of any kind; the shape and kind of each output is given.
    pub(crate) fn step(&mut self, primitive: Primitive, inputs: Vec<Id>, outputs: Vec<(Kind, Vec<usize>)>) -> Vec<Id> {
        let outputs: Vec<Id> = outputs.into_iter().map(|(kind, shape)| self.value(kind, shape, Source::Step)).collect();
        self.program.steps.push(Step { primitive, inputs, outputs: outputs.clone(), origin: self.origin });
        outputs
    }

    fn float(&mut self, primitive: Primitive, inputs: Vec<Id>, shape: Vec<usize>) -> Id {
        self.step(primitive, inputs, vec![(Kind::Float, shape)])[0]
    }

    fn floats<const N: usize>(&mut self, primitive: Primitive, inputs: Vec<Id>, shapes: [Vec<usize>; N]) -> [Id; N] {
        let outputs = self.step(primitive, inputs, shapes.into_iter().map(|shape| (Kind::Float, shape)).collect());
        outputs.try_into().expect("as many outputs as shapes")
    }

    pub(crate) fn unary(&mut self, function: Unary, x: Id) -> Id {
        let shape = self.shape(x).to_vec();
        self.float(Primitive::Unary(function), vec![x], shape)
    }

    pub(crate) fn unary_gradient(&mut self, function: Unary, x: Id, y: Id, dy: Id) -> Id {
        let shape = self.shape(dy).to_vec();
        let inputs = match function.needs() {
            Needs::Input => vec![x, dy],
            Needs::Output => vec![y, dy],
            Needs::Nothing => vec![dy],
        };
        self.float(Primitive::UnaryGradient(function), inputs, shape)
    }

    pub(crate) fn binary(&mut self, function: Binary, a: Id, b: Id) -> Id {
        let shape = broadcast_shape(self.shape(a), self.shape(b));
        self.float(Primitive::Binary(function), vec![a, b], shape)
    }

    /// The gradient of one side, not yet summed over what was broadcast.
    pub(crate) fn binary_gradient(&mut self, function: Binary, side: Side, a: Id, b: Id, dy: Id) -> Id {
        let shape = self.shape(dy).to_vec();
        self.float(Primitive::BinaryGradient(function, side), vec![a, b, dy], shape)
    }

    /// 1 where the two are equal, else 0.
    pub(crate) fn equal(&mut self, a: Id, b: Id) -> Id {
        let shape = broadcast_shape(self.shape(a), self.shape(b));
        self.float(Primitive::Equal, vec![a, b], shape)
    }

    pub(crate) fn add(&mut self, a: Id, b: Id) -> Id {
        self.binary(Binary::Add, a, b)
    }

    pub(crate) fn sub(&mut self, a: Id, b: Id) -> Id {
        self.binary(Binary::Sub, a, b)
    }

    pub(crate) fn mul(&mut self, a: Id, b: Id) -> Id {
        self.binary(Binary::Mul, a, b)
    }

    pub(crate) fn div(&mut self, a: Id, b: Id) -> Id {
        self.binary(Binary::Div, a, b)
    }

    /// `a · x + b`
    pub(crate) fn affine(&mut self, x: Id, a: f64, b: f64) -> Id {
        if a == 1.0 && b == 0.0 {
            return x;
        }
        self.unary(Unary::Affine { scale: a as f32, shift: b as f32 }, x)
    }

    /// The axes stay, with length 1.
    pub(crate) fn reduce(&mut self, how: Reduction, x: Id, axes: &[usize]) -> Id {
        if axes.is_empty() {
            return x;
        }
        let mut shape = self.shape(x).to_vec();
        axes.iter().for_each(|&axis| shape[axis] = 1);
        self.float(Primitive::Reduce(how, axes.to_vec()), vec![x], shape)
    }

    /// Broadcast to a shape.
    pub(crate) fn expand(&mut self, x: Id, shape: &[usize]) -> Id {
        if self.shape(x) == shape {
            return x;
        }
        self.float(Primitive::Expand, vec![x], shape.to_vec())
    }

    /// The sum over what was broadcast: the transpose of [`Emitter::expand`].
    pub(crate) fn sum_to(&mut self, x: Id, shape: &[usize]) -> Id {
        let from = self.shape(x).to_vec();
        let n_new = from.len() - shape.len();
        let axes: Vec<usize> =
            (0..from.len()).filter(|&axis| axis < n_new || (shape[axis - n_new] == 1 && from[axis] != 1)).collect();
        let sum = self.reduce(Reduction::Sum, x, &axes);
        self.reshape(sum, shape)
    }

    pub(crate) fn reshape(&mut self, x: Id, shape: &[usize]) -> Id {
        if self.shape(x) == shape {
            return x;
        }
        debug_assert_eq!(self.program.n_elements(x), shape.iter().product::<usize>());
        self.float(Primitive::Reshape, vec![x], shape.to_vec())
    }

    pub(crate) fn transpose(&mut self, x: Id, permutation: &[usize]) -> Id {
        if permutation.iter().enumerate().all(|(idx, &axis)| idx == axis) {
            return x;
        }
        let shape = permutation.iter().map(|&axis| self.shape(x)[axis]).collect();
        let y = self.float(Primitive::Transpose(permutation.to_vec()), vec![x], shape);
        if let [1, 0] = permutation {
            self.untransposed.insert(y, x);
        }
        y
    }

    /// Axis by axis `shape[i]` elements from `starts[i]` on, `steps[i]` apart.
    pub(crate) fn slice(&mut self, x: Id, starts: Vec<usize>, steps: Vec<isize>, shape: Vec<usize>) -> Id {
        if self.shape(x) == shape && starts.iter().all(|&start| start == 0) && steps.iter().all(|&step| step == 1) {
            return x;
        }
        self.float(Primitive::Slice { starts, steps }, vec![x], shape)
    }

    /// `length` elements along an axis from `start` on.
    pub(crate) fn narrow(&mut self, x: Id, axis: usize, start: usize, length: usize) -> Id {
        let mut shape = self.shape(x).to_vec();
        let mut starts = vec![0; shape.len()];
        let steps = vec![1; shape.len()];
        starts[axis] = start;
        shape[axis] = length;
        self.slice(x, starts, steps, shape)
    }

    pub(crate) fn slice_gradient(&mut self, dy: Id, starts: Vec<usize>, steps: Vec<isize>, shape: Vec<usize>) -> Id {
        self.float(Primitive::SliceGradient { starts, steps }, vec![dy], shape)
    }

    pub(crate) fn concat(&mut self, axis: usize, parts: &[Id]) -> Id {
        if let [only] = parts {
            return *only;
        }
        let mut shape = self.shape(parts[0]).to_vec();
        shape[axis] = parts.iter().map(|&part| self.shape(part)[axis]).sum();
        self.float(Primitive::Concat(axis), parts.to_vec(), shape)
    }

    pub(crate) fn pad(&mut self, x: Id, begins: Vec<usize>, value: f64, shape: Vec<usize>) -> Id {
        if self.shape(x) == shape {
            return x;
        }
        self.float(Primitive::Pad { begins, value }, vec![x], shape)
    }

    pub(crate) fn map_axis(&mut self, x: Id, axis: usize, map: Arc<AxisMap>) -> Id {
        let mut shape = self.shape(x).to_vec();
        shape[axis] = map.terms.len();
        self.float(Primitive::MapAxis(axis, map), vec![x], shape)
    }

    pub(crate) fn gather(&mut self, x: Id, axis: usize, indices: Id) -> Id {
        let (x_shape, indices_shape) = (self.shape(x), self.shape(indices));
        let shape = [&x_shape[..axis], indices_shape, &x_shape[axis + 1..]].concat();
        self.float(Primitive::Gather(axis), vec![x, indices], shape)
    }

    pub(crate) fn gather_gradient(&mut self, dy: Id, axis: usize, indices: Id, shape: Vec<usize>) -> Id {
        self.float(Primitive::GatherGradient(axis), vec![dy, indices], shape)
    }

    /// `updates` has the shape of `indices`, then that of a row of `x`.
    pub(crate) fn scatter_rows(&mut self, x: Id, indices: Id, updates: Id) -> Id {
        let shape = self.shape(x).to_vec();
        self.float(Primitive::ScatterRows, vec![x, indices, updates], shape)
    }

    pub(crate) fn cum_sum(&mut self, x: Id, axis: usize, exclusive: bool, reverse: bool) -> Id {
        let shape = self.shape(x).to_vec();
        self.float(Primitive::CumSum { axis, exclusive, reverse }, vec![x], shape)
    }

    /// Both of rank 2 at least. What would be transposed twice is not transposed.
    pub(crate) fn matmul(&mut self, a: Id, b: Id, transpose_a: bool, transpose_b: bool) -> Id {
        let (b, transpose_b) = match self.untransposed.get(&b) {
            Some(&source) if transpose_b => (source, false),
            _ => (b, transpose_b),
        };
        let (a_shape, b_shape) = (self.shape(a), self.shape(b));
        let (a_rank, b_rank) = (a_shape.len(), b_shape.len());
        let mut shape = broadcast_shape(&a_shape[..a_rank - 2], &b_shape[..b_rank - 2]);
        shape.push(if transpose_a { a_shape[a_rank - 1] } else { a_shape[a_rank - 2] });
        shape.push(if transpose_b { b_shape[b_rank - 2] } else { b_shape[b_rank - 1] });
        self.float(Primitive::MatMul { transpose_a, transpose_b }, vec![a, b], shape)
    }

    pub(crate) fn linear(&mut self, x: Id, weight: Id, bias: Id, transposed: bool, relu: bool) -> Id {
        let mut shape = self.shape(x).to_vec();
        *shape.last_mut().expect("x has an axis to sum over") = self.shape(weight)[usize::from(!transposed)];
        self.float(Primitive::Linear { transposed, relu }, vec![x, weight, bias], shape)
    }

    /// The number of places of the window is given by the caller, who has it from shape inference.
    pub(crate) fn conv(&mut self, window: ConvWindow, inputs: Vec<Id>, shape: Vec<usize>) -> Id {
        self.float(Primitive::Conv(window), inputs, shape)
    }

    pub(crate) fn conv_input_gradient(&mut self, window: ConvWindow, dy: Id, weight: Id, shape: Vec<usize>) -> Id {
        self.float(Primitive::ConvInputGradient(window), vec![dy, weight], shape)
    }

    pub(crate) fn conv_weight_gradient(&mut self, window: ConvWindow, x: Id, dy: Id, shape: Vec<usize>) -> Id {
        self.float(Primitive::ConvWeightGradient(window), vec![x, dy], shape)
    }

    /// The greatest of each window, and where it lies in the input's plane.
    pub(crate) fn max_pool(&mut self, window: PoolWindow, x: Id, shape: Vec<usize>) -> [Id; 2] {
        let outputs = vec![(Kind::Float, shape.clone()), (Kind::Index, shape)];
        self.step(Primitive::MaxPool(window), vec![x], outputs).try_into().expect("two outputs")
    }

    pub(crate) fn max_pool_gradient(&mut self, window: PoolWindow, dy: Id, positions: Id, shape: Vec<usize>) -> Id {
        self.float(Primitive::MaxPoolGradient(window), vec![dy, positions], shape)
    }

    pub(crate) fn average_pool(&mut self, window: PoolWindow, count_padding: bool, x: Id, shape: Vec<usize>) -> Id {
        self.float(Primitive::AveragePool { window, count_padding }, vec![x], shape)
    }

    pub(crate) fn average_pool_gradient(
        &mut self,
        window: PoolWindow,
        count_padding: bool,
        dy: Id,
        shape: Vec<usize>,
    ) -> Id {
        self.float(Primitive::AveragePoolGradient { window, count_padding }, vec![dy], shape)
    }

    pub(crate) fn softmax(&mut self, x: Id, axis: usize) -> Id {
        let shape = self.shape(x).to_vec();
        self.float(Primitive::Softmax(axis), vec![x], shape)
    }

    pub(crate) fn softmax_gradient(&mut self, y: Id, dy: Id, axis: usize) -> Id {
        let shape = self.shape(y).to_vec();
        self.float(Primitive::SoftmaxGradient(axis), vec![y, dy], shape)
    }

    pub(crate) fn log_softmax(&mut self, x: Id, axis: usize) -> Id {
        let shape = self.shape(x).to_vec();
        self.float(Primitive::LogSoftmax(axis), vec![x], shape)
    }

    pub(crate) fn log_softmax_gradient(&mut self, y: Id, dy: Id, axis: usize) -> Id {
        let shape = self.shape(y).to_vec();
        self.float(Primitive::LogSoftmaxGradient(axis), vec![y, dy], shape)
    }

    /// `y`, mean and inverse standard deviation; the latter with length 1 in the axes from `axis` on. `inputs` are `x`,
    /// scale and, where there is one, bias, both of the shape that `x` has from `axis` on.
    pub(crate) fn layer_norm(&mut self, inputs: Vec<Id>, axis: usize, epsilon: f64) -> [Id; 3] {
        let shape = self.shape(inputs[0]).to_vec();
        let mut statistics = shape.clone();
        statistics[axis..].fill(1);
        self.floats(Primitive::LayerNorm { axis, epsilon }, inputs, [shape, statistics.clone(), statistics])
    }

    /// `dx`, `dscale`, `dbias` from `x`, scale, mean, inverse standard deviation and `dy`.
    pub(crate) fn layer_norm_gradient(&mut self, inputs: [Id; 5], axis: usize) -> [Id; 3] {
        let (x, scale) = (self.shape(inputs[0]).to_vec(), self.shape(inputs[1]).to_vec());
        self.floats(Primitive::LayerNormGradient { axis }, inputs.to_vec(), [x, scale.clone(), scale])
    }

    /// `y`, and the batch's mean, inverse standard deviation and (biased) variance, from `x`, scale and bias.
    pub(crate) fn batch_norm(&mut self, inputs: [Id; 3], epsilon: f64, relu: bool) -> [Id; 4] {
        let (x, channels) = (self.shape(inputs[0]).to_vec(), self.shape(inputs[1]).to_vec());
        let shapes = [x, channels.clone(), channels.clone(), channels];
        self.floats(Primitive::BatchNorm { epsilon, relu }, inputs.to_vec(), shapes)
    }

    /// `dx`, `dscale`, `dbias` from `x`, scale, bias, mean, inverse standard deviation, `dy` and, with `relu`, `y`.
    pub(crate) fn batch_norm_gradient(&mut self, inputs: Vec<Id>, relu: bool) -> [Id; 3] {
        let (x, channels) = (self.shape(inputs[0]).to_vec(), self.shape(inputs[1]).to_vec());
        self.floats(Primitive::BatchNormGradient { relu }, inputs, [x, channels.clone(), channels])
    }

    /// `condition` is plain.
    pub(crate) fn select(&mut self, condition: Id, a: Id, b: Id) -> Id {
        let shape = broadcast_shape(self.shape(condition), &broadcast_shape(self.shape(a), self.shape(b)));
        self.float(Primitive::Where, vec![condition, a, b], shape)
    }

    /// `y` and the probabilities, from `q`, `k`, `v` and, where there is one, an additive mask.
    pub(crate) fn attention(&mut self, inputs: Vec<Id>, n_heads: usize, scale: f64) -> [Id; 2] {
        let (q, k, v) = (self.shape(inputs[0]), self.shape(inputs[1]), self.shape(inputs[2]));
        let y = vec![q[0], q[1], v[2]];
        let probabilities = vec![q[0], n_heads, q[1], k[1]];
        self.floats(Primitive::Attention { n_heads, scale }, inputs, [y, probabilities])
    }

    /// `dq`, `dk`, `dv` from `q`, `k`, `v`, the probabilities and `dy`.
    pub(crate) fn attention_gradient(&mut self, inputs: [Id; 5], n_heads: usize, scale: f64) -> [Id; 3] {
        let shapes = [0, 1, 2].map(|idx| self.shape(inputs[idx]).to_vec());
        self.floats(Primitive::AttentionGradient { n_heads, scale }, inputs.to_vec(), shapes)
    }

    /// `y`, and the factor of every element.
    /// The state after the step, and what the gradient reads of the gates.
    pub(crate) fn gru_cell(&mut self, inputs: [Id; 3]) -> [Id; 2] {
        let shapes = [inputs[2], inputs[0]].map(|id| self.shape(id).to_vec());
        self.floats(Primitive::GruCell, inputs.to_vec(), shapes)
    }

    pub(crate) fn gru_cell_gradient(&mut self, inputs: [Id; 4]) -> [Id; 3] {
        let shapes = [inputs[0], inputs[1], inputs[2]].map(|id| self.shape(id).to_vec());
        self.floats(Primitive::GruCellGradient, inputs.to_vec(), shapes)
    }

    /// The state and the cell after the step, and what the gradient reads of the gates.
    pub(crate) fn lstm_cell(&mut self, inputs: [Id; 3]) -> [Id; 3] {
        let shapes = [inputs[2], inputs[2], inputs[0]].map(|id| self.shape(id).to_vec());
        self.floats(Primitive::LstmCell, inputs.to_vec(), shapes)
    }

    pub(crate) fn lstm_cell_gradient(&mut self, inputs: [Id; 5]) -> [Id; 2] {
        let shapes = [inputs[0], inputs[1]].map(|id| self.shape(id).to_vec());
        self.floats(Primitive::LstmCellGradient, inputs.to_vec(), shapes)
    }

    pub(crate) fn dropout(&mut self, x: Id, ratio: f64, stream: u64) -> [Id; 2] {
        let shape = self.shape(x).to_vec();
        self.floats(Primitive::Dropout { ratio, stream }, vec![x], [shape.clone(), shape])
    }

    /// Rounded as a cast to a narrower floating-point type does; the gradient passes as if it were not.
    pub(crate) fn round_to(&mut self, cast: Cast, x: Id) -> Id {
        let shape = self.shape(x).to_vec();
        self.float(Primitive::RoundTo(cast), vec![x], shape)
    }

    /// Quantized and dequantized; `inputs` are `x`, scale and zero point.
    pub(crate) fn fake_quantize(&mut self, quantization: Quantization, inputs: [Id; 3]) -> Id {
        let shape = self.shape(inputs[0]).to_vec();
        self.float(Primitive::FakeQuantize(quantization), inputs.to_vec(), shape)
    }

    /// `dx` from `x`, scale, zero point and `dy`.
    pub(crate) fn fake_quantize_gradient(&mut self, quantization: Quantization, inputs: [Id; 4]) -> Id {
        let shape = self.shape(inputs[0]).to_vec();
        self.float(Primitive::FakeQuantizeGradient(quantization), inputs.to_vec(), shape)
    }

    /// The gradient of the scale from `x`, scale, zero point and `dy`.
    pub(crate) fn fake_quantize_scale_gradient(&mut self, quantization: Quantization, inputs: [Id; 4]) -> Id {
        let shape = self.shape(inputs[0]).to_vec();
        let scale_shape = self.shape(inputs[1]).to_vec();
        let axes: Vec<usize> = (0..shape.len()).filter(|&axis| Some(axis) != quantization.axis).collect();
        let terms = self.float(Primitive::FakeQuantizeScaleGradient(quantization), inputs.to_vec(), shape);
        let sum = self.reduce(Reduction::Sum, terms, &axes);
        self.reshape(sum, &scale_shape)
    }

    /// Integers or truth values as numbers to compute with.
    pub(crate) fn plain_as_float(&mut self, x: Id) -> Id {
        let shape = self.shape(x).to_vec();
        self.float(Primitive::FromPlain, vec![x], shape)
    }

    /// What the reference interpreter makes of an operator; an input that is left out is none.
    pub(crate) fn reference(&mut self, op: &Op, inputs: &[Option<Id>], outputs: Vec<(Kind, Vec<usize>)>) -> Vec<Id> {
        let present = inputs.iter().map(Option::is_some).collect();
        let primitive = Primitive::Reference { op: Box::new(op.clone()), present };
        self.step(primitive, inputs.iter().flatten().copied().collect(), outputs)
    }
}

/// The kind of a value of this element type. Floating-point types of 8 bits and fewer only store what is quantized: they are
/// the reference interpreter's.
pub(crate) fn kind_of(dtype: DType) -> Kind {
    if dtype.is_float() && dtype.n_bits() >= 16 { Kind::Float } else { Kind::Plain(dtype) }
}
