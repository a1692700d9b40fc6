//! Residual network for small images.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ZooError;
use super::layers::{Activation, Convolution, Image, Net};
use crate::graph::Graph;
use crate::graph::op::Op;

/// The CIFAR network of He et al., "Deep Residual Learning for Image Recognition" (2016), section 4.2: a convolution,
/// stages of basic blocks with twice the channels and half the image each, and the mean of each channel. Where channels
/// or image change, the shortcut is a convolution of one pixel with a batch normalisation (their option B).
///
/// Input: an image.
///
/// Names: `stem.conv.weight`, `stem.bn.*`; in `stages.{stage}.{block}`: `conv1.weight`, `bn1.*`, `conv2.weight`,
/// `bn2.*`, `downsample.conv.weight`, `downsample.bn.*`; `head.weight`, `head.bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Resnet {
    /// The number of blocks of each stage; `[n, n, n]` is their network of 6n + 2 layers.
    pub blocks: Vec<usize>,
    /// The channels of the first stage.
    pub width: usize,
    /// The share of elements dropped before the linear layer.
    pub dropout: f32,
}

impl Default for Resnet {
    fn default() -> Resnet {
        Resnet { blocks: vec![2, 2, 2], width: 16, dropout: 0.0 }
    }
}

/// More stages than any image can be halved.
const MOST_STAGES: usize = 16;

pub(super) fn build(parameters: &Resnet, mut net: Net<'_>) -> Result<Graph, ZooError> {
    net.check_size("width", parameters.width)?;
    net.check_sizes("blocks", &parameters.blocks)?;
    net.check_dropout(parameters.dropout)?;
    if parameters.blocks.is_empty() || parameters.blocks.len() > MOST_STAGES {
        let problem = format!("has {} stages", parameters.blocks.len());
        return Err(net.wrong("blocks", problem, "give a number of blocks for each of one to sixteen stages"));
    }
    let image = net.image()?;
    net.check_halvings("blocks", image.size, parameters.blocks.len() - 1)?;
    let mut image = net.conv_bn("stem", &image, &Convolution::square(parameters.width, 3, 1), Some(Activation::Relu));
    for (stage, &n_blocks) in parameters.blocks.iter().enumerate() {
        for block in 0..n_blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            image =
                basic_block(&mut net, &format!("stages.{stage}.{block}"), &image, parameters.width << stage, stride);
        }
    }
    let features = net.global_pool(&image);
    net.finish("head", &features, image.channels, parameters.dropout)
}

fn basic_block(net: &mut Net<'_>, path: &str, image: &Image, channels: usize, stride: usize) -> Image {
    let first = net.conv(&format!("{path}.conv1"), image, &Convolution::square(channels, 3, stride));
    let value = net.batch_norm(&format!("{path}.bn1"), &first.value, channels);
    let value = net.node(&format!("{path}.relu1"), Op::Relu, &[&value]);
    let second = net.conv(&format!("{path}.conv2"), &Image { value, ..first }, &Convolution::square(channels, 3, 1));
    let value = net.batch_norm(&format!("{path}.bn2"), &second.value, channels);
    let shortcut = if stride == 1 && image.channels == channels {
        image.value.clone()
    } else {
        net.conv_bn(&format!("{path}.downsample"), image, &Convolution::square(channels, 1, stride), None).value
    };
    let sum = net.node(&format!("{path}.add"), Op::Add, &[&value, &shortcut]);
    Image { value: net.node(&format!("{path}.relu2"), Op::Relu, &[&sum]), ..second }
}
