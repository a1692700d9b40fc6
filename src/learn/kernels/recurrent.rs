//! The pointwise part of one step of an LSTM or a GRU, forward and backward, with ONNX's equations, its default
//! activations and its order of gates; the products with weights are the caller's. A plain RNN's is `elementwise`'s.
//!
//! Gates are rows, one a sample, of the gates side by side, each of `hidden` elements: input, output, forget, cell for an
//! LSTM; update, reset, hidden for a GRU. They come as two sums before the activation, what the input brings and what the
//! state brings, and are kept as activations, which the backward functions read.

#![allow(unsafe_code)]

use std::ops::Range;

use super::math::{sigmoid, tanh};
use super::parallel::{Parts, for_ranges, simd};

/// What a gate costs, in cheap operations on one element.
const GATE_COST: usize = 4;

/// One step of an LSTM: from the two `sums` and the cell `before` the activated `gates`, the cell `c` and the state `h`.
///
/// # Panics
/// When lengths do not fit together, as every function here.
pub fn lstm_cell(hidden: usize, sums: [&[f32]; 2], before: &[f32], gates: &mut [f32], c: &mut [f32], h: &mut [f32]) {
    let n_rows = check(hidden, 4, &[sums[0].len(), sums[1].len(), gates.len()], &[before.len(), c.len(), h.len()]);
    let outputs = [gates, c, h].map(Parts::new);
    for_ranges(n_rows, 4 * hidden * GATE_COST, |rows| {
        for row in rows {
            let (one, four) = (span(row, hidden), span(row, 4 * hidden));
            let [x, from_h] = sums.map(|sums| sums[four.clone()].split_at(3 * hidden));
            // SAFETY: each row is visited once.
            let [gates, c, h] = unsafe { parts(&outputs, [&four, &one, &one]) };
            simd(
                #[inline(always)]
                || {
                    let (gates, g) = gates.split_at_mut(3 * hidden);
                    map([x.0, from_h.0], gates, |[x, h]| sigmoid(x + h));
                    map([x.1, from_h.1], g, |[x, h]| tanh(x + h));
                    let [i, o, f] = split(hidden, gates);
                    map([f, &before[one], i, g], c, |[f, before, i, g]| f * before + i * g);
                    map([o, c], h, |[o, c]| o * tanh(c));
                },
            );
        }
    });
}

/// What [`lstm_cell`] kept.
#[derive(Clone, Copy, Debug)]
pub struct LstmKept<'a> {
    /// The gates after activation.
    pub gates: &'a [f32],
    /// The cell before the step.
    pub before: &'a [f32],
    /// The cell after it.
    pub c: &'a [f32],
}

/// The gradients of [`lstm_cell`] from those of `h` and `c`: of either sum, and of the cell before.
pub fn lstm_cell_gradient(
    hidden: usize,
    kept: LstmKept<'_>,
    [dh, dc]: [&[f32]; 2],
    dsums: &mut [f32],
    dbefore: &mut [f32],
) {
    let LstmKept { gates, before, c } = kept;
    let singles = [before.len(), c.len(), dh.len(), dc.len(), dbefore.len()];
    let n_rows = check(hidden, 4, &[gates.len(), dsums.len()], &singles);
    let outputs = [dsums, dbefore].map(Parts::new);
    for_ranges(n_rows, 4 * hidden * GATE_COST, |rows| {
        for row in rows {
            let (one, four) = (span(row, hidden), span(row, 4 * hidden));
            let [i, o, f, g] = split(hidden, &gates[four.clone()]);
            let [before, c, dh, dc] = [before, c, dh, dc].map(|single| &single[one.clone()]);
            // SAFETY: each row is visited once.
            let [dsums, dbefore] = unsafe { parts(&outputs, [&four, &one]) };
            let [di, d_o, df, dg] = split_mut(hidden, dsums);
            simd(
                #[inline(always)]
                || {
                    let (squashed, whole) = (d_o, dbefore);
                    map([c], squashed, |[c]| tanh(c));
                    map([dc, dh, o, squashed], whole, |[dc, dh, o, t]| dc + dh * o * (1.0 - t * t));
                    map([whole, g, i], di, |[whole, g, i]| whole * g * i * (1.0 - i));
                    map([whole, before, f], df, |[whole, before, f]| whole * before * f * (1.0 - f));
                    map([whole, i, g], dg, |[whole, i, g]| whole * i * (1.0 - g * g));
                    update([dh, o], squashed, |t, [dh, o]| dh * t * o * (1.0 - o));
                    update([f], whole, |whole, [f]| whole * f);
                },
            );
        }
    });
}

