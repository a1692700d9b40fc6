//! A [`Model`] to a file's bytes: its graph lowered to an operator set, then into messages that share the tensors.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::error::OnnxError;
use super::lower::{LowerError, Target, least_opset, lower};
use super::pieces::pieces;
use super::raw::{RawAttribute, RawGraph, RawNode};
use super::wire::{
    AttributeProto, EXTERNAL, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, attribute_type, entries, entry,
};
use super::{tensor, types};
use crate::graph::attribute::Attribute;
use crate::graph::op::{CANONICAL_OPSET, MICROSOFT};
use crate::graph::tensor::DType;
use crate::graph::{Graph, Model, TensorType, ValueInfo, ValueType};
use crate::store;

/// The most bytes that protobuf has in one message.
const MOST_BYTES: usize = (1 << 31) - 1;

/// The oldest version of ONNX's operator set that is written.
const OLDEST_OPSET: u32 = 7;

/// Tensors smaller than this stay in the model's file.
const LEAST_EXTERNAL_BYTES: usize = 1024;

/// Where a tensor may begin in a data file, so that a runtime can map it into memory.
const PAGE_BYTES: u64 = 4096;

/// How a model is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// The version of ONNX's operator set; none: the model's own, or the next that has all its operators.
    pub opset: Option<u32>,
    /// Where the weights go.
    pub external: ExternalData,
}

/// Whether the weights go into a file of their own beside the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalData {
    /// Where the model would otherwise have more than 2 GiB, which protobuf cannot hold.
    #[default]
    WhenNeeded,
    /// Whatever the size.
    Always,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The version of ONNX's operator set.
    pub opset: u32,
    /// The node that needs a newer operator set than the model stated; none where it is the model's own or the one
    /// asked for.
    pub raised: Option<String>,
    /// The version of the file format.
    pub ir_version: u32,
    /// The size of the model's file.
    pub n_bytes: u64,
    /// The file beside it that holds the weights, where there is one.
    pub data: Option<PathBuf>,
}

/// The model as the bytes of a file, at its own operator set or the next that has all its operators. The same model
/// gives the same bytes.
///
/// # Errors
/// When an opaque operator bars the change of operator set that another one needs, or the model takes more than 2 GiB.
pub fn to_bytes(model: &Model) -> Result<Bytes, OnnxError> {
    encode_whole(&message(model, None)?.0)
}

/// As [`to_bytes`], at this version of ONNX's operator set.
///
/// # Errors
/// Names the node that this version cannot express.
pub fn to_bytes_at(model: &Model, opset: u32) -> Result<Bytes, OnnxError> {
    encode_whole(&message(model, Some(opset))?.0)
}

/// Writes the model to a file that appears whole or not at all. External data goes to `path` with `.data` appended, and is
/// there before the model is.
///
/// # Errors
/// As [`to_bytes_at`], and when the file system refuses.
pub fn write(model: &Model, path: &Path, options: &WriteOptions) -> Result<Written, OnnxError> {
    write_message(model, path, options).map_err(|error| match error {
        OnnxError::Store(_) => error,
        other => other.in_file(path),
    })
}

fn write_message(model: &Model, path: &Path, options: &WriteOptions) -> Result<Written, OnnxError> {
    let (mut proto, mut written) = message(model, options.opset)?;
    let needed = proto.encoded_len() > MOST_BYTES;
    let outside = needed || options.external == ExternalData::Always;
    let moved = if outside { move_out(&mut proto, path)? } else { None };
    // Files are touched only once nothing but the file system can refuse: an older model keeps its data.
    let n_bytes = encoded_len(&proto)?;
    written.n_bytes = u64::try_from(n_bytes).expect("fewer than 2 GiB, as just checked");
    if let Some((data, chunks)) = moved {
        store::write_atomic_with(&data, |file| chunks.iter().try_for_each(|chunk| file.write_all(chunk)))?;
        written.data = Some(data);
    }
    let pieces = pieces(proto);
    store::write_atomic_with(path, |file| pieces.iter().try_for_each(|piece| file.write_all(piece)))?;
    Ok(written)
}

fn encode_whole(proto: &ModelProto) -> Result<Bytes, OnnxError> {
    encoded_len(proto)?;
    Ok(proto.encode_to_vec().into())
}

/// The size of the whole, where it is one that protobuf has.
fn encoded_len(proto: &ModelProto) -> Result<usize, OnnxError> {
    let n_bytes = proto.encoded_len();
    if n_bytes > MOST_BYTES { Err(OnnxError::TooLarge { n_bytes }) } else { Ok(n_bytes) }
}

