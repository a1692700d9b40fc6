//! com.microsoft `DynamicQuantizeLSTM`: weights of 8 bits, inputs and hidden states quantized to `u8` on the way.
//!
//! As onnxruntime defines it by its code: all of `X` is quantized together, the hidden states of a step together, both
//! as `DynamicQuantizeLinear` does, in `f32`. The sums are exact.

use super::args::Args;
use super::floats::{expect_shape, floats, integers, one_type, optional_floats};
use super::recurrence::{Options, Recurrence};
use super::recurrent::{LSTM_ACTIVATIONS, Peepholes, lstm_cell, times};
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::{DType, Tensor};

/// `DynamicQuantizeLSTM`: `W [n_directions, input, 4 · hidden]` and `R [n_directions, hidden, 4 · hidden]`, with a scale
/// and a zero point for each direction or for each of its columns.
pub(super) fn dynamic_quantize_lstm(
    args: Args<'_>,
    op: &op::DynamicQuantizeLSTM,
) -> Result<Vec<Option<Tensor>>, EvalError> {
    let options = Options {
        activations: &op.activations,
        alphas: &op.activation_alpha,
        betas: &op.activation_beta,
        clip: op.clip,
        direction: op.direction,
        hidden_size: op.hidden_size,
        layout: 0,
    };
    let dtype = one_type(args, &[0, 3, 5, 6, 7, 8, 10])?;
    if dtype != DType::F32 {
        return Err(args.undefined(dtype));
    }
    let &[_, hidden_size, _] = args.get(2)?.shape() else {
        return Err(invalid("DynamicQuantizeLSTM takes an R of 3 dimensions"));
    };
    let recurrence = Recurrence::new(args, &options, hidden_size, &LSTM_ACTIVATIONS)?;
    let n_columns = times(4, hidden_size)?;
    let n_directions = recurrence.n_directions;
    expect_shape(args, 3, &[n_directions, times(2, n_columns)?])?;
    let w = Matrix::of(args, 1, 8, [n_directions, recurrence.input_size, n_columns])?;
    let r = Matrix::of(args, 2, 10, [n_directions, hidden_size, n_columns])?;
    let peepholes = Peepholes::of(args, &recurrence)?;
    let bias = optional_floats(args, 3)?;
    let x = args.get(0)?.as_slice::<f32>()?;
    let n_walked = recurrence.lengths.iter().copied().max().unwrap_or(0);
    let x_quantization = Quantization::of(&x[..recurrence.x_offset(n_walked, 0)]);
    let walked = recurrence.walk(recurrence.initial(args, true)?, |direction, going, states| {
        let h = |batch: usize| states[batch].h.iter().map(|&h| h as f32).collect::<Vec<f32>>();
        let hidden: Vec<Vec<f32>> = going.iter().map(|&(batch, _)| h(batch)).collect();
        let h_quantization = Quantization::of(&hidden.concat());
        for (&(batch, position), h) in going.iter().zip(&hidden) {
            let x = &x[recurrence.x_offset(position, batch)..][..recurrence.input_size];
            let from_x = w.product(direction, x, &x_quantization);
            let from_h = r.product(direction, h, &h_quantization);
            let bias = |column: usize| {
                let at = |part: usize| (2 * direction + part) * n_columns + column;
                bias.as_ref().map_or(0.0, |bias| bias[at(0)] + bias[at(1)])
            };
            let sums = from_x.iter().zip(&from_h).enumerate();
            let sums: Vec<f64> = sums.map(|(column, (x, h))| x + h + bias(column)).collect();
            lstm_cell(&recurrence, direction, &sums, &peepholes, op.input_forget, &mut states[batch]);
        }
    })?;
    recurrence.outputs(walked, dtype)
}

/// How a group of floats becomes `u8`.
struct Quantization {
    scale: f32,
    zero_point: f32,
}

impl Quantization {
    /// Over the range of these numbers, zero being in it.
    fn of(values: &[f32]) -> Quantization {
        let least = values.iter().copied().fold(0f32, f32::min);
        let greatest = values.iter().copied().fold(0f32, f32::max);
        let scale = if least == greatest { 1.0 } else { (greatest - least) / 255.0 };
        Quantization { scale, zero_point: (-least / scale).clamp(0.0, 255.0).round_ties_even() }
    }

    /// The quantized number less the zero point.
    fn centred(&self, value: f32) -> i64 {
        let quantized = ((value / self.scale).round_ties_even() + self.zero_point).clamp(0.0, 255.0);
        (quantized - self.zero_point) as i64
    }
}

/// Quantized weights, `[n_directions, rows, n_columns]`.
struct Matrix {
    centred: Vec<i64>,
    /// One a direction, or one a column of each.
    scales: Vec<f64>,
    n_columns: usize,
    n_directions: usize,
}

