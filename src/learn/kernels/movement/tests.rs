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
fn joins_and_sums_run() {
    let (a, b) = (numbers(6, 1), numbers(2, 2));
    let mut joined = vec![f32::NAN; 8];
    concat(2, &[(&a, 3), (&b, 1)], &mut joined);
    assert_eq!(joined, [a[0], a[1], a[2], b[0], a[3], a[4], a[5], b[1]]);

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

#[test]
fn rows_are_gathered_and_added() {
    let (dims, rows) = ([2, 4, 3], [3, 0, 3, 1]);
    let x = numbers(24, 1);
    let mut y = vec![f32::NAN; 24];
    gather(dims, &x, &rows, &mut y);
    let expected: Vec<f32> = (0..24).map(|idx| x[idx / 12 * 12 + [3, 0, 3, 1][idx / 3 % 4] * 3 + idx % 3]).collect();
    assert_eq!(y, expected);
    let many: Vec<usize> = (0..700).map(|idx| idx * 7919 % 500).collect();
    let dims = [1, 500, 130];
    check_transpose(
        "gather",
        500 * 130,
        700 * 130,
        |x, y| gather(dims, x, &many, y),
        |dy, dx| gather_gradient(dims, dy, &many, dx),
    );
    let mut dx = [1.0, 2.0];
    gather_gradient([1, 2, 1], &[10.0, 20.0, 30.0], &[1, 1, 0], &mut dx);
    assert_eq!(dx, [30.0, 30.0]);
}
