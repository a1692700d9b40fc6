//! Data descriptors: a TOML table that says where data is and what to make of it.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::augment::Augmentation;
use super::clean::Clean;
use super::error::DataError;
use super::normalize::Normalize;
use super::sources::Source;
use super::split::{Shares, Split};

/// Where data is and what to make of it.
#[derive(Clone, Debug, schemars::JsonSchema)]
#[schemars(from = "super::schema::Data", into = "super::schema::Data")]
pub struct Descriptor {
    /// What is read, `kind` and the keys that belong to it.
    pub source: Source,
    /// `input`: the name of the only input; `x`, or `input_ids` for text, where it is not given.
    pub input: Option<String>,
    /// `shape`: the shape of a sample of the only input in batches, with as many elements as it is read with.
    pub shape: Option<Vec<usize>>,
    /// `classes`: the names of the classes, in the order of their numbers.
    pub classes: Option<Vec<String>>,
    /// `split`: what the training files give to the other splits.
    pub split: Shares,
    /// `normalize`
    pub normalize: Normalize,
    /// `clean`
    pub clean: Vec<Clean>,
    /// `augment`: what is done to training samples, in this order.
    pub augment: Vec<Augmentation>,
}

impl Descriptor {
    /// The descriptor in a file. A path in it is relative to the file's folder.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or has a key that is missing, unknown or wrong.
    pub fn read(path: &Path) -> Result<Descriptor, DataError> {
        let text = std::fs::read_to_string(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Descriptor::parse(&text, folder).map_err(|error| DataError::file(path, error.to_string()))
    }

    /// The descriptor in a text. A path in it is relative to the folder.
    ///
    /// # Errors
    /// When it is no TOML, or has a key that is missing, unknown or wrong.
    pub fn parse(text: &str, folder: &Path) -> Result<Descriptor, DataError> {
        let table = text.parse().map_err(|error: toml::de::Error| DataError::Request(error.to_string()))?;
        Descriptor::from_table(table, folder)
    }

    /// The descriptor in a table, such as the part `[data]` of a recipe. A path in it is relative to the folder.
    ///
    /// # Errors
    /// When it has a key that is missing, unknown or wrong.
    pub fn from_table(table: toml::Table, folder: &Path) -> Result<Descriptor, DataError> {
        let mut keys = Keys { table, folder: folder.to_owned(), asked: Vec::new() };
        let kind: String = keys.need("kind", KINDS)?;
        let descriptor = Descriptor {
            source: Source::from_keys(&kind, &mut keys)?,
            input: keys.take("input")?,
            shape: keys.take("shape")?,
            classes: keys.take("classes")?,
            split: keys.take("split")?.unwrap_or_default(),
            normalize: keys.take("normalize")?.unwrap_or_default(),
            clean: keys.take("clean")?.unwrap_or_default(),
            augment: keys.take("augment")?.unwrap_or_default(),
        };
        keys.finish(&kind)?;
        descriptor.check()?;
        Ok(descriptor)
    }

    /// An archive whose arrays are named after a network's inputs, and `label`; all of it is the training split.
    pub fn npz(path: &Path) -> Descriptor {
        Descriptor {
            source: Source::npz(path),
            input: None,
            shape: None,
            classes: None,
            split: Shares::default(),
            normalize: Normalize::None,
            clean: Vec::new(),
            augment: Vec::new(),
        }
    }

    fn check(&self) -> Result<(), DataError> {
        let with_files = self.source.splits();
        for split in Split::ALL {
            let share = self.split.share(split);
            if !(0.0..=1.0).contains(&share) || (split == Split::Train && share == 0.0) {
                let problem = "each share is from 0 to 1, and together they leave something for training";
                return Err(DataError::key("split", format!("the share of {split} is {share}; {problem}")));
            }
            if split != Split::Train && share > 0.0 && with_files.contains(&split) {
                let problem =
                    format!("{split} has its own samples and a share of the training files; keep one of the two");
                return Err(DataError::key("split", problem));
            }
        }
        Ok(())
    }
}

/// What `kind` can be.
pub(super) const KINDS: &str = "one of idx, npz, csv, text, cifar, images, wav, ts, digits";

/// A descriptor's table, from which keys are taken one after the other.
pub(super) struct Keys {
    table: toml::Table,
    folder: PathBuf,
    asked: Vec<&'static str>,
}

impl Keys {
    /// The value of a key that may be left out.
    pub(super) fn take<T: DeserializeOwned>(&mut self, key: &'static str) -> Result<Option<T>, DataError> {
        self.asked.push(key);
        let Some(value) = self.table.remove(key) else { return Ok(None) };
        let value = value.try_into().map_err(|error| DataError::key(key, error.to_string().trim_end().to_owned()))?;
        Ok(Some(value))
    }

