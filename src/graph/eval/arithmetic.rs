//! Arithmetic of two or more tensors, broadcast against one another.

use super::args::Args;
use super::elementwise::computes;
use super::numbers::{Numbers, float_scalar, truncated};
use super::shapes::{broadcast, broadcast_positions};
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::{DType, Tensor};

pub(super) fn add(args: Args<'_>) -> Result<Tensor, EvalError> {
    binary(args, |a, b| a + b, |a, b| Ok(a + b))
}

pub(super) fn sub(args: Args<'_>) -> Result<Tensor, EvalError> {
    binary(args, |a, b| a - b, |a, b| Ok(a - b))
}

pub(super) fn mul(args: Args<'_>) -> Result<Tensor, EvalError> {
    binary(args, |a, b| a * b, |a, b| Ok(a.wrapping_mul(b)))
}

/// Integers are divided towards zero.
pub(super) fn div(args: Args<'_>) -> Result<Tensor, EvalError> {
    binary(args, |a, b| a / b, |a, b| if b == 0 { Err(by_zero(args)) } else { Ok(a / b) })
}

/// `fmod` false: the sign of the divisor; true: that of the dividend.
pub(super) fn mod_(args: Args<'_>, op: &op::Mod) -> Result<Tensor, EvalError> {
    binary(
        args,
        |a, b| if op.fmod { a % b } else { floor_mod(a, b) },
        |a, b| match a % b_or_error(args, b)? {
            rest if op.fmod || rest == 0 || (rest < 0) == (b < 0) => Ok(rest),
            rest => Ok(rest + b),
        },
    )
}

/// The result has the base's type, whatever that of the exponent.
pub(super) fn pow(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (base, exponent) = (args.get(0)?, args.get(1)?);
    let dtype = base.dtype();
    for operand in [base, exponent] {
        if !computes(operand.dtype()) {
            return Err(args.undefined(operand.dtype()));
        }
    }
    let shape = broadcast(&[base.shape(), exponent.shape()])?;
    let pairs = || -> Result<_, EvalError> {
        let positions = broadcast_positions(base.shape(), &shape)?;
        Ok(positions.into_iter().zip(broadcast_positions(exponent.shape(), &shape)?))
    };
    let powers = match (Numbers::of(base)?, Numbers::of(exponent)?) {
        (Numbers::Int(a), Numbers::Int(b)) => {
            Numbers::Int(pairs()?.map(|(i, j)| int_power(a[i], b[j], dtype)).collect())
        }
        (Numbers::Int(_), Numbers::Float(_)) | (Numbers::Float(_), _) => {
            let (a, b) = (Numbers::floats(base)?, Numbers::floats(exponent)?);
            Numbers::Float(pairs()?.map(|(i, j)| a[i].powf(b[j])).collect())
        }
    };
    powers.into_tensor(dtype, &shape)
}

/// The slope broadcasts to the data, not the data to the slope.
pub(super) fn prelu(args: Args<'_>) -> Result<Tensor, EvalError> {
    let (x, slope) = (args.get(0)?, args.get(1)?);
    if broadcast(&[x.shape(), slope.shape()])? != x.shape() {
        return Err(invalid(format!("slope {:?} does not broadcast to {:?}", slope.shape(), x.shape())));
    }
    binary(
        args,
        |x, slope| if x < 0.0 { slope * x } else { x },
        |x, slope| Ok(if x < 0 { slope.wrapping_mul(x) } else { x }),
    )
}

pub(super) fn max(args: Args<'_>) -> Result<Tensor, EvalError> {
    variadic(args, greater, i128::max)
}

pub(super) fn min(args: Args<'_>) -> Result<Tensor, EvalError> {
    variadic(args, lesser, i128::min)
}

pub(super) fn sum(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats_only(args)?;
    variadic(args, |a, b| a + b, |a, b| a + b)
}

