//! Objectives of attention.

use super::features::over;
use super::logits::divergence;
use super::options::Pair;
use super::site::{Site, Tap, signed};
use crate::compress::distill::DistillError;
use crate::graph::Name;
use crate::graph::op::Op;

/// A score as low as this hides a token (`TinyBERT` of its authors' code).
const HIDDEN: f64 = -100.0;

/// The least score that a softmax is given: what is lower has no weight either, and may be infinite.
const LEAST_SCORE: f64 = -1e4;

const NAME_SCORES: &str = "name scores of as many heads and tokens, [batch, heads, tokens, tokens]";

pub(super) fn scores(site: &mut Site<'_>, taps: [Tap; 2]) -> Result<Name, DistillError> {
    site.ranks(&taps, &[4], NAME_SCORES)?;
    site.same_dims(&taps, NAME_SCORES)?;
    let [s, t] = taps;
    let [s, t] = [s.name, t.name].map(|name| finite(site, &name));
    let behind = &mut site.behind;
    let above = behind.plus(&t, -HIDDEN);
    let above = behind.node(Op::Relu, &[&above]);
    let is_shown = behind.node(Op::Sign, &[&above]);
    let difference = behind.sub(&s, &t);
    let difference = behind.mul(&difference, &is_shown);
    let squares = behind.square(&difference);
    Ok(behind.mean(&squares))
}

pub(super) fn minilm(site: &mut Site<'_>, attention: &[Pair], values: &[Pair]) -> Result<Name, DistillError> {
    let weights = over(site, attention, |site, taps| {
        site.ranks(&taps, &[4], NAME_SCORES)?;
        site.same_dims(&taps, NAME_SCORES)?;
        let [s, t] = [&taps[0], &taps[1]].map(|tap| finite(site, &tap.name));
        let rows = divergence(site, &s, &t);
        Ok(site.behind.mean(&rows))
    })?;
    let values = over(site, values, |site, taps| {
        let remedy = "name values of as many heads, [batch, heads, tokens, head size]";
        site.ranks(&taps, &[4], remedy)?;
        if site.size(&taps[0], 1)? != site.size(&taps[1], 1)? {
            let problem = format!("{} and {} differ in heads", taps[0].described(), taps[1].described());
            return Err(site.unfit(problem, "use `minilm-v2`"));
        }
        let [s, t] = [relations(site, &taps[0])?, relations(site, &taps[1])?];
        let rows = divergence(site, &s, &t);
        Ok(site.behind.mean(&rows))
    })?;
    Ok(site.sum_of(&[weights, values]))
}

/// `x xᵀ / √d` of each head of `[n, heads, tokens, head size]`.
fn relations(site: &mut Site<'_>, tap: &Tap) -> Result<Name, DistillError> {
    let head_size = site.size(tap, 3)?;
    Ok(products(site, &tap.name, head_size))
}

fn products(site: &mut Site<'_>, heads: &Name, head_size: usize) -> Name {
    let behind = &mut site.behind;
    let columns = behind.transpose(heads, &[0, 1, 3, 2]);
    let products = behind.matmul(heads, &columns);
    behind.times(&products, 1.0 / (head_size as f64).sqrt())
}

pub(super) fn minilm_v2(
    site: &mut Site<'_>,
    [queries, keys, values]: [&Vec<Pair>; 3],
    n_heads: Option<usize>,
) -> Result<Name, DistillError> {
    let mut terms = Vec::with_capacity(3);
    for (pairs, are_keys) in [(queries, false), (keys, true), (values, false)] {
        terms.push(over(site, pairs, |site, taps| {
            site.ranks(&taps, &[3, 4], "name queries, keys and values with tokens and features")?;
            let n_heads = match (n_heads, taps[1].rank()) {
                (Some(n_heads), _) => n_heads,
                (None, 4) => site.size(&taps[1], 1)?,
                (None, _) => {
                    let problem = format!("{} does not tell the number of heads", taps[1].described());
                    return Err(site.unfit(problem, "set `heads`"));
                }
            };
            let [s, t] = [divided(site, &taps[0], are_keys, n_heads)?, divided(site, &taps[1], are_keys, n_heads)?];
            let rows = divergence(site, &s, &t);
            Ok(site.behind.mean(&rows))
        })?);
    }
    Ok(site.sum_of(&terms))
}

/// The relations of a value that is divided into so many heads anew, `[n, n_heads, tokens, tokens]`.
fn divided(site: &mut Site<'_>, tap: &Tap, are_keys: bool, n_heads: usize) -> Result<Name, DistillError> {
    let (tokens, n_features) = if tap.rank() == 3 {
        (tap.name.clone(), site.size(tap, 2)?)
    } else {
        let head_axis = if are_keys { 2 } else { 3 };
        let n_features = site.size(tap, 1)? * site.size(tap, head_axis)?;
        let perm = if are_keys { [0, 3, 1, 2] } else { [0, 2, 1, 3] };
        let apart = site.behind.transpose(&tap.name, &perm);
        (site.behind.reshape(&apart, &[0, 0, signed(n_features)]), n_features)
    };
    if !n_features.is_multiple_of(n_heads) {
        let problem = format!("{n_heads} heads do not divide the {n_features} features of {}", tap.described());
        return Err(site.unfit(problem, "set `heads` to a divisor of both networks' features"));
    }
    let head_size = n_features / n_heads;
    let heads = site.behind.reshape(&tokens, &[0, 0, signed(n_heads), signed(head_size)]);
    let heads = site.behind.transpose(&heads, &[0, 2, 1, 3]);
    Ok(products(site, &heads, head_size))
}

/// Scores of which none is lower than a softmax can tell.
fn finite(site: &mut Site<'_>, scores: &Name) -> Name {
    let least = site.behind.number(LEAST_SCORE);
    site.behind.node(Op::Max, &[scores, &least])
}
