//! Distillation: a small network learns from a large one.

pub mod student;
