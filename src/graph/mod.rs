//! What a network is.

pub mod tensor;
