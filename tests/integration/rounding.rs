//! QuantizeLinear, DequantizeLinear and what stands between them, an operator at a time: a plain loop, the reference, the engine that
//! trains, and both runtimes compute the same integers.

use aludel::graph::op::{self, Op};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Graph, GraphBuilder, Model, Name, TensorType, eval};
use aludel::learn::exec::{self, Mode, Request};
use aludel::measure::runtime::{ModelBytes, Options};
use aludel::onnx;
use indexmap::IndexMap;

use crate::support;

/// Integers of eight bits.
#[derive(Clone, Copy, Debug)]
enum Byte {
    U8,
    I8,
}

impl Byte {
    fn bounds(self) -> (i64, i64) {
        match self {
            Byte::U8 => (0, 255),
            Byte::I8 => (-128, 127),
        }
    }

    fn tensor(self, shape: &[usize], integers: &[i64]) -> Tensor {
        match self {
            Byte::U8 => Tensor::new(shape, integers.iter().map(|&q| q as u8).collect()).expect("as many"),
            Byte::I8 => Tensor::new(shape, integers.iter().map(|&q| q as i8).collect()).expect("as many"),
        }
    }
}

/// A scale and a zero point for all, or one of each for every index along an axis.
#[derive(Clone, Debug)]
struct Steps {
    byte: Byte,
    scales: Vec<f32>,
    zero_points: Vec<i64>,
    axis: Option<usize>,
}

impl Steps {
    fn of(byte: Byte, scale: f32, zero_point: i64) -> Steps {
        Steps { byte, scales: vec![scale], zero_points: vec![zero_point], axis: None }
    }

    fn at(&self, shape: &[usize], position: usize) -> (f32, i64) {
        let along = self.axis.map_or(0, |axis| position / shape[axis + 1..].iter().product::<usize>() % shape[axis]);
        (self.scales[along], self.zero_points[along])
    }

    /// ONNX's definition: round half to even, then saturate.
    fn quantize(&self, shape: &[usize], numbers: &[f32]) -> Vec<i64> {
        let (least, greatest) = self.byte.bounds();
        let integer = |(position, x): (usize, &f32)| {
            let (scale, zero_point) = self.at(shape, position);
            ((x / scale).round_ties_even() as i64 + zero_point).clamp(least, greatest)
        };
        numbers.iter().enumerate().map(integer).collect()
    }

    fn dequantize(&self, shape: &[usize], integers: &[i64]) -> Vec<f32> {
        let number = |(position, q): (usize, &i64)| {
            let (scale, zero_point) = self.at(shape, position);
            (q - zero_point) as f32 * scale
        };
        integers.iter().enumerate().map(number).collect()
    }

    fn constants(&self, builder: &mut GraphBuilder) -> [Name; 2] {
        let shape: Vec<usize> = self.axis.map(|_| self.scales.len()).into_iter().collect();
        let scales = Tensor::new(&shape, self.scales.clone()).expect("as many");
        let zero_points = self.byte.tensor(&shape, &self.zero_points);
        [builder.initializer("scale", scales), builder.initializer("zero_point", zero_points)]
    }

    fn axis(&self) -> i64 {
        self.axis.map_or(1, |axis| axis as i64)
    }

    fn quantized(&self, builder: &mut GraphBuilder, x: &Name) -> Name {
        let [scale, zero_point] = self.constants(builder);
        let op = op::QuantizeLinear { axis: self.axis(), ..op::QuantizeLinear::default() };
        builder.node(Op::QuantizeLinear(op), &[x, &scale, &zero_point])
    }

    fn dequantized(&self, builder: &mut GraphBuilder, q: &Name) -> Name {
        let [scale, zero_point] = self.constants(builder);
        let op = op::DequantizeLinear { axis: self.axis(), ..op::DequantizeLinear::default() };
        builder.node(Op::DequantizeLinear(op), &[q, &scale, &zero_point])
    }
}

