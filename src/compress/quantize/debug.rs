//! Where a quantized network goes wrong: how far its values and weights lie from those of floats, and which operator adds most.
//!
//! Values and weights are matched by name, so that files of other tools can be looked at, too.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde::Serialize;

use super::QuantizeError;
use crate::graph::eval;
use crate::graph::probe::Forward;
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor, TensorError};
use crate::graph::uses::Uses;
use crate::graph::{Graph, Name, Node};

/// How far numbers lie from those of floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Distance {
    /// Signal to quantization noise, `10 · log10(Σ a² / Σ (a − b)²)`, in dB; none where there is no noise, or no signal.
    pub sqnr_db: Option<f64>,
    /// Cosine of the angle between the two as vectors; none where either is all zeros.
    pub cosine: Option<f64>,
    /// Noise over signal, `Σ (a − b)² / Σ a²`; 0 where there is no noise, none where there is no signal.
    pub noise: Option<f64>,
}

/// An inner value of a network, and how far it is off.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValueError {
    /// The value.
    pub value: Name,
    /// The operator that makes it.
    pub operator: String,
    /// How far it is off over all samples.
    #[serde(flatten)]
    pub distance: Distance,
    /// The noise that it has more than the noisiest value that its operator reads; none where that is not known.
    pub added: Option<f64>,
}

/// A weight, and how far it is off.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WeightError {
    /// The constant in the network of floats.
    pub weight: Name,
    /// The operator that reads it.
    pub operator: String,
    /// The value that this makes.
    pub value: Name,
    /// How far it is off.
    #[serde(flatten)]
    pub distance: Distance,
}

/// Sums of which a [`Distance`] is made.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    signal: f64,
    noise: f64,
    other: f64,
    product: f64,
}

impl Sums {
    fn add(&mut self, float: &Tensor, other: &Tensor) -> Result<(), TensorError> {
        for (&a, &b) in float.to_f32s()?.iter().zip(other.to_f32s()?.iter()) {
            let (a, b) = (f64::from(a), f64::from(b));
            self.signal += a * a;
            self.noise += (a - b) * (a - b);
            self.other += b * b;
            self.product += a * b;
        }
        Ok(())
    }

    fn distance(&self) -> Distance {
        let Sums { signal, noise, other, product } = *self;
        let is_something = signal > 0.0 && signal.is_finite();
        Distance {
            sqnr_db: (is_something && noise > 0.0).then(|| 10.0 * (signal / noise).log10()),
            cosine: (is_something && other > 0.0).then(|| product / (signal * other).sqrt()),
            noise: is_something.then(|| noise / signal),
        }
    }
}

/// The values of floats that nodes make in both networks, in the order of the one of floats: what can be compared.
pub fn common_values(float: &Graph, types: &Types, quantized: &Graph, their_types: &Types) -> Vec<Name> {
    let is_float = |types: &Types, name: &Name| types.tensor(name).is_some_and(|known| known.dtype == DType::F32);
    let theirs = Uses::of(quantized);
    let made = float.nodes.iter().flat_map(|node| node.outputs.iter().flatten());
    made.filter(|name| is_float(types, name) && is_float(their_types, name))
        .filter(|name| theirs.producer(name).is_some())
        .cloned()
        .collect()
}

/// How far each of these values is off on batches of inputs; both networks give them in this order. `graph` is the network of floats.
/// The value to which its operator adds most comes first.
///
/// # Errors
/// When a network cannot be run, or gives a value in another shape than the other.
pub fn value_errors<E: From<QuantizeError>>(
    graph: &Graph,
    values: &[Name],
    float: &mut dyn Forward,
    quantized: &mut dyn Forward,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
) -> Result<Vec<ValueError>, E> {
    let mut sums = vec![Sums::default(); values.len()];
    for batch in batches {
        let batch = batch?;
        let ours = float.forward(&batch).map_err(QuantizeError::from)?;
        let theirs = quantized.forward(&batch).map_err(QuantizeError::from)?;
        for (((name, sums), a), b) in values.iter().zip(&mut sums).zip(&ours).zip(&theirs) {
            if a.shape() != b.shape() {
                let (a, b) = (a.shape().to_vec(), b.shape().to_vec());
                return Err(QuantizeError::Different { value: name.clone(), expected: a, got: b }.into());
            }
            sums.add(a, b).map_err(QuantizeError::from)?;
        }
    }
    let distances: HashMap<&Name, Distance> = values.iter().zip(sums.iter().map(Sums::distance)).collect();
    let uses = Uses::of(graph);
    let error = |value: &Name| {
        let distance = distances[value];
        let producer = uses.producer(value);
        let read = producer.map_or(0.0, |node| noise_read(node, &uses, &distances));
        ValueError {
            value: value.clone(),
            operator: producer.map_or_else(String::new, |node| node.op.name().to_string()),
            distance,
            added: distance.noise.map(|noise| (noise - read).max(0.0)),
        }
    };
    let mut errors: Vec<ValueError> = values.iter().map(error).collect();
    errors.sort_by(|a, b| b.added.unwrap_or(-1.0).total_cmp(&a.added.unwrap_or(-1.0)));
    Ok(errors)
}

/// The noise of the noisiest value that a node reads, through nodes whose values are not compared.
fn noise_read(node: &Node, uses: &Uses<'_>, distances: &HashMap<&Name, Distance>) -> f64 {
    let mut greatest = 0.0f64;
    let mut todo: Vec<&Name> = node.reads().collect();
    let mut seen: Vec<&Name> = Vec::new();
    while let Some(name) = todo.pop() {
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        match distances.get(name) {
            Some(distance) => greatest = greatest.max(distance.noise.unwrap_or(0.0)),
            None => todo.extend(uses.producer(name).into_iter().flat_map(|node| node.reads())),
        }
    }
    greatest
}

