//! Programs on this machine that take part in reaching a device: started without a shell, heard to the end, ended when they take
//! too long.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use super::RemoteError;
use crate::measure::child::{end, last_lines, status_within};
use crate::measure::target::{Target, Timeout};

/// The steps towards one device.
pub(super) struct Step<'a> {
    pub(super) target: &'a Target,
    timeout: Timeout,
}

/// A program that has ended well.
pub(super) struct Ended {
    program: String,
    pub(super) stdout: String,
    stderr: String,
}

impl Step<'_> {
    pub(super) fn new(target: &Target, timeout: Timeout) -> Step<'_> {
        Step { target, timeout }
    }

    /// Runs a program to its good end.
    pub(super) fn run(&self, step: &'static str, mut command: Command) -> Result<Ended, RemoteError> {
        let target = self.target.name.clone();
        let program = command.get_program().to_string_lossy().into_owned();
        let unstarted = |error: std::io::Error| RemoteError::Start {
            target: target.clone(),
            step,
            program: program.clone(),
            reason: error.to_string(),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(unstarted)?;
        let stdout = heard(child.stdout.take().expect("it was piped"));
        let stderr = heard(child.stderr.take().expect("it was piped"));
        let began = Instant::now();
        let status = status_within(&mut child, self.timeout.into()).map_err(unstarted)?;
        let Some(status) = status else {
            let _ = end(&mut child); // it may have ended just now
            let stderr = last_lines(&words(&stderr, PATIENCE));
            return Err(RemoteError::Timeout { target, step, program, timeout_s: self.timeout.0, stderr });
        };
        // What a program leaves behind may hold its pipes open for good.
        let left = Duration::from(self.timeout).saturating_sub(began.elapsed()).max(PATIENCE);
        let ended = Ended { program, stdout: words(&stdout, left), stderr: last_lines(&words(&stderr, PATIENCE)) };
        if status.success() { Ok(ended) } else { Err(self.failed(step, &ended, &how(status))) }
    }

    /// That a program ended without what it was for.
    pub(super) fn failed(&self, step: &'static str, ended: &Ended, reason: &str) -> RemoteError {
        RemoteError::Failed {
            target: self.target.name.clone(),
            step,
            program: ended.program.clone(),
            reason: reason.to_owned(),
            stderr: ended.stderr.clone(),
        }
    }
}

const PATIENCE: Duration = Duration::from_millis(200);

fn how(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// Everything that comes out of a pipe, once it is closed.
fn heard(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut chunk = [0u8; 4096];
        while let Ok(n) = pipe.read(&mut chunk) {
            if n == 0 || sender.send(chunk[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// What was heard until the pipe closes, or nothing more comes for this time.
fn words(heard: &Receiver<Vec<u8>>, patience: Duration) -> String {
    let mut bytes = Vec::new();
    while let Ok(chunk) = heard.recv_timeout(patience) {
        bytes.extend(chunk);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
