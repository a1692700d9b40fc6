//! `RNN`, `GRU` and `LSTM`, step by step of the sequence.
//!
//! What the input brings to the gates is one product for all steps. Sequences of different lengths walk together: one
//! that is at its end keeps its state, and a backward walk reads each from its own end.

use super::{Lowered, Lowering};
use crate::graph::Op;
use crate::graph::eval::{Activation, Cell as Kind, RecurrentOptions, activations};
use crate::graph::op::{Cast, Direction, RoundMode};
use crate::graph::tensor::{DType, Tensor};
use crate::learn::exec::ExecError;
use crate::learn::exec::emit::Emitter;
use crate::learn::exec::program::Id;
use crate::learn::kernels::elementwise::Unary;

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    match Kind::of(op) {
        Some((kind, options)) => walked(lowering, kind, &options),
        None => Ok(None),
    }
}

/// Sizes, and what both directions share.
struct Walk {
    kind: Kind,
    n_steps: usize,
    n_batches: usize,
    hidden: usize,
    lengths: Option<Lengths>,
    clip: Option<f32>,
}

/// Sequences of different lengths.
struct Lengths {
    /// `[steps, batch, 1]`: 1 where a sequence is not yet at its end, else 0.
    going: Id,
    /// `[steps, batch]`: where the element of a sequence walked backwards lies among all.
    rows: Id,
}

/// What comes of one direction: every hidden state `[steps, batch, hidden]`, and the last states `[batch, hidden]`.
struct Walked {
    y: Id,
    h: Id,
    c: Option<Id>,
}

fn walked(lowering: &mut Lowering<'_, '_>, kind: Kind, options: &RecurrentOptions<'_>) -> Lowered {
    let [mut x, w, r] = [lowering.input(0)?, lowering.input(1)?, lowering.input(2)?];
    let is_batch_first = options.layout == 1;
    if is_batch_first {
        x = lowering.emit().transpose(x, &[1, 0, 2]);
    }
    let program = &lowering.compiler.emitter.program;
    let (&[n_steps, n_batches, _], &[n_directions, _, hidden]) = (program.shape(x), program.shape(r)) else {
        return Ok(None);
    };
    if [n_steps, n_batches, n_directions, hidden].contains(&0) {
        return Ok(None);
    }
    let each = activations(options, kind.default_activations(), n_directions);
    let each = each.map_err(|source| lowering.refused(source))?;
    let lengths = lengths(lowering, n_steps, n_batches)?;
    let walk = Walk { kind, n_steps, n_batches, hidden, lengths, clip: options.clip };
    let mut directions = Vec::new();
    for direction in 0..n_directions {
        let is_backward = direction == 1 || options.direction == Direction::Reverse;
        let activations = &each[direction * each.len() / n_directions..][..each.len() / n_directions];
        let cell = cell(lowering, &walk, direction, [w, r], activations)?;
        let initial = initial(lowering, &walk, direction, is_batch_first)?;
        directions.push(walk_direction(lowering.emit(), &walk, &cell, x, initial, is_backward));
    }
    Ok(Some(outputs(lowering.emit(), &walk, &directions, is_batch_first)))
}

