//! A teacher's file at work on a runtime, handing out inner values as well.

use indexmap::IndexMap;

use super::run::{Book, Made};
use crate::compress::distill::DistillError;
use crate::data::{Dataset, Loader};
use crate::graph::patch::Patch;
use crate::graph::probe::{Forward, ProbeError};
use crate::graph::shape::{Bindings, infer};
use crate::graph::tensor::Tensor;
use crate::graph::{Model, Name, ValueInfo};
use crate::measure::latency::timed;
use crate::measure::runtime::{ModelBytes, Options, Runtime, Session, run_rows};
use crate::onnx;
use crate::recipe::RecipeError;
use crate::store;

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
        let given = run_rows(self.session.as_mut(), &feeds).map_err(|error| failed(error.to_string()))?;
        let value =
            |name: &Name| given.iter().find(|(given, _)| name.as_str() == given).map(|(_, tensor)| tensor.clone());
        let values = self.values.iter().map(|name| value(name).ok_or_else(|| failed(format!("it gave no `{name}`"))));
        values.collect()
    }
}

/// The data's column for each of a network's inputs.
pub(super) fn columns(model: &Model, data: &Dataset) -> Vec<(String, Name)> {
    let n_inputs = model.graph.inputs.len();
    let column = |input: &ValueInfo| data.column_for(&input.name, n_inputs).to_string();
    model.graph.inputs.iter().map(|input| (column(input), input.name.clone())).collect()
}

/// The runtime that takes the least time for a batch of the teacher, or that was decided for before.
pub(super) fn decide<'a>(
    book: &mut Book<'a>,
    teacher: &Made,
    values: &[Name],
    loader: &Loader,
) -> Result<&'a dyn Runtime, RecipeError> {
    let runtimes = book.options.runtimes;
    let what = store::sha256(format!("{} {values:?}", teacher.sha256).as_bytes());
    let decision = format!("runtime of the teacher's values {}", &what[..16]);
    let at_hand = |name: &str| runtimes.iter().copied().find(|runtime| runtime.name() == name);
    if let Some(runtime) = book.decision(&decision).and_then(at_hand) {
        book.decide(&decision, runtime.name())?;
        return Ok(runtime);
    }
    if let Some(missing) = book.options.replay.and(book.decision(&decision)) {
        let problem = format!(
            "ran on {missing} in the run that is replayed, which is not at hand: install it, or leave --replay out"
        );
        return Err(RecipeError::Part { part: "teacher".to_string(), problem });
    }
    let order = loader.order(0);
    let batch = loader.view(&order[..loader.options().batch_size.min(order.len())], 0)?;
    let feeds: IndexMap<Name, Tensor> = columns(&teacher.model, loader.dataset())
        .into_iter()
        .filter_map(|(column, name)| Some((name, batch.get(&column)?.clone())))
        .collect();
    let mut best: Option<(f64, &dyn Runtime)> = None;
    let mut refusal = None;
    for &runtime in runtimes {
        let tried = open(runtime, &teacher.model, values).and_then(|mut given| {
            given.forward(&feeds).map_err(DistillError::from)?;
            let (again, elapsed) = timed(|| given.forward(&feeds));
            again.map_err(DistillError::from)?;
            Ok(elapsed.as_secs_f64())
        });
        match tried {
            Ok(seconds) if best.is_none_or(|(least, _)| seconds < least) => best = Some((seconds, runtime)),
            Ok(_) => {}
            Err(error) => refusal = Some(error),
        }
    }
    let (_, runtime) = best.ok_or_else(|| refusal.unwrap_or_else(nobody))?;
    book.decide(&decision, runtime.name())?;
    Ok(runtime)
}

/// There is no runtime.
pub(super) fn nobody() -> RecipeError {
    let problem = "can be asked by no runtime: none is at hand".to_string();
    RecipeError::Part { part: "teacher".to_string(), problem }
}

/// The teacher on a runtime, giving these values.
pub(super) fn open(runtime: &dyn Runtime, model: &Model, values: &[Name]) -> Result<Box<dyn Forward>, RecipeError> {
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
    Ok(Box::new(Given { session: runtime.load(&bytes, &options)?, values: values.to_vec() }))
}
