//! `GRU`, with the gates in the order update, reset, hidden.

use super::activation::{activated, clipped};
use super::emit::Emit;
use super::layer::{Layer, Weights};
use super::{Name, State, Step};
use crate::graph::eval::Cell;
use crate::graph::op::Op;

pub(super) struct Gru<'a> {
    layer: &'a Layer<'a>,
    weights: &'a Weights<'a>,
    /// What the input brings to update and reset, by step.
    gates: Vec<Name>,
    /// What it brings to the hidden gate, by step.
    hidden: Vec<Name>,
    recurrent: Recurrent,
}

/// How the state comes to the gates.
enum Recurrent {
    /// One product, of which the part for the hidden gate is reset, its bias included.
    ResetAfter { r: Name, bias: Option<Name> },
    /// A product for update and reset, and one of the state that is reset.
    ResetBefore { of_gates: Name, of_hidden: Name },
}

impl<'a> Gru<'a> {
    pub(super) fn new(emit: &mut Emit<'_>, layer: &'a Layer<'a>, weights: &'a Weights<'a>, sums: &Name) -> Gru<'a> {
        let parts = emit.split("input_by_gate", sums, 2, &[2 * layer.hidden, layer.hidden]);
        let each = vec![1; layer.n_steps];
        let gates = emit.split("input_gates_at", &parts[0], 0, &each);
        let hidden = emit.split("input_hidden_at", &parts[1], 0, &each);
        let recurrent = if layer.cell == (Cell::Gru { linear_before_reset: true }) {
            let bias = weights.reset_bias().map(|bias| emit.weight("R_bias", bias));
            Recurrent::ResetAfter { r: emit.weight("R", weights.state_columns(0..3)), bias }
        } else {
            let of_gates = emit.weight("R_gates", weights.state_columns(0..2));
            Recurrent::ResetBefore { of_gates, of_hidden: emit.weight("R_hidden", weights.state_columns(2..3)) }
        };
        Gru { layer, weights, gates, hidden, recurrent }
    }

    fn gate(&self, emit: &mut Emit<'_>, what: &str, number: usize, sums: &Name) -> Name {
        let sums = clipped(emit, self.layer, sums);
        activated(emit, what, self.weights.activations[number], &sums)
    }

    /// Update and reset.
    fn update_and_reset(&self, emit: &mut Emit<'_>, sums: &Name) -> [Name; 2] {
        let gates = self.gate(emit, "gates", 0, sums);
        let parts = emit.split("gate", &gates, 2, &[self.layer.hidden; 2]);
        [parts[0].clone(), parts[1].clone()]
    }

    /// The first step of a state that is zero: nothing but a bias comes of it.
    fn first(&self, emit: &mut Emit<'_>, position: usize) -> Name {
        let [update, reset] = self.update_and_reset(emit, &self.gates[position]);
        let mut sums = self.hidden[position].clone();
        if let Recurrent::ResetAfter { bias: Some(bias), .. } = &self.recurrent {
            let kept = emit.node("reset_bias", Op::Mul, &[&reset, bias]);
            sums = emit.node("hidden_sums", Op::Add, &[&sums, &kept]);
        }
        let hidden = self.gate(emit, "hidden", 1, &sums);
        let lost = emit.node("lost", Op::Mul, &[&update, &hidden]);
        emit.node("h", Op::Sub, &[&hidden, &lost])
    }

    /// The state after this one.
    fn next(&self, emit: &mut Emit<'_>, position: usize, h: &Name) -> Name {
        let n = self.layer.hidden;
        let (product, after) = match &self.recurrent {
            Recurrent::ResetAfter { r, .. } => {
                let whole = emit.node("product", Op::MatMul, &[h, r]);
                let parts = emit.split("product_by_gate", &whole, 2, &[2 * n, n]);
                (parts[0].clone(), Some(parts[1].clone()))
            }
            Recurrent::ResetBefore { of_gates, .. } => (emit.node("product", Op::MatMul, &[h, of_gates]), None),
        };
        let sums = emit.node("sums", Op::Add, &[&self.gates[position], &product]);
        let [update, reset] = self.update_and_reset(emit, &sums);
        let recurrent = match (&self.recurrent, after) {
            (Recurrent::ResetAfter { bias: Some(bias), .. }, Some(after)) => {
                let whole = emit.node("product_hidden", Op::Add, &[&after, bias]);
                emit.node("reset", Op::Mul, &[&reset, &whole])
            }
            (_, Some(after)) => emit.node("reset", Op::Mul, &[&reset, &after]),
            (Recurrent::ResetBefore { of_hidden, .. }, None) => {
                let kept = emit.node("reset", Op::Mul, &[&reset, h]);
                emit.node("product_hidden", Op::MatMul, &[&kept, of_hidden])
            }
            (Recurrent::ResetAfter { .. }, None) => unreachable!("its product has a part for the hidden gate"),
        };
        let sums = emit.node("hidden_sums", Op::Add, &[&self.hidden[position], &recurrent]);
        let hidden = self.gate(emit, "hidden", 1, &sums);
        let change = emit.node("change", Op::Sub, &[h, &hidden]);
        let kept = emit.node("kept", Op::Mul, &[&update, &change]);
        emit.node("h", Op::Add, &[&hidden, &kept])
    }
}

impl Step for Gru<'_> {
    fn step(&self, emit: &mut Emit<'_>, position: usize, state: &State) -> State {
        let h = match &state.h {
            Some(h) => self.next(emit, position, h),
            None => self.first(emit, position),
        };
        State { h: Some(h), c: None }
    }
}
