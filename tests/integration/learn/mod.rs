//! What runs and learns, on files: node tests, real models, a training by the program.

mod conformance;
mod models;
mod train;

use aludel::graph::op::{Cast, RoundMode};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Op, eval};

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
