//! Data as named tensors. Nothing here knows what a network is.

pub mod npz;
