//! Values and derivatives against `f64`, over ranges where each function is smooth and at the edges where it is not.

use super::super::math;
use super::super::testing::{close, differences, dot, numbers, on_any_pool, wide};
use super::*;
use crate::learn::kernels::reduce;

const N: usize = 200_000;

#[rustfmt::skip] // a line a function
fn exact(unary: Unary) -> Box<dyn Fn(f64) -> f64> {
    use Unary as U;
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    match unary {
        U::Abs => Box::new(f64::abs),
        U::Neg => Box::new(|x| -x),
        U::Exp => Box::new(f64::exp),
        U::Log => Box::new(f64::ln),
        U::Sqrt => Box::new(f64::sqrt),
        U::Reciprocal => Box::new(f64::recip),
        U::Relu => Box::new(|x| x.max(0.0)),
        U::LeakyRelu { alpha } => Box::new(move |x| if x < 0.0 { f64::from(alpha) * x } else { x }),
        U::Elu { alpha } => Box::new(move |x| if x < 0.0 { f64::from(alpha) * x.exp_m1() } else { x }),
        U::Selu { alpha, gamma } => {
            Box::new(move |x| f64::from(gamma) * if x < 0.0 { f64::from(alpha) * x.exp_m1() } else { x })
        }
        U::Celu { alpha } => {
            Box::new(move |x| if x < 0.0 { f64::from(alpha) * (x / f64::from(alpha)).exp_m1() } else { x })
        }
        U::ThresholdedRelu { alpha } => Box::new(move |x| if x > f64::from(alpha) { x } else { 0.0 }),
        U::HardSigmoid { alpha, beta } => Box::new(move |x| (f64::from(alpha) * x + f64::from(beta)).clamp(0.0, 1.0)),
        U::HardSwish => Box::new(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        U::Sigmoid => Box::new(sigmoid),
        U::Tanh => Box::new(f64::tanh),
        U::Softplus => Box::new(softplus),
        U::Softsign => Box::new(|x| x / (1.0 + x.abs())),
        U::Mish => Box::new(move |x| x * softplus(x).tanh()),
        U::Swish { alpha } => Box::new(move |x| x * sigmoid(f64::from(alpha) * x)),
        U::Gelu => Box::new(|x| 0.5 * x * libm::erfc(-x * 0.5f64.sqrt())),
        U::GeluTanh => {
            Box::new(move |x| x * sigmoid((8.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))))
        }
        U::Erf => Box::new(libm::erf),
        U::Sin => Box::new(f64::sin),
        U::Cos => Box::new(f64::cos),
        U::Tan => Box::new(f64::tan),
        U::Asin => Box::new(f64::asin),
        U::Acos => Box::new(f64::acos),
        U::Atan => Box::new(f64::atan),
        U::Sinh => Box::new(f64::sinh),
        U::Cosh => Box::new(f64::cosh),
        U::Asinh => Box::new(libm::asinh),
        U::Acosh => Box::new(libm::acosh),
        U::Atanh => Box::new(libm::atanh),
        U::Floor => Box::new(f64::floor),
        U::Ceil => Box::new(f64::ceil),
        U::Round => Box::new(f64::round_ties_even),
        U::Sign => Box::new(f64::signum),
        U::Clip { min, max } => Box::new(move |x| x.clamp(f64::from(min), f64::from(max))),
        U::Affine { scale, shift } => Box::new(move |x| f64::from(scale) * x + f64::from(shift)),
        U::PowConstant { exponent } => Box::new(move |x| x.powf(f64::from(exponent))),
    }
}

/// Values and derivatives over `range`, each within a relative error, of elements that lie 1e-3 off the `kinks`.
fn check(unary: Unary, range: (f32, f32), kinks: &[f32]) {
    let function = exact(unary);
    let middle = f32::midpoint(range.0, range.1);
    let x: Vec<f32> = numbers(N, 7).iter().map(|x| middle + x * (range.1 - middle)).collect();
    let y = on_any_pool(|| {
        let mut y = vec![f32::NAN; N];
        forward(unary, &x, &mut y);
        y
    });
    let mut in_place = x.clone();
    forward_in_place(unary, &mut in_place);
    assert_eq!(y, in_place, "{unary:?}");
    let dy = numbers(N, 8);
    let (input, output) = match unary.needs() {
        Needs::Input => (&x[..], &[][..]),
        Needs::Output => (&[][..], &y[..]),
        Needs::Nothing => (&[][..], &[][..]),
    };
    let dx = on_any_pool(|| {
        let mut dx = vec![f32::NAN; N];
        gradient(unary, input, output, &dy, &mut dx);
        dx
    });
    let mut in_place = dy.clone();
    gradient_in_place(unary, input, output, &mut in_place);
    assert_eq!(dx, in_place, "{unary:?}");
    for idx in (0..N).step_by(7) {
        let wide = f64::from(x[idx]);
        let expected = function(wide);
        let error = (f64::from(y[idx]) - expected).abs() / expected.abs().max(5e-2);
        assert!(error < 2e-6, "{unary:?} at {wide}: {} for {expected}", y[idx]);
        if kinks.iter().any(|kink| (kink - x[idx]).abs() < 1e-3) {
            continue;
        }
        let slope = differences(&[wide], |x| function(x[0]))[0] * f64::from(dy[idx]);
        let error = (f64::from(dx[idx]) - slope).abs() / slope.abs().max(5e-2);
        assert!(error < 1e-5, "{unary:?}' at {wide}: {} for {slope}", dx[idx]);
    }
}

