//! Model-local functions: a call is replaced by the function's nodes when a file is read.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use prost::Message;

use super::error::{NodeProblem, OnnxError};
use super::raw::RawNode;
use super::read::{Reader, Site, domain, opsets};
use super::scope::Scope;
use super::types;
use super::wire::{AttributeProto, FunctionProto, NodeProto, TensorProto};
use crate::graph::attribute::{Attribute, SparseTensor};
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, GraphParts, Name, Node, Op};

/// The attributes that a function is called with, defaults included.
pub(super) type Bindings = HashMap<String, Attribute>;

/// How many nodes all the calls of a file may put in their place, the larger the file the more: calls of calls multiply.
const NODES: Range<usize> = 1 << 16..1 << 18;

/// How many bytes of memory these may take, tensors aside, which share the file's.
const BYTES: Range<usize> = 1 << 25..1 << 28;

/// What a value, tensor or attribute takes beside its content.
const PART_BYTES: usize = 64;

/// The functions of a file, by domain, name and overload.
#[derive(Debug, Default)]
pub(super) struct Functions {
    by_key: HashMap<Key, Rc<Function>>,
    /// The functions that are being inlined, outermost first.
    open: Vec<Rc<Function>>,
    n_nodes: usize,
    n_bytes: usize,
    most_nodes: usize,
    most_bytes: usize,
}

#[derive(Debug)]
pub(super) struct Function {
    proto: FunctionProto,
    n_nodes: usize,
    n_bytes: usize,
}

type Key = (String, String, String);

impl Functions {
    /// The functions of a file of this many bytes.
    ///
    /// # Errors
    /// When two are called the same.
    pub(super) fn new(protos: Vec<FunctionProto>, file_bytes: usize) -> Result<Functions, OnnxError> {
        let mut functions = Functions {
            most_nodes: (file_bytes / 8).clamp(NODES.start, NODES.end),
            most_bytes: file_bytes.saturating_mul(32).clamp(BYTES.start, BYTES.end),
            ..Functions::default()
        };
        for proto in protos {
            let key = (domain(&proto.domain).to_string(), proto.name.clone(), proto.overload.clone());
            let function = Function { n_nodes: n_nodes(&proto.node), n_bytes: function_bytes(&proto), proto };
            if let Some(earlier) = functions.by_key.insert(key, Rc::new(function)) {
                return Err(OnnxError::Model(format!("two functions are called {}", full_name(&earlier.proto))));
            }
        }
        Ok(functions)
    }

    /// The function that a node calls; none where it is an operator.
    pub(super) fn get(&self, node: &RawNode, overload: &str) -> Option<Rc<Function>> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&(node.domain.clone(), node.op_type.clone(), overload.to_string())).cloned()
    }

    /// Counts an attribute of a call that stands in for one of a function's.
    ///
    /// # Errors
    /// When the file unfolds to more than one may.
    pub(super) fn substitute(&mut self, bound: &Attribute) -> Result<(), OnnxError> {
        self.unfold(attribute_nodes(bound), attribute_bytes(bound))
    }

    fn unfold(&mut self, n_nodes: usize, n_bytes: usize) -> Result<(), OnnxError> {
        self.n_nodes = self.n_nodes.saturating_add(n_nodes);
        self.n_bytes = self.n_bytes.saturating_add(n_bytes);
        if self.n_nodes > self.most_nodes || self.n_bytes > self.most_bytes {
            let (nodes, bytes) = (self.most_nodes, self.most_bytes);
            let problem = format!("its functions unfold to more than {nodes} nodes or {bytes} bytes");
            return Err(OnnxError::Model(problem));
        }
        Ok(())
    }
}

fn attribute_nodes(attribute: &Attribute) -> usize {
    attribute.graphs().into_iter().map(graph_nodes).fold(0, usize::saturating_add)
}

fn graph_nodes(graph: &Graph) -> usize {
    let inner = graph.nodes.iter().flat_map(|node| node.op.bodies()).map(graph_nodes);
    inner.fold(graph.nodes.len(), usize::saturating_add)
}

