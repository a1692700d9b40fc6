//! What a person sees of a training, and Ctrl-C.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use crate::learn::train::diagnosis::Epoch;
use crate::learn::train::fit::Flow;

/// The exit code of a program that Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// A bar on standard error with lines above it.
pub(super) struct Screen {
    pub(super) bar: ProgressBar,
    stopped: Arc<AtomicBool>,
}

impl Screen {
    /// From here on Ctrl-C does not end the program, see [`Screen::flow`]; a second one does.
    pub(super) fn new() -> anyhow::Result<Screen> {
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopped);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(INTERRUPTED);
            }
        })?;
        let style = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} {msg}")?;
        Ok(Screen { bar: ProgressBar::new(0).with_style(style), stopped })
    }

    /// A line above the bar.
    pub(super) fn say(&self, line: &str) {
        // when standard error is closed there is nobody to tell
        let _ = self.bar.suspend(|| writeln!(std::io::stderr(), "{line}"));
    }

    /// What an epoch ended with; `number` counts from 1.
    pub(super) fn say_epoch(&self, before: &str, number: usize, epoch: &Epoch) {
        let Epoch { train_loss, validation_loss, metric } = epoch;
        if validation_loss.is_nan() {
            return self.say(&format!("{before}epoch {number:>3}  training loss {train_loss:.4}  not validated"));
        }
        self.say(&format!(
            "{before}epoch {number:>3}  training loss {train_loss:.4}  validation loss {validation_loss:.4}  metric {metric:.4}"
        ));
    }

    /// How far something is.
    pub(super) fn show(&self, prefix: String, n_done: usize, n: usize, message: String) {
        self.bar.set_length(n as u64);
        self.bar.set_position(n_done as u64);
        self.bar.set_prefix(prefix);
        self.bar.set_message(message);
    }

    /// Whether to go on: not after Ctrl-C.
    pub(super) fn flow(&self) -> Flow {
        if self.stopped.load(Ordering::SeqCst) { Flow::Pause } else { Flow::Continue }
    }
}
