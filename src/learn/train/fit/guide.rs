//! What a network learns from beside the labels of its data.

use indexmap::IndexMap;

use crate::graph::Name;
use crate::graph::tensor::Tensor;
use crate::learn::train::TrainError;
use crate::learn::train::learner::Parameter;
use crate::learn::train::loss::WithLoss;

/// A batch by the names of the inputs that are fed with it.
pub type Batch = IndexMap<Name, Tensor>;

/// The samples of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Samples<'a> {
    /// Their numbers in the data.
    pub ids: &'a [usize],
    /// Which of their changes they have, see [`Loader::view`](crate::data::Loader::view).
    pub view: u64,
}

/// The moving average of a network's weights; what gradients do not change is as it is.
#[derive(Clone, Copy, Debug)]
pub struct Average<'a> {
    pub(super) parameters: &'a IndexMap<Name, Parameter>,
    pub(super) averages: &'a [Vec<f32>],
}

impl<'a> Average<'a> {
    /// The values of an initializer, row-major; none where it does not change.
    pub fn get(&self, name: &Name) -> Option<&'a [f32]> {
        let (position, _, parameter) = self.parameters.get_full(name)?;
        let average = self.averages.get(position).filter(|_| parameter.is_learned);
        Some(average.unwrap_or(&parameter.values))
    }

    /// What changes.
    pub fn names(&self) -> impl Iterator<Item = &'a Name> {
        self.parameters.keys()
    }
}

/// What a guide is told of a step.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// The samples of the batch.
    pub samples: Samples<'a>,
    /// The share of the training that is done, from 0 to 1.
    pub progress: f64,
    /// The average of the weights before the step, where the options keep one.
    pub average: Option<Average<'a>>,
}

/// What is learned from beside the labels: a training graph of its own, and what it reads.
pub trait Guide {
    /// The network with the loss that it learns by; it is validated by that of the options.
    fn with_loss(&self) -> &WithLoss;

    /// How many changes of a sample there are; none where every epoch has its own.
    fn n_views(&self) -> Option<u64>;

    /// Whether it teaches what the network says, so that labels tell which epoch is best. Of inner values the training loss does.
    fn teaches_output(&self) -> bool {
        true
    }

    /// Adds what the training graph reads beside the network's inputs and the target.
    ///
    /// # Errors
    /// When it cannot be had.
    fn add(&mut self, moment: &Moment<'_>, batch: &mut Batch) -> Result<(), TrainError>;
}
