//! What an exported model costs: it is given bytes, and runs them through the runtimes that will run them.
//!
//! Nothing here knows a graph: a model is bytes, a value is a [`Tensor`](crate::graph::tensor::Tensor). The clock lives
//! here and nowhere else.

pub mod agent;
#[cfg(feature = "full")]
pub mod child;
#[cfg(feature = "full")]
pub mod compressed;
pub mod difference;
pub mod inputs;
pub mod latency;
pub mod machine;
pub mod memory;
#[cfg(feature = "learn")]
pub mod metrics;
mod normal;
#[cfg(feature = "learn")]
pub mod paired;
pub mod probe;
pub mod runtime;
pub mod statistics;
#[cfg(feature = "full")]
pub mod target;
