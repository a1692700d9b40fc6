//! Pruning: what a network can do without is taken out of it.
//!
//! | what goes | how |
//! |---|---|
//! | channels, heads, features, hidden units: coupled slices of many weights | ranked ([`importance`](super::importance)), chosen ([`select()`]), taken out ([`remove()`](crate::graph::structure::removal::remove)): the file is smaller and quicker |
//! | residual blocks, encoder layers, recurrent layers | by what the network loses without them ([`layers`]) |
//! | single weights, N of M, blocks of weights | [`sparse`]: masks that training keeps |
//!
//! How much each group can lose is measured ([`mod@sensitivity`]) and solved for a goal ([`budget`]). What stays makes up for what goes, without
//! training: weights are fitted anew ([`mod@compensate`]), statistics set right ([`recalibrate`]).
//!
//! Each is a function of plain values, so that any can be looked at, kept in a file, or replaced.

pub mod budget;
pub mod compensate;
mod error;
pub mod layers;
pub mod options;
pub mod recalibrate;
pub mod select;
pub mod sensitivity;
pub mod sparse;
#[cfg(test)]
mod testing;

pub use budget::{solve, solve_for};
pub use compensate::{Compensated, compensate, compensate_in_order};
pub use error::PruneError;
pub use layers::{LayerAmount, LayersOut, leave_out};
pub use recalibrate::{Match, Recalibrated, batch_norms, match_outputs};
pub use select::{Amount, Limits, Order, Scope, Selection, asked, order, select, select_until, sizes};
pub use sensitivity::{Amounts, Costs, Curve, Point, Sensitivity, sensitivity};
