//! Where every value of a program lies while it runs on the host: buffers that are planned once, for both directions
//! together, and reused as soon as nobody reads what is in them.

use super::program::{Id, Kind, Primitive, Program, Source, Step, Value};
use crate::learn::kernels::elementwise::Binary;

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// What the caller gave, by position.
    Input(usize),
    /// What is kept from run to run, by position.
    Parameter(usize),
    /// The constant that this value is.
    Constant(Id),
    /// A buffer of numbers.
    Buffer(usize),
    /// A buffer of positions.
    Index(usize),
    /// A tensor of the graph that a step makes.
    Plain(Id),
}

/// The places of a program's values.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) places: Vec<Place>,
    /// By buffer of numbers: the most elements that it holds.
    pub(super) buffers: Vec<usize>,
    /// By buffer of positions: the most elements that it holds.
    pub(super) indices: Vec<usize>,
    /// By step: the input in whose buffer the output is made.
    pub(super) in_place: Vec<Option<usize>>,
    /// By step: the plain tensors that nobody reads any more after it.
    pub(super) dropped: Vec<Vec<Id>>,
}

impl Plan {
    /// The plan of a program.
    pub(super) fn new(program: &Program) -> Plan {
        let owners = owners(program);
        let last_use = last_uses(program, &owners);
        let mut planner = Planner { program, owners, last_use, buffers: Pool::default(), indices: Pool::default() };
        let mut places = planner.sources();
        let mut in_place = Vec::with_capacity(program.steps.len());
        let mut dropped = Vec::with_capacity(program.steps.len());
        for (step_idx, step) in program.steps.iter().enumerate() {
            in_place.push(planner.allocate(step_idx, step, &mut places));
            dropped.push(planner.release(step_idx, step, &places));
        }
        let Planner { buffers, indices, .. } = planner;
        Plan { places, buffers: buffers.lengths, indices: indices.lengths, in_place, dropped }
    }

    /// The bytes of all buffers: what a run takes beside its parameters, constants and inputs.
    pub(super) fn n_bytes(&self) -> usize {
        4 * (self.buffers.iter().sum::<usize>() + self.indices.iter().sum::<usize>())
    }
}

/// By value: the one whose elements it shares, itself for most.
fn owners(program: &Program) -> Vec<Id> {
    let mut owners: Vec<Id> = (0..program.values.len()).collect();
    for step in &program.steps {
        if let Primitive::Reshape = step.primitive {
            owners[step.outputs[0]] = owners[step.inputs[0]];
        }
    }
    owners
}

/// By owner: the last step that reads its elements; one past the last step for what is handed out.
fn last_uses(program: &Program, owners: &[Id]) -> Vec<usize> {
    let mut last = vec![0; program.values.len()];
    for (step_idx, step) in program.steps.iter().enumerate() {
        step.inputs.iter().chain(&step.outputs).for_each(|&id| last[owners[id]] = step_idx);
    }
    let ends = program.outputs.iter().chain(&program.gradients).chain(&program.updates);
    ends.for_each(|(_, id)| last[owners[*id]] = program.steps.len());
    last
}

struct Planner<'a> {
    program: &'a Program,
    owners: Vec<Id>,
    last_use: Vec<usize>,
    buffers: Pool,
    indices: Pool,
}

