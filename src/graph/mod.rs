//! What a network is: values, nodes and the graphs that they make, whatever file or builder they came from.
//!
//! A value is known by its name, which is the one the file gave it: in errors, in overrides, in calibration ranges, in
//! taps. Nothing here reads files, runs fast or prints.

pub mod attribute;
pub mod axes;
pub mod build;
pub mod check;
pub mod cost;
pub mod eval;
pub mod op;
pub mod patch;
pub mod probe;
pub mod shape;
pub mod show;
pub mod simplify;
pub(crate) mod spelling;
pub mod structure;
pub mod tensor;
mod types;
#[cfg(feature = "learn")]
pub mod unroll;
pub mod uses;
pub(crate) mod window;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};

pub use build::GraphBuilder;
pub use check::CheckError;
pub use op::{Op, Opaque};
pub use types::{Denotation, Dim, Name, TensorType, ValueInfo, ValueType};

use attribute::SparseTensor;
use tensor::Tensor;

/// One operator at work: what it computes, from which values, into which.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What the file calls it; may be empty, need not be unique.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Its inputs in the order of the operator's signature; none where an optional one is left out.
    pub inputs: Vec<Option<Name>>,
    /// Its outputs likewise.
    pub outputs: Vec<Option<Name>>,
    /// Everything else that the file says of it.
    pub notes: NodeNotes,
}

/// What a file says of a node beside what it computes; kept and written back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeNotes {
    /// `doc_string`
    pub doc: String,
    /// `metadata_props`
    pub metadata: Vec<(String, String)>,
    /// `device_configurations`, as protobuf messages
    pub device_configurations: Vec<Bytes>,
}

impl Node {
    /// A node without a name.
    pub fn new(op: Op, inputs: Vec<Option<Name>>, outputs: Vec<Option<Name>>) -> Node {
        Node { name: String::new(), op, inputs, outputs, notes: NodeNotes::default() }
    }

    /// Whether a pattern means it: its operator, or, with `*` for any text, its name or that of a value that it makes.
    pub fn is_meant(&self, pattern: &str) -> bool {
        let by_name = |name: &str| !name.is_empty() && spelling::matches(pattern, name);
        self.op.name() == pattern || by_name(&self.name) || self.outputs.iter().flatten().any(|output| by_name(output))
    }

    /// The input at this position; none where it is left out.
    pub fn input(&self, position: usize) -> Option<&Name> {
        self.inputs.get(position).and_then(Option::as_ref)
    }

    /// The output at this position; none where it is left out.
    pub fn output(&self, position: usize) -> Option<&Name> {
        self.outputs.get(position).and_then(Option::as_ref)
    }

    /// Every value that it reads by its inputs or, through a body, by name from the graph around.
    pub fn reads(&self) -> impl Iterator<Item = &Name> {
        let captured = self.op.bodies().into_iter().flat_map(Graph::captures);
        self.inputs.iter().flatten().chain(captured)
    }

    /// How messages name it: operator, and its own name or that of its first output.
    pub fn label(&self) -> String {
        let own = Some(self.name.as_str()).filter(|name| !name.is_empty());
        match own.or(self.outputs.iter().flatten().next().map(Name::as_str)) {
            Some(name) => format!("{} `{name}`", self.op.name()),
            None => self.op.name().to_string(),
        }
    }
}

/// Everything that a graph holds, open to change; [`Graph::new`] checks it and closes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphParts {
    /// The graph's name.
    pub name: String,
    /// `doc_string`
    pub doc: String,
    /// What a caller must give, in order.
    pub inputs: Vec<ValueInfo>,
    /// What a caller gets, in order.
    pub outputs: Vec<ValueInfo>,
    /// The constants by name.
    pub initializers: IndexMap<Name, Tensor>,
    /// The constants of which only some elements are kept.
    pub sparse_initializers: IndexMap<Name, SparseTensor>,
    /// Initializers that the file also lists among its inputs, so that a caller may give another value.
    pub overridable: IndexSet<Name>,
    /// The operators, each after those whose outputs it reads.
    pub nodes: Vec<Node>,
    /// The types that the file states for inner values. Not kept up to date: see `shape` for inference.
    pub value_info: IndexMap<Name, ValueInfo>,
    /// `metadata_props`
    pub metadata: Vec<(String, String)>,
    /// `quantization_annotation`, as protobuf messages
    pub quantization_annotations: Vec<Bytes>,
}

