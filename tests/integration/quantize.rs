//! Real networks in integers: what both runtimes make of the written bytes, and the command.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aludel::audit::{self, CheckOptions, Settings, Verdict};
use aludel::compress::quantize::options::{Form, QuantizeOptions, Target};
use aludel::graph::op::{self, Op};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Dim, GraphBuilder, Model, TensorType};
use aludel::measure::difference::numbers;
use aludel::measure::inputs;
use aludel::measure::runtime::explain::Runs;
use aludel::measure::runtime::{ModelBytes, Options, Runtime};
use aludel::onnx;
use aludel::recipe::emulate;
use aludel::recipe::quantize::{Quantized, quantize};
use aludel::recipe::samples::Samples;
use serde_json::Value;

use crate::real::{Outputs, Real, real_models, run, run_bytes};
use crate::support;

fn name(real: &Real) -> String {
    real.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The shared files; the transformer attends to all tokens, where random masks would leave next to none.
fn models(data: &Path) -> Vec<Real> {
    let mut models = real_models(data);
    for real in models.iter_mut().filter(|real| name(real) == "model_f16w.onnx") {
        let whole = |element: i64| Tensor::new(&[2, 16], vec![element; 32]).expect("2 by 16");
        real.fixed = vec![("attention_mask".to_owned(), whole(1)), ("token_type_ids".to_owned(), whole(0))];
    }
    models
}

/// Quantized with the inputs that tests give the file; in words why not, where it cannot be.
fn quantized(real: &Real, runtime: &dyn Runtime, target: Target, options: &str) -> Result<Quantized, String> {
    let model = onnx::read(&real.path).expect("every shared file is a network");
    let batch = real.feed(runtime).into_iter().map(|(name, tensor)| (name.into(), tensor)).collect();
    let mut options: QuantizeOptions = toml::from_str(options).expect("options");
    options.keep_slow = true;
    quantize(&model, &options, target, Some(&Samples::Batches(vec![batch])), runtime, None, &mut |_| ())
        .map_err(|error| error.to_string())
}

fn bytes(model: &Model) -> ModelBytes {
    ModelBytes::new(onnx::to_bytes(model).expect("it can be written"))
}

/// The signal over what quantization added to it, in decibels, over all outputs of floats.
fn signal_to_noise_db(before: &Outputs, after: &Outputs) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for ((_, a), (_, b)) in before.iter().zip(after).filter(|((_, a), _)| a.dtype() == DType::F32) {
        let (a, b) = (numbers(a).expect("floats"), numbers(b).expect("floats"));
        signal += a.iter().map(|a| a * a).sum::<f64>();
        noise += a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    }
    10.0 * (signal / noise.max(1e-30)).log10()
}

/// The file that holds nothing to quantize: it is quantized already.
const NOTHING: &str = "qtdnn_qlinearconv.onnx";

#[test]
fn weights_of_real_files_are_a_quarter_and_both_runtimes_compute_nearly_the_same() {
    let Some(data) = support::data() else { return };
    let mut table = String::from("weights as i8: bytes, and signal over noise of the outputs\n");
    for real in models(&data) {
        let runtimes = support::runtimes();
        let ort = runtimes.last().expect("tract at least");
        let quantized = match quantized(&real, *ort, Target::Tract, "") {
            Ok(quantized) => quantized,
            Err(error) => {
                assert_eq!(name(&real), NOTHING, "{error}");
                continue;
            }
        };
        assert_eq!(quantized.report.choice.form, Form::Weights);
        let written = bytes(&quantized.model);
        let whole = fs::metadata(&real.path).expect("it is there").len();
        let _ = write!(table, "{:<30} {:>3} %", name(&real), written.bytes().len() as u64 * 100 / whole);
        for runtime in runtimes {
            if runtime.name() == "tract" && !real.tract_refuses.is_empty() {
                continue;
            }
            let before = run(runtime, &real, &Options::default()).expect("it runs the file");
            let after = run_bytes(runtime, &real, &written, &Options::default()).expect("it runs the integers");
            let decibels = signal_to_noise_db(&before, &after);
            let _ = write!(table, "  {} {decibels:.0} dB", runtime.name());
            assert!(decibels > 20.0, "{} on {}: {decibels}", name(&real), runtime.name());
        }
        table.push('\n');
    }
    support::say(&table);
}

