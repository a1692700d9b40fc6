//! Operators that act on each element by itself.

use super::{Lowered, Lowering};
use crate::graph::Op;
use crate::graph::op::{Alpha, Approximate, Gelu, HardSigmoid, LeakyRelu, Selu};
use crate::learn::exec::ExecError;
use crate::learn::exec::program::{Id, Kind};
use crate::learn::kernels::elementwise::{Binary, Unary};

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    if let Some(function) = unary(op) {
        let x = lowering.input(0)?;
        return Ok(Some(vec![lowering.emit().unary(function, x)]));
    }
    if let Some(function) = binary(op) {
        return folded(lowering, function).map(|y| Some(vec![y]));
    }
    Ok(Some(vec![match op {
        Op::Identity => lowering.input(0)?,
        Op::Pow => power(lowering)?,
        Op::Clip => clip(lowering)?,
        Op::Mean => {
            let sum = folded(lowering, Binary::Add)?;
            let n = lowering.inputs()?.len();
            lowering.emit().affine(sum, 1.0 / n as f64, 0.0)
        }
        Op::Where => {
            let [condition, a, b] = [lowering.input(0)?, lowering.input(1)?, lowering.input(2)?];
            lowering.emit().select(condition, a, b)
        }
        Op::BiasGelu => {
            let sum = folded(lowering, Binary::Add)?;
            lowering.emit().unary(Unary::Gelu, sum)
        }
        Op::FastGelu => {
            let sum = folded(lowering, Binary::Add)?;
            lowering.emit().unary(Unary::GeluTanh, sum)
        }
        _ => return Ok(None),
    }]))
}

/// The function of one number that an operator is.
fn unary(op: &Op) -> Option<Unary> {
    Some(match op {
        Op::Abs => Unary::Abs,
        Op::Acos => Unary::Acos,
        Op::Acosh => Unary::Acosh,
        Op::Asin => Unary::Asin,
        Op::Asinh => Unary::Asinh,
        Op::Atan => Unary::Atan,
        Op::Atanh => Unary::Atanh,
        Op::Ceil => Unary::Ceil,
        Op::Celu(Alpha { alpha }) => Unary::Celu { alpha: *alpha },
        Op::Cos => Unary::Cos,
        Op::Cosh => Unary::Cosh,
        Op::Elu(Alpha { alpha }) => Unary::Elu { alpha: *alpha },
        Op::Erf => Unary::Erf,
        Op::Exp => Unary::Exp,
        Op::Floor => Unary::Floor,
        Op::Gelu(Gelu { approximate: Approximate::None }) => Unary::Gelu,
        Op::Gelu(Gelu { approximate: Approximate::Tanh }) => Unary::GeluTanh,
        Op::HardSigmoid(HardSigmoid { alpha, beta }) => Unary::HardSigmoid { alpha: *alpha, beta: *beta },
        Op::HardSwish => Unary::HardSwish,
        Op::LeakyRelu(LeakyRelu { alpha }) => Unary::LeakyRelu { alpha: *alpha },
        Op::Log => Unary::Log,
        Op::Mish => Unary::Mish,
        Op::Neg => Unary::Neg,
        Op::Reciprocal => Unary::Reciprocal,
        Op::Relu => Unary::Relu,
        Op::Round => Unary::Round,
        Op::Selu(Selu { alpha, gamma }) => Unary::Selu { alpha: *alpha, gamma: *gamma },
        Op::Sigmoid => Unary::Sigmoid,
        Op::Sign => Unary::Sign,
        Op::Sin => Unary::Sin,
        Op::Sinh => Unary::Sinh,
        Op::Softplus => Unary::Softplus,
        Op::Softsign => Unary::Softsign,
        Op::Sqrt => Unary::Sqrt,
        Op::Swish(Alpha { alpha }) => Unary::Swish { alpha: *alpha },
        Op::Tan => Unary::Tan,
        Op::Tanh => Unary::Tanh,
        Op::ThresholdedRelu(Alpha { alpha }) => Unary::ThresholdedRelu { alpha: *alpha },
        _ => return None,
    })
}

/// The function of two numbers that an operator applies from left to right.
fn binary(op: &Op) -> Option<Binary> {
    Some(match op {
        Op::Add | Op::Sum => Binary::Add,
        Op::Sub => Binary::Sub,
        Op::Mul => Binary::Mul,
        Op::Div => Binary::Div,
        Op::Max => Binary::Max,
        Op::Min => Binary::Min,
        Op::PRelu => Binary::PRelu,
        _ => return None,
    })
}

/// A function of two numbers over all inputs, from left to right.
fn folded(lowering: &mut Lowering<'_, '_>, function: Binary) -> Result<Id, ExecError> {
    let inputs = lowering.inputs()?;
    let (&first, others) = inputs.split_first().expect("the operator has an input");
    Ok(others.iter().fold(first, |sum, &input| lowering.emit().binary(function, sum, input)))
}

/// `Pow` of a floating-point base; the exponent may be an integer.
fn power(lowering: &mut Lowering<'_, '_>) -> Result<Id, ExecError> {
    let [x, exponent] = [lowering.input(0)?, lowering.input(1)?];
    let known = lowering.number(1).filter(|_| lowering.constant(1).is_some_and(|tensor| tensor.rank() == 0));
    if let Some(exponent) = known {
        return Ok(lowering.emit().unary(Unary::PowConstant { exponent: exponent as f32 }, x));
    }
    let exponent = match lowering.emit().kind(exponent) {
        Kind::Float => exponent,
        Kind::Plain(_) | Kind::Index => lowering.emit().plain_as_float(exponent),
    };
    Ok(lowering.emit().binary(Binary::Pow, x, exponent))
}

/// `Clip`; bounds that are known are part of the primitive.
fn clip(lowering: &mut Lowering<'_, '_>) -> Result<Id, ExecError> {
    let x = lowering.input(0)?;
    let bound = |position: usize, none: f64| match lowering.node.input(position) {
        None => Some(none),
        Some(_) => lowering.number(position),
    };
    if let Some((min, max)) = bound(1, f64::NEG_INFINITY).zip(bound(2, f64::INFINITY)) {
        return Ok(lowering.emit().unary(Unary::Clip { min: min as f32, max: max as f32 }, x));
    }
    let mut y = x;
    for (position, function) in [(1, Binary::Max), (2, Binary::Min)] {
        if let Some(bound) = lowering.optional(position)? {
            y = lowering.emit().binary(function, y, bound);
        }
    }
    Ok(y)
}
