//! Data made of data: with samples that nobody labelled, or of some of the classes.

use std::collections::HashMap;

use super::column::{Column, Values};
use super::dataset::{Dataset, LABEL};
use super::error::DataError;
use super::labels::Labels;
use super::split::Split;
use crate::graph::tensor::Tensor;

/// The label of a sample that has none, where others have classes.
pub const NO_CLASS: i64 = -1;

impl Dataset {
    /// This data and, for training beside it, every sample of other data, whose labels are not looked at. Values are
    /// normalised as those of this data.
    ///
    /// # Errors
    /// When the other data has not the same inputs, or the labels of this data are no classes.
    pub fn with_unlabelled(&self, other: &Dataset) -> Result<Dataset, DataError> {
        let refuse = |problem: String| DataError::Request(format!("the unlabelled data {problem}"));
        if !matches!(self.labels, Labels::Classes(_) | Labels::None) {
            return Err(refuse("goes with labels that are classes".to_owned()));
        }
        if self.vocabulary.is_some() || self.n_tokens != other.n_tokens {
            return Err(refuse("has other numbers for its words; give both the same tokenizer file".to_owned()));
        }
        let mut joined = self.clone();
        let (n_own, n_other) = (self.n_samples(), other.n_samples());
        for (name, column) in &mut joined.columns {
            if name == LABEL {
                column.values = unlabelled(&column.values, n_other)?;
                continue;
            }
            let theirs = other.columns.get(name).ok_or_else(|| refuse(format!("has no `{name}`")))?;
            column.values = appended(column, theirs).ok_or_else(|| {
                let [own, other] =
                    [&*column, theirs].map(|it| format!("{} {:?}", it.values.dtype(), it.sample_shape()));
                refuse(format!("has `{name}` as {other}, where the data has {own}"))
            })?;
        }
        joined.parts.extend(other.parts.iter().cloned());
        let mut added: Vec<usize> = other.splits.iter().flatten().map(|sample| n_own + sample).collect();
        added.sort_unstable();
        joined.unlabelled.extend(added);
        Ok(joined)
    }

    /// The samples to train with that nobody labelled, ascending; they are in no split.
    pub fn unlabelled(&self) -> &[usize] {
        &self.unlabelled
    }

    /// What a specialist for some of the classes sees, named in their order anew. It is validated and tested on the samples of
    /// these classes, and trains with the samples that `routed` sends it, which gives the class that somebody takes a sample for:
    /// those of other classes come to it without a label.
    ///
    /// # Errors
    /// When labels are no classes, or no sample is left in a split that has some.
    pub fn of_classes(&self, classes: &[usize], routed: &HashMap<usize, usize>) -> Result<Dataset, DataError> {
        let refuse = |problem: &str| DataError::key("classes", problem.to_owned());
        let Labels::Classes(names) = &self.labels else { return Err(refuse("the data's labels are no classes")) };
        let of = |class: &usize| names.get(*class).cloned();
        let kept: Option<Vec<String>> = classes.iter().map(of).collect();
        let kept = kept.ok_or_else(|| refuse("the data has fewer classes"))?;
        let place = |class: Option<usize>| classes.iter().position(|own| Some(*own) == class);
        let label = |sample| place(self.class(sample)).and_then(|idx| i64::try_from(idx).ok()).unwrap_or(NO_CLASS);
        let labels: Vec<i64> = (0..self.n_samples()).map(label).collect();
        let mut data = self.clone();
        data.labels = Labels::Classes(kept);
        if let Some(column) = data.columns.get_mut(LABEL) {
            column.values = Values::Dense(Tensor::vector(labels));
        }
        for (idx, splits) in data.splits.iter_mut().enumerate() {
            let had_some = !splits.is_empty();
            splits.retain(|&sample| match idx == Split::Train.idx() {
                true => place(routed.get(&sample).copied()).is_some(),
                false => place(self.class(sample)).is_some(),
            });
            if had_some && splits.is_empty() {
                return Err(refuse("a split has no sample of them"));
            }
        }
        Ok(data)
    }
}

/// Labels and as many without.
fn unlabelled(labels: &Values, n_more: usize) -> Result<Values, DataError> {
    let mut all = match labels {
        Values::Dense(tensor) => tensor.as_slice::<i64>()?.to_vec(),
        Values::Ragged(_) => Vec::new(),
    };
    all.resize(all.len() + n_more, NO_CLASS);
    Ok(Values::Dense(Tensor::vector(all)))
}

/// The values of one column and then of the other; none where they are not alike.
fn appended(own: &Column, other: &Column) -> Option<Values> {
    match (&own.values, &other.values) {
        (Values::Dense(one), Values::Dense(two)) => {
            let joined = Tensor::concat_rows(&[one.clone(), two.clone()]).ok();
            joined.filter(|_| own.kind == other.kind).map(Values::Dense)
        }
        (Values::Ragged(one), Values::Ragged(two)) => {
            let [a, b] = [&own.values, &other.values].map(|values| (values.dtype(), values.sample_shape(0).get(1..)));
            (own.kind == other.kind && a == b).then(|| Values::Ragged([one.as_slice(), two.as_slice()].concat()))
        }
        _ => None,
    }
}
