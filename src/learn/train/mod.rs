//! Training: what a network's numbers are for and begin with, how the rate goes, how good it gets, and what that means.

pub mod attack;
pub(crate) mod behind;
pub mod checkpoint;
pub mod diagnosis;
mod error;
pub mod events;
pub mod fit;
pub(crate) mod floats;
pub mod init;
pub mod learner;
pub mod loss;
pub mod metrics;
pub(crate) mod named;
pub mod optimizer;
pub mod outputs;
pub mod roles;
pub mod safetensors;
pub mod schedule;
mod targets;

pub use error::TrainError;
