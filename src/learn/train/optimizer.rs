//! Optimizers: what a step makes of gradients.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::learn::kernels::optimizer;

/// Which optimizer, as TOML has it: `"adamw"` or `{ sgd = { momentum = 0.9 } }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent. Sutskever et al., "On the importance of initialization and momentum" (2013).
    Sgd {
        /// the part of the velocity that is kept
        #[serde(default = "default_momentum")]
        momentum: f32,
        /// whether to look one step ahead
        #[serde(default)]
        nesterov: bool,
    },
    /// Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2.
    AdamW {
        /// decay of the mean of gradients
        #[serde(default = "default_beta1")]
        beta1: f32,
        /// decay of the mean of their squares
        #[serde(default = "default_beta2")]
        beta2: f32,
        /// added to the root
        #[serde(default = "default_epsilon")]
        epsilon: f32,
    },
    /// Chen et al., "Symbolic Discovery of Optimization Algorithms" (2023), algorithm 2.
    Lion {
        /// the mean's part in the direction
        #[serde(default = "default_beta1")]
        beta1: f32,
        /// decay of the mean
        #[serde(default = "default_lion_beta2")]
        beta2: f32,
    },
}

fn default_momentum() -> f32 {
    0.9
}

fn default_beta1() -> f32 {
    0.9
}

fn default_beta2() -> f32 {
    0.999
}

fn default_lion_beta2() -> f32 {
    0.99
}

fn default_epsilon() -> f32 {
    1e-8
}

impl Default for Optimizer {
    fn default() -> Optimizer {
        Optimizer::AdamW { beta1: default_beta1(), beta2: default_beta2(), epsilon: default_epsilon() }
    }
}

impl Optimizer {
    /// How many numbers are kept for each that learns.
    pub fn n_moments(self) -> usize {
        match self {
            Optimizer::Sgd { momentum: 0.0, .. } => 0,
            Optimizer::Sgd { .. } | Optimizer::Lion { .. } => 1,
            Optimizer::AdamW { .. } => 2,
        }
    }

    /// Changes one parameter in place. `n_steps` counts from 1; the gradient is multiplied by `gradient_scale` first.
    /// The decay is decoupled from the gradient, but for SGD, where the two are the same.
    pub fn step(self, update: Update<'_>, rate: f32, decay: f32, n_steps: u64, gradient_scale: f32) {
        let Update { gradient, weight, moments } = update;
        let mut moments = moments.iter_mut();
        let mut moment = || moments.next().map_or(&mut [][..], Vec::as_mut_slice);
        match self {
            Optimizer::Sgd { momentum, nesterov } => {
                let settings = optimizer::Sgd { rate, momentum, nesterov, decay };
                optimizer::sgd(settings, gradient_scale, gradient, weight, moment());
            }
            Optimizer::AdamW { beta1, beta2, epsilon } => {
                let settings = optimizer::AdamW { rate, beta1, beta2, epsilon, decay };
                let (mean, square) = (moment(), moment());
                optimizer::adamw(settings, n_steps, gradient_scale, gradient, weight, mean, square);
            }
            Optimizer::Lion { beta1, beta2 } => {
                let settings = optimizer::Lion { rate, beta1, beta2, decay };
                optimizer::lion(settings, gradient_scale, gradient, weight, moment());
            }
        }
    }
}

/// One parameter on its way.
#[derive(Debug)]
pub struct Update<'a> {
    /// Its gradient.
    pub gradient: &'a [f32],
    /// Its values.
    pub weight: &'a mut [f32],
    /// What is kept of earlier gradients, [`Optimizer::n_moments`] numbers a value.
    pub moments: &'a mut [Vec<f32>],
}
