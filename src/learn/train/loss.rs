//! Losses, as ordinary nodes behind a network: what trains is a graph like any other.
//!
//! Targets are numbers of the shape of the prediction: for classes a distribution a sample, so that smoothed, mixed and soft
//! labels are nothing special.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::behind::Behind;
use crate::graph::op::{LpNormalization, Op, Softmax};
use crate::graph::shape::{Bindings, Types, infer};
use crate::graph::tensor::DType;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, TensorType};

/// What a prediction is measured by, as TOML has it: `"cross-entropy"` or `{ huber = { delta = 1.0 } }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// `−Σ t log softmax(z)` over the last axis, the mean over the rest.
    #[default]
    CrossEntropy,
    /// `−t log σ(z) − (1 − t) log(1 − σ(z))`, the mean over all.
    BinaryCrossEntropy,
    /// `(p − t)²`, the mean over all.
    Mse,
    /// `|p − t|`, the mean over all.
    Mae,
    /// `½ d²` where `d = |p − t|` is at most `delta`, else `delta (d − ½ delta)`; the mean over all. Huber, "Robust
    /// Estimation of a Location Parameter" (1964).
    Huber {
        /// where the square ends
        #[serde(default = "default_delta")]
        delta: f32,
    },
    /// `1 − p·t / (|p| |t|)` over the last axis, the mean over the rest.
    Cosine,
}

fn default_delta() -> f32 {
    1.0
}

/// A network with its loss.
#[derive(Clone, Debug)]
pub struct WithLoss {
    /// The network, the target among its inputs and the loss among its values.
    pub graph: Graph,
    /// What the loss reads of the network: logits for the two cross-entropies, else the output.
    pub prediction: Name,
    /// The input with the target, of the shape of the prediction; none where the loss reads no labels.
    pub target: Option<Name>,
    /// The loss, one number.
    pub loss: Name,
    /// Initializers that learn and are not the network's own, in the order of the graph.
    pub learned: Vec<Name>,
}

/// The network with a loss on one of its outputs. Where a cross-entropy is asked for and the output is that of a Softmax (or
/// Sigmoid), the loss reads the logits before it.
///
/// # Errors
/// When there is no such output, or it is not of floating point.
pub fn attach(graph: &Graph, output: &Name, loss: Loss) -> Result<WithLoss, TrainError> {
    let types = infer(graph, &Bindings::default())?;
    let (prediction, prediction_type) = prediction(graph, &types, output, loss)?;
    let mut behind = Behind::new(graph, "loss");
    let read = behind.single(&prediction, prediction_type.dtype);
    let target = behind.input("target", TensorType { dtype: DType::F32, ..prediction_type });
    let each = each(&mut behind, loss, &read, &target);
    let loss = behind.mean(&each);
    let graph = behind.finish(&[&loss])?;
    Ok(WithLoss { graph, prediction, target: Some(target), loss, learned: Vec::new() })
}

/// What a loss reads of an output, and its type, which has a shape.
///
/// # Errors
/// When there is no such output, or it is not of floating point.
pub(crate) fn prediction(
    graph: &Graph,
    types: &Types,
    output: &Name,
    loss: Loss,
) -> Result<(Name, TensorType), TrainError> {
    if !graph.outputs.iter().any(|value| value.name == *output) {
        return Err(TrainError::Name { what: "output", name: output.clone() });
    }
    let prediction = logits(graph, output, loss);
    let known = types.tensor(&prediction).filter(|known| known.dtype.is_float() && known.shape.is_some()).cloned();
    let known = known.ok_or_else(|| TrainError::Task {
        problem: format!("output `{output}` is no floating-point tensor of known rank"),
        remedy: "name another output",
    })?;
    Ok((prediction, known))
}

/// What a cross-entropy reads: the input of the function that makes probabilities of logits.
fn logits(graph: &Graph, output: &Name, loss: Loss) -> Name {
    let uses = Uses::of(graph);
    let behind = uses.producer(output).filter(|node| match (&node.op, loss) {
        (Op::Softmax(_), Loss::CrossEntropy) | (Op::Sigmoid, Loss::BinaryCrossEntropy) => true,
        (_, Loss::CrossEntropy | Loss::BinaryCrossEntropy) => false,
        (_, Loss::Mse | Loss::Mae | Loss::Huber { .. } | Loss::Cosine) => false,
    });
    behind.and_then(|node| node.input(0)).unwrap_or(output).clone()
}