/// How far the weights of nodes that both networks have are off, the worst first. Weights that are the same are left out.
///
/// # Errors
/// When what stands in the place of a weight cannot be computed.
pub fn weight_errors(float: &Graph, quantized: &Graph) -> Result<Vec<WeightError>, QuantizeError> {
    let theirs = Uses::of(quantized);
    let mut errors = Vec::new();
    for node in &float.nodes {
        let Some(value) = node.output(0) else { continue };
        let Some(other) = theirs.producer(value).filter(|other| other.op.name() == node.op.name()) else { continue };
        for (position, name) in node.inputs.iter().enumerate() {
            let (Some(name), Some(made)) = (name, other.input(position)) else { continue };
            let constant = float.initializers.get(name).filter(|constant| constant.dtype() == DType::F32);
            let Some(constant) = constant.filter(|constant| constant.len() > 1) else { continue };
            // What depends on inputs is no weight.
            let Ok(known) = eval::run_with(quantized, &IndexMap::new(), std::slice::from_ref(made)) else { continue };
            let Some(tensor) = known.get(made).filter(|tensor| tensor.shape() == constant.shape()) else { continue };
            let mut sums = Sums::default();
            sums.add(constant, tensor)?;
            if sums.noise > 0.0 {
                let (operator, distance) = (node.op.name().to_string(), sums.distance());
                errors.push(WeightError { weight: name.clone(), operator, value: value.clone(), distance });
            }
        }
    }
    let noise = |error: &WeightError| error.distance.noise.unwrap_or(f64::INFINITY);
    errors.sort_by(|a, b| noise(b).total_cmp(&noise(a)));
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::testing::Reference;
    use crate::graph::op::{self, Op};
    use crate::graph::shape::{self, Bindings};
    use crate::graph::{Dim, GraphBuilder, TensorType};

    /// Three products in a row, the second with these weights.
    fn net(second: &[f32]) -> (Graph, Vec<Name>) {
        let mut builder = GraphBuilder::new("net");
        let mut value = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 2usize.into()]));
        let mut made = Vec::new();
        for weights in [&[1.0, 0.5, -0.5, 1.0], second, &[2.0, 0.0, 0.0, 2.0]] {
            let weight = Tensor::new(&[2, 2], weights.to_vec()).expect("four");
            let weight = builder.initializer("weight", weight);
            value = builder.node(Op::Gemm(op::Gemm::default()), &[&value, &weight]);
            made.push(value.clone());
        }
        builder.output(&value);
        (builder.finish().expect("a graph"), made)
    }

    #[test]
    fn the_node_that_adds_noise_comes_first() {
        let (float, made) = net(&[1.0, 0.0, 0.0, 1.0]);
        let (other, _) = net(&[1.1, 0.0, 0.0, 0.9]);
        let types = shape::infer(&float, &Bindings::default()).expect("types fit");
        let values = common_values(&float, &types, &other, &types);
        assert_eq!(values, made);
        let batch =
            IndexMap::from([(Name::from("x"), Tensor::new(&[2, 2], vec![1.0f32, 0.0, 0.0, 1.0]).expect("four"))]);
        let [mut ours, mut theirs] =
            [Reference(float.clone(), values.clone()), Reference(other.clone(), values.clone())];
        let batches = [Ok::<_, QuantizeError>(batch.clone()), Ok(batch)];
        let errors = value_errors(&float, &values, &mut ours, &mut theirs, batches).expect("both run");
        let noise = |error: &ValueError| error.distance.noise.map(|noise| (noise * 1e6).round() / 1e6);
        let rows: Vec<_> = errors.iter().map(|error| (&error.value, noise(error), error.added > Some(1e-6))).collect();
        // A tenth of each number: a hundredth of the power, and nothing more behind it.
        assert_eq!(rows, [(&made[1], Some(0.01), true), (&made[0], Some(0.0), false), (&made[2], Some(0.01), false)]);
        assert!((errors[0].distance.sqnr_db.expect("noise") - 20.0).abs() < 1e-4);
        assert_eq!(errors[1].distance.sqnr_db, None);

        let weights = weight_errors(&float, &other).expect("constants");
        assert_eq!(weights.iter().map(|error| &error.value).collect::<Vec<_>>(), [&made[1]]);
    }

    #[test]
    fn what_has_another_shape_is_named() {
        let (float, made) = net(&[1.0, 0.0, 0.0, 1.0]);
        let [mut ours, mut theirs] =
            [Reference(float.clone(), made[..1].to_vec()), Reference(float.clone(), vec![Name::from("x")])];
        let batch = IndexMap::from([(Name::from("x"), Tensor::new(&[1, 2], vec![1.0f32; 2]).expect("two"))]);
        let same = value_errors(&float, &made[..1], &mut ours, &mut theirs, [Ok::<_, QuantizeError>(batch.clone())]);
        assert!(same.is_ok());
        let mut theirs = Reference(float.clone(), vec![Name::from("weight")]);
        let refused = value_errors(&float, &made[..1], &mut ours, &mut theirs, [Ok::<_, QuantizeError>(batch)]);
        let error = refused.expect_err("2 by 2 is not 1 by 2").to_string();
        assert!(error.contains("has shape [2, 2], in floats [1, 2]"), "{error}");
    }
}
