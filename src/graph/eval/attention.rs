//! `Attention`: scaled dot products of queries and keys, masked, through a softmax, over the values.

use super::args::{Args, allocation};
use super::floats::{floats, integers, one_type};
use super::numbers::Numbers;
use super::{EvalError, invalid};
use crate::graph::op;
use crate::graph::tensor::{DType, Tensor};

/// `Attention` of queries, keys and values of 4 dimensions `[batch, heads, sequence, size]`, or of 3
/// `[batch, sequence, heads · size]`; keys and values may have fewer heads, each of which then serves several queries'.
///
/// Gives `Y`, the keys and values with the past before them, and the scores as `qk_matmul_output_mode` says: 0 scaled
/// products, 1 after the soft cap, 2 with the mask added, 3 after the softmax. A query that may look at no key gets
/// zeros.
pub(super) fn attention(args: Args<'_>, op: &op::Attention) -> Result<Vec<Option<Tensor>>, EvalError> {
    check_attributes(op)?;
    let dtype = one_type(args, &[0, 1, 4])?;
    let value_type = one_type(args, &[2, 5])?;
    let rank = args.get(0)?.rank();
    let (past_key, past_value) = past(args)?;
    let n_past = past_key.as_ref().map_or(0, |past| past.n_sequence);
    let q = Heads::of(args, 0, op.q_num_heads)?;
    let k = Heads::of(args, 1, op.kv_num_heads)?.after(past_key)?;
    let v = Heads::of(args, 2, op.kv_num_heads)?.after(past_value)?;
    check_shapes(&q, &k, &v)?;
    let bias = Bias::of(args, op, &q, k.n_sequence, n_past)?;
    let mut scores = Heads::zeros([q.n_batches, q.n_heads, q.n_sequence, k.n_sequence])?;
    let mut y = Heads::zeros([q.n_batches, q.n_heads, q.n_sequence, v.size])?;
    for batch in 0..q.n_batches {
        for head in 0..q.n_heads {
            let kv_head = head / (q.n_heads / k.n_heads);
            for query in 0..q.n_sequence {
                let bias = bias.row(batch, head, query);
                let keys = (0..k.n_sequence).map(|key| k.row(batch, kv_head, key));
                let row = Row::of(op, q.row(batch, head, query), keys, &bias);
                let out = y.row_mut(batch, head, query);
                for (key, &weight) in row.weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
                    out.iter_mut().zip(v.row(batch, kv_head, key)).for_each(|(y, v)| *y += weight * v);
                }
                scores.row_mut(batch, head, query).copy_from_slice(match op.qk_matmul_output_mode {
                    0 => &row.products,
                    1 => &row.capped,
                    2 => &row.biased,
                    _ => &row.weights,
                });
            }
        }
    }
    Ok(vec![
        Some(y.into_tensor(dtype, rank)?),
        Some(k.into_tensor(dtype, 4)?),
        Some(v.into_tensor(value_type, 4)?),
        Some(scores.into_tensor(dtype, 4)?),
    ])
}

fn check_attributes(op: &op::Attention) -> Result<(), EvalError> {
    let windows = [op.left_window_size, op.right_window_size];
    if windows.iter().any(|&size| size < -1) {
        return Err(invalid(format!("window sizes should be -1 or more, got {windows:?}")));
    }
    if !(0..=3).contains(&op.qk_matmul_output_mode) {
        return Err(invalid(format!("`qk_matmul_output_mode` should be 0 to 3, got {}", op.qk_matmul_output_mode)));
    }
    match op.softmax_precision {
        None => Ok(()),
        Some(dtype) if dtype.is_float() && dtype.n_bits() >= 16 => Ok(()),
        Some(other) => Err(invalid(format!("`softmax_precision` should be a float type, got {other}"))),
    }
}

fn check_shapes(q: &Heads, k: &Heads, v: &Heads) -> Result<(), EvalError> {
    let heads_divide = if k.n_heads == 0 { q.n_heads == 0 } else { q.n_heads.is_multiple_of(k.n_heads) };
    let fits = k.n_batches == q.n_batches && v.n_batches == q.n_batches && k.size == q.size;
    if fits && heads_divide && v.n_heads == k.n_heads && v.n_sequence == k.n_sequence {
        return Ok(());
    }
    Err(invalid(format!("queries of {:?}, keys of {:?}, values of {:?}", q.shape(), k.shape(), v.shape())))
}

