//! Samples that are files, in a folder or in a tar archive: labels and splits by their names.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use rayon::prelude::*;

use super::column::{Column, Values};
use super::descriptor::Keys;
use super::error::DataError;
use super::file;
use super::labels::Raw;
use super::samples::{Part, Places, Samples};
use super::split::Split;
use crate::graph::tensor::Tensor;

/// Files below a folder or in a `.tar` (`.tar.gz`) archive, each a sample.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The folder or archive.
    pub path: PathBuf,
    /// How the end of a file's path is made: `{label}/{name}`, `{label}_{speaker}_{index}.wav`. A name in braces stands for
    /// one letter or more without a slash, as few as do; `label` is the class.
    pub names: String,
    /// For each split but training, the values that each of these fields has in its files.
    pub splits: Vec<(Split, IndexMap<String, Vec<String>>)>,
}

/// A piece of a pattern.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Literal(&'a str),
    Field(&'a str),
}

/// A file and what the pattern found in its name.
struct Entry {
    name: String,
    split: Split,
    label: Option<String>,
    content: Content,
}

enum Content {
    At(PathBuf),
    Bytes(Vec<u8>),
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub(super) enum FieldValue {
    Number(i64),
    Text(String),
}

/// The name of the field that is the class.
const LABEL: &str = "label";

impl Tree {
    pub(super) fn from_keys(keys: &mut Keys) -> Result<Tree, DataError> {
        let path: String = keys.need("path", "the folder or the archive with the files")?;
        let path = keys.path("path", &path)?;
        let names: String = keys.take("names")?.unwrap_or_else(|| "{label}/{name}".to_owned());
        let pieces = pattern(&names).map_err(|problem| DataError::key("names", problem))?;
        let mut splits = Vec::new();
        for split in [Split::Validation, Split::Calibration, Split::Test] {
            let fields: Option<IndexMap<String, Vec<FieldValue>>> = keys.take(split.name())?;
            let Some(fields) = fields else { continue };
            if let Some(unknown) = fields.keys().find(|field| !pieces.contains(&Piece::Field(field))) {
                return Err(DataError::key(split.name(), format!("`{unknown}` is no field of `{names}`")));
            }
            let texts = fields.into_iter().map(|(field, values)| {
                let texts = values.into_iter().map(|value| match value {
                    FieldValue::Number(number) => number.to_string(),
                    FieldValue::Text(text) => text,
                });
                (field, texts.collect())
            });
            splits.push((split, texts.collect()));
        }
        Ok(Tree { path, names, splits })
    }

    /// One input made of every file with one of these extensions, in the order of their names.
    pub(super) fn read(
        &self,
        extensions: &[&str],
        input: &str,
        column: impl FnOnce(Values) -> Column,
        make: impl Fn(&[u8]) -> Result<Tensor, String> + Sync,
    ) -> Result<Samples, DataError> {
        let mut entries = self.entries(extensions)?;
        entries.sort_by(|a, b| (a.split, &a.name).cmp(&(b.split, &b.name)));
        let problem = |entry: &Entry, problem| DataError::Row {
            place: format!("{}, {}", self.path.display(), entry.name),
            problem,
        };
        let each = entries.par_iter().map(|entry| {
            let tensor = match &entry.content {
                Content::At(path) => make(&file::read(path)?),
                Content::Bytes(bytes) => make(bytes),
            };
            tensor.map_err(|text| problem(entry, text))
        });
        let tensors: Vec<Tensor> = each.collect::<Result<_, DataError>>()?;
        let shape = tensors.first().map_or(&[][..], Tensor::shape);
        if let Some((other, entry)) = tensors.iter().zip(&entries).find(|(tensor, _)| tensor.shape() != shape) {
            let text = format!("has the shape {:?}, where the first file has {shape:?}; set `size`", other.shape());
            return Err(problem(entry, text));
        }
        let values = Values::Dense(stack(&tensors)?);
        let labels = entries.iter().map(|entry| entry.label.clone()).collect::<Option<Vec<_>>>();
        let parts = Split::ALL.into_iter().map(|split| {
            let names: Vec<String> =
                entries.iter().filter(|entry| entry.split == split).map(|entry| entry.name.clone()).collect();
            Part { path: self.path.clone(), split, n_samples: names.len(), places: Places::Names(names) }
        });
        Ok(Samples {
            columns: IndexMap::from([(input.to_owned(), column(values))]),
            labels: labels.map(Raw::Names),
            parts: parts.collect(),
            unseen: Vec::new(),
        })
    }

