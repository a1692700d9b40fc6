//! From a graph to a program: what is needed for what is wanted, node by node, and then backwards.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::ExecError;
use super::emit::{Emitter, kind_of};
use super::fuse::fuse;
use super::lower;
use super::program::{Id, Kind, Program, Source};
use super::reverse::differentiate;
use crate::graph::shape::{Bindings, Types, infer};
use crate::graph::{Graph, Name, Node, Op, eval};

/// Whether a network learns: normalisation by the batch's statistics and dropout at work, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// As it is exported.
    Inference,
    /// As it learns.
    Training,
}

/// What is wanted of a graph.
#[derive(Clone, Debug)]
pub struct Request {
    /// The shape of every input that what is wanted depends on.
    pub shapes: BTreeMap<Name, Vec<usize>>,
    /// Whether the network learns.
    pub mode: Mode,
    /// The values to hand out, inner ones included.
    pub outputs: Vec<Name>,
    /// The value to differentiate, of one element.
    pub loss: Option<Name>,
    /// The initializers and inputs with respect to which the loss is differentiated.
    pub trainable: BTreeSet<Name>,
    /// The initializers that are given anew for every run, beside those that are trainable.
    pub variable: BTreeSet<Name>,
}

/// A graph on its way to a program.
pub(super) struct Compiler<'a> {
    pub(super) graph: &'a Graph,
    pub(super) types: Types,
    pub(super) request: &'a Request,
    pub(super) emitter: Emitter,
    values: HashMap<Name, Id>,
    /// The initializers that are not the same in every run, and what is computed from them.
    changing: HashSet<Name>,
    /// How many dropouts there are so far.
    pub(super) n_streams: u64,
}

impl Program {
    /// The program that computes what is wanted of a graph.
    ///
    /// # Errors
    /// When the shapes do not fit the graph or do not follow from those of the inputs, a name is not in it, an operator
    /// is unknown, or no gradient reaches something trainable because of what lies between.
    pub(crate) fn compile(graph: &Graph, request: &Request) -> Result<Program, ExecError> {
        let bindings = Bindings { shapes: request.shapes.clone(), ..Bindings::default() };
        let types = infer(graph, &bindings)?;
        let emitter = Emitter::default();
        let mut changing: HashSet<Name> = request.trainable.iter().chain(&request.variable).cloned().collect();
        if request.mode == Mode::Training {
            changing.extend(graph.nodes.iter().flat_map(lower::statistics).cloned());
        }
        for node in graph.nodes.iter().filter(|node| !matches!(node.op, Op::Shape(_) | Op::Size)) {
            if node.reads().any(|name| changing.contains(name)) {
                changing.extend(node.outputs.iter().flatten().cloned());
            }
        }
        let mut compiler = Compiler { graph, types, request, emitter, values: HashMap::new(), changing, n_streams: 0 };
        compiler.sources()?;
        let wanted: Vec<&Name> = request.outputs.iter().chain(&request.loss).collect();
        for node in needed(graph, &wanted) {
            compiler.emitter.begin(node.label());
            lower::node(&mut compiler, node)?;
        }
        compiler.finish()
    }
}

