//! Inputs and outputs as integers, for who has no floats to give or take: the quantization behind an input and the
//! dequantization before an output go away, and their scale and zero point are the caller's to know.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use serde::Serialize;

use super::QuantizeError;
use crate::graph::op::Op;
use crate::graph::patch::Patch;
use crate::graph::shape::{self, Bindings, Types};
use crate::graph::tensor::DType;
use crate::graph::uses::Uses;
use crate::graph::{Graph, GraphParts, Name, Node, TensorType, ValueInfo, ValueType};

/// An input or output of integers, which stand for `scale · (x − zero_point)`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IntegerPort {
    /// Its name, as it was.
    pub name: Name,
    /// Whether it is an output.
    pub is_output: bool,
    /// Its type.
    #[serde(serialize_with = "by_name")]
    pub dtype: DType,
    /// What a step is worth.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
}

fn by_name<S: serde::Serializer>(dtype: &DType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dtype.name())
}

impl IntegerPort {
    /// What a file says of it, in its `metadata_props`.
    pub fn metadata(&self) -> (String, String) {
        let IntegerPort { name, is_output, dtype, scale, zero_point } = self;
        let side = if *is_output { "output" } else { "input" };
        (format!("aludel.{side}.{name}"), format!("{dtype} scale={scale:e} zero_point={zero_point}"))
    }
}

/// A network of integer inputs and outputs.
#[derive(Clone, Debug)]
pub struct IntegerPorts {
    /// The result.
    pub graph: Graph,
    /// What its ports stand for, inputs first; those that were no floats before are not among them.
    pub ports: Vec<IntegerPort>,
}

/// The same network, in Q/DQ or QOperator form, with integers in and out.
///
/// # Errors
/// Names a port of floats that is not quantized at once, or is not made from integers.
pub fn integer_ports(graph: &Graph) -> Result<IntegerPorts, QuantizeError> {
    let (uses, types) = (Uses::of(graph), shape::infer(graph, &Bindings::default())?);
    let view = View { graph, uses: &uses };
    let is_float = |info: &&ValueInfo| types.tensor(&info.name).is_some_and(|known| known.dtype.is_float());
    let (mut parts, mut ports) = (graph.to_parts(), Vec::new());
    let (mut edits, mut patch) = (Edits::default(), Patch::new(graph));
    for input in graph.inputs.iter().filter(is_float) {
        let refused = |reason| QuantizeError::Port { name: input.name.clone(), reason };
        let quantization = view.quantization(&input.name).map_err(refused)?;
        ports.push(view.port(&input.name, false, quantization.node).map_err(refused)?);
        edits.gone.insert(quantization.node_idx);
        edits.renamed.push((quantization.integers.clone(), input.name.clone()));
    }
    let mut given: HashSet<&Name> = HashSet::new();
    for output in graph.outputs.iter().filter(is_float) {
        let refused = |reason| QuantizeError::Port { name: output.name.clone(), reason };
        let dequantization = view.dequantization(&output.name).map_err(refused)?;
        let is_second = !given.insert(dequantization.integers);
        if is_second || edits.renamed.iter().any(|(integers, _)| integers == dequantization.integers) {
            return Err(refused("its integers are those of another input or output".to_string()));
        }
        ports.push(view.port(&output.name, true, dequantization.node).map_err(refused)?);
        if uses.readers(&output.name).is_empty() {
            edits.gone.insert(dequantization.node_idx);
        } else {
            edits.renamed.push((output.name.clone(), patch.fresh(&format!("{}_dequantized", output.name))));
        }
        edits.renamed.push((dequantization.integers.clone(), output.name.clone()));
    }
    edits.apply(&mut parts, &ports, &types);
    Ok(IntegerPorts { graph: Graph::new(parts)?, ports })
}

/// A node between floats and integers, and the integers.
struct Between<'a> {
    node_idx: usize,
    node: &'a Node,
    integers: &'a Name,
}

struct View<'a> {
    graph: &'a Graph,
    uses: &'a Uses<'a>,
}

