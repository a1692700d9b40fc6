//! Operators that only move or pick numbers: between equal scales they do the same to the integers.

use super::Replacement;
use super::view::View;
use crate::graph::op::{CoordinateTransformation, Op, ResizeMode};
use crate::graph::tensor::DType;
use crate::graph::{Name, Node};

/// Whether every number of the outputs is one of the inputs'.
pub(super) fn passes(op: &Op) -> bool {
    let layout = matches!(op, Op::Reshape(_) | Op::Transpose(_) | Op::Flatten(_) | Op::Squeeze | Op::Unsqueeze);
    let picks = matches!(op, Op::Slice | Op::Gather(_) | Op::GatherElements(_) | Op::GatherND(_) | Op::Split(_));
    let spreads = matches!(op, Op::Expand | Op::Tile | Op::DepthToSpace(_) | Op::SpaceToDepth(_) | Op::Identity);
    let chooses = matches!(op, Op::MaxPool(_) | Op::ReduceMax(_) | Op::ReduceMin(_) | Op::Where | Op::Concat(_));
    layout || picks || spreads || chooses || is_nearest(op)
}

fn is_nearest(op: &Op) -> bool {
    let Op::Resize(resize) = op else { return false };
    let crops = resize.coordinate_transformation_mode == CoordinateTransformation::TfCropAndResize;
    resize.mode == ResizeMode::Nearest && !resize.antialias && !crops
}

/// The node on the integers.
pub(super) fn on_integers(view: &View<'_>, node: &Node) -> Result<Replacement, String> {
    let mut replacement = Replacement { node: node.clone(), absorbed: Vec::new() };
    let operands = match node.op {
        Op::Concat(_) => 0..node.inputs.len(),
        Op::Where => 1..3,
        _ => 0..1,
    };
    let first = view.input(node, operands.start)?;
    if !matches!(first.dtype, DType::I8 | DType::U8) {
        return Err(format!("`{}` is {}, not i8 or u8", first.name, first.dtype));
    }
    for position in operands {
        let operand = view.input(node, position)?;
        if !operand.is_as(&first) {
            return Err(differ(first.name, operand.name));
        }
        replacement.node.inputs[position] = Some(operand.name.clone());
    }
    for (position, output) in node.outputs.iter().enumerate() {
        let Some(output) = output else { continue };
        if matches!(node.op, Op::MaxPool(_)) && position > 0 {
            return Err("it also gives the places of its maxima".to_string());
        }
        let target = view.target(output, false)?;
        if !target.to.is_as(&first) {
            return Err(differ(first.name, target.to.name));
        }
        replacement.node.outputs[position] = Some(target.to.name.clone());
        replacement.absorbed.extend(target.absorbed);
    }
    Ok(replacement)
}

fn differ(one: &Name, other: &Name) -> String {
    format!("`{one}` and `{other}` differ in scale, zero point or type, or have several scales")
}
