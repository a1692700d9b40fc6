//! Architectures by a few parameters, built as graphs.
//!
//! A network is named in TOML by its architecture and the parameters that differ from their defaults:
//!
//! ```toml
//! arch = { resnet = { blocks = [2, 2, 2], width = 32 } }
//! ```
//!
//! | name | parameters and their defaults | example |
//! |---|---|---|
//! | [`mlp`](Mlp) | `hidden = [128, 128]`, `activation = "relu"`, `batch_norm = false`, `dropout = 0.0` | `{ mlp = { hidden = [1024, 1024] } }` |
//! | [`cnn`](Cnn) | `channels = [32, 64, 128]`, `kernel = 3`, `activation = "relu"`, `batch_norm = true`, `global_pool = true`, `hidden = []`, `dropout = 0.0` | `{ cnn = { channels = [16, 32], hidden = [64] } }` |
//! | [`resnet`](Resnet) | `blocks = [2, 2, 2]`, `width = 16`, `dropout = 0.0` | `{ resnet = { blocks = [3, 3, 3] } }` |
//! | [`mobilenet-v1`](MobilenetV1) | `width = 1.0`, `halvings` from the image, `dropout = 0.0` | `{ mobilenet-v1 = { width = 0.25 } }` |
//! | [`mobilenet-v2`](MobilenetV2) | `width = 1.0`, `expansion = 6`, `halvings` from the image, `dropout = 0.2` | `{ mobilenet-v2 = { width = 0.5, halvings = 3 } }` |
//! | [`ds-cnn`](DsCnn) | `blocks = 4`, `width = 64`, `kernel = [10, 4]`, `stride = [2, 2]`, `dropout = 0.2` | `{ ds-cnn = { width = 172, blocks = 5 } }` |
//! | [`text-cnn`](TextCnn) | `embedding = 128`, `widths = [3, 4, 5]`, `channels = 100`, `dropout = 0.5` | `{ text-cnn = { embedding = 32, channels = 64 } }` |
//! | [`rnn`](Rnn) | `cell = "gru"`, `hidden = 64`, `layers = 1`, `bidirectional = false`, `pool = "last"`, `embedding = 128`, `dropout = 0.0` | `{ rnn = { cell = "lstm", bidirectional = true, pool = "mean" } }` |
//! | [`bert`](Bert) | `hidden = 128`, `layers = 2`, `heads = 2`, `intermediate` 4 · hidden, `positions = 512`, `token_types = 2`, `dropout = 0.1` | `{ bert = { hidden = 256, layers = 4, heads = 4 } }` |
//!
//! What goes in and comes out is the [`Task`]'s: the inputs of one sample, in the order that the architecture states,
//! and the number of outputs. The batch is the symbol `batch`; an axis of any length is `time` for numbers and `tokens`
//! for ids. Images are `[channels, height, width]`; a sample of two axes is an image of one channel.
//!
//! **Names.** Initializers are named as PyTorch's and candle-nn's modules name their parameters: `weight` and `bias`,
//! `running_mean` and `running_var` of a batch normalisation, behind the path of the module (`stages.0.1.bn1.weight`),
//! which each architecture documents. Values have the path of the module that makes them (`stages.0.1.bn1`), in which
//! there is always a dot: the task's names had better have none. Every float initializer is a parameter or a running
//! statistic; other numbers are `Constant` nodes or integers.
//!
//! **Layouts** are PyTorch's (`[out, in, height, width]`, `[out, in]`) but for two: a linear map of a sequence is a
//! MatMul and has its weight as `[in, out]`, and an LSTM or GRU has ONNX's `W`, `R` and `B`, see [`Rnn`].
//!
//! **Weights** are zero, scales and running variances one: initialisation is a step of its own. Batch normalisations
//! stand by themselves and Dropout has its ratio; both are in inference mode until a training engine runs them in the
//! other.

mod bert;
mod cnn;
mod ds_cnn;
mod layers;
mod mlp;
mod mobilenet;
mod resnet;
mod rnn;
mod sequence;
#[cfg(test)]
mod tests;
mod text_cnn;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bert::Bert;
pub use cnn::Cnn;
pub use ds_cnn::DsCnn;
pub use layers::Activation;
pub use mlp::Mlp;
pub use mobilenet::{MobilenetV1, MobilenetV2};
pub use resnet::Resnet;
pub use rnn::{Cell, Pool, Rnn};
pub use text_cnn::TextCnn;

use crate::graph::tensor::{DType, TensorError};
use crate::graph::{CheckError, Graph};

