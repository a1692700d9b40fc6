//! Removal against the whole network in which what sums over the removed units is zero.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use proptest::prelude::*;

use super::gone::Mask;
use super::*;
use crate::graph::axes::{self, Port};
use crate::graph::eval;
use crate::graph::shape::Bindings;
use crate::graph::structure::groups::{Groups, Kind, groups};
use crate::graph::structure::random_graphs;
use crate::graph::structure::shared_heads::{REPEATS, SharedHeads};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{GraphBuilder, Op};

/// Evaluates the whole graph as if the slices were not there: whatever is made of them is zero, and what normalises or
/// reduces over them sees only the others.
fn without_slices(graph: &Graph, gone: &Gone, types: &Types, inputs: &IndexMap<Name, Tensor>) -> Vec<Tensor> {
    let mut values: BTreeMap<Name, Tensor> =
        inputs.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    values.extend(graph.initializers.iter().map(|(name, tensor)| {
        let masks = gone.of_value(name).into_iter().flatten();
        let tensor = masks.fold(tensor.clone(), |tensor, (&axis, mask)| zeroed(&tensor, axis, mask));
        (name.clone(), tensor)
    }));
    for node in &graph.nodes {
        let facts = axes::axes(node, types);
        let crosses = facts.crossed.iter().any(|slot| match slot.port {
            Port::Input(position) => gone.mask(node.input(position), slot.axis).is_some(),
            Port::Output(_) | Port::Bundle(_) => false,
        });
        let given = |name: &Option<Name>| {
            let name = name.as_ref()?;
            let tensor = values[name].clone();
            Some(match gone.of_value(name).filter(|_| crosses) {
                Some(masks) => slices::without(&tensor, masks),
                None => tensor,
            })
        };
        let given: Vec<Option<Tensor>> = node.inputs.iter().map(given).collect();
        let outputs = eval::operator(&node.op, &given, node.outputs.len()).expect("the node can be computed");
        for (name, tensor) in node.outputs.iter().zip(outputs) {
            let (Some(name), Some(tensor)) = (name, tensor) else { continue };
            let tensor = match gone.of_value(name) {
                Some(masks) if crosses => {
                    masks.iter().fold(tensor, |tensor, (&axis, mask)| spread(&tensor, axis, mask))
                }
                Some(masks) => masks.iter().fold(tensor, |tensor, (&axis, mask)| zeroed(&tensor, axis, mask)),
                None => tensor,
            };
            values.insert(name.clone(), tensor);
        }
    }
    graph.outputs.iter().map(|output| values[&output.name].clone()).collect()
}

/// The tensor with zeros where the mask says so.
fn zeroed(tensor: &Tensor, axis: usize, mask: &Mask) -> Tensor {
    let shape = tensor.shape();
    let inner: usize = shape[axis + 1..].iter().product();
    let Ok(mut numbers) = tensor.to_vec::<f32>() else { return tensor.clone() };
    for (idx, number) in numbers.iter_mut().enumerate() {
        if mask[idx / inner % shape[axis]] {
            *number = 0.0;
        }
    }
    Tensor::new(shape, numbers).expect("as many as before")
}

/// The tensor with slices of zeros put in where the mask says so.
fn spread(tensor: &Tensor, axis: usize, mask: &Mask) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    let inner: usize = shape[axis + 1..].iter().product();
    let n_slices = shape[axis];
    let numbers = tensor.to_vec::<f32>().expect("normalisations are of floats");
    let mut whole = Vec::new();
    for row in numbers.chunks_exact(n_slices * inner) {
        let mut kept = row.chunks_exact(inner);
        for &gone in mask {
            match gone {
                true => whole.extend(std::iter::repeat_n(0.0, inner)),
                false => whole.extend_from_slice(kept.next().expect("a slice for each that stays")),
            }
        }
    }
    shape[axis] = mask.len();
    Tensor::new(&shape, whole).expect("as many as the shape has")
}

/// By index, 30 % of a group's units, at least one, spread over all of them.
fn third(group: &Group) -> Vec<usize> {
    let n_gone = (group.n_units * 3 / 10).max(1);
    (0..n_gone).map(|k| k * group.n_units / n_gone).collect()
}

fn input(graph: &Graph, seed: f32) -> IndexMap<Name, Tensor> {
    let tensor_type = graph.inputs[0].tensor_type().expect("a tensor");
    let shape: Vec<usize> =
        tensor_type.shape.as_ref().expect("a shape").iter().map(|dim| dim.known().unwrap_or(2)).collect();
    let n: usize = shape.iter().product();
    let numbers: Vec<f32> = (0..n).map(|k| (k as f32 * 0.7 + seed).sin()).collect();
    [(graph.inputs[0].name.clone(), Tensor::new(&shape, numbers).expect("a tensor"))].into_iter().collect()
}

