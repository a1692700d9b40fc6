//! Functions of one number, applied to every element.

use super::EvalError;
use super::args::Args;
use super::numbers::Numbers;
use crate::graph::op::{self, Approximate};
use crate::graph::tensor::{DType, Tensor};

pub(super) fn abs(args: Args<'_>) -> Result<Tensor, EvalError> {
    numbers(args, f64::abs, i128::abs)
}

pub(super) fn neg(args: Args<'_>) -> Result<Tensor, EvalError> {
    numbers(args, |x| -x, |x| -x)
}

pub(super) fn sign(args: Args<'_>) -> Result<Tensor, EvalError> {
    numbers(args, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }, i128::signum)
}

pub(super) fn relu(args: Args<'_>) -> Result<Tensor, EvalError> {
    numbers(args, |x| if x < 0.0 { 0.0 } else { x }, |x| x.max(0))
}

pub(super) fn acos(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::acos)
}

pub(super) fn acosh(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, libm::acosh)
}

pub(super) fn asin(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::asin)
}

pub(super) fn asinh(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, libm::asinh)
}

pub(super) fn atan(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::atan)
}

pub(super) fn atanh(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, libm::atanh)
}

pub(super) fn ceil(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::ceil)
}

pub(super) fn celu(args: Args<'_>, op: &op::Alpha) -> Result<Tensor, EvalError> {
    let alpha = f64::from(op.alpha);
    floats(args, |x| if x < 0.0 { (alpha * (x / alpha).exp_m1()).min(0.0) } else { x })
}

pub(super) fn cos(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::cos)
}

pub(super) fn cosh(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::cosh)
}

pub(super) fn elu(args: Args<'_>, op: &op::Alpha) -> Result<Tensor, EvalError> {
    let alpha = f64::from(op.alpha);
    floats(args, |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
}

pub(super) fn erf(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, libm::erf)
}

pub(super) fn exp(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::exp)
}

pub(super) fn floor(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::floor)
}

pub(super) fn gelu(args: Args<'_>, op: &op::Gelu) -> Result<Tensor, EvalError> {
    match op.approximate {
        Approximate::None => floats(args, gelu_exact),
        Approximate::Tanh => floats(args, gelu_tanh),
    }
}

pub(super) fn hard_sigmoid(args: Args<'_>, op: &op::HardSigmoid) -> Result<Tensor, EvalError> {
    let (alpha, beta) = (f64::from(op.alpha), f64::from(op.beta));
    floats(args, |x| (alpha * x + beta).clamp(0.0, 1.0))
}

pub(super) fn hard_swish(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0))
}

pub(super) fn leaky_relu(args: Args<'_>, op: &op::LeakyRelu) -> Result<Tensor, EvalError> {
    let alpha = f64::from(op.alpha);
    floats(args, |x| if x < 0.0 { alpha * x } else { x })
}

pub(super) fn log(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::ln)
}

pub(super) fn mish(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, |x| x * softplus_of(x).tanh())
}

pub(super) fn reciprocal(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::recip)
}

pub(super) fn round(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::round_ties_even)
}

pub(super) fn selu(args: Args<'_>, op: &op::Selu) -> Result<Tensor, EvalError> {
    let (alpha, gamma) = (f64::from(op.alpha), f64::from(op.gamma));
    floats(args, |x| gamma * if x <= 0.0 { alpha * x.exp_m1() } else { x })
}

pub(super) fn sigmoid(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, sigmoid_of)
}

pub(super) fn sin(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::sin)
}

pub(super) fn sinh(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::sinh)
}

pub(super) fn softplus(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, softplus_of)
}

pub(super) fn softsign(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, |x| x / (1.0 + x.abs()))
}

pub(super) fn sqrt(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::sqrt)
}

pub(super) fn swish(args: Args<'_>, op: &op::Alpha) -> Result<Tensor, EvalError> {
    let alpha = f64::from(op.alpha);
    floats(args, |x| x * sigmoid_of(alpha * x))
}

pub(super) fn tan(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::tan)
}

pub(super) fn tanh(args: Args<'_>) -> Result<Tensor, EvalError> {
    floats(args, f64::tanh)
}

pub(super) fn thresholded_relu(args: Args<'_>, op: &op::Alpha) -> Result<Tensor, EvalError> {
    let alpha = f64::from(op.alpha);
    floats(args, |x| if x > alpha { x } else { 0.0 })
}

/// `x/2 · (1 + erf(x/√2))`, written so that nothing cancels for negative `x`.
pub(super) fn gelu_exact(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

/// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`
pub(super) fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 * std::f64::consts::FRAC_1_PI).sqrt() * (x + 0.044715 * x.powi(3));
    x * sigmoid_of(2.0 * inner)
}

