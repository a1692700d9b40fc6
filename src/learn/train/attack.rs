//! Attacked samples: changed as little as nobody would see, so that a network errs.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TrainError;
use super::fit::{Task, TrainOptions};
use super::learner::Learner;
use super::targets::Targets;
use crate::data::{Loader, LoaderOptions, Split};
use crate::graph::Name;
use crate::graph::tensor::Tensor;

/// Projected gradient descent from a random point around each sample, `x ← Π(x + step · sign ∇ loss)`, where `Π` keeps every number
/// within `epsilon` of the sample's, and within the range of the batch's numbers: Madry et al., "Towards Deep Learning Models
/// Resistant to Adversarial Attacks" (2018), section 2.1. One step of `epsilon` is the fast gradient sign method.
///
/// A network that learns from a teacher's values of the samples as they were is distilled as by Goldblum et al., "Adversarially
/// Robust Distillation" (2020), equation 3.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attack {
    /// The greatest change of a number, in units of what the network reads: of normalised data, standard deviations.
    pub epsilon: f32,
    /// What a step changes a number by; a quarter of `epsilon` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<f32>,
    /// How many steps there are.
    #[serde(default = "five")]
    pub steps: usize,
}

fn five() -> usize {
    5
}

impl Attack {
    /// Refuses numbers outside of their range.
    ///
    /// # Errors
    /// Names the option and its range.
    pub fn check(&self) -> Result<(), TrainError> {
        let is_good = |number: f32| number > 0.0 && number.is_finite();
        let option = |option, value: String, range| Err(TrainError::Option { option, value, range });
        if !is_good(self.epsilon) {
            return option("attack.epsilon", self.epsilon.to_string(), "a number above 0");
        }
        if let Some(step) = self.step.filter(|&step| !is_good(step)) {
            return option("attack.step", step.to_string(), "a number above 0");
        }
        if self.steps == 0 {
            return option("attack.steps", "0".to_string(), "1 or more");
        }
        Ok(())
    }

    /// Changes the network's inputs of floating-point numbers so that the loss grows: that of training, or of validation.
    ///
    /// # Errors
    /// When there is no such input, or no gradient reaches one.
    pub(super) fn apply(
        &self,
        learner: &mut Learner,
        batch: &mut IndexMap<Name, Tensor>,
        of_training: bool,
        seed: u64,
    ) -> Result<(), TrainError> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let step = self.step.unwrap_or(self.epsilon / 4.0);
        let mut clean: IndexMap<Name, Clean> = IndexMap::new();
        let inputs = learner.float_inputs();
        if inputs.is_empty() {
            return Err(TrainError::Task {
                problem: "the network has no input of `f32` that could be changed a little".to_string(),
                remedy: "leave `attack` out",
            });
        }
        for name in inputs {
            let Some(tensor) = batch.get_mut(&name) else { continue };
            let own = Clean::of(tensor.as_slice::<f32>()?.to_vec(), self.epsilon);
            let noisy = own.numbers.iter().map(|x| own.near(*x, x + self.epsilon * random.random_range(-1.0..=1.0f32)));
            *tensor = Tensor::new(tensor.shape(), noisy.collect::<Vec<f32>>())?;
            clean.insert(name, own);
        }
        for _ in 0..self.steps {
            for (name, gradient) in learner.input_gradients(batch, of_training)? {
                let (Some(tensor), Some(own)) = (batch.get_mut(&name), clean.get(&name)) else { continue };
                let ahead = tensor.as_slice::<f32>()?.iter().zip(gradient.as_slice::<f32>()?);
                // a gradient of zero leads nowhere
                let ahead = ahead.map(|(x, slope)| x + if *slope == 0.0 { 0.0 } else { step * slope.signum() });
                let changed = own.numbers.iter().zip(ahead).map(|(clean, x)| own.near(*clean, x));
                *tensor = Tensor::new(tensor.shape(), changed.collect::<Vec<f32>>())?;
            }
        }
        Ok(())
    }
}

/// An input as it was.
struct Clean {
    numbers: Vec<f32>,
    epsilon: f32,
    least: f32,
    greatest: f32,
}

impl Clean {
    fn of(numbers: Vec<f32>, epsilon: f32) -> Clean {
        let least = numbers.iter().copied().fold(f32::INFINITY, f32::min);
        let greatest = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        Clean { numbers, epsilon, least, greatest }
    }

