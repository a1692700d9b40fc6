//! Each architecture in a tiny instance: parameters counted by hand, shapes, the reference's outputs; what is refused.

use indexmap::IndexMap;

use super::*;
use crate::graph::eval;
use crate::graph::shape::{Bindings, infer};
use crate::graph::show::show;
use crate::graph::tensor::Tensor;
use crate::graph::{Dim, Name};

#[derive(Deserialize)]
struct Config {
    arch: Architecture,
}

fn parse(text: &str) -> Result<Architecture, String> {
    toml::from_str::<Config>(&format!("arch = {text}")).map(|config| config.arch).map_err(|error| error.to_string())
}

fn task(inputs: Vec<Input>) -> Task {
    Task { name: "net".to_string(), inputs, output: "logits".to_string(), n_outputs: 3 }
}

fn image(shape: &[usize]) -> Task {
    task(vec![Input::new("x", DType::F32, shape)])
}

fn series() -> Input {
    Input { shape: vec![None, Some(2)], ..Input::new("x", DType::F32, &[]) }
}

fn text() -> Input {
    Input { shape: vec![None], n_ids: Some(11), ..Input::new("input_ids", DType::I64, &[]) }
}

fn mask(dtype: DType) -> Input {
    Input { shape: vec![None], ..Input::new("mask", dtype, &[]) }
}

fn count() -> Input {
    Input::new("length", DType::I64, &[])
}

fn built(architecture: &str, task: &Task) -> Result<Graph, String> {
    build(&parse(architecture)?, task).map_err(|error| error.to_string())
}

/// Builds it, and compares the number of parameters without running statistics, the outputs' shape and, since every
/// weight is zero, the outputs.
#[track_caller]
fn check(architecture: &str, task: &Task, n_parameters: usize) {
    let graph = built(architecture, task).unwrap_or_else(|error| panic!("{error}"));
    graph.check().unwrap_or_else(|error| panic!("{architecture}: {error}"));
    let learned = graph.initializers.iter().filter(|(name, tensor)| {
        tensor.dtype().is_float() && !name.ends_with("running_mean") && !name.ends_with("running_var")
    });
    assert_eq!(learned.map(|(_, tensor)| tensor.len()).sum::<usize>(), n_parameters, "{architecture}");
    let dims = graph.inputs.iter().filter_map(|input| input.tensor_type()?.shape.as_ref()).flatten();
    let symbols = dims.filter_map(|dim| match dim {
        Dim::Symbol(symbol) => Some((symbol.clone(), if symbol.as_str() == "batch" { 2 } else { 5 })),
        Dim::Known(_) | Dim::Unknown => None,
    });
    let bindings = Bindings { symbols: symbols.collect(), ..Bindings::default() };
    let types = infer(&graph, &bindings).unwrap_or_else(|error| panic!("{architecture}: {error}"));
    assert!(types.notes().is_empty(), "{architecture}: {:?}", types.notes());
    assert_eq!(types.known_shape("logits"), Some(vec![2, 3]), "{architecture}");
    for node in &graph.nodes {
        let output = node.outputs.iter().flatten().next().expect("each node makes something");
        assert!(types.known_shape(output).is_some(), "{architecture}: the shape of `{output}` is not known");
    }
    let inputs = graph.inputs.iter().map(|input| {
        let shape = types.known_shape(&input.name).expect("every symbol is bound");
        let dtype = input.tensor_type().expect("it is typed").dtype;
        (input.name.clone(), Tensor::zeros(dtype, &shape).expect("it is small"))
    });
    let outputs = eval::run(&graph, &inputs.collect()).unwrap_or_else(|error| panic!("{architecture}: {error}"));
    assert_eq!(outputs["logits"], Tensor::new(&[2, 3], vec![0f32; 6]).expect("six"), "{architecture}");
}

#[track_caller]
fn refused(architecture: &str, task: &Task, expected: &str) {
    let error = built(architecture, task).expect_err("it is refused");
    assert!(error.contains(expected), "{error}");
}

