//! Differentiation: the program that computes gradients, from the program that computes the loss.
//!
//! Reverse accumulation over a static program (Griewank and Walther, Evaluating Derivatives, 2nd ed., chapter 3): every
//! step is visited once, last first, and adds to the gradients of what it read the product of its transposed Jacobian with
//! the gradients of what it made. There is no tape: the visits only emit more steps.

mod pieces;
mod products;

use self::products::Product;
use super::ExecError;
use super::emit::Emitter;
use super::program::{Id, Kind, Primitive, Reduction, Step};
use crate::graph::tensor::DType;
use crate::graph::{Name, Op};
use crate::learn::kernels::elementwise::{Binary, Side, Unary};

/// Emits the gradients of a loss of one element with respect to each of `wanted`; none where the loss does not depend on it.
///
/// # Errors
/// When the loss has more than one element, or a gradient would have to pass through something that has none.
pub(crate) fn differentiate(
    emitter: &mut Emitter,
    loss: Id,
    wanted: &[(Name, Id)],
) -> Result<Vec<Option<Id>>, ExecError> {
    let leads = dependents(emitter, wanted);
    let n_values = emitter.program.values.len();
    let mut reverse = Reverse {
        sums: vec![None; n_values],
        slices: vec![Vec::new(); n_values],
        products: vec![Vec::new(); n_values],
        leads,
    };
    let shape = emitter.shape(loss).to_vec();
    let one = emitter.scalar(1.0);
    let seed = emitter.expand(one, &shape);
    reverse.sums[loss] = Some(seed);
    for step_idx in (0..emitter.program.steps.len()).rev() {
        let step = emitter.program.steps[step_idx].clone();
        emitter.resume(&step);
        let gradients: Vec<Option<Id>> = step.outputs.iter().map(|&id| reverse.total(emitter, id)).collect();
        if gradients.iter().all(Option::is_none) {
            continue;
        }
        if !reverse.visit(emitter, &step, &gradients) {
            let culprit = wanted.iter().find(|(_, id)| reaches(emitter, *id, step_idx));
            let wanted = culprit.map_or_else(|| Name::from("the loss"), |(name, _)| name.clone());
            return Err(ExecError::NoGradient { node: emitter.program.origin(&step).to_string(), wanted });
        }
    }
    Ok(wanted.iter().map(|(_, id)| reverse.total(emitter, *id)).collect())
}

/// By value: whether it depends on one that is wanted. Truth values and wide integers do not. What has 8 bits and fewer, and what
/// QuantizeLinear makes, stands for quantized numbers: a network that learns must not lose the gradient there without a
/// word.
fn dependents(emitter: &Emitter, wanted: &[(Name, Id)]) -> Vec<bool> {
    let mut leads = vec![false; emitter.program.values.len()];
    wanted.iter().for_each(|(_, id)| leads[*id] = true);
    for step in &emitter.program.steps {
        if step.inputs.iter().any(|&id| leads[id]) {
            let quantizes =
                matches!(&step.primitive, Primitive::Reference { op, .. } if matches!(**op, Op::QuantizeLinear(_)));
            let counts = |id: Id| match emitter.kind(id) {
                Kind::Float => true,
                Kind::Plain(dtype) => quantizes || (dtype != DType::Bool && dtype.n_bits() <= 8),
                Kind::Index => false,
            };
            step.outputs.iter().filter(|&&id| counts(id)).for_each(|&id| leads[id] = true);
        }
    }
    leads
}

/// Whether the step at this position depends on a value.
fn reaches(emitter: &Emitter, from: Id, step_idx: usize) -> bool {
    let mut reached = vec![false; emitter.program.values.len()];
    reached[from] = true;
    for step in &emitter.program.steps[..step_idx] {
        if step.inputs.iter().any(|&id| reached[id]) {
            step.outputs.iter().for_each(|&id| reached[id] = true);
        }
    }
    emitter.program.steps[step_idx].inputs.iter().any(|&id| reached[id])
}

