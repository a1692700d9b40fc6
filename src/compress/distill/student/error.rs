//! Why a student cannot be made out of a teacher.

use crate::compress::importance::Unranked;
use crate::graph::Name;
use crate::graph::patch::PatchError;
use crate::graph::shape::ShapeError;
use crate::graph::structure::blocks::StructureError;
use crate::graph::structure::removal::RemovalError;
use crate::graph::tensor::TensorError;
use crate::learn::train::init::InitError;

/// Why a student cannot be made out of a teacher.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum StudentError {
    /// An option is out of its range.
    #[error("`{key}` is {value}; give {range}")]
    Option {
        /// as it stands in TOML
        key: String,
        /// what was given
        value: String,
        /// what it may be
        range: &'static str,
    },
    /// Two keys decide over the same groups.
    #[error("`width.default` and a budget both decide over the other groups; leave one of them out")]
    TwoWidths,
    /// No group that can lose units is meant by a key.
    #[error("`{key}`: the network has no such units that can go{}; leave it out, or give 1", because(reasons))]
    NoGroups {
        /// as it stands in TOML
        key: String,
        /// what holds the units that there are
        reasons: Vec<String>,
    },
    /// The network has no blocks that can go.
    #[error("`{key}`: the network has no repeated blocks that can go{}; leave it out", because(reasons))]
    NoBlocks {
        /// as it stands in TOML
        key: &'static str,
        /// what holds the blocks that there are
        reasons: Vec<String>,
    },
    /// There is no such block.
    #[error("`depth.blocks`: the network has {n_blocks} blocks, there is no block {block}")]
    NoSuchBlock {
        /// the position asked for
        block: usize,
        /// how many there are
        n_blocks: usize,
    },
    /// A block has to stay that was not among those to be kept.
    #[error("`{key}`: block {block} has to stay: {reason}; keep it, too")]
    BlockStays {
        /// as it stands in TOML
        key: &'static str,
        /// its position
        block: usize,
        /// what holds it
        reason: String,
    },
    /// Every stack has fewer blocks.
    #[error("`depth.layers` is {asked}; the longest stack of alike blocks has {longest}")]
    FewLayers {
        /// how many were asked for
        asked: usize,
        /// how many there are
        longest: usize,
    },
    /// Nothing of the network got smaller.
    #[error("nothing of the network gets smaller{}", because(reasons))]
    Nothing {
        /// what holds its parts
        reasons: Vec<String>,
    },
    /// Even the smallest student is too large.
    #[error(
        "`{key}` is {asked}; with what else is asked for the least share is {least:.4}: allow more, or take out blocks"
    )]
    OutOfReach {
        /// as it stands in TOML
        key: &'static str,
        /// the share asked for
        asked: f64,
        /// the share of the smallest student
        least: f64,
    },
    /// The multiplications are not known.
    #[error(
        "`width.macs`: the multiplications of {node} cannot be counted; give sizes for the inputs, or use `parameters`"
    )]
    Uncounted {
        /// the node
        node: String,
    },
    /// Units cannot be ranked.
    #[error(transparent)]
    Unranked(#[from] Unranked),
    /// A weight can be neither scaled nor drawn anew.
    #[error("`inherit`: `{weight}` can only be inherited as it is: {reason}")]
    Weight {
        /// the weight
        weight: Name,
        /// why
        reason: String,
    },
    /// Weights cannot be drawn.
    #[error(transparent)]
    Init(#[from] InitError),
    /// A network's types do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Units cannot be taken out.
    #[error(transparent)]
    Removal(#[from] RemovalError),
    /// Blocks cannot be taken out.
    #[error(transparent)]
    Structure(#[from] StructureError),
    /// New weights cannot be put in.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// A tensor cannot be made.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// How many reasons a message lists.
const MOST_REASONS: usize = 4;

fn because(reasons: &[String]) -> String {
    if reasons.is_empty() {
        return String::new();
    }
    let more = reasons.len().saturating_sub(MOST_REASONS);
    let listed = reasons[..reasons.len() - more].join("; ");
    if more == 0 { format!(" ({listed})") } else { format!(" ({listed}; and {more} more)") }
}
