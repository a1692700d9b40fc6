//! The networks whose training step is measured beside PyTorch: the shapes of benches/peers/training_step.py.

use aludel::graph::op::{self, Op};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Dim, Graph, GraphBuilder, Name, Node, TensorType};
use aludel::learn::train::init::{Initialisation, initialise};
use aludel::learn::train::loss::Loss;
use aludel::learn::train::optimizer::Optimizer;

/// What is measured.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What the ratio to PyTorch should be at least.
    pub(crate) goal: f64,
    /// Whether PyTorch has a second layout for it.
    pub(crate) has_images: bool,
    input: &'static [usize],
    /// The shape of the prediction.
    output: &'static [usize],
}

pub(crate) const CASES: [Case; 7] = [
    Case { name: "mlp-adamw", goal: 1.5, has_images: false, input: &[128, 784], output: &[128, 10] },
    Case { name: "mlp-sgd", goal: 1.5, has_images: false, input: &[128, 784], output: &[128, 10] },
    Case { name: "cnn-28", goal: 1.0, has_images: true, input: &[64, 1, 28, 28], output: &[64, 10] },
    Case { name: "cnn-32", goal: 1.0, has_images: true, input: &[64, 3, 32, 32], output: &[64, 10] },
    Case { name: "depthwise-block", goal: 1.0, has_images: true, input: &[32, 64, 32, 32], output: &[32, 10] },
    Case { name: "transformer-layer", goal: 1.5, has_images: false, input: &[16, 64, 384], output: &[16, 64, 384] },
    Case { name: "gru-layer", goal: 1.5, has_images: false, input: &[64, 32, 128], output: &[64, 32, 256] },
];

impl Case {
    /// The network with weights of its own.
    pub(crate) fn network(&self) -> Graph {
        let mut net = Net { builder: GraphBuilder::new(self.name), n_weights: 0 };
        let dims: Vec<Dim> = self.input.iter().map(|&size| size.into()).collect();
        let x = net.builder.input("x", TensorType::new(DType::F32, dims));
        let channels = self.input[1];
        let y = match self.name {
            "mlp-adamw" | "mlp-sgd" => net.mlp(&x),
            "cnn-28" | "cnn-32" => net.cnn(&x, channels),
            "depthwise-block" => net.depthwise_block(&x),
            "transformer-layer" => net.transformer_layer(&x, self.input),
            "gru-layer" => net.gru(&x),
            other => unreachable!("{other} is in the table"),
        };
        net.builder.output(&y);
        let graph = net.builder.finish().expect("a sound graph");
        initialise(&graph, &Initialisation::default(), 0).expect("weights that can be initialised")
    }

    pub(crate) fn loss(&self) -> Loss {
        if self.output.last() == Some(&10) { Loss::CrossEntropy } else { Loss::Mse }
    }

    pub(crate) fn optimizer(&self) -> Optimizer {
        match self.name {
            "mlp-sgd" => Optimizer::Sgd { momentum: 0.9, nesterov: false },
            _ => Optimizer::default(),
        }
    }

    /// Numbers between -1 and 1 for the input, and a target: a class a row, or zeros.
    pub(crate) fn batch(&self) -> [Tensor; 2] {
        let n_elements: usize = self.input.iter().product();
        let mut state = 1u32;
        let values = (0..n_elements).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state) as f32 / (1u32 << 31) as f32 - 1.0
        });
        let x = Tensor::new(self.input, values.collect::<Vec<f32>>()).expect("as many numbers as elements");
        let mut target = vec![0f32; self.output.iter().product()];
        if let Loss::CrossEntropy = self.loss() {
            target.chunks_mut(10).enumerate().for_each(|(row, classes)| classes[row * 7 % 10] = 1.0);
        }
        [x, Tensor::new(self.output, target).expect("as many numbers as elements")]
    }
}

struct Net {
    builder: GraphBuilder,
    n_weights: usize,
}

impl Net {
    /// An initializer of this value everywhere.
    fn weight(&mut self, shape: &[usize], value: f32) -> Name {
        self.n_weights += 1;
        let values = vec![value; shape.iter().product()];
        let tensor = Tensor::new(shape, values).expect("as many numbers as elements");
        self.builder.initializer(&format!("weight_{}", self.n_weights), tensor)
    }

    fn integers(&mut self, values: Vec<i64>) -> Name {
        self.n_weights += 1;
        self.builder.initializer(&format!("shape_{}", self.n_weights), Tensor::vector(values))
    }

    fn linear(&mut self, x: &Name, [size, units]: [usize; 2]) -> Name {
        let (weight, bias) = (self.weight(&[units, size], 0.0), self.weight(&[units], 0.0));
        self.builder.node(Op::Gemm(op::Gemm { trans_b: true, ..op::Gemm::default() }), &[x, &weight, &bias])
    }

    fn mlp(&mut self, x: &Name) -> Name {
        let mut value = x.clone();
        for sizes in [[784, 1024], [1024, 1024]] {
            let made = self.linear(&value, sizes);
            value = self.builder.node(Op::Relu, &[&made]);
        }
        self.linear(&value, [1024, 10])
    }

