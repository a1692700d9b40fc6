//! What runs and learns, on files: in a binary of its own, since it needs no runtime.

mod conformance;
mod models;

use std::io::Write as _;
use std::path::PathBuf;

use aludel::graph::op::{Cast, RoundMode};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Op, eval};

/// The folder of real models and data; none, said aloud, where `ALUDEL_DATA` does not name one.
fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("ALUDEL_DATA").map(PathBuf::from).filter(|folder| folder.is_dir());
    if folder.is_none() {
        say("left out: ALUDEL_DATA does not name a folder\n");
    }
    folder
}

/// Writes past the harness, which hides what a passing test prints.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// A tensor in another type, as the reference casts; itself where there is no such cast.
fn cast(tensor: &Tensor, to: DType) -> Tensor {
    let op = Op::Cast(Cast { to, saturate: true, round_mode: RoundMode::Up });
    let made = eval::operator(&op, &[Some(tensor.clone())], 1).ok().and_then(|outputs| outputs.into_iter().next());
    made.flatten().unwrap_or_else(|| tensor.clone())
}

/// The numbers of a tensor of any type that has some.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    cast(tensor, DType::F64).to_vec::<f64>().ok()
}
