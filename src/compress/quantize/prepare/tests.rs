//! What the steps keep, change and decline, and what they win where quantization by tensor fails.

use indexmap::IndexMap;
use proptest::prelude::*;

use super::*;
use crate::compress::observe::channels::{ChannelStatistics, measure};
use crate::compress::quantize::scheme::Scheme;
use crate::compress::quantize::tests::{Reference, difference, inputs, outputs, planned, wave};
use crate::compress::quantize::{Calibrator, Plan, QuantizeError, calibrate, insert, plan, scales};
use crate::graph::op::{self, Op};
use crate::graph::shape::{self, Bindings, Types};
use crate::graph::structure::random_graphs;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, TensorType, eval, simplify};

const PHASES: [f32; 3] = [0.1, 0.4, 1.9];

fn types(graph: &Graph) -> Types {
    shape::infer(graph, &Bindings::default()).expect("types fit")
}

/// The channels of these values over three batches.
fn seen(graph: &Graph, values: &IndexMap<Name, usize>) -> IndexMap<Name, ChannelStatistics> {
    if values.is_empty() {
        return IndexMap::new();
    }
    let batches = PHASES.map(|phase| Ok::<_, QuantizeError>(inputs(graph, phase)));
    let names = values.keys().cloned().collect();
    measure(&mut Reference(graph.clone(), names), values, batches, |_| ()).expect("it runs")
}

fn equalized(graph: &Graph) -> Prepared {
    equalize(graph, &types(graph)).expect("it fits")
}

fn absorbed(graph: &Graph) -> Prepared {
    let types = types(graph);
    absorb_high_bias(graph, &types, &seen(graph, &absorb_values(graph, &types))).expect("it fits")
}

fn smoothed(graph: &Graph) -> Prepared {
    let types = types(graph);
    smooth(graph, &types, &seen(graph, &smooth_values(graph, &types)), 0.5).expect("it fits")
}

/// Quantized by the reference's ranges; with its biases corrected or not.
fn quantized(graph: &Graph, scheme: &str, corrects: bool) -> (Graph, Vec<Declined>) {
    let plan = planned(graph, scheme).expect("it has products");
    quantized_by(graph, &plan, corrects)
}

fn quantized_by(graph: &Graph, plan: &Plan, corrects: bool) -> (Graph, Vec<Declined>) {
    let values: Vec<Name> = plan.values.keys().cloned().collect();
    let batches = PHASES.map(|phase| Ok::<_, QuantizeError>(inputs(graph, phase)));
    let ranges = calibrate(&mut Reference(graph.clone(), values.clone()), &values, false, batches, |_| ());
    let bounds = ranges.and_then(|ranges| ranges.bounds(&plan.values, Calibrator::MinMax)).expect("calibrated");
    let scales = scales(graph, plan, &bounds).expect("every value has a range");
    if !corrects {
        return (insert(graph, plan, &scales).expect("inserted"), Vec::new());
    }
    let types = types(graph);
    let seen = seen(graph, &correct_values(graph, &types, plan));
    let corrected = correct_biases(graph, &types, plan, &scales, &seen).expect("corrected");
    (insert(&corrected.graph, &corrected.plan, &scales).expect("inserted"), corrected.declined)
}

/// The signal of the outputs over what `other` adds to it, in decibels.
fn signal_to_noise_db(graph: &Graph, other: &Graph) -> f64 {
    let (mut signal, mut noise) = (0.0, 1e-30);
    for phase in PHASES {
        for (a, b) in outputs(graph, phase).into_iter().zip(outputs(other, phase)) {
            let (a, b) = (f64::from(a), f64::from(b));
            signal += a * a;
            noise += (a - b) * (a - b);
        }
    }
    10.0 * (signal / noise).log10()
}

/// Numbers around nothing in particular, of any sign, with a factor for each slice of the first axis.
fn uneven(shape: &[usize], phase: f32, spread: f32) -> Tensor {
    let n_inner: usize = shape[1..].iter().product();
    let numbers = wave(shape, phase);
    let numbers = numbers.as_slice::<f32>().expect("floats").iter().enumerate();
    let factor = |row: usize| (spread * (row as f32 * 2.3 + phase).sin()).exp();
    Tensor::new(shape, numbers.map(|(k, x)| x * factor(k / n_inner)).collect()).expect("as many")
}

struct Net(GraphBuilder, f32);

