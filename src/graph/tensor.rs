//! Tensors: an element type, a shape and shared, aligned bytes.
//!
//! Every ONNX element type is kept as it is stored in the file; those that we compute with have typed views. A clone
//! shares the bytes. Nothing here knows about graphs or files.

pub(crate) mod bits;
mod rows;
mod turned;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytemuck::{CheckedBitPattern, NoUninit};
use bytes::Bytes;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
pub(crate) use turned::turned;

#[cfg(target_endian = "big")]
compile_error!("ONNX stores little-endian bytes and aludel views them in place: big-endian machines are not supported");

/// The element type of a tensor, named and numbered as in `TensorProto.DataType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // each variant is the ONNX type of that name
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    String,
    /// Two elements a byte, the first in the low half.
    I4,
    U4,
    /// Four elements a byte, the first in the lowest bits.
    I2,
    U2,
    F8E4M3FN,
    F8E4M3FNUZ,
    F8E5M2,
    F8E5M2FNUZ,
    F8E8M0,
    /// Two elements a byte, the first in the low half.
    F4E2M1,
    /// Four elements in three bytes, the first in the lowest bits.
    F6E2M3,
    F6E3M2,
    Complex64,
    Complex128,
}

/// (type, ONNX number, bits an element, name in listings)
const DTYPES: [(DType, i32, usize, &str); 28] = [
    (DType::F32, 1, 32, "f32"),
    (DType::U8, 2, 8, "u8"),
    (DType::I8, 3, 8, "i8"),
    (DType::U16, 4, 16, "u16"),
    (DType::I16, 5, 16, "i16"),
    (DType::I32, 6, 32, "i32"),
    (DType::I64, 7, 64, "i64"),
    (DType::String, 8, 0, "string"),
    (DType::Bool, 9, 8, "bool"),
    (DType::F16, 10, 16, "f16"),
    (DType::F64, 11, 64, "f64"),
    (DType::U32, 12, 32, "u32"),
    (DType::U64, 13, 64, "u64"),
    (DType::Complex64, 14, 64, "complex64"),
    (DType::Complex128, 15, 128, "complex128"),
    (DType::BF16, 16, 16, "bf16"),
    (DType::F8E4M3FN, 17, 8, "f8e4m3fn"),
    (DType::F8E4M3FNUZ, 18, 8, "f8e4m3fnuz"),
    (DType::F8E5M2, 19, 8, "f8e5m2"),
    (DType::F8E5M2FNUZ, 20, 8, "f8e5m2fnuz"),
    (DType::U4, 21, 4, "u4"),
    (DType::I4, 22, 4, "i4"),
    (DType::F4E2M1, 23, 4, "f4e2m1"),
    (DType::F8E8M0, 24, 8, "f8e8m0"),
    (DType::U2, 25, 2, "u2"),
    (DType::I2, 26, 2, "i2"),
    (DType::F6E2M3, 27, 6, "f6e2m3"),
    (DType::F6E3M2, 28, 6, "f6e3m2"),
];

impl DType {
    /// Every element type, in the order of its ONNX number.
    pub fn all() -> impl Iterator<Item = DType> {
        DTYPES.iter().map(|row| row.0)
    }

