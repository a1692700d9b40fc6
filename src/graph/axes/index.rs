//! Operators that count with the index of a slice.

use super::norm::without;
use super::{Facts, Map, Port, Slot, Weight, elementwise, input, output};

/// `ArgMax`, `ArgMin`: the answer is an index along the axis.
pub(super) fn arg(facts: &mut Facts<'_>, axis: i64, keepdims: bool) {
    let Some(axis) = facts.axis(Port::Input(0), axis) else {
        return facts.pin_all("its axis is out of range");
    };
    without(facts, &[axis], keepdims);
    facts.pin(input(0, axis), "it answers with an index along it");
}

/// The axis along which `CumSum` adds must stay whole.
pub(super) fn cumulative(facts: &mut Facts<'_>) {
    let axis = facts.integers(1).and_then(|axes| facts.axis(Port::Input(0), *axes.first()?));
    let Some(axis) = axis else { return facts.pin_all("its axis is not known") };
    elementwise::unary(facts);
    facts.pin(input(0, axis), "it adds up along it");
}

/// `Hardmax` and `TopK`: one axis is compared, every output has the others.
pub(super) fn ordered(facts: &mut Facts<'_>, axis: i64) {
    let Some(axis) = facts.axis(Port::Input(0), axis) else {
        return facts.pin_all("its axis is out of range");
    };
    for position in 0..facts.node.outputs.len() {
        for other in (0..facts.rank(Port::Input(0))).filter(|&other| other != axis) {
            facts.same(input(0, other), output(position, other));
        }
        facts.pin(output(position, axis), "it is compared along it");
    }
    facts.pin(input(0, axis), "it is compared along it");
}

/// `data[.., indices, ..]`: known indices can be counted anew, others are data.
pub(super) fn gather(facts: &mut Facts<'_>, axis: i64) {
    let Some(axis) = facts.axis(Port::Input(0), axis) else {
        return facts.pin_all("its axis is out of range");
    };
    let (rank, n_indices) = (facts.rank(Port::Input(0)), facts.rank(Port::Input(1)));
    (0..axis).for_each(|before| facts.same(input(0, before), output(0, before)));
    (axis + 1..rank).for_each(|after| facts.same(input(0, after), output(0, after + n_indices - 1)));
    let picks = facts.integers(1).filter(|_| n_indices == 1).and_then(|picks| {
        let size = i64::try_from(facts.size(input(0, axis))?).ok()?;
        let pick = |&pick: &i64| usize::try_from(if pick < 0 { pick + size } else { pick }).ok();
        picks.iter().map(pick).collect::<Option<Vec<usize>>>()
    });
    match picks {
        Some(picks) => facts.tie(input(0, axis), output(0, axis), Map::Picks(picks)),
        None => {
            let known = facts.integers(1).is_some();
            facts.pin(input(0, axis), if known { "one slice is picked" } else { "its slices are picked by data" });
            for of_indices in 0..n_indices {
                let slot = Slot { port: Port::Output(0), axis: axis + of_indices };
                facts.same(input(1, of_indices), slot);
            }
            if rank == 2 && axis == 0 {
                facts.axes.weights.push(Weight { position: 0, output_axis: 1, input_axis: None, bias: None });
            }
        }
    }
}

/// Each element is picked along one axis, the other axes are those of the indices.
pub(super) fn gather_elements(facts: &mut Facts<'_>, axis: i64) {
    let Some(axis) = facts.axis(Port::Input(0), axis) else {
        return facts.pin_all("its axis is out of range");
    };
    facts.pin(input(0, axis), "its slices are picked by data");
    for other in 0..facts.rank(Port::Input(1)) {
        facts.same(input(1, other), output(0, other));
        if other == axis {
            continue;
        }
        // Indices that are shorter than the data read its first slices only.
        if facts.dim(input(1, other)) == facts.dim(input(0, other)) {
            facts.same(input(0, other), output(0, other));
        } else {
            facts.pin(input(0, other), "its first slices are read");
        }
    }
}
