//! `Attention`: scaled products of queries and keys, masked, through a softmax, over the values.

use super::{Lowered, Lowering};
use crate::graph::Op;
use crate::graph::op;
use crate::graph::tensor::{DType, Tensor};
use crate::learn::exec::ExecError;
use crate::learn::exec::emit::Emitter;
use crate::learn::exec::program::{Id, Kind, Reduction};
use crate::learn::kernels::elementwise::Unary;

/// Less than any score, but a number: a row of nothing else still has a softmax.
const FAR_BELOW: f32 = -1e30;

pub(super) fn lower(lowering: &mut Lowering<'_, '_>, op: &Op) -> Lowered {
    let Op::Attention(attention) = op else { return Ok(None) };
    if lowering.node.input(6).is_some() || !(0..=3).contains(&attention.qk_matmul_output_mode) {
        return Ok(None);
    }
    let [q, k, v] = [lowering.input(0)?, lowering.input(1)?, lowering.input(2)?];
    if let Some(y) = whole(lowering, attention, [q, k, v]) {
        return Ok(Some(vec![y]));
    }
    let past = [lowering.optional(4)?, lowering.optional(5)?];
    let rank = lowering.emit().rank(q);
    let emit = lowering.emit();
    let heads = [(q, attention.q_num_heads), (k, attention.kv_num_heads), (v, attention.kv_num_heads)];
    let heads = heads.map(|(x, n_heads)| split(emit, x, n_heads));
    let [Some(q), Some(k), Some(v)] = heads else { return Ok(None) };
    let n_past = past[0].map_or(0, |past| emit.shape(past)[2]);
    let k = past[0].map_or(k, |past| emit.concat(2, &[past, k]));
    let v = past[1].map_or(v, |past| emit.concat(2, &[past, v]));
    let q_shape = emit.shape(q).to_vec();
    if q_shape.contains(&0) || emit.shape(k).contains(&0) {
        return Ok(None);
    }
    let scale = attention.scale.map_or(1.0 / (q_shape[3] as f64).sqrt(), f64::from);
    let (keys, values) = (repeated(emit, k, q_shape[1]), repeated(emit, v, q_shape[1]));
    let products = emit.matmul(q, keys, false, true);
    let products = emit.affine(products, scale, 0.0);
    let mut capped = products;
    if attention.softcap > 0.0 {
        let cap = f64::from(attention.softcap);
        let inner = emit.affine(products, 1.0 / cap, 0.0);
        let inner = emit.unary(Unary::Tanh, inner);
        capped = emit.affine(inner, cap, 0.0);
    }
    let shape = emit.shape(products).try_into().expect("scores have four axes");
    let (biased, weights) = match bias(lowering, attention, shape, n_past)? {
        Some(bias) => masked(lowering.emit(), capped, &bias),
        None => (capped, lowering.emit().softmax(capped, 3)),
    };
    let emit = lowering.emit();
    let y = emit.matmul(weights, values, false, false);
    let y = if rank == 3 { joined(emit, y) } else { y };
    let scores = match attention.qk_matmul_output_mode {
        0 => products,
        1 => capped,
        2 => biased,
        _ => weights,
    };
    Ok(Some(vec![y, k, v, scores]))
}

/// The primitive for a whole attention, where the operator asks for no more: as many heads of keys as of queries, side by
/// side, of the same tokens and sizes, nothing hidden, and no scores.
fn whole(lowering: &mut Lowering<'_, '_>, attention: &op::Attention, [q, k, v]: [Id; 3]) -> Option<Id> {
    let op::Attention { is_causal, q_num_heads, kv_num_heads, scale, softcap, .. } = *attention;
    let windows = [attention.left_window_size, attention.right_window_size];
    let is_plain = !is_causal && softcap == 0.0 && windows == [-1, -1] && q_num_heads == kv_num_heads;
    let is_alone = (3..7).all(|position| lowering.node.input(position).is_none())
        && (1..4).all(|position| lowering.node.output(position).is_none());
    let emit = lowering.emit();
    let &[_, n_tokens, width] = emit.shape(q) else { return None };
    let is_even = emit.shape(k) == emit.shape(q) && emit.shape(v) == emit.shape(q);
    let n_heads = q_num_heads.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0 && width.is_multiple_of(n))?;
    if !is_plain || !is_alone || !is_even || n_tokens == 0 || width == 0 {
        return None;
    }
    let scale = scale.map_or(1.0 / ((width / n_heads) as f64).sqrt(), f64::from);
    Some(emit.attention(vec![q, k, v], n_heads, scale)[0])
}