    fn row(self) -> &'static (DType, i32, usize, &'static str) {
        DTYPES.iter().find(|row| row.0 == self).expect("the table holds every element type")
    }

    /// The type with this number in `TensorProto.DataType`; none for 0 (undefined) and for numbers that are not in it.
    pub fn from_onnx(number: i32) -> Option<DType> {
        DTYPES.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    /// The number in `TensorProto.DataType`.
    pub fn onnx(self) -> i32 {
        self.row().1
    }

    /// The short name in listings and error messages: `f32`, `i64`, `f8e4m3fn`.
    pub fn name(self) -> &'static str {
        self.row().3
    }

    /// The type with this short name.
    pub fn from_name(name: &str) -> Option<DType> {
        DTYPES.iter().find(|row| row.3 == name).map(|row| row.0)
    }

    /// Bits an element takes; 0 for strings, whose elements have no fixed size.
    pub fn n_bits(self) -> usize {
        self.row().2
    }

    /// Bytes that `n_elements` take, packed types rounded up to a whole byte; none on overflow.
    pub fn n_bytes(self, n_elements: usize) -> Option<usize> {
        Some(n_elements.checked_mul(self.n_bits())?.div_ceil(8))
    }

    /// Floating point of any width, the 8-, 6- and 4-bit formats included.
    pub fn is_float(self) -> bool {
        match self {
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::F6E2M3 | DType::F6E3M2 => true,
            DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
                true
            }
            DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::I2 => false,
            DType::U64 | DType::U32 | DType::U16 | DType::U8 | DType::U4 | DType::U2 => false,
            DType::Bool | DType::String | DType::Complex64 | DType::Complex128 => false,
        }
    }

    /// The least and the greatest value of an integer type; none for the others.
    pub fn integer_range(self) -> Option<(i128, i128)> {
        let signed = match self {
            DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::I4 | DType::I2 => true,
            DType::U64 | DType::U32 | DType::U16 | DType::U8 | DType::U4 | DType::U2 => false,
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 | DType::F6E2M3 | DType::F6E3M2 => return None,
            DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 | DType::F4E2M1 => {
                return None;
            }
            DType::Bool | DType::String | DType::Complex64 | DType::Complex128 => return None,
        };
        let span = 1i128 << self.n_bits();
        Some(if signed { (-span / 2, span / 2 - 1) } else { (0, span - 1) })
    }

    /// An integer type of any width, `bool` not among them.
    pub fn is_integer(self) -> bool {
        self.integer_range().is_some()
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What can be wrong with a tensor's parts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The shape asks for another number of bytes or elements than there are.
    #[error("{dtype} tensor of shape {shape:?} takes {expected} {unit}, got {got}")]
    Length {
        /// element type
        dtype: DType,
        /// shape asked for
        shape: Vec<usize>,
        /// how many it takes
        expected: usize,
        /// how many there are
        got: usize,
        /// `bytes` or `elements`
        unit: &'static str,
    },
    /// The product of the dimensions, or the bytes they take, does not fit the address space.
    #[error("{dtype} tensor of shape {shape:?} does not fit this machine's memory")]
    TooLarge {
        /// element type
        dtype: DType,
        /// shape asked for
        shape: Vec<usize>,
    },
    /// A typed view of another type was asked for.
    #[error("expected a tensor of {expected}, got {got}")]
    Type {
        /// the view's type
        expected: DType,
        /// the tensor's type
        got: DType,
    },
    /// A `bool` tensor holds a byte that is neither 0 nor 1.
    #[error("bool tensor holds a byte other than 0 and 1")]
    NotBool,
    /// The operation is not defined for this element type.
    #[error("{what} is not defined for {dtype}")]
    Undefined {
        /// what was asked for
        what: &'static str,
        /// element type
        dtype: DType,
    },
}

/// A Rust type that a tensor can be viewed as, without copying.
pub trait Element: NoUninit + CheckedBitPattern + Copy + Send + Sync + fmt::Debug + PartialEq + 'static {
    /// The element type of such a tensor.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => { $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })* };
}
elements! {
    f64 => F64, f32 => F32, f16 => F16, bf16 => BF16, i64 => I64, i32 => I32, i16 => I16, i8 => I8,
    u64 => U64, u32 => U32, u16 => U16, u8 => U8, bool => Bool,
}

/// A vector whose bytes a [`Bytes`] can own.
struct Owned<T>(Vec<T>);

impl<T: Element> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// An element type, a shape (row-major, outermost first) and the elements.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Clone, PartialEq)]
enum Data {
    /// Little-endian, as in `raw_data`.
    Bytes(Arc<Buffer>),
    /// ONNX strings are bytes, by convention UTF-8.
    Strings(Arc<[Bytes]>),
}

