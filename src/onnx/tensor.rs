//! `TensorProto` and `SparseTensorProto` to tensors and back: every element type, every way of storing it.

use std::fmt::Display;

use bytes::Bytes;

use super::error::{OnnxError, TensorProblem};
use super::external::External;
use super::wire::{EXTERNAL, SparseTensorProto, TensorProto};
use crate::graph::attribute::SparseTensor;
use crate::graph::shape::MOST_DIMS;
use crate::graph::tensor::bits;
use crate::graph::tensor::{DType, Element, Tensor, TensorError, n_elements};

/// The tensor that a message holds; raw bytes are shared with it.
///
/// # Errors
/// When type, dimensions and data do not belong together, or external data cannot be read.
pub(super) fn decode(proto: TensorProto, external: &mut External) -> Result<Tensor, OnnxError> {
    let tensor = proto.name.clone();
    decode_unnamed(proto, external).map_err(|problem| OnnxError::Tensor { tensor, problem })
}

/// The sparse tensor that a message holds; its name is that of the values.
///
/// # Errors
/// As [`decode`], and when indices and values do not belong together.
pub(super) fn decode_sparse(
    proto: SparseTensorProto,
    external: &mut External,
) -> Result<(String, SparseTensor), OnnxError> {
    let values = proto.values.unwrap_or_default();
    let name = values.name.clone();
    let refused = |problem| OnnxError::Tensor { tensor: name.clone(), problem };
    let shape = sizes(&proto.dims).map_err(refused)?;
    let values = decode_unnamed(values, external).map_err(refused)?;
    let indices = decode_unnamed(proto.indices.unwrap_or_default(), external).map_err(refused)?;
    let sparse = SparseTensor { values, indices, shape };
    check_sparse(&sparse).map_err(|problem| refused(TensorProblem::Storage(problem)))?;
    Ok((name, sparse))
}

/// The message that holds this tensor as raw data, which is shared; strings stay strings.
pub(super) fn encode(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        name: name.to_string(),
        dims: dims(tensor.shape()),
        data_type: tensor.dtype().onnx(),
        raw_data: tensor.bytes().cloned(),
        string_data: tensor.strings().map(<[Bytes]>::to_vec).unwrap_or_default(),
        ..TensorProto::default()
    }
}

/// The message that holds this sparse tensor.
pub(super) fn encode_sparse(name: &str, sparse: &SparseTensor) -> SparseTensorProto {
    SparseTensorProto {
        values: Some(encode(name, &sparse.values)),
        indices: Some(encode("", &sparse.indices)),
        dims: dims(&sparse.shape),
    }
}

fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&dim| i64::try_from(dim).expect("a tensor in memory has fewer than 2^63 elements")).collect()
}

fn sizes(dims: &[i64]) -> Result<Vec<usize>, TensorProblem> {
    if dims.len() > MOST_DIMS {
        return Err(TensorProblem::Dimensions(dims.len()));
    }
    dims.iter().map(|&dim| usize::try_from(dim).map_err(|_| TensorProblem::Dimension(dim))).collect()
}

fn decode_unnamed(mut proto: TensorProto, external: &mut External) -> Result<Tensor, TensorProblem> {
    let dtype = DType::from_onnx(proto.data_type).ok_or(TensorProblem::Type(proto.data_type))?;
    let shape = sizes(&proto.dims)?;
    if proto.segment.is_some() {
        return Err(TensorProblem::Storage("it is one segment of a larger tensor, which nothing can read".to_string()));
    }
    if proto.data_location == EXTERNAL {
        return load_external(&proto, dtype, &shape, external);
    }
    let raw = proto.raw_data.take().filter(|raw| !raw.is_empty());
    let typed = typed_fields(&proto);
    match (raw, typed.as_slice()) {
        (Some(raw), []) if dtype != DType::String => Ok(Tensor::from_bytes(dtype, &shape, raw)?),
        (Some(_), []) => Err(TensorProblem::Storage("strings cannot be raw data".to_string())),
        (Some(_), [field, ..]) => Err(TensorProblem::Storage(format!("it has data in raw_data and in {field}"))),
        (None, []) => without_data(dtype, &shape),
        (None, [field]) if *field == typed_field(dtype) => decode_typed(proto, dtype, &shape),
        (None, [field]) => Err(TensorProblem::Storage(format!("{dtype} elements cannot be in {field}"))),
        (None, [first, second, ..]) => Err(TensorProblem::Storage(format!("it has data in {first} and in {second}"))),
    }
}

