//! The host backend: a program in `f32` with the kernels, on buffers that were planned once and are kept from run to run.

mod dense;
mod memory;
mod movement;
mod quantize;
mod shapes;
mod window;

use std::borrow::Cow;
use std::sync::Arc;

use self::memory::Memory;
use self::shapes::Shapes;
use super::ExecError;
use super::generic::Generic;
use super::numbers::singles;
use super::plan::{Place, Plan};
use super::program::{Id, Kind, Primitive, Program, Source, Step};
use crate::graph::tensor::Tensor;

/// A program ready to run on the host, with its memory.
#[derive(Debug)]
pub(crate) struct Host {
    program: Arc<Program>,
    plan: Plan,
    /// By step: the shapes that its kernel wants, where it has one.
    shapes: Vec<Shapes>,
    /// By value: constants as numbers.
    constants: Vec<Option<Vec<f32>>>,
    buffers: Vec<Vec<f32>>,
    indices: Vec<Vec<u32>>,
    plain: Vec<Option<Tensor>>,
}

impl Host {
    /// Plans a program and takes the memory that it needs.
    ///
    /// # Errors
    /// When a constant cannot be read as numbers.
    pub(crate) fn new(program: Arc<Program>) -> Result<Host, ExecError> {
        let plan = Plan::new(&program);
        let shapes = program.steps.iter().map(|step| Shapes::of(&program, step)).collect();
        let mut constants = vec![None; program.values.len()];
        let mut plain = vec![None; program.values.len()];
        for (id, value) in program.values.iter().enumerate() {
            match (&value.source, value.kind) {
                (Source::Constant(tensor), Kind::Float) => constants[id] = Some(singles(tensor)?.into_owned()),
                (Source::Constant(tensor), Kind::Plain(_)) => plain[id] = Some(tensor.clone()),
                (Source::Constant(_), Kind::Index) => unreachable!("positions are made by steps"),
                (Source::Input(_) | Source::Parameter(_) | Source::Step, _) => {}
            }
        }
        let buffers = plan.buffers.iter().map(|&length| vec![0.0; length]).collect();
        let indices = plan.indices.iter().map(|&length| vec![0; length]).collect();
        Ok(Host { program, plan, shapes, constants, buffers, indices, plain })
    }

    /// The bytes of the planned buffers.
    pub(crate) fn n_bytes(&self) -> usize {
        self.plan.n_bytes()
    }

    /// Runs the program. `parameters` and `inputs` are in its order; `seed` decides what dropout drops. What was computed can
    /// be read until the next run.
    ///
    /// # Errors
    /// When an input is not as the program was compiled for, or a step cannot be computed.
    pub(crate) fn run(&mut self, parameters: &[&[f32]], inputs: &[Tensor], seed: u64) -> Result<(), ExecError> {
        // from one of rayon's own threads, so that not every kernel hands its work over to them and waits
        rayon::scope(|_| self.run_here(parameters, inputs, seed))
    }

    fn run_here(&mut self, parameters: &[&[f32]], inputs: &[Tensor], seed: u64) -> Result<(), ExecError> {
        let program = Arc::clone(&self.program);
        let given = self.given(&program, inputs)?;
        for (step_idx, step) in program.steps.iter().enumerate() {
            if let Primitive::Reshape = step.primitive {
                continue;
            }
            let mut memory = Memory {
                program: &program,
                plan: &self.plan,
                constants: &self.constants,
                parameters,
                given: &given,
                buffers: &mut self.buffers,
                indices: &mut self.indices,
                plain: &mut self.plain,
            };
            let run = Run { step, in_place: self.plan.in_place[step_idx], shapes: &self.shapes[step_idx], seed };
            run.compute(&mut memory)?;
            self.plan.dropped[step_idx].iter().for_each(|&id| self.plain[id] = None);
        }
        Ok(())
    }

