//! Data as named tensors: read from files, cleaned, divided into splits, normalised, and given out in batches. Nothing here
//! knows what a network is.
//!
//! A [`Descriptor`] (TOML) says where data is and what to make of it; [`Dataset::load`] reads it whole; a [`Loader`] gives
//! batches of a split, in an order and with changes that depend on nothing but a seed and the number of the epoch:
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use aludel::data::{Dataset, Descriptor, Loader, LoaderOptions, Split};
//!
//! let text = "kind = 'digits'\nnormalize = 'standard'\nsplit = { validation = 0.1, test = 0.2 }";
//! let digits = Arc::new(Dataset::load(&Descriptor::parse(text, Path::new("."))?)?);
//! let options = LoaderOptions { batch_size: 64, shuffle: true, seed: 7, ..LoaderOptions::default() };
//! let training = Loader::new(&digits, Split::Train, options)?;
//! for batch in training.batches(0, 0) {
//!     let batch = batch?;
//!     assert_eq!(batch["x"].shape()[1..], [1, 8, 8]);
//! }
//! # Ok::<(), aludel::data::DataError>(())
//! ```

mod augment;
mod cifar;
mod clean;
mod column;
mod dataset;
mod descriptor;
mod digits;
mod error;
mod file;
mod idx;
mod images;
mod labels;
mod loader;
mod mel;
mod normalize;
pub mod npz;
mod number;
mod random;
mod samples;
mod schema;
mod series;
mod sources;
mod split;
mod subset;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod wav;

pub use augment::Augmentation;
pub use cifar::LabelByte;
pub use clean::{Clean, Finding, Findings, Found};
pub use column::{Column, Normalization, Values};
pub use dataset::{Batch, Dataset, LABEL};
pub use descriptor::Descriptor;
pub use error::DataError;
pub use images::Images;
pub use labels::Labels;
pub(crate) use loader::MOST_UNLABELLED;
pub use loader::{Batches, Length, Loader, LoaderOptions};
pub use mel::{Mel, MelScale};
pub use normalize::Normalize;
pub use sources::{Arrays, IdxFiles, Source};
pub use split::{Shares, Split};
pub use subset::NO_CLASS;
pub use table::{Role, Table};
pub use text::{Cut, Tokens};
pub use tree::Tree;
pub use wav::{Features, Wav};
