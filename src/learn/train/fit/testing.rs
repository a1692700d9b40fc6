//! What tests of trainings share: a small network, and the built-in digits.

use std::sync::Arc;

use crate::data::{Dataset, Descriptor};
use crate::graph::op::{Gemm, Op};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, TensorType};
use crate::learn::train::init::{Initialisation, initialise};

const DATA: &str = r#"
    kind = "digits"
    shape = [64]
    normalize = "unit"
    split = { validation = 0.2 }
"#;

pub(crate) fn data() -> Arc<Dataset> {
    let descriptor = Descriptor::parse(DATA, std::path::Path::new("")).expect("the description is right");
    Arc::new(Dataset::load(&descriptor).expect("the digits are built in"))
}

pub(crate) fn network() -> (Graph, Name) {
    let mut builder = GraphBuilder::new("mlp");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 64.into()]));
    let mut value = x;
    for (layer, (n_in, n_out)) in [(64, 32), (32, 10)].into_iter().enumerate() {
        let zeros = |shape: &[usize]| Tensor::zeros(DType::F32, shape).expect("it is small");
        let weight = builder.initializer(&format!("{layer}.weight"), zeros(&[n_out, n_in]));
        let bias = builder.initializer(&format!("{layer}.bias"), zeros(&[n_out]));
        let gemm = Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b: true };
        value = builder.node(Op::Gemm(gemm), &[&value, &weight, &bias]);
        if layer == 0 {
            value = builder.node(Op::Relu, &[&value]);
        }
    }
    builder.output(&value);
    let graph = builder.finish().expect("a graph");
    (initialise(&graph, &Initialisation::default(), 3).expect("it has weights"), value)
}
