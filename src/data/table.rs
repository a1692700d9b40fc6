//! Tables of text (CSV, TSV), each column with a role.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use csv::{ByteRecord, ReaderBuilder};
use indexmap::IndexMap;

use super::column::{Column, Kind, Values};
use super::descriptor::{Descriptor, Keys};
use super::error::DataError;
use super::file;
use super::labels::{Raw, few};
use super::samples::{Part, Places, Samples};
use super::split::Split;
use super::text::Tokens;
use crate::graph::tensor::Tensor;

/// Tables and what their columns are.
#[derive(Clone, Debug)]
pub struct Table {
    /// The files of each split, all with the same columns.
    pub files: Vec<(Split, PathBuf)>,
    /// The role of a column by its name in the header, or by its number from 0; `*` for the columns not named.
    pub columns: IndexMap<String, Role>,
    /// What is between two cells.
    pub delimiter: u8,
    /// Whether the first line names the columns.
    pub header: bool,
    /// Whether a cell may stand in double quotes.
    pub quotes: bool,
    /// How text becomes numbers.
    pub tokens: Option<Tokens>,
}

/// What a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// An element of the input; an empty cell, `?` and `NA` are missing.
    Number,
    /// As many elements of the input as the column has values in training: 1 for the value of the row, else 0.
    Category,
    /// The text to be cut into tokens; one column at most.
    Text,
    /// The label: a class.
    Class,
    /// An element of the label: a number to be met.
    Target,
    /// An element of the label: 1 or 0.
    Flag,
    /// Nothing.
    Ignore,
}

/// The cells of a column over all files.
enum Cells {
    Numbers(Vec<f32>),
    Texts(Vec<Bytes>),
    None,
}

struct Columns {
    names: Vec<String>,
    roles: Vec<Role>,
    cells: Vec<Cells>,
}

impl Table {
    pub(super) fn from_keys(kind: &str, keys: &mut Keys) -> Result<Table, DataError> {
        let is_text = kind == "text";
        let files = keys.paths()?;
        let columns: IndexMap<String, Role> =
            keys.need("columns", "the role of each column, { name = \"number\", … }")?;
        let delimiter: Option<String> = keys.take("delimiter")?;
        let is_tsv = |path: &PathBuf| path.to_string_lossy().trim_end_matches(".gz").ends_with(".tsv");
        let tab = is_text || files.iter().any(|file| is_tsv(&file.1));
        let delimiter = match delimiter.as_deref().map(str::as_bytes) {
            None => {
                if tab {
                    b'\t'
                } else {
                    b','
                }
            }
            Some(&[delimiter]) => delimiter,
            Some(_) => return Err(DataError::key("delimiter", "is not one ASCII character")),
        };
        let header = keys.take("header")?.unwrap_or(!is_text);
        let quotes = keys.take("quotes")?.unwrap_or(delimiter != b'\t');
        Ok(Table { files, columns, delimiter, header, quotes, tokens: Tokens::from_keys(keys)? })
    }

    /// The samples of all files; numbers and categories together are the input of this name.
    pub(super) fn read(&self, descriptor: &Descriptor) -> Result<Samples, DataError> {
        let mut columns: Option<Columns> = None;
        let mut parts = Vec::new();
        for (split, path) in &self.files {
            let lines = self.read_file(path, &mut columns)?;
            let n_samples = lines.len();
            parts.push(Part { path: path.clone(), split: *split, n_samples, places: Places::Lines(lines) });
        }
        let columns = columns.ok_or_else(|| DataError::key("train", "is missing"))?;
        let n_training = parts.iter().filter(|part| part.split == Split::Train).map(|part| part.n_samples).sum();
        let n_samples = parts.iter().map(|part| part.n_samples).sum();
        let labels = labels(&columns)?;
        let mut inputs = IndexMap::new();
        let mut unseen = Vec::new();
        if let Some((table, features)) = quantities(&columns, n_samples, n_training, &mut unseen)? {
            let name = descriptor.input.as_deref().filter(|_| !columns.roles.contains(&Role::Text)).unwrap_or("x");
            let kind = Kind::Numbers { channels_last: false, full_scale: None };
            inputs.insert(name.to_owned(), Column { features, ..Column::new(Values::Dense(table), kind) });
        }
        if let Some(texts) = texts(&columns)? {
            inputs.insert(TEXT.to_owned(), Column::new(Values::Dense(texts), Kind::Text));
        }
        Ok(Samples { columns: inputs, labels, parts, unseen })
    }

