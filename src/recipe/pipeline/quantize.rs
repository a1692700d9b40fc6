//! The step `quantize`: a student in narrow numbers, calibrated, and where the recipe wants it taught as it is rounded.

use std::sync::Arc;

use super::grammar::QuantizeStep;
use super::ledger::Line;
use super::matter::Matter;
use super::run::{Book, Course, Fitted, Made, Watcher};
use super::teacher;
use crate::compress::quantize::fake::fake;
use crate::compress::quantize::options::Target;
use crate::graph::Model;
use crate::measure::runtime::Runtime;
use crate::onnx;
use crate::recipe::RecipeError;
use crate::recipe::quantize::{Look, Samples, finish, quantize, ready};

impl Book<'_> {
    /// A student in narrow numbers.
    pub(super) fn quantize(
        &mut self,
        line: Line,
        made: &Made,
        matter: &Matter,
        teacher: &Made,
        step: &QuantizeStep,
        watcher: &mut dyn Watcher,
    ) -> Result<Fitted, RecipeError> {
        let target = step.runtime.unwrap_or(Target::Any);
        let runtime = self.calibrates(&line.step, target)?;
        let samples = Samples::Dataset(Arc::clone(&matter.data));
        let (options, output) = (&step.options, made.output.clone());
        let Some(learn) = &step.learn else {
            let model = quantize(&made.model, options, target, Some(&samples), runtime, &mut |_| ())?.model;
            warn_of_size(&line, made, &model, watcher)?;
            return Ok(Fitted { model, output, line });
        };
        let ready = ready(&made.model, options, target)?;
        let mut look = Look {
            model: &ready.model,
            types: &ready.types,
            samples: Some(&samples),
            options,
            runtime,
            told: &mut |_| (),
        };
        let calibrated = look.calibrated(&ready.choice)?;
        let fake = fake(&ready.model.graph, &calibrated.plan, &calibrated.scales)?;
        let course = Course {
            model: &ready.model.with_graph(fake.graph.clone()),
            output: &made.output,
            data: &matter.data,
            augment: self.augment(),
            train: &learn.train,
            seed: self.pipeline.seed,
        };
        let taught = self.distill(line, &course, matter, teacher, learn, watcher)?;
        let frozen = fake.freeze(&taught.model.graph)?;
        let model = finish(&ready.model, &frozen, ready.choice, calibrated, target)?.model;
        warn_of_size(&taught.line, made, &model, watcher)?;
        Ok(Fitted { model, ..taught })
    }

    /// The runtime that shows what values look like: that for which the network is quantized where it is at hand, else the last one
    /// that is; the one of the run that is replayed.
    fn calibrates(&mut self, step: &str, target: Target) -> Result<&dyn Runtime, RecipeError> {
        let runtimes = self.options.runtimes;
        let decision = format!("runtime of the calibration in {step}");
        let at_hand = |name: &str| runtimes.iter().copied().find(|runtime| runtime.name() == name);
        let wanted = match target {
            Target::Onnxruntime => "onnxruntime",
            Target::Tract => "tract",
            Target::Any => "",
        };
        let before = self.decision(&decision).map(str::to_string);
        let runtime = before.as_deref().or(Some(wanted)).and_then(at_hand).or(runtimes.last().copied());
        let runtime = runtime.ok_or_else(teacher::nobody)?;
        self.decide(&decision, runtime.name())?;
        Ok(runtime)
    }
}

/// What says how to read integers can outweigh them in a small network.
fn warn_of_size(line: &Line, made: &Made, model: &Model, watcher: &mut dyn Watcher) -> Result<(), RecipeError> {
    let [before, after] = [&made.model, model].map(|model| onnx::to_bytes(model).map(|bytes| bytes.len()));
    let (before, after) = (before?, after?);
    if after > before {
        let what = "what says how to read narrow numbers outweighs them in so small a network";
        watcher.note(&format!("{}: {before} bytes have become {after}: {what}", line.step));
    }
    Ok(())
}
