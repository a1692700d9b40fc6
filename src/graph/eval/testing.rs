//! What the tests of the operators share.

// Tests build what they pass in place.
#![allow(clippy::needless_pass_by_value)]

use super::numbers::Numbers;
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

/// The only output of an operator on inputs of which none is left out.
pub(super) fn output(op: &Op, inputs: &[&Tensor]) -> Result<Tensor, EvalError> {
    let inputs: Vec<Option<Tensor>> = inputs.iter().map(|&tensor| Some(tensor.clone())).collect();
    optional_output(op, &inputs)
}

/// The only output of an operator on inputs some of which are left out.
pub(super) fn optional_output(op: &Op, inputs: &[Option<Tensor>]) -> Result<Tensor, EvalError> {
    let mut outputs = operator(op, inputs, 1)?;
    Ok(outputs.remove(0).expect("the operator has one output"))
}

/// The elements of a tensor of this type.
pub(super) fn elements<T: Element>(tensor: &Tensor) -> Vec<T> {
    tensor.to_vec().expect("a tensor of the type that the test expects")
}

/// A tensor of this shape.
pub(super) fn tensor<T: Element>(shape: &[usize], elements: impl AsRef<[T]>) -> Tensor {
    Tensor::new(shape, elements.as_ref().to_vec()).expect("as many elements as the shape takes")
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

/// An input of these elements.
pub(super) fn input<T: Element>(shape: &[usize], elements: &[T]) -> Option<Tensor> {
    Some(Tensor::new(shape, elements.to_vec()).expect("as many elements as the shape has"))
}

/// The operator gives these (shape, elements), each within 1e-6 of its magnitude or of one.
#[track_caller]
pub(super) fn check_near(op: &Op, inputs: &[Option<Tensor>], expected: &[(&[usize], &[f64])]) {
    let outputs = operator(op, inputs, expected.len()).expect("the operator is defined here");
    for (idx, (shape, elements)) in expected.iter().enumerate() {
        let output = outputs[idx].as_ref().expect("the output is there");
        let got = Numbers::floats(output).expect("the output holds numbers");
        let near =
            |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-6 * b.abs().max(1.0);
        assert_eq!(output.shape(), *shape, "output {idx}");
        assert!(got.iter().zip(*elements).all(near), "output {idx}: {got:?}, expected {elements:?}");
    }
}

/// The operator refuses with a message in which these words are.
#[track_caller]
pub(super) fn refused(op: &Op, inputs: &[Option<Tensor>], words: &str) {
    let error = operator(op, inputs, 1).expect_err("the operator is not defined here").to_string();
    assert!(error.contains(words), "{error}");
}
