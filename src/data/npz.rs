//! NumPy's `.npz`: named arrays in a zip file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use npyz::{NpyFile, Order, TypeChar};
use zip::ZipArchive;

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
    let io_error = |source| NpzError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io_error)?;
    let length = file.metadata().map_err(io_error)?.len();
    let mut archive = ZipArchive::new(io::BufReader::new(file)).map_err(|error| io_error(error.into()))?;
    let mut tensors = Vec::with_capacity(archive.len());
    for idx in 0..archive.len() {
        let entry = archive.by_index(idx).map_err(|error| io_error(error.into()))?;
        let name = entry.name().map_err(|error| io_error(error.into()))?;
        let Some(name) = name.strip_suffix(".npy").map(str::to_string) else { continue };
        let array_error = |problem: String| NpzError::Array { path: path.to_owned(), array: name.clone(), problem };
        let array = NpyFile::new(entry).map_err(|error| array_error(error.to_string()))?;
        let tensor = tensor(array, length).map_err(array_error)?;
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

/// An archive may be compressed, at most about a thousandfold; what claims more is not worth an allocation.
const MOST_EXPANSION: u64 = 1100;

fn tensor<R: Read>(array: NpyFile<R>, archive_length: u64) -> Result<Tensor, String> {
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
    if claimed > archive_length.saturating_mul(MOST_EXPANSION) {
        return Err(format!("claims {claimed} bytes in an archive of {archive_length}"));
    }
    let mut bytes = vec![0u8; n_bytes];
    array.into_inner().read_exact(&mut bytes).map_err(|error| error.to_string())?;
    Tensor::from_bytes(dtype, &shape, Bytes::from(bytes)).map_err(|error| error.to_string())
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