/// What input 4 says of the sequences' lengths; nothing where all are as long as they can be.
fn lengths(lowering: &mut Lowering<'_, '_>, n_steps: usize, n_batches: usize) -> Result<Option<Lengths>, ExecError> {
    let Some(lengths) = lowering.optional(4)? else { return Ok(None) };
    let signed = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
    if let Ok(Some(known)) = lowering.integers(4) {
        if known.iter().all(|&length| length == signed(n_steps)) {
            return Ok(None);
        }
        if let Some(length) = known.iter().find(|&&length| !(0..=signed(n_steps)).contains(&length)) {
            let what = format!("a sequence of length {length} in {n_steps} steps");
            return Err(lowering.unsupported(what, "give lengths that fit the input"));
        }
    }
    let (batch, all) = ([n_batches], [n_steps, n_batches]);
    let cast = Op::Cast(Cast { to: DType::I64, saturate: true, round_mode: RoundMode::Up });
    let lengths = lowering.plain(&cast, &[lengths], DType::I64, &batch)?;
    let steps = Tensor::new(&[n_steps, 1], (0..n_steps).map(signed).collect())?;
    let numbers = Tensor::vector((0..n_batches).map(signed).collect());
    let emit = lowering.emit();
    let (steps, numbers) = (emit.constant(steps), emit.constant(numbers));
    let (one, count) = (emit.constant(Tensor::scalar(1i64)), emit.constant(Tensor::scalar(signed(n_batches))));
    let is_going = lowering.plain(&Op::Less, &[steps, lengths], DType::Bool, &all)?;
    let last = lowering.plain(&Op::Sub, &[lengths, one], DType::I64, &batch)?;
    let from_end = lowering.plain(&Op::Sub, &[last, steps], DType::I64, &all)?;
    let places = lowering.plain(&Op::Where, &[is_going, from_end, steps], DType::I64, &all)?;
    let starts = lowering.plain(&Op::Mul, &[places, count], DType::I64, &all)?;
    let rows = lowering.plain(&Op::Add, &[starts, numbers], DType::I64, &all)?;
    let emit = lowering.emit();
    let going = emit.plain_as_float(is_going);
    Ok(Some(Lengths { going: emit.reshape(going, &[n_steps, n_batches, 1]), rows }))
}

/// The states of a direction before its first step, `h` and for an LSTM `c`: zero where they are not given.
fn initial(
    lowering: &mut Lowering<'_, '_>,
    walk: &Walk,
    direction: usize,
    is_batch_first: bool,
) -> Result<[Id; 2], ExecError> {
    let shape = [walk.n_batches, walk.hidden];
    let mut states = [0; 2];
    for (position, state) in states.iter_mut().enumerate() {
        let is_given = position == 0 || matches!(walk.kind, Kind::Lstm { .. });
        let given = if is_given { lowering.optional(5 + position)? } else { None };
        let emit = lowering.emit();
        *state = match given {
            Some(given) => {
                let part = emit.narrow(given, usize::from(is_batch_first), direction, 1);
                emit.reshape(part, &shape)
            }
            None => {
                let zero = emit.scalar(0.0);
                emit.expand(zero, &shape)
            }
        };
    }
    Ok(states)
}

/// The weights of one direction.
struct Cell<'a> {
    /// `[gates · hidden, input]`
    w: Id,
    /// `[hidden, gates · hidden]`: transposed once, and not by the product of every step.
    r: Id,
    /// Of a GRU that resets before the product: the columns of `r` for update and reset gate, and for the hidden gate.
    halves: Option<[Id; 2]>,
    /// What is added to the product with `w`, `[gates · hidden]`.
    bias: Option<Id>,
    /// Of a GRU that resets after the product: what is added to the product with `r`, `[gates · hidden]`.
    inner_bias: Option<Id>,
    /// Of an LSTM: the weights of the cell for the gates input, output, forget.
    peepholes: Option<[Id; 3]>,
    activations: &'a [Activation],
}

