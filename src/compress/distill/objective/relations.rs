//! Objectives of what the samples of a batch are to each other.

use super::site::{LENGTH_EPSILON, Site, Tap};
use crate::compress::distill::DistillError;
use crate::graph::Name;
use crate::graph::op::{Op, Softmax};
use crate::learn::train::loss::{Loss, each};

/// What is added to both probabilities whose ratio is taken (`PKT` of its author's code).
const PROBABILITY_EPSILON: f64 = 1e-7;

/// What is added to squared distances, in units of the mean square about the mean: two samples that are almost equal have no
/// direction but that of rounding.
const ROUNDING: f64 = 1e-6;

pub(super) fn similarity(site: &mut Site<'_>, taps: &[Tap; 2]) -> Result<Name, DistillError> {
    let [s, t] = samples(site, taps)?.map(|x| {
        let products = products(site, &x, &x);
        site.unit(&products)
    });
    Ok(site.mean_square(&s, &t))
}

pub(super) fn pkt(site: &mut Site<'_>, taps: &[Tap; 2]) -> Result<Name, DistillError> {
    let [s, t] = samples(site, taps)?.map(|x| {
        let x = site.unit(&x);
        let cosines = products(site, &x, &x);
        let behind = &mut site.behind;
        let shifted = behind.plus(&cosines, 1.0);
        let kernel = behind.times(&shifted, 0.5);
        let sums = behind.sum_over(&kernel, &[1]);
        behind.div(&kernel, &sums)
    });
    let behind = &mut site.behind;
    let [of_s, of_t] = [&s, &t].map(|p| {
        let p = behind.plus(p, PROBABILITY_EPSILON);
        behind.node(Op::Log, &[&p])
    });
    let ratio = behind.sub(&of_t, &of_s);
    let terms = behind.mul(&t, &ratio);
    Ok(behind.mean(&terms))
}

pub(super) fn relational(site: &mut Site<'_>, taps: &[Tap; 2], weights: [f64; 2]) -> Result<Name, DistillError> {
    let samples = samples(site, taps)?;
    let eye = site.eye(&taps[1].name);
    let one = site.behind.number(1.0);
    let apart = site.behind.sub(&one, &eye);
    let [s, t] = samples.map(|x| Geometry::of(site, &x, &apart));
    let mut terms = Vec::new();
    for (weight, value) in
        [(weights[0], [&s, &t].map(|it| it.distances(site))), (weights[1], [&s, &t].map(|it| it.cosines(site)))]
    {
        if weight > 0.0 {
            let each = each(&mut site.behind, Loss::Huber { delta: 1.0 }, &value[0], &value[1]);
            let mean = site.behind.mean(&each);
            terms.push(site.behind.times(&mean, weight));
        }
    }
    if terms.is_empty() {
        let problem = "`distance` and `angle` are both 0".to_string();
        return Err(site.unfit(problem, "give one of them a weight, or leave the objective out"));
    }
    Ok(site.sum_of(&terms))
}

/// How the samples of a batch lie: all that distances and angles need, without a vector for each pair of samples.
struct Geometry {
    /// `x xᵀ` about the mean, which no distance depends on, `[n, n]`.
    products: Name,
    /// Its diagonal, `[n, 1]`.
    squares: Name,
    /// The distances, none of them zero, `[n, n]`.
    distances: Name,
    /// One for two samples, zero for one and itself, `[n, n]`.
    apart: Name,
}

impl Geometry {
    fn of(site: &mut Site<'_>, x: &Name, apart: &Name) -> Geometry {
        let mean = site.behind.mean_over(x, &[0]);
        let x = site.behind.sub(x, &mean);
        let products = products(site, &x, &x);
        let behind = &mut site.behind;
        let squares = behind.square(&x);
        let squares = behind.sum_over(&squares, &[1]);
        let columns = behind.transpose(&squares, &[1, 0]);
        let sums = behind.add(&squares, &columns);
        let twice = behind.times(&products, 2.0);
        let distances = behind.sub(&sums, &twice);
        let distances = behind.node(Op::Relu, &[&distances]);
        let distances = behind.mul(&distances, apart);
        let spread = behind.mean(&squares);
        let least = behind.times(&spread, ROUNDING);
        let least = behind.plus(&least, LENGTH_EPSILON);
        let distances = behind.add(&distances, &least);
        let distances = behind.node(Op::Sqrt, &[&distances]);
        Geometry { products, squares, distances, apart: apart.clone() }
    }

