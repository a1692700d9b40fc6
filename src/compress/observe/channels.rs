//! What a value looks like channel by channel on data.

use indexmap::IndexMap;

use super::{ObserveError, each, for_batches};
use crate::graph::Name;
use crate::graph::probe::Forward;
use crate::graph::tensor::Tensor;

/// What was seen of each channel of a value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelStatistics {
    /// The axis of the channels.
    pub axis: usize,
    /// Elements of each channel.
    pub n: u64,
    /// The least element of each channel.
    pub min: Vec<f32>,
    /// The greatest element of each channel.
    pub max: Vec<f32>,
    /// The sum of each channel's elements.
    pub sum: Vec<f64>,
    /// The sum of each channel's squared elements.
    pub sum_of_squares: Vec<f64>,
    /// The sum of the magnitudes of each channel's elements.
    pub sum_of_magnitudes: Vec<f64>,
    /// Elements of each channel that are zero.
    pub n_zeros: Vec<u64>,
}

impl ChannelStatistics {
    /// Nothing seen yet.
    pub fn new(axis: usize) -> ChannelStatistics {
        ChannelStatistics { axis, ..ChannelStatistics::default() }
    }

    /// Counts a tensor of the value, its elements in their order.
    ///
    /// # Errors
    /// When it has no such axis, another number of channels than before, or an element is not finite.
    pub fn add(&mut self, name: &Name, tensor: &Tensor) -> Result<(), ObserveError> {
        let channels = |problem| ObserveError::Channels { value: name.clone(), problem };
        let n_channels = *tensor.shape().get(self.axis).ok_or_else(|| channels("has too few axes"))?;
        let elements = tensor.to_f32s()?;
        if let Some(x) = elements.iter().find(|x| !x.is_finite()) {
            return Err(ObserveError::not_finite(name, f64::from(*x)));
        }
        if elements.is_empty() {
            return Ok(());
        }
        if self.n == 0 {
            self.min = vec![f32::INFINITY; n_channels];
            self.max = vec![f32::NEG_INFINITY; n_channels];
            self.sum = vec![0.0; n_channels];
            self.sum_of_squares = vec![0.0; n_channels];
            self.sum_of_magnitudes = vec![0.0; n_channels];
            self.n_zeros = vec![0; n_channels];
        } else if self.sum.len() != n_channels {
            return Err(channels("changes in size from sample to sample"));
        }
        let n_inner: usize = tensor.shape()[self.axis + 1..].iter().product();
        for (row_idx, row) in elements.chunks(n_inner).enumerate() {
            let channel = row_idx % n_channels;
            for &x in row {
                self.min[channel] = self.min[channel].min(x);
                self.max[channel] = self.max[channel].max(x);
                self.sum[channel] += f64::from(x);
                self.sum_of_squares[channel] += f64::from(x) * f64::from(x);
                self.sum_of_magnitudes[channel] += f64::from(x.abs());
                self.n_zeros[channel] += u64::from(x == 0.0);
            }
        }
        self.n += (elements.len() / n_channels) as u64;
        Ok(())
    }

    /// How many channels there are; none before anything is seen.
    pub fn n_channels(&self) -> usize {
        self.sum.len()
    }

    /// The mean of a channel.
    pub fn mean(&self, channel: usize) -> f64 {
        self.sum[channel] / self.n as f64
    }

    /// The standard deviation of a channel.
    pub fn standard_deviation(&self, channel: usize) -> f64 {
        let mean = self.mean(channel);
        (self.sum_of_squares[channel] / self.n as f64 - mean * mean).max(0.0).sqrt()
    }

    /// The mean magnitude in a channel.
    pub fn mean_magnitude(&self, channel: usize) -> f64 {
        self.sum_of_magnitudes[channel] / self.n as f64
    }

    /// The share of a channel's elements that are zero.
    pub fn share_of_zeros(&self, channel: usize) -> f64 {
        self.n_zeros[channel] as f64 / self.n as f64
    }

    /// The greatest magnitude in a channel.
    pub fn greatest_magnitude(&self, channel: usize) -> f64 {
        f64::from(self.max[channel].abs().max(self.min[channel].abs()))
    }
}

/// Counts the channels of these values, each with their axis, over batches of a network's inputs. A batch is run, counted and
/// forgotten before the next one is asked for. `network` gives the values in this order; `told` how many samples are done.
///
/// # Errors
/// When there are no samples, the network cannot be run, or a value is no finite number or has no such axis.
pub fn measure<E: From<ObserveError>>(
    network: &mut dyn Forward,
    values: &IndexMap<Name, usize>,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
    told: impl FnMut(u64),
) -> Result<IndexMap<Name, ChannelStatistics>, E> {
    let mut seen: Vec<(Name, ChannelStatistics)> =
        values.iter().map(|(name, &axis)| (name.clone(), ChannelStatistics::new(axis))).collect();
    for_batches(network, batches, told, |tensors| {
        each(&mut seen, tensors, |(name, statistics), tensor| statistics.add(name, tensor))
    })?;
    // A value without elements has no channels.
    Ok(seen.into_iter().filter(|(_, seen)| seen.n > 0).collect())
}
