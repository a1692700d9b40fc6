//! A named column: one value a sample, of one shape or of several lengths.

use half::f16;

use super::error::DataError;
use super::number::narrow;
use crate::graph::tensor::{DType, Element, Tensor};

/// The values of all samples.
#[derive(Clone, Debug)]
pub enum Values {
    /// One tensor, a row a sample: [n, …].
    Dense(Tensor),
    /// A tensor a sample, of one type and alike but for the first dimension.
    Ragged(Vec<Tensor>),
}

/// What is subtracted from every element of a channel, and by what it is then divided, before a sample goes into a batch.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// What is subtracted, one number a channel.
    pub mean: Vec<f32>,
    /// What the difference is divided by, one number a channel; none is zero.
    pub std: Vec<f32>,
    /// Whether the channels are a sample's last dimension; else they are its first.
    pub channels_last: bool,
}

/// What a column's elements are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Quantities, which may be normalised and augmented.
    Numbers {
        /// whether a sample's last dimension is its channels, and not its first
        channels_last: bool,
        /// the greatest value that an element can have, where the format says
        full_scale: Option<f32>,
    },
    /// Numbers of words, masks, lengths: given on as they are, and padded with this.
    Codes {
        /// what stands after the end of a shorter sample
        pad: i64,
    },
    /// Text that is to be cut into tokens.
    Text,
}

/// A named column.
#[derive(Clone, Debug)]
pub struct Column {
    pub(super) values: Values,
    pub(super) kind: Kind,
    pub(super) normalization: Option<Normalization>,
    /// Whether batches hold raw values, since the network normalises.
    pub(super) is_raw: bool,
    /// What the elements of a table's row are, by the file: a column, or `column=category`; empty of other data.
    pub(super) features: Vec<String>,
    /// The shape of a sample in batches, where it is another than that of its values.
    pub(super) shape: Option<Vec<usize>>,
}

impl Values {
    /// The number of samples.
    pub fn n_samples(&self) -> usize {
        match self {
            Values::Dense(tensor) => tensor.shape().first().copied().unwrap_or(0),
            Values::Ragged(tensors) => tensors.len(),
        }
    }

    /// The element type; `f32` where there is no sample.
    pub fn dtype(&self) -> DType {
        match self {
            Values::Dense(tensor) => tensor.dtype(),
            Values::Ragged(tensors) => tensors.first().map_or(DType::F32, Tensor::dtype),
        }
    }

    /// The elements of a sample.
    pub(super) fn sample<T: Element>(&self, sample: usize) -> Result<&[T], DataError> {
        let elements = match self {
            Values::Dense(tensor) => {
                let size: usize = tensor.shape().get(1..).unwrap_or(&[]).iter().product();
                let start = sample.checked_mul(size);
                start.and_then(|start| tensor.as_slice::<T>().map(|all| all.get(start..start + size)).transpose())
            }
            Values::Ragged(tensors) => tensors.get(sample).map(Tensor::as_slice::<T>),
        };
        elements.unwrap_or(Ok(&[])).map_err(DataError::Tensor)
    }

    /// The shape of a sample.
    pub(super) fn sample_shape(&self, sample: usize) -> &[usize] {
        match self {
            Values::Dense(tensor) => tensor.shape().get(1..).unwrap_or(&[]),
            Values::Ragged(tensors) => tensors.get(sample).map_or(&[], Tensor::shape),
        }
    }

    /// The bytes of a sample: samples are the same where these are.
    pub(super) fn sample_bytes(&self, sample: usize) -> &[u8] {
        match self {
            Values::Dense(tensor) => match (tensor.bytes(), tensor.strings()) {
                (Some(bytes), _) => {
                    let size = bytes.len().checked_div(self.n_samples()).unwrap_or(0);
                    bytes.get(sample * size..(sample + 1) * size).unwrap_or(&[])
                }
                (None, Some(strings)) => strings.get(sample).map_or(&[], |text| &text[..]),
                (None, None) => &[],
            },
            Values::Ragged(tensors) => tensors.get(sample).and_then(Tensor::bytes).map_or(&[], |bytes| &bytes[..]),
        }
    }
}

