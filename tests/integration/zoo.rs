//! Networks of the zoo as files: they read back as they were built, and both runtimes compute what the reference does.

use aludel::graph::shape::{Bindings, infer};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Dim, Graph, Model};
use aludel::learn::train::init::{Initialisation, initialise};
use aludel::learn::train::roles::{Role, roles};
use aludel::measure::runtime::{ModelBytes, Options, Runtime};
use aludel::zoo::{Architecture, Input, Task, build};

use crate::{round_trip, support};

#[derive(serde::Deserialize)]
struct Config {
    arch: Architecture,
}

pub(crate) fn built(arch: &str, inputs: Vec<Input>) -> Graph {
    let config: Config = toml::from_str(&format!("arch = {arch}")).expect("an architecture");
    let task = Task { name: "net".to_string(), inputs, output: "logits".to_string(), n_outputs: 3 };
    let graph = build(&config.arch, &task).unwrap_or_else(|error| panic!("{error}"));
    initialise(&graph, &Initialisation::default(), 1).expect("every network has weights")
}

fn series() -> Input {
    Input { shape: vec![None, Some(2)], ..Input::new("x", DType::F32, &[]) }
}

fn text() -> Input {
    Input { shape: vec![None], n_ids: Some(11), ..Input::new("ids", DType::I64, &[]) }
}

fn mask() -> Input {
    Input { shape: vec![None], ..Input::new("mask", DType::F32, &[]) }
}

fn length() -> Input {
    Input::new("length", DType::I64, &[])
}

const STEPS: usize = 5;

/// Two samples; of the sequences, of five steps, the second has two of padding.
fn samples(graph: &Graph) -> Vec<(String, Tensor)> {
    let samples = graph.inputs.iter().map(|input| {
        let typed = input.tensor_type().expect("the zoo types its inputs");
        let dims = typed.shape.iter().flatten().map(|dim| match dim {
            Dim::Known(size) => *size,
            Dim::Symbol(symbol) if symbol.as_str() == "batch" => 2,
            Dim::Symbol(_) | Dim::Unknown => STEPS,
        });
        let shape: Vec<usize> = dims.collect();
        let n: usize = shape.iter().product();
        let tensor = match input.name.as_str() {
            "length" => Tensor::new(&shape, vec![5i64, 3]),
            "mask" => Tensor::new(&shape, vec![1f32, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]),
            "ids" => Tensor::new(&shape, (0..n as i64).map(|place| place * 3 % 11).collect()),
            _ => Tensor::new(&shape, (0..n).map(|place| (place as f32 * 0.7).sin()).collect()),
        };
        (input.name.to_string(), tensor.expect("as many elements"))
    });
    samples.collect()
}

fn run(runtime: &dyn Runtime, bytes: &ModelBytes, inputs: &[(String, Tensor)]) -> Result<Tensor, String> {
    let outputs = runtime.load(bytes, &Options::default()).and_then(|mut session| session.run(inputs));
    let outputs = outputs.map_err(|error| error.to_string())?;
    outputs.into_iter().next().map(|(_, tensor)| tensor).ok_or_else(|| "no output".to_string())
}

/// `tract_refuses`: what tract says of a network that it cannot run.
#[track_caller]
fn check(arch: &str, inputs: Vec<Input>, tract_refuses: Option<&str>) {
    let graph = built(arch, inputs);
    let types = infer(&graph, &Bindings::default()).unwrap_or_else(|error| panic!("{arch}: {error}"));
    let constants: Vec<_> = roles(&graph, &types).into_iter().filter(|(_, role)| *role == Role::Constant).collect();
    assert!(constants.is_empty(), "{arch}: every float initializer is learned or measured, but {constants:?}");
    let bytes = round_trip::written_back(&Model::new(graph.clone())).unwrap_or_else(|error| panic!("{arch} {error}"));
    let inputs = samples(&graph);
    let expected = support::reference(&graph, &inputs).unwrap_or_else(|error| panic!("{arch}: {error}"));
    for runtime in support::runtimes() {
        let got = run(runtime, &ModelBytes::new(bytes.clone()), &inputs);
        match (got, tract_refuses.filter(|_| runtime.name() == "tract")) {
            (Err(error), Some(refuses)) => assert!(error.contains(refuses), "{arch}: {error}"),
            (Ok(_), Some(_)) => panic!("{arch}: tract runs it by now"),
            (got, None) => {
                let got = got.unwrap_or_else(|error| panic!("{arch} on {}: {error}", runtime.name()));
                let apart = support::close(&expected[0], &got, 1e-4, 1e-5);
                apart.unwrap_or_else(|problem| panic!("{arch} on {}: {problem}", runtime.name()));
            }
        }
    }
}

#[test]
fn networks_of_images() {
    let image = |shape: &[usize]| vec![Input::new("x", DType::F32, shape)];
    let dense = "{ mlp = { hidden = [8], batch_norm = true, dropout = 0.1, activation = 'gelu' } }";
    check(dense, image(&[1, 2, 3]), None);
    check("{ cnn = { channels = [4, 6], dropout = 0.2, activation = 'relu6' } }", image(&[8, 9]), None);
    let flat = "{ cnn = { channels = [4], batch_norm = false, global_pool = false, hidden = [7], \
                activation = 'hard-swish' } }";
    check(flat, image(&[2, 6, 5]), None);
    check("{ resnet = { blocks = [1, 1], width = 4 } }", image(&[3, 6, 6]), None);
    check("{ mobilenet-v1 = { width = 0.25 } }", image(&[3, 16, 16]), None);
    check("{ mobilenet-v2 = { width = 0.25 } }", image(&[3, 16, 16]), None);
    check("{ ds-cnn = { blocks = 2, width = 4 } }", image(&[12, 10]), None);
}

#[test]
fn networks_of_sequences() {
    let text_cnn = "{ text-cnn = { embedding = 4, channels = 6 } }";
    check(text_cnn, vec![text()], None);
    check(text_cnn, vec![text(), mask()], None);
    check("{ rnn = { hidden = 4, layers = 2 } }", vec![series(), length()], None);
    check("{ rnn = { hidden = 4, pool = 'mean' } }", vec![series(), mask()], None);
    let both = "{ rnn = { cell = 'lstm', hidden = 4, layers = 2, bidirectional = true, dropout = 0.1 } }";
    check(both, vec![series()], None);
    check(both, vec![series(), length()], Some("Non constant seq_len is not supported"));
    let bert = "{ bert = { hidden = 8, layers = 2, positions = 8 } }";
    check(bert, vec![text(), mask()], None);
    check(bert, vec![text(), length()], None);
}
