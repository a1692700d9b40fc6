//! What can be wrong with an ONNX file, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::lower::LowerError;
use super::upgrade::UpgradeError;
use crate::graph::CheckError;
use crate::graph::shape::MOST_DIMS;
use crate::graph::tensor::TensorError;
use crate::store::StoreError;

/// Why a file is not read or not written.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The file in which the rest happened.
    #[error("{}: {source}", path.display())]
    File {
        /// the model
        path: PathBuf,
        /// what is wrong with it
        source: Box<OnnxError>,
    },
    /// The file system refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bytes are not the protobuf message that they should be; cut off, for one.
    #[error("the bytes are no ONNX message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// The bytes are those of another kind of file.
    #[error("this is {what}, no ONNX model")]
    Foreign {
        /// what it is
        what: &'static str,
        /// what to do about it
        hint: &'static str,
    },
    /// The message lacks what every model has, or states what none may.
    #[error("{0}")]
    Model(String),
    /// The operator set is older or newer than what we know.
    #[error("{domain} operator set {got} is outside {least} to {most}")]
    Opset {
        /// whose operators
        domain: String,
        /// the version in the file
        got: i64,
        /// the oldest that we read
        least: u32,
        /// the newest
        most: u32,
    },
    /// A tensor's type, dimensions and data do not belong together.
    #[error("tensor `{tensor}`: {problem}")]
    Tensor {
        /// its name
        tensor: String,
        /// what is wrong
        problem: TensorProblem,
    },
    /// What is stated of a value cannot be.
    #[error("value `{value}`: {problem}")]
    Value {
        /// its name
        value: String,
        /// what is wrong
        problem: String,
    },
    /// A node is not what its operator's definition says.
    #[error("{node}: {problem}")]
    Node {
        /// operator and name
        node: String,
        /// what is wrong
        problem: NodeProblem,
    },
    /// A node cannot be brought to the canonical form.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// A node cannot be written at an operator set.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// More than protobuf can hold.
    #[error("the model takes {n_bytes} bytes, and one file holds less than 2 GiB")]
    TooLarge {
        /// its size
        n_bytes: usize,
    },
    /// The nodes do not make a graph.
    #[error(transparent)]
    Graph(#[from] CheckError),
}

/// What can be wrong with a tensor in a file.
#[derive(Debug, thiserror::Error)]
pub enum TensorProblem {
    /// A number that is no element type, or one that we do not know.
    #[error("element type {0} is unknown")]
    Type(i32),
    /// A negative dimension, or one that does not fit this machine.
    #[error("dimension {0} is no size")]
    Dimension(i64),
    /// More dimensions than any network has.
    #[error("it has {0} dimensions, and at most {MOST_DIMS} are read")]
    Dimensions(usize),
    /// Data in a field that is not for this element type, or in two fields.
    #[error("{0}")]
    Storage(String),
    /// Another number of bytes or elements than the shape takes, and the like.
    #[error(transparent)]
    Elements(#[from] TensorError),
    /// The data is in another file, which cannot be used.
    #[error("external data: {0}")]
    External(String),
    /// As [`TensorProblem::External`], where the file system refused.
    #[error("external data: cannot read {}: {source}", path.display())]
    Io {
        /// the data file
        path: PathBuf,
        /// why
        source: io::Error,
    },
}

/// What can be wrong with a node in a file.
#[derive(Debug, thiserror::Error)]
pub enum NodeProblem {
    /// An attribute that is no attribute: its value is missing, its type is unknown.
    #[error("attribute `{attribute}`: {problem}")]
    Malformed {
        /// its name
        attribute: String,
        /// what is wrong
        problem: String,
    },
    /// A fault inside an attribute that is a graph or a tensor.
    #[error("attribute `{attribute}`: {source}")]
    Inside {
        /// its name
        attribute: String,
        /// what is wrong
        source: Box<OnnxError>,
    },
    /// A fault inside the model-local function that the node calls.
    #[error("in function {function}: {source}")]
    Function {
        /// domain and name
        function: String,
        /// what is wrong
        source: Box<OnnxError>,
    },
    /// Anything else that the specification does not allow.
    #[error("{0}")]
    Definition(String),
}

impl OnnxError {
    /// What the user can do about it, where there is something to do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            OnnxError::File { source, .. } => source.hint(),
            OnnxError::Protobuf(_) => Some("the file is cut off, damaged or no ONNX file: fetch or export it again"),
            OnnxError::Foreign { hint, .. } => Some(hint),
            OnnxError::Opset { got, least, .. } if *got < i64::from(*least) => {
                Some("the file is damaged, or older than operator sets are: export it again")
            }
            OnnxError::Opset { .. } => Some("a newer aludel may know it; otherwise export with an older operator set"),
            OnnxError::Tensor { problem, .. } => problem.hint(),
            OnnxError::Node { problem, .. } => problem.hint(),
            OnnxError::Graph(_) => Some("onnx.checker says more of files that break the specification"),
            OnnxError::TooLarge { .. } => Some("write it to a file, with its weights as external data"),
            OnnxError::Store(_) | OnnxError::Model(_) | OnnxError::Value { .. } => None,
            OnnxError::Lower(error) => Some(error.hint()),
            OnnxError::Upgrade(_) => None,
        }
    }

    /// The same error, in this file.
    pub(super) fn in_file(self, path: &std::path::Path) -> OnnxError {
        OnnxError::File { path: path.to_path_buf(), source: Box::new(self) }
    }

    /// The error of this node.
    pub(super) fn node(label: &str, problem: impl Into<NodeProblem>) -> OnnxError {
        OnnxError::Node { node: label.to_string(), problem: problem.into() }
    }

    /// A node that the specification does not allow.
    pub(super) fn definition(label: &str, problem: impl Into<String>) -> OnnxError {
        OnnxError::node(label, NodeProblem::Definition(problem.into()))
    }
}

impl TensorProblem {
    fn hint(&self) -> Option<&'static str> {
        match self {
            TensorProblem::External(_) | TensorProblem::Io { .. } => {
                Some("keep the data files beside the model, under the names that the model gives them")
            }
            TensorProblem::Type(_) => Some("a newer aludel may know it"),
            TensorProblem::Dimension(_) | TensorProblem::Dimensions(_) => None,
            TensorProblem::Storage(_) | TensorProblem::Elements(_) => None,
        }
    }
}

impl NodeProblem {
    fn hint(&self) -> Option<&'static str> {
        match self {
            NodeProblem::Inside { source, .. } | NodeProblem::Function { source, .. } => source.hint(),
            NodeProblem::Malformed { .. } | NodeProblem::Definition(_) => None,
        }
    }
}
