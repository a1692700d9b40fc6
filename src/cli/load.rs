//! What several commands take: a model file, numbers for its symbolic dimensions.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Context as _;

use crate::data::Dataset;
use crate::graph::shape::{self, Bindings, Types};
use crate::graph::{Dim, Graph, Model};
use crate::measure::child::RuntimeName;
use crate::measure::inputs::unnamed_key;
use crate::measure::runtime::{ModelBytes, Optimization, Runtime};
use crate::onnx::{self, WriteOptions, Written};
use crate::recipe::samples::Samples;
use crate::store;

/// A symbolic dimension and its number: `batch=8`.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    pub(super) symbol: String,
    pub(super) size: usize,
}

impl FromStr for Binding {
    type Err = String;

    fn from_str(text: &str) -> Result<Binding, String> {
        let (symbol, size) = text.split_once('=').ok_or("expected SYMBOL=NUMBER, as in batch=8")?;
        let size = size.parse().map_err(|_| format!("`{size}` is not a number of elements"))?;
        Ok(Binding { symbol: symbol.to_string(), size })
    }
}

/// The model to read, and numbers for its symbolic dimensions.
#[derive(clap::Args)]
pub(super) struct ModelArguments {
    /// An ONNX file
    pub(super) model: PathBuf,
    #[command(flatten)]
    pub(super) bind: BindArguments,
}

/// Numbers for symbolic dimensions.
#[derive(clap::Args)]
pub(super) struct BindArguments {
    /// Give an open dimension a number (repeatable): its symbol, or INPUT#AXIS where it has none; those not given are 1
    #[arg(long = "bind", value_name = "SYMBOL=NUMBER")]
    pub(super) bindings: Vec<Binding>,
}

/// A model with its file's size.
pub(super) struct Loaded {
    pub(super) model: Model,
    pub(super) file_bytes: u64,
}

/// Reads a model and what it keeps beside it.
pub(super) fn load(path: &Path) -> anyhow::Result<Loaded> {
    let file_bytes = std::fs::metadata(path).map(|metadata| metadata.len()).unwrap_or_default();
    let model = onnx::read(path)?;
    Ok(Loaded { model, file_bytes })
}

/// A value by its name in recipes.
pub(super) fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    T::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text))
        .map_err(|error| error.to_string())
}

/// Writes a model: what was done, and the bytes of the file and of what it keeps beside it.
pub(super) fn write(model: &Model, output: &Path, opset: Option<u32>) -> anyhow::Result<(Written, u64)> {
    let options = WriteOptions { opset, ..WriteOptions::default() };
    let written =
        onnx::write(model, output, &options).with_context(|| format!("{} was not written", output.display()))?;
    let data = written.data.as_deref().and_then(|path: &Path| std::fs::metadata(path).ok());
    let n_bytes = written.n_bytes + data.map_or(0, |metadata| metadata.len());
    Ok((written, n_bytes))
}

/// Samples in a `.npz`, or a data set by its descriptor.
pub(super) fn samples(path: Option<&Path>) -> anyhow::Result<Option<Samples>> {
    let Some(path) = path else { return Ok(None) };
    match path.extension().is_some_and(|extension| extension == "npz") {
        true => Ok(Some(Samples::Archive(path.to_owned()))),
        false => Ok(Some(Samples::Dataset(Arc::new(Dataset::open(path)?)))),
    }
}

/// The open dimensions of a graph's inputs, each with the number it was given, or 1: symbols, and `INPUT#AXIS` for those
/// without a name.
pub(super) fn bound(model: &Model, given: &[Binding]) -> anyhow::Result<Vec<(String, usize)>> {
    let symbols = shape::symbols(&model.graph).into_iter().map(|symbol| symbol.to_string());
    let unnamed = model.graph.inputs.iter().flat_map(|input| {
        let dims = input.tensor_type().and_then(|tensor_type| tensor_type.shape.as_deref()).unwrap_or_default();
        let unnamed = dims.iter().enumerate().filter(|(_, dim)| matches!(dim, Dim::Unknown));
        unnamed.map(|(axis, _)| unnamed_key(&input.name, axis)).collect::<Vec<_>>()
    });
    let open: Vec<String> = symbols.chain(unnamed).collect();
    if let Some(unknown) = given.iter().find(|binding| !open.contains(&binding.symbol)) {
        let known = if open.is_empty() { "none".to_string() } else { open.join(", ") };
        anyhow::bail!("no input has a dimension `{}`; the symbols are: {known}", unknown.symbol);
    }
    let size = |symbol: &str| given.iter().find(|binding| binding.symbol == symbol).map_or(1, |binding| binding.size);
    Ok(open.into_iter().map(|symbol| (symbol.clone(), size(&symbol))).collect())
}

