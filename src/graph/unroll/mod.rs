//! Recurrent operators written out: one product for all steps of the input, and the cell step by step in plain operators.
//!
//! An RNN, GRU or LSTM is one node whose products nothing can reach. Where the length of its sequence is known it becomes nodes
//! that compute the same up to rounding: the weights of the input meet the whole sequence at once, the recurrent ones stand as one
//! constant that each step's product reads. Without a state at the start the first step has no product, so that no size of
//! a batch need be known.

mod activation;
mod emit;
mod gru;
mod layer;
mod lstm;
mod rnn;
#[cfg(test)]
mod tests;

use super::eval::Cell;
use super::op::{self, Op};
use super::patch::{Patch, PatchError};
use super::shape::Types;
use super::{Graph, Name, Node};
use emit::Emit;
use layer::{Layer, Weights};

/// The longest sequence that is written out: a step is some ten to fifteen nodes.
pub const MOST_STEPS: usize = 256;

/// A graph whose recurrent operators are written out, and what came of each.
#[derive(Clone, Debug)]
pub struct Unrolled {
    /// The result.
    pub graph: Graph,
    /// The nodes that are written out.
    pub done: Vec<String>,
    /// Those that are not.
    pub declined: Vec<Declined>,
}

/// A recurrent operator that stays one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// The node.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// Writes out every RNN, GRU and LSTM of known length. The length is the input's own: of `sequence_lens` only such are taken as say
/// the same of every sequence.
///
/// # Errors
/// When the result does not fit: a fault of aludel's.
pub fn unroll(graph: &Graph, types: &Types) -> Result<Unrolled, PatchError> {
    let mut patch = Patch::new(graph);
    let (mut done, mut declined) = (Vec::new(), Vec::new());
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        for body in node.op.bodies() {
            declined.extend(inside(body));
        }
        match Layer::of(graph, types, node) {
            None => {}
            Some(Ok(layer)) => {
                let nodes = written_out(&mut patch, &layer);
                patch.replace(node_idx, nodes);
                done.push(node.label());
            }
            Some(Err(reason)) => declined.push(Declined { node: node.label(), reason }),
        }
    }
    if done.is_empty() {
        return Ok(Unrolled { graph: graph.clone(), done, declined });
    }
    patch.remove_unused_initializers();
    Ok(Unrolled { graph: patch.apply(Some(types))?, done, declined })
}

/// The recurrent operators of a branch or body, which stay.
fn inside(body: &Graph) -> Vec<Declined> {
    let reason = || "it is in a branch or body: what runs there is not known before it runs".to_string();
    let mut declined = Vec::new();
    for node in &body.nodes {
        if Cell::of(&node.op).is_some() {
            declined.push(Declined { node: node.label(), reason: reason() });
        }
        node.op.bodies().into_iter().for_each(|body| declined.extend(inside(body)));
    }
    declined
}

/// What a direction carries from step to step, each `[1, batch, hidden]`: none where it is zero, `c` but in an LSTM.
#[derive(Clone, Debug, Default)]
struct State {
    h: Option<Name>,
    c: Option<Name>,
}