/// About the memory that a copy takes: its numbers, texts and tensors, and a little for every part.
fn attribute_bytes(attribute: &Attribute) -> usize {
    let sum = |parts: &mut dyn Iterator<Item = usize>| parts.fold(0, usize::saturating_add);
    let tensor = |tensor: &Tensor| PART_BYTES.saturating_add(tensor.n_bytes());
    let sparse = |sparse: &SparseTensor| tensor(&sparse.values).saturating_add(tensor(&sparse.indices));
    let n_bytes = match attribute {
        Attribute::Float(_) | Attribute::Int(_) | Attribute::Type(_) => 0,
        Attribute::String(text) => text.len(),
        Attribute::Tensor(value) => tensor(value),
        Attribute::Graph(graph) => graph_bytes(graph),
        Attribute::SparseTensor(value) => sparse(value),
        Attribute::Floats(values) => values.len().saturating_mul(size_of::<f32>()),
        Attribute::Ints(values) => values.len().saturating_mul(size_of::<i64>()),
        Attribute::Strings(texts) => sum(&mut texts.iter().map(|text| PART_BYTES.saturating_add(text.len()))),
        Attribute::Tensors(values) => sum(&mut values.iter().map(tensor)),
        Attribute::Graphs(graphs) => sum(&mut graphs.iter().map(graph_bytes)),
        Attribute::SparseTensors(values) => sum(&mut values.iter().map(sparse)),
        Attribute::Types(types) => types.len().saturating_mul(PART_BYTES),
    };
    n_bytes.saturating_add(PART_BYTES)
}

fn graph_bytes(graph: &Graph) -> usize {
    let n_parts = graph.inputs.len() + graph.outputs.len() + graph.value_info.len() + graph.sparse_initializers.len();
    let weights = graph.initializers.values().map(|tensor| PART_BYTES.saturating_add(tensor.n_bytes()));
    let nodes = graph.nodes.iter().map(|node| {
        let n_values = node.inputs.len() + node.outputs.len() + node.notes.metadata.len();
        let attributes = node.op.attributes();
        let attributes = attributes.iter().map(|(_, attribute)| attribute_bytes(attribute));
        attributes.fold(n_values.saturating_mul(PART_BYTES), usize::saturating_add)
    });
    weights.chain(nodes).fold(n_parts.saturating_mul(PART_BYTES), usize::saturating_add)
}

fn n_nodes(nodes: &[NodeProto]) -> usize {
    let bodies = nodes.iter().flat_map(|node| &node.attribute).flat_map(AttributeProto::bodies);
    nodes.len() + bodies.map(|body| n_nodes(&body.node)).sum::<usize>()
}

/// About the memory that a copy takes. The file's own raw data is shared.
fn function_bytes(function: &FunctionProto) -> usize {
    let n_parts = function.input.len() + function.output.len() + function.value_info.len() + function.attribute.len();
    let (n_inner, n_shared) = parts_and_raw_bytes(&function.node);
    let own_bytes = function.encoded_len().saturating_sub(n_shared);
    n_parts.saturating_add(n_inner).saturating_mul(PART_BYTES).saturating_add(own_bytes)
}

fn parts_and_raw_bytes(nodes: &[NodeProto]) -> (usize, usize) {
    let raw = |tensor: &TensorProto| tensor.raw_data.as_ref().map_or(0, Bytes::len);
    let mut sum = (0usize, 0usize);
    let mut add = |n_parts: usize, n_raw: usize| sum = (sum.0.saturating_add(n_parts), sum.1.saturating_add(n_raw));
    for node in nodes {
        add(node.input.len() + node.output.len(), 0);
        for attribute in &node.attribute {
            let tensors = attribute.t.iter().map(|tensor| &**tensor).chain(&attribute.tensors);
            add(1 + attribute.strings.len(), tensors.map(raw).fold(0, usize::saturating_add));
            for body in attribute.bodies() {
                let (n_parts, n_raw) = parts_and_raw_bytes(&body.node);
                add(n_parts, n_raw);
                add(body.initializer.len(), body.initializer.iter().map(raw).fold(0, usize::saturating_add));
                add(body.input.len() + body.output.len() + body.value_info.len(), 0);
            }
        }
    }
    sum
}

fn full_name(function: &FunctionProto) -> String {
    let overload = Some(&function.overload).filter(|overload| !overload.is_empty());
    let overload = overload.map(|overload| format!(":{overload}")).unwrap_or_default();
    format!("`{}.{}{overload}`", function.domain, function.name)
}

