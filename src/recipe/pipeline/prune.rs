//! The step `prune`: what a student can do without goes, and where the recipe wants it the student recovers.

use std::sync::Arc;

use super::grammar::PruneStep;
use super::ledger::Line;
use super::matter::Matter;
use super::run::{Book, Course, Fitted, Made, Watcher};
use crate::compress::quantize::options::Target;
use crate::recipe::RecipeError;
use crate::recipe::prune::{Decided, Means, Report, prune};
use crate::recipe::samples::Samples;

impl Book<'_> {
    /// A student without what it can do without.
    pub(super) fn prune(
        &mut self,
        line: Line,
        made: &Made,
        matter: &Matter,
        teacher: &Made,
        step: &PruneStep,
        watcher: &mut dyn Watcher,
    ) -> Result<Fitted, RecipeError> {
        let runtime = self.calibrates(&line.step, step.runtime.unwrap_or(Target::Any))?;
        let samples = Samples::Dataset(Arc::clone(&matter.data));
        let decision = format!("goes in {}", line.step);
        let known = match (step.options.max_time, self.decision(&decision)) {
            (Some(_), Some(text)) => Some(decided(&decision, text)?),
            _ => None,
        };
        let mut means = Means {
            samples: Some(&samples),
            runtime,
            output: Some(&made.output),
            seed: self.pipeline.seed,
            learns: step.learn.is_some(),
            known: known.as_ref(),
            is_timed: step.runtime.is_some(),
            told: &mut |_| (),
        };
        let pruned = prune(&made.model, &step.options, &mut means)?;
        if let Some(decided) = &pruned.decided {
            self.decide(&decision, &serde_json::to_string(decided).expect("names and numbers are JSON"))?;
        }
        tell(&line, &pruned.report, watcher);
        let Some(learn) = &step.learn else {
            return Ok(Fitted { model: pruned.model, output: made.output.clone(), line });
        };
        // Zeros of a step before are among those that are held.
        let keeper = made.keeper(&pruned.model)?.or(pruned.sparsifier);
        let course = Course {
            model: &pruned.model,
            output: &made.output,
            data: &matter.data,
            augment: self.augment(),
            train: &learn.train,
            seed: self.pipeline.seed,
            sparsifier: keeper.as_ref(),
        };
        self.distill(line, &course, matter, teacher, learn, watcher)
    }
}

/// A decision on what goes.
fn decided(decision: &str, text: &str) -> Result<Decided, RecipeError> {
    serde_json::from_str(text).map_err(|error| RecipeError::Part {
        part: decision.to_string(),
        problem: format!("is not what goes: {error}"),
    })
}

/// Says what went, and what could not.
fn tell(line: &Line, report: &Report, watcher: &mut dyn Watcher) {
    const SHOWN: usize = 4;
    watcher.note(&format!("{}: {}", line.step, report.summary()));
    report.notes.iter().for_each(|told| watcher.note(&format!("{}: {told}", line.step)));
    for (name, reason) in report.refused.iter().take(SHOWN) {
        watcher.note(&format!("{}: {name} stays: {reason}", line.step));
    }
    if report.refused.len() > SHOWN {
        watcher.note(&format!("{}: and {} others", line.step, report.refused.len() - SHOWN));
    }
}
