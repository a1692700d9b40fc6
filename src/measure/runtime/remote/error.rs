//! Why a device gives no answer.

use crate::store::StoreError;

/// Why a device gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Its file names no runner.
    #[error("{target}: no device is at hand: its file names no runner")]
    NoDevice {
        /// the device
        target: String,
    },
    /// A program on this machine cannot be started.
    #[error("{target}: cannot {step}: {program} cannot be started: {reason}")]
    Start {
        /// the device
        target: String,
        /// what it was for
        step: &'static str,
        /// the program
        program: String,
        /// why
        reason: String,
    },
    /// A program ended badly, or without what it was for.
    #[error("{target}: cannot {step}: {program}: {reason}{}", said(.stderr))]
    Failed {
        /// the device
        target: String,
        /// what it was for
        step: &'static str,
        /// the program
        program: String,
        /// how it ended
        reason: String,
        /// the end of what it said
        stderr: String,
    },
    /// A step took too long and was ended.
    #[error("{target}: cannot {step}: {program} took longer than {timeout_s} s and was ended{}", said(.stderr))]
    Timeout {
        /// the device
        target: String,
        /// what it was for
        step: &'static str,
        /// the program
        program: String,
        /// the time it had
        timeout_s: u64,
        /// the end of what it said
        stderr: String,
    },
    /// The answer cannot be read, or is no answer to what was asked.
    #[error("{target}: the device's answer cannot be used: {reason}")]
    Response {
        /// the device
        target: String,
        /// why
        reason: String,
    },
    /// What answers is of another version.
    #[error("{target}: the device speaks {got}, expected {expected}")]
    Version {
        /// the device
        target: String,
        /// its
        got: String,
        /// ours
        expected: String,
    },
    /// The device could not do it.
    #[error("{target}: the device says: {reason}")]
    Refused {
        /// the device
        target: String,
        /// its own words
        reason: String,
    },
    /// The agent has no such runtime.
    #[error("{target}: its runtime is onnxruntime, and the agent has tract only")]
    Runtime {
        /// the device
        target: String,
    },
    /// Files on this machine.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("\n{stderr}") }
}

impl RemoteError {
    /// What the reader can do about it, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            RemoteError::NoDevice { .. } => {
                "write a file with `base = \"…\"` and a `[runner]` of kind ssh, qemu or command, and give it as the target; the README's section on devices shows each"
            }
            RemoteError::Start { .. } => "install the program, or name its path in the target's `[runner]`",
            RemoteError::Failed { .. } => {
                "try the same by hand; `aludel targets build` makes an agent for the device, and the target's `[runner]` says where it is"
            }
            RemoteError::Timeout { .. } => "give the target's `[runner]` a longer `timeout_s`",
            RemoteError::Response { .. } => "what answers must speak the protocol of the README's section on devices",
            RemoteError::Version { .. } => "build the agent anew with `aludel targets build`, and put it on the device",
            RemoteError::Refused { .. } => {
                "the words are the device's runtime's; `aludel bench --runtime tract` tries the model here"
            }
            RemoteError::Runtime { .. } => {
                "set `runtime = \"tract\"` in the target's file, or a runner of kind command that runs onnxruntime"
            }
            RemoteError::Store(_) => "look at the space and permissions of the folder for temporary files",
        }
    }
}
