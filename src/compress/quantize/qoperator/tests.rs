//! Each operator against the Q/DQ form by the reference, and what is declined.

use indexmap::IndexMap;

use super::{Lowered, QOperatorOptions, to_qoperator};
use crate::graph::eval;
use crate::graph::op::{self, Op};
use crate::graph::shape::{Bindings, infer};
use crate::graph::tensor::{DType, Element, Tensor};
use crate::graph::{Graph, GraphBuilder, Name, Node, TensorType};

/// A network under construction; numbers follow from a counter.
struct Net {
    graph: GraphBuilder,
    state: u32,
}

/// The scale of activations where a test does not say otherwise.
const STEP: f32 = 0.02;

impl Net {
    fn number(&mut self) -> f32 {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    }

    fn input(&mut self, shape: &[usize]) -> Name {
        self.graph.input("x", TensorType::new(DType::F32, shape.iter().copied()))
    }

    fn scale<T: Element>(&mut self, scales: &[f32], zero: T, whole: bool) -> [Name; 2] {
        if whole {
            let scale = self.graph.initializer("scale", Tensor::scalar(scales[0]));
            return [scale, self.graph.initializer("zero", Tensor::scalar(zero))];
        }
        let scale = self.graph.initializer("scale", Tensor::vector(scales.to_vec()));
        [scale, self.graph.initializer("zero", Tensor::vector(vec![zero; scales.len()]))]
    }

    /// Q and DQ of one scale.
    fn pair<T: Element>(&mut self, x: &Name, scale: f32, zero: T) -> Name {
        let [scale, zero] = self.scale(&[scale], zero, true);
        let integers = self.graph.node(Op::QuantizeLinear(op::QuantizeLinear::default()), &[x, &scale, &zero]);
        self.graph.node(Op::DequantizeLinear(op::DequantizeLinear::default()), &[&integers, &scale, &zero])
    }

    fn u8(&mut self, x: &Name) -> Name {
        self.pair(x, STEP, 120u8)
    }

    /// Weights of `i8` behind DQ, a scale for each place along an axis, or one.
    fn weight(&mut self, shape: &[usize], axis: usize, scales: &[f32]) -> Name {
        let n = shape.iter().product();
        let integers = (0..n).map(|_| (self.number() * 127.0) as i8).collect();
        let integers = self.graph.initializer("weight", Tensor::new(shape, integers).expect("as many"));
        let [scale, zero] = self.scale(scales, 0i8, scales.len() == 1);
        self.dequantize(&integers, &scale, &zero, axis)
    }

    fn bias(&mut self, n: usize, scales: &[f32]) -> Name {
        let integers = (0..n).map(|_| (self.number() * 3000.0) as i32).collect::<Vec<_>>();
        let integers = self.graph.initializer("bias", Tensor::vector(integers));
        let [scale, zero] = self.scale(scales, 0i32, scales.len() == 1);
        self.dequantize(&integers, &scale, &zero, 0)
    }

    fn dequantize(&mut self, integers: &Name, scale: &Name, zero: &Name, axis: usize) -> Name {
        let op = op::DequantizeLinear { axis: axis as i64, ..op::DequantizeLinear::default() };
        self.graph.node(Op::DequantizeLinear(op), &[integers, scale, zero])
    }

    fn integers(&mut self, values: &[i64]) -> Name {
        self.graph.initializer("integers", Tensor::vector(values.to_vec()))
    }
}

fn network(build: impl FnOnce(&mut Net) -> Name) -> Graph {
    let mut net = Net { graph: GraphBuilder::new("net"), state: 7 };
    let y = build(&mut net);
    net.graph.output(&y);
    net.graph.finish().expect("a graph")
}

fn outputs(graph: &Graph) -> Vec<f32> {
    let shape = graph.inputs[0].tensor_type().and_then(TensorType::known_shape).expect("a shape");
    let n: usize = shape.iter().product();
    let x = (0..n).map(|idx| ((idx * 37 % 101) as f32 - 50.0) / 25.0).collect();
    let x = Tensor::new(&shape, x).expect("as many");
    let inputs = IndexMap::from([(graph.inputs[0].name.clone(), x)]);
    let outputs = eval::run(graph, &inputs).expect("it runs");
    outputs.into_values().next().expect("one output").to_vec::<f32>().expect("floats")
}

