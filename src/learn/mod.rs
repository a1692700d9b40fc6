//! How a network runs and learns.

pub mod exec;
pub mod integer;
pub mod kernels;
pub mod train;
