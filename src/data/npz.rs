//! NumPy's `.npz`, named arrays in a zip file, and `.npy`, a single one.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use npyz::{NpyFile, Order, TypeChar};
use zip::ZipArchive;
use zip::read::ZipFile;

use crate::graph::tensor::{DType, Tensor, TensorError};

/// Why an archive or an array in it cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    /// The file cannot be opened, or is no zip archive.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// the archive
        path: PathBuf,
        /// why
        source: io::Error,
    },
    /// An array cannot be a tensor.
    #[error("{}: array `{array}`: {problem}", path.display())]
    Array {
        /// the archive
        path: PathBuf,
        /// the array
        array: String,
        /// what is wrong with it
        problem: String,
    },
}

/// The arrays of an archive, in its order.
///
/// # Errors
/// When the file is no archive of arrays, or an array is of a type or layout that tensors do not have.
pub fn read(path: &Path) -> Result<Vec<(String, Tensor)>, NpzError> {
    each(path, &mut |name, array, room| Ok((name.to_string(), tensor(array, room)?)))
}

/// What the headers of an archive's arrays say; the arrays are not read.
///
/// # Errors
/// As [`read`].
pub fn headers(path: &Path) -> Result<Vec<Header>, NpzError> {
    each(path, &mut |name, array, room| {
        let (dtype, shape, _) = header(&array, room)?;
        Ok(Header { name: name.to_string(), dtype, shape })
    })
}

/// One array of an archive as it lies in it, and the room that is left.
type Visit<'a, T> = &'a mut dyn FnMut(&str, NpyFile<ZipFile<'_, io::BufReader<File>>>, &mut u64) -> Result<T, String>;

fn each<T>(path: &Path, visit: Visit<'_, T>) -> Result<Vec<T>, NpzError> {
    let io_error = |source| NpzError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io_error)?;
    let length = file.metadata().map_err(io_error)?.len();
    let mut archive = ZipArchive::new(io::BufReader::new(file)).map_err(|error| io_error(error.into()))?;
    let mut room = length.saturating_mul(MOST_EXPANSION);
    let mut visited = Vec::new();
    for idx in 0..archive.len() {
        let entry = archive.by_index(idx).map_err(|error| io_error(error.into()))?;
        let name = entry.name().map_err(|error| io_error(error.into()))?;
        let Some(name) = name.strip_suffix(".npy").map(str::to_string) else { continue };
        let array_error = |problem: String| NpzError::Array { path: path.to_owned(), array: name.clone(), problem };
        let array = NpyFile::new(entry).map_err(|error| array_error(error.to_string()))?;
        visited.push(visit(&name, array, &mut room).map_err(array_error)?);
    }
    Ok(visited)
}

/// Rows of several arrays of an archive, so many at a time, read as they are asked for: memory does not grow with their number.
#[derive(Debug)]
pub struct Rows {
    path: PathBuf,
    columns: Vec<(String, Receiver<Result<Tensor, String>>)>,
}

/// The first rows of these arrays, at most `n_most` of them, `batch_size` at a time, the last ones fewer. A thread an array reads
/// ahead, by two batches.
///
/// # Errors
/// When the file is no archive, an array is not in it, has no rows, or has another number of rows than the others.
pub fn rows(path: &Path, arrays: &[String], batch_size: usize, n_most: usize) -> Result<Rows, NpzError> {
    let headers = headers(path)?;
    let array_error =
        |array: &str, problem: String| NpzError::Array { path: path.to_owned(), array: array.to_string(), problem };
    let mut n_rows = None;
    let mut columns = Vec::new();
    for name in arrays {
        let known = || headers.iter().map(|header| header.name.as_str()).collect::<Vec<_>>().join(", ");
        let header = headers.iter().find(|header| header.name == *name);
        let header = header.ok_or_else(|| array_error(name, format!("is not there; there are: {}", known())))?;
        let n = header
            .shape
            .first()
            .copied()
            .filter(|&n| n > 0)
            .ok_or_else(|| array_error(name, "has no rows".to_string()))?;
        if n_rows.is_some_and(|n_rows| n_rows != n) {
            return Err(array_error(name, format!("has {n} rows, another array {}", n_rows.unwrap_or(0))));
        }
        n_rows = Some(n);
        let (sender, receiver) = sync_channel(2);
        let (path, name_of) = (path.to_owned(), name.clone());
        std::thread::spawn(move || {
            if let Err(problem) = send_rows(&path, &name_of, (batch_size.max(1), n_most), &sender) {
                // nobody listens any more
                let _ = sender.send(Err(problem));
            }
        });
        columns.push((name.clone(), receiver));
    }
    Ok(Rows { path: path.to_owned(), columns })
}

