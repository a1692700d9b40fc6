//! A teacher's file at work on a runtime, handing out inner values as well.

use std::sync::Arc;

use indexmap::IndexMap;

use super::run::Book;
use crate::compress::distill::DistillError;
use crate::data::{Dataset, Loader};
use crate::graph::patch::Patch;
use crate::graph::probe::{Forward, ProbeError};
use crate::graph::shape::{Bindings, infer};
use crate::graph::tensor::Tensor;
use crate::graph::{Model, Name, ValueInfo};
use crate::measure::latency::timed;
use crate::measure::runtime::{ModelBytes, Options, Runtime, Session};
use crate::onnx;
use crate::recipe::{RecipeError, normalization};

/// A session that gives these values, in their order.
struct Given {
    session: Box<dyn Session>,
    values: Vec<Name>,
}

impl Forward for Given {
    fn forward(&mut self, inputs: &IndexMap<Name, Tensor>) -> Result<Vec<Tensor>, ProbeError> {
        let failed = |problem: String| ProbeError { what: "the teacher".to_string(), problem };
        let feeds: Vec<(String, Tensor)> =
            inputs.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        let given = self.session.run(&feeds).map_err(|error| failed(error.to_string()))?;
        let value =
            |name: &Name| given.iter().find(|(given, _)| name.as_str() == given).map(|(_, tensor)| tensor.clone());
        let values = self.values.iter().map(|name| value(name).ok_or_else(|| failed(format!("it gave no `{name}`"))));
        values.collect()
    }
}

/// The data's column for each of a network's inputs.
pub(super) fn columns(model: &Model, data: &Dataset) -> Vec<(String, Name)> {
    let n_inputs = model.graph.inputs.len();
    let column = |input: &ValueInfo| normalization::column_of(&input.name, n_inputs, data).to_string();
    model.graph.inputs.iter().map(|input| (column(input), input.name.clone())).collect()
}

/// The teacher on the runtime that was decided for, else on the one that takes the least time for a batch: the decision is kept
/// before anything is computed by it.
pub(super) fn open(
    book: &mut Book<'_>,
    step: &str,
    model: &Model,
    values: &[Name],
    loader: &Loader,
) -> Result<Box<dyn Forward>, RecipeError> {
    let types = infer(&model.graph, &Bindings::default())?;
    let mut patch = Patch::new(&model.graph);
    for name in values.iter().filter(|name| !model.graph.outputs.iter().any(|output| output.name == **name)) {
        patch.add_output(match types.tensor(name) {
            Some(known) => ValueInfo::new(name, known.clone()),
            None => ValueInfo::untyped(name),
        });
    }
    let bytes = ModelBytes::new(onnx::to_bytes(&model.with_graph(patch.apply(None)?))?);
    let options =
        Options { n_threads: std::thread::available_parallelism().map_or(1, usize::from), ..Options::default() };
    let load = |runtime: &dyn Runtime| -> Result<Given, RecipeError> {
        Ok(Given { session: runtime.load(&bytes, &options)?, values: values.to_vec() })
    };
    let runtimes = book.options.runtimes;
    if let Some(decided) = book.decision(step, "teacher_runtime") {
        let runtime = runtimes.iter().find(|runtime| runtime.name() == decided).ok_or_else(|| RecipeError::Part {
            part: "teacher".to_string(),
            problem: format!("was decided to run on {decided}, which is not at hand"),
        })?;
        return Ok(Box::new(load(*runtime)?));
    }
    let data: &Arc<Dataset> = loader.dataset();
    let batch = loader.view(&loader.order(0)[..loader.options().batch_size.min(loader.order(0).len())], 0)?;
    let feeds: IndexMap<Name, Tensor> = columns(model, data)
        .into_iter()
        .filter_map(|(column, name)| Some((name, batch.get(&column)?.clone())))
        .collect();
    let mut best: Option<(f64, &str, Given)> = None;
    let mut refusal = None;
    for runtime in runtimes {
        let tried = load(*runtime).and_then(|mut given| {
            given.forward(&feeds).map_err(DistillError::from)?;
            let (again, elapsed) = timed(|| given.forward(&feeds));
            again.map_err(DistillError::from)?;
            Ok((elapsed.as_secs_f64(), given))
        });
        match tried {
            Ok((seconds, given)) if best.as_ref().is_none_or(|(least, ..)| seconds < *least) => {
                best = Some((seconds, runtime.name(), given));
            }
            Ok(_) => {}
            Err(error) => refusal = Some(error),
        }
    }
    let nobody = || RecipeError::Model("no runtime is at hand to ask the teacher".to_string());
    let (_, name, given) = best.ok_or_else(|| refusal.unwrap_or_else(nobody))?;
    book.decide(step, "teacher_runtime", name)?;
    Ok(Box::new(given))
}
