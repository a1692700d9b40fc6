//! One weight fitted to the moments of what it meets.

use rayon::prelude::*;

use super::{Item, Site};
use crate::compress::observe::factor::{damped, solve};
use crate::compress::observe::moments::{Gram, Pair};
use crate::compress::observe::product::Matrices;
use crate::learn::kernels::gemm::{Matrix, gemm};

/// A weight with zeros where its inputs go.
pub(super) struct Fitted {
    pub(super) numbers: Vec<f32>,
    /// By site: what is to be added to what each channel makes; empty where there is no bias.
    pub(super) shifts: Vec<Vec<f64>>,
    pub(super) power: f64,
    pub(super) error_before: f64,
    pub(super) error_after: f64,
}

/// Fits a weight to what all its products meet.
pub(super) fn fitted(item: &Item, numbers: &[f32], damping: f64, seen: &Seen) -> Fitted {
    let matrices = item.sites[0].product.matrices;
    let Matrices { n_rows, n_columns: n, .. } = matrices;
    let columns = |is_gone: bool| -> Vec<usize> { (0..n).filter(|&column| item.gone[column] == is_gone).collect() };
    let (gone, kept) = (columns(true), columns(false));
    let n_kept = kept.len();
    let weights = rows_of(&matrices, numbers);
    let Start { sides, before, centred } = match &seen.whole {
        None => seen.start(&weights, &gone, &kept),
        Some(whole) => seen.start_beside(whole, &weights, &kept),
    };
    let (lower, added) = damped(n_kept, damping, |i, row| gather(&seen.spread[kept[i] * n..][..n], &kept, row));
    let mut steps = sides.clone();
    if n_kept > 0 {
        solve(&lower, n_kept, &mut steps);
    }
    // Of the step D with D (S_KK + λ I) = B the error falls by D Bᵀ + λ D Dᵀ.
    let won = |row: usize| -> f64 {
        let (steps, sides) = (&steps[row * n_kept..][..n_kept], &sides[row * n_kept..][..n_kept]);
        steps.iter().zip(sides).map(|(step, side)| step * side + added * step * step).sum()
    };
    let error_after = centred.iter().enumerate().map(|(row, error)| (error - won(row)).max(0.0)).sum();
    let mut fitted = numbers.to_vec();
    for row in 0..n_rows {
        gone.iter().for_each(|&column| fitted[matrices.position(0, row, column)] = 0.0);
        for (&column, step) in kept.iter().zip(&steps[row * n_kept..]) {
            fitted[matrices.position(0, row, column)] = (weights[row * n + column] + step) as f32;
        }
    }
    let after = rows_of(&matrices, &fitted);
    let shifts =
        item.sites.iter().zip(&seen.means).map(|(site, means)| shifts(site, means, &weights, &after)).collect();
    let of_whole = seen.whole.as_ref().map_or(&seen.raw, |whole| &whole.raw);
    let power = product(&weights, of_whole, n).iter().zip(&weights).map(|(seen, weight)| seen * weight).sum();
    Fitted { numbers: fitted, shifts, power, error_before: before, error_after }
}

/// The moments of what the products of a weight read, those of several added.
pub(super) struct Seen {
    raw: Vec<f64>,
    /// About the mean where a product has a bias to take the mean up.
    spread: Vec<f64>,
    /// By product: the means of what it read in the whole network, and of what it reads now.
    means: Vec<[Vec<f64>; 2]>,
    /// By product: whether it has a bias to take the mean up.
    centres: Vec<bool>,
    /// Where the product no longer reads what it read in the whole network.
    whole: Option<Whole>,
}

/// Moments of what was read in the whole network.
struct Whole {
    raw: Vec<f64>,
    spread: Vec<f64>,
    /// Between that and what is read now, about the means where there is a bias.
    between: Vec<f64>,
}

/// Where the fitting begins, with the weights as they were.
struct Start {
    /// By row, half of how fast the error falls with each weight that stays.
    sides: Vec<f64>,
    /// The error where nothing is done, of all rows.
    before: f64,
    /// The error of each row with the best bias.
    centred: Vec<f64>,
}

