//! A student's training graph with what it reads of its teacher.

use std::fmt;

use indexmap::IndexMap;

use super::DistillError;
use super::objective::WithObjectives;
use super::targets::Targets;
use crate::graph::probe::Forward;
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Name};
use crate::learn::train::TrainError;
use crate::learn::train::fit::{Batch, Guide, Moment};
use crate::learn::train::loss::WithLoss;
use crate::learn::train::outputs::Outputs;

/// Where a teacher's values come from.
pub enum Source {
    /// From a file, for so many changes of each sample.
    Kept {
        /// the values
        targets: Targets,
        /// changes of a sample
        n_views: u64,
    },
    /// From the moving average of the student's own weights: Tarvainen and Valpola, "Mean teachers are better role models" (2017),
    /// section 2.
    Average {
        /// the student, which is its own teacher
        network: Graph,
        /// made of it at the first step
        outputs: Option<Outputs>,
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
            Source::Average { .. } => "Average",
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
            Source::Average { .. } | Source::Live { .. } => None,
        }
    }

    fn teaches_output(&self) -> bool {
        self.student.teaches_output
    }

    fn add(&mut self, moment: &Moment<'_>, batch: &mut Batch) -> Result<(), TrainError> {
        let values = values(&mut self.source, moment, batch, &self.student).map_err(|error| TrainError::Task {
            problem: error.to_string(),
            remedy: "see what is said of the teacher",
        })?;
        batch.extend(values);
        batch.extend(self.student.weights(moment.progress).map(|(name, weight)| (name.clone(), weight)));
        Ok(())
    }
}

/// The teacher's values by the training graph's inputs.
fn values(
    source: &mut Source,
    moment: &Moment<'_>,
    batch: &Batch,
    student: &WithObjectives,
) -> Result<IndexMap<Name, Tensor>, DistillError> {
    match source {
        Source::Kept { targets, .. } => {
            let of = targets.of(moment.samples)?;
            let kept = |value: &Name| of.get(value).cloned();
            Ok(student.teacher.iter().filter_map(|it| Some((it.input.clone(), kept(&it.value)?))).collect())
        }
        Source::Average { network, outputs } => {
            let average = moment.average.ok_or_else(|| DistillError::Option {
                objective: "distill",
                option: "ema",
                value: "left out".to_string(),
                range: "the part of the average that a step keeps, such as 0.99, to learn from it",
            })?;
            let outputs = outputs.get_or_insert_with(|| {
                let values: Vec<Name> = student.teacher.iter().map(|it| it.value.clone()).collect();
                Outputs::new(network, &values, average.names())
            });
            let values = outputs.of(|name| average.get(name), batch)?;
            Ok(student.teacher.iter().map(|it| it.input.clone()).zip(values).collect())
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
