//! Data made of data: with samples that nobody labelled, or of some of the classes.

use std::collections::{HashMap, HashSet};

use super::column::{Column, Values};
use super::dataset::{Dataset, LABEL};
use super::error::DataError;
use super::labels::Labels;
use super::split::Split;
use crate::graph::tensor::Tensor;

/// The label of a sample that has none, where others have classes.
pub const NO_CLASS: i64 = -1;

impl Dataset {
    /// This data and, for training beside it, every sample of other data but those that are validated or tested here too; its
    /// labels are not looked at. Values are normalised as those of this data.
    ///
    /// # Errors
    /// When the other data has not the same inputs, nothing of it is left, or the labels of this data are no classes.
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
            if column.features != theirs.features {
                let [own, other] = [&*column, theirs].map(|it| it.features.join(", "));
                return Err(refuse(format!("has in `{name}`: {other}; the data has: {own}")));
            }
            column.values = appended(column, theirs).ok_or_else(|| {
                let [own, other] =
                    [&*column, theirs].map(|it| format!("{} {:?}", it.values.dtype(), it.sample_shape()));
                refuse(format!("has `{name}` as {other}, where the data has {own}"))
            })?;
        }
        joined.parts.extend(other.parts.iter().cloned());
        let held_out = [Split::Validation, Split::Test].map(|split| self.samples(split)).concat();
        let held_out: HashSet<Vec<&[u8]>> = held_out.iter().map(|&sample| self.input_bytes(sample, self)).collect();
        let is_new = |sample: &&usize| !held_out.contains(&other.input_bytes(**sample, self));
        let mut added: Vec<usize> = other.splits.iter().flatten().filter(is_new).map(|sample| n_own + sample).collect();
        if added.is_empty() {
            return Err(refuse("has no sample that is not validated or tested".to_owned()));
        }
        added.sort_unstable();
        joined.unlabelled.extend(added);
        Ok(joined)
    }

    /// The bytes of a sample's inputs, in the order of the columns of `order`.
    fn input_bytes(&self, sample: usize, order: &Dataset) -> Vec<&[u8]> {
        let own = order.inputs().filter_map(|(name, _)| self.columns.get(name));
        own.map(|column| column.values.sample_bytes(sample)).collect()
    }

    /// The samples to train with that nobody labelled, ascending; they are in no split.
    pub fn unlabelled(&self) -> &[usize] {
        &self.unlabelled
    }

    /// What a specialist for some of the classes sees, named in their order anew. It is validated and tested on the samples of
    /// these classes, and trains with those that `routed` sends it, which gives the class that somebody takes a sample for:
    /// samples of other classes come to it without a label.
    ///
    /// # Errors
    /// When labels are no classes, or no sample is left in a split that has some.
    pub fn for_specialist(&self, classes: &[usize], routed: &HashMap<usize, usize>) -> Result<Dataset, DataError> {
        let refuse = |problem: String| DataError::key("classes", problem);
        let Labels::Classes(names) = &self.labels else {
            return Err(refuse("the data's labels are no classes".to_owned()));
        };
        let kept: Option<Vec<String>> = classes.iter().map(|&class| names.get(class).cloned()).collect();
        let kept = kept.ok_or_else(|| refuse("the data has fewer classes".to_owned()))?;
        let place = |class: Option<usize>| classes.iter().position(|own| Some(*own) == class);
        let label = |sample| place(self.class(sample)).and_then(|idx| i64::try_from(idx).ok()).unwrap_or(NO_CLASS);
        let labels: Vec<i64> = (0..self.n_samples()).map(label).collect();
        let is_sent = |sample: &usize| place(routed.get(sample).copied()).is_some();
        let mut data = self.clone();
        data.labels = Labels::Classes(kept);
        if let Some(column) = data.columns.get_mut(LABEL) {
            column.values = Values::Dense(Tensor::vector(labels));
        }
        data.unlabelled.retain(is_sent);
        for split in [Split::Train, Split::Validation, Split::Calibration, Split::Test] {
            let samples = &mut data.splits[split.idx()];
            let had_some = !samples.is_empty();
            samples.retain(|sample| match split {
                Split::Train => is_sent(sample),
                Split::Validation | Split::Calibration | Split::Test => place(self.class(*sample)).is_some(),
            });
            if had_some && samples.is_empty() {
                return Err(refuse(format!("the {split} split has no sample of them")));
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