fn lower(graph: &Graph, microsoft: bool) -> Lowered {
    let lowered = to_qoperator(graph, &QOperatorOptions { microsoft }).expect("it can be lowered");
    lowered.graph.check().expect("a graph");
    infer(&lowered.graph, &Bindings::default()).expect("types fit");
    lowered
}

/// The operators that come out, and numbers that differ by one step at most.
fn check(expected: &[&str], step: f32, build: impl FnOnce(&mut Net) -> Name) {
    let graph = network(build);
    let lowered = lower(&graph, true);
    let operators: Vec<&str> = lowered.lowered.iter().map(|lowered| lowered.operator.as_str()).collect();
    assert_eq!(operators, expected, "declined: {:?}", lowered.declined);
    assert_eq!(lowered.declined, []);
    let (before, after) = (outputs(&graph), outputs(&lowered.graph));
    assert_eq!(before.len(), after.len());
    assert!(before.iter().any(|&y| y != before[0]), "numbers that tell something");
    for (a, b) in before.iter().zip(&after) {
        assert!((a - b).abs() <= step * 1.001, "{a} and {b}");
    }
}

/// What is left, and why.
fn declines(microsoft: bool, reason: &str, build: impl FnOnce(&mut Net) -> Name) {
    let graph = network(build);
    let lowered = lower(&graph, microsoft);
    let reasons: Vec<&str> = lowered.declined.iter().map(|declined| declined.reason.as_str()).collect();
    assert!(reasons.iter().any(|given| given.contains(reason)), "{reasons:?}");
    for (a, b) in outputs(&graph).iter().zip(&outputs(&lowered.graph)) {
        assert!((a - b).abs() <= STEP * 1.001, "{a} and {b}");
    }
}

const WEIGHT_SCALES: [f32; 4] = [0.004, 0.005, 0.006, 0.007];

fn product_scales() -> Vec<f32> {
    WEIGHT_SCALES.iter().map(|scale| scale * STEP).collect()
}

fn conv() -> Op {
    Op::Conv(op::Conv { pads: vec![1; 4], ..op::Conv::default() })
}

/// A convolution of `[1, 3, 5, 5]` to four channels, before its quantization.
fn convolved(net: &mut Net) -> Name {
    let x = net.input(&[1, 3, 5, 5]);
    let x = net.u8(&x);
    let w = net.weight(&[4, 3, 3, 3], 0, &WEIGHT_SCALES);
    let b = net.bias(4, &product_scales());
    net.graph.node(conv(), &[&x, &w, &b])
}

#[test]
fn convolutions() {
    check(&["QLinearConv"], 0.05, |net| {
        let y = convolved(net);
        net.pair(&y, 0.05, 100u8)
    });
    check(&["QLinearConv"], 0.05, |net| {
        let x = net.input(&[1, 3, 5, 5]);
        let x = net.pair(&x, STEP, 3i8);
        let w = net.weight(&[4, 3, 3, 3], 0, &[0.004]);
        let y = net.graph.node(conv(), &[&x, &w]);
        net.pair(&y, 0.05, 0i8)
    });
}

#[test]
fn superfluous_activations_are_absorbed() {
    check(&["QLinearConv"], 0.05, |net| {
        let y = convolved(net);
        let y = net.graph.node(Op::Relu, &[&y]);
        net.pair(&y, 0.05, 0u8)
    });
    check(&["QLinearConv"], 6.0 / 255.0, |net| {
        let y = convolved(net);
        let [low, high] = [0f32, 6.0].map(|bound| net.graph.initializer("bound", Tensor::scalar(bound)));
        let y = net.graph.node(Op::Clip, &[&y, &low, &high]);
        net.pair(&y, 6.0 / 255.0, 0u8)
    });
    declines(true, "cuts off within the range", |net| {
        let y = convolved(net);
        let y = net.graph.node(Op::Relu, &[&y]);
        net.pair(&y, 0.05, 100u8)
    });
}

