//! What a teacher says of every sample, computed once and kept: rows of `f16` in a file, by view and sample.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use half::f16;
use indexmap::IndexMap;

use super::DistillError;
use super::objective::TeacherInput;
use crate::data::Loader;
use crate::graph::Name;
use crate::graph::probe::Forward;
use crate::graph::tensor::Tensor;
use crate::learn::train::fit::{Flow, Samples};
use crate::store::rows::{Layout, Rows, Writer};
use crate::store::sha256;

/// What targets depend on.
#[derive(Clone, Debug)]
pub struct Key<'a> {
    /// A hash of the teacher's file, and what runs it.
    pub teacher: &'a str,
    /// A hash of the data.
    pub data: &'a str,
    /// Changes of a sample that are kept.
    pub n_views: u64,
}

/// Targets of every sample that an epoch may have.
#[derive(Clone, Debug)]
pub struct Targets {
    values: Vec<Value>,
    rows: Rows,
    /// By sample: its row in the first view.
    row_of: HashMap<usize, usize>,
    n_samples: usize,
}

/// A value of the teacher as it is kept.
#[derive(Clone, Debug)]
struct Value {
    name: Name,
    /// Of one sample.
    shape: Vec<usize>,
    /// Where its elements begin in a row, and how many they are.
    start: usize,
    n_elements: usize,
}

/// The targets in a file; where it does not hold them they are computed, or those that are missing, and `told` how many rows of
/// how many are done. `loader` makes the batches of the training, `columns` gives the column for each of the teacher's
/// inputs, and `open` the teacher, whose values are those of `inputs` in their order; it is called when there is work.
///
/// # Errors
/// When a value has no fixed shape or numbers that `f16` does not have, or the teacher, the data or the file fails.
pub fn targets(
    path: &Path,
    key: &Key<'_>,
    inputs: &[TeacherInput],
    loader: &Loader,
    columns: &[(String, Name)],
    open: impl FnOnce(&[Name]) -> Result<Box<dyn Forward>, DistillError>,
    mut told: impl FnMut(usize, usize) -> Flow,
) -> Result<Targets, DistillError> {
    let values = values(inputs)?;
    let samples = loader.samples();
    let row_of = samples.iter().enumerate().map(|(row, &sample)| (sample, row)).collect();
    let n_views = usize::try_from(key.n_views).unwrap_or(usize::MAX);
    let layout = layout(key, &values, loader, samples.len().saturating_mul(n_views));
    let n_samples = samples.len();
    if let Some(rows) = Rows::open(path, &layout)? {
        return Ok(Targets { values, rows, row_of, n_samples });
    }
    let names: Vec<Name> = values.iter().map(|value| value.name.clone()).collect();
    let mut teacher = open(&names)?;
    let n_rows = layout.n_rows;
    let mut writer = Writer::begin(path, layout)?;
    while writer.n_done() < n_rows {
        if told(writer.n_done(), n_rows) == Flow::Pause {
            return Err(DistillError::Stopped);
        }
        let (view, n_done) = (writer.n_done() / n_samples, writer.n_done() % n_samples);
        // the same batches whether or not it was taken up in the middle of one
        let from = n_done - n_done % loader.options().batch_size;
        let batch = &samples[from..(from + loader.options().batch_size).min(n_samples)];
        let given = loader.view(batch, view as u64)?;
        let column = |(column, name): &(String, Name)| given.get(column).map(|tensor| (name.clone(), tensor.clone()));
        let feeds: IndexMap<Name, Tensor> = columns.iter().filter_map(column).collect();
        let made = rows(&values, &teacher.forward(&feeds)?, batch.len())?;
        writer.push(&made[(n_done - from) * made.len() / batch.len()..])?;
    }
    let _ = told(n_rows, n_rows);
    Ok(Targets { values, rows: writer.finish()?, row_of, n_samples })
}

