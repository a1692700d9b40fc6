//! Bringing a node from the form of its file's opset to the canonical one.
//!
//! Every change between two versions of an operator of the table stands here, as a rule of [`RULES`]; changes that only
//! admit more element types need none. A rule preserves values exactly; what has no canonical form stays opaque. A
//! file may state an opset newer than [`CANONICAL_OPSET`](crate::graph::op::CANONICAL_OPSET): its operators are read as
//! long as their attributes are those of the table, otherwise they are opaque, and either is written back at its opset.

mod early;
mod inputs;
mod reshaped;
#[cfg(test)]
mod tests;

use super::raw::{Context, RawNode, derived};
use crate::graph::attribute::{Attribute, AttributeError, AttributeValue, Unread};
use crate::graph::op::{MICROSOFT, Opaque};
use crate::graph::tensor::Tensor;
use crate::graph::{Node, Op};

/// Why a node of a file cannot be brought to the canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// An attribute is missing, has the wrong type, or a value outside the operator's definition.
    #[error("{node}: {source}")]
    Attribute {
        /// operator, and name or first output
        node: String,
        /// what is wrong with it
        source: AttributeError,
    },
}

/// The canonical form of `node`, which a file of this opset holds: usually one node, several where one alone does not
/// say the same. Constants that attributes have become are added to the context.
///
/// # Errors
/// When an attribute is malformed.
pub(super) fn upgrade(node: RawNode, opset: u32, context: &mut Context) -> Result<Vec<Node>, UpgradeError> {
    let label = node.label();
    let nodes = convert(node, opset, context).map_err(|source| UpgradeError::Attribute { node: label, source })?;
    for node in nodes.iter().filter(|_| opset < NEEDS_TYPES) {
        context.learn(node);
    }
    Ok(nodes)
}

/// What a rule has made of a node.
enum Form {
    /// It is closer to the canonical form, or was in it already.
    Raw,
    /// It has no canonical form.
    Opaque,
    /// These say the same.
    Nodes(Vec<Node>),
}

type Outcome = Result<Form, AttributeError>;
type Rule = fn(&mut RawNode, u32, &mut Context) -> Outcome;

const ALWAYS: u32 = u32::MAX;

/// The first opset of which no rule asks for the types of values.
const NEEDS_TYPES: u32 = 13;

/// (operator, the first opset whose form the rule need not touch, the rule), applied in this order.
const RULES: &[(&str, u32, Rule)] = &[
    ("Add", 7, early::broadcast),
    ("And", 7, early::broadcast),
    ("BatchNormalization", 7, early::inference_only),
    ("BatchNormalization", 9, reshaped::spatial),
    ("BatchNormalization", 14, reshaped::one_output),
    ("Cast", 6, early::named_type),
    ("Clip", 11, inputs::clip),
    ("Concat", 4, early::concat_axis),
    ("Constant", ALWAYS, reshaped::constant),
    ("DequantizeLinear", ALWAYS, reshaped::undefined_types),
    ("Div", 7, early::broadcast),
    ("Dropout", 7, early::inference_only),
    ("Dropout", 12, inputs::dropout_ratio),
    ("Dropout", 10, reshaped::dropout_mask),
    ("Equal", 7, early::broadcast),
    ("Gemm", 7, early::gemm),
    ("Greater", 7, early::broadcast),
    ("GroupNormalization", 21, reshaped::group_normalization),
    ("Hardmax", 13, reshaped::flattened_axis),
    ("Less", 7, early::broadcast),
    ("LogSoftmax", 13, reshaped::flattened_axis),
    ("Mul", 7, early::broadcast),
    ("Or", 7, early::broadcast),
    ("PRelu", 7, early::prelu),
    ("Pad", 2, early::paddings),
    ("Pad", 11, inputs::pad),
    ("Pow", 7, early::broadcast),
    ("QuantizeLinear", ALWAYS, reshaped::undefined_types),
    ("ReduceL1", 18, inputs::axes),
    ("ReduceL2", 18, inputs::axes),
    ("ReduceLogSum", 18, inputs::axes),
    ("ReduceLogSumExp", 18, inputs::axes),
    ("ReduceMax", 18, inputs::axes),
    ("ReduceMean", 18, inputs::axes),
    ("ReduceMin", 18, inputs::axes),
    ("ReduceProd", 18, inputs::axes),
    ("ReduceSum", 13, inputs::axes),
    ("ReduceSumSquare", 18, inputs::axes),
    ("Reshape", 5, inputs::reshape),
    ("Resize", 11, reshaped::resize_10),
    ("Scan", 9, early::keep),
    ("Scatter", ALWAYS, reshaped::scatter),
    ("Selu", 6, early::selu),
    ("Slice", 10, inputs::slice),
    ("Softmax", 13, reshaped::flattened_axis),
    ("Split", 2, early::split),
    ("Split", 13, inputs::split),
    ("Split", 18, inputs::split_evenly),
    ("Squeeze", 13, inputs::axes),
    ("Sub", 7, early::broadcast),
    ("Tile", 6, early::keep),
    ("TopK", 10, inputs::top_k),
    ("Unsqueeze", 13, inputs::unsqueeze),
    ("Upsample", 7, early::keep),
    ("Upsample", 9, inputs::upsample),
    ("Upsample", ALWAYS, reshaped::upsample),
    ("Xor", 7, early::broadcast),
];

