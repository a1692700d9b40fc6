//! Small networks of known structure, with weights that depend on nothing but their place.

use super::{Structure, show, structure};
use crate::graph::eval;
use crate::graph::op::{Conv, Gather, LayerNormalization, Reduce, Reshape, Softmax, Split, Transpose};
use crate::graph::shape::{Bindings, Types, infer};
use crate::graph::tensor::{DType, Tensor, n_elements};
use crate::graph::{Dim, Graph, GraphBuilder, Name, Op, TensorType};

/// Features of the transformers here.
pub(super) const WIDTH: usize = 8;
/// Their heads.
pub(super) const N_HEADS: usize = 2;
/// The features of a head.
pub(super) const HEAD_SIZE: usize = 4;
/// Their hidden units.
pub(super) const HIDDEN: usize = 12;
const N_STEPS: usize = 3;

/// A graph being built, whose weights come from a seed.
pub(super) struct Net {
    pub(super) builder: GraphBuilder,
    seed: u64,
}

impl Net {
    pub(super) fn new() -> Net {
        Net { builder: GraphBuilder::new("net"), seed: 1 }
    }

    /// From here on the weights are those of this place.
    pub(super) fn seed(&mut self, seed: usize) {
        self.seed = u64::try_from(seed).expect("a small number").wrapping_mul(7919) + 1;
    }

    pub(super) fn weights(&mut self, shape: &[usize]) -> Name {
        let tensor = numbers(shape, &mut self.seed, 0.5);
        self.builder.initializer("w", tensor)
    }

    pub(super) fn op(&mut self, op: Op, inputs: &[&Name]) -> Name {
        self.builder.node(op, inputs)
    }

    pub(super) fn scalar(&mut self, number: f32) -> Name {
        self.builder.initializer("c", Tensor::scalar(number))
    }

    pub(super) fn ints(&mut self, numbers: &[i64]) -> Name {
        self.builder.initializer("shape", Tensor::vector(numbers.to_vec()))
    }

    /// A product with a matrix, and a bias.
    pub(super) fn linear(&mut self, x: &Name, n_in: usize, n_out: usize) -> Name {
        let (w, b) = (self.weights(&[n_in, n_out]), self.weights(&[n_out]));
        let product = self.op(Op::MatMul, &[x, &w]);
        self.op(Op::Add, &[&product, &b])
    }

    pub(super) fn conv(&mut self, x: &Name, [n_in, n_out]: [usize; 2], size: i64, stride: i64, group: usize) -> Name {
        let side = usize::try_from(size).expect("a kernel");
        let w = self.weights(&[n_out, n_in / group, side, side]);
        let (pads, strides) = (vec![size / 2; 4], vec![stride; 2]);
        let group = i64::try_from(group).expect("a few groups");
        self.op(Op::Conv(Conv { group, pads, strides, ..Conv::default() }), &[x, &w])
    }

    pub(super) fn reshape(&mut self, x: &Name, shape: &[i64]) -> Name {
        let shape = self.ints(shape);
        self.op(Op::Reshape(Reshape::default()), &[x, &shape])
    }

    pub(super) fn transpose(&mut self, x: &Name, perm: &[i64]) -> Name {
        self.op(Op::Transpose(Transpose { perm: perm.to_vec() }), &[x])
    }

    pub(super) fn softmax(&mut self, x: &Name) -> Name {
        self.op(Op::Softmax(Softmax { axis: -1 }), &[x])
    }

    pub(super) fn norm(&mut self, x: &Name) -> Name {
        let (scale, bias) = (self.weights(&[WIDTH]), self.weights(&[WIDTH]));
        self.op(Op::LayerNormalization(LayerNormalization::default()), &[x, &scale, &bias])
    }

    /// The same by its arithmetic.
    pub(super) fn decomposed_norm(&mut self, x: &Name) -> Name {
        let (scale, bias, axes) = (self.weights(&[WIDTH]), self.weights(&[WIDTH]), self.ints(&[-1]));
        let (two, epsilon) = (self.scalar(2.0), self.scalar(1e-5));
        let mean = self.op(Op::ReduceMean(Reduce::default()), &[x, &axes]);
        let centred = self.op(Op::Sub, &[x, &mean]);
        let squared = self.op(Op::Pow, &[&centred, &two]);
        let variance = self.op(Op::ReduceMean(Reduce::default()), &[&squared, &axes]);
        let variance = self.op(Op::Add, &[&variance, &epsilon]);
        let deviation = self.op(Op::Sqrt, &[&variance]);
        let normal = self.op(Op::Div, &[&centred, &deviation]);
        let scaled = self.op(Op::Mul, &[&normal, &scale]);
        self.op(Op::Add, &[&scaled, &bias])
    }

    /// `[1, steps, features]` to `[1, heads, steps, size]`.
    pub(super) fn heads(&mut self, x: &Name) -> Name {
        let split = self.reshape(x, &[1, -1, 2, 4]);
        self.transpose(&split, &[0, 2, 1, 3])
    }

    pub(super) fn merge(&mut self, x: &Name) -> Name {
        let moved = self.transpose(x, &[0, 2, 1, 3]);
        self.reshape(&moved, &[1, -1, 8])
    }