#[test]
fn matrix_products() {
    check(&["QLinearMatMul"], 0.05, |net| {
        let x = net.input(&[2, 3, 5]);
        let x = net.u8(&x);
        let w = net.weight(&[5, 4], 1, &WEIGHT_SCALES);
        let y = net.graph.node(Op::MatMul, &[&x, &w]);
        net.pair(&y, 0.05, 100u8)
    });
    for trans_b in [false, true] {
        check(&["QGemm"], 0.05, |net| {
            let x = net.input(&[3, 5]);
            let x = net.u8(&x);
            let shape = if trans_b { [4, 5] } else { [5, 4] };
            let w = net.weight(&shape, usize::from(!trans_b), &WEIGHT_SCALES);
            let b = net.bias(4, &product_scales());
            let gemm = Op::Gemm(op::Gemm { trans_b, ..op::Gemm::default() });
            let y = net.graph.node(gemm, &[&x, &w, &b]);
            net.pair(&y, 0.05, 100u8)
        });
    }
    declines(false, "com.microsoft's QGemm", |net| {
        let x = net.input(&[3, 5]);
        let x = net.u8(&x);
        let w = net.weight(&[5, 4], 1, &WEIGHT_SCALES);
        let y = net.graph.node(Op::Gemm(op::Gemm::default()), &[&x, &w]);
        net.u8(&y)
    });
}

#[test]
fn sums_products_and_functions() {
    for (op, expected) in [(Op::Add, "QLinearAdd"), (Op::Mul, "QLinearMul")] {
        check(&[expected], 0.03, |net| {
            let x = net.input(&[2, 3, 4]);
            let [a, b] = [net.u8(&x), net.pair(&x, 0.017, 100u8)];
            let y = net.graph.node(op, &[&a, &b]);
            net.pair(&y, 0.03, 90u8)
        });
    }
    let average = |dilations: Vec<i64>| {
        Op::AveragePool(op::AveragePool {
            auto_pad: op::AutoPad::NotSet,
            ceil_mode: false,
            count_include_pad: false,
            dilations,
            kernel_shape: vec![2, 2],
            pads: vec![],
            strides: vec![2, 2],
        })
    };
    let functions = [
        (Op::Sigmoid, "QLinearSigmoid"),
        (Op::LeakyRelu(op::LeakyRelu { alpha: 0.1 }), "QLinearLeakyRelu"),
        (Op::Softmax(op::Softmax { axis: 1 }), "QLinearSoftmax"),
        (Op::GlobalAveragePool, "QLinearGlobalAveragePool"),
        (average(vec![]), "QLinearAveragePool"),
    ];
    for (op, expected) in functions {
        check(&[expected], 1.0 / 128.0, |net| {
            let x = net.input(&[1, 3, 4, 4]);
            let x = net.u8(&x);
            let y = net.graph.node(op, &[&x]);
            net.pair(&y, 1.0 / 128.0, 60u8)
        });
    }
    declines(true, "dilated windows", |net| {
        let x = net.input(&[1, 3, 6, 6]);
        let x = net.u8(&x);
        let y = net.graph.node(average(vec![2, 2]), &[&x]);
        net.u8(&y)
    });
}

#[test]
fn concatenations() {
    let build = |scale: f32| {
        move |net: &mut Net| {
            let x = net.input(&[2, 3]);
            let [a, b] = [net.u8(&x), net.pair(&x, scale, 120u8)];
            let y = net.graph.node(Op::Concat(op::Concat { axis: 1 }), &[&a, &b]);
            net.u8(&y)
        }
    };
    check(&["QLinearConcat"], STEP, build(0.03));
    check(&["Concat"], STEP, build(STEP));
}

#[test]
fn what_only_moves_numbers_moves_integers() {
    let moved = |op: Op, more: &'static [&'static [i64]]| {
        check(&[op.name()], 0.0, |net| {
            let x = net.input(&[1, 4, 4, 4]);
            let x = net.u8(&x);
            let more: Vec<Name> = more.iter().map(|values| net.integers(values)).collect();
            let inputs: Vec<&Name> = std::iter::once(&x).chain(&more).collect();
            let y = net.graph.node(op.clone(), &inputs);
            net.u8(&y)
        });
    };
    moved(Op::Reshape(op::Reshape { allowzero: false }), &[&[1, -1]]);
    moved(Op::Transpose(op::Transpose { perm: vec![0, 2, 3, 1] }), &[]);
    moved(Op::Flatten(op::Flatten { axis: 1 }), &[]);
    moved(Op::Squeeze, &[&[0]]);
    moved(Op::Unsqueeze, &[&[0]]);
    moved(Op::Slice, &[&[1], &[3], &[1]]);
    moved(Op::Gather(op::Gather { axis: 1 }), &[&[3, 0]]);
    moved(Op::Expand, &[&[2, 4, 4, 4]]);
    moved(Op::Tile, &[&[2, 1, 1, 1]]);
    moved(Op::ReduceMax(op::Reduce { keepdims: true, noop_with_empty_axes: false }), &[&[1]]);
    let pool = op::MaxPool {
        auto_pad: op::AutoPad::NotSet,
        ceil_mode: false,
        dilations: vec![],
        kernel_shape: vec![2, 2],
        pads: vec![1; 4],
        storage_order: 0,
        strides: vec![2, 2],
    };
    moved(Op::MaxPool(pool), &[]);
}

