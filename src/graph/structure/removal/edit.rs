//! What an operator says of its own sizes, in attributes and in operands that count slices.

use super::gone::{Mask, n_left};
use super::{RemovalError, Work, slices};
use crate::graph::axes::{axis_from_start, from_start};
use crate::graph::op::Op;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Name, Node};

/// The node for its smaller inputs, as far as its operator's definition alone tells.
pub(super) fn edit(work: &mut Work<'_>, node: &Node) -> Result<Node, RemovalError> {
    let mut edited = node.clone();
    match &mut edited.op {
        Op::Conv(attributes) | Op::ConvInteger(attributes) | Op::QLinearConv(attributes) => {
            regroup(work, node, &mut attributes.group);
        }
        Op::ConvTranspose(attributes) => regroup(work, node, &mut attributes.group),
        Op::GroupNormalization(attributes) => regroup(work, node, &mut attributes.num_groups),
        Op::Constant(attributes) => {
            if let Some(masks) = node.output(0).and_then(|name| work.gone.of_value(name)) {
                attributes.value = slices::without(&attributes.value, masks);
            }
        }
        Op::Attention(attributes) => {
            let heads = [(0, &mut attributes.q_num_heads), (1, &mut attributes.kv_num_heads)];
            for (position, n_heads) in heads {
                let rank = node.input(position).and_then(|name| work.types.tensor(name)?.rank());
                let axis = if rank == Some(3) { 2 } else { 1 };
                let mask = work.gone.mask(node.input(position), axis);
                *n_heads = n_heads.map(|n| mask.and_then(|mask| share(n, mask)).unwrap_or(n));
            }
        }
        Op::RNN(attributes) => set_hidden_size(work, node, &mut attributes.hidden_size),
        Op::GRU(attributes) => set_hidden_size(work, node, &mut attributes.hidden_size),
        Op::LSTM(attributes) => set_hidden_size(work, node, &mut attributes.hidden_size),
        Op::Split(attributes) => {
            if let Some(sizes) = split_sizes(work, node, attributes.axis) {
                attributes.num_outputs = None;
                set_operand(work, &mut edited, 1, "split", &sizes)?;
            }
        }
        Op::Gather(attributes) => {
            let axis = axis_of(work, node, attributes.axis);
            if let Some(mask) = axis.and_then(|axis| work.gone.mask(node.input(0), axis)) {
                let indices = renumbered(work, node, mask)?;
                set_operand(work, &mut edited, 1, "indices", &indices)?;
            }
        }
        Op::Squeeze => squeeze(work, node, &mut edited)?,
        Op::Slice => slice(work, node, &mut edited)?,
        Op::Pad(_) => pad(work, node, &mut edited)?,
        _ => {}
    }
    Ok(edited)
}

/// Whole groups go, as many are left as the channels of the first input are enough for; one group stays one.
fn regroup(work: &Work<'_>, node: &Node, n_groups: &mut i64) {
    if let Some(mask) = work.gone.mask(node.input(0), 1).filter(|_| *n_groups != 1) {
        *n_groups = share(*n_groups, mask).unwrap_or(*n_groups);
    }
}

/// How many of `n` equal parts of an axis are left.
fn share(n: i64, mask: &Mask) -> Option<i64> {
    let left = usize::try_from(n).ok()?.checked_mul(n_left(mask))?.checked_div(mask.len())?;
    i64::try_from(left).ok()
}

/// An attribute that is stated follows the recurrent weight `[dirs, gates · H, H]`.
fn set_hidden_size(work: &Work<'_>, node: &Node, stated: &mut Option<i64>) {
    let recurrent = node.input(2).and_then(|name| work.types.known_shape(name));
    let size = recurrent.and_then(|shape| i64::try_from(*shape.get(2)?).ok());
    *stated = stated.map(|stated| size.unwrap_or(stated));
}

/// Without axes it would drop an axis of which one slice is left, too.
fn squeeze(work: &mut Work<'_>, node: &Node, edited: &mut Node) -> Result<(), RemovalError> {
    let masks = node.input(0).and_then(|name| work.gone.of_value(name));
    let (Some(masks), None) = (masks, node.input(1)) else { return Ok(()) };
    let dims = node.input(0).and_then(|name| work.types.tensor(name)?.shape.clone()).unwrap_or_default();
    let squeezed = (0i64..).zip(dims.iter().enumerate());
    let squeezed = squeezed.filter(|(_, (axis, dim))| **dim == Dim::Known(1) && !masks.contains_key(axis));
    let axes: Vec<i64> = squeezed.map(|(axis, _)| axis).collect();
    set_operand(work, edited, 1, "axes", &axes)
}

/// An axis of the first input as a number from the front.
fn axis_of(work: &Work<'_>, node: &Node, axis: i64) -> Option<usize> {
    axis_from_start(axis, work.types.tensor(node.input(0)?)?.rank()?)
}

fn split_sizes(work: &Work<'_>, node: &Node, axis: i64) -> Option<Vec<i64>> {
    let axis = axis_of(work, node, axis)?;
    work.gone.mask(node.input(0), axis)?;
    let size = |name: &Option<Name>| {
        let name = name.as_ref()?;
        let left = work.gone.left(name).or_else(|| work.types.tensor(name)?.shape.clone())?;
        i64::try_from(left.get(axis)?.known()?).ok()
    };
    node.outputs.iter().map(size).collect()
}

