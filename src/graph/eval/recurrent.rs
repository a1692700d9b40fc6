//! Recurrent operators: the cells.

use super::EvalError;
use super::args::Args;
use super::floats::{expect_shape, floats, one_type, optional_floats};
use super::invalid;
use super::recurrence::{Options, Recurrence, State};
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) use super::dynamic_lstm::dynamic_quantize_lstm;

/// `RNN`: `h = f(W x + R h + b)`.
pub(super) fn rnn(args: Args<'_>, op: &op::RNN) -> Result<Vec<Option<Tensor>>, EvalError> {
    let (recurrence, weights, x) = prepare(args, &op.into(), 1, &["Tanh"])?;
    let walked = recurrence.walk(recurrence.initial(args, false)?, |direction, going, states| {
        for &(batch, position) in going {
            let state = &mut states[batch];
            let x = &x[recurrence.x_offset(position, batch)..][..recurrence.input_size];
            let sums = weights.sums(direction, x, &state.h);
            state.h = sums.iter().map(|&sum| recurrence.gate(direction, 0, sum)).collect();
        }
    })?;
    recurrence.outputs(walked, args.get(0)?.dtype())
}

/// `GRU`, with the gates in the order update, reset, hidden.
pub(super) fn gru(args: Args<'_>, op: &op::GRU) -> Result<Vec<Option<Tensor>>, EvalError> {
    let (recurrence, weights, x) = prepare(args, &op.into(), 3, &["Sigmoid", "Tanh"])?;
    let n = recurrence.hidden_size;
    let walked = recurrence.walk(recurrence.initial(args, false)?, |direction, going, states| {
        let gate = |sum: f64| recurrence.gate(direction, 0, sum);
        for &(batch, position) in going {
            let h = &mut states[batch].h;
            let from_x = weights.of_x(direction, &x[recurrence.x_offset(position, batch)..][..recurrence.input_size]);
            let from_h = weights.of_h(direction, h);
            let update: Vec<f64> = (0..n).map(|idx| gate(from_x[idx] + from_h[idx])).collect();
            let reset: Vec<f64> = (n..2 * n).map(|idx| gate(from_x[idx] + from_h[idx])).collect();
            let recurrent: Vec<f64> = if op.linear_before_reset {
                reset.iter().zip(&from_h[2 * n..]).map(|(reset, from_h)| reset * from_h).collect()
            } else {
                let kept: Vec<f64> = reset.iter().zip(h.iter()).map(|(reset, h)| reset * h).collect();
                weights.of_h(direction, &kept)[2 * n..].to_vec()
            };
            for (idx, h) in h.iter_mut().enumerate() {
                let hidden = recurrence.gate(direction, 1, from_x[2 * n + idx] + recurrent[idx]);
                *h = (1.0 - update[idx]) * hidden + update[idx] * *h;
            }
        }
    })?;
    recurrence.outputs(walked, args.get(0)?.dtype())
}

/// `LSTM`, with the gates in the order input, output, forget, cell.
pub(super) fn lstm(args: Args<'_>, op: &op::LSTM) -> Result<Vec<Option<Tensor>>, EvalError> {
    let (recurrence, weights, x) = prepare(args, &op.into(), 4, &LSTM_ACTIVATIONS)?;
    let peepholes = Peepholes::of(args, &recurrence)?;
    let walked = recurrence.walk(recurrence.initial(args, true)?, |direction, going, states| {
        for &(batch, position) in going {
            let state = &mut states[batch];
            let x = &x[recurrence.x_offset(position, batch)..][..recurrence.input_size];
            let sums = weights.sums(direction, x, &state.h);
            lstm_cell(&recurrence, direction, &sums, &peepholes, op.input_forget, state);
        }
    })?;
    recurrence.outputs(walked, args.get(0)?.dtype())
}

pub(super) const LSTM_ACTIVATIONS: [&str; 3] = ["Sigmoid", "Tanh", "Tanh"];

