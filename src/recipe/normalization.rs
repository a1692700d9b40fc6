//! Normalisation inside the network: nodes that bring an input's raw values to the scale that the network learned on, and
//! the note in the file that says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::RecipeError;
use crate::data::{Dataset, Normalization};
use crate::graph::op::Constant;
use crate::graph::patch::{Patch, Place};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Model, Name, Node, Op};

/// Where a file's metadata says which inputs it normalises, and how: JSON, a [`Normalization`] by the input's name.
pub const KEY: &str = "aludel.normalization";

/// The network with the data's normalisation before its inputs: `Sub` and `Div` by constants, in the order and the precision
/// of the data, so that raw values come to the same numbers. What would change nothing is left out. The metadata says
/// what was done.
///
/// # Errors
/// When the network normalises already, nothing is normalised, or an input that is takes no `f32`.
pub fn embed(model: &Model, data: &Dataset) -> Result<Model, RecipeError> {
    let refuse = |problem: String| RecipeError::Model(format!("embed_normalization: {problem}"));
    if model.about.metadata.contains_key(KEY) {
        return Err(refuse("the network normalises its inputs already; leave it out".to_string()));
    }
    let mut patch = Patch::new(&model.graph);
    let mut embedded = BTreeMap::new();
    for input in &model.graph.inputs {
        let columns = data.columns();
        let Some(column) = columns.get(data.column_for(&input.name, model.graph.inputs.len())) else { continue };
        let (Some(normalization), Some(numbers)) = (column.normalization(), column.broadcast_normalization()?) else {
            continue;
        };
        let steps = steps(numbers);
        if steps.is_empty() {
            continue;
        }
        let dtype = input.tensor_type().map(|declared| declared.dtype);
        if dtype != Some(DType::F32) {
            let got = dtype.map_or("no tensor".to_string(), |dtype| dtype.to_string());
            let problem = format!("the data's `{}` is normalised in f32, but the network takes {got}", input.name);
            return Err(refuse(format!("{problem}; leave it out")));
        }
        let mut value = input.name.clone();
        for step in steps {
            value = step.apply(&mut patch, &input.name, &value);
        }
        patch.replace_uses(&input.name, &value);
        embedded.insert(input.name.to_string(), normalization.clone());
    }
    if embedded.is_empty() {
        return Err(refuse("no input is normalised; give `normalize` in [data], or leave it out".to_string()));
    }
    let mut model = model.with_graph(patch.apply(None)?);
    let note = serde_json::to_string(&embedded).expect("finite numbers by name are JSON");
    model.about.metadata.insert(KEY.to_string(), note);
    Ok(model)
}

/// How a network's file says that it normalises, by the data's columns.
///
/// # Errors
/// When what the metadata says cannot be read.
pub(super) fn by_column(model: &Model, data: &Dataset) -> Result<BTreeMap<String, Normalization>, RecipeError> {
    let Some(note) = model.about.metadata.get(KEY) else { return Ok(BTreeMap::new()) };
    let damaged = |error| RecipeError::Model(format!("the metadata `{KEY}` of the network cannot be read: {error}"));
    let embedded: BTreeMap<String, Normalization> = serde_json::from_str(note).map_err(damaged)?;
    let n_inputs = model.graph.inputs.len();
    Ok(embedded.into_iter().map(|(input, it)| (data.column_for(&input, n_inputs).to_string(), it)).collect())
}

/// The data as a network takes it: with raw values for the inputs that it normalises itself.
///
/// # Errors
/// When what the metadata says cannot be read, or is of other data.
pub fn data_for(model: &Model, data: &Arc<Dataset>) -> Result<Arc<Dataset>, RecipeError> {
    let embedded = by_column(model, data)?;
    if embedded.is_empty() {
        return Ok(Arc::clone(data));
    }
    let mut raw = Dataset::clone(data);
    for (column, normalization) in embedded {
        raw = raw.with_raw(&column, normalization)?;
    }
    Ok(Arc::new(raw))
}

/// An operator on a value and a constant, and what the constant and the result are called after the input.
struct Step {
    op: Op,
    constant: Tensor,
    names: [&'static str; 2],
}

/// The operators that normalise and change something.
fn steps([mean, std]: [Tensor; 2]) -> Vec<Step> {
    let changes = |step: &Step, nothing: f32| {
        step.constant.as_slice::<f32>().is_ok_and(|numbers| numbers.iter().any(|&number| number != nothing))
    };
    let centre = Step { op: Op::Sub, constant: mean, names: ["mean", "centred"] };
    let scale = Step { op: Op::Div, constant: std, names: ["std", "normalized"] };
    let centre = Some(centre).filter(|step| changes(step, 0.0));
    centre.into_iter().chain(Some(scale).filter(|step| changes(step, 1.0))).collect()
}

impl Step {
    /// Puts it before all nodes and gives its result. The constant is a node and no initializer: it does not learn.
    fn apply(self, patch: &mut Patch, input: &Name, value: &Name) -> Name {
        let [constant, result] = self.names.map(|name| patch.fresh(&format!("{input}_{name}")));
        let node = Op::Constant(Constant { value: self.constant });
        patch.insert(Place::Before(0), Node::new(node, Vec::new(), vec![Some(constant.clone())]));
        let inputs = vec![Some(value.clone()), Some(constant)];
        patch.insert(Place::Before(0), Node::new(self.op, inputs, vec![Some(result.clone())]));
        result
    }
}