struct Reverse {
    /// By value: the sum of what has been added to its gradient so far.
    sums: Vec<Option<Id>>,
    /// By value: what is to be added to a part of its gradient.
    slices: Vec<Vec<Piece>>,
    /// By matrix: the products that are to be added to its gradient.
    products: Vec<Vec<Product>>,
    /// By value: whether its gradient leads to one that is wanted.
    leads: Vec<bool>,
}

/// The gradient of neighbouring elements: its first element belongs at `starts`.
#[derive(Clone, Debug)]
struct Piece {
    gradient: Id,
    starts: Vec<usize>,
}

impl Reverse {
    /// The whole gradient of a value, after everything that reads it was visited.
    fn total(&mut self, emitter: &mut Emitter, id: Id) -> Option<Id> {
        let shape = emitter.shape(id).to_vec();
        for gradient in pieces::joined(emitter, &shape, std::mem::take(&mut self.slices[id])) {
            self.add(emitter, id, gradient);
        }
        for gradient in products::summed(emitter, &std::mem::take(&mut self.products[id])) {
            self.add(emitter, id, gradient);
        }
        self.sums[id]
    }

    /// Adds at once, so that no more than the sum has to be kept.
    fn add(&mut self, emitter: &mut Emitter, id: Id, gradient: Id) {
        self.sums[id] = Some(match self.sums[id] {
            Some(sum) => emitter.add(sum, gradient),
            None => gradient,
        });
    }

    fn wants(&self, id: Id) -> bool {
        self.leads[id]
    }

    /// Adds to the gradient of an input, where anybody wants to know it; what was broadcast is summed.
    fn give(&mut self, emitter: &mut Emitter, id: Id, gradient: impl FnOnce(&mut Emitter) -> Id) {
        if self.wants(id) {
            let gradient = gradient(emitter);
            let shape = emitter.shape(id).to_vec();
            let gradient = emitter.sum_to(gradient, &shape);
            self.add(emitter, id, gradient);
        }
    }