fn send_rows(
    path: &Path,
    name: &str,
    (batch_size, n_most): (usize, usize),
    sender: &SyncSender<Result<Tensor, String>>,
) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut room = file.metadata().map_err(|error| error.to_string())?.len().saturating_mul(MOST_EXPANSION);
    let mut archive = ZipArchive::new(io::BufReader::new(file)).map_err(|error| error.to_string())?;
    let entry = archive.by_name(&format!("{name}.npy")).map_err(|error| error.to_string())?;
    let array = NpyFile::new(entry).map_err(|error| error.to_string())?;
    let (dtype, shape, n_bytes) = header(&array, &mut room)?;
    let row_bytes = n_bytes / shape[0].max(1);
    let n_rows = shape[0].min(n_most);
    let mut from = array.into_inner();
    for start in (0..n_rows).step_by(batch_size) {
        let n = batch_size.min(n_rows - start);
        let mut batch = shape.clone();
        batch[0] = n;
        let tensor = read_tensor(&mut from, dtype, &batch, n * row_bytes)?;
        if sender.send(Ok(tensor)).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

impl Iterator for Rows {
    type Item = Result<Vec<(String, Tensor)>, NpzError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut batch = Vec::with_capacity(self.columns.len());
        for (name, receiver) in &self.columns {
            match receiver.recv().ok()? {
                Ok(tensor) => batch.push((name.clone(), tensor)),
                Err(problem) => {
                    let (path, array) = (self.path.clone(), name.clone());
                    return Some(Err(NpzError::Array { path, array, problem }));
                }
            }
        }
        (!batch.is_empty()).then_some(Ok(batch))
    }
}

/// The array of an `.npy` file.
///
/// # Errors
/// When the file is no array, or one of a type or layout that tensors do not have.
pub fn read_array(path: &Path) -> Result<Tensor, NpzError> {
    let io_error = |source| NpzError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io_error)?;
    let mut room = file.metadata().map_err(io_error)?.len();
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let array_error = |problem| NpzError::Array { path: path.to_owned(), array: name, problem };
    let array = NpyFile::new(io::BufReader::new(file)).map_err(|error| error.to_string());
    array.and_then(|array| tensor(array, &mut room)).map_err(array_error)
}

/// An archive may be compressed, at most about a thousandfold; what claims more, all arrays together, is not worth an
/// allocation.
const MOST_EXPANSION: u64 = 1100;

/// What an array's header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The array's name.
    pub name: String,
    /// Its element type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// The element type, shape and bytes that an array has; the bytes are taken from the room that is left.
fn header<R: Read>(array: &NpyFile<R>, room: &mut u64) -> Result<(DType, Vec<usize>, usize), String> {
    let npyz::DType::Plain(kind) = array.dtype() else {
        return Err("is a structured array; only plain numbers are read".to_string());
    };
    if kind.endianness() == npyz::Endianness::Big {
        return Err("is big-endian; save it with the machine's own byte order".to_string());
    }
    if array.order() == Order::Fortran && array.shape().len() > 1 {
        return Err("is in Fortran order; save it with numpy.ascontiguousarray".to_string());
    }
    let dtype = dtype(kind.type_char(), kind.size_field())
        .ok_or_else(|| format!("has the element type {kind}, which no tensor has"))?;
    let shape: Vec<usize> = array
        .shape()
        .iter()
        .map(|&dim| usize::try_from(dim).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    let too_large = || TensorError::TooLarge { dtype, shape: shape.clone() }.to_string();
    let n_bytes = crate::graph::tensor::n_elements(&shape).and_then(|n| dtype.n_bytes(n)).ok_or_else(too_large)?;
    let claimed = u64::try_from(n_bytes).map_err(|_| too_large())?;
    *room = room
        .checked_sub(claimed)
        .ok_or_else(|| format!("claims {claimed} bytes where so small an archive has room for {room} more"))?;
    Ok((dtype, shape, n_bytes))
}

/// Reads an array; its bytes are taken from the room that is left.
fn tensor<R: Read>(array: NpyFile<R>, room: &mut u64) -> Result<Tensor, String> {
    let (dtype, shape, n_bytes) = header(&array, room)?;
    read_tensor(&mut array.into_inner(), dtype, &shape, n_bytes)
}

fn read_tensor(from: &mut impl Read, dtype: DType, shape: &[usize], n_bytes: usize) -> Result<Tensor, String> {
    let mut bytes = vec![0u8; n_bytes];
    from.read_exact(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "ends before its rows do; save it again".to_string(),
        _ => error.to_string(),
    })?;
    Tensor::from_bytes(dtype, shape, Bytes::from(bytes)).map_err(|error| error.to_string())
}

