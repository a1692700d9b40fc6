//! `LSTM`, with the gates in the order input, output, forget, cell. What leaves the cell is not clipped, as in the reference.

use super::activation::{activated, clipped};
use super::emit::Emit;
use super::layer::{Layer, Weights};
use super::{Name, State, Step};
use crate::graph::eval::Cell;
use crate::graph::op::Op;

pub(super) struct Lstm<'a> {
    layer: &'a Layer<'a>,
    weights: &'a Weights<'a>,
    /// What the input brings, by step.
    sums: Vec<Name>,
    r: Name,
    peepholes: Option<[Name; 3]>,
    /// Where the forget gate is what the input gate leaves: the number 1.
    one: Option<Name>,
}

/// The gates of a step, those of which only the sum is known yet still to be made.
struct Gates {
    input: Name,
    output: Name,
    forget: Name,
    candidate: Name,
}

impl<'a> Lstm<'a> {
    pub(super) fn new(emit: &mut Emit<'_>, layer: &'a Layer<'a>, weights: &'a Weights<'a>, sums: &Name) -> Lstm<'a> {
        let sums = emit.split("input_at", sums, 0, &vec![1; layer.n_steps]);
        let r = emit.weight("R", weights.state_columns(0..4));
        let whats = ["P_input", "P_output", "P_forget"];
        let peepholes = weights.peepholes().map(|peepholes| {
            let mut whats = whats.into_iter();
            peepholes.map(|p| emit.weight(whats.next().unwrap_or_default(), p))
        });
        let one = (layer.cell == Cell::Lstm { input_forget: true }).then(|| emit.scalar("one", 1.0));
        Lstm { layer, weights, sums, r, peepholes, one }
    }

    fn gate(&self, emit: &mut Emit<'_>, what: &str, number: usize, sums: &Name) -> Name {
        let sums = clipped(emit, self.layer, sums);
        activated(emit, what, self.weights.activations[number], &sums)
    }

    /// All gates at once, where none looks at the cell.
    fn plain(&self, emit: &mut Emit<'_>, sums: &Name) -> Gates {
        let n = self.layer.hidden;
        let parts = emit.split("sums_by_kind", sums, 2, &[3 * n, n]);
        let gates = self.gate(emit, "gates", 0, &parts[0]);
        let candidate = self.gate(emit, "candidate", 1, &parts[1]);
        let gates = emit.split("gate", &gates, 2, &[n; 3]);
        Gates { input: gates[0].clone(), output: gates[1].clone(), forget: gates[2].clone(), candidate }
    }

    /// Input, forget and candidate; of the output gate only the sum, since it looks at the new cell.
    fn peeping(&self, emit: &mut Emit<'_>, peepholes: &[Name; 3], sums: &Name, c: Option<&Name>) -> Gates {
        let parts = emit.split("sums_by_gate", sums, 2, &[self.layer.hidden; 4]);
        let mut peeped = |what: &str, gate: usize| {
            let sums = peep(emit, what, &parts[gate], &peepholes[gate], c);
            self.gate(emit, what, 0, &sums)
        };
        let input = peeped("input_gate", 0);
        // Without a cell there is nothing to forget.
        let forget = if c.is_some() && self.one.is_none() { peeped("forget_gate", 2) } else { parts[2].clone() };
        let candidate = self.gate(emit, "candidate", 1, &parts[3]);
        Gates { input, output: parts[1].clone(), forget, candidate }
    }
}

/// What goes into a gate and what the cell adds to it.
fn peep(emit: &mut Emit<'_>, what: &str, sums: &Name, weights: &Name, c: Option<&Name>) -> Name {
    let Some(c) = c else { return sums.clone() };
    let peeped = emit.node(&format!("{what}_peephole"), Op::Mul, &[c, weights]);
    emit.node(&format!("{what}_sums"), Op::Add, &[sums, &peeped])
}

impl Step for Lstm<'_> {
    fn step(&self, emit: &mut Emit<'_>, position: usize, state: &State) -> State {
        let mut sums = self.sums[position].clone();
        if let Some(h) = &state.h {
            let product = emit.node("product", Op::MatMul, &[h, &self.r]);
            sums = emit.node("sums", Op::Add, &[&sums, &product]);
        }
        let gates = match &self.peepholes {
            Some(peepholes) => self.peeping(emit, peepholes, &sums, state.c.as_ref()),
            None => self.plain(emit, &sums),
        };
        let mut cell = emit.node("new", Op::Mul, &[&gates.input, &gates.candidate]);
        if let Some(c) = &state.c {
            let forget = match &self.one {
                Some(one) => emit.node("forget_gate", Op::Sub, &[one, &gates.input]),
                None => gates.forget,
            };
            let kept = emit.node("kept", Op::Mul, &[&forget, c]);
            cell = emit.node("c", Op::Add, &[&kept, &cell]);
        }
        let output = match &self.peepholes {
            Some([_, of_output, _]) => {
                let sums = peep(emit, "output_gate", &gates.output, of_output, Some(&cell));
                self.gate(emit, "output_gate", 0, &sums)
            }
            None => gates.output,
        };
        let out = activated(emit, "out", self.weights.activations[2], &cell);
        State { h: Some(emit.node("h", Op::Mul, &[&output, &out])), c: Some(cell) }
    }
}
