//! The training of a recipe's network.

use std::path::Path;
use std::sync::Arc;

use super::{ModelPart, Recipe, RecipeError, normalization};
use crate::data::{Column, Dataset, LABEL, Labels};
use crate::graph::{Model, Name};
use crate::learn::train::fit::{Fitted, Observer, State, Task, fit};
use crate::learn::train::init::{Initialisation, initialise};
use crate::onnx;
use crate::zoo;

/// Data read and a network built, ready to learn.
#[derive(Debug)]
pub struct Prepared {
    /// Samples with labels, their inputs as the network takes them: raw where it comes from a file that normalises.
    pub data: Arc<Dataset>,
    /// The network.
    pub model: Model,
    /// The output that is to meet the labels.
    pub output: Name,
}

/// What a training came to.
#[derive(Debug)]
pub struct Trained {
    /// The network with the weights of the best epoch, normalising where the recipe wants it; none where training was
    /// paused.
    pub model: Option<Model>,
    /// Where it stands, and what the curves say.
    pub fitted: Fitted,
}

impl Prepared {
    /// Reads the data and builds, or reads, the network.
    ///
    /// # Errors
    /// When the data or the network is not as the recipe says.
    pub fn new(recipe: &Recipe) -> Result<Prepared, RecipeError> {
        let mut data = Arc::new(Dataset::load(&recipe.data)?);
        let model = network(&recipe.name, &recipe.model, &recipe.folder, &data, recipe.seed)?;
        if recipe.model.embed_normalization {
            normalization::embed(&model, &data)?;
        }
        data = normalization::data_for(&model, &data)?;
        let output = output(&recipe.model, &model)?;
        Ok(Prepared { data, model, output })
    }
}

/// The network that a part of a recipe says, with weights to begin with.
///
/// # Errors
/// When there is none, or it does not fit the data.
pub(super) fn network(
    name: &str,
    part: &ModelPart,
    folder: &Path,
    data: &Dataset,
    seed: u64,
) -> Result<Model, RecipeError> {
    let model = match (&part.arch, &part.onnx) {
        (Some(arch), _) => Model::new(zoo::build(arch, &task(name, part, data)?)?),
        (None, Some(path)) => onnx::read(&folder.join(path))?,
        (None, None) => return Err(RecipeError::Model("give `arch` or `onnx`".to_string())),
    };
    let fresh = part.arch.as_ref().map(|_| Initialisation::default());
    Ok(match part.init.or(fresh) {
        Some(initialisation) => model.with_graph(initialise(&model.graph, &initialisation, seed)?),
        None => model,
    })
}

/// The output that is to meet the labels.
///
/// # Errors
/// When the network has none.
pub(super) fn output(part: &ModelPart, model: &Model) -> Result<Name, RecipeError> {
    match &part.output {
        Some(name) => Ok(Name::from(name.as_str())),
        None => {
            let first = model.graph.outputs.first().map(|output| output.name.clone());
            first.ok_or_else(|| RecipeError::Model("the network has no output".to_string()))
        }
    }
}

/// Trains what was prepared, from the state on where there is one: a checkpoint's, see [`checkpoint::from_bytes`](crate::learn::train::checkpoint::from_bytes).
///
/// # Errors
/// When the state is of another network, or training fails.
pub fn train(
    recipe: &Recipe,
    prepared: &Prepared,
    state: Option<State>,
    observer: &mut dyn Observer,
) -> Result<Trained, RecipeError> {
    let Prepared { data, model, output } = prepared;
    let task = Task { graph: &model.graph, output, data, augment: &recipe.data.augment };
    let mut fitted = fit(&task, &recipe.train, recipe.seed, state, observer)?;
    let model = fitted.network.take().map(|graph| model.with_graph(graph));
    let model = match model {
        Some(model) if recipe.model.embed_normalization => Some(normalization::embed(&model, data)?),
        model => model,
    };
    Ok(Trained { model, fitted })
}

/// What the network is to take and to give, from the data.
fn task(name: &str, part: &ModelPart, data: &Dataset) -> Result<zoo::Task, RecipeError> {
    let n_outputs = match data.labels() {
        Labels::Classes(names) | Labels::Numbers(names) | Labels::Flags(names) => names.len(),
        Labels::None => return Err(RecipeError::Model(format!("the data has no `{LABEL}` to learn"))),
    };
    let input = |(name, column): (&str, &Column)| zoo::Input {
        name: name.to_string(),
        dtype: column.dtype(),
        shape: column.sample_shape(),
        n_ids: data.n_tokens().filter(|_| column.dtype().is_integer()),
    };
    let columns = match &part.inputs {
        None => data.inputs().collect::<Vec<_>>(),
        Some(names) => {
            let column = |name: &String| data.inputs().find(|(column, _)| column == name);
            let known = || data.inputs().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
            let missing =
                |name: &String| RecipeError::Model(format!("the data has no input `{name}`; it has {}", known()));
            names.iter().map(|name| column(name).ok_or_else(|| missing(name))).collect::<Result<_, _>>()?
        }
    };
    Ok(zoo::Task {
        name: name.to_string(),
        inputs: columns.into_iter().map(input).collect(),
        output: "logits".to_string(),
        n_outputs,
    })
}
