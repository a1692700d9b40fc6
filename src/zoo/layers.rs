//! A network in the making, and the layers that architectures are made of: nodes and their initializers, named by path.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Input, Task, ZooError};
use crate::graph::op::{self, Op};
use crate::graph::tensor::{DType, Tensor, n_elements};
use crate::graph::{Dim, Graph, GraphBuilder, Name, Node, TensorType};

/// The greatest size that a parameter of an architecture may give to an axis.
const MOST_SIZE: usize = 1 << 16;

/// The most parameters that a network may have: a typing error must not fill the memory.
const MOST_PARAMETERS: usize = 1 << 30;

/// The most elements that a sample may have.
const MOST_ELEMENTS: usize = 1 << 30;

/// An activation function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// max(x, 0)
    #[default]
    Relu,
    /// min(max(x, 0), 6)
    Relu6,
    /// x · Φ(x)
    Gelu,
    /// x · min(max(x / 6 + 1 / 2, 0), 1)
    HardSwish,
    /// tanh x
    Tanh,
}

/// Feature maps of an image: a value `[batch, channels, height, width]`.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) value: Name,
    pub(super) channels: usize,
    /// height and width
    pub(super) size: [usize; 2],
}

/// A convolution that keeps the size of the image but for its stride: `⌈size / stride⌉`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Convolution {
    pub(super) channels: usize,
    pub(super) kernel: [usize; 2],
    pub(super) stride: [usize; 2],
    pub(super) group: usize,
    pub(super) bias: bool,
}

impl Convolution {
    /// With a square kernel and without bias, as it stands before a batch normalisation.
    pub(super) fn square(channels: usize, kernel: usize, stride: usize) -> Convolution {
        Convolution { channels, kernel: [kernel; 2], stride: [stride; 2], group: 1, bias: false }
    }
}

/// A network in the making. The first error is kept and comes out of [`Net::finish`], so that layers read as a list.
pub(super) struct Net<'a> {
    pub(super) task: &'a Task,
    architecture: &'static str,
    builder: GraphBuilder,
    n_parameters: usize,
    error: Option<ZooError>,
}

