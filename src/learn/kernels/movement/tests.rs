//! Elements land where a plain loop puts them; a transpose `g` of `f` has `⟨f(x), dy⟩ = ⟨x, g(dy)⟩`.

use super::super::testing::{numbers, on_any_pool};
use super::*;

fn index(flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut rest = flat;
    let mut index: Vec<usize> = shape.iter().rev().map(|&size| (rest % size, rest /= size).0).collect();
    index.reverse();
    index
}

fn flat(index: &[usize], shape: &[usize]) -> usize {
    index.iter().zip(shape).fold(0, |flat, (&idx, &size)| flat * size + idx)
}

fn product(shape: &[usize]) -> usize {
    shape.iter().product()
}

fn inner(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

/// Asserts that `backward` is the transpose of `forward`.
#[track_caller]
fn check_transpose(
    what: &str,
    n_inputs: usize,
    n_outputs: usize,
    forward: impl Fn(&[f32], &mut [f32]) + Sync,
    backward: impl Fn(&[f32], &mut [f32]) + Sync,
) {
    let (x, dy) = (numbers(n_inputs, 5), numbers(n_outputs, 6));
    let run = |work: &(dyn Fn(&[f32], &mut [f32]) + Sync), from: &[f32], n: usize| {
        on_any_pool(|| {
            let mut to = vec![f32::NAN; n];
            work(from, &mut to);
            to
        })
    };
    let (y, dx) = (run(&forward, &x, n_outputs), run(&backward, &dy, n_inputs));
    let (one, other) = (inner(&y, &dy), inner(&x, &dx));
    assert!((one - other).abs() <= 1e-5 * (1.0 + (n_outputs as f64).sqrt()), "{what}: {one} and {other}");
}

fn check_permutation(shape: &[usize], permutation: &[usize]) {
    let x = numbers(product(shape), 1);
    let permuted: Vec<usize> = permutation.iter().map(|&axis| shape[axis]).collect();
    let expected: Vec<f32> = (0..x.len())
        .map(|idx| {
            let to = index(idx, &permuted);
            let mut from = vec![0; shape.len()];
            permutation.iter().zip(to).for_each(|(&axis, idx)| from[axis] = idx);
            x[flat(&from, shape)]
        })
        .collect();
    let y = on_any_pool(|| {
        let mut y = vec![f32::NAN; x.len()];
        transpose(&x, shape, permutation, &mut y);
        y
    });
    assert!(y == expected, "{shape:?} by {permutation:?}");
}

#[test]
fn axes_are_permuted() {
    for permutation in
        [[0, 1, 2, 3], [0, 2, 1, 3], [0, 2, 3, 1], [0, 3, 1, 2], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]]
    {
        check_permutation(&[2, 3, 5, 7], &permutation);
        check_permutation(&[3, 21, 33, 50], &permutation);
        check_permutation(&[1, 6, 1, 17], &permutation);
    }
    check_permutation(&[401, 399], &[1, 0]);
    check_permutation(&[0, 4], &[1, 0]);
    check_permutation(&[], &[]);
}

fn check_slice(shape: &[usize], starts: &[usize], steps: &[isize], y_shape: &[usize]) {
    let x = numbers(product(shape), 1);
    let expected: Vec<f32> = (0..product(y_shape))
        .map(|idx| {
            let at = index(idx, y_shape);
            let from: Vec<usize> =
                (0..shape.len()).map(|i| starts[i].wrapping_add_signed(at[i].cast_signed() * steps[i])).collect();
            x[flat(&from, shape)]
        })
        .collect();
    let mut y = vec![f32::NAN; expected.len()];
    slice(&x, shape, starts, steps, y_shape, &mut y);
    assert_eq!(y, expected, "{shape:?} {starts:?} {steps:?}");
    check_transpose(
        "slice",
        x.len(),
        y.len(),
        |x, y| slice(x, shape, starts, steps, y_shape, y),
        |dy, dx| slice_gradient(dy, y_shape, starts, steps, shape, dx),
    );
}

