//! The convolution kernels on the layers of small networks, each pass against columns copied for every tap and one matrix
//! product an image (the usual `im2col`, forward only), on two threads.
//!
//! Medians in milliseconds, and billions of operations a second.

#![allow(clippy::print_stdout, unsafe_code)] // figures are what a bench is for; the product is a foreign function

use std::time::{Duration, Instant};

use aludel::learn::kernels::conv::{self, Activation};
use aludel::learn::kernels::window::{ConvShape, Window};
use rayon::prelude::*;

const BUDGET: Duration = Duration::from_millis(600);

fn main() {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(2).build_global();
    threads.expect("the pool is not built yet");
    println!("{:28} {:>16} {:>16} {:>16} {:>9} {:>10}", "layer", "forward", "input", "weight", "bias", "im2col/own");
    for (name, n, channels, groups, size, kernel, stride) in [
        ("28x28 1-32", 64, [1, 32], 1, 28, 3, 1),
        ("28x28 32-64 stride 2", 64, [32, 64], 1, 28, 3, 2),
        ("14x14 64-128 stride 2", 64, [64, 128], 1, 14, 3, 2),
        ("32x32 3-32", 64, [3, 32], 1, 32, 3, 1),
        ("32x32 32-64 stride 2", 64, [32, 64], 1, 32, 3, 2),
        ("16x16 64-128 stride 2", 64, [64, 128], 1, 16, 3, 2),
        ("32x32 64 depthwise", 32, [64, 64], 64, 32, 3, 1),
        ("32x32 64 depthwise stride 2", 32, [64, 64], 64, 32, 3, 2),
        ("32x32 64-64 1x1", 32, [64, 64], 1, 32, 1, 1),
        ("32x32 64-64", 16, [64, 64], 1, 32, 3, 1),
        ("8x8 256-256", 16, [256, 256], 1, 8, 3, 1),
    ] {
        let window =
            Window { kernel: [kernel; 2], strides: [stride; 2], dilations: [1; 2], pads: [[kernel / 2; 2]; 2] };
        let output = (size + kernel / 2 * 2 - kernel) / stride + 1;
        let shape = ConvShape::new(n, channels, groups, [size; 2], [output; 2], window).expect("a sound shape");
        row(name, &shape);
    }
}

fn row(name: &str, shape: &ConvShape) {
    let (x, weight, dy) = (numbers(shape.n_input()), numbers(shape.n_weight()), numbers(shape.n_output()));
    let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), weight.clone());
    let mut db = vec![0.0; shape.channels()[1]];
    let forward = median_ms(|| conv::forward(shape, &x, &weight, None, Activation::None, &mut y));
    let input = median_ms(|| conv::input_gradient(shape, &dy, &weight, &mut dx));
    let by_weight = median_ms(|| conv::weight_gradient(shape, &x, &dy, &mut dw));
    let bias = median_ms(|| conv::bias_gradient(shape, &dy, &mut db));
    let ratio = (shape.groups() == 1).then(|| {
        let mut columns = vec![0.0; y.len()];
        let naive = median_ms(|| by_columns(shape, &x, &weight, &mut columns));
        let off = y.iter().zip(&columns).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
        assert!(off < 1e-3, "{name}: the two differ by {off}");
        naive / forward
    });
    let rate = |ms: f64| format!("{ms:7.2} ({:5.1})", shape.n_flops() as f64 / 1e6 / ms);
    let ratio = ratio.map_or("-".to_string(), |ratio| format!("{ratio:.2}"));
    println!("{name:28} {:>16} {:>16} {:>16} {bias:9.2} {ratio:>10}", rate(forward), rate(input), rate(by_weight));
}

/// `[n, c_in, h, w]` into columns `[c_in · taps, places]` of each image, and a product with the weight.
fn by_columns(shape: &ConvShape, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let ([c_in, c_out], [h, w], [oh, ow]) = (shape.channels(), shape.input(), shape.output());
    let window = shape.window();
    let (taps, places) = (window.kernel[0] * window.kernel[1], oh * ow);
    let place = |axis: usize, o: usize, k: usize| {
        (o * window.strides[axis] + k * window.dilations[axis]).wrapping_sub(window.pads[axis][0])
    };
    y.par_chunks_mut(c_out * places).zip(x.par_chunks(c_in * h * w)).for_each_init(
        || vec![0f32; c_in * taps * places],
        |columns, (y, x)| {
            for (row, column) in columns.chunks_mut(places).enumerate() {
                let (plane, tap) = (&x[row / taps * h * w..][..h * w], row % taps);
                for (oy, line) in column.chunks_mut(ow).enumerate() {
                    let iy = place(0, oy, tap / window.kernel[1]);
                    for (ox, value) in line.iter_mut().enumerate() {
                        let ix = place(1, ox, tap % window.kernel[1]);
                        *value = if iy < h && ix < w { plane[iy * w + ix] } else { 0.0 };
                    }
                }
            }
            let depth = c_in * taps;
            let (a, b) = (weight.as_ptr(), columns.as_ptr());
            let (places_step, depth_step) = (places as isize, depth as isize);
            // SAFETY: weight is [c_out, depth], columns [depth, places], y [c_out, places], all contiguous.
            unsafe {
                gemm::gemm(
                    c_out,
                    places,
                    depth,
                    y.as_mut_ptr(),
                    1,
                    places_step,
                    false,
                    a,
                    1,
                    depth_step,
                    b,
                    1,
                    places_step,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        },
    );
}

fn median_ms(mut work: impl FnMut()) -> f64 {
    work();
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < BUDGET || times.len() < 7 {
        let from = Instant::now();
        work();
        times.push(from.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn numbers(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}
