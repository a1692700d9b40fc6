//! Operators that look for elements, and CumSum: all walk the lines of a tensor along one axis, but for NonZero.

use std::cmp::Ordering;

use super::args::{Args, allocation, axis};
use super::numbers::{Numbers, int_scalar};
use super::packed::pick;
use super::shapes::{coordinates, strides};
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::Tensor;

/// The lines of a tensor along one axis.
struct Lines {
    along: usize,
    dim: usize,
    n_inner: usize,
}

impl Lines {
    fn new(shape: &[usize], along: i64) -> Result<Lines, EvalError> {
        let along = axis(along, shape.len())?;
        Ok(Lines { along, dim: shape[along], n_inner: strides(shape)[along] })
    }

    /// The position of element `idx` of the line that element `number` of a tensor with `dim` along the axis is on.
    fn position(&self, number: usize, dim: usize, idx: usize) -> usize {
        (number / self.n_inner / dim * self.dim + idx) * self.n_inner + number % self.n_inner
    }
}

pub(super) fn arg_max(args: Args<'_>, op: &op::ArgMax) -> Result<Tensor, EvalError> {
    arg_extreme(args, op, Ordering::Greater)
}

pub(super) fn arg_min(args: Args<'_>, op: &op::ArgMax) -> Result<Tensor, EvalError> {
    arg_extreme(args, op, Ordering::Less)
}

/// The index of the element to which no other compares as `wanted`.
fn arg_extreme(args: Args<'_>, op: &op::ArgMax, wanted: Ordering) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let lines = Lines::new(data.shape(), op.axis)?;
    let numbers = Numbers::of(data)?;
    let mut shape = data.shape().to_vec();
    shape[lines.along] = 1;
    let n_lines = allocation(&shape)?;
    if n_lines > 0 && lines.dim == 0 {
        return Err(invalid(format!("no element along axis {} of shape {:?}", lines.along, data.shape())));
    }
    let mut found = Vec::with_capacity(n_lines);
    for line in 0..n_lines {
        let mut best = 0;
        for idx in 1..lines.dim {
            let ordering = compare(&numbers, lines.position(line, 1, idx), lines.position(line, 1, best));
            if ordering == wanted || (op.select_last_index && ordering == Ordering::Equal) {
                best = idx;
            }
        }
        found.push(best as i64);
    }
    if !op.keepdims {
        shape.remove(lines.along);
    }
    Ok(Tensor::new(&shape, found)?)
}

/// The order of two elements; NaN, which ONNX does not order, is greater than all and equal to itself.
fn compare(numbers: &Numbers, left: usize, right: usize) -> Ordering {
    match numbers {
        Numbers::Int(ints) => ints[left].cmp(&ints[right]),
        Numbers::Float(floats) => {
            let (left, right) = (floats[left], floats[right]);
            left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
        }
    }
}

/// The elements come sorted whether or not `sorted` asks for it.
pub(super) fn top_k(args: Args<'_>, op: &op::TopK) -> Result<Vec<Option<Tensor>>, EvalError> {
    let data = args.get(0)?;
    let lines = Lines::new(data.shape(), op.axis)?;
    let k = int_scalar(args.get(1)?)?;
    let k = usize::try_from(k).ok().filter(|&k| k <= lines.dim);
    let k = k.ok_or_else(|| invalid(format!("K should be between 0 and {}", lines.dim)))?;
    let numbers = Numbers::of(data)?;
    let mut shape = data.shape().to_vec();
    shape[lines.along] = k;
    let n_lines = if data.is_empty() || k == 0 { 0 } else { data.len() / lines.dim };
    let mut chosen = vec![0i64; n_lines * k];
    for line in 0..n_lines {
        let position = |idx: usize| lines.position(line, 1, idx);
        let mut order: Vec<usize> = (0..lines.dim).collect();
        order.sort_by(|&left, &right| {
            let ordering = compare(&numbers, position(left), position(right));
            if op.largest { ordering.reverse() } else { ordering }
        });
        let target = line / lines.n_inner * k * lines.n_inner + line % lines.n_inner;
        for (rank, &idx) in order[..k].iter().enumerate() {
            chosen[target + rank * lines.n_inner] = idx as i64;
        }
    }
    let values = pick(&[data], &shape, |number| (0, lines.position(number, k, chosen[number] as usize)))?;
    Ok(vec![Some(values), Some(Tensor::new(&shape, chosen)?)])
}

pub(super) fn non_zero(args: Args<'_>) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let found: Vec<usize> = match data.strings() {
        Some(strings) => (0..data.len()).filter(|&idx| !strings[idx].is_empty()).collect(),
        None => match Numbers::of(data)? {
            Numbers::Int(ints) => (0..data.len()).filter(|&idx| ints[idx] != 0).collect(),
            Numbers::Float(floats) => (0..data.len()).filter(|&idx| floats[idx] != 0.0).collect(),
        },
    };
    let at: Vec<Vec<usize>> = found.iter().map(|&number| coordinates(number, data.shape())).collect();
    let indices = (0..data.rank()).flat_map(|axis| at.iter().map(move |at| at[axis] as i64)).collect();
    Ok(Tensor::new(&[data.rank(), found.len()], indices)?)
}

