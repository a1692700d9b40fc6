//! What the recurrent operators share: sizes, sequences walked in their directions, activations.

use super::args::{Args, allocation};
use super::floats::{expect_shape, integers, optional_floats};
use super::numbers::Numbers;
use super::{EvalError, invalid};
#[cfg(feature = "learn")]
use crate::graph::op::Op;
use crate::graph::op::{self, Direction};
use crate::graph::tensor::{DType, Tensor};

/// The attributes that every recurrent operator has.
pub(crate) struct Options<'a> {
    pub(crate) activations: &'a [String],
    pub(crate) alphas: &'a [f32],
    pub(crate) betas: &'a [f32],
    pub(crate) clip: Option<f32>,
    pub(crate) direction: Direction,
    pub(crate) hidden_size: Option<i64>,
    pub(crate) layout: i64,
}

macro_rules! options_of {
    ($($kind:ident),*) => {$(
        impl<'a> From<&'a op::$kind> for Options<'a> {
            fn from(op: &'a op::$kind) -> Options<'a> {
                Options {
                    activations: &op.activations,
                    alphas: &op.activation_alpha,
                    betas: &op.activation_beta,
                    clip: op.clip,
                    direction: op.direction,
                    hidden_size: op.hidden_size,
                    layout: op.layout,
                }
            }
        }
    )*};
}

options_of!(RNN, GRU, LSTM);

/// Which operator it is, and what only that one has.
#[cfg(feature = "learn")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Rnn,
    Gru { linear_before_reset: bool },
    Lstm { input_forget: bool },
}

#[cfg(feature = "learn")]
impl Cell {
    /// That of an operator, with the attributes that all have; none of an operator of another kind.
    pub(crate) fn of(op: &Op) -> Option<(Cell, Options<'_>)> {
        match op {
            Op::RNN(rnn) => Some((Cell::Rnn, rnn.into())),
            Op::GRU(gru) => Some((Cell::Gru { linear_before_reset: gru.linear_before_reset }, gru.into())),
            Op::LSTM(lstm) => Some((Cell::Lstm { input_forget: lstm.input_forget }, lstm.into())),
            _ => None,
        }
    }

