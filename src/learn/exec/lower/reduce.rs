//! Reductions, and what is made of them: softmax.

use super::{Lowered, Lowering, axis};
use crate::graph::Op;
use crate::graph::op::{LpNormalization, Reduce, Softmax};
use crate::learn::exec::ExecError;
use crate::learn::exec::emit::Emitter;
use crate::learn::exec::program::{Id, Reduction};
use crate::learn::kernels::elementwise::Unary;

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    Ok(Some(vec![match op {
        Op::ReduceSum(reduce) => reduced(lowering, reduce, Reduction::Sum)?,
        Op::ReduceMean(reduce) => reduced(lowering, reduce, Reduction::Mean)?,
        // the least and the greatest of nothing are infinite
        Op::ReduceMax(_) | Op::ReduceMin(_) | Op::ReduceLogSumExp(_) if is_empty(lowering)? => return Ok(None),
        Op::ReduceMax(reduce) => reduced(lowering, reduce, Reduction::Max)?,
        Op::ReduceMin(reduce) => reduced(lowering, reduce, Reduction::Min)?,
        Op::ReduceL1(reduce) => {
            let x = lowering.input(0)?;
            let magnitudes = lowering.emit().unary(Unary::Abs, x);
            reduced_of(lowering, reduce, Reduction::Sum, magnitudes)?
        }
        Op::ReduceL2(reduce) => {
            let sum = sum_of_squares(lowering, reduce)?;
            lowering.emit().unary(Unary::Sqrt, sum)
        }
        Op::ReduceSumSquare(reduce) => sum_of_squares(lowering, reduce)?,
        Op::ReduceLogSum(reduce) => {
            let sum = reduced(lowering, reduce, Reduction::Sum)?;
            lowering.emit().unary(Unary::Log, sum)
        }
        Op::ReduceLogSumExp(reduce) => log_sum_exp(lowering, reduce)?,
        Op::ReduceProd(reduce) => product(lowering, reduce)?,
        Op::Softmax(Softmax { axis: along }) => {
            let x = lowering.input(0)?;
            let along = axis(*along, lowering.emit().rank(x));
            lowering.emit().softmax(x, along)
        }
        Op::LogSoftmax(Softmax { axis: along }) => {
            let x = lowering.input(0)?;
            let along = axis(*along, lowering.emit().rank(x));
            lowering.emit().log_softmax(x, along)
        }
        Op::LpNormalization(normalization) => lp_normalization(lowering, normalization)?,
        Op::GlobalAveragePool => {
            let x = lowering.input(0)?;
            let spatial: Vec<usize> = (2..lowering.emit().rank(x)).collect();
            lowering.emit().reduce(Reduction::Mean, x, &spatial)
        }
        Op::GlobalMaxPool => {
            let x = lowering.input(0)?;
            let spatial: Vec<usize> = (2..lowering.emit().rank(x)).collect();
            lowering.emit().reduce(Reduction::Max, x, &spatial)
        }
        _ => return Ok(None),
    }]))
}

fn is_empty(lowering: &mut Lowering<'_, '_>) -> Result<bool, ExecError> {
    let x = lowering.input(0)?;
    Ok(lowering.emit().program.n_elements(x) == 0)
}

/// The axes that a reduction's second input names; all where it names none, unless that means none.
fn axes(lowering: &mut Lowering<'_, '_>, reduce: &Reduce) -> Result<Vec<usize>, ExecError> {
    let x = lowering.input(0)?;
    let rank = lowering.emit().rank(x);
    let named = lowering.integers(1)?.unwrap_or_default();
    if named.is_empty() {
        return Ok(if reduce.noop_with_empty_axes { Vec::new() } else { (0..rank).collect() });
    }
    let mut axes: Vec<usize> = named.into_iter().map(|along| axis(along, rank)).collect();
    axes.sort_unstable();
    axes.dedup();
    Ok(axes)
}

