//! Training: what a network's numbers are for and begin with, how the rate goes, how good it gets, and what that means.

pub mod diagnosis;
pub mod events;
mod floats;
pub mod init;
pub mod metrics;
pub mod roles;
pub mod safetensors;
pub mod schedule;
