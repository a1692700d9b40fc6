//! Whether a runtime computes what the reference computes; where it does not, which operator goes wrong.
//!
//! First the whole network is compared. Where its outputs lie too far from the reference's, each operator is tried in a
//! window of its own: with the DequantizeLinear before it and the QuantizeLinear behind it, since that is what runtimes
//! fuse, fed with the reference's inner values, so that no fault hides behind an earlier one. If every operator is right
//! by itself, networks that end earlier and earlier (whose beginnings are fused as in the whole) find where the
//! difference comes up, and windows of growing size how many operators it takes. A quantized network may magnify a step of
//! rounding into any difference; that is told from a fault by nudging the reference by one step.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::Serialize;

use super::account;
use super::kind;
use super::remedy::{self, Surroundings};
use super::tolerance::{Comparison, Tolerance, compare};
use super::window::{Values, Window, Windows};
use crate::graph::tensor::Tensor;
use crate::graph::uses::Uses;
use crate::graph::{Graph, Model, Name, eval};
use crate::measure::difference::numbers;
use crate::measure::inputs::SplitMix64;
use crate::measure::latency::timed;
use crate::measure::runtime::{ModelBytes, Options, Runtime, RuntimeError};
use crate::onnx;

/// Named tensors for the inputs of a network.
pub type Feed = Vec<(String, Tensor)>;

/// How a runtime's results compare with the reference's.
#[derive(Clone, Debug, Serialize)]
pub struct Correctness {
    /// Inputs on which the whole network was run.
    pub n_feeds: usize,
    /// Time that the reference took for all of it, in microseconds.
    pub reference_us: f64,
    /// The outputs of the whole network: the worst of all feeds.
    pub outputs: Vec<OutputCheck>,
    /// What it comes to.
    pub verdict: Verdict,
    /// Operators tried in windows of their own; 0 where the outputs agreed.
    pub n_tried: usize,
    /// Those that go wrong, in the order of the network.
    pub wrong: Vec<WrongOperator>,
    /// Those that could not be tried, and why.
    pub untried: Vec<Untried>,
}

/// What a comparison comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every output is within the tolerance, and no operator that was tried goes wrong.
    Agrees,
    /// Operators go wrong: see [`Correctness::wrong`].
    OperatorsGoWrong,
    /// Each operator is right by itself, these together are not.
    WrongTogether {
        /// by operator and name, in the order of the network
        nodes: Vec<String>,
    },
    /// Each operator is right by itself, and so are they together, or the reference does the same after one step of
    /// rounding: small differences add up.
    AddsUp {
        /// the first node whose value is beyond the tolerance in the whole network, where one is found
        from: Option<String>,
    },
    /// The reference cannot compute the network.
    NotChecked {
        /// why
        reason: String,
    },
}

/// One output of the whole network.
#[derive(Clone, Debug, Serialize)]
pub struct OutputCheck {
    /// Its name.
    pub output: String,
    /// The comparison on the feed where it is worst.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// An operator that goes wrong in a window of its own.
#[derive(Clone, Debug, Serialize)]
pub struct WrongOperator {
    /// Operator and name in the file.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// The operators of the window, in order, those that give it constants included.
    pub window: Vec<String>,
    /// Whether the operator without its neighbours is right; none where it has none, or could not be tried.
    pub right_alone: Option<bool>,
    /// Types and shapes of what the window was given.
    pub inputs: Vec<String>,
    /// The value that is wrong.
    pub output: String,
    /// How far.
    pub comparison: Comparison,
    /// The element that is furthest off: its position, what it should be and what it is.
    pub worst: Option<(usize, f64, f64)>,
    /// What to do about it, where that is known.
    pub remedy: String,
}

/// An operator that could not be tried by itself.
#[derive(Clone, Debug, Serialize)]
pub struct Untried {
    /// Operator and name in the file.
    pub node: String,
    /// Why.
    pub reason: String,
}

/// How to check.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Greatest difference of the outputs, as part of the greatest magnitude, in place of the usual rule.
    pub tolerance: Option<f64>,
    /// Try every operator by itself even where the outputs agree.
    pub every_operator: bool,
}