#[test]
fn parameters_are_as_many_as_by_hand() {
    check("{ mlp = { hidden = [5, 4] } }", &image(&[1, 2, 3]), (6 * 5 + 5) + (5 * 4 + 4) + (4 * 3 + 3));
    check("{ mlp = { hidden = [], dropout = 0.5 } }", &image(&[6]), 6 * 3 + 3);
    check(
        "{ mlp = { hidden = [4, 4], batch_norm = true, dropout = 0.1, activation = 'gelu' } }",
        &image(&[6]),
        (6 * 4 + 4 + 8) + (4 * 4 + 4 + 8) + (4 * 3 + 3),
    );
    check("{ cnn = { channels = [4, 6] } }", &image(&[8, 9]), (9 * 4 + 8) + (4 * 9 * 6 + 12) + (6 * 3 + 3));
    let flat = "{ cnn = { channels = [4], batch_norm = false, global_pool = false, hidden = [7], \
                activation = 'hard-swish' } }";
    check(flat, &image(&[2, 6, 5]), (2 * 9 * 4 + 4) + (4 * 3 * 2 * 7 + 7) + (7 * 3 + 3));
    // stem; two convolutions a block; the second stage's projection
    let resnet =
        (3 * 9 * 4 + 8) + 2 * (4 * 9 * 4 + 8) + (4 * 9 * 8 + 16) + (8 * 9 * 8 + 16) + (4 * 8 + 16) + (8 * 3 + 3);
    check("{ resnet = { blocks = [1, 1], width = 4 } }", &image(&[3, 6, 6]), resnet);
    let block = |n_in: usize, n_out: usize| n_in * 9 + 2 * n_in + n_in * n_out + 2 * n_out;
    let ds_cnn = (10 * 4 * 4 + 8) + 2 * block(4, 4) + (4 * 3 + 3);
    check("{ ds-cnn = { blocks = 2, width = 4 } }", &image(&[12, 10]), ds_cnn);
    let text_cnn = 11 * 4 + (4 * 2 * 6 + 6) + (4 * 3 * 6 + 6) + (12 * 3 + 3);
    let architecture = "{ text-cnn = { embedding = 4, widths = [2, 3], channels = 6 } }";
    for inputs in [vec![text()], vec![text(), mask(DType::F32)], vec![text(), count()]] {
        check(architecture, &task(inputs), text_cnn);
    }
}

#[test]
fn mobilenets_have_the_published_numbers_of_parameters() {
    // Without the classifier of 1000 classes of torchvision's MobileNetV2: 3,504,872 − 1,281,000.
    check("{ mobilenet-v2 = {} }", &image(&[3, 16, 16]), 2_223_872 + 1280 * 3 + 3);
    let block = |n_in: usize, n_out: usize| n_in * 9 + 2 * n_in + n_in * n_out + 2 * n_out;
    let widths = [8, 16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256];
    let blocks: usize = widths.windows(2).map(|pair| block(pair[0], pair[1])).sum();
    check("{ mobilenet-v1 = { width = 0.25 } }", &image(&[3, 8, 8]), (3 * 9 * 8 + 16) + blocks + (256 * 3 + 3));
}

#[test]
fn recurrent_networks_take_numbers_and_ids() {
    let gru = |n_in: usize, hidden: usize| 3 * hidden * (n_in + hidden + 2);
    let lstm = |n_in: usize, hidden: usize| 4 * hidden * (n_in + hidden + 2);
    for inputs in [vec![series()], vec![series(), mask(DType::Bool)], vec![series(), count()]] {
        check("{ rnn = { hidden = 4 } }", &task(inputs.clone()), gru(2, 4) + 4 * 3 + 3);
        let both =
            "{ rnn = { cell = 'lstm', hidden = 4, layers = 2, bidirectional = true, pool = 'mean', dropout = 0.1 } }";
        check(both, &task(inputs.clone()), 2 * (lstm(2, 4) + lstm(8, 4)) + 8 * 3 + 3);
        let last = "{ rnn = { cell = 'lstm', hidden = 4, bidirectional = true } }";
        check(last, &task(inputs.clone()), 2 * lstm(2, 4) + 8 * 3 + 3);
        check("{ rnn = { hidden = 4, pool = 'mean' } }", &task(inputs), gru(2, 4) + 4 * 3 + 3);
    }
    check("{ rnn = { hidden = 4, embedding = 5 } }", &task(vec![text()]), 11 * 5 + gru(5, 4) + 4 * 3 + 3);
}

