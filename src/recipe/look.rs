//! A look at a network on data: what its values are, how good its answers are, and how long it takes, on a runtime.

use indexmap::IndexMap;

use super::samples::{self, BatchSize, Batches, Purpose, Samples, batches};
use super::score::{Judge, Scorer};
use super::{RecipeError, probe};
use crate::compress::observe::ObserveError;
use crate::compress::observe::channels::{ChannelStatistics, measure};
use crate::graph::probe::Forward;
use crate::graph::shape::Types;
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Model, Name};
use crate::measure::runtime::{ModelBytes, Options, Runtime};
use crate::onnx;

/// The most that second moments of what products read may take at once.
pub(super) const MOMENT_BYTES: usize = 1 << 30;

/// The geometric mean of ratios in percent, each taken to be at least 1e-9; a hundred where there are none.
pub(super) fn mean_percent(ratios: &[f64]) -> f64 {
    let logarithms = ratios.iter().map(|ratio| ratio.max(1e-9).ln());
    100.0 * (logarithms.sum::<f64>() / ratios.len().max(1) as f64).exp()
}

/// Samples that are run where nobody says how many.
pub(super) const N_SAMPLES: usize = 512;

/// A network, the samples that it is looked at with, and what runs it.
pub(super) struct Look<'a> {
    pub(super) model: &'a Model,
    pub(super) types: &'a Types,
    pub(super) samples: Option<&'a Samples>,
    /// How many samples show what values are like.
    pub(super) n_samples: Option<usize>,
    pub(super) runtime: &'a dyn Runtime,
    /// Gets the number of samples that are done.
    pub(super) told: &'a mut dyn FnMut(u64),
}

/// A network that gives the values asked for, and the batches to run.
pub(super) struct Shown<'a> {
    pub(super) network: Box<dyn Forward>,
    pub(super) batches: Batches<'a>,
}

impl<'a> Look<'a> {
    /// The network and its samples, to see these values; `missing` says what they are needed for.
    pub(super) fn shown(&self, values: &[Name], missing: &str) -> Result<Shown<'a>, RecipeError> {
        self.shown_of(self.model, values, missing)
    }

    /// Another network of the same inputs, and the samples.
    pub(super) fn shown_of(&self, model: &Model, values: &[Name], missing: &str) -> Result<Shown<'a>, RecipeError> {
        let samples = self.samples(missing)?;
        let network = probe::open(self.runtime, model, values, "the network")?;
        let size = BatchSize::of(self.model, self.types, values);
        let n_samples = self.n_samples.unwrap_or(N_SAMPLES);
        let batches = batches(self.model, samples, Purpose::Calibrate, n_samples, &size)?;
        Ok(Shown { network, batches })
    }

    /// The samples and their classes, where they have any; `missing` says what they are needed for.
    pub(super) fn labelled(&self, missing: &str) -> Result<(Batches<'a>, Option<Vec<usize>>), RecipeError> {
        let samples = self.samples(missing)?;
        let size = BatchSize::of(self.model, self.types, &[]);
        let n_samples = self.n_samples.unwrap_or(N_SAMPLES);
        let labels = samples::labels(self.model, samples, Purpose::Calibrate, n_samples, &size)?;
        Ok((batches(self.model, samples, Purpose::Calibrate, n_samples, &size)?, labels))
    }

    /// The samples, which ranges are none of.
    fn samples(&self, missing: &str) -> Result<&'a Samples, RecipeError> {
        let samples = self.samples.filter(|samples| !matches!(samples, Samples::Ranges(_)));
        samples.ok_or_else(|| RecipeError::Part { part: "data".to_string(), problem: format!("is missing: {missing}") })
    }

    /// What the channels of these values look like.
    pub(super) fn channels(
        &mut self,
        values: &IndexMap<Name, usize>,
        missing: &str,
    ) -> Result<IndexMap<Name, ChannelStatistics>, RecipeError> {
        let names: Vec<Name> = values.keys().cloned().collect();
        let Shown { mut network, batches } = self.shown(&names, missing)?;
        measure(network.as_mut(), values, batches, &mut *self.told)
    }

    /// What times networks on the runtime.
    pub(super) fn scorer<'s>(
        &'s self,
        written: &'s dyn Fn(&Graph) -> Result<Graph, RecipeError>,
    ) -> Result<Scorer<'s>, RecipeError> {
        let (runtime, model, sample) = (self.runtime, self.model, self.one_sample()?);
        Ok(Scorer { runtime, model, written, sample, judge: None, seconds: 0.0 })
    }

    /// What tells how good answers are: labels where there are any, and what the network itself says, of no more samples than `most`.
    pub(super) fn judge(&self, most: Option<usize>) -> Result<Judge<'_>, RecipeError> {
        const MOST_SAMPLES: usize = 2_000;
        const MOST_BYTES: usize = 256 << 20;
        let samples = self.samples("how good a network is shows on samples")?;
        let outputs: Vec<Name> = self.model.graph.outputs.iter().map(|output| output.name.clone()).collect();
        let size = BatchSize::of(self.model, self.types, &outputs);
        // What the network says is kept.
        let most = most.unwrap_or(MOST_SAMPLES).max(1);
        let n_samples = (MOST_BYTES / samples::row_bytes(self.types, &outputs).max(1)).clamp(1, most);
        let labels = samples::labels(self.model, samples, Purpose::Judge, n_samples, &size)?;
        let model = self.model;
        let batches = move || batches(model, samples, Purpose::Judge, n_samples, &size);
        Judge::new(self.runtime, self.model, Box::new(batches), labels)
    }

    /// A sample, or a batch of a network of one batch size; one that is made up where there are only ranges.
    fn one_sample(&self) -> Result<Vec<(String, Tensor)>, RecipeError> {
        let size = BatchSize::of(self.model, self.types, &[]);
        let n_samples = if size.is_fixed { size.n_samples } else { 1 };
        let mut batches = self
            .samples
            .map(|samples| batches(self.model, samples, Purpose::Calibrate, n_samples, &size))
            .transpose()?;
        if let Some(batch) = batches.as_mut().and_then(|batches| batches.next()) {
            let few = |(name, tensor): (Name, Tensor)| {
                let n_rows = tensor.shape().first().map_or(0, |&n_rows| n_rows.min(n_samples));
                Ok((name.to_string(), tensor.rows(0, n_rows).map_err(ObserveError::from)?))
            };
            return batch?.into_iter().map(few).collect();
        }
        let bytes = ModelBytes::new(onnx::to_bytes(self.model)?);
        let session = self.runtime.load(&bytes, &Options::default())?;
        probe::made_up(session.inputs()).map_err(|error| RecipeError::Part {
            part: "ranges".to_string(),
            problem: format!(
                "are no samples to time the network with, and {error} (hint: give samples, or `keep_slow`)"
            ),
        })
    }
}
