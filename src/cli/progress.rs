//! A line on standard error for what takes longer than a moment; nothing where that is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line with a spinner; `set_message` changes it, dropping it clears it.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn start(message: impl Into<String>) -> Progress {
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is well formed");
        let bar = ProgressBar::new_spinner().with_style(style).with_message(message.into());
        bar.enable_steady_tick(Duration::from_millis(120));
        Progress(bar)
    }

    pub(super) fn set_message(&self, message: impl Into<String>) {
        self.0.set_message(message.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
