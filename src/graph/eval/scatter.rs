//! Operators that put elements at indices.

use super::args::Args;
use super::gather::{blocks, positions_along};
use super::numbers::Numbers;
use super::packed::pick;
use super::{EvalError, invalid};
use crate::graph::op::{self, Reduction};
use crate::graph::tensor::Tensor;

pub(super) fn scatter_elements(args: Args<'_>, op: &op::ScatterElements) -> Result<Tensor, EvalError> {
    let (data, indices, updates) = (args.get(0)?, args.get(1)?, args.get(2)?);
    if indices.shape() != updates.shape() {
        let (indices, updates) = (indices.shape(), updates.shape());
        return Err(invalid(format!("updates of shape {updates:?} for indices of shape {indices:?}")));
    }
    let targets = positions_along(data.shape(), indices, op.axis)?;
    updated(data, updates, &targets, op.reduction)
}

pub(super) fn scatter_nd(args: Args<'_>, op: &op::ScatterND) -> Result<Tensor, EvalError> {
    let (data, indices, updates) = (args.get(0)?, args.get(1)?, args.get(2)?);
    let blocks = blocks(data.shape(), indices, 0)?;
    let expected = [&indices.shape()[..indices.rank() - 1], blocks.shape].concat();
    if updates.shape() != expected {
        return Err(invalid(format!("updates of shape {:?}, expected {expected:?}", updates.shape())));
    }
    let n_inner: usize = if updates.is_empty() { 0 } else { blocks.shape.iter().product() };
    let targets: Vec<usize> = blocks.starts.iter().flat_map(|&start| start..start + n_inner).collect();
    updated(data, updates, &targets, op.reduction)
}

/// The data with the update at each position combined with what is at its target; of several, the later ones last.
fn updated(data: &Tensor, updates: &Tensor, targets: &[usize], reduction: Reduction) -> Result<Tensor, EvalError> {
    if updates.dtype() != data.dtype() {
        return Err(invalid(format!("updates of {} for data of {}", updates.dtype(), data.dtype())));
    }
    if reduction == Reduction::None {
        let mut sources: Vec<(usize, usize)> = (0..data.len()).map(|position| (0, position)).collect();
        for (update, &target) in targets.iter().enumerate() {
            sources[target] = (1, update);
        }
        return pick(&[data, updates], data.shape(), |position| sources[position]);
    }
    let result = match (Numbers::of(data)?, Numbers::of(updates)?) {
        (Numbers::Float(mut there), Numbers::Float(updates)) => {
            for (update, &target) in updates.into_iter().zip(targets) {
                there[target] = reduced_floats(there[target], update, reduction);
            }
            Numbers::Float(there)
        }
        (Numbers::Int(mut there), Numbers::Int(updates)) => {
            for (update, &target) in updates.into_iter().zip(targets) {
                there[target] = reduced_ints(there[target], update, reduction);
            }
            Numbers::Int(there)
        }
        (Numbers::Float(_), Numbers::Int(_)) | (Numbers::Int(_), Numbers::Float(_)) => {
            unreachable!("both are of one type")
        }
    };
    result.into_tensor(data.dtype(), data.shape())
}

fn reduced_floats(there: f64, update: f64, reduction: Reduction) -> f64 {
    match reduction {
        Reduction::None => update,
        Reduction::Add => there + update,
        Reduction::Mul => there * update,
        Reduction::Max | Reduction::Min if there.is_nan() || update.is_nan() => f64::NAN,
        Reduction::Max => there.max(update),
        Reduction::Min => there.min(update),
    }
}

/// Of integers the low bits count, which wrapping keeps.
fn reduced_ints(there: i128, update: i128, reduction: Reduction) -> i128 {
    match reduction {
        Reduction::None => update,
        Reduction::Add => there.wrapping_add(update),
        Reduction::Mul => there.wrapping_mul(update),
        Reduction::Max => there.max(update),
        Reduction::Min => there.min(update),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{check, iota, list, refusal, tensor};
    use crate::graph::op::{Op, ScatterElements, ScatterND};

    /// What each reduction makes of 3 with the updates 2 and 9.
    const REDUCED: [(Reduction, i64); 5] =
        [(Reduction::None, 9), (Reduction::Add, 14), (Reduction::Mul, 54), (Reduction::Max, 9), (Reduction::Min, 2)];

    #[test]
    fn updates_are_combined_in_order() {
        for (reduction, expected) in REDUCED {
            let elements = Op::ScatterElements(ScatterElements { axis: 0, reduction });
            check(elements, [list([3, 7]), list([0, -2]), list([2, 9])], list([expected, 7]));
            let nd = Op::ScatterND(ScatterND { reduction });
            check(nd, [list([3, 7]), tensor(&[2, 1], [0i64, -2]), list([2, 9])], list([expected, 7]));
        }
        let max = || Op::ScatterND(ScatterND { reduction: Reduction::Max });
        let floats = |update: f32| [Tensor::vector(vec![1f32]), tensor(&[1, 1], [0i64]), Tensor::vector(vec![update])];
        check(max(), floats(2.0), Tensor::vector(vec![2f32]));
        let wrapped = [Tensor::vector(vec![200u8]), tensor(&[1, 1], [0i64]), Tensor::vector(vec![100u8])];
        check(Op::ScatterND(ScatterND { reduction: Reduction::Add }), wrapped, Tensor::vector(vec![44u8]));
    }

    #[test]
    fn updates_lie_along_an_axis_or_in_blocks() {
        let elements = |axis| Op::ScatterElements(ScatterElements { axis, reduction: Reduction::None });
        let updates = || tensor(&[2, 1], [8i64, 9]);
        check(elements(1), [iota(&[2, 2]), tensor(&[2, 1], [1i64, 0]), updates()], tensor(&[2, 2], [0i64, 8, 9, 3]));
        let nd = || Op::ScatterND(ScatterND { reduction: Reduction::None });
        check(
            nd(),
            [iota(&[2, 2]), tensor(&[1, 1], [1i64]), tensor(&[1, 2], [8i64, 9])],
            tensor(&[2, 2], [0i64, 1, 8, 9]),
        );
        assert!(refusal(elements(1), [iota(&[2, 2]), tensor(&[2, 1], [2i64, 0]), updates()]).contains("index 2"));
        assert!(refusal(elements(0), [iota(&[2, 2]), tensor(&[1, 1], [0i64]), updates()]).contains("updates of shape"));
        assert!(refusal(nd(), [iota(&[2, 2]), tensor(&[1, 1], [1i64]), list([8])]).contains("expected [1, 2]"));
        let mixed = [iota(&[2]), tensor(&[1, 1], [1i64]), Tensor::vector(vec![1f32])];
        assert_eq!(refusal(nd(), mixed), "updates of f32 for data of i64");
    }
}