#[test]
fn values_and_derivatives() {
    use Unary as U;
    let plain = [U::Neg, U::Exp, U::Tanh, U::Softplus, U::Softsign, U::Mish, U::Gelu, U::GeluTanh, U::Erf, U::Sigmoid];
    let library = [U::Sin, U::Cos, U::Atan, U::Sinh, U::Cosh, U::Asinh];
    for unary in plain.into_iter().chain(library) {
        check(unary, (-5.0, 5.0), &[]);
    }
    for unary in [U::Swish { alpha: 1.5 }, U::Affine { scale: 3.0, shift: -1.0 }] {
        check(unary, (-5.0, 5.0), &[]);
    }
    for exponent in [2.0, 3.0, 1.0] {
        check(U::PowConstant { exponent }, (-5.0, 5.0), &[]);
    }
    for unary in [U::Log, U::Sqrt, U::Reciprocal, U::PowConstant { exponent: -1.0 }, U::PowConstant { exponent: 1.7 }] {
        check(unary, (0.1, 9.0), &[]);
    }
    let rectifiers = [U::Abs, U::Relu, U::LeakyRelu { alpha: 0.1 }, U::Elu { alpha: 1.3 }, U::Celu { alpha: 0.7 }];
    for unary in rectifiers.into_iter().chain([U::Selu { alpha: 1.6, gamma: 1.1 }, U::Sign]) {
        check(unary, (-5.0, 5.0), &[0.0]);
    }
    check(U::ThresholdedRelu { alpha: 1.5 }, (-5.0, 5.0), &[1.5]);
    check(U::HardSigmoid { alpha: 0.25, beta: 0.5 }, (-5.0, 5.0), &[-2.0, 2.0]);
    check(U::HardSwish, (-5.0, 5.0), &[-3.0, 3.0]);
    check(U::Clip { min: -1.0, max: 2.0 }, (-5.0, 5.0), &[-1.0, 2.0]);
    let whole: Vec<f32> = (-11..=11).map(|x| x as f32 / 2.0).collect();
    for unary in [U::Floor, U::Ceil, U::Round] {
        check(unary, (-5.0, 5.0), &whole);
    }
    check(U::Tan, (-1.3, 1.3), &[]);
    for unary in [U::Asin, U::Acos, U::Atanh] {
        check(unary, (-0.95, 0.95), &[]);
    }
    check(U::Acosh, (1.1, 9.0), &[]);
}

#[test]
fn edges_are_as_onnx_and_pytorch_have_them() {
    let value = |unary, x: f32| {
        let mut y = [x];
        forward_in_place(unary, &mut y);
        y[0]
    };
    let slope = |unary: Unary, x: f32| {
        let mut dx = [1.0];
        gradient_in_place(unary, &[x], &[value(unary, x)], &mut dx);
        dx[0]
    };
    assert_eq!([0.5, 1.5, 2.5, -2.5, -0.7].map(|x| value(Unary::Round, x)), [0.0, 2.0, 2.0, -2.0, -1.0]);
    assert_eq!([-0.0f32, 3.0, -3.0].map(|x| value(Unary::Sign, x)), [0.0, 1.0, -1.0]);
    for unary in [Unary::Relu, Unary::Sign, Unary::Clip { min: 0.0, max: 1.0 }, Unary::Gelu, Unary::HardSwish] {
        assert!(value(unary, f32::NAN).is_nan(), "{unary:?}");
    }
    for unary in [Unary::Abs, Unary::Relu, Unary::Sign, Unary::Round, Unary::ThresholdedRelu { alpha: 0.0 }] {
        assert_eq!(slope(unary, 0.0), 0.0, "{unary:?}");
    }
    assert_eq!([-1.0, 2.0, 2.5].map(|x| slope(Unary::Clip { min: -1.0, max: 2.0 }, x)), [1.0, 1.0, 0.0]);
    assert_eq!(slope(Unary::PowConstant { exponent: 0.0 }, 3.0), 0.0);
    assert_eq!(value(Unary::Gelu, -30.0), -0.0);
    assert!(math::gelu_derivative(-30.0).abs() < 1e-30);
}

