//! `aludel runtime`: what onnxruntime's library is, where it was looked for, and fetching it.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Outcome;
use super::progress::Progress;
use super::table::{Side, table};
use crate::measure::runtime::library::{self, Search};
use crate::measure::runtime::ort::Onnxruntime;
use crate::measure::runtime::{Runtime as _, tract};

/// See or install onnxruntime's library (tract is built in)
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Say which runtimes are at hand, and where onnxruntime's library was looked for
    Status {
        /// onnxruntime's library, where it is not to be looked for
        #[arg(long, value_name = "FILE")]
        library: Option<PathBuf>,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
    },
    /// Fetch onnxruntime's library with `pip download`, check its sha256 and keep it in aludel's cache
    ///
    /// Nothing is installed into Python: the wheel is only unpacked, so this works where `pip install` is barred.
    Install,
}

#[derive(Serialize)]
struct Status {
    tract: &'static str,
    onnxruntime: Option<Loaded>,
    problem: Option<String>,
    hint: Option<String>,
    #[serde(flatten)]
    search: Search,
}

#[derive(Serialize)]
struct Loaded {
    version: String,
    library: PathBuf,
}

pub(super) fn run(command: &Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Install => {
            let progress = Progress::start("onnxruntime");
            let path = library::install(&mut |step| progress.set_message(step.to_string()))?;
            drop(progress);
            Ok(Outcome::done(format!("onnxruntime {} is at {}\n", library::VERSION, path.display())))
        }
        Command::Status { library, json } => {
            let status = status(library.as_deref());
            if *json { Outcome::json(&status) } else { Ok(Outcome::done(text(&status))) }
        }
    }
}

fn status(flag: Option<&Path>) -> Status {
    let search = library::search(flag);
    let (onnxruntime, problem, hint) = match Onnxruntime::open(flag) {
        Ok(runtime) => (Some(Loaded { version: runtime.version(), library: runtime.library().to_owned() }), None, None),
        Err(error) => (None, Some(error.to_string()), Some(error.hint().to_string())),
    };
    Status { tract: tract::VERSION, onnxruntime, problem, hint, search }
}

fn text(status: &Status) -> String {
    let mut text = format!("tract {}: built in\n", status.tract);
    match &status.onnxruntime {
        Some(loaded) => text.push_str(&format!("onnxruntime {}: {}\n", loaded.version, loaded.library.display())),
        None => text.push_str("onnxruntime: not at hand\n"),
    }
    for (word, sentence) in [("problem", &status.problem), ("hint", &status.hint)] {
        if let Some(sentence) = sentence {
            text.push_str(&format!("{word}: {sentence}\n"));
        }
    }
    let rows = status.search.places.iter().map(|place| {
        let origin = serde_json::to_value(place.origin).ok();
        let origin = origin.and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default();
        let found = if place.found { "found" } else { "–" };
        vec![origin, found.to_string(), place.path.display().to_string()]
    });
    text.push('\n');
    text.push_str(&table(&[("looked in", Side::Left), ("", Side::Left), ("place", Side::Left)], rows));
    text
}