    /// The number nearest to `x` that the sample's `clean` may become.
    fn near(&self, clean: f32, x: f32) -> f32 {
        x.max(clean - self.epsilon).min(clean + self.epsilon).max(self.least).min(self.greatest)
    }
}

/// The part of a split's samples whose class a network still tells after an attack that knows its weights.
///
/// # Errors
/// When the network or its data is none of a classifier, or no gradient reaches an input.
pub fn accuracy(
    task: &Task<'_>,
    split: Split,
    attack: &Attack,
    batch_size: usize,
    seed: u64,
) -> Result<f64, TrainError> {
    let fixed = task.graph.inputs.first().and_then(|input| input.tensor_type()?.shape.as_ref()?.first()?.known());
    let batch_size = fixed.unwrap_or(batch_size).max(1);
    let options = TrainOptions { batch_size, ..TrainOptions::default() };
    let mut learner = Learner::new(task.graph, task.output, options.loss, &BTreeSet::new())?;
    let targets = Targets::new(task.data, &learner, &options, true)?;
    let mut score = targets.score();
    let loader = Loader::new(task.data, split, LoaderOptions { batch_size, ..LoaderOptions::default() })?;
    for (batch_idx, batch) in loader.batches(0, 0).enumerate() {
        let batch = batch?;
        let (mut named, _) = targets.prepare(&batch, &options)?;
        attack.apply(&mut learner, &mut named, false, seed.wrapping_add(batch_idx as u64))?;
        let outcome = learner.predict(&named)?;
        score.add(&batch, &outcome)?;
    }
    score.metric().ok_or_else(|| TrainError::Task {
        problem: "what is attacked is no classifier".to_string(),
        remedy: "leave `attack` out",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::tensor::DType;
    use crate::graph::{Dim, GraphBuilder, Op, TensorType};
    use crate::learn::train::loss::Loss;

    /// Of two classes that one number tells apart, against the weights `1, -2, 0`.
    fn learner() -> (Learner, IndexMap<Name, Tensor>) {
        let mut builder = GraphBuilder::new("linear");
        let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 3.into()]));
        let weight = Tensor::new(&[3, 2], vec![1f32, 0.0, -2.0, 0.0, 0.0, 0.0]).expect("six");
        let weight = builder.initializer("weight", weight);
        let y = builder.node(Op::MatMul, &[&x, &weight]);
        builder.output(&y);
        let graph = builder.finish().expect("whole");
        let learner = Learner::new(&graph, &y, Loss::default(), &BTreeSet::new()).expect("it can learn");
        let batch = IndexMap::from([
            (x, Tensor::new(&[1, 3], vec![0.5f32, 0.0, 1.0]).expect("three")),
            (learner.target().expect("labels").clone(), Tensor::new(&[1, 2], vec![1f32, 0.0]).expect("two")),
        ]);
        (learner, batch)
    }

    #[test]
    fn numbers_go_where_the_loss_grows_and_no_further_than_allowed() {
        let check = |epsilon: f32, expected: [f32; 2]| {
            let (mut learner, mut batch) = learner();
            let attack = Attack { epsilon, step: Some(epsilon), steps: 3 };
            attack.apply(&mut learner, &mut batch, false, 1).expect("it has gradients");
            let attacked = batch["x"].as_slice::<f32>().expect("f32");
            assert_eq!(attacked[..2], expected, "{epsilon}");
            // nothing depends on the last number: it stays where it was put, near itself
            assert!((attacked[2] - 1.0).abs() <= epsilon && attacked[2] <= 1.0);
        };
        check(0.25, [0.25, 0.25]);
        // and within the range of the batch
        check(0.75, [0.0, 0.75]);
    }

    #[test]
    fn an_attack_is_of_the_weights_as_they_are() {
        let (mut learner, mut batch) = learner();
        let attack = Attack { epsilon: 0.25, step: Some(0.25), steps: 3 };
        attack.apply(&mut learner, &mut batch.clone(), false, 1).expect("it has gradients");
        let weight = learner.parameters.get_mut("weight").expect("it is one");
        weight.values.iter_mut().for_each(|value| *value = -*value);
        attack.apply(&mut learner, &mut batch, false, 1).expect("it has gradients");
        assert_eq!(batch["x"].as_slice::<f32>().expect("f32")[..2], [0.75, 0.0]);
    }
}
