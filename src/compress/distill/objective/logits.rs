//! Objectives of logits and outputs.

use super::site::Site;
use crate::compress::distill::DistillError;
use crate::graph::Name;
use crate::graph::op::{ArgMax, OneHot, Op, Reduce, Softmax};
use crate::graph::tensor::Tensor;
use crate::learn::train::loss::{Loss, each};

/// Takes a class out of a softmax, whatever its logit is.
const FAR_BELOW: f64 = -1e30;

pub(super) fn kd(site: &mut Site<'_>, temperature: f64) -> Result<Name, DistillError> {
    let [s, t] = tempered(site, temperature)?;
    let rows = divergence(site, &s, &t);
    let mean = site.behind.mean(&rows);
    Ok(site.behind.times(&mean, temperature * temperature))
}

pub(super) fn soft_cross_entropy(site: &mut Site<'_>, temperature: f64) -> Result<Name, DistillError> {
    let [s, t] = tempered(site, temperature)?;
    let wanted = site.behind.node(Op::Softmax(Softmax { axis: -1 }), &[&t]);
    let rows = each(&mut site.behind, Loss::CrossEntropy, &s, &wanted);
    let mean = site.behind.mean(&rows);
    Ok(site.behind.times(&mean, temperature * temperature))
}

pub(super) fn mse(site: &mut Site<'_>) -> Result<Name, DistillError> {
    let [s, t] = site.logits()?;
    Ok(site.mean_square(&s.name, &t.name))
}

/// With the label's class left out by [`FAR_BELOW`], `log p̂` is a log-softmax and `log (1 − p)` a log-sum-exp: neither is the
/// logarithm of a difference.
pub(super) fn dkd(site: &mut Site<'_>, [alpha, beta]: [f64; 2], temperature: f64) -> Result<Name, DistillError> {
    let logits = site.logits()?;
    let last = logits[0].rank() - 1;
    if site.size(&logits[0], last)? < 2 {
        let problem = format!("{} has one class", logits[0].described());
        return Err(site.unfit(problem, "use `binary`"));
    }
    let n_classes = site.length(&logits[0], last)?;
    let target = site.labels()?;
    let [s, t] = logits.map(|tap| site.behind.times(&tap.name, 1.0 / temperature));
    let behind = &mut site.behind;
    // a sample without a label has a target of zeros
    let whole = behind.sum_last(&target);
    let bare = behind.plus(&whole, -1e-3);
    let bare = behind.times(&bare, -1e6);
    let bare = behind.node(Op::Relu, &[&bare]);
    let bare = behind.unsqueeze(&bare, &[-1]);
    let said = behind.node(Op::Softmax(Softmax { axis: -1 }), &[&t]);
    let said = behind.mul(&said, &bare);
    let target = behind.add(&target, &said);
    let label = behind.node(Op::ArgMax(ArgMax { axis: -1, keepdims: false, select_last_index: false }), &[&target]);
    let depth = behind.integer(n_classes);
    let off_on = behind.tensor("off_on", Tensor::vector(vec![0f32, 1.0]));
    let is_label = behind.node(Op::OneHot(OneHot { axis: -1 }), &[&label, &depth, &off_on]);
    let left_out = behind.times(&is_label, FAR_BELOW);
    let [of_s, of_t] = [&s, &t].map(|logits| {
        let logarithms = behind.node(Op::LogSoftmax(Softmax { axis: -1 }), &[logits]);
        let met = behind.mul(&logarithms, &is_label);
        let own = behind.sum_last(&met);
        let others = behind.add(&logarithms, &left_out);
        let axes = behind.tensor("axes", Tensor::vector(vec![-1i64]));
        let reduce = Reduce { keepdims: false, noop_with_empty_axes: false };
        [own, behind.node(Op::ReduceLogSumExp(reduce), &[&others, &axes])]
    });
    let parts: Vec<Name> = of_s
        .iter()
        .zip(&of_t)
        .map(|(s, t)| {
            let part = behind.node(Op::Exp, &[t]);
            let ratio = behind.sub(t, s);
            behind.mul(&part, &ratio)
        })
        .collect();
    let own = behind.node(Op::Sum, &parts.iter().collect::<Vec<_>>());
    let own = behind.times(&own, alpha);
    let [s, t] = [&s, &t].map(|logits| behind.add(logits, &left_out));
    let others = divergence(site, &s, &t);
    let others = site.behind.times(&others, beta);
    let rows = site.behind.add(&own, &others);
    let mean = site.behind.mean(&rows);
    Ok(site.behind.times(&mean, temperature * temperature))
}