    /// The numbers of a value that the program computed, after a run.
    pub(crate) fn computed(&self, id: Id) -> &[f32] {
        self.numbers(id, &[])
    }

    /// The numbers of a value that was asked for, after a run.
    pub(crate) fn numbers<'a>(&'a self, id: Id, parameters: &'a [&'a [f32]]) -> &'a [f32] {
        let n_elements = self.program.n_elements(id);
        match self.plan.places[id] {
            Place::Buffer(idx) => &self.buffers[idx][..n_elements],
            Place::Constant(owner) => self.constants[owner].as_deref().unwrap_or_default(),
            Place::Parameter(position) => parameters.get(position).copied().unwrap_or_default(),
            Place::Input(_) | Place::Index(_) | Place::Plain(_) => &[],
        }
    }

    /// A value that was asked for, as a tensor of the graph.
    ///
    /// # Errors
    /// None that its shape does not cause.
    pub(crate) fn tensor(&self, id: Id, parameters: &[&[f32]], inputs: &[Tensor]) -> Result<Tensor, ExecError> {
        match self.plan.places[id] {
            Place::Input(position) => Ok(inputs[position].reshaped(self.program.shape(id))?),
            Place::Plain(_) => Ok(self.plain[id].clone().expect("what is asked for is kept")),
            Place::Constant(owner) if self.plain[owner].is_some() => Ok(self.plain[owner].clone().expect("it is some")),
            Place::Buffer(_) | Place::Constant(_) | Place::Parameter(_) | Place::Index(_) => {
                Ok(Tensor::new(self.program.shape(id), self.numbers(id, parameters).to_vec())?)
            }
        }
    }

    /// The inputs as numbers where the program computes with them; the others are put where steps read them.
    fn given<'a>(&mut self, program: &Program, inputs: &'a [Tensor]) -> Result<Vec<Cow<'a, [f32]>>, ExecError> {
        let mut given = Vec::with_capacity(inputs.len());
        for ((name, id), tensor) in program.inputs.iter().zip(inputs) {
            let value = &program.values[*id];
            let fits = tensor.shape() == value.shape
                && match value.kind {
                    Kind::Plain(dtype) => dtype == tensor.dtype(),
                    Kind::Float | Kind::Index => tensor.dtype().is_float(),
                };
            if !fits {
                return Err(ExecError::Input {
                    input: name.clone(),
                    expected: format!("{:?} of shape {:?}", value.kind, value.shape),
                    got: format!("{} of shape {:?}", tensor.dtype(), tensor.shape()),
                });
            }
            given.push(match value.kind {
                Kind::Float | Kind::Index => singles(tensor)?,
                Kind::Plain(_) => {
                    self.plain[*id] = Some(tensor.clone());
                    Cow::Borrowed(&[][..])
                }
            });
        }
        Ok(given)
    }
}

/// One step at work.
struct Run<'a> {
    step: &'a Step,
    in_place: Option<usize>,
    shapes: &'a Shapes,
    seed: u64,
}

impl Run<'_> {
    fn compute(&self, memory: &mut Memory<'_>) -> Result<(), ExecError> {
        if self.dense(memory) || self.movement(memory)? || self.window(memory) || self.quantize(memory)? {
            return Ok(());
        }
        self.by_candle(memory)
    }

    /// What has no kernel here goes through the generic backend, one step at a time.
    fn by_candle(&self, memory: &mut Memory<'_>) -> Result<(), ExecError> {
        let backend = Generic { dtype: candle_core::DType::F32, device: candle_core::Device::Cpu };
        let inputs = self.step.inputs.iter().map(|&id| memory.tensor(id)).collect::<Result<Vec<_>, _>>()?;
        let outputs = backend.step(memory.program, self.step, &inputs, self.seed)?;
        for (&id, output) in self.step.outputs.iter().zip(outputs) {
            memory.store(id, output)?;
        }
        Ok(())
    }
}
