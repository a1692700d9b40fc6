//! Functions of one number and their derivatives, in candle's operators.

use std::f64::consts::{FRAC_2_SQRT_PI, PI, SQRT_2};

use candle_core::{DType, Result, Tensor};

use crate::learn::kernels::elementwise::Unary;

/// `f(x)`, element by element.
pub(super) fn forward(function: Unary, x: &Tensor) -> Result<Tensor> {
    match function {
        Unary::Abs => x.abs(),
        Unary::Neg => x.neg(),
        Unary::Exp => x.exp(),
        Unary::Log => x.log(),
        Unary::Sqrt => x.sqrt(),
        Unary::Reciprocal => x.recip(),
        Unary::Relu => select(&x.gt(0.0)?, x, &x.zeros_like()?),
        Unary::LeakyRelu { alpha } => select(&x.ge(0.0)?, x, &x.affine(alpha.into(), 0.0)?),
        Unary::Elu { alpha } => select(&x.ge(0.0)?, x, &expm1(x)?.affine(alpha.into(), 0.0)?),
        Unary::Selu { alpha, gamma } => {
            let (alpha, gamma) = (f64::from(alpha), f64::from(gamma));
            select(&x.gt(0.0)?, &x.affine(gamma, 0.0)?, &expm1(x)?.affine(alpha * gamma, 0.0)?)
        }
        Unary::Celu { alpha } => {
            let scaled = x.affine(1.0 / f64::from(alpha), 0.0)?;
            select(&x.ge(0.0)?, x, &expm1(&scaled)?.affine(alpha.into(), 0.0)?)
        }
        Unary::ThresholdedRelu { alpha } => select(&x.gt(f64::from(alpha))?, x, &x.zeros_like()?),
        Unary::HardSigmoid { alpha, beta } => clip(&x.affine(alpha.into(), beta.into())?, 0.0, 1.0),
        Unary::HardSwish => x * clip(&x.affine(1.0 / 6.0, 0.5)?, 0.0, 1.0)?,
        Unary::Sigmoid => sigmoid(x),
        Unary::Tanh => x.tanh(),
        Unary::Softplus => softplus(x),
        Unary::Softsign => x / x.abs()?.affine(1.0, 1.0)?,
        Unary::Mish => x * softplus(x)?.tanh()?,
        Unary::Swish { alpha } => x * sigmoid(&x.affine(alpha.into(), 0.0)?)?,
        Unary::Gelu => x * normal_distribution(x)?,
        Unary::GeluTanh => (x * gelu_tanh_inner(x)?.tanh()?.affine(0.5, 0.5)?)?.contiguous(),
        Unary::Erf => erf(x),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tan => x.sin()? / x.cos()?,
        Unary::Asin => on_host(x, f64::asin),
        Unary::Acos => on_host(x, f64::acos),
        Unary::Atan => on_host(x, f64::atan),
        Unary::Sinh => on_host(x, f64::sinh),
        Unary::Cosh => on_host(x, f64::cosh),
        Unary::Asinh => on_host(x, f64::asinh),
        Unary::Acosh => on_host(x, f64::acosh),
        Unary::Atanh => on_host(x, f64::atanh),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => on_host(x, f64::round_ties_even),
        Unary::Sign => on_host(x, |x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        }),
        Unary::Clip { min, max } => clip(x, min.into(), max.into()),
        Unary::Affine { scale, shift } => x.affine(scale.into(), shift.into()),
        Unary::PowConstant { exponent } => power(x, exponent.into()),
    }
}

