//! A runtime takes a model's bytes and gives a session; a session takes named tensors and gives named tensors.
//!
//! Every call into a runtime goes through a door that turns a panic behind it into an error. Finding files, printing and
//! measuring time are done elsewhere.

mod door;
pub mod explain;
#[cfg(feature = "full")]
pub mod library;
#[cfg(feature = "full")]
pub mod ort;
#[cfg(feature = "full")]
pub mod remote;
mod rows;
pub mod tract;

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::graph::tensor::{DType, Tensor, TensorError};
use explain::{Explanation, Runs};

pub use rows::{batch_size, run_rows};

/// A model as it is in its file.
#[derive(Clone, Debug)]
pub struct ModelBytes {
    bytes: Bytes,
    path: Option<PathBuf>,
}

impl ModelBytes {
    /// A model that needs no file beside it.
    pub fn new(bytes: impl Into<Bytes>) -> ModelBytes {
        ModelBytes { bytes: bytes.into(), path: None }
    }

    /// The same model, known to come from this file: external data is looked for beside it, and errors name it.
    pub fn at(self, path: impl Into<PathBuf>) -> ModelBytes {
        ModelBytes { path: Some(path.into()), ..self }
    }

    /// The protobuf bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The file they come from, where that is known.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The folder in which external data lies; none for a model without a file.
    pub fn folder(&self) -> Option<&Path> {
        let parent = self.path()?.parent()?;
        Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    }

    /// What errors call it: the path, or that it has none.
    pub fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "a model in memory".to_owned(),
        }
    }
}

/// How much a runtime may rewrite the graph before it runs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimization {
    /// As it stands in the file.
    None,
    /// Constants folded and redundant nodes removed.
    Basic,
    /// Everything that the runtime does by default in production.
    #[default]
    All,
}

/// How a session is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads within an operator; at least 1. Nodes run one after another.
    pub n_threads: usize,
    /// How much the runtime may rewrite the graph.
    pub optimization: Optimization,
    /// Where the optimized graph is written as ONNX. Only onnxruntime can; see [`Session::optimized_graph`] for tract.
    pub optimized_model: Option<PathBuf>,
    /// Beginning of the path of a profile of every run, written by [`Session::finish_profile`]. Only onnxruntime.
    pub profile: Option<PathBuf>,
    /// Let onnxruntime fuse QuantizeLinear and DequantizeLinear into integer kernels. Off is quicker for files in which
    /// only weights are quantized: they are then dequantized once, not on every run. tract never fuses them.
    pub fuse_quantization: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            n_threads: 1,
            optimization: Optimization::All,
            optimized_model: None,
            profile: None,
            fuse_quantization: true,
        }
    }
}

/// One dimension of an input or output as the model declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Known(usize),
    /// A name; the same name is the same number throughout the model.
    Symbol(String),
    /// Neither.
    Unknown,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(size) => write!(f, "{size}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// What a model declares of one of its inputs or outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// The name in the file.
    pub name: String,
    /// The element type; none where the value is no tensor (a sequence, a map, an optional).
    pub dtype: Option<DType>,
    /// The dimensions, outermost first; none where even their number is not declared. onnxruntime does not tell a
    /// scalar from an undeclared shape: both are the empty list there.
    pub dims: Option<Vec<Dim>>,
}

impl fmt::Display for ValueInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = self.dtype.map_or("not a tensor", DType::name);
        match &self.dims {
            None => write!(f, "{}: {dtype}[…]", self.name),
            Some(dims) => {
                let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
                write!(f, "{}: {dtype}[{}]", self.name, dims.join(", "))
            }
        }
    }
}

/// Something that runs ONNX models.
pub trait Runtime {
    /// `tract` or `onnxruntime`.
    fn name(&self) -> &'static str;

    /// The version of the code that does the computing.
    fn version(&self) -> String;

    /// Reads, checks and optimizes a model.
    ///
    /// # Errors
    /// When the runtime refuses the model, naming the node where the runtime does, or an option is not for this runtime.
    fn load(&self, model: &ModelBytes, options: &Options) -> Result<Box<dyn Session>, RuntimeError>;

    /// What the runtime makes of a model, and how long each part of it takes on these inputs. Paths in the options are
    /// passed over.
    ///
    /// # Errors
    /// As [`load`](Runtime::load) and [`Session::run`]; also when what the runtime wrote of itself cannot be read.
    fn explain(
        &self,
        model: &ModelBytes,
        options: &Options,
        inputs: &[(String, Tensor)],
        runs: Runs,
    ) -> Result<Explanation, RuntimeError>;
}

