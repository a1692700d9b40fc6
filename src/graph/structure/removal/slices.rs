//! A tensor without some of its slices.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::gone::{Mask, n_left};
use crate::graph::eval;
use crate::graph::op::{Gather, Op};
use crate::graph::tensor::Tensor;

/// The tensor without the marked slices of each axis.
pub(super) fn without(tensor: &Tensor, masks: &BTreeMap<usize, Mask>) -> Tensor {
    masks.iter().fold(tensor.clone(), |tensor, (&axis, mask)| along(&tensor, axis, mask))
}

fn along(tensor: &Tensor, axis: usize, mask: &[bool]) -> Tensor {
    moved(tensor, axis, mask).unwrap_or_else(|| gathered(tensor, axis, mask))
}

/// Copies runs of bytes; none for strings and for elements that are not whole bytes.
fn moved(tensor: &Tensor, axis: usize, mask: &[bool]) -> Option<Tensor> {
    let n_bits = tensor.dtype().n_bits();
    let bytes = tensor.bytes().filter(|_| n_bits.is_multiple_of(8))?;
    let mut shape = tensor.shape().to_vec();
    let slice_bytes = shape[axis + 1..].iter().product::<usize>() * (n_bits / 8);
    shape[axis] = n_left(mask);
    let mut kept = Vec::with_capacity(shape.iter().product::<usize>() * (n_bits / 8));
    if slice_bytes > 0 {
        for row in bytes.chunks_exact(mask.len() * slice_bytes) {
            for (slice, _) in row.chunks_exact(slice_bytes).zip(mask).filter(|(_, gone)| !**gone) {
                kept.extend_from_slice(slice);
            }
        }
    }
    Tensor::from_bytes(tensor.dtype(), &shape, Bytes::from(kept)).ok()
}

fn gathered(tensor: &Tensor, axis: usize, mask: &[bool]) -> Tensor {
    let kept = mask.iter().zip(0i64..).filter(|(gone, _)| !**gone).map(|(_, index)| index).collect();
    let gather = Op::Gather(Gather { axis: i64::try_from(axis).expect("an axis is small") });
    let inputs = [Some(tensor.clone()), Some(Tensor::vector(kept))];
    let mut outputs = eval::operator(&gather, &inputs, 1).expect("every tensor can be gathered");
    outputs.pop().flatten().expect("Gather has an output")
}