#[test]
fn bert_takes_a_mask_and_token_types() {
    let (hidden, inner) = (4, 16);
    let layer = 4 * (hidden * hidden + hidden) + (hidden * inner + inner) + (inner * hidden + hidden) + 4 * hidden;
    let rest = (11 + 8 + 2) * hidden + 2 * hidden + (hidden * hidden + hidden) + hidden * 3 + 3;
    let types = Input { name: "token_type_ids".to_string(), ..mask(DType::I64) };
    for inputs in [vec![text()], vec![text(), mask(DType::I64)], vec![text(), count(), types]] {
        check("{ bert = { hidden = 4, layers = 2, heads = 2, positions = 8 } }", &task(inputs), 2 * layer + rest);
    }
    let without = "{ bert = { hidden = 4, layers = 1, heads = 1, positions = 8, token_types = 0, dropout = 0 } }";
    check(without, &task(vec![text()]), layer + rest - 2 * hidden);
}

/// Fills float initializers with numbers between −1 and 1 that depend on nothing but their place.
fn filled(graph: &Graph) -> Graph {
    let mut parts = graph.to_parts();
    for (idx, tensor) in parts.initializers.values_mut().enumerate() {
        if tensor.dtype() == DType::F32 {
            let elements = (0..tensor.len()).map(|place| ((place * 7 + idx * 13) as f32 * 0.7).sin()).collect();
            *tensor = Tensor::new::<f32>(tensor.shape(), elements).expect("as many");
        }
    }
    Graph::new(parts).expect("as whole as before")
}

/// A sample alone, and beside a longer one where it is padded: the same outputs but for rounding.
#[track_caller]
fn check_padding(architecture: &str, data: &Input, by_count: bool) {
    let second = if by_count { count() } else { mask(DType::F32) };
    let name = second.name.clone();
    let graph =
        filled(&built(architecture, &task(vec![data.clone(), second])).unwrap_or_else(|error| panic!("{error}")));
    let run = |n_steps: usize, n_there: usize| {
        let value = |step: usize, feature: usize| match step < n_there {
            true => (step * 2 + feature) % 11,
            false => 9,
        };
        let values = if data.dtype == DType::F32 {
            let values = (0..n_steps).flat_map(|step| [value(step, 0) as f32 / 10.0, value(step, 1) as f32 / 10.0]);
            Tensor::new(&[1, n_steps, 2], values.collect()).expect("two a step")
        } else {
            Tensor::new(&[1, n_steps], (0..n_steps).map(|step| value(step, 0) as i64).collect()).expect("one a step")
        };
        let length = if by_count {
            Tensor::vector(vec![n_there as i64])
        } else {
            let ones = (0..n_steps).map(|step| f32::from(u8::from(step < n_there)));
            Tensor::new(&[1, n_steps], ones.collect()).expect("one a step")
        };
        let inputs = IndexMap::from([(Name::from(data.name.as_str()), values), (Name::from(name.as_str()), length)]);
        let outputs = eval::run(&graph, &inputs).unwrap_or_else(|error| panic!("{architecture}: {error}"));
        outputs["logits"].as_slice::<f32>().expect("f32").to_vec()
    };
    let (alone, padded, longer) = (run(3, 3), run(6, 3), run(6, 6));
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart(&alone, &padded) < 1e-5, "{architecture}: {alone:?} and {padded:?}");
    assert!(apart(&alone, &longer) > 1e-4, "{architecture}: steps that are there count");
}

#[test]
fn padding_has_no_effect() {
    for by_count in [false, true] {
        for cell in ["gru", "lstm"] {
            for pool in ["last", "mean"] {
                for bidirectional in [false, true] {
                    let rnn = format!(
                        "{{ rnn = {{ cell = '{cell}', pool = '{pool}', bidirectional = {bidirectional}, hidden = 3, \
                         layers = 2 }} }}"
                    );
                    check_padding(&rnn, &series(), by_count);
                }
            }
        }
        check_padding("{ text-cnn = { embedding = 4, channels = 5 } }", &text(), by_count);
        check_padding("{ bert = { hidden = 4, layers = 1, positions = 8 } }", &text(), by_count);
    }
}

