//! The runtimes and what is measured through them, on real models and on small ones written here.

#![allow(clippy::print_stdout)] // tables for who runs it with --nocapture

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use aludel::graph::tensor::{DType, Tensor};
use aludel::measure::child::{self, Request, RuntimeName};
use aludel::measure::difference::difference;
use aludel::measure::inputs::{self, Bindings, SplitMix64};
use aludel::measure::latency::{self, Contender};
use aludel::measure::runtime::tract::Tract;
use aludel::measure::runtime::{Dim, ModelBytes, Optimization, Options, Runtime, RuntimeError, Session, library};

use crate::real::{Real, model, real_models, run};
use crate::support;

/// Greatest difference between the runtimes allowed, relative to the greatest magnitude of the output; measured: 4.7e-6
/// on MiniLM, 2.3e-6 and less on the others.
const AGREEMENT: f64 = 1e-5;

#[test]
fn the_runtimes_agree_on_real_models() {
    let Some(data) = support::data() else { return };
    let Some(ort) = support::onnxruntime() else { return };
    let mut table = String::new();
    let mut wrong = Vec::new();
    for real in real_models(&data) {
        let name = real.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let expected = run(ort, &real, &Options::default()).expect("onnxruntime runs every one of them");
        let got = match run(&Tract, &real, &Options::default()) {
            Ok(got) => got,
            Err(error) => {
                let reason = error.to_string();
                writeln!(table, "{name}: tract refuses: {reason}").expect("a string");
                if real.tract_refuses.is_empty() || !reason.contains(real.tract_refuses) {
                    wrong.push(format!("{name}: {reason}"));
                }
                continue;
            }
        };
        if !real.tract_refuses.is_empty() {
            wrong.push(format!("{name}: tract now runs it; take it off the list"));
        }
        for ((output, expected), (_, got)) in expected.iter().zip(&got) {
            let row = difference(expected, got).expect("types and shapes agree");
            let relative = row.max_relative.unwrap_or(f64::INFINITY);
            writeln!(table, "{name}: {output} {:?}: {relative:.1e}", expected.shape()).expect("a string");
            if relative > AGREEMENT || !row.agrees_outside_numbers() {
                wrong.push(format!("{name}: {output}: {row:?}"));
            }
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_optimization_level_computes_the_same() {
    let Some(data) = support::data() else { return };
    let name = data.join("onnx-models/armkws_ds_cnn_s.onnx");
    let real = Real { path: name, bindings: Bindings::new(), fixed: Vec::new(), tract_refuses: "" };
    for runtime in support::runtimes() {
        let outputs = [Optimization::None, Optimization::Basic, Optimization::All].map(|optimization| {
            let options = Options { optimization, ..Options::default() };
            run(runtime, &real, &options).expect("it runs at every level").remove(0).1
        });
        for other in &outputs[1..] {
            let row = difference(&outputs[0], other).expect("types and shapes agree");
            assert!(row.max_absolute <= 1e-6, "{}: {row:?}", runtime.name());
        }
    }
}

// Small models, written here field by field so that nothing under test writes them.

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 128 {
        bytes.push((number & 127) as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn int(field: u64, number: i64) -> Vec<u8> {
    [varint(field << 3), varint(number as u64)].concat()
}

fn message(field: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    let body = parts.concat();
    [varint(field << 3 | 2), varint(body.len() as u64), body].concat()
}

fn text(field: u64, text: &str) -> Vec<u8> {
    message(field, &[text.as_bytes().to_vec()])
}

fn value_info(field: u64, name: &str, dtype: DType, dims: &[Dim]) -> Vec<u8> {
    let dims: Vec<Vec<u8>> = dims
        .iter()
        .map(|dim| match dim {
            Dim::Known(size) => message(1, &[int(1, *size as i64)]),
            Dim::Symbol(name) => message(1, &[text(2, name)]),
            Dim::Unknown => message(1, &[]),
        })
        .collect();
    let tensor = message(1, &[int(1, dtype.onnx().into()), message(2, &dims)]);
    message(field, &[text(1, name), message(2, &[tensor])])
}

/// `y = operator(x)`, with both of this type and these dimensions.
fn unary(operator: &str, opset: i64, dtype: DType, dims: &[Dim]) -> ModelBytes {
    let node = message(1, &[text(1, "x"), text(2, "y"), text(3, "the_node"), text(4, operator)]);
    let graph = [node, text(2, "g"), value_info(11, "x", dtype, dims), value_info(12, "y", dtype, dims)];
    ModelBytes::new([int(1, 8), message(7, &graph), message(8, &[text(1, ""), int(2, opset)])].concat())
}

/// `y = Cast(Cast(x, to wide), to the type)`, for types that onnxruntime's Identity does not have.
fn there_and_back(dtype: DType, wide: DType, dims: &[Dim]) -> ModelBytes {
    let cast = |from: &str, name: &str, to: DType| {
        let attribute = message(5, &[text(1, "to"), int(3, to.onnx().into()), int(20, 2)]);
        message(1, &[text(1, from), text(2, name), text(4, "Cast"), attribute])
    };
    let nodes = [cast("x", "wide", wide), cast("wide", "y", dtype)].concat();
    let graph = [nodes, text(2, "g"), value_info(11, "x", dtype, dims), value_info(12, "y", dtype, dims)];
    ModelBytes::new([int(1, 10), message(7, &graph), message(8, &[text(1, ""), int(2, 25)])].concat())
}

fn symbol(name: &str) -> Dim {
    Dim::Symbol(name.to_owned())
}

/// What a runtime gives back for a tensor of each type, through Identity.
fn passed(runtime: &dyn Runtime) -> (Vec<&'static str>, Vec<&'static str>) {
    let mut passed = Vec::new();
    let mut refused = Vec::new();
    for dtype in DType::all() {
        let given = inputs::fill(dtype, &[2, 3], &mut SplitMix64::new(1)).expect("it fits");
        let dims = [symbol("n"), Dim::Known(3)];
        let model = match dtype {
            DType::I4 | DType::I2 => there_and_back(dtype, DType::I8, &dims),
            DType::U4 | DType::U2 => there_and_back(dtype, DType::U8, &dims),
            DType::F4E2M1 | DType::F8E8M0 => there_and_back(dtype, DType::F32, &dims),
            _ => unary("Identity", 23, dtype, &dims),
        };
        let loaded = runtime.load(&model, &Options::default());
        match loaded.and_then(|mut session| session.run(&[("x".to_owned(), given.clone())])) {
            Ok(outputs) => {
                assert!(outputs == [("y".to_owned(), given)], "{} changed {dtype}", runtime.name());
                passed.push(dtype.name());
            }
            Err(RuntimeError::Panicked { reason, .. }) => panic!("{} panics on {dtype}: {reason}", runtime.name()),
            Err(error) => {
                println!("{error}");
                refused.push(dtype.name());
            }
        }
    }
    (passed, refused)
}

#[test]
fn every_type_that_a_runtime_has_passes_through_it() {
    let (tract, refused) = passed(&Tract);
    let common = ["f32", "u8", "i8", "u16", "i16", "i32", "i64", "string", "bool", "f16", "f64", "u32", "u64"];
    assert_eq!(tract, common);
    println!("tract refuses {refused:?}");
    let Some(ort) = support::onnxruntime() else { return };
    let (ort, refused) = passed(ort);
    println!("onnxruntime refuses {refused:?}");
    let narrow = ["bf16", "f8e4m3fn", "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz", "u4", "i4", "f8e8m0", "u2", "i2"];
    assert_eq!(ort, [&common[..], &narrow].concat());
}

#[test]
fn empty_and_scalar_tensors_pass() {
    let check = |runtime: &dyn Runtime, given: Tensor, dims: &[Dim]| {
        let mut session =
            runtime.load(&unary("Identity", 17, given.dtype(), dims), &Options::default()).expect("loads");
        let outputs = session.run(&[("x".to_owned(), given.clone())]).expect("runs");
        assert!(outputs[0].1 == given, "{}: {outputs:?}", runtime.name());
    };
    for runtime in support::runtimes() {
        check(runtime, Tensor::scalar(3i64), &[]);
        check(runtime, Tensor::zeros(DType::F32, &[0, 4]).expect("nothing fits"), &[symbol("n"), Dim::Known(4)]);
    }
}

#[test]
fn wrong_models_and_inputs_are_errors_that_say_what_is_wrong() {
    for runtime in support::runtimes() {
        let load = |model: &ModelBytes| match runtime.load(model, &Options::default()) {
            Ok(session) => format!("loaded, {:?}", session.inputs()),
            Err(error) => error.to_string(),
        };
        let garbage: Vec<u8> = (0..4096u32).map(|idx| (idx.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let refused = load(&ModelBytes::new(garbage).at("dir/garbage.onnx"));
        assert!(refused.starts_with(&format!("{} cannot load dir/garbage.onnx: ", runtime.name())), "{refused}");
        assert!(load(&ModelBytes::new(vec![])).contains("cannot load a model in memory"), "{}", runtime.name());
        let unknown = load(&unary("NoSuchOperator", 17, DType::F32, &[Dim::Known(2)]));
        assert!(unknown.contains("NoSuchOperator") && unknown.contains("(node `the_node`)"), "{unknown}");

        let model = unary("Relu", 17, DType::F32, &[symbol("n"), Dim::Known(2)]).at("relu.onnx");
        let mut session = runtime.load(&model, &Options::default()).expect("it is well formed");
        assert_eq!(session.inputs()[0].to_string(), "x: f32[n, 2]");
        let mut run = |name: &str, tensor: Tensor| match session.run(&[(name.to_owned(), tensor)]) {
            Ok(outputs) => format!("{outputs:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(run("x", Tensor::scalar(1i64)), "relu.onnx: input `x`: expected f32, got i64");
        assert!(run("z", Tensor::scalar(1f32)).contains("no such input"));
        let shape = run("x", Tensor::zeros(DType::F32, &[1, 3]).expect("it fits"));
        assert!(shape.contains("relu.onnx") && shape.contains('3') && shape.contains('2'), "{shape}");
        let good = run("x", Tensor::new(&[1, 2], vec![-1f32, 2.0]).expect("two elements"));
        assert_eq!(good, "[(\"y\", f32[1, 2] [0.0, 2.0])]");
    }
}

#[test]
fn external_data_is_found_beside_the_model() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let weights: Vec<u8> = [9f32, 10.0, 20.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    fs::write(folder.path().join("weights.bin"), weights).expect("written");
    let entry = |key: &str, value: &str| message(13, &[text(1, key), text(2, value)]);
    let place = [entry("location", "weights.bin"), entry("offset", "4"), entry("length", "8")].concat();
    let weight = message(5, &[int(1, 2), int(2, 1), text(8, "w"), place, int(14, 1)]);
    let node = message(1, &[text(1, "x"), text(1, "w"), text(2, "y"), text(4, "Add")]);
    let dims = [Dim::Known(2)];
    let values = [value_info(11, "x", DType::F32, &dims), value_info(12, "y", DType::F32, &dims)].concat();
    let graph = message(7, &[node, text(2, "g"), weight, values]);
    let model = ModelBytes::new([int(1, 8), graph, message(8, &[text(1, ""), int(2, 17)])].concat());
    for runtime in support::runtimes() {
        let beside = model.clone().at(folder.path().join("model.onnx"));
        let mut session = runtime.load(&beside, &Options::default()).expect("the weights are beside it");
        let outputs = session.run(&[("x".to_owned(), Tensor::vector(vec![1f32, 2.0]))]).expect("it runs");
        assert_eq!(format!("{outputs:?}"), "[(\"y\", f32[2] [11.0, 22.0])]", "{}", runtime.name());
        assert!(runtime.load(&model, &Options::default()).is_err(), "{} found no weights anywhere", runtime.name());
    }
}

#[test]
fn options_that_a_runtime_lacks_are_refused() {
    let model = unary("Relu", 17, DType::F32, &[Dim::Known(2)]);
    let check = |options: Options| match Tract.load(&model, &options) {
        Ok(_) => "loaded".to_owned(),
        Err(error) => error.to_string(),
    };
    assert!(check(Options { n_threads: 0, ..Options::default() }).starts_with("tract has no way to run on no thread"));
    assert_eq!(check(Options { n_threads: 2, ..Options::default() }), "loaded");
    assert!(check(Options { optimized_model: Some("x".into()), ..Options::default() }).contains("write its optimized"));
    assert_eq!(check(Options::default()), "loaded");
}

#[test]
fn optimized_graphs_and_profiles_are_written() {
    let Some(ort) = support::onnxruntime() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let optimized_path = folder.path().join("optimized.onnx");
    let optimized_model = Some(optimized_path.clone());
    let profile = Some(folder.path().join("profile"));
    let model = unary("Relu", 17, DType::F32, &[Dim::Known(2)]);
    let options = Options { optimized_model, profile, n_threads: 2, ..Options::default() };
    let mut session = ort.load(&model, &options).expect("it is well formed");
    session.run(&[("x".to_owned(), Tensor::vector(vec![1f32, 2.0]))]).expect("it runs");
    let profile = session.finish_profile().expect("it can be written").expect("it was asked for");
    assert!(fs::read_to_string(&profile).expect("written").contains("the_node"), "{}", profile.display());
    let optimized = fs::read(optimized_path).expect("written");
    assert!(ort.load(&ModelBytes::new(optimized), &Options::default()).is_ok());

    let session = Tract.load(&model, &Options::default()).expect("it is well formed");
    let listing = session.optimized_graph().expect("every shape is known");
    assert!(listing.contains("the_node.low Max(x, "), "{listing}");
}

/// [`library::OPSET`] loads, the next does not.
#[test]
fn the_newest_opset_is_the_one_recorded() {
    let Some(ort) = support::onnxruntime() else { return };
    let load = |opset: i64| ort.load(&unary("Relu", opset, DType::F32, &[Dim::Known(2)]), &Options::default());
    assert!(load(library::OPSET).is_ok());
    let error = load(library::OPSET + 1).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains(&format!("till opset {}", library::OPSET)), "{error}");
}

#[test]
fn tract_s_version_is_the_one_in_the_lock_file() {
    let lock = include_str!("../../Cargo.lock");
    let expected = format!("name = \"tract-onnx\"\nversion = \"{}\"", Tract.version());
    assert!(lock.contains(&expected));
}

#[test]
fn sessions_are_timed_in_turns() {
    let Some(data) = support::data() else { return };
    let Some(ort) = support::onnxruntime() else { return };
    let model = model(&data.join("onnx-models/armkws_ds_cnn_s.onnx"));
    let mut sessions: Vec<Box<dyn Session>> = [&Tract as &dyn Runtime, ort]
        .map(|runtime| runtime.load(&model, &Options::default()).expect("both load it"))
        .into();
    let given = inputs::random(sessions[0].inputs(), &Bindings::new(), 0).expect("declared");
    let mut contenders: Vec<Contender<'_, RuntimeError>> = sessions
        .iter_mut()
        .map(|session| Contender { label: String::new(), run: Box::new(|| session.run(&given).map(|_| ())) })
        .collect();
    let options = latency::Options { budget: Duration::from_secs(1), ..latency::Options::default() };
    let results = latency::interleaved(&mut contenders, &options, &mut |_| ()).expect("both run");
    for row in &results {
        println!("{}", serde_json::to_string(row).expect("plain numbers"));
        let ordered = [row.min_us, row.median_us, row.p90_us, row.p95_us, row.p99_us];
        assert!(ordered.is_sorted() && row.min_us > 1.0, "{row:?}");
    }
    assert!(results[1].ratio_to_first.is_some());
}

// Each child is this test binary, told to run one test that answers.

const CHILD: &str = "ALUDEL_TEST_CHILD";

#[test]
fn answers_when_it_is_the_child() {
    if std::env::var_os(CHILD).is_some() {
        child::serve(std::io::stdin(), std::io::stdout()).expect("the parent speaks JSON");
    }
}

fn in_child(request: &Request) -> Result<child::Report, String> {
    let mut command = Command::new(std::env::current_exe().expect("it runs"));
    command.args(["--exact", "measure::answers_when_it_is_the_child", "--nocapture"]).env(CHILD, "1");
    child::measure_with(command, request, Duration::from_secs(120)).map_err(|error| error.to_string())
}

#[test]
fn memory_is_measured_in_a_child() {
    let Some(data) = support::data() else { return };
    let path = data.join("onnx-models/ultraface_slim320_bn.onnx");
    let Some(ort) = support::onnxruntime() else { return };
    for runtime in [RuntimeName::Tract, RuntimeName::Ort] {
        let library = Some(ort.library().to_owned());
        let report = in_child(&Request { library, n_runs: 3, ..Request::new(&path, runtime) }).expect("it runs");
        println!("{runtime:?}: {report:?}");
        if cfg!(target_os = "linux") {
            let bytes = [report.rss_before_load_bytes, report.rss_after_load_bytes, report.rss_peak_bytes];
            assert!(bytes.iter().all(Option::is_some) && bytes.is_sorted(), "{report:?}");
        }
        assert!(report.load_us > 100.0 && report.first_run_us > 100.0 && report.n_runs == 3, "{report:?}");
    }
}

#[test]
fn a_missing_or_wrong_library_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = folder.path().join("libonnxruntime.so");
    fs::write(&text, "not a library").expect("written");
    let open = |library: PathBuf| {
        let request = Request { library: Some(library), ..Request::new("m.onnx", RuntimeName::Ort) };
        in_child(&request).expect_err("there is no such library")
    };
    let missing = open(folder.path().join("none.so"));
    assert!(missing.starts_with("onnxruntime: its library was not found; looked at given: /"), "{missing}");
    let wrong = open(text);
    assert!(wrong.contains("libonnxruntime.so is not a library that can be used: "), "{wrong}");
    if cfg!(target_os = "linux") {
        let other = ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6"];
        if let Some(other) = other.iter().find(|path| Path::new(path).exists()) {
            assert!(open(PathBuf::from(other)).contains("is not a library that can be used: "));
        }
    }
}

#[test]
fn a_second_library_is_an_error() {
    let Some(ort) = support::onnxruntime() else { return };
    let ours = ort.library();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join(ours.file_name().expect("a file"));
    fs::copy(ours, &copy).expect("copied");
    let error = aludel::measure::runtime::ort::Onnxruntime::open(Some(&copy)).expect_err("one is loaded");
    assert!(error.to_string().contains("has already loaded"), "{error}");
    assert!(!error.hint().is_empty());
}

#[test]
fn the_library_is_installed_into_any_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut lines = Vec::new();
    let observe = &mut |line: &str| lines.push(line.to_owned());
    let path = match library::install_into(&folder.path().join("cache"), observe) {
        Ok(path) => path,
        Err(error) => return support::left_out(&format!("onnxruntime cannot be fetched: {error}")),
    };
    assert!(path.starts_with(folder.path()) && fs::metadata(&path).expect("unpacked").len() > 10_000_000);
    assert!(lines[0].contains("pip download onnxruntime==") && lines.len() >= 3, "{lines:?}");
}
