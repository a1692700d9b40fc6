//! RNN, GRU and LSTM: a hidden unit is a slice of every gate, of the recurrent weight's columns and of the states.

use super::{Facts, Map, Port, Weight, input, output};

/// `W [dirs, gates · H, in]`, `R [dirs, gates · H, H]`, `B [dirs, 2 · gates · H]`, `P [dirs, 3 · H]`; states
/// `[dirs, batch, H]` and `Y [seq, dirs, batch, H]`, or `[batch, dirs, H]` and `[batch, seq, dirs, H]` in layout 1. A unit
/// has the same number in both directions, which share the axis of `Y`: it goes in both.
pub(super) fn layer(facts: &mut Facts<'_>, n_gates: usize, layout: i64) {
    let state_ports = [Port::Input(5), Port::Input(6), Port::Output(1), Port::Output(2)];
    let (x_batch, x_seq, y_seq, y_dirs, y_batch, s_dirs, s_batch) =
        if layout == 0 { (1, 0, 0, 1, 2, 0, 1) } else { (0, 1, 1, 2, 0, 1, 0) };
    let unit = input(2, 2);
    facts.contract(input(0, 2), input(1, 2));
    facts.tie(unit, input(1, 1), Map::Blocks { outer: n_gates, inner: 1 });
    facts.tie(unit, input(2, 1), Map::Blocks { outer: n_gates, inner: 1 });
    if facts.node.input(3).is_some() {
        facts.tie(unit, input(3, 1), Map::Blocks { outer: 2 * n_gates, inner: 1 });
    }
    if facts.node.input(7).is_some() {
        facts.tie(unit, input(7, 1), Map::Blocks { outer: 3, inner: 1 });
    }
    for position in [1, 2, 3, 7] {
        facts.pin(input(position, 0), "it is the axis of directions");
    }
    let bias = facts.node.input(3).map(|_| 3);
    for position in [1, 2] {
        facts.axes.weights.push(Weight { position, output_axis: 1, input_axis: Some(2), bias });
    }
    if facts.node.output(0).is_some() {
        facts.same(unit, output(0, 3));
        facts.same(input(0, x_batch), output(0, y_batch));
        facts.pin(output(0, y_seq), "it is the sequence");
        facts.pin(output(0, y_dirs), "it is the axis of directions");
    }
    facts.pin(input(0, x_seq), "it is the sequence");
    for port in state_ports {
        if facts.dims(port).is_none() {
            continue;
        }
        let slot = |axis| super::Slot { port, axis };
        facts.same(unit, slot(2));
        facts.same(input(0, x_batch), slot(s_batch));
        facts.pin(slot(s_dirs), "it is the axis of directions");
    }
    if facts.node.input(4).is_some() {
        facts.same(input(0, x_batch), input(4, 0));
    }
}
