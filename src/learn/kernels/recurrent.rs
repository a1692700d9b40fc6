//! The pointwise part of one step of an LSTM or a GRU, forward and backward, with ONNX's equations, its default
//! activations and its order of gates; the products with weights are the caller's. A plain RNN's is `elementwise`'s.
//!
//! Gates are rows, one a sample, of the gates side by side, each of `hidden` elements: input, output, forget, cell for an
//! LSTM; update, reset, hidden for a GRU. They come as the sums before the activation and are left as activations, which
//! the backward functions read.

use super::math::{sigmoid, tanh};
use super::parallel::simd;

/// One step of an LSTM: from `gates` before activation and the cell `c_before` the cell `c` and the output `h`. The
/// `peepholes`, of input, output and forget gate, are 0 where there are none.
///
/// # Panics
/// When lengths do not fit together, as every function here.
pub fn lstm_cell(
    hidden: usize,
    gates: &mut [f32],
    peepholes: Option<&[f32]>,
    c_before: &[f32],
    c: &mut [f32],
    h: &mut [f32],
) {
    check(hidden, 4, gates.len(), &[c_before.len(), c.len(), h.len()]);
    let [pi, po, pf] = split_peepholes(hidden, peepholes);
    let rows = gates.chunks_exact_mut(4 * hidden).zip(c_before.chunks_exact(hidden));
    for ((gates, c_before), (c, h)) in rows.zip(c.chunks_exact_mut(hidden).zip(h.chunks_exact_mut(hidden))) {
        let [i, o, f, g] = split_mut(hidden, gates);
        simd(
            #[inline(always)]
            || {
                for at in 0..hidden {
                    let (pi, po, pf) = (at_or_0(pi, at), at_or_0(po, at), at_or_0(pf, at));
                    i[at] = sigmoid(i[at] + pi * c_before[at]);
                    f[at] = sigmoid(f[at] + pf * c_before[at]);
                    g[at] = tanh(g[at]);
                    c[at] = f[at] * c_before[at] + i[at] * g[at];
                    o[at] = sigmoid(o[at] + po * c[at]);
                    h[at] = o[at] * tanh(c[at]);
                }
            },
        );
    }
}

/// What [`lstm_cell`] kept.
#[derive(Clone, Copy, Debug)]
pub struct LstmKept<'a> {
    /// The gates after activation.
    pub gates: &'a [f32],
    /// The peepholes of the step.
    pub peepholes: Option<&'a [f32]>,
    /// The cell before it.
    pub c_before: &'a [f32],
    /// The cell after it.
    pub c: &'a [f32],
}

/// The gradients of [`lstm_cell`]: from `dh` and, in `dc`, the gradient of `c`, the gradient of the gates before
/// activation in `dgates` and that of `c_before` in `dc`; what the peepholes get is added to `dpeepholes`.
pub fn lstm_cell_gradient(
    hidden: usize,
    kept: LstmKept<'_>,
    dh: &[f32],
    dc: &mut [f32],
    dgates: &mut [f32],
    mut dpeepholes: Option<&mut [f32]>,
) {
    let LstmKept { gates, peepholes, c_before, c } = kept;
    check(hidden, 4, gates.len(), &[c_before.len(), c.len(), dh.len(), dc.len()]);
    assert_eq!(gates.len(), dgates.len(), "a gradient a gate");
    let [pi, po, pf] = split_peepholes(hidden, peepholes);
    for row in 0..dh.len() / hidden.max(1) {
        let (one, four) = (row * hidden..(row + 1) * hidden, row * 4 * hidden..(row + 1) * 4 * hidden);
        let [i, o, f, g] = split(hidden, &gates[four.clone()]);
        let [di, d_o, df, dg] = split_mut(hidden, &mut dgates[four]);
        let (c_before, c, dh, dc) = (&c_before[one.clone()], &c[one.clone()], &dh[one.clone()], &mut dc[one]);
        simd(
            #[inline(always)]
            || {
                for at in 0..hidden {
                    let (pi, po, pf) = (at_or_0(pi, at), at_or_0(po, at), at_or_0(pf, at));
                    let t = tanh(c[at]);
                    d_o[at] = dh[at] * t * o[at] * (1.0 - o[at]);
                    let whole = dc[at] + dh[at] * o[at] * (1.0 - t * t) + d_o[at] * po;
                    di[at] = whole * g[at] * i[at] * (1.0 - i[at]);
                    df[at] = whole * c_before[at] * f[at] * (1.0 - f[at]);
                    dg[at] = whole * i[at] * (1.0 - g[at] * g[at]);
                    dc[at] = whole * f[at] + di[at] * pi + df[at] * pf;
                }
            },
        );
        if let Some(dpeepholes) = &mut dpeepholes {
            assert_eq!(dpeepholes.len(), 3 * hidden, "three peepholes");
            for at in 0..hidden {
                dpeepholes[at] += di[at] * c_before[at];
                dpeepholes[hidden + at] += d_o[at] * c[at];
                dpeepholes[2 * hidden + at] += df[at] * c_before[at];
            }
        }
    }
}