impl Planner<'_> {
    fn sources(&self) -> Vec<Place> {
        let place = |(id, value): (Id, &Value)| match value.source {
            Source::Input(position) => Place::Input(position),
            Source::Parameter(position) => Place::Parameter(position),
            Source::Constant(_) | Source::Step => Place::Constant(id),
        };
        self.program.values.iter().enumerate().map(place).collect()
    }

    /// Gives the step's outputs a place; the input in whose place an output is made.
    fn allocate(&mut self, step_idx: usize, step: &Step, places: &mut [Place]) -> Option<usize> {
        if let Primitive::Reshape = step.primitive {
            places[step.outputs[0]] = places[step.inputs[0]];
            return None;
        }
        let reused = self.reusable(step_idx, step, places);
        for (position, &id) in step.outputs.iter().enumerate() {
            let n_elements = self.program.n_elements(id);
            places[id] = match (self.program.values[id].kind, reused) {
                (Kind::Float, Some(input)) if position == 0 => places[step.inputs[input]],
                (Kind::Float, _) => Place::Buffer(self.buffers.take(n_elements)),
                (Kind::Index, _) => Place::Index(self.indices.take(n_elements)),
                (Kind::Plain(_), _) => Place::Plain(id),
            };
        }
        reused
    }

    /// The input whose buffer the first output may take over: nobody reads it later, nothing else of the step lies in it, and
    /// the primitive reads each element before it writes there.
    fn reusable(&self, step_idx: usize, step: &Step, places: &[Place]) -> Option<usize> {
        let candidates: &[usize] = match &step.primitive {
            Primitive::Unary(_) => &[0],
            Primitive::UnaryGradient(_) if step.inputs.len() == 2 => &[1],
            Primitive::UnaryGradient(_) => &[0],
            Primitive::Binary(Binary::Add) => &[0, 1],
            Primitive::FakeQuantize(_) => &[0],
            Primitive::FakeQuantizeGradient(_) | Primitive::FakeQuantizeScaleGradient(_) => &[3],
            _ => &[],
        };
        let shape = self.program.shape(step.outputs[0]);
        // an operand of a sum that is broadcast is read more than once; scales may be, what they are for is not
        let has_scales = matches!(
            step.primitive,
            Primitive::FakeQuantize(_) | Primitive::FakeQuantizeGradient(_) | Primitive::FakeQuantizeScaleGradient(_)
        );
        let others_share = |candidate: usize| {
            let owner = self.owners[step.inputs[candidate]];
            step.inputs.iter().enumerate().any(|(other, &id)| other != candidate && self.owners[id] == owner)
        };
        candidates.iter().copied().find(|&candidate| {
            let id = step.inputs[candidate];
            matches!(places[id], Place::Buffer(_))
                && self.last_use[self.owners[id]] == step_idx
                && self.program.shape(id) == shape
                && (has_scales || step.inputs.iter().all(|&id| self.program.shape(id) == shape))
                && !others_share(candidate)
        })
    }

    /// Frees what nobody reads after this step; the plain tensors among it.
    fn release(&mut self, step_idx: usize, step: &Step, places: &[Place]) -> Vec<Id> {
        let mut owners: Vec<Id> = step.inputs.iter().chain(&step.outputs).map(|&id| self.owners[id]).collect();
        owners.sort_unstable();
        owners.dedup();
        owners.retain(|&owner| self.last_use[owner] == step_idx);
        // an output that lies in an input's place keeps it
        let kept: Vec<Place> = step
            .outputs
            .iter()
            .filter(|&&id| self.last_use[self.owners[id]] > step_idx)
            .map(|&id| places[id])
            .collect();
        let mut freed: Vec<Place> = owners.iter().map(|&owner| places[owner]).collect();
        freed.sort_unstable_by_key(|place| match place {
            Place::Buffer(idx) => (0, *idx),
            Place::Index(idx) => (1, *idx),
            Place::Plain(id) => (2, *id),
            Place::Input(_) | Place::Parameter(_) | Place::Constant(_) => (3, 0),
        });
        freed.dedup();
        let mut plain = Vec::new();
        for place in freed.into_iter().filter(|place| !kept.contains(place)) {
            match place {
                Place::Buffer(idx) => self.buffers.free.push(idx),
                Place::Index(idx) => self.indices.free.push(idx),
                Place::Plain(id) => plain.push(id),
                Place::Input(_) | Place::Parameter(_) | Place::Constant(_) => {}
            }
        }
        plain
    }
}

/// Buffers by their lengths, and those that are free.
#[derive(Default)]
struct Pool {
    lengths: Vec<usize>,
    free: Vec<usize>,
}

impl Pool {
    /// The smallest free buffer that is long enough; else the longest, made longer; else a new one.
    fn take(&mut self, n_elements: usize) -> usize {
        let fits = self.free.iter().copied().filter(|&idx| self.lengths[idx] >= n_elements);
        let best = fits.min_by_key(|&idx| (self.lengths[idx], idx));
        let best = best.or_else(|| self.free.iter().copied().max_by_key(|&idx| (self.lengths[idx], idx)));
        match best {
            Some(idx) => {
                self.free.retain(|&other| other != idx);
                self.lengths[idx] = self.lengths[idx].max(n_elements);
                idx
            }
            None => {
                self.lengths.push(n_elements);
                self.lengths.len() - 1
            }
        }
    }
}