fn cell<'a>(
    lowering: &mut Lowering<'_, '_>,
    walk: &Walk,
    direction: usize,
    [w, r]: [Id; 2],
    activations: &'a [Activation],
) -> Result<Cell<'a>, ExecError> {
    let n_rows = walk.kind.n_gates() * walk.hidden;
    let hidden = walk.hidden;
    let biases = lowering.optional(3)?;
    let peepholes = match walk.kind {
        Kind::Lstm { .. } => lowering.optional(7)?,
        Kind::Rnn | Kind::Gru { .. } => None,
    };
    let emit = lowering.emit();
    let n_inputs = emit.shape(w)[2];
    let matrix = |emit: &mut Emitter, matrices: Id, n_columns: usize| {
        let part = emit.narrow(matrices, 0, direction, 1);
        emit.reshape(part, &[n_rows, n_columns])
    };
    let (w, r) = (matrix(emit, w, n_inputs), matrix(emit, r, hidden));
    let r = emit.transpose(r, &[1, 0]);
    let halves = match walk.kind {
        Kind::Gru { linear_before_reset: false } => Some(halves(emit, hidden, r)),
        Kind::Rnn | Kind::Gru { .. } | Kind::Lstm { .. } => None,
    };
    let biases = biases.map(|biases| {
        let both = emit.narrow(biases, 0, direction, 1);
        let both = emit.reshape(both, &[2 * n_rows]);
        [emit.narrow(both, 0, 0, n_rows), emit.narrow(both, 0, n_rows, n_rows)]
    });
    let (bias, inner_bias) = match (biases, walk.kind) {
        (Some([of_x, of_h]), Kind::Gru { linear_before_reset: true }) => (Some(of_x), Some(of_h)),
        (Some([of_x, of_h]), _) => (Some(emit.add(of_x, of_h)), None),
        (None, _) => (None, None),
    };
    let peepholes = peepholes.map(|peepholes| {
        let row = emit.narrow(peepholes, 0, direction, 1);
        let row = emit.reshape(row, &[3 * hidden]);
        [0, 1, 2].map(|gate| emit.narrow(row, 0, gate * hidden, hidden))
    });
    Ok(Cell { w, r, halves, bias, inner_bias, peepholes, activations })
}

fn walk_direction(
    emit: &mut Emitter,
    walk: &Walk,
    cell: &Cell<'_>,
    x: Id,
    [mut h, mut c]: [Id; 2],
    is_backward: bool,
) -> Walked {
    let (n_steps, n_batches) = (walk.n_steps, walk.n_batches);
    let n_inputs = emit.shape(x)[2];
    let mut x = emit.reshape(x, &[n_steps * n_batches, n_inputs]);
    let reordered = walk.lengths.as_ref().filter(|_| is_backward).map(|lengths| lengths.rows);
    if let Some(rows) = reordered {
        let gathered = emit.gather(x, 0, rows);
        x = emit.reshape(gathered, &[n_steps * n_batches, n_inputs]);
    }
    let sums = match cell.bias {
        Some(bias) => emit.linear(x, cell.w, bias, true, false),
        None => emit.matmul(x, cell.w, false, true),
    };
    let is_whole = is_whole_step(walk, cell);
    let mut states = Vec::with_capacity(n_steps);
    for count in 0..n_steps {
        let step = if is_backward && reordered.is_none() { n_steps - 1 - count } else { count };
        let sums = emit.narrow(sums, 0, step * n_batches, n_batches);
        let (mut new_h, mut new_c) = match walk.kind {
            Kind::Gru { .. } if is_whole => {
                let product = cell.product(emit, h);
                (emit.gru_cell([sums, product, h])[0], c)
            }
            Kind::Lstm { .. } if is_whole => {
                let product = cell.product(emit, h);
                let [h, c, _] = emit.lstm_cell([sums, product, c]);
                (h, c)
            }
            Kind::Rnn => (rnn_step(emit, walk, cell, sums, h), c),
            Kind::Gru { .. } => (gru_step(emit, walk, cell, sums, h), c),
            Kind::Lstm { input_forget } => lstm_step(emit, walk, cell, sums, [h, c], input_forget),
        };
        if let Some(lengths) = &walk.lengths {
            let going = emit.narrow(lengths.going, 0, count, 1);
            let going = emit.reshape(going, &[n_batches, 1]);
            new_h = blend(emit, going, new_h, h);
            if new_c != c {
                new_c = blend(emit, going, new_c, c);
            }
        }
        (h, c) = (new_h, new_c);
        states.push(h);
    }
    if is_backward && reordered.is_none() {
        states.reverse();
    }
    let mut y = emit.concat(0, &states);
    if let Some(rows) = reordered {
        let gathered = emit.gather(y, 0, rows);
        y = emit.reshape(gathered, &[n_steps * n_batches, walk.hidden]);
    }
    let mut y = emit.reshape(y, &[n_steps, n_batches, walk.hidden]);
    if let Some(lengths) = &walk.lengths {
        y = emit.mul(y, lengths.going);
    }
    Walked { y, h, c: matches!(walk.kind, Kind::Lstm { .. }).then_some(c) }
}

