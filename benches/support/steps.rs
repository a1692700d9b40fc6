//! Training steps on a batch at hand, without the loop of an epoch around them.

use aludel::graph::Name;
use aludel::graph::tensor::Tensor;
use aludel::learn::train::learner::Learner;
use aludel::learn::train::optimizer::{Optimizer, Update};
use indexmap::IndexMap;

/// A network that learns, and what its optimizer keeps.
pub(crate) struct Steps {
    learner: Learner,
    optimizer: Optimizer,
    weight_decay: f32,
    moments: Vec<Vec<Vec<f32>>>,
    n_steps: u64,
}

impl Steps {
    pub(crate) fn new(learner: Learner, optimizer: Optimizer, weight_decay: f32) -> Steps {
        let zeros = |length: usize| vec![vec![0f32; length]; optimizer.n_moments()];
        let moments = learner.parameters.values().map(|parameter| zeros(parameter.values.len())).collect();
        Steps { learner, optimizer, weight_decay, moments, n_steps: 0 }
    }

    /// Forward, backward, optimizer.
    pub(crate) fn step(&mut self, batch: &IndexMap<Name, Tensor>) {
        let Steps { learner, optimizer, weight_decay, moments, n_steps } = self;
        *n_steps += 1;
        let mut learned = learner.learn(batch, *n_steps).expect("a step");
        assert!(learned.loss.is_finite());
        learned.apply(|position, gradient, parameter| {
            let update = Update { gradient, weight: &mut parameter.values, moments: &mut moments[position] };
            let decay = if parameter.decays { *weight_decay } else { 0.0 };
            optimizer.step(update, 1e-4, decay, *n_steps, 1.0);
        });
    }
}