impl Normalization {
    /// Leaves every element as it is.
    pub fn identity() -> Normalization {
        Normalization { mean: vec![0.0], std: vec![1.0], channels_last: false }
    }

    /// Normalises a sample: `(x - mean) / std` by channel.
    pub fn apply(&self, sample: &mut [f32]) {
        let n_channels = self.mean.len().max(1);
        if self.channels_last {
            for row in sample.chunks_mut(n_channels) {
                for ((x, mean), std) in row.iter_mut().zip(&self.mean).zip(&self.std) {
                    *x = (*x - mean) / std;
                }
            }
        } else {
            let size = sample.len().div_ceil(n_channels).max(1);
            for ((channel, mean), std) in sample.chunks_mut(size).zip(&self.mean).zip(&self.std) {
                channel.iter_mut().for_each(|x| *x = (*x - mean) / std);
            }
        }
    }

    /// The way back: `x * std + mean` by channel, up to rounding.
    pub(super) fn undo(&self, sample: &mut [f32]) {
        let back = self.mean.iter().zip(&self.std).map(|(mean, std)| (-mean / std, 1.0 / std));
        let (mean, std) = back.unzip();
        Normalization { mean, std, channels_last: self.channels_last }.apply(sample);
    }

    /// What a raw value becomes in each channel.
    pub(super) fn of(&self, raw: f32) -> Vec<f32> {
        self.mean.iter().zip(&self.std).map(|(mean, std)| (raw - mean) / std).collect()
    }
}

impl Column {
    pub(super) fn new(values: Values, kind: Kind) -> Column {
        Column { values, kind, normalization: None, is_raw: false, features: Vec::new(), shape: None }
    }

    /// The values as they were read, before normalisation.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// How the values are normalised on the way into a batch, or by the network where batches hold raw values; none where
    /// they are not.
    pub fn normalization(&self) -> Option<&Normalization> {
        self.normalization.as_ref()
    }

    /// What the normalisation subtracts, and by what it divides, as tensors that broadcast against a batch; none without
    /// one.
    ///
    /// # Errors
    /// When samples differ in the dimension that is their channels.
    pub fn broadcast_normalization(&self) -> Result<Option<[Tensor; 2]>, DataError> {
        let Some(Normalization { mean, std, channels_last }) = &self.normalization else { return Ok(None) };
        let own = self.values.sample_shape(0);
        if matches!(self.values, Values::Ragged(_)) && !channels_last && mean.len() > 1 {
            let problem = "samples differ in the number of their channels";
            return Err(DataError::key("normalize", format!("{problem}; leave `normalize` out")));
        }
        let shape = match (mean.len(), channels_last) {
            (1, _) => Vec::new(),
            (n, true) => vec![n],
            (n, false) => std::iter::once(n).chain(own.iter().skip(1).map(|_| 1)).collect(),
        };
        let tensor = |numbers: &[f32]| match &self.shape {
            Some(wanted) if numbers.len() > 1 => {
                let size = own.iter().product::<usize>().div_ceil(numbers.len()).max(1);
                let of = |idx: usize| if *channels_last { idx % numbers.len() } else { idx / size };
                let all = (0..own.iter().product()).filter_map(|idx| numbers.get(of(idx)).copied());
                Tensor::new(wanted, all.collect::<Vec<_>>())
            }
            _ => Tensor::new(&shape, numbers.to_vec()),
        };
        Ok(Some([tensor(mean)?, tensor(std)?]))
    }

    /// The element type in batches.
    pub fn dtype(&self) -> DType {
        if self.normalization.is_some() { DType::F32 } else { self.values.dtype() }
    }

    /// The shape of a sample in batches; none for a dimension in which samples differ.
    pub fn sample_shape(&self) -> Vec<Option<usize>> {
        if let Some(shape) = &self.shape {
            return shape.iter().copied().map(Some).collect();
        }
        let shape = self.values.sample_shape(0).iter().copied().map(Some);
        match &self.values {
            Values::Dense(_) => shape.collect(),
            Values::Ragged(_) => std::iter::once(None).chain(shape.skip(1)).collect(),
        }
    }