/// First half of a GRU's step with `linear_before_reset` 0: activates update and reset gate and gives `reset · h_before`,
/// whose product with the recurrent weight the caller adds to the hidden gate.
pub fn gru_reset(hidden: usize, gates: &mut [f32], h_before: &[f32], reset: &mut [f32]) {
    check(hidden, 3, gates.len(), &[h_before.len(), reset.len()]);
    let rows = gates.chunks_exact_mut(3 * hidden).zip(h_before.chunks_exact(hidden));
    for ((gates, h_before), reset) in rows.zip(reset.chunks_exact_mut(hidden)) {
        let [z, r, _] = split_mut(hidden, gates);
        simd(
            #[inline(always)]
            || {
                for at in 0..hidden {
                    z[at] = sigmoid(z[at]);
                    r[at] = sigmoid(r[at]);
                    reset[at] = r[at] * h_before[at];
                }
            },
        );
    }
}

/// Second half: activates the hidden gate and gives `h = (1 − update) · hidden + update · h_before`.
pub fn gru_update(hidden: usize, gates: &mut [f32], h_before: &[f32], h: &mut [f32]) {
    check(hidden, 3, gates.len(), &[h_before.len(), h.len()]);
    let rows = gates.chunks_exact_mut(3 * hidden).zip(h_before.chunks_exact(hidden));
    for ((gates, h_before), h) in rows.zip(h.chunks_exact_mut(hidden)) {
        let [z, _, n] = split_mut(hidden, gates);
        simd(
            #[inline(always)]
            || {
                for at in 0..hidden {
                    n[at] = tanh(n[at]);
                    h[at] = (1.0 - z[at]) * n[at] + z[at] * h_before[at];
                }
            },
        );
    }
}

/// The gradients of [`gru_update`]: of the update and hidden gate before activation in `dgates`, and the direct part of
/// that of `h_before` in `dh_before`.
pub fn gru_update_gradient(
    hidden: usize,
    gates: &[f32],
    h_before: &[f32],
    dh: &[f32],
    dgates: &mut [f32],
    dh_before: &mut [f32],
) {
    check(hidden, 3, gates.len(), &[h_before.len(), dh.len(), dh_before.len()]);
    assert_eq!(gates.len(), dgates.len(), "a gradient a gate");
    for row in 0..dh.len() / hidden.max(1) {
        let (one, three) = (row * hidden..(row + 1) * hidden, row * 3 * hidden..(row + 1) * 3 * hidden);
        let [z, _, n] = split(hidden, &gates[three.clone()]);
        let [dz, _, dn] = split_mut(hidden, &mut dgates[three]);
        let (h_before, dh, dh_before) = (&h_before[one.clone()], &dh[one.clone()], &mut dh_before[one]);
        simd(
            #[inline(always)]
            || {
                for at in 0..hidden {
                    dn[at] = dh[at] * (1.0 - z[at]) * (1.0 - n[at] * n[at]);
                    dz[at] = dh[at] * (h_before[at] - n[at]) * z[at] * (1.0 - z[at]);
                    dh_before[at] = dh[at] * z[at];
                }
            },
        );
    }
}

/// The gradients of [`gru_reset`] from that of `reset`: of the reset gate before activation in `dgates`, and its part of
/// that of `h_before`, which is added.
pub fn gru_reset_gradient(
    hidden: usize,
    gates: &[f32],
    h_before: &[f32],
    dreset: &[f32],
    dgates: &mut [f32],
    dh_before: &mut [f32],
) {
    check(hidden, 3, gates.len(), &[h_before.len(), dreset.len(), dh_before.len()]);
    assert_eq!(gates.len(), dgates.len(), "a gradient a gate");
    for row in 0..dreset.len() / hidden.max(1) {
        let (one, three) = (row * hidden..(row + 1) * hidden, row * 3 * hidden..(row + 1) * 3 * hidden);
        let [_, r, _] = split(hidden, &gates[three.clone()]);
        let [_, dr, _] = split_mut(hidden, &mut dgates[three]);
        let (h_before, dreset, dh_before) = (&h_before[one.clone()], &dreset[one.clone()], &mut dh_before[one]);
        for at in 0..hidden {
            dr[at] = dreset[at] * h_before[at] * r[at] * (1.0 - r[at]);
            dh_before[at] += dreset[at] * r[at];
        }
    }
}