/// Weights of the cell that act on the gates, `[n_directions, 3 · hidden]` in the order input, output, forget.
pub(super) struct Peepholes(Option<Vec<f64>>);

impl Peepholes {
    /// From input 7.
    ///
    /// # Errors
    /// When it does not fit.
    pub(super) fn of(args: Args<'_>, recurrence: &Recurrence) -> Result<Peepholes, EvalError> {
        const P: usize = 7;
        expect_shape(args, P, &[recurrence.n_directions, times(3, recurrence.hidden_size)?])?;
        Ok(Peepholes(optional_floats(args, P)?))
    }
}

/// Advances an LSTM's state by the sums that go into its gates.
pub(super) fn lstm_cell(
    recurrence: &Recurrence,
    direction: usize,
    sums: &[f64],
    peepholes: &Peepholes,
    input_forget: bool,
    state: &mut State,
) {
    let n = recurrence.hidden_size;
    let peep = |gate: usize, idx: usize, c: f64| {
        peepholes.0.as_ref().map_or(0.0, |weights| weights[(direction * 3 + gate) * n + idx] * c)
    };
    let gate = |sum: f64| recurrence.gate(direction, 0, sum);
    for idx in 0..n {
        let before = state.c[idx];
        let input = gate(sums[idx] + peep(0, idx, before));
        let forget = if input_forget { 1.0 - input } else { gate(sums[2 * n + idx] + peep(2, idx, before)) };
        let cell = forget * before + input * recurrence.gate(direction, 1, sums[3 * n + idx]);
        let output = gate(sums[n + idx] + peep(1, idx, cell));
        state.c[idx] = cell;
        state.h[idx] = output * recurrence.activate(direction, 2, cell);
    }
}

/// `W [n_directions, gates · hidden, input]`, `R [n_directions, gates · hidden, hidden]` and `B` with the biases of
/// both.
struct Weights {
    w: Vec<f64>,
    r: Vec<f64>,
    b: Option<Vec<f64>>,
    n_rows: usize,
}

impl Weights {
    /// `W x` and its bias.
    fn of_x(&self, direction: usize, x: &[f64]) -> Vec<f64> {
        self.rows(&self.w, direction, x, 0)
    }

    /// `R h` and its bias.
    fn of_h(&self, direction: usize, h: &[f64]) -> Vec<f64> {
        self.rows(&self.r, direction, h, 1)
    }

    fn sums(&self, direction: usize, x: &[f64], h: &[f64]) -> Vec<f64> {
        self.of_x(direction, x).iter().zip(self.of_h(direction, h)).map(|(x, h)| x + h).collect()
    }

    fn rows(&self, matrix: &[f64], direction: usize, vector: &[f64], bias_idx: usize) -> Vec<f64> {
        let row = |row: usize| {
            let weights = &matrix[(direction * self.n_rows + row) * vector.len()..][..vector.len()];
            let bias = self.b.as_ref().map_or(0.0, |b| b[(direction * 2 + bias_idx) * self.n_rows + row]);
            bias + weights.iter().zip(vector).map(|(weight, value)| weight * value).sum::<f64>()
        };
        (0..self.n_rows).map(row).collect()
    }
}

fn prepare(
    args: Args<'_>,
    options: &Options<'_>,
    n_gates: usize,
    defaults: &[&str],
) -> Result<(Recurrence, Weights, Vec<f64>), EvalError> {
    one_type(args, &[0, 1, 2, 3, 5])?;
    let &[_, _, hidden_size] = args.get(2)?.shape() else {
        return Err(invalid(format!("{} takes an R of 3 dimensions", args.op.name())));
    };
    let recurrence = Recurrence::new(args, options, hidden_size, defaults)?;
    let n_rows = times(n_gates, hidden_size)?;
    expect_shape(args, 1, &[recurrence.n_directions, n_rows, recurrence.input_size])?;
    expect_shape(args, 2, &[recurrence.n_directions, n_rows, hidden_size])?;
    expect_shape(args, 3, &[recurrence.n_directions, times(2, n_rows)?])?;
    let weights = Weights { w: floats(args, 1)?, r: floats(args, 2)?, b: optional_floats(args, 3)?, n_rows };
    Ok((recurrence, weights, floats(args, 0)?))
}