    pub(crate) fn n_gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm { .. } => 4,
        }
    }

    pub(crate) fn default_activations(self) -> &'static [&'static str] {
        match self {
            Cell::Rnn => &["Tanh"],
            Cell::Gru { .. } => &["Sigmoid", "Tanh"],
            Cell::Lstm { .. } => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// Sizes and sequences of a recurrent operator.
pub(super) struct Recurrence {
    pub(super) n_steps: usize,
    pub(super) n_batches: usize,
    pub(super) input_size: usize,
    pub(super) hidden_size: usize,
    pub(super) n_directions: usize,
    pub(super) lengths: Vec<usize>,
    activations: Vec<Activation>,
    clip: Option<f64>,
    direction: Direction,
    batch_first: bool,
}

/// What one sequence of the batch carries from step to step; `c` stays empty but in an LSTM.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) h: Vec<f64>,
    pub(super) c: Vec<f64>,
}

/// Every hidden state on the way, and the states at the end by direction and batch.
pub(super) struct Walked {
    y: Vec<f64>,
    last: Vec<State>,
}

impl Recurrence {
    /// From `X`, the hidden size and the names of the default activations.
    ///
    /// # Errors
    /// When attributes are outside the operator's definition, or `X` or `sequence_lens` (input 4) does not fit.
    pub(super) fn new(
        args: Args<'_>,
        options: &Options<'_>,
        hidden_size: usize,
        defaults: &[&str],
    ) -> Result<Recurrence, EvalError> {
        let batch_first = match options.layout {
            0 => false,
            1 => true,
            other => return Err(invalid(format!("`layout` should be 0 or 1, got {other}"))),
        };
        let &[first, second, input_size] = args.get(0)?.shape() else {
            return Err(invalid(format!("{} takes an X of 3 dimensions", args.op.name())));
        };
        let (n_steps, n_batches) = if batch_first { (second, first) } else { (first, second) };
        allocation(&[n_steps, n_batches])?;
        if options.hidden_size.is_some_and(|stated| usize::try_from(stated) != Ok(hidden_size)) {
            return Err(invalid(format!("`hidden_size` is {:?}, R has {hidden_size}", options.hidden_size)));
        }
        let n_directions = if options.direction == Direction::Bidirectional { 2 } else { 1 };
        Ok(Recurrence {
            n_steps,
            n_batches,
            input_size,
            hidden_size,
            n_directions,
            lengths: lengths(args, n_steps, n_batches)?,
            activations: activations(options, defaults, n_directions)?,
            clip: options.clip.map(f64::from),
            direction: options.direction,
            batch_first,
        })
    }

    /// The states before the first step, by direction and batch: zero, or `initial_h` (input 5) and `initial_c` (6).
    ///
    /// # Errors
    /// When they do not fit.
    pub(super) fn initial(&self, args: Args<'_>, has_cell: bool) -> Result<Vec<State>, EvalError> {
        let given = |position: usize| {
            expect_shape(args, position, &self.state_shape())?;
            optional_floats(args, position)
        };
        allocation(&self.state_shape())?;
        let (h, c) = (given(5)?, if has_cell { given(6)? } else { None });
        let of = |values: &Option<Vec<f64>>, direction: usize, batch: usize| match values {
            Some(values) => values[self.state_offset(direction, batch)..][..self.hidden_size].to_vec(),
            None => vec![0.0; self.hidden_size],
        };
        let places = (0..self.n_directions).flat_map(|direction| (0..self.n_batches).map(move |b| (direction, b)));
        let state = |(direction, batch)| State {
            h: of(&h, direction, batch),
            c: if has_cell { of(&c, direction, batch) } else { Vec::new() },
        };
        Ok(places.map(state).collect())
    }

    /// Takes every sequence through its steps. `step` is given the direction, the (batch, position) of the sequences
    /// that are not yet at their end, and the states of all, which it advances.
    ///
    /// # Errors
    /// When the output is too large.
    pub(super) fn walk(
        &self,
        mut states: Vec<State>,
        mut step: impl FnMut(usize, &[(usize, usize)], &mut [State]),
    ) -> Result<Walked, EvalError> {
        let mut y = vec![0.0; allocation(&self.y_shape())?];
        let n_walked = self.lengths.iter().copied().max().unwrap_or(0);
        for (direction, states) in states.chunks_mut(self.n_batches.max(1)).enumerate() {
            let backward = self.direction == Direction::Reverse || direction == 1;
            for count in 0..n_walked {
                let going = self.lengths.iter().enumerate().filter(|&(_, &length)| count < length);
                let at = |(batch, &length): (usize, &usize)| (batch, if backward { length - 1 - count } else { count });
                let going: Vec<(usize, usize)> = going.map(at).collect();
                step(direction, &going, states);
                for &(batch, position) in &going {
                    let offset = self.y_offset(position, direction, batch);
                    y[offset..][..self.hidden_size].copy_from_slice(&states[batch].h);
                }
            }
        }
        Ok(Walked { y, last: states })
    }

    /// `Y`, `Y_h` and, where there are cells, `Y_c`.
    ///
    /// # Errors
    /// When they are too large.
    pub(super) fn outputs(&self, walked: Walked, dtype: DType) -> Result<Vec<Option<Tensor>>, EvalError> {
        let mut outputs = vec![Some(Numbers::Float(walked.y).into_tensor(dtype, &self.y_shape())?)];
        let n_elements = allocation(&self.state_shape())?;
        let last = |part: fn(&State) -> &[f64]| {
            let mut values = vec![0.0; n_elements];
            for (place, state) in walked.last.iter().enumerate() {
                let offset = self.state_offset(place / self.n_batches, place % self.n_batches);
                values[offset..][..self.hidden_size].copy_from_slice(part(state));
            }
            Numbers::Float(values).into_tensor(dtype, &self.state_shape())
        };
        outputs.push(Some(last(|state| &state.h)?));
        if walked.last.iter().all(|state| state.c.len() == self.hidden_size) {
            outputs.push(Some(last(|state| &state.c)?));
        }
        Ok(outputs)
    }

    /// Where the input of a sequence at a position begins in `X`.
    pub(super) fn x_offset(&self, position: usize, batch: usize) -> usize {
        let place = if self.batch_first { batch * self.n_steps + position } else { position * self.n_batches + batch };
        place * self.input_size
    }

    /// The activation with this number of the sum that goes into a gate, clipped where the operator says so.
    pub(super) fn gate(&self, direction: usize, number: usize, sum: f64) -> f64 {
        let clipped = match self.clip {
            Some(clip) => sum.min(clip).max(-clip),
            None => sum,
        };
        self.activate(direction, number, clipped)
    }

    /// The activation with this number. What an LSTM lets out of its cell goes through without a clip: the
    /// specification leaves that open, onnxruntime does so.
    pub(super) fn activate(&self, direction: usize, number: usize, x: f64) -> f64 {
        let per_direction = self.activations.len() / self.n_directions;
        self.activations[direction * per_direction + number].of(x)
    }

    fn y_shape(&self) -> [usize; 4] {
        let Recurrence { n_steps, n_batches, hidden_size, n_directions, .. } = *self;
        match self.batch_first {
            true => [n_batches, n_steps, n_directions, hidden_size],
            false => [n_steps, n_directions, n_batches, hidden_size],
        }
    }

    fn y_offset(&self, position: usize, direction: usize, batch: usize) -> usize {
        let place = match self.batch_first {
            true => (batch * self.n_steps + position) * self.n_directions + direction,
            false => (position * self.n_directions + direction) * self.n_batches + batch,
        };
        place * self.hidden_size
    }

    fn state_shape(&self) -> [usize; 3] {
        match self.batch_first {
            true => [self.n_batches, self.n_directions, self.hidden_size],
            false => [self.n_directions, self.n_batches, self.hidden_size],
        }
    }

    fn state_offset(&self, direction: usize, batch: usize) -> usize {
        let place = match self.batch_first {
            true => batch * self.n_directions + direction,
            false => direction * self.n_batches + batch,
        };
        place * self.hidden_size
    }
}

fn lengths(args: Args<'_>, n_steps: usize, n_batches: usize) -> Result<Vec<usize>, EvalError> {
    const SEQUENCE_LENS: usize = 4;
    expect_shape(args, SEQUENCE_LENS, &[n_batches])?;
    if args.optional(SEQUENCE_LENS).is_none() {
        return Ok(vec![n_steps; allocation(&[n_batches])?]);
    }
    let length = |length: i128| {
        let size = usize::try_from(length).ok().filter(|&size| size <= n_steps);
        size.ok_or_else(|| invalid(format!("a sequence of length {length} in {n_steps} steps")))
    };
    integers(args, SEQUENCE_LENS)?.into_iter().map(length).collect()
}

/// An activation with its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Activation {
    Affine(f64, f64),
    Elu(f64),
    HardSigmoid(f64, f64),
    LeakyRelu(f64),
    Relu,
    ScaledTanh(f64, f64),
    Sigmoid,
    Softplus,
    Softsign,
    Tanh,
    ThresholdedRelu(f64),
}