impl Compiler<'_> {
    /// Inputs and initializers.
    fn sources(&mut self) -> Result<(), ExecError> {
        for input in &self.graph.inputs {
            let name = &input.name;
            // an input that nothing wanted depends on may have any shape
            let Some((shape, tensor_type)) = self.types.known_shape(name).zip(self.types.tensor(name)) else {
                continue;
            };
            let kind = kind_of(tensor_type.dtype);
            let id = self.emitter.value(kind, shape, Source::Input(self.emitter.program.inputs.len()));
            self.emitter.program.inputs.push((name.clone(), id));
            self.values.insert(name.clone(), id);
        }
        for (name, tensor) in &self.graph.initializers {
            let id = if self.changing.contains(name) {
                if kind_of(tensor.dtype()) != Kind::Float {
                    return Err(ExecError::Type { name: name.clone(), dtype: tensor.dtype() });
                }
                let position = self.emitter.program.parameters.len();
                let id = self.emitter.value(Kind::Float, tensor.shape().to_vec(), Source::Parameter(position));
                self.emitter.program.parameters.push((name.clone(), id));
                id
            } else {
                self.emitter.constant(tensor.clone())
            };
            self.values.insert(name.clone(), id);
        }
        for (name, sparse) in &self.graph.sparse_initializers {
            let dense = eval::densify(sparse).map_err(|source| ExecError::Eval { node: name.to_string(), source })?;
            let id = self.emitter.constant(dense);
            self.values.insert(name.clone(), id);
        }
        Ok(())
    }

    /// Whether a name is that of an initializer that is not the same in every run, or of what is computed from one.
    pub(super) fn is_changing(&self, name: &Name) -> bool {
        self.changing.contains(name)
    }

    /// The value of a name.
    pub(super) fn get(&self, name: &Name) -> Result<Id, ExecError> {
        let missing =
            || ExecError::Name { name: name.clone(), problem: "no tensor of this graph has that name".into() };
        self.values.get(name).copied().ok_or_else(missing)
    }

    pub(super) fn set(&mut self, name: &Name, id: Id) {
        self.values.insert(name.clone(), id);
    }

    fn finish(mut self) -> Result<Program, ExecError> {
        let ends = self.request.outputs.iter().chain(&self.request.loss).map(|name| self.get(name));
        let updates = self.emitter.program.updates.iter().map(|(_, id)| Ok(*id));
        let kept = ends.chain(updates).collect::<Result<Vec<_>, _>>()?;
        fuse(&mut self.emitter, &kept);
        for name in &self.request.outputs {
            let id = self.get(name)?;
            self.emitter.program.outputs.push((name.clone(), id));
        }
        if let Some(loss) = &self.request.loss {
            let id = self.get(loss)?;
            if self.emitter.program.n_elements(id) != 1 || self.emitter.kind(id) != Kind::Float {
                let problem =
                    format!("a loss is one floating-point number, this has shape {:?}", self.emitter.shape(id));
                return Err(ExecError::Name { name: loss.clone(), problem });
            }
            let wanted = self.request.trainable.iter().map(|name| Ok((name.clone(), self.get(name)?)));
            let wanted = wanted.collect::<Result<Vec<_>, ExecError>>()?;
            let gradients = differentiate(&mut self.emitter, id, &wanted)?;
            let reached = wanted.into_iter().zip(gradients).filter_map(|((name, _), gradient)| Some((name, gradient?)));
            self.emitter.program.gradients = reached.collect();
        }
        let mut program = self.emitter.program;
        remove_dead(&mut program);
        Ok(program)
    }
}

/// The nodes that what is wanted depends on, in order.
fn needed<'a>(graph: &'a Graph, wanted: &[&Name]) -> Vec<&'a Node> {
    let mut names: HashSet<&Name> = wanted.iter().copied().collect();
    let mut nodes = Vec::new();
    for node in graph.nodes.iter().rev() {
        if node.outputs.iter().flatten().any(|name| names.contains(name)) {
            names.extend(node.reads());
            nodes.push(node);
        }
    }
    nodes.reverse();
    nodes
}

/// Takes out the steps whose outputs nobody reads.
fn remove_dead(program: &mut Program) {
    let mut live = vec![false; program.values.len()];
    let ends = program.outputs.iter().chain(&program.gradients).chain(&program.updates);
    ends.for_each(|(_, id)| live[*id] = true);
    let mut steps = std::mem::take(&mut program.steps);
    for step in steps.iter().rev() {
        if step.outputs.iter().any(|&id| live[id]) {
            step.inputs.iter().for_each(|&id| live[id] = true);
        }
    }
    steps.retain(|step| step.outputs.iter().any(|&id| live[id]));
    program.steps = steps;
}