#[test]
fn real_files_run_in_integers_on_onnxruntime_as_planned() {
    let (Some(data), Some(ort)) = (support::data(), support::onnxruntime()) else { return };
    let mut table = String::from("Q/DQ on onnxruntime: operators in int8, signal over noise of the outputs\n");
    for real in models(&data) {
        let quantized = match quantized(&real, ort, Target::Onnxruntime, "calibrator = 'mse'") {
            Ok(quantized) => quantized,
            Err(error) => {
                assert_eq!(name(&real), NOTHING, "{error}");
                continue;
            }
        };
        let written = bytes(&quantized.model);
        let before = run(ort, &real, &Options::default()).expect("it runs the file");
        let after = run_bytes(ort, &real, &written, &Options::default()).expect("it runs the integers");
        let decibels = signal_to_noise_db(&before, &after);
        let _ = writeln!(table, "{:<30} {:?}  {decibels:.0} dB", name(&real), quantized.report.integer);
        assert!(decibels > 10.0, "{}: {decibels}", name(&real));
        if name(&real) == "model_f16w.onnx" {
            continue; // the reference takes long
        }
        let settings = Settings {
            runs: Runs { n_warm_up: 1, n_timed: 3 },
            check: CheckOptions::default(),
            options: Options::default(),
        };
        let model = onnx::read_bytes(written.bytes().clone(), None).expect("as written");
        let audit = audit::audit(&model, &written, ort, &[real.feed(ort)], &settings, &mut |_| ()).expect("it runs");
        assert_eq!(audit.correctness.verdict, Verdict::Agrees, "{}: {:?}", name(&real), audit.correctness);
        let quantization = audit.execution.quantization.expect("it is quantized");
        // The audit counts no Concat: it moves integers.
        for (operator, planned) in quantized.report.integer.iter().filter(|(operator, _)| *operator != "Concat") {
            let count = quantization.operators.get(operator).map(|count| (count.n, count.n_int8));
            assert_eq!(count, Some((*planned, *planned)), "{} {operator}: {quantization:?}", name(&real));
        }
    }
    support::say(&table);
}

#[test]
fn tract_computes_what_was_quantized_for_everybody() {
    let Some(data) = support::data() else { return };
    let runtimes = support::runtimes();
    for real in models(&data).iter().filter(|real| name(real).starts_with("armkws") || name(real).starts_with("mnist"))
    {
        let quantized = quantized(real, runtimes[0], Target::Any, "").expect("it has products");
        let old = "x86-avx2".parse().expect("a machine");
        let products = emulate::saturation(&quantized.model.graph, old, &[]).expect("it is known");
        assert!(!products.is_empty() && products.iter().all(|product| product.n_saturable == 0), "{products:?}");
        let written = bytes(&quantized.model);
        let outputs: Vec<Outputs> = runtimes
            .iter()
            .map(|runtime| run_bytes(*runtime, real, &written, &Options::default()).expect("it runs the integers"))
            .collect();
        let before = run(runtimes[0], real, &Options::default()).expect("it runs the file");
        for after in &outputs {
            let decibels = signal_to_noise_db(&before, after);
            assert!(decibels > 10.0, "{}: {decibels}", name(real));
        }
    }
}

