//! The kinds of data that a descriptor can name, each with its own keys.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::cifar::{self, LabelByte};
use super::column::{Column, Kind, Values, as_numbers};
use super::descriptor::{Descriptor, KINDS, Keys};
use super::error::DataError;
use super::images::Images;
use super::labels::Raw;
use super::samples::{Part, Places, Samples, join};
use super::split::Split;
use super::table::{TEXT, Table};
use super::wav::Wav;
use super::{digits, idx, npz, series, text};
use crate::graph::tensor::{DType, Tensor};

/// What is read, and how.
#[derive(Clone, Debug)]
pub enum Source {
    /// `idx`: arrays in the format of MNIST.
    Idx {
        /// inputs and labels of each split
        files: Vec<(Split, IdxFiles)>,
    },
    /// `npz`: NumPy's arrays, those of whole numbers given on as they are.
    Npz {
        /// the archives, or single arrays by name
        files: Vec<(Split, Arrays)>,
        /// the array with the labels
        label: String,
    },
    /// `csv`, `text`: tables.
    Table(Table),
    /// `cifar`: CIFAR's binary layout.
    Cifar {
        /// the records of each split
        files: Vec<(Split, PathBuf)>,
        /// which byte is the label
        label_byte: LabelByte,
    },
    /// `images`: PNG and JPEG.
    Images(Images),
    /// `wav`: recordings.
    Wav(Wav),
    /// `ts`: the text format of the UCR and UEA archives.
    Series {
        /// the cases of each split
        files: Vec<(Split, PathBuf)>,
    },
    /// `digits`: 1,797 pictures of handwritten digits that come with aludel.
    Digits,
}

/// The IDX files of a split.
#[derive(Clone, Debug)]
pub struct IdxFiles {
    /// An array with a row a sample.
    pub inputs: PathBuf,
    /// An array with a class a sample.
    pub labels: Option<PathBuf>,
}

/// NumPy's arrays of a split.
#[derive(Clone, Debug)]
pub enum Arrays {
    /// All arrays of an archive.
    Archive(PathBuf),
    /// A file each.
    Files(IndexMap<String, PathBuf>),
}

impl Source {
    pub(super) fn from_keys(kind: &str, keys: &mut Keys) -> Result<Source, DataError> {
        Ok(match kind {
            "idx" => Source::Idx { files: idx_files(keys)? },
            "npz" => {
                Source::Npz { files: arrays(keys)?, label: keys.take("label")?.unwrap_or_else(|| super::LABEL.into()) }
            }
            "csv" | "text" => Source::Table(Table::from_keys(kind, keys)?),
            "cifar" => Source::Cifar { files: keys.paths()?, label_byte: keys.take("label_byte")?.unwrap_or_default() },
            "images" => Source::Images(Images::from_keys(keys)?),
            "wav" => Source::Wav(Wav::from_keys(keys)?),
            "ts" => Source::Series { files: keys.paths()? },
            "digits" => Source::Digits,
            _ => return Err(DataError::key("kind", format!("`{kind}` is none; give {KINDS}"))),
        })
    }

    pub(super) fn npz(path: &Path) -> Source {
        let files = vec![(Split::Train, Arrays::Archive(path.to_owned()))];
        Source::Npz { files, label: super::LABEL.to_owned() }
    }

    /// The splits that have files of their own.
    pub(super) fn splits(&self) -> Vec<Split> {
        match self {
            Source::Idx { files } => files.iter().map(|file| file.0).collect(),
            Source::Npz { files, .. } => files.iter().map(|file| file.0).collect(),
            Source::Cifar { files, .. } => files.iter().map(|file| file.0).collect(),
            Source::Table(table) => table.files.iter().map(|file| file.0).collect(),
            Source::Images(Images { tree, .. }) | Source::Wav(Wav { tree, .. }) => {
                tree.splits.iter().map(|split| split.0).collect()
            }
            Source::Series { files } => files.iter().map(|file| file.0).collect(),
            Source::Digits => vec![Split::Train],
        }
    }