/// What a loss is the mean of.
pub(crate) fn each(behind: &mut Behind, loss: Loss, prediction: &Name, target: &Name) -> Name {
    match loss {
        Loss::CrossEntropy => {
            let logarithms = behind.node(Op::LogSoftmax(Softmax { axis: -1 }), &[prediction]);
            let weighted = behind.mul(&logarithms, target);
            let sums = behind.sum_last(&weighted);
            behind.node(Op::Neg, &[&sums])
        }
        Loss::BinaryCrossEntropy => {
            // −t log σ(z) − (1 − t) log(1 − σ(z)) = log(1 + eᶻ) − t z
            let all = behind.node(Op::Softplus, &[prediction]);
            let met = behind.mul(prediction, target);
            behind.sub(&all, &met)
        }
        Loss::Mse => {
            let difference = behind.sub(prediction, target);
            behind.square(&difference)
        }
        Loss::Mae => {
            let difference = behind.sub(prediction, target);
            behind.node(Op::Abs, &[&difference])
        }
        Loss::Huber { delta } => {
            // with m = min(d, delta): m (d − ½ m)
            let difference = behind.sub(prediction, target);
            let distance = behind.node(Op::Abs, &[&difference]);
            let delta = behind.number(delta.into());
            let inner = behind.node(Op::Min, &[&distance, &delta]);
            let half = behind.times(&inner, 0.5);
            let outer = behind.sub(&distance, &half);
            behind.mul(&inner, &outer)
        }
        Loss::Cosine => {
            let norm = || Op::LpNormalization(LpNormalization { axis: -1, p: 2 });
            let [p, t] = [behind.node(norm(), &[prediction]), behind.node(norm(), &[target])];
            let product = behind.mul(&p, &t);
            let cosine = behind.sum_last(&product);
            let one = behind.number(1.0);
            behind.sub(&one, &cosine)
        }
    }
}

#[cfg(test)]
mod tests {
    //! Each loss by hand, through the reference interpreter.

    use indexmap::IndexMap;

    use super::{Loss, attach};
    use crate::graph::op::{Op, Softmax};
    use crate::graph::tensor::{DType, Tensor};
    use crate::graph::{Dim, GraphBuilder, Name, TensorType, eval};

    #[track_caller]
    fn check(op: Op, loss: Loss, prediction: [f32; 4], target: [f32; 4], expected: f64) {
        let mut builder = GraphBuilder::new("net");
        let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 2.into()]));
        let y = builder.node(op, &[&x]);
        builder.output(&y);
        let with = attach(&builder.finish().expect("a graph"), &y, loss).expect("the output is there");
        let tensor = |values: [f32; 4]| Tensor::new(&[2, 2], values.to_vec()).expect("four numbers");
        let inputs: IndexMap<Name, Tensor> =
            [(Name::from("x"), tensor(prediction)), (with.target.expect("there is one"), tensor(target))]
                .into_iter()
                .collect();
        let values = eval::run_with(&with.graph, &inputs, std::slice::from_ref(&with.loss)).expect("it runs");
        let found = values[&with.loss].as_slice::<f32>().expect("a number")[0];
        assert!((f64::from(found) - expected).abs() < 1e-6, "{loss:?}: {found}, not {expected}");
    }

    #[test]
    fn losses_are_what_their_formulas_say() {
        let (p, t) = ([1.0, -1.0, 0.5, 3.0], [1.0, 0.0, 0.0, 1.0]);
        let identity = || Op::Identity;
        let log_sum = |a: f64, b: f64| (a.exp() + b.exp()).ln();
        let entropy = ((log_sum(1.0, -1.0) - 1.0) + (log_sum(0.5, 3.0) - 3.0)) / 2.0;
        check(identity(), Loss::CrossEntropy, p, t, entropy);
        // the logits before the Softmax are read: the same again
        check(Op::Softmax(Softmax { axis: -1 }), Loss::CrossEntropy, p, t, entropy);
        let softplus = |z: f64| z.exp().ln_1p();
        let binary = (softplus(-1.0) + softplus(-1.0) + softplus(0.5) + softplus(-3.0)) / 4.0;
        check(identity(), Loss::BinaryCrossEntropy, p, t, binary);
        check(Op::Sigmoid, Loss::BinaryCrossEntropy, p, t, binary);
        check(identity(), Loss::Mse, p, t, (1.0 + 0.25 + 4.0) / 4.0);
        check(identity(), Loss::Mae, p, t, (1.0 + 0.5 + 2.0) / 4.0);
        check(identity(), Loss::Huber { delta: 1.0 }, p, t, (0.5 + 0.125 + 1.5) / 4.0);
        let cosine = |p: [f64; 2], t: [f64; 2]| (p[0] * t[0] + p[1] * t[1]) / ((p[0].hypot(p[1])) * t[0].hypot(t[1]));
        let mean = 1.0 - (cosine([1.0, -1.0], [1.0, 0.0]) + cosine([0.5, 3.0], [0.0, 1.0])) / 2.0;
        check(identity(), Loss::Cosine, p, t, mean);
    }
}