fn without_data(dtype: DType, shape: &[usize]) -> Result<Tensor, TensorProblem> {
    if n_elements(shape) == Some(0) {
        return Ok(Tensor::zeros(dtype, shape)?);
    }
    Err(TensorProblem::Storage(format!("a {dtype} tensor of shape {shape:?} without data")))
}

fn typed_fields(proto: &TensorProto) -> Vec<&'static str> {
    [
        ("float_data", proto.float_data.is_empty()),
        ("int32_data", proto.int32_data.is_empty()),
        ("string_data", proto.string_data.is_empty()),
        ("int64_data", proto.int64_data.is_empty()),
        ("double_data", proto.double_data.is_empty()),
        ("uint64_data", proto.uint64_data.is_empty()),
    ]
    .into_iter()
    .filter(|(_, empty)| !empty)
    .map(|(field, _)| field)
    .collect()
}

fn typed_field(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::Complex64 => "float_data",
        DType::F64 | DType::Complex128 => "double_data",
        DType::I64 => "int64_data",
        DType::U64 | DType::U32 => "uint64_data",
        DType::String => "string_data",
        DType::F16 | DType::BF16 | DType::I32 | DType::I16 | DType::I8 | DType::U16 | DType::U8 => "int32_data",
        DType::Bool | DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::F4E2M1 => "int32_data",
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 => "int32_data",
        DType::F6E2M3 | DType::F6E3M2 => "int32_data",
    }
}

/// The elements of the typed field of this element type, the others being empty.
fn decode_typed(proto: TensorProto, dtype: DType, shape: &[usize]) -> Result<Tensor, TensorProblem> {
    let tensor = match dtype {
        DType::F32 => Tensor::new(shape, proto.float_data)?,
        DType::F64 => Tensor::new(shape, proto.double_data)?,
        DType::I64 => Tensor::new(shape, proto.int64_data)?,
        DType::U64 => Tensor::new(shape, proto.uint64_data)?,
        DType::I32 => Tensor::new(shape, proto.int32_data)?,
        DType::String => Tensor::from_strings(shape, proto.string_data)?,
        DType::U32 => Tensor::new(shape, narrowed::<u64, u32>(&proto.uint64_data, dtype)?)?,
        DType::I16 => Tensor::new(shape, narrowed::<i32, i16>(&proto.int32_data, dtype)?)?,
        DType::U16 => Tensor::new(shape, narrowed::<i32, u16>(&proto.int32_data, dtype)?)?,
        DType::I8 => Tensor::new(shape, narrowed::<i32, i8>(&proto.int32_data, dtype)?)?,
        DType::Complex64 => over(dtype, shape, bytemuck::cast_slice(&proto.float_data))?,
        DType::Complex128 => over(dtype, shape, bytemuck::cast_slice(&proto.double_data))?,
        DType::F16 | DType::BF16 => {
            over(dtype, shape, bytemuck::cast_slice(&narrowed::<i32, u16>(&proto.int32_data, dtype)?))?
        }
        DType::F6E2M3 | DType::F6E3M2 => six_bits(&proto.int32_data, dtype, shape)?,
        DType::I4 | DType::I2 => over(dtype, shape, &packed_signed(&proto.int32_data, dtype)?)?,
        DType::U8
        | DType::Bool
        | DType::U4
        | DType::U2
        | DType::F4E2M1
        | DType::F8E4M3FN
        | DType::F8E4M3FNUZ
        | DType::F8E5M2
        | DType::F8E5M2FNUZ
        | DType::F8E8M0 => over(dtype, shape, &narrowed::<i32, u8>(&proto.int32_data, dtype)?)?,
    };
    Ok(tensor)
}

