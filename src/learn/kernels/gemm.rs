//! Products of matrices: one, many with broadcasting, and linear layers with what follows them.
//!
//! `C` is cut into blocks by its shape; each is computed by one thread, over all of `k` in one order.

#![allow(unsafe_code)]

use std::ops::Range;

use gemm::Parallelism;

use super::elementwise::{self, Unary};
use super::parallel::{Parts, for_pieces, simd};
use super::reduce;

/// A matrix by its strides, in elements.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The elements, the first at row 0 and column 0.
    pub data: &'a [f32],
    /// From one row to the next.
    pub row_stride: usize,
    /// From one column to the next.
    pub column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Contiguous rows of `n_columns`.
    #[must_use]
    pub fn rows(data: &'a [f32], n_columns: usize) -> Self {
        Matrix { data, row_stride: n_columns, column_stride: 1 }
    }

    /// The same elements, rows and columns exchanged.
    #[must_use]
    pub fn transposed(self) -> Self {
        Matrix { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    fn span(&self, n_rows: usize, n_columns: usize) -> usize {
        if n_rows == 0 || n_columns == 0 {
            return 0;
        }
        (n_rows - 1) * self.row_stride + (n_columns - 1) * self.column_stride + 1
    }
}

/// The batch dimensions of a product, outermost first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch<'a> {
    /// Sizes.
    pub dims: &'a [usize],
    /// The strides of `A`, 0 where it is broadcast.
    pub a_strides: &'a [usize],
    /// The strides of `B`, 0 where it is broadcast.
    pub b_strides: &'a [usize],
    /// The dimensions over which products are added into one `C`; empty means none. For gradients of what was broadcast.
    pub summed: &'a [bool],
}

/// What is applied to the result of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// Nothing.
    None,
    /// `max(x, 0)`
    Relu,
    /// `x Φ(x)`
    Gelu,
}

/// What follows the product of a linear layer.
#[derive(Debug)]
pub struct Epilogue<'a> {
    /// Added to every row, of `n` elements.
    pub bias: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Activation,
    /// Where the values before the activation are kept, of `m · n` elements.
    pub before_activation: Option<&'a mut [f32]>,
}

/// `C = alpha A B`, or `C += alpha A B`, where `A` is `m × k`, `B` is `k × n` and `C` is contiguous.
///
/// # Panics
/// When a matrix has fewer elements than its shape and strides reach, as every function here.
pub fn gemm([m, n, k]: [usize; 3], alpha: f32, a: Matrix<'_>, b: Matrix<'_>, accumulate: bool, c: &mut [f32]) {
    batched_gemm([m, n, k], alpha, a, b, Batch::default(), accumulate, c);
}

/// [`gemm()`] for every index of the batch dimensions; `C` is contiguous, the batch dimensions that are not summed first.
pub fn batched_gemm(
    size: [usize; 3],
    alpha: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    batch: Batch<'_>,
    accumulate: bool,
    c: &mut [f32],
) {
    let [m, n, k] = size;
    let (kept, summed) = (offsets(batch, false), offsets(batch, true));
    let reach = |strides: &[usize]| -> usize {
        batch.dims.iter().zip(strides).map(|(&dim, &stride)| dim.saturating_sub(1) * stride).sum()
    };
    assert_eq!(c.len(), kept.len() * m * n, "C has the shape of the product");
    if c.is_empty() {
        return;
    }
    if summed.is_empty() || k == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return;
    }
    assert!(a.data.len() >= reach(batch.a_strides) + a.span(m, k), "A has the elements that its strides reach");
    assert!(b.data.len() >= reach(batch.b_strides) + b.span(k, n), "B has the elements that its strides reach");
    let cut = Cut::new(size, kept.len(), summed.len());
    let parts = Parts::new(c);
    cut.run(kept.len(), |product_idx, rows, columns| {
        let start = product_idx * m * n + rows.start * n + columns.start;
        for (idx, of_sum) in summed.iter().enumerate() {
            let a_offset = kept[product_idx][0] + of_sum[0] + rows.start * a.row_stride;
            let b_offset = kept[product_idx][1] + of_sum[1] + columns.start * b.column_stride;
            let block = [rows.len(), columns.len(), k];
            let (a, b) = (Matrix { data: &a.data[a_offset..], ..a }, Matrix { data: &b.data[b_offset..], ..b });
            // SAFETY: A and B reach as far as asserted above; the blocks of C are disjoint and each has one piece.
            unsafe { block_gemm(block, alpha, a, b, accumulate || idx > 0, parts.pointer(start), n) };
        }
    });
}