#[test]
fn parts_of_a_split_are_quantized_alike() {
    let build = |second: f32| {
        move |net: &mut Net| {
            let x = net.input(&[2, 4]);
            let x = net.u8(&x);
            let sizes = net.integers(&[1, 3]);
            let split = Op::Split(op::Split { axis: 1, num_outputs: None });
            let parts = net.graph.node_with_outputs(split, &[&x, &sizes], 2);
            let [a, b] = [net.u8(&parts[0]), net.pair(&parts[1], second, 120u8)];
            let y = net.graph.node(Op::Add, &[&a, &b]);
            net.u8(&y)
        }
    };
    check(&["Split", "QLinearAdd"], STEP, build(STEP));
    declines(true, "differ in scale", build(0.03));
}

#[test]
fn choices_and_other_scales() {
    let build = |scale: f32| {
        move |net: &mut Net| {
            let x = net.input(&[3]);
            let condition = net.graph.initializer("condition", Tensor::vector(vec![true, false, true]));
            let [a, b] = [net.u8(&x), net.pair(&x, scale, 120u8)];
            let y = net.graph.node(Op::Where, &[&condition, &a, &b]);
            net.u8(&y)
        }
    };
    check(&["Where"], STEP, build(STEP));
    declines(true, "differ in scale", build(0.03));
    declines(true, "Tanh has no form on integers", |net| {
        let x = net.input(&[3]);
        let x = net.u8(&x);
        let y = net.graph.node(Op::Tanh, &[&x]);
        net.u8(&y)
    });
}

#[test]
fn floats_around_a_convolution_keep_it() {
    declines(true, "is read 2 times", |net| {
        let y = convolved(net);
        let quantized = net.u8(&y);
        net.graph.node(Op::Mul, &[&quantized, &y])
    });
    declines(true, "is an output of the network", |net| {
        let y = convolved(net);
        net.u8(&y);
        y
    });
    declines(true, "does not come from DequantizeLinear", |net| {
        let x = net.input(&[1, 3, 5, 5]);
        let w = net.weight(&[4, 3, 3, 3], 0, &WEIGHT_SCALES);
        let y = net.graph.node(conv(), &[&x, &w]);
        net.u8(&y)
    });
    declines(true, "goes to Tanh", |net| {
        let y = convolved(net);
        net.graph.node(Op::Tanh, &[&y])
    });
}

#[test]
fn scales_that_an_operator_cannot_have() {
    let with = |w: (usize, Vec<f32>), b: Vec<f32>, zero: u8| {
        move |net: &mut Net| {
            let x = net.input(&[1, 4, 5, 5]);
            let x = net.u8(&x);
            let w = net.weight(&[4, 4, 3, 3], w.0, &w.1);
            let b = net.bias(4, &b);
            let y = net.graph.node(conv(), &[&x, &w, &b]);
            net.pair(&y, STEP, zero)
        }
    };
    declines(true, "do not stand along axis 0", with((1, WEIGHT_SCALES.to_vec()), product_scales(), 100));
    let mut wrong = product_scales();
    wrong[2] *= 1.01;
    declines(true, "the scale 2 of the bias", with((0, WEIGHT_SCALES.to_vec()), wrong, 100));
    declines(true, "is i8, the others are not", |net| {
        let y = convolved(net);
        net.pair(&y, STEP, 0i8)
    });
    declines(true, "is no quantized one", |net| {
        let x = net.input(&[1, 3, 5, 5]);
        let x = net.u8(&x);
        let w = net.weight(&[4, 3, 3, 3], 0, &WEIGHT_SCALES);
        let b = net.graph.initializer("bias", Tensor::vector(vec![0.5f32; 4]));
        let y = net.graph.node(conv(), &[&x, &w, &b]);
        net.u8(&y)
    });
}