    /// In units of their mean, `[n, n]`.
    fn distances(&self, site: &mut Site<'_>) -> Name {
        let behind = &mut site.behind;
        let distances = behind.mul(&self.distances, &self.apart);
        let sum = behind.sum(&distances);
        let n = behind.sum(&self.apart);
        let one = behind.number(1.0);
        let n = behind.node(Op::Max, &[&n, &one]);
        let mean = behind.div(&sum, &n);
        let mean = behind.plus(&mean, LENGTH_EPSILON);
        behind.div(&distances, &mean)
    }

    /// `(x_i − x_j) · (x_k − x_j) = G_ik − G_ij − G_jk + G_jj` over both distances, at `[j, i, k]`; zero where `j` is one of the
    /// others.
    fn cosines(&self, site: &mut Site<'_>) -> Name {
        let behind = &mut site.behind;
        let inverse = behind.div(&self.apart, &self.distances);
        let [across, first, second] = [0, 2, 1].map(|axis| behind.unsqueeze(&self.products, &[axis]));
        let own = behind.unsqueeze(&self.squares, &[2]);
        let product = behind.sub(&across, &first);
        let product = behind.sub(&product, &second);
        let product = behind.add(&product, &own);
        let [first, second] = [2, 1].map(|axis| behind.unsqueeze(&inverse, &[axis]));
        let product = behind.mul(&product, &first);
        behind.mul(&product, &second)
    }
}

pub(super) fn crd(site: &mut Site<'_>, taps: &[Tap; 2], size: usize, temperature: f64) -> Result<Name, DistillError> {
    site.ranks(taps, &[2, 3, 4], "name images, sequences or features")?;
    let eye = site.eye(&taps[1].name);
    let [s, t] = [embedded(site, &taps[0], size)?, embedded(site, &taps[1], size)?];
    let cosines = products(site, &s, &t);
    let behind = &mut site.behind;
    let logits = behind.times(&cosines, 1.0 / temperature);
    let directions = [0, 1].map(|axis| {
        let logarithms = behind.node(Op::LogSoftmax(Softmax { axis }), &[&logits]);
        let own = behind.mul(&logarithms, &eye);
        let own = behind.sum_last(&own);
        behind.mean(&own)
    });
    let sum = site.sum_of(&directions);
    Ok(site.behind.times(&sum, -0.5))
}

/// A learned linear map of a sample's features, of length one.
fn embedded(site: &mut Site<'_>, tap: &Tap, size: usize) -> Result<Name, DistillError> {
    let (axis, name) = match tap.rank() {
        4 => {
            let n_channels = site.length(tap, 1)?;
            let means = site.behind.mean_over(&tap.name, &[2, 3]);
            (1, site.behind.reshape(&means, &[0, n_channels]))
        }
        3 => {
            let n_features = site.length(tap, 2)?;
            let means = site.behind.mean_over(&tap.name, &[1]);
            (2, site.behind.reshape(&means, &[0, n_features]))
        }
        _ => (1, tap.name.clone()),
    };
    let from = site.size(tap, axis)?;
    let made = site.linear(&name, from, size)?;
    Ok(site.unit(&made))
}

/// The samples of both, a row each.
fn samples(site: &mut Site<'_>, taps: &[Tap; 2]) -> Result<[Name; 2], DistillError> {
    if let Some(tap) = taps.iter().find(|tap| tap.rank() < 2) {
        let problem = format!("{} should have 2 axes or more", tap.described());
        return Err(site.unfit(problem, "name images, sequences or features"));
    }
    Ok([site.rows(&taps[0]), site.rows(&taps[1])])
}

/// `a bᵀ`
fn products(site: &mut Site<'_>, a: &Name, b: &Name) -> Name {
    let b = site.behind.transpose(b, &[1, 0]);
    site.behind.matmul(a, &b)
}
