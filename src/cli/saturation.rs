//! What commands say of products that saturate on x86 without VNNI.

use super::table::{Side, table};
use crate::graph::Graph;
use crate::learn::integer::Saturation;
use crate::recipe::emulate::{self, Emulated};

/// The machine that it is about.
const MACHINE: &str = "x86-avx2";

/// The products of integers in a network whose weights let sums saturate on x86 without VNNI.
pub(super) fn saturable(graph: &Graph) -> Vec<Saturation> {
    let machine = Emulated::named(MACHINE).expect("its name is in the list");
    let found = emulate::saturation(graph, machine.arithmetic(), &[]).unwrap_or_else(|error| {
        tracing::warn!("whether sums can saturate on x86 without VNNI is not known: {error}");
        Vec::new()
    });
    found.into_iter().filter(|one| one.n_saturable > 0).collect()
}

/// One line, empty where nothing saturates.
pub(super) fn line(saturable: &[Saturation]) -> String {
    match saturable {
        [] => String::new(),
        _ => format!(
            "sums of {} products can saturate on x86 without VNNI: `aludel compare --arithmetic {MACHINE}` shows what that costs, \
             weights of 7 bits avoid it\n",
            saturable.len()
        ),
    }
}

/// A row a product.
pub(super) fn rows(saturable: &[Saturation]) -> String {
    let columns = [
        ("can saturate without VNNI", Side::Left),
        ("operator", Side::Left),
        ("pairs of weights", Side::Right),
        ("of", Side::Right),
    ];
    let cells = |one: &Saturation| {
        vec![one.node.clone(), one.operator.clone(), one.n_saturable.to_string(), one.n_pairs.to_string()]
    };
    table(&columns, saturable.iter().map(cells))
}
