//! Operators that hold graphs: branches, loops, and what is opaque.

use super::dims::{self, Shape};
use super::fact::{Call, Fact, problem};
use super::value::Value;
use super::walk::{Context, Scope, Walked, body, unused_body};
use super::{ShapeError, Types};
use crate::graph::op::{If, Loop, Op, Scan};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, Node};

type Result<T> = std::result::Result<T, ShapeError>;

/// What is known of the outputs of a node that the table of rules does not have, and the types in its bodies.
pub(super) fn outputs(
    node: &Node,
    call: &Call<'_>,
    scope: &Scope<'_>,
    context: Context<'_>,
) -> Result<(Vec<Fact>, Vec<Types>)> {
    match &node.op {
        Op::If(attributes) => branches(node, attributes, call, scope, context),
        Op::Loop(attributes) => iterated(node, attributes, call, scope, context),
        Op::Scan(attributes) => scanned(node, attributes, call, scope, context),
        other => {
            let bodies = other.bodies().into_iter();
            let types = bodies.map(|graph| unused_body(node, graph, scope, context).types).collect();
            Ok((vec![Fact::default(); node.outputs.len()], types))
        }
    }
}

/// A branch that is never taken may be wrong for these shapes; it is the reason for the condition.
fn branches(
    node: &Node,
    attributes: &If,
    call: &Call<'_>,
    scope: &Scope<'_>,
    context: Context<'_>,
) -> Result<(Vec<Fact>, Vec<Types>)> {
    let If { then_branch, else_branch } = attributes;
    let run = |graph: &Graph| body(node, graph, Vec::new(), scope, context);
    let (then, otherwise, outputs) = match call.integer(0) {
        Some(0) => {
            let taken = run(else_branch)?;
            (unused_body(node, then_branch, scope, context).types, taken.types, taken.outputs)
        }
        Some(_) => {
            let taken = run(then_branch)?;
            (taken.types, unused_body(node, else_branch, scope, context).types, taken.outputs)
        }
        None => {
            let (then, otherwise) = (run(then_branch)?, run(else_branch)?);
            let n_outputs = then.outputs.len().min(otherwise.outputs.len());
            let outputs = (0..n_outputs).map(|n| either(node, &then.outputs[n], &otherwise.outputs[n]));
            let outputs = outputs.collect::<Result<Vec<Fact>>>()?;
            (then.types, otherwise.types, outputs)
        }
    };
    for graph in [then_branch, else_branch] {
        expect_count(node, "outputs of a branch", node.outputs.len(), graph.outputs.len())?;
    }
    Ok((outputs, vec![then, otherwise]))
}

fn expect_count(node: &Node, what: &str, expected: usize, got: usize) -> Result<()> {
    if expected == got {
        return Ok(());
    }
    Err(ShapeError::at(node, problem(format!("the number of {what}"), expected, got)))
}

/// What holds of a value that is one or the other.
fn either(node: &Node, a: &Fact, b: &Fact) -> Result<Fact> {
    if a == b {
        return Ok(a.clone());
    }
    if let (Some(one), Some(other)) = (a.dtype, b.dtype)
        && one != other
    {
        return Err(ShapeError::at(node, problem("the type of one of its values", one, other)));
    }
    // of two that are no tensors, or of one that is, nothing is known
    Ok(Fact::new(a.dtype.and(b.dtype), dims::either(&a.shape, &b.shape)))
}

/// The truth that a body may rely on while it runs.
fn truth() -> Fact {
    let value = Some(Value::Known(Tensor::scalar(true)));
    Fact { value, ..Fact::new(Some(DType::Bool), Some(Vec::new())) }
}

fn is_true(fact: &Fact) -> bool {
    let tensor = fact.value.as_ref().and_then(Value::known);
    tensor.and_then(|tensor| tensor.as_slice::<bool>().ok()?.first().copied()) == Some(true)
}

/// `Loop`: inputs are the number of iterations, the condition, and the carried values; the body takes the same and
/// returns the condition, the carried values and what is collected.
fn iterated(
    node: &Node,
    attributes: &Loop,
    call: &Call<'_>,
    scope: &Scope<'_>,
    context: Context<'_>,
) -> Result<(Vec<Fact>, Vec<Types>)> {
    let n_carried = call.inputs.len().saturating_sub(2);
    let first = [Fact::new(Some(DType::I64), Some(Vec::new())), truth()];
    let carried = call.inputs.iter().skip(2).map(|input| input.map(Fact::without_value).unwrap_or_default());
    let (carried, mut walked) = steady(node, &attributes.body, &first, carried.collect(), &[], 1, scope, context)?;
    let n_collected = node.outputs.len().saturating_sub(n_carried);
    expect_count(node, "outputs of its body", 1 + n_carried + n_collected, walked.outputs.len())?;

    let starts = call.input(1).is_none_or(is_true);
    let goes_on = walked.outputs.first().is_some_and(is_true);
    let n_iterations = match call.elements(0).as_deref() {
        Some([only]) if starts && goes_on => only.dim(),
        _ => Dim::Unknown,
    };
    let collected = walked.outputs.split_off(1 + n_carried);
    let mut outputs = carried;
    outputs.extend(collected.into_iter().map(|fact| Fact::new(fact.dtype, stacked(fact.shape, 0, &n_iterations))));
    Ok((outputs, vec![walked.types]))
}