impl<'a> Net<'a> {
    pub(super) fn new(architecture: &'static str, task: &'a Task) -> Result<Net<'a>, ZooError> {
        let net = Net { task, architecture, builder: GraphBuilder::new(&task.name), n_parameters: 0, error: None };
        if task.n_outputs == 0 {
            return Err(net.misfit("the task has no outputs", "give it as many as there are classes"));
        }
        if task.inputs.iter().any(|input| input.shape.contains(&Some(0))) {
            return Err(net.misfit("an input of the task has an axis of size 0", "leave out samples without elements"));
        }
        for input in &task.inputs {
            let sizes: Vec<usize> = input.shape.iter().copied().flatten().collect();
            if n_elements(&sizes).is_none_or(|n| n > MOST_ELEMENTS) {
                let problem = format!("a sample of input `{}` has the shape {sizes:?}", input.name);
                return Err(net.misfit(problem, "give smaller samples"));
            }
        }
        Ok(net)
    }

    pub(super) fn wrong(&self, parameter: &'static str, problem: impl Into<String>, remedy: &str) -> ZooError {
        let (problem, remedy) = (problem.into(), remedy.to_string());
        ZooError::Parameter { architecture: self.architecture, parameter, problem, remedy }
    }

    pub(super) fn misfit(&self, problem: impl Into<String>, remedy: &str) -> ZooError {
        ZooError::Task { architecture: self.architecture, problem: problem.into(), remedy: remedy.to_string() }
    }

    /// Refuses a size of zero and one that is no network's.
    pub(super) fn check_size(&self, parameter: &'static str, size: usize) -> Result<(), ZooError> {
        match size {
            0 => Err(self.wrong(parameter, "is 0", "give at least 1")),
            1..=MOST_SIZE => Ok(()),
            _ => Err(self.wrong(parameter, format!("is {size}"), &format!("give at most {MOST_SIZE}"))),
        }
    }

    /// Refuses sizes that [`Net::check_size`] does.
    pub(super) fn check_sizes(&self, parameter: &'static str, sizes: &[usize]) -> Result<(), ZooError> {
        sizes.iter().try_for_each(|&size| self.check_size(parameter, size))
    }

    /// Refuses a share of dropped elements outside of `0 ≤ ratio < 1`.
    pub(super) fn check_dropout(&self, ratio: f32) -> Result<(), ZooError> {
        if (0.0..1.0).contains(&ratio) {
            return Ok(());
        }
        Err(self.wrong("dropout", format!("is {ratio}"), "give at least 0 and less than 1"))
    }

    /// Refuses to halve an image more often than its smaller side can be.
    pub(super) fn check_halvings(
        &self,
        parameter: &'static str,
        size: [usize; 2],
        n_halvings: usize,
    ) -> Result<(), ZooError> {
        let possible = size[0].min(size[1]).checked_ilog2().map_or(0, |log| log as usize);
        if n_halvings <= possible {
            return Ok(());
        }
        let [height, width] = size;
        let problem = format!("halves an image of {height}×{width} {n_halvings} times");
        Err(self.wrong(parameter, problem, &format!("{possible} halvings are possible: give fewer, or larger images")))
    }

    /// A value of a sample as an input of the network, behind a batch axis. An axis of any length has the symbol that
    /// fits the data, the first of the values: a mask is as long.
    pub(super) fn input(&mut self, input: &Input) -> Name {
        let is_numbers = self.task.inputs.first().is_some_and(|data| data.dtype.is_float());
        let any_length = if is_numbers { "time" } else { "tokens" };
        let dims = input.shape.iter().map(|dim| dim.map_or(Dim::from(any_length), Dim::from));
        let shape = [Dim::from("batch")].into_iter().chain(dims);
        self.builder.input(&input.name, TensorType::new(input.dtype, shape))
    }

    /// The task's only input, which must be of numbers with all sizes fixed.
    pub(super) fn numbers(&mut self) -> Result<(Name, Vec<usize>), ZooError> {
        let [input] = self.task.inputs.as_slice() else {
            let problem = format!("the task has {} inputs", self.task.inputs.len());
            return Err(self.misfit(problem, "give it the data alone"));
        };
        if input.dtype != DType::F32 {
            let problem = format!("input `{}` is of {}", input.name, input.dtype);
            return Err(self.misfit(problem, "have the data converted to f32"));
        }
        let shape: Option<Vec<usize>> = input.shape.iter().copied().collect();
        let Some(shape) = shape else {
            let problem = format!("input `{}` has an axis of any length", input.name);
            return Err(self.misfit(problem, "have the samples cut or padded to one length, or take an rnn"));
        };
        Ok((self.input(input), shape))
    }

    /// The task's only input as an image; one of two axes gets a channel.
    pub(super) fn image(&mut self) -> Result<Image, ZooError> {
        let (value, shape) = self.numbers()?;
        match shape[..] {
            [channels, height, width] => Ok(Image { value, channels, size: [height, width] }),
            [height, width] => {
                let axes = self.integers("input.axes", vec![1]);
                let value = self.node("input.image", Op::Unsqueeze, &[&value, &axes]);
                Ok(Image { value, channels: 1, size: [height, width] })
            }
            _ => {
                let problem = format!("input `{value}` has the shape {shape:?} in a sample");
                Err(self.misfit(problem, "give images as [channels, height, width] or [height, width], or take an mlp"))
            }
        }
    }

    /// A node whose output has this path.
    pub(super) fn node(&mut self, path: &str, op: Op, inputs: &[&Name]) -> Name {
        let output = Name::from(path);
        let inputs = inputs.iter().map(|&name| Some(name.clone())).collect();
        let node = Node { name: path.to_string(), ..Node::new(op, inputs, vec![Some(output.clone())]) };
        self.builder.push(node);
        output
    }

    /// Any node, named after its path.
    pub(super) fn push(&mut self, path: &str, op: Op, inputs: Vec<Option<Name>>, outputs: Vec<Option<Name>>) {
        self.builder.push(Node { name: path.to_string(), ..Node::new(op, inputs, outputs) });
    }

    /// A float that is not learned.
    pub(super) fn float(&mut self, path: &str, value: f32) -> Name {
        self.node(path, Op::Constant(op::Constant { value: Tensor::scalar(value) }), &[])
    }

    /// Integers of one axis: a shape, axes, bounds.
    pub(super) fn integers(&mut self, path: &str, values: Vec<i64>) -> Name {
        self.builder.initializer(path, Tensor::vector(values))
    }

    /// An integer without axes.
    pub(super) fn integer(&mut self, path: &str, value: i64) -> Name {
        self.builder.initializer(path, Tensor::scalar(value))
    }

    /// A weight of zeros.
    pub(super) fn weight(&mut self, path: &str, shape: &[usize]) -> Name {
        self.parameter(path, shape, 0.0)
    }

    fn parameter(&mut self, path: &str, shape: &[usize], value: f32) -> Name {
        let n_parameters = n_elements(shape).and_then(|n| n.checked_add(self.n_parameters));
        let Some(n_parameters) = n_parameters.filter(|&n| n <= MOST_PARAMETERS) else {
            let too_large = ZooError::TooLarge { architecture: self.architecture, most: MOST_PARAMETERS };
            self.error.get_or_insert(too_large);
            return Name::from(path);
        };
        let n_new = n_parameters - self.n_parameters;
        self.n_parameters = n_parameters;
        let tensor =
            if value == 0.0 { Tensor::zeros(DType::F32, shape) } else { Tensor::new(shape, vec![value; n_new]) };
        match tensor {
            Ok(tensor) => self.builder.initializer(path, tensor),
            Err(source) => {
                self.error.get_or_insert(ZooError::Tensor { architecture: self.architecture, source });
                Name::from(path)
            }
        }
    }

    /// `{path}.weight [channels, in / group, height, width]`, `{path}.bias [channels]`.
    pub(super) fn conv(&mut self, path: &str, image: &Image, conv: &Convolution) -> Image {
        let [height, width] = conv.kernel;
        let weight =
            self.weight(&format!("{path}.weight"), &[conv.channels, image.channels / conv.group, height, width]);
        let bias = conv.bias.then(|| self.weight(&format!("{path}.bias"), &[conv.channels]));
        let before = conv.kernel.map(|kernel| (kernel - 1) / 2);
        let pads = [before[0], before[1], height - 1 - before[0], width - 1 - before[1]];
        let op = Op::Conv(op::Conv {
            group: integer(conv.group),
            kernel_shape: integers(&conv.kernel),
            pads: integers(&pads),
            strides: integers(&conv.stride),
            ..op::Conv::default()
        });
        let inputs: Vec<&Name> = [&image.value, &weight].into_iter().chain(&bias).collect();
        let value = self.node(path, op, &inputs);
        let size = [0, 1].map(|axis| image.size[axis].div_ceil(conv.stride[axis]));
        Image { value, channels: conv.channels, size }
    }

    /// `{path}.weight`, `.bias`, `.running_mean` and `.running_var`, each `[channels]`; PyTorch's momentum 0.1 is
    /// ONNX's 0.9.
    pub(super) fn batch_norm(&mut self, path: &str, value: &Name, channels: usize) -> Name {
        let scale = self.parameter(&format!("{path}.weight"), &[channels], 1.0);
        let bias = self.weight(&format!("{path}.bias"), &[channels]);
        let mean = self.weight(&format!("{path}.running_mean"), &[channels]);
        let variance = self.parameter(&format!("{path}.running_var"), &[channels], 1.0);
        let op = Op::BatchNormalization(op::BatchNormalization::default());
        self.node(path, op, &[value, &scale, &bias, &mean, &variance])
    }

    /// `{path}.weight` and `.bias`, each `[size]`, over the last axis.
    pub(super) fn layer_norm(&mut self, path: &str, value: &Name, size: usize, epsilon: f32) -> Name {
        let scale = self.parameter(&format!("{path}.weight"), &[size], 1.0);
        let bias = self.weight(&format!("{path}.bias"), &[size]);
        let op = Op::LayerNormalization(op::LayerNormalization { epsilon, ..op::LayerNormalization::default() });
        self.node(path, op, &[value, &scale, &bias])
    }

    /// A convolution `{path}.conv`, a batch normalisation `{path}.bn` and, where one is given, an activation.
    pub(super) fn conv_bn(
        &mut self,
        path: &str,
        image: &Image,
        conv: &Convolution,
        activation: Option<Activation>,
    ) -> Image {
        let made = self.conv(&format!("{path}.conv"), image, conv);
        let value = self.batch_norm(&format!("{path}.bn"), &made.value, made.channels);
        let value = match activation {
            Some(activation) => self.activation(path, activation, &value),
            None => value,
        };
        Image { value, ..made }
    }

    /// `{path}.relu` and the like.
    pub(super) fn activation(&mut self, path: &str, activation: Activation, value: &Name) -> Name {
        match activation {
            Activation::Relu => self.node(&format!("{path}.relu"), Op::Relu, &[value]),
            Activation::Relu6 => {
                let min = self.float(&format!("{path}.relu6.min"), 0.0);
                let max = self.float(&format!("{path}.relu6.max"), 6.0);
                self.node(&format!("{path}.relu6"), Op::Clip, &[value, &min, &max])
            }
            Activation::Gelu => {
                let gelu = op::Gelu { approximate: op::Approximate::None };
                self.node(&format!("{path}.gelu"), Op::Gelu(gelu), &[value])
            }
            Activation::HardSwish => self.node(&format!("{path}.hard_swish"), Op::HardSwish, &[value]),
            Activation::Tanh => self.node(&format!("{path}.tanh"), Op::Tanh, &[value]),
        }
    }

    /// A Gemm on `[batch, n_inputs]`: `{path}.weight [n_outputs, n_inputs]`, `{path}.bias [n_outputs]`.
    pub(super) fn linear(&mut self, path: &str, value: &Name, n_inputs: usize, n_outputs: usize) -> Name {
        self.linear_to(path, path, value, n_inputs, n_outputs)
    }

    fn linear_to(&mut self, path: &str, output: &str, value: &Name, n_inputs: usize, n_outputs: usize) -> Name {
        let weight = self.weight(&format!("{path}.weight"), &[n_outputs, n_inputs]);
        let bias = self.weight(&format!("{path}.bias"), &[n_outputs]);
        let op = Op::Gemm(op::Gemm { trans_b: true, ..op::Gemm::default() });
        let output = Name::from(output);
        let inputs = [value, &weight, &bias].map(|name| Some(name.clone())).to_vec();
        self.push(path, op, inputs, vec![Some(output.clone())]);
        output
    }

    /// A MatMul on `[.., n_inputs]` and its bias: `{path}.weight [n_inputs, n_outputs]`, `{path}.bias [n_outputs]`.
    pub(super) fn linear_of_sequence(&mut self, path: &str, value: &Name, n_inputs: usize, n_outputs: usize) -> Name {
        let weight = self.weight(&format!("{path}.weight"), &[n_inputs, n_outputs]);
        let bias = self.weight(&format!("{path}.bias"), &[n_outputs]);
        let product = self.node(&format!("{path}.matmul"), Op::MatMul, &[value, &weight]);
        self.node(path, Op::Add, &[&product, &bias])
    }

    /// Rows of `{path}.weight [n_ids, size]`.
    pub(super) fn embedding(&mut self, path: &str, ids: &Name, n_ids: usize, size: usize) -> Name {
        let weight = self.weight(&format!("{path}.weight"), &[n_ids, size]);
        self.node(&format!("{path}.gather"), Op::Gather(op::Gather { axis: 0 }), &[&weight, ids])
    }

    /// Drops a share of the elements in training; nothing where the share is zero.
    pub(super) fn dropout(&mut self, path: &str, value: &Name, ratio: f32) -> Name {
        if ratio == 0.0 {
            return value.clone();
        }
        let ratio = self.float(&format!("{path}.ratio"), ratio);
        self.node(path, Op::Dropout(op::Dropout::default()), &[value, &ratio])
    }

    /// The mean of each channel: `head.pool`, then `head.flatten`.
    pub(super) fn global_pool(&mut self, image: &Image) -> Name {
        let pooled = self.node("head.pool", Op::GlobalAveragePool, &[&image.value]);
        self.node("head.flatten", Op::Flatten(op::Flatten::default()), &[&pooled])
    }

    /// Dropout and the last linear map, `{path}.weight` and `.bias`, whose output is the task's, and the end of the
    /// graph.
    pub(super) fn finish(
        mut self,
        path: &str,
        features: &Name,
        n_features: usize,
        dropout: f32,
    ) -> Result<Graph, ZooError> {
        let features = self.dropout(&format!("{path}.dropout"), features, dropout);
        let task = self.task;
        let output = self.linear_to(path, &task.output, &features, n_features, task.n_outputs);
        let shape = [Dim::from("batch"), Dim::from(task.n_outputs)];
        self.builder.typed_output(&output, TensorType::new(DType::F32, shape));
        if let Some(error) = self.error {
            return Err(error);
        }
        let architecture = self.architecture;
        self.builder.finish().map_err(|source| ZooError::Names { architecture, source })
    }
}

/// A size as an attribute; those of parameters and samples are bounded.
pub(super) fn integer(size: usize) -> i64 {
    i64::try_from(size).expect("sizes of parameters and images are far below the bounds of i64")
}

fn integers(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().copied().map(integer).collect()
}
