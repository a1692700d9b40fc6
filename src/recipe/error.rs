//! What can be wrong with a recipe, or go wrong on the way.

use std::io;
use std::path::PathBuf;

use crate::data::DataError;
use crate::graph::patch::PatchError;
use crate::learn::train::TrainError;
use crate::learn::train::init::InitError;
use crate::measure::runtime::RuntimeError;
use crate::onnx::OnnxError;
use crate::store::StoreError;
use crate::zoo::ZooError;

/// Why a recipe is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// the file
        path: PathBuf,
        /// why
        source: io::Error,
    },
    /// Something in a file is wrong.
    #[error("{}: {source}", path.display())]
    File {
        /// the file
        path: PathBuf,
        /// what
        source: Box<RecipeError>,
    },
    /// It is no TOML, or a key is missing, unknown or wrong.
    #[error("{0}")]
    Toml(Box<toml::de::Error>),
    /// The part `model` is wrong.
    #[error("[model]: {0}")]
    Model(String),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The architecture cannot be built.
    #[error(transparent)]
    Zoo(#[from] ZooError),
    /// The weights cannot be initialised.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The network does not learn.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The normalisation does not go into the network.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// A network's file cannot be read or written.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A runtime fails.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
