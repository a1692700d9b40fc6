//! Depthwise separable convolutions on a spectrogram.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ZooError;
use super::layers::{Activation, Convolution, Net};
use super::mobilenet::separable;
use crate::graph::Graph;

/// DS-CNN of Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers" (2017): a convolution of a wide window,
/// depthwise separable ones, the mean of each channel. The defaults are its small network.
///
/// Input: a spectrogram as an image, `[time, features]` or `[1, time, features]`.
///
/// Names: `stem.conv.weight`, `stem.bn.*`; in `blocks.{i}`: `depthwise.conv.weight`, `depthwise.bn.*`,
/// `pointwise.conv.weight`, `pointwise.bn.*`; `head.weight`, `head.bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DsCnn {
    /// The number of depthwise separable convolutions.
    pub blocks: usize,
    /// The channels of every layer.
    pub width: usize,
    /// The first convolution's window on the two axes of the input.
    pub kernel: [usize; 2],
    /// The first convolution's stride on the two axes.
    pub stride: [usize; 2],
    /// The share of elements dropped before the linear layer.
    pub dropout: f32,
}

impl Default for DsCnn {
    fn default() -> DsCnn {
        DsCnn { blocks: 4, width: 64, kernel: [10, 4], stride: [2, 2], dropout: 0.2 }
    }
}

pub(super) fn build(parameters: &DsCnn, mut net: Net<'_>) -> Result<Graph, ZooError> {
    net.check_size("blocks", parameters.blocks)?;
    net.check_size("width", parameters.width)?;
    net.check_sizes("kernel", &parameters.kernel)?;
    net.check_sizes("stride", &parameters.stride)?;
    net.check_dropout(parameters.dropout)?;
    let image = net.image()?;
    for axis in [0, 1] {
        let (size, stride) = (image.size[axis], parameters.stride[axis]);
        if stride > size {
            let problem = format!("is {stride} on axis {axis}, where the spectrogram has {size}");
            return Err(net.wrong("stride", problem, "give a smaller one"));
        }
        // Half of a wider window would lie in the padding wherever it stands.
        let kernel = parameters.kernel[axis];
        if kernel > 2 * size {
            let problem = format!("is {kernel} on axis {axis}, where the spectrogram has {size}");
            return Err(net.wrong("kernel", problem, "give a smaller one"));
        }
    }
    let stem = Convolution {
        channels: parameters.width,
        kernel: parameters.kernel,
        stride: parameters.stride,
        group: 1,
        bias: false,
    };
    let mut image = net.conv_bn("stem", &image, &stem, Some(Activation::Relu));
    for idx in 0..parameters.blocks {
        image = separable(&mut net, &format!("blocks.{idx}"), &image, parameters.width, 1);
    }
    let features = net.global_pool(&image);
    net.finish("head", &features, image.channels, parameters.dropout)
}
