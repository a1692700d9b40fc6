//! What became of a teacher's parts.

use std::fmt;

use serde::Serialize;

use super::{BlockKind, StudentError, counted};
use crate::graph::shape::{Bindings, infer};
use crate::graph::structure::blocks::Span;
use crate::graph::structure::groups::Kind;
use crate::graph::{Graph, Name, cost};

/// What became of a teacher's parts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The repeated blocks of the teacher, in order; empty where depth was not asked for.
    pub blocks: Vec<BlockReport>,
    /// The groups of what the blocks left, in order; empty where width was not asked for.
    pub groups: Vec<GroupReport>,
    /// What was to get smaller and stays, and why.
    pub left: Vec<Left>,
    /// The factor that a budget came to.
    pub factor: Option<f64>,
    /// What the teacher costs.
    pub teacher: Size,
    /// What the student costs.
    pub student: Size,
}

/// One block of the teacher.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BlockReport {
    /// What it is.
    pub kind: BlockKind,
    /// From what to what it goes.
    pub span: Span,
    /// Whether the student has it.
    pub kept: bool,
    /// Why it has to stay; none where it could go.
    pub stays: Option<String>,
}

/// One group of units.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupReport {
    /// The first weight that makes the units.
    pub name: Name,
    /// What the units are.
    pub kind: Kind,
    /// Whether a residual connection carries them on.
    pub is_stream: bool,
    /// How many units the teacher has.
    pub n_before: usize,
    /// How many units the student has.
    pub n_after: usize,
}

/// A part that stays as it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Left {
    /// The weight that makes the units, or the block.
    pub part: String,
    /// How many units there are; none for a block.
    pub n_units: Option<usize>,
    /// What holds it: the node, and why.
    pub reason: String,
}

/// What a network costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// See [`cost::Counts`].
    pub parameters: u64,
    /// Likewise; none where not every shape is known.
    pub macs: Option<u64>,
}

impl Size {
    /// What a network costs with `sizes` for the symbols in its inputs' shapes; those that it does not name are one.
    ///
    /// # Errors
    /// When the shapes cannot be inferred for another reason than that a size of one does not fit.
    pub fn of(graph: &Graph, sizes: &Bindings) -> Result<Size, StudentError> {
        match counted(graph, sizes) {
            Ok(cost) => {
                let macs = Some(cost.total.macs).filter(|_| !cost.is_incomplete());
                Ok(Size { parameters: cost.total.parameters, macs })
            }
            // a window does not fit into a size of one: parameters can be counted without
            Err(_) if *sizes == Bindings::default() => {
                let parameters = cost::cost(graph, &infer(graph, &Bindings::default())?).total.parameters;
                Ok(Size { parameters, macs: None })
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Report {
    /// Whether a group has lost units or a block is gone.
    pub(super) fn is_smaller(&self) -> bool {
        self.groups.iter().any(|group| group.n_after < group.n_before) || self.blocks.iter().any(|block| !block.kept)
    }

    /// What holds the parts that stay, in words.
    pub(super) fn reasons(&self) -> Vec<String> {
        let left = self.left.iter().map(Left::to_string);
        let is_left = |group: &GroupReport| self.left.iter().any(|left| left.part == group.name.as_str());
        let whole = self.groups.iter().filter(|group| !is_left(group));
        let whole = whole.map(|group| format!("`{}` keeps all {} {}", group.name, group.n_after, group.kind));
        left.chain(whole).collect()
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.part, self.reason)
    }
}
