//! Small random networks: convolutional and sequential ones out of the layers that real ones are made of.

use aludel::graph::op::{self, DepthMode, Direction, Op, PadMode};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Dim, Graph, GraphBuilder, Name, Node, TensorType};
use proptest::prelude::*;

/// A layer of a convolutional network. One that does not fit what comes before it is left out.
#[derive(Clone, Debug)]
pub(crate) enum Layer {
    Conv {
        channels: usize,
        kernel: usize,
        bias: bool,
    },
    Depthwise {
        multiplier: usize,
    },
    Grouped {
        per_group: usize,
    },
    Transposed {
        channels: usize,
    },
    /// Weight and bias are integers behind DequantizeLinear, with a scale for each channel.
    Quantized {
        channels: usize,
    },
    BatchNorm,
    GroupNorm {
        groups: usize,
    },
    InstanceNorm,
    NormLast,
    Activation {
        which: usize,
    },
    PRelu,
    Swish,
    Residual {
        channels: usize,
    },
    Projection {
        channels: usize,
    },
    Dense {
        channels: usize,
    },
    SplitConcat,
    Shuffle,
    PixelShuffle {
        crd: bool,
    },
    SpaceToDepth {
        crd: bool,
    },
    SqueezeExcite {
        channels: usize,
    },
    Pool {
        max: bool,
    },
    SliceChannels,
    ReverseChannels,
    PadChannels,
    Resize,
}

/// Layers of a convolutional network.
pub(crate) fn layers() -> impl Strategy<Value = Vec<Layer>> {
    let channels = 2usize..7;
    let layer = prop_oneof![
        4 => (channels.clone(), prop_oneof![Just(1usize), Just(3)], any::<bool>())
            .prop_map(|(channels, kernel, bias)| Layer::Conv { channels, kernel, bias }),
        1 => (1usize..3).prop_map(|multiplier| Layer::Depthwise { multiplier }),
        1 => (1usize..3).prop_map(|per_group| Layer::Grouped { per_group }),
        1 => channels.clone().prop_map(|channels| Layer::Transposed { channels }),
        1 => Just(Layer::BatchNorm),
        1 => (1usize..4).prop_map(|groups| Layer::GroupNorm { groups }),
        1 => Just(Layer::InstanceNorm),
        1 => Just(Layer::NormLast),
        1 => (0usize..5).prop_map(|which| Layer::Activation { which }),
        1 => Just(Layer::PRelu),
        1 => Just(Layer::Swish),
        1 => channels.clone().prop_map(|channels| Layer::Residual { channels }),
        1 => channels.clone().prop_map(|channels| Layer::Projection { channels }),
        1 => channels.clone().prop_map(|channels| Layer::Dense { channels }),
        1 => Just(Layer::SplitConcat),
        1 => Just(Layer::Shuffle),
        1 => any::<bool>().prop_map(|crd| Layer::PixelShuffle { crd }),
        1 => Just(Layer::SpaceToDepth { crd: false }), // the other order needs opset 28
        1 => channels.clone().prop_map(|channels| Layer::Quantized { channels }),
        1 => channels.prop_map(|channels| Layer::SqueezeExcite { channels }),
        1 => any::<bool>().prop_map(|max| Layer::Pool { max }),
        1 => Just(Layer::SliceChannels),
        1 => Just(Layer::ReverseChannels),
        1 => Just(Layer::PadChannels),
        1 => Just(Layer::Resize),
    ];
    prop::collection::vec(layer, 1..9)
}

/// A layer of a sequential network.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    Attention {
        heads: usize,
        size: usize,
        fused: bool,
    },
    /// The operator Attention, `shared` heads of queries to one of keys and values.
    AttentionOperator {
        heads: usize,
        size: usize,
        shared: usize,
    },
    FeedForward {
        hidden: usize,
        gelu: bool,
    },
    LayerNorm,
    RootMeanSquare,
    Recurrent {
        which: usize,
        hidden: usize,
        both: bool,
    },
    Dense {
        features: usize,
    },
    Einsum {
        features: usize,
    },
    SoftmaxFeatures,
    L2Normalize,
    ThereAndBack,
}