/// `f′(x)`, element by element; where it does not exist, as the kernels have it. `y` is `f(x)`, and only one of the two
/// may be given, see [`Unary`].
pub(super) fn derivative(function: Unary, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let ones = || y.ones_like();
    let zeros = || y.zeros_like();
    match function {
        Unary::Abs => forward(Unary::Sign, x),
        Unary::Neg => ones()?.neg(),
        Unary::Exp => Ok(y.clone()),
        Unary::Log => x.recip(),
        Unary::Sqrt => y.recip()?.affine(0.5, 0.0),
        Unary::Reciprocal => y.sqr()?.neg(),
        Unary::Relu => select(&y.gt(0.0)?, &ones()?, &zeros()?),
        Unary::LeakyRelu { alpha } => select(&x.gt(0.0)?, &ones()?, &full(x, alpha.into())?),
        Unary::Elu { alpha } => select(&x.gt(0.0)?, &ones()?, &x.exp()?.affine(alpha.into(), 0.0)?),
        Unary::Selu { alpha, gamma } => {
            let (alpha, gamma) = (f64::from(alpha), f64::from(gamma));
            select(&x.gt(0.0)?, &full(x, gamma)?, &x.exp()?.affine(alpha * gamma, 0.0)?)
        }
        Unary::Celu { alpha } => select(&x.gt(0.0)?, &ones()?, &x.affine(1.0 / f64::from(alpha), 0.0)?.exp()?),
        Unary::ThresholdedRelu { alpha } => select(&x.gt(f64::from(alpha))?, &ones()?, &zeros()?),
        Unary::HardSigmoid { alpha, .. } => {
            let inside = (y.gt(0.0)?.to_dtype(y.dtype())? * y.lt(1.0)?.to_dtype(y.dtype())?)?;
            inside.affine(alpha.into(), 0.0)
        }
        Unary::HardSwish => {
            let gate = clip(&x.affine(1.0 / 6.0, 0.5)?, 0.0, 1.0)?;
            let slope = (inside(&x.affine(1.0 / 6.0, 0.5)?, 0.0, 1.0)? * x)?.affine(1.0 / 6.0, 0.0)?;
            gate + slope
        }
        Unary::Sigmoid => y * y.affine(-1.0, 1.0)?,
        Unary::Tanh => y.sqr()?.affine(-1.0, 1.0),
        Unary::Softplus => sigmoid(x),
        Unary::Softsign => x.abs()?.affine(1.0, 1.0)?.sqr()?.recip(),
        Unary::Mish => {
            let gate = softplus(x)?.tanh()?;
            let slope = ((x * sigmoid(x)?)? * gate.sqr()?.affine(-1.0, 1.0)?)?;
            gate + slope
        }
        Unary::Swish { alpha } => {
            let gate = sigmoid(&x.affine(alpha.into(), 0.0)?)?;
            let slope = ((x * &gate)? * gate.affine(-1.0, 1.0)?)?.affine(alpha.into(), 0.0)?;
            gate + slope
        }
        Unary::Gelu => normal_distribution(x)? + (x * normal_density(x)?)?,
        Unary::GeluTanh => {
            let gate = gelu_tanh_inner(x)?.tanh()?;
            let inner_slope = x.sqr()?.affine((2.0 / PI).sqrt() * 3.0 * 0.044715, (2.0 / PI).sqrt())?;
            let slope = ((x * gate.sqr()?.affine(-1.0, 1.0)?)? * inner_slope)?.affine(0.5, 0.0)?;
            gate.affine(0.5, 0.5)? + slope
        }
        Unary::Erf => x.sqr()?.neg()?.exp()?.affine(FRAC_2_SQRT_PI, 0.0),
        Unary::Sin => x.cos(),
        Unary::Cos => x.sin()?.neg(),
        Unary::Tan => y.sqr()?.affine(1.0, 1.0),
        Unary::Asin => x.sqr()?.affine(-1.0, 1.0)?.sqrt()?.recip(),
        Unary::Acos => x.sqr()?.affine(-1.0, 1.0)?.sqrt()?.recip()?.neg(),
        Unary::Atan => x.sqr()?.affine(1.0, 1.0)?.recip(),
        Unary::Sinh => on_host(x, f64::cosh),
        Unary::Cosh => on_host(x, f64::sinh),
        Unary::Asinh => x.sqr()?.affine(1.0, 1.0)?.sqrt()?.recip(),
        Unary::Acosh => x.sqr()?.affine(1.0, -1.0)?.sqrt()?.recip(),
        Unary::Atanh => x.sqr()?.affine(-1.0, 1.0)?.recip(),
        Unary::Floor | Unary::Ceil | Unary::Round | Unary::Sign => zeros(),
        Unary::Clip { min, max } => inside(x, min.into(), max.into()),
        Unary::Affine { .. } => unreachable!("its gradient is an affine function again"),
        Unary::PowConstant { exponent } => {
            let exponent = f64::from(exponent);
            power(x, exponent - 1.0)?.affine(exponent, 0.0)
        }
    }
}

/// A function that candle does not have, on the host.
fn on_host(x: &Tensor, function: impl Fn(f64) -> f64) -> Result<Tensor> {
    let values = x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?.into_iter().map(function).collect();
    Tensor::from_vec(values, x.shape(), x.device())?.to_dtype(x.dtype())
}

fn full(like: &Tensor, value: f64) -> Result<Tensor> {
    like.ones_like()?.affine(value, 0.0)
}

fn select(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    condition.where_cond(a, b)
}

fn clip(x: &Tensor, min: f64, max: f64) -> Result<Tensor> {
    x.maximum(&full(x, min)?)?.minimum(&full(x, max)?)
}

/// 1 from `min` to `max`, both included, else 0.
fn inside(x: &Tensor, min: f64, max: f64) -> Result<Tensor> {
    x.ge(min)?.to_dtype(x.dtype())? * x.le(max)?.to_dtype(x.dtype())?
}

fn expm1(x: &Tensor) -> Result<Tensor> {
    on_host(x, f64::exp_m1)
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    x.neg()?.exp()?.affine(1.0, 1.0)?.recip()
}

fn softplus(x: &Tensor) -> Result<Tensor> {
    let tail = on_host(&x.abs()?.neg()?, |x| x.exp().ln_1p())?;
    select(&x.gt(0.0)?, x, &x.zeros_like()?)? + tail
}

fn erf(x: &Tensor) -> Result<Tensor> {
    on_host(x, libm::erf)
}

fn normal_distribution(x: &Tensor) -> Result<Tensor> {
    erf(&x.affine(1.0 / SQRT_2, 0.0)?)?.affine(0.5, 0.5)
}

fn normal_density(x: &Tensor) -> Result<Tensor> {
    x.sqr()?.affine(-0.5, 0.0)?.exp()?.affine(FRAC_2_SQRT_PI / (2.0 * SQRT_2), 0.0)
}

fn gelu_tanh_inner(x: &Tensor) -> Result<Tensor> {
    let cubed = (x.sqr()? * x)?;
    (cubed.affine(0.044715, 0.0)? + x)?.affine((2.0 / PI).sqrt(), 0.0)
}

fn power(x: &Tensor, exponent: f64) -> Result<Tensor> {
    on_host(x, |x| x.powf(exponent))
}