fn dtype(kind: TypeChar, size: u64) -> Option<DType> {
    Some(match (kind, size) {
        (TypeChar::Float, 8) => DType::F64,
        (TypeChar::Float, 4) => DType::F32,
        (TypeChar::Float, 2) => DType::F16,
        (TypeChar::Int, 8) => DType::I64,
        (TypeChar::Int, 4) => DType::I32,
        (TypeChar::Int, 2) => DType::I16,
        (TypeChar::Int, 1) => DType::I8,
        (TypeChar::Uint, 8) => DType::U64,
        (TypeChar::Uint, 4) => DType::U32,
        (TypeChar::Uint, 2) => DType::U16,
        (TypeChar::Uint, 1) => DType::U8,
        (TypeChar::Bool, 1) => DType::Bool,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;
    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;

    /// A version 1.0 file of bytes: how many it claims to hold, and how many zeros it does.
    fn npy(claimed: usize, held: usize) -> Vec<u8> {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({claimed},), }}");
        let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        file.extend(format!("{header:<117}\n").bytes());
        file.resize(file.len() + held, 0);
        file
    }

    fn check(files: &[(&str, Vec<u8>)]) -> Result<Vec<(String, Vec<usize>)>, String> {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("arrays.npz");
        let mut archive = ZipWriter::new(File::create(&path).expect("the folder is there"));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        for (name, bytes) in files {
            archive.start_file(*name, options).expect("the name is new");
            archive.write_all(bytes).expect("the disk has room");
        }
        archive.finish().expect("the disk has room");
        let tensors = read(&path).map_err(|error| error.to_string())?;
        Ok(tensors.into_iter().map(|(name, tensor)| (name, tensor.shape().to_vec())).collect())
    }

    #[test]
    fn rows_come_a_batch_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let path = folder.path().join("arrays.npz");
        let mut archive = ZipWriter::new(File::create(&path).expect("the folder is there"));
        for (name, n) in [("a.npy", 5), ("b.npy", 5), ("c.npy", 4), ("d.npy", 0)] {
            archive.start_file(name, SimpleFileOptions::default()).expect("the name is new");
            archive.write_all(&npy(n, n)).expect("the disk has room");
        }
        archive.start_file("short.npy", SimpleFileOptions::default()).expect("the name is new");
        archive.write_all(&npy(5, 3)).expect("the disk has room");
        archive.finish().expect("the disk has room");
        let shapes_of = |arrays: &[&str], n_most: usize| {
            let arrays: Vec<String> = arrays.iter().map(ToString::to_string).collect();
            let batches = rows(&path, &arrays, 2, n_most).map_err(|error| error.to_string())?;
            let shape =
                |batch: Vec<(String, Tensor)>| batch.iter().map(|(_, tensor)| tensor.shape()[0]).collect::<Vec<_>>();
            batches.map(|batch| batch.map(shape).map_err(|error| error.to_string())).collect::<Result<Vec<_>, String>>()
        };
        let shapes = |arrays: &[&str]| shapes_of(arrays, usize::MAX);
        assert_eq!(shapes_of(&["a", "b"], 3), Ok(vec![vec![2, 2], vec![1, 1]]));
        assert_eq!(shapes(&["a", "b"]), Ok(vec![vec![2, 2], vec![2, 2], vec![1, 1]]));
        for (arrays, expected) in [
            (["a", "c"], "array `c`: has 4 rows, another array 5"),
            (["a", "e"], "array `e`: is not there; there are: a, b, c, d, short"),
            (["d", "a"], "array `d`: has no rows"),
            (["a", "short"], "array `short`: ends before its rows do; save it again"),
        ] {
            let error = shapes(&arrays).expect_err(expected);
            assert!(error.ends_with(expected), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_change_makes_it_panic(at in 0..130usize, byte in any::<u8>(), cut in 0..130usize) {
            let folder = tempfile::tempdir().expect("a folder for the test");
            let path = folder.path().join("a.npy");
            let mut bytes = npy(4, 4);
            bytes[at] = byte;
            for bytes in [&bytes[..], &bytes[..cut]] {
                std::fs::write(&path, bytes).expect("the disk has room");
                let _ = read_array(&path);
            }
        }
    }

    #[test]
    fn arrays_together_claim_no_more_than_an_archive_can_hold() {
        const SIZE: usize = 4_000_000; // compressed about 4 kB, which may claim 4.4 MB and a little
        let whole = || ("a.npy", npy(SIZE, SIZE));
        let expected = |names: &[&str]| Ok(names.iter().map(|name| (name.to_string(), vec![SIZE])).collect());
        assert_eq!(check(&[whole()]), expected(&["a"]));
        assert_eq!(check(&[whole(), ("readme.txt", Vec::new()), ("b.npy", npy(SIZE, SIZE))]), expected(&["a", "b"]));
        let cut = check(&[("b.npy", npy(SIZE, 0)), whole()]).expect_err("it ends early");
        assert!(!cut.contains("claims"), "alone it claims little enough: {cut}");
        let second = check(&[whole(), ("b.npy", npy(SIZE, 0))]).expect_err("there is no room for two");
        assert!(second.contains("array `b`: claims 4000000 bytes"), "{second}");
        let alone = check(&[("c.npy", npy(1 << 40, 0))]).expect_err("there is no room for one");
        assert!(alone.contains("array `c`: claims"), "{alone}");
    }
}
