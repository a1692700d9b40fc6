//! The samples that a network is looked at with, a batch at a time.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;

use super::probe::columns;
use super::{RecipeError, normalization};
use crate::compress::quantize::Ranges;
use crate::data::{Dataset, Split, npz};
use crate::graph::shape::Types;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Model, Name};

/// Where the samples of a calibration come from.
#[derive(Clone, Debug)]
pub enum Samples {
    /// An archive of arrays named after the network's inputs, or `x` for a single one; read as it is needed.
    Archive(PathBuf),
    /// The calibration split of a data set; its training split where it has none.
    Dataset(Arc<Dataset>),
    /// Batches of the network's inputs.
    Batches(Vec<IndexMap<Name, Tensor>>),
    /// What a calibration before has seen.
    Ranges(Box<Ranges>),
}

/// What samples are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To see ranges: the calibration split of a data set, or else its training split.
    Calibrate,
    /// To see how good a network is: the validation split, or else what it is calibrated with.
    Judge,
}

impl Purpose {
    /// So many samples of a data set, lying evenly in it: files often hold one class after the other.
    fn choose(self, data: &Dataset, n_samples: impl Fn(usize) -> usize) -> Vec<usize> {
        let splits = match self {
            Purpose::Calibrate => &[Split::Calibration, Split::Train][..],
            Purpose::Judge => &[Split::Validation, Split::Calibration, Split::Train],
        };
        let all = splits.iter().map(|&split| data.samples(split)).find(|samples| !samples.is_empty());
        let all = all.unwrap_or_default();
        let n = n_samples(all.len());
        (0..n).map(|place| all[place * all.len() / n]).collect()
    }
}

/// The array of an archive that holds the class of each sample.
const LABEL: &str = "label";

/// How many samples make a batch: the only size that a network takes, or as many as keep what is looked at within some megabytes.
pub(super) struct BatchSize {
    pub(super) n_samples: usize,
    /// Whether it takes no other: what fills up an incomplete batch would be looked at, too.
    pub(super) is_fixed: bool,
}

impl BatchSize {
    pub(super) fn of(model: &Model, types: &Types, values: &[Name]) -> BatchSize {
        const MOST: usize = 32;
        const MOST_BYTES: usize = 8 << 20;
        let first = model.graph.inputs.first().and_then(|input| input.tensor_type()?.shape.as_ref()?.first().cloned());
        if let Some(Dim::Known(size)) = first {
            return BatchSize { n_samples: size.max(1), is_fixed: true };
        }
        let bytes = row_bytes(types, values);
        BatchSize { n_samples: (MOST_BYTES / bytes.max(1)).clamp(1, MOST), is_fixed: false }
    }

    /// How many of so many samples are run: whole batches where it takes no others, and at least one.
    fn run_of(&self, n_samples: usize) -> usize {
        match self.is_fixed && n_samples >= self.n_samples {
            true => n_samples / self.n_samples * self.n_samples,
            false => n_samples,
        }
    }
}

/// Tokens or pixels, where their number is open: enough to keep a kernel busy.
pub(super) const USUAL_SIZE: usize = 64;

/// The bytes of a sample of these values as `f32`.
pub(super) fn row_bytes(types: &Types, values: &[Name]) -> usize {
    let bytes = |name: &Name| {
        let dims = types.tensor(name).and_then(|known| known.shape.clone()).unwrap_or_default();
        let row = dims.iter().skip(1).map(|dim| dim.known().unwrap_or(USUAL_SIZE));
        row.fold(4usize, |bytes, size| bytes.saturating_mul(size))
    };
    values.iter().map(bytes).fold(0usize, usize::saturating_add)
}

/// Batches of a network's inputs.
pub(super) type Batches<'a> = Box<dyn Iterator<Item = Result<IndexMap<Name, Tensor>, RecipeError>> + 'a>;

