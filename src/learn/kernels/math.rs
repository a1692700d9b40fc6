//! Functions of one `f32` without branches, so that loops over them become vector code.
//!
//! Greatest relative errors, measured over all of the range by the tests below: `exp` 1.5e-7, `expm1` 2.5e-7, `tanh` 3e-7,
//! `sigmoid` 2e-7, `log` 1.5e-7, `erf` 2e-7, `normal` 5e-7 from −9 on. Infinities and NaN
//! go where the functions themselves take them. Polynomials are least-maximum fits made for this file.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI, LOG2_E};

/// `1.5 · 2²³`: adding it rounds to an integer, which is then in the low bits.
const ROUNDER: f32 = 12_582_912.0;
/// The high bits of ln 2, which times an integer below 2¹⁰ is exact, and the rest.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// `a · b + c`, in one rounding where every machine of the target does it in one instruction.
#[inline(always)]
pub(super) fn madd(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

/// A polynomial in `x` by its coefficients from the constant on. Written out, since a loop keeps the loop around it from
/// becoming vector code.
macro_rules! polynomial {
    ($x:expr, [$constant:expr $(,)?] $(,)?) => { $constant };
    ($x:expr, [$constant:expr, $($higher:expr),+ $(,)?] $(,)?) => { madd(polynomial!($x, [$($higher),+]), $x, $constant) };
}

/// `2ⁿ`, for `n` from −126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `n` and `e^r − 1`, where `x = n ln 2 + r` and |r| ≤ ln 2 / 2.
#[inline(always)]
fn reduced(x: f32) -> (i32, f32) {
    let shifted = x * LOG2_E + ROUNDER;
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let whole = shifted - ROUNDER;
    let r = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    let p = polynomial!(r, [0.5, 0.166_665_38, 0.041_666_266, 0.008_367_247, 0.001_394_759_5]);
    (n, madd(r * r, p, r))
}

#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let clamped = if x > 89.0 { 89.0 } else { x };
    let clamped = if clamped < -104.0 { -104.0 } else { clamped };
    let (n, p) = reduced(clamped);
    let half = n >> 1;
    (1.0 + p) * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// `e^x − 1` for `x` up to 88; larger ones are taken as 88.
#[inline(always)]
pub(super) fn expm1(x: f32) -> f32 {
    let clamped = if x > 88.0 { 88.0 } else { x };
    let clamped = if clamped < -30.0 { -30.0 } else { clamped };
    let (n, p) = reduced(clamped);
    let scale = power_of_two(n);
    madd(scale, p, scale - 1.0)
}

#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let e = expm1(-2.0 * x.abs());
    (-e / (e + 2.0)).copysign(x)
}

#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub(super) fn log(x: f32) -> f32 {
    let tiny = x < f32::MIN_POSITIVE;
    let scaled = if tiny { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits();
    // The mantissa is brought to [√½, √2), of which 0x3f35_04f3 is the start.
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = (shifted as i32) >> 23;
    let f = f32::from_bits((shifted & 0x007f_ffff).wrapping_add(0x3f35_04f3)) - 1.0;
    let exponent = exponent as f32 - if tiny { 23.0 } else { 0.0 };
    let square = f * f;
    let p = polynomial!(
        f,
        [
            0.333_333_1,
            -0.249_999_87,
            0.200_022_27,
            -0.166_692_5,
            0.142_186_55,
            -0.123_843_72,
            0.118_730_2,
            -0.117_896_85,
            0.069_151_26,
        ],
    );
    let low = madd(square * f, p, exponent * LN_2_LOW) - 0.5 * square;
    let value = (f + low) + exponent * LN_2_HIGH;
    let value = if x == 0.0 { f32::NEG_INFINITY } else { value };
    let value = if x < 0.0 { f32::NAN } else { value };
    if x < f32::INFINITY { value } else { x }
}

/// `ln(1 + x)` for `x` in [0, 1].
#[inline(always)]
pub(super) fn log1p(x: f32) -> f32 {
    let sum = 1.0 + x;
    log(sum) + (x - (sum - 1.0)) / sum
}

/// `ln(1 + e^x)`
#[inline(always)]
pub(super) fn softplus(x: f32) -> f32 {
    (if x < 0.0 { 0.0 } else { x }) + log1p(exp(-x.abs()))
}

/// `e^{-scale · x²}`, where the scale is a power of two.
#[inline(always)]
fn gaussian(x: f32, scale: f32) -> f32 {
    let x = x.abs();
    let x = if x > 20.0 { 20.0 } else { x };
    // x² in two parts, the first exact, lest its rounding be multiplied by the exponential.
    let high = f32::from_bits(x.to_bits() & 0xffff_f000);
    let low = scale * (x - high) * (x + high);
    exp(-scale * high * high) * (1.0 - low * (1.0 - low * (0.5 - low * (1.0 / 6.0))))
}

/// `e^{z²} erfc(z)` for `z ≥ 0`.
#[inline(always)]
fn scaled_erfc(z: f32) -> f32 {
    let z = if z > 15.0 { 15.0 } else { z };
    // Times 1 + 2z it is smooth in (z − 2) / (z + 2).
    let (over, under) = (z + 2.0, 1.0 + 2.0 * z);
    let inverse = 1.0 / (over * under);
    let q = (z - 2.0) * under * inverse;
    let p = polynomial!(
        q,
        [
            1.276_978_4,
            -0.092_764_01,
            -0.166_031_73,
            0.164_055_94,
            -0.054_200_895,
            -0.008_061_755,
            0.008_619_043,
            0.001_311_364_1,
            -0.001_215_016_8,
            -0.000_391_718_93,
        ],
    );
    p * over * inverse
}

