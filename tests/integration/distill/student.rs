//! Students made out of real networks, of those of the zoo and of random ones: they are smaller, and run.

use std::cell::Cell;
use std::fmt::Write as _;

use aludel::compress::distill::student::{Derived, StudentError, StudentOptions, derive};
use aludel::graph::shape::{Bindings, infer};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Dim, Graph, Model};
use aludel::measure::runtime::{ModelBytes, Options, Runtime};
use aludel::onnx;
use aludel::zoo::Input;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::real::{Real, real_models, run_bytes};
use crate::zoo::built;
use crate::{random_graphs, support};

fn options(text: &str) -> StudentOptions {
    toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The student, whole and with types; the same a second time.
fn student(teacher: &Graph, text: &str) -> Result<Derived, StudentError> {
    let derive = || derive(teacher, &options(text), &Bindings::default(), 7);
    let derived = derive()?;
    assert_eq!(derive()?.graph, derived.graph, "{text}");
    derived.graph.check().expect("a graph");
    infer(&derived.graph, &Bindings::default()).expect("types fit");
    let report = &derived.report;
    assert!(report.student.parameters < report.teacher.parameters, "{text}: {report:?}");
    if let (Some(student), Some(teacher)) = (report.student.macs, report.teacher.macs) {
        assert!(student <= teacher, "{text}: {report:?}");
    }
    Ok(derived)
}

/// What stands against a student of half the width, or of half the blocks.
const REFUSED: [(&str, &str, &str); 2] = [
    ("qtdnn_qlinearconv.onnx", "width = 0.5", "nothing of the network"),
    ("silero_vad_16k_op15_if.onnx", "width = 0.5", "nothing of the network"),
];

fn check_real(real: &Real, model: &Model, text: &str, table: &mut String) {
    let name = real.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let derived = student(&model.graph, text);
    let expected = REFUSED.iter().find(|(file, refused, _)| *file == name && *refused == text);
    let derived = match (derived, expected) {
        (Err(error), Some((_, _, reason))) => {
            assert!(error.to_string().starts_with(reason), "{name} {text}: {error}");
            let _ = writeln!(table, "{name:<28} {text}: {error}");
            return;
        }
        (derived, _) => derived.unwrap_or_else(|error| panic!("{name} {text}: {error}")),
    };
    let bytes = ModelBytes::new(onnx::to_bytes(&model.with_graph(derived.graph)).expect("it can be written"));
    for runtime in support::runtimes() {
        if runtime.name() == "tract" && !real.tract_refuses.is_empty() {
            continue;
        }
        let outputs = run_bytes(runtime, real, &bytes, &Options::default());
        outputs.unwrap_or_else(|error| panic!("{name} {text} on {}: {error}", runtime.name()));
    }
    let report = derived.report;
    let (n_groups, n_left) = (report.groups.len(), report.left.len());
    let [before, after] = [report.teacher, report.student].map(|size| size.parameters);
    let _ = writeln!(
        table,
        "{name:<28} {before:>9} -> {after:>9} parameters  {n_groups:>2} groups, {n_left} refused  {text}"
    );
}

#[test]
fn real_models_have_students() {
    let Some(data) = support::data() else { return };
    let mut table = String::from("students of real models\n");
    for real in real_models(&data) {
        let model = onnx::read(&real.path).expect("a network");
        check_real(&real, &model, "width = 0.5", &mut table);
        if real.path.ends_with("model_f16w.onnx") {
            check_real(&real, &model, "depth = { keep = 0.5 }", &mut table);
            check_real(&real, &model, "depth = { layers = 2 }\nwidth = { heads = 0.5, features = 0.25 }", &mut table);
            check_real(&real, &model, "width = { parameters = 0.8 }", &mut table);
        }
    }
    support::say(&table);
}

/// Two samples, axes of any length of six.
fn samples(graph: &Graph) -> Vec<(String, Tensor)> {
    let samples = graph.inputs.iter().map(|input| {
        let typed = input.tensor_type().expect("the inputs are typed");
        let shape: Vec<usize> = typed
            .shape
            .iter()
            .flatten()
            .map(|dim| match dim {
                Dim::Known(size) => *size,
                Dim::Symbol(symbol) if symbol.as_str() == "batch" => 2,
                Dim::Symbol(_) | Dim::Unknown => 6,
            })
            .collect();
        let n: usize = shape.iter().product();
        let tensor = match typed.dtype {
            DType::I64 => Tensor::new(&shape, (0..n as i64).map(|place| place * 3 % 11).collect()),
            _ => Tensor::new(&shape, (0..n).map(|place| (place as f32 * 0.7).sin()).collect()),
        };
        (input.name.to_string(), tensor.expect("as many elements"))
    });
    samples.collect()
}

/// Whether a runtime computes what the reference does; none where tract refuses the network.
fn agrees(runtime: &dyn Runtime, graph: &Graph) -> Result<bool, String> {
    let inputs = samples(graph);
    let expected = support::reference(graph, &inputs).map_err(|error| format!("the reference: {error}"))?;
    let bytes = ModelBytes::new(onnx::to_bytes(&Model::new(graph.clone())).map_err(|error| error.to_string())?);
    let outputs = runtime.load(&bytes, &Options::default()).and_then(|mut session| session.run(&inputs));
    match outputs {
        Ok(outputs) => support::close(&expected[0], &outputs[0].1, 1e-3, 1e-4).map(|()| true),
        Err(_) if runtime.name() == "tract" => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

fn check_zoo(arch: &str, inputs: Vec<Input>, texts: &[&str]) {
    let teacher = built(arch, inputs);
    for text in texts {
        let derived = student(&teacher, text).unwrap_or_else(|error| panic!("{arch} {text}: {error}"));
        for runtime in support::runtimes() {
            let agrees = agrees(runtime, &derived.graph);
            assert_eq!(agrees, Ok(true), "{arch} {text} on {}", runtime.name());
        }
    }
}

#[test]
fn networks_of_images_have_students() {
    let image = |shape: &[usize]| vec![Input::new("x", DType::F32, shape)];
    let width = ["width = 0.5", "width = 0.25\ndivisor = 2\ninherit = { scale = 0.5 }", "width = { macs = 0.4 }"];
    check_zoo("{ mlp = { hidden = [16, 12], batch_norm = true } }", image(&[1, 2, 3]), &width);
    check_zoo("{ cnn = { channels = [8, 12], hidden = [6] } }", image(&[8, 9]), &width);
    check_zoo("{ mobilenet-v1 = { width = 0.25 } }", image(&[3, 16, 16]), &width);
    check_zoo("{ ds-cnn = { blocks = 2, width = 8 } }", image(&[12, 10]), &width);
    let resnet = "{ resnet = { blocks = [3, 3], width = 8 } }";
    check_zoo(resnet, image(&[3, 6, 6]), &width);
    let both = "width = 0.5\ndepth = { keep = 0.5 }\ninherit = false";
    let depth = ["depth = { keep = 0.6 }", "depth = { layers = 1 }", "depth = { blocks = [1, 3] }", both];
    check_zoo(resnet, image(&[3, 6, 6]), &depth);
    let shallow = student(&built(resnet, image(&[3, 6, 6])), "depth = { layers = 1 }").expect("a student");
    let kept: Vec<bool> = shallow.report.blocks.iter().map(|block| block.kept).collect();
    assert_eq!(kept, [true, false, false, true, false, false], "{:?}", shallow.report.blocks);
    let mobile = "{ mobilenet-v2 = { width = 0.25 } }";
    check_zoo(mobile, image(&[3, 16, 16]), &["width = 0.5", "depth = { keep = 0.5 }\nwidth = 0.5"]);
}

#[test]
fn networks_of_sequences_have_students() {
    let series = || vec![Input { shape: vec![None, Some(2)], ..Input::new("x", DType::F32, &[]) }];
    let text = || vec![Input { shape: vec![None], n_ids: Some(11), ..Input::new("ids", DType::I64, &[]) }];
    let width = ["width = 0.5", "width = { parameters = 0.5 }\ninherit = false"];
    check_zoo("{ text-cnn = { embedding = 8, channels = 6 } }", text(), &width);
    let states = ["width = { states = 0.5 }", "depth = { layers = 2 }", "depth = { keep = 0.7 }\nwidth = 0.5"];
    for cell in ["lstm", "gru"] {
        for both in [false, true] {
            let arch = format!("{{ rnn = {{ cell = '{cell}', hidden = 6, layers = 3, bidirectional = {both} }} }}");
            check_zoo(&arch, series(), &width);
            check_zoo(&arch, series(), &states);
        }
    }
    let bert = "{ bert = { hidden = 12, heads = 3, layers = 4, positions = 8 } }";
    check_zoo(bert, text(), &width);
    let parts = ["width = { heads = 0.5 }", "width = { stream = 0.5 }", "width = { features = 0.5, stream = 1.0 }"];
    check_zoo(bert, text(), &parts);
    check_zoo(
        bert,
        text(),
        &["depth = { keep = 0.5 }", "depth = { blocks = [3] }", "width = 0.5\ndepth = { layers = 3 }"],
    );
    let shallow = student(&built(bert, text()), "depth = { keep = 0.5 }").expect("a student");
    let kept: Vec<bool> = shallow.report.blocks.iter().map(|block| block.kept).collect();
    assert_eq!(kept, [true, false, false, true]);
}

/// A runner of so many cases, the same every time.
fn runner(cases: u32) -> TestRunner {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

fn randomly() -> impl Strategy<Value = String> {
    let width = prop_oneof![
        (0.05f64..1.0).prop_map(|width| format!("width = {width}")),
        (0.05f64..1.0).prop_map(|share| format!("width = {{ parameters = {share} }}")),
        (0.05f64..1.0, 0.05f64..1.0).prop_map(|(a, b)| format!("width = {{ default = {a}, stream = {b} }}")),
    ];
    let depth = prop_oneof![
        2 => Just(String::new()),
        1 => (0.05f64..1.0).prop_map(|keep| format!("depth = {{ keep = {keep} }}\n")),
        1 => prop::collection::vec(0usize..5, 0..4).prop_map(|blocks| format!("depth = {{ blocks = {blocks:?} }}\n")),
    ];
    let rest = prop_oneof![
        Just(""),
        Just("\ndivisor = 2\ncriterion = 'l1'"),
        Just("\ncriterion = 'random'\ninherit = { scale = 0.5 }"),
        Just("\nleast = 2\ncriterion = 'first'\ninherit = false"),
    ];
    (depth, width, rest).prop_map(|(depth, width, rest)| format!("{depth}{width}{rest}"))
}

/// A student that runs on the reference, or a refusal that says why there is none.
fn check_random(teacher: &Graph, text: &str, n_students: &Cell<u32>) {
    match derive(teacher, &options(text), &Bindings::default(), 7) {
        Ok(derived) => {
            derived.graph.check().expect("a graph");
            let inputs = samples(&derived.graph);
            let outputs = support::reference(&derived.graph, &inputs).unwrap_or_else(|error| panic!("{text}: {error}"));
            let whole = support::reference(teacher, &inputs).expect("the teacher runs");
            assert!(whole.iter().zip(&outputs).all(|(whole, output)| whole.shape() == output.shape()), "{text}");
            n_students.set(n_students.get() + 1);
        }
        Err(
            StudentError::Nothing { .. }
            | StudentError::NoGroups { .. }
            | StudentError::NoBlocks { .. }
            | StudentError::NoSuchBlock { .. }
            | StudentError::BlockStays { .. }
            | StudentError::OutOfReach { .. }
            | StudentError::Weight { .. },
        ) => {}
        Err(error) => panic!("{text}: {error}"),
    }
}

#[test]
fn random_networks_have_students() {
    const CASES: u32 = 150;
    let n_students = Cell::new(0);
    let convolutional = (random_graphs::layers(), any::<bool>(), any::<u64>(), randomly());
    let checked = runner(CASES).run(&convolutional, |(layers, flat, seed, text)| {
        check_random(&random_graphs::convolutional(&layers, flat, seed), &text, &n_students);
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
    let sequential = (random_graphs::blocks(), any::<u64>(), randomly());
    let checked = runner(CASES).run(&sequential, |(blocks, seed, text)| {
        check_random(&random_graphs::sequential(&blocks, seed), &text, &n_students);
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
    support::say(&format!("{} students of {} random networks\n", n_students.get(), 2 * CASES));
    assert!(n_students.get() > CASES / 3, "many networks have one");
}
