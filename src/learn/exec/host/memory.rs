//! The memory of a run: where a step reads and where it writes.

use std::borrow::Cow;

use crate::graph::tensor::Tensor;
use crate::learn::exec::plan::{Place, Plan};
use crate::learn::exec::program::{Id, Kind, Program};
use crate::learn::exec::{ExecError, singles};

pub(super) struct Memory<'a> {
    pub(super) program: &'a Program,
    pub(super) plan: &'a Plan,
    pub(super) constants: &'a [Option<Vec<f32>>],
    pub(super) parameters: &'a [&'a [f32]],
    pub(super) given: &'a [Cow<'a, [f32]>],
    pub(super) buffers: &'a mut Vec<Vec<f32>>,
    pub(super) indices: &'a mut Vec<Vec<u32>>,
    pub(super) plain: &'a mut Vec<Option<Tensor>>,
}

impl Memory<'_> {
    pub(super) fn shape(&self, id: Id) -> &[usize] {
        self.program.shape(id)
    }

    /// The numbers of a value.
    pub(super) fn read(&self, id: Id) -> &[f32] {
        let n_elements = self.program.n_elements(id);
        match self.plan.places[id] {
            Place::Buffer(idx) => &self.buffers[idx][..n_elements],
            Place::Constant(owner) => {
                self.constants[owner].as_deref().expect("constants that are computed with are numbers")
            }
            Place::Parameter(position) => self.parameters[position],
            Place::Input(position) => &self.given[position],
            Place::Index(_) | Place::Plain(_) => unreachable!("the emitter gives numbers where numbers are read"),
        }
    }

    /// The positions of a value.
    pub(super) fn read_indices(&self, id: Id) -> &[u32] {
        match self.plan.places[id] {
            Place::Index(idx) => &self.indices[idx][..self.program.n_elements(id)],
            _ => unreachable!("the emitter gives positions where positions are read"),
        }
    }

    /// A plain tensor.
    pub(super) fn read_plain(&self, id: Id) -> &Tensor {
        self.plain[id].as_ref().expect("steps are in the order in which they read")
    }

    /// Computes into the buffers of these values of numbers, while everything else can be read.
    pub(super) fn write<const N: usize>(&mut self, ids: [Id; N], work: impl FnOnce(&Self, [&mut [f32]; N])) {
        let places = ids.map(|id| self.buffer(id));
        let lengths = ids.map(|id| self.program.n_elements(id));
        let mut taken = places.map(|place| std::mem::take(&mut self.buffers[place]));
        let mut lengths = lengths.into_iter();
        let outputs = taken.each_mut().map(|buffer| &mut buffer[..lengths.next().unwrap_or(0)]);
        work(self, outputs);
        for (place, buffer) in places.into_iter().zip(taken) {
            self.buffers[place] = buffer;
        }
    }

    /// As [`Memory::write`], with a buffer of positions beside that of numbers.
    pub(super) fn write_with_indices(
        &mut self,
        [y, positions]: [Id; 2],
        work: impl FnOnce(&Self, &mut [f32], &mut [u32]),
    ) {
        let Place::Index(place) = self.plan.places[positions] else {
            unreachable!("positions are made where positions lie")
        };
        let n_positions = self.program.n_elements(positions);
        let mut taken = std::mem::take(&mut self.indices[place]);
        self.write([y], |memory, [y]| work(memory, y, &mut taken[..n_positions]));
        self.indices[place] = taken;
    }

    fn buffer(&self, id: Id) -> usize {
        match self.plan.places[id] {
            Place::Buffer(idx) => idx,
            _ => unreachable!("what a step computes lies in a buffer"),
        }
    }

    /// A value as a tensor of the graph.
    pub(super) fn tensor(&self, id: Id) -> Result<Tensor, ExecError> {
        let shape = self.shape(id);
        Ok(match self.program.values[id].kind {
            Kind::Plain(_) => self.read_plain(id).clone(),
            Kind::Float => Tensor::new(shape, self.read(id).to_vec())?,
            Kind::Index => Tensor::new(shape, self.read_indices(id).to_vec())?,
        })
    }

    /// Puts a tensor where a value lies.
    pub(super) fn store(&mut self, id: Id, tensor: Tensor) -> Result<(), ExecError> {
        match self.program.values[id].kind {
            Kind::Plain(_) => self.plain[id] = Some(tensor),
            Kind::Float => {
                let numbers = singles(&tensor)?;
                self.write([id], |_, [y]| y.copy_from_slice(&numbers));
            }
            Kind::Index => {
                let positions = tensor.to_vec::<u32>()?;
                let Place::Index(place) = self.plan.places[id] else {
                    unreachable!("positions are made where positions lie")
                };
                self.indices[place][..positions.len()].copy_from_slice(&positions);
            }
        }
        Ok(())
    }
}