/// The cell of one direction, whose constants stand.
trait Step {
    /// The state after the step at this position of the sequence.
    fn step(&self, emit: &mut Emit<'_>, position: usize, state: &State) -> State;
}

/// The hidden states of a direction in the order of the sequence, and its state at the end.
struct Walked {
    states: Vec<Name>,
    last: State,
}

fn written_out(patch: &mut Patch, layer: &Layer<'_>) -> Vec<Node> {
    let mut emit = Emit::new(patch, layer.base());
    let mut x = layer.node.input(0).expect("an operator has the inputs it needs").clone();
    if layer.is_batch_first {
        x = emit.transpose("x", &x, &[1, 0, 2]);
    }
    let h = initial(&mut emit, layer, 5, "initial_h");
    let c = if matches!(layer.cell, Cell::Lstm { .. }) {
        initial(&mut emit, layer, 6, "initial_c")
    } else {
        vec![None; layer.directions.len()]
    };
    let mut walked = Vec::new();
    for (idx, (weights, (h, c))) in layer.directions.iter().zip(h.into_iter().zip(c)).enumerate() {
        let base = if idx == 0 { layer.base().to_string() } else { format!("{}.backward", layer.base()) };
        walked.push(walk(&mut emit, &base, layer, weights, &x, State { h, c }));
    }
    emit.begin(layer.base());
    outputs(&mut emit, layer, &walked);
    emit.finish()
}

/// The state of each direction before its first step.
fn initial(emit: &mut Emit<'_>, layer: &Layer<'_>, position: usize, what: &str) -> Vec<Option<Name>> {
    let n_directions = layer.directions.len();
    let Some(given) = layer.node.input(position) else { return vec![None; n_directions] };
    let mut given = given.clone();
    if layer.is_batch_first {
        given = emit.transpose(what, &given, &[1, 0, 2]);
    }
    emit.split(what, &given, 0, &vec![1; n_directions]).into_iter().map(Some).collect()
}

fn walk(
    emit: &mut Emit<'_>,
    base: &str,
    layer: &Layer<'_>,
    weights: &Weights<'_>,
    x: &Name,
    mut state: State,
) -> Walked {
    emit.begin(base);
    let w = emit.weight("W", weights.input_columns(0..layer.n_gates()));
    let mut sums = emit.node("input", Op::MatMul, &[x, &w]);
    if let Some(bias) = weights.bias() {
        let bias = emit.weight("B", bias);
        sums = emit.node("input_sums", Op::Add, &[&sums, &bias]);
    }
    let cell: Box<dyn Step> = match layer.cell {
        Cell::Rnn => Box::new(rnn::Rnn::new(emit, layer, weights, &sums)),
        Cell::Gru { .. } => Box::new(gru::Gru::new(emit, layer, weights, &sums)),
        Cell::Lstm { .. } => Box::new(lstm::Lstm::new(emit, layer, weights, &sums)),
    };
    let mut states = Vec::with_capacity(layer.n_steps);
    for count in 0..layer.n_steps {
        let position = if weights.is_backward { layer.n_steps - 1 - count } else { count };
        emit.begin(&format!("{base}.{position}"));
        state = cell.step(emit, position, &state);
        states.extend(state.h.clone());
    }
    if weights.is_backward {
        states.reverse();
    }
    Walked { states, last: state }
}

/// The operator's outputs under their names, as far as they have any.
fn outputs(emit: &mut Emit<'_>, layer: &Layer<'_>, walked: &[Walked]) {
    if let Some(y) = layer.node.output(0) {
        let (mut sequences, axis) = (Vec::new(), emit.integers("axes", &[1]));
        for direction in walked {
            let sequence = emit.concat("sequence", &direction.states, 0);
            sequences.push(emit.node("sequence_by_direction", Op::Unsqueeze, &[&sequence, &axis]));
        }
        let mut whole = emit.concat("sequences", &sequences, 1);
        if layer.is_batch_first {
            whole = emit.transpose("sequences_by_batch", &whole, &[2, 0, 1, 3]);
        }
        emit.become_output(&whole, y);
    }
    let last = |part: fn(State) -> Option<Name>| walked.iter().filter_map(|it| part(it.last.clone())).collect();
    let ends: [(usize, &str, Vec<Name>); 2] = [(1, "last_h", last(|state| state.h)), (2, "last_c", last(|it| it.c))];
    for (position, what, parts) in ends {
        let Some(output) = layer.node.output(position) else { continue };
        let mut whole = emit.concat(what, &parts, 0);
        if layer.is_batch_first {
            whole = emit.transpose(&format!("{what}_by_batch"), &whole, &[1, 0, 2]);
        }
        emit.become_output(&whole, output);
    }
}
