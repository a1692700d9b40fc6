//! A training's state as bytes: numbers in safetensors, the rest as JSON in its header.

use std::collections::HashMap;

use indexmap::IndexMap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::diagnosis::Epoch;
use super::fit::State;

const KEY: &str = "aludel.training";

#[derive(Serialize, Deserialize)]
struct Header {
    /// What the training was begun with: another recipe cannot take it up.
    recipe: String,
    epoch: usize,
    n_batches: usize,
    n_steps: u64,
    rate_factor: f64,
    n_cuts: usize,
    /// As bits: JSON does not keep every number as it is.
    loss: (u64, u64),
    /// The three numbers of each, as bits, too.
    epochs: Vec<[u64; 3]>,
    best: Option<usize>,
    /// By kind, how many lists there are.
    kinds: IndexMap<String, usize>,
}

/// The bytes of a state; `recipe` is a hash of what it was begun with.
///
/// # Errors
/// When a number cannot be written.
pub fn to_bytes(state: &State, recipe: &str) -> Result<Vec<u8>, TrainError> {
    let header = Header {
        recipe: recipe.to_string(),
        epoch: state.epoch,
        n_batches: state.n_batches,
        n_steps: state.n_steps,
        rate_factor: state.rate_factor,
        n_cuts: state.n_cuts,
        loss: (state.loss.0.to_bits(), state.loss.1),
        epochs: state
            .epochs
            .iter()
            .map(|it| [it.train_loss, it.validation_loss, it.metric].map(f64::to_bits))
            .collect(),
        best: state.best,
        kinds: state.numbers.iter().map(|(kind, lists)| (kind.clone(), lists.len())).collect(),
    };
    let header = serde_json::to_string(&header).map_err(|error| broken(&error))?;
    let lists = state
        .numbers
        .iter()
        .flat_map(|(kind, lists)| lists.iter().enumerate().map(move |(idx, values)| (format!("{kind}.{idx}"), values)));
    let views = lists.map(|(name, values)| {
        let bytes = bytemuck::cast_slice(values.as_slice());
        TensorView::new(Dtype::F32, vec![values.len()], bytes).map(|view| (name, view)).map_err(|error| broken(&error))
    });
    let views = views.collect::<Result<Vec<_>, _>>()?;
    let metadata = HashMap::from([(KEY.to_string(), header)]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| broken(&error))
}

/// The state in these bytes.
///
/// # Errors
/// When they are no checkpoint, or one of another recipe.
pub fn from_bytes(bytes: &[u8], recipe: &str) -> Result<State, TrainError> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| broken(&error))?;
    let header = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let header = header.ok_or_else(|| TrainError::Checkpoint { problem: "it is no training's state".to_string() })?;
    let header: Header = serde_json::from_str(header).map_err(|error| broken(&error))?;
    if header.recipe != recipe {
        return Err(TrainError::Checkpoint { problem: "it was begun with another recipe".to_string() });
    }
    let file = SafeTensors::deserialize(bytes).map_err(|error| broken(&error))?;
    let list = |kind: &str, idx: usize| {
        let view = file.tensor(&format!("{kind}.{idx}")).map_err(|error| broken(&error))?;
        Ok(bytemuck::pod_collect_to_vec(view.data()))
    };
    let mut numbers = IndexMap::new();
    for (kind, n_lists) in &header.kinds {
        let lists = (0..*n_lists).map(|idx| list(kind, idx)).collect::<Result<Vec<Vec<f32>>, TrainError>>()?;
        numbers.insert(kind.clone(), lists);
    }
    Ok(State {
        epoch: header.epoch,
        n_batches: header.n_batches,
        n_steps: header.n_steps,
        rate_factor: header.rate_factor,
        n_cuts: header.n_cuts,
        loss: (f64::from_bits(header.loss.0), header.loss.1),
        epochs: header.epochs.into_iter().map(epoch).collect(),
        best: header.best,
        numbers,
    })
}

fn epoch(bits: [u64; 3]) -> Epoch {
    let [train_loss, validation_loss, metric] = bits.map(f64::from_bits);
    Epoch { train_loss, validation_loss, metric }
}

fn broken(error: &dyn std::fmt::Display) -> TrainError {
    TrainError::Checkpoint { problem: error.to_string() }
}
