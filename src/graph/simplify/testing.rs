//! What the tests of the rewrites share: small networks of random constants, and the comparison of before and after.

use indexmap::IndexMap;

use super::{Options, Simplified, simplify};
use crate::graph::eval;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, GraphBuilder, Name, Op, TensorType};

/// A network in the making whose constants are random, and the same for the same seed.
pub(super) struct Net {
    pub(super) builder: GraphBuilder,
    numbers: Numbers,
}

/// Numbers from a generator of Lehmer's.
struct Numbers(u64);

impl Numbers {
    /// Between −1 and 1.
    fn next(&mut self) -> f32 {
        self.0 = self.0 * 48_271 % 0x7fff_ffff;
        self.0 as f32 / 0x4000_0000 as f32 - 1.0
    }

    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let n_elements = shape.iter().product();
        Tensor::new(shape, (0..n_elements).map(|_| self.next()).collect()).expect("as many as the shape takes")
    }
}

impl Net {
    pub(super) fn new(seed: u64) -> Net {
        Net { builder: GraphBuilder::new("net"), numbers: Numbers(seed % 1_000_000 + 77) }
    }

    /// An input `x` of these dimensions.
    pub(super) fn input(&mut self, shape: &[usize]) -> Name {
        self.builder.input("x", TensorType::new(DType::F32, shape.iter().copied()))
    }

    /// A constant `w` of random numbers between −1 and 1.
    pub(super) fn random(&mut self, shape: &[usize]) -> Name {
        let tensor = self.numbers.tensor(shape);
        self.builder.initializer("w", tensor)
    }

    /// A constant of random numbers between 0.1 and 2.
    pub(super) fn positive(&mut self, shape: &[usize]) -> Name {
        let numbers = self.numbers.tensor(shape).to_vec::<f32>().expect("floats");
        let numbers = numbers.into_iter().map(|x| 1.05 + 0.95 * x).collect();
        self.builder.initializer("p", Tensor::new(shape, numbers).expect("as many as before"))
    }

    /// A constant of no dimensions.
    pub(super) fn scalar(&mut self, number: f32) -> Name {
        self.builder.initializer("c", Tensor::scalar(number))
    }

    /// A list of integers.
    pub(super) fn list(&mut self, numbers: &[i64]) -> Name {
        self.builder.initializer("list", Tensor::vector(numbers.to_vec()))
    }

    pub(super) fn node(&mut self, op: Op, inputs: &[&Name]) -> Name {
        self.builder.node(op, inputs)
    }

    /// The network with this output.
    pub(super) fn finish(mut self, output: &Name) -> Graph {
        self.builder.output(output);
        self.builder.finish().expect("a network")
    }
}

/// Simplifies without a limit on the operators; see [`check_with`].
#[track_caller]
pub(super) fn check(graph: &Graph, operators: &[&str]) -> Simplified {
    check_with(&Options::default(), graph, operators)
}

/// Simplifies, expects these operators in what comes out, and the outputs within 1e-5 of their largest magnitude on a
/// random input. Symbolic dimensions are 3.
#[track_caller]
pub(super) fn check_with(options: &Options, graph: &Graph, operators: &[&str]) -> Simplified {
    let simplified = simplify(graph, options).expect("a network that fits");
    let names: Vec<&str> = simplified.graph.nodes.iter().map(|node| node.op.name()).collect();
    assert_eq!(names, operators, "{:?}", simplified.declined);
    simplified.graph.check().expect("what comes out is a network");
    let mut numbers = Numbers(4711);
    let inputs = graph.inputs.iter().map(|input| {
        let dims = input.tensor_type().and_then(|tensor_type| tensor_type.shape.clone()).expect("a known rank");
        let dims: Vec<usize> = dims.iter().map(|dim| dim.known().unwrap_or(3)).collect();
        let tensor = numbers.tensor(&dims);
        (input.name.clone(), scaled(&tensor, 4.0))
    });
    let inputs: IndexMap<Name, Tensor> = inputs.collect();
    let before = eval::run(graph, &inputs).expect("the network computes");
    let after = eval::run(&simplified.graph, &inputs).expect("the simplified network computes");
    assert!(before.keys().eq(after.keys()), "other outputs");
    for (name, expected) in &before {
        let (expected, got) = (expected, &after[name]);
        assert_eq!((expected.dtype(), expected.shape()), (got.dtype(), got.shape()), "{name}");
        let (expected, got) = (expected.to_f32s().expect("floats"), got.to_f32s().expect("floats"));
        let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        for (expected, got) in expected.iter().zip(got.iter()) {
            let near = (expected - got).abs() <= 1e-5 * largest || expected == got;
            assert!(near, "{name}: {got} for {expected}, largest {largest}");
        }
    }
    simplified
}

/// The rewrite matches nothing or declines: the operators stay, and it says these reasons.
#[track_caller]
pub(super) fn check_declined(graph: &Graph, reasons: &[&str]) {
    check_declined_with(&Options::default(), graph, reasons);
}

/// As [`check_declined`], with these options.
#[track_caller]
pub(super) fn check_declined_with(options: &Options, graph: &Graph, reasons: &[&str]) {
    let operators: Vec<&str> = graph.nodes.iter().map(|node| node.op.name()).collect();
    let simplified = check_with(options, graph, &operators);
    let declined: Vec<&str> = simplified.declined.iter().map(|declined| declined.reason.as_str()).collect();
    assert_eq!(declined, reasons);
}

fn scaled(tensor: &Tensor, factor: f32) -> Tensor {
    let numbers = tensor.to_f32s().expect("floats").iter().map(|x| factor * x).collect();
    Tensor::new(tensor.shape(), numbers).expect("as many as before")
}