/// Layers of a sequential network.
pub(crate) fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let block = prop_oneof![
        2 => (1usize..4, 1usize..3, any::<bool>())
            .prop_map(|(heads, size, fused)| Block::Attention { heads, size, fused }),
        1 => (1usize..4, 1usize..3, 1usize..3)
            .prop_map(|(heads, size, shared)| Block::AttentionOperator { heads, size, shared }),
        2 => (2usize..6, any::<bool>()).prop_map(|(hidden, gelu)| Block::FeedForward { hidden, gelu }),
        1 => Just(Block::LayerNorm),
        1 => Just(Block::RootMeanSquare),
        1 => (0usize..3, 2usize..5, any::<bool>())
            .prop_map(|(which, hidden, both)| Block::Recurrent { which, hidden, both }),
        1 => (2usize..6).prop_map(|features| Block::Dense { features }),
        1 => (2usize..6).prop_map(|features| Block::Einsum { features }),
        1 => Just(Block::SoftmaxFeatures),
        1 => Just(Block::L2Normalize),
        1 => Just(Block::ThereAndBack),
    ];
    prop::collection::vec(block, 1..6)
}

/// A network as it is built: the last value, its channels (or features) and the size of its image.
struct Builder {
    graph: GraphBuilder,
    value: Name,
    channels: usize,
    size: usize,
    seed: u64,
}

impl Builder {
    /// A number in [-1, 1) that follows from the seed (SplitMix64).
    fn number(&mut self) -> f32 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn constant(&mut self, name: &str, shape: &[usize], centre: f32, spread: f32) -> Name {
        let n = shape.iter().product();
        let numbers: Vec<f32> = (0..n).map(|_| centre + spread * self.number()).collect();
        self.graph.initializer(name, Tensor::new(shape, numbers).expect("as many as the shape has"))
    }

    fn integers(&mut self, numbers: &[i64]) -> Name {
        self.graph.initializer("integers", Tensor::vector(numbers.to_vec()))
    }

    fn node(&mut self, op: Op, inputs: &[&Name]) -> Name {
        self.graph.node(op, inputs)
    }

    fn weight(&mut self, shape: &[usize]) -> Name {
        self.constant("weight", shape, 0.0, 0.7)
    }

    fn conv(&mut self, x: &Name, from: usize, to: usize, kernel: usize, bias: bool) -> Name {
        let weight = self.weight(&[to, from, kernel, kernel]);
        let pads = vec![i64::try_from(kernel / 2).expect("small"); 4];
        let op = Op::Conv(op::Conv { pads, ..op::Conv::default() });
        if bias {
            let bias = self.constant("bias", &[to], 0.0, 0.5);
            return self.node(op, &[x, &weight, &bias]);
        }
        self.node(op, &[x, &weight])
    }

    fn dense(&mut self, x: &Name, from: usize, to: usize) -> Name {
        let weight = self.weight(&[from, to]);
        let product = self.node(Op::MatMul, &[x, &weight]);
        let bias = self.constant("bias", &[to], 0.0, 0.5);
        self.node(Op::Add, &[&product, &bias])
    }
}

fn i(number: usize) -> i64 {
    i64::try_from(number).expect("small")
}

/// A convolutional classifier of `batch` images of 3 × 4 × 4 into 3 classes.
pub(crate) fn convolutional(layers: &[Layer], flat: bool, seed: u64) -> Graph {
    let mut graph = GraphBuilder::new("convolutional");
    let x = graph.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 3.into(), 4.into(), 4.into()]));
    let mut builder = Builder { graph, value: x, channels: 3, size: 4, seed };
    let x = builder.value.clone();
    builder.value = builder.conv(&x, 3, 4, 3, true);
    builder.channels = 4;
    layers.iter().for_each(|layer| convolutional_layer(&mut builder, layer));
    let (value, channels) = (builder.value.clone(), builder.channels);
    let (flattened, features) = if flat {
        let features = channels * builder.size * builder.size;
        let shape = builder.integers(&[0, i(features)]);
        (builder.node(Op::Reshape(op::Reshape { allowzero: false }), &[&value, &shape]), features)
    } else {
        let pooled = builder.node(Op::GlobalAveragePool, &[&value]);
        (builder.node(Op::Flatten(op::Flatten { axis: 1 }), &[&pooled]), channels)
    };
    let weight = builder.weight(&[3, features]);
    let bias = builder.constant("bias", &[3], 0.0, 0.5);
    let gemm = Op::Gemm(op::Gemm { trans_b: true, ..op::Gemm::default() });
    let y = builder.node(gemm, &[&flattened, &weight, &bias]);
    builder.graph.output(&y);
    builder.graph.finish().expect("a graph")
}