/// A value of a window that is not what it should be.
struct WrongValue {
    name: Name,
    expected: Tensor,
    got: Tensor,
    comparison: Comparison,
}

/// A model on a runtime, beside the reference.
pub(super) struct Trial<'a> {
    pub(super) model: &'a Model,
    pub(super) runtime: &'a dyn Runtime,
    pub(super) options: &'a Options,
    pub(super) check: CheckOptions,
}

impl Trial<'_> {
    /// Compares the whole network on every feed, and looks for the operator at fault where it must.
    pub(super) fn run(
        &self,
        bytes: &ModelBytes,
        feeds: &[Feed],
        observe: &mut dyn FnMut(String),
    ) -> Result<Correctness, RuntimeError> {
        let mut correctness = Correctness {
            n_feeds: 0,
            reference_us: 0.0,
            outputs: Vec::new(),
            verdict: Verdict::Agrees,
            n_tried: 0,
            wrong: Vec::new(),
            untried: Vec::new(),
        };
        let mut session = self.runtime.load(bytes, self.options)?;
        let mut worst: Option<(&Feed, String)> = None;
        for feed in feeds {
            observe("computing the reference".to_owned());
            let (expected, duration) = timed(|| eval::run(&self.model.graph, &given(feed)));
            correctness.reference_us += duration.as_secs_f64() * 1e6;
            let expected = match expected {
                Ok(expected) => expected,
                // What has been found on the feeds before stays found.
                Err(_) if worst.is_some() => break,
                Err(error) => {
                    correctness.verdict = Verdict::NotChecked { reason: error.to_string() };
                    return Ok(correctness);
                }
            };
            let got = session.run(feed)?;
            correctness.n_feeds += 1;
            let checks = self.outputs(&expected, &got);
            let bad = checks.iter().find(|check| !check.comparison.agrees);
            worst = worst.or(bad.map(|check| (feed, check.output.clone())));
            keep_worst(&mut correctness.outputs, checks);
        }
        match (worst, feeds.first().filter(|_| self.check.every_operator)) {
            (Some((feed, output)), _) => self.search(feed, Some(&output), &mut correctness, observe),
            (None, Some(feed)) => self.search(feed, None, &mut correctness, observe),
            (None, None) => {}
        }
        Ok(correctness)
    }

    fn outputs(&self, expected: &IndexMap<Name, Tensor>, got: &[(String, Tensor)]) -> Vec<OutputCheck> {
        let uses = Uses::of(&self.model.graph);
        let check = |(name, expected): (&Name, &Tensor)| {
            let tolerance = self.whole(&uses, name);
            let comparison = match got.iter().find(|(other, _)| other == name.as_str()) {
                Some((_, got)) => compare(expected, got, tolerance),
                None => {
                    let problem = Some("the runtime does not give it".to_owned());
                    Comparison { difference: None, allowed: 0.0, agrees: false, problem }
                }
            };
            OutputCheck { output: name.to_string(), comparison }
        };
        expected.iter().map(check).collect()
    }

    /// What a value of the whole network may differ by: as the user has it, else the usual.
    fn whole(&self, uses: &Uses<'_>, name: &Name) -> Tolerance {
        self.check.tolerance.map_or_else(|| self.usual(uses, name), Tolerance::Relative)
    }

    /// The usual rule for it, which several operators together must keep to as well.
    fn usual(&self, uses: &Uses<'_>, name: &Name) -> Tolerance {
        let graph = &self.model.graph;
        let producer = uses.producer(name);
        let steps = producer.is_some_and(|node| kind::rounds_to_steps(&node.op));
        if !graph.nodes.iter().any(|node| kind::is_quantize(&node.op) || kind::is_integer_operator(&node.op)) {
            return Tolerance::Single { steps };
        }
        let scale = producer.filter(|node| kind::is_dequantize(&node.op)).and_then(|node| node.input(1));
        let scale = scale.and_then(|name| graph.initializers.get(name)).and_then(numbers);
        let step = scale.into_iter().flatten().fold(0.0, f64::max);
        Tolerance::Quantized { steps, step }
    }

    /// Names what goes wrong on this feed, where this output, if any, differs.
    fn search(&self, feed: &Feed, bad: Option<&str>, correctness: &mut Correctness, observe: &mut dyn FnMut(String)) {
        let graph = &self.model.graph;
        let constants = account::constants(graph);
        let names = graph.nodes.iter().zip(&constants).filter(|(_, constant)| !**constant);
        let names: Vec<Name> = names.flat_map(|(node, _)| node.outputs.iter().flatten().cloned()).collect();
        let (computed, duration) = timed(|| inner_values(graph, feed, &names));
        correctness.reference_us += duration.as_secs_f64() * 1e6;
        let values = match computed {
            Ok(values) => values,
            Err(error) => {
                let reason = format!("the reference cannot give every inner value: {error}");
                if correctness.outputs.iter().all(|check| check.comparison.agrees) {
                    correctness.verdict = Verdict::NotChecked { reason };
                } else {
                    correctness.verdict = Verdict::AddsUp { from: None };
                    correctness.untried.push(Untried { node: "every operator".to_owned(), reason });
                }
                return;
            }
        };
        let windows = Windows::new(graph, constants);
        let at_work: Vec<usize> = windows.at_work().collect();
        for (n_before, &node_idx) in at_work.iter().enumerate() {
            let node = &graph.nodes[node_idx];
            observe(format!("trying operator {} of {}: {}", n_before + 1, at_work.len(), node.label()));
            match self.try_operator(&windows, node_idx, &values) {
                Ok(None) => correctness.n_tried += 1,
                Ok(Some(wrong)) => {
                    correctness.n_tried += 1;
                    correctness.wrong.push(*wrong);
                }
                Err(reason) => correctness.untried.push(Untried { node: node.label(), reason }),
            }
        }
        if !correctness.wrong.is_empty() {
            correctness.verdict = Verdict::OperatorsGoWrong;
        } else if let Some(bad) = bad {
            correctness.verdict = self.locate(&windows, &values, bad, observe);
        }
    }

    /// Tries an operator between its neighbours, and alone if that goes wrong.
    fn try_operator(
        &self,
        windows: &Windows<'_>,
        node_idx: usize,
        values: &Values,
    ) -> Result<Option<Box<WrongOperator>>, String> {
        let graph = &self.model.graph;
        let node = &graph.nodes[node_idx];
        let neighbourhood = windows.neighbourhood(node_idx);
        let window = windows.cut(&neighbourhood, None, values)?;
        let Some(wrong) = self.first_wrong(&window, &self.single(&neighbourhood))? else { return Ok(None) };
        let alone = BTreeSet::from([node_idx]);
        let right_alone = (neighbourhood != alone).then(|| {
            let window = windows.cut(&alone, None, values).ok()?;
            self.first_wrong(&window, &self.single(&alone)).ok().map(|wrong| wrong.is_none())
        });
        let right_alone = right_alone.flatten();
        let surroundings = Surroundings {
            is_quantized: neighbourhood.iter().any(|&idx| kind::converts(&graph.nodes[idx].op)),
            has_quantized_constants: window.graph.nodes.iter().any(|node| kind::is_dequantize(&node.op)),
            right_alone,
        };
        Ok(Some(Box::new(WrongOperator {
            node: node.label(),
            operator: node.op.name().to_owned(),
            window: window.graph.nodes.iter().map(|node| node.op.name().to_owned()).collect(),
            right_alone,
            inputs: window
                .graph
                .inputs
                .iter()
                .filter_map(|input| Some(format!("{}: {}", input.name, input.tensor_type()?)))
                .collect(),
            worst: worst_element(&wrong.expected, &wrong.got),
            output: wrong.name.to_string(),
            comparison: wrong.comparison,
            remedy: remedy::remedy(self.runtime.name(), node, surroundings),
        })))
    }

    /// What the values of a window of one operator may differ by.
    fn single(&self, nodes: &BTreeSet<usize>) -> Tolerance {
        let steps = nodes.iter().any(|&idx| kind::rounds_to_steps(&self.model.graph.nodes[idx].op));
        Tolerance::Single { steps }
    }

    /// The first output of a window that is wrong.
    fn first_wrong(&self, window: &Window, tolerance: &Tolerance) -> Result<Option<WrongValue>, String> {
        if window.expected.is_empty() {
            return Ok(None);
        }
        let bytes = onnx::to_bytes(&self.model.with_graph(window.graph.clone())).map_err(|error| error.to_string())?;
        let mut session =
            self.runtime.load(&ModelBytes::new(bytes), self.options).map_err(|error| error.to_string())?;
        let computed = session.run(&window.feed).map_err(|error| error.to_string())?;
        for ((name, expected), (_, got)) in window.expected.iter().zip(computed) {
            let comparison = compare(expected, &got, *tolerance);
            if !comparison.agrees {
                return Ok(Some(WrongValue { name: name.clone(), expected: expected.clone(), got, comparison }));
            }
        }
        Ok(None)
    }

    /// Whether the reference itself, after one step up or down in a quantized value of these nodes, gives another result
    /// than it should: then the network magnifies what rounding may do, and nobody is at fault.
    fn one_step_is_too_much(
        &self,
        windows: &Windows<'_>,
        nodes: &BTreeSet<usize>,
        last: usize,
        values: &Values,
    ) -> bool {
        let graph = &self.model.graph;
        let uses = Uses::of(graph);
        let inner = nodes.iter().filter(|&&idx| idx != last && kind::rounds_to_steps(&graph.nodes[idx].op));
        inner.copied().any(|idx| {
            let moved = || {
                let name = graph.nodes[idx].output(0)?;
                let mut values = values.clone();
                values.insert(name.clone(), nudged(values.get(name)?)?);
                let behind: BTreeSet<usize> = nodes.iter().copied().filter(|&node_idx| node_idx > idx).collect();
                let window = windows.cut(&behind, Some(last), &values).ok()?;
                let computed = eval::run(&window.graph, &given(&window.feed)).ok()?;
                let (name, expected) = window.expected.first()?;
                Some(!compare(expected, computed.get(name)?, self.usual(&uses, name)).agrees)
            };
            moved().unwrap_or(false)
        })
    }

    /// Where the difference comes up in the whole network, no operator being wrong by itself.
    fn locate(&self, windows: &Windows<'_>, values: &Values, output: &str, observe: &mut dyn FnMut(String)) -> Verdict {
        let graph = &self.model.graph;
        let uses = Uses::of(graph);
        let Some(last) = uses.producer_idx(output) else { return Verdict::AddsUp { from: None } };
        let at_work: BTreeSet<usize> = windows.at_work().collect();
        let path: Vec<usize> = windows.ancestors(last).into_iter().filter(|idx| at_work.contains(idx)).collect();
        let is_wrong_up_to = |node_idx: usize| {
            let name = graph.nodes[node_idx].outputs.iter().flatten().next()?;
            let window = windows.cut(&windows.ancestors(node_idx), Some(node_idx), values).ok()?;
            self.first_wrong(&window, &self.whole(&uses, name)).ok().map(|wrong| wrong.is_some())
        };
        // Wrong is what lies behind: the whole path is.
        let (mut right, mut wrong) = (0, path.len().saturating_sub(1));
        while right < wrong {
            let middle = right + (wrong - right) / 2;
            observe(format!("cutting the network at {}", graph.nodes[path[middle]].label()));
            match is_wrong_up_to(path[middle]) {
                Some(true) => wrong = middle,
                Some(false) => right = middle + 1,
                None => return Verdict::AddsUp { from: None },
            }
        }
        let Some(&first) = path.get(wrong) else { return Verdict::AddsUp { from: None } };
        // All that comes before is what was just cut off, and known to be wrong.
        let n_before = windows.before(first, usize::MAX).len();
        let mut n_nodes = 2;
        while n_nodes < n_before || n_nodes == 2 {
            let nodes = windows.before(first, n_nodes);
            observe(format!("trying {} operators together", nodes.len()));
            let name = graph.nodes[first].outputs.iter().flatten().next();
            let window = windows.cut(&nodes, Some(first), values);
            if let (Some(name), Ok(window)) = (name, window)
                && let Ok(Some(_)) = self.first_wrong(&window, &self.usual(&uses, name))
            {
                if self.one_step_is_too_much(windows, &nodes, first, values) {
                    break;
                }
                return Verdict::WrongTogether { nodes: nodes.iter().map(|&idx| graph.nodes[idx].label()).collect() };
            }
            n_nodes *= 2;
        }
        Verdict::AddsUp { from: Some(graph.nodes[first].label()) }
    }
}

