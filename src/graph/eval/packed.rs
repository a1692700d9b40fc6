//! Elements as bits: types of fewer than eight taken out of their bytes and put back, elements of any type moved about
//! without being looked at.

use bytes::Bytes;

use super::args::allocation;
use super::{EvalError, invalid};
use crate::graph::tensor::bits;
use crate::graph::tensor::{DType, Tensor};

/// The bits of each element of a type of at most eight, in a byte of its own.
///
/// # Errors
/// For wider types and strings.
pub(super) fn unpack(tensor: &Tensor) -> Result<Vec<u8>, EvalError> {
    let n_bits = narrow_bits(tensor.dtype())?;
    let bytes = tensor.bytes().ok_or_else(|| invalid("strings have no bits"))?;
    Ok(bits::unpack(n_bits, bytes, tensor.len()))
}

/// The way back; bits beyond the type's are dropped.
///
/// # Errors
/// For wider types and strings, and when the shape has another number of elements.
pub(super) fn pack(dtype: DType, shape: &[usize], elements: Vec<u8>) -> Result<Tensor, EvalError> {
    let n_bits = narrow_bits(dtype)?;
    if n_bits == 8 {
        return Ok(Tensor::from_bytes(dtype, shape, Bytes::from(elements))?);
    }
    let n_elements = allocation(shape)?;
    if n_elements != elements.len() {
        return Err(invalid(format!(
            "{dtype} tensor of shape {shape:?} takes {n_elements} elements, got {}",
            elements.len()
        )));
    }
    Ok(Tensor::from_bytes(dtype, shape, Bytes::from(bits::pack(n_bits, &elements)))?)
}

fn narrow_bits(dtype: DType) -> Result<usize, EvalError> {
    match dtype.n_bits() {
        n_bits @ 1..=8 => Ok(n_bits),
        _ => Err(EvalError::Undefined(format!("a byte an element for {dtype}"))),
    }
}

/// A tensor of this shape whose element number `i` is that which `from(i)` names: (which source, which of its elements
/// in row-major order). The sources are of one type, which may be any.
///
/// # Errors
/// When the sources' types differ, an element is asked for that is not there, or the shape is too large.
pub(super) fn pick(
    sources: &[&Tensor],
    shape: &[usize],
    from: impl FnMut(usize) -> (usize, usize),
) -> Result<Tensor, EvalError> {
    let Some(first) = sources.first() else {
        return Err(invalid("nothing to take elements from"));
    };
    let dtype = first.dtype();
    if let Some(other) = sources.iter().find(|source| source.dtype() != dtype) {
        return Err(invalid(format!("elements of {dtype} and of {} do not mix", other.dtype())));
    }
    let picks = (0..allocation(shape)?).map(from);
    let outside = |(source, idx): (usize, usize)| {
        let size = sources.get(source).map_or(0, |tensor| tensor.len());
        invalid(format!("there is no element {idx} in a tensor of {size}"))
    };
    if dtype == DType::String {
        let strings: Vec<&[Bytes]> = sources.iter().filter_map(|source| source.strings()).collect();
        let picked = picks.map(|at| strings.get(at.0).and_then(|s| s.get(at.1)).cloned().ok_or_else(|| outside(at)));
        return Ok(Tensor::from_strings(shape, picked.collect::<Result<_, _>>()?)?);
    }
    if dtype.n_bits() < 8 {
        let unpacked = sources.iter().map(|source| unpack(source)).collect::<Result<Vec<_>, _>>()?;
        let picked = picks.map(|at| unpacked.get(at.0).and_then(|s| s.get(at.1)).copied().ok_or_else(|| outside(at)));
        return pack(dtype, shape, picked.collect::<Result<_, _>>()?);
    }
    let size = dtype.n_bits() / 8;
    let bytes: Vec<&Bytes> = sources.iter().filter_map(|source| source.bytes()).collect();
    let mut picked = Vec::new();
    for at in picks {
        let start = at.1.checked_mul(size).ok_or_else(|| outside(at))?;
        let element = bytes.get(at.0).and_then(|bytes| bytes.get(start..start.checked_add(size)?));
        picked.extend_from_slice(element.ok_or_else(|| outside(at))?);
    }
    Ok(Tensor::from_bytes(dtype, shape, Bytes::from(picked))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::eval::testing::{elements, tensor};

    #[test]
    fn narrow_elements_come_back_in_order() {
        for (dtype, bits) in
            [(DType::U4, [9, 15, 0]), (DType::I2, [3, 0, 2]), (DType::F6E2M3, [33, 63, 30]), (DType::U8, [200, 7, 0])]
        {
            let packed = pack(dtype, &[3], bits.to_vec());
            assert_eq!(packed.and_then(|tensor| unpack(&tensor)), Ok(bits.to_vec()), "{dtype}");
        }
        assert!(pack(DType::U4, &[4], vec![1, 2, 3]).is_err());
        assert!(unpack(&tensor(&[1], [1f32])).is_err());
    }

    #[test]
    fn elements_of_any_type_are_picked() {
        let (a, b) = (tensor(&[2], [1i64, 2]), tensor(&[1], [3i64]));
        let mixed = |idx: usize| if idx == 1 { (1, 0) } else { (0, idx / 2) };
        assert_eq!(pick(&[&a, &b], &[3], mixed).map(|t| elements::<i64>(&t)), Ok(vec![1, 3, 2]));
        let nibbles = pack(DType::U4, &[3], vec![1, 2, 3]).expect("three elements");
        let reversed = pick(&[&nibbles], &[3], |idx| (0, 2 - idx)).and_then(|tensor| unpack(&tensor));
        assert_eq!(reversed, Ok(vec![3, 2, 1]));
        let sixes = pack(DType::F6E3M2, &[5], vec![1, 62, 3, 33, 5]).expect("five elements");
        let reversed = pick(&[&sixes], &[5], |idx| (0, 4 - idx)).and_then(|tensor| unpack(&tensor));
        assert_eq!(reversed, Ok(vec![5, 33, 3, 62, 1]));
        let strings = Tensor::from_strings(&[1], vec![Bytes::from("a")]).expect("one string");
        let twice = pick(&[&strings], &[2], |_| (0, 0)).expect("both are there");
        assert_eq!(twice.strings(), Some(&[Bytes::from("a"), Bytes::from("a")][..]));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let (a, b) = (tensor(&[2], [1i64, 2]), tensor(&[1], [3i32]));
        let message = |tensor: Result<Tensor, EvalError>| tensor.expect_err("refused").to_string();
        assert_eq!(message(pick(&[&a], &[1], |_| (0, 2))), "there is no element 2 in a tensor of 2");
        assert_eq!(message(pick(&[&a, &b], &[1], |_| (0, 0))), "elements of i64 and of i32 do not mix");
        assert!(matches!(pick(&[&a], &[1 << 40], |_| (0, 0)), Err(EvalError::TooLarge(_))));
    }
}