    pub(super) fn read(&self, descriptor: &Descriptor) -> Result<Samples, DataError> {
        let input = descriptor.input.as_deref().unwrap_or("x");
        match self {
            Source::Idx { files } => join(each(files, |split, files| read_idx(split, files, input))?),
            Source::Npz { files, label } => join(each(files, |split, files| read_arrays(split, files, label))?),
            Source::Table(table) => table.read(descriptor),
            Source::Cifar { files, label_byte } => join(each(files, |split, path| {
                let (pictures, labels) = cifar::read(path, *label_byte)?;
                Ok(one_file(path, split, input, pictures, Some(Raw::Ids(labels))))
            })?),
            Source::Images(images) => images.read(input),
            Source::Wav(wav) => wav.read(input),
            Source::Series { files } => series::read(files, input),
            Source::Digits => digits::read(input),
        }
    }

    /// Cuts text into tokens: what there is of them beside the columns, which are added; none where there is no text.
    pub(super) fn tokenize(
        &self,
        columns: &mut IndexMap<String, Column>,
        training: &[usize],
        input: Option<&str>,
    ) -> Result<Option<text::Known>, DataError> {
        let Source::Table(table) = self else { return Ok(None) };
        let Some(column) = columns.shift_remove(TEXT) else { return Ok(None) };
        let Values::Dense(texts) = &column.values else { return Ok(None) };
        let tokens = table.tokens.as_ref().ok_or_else(text::missing)?;
        let input = input.unwrap_or("input_ids");
        let encoded = tokens.encode(texts.strings().unwrap_or(&[]), training, input)?;
        columns.extend(encoded.columns);
        Ok(Some(encoded.known))
    }
}

fn each<T>(
    files: &[(Split, T)],
    read: impl Fn(Split, &T) -> Result<Samples, DataError>,
) -> Result<Vec<Samples>, DataError> {
    files.iter().map(|(split, file)| read(*split, file)).collect()
}