#[test]
fn without_zero_points_they_are_made() {
    let graph = network(|net| {
        let x = net.input(&[2, 3]);
        let scale = net.graph.initializer("scale", Tensor::scalar(STEP));
        let quantize = || Op::QuantizeLinear(op::QuantizeLinear::default());
        let dequantize = || Op::DequantizeLinear(op::DequantizeLinear::default());
        let q = net.graph.node(quantize(), &[&x, &scale]);
        let x = net.graph.node(dequantize(), &[&q, &scale]);
        let w = net.weight(&[3, 2], 1, &[0.01]);
        let y = net.graph.node(Op::MatMul, &[&x, &w]);
        let q = net.graph.node(quantize(), &[&y, &scale]);
        net.graph.node(dequantize(), &[&q, &scale])
    });
    let lowered = lower(&graph, false);
    assert_eq!(lowered.declined, []);
    for (a, b) in outputs(&graph).iter().zip(&outputs(&lowered.graph)) {
        assert!((a - b).abs() <= STEP * 1.001, "{a} and {b}");
    }
}

/// A residual network from image to classes.
fn residual(net: &mut Net) -> Name {
    let y = convolved(net);
    let y = net.graph.node(Op::Relu, &[&y]);
    let first = net.pair(&y, 0.03, 0u8);
    let w = net.weight(&[4, 4, 3, 3], 0, &WEIGHT_SCALES);
    let b = net.bias(4, &WEIGHT_SCALES.map(|scale| scale * 0.03));
    let y = net.graph.node(conv(), &[&first, &w, &b]);
    let second = net.pair(&y, 0.04, 130u8);
    let y = net.graph.node(Op::Add, &[&first, &second]);
    let y = net.graph.node(Op::Relu, &[&y]);
    let y = net.pair(&y, 0.04, 0u8);
    let y = net.graph.node(Op::GlobalAveragePool, &[&y]);
    let y = net.pair(&y, 0.02, 0u8);
    let y = net.graph.node(Op::Flatten(op::Flatten { axis: 1 }), &[&y]);
    let y = net.pair(&y, 0.02, 0u8);
    let w = net.weight(&[3, 4], 0, &WEIGHT_SCALES[..3]);
    let b = net.bias(3, &[0, 1, 2].map(|idx| WEIGHT_SCALES[idx] * 0.02));
    let y = net.graph.node(Op::Gemm(op::Gemm { trans_b: true, ..op::Gemm::default() }), &[&y, &w, &b]);
    net.pair(&y, 0.02, 100u8)
}

#[test]
fn a_residual_network_is_integers_throughout() {
    let graph = network(residual);
    let lowered = lower(&graph, true);
    assert_eq!(lowered.declined, []);
    let operators: Vec<&str> = lowered.graph.nodes.iter().map(|node| node.op.name()).collect();
    let expected = [
        "QuantizeLinear",
        "QLinearConv",
        "QLinearConv",
        "QLinearAdd",
        "QLinearGlobalAveragePool",
        "Flatten",
        "QGemm",
        "DequantizeLinear",
    ];
    assert_eq!(operators, expected);
    // a step of each layer may move the next
    for (a, b) in outputs(&graph).iter().zip(&outputs(&lowered.graph)) {
        assert!((a - b).abs() <= 3.0 * 0.02, "{a} and {b}");
    }
    let tract = lower(&graph, false);
    let operators: Vec<&str> = tract.lowered.iter().map(|lowered| lowered.operator.as_str()).collect();
    assert_eq!(operators, ["QLinearConv", "QLinearConv", "Flatten"]);
    assert_eq!(tract.declined.len(), 3);
}

#[test]
fn a_network_without_pairs_is_left_alone() {
    let graph = network(|net| {
        let x = net.input(&[2]);
        net.graph.node(Op::Relu, &[&x])
    });
    let lowered = lower(&graph, true);
    assert_eq!((lowered.graph, lowered.lowered, lowered.declined), (graph, vec![], vec![]));
}

#[test]
fn a_clip_without_bounds_is_superfluous() {
    check(&["QLinearConv"], 0.05, |net| {
        let y = convolved(net);
        let clipped = Name::from("clipped");
        net.graph.push(Node::new(Op::Clip, vec![Some(y), None, None], vec![Some(clipped.clone())]));
        net.pair(&clipped, 0.05, 100u8)
    });
}
