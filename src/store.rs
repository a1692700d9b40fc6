//! Files that are either wholly there or not at all, content hashes, and where our cache is.

pub mod rows;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}", path.display())]
pub struct StoreError {
    /// `read` or `write`
    pub doing: &'static str,
    /// the file
    pub path: PathBuf,
    /// why
    pub source: io::Error,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError { doing, path, source }
}

/// Files smaller than this are copied: that is as quick as mapping them.
const LEAST_MAPPED_BYTES: u64 = 1 << 20;

/// The whole file. A large one is not copied but mapped into memory, so that only the parts that are looked at are read
/// from the disk. Our own writers replace files and never change one in place; somebody else who cuts a mapped file short
/// while we read it stops the program.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path) -> Result<Bytes, StoreError> {
    mapped_or_copied(path).map_err(failed("read", path))
}

#[allow(unsafe_code)]
fn mapped_or_copied(path: &Path) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() < LEAST_MAPPED_BYTES {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        return Ok(Bytes::from(bytes));
    }
    // SAFETY: the map is read-only, and every user of aludel replaces files instead of writing into them.
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

/// Writes the file so that whoever opens it finds the old content or the new, never a part: into a temporary file in the
/// same folder, flushed to the disk, then renamed. A replaced file keeps its permissions; a new one gets the usual ones.
/// Folders on the way are made.
///
/// # Errors
/// When anything fails; the temporary file is then removed and an old file untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_atomic_with(path, |file| file.write_all(bytes))
}

/// Like [`write_atomic`], with content that `write` writes.
///
/// # Errors
/// When `write` does, and when the file cannot be made.
pub fn write_atomic_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), StoreError> {
    replace(path, write).map_err(failed("write", path))
}

fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    // Through a link, the file that it names is replaced, not the link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".aludel-");
    #[cfg(unix)]
    let builder = {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666)) // less the process's umask, as for any new file
    };
    let temporary = builder.tempfile_in(folder)?;
    let mut buffered = io::BufWriter::with_capacity(1 << 20, temporary.as_file());
    write(&mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    if let Ok(old) = fs::metadata(&target) {
        temporary.as_file().set_permissions(old.permissions())?;
    }
    temporary.as_file().sync_all()?;
    temporary.persist(&target).map_err(|error| error.error)?;
    sync_folder(folder)
}

/// Makes the rename itself last through a power cut; only Unix lets a folder be opened for it.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// A folder of our own for as long as the value lives, then removed with all that is in it.
///
/// # Errors
/// When it cannot be made.
pub fn temporary_folder() -> Result<tempfile::TempDir, StoreError> {
    let folder = tempfile::Builder::new().prefix("aludel-").tempdir();
    folder.map_err(failed("write", &std::env::temp_dir()))
}

/// SHA-256 of the bytes, in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// SHA-256 of a file's content, in lower-case hexadecimal, without holding it in memory.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String, StoreError> {
    let mut file = File::open(path).map_err(failed("read", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hexadecimal(&hash.finalize())),
            Ok(n) => hash.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("read", path)(error)),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where what can be had again is kept: `ALUDEL_CACHE`, else `aludel` in the system's folder for caches. None where
/// not even a home folder is known.
pub fn cache_folder() -> Option<PathBuf> {
    cache_folder_from(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn cache_folder_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(folder) = variable("ALUDEL_CACHE") {
        return Some(folder);
    }
    if let Some(folder) = variable("XDG_CACHE_HOME").filter(|folder| folder.is_absolute()) {
        return Some(folder.join("aludel"));
    }
    if cfg!(windows) {
        return Some(variable("LOCALAPPDATA")?.join("aludel").join("cache"));
    }
    let home = variable("HOME")?;
    let caches = if cfg!(target_os = "macos") { home.join("Library/Caches") } else { home.join(".cache") };
    Some(caches.join("aludel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("new/model.onnx");
        write_atomic(&path, b"old").expect("folders are made");
        let error = write_atomic_with(&path, |file| {
            file.write_all(b"ne")?;
            Err(io::Error::other("disk full"))
        });
        let text = error.expect_err("the writer failed").to_string();
        assert_eq!(text, format!("cannot write {}: disk full", path.display()));
        assert_eq!(read(&path).expect("still there"), &b"old"[..]);
        let n_files = fs::read_dir(path.parent().expect("it has one")).expect("a folder").count();
        assert_eq!(n_files, 1);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_the_old_file_s_or_the_usual() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mode = |path: &Path| fs::metadata(path).expect("written").permissions().mode() & 0o777;
        let usual = folder.path().join("usual");
        File::create(&usual).expect("a file");
        let path = folder.path().join("ours");
        write_atomic(&path, b"1").expect("written");
        assert_eq!(mode(&path), mode(&usual));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours to set");
        write_atomic(&path, b"2").expect("written");
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn hashes_are_sha256() {
        // FIPS 180-4, the example "abc"
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), expected);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("abc");
        write_atomic(&path, b"abc").expect("written");
        assert_eq!(sha256_of_file(&path).expect("readable"), expected);
        assert!(sha256_of_file(&folder.path().join("none")).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_cache_is_where_the_system_wants_it() {
        let check = |rows: &[(&str, &str)]| {
            cache_folder_from(|name| rows.iter().find(|row| row.0 == name).map(|row| PathBuf::from(row.1)))
        };
        assert_eq!(check(&[("HOME", "/h")]), Some("/h/.cache/aludel".into()));
        assert_eq!(check(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Some("/x/aludel".into()));
        assert_eq!(check(&[("XDG_CACHE_HOME", "/x"), ("ALUDEL_CACHE", "/a")]), Some("/a".into()));
        assert_eq!(check(&[]), None);
    }
}
