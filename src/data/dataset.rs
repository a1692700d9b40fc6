//! Data, read whole: columns, labels and splits, and what was found on the way.

use std::path::Path;

use indexmap::IndexMap;

use super::clean::{Clean, Cleaning, Findings};
use super::column::{Column, Kind, Normalization, Values};
use super::descriptor::Descriptor;
use super::error::DataError;
use super::labels::{self, Labels};
use super::normalize;
use super::samples::{Part, Samples, place};
use super::split::{Split, divide};
use crate::graph::tensor::{Tensor, n_elements};

/// Tensors by name, a row a sample: inputs by the names that they have in the data, then `label` where there is one.
pub type Batch = IndexMap<String, Tensor>;

/// The name of the column with the labels.
pub const LABEL: &str = "label";

/// Named columns of as many samples each, divided into splits.
#[derive(Clone, Debug)]
pub struct Dataset {
    pub(super) columns: IndexMap<String, Column>,
    pub(super) labels: Labels,
    pub(super) splits: [Vec<usize>; 4],
    /// Samples of no split to train with beside those of the training split.
    pub(super) unlabelled: Vec<usize>,
    pub(super) parts: Vec<Part>,
    findings: Findings,
    pub(super) n_tokens: Option<usize>,
    pub(super) vocabulary: Option<Vec<String>>,
}

