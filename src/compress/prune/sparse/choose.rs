//! Which units go: those that score least among those that they are compared with.

use super::super::Scope;
use super::layout::Layout;
use super::options::{Criterion, Pattern, SparseOptions};

/// What a share of units rounds down by no more than.
const SLACK: f64 = 1e-9;

/// By weight, whether each of its elements is out, when `sparsity` of them are to be. What `is_out` already says is, by weight and
/// element, stays out. Of equals the later ones go first.
pub(super) fn of_all(
    layouts: &[&Layout],
    scores: &[Vec<f32>],
    options: &SparseOptions,
    sparsity: f64,
    is_out: impl Fn(usize, usize) -> bool,
) -> Vec<Vec<bool>> {
    let units: Vec<Vec<f64>> = layouts
        .iter()
        .zip(scores)
        .enumerate()
        .map(|(idx, (layout, scores))| unit_scores(layout, scores, |position| is_out(idx, position)))
        .collect();
    let chosen: Vec<Vec<bool>> = match options.scope {
        Scope::Global => {
            let all = units.concat();
            let mut chosen = &lowest(&all, all.len(), share(all.len(), sparsity))[..];
            let mut of_weight = Vec::with_capacity(units.len());
            for units in &units {
                let (own, rest) = chosen.split_at(units.len());
                of_weight.push(own.to_vec());
                chosen = rest;
            }
            of_weight
        }
        Scope::Local => layouts
            .iter()
            .zip(&units)
            .map(|(layout, units)| {
                let (size, n_out) = pool(layout, options.criterion, sparsity);
                lowest(units, size, n_out)
            })
            .collect(),
    };
    let spread = |(idx, (layout, chosen)): (usize, (&&Layout, Vec<bool>))| {
        let mut out = vec![false; layout.n_weights()];
        layout.for_each(|position, unit| out[position] = chosen[unit] || is_out(idx, position));
        out
    };
    layouts.iter().zip(chosen).enumerate().map(spread).collect()
}

/// The same of one weight.
pub(super) fn of_operand(layout: &Layout, scores: &[f32], options: &SparseOptions) -> Vec<bool> {
    let options = SparseOptions { scope: Scope::Local, ..options.clone() };
    of_all(&[layout], &[scores.to_vec()], &options, options.target(), |_, _| false).swap_remove(0)
}

/// How many units are compared with each other, and how many of them go.
fn pool(layout: &Layout, criterion: Criterion, sparsity: f64) -> (usize, usize) {
    match (layout.pattern, criterion) {
        // fewer go while a schedule is on its way
        (Pattern::NM { m, .. }, _) => (m, of_group(m, sparsity)),
        (_, Criterion::Wanda) => (layout.n_spans(), share(layout.n_spans(), sparsity)),
        (
            _,
            Criterion::Magnitude | Criterion::Random | Criterion::Snip | Criterion::Movement | Criterion::SparseGpt,
        ) => (layout.n_units(), share(layout.n_units(), sparsity)),
    }
}

/// So much of a number of units, to the nearest.
pub(super) fn share(n: usize, sparsity: f64) -> usize {
    ((n as f64 * sparsity).round() as usize).min(n)
}

/// How many of a group of `m` go: never more than all of the share.
pub(super) fn of_group(m: usize, sparsity: f64) -> usize {
    ((m as f64 * sparsity + SLACK).floor() as usize).min(m)
}

/// What each unit scores: the mean of its elements, less than anything where one of them is out already.
fn unit_scores(layout: &Layout, scores: &[f32], is_out: impl Fn(usize) -> bool) -> Vec<f64> {
    let mut sums = vec![0f64; layout.n_units()];
    let mut counts = vec![0u32; layout.n_units()];
    layout.for_each(|position, unit| {
        sums[unit] += if is_out(position) { f64::NEG_INFINITY } else { f64::from(scores[position]) };
        counts[unit] += 1;
    });
    sums.iter().zip(counts).map(|(sum, count)| sum / f64::from(count)).collect()
}

/// Whether each is among the `n` that score least of its pool of `size`.
pub(super) fn lowest(scores: &[f64], size: usize, n: usize) -> Vec<bool> {
    let mut chosen = vec![false; scores.len()];
    let mut order: Vec<usize> = Vec::with_capacity(size);
    for start in (0..scores.len()).step_by(size.max(1)) {
        order.clear();
        order.extend(start..(start + size).min(scores.len()));
        let n = n.min(order.len());
        if n > 0 {
            order.select_nth_unstable_by(n - 1, |&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
        }
        order[..n].iter().for_each(|&unit| chosen[unit] = true);
    }
    chosen
}
