//! Integers that make a network slower are worth nothing: where floats are quicker, their nodes go back to them.
//!
//! A region is the integer nodes between which only integers pass. Regions of the same operators and shapes, as the layers of a
//! transformer have them, are timed and decided together.

use indexmap::IndexMap;
use serde::Serialize;

use super::QuantizeError;
use super::calibrate::Ranges;
use super::insert::quantized;
use super::options::Choice;
use super::plan::{Plan, plan};
use super::scheme::Scheme;
use crate::graph::probe::{Score, TimeRatio};
use crate::graph::shape::Types;
use crate::graph::{Graph, Name, Node};

/// Regions of integers that were timed, each like the others, and what became of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timed {
    /// How many there are.
    pub n_regions: usize,
    /// Their nodes, by the first output of each.
    pub nodes: Vec<Name>,
    /// The time of the network with them in floats over that with them in integers.
    pub in_floats: TimeRatio,
    /// Whether they went back to floats.
    pub is_slow: bool,
}

/// Where floats are quicker than integers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slow {
    /// The nodes that are, by the first output of each: all integer nodes where no choice of regions is quicker than floats.
    pub nodes: Vec<Name>,
    /// What was timed; nothing where the network is one region.
    pub regions: Vec<Timed>,
    /// The time of the network with all regions in integers over that of floats.
    pub all: TimeRatio,
    /// The time of the network without the slow regions over that of floats; none where there are none, or only slow ones.
    pub rest: Option<TimeRatio>,
}

/// Times each region of integers against floats, one after the other, on the network as the decisions before have left it. A
/// difference within the noise changes nothing.
///
/// # Errors
/// When a network cannot be made or run.
pub fn slow_nodes(
    graph: &Graph,
    types: &Types,
    choice: &Choice,
    ranges: &Ranges,
    score: &mut dyn Score,
) -> Result<Slow, QuantizeError> {
    let quantized = |scheme: &Scheme| quantized(graph, types, scheme, ranges, choice.calibrator);
    let whole = plan(graph, types, &choice.scheme)?;
    let mut current = quantized(&choice.scheme)?;
    let all = score.time_ratio(graph, &current)?;
    let mut slow = Slow { nodes: Vec::new(), regions: Vec::new(), all, rest: None };
    let alike = alike(graph, types, regions(graph, &whole));
    for regions in alike.iter().filter(|_| alike.len() > 1) {
        let nodes: Vec<Name> = regions.iter().flat_map(|region| made_by(graph, region)).collect();
        let without = choice.scheme.without(slow.nodes.iter().chain(&nodes));
        let candidate = match quantized(&without) {
            // The last ones, or such whose neighbours would need ranges that nobody has seen, are left to the whole.
            Err(QuantizeError::Nothing { .. } | QuantizeError::NoRange { .. }) => continue,
            candidate => candidate?,
        };
        let in_floats = score.time_ratio(&current, &candidate)?;
        let is_slow = in_floats.high < 1.0;
        if is_slow {
            slow.nodes.extend(nodes.iter().cloned());
            current = candidate;
        }
        slow.regions.push(Timed { n_regions: regions.len(), nodes, in_floats, is_slow });
    }
    if !slow.nodes.is_empty() {
        slow.rest = Some(score.time_ratio(graph, &current)?);
    }
    if slow.rest.unwrap_or(all).low > 1.0 {
        slow.nodes = made_by(graph, &whole.integer);
        slow.rest = None;
    }
    Ok(slow)
}

/// The first output of each of these nodes.
fn made_by(graph: &Graph, nodes: &[usize]) -> Vec<Name> {
    nodes.iter().filter_map(|&node_idx| graph.nodes[node_idx].output(0).cloned()).collect()
}

