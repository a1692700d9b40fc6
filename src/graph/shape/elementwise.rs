//! Operators that compute each element from those at the same place.

use super::dims::{self, agree, text};
use super::fact::{Call, Fact, Outputs, one, problem};
use crate::graph::op::Op;
use crate::graph::tensor::DType;

/// One output of the first input's type, whatever that is.
pub(super) fn same_as_first(call: &Call<'_>) -> Outputs {
    Ok(vec![call.input(0).map(Fact::without_value).unwrap_or_default()])
}

/// Any number of inputs of one element type, broadcast.
pub(super) fn arithmetic(call: &Call<'_>) -> Outputs {
    let dtype = call.same_dtype(0..call.inputs.len())?;
    one(dtype, dims::broadcast_all((0..call.inputs.len()).map(|position| call.dims(position)))?)
}

/// `Pow`: the exponent may be of another type.
pub(super) fn power(call: &Call<'_>) -> Outputs {
    one(call.dtype(0), dims::broadcast(call.dims(0), call.dims(1))?)
}

/// Two inputs of one element type, broadcast, to `bool`.
pub(super) fn comparison(call: &Call<'_>) -> Outputs {
    call.same_dtype(0..2)?;
    one(Some(DType::Bool), dims::broadcast(call.dims(0), call.dims(1))?)
}

/// One input to `bool`.
pub(super) fn test(call: &Call<'_>) -> Outputs {
    one(Some(DType::Bool), call.shape(0))
}

/// The second input is broadcast to the first, which keeps its shape.
pub(super) fn with_broadcast_second(call: &Call<'_>) -> Outputs {
    let dtype = call.same_dtype(0..2)?;
    let shape = dims::broadcast(call.dims(0), call.dims(1))?;
    if let (Some(first), Some(both)) = (call.dims(0), &shape) {
        let keeps = first.len() == both.len() && first.iter().zip(both).all(|(a, b)| agree(a, b).is_some());
        if !keeps {
            return Err(problem("the shape of input 1", format!("one that broadcasts to {}", text(first)), text(both)));
        }
    }
    one(dtype, call.shape(0))
}

/// `Where`
pub(super) fn choice(call: &Call<'_>) -> Outputs {
    if let Some(dtype) = call.dtype(0).filter(|&dtype| dtype != DType::Bool) {
        return Err(problem("the type of the condition", DType::Bool, dtype));
    }
    one(call.same_dtype(1..3)?, dims::broadcast_all((0..3).map(|position| call.dims(position)))?)
}

/// `Cast`
pub(super) fn cast(call: &Call<'_>) -> Outputs {
    let Op::Cast(attributes) = call.op else { return same_as_first(call) };
    one(Some(attributes.to), call.shape(0))
}

/// `CastLike`
pub(super) fn cast_like(call: &Call<'_>) -> Outputs {
    one(call.dtype(1), call.shape(0))
}

/// `Dropout`: the output and the mask.
pub(super) fn dropout(call: &Call<'_>) -> Outputs {
    Ok(vec![Fact::new(call.dtype(0), call.shape(0)), Fact::new(Some(DType::Bool), call.shape(0))])
}