pub(super) fn mean(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats_only(args)?;
    let n_inputs = args.all().count() as f64;
    let (dtype, shape, total) = folded(args, |a, b| a + b, |a, b| a + b)?;
    match total {
        Numbers::Float(total) => Numbers::Float(total.into_iter().map(|x| x / n_inputs).collect()),
        Numbers::Int(total) => Numbers::Int(total),
    }
    .into_tensor(dtype, &shape)
}

/// `min(max, max(x, min))`: where the bounds cross, the upper one wins.
pub(super) fn clip(args: Args<'_>) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let dtype = x.dtype();
    if !computes(dtype) {
        return Err(args.undefined(dtype));
    }
    let bounds = [args.optional(1), args.optional(2)];
    if let Some(other) = bounds.iter().flatten().find(|bound| bound.dtype() != dtype || bound.len() != 1) {
        return Err(invalid(format!("Clip takes bounds of one {dtype}, got {}{:?}", other.dtype(), other.shape())));
    }
    let clipped = match Numbers::of(x)? {
        Numbers::Float(xs) => {
            let low = bounds[0].map(float_scalar).transpose()?;
            let high = bounds[1].map(float_scalar).transpose()?;
            let raised = move |x: f64| low.map_or(x, |low| greater(x, low));
            Numbers::Float(xs.into_iter().map(|x| high.map_or(raised(x), |high| lesser(raised(x), high))).collect())
        }
        Numbers::Int(xs) => {
            let bound = |at: usize| bounds[at].map(|tensor| Ok::<_, EvalError>(Numbers::ints(tensor)?[0])).transpose();
            let (low, high) = (bound(0)?.unwrap_or(i128::MIN), bound(1)?.unwrap_or(i128::MAX));
            Numbers::Int(xs.into_iter().map(|x| x.max(low).min(high)).collect())
        }
    };
    clipped.into_tensor(dtype, x.shape())
}

