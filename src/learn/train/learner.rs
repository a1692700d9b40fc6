//! A network at work: its numbers, its programs by shape, gradients, predictions, and the way back to a graph.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use indexmap::IndexMap;

use super::TrainError;
use super::floats::tensor_of;
use super::loss::{Loss, WithLoss, attach};
use super::roles::{Role, roles};
use crate::graph::shape::{Bindings, infer};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Graph, Name, ValueInfo};
use crate::learn::exec::host::Host;
use crate::learn::exec::{Mode, Program, Request, singles};

/// One initializer that changes.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its values, row-major.
    pub values: Vec<f32>,
    /// Whether gradients change it, and not running statistics.
    pub is_learned: bool,
    /// Whether weight decay pulls at it.
    pub decays: bool,
    /// Whether numbers are quantized by it, so that it has to stay above zero.
    pub is_step_size: bool,
}

/// Programs that are kept; a batch of yet another shape takes the place of the one that was used least recently.
const MOST_PROGRAMS: usize = 16;

/// A network that learns.
#[derive(Debug)]
pub struct Learner {
    network: Graph,
    training: WithLoss,
    validation: WithLoss,
    /// What changes, by name, in the order of the graph.
    pub parameters: IndexMap<Name, Parameter>,
    hosts: HashMap<Key, Compiled>,
    /// Batches so far.
    n_batches: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    usage: Usage,
    shapes: Vec<Vec<usize>>,
}

/// What a program is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Usage {
    /// The gradients of its parameters.
    Learn,
    /// The prediction.
    Predict,
    /// The gradients of its inputs, by the loss of [`Usage::Learn`] on the network as it is exported.
    Attack,
    /// The same by the loss of [`Usage::Predict`].
    AttackPrediction,
}

#[derive(Debug)]
struct Compiled {
    program: Arc<Program>,
    host: Host,
    /// Which parameters the program reads, by position in those of the learner.
    reads: Vec<usize>,
    /// The last batch that it was used for, by number.
    used: u64,
}

/// What a batch came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The mean loss.
    pub loss: f32,
    /// The prediction: logits for the two cross-entropies.
    pub prediction: Tensor,
}

impl Learner {
    /// A network that learns by a loss on one of its outputs. What `frozen` names stays as it is.
    ///
    /// # Errors
    /// When the network's types do not fit together, the output is not there, or nothing in it can learn.
    pub fn new(graph: &Graph, output: &Name, loss: Loss, frozen: &BTreeSet<Name>) -> Result<Learner, TrainError> {
        let with_loss = attach(graph, output, loss)?;
        Learner::with_losses(graph, with_loss.clone(), with_loss, frozen)
    }

    /// A network that learns by one loss and is validated by another: [`Learner::learn`] reads the inputs of `training`,
    /// [`Learner::predict`] those of `validation`. Both are the network with nodes behind it; what `training` has learn beside
    /// the network is among the parameters, and not in what [`Learner::network`] gives.
    ///
    /// # Errors
    /// When the network's types do not fit together, nothing in it can learn, or what should learn is no initializer.
    pub fn with_losses(
        graph: &Graph,
        training: WithLoss,
        validation: WithLoss,
        frozen: &BTreeSet<Name>,
    ) -> Result<Learner, TrainError> {
        let types = infer(graph, &Bindings::default())?;
        let mut parameters = IndexMap::new();
        for (name, role) in roles(graph, &types) {
            let is_learned = role.is_learned() && !frozen.contains(&name);
            if !is_learned && role != Role::Statistic {
                continue;
            }
            let tensor = graph.initializers.get(&name).expect("roles are of initializers");
            let values = singles(tensor)?.into_owned();
            let is_step_size = role == Role::StepSize;
            parameters.insert(name, Parameter { values, is_learned, decays: role.decays(), is_step_size });
        }
        if !parameters.values().any(|parameter| parameter.is_learned) {
            return Err(TrainError::Task {
                problem: "the network has no weight that could learn".to_string(),
                remedy: "freeze less, or give a network with weights",
            });
        }
        if let (Some(one), Some(other)) = (&training.target, &validation.target)
            && one != other
        {
            return Err(TrainError::Task {
                problem: format!("the targets are `{one}` in training and `{other}` in validation"),
                remedy: "put both losses behind the same network",
            });
        }
        for name in &training.learned {
            let missing = || TrainError::Name { what: "initializer", name: name.clone() };
            let tensor = training.graph.initializers.get(name).ok_or_else(missing)?;
            // of matrices and kernels, not of biases
            let decays = tensor.rank() > 1;
            let values = singles(tensor)?.into_owned();
            parameters.insert(name.clone(), Parameter { values, is_learned: true, decays, is_step_size: false });
        }
        Ok(Learner { network: graph.clone(), training, validation, parameters, hosts: HashMap::new(), n_batches: 0 })
    }

