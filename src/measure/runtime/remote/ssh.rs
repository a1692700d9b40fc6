//! The runner of kind `ssh`: the system's ssh and scp, so that keys, agents, known hosts and jump hosts work as they do by hand.
//!
//! Files are taken into a folder that the device makes for this job, and that goes when the job ends. Where the target names a
//! folder to keep, models and the agent lie in it under their hash and are not pushed again.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;

use super::process::Step;
use super::{Job, RemoteError};
use crate::measure::agent;
use crate::measure::target::Ssh;
use crate::store;

/// Has the job done on the device: response and outputs.
pub(super) fn answer(step: &Step<'_>, ssh: &Ssh, job: &Job<'_>) -> Result<(Bytes, Bytes), RemoteError> {
    let device = Device { step, ssh };
    let folder = device.make_folder()?;
    let answered = device.answer(&folder, job);
    let removed = device.shell("remove the job's folder", &format!("rm -rf -- {}", quoted(&folder)));
    let answered = answered?;
    removed.map(|_| answered)
}

/// A machine on the other end of ssh.
struct Device<'a> {
    step: &'a Step<'a>,
    ssh: &'a Ssh,
}

/// A file to be on the device, and where it is here.
struct Pushed {
    name: String,
    path: PathBuf,
    /// Whether its name is its content, so that it may stay.
    is_hashed: bool,
}