impl Net {
    fn new(shape: &[usize]) -> (Net, Name) {
        let mut builder = GraphBuilder::new("net");
        let dims = std::iter::once(Dim::from("batch")).chain(shape.iter().map(|&size| size.into()));
        let x = builder.input("x", TensorType::new(DType::F32, dims.collect::<Vec<Dim>>()));
        (Net(builder, 0.0), x)
    }

    fn constant(&mut self, shape: &[usize], spread: f32) -> Name {
        self.1 += 0.7;
        self.0.initializer("w", uneven(shape, self.1, spread))
    }

    /// `to` channels of `from` in groups, by a square kernel, with a bias.
    fn conv(&mut self, x: &Name, to: usize, from: usize, groups: usize, kernel: usize, pad: i64) -> Name {
        let weight = self.constant(&[to, from / groups, kernel, kernel], 1.5);
        let bias = self.constant(&[to], 0.5);
        let group = i64::try_from(groups).expect("few");
        self.0.node(Op::Conv(op::Conv { group, pads: vec![pad; 4], ..op::Conv::default() }), &[x, &weight, &bias])
    }

    fn node(&mut self, op: Op, inputs: &[&Name]) -> Name {
        self.0.node(op, inputs)
    }

    fn finish(mut self, y: &Name) -> Graph {
        self.0.output(y);
        self.0.finish().expect("a graph")
    }
}

fn check(graph: &Graph, step: fn(&Graph) -> Prepared, done: &[&str], declined: &[&str]) -> Graph {
    let prepared = step(graph);
    prepared.graph.check().expect("a graph");
    let moved = difference(graph, &prepared.graph);
    assert!(moved < 1e-4, "{moved}\n{}", crate::graph::show::show(&prepared.graph));
    assert_eq!(prepared.done, done);
    let reasons: Vec<String> = prepared.declined.iter().map(|it| format!("{}: {}", it.node, it.reason)).collect();
    assert_eq!(reasons, declined);
    prepared.graph
}

/// The greatest magnitudes along an axis of a constant.
fn magnitudes(graph: &Graph, name: &str, axis: usize) -> Vec<f32> {
    let tensor = &graph.initializers[name];
    let n_inner: usize = tensor.shape()[axis + 1..].iter().product();
    let mut greatest = vec![0f32; tensor.shape()[axis]];
    for (k, x) in tensor.as_slice::<f32>().expect("floats").iter().enumerate() {
        let channel = &mut greatest[k / n_inner % tensor.shape()[axis]];
        *channel = channel.max(x.abs());
    }
    greatest
}

/// Convolution, depthwise, pooling, pointwise, flattening, classifier.
fn chain() -> Graph {
    let (mut net, x) = Net::new(&[2, 6, 6]);
    let y = net.conv(&x, 4, 2, 1, 3, 1);
    let y = net.node(Op::Relu, &[&y]);
    let y = net.conv(&y, 4, 4, 4, 3, 1);
    let y = net.node(Op::LeakyRelu(op::LeakyRelu { alpha: 0.1 }), &[&y]);
    let pool = op::MaxPool { kernel_shape: vec![2, 2], strides: vec![2, 2], ..random_graphs::max_pool() };
    let y = net.node(Op::MaxPool(pool), &[&y]);
    let y = net.conv(&y, 6, 4, 2, 1, 0);
    let y = net.node(Op::Relu, &[&y]);
    let y = net.node(Op::Flatten(op::Flatten::default()), &[&y]);
    let weight = net.constant(&[3, 54], 0.5);
    let y = net.node(Op::Gemm(op::Gemm { trans_b: true, ..op::Gemm::default() }), &[&y, &weight]);
    net.finish(&y)
}

#[test]
fn equalized_products_have_one_range_by_channel() {
    let graph = check(&chain(), equalized, &["Conv `conv`", "Conv `conv_2`", "Conv `conv_3`"], &[]);
    // Weight `w_3` is the depthwise one: what makes a channel and what reads it is one slice.
    for (made, (read, axis)) in [("w", ("w_3", 0)), ("w_3", ("w_5", 1))] {
        let (made, mut read) = (magnitudes(&graph, made, 0), magnitudes(&graph, read, axis));
        if axis == 1 {
            // Two groups of two channels share the axis.
            let rows = graph.initializers["w_5"].as_slice::<f32>().expect("floats");
            let of = |group: usize, place: usize| {
                (0..3).map(|row| rows[(group * 3 + row) * 2 + place].abs()).fold(0f32, f32::max)
            };
            read = vec![of(0, 0), of(0, 1), of(1, 0), of(1, 1)];
        }
        for (a, b) in made.iter().zip(&read) {
            assert!((a / b - 1.0).abs() < 0.01, "{made:?} {read:?}");
        }
    }
}