/// One step of a GRU with `linear_before_reset` 1: from the two `sums` and the state `before` the activated `gates` and the
/// state `h`.
pub fn gru_cell(hidden: usize, sums: [&[f32]; 2], before: &[f32], gates: &mut [f32], h: &mut [f32]) {
    let n_rows = check(hidden, 3, &[sums[0].len(), sums[1].len(), gates.len()], &[before.len(), h.len()]);
    let outputs = [gates, h].map(Parts::new);
    for_ranges(n_rows, 3 * hidden * GATE_COST, |rows| {
        for row in rows {
            let (one, three) = (span(row, hidden), span(row, 3 * hidden));
            let [x, from_h] = sums.map(|sums| sums[three.clone()].split_at(2 * hidden));
            // SAFETY: each row is visited once.
            let [gates, h] = unsafe { parts(&outputs, [&three, &one]) };
            simd(
                #[inline(always)]
                || {
                    let (gates, n) = gates.split_at_mut(2 * hidden);
                    map([x.0, from_h.0], gates, |[x, h]| sigmoid(x + h));
                    let [z, r] = split(hidden, gates);
                    map([x.1, r, from_h.1], n, |[x, r, h]| tanh(x + r * h));
                    map([n, z, &before[one]], h, |[n, z, before]| n + z * (before - n));
                },
            );
        }
    });
}

/// What [`gru_cell`] kept.
#[derive(Clone, Copy, Debug)]
pub struct GruKept<'a> {
    /// The gates after activation.
    pub gates: &'a [f32],
    /// The second of the sums.
    pub recurrent: &'a [f32],
    /// The state before the step.
    pub before: &'a [f32],
}

/// The gradients of [`gru_cell`] from that of `h`: of the first sum, of the second, and of the state before but for what
/// passes through the second sum.
pub fn gru_cell_gradient(hidden: usize, kept: GruKept<'_>, dh: &[f32], gradients: [&mut [f32]; 3]) {
    let GruKept { gates, recurrent, before } = kept;
    let [dsums, drecurrent, dbefore] = gradients;
    let triples = [gates.len(), recurrent.len(), dsums.len(), drecurrent.len()];
    let n_rows = check(hidden, 3, &triples, &[before.len(), dh.len(), dbefore.len()]);
    let outputs = [dsums, drecurrent, dbefore].map(Parts::new);
    for_ranges(n_rows, 3 * hidden * GATE_COST, |rows| {
        for row in rows {
            let (one, three) = (span(row, hidden), span(row, 3 * hidden));
            let [z, r, n] = split(hidden, &gates[three.clone()]);
            let [_, _, from_h] = split(hidden, &recurrent[three.clone()]);
            let (before, dh) = (&before[one.clone()], &dh[one.clone()]);
            // SAFETY: each row is visited once.
            let [dsums, drecurrent, dbefore] = unsafe { parts(&outputs, [&three, &three, &one]) };
            let [dz, dr, dn] = split_mut(hidden, dsums);
            let [dz_of_h, dr_of_h, dn_of_h] = split_mut(hidden, drecurrent);
            simd(
                #[inline(always)]
                || {
                    map([dh, z, n], dn, |[dh, z, n]| dh * (1.0 - z) * (1.0 - n * n));
                    map([dh, before, n, z], dz, |[dh, before, n, z]| dh * (before - n) * z * (1.0 - z));
                    map([dn, from_h, r], dr, |[dn, h, r]| dn * h * r * (1.0 - r));
                    map([dn, r], dn_of_h, |[dn, r]| dn * r);
                    map([dh, z], dbefore, |[dh, z]| dh * z);
                    dz_of_h.copy_from_slice(dz);
                    dr_of_h.copy_from_slice(dr);
                },
            );
        }
    });
}

/// The number of rows.
fn check(hidden: usize, n_gates: usize, gates: &[usize], singles: &[usize]) -> usize {
    let n_rows = singles[0] / hidden.max(1);
    assert!(singles.iter().all(|&len| len == n_rows * hidden), "rows of {hidden} elements");
    assert!(gates.iter().all(|&len| len == n_rows * n_gates * hidden), "{n_gates} gates an element");
    n_rows
}

fn span(row: usize, width: usize) -> Range<usize> {
    row * width..(row + 1) * width
}

/// # Safety
/// As [`Parts::part`] for each.
unsafe fn parts<'a, const N: usize>(outputs: &[Parts<'a>; N], ranges: [&Range<usize>; N]) -> [&'a mut [f32]; N] {
    // SAFETY: the caller's promise.
    std::array::from_fn(|idx| unsafe { outputs[idx].part(ranges[idx].clone()) })
}

/// Writes the function of the inputs' elements; all are as long as `y`.
#[inline(always)]
fn map<const N: usize>(inputs: [&[f32]; N], y: &mut [f32], function: impl Fn([f32; N]) -> f32) {
    update(inputs, y, |_, x| function(x));
}

/// As [`map`], of what was in `y`, too.
#[inline(always)]
fn update<const N: usize>(inputs: [&[f32]; N], y: &mut [f32], function: impl Fn(f32, [f32; N]) -> f32) {
    // known to be as long, the slices are read without a check of each index, and by whole vectors
    let inputs = inputs.map(|input| &input[..y.len()]);
    for (at, y) in y.iter_mut().enumerate() {
        *y = function(*y, inputs.map(|input| input[at]));
    }
}

