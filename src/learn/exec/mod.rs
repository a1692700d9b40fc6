//! Running and differentiating a graph.
//!
//! `Program::compile` lowers a [`Graph`](crate::graph::Graph), for one set of input shapes, to a list of some fifty
//! primitives; the gradients of a loss are more of the same list, so that nothing is recorded while it runs. A backend runs the
//! list: `host` in `f32` with the kernels, on buffers that are planned once and kept; `generic` on candle's tensors, in any
//! type and on any device. An operator that has no rule here is computed by the reference interpreter, and a gradient
//! that would have to pass through it is refused by name.

mod compile;
mod emit;
mod error;
mod fuse;
pub(crate) mod generic;
pub(crate) mod host;
mod indices;
mod lower;
mod numbers;
mod plan;
mod program;
mod quantization;
mod random;
mod reverse;
mod run;
#[cfg(test)]
mod testing;

pub use compile::{Mode, Request};
pub use error::ExecError;
pub(crate) use numbers::singles;
pub(crate) use program::Program;
pub(crate) use quantization::Quantization;
pub use run::{Run, run};
