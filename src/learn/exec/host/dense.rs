//! Arithmetic: functions of one and two numbers, reductions, products, norms, softmax, attention.

use half::{bf16, f16};

use super::Run;
use super::memory::Memory;
use super::movement::around;
use crate::graph::tensor::DType;
use crate::learn::exec::program::{Id, Primitive, Reduction};
use crate::learn::exec::random;
use crate::learn::kernels::attention::{self, Attention, Heads, HeadsMut, Layout, Mask};
use crate::learn::kernels::elementwise::{self, Binary, Needs, Unary};
use crate::learn::kernels::gemm::{self, Activation, Batch, Epilogue, Matrix};
use crate::learn::kernels::norm::{self, Affine, AffineGradient, BatchNorm};
use crate::learn::kernels::recurrent::{self, GruKept, LstmKept};
use crate::learn::kernels::reduce;
use crate::learn::kernels::softmax::{self, Softmax};

impl Run<'_> {
    /// Whether the step is one of these, and computed.
    pub(super) fn dense(&self, memory: &mut Memory<'_>) -> bool {
        let inputs = self.step.inputs.as_slice();
        let y_id = self.step.outputs[0];
        match &self.step.primitive {
            Primitive::Unary(function) => match self.in_place {
                Some(_) => memory.write([y_id], |_, [y]| elementwise::forward_in_place(*function, y)),
                None => {
                    memory.write([y_id], |memory, [y]| elementwise::forward(*function, memory.read(inputs[0]), y));
                }
            },
            Primitive::UnaryGradient(function) => self.unary_gradient(memory, *function),
            Primitive::Binary(function) => match self.in_place {
                Some(mine) => memory.write([y_id], |memory, [y]| {
                    elementwise::add_assign(memory.read(inputs[1 - mine]), y);
                }),
                None => memory.write([y_id], |memory, [y]| {
                    let [a, b] = [inputs[0], inputs[1]];
                    elementwise::binary(*function, memory.read(a), memory.shape(a), memory.read(b), memory.shape(b), y);
                }),
            },
            Primitive::BinaryGradient(function, side) => memory.write([y_id], |memory, [d]| {
                let [a, b] = [inputs[0], inputs[1]].map(|id| (memory.read(id), memory.shape(id)));
                elementwise::binary_gradient(*function, *side, a, b, memory.read(inputs[2]), d);
            }),
            Primitive::Reduce(how, axes) => memory.write([y_id], |memory, [y]| {
                let how = match how {
                    Reduction::Sum => reduce::Reduction::Sum,
                    Reduction::Mean => reduce::Reduction::Mean,
                    Reduction::Max => reduce::Reduction::Max,
                    Reduction::Min => reduce::Reduction::Min,
                };
                reduce::reduce(how, memory.read(inputs[0]), memory.shape(inputs[0]), axes, y);
            }),
            Primitive::MatMul { transpose_a, transpose_b } => self.matmul(memory, *transpose_a, *transpose_b),
            Primitive::Linear { transposed, relu } => memory.write([y_id], |memory, [y]| {
                let [x, weight, bias] = [inputs[0], inputs[1], inputs[2]];
                let [rows, columns] = [memory.shape(weight)[0], memory.shape(weight)[1]];
                let matrix = Matrix::rows(memory.read(weight), columns);
                let (matrix, [k, n]) =
                    if *transposed { (matrix.transposed(), [columns, rows]) } else { (matrix, [rows, columns]) };
                let activation = if *relu { Activation::Relu } else { Activation::None };
                let epilogue = Epilogue { bias: Some(memory.read(bias)), activation, before_activation: None };
                let m = y.len() / n.max(1);
                gemm::linear([m, n, k], memory.read(x), matrix, epilogue, y);
            }),
            Primitive::Softmax(axis) | Primitive::LogSoftmax(axis) => memory.write([y_id], |memory, [y]| {
                let sizes = around(memory.shape(y_id), *axis);
                softmax::softmax(self.softmax(), sizes, memory.read(inputs[0]), y);
            }),
            Primitive::SoftmaxGradient(axis) | Primitive::LogSoftmaxGradient(axis) => {
                memory.write([y_id], |memory, [dx]| {
                    let sizes = around(memory.shape(y_id), *axis);
                    let (y, dy) = (memory.read(inputs[0]), memory.read(inputs[1]));
                    softmax::softmax_gradient(self.softmax(), sizes, y, dy, dx);
                });
            }
            Primitive::RoundTo(cast) if matches!(cast.to, DType::F16 | DType::BF16) => {
                memory.write([y_id], |memory, [y]| {
                    let x = memory.read(inputs[0]);
                    match cast.to {
                        DType::F16 => elementwise::rounded(x, y, |x| f16::from_f32(x).to_f32()),
                        _ => elementwise::rounded(x, y, |x| bf16::from_f32(x).to_f32()),
                    }
                });
            }
            Primitive::Where => memory.write([y_id], |memory, [y]| select(memory, inputs, y_id, y)),
            Primitive::Dropout { ratio, stream } => {
                memory.write([y_id, self.step.outputs[1]], |memory, [y, mask]| {
                    random::dropout_into(mask, *ratio, self.seed, *stream);
                    let (x, shape) = (memory.read(inputs[0]), memory.shape(y_id));
                    elementwise::binary(Binary::Mul, x, shape, mask, shape, y);
                });
            }
            _ => return self.norms(memory),
        }
        true
    }

    fn softmax(&self) -> Softmax {
        match self.step.primitive {
            Primitive::LogSoftmax(_) | Primitive::LogSoftmaxGradient(_) => Softmax::Log,
            _ => Softmax::Plain,
        }
    }

    fn unary_gradient(&self, memory: &mut Memory<'_>, function: Unary) {
        let kept = (function.needs() != Needs::Nothing).then(|| self.step.inputs[0]);
        let dy = *self.step.inputs.last().expect("a gradient reads a gradient");
        memory.write([self.step.outputs[0]], |memory, [dx]| {
            // the kernel reads whichever of the two the function needs
            let kept = kept.map_or(&[][..], |id| memory.read(id));
            match self.in_place {
                Some(_) => elementwise::gradient_in_place(function, kept, kept, dx),
                None => elementwise::gradient(function, kept, kept, memory.read(dy), dx),
            }
        });
    }

    fn matmul(&self, memory: &mut Memory<'_>, transpose_a: bool, transpose_b: bool) {
        let [a, b] = [self.step.inputs[0], self.step.inputs[1]];
        let y_id = self.step.outputs[0];
        memory.write([y_id], |memory, [y]| {
            let (a_shape, b_shape, y_shape) = (memory.shape(a), memory.shape(b), memory.shape(y_id));
            let rank = y_shape.len();
            let matrix = |id: Id, shape: &[usize], transposed: bool| {
                let matrix = Matrix::rows(memory.read(id), shape[shape.len() - 1]);
                if transposed { matrix.transposed() } else { matrix }
            };
            let k = a_shape[a_shape.len() - if transpose_a { 2 } else { 1 }];
            let dims = &y_shape[..rank - 2];
            let strides = |shape: &[usize]| batch_strides(dims, shape);
            let (a_strides, b_strides) = (strides(a_shape), strides(b_shape));
            let batch = Batch { dims, a_strides: &a_strides, b_strides: &b_strides, summed: &[] };
            let (a, b) = (matrix(a, a_shape, transpose_a), matrix(b, b_shape, transpose_b));
            gemm::batched_gemm([y_shape[rank - 2], y_shape[rank - 1], k], 1.0, a, b, batch, false, y);
        });
    }

    fn norms(&self, memory: &mut Memory<'_>) -> bool {
        let (inputs, outputs) = (self.step.inputs.as_slice(), self.step.outputs.as_slice());
        match &self.step.primitive {
            Primitive::LayerNorm { axis: _, epsilon } => {
                memory.write([outputs[0], outputs[1], outputs[2]], |memory, [y, mean, deviation]| {
                    let bias = inputs.get(2).map(|&bias| memory.read(bias));
                    let affine = Affine { scale: memory.read(inputs[1]), bias };
                    norm::layer_norm(*epsilon as f32, memory.read(inputs[0]), affine, y, (mean, deviation));
                });
            }
            Primitive::LayerNormGradient { axis: _ } => {
                memory.write([outputs[0], outputs[1], outputs[2]], |memory, [dx, scale, bias]| {
                    let read = |position: usize| memory.read(inputs[position]);
                    let affine = AffineGradient { scale, bias: Some(bias) };
                    norm::layer_norm_gradient(read(0), read(1), (read(2), read(3)), read(4), dx, affine);
                });
            }
            Primitive::BatchNorm { epsilon, relu } => {
                let outputs = [outputs[0], outputs[1], outputs[2], outputs[3]];
                memory.write(outputs, |memory, [y, mean, deviation, variance]| {
                    let layer = batch_norm(memory, inputs, *epsilon, *relu);
                    norm::batch_norm_train(layer, memory.read(inputs[0]), y, (mean, deviation));
                    let epsilon = *epsilon as f32;
                    let pairs = variance.iter_mut().zip(&*deviation);
                    pairs.for_each(|(variance, deviation)| *variance = 1.0 / (deviation * deviation) - epsilon);
                });
            }
            Primitive::BatchNormGradient { relu } => {
                memory.write([outputs[0], outputs[1], outputs[2]], |memory, [dx, scale, bias]| {
                    let layer = batch_norm(memory, inputs, 0.0, *relu);
                    let read = |position: usize| memory.read(inputs[position]);
                    let y = inputs.get(6).map_or(&[][..], |&y| memory.read(y));
                    norm::batch_norm_gradient(layer, (read(0), y), (read(3), read(4)), read(5), dx, (scale, bias));
                });
            }
            Primitive::Attention { n_heads, scale } => {
                memory.write([outputs[0], outputs[1]], |memory, [y, probabilities]| {
                    let attention = attention_of(memory, inputs, inputs.get(3).copied(), *n_heads, *scale);
                    let [q, k, v] = [0, 1, 2].map(|position| heads(memory, inputs[position], *n_heads));
                    let layout = layout(memory.shape(outputs[0]), *n_heads);
                    attention::attention(attention, q, k, v, HeadsMut { data: y, layout }, probabilities);
                });
            }
            Primitive::AttentionGradient { n_heads, scale } => {
                memory.write([outputs[0], outputs[1], outputs[2]], |memory, gradients| {
                    let attention = attention_of(memory, inputs, None, *n_heads, *scale);
                    let [q, k, v] = [0, 1, 2].map(|position| heads(memory, inputs[position], *n_heads));
                    let dy = heads(memory, inputs[4], *n_heads);
                    let mut layouts = [q, k, v].into_iter().map(|heads| heads.layout);
                    let gradients = gradients.map(|data| {
                        let layout = layouts.next().expect("three layouts for three gradients");
                        HeadsMut { data, layout }
                    });
                    attention::attention_gradient(attention, [q, k, v, dy], memory.read(inputs[3]), gradients, None);
                });
            }
            _ => return self.cells(memory),
        }
        true
    }

    fn cells(&self, memory: &mut Memory<'_>) -> bool {
        let (inputs, outputs) = (self.step.inputs.as_slice(), self.step.outputs.as_slice());
        let hidden = |memory: &Memory<'_>, state: usize| memory.shape(inputs[state])[1];
        match &self.step.primitive {
            Primitive::GruCell => memory.write([outputs[0], outputs[1]], |memory, [h, gates]| {
                let [sums, of_h, before] = [0, 1, 2].map(|position| memory.read(inputs[position]));
                recurrent::gru_cell(hidden(memory, 2), [sums, of_h], before, gates, h);
            }),
            Primitive::GruCellGradient => {
                memory.write([outputs[0], outputs[1], outputs[2]], |memory, gradients| {
                    let [gates, recurrent, before, dh] = [0, 1, 2, 3].map(|position| memory.read(inputs[position]));
                    let kept = GruKept { gates, recurrent, before };
                    recurrent::gru_cell_gradient(hidden(memory, 2), kept, dh, gradients);
                });
            }
            Primitive::LstmCell => {
                memory.write([outputs[0], outputs[1], outputs[2]], |memory, [h, c, gates]| {
                    let [sums, of_h, before] = [0, 1, 2].map(|position| memory.read(inputs[position]));
                    recurrent::lstm_cell(hidden(memory, 2), [sums, of_h], before, gates, c, h);
                });
            }
            Primitive::LstmCellGradient => memory.write([outputs[0], outputs[1]], |memory, [dsums, dbefore]| {
                let [gates, before, c, dh, dc] = [0, 1, 2, 3, 4].map(|position| memory.read(inputs[position]));
                let kept = LstmKept { gates, before, c };
                recurrent::lstm_cell_gradient(hidden(memory, 1), kept, [dh, dc], dsums, dbefore);
            }),
            _ => return false,
        }
        true
    }
}