/// One step of a GRU with `linear_before_reset` 1: `recurrent` is `h_before` times the recurrent weight of the hidden
/// gate plus its bias, which the gates lack.
pub fn gru_cell(hidden: usize, gates: &mut [f32], recurrent: &[f32], h_before: &[f32], h: &mut [f32]) {
    check(hidden, 3, gates.len(), &[recurrent.len(), h_before.len(), h.len()]);
    let rows = gates.chunks_exact_mut(3 * hidden).zip(recurrent.chunks_exact(hidden));
    for ((gates, recurrent), (h_before, h)) in rows.zip(h_before.chunks_exact(hidden).zip(h.chunks_exact_mut(hidden))) {
        let [z, r, n] = split_mut(hidden, gates);
        simd(
            #[inline(always)]
            || {
                for at in 0..hidden {
                    z[at] = sigmoid(z[at]);
                    r[at] = sigmoid(r[at]);
                    n[at] = tanh(n[at] + r[at] * recurrent[at]);
                    h[at] = (1.0 - z[at]) * n[at] + z[at] * h_before[at];
                }
            },
        );
    }
}

/// What [`gru_cell`] kept.
#[derive(Clone, Copy, Debug)]
pub struct GruKept<'a> {
    /// The gates after activation.
    pub gates: &'a [f32],
    /// As the step had it.
    pub recurrent: &'a [f32],
    /// As the step had it.
    pub h_before: &'a [f32],
}

/// The gradients of [`gru_cell`]: of the gates before activation, of `recurrent`, and the direct part of that of
/// `h_before`.
pub fn gru_cell_gradient(
    hidden: usize,
    kept: GruKept<'_>,
    dh: &[f32],
    dgates: &mut [f32],
    drecurrent: &mut [f32],
    dh_before: &mut [f32],
) {
    let GruKept { gates, recurrent, h_before } = kept;
    check(hidden, 3, gates.len(), &[recurrent.len(), drecurrent.len()]);
    gru_update_gradient(hidden, gates, h_before, dh, dgates, dh_before);
    for row in 0..dh.len() / hidden.max(1) {
        let (one, three) = (row * hidden..(row + 1) * hidden, row * 3 * hidden..(row + 1) * 3 * hidden);
        let [_, r, _] = split(hidden, &gates[three.clone()]);
        let [_, dr, dn] = split_mut(hidden, &mut dgates[three]);
        let (recurrent, drecurrent) = (&recurrent[one.clone()], &mut drecurrent[one]);
        for at in 0..hidden {
            dr[at] = dn[at] * recurrent[at] * r[at] * (1.0 - r[at]);
            drecurrent[at] = dn[at] * r[at];
        }
    }
}