fn past(args: Args<'_>) -> Result<(Option<Heads>, Option<Heads>), EvalError> {
    let of = |position: usize| match args.optional(position) {
        Some(past) if past.rank() == 4 => Heads::of(args, position, None).map(Some),
        Some(past) => Err(invalid(format!("Attention takes a past of 4 dimensions, got {:?}", past.shape()))),
        None => Ok(None),
    };
    let (key, value) = (of(4)?, of(5)?);
    if key.is_some() != value.is_some() {
        return Err(invalid("Attention takes past_key and past_value together"));
    }
    if key.is_some() && args.optional(6).is_some() {
        return Err(invalid("Attention takes no nonpad_kv_seqlen beside a past"));
    }
    Ok((key, value))
}

/// The scores of one query, stage by stage.
struct Row {
    products: Vec<f64>,
    capped: Vec<f64>,
    biased: Vec<f64>,
    weights: Vec<f64>,
}

impl Row {
    fn of<'a>(op: &op::Attention, query: &[f64], keys: impl Iterator<Item = &'a [f64]>, bias: &[f64]) -> Row {
        let scale = op.scale.map_or(1.0 / (query.len() as f64).sqrt(), f64::from);
        let dot = |key: &[f64]| query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>() * scale;
        let products: Vec<f64> = keys.map(dot).collect();
        let cap = f64::from(op.softcap);
        let capped: Vec<f64> = products.iter().map(|x| if cap > 0.0 { cap * (x / cap).tanh() } else { *x }).collect();
        let biased: Vec<f64> = capped.iter().zip(bias).map(|(x, bias)| x + bias).collect();
        let is_masked = bias.iter().all(|&bias| bias == f64::NEG_INFINITY);
        let weights = if is_masked { vec![0.0; biased.len()] } else { softmax(&biased) };
        Row { products, capped, biased, weights }
    }
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let greatest = scores.iter().fold(f64::NEG_INFINITY, |a, &b| if b > a || b.is_nan() { b } else { a });
    if greatest == f64::NEG_INFINITY {
        return vec![0.0; scores.len()];
    }
    let powers: Vec<f64> = scores.iter().map(|x| (x - greatest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// What is added to the scores: the mask, and minus infinity where causality, window or padding hide a key.
struct Bias<'a> {
    op: &'a op::Attention,
    mask: Option<Mask>,
    /// For each batch, or for all, the number of keys before the first query.
    offsets: Vec<i128>,
    /// For each batch the number of keys that are no padding.
    n_valid: Option<Vec<i128>>,
    n_keys: usize,
}

struct Mask {
    values: Vec<f64>,
    shape: [usize; 4],
}

impl Bias<'_> {
    fn of<'a>(
        args: Args<'_>,
        op: &'a op::Attention,
        q: &Heads,
        n_keys: usize,
        n_past: usize,
    ) -> Result<Bias<'a>, EvalError> {
        let n_valid = args.optional(6).map(|_| integers(args, 6)).transpose()?;
        if n_valid.as_ref().is_some_and(|lengths| lengths.len() != q.n_batches) {
            return Err(invalid(format!("nonpad_kv_seqlen should hold {} lengths", q.n_batches)));
        }
        let wide = |size: usize| i128::try_from(size).expect("a size has at most 64 bits");
        let offsets = match &n_valid {
            Some(lengths) => lengths.iter().map(|length| length - wide(q.n_sequence)).collect(),
            None => vec![wide(n_past)],
        };
        let mask = args.optional(3).map(|mask| Mask::of(mask, q, n_keys)).transpose()?;
        Ok(Bias { op, mask, offsets, n_valid, n_keys })
    }

    fn row(&self, batch: usize, head: usize, query: usize) -> Vec<f64> {
        let offset = self.offsets.get(batch).or(self.offsets.first()).copied().unwrap_or(0);
        let n_valid = self.n_valid.as_ref().map_or(i128::MAX, |n_valid| n_valid[batch]);
        let (left, right) = (i128::from(self.op.left_window_size), i128::from(self.op.right_window_size));
        let at = |position: usize| i128::try_from(position).expect("a position has at most 64 bits");
        let ahead = |key: usize| at(key) - (at(query) + offset);
        let hidden = |key: usize| {
            let ahead = ahead(key);
            (self.op.is_causal && ahead > 0)
                || (left >= 0 && -ahead > left)
                || (right >= 0 && ahead > right)
                || at(key) >= n_valid
        };
        let mask = |key: usize| self.mask.as_ref().map_or(0.0, |mask| mask.at([batch, head, query, key]));
        (0..self.n_keys).map(|key| if hidden(key) { f64::NEG_INFINITY } else { mask(key) }).collect()
    }
}

