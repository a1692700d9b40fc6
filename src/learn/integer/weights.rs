//! The weights of a product as they are multiplied: exactly, in floats that hold every partial sum, less what saturates.

use super::pairs::Saturable;
use crate::learn::kernels::gemm::{Matrix, gemm};

/// Products that are added in `f32` before they go over to integers: 255 · 255 · 256 < 2²⁴.
const EXACT_DEPTH: usize = 256;

/// A matrix of weights.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    /// How many numbers make one sum.
    pub(super) depth: usize,
    /// How many sums a row of activations makes.
    pub(super) n_outputs: usize,
    /// Less their zero points, `[depth, n_outputs]`.
    centred: Vec<f32>,
    pub(super) saturable: Saturable,
}

impl Packed {
    /// From the weights of each output, `depth` a piece, and a zero point for all or for each. `signed` weights are looked
    /// through for pairs that saturate.
    pub(super) fn new(outputs: &[i32], depth: usize, zero_points: &[i32], saturating: bool) -> Packed {
        let n_outputs = outputs.len().checked_div(depth).unwrap_or(0);
        let mut centred = vec![0.0; outputs.len()];
        for (output, weights) in outputs.chunks_exact(depth.max(1)).enumerate() {
            let zero_point = zero_points.get(output).or(zero_points.first()).copied().unwrap_or(0);
            for (place, weight) in weights.iter().enumerate() {
                centred[place * n_outputs + output] = (weight - zero_point) as f32;
            }
        }
        let signed = |weight: &i32| i8::try_from(*weight).ok();
        let signed: Option<Vec<i8>> = if saturating { outputs.iter().map(signed).collect() } else { None };
        let saturable = signed.map(|weights| Saturable::of(&weights, depth)).unwrap_or_default();
        Packed { depth, n_outputs, centred, saturable }
    }

    /// The sums of rows of bytes less their zero point, `depth` a row, into `n_outputs` sums a row. Counts pairs that saturate.
    pub(super) fn sums(&self, rows: &[u8], zero_point: i32, sums: &mut [i32]) -> u64 {
        let Packed { depth, n_outputs, .. } = *self;
        sums.fill(0);
        if depth == 0 || n_outputs == 0 {
            return 0;
        }
        let n_rows = rows.len() / depth;
        let centred: Vec<f32> = rows.iter().map(|&byte| (i32::from(byte) - zero_point) as f32).collect();
        let mut products = vec![0.0; n_rows * n_outputs];
        for from in (0..depth).step_by(EXACT_DEPTH) {
            let size = [n_rows, n_outputs, EXACT_DEPTH.min(depth - from)];
            let a = Matrix { data: &centred[from..], row_stride: depth, column_stride: 1 };
            gemm(size, 1.0, a, Matrix::rows(&self.centred[from * n_outputs..], n_outputs), false, &mut products);
            sums.iter_mut().zip(&products).for_each(|(sum, &product)| *sum = sum.wrapping_add(product as i32));
        }
        if self.saturable.len() == 0 {
            return 0;
        }
        let rows = rows.chunks_exact(depth).zip(sums.chunks_exact_mut(n_outputs));
        rows.map(|(row, sums)| self.saturable.saturate(row, sums)).sum()
    }
}
