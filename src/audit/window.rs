//! Parts of a network as networks of their own: some of its nodes, fed with what the rest of it would give them.

use std::collections::{BTreeSet, HashSet};

use indexmap::IndexMap;

use super::kind;
use crate::graph::tensor::Tensor;
use crate::graph::uses::Uses;
use crate::graph::{Graph, GraphParts, Name, Node, Op, TensorType, ValueInfo};

/// Every value of a network that the reference has computed, its inputs included.
pub(super) type Values = IndexMap<Name, Tensor>;

/// A part of a network, what it is to be given and what it should then give.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) graph: Graph,
    pub(super) feed: Vec<(String, Tensor)>,
    pub(super) expected: Vec<(Name, Tensor)>,
}

/// Looks up a network's nodes for windows on it.
pub(super) struct Windows<'a> {
    graph: &'a Graph,
    uses: Uses<'a>,
    constants: Vec<bool>,
}

/// Integers of at most this many elements that are not a node's first input are shapes, axes and the like: runtimes want
/// to know them when they load a model.
const MAX_SHAPE_ELEMENTS: usize = 64;

impl<'a> Windows<'a> {
    /// `constants` says of each node whether it depends on constants only.
    pub(super) fn new(graph: &'a Graph, constants: Vec<bool>) -> Windows<'a> {
        Windows { graph, uses: Uses::of(graph), constants }
    }

    /// The positions of the nodes that depend on an input of the network.
    pub(super) fn at_work(&self) -> impl DoubleEndedIterator<Item = usize> {
        (0..self.graph.nodes.len()).filter(|&idx| !self.constants[idx])
    }

    /// The node with what a runtime may fuse it with when it is quantized: each DequantizeLinear that feeds it (those of
    /// constants come into every window), and the QuantizeLinear that alone reads it, over an activation that alone stands
    /// between.
    pub(super) fn neighbourhood(&self, node_idx: usize) -> BTreeSet<usize> {
        let node = &self.graph.nodes[node_idx];
        let mut nodes = BTreeSet::from([node_idx]);
        if kind::converts(&node.op) {
            return nodes;
        }
        let feeding = node.reads().filter_map(|name| self.uses.producer_idx(name));
        let is_quantized = |idx: &usize| kind::is_dequantize(&self.graph.nodes[*idx].op) && !self.constants[*idx];
        nodes.extend(feeding.filter(is_quantized));
        let mut behind = Vec::new();
        let mut end = node;
        while let Some(reader) = end.output(0).and_then(|name| self.uses.sole_reader(name)) {
            end = &self.graph.nodes[reader.node_idx];
            behind.push(reader.node_idx);
            if kind::is_quantize(&end.op) {
                nodes.extend(behind);
                break;
            }
            if !kind::is_clamp(&end.op) {
                break;
            }
        }
        nodes
    }

    /// The last `n` nodes at work that this one depends on, itself among them.
    pub(super) fn before(&self, node_idx: usize, n: usize) -> BTreeSet<usize> {
        let ancestors = self.ancestors(node_idx);
        ancestors.into_iter().rev().filter(|&idx| !self.constants[idx]).take(n).collect()
    }

    /// Everything that a node depends on, and itself.
    pub(super) fn ancestors(&self, node_idx: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::from([node_idx]);
        let mut open = vec![node_idx];
        while let Some(idx) = open.pop() {
            let producers = self.graph.nodes[idx].reads().filter_map(|name| self.uses.producer_idx(name));
            open.extend(producers.filter(|&producer| found.insert(producer)));
        }
        found
    }

    /// These nodes, and the constants that they need, as a network whose outputs are those of their values that somebody
    /// else wants; `only` one of them where it is given.
    ///
    /// # Errors
    /// Why they are no network: a value that comes in or goes out is no tensor.
    pub(super) fn cut(&self, nodes: &BTreeSet<usize>, only: Option<usize>, values: &Values) -> Result<Window, String> {
        let mut chosen = nodes.clone();
        for &idx in nodes {
            let producers = self.graph.nodes[idx].reads().filter_map(|name| self.uses.producer_idx(name));
            for producer in producers.filter(|&producer| self.constants[producer]) {
                chosen.extend(self.ancestors(producer));
            }
        }
        let members: Vec<&Node> = chosen.iter().map(|&idx| &self.graph.nodes[idx]).collect();
        let mut parts = GraphParts { name: self.graph.name.clone(), ..GraphParts::default() };
        let mut known: HashSet<&Name> = members.iter().flat_map(|node| node.outputs.iter().flatten()).collect();
        let mut feed = Vec::new();
        for name in members.iter().flat_map(|node| node.reads()) {
            if !known.insert(name) {
                continue;
            }
            if let Some(tensor) = self.graph.initializers.get(name) {
                parts.initializers.insert(name.clone(), tensor.clone());
            } else if let Some(tensor) = self.graph.sparse_initializers.get(name) {
                parts.sparse_initializers.insert(name.clone(), tensor.clone());
            } else {
                let tensor = values.get(name).ok_or_else(|| format!("`{name}` is no tensor"))?;
                if is_shape(name, tensor, &members) {
                    parts.initializers.insert(name.clone(), tensor.clone());
                } else {
                    parts.inputs.push(ValueInfo::new(name, TensorType::of(tensor)));
                    feed.push((name.to_string(), tensor.clone()));
                }
            }
        }
        let mut expected = Vec::new();
        let wanted = |name: &Name| {
            let readers = self.uses.readers(name);
            self.uses.is_output(name) || readers.iter().any(|reader| !chosen.contains(&reader.node_idx))
        };
        let gives = |idx: &&usize| !self.constants[**idx] && only.is_none_or(|only| only == **idx);
        for &idx in nodes.iter().filter(gives) {
            for name in self.graph.nodes[idx].outputs.iter().flatten().filter(|name| only.is_some() || wanted(name)) {
                let tensor = values.get(name).ok_or_else(|| format!("`{name}` is no tensor"))?;
                parts.outputs.push(ValueInfo::new(name, TensorType::of(tensor)));
                expected.push((name.clone(), tensor.clone()));
            }
        }
        parts.nodes = members.into_iter().cloned().collect();
        let graph = Graph::new(parts).map_err(|error| error.to_string())?;
        Ok(Window { graph, feed, expected })
    }
}

fn is_shape(name: &Name, tensor: &Tensor, members: &[&Node]) -> bool {
    let takes_shape = |node: &Node| matches!(node.op, Op::ConstantOfShape(_) | Op::Range(_));
    let is_data = members.iter().any(|node| node.input(0) == Some(name) && !takes_shape(node));
    tensor.dtype().is_integer() && tensor.rank() <= 1 && tensor.len() <= MAX_SHAPE_ELEMENTS && !is_data
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::account::constants;
    use crate::graph::tensor::DType;
    use crate::graph::{GraphBuilder, eval, show};

    /// Q → DQ → MatMul with a weight behind DQ → Relu → Q → DQ → Reshape to a computed shape.
    fn network() -> Graph {
        let mut builder = GraphBuilder::new("network");
        let x = builder.input("x", TensorType::new(DType::F32, [2usize, 2]));
        let scale = builder.initializer("scale", Tensor::scalar(0.5f32));
        let zero = builder.initializer("zero", Tensor::scalar(0u8));
        let weight = builder.initializer("weight", Tensor::new(&[2, 2], vec![1u8, 2, 3, 4]).expect("2 by 2"));
        let weight = builder.node(Op::DequantizeLinear(Default::default()), &[&weight, &scale, &zero]);
        let shape = builder.node(Op::Shape(Default::default()), &[&x]);
        let q = builder.node(Op::QuantizeLinear(Default::default()), &[&x, &scale, &zero]);
        let y = builder.node(Op::DequantizeLinear(Default::default()), &[&q, &scale, &zero]);
        let y = builder.node(Op::MatMul, &[&y, &weight]);
        let y = builder.node(Op::Relu, &[&y]);
        let y = builder.node(Op::QuantizeLinear(Default::default()), &[&y, &scale, &zero]);
        let y = builder.node(Op::DequantizeLinear(Default::default()), &[&y, &scale, &zero]);
        let y = builder.node(Op::Reshape(Default::default()), &[&y, &shape]);
        builder.output(&y);
        builder.finish().expect("a graph")
    }

    fn check(choose: impl Fn(&Windows<'_>) -> BTreeSet<usize>) -> String {
        let graph = network();
        let x = Tensor::new(&[2, 2], vec![1f32, 2.0, -1.0, 0.5]).expect("2 by 2");
        let names: Vec<Name> = graph.nodes.iter().flat_map(|node| node.outputs.iter().flatten().cloned()).collect();
        let given = Values::from([("x".into(), x)]);
        let mut values = eval::run_with(&graph, &given, &names).expect("it can be computed");
        values.extend(given);
        let windows = Windows::new(&graph, constants(&graph));
        let window = windows.cut(&choose(&windows), None, &values).expect("a network");
        let given = window.feed.iter().map(|(name, tensor)| (name.as_str().into(), tensor.clone())).collect();
        let outputs = eval::run(&window.graph, &given).expect("it can be computed");
        let expected: Values = window.expected.into_iter().collect();
        assert_eq!(outputs, expected);
        show::show(&window.graph)
    }

    #[test]
    fn a_quantized_operator_stands_between_its_neighbours() {
        insta::assert_snapshot!(check(|windows| windows.neighbourhood(4)), @r#"
        graph "network"
          in   %quantizelinear: u8[2, 2]
          out  %quantizelinear_2: u8[2, 2]
          init %weight: u8[2, 2] [1, 2, 3, 4]
          init %scale: f32[] 0.5
          init %zero: u8[] 0
          %dequantizelinear = DequantizeLinear(%weight, %scale, %zero)
          %dequantizelinear_2 = DequantizeLinear(%quantizelinear, %scale, %zero)
          %matmul = MatMul(%dequantizelinear_2, %dequantizelinear)
          %relu = Relu(%matmul)
          %quantizelinear_2 = QuantizeLinear(%relu, %scale, %zero)
        "#);
    }

    #[test]
    fn shapes_become_constants() {
        insta::assert_snapshot!(check(|windows| windows.neighbourhood(8)), @r#"
        graph "network"
          in   %quantizelinear_2: u8[2, 2]
          out  %reshape: f32[2, 2]
          init %scale: f32[] 0.5
          init %zero: u8[] 0
          init %shape: i64[2] [2, 2]
          %dequantizelinear_3 = DequantizeLinear(%quantizelinear_2, %scale, %zero)
          %reshape = Reshape(%dequantizelinear_3, %shape)
        "#);
    }

    #[test]
    fn the_last_nodes_before_one() {
        let shown = check(|windows| windows.before(6, 3));
        assert_eq!(shown.matches(" = ").count(), 4, "three, and the constant one that they need\n{shown}");
    }
}
