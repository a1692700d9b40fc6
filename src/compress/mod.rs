//! What is done to a network to make it smaller.

pub mod distill;