/// Every element one step up or down, by chance but always the same.
fn nudged(tensor: &Tensor) -> Option<Tensor> {
    let mut random = SplitMix64::new(0);
    let mut up = || random.next_u64() >> 63 == 1;
    let nudged = match (tensor.as_slice::<u8>(), tensor.as_slice::<i8>()) {
        (Ok(codes), _) => {
            let nudge = |&code: &u8| if up() { code.saturating_add(1) } else { code.saturating_sub(1) };
            Tensor::new(tensor.shape(), codes.iter().map(nudge).collect())
        }
        (_, Ok(codes)) => {
            let nudge = |&code: &i8| if up() { code.saturating_add(1) } else { code.saturating_sub(1) };
            Tensor::new(tensor.shape(), codes.iter().map(nudge).collect())
        }
        (Err(_), Err(_)) => return None,
    };
    nudged.ok()
}

fn given(feed: &Feed) -> Values {
    feed.iter().map(|(name, tensor)| (name.as_str().into(), tensor.clone())).collect()
}

/// Every value that depends on the inputs, and the inputs.
fn inner_values(graph: &Graph, feed: &Feed, names: &[Name]) -> Result<Values, eval::EvalError> {
    let mut values = eval::run_with(graph, &given(feed), names)?;
    values.extend(given(feed));
    Ok(values)
}