/// So many samples, a batch at a time: the first of an archive, of a data set some that lie evenly in it.
pub(super) fn batches<'a>(
    model: &'a Model,
    samples: &Samples,
    purpose: Purpose,
    n_samples: usize,
    size: &BatchSize,
) -> Result<Batches<'a>, RecipeError> {
    match samples {
        Samples::Archive(path) => {
            let inputs: Vec<Name> = model.graph.inputs.iter().map(|input| input.name.clone()).collect();
            let headers = npz::headers(path)?;
            let has = |name: &str| headers.iter().any(|header| header.name == name);
            let array = |input: &Name| match &inputs[..] {
                [_] if !has(input) => "x".to_string(),
                _ => input.to_string(),
            };
            let arrays: Vec<String> = inputs.iter().map(array).collect();
            let n_rows = headers.iter().find(|header| arrays.first() == Some(&header.name));
            let n_rows = n_rows.and_then(|header| header.shape.first().copied()).unwrap_or(0);
            let rows = npz::rows(path, &arrays, size.n_samples, size.run_of(n_rows.min(n_samples)))?;
            let batch = move |batch: Vec<(String, Tensor)>| {
                inputs.iter().cloned().zip(batch.into_iter().map(|(_, tensor)| tensor)).collect()
            };
            Ok(Box::new(rows.map(move |rows| Ok(batch(rows?)))))
        }
        Samples::Dataset(data) => {
            let data = normalization::data_for(model, data)?;
            let chosen = purpose.choose(&data, |n_all| size.run_of(n_samples.min(n_all)));
            let (columns, n_batch) = (columns(model, &data), size.n_samples);
            let starts = (0..chosen.len()).step_by(n_batch);
            Ok(Box::new(starts.map(move |start| {
                let batch = data.batch(&chosen[start..(start + n_batch).min(chosen.len())])?;
                let column = |(column, name): &(String, Name)| {
                    let problem = format!("has no column `{column}`");
                    let missing = || RecipeError::Part { part: "data".to_string(), problem };
                    Ok((name.clone(), batch.get(column).ok_or_else(missing)?.clone()))
                };
                columns.iter().map(column).collect()
            })))
        }
        Samples::Batches(batches) => Ok(Box::new(batches.clone().into_iter().map(Ok))),
        Samples::Ranges(_) => Ok(Box::new(std::iter::empty())),
    }
}

/// The class of each of the samples that [`batches`] gives; none where they have no classes.
pub(super) fn labels(
    model: &Model,
    samples: &Samples,
    purpose: Purpose,
    n_samples: usize,
    size: &BatchSize,
) -> Result<Option<Vec<usize>>, RecipeError> {
    match samples {
        Samples::Archive(path) => {
            let headers = npz::headers(path)?;
            let Some(header) = headers.iter().find(|header| header.name == LABEL) else { return Ok(None) };
            let n_labels = header.shape.first().copied().unwrap_or(0);
            let is_input =
                |name: &str| name == "x" || model.graph.inputs.iter().any(|input| input.name.as_str() == name);
            let n_rows = headers.iter().find(|header| is_input(&header.name)).and_then(|header| header.shape.first());
            if let Some(n_rows) = n_rows.filter(|n_rows| **n_rows != n_labels) {
                let problem = format!("has {n_labels} classes for {n_rows} samples in {}", path.display());
                return Err(RecipeError::Part { part: LABEL.to_string(), problem });
            }
            let n = size.run_of(n_labels.min(n_samples));
            let mut labels = Vec::with_capacity(n);
            for rows in npz::rows(path, &[LABEL.to_string()], n, n)? {
                for (_, tensor) in rows? {
                    let wrong = |problem: String| RecipeError::Part { part: LABEL.to_string(), problem };
                    let classes = match tensor.dtype() {
                        DType::U8 => tensor.to_vec::<u8>().map(|classes| classes.into_iter().map(i64::from).collect()),
                        DType::I32 => {
                            tensor.to_vec::<i32>().map(|classes| classes.into_iter().map(i64::from).collect())
                        }
                        _ => tensor.to_vec::<i64>(),
                    };
                    let dtypes = |_| wrong(format!("is {}, not classes as i64, i32 or u8", tensor.dtype()));
                    for class in classes.map_err(dtypes)? {
                        labels.push(usize::try_from(class).map_err(|_| wrong(format!("holds {class}, no class")))?);
                    }
                }
            }
            Ok(Some(labels))
        }
        Samples::Dataset(data) => {
            let chosen = purpose.choose(data, |n_all| size.run_of(n_samples.min(n_all)));
            Ok(chosen.into_iter().map(|sample| data.class(sample)).collect())
        }
        Samples::Batches(_) | Samples::Ranges(_) => Ok(None),
    }
}
