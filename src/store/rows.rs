//! Tables of many rows of as many bytes each, in a file that is written row after row and then mapped into memory.
//!
//! A file holds a line that says what it is, the rows, and the SHA-256 of both. Until the last row is there it has the
//! ending `.part`, which another run takes up where it was left.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{StoreError, failed, read, sha256, sha256_of_file};

/// What a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What the rows are, in one line; a file with another line is another table.
    pub header: String,
    /// The bytes of a row.
    pub row_bytes: usize,
    /// How many rows there are.
    pub n_rows: usize,
}

impl Layout {
    fn line(&self) -> String {
        format!("aludel rows 1 · {} rows of {} bytes · {}\n", self.n_rows, self.row_bytes, self.header)
    }
}

/// A whole table.
#[derive(Clone, Debug)]
pub struct Rows {
    rows: Bytes,
    row_bytes: usize,
}

impl Rows {
    /// The table in a file; none where there is no such file, or it is another table, or one that was damaged.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn open(path: &Path, layout: &Layout) -> Result<Option<Rows>, StoreError> {
        if !path.exists() {
            return Ok(None);
        }
        let bytes = read(path)?;
        let line = layout.line();
        let end = layout.row_bytes.checked_mul(layout.n_rows).and_then(|n_bytes| n_bytes.checked_add(line.len()));
        let Some((content, sum)) = end.and_then(|end| bytes.split_at_checked(end)) else { return Ok(None) };
        if !content.starts_with(line.as_bytes()) || sum != sha256(content).as_bytes() {
            return Ok(None);
        }
        Ok(Some(Rows { rows: bytes.slice(line.len()..content.len()), row_bytes: layout.row_bytes }))
    }

    /// The bytes of a row; none where there are not so many.
    pub fn row(&self, idx: usize) -> Option<&[u8]> {
        let start = idx.checked_mul(self.row_bytes)?;
        self.rows.get(start..start.checked_add(self.row_bytes)?)
    }
}

/// A table in the making.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    part: PathBuf,
    layout: Layout,
    file: File,
    n_done: usize,
}

impl Writer {
    /// Begins a table for this file, or takes up one that was left unfinished. Folders on the way are made.
    ///
    /// # Errors
    /// When the unfinished file cannot be made or read.
    pub fn begin(path: &Path, layout: Layout) -> Result<Writer, StoreError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("write", folder))?;
        }
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part);
        let mut file = options.map_err(failed("write", &part))?;
        let line = layout.line();
        let mut found = vec![0; line.len()];
        let n_bytes = file.metadata().map_err(failed("read", &part))?.len();
        let is_ours = file.read_exact(&mut found).is_ok() && found == line.as_bytes();
        let rows_bytes = usize::try_from(n_bytes).unwrap_or(0).saturating_sub(line.len());
        let n_done = if is_ours { (rows_bytes / layout.row_bytes.max(1)).min(layout.n_rows) } else { 0 };
        let end = (line.len() + n_done * layout.row_bytes) as u64;
        let begun = (|| {
            if !is_ours {
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                file.write_all(line.as_bytes())?;
            }
            file.set_len(end)?;
            file.seek(SeekFrom::Start(end))
        })();
        begun.map_err(failed("write", &part))?;
        Ok(Writer { path: path.to_owned(), part, layout, file, n_done })
    }

    /// How many rows are there.
    pub fn n_done(&self) -> usize {
        self.n_done
    }

    /// Appends whole rows; they are on the disk when this returns.
    ///
    /// # Errors
    /// When they cannot be written.
    ///
    /// # Panics
    /// When the bytes are no whole rows.
    pub fn push(&mut self, rows: &[u8]) -> Result<(), StoreError> {
        assert!(rows.len().is_multiple_of(self.layout.row_bytes.max(1)), "whole rows are appended");
        let written = self.file.write_all(rows).and_then(|()| self.file.sync_data());
        written.map_err(failed("write", &self.part))?;
        self.n_done += rows.len() / self.layout.row_bytes.max(1);
        Ok(())
    }

    /// The table, once all rows are there.
    ///
    /// # Errors
    /// When the file cannot be finished.
    ///
    /// # Panics
    /// When rows are missing.
    pub fn finish(mut self) -> Result<Rows, StoreError> {
        assert_eq!(self.n_done, self.layout.n_rows, "every row is there");
        let sum = sha256_of_file(&self.part)?;
        let written = self.file.write_all(sum.as_bytes()).and_then(|()| self.file.sync_all());
        written.and_then(|()| fs::rename(&self.part, &self.path)).map_err(failed("write", &self.path))?;
        let rows = Rows::open(&self.path, &self.layout)?;
        let vanished = || std::io::Error::other("it was changed by somebody else");
        rows.ok_or_else(|| failed("read", &self.path)(vanished()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(n_rows: usize) -> Layout {
        Layout { header: "numbers".to_string(), row_bytes: 3, n_rows }
    }

    #[test]
    fn a_table_that_was_left_is_taken_up_and_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/rows");
        let mut writer = Writer::begin(&path, layout(3)).expect("it begins");
        writer.push(b"abc").expect("a row");
        drop(writer);
        // half a row that the disk still took
        let mut part = OpenOptions::new().append(true).open(folder.path().join("deep/rows.part")).expect("it is there");
        part.write_all(b"x").expect("a byte");
        let mut writer = Writer::begin(&path, layout(3)).expect("it goes on");
        assert_eq!(writer.n_done(), 1);
        writer.push(b"defghi").expect("two rows");
        assert!(!path.exists());
        let rows = writer.finish().expect("all rows");
        assert_eq!([0, 1, 2].map(|idx| rows.row(idx).expect("a row").to_vec()), [*b"abc", *b"def", *b"ghi"]);
        assert_eq!(rows.row(3), None);
        assert!(Rows::open(&path, &layout(3)).expect("readable").is_some());
    }

    #[test]
    fn other_tables_and_damaged_ones_are_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows");
        assert!(Rows::open(&path, &layout(1)).expect("nothing is no error").is_none());
        let mut writer = Writer::begin(&path, layout(2)).expect("it begins");
        writer.push(b"abcdef").expect("two rows");
        writer.finish().expect("all rows");
        let others = [layout(1), layout(3), Layout { header: "others".to_string(), ..layout(2) }];
        assert!(others.iter().all(|other| Rows::open(&path, other).expect("readable").is_none()));
        let mut bytes = fs::read(&path).expect("it is there");
        let middle = bytes.len() - 66;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("ours");
        assert!(Rows::open(&path, &layout(2)).expect("readable").is_none());
        // an unfinished table of another kind is begun anew
        Writer::begin(&path, layout(2)).expect("it begins").push(b"abc").expect("a row");
        assert_eq!(Writer::begin(&path, others[1].clone()).expect("it begins").n_done(), 0);
    }
}