pub(super) fn sigmoid_of(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus_of(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}

/// Applied to the floats of a tensor of a type that arithmetic is done in.
pub(super) fn floats(args: Args<'_>, function: impl Fn(f64) -> f64) -> Result<Tensor, EvalError> {
    let tensor = args.get(0)?;
    match Numbers::of(tensor)? {
        Numbers::Float(xs) if computes(tensor.dtype()) => {
            Numbers::Float(xs.into_iter().map(function).collect()).into_tensor(tensor.dtype(), tensor.shape())
        }
        Numbers::Float(_) | Numbers::Int(_) => Err(args.undefined(tensor.dtype())),
    }
}

fn numbers(args: Args<'_>, of_float: impl Fn(f64) -> f64, of_int: impl Fn(i128) -> i128) -> Result<Tensor, EvalError> {
    let tensor = args.get(0)?;
    let dtype = tensor.dtype();
    match Numbers::of(tensor)? {
        Numbers::Int(xs) if computes(dtype) => {
            Numbers::Int(xs.into_iter().map(of_int).collect()).into_tensor(dtype, tensor.shape())
        }
        Numbers::Int(_) => Err(args.undefined(dtype)),
        Numbers::Float(_) => floats(args, of_float),
    }
}

/// Whether ONNX's elementwise operators take this type: the floats of 16 bits and more, the integers of 8 and more.
pub(super) fn computes(dtype: DType) -> bool {
    match dtype {
        DType::F64 | DType::F32 | DType::F16 | DType::BF16 => true,
        DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U64 | DType::U32 | DType::U16 | DType::U8 => true,
        DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::Bool => false,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 => false,
        DType::F6E2M3 | DType::F6E3M2 | DType::F4E2M1 | DType::String | DType::Complex64 | DType::Complex128 => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{elements, output, tensor};
    use crate::graph::op::Op;

    #[allow(clippy::needless_pass_by_value)] // tests build it in place
    fn check(op: Op, x: f64, expected: f64) {
        let got: f64 = elements(&output(&op, &[&Tensor::scalar(x)]).expect("defined for f64"))[0];
        let near = (got - expected).abs() <= 1e-14 * expected.abs();
        assert!(near || got == expected || (got.is_nan() && expected.is_nan()), "{} {x}: {got}", op.name());
    }

    /// Expectations from Python's `math`, in forms in which nothing cancels.
    #[test]
    fn functions_are_accurate() {
        check(Op::Erf, 0.5, 0.5204998778130465);
        check(Op::Erf, -3.0, -0.9999779095030014);
        check(Op::Gelu(op::Gelu::default()), -6.0, -5.919525870226207e-9);
        check(Op::Gelu(op::Gelu { approximate: Approximate::Tanh }), 1.5, 1.3995715769802328);
        check(Op::Softplus, -40.0, 4.248354255291589e-18);
        check(Op::Softplus, 1000.0, 1000.0);
        check(Op::Sigmoid, -2.0, 0.11920292202211755);
        check(Op::Sigmoid, -1000.0, 0.0);
        check(Op::Elu(op::Alpha { alpha: 2.0 }), -1e-10, -1.9999999999000001e-10);
        check(Op::Celu(op::Alpha { alpha: 2.0 }), -1.0, -0.7869386805747332);
        check(Op::Mish, 2.0, 1.9439589595339946);
        check(Op::Swish(op::Alpha { alpha: 0.5 }), 2.0, 1.4621171572600098);
        check(Op::HardSwish, 1.0, 2.0 / 3.0);
        check(Op::HardSigmoid(op::HardSigmoid { alpha: 0.25, beta: 0.5 }), 5.0, 1.0);
        check(Op::Atanh, 0.5, 0.5493061443340548);
        check(Op::Acosh, 2.0, 1.3169578969248166);
    }

    #[test]
    fn edges_are_as_onnx_has_them() {
        for (x, rounded) in [(0.5, 0.0), (1.5, 2.0), (2.5, 2.0), (-2.5, -2.0), (-0.7, -1.0)] {
            check(Op::Round, x, rounded);
        }
        check(Op::Relu, f64::NAN, f64::NAN);
        check(Op::Sign, f64::NAN, f64::NAN);
        check(Op::Sign, -0.0, 0.0);
        check(Op::ThresholdedRelu(op::Alpha { alpha: 1.0 }), 1.0, 0.0);
        check(Op::LeakyRelu(op::LeakyRelu { alpha: 0.5 }), -3.0, -1.5);
    }

    #[test]
    fn integers_stay_integers_and_other_types_are_refused() {
        let least = output(&Op::Abs, &[&tensor(&[2], [i8::MIN, -3])]).map(|t| elements::<i8>(&t));
        assert_eq!(least, Ok(vec![i8::MIN, 3]));
        let message = |op: Op, x: Tensor| output(&op, &[&x]).expect_err("refused").to_string();
        assert_eq!(message(Op::Exp, Tensor::scalar(1i32)), "Exp on i32 is not defined");
        assert_eq!(message(Op::Neg, Tensor::scalar(true)), "Neg on bool is not defined");
        let byte = Tensor::zeros(DType::F8E5M2, &[1]).expect("one byte");
        assert_eq!(message(Op::Exp, byte), "Exp on f8e5m2 is not defined");
    }
}