/// An architecture with its parameters, as TOML has it: `{ resnet = { width = 32 } }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// Fully connected layers.
    Mlp(Mlp),
    /// Convolutions with a pooling after each.
    Cnn(Cnn),
    /// Residual network for small images.
    Resnet(Resnet),
    /// Depthwise separable convolutions.
    MobilenetV1(MobilenetV1),
    /// Inverted residual blocks.
    MobilenetV2(MobilenetV2),
    /// Depthwise separable convolutions on a spectrogram.
    DsCnn(DsCnn),
    /// Convolutions of several widths over embedded tokens.
    TextCnn(TextCnn),
    /// Recurrent layers.
    Rnn(Rnn),
    /// Transformer encoder with a classification head.
    Bert(Bert),
}

/// What a network is to take and to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What the graph is called.
    pub name: String,
    /// What one sample consists of, in the order that the architecture states.
    pub inputs: Vec<Input>,
    /// What the output is called.
    pub output: String,
    /// The size of the output `[batch, n_outputs]`: a logit a class, or the numbers that are predicted.
    pub n_outputs: usize,
}

/// One value of a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// What the graph's input is called.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The shape in one sample, without the batch; an axis of any length is none.
    pub shape: Vec<Option<usize>>,
    /// For ids: how many there are, so that each is less; none for other values.
    pub n_ids: Option<usize>,
}

impl Input {
    /// A value of fixed shape that is not of ids.
    pub fn new(name: &str, dtype: DType, shape: &[usize]) -> Input {
        Input { name: name.to_string(), dtype, shape: shape.iter().copied().map(Some).collect(), n_ids: None }
    }
}

/// Why a network cannot be built.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ZooError {
    /// A parameter has a value with which there is no such network.
    #[error("{architecture}: `{parameter}` {problem}; {remedy}")]
    Parameter {
        /// which architecture
        architecture: &'static str,
        /// the parameter as it stands in TOML
        parameter: &'static str,
        /// what is wrong with its value
        problem: String,
        /// what to do about it
        remedy: String,
    },
    /// The task does not fit the architecture.
    #[error("{architecture}: {problem}; {remedy}")]
    Task {
        /// which architecture
        architecture: &'static str,
        /// what does not fit, with the input's name
        problem: String,
        /// what to do about it
        remedy: String,
    },
    /// There would be more parameters than any network that is trained here has.
    #[error("{architecture}: the network would have more than {most} parameters; make it smaller")]
    TooLarge {
        /// which architecture
        architecture: &'static str,
        /// the limit
        most: usize,
    },
    /// A tensor of weights cannot be made.
    #[error("{architecture}: {source}")]
    Tensor {
        /// which architecture
        architecture: &'static str,
        /// why not
        source: TensorError,
    },
    /// The names of the task and those of the architecture's own values do not go together.
    #[error("{architecture}: {source}; give the task's inputs and output other names")]
    Names {
        /// which architecture
        architecture: &'static str,
        /// which name
        source: CheckError,
    },
}

impl Architecture {
    /// The name in TOML and in errors.
    pub fn name(&self) -> &'static str {
        match self {
            Architecture::Mlp(_) => "mlp",
            Architecture::Cnn(_) => "cnn",
            Architecture::Resnet(_) => "resnet",
            Architecture::MobilenetV1(_) => "mobilenet-v1",
            Architecture::MobilenetV2(_) => "mobilenet-v2",
            Architecture::DsCnn(_) => "ds-cnn",
            Architecture::TextCnn(_) => "text-cnn",
            Architecture::Rnn(_) => "rnn",
            Architecture::Bert(_) => "bert",
        }
    }
}

/// Builds the network for this task.
///
/// # Errors
/// Names the parameter, or the input of the task, that does not fit, and what to do about it.
pub fn build(architecture: &Architecture, task: &Task) -> Result<Graph, ZooError> {
    let net = layers::Net::new(architecture.name(), task)?;
    match architecture {
        Architecture::Mlp(parameters) => mlp::build(parameters, net),
        Architecture::Cnn(parameters) => cnn::build(parameters, net),
        Architecture::Resnet(parameters) => resnet::build(parameters, net),
        Architecture::MobilenetV1(parameters) => mobilenet::build_v1(parameters, net),
        Architecture::MobilenetV2(parameters) => mobilenet::build_v2(parameters, net),
        Architecture::DsCnn(parameters) => ds_cnn::build(parameters, net),
        Architecture::TextCnn(parameters) => text_cnn::build(parameters, net),
        Architecture::Rnn(parameters) => rnn::build(parameters, net),
        Architecture::Bert(parameters) => bert::build(parameters, net),
    }
}
