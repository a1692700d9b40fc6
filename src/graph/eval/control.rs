//! Operators with graphs inside: If, Loop, Scan.

use super::args::{Args, allocation, axis};
use super::layout::{joined, pick_along};
use super::numbers::int_scalar;
use super::run::run_body;
use super::shapes::strides;
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::Tensor;
use crate::graph::{Dim, Graph, ValueInfo};

/// The most rounds of a loop: a hostile one must come to an end.
const MOST_ROUNDS: usize = 1 << 24;

pub(super) fn if_(args: Args<'_>, op: &op::If) -> Result<Vec<Option<Tensor>>, EvalError> {
    let branch = if condition(args.get(0)?)? { &op.then_branch } else { &op.else_branch };
    Ok(run_body(branch, Vec::new(), args.scope)?.into_iter().map(Some).collect())
}

fn condition(tensor: &Tensor) -> Result<bool, EvalError> {
    match tensor.as_slice::<bool>()? {
        &[only] => Ok(only),
        _ => Err(invalid(format!("a condition of shape {:?}", tensor.shape()))),
    }
}

pub(super) fn loop_(args: Args<'_>, op: &op::Loop) -> Result<Vec<Option<Tensor>>, EvalError> {
    let most = args.optional(0).map(int_scalar).transpose()?;
    let mut goes_on = args.optional(1).map_or(Ok(true), condition)?;
    let heeds_condition = args.optional(1).is_some();
    let mut carried = given(args.inputs.get(2..).unwrap_or_default())?;
    let n_carried = carried.len();
    let mut accumulated = Accumulated::new(&op.body, n_carried + 1)?;
    let mut round = 0i64;
    while goes_on && most.is_none_or(|most| round < most) {
        if usize::try_from(round).is_ok_and(|round| round >= MOST_ROUNDS) {
            return Err(invalid(format!("the loop has not ended after {MOST_ROUNDS} rounds")));
        }
        let mut inputs = vec![Tensor::scalar(round), Tensor::scalar(goes_on)];
        inputs.append(&mut carried);
        let mut outputs = run_body(&op.body, inputs, args.scope)?;
        accumulated.push(outputs.split_off(n_carried + 1));
        goes_on = condition(&outputs.remove(0))? || !heeds_condition;
        carried = outputs;
        round += 1;
    }
    let scanned = accumulated.finish(|_| Ok((0, false)))?;
    Ok(carried.into_iter().chain(scanned).map(Some).collect())
}

fn given(inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, EvalError> {
    let value = |input: &Option<Tensor>| input.clone().ok_or_else(|| invalid("an initial value is left out"));
    inputs.iter().map(value).collect()
}

pub(super) fn scan(args: Args<'_>, op: &op::Scan) -> Result<Vec<Option<Tensor>>, EvalError> {
    let mut state = given(args.inputs)?;
    let n_scanned = usize::try_from(op.num_scan_inputs).ok().filter(|&n| n > 0);
    let n_state = n_scanned.and_then(|n| state.len().checked_sub(n));
    let n_state = n_state.ok_or_else(|| invalid(format!("num_scan_inputs is {}", op.num_scan_inputs)))?;
    let sequences = state.split_off(n_state);
    let mut walks = Vec::with_capacity(sequences.len());
    for (position, sequence) in sequences.iter().enumerate() {
        let along = axis(listed(&op.scan_input_axes, position, sequences.len())?, sequence.rank())?;
        walks.push((along, is_backward(&op.scan_input_directions, position, sequences.len())?));
    }
    let lengths: Vec<usize> = sequences.iter().zip(&walks).map(|(sequence, walk)| sequence.shape()[walk.0]).collect();
    let n_rounds = lengths[0];
    if n_rounds > MOST_ROUNDS {
        return Err(invalid(format!("sequences of {n_rounds} elements, at most {MOST_ROUNDS} are scanned")));
    }
    if lengths.iter().any(|&length| length != n_rounds) {
        return Err(invalid(format!("sequences of lengths {lengths:?}")));
    }
    let mut accumulated = Accumulated::new(&op.body, n_state)?;
    for round in 0..n_rounds {
        let mut inputs = state;
        for (sequence, &(along, backward)) in sequences.iter().zip(&walks) {
            inputs.push(element(sequence, along, if backward { n_rounds - 1 - round } else { round })?);
        }
        state = run_body(&op.body, inputs, args.scope)?;
        accumulated.push(state.split_off(n_state));
    }
    let n_outputs = accumulated.outputs.len();
    let scanned = accumulated.finish(|position| {
        let along = listed(&op.scan_output_axes, position, n_outputs)?;
        Ok((along, is_backward(&op.scan_output_directions, position, n_outputs)?))
    })?;
    Ok(state.into_iter().chain(scanned).map(Some).collect())
}

/// What an optional list of `n` says of a position; 0 where there is none.
fn listed(list: &[i64], position: usize, n: usize) -> Result<i64, EvalError> {
    match list.get(position) {
        _ if list.is_empty() => Ok(0),
        Some(&value) if list.len() == n => Ok(value),
        Some(_) | None => Err(invalid(format!("a list of {} for {n} sequences", list.len()))),
    }
}

fn is_backward(directions: &[i64], position: usize, n: usize) -> Result<bool, EvalError> {
    match listed(directions, position, n)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(invalid(format!("a direction of {other}"))),
    }
}