fn convolutional_layer(b: &mut Builder, layer: &Layer) {
    let x = b.value.clone();
    let c = b.channels;
    b.value = match *layer {
        Layer::Conv { channels, kernel, bias } => {
            b.channels = channels;
            b.conv(&x, c, channels, kernel, bias)
        }
        Layer::Depthwise { multiplier } => {
            b.channels = c * multiplier;
            let weight = b.weight(&[c * multiplier, 1, 3, 3]);
            let op = op::Conv { group: i(c), pads: vec![1; 4], ..op::Conv::default() };
            b.node(Op::Conv(op), &[&x, &weight])
        }
        Layer::Grouped { per_group } if c.is_multiple_of(2) => {
            b.channels = 2 * per_group;
            let weight = b.weight(&[2 * per_group, c / 2, 1, 1]);
            let bias = b.constant("bias", &[2 * per_group], 0.0, 0.5);
            b.node(Op::Conv(op::Conv { group: 2, ..op::Conv::default() }), &[&x, &weight, &bias])
        }
        Layer::Transposed { channels } => {
            b.channels = channels;
            let weight = b.weight(&[c, channels, 1, 1]);
            let bias = b.constant("bias", &[channels], 0.0, 0.5);
            b.node(Op::ConvTranspose(op::ConvTranspose::default()), &[&x, &weight, &bias])
        }
        Layer::Quantized { channels } => {
            b.channels = channels;
            let numbers = (0..channels * c).map(|_| (b.number() * 127.0) as i8).collect();
            let weight = Tensor::new(&[channels, c, 1, 1], numbers).expect("as many as the shape has");
            let weight = b.graph.initializer("integers", weight);
            let bias = (0..channels).map(|_| (b.number() * 1e4) as i32).collect::<Vec<i32>>();
            let bias = b.graph.initializer("integers", Tensor::vector(bias));
            let scale = b.constant("scale", &[channels], 0.01, 0.005);
            let bias_scale = b.constant("scale", &[channels], 1e-4, 5e-5);
            let by_row = op::DequantizeLinear { axis: 0, block_size: 0, output_dtype: None };
            let weight = b.node(Op::DequantizeLinear(by_row.clone()), &[&weight, &scale]);
            let bias = b.node(Op::DequantizeLinear(by_row), &[&bias, &bias_scale]);
            b.node(Op::Conv(op::Conv::default()), &[&x, &weight, &bias])
        }
        Layer::BatchNorm => {
            let [scale, shift, mean] = ["scale", "shift", "mean"].map(|name| b.constant(name, &[c], 0.5, 0.5));
            let variance = b.constant("variance", &[c], 1.0, 0.5);
            b.node(Op::BatchNormalization(op::BatchNormalization::default()), &[&x, &scale, &shift, &mean, &variance])
        }
        Layer::GroupNorm { groups } if c.is_multiple_of(groups) => {
            let [scale, shift] = ["scale", "shift"].map(|name| b.constant(name, &[c], 0.5, 0.5));
            let op = op::GroupNormalization { epsilon: 1e-3, num_groups: i(groups), stash_type: 1 };
            b.node(Op::GroupNormalization(op), &[&x, &scale, &shift])
        }
        Layer::InstanceNorm => {
            let [scale, shift] = ["scale", "shift"].map(|name| b.constant(name, &[c], 0.5, 0.5));
            b.node(Op::InstanceNormalization(op::InstanceNormalization { epsilon: 1e-3 }), &[&x, &scale, &shift])
        }
        Layer::NormLast => {
            let last = b.node(Op::Transpose(op::Transpose { perm: vec![0, 2, 3, 1] }), &[&x]);
            let [scale, shift] = ["scale", "shift"].map(|name| b.constant(name, &[c], 0.5, 0.5));
            let op = op::LayerNormalization { epsilon: 1e-3, ..op::LayerNormalization::default() };
            let normalized = b.node(Op::LayerNormalization(op), &[&last, &scale, &shift]);
            b.node(Op::Transpose(op::Transpose { perm: vec![0, 3, 1, 2] }), &[&normalized])
        }
        Layer::Activation { which } => {
            let ops = [Op::Relu, Op::Sigmoid, Op::HardSwish, Op::Tanh, Op::LeakyRelu(op::LeakyRelu { alpha: 0.1 })];
            b.node(ops[which % ops.len()].clone(), &[&x])
        }
        Layer::PRelu => {
            let slope = b.constant("slope", &[c, 1, 1], 0.2, 0.1);
            b.node(Op::PRelu, &[&x, &slope])
        }
        Layer::Swish => {
            let gate = b.node(Op::Sigmoid, &[&x]);
            b.node(Op::Mul, &[&x, &gate])
        }
        Layer::Residual { channels } => {
            let inner = b.conv(&x, c, channels, 3, true);
            let inner = b.node(Op::Relu, &[&inner]);
            let inner = b.conv(&inner, channels, c, 1, false);
            b.node(Op::Add, &[&x, &inner])
        }
        Layer::Projection { channels } => {
            b.channels = channels;
            let inner = b.conv(&x, c, channels, 3, true);
            let skip = b.conv(&x, c, channels, 1, false);
            b.node(Op::Add, &[&inner, &skip])
        }
        Layer::Dense { channels } => {
            b.channels = c + channels;
            let inner = b.conv(&x, c, channels, 3, true);
            b.node(Op::Concat(op::Concat { axis: 1 }), &[&x, &inner])
        }
        Layer::SplitConcat if c >= 3 => {
            let sizes = b.integers(&[1, i(c - 1)]);
            let split = Op::Split(op::Split { axis: 1, num_outputs: None });
            let parts = b.graph.node_with_outputs(split, &[&x, &sizes], 2);
            let [one, other] = [&parts[0], &parts[1]];
            let other = b.node(Op::Relu, &[other]);
            b.node(Op::Concat(op::Concat { axis: -3 }), &[&other, one])
        }
        Layer::Shuffle if c.is_multiple_of(2) && c > 2 => {
            let (half, size) = (i(c / 2), i(b.size));
            let apart = b.integers(&[0, 2, half, size, size]);
            let together = b.integers(&[0, -1, size, size]);
            let reshape = Op::Reshape(op::Reshape { allowzero: false });
            let x = b.node(reshape.clone(), &[&x, &apart]);
            let x = b.node(Op::Transpose(op::Transpose { perm: vec![0, 2, 1, 3, 4] }), &[&x]);
            b.node(reshape, &[&x, &together])
        }
        Layer::PixelShuffle { crd } if c.is_multiple_of(4) && b.size <= 4 => {
            b.channels = c / 4;
            b.size *= 2;
            let mode = if crd { DepthMode::Crd } else { DepthMode::Dcr };
            b.node(Op::DepthToSpace(op::DepthToSpace { blocksize: 2, mode }), &[&x])
        }
        Layer::SpaceToDepth { crd } if b.size.is_multiple_of(2) && c <= 8 => {
            b.channels = 4 * c;
            b.size /= 2;
            let mode = if crd { DepthMode::Crd } else { DepthMode::Dcr };
            b.node(Op::SpaceToDepth(op::DepthToSpace { blocksize: 2, mode }), &[&x])
        }
        Layer::SqueezeExcite { channels } => {
            let pooled = b.node(Op::GlobalAveragePool, &[&x]);
            let inner = b.conv(&pooled, c, channels, 1, true);
            let inner = b.node(Op::Relu, &[&inner]);
            let gate = b.conv(&inner, channels, c, 1, true);
            let gate = b.node(Op::Sigmoid, &[&gate]);
            b.node(Op::Mul, &[&x, &gate])
        }
        Layer::Pool { max } if b.size.is_multiple_of(2) => {
            b.size /= 2;
            let (kernel_shape, strides) = (vec![2, 2], vec![2, 2]);
            let op = if max {
                Op::MaxPool(op::MaxPool { kernel_shape, strides, ..max_pool() })
            } else {
                Op::AveragePool(op::AveragePool { kernel_shape, strides, ..average_pool() })
            };
            b.node(op, &[&x])
        }
        Layer::SliceChannels if c > 3 => {
            b.channels = c - 2;
            let bounds = [&[1][..], &[-1], &[1]].map(|numbers| b.integers(numbers));
            b.node(Op::Slice, &[&x, &bounds[0], &bounds[1], &bounds[2]])
        }
        Layer::ReverseChannels => {
            let indices: Vec<i64> = (0..i(c)).rev().collect();
            let indices = b.integers(&indices);
            b.node(Op::Gather(op::Gather { axis: 1 }), &[&x, &indices])
        }
        Layer::PadChannels => {
            b.channels = c + 3;
            let pads = b.integers(&[0, 1, 0, 0, 0, 2, 0, 0]);
            b.node(Op::Pad(op::Pad { mode: PadMode::Constant }), &[&x, &pads])
        }
        Layer::Resize if b.size <= 4 => {
            b.size *= 2;
            let scales = b.graph.initializer("scales", Tensor::vector(vec![1f32, 1.0, 2.0, 2.0]));
            let output = b.graph.node(Op::Identity, &[&x]);
            let resized: Name = format!("{output}_resized").as_str().into();
            let inputs = vec![Some(output), None, Some(scales)];
            b.graph.push(Node::new(Op::Resize(op::Resize::default()), inputs, vec![Some(resized.clone())]));
            resized
        }
        _ => x,
    };
}

