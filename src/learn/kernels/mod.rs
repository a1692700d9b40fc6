//! Kernels on the CPU in `f32`, forward and backward: plain functions over slices, row-major and contiguous.
//!
//! A kernel writes every element of its outputs and reads nothing of what was in them, unless its name says `add`.
//! Work is cut into pieces by its shape alone and sums are taken in the order of the pieces, so that a result has the
//! same bits whatever the number of threads. Nothing here knows of graphs, and nothing here allocates an output.

pub mod attention;
#[cfg(test)]
mod checking;
pub mod conv;
mod depthwise;
pub mod elementwise;
pub mod gemm;
pub mod linear_map;
mod math;
pub mod movement;
pub mod norm;
pub mod optimizer;
mod parallel;
pub mod pool;
pub mod quantize;
pub mod recurrent;
pub mod reduce;
mod scratch;
pub mod softmax;
mod strided;
#[cfg(test)]
mod testing;
pub mod window;

pub(super) use strided::broadcast_shape;
