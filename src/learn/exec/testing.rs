//! What the tests of this room share: a graph's values and gradients by this room, by the reference interpreter and by
//! finite differences.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::ExecError;
use super::compile::{Mode, Request};
use super::host::Host;
use super::numbers::singles;
use super::program::Program;
use super::run::run;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, GraphBuilder, Name, Node, Op, TensorType, eval};

/// Inputs by name.
pub(crate) type Inputs = IndexMap<Name, Tensor>;

/// Gradients by name.
pub(crate) type Gradients = Vec<(Name, Tensor)>;

/// A request for these inputs.
pub(crate) fn request(
    inputs: &Inputs,
    mode: Mode,
    outputs: &[Name],
    loss: Option<&Name>,
    trainable: &[Name],
) -> Request {
    let shapes: BTreeMap<Name, Vec<usize>> =
        inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect();
    let trainable: BTreeSet<Name> = trainable.iter().cloned().collect();
    Request { shapes, mode, outputs: outputs.to_vec(), loss: loss.cloned(), trainable, variable: BTreeSet::new() }
}

/// Outputs, then gradients, of a program on candle's tensors of `f64`.
pub(crate) fn run_generic(
    graph: &Graph,
    inputs: &Inputs,
    request: &Request,
) -> Result<(Vec<Tensor>, Gradients), ExecError> {
    let run = run(graph, inputs, request)?;
    Ok((run.outputs.into_values().collect(), run.gradients.into_iter().collect()))
}

/// Outputs, then gradients, of a program on the host, in `f32`.
pub(crate) fn run_host(graph: &Graph, inputs: &Inputs, request: &Request) -> Result<Vec<Tensor>, ExecError> {
    let program = Arc::new(Program::compile(graph, request)?);
    let parameters: Vec<Vec<f32>> = program
        .parameters
        .iter()
        .map(|(name, _)| singles(&graph.initializers[name]).map(Cow::into_owned))
        .collect::<Result<_, _>>()?;
    let parameters: Vec<&[f32]> = parameters.iter().map(Vec::as_slice).collect();
    let given: Vec<Tensor> = program.inputs.iter().map(|(name, _)| inputs[name].clone()).collect();
    let mut host = Host::new(Arc::clone(&program))?;
    host.run(&parameters, &given, 0)?;
    let ends = program.outputs.iter().chain(&program.gradients);
    ends.map(|(_, id)| host.tensor(*id, &parameters, &given)).collect()
}

/// One operator on these inputs and constants, with a loss of random weights over its outputs: its values are those of the
/// reference interpreter, and its gradients with respect to `learns` those of finite differences. Inputs are named `0`, `1`,
/// … by position; those of another type than `f64`, and those not in `learns`, are constants if `fixed` has them.
#[track_caller]
pub(crate) fn check(op: Op, inputs: &[Option<Tensor>], learns: &[usize], fixed: &[usize]) {
    check_outputs(op, inputs, learns, fixed, 8);
}