    /// Adds a step's products to the gradients of its inputs; false where it has none.
    fn visit(&mut self, emitter: &mut Emitter, step: &Step, gradients: &[Option<Id>]) -> bool {
        if !step.inputs.iter().any(|&id| self.wants(id)) {
            return true;
        }
        if let Primitive::LstmCell = step.primitive {
            return self.lstm_cell(emitter, step, gradients);
        }
        let (x, y) = (step.inputs.first().copied(), step.outputs[0]);
        let [Some(dy), others @ ..] = gradients else { return false };
        if others.iter().any(Option::is_some) {
            return false;
        }
        let (dy, Some(x)) = (*dy, x) else { return true };
        let inputs = step.inputs.as_slice();
        let x_shape = emitter.shape(x).to_vec();
        match &step.primitive {
            Primitive::Unary(function) => self.unary(emitter, *function, x, y, dy),
            Primitive::Binary(function) => self.binary(emitter, *function, [x, inputs[1]], dy),
            Primitive::Reduce(how, axes) => self.reduce(emitter, *how, axes, x, y, dy),
            Primitive::Expand => self.give(emitter, x, |_| dy),
            Primitive::Reshape => self.give(emitter, x, |emitter| emitter.reshape(dy, &x_shape)),
            Primitive::Transpose(permutation) => {
                let mut inverse = vec![0; permutation.len()];
                permutation.iter().enumerate().for_each(|(idx, &axis)| inverse[axis] = idx);
                self.give(emitter, x, |emitter| emitter.transpose(dy, &inverse));
            }
            Primitive::Slice { starts, steps } if steps.iter().all(|&step| step == 1) => {
                if self.wants(x) {
                    self.slices[x].push(Piece { gradient: dy, starts: starts.clone() });
                }
            }
            Primitive::Slice { starts, steps } => {
                self.give(emitter, x, |emitter| emitter.slice_gradient(dy, starts.clone(), steps.clone(), x_shape));
            }
            Primitive::Concat(axis) => {
                let mut start = 0;
                for &part in inputs {
                    let length = emitter.shape(part)[*axis];
                    self.give(emitter, part, |emitter| emitter.narrow(dy, *axis, start, length));
                    start += length;
                }
            }
            Primitive::Pad { begins, value: _ } => {
                self.give(emitter, x, |emitter| emitter.slice(dy, begins.clone(), vec![1; begins.len()], x_shape));
            }
            Primitive::MapAxis(axis, map) => {
                self.give(emitter, x, |emitter| emitter.map_axis(dy, *axis, map.transposed().into()));
            }
            Primitive::Gather(axis) => {
                self.give(emitter, x, |emitter| emitter.gather_gradient(dy, *axis, inputs[1], x_shape));
            }
            Primitive::GatherGradient(axis) => {
                self.give(emitter, x, |emitter| emitter.gather(dy, *axis, inputs[1]));
            }
            Primitive::ScatterRows => {
                let (indices, updates) = (inputs[1], inputs[2]);
                let shape = emitter.shape(updates).to_vec();
                self.give(emitter, x, |emitter| {
                    let zero = emitter.scalar(0.0);
                    let zeros = emitter.expand(zero, &shape);
                    emitter.scatter_rows(dy, indices, zeros)
                });
                self.give(emitter, updates, |emitter| emitter.gather(dy, 0, indices));
            }
            Primitive::CumSum { axis, exclusive, reverse } => {
                self.give(emitter, x, |emitter| emitter.cum_sum(dy, *axis, *exclusive, !reverse));
            }
            Primitive::MatMul { transpose_a, transpose_b } => {
                self.matmul(emitter, [x, inputs[1]], [*transpose_a, *transpose_b], dy);
            }
            Primitive::Linear { transposed, relu } => self.linear(emitter, inputs, [*transposed, *relu], y, dy),
            Primitive::Conv(window) => {
                let weight = inputs[1];
                let weight_shape = emitter.shape(weight).to_vec();
                self.give(emitter, x, |emitter| emitter.conv_input_gradient(window.clone(), dy, weight, x_shape));
                self.give(emitter, weight, |emitter| emitter.conv_weight_gradient(window.clone(), x, dy, weight_shape));
                if let Some(&bias) = inputs.get(2) {
                    self.give(emitter, bias, |emitter| sum_channels(emitter, dy));
                }
            }
            Primitive::ConvInputGradient(window) => {
                let weight = inputs[1];
                let weight_shape = emitter.shape(weight).to_vec();
                self.give(emitter, x, |emitter| emitter.conv(window.clone(), vec![dy, weight], x_shape));
                self.give(emitter, weight, |emitter| emitter.conv_weight_gradient(window.clone(), dy, x, weight_shape));
            }
            Primitive::MaxPool(window) => {
                let positions = step.outputs[1];
                self.give(emitter, x, |emitter| emitter.max_pool_gradient(window.clone(), dy, positions, x_shape));
            }
            Primitive::AveragePool { window, count_padding } => self
                .give(emitter, x, |emitter| emitter.average_pool_gradient(window.clone(), *count_padding, dy, x_shape)),
            Primitive::Softmax(axis) => self.give(emitter, x, |emitter| emitter.softmax_gradient(y, dy, *axis)),
            Primitive::LogSoftmax(axis) => {
                self.give(emitter, x, |emitter| emitter.log_softmax_gradient(y, dy, *axis));
            }
            Primitive::LayerNorm { axis, epsilon: _ } => {
                let [mean, deviation] = [step.outputs[1], step.outputs[2]];
                let parts = emitter.layer_norm_gradient([x, inputs[1], mean, deviation, dy], *axis);
                self.give_each(emitter, inputs, parts);
            }
            Primitive::BatchNorm { epsilon: _, relu } => {
                let mut reads = vec![x, inputs[1], inputs[2], step.outputs[1], step.outputs[2], dy];
                reads.extend(relu.then_some(y));
                let parts = emitter.batch_norm_gradient(reads, *relu);
                self.give_each(emitter, inputs, parts);
            }
            Primitive::Where => {
                let zero = emitter.scalar(0.0);
                self.give(emitter, inputs[1], |emitter| emitter.select(inputs[0], dy, zero));
                self.give(emitter, inputs[2], |emitter| emitter.select(inputs[0], zero, dy));
            }
            Primitive::Attention { n_heads, scale } => {
                if inputs.get(3).is_some_and(|&mask| self.wants(mask)) {
                    return false;
                }
                let reads = [x, inputs[1], inputs[2], step.outputs[1], dy];
                let parts = emitter.attention_gradient(reads, *n_heads, *scale);
                self.give_each(emitter, inputs, parts);
            }
            Primitive::GruCell => {
                let parts = emitter.gru_cell_gradient([step.outputs[1], inputs[1], inputs[2], dy]);
                self.give_each(emitter, inputs, parts);
            }
            Primitive::Dropout { .. } => self.give(emitter, x, |emitter| emitter.mul(dy, step.outputs[1])),
            Primitive::RoundTo(_) => self.give(emitter, x, |_| dy),
            Primitive::FakeQuantize(quantization) => {
                let (scale, reads) = (inputs[1], [x, inputs[1], inputs[2], dy]);
                // the scale first: `x`'s gradient may be made in the place of `dy`
                self.give(emitter, scale, |emitter| emitter.fake_quantize_scale_gradient(*quantization, reads));
                self.give(emitter, x, |emitter| emitter.fake_quantize_gradient(*quantization, reads));
            }
            // what was quantized before has lost its gradient, and somebody wants it
            Primitive::FromPlain if self.wants(x) => return false,
            Primitive::FromPlain => {}
            Primitive::Equal => {}
            Primitive::UnaryGradient(_)
            | Primitive::BinaryGradient(..)
            | Primitive::SliceGradient { .. }
            | Primitive::ConvWeightGradient(_)
            | Primitive::MaxPoolGradient(_)
            | Primitive::AveragePoolGradient { .. }
            | Primitive::SoftmaxGradient(_)
            | Primitive::LogSoftmaxGradient(_)
            | Primitive::LayerNormGradient { .. }
            | Primitive::BatchNormGradient { .. }
            | Primitive::AttentionGradient { .. }
            | Primitive::GruCellGradient
            | Primitive::FakeQuantizeGradient(_)
            | Primitive::FakeQuantizeScaleGradient(_)
            | Primitive::LstmCell
            | Primitive::LstmCellGradient
            | Primitive::Reference { .. } => return false,
        }
        true
    }