fn convert(mut node: RawNode, opset: u32, context: &mut Context) -> Result<Vec<Node>, AttributeError> {
    if node.domain == "ai.onnx" {
        node.domain.clear();
    }
    let original = node.clone();
    if node.domain == MICROSOFT && node.op_type == "Gelu" {
        node.domain.clear();
    } else if !node.domain.is_empty() {
        return canonical(node);
    }
    let n_added = context.n_added();
    if opset < 6 {
        node.attributes.retain(|(name, _)| name != "consumed_inputs");
    }
    let nodes = match converted(node, &original.op_type, opset, context)? {
        // A node that stays opaque, for an attribute that the operator does not have, keeps its own form.
        Some(nodes) if !nodes.iter().any(|node| matches!(node.op, Op::Opaque(_))) => nodes,
        _ => {
            context.take_back(n_added);
            vec![opaque(original)]
        }
    };
    Ok(nodes)
}

/// What the rules of an operator make of a node; none where that has no canonical form.
fn converted(
    mut node: RawNode,
    op_type: &str,
    opset: u32,
    context: &mut Context,
) -> Result<Option<Vec<Node>>, AttributeError> {
    for &(_, _, rule) in RULES.iter().filter(|&&(name, until, _)| name == op_type && opset < until) {
        match rule(&mut node, opset, context)? {
            Form::Raw => {}
            Form::Opaque => return Ok(None),
            Form::Nodes(nodes) => return Ok(Some(nodes)),
        }
    }
    canonical(node).map(Some)
}

fn canonical(node: RawNode) -> Result<Vec<Node>, AttributeError> {
    let op = Op::read(&node.domain, &node.op_type, node.attributes)?;
    Ok(vec![Node { name: node.name, op, inputs: node.inputs, outputs: node.outputs, notes: node.notes }])
}

fn opaque(node: RawNode) -> Node {
    let op = Op::Opaque(Opaque { domain: node.domain, op_type: node.op_type, attributes: node.attributes });
    Node { name: node.name, op, inputs: node.inputs, outputs: node.outputs, notes: node.notes }
}

/// The same node with this operator in place of its own.
fn with_op(node: &RawNode, op: Op) -> Node {
    Node {
        name: node.name.clone(),
        op,
        inputs: node.inputs.clone(),
        outputs: node.outputs.clone(),
        notes: node.notes.clone(),
    }
}

/// Takes an attribute out of the node.
fn take<T: AttributeValue>(node: &mut RawNode, name: &'static str) -> Result<Option<T>, AttributeError> {
    let value = Unread::new(&node.attributes).take(name)?;
    node.attributes.retain(|(key, _)| key != name);
    Ok(value)
}

fn set(node: &mut RawNode, name: &str, value: Attribute) {
    node.attributes.retain(|(key, _)| key != name);
    node.attributes.push((name.to_string(), value));
}

/// Makes a constant the input at this position; an input that the node has already stays.
fn set_constant(node: &mut RawNode, context: &mut Context, position: usize, formal: &str, tensor: Tensor) {
    if node.input(position).is_none() {
        let base = derived(&node.outputs, &node.op_type, formal);
        node.set_input(position, context.add_constant(&base, tensor));
    }
}
