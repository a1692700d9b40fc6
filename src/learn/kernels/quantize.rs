//! Fake quantization: numbers rounded to those that narrow integers stand for, and what its gradients are made of.

#![allow(unsafe_code)]

use super::parallel::{Parts, for_ranges, simd};

/// Integers that stand for numbers: `(integer − zero point) · scale`.
#[derive(Clone, Copy, Debug)]
pub struct Quantization<'a> {
    /// Above zero: one for all, or one for each position along an axis.
    pub scale: &'a [f32],
    /// Integers, as many as there are scales.
    pub zero_point: &'a [f32],
    /// How many neighbouring elements have the same position along the axis.
    pub inner: usize,
    /// The least and the greatest integer, of at most 16 bits.
    pub range: (f32, f32),
}

/// The cost of one element, in cheap operations.
const COST: usize = 4;

/// `y = (clamp(round(x / scale) + zero point) − zero point) · scale`, rounded half to even; NaN becomes the least integer.
///
/// # Panics
/// When slices differ in length, or the axis does not divide them, as every function here.
pub fn fake_quantize(quantization: Quantization<'_>, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "as many outputs as inputs");
    quantization.for_segments(y, |start, y, steps| {
        y.copy_from_slice(&x[start..start + y.len()]);
        forward(quantization.range, steps, y);
    });
}

/// [`fake_quantize`] where `y` holds `x` before.
pub fn fake_quantize_in_place(quantization: Quantization<'_>, y: &mut [f32]) {
    quantization.for_segments(y, |_, y, steps| forward(quantization.range, steps, y));
}

/// `dx = dy` where `x / scale` lies in the range of the integers, the bounds included, and 0 where it saturates: the
/// straight-through estimator of Bengio, Léonard and Courville, "Estimating or Propagating Gradients Through Stochastic Neurons for
/// Conditional Computation" (2013), section 4, clipped as in Jacob et al., "Quantization and Training of Neural Networks
/// for Efficient Integer-Arithmetic-Only Inference" (2018), section 3.
pub fn input_gradient(quantization: Quantization<'_>, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    with_gradient(quantization, [x, dy], dx, passes);
}

/// [`input_gradient`] where `dx` holds `dy` before.
pub fn input_gradient_in_place(quantization: Quantization<'_>, x: &[f32], dx: &mut [f32]) {
    with_gradient_in_place(quantization, x, dx, passes);
}

/// What each element adds to the gradient of its scale, `d = dy · term`, with `v = x / scale`: the term is `round(v) − v` in the range, and
/// where `x` saturates the least or the greatest integer without the zero point. Esser et al., "Learned Step Size
/// Quantization" (2020), equation 3.
pub fn scale_gradient(quantization: Quantization<'_>, x: &[f32], dy: &[f32], d: &mut [f32]) {
    with_gradient(quantization, [x, dy], d, scale_term);
}

/// [`scale_gradient`] where `d` holds `dy` before.
pub fn scale_gradient_in_place(quantization: Quantization<'_>, x: &[f32], d: &mut [f32]) {
    with_gradient_in_place(quantization, x, d, scale_term);
}

#[inline(always)]
fn with_gradient(
    quantization: Quantization<'_>,
    [x, dy]: [&[f32]; 2],
    d: &mut [f32],
    factor: impl Fn(f32, f32, (f32, f32)) -> f32 + Sync,
) {
    assert_eq!((x.len(), dy.len()), (d.len(), d.len()), "as many gradients as elements");
    quantization.for_segments(
        d,
        #[inline(always)]
        |start, d, steps| {
            let range = start..start + d.len();
            d.copy_from_slice(&dy[range.clone()]);
            scale_by(quantization.range, steps, &x[range], d, &factor);
        },
    );
}

#[inline(always)]
fn with_gradient_in_place(
    quantization: Quantization<'_>,
    x: &[f32],
    d: &mut [f32],
    factor: impl Fn(f32, f32, (f32, f32)) -> f32 + Sync,
) {
    assert_eq!(x.len(), d.len(), "as many gradients as elements");
    quantization.for_segments(
        d,
        #[inline(always)]
        |start, d, steps| scale_by(quantization.range, steps, &x[start..start + d.len()], d, &factor),
    );
}

/// Scales and zero points of neighbouring elements.
#[derive(Clone, Copy)]
enum Steps<'a> {
    /// The same for all.
    One(f32, f32),
    /// Of each its own.
    Each(&'a [f32], &'a [f32]),
}