fn stacked(shape: Shape, axis: usize, length: &Dim) -> Shape {
    let mut dims = shape?;
    dims.insert(axis.min(dims.len()), length.clone());
    Some(dims)
}

/// Walks a body until what it returns of the carried values says no less than what it was given; they stand in its
/// inputs between `first` and `last`, in its outputs from `offset` on.
#[allow(clippy::too_many_arguments)] // the three lists are the body's inputs
fn steady(
    node: &Node,
    graph: &Graph,
    first: &[Fact],
    carried: Vec<Fact>,
    last: &[Fact],
    offset: usize,
    scope: &Scope<'_>,
    context: Context<'_>,
) -> Result<(Vec<Fact>, Walked)> {
    // after a few rounds a shape that still changes is any shape
    const ROUNDS: usize = 3;
    let mut carried = carried;
    let mut round = 0;
    loop {
        let inputs = first.iter().chain(&carried).chain(last).cloned().collect();
        let walked = body(node, graph, inputs, scope, context)?;
        let returned = walked.outputs.iter().skip(offset);
        let mut next = carried.clone();
        for (before, after) in next.iter_mut().zip(returned) {
            let both = either(node, before, &after.without_value())?;
            let still_changes = both != *before && round >= ROUNDS;
            *before = if still_changes { Fact::new(both.dtype, None) } else { both };
        }
        if next == carried {
            return Ok((carried, walked));
        }
        carried = next;
        round += 1;
    }
}

/// `Scan`: states, then sequences of which the body gets one slice at a time.
fn scanned(
    node: &Node,
    attributes: &Scan,
    call: &Call<'_>,
    scope: &Scope<'_>,
    context: Context<'_>,
) -> Result<(Vec<Fact>, Vec<Types>)> {
    let at = |problem| ShapeError::at(node, problem);
    let n_sequences = usize::try_from(attributes.num_scan_inputs).unwrap_or(usize::MAX);
    let Some(n_states) = call.inputs.len().checked_sub(n_sequences) else {
        let most = format!("at most {}", call.inputs.len());
        return Err(at(problem("`num_scan_inputs`", most, attributes.num_scan_inputs)));
    };
    let states = call.inputs.iter().take(n_states).map(|input| input.map(Fact::without_value).unwrap_or_default());
    let mut length = Dim::Unknown;
    let mut slices = Vec::with_capacity(n_sequences);
    for (n, position) in (n_states..call.inputs.len()).enumerate() {
        let mut shape = call.shape(position);
        if let Some(dims) = &mut shape {
            let stated = attributes.scan_input_axes.get(n).copied().unwrap_or(0);
            let axis = dims::axis(stated, dims.len()).map_err(at)?;
            let sequence = dims.remove(axis);
            length = dims::expect_agreement("the length of a sequence", &length, &sequence).map_err(at)?;
        }
        slices.push(Fact::new(call.dtype(position), shape));
    }
    let (mut outputs, mut walked) = steady(node, &attributes.body, &[], states.collect(), &slices, 0, scope, context)?;
    expect_count(node, "outputs of its body", node.outputs.len(), walked.outputs.len())?;
    let collected = walked.outputs.split_off(n_states.min(walked.outputs.len()));
    for (n, fact) in collected.into_iter().enumerate() {
        let stated = attributes.scan_output_axes.get(n).copied().unwrap_or(0);
        let rank = fact.shape.as_ref().map(Vec::len);
        let axis = rank.map_or(Ok(0), |rank| dims::axis_or_end(stated_from_start(stated, rank), rank)).map_err(at)?;
        outputs.push(Fact::new(fact.dtype, stacked(fact.shape, axis, &length)));
    }
    Ok((outputs, vec![walked.types]))
}

/// A negative axis counts from the end of the output, which has one dimension more than the slice.
fn stated_from_start(axis: i64, slice_rank: usize) -> i64 {
    let rank = i64::try_from(slice_rank).unwrap_or(i64::MAX).saturating_add(1);
    if axis < 0 { axis.saturating_add(rank) } else { axis }
}
