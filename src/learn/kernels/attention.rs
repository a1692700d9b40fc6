//! Scaled dot-product attention, forward and backward, on heads given by their strides.

#![allow(unsafe_code)]

use std::cell::RefCell;

use super::gemm::{Matrix, block_gemm};
use super::parallel::{Parts, for_pieces, simd, sum_of_pairs};
use super::softmax::softmax_row;

/// One attention: its sizes and what is done to the scores.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// Samples.
    pub batch: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values, a divisor of `heads`: each serves as many neighbouring heads.
    pub key_heads: usize,
    /// Queries of a sample.
    pub queries: usize,
    /// Keys of a sample.
    pub keys: usize,
    /// Elements of a query and of a key.
    pub width: usize,
    /// Elements of a value.
    pub value_width: usize,
    /// What scores are multiplied by.
    pub scale: f32,
    /// Whether query `i` sees no key after key `i`.
    pub causal: bool,
    /// Added to the scaled scores.
    pub mask: Option<Mask<'a>>,
}

/// Terms of scores, by strides that are 0 where they are broadcast.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// The terms.
    pub data: &'a [f32],
    /// From one sample, head, query and key to the next.
    pub strides: [usize; 4],
}

/// Where vectors of each sample and head lie, in elements; the elements of a vector are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// From one sample to the next.
    pub batch_stride: usize,
    /// From one head to the next.
    pub head_stride: usize,
    /// From one vector to the next.
    pub row_stride: usize,
}

/// Queries, keys, values or a gradient.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Where they lie.
    pub layout: Layout,
}

/// A result by its layout.
#[derive(Debug)]
pub struct HeadsMut<'a> {
    /// The elements. Those that the layout does not reach stay.
    pub data: &'a mut [f32],
    /// Where they lie.
    pub layout: Layout,
}

impl Layout {
    /// Of a contiguous `[batch, rows, heads, width]`, which `[batch, rows, heads · width]` is too.
    #[must_use]
    pub fn rows_first([rows, heads, width]: [usize; 3]) -> Self {
        Layout { batch_stride: rows * heads * width, head_stride: width, row_stride: heads * width }
    }

    /// Of a contiguous `[batch, heads, rows, width]`.
    #[must_use]
    pub fn heads_first([heads, rows, width]: [usize; 3]) -> Self {
        Layout { batch_stride: heads * rows * width, head_stride: rows * width, row_stride: width }
    }

    fn start(self, batch: usize, head: usize) -> usize {
        batch * self.batch_stride + head * self.head_stride
    }

    /// How many elements are reached.
    fn span(self, [batch, heads, rows, width]: [usize; 4]) -> usize {
        if [batch, heads, rows, width].contains(&0) {
            return 0;
        }
        self.start(batch - 1, heads - 1) + (rows - 1) * self.row_stride + width
    }

