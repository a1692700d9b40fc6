//! Convolutions with a pooling after each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ZooError;
use super::layers::{Activation, Convolution, Image, Net, integer};
use crate::graph::Graph;
use crate::graph::op::{self, Op};

/// Stages of a convolution, an activation and a max pooling that halves the image, then linear layers.
///
/// Input: an image.
///
/// Names: `stages.{i}.conv.weight` (and `.bias` without `batch_norm`), `stages.{i}.bn.*`, `layers.{i}.weight` and
/// `.bias` of the hidden linear layers, `head.weight`, `head.bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cnn {
    /// The channels of each stage.
    pub channels: Vec<usize>,
    /// Height and width of the convolutions' windows; odd.
    pub kernel: usize,
    /// After each convolution and hidden linear layer.
    pub activation: Activation,
    /// Whether a batch normalisation stands before each stage's activation.
    pub batch_norm: bool,
    /// Whether the last feature maps are averaged; otherwise they are flattened, which keeps places apart and costs a
    /// weight for each.
    pub global_pool: bool,
    /// The size of each linear layer before the last.
    pub hidden: Vec<usize>,
    /// The share of elements dropped before the last linear layer.
    pub dropout: f32,
}

impl Default for Cnn {
    fn default() -> Cnn {
        Cnn {
            channels: vec![32, 64, 128],
            kernel: 3,
            activation: Activation::Relu,
            batch_norm: true,
            global_pool: true,
            hidden: Vec::new(),
            dropout: 0.0,
        }
    }
}

pub(super) fn build(parameters: &Cnn, mut net: Net<'_>) -> Result<Graph, ZooError> {
    check(parameters, &net)?;
    let mut image = net.image()?;
    net.check_halvings("channels", image.size, parameters.channels.len())?;
    for (idx, &channels) in parameters.channels.iter().enumerate() {
        image = stage(&mut net, &format!("stages.{idx}"), &image, channels, parameters);
    }
    let (mut value, mut size) = if parameters.global_pool {
        (net.global_pool(&image), image.channels)
    } else {
        let flat = net.node("head.flatten", Op::Flatten(op::Flatten::default()), &[&image.value]);
        (flat, image.channels * image.size[0] * image.size[1])
    };
    for (idx, &n_units) in parameters.hidden.iter().enumerate() {
        let path = format!("layers.{idx}");
        value = net.linear(&path, &value, size, n_units);
        value = net.activation(&path, parameters.activation, &value);
        size = n_units;
    }
    net.finish("head", &value, size, parameters.dropout)
}

fn check(parameters: &Cnn, net: &Net<'_>) -> Result<(), ZooError> {
    net.check_sizes("channels", &parameters.channels)?;
    net.check_size("kernel", parameters.kernel)?;
    net.check_sizes("hidden", &parameters.hidden)?;
    net.check_dropout(parameters.dropout)?;
    if parameters.channels.is_empty() {
        return Err(net.wrong("channels", "is empty", "give a number for each stage, or take an mlp"));
    }
    if parameters.kernel.is_multiple_of(2) {
        return Err(net.wrong("kernel", format!("is {}", parameters.kernel), "give an odd number"));
    }
    Ok(())
}

fn stage(net: &mut Net<'_>, path: &str, image: &Image, channels: usize, parameters: &Cnn) -> Image {
    let conv = Convolution { bias: !parameters.batch_norm, ..Convolution::square(channels, parameters.kernel, 1) };
    let made = if parameters.batch_norm {
        net.conv_bn(path, image, &conv, Some(parameters.activation))
    } else {
        let made = net.conv(&format!("{path}.conv"), image, &conv);
        let value = net.activation(path, parameters.activation, &made.value);
        Image { value, ..made }
    };
    let op = Op::MaxPool(op::MaxPool {
        auto_pad: op::AutoPad::NotSet,
        ceil_mode: false,
        dilations: Vec::new(),
        kernel_shape: vec![2; 2],
        pads: Vec::new(),
        storage_order: 0,
        strides: vec![integer(2); 2],
    });
    let value = net.node(&format!("{path}.pool"), op, &[&made.value]);
    Image { value, size: made.size.map(|size| size / 2), ..made }
}
