//! A network's file at work on a runtime, handing out inner values as well.

use indexmap::IndexMap;

use super::RecipeError;
use super::samples::USUAL_SIZE;
use crate::data::Dataset;
use crate::graph::patch::Patch;
use crate::graph::probe::{Forward, ProbeError};
use crate::graph::shape::{Bindings, infer};
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Model, Name, Op, ValueInfo};
use crate::measure::inputs::{self, InputError};
use crate::measure::runtime::{self, ModelBytes, Optimization, Options, Runtime, Session, run_rows};
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
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let load = |optimization| runtime.load(&bytes, &Options { n_threads, optimization, ..Options::default() });
    let mut session = load(Optimization::All);
    if made.iter().any(|name| is_added_to(&model.graph, name)) && !session.as_mut().is_ok_and(gives_all) {
        session = load(Optimization::Basic);
    }
    Ok(Box::new(Given { what, session: session?, values: values.to_vec(), inputs }))
}

/// Whether a value is made by a Conv and read by an Add. Where the two become one, onnxruntime 1.31 can lose a value between them that
/// is to be given out.
fn is_added_to(graph: &Graph, name: &Name) -> bool {
    let is_convolved = graph.nodes.iter().any(|node| matches!(node.op, Op::Conv(_)) && node.output(0) == Some(name));
    is_convolved && graph.nodes.iter().any(|node| node.op == Op::Add && node.reads().any(|read| read == name))
}

/// Whether a session that has loaded a network gives what it should: of one sample that is made up.
fn gives_all(session: &mut Box<dyn Session>) -> bool {
    made_up(session.inputs()).is_ok_and(|sample| session.run(&sample).is_ok())
}

/// One sample for inputs like these, of random numbers.
///
/// # Errors
/// When an input is of a type or a rank that nothing is known of.
pub(super) fn made_up(infos: &[runtime::ValueInfo]) -> Result<Vec<(String, Tensor)>, InputError> {
    inputs::random(infos, &usual_sizes(infos), 0)
}

/// Sizes for the open dimensions of inputs that are made up: one sample, and tokens or pixels enough to keep a kernel busy.
fn usual_sizes(infos: &[runtime::ValueInfo]) -> inputs::Bindings {
    let batch = infos.iter().filter_map(|info| info.dims.as_ref()?.first());
    let batch: Vec<String> = batch.map(ToString::to_string).collect();
    let is_batch = |name: &String| batch.contains(name) || name.ends_with("#0");
    inputs::open_dimensions(infos).into_iter().filter(|name| !is_batch(name)).map(|name| (name, USUAL_SIZE)).collect()
}

/// The data's column for each of a network's inputs.
pub(super) fn columns(model: &Model, data: &Dataset) -> Vec<(String, Name)> {
    let n_inputs = model.graph.inputs.len();
    let column = |input: &ValueInfo| data.column_for(&input.name, n_inputs).to_string();
    model.graph.inputs.iter().map(|input| (column(input), input.name.clone())).collect()
}