impl Reader {
    /// Puts the function's nodes in the place of a call. Their inner values get names of their own, after the call's.
    ///
    /// # Errors
    /// When the function calls itself, the call does not fit its definition, or one of its nodes is at fault.
    pub(super) fn inline(
        &mut self,
        call: RawNode,
        label: &str,
        function: &Rc<Function>,
        site: &Site<'_>,
        parts: &mut GraphParts,
    ) -> Result<(), OnnxError> {
        let Function { proto, n_nodes, n_bytes } = function.as_ref();
        if self.functions.open.iter().any(|open| Rc::ptr_eq(open, function)) {
            return Err(OnnxError::definition(label, format!("function {} calls itself", full_name(proto))));
        }
        self.functions.unfold(*n_nodes, *n_bytes)?;
        self.functions.open.push(Rc::clone(function));
        let result = self.nested(|reader| reader.inline_here(call, proto, site, parts));
        self.functions.open.pop();
        result.map_err(|source| {
            let function = full_name(proto);
            OnnxError::node(label, NodeProblem::Function { function, source: Box::new(source) })
        })
    }

    fn inline_here(
        &mut self,
        call: RawNode,
        function: &FunctionProto,
        site: &Site<'_>,
        parts: &mut GraphParts,
    ) -> Result<(), OnnxError> {
        let (opset, domains) = opsets(&function.opset_import)?;
        let values = self.function_values(&call, function)?;
        let scope = Scope::function(values.named);
        let mut inner =
            Site { scope: &scope, opset: opset.unwrap_or(site.opset), domains: Some(&domains), bindings: None };
        let mut bindings: Bindings =
            self.attributes(function.attribute_proto.clone(), &inner, "its own")?.into_iter().collect();
        bindings.extend(call.attributes);
        inner.bindings = Some(&bindings);
        for proto in &function.value_info {
            if let Some(name) = values.inner.get(&proto.name) {
                let info = types::decode_value(proto.clone(), name.clone())?;
                self.context.declare(&info);
                parts.value_info.insert(name.clone(), info);
            }
        }
        self.nodes(function.node.clone(), &inner, parts)?;
        for (formal, actual) in values.copies {
            let source = scope.resolve(&formal, &self.names).map_err(OnnxError::Model)?;
            parts.nodes.push(Node::new(Op::Identity, vec![source], vec![Some(actual)]));
        }
        Ok(())
    }

    fn function_values(&mut self, call: &RawNode, function: &FunctionProto) -> Result<Values, OnnxError> {
        let too_many = |kind: &str, formal: usize, actual: usize| {
            let problem = format!("it takes at most {formal} {kind}s, the call has {actual}");
            (actual > formal).then_some(OnnxError::Model(problem)).map_or(Ok(()), Err)
        };
        too_many("input", function.input.len(), call.inputs.len())?;
        too_many("output", function.output.len(), call.outputs.len())?;
        let mut values = Values::default();
        for (position, formal) in function.input.iter().enumerate() {
            values.named.insert(formal.clone(), call.inputs.get(position).cloned().flatten());
        }
        for (formal, actual) in function.output.iter().zip(&call.outputs) {
            let Some(actual) = actual else { continue };
            if values.named.contains_key(formal) {
                values.copies.push((formal.clone(), actual.clone()));
            } else {
                values.named.insert(formal.clone(), Some(actual.clone()));
            }
        }
        let inputs: HashSet<&String> = function.input.iter().collect();
        let own = Some(&call.name).filter(|name| !name.is_empty()).cloned();
        let first_output = || call.outputs.iter().flatten().next().map(Name::to_string);
        let prefix = own.or_else(first_output).unwrap_or_else(|| call.op_type.clone());
        for output in function.node.iter().flat_map(|node| &node.output).filter(|output| !output.is_empty()) {
            if inputs.contains(output) {
                return Err(OnnxError::Model(format!("it computes its own input `{output}`")));
            }
            if !values.named.contains_key(output) {
                let name = self.context.fresh(&format!("{prefix}/{output}"));
                values.named.insert(output.clone(), Some(name.clone()));
                values.inner.insert(output.clone(), name);
            }
        }
        Ok(values)
    }
}

/// What the names in a function stand for at one call.
#[derive(Debug, Default)]
struct Values {
    named: HashMap<String, Option<Name>>,
    /// Those that are neither inputs nor outputs of the function.
    inner: HashMap<String, Name>,
    /// Outputs that are an input or another output as well: name in the function, value of the call.
    copies: Vec<(String, Name)>,
}