impl<'a> View<'a> {
    /// What alone reads an input.
    fn quantization(&self, input: &Name) -> Result<Between<'a>, String> {
        const REMEDY: &str = "see with --explain why its readers stay in floats, or leave `ports` out";
        if self.uses.is_output(input) {
            return Err("it is an output, too".to_string());
        }
        let readers = self.uses.readers(input);
        if readers.is_empty() {
            return Err("nothing reads it".to_string());
        }
        for reader in readers {
            let node = &self.graph.nodes[reader.node_idx];
            if !matches!(node.op, Op::QuantizeLinear(_)) || reader.position != Some(0) {
                return Err(format!("{} reads it in floats ({REMEDY})", node.label()));
            }
        }
        let [reader] = readers else { return Err(format!("{} quantizations read it", readers.len())) };
        let node = &self.graph.nodes[reader.node_idx];
        let integers = node.output(0).ok_or("its quantization gives nothing")?;
        match self.uses.is_output(integers) {
            true => Err("its integers are an output".to_string()),
            false => Ok(Between { node_idx: reader.node_idx, node, integers }),
        }
    }

    /// What makes an output.
    fn dequantization(&self, output: &Name) -> Result<Between<'a>, String> {
        let node_idx = self.uses.producer_idx(output).ok_or("no node makes it")?;
        let node = &self.graph.nodes[node_idx];
        if !matches!(node.op, Op::DequantizeLinear(_)) {
            let remedy = "name its operator in `operators` if it has an integer form, or cut the network before it";
            return Err(format!("{} makes it in floats ({remedy})", node.label()));
        }
        let integers = node.input(0).ok_or("its dequantization reads nothing")?;
        if self.uses.producer_idx(integers).is_none() {
            return Err("no node makes its integers".to_string());
        }
        let mut readers = [output, integers].into_iter().flat_map(|name| self.uses.readers(name));
        match readers.any(|reader| reader.position.is_none()) || self.uses.is_output(integers) {
            true => Err("its integers are an output, or a body reads it".to_string()),
            false => Ok(Between { node_idx, node, integers }),
        }
    }

    /// What the integers beside this node stand for.
    fn port(&self, name: &Name, is_output: bool, node: &Node) -> Result<IntegerPort, String> {
        let constant = |position: usize| self.graph.constant(node.input(position)?);
        let scale = constant(1).filter(|scale| scale.len() == 1).and_then(|scale| scale.to_vec::<f32>().ok());
        let scale = scale.and_then(|scale| scale.first().copied()).ok_or("its scale is no one constant")?;
        let zero = constant(2).filter(|zero| zero.len() == 1).ok_or("its zero point is no one constant")?;
        let zero_point = match (zero.dtype(), zero.bytes().map(AsRef::as_ref)) {
            (DType::U8, Some(&[low])) => i32::from(low),
            (DType::I8, Some(&[low])) => i32::from(i8::from_le_bytes([low])),
            (DType::U16, Some(&[low, high])) => i32::from(u16::from_le_bytes([low, high])),
            (DType::I16, Some(&[low, high])) => i32::from(i16::from_le_bytes([low, high])),
            (dtype, _) => return Err(format!("its integers are {dtype}")),
        };
        Ok(IntegerPort { name: name.clone(), is_output, dtype: zero.dtype(), scale, zero_point })
    }
}

#[derive(Default)]
struct Edits {
    gone: HashSet<usize>,
    /// Integers and the port that they become; a port's floats that are still read, and their new name.
    renamed: Vec<(Name, Name)>,
}

impl Edits {
    fn apply(&self, parts: &mut GraphParts, ports: &[IntegerPort], types: &Types) {
        let renamed = |name: &mut Name| {
            if let Some((_, new)) = self.renamed.iter().find(|(old, _)| old == name) {
                name.clone_from(new);
            }
        };
        let nodes = std::mem::take(&mut parts.nodes).into_iter().enumerate();
        parts.nodes = nodes.filter(|(node_idx, _)| !self.gone.contains(node_idx)).map(|(_, node)| node).collect();
        for node in &mut parts.nodes {
            node.inputs.iter_mut().chain(&mut node.outputs).flatten().for_each(renamed);
        }
        let read: HashSet<Name> =
            parts.nodes.iter().flat_map(|node| node.reads().cloned().collect::<Vec<_>>()).collect();
        let kept = |name: &Name| read.contains(name) || parts.outputs.iter().any(|output| output.name == *name);
        let idle: Vec<Name> = parts.initializers.keys().filter(|name| !kept(name)).cloned().collect();
        for name in idle.iter().filter(|name| !parts.overridable.contains(*name)) {
            parts.initializers.shift_remove(name);
        }
        for (old, new) in &self.renamed {
            parts.value_info.shift_remove(old);
            parts.value_info.shift_remove(new);
        }
        for info in parts.inputs.iter_mut().chain(&mut parts.outputs) {
            let port = ports.iter().find(|port| port.name == info.name);
            if let (Some(port), Some(known)) = (port, types.tensor(&info.name)) {
                info.value_type = Some(ValueType::from(TensorType { dtype: port.dtype, ..known.clone() }));
            }
        }
    }
}
