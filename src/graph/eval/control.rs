//! Operators with graphs inside: If, Loop, Scan.

use super::args::{Args, allocation, axis};
use super::layout::{joined, pick_along};
use super::numbers::int_scalar;
use super::run::run_body;
use super::shapes::strides;
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::Tensor;
use crate::graph::{Dim, Graph, ValueInfo};

/// The most rounds of a loop: a hostile one must come to an end.
const MOST_ROUNDS: usize = 1 << 24;

pub(super) fn if_(args: Args<'_>, op: &op::If) -> Result<Vec<Option<Tensor>>, EvalError> {
    let branch = if condition(args.get(0)?)? { &op.then_branch } else { &op.else_branch };
    Ok(run_body(branch, Vec::new(), args.scope)?.into_iter().map(Some).collect())
}

fn condition(tensor: &Tensor) -> Result<bool, EvalError> {
    match tensor.as_slice::<bool>()? {
        &[only] => Ok(only),
        _ => Err(invalid(format!("a condition of shape {:?}", tensor.shape()))),
    }
}

pub(super) fn loop_(args: Args<'_>, op: &op::Loop) -> Result<Vec<Option<Tensor>>, EvalError> {
    let most = args.optional(0).map(int_scalar).transpose()?;
    let mut goes_on = args.optional(1).map_or(Ok(true), condition)?;
    let heeds_condition = args.optional(1).is_some();
    let mut carried = given(args.inputs.get(2..).unwrap_or_default())?;
    let n_carried = carried.len();
    let mut accumulated = Accumulated::new(&op.body, n_carried + 1)?;
    let mut round = 0i64;
    while goes_on && most.is_none_or(|most| round < most) {
        if usize::try_from(round).is_ok_and(|round| round >= MOST_ROUNDS) {
            return Err(invalid(format!("the loop has not ended after {MOST_ROUNDS} rounds")));
        }
        let mut inputs = vec![Tensor::scalar(round), Tensor::scalar(goes_on)];
        inputs.append(&mut carried);
        let mut outputs = run_body(&op.body, inputs, args.scope)?;
        accumulated.push(outputs.split_off(n_carried + 1));
        goes_on = condition(&outputs.remove(0))? || !heeds_condition;
        carried = outputs;
        round += 1;
    }
    let scanned = accumulated.finish(|_| Ok((0, false)))?;
    Ok(carried.into_iter().chain(scanned).map(Some).collect())
}

fn given(inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, EvalError> {
    let value = |input: &Option<Tensor>| input.clone().ok_or_else(|| invalid("an initial value is left out"));
    inputs.iter().map(value).collect()
}

pub(super) fn scan(args: Args<'_>, op: &op::Scan) -> Result<Vec<Option<Tensor>>, EvalError> {
    let mut state = given(args.inputs)?;
    let n_scanned = usize::try_from(op.num_scan_inputs).ok().filter(|&n| n > 0);
    let n_state = n_scanned.and_then(|n| state.len().checked_sub(n));
    let n_state = n_state.ok_or_else(|| invalid(format!("num_scan_inputs is {}", op.num_scan_inputs)))?;
    let sequences = state.split_off(n_state);
    let mut walks = Vec::with_capacity(sequences.len());
    for (position, sequence) in sequences.iter().enumerate() {
        let along = axis(listed(&op.scan_input_axes, position, sequences.len())?, sequence.rank())?;
        walks.push((along, is_backward(&op.scan_input_directions, position, sequences.len())?));
    }
    let lengths: Vec<usize> = sequences.iter().zip(&walks).map(|(sequence, walk)| sequence.shape()[walk.0]).collect();
    let n_rounds = lengths[0];
    if n_rounds > MOST_ROUNDS {
        return Err(invalid(format!("sequences of {n_rounds} elements, at most {MOST_ROUNDS} are scanned")));
    }
    if lengths.iter().any(|&length| length != n_rounds) {
        return Err(invalid(format!("sequences of lengths {lengths:?}")));
    }
    let mut accumulated = Accumulated::new(&op.body, n_state)?;
    for round in 0..n_rounds {
        let mut inputs = state;
        for (sequence, &(along, backward)) in sequences.iter().zip(&walks) {
            inputs.push(element(sequence, along, if backward { n_rounds - 1 - round } else { round })?);
        }
        state = run_body(&op.body, inputs, args.scope)?;
        accumulated.push(state.split_off(n_state));
    }
    let n_outputs = accumulated.outputs.len();
    let scanned = accumulated.finish(|position| {
        let along = listed(&op.scan_output_axes, position, n_outputs)?;
        Ok((along, is_backward(&op.scan_output_directions, position, n_outputs)?))
    })?;
    Ok(state.into_iter().chain(scanned).map(Some).collect())
}

/// What an optional list of `n` says of a position; 0 where there is none.
fn listed(list: &[i64], position: usize, n: usize) -> Result<i64, EvalError> {
    match list.get(position) {
        _ if list.is_empty() => Ok(0),
        Some(&value) if list.len() == n => Ok(value),
        Some(_) | None => Err(invalid(format!("a list of {} for {n} sequences", list.len()))),
    }
}

fn is_backward(directions: &[i64], position: usize, n: usize) -> Result<bool, EvalError> {
    match listed(directions, position, n)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(invalid(format!("a direction of {other}"))),
    }
}

