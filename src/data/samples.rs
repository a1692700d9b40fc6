//! What a reader gives: columns, labels, and where each sample comes from.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::column::{Column, Kind, Values};
use super::error::DataError;
use super::labels::Raw;
use super::split::Split;
use crate::graph::tensor::Tensor;

/// Samples, split after split and file after file; those of the training files first.
pub(super) struct Samples {
    pub(super) columns: IndexMap<String, Column>,
    pub(super) labels: Option<Raw>,
    pub(super) parts: Vec<Part>,
    /// Samples with a category that training does not have, and which.
    pub(super) unseen: Vec<(usize, String)>,
}

/// The samples of one file.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    pub(super) split: Split,
    pub(super) n_samples: usize,
    pub(super) places: Places,
}

/// Where in their file samples are.
#[derive(Clone, Debug)]
pub(super) enum Places {
    /// One after the other.
    Numbers,
    /// In these lines, counted from 1.
    Lines(Vec<u64>),
    /// In files of these names.
    Names(Vec<String>),
}

impl Part {
    /// The file, and the place of one of its samples.
    pub(super) fn place(&self, sample: usize) -> String {
        let path = self.path.display();
        match &self.places {
            Places::Lines(lines) if sample < lines.len() => format!("{path}, line {}", lines[sample]),
            Places::Names(names) if sample < names.len() => format!("{path}, {}", names[sample]),
            Places::Numbers | Places::Lines(_) | Places::Names(_) => format!("{path}, sample {sample}"),
        }
    }
}

/// Where a sample is, over all files.
pub(super) fn place(parts: &[Part], sample: usize) -> String {
    let mut sample = sample;
    for part in parts {
        if sample < part.n_samples {
            return part.place(sample);
        }
        sample -= part.n_samples;
    }
    format!("sample {sample}")
}

/// Samples of several files, each given alone.
pub(super) fn join(files: Vec<Samples>) -> Result<Samples, DataError> {
    let paths: Vec<PathBuf> =
        files.iter().filter_map(|file| file.parts.first()).map(|part| part.path.clone()).collect();
    let mut columns: IndexMap<String, (Kind, Vec<Values>)> = IndexMap::new();
    let mut labels: Option<Option<Raw>> = None;
    let mut parts = Vec::new();
    for (file_idx, file) in files.into_iter().enumerate() {
        let problem = |problem: String| match file.parts.first() {
            Some(part) => DataError::file(&part.path, problem),
            None => DataError::Request(problem),
        };
        if file_idx > 0 && !columns.keys().eq(file.columns.keys()) {
            let names =
                |names: Vec<&String>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let (here, there) = (names(file.columns.keys().collect()), names(columns.keys().collect()));
            return Err(problem(format!("holds {here}, where the training file holds {there}; files must be alike")));
        }
        labels = Some(match labels {
            None => file.labels,
            Some(before) => append(before, file.labels).map_err(problem)?,
        });
        for (name, column) in file.columns {
            columns.entry(name).or_insert_with(|| (column.kind, Vec::new())).1.push(column.values);
        }
        parts.extend(file.parts);
    }
    let joined = columns.into_iter().map(|(name, (kind, values))| {
        let values = concatenate(values, &paths, &name)?;
        Ok((name, Column::new(values, kind)))
    });
    Ok(Samples {
        columns: joined.collect::<Result<_, DataError>>()?,
        labels: labels.flatten(),
        parts,
        unseen: Vec::new(),
    })
}

fn append(before: Option<Raw>, after: Option<Raw>) -> Result<Option<Raw>, String> {
    Ok(Some(match (before, after) {
        (None, None) => return Ok(None),
        (Some(Raw::Names(mut a)), Some(Raw::Names(b))) => {
            a.extend(b);
            Raw::Names(a)
        }
        (Some(Raw::Ids(mut a)), Some(Raw::Ids(b))) => {
            a.extend(b);
            Raw::Ids(a)
        }
        (Some(Raw::Numbers(mut a, names)), Some(Raw::Numbers(b, others))) if names.len() == others.len() => {
            a.extend(b);
            Raw::Numbers(a, names)
        }
        (Some(Raw::Flags(mut a, names)), Some(Raw::Flags(b, others))) if names.len() == others.len() => {
            a.extend(b);
            Raw::Flags(a, names)
        }
        _ => return Err("has labels of another kind than the training file; files must be alike".to_owned()),
    }))
}

fn concatenate(mut parts: Vec<Values>, paths: &[PathBuf], name: &str) -> Result<Values, DataError> {
    if parts.len() == 1 {
        return parts.pop().ok_or_else(|| DataError::Request("no file is given".to_owned()));
    }
    if parts.iter().all(|part| matches!(part, Values::Ragged(_))) {
        // A file's own samples are alike; the first of each file stands for them.
        let frame = |part: &Values| part.sample_shape(0).get(1..).unwrap_or(&[]).to_vec();
        let like = parts.first().map(frame).unwrap_or_default();
        if let Some((part, path)) = parts.iter().zip(paths).find(|(part, _)| frame(part) != like) {
            let problem = format!(
                "a frame of `{name}` has the shape {:?}, but {like:?} in the training file; files must be alike",
                frame(part)
            );
            return Err(DataError::file(path, problem));
        }
        let each = parts.into_iter().flat_map(|part| match part {
            Values::Ragged(tensors) => tensors,
            Values::Dense(tensor) => vec![tensor],
        });
        return Ok(Values::Ragged(each.collect()));
    }
    let mut bytes = Vec::new();
    let mut strings = Vec::new();
    let mut first: Option<Tensor> = None;
    let mut n_samples = 0;
    for (part_idx, part) in parts.into_iter().enumerate() {
        let Values::Dense(tensor) = part else { continue };
        let like = first.get_or_insert_with(|| tensor.clone());
        if like.dtype() != tensor.dtype() || like.shape().get(1..) != tensor.shape().get(1..) {
            let path = paths.get(part_idx).map_or(Path::new(""), PathBuf::as_path);
            let show = |tensor: &Tensor| format!("{} {:?}", tensor.dtype(), tensor.shape().get(1..).unwrap_or(&[]));
            let problem = format!(
                "a sample of `{name}` is {}, but {} in the training file; files must be alike",
                show(&tensor),
                show(like)
            );
            return Err(DataError::file(path, problem));
        }
        n_samples += tensor.shape().first().copied().unwrap_or(0);
        bytes.extend_from_slice(tensor.bytes().map_or(&[], |bytes| &bytes[..]));
        strings.extend_from_slice(tensor.strings().unwrap_or(&[]));
    }
    let Some(like) = first else { return Ok(Values::Ragged(Vec::new())) };
    let mut shape = like.shape().to_vec();
    shape.splice(..shape.len().min(1), [n_samples]);
    Ok(Values::Dense(match like.strings() {
        Some(_) => Tensor::from_strings(&shape, strings)?,
        None => Tensor::from_bytes(like.dtype(), &shape, bytes.into())?,
    }))
}