/// The element of a sequence that lies along an axis, which it lacks.
fn element(sequence: &Tensor, along: usize, at: usize) -> Result<Tensor, EvalError> {
    let mut shape = sequence.shape().to_vec();
    shape[along] = 1;
    let steps = strides(sequence.shape());
    let element =
        pick_along(sequence, sequence, &shape, &steps, |axis, idx| Some(if axis == along { at } else { idx }))?;
    shape.remove(along);
    Ok(element.reshaped(&shape)?)
}

/// What the rounds of a body give for the outputs that become sequences.
struct Accumulated<'a> {
    /// The outputs as the body states them.
    outputs: &'a [ValueInfo],
    rounds: Vec<Vec<Tensor>>,
}

impl<'a> Accumulated<'a> {
    fn new(body: &'a Graph, n_before: usize) -> Result<Accumulated<'a>, EvalError> {
        let outputs = body.outputs.get(n_before..);
        let outputs = outputs.ok_or_else(|| {
            invalid(format!("body `{}` gives {} values, expected {n_before} at least", body.name, body.outputs.len()))
        })?;
        Ok(Accumulated { outputs, rounds: vec![Vec::new(); outputs.len()] })
    }

    fn push(&mut self, values: Vec<Tensor>) {
        for (rounds, value) in self.rounds.iter_mut().zip(values) {
            rounds.push(value);
        }
    }

    /// The sequences, each along the axis and backward or not as `direction` says of its position.
    fn finish(self, direction: impl Fn(usize) -> Result<(i64, bool), EvalError>) -> Result<Vec<Tensor>, EvalError> {
        let sequence = |(position, mut rounds): (usize, Vec<Tensor>)| {
            let (along, backward) = direction(position)?;
            if backward {
                rounds.reverse();
            }
            if rounds.is_empty() { empty(&self.outputs[position], along) } else { stacked(&rounds, along) }
        };
        self.rounds.into_iter().enumerate().map(sequence).collect()
    }
}

fn stacked(rounds: &[Tensor], along: i64) -> Result<Tensor, EvalError> {
    let rank = rounds.first().map_or(0, Tensor::rank) + 1;
    let along = axis(along, rank)?;
    let widened = rounds.iter().map(|round| {
        let mut shape = round.shape().to_vec();
        shape.insert(along.min(shape.len()), 1);
        round.reshaped(&shape)
    });
    let widened = widened.collect::<Result<Vec<_>, _>>()?;
    joined(&widened.iter().collect::<Vec<_>>(), along as i64)
}

/// The sequence of no round: its type is that which the body states, with 0 for a dimension that it leaves open.
fn empty(stated: &ValueInfo, along: i64) -> Result<Tensor, EvalError> {
    let unknown = || invalid(format!("no round was run, and the body does not state the type of `{}`", stated.name));
    let tensor_type = stated.tensor_type().ok_or_else(unknown)?;
    let mut shape: Vec<usize> = tensor_type.shape.iter().flatten().map(|dim| Dim::known(dim).unwrap_or(0)).collect();
    shape.insert(axis(along, shape.len() + 1)?, 0);
    allocation(&shape)?;
    Ok(Tensor::zeros(tensor_type.dtype, &shape)?)
}