impl Dataset {
    /// The data that a file describes (`.toml`) or is (`.npz`).
    ///
    /// # Errors
    /// When it is neither, and when something is wrong with it or with the files it names.
    pub fn open(path: &Path) -> Result<Dataset, DataError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Dataset::load(&Descriptor::read(path)?),
            Some("npz") => Dataset::load(&Descriptor::npz(path)),
            _ => Err(DataError::file(path, "is neither a data descriptor (.toml) nor an archive of arrays (.npz)")),
        }
    }

    /// Reads what is described: all of it, once.
    ///
    /// # Errors
    /// When something is wrong with the files or they do not fit the description.
    pub fn load(descriptor: &Descriptor) -> Result<Dataset, DataError> {
        let samples = descriptor.source.read(descriptor)?;
        assemble(samples, descriptor)
    }

    /// A hash of every sample and of its split, as batches have them before anything is changed.
    ///
    /// # Errors
    /// None that reading did not have.
    pub fn sha256(&self) -> Result<String, DataError> {
        let mut hashes = format!("{:?} {:?}\n", self.labels, self.n_tokens);
        let unlabelled = Some(&self.unlabelled).filter(|samples| !samples.is_empty());
        for samples in self.splits.iter().chain(unlabelled) {
            for samples in samples.chunks(1 << 10) {
                // changes of a sample depend on its number
                hashes.push_str(&format!("{samples:?}\n"));
                for (name, column) in self.batch(samples)? {
                    let hash = match column.bytes() {
                        Some(bytes) => crate::store::sha256(bytes),
                        None => crate::store::sha256(format!("{column:?}").as_bytes()),
                    };
                    hashes.push_str(&format!("{name} {:?} {hash}\n", column.shape()));
                }
            }
            hashes.push('\n');
        }
        Ok(crate::store::sha256(hashes.as_bytes()))
    }

    /// Every column by name, `label` last where there is one.
    pub fn columns(&self) -> &IndexMap<String, Column> {
        &self.columns
    }

    /// The columns that are no labels.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &Column)> {
        self.columns.iter().filter(|(name, _)| *name != LABEL).map(|(name, column)| (name.as_str(), column))
    }

    /// The column for a network's input: the one of its name, or the only one for the only input.
    pub fn column_for<'a>(&'a self, input: &'a str, n_inputs: usize) -> &'a str {
        let mut columns = self.inputs().map(|(name, _)| name);
        match (columns.next(), columns.next()) {
            (Some(column), None) if n_inputs == 1 => column,
            _ => input,
        }
    }

    /// What the column `label` holds.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The names of the classes; none where labels are no classes.
    pub fn classes(&self) -> &[String] {
        match &self.labels {
            Labels::Classes(names) => names,
            Labels::None | Labels::Numbers(_) | Labels::Flags(_) => &[],
        }
    }

    /// The class of a sample; none where labels are no classes, or it has none.
    pub fn class(&self, sample: usize) -> Option<usize> {
        if self.classes().is_empty() {
            return None;
        }
        let ids = self.columns.get(LABEL)?.values().sample::<i64>(sample).ok()?;
        usize::try_from(*ids.first()?).ok()
    }

    /// How many samples of each class a split has.
    pub fn class_counts(&self, split: Split) -> Vec<usize> {
        let mut counts = vec![0; self.classes().len()];
        for class in self.samples(split).iter().filter_map(|&sample| self.class(sample)) {
            if let Some(count) = counts.get_mut(class) {
                *count += 1;
            }
        }
        counts
    }

    /// The samples of a split, ascending. Samples are numbered over all files; those left out are in no split.
    pub fn samples(&self, split: Split) -> &[usize] {
        &self.splits[split.idx()]
    }

    /// The same data with raw values in the batches of an input, for a network that normalises it itself, and so.
    /// Augmentation goes on to change what is normalised, and samples are padded with what the network makes zero.
    ///
    /// # Errors
    /// When there is no such input, it holds no quantities, or has other channels.
    pub fn with_raw(&self, input: &str, normalization: Normalization) -> Result<Dataset, DataError> {
        let mut data = self.clone();
        let column = data.columns.get_mut(input).filter(|_| input != LABEL);
        let column = column.ok_or_else(|| DataError::Request(format!("the data has no input `{input}`")))?;
        normalize::leave_raw(input, column, normalization, self.samples(Split::Train))?;
        Ok(data)
    }

    /// The number of samples read, those left out included.
    pub fn n_samples(&self) -> usize {
        self.parts.iter().map(|part| part.n_samples).sum()
    }

    /// What was found while cleaning.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// How many numbers there are for tokens, every one of them less; none without text.
    pub fn n_tokens(&self) -> Option<usize> {
        self.n_tokens
    }

    /// The words whose numbers are in the tokens, in the order of the numbers; none without a built vocabulary.
    pub fn vocabulary(&self) -> Option<&[String]> {
        self.vocabulary.as_deref()
    }

    /// The file of a sample and its place there.
    pub fn origin(&self, sample: usize) -> String {
        place(&self.parts, sample)
    }

    /// These samples as they are, normalised; columns of several lengths are padded to the longest.
    ///
    /// # Errors
    /// When there is no such sample.
    pub fn batch(&self, samples: &[usize]) -> Result<Batch, DataError> {
        super::loader::gather(self, samples, None)
    }
}

