//! The audit: what each runtime runs and in which type, and the operator that goes wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aludel::audit::{self, Arithmetic, Audit, AuditError, CheckOptions, Feed, Settings, Verdict, WhyFloat};
use aludel::graph::op::{Conv, Flatten, Gemm, Opaque, QuantizeLinear, Softmax};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{GraphBuilder, Model, Name, Op, TensorType};
use aludel::measure::inputs::{self, Bindings};
use aludel::measure::runtime::explain::Runs;
use aludel::measure::runtime::tract::Tract;
use aludel::measure::runtime::{ModelBytes, Options, Runtime};
use aludel::onnx;
use serde_json::Value;

use crate::support;

const QUICK: Runs = Runs { n_warm_up: 2, n_timed: 8 };

fn audit_with(model: &Model, bytes: &ModelBytes, runtime: &dyn Runtime, check: CheckOptions) -> Audit {
    let session = runtime.load(bytes, &Options::default()).expect("it loads");
    let feed: Feed = inputs::random(session.inputs(), &Bindings::new(), 3).expect("every input is declared");
    let settings = Settings { runs: QUICK, check, ..Settings::default() };
    audit::audit(model, bytes, runtime, &[feed], &settings, &mut |_| ()).expect("the runtime runs it")
}

fn audit_of(model: &Model, runtime: &dyn Runtime) -> Audit {
    let bytes = ModelBytes::new(onnx::to_bytes(model).expect("it can be written"));
    audit_with(model, &bytes, runtime, CheckOptions::default())
}

/// Builds networks as static quantization leaves them: every value through QuantizeLinear and DequantizeLinear.
struct Quantized(GraphBuilder);

impl Quantized {
    fn scale(&mut self, scale: f32, zero_point: Tensor) -> [Name; 2] {
        [self.0.initializer("scale", Tensor::scalar(scale)), self.0.initializer("zero_point", zero_point)]
    }

    /// The value after QuantizeLinear and DequantizeLinear.
    fn through(&mut self, x: &Name, scale: f32, zero_point: u8) -> Name {
        let [scale, zero_point] = self.scale(scale, Tensor::scalar(zero_point));
        let x = self.0.node(Op::QuantizeLinear(QuantizeLinear::default()), &[x, &scale, &zero_point]);
        self.0.node(Op::DequantizeLinear(Default::default()), &[&x, &scale, &zero_point])
    }

    /// Weights in int8 behind a DequantizeLinear.
    fn weight(&mut self, shape: &[usize], scale: f32) -> Name {
        let n = i32::try_from(shape.iter().product::<usize>()).expect("small");
        let elements = (0..n).map(|k| ((k * 37 + 11) % 255 - 127) as i8).collect();
        let weight = self.0.initializer("weight", Tensor::new(shape, elements).expect("as many as the shape has"));
        let [scale, zero_point] = self.scale(scale, Tensor::scalar(0i8));
        self.0.node(Op::DequantizeLinear(Default::default()), &[&weight, &scale, &zero_point])
    }
}

/// A small classifier: Conv, Relu, Gemm and Softmax, all quantized but for what `softmax_in_float` asks.
fn classifier(softmax_in_float: bool) -> Model {
    let mut quantized = Quantized(GraphBuilder::new("classifier"));
    let x = quantized.0.input("x", TensorType::new(DType::F32, [1usize, 2, 6, 6]));
    let x = quantized.through(&x, 2.0 / 255.0, 128);
    let weight = quantized.weight(&[4, 2, 3, 3], 0.01);
    let x = quantized.0.node(Op::Conv(Conv::default()), &[&x, &weight]);
    let x = quantized.0.node(Op::Relu, &[&x]);
    let x = quantized.through(&x, 0.02, 0);
    let x = quantized.0.node(Op::Flatten(Flatten { axis: 1 }), &[&x]);
    let x = quantized.through(&x, 0.02, 0);
    let weight = quantized.weight(&[64, 5], 0.002);
    let x = quantized.0.node(Op::Gemm(Gemm::default()), &[&x, &weight]);
    let x = quantized.through(&x, 0.04, 128);
    let x = quantized.0.node(Op::Softmax(Softmax { axis: -1 }), &[&x]);
    let x = if softmax_in_float { x } else { quantized.through(&x, 1.0 / 256.0, 0) };
    quantized.0.output(&x);
    Model::new(quantized.0.finish().expect("a graph"))
}

