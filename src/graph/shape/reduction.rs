//! Operators that make one element of many along some axes.

use super::dims::{self, Shape};
use super::fact::{Call, Outputs, Problem, one};
use crate::graph::Dim;
use crate::graph::op::{Op, Reduce};
use crate::graph::tensor::DType;

/// `ReduceSum` and its like.
pub(super) fn reduce(call: &Call<'_>) -> Outputs {
    one(call.dtype(0), attributes(call.op).map_or(Ok(None), |attributes| reduced(call, attributes))?)
}

fn attributes(op: &Op) -> Option<&Reduce> {
    let (Op::ReduceL1(reduce)
    | Op::ReduceL2(reduce)
    | Op::ReduceLogSum(reduce)
    | Op::ReduceLogSumExp(reduce)
    | Op::ReduceMax(reduce)
    | Op::ReduceMean(reduce)
    | Op::ReduceMin(reduce)
    | Op::ReduceProd(reduce)
    | Op::ReduceSum(reduce)
    | Op::ReduceSumSquare(reduce)) = op
    else {
        return None;
    };
    Some(reduce)
}

fn reduced(call: &Call<'_>, attributes: &Reduce) -> Result<Shape, Problem> {
    let Some(dims) = call.dims(0) else {
        // all axes, each kept or none: the rank is known only in the latter case
        return Ok((!call.has(1) && !attributes.keepdims && !attributes.noop_with_empty_axes).then(Vec::new));
    };
    let axes = if call.has(1) { call.integers(1) } else { Some(Vec::new()) };
    match axes {
        Some(axes) if axes.is_empty() && attributes.noop_with_empty_axes => Ok(Some(dims.to_vec())),
        Some(axes) if axes.is_empty() => Ok(Some(without(dims, &vec![true; dims.len()], attributes.keepdims))),
        Some(axes) => Ok(Some(without(dims, &chosen(&axes, dims.len())?, attributes.keepdims))),
        None if attributes.keepdims => Ok(Some(vec![Dim::Unknown; dims.len()])),
        None => Ok(None),
    }
}

fn chosen(axes: &[i64], rank: usize) -> Result<Vec<bool>, Problem> {
    let mut chosen = vec![false; rank];
    for &axis in axes {
        chosen[dims::axis(axis, rank)?] = true;
    }
    Ok(chosen)
}

fn without(dims: &[Dim], chosen: &[bool], keepdims: bool) -> Vec<Dim> {
    let kept = dims.iter().zip(chosen).filter(|&(_, &chosen)| keepdims || !chosen);
    kept.map(|(dim, &chosen)| if chosen { Dim::Known(1) } else { dim.clone() }).collect()
}

/// `ArgMax`, `ArgMin`
pub(super) fn arg(call: &Call<'_>) -> Outputs {
    let (Op::ArgMax(attributes) | Op::ArgMin(attributes)) = call.op else { return one(Some(DType::I64), None) };
    let Some(dims) = call.dims(0) else { return one(Some(DType::I64), None) };
    let chosen = chosen(&[attributes.axis], dims.len())?;
    one(Some(DType::I64), Some(without(dims, &chosen, attributes.keepdims)))
}
