//! Operators that take elements by index or put them there.

use super::integers;
use crate::graph::op::{self, Op, Reduction};
use crate::graph::tensor::Tensor;
use crate::learn::exec::testing::{check, numbers};

/// With indices that are the same in every run, and with indices that are given.
#[track_caller]
fn either(op: &Op, inputs: &[Option<Tensor>], learns: &[usize]) {
    for fixed in [vec![1], vec![]] {
        check(op.clone(), inputs, learns, &fixed);
    }
}

fn indices(shape: &[usize], values: &[i64]) -> Option<Tensor> {
    Some(Tensor::new(shape, values.to_vec()).expect("as many"))
}

#[test]
fn gathering() {
    for axis in [0, -1] {
        let op = Op::Gather(op::Gather { axis });
        either(&op, &[Some(numbers(&[4, 3])), indices(&[2, 2], &[0, -1, 2, 0])], &[0]);
    }
    either(&Op::Gather(op::Gather { axis: 1 }), &[Some(numbers(&[2, 3])), Some(Tensor::scalar(1i64))], &[0]);
    let elements = Op::GatherElements(op::Gather { axis: 1 });
    either(&elements, &[Some(numbers(&[3, 4])), indices(&[2, 3], &[0, -1, 0, 3, 2, 3])], &[0]);
    let elements = Op::GatherElements(op::Gather { axis: 0 });
    either(&elements, &[Some(numbers(&[3, 4])), indices(&[2, 2], &[0, -1, 2, 1])], &[0]);
    let blocks = |batch_dims| Op::GatherND(op::GatherND { batch_dims });
    either(&blocks(0), &[Some(numbers(&[3, 4, 2])), indices(&[2, 2], &[0, -1, 2, 1])], &[0]);
    either(&blocks(0), &[Some(numbers(&[3, 4])), indices(&[2, 2, 2], &[0, 0, 1, 1, 2, 2, 0, 0])], &[0]);
    either(&blocks(1), &[Some(numbers(&[2, 4, 2])), indices(&[2, 3, 1], &[0, -1, 2, 1, 1, 3])], &[0]);
}

#[test]
fn scattering() {
    let data = || Some(numbers(&[3, 4]));
    for reduction in [Reduction::None, Reduction::Add] {
        let repeats = i64::from(reduction == Reduction::None);
        let elements = Op::ScatterElements(op::ScatterElements { axis: 1, reduction });
        let targets = || indices(&[2, 2], &[0, repeats * 3, -1, 1]);
        either(&elements, &[data(), targets(), Some(numbers(&[2, 2]))], &[0, 2]);
        let blocks = || Op::ScatterND(op::ScatterND { reduction });
        either(&blocks(), &[data(), indices(&[2, 1], &[0, -repeats]), Some(numbers(&[2, 4]))], &[0, 2]);
        either(&blocks(), &[data(), indices(&[2, 2], &[0, 1, -1, 3]), Some(numbers(&[2]))], &[0, 2]);
    }
    for reduction in [Reduction::Mul, Reduction::Max, Reduction::Min] {
        let blocks = Op::ScatterND(op::ScatterND { reduction });
        either(&blocks, &[data(), indices(&[2, 1], &[0, 0]), Some(numbers(&[2, 4]))], &[]);
    }
}

#[test]
fn choosing() {
    for (axis, largest) in [(0, true), (-1, false)] {
        let op = Op::TopK(op::TopK { axis, largest, sorted: true });
        check(op, &[Some(numbers(&[4, 5])), integers(&[3])], &[0], &[1]);
    }
    let one_hot = || Op::OneHot(op::OneHot { axis: 1 });
    let values = || Some(Tensor::vector(vec![-0.3f64, 0.8]));
    let depth = || Some(Tensor::scalar(4i64));
    check(one_hot(), &[indices(&[3], &[0, -1, 7]), depth(), values()], &[2], &[1]);
    check(one_hot(), &[indices(&[3], &[0, -1, 7]), depth(), values()], &[], &[1, 2]);
}
