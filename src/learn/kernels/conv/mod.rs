//! Convolution of planes, and its gradients.
//!
//! Neither direction copies an image's columns for each tap. Planes are padded and cut into the phases of the stride
//! (`planes`); then every tap sees a contiguous line, and blocks of channels by vectors of places are accumulated in
//! registers (`tile`).

mod correlate;
pub(crate) mod planes;
pub(crate) mod tile;
mod weight;

use rayon::prelude::*;

use self::correlate::Correlation;
use super::depthwise;
use super::window::ConvShape;

/// What is applied to each element as it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// The greater of the element and zero.
    Relu,
}

/// The convolution: `y[n, o, p] = activation(bias[o] + Σ_{c, k} weight[o, c, k] · x[n, c, p · stride + k · dilation − pad])`.
///
/// `x` is `[n, c_in, h, w]`, `weight` `[c_out, c_in / groups, kh, kw]`, `bias` `[c_out]`, `y` `[n, c_out, oh, ow]`.
pub fn forward(
    shape: &ConvShape,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    activation: Activation,
    y: &mut [f32],
) {
    check(shape, x.len(), weight.len(), y.len());
    assert!(bias.is_none_or(|bias| bias.len() == shape.channels()[1]), "one bias for each output channel");
    if shape.is_depthwise() {
        return depthwise::forward(shape, x, weight, bias, activation, y);
    }
    let (layout, sweep) = planes::forward(shape);
    let [from, to] = shape.group();
    let correlation = Correlation {
        n: shape.n(),
        groups: shape.groups(),
        from,
        to,
        weight_steps: [shape.window().n_taps(), shape.row()],
        n_source_plane: shape.input_plane(),
        n_destination_plane: shape.output_plane(),
        layout,
        sweeps: vec![sweep],
    };
    correlation.run(x, weight, bias, activation, y);
}

/// The gradient by the input, which is also the forward direction of a transposed convolution: `dy` is its input, `dx` its
/// output of any size, and `weight` `[c_in, c_out / groups, kh, kw]` in its own terms.
pub fn input_gradient(shape: &ConvShape, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    check(shape, dx.len(), weight.len(), dy.len());
    if shape.is_depthwise() {
        return depthwise::input_gradient(shape, dy, weight, dx);
    }
    let (layout, sweeps) = planes::backward(shape);
    let [to, from] = shape.group();
    let correlation = Correlation {
        n: shape.n(),
        groups: shape.groups(),
        from,
        to,
        weight_steps: [shape.row(), shape.window().n_taps()],
        n_source_plane: shape.output_plane(),
        n_destination_plane: shape.input_plane(),
        layout,
        sweeps,
    };
    correlation.run(dy, weight, None, Activation::None, dx);
}

/// The gradient by the weight, summed over the images.
pub fn weight_gradient(shape: &ConvShape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    check(shape, x.len(), dw.len(), dy.len());
    if shape.is_depthwise() {
        return depthwise::weight_gradient(shape, x, dy, dw);
    }
    weight::weight_gradient(shape, x, dy, dw);
}

/// The gradient by the bias: for each output channel the sum over images and places.
pub fn bias_gradient(shape: &ConvShape, dy: &[f32], db: &mut [f32]) {
    assert_eq!(dy.len(), shape.n_output(), "elements of the output");
    assert_eq!(db.len(), shape.channels()[1], "one bias for each output channel");
    let n_plane = shape.output_plane();
    db.par_iter_mut().enumerate().for_each(|(channel, db)| {
        let image = |image| &dy[(image * shape.channels()[1] + channel) * n_plane..][..n_plane];
        *db = pulp::Arch::new().dispatch(|| (0..shape.n()).map(|idx| sum(image(idx))).sum::<f64>()) as f32;
    });
}

/// A sum in lanes: its order is fixed, and it vectorizes.
#[inline(always)]
fn sum(values: &[f32]) -> f64 {
    const LANES: usize = 16;
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += value;
        }
    }
    lanes.iter().chain(rest).map(|&value| f64::from(value)).sum()
}

fn check(shape: &ConvShape, n_input: usize, n_weight: usize, n_output: usize) {
    assert_eq!(n_input, shape.n_input(), "elements of the input");
    assert_eq!(n_weight, shape.n_weight(), "elements of the weight");
    assert_eq!(n_output, shape.n_output(), "elements of the output");
}

#[cfg(test)]
mod tests;
