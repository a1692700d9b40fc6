//! From a batch of data to what the network and its loss read: inputs by the network's names, labels as targets.

use super::TrainError;
use super::fit::{Batch, Score, TrainOptions};
use super::learner::{Learner, Outcome};
use super::metrics::Confusion;
use crate::data::{self, Dataset, LABEL, Labels, NO_CLASS};
use crate::graph::Name;
use crate::graph::tensor::Tensor;

/// How columns become inputs and labels targets.
#[derive(Debug)]
pub(super) struct Targets {
    /// Column and input.
    inputs: Vec<(String, Name)>,
    target: Option<Name>,
    /// How many classes there are, where labels are classes.
    n_classes: Option<usize>,
}

impl Targets {
    /// For a network on this data; whether labels are needed.
    ///
    /// # Errors
    /// When the data has no labels that are needed, or its columns are not those that the network reads.
    pub(super) fn new(
        data: &Dataset,
        learner: &Learner,
        options: &TrainOptions,
        is_labelled: bool,
    ) -> Result<Targets, TrainError> {
        let columns: Vec<String> = data.inputs().map(|(name, _)| name.to_string()).collect();
        let names: Vec<Name> = learner.inputs().cloned().collect();
        let column = |name: &Name| data.column_for(name, names.len()).to_string();
        let inputs: Vec<(String, Name)> = names.iter().map(|name| (column(name), name.clone())).collect();
        if let Some((column, _)) = inputs.iter().find(|(column, _)| !columns.contains(column)) {
            return Err(TrainError::Task {
                problem: format!("the network reads `{column}`, the data has {}", columns.join(", ")),
                remedy: "name the data's columns after the network's inputs",
            });
        }
        let n_classes = match data.labels() {
            Labels::Classes(names) => Some(names.len()),
            Labels::Numbers(_) | Labels::Flags(_) => None,
            Labels::None if !is_labelled && learner.target().is_none() => None,
            Labels::None => {
                return Err(TrainError::Task {
                    problem: "the data has no labels".to_string(),
                    remedy: "name the column `label`, or say in the data which column it is",
                });
            }
        };
        let n_weights = options.class_weights.as_ref().map(Vec::len);
        if n_weights.is_some_and(|n_weights| Some(n_weights) != n_classes) {
            return Err(TrainError::Option {
                option: "class_weights",
                value: format!("{} numbers", n_weights.unwrap_or(0)),
                range: "as many numbers as there are classes",
            });
        }
        Ok(Targets { inputs, target: learner.target().cloned(), n_classes })
    }

    pub(super) fn n_classes(&self) -> Option<usize> {
        self.n_classes
    }

    /// What the batches of a validation are scored by.
    pub(super) fn score(&self) -> Score {
        self.n_classes.map_or(Score::Loss, |n_classes| Score::Classes(Confusion::new(n_classes, 1)))
    }

    /// Renames the columns and puts the target beside them; the labels stay. The number of samples.
    ///
    /// # Errors
    /// When a column is missing or a label is no class.
    pub(super) fn prepare(&self, batch: &data::Batch, options: &TrainOptions) -> Result<(Batch, usize), TrainError> {
        let missing = |column: &str| TrainError::Task {
            problem: format!("a batch has no `{column}`"),
            remedy: "look at the data's description",
        };
        let mut named = Batch::new();
        for (column, name) in &self.inputs {
            named.insert(name.clone(), batch.get(column).ok_or_else(|| missing(column))?.clone());
        }
        let Some(target) = &self.target else {
            let n_samples = named.values().next().and_then(|tensor| tensor.shape().first()).copied();
            return Ok((named, n_samples.unwrap_or(0)));
        };
        let label = batch.get(LABEL).ok_or_else(|| missing(LABEL))?;
        let n_samples = label.shape().first().copied().unwrap_or(0);
        let value = match (self.n_classes, label.as_slice::<i64>()) {
            (Some(n_classes), Ok(classes)) => distributions(classes, n_classes, options)?,
            // of samples that are mixed
            (Some(n_classes), Err(_)) => {
                let mut rows = label.to_f32s()?.into_owned();
                adjust(&mut rows, n_classes, options);
                Tensor::new(label.shape(), rows)?
            }
            (None, _) => label.clone(),
        };
        named.insert(target.clone(), value);
        Ok((named, n_samples))
    }
}

