//! Real files through reading, writing and conversion: the written file computes what the file did.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use aludel::graph::tensor::{DType, Tensor};
use aludel::measure::difference::difference;
use aludel::measure::runtime::{ModelBytes, Optimization, Options, Runtime};
use aludel::onnx;

use crate::real::{apart, real_models, run, run_bytes};
use crate::{round_trip, support};

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[test]
fn files_are_written_back_bit_for_bit_in_effect() {
    let Some(data) = support::data() else { return };
    for real in real_models(&data) {
        let model = onnx::read(&real.path).expect("every shared file is a network");
        let written = round_trip::written_back(&model);
        let written = written.unwrap_or_else(|problem| panic!("{} {problem}", name(&real.path)));
        for runtime in support::runtimes() {
            let options = Options::default();
            let (before, after) =
                (run(runtime, &real, &options), run_bytes(runtime, &real, &ModelBytes::new(written.clone()), &options));
            match (before, after) {
                (Ok(before), Ok(after)) => assert_eq!(before, after, "{} on {}", name(&real.path), runtime.name()),
                (Err(_), Err(_)) if !real.tract_refuses.is_empty() => {}
                (before, after) => panic!("{} on {}: {before:?}, then {after:?}", name(&real.path), runtime.name()),
            }
        }
    }
}

/// (file, opset) that onnxruntime 1.31.1 loads at its basic optimization level only, and what it says: it moves a Transpose
/// through a QuantizeLinear of its own making, to which it gives an `output_dtype` of the wrong type.
const BASIC_ONLY: &[(&str, u32, &str)] = &[
    ("qtdnn_qlinearconv.onnx", 21, "does not match y_zero_point type"),
    ("qtdnn_qlinearconv.onnx", 25, "does not match y_zero_point type"),
];

#[test]
fn files_converted_to_other_opsets_compute_the_same() {
    let Some(data) = support::data() else { return };
    let Some(ort) = support::onnxruntime() else { return };
    let mut table = String::from(
        "greatest change of an output after conversion, relative to its largest magnitude, on onnxruntime\n",
    );
    let mut wrong = String::new();
    for real in real_models(&data) {
        let model = onnx::read(&real.path).expect("every shared file is a network");
        let before = run(ort, &real, &Options::default()).expect("onnxruntime runs every one of them");
        let _ = write!(table, "{:<28} opset {:>2}", name(&real.path), model.opset);
        for opset in [13, 17, 21, 25] {
            let basic_only = BASIC_ONLY.iter().find(|row| row.0 == name(&real.path) && row.1 == opset);
            let written = onnx::to_bytes_at(&model, opset).map(ModelBytes::new);
            let written = written.unwrap_or_else(|error| panic!("{} at opset {opset}: {error}", name(&real.path)));
            let mut after = run_bytes(ort, &real, &written, &Options::default());
            if let Some((.., words)) = basic_only {
                let refusal = after.expect_err("onnxruntime loads it now: take it off the list").to_string();
                assert!(refusal.contains(words), "{refusal}");
                let basic = Options { optimization: Optimization::Basic, ..Options::default() };
                after = run_bytes(ort, &real, &written, &basic);
            }
            let change = after.map(|after| apart(&before, &after)).map_err(|error| error.to_string());
            match change {
                Ok(change) if change <= 1e-6 => {
                    let _ = write!(table, "  {opset}: {change:.0e}");
                }
                other => {
                    let _ = writeln!(wrong, "{} at opset {opset}: {other:?}", name(&real.path));
                }
            }
        }
        table.push('\n');
    }
    support::say(&table);
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// An IDX file's bytes behind its header of `header` bytes.
fn idx(path: &Path, header: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = File::open(path).expect("MNIST is there");
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).expect("it is gzip");
    bytes.split_off(header)
}

fn n_right(runtime: &dyn Runtime, model: &ModelBytes, pictures: &[u8], labels: &[u8]) -> usize {
    let mut session = runtime.load(model, &Options::default()).expect("both runtimes load it");
    let input = session.inputs()[0].name.clone();
    let right = pictures.chunks_exact(28 * 28).zip(labels).filter(|(picture, label)| {
        let pixels = picture.iter().map(|&pixel| f32::from(pixel)).collect();
        let picture = Tensor::new(&[1, 1, 28, 28], pixels).expect("28 by 28");
        let outputs = session.run(&[(input.clone(), picture)]).expect("it runs");
        let scores = outputs[0].1.to_vec::<f32>().expect("scores are f32");
        let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        best == Some(usize::from(**label))
    });
    right.count()
}

#[test]
fn a_file_of_opset_8_still_knows_its_digits_at_opset_17() {
    let Some(data) = support::data() else { return };
    let model = onnx::read(&data.join("onnx-models/mnist_cntk_opset8.onnx")).expect("a network of opset 8");
    assert_eq!(model.opset, 8);
    let written = ModelBytes::new(onnx::to_bytes_at(&model, 17).expect("it can be raised"));
    let pictures = idx(&data.join("mnist/t10k-images-idx3-ubyte.gz"), 16);
    let labels = idx(&data.join("mnist/t10k-labels-idx1-ubyte.gz"), 8);
    assert_eq!((pictures.len(), labels.len()), (10_000 * 28 * 28, 10_000));
    for runtime in support::runtimes() {
        assert_eq!(n_right(runtime, &written, &pictures, &labels), 9_891, "of 10,000 on {}", runtime.name());
    }
}

#[test]
fn the_reference_agrees_with_onnxruntime_on_real_models() {
    let Some(data) = support::data() else { return };
    let Some(ort) = support::onnxruntime() else { return };
    let mut wrong = String::new();
    for real in real_models(&data) {
        let model = onnx::read(&real.path).expect("every shared file is a network");
        let expected = run(ort, &real, &Options { optimization: Optimization::None, ..Options::default() });
        let expected = expected.expect("onnxruntime runs every one of them");
        let got = support::reference(&model.graph, &real.feed(ort)).expect("the reference runs every one of them");
        for ((output, expected), got) in expected.iter().zip(&got) {
            assert_eq!(
                (expected.dtype(), expected.shape()),
                (got.dtype(), got.shape()),
                "{}: {output}",
                name(&real.path)
            );
            let row = difference(got, expected).expect("types and shapes agree");
            // Integers of a quantized file are exact; f32 sums in another order are not.
            let tolerance = if expected.dtype() == DType::F32 { 1e-5 } else { 0.0 };
            if row.max_relative.is_none_or(|relative| relative > tolerance) {
                let _ = writeln!(wrong, "{}: {output}: {row:?}", name(&real.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