/// Multiples of an eighth, ties of every scale among them, and numbers far beyond every range. Not further: tract 0.23 adds the zero
/// point to numbers of 32 bits, which wraps around where a number is 2³¹ steps or more.
fn numbers(n: usize) -> Vec<f32> {
    let number = |k: usize| match k % 7 {
        5 => 1e6,
        6 => -1e6,
        _ => ((k * 37) % 257) as f32 / 8.0 - 16.0,
    };
    (0..n).map(number).collect()
}

fn size(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Every answer lies within so many steps of the expected numbers, on the reference, the engine and both runtimes.
fn check(what: &str, graph: Graph, input: &Tensor, expected: &[f32], step: f32, by_engine: bool) {
    let inputs = IndexMap::from([(Name::from("x"), input.clone())]);
    let mut answers = vec![("reference", eval::run(&graph, &inputs).expect("it is defined").into_values().next())];
    if by_engine {
        let request = Request {
            shapes: inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect(),
            mode: Mode::Inference,
            outputs: graph.outputs.iter().map(|output| output.name.clone()).collect(),
            loss: None,
            trainable: Default::default(),
            variable: Default::default(),
        };
        answers.push(("engine", exec::run(&graph, &inputs, &request).expect("it runs").outputs.into_values().next()));
    }
    let bytes = ModelBytes::new(onnx::to_bytes(&Model::new(graph)).expect("it can be written"));
    for runtime in support::runtimes() {
        let mut session = runtime.load(&bytes, &Options::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let outputs = session.run(&[("x".to_owned(), input.clone())]).expect("it runs");
        answers.push((runtime.name(), outputs.into_iter().next().map(|(_, tensor)| tensor)));
    }
    for (who, answer) in answers {
        let answer = answer.expect("an output");
        let got = aludel::measure::difference::numbers(&answer).expect("numbers");
        assert_eq!(got.len(), expected.len(), "{what} by {who}");
        for (place, (got, expected)) in got.iter().zip(expected).enumerate() {
            let apart = (got - f64::from(*expected)).abs();
            assert!(apart <= f64::from(step) * 1.0001, "{what} by {who}, at {place}: {got}, expected {expected}");
        }
    }
}

fn steps() -> Vec<Steps> {
    let mut all = Vec::new();
    for (byte, zero_points) in [(Byte::U8, [0, 3, 128, 255]), (Byte::I8, [-128, -5, 0, 127])] {
        all.extend(zero_points.map(|zero_point| Steps::of(byte, 0.25, zero_point)));
    }
    all
}

const SHAPES: [&[usize]; 6] = [&[], &[9], &[3, 5], &[2, 3, 4], &[1, 2, 3, 4], &[2, 1, 3, 2, 2]];

#[test]
fn numbers_round_to_even_and_saturate() {
    for shape in SHAPES {
        for steps in steps() {
            let numbers = numbers(size(shape).max(1));
            let integers = steps.quantize(shape, &numbers);
            let tensor = Tensor::new(shape, numbers).expect("as many");
            let build = |back: bool| {
                let mut builder = GraphBuilder::new("net");
                let x = builder.input("x", TensorType::new(DType::F32, shape.iter().copied()));
                let mut y = steps.quantized(&mut builder, &x);
                if back {
                    y = steps.dequantized(&mut builder, &y);
                }
                builder.output(&y);
                builder.finish().expect("a graph")
            };
            let what = format!("{shape:?} {steps:?}");
            let floats: Vec<f32> = integers.iter().map(|&q| q as f32).collect();
            check(&what, build(false), &tensor, &floats, 0.0, false);
            check(&what, build(true), &tensor, &steps.dequantize(shape, &integers), 0.0, true);
        }
    }
}

#[test]
fn every_index_of_an_axis_has_its_own_scale() {
    for shape in SHAPES.into_iter().filter(|shape| !shape.is_empty()) {
        for axis in 0..shape.len() {
            for byte in [Byte::U8, Byte::I8] {
                let n = shape[axis];
                let scales = (0..n).map(|k| [0.25, 0.5, 1.0][k % 3]).collect();
                let middle = if matches!(byte, Byte::U8) { 128 } else { 0 };
                let zero_points = (0..n).map(|k| middle + k as i64 - 1).collect();
                let steps = Steps { byte, scales, zero_points, axis: Some(axis) };
                let mut builder = GraphBuilder::new("net");
                let x = builder.input("x", TensorType::new(DType::F32, shape.iter().copied()));
                let q = steps.quantized(&mut builder, &x);
                let y = steps.dequantized(&mut builder, &q);
                builder.output(&y);
                let numbers = numbers(size(shape));
                let expected = steps.dequantize(shape, &steps.quantize(shape, &numbers));
                let tensor = Tensor::new(shape, numbers).expect("as many");
                let graph = builder.finish().expect("a graph");
                check(&format!("{shape:?} {steps:?}"), graph, &tensor, &expected, 0.0, true);
            }
        }
    }
}

/// Weights of int8 by column behind a DequantizeLinear, after Q/DQ of what they are multiplied with and before those of the result.
fn check_product(shape: &[usize], input: &Steps, output: &Steps, by_channel: bool) {
    let (n_summed, n_made) = (shape[shape.len() - 1], 3);
    let integers: Vec<i64> = (0..n_summed * n_made).map(|k| ((k * 53 + 7) % 255) as i64 - 127).collect();
    let scales = if by_channel { vec![0.01, 0.02, 0.005] } else { vec![0.01] };
    let zero_points = vec![0; scales.len()];
    let weight = Steps { byte: Byte::I8, scales, zero_points, axis: by_channel.then_some(1) };
    let mut builder = GraphBuilder::new("net");
    let x = builder.input("x", TensorType::new(DType::F32, shape.iter().copied()));
    let q = input.quantized(&mut builder, &x);
    let read = input.dequantized(&mut builder, &q);
    let stored = builder.initializer("weight", Byte::I8.tensor(&[n_summed, n_made], &integers));
    let weights = weight.dequantized(&mut builder, &stored);
    let product = builder.node(Op::MatMul, &[&read, &weights]);
    let q = output.quantized(&mut builder, &product);
    let y = output.dequantized(&mut builder, &q);
    builder.output(&y);

    let numbers = numbers(size(shape));
    let read = input.quantize(shape, &numbers);
    let mut made = Vec::new();
    for row in read.chunks(n_summed) {
        for column in 0..n_made {
            let sum: i64 =
                row.iter().enumerate().map(|(k, q)| (q - input.zero_points[0]) * integers[k * n_made + column]).sum();
            let scale = weight.scales[if by_channel { column } else { 0 }];
            made.push((sum as f64 * f64::from(input.scales[0]) * f64::from(scale)) as f32);
        }
    }
    let mut made_shape = shape.to_vec();
    made_shape[shape.len() - 1] = n_made;
    let expected = output.dequantize(&made_shape, &output.quantize(&made_shape, &made));
    let tensor = Tensor::new(shape, numbers).expect("as many");
    let what = format!("MatMul {shape:?} {input:?} {output:?}");
    // A sum that falls between two steps may be rounded to either: its scale is a product that floats round.
    check(&what, builder.finish().expect("a graph"), &tensor, &expected, output.scales[0], true);
}

#[test]
fn products_are_of_integers_within_a_step() {
    for shape in SHAPES.into_iter().filter(|shape| shape.len() > 1) {
        for by_channel in [false, true] {
            for zero_point in [0, 100, 255] {
                let (input, output) = (Steps::of(Byte::U8, 0.125, zero_point), Steps::of(Byte::U8, 0.5, 128));
                check_product(shape, &input, &output, by_channel);
            }
            let (input, output) = (Steps::of(Byte::I8, 0.125, -7), Steps::of(Byte::I8, 0.5, 3));
            check_product(shape, &input, &output, by_channel);
        }
    }
}
