//! Pairs that are found, in a residual network and an encoder.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{numbers, plain::Plain};
use crate::compress::distill::objective::pairing::resolve;
use crate::compress::distill::objective::{Ends, Mix, Objective, Pair, Teacher, attach};
use crate::graph::op::{Conv, Flatten, Gather, Gemm, LayerNormalization, Reshape, Softmax, Transpose};
use crate::graph::shape::{Bindings, infer};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, Op, TensorType};
use crate::learn::train::learner::Learner;
use crate::learn::train::loss::{self, Loss};

/// A network and the names of its values that pairs are made of.
struct Network {
    graph: Graph,
    output: Name,
    names: BTreeMap<&'static str, Vec<Name>>,
}

struct Builder {
    builder: GraphBuilder,
    names: BTreeMap<&'static str, Vec<Name>>,
}

impl Builder {
    fn new() -> Builder {
        Builder { builder: GraphBuilder::new("network"), names: BTreeMap::new() }
    }

    fn weight(&mut self, shape: &[usize]) -> Name {
        let n = shape.iter().product();
        let values = numbers(n as u64, n).into_iter().map(|value| 0.3 * value).collect();
        self.builder.initializer("weight", Tensor::new(shape, values).expect("as many"))
    }

    fn keep(&mut self, what: &'static str, name: &Name) {
        self.names.entry(what).or_default().push(name.clone());
    }

    fn node(&mut self, op: Op, inputs: &[&Name]) -> Name {
        self.builder.node(op, inputs)
    }

    fn conv(&mut self, x: &Name, from: usize, to: usize, stride: i64) -> Name {
        let weight = self.weight(&[to, from, 3, 3]);
        let conv = Conv { pads: vec![1; 4], strides: vec![stride; 2], ..Conv::default() };
        let y = self.node(Op::Conv(conv), &[x, &weight]);
        self.node(Op::Relu, &[&y])
    }

    fn linear(&mut self, x: &Name, from: usize, to: usize) -> Name {
        let weight = self.weight(&[from, to]);
        self.node(Op::MatMul, &[x, &weight])
    }

    fn finish(mut self, x: &Name, n_features: usize) -> Network {
        self.keep("features", x);
        let weight = self.weight(&[n_features, 3]);
        let logits = self.node(Op::Gemm(Gemm::default()), &[x, &weight]);
        self.keep("logits", &logits);
        let output = self.node(Op::Softmax(Softmax { axis: -1 }), &[&logits]);
        self.builder.output(&output);
        Network { graph: self.builder.finish().expect("a graph"), output, names: self.names }
    }
}

/// Three stages of residual blocks on images of 8 x 8.
fn residual(n_blocks: usize, width: usize) -> Network {
    let mut net = Builder::new();
    let input = TensorType::new(DType::F32, [Dim::from("batch"), 1.into(), 8.into(), 8.into()]);
    let mut x = net.builder.input("x", input);
    let mut from = 1;
    for stage in 0..3 {
        let to = width << stage;
        x = net.conv(&x, from, to, if stage == 0 { 1 } else { 2 });
        from = to;
        for block in 0..n_blocks {
            let inner = net.conv(&x, to, to, 1);
            let inner = net.conv(&inner, to, to, 1);
            x = net.node(Op::Add, &[&inner, &x]);
            if block == 0 {
                net.keep("first block", &x);
            }
        }
        net.keep("stage", &x);
    }
    let x = net.node(Op::GlobalAveragePool, &[&x]);
    let x = net.node(Op::Flatten(Flatten { axis: 1 }), &[&x]);
    net.finish(&x, from)
}

