//! Building a graph by hand: values get names, [`GraphBuilder::finish`] checks the whole.

use std::collections::{HashMap, HashSet};

use super::tensor::Tensor;
use super::{CheckError, Graph, GraphParts, Name, Node, Op, TensorType, ValueInfo};

/// Collects the parts of a graph; every call that makes a value returns its name.
///
/// ```
/// use aludel::graph::tensor::{DType, Tensor};
/// use aludel::graph::{Dim, GraphBuilder, Op, TensorType};
///
/// let mut builder = GraphBuilder::new("double");
/// let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), Dim::from(4)]));
/// let two = builder.initializer("two", Tensor::scalar(2f32));
/// let y = builder.node(Op::Mul, &[&x, &two]);
/// builder.output(&y);
/// let graph = builder.finish()?;
/// assert_eq!(graph.nodes.len(), 1);
/// # Ok::<(), aludel::graph::CheckError>(())
/// ```
#[derive(Debug, Default)]
pub struct GraphBuilder {
    parts: GraphParts,
    names: HashSet<Name>,
    /// The last number that a name got.
    numbers: HashMap<String, usize>,
}

impl GraphBuilder {
    /// An empty graph of this name.
    pub fn new(name: &str) -> GraphBuilder {
        let parts = GraphParts { name: name.to_string(), ..GraphParts::default() };
        GraphBuilder { parts, ..GraphBuilder::default() }
    }

    /// A value that the caller of the network gives.
    pub fn input(&mut self, name: &str, tensor_type: TensorType) -> Name {
        let name = self.unused(name);
        self.parts.inputs.push(ValueInfo::new(&name, tensor_type));
        name
    }

    /// A constant. A name that is taken gets a number.
    pub fn initializer(&mut self, name: &str, tensor: Tensor) -> Name {
        let name = self.unused(name);
        self.parts.initializers.insert(name.clone(), tensor);
        name
    }

    /// A node with one output, which is named after the operator.
    pub fn node(&mut self, op: Op, inputs: &[&Name]) -> Name {
        let base = op.name().to_lowercase();
        let output = self.unused(&base);
        let inputs = inputs.iter().map(|&name| Some(name.clone())).collect();
        self.push(Node::new(op, inputs, vec![Some(output.clone())]));
        output
    }

    /// A node with `n_outputs`, named after the operator and numbered.
    pub fn node_with_outputs(&mut self, op: Op, inputs: &[&Name], n_outputs: usize) -> Vec<Name> {
        let base = op.name().to_lowercase();
        let outputs: Vec<Name> = (0..n_outputs).map(|_| self.unused(&base)).collect();
        let inputs = inputs.iter().map(|&name| Some(name.clone())).collect();
        self.push(Node::new(op, inputs, outputs.iter().cloned().map(Some).collect()));
        outputs
    }

    /// Any node, its outputs named by the caller.
    pub fn push(&mut self, node: Node) {
        self.names.extend(node.outputs.iter().flatten().cloned());
        self.parts.nodes.push(node);
    }

    /// Makes this value an output of the network; its type is left to inference.
    pub fn output(&mut self, name: &Name) {
        self.parts.outputs.push(ValueInfo::untyped(name));
    }

    /// Makes this value an output of the network, of this type.
    pub fn typed_output(&mut self, name: &Name, tensor_type: TensorType) {
        self.parts.outputs.push(ValueInfo::new(name, tensor_type));
    }

    /// The checked graph.
    ///
    /// # Errors
    /// As [`Graph::new`].
    pub fn finish(self) -> Result<Graph, CheckError> {
        Graph::new(self.parts)
    }

    /// The checked graph as a branch or body, which may read values of the graph around it.
    ///
    /// # Errors
    /// As [`Graph::body`].
    pub fn finish_body(self) -> Result<Graph, CheckError> {
        Graph::body(self.parts)
    }

    fn unused(&mut self, base: &str) -> Name {
        let mut name = Name::from(base);
        if self.names.insert(name.clone()) {
            return name;
        }
        let number = self.numbers.entry(base.to_string()).or_insert(1);
        while !self.names.insert(name.clone()) {
            *number += 1;
            name = format!("{base}_{number}").into();
        }
        name
    }
}
