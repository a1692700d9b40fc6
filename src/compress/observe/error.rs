//! Why a network's values cannot be counted.

use crate::graph::Name;
use crate::graph::probe::ProbeError;
use crate::graph::tensor::TensorError;

/// A network's values cannot be counted.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A value is not a number, or infinite.
    #[error("`{value}` is {what} on the calibration data (hint: the network overflows there; look at its inputs)")]
    NotFinite {
        /// the value
        value: Name,
        /// `infinite` or `not a number`
        what: &'static str,
    },
    /// The channels of a value cannot be told apart.
    #[error("`{value}` {problem}, so that its channels cannot be counted (hint: leave out what changes them)")]
    Channels {
        /// the value
        value: Name,
        /// why
        problem: &'static str,
    },
    /// Nothing was seen.
    #[error("there are no samples to calibrate with (hint: give some hundreds that are like those of use)")]
    NoSamples,
    /// The network cannot be run on the data.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A tensor is not what it should be.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl ObserveError {
    /// That a value holds this number, which is not finite.
    pub(in crate::compress) fn not_finite(value: &Name, number: f64) -> ObserveError {
        let what = if number.is_nan() { "not a number" } else { "infinite" };
        ObserveError::NotFinite { value: value.clone(), what }
    }
}
