//! Pruning: what a network can do without is taken out of it.
//!
//! | what goes | how |
//! |---|---|
//! | channels, heads, features, hidden units: coupled slices of many weights | ranked ([`importance`](super::importance)), chosen ([`select()`]), taken out ([`remove()`](crate::graph::structure::removal::remove)): the file is smaller and quicker |
//! | residual blocks and encoder layers | by what the network loses without them |
//! | single weights, N of M, blocks of weights | masks that training keeps |
//!
//! Each is a function of plain values, so that any can be looked at, kept in a file, or replaced.

mod error;
pub mod select;

pub use error::PruneError;
pub use select::{Amount, Limits, Scope, Selection, select};