/// Encoder layers of two heads on four tokens.
fn encoder(n_layers: usize, hidden: usize) -> Network {
    let mut net = Builder::new();
    let mut x = net.builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 4.into(), 3.into()]));
    x = net.linear(&x, 3, hidden);
    net.keep("embedding", &x);
    for _ in 0..n_layers {
        let heads = |net: &mut Builder, x: &Name, perm: [i64; 4]| {
            let made = net.linear(x, hidden, hidden);
            let shape = Tensor::vector(vec![0, 0, 2, hidden as i64 / 2]);
            let shape = net.builder.initializer("shape", shape);
            let made = net.node(Op::Reshape(Reshape { allowzero: false }), &[&made, &shape]);
            net.node(Op::Transpose(Transpose { perm: perm.to_vec() }), &[&made])
        };
        let [queries, values] = [0, 1].map(|_| heads(&mut net, &x, [0, 2, 1, 3]));
        let keys = heads(&mut net, &x, [0, 2, 3, 1]);
        let scores = net.node(Op::MatMul, &[&queries, &keys]);
        let scale = net.builder.initializer("scale", Tensor::scalar(0.5f32));
        let scores = net.node(Op::Mul, &[&scores, &scale]);
        for (what, name) in [("queries", &queries), ("keys", &keys), ("values", &values), ("scores", &scores)] {
            net.keep(what, name);
        }
        let weights = net.node(Op::Softmax(Softmax { axis: -1 }), &[&scores]);
        let context = net.node(Op::MatMul, &[&weights, &values]);
        let context = net.node(Op::Transpose(Transpose { perm: vec![0, 2, 1, 3] }), &[&context]);
        let shape = net.builder.initializer("shape", Tensor::vector(vec![0i64, 0, hidden as i64]));
        let context = net.node(Op::Reshape(Reshape { allowzero: false }), &[&context, &shape]);
        let made = net.linear(&context, hidden, hidden);
        x = normalised(&mut net, &made, &x, hidden);
        let made = net.linear(&x, hidden, 2 * hidden);
        let made = net.node(Op::Relu, &[&made]);
        let made = net.linear(&made, 2 * hidden, hidden);
        x = normalised(&mut net, &made, &x, hidden);
        net.keep("layer", &x);
    }
    let first = net.builder.initializer("first", Tensor::scalar(0i64));
    let x = net.node(Op::Gather(Gather { axis: 1 }), &[&x, &first]);
    net.finish(&x, hidden)
}

fn normalised(net: &mut Builder, made: &Name, x: &Name, hidden: usize) -> Name {
    let sum = net.node(Op::Add, &[made, x]);
    let scale = net.builder.initializer("scale", Tensor::vector(vec![1f32; hidden]));
    net.node(Op::LayerNormalization(LayerNormalization::default()), &[&sum, &scale])
}

fn open(name: &str) -> Objective {
    let mix: Mix = toml::from_str(&format!("loss = ['{name}']")).expect("an objective");
    mix.loss[0].objective.clone()
}

fn resolved(name: &str, student: &Network, teacher: &Network) -> Result<Mix, String> {
    let mix = Mix { loss: vec![open(name).into()], alpha: 1.0, ..Mix::default() };
    let found = resolve(&mix, (&student.graph, &student.output), (&teacher.graph, &teacher.output));
    found.map_err(|error| error.to_string())
}