fn check_pair(binary_op: Binary, function: fn(f64, f64) -> f64, a_shape: &[usize], b_shape: &[usize], low: f32) {
    let size = |shape: &[usize]| shape.iter().product::<usize>();
    let positive = |seed, n| numbers(n, seed).iter().map(|x| if low > 0.0 { x.abs() + low } else { *x }).collect();
    let (a, b): (Vec<f32>, Vec<f32>) = (positive(1, size(a_shape)), positive(2, size(b_shape)));
    let rank = a_shape.len().max(b_shape.len());
    let padded = |shape: &[usize]| [vec![1; rank - shape.len()], shape.to_vec()].concat();
    let (a_full, b_full) = (padded(a_shape), padded(b_shape));
    let shape: Vec<usize> = (0..rank).map(|axis| if a_full[axis] == 1 { b_full[axis] } else { a_full[axis] }).collect();
    let index = |of: &[usize], mut flat: usize| {
        let (mut offset, mut stride) = (0, 1);
        for axis in (0..rank).rev() {
            offset += if of[axis] == 1 { 0 } else { flat % shape[axis] * stride };
            stride *= of[axis];
            flat /= shape[axis];
        }
        offset
    };
    let n = size(&shape);
    let what = format!("{binary_op:?} {a_shape:?} {b_shape:?}");
    let of = |a: &[f64], b: &[f64]| -> Vec<f64> {
        (0..n).map(|idx| function(a[index(&a_full, idx)], b[index(&b_full, idx)])).collect()
    };
    let y = on_any_pool(|| {
        let mut y = vec![f32::NAN; n];
        binary(binary_op, &a, a_shape, &b, b_shape, &mut y);
        y
    });
    close(&what, &y, &of(&wide(&a), &wide(&b)), 1e-6);
    if n > 200 {
        return;
    }
    let dy = numbers(n, 3);
    for side in [Side::Left, Side::Right] {
        let mut d = vec![f32::NAN; n];
        binary_gradient(binary_op, side, (&a, a_shape), (&b, b_shape), &dy, &mut d);
        let (operand, operand_shape) = if side == Side::Left { (&a, a_shape) } else { (&b, b_shape) };
        let mut sum = vec![f32::NAN; operand.len()];
        let n_new = shape.len() - operand_shape.len();
        let is_broadcast = |axis: &usize| *axis < n_new || operand_shape[axis - n_new] != shape[*axis];
        let axes: Vec<usize> = (0..shape.len()).filter(is_broadcast).collect();
        reduce::reduce(reduce::Reduction::Sum, &d, &shape, &axes, &mut sum);
        let expected = match side {
            Side::Left => differences(&wide(&a), |a| dot(&of(a, &wide(&b)), &dy)),
            Side::Right => differences(&wide(&b), |b| dot(&of(&wide(&a), b), &dy)),
        };
        close(&format!("{what} {side:?}"), &sum, &expected, 1e-5);
    }
}

#[test]
fn pairs_broadcast() {
    type Case = (Binary, fn(f64, f64) -> f64, f32);
    let cases: [Case; 8] = [
        (Binary::Add, |a, b| a + b, 0.0),
        (Binary::Sub, |a, b| a - b, 0.0),
        (Binary::Mul, |a, b| a * b, 0.0),
        (Binary::Div, |a, b| a / b, 0.5),
        (Binary::Pow, f64::powf, 0.5),
        (Binary::Max, f64::max, 0.0),
        (Binary::Min, f64::min, 0.0),
        (Binary::PRelu, |a, b| if a < 0.0 { a * b } else { a }, 0.0),
    ];
    for (op, function, low) in cases {
        let check = |a: &[usize], b: &[usize]| check_pair(op, function, a, b, low);
        check(&[3, 5], &[3, 5]);
        check(&[2, 3, 5], &[5]);
        check(&[2, 3, 5], &[]);
        check(&[], &[7]);
        check(&[2, 3, 2, 2], &[1, 3, 1, 1]);
        check(&[3, 1], &[1, 4]);
        check(&[2, 1, 3], &[4, 1]);
        check(&[0, 3], &[3]);
        check(&[311, 307], &[307]);
        check(&[7, 13, 33, 31], &[13, 1, 1]);
    }
}

#[test]
fn ties_are_halved_and_sums_are_added() {
    for op in [Binary::Max, Binary::Min] {
        let mut d = [0.0; 2];
        binary_gradient(op, Side::Left, (&[1.0, 2.0], &[2]), (&[1.0, 2.0], &[2]), &[1.0, 4.0], &mut d);
        assert_eq!(d, [0.5, 2.0], "{op:?}");
    }
    let mut y = [1.0, 2.0];
    add_assign(&[3.0, 4.0], &mut y);
    scale_add(0.5, &[2.0, 4.0], &mut y);
    assert_eq!(y, [5.0, 8.0]);
}
