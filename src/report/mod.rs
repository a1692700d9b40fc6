//! What a student is worth beside its teacher, on a machine and in figures: one value, which is written as JSON, read by a gate and
//! shown as text or Markdown. Nothing here measures.

pub mod gate;
mod markdown;
#[cfg(test)]
mod tests;

pub use markdown::markdown;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::measure::compressed::Compressed;
use crate::measure::latency::Latency;
use crate::measure::machine::Machine;
use crate::measure::metrics::agreement::Flips;
use crate::measure::metrics::classification::Confusion;
use crate::measure::paired::verdict::{Judgement, Verdict};
use crate::measure::statistics::Interval;

/// The form that reports are written in now; a greater one is refused.
pub const SCHEMA: u32 = 1;

/// A student beside its teacher, on the same samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The version of aludel.
    pub aludel: String,
    /// What it was measured on.
    pub machine: Machine,
    /// What was looked at.
    pub data: DataPart,
    /// How much worse the student may be, in the unit of the first metric.
    pub margin: f64,
    /// The reference.
    pub teacher: FilePart,
    /// What is to replace it.
    pub student: FilePart,
    /// By device and runtime.
    pub runs: Vec<Run>,
}

/// Samples that a report is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataPart {
    /// Where they are.
    pub path: String,
    /// A hash of all that is in them.
    pub sha256: String,
    /// Which of them.
    pub split: String,
    /// How many.
    pub n_samples: usize,
}

/// A network's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilePart {
    /// Where it is.
    pub path: String,
    /// A hash of its bytes.
    pub sha256: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its bytes once it is compressed.
    pub compressed: Compressed,
    /// Numbers that were learned.
    pub parameters: u64,
    /// Multiplications with an addition for one sample; none where they cannot be counted.
    pub macs: Option<u64>,
}

/// What a runtime on a device made of the samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// `host`, or a target's name.
    pub device: String,
    /// The runtime.
    pub runtime: String,
    /// Its version.
    pub version: String,
    /// What the answers are worth, the one that decides first.
    pub metrics: Vec<Metric>,
    /// How far student and teacher say the same; none where they name no classes.
    pub agreement: Option<Agreement>,
    /// Which classes were taken for which, by teacher and student; none without classes.
    pub confusion: Option<Beside<Confusion>>,
    /// The samples that the student gets wrong, by their place in the split; none without classes.
    pub wrong: Option<Vec<usize>>,
    /// One sample at a time, one thread, in turns; none where nothing was timed.
    pub latency: Option<Beside<Latency>>,
}

/// The same of both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Beside<T> {
    /// Of the reference.
    pub teacher: T,
    /// Of what is to replace it.
    pub student: T,
}

/// What answers are worth by one measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Its name in the field.
    pub name: String,
    /// Whether more is better.
    pub is_higher_better: bool,
    /// The teacher's.
    pub teacher: f64,
    /// The student's.
    pub student: f64,
    /// Of student − teacher, in the unit of the metric; none where nothing is known of it.
    pub difference: Option<Interval>,
    /// Whether the student may replace the teacher by this measure; none where it does not decide.
    pub judgement: Option<Judgement>,
}

/// How far student and teacher say the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Agreement {
    /// The part of the samples for which both name the same class.
    pub share: f64,
    /// The mean divergence of the student's probabilities from the teacher's, in nats; none where an output is no number.
    pub divergence: Option<f64>,
    /// The samples that only one of the two gets right, by their place in the split.
    pub flips: Flips,
}

impl Report {
    /// What the runs come to: failed where one is, passed where all are.
    pub fn verdict(&self) -> Option<Verdict> {
        let judged = self.runs.iter().flat_map(|run| &run.metrics).filter_map(|metric| metric.judgement);
        let rank = |verdict: &Verdict| match verdict {
            Verdict::Fails => 2,
            Verdict::Undecided { .. } => 1,
            Verdict::Passes => 0,
        };
        judged.map(|judgement| judgement.verdict).max_by_key(rank)
    }

    /// The report in a file's bytes.
    ///
    /// # Errors
    /// When it is none, or one of a version to come; in words for the user.
    pub fn from_json(bytes: &[u8]) -> Result<Report, String> {
        #[derive(Deserialize)]
        struct Form {
            schema: u32,
        }
        let form: Form = serde_json::from_slice(bytes).map_err(|error| {
            format!("is no report: {error} (hint: `aludel compare --data D --report FILE` writes one)")
        })?;
        if form.schema != SCHEMA {
            return Err(format!("is a report of form {}, this aludel reads {SCHEMA}", form.schema));
        }
        serde_json::from_slice(bytes).map_err(|error| format!("is no whole report: {error}"))
    }
}