/// The pairs are these, by what they are and their place among those, and a step of training goes through them.
#[track_caller]
fn check(name: &str, student: &Network, teacher: &Network, expected: &[(&'static str, usize, usize)]) {
    let mut mix = resolved(name, student, teacher).unwrap_or_else(|error| panic!("{error}"));
    let found: Vec<Pair> = mix.loss[0].objective.pairs_mut().into_iter().flat_map(|pairs| pairs.clone()).collect();
    let pair = |&(what, s, t): &(&'static str, usize, usize)| Pair {
        student: student.names[what][s].clone(),
        teacher: teacher.names[what][t].clone(),
    };
    assert_eq!(found, expected.iter().map(pair).collect::<Vec<_>>(), "{name}");

    let types = infer(&teacher.graph, &Bindings::default()).expect("shapes fit");
    let values = teacher.graph.value_names();
    let types = values.filter_map(|name| Some((name.clone(), types.tensor(name)?.clone()))).collect();
    let ends = Ends::of(&teacher.graph, &teacher.output);
    assert_eq!(ends.logits, teacher.names["logits"][0]);
    let of_teacher = Teacher { ends, types: &types };
    let with = attach(&student.graph, &student.output, &of_teacher, &mix, Loss::CrossEntropy, 1);
    let with = with.unwrap_or_else(|error| panic!("{name}: {error}"));
    let given = |seed: usize, tensor_type: &TensorType| {
        let dims = tensor_type.shape.as_ref().expect("a rank").iter().map(|dim| dim.known().unwrap_or(5));
        let shape: Vec<usize> = dims.collect();
        let n = shape.iter().product();
        Plain::new(&shape, numbers(seed as u64, n).into_iter().map(f64::from).collect()).single()
    };
    let x = student.graph.inputs[0].tensor_type().expect("a tensor");
    let mut inputs = IndexMap::from([(Name::from("x"), given(99, x))]);
    for (idx, input) in with.teacher.iter().enumerate() {
        inputs.insert(input.input.clone(), given(idx, &input.tensor_type));
    }
    inputs.extend(with.weights(0.0).map(|(name, weight)| (name.clone(), weight)));
    let validation = loss::attach(&student.graph, &student.output, Loss::CrossEntropy).expect("the output is there");
    let learner = Learner::with_losses(&student.graph, with.with_loss, validation, &Default::default());
    let mut learner = learner.expect("it learns");
    let learned = learner.learn(&inputs, 0).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(learned.loss.is_finite(), "{name}");
    let is_finite = |(_, gradient): (usize, &[f32])| gradient.iter().all(|value| value.is_finite());
    assert!(learned.gradients().count() > 0 && learned.gradients().all(is_finite), "{name}");
}

#[test]
fn images_are_paired_by_resolution() {
    let (student, teacher) = (residual(1, 2), residual(3, 4));
    let stages = [("stage", 0, 0), ("stage", 1, 1), ("stage", 2, 2)];
    for name in ["hint", "vid", "attention-transfer", "nst"] {
        check(name, &student, &teacher, &stages);
    }
    check("similarity", &student, &teacher, &stages[2..]);
    for name in ["relational", "pkt", "crd"] {
        check(name, &student, &teacher, &[("features", 0, 0)]);
    }
    check("kd", &student, &teacher, &[]);
    let student = residual(2, 4);
    let flows = (0..3).flat_map(|stage| [("first block", stage, stage), ("stage", stage, stage)]);
    check("fsp", &student, &teacher, &flows.collect::<Vec<_>>());
}

#[test]
fn layers_are_paired_by_their_share_of_the_way() {
    let (student, teacher) = (encoder(2, 4), encoder(4, 8));
    let layers = [("layer", 0, 1), ("layer", 1, 3)];
    for name in ["tinybert-hidden", "hint", "vid"] {
        check(name, &student, &teacher, &layers);
    }
    check("tinybert-embedding", &student, &teacher, &[("embedding", 0, 0)]);
    check("tinybert-attention", &student, &teacher, &[("scores", 0, 1), ("scores", 1, 3)]);
    check("minilm", &student, &teacher, &[("scores", 1, 3), ("values", 1, 3)]);
    check("minilm-v2", &student, &teacher, &[("queries", 1, 3), ("keys", 1, 3), ("values", 1, 3)]);
    check("pkt", &student, &teacher, &[("features", 0, 0)]);
}

#[test]
fn what_is_not_there_is_refused() {
    let check = |name: &str, student: &Network, teacher: &Network, expected: &str| {
        let error = resolved(name, student, teacher).expect_err("it is refused");
        assert!(error.starts_with(&format!("{name}: {expected}")), "{error}");
    };
    let (images, tokens) = (residual(1, 2), encoder(2, 4));
    check("attention-transfer", &tokens, &images, "the student has no images");
    check("attention-transfer", &images, &tokens, "the teacher has no images");
    check("fsp", &images, &images, "the networks have no resolution with two residual blocks in common");
    check("tinybert-hidden", &images, &tokens, "the student has 0 encoder layers, the teacher 2");
    check("tinybert-hidden", &encoder(3, 4), &tokens, "the student has 3 encoder layers, the teacher 2");
    check("tinybert-embedding", &tokens, &images, "the teacher has no encoder layer");
    check("minilm", &images, &tokens, "the student has no encoder layer");
}
