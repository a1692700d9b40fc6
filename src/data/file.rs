//! A file's bytes, inflated where it is gzip, within bounds that its size sets.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::error::DataError;

/// Deflate expands at most about a thousandfold; what claims more is not worth an allocation.
pub(super) const MOST_EXPANSION: u64 = 1100;

/// The first bytes of a gzip file (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The content of a file, inflated where it begins as gzip does, whatever its name.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    let bytes = fs::read(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    if bytes.starts_with(&GZIP) { inflate(&bytes).map_err(|problem| DataError::file(path, problem)) } else { Ok(bytes) }
}

/// Inflates gzip.
pub(super) fn inflate(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let read = MultiGzDecoder::new(bytes).read_to_end(&mut content);
    read.map_err(|error| format!("its gzip data cannot be inflated ({error}); fetch it again"))?;
    Ok(content)
}

/// A file as a stream that is inflated on the way, and the most bytes that can come of it.
pub(super) fn stream(path: &Path) -> Result<(Box<dyn Read>, u64), DataError> {
    let failed = |source| DataError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut head = Vec::new();
    file.by_ref().take(2).read_to_end(&mut head).map_err(failed)?;
    let is_gzip = head == GZIP;
    let whole = std::io::Cursor::new(head).chain(std::io::BufReader::new(file));
    if is_gzip {
        Ok((Box::new(MultiGzDecoder::new(whole)), length.saturating_mul(MOST_EXPANSION)))
    } else {
        Ok((Box::new(whole), length))
    }
}
