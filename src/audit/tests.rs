//! The search for what goes wrong, on a runtime that goes wrong in ways we choose.

use super::*;
use crate::graph::op::{Opaque, QuantizeLinear, Softmax};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, GraphBuilder, Op, TensorType, eval};
use crate::measure::runtime::explain::Explanation;
use crate::measure::runtime::{Session, ValueInfo};
use crate::onnx;

/// The reference as a runtime, with a fault.
#[derive(Clone, Copy)]
struct Faulty {
    /// Graphs whose results are one too large.
    breaks: fn(&Graph) -> bool,
    /// What float inputs are multiplied with.
    factor: f32,
}

struct FaultySession {
    runtime: Faulty,
    graph: Graph,
}

impl Runtime for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn version(&self) -> String {
        "1".to_owned()
    }

    fn load(&self, model: &ModelBytes, _: &Options) -> Result<Box<dyn Session>, RuntimeError> {
        let graph = onnx::read_bytes(model.bytes().clone(), None).expect("we wrote it").graph;
        Ok(Box::new(FaultySession { runtime: *self, graph }))
    }

    fn explain(
        &self,
        _: &ModelBytes,
        _: &Options,
        _: &[(String, Tensor)],
        _: Runs,
    ) -> Result<Explanation, RuntimeError> {
        Ok(Explanation { nodes: Vec::new(), run_us: vec![1.0], optimized_model: None, resolution_us: 0.0 })
    }
}

impl Session for FaultySession {
    fn inputs(&self) -> &[ValueInfo] {
        &[]
    }

    fn outputs(&self) -> &[ValueInfo] {
        &[]
    }

    fn run(&mut self, inputs: &[(String, Tensor)]) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let changed = |tensor: &Tensor, change: &dyn Fn(f32) -> f32| match tensor.as_slice::<f32>() {
            Ok(floats) => Tensor::new(tensor.shape(), floats.iter().map(|&x| change(x)).collect()).expect("as many"),
            Err(_) => tensor.clone(),
        };
        let factor = self.runtime.factor;
        let given = inputs.iter().map(|(name, tensor)| (name.as_str().into(), changed(tensor, &|x| x * factor)));
        let computed = eval::run(&self.graph, &given.collect()).expect("the reference computes it");
        let added = if (self.runtime.breaks)(&self.graph) { 1.0 } else { 0.0 };
        Ok(computed.into_iter().map(|(name, tensor)| (name.to_string(), changed(&tensor, &|x| x + added))).collect())
    }
}

fn check(graph: Graph, x: Vec<f32>, runtime: Faulty) -> Correctness {
    let mut model = Model::new(graph);
    model.domains.insert("nobody".to_owned(), 1);
    let bytes = ModelBytes::new(onnx::to_bytes(&model).expect("it can be written"));
    let feed: Feed = vec![("x".to_owned(), Tensor::vector(x))];
    let audited = audit(&model, &bytes, &runtime, &[feed], &Settings::default(), &mut |_| ());
    audited.expect("the reference runs it").correctness
}

fn unary(operators: &[Op]) -> Graph {
    let mut builder = GraphBuilder::new("unary");
    let mut x = builder.input("x", TensorType::new(DType::F32, [2usize]));
    for op in operators {
        x = builder.node(op.clone(), &[&x]);
    }
    builder.typed_output(&x, TensorType::new(DType::F32, [2usize]));
    builder.finish().expect("a graph")
}

#[test]
fn the_first_of_several_wrong_operators_comes_first() {
    let breaks = |graph: &Graph| graph.nodes.iter().any(|node| node.op == Op::Abs);
    let graph = unary(&[Op::Neg, Op::Abs, Op::Relu, Op::Abs]);
    let correctness = check(graph, vec![1.0, 2.0], Faulty { breaks, factor: 1.0 });
    assert_eq!(correctness.verdict, Verdict::OperatorsGoWrong);
    let wrong: Vec<&str> = correctness.wrong.iter().map(|wrong| wrong.node.as_str()).collect();
    assert_eq!((wrong, correctness.n_tried), (vec!["Abs `abs`", "Abs `abs_2`"], 4));
    assert_eq!(correctness.wrong[0].worst, Some((1, 2.0, 3.0)));
}

#[test]
fn operators_that_are_wrong_only_together_are_named_together() {
    let breaks = |graph: &Graph| graph.nodes.windows(2).any(|pair| pair[0].op == Op::Neg && pair[1].op == Op::Abs);
    let graph = unary(&[Op::Relu, Op::Sigmoid, Op::Neg, Op::Abs, Op::Relu, Op::Tanh]);
    let correctness = check(graph, vec![1.0, 2.0], Faulty { breaks, factor: 1.0 });
    let nodes = vec!["Neg `neg`".to_owned(), "Abs `abs`".to_owned()];
    assert_eq!(correctness.verdict, Verdict::WrongTogether { nodes });
    assert!(correctness.wrong.is_empty() && correctness.n_tried == 6);
}

/// Two numbers on the edge of a step, 10 000 times as large before a Softmax: one step decides it.
#[test]
fn a_step_that_the_network_magnifies_is_nobody_s_fault() {
    let mut builder = GraphBuilder::new("magnifies");
    let x = builder.input("x", TensorType::new(DType::F32, [2usize]));
    let x = builder.node(Op::Neg, &[&x]);
    let scale = builder.initializer("scale", Tensor::scalar(1f32 / 128.0));
    let zero = builder.initializer("zero", Tensor::scalar(0u8));
    let x = builder.node(Op::QuantizeLinear(QuantizeLinear::default()), &[&x, &scale, &zero]);
    let x = builder.node(Op::DequantizeLinear(Default::default()), &[&x, &scale, &zero]);
    let many = builder.initializer("many", Tensor::scalar(1e4f32));
    let x = builder.node(Op::Mul, &[&x, &many]);
    let x = builder.node(Op::Softmax(Softmax { axis: -1 }), &[&x]);
    builder.output(&x);
    let graph = builder.finish().expect("a graph");
    let runtime = Faulty { breaks: |_| false, factor: 1.0 + 1e-5 };
    let correctness = check(graph, vec![-64.4999 / 128.0, -64.0 / 128.0], runtime);
    assert_eq!(correctness.verdict, Verdict::AddsUp { from: Some("Softmax `softmax`".to_owned()) });
}

#[test]
fn what_the_reference_does_not_know_is_not_checked() {
    let opaque = Opaque { domain: "nobody".to_owned(), op_type: "Foo".to_owned(), attributes: Vec::new() };
    let correctness = check(unary(&[Op::Opaque(opaque)]), vec![1.0, 2.0], Faulty { breaks: |_| false, factor: 1.0 });
    let Verdict::NotChecked { reason } = &correctness.verdict else { panic!("{correctness:?}") };
    assert!(reason.contains("Foo"), "{reason}");
}
