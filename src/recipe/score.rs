//! What a network is worth on a runtime: how good its answers are, and its time in turns with that of another, on the bytes that would be
//! written.

use indexmap::IndexMap;

use super::RecipeError;
use super::samples::Batches;
use crate::graph::probe::{ProbeError, Quality, Score, TimeRatio};
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Model, Name};
use crate::learn::train::metrics::greatest;
use crate::measure::latency::{self, Contender, interleaved, timed};
use crate::measure::runtime::{ModelBytes, Options, Runtime, RuntimeError, Session, run_rows};
use crate::onnx;

/// A runtime that scores networks.
pub(super) struct Scorer<'a> {
    pub(super) runtime: &'a dyn Runtime,
    /// What the graphs are written with.
    pub(super) model: &'a Model,
    /// What becomes of a graph before it is written.
    pub(super) written: &'a dyn Fn(&Graph) -> Result<Graph, RecipeError>,
    /// What is timed, by input: a sample.
    pub(super) sample: Vec<(String, Tensor)>,
    /// What answers are judged by.
    pub(super) judge: Option<Judge<'a>>,
    /// The time that scoring has taken.
    pub(super) seconds: f64,
}

/// Samples, and what is right for them.
pub(super) struct Judge<'a> {
    /// The samples, from the first on.
    batches: Box<dyn Fn() -> Result<Batches<'a>, RecipeError> + 'a>,
    /// Their classes.
    labels: Option<Vec<usize>>,
    /// What the original says of each batch.
    said: Vec<Vec<Tensor>>,
}

impl<'a> Judge<'a> {
    /// One that holds answers against those of `original` and, where there are any, against classes.
    ///
    /// # Errors
    /// When the original cannot be run on the samples.
    pub(super) fn new(
        runtime: &dyn Runtime,
        original: &Model,
        batches: Box<dyn Fn() -> Result<Batches<'a>, RecipeError> + 'a>,
        labels: Option<Vec<usize>>,
    ) -> Result<Judge<'a>, RecipeError> {
        let mut session = load(runtime, original, true)?;
        let said = batches()?.map(|batch| answers(session.as_mut(), batch?)).collect::<Result<_, RecipeError>>()?;
        drop(session);
        Ok(Judge { batches, labels, said })
    }

    /// How good a network's answers are.
    fn quality(&self, session: &mut dyn Session) -> Result<Quality, RecipeError> {
        let mut powers = Vec::new();
        let mut labels = self.labels.iter().flatten();
        let (mut n_right, mut n_labelled) = (0usize, 0usize);
        for (batch, said) in (self.batches)()?.zip(&self.said) {
            let given = answers(session, batch?)?;
            powers.resize(given.len(), (0.0, 0.0));
            for ((power, given), said) in powers.iter_mut().zip(&given).zip(said) {
                let (signal, noise) = difference(said, given);
                *power = (power.0 + signal, power.1 + noise);
            }
            let Some(classes) = given.iter().find(|tensor| tensor.rank() == 2 && tensor.shape()[1] > 1) else {
                continue;
            };
            let numbers = classes.to_f32s().unwrap_or_default();
            for (row, &label) in numbers.chunks(classes.shape()[1]).zip(&mut labels) {
                n_labelled += 1;
                n_right += usize::from(greatest(row) == label);
            }
        }
        let share = |(signal, noise): &(f64, f64)| if *signal > 0.0 { noise / signal } else { 0.0 };
        let noise = powers.iter().map(share).sum::<f64>() / powers.len().max(1) as f64;
        Ok(Quality { noise, accuracy: (n_labelled > 0).then(|| n_right as f64 / n_labelled as f64) })
    }
}

