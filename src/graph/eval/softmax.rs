//! Softmax and its kin: every run of elements along an axis rewritten on its own.

use super::EvalError;
use super::args::{Args, axis};
use super::floats::{floats, map_lanes};
use super::numbers::Numbers;
use crate::graph::op;
use crate::graph::tensor::Tensor;

/// `Softmax`: `exp(x) / Σ exp(x)`.
pub(super) fn softmax(args: Args<'_>, op: &op::Softmax) -> Result<Tensor, EvalError> {
    along_axis(args, op, |lane| {
        let greatest = greatest(lane);
        lane.iter_mut().for_each(|x| *x = (*x - greatest).exp());
        let sum: f64 = lane.iter().sum();
        lane.iter_mut().for_each(|x| *x /= sum);
    })
}

/// `LogSoftmax`: `x − log Σ exp(x)`.
pub(super) fn log_softmax(args: Args<'_>, op: &op::Softmax) -> Result<Tensor, EvalError> {
    along_axis(args, op, |lane| {
        let greatest = greatest(lane);
        let sum: f64 = lane.iter().map(|x| (x - greatest).exp()).sum();
        lane.iter_mut().for_each(|x| *x = *x - greatest - sum.ln());
    })
}

/// `Hardmax`: 1 at the first maximum, a NaN being the greatest, 0 elsewhere.
pub(super) fn hardmax(args: Args<'_>, op: &op::Softmax) -> Result<Tensor, EvalError> {
    along_axis(args, op, |lane| {
        let greatest = greatest(lane);
        let first = lane.iter().position(|&x| x == greatest || x.is_nan());
        lane.iter_mut().enumerate().for_each(|(idx, x)| *x = if Some(idx) == first { 1.0 } else { 0.0 });
    })
}

/// The greatest element, NaN where one is there.
fn greatest(lane: &[f64]) -> f64 {
    lane.iter().fold(f64::NEG_INFINITY, |a, &b| if b > a || b.is_nan() { b } else { a })
}

fn along_axis(args: Args<'_>, op: &op::Softmax, rewrite: impl FnMut(&mut [f64])) -> Result<Tensor, EvalError> {
    let x = args.get(0)?;
    let axis = axis(op.axis, x.rank())?;
    let mut values = floats(args, 0)?;
    map_lanes(&mut values, x.shape(), axis, rewrite);
    Numbers::Float(values).into_tensor(x.dtype(), x.shape())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_near as check, input, refused};
    use crate::graph::op::{Op, Softmax};

    #[test]
    fn each_run_of_the_axis_by_itself() {
        let x = || input(&[2, 2], &[0f32, 1000.0, 0.0, 1000.0]);
        let shape: &[usize] = &[2, 2];
        let along = |axis| Softmax { axis };
        check(&Op::Softmax(along(0)), &[x()], &[(shape, &[0.5, 0.5, 0.5, 0.5])]);
        check(&Op::Softmax(along(-1)), &[x()], &[(shape, &[0.0, 1.0, 0.0, 1.0])]);
        let half = -std::f64::consts::LN_2;
        check(&Op::LogSoftmax(along(0)), &[x()], &[(shape, &[half; 4])]);
        check(&Op::LogSoftmax(along(1)), &[x()], &[(shape, &[-1000.0, 0.0, -1000.0, 0.0])]);
        check(&Op::Hardmax(along(0)), &[x()], &[(shape, &[1.0, 1.0, 0.0, 0.0])]);
        check(&Op::Softmax(along(1)), &[input::<f32>(&[3, 0], &[])], &[(&[3, 0], &[])]);
        refused(&Op::Softmax(along(2)), &[x()], "axis 2");
        refused(&Op::Softmax(along(0)), &[input(&[1], &[1i32])], "i32");
    }
}
