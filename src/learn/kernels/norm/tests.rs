//! Every norm against its definition in `f64`, every gradient against finite differences of that.

use super::super::testing::{close, differences, dot, numbers, on_any_pool, wide};
use super::*;

const EPSILON: f32 = 1e-3;

/// Normalises each group of indices; `scale` and `bias` of an element are those of its channel.
fn exact(
    x: &[f64],
    groups: &[Vec<usize>],
    channel: &dyn Fn(usize) -> usize,
    scale: &[f64],
    bias: &[f64],
    centred: bool,
) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    for group in groups {
        let n = group.len() as f64;
        let mean = if centred { group.iter().map(|&idx| x[idx]).sum::<f64>() / n } else { 0.0 };
        let variance = group.iter().map(|&idx| (x[idx] - mean).powi(2)).sum::<f64>() / n;
        for &idx in group {
            let normal = (x[idx] - mean) / (variance + f64::from(EPSILON)).sqrt();
            y[idx] = normal * scale[channel(idx)] + bias[channel(idx)];
        }
    }
    y
}

/// A norm: forward and backward give `y`, `dx`, `dscale`, `dbias` in one vector.
fn check(
    what: &str,
    size: usize,
    groups: &[Vec<usize>],
    channel: &dyn Fn(usize) -> usize,
    n_channels: usize,
    after: fn(f64) -> f64,
    run: impl Fn(&[f32], &[f32], &[f32], &[f32]) -> Vec<f32> + Sync,
) {
    let centred = !what.starts_with("rms");
    let x: Vec<f32> = numbers(size, 1).iter().map(|x| 2.0 * x + 0.5).collect();
    let (scale, dy) = (numbers(n_channels, 2), numbers(size, 4));
    let bias = if centred { numbers(n_channels, 3) } else { vec![0.0; n_channels] };
    let got = on_any_pool(|| run(&x, &scale, &bias, &dy));
    let of = |x: &[f64], scale: &[f64], bias: &[f64]| -> Vec<f64> {
        exact(x, groups, channel, scale, bias, centred).into_iter().map(after).collect()
    };
    let (x, scale, bias) = (wide(&x), wide(&scale), wide(&bias));
    close(what, &got[..size], &of(&x, &scale, &bias), 2e-6);
    if size > 400 {
        return;
    }
    let expected = [
        differences(&x, |x| dot(&of(x, &scale, &bias), &dy)),
        differences(&scale, |scale| dot(&of(&x, scale, &bias), &dy)),
        differences(&bias, |bias| dot(&of(&x, &scale, bias), &dy)),
    ];
    let mut rest = &got[size..];
    for (name, expected) in ["dx", "dscale", "dbias"].iter().zip(expected) {
        if rest.is_empty() {
            break;
        }
        let (here, after) = rest.split_at(expected.len());
        close(&format!("{what} {name}"), here, &expected, 1e-5);
        rest = after;
    }
}

fn rows(n_rows: usize, n: usize) -> Vec<Vec<usize>> {
    (0..n_rows).map(|row| (row * n..(row + 1) * n).collect()).collect()
}

#[test]
fn layer_norm_over_rows() {
    for (n_rows, n) in [(3, 7), (5, 1), (1, 40), (7, 33), (300, 385)] {
        check(
            &format!("layer {n_rows} {n}"),
            n_rows * n,
            &rows(n_rows, n),
            &|idx| idx % n,
            n,
            |y| y,
            |x, s, b, dy| {
                let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                let (mut means, mut inverses) = (vec![f32::NAN; n_rows], vec![f32::NAN; n_rows]);
                let (mut ds, mut db) = (vec![f32::NAN; n], vec![f32::NAN; n]);
                layer_norm(EPSILON, x, Affine { scale: s, bias: Some(b) }, &mut y, (&mut means, &mut inverses));
                let d_affine = AffineGradient { scale: &mut ds, bias: Some(&mut db) };
                layer_norm_gradient(x, s, (&means, &inverses), dy, &mut dx, d_affine);
                [y, dx, ds, db].concat()
            },
        );
    }
    let (mut y, mut mean, mut inverse) = ([0.0; 2], [0.0], [0.0]);
    let affine = Affine { scale: &[1.0, 2.0], bias: None };
    layer_norm(0.0, &[1.0, 3.0], affine, &mut y, (&mut mean, &mut inverse));
    assert_eq!((y, mean, inverse), ([-1.0, 2.0], [2.0], [1.0]));
}

#[test]
fn batch_norm_of_the_batch() {
    for (dims, relu) in
        [([4, 3, 6], false), ([4, 3, 6], true), ([9, 5, 1], true), ([2, 2, 37], true), ([16, 12, 401], true)]
    {
        let [batch, channels, positions] = dims;
        let channel = |idx: usize| idx / positions % channels;
        let size = batch * channels * positions;
        let groups: Vec<Vec<usize>> =
            (0..channels).map(|here| (0..size).filter(|&idx| channel(idx) == here).collect()).collect();
        let after: fn(f64) -> f64 = if relu { |y| y.max(0.0) } else { |y| y };
        check(&format!("batch {dims:?} {relu}"), size, &groups, &channel, channels, after, |x, scale, bias, dy| {
            let layer = BatchNorm { dims, epsilon: EPSILON, scale, bias, relu };
            let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
            let (mut means, mut inverses) = (vec![f32::NAN; channels], vec![f32::NAN; channels]);
            let (mut ds, mut db) = (vec![f32::NAN; channels], vec![f32::NAN; channels]);
            batch_norm_train(layer, x, &mut y, (&mut means, &mut inverses));
            let kept_y = if relu { &y[..] } else { &[] };
            batch_norm_gradient(layer, (x, kept_y), (&means, &inverses), dy, &mut dx, (&mut ds, &mut db));
            [y, dx, ds, db].concat()
        });
    }
}
