//! Softmax and its logarithm along an axis, and cross-entropy with integer labels, forward and backward.

#![allow(unsafe_code)]

use thiserror::Error;

use super::math;
use super::parallel::{Parts, for_ranges, larger, largest, simd, sum_of, sum_of_pairs};

/// The cost of one element, in cheap operations.
const COST: usize = 4;

/// Which of the two functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Softmax {
    /// `e^x / Σ e^x`
    Plain,
    /// `x − ln Σ e^x`
    Log,
}

/// `y = softmax(x)` along `n`, where both are `[outer, n, inner]`. A slice of minus infinities alone gives NaN.
///
/// # Panics
/// When lengths are not those of the shapes, as every function here.
pub fn softmax(softmax: Softmax, [outer, n, inner]: [usize; 3], x: &[f32], y: &mut [f32]) {
    assert_eq!((x.len(), y.len()), (outer * n * inner, outer * n * inner), "x and y have their shape");
    let parts = Parts::new(y);
    for_ranges(outer, n * inner * COST, |range| {
        for slab in range {
            let range = slab * n * inner..(slab + 1) * n * inner;
            // SAFETY: each slab belongs to one piece.
            let y = unsafe { parts.part(range.clone()) };
            y.copy_from_slice(&x[range]);
            simd(
                #[inline(always)]
                || match (softmax, inner) {
                    (Softmax::Plain, 1) => softmax_row(y),
                    (Softmax::Log, 1) => log_softmax_row(y),
                    (_, _) => columns(softmax, n, inner, y),
                },
            );
        }
    });
}

/// `dx` from the output `y` and `dy`: `y (dy − Σ dy y)`, of the logarithm `dy − e^y Σ dy`.
pub fn softmax_gradient(softmax: Softmax, [outer, n, inner]: [usize; 3], y: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert_eq!((y.len(), dy.len(), dx.len()), (outer * n * inner, y.len(), y.len()), "all have their shape");
    let parts = Parts::new(dx);
    for_ranges(outer, n * inner * COST, |range| {
        for slab in range {
            let range = slab * n * inner..(slab + 1) * n * inner;
            // SAFETY: each slab belongs to one piece.
            let dx = unsafe { parts.part(range.clone()) };
            let (y, dy) = (&y[range.clone()], &dy[range]);
            simd(
                #[inline(always)]
                || match (softmax, inner) {
                    (Softmax::Plain, 1) => softmax_row_gradient(y, dy, dx),
                    (Softmax::Log, 1) => log_softmax_row_gradient(y, dy, dx),
                    (_, _) => columns_gradient(softmax, inner, y, dy, dx),
                },
            );
        }
    });
}

#[inline(always)]
pub(super) fn softmax_row(y: &mut [f32]) {
    let max = largest(y);
    for y in y.iter_mut() {
        *y = math::exp(*y - max);
    }
    let factor = 1.0 / sum_of(y, |y| y);
    y.iter_mut().for_each(|y| *y *= factor);
}

#[inline(always)]
fn log_softmax_row(y: &mut [f32]) {
    let max = largest(y);
    let sum = sum_of(
        y,
        #[inline(always)]
        |y| math::exp(y - max),
    );
    let log = math::log(sum);
    y.iter_mut().for_each(|y| *y = (*y - max) - log);
}

#[inline(always)]
fn softmax_row_gradient(y: &[f32], dy: &[f32], dx: &mut [f32]) {
    let dot = sum_of_pairs(y, dy, |y, dy| y * dy);
    dx.iter_mut().zip(y).zip(dy).for_each(|((dx, y), dy)| *dx = y * (dy - dot));
}

#[inline(always)]
fn log_softmax_row_gradient(y: &[f32], dy: &[f32], dx: &mut [f32]) {
    let sum = sum_of(dy, |dy| dy);
    for ((dx, &y), dy) in dx.iter_mut().zip(y).zip(dy) {
        *dx = dy - math::exp(y) * sum;
    }
}