impl Activation {
    fn of(self, x: f64) -> f64 {
        match self {
            Activation::Affine(alpha, beta) => alpha * x + beta,
            Activation::Elu(alpha) if x < 0.0 => alpha * x.exp_m1(),
            Activation::HardSigmoid(alpha, beta) => (alpha * x + beta).clamp(0.0, 1.0),
            Activation::LeakyRelu(alpha) if x < 0.0 => alpha * x,
            Activation::Elu(_) | Activation::LeakyRelu(_) => x,
            Activation::Relu if x < 0.0 => 0.0,
            Activation::Relu => x,
            Activation::ScaledTanh(alpha, beta) => alpha * (beta * x).tanh(),
            Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Activation::Softsign => x / (1.0 + x.abs()),
            Activation::Tanh => x.tanh(),
            Activation::ThresholdedRelu(alpha) if x < alpha => 0.0,
            Activation::ThresholdedRelu(_) => x,
        }
    }
}

/// The activations of every direction. Each takes its parameters from what is left of the lists.
///
/// # Errors
/// When there are not as many as the operator has, or one is unknown.
pub(crate) fn activations(
    options: &Options<'_>,
    defaults: &[&str],
    n_directions: usize,
) -> Result<Vec<Activation>, EvalError> {
    let names: Vec<&str> = match options.activations {
        [] => defaults.repeat(n_directions),
        names => names.iter().map(String::as_str).collect(),
    };
    if names.len() != defaults.len() * n_directions {
        let expected = defaults.len() * n_directions;
        return Err(invalid(format!("`activations` should have {expected} entries, got {}", names.len())));
    }
    let (mut alphas, mut betas) = (options.alphas.iter(), options.betas.iter());
    let mut alpha = |default: f64| alphas.next().map_or(default, |&alpha| alpha.into());
    let mut beta = |default: f64| betas.next().map_or(default, |&beta| beta.into());
    let mut activation = |name: &str| {
        Ok(match name.to_ascii_lowercase().as_str() {
            "affine" => Activation::Affine(alpha(1.0), beta(0.0)),
            "elu" => Activation::Elu(alpha(1.0)),
            // the attributes' own defaults are floats of 32 bits
            "hardsigmoid" => Activation::HardSigmoid(alpha(0.2f32.into()), beta(0.5)),
            "leakyrelu" => Activation::LeakyRelu(alpha(0.01f32.into())),
            "relu" => Activation::Relu,
            "scaledtanh" => Activation::ScaledTanh(alpha(1.0), beta(1.0)),
            "sigmoid" => Activation::Sigmoid,
            "softplus" => Activation::Softplus,
            "softsign" => Activation::Softsign,
            "tanh" => Activation::Tanh,
            "thresholdedrelu" => Activation::ThresholdedRelu(alpha(1.0)),
            _ => return Err(invalid(format!("`{name}` is not an activation of a recurrent operator"))),
        })
    };
    names.into_iter().map(&mut activation).collect()
}
