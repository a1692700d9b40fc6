//! The sizes of an attention's heads, from shapes, weights and attributes.

use super::flow::Flow;
use super::linear::linear;
use crate::graph::shape::Types;
use crate::graph::{Name, Node, Op};

/// How an attention's features are shared out to heads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heads {
    pub(super) n_heads: Option<usize>,
    pub(super) n_kv_heads: Option<usize>,
    pub(super) head_size: Option<usize>,
}

/// The heads of the operator `Attention`, which reads them as a dimension of their own or side by side.
pub(super) fn of_operator(flow: &Flow<'_>, node: &Node) -> Heads {
    let Op::Attention(attributes) = &node.op else { return Heads::default() };
    let heads = |position: usize, stated: Option<i64>| {
        let shape = &flow.types.tensor(node.input(position)?)?.shape;
        match shape.as_ref()?.as_slice() {
            [_, heads, _, size] => Some((heads.known(), size.known())),
            [_, _, features] => {
                let heads = stated.and_then(|heads| usize::try_from(heads).ok());
                Some((heads, divided(features.known(), heads)))
            }
            _ => None,
        }
    };
    let (n_heads, head_size) = heads(0, attributes.q_num_heads).unwrap_or_default();
    let (n_kv_heads, _) = heads(1, attributes.kv_num_heads).unwrap_or_default();
    Heads { n_heads, n_kv_heads, head_size }
}

/// The heads of an attention made of products, of which the merged result has `n_merged` features.
pub(super) fn of_products(
    flow: &Flow<'_>,
    scores: usize,
    queries: &Name,
    keys: &Name,
    n_merged: Option<usize>,
) -> Heads {
    if let Some(heads) = flow.node(scores).and_then(|node| of_einsum(flow, node, n_merged)) {
        return heads;
    }
    let dim =
        |name: &str, from_end: usize| flow.types.tensor(name)?.shape.as_ref()?.iter().rev().nth(from_end)?.known();
    let rank = |name: &str| flow.types.tensor(name).and_then(|tensor| tensor.rank());
    let head_size = dim(queries, 0);
    let own = |name: &str| dim(name, 2).filter(|_| rank(name).is_some_and(|rank| rank >= 4));
    let n_heads = own(queries).or_else(|| divided(n_merged, head_size));
    Heads { n_heads, n_kv_heads: own(keys).or(n_heads), head_size }
}

/// From the letters of `bqhd,bkhd->bhqk`: the one summed over is the head's size, the second of those that all three have
/// counts the heads.
fn of_einsum(flow: &Flow<'_>, node: &Node, n_merged: Option<usize>) -> Option<Heads> {
    let (left, right, result) = equation(node)?;
    let sizes = &flow.types.tensor(node.input(0)?)?.shape;
    let size = |letter: char| sizes.as_ref()?.get(left.chars().position(|l| l == letter)?)?.known();
    let summed = left.chars().find(|&letter| right.contains(letter) && !result.contains(letter))?;
    let shared: Vec<char> = result.chars().filter(|&letter| left.contains(letter) && right.contains(letter)).collect();
    let head_size = size(summed);
    let n_heads = match shared.as_slice() {
        [_, heads] => size(*heads),
        _ => divided(n_merged, head_size),
    };
    Some(Heads { n_heads, n_kv_heads: n_heads, head_size })
}

/// Whether the first factor of an `Einsum` is the keys: the softmax runs along the last letter of the scores.
pub(super) fn keys_come_first(flow: &Flow<'_>, scores: usize) -> bool {
    let terms = flow.node(scores).and_then(equation);
    terms.is_some_and(|(left, _, result)| result.chars().last().is_some_and(|letter| left.contains(letter)))
}

/// The terms of an `Einsum` of two factors without an ellipsis.
fn equation(node: &Node) -> Option<(String, String, String)> {
    let Op::Einsum(einsum) = &node.op else { return None };
    let plain: String = einsum.equation.chars().filter(|letter| !letter.is_whitespace()).collect();
    let (factors, result) = plain.split_once("->")?;
    let (left, right) = factors.split_once(',')?;
    let letters = |term: &str| term.chars().all(|letter| letter.is_ascii_alphabetic());
    let terms = [left, right, result];
    terms.iter().all(|term| letters(term)).then(|| (left.to_string(), right.to_string(), result.to_string()))
}

/// How many heads the key's projection makes, where it also makes the values or the queries or stands alone.
pub(super) fn n_kv_heads(flow: &Flow<'_>, projections: [Option<usize>; 3], heads: &Heads) -> Option<usize> {
    let [query, key, value] = projections;
    let made = divided(linear(flow, key?)?.n_out, heads.head_size)?;
    match (query == key, value == key) {
        (true, true) => made.checked_sub(heads.n_heads?).map(|both| both / 2),
        (false, true) => Some(made / 2),
        (true, false) => made.checked_sub(heads.n_heads?),
        (false, false) => Some(made),
    }
    .filter(|&n_heads| n_heads > 0)
}

/// Whether a value has one element only.
pub(super) fn is_scalar(flow: &Flow<'_>, name: &str) -> bool {
    let shape = flow.types.known_shape(name);
    shape.is_some_and(|shape| shape.iter().all(|&size| size == 1))
}

/// The only element of a value as a number, where it is known.
pub(super) fn scalar(flow: &Flow<'_>, name: &str) -> Option<f64> {
    let types: &Types = flow.types;
    let tensor = types.constant(name).filter(|tensor| tensor.len() == 1)?;
    if let Ok(&[number]) = tensor.as_slice::<f64>() {
        return Some(number);
    }
    tensor.to_f32s().ok()?.first().map(|&number| f64::from(number))
}

/// The size of a value's last dimension.
pub(super) fn last_dim(flow: &Flow<'_>, name: &str) -> Option<usize> {
    flow.types.tensor(name)?.shape.as_ref()?.last()?.known()
}

fn divided(whole: Option<usize>, part: Option<usize>) -> Option<usize> {
    let (whole, part) = (whole?, part?);
    (part > 0 && whole % part == 0).then_some(whole / part)
}
