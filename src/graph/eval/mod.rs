//! The reference: one operator, or a whole graph, on plain tensors, for every operator and element type of the table.
//!
//! Slow and meant to be obviously right: floats are computed in `f64` and rounded once to the output's type, integers
//! in `i128`. It folds constants, carries shape arithmetic, and is the oracle of the tests. Nothing here is tuned.

mod args;
mod numbers;
mod run;

pub use args::EvalError;
pub use run::{operator, run};

use args::Args;
use numbers::Numbers;