/// Bytes as they came, and a copy at an aligned address once somebody wants a typed view of bytes that are not: a file's
/// weights lie in it at any offset, and most are only ever written again.
struct Buffer {
    bytes: Bytes,
    aligned: OnceLock<Bytes>,
}

impl Buffer {
    fn new(bytes: Bytes) -> Arc<Buffer> {
        Arc::new(Buffer { bytes, aligned: OnceLock::new() })
    }

    fn owning<T: Element>(elements: Vec<T>) -> Arc<Buffer> {
        Buffer::new(Bytes::from_owner(Owned(elements)))
    }

    /// The bytes at an address that is a multiple of `alignment` (1, 2, 4 or 8).
    fn aligned(&self, alignment: usize) -> &Bytes {
        if (self.bytes.as_ptr() as usize).is_multiple_of(alignment) {
            return &self.bytes;
        }
        self.aligned.get_or_init(|| {
            Bytes::from_owner(Owned::<u64>(bytemuck::pod_collect_to_vec(&self.bytes))).slice(..self.bytes.len())
        })
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Buffer) -> bool {
        self.bytes == other.bytes
    }
}

/// The number of elements of a shape; none on overflow. The empty shape is a scalar and has one.
pub fn n_elements(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

impl Tensor {
    /// A tensor over these elements, which are not copied.
    ///
    /// # Errors
    /// When the shape has another number of elements.
    pub fn new<T: Element>(shape: &[usize], elements: Vec<T>) -> Result<Tensor, TensorError> {
        let dtype = T::DTYPE;
        let expected = n_elements(shape).ok_or_else(|| too_large(dtype, shape))?;
        expect_length(dtype, shape, expected, elements.len(), "elements")?;
        Ok(Tensor { dtype, shape: shape.to_vec(), data: Data::Bytes(Buffer::owning(elements)) })
    }

    /// A one-dimensional tensor.
    pub fn vector<T: Element>(elements: Vec<T>) -> Tensor {
        let shape = vec![elements.len()];
        Tensor { dtype: T::DTYPE, shape, data: Data::Bytes(Buffer::owning(elements)) }
    }

    /// A tensor of no dimensions.
    pub fn scalar<T: Element>(element: T) -> Tensor {
        Tensor { dtype: T::DTYPE, shape: Vec::new(), data: Data::Bytes(Buffer::owning(vec![element])) }
    }

    /// A tensor over little-endian bytes as ONNX's `raw_data` has them. They are shared, not copied; the first typed view
    /// of bytes that are not aligned for the type copies them once.
    ///
    /// # Errors
    /// When the shape takes another number of bytes, for strings, and for a `bool` that is neither 0 nor 1.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: Bytes) -> Result<Tensor, TensorError> {
        if dtype == DType::String {
            return Err(TensorError::Undefined { what: "a tensor over raw bytes", dtype });
        }
        let expected = n_bytes(dtype, shape)?;
        expect_length(dtype, shape, expected, bytes.len(), "bytes")?;
        if dtype == DType::Bool && bytes.iter().any(|&byte| byte > 1) {
            return Err(TensorError::NotBool);
        }
        Ok(Tensor { dtype, shape: shape.to_vec(), data: Data::Bytes(Buffer::new(bytes)) })
    }

    /// A tensor of strings.
    ///
    /// # Errors
    /// When the shape has another number of elements.
    pub fn from_strings(shape: &[usize], strings: Vec<Bytes>) -> Result<Tensor, TensorError> {
        let dtype = DType::String;
        let expected = n_elements(shape).ok_or_else(|| too_large(dtype, shape))?;
        expect_length(dtype, shape, expected, strings.len(), "elements")?;
        Ok(Tensor { dtype, shape: shape.to_vec(), data: Data::Strings(strings.into()) })
    }

    /// A tensor of zeros (of empty strings, of `false`).
    ///
    /// # Errors
    /// When the shape does not fit the memory.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Tensor, TensorError> {
        if dtype == DType::String {
            let n = n_elements(shape).ok_or_else(|| too_large(dtype, shape))?;
            return Tensor::from_strings(shape, vec![Bytes::new(); n]);
        }
        Tensor::from_bytes(dtype, shape, Bytes::from(vec![0u8; n_bytes(dtype, shape)?]))
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        n_elements(&self.shape).expect("shapes are checked when they come in")
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The bytes that the elements take, in memory and as raw data in a file.
    pub fn n_bytes(&self) -> usize {
        match &self.data {
            Data::Bytes(buffer) => buffer.bytes.len(),
            Data::Strings(strings) => strings.iter().map(Bytes::len).sum(),
        }
    }

    /// The elements as little-endian bytes, as in ONNX's `raw_data`; none for strings.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.data {
            Data::Bytes(buffer) => Some(&buffer.bytes),
            Data::Strings(_) => None,
        }
    }

    /// The elements of a string tensor; none for the other types.
    pub fn strings(&self) -> Option<&[Bytes]> {
        match &self.data {
            Data::Bytes(_) => None,
            Data::Strings(strings) => Some(strings),
        }
    }

    /// The elements as a slice.
    ///
    /// # Errors
    /// When the tensor is of another type.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        match &self.data {
            Data::Bytes(buffer) if self.dtype == T::DTYPE => {
                let bytes = buffer.aligned(align_of::<T>());
                Ok(bytemuck::checked::try_cast_slice(bytes).expect("length and values are checked when they come in"))
            }
            Data::Bytes(_) | Data::Strings(_) => Err(TensorError::Type { expected: T::DTYPE, got: self.dtype }),
        }
    }

    /// The elements as a vector.
    ///
    /// # Errors
    /// When the tensor is of another type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, TensorError> {
        Ok(self.as_slice::<T>()?.to_vec())
    }

    /// The elements as `f32`: borrowed from an `f32` tensor, converted from the other float types of 16 bits and more.
    ///
    /// # Errors
    /// For the other types.
    pub fn to_f32s(&self) -> Result<Cow<'_, [f32]>, TensorError> {
        if let Ok(halves) = self.as_slice::<f16>() {
            let mut floats = vec![0f32; halves.len()];
            halves.convert_to_f32_slice(&mut floats);
            return Ok(Cow::Owned(floats));
        }
        if let Ok(halves) = self.as_slice::<bf16>() {
            return Ok(Cow::Owned(halves.iter().map(|x| x.to_f32()).collect()));
        }
        if let Ok(doubles) = self.as_slice::<f64>() {
            return Ok(Cow::Owned(doubles.iter().map(|&x| x as f32).collect()));
        }
        self.as_slice::<f32>().map(Cow::Borrowed)
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// When the shape has another number of elements.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Tensor, TensorError> {
        let expected = n_elements(shape).ok_or_else(|| too_large(self.dtype, shape))?;
        expect_length(self.dtype, shape, expected, self.len(), "elements")?;
        Ok(Tensor { dtype: self.dtype, shape: shape.to_vec(), data: self.data.clone() })
    }
}

