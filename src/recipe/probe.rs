//! A network's file at work on a runtime, handing out inner values as well.

use indexmap::IndexMap;

use super::RecipeError;
use crate::data::Dataset;
use crate::graph::patch::Patch;
use crate::graph::probe::{Forward, ProbeError};
use crate::graph::shape::{Bindings, infer};
use crate::graph::tensor::Tensor;
use crate::graph::{Model, Name, ValueInfo};
use crate::measure::runtime::{ModelBytes, Options, Runtime, Session, run_rows};
use crate::onnx;

/// A session that gives these values, in their order.
struct Given {
    /// What errors call the network.
    what: &'static str,
    session: Box<dyn Session>,
    values: Vec<Name>,
    /// Values that are inputs: what comes in goes out.
    inputs: Vec<Name>,
}

impl Forward for Given {
    fn forward(&mut self, inputs: &IndexMap<Name, Tensor>) -> Result<Vec<Tensor>, ProbeError> {
        let failed = |problem: String| ProbeError { what: self.what.to_string(), problem };
        let feeds: Vec<(String, Tensor)> =
            inputs.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        let given = run_rows(self.session.as_mut(), &feeds).map_err(|error| failed(error.to_string()))?;
        let value = |name: &Name| {
            let from = if self.inputs.contains(name) { &feeds } else { &given };
            from.iter().find(|(given, _)| name.as_str() == given).map(|(_, tensor)| tensor.clone())
        };
        let values = self.values.iter().map(|name| value(name).ok_or_else(|| failed(format!("it gave no `{name}`"))));
        values.collect()
    }
}

/// The network on a runtime, with every core, giving these values. `what` is what errors call it.
///
/// # Errors
/// When it has no such value, or the runtime refuses it.
pub(super) fn open(
    runtime: &dyn Runtime,
    model: &Model,
    values: &[Name],
    what: &'static str,
) -> Result<Box<dyn Forward>, RecipeError> {
    let types = infer(&model.graph, &Bindings::default())?;
    let is_input = |name: &Name| model.graph.inputs.iter().any(|input| input.name == *name);
    let (inputs, made): (Vec<Name>, Vec<Name>) = values.iter().cloned().partition(is_input);
    let mut patch = Patch::new(&model.graph);
    for name in made.iter().filter(|name| !model.graph.outputs.iter().any(|output| output.name == **name)) {
        patch.add_output(match types.tensor(name) {
            Some(known) => ValueInfo::new(name, known.clone()),
            None => ValueInfo::untyped(name),
        });
    }
    let bytes = ModelBytes::new(onnx::to_bytes(&model.with_graph(patch.apply(None)?))?);
    let options =
        Options { n_threads: std::thread::available_parallelism().map_or(1, usize::from), ..Options::default() };
    Ok(Box::new(Given { what, session: runtime.load(&bytes, &options)?, values: values.to_vec(), inputs }))
}

/// The data's column for each of a network's inputs.
pub(super) fn columns(model: &Model, data: &Dataset) -> Vec<(String, Name)> {
    let n_inputs = model.graph.inputs.len();
    let column = |input: &ValueInfo| data.column_for(&input.name, n_inputs).to_string();
    model.graph.inputs.iter().map(|input| (column(input), input.name.clone())).collect()
}
