//! A network's values with weights that come from elsewhere.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;

use super::TrainError;
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name};
use crate::learn::exec::host::Host;
use crate::learn::exec::{Mode, Program, Request};

/// Programs that are kept; when there are as many, they are made anew.
const MOST_PROGRAMS: usize = 16;

/// Some of a network's values, as the exported network has them.
pub struct Outputs {
    graph: Graph,
    values: Vec<Name>,
    /// The initializers that come from elsewhere.
    weights: BTreeSet<Name>,
    hosts: HashMap<Vec<Vec<usize>>, (Arc<Program>, Host)>,
}

impl fmt::Debug for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outputs").field("values", &self.values).finish_non_exhaustive()
    }
}

impl Outputs {
    /// These values of a network, whose initializers among `weights` will be given with every batch.
    pub fn new<'a>(graph: &Graph, values: &[Name], weights: impl IntoIterator<Item = &'a Name>) -> Outputs {
        let is_own = |name: &&Name| graph.initializers.contains_key(*name);
        let weights = weights.into_iter().filter(is_own).cloned().collect();
        Outputs { graph: graph.clone(), values: values.to_vec(), weights, hosts: HashMap::new() }
    }

    /// The values of a batch, in their order.
    ///
    /// # Errors
    /// When an input or a weight is missing or does not fit.
    pub fn of<'a>(
        &mut self,
        weight: impl Fn(&Name) -> Option<&'a [f32]>,
        batch: &IndexMap<Name, Tensor>,
    ) -> Result<Vec<Tensor>, TrainError> {
        let input = |name: &Name| {
            let missing = || TrainError::Name { what: "input", name: name.clone() };
            batch.get(name).cloned().ok_or_else(missing)
        };
        let inputs = self.graph.inputs.iter().map(|it| Ok((it.name.clone(), input(&it.name)?)));
        let inputs: IndexMap<Name, Tensor> = inputs.collect::<Result<_, TrainError>>()?;
        let shapes: Vec<Vec<usize>> = inputs.values().map(|tensor| tensor.shape().to_vec()).collect();
        if !self.hosts.contains_key(&shapes) {
            if self.hosts.len() >= MOST_PROGRAMS {
                self.hosts.clear();
            }
            let request = Request {
                shapes: inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect(),
                mode: Mode::Inference,
                outputs: self.values.clone(),
                loss: None,
                trainable: BTreeSet::new(),
                variable: self.weights.clone(),
            };
            let program = Arc::new(Program::compile(&self.graph, &request)?);
            let host = Host::new(Arc::clone(&program))?;
            self.hosts.insert(shapes.clone(), (program, host));
        }
        let (program, host) = self.hosts.get_mut(&shapes).expect("it was put there");
        let read = |(name, _): &(Name, usize)| {
            weight(name).ok_or_else(|| TrainError::Name { what: "weight", name: name.clone() })
        };
        let reads = program.parameters.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let given: Vec<Tensor> = program.inputs.iter().map(|(name, _)| inputs[name].clone()).collect();
        host.run(&reads, &given, 0)?;
        program.outputs.iter().map(|(_, id)| Ok(host.tensor(*id, &reads, &given)?)).collect()
    }
}
