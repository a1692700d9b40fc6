//! A file's bytes to a [`Model`]: messages to the parts of a graph, every node brought to its canonical form.

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;
use indexmap::IndexMap;
use prost::Message;

use super::error::{NodeProblem, OnnxError};
use super::external::External;
use super::function::{Bindings, Functions};
use super::raw::{Context, RawNode};
use super::scope::{Scope, all_names, label};
use super::upgrade::upgrade;
use super::wire::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use super::wire::{attribute_type, pairs};
use super::{foreign, tensor, types};
use crate::graph::attribute::Attribute;
use crate::graph::op::{CANONICAL_OPSET, MICROSOFT};
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, GraphParts, Model, ModelNotes, Name, NodeNotes, Op, ValueInfo};
use crate::store;

/// The oldest version of the default operator set that is read.
const OLDEST_OPSET: u32 = 1;

/// The newest version of the file format that is read.
const NEWEST_IR_VERSION: u32 = 14;

/// How many bodies and function calls may stand in one another.
const MOST_NESTED: usize = 64;

/// The network in a file. Tensors in other files are looked for beside it.
///
/// # Errors
/// Names the file, and the tensor or node that is not as the specification says.
pub fn read(path: &Path) -> Result<Model, OnnxError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    read_bytes(store::read(path)?, Some(folder)).map_err(|error| error.in_file(path))
}

/// The network in these bytes, which its tensors share. `folder` is where tensors in other files lie; without it they
/// are refused.
///
/// # Errors
/// As [`read`].
pub fn read_bytes(bytes: Bytes, folder: Option<&Path>) -> Result<Model, OnnxError> {
    let head = bytes.slice(..bytes.len().min(foreign::HEAD_BYTES));
    read_message(bytes, folder).map_err(|error| foreign::explained(&head, error))
}

fn read_message(bytes: Bytes, folder: Option<&Path>) -> Result<Model, OnnxError> {
    let file_bytes = bytes.len();
    let mut proto = ModelProto::decode(bytes)?;
    let ir_version = ir_version(&proto)?;
    let (opset, domains) = opsets(&proto.opset_import)?;
    let opset = opset.ok_or_else(|| OnnxError::Model("it imports no version of ONNX's own operators".to_string()))?;
    let graph = proto.graph.take().ok_or_else(|| OnnxError::Model("it holds no graph".to_string()))?;
    let about = ModelNotes {
        producer_name: std::mem::take(&mut proto.producer_name),
        producer_version: std::mem::take(&mut proto.producer_version),
        domain: std::mem::take(&mut proto.domain),
        model_version: proto.model_version,
        doc: std::mem::take(&mut proto.doc_string),
        metadata: pairs(std::mem::take(&mut proto.metadata_props)).into_iter().collect(),
        training_info: std::mem::take(&mut proto.training_info),
        configuration: std::mem::take(&mut proto.configuration),
    };
    let names = all_names(&graph, &proto.functions);
    let mut reader = Reader {
        context: Context::new(names.iter().cloned()),
        names,
        external: External::new(folder),
        functions: Functions::new(std::mem::take(&mut proto.functions), file_bytes)?,
        opset,
        domains,
        lists_initializers: ir_version < 4,
        n_nested: 0,
    };
    let scope = Scope::network(&graph);
    let parts = reader.graph(graph, &Site { scope: &scope, opset, domains: None, bindings: None })?;
    Ok(Model { graph: Graph::new(parts)?, opset, domains: reader.domains, ir_version, about })
}

/// The tensor in a file that holds one alone, as the inputs and outputs of ONNX's node tests do.
///
/// # Errors
/// When the bytes are no tensor.
pub fn read_tensor(bytes: Bytes) -> Result<Tensor, OnnxError> {
    tensor::decode(TensorProto::decode(bytes)?, &mut External::new(None))
}

fn ir_version(proto: &ModelProto) -> Result<u32, OnnxError> {
    let stated = proto.ir_version.ok_or_else(|| OnnxError::Model("it states no version of the format".to_string()))?;
    let known = u32::try_from(stated).ok().filter(|version| (3..=NEWEST_IR_VERSION).contains(version));
    known.ok_or_else(|| OnnxError::Model(format!("IR version {stated} is outside 3 to {NEWEST_IR_VERSION}")))
}

