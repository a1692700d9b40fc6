//! Who produces and who reads each value of a graph: looked up once, for whoever walks the graph along its values.

use std::collections::{HashMap, HashSet};

use super::{Graph, Node};

/// Who reads a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reader {
    /// The node's position.
    pub node_idx: usize,
    /// Which of its inputs; none where one of its bodies captures the value.
    pub position: Option<usize>,
}

/// The producers and readers of a graph's values. What its bodies do inside is not seen, what they capture is.
#[derive(Clone, Debug)]
pub struct Uses<'a> {
    graph: &'a Graph,
    producers: HashMap<&'a str, usize>,
    readers: HashMap<&'a str, Vec<Reader>>,
    outputs: HashSet<&'a str>,
}

impl<'a> Uses<'a> {
    /// Looks at every node once.
    pub fn of(graph: &'a Graph) -> Uses<'a> {
        let mut producers = HashMap::new();
        let mut readers: HashMap<&'a str, Vec<Reader>> = HashMap::new();
        for (node_idx, node) in graph.nodes.iter().enumerate() {
            producers.extend(node.outputs.iter().flatten().map(|name| (name.as_str(), node_idx)));
            for (position, name) in node.inputs.iter().enumerate() {
                if let Some(name) = name {
                    readers.entry(name).or_default().push(Reader { node_idx, position: Some(position) });
                }
            }
            for name in node.op.bodies().into_iter().flat_map(Graph::captures) {
                readers.entry(name).or_default().push(Reader { node_idx, position: None });
            }
        }
        let outputs = graph.outputs.iter().map(|output| output.name.as_str()).collect();
        Uses { graph, producers, readers, outputs }
    }

    /// The position of the node that produces a value; none for inputs, constants and captures.
    pub fn producer_idx(&self, name: &str) -> Option<usize> {
        self.producers.get(name).copied()
    }

    /// The node that produces a value.
    pub fn producer(&self, name: &str) -> Option<&'a Node> {
        self.graph.nodes.get(self.producer_idx(name)?)
    }

    /// Everything that reads a value, in the order of the graph; a node that reads it twice stands there twice.
    pub fn readers(&self, name: &str) -> &[Reader] {
        self.readers.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether the graph hands the value out.
    pub fn is_output(&self, name: &str) -> bool {
        self.outputs.contains(name)
    }

    /// The one that reads a value, where there is just one, through an input of its own, and the graph does not hand the
    /// value out: such a value can be changed together with its reader.
    pub fn sole_reader(&self, name: &str) -> Option<Reader> {
        match self.readers(name) {
            [reader] if reader.position.is_some() && !self.is_output(name) => Some(*reader),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::tensor::DType;
    use crate::graph::{GraphBuilder, Op, TensorType};

    #[test]
    fn producers_and_readers() {
        let mut builder = GraphBuilder::new("uses");
        let x = builder.input("x", TensorType::new(DType::F32, [4usize]));
        let a = builder.node(Op::Relu, &[&x]);
        let b = builder.node(Op::Mul, &[&a, &a]);
        let c = builder.node(Op::Neg, &[&b]);
        builder.output(&c);
        let graph = builder.finish().expect("a graph");
        let uses = Uses::of(&graph);
        assert_eq!((uses.producer_idx(&x), uses.producer_idx(&b)), (None, Some(1)));
        assert_eq!(uses.readers(&a), [0, 1].map(|position| Reader { node_idx: 1, position: Some(position) }));
        assert_eq!(uses.sole_reader(&a), None, "read twice");
        assert_eq!(uses.sole_reader(&b), Some(Reader { node_idx: 2, position: Some(0) }));
        assert_eq!(uses.sole_reader(&c), None, "an output");
        assert!(uses.is_output(&c) && !uses.is_output(&a));
    }
}