fn reduced(lowering: &mut Lowering<'_, '_>, reduce: &Reduce, how: Reduction) -> Result<Id, ExecError> {
    let x = lowering.input(0)?;
    reduced_of(lowering, reduce, how, x)
}

fn reduced_of(lowering: &mut Lowering<'_, '_>, reduce: &Reduce, how: Reduction, x: Id) -> Result<Id, ExecError> {
    let axes = axes(lowering, reduce)?;
    let y = lowering.emit().reduce(how, x, &axes);
    let shape = lowering.shape(0)?;
    Ok(lowering.emit().reshape(y, &shape))
}

fn sum_of_squares(lowering: &mut Lowering<'_, '_>, reduce: &Reduce) -> Result<Id, ExecError> {
    let x = lowering.input(0)?;
    let squares = lowering.emit().mul(x, x);
    reduced_of(lowering, reduce, Reduction::Sum, squares)
}

/// `max + log Σ exp(x − max)`; the gradient does not pass through the maximum, which cancels out.
fn log_sum_exp(lowering: &mut Lowering<'_, '_>, reduce: &Reduce) -> Result<Id, ExecError> {
    let x = lowering.input(0)?;
    let axes = axes(lowering, reduce)?;
    let shape = lowering.shape(0)?;
    let emit = lowering.emit();
    let max = emit.reduce(Reduction::Max, x, &axes);
    let shifted = emit.sub(x, max);
    let powers = emit.unary(Unary::Exp, shifted);
    let sum = emit.reduce(Reduction::Sum, powers, &axes);
    let logarithm = emit.unary(Unary::Log, sum);
    let y = emit.add(logarithm, max);
    Ok(emit.reshape(y, &shape))
}

/// Halves are multiplied with each other until one element is left: the gradient is right where elements are zero, too.
fn product(lowering: &mut Lowering<'_, '_>, reduce: &Reduce) -> Result<Id, ExecError> {
    let axes = axes(lowering, reduce)?;
    let mut x = lowering.input(0)?;
    let shape = lowering.shape(0)?;
    let emit = lowering.emit();
    for along in axes {
        let mut length = emit.shape(x)[along];
        if length == 0 {
            let mut empty = emit.shape(x).to_vec();
            empty[along] = 1;
            let one = emit.scalar(1.0);
            x = emit.expand(one, &empty);
        }
        while length > 1 {
            let half = length / 2;
            let (first, second) = (emit.narrow(x, along, 0, half), emit.narrow(x, along, half, half));
            let pairs = emit.mul(first, second);
            x = if length % 2 == 1 {
                let odd = emit.narrow(x, along, 2 * half, 1);
                emit.concat(along, &[pairs, odd])
            } else {
                pairs
            };
            length = length.div_ceil(2);
        }
    }
    Ok(emit.reshape(x, &shape))
}

fn one_for_zero(emit: &mut Emitter, x: Id) -> Id {
    let zero = emit.scalar(0.0);
    let is_zero = emit.equal(x, zero);
    emit.add(x, is_zero)
}

/// `LpNormalization`: divided by the sum of magnitudes or by the root of the sum of squares; by 1 where that is zero, so that
/// zeros stay and have a gradient.
fn lp_normalization(lowering: &mut Lowering<'_, '_>, normalization: &LpNormalization) -> Result<Id, ExecError> {
    let x = lowering.input(0)?;
    let p = normalization.p;
    if !(1..=2).contains(&p) {
        return Err(lowering.unsupported(format!("`p` is {p}"), "use 1 or 2"));
    }
    let emit = lowering.emit();
    let along = [axis(normalization.axis, emit.rank(x))];
    let norm = if p == 1 {
        let magnitudes = emit.unary(Unary::Abs, x);
        let sum = emit.reduce(Reduction::Sum, magnitudes, &along);
        one_for_zero(emit, sum)
    } else {
        let squares = emit.mul(x, x);
        let sum = emit.reduce(Reduction::Sum, squares, &along);
        let sum = one_for_zero(emit, sum);
        emit.unary(Unary::Sqrt, sum)
    };
    Ok(emit.div(x, norm))
}
