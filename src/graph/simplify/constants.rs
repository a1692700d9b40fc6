//! Constants as the rewrites read and write them: in `f64`, rounded once.

use super::View;
use crate::graph::eval;
use crate::graph::op::{Cast, Op, RoundMode};
use crate::graph::tensor::{DType, Tensor};

/// The one number that a constant of a float type holds.
pub(super) fn scalar(view: &View<'_>, name: &str) -> Option<f64> {
    let tensor = view.constant(name).filter(|tensor| tensor.len() == 1)?;
    floats(tensor)?.first().copied()
}

/// Whether weights of this type can be computed with.
pub(super) fn is_computable(dtype: DType) -> bool {
    dtype.is_float() && dtype.n_bits() >= 16
}

/// The elements of a tensor of a float type of 16 bits or more.
pub(super) fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    is_computable(tensor.dtype()).then(|| cast(tensor, DType::F64)?.to_vec().ok()).flatten()
}

/// How far above a type's least normal number the largest of a tensor must lie: below, the type keeps few digits.
const LEAST_TIMES_NORMAL: f64 = 1024.0;

/// A tensor of these numbers, rounded to this type; none where one of them is not finite or does not fit the type's range,
/// or where all of them are so small that the type would keep few of their digits.
pub(super) fn rounded(dtype: DType, shape: &[usize], numbers: Vec<f64>) -> Option<Tensor> {
    let least_normal = match dtype {
        DType::F16 => f64::from(half::f16::MIN_POSITIVE),
        DType::F32 | DType::BF16 => f64::from(f32::MIN_POSITIVE),
        _ => f64::MIN_POSITIVE,
    };
    let largest = numbers.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    if largest > 0.0 && largest < LEAST_TIMES_NORMAL * least_normal {
        return None;
    }
    let tensor = cast(&Tensor::new(shape, numbers).ok()?, dtype)?;
    let finite = match tensor.as_slice::<f32>() {
        Ok(numbers) => numbers.iter().all(|x| x.is_finite()),
        Err(_) => floats(&tensor)?.iter().all(|x| x.is_finite()),
    };
    finite.then_some(tensor)
}

fn cast(tensor: &Tensor, to: DType) -> Option<Tensor> {
    let op = Op::Cast(Cast { to, saturate: true, round_mode: RoundMode::Up });
    eval::operator(&op, &[Some(tensor.clone())], 1).ok()?.pop()?
}

/// Whether an operator that the network does not have may be brought in.
///
/// # Errors
/// When it is newer than the options allow.
pub(super) fn expect_introducible(view: &View<'_>, op: &Op) -> Result<(), String> {
    match (view.options.opset, op.since()) {
        (Some(limit), Some(since)) if since > limit => {
            Err(format!("{} is an operator of opset {since}, the network keeps to {limit}", op.name()))
        }
        _ => Ok(()),
    }
}