fn over(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Tensor, TensorError> {
    Tensor::from_bytes(dtype, shape, Bytes::copy_from_slice(bytes))
}

fn narrowed<Wide: Copy + Display, Narrow: TryFrom<Wide>>(
    wide: &[Wide],
    dtype: DType,
) -> Result<Vec<Narrow>, TensorProblem> {
    let narrow = |&element: &Wide| Narrow::try_from(element).map_err(|_| outside(element, dtype));
    wide.iter().map(narrow).collect()
}

/// Each entry is one element, unlike in raw data.
fn six_bits(entries: &[i32], dtype: DType, shape: &[usize]) -> Result<Tensor, TensorProblem> {
    let code = |&entry: &i32| {
        u8::try_from(entry).ok().filter(|&code| code < 1 << dtype.n_bits()).ok_or_else(|| outside(entry, dtype))
    };
    let codes = entries.iter().map(code).collect::<Result<Vec<_>, _>>()?;
    let expected = n_elements(shape).ok_or_else(|| TensorError::TooLarge { dtype, shape: shape.to_vec() })?;
    if expected != codes.len() {
        let (shape, got, unit) = (shape.to_vec(), codes.len(), "elements");
        return Err(TensorError::Length { dtype, shape, expected, got, unit }.into());
    }
    Ok(Tensor::from_bytes(dtype, shape, bits::pack(dtype.n_bits(), &codes).into())?)
}

/// Each entry is a byte of packed elements; some writers let its sign bit reach into the rest.
fn packed_signed(entries: &[i32], dtype: DType) -> Result<Vec<u8>, TensorProblem> {
    let byte = |&entry: &i32| {
        u8::try_from(entry).or_else(|_| i8::try_from(entry).map(i8::cast_unsigned)).map_err(|_| outside(entry, dtype))
    };
    entries.iter().map(byte).collect()
}

fn outside(element: impl Display, dtype: DType) -> TensorProblem {
    TensorProblem::Storage(format!("{element} is no {dtype}"))
}

fn load_external(
    proto: &TensorProto,
    dtype: DType,
    shape: &[usize],
    external: &mut External,
) -> Result<Tensor, TensorProblem> {
    let entry = |key: &str| proto.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(text) => text
            .trim()
            .parse::<u64>()
            .map(Some)
            .map_err(|_| TensorProblem::External(format!("{key} `{text}` is no number of bytes"))),
    };
    let too_large = || TensorError::TooLarge { dtype, shape: shape.to_vec() };
    if dtype == DType::String {
        return Err(TensorProblem::External("strings cannot be external".to_string()));
    }
    let location = entry("location").ok_or_else(|| TensorProblem::External("`location` is missing".to_string()))?;
    let n_bytes = n_elements(shape).and_then(|n| dtype.n_bytes(n)).ok_or_else(too_large)?;
    let length = u64::try_from(n_bytes).map_err(|_| too_large())?;
    if let Some(stated) = number("length")?.filter(|&stated| stated != length) {
        return Err(TensorProblem::External(format!(
            "a {dtype} tensor of shape {shape:?} takes {length} bytes, `length` says {stated}"
        )));
    }
    let bytes = external.load(location, number("offset")?.unwrap_or(0), length)?;
    Ok(Tensor::from_bytes(dtype, shape, bytes)?)
}

fn check_sparse(sparse: &SparseTensor) -> Result<(), String> {
    let &[n_kept] = sparse.values.shape() else {
        return Err(format!("the kept values of a sparse tensor are a list, not of shape {:?}", sparse.values.shape()));
    };
    let rank = sparse.shape.len();
    let indices = elements::<i64>(&sparse.indices)?;
    let bounds = match *sparse.indices.shape() {
        [n] if n == n_kept => vec![n_elements(&sparse.shape).ok_or("its dimensions are too large")?],
        [n, n_axes] if n == n_kept && n_axes == rank => sparse.shape.clone(),
        ref other => {
            return Err(format!("{n_kept} kept values of {rank} dimensions cannot have indices of shape {other:?}"));
        }
    };
    let outside = indices
        .iter()
        .zip(bounds.iter().cycle())
        .find(|&(&index, &bound)| usize::try_from(index).map_or(true, |index| index >= bound));
    outside.map_or(Ok(()), |(index, bound)| Err(format!("index {index} is outside 0 to {bound}")))
}