#[test]
fn what_no_factor_passes_is_declined() {
    let (mut net, x) = Net::new(&[2, 6, 6]);
    let y = net.conv(&x, 4, 2, 1, 3, 1);
    let bounds = [0.0f32, 6.0].map(|bound| net.0.initializer("bound", Tensor::scalar(bound)));
    let y = net.node(Op::Clip, &[&y, &bounds[0], &bounds[1]]);
    let left = net.conv(&y, 4, 4, 1, 1, 0);
    let inner = net.node(Op::Relu, &[&left]);
    let weight = net.constant(&[4, 4, 1, 1], 0.0);
    let inner = net.node(Op::Conv(op::Conv::default()), &[&inner, &weight]);
    let inner = net.node(Op::Conv(op::Conv::default()), &[&inner, &weight]);
    let y = net.node(Op::Add, &[&inner, &y]);
    let y = net.conv(&y, 4, 4, 1, 1, 0);
    let graph = net.finish(&y);
    check(
        &graph,
        equalized,
        &[],
        &[
            "Conv `conv`: Clip `clip` clips it at a number that would have to be another for each channel",
            "Conv `conv_2`: Conv `conv_3`: its weight `w_5` is read elsewhere, too",
            "Conv `conv_3`: its weight `w_5` is read elsewhere, too",
            "Conv `conv_4`: its weight `w_5` is read elsewhere, too",
        ],
    );
    let (mut net, x) = Net::new(&[2, 6, 6]);
    let skip = net.conv(&x, 4, 2, 1, 3, 1);
    let y = net.conv(&skip, 4, 4, 1, 1, 0);
    let y = net.node(Op::Add, &[&y, &skip]);
    let y = net.conv(&y, 4, 4, 1, 1, 0);
    let left = [
        "Conv `conv`: `conv` is read by others than products, too",
        "Conv `conv_2`: Add `add` joins it with another value",
    ];
    check(&net.finish(&y), equalized, &[], &left);
}

/// A MatMul and its Add, then three that read what they make.
fn attention_like() -> Graph {
    let (mut net, x) = Net::new(&[3, 4]);
    let weight = net.constant(&[4, 6], 0.0);
    let y = net.node(Op::MatMul, &[&x, &weight]);
    let bias = net.0.initializer("bias", Tensor::scalar(0.5f32));
    let y = net.node(Op::Add, &[&bias, &y]);
    let y = net.node(Op::Relu, &[&y]);
    let readers: Vec<Name> = (0..3)
        .map(|_| {
            let weight = net.constant(&[6, 5], 1.0);
            net.node(Op::MatMul, &[&y, &weight])
        })
        .collect();
    let y = net.node(Op::Concat(op::Concat { axis: -1 }), &[&readers[0], &readers[1], &readers[2]]);
    net.finish(&y)
}

#[test]
fn several_products_may_read_a_channel_and_a_bias_may_stand_by_itself() {
    let label = |k: usize| format!("MatMul `matmul_{k}`: Concat `concat` does not pass on a factor of a channel");
    let left: Vec<String> = (2..5).map(label).collect();
    let left: Vec<&str> = left.iter().map(String::as_str).collect();
    let graph = check(&attention_like(), equalized, &["MatMul `matmul`"], &left);
    let bias = graph.nodes[1].input(0).expect("the constant");
    assert_eq!(graph.initializers[bias].shape(), [6], "one for each channel");
}

#[test]
fn high_biases_are_absorbed() {
    let network = |pad: i64| {
        let (mut net, x) = Net::new(&[2, 6, 6]);
        let weight = net.0.initializer("first", wave(&[3, 2, 1, 1], 0.3));
        let bias = net.0.initializer("high", Tensor::vector(vec![20.0f32, 0.1, -5.0]));
        let y = net.node(Op::Conv(op::Conv::default()), &[&x, &weight, &bias]);
        let y = net.node(Op::Relu, &[&y]);
        let weight = net.0.initializer("second", wave(&[4, 3, 3, 3], 0.9));
        let y = net.node(Op::Conv(op::Conv { pads: vec![pad; 4], ..op::Conv::default() }), &[&y, &weight]);
        net.finish(&y)
    };
    let graph = check(&network(0), absorbed, &["Conv `conv`"], &[]);
    let bias = graph.initializers["high"].as_slice::<f32>().expect("floats");
    assert!(bias[0] < 6.0 && bias[1..] == [0.1, -5.0], "{bias:?}");
    assert_eq!(graph.nodes[2].inputs.len(), 3, "the reader has got a bias");
    let reason = "Conv `conv`: Conv `conv_2`: it pads its input with zeros, which a bias would not lift";
    check(&network(1), absorbed, &[], &[reason]);
}