    fn conv_bn_relu(&mut self, x: &Name, [from, to]: [usize; 2], kernel: usize, stride: i64, group: usize) -> Name {
        let weight = self.weight(&[to, from / group, kernel, kernel], 0.0);
        let pad = if kernel == 3 { 1 } else { 0 };
        let group = i64::try_from(group).expect("a few groups");
        let conv = op::Conv { group, pads: vec![pad; 4], strides: vec![stride; 2], ..op::Conv::default() };
        let made = self.builder.node(Op::Conv(conv), &[x, &weight]);
        let [scale, bias, mean, variance] = [1.0, 0.0, 0.0, 1.0].map(|value| self.weight(&[to], value));
        let norm = Op::BatchNormalization(op::BatchNormalization::default());
        let made = self.builder.node(norm, &[&made, &scale, &bias, &mean, &variance]);
        self.builder.node(Op::Relu, &[&made])
    }

    fn head(&mut self, x: &Name, channels: usize) -> Name {
        let pooled = self.builder.node(Op::GlobalAveragePool, &[x]);
        let flat = self.builder.node(Op::Flatten(op::Flatten::default()), &[&pooled]);
        self.linear(&flat, [channels, 10])
    }

    fn cnn(&mut self, x: &Name, channels: usize) -> Name {
        let value = self.conv_bn_relu(x, [channels, 32], 3, 1, 1);
        let value = self.conv_bn_relu(&value, [32, 64], 3, 2, 1);
        let value = self.conv_bn_relu(&value, [64, 128], 3, 2, 1);
        self.head(&value, 128)
    }

    fn depthwise_block(&mut self, x: &Name) -> Name {
        let value = self.conv_bn_relu(x, [64, 64], 3, 1, 64);
        let value = self.conv_bn_relu(&value, [64, 64], 1, 1, 1);
        self.head(&value, 64)
    }

    fn linear_of_sequence(&mut self, x: &Name, [size, units]: [usize; 2]) -> Name {
        let (weight, bias) = (self.weight(&[size, units], 0.0), self.weight(&[units], 0.0));
        let product = self.builder.node(Op::MatMul, &[x, &weight]);
        self.builder.node(Op::Add, &[&product, &bias])
    }

    fn layer_norm(&mut self, x: &Name, size: usize) -> Name {
        let (scale, bias) = (self.weight(&[size], 1.0), self.weight(&[size], 0.0));
        self.builder.node(Op::LayerNormalization(op::LayerNormalization::default()), &[x, &scale, &bias])
    }

    /// Twelve heads, a feed-forward part of four times the size, normalised after each residual sum.
    fn transformer_layer(&mut self, x: &Name, input: &[usize]) -> Name {
        const HEADS: usize = 12;
        let [batch, tokens, size] = *input else { unreachable!("the table has three axes") };
        let sizes = |sizes: [usize; 4]| sizes.map(|size| i64::try_from(size).expect("small")).to_vec();
        let split = self.integers(sizes([batch, tokens, HEADS, size / HEADS]));
        let joined = self.integers(sizes([batch, tokens, size, 0])[..3].to_vec());
        let reshape = || Op::Reshape(op::Reshape::default());
        let transpose = |perm: [i64; 4]| Op::Transpose(op::Transpose { perm: perm.to_vec() });
        let [q, k, v] = [[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]].map(|perm| {
            let made = self.linear_of_sequence(x, [size, size]);
            let made = self.builder.node(reshape(), &[&made, &split]);
            self.builder.node(transpose(perm), &[&made])
        });
        let scores = self.builder.node(Op::MatMul, &[&q, &k]);
        let root = self.builder.initializer("scale", Tensor::scalar((HEADS as f32 / size as f32).sqrt()));
        let scores = self.builder.node(Op::Mul, &[&scores, &root]);
        let weights = self.builder.node(Op::Softmax(op::Softmax { axis: -1 }), &[&scores]);
        let context = self.builder.node(Op::MatMul, &[&weights, &v]);
        let context = self.builder.node(transpose([0, 2, 1, 3]), &[&context]);
        let context = self.builder.node(reshape(), &[&context, &joined]);
        let attended = self.linear_of_sequence(&context, [size, size]);
        let sum = self.builder.node(Op::Add, &[x, &attended]);
        let value = self.layer_norm(&sum, size);
        let inner = self.linear_of_sequence(&value, [size, 4 * size]);
        let inner = self.builder.node(Op::Gelu(op::Gelu::default()), &[&inner]);
        let made = self.linear_of_sequence(&inner, [4 * size, size]);
        let sum = self.builder.node(Op::Add, &[&value, &made]);
        self.layer_norm(&sum, size)
    }

    /// `[steps, batch, size]` to the states of all steps.
    fn gru(&mut self, x: &Name) -> Name {
        let [w, r, b] = [vec![1, 768, 128], vec![1, 768, 256], vec![1, 1536]].map(|shape| self.weight(&shape, 0.0));
        let gru = op::GRU { hidden_size: Some(256), linear_before_reset: true, ..op::GRU::default() };
        let states = Name::from("states");
        let inputs = [x, &w, &r, &b].map(|name| Some(name.clone())).to_vec();
        self.builder.push(Node::new(Op::GRU(gru), inputs, vec![Some(states.clone())]));
        let axis = self.integers(vec![1]);
        self.builder.node(Op::Squeeze, &[&states, &axis])
    }
}