/// The integer nodes of each region, in the order of the graph.
fn regions(graph: &Graph, plan: &Plan) -> Vec<Vec<usize>> {
    // The region that a value belongs to, and, of a region that has become part of another, which.
    let mut region_of: IndexMap<&Name, usize> = IndexMap::new();
    let mut part_of: Vec<usize> = Vec::new();
    let is_input = |name: &Name| graph.inputs.iter().any(|input| input.name == *name);
    let mut own: Vec<(usize, usize)> = Vec::new();
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        let is_integer = plan.integer.binary_search(&node_idx).is_ok();
        if !is_integer && !plan.along.contains(&node_idx) {
            continue;
        }
        let region = part_of.len();
        part_of.push(region);
        // What the whole network reads ties nothing together.
        let reads = node.inputs.iter().flatten().filter(|name| !graph.initializers.contains_key(*name));
        for name in reads.filter(|name| !is_input(name)).chain(node.outputs.iter().flatten()) {
            let other = root(&part_of, *region_of.entry(name).or_insert(region));
            let region = root(&part_of, region);
            part_of[other.max(region)] = other.min(region);
        }
        if is_integer {
            own.push((node_idx, region));
        }
    }
    let mut regions: IndexMap<usize, Vec<usize>> = IndexMap::new();
    for (node_idx, region) in own {
        regions.entry(root(&part_of, region)).or_default().push(node_idx);
    }
    regions.into_values().collect()
}

fn root(part_of: &[usize], mut region: usize) -> usize {
    while part_of[region] != region {
        region = part_of[region];
    }
    region
}