/// Elements from one matrix to the next along each batch axis of a product, 0 where it is broadcast.
fn batch_strides(dims: &[usize], shape: &[usize]) -> Vec<usize> {
    let batch = &shape[..shape.len() - 2];
    let n_new = dims.len() - batch.len();
    let mut stride: usize = shape[shape.len() - 2..].iter().product();
    let mut strides = vec![0; dims.len()];
    for axis in (0..batch.len()).rev() {
        strides[n_new + axis] = if batch[axis] == 1 { 0 } else { stride };
        stride *= batch[axis];
    }
    strides
}

fn batch_norm<'a>(memory: &'a Memory<'_>, inputs: &[Id], epsilon: f64, relu: bool) -> BatchNorm<'a> {
    let shape = memory.shape(inputs[0]);
    BatchNorm {
        dims: [shape[0], shape[1], shape[2..].iter().product()],
        epsilon: epsilon as f32,
        scale: memory.read(inputs[1]),
        bias: memory.read(inputs[2]),
        relu,
    }
}

/// Of a contiguous `[batch, tokens, heads · width]`.
fn layout(shape: &[usize], n_heads: usize) -> Layout {
    Layout::rows_first([shape[1], n_heads, shape[2] / n_heads.max(1)])
}

fn heads<'a>(memory: &'a Memory<'_>, id: Id, n_heads: usize) -> Heads<'a> {
    Heads { data: memory.read(id), layout: layout(memory.shape(id), n_heads) }
}