    /// The input with the target; none where no loss reads labels.
    pub fn target(&self) -> Option<&Name> {
        self.training.target.as_ref().or(self.validation.target.as_ref())
    }

    /// The names of the network's own inputs.
    pub fn inputs(&self) -> impl Iterator<Item = &Name> {
        self.network.inputs.iter().map(|input| &input.name)
    }

    /// The names of the inputs that are of floating-point numbers.
    pub(super) fn float_inputs(&self) -> Vec<Name> {
        float_inputs(&self.network).collect()
    }

    /// The number of values that learn.
    pub fn n_learned(&self) -> usize {
        self.parameters.values().filter(|parameter| parameter.is_learned).map(|parameter| parameter.values.len()).sum()
    }

    /// The bytes of the buffers of all programs that are kept.
    pub fn n_bytes(&self) -> usize {
        self.hosts.values().map(|compiled| compiled.host.n_bytes()).sum()
    }

    /// The mean loss of a batch and its gradients, as training has it; running statistics are brought up to date.
    ///
    /// # Errors
    /// When an input is missing or does not fit, or no gradient reaches a parameter.
    pub fn learn(&mut self, batch: &IndexMap<Name, Tensor>, seed: u64) -> Result<Learned<'_>, TrainError> {
        let Ready { compiled, inputs, parameters } = self.prepare(batch, Usage::Learn)?;
        let reads: Vec<&[f32]> = compiled.reads.iter().map(|&idx| parameters[idx].values.as_slice()).collect();
        compiled.host.run(&reads, &inputs, seed)?;
        let loss = compiled.loss(&reads);
        for (name, id) in &compiled.program.updates {
            let statistic = parameters.get_mut(name).expect("updates are of parameters");
            statistic.values.copy_from_slice(compiled.host.computed(*id));
        }
        Ok(Learned { loss, compiled, parameters })
    }

    /// The mean loss of a batch and its prediction, as the exported network has it.
    ///
    /// # Errors
    /// When an input is missing or does not fit.
    pub fn predict(&mut self, batch: &IndexMap<Name, Tensor>) -> Result<Outcome, TrainError> {
        let Ready { compiled, inputs, parameters } = self.prepare(batch, Usage::Predict)?;
        let reads: Vec<&[f32]> = compiled.reads.iter().map(|&idx| parameters[idx].values.as_slice()).collect();
        compiled.host.run(&reads, &inputs, 0)?;
        let (_, prediction) = compiled.program.outputs.first().expect("the prediction is asked for");
        let prediction = compiled.host.tensor(*prediction, &reads, &inputs)?;
        Ok(Outcome { loss: compiled.loss(&reads), prediction })
    }

    /// The gradients of a batch's loss with respect to the network's inputs of floating-point numbers, for an attack: the loss is
    /// that of the validation, or of the training, which may read more.
    ///
    /// # Errors
    /// When an input is missing or does not fit, or no gradient reaches one.
    pub(super) fn input_gradients(
        &mut self,
        batch: &IndexMap<Name, Tensor>,
        of_training: bool,
    ) -> Result<Vec<(Name, Tensor)>, TrainError> {
        let usage = if of_training { Usage::Attack } else { Usage::AttackPrediction };
        let Ready { compiled, inputs, parameters } = self.prepare(batch, usage)?;
        let reads: Vec<&[f32]> = compiled.reads.iter().map(|&idx| parameters[idx].values.as_slice()).collect();
        compiled.host.run(&reads, &inputs, 0)?;
        let gradients = &compiled.program.gradients;
        let tensor = |(name, id): &(Name, usize)| Ok((name.clone(), compiled.host.tensor(*id, &reads, &inputs)?));
        gradients.iter().map(tensor).collect()
    }

    /// The network with what it has learned, in the element types that it came with.
    ///
    /// # Errors
    /// None that the network itself does not cause.
    pub fn network(&self) -> Result<Graph, TrainError> {
        self.network_with(self.parameters.iter().map(|(name, parameter)| (name, parameter.values.as_slice())))
    }

    /// The network with these values in place of its own; those of what only its loss has are passed over.
    ///
    /// # Errors
    /// When there are more or fewer values than an initializer has.
    pub fn network_with<'a>(&self, values: impl Iterator<Item = (&'a Name, &'a [f32])>) -> Result<Graph, TrainError> {
        let mut parts = self.network.to_parts();
        for (name, values) in values.filter(|(name, _)| !self.training.learned.contains(name)) {
            let missing = || TrainError::Name { what: "initializer", name: name.clone() };
            let tensor = parts.initializers.get_mut(name).ok_or_else(missing)?;
            let values: Vec<f64> = values.iter().map(|&value| value.into()).collect();
            *tensor = tensor_of(tensor.dtype(), tensor.shape(), &values)?;
        }
        Ok(Graph::new(parts)?)
    }

    /// The program for a batch.
    fn prepare(&mut self, batch: &IndexMap<Name, Tensor>, usage: Usage) -> Result<Ready<'_>, TrainError> {
        let with_loss = match usage {
            Usage::Learn | Usage::Attack => &self.training,
            Usage::Predict | Usage::AttackPrediction => &self.validation,
        };
        let named: Vec<(&Name, &Tensor)> = with_loss
            .graph
            .inputs
            .iter()
            .map(|input| {
                let tensor = batch.get(&input.name);
                tensor.map(|tensor| (&input.name, tensor)).ok_or_else(|| TrainError::Task {
                    problem: format!("the data has nothing for the network's input `{}`", input.name),
                    remedy: "name a column of the data after it",
                })
            })
            .collect::<Result<_, _>>()?;
        let key = Key { usage, shapes: named.iter().map(|(_, tensor)| tensor.shape().to_vec()).collect() };
        if !self.hosts.contains_key(&key) {
            let oldest = self.hosts.iter().min_by_key(|(_, compiled)| compiled.used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| self.hosts.len() >= MOST_PROGRAMS) {
                self.hosts.remove(&oldest);
            }
            let shapes = named.iter().map(|(name, tensor)| ((*name).clone(), tensor.shape().to_vec())).collect();
            let compiled = compile(&self.network, with_loss, &self.parameters, shapes, usage)?;
            self.hosts.insert(key.clone(), compiled);
        }
        self.n_batches += 1;
        let compiled = self.hosts.get_mut(&key).expect("it was put there");
        compiled.used = self.n_batches;
        let given = compiled.program.inputs.iter().map(|(name, _)| batch[name].clone()).collect();
        Ok(Ready { compiled, inputs: given, parameters: &mut self.parameters })
    }
}