/// A size that may overflow where a file holds no elements.
pub(super) fn times(count: usize, size: usize) -> Result<usize, EvalError> {
    count.checked_mul(size).ok_or_else(|| invalid(format!("{count} times {size} does not fit")))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_near as check, input, refused};
    use crate::graph::op::{Direction, GRU, LSTM, Op, RNN};
    use crate::graph::tensor::Tensor;

    fn affine() -> RNN {
        RNN {
            activation_alpha: vec![],
            activation_beta: vec![],
            activations: vec!["Affine".to_string()],
            clip: None,
            direction: Direction::Forward,
            hidden_size: Some(1),
            layout: 0,
        }
    }

    fn gru(linear_before_reset: bool) -> Op {
        let (activation_alpha, activation_beta, activations) = (vec![], vec![], vec![]);
        let (clip, direction, hidden_size, layout) = (None, Direction::Forward, None, 0);
        Op::GRU(GRU {
            activation_alpha,
            activation_beta,
            activations,
            clip,
            direction,
            hidden_size,
            layout,
            linear_before_reset,
        })
    }

    fn lstm(direction: Direction, input_forget: bool) -> Op {
        let (activation_alpha, activation_beta, activations) = (vec![], vec![], vec![]);
        let (clip, hidden_size, layout) = (None, None, 0);
        Op::LSTM(LSTM {
            activation_alpha,
            activation_beta,
            activations,
            clip,
            direction,
            hidden_size,
            input_forget,
            layout,
        })
    }

    /// One row of weights for each gate of one hidden unit.
    fn gates(weights: &[f32]) -> Option<Tensor> {
        input(&[1, weights.len(), 1], weights)
    }

    fn bias(weights: &[f32]) -> Option<Tensor> {
        input(&[1, weights.len()], weights)
    }

    /// Two steps of one sequence of one feature.
    fn x() -> Option<Tensor> {
        input(&[2, 1, 1], &[0.5f32, -1.0])
    }

    #[test]
    fn sequences_are_walked_in_their_direction() {
        let x = || input(&[3, 2, 1], &[1f32, 5.0, 2.0, 6.0, 3.0, 7.0]);
        let lens = || input(&[2], &[3i32, 2]);
        let (w, r) = (|| gates(&[1.0]), || gates(&[10.0]));
        let forward = [1.0, 5.0, 12.0, 56.0, 123.0, 0.0];
        let inputs = || [x(), w(), r(), None, lens()];
        check(&Op::RNN(affine()), &inputs(), &[(&[3, 1, 2, 1], &forward), (&[1, 2, 1], &[123.0, 56.0])]);
        let reverse = RNN { direction: Direction::Reverse, ..affine() };
        let backward = [321.0, 65.0, 32.0, 6.0, 3.0, 0.0];
        check(&Op::RNN(reverse), &inputs(), &[(&[3, 1, 2, 1], &backward), (&[1, 2, 1], &[321.0, 65.0])]);
        let both = RNN {
            direction: Direction::Bidirectional,
            activations: vec!["Affine".to_string(); 2],
            activation_alpha: vec![1.0, 2.0],
            layout: 1,
            ..affine()
        };
        let x = input(&[1, 2, 1], &[1f32, 2.0]);
        let (w, r) = (input(&[2, 1, 1], &[1f32, 1.0]), input(&[2, 1, 1], &[10f32, 10.0]));
        let started = input(&[1, 2, 1], &[3f32, 0.0]);
        let expected: [(&[usize], &[f64]); 2] =
            [(&[1, 2, 2, 1], &[31.0, 82.0, 312.0, 4.0]), (&[1, 2, 1], &[312.0, 82.0])];
        check(&Op::RNN(both), &[x, w, r, None, None, started], &expected);
    }

    #[test]
    fn sums_are_clipped() {
        let x = input(&[2, 1, 1], &[3f32, -9.0]);
        let op = Op::RNN(RNN { clip: Some(2.0), ..affine() });
        check(&op, &[x, gates(&[1.0]), gates(&[0.0])], &[(&[2, 1, 1, 1], &[2.0, -2.0])]);
    }

    // the numbers of onnxruntime 1.31.1
    #[test]
    fn gru_resets_before_or_after() {
        let inputs =
            || [x(), gates(&[0.1, 0.2, 0.3]), gates(&[0.5, -0.5, 0.25]), bias(&[0.1, 0.0, 0.2, 0.0, 0.3, 0.4])];
        let last: &[usize] = &[1, 1, 1];
        let shape: &[usize] = &[2, 1, 1, 1];
        let y = [0.293_800_95, 0.307_691_45];
        check(&gru(false), &inputs(), &[(shape, &y), (last, &y[1..])]);
        let y = [0.244_939_19, 0.189_731_76];
        check(&gru(true), &inputs(), &[(shape, &y), (last, &y[1..])]);
    }

    // the numbers of onnxruntime 1.31.1
    #[test]
    fn lstm_peeps_and_couples() {
        let inputs = || {
            let b = bias(&[0.1, 0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0]);
            vec![x(), gates(&[0.1, 0.2, 0.3, 0.4]), gates(&[0.5, -0.5, 0.25, 1.0]), b]
        };
        let last: &[usize] = &[1, 1, 1];
        let shape: &[usize] = &[2, 1, 1, 1];
        let y = [0.059_765_033, -0.054_077_391];
        let peeping = inputs().into_iter().chain([None, None, None, bias(&[0.3, 0.6, 0.9])]).collect::<Vec<_>>();
        let expected: [(&[usize], &[f64]); 3] = [(shape, &y), (last, &y[1..]), (last, &[-0.120_871_983])];
        check(&lstm(Direction::Forward, false), &peeping, &expected);
        let y = [-0.017_879_725, -0.089_171_670];
        let expected: [(&[usize], &[f64]); 3] = [(shape, &y), (last, &y[..1]), (last, &[-0.031_890_873])];
        check(&lstm(Direction::Reverse, true), &inputs(), &expected);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let op = |rnn| Op::RNN(rnn);
        let inputs = || vec![x(), gates(&[1.0]), gates(&[1.0])];
        refused(&op(RNN { activations: vec!["Step".to_string()], ..affine() }), &inputs(), "`Step`");
        refused(&op(RNN { activations: vec!["Tanh".to_string(); 2], ..affine() }), &inputs(), "1 entries, got 2");
        refused(&op(RNN { hidden_size: Some(2), ..affine() }), &inputs(), "`hidden_size`");
        refused(&op(RNN { layout: 2, ..affine() }), &inputs(), "`layout`");
        refused(&op(RNN { direction: Direction::Bidirectional, activations: vec![], ..affine() }), &inputs(), "shape");
        let long = |length: i32| inputs().into_iter().chain([None, input(&[1], &[length])]).collect::<Vec<_>>();
        refused(&op(affine()), &long(3), "length 3");
        refused(&op(affine()), &long(-1), "length -1");
        let endless = [input::<f32>(&[1 << 60, 1, 0], &[]), input::<f32>(&[1, 1, 0], &[]), gates(&[1.0])];
        refused(&op(affine()), &endless, "too large");
        refused(&lstm(Direction::Forward, false), &inputs(), "shape [1, 4, 1]");
    }
}
