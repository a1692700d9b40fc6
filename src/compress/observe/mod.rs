//! What a network's values look like as samples run through it: counted batch by batch, and forgotten.
//!
//! | what | of |
//! |---|---|
//! | [`channels`] | least, greatest, mean and spread of each channel of a value, and how often it is zero |
//! | `moments` | the second moments of what a product multiplies its constant with |
//!
//! What a pass holds does not grow with the number of samples.

pub mod channels;
mod error;
pub(super) mod factor;
pub(super) mod moments;
pub(super) mod offset;
pub(super) mod product;
mod rows;

use indexmap::IndexMap;
use rayon::prelude::*;

pub use error::ObserveError;

use crate::graph::Name;
use crate::graph::probe::Forward;
use crate::graph::tensor::Tensor;

/// Runs batches of a network's inputs one after the other. `see` gets the values that the network was made to give, and they
/// are forgotten before the next batch is asked for; `told` gets the number of samples that are done. Gives that number.
///
/// # Errors
/// When there are no samples, the network cannot be run, or `see` fails.
pub(super) fn for_batches<E: From<ObserveError>>(
    network: &mut dyn Forward,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
    mut told: impl FnMut(u64),
    mut see: impl FnMut(Vec<Tensor>) -> Result<(), ObserveError>,
) -> Result<u64, E> {
    let mut n_samples = 0;
    for batch in batches {
        let batch = batch?;
        let n_rows = batch.values().next().and_then(|tensor| tensor.shape().first().copied()).unwrap_or(1);
        see(network.forward(&batch).map_err(ObserveError::from)?)?;
        n_samples += n_rows as u64;
        told(n_samples);
    }
    match n_samples {
        0 => Err(ObserveError::NoSamples.into()),
        n => Ok(n),
    }
}

/// Lets each observer see its tensor. What each counts is its own: how the work is spread over threads changes nothing in it.
///
/// # Errors
/// The first of several.
pub(super) fn each<T: Send>(
    observers: &mut [T],
    tensors: Vec<Tensor>,
    see: impl Fn(&mut T, &Tensor) -> Result<(), ObserveError> + Sync,
) -> Result<(), ObserveError> {
    let seen = observers.par_iter_mut().zip(tensors).map(|(observer, tensor)| see(observer, &tensor));
    seen.collect::<Vec<Result<(), ObserveError>>>().into_iter().collect()
}
