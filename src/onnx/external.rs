//! Tensors' data in other files beside a model's: where they may lie; `store` reads them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::error::TensorProblem;
use crate::store::{self, StoreError};

/// The folder in which a model's external data lies, and the files in it that have been read. Tensors share a file's
/// bytes, however many of them name the same range.
#[derive(Debug)]
pub(super) struct External {
    folder: Option<PathBuf>,
    files: HashMap<PathBuf, Bytes>,
}

impl External {
    /// Data beside this folder's model; without a folder every external tensor is refused.
    pub(super) fn new(folder: Option<&Path>) -> External {
        External { folder: folder.map(Path::to_path_buf), files: HashMap::new() }
    }

    /// `length` bytes of the file at `location`, a path relative to the folder, from `offset` on.
    ///
    /// # Errors
    /// When the location leaves the folder, by itself or by a symbolic link, or the range leaves the file.
    pub(super) fn load(&mut self, location: &str, offset: u64, length: u64) -> Result<Bytes, TensorProblem> {
        let path = self.inside(location)?;
        let bytes = match self.files.entry(path) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(unread) => {
                let failed = |error: StoreError| TensorProblem::Io { path: error.path, source: error.source };
                let bytes = store::read(unread.key()).map_err(failed)?;
                unread.insert(bytes)
            }
        };
        let range = |offset, length| {
            let start = usize::try_from(offset).ok()?;
            let end = start.checked_add(usize::try_from(length).ok()?)?;
            (end <= bytes.len()).then_some(start..end)
        };
        let range = range(offset, length).ok_or_else(|| {
            let n_bytes = bytes.len();
            TensorProblem::External(format!("{length} bytes from {offset} on leave `{location}`, which has {n_bytes}"))
        })?;
        Ok(bytes.slice(range))
    }

    /// The file itself, links resolved: one that has several names is read once.
    fn inside(&self, location: &str) -> Result<PathBuf, TensorProblem> {
        let refused = |problem: &str| TensorProblem::External(format!("`{location}` {problem}"));
        let Some(folder) = &self.folder else {
            return Err(refused("cannot be read: the model did not come from a folder"));
        };
        let relative = Path::new(location);
        if location.is_empty() || !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        {
            return Err(refused("is no path inside the model's folder"));
        }
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| TensorProblem::Io { path, source }
        };
        let folder = folder.canonicalize().map_err(failed(folder))?;
        let wanted = folder.join(relative);
        let path = wanted.canonicalize().map_err(failed(&wanted))?;
        if !path.starts_with(&folder) {
            return Err(refused("is a link that leaves the model's folder"));
        }
        if !fs::metadata(&path).map_err(failed(&path))?.is_file() {
            return Err(refused("is no file"));
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(external: &mut External, location: &str, offset: u64, length: u64) -> String {
        external.load(location, offset, length).expect_err("refused").to_string()
    }

    #[test]
    fn only_ranges_of_files_inside_the_folder_are_read() {
        let outer = tempfile::tempdir().expect("a temporary folder");
        let folder = outer.path().join("model");
        fs::create_dir_all(folder.join("inner")).expect("a folder");
        fs::write(folder.join("inner/w.data"), [0, 1, 2, 3, 4]).expect("a file");
        fs::write(outer.path().join("secret"), [9; 5]).expect("a file");
        let mut external = External::new(Some(&folder));
        assert_eq!(external.load("inner/w.data", 1, 3).expect("inside"), Bytes::from_static(&[1, 2, 3]));
        assert_eq!(external.load("./inner/w.data", 5, 0).expect("at the end"), Bytes::new());
        let [one, other] = ["inner/w.data", "./inner/w.data"].map(|name| external.load(name, 1, 3).expect("inside"));
        assert_eq!(one.as_ptr(), other.as_ptr(), "tensors share the file's bytes");
        assert_eq!(external.files.len(), 1);

        let outside = refusal(&mut external, "inner/w.data", 3, 3);
        assert_eq!(outside, "external data: 3 bytes from 3 on leave `inner/w.data`, which has 5");
        assert!(refusal(&mut external, "inner/w.data", u64::MAX, 2).contains("leave"));
        let absolute = outer.path().join("secret").display().to_string();
        for location in ["../secret", "inner/../../secret", &absolute, ""] {
            assert!(refusal(&mut external, location, 0, 1).ends_with("is no path inside the model's folder"));
        }
        assert!(refusal(&mut external, "inner", 0, 0).ends_with("is no file"));
        assert!(matches!(external.load("missing", 0, 1), Err(TensorProblem::Io { .. })));
        assert!(refusal(&mut External::new(None), "w.data", 0, 1).contains("did not come from a folder"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_may_not_leave_the_folder() {
        let outer = tempfile::tempdir().expect("a temporary folder");
        let folder = outer.path().join("model");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(outer.path().join("secret"), [9; 5]).expect("a file");
        fs::write(folder.join("real"), [7; 5]).expect("a file");
        std::os::unix::fs::symlink(outer.path().join("secret"), folder.join("leaves")).expect("a link");
        std::os::unix::fs::symlink("real", folder.join("stays")).expect("a link");
        let mut external = External::new(Some(&folder));
        assert!(refusal(&mut external, "leaves", 0, 1).ends_with("is a link that leaves the model's folder"));
        assert_eq!(external.load("stays", 0, 1).expect("inside"), Bytes::from_static(&[7]));
    }
}
