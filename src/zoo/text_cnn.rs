//! Convolutions of several widths over embedded tokens.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ZooError;
use super::layers::{Net, integer};
use super::sequence;
use crate::graph::op::{self, Op};
use crate::graph::{Graph, Name};

/// Kim, "Convolutional Neural Networks for Sentence Classification" (2014): embedded tokens, convolutions of several
/// widths side by side, each channel's maximum over time. A text may be shorter than a window: convolutions keep its
/// length.
///
/// Inputs: ids `[tokens]`; optionally their mask `[tokens]` or number `[]`. With it, padding has no effect.
///
/// Names: `embedding.weight`, `convs.{i}.weight [channels, embedding, width]`, `convs.{i}.bias`, `head.weight`,
/// `head.bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextCnn {
    /// The size of an embedded token.
    pub embedding: usize,
    /// How many tokens each convolution sees at once.
    pub widths: Vec<usize>,
    /// The channels of each convolution.
    pub channels: usize,
    /// The share of elements dropped before the linear layer.
    pub dropout: f32,
}

impl Default for TextCnn {
    fn default() -> TextCnn {
        TextCnn { embedding: 128, widths: vec![3, 4, 5], channels: 100, dropout: 0.5 }
    }
}

pub(super) fn build(parameters: &TextCnn, mut net: Net<'_>) -> Result<Graph, ZooError> {
    net.check_size("embedding", parameters.embedding)?;
    net.check_sizes("widths", &parameters.widths)?;
    net.check_size("channels", parameters.channels)?;
    net.check_dropout(parameters.dropout)?;
    if parameters.widths.is_empty() {
        return Err(net.wrong("widths", "is empty", "give at least one"));
    }
    sequence::check_n_inputs(&net, 2, "give ids, and at most a mask or a length")?;
    let (ids, n_ids) = sequence::ids(&mut net)?;
    let length = sequence::length(&mut net)?;
    let mask = length.map(|length| sequence::mask(&mut net, &ids, &length));
    let mut embedded = net.embedding("embedding", &ids, n_ids, parameters.embedding);
    let transpose = Op::Transpose(op::Transpose { perm: vec![0, 2, 1] });
    embedded = net.node("embedding.transpose", transpose, &[&embedded]);
    let mask = mask.map(|mask| {
        let axes = net.integers("length.channel_axes", vec![1]);
        net.node("length.channel_mask", Op::Unsqueeze, &[&mask, &axes])
    });
    if let Some(mask) = &mask {
        // Beyond its end a text is as empty as beyond the border.
        embedded = net.node("embedding.mul", Op::Mul, &[&embedded, mask]);
    }
    let paths = (0..parameters.widths.len()).map(|idx| format!("convs.{idx}"));
    let maxima: Vec<Name> = paths
        .zip(&parameters.widths)
        .map(|(path, &width)| channel_maxima(&mut net, &path, &embedded, width, parameters, mask.as_ref()))
        .collect();
    let features = match maxima.as_slice() {
        [only] => only.clone(),
        several => net.node("head.concat", Op::Concat(op::Concat { axis: 1 }), &several.iter().collect::<Vec<_>>()),
    };
    net.finish("head", &features, parameters.channels * parameters.widths.len(), parameters.dropout)
}

/// `[batch, embedding, tokens]` to `[batch, channels]`.
fn channel_maxima(
    net: &mut Net<'_>,
    path: &str,
    embedded: &Name,
    width: usize,
    parameters: &TextCnn,
    mask: Option<&Name>,
) -> Name {
    let weight = net.weight(&format!("{path}.weight"), &[parameters.channels, parameters.embedding, width]);
    let bias = net.weight(&format!("{path}.bias"), &[parameters.channels]);
    let before = (width - 1) / 2;
    let conv = Op::Conv(op::Conv {
        kernel_shape: vec![integer(width)],
        pads: vec![integer(before), integer(width - 1 - before)],
        ..op::Conv::default()
    });
    let value = net.node(path, conv, &[embedded, &weight, &bias]);
    let mut value = net.node(&format!("{path}.relu"), Op::Relu, &[&value]);
    if let Some(mask) = mask {
        // Zero is never more than a maximum of what is not negative.
        value = net.node(&format!("{path}.mul"), Op::Mul, &[&value, mask]);
    }
    let value = net.node(&format!("{path}.max"), Op::GlobalMaxPool, &[&value]);
    net.node(&format!("{path}.flatten"), Op::Flatten(op::Flatten::default()), &[&value])
}
