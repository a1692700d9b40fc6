//! Devices that a network is made for: what each can do, and how to reach it. Their files are read here and nowhere else.
//!
//! Those that are built in lie in `targets/`; `--target NAME|FILE.toml` takes a user's own as well.

mod error;
mod file;
mod runner;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::child::RuntimeName;
use crate::store;

pub use error::TargetError;
pub use runner::{Commanded, Local, Qemu, Runner, Ssh, Timeout};

/// A device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// What it is called on the command line: the file's stem, where the file does not say.
    pub name: String,
    /// What a person calls it.
    pub title: String,
    /// `aarch64`, `x86_64`, `arm`, `thumbv7em`; `native`: whatever this machine is.
    pub arch: String,
    /// Instruction sets that it has, named as in [`Machine::features`](super::machine::Machine::features).
    pub instruction_set: Vec<String>,
    /// Processors; none where they differ from device to device.
    pub n_cores: Option<usize>,
    /// RAM; of a microcontroller the largest piece.
    pub memory_bytes: Option<u64>,
    /// Flash of a microcontroller: weights and code.
    pub flash_bytes: Option<u64>,
    /// What runs networks there; none on microcontrollers, where neither tract nor onnxruntime runs.
    pub runtime: Option<RuntimeName>,
    /// Threads that a run uses.
    pub n_threads: usize,
    /// How it computes in integers, as `compare --arithmetic` names it.
    pub arithmetic: Option<String>,
    /// How to reach it.
    pub runner: Runner,
    /// The target triple that the agent is built for.
    pub build: Option<String>,
    /// What a network may take there.
    pub budget: Budget,
}

/// What a network may take on a device; what is none is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// 95 of 100 runs take at most this.
    pub latency_p95_ms: Option<f64>,
    /// Memory: a process's peak, or a microcontroller's activations.
    pub memory_kib: Option<f64>,
    /// The file; on a microcontroller the weights.
    pub size_kib: Option<f64>,
}

/// The names that `arithmetic` may have.
pub const ARITHMETICS: [&str; 4] = ["x86-avx2", "x86-vnni", "arm64", "microcontroller"];

/// The devices that are built in: name and file.
const BUILT_IN: [(&str, &str); 10] = [
    ("host", include_str!("../../../targets/host.toml")),
    ("raspberry-pi-3", include_str!("../../../targets/raspberry-pi-3.toml")),
    ("raspberry-pi-4", include_str!("../../../targets/raspberry-pi-4.toml")),
    ("raspberry-pi-5", include_str!("../../../targets/raspberry-pi-5.toml")),
    ("raspberry-pi-zero-2", include_str!("../../../targets/raspberry-pi-zero-2.toml")),
    ("jetson-orin-cpu", include_str!("../../../targets/jetson-orin-cpu.toml")),
    ("armv7", include_str!("../../../targets/armv7.toml")),
    ("x86-avx2", include_str!("../../../targets/x86-avx2.toml")),
    ("cortex-m4f", include_str!("../../../targets/cortex-m4f.toml")),
    ("cortex-m7", include_str!("../../../targets/cortex-m7.toml")),
];

/// Names of the built-in devices, in the order of their list.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// The text of a built-in device's file.
pub fn built_in_text(name: &str) -> Option<&'static str> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The device of this name, or of the file of this path: a file wins where there is one.
///
/// ```
/// use aludel::measure::target;
///
/// let board = target::find("raspberry-pi-4")?;
/// assert_eq!((board.n_cores, board.arch.as_str()), (Some(4), "aarch64"));
/// # Ok::<(), target::TargetError>(())
/// ```
///
/// # Errors
/// When there is neither, and when the file cannot be read or makes no device.
pub fn find(name_or_file: &str) -> Result<Target, TargetError> {
    let path = Path::new(name_or_file);
    if path.is_file() {
        return read(path);
    }
    match built_in_text(name_or_file) {
        Some(text) => file::parse(text, name_or_file, Path::new(&format!("targets/{name_or_file}.toml"))),
        None => Err(TargetError::Unknown { name: name_or_file.to_owned(), known: names().collect() }),
    }
}

/// The device that a file describes. Relative paths in it are taken from its folder.
///
/// # Errors
/// When the file cannot be read or makes no device: file, key and remedy.
pub fn read(path: &Path) -> Result<Target, TargetError> {
    let bytes = store::read(path)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| TargetError::Syntax { file: path.to_owned(), reason: format!("it is no text: {error}") })?;
    let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    file::parse(text, &stem, path)
}

impl Target {
    /// Whether it is a microcontroller: something with flash of its own and no runtime that reads ONNX files.
    pub fn is_microcontroller(&self) -> bool {
        self.flash_bytes.is_some()
    }
}