fn message(model: &Model, opset: Option<u32>) -> Result<(ModelProto, Written), OnnxError> {
    let mut domains = model.domains.clone();
    for domain in used_domains(&model.graph) {
        domains.entry(domain).or_insert(1);
    }
    let (opset, raised, graph) = lowered(model, opset)?;
    let ir_version = ir_version(model, opset, &graph);
    let import =
        |domain: &str, version: u32| OperatorSetIdProto { domain: domain.to_string(), version: version.into() };
    let about = &model.about;
    let proto = ModelProto {
        ir_version: Some(ir_version.into()),
        producer_name: about.producer_name.clone(),
        producer_version: about.producer_version.clone(),
        domain: about.domain.clone(),
        model_version: about.model_version,
        doc_string: about.doc.clone(),
        graph: Some(encode_graph(graph, ir_version < 4)),
        opset_import: [import("", opset)]
            .into_iter()
            .chain(domains.iter().map(|(domain, &version)| import(domain, version)))
            .collect(),
        metadata_props: entries(&about.metadata),
        training_info: about.training_info.clone(),
        functions: Vec::new(),
        configuration: about.configuration.clone(),
    };
    Ok((proto, Written { opset, raised, ir_version, n_bytes: 0, data: None }))
}

/// The graph at the operator set asked for; or at the model's own, raised, for the reason given, where it must be.
fn lowered(model: &Model, asked: Option<u32>) -> Result<(u32, Option<String>, RawGraph), OnnxError> {
    let microsoft = model.domains.contains_key(MICROSOFT);
    let at = |opset| lower(&model.graph, Target { opset, own_opset: model.opset, microsoft });
    if let Some(opset) = asked {
        if !(OLDEST_OPSET..=CANONICAL_OPSET).contains(&opset) {
            let range = format!("choose one from {OLDEST_OPSET} to {CANONICAL_OPSET}");
            return Err(OnnxError::Model(format!("ONNX's operator set {opset} cannot be written: {range}")));
        }
        return Ok((opset, None, at(opset)?));
    }
    let (mut opset, mut raised) = match least_opset(&model.graph, microsoft) {
        (least, why) if least > model.opset => {
            (least, why.or_else(|| Some(format!("operator sets older than {least} are not written"))))
        }
        _ => (model.opset, None),
    };
    loop {
        match at(opset) {
            Err(LowerError::Needs { node, least, reason, .. }) if least > opset => {
                (opset, raised) = (least, Some(format!("{node}: {reason}")));
            }
            other => return Ok((opset, raised, other?)),
        }
    }
}

fn used_domains(graph: &Graph) -> BTreeSet<String> {
    let mut domains = BTreeSet::new();
    for node in &graph.nodes {
        if !node.op.domain().is_empty() {
            domains.insert(node.op.domain().to_string());
        }
        for body in node.op.bodies() {
            domains.extend(used_domains(body));
        }
    }
    domains
}

/// The oldest format, but none before the model's own, that has what the graph uses; that of the operator set's own
/// release where the operator set is not the model's.
fn ir_version(model: &Model, opset: u32, graph: &RawGraph) -> u32 {
    let released = if opset > model.opset { released_with(opset) } else { 0 };
    model.ir_version.max(released).max(needed_by(graph, true))
}

/// The version of the format in the release of ONNX that brought the operator set (ONNX's Versioning.md).
fn released_with(opset: u32) -> u32 {
    match opset {
        0..=8 => 3,
        9 => 4,
        10 => 5,
        11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19 | 20 => 9,
        21 | 22 => 10,
        23 => 11,
        24 => 12,
        25..=27 => 13,
        _ => 14,
    }
}

fn needed_by(graph: &RawGraph, whole: bool) -> u32 {
    let tensors = graph.initializers.values().map(|tensor| of_dtype(tensor.dtype()));
    let values = graph.inputs.iter().chain(&graph.outputs).chain(graph.value_info.values());
    let types = values.flat_map(|info| &info.value_type).map(of_type);
    let attributes = graph.nodes.iter().flat_map(|node| &node.attributes).map(|(_, attribute)| of_attribute(attribute));
    let sparse = if graph.sparse_initializers.is_empty() { 3 } else { 6 };
    let listed = graph.initializers.is_empty() || (whole && graph.overridable.is_empty());
    let unlisted = if listed { 3 } else { 4 };
    tensors.chain(types).chain(attributes).chain([sparse, unlisted]).max().unwrap_or(3)
}