/// Keeps, of each output, the comparison of the feed where it is worst.
fn keep_worst(kept: &mut Vec<OutputCheck>, checks: Vec<OutputCheck>) {
    let badness = |check: &OutputCheck| match (&check.comparison.problem, &check.comparison.difference) {
        (None, Some(difference)) => (!check.comparison.agrees, difference.max_absolute),
        (None, None) => (false, 0.0),
        (Some(_), _) => (true, f64::INFINITY),
    };
    for check in checks {
        match kept.iter_mut().find(|other| other.output == check.output) {
            Some(other) if badness(&check) > badness(other) => *other = check,
            Some(_) => {}
            None => kept.push(check),
        }
    }
}

fn worst_element(expected: &Tensor, got: &Tensor) -> Option<(usize, f64, f64)> {
    let (expected, got) = (numbers(expected)?, numbers(got)?);
    if expected.len() != got.len() {
        return None;
    }
    let pairs = expected.into_iter().zip(got).enumerate().map(|(idx, (expected, got))| (idx, expected, got));
    // What is no number on one side only is further off than any number.
    let distance = |(_, expected, got): &(usize, f64, f64)| {
        let distance = (expected - got).abs();
        if distance.is_nan() && expected.is_nan() != got.is_nan() { f64::INFINITY } else { distance }
    };
    pairs.max_by(|a, b| distance(a).max(0.0).total_cmp(&distance(b).max(0.0)))
}