pub(super) fn dist(site: &mut Site<'_>, [inter, intra]: [f64; 2], temperature: f64) -> Result<Name, DistillError> {
    let logits = site.logits()?;
    let last = logits[0].rank() - 1;
    let n_classes = site.length(&logits[0], last)?;
    let rows = logits.map(|tap| {
        let x = site.behind.times(&tap.name, 1.0 / temperature);
        let p = site.behind.node(Op::Softmax(Softmax { axis: -1 }), &[&x]);
        if last == 1 { p } else { site.behind.reshape(&p, &[-1, n_classes]) }
    });
    let columns = [&rows[0], &rows[1]].map(|p| site.behind.transpose(p, &[1, 0]));
    let terms = [(rows, inter), (columns, intra)].map(|([s, t], weight)| {
        let distance = uncorrelated(site, &s, &t);
        site.behind.times(&distance, weight * temperature * temperature)
    });
    Ok(site.sum_of(&terms))
}

/// One less the mean over rows of Pearson's correlation.
fn uncorrelated(site: &mut Site<'_>, s: &Name, t: &Name) -> Name {
    let [s, t] = [s, t].map(|x| {
        let mean = site.behind.mean_over(x, &[-1]);
        let centered = site.behind.sub(x, &mean);
        site.unit(&centered)
    });
    let product = site.behind.mul(&s, &t);
    let correlations = site.behind.sum_last(&product);
    let mean = site.behind.mean(&correlations);
    let one = site.behind.number(1.0);
    site.behind.sub(&one, &mean)
}

/// With `log σ(z) = z − log(1 + eᶻ)` and `log(1 − σ(z)) = −log(1 + eᶻ)` the divergence is
/// `log(1 + eˢ) − log(1 + eᵗ) − σ(t) (s − t)`.
pub(super) fn binary(site: &mut Site<'_>, temperature: f64) -> Result<Name, DistillError> {
    let [s, t] = tempered(site, temperature)?;
    let behind = &mut site.behind;
    let [of_s, of_t] = [&s, &t].map(|x| behind.node(Op::Softplus, &[x]));
    let all = behind.sub(&of_s, &of_t);
    let wanted = behind.node(Op::Sigmoid, &[&t]);
    let ahead = behind.sub(&s, &t);
    let met = behind.mul(&wanted, &ahead);
    let each = behind.sub(&all, &met);
    let mean = behind.mean(&each);
    Ok(behind.times(&mean, temperature * temperature))
}

pub(super) fn regression(site: &mut Site<'_>, loss: Loss, bounded: Option<f64>) -> Result<Name, DistillError> {
    let [s, t] = site.outputs()?;
    let Some(margin) = bounded else {
        let each = each(&mut site.behind, loss, &s.name, &t.name);
        return Ok(site.behind.mean(&each));
    };
    let target = site.labels()?;
    let axes: Vec<i64> = (1..s.rank()).map(super::site::signed).collect();
    let behind = &mut site.behind;
    let [of_s, of_t] = [&s.name, &t.name].map(|x| each(behind, Loss::Mse, x, &target));
    let [sum_s, sum_t] = [&of_s, &of_t].map(|squares| match axes.as_slice() {
        [] => squares.clone(),
        axes => behind.sum_over(squares, axes),
    });
    // one where the student is not better than the teacher by the margin, zero elsewhere, and no way for gradients
    let excess = behind.sub(&sum_s, &sum_t);
    let excess = behind.plus(&excess, margin);
    let excess = behind.node(Op::Relu, &[&excess]);
    let is_worse = behind.node(Op::Sign, &[&excess]);
    let counted = behind.mul(&is_worse, &of_s);
    Ok(behind.mean(&counted))
}

/// The logits divided by the temperature, over classes.
fn tempered(site: &mut Site<'_>, temperature: f64) -> Result<[Name; 2], DistillError> {
    let logits = site.logits()?;
    Ok(logits.map(|tap| site.behind.times(&tap.name, 1.0 / temperature)))
}

/// `KL(softmax t ‖ softmax s)` over the last axis, a number a row.
pub(super) fn divergence(site: &mut Site<'_>, s: &Name, t: &Name) -> Name {
    let behind = &mut site.behind;
    let [s, t] = [s, t].map(|x| behind.node(Op::LogSoftmax(Softmax { axis: -1 }), &[x]));
    let wanted = behind.node(Op::Exp, &[&t]);
    let ratio = behind.sub(&t, &s);
    let terms = behind.mul(&wanted, &ratio);
    behind.sum_last(&terms)
}
