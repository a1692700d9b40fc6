//! How a network runs and learns.

pub mod kernels;
pub mod train;
