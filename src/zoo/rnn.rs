//! Recurrent layers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::layers::{Net, integer};
use super::sequence::{self, Length, Sequence};
use super::{ZooError, sequence::cast};
use crate::graph::op::{self, Direction, Op};
use crate::graph::tensor::DType;
use crate::graph::{Graph, Name};

/// Layers of LSTM or GRU cells over a sequence, its last state or the mean of its states, and a linear map.
///
/// Inputs: numbers `[time, features]`, or ids `[tokens]`, which are embedded; optionally a mask of the steps that are
/// there or their number `[]`. With it, padding after them has no effect. Both directions over sequences of unequal
/// length need the operator's input `sequence_lens`, which onnxruntime computes and tract refuses; one direction runs
/// on both.
///
/// Names: `embedding.weight`; of each layer, with `d` directions and `g` gates (LSTM 4, GRU 3),
/// `rnn.{i}.W [d, g · hidden, in]`, `rnn.{i}.R [d, g · hidden, hidden]` and `rnn.{i}.B [d, 2 · g · hidden]` as ONNX has
/// them; `head.weight`, `head.bias`. In PyTorch, `W[0]` is `weight_ih_l{i}`, `R[0]` is `weight_hh_l{i}`, `B[0]` is
/// `bias_ih_l{i}` followed by `bias_hh_l{i}`, and `[1]` is the same with `_reverse`; of the blocks of `hidden` rows,
/// ONNX's LSTM has them as input, output, forget, cell where PyTorch has input, forget, cell, output, and ONNX's GRU as
/// update, reset, new where PyTorch has reset, update, new. The GRU resets after its linear map
/// (`linear_before_reset`), as PyTorch's does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rnn {
    /// Which cell.
    pub cell: Cell,
    /// The size of a state in one direction.
    pub hidden: usize,
    /// The number of layers.
    pub layers: usize,
    /// Whether each layer also runs backwards, its states beside those that run forwards.
    pub bidirectional: bool,
    /// What of the last layer's states is classified.
    pub pool: Pool,
    /// The size of an embedded id; of no account for numbers.
    pub embedding: usize,
    /// The share of elements dropped after each layer.
    pub dropout: f32,
}

/// A recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    /// Hochreiter and Schmidhuber (1997), with a forget gate
    Lstm,
    /// Cho et al. (2014)
    Gru,
}

/// What is taken of the states of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// The state after the last step; backwards, after the first.
    Last,
    /// The mean over the steps.
    Mean,
}

impl Default for Rnn {
    fn default() -> Rnn {
        Rnn {
            cell: Cell::Gru,
            hidden: 64,
            layers: 1,
            bidirectional: false,
            pool: Pool::Last,
            embedding: 128,
            dropout: 0.0,
        }
    }
}

impl Rnn {
    fn n_directions(&self) -> usize {
        1 + usize::from(self.bidirectional)
    }

    fn n_features(&self) -> usize {
        self.hidden * self.n_directions()
    }
}

pub(super) fn build(parameters: &Rnn, mut net: Net<'_>) -> Result<Graph, ZooError> {
    net.check_size("hidden", parameters.hidden)?;
    net.check_size("layers", parameters.layers)?;
    net.check_size("embedding", parameters.embedding)?;
    net.check_dropout(parameters.dropout)?;
    sequence::check_n_inputs(&net, 2, "give the sequence, and at most a mask or a length")?;
    let steps = sequence::sequence(&mut net)?;
    let length = sequence::length(&mut net)?;
    let (value, mut size) = match &steps {
        Sequence::Numbers { value, n_features } => (value.clone(), *n_features),
        Sequence::Ids { value, n_ids } => {
            (net.embedding("embedding", value, *n_ids, parameters.embedding), parameters.embedding)
        }
    };
    let by_time = Op::Transpose(op::Transpose { perm: vec![1, 0, 2] });
    let mut value = net.node("rnn.transpose", by_time, &[&value]);
    let sequence_lens = length.as_ref().filter(|_| parameters.bidirectional).map(|length| {
        let count = sequence::count(&mut net, length);
        cast(&mut net, "rnn.sequence_lens", &count, DType::I64, DType::I32)
    });
    for idx in 0..parameters.layers - 1 {
        let path = format!("rnn.{idx}");
        let states = layer(&mut net, &path, parameters, &value, size, sequence_lens.as_ref(), Wanted::States);
        value = net.dropout(&format!("{path}.dropout"), &states, parameters.dropout);
        size = parameters.n_features();
    }
    let path = format!("rnn.{}", parameters.layers - 1);
    // The operator's own last state is that of the padding where it is not told the lengths.
    let is_own = parameters.pool == Pool::Last && length.is_some() == sequence_lens.is_some();
    let wanted = if is_own { Wanted::LastState } else { Wanted::States };
    let states = layer(&mut net, &path, parameters, &value, size, sequence_lens.as_ref(), wanted);
    let features = match parameters.pool {
        Pool::Last if is_own => states,
        Pool::Last => last(&mut net, steps.value(), &states, length.as_ref()),
        Pool::Mean => mean(&mut net, steps.value(), &states, length.as_ref()),
    };
    net.finish("head", &features, parameters.n_features(), parameters.dropout)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// `[time, batch, n_features]`
    States,
    /// `[batch, n_features]`
    LastState,
}