/// Makes data of samples as they were read.
fn assemble(samples: Samples, descriptor: &Descriptor) -> Result<Dataset, DataError> {
    let Samples { mut columns, labels: raw, parts, unseen } = samples;
    check_lengths(&columns, &parts)?;
    let n_samples: usize = parts.iter().map(|part| part.n_samples).sum();
    let n_training: usize = parts.iter().take_while(|part| part.split == Split::Train).map(|part| part.n_samples).sum();
    let encoded = raw.map(|raw| labels::encode(&raw, descriptor.classes.as_deref(), n_training)).transpose()?;
    let mut cleaning = Cleaning {
        parts: &parts,
        wanted: &descriptor.clean,
        is_left_out: vec![false; n_samples],
        findings: Findings::new(),
    };
    cleaning.unseen_categories(unseen);
    let (labels, label) = match encoded {
        Some(encoded) => {
            cleaning.labels(encoded.wrong)?;
            (encoded.labels, Some(encoded.tensor))
        }
        None => (Labels::None, None),
    };
    for (name, column) in &columns {
        cleaning.not_finite(name, column)?;
    }
    if descriptor.clean.contains(&Clean::Duplicates) {
        let order = [Split::Test, Split::Validation, Split::Calibration, Split::Train];
        let order = order.into_iter().flat_map(|split| samples_of(&parts, split));
        cleaning.duplicates(&columns.values(), label.as_ref(), order);
    }
    let splits = splits(&parts, &cleaning.is_left_out, label.as_ref().filter(|_| is_classes(&labels)), descriptor);
    let training = &splits[Split::Train.idx()];
    if training.is_empty() {
        return Err(DataError::Request(format!("no sample is left for training, of {n_samples} that were read")));
    }
    if descriptor.clean.contains(&Clean::ConstantColumns) {
        for (name, column) in &mut columns {
            cleaning.constant_columns(name, column, training)?;
        }
    }
    let tokens = descriptor.source.tokenize(&mut columns, training, descriptor.input.as_deref())?;
    let (n_tokens, vocabulary) = tokens.map_or((None, None), |known| (Some(known.n_tokens), known.vocabulary));
    for (name, column) in &mut columns {
        normalize::measure(name, column, descriptor.normalize, training)?;
    }
    reshape(&mut columns, descriptor)?;
    let findings = cleaning.findings;
    if let Some(tensor) = label {
        columns.insert(LABEL.to_owned(), Column::new(Values::Dense(tensor), Kind::Codes { pad: 0 }));
    }
    Ok(Dataset { columns, labels, splits, unlabelled: Vec::new(), parts, findings, n_tokens, vocabulary })
}

fn is_classes(labels: &Labels) -> bool {
    matches!(labels, Labels::Classes(_))
}

fn check_lengths(columns: &IndexMap<String, Column>, parts: &[Part]) -> Result<(), DataError> {
    let n_samples: usize = parts.iter().map(|part| part.n_samples).sum();
    match columns.iter().find(|(_, column)| column.values.n_samples() != n_samples) {
        None if columns.is_empty() => Err(DataError::Request("the data has no input".to_owned())),
        None => Ok(()),
        Some((name, column)) => Err(DataError::Request(format!(
            "`{name}` has {} samples where there are {n_samples}",
            column.values.n_samples()
        ))),
    }
}

/// The samples that a split's own files hold.
fn samples_of(parts: &[Part], split: Split) -> Vec<usize> {
    let mut start = 0;
    let mut samples = Vec::new();
    for part in parts {
        let end = start + part.n_samples;
        if part.split == split {
            samples.extend(start..end);
        }
        start = end;
    }
    samples
}

fn splits(parts: &[Part], is_left_out: &[bool], classes: Option<&Tensor>, descriptor: &Descriptor) -> [Vec<usize>; 4] {
    let kept = |split| {
        let mut samples = samples_of(parts, split);
        samples.retain(|&sample| is_left_out.get(sample) == Some(&false));
        samples
    };
    let ids = classes.filter(|_| descriptor.split.stratified).and_then(|tensor| tensor.as_slice::<i64>().ok());
    let stratum = |sample: usize| ids.and_then(|ids| ids.get(sample).copied()).unwrap_or(0);
    let mut splits = divide(&kept(Split::Train), stratum, &descriptor.split);
    for split in [Split::Validation, Split::Calibration, Split::Test] {
        let own = kept(split);
        if !own.is_empty() {
            splits[split.idx()] = own;
        }
    }
    splits
}

/// Gives the only input of quantities the shape that is wanted in batches.
fn reshape(columns: &mut IndexMap<String, Column>, descriptor: &Descriptor) -> Result<(), DataError> {
    let Some(shape) = &descriptor.shape else { return Ok(()) };
    let mut inputs = columns.values_mut();
    let (Some(column), None) = (inputs.next(), inputs.next()) else {
        return Err(DataError::key("shape", "there is more than one input; leave it out"));
    };
    let own = column.values.sample_shape(0);
    if matches!(column.values, Values::Ragged(_)) || n_elements(shape) != n_elements(own) {
        let problem = format!("a sample has the shape {own:?}, which {shape:?} cannot be made of");
        return Err(DataError::key("shape", problem));
    }
    column.shape = Some(shape.clone());
    Ok(())
}
