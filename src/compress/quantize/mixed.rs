//! Mixed precision: the cheapest set of layers in floats with which a network is as good as is asked, or the most useful one that a
//! budget allows.
//!
//! Noise of layers adds up, nearly, so that the set is a beginning of the list of layers by noise for the work saved. Where
//! it ends is found by halving, and what of it can do without floats goes back to integers afterwards.

use serde::{Deserialize, Serialize};

use super::QuantizeError;
use super::calibrate::Ranges;
use super::insert::quantized;
use super::options::Choice;
use super::sensitivity::{Layer, sensitivity};
use crate::graph::probe::{Quality, Score};
use crate::graph::shape::Types;
use crate::graph::{Graph, Name};

/// What a quantized network must keep, and what it may cost; what is left out does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// The most that its accuracy may be below that in floats: 0.01 is one point.
    pub accuracy_drop: Option<f64>,
    /// The least signal to quantization noise of its outputs, in dB.
    pub sqnr_db: Option<f64>,
    /// The most time that it may take, in times of that in floats.
    pub time: Option<f64>,
    /// The most bytes that its file may have.
    pub bytes: Option<u64>,
}

impl Budget {
    /// Whether anything is.
    pub fn is_something(&self) -> bool {
        *self != Budget::default()
    }

    fn has_margin(&self) -> bool {
        self.accuracy_drop.is_some() || self.sqnr_db.is_some()
    }

    fn has_limit(&self) -> bool {
        self.time.is_some() || self.bytes.is_some()
    }

    /// Whether a network is good enough beside that in floats.
    pub(crate) fn is_kept(&self, float: &Quality, quality: &Quality) -> Result<bool, QuantizeError> {
        let by_noise = self.sqnr_db.is_none_or(|least| quality.sqnr_db() >= least);
        let by_accuracy = match self.accuracy_drop {
            None => true,
            Some(drop) => match (float.accuracy, quality.accuracy) {
                (Some(float), Some(own)) => own >= float - drop,
                _ => {
                    let problem = "is of labelled samples, and these have no labels: give some, or `sqnr_db`";
                    return Err(QuantizeError::Option { option: "budget.accuracy_drop", problem: problem.to_string() });
                }
            },
        };
        Ok(by_noise && by_accuracy)
    }
}

/// A network of which some layers stay in floats.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mixed {
    /// What they make.
    pub floats: Vec<Name>,
    /// All layers, what harms most for the work that it saves first; none where integers alone are good enough.
    pub layers: Vec<Layer>,
    /// How good the network is in floats.
    pub in_floats: Quality,
    /// How good it is as it is written.
    pub quality: Quality,
    /// Whether it is as good and as cheap as was asked.
    pub is_met: bool,
}

/// The layers that stay in floats so that a network is good enough, as few multiplications as can be found; where it would cost more
/// than it may, as many as it may.
///
/// # Errors
/// When a network cannot be made or run, or accuracy is asked for where there are no labels.
pub fn mixed(
    graph: &Graph,
    types: &Types,
    choice: &Choice,
    ranges: &Ranges,
    budget: &Budget,
    score: &mut dyn Score,
    told: &mut dyn FnMut(usize, usize),
) -> Result<Mixed, QuantizeError> {
    let mut search = Search { graph, types, choice, ranges, budget, in_floats: score.quality(graph)?, score };
    let (all, is_good) = search.quality(&[])?;
    let is_cheap = search.is_cheap(&[])?;
    let in_floats = search.in_floats;
    let is_enough = budget.has_margin() && is_good;
    if is_enough || !is_cheap {
        return Ok(Mixed {
            floats: Vec::new(),
            layers: Vec::new(),
            in_floats,
            quality: all,
            is_met: is_good && is_cheap,
        });
    }
    let layers = sensitivity(graph, types, choice, ranges, false, &mut *search.score, told)?;
    let names: Vec<Name> = layers.iter().map(|layer| layer.node.clone()).collect();
    let mut floats = names.clone();
    if budget.has_margin() {
        let n = first(names.len(), |n| Ok(search.quality(&names[..n])?.1))?;
        floats = search.fewer(names[..n].to_vec())?;
    }
    let mut is_met = search.is_cheap(&floats)?;
    if !is_met {
        let too_many = first(names.len(), |n| Ok(!search.is_cheap(&names[..n])?))?;
        floats = names[..too_many.saturating_sub(1)].to_vec();
    }
    let (quality, is_good) = search.quality(&floats)?;
    // Without a margin the budget is all that is asked.
    is_met = is_good && (is_met || !budget.has_margin());
    Ok(Mixed { floats, layers, in_floats, quality, is_met })
}

