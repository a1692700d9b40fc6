//! Measuring how a column is normalised, on the training split alone.

use super::column::Values;
use super::column::{Column, Kind, Normalization, as_numbers};
use super::error::DataError;
use super::number::{count, narrow};
use crate::graph::tensor::DType;

/// How quantities are brought to a common scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Normalize {
    /// Not at all.
    #[default]
    None,
    /// To 0..1: bytes by their greatest value, other numbers by the least and greatest of their channel in training.
    Unit,
    /// To mean 0 and standard deviation 1 of each channel in training.
    Standard,
}

/// Gives a column its normalisation, measured on the training samples.
pub(super) fn measure(name: &str, column: &mut Column, how: Normalize, training: &[usize]) -> Result<(), DataError> {
    let Kind::Numbers { channels_last, full_scale } = column.kind else { return Ok(()) };
    let is_bytes = column.values.dtype() == DType::U8;
    if how == Normalize::None {
        column.normalization = full_scale.filter(|_| is_bytes).map(|_| Normalization::identity());
        return Ok(());
    }
    to_numbers(name, column)?;
    column.normalization = None;
    let known = full_scale.or(is_bytes.then_some(255.0));
    column.normalization = Some(match (how, known) {
        (Normalize::Unit, Some(scale)) => Normalization { mean: vec![0.0], std: vec![scale], channels_last },
        (Normalize::Unit, None) => ranges(column, channels_last, training)?,
        (Normalize::Standard | Normalize::None, _) => moments(column, channels_last, training)?,
    });
    Ok(())
}

/// Lets batches of a column hold raw values, which the network normalises so.
pub(super) fn leave_raw(
    name: &str,
    column: &mut Column,
    normalization: Normalization,
    training: &[usize],
) -> Result<(), DataError> {
    let Normalization { mean, std, channels_last } = &normalization;
    if !matches!(column.kind, Kind::Numbers { .. }) {
        return Err(DataError::Request(format!("`{name}` holds no quantities, which could be normalised")));
    }
    let n_channels = n_channels(column, *channels_last, training);
    let is_whole = mean.iter().chain(std).all(|x| x.is_finite()) && std.iter().all(|&std| std != 0.0);
    if mean.len() != std.len() || !is_whole || ![1, n_channels].contains(&mean.len()) {
        let got = format!("{} means and {} deviations", mean.len(), std.len());
        let problem = format!("`{name}` has {n_channels} channels; a normalisation of {got} is none of them");
        return Err(DataError::Request(format!("{problem}, or not of finite numbers")));
    }
    to_numbers(name, column)?;
    column.normalization = Some(normalization);
    column.is_raw = true;
    Ok(())
}

fn to_numbers(name: &str, column: &mut Column) -> Result<(), DataError> {
    let Values::Dense(tensor) = &column.values else { return Ok(()) };
    let numbers = as_numbers(tensor).ok_or_else(|| {
        let problem = format!("elements of `{name}` are {}, which cannot be normalised", tensor.dtype());
        DataError::key("normalize", format!("{problem}; leave `normalize` out or convert them to f32"))
    })?;
    column.values = Values::Dense(numbers);
    Ok(())
}

fn moments(column: &Column, channels_last: bool, training: &[usize]) -> Result<Normalization, DataError> {
    let n_channels = n_channels(column, channels_last, training);
    let mut sums = vec![(0.0f64, 0usize); n_channels];
    for_each(column, channels_last, training, n_channels, |channel, x| {
        sums[channel].0 += x;
        sums[channel].1 += 1;
    })?;
    let means: Vec<f64> = sums.iter().map(|&(sum, n)| sum / count(n.max(1))).collect();
    let mut squares = vec![0.0f64; n_channels];
    for_each(column, channels_last, training, n_channels, |channel, x| {
        squares[channel] += (x - means[channel]).powi(2);
    })?;
    let std = squares.iter().zip(&sums).map(|(square, &(_, n))| (square / count(n.max(1))).sqrt());
    let std = std.map(|std| positive(narrow(std))).collect();
    Ok(Normalization { mean: means.into_iter().map(narrow).collect(), std, channels_last })
}

fn ranges(column: &Column, channels_last: bool, training: &[usize]) -> Result<Normalization, DataError> {
    let n_channels = n_channels(column, channels_last, training);
    let mut ends = vec![(f64::INFINITY, f64::NEG_INFINITY); n_channels];
    for_each(column, channels_last, training, n_channels, |channel, x| {
        ends[channel] = (ends[channel].0.min(x), ends[channel].1.max(x));
    })?;
    let ends = ends.iter().map(|&(least, greatest)| if least > greatest { (0.0, 1.0) } else { (least, greatest) });
    let (mean, std) = ends.map(|(least, greatest)| (narrow(least), positive(narrow(greatest - least)))).unzip();
    Ok(Normalization { mean, std, channels_last })
}

/// A channel that never changes is left at its own scale.
fn positive(std: f32) -> f32 {
    if std > 0.0 && std.is_finite() { std } else { 1.0 }
}

fn n_channels(column: &Column, channels_last: bool, training: &[usize]) -> usize {
    let shape = column.values.sample_shape(training.first().copied().unwrap_or(0));
    let channels = if channels_last { shape.last() } else { shape.first() };
    channels.copied().unwrap_or(1).max(1)
}

fn for_each(
    column: &Column,
    channels_last: bool,
    training: &[usize],
    n_channels: usize,
    mut visit: impl FnMut(usize, f64),
) -> Result<(), DataError> {
    let mut elements = Vec::new();
    for &sample in training {
        elements.clear();
        column.push_normalized(sample, &mut elements)?;
        let size = elements.len().div_ceil(n_channels).max(1);
        for (idx, &x) in elements.iter().enumerate() {
            let channel = if channels_last { idx % n_channels } else { idx / size };
            visit(channel, f64::from(x));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::tensor::Tensor;

    fn check(tensor: Tensor, full_scale: Option<f32>, how: Normalize, expected: Option<(&[f32], &[f32])>) {
        let kind = Kind::Numbers { channels_last: false, full_scale };
        let mut column = Column::new(Values::Dense(tensor), kind);
        measure("x", &mut column, how, &[0, 1]).expect("numbers");
        let got = column.normalization().map(|it| (&it.mean[..], &it.std[..]));
        assert_eq!(got, expected);
    }

    #[test]
    fn only_training_samples_are_measured() {
        let bytes = || Tensor::new(&[3, 1, 2], vec![0u8, 2, 4, 6, 255, 255]).expect("shape fits");
        check(bytes(), Some(255.0), Normalize::None, Some((&[0.0], &[1.0])));
        check(bytes(), None, Normalize::None, None);
        check(bytes(), None, Normalize::Unit, Some((&[0.0], &[255.0])));
        check(bytes(), Some(16.0), Normalize::Unit, Some((&[0.0], &[16.0])));
        check(bytes(), Some(255.0), Normalize::Standard, Some((&[3.0], &[5f32.sqrt()])));
        let floats = || Tensor::new(&[3, 2], vec![1f64, 7.0, 3.0, 7.0, 100.0, 100.0]).expect("shape fits");
        check(floats(), None, Normalize::None, None);
        check(floats(), None, Normalize::Unit, Some((&[1.0, 7.0], &[2.0, 1.0])));
        check(floats(), None, Normalize::Standard, Some((&[2.0, 7.0], &[1.0, 1.0])));
    }
}
