//! Parts of tensors along their first dimension.

use super::{DType, Data, Tensor, TensorError, n_elements, too_large};

impl Tensor {
    /// The part from `start` to before `end` along the first dimension, sharing the bytes.
    ///
    /// # Errors
    /// For a scalar, for a part outside the tensor, and where packed elements do not end on a whole byte.
    pub fn rows(&self, start: usize, end: usize) -> Result<Tensor, TensorError> {
        let undefined = TensorError::Undefined { what: "taking these rows", dtype: self.dtype };
        let (&n_rows, rest) = self.shape.split_first().ok_or(undefined.clone())?;
        let per_row = n_elements(rest).ok_or_else(|| too_large(self.dtype, &self.shape))?;
        if start > end || end > n_rows {
            return Err(undefined);
        }
        let shape: Vec<usize> = [end - start].into_iter().chain(rest.iter().copied()).collect();
        match &self.data {
            Data::Strings(strings) => Tensor::from_strings(&shape, strings[start * per_row..end * per_row].to_vec()),
            Data::Bytes(buffer) => {
                let bits = self.dtype.n_bits() * per_row;
                if !(start * bits).is_multiple_of(8) || !(end * bits).is_multiple_of(8) {
                    return Err(undefined);
                }
                Tensor::from_bytes(self.dtype, &shape, buffer.bytes.slice(start * bits / 8..end * bits / 8))
            }
        }
    }

    /// The rows of several tensors, one after the other.
    ///
    /// # Errors
    /// When there is no tensor, one is a scalar or has another element type or other dimensions than the first but for the
    /// first of them, or elements are packed.
    pub fn concat_rows(parts: &[Tensor]) -> Result<Tensor, TensorError> {
        let first = parts.first().ok_or(TensorError::Undefined { what: "joining no rows", dtype: DType::F32 })?;
        let dtype = first.dtype;
        let undefined = TensorError::Undefined { what: "joining these rows", dtype };
        let (_, rest) = first.shape.split_first().ok_or(undefined.clone())?;
        let is_alike = |part: &&Tensor| part.dtype == dtype && part.shape.get(1..) == Some(rest) && part.rank() > 0;
        if dtype.n_bits() < 8 || !parts.iter().all(|part| is_alike(&part)) {
            return Err(undefined);
        }
        let n_rows = parts.iter().map(|part| part.shape[0]).sum();
        let shape: Vec<usize> = [n_rows].into_iter().chain(rest.iter().copied()).collect();
        if let Some(strings) = parts.iter().map(Tensor::strings).collect::<Option<Vec<_>>>() {
            return Tensor::from_strings(&shape, strings.concat());
        }
        let bytes: Vec<u8> = parts.iter().filter_map(Tensor::bytes).flat_map(|bytes| bytes.iter().copied()).collect();
        Tensor::from_bytes(dtype, &shape, bytes.into())
    }
}
