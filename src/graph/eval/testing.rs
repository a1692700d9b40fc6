//! What the operators' unit tests share.

use super::numbers::Numbers;
use super::operator;
use crate::graph::op::Op;
use crate::graph::tensor::{Element, Tensor};

/// An input of these elements.
pub(super) fn input<T: Element>(shape: &[usize], elements: &[T]) -> Option<Tensor> {
    Some(Tensor::new(shape, elements.to_vec()).expect("as many elements as the shape has"))
}

/// The operator gives these (shape, elements), each within 1e-6 of its magnitude or of one.
#[track_caller]
pub(super) fn check(op: &Op, inputs: &[Option<Tensor>], expected: &[(&[usize], &[f64])]) {
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
