//! Raw nodes and what is known around them as short text, for the tests of `upgrade` and `lower`.
//!
//! One statement a line or between semicolons: `x: f32[2, n]` states a type, `a = i64 [0, 1]` and `s = f32 0.5` are
//! constants, `Op(k=1, list=[1], text="a") x, _ -> y` is a node, `_` an input or output that is left out.

use bytes::Bytes;

use super::raw::{RawAttribute, RawGraph, RawNode};
use crate::graph::attribute::Attribute;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphParts, Name, Node, NodeNotes, Op, TensorType, ValueInfo};

/// What a text says.
#[derive(Default)]
pub(super) struct Text {
    pub(super) types: Vec<ValueInfo>,
    pub(super) constants: Vec<(Name, Tensor)>,
    pub(super) nodes: Vec<RawNode>,
}

pub(super) fn parse(text: &str) -> Text {
    let mut parsed = Text::default();
    for statement in text.split(['\n', ';']).map(str::trim).filter(|statement| !statement.is_empty()) {
        if let Some((node, outputs)) = statement.split_once("->") {
            parsed.nodes.push(parse_node(node.trim(), outputs));
        } else if let Some((name, tensor)) = statement.split_once(" = ") {
            parsed.constants.push((name.trim().into(), parse_tensor(tensor.trim())));
        } else {
            let (name, tensor_type) = statement.split_once(':').expect("a type");
            parsed.types.push(ValueInfo::new(name.trim(), parse_type(tensor_type.trim())));
        }
    }
    parsed
}

/// The graph of a text whose nodes are canonical: what types are stated are its inputs, unless a node makes them; its
/// outputs are what no node reads.
pub(super) fn graph(text: &str) -> Graph {
    let parsed = parse(text);
    let nodes: Vec<Node> = parsed.nodes.into_iter().map(canonical).collect();
    let made = |name: &Name| nodes.iter().any(|node| node.outputs.iter().flatten().any(|output| output == name));
    let read = |name: &Name| nodes.iter().any(|node| node.reads().any(|input| input == name));
    let outputs = nodes.iter().flat_map(|node| node.outputs.iter().flatten()).filter(|name| !read(name));
    let (stated, inputs): (Vec<_>, Vec<_>) = parsed.types.into_iter().partition(|info| made(&info.name));
    Graph::new(GraphParts {
        inputs,
        outputs: outputs.map(ValueInfo::untyped).collect(),
        initializers: parsed.constants.into_iter().collect(),
        value_info: stated.into_iter().map(|info| (info.name.clone(), info)).collect(),
        nodes: nodes.clone(),
        ..GraphParts::default()
    })
    .expect("the test's graph is one")
}

fn canonical(node: RawNode) -> Node {
    let op = Op::read(&node.domain, &node.op_type, node.attributes).expect("the test's attributes are right");
    Node { name: node.name, op, inputs: node.inputs, outputs: node.outputs, notes: node.notes }
}

pub(super) fn show_nodes(nodes: &[Node]) -> Vec<String> {
    let line = |node: &Node| {
        let attributes = node.op.attributes().into_iter().map(|(name, value)| (name, RawAttribute::Plain(value)));
        let attributes: Vec<_> = attributes.collect();
        line(node.op.domain(), node.op.name(), &attributes, &node.inputs, &node.outputs)
    };
    nodes.iter().map(line).collect()
}

/// The constants, then the nodes of a raw graph.
pub(super) fn show_raw(graph: &RawGraph) -> Vec<String> {
    let mut lines = show_constants(graph.initializers.iter());
    let node =
        |node: &RawNode<RawAttribute>| line(&node.domain, &node.op_type, &node.attributes, &node.inputs, &node.outputs);
    lines.extend(graph.nodes.iter().map(node));
    lines
}

pub(super) fn show_constants<'a>(constants: impl Iterator<Item = (&'a Name, &'a Tensor)>) -> Vec<String> {
    constants.map(|(name, tensor)| format!("{name} = {}", show_tensor(tensor))).collect()
}

fn line(
    domain: &str,
    op_type: &str,
    attributes: &[(String, RawAttribute)],
    inputs: &[Option<Name>],
    outputs: &[Option<Name>],
) -> String {
    let mut attributes: Vec<String> =
        attributes.iter().map(|(name, value)| format!("{name}={}", show_attribute(value))).collect();
    attributes.sort();
    let attributes = if attributes.is_empty() { String::new() } else { format!("({})", attributes.join(", ")) };
    let domain = if domain.is_empty() { String::new() } else { format!("{domain}.") };
    let names = |names: &[Option<Name>]| {
        let names: Vec<&str> = names.iter().map(|name| name.as_ref().map_or("_", Name::as_str)).collect();
        names.join(", ")
    };
    format!("{domain}{op_type}{attributes} {} -> {}", names(inputs), names(outputs)).replace("  ", " ")
}