    /// Whether no two vectors share an element.
    fn is_disjoint(self, [batch, heads, rows, width]: [usize; 4]) -> bool {
        let mut dims = [(self.batch_stride, batch), (self.head_stride, heads), (self.row_stride, rows)];
        dims.sort_unstable();
        let mut reach = width;
        dims.into_iter().filter(|&(_, count)| count > 1).all(|(stride, count)| {
            let apart = stride >= reach;
            reach += stride * (count - 1);
            apart
        })
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `Y = softmax(scale Q Kᵀ + mask) V`; keeps the probabilities, `[batch, heads, queries, keys]`. A query that sees no key
/// gives NaN.
///
/// # Panics
/// When a layout reaches beyond its elements, or vectors of a result overlap, as [`attention_gradient`].
pub fn attention(
    attention: Attention<'_>,
    q: Heads<'_>,
    k: Heads<'_>,
    v: Heads<'_>,
    y: HeadsMut<'_>,
    probabilities: &mut [f32],
) {
    let Attention { heads, queries, keys, width, value_width, .. } = attention;
    let per_key_head = attention.check([q, k, v], probabilities.len());
    let (y_layout, y) = (y.layout, attention.result(y, [heads, queries, value_width]));
    let probabilities = Parts::new(probabilities);
    for_pieces(attention.batch * heads, 1, attention.is_worth_spreading(), |range| {
        for piece in range {
            let (sample, head) = (piece / heads, piece % heads);
            let key_head = head / per_key_head;
            // SAFETY: each sample and head belongs to one piece.
            let p = unsafe { probabilities.part(piece * queries * keys..(piece + 1) * queries * keys) };
            if p.is_empty() || value_width == 0 {
                continue;
            }
            let (q, k, v) = (q.matrix(sample, head), k.matrix(sample, key_head), v.matrix(sample, key_head));
            let size = [queries, keys, width];
            // SAFETY: the layouts reach as far as checked; `p` has as many rows and columns.
            unsafe { block_gemm(size, attention.scale, q, k.transposed(), false, p.as_mut_ptr(), keys) };
            for (row, p) in p.chunks_exact_mut(keys).enumerate() {
                attention.mask_row(sample, head, row, p);
                simd(
                    #[inline(always)]
                    || softmax_row(p),
                );
            }
            let start = y.pointer(y_layout.start(sample, head));
            // SAFETY: the vectors of `y` are disjoint and within its elements, and this head's are this piece's.
            unsafe {
                block_gemm(
                    [queries, value_width, keys],
                    1.0,
                    Matrix::rows(p, keys),
                    v,
                    false,
                    start,
                    y_layout.row_stride,
                );
            }
        }
    });
}

/// The gradients of [`attention`] from the probabilities that it kept, and of the scores, `[batch, heads, queries, keys]`,
/// where they are wanted: a mask that learns needs them.
pub fn attention_gradient(
    attention: Attention<'_>,
    [q, k, v, dy]: [Heads<'_>; 4],
    probabilities: &[f32],
    [dq, dk, dv]: [HeadsMut<'_>; 3],
    dscores: Option<&mut [f32]>,
) {
    let Attention { heads, key_heads, queries, keys, width, value_width, scale, .. } = attention;
    let per_key_head = attention.check([q, k, v], probabilities.len());
    assert!(dy.data.len() >= dy.layout.span([attention.batch, heads, queries, value_width]), "dy has what it reaches");
    let layouts = [dq.layout, dk.layout, dv.layout];
    let dq = attention.result(dq, [heads, queries, width]);
    let dk = attention.result(dk, [key_heads, keys, width]);
    let dv = attention.result(dv, [key_heads, keys, value_width]);
    assert!(dscores.as_ref().is_none_or(|d| d.len() == probabilities.len()), "scores have the shape of probabilities");
    let dscores = dscores.map(Parts::new);
    if probabilities.is_empty() || width == 0 || value_width == 0 {
        return;
    }
    for_pieces(attention.batch * key_heads, 1, attention.is_worth_spreading(), |range| {
        for piece in range {
            let (sample, key_head) = (piece / key_heads, piece % key_heads);
            let (k, v) = (k.matrix(sample, key_head), v.matrix(sample, key_head));
            let d_key = dk.pointer(layouts[1].start(sample, key_head));
            let d_value = dv.pointer(layouts[2].start(sample, key_head));
            for head in key_head * per_key_head..(key_head + 1) * per_key_head {
                let (q, dy, accumulate) = (q.matrix(sample, head), dy.matrix(sample, head), head % per_key_head > 0);
                let range = (sample * heads + head) * queries * keys..(sample * heads + head + 1) * queries * keys;
                let p = Matrix::rows(&probabilities[range.clone()], keys);
                let d_query = dq.pointer(layouts[0].start(sample, head));
                with_scores(dscores.as_ref(), range, |ds| {
                    // SAFETY: what is read reaches as far as checked; this key head's vectors of `dv` are this piece's;
                    // `ds` has `queries` rows of `keys`.
                    unsafe {
                        let size = [keys, value_width, queries];
                        block_gemm(size, 1.0, p.transposed(), dy, accumulate, d_value, layouts[2].row_stride);
                        block_gemm([queries, keys, value_width], 1.0, dy, v.transposed(), false, ds.as_mut_ptr(), keys);
                    }
                    softmax_gradients(keys, p.data, ds);
                    let ds = Matrix::rows(ds, keys);
                    // SAFETY: as above, of the head's vectors of `dq` and the key head's of `dk`.
                    unsafe {
                        block_gemm([queries, width, keys], scale, ds, k, false, d_query, layouts[0].row_stride);
                        let size = [keys, width, queries];
                        block_gemm(size, scale, ds.transposed(), q, accumulate, d_key, layouts[1].row_stride);
                    }
                });
            }
        }
    });
}

/// Calls `work` with this range of the gradients of scores, or with scratch of its length.
fn with_scores(dscores: Option<&Parts<'_>>, range: std::ops::Range<usize>, work: impl FnOnce(&mut [f32])) {
    match dscores {
        // SAFETY: each sample and head belongs to one piece.
        Some(parts) => work(unsafe { parts.part(range) }),
        None => SCRATCH.with_borrow_mut(|scratch| {
            if scratch.len() < range.len() {
                scratch.resize(range.len(), 0.0);
            }
            work(&mut scratch[..range.len()]);
        }),
    }
}

/// Turns gradients of probabilities into gradients of scores.
fn softmax_gradients(keys: usize, p: &[f32], ds: &mut [f32]) {
    simd(
        #[inline(always)]
        || {
            for (p, ds) in p.chunks_exact(keys).zip(ds.chunks_exact_mut(keys)) {
                let dot = sum_of_pairs(p, ds, |p, ds| p * ds);
                ds.iter_mut().zip(p).for_each(|(ds, p)| *ds = p * (*ds - dot));
            }
        },
    );
}

impl<'a> Heads<'a> {
    fn matrix(self, sample: usize, head: usize) -> Matrix<'a> {
        let data = &self.data[self.layout.start(sample, head)..];
        Matrix { data, row_stride: self.layout.row_stride, column_stride: 1 }
    }
}

impl Attention<'_> {
    /// Heads that share a key head, after asserting that everything read is there.
    fn check(&self, [q, k, v]: [Heads<'_>; 3], n_probabilities: usize) -> usize {
        let &Attention { batch, heads, key_heads, queries, keys, width, value_width, .. } = self;
        assert!(key_heads > 0 && heads.is_multiple_of(key_heads), "key heads divide heads");
        assert_eq!(n_probabilities, batch * heads * queries * keys, "probabilities have their shape");
        let operands = [
            (q, [batch, heads, queries, width]),
            (k, [batch, key_heads, keys, width]),
            (v, [batch, key_heads, keys, value_width]),
        ];
        for (operand, sizes) in operands {
            assert!(operand.data.len() >= operand.layout.span(sizes), "operands have what their layouts reach");
        }
        if let Some(Mask { data, strides }) = self.mask {
            let sizes = [batch, heads, queries, keys];
            let reach: usize = sizes.iter().zip(strides).map(|(size, stride)| size.saturating_sub(1) * stride).sum();
            assert!(sizes.contains(&0) || reach < data.len(), "the mask has what its strides reach");
        }
        heads / key_heads
    }

    #[allow(clippy::needless_pass_by_value)] // the borrow is what is passed on
    fn result<'r>(&self, result: HeadsMut<'r>, [heads, rows, width]: [usize; 3]) -> Parts<'r> {
        let sizes = [self.batch, heads, rows, width];
        assert!(result.data.len() >= result.layout.span(sizes), "a result has what its layout reaches");
        assert!(result.layout.is_disjoint(sizes), "vectors of a result do not overlap");
        Parts::new(result.data)
    }

    fn is_worth_spreading(&self) -> bool {
        self.batch * self.heads * self.queries * self.keys * (self.width + self.value_width) >= 1 << 18
    }

    fn mask_row(&self, sample: usize, head: usize, row: usize, scores: &mut [f32]) {
        if let Some(Mask { data, strides }) = self.mask {
            let terms = &data[sample * strides[0] + head * strides[1] + row * strides[2]..];
            match strides[3] {
                1 => scores.iter_mut().zip(terms).for_each(|(score, term)| *score += term),
                stride => scores.iter_mut().enumerate().for_each(|(idx, score)| *score += terms[idx * stride]),
            }
        }
        if self.causal {
            scores.iter_mut().skip(row + 1).for_each(|score| *score = f32::NEG_INFINITY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, differences, dot, numbers, on_any_pool, wide};
    use super::*;

    /// From Q, K, V and a mask, one after the other in `parameters`, all contiguous with heads first.
    fn exact(a: &Attention<'_>, parameters: &[f64]) -> Vec<f64> {
        let sizes = [
            a.batch * a.heads * a.queries * a.width,
            a.batch * a.key_heads * a.keys * a.width,
            a.batch * a.key_heads * a.keys * a.value_width,
        ];
        let (q, rest) = parameters.split_at(sizes[0]);
        let (k, rest) = rest.split_at(sizes[1]);
        let (v, mask) = rest.split_at(sizes[2]);
        let mut y = Vec::new();
        for piece in 0..a.batch * a.heads {
            let key_piece = piece / a.heads * a.key_heads + piece % a.heads / (a.heads / a.key_heads);
            for i in 0..a.queries {
                let score = |j: usize| {
                    if a.causal && j > i {
                        return f64::NEG_INFINITY;
                    }
                    let dot: f64 = (0..a.width)
                        .map(|d| q[(piece * a.queries + i) * a.width + d] * k[(key_piece * a.keys + j) * a.width + d])
                        .sum();
                    dot * f64::from(a.scale) + mask.get((piece * a.queries + i) * a.keys + j).copied().unwrap_or(0.0)
                };
                let weights: Vec<f64> = (0..a.keys).map(|j| score(j).exp()).collect();
                let sum: f64 = weights.iter().sum();
                y.extend((0..a.value_width).map(|d| {
                    (0..a.keys).map(|j| weights[j] / sum * v[(key_piece * a.keys + j) * a.value_width + d]).sum::<f64>()
                }));
            }
        }
        y
    }

    /// `[batch, heads, rows, width]` as `[batch, rows, heads, width]`.
    fn rows_first(x: &[f32], [heads, rows, width]: [usize; 3]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        for (idx, &x) in x.iter().enumerate() {
            let (b, h, r, w) =
                (idx / (heads * rows * width), idx / (rows * width) % heads, idx / width % rows, idx % width);
            y[((b * rows + r) * heads + h) * width + w] = x;
        }
        y
    }

    fn check(a: Attention<'_>, is_masked: bool) {
        let shapes =
            [[a.heads, a.queries, a.width], [a.key_heads, a.keys, a.width], [a.key_heads, a.keys, a.value_width]];
        let operands =
            [1, 2, 3].map(|seed| numbers(a.batch * shapes[seed as usize - 1].iter().product::<usize>(), seed));
        let n_scores = a.batch * a.heads * a.queries * a.keys;
        let mask = numbers(if is_masked { n_scores } else { 0 }, 4);
        let strides = [a.heads * a.queries * a.keys, a.queries * a.keys, a.keys, 1];
        let masked = Attention { mask: is_masked.then_some(Mask { data: &mask, strides }), ..a };
        let parameters = wide(&[operands.concat(), mask.clone()].concat());
        let y_shape = [a.heads, a.queries, a.value_width];
        let dy = numbers(a.batch * y_shape.iter().product::<usize>(), 5);
        // Queries, values and dy lie with rows first, keys and the result with heads first.
        let q_rows = rows_first(&operands[0], shapes[0]);
        let v_rows = rows_first(&operands[2], shapes[2]);
        let dy_rows = rows_first(&dy, y_shape);
        let by_rows = |[heads, rows, width]: [usize; 3]| Layout::rows_first([rows, heads, width]);
        let q = Heads { data: &q_rows, layout: by_rows(shapes[0]) };
        let k = Heads { data: &operands[1], layout: Layout::heads_first(shapes[1]) };
        let v = Heads { data: &v_rows, layout: by_rows(shapes[2]) };
        let dy_heads = Heads { data: &dy_rows, layout: by_rows(y_shape) };
        let run = || {
            let (mut y, mut p) = (vec![f32::NAN; dy.len()], vec![f32::NAN; n_scores]);
            attention(masked, q, k, v, HeadsMut { data: &mut y, layout: Layout::heads_first(y_shape) }, &mut p);
            let [mut dq, mut dk, mut dv] = [0, 1, 2].map(|i| vec![f32::NAN; operands[i].len()]);
            let mut ds = vec![f32::NAN; if is_masked { n_scores } else { 0 }];
            let results = [
                HeadsMut { data: &mut dq, layout: Layout::heads_first(shapes[0]) },
                HeadsMut { data: &mut dk, layout: Layout::heads_first(shapes[1]) },
                HeadsMut { data: &mut dv, layout: Layout::heads_first(shapes[2]) },
            ];
            attention_gradient(masked, [q, k, v, dy_heads], &p, results, is_masked.then_some(&mut ds[..]));
            [y, dq, dk, dv, ds].concat()
        };
        let got = on_any_pool(run);
        close("attention", &got[..dy.len()], &exact(&a, &parameters), 1e-6);
        if parameters.len() < 700 {
            let expected = differences(&parameters, |parameters| dot(&exact(&a, parameters), &dy));
            close("gradients", &got[dy.len()..], &expected, 1e-5);
        }
    }

    #[test]
    fn values_and_gradients() {
        let a = Attention {
            batch: 2,
            heads: 4,
            key_heads: 4,
            queries: 3,
            keys: 5,
            width: 3,
            value_width: 2,
            scale: 0.7,
            causal: false,
            mask: None,
        };
        for is_masked in [false, true] {
            check(a, is_masked);
            check(Attention { causal: true, ..a }, is_masked);
            check(Attention { key_heads: 2, ..a }, is_masked);
            check(Attention { heads: 1, key_heads: 1, queries: 1, ..a }, is_masked);
        }
        check(Attention { heads: 6, key_heads: 3, queries: 65, keys: 70, width: 33, value_width: 32, ..a }, true);
    }

    #[test]
    #[should_panic(expected = "vectors of a result do not overlap")]
    fn overlapping_results_are_refused() {
        let layout = Layout { batch_stride: 4, head_stride: 1, row_stride: 2 };
        assert!(Layout { batch_stride: 4, head_stride: 2, row_stride: 1 }.is_disjoint([1, 2, 2, 1]));
        let a = Attention {
            batch: 1,
            heads: 2,
            key_heads: 2,
            queries: 2,
            keys: 2,
            width: 2,
            value_width: 2,
            scale: 1.0,
            causal: false,
            mask: None,
        };
        let heads = Heads { data: &[0.0; 8], layout: Layout::heads_first([2, 2, 2]) };
        attention(a, heads, heads, heads, HeadsMut { data: &mut [0.0; 8], layout }, &mut [0.0; 8]);
    }
}