impl Mask {
    fn of(mask: &Tensor, q: &Heads, n_keys: usize) -> Result<Mask, EvalError> {
        let refused = || invalid(format!("a mask of shape {:?} over {:?} and {n_keys} keys", mask.shape(), q.shape()));
        let n_missing = 4usize.checked_sub(mask.rank()).filter(|&n| n < 4).ok_or_else(refused)?;
        let mut shape = [1; 4];
        shape[n_missing..].copy_from_slice(mask.shape());
        let [leading @ .., n_mask_keys] = shape;
        let spread = leading.iter().zip([q.n_batches, q.n_heads, q.n_sequence]);
        if n_mask_keys > n_keys || spread.clone().any(|(&have, want)| have != 1 && have != want) {
            return Err(refused());
        }
        let mut values = Numbers::floats(mask)?;
        if mask.dtype() == DType::Bool {
            values.iter_mut().for_each(|x| *x = if *x == 0.0 { f64::NEG_INFINITY } else { 0.0 });
        }
        Ok(Mask { values, shape })
    }

    /// The mask there; beyond its last key everything is hidden.
    fn at(&self, [batch, head, query, key]: [usize; 4]) -> f64 {
        let [n_batches, n_heads, n_queries, n_keys] = self.shape;
        if key >= n_keys {
            return f64::NEG_INFINITY;
        }
        let row = ((batch % n_batches) * n_heads + head % n_heads) * n_queries + query % n_queries;
        self.values[row * n_keys + key]
    }
}

/// An empty dimension must not hide one that would be walked through for ever.
fn bounded(shape: [usize; 4]) -> Result<(), EvalError> {
    allocation(&shape.map(|size| size.max(1))).map(drop)
}

/// Vectors by batch, head and position.
struct Heads {
    n_batches: usize,
    n_heads: usize,
    n_sequence: usize,
    size: usize,
    values: Vec<f64>,
}

impl Heads {
    /// The input at this position; one of 3 dimensions is taken apart into `n_heads`.
    fn of(args: Args<'_>, position: usize, n_heads: Option<i64>) -> Result<Heads, EvalError> {
        let tensor = args.get(position)?;
        let values = floats(args, position)?;
        let stated = n_heads.map(|n| usize::try_from(n).unwrap_or(0));
        let refused = || invalid(format!("Attention with {n_heads:?} heads over {:?}", tensor.shape()));
        match *tensor.shape() {
            [n_batches, n_heads, n_sequence, size] if stated.is_none_or(|stated| stated == n_heads) => {
                bounded([n_batches, n_heads, n_sequence, size])?;
                Ok(Heads { n_batches, n_heads, n_sequence, size, values })
            }
            [n_batches, n_sequence, hidden] => {
                let n_heads = stated.filter(|&n| n > 0 && hidden.is_multiple_of(n)).ok_or_else(refused)?;
                let size = hidden / n_heads;
                let mut heads = Heads::zeros([n_batches, n_heads, n_sequence, size])?;
                for (idx, vector) in values.chunks(size.max(1)).enumerate() {
                    let (place, head) = (idx / n_heads, idx % n_heads);
                    heads.row_mut(place / n_sequence, head, place % n_sequence).copy_from_slice(vector);
                }
                Ok(heads)
            }
            _ => Err(refused()),
        }
    }

    fn zeros([n_batches, n_heads, n_sequence, size]: [usize; 4]) -> Result<Heads, EvalError> {
        bounded([n_batches, n_heads, n_sequence, size])?;
        let values = vec![0.0; n_batches * n_heads * n_sequence * size];
        Ok(Heads { n_batches, n_heads, n_sequence, size, values })
    }

