//! Comparisons, logic, and choosing by them.

use super::args::Args;
use super::numbers::Numbers;
use super::packed::pick;
use super::shapes::{broadcast, broadcast_positions};
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn and(args: Args<'_>) -> Result<Tensor, EvalError> {
    of_bools(args, |a, b| a && b)
}

pub(super) fn or(args: Args<'_>) -> Result<Tensor, EvalError> {
    of_bools(args, |a, b| a || b)
}

pub(super) fn xor(args: Args<'_>) -> Result<Tensor, EvalError> {
    of_bools(args, |a, b| a != b)
}

pub(super) fn not(args: Args<'_>) -> Result<Tensor, EvalError> {
    let tensor = args.get(0)?;
    let bools = tensor.as_slice::<bool>()?.iter().map(|x| !x).collect();
    Ok(Tensor::new(tensor.shape(), bools)?)
}

pub(super) fn equal(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    match (a.strings(), b.strings()) {
        (Some(x), Some(y)) => pairwise(a, b, |i, j| x[i] == y[j]),
        _ => compared(args, |a, b| a == b, |a, b| a == b),
    }
}

pub(super) fn less(args: Args<'_>) -> Result<Tensor, EvalError> {
    compared(args, |a, b| a < b, |a, b| a < b)
}

pub(super) fn less_or_equal(args: Args<'_>) -> Result<Tensor, EvalError> {
    compared(args, |a, b| a <= b, |a, b| a <= b)
}

pub(super) fn greater(args: Args<'_>) -> Result<Tensor, EvalError> {
    compared(args, |a, b| a > b, |a, b| a > b)
}

pub(super) fn greater_or_equal(args: Args<'_>) -> Result<Tensor, EvalError> {
    compared(args, |a, b| a >= b, |a, b| a >= b)
}

pub(super) fn is_nan(args: Args<'_>) -> Result<Tensor, EvalError> {
    classified(args, f64::is_nan)
}

pub(super) fn is_inf(args: Args<'_>, op: &op::IsInf) -> Result<Tensor, EvalError> {
    classified(args, |x| (op.detect_positive && x == f64::INFINITY) || (op.detect_negative && x == f64::NEG_INFINITY))
}

/// Of any element type.
pub(super) fn where_(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (condition, x, y) = (args.get(0)?, args.get(1)?, args.get(2)?);
    let shape = broadcast(&[condition.shape(), x.shape(), y.shape()])?;
    let condition_at = broadcast_positions(condition.shape(), &shape)?;
    let (x_at, y_at) = (broadcast_positions(x.shape(), &shape)?, broadcast_positions(y.shape(), &shape)?);
    let condition = condition.as_slice::<bool>()?;
    pick(&[x, y], &shape, |idx| if condition[condition_at[idx]] { (0, x_at[idx]) } else { (1, y_at[idx]) })
}

fn of_bools(args: Args<'_>, function: impl Fn(bool, bool) -> bool) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    let (x, y) = (a.as_slice::<bool>()?, b.as_slice::<bool>()?);
    pairwise(a, b, |i, j| function(x[i], y[j]))
}

fn compared(
    args: Args<'_>,
    of_floats: impl Fn(f64, f64) -> bool,
    of_ints: impl Fn(i128, i128) -> bool,
) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    if a.dtype() != b.dtype() {
        return Err(invalid(format!("{} of {} and {}", args.op.name(), a.dtype(), b.dtype())));
    }
    match (Numbers::of(a)?, Numbers::of(b)?) {
        (Numbers::Float(x), Numbers::Float(y)) => pairwise(a, b, |i, j| of_floats(x[i], y[j])),
        (Numbers::Int(x), Numbers::Int(y)) => pairwise(a, b, |i, j| of_ints(x[i], y[j])),
        (Numbers::Float(_), Numbers::Int(_)) | (Numbers::Int(_), Numbers::Float(_)) => Err(args.undefined(a.dtype())),
    }
}

