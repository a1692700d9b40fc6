//! Taking units out of real and random networks: what is left computes what the whole network does without them, on both
//! runtimes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use aludel::graph::axes::{self, Port};
use aludel::graph::op::{self, PadMode};
use aludel::graph::patch::{Patch, Place};
use aludel::graph::shape::{self, Bindings, Types};
use aludel::graph::simplify::{Options, simplify};
use aludel::graph::structure::groups::{Group, Groups, Role, groups};
use aludel::graph::structure::removal::{Removal, RemovalError, remove};
use aludel::graph::tensor::{DType, Tensor};
use aludel::graph::{Graph, Model, Name, Node, Op, TensorType, ValueInfo, cost};
use aludel::measure::runtime::{self, ModelBytes, Runtime};
use aludel::onnx;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use crate::random_graphs;
use crate::real::{Outputs, Real, apart, real_models, run_bytes};
use crate::support;

/// By index, 30 % of a group's units, at least one, spread over all of them.
fn third(group: &Group) -> Vec<usize> {
    let n_gone = (group.n_units * 3 / 10).max(1);
    (0..n_gone).map(|k| k * group.n_units / n_gone).collect()
}

/// Which slices of which axes go, as flags.
type Gone = BTreeMap<Name, BTreeMap<usize, Vec<bool>>>;

