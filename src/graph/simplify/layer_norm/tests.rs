//! Spellings of normalizations that are recognised, and those that are left.

use proptest::prelude::*;

use crate::graph::op::{Cast, Op, Reduce, RoundMode};
use crate::graph::simplify::testing::{Net, check, check_declined_with, check_with};
use crate::graph::simplify::{Options, simplify};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, Name, TensorType};

/// How a normalization is spelled out.
#[derive(Clone, Copy, Debug, Default)]
struct Spelling {
    axes: &'static [i64],
    pow: bool,
    centred_twice: bool,
    /// 0: divided, 1: times the reciprocal, 2: times one over, 3: times the power −½, 4: divided by the power ½
    root: u8,
    uncentred: bool,
    /// 0: none, 1: a vector, 2: with leading ones, 3: a scalar
    scale: u8,
    bias: bool,
}

fn mean(net: &mut Net, x: &Name, axes: &[i64]) -> Name {
    let axes = net.list(axes);
    net.node(Op::ReduceMean(Reduce { keepdims: true, noop_with_empty_axes: false }), &[x, &axes])
}

fn centred(net: &mut Net, x: &Name, axes: &[i64]) -> Name {
    let mean = mean(net, x, axes);
    net.node(Op::Sub, &[x, &mean])
}

fn spelled(net: &mut Net, x: &Name, spelling: Spelling) -> Name {
    let axes = if spelling.axes.is_empty() { &[-1] } else { spelling.axes };
    let above = if spelling.uncentred { x.clone() } else { centred(net, x, axes) };
    let below = if spelling.centred_twice { centred(net, x, axes) } else { above.clone() };
    let two = net.scalar(2.0);
    let square = if spelling.pow { net.node(Op::Pow, &[&below, &two]) } else { net.node(Op::Mul, &[&below, &below]) };
    let variance = mean(net, &square, axes);
    let epsilon = net.scalar(1e-3);
    let variance = net.node(Op::Add, &[&epsilon, &variance]);
    let power = |net: &mut Net, exponent: f32| {
        let exponent = net.scalar(exponent);
        net.node(Op::Pow, &[&variance, &exponent])
    };
    let y = match spelling.root {
        3 => {
            let inverse = power(net, -0.5);
            net.node(Op::Mul, &[&above, &inverse])
        }
        4 => {
            let root = power(net, 0.5);
            net.node(Op::Div, &[&above, &root])
        }
        kind => {
            let root = net.node(Op::Sqrt, &[&variance]);
            let one = net.scalar(1.0);
            match kind {
                0 => net.node(Op::Div, &[&above, &root]),
                1 => {
                    let inverse = net.node(Op::Reciprocal, &[&root]);
                    net.node(Op::Mul, &[&inverse, &above])
                }
                _ => {
                    let inverse = net.node(Op::Div, &[&one, &root]);
                    net.node(Op::Mul, &[&above, &inverse])
                }
            }
        }
    };
    let shape: &[usize] = if axes.len() == 1 { &[6] } else { &[4, 6] };
    let leading: Vec<usize> = [1].into_iter().chain(shape.iter().copied()).collect();
    let y = match spelling.scale {
        0 => y,
        kind => {
            let scale = net.random(match kind {
                1 => shape,
                2 => &leading,
                _ => &[],
            });
            net.node(Op::Mul, &[&scale, &y])
        }
    };
    if spelling.bias {
        let bias = net.random(shape);
        return net.node(Op::Add, &[&y, &bias]);
    }
    y
}

fn network(spelling: Spelling) -> Graph {
    let mut net = Net::new(1);
    let x = net.input(&[2, 4, 6]);
    let y = spelled(&mut net, &x, spelling);
    net.finish(&y)
}

