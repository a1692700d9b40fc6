//! Inputs that are sequences, and which of their steps are there and which are padding.

use super::layers::Net;
use super::{Input, ZooError};
use crate::graph::op::{self, Op};
use crate::graph::tensor::DType;
use crate::graph::{Name, TensorType};

/// A sequence of a sample.
pub(super) enum Sequence {
    /// `[batch, time, n_features]`
    Numbers { value: Name, n_features: usize },
    /// `[batch, tokens]`, each less than `n_ids`
    Ids { value: Name, n_ids: usize },
}

impl Sequence {
    pub(super) fn value(&self) -> &Name {
        match self {
            Sequence::Numbers { value, .. } | Sequence::Ids { value, .. } => value,
        }
    }
}

/// The task's first input as a sequence.
pub(super) fn sequence(net: &mut Net<'_>) -> Result<Sequence, ZooError> {
    let Some(input) = net.task.inputs.first() else {
        return Err(net.misfit("the task has no input", "give it the sequence"));
    };
    let shape = input.shape.as_slice();
    match (input.dtype, shape) {
        (DType::F32, [_, Some(n_features)]) => {
            let n_features = *n_features;
            Ok(Sequence::Numbers { value: net.input(input), n_features })
        }
        (DType::I64 | DType::I32, [_]) => match input.n_ids {
            Some(n_ids) if n_ids > 0 => Ok(Sequence::Ids { value: net.input(input), n_ids }),
            Some(_) | None => {
                let problem = format!("the number of ids of input `{}` is not known", input.name);
                Err(net.misfit(problem, "have the data state the size of its vocabulary"))
            }
        },
        _ => {
            let problem = format!("input `{}` is {}", input.name, described(input));
            Err(net.misfit(problem, "give numbers as f32 [time, features] or ids as i64 [tokens]"))
        }
    }
}

/// The task's first input as ids; the word for what it is otherwise is in the error.
pub(super) fn ids(net: &mut Net<'_>) -> Result<(Name, usize), ZooError> {
    match sequence(net)? {
        Sequence::Ids { value, n_ids } => Ok((value, n_ids)),
        Sequence::Numbers { value, .. } => {
            let problem = format!("input `{value}` holds numbers, not ids");
            Err(net.misfit(problem, "give ids as i64 [tokens], or take an rnn"))
        }
    }
}

fn described(input: &Input) -> TensorType {
    TensorType::new(input.dtype, input.shape.iter().map(|dim| dim.map_or(crate::graph::Dim::Unknown, Into::into)))
}

/// What a sample says of its own length.
pub(super) enum Length {
    /// A one for each step that is there and a zero for padding, `[batch, steps]`, as `f32`.
    Mask(Name),
    /// The number of steps that are there, `[batch]`, as `i64`. The padding comes after them.
    Count(Name),
}

/// The task's second input, where there is one: a mask, of the shape of the sequence, or a number of steps.
pub(super) fn length(net: &mut Net<'_>) -> Result<Option<Length>, ZooError> {
    let (Some(data), Some(input)) = (net.task.inputs.first(), net.task.inputs.get(1)) else { return Ok(None) };
    let is_integer = matches!(input.dtype, DType::I64 | DType::I32);
    let is_mask = is_integer || matches!(input.dtype, DType::Bool | DType::F32);
    match input.shape.as_slice() {
        [] if is_integer => {
            let value = net.input(input);
            Ok(Some(Length::Count(cast(net, "length.count", &value, input.dtype, DType::I64))))
        }
        [steps] if is_mask && data.shape.first() == Some(steps) => {
            let value = net.input(input);
            Ok(Some(Length::Mask(cast(net, "length.mask", &value, input.dtype, DType::F32))))
        }
        _ => {
            let problem = format!("input `{}` is {}", input.name, described(input));
            Err(net.misfit(problem, "give a mask of the shape of the sequence, or the number of its steps as i64 []"))
        }
    }
}

/// Refuses inputs after the first `most`.
pub(super) fn check_n_inputs(net: &Net<'_>, most: usize, what: &str) -> Result<(), ZooError> {
    match net.task.inputs.get(most) {
        Some(input) => Err(net.misfit(format!("there is no use for input `{}`", input.name), what)),
        None => Ok(()),
    }
}

/// The positions `0, 1, …` of a sequence's steps, `[steps]`.
pub(super) fn positions(net: &mut Net<'_>, path: &str, sequence: &Name) -> Name {
    let size = net.node(&format!("{path}.size"), Op::Shape(op::Shape { start: 1, end: Some(2) }), &[sequence]);
    let axes = net.integers(&format!("{path}.axes"), vec![0]);
    let limit = net.node(&format!("{path}.limit"), Op::Squeeze, &[&size, &axes]);
    let (start, delta) = (net.integer(&format!("{path}.start"), 0), net.integer(&format!("{path}.delta"), 1));
    net.node(path, Op::Range(op::Range { stash_type: 1 }), &[&start, &limit, &delta])
}

/// The mask of the steps that are there, `f32 [batch, steps]`.
pub(super) fn mask(net: &mut Net<'_>, sequence: &Name, length: &Length) -> Name {
    match length {
        Length::Mask(mask) => mask.clone(),
        Length::Count(count) => {
            let positions = positions(net, "length.positions", sequence);
            let axes = net.integers("length.axes", vec![1]);
            let count = net.node("length.column", Op::Unsqueeze, &[count, &axes]);
            let is_there = net.node("length.is_there", Op::Less, &[&positions, &count]);
            cast(net, "length.mask", &is_there, DType::Bool, DType::F32)
        }
    }
}

/// The mask of the last step that is there, `f32 [batch, steps]`.
pub(super) fn last_step(net: &mut Net<'_>, sequence: &Name, length: &Length) -> Name {
    let count = count(net, length);
    let positions = positions(net, "length.positions", sequence);
    let one = net.integer("length.one", 1);
    let last = net.node("length.last", Op::Sub, &[&count, &one]);
    let axes = net.integers("length.axes", vec![1]);
    let last = net.node("length.last_column", Op::Unsqueeze, &[&last, &axes]);
    let is_last = net.node("length.is_last", Op::Equal, &[&positions, &last]);
    cast(net, "length.last_mask", &is_last, DType::Bool, DType::F32)
}

/// The number of steps that are there, `i64 [batch]`.
pub(super) fn count(net: &mut Net<'_>, length: &Length) -> Name {
    match length {
        Length::Count(count) => count.clone(),
        Length::Mask(mask) => {
            let axes = net.integers("length.sum_axes", vec![1]);
            let reduce = op::Reduce { keepdims: false, noop_with_empty_axes: false };
            let sum = net.node("length.sum", Op::ReduceSum(reduce), &[mask, &axes]);
            cast(net, "length.count", &sum, DType::F32, DType::I64)
        }
    }
}

/// The value in another element type; itself where it has it already.
pub(super) fn cast(net: &mut Net<'_>, path: &str, value: &Name, from: DType, to: DType) -> Name {
    if from == to {
        return value.clone();
    }
    net.node(path, Op::Cast(op::Cast { to, saturate: true, round_mode: op::RoundMode::Up }), &[value])
}