/// The element of a sequence that lies along an axis, which it lacks.
fn element(sequence: &Tensor, along: usize, at: usize) -> Result<Tensor, EvalError> {
    let mut shape = sequence.shape().to_vec();
    shape[along] = 1;
    let steps = strides(sequence.shape());
    let element =
        pick_along(sequence, sequence, &shape, &steps, |axis, idx| Some(if axis == along { at } else { idx }))?;
    shape.remove(along);
    Ok(element.reshaped(&shape)?)
}

/// What the rounds of a body give for the outputs that become sequences.
struct Accumulated<'a> {
    /// The outputs as the body states them.
    outputs: &'a [ValueInfo],
    rounds: Vec<Vec<Tensor>>,
}

impl<'a> Accumulated<'a> {
    fn new(body: &'a Graph, n_before: usize) -> Result<Accumulated<'a>, EvalError> {
        let outputs = body.outputs.get(n_before..);
        let outputs = outputs.ok_or_else(|| {
            invalid(format!("body `{}` gives {} values, expected {n_before} at least", body.name, body.outputs.len()))
        })?;
        Ok(Accumulated { outputs, rounds: vec![Vec::new(); outputs.len()] })
    }

    fn push(&mut self, values: Vec<Tensor>) {
        for (rounds, value) in self.rounds.iter_mut().zip(values) {
            rounds.push(value);
        }
    }

    /// The sequences, each along the axis and backward or not as `direction` says of its position.
    fn finish(self, direction: impl Fn(usize) -> Result<(i64, bool), EvalError>) -> Result<Vec<Tensor>, EvalError> {
        let sequence = |(position, mut rounds): (usize, Vec<Tensor>)| {
            let (along, backward) = direction(position)?;
            if backward {
                rounds.reverse();
            }
            if rounds.is_empty() { empty(&self.outputs[position], along) } else { stacked(&rounds, along) }
        };
        self.rounds.into_iter().enumerate().map(sequence).collect()
    }
}

fn stacked(rounds: &[Tensor], along: i64) -> Result<Tensor, EvalError> {
    let rank = rounds.first().map_or(0, Tensor::rank) + 1;
    let along = axis(along, rank)?;
    let widened = rounds.iter().map(|round| {
        let mut shape = round.shape().to_vec();
        shape.insert(along.min(shape.len()), 1);
        round.reshaped(&shape)
    });
    let widened = widened.collect::<Result<Vec<_>, _>>()?;
    joined(&widened.iter().collect::<Vec<_>>(), along as i64)
}

/// The sequence of no round: its type is that which the body states, with 0 for a dimension that it leaves open.
fn empty(stated: &ValueInfo, along: i64) -> Result<Tensor, EvalError> {
    let unknown = || invalid(format!("no round was run, and the body does not state the type of `{}`", stated.name));
    let tensor_type = stated.tensor_type().ok_or_else(unknown)?;
    let mut shape: Vec<usize> = tensor_type.shape.iter().flatten().map(|dim| Dim::known(dim).unwrap_or(0)).collect();
    shape.insert(axis(along, shape.len() + 1)?, 0);
    allocation(&shape)?;
    Ok(Tensor::zeros(tensor_type.dtype, &shape)?)
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::*;
    use crate::graph::eval::run;
    use crate::graph::eval::testing::{iota, list, outputs, tensor};
    use crate::graph::op::{If, Loop, Op, Scan};
    use crate::graph::tensor::DType;
    use crate::graph::{GraphBuilder, Name, Node, TensorType};

    /// A body with these inputs (of any type) and outputs, and a node `operator(inputs) -> output` each.
    fn body(inputs: &[&str], nodes: &[(Op, &[&str], &str)], outputs: &[&str]) -> Graph {
        let mut builder = GraphBuilder::new("body");
        for input in inputs {
            builder.input(input, TensorType::unranked(DType::I64));
        }
        for (op, inputs, output) in nodes {
            let names = inputs.iter().map(|&name| Some(name.into())).collect();
            builder.push(Node::new(op.clone(), names, vec![Some((*output).into())]));
        }
        for &output in outputs {
            builder.typed_output(&output.into(), TensorType::new(DType::I64, [Dim::Known(2), Dim::Unknown]));
        }
        builder.finish_body().expect("a body")
    }

    #[test]
    fn a_branch_reads_what_is_around_it() {
        let branch = |op: Op, output: &str| body(&[], &[(op, &["x", "x"], output)], &[output]);
        let mut builder = GraphBuilder::new("network");
        builder.input("x", TensorType::unranked(DType::I64));
        let condition = builder.input("condition", TensorType::unranked(DType::Bool));
        let op = Op::If(If { then_branch: branch(Op::Add, "sum"), else_branch: branch(Op::Mul, "product") });
        let y = builder.node(op, &[&condition]);
        builder.output(&y);
        let graph = builder.finish().expect("a network");
        for (condition, expected) in [(true, 6i64), (false, 9)] {
            let inputs: [(Name, Tensor); 2] =
                [("x".into(), Tensor::scalar(3i64)), ("condition".into(), Tensor::scalar(condition))];
            assert_eq!(
                run(&graph, &IndexMap::from(inputs)),
                Ok(IndexMap::from([(y.clone(), Tensor::scalar(expected))]))
            );
        }
    }

    /// Doubles `v` each round until it exceeds 10, and hands out what it was.
    fn doubling() -> Op {
        let ten = Op::Constant(op::Constant { value: Tensor::scalar(10i64) });
        let nodes: [(Op, &[&str], &str); 4] = [
            (ten, &[], "ten"),
            (Op::Add, &["v", "v"], "doubled"),
            (Op::LessOrEqual, &["doubled", "ten"], "small"),
            (Op::Identity, &["v"], "before"),
        ];
        Op::Loop(Loop { body: body(&["round", "go", "v"], &nodes, &["small", "doubled", "before"]) })
    }

    fn looped(most: Option<i64>, condition: Option<bool>) -> Result<Vec<Tensor>, EvalError> {
        let v = Some(Tensor::scalar(3i64));
        outputs(&doubling(), [most.map(Tensor::scalar), condition.map(Tensor::scalar), v], 2)
    }

    #[test]
    fn loops_end_by_count_or_condition() {
        assert_eq!(looped(None, Some(true)), Ok(vec![Tensor::scalar(12i64), list([3, 6])]));
        assert_eq!(looped(Some(1), Some(true)), Ok(vec![Tensor::scalar(6i64), list([3])]));
        assert_eq!(looped(Some(3), None), Ok(vec![Tensor::scalar(24i64), list([3, 6, 12])]));
        let none = vec![Tensor::scalar(3i64), iota(&[0, 2, 0])];
        assert_eq!(looped(Some(0), Some(true)), Ok(none.clone()));
        assert_eq!(looped(Some(-1), None), Ok(none.clone()));
        assert_eq!(looped(None, Some(false)), Ok(none));
        let short = Op::Loop(Loop { body: body(&["round"], &[], &["round"]) });
        assert!(outputs(&short, [Some(Tensor::scalar(1i64)), None], 1).is_err());
    }

    fn scan(op: Scan, sequence: Tensor) -> Result<Vec<Tensor>, EvalError> {
        outputs(&Op::Scan(op), [list([0, 0]), sequence], 2)
    }

    #[test]
    fn scans_walk_any_axis_either_way() {
        let running = || {
            let nodes: [(Op, &[&str], &str); 2] =
                [(Op::Add, &["state", "element"], "sum"), (Op::Identity, &["sum"], "seen")];
            Scan {
                body: body(&["state", "element"], &nodes, &["sum", "seen"]),
                num_scan_inputs: 1,
                scan_input_axes: vec![],
                scan_input_directions: vec![],
                scan_output_axes: vec![],
                scan_output_directions: vec![],
            }
        };
        let rows = || iota(&[3, 2]);
        assert_eq!(scan(running(), rows()), Ok(vec![list([6, 9]), tensor(&[3, 2], [0i64, 1, 2, 4, 6, 9])]));
        let backward = Scan { scan_input_directions: vec![1], scan_output_directions: vec![1], ..running() };
        assert_eq!(scan(backward, rows()), Ok(vec![list([6, 9]), tensor(&[3, 2], [6i64, 9, 6, 8, 4, 5])]));
        let columns = || Scan { scan_input_axes: vec![1], scan_output_axes: vec![-1], ..running() };
        assert_eq!(scan(columns(), iota(&[2, 3])), Ok(vec![list([3, 12]), tensor(&[2, 3], [0i64, 1, 3, 3, 7, 12])]));
        assert_eq!(scan(columns(), iota(&[2, 0])), Ok(vec![list([0, 0]), iota(&[2, 0, 0])]));
        let refused = [
            Scan { num_scan_inputs: 3, ..running() },
            Scan { num_scan_inputs: 0, ..running() },
            Scan { scan_input_axes: vec![2], ..running() },
            Scan { scan_input_axes: vec![0, 0], ..running() },
            Scan { scan_output_directions: vec![2], ..running() },
            Scan { scan_output_axes: vec![3], ..running() },
        ];
        for op in refused {
            assert!(scan(op.clone(), rows()).is_err(), "{op:?}");
        }
    }
}
