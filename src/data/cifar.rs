//! The binary layout of CIFAR-10 and CIFAR-100 (<https://www.cs.toronto.edu/~kriz/cifar.html>): records of one or two label
//! bytes and a picture of 3 × 32 × 32 bytes.

use std::path::Path;

use super::error::DataError;
use super::file;
use crate::graph::tensor::Tensor;

/// Which byte before a picture is its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LabelByte {
    /// CIFAR-10: the only one.
    #[default]
    Only,
    /// CIFAR-100: the first of two, one of 20 classes.
    Coarse,
    /// CIFAR-100: the second of two, one of 100 classes.
    Fine,
}

/// The bytes of a picture.
const PIXELS: usize = 3 * 32 * 32;

/// The pictures (u8 [n, 3, 32, 32]) and their labels.
///
/// # Errors
/// When the file cannot be read or is no whole number of records.
pub(super) fn read(path: &Path, label: LabelByte) -> Result<(Tensor, Vec<i64>), DataError> {
    parse(&file::read(path)?, label).map_err(|problem| DataError::file(path, problem))
}

fn parse(bytes: &[u8], label: LabelByte) -> Result<(Tensor, Vec<i64>), String> {
    let (n_labels, label_idx) = match label {
        LabelByte::Only => (1, 0),
        LabelByte::Coarse => (2, 0),
        LabelByte::Fine => (2, 1),
    };
    let record = PIXELS + n_labels;
    let records = bytes.chunks_exact(record);
    if bytes.is_empty() || !records.remainder().is_empty() {
        return Err(format!(
            "holds {} bytes, not a multiple of {record}, the size of a record with {n_labels} label byte(s); \
             fetch it again, or set `label_byte`",
            bytes.len()
        ));
    }
    let mut labels = Vec::with_capacity(records.len());
    let mut pixels = Vec::with_capacity(bytes.len());
    for record in records {
        let (record_labels, picture) = record.split_at(n_labels);
        labels.extend(record_labels.get(label_idx).map(|&label| i64::from(label)));
        pixels.extend_from_slice(picture);
    }
    let tensor = Tensor::new(&[labels.len(), 3, 32, 32], pixels).map_err(|error| error.to_string())?;
    Ok((tensor, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_whole() {
        let mut bytes = vec![3u8];
        bytes.resize(PIXELS + 1, 9);
        bytes.extend_from_slice(&bytes.clone());
        let (pictures, labels) = parse(&bytes, LabelByte::Only).expect("two records");
        assert_eq!((pictures.shape(), labels), (&[2, 3, 32, 32][..], vec![3, 3]));
        assert_eq!(pictures.as_slice::<u8>().expect("bytes").first(), Some(&9));
        for length in [0, 1, PIXELS, PIXELS + 2, bytes.len() - 1] {
            let problem = parse(&bytes[..length], LabelByte::Only).expect_err("no whole record");
            assert!(problem.contains(&format!("holds {length} bytes")), "{problem}");
        }
        let error = parse(&bytes, LabelByte::Fine).expect_err("records of two label bytes are longer");
        assert!(error.contains("3074"), "{error}");
        let two = vec![5u8; PIXELS + 2];
        assert_eq!(parse(&two, LabelByte::Fine).map(|read| read.1), Ok(vec![5]));
    }
}