/// As [`check`], with no more than so many of the outputs named.
#[track_caller]
pub(crate) fn check_outputs(op: Op, inputs: &[Option<Tensor>], learns: &[usize], fixed: &[usize], n_outputs: usize) {
    let what = format!("{op:?}");
    let mut builder = GraphBuilder::new("one");
    let mut given = Inputs::new();
    let names: Vec<Option<Name>> = inputs
        .iter()
        .enumerate()
        .map(|(idx, tensor)| {
            let tensor = tensor.as_ref()?;
            Some(if fixed.contains(&idx) {
                builder.initializer(&format!("c{idx}"), tensor.clone())
            } else {
                let name = builder.input(&format!("x{idx}"), TensorType::of(tensor));
                given.insert(name.clone(), tensor.clone());
                name
            })
        })
        .collect();
    let trainable: Vec<Name> = learns.iter().filter_map(|&idx| names[idx].clone()).collect();
    let mut values = eval::operator(&op, inputs, n_outputs).expect("the reference knows the operator");
    values.truncate(n_outputs);
    let outputs: Vec<Name> = (0..values.len()).map(|idx| Name::from(format!("y{idx}"))).collect();
    builder.push(Node::new(op, names, outputs.iter().cloned().map(Some).collect()));
    let mut terms: Vec<Name> = Vec::new();
    let mut number = 0.3f64;
    for (name, value) in outputs.iter().zip(&values) {
        let Some(value) = value.as_ref().filter(|value| value.dtype() == DType::F64) else { continue };
        let weights = (0..value.len())
            .map(|_| {
                number = (number * 37.7 + 0.1).fract();
                number - 0.5
            })
            .collect();
        let weights = Tensor::new(value.shape(), weights).expect("a weight for each element");
        let weights = builder.initializer("weights", weights);
        let product = builder.node(Op::Mul, &[name, &weights]);
        let reduce = crate::graph::op::Reduce { keepdims: false, noop_with_empty_axes: false };
        terms.push(builder.node(Op::ReduceSum(reduce), &[&product]));
        if !learns.is_empty() {
            break;
        }
    }
    let loss = builder.node(Op::Sum, &terms.iter().collect::<Vec<_>>());
    builder.output(&loss);
    let graph = builder.finish().expect("the graph is whole");
    let loss = (!learns.is_empty()).then_some(&loss);
    let request = request(&given, Mode::Inference, &outputs[..values.iter().flatten().count()], loss, &trainable);
    let (found, gradients) = run_generic(&graph, &given, &request).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (found, value) in found.iter().zip(values.iter().flatten()) {
        close(&what, found, value, 1e-6);
    }
    let single = run_host(&graph, &given, &request).unwrap_or_else(|error| panic!("{what}: {error}"));
    let double = found.iter().chain(gradients.iter().map(|(_, gradient)| gradient));
    for (single, double) in single.iter().zip(double) {
        close(&format!("{what} on the host"), single, double, 1e-4);
    }
    for name in &trainable {
        let expected = finite_differences(&graph, &given, loss.expect("there is one"), name);
        let (_, found) = gradients.iter().find(|(found, _)| found == name).expect("the loss depends on it");
        close(
            &format!("{what}: gradient of {name}"),
            found,
            &Tensor::new(found.shape(), expected).expect("as long"),
            1e-5,
        );
    }
}

/// Each element within `tolerance` of the largest magnitude.
#[track_caller]
pub(crate) fn close(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let numbers = |tensor: &Tensor| -> Vec<f64> {
        match (tensor.as_slice::<f64>(), tensor.to_f32s()) {
            (Ok(values), _) => values.to_vec(),
            (Err(_), Ok(values)) => values.iter().map(|&value| value.into()).collect(),
            (Err(_), Err(_)) => Vec::new(),
        }
    };
    let (found, expected) = (numbers(found), numbers(expected));
    let largest =
        expected.iter().filter(|value| value.is_finite()).fold(1e-3f64, |largest, value| largest.max(value.abs()));
    for (idx, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let same = found == expected || (found.is_nan() && expected.is_nan());
        assert!(
            same || (found - expected).abs() <= tolerance * largest,
            "{what}: element {idx} is {found}, not {expected}"
        );
    }
}

/// Numbers between −1 and 1 that are the same every time.
pub(crate) fn numbers(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(n as u64 + 1);
    let values = (0..n).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    });
    Tensor::new(shape, values.collect::<Vec<f64>>()).expect("a number for each element")
}

/// The derivative of the loss with respect to each element of a value, by the reference interpreter and central
/// differences.
pub(crate) fn finite_differences(graph: &Graph, inputs: &Inputs, loss: &Name, of: &Name) -> Vec<f64> {
    let at = |tensor: Tensor| {
        let mut inputs = inputs.clone();
        let mut parts = graph.to_parts();
        match inputs.get_mut(of) {
            Some(input) => *input = tensor,
            None => *parts.initializers.get_mut(of).expect("a trainable value is an input or an initializer") = tensor,
        }
        let graph = Graph::new(parts).expect("only a value has changed");
        let values = eval::run_with(&graph, &inputs, std::slice::from_ref(loss)).expect("the reference runs it");
        values[loss].as_slice::<f64>().expect("the graph computes in f64")[0]
    };
    let tensor = inputs.get(of).unwrap_or_else(|| &graph.initializers[of]);
    let values = tensor.to_vec::<f64>().expect("the graph computes in f64");
    let step = 1e-5;
    (0..values.len())
        .map(|idx| {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[idx] += by;
                at(Tensor::new(tensor.shape(), values).expect("the shape stays"))
            };
            (moved(step) - moved(-step)) / (2.0 * step)
        })
        .collect()
}
