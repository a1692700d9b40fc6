//! The operator Attention: a head of keys and values goes with all the heads of queries that share it.

use super::{Facts, Map, Port, Slot};
use crate::graph::op::Attention;

/// `Q [batch, heads, steps, size]`, or `[batch, steps, heads · size]`; keys and values likewise, of as many heads or fewer;
/// the output is laid out as the queries are. The size of a head stays, and the scale with it.
pub(super) fn heads(facts: &mut Facts<'_>, attributes: &Attention) {
    let [queries, keys, values, output] = [Port::Input(0), Port::Input(1), Port::Input(2), Port::Output(0)];
    let flat = facts.rank(queries) == 3;
    let head_axis = if flat { 2 } else { 1 };
    let stated = |n: Option<i64>| n.and_then(|n| usize::try_from(n).ok());
    let counted = |facts: &Facts<'_>, port| facts.size(Slot { port, axis: 1 });
    let n_query = if flat { stated(attributes.q_num_heads) } else { counted(facts, queries) };
    let n_kept = if flat { stated(attributes.kv_num_heads) } else { counted(facts, keys) };
    let (Some(n_query), Some(n_kept)) = (n_query, n_kept.filter(|&n| n > 0)) else {
        return facts.pin_all("its number of heads is not known");
    };
    let ranks = [queries, keys, values, output].map(|port| facts.rank(port));
    if ranks.iter().any(|&rank| rank != ranks[0]) || n_query % n_kept != 0 {
        return facts.pin_all("its heads are not laid out alike");
    }
    let shared = n_query / n_kept;
    let bundle = facts.bundle(n_kept);
    for (port, n_heads) in [(queries, n_query), (keys, n_kept), (values, n_kept), (output, n_query)] {
        let slot = Slot { port, axis: head_axis };
        let inner = facts.size(slot).filter(|size| size % n_heads == 0).map_or(0, |size| size / n_kept);
        tie_heads(facts, bundle, slot, inner);
    }
    for port in [Port::Input(4), Port::Input(5), Port::Output(1), Port::Output(2)] {
        tie_heads(facts, bundle, Slot { port, axis: 1 }, 1);
    }
    tie_heads(facts, bundle, Slot { port: Port::Output(3), axis: 1 }, shared);
    let mask = Port::Input(3);
    match facts.rank(mask).checked_sub(3).map(|axis| Slot { port: mask, axis }) {
        Some(slot) if facts.size(slot) == Some(n_query) => tie_heads(facts, bundle, slot, shared),
        Some(_) | None => facts.pin_value(mask, "it is no axis of heads"),
    }
}

/// Ties the axis of heads of a value, if the node has it, and pins its other axes.
fn tie_heads(facts: &mut Facts<'_>, bundle: Slot, slot: Slot, inner: usize) {
    let others = (0..facts.rank(slot.port)).filter(|&axis| axis != slot.axis);
    others.for_each(|axis| facts.pin(Slot { axis, ..slot }, "it is no axis of heads"));
    if facts.dims(slot.port).is_some() {
        facts.tie(bundle, slot, Map::Blocks { outer: 1, inner });
    }
}
