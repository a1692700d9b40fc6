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
    let shared = n_query / n_kept;
    for port in [queries, keys, values, output] {
        (0..facts.rank(port)).filter(|&axis| axis != head_axis).for_each(|axis| {
            facts.pin(Slot { port, axis }, "it is no axis of heads");
        });
    }
    let bundle = facts.bundle(n_kept);
    for (port, n_heads) in [(queries, n_query), (keys, n_kept), (values, n_kept), (output, n_query)] {
        let slot = Slot { port, axis: head_axis };
        let inner = facts.size(slot).unwrap_or(0) / n_kept;
        if inner % (n_heads / n_kept).max(1) == 0 {
            facts.tie(bundle, slot, Map::Blocks { outer: 1, inner });
        } else {
            facts.pin(slot, "its size is not a multiple of the heads");
        }
    }
    let caches = [Port::Input(4), Port::Input(5), Port::Output(1), Port::Output(2)].map(|port| (port, 1, 1));
    let scores = (Port::Output(3), 1, shared);
    let mask_axis = facts
        .rank(Port::Input(3))
        .checked_sub(3)
        .filter(|&axis| facts.size(Slot { port: Port::Input(3), axis }) == Some(n_query));
    let mask = mask_axis.map(|axis| (Port::Input(3), axis, shared));
    for (port, axis, inner) in caches.into_iter().chain([scores]).chain(mask) {
        if facts.dims(port).is_some() {
            facts.tie(bundle, Slot { port, axis }, Map::Blocks { outer: 1, inner });
        }
    }
}
