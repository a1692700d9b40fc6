//! Operands that spell a whole shape: those of Reshape, Expand, ConstantOfShape and Resize.

use super::edit::set_operand;
use super::{Edited, RemovalError, Work};
use crate::graph::op::Op;
use crate::graph::shape::Element;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Name, Node};

/// The node with an operand that spells what is left. `edited` is the node with what its definition told already,
/// `node` the node as it was.
///
/// # Errors
/// For operators without such an operand, and where it cannot be told which of its numbers is which.
pub(super) fn respelled(work: &mut Work<'_>, edited: &Node, node: &Node) -> Result<Edited, RemovalError> {
    let position = match &node.op {
        Op::Reshape(_) | Op::Expand => 1,
        Op::ConstantOfShape(_) => 0,
        Op::Resize(attributes) if attributes.axes.is_empty() => 3,
        _ => return Ok(Edited::of(edited.clone())),
    };
    let (Some(operand), Some(left)) = (node.input(position), node.output(0).and_then(|name| work.gone.left(name)))
    else {
        return Ok(Edited::of(edited.clone()));
    };
    let operand = operand.clone();
    let mut edited = edited.clone();
    if let Some(numbers) = spelled(work, node, &left) {
        if let Op::Reshape(attributes) = &mut edited.op {
            attributes.allowzero = false;
        }
        set_operand(work, &mut edited, position, "shape", &numbers)?;
        return Ok(Edited::of(edited));
    }
    let corrected = corrected(work, node, &operand, &left)?;
    edited.inputs[position] = corrected.output(0).cloned();
    super::infer(work, &corrected)?;
    Ok(Edited { node: edited, before: vec![corrected] })
}

/// The shape in numbers: 0 where Reshape keeps an axis, −1 where one is left to it, 1 where Expand keeps one.
fn spelled(work: &Work<'_>, node: &Node, left: &[Dim]) -> Option<Vec<i64>> {
    let before = node.input(0).and_then(|name| work.types.tensor(name)).and_then(|tensor| tensor.shape.clone());
    let mut inferred = false;
    let number = |(axis, dim): (usize, &Dim)| match (dim, &node.op) {
        (Dim::Known(0), Op::Reshape(_)) => None,
        (Dim::Known(size), _) => i64::try_from(*size).ok(),
        (Dim::Symbol(_), Op::Reshape(_)) if before.as_ref()?.get(axis) == Some(dim) => Some(0),
        (_, Op::Reshape(_)) if !std::mem::replace(&mut inferred, true) => Some(-1),
        (Dim::Symbol(_), Op::Expand) => {
            let before = before.as_ref()?;
            let own = (axis + before.len()).checked_sub(left.len())?;
            (before.get(own) == Some(dim)).then_some(1)
        }
        (_, _) => None,
    };
    left.iter().enumerate().map(number).collect()
}

/// The operand plus a constant: its numbers where slices go are known, the others stay what they are computed to be.
fn corrected(work: &mut Work<'_>, node: &Node, operand: &Name, left: &[Dim]) -> Result<Node, RemovalError> {
    let refused = || RemovalError::Operand { node: node.label(), operand: "shape" };
    let elements = work.types.value(operand).and_then(|value| value.elements()).ok_or_else(refused)?;
    let dtype = work.types.tensor(operand).map(|tensor| tensor.dtype);
    let masks = node.output(0).and_then(|name| work.gone.of_value(name)).ok_or_else(refused)?;
    if elements.len() != left.len() || dtype != Some(DType::I64) {
        return Err(refused());
    }
    let mut difference = vec![0i64; left.len()];
    for &axis in masks.keys() {
        let wanted = left[axis].known().and_then(|size| i64::try_from(size).ok());
        let now = elements.get(axis).and_then(Element::known).filter(|&now| now >= 0);
        difference[axis] = wanted.zip(now).map(|(wanted, now)| wanted - now).ok_or_else(refused)?;
    }
    let tensor = Tensor::vector(difference);
    let typed = crate::graph::shape::of_tensor(&tensor);
    let name = work.patch.add_initializer(&format!("{operand}_difference"), tensor);
    work.state(&name, typed);
    let output = work.patch.fresh(&format!("{operand}_left"));
    Ok(Node::new(Op::Add, vec![Some(operand.clone()), Some(name)], vec![Some(output)]))
}
