//! The activations of recurrent operators, as operators.

use super::emit::Emit;
use super::layer::Layer;
use crate::graph::Name;
use crate::graph::eval::Activation;
use crate::graph::op::{self, Op};

/// What goes into a gate, clipped where the operator says so.
pub(super) fn clipped(emit: &mut Emit<'_>, layer: &Layer<'_>, sums: &Name) -> Name {
    let Some(clip) = layer.clip else { return sums.clone() };
    let (low, high) = (emit.scalar("clip_min", -clip), emit.scalar("clip_max", clip));
    emit.node("clipped", Op::Clip, &[sums, &low, &high])
}

/// The activation of each element.
pub(super) fn activated(emit: &mut Emit<'_>, what: &str, activation: Activation, x: &Name) -> Name {
    let narrow = |number: f64| number as f32;
    let alpha = |alpha: f64| op::Alpha { alpha: narrow(alpha) };
    let function = match activation {
        Activation::Affine(alpha, beta) => {
            let scaled = times(emit, what, x, narrow(alpha));
            if beta == 0.0 {
                return scaled;
            }
            let beta = emit.scalar("beta", narrow(beta));
            return emit.node(what, Op::Add, &[&scaled, &beta]);
        }
        Activation::ScaledTanh(alpha, beta) => {
            let inner = times(emit, what, x, narrow(beta));
            let outer = emit.node(what, Op::Tanh, &[&inner]);
            return times(emit, what, &outer, narrow(alpha));
        }
        // The operator of this name leaves out the threshold itself.
        Activation::ThresholdedRelu(threshold) => {
            let (threshold, zero) = (emit.scalar("alpha", narrow(threshold)), emit.scalar("zero", 0.0));
            let is_below = emit.node("is_below", Op::Less, &[x, &threshold]);
            return emit.node(what, Op::Where, &[&is_below, &zero, x]);
        }
        Activation::Elu(number) => Op::Elu(alpha(number)),
        Activation::HardSigmoid(alpha, beta) => {
            Op::HardSigmoid(op::HardSigmoid { alpha: narrow(alpha), beta: narrow(beta) })
        }
        Activation::LeakyRelu(alpha) => Op::LeakyRelu(op::LeakyRelu { alpha: narrow(alpha) }),
        Activation::Relu => Op::Relu,
        Activation::Sigmoid => Op::Sigmoid,
        Activation::Softplus => Op::Softplus,
        Activation::Softsign => Op::Softsign,
        Activation::Tanh => Op::Tanh,
    };
    emit.node(what, function, &[x])
}

fn times(emit: &mut Emit<'_>, what: &str, x: &Name, factor: f32) -> Name {
    if factor == 1.0 {
        return x.clone();
    }
    let factor = emit.scalar("alpha", factor);
    emit.node(what, Op::Mul, &[x, &factor])
}