/// A normalisation read by three products, with outliers, and one read by a residual, too.
fn normalized(is_residual: bool) -> Graph {
    let (mut net, x) = Net::new(&[3, 8]);
    let scale = net.0.initializer("scale", Tensor::vector(vec![1.0f32, 30.0, 0.5, 1.0, 2.0, 1.0, 90.0, 1.0]));
    let shift = net.constant(&[8], 1.0);
    let y = net.node(Op::LayerNormalization(op::LayerNormalization::default()), &[&x, &scale, &shift]);
    let readers: Vec<Name> = (0..3)
        .map(|_| {
            let weight = net.constant(&[8, 8], 0.0);
            net.node(Op::MatMul, &[&y, &weight])
        })
        .collect();
    let sum = net.node(Op::Sum, &[&readers[0], &readers[1], &readers[2]]);
    let y = if is_residual { net.node(Op::Add, &[&sum, &y]) } else { sum };
    net.finish(&y)
}

#[test]
fn outliers_are_smoothed_into_weights() {
    let names = ["MatMul `matmul`", "MatMul `matmul_2`", "MatMul `matmul_3`"];
    let graph = check(&normalized(false), smoothed, &names, &[]);
    let range = |graph: &Graph| {
        let values = IndexMap::from([("layernormalization".into(), 2)]);
        let seen = seen(graph, &values);
        let seen = &seen["layernormalization"];
        let of: Vec<f64> = (0..8).map(|channel| seen.greatest_magnitude(channel)).collect();
        of.iter().copied().fold(0.0, f64::max) / of.iter().copied().fold(f64::INFINITY, f64::min)
    };
    assert!(range(&graph) < 0.2 * range(&normalized(false)), "{} {}", range(&graph), range(&normalized(false)));
    let reason = "LayerNormalization `layernormalization`: `layernormalization` is read by others than products, too";
    let left: Vec<String> = names.iter().map(|name| format!("{name}: {reason}")).collect();
    check(&normalized(true), smoothed, &[], &left.iter().map(String::as_str).collect::<Vec<_>>());
    let error = smooth(&graph, &types(&graph), &IndexMap::new(), 1.5).expect_err("too much");
    assert_eq!(error.to_string(), "`smooth` is 1.5; give 0 to 1, as in 0.5");
}

#[test]
fn a_constant_that_multiplies_takes_factors_too() {
    let (mut net, x) = Net::new(&[2, 6, 6]);
    let half = net.0.initializer("half", Tensor::scalar(0.5f32));
    let y = net.node(Op::Mul, &[&half, &x]);
    let y = net.conv(&y, 4, 2, 1, 3, 1);
    let y = net.node(Op::Sigmoid, &[&y]);
    let y = net.conv(&y, 4, 4, 1, 1, 0);
    let y = net.node(Op::Relu, &[&y]);
    let y = net.conv(&y, 4, 4, 1, 1, 0);
    let reason = "Conv `conv_2`: Sigmoid `sigmoid`, which makes what it reads, has no constant for a factor";
    let graph = check(&net.finish(&y), smoothed, &["Conv `conv`", "Conv `conv_3`"], &[reason]);
    let factor = graph.nodes[0].input(0).expect("the constant");
    assert_eq!(graph.initializers[factor].shape(), [2, 1, 1]);
}