/// The greater of two floats; NaN where either is, as NumPy's `maximum`.
pub(super) fn greater(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The lesser of two floats; NaN where either is, as NumPy's `minimum`.
pub(super) fn lesser(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

fn floor_mod(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        rest.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        if b.is_infinite() { b } else { rest + b }
    } else {
        rest
    }
}

/// Of the low bits of a power that overflows, as repeated multiplication in the type has them. A negative exponent gives
/// what the quotient truncates to.
fn int_power(base: i128, exponent: i128, dtype: DType) -> i128 {
    match u128::try_from(exponent) {
        Err(_) => truncated((base as f64).powf(exponent as f64), dtype),
        Ok(mut exponent) => {
            let (mut power, mut square) = (1i128, base);
            while exponent > 0 {
                if exponent & 1 == 1 {
                    power = power.wrapping_mul(square);
                }
                square = square.wrapping_mul(square);
                exponent >>= 1;
            }
            power
        }
    }
}

fn by_zero(args: Args<'_>) -> EvalError {
    invalid(format!("{} of an integer by zero", args.op.name()))
}

fn b_or_error(args: Args<'_>, b: i128) -> Result<i128, EvalError> {
    if b == 0 { Err(by_zero(args)) } else { Ok(b) }
}

fn floats_only(args: Args<'_>) -> Result<(), EvalError> {
    match args.all().find(|tensor| !tensor.dtype().is_float()) {
        Some(other) => Err(args.undefined(other.dtype())),
        None => Ok(()),
    }
}

fn binary(
    args: Args<'_>,
    of_floats: impl Fn(f64, f64) -> f64,
    of_ints: impl Fn(i128, i128) -> Result<i128, EvalError>,
) -> Result<Tensor, EvalError> {
    let (a, b) = (args.get(0)?, args.get(1)?);
    let dtype = a.dtype();
    if !computes(dtype) {
        return Err(args.undefined(dtype));
    }
    let shape = broadcast(&[a.shape(), b.shape()])?;
    let positions = broadcast_positions(a.shape(), &shape)?.into_iter().zip(broadcast_positions(b.shape(), &shape)?);
    let results = match (Numbers::of(a)?, Numbers::of(b)?) {
        (Numbers::Float(a), Numbers::Float(c)) if b.dtype() == dtype => {
            Numbers::Float(positions.map(|(i, j)| of_floats(a[i], c[j])).collect())
        }
        (Numbers::Int(a), Numbers::Int(c)) if b.dtype() == dtype => {
            Numbers::Int(positions.map(|(i, j)| of_ints(a[i], c[j])).collect::<Result<_, _>>()?)
        }
        _ => return Err(invalid(format!("{} of {dtype} and {}", args.op.name(), b.dtype()))),
    };
    results.into_tensor(dtype, &shape)
}

fn variadic(
    args: Args<'_>,
    of_floats: impl Fn(f64, f64) -> f64,
    of_ints: impl Fn(i128, i128) -> i128,
) -> Result<Tensor, EvalError> {
    let (dtype, shape, result) = folded(args, of_floats, of_ints)?;
    result.into_tensor(dtype, &shape)
}

/// All inputs broadcast and combined from the left, not yet rounded.
fn folded(
    args: Args<'_>,
    of_floats: impl Fn(f64, f64) -> f64,
    of_ints: impl Fn(i128, i128) -> i128,
) -> Result<(DType, Vec<usize>, Numbers), EvalError> {
    let shapes: Vec<&[usize]> = args.all().map(Tensor::shape).collect();
    let shape = broadcast(&shapes)?;
    let first = args.get(0)?;
    let dtype = first.dtype();
    if !computes(dtype) {
        return Err(args.undefined(dtype));
    }
    if let Some(other) = args.all().find(|tensor| tensor.dtype() != dtype) {
        return Err(invalid(format!("{} of {dtype} and {}", args.op.name(), other.dtype())));
    }
    let mut result = spread(first, &shape)?;
    for tensor in args.all().skip(1) {
        result = match (result, spread(tensor, &shape)?) {
            (Numbers::Float(a), Numbers::Float(b)) => {
                Numbers::Float(a.into_iter().zip(b).map(|(a, b)| of_floats(a, b)).collect())
            }
            (Numbers::Int(a), Numbers::Int(b)) => {
                Numbers::Int(a.into_iter().zip(b).map(|(a, b)| of_ints(a, b)).collect())
            }
            (mixed, _) => mixed,
        };
    }
    Ok((dtype, shape, result))
}

fn spread(tensor: &Tensor, shape: &[usize]) -> Result<Numbers, EvalError> {
    let positions = broadcast_positions(tensor.shape(), shape)?.into_iter();
    Ok(match Numbers::of(tensor)? {
        Numbers::Float(xs) => Numbers::Float(positions.map(|position| xs[position]).collect()),
        Numbers::Int(xs) => Numbers::Int(positions.map(|position| xs[position]).collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{elements, optional_output, output, tensor};
    use crate::graph::op::Op;
    use crate::graph::tensor::Element;

    fn check<T: Element>(op: &Op, a: &[T], b: &[T], expected: &[T]) {
        let got = output(op, &[&tensor(&[a.len()], a), &tensor(&[b.len()], b)]).map(|t| elements::<T>(&t));
        assert_eq!(got, Ok(expected.to_vec()), "{}", op.name());
    }

    #[test]
    fn integers_wrap_and_divide_towards_zero() {
        check(&Op::Add, &[250u8, 1], &[10], &[4, 11]);
        check(&Op::Mul, &[u64::MAX], &[u64::MAX], &[1]);
        check(&Op::Div, &[-7i32, 7], &[2], &[-3, 3]);
        check(&Op::Mod(op::Mod { fmod: false }), &[-7i32, 7, -6], &[3, -3, 3], &[2, -2, 0]);
        check(&Op::Mod(op::Mod { fmod: true }), &[-7i32, 7], &[3, -3], &[-1, 1]);
        check(&Op::Pow, &[2i32, -3, 0, 2], &[31, 3, 0, -1], &[i32::MIN, -27, 1, 0]);
        check(&Op::PRelu, &[-2i32, 2], &[3], &[-6, 2]);
        for op in [Op::Div, Op::Mod(op::Mod::default())] {
            let error = output(&op, &[&Tensor::scalar(1i32), &Tensor::scalar(0i32)]).expect_err("no quotient");
            assert_eq!(error.to_string(), format!("{} of an integer by zero", op.name()));
        }
    }

    #[test]
    fn floats_follow_numpy() {
        check(
            &Op::Mod(op::Mod { fmod: false }),
            &[-7f32, 5.0, -5.0],
            &[3.0, -3.0, f32::INFINITY],
            &[2.0, -1.0, f32::INFINITY],
        );
        check(&Op::Mod(op::Mod { fmod: true }), &[-7f32], &[3.0], &[-1.0]);
        check(&Op::Max, &[1f32, 5.0], &[3.0], &[3.0, 5.0]);
        let nan = output(&Op::Max, &[&Tensor::scalar(1f32), &Tensor::scalar(f32::NAN)]).map(|t| elements::<f32>(&t)[0]);
        assert!(nan.is_ok_and(f32::is_nan));
        let of_three = [&tensor(&[2], [1f32, 2.0]), &Tensor::scalar(4f32), &Tensor::scalar(4f32)];
        assert_eq!(output(&Op::Mean, &of_three).map(|t| elements::<f32>(&t)), Ok(vec![3.0, 10.0 / 3.0]));
        assert_eq!(output(&Op::Sum, &of_three).map(|t| elements::<f32>(&t)), Ok(vec![9.0, 10.0]));
    }

    #[test]
    fn a_power_has_the_type_of_its_base() {
        let power = output(&Op::Pow, &[&Tensor::scalar(2i32), &Tensor::scalar(2.5f32)]);
        assert_eq!(power.map(|t| elements::<i32>(&t)), Ok(vec![5]));
        let power = output(&Op::Pow, &[&Tensor::scalar(2f32), &Tensor::scalar(-1i64)]);
        assert_eq!(power.map(|t| elements::<f32>(&t)), Ok(vec![0.5]));
    }

    #[test]
    fn types_and_shapes_that_do_not_fit_are_refused() {
        let message = |op: &Op, a: &Tensor, b: &Tensor| output(op, &[a, b]).expect_err("refused").to_string();
        assert_eq!(message(&Op::Add, &Tensor::scalar(1f32), &Tensor::scalar(1f64)), "Add of f32 and f64");
        assert_eq!(message(&Op::Add, &Tensor::scalar(true), &Tensor::scalar(true)), "Add on bool is not defined");
        assert_eq!(message(&Op::Sum, &Tensor::scalar(1i32), &Tensor::scalar(1i32)), "Sum on i32 is not defined");
        let (one, two) = (tensor(&[1], [1f32]), tensor(&[2], [1f32, 2.0]));
        assert_eq!(message(&Op::PRelu, &one, &two), "slope [2] does not broadcast to [1]");
    }

    #[test]
    fn bounds_may_be_absent_or_crossed() {
        let x = tensor(&[3], [1i64, 5, 9]);
        let clip = |low: Option<i64>, high: Option<i64>| {
            let inputs = [Some(x.clone()), low.map(Tensor::scalar), high.map(Tensor::scalar)];
            optional_output(&Op::Clip, &inputs).map(|t| elements::<i64>(&t))
        };
        assert_eq!(clip(None, None), Ok(vec![1, 5, 9]));
        assert_eq!(clip(Some(3), None), Ok(vec![3, 5, 9]));
        assert_eq!(clip(None, Some(6)), Ok(vec![1, 5, 6]));
        assert_eq!(clip(Some(8), Some(2)), Ok(vec![2, 2, 2]));
        let wrong = output(&Op::Clip, &[&x, &Tensor::scalar(1f32)]).expect_err("bound of another type");
        assert_eq!(wrong.to_string(), "Clip takes bounds of one i64, got f32[]");
    }
}
