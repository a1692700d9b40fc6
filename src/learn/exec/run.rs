//! A graph compiled and run once, in `f64`: what the other ways of running are measured against.

use std::collections::HashSet;

use candle_core::Device;
use indexmap::IndexMap;

use super::ExecError;
use super::compile::Request;
use super::generic::Generic;
use super::program::{Kind, Primitive, Program};
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name, TensorType};

/// What came of running a graph once.
#[derive(Clone, Debug)]
pub struct Run {
    /// The values that were asked for; numbers are in `f64`, whatever their type in the graph.
    pub outputs: IndexMap<Name, Tensor>,
    /// The gradients of the loss, in `f64`; one that the loss does not depend on is left out.
    pub gradients: IndexMap<Name, Tensor>,
    /// The labels of the nodes of floating-point outputs that the reference interpreter computed step by step, and
    /// through which no gradient passes.
    pub by_reference: Vec<String>,
}

/// Runs a graph as a request says, on the host and in `f64`. Slow: it is there to prove things with.
///
/// # Errors
/// When the graph cannot be compiled for the request, an input is missing or has another shape, or a step cannot be computed.
pub fn run(graph: &Graph, inputs: &IndexMap<Name, Tensor>, request: &Request) -> Result<Run, ExecError> {
    let program = Program::compile(graph, request)?;
    let given = program.inputs.iter().map(|(name, id)| {
        let expected = format!("shape {:?}", program.shape(*id));
        let refused = |got: String| ExecError::Input { input: name.clone(), expected: expected.clone(), got };
        let tensor = inputs.get(name).ok_or_else(|| refused("nothing".to_string()))?;
        if tensor.shape() != program.shape(*id) {
            return Err(refused(TensorType::of(tensor).to_string()));
        }
        Ok(tensor.clone())
    });
    let given = given.collect::<Result<Vec<_>, _>>()?;
    let parameters: Vec<Tensor> = program.parameters.iter().map(|(name, _)| graph.initializers[name].clone()).collect();
    let ends = program.outputs.iter().chain(&program.gradients);
    let (names, ids): (Vec<Name>, Vec<usize>) = ends.cloned().unzip();
    let backend = Generic { dtype: candle_core::DType::F64, device: Device::Cpu };
    let mut values = names.into_iter().zip(backend.run(&program, &parameters, &given, &ids, 0)?);
    let outputs = values.by_ref().take(program.outputs.len()).collect();
    let read: HashSet<usize> = program.steps.iter().flat_map(|step| &step.inputs).chain(&ids).copied().collect();
    let is_reference = |primitive: &Primitive| matches!(primitive, Primitive::Reference { .. });
    let steps = program.steps.iter().filter(|step| is_reference(&step.primitive));
    let is_read_float = |id: &usize| program.values[*id].kind == Kind::Float && read.contains(id);
    let floats = steps.filter(|step| step.outputs.iter().any(is_read_float));
    let by_reference = floats.map(|step| program.origin(step).to_string()).collect();
    Ok(Run { outputs, gradients: values.collect(), by_reference })
}