/// `[batch, heads, tokens, size]`; none where the heads are not known.
fn split(emit: &mut Emitter, x: Id, n_heads: Option<i64>) -> Option<Id> {
    match *emit.shape(x) {
        [_, _, _, _] => Some(x),
        [batch, tokens, width] => {
            let n_heads =
                n_heads.and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0 && width.is_multiple_of(n))?;
            let apart = emit.reshape(x, &[batch, tokens, n_heads, width / n_heads]);
            Some(emit.transpose(apart, &[0, 2, 1, 3]))
        }
        _ => None,
    }
}

/// The inverse of [`split`] for an operator of three axes.
fn joined(emit: &mut Emitter, x: Id) -> Id {
    let &[batch, n_heads, tokens, size] = emit.shape(x) else { unreachable!("it was split into four axes") };
    let moved = emit.transpose(x, &[0, 2, 1, 3]);
    emit.reshape(moved, &[batch, tokens, n_heads * size])
}

/// Each head as often as there are heads of queries for it.
fn repeated(emit: &mut Emitter, x: Id, n_heads: usize) -> Id {
    let &[batch, n_own, tokens, size] = emit.shape(x) else { unreachable!("it was split into four axes") };
    if n_own == n_heads {
        return x;
    }
    let apart = emit.reshape(x, &[batch, n_own, 1, tokens, size]);
    let each = emit.expand(apart, &[batch, n_own, n_heads / n_own, tokens, size]);
    emit.reshape(each, &[batch, n_heads, tokens, size])
}

/// What is added to scores, and whether it may hide every key of a query.
struct Bias {
    id: Id,
    may_hide_all: bool,
}

/// The mask, and minus infinity where causality or a window hides a key.
fn bias(
    lowering: &mut Lowering<'_, '_>,
    attention: &op::Attention,
    [_, _, n_queries, n_keys]: [usize; 4],
    n_past: usize,
) -> Result<Option<Bias>, ExecError> {
    let signed = |size: usize| i128::try_from(size).unwrap_or(i128::MAX);
    let (left, right) = (i128::from(attention.left_window_size), i128::from(attention.right_window_size));
    let is_hidden = |flat: usize| {
        let ahead = signed(flat % n_keys) - signed(flat / n_keys + n_past);
        (attention.is_causal && ahead > 0) || (left >= 0 && -ahead > left) || (right >= 0 && ahead > right)
    };
    let hidden: Vec<bool> = (0..n_queries * n_keys).map(is_hidden).collect();
    let hides_a_row = hidden.chunks(n_keys).any(|row| !row.contains(&false));
    let mut bias = None;
    if hidden.contains(&true) {
        let values = hidden.iter().map(|&hidden| if hidden { f32::NEG_INFINITY } else { 0.0 }).collect();
        let values = Tensor::new(&[n_queries, n_keys], values)?;
        bias = Some(Bias { id: lowering.emit().constant(values), may_hide_all: hides_a_row });
    }
    let Some(mask) = lowering.optional(3)? else { return Ok(bias) };
    let mask = match lowering.emit().kind(mask) {
        Kind::Plain(DType::Bool) => {
            let shape = lowering.emit().shape(mask).to_vec();
            let emit = lowering.emit();
            let (zero, below) = (emit.scalar(0.0), emit.scalar(f64::NEG_INFINITY));
            lowering.computed(&Op::Where, &[Some(mask), Some(zero), Some(below)], vec![(Kind::Float, shape)])?[0]
        }
        Kind::Plain(_) | Kind::Index => lowering.emit().plain_as_float(mask),
        Kind::Float => mask,
    };
    let emit = lowering.emit();
    let mut shape = emit.shape(mask).to_vec();
    // keys beyond the mask's last are hidden
    let mask = match shape.last_mut() {
        Some(last) if *last < n_keys => {
            *last = n_keys;
            emit.pad(mask, vec![0; shape.len()], f64::NEG_INFINITY, shape)
        }
        _ => mask,
    };
    let id = bias.map_or(mask, |bias| emit.add(mask, bias.id));
    Ok(Some(Bias { id, may_hide_all: true }))
}

/// The scores with the bias added, and their softmax; zero for a query that may look at no key.
fn masked(emit: &mut Emitter, scores: Id, bias: &Bias) -> (Id, Id) {
    let biased = emit.add(scores, bias.id);
    if !bias.may_hide_all {
        return (biased, emit.softmax(biased, 3));
    }
    let finite = emit.unary(Unary::Clip { min: FAR_BELOW, max: f32::INFINITY }, bias.id);
    let finite = emit.add(scores, finite);
    let weights = emit.softmax(finite, 3);
    let last = emit.rank(bias.id) - 1;
    let greatest = emit.reduce(Reduction::Max, bias.id, &[last]);
    let below = emit.scalar(f64::NEG_INFINITY);
    let is_blind = emit.equal(greatest, below);
    let sees = emit.affine(is_blind, -1.0, 1.0);
    (biased, emit.mul(weights, sees))
}