impl Cell<'_> {
    /// What the state brings to the gates.
    fn product(&self, emit: &mut Emitter, h: Id) -> Id {
        match self.inner_bias {
            Some(bias) => emit.linear(h, self.r, bias, false, false),
            None => emit.matmul(h, self.r, false, false),
        }
    }
}

/// The columns of a GRU's first two gates, and those of the last.
fn halves(emit: &mut Emitter, hidden: usize, x: Id) -> [Id; 2] {
    [emit.narrow(x, 1, 0, 2 * hidden), emit.narrow(x, 1, 2 * hidden, hidden)]
}

/// Whether a step is one primitive behind the product with the state: ONNX's own activations and nothing unusual.
fn is_whole_step(walk: &Walk, cell: &Cell<'_>) -> bool {
    let has_primitive = match walk.kind {
        Kind::Gru { linear_before_reset } => linear_before_reset,
        Kind::Lstm { input_forget } => !input_forget && cell.peepholes.is_none(),
        Kind::Rnn => false,
    };
    let usual = [Activation::Sigmoid, Activation::Tanh, Activation::Tanh];
    has_primitive && walk.clip.is_none() && usual.starts_with(cell.activations)
}

/// `new` where `going` is 1, `old` where it is 0.
fn blend(emit: &mut Emitter, going: Id, new: Id, old: Id) -> Id {
    let new = emit.mul(going, new);
    let stays = emit.affine(going, -1.0, 1.0);
    let old = emit.mul(stays, old);
    emit.add(new, old)
}

/// `h = f(W x + R h + b)`
fn rnn_step(emit: &mut Emitter, walk: &Walk, cell: &Cell<'_>, sums: Id, h: Id) -> Id {
    let product = cell.product(emit, h);
    let sums = emit.add(sums, product);
    gate(emit, walk, cell, 0, sums)
}

/// The gates in the order update, reset, hidden.
fn gru_step(emit: &mut Emitter, walk: &Walk, cell: &Cell<'_>, sums: Id, h: Id) -> Id {
    let n = walk.hidden;
    let from_x = halves(emit, n, sums);
    // of a GRU that resets after the product its last part, else what makes it
    let (product, last) = match cell.halves {
        Some([of_gates, of_last]) => (emit.matmul(h, of_gates, false, false), of_last),
        None => {
            let whole = cell.product(emit, h);
            halves(emit, n, whole).into()
        }
    };
    let gates = emit.add(from_x[0], product);
    let gates = gate(emit, walk, cell, 0, gates);
    let (update, reset) = (emit.narrow(gates, 1, 0, n), emit.narrow(gates, 1, n, n));
    let recurrent = match cell.halves {
        Some(_) => {
            let kept = emit.mul(reset, h);
            emit.matmul(kept, last, false, false)
        }
        None => emit.mul(reset, last),
    };
    let hidden = emit.add(from_x[1], recurrent);
    let hidden = gate(emit, walk, cell, 1, hidden);
    blend(emit, update, h, hidden)
}