/// The least number up to `most` for which something holds that holds for all greater ones; `most` where it holds for none below.
fn first(most: usize, mut holds: impl FnMut(usize) -> Result<bool, QuantizeError>) -> Result<usize, QuantizeError> {
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

struct Search<'a> {
    graph: &'a Graph,
    types: &'a Types,
    choice: &'a Choice,
    ranges: &'a Ranges,
    budget: &'a Budget,
    in_floats: Quality,
    score: &'a mut dyn Score,
}

impl Search<'_> {
    /// The network with these layers in floats.
    fn candidate(&self, floats: &[Name]) -> Result<Graph, QuantizeError> {
        let scheme = self.choice.scheme.without(floats);
        match quantized(self.graph, self.types, &scheme, self.ranges, self.choice.calibrator) {
            Err(QuantizeError::Nothing { .. }) => Ok(self.graph.clone()),
            graph => graph,
        }
    }

    fn quality(&mut self, floats: &[Name]) -> Result<(Quality, bool), QuantizeError> {
        let quality = self.score.quality(&self.candidate(floats)?)?;
        Ok((quality, self.budget.is_kept(&self.in_floats, &quality)?))
    }

    fn is_cheap(&mut self, floats: &[Name]) -> Result<bool, QuantizeError> {
        if !self.budget.has_limit() {
            return Ok(true);
        }
        let candidate = self.candidate(floats)?;
        if let Some(most) = self.budget.bytes
            && self.score.n_bytes(&candidate)? > most
        {
            return Ok(false);
        }
        match self.budget.time {
            Some(most) => Ok(self.score.time_ratio(self.graph, &candidate)?.median <= most),
            None => Ok(true),
        }
    }

    /// Without those that the network is good enough without; the last of them it needs.
    fn fewer(&mut self, mut floats: Vec<Name>) -> Result<Vec<Name>, QuantizeError> {
        const MOST_TRIED: usize = 32;
        let n_tried = floats.len().saturating_sub(1).min(MOST_TRIED);
        for place in (floats.len().saturating_sub(1 + n_tried)..floats.len().saturating_sub(1)).rev() {
            let fewer = [&floats[..place], &floats[place + 1..]].concat();
            if self.quality(&fewer)?.1 {
                floats = fewer;
            }
        }
        Ok(floats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::quantize::Calibrator;
    use crate::compress::quantize::histogram::Statistics;
    use crate::compress::quantize::options::{QuantizeOptions, Target};
    use crate::graph::op::{self, Op};
    use crate::graph::probe::{ProbeError, TimeRatio};
    use crate::graph::shape::{self, Bindings};
    use crate::graph::structure::blocks::Structure;
    use crate::graph::tensor::{DType, Tensor};
    use crate::graph::{Dim, GraphBuilder, TensorType};

    /// The noise of a layer in integers by its number of columns; a layer takes 10 in floats and 4 in integers, and as many bytes.
    struct Table<'a>(&'a [(usize, f64)]);

    impl Table<'_> {
        /// Of each layer whether it is in integers, and its number of columns.
        fn layers(graph: &Graph) -> Vec<(bool, usize)> {
            let gemms = graph.nodes.iter().filter(|node| matches!(node.op, Op::Gemm(_)));
            let layer = |node: &crate::graph::Node| {
                let weight = node.input(1).expect("a weight");
                let made = graph.nodes.iter().find(|node| node.output(0) == Some(weight));
                let stored = made.map_or(weight, |node| node.input(0).expect("integers"));
                (made.is_some(), graph.initializers[stored].shape()[1])
            };
            gemms.map(layer).collect()
        }

        fn cost(graph: &Graph) -> f64 {
            Table::layers(graph).iter().map(|(is_integer, _)| if *is_integer { 4.0 } else { 10.0 }).sum()
        }
    }

    impl Score for Table<'_> {
        fn time_ratio(&mut self, baseline: &Graph, candidate: &Graph) -> Result<TimeRatio, ProbeError> {
            let median = Table::cost(candidate) / Table::cost(baseline);
            Ok(TimeRatio { low: median, median, high: median })
        }

        fn quality(&mut self, candidate: &Graph) -> Result<Quality, ProbeError> {
            let noise = |columns: usize| self.0.iter().find(|(known, _)| *known == columns).expect("in the table").1;
            let integer = Table::layers(candidate).into_iter().filter(|(is_integer, _)| *is_integer);
            let noise: f64 = integer.map(|(_, columns)| noise(columns)).sum();
            Ok(Quality { noise, accuracy: Some(0.9 - noise) })
        }

        fn n_bytes(&mut self, candidate: &Graph) -> Result<u64, ProbeError> {
            Ok(Table::cost(candidate) as u64)
        }
    }

    /// Gemms of so many columns, none of which the next one reads alone: a Tanh is between them.
    fn chain(columns: &[usize]) -> (Graph, Vec<Name>) {
        let mut builder = GraphBuilder::new("net");
        let mut value = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 4usize.into()]));
        let (mut rows, mut made) = (4, Vec::new());
        for &columns in columns {
            if !made.is_empty() {
                value = builder.node(Op::Tanh, &[&value]);
            }
            let weight = Tensor::new(&[rows, columns], vec![0.5f32; rows * columns]).expect("as many");
            let weight = builder.initializer("weight", weight);
            value = builder.node(Op::Gemm(op::Gemm::default()), &[&value, &weight]);
            made.push(value.clone());
            rows = columns;
        }
        builder.output(&value);
        (builder.finish().expect("a graph"), made)
    }

    const NOISE: [(usize, f64); 4] = [(4, 0.05), (5, 0.001), (6, 0.02), (7, 0.002)];

    fn check(budget: &str, floats: &[usize], is_met: bool) -> Mixed {
        let (graph, made) = chain(&[4, 5, 6, 7]);
        let types = shape::infer(&graph, &Bindings::default()).expect("types fit");
        let options = QuantizeOptions { calibrator: Some(Calibrator::MinMax), ..QuantizeOptions::default() };
        let choice = options.choose(&Structure::default(), Target::Onnxruntime).expect("chosen");
        let seen = |name: &Name| {
            let mut seen = Statistics::new(false);
            seen.add(name, &[-1.0, 1.0]).expect("numbers");
            (name.clone(), seen)
        };
        let ranges = Ranges { n_samples: 1, values: graph.value_names().map(seen).collect() };
        let budget: Budget = toml::from_str(budget).expect("a budget");
        let found =
            mixed(&graph, &types, &choice, &ranges, &budget, &mut Table(&NOISE), &mut |_, _| ()).expect("found");
        let mut made: Vec<Name> = floats.iter().map(|&idx| made[idx].clone()).collect();
        let mut got = found.floats.clone();
        made.sort();
        got.sort();
        assert_eq!((got, found.is_met), (made, is_met), "{budget:?}");
        found
    }

    #[test]
    fn as_few_layers_as_meet_the_margin_stay_in_floats() {
        assert!(check("accuracy_drop = 0.1", &[], true).layers.is_empty());
        check("accuracy_drop = 0.03", &[0], true);
        check("accuracy_drop = 0.004", &[0, 2], true);
        check("accuracy_drop = 0", &[0, 1, 2, 3], true);
        let found = check("sqnr_db = 20", &[0, 2], true);
        assert!((found.quality.noise - 0.003).abs() < 1e-9, "{:?}", found.quality);
    }

    #[test]
    fn a_budget_is_used_for_what_harms_most() {
        check("bytes = 23", &[0], true);
        check("time = 0.75", &[0, 2], true);
        check("bytes = 40", &[0, 1, 2, 3], true);
        // Both can be had, or the best that there is for the price is taken and said to be none.
        check("accuracy_drop = 0.03\nbytes = 22", &[0], true);
        check("accuracy_drop = 0.004\nbytes = 27", &[0], false);
        check("accuracy_drop = 0.5\nbytes = 15", &[], false);
    }

    #[test]
    fn accuracy_needs_labels() {
        let budget = Budget { accuracy_drop: Some(0.1), ..Budget::default() };
        let quality = Quality { noise: 0.0, accuracy: None };
        let error = budget.is_kept(&quality, &quality).expect_err("nothing to count").to_string();
        assert!(error.starts_with("`budget.accuracy_drop` is of labelled samples"), "{error}");
    }
}