    /// The inputs' gradients in their order, as many as there are of either.
    fn give_each(&mut self, emitter: &mut Emitter, inputs: &[Id], parts: [Id; 3]) {
        for (&input, part) in inputs.iter().zip(parts) {
            self.give(emitter, input, |_| part);
        }
    }

    fn unary(&mut self, emitter: &mut Emitter, function: Unary, x: Id, y: Id, dy: Id) {
        match function {
            Unary::Affine { scale, .. } => self.give(emitter, x, |emitter| emitter.affine(dy, scale.into(), 0.0)),
            Unary::Floor | Unary::Ceil | Unary::Round | Unary::Sign => {}
            _ => self.give(emitter, x, |emitter| emitter.unary_gradient(function, x, y, dy)),
        }
    }

    fn binary(&mut self, emitter: &mut Emitter, function: Binary, [a, b]: [Id; 2], dy: Id) {
        match function {
            Binary::Add => {
                self.give(emitter, a, |_| dy);
                self.give(emitter, b, |_| dy);
            }
            Binary::Sub => {
                self.give(emitter, a, |_| dy);
                self.give(emitter, b, |emitter| emitter.affine(dy, -1.0, 0.0));
            }
            Binary::Mul => {
                self.give(emitter, a, |emitter| emitter.mul(dy, b));
                self.give(emitter, b, |emitter| emitter.mul(dy, a));
            }
            Binary::Div => {
                self.give(emitter, a, |emitter| emitter.div(dy, b));
                self.give(emitter, b, |emitter| emitter.binary_gradient(function, Side::Right, a, b, dy));
            }
            Binary::Pow | Binary::Max | Binary::Min | Binary::PRelu => {
                self.give(emitter, a, |emitter| emitter.binary_gradient(function, Side::Left, a, b, dy));
                self.give(emitter, b, |emitter| emitter.binary_gradient(function, Side::Right, a, b, dy));
            }
        }
    }

