//! Arithmetic of other machines, foretold here, against onnxruntime itself on such a machine: under qemu, on a processor
//! without VNNI.

use std::fmt::Write as _;
use std::process::Command;

use aludel::compress::quantize::options::{QuantizeOptions, Target};
use aludel::measure::runtime::{ModelBytes, Options, Runtime as _};
use aludel::onnx;
use aludel::recipe::emulate::Emulated;
use aludel::recipe::quantize::quantize;
use aludel::recipe::samples::Samples;
use bytes::Bytes;
use serde_json::Value;

use crate::real::{Real, real_models};
use crate::support;

/// A processor without VNNI and AVX-512 that qemu knows.
const PROCESSOR: &str = "Haswell";

/// Networks whose products saturate on such a machine once their weights have eight bits.
const FILES: [&str; 5] = [
    "armkws_cnn_s.onnx",
    "armkws_dnn_s.onnx",
    "armkws_ds_cnn_s.onnx",
    "mnist_cntk_opset8.onnx",
    "ultraface_slim320_bn.onnx",
];

fn name(real: &Real) -> String {
    real.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The bytes of a file, quantized for onnxruntime with weights of eight bits, on the inputs that tests give it.
fn quantized(real: &Real) -> Option<Bytes> {
    let runtime = support::onnxruntime()?;
    let model = onnx::read(&real.path).expect("every shared file is a network");
    let batch = real.feed(runtime).into_iter().map(|(name, tensor)| (name.into(), tensor)).collect();
    let samples = Samples::Batches(vec![batch]);
    let options = QuantizeOptions { keep_slow: true, ..QuantizeOptions::default() };
    let quantized = quantize(&model, &options, Target::Onnxruntime, Some(&samples), runtime, None, &mut |_| ());
    Some(onnx::to_bytes(&quantized.expect("it can be quantized").model).expect("it can be written"))
}

/// Signal over difference between the rows of a comparison, by the runtimes compared; equal outputs have no end of it.
fn decibels(row: &Value) -> f64 {
    row["sqnr_db"].as_f64().unwrap_or(f64::INFINITY)
}

#[test]
fn a_machine_without_vnni_is_foretold() {
    let Some(data) = support::data() else { return };
    if Command::new("qemu-x86_64").arg("--version").output().is_err() {
        support::left_out("there is no qemu-x86_64");
        return;
    }
    let Some(ort) = support::onnxruntime() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut n_apart = 0;
    let mut table = format!("onnxruntime on {PROCESSOR} under qemu, in decibels over the difference\n");
    for real in real_models(&data).iter().filter(|real| FILES.contains(&name(real).as_str())) {
        let Some(bytes) = quantized(real) else { return };
        let path = folder.path().join(name(real));
        std::fs::write(&path, bytes).expect("it can be written");
        let mut command = Command::new("qemu-x86_64");
        command.args(["-cpu", PROCESSOR, env!("CARGO_BIN_EXE_aludel"), "compare"]).arg(&path);
        command.args([
            "--runtime",
            "ort",
            "--arithmetic",
            "x86-avx2,x86-vnni",
            "--samples",
            "2",
            "--json",
            "--library",
        ]);
        let output = command.arg(ort.library()).output().expect("qemu starts");
        let said = String::from_utf8_lossy(&output.stderr);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}: {said}", name(real)));
        let rows = report["rows"].as_array().expect("rows");
        let half = rows.len() / 2;
        for (foretold, exact) in rows[..half].iter().zip(&rows[half..]) {
            let [foretold, exact] = [foretold, exact].map(decibels);
            writeln!(table, "{:28} foretold {foretold:6.1}  exact {exact:6.1}", name(real)).expect("text");
            // Softmax in floats rounds otherwise here than there.
            assert!(foretold > 100.0, "{table}");
            n_apart += usize::from(exact < 60.0);
        }
    }
    support::say(&table);
    assert!(n_apart >= 3, "most of these saturate on such a machine: {table}");
}

/// The name of the machine that the tests run on.
#[cfg(target_arch = "x86_64")]
fn this_machine() -> &'static str {
    let has_vnni = std::arch::is_x86_feature_detected!("avx512vnni") || std::arch::is_x86_feature_detected!("avxvnni");
    if has_vnni { "x86-vnni" } else { "x86-avx2" }
}

/// The name of the machine that the tests run on.
#[cfg(not(target_arch = "x86_64"))]
fn this_machine() -> &'static str {
    "arm64"
}

#[test]
fn this_machine_is_foretold_as_well() {
    let Some(data) = support::data() else { return };
    let Some(ort) = support::onnxruntime() else { return };
    let machine = Emulated::named(this_machine()).expect("a machine");
    for real in real_models(&data).iter().filter(|real| FILES.contains(&name(real).as_str())) {
        let Some(bytes) = quantized(real) else { return };
        let bytes = ModelBytes::new(bytes);
        let inputs = real.feed(ort);
        let mut session = machine.load(&bytes, &Options::default()).expect("it is known");
        let given = session.run(&inputs).expect("it runs");
        let expected =
            ort.load(&bytes, &Options::default()).and_then(|mut session| session.run(&inputs)).expect("it runs");
        for ((_, expected), (_, given)) in expected.iter().zip(&given) {
            let most = support::numbers(expected).expect("floats").iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            support::close(expected, given, 0.0, 1e-5 * most).unwrap_or_else(|apart| panic!("{}: {apart}", name(real)));
        }
    }
}
