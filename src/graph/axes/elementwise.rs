//! Operators that compute each element from those at the same place, after broadcasting.

use super::{Facts, Port, input, output};

/// One input, every output of its shape; other inputs are scalars.
pub(super) fn unary(facts: &mut Facts<'_>) {
    (0..facts.rank(Port::Input(0))).for_each(|axis| facts.same(input(0, axis), output(0, axis)));
}

/// The mask has the shape of the data.
pub(super) fn dropout(facts: &mut Facts<'_>) {
    unary(facts);
    (0..facts.rank(Port::Output(1))).for_each(|axis| facts.same(input(0, axis), output(1, axis)));
}

/// Every input is broadcast to the output.
pub(super) fn broadcast(facts: &mut Facts<'_>) {
    let positions: Vec<usize> = (0..facts.node.inputs.len()).collect();
    broadcast_of(facts, &positions);
}

/// These inputs are broadcast to the output.
pub(super) fn broadcast_of(facts: &mut Facts<'_>, positions: &[usize]) {
    let rank = facts.rank(Port::Output(0));
    for &position in positions {
        let own_rank = facts.rank(Port::Input(position));
        for axis in 0..own_rank.min(rank) {
            facts.same(input(position, axis), output(0, axis + rank - own_rank));
        }
    }
}

/// QuantizeLinear and DequantizeLinear: scale and zero point are scalars, or have an element for each slice of an axis.
pub(super) fn scaled(facts: &mut Facts<'_>, axis: i64, block_size: i64) {
    unary(facts);
    let Some(axis) = facts.axis(Port::Input(0), axis) else { return };
    if block_size != 0 {
        return facts.pin_all("its scales stand for blocks");
    }
    for position in [1, 2] {
        if facts.rank(Port::Input(position)) == 1 {
            facts.same(input(0, axis), input(position, 0));
        }
    }
}
