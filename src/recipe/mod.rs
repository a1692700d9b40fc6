//! Recipes: a TOML file says which network learns from which data, and how; this room does it.

pub mod debug;
pub mod emulate;
mod error;
pub mod evaluate;
mod look;
pub mod normalization;
pub mod pipeline;
mod prepare;
mod probe;
pub mod prune;
pub mod quantize;
mod rounding;
pub mod samples;
mod score;
mod train;
pub mod validate;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use error::RecipeError;
pub use train::{Prepared, Trained, train};

use crate::data::Descriptor;
use crate::learn::train::fit::TrainOptions;
use crate::learn::train::init::Initialisation;
use crate::zoo::Architecture;

/// What a recipe says.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// What the network is called.
    pub name: String,
    /// What everything random depends on.
    pub seed: u64,
    /// What it learns from.
    pub data: Descriptor,
    /// What learns.
    pub model: ModelPart,
    /// How.
    pub train: TrainOptions,
    /// A hash of the file's text: what a checkpoint belongs to.
    pub sha256: String,
    /// The folder that paths in it are relative to.
    pub folder: PathBuf,
}

/// The part `model`: an architecture of the zoo, or a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelPart {
    /// An architecture with its parameters.
    pub arch: Option<Architecture>,
    /// An ONNX file.
    pub onnx: Option<PathBuf>,
    /// The output that is to meet the labels; the first where it is not given.
    pub output: Option<String>,
    /// The data's columns that an architecture reads, in its order; all of them where it is not given.
    pub inputs: Option<Vec<String>>,
    /// Whether the written network takes raw values and normalises them itself, as the data was for the training.
    pub embed_normalization: bool,
    /// How weights begin; those of a file stay as they are without it.
    pub init: Option<Initialisation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default)]
    seed: u64,
    data: toml::Table,
    model: ModelPart,
    #[serde(default)]
    train: TrainOptions,
}

impl Recipe {
    /// The recipe in a file. Paths in it are relative to the file's folder.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or has a key that is missing, unknown or wrong; names file and key.
    pub fn read(path: &Path) -> Result<Recipe, RecipeError> {
        read(path, Recipe::parse)
    }

    /// The recipe in a text. Paths in it are relative to the folder.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn parse(text: &str, folder: &Path) -> Result<Recipe, RecipeError> {
        let file: File = toml::from_str(text).map_err(|error| RecipeError::Toml(Box::new(error)))?;
        if file.model.arch.is_some() == file.model.onnx.is_some() {
            return Err(RecipeError::Model("give `arch` or `onnx`, one of the two".to_string()));
        }
        Ok(Recipe {
            name: file.name,
            seed: file.seed,
            data: Descriptor::from_table(file.data, folder)?,
            model: file.model,
            train: file.train,
            sha256: crate::store::sha256(text.as_bytes()),
            folder: folder.to_owned(),
        })
    }
}

/// What a recipe's file says; errors name the file, and paths in it are relative to its folder.
fn read<T>(path: &Path, parse: impl FnOnce(&str, &Path) -> Result<T, RecipeError>) -> Result<T, RecipeError> {
    let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Io { path: path.to_owned(), source })?;
    parse(&text, path.parent().unwrap_or(Path::new("")))
        .map_err(|error| RecipeError::File { path: path.to_owned(), source: Box::new(error) })
}