#[test]
fn misfits_are_refused_with_a_remedy() {
    let small = image(&[1, 4, 4]);
    refused("{ mlp = { hidden = [0] } }", &small, "mlp: `hidden` is 0; give at least 1");
    refused("{ mlp = { dropout = 1.0 } }", &small, "mlp: `dropout` is 1; give at least 0 and less than 1");
    refused("{ mlp = { hidden = [100000] } }", &small, "mlp: `hidden` is 100000; give at most 65536");
    refused("{ mlp = { hidden = [65536, 65536] } }", &small, "more than 1073741824 parameters");
    refused("{ mlp = { hiden = [1] } }", &small, "unknown field `hiden`");
    refused("{ vgg = {} }", &small, "unknown variant `vgg`");
    refused("{ cnn = {} }", &small, "cnn: `channels` halves an image of 4×4 3 times; 2 halvings are possible");
    refused("{ cnn = { channels = [] } }", &small, "cnn: `channels` is empty");
    refused("{ cnn = { kernel = 2 } }", &small, "cnn: `kernel` is 2; give an odd number");
    refused("{ resnet = { blocks = [1, 1, 1, 1] } }", &small, "resnet: `blocks` halves an image of 4×4 3 times");
    refused("{ resnet = { blocks = [] } }", &small, "resnet: `blocks` has 0 stages");
    refused("{ resnet = {} }", &image(&[7]), "resnet: input `x` has the shape [7] in a sample; give images");
    refused("{ mobilenet-v1 = { width = 0 } }", &small, "mobilenet-v1: `width` is 0; give a factor");
    refused("{ mobilenet-v1 = { width = nan } }", &small, "mobilenet-v1: `width` is NaN; give a factor");
    refused("{ mobilenet-v2 = { halvings = 6 } }", &small, "mobilenet-v2: `halvings` is 6; the network has five");
    refused("{ mobilenet-v2 = { halvings = 3 } }", &small, "mobilenet-v2: `halvings` halves an image of 4×4 3 times");
    refused(
        "{ ds-cnn = { kernel = [3, 3], stride = [2, 5] } }",
        &small,
        "ds-cnn: `stride` is 5 on axis 1, where the spectrogram has 4",
    );
    refused("{ ds-cnn = { kernel = [9, 4] } }", &small, "ds-cnn: `kernel` is 9 on axis 0");
    refused(
        "{ text-cnn = {} }",
        &small,
        "text-cnn: input `x` is f32[1, 4, 4]; give numbers as f32 [time, features] or ids",
    );
    refused("{ text-cnn = {} }", &task(vec![series()]), "text-cnn: input `x` holds numbers, not ids");
    refused("{ text-cnn = { widths = [] } }", &task(vec![text()]), "text-cnn: `widths` is empty");
    let unknown = Input { n_ids: None, ..text() };
    refused("{ rnn = {} }", &task(vec![unknown]), "rnn: the number of ids of input `input_ids` is not known");
    refused("{ rnn = {} }", &task(vec![series(), series()]), "rnn: input `x` is f32[?, 2]; give a mask");
    refused("{ rnn = {} }", &task(vec![text(), count(), count()]), "rnn: there is no use for input `length`");
    refused("{ rnn = { cell = 'elman' } }", &small, "unknown variant `elman`");
    refused("{ bert = { hidden = 5 } }", &task(vec![text()]), "bert: `hidden` is 5, which 2 heads do not divide");
    let long = Input { shape: vec![Some(9)], ..text() };
    refused("{ bert = { positions = 8 } }", &task(vec![long]), "bert: `positions` is 8, less than the 9 tokens");
    refused("{ mlp = {} }", &task(vec![series()]), "mlp: input `x` has an axis of any length; have the samples cut");
    refused("{ mlp = {} }", &task(Vec::new()), "mlp: the task has 0 inputs");
    refused("{ mlp = {} }", &image(&[0]), "an axis of size 0");
    refused("{ mlp = {} }", &task(vec![Input::new("x", DType::U8, &[4])]), "mlp: input `x` is of u8; have the data");
    refused("{ mlp = {} }", &Task { n_outputs: 0, ..small }, "mlp: the task has no outputs");
    refused("{ mlp = {} }", &task(vec![Input::new("layers.0", DType::F32, &[4])]), "give the task's inputs and output");
}

#[test]
fn a_parameter_that_is_not_given_has_its_default() {
    let names = ["mlp", "cnn", "resnet", "mobilenet-v1", "mobilenet-v2", "ds-cnn", "text-cnn", "rnn", "bert"];
    for name in names {
        let architecture = parse(&format!("{{ {name} = {{}} }}")).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(architecture.name(), name);
        let written = toml::to_string(&architecture).expect("it has a form in TOML");
        assert_eq!(toml::from_str::<Architecture>(&written), Ok(architecture));
    }
}

