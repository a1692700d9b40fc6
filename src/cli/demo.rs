//! `aludel demo`: the program at work on something built in.

use std::time::Duration;

use serde::Serialize;

use super::bench::{self, Plan};
use super::load::OpenRuntime;
use super::{Outcome, inspect};
use crate::graph::op::{AutoPad, BatchNormalization, Conv, Flatten, Gemm, MaxPool};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{CheckError, Dim, Graph, GraphBuilder, Model, Name, Op, TensorType};
use crate::measure::child::RuntimeName;
use crate::measure::inputs::{self, Bindings, SplitMix64};
use crate::measure::latency;
use crate::measure::runtime::{ModelBytes, Options};
use crate::onnx;

const SEED: u64 = 7;

/// Build a small convolutional network, look into it and measure it on tract
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: inspect::Report,
    bench: bench::Report,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let model = Model::new(network()?);
    let bytes = onnx::to_bytes(&model)?;
    let inspected = inspect::inspect("demo.onnx", &model, u64::try_from(bytes.len())?, &[("batch".to_string(), 1)])?;
    let plan = Plan {
        runtimes: vec![OpenRuntime { name: RuntimeName::Tract, runtime: RuntimeName::Tract.open(None)? }],
        options: Options::default(),
        library: None,
        threads: vec![1],
        bindings: Bindings::new(),
        seed: SEED,
        timing: latency::Options { budget: Duration::from_secs(5), ..latency::Options::default() },
        memory: false,
        dump_optimized: None,
    };
    let measured = plan.measure(&[ModelBytes::new(bytes).at("demo.onnx")])?;
    if arguments.json {
        return Outcome::json(&Report { model: inspected, bench: measured });
    }
    Ok(Outcome::done(format!("{}\n{}", inspect::text(&inspected, false), bench::text(&measured))))
}

/// Grey pictures of 28 by 28 in, ten scores out: two convolutions with batch normalization, pooling, one linear layer.
/// The weights are arbitrary: what is shown is how a network is seen and measured, not what it knows.
fn network() -> Result<Graph, CheckError> {
    let mut weights = Weights { builder: GraphBuilder::new("demo") };
    let picture = TensorType::new(DType::F32, [Dim::from("batch"), 1.into(), 28.into(), 28.into()]);
    let x = weights.builder.input("picture", picture);
    let x = weights.convolution(&x, [1, 16], "first");
    let x = weights.pooled(&x);
    let x = weights.convolution(&x, [16, 32], "second");
    let x = weights.pooled(&x);
    let x = weights.builder.node(Op::Flatten(Flatten::default()), &[&x]);
    let weight = weights.arbitrary("scores.weight", &[10, 32 * 7 * 7]);
    let bias = weights.arbitrary("scores.bias", &[10]);
    let scores = weights.builder.node(Op::Gemm(Gemm { trans_b: true, ..Gemm::default() }), &[&x, &weight, &bias]);
    weights.builder.output(&scores);
    weights.builder.finish()
}

struct Weights {
    builder: GraphBuilder,
}

impl Weights {
    /// A 3 by 3 convolution from `channels[0]` to `channels[1]` channels that keeps the size, batch normalization, Relu.
    fn convolution(&mut self, x: &Name, channels: [usize; 2], name: &str) -> Name {
        let [n_in, n_out] = channels;
        let weight = self.arbitrary(&format!("{name}.weight"), &[n_out, n_in, 3, 3]);
        let x = self.builder.node(Op::Conv(Conv { pads: vec![1; 4], ..Conv::default() }), &[x, &weight]);
        let scale = self.arbitrary(&format!("{name}.scale"), &[n_out]);
        let bias = self.arbitrary(&format!("{name}.bias"), &[n_out]);
        let mean = self.arbitrary(&format!("{name}.mean"), &[n_out]);
        let variance = self.builder.initializer(&format!("{name}.variance"), Tensor::vector(vec![1f32; n_out]));
        let normalization = Op::BatchNormalization(BatchNormalization::default());
        let x = self.builder.node(normalization, &[&x, &scale, &bias, &mean, &variance]);
        self.builder.node(Op::Relu, &[&x])
    }

    fn pooled(&mut self, x: &Name) -> Name {
        let pool = MaxPool {
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
            dilations: Vec::new(),
            kernel_shape: vec![2, 2],
            pads: Vec::new(),
            storage_order: 0,
            strides: vec![2, 2],
        };
        self.builder.node(Op::MaxPool(pool), &[x])
    }

    /// Uniform over ±1/√(elements a row), the same on every machine.
    fn arbitrary(&mut self, name: &str, shape: &[usize]) -> Name {
        let unit = inputs::fill(DType::F32, shape, &mut SplitMix64::for_name(SEED, name));
        let unit = unit.and_then(|tensor| tensor.to_vec::<f32>()).expect("a small tensor of f32");
        let bound = ((unit.len() / shape[0]) as f32).sqrt().recip();
        let tensor =
            Tensor::new(shape, unit.into_iter().map(|x| x * bound).collect()).expect("as many as the shape has");
        self.builder.initializer(name, tensor)
    }
}