    fn reduce(&mut self, emitter: &mut Emitter, how: Reduction, axes: &[usize], x: Id, y: Id, dy: Id) {
        let shape = emitter.shape(x).to_vec();
        let n_reduced: usize = axes.iter().map(|&axis| shape[axis]).product();
        match how {
            Reduction::Sum => self.give(emitter, x, |emitter| emitter.expand(dy, &shape)),
            Reduction::Mean => self.give(emitter, x, |emitter| {
                let share = emitter.affine(dy, 1.0 / n_reduced as f64, 0.0);
                emitter.expand(share, &shape)
            }),
            Reduction::Max | Reduction::Min => self.give(emitter, x, |emitter| {
                let chosen = emitter.equal(x, y);
                // equal elements share the gradient
                let n_chosen = emitter.reduce(Reduction::Sum, chosen, axes);
                let share = emitter.div(dy, n_chosen);
                emitter.mul(chosen, share)
            }),
        }
    }

    /// With `y = a b`: `da = dy bᵀ`, `db = aᵀ dy`; the other forms follow by transposing both sides.
    fn matmul(&mut self, emitter: &mut Emitter, [a, b]: [Id; 2], [transpose_a, transpose_b]: [bool; 2], dy: Id) {
        self.give(emitter, a, |emitter| {
            if transpose_a {
                emitter.matmul(b, dy, transpose_b, true)
            } else {
                emitter.matmul(dy, b, false, !transpose_b)
            }
        });
        if !transpose_a && emitter.rank(a) == 2 && emitter.rank(b) == 2 {
            return self.give_product(b, if transpose_b { [dy, a] } else { [a, dy] });
        }
        self.give(emitter, b, |emitter| {
            if transpose_b {
                emitter.matmul(dy, a, true, transpose_a)
            } else {
                emitter.matmul(a, dy, !transpose_a, false)
            }
        });
    }

    /// Remembers that `leftᵀ right` is to be added to the gradient of a matrix.
    fn give_product(&mut self, id: Id, [left, right]: [Id; 2]) {
        if self.wants(id) {
            self.products[id].push(Product { left, right });
        }
    }

    fn lstm_cell(&mut self, emitter: &mut Emitter, step: &Step, gradients: &[Option<Id>]) -> bool {
        let [h, c, gates] = [0, 1, 2].map(|position| step.outputs[position]);
        let [dh, dc] = [(0, h), (1, c)].map(|(position, id)| {
            gradients[position].unwrap_or_else(|| {
                let (zero, shape) = (emitter.scalar(0.0), emitter.shape(id).to_vec());
                emitter.expand(zero, &shape)
            })
        });
        let [dsums, dc_before] = emitter.lstm_cell_gradient([gates, step.inputs[2], c, dh, dc]);
        self.give_each(emitter, &step.inputs, [dsums, dsums, dc_before]);
        true
    }

    fn linear(&mut self, emitter: &mut Emitter, inputs: &[Id], [transposed, relu]: [bool; 2], y: Id, dy: Id) {
        let [x, weight, bias] = [inputs[0], inputs[1], inputs[2]];
        let dy = if relu { emitter.unary_gradient(Unary::Relu, y, y, dy) } else { dy };
        let x_shape = emitter.shape(x).to_vec();
        let rows = |emitter: &mut Emitter, id: Id| {
            let n_columns = *emitter.shape(id).last().expect("a product has columns");
            let n_rows = emitter.program.n_elements(id) / n_columns.max(1);
            emitter.reshape(id, &[n_rows, n_columns])
        };
        let dy_rows = rows(emitter, dy);
        self.give(emitter, x, |emitter| {
            let dx = emitter.matmul(dy_rows, weight, false, !transposed);
            emitter.reshape(dx, &x_shape)
        });
        if self.wants(weight) {
            let x_rows = rows(emitter, x);
            self.give_product(weight, if transposed { [dy_rows, x_rows] } else { [x_rows, dy_rows] });
        }
        self.give(emitter, bias, |_| dy_rows);
    }
}

/// The sum over all axes but the second.
fn sum_channels(emitter: &mut Emitter, dy: Id) -> Id {
    let axes: Vec<usize> = (0..emitter.rank(dy)).filter(|&axis| axis != 1).collect();
    let n_channels = emitter.shape(dy)[1];
    let sum = emitter.reduce(Reduction::Sum, dy, &axes);
    emitter.reshape(sum, &[n_channels])
}
