//! Narrower numbers: halves, and integers in place of floats.

pub mod half;
pub mod qoperator;
