//! What a runtime really runs: the nodes of its own optimized graph, each with its types and its time in every run.
//!
//! Names are the runtime's. What they stand for in the file is found by who can read the file.

use bytes::Bytes;

use crate::graph::tensor::DType;

/// How often a model is run to see where its time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Runs {
    /// Runs before the timed ones.
    pub n_warm_up: usize,
    /// Timed runs; at least one is done.
    pub n_timed: usize,
}

/// What a runtime made of a model, and how long each part of it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The nodes in the order in which they ran. What runs inside a branch or body counts for the node that holds it.
    pub nodes: Vec<RunNode>,
    /// The time of each whole run in microseconds, what passes between the nodes included.
    pub run_us: Vec<f64>,
    /// The optimized graph as ONNX; none where the runtime's graph cannot be written so.
    pub optimized_model: Option<Bytes>,
    /// The unit in which the runtime counts a node's time, in microseconds; 0 where it is finer than matters.
    pub resolution_us: f64,
}

/// One node of a runtime's graph.
#[derive(Clone, Debug, PartialEq)]
pub struct RunNode {
    /// The runtime's name for it.
    pub name: String,
    /// The runtime's operator, without domain.
    pub operator: String,
    /// What it reads, one fact an input; constants included.
    pub inputs: Vec<Fact>,
    /// What it computes, one fact an output.
    pub outputs: Vec<Fact>,
    /// Its time in each timed run, in microseconds.
    pub times_us: Vec<f64>,
}

/// What a runtime knows of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The element type; none where it is none of ONNX's.
    pub dtype: Option<DType>,
    /// The shape; empty also where the runtime keeps the value in a form of its own.
    pub shape: Vec<usize>,
}