impl Targets {
    /// What the teacher says of these samples, by the name of its value.
    ///
    /// # Errors
    /// When one of them is not of the training split.
    pub fn of(&self, samples: Samples<'_>) -> Result<BTreeMap<&Name, Tensor>, DistillError> {
        let mut of = BTreeMap::new();
        for value in &self.values {
            let mut elements = Vec::with_capacity(samples.ids.len() * value.n_elements);
            for id in samples.ids {
                let view = usize::try_from(samples.view).unwrap_or(usize::MAX);
                let row = self.row_of.get(id).and_then(|row| view.checked_mul(self.n_samples)?.checked_add(*row));
                let row = row.and_then(|row| self.rows.row(row)).ok_or_else(|| DistillError::Target {
                    value: value.name.clone(),
                    problem: format!("sample {id} in view {} was not kept", samples.view),
                    remedy: "keep as many views as the training has",
                })?;
                let bytes = &row[2 * value.start..2 * (value.start + value.n_elements)];
                let pairs = bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32());
                elements.extend(pairs);
            }
            let shape = [&[samples.ids.len()], value.shape.as_slice()].concat();
            of.insert(&value.name, Tensor::new(&shape, elements)?);
        }
        Ok(of)
    }
}

fn values(inputs: &[TeacherInput]) -> Result<Vec<Value>, DistillError> {
    let mut start = 0;
    let value = |input: &TeacherInput| {
        let dims = input.tensor_type.shape.as_deref().unwrap_or_default();
        let shape: Option<Vec<usize>> = dims.iter().skip(1).map(|dim| dim.known()).collect();
        let shape = shape.filter(|_| !dims.is_empty()).ok_or_else(|| DistillError::Target {
            value: input.value.clone(),
            problem: format!("it is {}, of several lengths", input.tensor_type),
            remedy: "pad the data to one length, or do not keep targets",
        })?;
        let n_elements = shape.iter().product();
        let value = Value { name: input.value.clone(), shape, start, n_elements };
        start += n_elements;
        Ok(value)
    };
    inputs.iter().map(value).collect()
}

fn layout(key: &Key<'_>, values: &[Value], loader: &Loader, n_rows: usize) -> Layout {
    let options = loader.options();
    let names: Vec<String> = values.iter().map(|value| format!("{} {:?}", value.name, value.shape)).collect();
    // what changes a sample, in words: they differ where the options do
    let length = (options.length, loader.longest());
    let view = format!("{:?} {} {length:?} {}", options.augment, options.seed, options.batch_size);
    let all = [key.teacher, key.data, &key.n_views.to_string(), &view, &names.join("\n")].join("\n");
    let n_elements: usize = values.iter().map(|value| value.n_elements).sum();
    Layout { header: format!("targets of {}", sha256(all.as_bytes())), row_bytes: 2 * n_elements, n_rows }
}

/// The bytes of a batch's rows.
fn rows(values: &[Value], given: &[Tensor], n_samples: usize) -> Result<Vec<u8>, DistillError> {
    let n_elements: usize = values.iter().map(|value| value.n_elements).sum();
    let mut rows = vec![0u8; n_samples * 2 * n_elements];
    for (idx, value) in values.iter().enumerate() {
        let refused = |problem: String, remedy| DistillError::Target { value: value.name.clone(), problem, remedy };
        let tensor = given.get(idx).ok_or_else(|| refused("the teacher did not give it".to_string(), "look at it"))?;
        let numbers = tensor.to_f32s()?;
        if numbers.len() != n_samples * value.n_elements {
            let problem = format!("it has the shape {:?} for {n_samples} samples", tensor.shape());
            return Err(refused(problem, "give a teacher whose values have a row a sample"));
        }
        for (row, numbers) in numbers.chunks_exact(value.n_elements.max(1)).enumerate() {
            let start = 2 * (row * n_elements + value.start);
            let places = rows[start..start + 2 * value.n_elements].chunks_exact_mut(2);
            for (place, &number) in places.zip(numbers) {
                let narrow = f16::from_f32(number);
                if !narrow.is_finite() {
                    return Err(refused(
                        format!("it has the number {number}"),
                        "take another of its values, or scale it",
                    ));
                }
                place.copy_from_slice(&narrow.to_le_bytes());
            }
        }
    }
    Ok(rows)
}