    /// Appends a file's rows; the line of each.
    fn read_file(&self, path: &Path, columns: &mut Option<Columns>) -> Result<Vec<u64>, DataError> {
        let bytes = file::read(path)?;
        let mut reader = ReaderBuilder::new()
            .delimiter(self.delimiter)
            .quoting(self.quotes)
            .has_headers(false)
            .flexible(true)
            .from_reader(&bytes[..]);
        let mut record = ByteRecord::new();
        let mut lines = Vec::new();
        let mut has_header = self.header;
        loop {
            let more =
                reader.read_byte_record(&mut record).map_err(|error| DataError::file(path, error.to_string()))?;
            if !more {
                break;
            }
            let line = record.position().map_or(0, csv::Position::line);
            let cells = record.iter().map(std::str::from_utf8).collect::<Result<Vec<_>, _>>();
            let cells = cells.map_err(|_| DataError::line(path, line, "is no UTF-8; convert the file with iconv"))?;
            if std::mem::take(&mut has_header) {
                let names = cells.iter().map(|cell| cell.trim().to_owned()).collect();
                self.header(names, columns).map_err(|problem| DataError::line(path, line, problem))?;
                continue;
            }
            if columns.is_none() {
                let names = (0..cells.len()).map(|idx| idx.to_string()).collect();
                self.header(names, columns).map_err(|problem| DataError::line(path, line, problem))?;
            }
            let Some(columns) = columns.as_mut() else { continue };
            columns.push(&cells).map_err(|problem| DataError::line(path, line, problem))?;
            lines.push(line);
        }
        if lines.is_empty() {
            return Err(DataError::file(path, "has no row"));
        }
        Ok(lines)
    }

    /// Takes the names of the columns, or compares them with those of the first file.
    fn header(&self, names: Vec<String>, columns: &mut Option<Columns>) -> Result<(), String> {
        if let Some(columns) = columns {
            if columns.names != names {
                let (here, there) = (few(&names), few(&columns.names));
                return Err(format!("the columns are {here}, where those of the training file are {there}"));
            }
            return Ok(());
        }
        let unknown = self.columns.keys().find(|name| *name != OTHERS && !names.contains(name));
        if let Some(unknown) = unknown {
            return Err(format!("`columns` names `{unknown}`, but the columns are {}", few(&names)));
        }
        let other = self.columns.get(OTHERS).copied().unwrap_or(Role::Ignore);
        let roles: Vec<Role> = names.iter().map(|name| self.columns.get(name).copied().unwrap_or(other)).collect();
        let cells = roles.iter().map(|role| match role {
            Role::Number | Role::Target | Role::Flag => Cells::Numbers(Vec::new()),
            Role::Category | Role::Text | Role::Class => Cells::Texts(Vec::new()),
            Role::Ignore => Cells::None,
        });
        *columns = Some(Columns { cells: cells.collect(), names, roles });
        Ok(())
    }
}

/// The name of the column that text stands in until it is cut into tokens.
pub(super) const TEXT: &str = "text";

/// In a description, the columns that it does not name.
const OTHERS: &str = "*";

impl Columns {
    fn push(&mut self, cells: &[&str]) -> Result<(), String> {
        if cells.len() != self.names.len() {
            let (got, expected) = (cells.len(), self.names.len());
            return Err(format!(
                "has {got} cells where there are {expected} columns; is `delimiter` or `quotes` wrong?"
            ));
        }
        for ((cell, column), name) in cells.iter().zip(&mut self.cells).zip(&self.names) {
            match column {
                Cells::Numbers(numbers) => numbers.push(number(cell).ok_or_else(|| {
                    format!("`{cell}` in column `{name}` is no number; mend it, or give the column another role")
                })?),
                Cells::Texts(texts) => texts.push(Bytes::copy_from_slice(cell.trim().as_bytes())),
                Cells::None => {}
            }
        }
        Ok(())
    }

