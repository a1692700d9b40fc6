//! SparseGPT against the algorithm as it is printed, and against magnitudes.

use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use super::*;
use crate::compress::observe::factor::costs;

const DAMPING: f64 = 0.01;

/// The inverse of a positive definite matrix, by Gauss and Jordan.
fn inverse(matrix: &[f64], n: usize) -> Vec<f64> {
    let mut left = matrix.to_vec();
    let mut right: Vec<f64> = (0..n * n).map(|k| f64::from(u8::from(k / n == k % n))).collect();
    for pivot in 0..n {
        let by = left[pivot * n + pivot];
        for k in 0..n {
            left[pivot * n + k] /= by;
            right[pivot * n + k] /= by;
        }
        for row in (0..n).filter(|row| *row != pivot) {
            let by = left[row * n + pivot];
            for k in 0..n {
                left[row * n + k] -= by * left[pivot * n + k];
                right[row * n + k] -= by * right[pivot * n + k];
            }
        }
    }
    right
}

/// The upper triangle `U` with `Uᵀ U` the matrix.
fn upper(matrix: &[f64], n: usize) -> Vec<f64> {
    let mut u = vec![0f64; n * n];
    for i in 0..n {
        for j in i..n {
            let sum: f64 = (0..i).map(|k| u[k * n + i] * u[k * n + j]).sum();
            let rest = matrix[i * n + j] - sum;
            u[i * n + j] = if i == j { rest.sqrt() } else { rest / u[i * n + i] };
        }
    }
    u
}

/// Algorithm 1 with masks chosen by `choose(first column, errors of the columns to choose among by row)` every `window` columns.
fn printed(
    weights: &[f32],
    moments: &[f64],
    n: usize,
    window: usize,
    choose: impl Fn(usize, &[Vec<f64>]) -> Vec<Vec<bool>>,
) -> Vec<f64> {
    let mean = (0..n).map(|k| moments[k * n + k]).sum::<f64>() / n as f64;
    let damped: Vec<f64> = (0..n * n).map(|k| moments[k] + if k / n == k % n { DAMPING * mean } else { 0.0 }).collect();
    let u = upper(&inverse(&damped, n), n);
    let mut w: Vec<Vec<f64>> = weights.chunks(n).map(|row| row.iter().map(|&w| f64::from(w)).collect()).collect();
    let mut mask: Vec<Vec<bool>> = Vec::new();
    for j in 0..n {
        if j % window == 0 {
            let columns = j..(j + window).min(n);
            let error = |row: &Vec<f64>| columns.clone().map(|k| (row[k] / u[k * n + k]).powi(2)).collect();
            mask = choose(j, &w.iter().map(error).collect::<Vec<Vec<f64>>>());
        }
        for (row, mask) in w.iter_mut().zip(&mask) {
            let settled = if mask[j % window] { 0.0 } else { row[j] };
            let error = (row[j] - settled) / u[j * n + j];
            row[j] = settled;
            (j + 1..n).for_each(|k| row[k] -= error * u[j * n + k]);
        }
    }
    w.concat()
}

/// Inputs whose neighbours are alike, as moments.
fn correlated(n: usize, phase: f32) -> Vec<f64> {
    let noise = |k: usize| (((k as f64 * 12.9898 + f64::from(phase)).sin() * 43_758.545_3).fract() - 0.5) * 2.0;
    let mut moments = vec![0f64; n * n];
    let n_samples = 8 * n.min(32);
    for sample in 0..n_samples {
        let mut x: Vec<f64> = (0..n).map(|k| noise(sample * n + k)).collect();
        (1..n).for_each(|k| x[k] = 0.8 * x[k - 1] + 0.6 * x[k]);
        for i in 0..n {
            (0..n).for_each(|j| moments[i * n + j] += x[i] * x[j] / n_samples as f64);
        }
    }
    moments
}

fn layout(shape: &[usize], pattern: &str) -> layout::Layout {
    let graph = one(gemm(), &[1, shape[1]], wave(shape, 0.0));
    let plan = planned(&graph, &options(&format!("pattern = '{pattern}'"))).expect("a weight");
    plan.operands[0].layout.clone()
}

fn lowest_of(errors: &[Vec<f64>], n: usize) -> Vec<Vec<bool>> {
    let width = errors[0].len();
    let chosen = choose::lowest(&errors.concat(), errors.len() * width, n);
    chosen.chunks(width).map(<[bool]>::to_vec).collect()
}

#[track_caller]
fn check(shape: [usize; 2], pattern: &str, choose: impl Fn(usize, &[Vec<f64>]) -> Vec<Vec<bool>>, window: usize) {
    let weights = wave(&shape, 0.3).to_vec::<f32>().expect("floats");
    let moments = correlated(shape[1], 0.7);
    let (numbers, is_out) = super::optimal_solve(&layout(&shape, pattern), &weights, &moments, 0.5);
    let expected = printed(&weights, &moments, shape[1], window, choose);
    for (k, (found, expected)) in numbers.iter().zip(&expected).enumerate() {
        assert!((f64::from(*found) - expected).abs() < 1e-3, "{pattern}, element {k}: {found}, not {expected}");
        assert_eq!(is_out[k], *found == 0.0, "{pattern}, element {k}");
    }
}