/// The gates in the order input, output, forget, cell. What leaves the cell is not clipped, as in the reference.
fn lstm_step(
    emit: &mut Emitter,
    walk: &Walk,
    cell: &Cell<'_>,
    sums: Id,
    [h, c]: [Id; 2],
    input_forget: bool,
) -> (Id, Id) {
    let n = walk.hidden;
    let product = cell.product(emit, h);
    let sums = emit.add(sums, product);
    let candidate = emit.narrow(sums, 1, 3 * n, n);
    let candidate = gate(emit, walk, cell, 1, candidate);
    // without peepholes the three gates are one call
    let gates = cell.peepholes.is_none().then(|| {
        let gates = emit.narrow(sums, 1, 0, 3 * n);
        gate(emit, walk, cell, 0, gates)
    });
    let one = |emit: &mut Emitter, number: usize, state: Id| match (gates, cell.peepholes) {
        (Some(gates), _) => emit.narrow(gates, 1, number * n, n),
        (None, Some(peepholes)) => {
            let peeped = emit.mul(state, peepholes[number]);
            let sum = emit.narrow(sums, 1, number * n, n);
            let sum = emit.add(sum, peeped);
            gate(emit, walk, cell, 0, sum)
        }
        (None, None) => unreachable!("there are gates where there are no peepholes"),
    };
    let input = one(emit, 0, c);
    let forget = if input_forget { emit.affine(input, -1.0, 1.0) } else { one(emit, 2, c) };
    let kept = emit.mul(forget, c);
    let new = emit.mul(input, candidate);
    let c = emit.add(kept, new);
    let output = one(emit, 1, c);
    let out = activated(emit, cell.activations[2], c);
    (emit.mul(output, out), c)
}

/// The activation with this number of what goes into a gate, clipped where the operator says so.
fn gate(emit: &mut Emitter, walk: &Walk, cell: &Cell<'_>, number: usize, sums: Id) -> Id {
    let clipped = match walk.clip {
        Some(clip) => emit.unary(Unary::Clip { min: -clip, max: clip }, sums),
        None => sums,
    };
    activated(emit, cell.activations[number], clipped)
}

fn activated(emit: &mut Emitter, activation: Activation, x: Id) -> Id {
    let narrow = |number: f64| number as f32;
    let function = match activation {
        Activation::Affine(alpha, beta) => return emit.affine(x, alpha, beta),
        Activation::ScaledTanh(alpha, beta) => {
            let inner = emit.affine(x, beta, 0.0);
            let y = emit.unary(Unary::Tanh, inner);
            return emit.affine(y, alpha, 0.0);
        }
        Activation::Elu(alpha) => Unary::Elu { alpha: narrow(alpha) },
        Activation::HardSigmoid(alpha, beta) => Unary::HardSigmoid { alpha: narrow(alpha), beta: narrow(beta) },
        Activation::LeakyRelu(alpha) => Unary::LeakyRelu { alpha: narrow(alpha) },
        Activation::Relu => Unary::Relu,
        Activation::Sigmoid => Unary::Sigmoid,
        Activation::Softplus => Unary::Softplus,
        Activation::Softsign => Unary::Softsign,
        Activation::Tanh => Unary::Tanh,
        Activation::ThresholdedRelu(alpha) => Unary::ThresholdedRelu { alpha: narrow(alpha) },
    };
    emit.unary(function, x)
}

/// `Y`, `Y_h` and, of an LSTM, `Y_c` from all directions.
fn outputs(emit: &mut Emitter, walk: &Walk, directions: &[Walked], is_batch_first: bool) -> Vec<Id> {
    let Walk { n_steps, n_batches, hidden, .. } = *walk;
    let parts: Vec<Id> =
        directions.iter().map(|walked| emit.reshape(walked.y, &[n_steps, 1, n_batches, hidden])).collect();
    let mut y = emit.concat(1, &parts);
    if is_batch_first {
        y = emit.transpose(y, &[2, 0, 1, 3]);
    }
    let mut last = |states: Vec<Id>| {
        let shape = if is_batch_first { [n_batches, 1, hidden] } else { [1, n_batches, hidden] };
        let parts: Vec<Id> = states.into_iter().map(|state| emit.reshape(state, &shape)).collect();
        emit.concat(usize::from(is_batch_first), &parts)
    };
    let h = last(directions.iter().map(|walked| walked.h).collect());
    let c: Vec<Id> = directions.iter().filter_map(|walked| walked.c).collect();
    let c = (!c.is_empty()).then(|| last(c));
    [y, h].into_iter().chain(c).collect()
}