#[test]
fn slices_step_both_ways() {
    check_slice(&[5, 6], &[1, 2], &[1, 1], &[3, 4]);
    check_slice(&[5, 6], &[4, 5], &[-2, -1], &[3, 6]);
    check_slice(&[5, 6], &[0, 1], &[3, 2], &[2, 3]);
    check_slice(&[5, 6], &[0, 0], &[1, 1], &[0, 6]);
    check_slice(&[300, 301, 2], &[299, 5, 0], &[-1, 3, 1], &[300, 90, 2]);
}

#[test]
fn tiles_joins_and_sums_run() {
    let (shape, repeats) = ([2, 3], [2, 2]);
    let mut y = vec![f32::NAN; 24];
    tile(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &shape, &repeats, &mut y);
    assert_eq!(y[..12], [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 4.0, 5.0, 6.0]);
    assert_eq!(y[..12], y[12..]);
    let forward = |x: &[f32], y: &mut [f32]| tile(x, &shape, &repeats, y);
    check_transpose("tile", 6, 24, forward, |dy, dx| tile_gradient(dy, &shape, &repeats, dx));

    let (a, b) = (numbers(6, 1), numbers(2, 2));
    let mut joined = vec![f32::NAN; 8];
    concat(2, &[(&a, 3), (&b, 1)], &mut joined);
    assert_eq!(joined, [a[0], a[1], a[2], b[0], a[3], a[4], a[5], b[1]]);
    let (mut a_again, mut b_again) = (vec![f32::NAN; 6], vec![f32::NAN; 2]);
    split(&joined, 2, &mut [(&mut a_again, 3), (&mut b_again, 1)]);
    assert_eq!((a_again, b_again), (a, b));

    let run = |exclusive, reverse| {
        let mut y = vec![f32::NAN; 6];
        cumsum([1, 3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], exclusive, reverse, &mut y);
        y
    };
    assert_eq!(run(false, false), [1.0, 2.0, 4.0, 6.0, 9.0, 12.0]);
    assert_eq!(run(true, false), [0.0, 0.0, 1.0, 2.0, 4.0, 6.0]);
    assert_eq!(run(false, true), [9.0, 12.0, 8.0, 10.0, 5.0, 6.0]);
    assert_eq!(run(true, true), [8.0, 10.0, 5.0, 6.0, 0.0, 0.0]);
    for (exclusive, reverse) in [(false, false), (true, false), (false, true)] {
        let dims = [40, 50, 60];
        let forward = |x: &[f32], y: &mut [f32]| cumsum(dims, x, exclusive, reverse, y);
        check_transpose("cumsum", 120_000, 120_000, forward, |dy, dx| cumsum(dims, dy, exclusive, !reverse, dx));
    }
}

fn check_pad(mode: PadMode, shape: &[usize], pads: &[(isize, isize)]) {
    let padded = |axis: usize| shape[axis].strict_add_signed(pads[axis].0 + pads[axis].1);
    let y_shape: Vec<usize> = (0..shape.len()).map(padded).collect();
    let source = |idx: isize, size: isize| match mode {
        _ if (0..size).contains(&idx) => Some(idx),
        PadMode::Constant(_) => None,
        PadMode::Edge => Some(idx.clamp(0, size - 1)),
        PadMode::Wrap => Some((idx + 10 * size) % size),
        PadMode::Reflect => {
            let mut idx = idx;
            while !(0..size).contains(&idx) {
                idx = if idx < 0 { -idx } else { 2 * (size - 1) - idx };
            }
            Some(idx)
        }
    };
    let x = numbers(product(shape), 1);
    let expected: Vec<f32> = (0..product(&y_shape))
        .map(|idx| {
            let at = index(idx, &y_shape);
            let of = |axis: usize| source(at[axis].cast_signed() - pads[axis].0, shape[axis].cast_signed());
            let from: Option<Vec<usize>> = (0..shape.len()).map(|axis| of(axis).map(isize::cast_unsigned)).collect();
            from.map_or(9.0, |from| x[flat(&from, shape)])
        })
        .collect();
    let mut y = vec![f32::NAN; expected.len()];
    pad(mode, &x, shape, pads, &mut y);
    assert_eq!(y, expected, "{mode:?} {shape:?} {pads:?}");
    let linear = if let PadMode::Constant(_) = mode { PadMode::Constant(0.0) } else { mode };
    check_transpose(
        "pad",
        x.len(),
        y.len(),
        |x, y| pad(linear, x, shape, pads, y),
        |dy, dx| pad_gradient(linear, dy, shape, pads, dx),
    );
}

