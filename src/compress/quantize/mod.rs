//! Quantization: a network's numbers become integers of few bits.
//!
//! A [`Scheme`](scheme::Scheme) says what is wanted; [`plan()`] finds where in a graph; [`calibrate()`] counts what the values
//! there look like on data; [`insert()`] makes integers of them. Each is a function of plain values, so that any can be
//! looked at, kept in a file, or replaced.

pub mod calibrate;
pub mod calibrator;
pub mod debug;
mod dense;
pub mod dynamic;
mod error;
pub mod fake;
pub mod half;
pub mod histogram;
mod insert;
pub mod mixed;
pub mod nbits;
pub mod options;
mod pairs;
pub mod parameters;
pub mod plan;
pub mod ports;
pub mod prepare;
pub mod qoperator;
pub mod rounding;
pub mod scheme;
pub mod sensitivity;
pub mod slow;
#[cfg(test)]
mod tests;
mod weights;

pub use calibrate::{Ranges, calibrate};
pub use calibrator::Calibrator;
pub use dense::Narrowed;
pub use dynamic::dynamic;
pub use error::QuantizeError;
pub use insert::{Scales, insert, scales};
pub use nbits::mat_mul_n_bits;
pub use plan::{Plan, plan};
pub use ports::integer_ports;
pub use rounding::Rounding;
pub use weights::{insert_weights, insert_weights_with, weight_sites};
