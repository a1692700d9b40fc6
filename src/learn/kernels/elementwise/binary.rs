//! Functions of two numbers with ONNX's broadcasting, their derivatives, and sums in place.

#![allow(unsafe_code)]

use super::super::math;
use super::super::parallel::{Parts, for_ranges, larger, simd, smaller};
use super::super::strided::{Walk, broadcast, broadcast_shape, contiguous};

/// A function of two numbers, as ONNX defines the operator of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are ONNX's
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Max,
    Min,
    /// The first where it is not negative, else times the second.
    PRelu,
}

/// One of the two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first.
    Left,
    /// The second.
    Right,
}

/// `y = binary(a, b)`, where `y` has the shape that the two shapes broadcast to.
///
/// # Panics
/// When shapes do not broadcast or lengths are not those of the shapes, as [`binary_gradient`].
#[rustfmt::skip] // a line a function
pub fn binary(binary: Binary, a: &[f32], a_shape: &[usize], b: &[f32], b_shape: &[usize], y: &mut [f32]) {
    let pair = Pair::new(a, a_shape, b, b_shape, y.len());
    match binary {
        Binary::Add => pair.map(y, #[inline(always)] |a, b| a + b),
        Binary::Sub => pair.map(y, #[inline(always)] |a, b| a - b),
        Binary::Mul => pair.map(y, #[inline(always)] |a, b| a * b),
        Binary::Div => pair.map(y, #[inline(always)] |a, b| a / b),
        Binary::Pow => pair.map(y, libm::powf),
        Binary::Max => pair.map(y, larger),
        Binary::Min => pair.map(y, smaller),
        Binary::PRelu => pair.map(y, #[inline(always)] |a, b| if a < 0.0 { a * b } else { a }),
    }
}

/// `d = dy · ∂binary/∂side`, of the shape of `dy`; where the operand was broadcast, `reduce::sum_to` brings it back to
/// the operand's shape. Where Max and Min tie, each operand has half; `PRelu` at 0 has the slope.
#[rustfmt::skip] // a line a function
pub fn binary_gradient(
    binary: Binary, side: Side, (a, a_shape): (&[f32], &[usize]), (b, b_shape): (&[f32], &[usize]), dy: &[f32],
    d: &mut [f32],
) {
    assert_eq!(dy.len(), d.len(), "as many gradients as elements");
    d.copy_from_slice(dy);
    if matches!((binary, side), (Binary::Add, _) | (Binary::Sub, Side::Left)) {
        return;
    }
    let pair = Pair::new(a, a_shape, b, b_shape, dy.len());
    match (binary, side) {
        (Binary::Add, _) | (Binary::Sub, Side::Left) => (),
        (Binary::Sub, Side::Right) => pair.scale(d, #[inline(always)] |_, _| -1.0),
        (Binary::Mul, Side::Left) => pair.scale(d, #[inline(always)] |_, b| b),
        (Binary::Mul, Side::Right) => pair.scale(d, #[inline(always)] |a, _| a),
        (Binary::Div, Side::Left) => pair.scale(d, #[inline(always)] |_, b| 1.0 / b),
        (Binary::Div, Side::Right) => pair.scale(d, #[inline(always)] |a, b| -a / (b * b)),
        (Binary::Pow, Side::Left) => pair.scale(d, |a, b| if b == 0.0 { 0.0 } else { b * libm::powf(a, b - 1.0) }),
        (Binary::Pow, Side::Right) => {
            pair.scale(d, |a, b| if a == 0.0 && b >= 0.0 { 0.0 } else { libm::powf(a, b) * math::log(a) });
        }
        (Binary::Max, Side::Left) | (Binary::Min, Side::Right) => pair.scale(d, share),
        (Binary::Max, Side::Right) | (Binary::Min, Side::Left) => pair.scale(d, #[inline(always)] |a, b| share(b, a)),
        (Binary::PRelu, Side::Left) => pair.scale(d, #[inline(always)] |a, b| if a > 0.0 { 1.0 } else { b }),
        (Binary::PRelu, Side::Right) => pair.scale(d, #[inline(always)] |a, _| if a < 0.0 { a } else { 0.0 }),
    }
}

/// `y += x`
pub fn add_assign(x: &[f32], y: &mut [f32]) {
    scale_add(1.0, x, y);
}

/// `y += scale · x`
pub fn scale_add(scale: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "as many terms as sums");
    let parts = Parts::new(y);
    for_ranges(x.len(), 1, |range| {
        // SAFETY: ranges of different pieces are disjoint.
        let y = unsafe { parts.part(range.clone()) };
        let x = &x[range];
        simd(
            #[inline(always)]
            || y.iter_mut().zip(x).for_each(|(y, x)| *y += scale * x),
        );
    });
}

/// How much of the larger of two the first is.
#[inline(always)]
fn share(a: f32, b: f32) -> f32 {
    let at_most_half = if a == b { 0.5 } else { 0.0 };
    if a > b { 1.0 } else { at_most_half }
}

/// Two operands walked along the shape that they broadcast to.
struct Pair<'a> {
    a: &'a [f32],
    b: &'a [f32],
    walk: Walk<2>,
}

impl<'a> Pair<'a> {
    fn new(a: &'a [f32], a_shape: &[usize], b: &'a [f32], b_shape: &[usize], n_elements: usize) -> Self {
        let product = |shape: &[usize]| shape.iter().product::<usize>();
        assert_eq!((a.len(), b.len()), (product(a_shape), product(b_shape)), "operands have their shapes");
        let walk = if a_shape == b_shape {
            let strides = contiguous(a_shape);
            Walk::new(a_shape, [&strides, &strides])
        } else {
            let shape = broadcast_shape(a_shape, b_shape);
            Walk::new(&shape, [&broadcast(a_shape, &shape), &broadcast(b_shape, &shape)])
        };
        assert_eq!(walk.n_elements(), n_elements, "the result has the shape that the operands broadcast to");
        Pair { a, b, walk }
    }

    /// `y = function(a, b)`
    #[inline(always)]
    fn map(&self, y: &mut [f32], function: impl Fn(f32, f32) -> f32 + Sync) {
        self.update(
            y,
            #[inline(always)]
            |y, a, b| *y = function(a, b),
        );
    }

    /// `y *= function(a, b)`
    #[inline(always)]
    fn scale(&self, y: &mut [f32], function: impl Fn(f32, f32) -> f32 + Sync) {
        self.update(
            y,
            #[inline(always)]
            |y, a, b| *y *= function(a, b),
        );
    }

    #[inline(always)]
    fn update(&self, y: &mut [f32], function: impl Fn(&mut f32, f32, f32) + Sync) {
        let parts = Parts::new(y);
        for_ranges(self.walk.n_elements(), 1, |range| {
            // SAFETY: ranges of different pieces are disjoint.
            let piece = unsafe { parts.part(range.clone()) };
            simd(
                #[inline(always)]
                || {
                    self.walk.segments(
                        range.clone(),
                        #[inline(always)]
                        |start, len, offsets, strides| {
                            let y = &mut piece[start - range.start..][..len];
                            let (a, b) = (&self.a[offsets[0].cast_unsigned()..], &self.b[offsets[1].cast_unsigned()..]);
                            update_row(y, a, b, strides, &function);
                        },
                    );
                },
            );
        });
    }
}

#[inline(always)]
fn update_row(y: &mut [f32], a: &[f32], b: &[f32], strides: [isize; 2], function: impl Fn(&mut f32, f32, f32)) {
    match strides {
        [1, 1] => y.iter_mut().zip(a).zip(b).for_each(|((y, &a), &b)| function(y, a, b)),
        [1, 0] => {
            let b = b[0];
            y.iter_mut().zip(a).for_each(|(y, &a)| function(y, a, b));
        }
        [0, 1] => {
            let a = a[0];
            y.iter_mut().zip(b).for_each(|(y, &b)| function(y, a, b));
        }
        [a_stride, b_stride] => {
            let [a_stride, b_stride] = [a_stride.cast_unsigned(), b_stride.cast_unsigned()];
            for (idx, y) in y.iter_mut().enumerate() {
                function(y, a[idx * a_stride], b[idx * b_stride]);
            }
        }
    }
}