#[test]
fn pads_and_crops_by_every_mode() {
    for mode in [PadMode::Constant(9.0), PadMode::Reflect, PadMode::Edge, PadMode::Wrap] {
        check_pad(mode, &[4, 5], &[(1, 2), (3, 1)]);
        check_pad(mode, &[2, 3, 4, 5], &[(0, 0), (0, 0), (1, 0), (2, 2)]);
        check_pad(mode, &[4, 5], &[(-1, 2), (1, -2)]);
        check_pad(mode, &[3], &[(5, 7)]);
        check_pad(mode, &[40, 50, 60], &[(0, 0), (0, 0), (1, 1)]);
    }
}

#[test]
fn rows_are_gathered_and_added() {
    let (dims, indices) = ([2, 4, 3], [3, -4, 3, 1]);
    let x = numbers(24, 1);
    let mut y = vec![f32::NAN; 24];
    gather(dims, &x, &indices, &mut y).expect("indices are within");
    let expected: Vec<f32> = (0..24).map(|idx| x[idx / 12 * 12 + [3, 0, 3, 1][idx / 3 % 4] * 3 + idx % 3]).collect();
    assert_eq!(y, expected);
    let many: Vec<i64> = (0..700).map(|idx| idx * 7919 % 1000 - 500).collect();
    let dims = [1, 500, 130];
    check_transpose(
        "gather",
        500 * 130,
        700 * 130,
        |x, y| gather(dims, x, &many, y).expect("within"),
        |dy, dx| gather_gradient(dims, dy, &many, false, dx).expect("within"),
    );
    let mut dx = [1.0, 2.0];
    gather_gradient([1, 2, 1], &[10.0, 20.0, 30.0], &[1, 1, 0], true, &mut dx).expect("within");
    assert_eq!(dx, [31.0, 32.0]);
    for index in [4, -5, i64::MAX, i64::MIN] {
        let mut y = [7.0];
        assert_eq!(gather([1, 4, 1], &[0.0; 4], &[index], &mut y), Err(IndexError { index, size: 4 }));
        assert_eq!(y, [7.0]);
    }
}

#[test]
fn elements_are_gathered_and_scattered() {
    let (shape, indices, indices_shape) = ([3, 3], [1, 0, -1, 2, 0, 0], [2, 3]);
    let x: Vec<f32> = (0..9).map(|x| x as f32).collect();
    let mut y = vec![f32::NAN; 6];
    gather_elements(&x, &shape, 0, (&indices, &indices_shape), &mut y).expect("within");
    assert_eq!(y, [3.0, 1.0, 8.0, 6.0, 1.0, 2.0]);
    let (forward, backward) = (
        |x: &[f32], y: &mut [f32]| gather_elements(x, &shape, 1, (&indices, &indices_shape), y).expect("within"),
        |dy: &[f32], dx: &mut [f32]| {
            dx.fill(0.0);
            scatter_elements(Scatter::Add, dy, 1, (&indices, &indices_shape), &shape, dx).expect("within");
        },
    );
    check_transpose("gather_elements", 9, 6, forward, backward);
    let mut y = vec![0.0; 3];
    scatter_elements(Scatter::Replace, &[5.0, 6.0], 0, (&[2, 0], &[2]), &[3], &mut y).expect("within");
    assert_eq!(y, [6.0, 0.0, 5.0]);
    let refused = scatter_elements(Scatter::Replace, &[5.0], 0, (&[3], &[1]), &[3], &mut y);
    assert_eq!(refused.map_err(|error| error.to_string()), Err("index 3 lies outside an axis of 3".to_string()));
}