#[test]
fn a_float_model_agrees_and_its_time_is_accounted_for() {
    let Some(data) = support::data() else { return };
    let path = data.join("onnx-models/mnist_cntk_opset8.onnx");
    let model = onnx::read(&path).expect("it is read");
    let bytes = ModelBytes::new(fs::read(&path).expect("readable")).at(&path);
    let check = CheckOptions { every_operator: true, ..CheckOptions::default() };
    for runtime in support::runtimes() {
        let audit = audit_with(&model, &bytes, runtime, check);
        let (execution, name) = (&audit.execution, audit.runtime);
        assert_eq!(audit.correctness.verdict, Verdict::Agrees, "{name}: {:?}", audit.correctness);
        assert_eq!((audit.correctness.n_tried, audit.correctness.untried.len()), (8, 0), "{name}");
        assert_eq!(execution.n_runs, QUICK.n_timed);
        let total: f64 = execution.operators.iter().map(|row| row.share).sum();
        assert!((total - 1.0).abs() < 1e-9, "{name}: {total}");
        let conv = execution.operators.iter().find(|row| row.stands_for.get("Conv") == Some(&2));
        let conv = conv.unwrap_or_else(|| panic!("{name}: no operator is the two Conv: {:#?}", execution.operators));
        assert!(conv.share > 0.1 && conv.types == "f32" && conv.arithmetic == Arithmetic::Float, "{name}: {conv:?}");
        let nodes: usize = execution.sources.values().map(|fates| fates.n).sum();
        let fates = execution.sources.values();
        let accounted: usize = fates.map(|f| f.n_at_work + f.n_absorbed + f.n_at_load + f.n_gone).sum();
        assert_eq!((nodes, accounted), (model.graph.nodes.len(), nodes), "{name}");
        assert!(execution.quantization.is_none(), "{name}");
    }
}

#[test]
fn a_quantized_model_runs_in_int8_on_onnxruntime() {
    let Some(ort) = support::onnxruntime() else { return };
    let audit = audit_of(&classifier(false), ort);
    assert_eq!(audit.correctness.verdict, Verdict::Agrees, "{:?}", audit.correctness);
    let quantization = audit.execution.quantization.expect("it is quantized");
    for (operator, count) in &quantization.operators {
        assert_eq!(count.n_int8, count.n, "{operator}");
    }
    let operators: Vec<&str> = quantization.operators.keys().map(String::as_str).collect();
    assert_eq!(operators, ["Conv", "Gemm", "Softmax"], "{quantization:?}");
    assert!(!quantization.weights_only && quantization.in_float.is_empty(), "{quantization:?}");
    let row = audit.execution.operators.iter().find(|row| row.operator == "com.microsoft.QLinearConv");
    assert_eq!(row.map(|row| row.stands_for["Conv"]), Some(1), "{:#?}", audit.execution.operators);
}

#[test]
fn tract_s_softmax_between_dequantize_and_quantize_is_found() {
    let audit = audit_of(&classifier(false), &Tract);
    assert_eq!(audit.correctness.verdict, Verdict::OperatorsGoWrong, "{:?}", audit.correctness.outputs);
    let [wrong] = &audit.correctness.wrong[..] else { panic!("one is wrong: {:?}", audit.correctness.wrong) };
    assert_eq!(wrong.node, "Softmax `softmax`");
    assert_eq!(wrong.window, ["DequantizeLinear", "Softmax", "QuantizeLinear"]);
    assert_eq!(wrong.right_alone, Some(true));
    assert!(wrong.remedy.contains("leave Softmax in float"), "{}", wrong.remedy);
    let quantization = audit.execution.quantization.expect("it is quantized");
    assert_eq!(quantization.operators["Conv"].n_int8, 0);
    assert!(quantization.in_float.iter().all(|node| node.why == WhyFloat::Runtime), "{quantization:?}");
    assert!(quantization.n_conversions > 4 && quantization.conversion_share > 0.0, "{quantization:?}");

    let remedied = audit_of(&classifier(true), &Tract);
    assert_eq!(remedied.correctness.verdict, Verdict::Agrees, "{:?}", remedied.correctness);
}