    fn shape(&self) -> [usize; 4] {
        [self.n_batches, self.n_heads, self.n_sequence, self.size]
    }

    fn row(&self, batch: usize, head: usize, position: usize) -> &[f64] {
        &self.values[((batch * self.n_heads + head) * self.n_sequence + position) * self.size..][..self.size]
    }

    fn row_mut(&mut self, batch: usize, head: usize, position: usize) -> &mut [f64] {
        &mut self.values[((batch * self.n_heads + head) * self.n_sequence + position) * self.size..][..self.size]
    }

    /// These after the past ones.
    fn after(self, past: Option<Heads>) -> Result<Heads, EvalError> {
        let Some(past) = past else { return Ok(self) };
        if [past.n_batches, past.n_heads, past.size] != [self.n_batches, self.n_heads, self.size] {
            return Err(invalid(format!("a past of {:?} before {:?}", past.shape(), self.shape())));
        }
        let n_sequence = past.n_sequence + self.n_sequence;
        let mut whole = Heads::zeros([self.n_batches, self.n_heads, n_sequence, self.size])?;
        for batch in 0..self.n_batches {
            for head in 0..self.n_heads {
                for position in 0..n_sequence {
                    let row = match position.checked_sub(past.n_sequence) {
                        Some(position) => self.row(batch, head, position),
                        None => past.row(batch, head, position),
                    };
                    whole.row_mut(batch, head, position).copy_from_slice(row);
                }
            }
        }
        Ok(whole)
    }

    /// As a tensor of 4 dimensions, or of 3 with the heads side by side.
    fn into_tensor(self, dtype: DType, rank: usize) -> Result<Tensor, EvalError> {
        if rank != 3 {
            let shape = self.shape();
            return Numbers::Float(self.values).into_tensor(dtype, &shape);
        }
        let mut values = Vec::with_capacity(self.values.len());
        for batch in 0..self.n_batches {
            for position in 0..self.n_sequence {
                for head in 0..self.n_heads {
                    values.extend_from_slice(self.row(batch, head, position));
                }
            }
        }
        Numbers::Float(values).into_tensor(dtype, &[self.n_batches, self.n_sequence, self.n_heads * self.size])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_near as check, input, refused};
    use crate::graph::op::{Attention, Op};
    use crate::graph::tensor::Tensor;

    /// Queries and keys of zeros look at every key alike: the output is the mean of the values in sight.
    fn alike(n_queries: usize, values: &[f32]) -> Vec<Option<Tensor>> {
        let n = values.len();
        let zeros = |n: usize| input(&[1, 1, n, 1], &vec![0f32; n]);
        vec![zeros(n_queries), zeros(n), input(&[1, 1, n, 1], values)]
    }

    fn with(mut inputs: Vec<Option<Tensor>>, more: impl IntoIterator<Item = Option<Tensor>>) -> Vec<Option<Tensor>> {
        inputs.extend(more);
        inputs
    }

    fn op(attributes: Attention) -> Op {
        Op::Attention(attributes)
    }

    #[test]
    fn masks_narrow_what_is_seen() {
        let values = [1.0, 2.0, 6.0];
        let shape: &[usize] = &[1, 1, 3, 1];
        check(&op(Attention::default()), &alike(3, &values), &[(shape, &[3.0, 3.0, 3.0])]);
        let causal = || op(Attention { is_causal: true, ..Attention::default() });
        check(&causal(), &alike(3, &values), &[(shape, &[1.0, 1.5, 3.0])]);
        let window = Attention { left_window_size: 1, right_window_size: 0, ..Attention::default() };
        check(&op(window), &alike(3, &values), &[(shape, &[1.0, 1.5, 4.0])]);
        let mask = input(&[3, 3], &[true, false, true, false, false, false, true, true, true]);
        check(&op(Attention::default()), &with(alike(3, &values), [mask]), &[(shape, &[3.5, 0.0, 3.0])]);
        let short = input(&[2], &[f32::NEG_INFINITY, 1.0]);
        check(&op(Attention::default()), &with(alike(3, &values), [short]), &[(shape, &[2.0; 3])]);
        let valid = |n: i64| with(alike(3, &values), [None, None, None, input(&[1], &[n])]);
        check(&op(Attention::default()), &valid(2), &[(shape, &[1.5; 3])]);
        check(&causal(), &valid(2), &[(shape, &[0.0, 1.0, 1.5])]);
        check(&op(Attention::default()), &valid(i64::MIN), &[(shape, &[0.0; 3])]);
    }

