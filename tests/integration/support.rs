//! What the tests share: where the data is, both runtimes, comparing tensors, and saying so where a test cannot run.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::OnceLock;

use aludel::graph::eval::{self, EvalError};
use aludel::graph::op::{Cast, RoundMode};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Graph, Op};
use aludel::measure::difference;
use aludel::measure::runtime::ort::Onnxruntime;
use aludel::measure::runtime::tract::Tract;
use aludel::measure::runtime::{Runtime, library};

/// The folder of real models and data; none, said aloud, where `ALUDEL_DATA` does not name one.
pub(crate) fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("ALUDEL_DATA").map(PathBuf::from);
    match folder.filter(|folder| folder.is_dir()) {
        Some(folder) => Some(folder),
        None => {
            left_out("ALUDEL_DATA does not name a folder");
            None
        }
    }
}

/// Says that the running test does not test, and why; CI fails on it.
pub(crate) fn left_out(reason: &str) {
    let thread = std::thread::current();
    say(&format!("left out: {}: {reason}\n", thread.name().unwrap_or("a test")));
}

/// Writes past the harness, which hides what a passing test prints.
pub(crate) fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Both runtimes, or tract alone where onnxruntime cannot be had.
pub(crate) fn runtimes() -> Vec<&'static dyn Runtime> {
    let ort = onnxruntime().map(|ort| ort as &dyn Runtime);
    [&Tract as &dyn Runtime].into_iter().chain(ort).collect()
}

/// Whether two tensors are the same but for |expected − got| ≤ absolute + relative · |expected|, element by element.
pub(crate) fn close(expected: &Tensor, got: &Tensor, relative: f64, absolute: f64) -> Result<(), String> {
    if expected.dtype() != got.dtype() || expected.shape() != got.shape() {
        let [expected, got] = [expected, got].map(|tensor| format!("{}{:?}", tensor.dtype(), tensor.shape()));
        return Err(format!("expected {expected}, got {got}"));
    }
    let (Some(expected_numbers), Some(got_numbers)) = (numbers(expected), numbers(got)) else {
        return if expected == got { Ok(()) } else { Err("elements differ".to_string()) };
    };
    let apart = |&(_, (a, b)): &(usize, (&f64, &f64))| {
        !(a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= absolute + relative * a.abs())
    };
    match expected_numbers.iter().zip(&got_numbers).enumerate().find(apart) {
        Some((idx, (a, b))) => Err(format!("element {idx}: expected {a}, got {b}")),
        None => Ok(()),
    }
}

/// The elements as numbers, those of the narrow float formats by the reference's cast; none for strings.
pub(crate) fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    let cast = Op::Cast(Cast { to: DType::F64, saturate: true, round_mode: RoundMode::Up });
    difference::numbers(tensor).or_else(|| {
        let cast = eval::operator(&cast, &[Some(tensor.clone())], 1).ok()?;
        difference::numbers(cast.first()?.as_ref()?)
    })
}

/// onnxruntime of the version that we pin, got with the program's own code where it is not in our cache yet; none, said
/// aloud, where there is no pip or no network.
pub(crate) fn onnxruntime() -> Option<&'static Onnxruntime> {
    static LOADED: OnceLock<Result<Onnxruntime, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let places = library::search(None).places;
        let cached = places.into_iter().find(|place| place.origin == library::Origin::Cache && place.found);
        let path = match cached {
            Some(place) => place.path,
            None => library::install(&mut |_| ()).map_err(|error| format!("onnxruntime cannot be fetched: {error}"))?,
        };
        Ok(Onnxruntime::open(Some(&path)).expect("the pinned library loads"))
    });
    loaded.as_ref().map_err(|reason| left_out(reason)).ok()
}

/// A graph's outputs, in order, computed by the reference.
pub(crate) fn reference(graph: &Graph, inputs: &[(String, Tensor)]) -> Result<Vec<Tensor>, EvalError> {
    let inputs = inputs.iter().map(|(name, tensor)| (name.as_str().into(), tensor.clone())).collect();
    Ok(eval::run(graph, &inputs)?.into_values().collect())
}