#[test]
fn a_residual_network_as_text() {
    let graph = built("{ resnet = { blocks = [1, 1], width = 1 } }", &image(&[1, 4, 4])).expect("a network");
    insta::assert_snapshot!(show(&graph), @r#"
    graph "net"
      in   %x: f32[batch, 1, 4, 4]
      out  %logits: f32[batch, 3]
      init %stem.conv.weight: f32[1, 1, 3, 3] #d57fbcfd
      init %stem.bn.weight: f32[1] [1.0]
      init %stem.bn.bias: f32[1] [0.0]
      init %stem.bn.running_mean: f32[1] [0.0]
      init %stem.bn.running_var: f32[1] [1.0]
      init %stages.0.0.conv1.weight: f32[1, 1, 3, 3] #d57fbcfd
      init %stages.0.0.bn1.weight: f32[1] [1.0]
      init %stages.0.0.bn1.bias: f32[1] [0.0]
      init %stages.0.0.bn1.running_mean: f32[1] [0.0]
      init %stages.0.0.bn1.running_var: f32[1] [1.0]
      init %stages.0.0.conv2.weight: f32[1, 1, 3, 3] #d57fbcfd
      init %stages.0.0.bn2.weight: f32[1] [1.0]
      init %stages.0.0.bn2.bias: f32[1] [0.0]
      init %stages.0.0.bn2.running_mean: f32[1] [0.0]
      init %stages.0.0.bn2.running_var: f32[1] [1.0]
      init %stages.1.0.conv1.weight: f32[2, 1, 3, 3] #69488d24
      init %stages.1.0.bn1.weight: f32[2] [1.0, 1.0]
      init %stages.1.0.bn1.bias: f32[2] [0.0, 0.0]
      init %stages.1.0.bn1.running_mean: f32[2] [0.0, 0.0]
      init %stages.1.0.bn1.running_var: f32[2] [1.0, 1.0]
      init %stages.1.0.conv2.weight: f32[2, 2, 3, 3] #98cec8ff
      init %stages.1.0.bn2.weight: f32[2] [1.0, 1.0]
      init %stages.1.0.bn2.bias: f32[2] [0.0, 0.0]
      init %stages.1.0.bn2.running_mean: f32[2] [0.0, 0.0]
      init %stages.1.0.bn2.running_var: f32[2] [1.0, 1.0]
      init %stages.1.0.downsample.conv.weight: f32[2, 1, 1, 1] [0.0, 0.0]
      init %stages.1.0.downsample.bn.weight: f32[2] [1.0, 1.0]
      init %stages.1.0.downsample.bn.bias: f32[2] [0.0, 0.0]
      init %stages.1.0.downsample.bn.running_mean: f32[2] [0.0, 0.0]
      init %stages.1.0.downsample.bn.running_var: f32[2] [1.0, 1.0]
      init %head.weight: f32[3, 2] [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
      init %head.bias: f32[3] [0.0, 0.0, 0.0]
      %stem.conv = Conv(%x, %stem.conv.weight) {kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]}
      %stem.bn = BatchNormalization(%stem.conv, %stem.bn.weight, %stem.bn.bias, %stem.bn.running_mean, %stem.bn.running_var)
      %stem.relu = Relu(%stem.bn)
      %stages.0.0.conv1 = Conv(%stem.relu, %stages.0.0.conv1.weight) {kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]}
      %stages.0.0.bn1 = BatchNormalization(%stages.0.0.conv1, %stages.0.0.bn1.weight, %stages.0.0.bn1.bias, %stages.0.0.bn1.running_mean, %stages.0.0.bn1.running_var)
      %stages.0.0.relu1 = Relu(%stages.0.0.bn1)
      %stages.0.0.conv2 = Conv(%stages.0.0.relu1, %stages.0.0.conv2.weight) {kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]}
      %stages.0.0.bn2 = BatchNormalization(%stages.0.0.conv2, %stages.0.0.bn2.weight, %stages.0.0.bn2.bias, %stages.0.0.bn2.running_mean, %stages.0.0.bn2.running_var)
      %stages.0.0.add = Add(%stages.0.0.bn2, %stem.relu)
      %stages.0.0.relu2 = Relu(%stages.0.0.add)
      %stages.1.0.conv1 = Conv(%stages.0.0.relu2, %stages.1.0.conv1.weight) {kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]}
      %stages.1.0.bn1 = BatchNormalization(%stages.1.0.conv1, %stages.1.0.bn1.weight, %stages.1.0.bn1.bias, %stages.1.0.bn1.running_mean, %stages.1.0.bn1.running_var)
      %stages.1.0.relu1 = Relu(%stages.1.0.bn1)
      %stages.1.0.conv2 = Conv(%stages.1.0.relu1, %stages.1.0.conv2.weight) {kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]}
      %stages.1.0.bn2 = BatchNormalization(%stages.1.0.conv2, %stages.1.0.bn2.weight, %stages.1.0.bn2.bias, %stages.1.0.bn2.running_mean, %stages.1.0.bn2.running_var)
      %stages.1.0.downsample.conv = Conv(%stages.0.0.relu2, %stages.1.0.downsample.conv.weight) {kernel_shape=[1, 1], pads=[0, 0, 0, 0], strides=[2, 2]}
      %stages.1.0.downsample.bn = BatchNormalization(%stages.1.0.downsample.conv, %stages.1.0.downsample.bn.weight, %stages.1.0.downsample.bn.bias, %stages.1.0.downsample.bn.running_mean, %stages.1.0.downsample.bn.running_var)
      %stages.1.0.add = Add(%stages.1.0.bn2, %stages.1.0.downsample.bn)
      %stages.1.0.relu2 = Relu(%stages.1.0.add)
      %head.pool = GlobalAveragePool(%stages.1.0.relu2)
      %head.flatten = Flatten(%head.pool)
      %logits = Gemm(%head.flatten, %head.weight, %head.bias) {transB=1}
    "#);
}

