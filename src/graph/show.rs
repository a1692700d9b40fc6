//! A graph as text that stays the same for the same graph and reads well in a diff: for snapshots and for people.
//!
//! ```text
//! graph "classifier"
//!   in   %x: f32[batch, 4]
//!   out  %y
//!   init %shape: i64[2] [1, -1]
//!   init %w: f32[4, 16] #5ce1a0d3
//!   %reshape = Reshape(%x, %shape)
//!   %y = Gemm(%reshape, %w, _) {transB=1}
//! ```
//!
//! Attributes that have their default are left out, an input or output that is left out is `_`, and a constant of more
//! than a few elements is a hash of its content. Names of nodes, doc strings and other notes are not shown.

use super::attribute::{Attribute, SparseTensor};
use super::shape::Types;
use super::tensor::{Element, Tensor};
use super::{Graph, Name, Node, ValueInfo, ValueType};

/// The text of a graph.
pub fn show(graph: &Graph) -> String {
    let mut text = String::new();
    Shown { text: &mut text }.graph(graph, None, 0);
    text
}

/// The text of a graph with the type of each value beside it.
pub fn show_typed(graph: &Graph, types: &Types) -> String {
    let mut text = String::new();
    Shown { text: &mut text }.graph(graph, Some(types), 0);
    text
}

struct Shown<'a> {
    text: &'a mut String,
}

impl Shown<'_> {
    fn line(&mut self, depth: usize, line: &str) {
        for _ in 0..depth {
            self.text.push_str("  ");
        }
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn graph(&mut self, graph: &Graph, types: Option<&Types>, depth: usize) {
        self.line(depth, &format!("graph {:?}", graph.name));
        for input in &graph.inputs {
            self.line(depth + 1, &format!("in   {}", typed(input, types)));
        }
        for output in &graph.outputs {
            self.line(depth + 1, &format!("out  {}", typed(output, types)));
        }
        for (name, tensor) in &graph.initializers {
            let kind = if graph.overridable.contains(name) { "init?" } else { "init" };
            self.line(depth + 1, &format!("{kind} {}: {}", value(name), constant(tensor)));
        }
        for (name, tensor) in &graph.sparse_initializers {
            self.line(depth + 1, &format!("init {}: {}", value(name), sparse(tensor)));
        }
        for (node_idx, node) in graph.nodes.iter().enumerate() {
            self.line(depth + 1, &format!("{}{}", call(node, types), attributes(node)));
            let attributes = node.op.attributes();
            let named = attributes.iter().flat_map(|(name, a)| a.graphs().into_iter().map(move |graph| (name, graph)));
            for (body_idx, (name, body)) in named.enumerate() {
                self.line(depth + 2, &format!("{name}:"));
                self.graph(body, types.and_then(|types| types.body(node_idx, body_idx)), depth + 2);
            }
        }
    }
}

fn typed(info: &ValueInfo, types: Option<&Types>) -> String {
    let known = types.and_then(|types| types.get(&info.name)).or(info.value_type.as_ref());
    with_type(&info.name, known)
}

fn with_type(name: &Name, value_type: Option<&ValueType>) -> String {
    match value_type {
        Some(value_type) => format!("{}: {value_type}", value(name)),
        None => value(name),
    }
}

/// A name, in quotes where it could be read as something else.
fn value(name: &Name) -> String {
    let plain = !name.contains(|sign: char| sign.is_whitespace() || sign.is_control() || "(){},\"\\%=".contains(sign));
    if plain { format!("%{name}") } else { format!("%{:?}", name.as_str()) }
}

fn call(node: &Node, types: Option<&Types>) -> String {
    let left_out = || "_".to_string();
    let output = |name: &Name| match types {
        Some(types) => with_type(name, types.get(name)),
        None => value(name),
    };
    let outputs: Vec<String> = node.outputs.iter().map(|name| name.as_ref().map_or_else(left_out, output)).collect();
    let inputs: Vec<String> = node.inputs.iter().map(|name| name.as_ref().map_or_else(left_out, value)).collect();
    let domain = node.op.domain();
    let dot = if domain.is_empty() { "" } else { "." };
    format!("{} = {domain}{dot}{}({})", outputs.join(", "), node.op.name(), inputs.join(", "))
}

