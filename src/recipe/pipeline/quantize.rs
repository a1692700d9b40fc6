//! The step `quantize`: a student in narrow numbers, calibrated, and where the recipe wants it taught as it is rounded.

use std::sync::Arc;

use super::grammar::QuantizeStep;
use super::ledger::Line;
use super::matter::Matter;
use super::run::{Book, Course, Fitted, Made, Watcher};
use super::teacher;
use crate::compress::quantize::fake::fake;
use crate::compress::quantize::options::Target;
use crate::compress::quantize::plan::Float;
use crate::measure::runtime::Runtime;
use crate::onnx;
use crate::recipe::RecipeError;
use crate::recipe::prepare::prepare;
use crate::recipe::quantize::{Left, Quantized, Work, finish, floats, quantize, ready};
use crate::recipe::samples::Samples;

impl<'a> Book<'a> {
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
        let decision = format!("stays in floats in {}", line.step);
        let known = match self.decision(&decision) {
            Some(text) if Left::is_sought(options, target) => Some(left(&decision, text)?),
            _ => None,
        };
        let Some(learn) = &step.learn else {
            let known = known.as_ref();
            let quantized = quantize(&made.model, options, target, Some(&samples), runtime, known, &mut |_| ())?;
            self.decide_left(&decision, &quantized.left)?;
            tell(&line, made, &quantized, watcher)?;
            return Ok(Fitted { model: quantized.model, output, line });
        };
        let mut ready = ready(&made.model, options, target)?;
        let weights = &mut ready.choice.scheme.weights;
        if weights.fits_pairs {
            // Seven bits are in the graph that learns; that pairs fit would only be found out afterwards.
            (weights.fits_pairs, weights.bits) = (false, Some(7));
        }
        if !ready.choice.form.is_calibrated() {
            let problem = "goes with activations, and for this runtime weights alone are quantized: say `form = \"qdq\"`, or leave it out";
            return Err(RecipeError::Part { part: "step.quantize.epochs".to_string(), problem: problem.to_string() });
        }
        if options.bias_correction {
            let problem = "makes up for rounding that nobody teaches: leave it out, or the epochs";
            let part = "step.quantize.bias_correction".to_string();
            return Err(RecipeError::Part { part, problem: problem.to_string() });
        }
        let (ready, notes) = prepare(&ready, Some(&samples), options, runtime, &mut |_| ())?;
        let ignored = &mut |_| ();
        let mut work = Work::new(&ready, Some(&samples), options, target, runtime, ignored);
        let calibrated = work.calibrated()?;
        let calibrated = work.settled(calibrated, known.as_ref())?;
        self.decide_left(&decision, &calibrated.left)?;
        if calibrated.plan.integer.is_empty() {
            watcher.note(&format!("{}: nothing learns, for no integers are left", line.step));
            let quantized = floats(&work, calibrated)?;
            tell(&line, made, &quantized, watcher)?;
            return Ok(Fitted { model: quantized.model, output, line });
        }
        let fake = fake(&ready.model.graph, &calibrated.plan, &calibrated.scales)?;
        let keeper = made.keeper(&ready.model)?;
        let course = Course {
            model: &ready.model.with_graph(fake.graph.clone()),
            output: &made.output,
            data: &matter.data,
            augment: self.augment(),
            train: &learn.train,
            seed: self.pipeline.seed,
            sparsifier: keeper.as_ref(),
        };
        let taught = self.distill(line, &course, matter, teacher, learn, watcher)?;
        let frozen = fake.freeze(&taught.model.graph)?;
        let mut quantized = finish(&work, &frozen, calibrated)?;
        quantized.report.notes.extend(notes);
        tell(&taught.line, made, &quantized, watcher)?;
        Ok(Fitted { model: quantized.model, ..taught })
    }

    /// Keeps what stays in floats, where that was found out.
    fn decide_left(&mut self, decision: &str, left: &Option<Left>) -> Result<(), RecipeError> {
        match left {
            Some(left) => self.decide(decision, &serde_json::to_string(left).expect("names are JSON")),
            None => Ok(()),
        }
    }

    /// The runtime that shows what values look like: that for which the network is meant where it is at hand, else the last one
    /// that is; the one of the run that is replayed.
    pub(super) fn calibrates(&mut self, step: &str, target: Target) -> Result<&'a dyn Runtime, RecipeError> {
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

/// A decision on what stays in floats.
fn left(decision: &str, text: &str) -> Result<Left, RecipeError> {
    let problem = |error| format!("is not what stays in floats: {error}");
    serde_json::from_str(text)
        .map_err(|error| RecipeError::Part { part: decision.to_string(), problem: problem(error) })
}

/// Says what went back to floats and what stays in them, and where the file has grown: what says how to read integers can outweigh them.
fn tell(line: &Line, made: &Made, quantized: &Quantized, watcher: &mut dyn Watcher) -> Result<(), RecipeError> {
    const SHOWN: usize = 4;
    quantized.report.measured().iter().for_each(|told| watcher.note(&format!("{}: {told}", line.step)));
    let float = &quantized.report.float;
    for Float { node, reason } in float.iter().take(SHOWN) {
        watcher.note(&format!("{}: {node} stays in floats: {reason}", line.step));
    }
    if float.len() > SHOWN {
        watcher.note(&format!("{}: and {} other nodes", line.step, float.len() - SHOWN));
    }
    let [before, after] = [&made.model, &quantized.model].map(|model| onnx::to_bytes(model).map(|bytes| bytes.len()));
    let (before, after) = (before?, after?);
    if after > before {
        let what = "what says how to read narrow numbers outweighs them in so small a network";
        watcher.note(&format!("{}: {before} bytes have become {after}: {what}", line.step));
    }
    Ok(())
}