#[test]
fn channels_are_counted() {
    let (name, mut seen) = (Name::from("v"), ChannelStatistics::new(1));
    let tensor = |numbers: [f32; 8]| Tensor::new(&[2, 2, 2], numbers.to_vec()).expect("eight");
    seen.add(&name, &tensor([1.0, 2.0, -3.0, 0.0, 3.0, 2.0, 1.0, 6.0])).expect("finite");
    assert_eq!((seen.min.as_slice(), seen.max.as_slice()), (&[1.0f32, -3.0][..], &[3.0f32, 6.0][..]));
    assert_eq!((seen.n, seen.mean(0), seen.mean(1), seen.greatest_magnitude(1)), (4, 2.0, 1.0, 6.0));
    assert_eq!((seen.standard_deviation(0), seen.standard_deviation(1)), (0.5f64.sqrt(), 10.5f64.sqrt()));
    let message =
        |seen: &mut ChannelStatistics, tensor: &Tensor| seen.add(&name, tensor).expect_err("refused").to_string();
    let hint = "so that its channels cannot be counted (hint: leave out what changes them)";
    assert_eq!(message(&mut seen, &Tensor::vector(vec![1f32])), format!("`v` has too few axes, {hint}"));
    let wide = Tensor::zeros(DType::F32, &[2, 3]).expect("small");
    assert_eq!(message(&mut seen, &wide), format!("`v` changes in size from sample to sample, {hint}"));
    let broken = tensor([f32::NAN; 8]);
    assert!(message(&mut seen, &broken).starts_with("`v` is not a number"));
}

/// The mean error of each channel, its largest part of the greatest magnitude of the output.
fn mean_error(graph: &Graph, other: &Graph, axis: usize) -> f64 {
    let output = graph.outputs[0].name.clone();
    let mut counts = [ChannelStatistics::new(axis), ChannelStatistics::new(axis)];
    for phase in PHASES {
        for (graph, seen) in [graph, other].into_iter().zip(&mut counts) {
            let values = eval::run(graph, &inputs(graph, phase)).expect("it runs");
            seen.add(&output, &values[&output]).expect("finite");
        }
    }
    let [a, b] = &counts;
    let greatest = (0..a.n_channels()).map(|channel| a.greatest_magnitude(channel)).fold(0.0, f64::max);
    (0..a.n_channels()).map(|channel| (a.mean(channel) - b.mean(channel)).abs() / greatest).fold(0.0, f64::max)
}

/// Weights of four bits shift means; activations of sixteen add next to nothing.
fn check_corrected(graph: &Graph, axis: usize, most: f64) {
    let scheme = "operators = ['Conv', 'Gemm', 'MatMul']\nactivations = { dtype = 'u16' }\nweights = { bits = 3, granularity = 'tensor' }";
    let [before, after] = [false, true].map(|corrects| quantized(graph, scheme, corrects));
    assert_eq!(after.1, []);
    let [before, after] = [before.0, after.0].map(|other| mean_error(graph, &other, axis));
    assert!(after < most * before, "{before} {after}");
}

#[test]
fn corrected_biases_keep_the_mean_of_each_channel() {
    let one = |shape: &[usize], build: &dyn Fn(&mut Net, &Name) -> Name| {
        let (mut net, x) = Net::new(shape);
        let y = net.node(Op::Relu, &[&x]); // a mean that is not zero
        let y = build(&mut net, &y);
        net.finish(&y)
    };
    check_corrected(&one(&[2, 6, 6], &|net, x| net.conv(x, 4, 2, 1, 1, 0)), 1, 0.01);
    check_corrected(&one(&[4, 6, 6], &|net, x| net.conv(x, 4, 4, 4, 3, 1)), 1, 0.5);
    let gemm = |net: &mut Net, x: &Name| {
        let weight = net.constant(&[5, 8], 0.3);
        net.node(Op::Gemm(op::Gemm { trans_b: true, ..op::Gemm::default() }), &[x, &weight])
    };
    check_corrected(&one(&[8], &gemm), 1, 0.01);
    let added = |net: &mut Net, x: &Name| {
        let weight = net.constant(&[8, 5], 0.3);
        let y = net.node(Op::MatMul, &[x, &weight]);
        let bias = net.constant(&[5], 0.3);
        net.node(Op::Add, &[&y, &bias])
    };
    check_corrected(&one(&[3, 8], &added), 2, 0.01);
}

#[test]
fn a_product_without_a_place_for_a_bias_is_not_corrected() {
    let (mut net, x) = Net::new(&[3, 8]);
    let weight = net.constant(&[8, 5], 0.3);
    let y = net.node(Op::MatMul, &[&x, &weight]);
    let graph = net.finish(&y);
    let types = types(&graph);
    let plan = plan(&graph, &types, &Scheme::of_products()).expect("a product");
    let (_, declined) = quantized_by(&graph, &plan, true);
    let reasons: Vec<String> = declined.iter().map(|it| format!("{}: {}", it.node, it.reason)).collect();
    assert_eq!(reasons, ["MatMul `matmul`: no constant is added to what it alone makes"]);
}

