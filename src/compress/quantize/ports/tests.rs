//! Integers in and out: the same numbers as with floats, and what cannot be.

use indexmap::IndexMap;

use crate::compress::quantize::Calibrator;
use crate::compress::quantize::integer_ports;
use crate::compress::quantize::ports::IntegerPorts;
use crate::compress::quantize::qoperator::{QOperatorOptions, to_qoperator};
use crate::compress::quantize::tests::{inputs, outputs, planned, quantized, residual, wave};
use crate::graph::op::{self, Op};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, GraphBuilder, Name, TensorType, eval};

const PORTS: &str = "integer_ports = true";

/// Calibrated by the least and the greatest, in Q/DQ form.
fn with_pairs(graph: &Graph, scheme: &str) -> Graph {
    let plan = planned(graph, scheme).expect("it has products");
    quantized(graph, &plan, Calibrator::MinMax)
}

/// What integers give: brought back to floats by what the report says of the ports.
fn by_integers(ports: &IntegerPorts, graph: &Graph) -> Vec<f32> {
    let of = |name: &Name| ports.ports.iter().find(|port| port.name == *name).expect("it is a port");
    let to_integers = |(name, tensor): (Name, Tensor)| {
        let port = of(&name);
        let [scale, zero] = [Tensor::scalar(port.scale), Tensor::scalar(port.zero_point as u8)];
        let op = Op::QuantizeLinear(op::QuantizeLinear::default());
        let made = eval::operator(&op, &[Some(tensor), Some(scale), Some(zero)], 1).expect("defined");
        (name, made[0].clone().expect("one output"))
    };
    let given: IndexMap<Name, Tensor> = inputs(graph, 0.4).into_iter().map(to_integers).collect();
    let outputs = eval::run(&ports.graph, &given).expect("it runs");
    let to_floats = |(name, tensor): (Name, Tensor)| {
        let port = of(&name);
        assert_eq!((port.is_output, tensor.dtype()), (true, DType::U8));
        let integers = tensor.to_vec::<u8>().expect("bytes").into_iter();
        integers.map(|q| (f32::from(q) - port.zero_point as f32) * port.scale).collect::<Vec<f32>>()
    };
    outputs.into_iter().flat_map(to_floats).collect()
}

#[test]
fn integers_in_and_out_are_the_same_numbers() {
    let graph = residual();
    let pairs = with_pairs(&graph, PORTS);
    let lowered = to_qoperator(&pairs, &QOperatorOptions::default()).expect("lowered").graph;
    for form in [pairs, lowered] {
        let ports = integer_ports(&form).expect("all is quantized");
        ports.graph.check().expect("a graph");
        let names = |graph: &Graph| {
            let ports = graph.inputs.iter().chain(&graph.outputs);
            ports.map(|port| port.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&ports.graph), names(&form));
        let types = ports.graph.inputs.iter().chain(&ports.graph.outputs).map(|port| port.tensor_type());
        assert!(types.flatten().all(|known| known.dtype == DType::U8));
        assert_eq!(by_integers(&ports, &graph), outputs(&form, 0.4));
        let (key, value) = ports.ports[0].metadata();
        assert_eq!(key, "aludel.input.x");
        assert!(value.starts_with("u8 scale=") && value.contains(" zero_point="), "{value}");
    }
}

/// `[1, 4]` in, a product, and what is made of it.
fn product(build: impl FnOnce(&mut GraphBuilder, &Name, &Name) -> Vec<Name>) -> Graph {
    let mut builder = GraphBuilder::new("net");
    let x = builder.input("x", TensorType::new(DType::F32, [1usize, 4]));
    let weight = builder.initializer("weight", wave(&[4, 4], 0.0));
    let y = builder.node(Op::MatMul, &[&x, &weight]);
    build(&mut builder, &x, &y).iter().for_each(|y| builder.output(y));
    builder.finish().expect("a graph")
}

#[test]
fn an_output_that_is_read_within_is_still_read_in_floats() {
    let graph = product(|net, _, y| vec![y.clone(), net.node(Op::Add, &[y, y])]);
    let form = with_pairs(&graph, PORTS);
    let ports = integer_ports(&form).expect("all is quantized");
    assert_eq!(by_integers(&ports, &graph), outputs(&form, 0.4));
}

#[test]
fn what_is_not_quantized_is_named() {
    let refused =
        |graph: &Graph, scheme: &str| integer_ports(&with_pairs(graph, scheme)).expect_err("refused").to_string();
    let last = product(|_, _, y| vec![y.clone()]);
    // Without being asked for, what a last product makes is floats.
    assert!(refused(&last, "").starts_with("`matmul` cannot become integers: MatMul `matmul` makes it in floats ("));
    let softmax = product(|net, _, y| vec![net.node(Op::Softmax(op::Softmax { axis: -1 }), &[y])]);
    let error = refused(&softmax, PORTS);
    assert!(error.starts_with("`softmax` cannot become integers: Softmax `softmax` makes it in floats"), "{error}");
    let mut builder = GraphBuilder::new("net");
    let x = builder.input("x", TensorType::new(DType::F32, [1usize, 4]));
    let shifted = builder.node(Op::Tanh, &[&x]);
    let weight = builder.initializer("weight", wave(&[4, 4], 0.0));
    let y = builder.node(Op::MatMul, &[&shifted, &weight]);
    builder.output(&y);
    let tanh = builder.finish().expect("a graph");
    assert!(refused(&tanh, PORTS).starts_with("`x` cannot become integers: Tanh `tanh` reads it in floats"));
}