/// The version of the default operator set, and those of the others by domain.
pub(super) fn opsets(imports: &[OperatorSetIdProto]) -> Result<(Option<u32>, IndexMap<String, u32>), OnnxError> {
    let mut default = None;
    let mut others = IndexMap::new();
    for import in imports {
        let domain = domain(&import.domain);
        let most = if domain.is_empty() { CANONICAL_OPSET } else { u32::MAX };
        let least = if domain.is_empty() { OLDEST_OPSET } else { 0 };
        let version = u32::try_from(import.version).ok().filter(|version| (least..=most).contains(version));
        let shown = if domain.is_empty() { "ai.onnx" } else { domain };
        let version =
            version.ok_or_else(|| OnnxError::Opset { domain: shown.to_string(), got: import.version, least, most })?;
        let earlier = match domain {
            "" => default.replace(version),
            _ => others.insert(domain.to_string(), version),
        };
        if let Some(earlier) = earlier.filter(|&earlier| earlier != version) {
            let problem = format!("it imports versions {earlier} and {version} of domain `{shown}`");
            return Err(OnnxError::Model(problem));
        }
    }
    Ok((default, others))
}

/// The domain of ONNX's own operators has two names.
pub(super) fn domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Where nodes stand: which values their names mean, and which versions of the operators.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) opset: u32,
    /// The other operator sets that a function imports; none in the network itself.
    pub(super) domains: Option<&'a IndexMap<String, u32>>,
    /// The attributes that a function has been called with; none in the network itself.
    pub(super) bindings: Option<&'a Bindings>,
}

/// A network being read.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) context: Context,
    pub(super) names: HashSet<Name>,
    pub(super) functions: Functions,
    external: External,
    opset: u32,
    domains: IndexMap<String, u32>,
    /// Before IR version 4 every initializer was listed among the inputs, and none could be overridden.
    lists_initializers: bool,
    n_nested: usize,
}

impl Reader {
    fn graph(&mut self, proto: GraphProto, site: &Site<'_>) -> Result<GraphParts, OnnxError> {
        self.context.enter();
        let mut parts = GraphParts {
            name: proto.name,
            doc: proto.doc_string,
            metadata: pairs(proto.metadata_props),
            quantization_annotations: proto.quantization_annotation,
            ..GraphParts::default()
        };
        for tensor in proto.initializer {
            let name = self.defined(&tensor.name, site)?;
            let tensor = tensor::decode(tensor, &mut self.external)?;
            if parts.initializers.insert(name.clone(), tensor).is_some() {
                return Err(OnnxError::Model(format!("two initializers are called `{name}`")));
            }
        }
        for sparse in proto.sparse_initializer {
            let (name, sparse) = tensor::decode_sparse(sparse, &mut self.external)?;
            let name = self.defined(&name, site)?;
            if parts.sparse_initializers.insert(name.clone(), sparse).is_some() {
                return Err(OnnxError::Model(format!("two initializers are called `{name}`")));
            }
        }
        for input in self.values(proto.input, site)? {
            if !parts.initializers.contains_key(&input.name) && !parts.sparse_initializers.contains_key(&input.name) {
                parts.inputs.push(input);
            } else if !self.lists_initializers && parts.initializers.contains_key(&input.name) {
                parts.overridable.insert(input.name);
            }
        }
        parts.outputs = self.values(proto.output, site)?;
        let stated = self.values(proto.value_info, site)?;
        parts.value_info = stated.into_iter().map(|info| (info.name.clone(), info)).collect();
        self.declare(&parts);
        self.nodes(proto.node, site, &mut parts)?;
        parts.initializers.extend(self.context.leave());
        Ok(parts)
    }

    fn declare(&mut self, parts: &GraphParts) {
        for info in parts.inputs.iter().chain(&parts.outputs).chain(parts.value_info.values()) {
            self.context.declare(info);
        }
        for (name, tensor) in &parts.initializers {
            if parts.overridable.contains(name) {
                let tensor_type = crate::graph::TensorType::of(tensor);
                self.context.declare(&ValueInfo::new(name, tensor_type));
            } else {
                self.context.declare_constant(name, tensor);
            }
        }
    }