fn gone(removals: &[Removal<'_>], roles: &[Role]) -> Gone {
    let mut gone = Gone::new();
    for Removal { group, units } in removals {
        for member in group.members.iter().filter(|member| roles.contains(&member.role)) {
            let masks = gone.entry(member.value.clone()).or_default();
            let mask = masks.entry(member.axis).or_insert_with(|| vec![false; member.size]);
            units.iter().flat_map(|&unit| member.of_unit(unit)).for_each(|&index| mask[index] = true);
        }
    }
    gone
}

/// The whole network in which the slices that sum over the units are zero, and every node that normalises or reduces over
/// them is given the others only.
fn whole_without(graph: &Graph, types: &Types, removals: &[Removal<'_>]) -> Graph {
    let mut patch = Patch::new(graph);
    for (name, masks) in gone(removals, &[Role::Summed]) {
        let zeroed = |tensor: &Tensor| masks.iter().fold(tensor.clone(), |t, (&axis, mask)| zeroed(&t, axis, mask));
        if let Some(tensor) = graph.initializers.get(&name) {
            patch.replace_initializer(&name, zeroed(tensor));
            continue;
        }
        let node_idx = patch.producer(&name).expect("an initializer or what a Constant makes");
        let mut node = graph.nodes[node_idx].clone();
        if let Op::Constant(attributes) = &mut node.op {
            attributes.value = zeroed(&attributes.value);
        }
        patch.replace(node_idx, vec![node]);
    }
    let all = gone(removals, &[Role::Made, Role::Summed, Role::Constant, Role::Inner]);
    for (node_idx, node) in graph.nodes.iter().enumerate() {
        let crossed = |slot: &axes::Slot| match slot.port {
            Port::Input(position) => node
                .input(position)
                .is_some_and(|name| all.get(name).is_some_and(|masks| masks.contains_key(&slot.axis))),
            Port::Output(_) | Port::Bundle(_) => false,
        };
        if axes::axes(node, types).crossed.iter().any(crossed) {
            let nodes = over_what_stays(&mut patch, types, node, &all);
            patch.replace(node_idx, nodes);
        }
    }
    patch.apply(None).expect("values keep their types")
}

fn zeroed(tensor: &Tensor, axis: usize, mask: &[bool]) -> Tensor {
    let shape = tensor.shape();
    let element = tensor.n_bytes() / tensor.len();
    let inner: usize = shape[axis + 1..].iter().product::<usize>() * element;
    let mut bytes = tensor.bytes().expect("numbers").to_vec();
    for (idx, slice) in bytes.chunks_exact_mut(inner).enumerate() {
        if mask[idx % shape[axis]] {
            slice.fill(0);
        }
    }
    Tensor::from_bytes(tensor.dtype(), shape, bytes.into()).expect("as many bytes as before")
}

/// The node on the slices that stay, its outputs filled up with zeros.
fn over_what_stays(patch: &mut Patch, types: &Types, node: &Node, gone: &Gone) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut inner = node.clone();
    for input in inner.inputs.iter_mut().flatten() {
        for (&axis, mask) in gone.get(input).into_iter().flatten() {
            let kept: Vec<i64> = (0..).zip(mask).filter(|(_, gone)| !**gone).map(|(index, _)| index).collect();
            let kept = patch.add_initializer("kept", Tensor::vector(kept));
            let gathered = patch.fresh("gathered");
            let gather = Op::Gather(op::Gather { axis: axis as i64 });
            nodes.push(Node::new(gather, vec![Some(input.clone()), Some(kept)], vec![Some(gathered.clone())]));
            *input = gathered;
        }
    }
    let mut after = Vec::new();
    for output in inner.outputs.iter_mut().flatten() {
        let Some(masks) = gone.get(output) else { continue };
        let name = std::mem::replace(output, patch.fresh("of_those_kept"));
        let (&axis, mask) = masks.iter().next().expect("an axis");
        assert_eq!(masks.len(), 1, "a normalised value loses slices of one axis");
        let rank = types.tensor(&name).and_then(TensorType::rank).expect("a known rank");
        after.extend(filled_up(patch, output, (&name, rank), axis, mask));
    }
    nodes.push(inner);
    nodes.extend(after);
    nodes
}

/// Zeros in the place of what is gone: a slice of them is added at the end, and taken wherever one is wanted.
fn filled_up(patch: &mut Patch, kept: &Name, (whole, rank): (&Name, usize), axis: usize, mask: &[bool]) -> Vec<Node> {
    let n_kept = mask.iter().filter(|gone| !**gone).count() as i64;
    let mut next = -1;
    let place = |&gone: &bool| {
        if gone {
            n_kept
        } else {
            next += 1;
            next
        }
    };
    let places = patch.add_initializer("places", Tensor::vector(mask.iter().map(place).collect::<Vec<i64>>()));
    let pads = (0..2 * rank).map(|place| i64::from(place == rank + axis)).collect::<Vec<i64>>();
    let pads = patch.add_initializer("pads", Tensor::vector(pads));
    let zero = patch.add_initializer("zero", Tensor::scalar(0f32));
    let padded = patch.fresh("padded");
    let pad = Op::Pad(op::Pad { mode: PadMode::Constant });
    let gather = Op::Gather(op::Gather { axis: axis as i64 });
    vec![
        Node::new(pad, [kept, &pads, &zero].map(|name| Some(name.clone())).to_vec(), vec![Some(padded.clone())]),
        Node::new(gather, vec![Some(padded), Some(places)], vec![Some(whole.clone())]),
    ]
}

fn bytes_of(model: &Model, graph: Graph) -> ModelBytes {
    ModelBytes::new(onnx::to_bytes(&model.with_graph(graph)).expect("it can be written"))
}

fn n_parameters(graph: &Graph) -> u64 {
    let types = shape::infer(graph, &Bindings::default()).expect("types fit");
    cost::cost(graph, &types).total.parameters
}

/// 30 % of every group that can lose any.
fn thirds(found: &Groups) -> Vec<(usize, Vec<usize>)> {
    found.groups.iter().enumerate().map(|(idx, group)| (idx, third(group))).collect()
}

/// The file as it is, and simplified.
fn check_real(real: &Real, model: &Model, table: &mut String) {
    let name = real.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    check_model(real, model, &name, table);
    let simplified = simplify(&model.graph, &Options::default()).expect("types fit").graph;
    check_model(real, &model.with_graph(simplified), "  simplified", table);
}

fn check_model(real: &Real, model: &Model, name: &str, table: &mut String) {
    let types = shape::infer(&model.graph, &Bindings::default()).expect("types fit");
    let found = groups(&model.graph, &types);
    let thirds = thirds(&found);
    let removals: Vec<Removal<'_>> =
        thirds.iter().map(|(idx, units)| Removal { group: &found.groups[*idx], units }).collect();
    let smaller = remove(&model.graph, &types, &removals).expect("the units can go");
    smaller.check().expect("a graph");
    let (before, after) = (n_parameters(&model.graph), n_parameters(&smaller));
    let whole = bytes_of(model, whole_without(&model.graph, &types, &removals));
    let smaller = bytes_of(model, smaller);
    let _ = write!(table, "{name:<28} {:>3} groups  {before:>9} -> {after:>9} parameters", removals.len());
    for runtime in support::runtimes() {
        if runtime.name() == "tract" && !real.tract_refuses.is_empty() {
            continue;
        }
        let [expected, got] = [&whole, &smaller].map(|bytes| {
            let outputs = run_bytes(runtime, real, bytes, &runtime::Options::default());
            outputs.unwrap_or_else(|error| panic!("{name} on {}: {error}", runtime.name()))
        });
        let apart = apart(&expected, &got);
        assert!(apart <= 1e-4, "{name} on {}: {apart:.1e}", runtime.name());
        let _ = write!(table, "  {} {apart:.0e}", runtime.name());
    }
    table.push('\n');
}

#[test]
fn a_third_of_every_group_of_real_models_can_go() {
    let Some(data) = support::data() else { return };
    let mut table = String::from(
        "30 % of every group taken out: greatest difference from the whole network with the summing slices at zero\n",
    );
    for real in real_models(&data) {
        check_real(&real, &onnx::read(&real.path).expect("a network"), &mut table);
    }
    support::say(&table);
}

/// MiniLM with a head of two classes in the place of its outputs, so that its hidden features are inside.
fn with_head(model: &Model) -> Model {
    let graph = &model.graph;
    let mut patch = Patch::new(graph);
    let weight: Vec<f32> = (0..384 * 2).map(|k| (k as f32 * 0.37).sin()).collect();
    let weight = patch.add_initializer("head", Tensor::new(&[384, 2], weight).expect("as many as the shape has"));
    let scores = patch.fresh("scores");
    let hidden = graph.outputs.iter().find(|output| output.name.as_str() == "last_hidden_state").expect("an output");
    patch.insert(
        Place::End,
        Node::new(Op::MatMul, vec![Some(hidden.name.clone()), Some(weight)], vec![Some(scores.clone())]),
    );
    graph.outputs.iter().for_each(|output| patch.remove_output(&output.name));
    patch.add_output(ValueInfo::new(&scores, TensorType::unranked(DType::F32)));
    model.with_graph(patch.apply(None).expect("a graph"))
}

#[test]
fn hidden_features_can_go_through_every_normalisation() {
    let Some(data) = support::data() else { return };
    let real = real_models(&data).into_iter().find(|real| real.path.ends_with("model_f16w.onnx")).expect("MiniLM");
    let model = with_head(&onnx::read(&real.path).expect("a network"));
    let types = shape::infer(&model.graph, &Bindings::default()).expect("types fit");
    let found = groups(&model.graph, &types);
    let hidden = found.groups.iter().find(|group| group.n_units == 384).expect("the hidden features");
    let norms = hidden.crosses.iter().filter(|node| node.starts_with("LayerNormalization"));
    assert_eq!(norms.count(), 13, "{:?}", hidden.crosses);
    let mut table = String::new();
    check_real(&real, &model, &mut table);
    support::say(&format!("with the hidden features: {table}"));
}

fn random_input(graph: &Graph) -> Outputs {
    let dims = graph.inputs[0].tensor_type().and_then(|tensor| tensor.shape.clone()).expect("a shape");
    let shape: Vec<usize> = dims.iter().map(|dim| dim.known().unwrap_or(2)).collect();
    let numbers = (0..shape.iter().product()).map(|k: usize| (k as f32 * 0.7).sin()).collect();
    vec![(graph.inputs[0].name.to_string(), Tensor::new(&shape, numbers).expect("as many as the shape has"))]
}

fn run_random(runtime: &dyn Runtime, bytes: &ModelBytes, input: &Outputs) -> Result<Outputs, String> {
    let mut session = runtime.load(bytes, &runtime::Options::default()).map_err(|error| error.to_string())?;
    session.run(input).map_err(|error| error.to_string())
}

/// All groups at once; true where tract runs networks of these operators.
fn check_random(graph: &Graph) -> bool {
    let types = shape::infer(graph, &Bindings::default()).expect("types fit");
    let found = groups(graph, &types);
    let thirds = thirds(&found);
    let removals: Vec<Removal<'_>> =
        thirds.iter().map(|(idx, units)| Removal { group: &found.groups[*idx], units }).collect();
    let smaller = match remove(graph, &types, &removals) {
        Err(RemovalError::Empties { .. }) => return true, // each leaves something, all together nothing
        smaller => smaller.expect("the units can go"),
    };
    let model = Model::new(graph.clone());
    let whole = bytes_of(&model, whole_without(graph, &types, &removals));
    let smaller = bytes_of(&model, smaller);
    let input = random_input(graph);
    let mut on_tract = false;
    for runtime in support::runtimes() {
        let expected = match run_random(runtime, &whole, &input) {
            Ok(expected) => expected,
            Err(_) if runtime.name() == "tract" => continue,
            Err(error) => panic!("the whole network on {}: {error}", runtime.name()),
        };
        on_tract |= runtime.name() == "tract";
        let got = run_random(runtime, &smaller, &input).unwrap_or_else(|e| panic!("{}: {e}", runtime.name()));
        let apart = apart(&expected, &got);
        assert!(apart <= 1e-4, "{}: {apart:.1e}", runtime.name());
    }
    on_tract
}

/// A runner of so many cases, the same every time.
fn runner(cases: u32) -> TestRunner {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

#[test]
fn a_third_of_every_group_of_random_networks_can_go() {
    const CASES: u32 = 48;
    let (all, on_tract) = (Cell::new(0), Cell::new(0));
    let count = |graph: Graph| {
        all.set(all.get() + 1);
        on_tract.set(on_tract.get() + u32::from(check_random(&graph)));
        Ok(())
    };
    let convolutional = (random_graphs::layers(), any::<bool>(), any::<u64>());
    let checked = runner(CASES)
        .run(&convolutional, |(layers, flat, seed)| count(random_graphs::convolutional(&layers, flat, seed)));
    checked.unwrap_or_else(|error| panic!("{error}"));
    let sequential = (random_graphs::blocks(), any::<u64>());
    let checked = runner(CASES).run(&sequential, |(blocks, seed)| count(random_graphs::sequential(&blocks, seed)));
    checked.unwrap_or_else(|error| panic!("{error}"));
    let (all, on_tract) = (all.get(), on_tract.get());
    support::say(&format!("{all} random networks without a third of their units, {on_tract} of them on tract, too\n"));
    assert!(all == 2 * CASES && on_tract >= CASES, "tract is to run half of them at least");
}