#[test]
fn the_usual_spelling() {
    let graph = network(Spelling { pow: true, scale: 1, bias: true, ..Spelling::default() });
    let simplified = check(&graph, &["LayerNormalization"]);
    insta::assert_snapshot!(crate::graph::show::show(&simplified.graph), @r#"
    graph "net"
      in   %x: f32[2, 4, 6]
      out  %add_2
      init %w: f32[6] [-0.99649346, 0.2650621, 0.8110064, 0.09135926, 0.0010894537, 0.59160435]
      init %w_2: f32[6] [-0.6637714, -0.91069144, 0.013361812, 0.98794246, 0.969452, 0.42082882]
      %add_2 = LayerNormalization(%x, %w, %w_2) {epsilon=0.001}
    "#);
    let simplified = check(&network(Spelling::default()), &["LayerNormalization"]);
    insta::assert_snapshot!(crate::graph::show::show(&simplified.graph), @r#"
    graph "net"
      in   %x: f32[2, 4, 6]
      out  %div
      init %ones: f32[6] [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
      %div = LayerNormalization(%x, %ones) {epsilon=0.001}
    "#);
}

#[test]
fn root_mean_square() {
    let graph = network(Spelling { uncentred: true, scale: 1, bias: true, ..Spelling::default() });
    let simplified = check(&graph, &["RMSNormalization", "Add"]);
    insta::assert_snapshot!(crate::graph::show::show(&simplified.graph), @r#"
    graph "net"
      in   %x: f32[2, 4, 6]
      out  %add_2
      init %w: f32[6] [-0.99649346, 0.2650621, 0.8110064, 0.09135926, 0.0010894537, 0.59160435]
      init %w_2: f32[6] [-0.6637714, -0.91069144, 0.013361812, 0.98794246, 0.969452, 0.42082882]
      %mul_2 = RMSNormalization(%x, %w) {epsilon=0.001}
      %add_2 = Add(%mul_2, %w_2)
    "#);
}

#[test]
fn as_tf2onnx_has_it() {
    for scaled in [true, false] {
        let mut net = Net::new(2);
        let x = net.input(&[2, 4, 6]);
        let average = mean(&mut net, &x, &[2]);
        let difference = net.node(Op::Sub, &[&x, &average]);
        let square = net.node(Op::Mul, &[&difference, &difference]);
        let variance = mean(&mut net, &square, &[2]);
        let epsilon = net.scalar(1e-3);
        let variance = net.node(Op::Add, &[&variance, &epsilon]);
        let root = net.node(Op::Sqrt, &[&variance]);
        let mut factor = net.node(Op::Reciprocal, &[&root]);
        if scaled {
            let scale = net.random(&[6]);
            factor = net.node(Op::Mul, &[&factor, &scale]);
        }
        let a = net.node(Op::Mul, &[&x, &factor]);
        let b = net.node(Op::Mul, &[&average, &factor]);
        let bias = net.random(&[6]);
        let b = net.node(Op::Sub, &[&bias, &b]);
        let y = net.node(Op::Add, &[&a, &b]);
        check(&net.finish(&y), &["LayerNormalization"]);
    }
}

fn cast(to: DType) -> Op {
    Op::Cast(Cast { to, saturate: true, round_mode: RoundMode::Up })
}

#[test]
fn casts_around_and_inside_are_the_operators_own() {
    let mut net = Net::new(3);
    let x = net.builder.input("x", TensorType::new(DType::F16, [2usize, 6]));
    let wide = net.node(cast(DType::F32), &[&x]);
    let y = spelled(&mut net, &wide, Spelling::default());
    let y = net.node(cast(DType::F16), &[&y]);
    let scale = net.builder.initializer("scale", Tensor::vector(vec![half::f16::from_f32(0.5); 6]));
    let y = net.node(Op::Mul, &[&y, &scale]);
    let graph = net.finish(&y);
    let simplified = simplify(&graph, &Options::default()).expect("it fits");
    insta::assert_snapshot!(crate::graph::show::show(&simplified.graph), @r#"
    graph "net"
      in   %x: f16[2, 6]
      out  %mul_2
      init %scale: f16[6] [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
      %mul_2 = LayerNormalization(%x, %scale) {epsilon=0.001}
    "#);

    let mut net = Net::new(4);
    let x = net.input(&[2, 6]);
    let average = mean(&mut net, &x, &[1]);
    let difference = net.node(Op::Sub, &[&x, &average]);
    let same = net.node(cast(DType::F32), &[&difference]);
    let two = net.scalar(2.0);
    let square = net.node(Op::Pow, &[&same, &two]);
    let variance = mean(&mut net, &square, &[1]);
    let epsilon = net.scalar(1e-3);
    let variance = net.node(Op::Add, &[&variance, &epsilon]);
    let root = net.node(Op::Sqrt, &[&variance]);
    let y = net.node(Op::Div, &[&difference, &root]);
    check(&net.finish(&y), &["LayerNormalization"]);
}

#[test]
fn another_cast_inside_is_no_part_of_it() {
    let mut net = Net::new(11);
    let x = net.input(&[2, 6]);
    let average = mean(&mut net, &x, &[1]);
    let difference = net.node(Op::Sub, &[&x, &average]);
    let narrow = net.node(cast(DType::F16), &[&difference]);
    let square = net.node(Op::Mul, &[&narrow, &narrow]);
    let variance = mean(&mut net, &square, &[1]);
    let epsilon = net.builder.initializer("epsilon", Tensor::scalar(half::f16::from_f32(1e-3)));
    let variance = net.node(Op::Add, &[&variance, &epsilon]);
    let root = net.node(Op::Sqrt, &[&variance]);
    let y = net.node(Op::Div, &[&narrow, &root]);
    let limited = Options { opset: Some(22), ..Options::default() };
    let simplified = simplify(&net.finish(&y), &limited).expect("it fits");
    assert_eq!(simplified.declined[0].reason, "it is computed in part in another type than f32");
}

#[test]
fn a_gate_is_no_scale() {
    let mut net = Net::new(5);
    let x = net.input(&[2, 4, 6]);
    let gate = net.builder.input("gate", TensorType::new(DType::F32, [6usize]));
    let y = spelled(&mut net, &x, Spelling::default());
    let y = net.node(Op::Mul, &[&y, &gate]);
    check(&net.finish(&y), &["LayerNormalization", "Mul"]);
}

#[test]
fn only_as_far_as_the_opset_goes() {
    let graph = network(Spelling { scale: 1, bias: true, ..Spelling::default() });
    let limited = |opset| Options { opset: Some(opset), ..Options::default() };
    check_with(&limited(17), &graph, &["LayerNormalization"]);
    let reasons = [
        "LayerNormalization is an operator of opset 17, the network keeps to 16",
        "RMSNormalization is an operator of opset 23, the network keeps to 16",
    ];
    check_declined_with(&limited(16), &graph, &reasons);
}

#[test]
fn other_axes_and_readers_are_left() {
    let declined = |graph: &Graph, reason: &str| {
        let limited = Options { opset: Some(22), ..Options::default() };
        let simplified = simplify(graph, &limited).expect("it fits");
        assert_eq!(simplified.graph.nodes.len(), graph.nodes.len());
        assert_eq!(simplified.declined[0].reason, reason);
    };
    declined(&network(Spelling { axes: &[1], ..Spelling::default() }), "a mean is over other axes than the last");

    let mut net = Net::new(6);
    let x = net.input(&[2, 4, 6]);
    let y = spelled(&mut net, &x, Spelling::default());
    net.builder.output(&"sub".into());
    declined(&net.finish(&y), "`sub` is read elsewhere, too");

    let mut net = Net::new(7);
    let x = net.builder.input("x", TensorType::new(DType::F32, [Dim::from(2), Dim::from("width")]));
    let y = spelled(&mut net, &x, Spelling::default());
    declined(&net.finish(&y), "the size of the normalized axes is not known");

    let mut net = Net::new(8);
    let x = net.input(&[2, 6]);
    let average = mean(&mut net, &x, &[1]);
    let difference = net.node(Op::Sub, &[&x, &average]);
    let square = net.node(Op::Mul, &[&difference, &difference]);
    let variance = mean(&mut net, &square, &[0]);
    let epsilon = net.scalar(1e-3);
    let variance = net.node(Op::Add, &[&variance, &epsilon]);
    let root = net.node(Op::Sqrt, &[&variance]);
    let y = net.node(Op::Div, &[&difference, &root]);
    declined(&net.finish(&y), "a mean is over other axes than the last");

    let mut net = Net::new(9);
    let x = net.input(&[2, 6]);
    let y = spelled(&mut net, &x, Spelling::default());
    let mut parts = net.finish(&y).to_parts();
    let epsilon = parts.initializers.values_mut().find(|tensor| **tensor == Tensor::scalar(1e-3f32));
    *epsilon.expect("the epsilon") = Tensor::scalar(2f32);
    declined(&Graph::new(parts).expect("a network"), "what it adds under the root is not between 0 and 1");
}

#[test]
fn wider_floats_are_left() {
    let mut net = Net::new(10);
    let x = net.input(&[2, 6]);
    let y = spelled(&mut net, &x, Spelling::default());
    let mut parts = net.finish(&y).to_parts();
    parts.inputs[0].value_type = Some(TensorType::new(DType::F64, [2usize, 6]).into());
    for tensor in parts.initializers.values_mut().filter(|tensor| tensor.dtype() == DType::F32) {
        let number = f64::from(tensor.as_slice::<f32>().expect("floats")[0]);
        *tensor = Tensor::scalar(number);
    }
    let reason = "the operator computes in f32, which is narrower than f64";
    let simplified = simplify(&Graph::new(parts).expect("a network"), &Options::default()).expect("it fits");
    assert!(simplified.graph.nodes.iter().all(|node| !matches!(node.op, Op::LayerNormalization(_))));
    assert!(simplified.declined.iter().all(|declined| declined.reason == reason));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_spelling(
        several: bool, pow: bool, centred_twice: bool, root in 0u8..5, uncentred: bool, scale in 0u8..4, bias: bool,
    ) {
        let axes: &[i64] = if several { &[2, -2] } else { &[] };
        let spelling = Spelling { axes, pow, centred_twice: centred_twice && !uncentred, root, uncentred, scale, bias };
        let operators: &[&str] = match (uncentred, bias) {
            (false, _) => &["LayerNormalization"],
            (true, false) => &["RMSNormalization"],
            (true, true) => &["RMSNormalization", "Add"],
        };
        check(&network(spelling), operators);
    }
}
