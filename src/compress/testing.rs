//! What tests of several rooms share: the reference as something that runs.

use indexmap::IndexMap;

use crate::graph::probe::{Forward, ProbeError};
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name, eval};

/// Numbers that depend on nothing but their place, no two alike.
pub(super) fn wave(shape: &[usize], phase: f32) -> Tensor {
    let numbers = (0..shape.iter().product::<usize>()).map(|k| (k as f32 * 1.7 + phase).sin()).collect();
    Tensor::new(shape, numbers).expect("as many as the shape has")
}

/// The reference, giving these values.
pub(super) struct Reference(pub(super) Graph, pub(super) Vec<Name>);

impl Forward for Reference {
    fn forward(&mut self, inputs: &IndexMap<Name, Tensor>) -> Result<Vec<Tensor>, ProbeError> {
        let values = eval::run_with(&self.0, inputs, &self.1);
        let values = values.map_err(|error| ProbeError { what: "net".into(), problem: error.to_string() })?;
        Ok(values.into_values().collect())
    }
}
