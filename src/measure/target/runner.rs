//! How a device is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a device is reached: in a file `[runner]` with `kind = "…"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Runner {
    /// Not at all: no device is at hand.
    #[default]
    None,
    /// A process on this machine.
    Local(Local),
    /// The system's ssh and scp.
    Ssh(Ssh),
    /// User emulation on this machine: right values, no times.
    Qemu(Qemu),
    /// Any program that speaks our protocol; see [`crate::measure::agent`].
    Command(Commanded),
}

/// The agent in a process on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Local {
    /// The agent's program; without it `aludel-edge` beside this program, or in `PATH`.
    pub agent: Option<PathBuf>,
    /// Seconds that a step may take.
    pub timeout_s: Timeout,
}

/// A machine reached by ssh, with the user's own keys, known hosts and `~/.ssh/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssh {
    /// Its name or address, or a `Host` of `~/.ssh/config`.
    pub host: String,
    /// Its port, where ssh's configuration does not say.
    #[serde(default)]
    pub port: Option<u16>,
    /// The user there.
    #[serde(default)]
    pub user: Option<String>,
    /// A private key.
    #[serde(default)]
    pub identity: Option<PathBuf>,
    /// The agent's path on the device; without it `aludel-edge` in `PATH` there.
    #[serde(default)]
    pub agent: Option<String>,
    /// The agent's program on this machine, to be pushed to the device.
    #[serde(default)]
    pub push: Option<PathBuf>,
    /// A folder on the device in which models and the agent are kept under their hash, so that none is pushed twice;
    /// without it nothing stays there.
    #[serde(default)]
    pub folder: Option<String>,
    /// More of ssh's options, each as after `-o`: `"ProxyJump=bastion"`.
    #[serde(default)]
    pub options: Vec<String>,
    /// Copy with the protocol that scp had before version 9 (`scp -O`), for devices without sftp.
    #[serde(default)]
    pub legacy_scp: bool,
    /// Seconds that a step may take.
    #[serde(default)]
    pub timeout_s: Timeout,
}

/// The agent, built for another processor, under an emulator of a program on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qemu {
    /// The emulator: `qemu-aarch64-static`, `qemu-arm-static`.
    pub program: PathBuf,
    /// The processor, as `-cpu` takes it.
    #[serde(default)]
    pub cpu: Option<String>,
    /// Where the libraries of a dynamic agent are, as `-L` takes it.
    #[serde(default)]
    pub sysroot: Option<PathBuf>,
    /// The agent, built for the device.
    pub agent: PathBuf,
    /// Variables for the agent: tract chooses its kernels by the processor of this machine unless
    /// `TRACT_CPU_AARCH64_KIND` names one.
    #[serde(default)]
    pub environment: std::collections::BTreeMap<String, String>,
    /// Seconds that a step may take.
    #[serde(default)]
    pub timeout_s: Timeout,
}

/// Any program that speaks our protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commanded {
    /// The program and its first arguments; the folder becomes the last.
    pub command: Vec<String>,
    /// Whether what answers is an emulator, whose times say nothing.
    #[serde(default)]
    pub is_emulated: bool,
    /// Seconds that it may take.
    #[serde(default)]
    pub timeout_s: Timeout,
}

/// Seconds that a step of a runner may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeout(pub u64);

impl Default for Timeout {
    fn default() -> Timeout {
        Timeout(600)
    }
}

impl From<Timeout> for Duration {
    fn from(timeout: Timeout) -> Duration {
        Duration::from_secs(timeout.0)
    }
}

impl Runner {
    /// Its kind, as files name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Runner::None => "none",
            Runner::Local(_) => "local",
            Runner::Ssh(_) => "ssh",
            Runner::Qemu(_) => "qemu",
            Runner::Command(_) => "command",
        }
    }

    /// Whether an emulator stands in for the device, so that no time says anything about it.
    pub fn is_emulated(&self) -> bool {
        match self {
            Runner::Qemu(_) => true,
            Runner::Command(commanded) => commanded.is_emulated,
            Runner::None | Runner::Local(_) | Runner::Ssh(_) => false,
        }
    }

    /// The same with relative paths on this machine taken from this folder. Bare names of programs are left for `PATH`, and
    /// `~` for ssh.
    pub(super) fn within(mut self, folder: &Path) -> Runner {
        let below = |path: &mut PathBuf| {
            if path.is_relative() && !path.starts_with("~") {
                *path = folder.join(&*path);
            }
        };
        match &mut self {
            Runner::None => {}
            Runner::Local(local) => local.agent.iter_mut().for_each(below),
            Runner::Ssh(ssh) => ssh.identity.iter_mut().chain(&mut ssh.push).for_each(below),
            Runner::Qemu(qemu) => {
                [&mut qemu.agent].into_iter().chain(&mut qemu.sysroot).for_each(below);
                [&mut qemu.program].into_iter().filter(|path| path.components().count() > 1).for_each(below);
            }
            Runner::Command(commanded) => {
                let program = commanded.command.first_mut().filter(|program| program.contains('/'));
                if let Some(program) = program.filter(|program| Path::new(program).is_relative()) {
                    *program = folder.join(&*program).to_string_lossy().into_owned();
                }
            }
        }
        self
    }

    /// The first key whose value makes no sense, and why.
    pub(super) fn wrong(&self) -> Option<(&'static str, String)> {
        let timeout = match self {
            Runner::None => return None,
            Runner::Local(local) => local.timeout_s,
            Runner::Ssh(ssh) => {
                if let Some(wrong) = ssh.wrong() {
                    return Some(wrong);
                }
                ssh.timeout_s
            }
            Runner::Qemu(qemu) => qemu.timeout_s,
            Runner::Command(commanded) => {
                if commanded.command.first().is_none_or(String::is_empty) {
                    return Some(("runner.command", "it is empty: name a program and its arguments".to_owned()));
                }
                commanded.timeout_s
            }
        };
        (timeout.0 == 0).then(|| ("runner.timeout_s", "it must be at least 1".to_owned()))
    }
}

impl Ssh {
    fn wrong(&self) -> Option<(&'static str, String)> {
        let is_word = |text: &str| {
            !text.is_empty() && !text.starts_with('-') && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        if !is_word(&self.host) || self.host.contains(['@', '/']) {
            return Some((
                "runner.host",
                format!("`{}` is no name of a host; `user` and `port` are keys of their own", self.host),
            ));
        }
        if self.user.as_deref().is_some_and(|user| !is_word(user)) {
            return Some(("runner.user", "it is no name of a user".to_owned()));
        }
        if self.port == Some(0) {
            return Some(("runner.port", "it must be from 1 to 65535".to_owned()));
        }
        let is_plain = |folder: &str| {
            is_word(folder)
                && folder.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c))
                && !folder.contains("..")
        };
        if self.folder.as_deref().is_some_and(|folder| !is_plain(folder)) {
            return Some((
                "runner.folder",
                "only letters, digits, `.`, `_`, `-` and `/` may be in it; a relative one lies in the home folder there".to_owned(),
            ));
        }
        if self.agent.is_some() && self.push.is_some() {
            return Some((
                "runner.push",
                "the agent is on the device already (`agent`): leave out one of the two".to_owned(),
            ));
        }
        if self.agent.as_deref().is_some_and(|agent| agent.is_empty() || agent.starts_with('-')) {
            return Some(("runner.agent", "it is no path of a program".to_owned()));
        }
        None
    }
}