    /// Attention of BERT's spelling, from projections to output projection.
    pub(super) fn attention(&mut self, x: &Name, mask: Option<&Name>) -> Name {
        let [queries, keys, values] = [(); 3].map(|()| {
            let projected = self.linear(x, WIDTH, WIDTH);
            self.heads(&projected)
        });
        let keys = self.transpose(&keys, &[0, 1, 3, 2]);
        let scores = self.op(Op::MatMul, &[&queries, &keys]);
        let two = self.scalar(2.0);
        let mut scores = self.op(Op::Div, &[&scores, &two]);
        if let Some(mask) = mask {
            scores = self.op(Op::Add, &[&scores, mask]);
        }
        let weights = self.softmax(&scores);
        let context = self.op(Op::MatMul, &[&weights, &values]);
        let merged = self.merge(&context);
        self.linear(&merged, WIDTH, WIDTH)
    }

    pub(super) fn feed_forward(&mut self, x: &Name) -> Name {
        let hidden = self.linear(x, WIDTH, HIDDEN);
        let active = self.op(Op::Relu, &[&hidden]);
        self.linear(&active, HIDDEN, WIDTH)
    }

    /// The input of a transformer.
    pub(super) fn steps(&mut self) -> Name {
        self.builder.input("x", TensorType::new(DType::F32, [1, N_STEPS, WIDTH]))
    }

    /// The input of a convolutional network.
    pub(super) fn image(&mut self) -> Name {
        self.builder.input("x", TensorType::new(DType::F32, [1usize, 4, 6, 6]))
    }

    pub(super) fn split(&mut self, x: &Name, n: usize, axis: i64) -> Vec<Name> {
        let num_outputs = i64::try_from(n).ok();
        self.builder.node_with_outputs(Op::Split(Split { axis, num_outputs }), &[x], n)
    }

    pub(super) fn pick(&mut self, x: &Name, idx: i64, axis: i64) -> Name {
        let idx = self.builder.initializer("idx", Tensor::scalar(idx));
        self.op(Op::Gather(Gather { axis }), &[x, &idx])
    }

    pub(super) fn finish(mut self, output: &Name) -> Graph {
        self.builder.output(output);
        self.builder.finish().expect("a graph")
    }
}

/// The spelling of an encoder here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    PreNorm,
    PostNorm,
    /// post-norm, the normalisation as its arithmetic
    Decomposed,
}

/// An encoder of these layers, each with the weights of its number; a mask comes from outside.
pub(super) fn encoder(style: Style, layers: &[usize]) -> Graph {
    let mut net = Net::new();
    let x = net.steps();
    let padding = net.builder.input("padding", TensorType::new(DType::F32, [N_STEPS]));
    let far = net.scalar(-100.0);
    let mask = net.op(Op::Mul, &[&padding, &far]);
    let normalise = |net: &mut Net, x: &Name| match style {
        Style::PreNorm | Style::PostNorm => net.norm(x),
        Style::Decomposed => net.decomposed_norm(x),
    };
    let mut stream = if style == Style::PreNorm { net.linear(&x, WIDTH, WIDTH) } else { normalise(&mut net, &x) };
    for &layer in layers {
        net.seed(layer + 100);
        for part in 0..2 {
            let read = if style == Style::PreNorm { normalise(&mut net, &stream) } else { stream.clone() };
            let branch = if part == 0 { net.attention(&read, Some(&mask)) } else { net.feed_forward(&read) };
            let sum = net.op(Op::Add, &[&branch, &stream]);
            stream = if style == Style::PreNorm { sum } else { normalise(&mut net, &sum) };
        }
    }
    net.seed(0);
    let output = net.linear(&stream, WIDTH, 2);
    net.finish(&output)
}

pub(super) fn types(graph: &Graph) -> Types {
    infer(graph, &Bindings::default()).expect("shapes fit")
}

pub(super) fn found(graph: &Graph) -> Structure {
    structure(graph, &types(graph))
}

/// The lines of a graph's structure that begin with this, without their numbers.
pub(super) fn lines(graph: &Graph, kind: &str) -> String {
    let text = show(&found(graph), graph);
    let lines = text.lines().filter_map(|line| line.strip_prefix(kind)?.trim_start().split_once("  "));
    lines.map(|(_, line)| line.to_string()).collect::<Vec<_>>().join("\n")
}

/// A graph's first output on inputs that depend on their names only.
pub(super) fn output(graph: &Graph) -> Tensor {
    let given = graph.inputs.iter().map(|input| {
        let shape = input.tensor_type().and_then(|t| t.shape.clone()).expect("a shape");
        let shape: Vec<usize> = shape.iter().map(|dim| Dim::known(dim).unwrap_or(2)).collect();
        let mut seed = u64::try_from(input.name.len()).expect("a short name");
        (input.name.clone(), numbers(&shape, &mut seed, 2.0))
    });
    let outputs = eval::run(graph, &given.collect()).expect("it runs");
    outputs.into_values().next().expect("an output")
}

/// Numbers from −`most` to `most`.
fn numbers(shape: &[usize], seed: &mut u64, most: f32) -> Tensor {
    let n = n_elements(shape).expect("a small tensor");
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let unit = (*seed >> 40) as f32 / (1u64 << 24) as f32;
        (unit * 2.0 - 1.0) * most
    };
    Tensor::new(shape, (0..n).map(|_| next()).collect()).expect("as many as the shape has")
}