/// Every shared file in a form that needs no samples: what the runtimes compute is near the floats, and what the reference
/// computes; the transformer is too large for that.
fn check_form(data: &Path, target: Target, options: &str, runtimes: &[&dyn Runtime], least_db: f64) -> String {
    let mut table =
        format!("{options} for {target:?}: operators, signal over noise of the outputs, then to the reference's\n");
    for real in models(data) {
        let ort = *support::runtimes().last().expect("tract at least");
        let quantized = match quantized(&real, ort, target, options) {
            Ok(quantized) => quantized,
            Err(error) => {
                assert!(error.starts_with("nothing can be quantized"), "{}: {error}", name(&real));
                continue;
            }
        };
        let written = bytes(&quantized.model);
        let before = run(ort, &real, &Options::default()).expect("it runs the file");
        let _ = write!(table, "{:<30} {:?}", name(&real), quantized.report.integer);
        let expected = (name(&real) != "model_f16w.onnx").then(|| {
            let outputs = support::reference(&quantized.model.graph, &real.feed(ort)).expect("it runs");
            before.iter().zip(outputs).map(|((name, _), tensor)| (name.clone(), tensor)).collect::<Outputs>()
        });
        for runtime in runtimes {
            if runtime.name() == "tract" && !real.tract_refuses.is_empty() {
                continue;
            }
            let after = run_bytes(*runtime, &real, &written, &Options::default());
            let after = after.unwrap_or_else(|error| panic!("{} on {}: {error}", name(&real), runtime.name()));
            let decibels = signal_to_noise_db(&before, &after);
            let same = expected.as_ref().map_or(f64::NAN, |expected| signal_to_noise_db(expected, &after));
            let _ = write!(table, "  {} {decibels:.0} dB, {same:.0} dB", runtime.name());
            assert!(decibels > least_db, "{} on {}: {decibels}", name(&real), runtime.name());
            // A sum in another order can move an integer by one, and so what follows.
            assert!(same.is_nan() || same >= 40.0, "{} on {}: {same} to the reference", name(&real), runtime.name());
        }
        table.push('\n');
    }
    table
}

#[test]
fn dynamic_files_compute_what_the_reference_does() {
    let Some(data) = support::data() else { return };
    let runtimes = support::runtimes();
    support::say(&check_form(&data, Target::Tract, "form = 'dynamic'", &runtimes, 10.0));
    let with_conv = "form = 'dynamic'\noperators = ['Conv', 'Gemm', 'MatMul']";
    support::say(&check_form(&data, Target::Any, with_conv, &runtimes, 5.0));
    let Some(ort) = support::onnxruntime() else { return };
    support::say(&check_form(&data, Target::Onnxruntime, "form = 'dynamic'", &[ort], 10.0));
}

#[test]
fn files_by_blocks_compute_what_the_reference_does() {
    let (Some(data), Some(ort)) = (support::data(), support::onnxruntime()) else { return };
    for options in ["form = 'matmulnbits'\naccuracy_level = 0", "to = 'int4'\nform = 'matmulnbits'\naccuracy_level = 0"]
    {
        support::say(&check_form(&data, Target::Onnxruntime, options, &[ort], 5.0));
    }
}

#[test]
fn integers_in_and_out_run_on_both_runtimes() {
    let Some(data) = support::data() else { return };
    let runtimes = support::runtimes();
    let (mut n_done, mut table) = (0, String::from("integers in and out\n"));
    for real in models(&data) {
        let ort = *runtimes.last().expect("tract at least");
        for form in ["qdq", "qoperator"] {
            let options = format!("form = '{form}'\nports = 'int'");
            let quantized = match quantized(&real, ort, Target::Any, &options) {
                Ok(quantized) => quantized,
                Err(error) => {
                    let is_named = error.contains("cannot become integers") || name(&real) == NOTHING;
                    assert!(is_named, "{}: {error}", name(&real));
                    let _ = writeln!(table, "{:<30} {error}", name(&real));
                    continue;
                }
            };
            n_done += 1;
            let ports = &quantized.report.ports;
            let _ = writeln!(table, "{:<30} {form} {:?}", name(&real), quantized.model.about.metadata);
            assert!(ports.iter().all(|port| quantized.model.about.metadata[&port.metadata().0] == port.metadata().1));
            let written = bytes(&quantized.model);
            let is_tract = |runtime: &&&dyn Runtime| runtime.name() != "tract" || form == "qdq";
            for runtime in runtimes.iter().filter(is_tract) {
                let mut session = runtime.load(&written, &Options::default()).expect("it loads the integers");
                let given = inputs::random(session.inputs(), &real.bindings, 7).expect("every input is declared");
                let expected = support::reference(&quantized.model.graph, &given).expect("it runs");
                for (expected, (port, got)) in expected.iter().zip(session.run(&given).expect("it runs")) {
                    assert_eq!(got.dtype(), DType::U8, "{port}");
                    let (expected, got) = (numbers(expected).expect("bytes"), numbers(&got).expect("bytes"));
                    let apart = expected.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    // A step of each layer can move the next.
                    assert!(apart <= 3.0, "{} {form} on {}: {apart}", name(&real), runtime.name());
                }
            }
        }
    }
    support::say(&table);
    assert!(n_done > 0, "some network is integers from end to end");
}