impl Seen {
    /// Each product reads what it read in the whole network.
    pub(super) fn alike(item: &Item, grams: &[Gram]) -> Seen {
        let mut seen = Seen::nothing(item);
        for site in &item.sites {
            let gram =
                grams.iter().find(|gram| gram.is_of(&site.product)).expect("every product of the task was looked at");
            let means = gram.means(0);
            let moments = gram.moments(0);
            add(&mut seen.raw, &moments);
            add_centred(&mut seen.spread, &moments, [&means, &means], site.bias.is_some());
            seen.means.push([means.clone(), means]);
            seen.centres.push(site.bias.is_some());
        }
        seen
    }

    /// For products that read something else than in the whole network: see [`Seen::add_pair`].
    pub(super) fn apart(item: &Item) -> Seen {
        let mut seen = Seen::nothing(item);
        let none = || vec![0.0; seen.raw.len()];
        seen.whole = Some(Whole { raw: none(), spread: none(), between: none() });
        seen
    }

    /// The next product reads the other of a pair, and read the one in the whole network.
    pub(super) fn add_pair(&mut self, site: &Site, pair: &Pair) {
        let whole = self.whole.as_mut().expect("it was made for products that read something else");
        let has_bias = site.bias.is_some();
        let (one, other) = (pair.one.means(0), pair.other.means(0));
        let (of_one, of_other) = (pair.one.moments(0), pair.other.moments(0));
        add(&mut self.raw, &of_other);
        add_centred(&mut self.spread, &of_other, [&other, &other], has_bias);
        add(&mut whole.raw, &of_one);
        add_centred(&mut whole.spread, &of_one, [&one, &one], has_bias);
        add_centred(&mut whole.between, &pair.between(0), [&one, &other], has_bias);
        self.means.push([one, other]);
        self.centres.push(has_bias);
    }

    fn nothing(item: &Item) -> Seen {
        let n = item.sites[0].product.matrices.n_columns;
        Seen { raw: vec![0.0; n * n], spread: vec![0.0; n * n], means: Vec::new(), centres: Vec::new(), whole: None }
    }

    /// What goes is seen through what stays: the rows of `W_R S_RK`.
    fn start(&self, weights: &[f64], gone: &[usize], kept: &[usize]) -> Start {
        let n = gone.len() + kept.len();
        let mut sides = vec![0f64; weights.len() / n.max(1) * kept.len()];
        let from_gone: Vec<Vec<f64>> =
            gone.iter().map(|&column| gathered(&self.spread[column * n..][..n], kept)).collect();
        sides.par_chunks_mut(kept.len().max(1)).zip(weights.par_chunks(n)).for_each(|(side, weights)| {
            for (&column, moments) in gone.iter().zip(&from_gone) {
                side.iter_mut().zip(moments).for_each(|(to, moment)| *to += weights[column] * moment);
            }
        });
        let among = |moments: &[f64]| -> Vec<f64> {
            gone.iter().flat_map(|&i| gathered(&moments[i * n..][..n], gone)).collect()
        };
        let powers = |moments: &[f64]| -> Vec<f64> {
            weights.par_chunks(n).map(|weights| power(&gathered(weights, gone), moments)).collect()
        };
        let before = powers(&among(&self.raw)).iter().sum();
        Start { sides, before, centred: powers(&among(&self.spread)) }
    }