#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let magnitude = x.abs();
    let square = x * x;
    let p = polynomial!(
        square,
        [
            FRAC_2_SQRT_PI,
            -0.376_126_27,
            0.112_835_854,
            -0.026_853_811,
            0.005_188_327,
            -0.000_801_019_14,
            0.000_078_538_56
        ],
    );
    let tail = gaussian(x, 1.0) * scaled_erfc(magnitude);
    if magnitude < 1.0 { x * p } else { (1.0 - tail).copysign(x) }
}

/// The standard normal distribution function and density: `Φ(x)`, accurate in its lower tail, and `φ(x)`.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    const DENSITY_AT_0: f32 = 0.398_942_3;
    let gaussian = gaussian(x, 0.5);
    let tail = 0.5 * gaussian * scaled_erfc(x.abs() * FRAC_1_SQRT_2);
    (if x < 0.0 { tail } else { 1.0 - tail }, DENSITY_AT_0 * gaussian)
}

/// `x Φ(x)`
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    let product = x * normal(x).0;
    // −∞ · 0
    if x == f32::NEG_INFINITY { 0.0 } else { product }
}

/// The derivative of [`gelu`]: `Φ(x) + x φ(x)`.
#[inline(always)]
pub(super) fn gelu_derivative(x: f32) -> f32 {
    let (cdf, density) = normal(x);
    madd(x, density, cdf)
}

/// The argument of the sigmoid in `x σ(2 √(2/π) (x + 0.044715 x³))` and its derivative.
#[inline(always)]
pub(super) fn gelu_tanh_inner(x: f32) -> (f32, f32) {
    const SCALE: f32 = 1.595_769;
    let square = x * x;
    (SCALE * x * (1.0 + 0.044_715 * square), SCALE * (1.0 + 0.134_145 * square))
}

/// `tanh(softplus(x))`
#[inline(always)]
pub(super) fn tanh_softplus(x: f32) -> f32 {
    let e = exp(if x > 20.0 { 20.0 } else { x });
    let n = e * (e + 2.0);
    n / (n + 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The greatest relative error over `range`, by steps of the bits of an `f32`.
    fn check(name: &str, function: fn(f32) -> f32, exact: fn(f64) -> f64, range: (f32, f32), bound: f64) {
        let (low, high) = (f64::from(range.0), f64::from(range.1));
        let n_steps = 200_000;
        let mut worst = (0.0, 0.0);
        for step in 0..=n_steps {
            let x = (low + (high - low) * f64::from(step) / f64::from(n_steps)) as f32;
            for x in [x, x * 1e-4] {
                if x < range.0 || x > range.1 {
                    continue;
                }
                let expected = exact(f64::from(x));
                let error = (f64::from(function(x)) - expected).abs() / expected.abs().max(1e-37);
                if error > worst.0 {
                    worst = (error, x);
                }
            }
        }
        assert!(worst.0 <= bound, "{name}: {:.2e} at {}", worst.0, worst.1);
    }

    #[test]
    fn relative_errors_are_as_stated() {
        check("exp", exp, f64::exp, (-87.0, 88.7), 1.5e-7);
        check("expm1", expm1, f64::exp_m1, (-40.0, 40.0), 2.5e-7);
        check("tanh", tanh, f64::tanh, (-20.0, 20.0), 3e-7);
        check("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()), (-80.0, 80.0), 2e-7);
        check("log", log, f64::ln, (1e-38, 3.0), 1.5e-7);
        check("log", log, f64::ln, (1.0, 1e30), 1.5e-7);
        check("softplus", softplus, |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), (-80.0, 80.0), 3e-7);
        check("erf", erf, libm::erf, (-6.0, 6.0), 2e-7);
        check("normal", |x| normal(x).0, |x| 0.5 * libm::erfc(-x * 0.5f64.sqrt()), (-9.0, 9.0), 5e-7);
    }

    #[test]
    fn infinities_and_nan_are_as_the_functions_have_them() {
        let at = |function: fn(f32) -> f32| [f32::NEG_INFINITY, f32::INFINITY].map(function);
        assert_eq!(at(exp), [0.0, f32::INFINITY]);
        assert_eq!(at(tanh), [-1.0, 1.0]);
        assert_eq!(at(sigmoid), [0.0, 1.0]);
        assert_eq!(at(erf), [-1.0, 1.0]);
        assert_eq!(at(softplus), [0.0, f32::INFINITY]);
        assert_eq!(at(gelu), [0.0, f32::INFINITY]);
        assert_eq!((log(0.0), log(f32::INFINITY)), (f32::NEG_INFINITY, f32::INFINITY));
        assert!(log(-1.0).is_nan());
        assert_eq!((exp(100.0), exp(-110.0), exp(-100.0)), (f32::INFINITY, 0.0, 3.783_5e-44));
        for function in [exp, expm1, tanh, sigmoid, log, erf, softplus, gelu, gelu_derivative, tanh_softplus] {
            assert!(function(f32::NAN).is_nan());
        }
    }
}