    /// The length of a sample whose first dimension differs from sample to sample.
    pub(super) fn ragged_length(&self, sample: usize) -> Option<usize> {
        match &self.values {
            Values::Dense(_) => None,
            Values::Ragged(tensors) => tensors.get(sample).and_then(|tensor| tensor.shape().first().copied()),
        }
    }

    /// Appends a sample as batches have it: normalised, unless they hold raw values.
    pub(super) fn push(&self, sample: usize, out: &mut Vec<f32>) -> Result<(), DataError> {
        if self.is_raw { self.push_raw(sample, out) } else { self.push_normalized(sample, out) }
    }

    /// Appends what stands after the end of a shorter sample until there are `end` elements: what becomes zero once it is
    /// normalised. What was appended from `start` on is of the sample.
    pub(super) fn pad(&self, start: usize, end: usize, out: &mut Vec<f32>) {
        let mean = self.normalization.as_ref().filter(|_| self.is_raw).map_or(&[][..], |it| &it.mean);
        let n_given = out.len() - start;
        out.extend((n_given..end - start).map(|idx| idx.checked_rem(mean.len()).map_or(0.0, |channel| mean[channel])));
    }

    /// Appends a sample, normalised.
    pub(super) fn push_normalized(&self, sample: usize, out: &mut Vec<f32>) -> Result<(), DataError> {
        let start = out.len();
        self.push_raw(sample, out)?;
        if let (Some(normalization), Some(sample)) = (&self.normalization, out.get_mut(start..)) {
            normalization.apply(sample);
        }
        Ok(())
    }

    fn push_raw(&self, sample: usize, out: &mut Vec<f32>) -> Result<(), DataError> {
        if self.values.dtype() == DType::U8 {
            out.extend(self.values.sample::<u8>(sample)?.iter().copied().map(f32::from));
        } else {
            out.extend_from_slice(self.values.sample::<f32>(sample)?);
        }
        Ok(())
    }
}

/// The same elements as `f32`, u8 and f32 as they are; none for types that are no numbers of a moderate size.
pub(super) fn as_numbers(tensor: &Tensor) -> Option<Tensor> {
    let to = |elements: Vec<f32>| Tensor::new(tensor.shape(), elements).ok();
    match tensor.dtype() {
        DType::U8 | DType::F32 => Some(tensor.clone()),
        DType::F64 => to(tensor.as_slice::<f64>().ok()?.iter().copied().map(narrow).collect()),
        DType::F16 => to(tensor.as_slice::<f16>().ok()?.iter().copied().map(f32::from).collect()),
        DType::I8 => to(tensor.as_slice::<i8>().ok()?.iter().copied().map(f32::from).collect()),
        DType::I16 => to(tensor.as_slice::<i16>().ok()?.iter().copied().map(f32::from).collect()),
        DType::I32 => to(tensor.as_slice::<i32>().ok()?.iter().copied().map(|x| narrow(x.into())).collect()),
        DType::U16 => to(tensor.as_slice::<u16>().ok()?.iter().copied().map(f32::from).collect()),
        DType::U32 => to(tensor.as_slice::<u32>().ok()?.iter().copied().map(|x| narrow(x.into())).collect()),
        DType::BF16 | DType::I64 | DType::U64 | DType::Bool | DType::String => None,
        DType::I4 | DType::U4 | DType::I2 | DType::U2 | DType::Complex64 | DType::Complex128 => None,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F8E8M0 => None,
        DType::F4E2M1 | DType::F6E2M3 | DType::F6E3M2 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_first_or_last() {
        let check = |channels_last, expected: [f32; 6]| {
            let normalization = Normalization { mean: vec![1.0, 2.0], std: vec![2.0, 4.0], channels_last };
            let mut sample = [1.0, 3.0, 5.0, 2.0, 6.0, 10.0];
            normalization.apply(&mut sample);
            assert_eq!(sample, expected);
        };
        check(false, [0.0, 1.0, 2.0, 0.0, 1.0, 2.0]);
        check(true, [0.0, 0.25, 2.0, 0.0, 2.5, 2.0]);
    }
}