#[test]
fn a_recurrent_network_as_text() {
    let graph = built("{ rnn = { hidden = 2 } }", &task(vec![series(), mask(DType::F32)])).expect("a network");
    insta::assert_snapshot!(show(&graph), @r#"
    graph "net"
      in   %x: f32[batch, time, 2]
      in   %mask: f32[batch, time]
      out  %logits: f32[batch, 3]
      init %rnn.0.W: f32[1, 6, 2] #bc4542bf
      init %rnn.0.R: f32[1, 6, 2] #bc4542bf
      init %rnn.0.B: f32[1, 12] #bc4542bf
      init %rnn.0.axes: i64[1] [1]
      init %length.sum_axes: i64[1] [1]
      init %length.positions.axes: i64[1] [0]
      init %length.positions.start: i64[] 0
      init %length.positions.delta: i64[] 1
      init %length.one: i64[] 1
      init %length.axes: i64[1] [1]
      init %head.pool.feature_axes: i64[1] [2]
      init %head.pool.axes: i64[1] [0]
      init %head.weight: f32[3, 2] [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
      init %head.bias: f32[3] [0.0, 0.0, 0.0]
      %rnn.transpose = Transpose(%x) {perm=[1, 0, 2]}
      %rnn.0 = GRU(%rnn.transpose, %rnn.0.W, %rnn.0.R, %rnn.0.B) {hidden_size=2, linear_before_reset=1}
      %rnn.0.squeeze = Squeeze(%rnn.0, %rnn.0.axes)
      %length.sum = ReduceSum(%mask, %length.sum_axes) {keepdims=0}
      %length.count = Cast(%length.sum) {to=7}
      %length.positions.size = Shape(%x) {start=1, end=2}
      %length.positions.limit = Squeeze(%length.positions.size, %length.positions.axes)
      %length.positions = Range(%length.positions.start, %length.positions.limit, %length.positions.delta)
      %length.last = Sub(%length.count, %length.one)
      %length.last_column = Unsqueeze(%length.last, %length.axes)
      %length.is_last = Equal(%length.positions, %length.last_column)
      %length.last_mask = Cast(%length.is_last) {to=1}
      %head.pool.mask_by_time = Transpose(%length.last_mask) {perm=[1, 0]}
      %head.pool.mask = Unsqueeze(%head.pool.mask_by_time, %head.pool.feature_axes)
      %head.pool.masked = Mul(%rnn.0.squeeze, %head.pool.mask)
      %head.pool.sum = ReduceSum(%head.pool.masked, %head.pool.axes) {keepdims=0}
      %logits = Gemm(%head.pool.sum, %head.weight, %head.bias) {transB=1}
    "#);
}