#[test]
fn columns_are_settled_as_the_algorithm_is_printed() {
    let (rows, n) = (6, 24);
    check([rows, n], "free", |_, errors| lowest_of(errors, rows * n / 2), n);
    let of_rows = |_: usize, errors: &[Vec<f64>]| {
        errors.iter().flat_map(|row| lowest_of(std::slice::from_ref(row), 2)).collect::<Vec<Vec<bool>>>()
    };
    check([rows, n], "2:4", of_rows, 4);
    let blocks = |_: usize, errors: &[Vec<f64>]| {
        let mean = |rows: &[Vec<f64>], k: usize| rows.iter().map(|row| row[k]).sum::<f64>() / rows.len() as f64;
        let means: Vec<Vec<f64>> = errors.chunks(3).map(|rows| (0..n).map(|k| mean(rows, k)).collect()).collect();
        lowest_of(&means, n).into_iter().flat_map(|row| [row.clone(), row.clone(), row]).collect::<Vec<Vec<bool>>>()
    };
    check([rows, n], "3x1", blocks, n);
}

#[test]
fn wide_weights_are_as_sparse_as_was_asked() {
    let shape = [6, 304];
    let weights = wave(&shape, 0.3).to_vec::<f32>().expect("floats");
    let moments = correlated(shape[1], 0.7);
    for (pattern, sparsity) in [("free", 0.37), ("2x1", 0.5), ("1x8", 0.25)] {
        let layout = layout(&shape, pattern);
        let (_, is_out) = super::optimal_solve(&layout, &weights, &moments, sparsity);
        let n_out = is_out.iter().filter(|is_out| **is_out).count() as f64;
        let (height, width) = layout.unit();
        assert!((n_out - sparsity * 1824.0).abs() <= (height * width) as f64, "{pattern}: {n_out}");
    }
}

#[test]
fn the_same_bytes_on_one_thread_and_on_two() {
    let graph = one(gemm(), &[64, 48], wave(&[130, 48], 0.4));
    let options = options("criterion = 'sparsegpt'\nsparsity = 0.6");
    let plan = planned(&graph, &options).expect("a weight");
    let on = |n_threads: usize| {
        let pool = ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
        let batch = Ok::<_, PruneError>(IndexMap::from([(Name::from("x"), wave(&[64, 48], 0.2))]));
        let mut network = Reference(graph.clone(), plan.values());
        pool.install(|| by_samples(&graph, &plan, &options, &mut network, [batch], |_| ()).expect("sparse"))
    };
    let (one, two) = (on(1), on(2));
    assert!(one.graph == two.graph && one.changes == two.changes);
    let change = &one.changes[0];
    assert!(change.error < 0.8 * change.error_of_magnitude, "{change:?}");
    hold(&one.graph, &one.masks).expect("kept");
    assert_eq!(one.masks.iter().map(|(_, mask)| mask.n_out()).sum::<usize>(), 3744);
}

/// What the solver costs over what zeros chosen by magnitude cost.
fn ratio(shape: [usize; 2], phase: f32, pattern: &str) -> f64 {
    let weights = wave(&shape, phase).to_vec::<f32>().expect("floats");
    let moments = correlated(shape[1], phase * 1.3);
    let layout = layout(&shape, pattern);
    let options = options(&format!("pattern = '{pattern}'"));
    let (numbers, _) = super::optimal_solve(&layout, &weights, &moments, options.target());
    let magnitudes: Vec<f32> = weights.iter().map(|weight| weight.abs()).collect();
    let is_out = choose::of_operand(&layout, &magnitudes, &options);
    let plain: Vec<f32> = weights.iter().zip(is_out).map(|(&w, is_out)| if is_out { 0.0 } else { w }).collect();
    let single: Vec<f32> = moments.iter().map(|&moment| moment as f32).collect();
    let cost = |numbers: &[f32]| {
        let errors: Vec<f32> = numbers.iter().zip(&weights).map(|(number, weight)| number - weight).collect();
        costs(&errors, shape[1], &single).iter().sum::<f64>()
    };
    cost(&numbers) / cost(&plain)
}

#[test]
fn with_inputs_that_hang_together_it_costs_less_than_magnitudes() {
    for pattern in ["free", "2:4", "1:4", "2x1"] {
        let phases = (1..=12).map(|k| k as f32 * 0.23);
        let ratios = phases.enumerate().map(|(k, phase)| ratio([2 + k % 6 * 2, 8 + k % 5 * 8], phase, pattern));
        let mean = (ratios.map(f64::ln).sum::<f64>() / 12.0).exp();
        assert!(mean < 0.9, "{pattern}: {mean}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_never_costs_more_than_magnitudes(
        rows in 1usize..9,
        groups in 2usize..9,
        phase in 0.1f32..3.0,
        pattern in prop::sample::select(vec!["free", "2:4", "1:4", "2x1"]),
    ) {
        let n = groups * 4;
        let graph = one(gemm(), &[32, n], wave(&[2 * rows, n], phase));
        let options = options(&format!("criterion = 'sparsegpt'\npattern = '{pattern}'"));
        let plan = planned(&graph, &options).expect("a weight");
        let batch = Ok::<_, PruneError>(IndexMap::from([(Name::from("x"), wave(&[32, n], phase * 0.7))]));
        let mut network = Reference(graph.clone(), plan.values());
        let sparse = by_samples(&graph, &plan, &options, &mut network, [batch], |_| ()).expect("sparse");
        let change = &sparse.changes[0];
        prop_assert!(change.error <= change.error_of_magnitude, "{change:?}");
    }
}
