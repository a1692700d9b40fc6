//! A student's training graph with what it reads of its teacher.

use std::fmt;

use indexmap::IndexMap;

use super::DistillError;
use super::objective::WithObjectives;
use super::targets::Targets;
use crate::graph::Name;
use crate::graph::probe::Forward;
use crate::graph::tensor::Tensor;
use crate::learn::train::TrainError;
use crate::learn::train::fit::{Batch, Guide, Samples};
use crate::learn::train::loss::WithLoss;

/// Where a teacher's values come from.
pub enum Source {
    /// From a file, for so many changes of each sample.
    Kept {
        /// the values
        targets: Targets,
        /// changes of a sample
        n_views: u64,
    },
    /// From the teacher at work on every batch.
    Live {
        /// gives the values that the objectives read, in their order
        teacher: Box<dyn Forward>,
        /// by the teacher's input: the student's of the same samples
        inputs: Vec<(Name, Name)>,
    },
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Kept { .. } => "Kept",
            Source::Live { .. } => "Live",
        })
    }
}

/// A student that learns from a teacher.
#[derive(Debug)]
pub struct Distillation {
    /// The student with its objectives.
    pub student: WithObjectives,
    /// Its teacher.
    pub source: Source,
}

impl Guide for Distillation {
    fn with_loss(&self) -> &WithLoss {
        &self.student.with_loss
    }

    fn n_views(&self) -> Option<u64> {
        match &self.source {
            Source::Kept { n_views, .. } => Some(*n_views),
            Source::Live { .. } => None,
        }
    }

    fn add(&mut self, samples: Samples<'_>, progress: f64, batch: &mut Batch) -> Result<(), TrainError> {
        let values = values(&mut self.source, samples, batch, &self.student).map_err(|error| TrainError::Task {
            problem: error.to_string(),
            remedy: "see what is said of the teacher",
        })?;
        batch.extend(values);
        batch.extend(self.student.weights(progress).map(|(name, weight)| (name.clone(), weight)));
        Ok(())
    }
}

/// The teacher's values by the training graph's inputs.
fn values(
    source: &mut Source,
    samples: Samples<'_>,
    batch: &Batch,
    student: &WithObjectives,
) -> Result<IndexMap<Name, Tensor>, DistillError> {
    match source {
        Source::Kept { targets, .. } => {
            let of = targets.of(samples)?;
            let kept = |value: &Name| of.get(value).cloned();
            Ok(student.teacher.iter().filter_map(|it| Some((it.input.clone(), kept(&it.value)?))).collect())
        }
        Source::Live { teacher, inputs } => {
            let own = |(theirs, ours): &(Name, Name)| batch.get(ours).map(|tensor| (theirs.clone(), tensor.clone()));
            let feeds = inputs.iter().filter_map(own).collect();
            let values = teacher.forward(&feeds)?;
            let single = |value: Tensor| Tensor::new(value.shape(), value.to_f32s()?.into_owned());
            let values = values.into_iter().map(single).collect::<Result<Vec<_>, _>>()?;
            Ok(student.teacher.iter().map(|it| it.input.clone()).zip(values).collect())
        }
    }
}