/// A program for a batch, and what it reads.
struct Ready<'a> {
    compiled: &'a mut Compiled,
    /// The batch in the program's order.
    inputs: Vec<Tensor>,
    parameters: &'a mut IndexMap<Name, Parameter>,
}

/// What a batch came to, and where it leads.
#[derive(Debug)]
pub struct Learned<'a> {
    /// The mean loss.
    pub loss: f32,
    compiled: &'a Compiled,
    parameters: &'a mut IndexMap<Name, Parameter>,
}

impl Learned<'_> {
    /// The parameters as they were for the batch, but for running statistics.
    pub fn parameters(&self) -> &IndexMap<Name, Parameter> {
        self.parameters
    }

    /// The gradients by the position of their parameter.
    pub fn gradients(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let position = |name| self.parameters.get_index_of(name).expect("gradients are of parameters");
        let gradients = self.compiled.program.gradients.iter();
        gradients.map(move |(name, id)| (position(name), self.compiled.host.computed(*id)))
    }

    /// The same, each with the values that it is a gradient at.
    pub fn gradients_and_values(&self) -> impl Iterator<Item = (usize, &[f32], &[f32])> {
        self.gradients().map(|(position, gradient)| (position, gradient, self.parameters[position].values.as_slice()))
    }

    /// The gradient of a parameter; none where nothing leads to it.
    pub fn gradient(&self, name: &Name) -> Option<&[f32]> {
        let (_, id) = self.compiled.program.gradients.iter().find(|(own, _)| own == name)?;
        Some(self.compiled.host.computed(*id))
    }

    /// Calls `update` with each parameter that has a gradient: its position, the gradient, and itself. An update takes no more than
    /// half from a step size: by a scale of zero or below nothing can be quantized, and from one that is next to nothing,
    /// with everything saturated, there is no way back.
    pub fn apply(&mut self, mut update: impl FnMut(usize, &[f32], &mut Parameter) + Send) {
        let (compiled, parameters) = (self.compiled, &mut *self.parameters);
        // see `Host::run`
        rayon::scope(|_| {
            for (name, id) in &compiled.program.gradients {
                let (position, _, parameter) = parameters.get_full_mut(name).expect("gradients are of parameters");
                let before = parameter.is_step_size.then(|| parameter.values.clone());
                update(position, compiled.host.computed(*id), parameter);
                for (value, before) in parameter.values.iter_mut().zip(before.iter().flatten()) {
                    let least = (before / 2.0).max(f32::MIN_POSITIVE);
                    // NaN stays, to be found
                    if *value < least {
                        *value = least;
                    }
                }
            }
        });
    }
}