/// The power of what was said, and of what is said otherwise.
fn difference(said: &Tensor, given: &Tensor) -> (f64, f64) {
    let (Ok(said), Ok(given)) = (said.to_f32s(), given.to_f32s()) else { return (0.0, 0.0) };
    // What is no number in the original cannot be said otherwise; what is none in the other is noise without end.
    let numbers = said.iter().zip(given.iter()).filter(|(a, _)| a.is_finite());
    let pairs = numbers.map(|(&a, &b)| (f64::from(a), if b.is_finite() { f64::from(b) } else { f64::INFINITY }));
    pairs.fold((0.0, 0.0), |(signal, noise), (a, b)| (signal + a * a, noise + (a - b) * (a - b)))
}

fn answers(session: &mut dyn Session, batch: IndexMap<Name, Tensor>) -> Result<Vec<Tensor>, RecipeError> {
    let feeds: Vec<(String, Tensor)> = batch.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
    Ok(run_rows(session, &feeds)?.into_iter().map(|(_, tensor)| tensor).collect())
}

fn load(runtime: &dyn Runtime, model: &Model, all_cores: bool) -> Result<Box<dyn Session>, RecipeError> {
    let n_threads = if all_cores { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
    let bytes = ModelBytes::new(onnx::to_bytes(model)?);
    Ok(runtime.load(&bytes, &Options { n_threads, ..Options::default() })?)
}

impl Scorer<'_> {
    fn model(&self, graph: &Graph) -> Result<Model, RecipeError> {
        Ok(self.model.with_graph((self.written)(graph)?))
    }

    fn ratio(&self, baseline: &Graph, candidate: &Graph) -> Result<TimeRatio, RecipeError> {
        let mut contenders = Vec::new();
        for graph in [baseline, candidate] {
            let mut session = load(self.runtime, &self.model(graph)?, false)?;
            let run = move || run_rows(session.as_mut(), &self.sample).map(|_| ());
            contenders.push(Contender::<RuntimeError> { label: String::new(), run: Box::new(run) });
        }
        let latencies = interleaved(&mut contenders, &brief(), &mut |_| ())?;
        // Of too few rounds nothing is known for sure.
        let unsure =
            || TimeRatio { low: 0.0, median: latencies[1].median_us / latencies[0].median_us, high: f64::INFINITY };
        let sure = latencies[1].ratio_to_first;
        Ok(sure.map_or_else(unsure, |it| TimeRatio { low: it.low, median: it.estimate, high: it.high }))
    }

    fn judged(&self, candidate: &Graph) -> Result<Quality, RecipeError> {
        let Some(judge) = &self.judge else {
            let problem = "is missing: how good a network is shows on samples";
            return Err(RecipeError::Part { part: "data".to_string(), problem: problem.to_string() });
        };
        judge.quality(load(self.runtime, &self.model(candidate)?, true)?.as_mut())
    }

    fn spent<T>(&mut self, work: impl FnOnce(&Self) -> Result<T, RecipeError>) -> Result<T, ProbeError> {
        let (result, duration) = timed(|| work(self));
        self.seconds += duration.as_secs_f64();
        result.map_err(|error| ProbeError { what: "the network".to_string(), problem: error.to_string() })
    }
}

/// Some per cent are enough to tell which is quicker, and there are many to tell.
fn brief() -> latency::Options {
    let options = latency::Options { relative_width: 0.03, ..latency::Options::default() };
    options.with_budget_s(2.0).unwrap_or(options)
}

impl Score for Scorer<'_> {
    fn time_ratio(&mut self, baseline: &Graph, candidate: &Graph) -> Result<TimeRatio, ProbeError> {
        self.spent(|scorer| scorer.ratio(baseline, candidate))
    }

    fn quality(&mut self, candidate: &Graph) -> Result<Quality, ProbeError> {
        self.spent(|scorer| scorer.judged(candidate))
    }

    fn n_bytes(&mut self, candidate: &Graph) -> Result<u64, ProbeError> {
        self.spent(|scorer| Ok(onnx::to_bytes(&scorer.model(candidate)?)?.len() as u64))
    }
}