    fn entries(&self, extensions: &[&str]) -> Result<Vec<Entry>, DataError> {
        let pieces = pattern(&self.names).map_err(|problem| DataError::key("names", problem))?;
        let is_wanted = |name: &str| {
            let file = name.rsplit('/').next().unwrap_or(name);
            let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
            !file.starts_with('.') && extensions.contains(&extension.as_str())
        };
        let files = if self.path.is_dir() { walk(&self.path, &is_wanted)? } else { unpack(&self.path, &is_wanted)? };
        let entries = files.into_iter().map(|(name, content)| {
            let fields = fields(&pieces, &name).ok_or_else(|| {
                let problem = format!("the name `{name}` does not follow `{}`; set `names`", self.names);
                DataError::file(&self.path, problem)
            })?;
            let of = |field: &str| fields.iter().find(|found| found.0 == field).map(|found| found.1);
            let is_in = |wanted: &IndexMap<String, Vec<String>>| {
                wanted.iter().all(|(field, values)| of(field).is_some_and(|value| values.iter().any(|it| it == value)))
            };
            let split = self.splits.iter().find(|(_, wanted)| is_in(wanted)).map_or(Split::Train, |row| row.0);
            let label = of(LABEL).map(str::to_owned);
            Ok(Entry { split, label, content, name })
        });
        let entries: Vec<Entry> = entries.collect::<Result<_, DataError>>()?;
        if entries.is_empty() {
            return Err(DataError::file(&self.path, format!("holds no file that ends in {}", extensions.join(", "))));
        }
        for (split, _) in &self.splits {
            if !entries.iter().any(|entry| entry.split == *split) {
                return Err(DataError::key(
                    split.name(),
                    format!("no file in {} has these fields", self.path.display()),
                ));
            }
        }
        Ok(entries)
    }
}

/// Every wanted file below a folder, its path below it written with slashes.
fn walk(folder: &Path, is_wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Content)>, DataError> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, before)) = folders.pop() {
        let failed = |source| DataError::Io { path: folder.clone(), source };
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name =
                name.to_str().ok_or_else(|| DataError::file(&entry.path(), "its name is no UTF-8; rename it"))?;
            let name = format!("{before}{name}");
            // Links to folders are not followed: they may lead in a circle.
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push((entry.path(), format!("{name}/")));
            } else if is_wanted(&name) {
                found.push((name, Content::At(entry.path())));
            }
        }
    }
    Ok(found)
}

/// Every wanted file of an archive.
fn unpack(path: &Path, is_wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Content)>, DataError> {
    let problem =
        |error: std::io::Error| DataError::file(path, format!("is no whole tar archive ({error}); fetch it again"));
    let (stream, mut room) = file::stream(path)?;
    let mut archive = tar::Archive::new(stream);
    let mut found = Vec::new();
    for entry in archive.entries().map_err(problem)? {
        let entry = entry.map_err(problem)?;
        let name = entry.path().map_err(problem)?.to_string_lossy().into_owned();
        if !entry.header().entry_type().is_file() || !is_wanted(&name) {
            continue;
        }
        let claimed = entry.size();
        let mut bytes = Vec::new();
        // A sparse entry can be larger than the archive.
        let n_read = entry.take(room).read_to_end(&mut bytes).map_err(problem)?;
        if super::number::wide(n_read) != claimed {
            return Err(DataError::file(
                path,
                format!("`{name}` claims {claimed} bytes and has {n_read}; fetch it again"),
            ));
        }
        room -= claimed;
        found.push((name, Content::Bytes(bytes)));
    }
    Ok(found)
}

fn stack(tensors: &[Tensor]) -> Result<Tensor, DataError> {
    let Some(first) = tensors.first() else { return Ok(Tensor::vector(Vec::<f32>::new())) };
    let mut bytes = Vec::with_capacity(first.n_bytes().saturating_mul(tensors.len()));
    for tensor in tensors {
        bytes.extend_from_slice(tensor.bytes().map_or(&[], |bytes| &bytes[..]));
    }
    let shape = [&[tensors.len()], first.shape()].concat();
    Ok(Tensor::from_bytes(first.dtype(), &shape, bytes.into())?)
}

fn pattern(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        let (field, after) = after.split_once('}').ok_or_else(|| format!("`{text}` has `{{` without `}}`"))?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        } else if matches!(pieces.last(), Some(Piece::Field(_))) {
            return Err(format!("`{text}` has two fields with nothing between them"));
        }
        pieces.push(Piece::Field(field));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    Ok(pieces)
}

/// What the fields of a pattern are in the end of a path: in as many of its names as the pattern has.
fn fields<'p, 'n>(pieces: &[Piece<'p>], name: &'n str) -> Option<Vec<(&'p str, &'n str)>> {
    let slashes = |text: &str| text.matches('/').count();
    let wanted: usize =
        pieces.iter().map(|piece| if let Piece::Literal(text) = piece { slashes(text) } else { 0 }).sum();
    let start = name.rmatch_indices('/').nth(wanted).map_or(0, |(position, _)| position + 1);
    let mut found = Vec::new();
    matches(pieces, &name[start..], &mut found).then_some(found)
}

fn matches<'p, 'n>(pieces: &[Piece<'p>], text: &'n str, found: &mut Vec<(&'p str, &'n str)>) -> bool {
    match pieces {
        [] => text.is_empty(),
        [Piece::Literal(literal), rest @ ..] => {
            text.strip_prefix(literal).is_some_and(|text| matches(rest, text, found))
        }
        [Piece::Field(field), rest @ ..] => {
            let ends = text.char_indices().map(|(start, letter)| (start + letter.len_utf8(), letter));
            for (end, _) in ends.take_while(|(_, letter)| *letter != '/') {
                found.push((field, &text[..end]));
                if matches(rest, &text[end..], found) {
                    return true;
                }
                found.pop();
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &str, path: &str, expected: Option<&str>) {
        let pieces = pattern(names).expect("a pattern");
        let found = fields(&pieces, path)
            .map(|found| found.iter().map(|(field, value)| format!("{field}={value}")).collect::<Vec<_>>().join(" "));
        assert_eq!(found.as_deref(), expected);
    }

    #[test]
    fn names_follow_patterns() {
        check("{label}_{speaker}_{index}.wav", "recordings/0_george_12.wav", Some("label=0 speaker=george index=12"));
        check("{label}/{name}", "train/cat/1.png", Some("label=cat name=1.png"));
        check("{label}/{name}", "1.png", None);
        check("{label}.{name}.png", "a.b.png.png", Some("label=a name=b.png"));
        check("{split}/x-{label}/{name}", "data/test/x-ü/ö.png", Some("split=test label=ü name=ö.png"));
        check("{label}_{speaker}.wav", "nine.wav", None);
        assert!(pattern("{label").is_err());
        assert!(pattern("{label}{index}").is_err());
    }
}