pub(super) fn cum_sum(args: Args<'_>, op: &op::CumSum) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let lines = Lines::new(data.shape(), int_scalar(args.get(1)?)?)?;
    let summed = match Numbers::of(data)? {
        Numbers::Float(floats) => Numbers::Float(sums(&floats, &lines, op, 0.0, |sum, x| sum + x)),
        Numbers::Int(ints) => Numbers::Int(sums(&ints, &lines, op, 0, i128::wrapping_add)),
    };
    summed.into_tensor(data.dtype(), data.shape())
}

fn sums<T: Copy>(elements: &[T], lines: &Lines, op: &op::CumSum, zero: T, add: impl Fn(T, T) -> T) -> Vec<T> {
    let mut sums = elements.to_vec();
    let n_lines = elements.len().checked_div(lines.dim).unwrap_or(0);
    for line in 0..n_lines {
        let mut sum = zero;
        for step in 0..lines.dim {
            let idx = if op.reverse { lines.dim - 1 - step } else { step };
            let position = lines.position(line, 1, idx);
            let before = sum;
            sum = add(sum, elements[position]);
            sums[position] = if op.exclusive { before } else { sum };
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{check, iota, list, outputs, refusal, tensor};
    use crate::graph::op::{ArgMax, CumSum, Op, TopK};

    #[test]
    fn extremes_are_found_first_or_last() {
        let attributes = |select_last_index| ArgMax { axis: -1, keepdims: false, select_last_index };
        let data = || tensor(&[2, 3], [5i64, 1, 5, 2, 2, 4]);
        check(Op::ArgMax(attributes(false)), [data()], list([0, 2]));
        check(Op::ArgMax(attributes(true)), [data()], list([2, 2]));
        check(Op::ArgMin(attributes(false)), [data()], list([1, 0]));
        check(Op::ArgMin(attributes(true)), [data()], list([1, 1]));
        let columns = ArgMax { axis: 0, keepdims: true, select_last_index: false };
        check(Op::ArgMax(columns.clone()), [data()], tensor(&[1, 3], [0i64, 1, 0]));
        check(Op::ArgMax(columns.clone()), [Tensor::vector(vec![1f32, f32::NAN, 3.0])], list([1]));
        assert!(refusal(Op::ArgMax(columns), [iota(&[0, 2])]).contains("no element"));
    }

    #[test]
    fn top_k_breaks_ties_by_index() {
        let top = |axis, largest, data: Tensor, k: i64| {
            outputs(&Op::TopK(TopK { axis, largest, sorted: true }), [data, list([k])], 2)
        };
        let data = || list([2, 9, 2, 9, 1]);
        assert_eq!(top(0, true, data(), 3), Ok(vec![list([9, 9, 2]), list([1, 3, 0])]));
        assert_eq!(top(0, false, data(), 3), Ok(vec![list([1, 2, 2]), list([4, 0, 2])]));
        let columns = tensor(&[3, 2], [1i64, 6, 3, 4, 2, 5]);
        assert_eq!(
            top(0, true, columns, 2),
            Ok(vec![tensor(&[2, 2], [3i64, 6, 2, 5]), tensor(&[2, 2], [1i64, 0, 2, 2])])
        );
        assert_eq!(top(0, true, data(), 0), Ok(vec![list([]), list([])]));
        assert!(top(0, true, data(), 6).is_err());
        assert!(top(0, true, data(), -1).is_err());
    }

    #[test]
    fn what_is_not_zero_is_found() {
        check(Op::NonZero, [tensor(&[2, 2], [1f32, 0.0, f32::NAN, -1.0])], tensor(&[2, 3], [0i64, 1, 1, 0, 0, 1]));
        check(Op::NonZero, [Tensor::scalar(3i64)], iota(&[0, 1]));
    }

    #[test]
    fn sums_run_both_ways() {
        let sum = |exclusive, reverse, expected: [i64; 3]| {
            check(Op::CumSum(CumSum { exclusive, reverse }), [list([1, 2, 3]), Tensor::scalar(0i64)], list(expected));
        };
        sum(false, false, [1, 3, 6]);
        sum(true, false, [0, 1, 3]);
        sum(false, true, [6, 5, 3]);
        sum(true, true, [5, 3, 0]);
        let plain = || Op::CumSum(CumSum { exclusive: false, reverse: false });
        check(plain(), [iota(&[2, 2]), list([-1])], tensor(&[2, 2], [0i64, 1, 2, 5]));
        assert!(refusal(plain(), [iota(&[2, 2]), list([2])]).contains("axis 2"));
    }
}