fn assert_close(expected: &Tensor, got: &Tensor) {
    assert_eq!(expected.shape(), got.shape());
    let [expected, got] = [expected, got].map(|tensor| tensor.to_vec::<f32>().expect("floats"));
    let largest = expected.iter().fold(1e-3f32, |largest, x| largest.max(x.abs()));
    for (a, b) in expected.iter().zip(&got) {
        assert!((a - b).abs() <= 1e-4 * largest, "expected {a}, got {b}; the largest is {largest}");
    }
}

/// Takes these units out and compares with the whole network without their slices.
fn check(graph: &Graph, types: &Types, removals: &[Removal<'_>]) {
    let smaller = remove(graph, types, removals).expect("the units can go");
    smaller.check().expect("a graph");
    let gone = Gone::of(types, removals).expect("units of the graph");
    let inputs = input(graph, 0.3);
    let expected = without_slices(graph, &gone, types, &inputs);
    let got = eval::run(&smaller, &inputs).expect("the smaller network runs");
    expected.iter().zip(got.values()).for_each(|(expected, got)| assert_close(expected, got));
}

/// Every group alone, then all of them together.
fn check_all(graph: &Graph) -> Groups {
    let types = crate::graph::shape::infer(graph, &Bindings::default()).expect("types fit");
    let found = groups(graph, &types);
    let units: Vec<Vec<usize>> = found.groups.iter().map(third).collect();
    let removals: Vec<Removal<'_>> = found
        .groups
        .iter()
        .zip(&units)
        .filter(|(group, _)| group.n_units > 1)
        .map(|(group, units)| Removal { group, units })
        .collect();
    removals.iter().for_each(|removal| check(graph, &types, &[*removal]));
    if without_emptying(&types, &removals) {
        check(graph, &types, &removals);
    }
    found
}

/// Groups that share an axis may each leave something and all together nothing.
fn without_emptying(types: &Types, removals: &[Removal<'_>]) -> bool {
    !matches!(Gone::of(types, removals), Err(RemovalError::Empties { .. }))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_group_of_a_convolutional_network_can_go(
        layers in random_graphs::layers(), flat in any::<bool>(), seed in any::<u64>(),
    ) {
        check_all(&random_graphs::convolutional(&layers, flat, seed));
    }

    #[test]
    fn any_group_of_a_sequential_network_can_go(blocks in random_graphs::blocks(), seed in any::<u64>()) {
        check_all(&random_graphs::sequential(&blocks, seed));
    }

    #[test]
    fn shared_heads_can_go(
        n_kept in 1usize..5, n_shared in 1usize..5, size in 1usize..7, repeat in prop::sample::select(&REPEATS[..]),
    ) {
        let found = check_all(&SharedHeads { n_kept, n_shared, size, repeat }.network(false));
        let n_heads = found.groups.iter().filter(|group| group.kind == Kind::Heads).map(|group| group.n_units);
        prop_assert!(n_kept == 1 || n_heads.eq([n_kept]), "{found}");
    }
}

/// A dense layer of four units, an operator on them, and a layer of two that sums over them.
fn between(op: Op, more: &[Tensor]) -> Graph {
    let mut builder = GraphBuilder::new("between");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 3.into()]));
    let number = |k: usize| (k as f32 * 1.3).cos();
    let weight = |n: usize| (0..n).map(number).collect::<Vec<f32>>();
    let first = builder.initializer("first", Tensor::new(&[3, 4], weight(12)).expect("a tensor"));
    let second = builder.initializer("second", Tensor::new(&[4, 2], weight(8)).expect("a tensor"));
    let more: Vec<Name> = more.iter().map(|tensor| builder.initializer("more", tensor.clone())).collect();
    let units = builder.node(Op::MatMul, &[&x, &first]);
    let inputs: Vec<&Name> = [&units].into_iter().chain(&more).collect();
    let units = builder.node(op, &inputs);
    let y = builder.node(Op::MatMul, &[&units, &second]);
    builder.output(&y);
    builder.finish().expect("a graph")
}

fn infer(graph: &Graph) -> Types {
    shape::infer(graph, &Bindings::default()).expect("types fit")
}

