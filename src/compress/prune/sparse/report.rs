//! What came of it: how many elements of each weight are zero, and what that is worth.

use serde::Serialize;

use super::super::PruneError;
use super::options::Pattern;
use super::plan::{Left, Plan};
use crate::graph::{Graph, Name};

/// How sparse a network is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SparsityReport {
    /// The weights that went sparse, in the order of the plan.
    pub weights: Vec<SparseWeight>,
    /// The weights that were meant and stayed as they were.
    pub left: Vec<Left>,
    /// Elements of these weights that are zero.
    pub n_zeros: usize,
    /// Elements of these weights.
    pub n: usize,
    /// Elements of all the network's initializers of floats, these among them.
    pub n_parameters: usize,
}

/// How sparse a weight is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SparseWeight {
    /// The initializer.
    pub name: Name,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Elements that are zero.
    pub n_zeros: usize,
    /// Elements.
    pub n: usize,
}

impl SparseWeight {
    /// The share of elements that are zero.
    pub fn sparsity(&self) -> f64 {
        share(self.n_zeros, self.n)
    }
}

impl SparsityReport {
    /// The share of elements that are zero.
    pub fn sparsity(&self) -> f64 {
        share(self.n_zeros, self.n)
    }
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// How sparse the weights of a plan are in a network.
///
/// # Errors
/// When a weight is not the network's.
pub fn report(graph: &Graph, plan: &Plan) -> Result<SparsityReport, PruneError> {
    let mut weights = Vec::with_capacity(plan.operands.len());
    for operand in &plan.operands {
        let constant = operand.constant(graph)?;
        let n_zeros = constant.as_slice::<f32>()?.iter().filter(|&&weight| weight == 0.0).count();
        let (name, shape, n) = (operand.name.clone(), constant.shape().to_vec(), constant.len());
        weights.push(SparseWeight { name, shape, n_zeros, n });
    }
    let floats = graph.initializers.values().filter(|tensor| tensor.dtype().is_float());
    Ok(SparsityReport {
        left: plan.left.clone(),
        n_zeros: weights.iter().map(|weight| weight.n_zeros).sum(),
        n: weights.iter().map(|weight| weight.n).sum(),
        n_parameters: floats.map(|tensor| tensor.len()).sum(),
        weights,
    })
}

/// What each runtime makes of zeros in this pattern: its name and a sentence.
pub fn gains(pattern: Pattern) -> Vec<(&'static str, &'static str)> {
    let dense =
        "multiplies by zeros like by any other number: no quicker; the file is smaller only once it is compressed";
    let mut gains = vec![("onnxruntime on a CPU", dense), ("tract", dense)];
    if pattern == (Pattern::NM { n: 2, m: 4 }) {
        let sparse = "has kernels for it on GPUs from Ampere on, where the engine is built with sparse weights in 16 or 8 bits; not \
                      measured here";
        gains.push(("TensorRT", sparse));
    }
    gains
}
