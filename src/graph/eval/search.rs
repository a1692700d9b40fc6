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