pub(crate) fn max_pool() -> op::MaxPool {
    op::MaxPool {
        auto_pad: op::AutoPad::NotSet,
        ceil_mode: false,
        dilations: vec![],
        kernel_shape: vec![],
        pads: vec![],
        storage_order: 0,
        strides: vec![],
    }
}

fn average_pool() -> op::AveragePool {
    op::AveragePool {
        auto_pad: op::AutoPad::NotSet,
        ceil_mode: false,
        count_include_pad: false,
        dilations: vec![],
        kernel_shape: vec![],
        pads: vec![],
        strides: vec![],
    }
}

/// Steps of a sequential network's input.
pub(crate) const STEPS: usize = 3;

/// A sequence `[batch, 3, 4]` to 3 numbers a step.
pub(crate) fn sequential(blocks: &[Block], seed: u64) -> Graph {
    let mut graph = GraphBuilder::new("sequential");
    let x = graph.input("x", TensorType::new(DType::F32, [Dim::from("batch"), STEPS.into(), 4.into()]));
    let mut builder = Builder { graph, value: x.clone(), channels: 6, size: STEPS, seed };
    builder.value = builder.dense(&x, 4, 6);
    blocks.iter().for_each(|block| sequential_block(&mut builder, block));
    let (value, features) = (builder.value.clone(), builder.channels);
    let y = builder.dense(&value, features, 3);
    builder.graph.output(&y);
    builder.graph.finish().expect("a graph")
}