fn show_attribute(attribute: &RawAttribute) -> String {
    match attribute {
        RawAttribute::Plain(Attribute::Int(value)) => value.to_string(),
        RawAttribute::Plain(Attribute::Float(value)) => format!("{value:?}"),
        RawAttribute::Plain(Attribute::Ints(values)) => format!("{values:?}"),
        RawAttribute::Plain(Attribute::Floats(values)) => format!("{values:?}"),
        RawAttribute::Plain(Attribute::String(value)) => format!("{:?}", String::from_utf8_lossy(value)),
        RawAttribute::Plain(Attribute::Tensor(tensor)) => show_tensor(tensor),
        RawAttribute::Plain(other) => format!("{other:?}"),
        RawAttribute::Graph(graph) => format!("{{{}}}", show_raw(graph).join("; ")),
        RawAttribute::Graphs(_) => "graphs".to_string(),
    }
}

fn show_tensor(tensor: &Tensor) -> String {
    let elements = if let Ok(values) = tensor.to_f32s() {
        values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>()
    } else if let Ok(values) = tensor.as_slice::<i64>() {
        values.iter().map(i64::to_string).collect()
    } else if let Some(strings) = tensor.strings() {
        strings.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    } else {
        tensor.bytes().map(|bytes| bytes.iter().map(u8::to_string).collect()).unwrap_or_default()
    };
    match tensor.shape() {
        [] => format!("{} {}", tensor.dtype(), elements.join("")),
        [_] => format!("{} [{}]", tensor.dtype(), elements.join(", ")),
        shape => format!("{}{shape:?} [{}]", tensor.dtype(), elements.join(", ")),
    }
}

fn parse_node(text: &str, outputs: &str) -> RawNode {
    let end = text.find(['(', ' ']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let (attributes, inputs) = match rest.strip_prefix('(') {
        Some(rest) => rest.split_once(')').expect("attributes end"),
        None => ("", rest),
    };
    let (domain, op_type) = name.rsplit_once('.').unwrap_or(("", name));
    RawNode {
        name: String::new(),
        domain: domain.to_string(),
        op_type: op_type.to_string(),
        attributes: split_outside_brackets(attributes).into_iter().map(parse_attribute).collect(),
        inputs: parse_names(inputs),
        outputs: parse_names(outputs),
        notes: NodeNotes::default(),
    }
}

fn parse_names(text: &str) -> Vec<Option<Name>> {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| (name != "_").then(|| name.into())).collect()
}

fn split_outside_brackets(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (position, character) in text.char_indices() {
        match character {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn parse_attribute(text: &str) -> (String, Attribute) {
    let (name, value) = text.split_once('=').expect("an attribute has a value");
    let attribute = if let Some(text) = value.strip_prefix('"') {
        Attribute::String(Bytes::copy_from_slice(text.trim_end_matches('"').as_bytes()))
    } else if value.starts_with('[') {
        let elements = list(value);
        match elements.iter().map(|element| element.parse()).collect() {
            Ok(integers) => Attribute::Ints(integers),
            Err(_) => Attribute::Floats(elements.iter().map(|x| x.parse().expect("a float")).collect()),
        }
    } else if value.contains(' ') {
        Attribute::Tensor(parse_tensor(value))
    } else {
        value.parse().map_or_else(|_| Attribute::Float(value.parse().expect("a float")), Attribute::Int)
    };
    (name.to_string(), attribute)
}

fn list(text: &str) -> Vec<&str> {
    let inner = text.trim_start_matches('[').trim_end_matches(']');
    inner.split(',').map(str::trim).filter(|element| !element.is_empty()).collect()
}

fn parse_tensor(text: &str) -> Tensor {
    let (dtype, elements) = text.split_once(' ').expect("a type and elements");
    let dtype = DType::from_name(dtype).expect("a type");
    let values: Vec<f64> = list(elements).iter().map(|element| element.parse().expect("a number")).collect();
    let tensor = match dtype {
        DType::F32 => Tensor::vector(values.iter().map(|&x| x as f32).collect()),
        DType::F64 => Tensor::vector(values),
        DType::I64 => Tensor::vector(values.iter().map(|&x| x as i64).collect()),
        DType::I32 => Tensor::vector(values.iter().map(|&x| x as i32).collect()),
        DType::U8 => Tensor::vector(values.iter().map(|&x| x as u8).collect()),
        DType::Bool => Tensor::vector(values.iter().map(|&x| x != 0.0).collect()),
        other => unreachable!("tests hold no constants of {other}"),
    };
    if elements.starts_with('[') { tensor } else { tensor.reshaped(&[]).expect("one element") }
}

fn parse_type(text: &str) -> TensorType {
    let (dtype, dims) = text.split_once('[').expect("a shape");
    let dtype = DType::from_name(dtype).expect("a type");
    if dims.starts_with("..") {
        return TensorType::unranked(dtype);
    }
    let dim = |dim: &str| match dim {
        "?" => Dim::Unknown,
        dim => dim.parse().map_or_else(|_| Dim::from(dim), Dim::Known),
    };
    TensorType { dtype, shape: Some(list(dims).into_iter().map(dim).collect()) }
}
