//! IDX, the format of MNIST (<http://yann.lecun.com/exdb/mnist/>): a magic number, big-endian sizes, then the elements.

use std::path::Path;

use super::error::DataError;
use super::file;
use crate::graph::tensor::{Tensor, n_elements};

/// The array of an IDX file, inflated where it is gzip.
///
/// # Errors
/// When the file cannot be read, is no IDX file, or holds more or fewer elements than it says.
pub(super) fn read(path: &Path) -> Result<Tensor, DataError> {
    parse(&file::read(path)?).map_err(|problem| DataError::file(path, problem))
}

/// The array in these bytes; what is wrong with them otherwise.
pub(super) fn parse(bytes: &[u8]) -> Result<Tensor, String> {
    let (&[zero, nought, kind, rank], rest) =
        bytes.split_first_chunk().ok_or("ends before its magic number does; fetch it again")?;
    if (zero, nought) != (0, 0) {
        return Err(format!(
            "is no IDX file: it begins with {zero:#04x} {nought:#04x}, not with two zeros; is it of another `kind`?"
        ));
    }
    let n_sizes = usize::from(rank) * 4;
    let (sizes, elements) = rest.split_at_checked(n_sizes).ok_or("ends before its sizes do; fetch it again")?;
    let shape: Vec<usize> = big_endian(sizes, u32::from_be_bytes)
        .map(|size| usize::try_from(size).map_err(|error| error.to_string()))
        .collect::<Result<_, _>>()?;
    let n_bytes = element_bytes(kind)?;
    let expected = n_elements(&shape).and_then(|n| n.checked_mul(n_bytes));
    if expected != Some(elements.len()) {
        return Err(format!(
            "says its shape is {shape:?} at {n_bytes} bytes an element, but holds {} bytes; fetch it again",
            elements.len()
        ));
    }
    let tensor = match kind {
        0x08 => Tensor::new(&shape, elements.to_vec()),
        0x09 => Tensor::new(&shape, big_endian(elements, i8::from_be_bytes).collect()),
        0x0b => Tensor::new(&shape, big_endian(elements, i16::from_be_bytes).collect()),
        0x0c => Tensor::new(&shape, big_endian(elements, i32::from_be_bytes).collect()),
        0x0d => Tensor::new(&shape, big_endian(elements, f32::from_be_bytes).collect()),
        _ => Tensor::new(&shape, big_endian(elements, f64::from_be_bytes).collect()),
    };
    tensor.map_err(|error| error.to_string())
}

fn element_bytes(kind: u8) -> Result<usize, String> {
    match kind {
        0x08 | 0x09 => Ok(1),
        0x0b => Ok(2),
        0x0c | 0x0d => Ok(4),
        0x0e => Ok(8),
        _ => Err(format!("has the element type {kind:#04x}, which IDX does not have; fetch it again")),
    }
}

fn big_endian<const N: usize, T>(bytes: &[u8], element: fn([u8; N]) -> T) -> impl Iterator<Item = T> {
    bytes.as_chunks::<N>().0.iter().map(move |&chunk| element(chunk))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(bytes: &[u8], expected: Result<&[usize], &str>) {
        match (parse(bytes), expected) {
            (Ok(tensor), Ok(shape)) => assert_eq!(tensor.shape(), shape),
            (Err(problem), Err(part)) => assert!(problem.contains(part), "{problem}"),
            (got, expected) => panic!("expected {expected:?}, got {got:?}"),
        }
    }

    #[test]
    fn arrays_of_every_type_and_files_that_are_none() {
        check(&[0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 7, 9], Ok(&[1, 2]));
        check(&[0, 0, 9, 1, 0, 0, 0, 1, 255], Ok(&[1]));
        check(&[0, 0, 0x0b, 1, 0, 0, 0, 1, 1, 0], Ok(&[1]));
        check(&[0, 0, 8, 0, 5], Ok(&[]));
        check(&[0, 0, 8, 1, 0, 0, 0, 0], Ok(&[0]));
        check(&[0, 0, 8], Err("magic number"));
        check(&[0, 0, 8, 1, 0, 0], Err("before its sizes"));
        check(&[0, 0, 8, 1, 0, 0, 0, 2, 1], Err("[2] at 1 bytes an element, but holds 1 bytes"));
        check(&[0, 0, 8, 1, 0, 0, 0, 1, 1, 1], Err("but holds 2 bytes"));
        check(&[0, 0, 7, 1, 0, 0, 0, 1, 1], Err("element type 0x07"));
        check(&[1, 0, 8, 1, 0, 0, 0, 1, 1], Err("0x01 0x00"));
        check(&[0, 0, 8, 255], Err("before its sizes"));
    }

    #[test]
    fn elements_are_big_endian() {
        let halves = parse(&[0, 0, 0x0b, 1, 0, 0, 0, 2, 1, 0, 255, 254]).expect("an array");
        assert_eq!(halves.as_slice::<i16>(), Ok(&[256, -2][..]));
        let float = parse(&[0, 0, 0x0d, 0, 0x3f, 0x80, 0, 0]).expect("an array");
        assert_eq!(float.as_slice::<f32>(), Ok(&[1.0][..]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..40), kind in 8u8..15) {
            let _ = parse(&bytes);
            if bytes.len() > 3 {
                bytes[..3].copy_from_slice(&[0, 0, kind]);
                bytes[3] %= 4;
                let _ = parse(&bytes);
            }
        }
    }
}