fn sequential_block(b: &mut Builder, block: &Block) {
    let x = b.value.clone();
    let d = b.channels;
    b.value = match *block {
        Block::Attention { heads, size, fused } => {
            let merged = attention(b, &x, heads, size, fused);
            let inner = b.dense(&merged, heads * size, d);
            b.node(Op::Add, &[&x, &inner])
        }
        Block::AttentionOperator { heads, size, shared } => {
            let queries = b.dense(&x, d, heads * shared * size);
            let [keys, values] = [(); 2].map(|()| b.dense(&x, d, heads * size));
            let attention = op::Attention {
                q_num_heads: Some(i(heads * shared)),
                kv_num_heads: Some(i(heads)),
                ..op::Attention::default()
            };
            let merged = b.node(Op::Attention(attention), &[&queries, &keys, &values]);
            let inner = b.dense(&merged, heads * shared * size, d);
            b.node(Op::Add, &[&x, &inner])
        }
        Block::FeedForward { hidden, gelu } => {
            let inner = b.dense(&x, d, hidden);
            let inner = b.node(if gelu { Op::Tanh } else { Op::Relu }, &[&inner]);
            let inner = b.dense(&inner, hidden, d);
            b.node(Op::Add, &[&inner, &x])
        }
        Block::LayerNorm => {
            let [scale, shift] = ["scale", "shift"].map(|name| b.constant(name, &[d], 0.5, 0.5));
            let op = op::LayerNormalization { epsilon: 1e-3, ..op::LayerNormalization::default() };
            b.node(Op::LayerNormalization(op), &[&x, &scale, &shift])
        }
        Block::RootMeanSquare => {
            let axes = b.integers(&[-1]);
            let squares = b.node(Op::Mul, &[&x, &x]);
            let reduce = op::Reduce { keepdims: true, noop_with_empty_axes: false };
            let mean = b.node(Op::ReduceMean(reduce), &[&squares, &axes]);
            let epsilon = b.graph.initializer("epsilon", Tensor::scalar(1e-3f32));
            let mean = b.node(Op::Add, &[&mean, &epsilon]);
            let root = b.node(Op::Sqrt, &[&mean]);
            b.node(Op::Div, &[&x, &root])
        }
        Block::Recurrent { which, hidden, both } => recurrent(b, &x, which, hidden, both),
        Block::Dense { features } => {
            b.channels = features;
            b.dense(&x, d, features)
        }
        Block::Einsum { features } => {
            b.channels = features;
            let weight = b.weight(&[features, d]);
            b.node(Op::Einsum(op::Einsum { equation: "bsd, ed -> bse".to_string() }), &[&x, &weight])
        }
        Block::SoftmaxFeatures => b.node(Op::Softmax(op::Softmax { axis: -1 }), &[&x]),
        Block::L2Normalize => b.node(Op::LpNormalization(op::LpNormalization { axis: -1, p: 2 }), &[&x]),
        Block::ThereAndBack => {
            let turned = b.node(Op::Transpose(op::Transpose { perm: vec![0, 2, 1] }), &[&x]);
            let turned = b.node(Op::Tanh, &[&turned]);
            b.node(Op::Transpose(op::Transpose { perm: vec![0, 2, 1] }), &[&turned])
        }
    };
}

