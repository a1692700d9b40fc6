//! What a network is made of, found by shape and not by name: channels that hang together, residual blocks, attention,
//! encoder layers, recurrent hidden units.

pub mod blocks;
pub mod groups;
pub mod removal;

#[cfg(test)]
#[path = "../../../tests/integration/random_graphs.rs"]
pub(crate) mod random_graphs;
#[cfg(test)]
pub(crate) mod shared_heads;
