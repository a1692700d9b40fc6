//! Did it really run in int8, and is it right? What a runtime makes of a file, from the runtime's own optimized graph and
//! profile, and its results beside the reference's, operator by operator where they differ.
//!
//! The file's bytes are what is run. The graph read from them says what the runtime's nodes stand for and gives the
//! reference; nothing here changes it.

mod account;
mod check;
mod execution;
mod kind;
mod remedy;
#[cfg(test)]
mod tests;
mod tolerance;
mod window;

use serde::Serialize;

pub use check::{CheckOptions, Correctness, Feed, OutputCheck, Untried, Verdict, WrongOperator};
pub use execution::{Execution, Fates, InFloat, IntegerCount, Layer, OperatorRow, Quantization, Spread, WhyFloat};
pub use kind::Arithmetic;
pub use tolerance::{Comparison, FLOAT, HALF, QUANTIZED};

use crate::graph::Model;
use crate::graph::shape::{self, Bindings};
use crate::measure::runtime::explain::Runs;
use crate::measure::runtime::{ModelBytes, Options, Runtime, RuntimeError};

/// How to audit.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How the runtime is to run the model; paths in it are passed over.
    pub options: Options,
    /// How often it is run to see where its time goes.
    pub runs: Runs,
    /// How it is compared with the reference.
    pub check: CheckOptions,
}

impl Default for Settings {
    fn default() -> Settings {
        let runs = Runs { n_warm_up: 5, n_timed: 50 };
        Settings { options: Options::default(), runs, check: CheckOptions::default() }
    }
}

/// What one runtime does with a model.
#[derive(Clone, Debug, Serialize)]
pub struct Audit {
    /// Its name.
    pub runtime: &'static str,
    /// Its version.
    pub runtime_version: String,
    /// Threads within an operator.
    pub n_threads: usize,
    /// What it runs.
    pub execution: Execution,
    /// Whether it is right.
    pub correctness: Correctness,
}

/// Audits a model on a runtime. `model` is what was read from `bytes`; times are taken on the first feed, results compared
/// on all. What is being done goes to `observe`.
///
/// # Errors
/// When there is no feed, and when the runtime refuses the model or fails in it.
pub fn audit(
    model: &Model,
    bytes: &ModelBytes,
    runtime: &dyn Runtime,
    feeds: &[Feed],
    settings: &Settings,
    observe: &mut dyn FnMut(String),
) -> Result<Audit, AuditError> {
    let first = feeds.first().ok_or(AuditError::NoFeed)?;
    observe(format!("timing the nodes of {}", runtime.name()));
    let options = Options { optimized_model: None, profile: None, ..settings.options.clone() };
    let explanation = runtime.explain(bytes, &options, first, settings.runs)?;
    let shapes = first.iter().map(|(name, tensor)| (name.as_str().into(), tensor.shape().to_vec())).collect();
    // Types help to tell nodes apart; a network whose types do not fit together is the runtime's to refuse.
    let types = shape::infer(&model.graph, &Bindings { shapes, ..Bindings::default() }).unwrap_or_default();
    let execution = execution::execution(runtime.name(), &model.graph, &types, &explanation);
    let trial = check::Trial { model, runtime, options: &options, check: settings.check };
    let correctness = trial.run(bytes, feeds, observe)?;
    Ok(Audit {
        runtime: runtime.name(),
        runtime_version: runtime.version(),
        n_threads: options.n_threads,
        execution,
        correctness,
    })
}

/// Why there is no audit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// There is nothing to run the model on.
    #[error("an audit needs inputs to run the model on, got none")]
    NoFeed,
    /// The runtime refuses the model or fails in it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