    #[test]
    fn the_past_comes_first() {
        let past = |elements: &[f32]| input(&[1, 1, elements.len(), 1], elements);
        let inputs = || with(alike(1, &[4.0]), [None, past(&[0.0, 0.0]), past(&[1.0, 7.0])]);
        let causal = op(Attention { is_causal: true, ..Attention::default() });
        let cache: &[usize] = &[1, 1, 3, 1];
        check(&causal, &inputs(), &[(&[1, 1, 1, 1], &[4.0]), (cache, &[0.0; 3]), (cache, &[1.0, 7.0, 4.0])]);
        refused(&causal, &inputs()[..5], "together");
        refused(&causal, &with(inputs(), [input(&[1], &[1i64])]), "beside a past");
    }

    #[test]
    fn heads_share_keys() {
        let q = || input(&[1, 1, 4], &[1f32, 0.0, 0.0, 2.0]);
        let k = || input(&[1, 2, 2], &[1f32, 0.0, 0.0, 1.0]);
        let v = || input(&[1, 2, 2], &[1f32, 10.0, 2.0, 20.0]);
        let heads = |q: i64, kv: i64, qk_matmul_output_mode| {
            let (q_num_heads, kv_num_heads, scale) = (Some(q), Some(kv), Some(1.0));
            op(Attention {
                q_num_heads,
                kv_num_heads,
                scale,
                softcap: 1.0,
                qk_matmul_output_mode,
                ..Attention::default()
            })
        };
        let weight = |score: f64| score.tanh().exp() / (1.0 + score.tanh().exp());
        let (first, second) = (2.0 - weight(1.0), 1.0 + weight(2.0));
        let y = [first, first * 10.0, second, second * 10.0];
        let cache: &[usize] = &[1, 1, 2, 2];
        let keys: (&[usize], &[f64]) = (cache, &[1.0, 0.0, 0.0, 1.0]);
        let gives = |mode: i64, scores: &[f64]| {
            let values: (&[usize], &[f64]) = (cache, &[1.0, 10.0, 2.0, 20.0]);
            let expected = [(&[1, 1, 4][..], &y[..]), keys, values, (&[1, 2, 1, 2], scores)];
            check(&heads(2, 1, mode), &[q(), k(), v()], &expected);
        };
        gives(0, &[1.0, 0.0, 0.0, 2.0]);
        gives(1, &[1f64.tanh(), 0.0, 0.0, 2f64.tanh()]);
        gives(3, &[weight(1.0), 1.0 - weight(1.0), 1.0 - weight(2.0), weight(2.0)]);
        refused(&heads(3, 1, 0), &[q(), k(), v()], "Some(3) heads");
        refused(&heads(1, 2, 0), &[q(), k(), v()], "queries of");
        refused(&op(Attention::default()), &[q(), k(), v()], "None heads");
    }

    #[test]
    fn attributes_and_shapes_are_checked() {
        let inputs = || alike(1, &[1.0]);
        refused(&op(Attention { left_window_size: -2, ..Attention::default() }), &inputs(), "window sizes");
        refused(
            &op(Attention { qk_matmul_output_mode: 4, ..Attention::default() }),
            &inputs(),
            "`qk_matmul_output_mode`",
        );
        refused(&op(Attention::default()), &with(inputs(), [input(&[2], &[0f32; 2])]), "a mask of shape [2]");
        refused(&op(Attention::default()), &with(inputs(), [input(&[], &[0f32])]), "a mask of shape []");
        let endless =
            [input::<f32>(&[1, 1, 1 << 40, 0], &[]), input(&[1, 1, 1, 1], &[0f32]), input(&[1, 1, 1, 1], &[0f32])];
        refused(&op(Attention::default()), &endless, "too large");
    }
}
