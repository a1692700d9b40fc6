//! What a network is worth on a runtime: its time, in turns with that of another, on the bytes that would be written.

use super::RecipeError;
use crate::graph::probe::{ProbeError, Score, TimeRatio};
use crate::graph::tensor::Tensor;
use crate::graph::{Graph, Model};
use crate::measure::latency::{self, Contender, interleaved, timed};
use crate::measure::runtime::{ModelBytes, Options, Runtime, RuntimeError, run_rows};
use crate::onnx;

/// A runtime with a stopwatch: one thread, one sample.
pub(super) struct Timer<'a> {
    runtime: &'a dyn Runtime,
    /// What the graphs are written with.
    model: &'a Model,
    /// The sample, by input.
    inputs: Vec<(String, Tensor)>,
    /// What becomes of a graph before it is written.
    written: &'a dyn Fn(&Graph) -> Result<Graph, RecipeError>,
    /// The time that all this has taken.
    pub(super) seconds: f64,
}

impl<'a> Timer<'a> {
    /// A stopwatch that has not run.
    pub(super) fn new(
        runtime: &'a dyn Runtime,
        model: &'a Model,
        inputs: Vec<(String, Tensor)>,
        written: &'a dyn Fn(&Graph) -> Result<Graph, RecipeError>,
    ) -> Timer<'a> {
        Timer { runtime, model, inputs, written, seconds: 0.0 }
    }

    fn ratio(&self, baseline: &Graph, candidate: &Graph) -> Result<TimeRatio, RecipeError> {
        let mut contenders = Vec::new();
        for graph in [baseline, candidate] {
            let model = self.model.with_graph((self.written)(graph)?);
            let mut session = self.runtime.load(&ModelBytes::new(onnx::to_bytes(&model)?), &Options::default())?;
            let run = move || run_rows(session.as_mut(), &self.inputs).map(|_| ());
            contenders.push(Contender::<RuntimeError> { label: String::new(), run: Box::new(run) });
        }
        let latencies = interleaved(&mut contenders, &brief(), &mut |_| ())?;
        // Of too few rounds nothing is known for sure.
        let unsure =
            || TimeRatio { low: 0.0, median: latencies[1].median_us / latencies[0].median_us, high: f64::INFINITY };
        let sure = latencies[1].ratio_to_first;
        Ok(sure.map_or_else(unsure, |it| TimeRatio { low: it.low, median: it.estimate, high: it.high }))
    }
}

/// Some per cent are enough to tell which is quicker, and there are many to tell.
fn brief() -> latency::Options {
    let options = latency::Options { relative_width: 0.03, ..latency::Options::default() };
    options.with_budget_s(2.0).unwrap_or(options)
}

impl Score for Timer<'_> {
    fn time_ratio(&mut self, baseline: &Graph, candidate: &Graph) -> Result<TimeRatio, ProbeError> {
        let (ratio, duration) = timed(|| self.ratio(baseline, candidate));
        self.seconds += duration.as_secs_f64();
        ratio.map_err(|error| ProbeError { what: "the network".to_string(), problem: error.to_string() })
    }
}