/// One layer over `[time, batch, size]`.
fn layer(
    net: &mut Net<'_>,
    path: &str,
    parameters: &Rnn,
    value: &Name,
    size: usize,
    sequence_lens: Option<&Name>,
    wanted: Wanted,
) -> Name {
    let (hidden, n_directions) = (parameters.hidden, parameters.n_directions());
    let direction = if parameters.bidirectional { Direction::Bidirectional } else { Direction::Forward };
    let hidden_size = Some(integer(hidden));
    let (op, n_gates) = match parameters.cell {
        Cell::Lstm => (Op::LSTM(op::LSTM { direction, hidden_size, ..op::LSTM::default() }), 4),
        Cell::Gru => (Op::GRU(op::GRU { direction, hidden_size, linear_before_reset: true, ..op::GRU::default() }), 3),
    };
    let n_rows = n_gates * hidden;
    let w = net.weight(&format!("{path}.W"), &[n_directions, n_rows, size]);
    let r = net.weight(&format!("{path}.R"), &[n_directions, n_rows, hidden]);
    let b = net.weight(&format!("{path}.B"), &[n_directions, 2 * n_rows]);
    let mut inputs = [value, &w, &r, &b].map(|name| Some(name.clone())).to_vec();
    inputs.extend(sequence_lens.map(|name| Some(name.clone())));
    let made = Name::from(path);
    let width = integer(parameters.n_features());
    match wanted {
        Wanted::States => {
            net.push(path, op, inputs, vec![Some(made.clone())]);
            merge_directions(
                net,
                path,
                &made,
                n_directions,
                Place { axis: 1, perm: &[0, 2, 1, 3], shape: &[0, 0, width] },
            )
        }
        Wanted::LastState => {
            net.push(path, op, inputs, vec![None, Some(made.clone())]);
            merge_directions(net, path, &made, n_directions, Place { axis: 0, perm: &[1, 0, 2], shape: &[0, width] })
        }
    }
}

/// Where the axis of directions is, and how it comes to stand before the last and into it.
#[derive(Clone, Copy)]
struct Place<'a> {
    axis: i64,
    perm: &'a [i64],
    shape: &'a [i64],
}

fn merge_directions(net: &mut Net<'_>, path: &str, value: &Name, n_directions: usize, place: Place<'_>) -> Name {
    if n_directions == 1 {
        let axes = net.integers(&format!("{path}.axes"), vec![place.axis]);
        return net.node(&format!("{path}.squeeze"), Op::Squeeze, &[value, &axes]);
    }
    let transpose = Op::Transpose(op::Transpose { perm: place.perm.to_vec() });
    let value = net.node(&format!("{path}.transpose"), transpose, &[value]);
    let shape = net.integers(&format!("{path}.shape"), place.shape.to_vec());
    net.node(&format!("{path}.reshape"), Op::Reshape(op::Reshape { allowzero: false }), &[&value, &shape])
}

/// The state at the last step that is there, of `[time, batch, n_features]`.
fn last(net: &mut Net<'_>, steps: &Name, states: &Name, length: Option<&Length>) -> Name {
    let length = length.expect("without lengths the operator gives the last state");
    let mask = sequence::last_step(net, steps, length);
    masked_sum(net, states, &mask)
}

fn mean(net: &mut Net<'_>, steps: &Name, states: &Name, length: Option<&Length>) -> Name {
    let Some(length) = length else {
        let axes = net.integers("head.pool.axes", vec![0]);
        let reduce = op::Reduce { keepdims: false, noop_with_empty_axes: false };
        return net.node("head.pool", Op::ReduceMean(reduce), &[states, &axes]);
    };
    let mask = sequence::mask(net, steps, length);
    let sum = masked_sum(net, states, &mask);
    let axes = net.integers("head.pool.count_axes", vec![1]);
    let reduce = op::Reduce { keepdims: true, noop_with_empty_axes: false };
    let count = net.node("head.pool.count", Op::ReduceSum(reduce), &[&mask, &axes]);
    let one = net.float("head.pool.one", 1.0);
    let count = net.node("head.pool.at_least_one", Op::Max, &[&count, &one]);
    net.node("head.pool", Op::Div, &[&sum, &count])
}

/// The sum over time of `[time, batch, n_features]` where `[batch, time]` is one.
fn masked_sum(net: &mut Net<'_>, states: &Name, mask: &Name) -> Name {
    let by_time = Op::Transpose(op::Transpose { perm: vec![1, 0] });
    let mask = net.node("head.pool.mask_by_time", by_time, &[mask]);
    let axes = net.integers("head.pool.feature_axes", vec![2]);
    let mask = net.node("head.pool.mask", Op::Unsqueeze, &[&mask, &axes]);
    let masked = net.node("head.pool.masked", Op::Mul, &[states, &mask]);
    let axes = net.integers("head.pool.axes", vec![0]);
    let reduce = op::Reduce { keepdims: false, noop_with_empty_axes: false };
    net.node("head.pool.sum", Op::ReduceSum(reduce), &[&masked, &axes])
}
