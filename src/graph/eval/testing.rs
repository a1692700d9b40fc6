//! What the tests of the operator families share.

use super::EvalError;
use super::operator;
use crate::graph::op::Op;
use crate::graph::tensor::{Element, Tensor};

/// The only output of an operator on these inputs.
pub(super) fn output(op: &Op, inputs: &[&Tensor]) -> Result<Tensor, EvalError> {
    let inputs: Vec<Option<Tensor>> = inputs.iter().map(|&tensor| Some(tensor.clone())).collect();
    optional_output(op, &inputs)
}

/// The only output of an operator on inputs some of which are left out.
pub(super) fn optional_output(op: &Op, inputs: &[Option<Tensor>]) -> Result<Tensor, EvalError> {
    let mut outputs = operator(op, inputs, 1)?;
    Ok(outputs.remove(0).expect("the operator has one output"))
}

pub(super) fn tensor<T: Element>(shape: &[usize], elements: &[T]) -> Tensor {
    Tensor::new(shape, elements.to_vec()).expect("the shape fits the elements")
}

/// The elements, which must be of this type.
pub(super) fn elements<T: Element>(tensor: &Tensor) -> Vec<T> {
    tensor.to_vec().expect("a tensor of the type that the test expects")
}
