//! Distillation: a small network learns from what a large one says.

mod error;
pub mod objective;

pub use error::DistillError;
