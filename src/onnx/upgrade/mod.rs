//! Bringing a node from the form of its file's opset to the canonical one.

use super::raw::{Context, RawNode};
use crate::graph::attribute::AttributeError;
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
pub(super) fn upgrade(node: RawNode, _opset: u32, _context: &mut Context) -> Result<Vec<Node>, UpgradeError> {
    let label = format!("{} `{}`", node.op_type, node.name);
    let op = Op::read(&node.domain, &node.op_type, node.attributes)
        .map_err(|source| UpgradeError::Attribute { node: label, source })?;
    Ok(vec![Node { name: node.name, op, inputs: node.inputs, outputs: node.outputs, notes: node.notes }])
}