fn aludel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aludel")).args(arguments).output().expect("the program starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

/// `[batch, 3, 8, 8]` in, a convolution of 16 channels, a pooling and a product.
fn small(folder: &Path) -> PathBuf {
    let mut builder = GraphBuilder::new("small");
    let wave = |n: usize| (0..n).map(|k| (k as f32 * 1.7).sin()).collect::<Vec<f32>>();
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 3.into(), 8.into(), 8.into()]));
    let weight = builder.initializer("weight", Tensor::new(&[16, 3, 3, 3], wave(432)).expect("as many"));
    let x = builder.node(Op::Conv(op::Conv::default()), &[&x, &weight]);
    let x = builder.node(Op::Relu, &[&x]);
    let x = builder.node(Op::GlobalAveragePool, &[&x]);
    let x = builder.node(Op::Flatten(op::Flatten::default()), &[&x]);
    let head = builder.initializer("head", Tensor::new(&[16, 20], wave(320)).expect("as many"));
    let y = builder.node(Op::MatMul, &[&x, &head]);
    builder.output(&y);
    let model = Model { opset: 17, ir_version: 8, ..Model::new(builder.finish().expect("a graph")) };
    let path = folder.join("small.onnx");
    fs::write(&path, onnx::to_bytes(&model).expect("it can be written")).expect("the folder is ours");
    path
}

/// An archive of one array of `f32`.
fn archive(path: &Path, name: &str, shape: &[usize]) {
    let mut archive = zip::ZipWriter::new(File::create(path).expect("the folder is ours"));
    archive.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).expect("the name is new");
    let shape_text = shape.iter().map(|size| format!("{size},")).collect::<String>();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape_text}), }}");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{header:<117}\n").bytes());
    bytes.extend((0..shape.iter().product::<usize>()).flat_map(|k| ((k as f32 * 0.37).cos()).to_le_bytes()));
    archive.write_all(&bytes).expect("the disk has room");
    archive.finish().expect("the disk has room");
}