/// The regions, those of the same operators on the same shapes together.
fn alike(graph: &Graph, types: &Types, regions: Vec<Vec<usize>>) -> Vec<Vec<Vec<usize>>> {
    let signature = |node: &Node| {
        let values = node.inputs.iter().chain(&node.outputs);
        let shape = |name: &Option<Name>| format!("{:?}", name.as_ref().and_then(|name| types.tensor(name)));
        format!("{:?} {:?}", node.op, values.map(shape).collect::<Vec<String>>())
    };
    let mut alike: IndexMap<Vec<String>, Vec<Vec<usize>>> = IndexMap::new();
    for region in regions {
        let key = region.iter().map(|&node_idx| signature(&graph.nodes[node_idx])).collect();
        alike.entry(key).or_default().push(region);
    }
    alike.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compress::quantize::histogram::Statistics;
    use crate::compress::quantize::options::{QuantizeOptions, Target};
    use crate::graph::op::{self, Op};
    use crate::graph::probe::{ProbeError, Quality};
    use crate::graph::shape::{self, Bindings};
    use crate::graph::structure::blocks::Structure;
    use crate::graph::tensor::{DType, Tensor};
    use crate::graph::{Dim, GraphBuilder, TensorType};

    /// A float convolution takes 10, one in integers what stands here for its number of channels; each answer is unsure by `noise`.
    struct Table<'a> {
        integers: &'a [(usize, f64)],
        noise: f64,
        n_asked: usize,
    }

    impl Table<'_> {
        fn time(&self, graph: &Graph) -> f64 {
            let convs = graph.nodes.iter().filter(|node| matches!(node.op, Op::Conv(_)));
            let time = |node: &Node| match node.input(1).and_then(|name| graph.initializers.get(name)) {
                Some(_) => 10.0,
                None => {
                    let bias = node.input(2).expect("every one has a bias");
                    let made = graph.nodes.iter().find(|node| node.output(0) == Some(bias)).expect("dequantized");
                    let n_channels = graph.initializers[made.input(0).expect("integers")].len();
                    self.integers.iter().find(|(channels, _)| *channels == n_channels).expect("in the table").1
                }
            };
            convs.map(time).sum()
        }
    }

    impl Score for Table<'_> {
        fn time_ratio(&mut self, baseline: &Graph, candidate: &Graph) -> Result<TimeRatio, ProbeError> {
            self.n_asked += 1;
            let median = self.time(candidate) / self.time(baseline);
            Ok(TimeRatio { low: median - self.noise, median, high: median + self.noise })
        }

        fn quality(&mut self, _: &Graph) -> Result<Quality, ProbeError> {
            unreachable!("only times count")
        }

        fn n_bytes(&mut self, _: &Graph) -> Result<u64, ProbeError> {
            unreachable!("only times count")
        }
    }

    /// Convolutions of so many channels with a Tanh, which stays in floats, before each but the first.
    fn chain(channels: &[usize]) -> (Graph, Vec<Name>) {
        let mut builder = GraphBuilder::new("net");
        let mut value = builder.input("x", TensorType::new(DType::F32, [1usize, 2, 4, 4].map(Dim::from)));
        let (mut from, mut made) = (2, Vec::new());
        for &to in channels {
            if !made.is_empty() {
                value = builder.node(Op::Tanh, &[&value]);
            }
            let weight = builder
                .initializer("weight", Tensor::new(&[to, from, 1, 1], vec![0.5f32; to * from]).expect("as many"));
            let bias = builder.initializer("bias", Tensor::vector(vec![0.1f32; to]));
            value = builder.node(Op::Conv(op::Conv::default()), &[&value, &weight, &bias]);
            made.push(value.clone());
            from = to;
        }
        builder.output(&value);
        (builder.finish().expect("a graph"), made)
    }

    fn check(channels: &[usize], integers: &[(usize, f64)], noise: f64, slow: &[usize], n_asked: usize) -> Slow {
        let (graph, made) = chain(channels);
        let types = shape::infer(&graph, &Bindings::default()).expect("types fit");
        let options: QuantizeOptions = toml::from_str("calibrator = 'min-max'").expect("options");
        let choice = options.choose(&Structure::default(), Target::Onnxruntime).expect("chosen");
        let seen = |name: &Name| {
            let mut seen = Statistics::new(false);
            seen.add(name, &[-1.0, 1.0]).expect("numbers");
            (name.clone(), seen)
        };
        let ranges = Ranges { n_samples: 1, values: graph.value_names().map(seen).collect() };
        let mut table = Table { integers, noise, n_asked: 0 };
        let found = slow_nodes(&graph, &types, &choice, &ranges, &mut table).expect("it is timed");
        let expected: Vec<Name> = slow.iter().map(|&idx| made[idx].clone()).collect();
        assert_eq!((&found.nodes, table.n_asked), (&expected, n_asked), "{channels:?} {integers:?}");
        found
    }

    #[test]
    fn what_is_slower_in_integers_goes_back() {
        let found = check(&[3, 4, 5], &[(3, 4.0), (4, 15.0), (5, 9.0)], 0.01, &[1], 5);
        assert_eq!(found.regions.iter().map(|timed| timed.is_slow).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(found.rest.map(|rest| rest.median), Some(23.0 / 30.0));
        // Quicker or within the noise: it stays.
        assert_eq!(check(&[3, 4], &[(3, 4.0), (4, 5.0)], 0.01, &[], 3).rest, None);
        check(&[3, 4], &[(3, 4.0), (4, 10.5)], 0.1, &[], 3);
    }

    #[test]
    fn layers_that_are_alike_are_timed_once() {
        let found = check(&[2, 2, 2, 3], &[(2, 12.0), (3, 5.0)], 0.01, &[0, 1, 2], 3);
        // What is left is the last one, which the whole tells of.
        assert_eq!(found.regions.iter().map(|timed| timed.n_regions).collect::<Vec<_>>(), [3]);
        assert_eq!(found.rest.map(|rest| rest.median), Some(35.0 / 40.0));
    }

    #[test]
    fn a_network_that_no_integers_make_quicker_stays_in_floats() {
        let found = check(&[3], &[(3, 12.0)], 0.01, &[0], 1);
        assert_eq!((found.regions.len(), found.rest), (0, None));
        // The last region cannot be taken alone; with it the rest is slower still.
        check(&[3, 4], &[(3, 12.0), (4, 13.0)], 0.01, &[0, 1], 3);
    }
}