/// Columns that are normalised side by side.
const N_COLUMNS: usize = 64;

#[inline(always)]
fn columns(softmax: Softmax, n: usize, inner: usize, y: &mut [f32]) {
    for start in (0..inner).step_by(N_COLUMNS) {
        let width = N_COLUMNS.min(inner - start);
        let row = |idx: usize| idx * inner + start..idx * inner + start + width;
        let (mut max, mut sum) = ([f32::NEG_INFINITY; N_COLUMNS], [0f32; N_COLUMNS]);
        for idx in 0..n {
            max.iter_mut().zip(&y[row(idx)]).for_each(|(max, &y)| *max = larger(*max, y));
        }
        for idx in 0..n {
            for ((y, max), sum) in y[row(idx)].iter_mut().zip(&max).zip(&mut sum) {
                let e = math::exp(*y - max);
                *sum += e;
                *y = if softmax == Softmax::Plain { e } else { *y - max };
            }
        }
        for idx in 0..n {
            for (y, &sum) in y[row(idx)].iter_mut().zip(&sum) {
                *y = if softmax == Softmax::Plain { *y / sum } else { *y - math::log(sum) };
            }
        }
    }
}

#[inline(always)]
fn columns_gradient(softmax: Softmax, inner: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    for start in (0..inner).step_by(N_COLUMNS) {
        let columns = start..(start + N_COLUMNS).min(inner);
        let mut sums = [0f32; N_COLUMNS];
        for (y, dy) in y.chunks(inner).zip(dy.chunks(inner)) {
            for ((sum, y), dy) in sums.iter_mut().zip(&y[columns.clone()]).zip(&dy[columns.clone()]) {
                *sum += if softmax == Softmax::Plain { y * dy } else { *dy };
            }
        }
        for ((y, dy), dx) in y.chunks(inner).zip(dy.chunks(inner)).zip(dx.chunks_mut(inner)) {
            let pairs = y[columns.clone()].iter().zip(&dy[columns.clone()]).zip(&sums);
            for (dx, ((&y, dy), sum)) in dx[columns.clone()].iter_mut().zip(pairs) {
                *dx = if softmax == Softmax::Plain { y * (dy - sum) } else { dy - math::exp(y) * sum };
            }
        }
    }
}

/// How labels are scored.
#[derive(Clone, Copy, Debug, Default)]
pub struct CrossEntropy<'a> {
    /// The part of the target that is spread evenly over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// One weight a class; none means 1.
    pub class_weights: Option<&'a [f32]>,
    /// Rows of this label are left out.
    pub ignored_label: Option<i64>,
}

/// A label that names no class.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("row {row} has label {label}, of {n_classes} classes: labels are 0 to {}", .n_classes.saturating_sub(1))]
pub struct LabelError {
    /// The row.
    pub row: usize,
    /// Its label.
    pub label: i64,
    /// How many classes there are.
    pub n_classes: usize,
}

