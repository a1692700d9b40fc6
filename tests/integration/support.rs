//! What the tests share: where the data is, and saying so where a test cannot run.

use std::io::Write as _;
use std::path::PathBuf;

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

/// Says that the running test does not test, and why. Written past the harness, which would hide it; CI fails on it.
pub(crate) fn left_out(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "left out: {test}: {reason}");
}

/// onnxruntime of the version that we pin, got with the program's own code where it is not in our cache yet.
pub(crate) fn onnxruntime() -> &'static aludel::measure::runtime::ort::Onnxruntime {
    use aludel::measure::runtime::{library, ort::Onnxruntime};
    static LOADED: std::sync::OnceLock<Onnxruntime> = std::sync::OnceLock::new();
    LOADED.get_or_init(|| {
        let places = library::search(None).places;
        let cached = places.into_iter().find(|place| place.origin == library::Origin::Cache && place.found);
        let path = match cached {
            Some(place) => place.path,
            None => library::install(&mut |_| ()).expect("pip gets the official wheel"),
        };
        Onnxruntime::open(Some(&path)).expect("the pinned library loads")
    })
}
