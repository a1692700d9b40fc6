//! Distillation: a small network learns from what a large one says.

mod error;
mod guide;
pub mod objective;
pub mod student;
pub mod targets;
pub mod teachers;

pub use error::DistillError;
pub use guide::{Distillation, Source};
