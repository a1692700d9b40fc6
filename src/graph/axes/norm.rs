//! Normalisations and reductions.

use super::product::whole_groups;
use super::{Facts, Port, Slot, elementwise, input, output};
use crate::graph::op::Reduce;

/// `X [N, C, …]` and four constants `[C]`.
pub(super) fn batch(facts: &mut Facts<'_>, training_mode: bool) {
    if training_mode {
        return facts.pin_all("it is in training mode");
    }
    elementwise::unary(facts);
    (1..5).for_each(|position| facts.same(input(position, 0), input(0, 1)));
}

/// `X [N, C, …]` and two constants `[C]`; each channel is normalised by itself.
pub(super) fn instance(facts: &mut Facts<'_>) {
    elementwise::unary(facts);
    [1, 2].into_iter().for_each(|position| facts.same(input(position, 0), input(0, 1)));
    (2..facts.rank(Port::Input(0))).for_each(|axis| facts.cross(input(0, axis)));
}

/// `X [N, C, …]` and two constants `[C]`; a group of channels is normalised together, so that whole groups go. One group
/// alone is normalised over what is left of it.
pub(super) fn group(facts: &mut Facts<'_>, num_groups: i64) {
    instance(facts);
    if num_groups == 1 {
        facts.cross(input(0, 1));
    } else {
        whole_groups(facts, num_groups, &[input(0, 1)]);
    }
}

/// The axes from `axis` on are normalised together; scale and bias are broadcast to the input.
pub(super) fn layer(facts: &mut Facts<'_>, axis: i64) {
    elementwise::broadcast_of(facts, &[0, 1, 2]);
    let rank = facts.rank(Port::Input(0));
    let Some(first) = facts.axis(Port::Input(0), axis) else {
        return facts.pin_all("its axis is out of range");
    };
    (first..rank).for_each(|axis| facts.cross(input(0, axis)));
    for position in [1, 2] {
        (0..facts.rank(Port::Output(position))).for_each(|axis| facts.same(input(0, axis), output(position, axis)));
    }
}

/// `input + skip + bias`, normalised over the last axis; the sum is an output, too.
pub(super) fn skip_layer(facts: &mut Facts<'_>) {
    elementwise::broadcast_of(facts, &[0, 1, 2, 3, 4]);
    let rank = facts.rank(Port::Input(0));
    (0..rank).for_each(|axis| facts.same(input(0, axis), output(3, axis)));
    for position in [1, 2] {
        (0..facts.rank(Port::Output(position))).for_each(|axis| facts.same(input(0, axis), output(position, axis)));
    }
    if let Some(last) = rank.checked_sub(1) {
        facts.cross(input(0, last));
    }
}

/// One scale for all of it, from the least and the greatest element.
pub(super) fn dynamic_quantize(facts: &mut Facts<'_>) {
    elementwise::unary(facts);
    (0..facts.rank(Port::Input(0))).for_each(|axis| facts.cross(input(0, axis)));
}

/// One axis is normalised: `Softmax`, `LpNormalization`.
pub(super) fn along(facts: &mut Facts<'_>, axis: i64) {
    elementwise::unary(facts);
    match facts.axis(Port::Input(0), axis) {
        Some(axis) => facts.cross(input(0, axis)),
        None => facts.pin_all("its axis is out of range"),
    }
}

/// A channel is divided by its neighbours: without one, others become neighbours.
pub(super) fn local_response(facts: &mut Facts<'_>) {
    elementwise::unary(facts);
    facts.pin(input(0, 1), "LRN divides by neighbouring channels");
}

/// `data` without the reduced axes, or with size one there.
pub(super) fn reduce(facts: &mut Facts<'_>, attributes: &Reduce) {
    let rank = facts.rank(Port::Input(0));
    let axes = match (facts.node.input(1), facts.integers(1)) {
        (None, _) => Some(Vec::new()),
        (Some(_), axes) => axes,
    };
    let Some(axes) = axes else { return facts.pin_all("its axes are not known") };
    let reduced: Option<Vec<usize>> = axes.iter().map(|&axis| facts.axis(Port::Input(0), axis)).collect();
    let Some(mut reduced) = reduced else { return facts.pin_all("its axes are out of range") };
    if axes.is_empty() && !attributes.noop_with_empty_axes {
        reduced = (0..rank).collect();
    }
    without(facts, &reduced, attributes.keepdims);
    reduced.iter().for_each(|&axis| facts.cross(input(0, axis)));
}

/// Ties the axes of the first input that are not dropped to those of the first output.
pub(super) fn without(facts: &mut Facts<'_>, dropped: &[usize], keepdims: bool) {
    let mut kept = 0;
    for axis in 0..facts.rank(Port::Input(0)) {
        if dropped.contains(&axis) {
            kept += usize::from(keepdims);
            continue;
        }
        facts.same(input(0, axis), Slot { port: Port::Output(0), axis: kept });
        kept += 1;
    }
}