fn of_attribute(attribute: &RawAttribute) -> u32 {
    match attribute {
        RawAttribute::Graph(graph) => needed_by(graph, false),
        RawAttribute::Graphs(graphs) => graphs.iter().map(|graph| needed_by(graph, false)).max().unwrap_or(3),
        RawAttribute::Plain(Attribute::Tensor(tensor)) => of_dtype(tensor.dtype()),
        RawAttribute::Plain(Attribute::Tensors(tensors)) => {
            tensors.iter().map(|tensor| of_dtype(tensor.dtype())).max().unwrap_or(3)
        }
        RawAttribute::Plain(Attribute::SparseTensor(_) | Attribute::SparseTensors(_)) => 6,
        RawAttribute::Plain(Attribute::Type(value_type)) => of_type(value_type),
        RawAttribute::Plain(_) => 3,
    }
}

fn of_type(value_type: &ValueType) -> u32 {
    match value_type {
        ValueType::Tensor(tensor) => of_dtype(tensor.dtype),
        ValueType::SparseTensor(tensor) => of_dtype(tensor.dtype).max(8),
        ValueType::Sequence(item) => of_type(item),
        ValueType::Optional(item) => of_type(item).max(8),
        ValueType::Map { key, value } => of_dtype(*key).max(of_type(value)),
        ValueType::Opaque { .. } => 3,
    }
}

fn of_dtype(dtype: DType) -> u32 {
    match dtype {
        DType::F64 | DType::F32 | DType::F16 | DType::Bool | DType::String | DType::Complex64 | DType::Complex128 => 3,
        DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U64 | DType::U32 | DType::U16 | DType::U8 => 3,
        DType::BF16 => 4,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ => 9,
        DType::I4 | DType::U4 => 10,
        DType::F4E2M1 => 11,
        DType::F8E8M0 => 12,
        DType::I2 | DType::U2 => 13,
        DType::F6E2M3 | DType::F6E3M2 => 14,
    }
}

fn encode_graph(graph: RawGraph, list_initializers: bool) -> GraphProto {
    let mut inputs: Vec<_> = graph.inputs.iter().map(types::encode_value).collect();
    let listed = graph.initializers.iter().filter(|&(name, _)| list_initializers || graph.overridable.contains(name));
    inputs.extend(listed.map(|(name, tensor)| types::encode_value(&ValueInfo::new(name, TensorType::of(tensor)))));
    GraphProto {
        node: graph.nodes.into_iter().map(|node| encode_node(node, list_initializers)).collect(),
        name: graph.name,
        initializer: graph.initializers.iter().map(|(name, value)| tensor::encode(name, value)).collect(),
        doc_string: graph.doc,
        input: inputs,
        output: graph.outputs.iter().map(types::encode_value).collect(),
        value_info: graph.value_info.values().map(types::encode_value).collect(),
        quantization_annotation: graph.quantization_annotations,
        sparse_initializer: graph
            .sparse_initializers
            .iter()
            .map(|(name, value)| tensor::encode_sparse(name, value))
            .collect(),
        metadata_props: owned_entries(graph.metadata),
    }
}

fn encode_node(node: RawNode<RawAttribute>, list_initializers: bool) -> NodeProto {
    let names = |names: Vec<Option<_>>| -> Vec<String> {
        names
            .into_iter()
            .map(|name| name.map_or_else(String::new, |name: crate::graph::Name| name.to_string()))
            .collect()
    };
    NodeProto {
        input: names(node.inputs),
        output: names(node.outputs),
        name: node.name,
        op_type: node.op_type,
        attribute: node
            .attributes
            .into_iter()
            .map(|(name, attribute)| encode_attribute(name, attribute, list_initializers))
            .collect(),
        doc_string: node.notes.doc,
        domain: node.domain,
        overload: String::new(),
        metadata_props: owned_entries(node.notes.metadata),
        device_configurations: node.notes.device_configurations,
    }
}

fn owned_entries(pairs: Vec<(String, String)>) -> Vec<StringStringEntryProto> {
    pairs.into_iter().map(|(key, value)| StringStringEntryProto { key, value }).collect()
}