/// A loaded model.
pub trait Session {
    /// What [`run`](Session::run) must be given. Inputs that the file gives a default are not among them.
    fn inputs(&self) -> &[ValueInfo];

    /// What it returns.
    fn outputs(&self) -> &[ValueInfo];

    /// Computes every output. The inputs may come in any order; the outputs come in the file's.
    ///
    /// # Errors
    /// When an input is missing, unknown, given twice or of another type, and when the runtime fails.
    fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError>;

    /// Computes every output of several runs, in their order.
    ///
    /// # Errors
    /// As [`run`](Session::run).
    fn run_all(&mut self, feeds: &[Vec<(String, Tensor)>]) -> Result<Vec<Vec<(String, Tensor)>>, RuntimeError> {
        feeds.iter().map(|inputs| self.run(inputs)).collect()
    }

    /// A listing of the graph as it is really run, one node a line; none where the runtime writes a file instead (see
    /// [`Options::optimized_model`]) or has not run yet with the shapes that decide it.
    fn optimized_graph(&self) -> Option<String> {
        None
    }

    /// Ends the profile asked for by [`Options::profile`] and says where it is; none where none was asked for.
    ///
    /// # Errors
    /// When it cannot be written.
    fn finish_profile(&mut self) -> Result<Option<PathBuf>, RuntimeError> {
        Ok(None)
    }
}

/// What a runtime was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Reading, checking or optimizing the model.
    Load,
    /// Computing.
    Run,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Doing::Load => "load",
            Doing::Run => "run",
        })
    }
}

/// Why a runtime cannot be had, or a model not be loaded or run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The runtime's library is missing, wrong, or another one is in use already.
    #[error("{runtime}: {reason}")]
    Library {
        /// which runtime
        runtime: &'static str,
        /// what is wrong with it
        reason: String,
    },
    /// The runtime refused the model or failed in it.
    #[error("{runtime} cannot {doing} {model}{}: {reason}", at_node(.node.as_deref()))]
    Refused {
        /// which runtime
        runtime: &'static str,
        /// when
        doing: Doing,
        /// the file, or that it has none
        model: String,
        /// the node, where the runtime names one
        node: Option<String>,
        /// the runtime's own words
        reason: String,
    },
    /// The runtime panicked; it was caught.
    #[error("{runtime} panicked when it was to {doing} {model}: {reason}")]
    Panicked {
        /// which runtime
        runtime: &'static str,
        /// when
        doing: Doing,
        /// the file, or that it has none
        model: String,
        /// the panic's message and place
        reason: String,
    },
    /// An input is missing, unknown, given twice, or of the wrong type or shape.
    #[error("{model}: input `{input}`: {reason}")]
    Input {
        /// the file, or that it has none
        model: String,
        /// its name
        input: String,
        /// expected and got
        reason: String,
    },
    /// A tensor of this type cannot be handed to, or taken from, this runtime.
    #[error("{runtime} cannot exchange `{value}` of {model}: {reason}")]
    Exchange {
        /// which runtime
        runtime: &'static str,
        /// the file, or that it has none
        model: String,
        /// the input or output
        value: String,
        /// why
        reason: String,
    },
    /// What goes into a network of one batch size, or comes out of it, has no rows.
    #[error("a network of one batch size gets other samples than it takes: {0}")]
    Rows(#[from] TensorError),
    /// A device gave no answer.
    #[error("{reason}")]
    Device {
        /// device, step and reason
        reason: String,
        /// what the reader can do about it
        hint: &'static str,
    },
    /// An option that this runtime does not have.
    #[error("{runtime} has no {option}")]
    Option {
        /// which runtime
        runtime: &'static str,
        /// what was asked for
        option: String,
    },
}

fn at_node(node: Option<&str>) -> String {
    node.map(|node| format!(" (node `{node}`)")).unwrap_or_default()
}

impl RuntimeError {
    /// What the reader can do about it, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            RuntimeError::Library { .. } => {
                "`aludel runtime install` gets the library, `aludel runtime status` says where it was looked for"
            }
            RuntimeError::Refused { doing: Doing::Load, .. } => {
                "try the other runtime, or another opset with `aludel convert --opset`"
            }
            RuntimeError::Refused { doing: Doing::Run, .. } => "compare the inputs' shapes with `aludel inspect`",
            RuntimeError::Panicked { .. } => {
                "try the other runtime; the fault is the runtime's and worth reporting to it"
            }
            RuntimeError::Input { .. } => "`aludel inspect` lists the model's inputs with type and shape",
            RuntimeError::Exchange { .. } => "put a Cast to a common type between this value and the outside",
            RuntimeError::Rows(_) => "give a network whose inputs and outputs have a row a sample",
            RuntimeError::Device { hint, .. } => hint,
            RuntimeError::Option { .. } => "leave the option out, or choose the other runtime",
        }
    }
}