/// Per head `[batch, heads, steps, size]`, merged to `[batch, steps, heads · size]`.
fn attention(b: &mut Builder, x: &Name, heads: usize, size: usize, fused: bool) -> Name {
    let (d, inner) = (b.channels, heads * size);
    let turned =
        |b: &mut Builder, x: &Name, perm: [i64; 4]| b.node(Op::Transpose(op::Transpose { perm: perm.to_vec() }), &[x]);
    let apart = b.integers(&[0, 0, i(heads), i(size)]);
    let reshape = Op::Reshape(op::Reshape { allowzero: false });
    let mut projected: Vec<Name> = if fused {
        let all = b.dense(x, d, 3 * inner);
        let sizes = b.integers(&[i(inner); 3]);
        b.graph.node_with_outputs(Op::Split(op::Split { axis: -1, num_outputs: None }), &[&all, &sizes], 3)
    } else {
        (0..3).map(|_| b.dense(x, d, inner)).collect()
    };
    for value in &mut projected {
        *value = b.node(reshape.clone(), &[value, &apart]);
    }
    let queries = turned(b, &projected[0], [0, 2, 1, 3]);
    let keys = turned(b, &projected[1], [0, 2, 3, 1]);
    let values = turned(b, &projected[2], [0, 2, 1, 3]);
    let scores = b.node(Op::MatMul, &[&queries, &keys]);
    let scale = b.graph.initializer("scale", Tensor::scalar((size as f32).sqrt()));
    let scores = b.node(Op::Div, &[&scores, &scale]);
    let weights = b.node(Op::Softmax(op::Softmax { axis: -1 }), &[&scores]);
    let output = b.node(Op::MatMul, &[&weights, &values]);
    let output = turned(b, &output, [0, 2, 1, 3]);
    let together = b.integers(&[0, 0, i(inner)]);
    b.node(reshape, &[&output, &together])
}

fn recurrent(b: &mut Builder, x: &Name, which: usize, hidden: usize, both: bool) -> Name {
    let (d, directions) = (b.channels, 1 + usize::from(both));
    let direction = if both { Direction::Bidirectional } else { Direction::Forward };
    let hidden_size = Some(i(hidden));
    let (gates, op) = match which {
        0 => (1, Op::RNN(op::RNN { direction, hidden_size, ..op::RNN::default() })),
        1 => (3, Op::GRU(op::GRU { direction, hidden_size, ..op::GRU::default() })),
        _ => (4, Op::LSTM(op::LSTM { direction, hidden_size, ..op::LSTM::default() })),
    };
    b.channels = directions * hidden;
    let first = b.node(Op::Transpose(op::Transpose { perm: vec![1, 0, 2] }), &[x]);
    let input = b.weight(&[directions, gates * hidden, d]);
    let recurrent = b.weight(&[directions, gates * hidden, hidden]);
    let bias = b.constant("bias", &[directions, 2 * gates * hidden], 0.0, 0.5);
    let y = b.node(op, &[&first, &input, &recurrent, &bias]);
    let y = b.node(Op::Transpose(op::Transpose { perm: vec![2, 0, 1, 3] }), &[&y]);
    let together = b.integers(&[0, 0, -1]);
    b.node(Op::Reshape(op::Reshape { allowzero: false }), &[&y, &together])
}