/// `Y = activation(X W + bias)` where `X` is contiguous `m × k`, `W` is `k × n` by its strides (a weight stored as
/// `[n, k]` is `Matrix::rows(w, k).transposed()`) and `Y` is contiguous.
pub fn linear([m, n, k]: [usize; 3], x: &[f32], w: Matrix<'_>, epilogue: Epilogue<'_>, y: &mut [f32]) {
    let Epilogue { bias, activation, before_activation } = epilogue;
    assert_eq!((x.len(), y.len()), (m * k, m * n), "X and Y have the shapes of the layer");
    assert!(bias.is_none_or(|bias| bias.len() == n), "the bias has one element a column");
    assert!(before_activation.as_ref().is_none_or(|kept| kept.len() == m * n), "what is kept has the shape of Y");
    if y.is_empty() {
        return;
    }
    assert!(w.data.len() >= w.span(k, n), "W has the elements that its strides reach");
    let (parts, kept) = (Parts::new(y), before_activation.map(Parts::new));
    Cut::new([m, n, k], 1, 1).run(1, |_, rows, columns| {
        let start = rows.start * n + columns.start;
        let a = Matrix::rows(&x[rows.start * k..], k);
        let b = Matrix { data: &w.data[(columns.start * w.column_stride).min(w.data.len())..], ..w };
        let target = kept.as_ref().unwrap_or(&parts);
        // SAFETY: X and W reach as far as asserted above; the blocks are disjoint and each has one piece.
        unsafe { block_gemm([rows.len(), columns.len(), k], 1.0, a, b, false, target.pointer(start), n) };
        for row in rows {
            let range = row * n + columns.start..row * n + columns.end;
            // SAFETY: this row of the block belongs to this piece, and `y` and `kept` are two slices.
            let (y, kept) = unsafe { (parts.part(range.clone()), kept.as_ref().map(|kept| kept.part(range))) };
            let bias = bias.map(|bias| &bias[columns.clone()]);
            match kept {
                Some(kept) => {
                    add_bias(bias, kept);
                    y.copy_from_slice(kept);
                }
                None => add_bias(bias, y),
            }
            activate(activation, y);
        }
    });
}

/// The gradient of a bias: the sum of each column of the contiguous `dy` of rows like `db`.
pub fn bias_gradient(dy: &[f32], accumulate: bool, db: &mut [f32]) {
    reduce::column_sums(dy, accumulate, db);
}

#[inline(always)]
fn add_bias(bias: Option<&[f32]>, y: &mut [f32]) {
    if let Some(bias) = bias {
        simd(
            #[inline(always)]
            || y.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias),
        );
    }
}

fn activate(activation: Activation, y: &mut [f32]) {
    match activation {
        Activation::None => (),
        Activation::Relu => elementwise::apply(Unary::Relu, y),
        Activation::Gelu => elementwise::apply(Unary::Gelu, y),
    }
}

/// How `C` is cut: blocks of rows and columns.
struct Cut {
    size: [usize; 2],
    block: [usize; 2],
    spread: bool,
}

impl Cut {
    /// Multiply-adds that make a block worth a thread of its own.
    const WORTH_A_BLOCK: usize = 1 << 21;
    /// Multiply-adds of a product worth waking other threads for.
    const WORTH_SPREADING: usize = 1 << 18;
    /// Blocks that a large `C` is cut into: enough to keep eight threads busy, few enough to pack operands seldom.
    const N_BLOCKS: usize = 8;
    /// Rows and columns of a block are multiples of these, which the microkernels of `gemm` divide on every machine.
    const GRAIN: [usize; 2] = [8, 48];

