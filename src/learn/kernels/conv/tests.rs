//! Against plain loops in `f64` over the definition.

use super::super::checking::{Random, check_near};
use super::super::testing::on_any_pool;
use super::super::window::{ConvShape, Window};
use super::{Activation, bias_gradient, forward, input_gradient, weight_gradient};

/// What the definition gives: output before the activation, and the gradients by input and weight.
struct Expected {
    y: Vec<f64>,
    dx: Vec<f64>,
    dw: Vec<f64>,
}

fn expected(shape: &ConvShape, x: &[f32], weight: &[f32], bias: &[f32], dy: &[f32]) -> Expected {
    let ([c_in, c_out], [from, to], window) = (shape.channels(), shape.group(), shape.window());
    let ([h, w], [oh, ow], [kh, kw]) = (shape.input(), shape.output(), window.kernel);
    let mut all = Expected { y: vec![], dx: vec![0.0; x.len()], dw: vec![0.0; weight.len()] };
    for (n, o) in (0..shape.n()).flat_map(|n| (0..c_out).map(move |o| (n, o))) {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            let gradient = f64::from(dy[all.y.len()]);
            let mut sum = f64::from(bias[o]);
            for (c, tap) in (0..from).flat_map(|c| (0..kh * kw).map(move |tap| (c, tap))) {
                let at = |axis: usize, place: usize, tap: usize| {
                    (place * window.strides[axis] + tap * window.dilations[axis]).checked_sub(window.pads[axis][0])
                };
                let (Some(iy), Some(ix)) = (at(0, oy, tap / kw), at(1, ox, tap % kw)) else { continue };
                if iy < h && ix < w {
                    let x_idx = ((n * c_in + o / to * from + c) * h + iy) * w + ix;
                    let w_idx = (o * from + c) * kh * kw + tap;
                    sum += f64::from(x[x_idx]) * f64::from(weight[w_idx]);
                    all.dx[x_idx] += gradient * f64::from(weight[w_idx]);
                    all.dw[w_idx] += gradient * f64::from(x[x_idx]);
                }
            }
            all.y.push(sum);
        }
    }
    all
}

fn check(shape: &ConvShape) {
    let mut random = Random::new(3);
    let (x, weight, dy) =
        (random.normals(shape.n_input()), random.normals(shape.n_weight()), random.normals(shape.n_output()));
    let bias = random.normals(shape.channels()[1]);
    let Expected { y, dx, dw } = expected(shape, &x, &weight, &bias, &dy);
    let mut got = vec![f32::NAN; y.len()];
    forward(shape, &x, &weight, Some(&bias), Activation::None, &mut got);
    check_near(&got, &y, &("forward", shape));
    forward(shape, &x, &weight, Some(&bias), Activation::Relu, &mut got);
    check_near(&got, &y.iter().map(|value| value.max(0.0)).collect::<Vec<_>>(), &("relu", shape));
    let mut got = vec![f32::NAN; dx.len()];
    input_gradient(shape, &dy, &weight, &mut got);
    check_near(&got, &dx, &("input gradient", shape));
    let mut got = vec![f32::NAN; dw.len()];
    weight_gradient(shape, &x, &dy, &mut got);
    check_near(&got, &dw, &("weight gradient", shape));
    let mut got = vec![f32::NAN; bias.len()];
    bias_gradient(shape, &dy, &mut got);
    let n_plane = shape.output_plane().max(1);
    let mut sums = vec![0.0; bias.len()];
    let planes = dy.chunks(n_plane).map(|plane| plane.iter().map(|&value| f64::from(value)).sum::<f64>());
    planes.enumerate().for_each(|(idx, sum)| sums[idx % bias.len()] += sum);
    check_near(&got, &sums, &("bias gradient", shape));
}

fn window(kernel: usize, stride: usize, dilation: usize, pad: usize) -> Window {
    let (kernel, strides, dilations) = ([kernel; 2], [stride; 2], [dilation; 2]);
    Window { kernel, strides, dilations, pads: [[pad; 2]; 2] }
}