impl Score {
    /// Adds a batch.
    ///
    /// # Errors
    /// When a label is no class.
    pub(super) fn add(&mut self, batch: &data::Batch, outcome: &Outcome) -> Result<(), TrainError> {
        let (Score::Classes(confusion), Some(labels)) = (self, batch.get(LABEL)) else { return Ok(()) };
        let logits = outcome.prediction.to_f32s()?;
        confusion.add(&logits, labels.as_slice::<i64>()?).map_err(|error| TrainError::Task {
            problem: error.to_string(),
            remedy: "give the network as many outputs as there are classes",
        })
    }

    pub(super) fn metric(&self) -> Option<f64> {
        match self {
            Score::Classes(confusion) => confusion.scores().map(|scores| scores.accuracy),
            Score::Loss => None,
        }
    }
}

/// A distribution a sample: its class, smoothed over all and weighted. One without a label has zeros, and the others count
/// for it.
fn distributions(classes: &[i64], n_classes: usize, options: &TrainOptions) -> Result<Tensor, TrainError> {
    let mut rows = vec![0.0; classes.len() * n_classes];
    for (row, &class) in rows.chunks_mut(n_classes.max(1)).zip(classes).filter(|(_, class)| **class != NO_CLASS) {
        let place = usize::try_from(class).ok().and_then(|class| row.get_mut(class));
        *place.ok_or_else(|| TrainError::Task {
            problem: format!("label {class} is none of {n_classes} classes"),
            remedy: "clean the data's labels",
        })? = 1.0;
    }
    adjust(&mut rows, n_classes, options);
    Ok(Tensor::new(&[classes.len(), n_classes], rows)?)
}

/// Smooths distributions and weights them by their classes; weights have the mean 1 over the batch.
fn adjust(rows: &mut [f32], n_classes: usize, options: &TrainOptions) {
    let other = options.label_smoothing as f32 / n_classes.max(1) as f32;
    let own = 1.0 - options.label_smoothing as f32;
    let n_rows = rows.len().checked_div(n_classes).unwrap_or(0);
    let mut weights = Vec::with_capacity(n_rows);
    for row in rows.chunks_mut(n_classes.max(1)) {
        let is_labelled = row.iter().any(|&part| part > 0.0);
        let of_class = |weights: &Vec<f32>| row.iter().zip(weights).map(|(part, weight)| part * weight).sum();
        weights.push(if is_labelled { options.class_weights.as_ref().map_or(1.0, of_class) } else { 0.0 });
        row.iter_mut().filter(|_| is_labelled).for_each(|part| *part = *part * own + other);
    }
    if weights.iter().any(|&weight| weight != 1.0) {
        let mean = weights.iter().sum::<f32>() / n_rows.max(1) as f32;
        let mean = if mean > 0.0 { mean } else { 1.0 };
        for (row, weight) in rows.chunks_mut(n_classes.max(1)).zip(&weights) {
            row.iter_mut().for_each(|part| *part *= weight / mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_distributions() {
        let check = |classes: &[i64], options: &TrainOptions, expected: &[f32]| {
            let rows = distributions(classes, 2, options).expect("classes");
            assert_eq!(rows.as_slice::<f32>().expect("f32"), expected);
        };
        let plain = TrainOptions::default();
        let smooth = TrainOptions { label_smoothing: 0.5, ..TrainOptions::default() };
        let weighted = TrainOptions { class_weights: Some(vec![1.0, 3.0]), ..TrainOptions::default() };
        check(&[0, 1], &plain, &[1.0, 0.0, 0.0, 1.0]);
        check(&[0, 1], &smooth, &[0.75, 0.25, 0.25, 0.75]);
        check(&[0, 1], &weighted, &[0.5, 0.0, 0.0, 1.5]);
        // the labelled count for those that are not
        check(&[NO_CLASS, 1], &smooth, &[0.0, 0.0, 0.5, 1.5]);
        check(&[NO_CLASS], &plain, &[0.0, 0.0]);
        assert!(distributions(&[2], 2, &plain).is_err());
        let mut mixed = vec![0.5, 0.5, 1.0, 0.0];
        adjust(&mut mixed, 2, &weighted);
        assert_eq!(mixed, [2.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0, 0.0]);
    }
}
