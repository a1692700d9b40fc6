//! Why a device's file is refused.

use std::path::PathBuf;

use crate::store::StoreError;

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Neither a file nor a built-in device.
    #[error("there is no device `{name}`, built in or as a file; built in are {}", known.join(", "))]
    Unknown {
        /// what was asked for
        name: String,
        /// what there is
        known: Vec<&'static str>,
    },
    /// The file is no TOML, or a key is unknown or of another type.
    #[error("{}: {reason}", file.display())]
    Syntax {
        /// the file
        file: PathBuf,
        /// with line and key
        reason: String,
    },
    /// A key has a value that makes no sense.
    #[error("{}: `{key}`: {reason}", file.display())]
    Value {
        /// the file
        file: PathBuf,
        /// the key, with its table
        key: &'static str,
        /// expected and got
        reason: String,
    },
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TargetError {
    /// What the reader can do about it, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            TargetError::Unknown { .. } => "`aludel targets list` lists what is built in; a file needs its whole path",
            TargetError::Syntax { .. } | TargetError::Value { .. } => {
                "`aludel targets show raspberry-pi-4 --toml` prints a file to begin with; the README's section on devices has every key"
            }
            TargetError::Store(_) => "look at the file's place and permissions",
        }
    }
}