/// What is picked of an axis, counted in what is left of it: picks that are gone themselves drop out.
fn renumbered(work: &Work<'_>, node: &Node, mask: &Mask) -> Result<Vec<i64>, RemovalError> {
    let picks = integers(work, node, 1, "indices")?;
    let size = i64::try_from(mask.len()).unwrap_or(i64::MAX);
    let position = |pick: i64| usize::try_from(if pick < 0 { pick + size } else { pick }).ok();
    let kept = picks.into_iter().filter_map(position).filter(|&pick| mask.get(pick) == Some(&false));
    Ok(kept.map(|pick| count(&mask[..pick])).collect())
}

/// Slices that are left among these.
fn count(mask: &[bool]) -> i64 {
    i64::try_from(n_left(mask)).unwrap_or(i64::MAX)
}

fn slice(work: &mut Work<'_>, node: &Node, edited: &mut Node) -> Result<(), RemovalError> {
    let Some(masks) = node.input(0).and_then(|name| work.gone.of_value(name)) else { return Ok(()) };
    let axes = match node.input(3) {
        Some(_) => integers(work, node, 3, "axes")?,
        None => {
            let starts = node.input(1).and_then(|name| work.types.known_shape(name));
            (0..).take(starts.and_then(|shape| shape.first().copied()).unwrap_or(0)).collect()
        }
    };
    let sliced: Vec<(usize, &Mask)> = (0..axes.len())
        .filter_map(|position| Some((position, masks.get(&axis_of(work, node, axes[position])?)?)))
        .collect();
    if sliced.is_empty() {
        return Ok(());
    }
    let mut starts = integers(work, node, 1, "starts")?;
    let mut ends = integers(work, node, 2, "ends")?;
    for (position, mask) in sliced {
        let bounds = starts.get_mut(position).zip(ends.get_mut(position));
        let Some((start, end)) = bounds else { continue };
        for bound in [start, end] {
            let place = from_start(*bound, mask.len()).unwrap_or(mask.len());
            *bound = count(&mask[..place]);
        }
    }
    set_operand(work, edited, 1, "starts", &starts)?;
    set_operand(work, edited, 2, "ends", &ends)
}

/// What is added before and after an axis may lose slices, too.
fn pad(work: &mut Work<'_>, node: &Node, edited: &mut Node) -> Result<(), RemovalError> {
    let Some(masks) = node.output(0).and_then(|name| work.gone.of_value(name)) else { return Ok(()) };
    let mut pads = integers(work, node, 1, "pads")?;
    let rank = pads.len() / 2;
    let mut changed = false;
    for (&axis, mask) in masks {
        let (Some(&begin), Some(&end)) = (pads.get(axis), pads.get(axis + rank)) else { continue };
        let (Ok(begin), Ok(end)) = (usize::try_from(begin), usize::try_from(end)) else { continue };
        let Some(after) = mask.len().checked_sub(end) else { continue };
        pads[axis] = count(&mask[..begin.min(mask.len())]);
        pads[axis + rank] = count(&mask[after..]);
        changed |= begin + end > 0;
    }
    if changed {
        set_operand(work, edited, 1, "pads", &pads)?;
    }
    Ok(())
}

/// The numbers of an operand that is known.
pub(super) fn integers(
    work: &Work<'_>,
    node: &Node,
    position: usize,
    operand: &'static str,
) -> Result<Vec<i64>, RemovalError> {
    let elements = node.input(position).and_then(|name| work.types.value(name)).and_then(|value| value.elements());
    let known = elements.and_then(|elements| elements.iter().map(|element| element.known()).collect());
    known.ok_or_else(|| RemovalError::Operand { node: node.label(), operand })
}

/// Lets an operand be a new constant of these numbers, of the type that it had.
pub(super) fn set_operand(
    work: &mut Work<'_>,
    node: &mut Node,
    position: usize,
    operand: &'static str,
    numbers: &[i64],
) -> Result<(), RemovalError> {
    let old = node.input(position).cloned();
    let old_type = old.as_ref().and_then(|name| work.types.tensor(name)).map(|tensor| tensor.dtype);
    let tensor = match old_type {
        Some(DType::I32) => {
            numbers.iter().map(|&n| i32::try_from(n).ok()).collect::<Option<_>>().map(Tensor::vector::<i32>)
        }
        Some(_) | None => Some(Tensor::vector(numbers.to_vec())),
    };
    let tensor = tensor.ok_or_else(|| RemovalError::Operand { node: node.label(), operand })?;
    let base = match &old {
        Some(name) => name.to_string(),
        None => format!("{}_{operand}", node.outputs.iter().flatten().next().map_or("", |name| name.as_str())),
    };
    let typed = crate::graph::shape::of_tensor(&tensor);
    let name = work.patch.add_initializer(&base, tensor);
    work.state(&name, typed);
    if node.inputs.len() <= position {
        node.inputs.resize(position + 1, None);
    }
    node.inputs[position] = Some(name);
    Ok(())
}