#[test]
fn four_bits_are_rounded_by_samples_where_there_are_any() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [model, data] = [small(folder.path()), folder.path().join("calib.npz")];
    archive(&data, "x", &[20, 3, 8, 8]);
    let path = folder.path().join("four.onnx");
    let rounding = |more: &[&str]| {
        let output = aludel(&[&["quantize", text(&model), "--to", "int4", "--json", "-o", text(&path)], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report = serde_json::from_slice::<Value>(&output.stdout).expect("JSON");
        (report["choice"]["rounding"].as_str().expect("a word").to_string(), fs::read(&path).expect("written"))
    };
    let (by_data, data_bytes) = rounding(&["--data", text(&data)]);
    let (plain, plain_bytes) = rounding(&[]);
    let (asked, asked_bytes) = rounding(&["--data", text(&data), "--rounding", "nearest"]);
    assert_eq!([by_data, plain, asked].each_ref().map(String::as_str), ["gptq", "nearest", "nearest"]);
    assert!(data_bytes != plain_bytes && plain_bytes == asked_bytes);
    assert_eq!(rounding(&["--data", text(&data)]).1, data_bytes, "the same bytes again");
}

#[test]
fn the_command_calibrates_writes_and_takes_ranges_up_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [model, data] = [small(folder.path()), folder.path().join("calib.npz")];
    archive(&data, "x", &[20, 3, 8, 8]);
    let [first, again, ranges] = ["a.onnx", "b.onnx", "ranges.json"].map(|name| folder.path().join(name));
    let common = [
        "quantize",
        text(&model),
        "--runtime",
        "tract",
        "--form",
        "qdq",
        "--keep-slow",
        "--calibrator",
        "mse",
        "--json",
    ];
    let call = |more: &[&str]| {
        let output = aludel(&[&common[..], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let report = call(&["--data", text(&data), "-o", text(&first), "--save-ranges", text(&ranges)]);
    assert_eq!((report["n_samples"].as_u64(), report["calibrated_on"].as_str()), (Some(20), Some("tract")));
    assert_eq!(report["integer"], serde_json::json!({ "Conv": 1, "GlobalAveragePool": 1, "MatMul": 1 }));
    call(&["--ranges", text(&ranges), "-o", text(&again)]);
    assert_eq!(
        fs::read(&first).expect("written"),
        fs::read(&again).expect("written"),
        "the same ranges, the same bytes"
    );

    let report = call(&["--data", text(&data), "-o", text(&again), "--rounding", "adaround"]);
    assert_eq!(report["choice"]["rounding"], "adaround");
    assert!(report["notes"][0].as_str().is_some_and(|note| note.starts_with("2 weights rounded")), "{report}");

    let refused = |arguments: &[&str], expected: &str| {
        let output = aludel(&[&["quantize", text(&model), "-o", text(&again)], arguments].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    };
    refused(&["--form", "qdq"], "`data` is missing: ranges of activations come from samples");
    refused(&["--data", text(&data), "--exclude", "/none/*"], "`/none/*` means no node of the network");
    let other = folder.path().join("other.npz");
    archive(&other, "y", &[20, 3, 8, 8]);
    refused(&["--data", text(&other), "--form", "qdq"], "array `x`: is not there; there are: y");
    refused(&["--to", "int4", "--rounding", "gptq"], "`data` is missing: weights are rounded by what meets them");
    refused(&["--ranges", text(&ranges), "--form", "qdq", "--rounding", "gptq"], "`data` is missing: weights are");
    refused(&["--to", "fp16", "--rounding", "gptq"], "`rounding` is of integers");
    let nothing = ["--rounding", "gptq", "--form", "weights", "--exclude", "Conv", "--exclude", "MatMul"];
    refused(&[&["--data", text(&data)], &nothing[..]].concat(), "no weight that is not excluded");
    refused(&["--runtime", "tract,ort", "--form", "weights"], "a file is quantized for one runtime");
    refused(&["--form", "dynamic", "--calibrator", "mse"], "`calibrator` is of activations");
    refused(&["--form", "matmulnbits"], "`form` is matmulnbits, an operator of onnxruntime's alone");
    let report = call(&["--data", text(&data), "-o", text(&again), "--ports", "int"]);
    assert_eq!(report["ports"].as_array().map(Vec::len), Some(2), "{report}");
    assert_eq!((report["ports"][0]["name"].as_str(), report["ports"][0]["dtype"].as_str()), (Some("x"), Some("u8")));
}

#[test]
fn what_is_slower_in_integers_goes_back_to_floats() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [model, data] = [small(folder.path()), folder.path().join("calib.npz")];
    archive(&data, "x", &[20, 3, 8, 8]);
    let written = folder.path().join("q.onnx");
    let common = ["quantize", text(&model), "--runtime", "tract", "--form", "qdq", "--data", text(&data)];
    let output = aludel(&[&common[..], &["-o", text(&written), "--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["harm"]["runtime"], "tract");
    assert!(report["harm"]["all"]["median"].as_f64().expect("it was timed") > 0.0);
    // How quick either is, is the machine's affair; that the file is as was decided is ours.
    let in_integers = onnx::read(&written)
        .expect("it was written")
        .graph
        .nodes
        .iter()
        .any(|node| matches!(node.op, Op::QuantizeLinear(_)));
    let is_slow = report["harm"]["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3);
    assert_eq!(in_integers, !is_slow);
    assert_eq!(report["choice"]["form"], if is_slow { "weights" } else { "qdq" });
}

#[test]
fn layers_stay_in_floats_as_the_budget_asks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [model, data] = [small(folder.path()), folder.path().join("calib.npz")];
    archive(&data, "x", &[20, 3, 8, 8]);
    let written = folder.path().join("q.onnx");
    let common = [
        "quantize",
        text(&model),
        "--runtime",
        "tract",
        "--form",
        "qdq",
        "--keep-slow",
        "--data",
        text(&data),
        "--json",
    ];
    let call = |more: &[&str]| {
        let output = aludel(&[&common[..], more].concat());
        let report = serde_json::from_slice::<Value>(&output.stdout);
        (output.status.code(), report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
    };
    let sqnr_db = |report: &Value| -10.0 * report["mixed"]["quality"]["noise"].as_f64().expect("a number").log10();

    let (code, layers) = call(&["--sensitivity"]);
    assert_eq!(code, Some(0));
    let layers = layers["layers"].as_array().expect("layers").clone();
    assert_eq!(layers.len(), 2, "a Conv and a MatMul");
    assert!(layers.iter().all(|layer| layer["alone"]["noise"].as_f64() > Some(0.0)), "{layers:?}");
    assert!(!written.exists());

    let (_, all) = call(&["--min-sqnr", "0", "-o", text(&written)]);
    assert_eq!(all["mixed"]["floats"], serde_json::json!([]));
    let between = format!("{}", sqnr_db(&all) + 0.1);
    let (code, some) = call(&["--min-sqnr", &between, "-o", text(&written)]);
    assert_eq!((code, some["mixed"]["floats"].as_array().map(Vec::len)), (Some(0), Some(1)), "{some}");
    assert!(sqnr_db(&some) > sqnr_db(&all));
    // More than integers can keep: all in floats, which keeps everything.
    let (code, none) = call(&["--min-sqnr", "300", "-o", text(&written)]);
    assert_eq!((code, &none["choice"]["form"]), (Some(0), &serde_json::json!("weights")));
    // No network of so few bytes is so good: the best of them is written, and the exit code says so.
    let n_bytes = all["bytes_after"].as_u64().expect("a number").to_string();
    let (code, best) = call(&["--min-sqnr", "300", "--max-bytes", &n_bytes, "-o", text(&written)]);
    assert_eq!((code, best["mixed"]["is_met"].as_bool()), (Some(1), Some(false)));
    assert!(fs::metadata(&written).expect("written").len() <= all["bytes_after"].as_u64().expect("a number"));
    let output = aludel(&[&common[..], &["--accuracy-drop", "0.01", "-o", text(&written)]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("these have no labels"), "{said}");
}

#[test]
fn the_command_says_what_was_done_before_and_after() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [model, data] = [small(folder.path()), folder.path().join("calib.npz")];
    archive(&data, "x", &[20, 3, 8, 8]);
    let [output, ranges] = ["a.onnx", "ranges.json"].map(|name| folder.path().join(name));
    let call = |more: &[&str]| {
        let common = ["quantize", text(&model), "-o", text(&output), "--runtime", "tract", "--json"];
        aludel(&[&common[..], more].concat())
    };
    let all = ["--form", "qdq", "--keep-slow", "--equalize", "--smooth", "0.5", "--bias-correction"];
    let done = call(&[&all[..], &["--data", text(&data), "--save-ranges", text(&ranges)]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let report: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let notes = [
        "equalized: Conv `conv`",
        "smoothed: MatMul `matmul`",
        "not smoothed: Conv `conv`: it reads an input of the network",
        "corrected by its bias: Conv `conv`",
        "not corrected by its bias: MatMul `matmul`: no constant is added to what it alone makes",
    ];
    assert_eq!(report["notes"], serde_json::json!(notes));
    for (arguments, expected) in [
        (&["--form", "qdq", "--bias-correction"][..], "`data` is missing"),
        (&["--form", "qdq", "--equalize", "--ranges", text(&ranges)], "`ranges` may be of other channels"),
        (&["--smooth", "0.5"], "`smooth` is of activations"),
    ] {
        let refused = call(arguments);
        let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}