/// The samples of a file with pictures or rows of numbers.
pub(super) fn one_file(path: &Path, split: Split, input: &str, values: Tensor, labels: Option<Raw>) -> Samples {
    let n_samples = values.shape().first().copied().unwrap_or(0);
    let full_scale = (values.dtype() == DType::U8).then_some(255.0);
    let column = Column::new(Values::Dense(values), Kind::Numbers { channels_last: false, full_scale });
    let parts = vec![Part { path: path.to_owned(), split, n_samples, places: Places::Numbers }];
    Samples { columns: IndexMap::from([(input.to_owned(), column)]), labels, parts, unseen: Vec::new() }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct IdxKeys {
    inputs: String,
    labels: Option<String>,
}

fn idx_files(keys: &mut Keys) -> Result<Vec<(Split, IdxFiles)>, DataError> {
    let files: Vec<(Split, IdxKeys)> = keys.files("{ inputs = \"…\", labels = \"…\" }")?;
    let resolved = files.into_iter().map(|(split, files)| {
        let inputs = keys.path(split.name(), &files.inputs)?;
        let labels = files.labels.map(|labels| keys.path(split.name(), &labels)).transpose()?;
        Ok((split, IdxFiles { inputs, labels }))
    });
    resolved.collect()
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub(super) enum ArrayKeys {
    Archive(String),
    Files(IndexMap<String, String>),
}

fn arrays(keys: &mut Keys) -> Result<Vec<(Split, Arrays)>, DataError> {
    let files: Vec<(Split, ArrayKeys)> = keys.files("an .npz file, or { x = \"x.npy\", label = \"y.npy\" }")?;
    let resolved = files.into_iter().map(|(split, files)| {
        let arrays = match files {
            ArrayKeys::Archive(path) => Arrays::Archive(keys.path(split.name(), &path)?),
            ArrayKeys::Files(files) => {
                let resolved = files.into_iter().map(|(name, path)| Ok((name, keys.path(split.name(), &path)?)));
                Arrays::Files(resolved.collect::<Result<_, DataError>>()?)
            }
        };
        Ok((split, arrays))
    });
    resolved.collect()
}

fn read_idx(split: Split, files: &IdxFiles, input: &str) -> Result<Samples, DataError> {
    let inputs = idx::read(&files.inputs)?;
    let inputs = as_numbers(&inputs).unwrap_or(inputs);
    let inputs = match *inputs.shape() {
        [n, height, width] => inputs.reshaped(&[n, 1, height, width])?,
        [] => return Err(DataError::file(&files.inputs, "holds one number, not a row a sample")),
        _ => inputs,
    };
    let n_samples = inputs.shape().first().copied().unwrap_or(0);
    let labels = match &files.labels {
        None => None,
        Some(path) => {
            let labels = idx::read(path)?;
            if labels.shape() != [n_samples] {
                let problem = format!("has labels of shape {:?} for {n_samples} samples of", labels.shape());
                let problem = format!("{problem} {}; is it the file that belongs to them?", files.inputs.display());
                return Err(DataError::file(path, problem));
            }
            Some(raw_labels(&labels).map_err(|problem| DataError::file(path, problem))?)
        }
    };
    Ok(one_file(&files.inputs, split, input, inputs, labels))
}

/// What an array of labels is: classes where it holds one whole number a sample, flags where it holds several, else
/// numbers to be met.
fn raw_labels(labels: &Tensor) -> Result<Raw, String> {
    let width = match *labels.shape() {
        [_] => 1,
        [_, width] if width > 0 => width,
        _ => return Err(format!("has labels of shape {:?}; give one number or one row a sample", labels.shape())),
    };
    let names = || (0..width).map(|idx| idx.to_string()).collect();
    if let Some(ids) = whole_numbers(labels) {
        if width == 1 {
            return Ok(Raw::Ids(ids));
        }
        let flags = ids.iter().map(|&id| match id {
            0 => 0.0,
            1 => 1.0,
            _ => f32::NAN,
        });
        return Ok(Raw::Flags(flags.collect(), names()));
    }
    let numbers = as_numbers(labels).ok_or_else(|| format!("has labels of {}, which are none", labels.dtype()))?;
    Ok(Raw::Numbers(numbers.to_vec().map_err(|error| error.to_string())?, names()))
}

fn whole_numbers(tensor: &Tensor) -> Option<Vec<i64>> {
    if let Ok(ids) = tensor.as_slice::<i64>() {
        return Some(ids.to_vec());
    }
    if let Ok(ids) = tensor.as_slice::<i32>() {
        return Some(ids.iter().copied().map(i64::from).collect());
    }
    if let Ok(ids) = tensor.as_slice::<i16>() {
        return Some(ids.iter().copied().map(i64::from).collect());
    }
    if let Ok(ids) = tensor.as_slice::<i8>() {
        return Some(ids.iter().copied().map(i64::from).collect());
    }
    if let Ok(ids) = tensor.as_slice::<u8>() {
        return Some(ids.iter().copied().map(i64::from).collect());
    }
    if let Ok(flags) = tensor.as_slice::<bool>() {
        return Some(flags.iter().copied().map(i64::from).collect());
    }
    None
}

fn read_arrays(split: Split, files: &Arrays, label: &str) -> Result<Samples, DataError> {
    let (path, arrays) = match files {
        Arrays::Archive(path) => (path.clone(), npz::read(path)?),
        Arrays::Files(files) => {
            let arrays = files.iter().map(|(name, path)| Ok((name.clone(), npz::read_array(path)?)));
            let first = files.values().next().cloned().unwrap_or_default();
            (first, arrays.collect::<Result<_, DataError>>()?)
        }
    };
    let first = arrays.first().map(|(name, array)| (name.clone(), array.shape().first().copied().unwrap_or(0)));
    let (first, n_samples) = first.ok_or_else(|| DataError::file(&path, "holds no array"))?;
    let mut labels = None;
    let mut columns = IndexMap::new();
    for (name, tensor) in arrays {
        let problem = |problem: String| match files {
            Arrays::Archive(path) => DataError::file(path, problem),
            Arrays::Files(files) => DataError::file(files.get(&name).unwrap_or(&path), problem),
        };
        if tensor.shape().first() != Some(&n_samples) {
            let shape = tensor.shape();
            let text = format!("array `{name}` of shape {shape:?} has no row for each of the {n_samples} of `{first}`");
            return Err(problem(text));
        }
        if name == label {
            labels = Some(raw_labels(&tensor).map_err(problem)?);
            continue;
        }
        let is_quantity = tensor.dtype().is_float() || tensor.dtype() == DType::U8;
        let numbers = Kind::Numbers { channels_last: false, full_scale: None };
        let kind = if is_quantity { numbers } else { Kind::Codes { pad: 0 } };
        columns.insert(name, Column::new(Values::Dense(tensor), kind));
    }
    let parts = vec![Part { path, split, n_samples, places: Places::Numbers }];
    Ok(Samples { columns, labels, parts, unseen: Vec::new() })
}