fn elements<T: Element>(tensor: &Tensor) -> Result<&[T], String> {
    tensor.as_slice::<T>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use prost::Message;

    fn read(proto: TensorProto) -> Result<Tensor, String> {
        decode(proto, &mut External::new(None)).map_err(|error| error.to_string())
    }

    fn proto(dtype: DType, dims: &[i64]) -> TensorProto {
        TensorProto { name: "w".into(), data_type: dtype.onnx(), dims: dims.to_vec(), ..TensorProto::default() }
    }

    #[test]
    fn every_typed_field_is_read() {
        let check = |proto: TensorProto, raw: &[u8]| {
            let shape: Vec<usize> = proto.dims.iter().map(|&dim| usize::try_from(dim).expect("a size")).collect();
            let dtype = DType::from_onnx(proto.data_type).expect("a type");
            let expected = Tensor::from_bytes(dtype, &shape, Bytes::copy_from_slice(raw)).expect("right length");
            assert_eq!(read(proto), Ok(expected));
        };
        check(TensorProto { float_data: vec![1.5], ..proto(DType::F32, &[]) }, &1.5f32.to_le_bytes());
        check(TensorProto { double_data: vec![1.5], ..proto(DType::F64, &[1]) }, &1.5f64.to_le_bytes());
        check(TensorProto { int64_data: vec![-2], ..proto(DType::I64, &[1]) }, &(-2i64).to_le_bytes());
        check(TensorProto { uint64_data: vec![7], ..proto(DType::U64, &[1]) }, &7u64.to_le_bytes());
        check(TensorProto { uint64_data: vec![7], ..proto(DType::U32, &[1]) }, &7u32.to_le_bytes());
        check(
            TensorProto { float_data: vec![1.0, 2.0], ..proto(DType::Complex64, &[1]) },
            &[0, 0, 128, 63, 0, 0, 0, 64],
        );
        let ints = |dtype, dims: &[i64], entries: &[i32], raw: &[u8]| {
            check(TensorProto { int32_data: entries.to_vec(), ..proto(dtype, dims) }, raw);
        };
        ints(DType::I32, &[1], &[-2], &(-2i32).to_le_bytes());
        ints(DType::I16, &[1], &[-2], &(-2i16).to_le_bytes());
        ints(DType::U16, &[1], &[65535], &[255, 255]);
        ints(DType::I8, &[2], &[-2, 3], &[254, 3]);
        ints(DType::U8, &[2], &[200, 3], &[200, 3]);
        ints(DType::Bool, &[2], &[1, 0], &[1, 0]);
        ints(DType::F16, &[1], &[0x3c00], &f16::ONE.to_le_bytes());
        ints(DType::BF16, &[1], &[0x3f80], &[0x80, 0x3f]);
        ints(DType::I4, &[3], &[0x21, 3], &[0x21, 3]);
        ints(DType::I4, &[2], &[-1], &[0xff]);
        ints(DType::U4, &[3], &[0x21, 3], &[0x21, 3]);
        ints(DType::U2, &[5], &[0xe4, 1], &[0xe4, 1]);
        ints(DType::I2, &[4], &[0xe4], &[0xe4]);
        ints(DType::F4E2M1, &[2], &[0x21], &[0x21]);
        for dtype in [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ, DType::F8E8M0] {
            ints(dtype, &[2], &[0x38, 0xff], &[0x38, 0xff]);
        }
    }

    /// Messages by `numpy_helper.from_array` and `helper.make_tensor` of Python's onnx 1.23, which hold 1, -2.5, 0.5, 3
    /// and -0.25.
    #[test]
    fn six_bits_are_packed_in_raw_data_only() {
        let check = |message: &[u8], dtype, raw: &[u8]| {
            let proto = TensorProto::decode(message).expect("a message");
            let expected = Tensor::from_bytes(dtype, &[5], Bytes::copy_from_slice(raw)).expect("thirty bits");
            assert_eq!(read(proto), Ok(expected));
        };
        let (e2m3, e3m2) = (&[0x88, 0x4c, 0x50, 0x22], &[0x4c, 0x8c, 0x48, 0x24]);
        check(b"\x08\x05\x10\x1bB\x01wJ\x04\x88LP\x22", DType::F6E2M3, e2m3);
        check(b"\x08\x05\x10\x1b*\x05\x08\x32\x04\x14\x22B\x01w", DType::F6E2M3, e2m3);
        check(b"\x08\x05\x10\x1cB\x01wJ\x04L\x8cH\x24", DType::F6E3M2, e3m2);
        check(b"\x08\x05\x10\x1c*\x05\x0c\x31\x08\x12\x24B\x01w", DType::F6E3M2, e3m2);
    }

    #[test]
    fn strings_and_empty_tensors_are_read() {
        let strings = vec![Bytes::from_static(b"a"), Bytes::new()];
        let expected = Tensor::from_strings(&[2], strings.clone()).expect("two");
        assert_eq!(read(TensorProto { string_data: strings, ..proto(DType::String, &[2]) }), Ok(expected));
        assert_eq!(read(proto(DType::F32, &[0, 3])), Ok(Tensor::zeros(DType::F32, &[0, 3]).expect("empty")));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let check = |proto: TensorProto, expected: &str| {
            assert_eq!(read(proto), Err(format!("tensor `w`: {expected}")));
        };
        let raw = |dtype, dims: &[i64], bytes: &[u8]| TensorProto {
            raw_data: Some(Bytes::copy_from_slice(bytes)),
            ..proto(dtype, dims)
        };
        let unknown = |number| TensorProto { data_type: number, ..proto(DType::F32, &[]) };
        check(unknown(0), "element type 0 is unknown");
        check(unknown(99), "element type 99 is unknown");
        check(raw(DType::F32, &[-1], &[0; 4]), "dimension -1 is no size");
        check(raw(DType::F32, &[2], &[0; 7]), "f32 tensor of shape [2] takes 8 bytes, got 7");
        check(raw(DType::Bool, &[1], &[2]), "bool tensor holds a byte other than 0 and 1");
        check(raw(DType::String, &[1], b"a"), "strings cannot be raw data");
        check(
            raw(DType::F32, &[i64::MAX, 4], &[0; 4]),
            "f32 tensor of shape [9223372036854775807, 4] does not fit this machine's memory",
        );
        let sixes = |entries: &[i32]| TensorProto { int32_data: entries.to_vec(), ..proto(DType::F6E2M3, &[2]) };
        check(sixes(&[63, 64]), "64 is no f6e2m3");
        check(sixes(&[-1, 0]), "-1 is no f6e2m3");
        check(sixes(&[1, 2, 3]), "f6e2m3 tensor of shape [2] takes 2 elements, got 3");
        check(raw(DType::F6E3M2, &[3], &[0; 2]), "f6e3m2 tensor of shape [3] takes 3 bytes, got 2");
        check(proto(DType::F32, &[2]), "a f32 tensor of shape [2] without data");
        check(
            proto(DType::F32, &[i64::MAX, i64::MAX]),
            "a f32 tensor of shape [9223372036854775807, 9223372036854775807] without data",
        );
        check(
            TensorProto { float_data: vec![0.0; 3], ..proto(DType::F32, &[2]) },
            "f32 tensor of shape [2] takes 2 elements, got 3",
        );
        check(TensorProto { int32_data: vec![0], ..proto(DType::F32, &[1]) }, "f32 elements cannot be in int32_data");
        check(TensorProto { int32_data: vec![300], ..proto(DType::U8, &[1]) }, "300 is no u8");
        check(TensorProto { int32_data: vec![-129], ..proto(DType::I4, &[2]) }, "-129 is no i4");
        check(TensorProto { uint64_data: vec![1 << 32], ..proto(DType::U32, &[1]) }, "4294967296 is no u32");
        check(
            TensorProto { float_data: vec![0.0], ..raw(DType::F32, &[1], &[0; 4]) },
            "it has data in raw_data and in float_data",
        );
        check(
            TensorProto { float_data: vec![0.0], int32_data: vec![0], ..proto(DType::F32, &[1]) },
            "it has data in float_data and in int32_data",
        );
        check(
            TensorProto { segment: Some(Default::default()), ..raw(DType::F32, &[1], &[0; 4]) },
            "it is one segment of a larger tensor, which nothing can read",
        );
    }

    #[test]
    fn external_entries_are_checked() {
        let check = |dtype, entries: &[(&str, &str)], expected: &str| {
            let external_data = entries.iter().map(|&(key, value)| super::super::wire::entry(key, value)).collect();
            let proto = TensorProto { data_location: EXTERNAL, external_data, ..proto(dtype, &[2]) };
            assert_eq!(read(proto), Err(format!("tensor `w`: external data: {expected}")));
        };
        check(DType::F32, &[], "`location` is missing");
        check(DType::F32, &[("location", "w"), ("offset", "-1")], "offset `-1` is no number of bytes");
        check(
            DType::F32,
            &[("location", "w"), ("length", "9")],
            "a f32 tensor of shape [2] takes 8 bytes, `length` says 9",
        );
        check(DType::String, &[("location", "w")], "strings cannot be external");
        check(DType::F32, &[("location", "w")], "`w` cannot be read: the model did not come from a folder");
    }

    #[test]
    fn sparse_tensors_are_checked_and_come_back() {
        let tensor = |shape: &[usize], indices: Vec<i64>, whole: &[usize]| SparseTensor {
            values: Tensor::vector(vec![1f32, 2.0]),
            indices: Tensor::new(shape, indices).expect("shape fits"),
            shape: whole.to_vec(),
        };
        let read = |sparse: &SparseTensor| {
            decode_sparse(encode_sparse("s", sparse), &mut External::new(None)).map_err(|error| error.to_string())
        };
        for sparse in [tensor(&[2], vec![0, 5], &[2, 3]), tensor(&[2, 2], vec![0, 0, 1, 2], &[2, 3])] {
            assert_eq!(read(&sparse), Ok(("s".to_string(), sparse)));
        }
        let refused = [
            (tensor(&[2], vec![0, 6], &[2, 3]), "index 6 is outside 0 to 6"),
            (tensor(&[2, 2], vec![0, 0, 1, -1], &[2, 3]), "index -1 is outside 0 to 3"),
            (tensor(&[1], vec![0], &[2, 3]), "2 kept values of 2 dimensions cannot have indices of shape [1]"),
        ];
        for (sparse, expected) in refused {
            assert_eq!(read(&sparse), Err(format!("tensor `s`: {expected}")));
        }
    }
}
