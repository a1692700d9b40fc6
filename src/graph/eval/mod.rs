//! The reference: one operator, or a whole graph, on plain tensors, for every operator and element type of the table.
//!
//! Slow and meant to be obviously right: floats are computed in `f64` and rounded once to the output's type, integers
//! in `i128`. It folds constants, carries shape arithmetic, and is the oracle of the tests. Nothing here is tuned.
//!
//! Each operator is a function of its family's file, named after it in snake case, that takes `Args` and
//! the operator's attributes where it has some. One with a single output returns that tensor, any other a list with an
//! entry an output.

mod args;
mod arithmetic;
mod attention;
mod cast;
mod contrib;
mod control;
mod conv;
mod dynamic_lstm;
mod einsum;
mod elementwise;
mod floats;
mod gather;
mod generate;
mod layout;
mod logic;
mod minifloat;
mod norm;
mod numbers;
mod packed;
mod pool;
mod product;
mod qproduct;
mod quantize;
mod recurrence;
mod recurrent;
mod reduce;
mod reshape;
mod resize;
mod run;
mod scatter;
mod search;
mod shapes;
mod softmax;
mod sparse;
#[cfg(test)]
mod testing;

pub use args::EvalError;
#[cfg(feature = "learn")]
pub(crate) use einsum::{Equation, Label};
#[cfg(feature = "learn")]
pub(crate) use layout::padding_source;
#[cfg(feature = "learn")]
pub(crate) use recurrence::{Activation, Cell, Options as RecurrentOptions, activations};
#[cfg(feature = "learn")]
pub(crate) use resize::axis_weights;
pub use run::{operator, run, run_with};
pub use sparse::densify;

use args::invalid;