/// A product whose weights alone are quantized.
fn weights_only() -> Model {
    let mut quantized = Quantized(GraphBuilder::new("weights"));
    let x = quantized.0.input("x", TensorType::new(DType::F32, [1usize, 4]));
    let weight = quantized.weight(&[4, 3], 0.01);
    let y = quantized.0.node(Op::MatMul, &[&x, &weight]);
    quantized.0.output(&y);
    Model::new(quantized.0.finish().expect("a graph"))
}

#[test]
fn what_the_file_leaves_in_float_is_not_the_runtime_s_doing() {
    let model = weights_only();
    for runtime in support::runtimes() {
        let audit = audit_of(&model, runtime);
        let quantization = audit.execution.quantization.expect("its weights are quantized");
        assert!(quantization.weights_only && quantization.operators.is_empty(), "{quantization:?}");
        assert_eq!(quantization.left_in_float["MatMul"], 1);
    }
    assert_eq!(audit_of(&model, &Tract).correctness.verdict, Verdict::Agrees);
}

#[test]
fn onnxruntime_rounds_the_other_input_of_quantized_weights_unless_told_not_to() {
    let Some(ort) = support::onnxruntime() else { return };
    let audit = audit_of(&weights_only(), ort);
    let [wrong] = &audit.correctness.wrong[..] else { panic!("one is wrong: {:?}", audit.correctness) };
    assert_eq!(wrong.window, ["DequantizeLinear", "MatMul"]);
    assert!(wrong.right_alone.is_none() && wrong.remedy.contains("MatMulNBits"), "{wrong:?}");
    assert_eq!(audit.execution.layers[0].operator, "com.microsoft.MatMulNBits");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = written(&weights_only(), folder.path());
    let output = program(&["audit", text(&path), "--runtime", "ort", "--runs", "4", "--no-fuse-quantization"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn differences_that_no_operator_makes_add_up() {
    let Some(data) = support::data() else { return };
    let path = data.join("onnx-models/mnist_cntk_opset8.onnx");
    let model = onnx::read(&path).expect("it is read");
    let bytes = ModelBytes::new(fs::read(&path).expect("readable")).at(&path);
    let check = CheckOptions { tolerance: Some(0.0), ..CheckOptions::default() };
    let audit = audit_with(&model, &bytes, &Tract, check);
    let correctness = &audit.correctness;
    assert!(matches!(correctness.verdict, Verdict::AddsUp { from: Some(_) }), "{correctness:?}");
    assert!(correctness.wrong.is_empty() && correctness.n_tried == model.graph.nodes.len(), "{correctness:?}");
}

#[test]
fn a_model_that_the_runtime_refuses_is_an_error() {
    let mut builder = GraphBuilder::new("unknown");
    let x = builder.input("x", TensorType::new(DType::F32, [4usize]));
    let opaque = Opaque { domain: "nobody".to_owned(), op_type: "Foo".to_owned(), attributes: Vec::new() };
    let y = builder.node(Op::Opaque(opaque), &[&x]);
    builder.typed_output(&y, TensorType::new(DType::F32, [4usize]));
    let mut model = Model::new(builder.finish().expect("a graph"));
    model.domains.insert("nobody".to_owned(), 1);
    let bytes = ModelBytes::new(onnx::to_bytes(&model).expect("it can be written")).at("unknown.onnx");
    let feeds: [Feed; 1] = [vec![("x".to_owned(), Tensor::vector(vec![1f32; 4]))]];
    for runtime in support::runtimes() {
        let refused = audit::audit(&model, &bytes, runtime, &feeds, &Settings::default(), &mut |_| ());
        let error = refused.expect_err("nobody has Foo").to_string();
        assert!(error.contains(runtime.name()) && error.contains("unknown.onnx") && error.contains("Foo"), "{error}");
    }
    let none = audit::audit(&model, &bytes, &Tract, &[], &Settings::default(), &mut |_| ());
    assert_eq!(none.expect_err("nothing to run on"), AuditError::NoFeed);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = written(&model, folder.path());
    let output = program(&["audit", text(&path), "--runtime", "tract"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("Foo") && said.contains("hint: try the other runtime"), "{said}");
}

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aludel")).args(arguments).output().expect("the program starts")
}

fn written(model: &Model, folder: &Path) -> PathBuf {
    let path = folder.join("model.onnx");
    fs::write(&path, onnx::to_bytes(model).expect("it can be written")).expect("the folder is ours");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

#[test]
fn the_program_ends_with_1_where_an_operator_goes_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = written(&classifier(false), folder.path());
    let output = program(&["audit", text(&path), "--runtime", "tract", "--runs", "4", "--layers"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    for part in [
        "on tract 0.23.9",
        "LookupTable",
        "Did it run in int8? in part: 0 of 1 Conv, 0 of 1 Gemm, 1 of 1 Softmax",
        "Is it right? no: 1 of the ",
        "first wrong operator: Softmax `softmax`",
        "remedy    tract makes a table of single elements of Softmax",
    ] {
        assert!(shown.contains(part), "`{part}` is not in\n{shown}");
    }
    let right = written(&classifier(true), folder.path());
    assert_eq!(program(&["audit", text(&right), "--runtime", "tract", "--runs", "4"]).status.code(), Some(0));
}

#[test]
fn the_answer_in_json_keeps_its_form() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = written(&classifier(false), folder.path());
    let output = program(&["audit", text(&path), "--runtime", "tract", "--runs", "4", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let audit = &report["audits"][0];
    let execution = &audit["execution"];
    let quantization = &execution["quantization"];
    let wrong = &audit["correctness"]["wrong"][0];
    assert!(execution["layers"][0]["time_us"].is_number() && audit["correctness"]["reference_us"].is_number());
    let rows = [
        ("refused", report["refused"].clone()),
        ("runtime", audit["runtime"].clone()),
        ("sources.QuantizeLinear", execution["sources"]["QuantizeLinear"].clone()),
        ("layers[0]", without(&execution["layers"][0], &["time_us", "share"])),
        ("quantization", without(quantization, &["conversion_share", "in_float"])),
        ("in_float[0]", quantization["in_float"][0].clone()),
        ("verdict", audit["correctness"]["verdict"].clone()),
        ("wrong[0]", without(wrong, &["comparison"])),
        ("allowed", wrong["comparison"]["allowed"].clone()),
    ];
    let rows = rows.iter().map(|(key, value)| format!("{key}: {value}\n"));
    insta::assert_snapshot!(rows.collect::<String>(), @r#"
    refused: []
    runtime: "tract"
    sources.QuantizeLinear: {"n":5,"n_absorbed":2,"n_at_load":0,"n_at_work":3,"n_gone":0}
    layers[0]: {"arithmetic":"conversion","name":"quantizelinear","operator":"QuantizeLinearU8","part_of":null,"shape":[1,2,6,6],"stands_for":["QuantizeLinear `quantizelinear`"],"types":"f32 → u8"}
    quantization: {"left_in_float":{},"n_conversions":6,"operators":{"Conv":{"n":1,"n_int8":0},"Gemm":{"n":1,"n_int8":0},"Softmax":{"n":1,"n_int8":1}},"weights_only":false}
    in_float[0]: {"node":"Conv `conv`","operator":"Conv","reason":"tract computes in float between DequantizeLinear and QuantizeLinear","why":"runtime"}
    verdict: "operators_go_wrong"
    wrong[0]: {"inputs":["quantizelinear_4: u8[1, 5]"],"node":"Softmax `softmax`","operator":"Softmax","output":"quantizelinear_5","remedy":"tract makes a table of single elements of Softmax between DequantizeLinear and QuantizeLinear, though it needs the whole axis: leave Softmax in float when quantizing for tract","right_alone":true,"window":["DequantizeLinear","Softmax","QuantizeLinear"],"worst":[3,12.0,255.0]}
    allowed: 1.0
    "#);
}

fn without(value: &Value, keys: &[&str]) -> Value {
    let mut value = value.clone();
    keys.iter().for_each(|&key| drop(value.as_object_mut().and_then(|object| object.remove(key))));
    value
}
