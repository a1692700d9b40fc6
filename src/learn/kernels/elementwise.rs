//! Functions of one number applied to every element, and their derivatives; of two numbers in `binary`.

mod binary;

pub use binary::{Binary, Side, add_assign, binary, binary_gradient, scale_add};

use super::math;
use super::parallel::{Parts, for_ranges, simd};

/// A function of one number, as ONNX defines the operator of its name.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // the names are ONNX's
pub enum Unary {
    Abs,
    Neg,
    Exp,
    Log,
    Sqrt,
    Reciprocal,
    Relu,
    LeakyRelu {
        alpha: f32,
    },
    Elu {
        alpha: f32,
    },
    Selu {
        alpha: f32,
        gamma: f32,
    },
    Celu {
        alpha: f32,
    },
    ThresholdedRelu {
        alpha: f32,
    },
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    HardSwish,
    Sigmoid,
    Tanh,
    Softplus,
    Softsign,
    Mish,
    Swish {
        alpha: f32,
    },
    Gelu,
    GeluTanh,
    Erf,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Asinh,
    Acosh,
    Atanh,
    Floor,
    Ceil,
    Round,
    Sign,
    Clip {
        min: f32,
        max: f32,
    },
    /// `scale · x + shift`
    Affine {
        scale: f32,
        shift: f32,
    },
    /// `x` to a constant power.
    PowConstant {
        exponent: f32,
    },
}

/// What a derivative is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// The function's input.
    Input,
    /// The function's output.
    Output,
    /// Neither.
    Nothing,
}

/// Elements that stay in the first cache between two passes over them.
const BLOCK: usize = 1024;

impl Unary {
    /// What [`gradient`] reads.
    #[must_use]
    pub fn needs(self) -> Needs {
        use Unary as U;
        match self {
            U::Neg | U::Floor | U::Ceil | U::Round | U::Sign | U::Affine { .. } => Needs::Nothing,
            U::Exp | U::Sqrt | U::Reciprocal | U::Relu | U::HardSigmoid { .. } | U::Sigmoid | U::Tanh | U::Tan => {
                Needs::Output
            }
            U::Abs | U::Log | U::LeakyRelu { .. } | U::Elu { .. } | U::Selu { .. } | U::Celu { .. } => Needs::Input,
            U::ThresholdedRelu { .. } | U::HardSwish | U::Softplus | U::Softsign | U::Mish => Needs::Input,
            U::Swish { .. } | U::Gelu | U::GeluTanh | U::Erf | U::Sin | U::Cos | U::Asin | U::Acos => Needs::Input,
            U::Atan | U::Sinh | U::Cosh | U::Asinh | U::Acosh | U::Atanh => Needs::Input,
            U::Clip { .. } | U::PowConstant { .. } => Needs::Input,
        }
    }

    /// The cost of one element, in cheap operations.
    fn cost(self) -> usize {
        use Unary as U;
        match self {
            U::Abs | U::Neg | U::Sqrt | U::Reciprocal | U::Relu | U::LeakyRelu { .. } | U::HardSwish => 1,
            U::ThresholdedRelu { .. } | U::HardSigmoid { .. } | U::Softsign | U::Floor | U::Ceil | U::Round => 1,
            U::Sign | U::Clip { .. } | U::Affine { .. } => 1,
            U::Exp | U::Log | U::Elu { .. } | U::Selu { .. } | U::Celu { .. } | U::Sigmoid | U::Tanh => 4,
            U::Softplus | U::Mish | U::Swish { .. } | U::Gelu | U::GeluTanh | U::Erf => 8,
            U::Sin | U::Cos | U::Tan | U::Asin | U::Acos | U::Atan | U::Sinh | U::Cosh | U::Asinh => 64,
            U::Acosh | U::Atanh | U::PowConstant { .. } => 64,
        }
    }
}

/// `y = unary(x)`
///
/// # Panics
/// When slices differ in length, as every function here.
pub fn forward(unary: Unary, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "as many outputs as inputs");
    in_blocks(unary.cost(), y, |start, y| {
        y.copy_from_slice(&x[start..start + y.len()]);
        apply(unary, y);
    });
}

/// `y = round(x)`, for a narrower type's `round`.
pub fn rounded(x: &[f32], y: &mut [f32], round: impl Fn(f32) -> f32 + Sync) {
    assert_eq!(x.len(), y.len(), "as many outputs as inputs");
    in_blocks(4, y, |start, y| y.iter_mut().zip(&x[start..]).for_each(|(y, &x)| *y = round(x)));
}