impl fmt::Debug for Tensor {
    /// Type and shape, and the first elements of the common types.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        if let Ok(floats) = self.as_slice::<f32>() {
            write!(f, " {:?}", &floats[..floats.len().min(SHOWN)])?;
        }
        if let Ok(integers) = self.as_slice::<i64>() {
            write!(f, " {:?}", &integers[..integers.len().min(SHOWN)])?;
        }
        Ok(())
    }
}

fn n_bytes(dtype: DType, shape: &[usize]) -> Result<usize, TensorError> {
    n_elements(shape).and_then(|n| dtype.n_bytes(n)).ok_or_else(|| too_large(dtype, shape))
}

fn expect_length(
    dtype: DType,
    shape: &[usize],
    expected: usize,
    got: usize,
    unit: &'static str,
) -> Result<(), TensorError> {
    if expected == got {
        return Ok(());
    }
    Err(TensorError::Length { dtype, shape: shape.to_vec(), expected, got, unit })
}

fn too_large(dtype: DType, shape: &[usize]) -> TensorError {
    TensorError::TooLarge { dtype, shape: shape.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_views_need_the_right_type() {
        let tensor = Tensor::new(&[2, 2], vec![1f32, 2.0, 3.0, 4.0]).expect("shape fits");
        assert_eq!(tensor.as_slice::<f32>(), Ok(&[1f32, 2.0, 3.0, 4.0][..]));
        assert_eq!(tensor.as_slice::<i64>(), Err(TensorError::Type { expected: DType::I64, got: DType::F32 }));
    }

    #[test]
    fn misaligned_bytes_can_be_viewed() {
        let bytes = Bytes::from(vec![9u8, 0, 0, 128, 63, 0, 0, 0, 64, 1]);
        let tensor = Tensor::from_bytes(DType::F32, &[2], bytes.slice(1..9)).expect("eight bytes");
        assert_eq!(tensor.as_slice::<f32>(), Ok(&[1f32, 2.0][..]));
    }

    #[test]
    fn wrong_lengths_and_overflows_are_refused() {
        assert!(matches!(Tensor::new(&[3], vec![1i64]), Err(TensorError::Length { expected: 3, got: 1, .. })));
        let huge = [usize::MAX, 2];
        assert!(matches!(Tensor::zeros(DType::F32, &huge), Err(TensorError::TooLarge { .. })));
        assert_eq!(n_elements(&[usize::MAX, 2, 0]), Some(0));
    }

    #[test]
    fn packed_types_round_up_to_bytes() {
        assert_eq!(DType::I4.n_bytes(3), Some(2));
        assert_eq!(DType::U2.n_bytes(5), Some(2));
        assert_eq!(DType::F6E2M3.n_bytes(5), Some(4));
        assert!(Tensor::from_bytes(DType::U4, &[3], Bytes::from_static(&[0x21, 0x03])).is_ok());
    }

    #[test]
    fn bools_are_checked_when_they_come_in() {
        assert_eq!(Tensor::from_bytes(DType::Bool, &[1], Bytes::from_static(&[2])), Err(TensorError::NotBool));
        let tensor = Tensor::from_bytes(DType::Bool, &[2], Bytes::from_static(&[0, 1])).expect("bytes are 0 and 1");
        assert_eq!(tensor.as_slice::<bool>(), Ok(&[false, true][..]));
    }

    #[test]
    fn rows_are_parts_of_the_same_bytes() {
        let tensor = Tensor::new(&[3, 2], vec![1i64, 2, 3, 4, 5, 6]).expect("shape fits");
        assert_eq!(tensor.rows(1, 3), Tensor::new(&[2, 2], vec![3i64, 4, 5, 6]));
        assert!(tensor.rows(1, 4).is_err());
        assert!(Tensor::scalar(1f32).rows(0, 1).is_err());
        let packed = Tensor::from_bytes(DType::U4, &[3], Bytes::from_static(&[0x21, 0x03])).expect("three halves");
        assert!(packed.rows(0, 2).is_ok());
        assert!(packed.rows(1, 2).is_err());
        let sixes = Tensor::from_bytes(DType::F6E3M2, &[5, 2], Bytes::from_static(&[1, 2, 3, 4, 5, 6, 7, 8]));
        let sixes = sixes.expect("sixty bits");
        assert_eq!(sixes.rows(2, 4).map(|rows| rows.bytes().cloned()), Ok(Some(Bytes::from_static(&[4, 5, 6]))));
        assert!(sixes.rows(0, 1).is_err());
    }

    #[test]
    fn numbers_and_names_of_types_are_unique() {
        for dtype in DType::all() {
            assert_eq!(DType::from_onnx(dtype.onnx()), Some(dtype));
            assert_eq!(DType::from_name(dtype.name()), Some(dtype));
        }
    }
}
