//! What is done to a network so that it is smaller and stays good.

pub mod distill;
pub mod importance;
pub mod observe;
pub mod prune;
pub mod quantize;
#[cfg(test)]
mod testing;