/// The network with the open dimensions that are given a number fixed for good.
pub(super) fn fixed(model: &Model, given: &[Binding]) -> anyhow::Result<Graph> {
    bound(model, given)?;
    let (mut graph, symbols) = (model.graph.clone(), shape::symbols(&model.graph));
    for Binding { symbol, size } in given {
        let unnamed = symbol.rsplit_once('#').filter(|_| !symbols.contains(symbol.as_str()));
        graph = match unnamed {
            Some((input, axis)) => shape::fix_axis(&graph, &input.into(), axis.parse()?, *size)?,
            None => shape::fix_symbol(&graph, &symbol.as_str().into(), *size)?,
        };
    }
    Ok(graph)
}

/// Every value's type with the open dimensions bound.
pub(super) fn infer(path: &Path, model: &Model, bound: &[(String, usize)]) -> anyhow::Result<Types> {
    let size = |key: &str| bound.iter().find(|(symbol, _)| symbol == key).map(|(_, size)| *size);
    let symbols = shape::symbols(&model.graph);
    let mut bindings = Bindings::of(symbols.iter().filter_map(|symbol| Some((symbol.as_str(), size(symbol)?))));
    for input in &model.graph.inputs {
        let Some(dims) = input.tensor_type().and_then(|tensor_type| tensor_type.shape.as_ref()) else { continue };
        let sizes = dims.iter().enumerate().map(|(axis, dim)| match dim {
            Dim::Known(size) => Some(*size),
            Dim::Symbol(symbol) => size(symbol),
            Dim::Unknown => size(&unnamed_key(&input.name, axis)),
        });
        if let Some(sizes) = sizes.collect() {
            bindings.shapes.insert(input.name.clone(), sizes);
        }
    }
    shape::infer(&model.graph, &bindings).with_context(|| format!("{}: shapes do not fit together", path.display()))
}

/// A runtime by the name on the command line.
pub(super) fn runtime_name(text: &str) -> Result<RuntimeName, String> {
    match text {
        "tract" => Ok(RuntimeName::Tract),
        "ort" | "onnxruntime" => Ok(RuntimeName::Ort),
        other => Err(format!("`{other}` is no runtime; there are tract and ort")),
    }
}

/// Which runtimes to use.
#[derive(clap::Args)]
pub(super) struct RuntimeChoice {
    /// tract, ort (onnxruntime) or both; without it every runtime at hand
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = runtime_name)]
    pub(super) runtime: Vec<RuntimeName>,
    /// onnxruntime's library, where it is not to be looked for
    #[arg(long, value_name = "FILE")]
    pub(super) library: Option<PathBuf>,
}

/// Which runtimes to use, and how.
#[derive(clap::Args)]
pub(super) struct RuntimeArguments {
    #[command(flatten)]
    pub(super) choice: RuntimeChoice,
    /// How much the runtime may rewrite the graph: none, basic or all
    #[arg(long, value_name = "LEVEL", default_value = "all", value_parser = optimization)]
    pub(super) optimization: Optimization,
}

fn optimization(text: &str) -> Result<Optimization, String> {
    match text {
        "none" => Ok(Optimization::None),
        "basic" => Ok(Optimization::Basic),
        "all" => Ok(Optimization::All),
        other => Err(format!("`{other}` is no level; there are none, basic and all")),
    }
}

/// A runtime ready to load models.
pub(super) struct OpenRuntime {
    pub(super) name: RuntimeName,
    pub(super) runtime: Box<dyn Runtime>,
}

/// The runtimes asked for, or every one at hand; what is not at hand is said, not left out in silence.
pub(super) fn open_runtimes(arguments: &RuntimeChoice) -> anyhow::Result<Vec<OpenRuntime>> {
    let asked = !arguments.runtime.is_empty();
    let names = if asked { arguments.runtime.clone() } else { vec![RuntimeName::Tract, RuntimeName::Ort] };
    let mut opened = Vec::new();
    for name in names {
        match name.open(arguments.library.as_deref()) {
            Ok(runtime) => opened.push(OpenRuntime { name, runtime }),
            Err(error) if !asked && arguments.library.is_none() => {
                tracing::warn!("onnxruntime is left out: {error}; {}", error.hint());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(opened)
}

/// A file as a runtime takes it.
pub(super) fn model_bytes(path: &Path) -> anyhow::Result<ModelBytes> {
    Ok(ModelBytes::new(store::read(path)?).at(path))
}