/// `y = unary(y)`
pub fn forward_in_place(unary: Unary, y: &mut [f32]) {
    in_blocks(unary.cost(), y, |_, y| apply(unary, y));
}

/// `dx = dy · unary'`, from the input `x` or the output `y`, whichever [`Unary::needs`] names; the other may be empty.
///
/// Where there is no derivative: at 0 that of Relu, `Abs` and `ThresholdedRelu`'s threshold is 0, that of the other
/// rectifiers is that of their negative side, that of Clip at its bounds is 1, that of `HardSigmoid` 0. Floor, Ceil, Round
/// and Sign have 0 everywhere.
pub fn gradient(unary: Unary, x: &[f32], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert_eq!(dy.len(), dx.len(), "as many gradients as elements");
    let saved = saved(unary, x, y, dx.len());
    in_blocks(unary.cost(), dx, |start, dx| {
        let range = start..start + dx.len();
        dx.copy_from_slice(&dy[range.clone()]);
        apply_derivative(unary, saved.get(range).unwrap_or(&[]), dx);
    });
}

/// [`gradient`] where `dx` holds `dy` before.
pub fn gradient_in_place(unary: Unary, x: &[f32], y: &[f32], dx: &mut [f32]) {
    let saved = saved(unary, x, y, dx.len());
    in_blocks(unary.cost(), dx, |start, dx| {
        apply_derivative(unary, saved.get(start..start + dx.len()).unwrap_or(&[]), dx);
    });
}

fn saved<'a>(unary: Unary, x: &'a [f32], y: &'a [f32], len: usize) -> &'a [f32] {
    let saved = match unary.needs() {
        Needs::Input => x,
        Needs::Output => y,
        Needs::Nothing => return &[],
    };
    assert_eq!(saved.len(), len, "{unary:?} has what its gradient needs");
    saved
}

fn in_blocks(cost: usize, y: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
    let parts = Parts::new(y);
    for_ranges(parts.len(), cost, |range| {
        // SAFETY: ranges of different pieces are disjoint.
        #[allow(unsafe_code)]
        let piece = unsafe { parts.part(range.clone()) };
        for (idx, block) in piece.chunks_mut(BLOCK).enumerate() {
            work(range.start + idx * BLOCK, block);
        }
    });
}

#[inline(always)]
fn map(y: &mut [f32], function: impl Fn(f32) -> f32) {
    simd(
        #[inline(always)]
        || {
            // A closure for each element would be called, not inlined, where the function is long.
            for y in y.iter_mut() {
                *y = function(*y);
            }
        },
    );
}

#[inline(always)]
fn each(y: &mut [f32], function: impl Fn(f32) -> f32) {
    y.iter_mut().for_each(|y| *y = function(*y));
}