    /// The name in the graph of a value that must have one.
    fn defined(&self, name: &str, site: &Site<'_>) -> Result<Name, OnnxError> {
        match site.scope.resolve(name, &self.names) {
            Ok(Some(name)) => Ok(name),
            Ok(None) => Err(OnnxError::Model("an input, output or initializer has no name".to_string())),
            Err(problem) => Err(OnnxError::Value { value: name.to_string(), problem }),
        }
    }

    fn values(&self, protos: Vec<ValueInfoProto>, site: &Site<'_>) -> Result<Vec<ValueInfo>, OnnxError> {
        let value = |proto: ValueInfoProto| {
            let name = self.defined(&proto.name, site)?;
            types::decode_value(proto, name)
        };
        protos.into_iter().map(value).collect()
    }

    /// Reads nodes into a graph, those of the functions that they call instead of the calls.
    pub(super) fn nodes(
        &mut self,
        nodes: Vec<NodeProto>,
        site: &Site<'_>,
        parts: &mut GraphParts,
    ) -> Result<(), OnnxError> {
        for mut node in nodes {
            let label = label(&node);
            let attributes = self.attributes(std::mem::take(&mut node.attribute), site, &label)?;
            let refused = |problem: String| OnnxError::definition(&label, problem);
            let resolve = |names: &[String]| -> Result<Vec<Option<Name>>, OnnxError> {
                names.iter().map(|name| site.scope.resolve(name, &self.names).map_err(refused)).collect()
            };
            let raw = RawNode {
                inputs: resolve(&node.input)?,
                outputs: resolve(&node.output)?,
                domain: domain(&node.domain).to_string(),
                op_type: node.op_type,
                attributes,
                notes: NodeNotes {
                    doc: node.doc_string,
                    metadata: pairs(node.metadata_props),
                    device_configurations: node.device_configurations,
                },
                name: node.name,
            };
            if let Some(function) = self.functions.get(&raw, &node.overload) {
                self.inline(raw, &label, &function, site, parts)?;
            } else if node.overload.is_empty() {
                self.node(raw, &label, site, parts)?;
            } else {
                return Err(refused(format!("calls overload `{}`, which the file does not define", node.overload)));
            }
        }
        Ok(())
    }

    fn node(&mut self, raw: RawNode, label: &str, site: &Site<'_>, parts: &mut GraphParts) -> Result<(), OnnxError> {
        let domain = raw.domain.clone();
        for node in upgrade(raw, site.opset, &mut self.context)? {
            if let Op::Opaque(_) = &node.op {
                self.check_version(&domain, label, site)?;
            }
            if let (Op::Constant(constant), Some(output)) = (&node.op, node.output(0)) {
                self.context.declare_constant(output, &constant.value);
            }
            parts.nodes.push(node);
        }
        Ok(())
    }

    /// What we do not know we cannot convert: it must be of the version that the file imports.
    fn check_version(&mut self, domain: &str, label: &str, site: &Site<'_>) -> Result<(), OnnxError> {
        let (here, whole) = if domain.is_empty() {
            (site.opset, self.opset)
        } else {
            let here = site.domains.and_then(|domains| domains.get(domain)).copied();
            let whole = *self.domains.entry(domain.to_string()).or_insert(here.unwrap_or(1));
            (here.unwrap_or(whole), whole)
        };
        if here == whole || domain == MICROSOFT {
            return Ok(());
        }
        Err(OnnxError::definition(
            label,
            format!("is of version {here} of its operator set, the file is of {whole}, and we cannot convert it"),
        ))
    }

    /// The attributes of a node, those that refer to an attribute of a function's call replaced by it.
    pub(super) fn attributes(
        &mut self,
        protos: Vec<AttributeProto>,
        site: &Site<'_>,
        label: &str,
    ) -> Result<Vec<(String, Attribute)>, OnnxError> {
        let mut attributes: Vec<(String, Attribute)> = Vec::with_capacity(protos.len());
        let mut seen = HashSet::with_capacity(protos.len());
        for mut proto in protos {
            let name = std::mem::take(&mut proto.name);
            let malformed = |problem: &str| {
                let problem = problem.to_string();
                OnnxError::node(label, NodeProblem::Malformed { attribute: name.clone(), problem })
            };
            if !seen.insert(name.clone()) {
                return Err(malformed("is given twice"));
            }
            if proto.ref_attr_name.is_empty() {
                let attribute = self.attribute(proto, site).map_err(|problem| match problem {
                    AttributeFault::Malformed(problem) => malformed(&problem),
                    AttributeFault::Inside(source) => {
                        let source = Box::new(source);
                        OnnxError::node(label, NodeProblem::Inside { attribute: name.clone(), source })
                    }
                })?;
                attributes.push((name, attribute));
            } else {
                let bindings =
                    site.bindings.ok_or_else(|| malformed("refers to a function's, outside any function"))?;
                if let Some(bound) = bindings.get(&proto.ref_attr_name) {
                    self.functions.substitute(bound)?;
                    attributes.push((name, bound.clone()));
                }
            }
        }
        Ok(attributes)
    }