    fn new([m, n, k]: [usize; 3], n_products: usize, n_summed: usize) -> Self {
        let work = m.saturating_mul(n).saturating_mul(k).saturating_mul(n_summed);
        let wanted = (work / Self::WORTH_A_BLOCK).clamp(1, Self::N_BLOCKS.div_ceil(n_products));
        let mut n_blocks = [1, 1];
        while n_blocks[0] * n_blocks[1] < wanted {
            let sides = [m.div_ceil(n_blocks[0]), n.div_ceil(n_blocks[1])];
            let axis = usize::from(sides[1] > sides[0]);
            if sides[axis] <= 2 * Self::GRAIN[axis] {
                break;
            }
            n_blocks[axis] *= 2;
        }
        let side = |axis: usize, size: usize| size.div_ceil(n_blocks[axis]).next_multiple_of(Self::GRAIN[axis]);
        let spread = work.saturating_mul(n_products) >= Self::WORTH_SPREADING;
        Cut { size: [m, n], block: [side(0, m), side(1, n)], spread }
    }

    fn run(&self, n_products: usize, work: impl Fn(usize, Range<usize>, Range<usize>) + Sync) {
        let counts = [0, 1].map(|axis| self.size[axis].div_ceil(self.block[axis]));
        let range = |axis: usize, idx: usize| {
            let start = idx * self.block[axis];
            start..(start + self.block[axis]).min(self.size[axis])
        };
        for_pieces(n_products * counts[0] * counts[1], 1, self.spread, |pieces| {
            for piece in pieces {
                let (product_idx, block_idx) = (piece / (counts[0] * counts[1]), piece % (counts[0] * counts[1]));
                work(product_idx, range(0, block_idx / counts[1]), range(1, block_idx % counts[1]));
            }
        });
    }
}

/// The offsets in `A` and `B` of every index of the dimensions that are summed, or of those that are not.
fn offsets(batch: Batch<'_>, summed: bool) -> Vec<[usize; 2]> {
    let mut offsets = vec![[0, 0]];
    for (axis, &dim) in batch.dims.iter().enumerate() {
        if batch.summed.get(axis).copied().unwrap_or(false) != summed {
            continue;
        }
        let strides = [batch.a_strides[axis], batch.b_strides[axis]];
        let next = |offset: [usize; 2]| (0..dim).map(move |idx| [0, 1].map(|i| offset[i] + idx * strides[i]));
        offsets = offsets.into_iter().flat_map(next).collect();
    }
    offsets
}

