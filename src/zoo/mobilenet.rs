//! MobileNet, versions 1 and 2.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ZooError;
use super::layers::{Activation, Convolution, Image, Net};
use crate::graph::Graph;
use crate::graph::op::Op;

/// Howard et al., "MobileNets" (2017), table 1: a convolution, thirteen depthwise separable ones, the mean of each
/// channel.
///
/// Input: an image.
///
/// Names: `stem.conv.weight`, `stem.bn.*`; in `blocks.{i}`: `depthwise.conv.weight`, `depthwise.bn.*`,
/// `pointwise.conv.weight`, `pointwise.bn.*`; `head.weight`, `head.bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MobilenetV1 {
    /// What the numbers of channels are multiplied by; they are rounded to multiples of eight.
    pub width: f64,
    /// How many of the five strides halve the image, the last ones; the others are one. By default as many as leave
    /// four pixels of the smaller side.
    pub halvings: Option<usize>,
    /// The share of elements dropped before the linear layer.
    pub dropout: f32,
}

impl Default for MobilenetV1 {
    fn default() -> MobilenetV1 {
        MobilenetV1 { width: 1.0, halvings: None, dropout: 0.0 }
    }
}

/// Sandler et al., "MobileNetV2" (2018), table 2: a convolution, seventeen inverted residual blocks, a convolution of
/// one pixel, the mean of each channel.
///
/// Input: an image.
///
/// Names: `stem.conv.weight`, `stem.bn.*`; in `blocks.{i}`: `expand.conv.weight`, `expand.bn.*` (not with an expansion
/// of one), `depthwise.conv.weight`, `depthwise.bn.*`, `project.conv.weight`, `project.bn.*`; `last.conv.weight`,
/// `last.bn.*`; `head.weight`, `head.bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MobilenetV2 {
    /// What the numbers of channels are multiplied by; they are rounded to multiples of eight. The last convolution
    /// does not get narrower by it.
    pub width: f64,
    /// How many times as many channels a block has inside; the first block has one.
    pub expansion: usize,
    /// As in [`MobilenetV1`].
    pub halvings: Option<usize>,
    /// The share of elements dropped before the linear layer.
    pub dropout: f32,
}

impl Default for MobilenetV2 {
    fn default() -> MobilenetV2 {
        MobilenetV2 { width: 1.0, expansion: 6, halvings: None, dropout: 0.2 }
    }
}

/// The strides of two that the published networks have.
const N_STRIDES: usize = 5;

/// (channels, stride) of each block after the stem of 32.
const V1: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// (channels, blocks, stride of the first) of each stage after the stem of 32; the first stage does not expand.
const V2: [(usize, usize, usize); 7] =
    [(16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)];

const V2_LAST: usize = 1280;

pub(super) fn build_v1(parameters: &MobilenetV1, mut net: Net<'_>) -> Result<Graph, ZooError> {
    check_width(&net, parameters.width)?;
    net.check_dropout(parameters.dropout)?;
    let image = net.image()?;
    let mut strides = Strides::new(&net, parameters.halvings, &image)?;
    let width = |channels| scaled(channels, parameters.width);
    let stem = Convolution::square(width(32), 3, strides.next(2));
    let mut image = net.conv_bn("stem", &image, &stem, Some(Activation::Relu));
    for (idx, (channels, stride)) in V1.into_iter().enumerate() {
        image = separable(&mut net, &format!("blocks.{idx}"), &image, width(channels), strides.next(stride));
    }
    let features = net.global_pool(&image);
    net.finish("head", &features, image.channels, parameters.dropout)
}