fn check(hidden: usize, n_gates: usize, n_in_gates: usize, others: &[usize]) {
    for &len in others {
        assert_eq!(len * n_gates, n_in_gates, "{n_gates} gates an element");
    }
    assert!(hidden > 0 && n_in_gates.is_multiple_of(n_gates * hidden), "rows of {hidden} elements");
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

fn split_peepholes(hidden: usize, peepholes: Option<&[f32]>) -> [&[f32]; 3] {
    match peepholes {
        Some(peepholes) => {
            assert_eq!(peepholes.len(), 3 * hidden, "three peepholes");
            split(hidden, peepholes)
        }
        None => [&[]; 3],
    }
}

#[inline(always)]
fn at_or_0(x: &[f32], at: usize) -> f32 {
    x.get(at).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{close, differences, dot, numbers, wide};
    use super::*;

    const N: usize = 3;
    const H: usize = 5;

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// The two outputs, `c` and `h`, of gates, cell and peepholes one after the other.
    fn exact_lstm(x: &[f64]) -> Vec<f64> {
        let (gates, rest) = x.split_at(4 * N * H);
        let (c_before, p) = rest.split_at(N * H);
        let p = |gate: usize, at: usize| p.get(gate * H + at % H).copied().unwrap_or(0.0);
        let gate = |idx: usize, at: usize| gates[(at / H * 4 + idx) * H + at % H];
        let cell = |at: usize| {
            let i = sigmoid(gate(0, at) + p(0, at) * c_before[at]);
            let f = sigmoid(gate(2, at) + p(2, at) * c_before[at]);
            f * c_before[at] + i * gate(3, at).tanh()
        };
        let output = |at: usize| sigmoid(gate(1, at) + p(1, at) * cell(at)) * cell(at).tanh();
        (0..N * H).map(cell).chain((0..N * H).map(output)).collect()
    }

    #[test]
    fn lstm() {
        let (gates, c_before, dy) = (numbers(4 * N * H, 1), numbers(N * H, 2), numbers(2 * N * H, 4));
        for n_peepholes in [0, 3 * H] {
            let p = numbers(n_peepholes, 3);
            let peepholes = (n_peepholes > 0).then_some(&p[..]);
            let mut activated = gates.clone();
            let (mut c, mut h) = (vec![f32::NAN; N * H], vec![f32::NAN; N * H]);
            lstm_cell(H, &mut activated, peepholes, &c_before, &mut c, &mut h);
            let x = wide(&[gates.clone(), c_before.clone(), p.clone()].concat());
            close("c, h", &[c.clone(), h].concat(), &exact_lstm(&x), 1e-6);
            let (mut dgates, mut dc, mut dp) =
                (vec![f32::NAN; 4 * N * H], dy[..N * H].to_vec(), vec![0.0; n_peepholes]);
            let kept = LstmKept { gates: &activated, peepholes, c_before: &c_before, c: &c };
            let dpeepholes = (n_peepholes > 0).then_some(&mut dp[..]);
            lstm_cell_gradient(H, kept, &dy[N * H..], &mut dc, &mut dgates, dpeepholes);
            let expected = differences(&x, |x| dot(&exact_lstm(x), &dy));
            close("gradients", &[dgates, dc, dp].concat(), &expected, 1e-5);
        }
    }

    /// `h` of gates, what comes before and, with `linear_before_reset`, the recurrent part. Without, the hidden gate's
    /// recurrent weight is the number 2.
    fn exact_gru(x: &[f64], linear_before_reset: bool) -> Vec<f64> {
        let (gates, rest) = x.split_at(3 * N * H);
        let (before, recurrent) = rest.split_at(N * H);
        let gate = |idx: usize, at: usize| gates[(at / H * 3 + idx) * H + at % H];
        let output = |at: usize| {
            let (z, r) = (sigmoid(gate(0, at)), sigmoid(gate(1, at)));
            let inner = if linear_before_reset { r * recurrent[at] } else { 2.0 * r * before[at] };
            (1.0 - z) * (gate(2, at) + inner).tanh() + z * before[at]
        };
        (0..N * H).map(output).collect()
    }

    #[test]
    fn gru_with_reset_after_the_product() {
        let (gates, before, recurrent) = (numbers(3 * N * H, 1), numbers(N * H, 2), numbers(N * H, 3));
        let dh = numbers(N * H, 4);
        let mut activated = gates.clone();
        let mut h = vec![f32::NAN; N * H];
        gru_cell(H, &mut activated, &recurrent, &before, &mut h);
        let x = wide(&[gates, before.clone(), recurrent.clone()].concat());
        close("h", &h, &exact_gru(&x, true), 1e-6);
        let [mut dgates, mut dbefore, mut drecurrent] = [3, 1, 1].map(|times| vec![f32::NAN; times * N * H]);
        let kept = GruKept { gates: &activated, recurrent: &recurrent, h_before: &before };
        gru_cell_gradient(H, kept, &dh, &mut dgates, &mut drecurrent, &mut dbefore);
        let expected = differences(&x, |x| dot(&exact_gru(x, true), &dh));
        close("gradients", &[dgates, dbefore, drecurrent].concat(), &expected, 1e-5);
    }

    #[test]
    fn gru_with_reset_before_the_product() {
        let (gates, before, dh) = (numbers(3 * N * H, 1), numbers(N * H, 2), numbers(N * H, 4));
        let hidden_gate = |at: usize| (at / H * 3 + 2) * H + at % H;
        let mut activated = gates.clone();
        let (mut reset, mut h) = (vec![f32::NAN; N * H], vec![f32::NAN; N * H]);
        gru_reset(H, &mut activated, &before, &mut reset);
        (0..N * H).for_each(|at| activated[hidden_gate(at)] += 2.0 * reset[at]);
        gru_update(H, &mut activated, &before, &mut h);
        let x = wide(&[gates, before.clone()].concat());
        close("h", &h, &exact_gru(&x, false), 1e-6);
        let (mut dgates, mut dbefore) = (vec![f32::NAN; 3 * N * H], vec![f32::NAN; N * H]);
        gru_update_gradient(H, &activated, &before, &dh, &mut dgates, &mut dbefore);
        let dreset: Vec<f32> = (0..N * H).map(|at| 2.0 * dgates[hidden_gate(at)]).collect();
        gru_reset_gradient(H, &activated, &before, &dreset, &mut dgates, &mut dbefore);
        let expected = differences(&x, |x| dot(&exact_gru(x, false), &dh));
        close("gradients", &[dgates, dbefore].concat(), &expected, 1e-5);
    }
}