/// `C (+)= alpha A B` on this thread; rows of `C` lie `c_stride` apart.
///
/// # Safety
/// `A` and `B` have the elements that their strides reach. `c` is the first of `m` rows of `n` elements that nobody
/// else reads or writes meanwhile.
pub(super) unsafe fn block_gemm(
    [m, n, k]: [usize; 3],
    alpha: f32,
    a: Matrix<'_>,
    b: Matrix<'_>,
    accumulate: bool,
    c: *mut f32,
    c_stride: usize,
) {
    let (a_start, b_start) = (a.data.as_ptr(), b.data.as_ptr());
    let [a_rows, a_columns] = [a.row_stride, a.column_stride].map(usize::cast_signed);
    let [b_rows, b_columns] = [b.row_stride, b.column_stride].map(usize::cast_signed);
    let c_rows = c_stride.cast_signed();
    // SAFETY: the caller's promise. With `accumulate` false `gemm` does not read C.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            c_rows,
            accumulate,
            a_start,
            a_columns,
            a_rows,
            b_start,
            b_columns,
            b_rows,
            1.0,
            alpha,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, numbers, on_any_pool};
    use super::*;

    fn product([m, n, k]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>) -> Vec<f64> {
        let at = |x: Matrix<'_>, row, column| f64::from(x.data[row * x.row_stride + column * x.column_stride]);
        let element = |idx: usize| (0..k).map(|i| at(a, idx / n, i) * at(b, i, idx % n)).sum();
        (0..m * n).map(element).collect()
    }

    fn check(size: [usize; 3]) {
        let [m, n, k] = size;
        let (a, b, c) = (numbers(m * k, 1), numbers(k * n, 2), numbers(m * n, 3));
        for (a, b) in [
            (Matrix::rows(&a, k), Matrix::rows(&b, n)),
            (Matrix::rows(&a, m).transposed(), Matrix::rows(&b, n)),
            (Matrix::rows(&a, k), Matrix::rows(&b, k).transposed()),
        ] {
            let exact = product(size, a, b);
            for accumulate in [false, true] {
                let run = || {
                    let mut y = if accumulate { c.clone() } else { vec![f32::NAN; m * n] };
                    gemm(size, -0.5, a, b, accumulate, &mut y);
                    y
                };
                let old = |idx: usize| if accumulate { f64::from(c[idx]) } else { 0.0 };
                let expected: Vec<f64> = exact.iter().enumerate().map(|(idx, x)| old(idx) - 0.5 * x).collect();
                close(&format!("{size:?}"), &on_any_pool(run), &expected, 2e-6);
            }
        }
    }

    #[test]
    fn products_are_right_and_have_the_same_bits_on_any_number_of_threads() {
        for size in [[1, 1, 1], [5, 7, 3], [1, 300, 200], [200, 1, 70], [13, 17, 0], [0, 4, 4], [129, 257, 131]] {
            check(size);
        }
        check([300, 50, 400]);
        check([40, 700, 200]);
    }

    #[test]
    fn batches_broadcast_and_are_summed() {
        let (m, n, k) = (5, 6, 7);
        let (a, b) = (numbers(3 * m * k, 1), numbers(2 * k * n, 2));
        let dims = [3, 2];
        let one =
            |i: usize, j: usize| product([m, n, k], Matrix::rows(&a[i * m * k..], k), Matrix::rows(&b[j * k * n..], n));
        for summed in [[false, false], [false, true], [true, false], [true, true]] {
            let batch = Batch { dims: &dims, a_strides: &[m * k, 0], b_strides: &[0, k * n], summed: &summed };
            let sizes = [0, 1].map(|axis| if summed[axis] { 1 } else { dims[axis] });
            let mut expected = vec![0.0; sizes[0] * sizes[1] * m * n];
            for (i, j) in (0..3).flat_map(|i| (0..2).map(move |j| (i, j))) {
                let start = ((i % sizes[0]) * sizes[1] + j % sizes[1]) * m * n;
                expected[start..].iter_mut().zip(one(i, j)).for_each(|(sum, x)| *sum += x);
            }
            let run = || {
                let mut c = vec![f32::NAN; expected.len()];
                batched_gemm([m, n, k], 1.0, Matrix::rows(&a, k), Matrix::rows(&b, n), batch, false, &mut c);
                c
            };
            close(&format!("{summed:?}"), &on_any_pool(run), &expected, 1e-6);
        }
    }

    #[test]
    fn linear_layers_add_their_bias_and_activate() {
        let [m, n, k] = [70, 130, 190];
        let (x, w, bias) = (numbers(m * k, 1), numbers(n * k, 2), numbers(n, 3));
        let view = Matrix::rows(&w, k).transposed();
        let before: Vec<f64> = product([m, n, k], Matrix::rows(&x, k), view)
            .iter()
            .enumerate()
            .map(|(idx, y)| y + f64::from(bias[idx % n]))
            .collect();
        for (activation, function) in [
            (Activation::None, (|x| x) as fn(f64) -> f64),
            (Activation::Relu, |x| x.max(0.0)),
            (Activation::Gelu, |x| 0.5 * x * libm::erfc(-x * 0.5f64.sqrt())),
        ] {
            let run = |keeps: bool| {
                let (mut y, mut kept) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
                let before_activation = keeps.then_some(&mut kept[..]);
                let epilogue = Epilogue { bias: Some(&bias), activation, before_activation };
                linear([m, n, k], &x, view, epilogue, &mut y);
                (y, kept)
            };
            let expected: Vec<f64> = before.iter().map(|&x| function(x)).collect();
            close("linear", &on_any_pool(|| run(false).0), &expected, 2e-6);
            let (y, kept) = run(true);
            close("linear", &y, &expected, 2e-6);
            close("before", &kept, &before, 2e-6);
        }
    }
}
