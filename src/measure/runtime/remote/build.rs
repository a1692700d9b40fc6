//! Building the agent for a device with what this machine has: cargo, a standard library for the target triple, a linker.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::measure::agent;
use crate::measure::target::Target;

/// An agent that was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Build {
    /// The target triple; none for this machine's own.
    pub triple: Option<String>,
    /// The program.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The device runs no programs, or its file names no triple.
    #[error("{target}: its file names no target triple to build for (`build`)")]
    NoTriple {
        /// the device
        target: String,
    },
    /// The folder holds other sources, or none.
    #[error("{} does not hold aludel's sources", folder.display())]
    Sources {
        /// where they were looked for
        folder: PathBuf,
    },
    /// This machine cannot build for it.
    #[error("{target}: cannot build for {triple}:\n{}", lines(.missing))]
    Missing {
        /// the device
        target: String,
        /// the triple
        triple: String,
        /// everything that is missing
        missing: Vec<Missing>,
    },
    /// cargo failed, or could not be started.
    #[error("{target}: {command}: {reason}")]
    Cargo {
        /// the device
        target: String,
        /// what was run
        command: String,
        /// how it ended; its own words went to stderr
        reason: String,
    },
}

impl BuildError {
    /// What the reader can do about it, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            BuildError::NoTriple { .. } => "give the target's file a `build`, where programs run on the device",
            BuildError::Sources { .. } => {
                "go into a checkout of aludel, or: cargo install aludel --no-default-features --features edge --bin aludel-edge --target TRIPLE"
            }
            BuildError::Missing { .. } => "install these, then try again",
            BuildError::Cargo { .. } => "cargo's own words are above",
        }
    }
}

/// Something that this machine needs to build for a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What.
    pub what: String,
    /// How to get it.
    pub install: String,
}

fn lines(missing: &[Missing]) -> String {
    missing.iter().map(|missing| format!("  {}: {}", missing.what, missing.install)).collect::<Vec<_>>().join("\n")
}

/// Compilers for another processor, as Debian names them: beginning of the triple, program, package.
const COMPILERS: [(&str, &str, &str); 3] = [
    ("aarch64-", "aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
    ("armv7-", "arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"),
    ("arm-", "arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross"),
];

/// Builds the agent for a device from the sources in a folder, as small as it becomes without losing speed: optimized for
/// size, which costs 2 % more instructions and gives the same values. cargo talks to stderr.
///
/// # Errors
/// When there is nothing to build for, something is missing, or cargo fails.
pub fn build(target: &Target, sources: &Path) -> Result<Build, BuildError> {
    let name = || target.name.clone();
    let triple = match (&target.build, target.arch.as_str()) {
        (Some(triple), _) => Some(triple.clone()),
        (None, "native") => None,
        (None, _) => return Err(BuildError::NoTriple { target: name() }),
    };
    if let Some(triple) = &triple {
        let missing = missing(triple);
        if !missing.is_empty() {
            return Err(BuildError::Missing { target: name(), triple: triple.clone(), missing });
        }
    }
    // cargo says so itself where there is no package at all.
    if !sources.join("src/bin/aludel-edge.rs").is_file() {
        return Err(BuildError::Sources { folder: sources.to_owned() });
    }
    let mut command = cargo(triple.as_deref());
    let words = format!("{command:?}").replace('"', "");
    let failed = |reason: String| BuildError::Cargo { target: name(), command: words.clone(), reason };
    let output = command.current_dir(sources).stderr(Stdio::inherit()).stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    let path = executable(&String::from_utf8_lossy(&output.stdout));
    let path = path.ok_or_else(|| failed("it named no program that it built".to_owned()))?;
    let size_bytes = path.metadata().map_err(|error| failed(format!("{}: {error}", path.display())))?.len();
    Ok(Build { triple, path, size_bytes })
}

fn cargo(triple: Option<&str>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--release", "--no-default-features", "--features", "edge", "--bin", agent::NAME]);
    command.args(["--message-format", "json-render-diagnostics"]);
    for setting in ["opt-level='s'", "lto='fat'", "codegen-units=1", "panic='abort'", "strip='symbols'"] {
        command.args(["--config", &format!("profile.release.{setting}")]);
    }
    let Some(triple) = triple else { return command };
    command.args(["--target", triple]);
    if let Some((_, compiler, _)) = compiler(triple) {
        for variable in [linker_variable(triple), format!("CC_{}", triple.replace('-', "_"))] {
            if std::env::var_os(&variable).is_none() {
                command.env(variable, compiler);
            }
        }
    }
    command
}

/// What this machine lacks to build for a triple, with how to get it.
pub fn missing(triple: &str) -> Vec<Missing> {
    let mut missing = Vec::new();
    // A standard library that cargo itself builds need not be installed.
    if std::env::var_os("CARGO_UNSTABLE_BUILD_STD").is_none() && !has_standard_library(triple) {
        missing.push(Missing {
            what: format!("Rust's standard library for {triple}"),
            install: format!("rustup target add {triple}"),
        });
    }
    if let Some((_, compiler, packages)) = compiler(triple) {
        let variable = linker_variable(triple);
        if std::env::var_os(&variable).is_none() && !is_in_path(compiler) {
            missing.push(Missing {
                what: format!("a compiler and linker for it ({compiler})"),
                install: format!(
                    "apt-get install {packages}; or name one with {variable} and CC_{}",
                    triple.replace('-', "_")
                ),
            });
        }
    }
    missing
}

/// The compiler for a triple, where this machine's own is none.
fn compiler(triple: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    let own = format!("{}-", std::env::consts::ARCH);
    COMPILERS.iter().find(|(prefix, ..)| triple.starts_with(prefix)).filter(|_| !triple.starts_with(&own))
}

fn linker_variable(triple: &str) -> String {
    format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace(['-', '.'], "_"))
}

fn has_standard_library(triple: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", triple]).output();
    output.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    })
}

fn is_in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// The program that cargo's messages name.
fn executable(messages: &str) -> Option<PathBuf> {
    let path = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    };
    messages.lines().rev().find_map(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_s_messages_name_the_program() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\nnoise\n{\"executable\":\"/t/aludel-edge\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/aludel-edge")));
        assert_eq!(executable("{}"), None);
    }

    #[test]
    fn what_is_missing_is_said_with_its_remedy() {
        let missing = missing("no-such-triple");
        assert_eq!(missing[0].install, "rustup target add no-such-triple");
        assert_eq!(linker_variable("aarch64-unknown-linux-musl"), "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER");
    }
}