impl<'a> Quantization<'a> {
    /// Calls `work` with neighbouring elements: where they begin, themselves, and how they are quantized.
    #[inline(always)]
    fn for_segments(&self, y: &mut [f32], work: impl Fn(usize, &mut [f32], Steps<'a>) + Sync) {
        assert_eq!(self.scale.len(), self.zero_point.len(), "as many zero points as scales");
        assert!(
            y.is_empty() || y.len().is_multiple_of(self.scale.len() * self.inner),
            "every position along the axis has as many elements"
        );
        let parts = Parts::new(y);
        for_ranges(parts.len(), COST, |range| {
            // SAFETY: ranges of different pieces are disjoint.
            let piece = unsafe { parts.part(range.clone()) };
            simd(
                #[inline(always)]
                || self.walk(range.start, piece, &work),
            );
        });
    }

    #[inline(always)]
    fn walk(&self, mut start: usize, mut piece: &mut [f32], work: impl Fn(usize, &mut [f32], Steps<'a>)) {
        let n_scales = self.scale.len();
        while !piece.is_empty() {
            let (length, steps) = if self.inner == 1 {
                let first = start % n_scales;
                (n_scales - first, Steps::Each(&self.scale[first..], &self.zero_point[first..]))
            } else {
                let position = start / self.inner % n_scales;
                (self.inner - start % self.inner, Steps::One(self.scale[position], self.zero_point[position]))
            };
            let (segment, rest) = piece.split_at_mut(length.min(piece.len()));
            let n_elements = segment.len();
            work(start, segment, steps);
            start += n_elements;
            piece = rest;
        }
    }
}

#[inline(always)]
fn forward(range: (f32, f32), steps: Steps<'_>, y: &mut [f32]) {
    match steps {
        Steps::One(scale, zero_point) => {
            for y in y {
                *y = rounded(*y / scale, zero_point, range) * scale;
            }
        }
        Steps::Each(scale, zero_point) => {
            for ((y, &scale), &zero_point) in y.iter_mut().zip(scale).zip(zero_point) {
                *y = rounded(*y / scale, zero_point, range) * scale;
            }
        }
    }
}

/// `d *= factor(x / scale, zero point, range)`
#[inline(always)]
fn scale_by(
    range: (f32, f32),
    steps: Steps<'_>,
    x: &[f32],
    d: &mut [f32],
    factor: impl Fn(f32, f32, (f32, f32)) -> f32,
) {
    match steps {
        Steps::One(scale, zero_point) => {
            for (d, &x) in d.iter_mut().zip(x) {
                *d *= factor(x / scale, zero_point, range);
            }
        }
        Steps::Each(scale, zero_point) => {
            for (((d, &x), &scale), &zero_point) in d.iter_mut().zip(x).zip(scale).zip(zero_point) {
                *d *= factor(x / scale, zero_point, range);
            }
        }
    }
}

/// The integer that a quotient becomes, without the zero point.
#[inline(always)]
fn rounded(quotient: f32, zero_point: f32, (least, greatest): (f32, f32)) -> f32 {
    let integer = quotient.round_ties_even() + zero_point;
    // NaN is not above the least
    let integer = if integer > least { integer } else { least };
    let integer = if integer < greatest { integer } else { greatest };
    integer - zero_point
}

#[inline(always)]
fn passes(quotient: f32, zero_point: f32, (least, greatest): (f32, f32)) -> f32 {
    if quotient >= least - zero_point && quotient <= greatest - zero_point { 1.0 } else { 0.0 }
}

#[inline(always)]
fn scale_term(quotient: f32, zero_point: f32, (least, greatest): (f32, f32)) -> f32 {
    let (low, high) = (least - zero_point, greatest - zero_point);
    // NaN is the least integer
    let at_most = if quotient >= low { quotient.round_ties_even() - quotient } else { low };
    if quotient > high { high } else { at_most }
}

#[cfg(test)]
mod tests {
    //! Against plain loops in `f64`, with quotients as `f32` has them.

    use super::super::testing::{close, numbers, on_any_pool};
    use super::*;

    struct Expected {
        y: Vec<f64>,
        dx: Vec<f64>,
        terms: Vec<f64>,
    }

    fn expected(x: &[f32], dy: &[f32], quantization: Quantization<'_>) -> Expected {
        let (least, greatest) = (f64::from(quantization.range.0), f64::from(quantization.range.1));
        let mut all = Expected { y: Vec::new(), dx: Vec::new(), terms: Vec::new() };
        for (idx, (&x, &dy)) in x.iter().zip(dy).enumerate() {
            let position = idx / quantization.inner % quantization.scale.len();
            let (scale, zero) = (quantization.scale[position], f64::from(quantization.zero_point[position]));
            let (v, dy) = (f64::from(x / scale), f64::from(dy));
            let integer = (v.round_ties_even() + zero).clamp(least, greatest);
            all.y.push((integer - zero) * f64::from(scale));
            let (dx, term) = if v + zero < least {
                (0.0, least - zero)
            } else if v + zero > greatest {
                (0.0, greatest - zero)
            } else {
                (dy, v.round_ties_even() - v)
            };
            all.dx.push(dx);
            all.terms.push(dy * term);
        }
        all
    }

    #[track_caller]
    fn check(n: usize, n_scales: usize, inner: usize, range: (f32, f32)) {
        let scale: Vec<f32> = numbers(n_scales, 3).iter().map(|x| 0.02 + 0.01 * x).collect();
        let middle = f32::midpoint(range.0, range.1);
        let zero_point: Vec<f32> = numbers(n_scales, 4).iter().map(|x| (middle + 3.0 * x).round()).collect();
        let quantization = Quantization { scale: &scale, zero_point: &zero_point, inner, range };
        // about a third saturates
        let reach = (range.1 - range.0) * 0.02 * 0.75;
        let x: Vec<f32> = numbers(n, 1).iter().map(|x| x * reach).collect();
        let dy = numbers(n, 2);
        let what = format!("{n} elements, {n_scales} scales, {inner} neighbours, {range:?}");
        let expected = expected(&x, &dy, quantization);
        type Out<'a> = &'a (dyn Fn(&mut [f32]) + Sync);
        let check = |kind: &str, expected: &[f64], apart: Out<'_>, before: &[f32], in_place: Out<'_>| {
            let found = on_any_pool(|| {
                let mut found = vec![f32::NAN; n];
                apart(&mut found);
                found
            });
            close(&format!("{kind} of {what}"), &found, expected, 1e-6);
            let mut same = before.to_vec();
            in_place(&mut same);
            assert_eq!(found, same, "{kind} of {what}");
        };
        check("y", &expected.y, &|y| fake_quantize(quantization, &x, y), &x, &|y| {
            fake_quantize_in_place(quantization, y);
        });
        check("dx", &expected.dx, &|d| input_gradient(quantization, &x, &dy, d), &dy, &|d| {
            input_gradient_in_place(quantization, &x, d);
        });
        check("terms", &expected.terms, &|d| scale_gradient(quantization, &x, &dy, d), &dy, &|d| {
            scale_gradient_in_place(quantization, &x, d);
        });
    }

    #[test]
    fn values_and_gradients() {
        for range in [(-128.0, 127.0), (0.0, 255.0), (0.0, 3.0), (-32768.0, 32767.0)] {
            check(200_000, 1, 200_000, range);
            check(1, 1, 1, range);
            check(0, 4, 0, range);
            check(50_000 * 5, 5, 1, range);
            check(2 * 7 * 9999, 7, 9999, range);
            check(3 * 16 * 9, 16, 9, range);
        }
    }

    #[test]
    fn edges() {
        let one = |zero_point: f32, range| {
            move |x: f32| {
                let quantization = Quantization { scale: &[0.5], zero_point: &[zero_point], inner: 1, range };
                let mut y = [x];
                fake_quantize_in_place(quantization, &mut y);
                let (mut dx, mut term) = ([1.0], [1.0]);
                input_gradient_in_place(quantization, &[x], &mut dx);
                scale_gradient_in_place(quantization, &[x], &mut term);
                [y[0], dx[0], term[0]]
            }
        };
        let signed = one(0.0, (-8.0, 7.0));
        // halves to even
        assert_eq!([0.25, 0.75, 1.25, -0.25, -0.75].map(|x| signed(x)[0]), [0.0, 1.0, 1.0, 0.0, -1.0]);
        assert_eq!(signed(0.75), [1.0, 1.0, 0.5]);
        // the bounds are in the range, what would be rounded to them is not
        assert_eq!([signed(3.5), signed(-4.0)], [[3.5, 1.0, 0.0], [-4.0, 1.0, 0.0]]);
        assert_eq!([signed(3.6), signed(-4.1)], [[3.5, 0.0, 7.0], [-4.0, 0.0, -8.0]]);
        assert_eq!([signed(f32::INFINITY), signed(f32::NEG_INFINITY)], [[3.5, 0.0, 7.0], [-4.0, 0.0, -8.0]]);
        assert_eq!(signed(f32::NAN), [-4.0, 0.0, -8.0]);
        assert_eq!(signed(-0.1)[0].to_bits(), 0);
        let unsigned = one(3.0, (0.0, 15.0));
        assert_eq!([unsigned(-9.0), unsigned(9.0)], [[-1.5, 0.0, -3.0], [6.0, 0.0, 12.0]]);
    }
}
