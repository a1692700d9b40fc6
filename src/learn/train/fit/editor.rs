//! A hand in a training's numbers: who changes parameters after a step, as a mask that holds some of them at zero does.

use indexmap::IndexMap;

use crate::graph::Name;
use crate::learn::train::TrainError;
use crate::learn::train::learner::Parameter;

/// Numbers by kind, a list a parameter.
pub type Numbers = IndexMap<String, Vec<Vec<f32>>>;

/// Where a training stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Steps of the optimizer that are done.
    pub n_done: u64,
    /// Steps of the whole training.
    pub n_steps: u64,
}

/// Who changes parameters between the steps of a training. What it goes by from step to step is kept among the state's numbers: so
/// a training that is taken up, or goes back to the beginning of an epoch, goes on to the same bytes.
pub trait Editor {
    /// Changes parameters before the first step, and says what it keeps: kinds of its own, with a list for each parameter, empty
    /// where it needs none. `n_moments` lists are kept by the optimizer. A training that is taken up begins, too, before it takes
    /// its numbers from the state.
    ///
    /// # Errors
    /// When it has nothing to do with these parameters, or with so few steps.
    fn begin(
        &mut self,
        parameters: &mut IndexMap<Name, Parameter>,
        n_steps: u64,
        n_moments: usize,
    ) -> Result<Numbers, TrainError>;

    /// Sees the gradient of a parameter, by its position, before the step that it leads to; not scaled by `clip`.
    fn see(&mut self, _position: usize, _gradient: &[f32], _values: &[f32], _numbers: &mut Numbers) {}

    /// Changes parameters after a step, `pace.n_done` steps being done. `numbers` has what [`Editor::begin`] said, the optimizer's
    /// `moment0`, … and, where the options keep one, the `average` of the weights, which is validated and written in their place.
    ///
    /// # Errors
    /// When it cannot.
    fn edit(
        &mut self,
        pace: Pace,
        parameters: &mut IndexMap<Name, Parameter>,
        numbers: &mut Numbers,
    ) -> Result<(), TrainError>;

    /// Whether the network is what was asked for, so that an epoch that ends here may be the best one. It has to be at the end.
    fn is_settled(&self, _pace: Pace) -> bool {
        true
    }

    /// The step as the schedule of the learning rate and the optimizer count it: another one where training begins anew in between.
    fn course(&self, pace: Pace) -> Pace {
        pace
    }
}