fn attention_of<'a>(
    memory: &'a Memory<'_>,
    inputs: &[Id],
    mask: Option<Id>,
    n_heads: usize,
    scale: f64,
) -> Attention<'a> {
    let [q, k, v] = [0, 1, 2].map(|position| memory.shape(inputs[position]));
    let mask = mask.map(|id| {
        let strides = broadcast_strides(memory.shape(id), 4);
        Mask { data: memory.read(id), strides: strides.try_into().expect("a mask has at most four axes") }
    });
    Attention {
        batch: q[0],
        heads: n_heads,
        key_heads: n_heads,
        queries: q[1],
        keys: k[1],
        width: q[2] / n_heads.max(1),
        value_width: v[2] / n_heads.max(1),
        scale: scale as f32,
        causal: false,
        mask,
    }
}

/// Elements from one position of a shape of this rank to the next, 0 along what is broadcast to it.
fn broadcast_strides(from: &[usize], rank: usize) -> Vec<usize> {
    let mut strides = vec![0; rank];
    let mut stride = 1;
    for (axis, &size) in from.iter().enumerate().rev() {
        strides[rank - from.len() + axis] = if size == 1 { 0 } else { stride };
        stride *= size;
    }
    strides
}

/// `Where`, element by element along the strides of its three inputs.
fn select(memory: &Memory<'_>, inputs: &[Id], y_id: Id, y: &mut [f32]) {
    let shape = memory.shape(y_id);
    let by_value = [inputs[0], inputs[1], inputs[2]].map(|id| broadcast_strides(memory.shape(id), shape.len()));
    let condition = memory.read_plain(inputs[0]).as_slice::<bool>().expect("a condition is of truth values");
    let [a, b] = [memory.read(inputs[1]), memory.read(inputs[2])];
    let mut at = vec![0; shape.len()];
    let mut offsets = [0usize; 3];
    for y in y.iter_mut() {
        *y = if condition[offsets[0]] { a[offsets[1]] } else { b[offsets[2]] };
        for axis in (0..shape.len()).rev() {
            at[axis] += 1;
            (0..3).for_each(|which| offsets[which] += by_value[which][axis]);
            if at[axis] < shape[axis] {
                break;
            }
            at[axis] = 0;
            (0..3).for_each(|which| offsets[which] -= by_value[which][axis] * shape[axis]);
        }
    }
}