/// `y = unary(y)` on this thread.
#[rustfmt::skip] // a line a function
pub(super) fn apply(unary: Unary, y: &mut [f32]) {
    use Unary as U;
    match unary {
        U::Abs => map(y, #[inline(always)] |x| x.abs()),
        U::Neg => map(y, #[inline(always)] |x| -x),
        U::Exp => map(y, math::exp),
        U::Log => map(y, math::log),
        U::Sqrt => map(y, #[inline(always)] |x| x.sqrt()),
        U::Reciprocal => map(y, #[inline(always)] |x| 1.0 / x),
        U::Relu => map(y, #[inline(always)] |x| if x < 0.0 { 0.0 } else { x }),
        U::LeakyRelu { alpha } => map(y, #[inline(always)] |x| if x < 0.0 { alpha * x } else { x }),
        U::Elu { alpha } => map(y, #[inline(always)] |x| if x < 0.0 { alpha * math::expm1(x) } else { x }),
        U::Selu { alpha, gamma } => {
            map(y, #[inline(always)] |x| gamma * if x <= 0.0 { alpha * math::expm1(x) } else { x });
        }
        U::Celu { alpha } => map(y, #[inline(always)] |x| if x < 0.0 { celu(alpha, x) } else { x }),
        U::ThresholdedRelu { alpha } => map(y, #[inline(always)] |x| if x > alpha { x } else { 0.0 }),
        U::HardSigmoid { alpha, beta } => map(y, #[inline(always)] |x| clip(alpha * x + beta, 0.0, 1.0)),
        U::HardSwish => map(y, #[inline(always)] |x| x * clip(x / 6.0 + 0.5, 0.0, 1.0)),
        U::Sigmoid => map(y, math::sigmoid),
        U::Tanh => map(y, math::tanh),
        U::Softplus => map(y, math::softplus),
        U::Softsign => map(y, #[inline(always)] |x| x / (1.0 + x.abs())),
        U::Mish => map(y, #[inline(always)] |x| x * math::tanh_softplus(x)),
        U::Swish { alpha } => map(y, #[inline(always)] |x| x * math::sigmoid(alpha * x)),
        U::Gelu => map(y, math::gelu),
        U::GeluTanh => map(y, #[inline(always)] |x| x * math::sigmoid(math::gelu_tanh_inner(x).0)),
        U::Erf => map(y, math::erf),
        U::Sin => each(y, libm::sinf),
        U::Cos => each(y, libm::cosf),
        U::Tan => each(y, libm::tanf),
        U::Asin => each(y, libm::asinf),
        U::Acos => each(y, libm::acosf),
        U::Atan => each(y, libm::atanf),
        U::Sinh => each(y, libm::sinhf),
        U::Cosh => each(y, libm::coshf),
        U::Asinh => each(y, libm::asinhf),
        U::Acosh => each(y, libm::acoshf),
        U::Atanh => each(y, libm::atanhf),
        U::Floor => map(y, #[inline(always)] |x| x.floor()),
        U::Ceil => map(y, #[inline(always)] |x| x.ceil()),
        U::Round => map(y, #[inline(always)] |x| x.round_ties_even()),
        U::Sign => map(y, sign),
        U::Clip { min, max } => map(y, #[inline(always)] |x| clip(x, min, max)),
        U::Affine { scale, shift } => map(y, #[inline(always)] |x| scale * x + shift),
        U::PowConstant { exponent } => power(y, exponent),
    }
}

#[inline(always)]
fn scale_by(saved: &[f32], dx: &mut [f32], derivative: impl Fn(f32) -> f32) {
    simd(
        #[inline(always)]
        || {
            for (dx, &saved) in dx.iter_mut().zip(saved) {
                *dx *= derivative(saved);
            }
        },
    );
}

#[inline(always)]
fn scale_each(saved: &[f32], dx: &mut [f32], derivative: impl Fn(f32) -> f32) {
    dx.iter_mut().zip(saved).for_each(|(dx, &saved)| *dx *= derivative(saved));
}

/// `dx *= unary'` on this thread, where `s` is what the derivative needs.
#[rustfmt::skip] // a line a function
fn apply_derivative(unary: Unary, s: &[f32], dx: &mut [f32]) {
    use Unary as U;
    match unary {
        U::Abs => scale_by(s, dx, #[inline(always)] |x| if x == 0.0 { 0.0 } else { 1f32.copysign(x) }),
        U::Neg => map(dx, #[inline(always)] |dx| -dx),
        U::Exp => scale_by(s, dx, #[inline(always)] |y| y),
        U::Log => scale_by(s, dx, #[inline(always)] |x| 1.0 / x),
        U::Sqrt => scale_by(s, dx, #[inline(always)] |y| 0.5 / y),
        U::Reciprocal => scale_by(s, dx, #[inline(always)] |y| -y * y),
        U::Relu => scale_by(s, dx, #[inline(always)] |y| step(y > 0.0)),
        U::LeakyRelu { alpha } => scale_by(s, dx, #[inline(always)] |x| if x > 0.0 { 1.0 } else { alpha }),
        U::Elu { alpha } => scale_by(s, dx, #[inline(always)] |x| if x > 0.0 { 1.0 } else { alpha * math::exp(x) }),
        U::Selu { alpha, gamma } => {
            scale_by(s, dx, #[inline(always)] |x| gamma * if x > 0.0 { 1.0 } else { alpha * math::exp(x) });
        }
        U::Celu { alpha } => scale_by(s, dx, #[inline(always)] |x| if x > 0.0 { 1.0 } else { math::exp(x / alpha) }),
        U::ThresholdedRelu { alpha } => scale_by(s, dx, #[inline(always)] |x| step(x > alpha)),
        U::HardSigmoid { alpha, .. } => {
            scale_by(s, dx, #[inline(always)] |y| if y > 0.0 && y < 1.0 { alpha } else { 0.0 });
        }
        U::HardSwish => scale_by(s, dx, hard_swish_derivative),
        U::Sigmoid => scale_by(s, dx, #[inline(always)] |y| y * (1.0 - y)),
        U::Tanh => scale_by(s, dx, #[inline(always)] |y| 1.0 - y * y),
        U::Softplus => scale_by(s, dx, math::sigmoid),
        U::Softsign => scale_by(s, dx, #[inline(always)] |x| { let d = 1.0 + x.abs(); 1.0 / (d * d) }),
        U::Mish => scale_by(s, dx, mish_derivative),
        U::Swish { alpha } => scale_by(s, dx, #[inline(always)] |x| swish_derivative(x, alpha * x, alpha)),
        U::Gelu => scale_by(s, dx, math::gelu_derivative),
        U::GeluTanh => scale_by(s, dx, gelu_tanh_derivative),
        U::Erf => scale_by(s, dx, #[inline(always)] |x| std::f32::consts::FRAC_2_SQRT_PI * math::exp(-x * x)),
        U::Sin => scale_each(s, dx, libm::cosf),
        U::Cos => scale_each(s, dx, |x| -libm::sinf(x)),
        U::Tan => scale_by(s, dx, #[inline(always)] |y| 1.0 + y * y),
        U::Asin => scale_by(s, dx, #[inline(always)] |x| 1.0 / ((1.0 - x) * (1.0 + x)).sqrt()),
        U::Acos => scale_by(s, dx, #[inline(always)] |x| -1.0 / ((1.0 - x) * (1.0 + x)).sqrt()),
        U::Atan => scale_by(s, dx, #[inline(always)] |x| 1.0 / (1.0 + x * x)),
        U::Sinh => scale_each(s, dx, libm::coshf),
        U::Cosh => scale_each(s, dx, libm::sinhf),
        U::Asinh => scale_by(s, dx, #[inline(always)] |x| 1.0 / (1.0 + x * x).sqrt()),
        U::Acosh => scale_by(s, dx, #[inline(always)] |x| 1.0 / ((x - 1.0) * (x + 1.0)).sqrt()),
        U::Atanh => scale_by(s, dx, #[inline(always)] |x| 1.0 / ((1.0 - x) * (1.0 + x))),
        U::Floor | U::Ceil | U::Round | U::Sign => dx.fill(0.0),
        U::Clip { min, max } => scale_by(s, dx, #[inline(always)] |x| step(x >= min && x <= max)),
        U::Affine { scale, .. } => map(dx, #[inline(always)] |dx| dx * scale),
        U::PowConstant { exponent } => power_derivative(s, dx, exponent),
    }
}

#[inline(always)]
fn step(above: bool) -> f32 {
    if above { 1.0 } else { 0.0 }
}

#[inline(always)]
fn clip(x: f32, min: f32, max: f32) -> f32 {
    let x = if x < min { min } else { x };
    if x > max { max } else { x }
}

#[inline(always)]
fn sign(x: f32) -> f32 {
    if x == 0.0 || x.is_nan() { x } else { 1f32.copysign(x) }
}

#[inline(always)]
fn celu(alpha: f32, x: f32) -> f32 {
    let y = alpha * math::expm1(x / alpha);
    if y > 0.0 { 0.0 } else { y }
}

#[inline(always)]
fn hard_swish_derivative(x: f32) -> f32 {
    let inside = x / 3.0 + 0.5;
    let bounded = if x <= -3.0 { 0.0 } else { inside };
    if x >= 3.0 { 1.0 } else { bounded }
}

#[inline(always)]
fn mish_derivative(x: f32) -> f32 {
    let t = math::tanh_softplus(x);
    t + x * math::sigmoid(x) * (1.0 - t * t)
}

/// The derivative of `x σ(inner)`, where `slope` is that of `inner`.
#[inline(always)]
fn swish_derivative(x: f32, inner: f32, slope: f32) -> f32 {
    let s = math::sigmoid(inner);
    s + x * slope * s * (1.0 - s)
}

#[inline(always)]
fn gelu_tanh_derivative(x: f32) -> f32 {
    let (inner, slope) = math::gelu_tanh_inner(x);
    swish_derivative(x, inner, slope)
}

#[rustfmt::skip] // a line a case
fn power(y: &mut [f32], exponent: f32) {
    if exponent == 2.0 {
        map(y, #[inline(always)] |x| x * x);
    } else if exponent == 3.0 {
        map(y, #[inline(always)] |x| x * x * x);
    } else if exponent == 1.0 {
        // y stays
    } else if exponent == -1.0 {
        map(y, #[inline(always)] |x| 1.0 / x);
    } else {
        each(y, |x| libm::powf(x, exponent));
    }
}

#[rustfmt::skip] // a line a case
fn power_derivative(x: &[f32], dx: &mut [f32], exponent: f32) {
    if exponent == 2.0 {
        scale_by(x, dx, #[inline(always)] |x| 2.0 * x);
    } else if exponent == 3.0 {
        scale_by(x, dx, #[inline(always)] |x| 3.0 * x * x);
    } else if exponent == 0.0 {
        dx.fill(0.0);
    } else {
        scale_each(x, dx, |x| exponent * libm::powf(x, exponent - 1.0));
    }
}

#[cfg(test)]
mod tests;