#[test]
fn what_is_written_anew_is_seen_in_the_graph() {
    let graph = between(Op::Mul, &[Tensor::vector(vec![1f32, 2.0, 3.0, 4.0])]);
    let types = infer(&graph);
    let found = groups(&graph, &types);
    let removal = Removal { group: &found.groups[0], units: &[3, 1] };
    let smaller = remove(&graph, &types, &[removal]).expect("the units can go");
    insta::assert_snapshot!(crate::graph::show::show(&smaller), @r#"
    graph "between"
      in   %x: f32[batch, 3]
      out  %matmul_2
      init %first: f32[3, 2] [1.0, -0.8568887, 0.4685165, 0.053955708, -0.56098455, 0.9074468]
      init %second: f32[2, 2] [1.0, 0.26749888, 0.4685165, 0.97658765]
      init %more: f32[2] [1.0, 3.0]
      %matmul = MatMul(%x, %first)
      %mul = Mul(%matmul, %more)
      %matmul_2 = MatMul(%mul, %second)
    "#);
}

#[test]
fn impossible_removals_are_refused() {
    let graph = between(Op::Relu, &[]);
    let types = infer(&graph);
    let found = groups(&graph, &types);
    let group = &found.groups[0];
    let refusal =
        |units: &[usize]| remove(&graph, &types, &[Removal { group, units }]).expect_err("refused").to_string();
    assert_eq!(refusal(&[4]), "the group of `first` has 4 units, there is no unit 4");
    assert_eq!(refusal(&[0, 1, 2, 3]), "nothing would be left of axis 1 of `first`: keep at least one unit");
    let other = between(Op::Relu, &[]);
    let other_types =
        shape::infer(&random_graphs::convolutional(&[], true, 1), &Bindings::default()).expect("types fit");
    let foreign = remove(&other, &other_types, &[Removal { group, units: &[0] }]).expect_err("refused").to_string();
    assert_eq!(foreign, "`first` has no axis 1 of 4 slices: the group is of another graph");
    let none = remove(&graph, &types, &[Removal { group, units: &[] }]).expect("nothing to do");
    assert_eq!(none, graph);
}

/// A shape that is computed at run time: the batch's size, then the units, in two halves.
#[test]
fn computed_shapes_are_corrected() {
    let mut builder = GraphBuilder::new("computed");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), "length".into(), 3.into()]));
    let weights = [[3usize, 4], [4, 2]].map(|shape| {
        let numbers = (0..shape[0] * shape[1]).map(|k| (k as f32 * 1.3).cos()).collect();
        builder.initializer("weight", Tensor::new(&shape, numbers).expect("a tensor"))
    });
    let units = builder.node(Op::MatMul, &[&x, &weights[0]]);
    let shape = builder.node(Op::Shape(crate::graph::op::Shape { start: 0, end: Some(2) }), &[&x]);
    let last = builder.initializer("last", Tensor::vector(vec![4i64]));
    let shape = builder.node(Op::Concat(crate::graph::op::Concat { axis: 0 }), &[&shape, &last]);
    let zeros = builder.node(Op::ConstantOfShape(crate::graph::op::ConstantOfShape { value: None }), &[&shape]);
    let units = builder.node(Op::Max, &[&units, &zeros]);
    let y = builder.node(Op::MatMul, &[&units, &weights[1]]);
    builder.output(&y);
    let found = check_all(&builder.finish().expect("a graph"));
    assert_eq!(found.groups.len(), 1);
}

#[test]
fn pixels_are_followed_in_both_orders() {
    for crd in [false, true] {
        let layers = [
            random_graphs::Layer::SpaceToDepth { crd },
            random_graphs::Layer::Conv { channels: 5, kernel: 1, bias: true },
        ];
        let found = check_all(&random_graphs::convolutional(&layers, false, 3));
        assert_eq!(found.groups.len(), 2);
    }
}

#[test]
fn an_axis_that_shrinks_to_one_is_not_squeezed() {
    let mut builder = GraphBuilder::new("squeeze");
    let x = builder.input("x", TensorType::new(DType::F32, [2usize, 3]));
    let weights = [[3usize, 2], [2, 2]].map(|shape| {
        let numbers = (0..shape[0] * shape[1]).map(|k| (k as f32 * 1.3).cos()).collect();
        builder.initializer("weight", Tensor::new(&shape, numbers).expect("a tensor"))
    });
    let axes = builder.initializer("axes", Tensor::vector(vec![1i64]));
    let units = builder.node(Op::MatMul, &[&x, &weights[0]]);
    let units = builder.node(Op::Unsqueeze, &[&units, &axes]);
    let units = builder.node(Op::Squeeze, &[&units]);
    let y = builder.node(Op::MatMul, &[&units, &weights[1]]);
    builder.output(&y);
    let found = check_all(&builder.finish().expect("a graph"));
    assert_eq!(found.groups.len(), 1);
}