impl Matrix {
    /// From these inputs; the zero points follow the scales.
    fn of(args: Args<'_>, input: usize, scale: usize, shape: [usize; 3]) -> Result<Matrix, EvalError> {
        let dtype = one_type(args, &[input, scale + 1])?;
        if dtype != DType::I8 && dtype != DType::U8 {
            return Err(args.undefined(dtype));
        }
        expect_shape(args, input, &shape)?;
        let [n_directions, _, n_columns] = shape;
        let scales = floats(args, scale)?;
        let by_direction = args.get(scale)?.shape() == [n_directions];
        if !by_direction {
            expect_shape(args, scale, &[n_directions, n_columns])?;
        }
        expect_shape(args, scale + 1, args.get(scale)?.shape())?;
        let zero_points = integers(args, scale + 1)?;
        let values = integers(args, input)?;
        let n_matrix = (values.len() / n_directions).max(1);
        let centred = |(idx, value): (usize, &i128)| {
            let zero_point = zero_points[place(by_direction, n_columns, idx / n_matrix, idx % n_columns)];
            i64::try_from(value - zero_point).expect("a difference of 8-bit integers")
        };
        let centred = values.iter().enumerate().map(centred).collect();
        Ok(Matrix { centred, scales, n_columns, n_directions })
    }

    /// A row vector, quantized, times the matrix of a direction.
    fn product(&self, direction: usize, vector: &[f32], quantization: &Quantization) -> Vec<f64> {
        let mut sums = vec![0i64; self.n_columns];
        let first_row = direction * vector.len();
        for (row, &value) in vector.iter().enumerate() {
            let value = quantization.centred(value);
            let weights = &self.centred[(first_row + row) * self.n_columns..][..self.n_columns];
            sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += value * weight);
        }
        let by_direction = self.scales.len() == self.n_directions;
        let scale = |column: usize| self.scales[place(by_direction, self.n_columns, direction, column)];
        let dequantized = sums.iter().enumerate();
        dequantized.map(|(column, &sum)| sum as f64 * f64::from(quantization.scale) * scale(column)).collect()
    }
}

/// Where the scale and the zero point of a column are.
fn place(by_direction: bool, n_columns: usize, direction: usize, column: usize) -> usize {
    if by_direction { direction } else { direction * n_columns + column }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_near as check, input, refused};
    use crate::graph::op::{Direction, DynamicQuantizeLSTM, Op};
    use crate::graph::tensor::Tensor;

    fn inputs(scale: Option<Tensor>, zero_point: Option<Tensor>, r: [i8; 4]) -> Vec<Option<Tensor>> {
        let x = input(&[2, 1, 1], &[0.5f32, -1.0]);
        let w = input(&[1, 1, 4], &[10i8, 20, 30, 40]);
        let b = input(&[1, 8], &[0.1f32, 0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0]);
        let (r_scale, r_zero_point) = (input(&[1], &[0.01f32]), input(&[1], &[0i8]));
        vec![x, w, input(&[1, 1, 4], &r), b, None, None, None, None, scale, zero_point, r_scale, r_zero_point]
    }

    fn op() -> Op {
        Op::DynamicQuantizeLSTM(DynamicQuantizeLSTM {
            activation_alpha: vec![],
            activation_beta: vec![],
            activations: vec![],
            clip: None,
            direction: Direction::Forward,
            hidden_size: None,
            input_forget: false,
        })
    }

    // the numbers of onnxruntime 1.31.1
    #[test]
    fn quantizes_on_the_way() {
        let y = [0.058_106_069, -0.056_537_125];
        let last: &[usize] = &[1, 1, 1];
        let expected: [(&[usize], &[f64]); 3] = [(&[2, 1, 1, 1], &y), (last, &y[1..]), (last, &[-0.121_455_99])];
        let r = [50, -50, 25, 100];
        check(&op(), &inputs(input(&[1], &[0.01f32]), input(&[1], &[0i8]), r), &expected);
        let by_column = inputs(input(&[1, 4], &[0.01f32; 4]), input(&[1, 4], &[0i8; 4]), r);
        check(&op(), &by_column, &expected);
    }

    #[test]
    fn scales_and_zero_points_go_together() {
        let r = [0; 4];
        refused(&op(), &inputs(input(&[1], &[0.01f32]), input(&[1, 4], &[0i8; 4]), r), "input 9 of shape [1]");
        refused(&op(), &inputs(input(&[2], &[0.01f32; 2]), input(&[2], &[0i8; 2]), r), "input 8 of shape [1, 4]");
        refused(&op(), &inputs(input(&[1], &[0.01f32]), input(&[1], &[0u8]), r), "one type");
        refused(&op(), &inputs(input(&[1], &[0.01f64]), input(&[1], &[0i8]), r), "one type");
        refused(&op(), &inputs(None, None, r), "lacks input 8");
    }
}
