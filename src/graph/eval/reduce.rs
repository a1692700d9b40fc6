//! Reductions along axes.
//!
//! Elements are combined in row-major order. Integers are exact and wrap at the end; where a reduction has a root, a
//! quotient or a logarithm in it, the integer is truncated towards zero.

use super::args::{Args, allocation, axis};
use super::floats::offsets;
use super::numbers::{Numbers, int_list};
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::{DType, Tensor};

/// `ReduceL1`: `Σ |x|`.
pub(super) fn reduce_l1(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    arithmetic(args, op, |lane| total(lane.iter().map(|x| x.abs())), |lane| sum(lane.iter().map(|x| x.abs())))
}

/// `ReduceL2`: `√Σ x²`.
pub(super) fn reduce_l2(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    through_floats(args, op, |lane| total(lane.iter().map(|x| x * x)).sqrt())
}

/// `ReduceLogSum`: `log Σ x`.
pub(super) fn reduce_log_sum(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    through_floats(args, op, |lane| total(lane.iter().copied()).ln())
}

/// `ReduceLogSumExp`: `log Σ exp(x)`, without overflow on the way.
pub(super) fn reduce_log_sum_exp(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    through_floats(args, op, |lane| {
        let greatest = greatest(lane);
        if greatest.is_infinite() {
            return greatest;
        }
        greatest + total(lane.iter().map(|x| (x - greatest).exp())).ln()
    })
}

/// `ReduceMax`: NaN where one is there; of `bool`, whether any is true.
pub(super) fn reduce_max(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let (least, _) = range(args.get(0)?.dtype());
    comparison(args, op, greatest, |lane| lane.iter().copied().max().unwrap_or(least))
}

/// `ReduceMean`: the sum divided by the number of elements.
///
/// # Errors
/// Also when integers are reduced over an empty set.
pub(super) fn reduce_mean(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let lanes = Lanes::new(args, op)?;
    if lanes.reduced.is_empty() && !lanes.kept.is_empty() && args.get(0)?.dtype().is_integer() {
        return Err(invalid("the mean of no integers"));
    }
    let count = lanes.reduced.len();
    arithmetic(
        args,
        op,
        |lane| total(lane.iter().copied()) / count as f64,
        |lane| sum(lane.iter().copied()) / i128::try_from(count.max(1)).unwrap_or(i128::MAX),
    )
}

/// `ReduceMin`: NaN where one is there; of `bool`, whether all are true.
pub(super) fn reduce_min(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let (_, greatest) = range(args.get(0)?.dtype());
    let least = |lane: &[f64]| lane.iter().fold(f64::INFINITY, |a, &b| if b < a || b.is_nan() { b } else { a });
    comparison(args, op, least, |lane| lane.iter().copied().min().unwrap_or(greatest))
}

/// `ReduceProd`: `Π x`.
pub(super) fn reduce_prod(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    arithmetic(
        args,
        op,
        |lane| lane.iter().product(),
        |lane| lane.iter().fold(1, |product, &x| product.wrapping_mul(x)),
    )
}

/// `ReduceSum`: `Σ x`.
pub(super) fn reduce_sum(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    arithmetic(args, op, |lane| total(lane.iter().copied()), |lane| sum(lane.iter().copied()))
}

/// `ReduceSumSquare`: `Σ x²`.
pub(super) fn reduce_sum_square(args: Args<'_>, op: &op::Reduce) -> Result<Tensor, EvalError> {
    let square = |x: &i128| x.wrapping_mul(*x);
    arithmetic(args, op, |lane| total(lane.iter().map(|x| x * x)), |lane| sum(lane.iter().map(square)))
}

/// What floats add up to in their order; of none, a positive zero.
fn total(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, x| sum + x)
}

/// What integers add up to, modulo 2^128.
fn sum(values: impl Iterator<Item = i128>) -> i128 {
    values.fold(0, i128::wrapping_add)
}

fn greatest(lane: &[f64]) -> f64 {
    lane.iter().fold(f64::NEG_INFINITY, |a, &b| if b > a || b.is_nan() { b } else { a })
}

fn range(dtype: DType) -> (i128, i128) {
    dtype.integer_range().unwrap_or((0, 1))
}

fn through_floats(args: Args<'_>, op: &op::Reduce, reduce: impl Fn(&[f64]) -> f64) -> Result<Tensor, EvalError> {
    let integers = |lane: &[i128]| {
        let floats: Vec<f64> = lane.iter().map(|&x| x as f64).collect();
        reduce(&floats) as i128
    };
    arithmetic(args, op, &reduce, integers)
}

