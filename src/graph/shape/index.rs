//! Operators that take elements by position, make tensors from nothing but a shape, or say what a shape is.

use super::dims::{self, Shape};
use super::fact::{Call, Fact, Outputs, Problem, one, problem};
use super::value::{self, Value};
use crate::graph::op::Op;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, TensorType};

/// `Constant`
pub(super) fn constant(call: &Call<'_>) -> Outputs {
    let Op::Constant(attributes) = call.op else { return one(None, None) };
    Ok(vec![of_tensor(&attributes.value)])
}

/// What is known of a constant; its elements too where they are few.
pub(super) fn of_tensor(tensor: &Tensor) -> Fact {
    let TensorType { dtype, shape } = TensorType::of(tensor);
    Fact { value: Value::of(tensor), ..Fact::new(Some(dtype), shape) }
}

/// `ConstantOfShape`
pub(super) fn constant_of_shape(call: &Call<'_>) -> Outputs {
    let Op::ConstantOfShape(attributes) = call.op else { return one(None, None) };
    one(Some(attributes.element().dtype()), call.spelled_shape(0))
}

/// `Shape`, whose value is known where the input's dimensions are.
pub(super) fn shape(call: &Call<'_>) -> Outputs {
    let Op::Shape(attributes) = call.op else { return one(Some(DType::I64), None) };
    let Some(dims) = call.dims(0) else { return one(Some(DType::I64), Some(vec![Dim::Unknown])) };
    let rank = i64::try_from(dims.len()).unwrap_or(i64::MAX);
    let clamped = |axis: i64| {
        let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
        usize::try_from(axis.clamp(0, rank)).unwrap_or(dims.len())
    };
    let (start, end) = (clamped(attributes.start), clamped(attributes.end.unwrap_or(rank)));
    let kept = dims.get(start..end).unwrap_or_default();
    let fact = Fact::new(Some(DType::I64), Some(vec![Dim::Known(kept.len())]));
    Ok(vec![Fact { value: value::of_dims(kept), ..fact }])
}

/// `Size`, whose value is known where the input's dimensions are.
pub(super) fn size(call: &Call<'_>) -> Outputs {
    let value = call.dims(0).and_then(|dims| value::of_count(&dims::product(dims)));
    Ok(vec![Fact { value, ..Fact::new(Some(DType::I64), Some(Vec::new())) }])
}

/// `Range`
pub(super) fn range(call: &Call<'_>) -> Outputs {
    one(call.same_dtype(0..3)?, Some(vec![range_length(call)?]))
}

fn range_length(call: &Call<'_>) -> Result<Dim, Problem> {
    if let (Some([start]), Some([limit]), Some([delta])) =
        (call.elements(0).as_deref(), call.elements(1).as_deref(), call.elements(2).as_deref())
    {
        return match (start.known(), limit.known(), delta.known()) {
            (_, _, Some(0)) => Err(problem("the step", "other than 0", 0)),
            (Some(start), Some(limit), Some(delta)) => Ok(n_steps(start, limit, delta)),
            (Some(0), None, Some(1)) => Ok(limit.dim()),
            _ => Ok(Dim::Unknown),
        };
    }
    let float = |position: usize| {
        let tensor = call.input(position)?.value.as_ref()?.known()?;
        let floats = tensor.as_slice::<f64>().map(<[f64]>::to_vec);
        let floats = floats.or_else(|_| tensor.to_f32s().map(|floats| floats.iter().map(|&x| f64::from(x)).collect()));
        floats.ok()?.first().copied()
    };
    let (Some(start), Some(limit), Some(delta)) = (float(0), float(1), float(2)) else {
        return Ok(Dim::Unknown);
    };
    let n = ((limit - start) / delta).ceil().max(0.0);
    // beyond this a float is no exact count
    const MOST: f64 = 9e15;
    Ok(if n < MOST { format!("{n:.0}").parse().map_or(Dim::Unknown, Dim::Known) } else { Dim::Unknown })
}

fn n_steps(start: i64, limit: i64, delta: i64) -> Dim {
    let (span, delta) = (i128::from(limit) - i128::from(start), i128::from(delta));
    let n = if delta > 0 { (span + delta - 1).div_euclid(delta) } else { (-span - delta - 1).div_euclid(-delta) };
    usize::try_from(n.max(0)).map_or(Dim::Unknown, Dim::Known)
}