fn attributes(node: &Node) -> String {
    let shown: Vec<String> = node
        .op
        .attributes()
        .iter()
        .filter(|(_, attribute)| attribute.graphs().is_empty())
        .map(|(name, attribute)| format!("{name}={}", attribute_text(attribute)))
        .collect();
    if shown.is_empty() { String::new() } else { format!(" {{{}}}", shown.join(", ")) }
}

fn attribute_text(attribute: &Attribute) -> String {
    match attribute {
        Attribute::Float(value) => format!("{value:?}"),
        Attribute::Int(value) => value.to_string(),
        Attribute::String(value) => string(value),
        Attribute::Tensor(value) => constant(value),
        Attribute::SparseTensor(value) => sparse(value),
        Attribute::Type(value) => value.to_string(),
        Attribute::Floats(values) => format!("{values:?}"),
        Attribute::Ints(values) => format!("{values:?}"),
        Attribute::Strings(values) => list(values.iter().map(|value| string(value))),
        Attribute::Tensors(values) => list(values.iter().map(constant)),
        Attribute::SparseTensors(values) => list(values.iter().map(sparse)),
        Attribute::Types(values) => list(values.iter().map(ValueType::to_string)),
        Attribute::Graph(graph) => format!("graph {:?}", graph.name),
        Attribute::Graphs(graphs) => list(graphs.iter().map(|graph| format!("graph {:?}", graph.name))),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn string(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}

fn sparse(tensor: &SparseTensor) -> String {
    format!(
        "sparse {}{:?} values {} at {}",
        tensor.values.dtype(),
        tensor.shape,
        constant(&tensor.values),
        constant(&tensor.indices)
    )
}

/// Type, shape, and the elements where they are few, else a hash of them.
fn constant(tensor: &Tensor) -> String {
    const FEW: usize = 8;
    let elements = (tensor.len() <= FEW).then(|| elements(tensor)).flatten();
    let elements = elements.unwrap_or_else(|| format!("#{:08x}", content_hash(tensor)));
    format!("{}{:?} {elements}", tensor.dtype(), tensor.shape())
}

fn elements(tensor: &Tensor) -> Option<String> {
    fn of<T: Element>(tensor: &Tensor) -> Option<String> {
        let elements = tensor.as_slice::<T>().ok()?;
        Some(match elements {
            [only] if tensor.rank() == 0 => format!("{only:?}"),
            elements => format!("{elements:?}"),
        })
    }
    let views = [
        of::<f32>,
        of::<f64>,
        of::<half::f16>,
        of::<half::bf16>,
        of::<i64>,
        of::<i32>,
        of::<i16>,
        of::<i8>,
        of::<u64>,
        of::<u32>,
        of::<u16>,
        of::<u8>,
        of::<bool>,
    ];
    let strings = || tensor.strings().map(|strings| list(strings.iter().map(|text| string(text))));
    views.iter().find_map(|view| view(tensor)).or_else(strings)
}

/// FNV-1a over the elements' bytes, folded to 32 bits.
fn content_hash(tensor: &Tensor) -> u32 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let add = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let hash = match (tensor.bytes(), tensor.strings()) {
        (Some(bytes), _) => bytes.iter().fold(BASIS, add),
        // no byte of UTF-8 is 255: it keeps the strings apart
        (None, Some(strings)) => strings.iter().flat_map(|text| text.iter().chain(&[255])).fold(BASIS, add),
        (None, None) => BASIS,
    };
    let folded = (hash >> 32) ^ (hash & u64::from(u32::MAX));
    u32::try_from(folded).expect("the upper half is zero")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::{Gemm, If, QGemm};
    use crate::graph::shape::{Bindings, infer};
    use crate::graph::tensor::DType;
    use crate::graph::{Dim, GraphBuilder, Op, TensorType};

    fn sample() -> Graph {
        let mut branch = GraphBuilder::new("branch");
        branch.push(Node::new(Op::Neg, vec![Some("y".into())], vec![Some("negated".into())]));
        branch.output(&"negated".into());
        let branch = branch.finish_body().expect("a body may capture");
        let mut other = GraphBuilder::new("other");
        other.push(Node::new(Op::Exp, vec![Some("y".into())], vec![Some("e x p".into())]));
        other.output(&"e x p".into());
        let other = other.finish_body().expect("a body may capture");

        let mut builder = GraphBuilder::new("sample");
        let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), Dim::from(4)]));
        let condition = builder.input("condition", TensorType { dtype: DType::Bool, shape: Some(Vec::new()) });
        let w = builder.initializer("w", Tensor::new(&[3, 4], vec![0.5f32; 12]).expect("twelve elements"));
        let two = builder.initializer("two", Tensor::scalar(2f32));
        let gemm = Op::Gemm(Gemm { trans_b: true, ..Gemm::default() });
        builder.push(Node::new(gemm, vec![Some(x), Some(w), None], vec![Some("gemm".into())]));
        builder.push(Node::new(Op::Mul, vec![Some("gemm".into()), Some(two)], vec![Some("y".into())]));
        let z = builder.node(Op::If(If { then_branch: branch, else_branch: other }), &[&condition]);
        builder.output(&z);
        builder.finish().expect("the graph is whole")
    }

    #[test]
    fn a_graph_is_shown_line_by_line() {
        let expected = r#"graph "sample"
  in   %x: f32[batch, 4]
  in   %condition: bool[]
  out  %if
  init %w: f32[3, 4] #343f1c61
  init %two: f32[] 2.0
  %gemm = Gemm(%x, %w, _) {transB=1}
  %y = Mul(%gemm, %two)
  %if = If(%condition)
    then_branch:
    graph "branch"
      out  %negated
      %negated = Neg(%y)
    else_branch:
    graph "other"
      out  %"e x p"
      %"e x p" = Exp(%y)
"#;
        assert_eq!(show(&sample()), expected);
    }

    #[test]
    fn types_stand_beside_the_values_of_bodies_too() {
        let graph = sample();
        let types = infer(&graph, &Bindings::of([("batch", 2)])).expect("shapes fit");
        let shown = show_typed(&graph, &types);
        assert!(shown.contains("  %gemm: f32[2, 3] = Gemm(%x, %w, _) {transB=1}\n"), "{shown}");
        assert!(shown.contains("      %negated: f32[2, 3] = Neg(%y)\n"), "{shown}");
        assert!(shown.contains("  out  %if: f32[2, 3]\n"), "{shown}");
    }

    #[test]
    fn one_changed_element_changes_the_hash() {
        let text = |first: f32| {
            let mut elements = vec![0f32; 9];
            elements[0] = first;
            constant(&Tensor::vector(elements))
        };
        assert_eq!(text(1.0), text(1.0));
        assert_ne!(text(1.0), text(2.0));
    }

    #[test]
    fn other_domains_and_types_are_named() {
        let op = Op::QGemm(QGemm { alpha: 0.5, ..QGemm::default() });
        let node = Node::new(op, vec![Some("a".into())], vec![Some("y".into())]);
        assert_eq!(call(&node, None) + &attributes(&node), "%y = com.microsoft.QGemm(%a) {alpha=0.5}");
        let strings = Tensor::from_strings(&[1], vec!["ä".into()]).expect("one string");
        assert_eq!(constant(&strings), "string[1] [\"ä\"]");
        let packed = Tensor::from_bytes(DType::I4, &[2], vec![0x21u8].into()).expect("one byte");
        assert!(constant(&packed).starts_with("i4[2] #"));
    }
}