/// A reduction of floats and of integers of 32 and 64 bits.
fn arithmetic(
    args: Args<'_>,
    op: &op::Reduce,
    floats: impl Fn(&[f64]) -> f64,
    integers: impl Fn(&[i128]) -> i128,
) -> Result<Tensor, EvalError> {
    let dtype = args.get(0)?.dtype();
    if dtype.is_integer() && dtype.n_bits() < 32 || dtype == DType::Bool {
        return Err(args.undefined(dtype));
    }
    comparison(args, op, floats, integers)
}

/// A reduction that is defined for the 8-bit integers and `bool` too.
fn comparison(
    args: Args<'_>,
    op: &op::Reduce,
    floats: impl Fn(&[f64]) -> f64,
    integers: impl Fn(&[i128]) -> i128,
) -> Result<Tensor, EvalError> {
    let data = args.get(0)?;
    let dtype = data.dtype();
    if dtype.n_bits() == 16 && dtype.is_integer() || dtype.n_bits() < 16 && dtype.is_float() || dtype.n_bits() < 8 {
        return Err(args.undefined(dtype));
    }
    let lanes = Lanes::new(args, op)?;
    let reduced = match Numbers::of(data)? {
        Numbers::Float(values) => Numbers::Float(lanes.reduce(&values, floats)),
        Numbers::Int(values) => Numbers::Int(lanes.reduce(&values, integers)),
    };
    reduced.into_tensor(dtype, &lanes.shape)
}

/// Which elements of the input each element of the output is made of.
struct Lanes {
    shape: Vec<usize>,
    /// For every element of the output the first of its elements in the input.
    kept: Vec<usize>,
    /// Where the others lie from there.
    reduced: Vec<usize>,
}

impl Lanes {
    fn new(args: Args<'_>, op: &op::Reduce) -> Result<Lanes, EvalError> {
        let data = args.get(0)?;
        let is_reduced = reduced_axes(args, op, data.rank())?;
        let shape: Vec<usize> = (data.shape().iter().zip(&is_reduced))
            .filter_map(|(&size, &reduced)| if !reduced { Some(size) } else { op.keepdims.then_some(1) })
            .collect();
        let n_outputs = allocation(&shape)?;
        if data.is_empty() {
            return Ok(Lanes { shape, kept: vec![0; n_outputs], reduced: Vec::new() });
        }
        let mut dims = Vec::with_capacity(data.rank());
        let mut stride = data.len();
        for &size in data.shape() {
            stride /= size;
            dims.push((size, stride));
        }
        let along = |wanted: bool| {
            let axes = dims.iter().zip(&is_reduced).filter(|&(_, &reduced)| reduced == wanted);
            offsets(&axes.map(|(&dim, _)| dim).collect::<Vec<_>>())
        };
        Ok(Lanes { shape, kept: along(false), reduced: along(true) })
    }

    fn reduce<T: Copy>(&self, values: &[T], reduce: impl Fn(&[T]) -> T) -> Vec<T> {
        let mut lane = Vec::with_capacity(self.reduced.len());
        let each = |&first: &usize| {
            lane.clear();
            lane.extend(self.reduced.iter().map(|offset| values[first + offset]));
            reduce(&lane)
        };
        self.kept.iter().map(each).collect()
    }
}

