//! What the tests of the operators share.

// Tests build what they pass in place.
#![allow(clippy::needless_pass_by_value)]

use super::{EvalError, operator};
use crate::graph::op::Op;
use crate::graph::tensor::{Element, Tensor};

/// Every output of an operator with one, or more where `n_outputs` says so.
pub(super) fn outputs<const N: usize>(
    op: &Op,
    inputs: [impl Into<Option<Tensor>>; N],
    n_outputs: usize,
) -> Result<Vec<Tensor>, EvalError> {
    Ok(operator(op, &inputs.map(Into::into), n_outputs)?.into_iter().flatten().collect())
}

/// The operator gives this value.
pub(super) fn check<const N: usize>(op: Op, inputs: [impl Into<Option<Tensor>>; N], expected: Tensor) {
    let outputs = outputs(&op, inputs, 1).unwrap_or_else(|error| panic!("{}: {error}", op.name()));
    assert_eq!(outputs.first(), Some(&expected), "{op:?}");
}

/// What the operator says when it does not take these inputs.
pub(super) fn refusal<const N: usize>(op: Op, inputs: [impl Into<Option<Tensor>>; N]) -> String {
    outputs(&op, inputs, 1).expect_err(op.name()).to_string()
}

/// A tensor of this shape.
pub(super) fn tensor<T: Element, const N: usize>(shape: &[usize], elements: [T; N]) -> Tensor {
    Tensor::new(shape, elements.to_vec()).expect("as many elements as the shape takes")
}

/// A list of integers.
pub(super) fn list<const N: usize>(elements: [i64; N]) -> Tensor {
    Tensor::vector(elements.to_vec())
}

/// The integers from 0 on, in this shape.
pub(super) fn iota(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape, (0..n).map(|x| x as i64).collect()).expect("as many elements as the shape takes")
}
