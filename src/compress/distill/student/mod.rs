//! A student made out of its teacher: blocks bypassed, units taken out, weights inherited, scaled down or drawn anew.
//!
//! Depth comes first, then width: units are ranked in the network that is left. What can go is found in the graph, by
//! [`structure`](crate::graph::structure), so any file will do as a teacher; what the options name and the network does
//! not have, or cannot lose, is an error.

mod depth;
mod error;
mod options;
mod report;
#[cfg(test)]
mod tests;
mod weights;
mod width;

use crate::graph::Graph;
use crate::graph::cost::{Cost, cost};
use crate::graph::shape::{Bindings, ShapeError, infer, symbols};

pub use crate::graph::structure::blocks::{Block, BlockKind, blocks};
pub use error::StudentError;
pub use options::{Criterion, Depth, Factors, Inherit, StudentOptions, Width};
pub use report::{BlockReport, GroupReport, Left, Report, Size};

/// A student and what became of its teacher's parts.
#[derive(Clone, Debug)]
pub struct Derived {
    /// The student.
    pub graph: Graph,
    /// Group by group, block by block.
    pub report: Report,
}

/// Derives a student. `seed` is for what is random: fresh weights, and the units that are kept with
/// [`Criterion::Random`]. MACs are counted with `sizes` for the symbols in the inputs' shapes; those that it does not
/// name are one.
///
/// With factors of one and every block kept the student is the teacher. A width for everything takes what can be taken,
/// and the report says what stays; so does a share of the blocks.
///
/// # Errors
/// When an option is out of its range; when what is asked for by name is not there or cannot be done; when a budget is
/// out of reach; when nothing of the network can be made smaller.
pub fn derive(teacher: &Graph, options: &StudentOptions, sizes: &Bindings, seed: u64) -> Result<Derived, StudentError> {
    options.check()?;
    let shallow = depth::apply(teacher, options.depth.as_ref())?;
    let narrow = width::apply(teacher, shallow.graph, options, sizes, seed)?;
    let report = Report {
        blocks: shallow.blocks,
        groups: narrow.groups,
        left: narrow.left,
        factor: narrow.factor,
        teacher: Size::of(teacher, sizes)?,
        student: Size::of(&narrow.graph, sizes)?,
    };
    if options.asks_for_less() && !report.is_smaller() {
        return Err(StudentError::Nothing { reasons: report.reasons() });
    }
    let graph = weights::apply(&narrow.graph, options.inherit, seed)?;
    Ok(Derived { graph, report })
}

/// What a graph costs, with one for every symbol that `sizes` does not name.
fn counted(graph: &Graph, sizes: &Bindings) -> Result<Cost, ShapeError> {
    let mut sizes = sizes.clone();
    for symbol in symbols(graph) {
        sizes.symbols.entry(symbol).or_insert(1);
    }
    Ok(cost(graph, &infer(graph, &sizes)?))
}