/// The mean cross-entropy of rows of `n_classes` logits, and its gradient in `dlogits`.
///
/// With weights it is, as in PyTorch, `Σ [(1 − ε) w_t (−log p_t) + ε/C Σ_c w_c (−log p_c)] / Σ w_t` over the rows, `t` a
/// row's label. Where every row is left out it is 0.
///
/// # Errors
/// When a label is none of the classes; `dlogits` is as it was.
pub fn cross_entropy(
    options: CrossEntropy<'_>,
    n_classes: usize,
    logits: &[f32],
    labels: &[i64],
    dlogits: &mut [f32],
) -> Result<f32, LabelError> {
    assert_eq!((logits.len(), dlogits.len()), (labels.len() * n_classes, logits.len()), "one row a label");
    assert!(options.class_weights.is_none_or(|weights| weights.len() == n_classes), "one weight a class");
    let class = |(row, &label): (usize, &i64)| {
        if options.ignored_label == Some(label) {
            return Ok(None);
        }
        let class = usize::try_from(label).ok().filter(|&class| class < n_classes);
        class.map(Some).ok_or(LabelError { row, label, n_classes })
    };
    let classes: Vec<Option<usize>> = labels.iter().enumerate().map(class).collect::<Result<_, _>>()?;
    let weight = |class: usize| options.class_weights.map_or(1.0, |weights| weights[class]);
    let total: f64 = classes.iter().flatten().map(|&class| f64::from(weight(class))).sum();
    let factor = if total == 0.0 { 0.0 } else { (1.0 / total) as f32 };
    let mut losses = vec![0f32; labels.len()];
    let (gradients, row_losses) = (Parts::new(dlogits), Parts::new(&mut losses));
    for_ranges(labels.len(), n_classes * COST, |range| {
        for row in range {
            let columns = row * n_classes..(row + 1) * n_classes;
            // SAFETY: each row belongs to one piece.
            let (d, loss) = unsafe { (gradients.part(columns.clone()), row_losses.part(row..row + 1)) };
            match classes[row] {
                Some(class) => loss[0] = row_loss(&options, factor, &logits[columns], class, d),
                None => d.fill(0.0),
            }
        }
    });
    Ok((losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() * f64::from(factor)) as f32)
}