    /// The value of a key that must be there.
    pub(super) fn need<T: DeserializeOwned>(&mut self, key: &'static str, what: &str) -> Result<T, DataError> {
        self.take(key)?.ok_or_else(|| DataError::key(key, format!("is missing; give {what}")))
    }

    /// The files of each split: those of training must be there.
    pub(super) fn files<T: DeserializeOwned>(&mut self, what: &str) -> Result<Vec<(Split, T)>, DataError> {
        let mut files = vec![(Split::Train, self.need(Split::Train.name(), what)?)];
        for split in [Split::Validation, Split::Calibration, Split::Test] {
            files.extend(self.take(split.name())?.map(|file| (split, file)));
        }
        Ok(files)
    }

    /// Like [`Keys::files`], where a split has one file.
    pub(super) fn paths(&mut self) -> Result<Vec<(Split, PathBuf)>, DataError> {
        let files: Vec<(Split, String)> = self.files("the file with the training samples")?;
        files.into_iter().map(|(split, path)| Ok((split, self.path(split.name(), &path)?))).collect()
    }

    /// A path as it is meant: below the descriptor's folder, `${ALUDEL_DATA}` replaced.
    pub(super) fn path(&self, key: &str, path: &str) -> Result<PathBuf, DataError> {
        let variable = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
        expand(path, variable.as_deref())
            .map(|path| self.folder.join(path))
            .map_err(|problem| DataError::key(key, problem))
    }

    fn finish(self, kind: &str) -> Result<(), DataError> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                let problem = format!("is no key of kind `{kind}`, which has {}", self.asked.join(", "));
                Err(DataError::key(unknown, problem))
            }
        }
    }
}

/// The environment variable that paths may begin with.
const VARIABLE: &str = "ALUDEL_DATA";

fn expand(path: &str, variable: Option<&str>) -> Result<String, String> {
    let Some((before, after)) = path.split_once("${") else { return Ok(path.to_owned()) };
    let (name, after) = after.split_once('}').ok_or_else(|| format!("`{path}` has `${{` without `}}`"))?;
    if name != VARIABLE {
        return Err(format!("`{path}` names the variable {name}; only ${{{VARIABLE}}} is replaced"));
    }
    let value = variable.ok_or_else(|| {
        format!(
            "`{path}` needs the environment variable {VARIABLE}, which is not set; set it to the folder of the data"
        )
    })?;
    Ok(format!("{before}{value}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), &str>) {
        match (Descriptor::parse(text, Path::new("/data")), expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, expected) => panic!("{text}: expected {expected:?}, got {got:?}"),
        }
    }

    #[test]
    fn errors_name_the_key() {
        check("kind = 'cifar'\ntrain = 'a.bin'", Ok(()));
        check("kind = 'cifar'", Err("`train`: is missing"));
        check("train = 'a'", Err("`kind`: is missing; give one of idx"));
        check("kind = 'parquet'", Err("`kind`: `parquet` is none; give one of idx"));
        check(
            "kind = 'cifar'\ntrain = 'a'\nsizes = 3",
            Err("`sizes`: is no key of kind `cifar`, which has kind, train"),
        );
        check("kind = 'cifar'\ntrain = 7", Err("`train`: invalid type: integer `7`"));
        check("kind = 'cifar'\ntrain = 'a'\nsplit = { test = 0.1, tests = 1 }", Err("`split`: unknown field `tests`"));
        check("kind = 'cifar'\ntrain = 'a'\nsplit = { test = 1.5 }", Err("`split`: the share of train is -0.5"));
        check("kind = 'cifar'\ntrain = 'a'\ntest = 'b'\nsplit = { test = 0.5 }", Err("keep one of the two"));
        check("kind = 'cifar'\ntrain = 'a'\nnormalize = 'max'", Err("`normalize`: unknown variant `max`"));
        check("kind = 'cifar'\ntrain = '${HOME}/a'", Err("`train`: `${HOME}/a` names the variable HOME"));
        check("kind = ", Err("TOML parse error"));
    }

    #[test]
    fn the_variable_is_replaced_or_missed() {
        assert_eq!(expand("a/b", None), Ok("a/b".to_owned()));
        assert_eq!(expand("${ALUDEL_DATA}/b", Some("/d")), Ok("/d/b".to_owned()));
        let problem = expand("${ALUDEL_DATA}/b", None).expect_err("it is not set");
        assert!(problem.contains("not set; set it to the folder"), "{problem}");
        assert!(expand("${ALUDEL_DATA", Some("/d")).is_err());
    }
}