impl Compiled {
    fn loss(&self, reads: &[&[f32]]) -> f32 {
        let (_, loss) = self.program.outputs.last().expect("the loss is asked for");
        self.host.numbers(*loss, reads).first().copied().unwrap_or(f32::NAN)
    }
}

/// The inputs that a small change changes little.
fn float_inputs(network: &Graph) -> impl Iterator<Item = Name> {
    let is_float = |input: &&ValueInfo| input.tensor_type().is_some_and(|it| it.dtype == DType::F32);
    network.inputs.iter().filter(is_float).map(|input| input.name.clone())
}

fn compile(
    network: &Graph,
    with_loss: &WithLoss,
    parameters: &IndexMap<Name, Parameter>,
    shapes: BTreeMap<Name, Vec<usize>>,
    usage: Usage,
) -> Result<Compiled, TrainError> {
    let learns = usage == Usage::Learn;
    let mode = if learns { Mode::Training } else { Mode::Inference };
    let changing = parameters.iter().filter(|(_, parameter)| parameter.is_learned || !learns);
    // only who is asked what it would say has to keep it
    let prediction = (usage == Usage::Predict).then(|| with_loss.prediction.clone());
    let inputs = float_inputs(network).collect();
    let changing = changing.map(|(name, _)| name.clone()).collect();
    let (trainable, variable) = match usage {
        Usage::Learn | Usage::Predict => (changing, BTreeSet::new()),
        Usage::Attack | Usage::AttackPrediction => (inputs, changing),
    };
    let request = Request {
        shapes,
        mode,
        outputs: prediction.into_iter().chain([with_loss.loss.clone()]).collect(),
        loss: (usage != Usage::Predict).then(|| with_loss.loss.clone()),
        trainable,
        variable,
    };
    let program = Arc::new(Program::compile(&with_loss.graph, &request)?);
    let position = |name: &Name| parameters.get_index_of(name).expect("a program's parameters are those that change");
    let reads = program.parameters.iter().map(|(name, _)| position(name)).collect();
    let host = Host::new(Arc::clone(&program))?;
    Ok(Compiled { program, host, reads, used: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Dim, GraphBuilder, Op, TensorType};

    #[test]
    fn programs_that_are_used_are_kept() {
        let mut builder = GraphBuilder::new("linear");
        let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 2.into()]));
        let weight = builder.initializer("weight", Tensor::new(&[2, 3], vec![0.5f32; 6]).expect("six"));
        let y = builder.node(Op::MatMul, &[&x, &weight]);
        builder.output(&y);
        let graph = builder.finish().expect("whole");
        let mut learner = Learner::new(&graph, &y, Loss::default(), &BTreeSet::new()).expect("it can learn");
        let mut predict = |size: usize| {
            let zeros = |width| Tensor::zeros(DType::F32, &[size, width]).expect("it is small");
            let batch = [(x.clone(), zeros(2)), (learner.target().cloned().expect("labels are read"), zeros(3))]
                .into_iter()
                .collect();
            learner.predict(&batch).expect("it fits");
            let mut sizes: Vec<usize> = learner.hosts.keys().map(|key| key.shapes[0][0]).collect();
            sizes.sort_unstable();
            sizes
        };
        for size in 1..=MOST_PROGRAMS {
            assert_eq!(predict(size), (1..=size).collect::<Vec<_>>());
        }
        predict(1);
        let sizes = predict(MOST_PROGRAMS + 1);
        assert_eq!(sizes, std::iter::once(1).chain(3..=MOST_PROGRAMS + 1).collect::<Vec<_>>());
    }
}