/// A shape whose output is as large as the window gives.
fn shape(n: usize, channels: [usize; 2], groups: usize, input: [usize; 2], window: Window) -> Option<ConvShape> {
    let mut output = [0; 2];
    for axis in 0..2 {
        let padded = input[axis] + window.pads[axis].iter().sum::<usize>();
        let room = padded.checked_sub((window.kernel[axis] - 1) * window.dilations[axis] + 1)?;
        output[axis] = room / window.strides[axis] + 1;
    }
    Some(ConvShape::new(n, channels, groups, input, output, window).expect("a sound shape"))
}

#[test]
fn the_shapes_of_common_networks() {
    for (n, channels, groups, input, window) in [
        (3, [3, 32], 1, [32, 32], window(3, 1, 1, 1)),
        (3, [1, 32], 1, [28, 28], window(3, 1, 1, 1)),
        (2, [32, 64], 1, [32, 32], window(3, 2, 1, 1)),
        (1, [64, 128], 1, [14, 14], window(3, 2, 1, 1)),
        (3, [16, 24], 1, [16, 16], window(1, 1, 1, 0)),
        (3, [16, 24], 1, [16, 16], window(1, 2, 1, 0)),
        (2, [3, 16], 1, [33, 33], window(7, 2, 1, 3)),
        (3, [24, 24], 24, [32, 32], window(3, 1, 1, 1)),
        (3, [24, 24], 24, [15, 15], window(3, 2, 1, 1)),
        (1, [8, 16], 8, [9, 9], window(3, 1, 1, 1)),
        (2, [160, 200], 1, [5, 5], window(3, 1, 1, 1)),
        (1, [16, 64], 1, [1, 70], Window { kernel: [1, 9], pads: [[0, 0], [4, 4]], ..Window::of([1, 9]) }),
    ] {
        check(&shape(n, channels, groups, input, window).expect("a sound shape"));
    }
}

#[test]
fn any_geometry() {
    let mut random = Random::new(5);
    let mut n_checked = 0;
    while n_checked < 150 {
        let mut pair = |least, most| [random.within(least, most), random.within(least, most)];
        let (kernel, strides, dilations, input) = (pair(1, 5), pair(1, 3), pair(1, 2), pair(1, 20));
        let window = Window { kernel, strides, dilations, pads: [pair(0, 4), pair(0, 4)] };
        let (groups, n) = (random.within(1, 3), random.within(1, 5));
        let channels = if random.within(0, 3) == 0 {
            [groups; 2]
        } else {
            [groups * random.within(1, 5), groups * random.within(1, 20)]
        };
        if let Some(shape) = shape(n, channels, groups, input, window) {
            check(&shape);
            n_checked += 1;
        }
    }
}

#[test]
fn input_and_output_of_sizes_that_do_not_fit() {
    // a transposed convolution's output padding, cropping, and places beyond the input
    for groups in [1, 4] {
        for (input, output) in
            [([9, 12], [4, 4]), ([3, 2], [4, 4]), ([8, 8], [1, 6]), ([0, 5], [2, 2]), ([5, 5], [0, 2])]
        {
            check(&ConvShape::new(2, [4, 4], groups, input, output, window(3, 2, 1, 1)).expect("a sound shape"));
            check(&ConvShape::new(2, [4, 4], groups, input, output, window(2, 3, 2, 4)).expect("a sound shape"));
        }
    }
    check(&ConvShape::new(0, [4, 4], 1, [3, 3], [3, 3], window(3, 1, 1, 1)).expect("a sound shape"));
}

#[test]
fn the_number_of_threads_does_not_matter() {
    for (n, groups, stride) in [(1, 1, 1), (5, 1, 2), (5, 2, 1), (9, 16, 2)] {
        let shape = shape(n, [16, 16], groups, [13, 11], window(3, stride, 1, 1)).expect("a sound shape");
        let mut random = Random::new(9);
        let (x, weight) = (random.normals(shape.n_input()), random.normals(shape.n_weight()));
        on_any_pool(|| {
            let (mut y, mut dx, mut dw) = (vec![0.0; shape.n_output()], x.clone(), weight.clone());
            forward(&shape, &x, &weight, None, Activation::Relu, &mut y);
            input_gradient(&shape, &y, &weight, &mut dx);
            weight_gradient(&shape, &dx, &y, &mut dw);
            [y, dx, dw].concat()
        });
    }
}