    /// The rows of `W C_K − W_K Ŝ_KK`, where `C` is between what was read and what is read. To the accuracy of `f32`.
    fn start_beside(&self, whole: &Whole, weights: &[f64], kept: &[usize]) -> Start {
        let n = self.means.first().map_or(0, |[means, _]| means.len());
        let mut of_kept = vec![0f64; weights.len()];
        for (to, from) in of_kept.chunks_exact_mut(n.max(1)).zip(weights.chunks_exact(n.max(1))) {
            kept.iter().for_each(|&column| to[column] = from[column]);
        }
        let [own, wanted] = [&whole.spread, &whole.between].map(|moments| product(weights, moments, n));
        let has = product(&of_kept, &self.spread, n);
        let mut start = Start { sides: Vec::new(), before: 0.0, centred: Vec::new() };
        for row in (0..weights.len()).step_by(n.max(1)).map(|from| from..from + n) {
            let (weights, of_kept) = (&weights[row.clone()], &of_kept[row.clone()]);
            let [own, wanted, has] = [&own, &wanted, &has].map(|numbers| &numbers[row.clone()]);
            start.sides.extend(kept.iter().map(|&column| wanted[column] - has[column]));
            let error = (dot(own, weights) - 2.0 * dot(wanted, of_kept) + dot(has, of_kept)).max(0.0);
            // Without a bias the means are in the moments already.
            let centred = self.centres.iter().zip(&self.means).filter(|(is_centred, _)| **is_centred);
            let gaps = centred.map(|(_, [one, other])| (dot(weights, one) - dot(of_kept, other)).powi(2));
            start.before += error + gaps.sum::<f64>();
            start.centred.push(error);
        }
        start
    }
}

fn add(sums: &mut [f64], moments: &[f64]) {
    sums.iter_mut().zip(moments).for_each(|(sum, moment)| *sum += moment);
}

/// Adds moments, about the means where a bias takes the means up.
fn add_centred(sums: &mut [f64], moments: &[f64], [of_rows, of_columns]: [&[f64]; 2], has_bias: bool) {
    if !has_bias {
        return add(sums, moments);
    }
    let n = of_columns.len().max(1);
    for ((sums, moments), row) in sums.chunks_exact_mut(n).zip(moments.chunks_exact(n)).zip(of_rows) {
        for ((sum, moment), column) in sums.iter_mut().zip(moments).zip(of_columns) {
            *sum += moment - row * column;
        }
    }
}

/// What a bias makes up for: the part of the mean that the weights no longer give.
fn shifts(site: &Site, [one, other]: &[Vec<f64>; 2], before: &[f64], after: &[f64]) -> Vec<f64> {
    let n = one.len();
    match &site.bias {
        None => Vec::new(),
        Some(_) => {
            let rows = before.chunks_exact(n.max(1)).zip(after.chunks_exact(n.max(1)));
            rows.map(|(before, after)| dot(before, one) - dot(after, other)).collect()
        }
    }
}

/// The mean square of what a row makes.
fn power(weights: &[f64], moments: &[f64]) -> f64 {
    let rows = weights.iter().zip(moments.chunks_exact(weights.len().max(1)));
    rows.map(|(weight, moments)| weight * dot(moments, weights)).sum()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Rows times a matrix of `n` rows and columns, to the accuracy of `f32`.
fn product(rows: &[f64], matrix: &[f64], n: usize) -> Vec<f64> {
    let [a, b] = [rows, matrix].map(|numbers| numbers.iter().map(|&x| x as f32).collect::<Vec<f32>>());
    let mut product = vec![0f32; rows.len()];
    let (a, b) = (Matrix::rows(&a, n), Matrix::rows(&b, n));
    gemm([rows.len() / n.max(1), n, n], 1.0, a, b, false, &mut product);
    product.into_iter().map(f64::from).collect()
}

fn gathered(row: &[f64], columns: &[usize]) -> Vec<f64> {
    columns.iter().map(|&column| row[column]).collect()
}

fn gather(row: &[f64], columns: &[usize], to: &mut [f64]) {
    to.iter_mut().zip(columns).for_each(|(to, &column)| *to = row[column]);
}

/// The rows of a matrix, one after the other.
fn rows_of(matrices: &Matrices, numbers: &[f32]) -> Vec<f64> {
    let number = |row: usize, column: usize| f64::from(numbers[matrices.position(0, row, column)]);
    (0..matrices.n_rows)
        .flat_map(|row| (0..matrices.n_columns).map(move |column| (row, column)))
        .map(|(row, column)| number(row, column))
        .collect()
}