    fn of(&self, role: Role) -> impl Iterator<Item = (&String, &Cells)> {
        let both = self.names.iter().zip(&self.cells).zip(&self.roles);
        both.filter(move |(_, its)| **its == role).map(|(column, _)| column)
    }
}

fn number(cell: &str) -> Option<f32> {
    match cell.trim() {
        "" | "?" | "NA" => Some(f32::NAN),
        text => text.parse().ok(),
    }
}

fn labels(columns: &Columns) -> Result<Option<Raw>, DataError> {
    let roles = [Role::Class, Role::Target, Role::Flag];
    let used: Vec<Role> = roles.into_iter().filter(|role| columns.roles.contains(role)).collect();
    let (names, cells): (Vec<String>, Vec<&Cells>) = match used[..] {
        [] => return Ok(None),
        [role] => columns.of(role).map(|(name, cells)| (name.clone(), cells)).unzip(),
        _ => return Err(DataError::key("columns", "class, target and flag exclude each other; keep one of them")),
    };
    if let [Cells::Texts(classes)] = cells[..] {
        return Ok(Some(Raw::Names(classes.iter().map(text).collect())));
    }
    let numbers = cells.iter().map(|cells| match cells {
        Cells::Numbers(numbers) => Some(&numbers[..]),
        Cells::Texts(_) | Cells::None => None,
    });
    let Some(numbers) = numbers.collect::<Option<Vec<_>>>() else {
        return Err(DataError::key("columns", "more than one column is the class; keep one"));
    };
    let rows = interleave(&numbers);
    Ok(Some(if columns.roles.contains(&Role::Flag) { Raw::Flags(rows, names) } else { Raw::Numbers(rows, names) }))
}

/// Rows of columns.
fn interleave(columns: &[&[f32]]) -> Vec<f32> {
    let n_rows = columns.iter().map(|column| column.len()).min().unwrap_or(0);
    (0..n_rows).flat_map(|row| columns.iter().map(move |column| column[row])).collect()
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A column of more categories is a name or a number, and its flags would not fit the memory.
const MOST_CATEGORIES: usize = 1024;

/// Numbers as they are and categories as flags, in the order of the columns: f32 [n, width].
fn quantities(
    columns: &Columns,
    n_samples: usize,
    n_training: usize,
    unseen: &mut Vec<(usize, String)>,
) -> Result<Option<(Tensor, Vec<String>)>, DataError> {
    let mut all: Vec<Vec<f32>> = Vec::new();
    let mut features = Vec::new();
    for ((role, cells), name) in columns.roles.iter().zip(&columns.cells).zip(&columns.names) {
        match (role, cells) {
            (Role::Number, Cells::Numbers(numbers)) => {
                all.push(numbers.clone());
                features.push(name.clone());
            }
            (Role::Category, Cells::Texts(values)) => {
                let in_training: BTreeSet<&Bytes> = values.iter().take(n_training).collect();
                if in_training.len() > MOST_CATEGORIES {
                    let problem = format!("`{name}` has {} categories; give it another role", in_training.len());
                    return Err(DataError::key("columns", problem));
                }
                for category in &in_training {
                    features.push(format!("{name}={}", text(category)));
                    all.push(values.iter().map(|value| if value == *category { 1.0 } else { 0.0 }).collect());
                }
                let missed = values.iter().enumerate().filter(|(_, value)| !in_training.contains(value));
                unseen.extend(missed.map(|(sample, value)| {
                    (sample, format!("category `{}` of `{name}` does not occur in training", text(value)))
                }));
            }
            (
                Role::Number | Role::Category | Role::Text | Role::Class | Role::Target | Role::Flag | Role::Ignore,
                _,
            ) => {}
        }
    }
    if all.is_empty() {
        return Ok(None);
    }
    let slices: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
    Ok(Some((Tensor::new(&[n_samples, slices.len()], interleave(&slices))?, features)))
}

fn texts(columns: &Columns) -> Result<Option<Tensor>, DataError> {
    let mut texts = columns.of(Role::Text);
    match (texts.next(), texts.next()) {
        (None, _) => Ok(None),
        (Some((_, Cells::Texts(texts))), None) => Ok(Some(Tensor::from_strings(&[texts.len()], texts.clone())?)),
        (Some(_), _) => Err(DataError::key("columns", "more than one column is text; keep one")),
    }
}