impl Device<'_> {
    /// A new folder there for one job.
    fn make_folder(&self) -> Result<String, RemoteError> {
        let script = match &self.ssh.folder {
            Some(folder) => format!("mkdir -p -- {0} && mktemp -d {0}/aludel-XXXXXX", quoted(folder)),
            None => "mktemp -d /tmp/aludel-XXXXXX".to_owned(),
        };
        const STEP: &str = "make a folder on the device";
        let ended = self.shell(STEP, &script)?;
        let folder = ended.stdout.lines().last().unwrap_or_default().trim().to_owned();
        let is_ours = folder.rsplit('/').next().is_some_and(|name| name.starts_with("aludel-"))
            && folder.chars().all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
        // It is going to be removed: nothing but what mktemp makes will do.
        if is_ours { Ok(folder) } else { Err(self.step.failed(STEP, &ended, "mktemp -d named no folder")) }
    }

    fn answer(&self, folder: &str, job: &Job<'_>) -> Result<(Bytes, Bytes), RemoteError> {
        let here = store::temporary_folder()?;
        let mut files = Vec::new();
        for (name, content) in job.files()? {
            let path = here.path().join(&name);
            store::write_atomic(&path, content.as_ref())?;
            let is_hashed = name.ends_with(".onnx");
            files.push(Pushed { name, path, is_hashed });
        }
        let agent = match &self.ssh.push {
            Some(program) => {
                let name = format!("{}-{}", agent::NAME, store::sha256_of_file(program)?);
                files.push(Pushed { name: name.clone(), path: program.clone(), is_hashed: true });
                quoted(&format!("./{name}"))
            }
            None => self.program(),
        };
        self.push(folder, &files)?;
        let script = format!("home=$PWD; cd -- {} && {agent} --serve .", quoted(folder));
        self.shell("run the agent", &script)?;
        let [response, outputs] = [agent::RESPONSE, agent::OUTPUTS].map(|name| here.path().join(name));
        self.pull(&format!("{folder}/{}", agent::RESPONSE), &response)?;
        let response = Bytes::from(store::read(&response)?.to_vec());
        let outputs = if job.model.is_some() {
            self.pull(&format!("{folder}/{}", agent::OUTPUTS), &outputs)?;
            Bytes::from(store::read(&outputs)?.to_vec())
        } else {
            Bytes::new()
        };
        Ok((response, outputs))
    }

    /// The agent that is there: a relative path begins at the folder in which ssh begins.
    fn program(&self) -> String {
        match self.ssh.agent.as_deref() {
            None => agent::NAME.to_owned(),
            Some(path) if path.contains('/') && !path.starts_with('/') => format!("\"$home\"/{}", quoted(path)),
            Some(path) => quoted(path),
        }
    }

    /// Takes the files into the job's folder; of those that may stay on the device only what is not there yet.
    fn push(&self, folder: &str, files: &[Pushed]) -> Result<(), RemoteError> {
        let Some(kept) = &self.ssh.folder else {
            self.copy("push the model", files.iter(), folder)?;
            return self.executable(folder, files).map(drop);
        };
        let hashed = || files.iter().filter(|file| file.is_hashed);
        let test = |file: &Pushed| {
            let path = quoted(&format!("{kept}/{}", file.name));
            format!("if test -f {path}; then echo {}; fi", quoted(&file.name))
        };
        let script = hashed().map(test).collect::<Vec<_>>().join("; ");
        let there = if script.is_empty() { String::new() } else { self.shell("see what is there", &script)?.stdout };
        let is_there = |file: &Pushed| file.is_hashed && there.lines().any(|name| name.trim() == file.name);
        self.copy("push the model", files.iter().filter(|file| !is_there(file)), folder)?;
        self.executable(folder, files)?;
        // Moved when whole, then linked: a name in the folder that stays is never half a file.
        let keep = |file: &Pushed| {
            let [own, kept] = [folder, kept].map(|folder| quoted(&format!("{folder}/{}", file.name)));
            let moved = if is_there(file) { String::new() } else { format!("mv -f -- {own} {kept} && ") };
            format!("{moved}{{ ln -f -- {kept} {own} || cp -- {kept} {own}; }}")
        };
        let script = hashed().map(keep).collect::<Vec<_>>().join(" && ");
        if script.is_empty() { Ok(()) } else { self.shell("keep the model", &script).map(drop) }
    }

    /// Lets the agent be run, where it was pushed just now.
    fn executable(&self, folder: &str, files: &[Pushed]) -> Result<(), RemoteError> {
        let Some(agent) = files.iter().find(|file| file.name.starts_with(agent::NAME)) else { return Ok(()) };
        let path = quoted(&format!("{folder}/{}", agent.name));
        let script = format!("if test -f {path}; then chmod +x {path}; fi");
        self.shell("make the agent a program", &script).map(drop)
    }

    /// Runs a script there with the POSIX shell, whatever the user's own shell is.
    fn shell(&self, step: &'static str, script: &str) -> Result<super::process::Ended, RemoteError> {
        let mut command = Command::new("ssh");
        command.args(self.options()).arg("--").arg(&self.ssh.host).arg(format!("sh -c {}", quoted(script)));
        self.step.run(step, command)
    }

    fn copy<'a>(
        &self,
        step: &'static str,
        files: impl Iterator<Item = &'a Pushed>,
        folder: &str,
    ) -> Result<(), RemoteError> {
        let mut by_name = Vec::new();
        for file in files {
            // A file has the name on the device that it has here, but for the agent.
            match file.path.file_name().is_some_and(|name| name.to_str() == Some(file.name.as_str())) {
                true => by_name.push(file.path.clone()),
                false => {
                    self.scp(step, std::slice::from_ref(&file.path), &self.there(&format!("{folder}/{}", file.name)))?;
                }
            }
        }
        if by_name.is_empty() { Ok(()) } else { self.scp(step, &by_name, &self.there(&format!("{folder}/"))) }
    }

    fn pull(&self, there: &str, here: &Path) -> Result<(), RemoteError> {
        self.scp("bring the answer back", &[PathBuf::from(self.there(there))], &here.to_string_lossy())
    }

    fn scp(&self, step: &'static str, from: &[PathBuf], to: &str) -> Result<(), RemoteError> {
        let mut command = Command::new("scp");
        command.arg("-q").args(self.options());
        if self.ssh.legacy_scp {
            command.arg("-O");
        }
        command.arg("--").args(from).arg(to);
        self.step.run(step, command).map(drop)
    }

    /// A path there as scp writes it; an address of IPv6 has colons of its own.
    fn there(&self, path: &str) -> String {
        let host = &self.ssh.host;
        if host.contains(':') { format!("[{host}]:{path}") } else { format!("{host}:{path}") }
    }

    /// Options that ssh and scp share. No question is ever asked: there is nobody to answer.
    fn options(&self) -> Vec<String> {
        let mut options = vec!["BatchMode=yes".to_owned(), "ConnectTimeout=20".to_owned()];
        options.extend(self.ssh.port.map(|port| format!("Port={port}")));
        options.extend(self.ssh.user.as_ref().map(|user| format!("User={user}")));
        options.extend(self.ssh.options.iter().cloned());
        let identity = self.ssh.identity.iter().flat_map(|path| ["-i".to_owned(), path.to_string_lossy().into_owned()]);
        options.into_iter().flat_map(|option| ["-o".to_owned(), option]).chain(identity).collect()
    }
}

/// A word for the device's shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_quoted_for_the_shell_there() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's; rm -rf $HOME"), r"'it'\''s; rm -rf $HOME'");
    }
}