/// A checked graph. A clone is cheap; to change one, make a `patch` of it.
#[derive(Clone, PartialEq)]
pub struct Graph(Arc<Checked>);

#[derive(PartialEq)]
struct Checked {
    parts: GraphParts,
    captures: BTreeSet<Name>,
}

impl Graph {
    /// Checks the parts of a whole network; nodes that are out of order are sorted, otherwise keeping their order.
    ///
    /// # Errors
    /// Names a cycle, a value that nothing produces or that two produce, a wrong arity, a shadowed name.
    pub fn new(parts: GraphParts) -> Result<Graph, CheckError> {
        let graph = Graph::body(parts)?;
        match graph.captures().first() {
            Some(name) => Err(check::dangling(&graph, name)),
            None => Ok(graph),
        }
    }

    /// Checks the parts of a branch or body, which may read values of the graph around it by name.
    ///
    /// # Errors
    /// As [`Graph::new`], but a value that nothing here produces is a capture.
    pub fn body(mut parts: GraphParts) -> Result<Graph, CheckError> {
        let captures = check::check(&mut parts)?;
        Ok(Graph(Arc::new(Checked { parts, captures })))
    }

    /// Checks the graph again, bodies included: a program that changes graphs by patches never needs it, tests do.
    ///
    /// # Errors
    /// As [`Graph::new`].
    pub fn check(&self) -> Result<(), CheckError> {
        check::check(&mut self.to_parts()).map(drop)
    }

    /// The values of the graph around it that it reads, inner bodies' included; empty for a whole network.
    pub fn captures(&self) -> &BTreeSet<Name> {
        &self.0.captures
    }

    /// A copy of its parts, to be changed and checked anew. Initializers are shared.
    pub fn to_parts(&self) -> GraphParts {
        self.0.parts.clone()
    }

    /// Every name that stands for a value in it, bodies not included.
    pub fn value_names(&self) -> impl Iterator<Item = &Name> {
        let inputs = self.inputs.iter().map(|input| &input.name);
        let constants = self.initializers.keys().chain(self.sparse_initializers.keys());
        inputs.chain(constants).chain(self.nodes.iter().flat_map(|node| node.outputs.iter().flatten()))
    }

    /// The initializer of this name, where no caller can override it.
    pub fn constant(&self, name: &Name) -> Option<&Tensor> {
        self.initializers.get(name).filter(|_| !self.overridable.contains(name))
    }

    /// Every name in it and in the bodies inside: what a new name must differ from.
    pub fn all_names(&self) -> BTreeSet<Name> {
        let mut names: BTreeSet<Name> = self.value_names().cloned().collect();
        names.extend(self.captures().iter().cloned());
        for body in self.nodes.iter().flat_map(|node| node.op.bodies()) {
            names.extend(body.all_names());
        }
        names
    }
}

impl Deref for Graph {
    type Target = GraphParts;

    fn deref(&self) -> &GraphParts {
        &self.0.parts
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.parts.fmt(f)
    }
}

/// A network with what its file says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The network.
    pub graph: Graph,
    /// The version of ONNX's own operator set that the file states, and the writer keeps to.
    pub opset: u32,
    /// The versions of the other operator sets it imports.
    pub domains: IndexMap<String, u32>,
    /// The version of the file format.
    pub ir_version: u32,
    /// Who wrote it, and whose it is.
    pub about: ModelNotes,
}

/// What a file says of its network beside the network; kept and written back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelNotes {
    /// `producer_name`
    pub producer_name: String,
    /// `producer_version`
    pub producer_version: String,
    /// `domain`
    pub domain: String,
    /// `model_version`
    pub model_version: i64,
    /// `doc_string`
    pub doc: String,
    /// `metadata_props`
    pub metadata: IndexMap<String, String>,
    /// `training_info`, as protobuf messages
    pub training_info: Vec<Bytes>,
    /// `configuration`, as protobuf messages
    pub configuration: Vec<Bytes>,
}

impl Model {
    /// A network of no file: it will be written at opset 21, which both runtimes read, or higher where it must.
    pub fn new(graph: Graph) -> Model {
        let about = ModelNotes {
            producer_name: "aludel".to_string(),
            producer_version: env!("CARGO_PKG_VERSION").to_string(),
            ..ModelNotes::default()
        };
        Model { graph, opset: 21, domains: IndexMap::new(), ir_version: 10, about }
    }

    /// The same file with another network.
    pub fn with_graph(&self, graph: Graph) -> Model {
        Model { graph, ..self.clone() }
    }
}