    fn attribute(&mut self, proto: AttributeProto, site: &Site<'_>) -> Result<Attribute, AttributeFault> {
        let malformed = |problem: &str| AttributeFault::Malformed(problem.to_string());
        let missing = malformed("has no value");
        let typed = |proto| {
            let value_type = types::decode_type(proto).map_err(AttributeFault::Malformed)?;
            value_type.ok_or_else(|| malformed("is a type that says nothing"))
        };
        Ok(match proto.r#type {
            attribute_type::FLOAT => Attribute::Float(proto.f.unwrap_or_default()),
            attribute_type::INT => Attribute::Int(proto.i.unwrap_or_default()),
            attribute_type::STRING => Attribute::String(proto.s.unwrap_or_default()),
            attribute_type::FLOATS => Attribute::Floats(proto.floats),
            attribute_type::INTS => Attribute::Ints(proto.ints),
            attribute_type::STRINGS => Attribute::Strings(proto.strings),
            attribute_type::TENSOR => Attribute::Tensor(tensor::decode(*proto.t.ok_or(missing)?, &mut self.external)?),
            attribute_type::TENSORS => {
                let tensors = proto.tensors.into_iter().map(|tensor| tensor::decode(tensor, &mut self.external));
                Attribute::Tensors(tensors.collect::<Result<_, _>>()?)
            }
            attribute_type::SPARSE_TENSOR => {
                let sparse = *proto.sparse_tensor.ok_or(missing)?;
                Attribute::SparseTensor(tensor::decode_sparse(sparse, &mut self.external)?.1)
            }
            attribute_type::SPARSE_TENSORS => {
                let decode = |sparse| tensor::decode_sparse(sparse, &mut self.external).map(|(_, sparse)| sparse);
                Attribute::SparseTensors(proto.sparse_tensors.into_iter().map(decode).collect::<Result<_, _>>()?)
            }
            attribute_type::GRAPH => Attribute::Graph(self.body(*proto.g.ok_or(missing)?, site)?),
            attribute_type::GRAPHS => {
                let bodies = proto.graphs.into_iter().map(|graph| self.body(graph, site));
                Attribute::Graphs(bodies.collect::<Result<_, _>>()?)
            }
            attribute_type::TYPE_PROTO => Attribute::Type(typed(*proto.tp.ok_or(missing)?)?),
            attribute_type::TYPE_PROTOS => {
                Attribute::Types(proto.type_protos.into_iter().map(typed).collect::<Result<_, _>>()?)
            }
            attribute_type::UNDEFINED => return Err(malformed("has no type")),
            _ => return Err(malformed("is of an unknown type")),
        })
    }

    fn body(&mut self, proto: GraphProto, site: &Site<'_>) -> Result<Graph, OnnxError> {
        self.nested(|reader| {
            let scope = site.scope.body(&proto, &mut reader.context)?;
            let parts = reader.graph(proto, &Site { scope: &scope, ..*site })?;
            Ok(Graph::body(parts)?)
        })
    }

    /// Goes one level into bodies or functions, where that is not too deep already.
    pub(super) fn nested<T>(
        &mut self,
        inside: impl FnOnce(&mut Reader) -> Result<T, OnnxError>,
    ) -> Result<T, OnnxError> {
        if self.n_nested == MOST_NESTED {
            return Err(OnnxError::Model(format!("more than {MOST_NESTED} bodies and function calls in one another")));
        }
        self.n_nested += 1;
        let result = inside(self);
        self.n_nested -= 1;
        result
    }
}

enum AttributeFault {
    Malformed(String),
    Inside(OnnxError),
}

impl From<OnnxError> for AttributeFault {
    fn from(source: OnnxError) -> AttributeFault {
        AttributeFault::Inside(source)
    }
}