/// For every axis whether it is reduced.
fn reduced_axes(args: Args<'_>, op: &op::Reduce, rank: usize) -> Result<Vec<bool>, EvalError> {
    let axes = args.optional(1).map(int_list).transpose()?.unwrap_or_default();
    if axes.is_empty() {
        return Ok(vec![!op.noop_with_empty_axes; rank]);
    }
    let mut reduced = vec![false; rank];
    for entry in axes {
        let axis = axis(entry, rank)?;
        if reduced[axis] {
            return Err(invalid(format!("axis {entry} is reduced twice")));
        }
        reduced[axis] = true;
    }
    Ok(reduced)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_near as check, input, refused};
    use crate::graph::op::{Op, Reduce};
    use crate::graph::tensor::Tensor;

    const ALL: Reduce = Reduce { keepdims: false, noop_with_empty_axes: false };

    fn x() -> Option<Tensor> {
        input(&[2, 3], &[1f32, -2.0, 3.0, 4.0, 5.0, -6.0])
    }

    #[test]
    fn along_the_axes_asked_for() {
        let keep = Reduce { keepdims: true, ..ALL };
        check(&Op::ReduceSum(ALL), &[x()], &[(&[], &[5.0])]);
        check(&Op::ReduceSum(keep.clone()), &[x(), input(&[1], &[-1i64])], &[(&[2, 1], &[2.0, 3.0])]);
        check(&Op::ReduceSum(ALL), &[x(), input(&[1], &[0i64])], &[(&[3], &[5.0, 3.0, -3.0])]);
        check(&Op::ReduceSum(keep), &[x(), input(&[2], &[1i64, 0])], &[(&[1, 1], &[5.0])]);
        let noop = Reduce { noop_with_empty_axes: true, ..ALL };
        check(&Op::ReduceSumSquare(noop), &[x()], &[(&[2, 3], &[1.0, 4.0, 9.0, 16.0, 25.0, 36.0])]);
        refused(&Op::ReduceSum(ALL), &[x(), input(&[2], &[0i64, -2])], "twice");
        refused(&Op::ReduceSum(ALL), &[x(), input(&[1], &[2i64])], "axis 2");
    }

    #[test]
    fn every_way_to_reduce() {
        type Wrap = fn(Reduce) -> Op;
        let cases: [(Wrap, f64); 9] = [
            (Op::ReduceMean, 5.0 / 6.0),
            (Op::ReduceMax, 5.0),
            (Op::ReduceMin, -6.0),
            (Op::ReduceL1, 21.0),
            (Op::ReduceL2, 91f64.sqrt()),
            (Op::ReduceProd, 720.0),
            (Op::ReduceSumSquare, 91.0),
            (Op::ReduceLogSum, 5f64.ln()),
            (Op::ReduceLogSumExp, 5.420_326_7),
        ];
        for (op, expected) in cases {
            check(&op(ALL), &[x()], &[(&[], &[expected])]);
        }
        check(&Op::ReduceLogSumExp(ALL), &[input(&[2], &[1e4f32, 1e4])], &[(&[], &[1e4 + std::f64::consts::LN_2])]);
        check(&Op::ReduceMax(ALL), &[input(&[3], &[1f32, f32::NAN, 2.0])], &[(&[], &[f64::NAN])]);
    }

    #[test]
    fn of_nothing_comes_the_neutral_element() {
        type Wrap = fn(Reduce) -> Op;
        let cases: [(Wrap, f64); 6] = [
            (Op::ReduceSum, 0.0),
            (Op::ReduceProd, 1.0),
            (Op::ReduceMax, f64::NEG_INFINITY),
            (Op::ReduceMin, f64::INFINITY),
            (Op::ReduceLogSum, f64::NEG_INFINITY),
            (Op::ReduceLogSumExp, f64::NEG_INFINITY),
        ];
        let axis = || input(&[1], &[1i64]);
        for (op, expected) in cases {
            check(&op(ALL), &[input::<f32>(&[2, 0, 1], &[]), axis()], &[(&[2, 1], &[expected, expected])]);
            check(&op(ALL), &[input::<f32>(&[0, 3], &[]), axis()], &[(&[0], &[])]);
        }
        check(&Op::ReduceMax(ALL), &[input::<i8>(&[0], &[])], &[(&[], &[-128.0])]);
        refused(&Op::ReduceMean(ALL), &[input::<i32>(&[0], &[])], "no integers");
        refused(&Op::ReduceSum(ALL), &[input::<f32>(&[1 << 40, 0], &[]), axis()], "too large");
    }

    #[test]
    fn integers_are_exact_and_wrap() {
        check(&Op::ReduceSum(ALL), &[input(&[2], &[i32::MAX, 1])], &[(&[], &[f64::from(i32::MIN)])]);
        check(&Op::ReduceSumSquare(ALL), &[input(&[2], &[u64::MAX, 2])], &[(&[], &[5.0])]);
        check(&Op::ReduceMean(ALL), &[input(&[2], &[-3i64, 0])], &[(&[], &[-1.0])]);
        check(&Op::ReduceL2(ALL), &[input(&[2], &[1i32, 2])], &[(&[], &[2.0])]);
        check(&Op::ReduceMax(ALL), &[input(&[2], &[false, true])], &[(&[], &[1.0])]);
        check(&Op::ReduceMin(ALL), &[input(&[2], &[false, true])], &[(&[], &[0.0])]);
        refused(&Op::ReduceSum(ALL), &[input(&[1], &[true])], "bool");
        refused(&Op::ReduceSum(ALL), &[input(&[1], &[1u8])], "u8");
    }
}