/// `Gather`: the indices' shape in the place of the axis.
pub(super) fn gather(call: &Call<'_>) -> Outputs {
    let Op::Gather(attributes) = call.op else { return one(call.dtype(0), None) };
    let (Some(data), Some(indices)) = (call.dims(0), call.dims(1)) else { return one(call.dtype(0), None) };
    let axis = dims::axis(attributes.axis, data.len())?;
    let dims = data[..axis].iter().chain(indices).chain(&data[axis + 1..]);
    one(call.dtype(0), Some(dims.cloned().collect()))
}

/// `GatherElements`
pub(super) fn gather_elements(call: &Call<'_>) -> Outputs {
    let shape = call.shape(1).or_else(|| call.dims(0).map(|dims| vec![Dim::Unknown; dims.len()]));
    if let Some(dims) = call.dims(0) {
        call.expect_rank(1, dims.len())?;
    }
    one(call.dtype(0), shape)
}

/// `GatherND`: `indices.shape[:-1] + data.shape[batch_dims + indices.shape[-1]:]`.
pub(super) fn gather_nd(call: &Call<'_>) -> Outputs {
    let Op::GatherND(attributes) = call.op else { return one(call.dtype(0), None) };
    let (Some(data), Some(indices)) = (call.dims(0), call.dims(1)) else { return one(call.dtype(0), None) };
    let Some((depth, outer)) = indices.split_last() else {
        return Err(problem("the number of dimensions of input 1", "1 or more", 0));
    };
    let Some(depth) = depth.known() else { return one(call.dtype(0), None) };
    let n_taken = usize::try_from(attributes.batch_dims).ok().and_then(|batch_dims| batch_dims.checked_add(depth));
    let Some(inner) = n_taken.and_then(|n| data.get(n..)) else {
        return Err(problem("the last dimension of input 1", format!("at most {}", data.len()), depth));
    };
    one(call.dtype(0), Some(outer.iter().chain(inner).cloned().collect()))
}

/// `ScatterElements`, `ScatterND`: the data's type.
pub(super) fn scatter(call: &Call<'_>) -> Outputs {
    one(call.same_dtype([0, 2])?, call.shape(0))
}

/// `NonZero`: `[rank, n]`; how many there are is not known before.
pub(super) fn non_zero(call: &Call<'_>) -> Outputs {
    // a scalar has one coordinate or none, as runtimes see it
    let rank = call.dims(0).filter(|dims| !dims.is_empty()).map_or(Dim::Unknown, |dims| Dim::Known(dims.len()));
    one(Some(DType::I64), Some(vec![rank, Dim::Unknown]))
}

/// `OneHot`: the indices' shape with the depth at an axis.
pub(super) fn one_hot(call: &Call<'_>) -> Outputs {
    let Op::OneHot(attributes) = call.op else { return one(call.dtype(2), None) };
    let Some(mut dims) = call.shape(0) else { return one(call.dtype(2), None) };
    let axis = dims::axis(attributes.axis, dims.len() + 1)?;
    dims.insert(axis, only_dim(call, 1));
    one(call.dtype(2), Some(dims))
}

/// The size that the one element of an input spells.
fn only_dim(call: &Call<'_>, position: usize) -> Dim {
    match call.elements(position).as_deref() {
        Some([only]) => only.dim(),
        _ => Dim::Unknown,
    }
}

/// `TopK`: values and indices.
pub(super) fn top_k(call: &Call<'_>) -> Outputs {
    let Op::TopK(attributes) = call.op else { return one(call.dtype(0), None) };
    let shape = top_k_shape(call, attributes.axis)?;
    Ok(vec![Fact::new(call.dtype(0), shape.clone()), Fact::new(Some(DType::I64), shape)])
}

fn top_k_shape(call: &Call<'_>, axis: i64) -> Result<Shape, Problem> {
    let Some(mut dims) = call.shape(0) else { return Ok(None) };
    let axis = dims::axis(axis, dims.len())?;
    let k = only_dim(call, 1);
    if let (Some(size), Some(k)) = (dims[axis].known(), k.known())
        && k > size
    {
        return Err(problem("`K`", format!("at most {size}"), k));
    }
    dims[axis] = k;
    Ok(Some(dims))
}