fn encode_attribute(name: String, attribute: RawAttribute, list_initializers: bool) -> AttributeProto {
    let with = |number: i32, fields: AttributeProto| AttributeProto { name, r#type: number, ..fields };
    let none = AttributeProto::default();
    let graph = |graph| encode_graph(graph, list_initializers);
    let plain = match attribute {
        RawAttribute::Plain(plain) => plain,
        RawAttribute::Graph(body) => {
            return with(attribute_type::GRAPH, AttributeProto { g: Some(Box::new(graph(*body))), ..none });
        }
        RawAttribute::Graphs(bodies) => {
            let graphs = bodies.into_iter().map(graph).collect();
            return with(attribute_type::GRAPHS, AttributeProto { graphs, ..none });
        }
    };
    match plain {
        Attribute::Float(value) => with(attribute_type::FLOAT, AttributeProto { f: Some(value), ..none }),
        Attribute::Int(value) => with(attribute_type::INT, AttributeProto { i: Some(value), ..none }),
        Attribute::String(value) => with(attribute_type::STRING, AttributeProto { s: Some(value), ..none }),
        Attribute::Tensor(value) => {
            with(attribute_type::TENSOR, AttributeProto { t: Some(Box::new(tensor::encode("", &value))), ..none })
        }
        Attribute::SparseTensor(value) => {
            let sparse_tensor = Some(Box::new(tensor::encode_sparse("", &value)));
            with(attribute_type::SPARSE_TENSOR, AttributeProto { sparse_tensor, ..none })
        }
        Attribute::Type(value) => {
            with(attribute_type::TYPE_PROTO, AttributeProto { tp: Some(Box::new(types::encode_type(&value))), ..none })
        }
        Attribute::Floats(floats) => with(attribute_type::FLOATS, AttributeProto { floats, ..none }),
        Attribute::Ints(ints) => with(attribute_type::INTS, AttributeProto { ints, ..none }),
        Attribute::Strings(strings) => with(attribute_type::STRINGS, AttributeProto { strings, ..none }),
        Attribute::Tensors(values) => {
            let tensors = values.iter().map(|value| tensor::encode("", value)).collect();
            with(attribute_type::TENSORS, AttributeProto { tensors, ..none })
        }
        Attribute::SparseTensors(values) => {
            let sparse_tensors = values.iter().map(|value| tensor::encode_sparse("", value)).collect();
            with(attribute_type::SPARSE_TENSORS, AttributeProto { sparse_tensors, ..none })
        }
        Attribute::Types(values) => {
            let type_protos = values.iter().map(types::encode_type).collect();
            with(attribute_type::TYPE_PROTOS, AttributeProto { type_protos, ..none })
        }
        Attribute::Graph(_) | Attribute::Graphs(_) => unreachable!("lowering gives graphs as raw ones"),
    }
}

/// Takes the weights out of the message: the file beside the model where they belong, and what it is to hold. None where
/// none is large enough.
fn move_out(proto: &mut ModelProto, path: &Path) -> Result<Option<(PathBuf, Vec<Bytes>)>, OnnxError> {
    let mut name = path.file_name().unwrap_or(OsStr::new("model.onnx")).to_os_string();
    name.push(".data");
    let data = path.with_file_name(&name);
    let Some(location) = name.to_str() else {
        return Err(OnnxError::Model("a model with external data needs a file name in UTF-8".to_string()));
    };
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut end = 0u64;
    if let Some(graph) = &mut proto.graph {
        move_out_of(graph, location, &mut end, &mut chunks);
    }
    Ok((!chunks.is_empty()).then_some((data, chunks)))
}

fn move_out_of(graph: &mut GraphProto, location: &str, end: &mut u64, chunks: &mut Vec<Bytes>) {
    for tensor in &mut graph.initializer {
        move_out_tensor(tensor, location, end, chunks);
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        for body in attribute.g.as_deref_mut().into_iter().chain(&mut attribute.graphs) {
            move_out_of(body, location, end, chunks);
        }
    }
}

fn move_out_tensor(tensor: &mut TensorProto, location: &str, end: &mut u64, chunks: &mut Vec<Bytes>) {
    const PADDING: [u8; 4096] = [0; 4096];
    let Some(raw) = tensor.raw_data.take_if(|raw| raw.len() >= LEAST_EXTERNAL_BYTES) else {
        return;
    };
    let offset = end.next_multiple_of(PAGE_BYTES);
    let n_padding = usize::try_from(offset - *end).expect("less than a page");
    let length = u64::try_from(raw.len()).expect("a length in memory fits 64 bits");
    chunks.push(Bytes::from_static(&PADDING[..n_padding]));
    chunks.push(raw);
    *end = offset + length;
    tensor.data_location = EXTERNAL;
    tensor.external_data =
        vec![entry("location", location), entry("offset", &offset.to_string()), entry("length", &length.to_string())];
}