/// The inputs in the order in which the model declares them.
pub(crate) fn ordered<'a>(
    model: &str,
    declared: &[ValueInfo],
    given: &'a [(String, Tensor)],
) -> Result<Vec<&'a Tensor>, RuntimeError> {
    let fail = |input: &str, reason: String| {
        Err(RuntimeError::Input { model: model.to_owned(), input: input.to_owned(), reason })
    };
    if let Some((name, _)) = given.iter().find(|(name, _)| !declared.iter().any(|info| info.name == *name)) {
        let names: Vec<&str> = declared.iter().map(|info| info.name.as_str()).collect();
        return fail(name, format!("the model has no such input, only {names:?}"));
    }
    let mut tensors = Vec::with_capacity(declared.len());
    for info in declared {
        let mut found = given.iter().filter(|(name, _)| *name == info.name);
        let Some((_, tensor)) = found.next() else { return fail(&info.name, "is missing".to_owned()) };
        if found.next().is_some() {
            return fail(&info.name, "is given twice".to_owned());
        }
        if info.dtype != Some(tensor.dtype()) {
            let expected = info.dtype.map_or("a value that is no tensor", DType::name);
            return fail(&info.name, format!("expected {expected}, got {}", tensor.dtype()));
        }
        tensors.push(tensor);
    }
    Ok(tensors)
}

/// The node that a runtime's message names, by the words that runtimes put around it.
fn node_in(message: &str) -> Option<String> {
    const FRAMES: [(&str, &str); 8] = [
        ("Name:'", "'"),
        ("In Node, (\"", "\""),
        ("node with name '", "'"),
        ("Node (", ")"),
        ("node (", ")"),
        ("Node:", " "),
        (" for node \"", "\""),
        ("Building node ", " "),
    ];
    let framed = FRAMES.iter().find_map(|(before, after)| {
        let rest = &message[message.find(before)? + before.len()..];
        Some(rest[..rest.find(after)?].to_owned())
    });
    let numbered = || {
        let rest = &message[message.find("node #")?..];
        let quoted = &rest[rest.find('"')? + 1..];
        Some(quoted[..quoted.find('"')?].to_owned())
    };
    framed.or_else(numbered).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, dtype: DType) -> ValueInfo {
        ValueInfo { name: name.to_owned(), dtype: Some(dtype), dims: None }
    }

    #[test]
    fn inputs_are_matched_by_name_and_type() {
        let declared = [info("a", DType::F32), info("b", DType::I64)];
        let a = ("a".to_owned(), Tensor::scalar(1f32));
        let b = ("b".to_owned(), Tensor::scalar(2i64));
        let wrong = ("b".to_owned(), Tensor::scalar(2i32));
        let extra = ("c".to_owned(), Tensor::scalar(2i64));
        let check = |given: &[(String, Tensor)]| match ordered("m", &declared, given) {
            Ok(tensors) => format!("{tensors:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(check(&[b.clone(), a.clone()]), "[f32[] [1.0], i64[] [2]]");
        assert_eq!(check(std::slice::from_ref(&a)), "m: input `b`: is missing");
        assert_eq!(check(&[a.clone(), wrong]), "m: input `b`: expected i64, got i32");
        assert_eq!(check(&[a.clone(), a.clone(), b.clone()]), "m: input `a`: is given twice");
        assert_eq!(check(&[a, b, extra]), "m: input `c`: the model has no such input, only [\"a\", \"b\"]");
    }

    #[test]
    fn nodes_are_found_in_the_runtimes_words() {
        let check = |message: &str| node_in(message).unwrap_or_default();
        assert_eq!(check("returned while running Conv node. Name:'conv1' Status Message: x"), "conv1");
        assert_eq!(check("Failed analyse for node #12 \"add_3\" Add"), "add_3");
        assert_eq!(check("This is an invalid model. In Node, (\"n\", Foo, \"\", -1)"), "n");
        assert_eq!(check("nothing said"), "");
    }

    #[test]
    fn the_folder_of_a_bare_file_name_is_the_working_folder() {
        let model = ModelBytes::new(vec![]).at("m.onnx");
        assert_eq!(model.folder(), Some(Path::new(".")));
        assert_eq!(ModelBytes::new(vec![]).folder(), None);
    }
}
