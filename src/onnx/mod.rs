//! Bytes in, [`Model`](crate::graph::Model) out, and back: the only room that knows protobuf and operator set versions.
//!
//! What is read stands in canonical form, that of [`CANONICAL_OPSET`](crate::graph::op::CANONICAL_OPSET); what is
//! written is lowered to the operator set asked for. Nothing in a file is trusted: every length, offset, name and depth is
//! checked.

mod error;
mod external;
mod foreign;
mod function;
#[cfg(test)]
mod hostile;
mod lower;
mod pieces;
mod raw;
#[cfg(test)]
mod raw_text;
mod read;
#[cfg(test)]
mod round_trip;
mod scope;
mod tensor;
#[cfg(test)]
mod tests;
mod types;
mod upgrade;
mod wire;
mod write;

pub use error::{NodeProblem, OnnxError, TensorProblem};
pub use lower::LowerError;
pub use read::{read, read_bytes, read_tensor};
pub use upgrade::UpgradeError;
pub use write::{ExternalData, WriteOptions, Written, to_bytes, to_bytes_at, write};
