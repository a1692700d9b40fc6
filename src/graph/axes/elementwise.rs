//! Operators that compute each element from those at the same place, after broadcasting.

use super::{Facts, Port, Slot, input, output};
use crate::graph::Dim;

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
        for axis in 0..own_rank {
            match (axis + rank).checked_sub(own_rank) {
                Some(other) => facts.same(input(position, axis), output(0, other)),
                None => facts.pin(input(position, axis), "the output has no such axis"),
            }
        }
    }
}

/// QuantizeLinear and DequantizeLinear: scale and zero point are scalars, or have an element for each slice of an axis. A
/// vector has one axis, whatever the attribute says.
pub(super) fn scaled(facts: &mut Facts<'_>, axis: i64, block_size: i64) {
    unary(facts);
    if block_size != 0 {
        return facts.pin_all("its scales stand for blocks");
    }
    let axis = if facts.rank(Port::Input(0)) == 1 { Some(0) } else { facts.axis(Port::Input(0), axis) };
    by_slice(facts, &[1, 2], axis.map(|axis| input(0, axis)));
}

/// Inputs that are scalars or have an element for each slice of this axis.
pub(super) fn by_slice(facts: &mut Facts<'_>, positions: &[usize], slot: Option<Slot>) {
    for &position in positions {
        match (facts.dims(Port::Input(position)), slot) {
            (None | Some([]) | Some([Dim::Known(1)]), _) => {}
            (Some([_]), Some(slot)) => facts.same(input(position, 0), slot),
            (Some(_), _) => return facts.pin_all("its scales are not those of one axis"),
        }
    }
}