pub(super) fn build_v2(parameters: &MobilenetV2, mut net: Net<'_>) -> Result<Graph, ZooError> {
    check_width(&net, parameters.width)?;
    net.check_size("expansion", parameters.expansion)?;
    net.check_dropout(parameters.dropout)?;
    let image = net.image()?;
    let mut strides = Strides::new(&net, parameters.halvings, &image)?;
    let width = |channels| scaled(channels, parameters.width);
    let stem = Convolution::square(width(32), 3, strides.next(2));
    let mut image = net.conv_bn("stem", &image, &stem, Some(Activation::Relu6));
    let mut block_idx = 0;
    for (stage, (channels, n_blocks, first_stride)) in V2.into_iter().enumerate() {
        let expansion = if stage == 0 { 1 } else { parameters.expansion };
        for block in 0..n_blocks {
            let stride = strides.next(if block == 0 { first_stride } else { 1 });
            let path = format!("blocks.{block_idx}");
            image = inverted_residual(&mut net, &path, &image, expansion, width(channels), stride);
            block_idx += 1;
        }
    }
    let last = Convolution::square(scaled(V2_LAST, parameters.width.max(1.0)), 1, 1);
    let image = net.conv_bn("last", &image, &last, Some(Activation::Relu6));
    let features = net.global_pool(&image);
    net.finish("head", &features, image.channels, parameters.dropout)
}

/// A convolution channel by channel, then one of single pixels.
pub(super) fn separable(net: &mut Net<'_>, path: &str, image: &Image, channels: usize, stride: usize) -> Image {
    let depthwise = Convolution { group: image.channels, ..Convolution::square(image.channels, 3, stride) };
    let image = net.conv_bn(&format!("{path}.depthwise"), image, &depthwise, Some(Activation::Relu));
    net.conv_bn(&format!("{path}.pointwise"), &image, &Convolution::square(channels, 1, 1), Some(Activation::Relu))
}

fn inverted_residual(
    net: &mut Net<'_>,
    path: &str,
    image: &Image,
    expansion: usize,
    channels: usize,
    stride: usize,
) -> Image {
    let inner = image.channels * expansion;
    let expanded = match expansion {
        1 => image.clone(),
        _ => {
            let expand = Convolution::square(inner, 1, 1);
            net.conv_bn(&format!("{path}.expand"), image, &expand, Some(Activation::Relu6))
        }
    };
    let depthwise = Convolution { group: inner, ..Convolution::square(inner, 3, stride) };
    let made = net.conv_bn(&format!("{path}.depthwise"), &expanded, &depthwise, Some(Activation::Relu6));
    let made = net.conv_bn(&format!("{path}.project"), &made, &Convolution::square(channels, 1, 1), None);
    if stride == 1 && image.channels == channels {
        return Image { value: net.node(&format!("{path}.add"), Op::Add, &[&image.value, &made.value]), ..made };
    }
    made
}

fn check_width(net: &Net<'_>, width: f64) -> Result<(), ZooError> {
    if width > 0.0 && width <= 16.0 {
        return Ok(());
    }
    Err(net.wrong("width", format!("is {width}"), "give a factor above 0, at most 16"))
}

/// The multiple of eight that is nearest, but at least eight and not less than nine tenths (`_make_divisible` of the
/// published code).
fn scaled(channels: usize, width: f64) -> usize {
    let exact = channels as f64 * width;
    let nearest = (exact / 8.0).round().max(1.0) * 8.0;
    let rounded = if nearest < 0.9 * exact { nearest + 8.0 } else { nearest };
    rounded as usize
}

/// Hands out the strides of the published network, the first of two as one where the image is not to be halved so
/// often.
struct Strides {
    n_kept_at_one: usize,
}

impl Strides {
    fn new(net: &Net<'_>, halvings: Option<usize>, image: &Image) -> Result<Strides, ZooError> {
        let side = image.size[0].min(image.size[1]);
        let n_halvings = halvings.unwrap_or_else(|| (1..=N_STRIDES).rev().find(|&n| side >> n >= 4).unwrap_or(0));
        if n_halvings > N_STRIDES {
            return Err(net.wrong(
                "halvings",
                format!("is {n_halvings}"),
                "the network has five strides: give at most 5",
            ));
        }
        net.check_halvings("halvings", image.size, n_halvings)?;
        Ok(Strides { n_kept_at_one: N_STRIDES - n_halvings })
    }

    fn next(&mut self, stride: usize) -> usize {
        if stride == 1 || self.n_kept_at_one == 0 {
            return stride;
        }
        self.n_kept_at_one -= 1;
        1
    }
}
