//! Operators whose elements come from nowhere: Constant, ConstantOfShape, Range; and Dropout, whose mask does.

use super::args::{Args, allocation};
use super::layout::sizes;
use super::numbers::{Numbers, float_scalar};
use super::packed::pick;
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::Tensor;

pub(super) fn constant(_: Args<'_>, op: &op::Constant) -> Result<Tensor, EvalError> {
    Ok(op.value.clone())
}

pub(super) fn constant_of_shape(args: Args<'_>, op: &op::ConstantOfShape) -> Result<Tensor, EvalError> {
    let element = op.element();
    if element.len() != 1 {
        return Err(invalid(format!("value of shape {:?}, expected one element", element.shape())));
    }
    pick(&[&element], &sizes(args.get(0)?)?, |_| (0, 0))
}

/// `stash_type` changes nothing here: everything is computed in `f64`.
pub(super) fn range(args: Args<'_>, _: &op::Range) -> Result<Tensor, EvalError> {
    let dtype = args.get(0)?.dtype();
    let mut bounds = Vec::with_capacity(3);
    for position in 0..3 {
        let bound = args.get(position)?;
        if bound.dtype() != dtype || bound.len() != 1 {
            return Err(invalid(format!("start, limit and delta should be one {dtype} each, got {bound:?}")));
        }
        bounds.push(bound);
    }
    if dtype.is_float() {
        let (start, limit, delta) = (float_scalar(bounds[0])?, float_scalar(bounds[1])?, float_scalar(bounds[2])?);
        let n = ((limit - start) / delta).ceil().max(0.0);
        if delta == 0.0 || !start.is_finite() || !limit.is_finite() || !delta.is_finite() {
            return Err(invalid(format!("a range from {start} to {limit} by {delta}")));
        }
        let n = allocation(&[n as usize])?;
        return Numbers::Float((0..n).map(|i| start + i as f64 * delta).collect()).into_tensor(dtype, &[n]);
    }
    if !dtype.is_integer() {
        return Err(args.undefined(dtype));
    }
    let one = |bound: &Tensor| Numbers::ints(bound)?.first().copied().ok_or_else(|| invalid("an empty bound"));
    let (start, limit, delta) = (one(bounds[0])?, one(bounds[1])?, one(bounds[2])?);
    if delta == 0 {
        return Err(invalid(format!("a range from {start} to {limit} by 0")));
    }
    let n = ((limit - start + delta - delta.signum()) / delta).max(0);
    let n = allocation(&[usize::try_from(n).unwrap_or(usize::MAX)])?;
    Numbers::Int((0..n).map(|i| start + i as i128 * delta).collect()).into_tensor(dtype, &[n])
}

/// In training mode the mask depends on the seed alone; without one it is that of seed 0.
pub(super) fn dropout(args: Args<'_>, op: &op::Dropout) -> Result<Vec<Option<Tensor>>, EvalError> {
    let data = args.get(0)?;
    let ratio = args.optional(1).map_or(Ok(0.5), float_scalar)?;
    let training = args.optional(2).map_or(Ok(0.0), float_scalar)? != 0.0;
    if !training || ratio == 0.0 {
        return Ok(vec![Some(data.clone()), Some(Tensor::new(data.shape(), vec![true; data.len()])?)]);
    }
    if !(0.0..1.0).contains(&ratio) {
        return Err(invalid(format!("ratio {ratio} is outside [0, 1)")));
    }
    let mut state = op.seed.unwrap_or(0) as u64;
    let mask: Vec<bool> = (0..data.len()).map(|_| uniform(&mut state) >= ratio).collect();
    let Numbers::Float(elements) = Numbers::of(data)? else {
        return Err(args.undefined(data.dtype()));
    };
    let kept = elements.iter().zip(&mask).map(|(x, &keep)| if keep { x / (1.0 - ratio) } else { 0.0 });
    let output = Numbers::Float(kept.collect()).into_tensor(data.dtype(), data.shape())?;
    Ok(vec![Some(output), Some(Tensor::new(data.shape(), mask)?)])
}

/// SplitMix64 (Steele, Lea and Flood, 2014), as a number in [0, 1).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{check, iota, list, outputs, refusal, tensor};
    use crate::graph::op::{Constant, ConstantOfShape, Dropout, Op, Range};

    #[test]
    fn ranges_end_before_their_limit() {
        let range = || Op::Range(Range { stash_type: 1 });
        let ints = |start: i64, limit: i64, delta: i64| [start, limit, delta].map(Tensor::scalar);
        check(range(), ints(3, 9, 3), list([3, 6]));
        check(range(), ints(10, 4, -2), list([10, 8, 6]));
        check(range(), ints(0, 4, -1), list([]));
        check(range(), [1f32, 2.0, 0.4].map(Tensor::scalar), tensor(&[3], [1f32, 1.4, 1.8]));
        assert_eq!(refusal(range(), ints(0, 4, 0)), "a range from 0 to 4 by 0");
        assert!(refusal(range(), ints(i64::MIN, i64::MAX, 1)).contains("too large"));
        assert!(refusal(range(), [0f32, f32::NAN, 1.0].map(Tensor::scalar)).contains("NaN"));
        assert!(refusal(range(), [true, true, true].map(Tensor::scalar)).contains("not defined"));
    }

    #[test]
    fn constants_are_as_stated() {
        check(Op::Constant(Constant { value: iota(&[2]) }), [None::<Tensor>; 0], iota(&[2]));
        let fill = |value| Op::ConstantOfShape(ConstantOfShape { value: Some(value) });
        check(fill(list([7])), [list([1, 2])], tensor(&[1, 2], [7i64, 7]));
        assert!(refusal(fill(iota(&[2])), [list([1])]).contains("expected one element"));
        assert!(refusal(fill(list([7])), [list([1 << 20, 1 << 20])]).contains("too large"));
    }

    #[test]
    fn dropout_drops_in_training_only() {
        let data = || Tensor::vector(vec![1f32; 1000]);
        let dropout = |ratio: f32, training: bool| {
            let inputs = [data(), Tensor::scalar(ratio), Tensor::scalar(training)];
            outputs(&Op::Dropout(Dropout { seed: Some(3) }), inputs, 2)
        };
        let all = Tensor::vector(vec![true; 1000]);
        assert_eq!(dropout(0.5, false), Ok(vec![data(), all.clone()]));
        assert_eq!(dropout(0.0, true), Ok(vec![data(), all]));
        let dropped = dropout(0.75, true).expect("a ratio below 1");
        let kept = dropped[1].as_slice::<bool>().expect("a mask");
        let n_kept = kept.iter().filter(|&&keep| keep).count();
        assert!((200..300).contains(&n_kept), "{n_kept} of 1000 are kept");
        let expected: Vec<f32> = kept.iter().map(|&keep| if keep { 4.0 } else { 0.0 }).collect();
        assert_eq!(dropped[0].to_vec(), Ok(expected));
        assert!(dropout(1.0, true).is_err());
    }
}