/// Consecutive runs of `hidden` elements.
#[inline(always)]
fn split<const N: usize>(hidden: usize, x: &[f32]) -> [&[f32]; N] {
    std::array::from_fn(|idx| &x[idx * hidden..(idx + 1) * hidden])
}

#[inline(always)]
fn split_mut<const N: usize>(hidden: usize, x: &mut [f32]) -> [&mut [f32]; N] {
    let mut rest = x;
    std::array::from_fn(|_| rest.split_off_mut(..hidden).expect("a row has all gates"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, differences, dot, numbers, on_any_pool, wide};
    use super::*;

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// The sum of gate `idx` for element `at` of the state.
    fn gate(sums: &[f64], hidden: usize, n_gates: usize, idx: usize, at: usize) -> f64 {
        sums[(at / hidden * n_gates + idx) * hidden + at % hidden]
    }

    /// `c` and `h` of the two sums and the cell before, one after the other.
    fn exact_lstm(hidden: usize, n: usize, x: &[f64]) -> Vec<f64> {
        let (sums, before) = (&x[..8 * n], &x[8 * n..]);
        let (from_x, from_h) = sums.split_at(4 * n);
        let gate = |idx: usize, at: usize| gate(from_x, hidden, 4, idx, at) + gate(from_h, hidden, 4, idx, at);
        let cell = |at: usize| sigmoid(gate(2, at)) * before[at] + sigmoid(gate(0, at)) * gate(3, at).tanh();
        (0..n).map(cell).chain((0..n).map(|at| sigmoid(gate(1, at)) * cell(at).tanh())).collect()
    }

    #[test]
    fn lstm() {
        for (rows, hidden) in [(3, 5), (70, 130)] {
            let n = rows * hidden;
            let (sums, from_h, before, dy) = (numbers(4 * n, 1), numbers(4 * n, 2), numbers(n, 3), numbers(2 * n, 4));
            let x = wide(&[sums.clone(), from_h.clone(), before.clone()].concat());
            let run = || {
                let [mut gates, mut c, mut h] = [4, 1, 1].map(|times| vec![f32::NAN; times * n]);
                lstm_cell(hidden, [&sums, &from_h], &before, &mut gates, &mut c, &mut h);
                let [mut dsums, mut dbefore] = [4, 1].map(|times| vec![f32::NAN; times * n]);
                let kept = LstmKept { gates: &gates, before: &before, c: &c };
                lstm_cell_gradient(hidden, kept, [&dy[n..], &dy[..n]], &mut dsums, &mut dbefore);
                [c, h, dsums, dbefore].concat()
            };
            let made = on_any_pool(run);
            close("c, h", &made[..2 * n], &exact_lstm(hidden, n, &x), 1e-6);
            if rows == 3 {
                let expected = differences(&x, |x| dot(&exact_lstm(hidden, n, x), &dy));
                let found = [&made[2 * n..6 * n], &made[2 * n..6 * n], &made[6 * n..]].concat();
                close("gradients", &found, &expected, 1e-5);
            }
        }
    }

    fn exact_gru(hidden: usize, n: usize, x: &[f64]) -> Vec<f64> {
        let (sums, before) = (&x[..6 * n], &x[6 * n..]);
        let (from_x, from_h) = sums.split_at(3 * n);
        let of = |idx: usize, at: usize| (gate(from_x, hidden, 3, idx, at), gate(from_h, hidden, 3, idx, at));
        let output = |at: usize| {
            let [z, r] = [0, 1].map(|idx| sigmoid(of(idx, at).0 + of(idx, at).1));
            (1.0 - z) * (of(2, at).0 + r * of(2, at).1).tanh() + z * before[at]
        };
        (0..n).map(output).collect()
    }

    #[test]
    fn gru() {
        for (rows, hidden) in [(3, 5), (70, 130)] {
            let n = rows * hidden;
            let (sums, from_h, before, dh) = (numbers(3 * n, 1), numbers(3 * n, 2), numbers(n, 3), numbers(n, 4));
            let x = wide(&[sums.clone(), from_h.clone(), before.clone()].concat());
            let run = || {
                let [mut gates, mut h] = [3, 1].map(|times| vec![f32::NAN; times * n]);
                gru_cell(hidden, [&sums, &from_h], &before, &mut gates, &mut h);
                let [mut dsums, mut drecurrent, mut dbefore] = [3, 3, 1].map(|times| vec![f32::NAN; times * n]);
                let kept = GruKept { gates: &gates, recurrent: &from_h, before: &before };
                gru_cell_gradient(hidden, kept, &dh, [&mut dsums, &mut drecurrent, &mut dbefore]);
                [h, dsums, drecurrent, dbefore].concat()
            };
            let made = on_any_pool(run);
            close("h", &made[..n], &exact_gru(hidden, n, &x), 1e-6);
            if rows == 3 {
                let expected = differences(&x, |x| dot(&exact_gru(hidden, n, x), &dh));
                close("gradients", &made[n..], &expected, 1e-5);
            }
        }
    }
}
