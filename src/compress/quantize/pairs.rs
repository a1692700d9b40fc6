//! Scales with which eight bits are safe on processors that add products in pairs of sixteen bits: x86 without VNNI.
//!
//! There `255 · (|a| + |b|)` of two neighbouring weights of one sign must stay below 2¹⁵, so that their integers add up to at most 128.
//! Seven bits always do; a scale that knows the neighbours is rarely as coarse.

use std::borrow::Cow;

use crate::graph::Op;
use crate::graph::tensor::{Tensor, TensorError, turned};
use crate::learn::integer::pairs::is_exact;

/// What the rounded weights of a pair may add up to, less what rounding adds to both.
const GREATEST: f64 = 127.0;

/// For each output channel along `axis` of a product's weight, or for all in one, the least scale with which no pair leaves sixteen bits.
/// Neighbours are two weights of one output, from an even place on, in the order in which onnxruntime sums: along the inner axis of
/// a matrix, over the taps of a kernel and within each over the channels. Depthwise convolutions are summed exactly: they have no
/// bound.
///
/// # Errors
/// When the constant holds no `f32`.
pub(super) fn least_scales(op: &Op, weight: &Tensor, axis: Option<usize>) -> Result<Vec<f64>, TensorError> {
    let numbers = weight.as_slice::<f32>()?;
    // The weights of each output in their order, one output after the other.
    let (ordered, depth, n_outputs) = match (op, weight.shape()) {
        (Op::Conv(conv), [n_outputs, n_channels, taps @ ..]) => {
            let n_groups = usize::try_from(conv.group).unwrap_or(1).max(1);
            if is_exact(*n_channels, n_outputs / n_groups) {
                return Ok(Vec::new());
            }
            let n_taps: usize = taps.iter().product();
            (Cow::Owned(turned(numbers, *n_channels, n_taps)), n_channels * n_taps, *n_outputs)
        }
        (Op::Gemm(gemm), [n_outputs, depth]) if gemm.trans_b => (Cow::Borrowed(numbers), *depth, *n_outputs),
        (Op::Gemm(_) | Op::MatMul, [.., depth, n_outputs]) => {
            (Cow::Owned(turned(numbers, *depth, *n_outputs)), *depth, *n_outputs)
        }
        _ => return Ok(Vec::new()),
    };
    let mut scales = vec![0f64; n_outputs];
    for (row_idx, weights) in ordered.chunks_exact(depth.max(1)).enumerate() {
        // Matrices of a stack are of the same outputs.
        let scale = &mut scales[row_idx % n_outputs];
        *scale = scale.max(greatest_sum(weights) / GREATEST);
    }
    Ok(match axis {
        Some(_) => scales,
        None => vec![scales.into_iter().fold(0.0, f64::max)],
    })
}

/// The greatest sum of magnitudes of one sign within a pair.
fn greatest_sum(weights: &[f32]) -> f64 {
    let sum = |pair: &[f32]| {
        let (a, b) = (f64::from(pair[0]), f64::from(pair[1]));
        (a.max(0.0) + b.max(0.0)).max(-(a.min(0.0) + b.min(0.0)))
    };
    weights.chunks_exact(2).map(sum).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op;
    use crate::learn::integer::pairs::n_saturable;

    fn check(op: &Op, shape: &[usize], numbers: &[f32], axis: Option<usize>, expected: &[f64]) {
        let weight = Tensor::new(shape, numbers.to_vec()).expect("as many");
        let scales = least_scales(op, &weight, axis).expect("floats");
        let scales: Vec<f64> = scales.iter().map(|scale| (scale * GREATEST * 1e3).round() / 1e3).collect();
        assert_eq!(scales, expected, "{shape:?}");
    }

    #[test]
    fn neighbours_are_those_that_are_summed_together() {
        let [conv, matrix] = [Op::Conv(op::Conv::default()), Op::MatMul];
        let turned = Op::Gemm(op::Gemm { trans_b: true, ..op::Gemm::default() });
        // Two channels of two taps: (c0 t0, c1 t0), (c0 t1, c1 t1).
        check(&conv, &[1, 2, 2], &[1.0, 2.0, 4.0, -8.0], Some(0), &[8.0]);
        check(&conv, &[1, 2, 2], &[1.0, 2.0, 4.0, 3.0], Some(0), &[5.0]);
        check(&matrix, &[4, 2], &[1.0, 0.0, 2.0, 1.0, 3.0, -2.0, -4.0, -3.0], Some(1), &[4.0, 5.0]);
        check(&matrix, &[4, 2], &[1.0, 0.0, 2.0, 1.0, 3.0, -2.0, -4.0, -3.0], None, &[5.0]);
        check(&turned, &[2, 3], &[1.0, 2.0, 9.0, 1.0, -2.0, 0.0], Some(0), &[3.0, 2.0]);
        // The odd one out is added alone, and a depthwise convolution exactly.
        let depthwise = Op::Conv(op::Conv { group: 2, ..op::Conv::default() });
        check(&depthwise, &[2, 1, 3], &[1.0; 6], Some(0), &[]);
        // With two outputs for each channel it is a convolution like others.
        check(&depthwise, &[4, 1, 2], &[1.0; 8], Some(0), &[2.0; 4]);
    }

    #[test]
    fn no_pair_of_rounded_weights_leaves_sixteen_bits() {
        let numbers: Vec<f32> = (0..4096).map(|k| (k as f32 * 0.7).sin() * ((k % 37) as f32 * 0.3).exp()).collect();
        let turned = Op::Gemm(op::Gemm { trans_b: true, ..op::Gemm::default() });
        let weight = Tensor::new(&[64, 64], numbers.clone()).expect("as many");
        let scales = least_scales(&turned, &weight, Some(0)).expect("floats");
        for (row, scale) in numbers.chunks(64).zip(scales) {
            let greatest = row.iter().fold(0f32, |greatest, x| greatest.max(x.abs()));
            let scale = (scale as f32).max(greatest / 127.0);
            assert!(scale <= greatest / 63.0, "never coarser than seven bits");
            let integers: Vec<i8> = row.iter().map(|x| (x / scale).round_ties_even() as i8).collect();
            assert_eq!(n_saturable(&integers), 0);
        }
    }
}
