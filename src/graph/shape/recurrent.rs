//! Recurrent operators: the whole sequence, the last state and, of an LSTM, the last cell.

use super::dims::{Shape, expect_agreement};
use super::fact::{Call, Fact, Outputs, Problem};
use crate::graph::Dim;
use crate::graph::op::{Direction, Op};

struct Recurrence {
    direction: Direction,
    hidden_size: Option<i64>,
    batch_first: bool,
    n_outputs: usize,
    /// The axis of `R`, `[directions, …, …]`, that the hidden units are on without their gates.
    hidden_axis: usize,
}

/// `RNN`, `GRU`, `LSTM`, `DynamicQuantizeLSTM`
pub(super) fn recurrent(call: &Call<'_>) -> Outputs {
    let (direction, hidden_size, layout, n_outputs, hidden_axis) = if let Op::RNN(rnn) = call.op {
        (rnn.direction, rnn.hidden_size, rnn.layout, 2, 2)
    } else if let Op::GRU(gru) = call.op {
        (gru.direction, gru.hidden_size, gru.layout, 2, 2)
    } else if let Op::LSTM(lstm) = call.op {
        (lstm.direction, lstm.hidden_size, lstm.layout, 3, 2)
    } else if let Op::DynamicQuantizeLSTM(lstm) = call.op {
        // onnxruntime's quantized weights are transposed
        (lstm.direction, lstm.hidden_size, 0, 3, 1)
    } else {
        return Ok(Vec::new());
    };
    outputs(call, &Recurrence { direction, hidden_size, batch_first: layout == 1, n_outputs, hidden_axis })
}

fn outputs(call: &Call<'_>, recurrence: &Recurrence) -> Outputs {
    for position in 0..3 {
        call.expect_rank(position, 3)?;
    }
    let directions = Dim::Known(match recurrence.direction {
        Direction::Forward | Direction::Reverse => 1,
        Direction::Bidirectional => 2,
    });
    for position in 1..3 {
        expect_agreement("the number of directions", &directions, &call.dim(position, 0))?;
    }
    let hidden = hidden(call, recurrence)?;
    let (batch_axis, time_axis) = if recurrence.batch_first { (0, 1) } else { (1, 0) };
    let (batch, time) = (call.dim(0, batch_axis), call.dim(0, time_axis));
    let (sequence, state): (Shape, Shape) = if recurrence.batch_first {
        (Some(vec![batch.clone(), time, directions.clone(), hidden.clone()]), Some(vec![batch, directions, hidden]))
    } else {
        (Some(vec![time, directions.clone(), batch.clone(), hidden.clone()]), Some(vec![directions, batch, hidden]))
    };
    let state = Fact::new(call.dtype(0), state);
    let mut outputs = vec![state; recurrence.n_outputs];
    outputs[0] = Fact::new(call.dtype(0), sequence);
    Ok(outputs)
}

fn hidden(call: &Call<'_>, recurrence: &Recurrence) -> Result<Dim, Problem> {
    let of_weight = call.dim(2, recurrence.hidden_axis);
    match recurrence.hidden_size.and_then(|size| usize::try_from(size).ok()) {
        Some(stated) => expect_agreement("`hidden_size`", &of_weight, &Dim::Known(stated)),
        None => Ok(of_weight),
    }
}
