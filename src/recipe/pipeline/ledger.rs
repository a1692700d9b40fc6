//! The ledger: what every step made, what it cost and what it is worth, a line of JSON each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::learn::train::diagnosis::{Diagnosis, Epoch};
use crate::measure::statistics::Interval;
use crate::recipe::RecipeError;
use crate::recipe::evaluate::Evaluation;
use crate::store;

/// The version of the lines.
const SCHEMA: u32 = 2;

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The version of this form.
    pub schema: u32,
    /// `teacher`, one of several teachers (`teacher.large`), a student's name, or that and the number and name of a step: `small.1-distill`.
    pub step: String,
    /// What its draws depend on.
    pub seed: u64,
    /// A hash of all that it depends on.
    pub key: String,
    /// The network's file, in the ledger's folder.
    pub file: String,
    /// Its output that meets the labels.
    pub output: String,
    /// The hash of its bytes.
    pub sha256: String,
    /// The size of the file.
    pub bytes: u64,
    /// Values that were learned.
    pub parameters: u64,
    /// Multiplications with an addition of one sample, every other open dimension 1; none where they cannot be counted so.
    pub macs: Option<u64>,
    /// What was decided by measuring, by the name of the decision.
    pub decisions: BTreeMap<String, String>,
    /// The epoch whose weights were taken; none where nothing was trained or validated.
    pub best: Option<Epoch>,
    /// What the curves say.
    pub diagnosis: Option<Diagnosis>,
    /// The validation split, by each runtime.
    pub validation: Vec<Evaluation>,
    /// The test split, by each runtime.
    pub test: Vec<Evaluation>,
    /// The part of the training split that it puts right, of at most 5,000 samples evenly over it, as they are, on the first
    /// runtime: how much more that is than of the test split tells how far it is overfitted. Of a specialist it is of the
    /// labelled samples that were sent to it.
    #[serde(default)]
    pub train_accuracy: Option<f64>,
    /// The part of the test split for which it says what `teacher` says, on the first runtime.
    pub agreement: Option<f64>,
    /// A hash of what the next two numbers and the ratios of speed depend on beside the network: the teacher, and the attack.
    pub beside: String,
    /// The part of the test split that it tells right after the first attack that a step of the recipe learns from; by the
    /// training engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attacked: Option<f64>,
    /// How quick it is on each runtime.
    pub speed: Vec<Speed>,
    /// How long the step took; of one that was stopped the last part.
    pub seconds: f64,
}

/// How quick a network is, one sample at a time on one thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// The runtime.
    pub runtime: String,
    /// Its version.
    pub version: String,
    /// The median run.
    pub median_us: f64,
    /// 95 of a hundred runs took at most this.
    pub p95_us: f64,
    /// Runs timed.
    pub n: usize,
    /// The time over that of `teacher`, measured in turns.
    pub ratio_to_teacher: Option<Interval>,
}

impl Line {
    /// Keeps what was measured before on runtimes that were not asked now.
    pub(super) fn keep(&mut self, before: &Line) {
        let is_new = |runtime: &String| self.speed.iter().any(|speed| speed.runtime == *runtime);
        let speed: Vec<Speed> = before.speed.iter().filter(|it| !is_new(&it.runtime)).cloned().collect();
        for (own, before) in [(&mut self.validation, &before.validation), (&mut self.test, &before.test)] {
            let missing = |it: &&Evaluation| !own.iter().any(|own| own.runtime == it.runtime);
            let missing: Vec<Evaluation> = before.iter().filter(missing).cloned().collect();
            own.splice(0..0, missing);
        }
        self.speed.splice(0..0, speed);
    }
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

impl Line {
    pub(super) fn new(step: &str, seed: u64, key: &str) -> Line {
        Line {
            schema: SCHEMA,
            step: step.to_string(),
            seed,
            key: key.to_string(),
            file: format!("{step}.onnx"),
            output: String::new(),
            sha256: String::new(),
            bytes: 0,
            parameters: 0,
            macs: None,
            decisions: BTreeMap::new(),
            best: None,
            diagnosis: None,
            validation: Vec::new(),
            test: Vec::new(),
            train_accuracy: None,
            agreement: None,
            beside: String::new(),
            attacked: None,
            speed: Vec::new(),
            seconds: 0.0,
        }
    }
}

/// The lines of a run, in the order of its steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// The lines.
    pub lines: Vec<Line>,
}

impl Ledger {
    /// The ledger of a folder; an empty one where there is none, or one of an earlier version, whose steps are done again.
    ///
    /// # Errors
    /// When the file cannot be read, or is of a later version.
    pub fn of_folder(folder: &Path) -> Result<Ledger, RecipeError> {
        let path = path(folder);
        if !path.exists() {
            return Ok(Ledger::default());
        }
        let bytes = store::read(&path)?;
        let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        match serde_json::from_slice(first) {
            Ok(Version { schema }) if schema < SCHEMA => {
                tracing::warn!("{}: of version {schema}, before {SCHEMA}: every step is done again", path.display());
                Ok(Ledger::default())
            }
            _ => Ledger::read(&path),
        }
    }

    /// The ledger in a file.
    ///
    /// # Errors
    /// When the file cannot be read, or is of another version.
    pub fn read(path: &Path) -> Result<Ledger, RecipeError> {
        let bytes = store::read(path)?;
        let wrong = |problem: String| RecipeError::Ledger { path: path.to_owned(), problem };
        let text = std::str::from_utf8(&bytes).map_err(|error| wrong(format!("is no text: {error}")))?;
        let mut lines = Vec::new();
        for (number, text) in text.lines().enumerate() {
            let broken = |error| wrong(format!("line {}: {error}; give another folder", number + 1));
            let Version { schema } = serde_json::from_str(text).map_err(broken)?;
            if schema != SCHEMA {
                let remedy = "give another folder";
                return Err(wrong(format!("is of version {schema}; this program writes {SCHEMA}; {remedy}")));
            }
            lines.push(serde_json::from_str(text).map_err(broken)?);
        }
        Ok(Ledger { lines })
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), RecipeError> {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&serde_json::to_string(line).expect("names and numbers are JSON"));
            text.push('\n');
        }
        Ok(store::write_atomic(&path(folder), text.as_bytes())?)
    }

    /// The line of a step.
    pub fn line(&self, step: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.step == step)
    }

    /// Puts a line in the place of the one of its step, or at the end.
    pub(super) fn put(&mut self, line: Line) {
        match self.lines.iter_mut().find(|other| other.step == line.step) {
            Some(place) => *place = line,
            None => self.lines.push(line),
        }
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("ledger.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_of_an_earlier_version_is_begun_anew_and_a_later_one_is_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let written = Ledger { lines: vec![Line::new("teacher", 1, "key")] };
        written.write(folder.path()).expect("the folder is ours");
        assert_eq!(Ledger::of_folder(folder.path()).expect("its own"), written);
        let of_version = |schema: u32| {
            let line = format!("{{\"schema\":{schema},\"step\":\"teacher\"}}\n");
            std::fs::write(path(folder.path()), line).expect("the folder is ours");
            Ledger::of_folder(folder.path())
        };
        assert_eq!(of_version(SCHEMA - 1).expect("it is begun anew"), Ledger::default());
        let refused = of_version(SCHEMA + 1).expect_err("nobody knows what is in it").to_string();
        assert!(refused.contains("is of version 3"), "{refused}");
    }
}