fn pairwise(a: &Tensor, b: &Tensor, function: impl Fn(usize, usize) -> bool) -> Result<Tensor, EvalError> {
    let shape = broadcast(&[a.shape(), b.shape()])?;
    let positions = broadcast_positions(a.shape(), &shape)?.into_iter().zip(broadcast_positions(b.shape(), &shape)?);
    Ok(Tensor::new(&shape, positions.map(|(i, j)| function(i, j)).collect())?)
}

fn classified(args: Args<'_>, function: impl Fn(f64) -> bool) -> Result<Tensor, EvalError> {
    let tensor = args.get(0)?;
    match Numbers::of(tensor)? {
        Numbers::Float(xs) => Ok(Tensor::new(tensor.shape(), xs.into_iter().map(function).collect())?),
        Numbers::Int(_) => Err(args.undefined(tensor.dtype())),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::graph::eval::testing::{elements, output, tensor};
    use crate::graph::op::Op;

    fn strings(texts: &[&'static str]) -> Tensor {
        Tensor::from_strings(&[texts.len()], texts.iter().map(|&text| Bytes::from(text)).collect()).expect("as many")
    }

    #[allow(clippy::needless_pass_by_value)] // tests build it in place
    fn check(op: Op, a: &Tensor, b: &Tensor, expected: &[bool]) {
        assert_eq!(output(&op, &[a, b]).map(|t| elements::<bool>(&t)), Ok(expected.to_vec()), "{}", op.name());
    }

    #[test]
    fn comparisons_broadcast_and_are_false_of_nan() {
        let x = tensor(&[3], [1f32, 2.0, f32::NAN]);
        let two = Tensor::scalar(2f32);
        check(Op::Less, &x, &two, &[true, false, false]);
        check(Op::LessOrEqual, &x, &two, &[true, true, false]);
        check(Op::Greater, &two, &x, &[true, false, false]);
        check(Op::GreaterOrEqual, &two, &x, &[true, true, false]);
        check(Op::Equal, &x, &x, &[true, true, false]);
        check(Op::Equal, &strings(&["a", "b"]), &strings(&["a"]), &[true, false]);
        check(Op::Less, &Tensor::scalar(u64::MAX - 1), &Tensor::scalar(u64::MAX), &[true]);
        assert_eq!(
            output(&Op::Equal, &[&x, &Tensor::scalar(1i32)]).expect_err("of two types").to_string(),
            "Equal of f32 and i32"
        );
    }

    #[test]
    fn logic_is_of_bools_only() {
        let (a, b) = (tensor(&[2, 1], [true, false]), tensor(&[2], [true, false]));
        check(Op::And, &a, &b, &[true, false, false, false]);
        check(Op::Or, &a, &b, &[true, true, true, false]);
        check(Op::Xor, &a, &b, &[false, true, true, false]);
        assert_eq!(output(&Op::Not, &[&b]).map(|t| elements::<bool>(&t)), Ok(vec![false, true]));
        assert!(output(&Op::Not, &[&Tensor::scalar(1i32)]).is_err());
    }

    #[test]
    fn infinities_and_nans_are_told_apart() {
        let x = tensor(&[4], [1f64, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]);
        let is = |op: Op| output(&op, &[&x]).map(|t| elements::<bool>(&t));
        assert_eq!(is(Op::IsNaN), Ok(vec![false, false, false, true]));
        assert_eq!(is(Op::IsInf(op::IsInf::default())), Ok(vec![false, true, true, false]));
        let negative = op::IsInf { detect_positive: false, detect_negative: true };
        assert_eq!(is(Op::IsInf(negative)), Ok(vec![false, false, true, false]));
    }

    #[test]
    fn choice_is_of_any_type() {
        let condition = tensor(&[2, 1], [true, false]);
        let chosen = output(&Op::Where, &[&condition, &strings(&["a", "b"]), &strings(&["c"])]).expect("defined");
        assert_eq!(chosen, strings(&["a", "b", "c", "c"]).reshaped(&[2, 2]).expect("four"));
        let mixed = output(&Op::Where, &[&condition, &Tensor::scalar(1f32), &Tensor::scalar(1f64)]);
        assert_eq!(mixed.expect_err("of two types").to_string(), "elements of f32 and of f64 do not mix");
    }
}
