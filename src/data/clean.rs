//! Samples and columns that are better left out, and what was found.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::{Hash as _, Hasher as _};

use super::column::{Column, Kind, Values, as_numbers};
use super::error::DataError;
use super::samples::{Part, place};
use crate::graph::tensor::{DType, Tensor};

/// What is looked for and left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Clean {
    /// Samples with the same inputs as another; that of the test is kept, then that of validation, calibration, training.
    Duplicates,
    /// Samples with a number that is not finite.
    Nan,
    /// Columns of a table with the same number in every training sample.
    ConstantColumns,
    /// Samples whose label is none of the classes.
    Labels,
}

/// What was found in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// A sample is left out: its inputs are those of another.
    Duplicate,
    /// A sample is left out: it holds a number that is not finite.
    Nan,
    /// A column is left out: it holds one number only.
    ConstantColumn,
    /// A sample is left out: its label is none of the classes.
    Label,
    /// A category does not occur in training; its flags are all zero.
    UnseenCategory,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What.
    pub found: Found,
    /// File and row, or the column.
    pub place: String,
    /// The particulars.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.detail)
    }
}

/// All that was found, in the order of the samples for each kind.
pub type Findings = Vec<Finding>;

/// Which samples are left out, and why.
pub(super) struct Cleaning<'a> {
    pub(super) parts: &'a [Part],
    pub(super) wanted: &'a [Clean],
    pub(super) is_left_out: Vec<bool>,
    pub(super) findings: Findings,
}

impl Cleaning<'_> {
    fn leave_out(&mut self, found: Found, sample: usize, detail: String) {
        if let Some(is_left_out) = self.is_left_out.get_mut(sample) {
            *is_left_out = true;
        }
        self.findings.push(Finding { found, place: place(self.parts, sample), detail });
    }

    /// Keeps samples with a category that training does not have.
    pub(super) fn unseen_categories(&mut self, unseen: Vec<(usize, String)>) {
        for (sample, detail) in unseen {
            self.findings.push(Finding { found: Found::UnseenCategory, place: place(self.parts, sample), detail });
        }
    }

    /// Leaves out samples whose label is wrong; where that is not wanted, the first is an error.
    pub(super) fn labels(&mut self, wrong: Vec<(usize, String)>) -> Result<(), DataError> {
        for (sample, problem) in wrong {
            if !self.wanted.contains(&Clean::Labels) {
                let remedy = "mend it, declare `classes`, or leave such samples out with clean = [\"labels\"]";
                return Err(DataError::Row {
                    place: place(self.parts, sample),
                    problem: format!("{problem}; {remedy}"),
                });
            }
            self.leave_out(Found::Label, sample, problem);
        }
        Ok(())
    }

    /// Leaves out samples with a number that is not finite; where that is not wanted, the first is an error.
    pub(super) fn not_finite(&mut self, name: &str, column: &Column) -> Result<(), DataError> {
        if !matches!(column.kind, Kind::Numbers { .. }) || !column.values.dtype().is_float() {
            return Ok(());
        }
        let values = match &column.values {
            Values::Dense(tensor) => as_numbers(tensor).map(Values::Dense),
            Values::Ragged(_) => Some(column.values.clone()),
        };
        let Some(values) = values else { return Ok(()) };
        for sample in 0..values.n_samples() {
            let elements = values.sample::<f32>(sample)?;
            let Some(idx) = elements.iter().position(|x| !x.is_finite()) else { continue };
            let problem = format!("element {idx} of `{name}` is missing or no finite number");
            if !self.wanted.contains(&Clean::Nan) {
                let remedy = "mend it, or leave such samples out with clean = [\"nan\"]";
                return Err(DataError::Row {
                    place: place(self.parts, sample),
                    problem: format!("{problem}; {remedy}"),
                });
            }
            self.leave_out(Found::Nan, sample, problem);
        }
        Ok(())
    }

    /// Leaves out every sample whose inputs came before, in this order of samples.
    pub(super) fn duplicates<'c>(
        &mut self,
        columns: &(impl Iterator<Item = &'c Column> + Clone),
        label: Option<&Tensor>,
        order: impl Iterator<Item = usize>,
    ) {
        let label = label.map(|tensor| Values::Dense(tensor.clone()));
        let mut kept: HashMap<u64, Vec<usize>> = HashMap::new();
        for sample in order {
            if self.is_left_out.get(sample).copied().unwrap_or(true) {
                continue;
            }
            let mut hasher = DefaultHasher::new();
            columns.clone().for_each(|column| column.values.sample_bytes(sample).hash(&mut hasher));
            let alike = kept.entry(hasher.finish()).or_default();
            let same = |&&other: &&usize| {
                columns.clone().all(|column| {
                    let values = &column.values;
                    values.sample_shape(sample) == values.sample_shape(other)
                        && values.sample_bytes(sample) == values.sample_bytes(other)
                })
            };
            let Some(&other) = alike.iter().find(same) else {
                alike.push(sample);
                continue;
            };
            let agrees = label.as_ref().is_none_or(|label| label.sample_bytes(sample) == label.sample_bytes(other));
            let and_label = if agrees { "" } else { ", but another label" };
            let detail = format!("has the inputs of {}{and_label}", place(self.parts, other));
            self.leave_out(Found::Duplicate, sample, detail);
        }
    }

    /// Takes columns that hold one number in all training samples out of a table.
    pub(super) fn constant_columns(
        &mut self,
        name: &str,
        column: &mut Column,
        training: &[usize],
    ) -> Result<(), DataError> {
        let Values::Dense(tensor) = &column.values else { return Ok(()) };
        let (&[n_samples, width], DType::F32, Some(&first)) = (tensor.shape(), tensor.dtype(), training.first()) else {
            return Ok(());
        };
        let model = column.values.sample::<f32>(first)?.to_vec();
        let mut changes = vec![false; width];
        for &sample in training {
            for ((changes, x), y) in changes.iter_mut().zip(column.values.sample::<f32>(sample)?).zip(&model) {
                *changes |= x != y;
            }
        }
        for (idx, x) in model.iter().enumerate().filter(|(idx, _)| changes.get(*idx) == Some(&false)) {
            let detail = format!("is {x} in every training sample");
            self.findings.push(Finding {
                found: Found::ConstantColumn,
                place: format!("column {idx} of `{name}`"),
                detail,
            });
        }
        let n_kept = changes.iter().filter(|&&changes| changes).count();
        if n_kept < width {
            let elements = tensor.as_slice::<f32>()?.chunks(width.max(1));
            let kept =
                elements.flat_map(|row| row.iter().zip(&changes).filter(|(_, changes)| **changes).map(|(x, _)| *x));
            column.values = Values::Dense(Tensor::new(&[n_samples, n_kept], kept.collect())?);
            let mut is_kept = changes.iter().copied();
            column.features.retain(|_| is_kept.next().unwrap_or(true));
        }
        Ok(())
    }
}
