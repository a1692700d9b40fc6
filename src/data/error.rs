//! What can go wrong with data.

use std::io;
use std::path::{Path, PathBuf};

use super::npz::NpzError;
use crate::graph::tensor::TensorError;

/// Why data cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// the file
        path: PathBuf,
        /// why
        source: io::Error,
    },
    /// A file as a whole is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// the file
        path: PathBuf,
        /// what is wrong with it, and what to do
        problem: String,
    },
    /// One sample of a file is not what it should be.
    #[error("{place}: {problem}")]
    Row {
        /// file, and line, sample number or name in it
        place: String,
        /// what is wrong with it, and what to do
        problem: String,
    },
    /// A key of a data descriptor is missing, unknown or has a value that it cannot have.
    #[error("data descriptor: `{key}`: {problem}")]
    Descriptor {
        /// the key
        key: String,
        /// what is wrong with it, and what to do
        problem: String,
    },
    /// An archive of arrays cannot be read.
    #[error(transparent)]
    Npz(#[from] NpzError),
    /// A tensor cannot be made of the parts.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Something was asked for that this data does not have.
    #[error("{0}")]
    Request(String),
    /// The thread that reads ahead ended without saying why.
    #[error("the thread that reads batches ahead has panicked; the panic's message is on the standard error stream")]
    Panicked,
}

impl DataError {
    pub(super) fn file(path: &Path, problem: impl Into<String>) -> DataError {
        DataError::File { path: path.to_owned(), problem: problem.into() }
    }

    pub(super) fn line(path: &Path, line: u64, problem: impl Into<String>) -> DataError {
        DataError::Row { place: format!("{}, line {line}", path.display()), problem: problem.into() }
    }

    pub(super) fn key(key: impl Into<String>, problem: impl Into<String>) -> DataError {
        DataError::Descriptor { key: key.into(), problem: problem.into() }
    }
}