/// A network of depthwise and pointwise convolutions whose channels differ by the factors that folded batch normalisations leave.
fn separable() -> Graph {
    let (mut net, x) = Net::new(&[2, 6, 6]);
    let channels = 8;
    let factors =
        |phase: f32| -> Vec<f32> { (0..channels).map(|k| (2.5 * (k as f32 * 1.9 + phase).sin()).exp()).collect() };
    let scaled = |shape: &[usize], phase: f32, made: &[f32], read: &[f32]| {
        let n_taps: usize = shape[2..].iter().product();
        let factor = |k: usize| {
            let (made_idx, place) = (k / n_taps / shape[1], k / n_taps % shape[1]);
            made[made_idx] / read[if shape[1] == 1 { made_idx } else { place }]
        };
        let numbers = wave(shape, phase);
        let numbers = numbers.as_slice::<f32>().expect("floats").iter().enumerate();
        Tensor::new(shape, numbers.map(|(k, x)| 0.5 * x * factor(k)).collect()).expect("as many")
    };
    let mut y = x;
    let mut read = vec![1f32; 2];
    for layer in 0..5 {
        let made = factors(layer as f32);
        let (shape, group) = match layer {
            0 => ([channels, 2, 3, 3], 1),
            1 | 3 => ([channels, 1, 3, 3], 8),
            _ => ([channels, channels, 1, 1], 1),
        };
        let weight = net.0.initializer("weight", scaled(&shape, layer as f32, &made, &read));
        let bias = made.iter().enumerate().map(|(k, made)| made * 0.2 * (k as f32 + layer as f32).cos()).collect();
        let bias = net.0.initializer("bias", Tensor::vector::<f32>(bias));
        let pads = vec![i64::from(shape[3] == 3); 4];
        y = net.node(Op::Conv(op::Conv { group, pads, ..op::Conv::default() }), &[&y, &weight, &bias]);
        y = net.node(Op::Relu, &[&y]);
        read = made;
    }
    let y = net.node(Op::GlobalAveragePool, &[&y]);
    let y = net.node(Op::Flatten(op::Flatten::default()), &[&y]);
    let head = wave(&[4, channels], 0.0);
    let head = head.as_slice::<f32>().expect("floats").iter().enumerate().map(|(k, x)| x / read[k % channels]);
    let head = Tensor::new(&[4, channels], head.collect()).expect("as many");
    let weight = net.0.initializer("head", head);
    let y = net.node(Op::Gemm(op::Gemm { trans_b: true, ..op::Gemm::default() }), &[&y, &weight]);
    net.finish(&y)
}

#[test]
fn a_depthwise_network_by_tensor_comes_back() {
    let graph = separable();
    let scheme = "weights = { granularity = 'tensor' }";
    let decibels = |prepared: &Graph, corrects| signal_to_noise_db(&graph, &quantized(prepared, scheme, corrects).0);
    let ranges = equalized(&graph).graph;
    let (plain, equal, both) = (decibels(&graph, false), decibels(&ranges, false), decibels(&ranges, true));
    assert!(plain < 12.0 && equal > plain + 12.0 && both > equal, "{plain} {equal} {both}");
}

/// Each step keeps what any network computes.
fn check_any(graph: &Graph) -> Result<(), TestCaseError> {
    let graph = simplify::simplify(graph, &simplify::Options::default()).expect("it simplifies").graph;
    for (name, step) in [("equalize", equalized as fn(&Graph) -> Prepared), ("absorb", absorbed), ("smooth", smoothed)]
    {
        let prepared = step(&graph);
        prop_assert!(prepared.graph.check().is_ok());
        let moved = difference(&graph, &prepared.graph);
        prop_assert!(moved < 1e-4, "{name}: {moved}\n{}", crate::graph::show::show(&graph));
        if !prepared.done.is_empty() {
            continue;
        }
        prop_assert_eq!(&prepared.graph, &graph, "{} did nothing", name);
    }
    let Ok(plan) = planned(&graph, "") else { return Ok(()) };
    let (quantized, _) = quantized_by(&graph, &plan, true);
    prop_assert!(shape::infer(&quantized, &Bindings::default()).is_ok());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_convolutional_network_stays_the_same(
        layers in random_graphs::layers(), flat in any::<bool>(), seed in any::<u64>(),
    ) {
        check_any(&random_graphs::convolutional(&layers, flat, seed))?;
    }

    #[test]
    fn any_sequential_network_stays_the_same(blocks in random_graphs::blocks(), seed in any::<u64>()) {
        check_any(&random_graphs::sequential(&blocks, seed))?;
    }
}
