//! Calibration: samples run through the network, and what their values look like is counted as they pass.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::QuantizeError;
use super::calibrator::Calibrator;
use super::histogram::Statistics;
use super::plan::Quantized;
use crate::compress::observe::{ObserveError, each, for_batches};
use crate::graph::Name;
use crate::graph::probe::Forward;
use crate::graph::tensor::Tensor;

/// What was seen of a network's values: a file that is kept, looked at and used again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ranges {
    /// How many samples were run.
    pub n_samples: u64,
    /// By value.
    pub values: IndexMap<Name, Statistics>,
}

/// Counts what these values look like over batches of a network's inputs. A batch is run, counted and forgotten before the
/// next one is asked for. `network` gives the values in this order; `told` how many samples are done.
///
/// # Errors
/// When there are no samples, the network cannot be run, or a value is no finite number.
pub fn calibrate<E: From<ObserveError>>(
    network: &mut dyn Forward,
    values: &[Name],
    with_histograms: bool,
    batches: impl IntoIterator<Item = Result<IndexMap<Name, Tensor>, E>>,
    told: impl FnMut(u64),
) -> Result<Ranges, E> {
    let mut seen: Vec<(Name, Statistics)> =
        values.iter().map(|name| (name.clone(), Statistics::new(with_histograms))).collect();
    let n_samples = for_batches(network, batches, told, |tensors| {
        each(&mut seen, tensors, |(name, statistics), tensor| statistics.add(name, &tensor.to_f32s()?))
    })?;
    // A value without elements has no range.
    Ok(Ranges { n_samples, values: seen.into_iter().filter(|(_, seen)| seen.n_batches > 0).collect() })
}

impl Ranges {
    /// The range of each of these values, zero included; values of one scale have one, which holds those of all.
    ///
    /// # Errors
    /// When a value was not looked at, or not as the calibrator needs it.
    pub fn bounds(
        &self,
        values: &IndexMap<Name, Quantized>,
        calibrator: Calibrator,
    ) -> Result<IndexMap<Name, (f32, f32)>, QuantizeError> {
        if let Some(problem) = calibrator.problem() {
            return Err(QuantizeError::Option { option: "calibrator", problem });
        }
        let mut own = Vec::with_capacity(values.len());
        for (name, quantized) in values {
            let no_range = |remedy| QuantizeError::NoRange { value: name.clone(), remedy };
            let seen = self.values.get(name).ok_or_else(|| no_range("calibrate the network as it is quantized"))?;
            if calibrator.needs_histogram() && seen.histogram.is_none() {
                return Err(no_range(
                    "calibrate by mse, entropy or a percentile: what that sees serves every calibrator",
                ));
            }
            own.push((name, quantized.group, calibrator.range(seen, quantized.activations)));
        }
        let mut by_group: IndexMap<usize, (f32, f32)> = IndexMap::new();
        for (_, group, (low, high)) in &own {
            let range = by_group.entry(*group).or_insert((*low, *high));
            *range = (range.0.min(*low), range.1.max(*high));
        }
        Ok(own.into_iter().map(|(name, group, _)| (name.clone(), by_group[&group])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::quantize::scheme::Activations;
    use crate::graph::probe::ProbeError;

    /// Gives its input, and its double.
    struct Doubles;

    impl Forward for Doubles {
        fn forward(&mut self, inputs: &IndexMap<Name, Tensor>) -> Result<Vec<Tensor>, ProbeError> {
            let x = inputs["x"].as_slice::<f32>().expect("floats").to_vec();
            let doubled = x.iter().map(|x| 2.0 * x).collect();
            Ok(vec![Tensor::vector(x), Tensor::vector(doubled)])
        }
    }

    fn ranges(batches: &[&[f32]]) -> Result<Ranges, QuantizeError> {
        let batches = batches.iter().map(|x| Ok(IndexMap::from([("x".into(), Tensor::vector(x.to_vec()))])));
        calibrate(&mut Doubles, &["x".into(), "y".into()], false, batches, |_| ())
    }

    #[test]
    fn values_of_one_scale_have_the_range_of_all() {
        let ranges = ranges(&[&[1.0, -1.0], &[3.0]]).expect("finite");
        assert_eq!(ranges.n_samples, 3);
        let quantized = |group| Quantized { activations: Activations::default(), group };
        let apart = IndexMap::from([("x".into(), quantized(0)), ("y".into(), quantized(1))]);
        let bounds = ranges.bounds(&apart, Calibrator::MinMax).expect("both were seen");
        assert_eq!((bounds["x"], bounds["y"]), ((-1.0, 3.0), (-2.0, 6.0)));
        let together = IndexMap::from([("x".into(), quantized(0)), ("y".into(), quantized(0))]);
        let bounds = ranges.bounds(&together, Calibrator::MinMax).expect("both were seen");
        assert_eq!((bounds["x"], bounds["y"]), ((-2.0, 6.0), (-2.0, 6.0)));
    }

    #[test]
    fn what_was_not_seen_is_named() {
        assert_eq!(ranges(&[]), Err(ObserveError::NoSamples.into()));
        let seen = ranges(&[&[1.0]]).expect("finite");
        let quantized = Quantized { activations: Activations::default(), group: 0 };
        let message = |name: &str, calibrator| {
            seen.bounds(&IndexMap::from([(name.into(), quantized)]), calibrator).expect_err("refused").to_string()
        };
        assert_eq!(
            message("z", Calibrator::MinMax),
            "`z` has no range (hint: calibrate the network as it is quantized)"
        );
        assert_eq!(
            message("x", Calibrator::Mse),
            "`x` has no range (hint: calibrate by mse, entropy or a percentile: what that sees serves every calibrator)"
        );
    }

    #[test]
    fn ranges_are_a_file() {
        let seen = ranges(&[&[1.0, -0.5]]).expect("finite");
        let text = serde_json::to_string(&seen).expect("finite numbers are JSON");
        assert_eq!(serde_json::from_str::<Ranges>(&text).expect("as written"), seen);
    }
}
