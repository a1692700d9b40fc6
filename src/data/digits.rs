//! Pictures of handwritten digits that are compiled in: the test part of UCI's optical digits (E. Alpaydin and C. Kaynak,
//! 1998, CC BY 4.0), 1,797 pictures of 8 × 8 pixels from 0 to 16.

use std::path::Path;

use indexmap::IndexMap;

use super::column::{Column, Kind, Values};
use super::error::DataError;
use super::file;
use super::labels::Raw;
use super::samples::{Part, Places, Samples};
use super::split::Split;
use crate::graph::tensor::Tensor;

/// Lines of 64 pixels and the digit.
const DIGITS: &[u8] = include_bytes!("../../models/digits/digits.csv.gz");

pub(super) fn read(input: &str) -> Result<Samples, DataError> {
    let path = Path::new("digits.csv.gz (compiled in)");
    let text = file::inflate(DIGITS).map_err(|problem| DataError::file(path, problem))?;
    let mut numbers = Vec::new();
    for number in text.split(|byte| *byte == b',' || *byte == b'\n').filter(|number| !number.is_empty()) {
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse::<u8>().ok());
        numbers.push(number.ok_or_else(|| DataError::file(path, "holds something that is no number"))?);
    }
    let rows = numbers.as_chunks::<65>().0;
    let labels: Vec<i64> = rows.iter().map(|[.., label]| i64::from(*label)).collect();
    let pixels: Vec<u8> = rows.iter().flat_map(|[pixels @ .., _]| pixels).copied().collect();
    let n_samples = labels.len();
    let values = Values::Dense(Tensor::new(&[n_samples, 1, 8, 8], pixels)?);
    let kind = Kind::Numbers { channels_last: false, full_scale: Some(16.0) };
    let lines = (1..).take(n_samples).collect();
    Ok(Samples {
        columns: IndexMap::from([(input.to_owned(), Column::new(values, kind))]),
        labels: Some(Raw::Ids(labels)),
        parts: vec![Part { path: path.to_owned(), split: Split::Train, n_samples, places: Places::Lines(lines) }],
        unseen: Vec::new(),
    })
}
