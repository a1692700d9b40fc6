//! What a student learns from its teacher, as ordinary nodes behind the student: what trains is a graph like any other, and
//! the reference interpreter tests it.
//!
//! There is no teacher in the graph. Its values, logits or inner ones, are inputs of the training graph, and whoever runs the
//! training gives them: from a cache or from the teacher at work. What is learned beside the student, such as the projections of
//! hints, lies behind it, and the student is taken out again without them, see [`WithObjectives`].
//!
//! Lengths are `√(Σ x² + 10⁻¹²)`, so that what is zero has a direction, zero, and a gradient.

mod attach;
mod features;
mod logits;
mod options;
pub mod pairing;
mod relations;
pub mod schedule;
mod site;
#[cfg(test)]
mod tests;
mod transformer;

pub use attach::{Teacher, TeacherInput, Term, WithObjectives, attach, tensor_types};
pub use options::{Mix, Objective, Pair, Weighted};
pub use site::Ends;
