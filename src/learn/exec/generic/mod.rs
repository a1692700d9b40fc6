//! The generic backend: a program on candle's tensors, in any floating-point type and on any device.
//!
//! It is the reference of the kernels, with `f64`, and the way to devices that have none. It is not tuned.

mod primitive;
mod quantize;
mod recurrent;
mod unary;
mod window;

use candle_core::{Device, Tensor};

use super::ExecError;
use super::program::{Id, Kind, Program, Source, Step};
use crate::graph::tensor::{self, DType};

/// A value at run time.
#[derive(Clone, Debug)]
pub(super) enum Held {
    /// Numbers to compute with, or positions.
    Device(Tensor),
    /// Anything else.
    Plain(tensor::Tensor),
}

/// Where and in which type a program runs.
#[derive(Clone, Debug)]
pub(crate) struct Generic {
    pub(crate) dtype: candle_core::DType,
    pub(crate) device: Device,
}

impl Generic {
    /// Runs a program. `parameters` are in its order; what comes back are `wanted` values, in order. `seed` decides what
    /// dropout drops.
    ///
    /// # Errors
    /// When an input is not as the program was compiled for, or a step cannot be computed.
    pub(crate) fn run(
        &self,
        program: &Program,
        parameters: &[tensor::Tensor],
        inputs: &[tensor::Tensor],
        wanted: &[Id],
        seed: u64,
    ) -> Result<Vec<tensor::Tensor>, ExecError> {
        let mut held: Vec<Option<Held>> = vec![None; program.values.len()];
        for (id, value) in program.values.iter().enumerate() {
            let tensor = match &value.source {
                Source::Input(position) => &inputs[*position],
                Source::Parameter(position) => &parameters[*position],
                Source::Constant(tensor) => tensor,
                Source::Step => continue,
            };
            held[id] = Some(self.hold(value.kind, tensor).map_err(|error| at("the inputs", error))?);
        }
        let last_use = last_uses(program, wanted);
        for (step_idx, step) in program.steps.iter().enumerate() {
            let outputs = primitive::compute(self, program, step, &held, seed)?;
            for (&id, output) in step.outputs.iter().zip(outputs) {
                held[id] = Some(output);
            }
            for &id in step.inputs.iter().chain(&step.outputs).filter(|&&id| last_use[id] == Some(step_idx)) {
                held[id] = None;
            }
        }
        wanted.iter().map(|&id| self.give(program, id, &held)).collect()
    }

    /// Computes one step from the tensors that it reads.
    ///
    /// # Errors
    /// When it cannot be computed.
    pub(super) fn step(
        &self,
        program: &Program,
        step: &Step,
        inputs: &[tensor::Tensor],
        seed: u64,
    ) -> Result<Vec<tensor::Tensor>, ExecError> {
        let mut held: Vec<Option<Held>> = vec![None; program.values.len()];
        for (&id, tensor) in step.inputs.iter().zip(inputs) {
            let kind = program.values[id].kind;
            held[id] = Some(self.hold(kind, tensor).map_err(|error| at(program.origin(step), error))?);
        }
        let outputs = primitive::compute(self, program, step, &held, seed)?;
        let given = outputs.into_iter().map(|output| match output {
            Held::Plain(tensor) => Ok(tensor),
            Held::Device(tensor) => plain(&tensor).map_err(|error| at(program.origin(step), error)),
        });
        given.collect()
    }

    /// A tensor of the graph as the backend holds it.
    fn hold(&self, kind: Kind, tensor: &tensor::Tensor) -> candle_core::Result<Held> {
        match kind {
            Kind::Plain(_) => Ok(Held::Plain(tensor.clone())),
            Kind::Index => {
                let positions = tensor.as_slice::<u32>().map_err(candle_core::Error::wrap)?;
                Ok(Held::Device(Tensor::from_slice(positions, tensor.shape(), &self.device)?))
            }
            Kind::Float => {
                let on_host = match tensor.as_slice::<f64>() {
                    Ok(values) => Tensor::from_slice(values, tensor.shape(), &self.device)?,
                    Err(_) => {
                        let values = tensor.to_f32s().map_err(candle_core::Error::wrap)?;
                        Tensor::from_slice(&values, tensor.shape(), &self.device)?
                    }
                };
                Ok(Held::Device(on_host.to_dtype(self.dtype)?))
            }
        }
    }

    fn give(&self, program: &Program, id: Id, held: &[Option<Held>]) -> Result<tensor::Tensor, ExecError> {
        match held[id].as_ref().expect("a wanted value is kept") {
            Held::Plain(tensor) => Ok(tensor.clone()),
            Held::Device(tensor) => {
                debug_assert_eq!(tensor.dims(), program.shape(id));
                plain(tensor).map_err(|error| at("the outputs", error))
            }
        }
    }
}

/// By value: the step after which nobody reads it; none for those that are wanted.
fn last_uses(program: &Program, wanted: &[Id]) -> Vec<Option<usize>> {
    let mut last = vec![None; program.values.len()];
    for (step_idx, step) in program.steps.iter().enumerate() {
        step.inputs.iter().chain(&step.outputs).for_each(|&id| last[id] = Some(step_idx));
    }
    wanted.iter().for_each(|&id| last[id] = None);
    last
}

/// A tensor of candle's as one of the graph's: `f64` stays, any other floating-point type becomes `f32`.
pub(super) fn plain(tensor: &Tensor) -> candle_core::Result<tensor::Tensor> {
    let shape = tensor.dims();
    let flat = tensor.flatten_all()?;
    let made = match tensor.dtype() {
        candle_core::DType::F64 => tensor::Tensor::new(shape, flat.to_vec1::<f64>()?),
        candle_core::DType::U32 => tensor::Tensor::new(shape, flat.to_vec1::<u32>()?),
        _ => tensor::Tensor::new(shape, flat.to_dtype(candle_core::DType::F32)?.to_vec1::<f32>()?),
    };
    made.map_err(candle_core::Error::wrap)
}

pub(super) fn at(node: &str, source: candle_core::Error) -> ExecError {
    ExecError::Candle { node: node.to_string(), source }
}

/// The element type in which the reference interpreter is given what this backend computes with.
pub(super) fn reference_dtype(dtype: candle_core::DType) -> DType {
    if dtype == candle_core::DType::F64 { DType::F64 } else { DType::F32 }
}

impl Held {
    pub(super) fn device(&self) -> &Tensor {
        match self {
            Held::Device(tensor) => tensor,
            Held::Plain(_) => unreachable!("the emitter gives numbers where numbers are computed with"),
        }
    }

    pub(super) fn plain(&self) -> &tensor::Tensor {
        match self {
            Held::Plain(tensor) => tensor,
            Held::Device(_) => unreachable!("the emitter gives plain tensors where they are read"),
        }
    }

    /// The value of a step at work.
    pub(super) fn of<'a>(held: &'a [Option<Held>], step: &Step, position: usize) -> &'a Held {
        held[step.inputs[position]].as_ref().expect("steps are in the order in which they read")
    }
}
