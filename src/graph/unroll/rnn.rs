//! `RNN`: `h = f(W x + R h + b)`.

use super::activation::{activated, clipped};
use super::emit::Emit;
use super::layer::{Layer, Weights};
use super::{Name, State, Step};
use crate::graph::op::Op;

pub(super) struct Rnn<'a> {
    layer: &'a Layer<'a>,
    weights: &'a Weights<'a>,
    /// What the input brings, by step.
    sums: Vec<Name>,
    r: Name,
}

impl<'a> Rnn<'a> {
    pub(super) fn new(emit: &mut Emit<'_>, layer: &'a Layer<'a>, weights: &'a Weights<'a>, sums: &Name) -> Rnn<'a> {
        let sums = emit.split("input_at", sums, 0, &vec![1; layer.n_steps]);
        Rnn { layer, weights, sums, r: emit.weight("R", weights.state_columns(0..1)) }
    }
}

impl Step for Rnn<'_> {
    fn step(&self, emit: &mut Emit<'_>, position: usize, state: &State) -> State {
        let mut sums = self.sums[position].clone();
        if let Some(h) = &state.h {
            let product = emit.node("product", Op::MatMul, &[h, &self.r]);
            sums = emit.node("sums", Op::Add, &[&sums, &product]);
        }
        let sums = clipped(emit, self.layer, &sums);
        State { h: Some(activated(emit, "h", self.weights.activations[0], &sums)), c: None }
    }
}