/// The loss of one row before the division by the weights, and its gradient after it.
fn row_loss(options: &CrossEntropy<'_>, factor: f32, logits: &[f32], class: usize, d: &mut [f32]) -> f32 {
    let even = options.label_smoothing / logits.len() as f32;
    let sharp = 1.0 - options.label_smoothing;
    d.copy_from_slice(logits);
    simd(
        #[inline(always)]
        || log_softmax_row(d),
    );
    let of_class = sharp * options.class_weights.map_or(1.0, |weights| weights[class]);
    let mut loss = -of_class * d[class];
    let mut mass = of_class;
    if even > 0.0 {
        match options.class_weights {
            Some(weights) => {
                loss -= even * sum_of_pairs(d, weights, |log, weight| log * weight);
                mass += even * weights.iter().sum::<f32>();
            }
            None => {
                loss -= even * sum_of(d, |log| log);
                mass += options.label_smoothing;
            }
        }
    }
    simd(
        #[inline(always)]
        || {
            for d in d.iter_mut() {
                *d = factor * mass * math::exp(*d);
            }
        },
    );
    d[class] -= factor * of_class;
    if even > 0.0 {
        for (idx, d) in d.iter_mut().enumerate() {
            *d -= factor * even * options.class_weights.map_or(1.0, |weights| weights[idx]);
        }
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, differences, dot, numbers, on_any_pool, wide};
    use super::*;

    fn exact(kind: Softmax, [outer, n, inner]: [usize; 3], x: &[f64]) -> Vec<f64> {
        let at = |o: usize, i: usize, j: usize| x[(o * n + i) * inner + j];
        (0..outer * n * inner)
            .map(|idx| {
                let (o, j) = (idx / (n * inner), idx % inner);
                let sum: f64 = (0..n).map(|i| at(o, i, j).exp()).sum();
                if kind == Softmax::Plain { x[idx].exp() / sum } else { x[idx] - sum.ln() }
            })
            .collect()
    }

    fn check(dims: [usize; 3]) {
        let size = dims.iter().product();
        let x: Vec<f32> = numbers(size, 1).iter().map(|x| 5.0 * x).collect();
        let dy = numbers(size, 2);
        for kind in [Softmax::Plain, Softmax::Log] {
            let run = || {
                let (mut y, mut dx) = (vec![f32::NAN; size], vec![f32::NAN; size]);
                softmax(kind, dims, &x, &mut y);
                softmax_gradient(kind, dims, &y, &dy, &mut dx);
                [y, dx].concat()
            };
            let got = on_any_pool(run);
            close(&format!("{kind:?} {dims:?}"), &got[..size], &exact(kind, dims, &wide(&x)), 1e-6);
            if size <= 300 {
                let expected = differences(&wide(&x), |x| dot(&exact(kind, dims, x), &dy));
                close(&format!("{kind:?}' {dims:?}"), &got[size..], &expected, 1e-5);
            }
        }
    }

    #[test]
    fn values_and_gradients() {
        for dims in [[3, 7, 1], [5, 1, 1], [1, 40, 1], [2, 5, 3], [1, 3, 70], [700, 131, 1], [30, 11, 301]] {
            check(dims);
        }
    }

    #[test]
    fn large_and_masked_logits() {
        let mut y = [0.0; 3];
        softmax(Softmax::Plain, [1, 3, 1], &[1e30, 1e30, f32::NEG_INFINITY], &mut y);
        assert_eq!(y, [0.5, 0.5, 0.0]);
        softmax(Softmax::Log, [1, 3, 1], &[500.0, -500.0, f32::NEG_INFINITY], &mut y);
        assert_eq!(y, [0.0, -1000.0, f32::NEG_INFINITY]);
    }

    fn exact_loss(options: CrossEntropy<'_>, n_classes: usize, logits: &[f64], labels: &[i64]) -> f64 {
        let weight = |class: usize| options.class_weights.map_or(1.0, |weights| f64::from(weights[class]));
        let (mut loss, mut total) = (0.0, 0.0);
        for (row, &label) in logits.chunks(n_classes).zip(labels) {
            if options.ignored_label == Some(label) {
                continue;
            }
            let label = usize::try_from(label).expect("a class");
            let sum: f64 = row.iter().map(|x| x.exp()).sum();
            let smoothing = f64::from(options.label_smoothing);
            for (class, x) in row.iter().enumerate() {
                let here = if class == label { 1.0 - smoothing } else { 0.0 };
                loss -= (here + smoothing / n_classes as f64) * weight(class) * (x - sum.ln());
            }
            total += weight(label);
        }
        loss / total
    }

    #[test]
    fn cross_entropy_and_its_gradient() {
        let (n_rows, n_classes) = (9, 5);
        let logits: Vec<f32> = numbers(n_rows * n_classes, 1).iter().map(|x| 4.0 * x).collect();
        let labels = [0, 1, 4, 3, 2, 2, -1, 0, 1];
        let weights = [0.5, 1.0, 2.0, 0.1, 3.0];
        for (label_smoothing, class_weights) in
            [(0.0, None), (0.1, None), (0.0, Some(&weights[..])), (0.2, Some(&weights))]
        {
            let options = CrossEntropy { label_smoothing, class_weights, ignored_label: Some(-1) };
            let run = || {
                let mut d = vec![f32::NAN; logits.len()];
                let loss = cross_entropy(options, n_classes, &logits, &labels, &mut d).expect("labels are classes");
                [vec![loss], d].concat()
            };
            let got = on_any_pool(run);
            let of = |logits: &[f64]| exact_loss(options, n_classes, logits, &labels);
            close("loss", &got[..1], &[of(&wide(&logits))], 1e-6);
            close("gradient", &got[1..], &differences(&wide(&logits), of), 1e-5);
        }
    }

    #[test]
    fn labels_outside_the_classes_are_refused() {
        for label in [-1, 3, i64::MAX] {
            let mut d = [7.0; 6];
            let refused = cross_entropy(CrossEntropy::default(), 3, &[0.0; 6], &[2, label], &mut d);
            assert_eq!(refused, Err(LabelError { row: 1, label, n_classes: 3 }));
            assert_eq!(d, [7.0; 6]);
        }
        let options = CrossEntropy { ignored_label: Some(0), ..CrossEntropy::default() };
        assert_eq!(cross_entropy(options, 1, &[3.0], &[0], &mut [1.0]), Ok(0.0));
    }
}
