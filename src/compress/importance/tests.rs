//! Every criterion against a plain loop written from its equation, gradients against finite differences of the loss.

use indexmap::IndexMap;

use super::*;
use crate::compress::observe::ObserveError;
use crate::compress::observe::channels::measure;
use crate::compress::testing::{Reference, wave};
use crate::graph::op::{BatchNormalization, Conv, Op};
use crate::graph::shape::{Bindings, infer};
use crate::graph::structure::groups::{Member, Role, groups};
use crate::graph::structure::random_graphs::{Block, Layer, convolutional, sequential};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, GraphBuilder, TensorType, eval};
use crate::learn::train::TrainError;
use crate::learn::train::loss::{Loss, attach};

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_f32s().expect("floats").iter().map(|&x| f64::from(x)).collect()
}

/// `Conv "first" [4, 2, 3, 3]`, a batch normalisation, Relu, `Conv "second" [3, 4, 1, 1]` and a mean over the image.
fn images() -> Graph {
    let mut builder = GraphBuilder::new("images");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 2.into(), 4.into(), 4.into()]));
    let first = builder.initializer("first", wave(&[4, 2, 3, 3], 0.2));
    let norm = ["gamma", "beta", "mean"].map(|name| builder.initializer(name, wave(&[4], name.len() as f32)));
    let variance = builder.initializer("variance", Tensor::vector(vec![1.0f32, 0.5, 2.0, 1.5]));
    let second = builder.initializer("second", wave(&[3, 4, 1, 1], 0.9));
    let x = builder.node(Op::Conv(Conv::default()), &[&x, &first]);
    let norm = [&x, &norm[0], &norm[1], &norm[2], &variance];
    let x = builder.node(Op::BatchNormalization(BatchNormalization::default()), &norm);
    let x = builder.node(Op::Relu, &[&x]);
    let x = builder.node(Op::Conv(Conv::default()), &[&x, &second]);
    let y = builder.node(Op::GlobalAveragePool, &[&x]);
    builder.output(&y);
    builder.finish().expect("a graph")
}

fn found(graph: &Graph) -> (Types, Vec<Group>) {
    let types = infer(graph, &Bindings::default()).expect("types fit");
    let found = groups(graph, &types).groups;
    (types, found)
}

/// The importance of the first group's units.
fn first(graph: &Graph, criterion: Criterion) -> Vec<f64> {
    let (types, groups) = found(graph);
    importance(graph, &types, &groups, criterion, 7)[0].clone().expect("numbers")
}

#[track_caller]
fn assert_close(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(1e-9f64, |largest, x| largest.max(x.abs()));
    for (a, b) in got.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance * largest, "got {got:?}, expected {expected:?}");
    }
}

fn over_mean(numbers: &[f64]) -> Vec<f64> {
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    numbers.iter().map(|x| x / mean).collect()
}

/// The filters of `first` and the columns of `second`.
fn slices() -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let (first, second) = (numbers(&wave(&[4, 2, 3, 3], 0.2)), numbers(&wave(&[3, 4, 1, 1], 0.9)));
    let column = |unit: usize| (0..3).map(|row| second[row * 4 + unit]).collect();
    (first.chunks(18).map(<[f64]>::to_vec).collect(), (0..4).map(column).collect())
}

#[test]
fn norms_of_all_that_makes_scales_and_reads_a_unit() {
    let (made, read) = slices();
    let gamma = numbers(&wave(&[4], 5.0));
    for (criterion, power) in [(Criterion::L1, 1), (Criterion::L2, 2)] {
        let norm = |slice: &[f64]| slice.iter().map(|x| x.abs().powi(power)).sum::<f64>().powf(1.0 / f64::from(power));
        let norms = |slices: &[Vec<f64>]| over_mean(&slices.iter().map(|slice| norm(slice)).collect::<Vec<f64>>());
        let scales: Vec<Vec<f64>> = gamma.iter().map(|&x| vec![x]).collect();
        let (made, read, scales) = (norms(&made), norms(&read), norms(&scales));
        let expected: Vec<f64> = (0..4).map(|unit| made[unit] + read[unit] + scales[unit]).collect();
        assert_close(&first(&images(), criterion), &expected, 1e-12);
    }
}

#[test]
fn distances_to_the_other_filters() {
    let (made, _) = slices();
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let sums: Vec<f64> = (0..4).map(|j| (0..4).map(|other| distance(&made[other], &made[j])).sum()).collect();
    assert_close(&first(&images(), Criterion::Fpgm), &over_mean(&sums), 1e-5);
}

#[test]
fn squared_norms_over_those_that_are_no_less() {
    let norms = first(&images(), Criterion::L2);
    let score = |u: usize| {
        let rest: f64 = norms.iter().filter(|&&norm| norm >= norms[u]).map(|norm| norm * norm).sum();
        norms[u] * norms[u] / rest
    };
    let expected: Vec<f64> = (0..4).map(score).collect();
    let got = first(&images(), Criterion::Lamp);
    assert_close(&got, &expected, 1e-12);
    assert!(got.contains(&1.0), "the greatest has nothing before it");
    assert_eq!(lamp(&[2.0, 2.0, 0.0]), [1.0, 0.5, 0.0], "of equals the later one goes first");
    assert_eq!(lamp(&[0.0, 0.0]), [0.0, 0.0]);
}

#[test]
fn scales_of_normalisations() {
    let gamma: Vec<f64> = numbers(&wave(&[4], 5.0)).iter().map(|x| x.abs()).collect();
    assert_close(&first(&images(), Criterion::BatchNorm), &gamma, 1e-12);
    let plain = convolutional(&[], false, 7);
    let (types, groups) = found(&plain);
    let refused = importance(&plain, &types, &groups, Criterion::BatchNorm, 7)[0].clone().expect_err("no scale");
    assert_eq!(
        refused.to_string(),
        "`weight` cannot be ranked: `weight` makes units that no normalisation scales; prune before normalisations become \
         part of convolutions, or use the criterion `l2`"
    );
}

#[test]
fn what_tells_nothing_of_the_weights() {
    assert_eq!(first(&images(), Criterion::First), [4.0, 3.0, 2.0, 1.0]);
    let random = first(&images(), Criterion::Random);
    assert_eq!(random, first(&images(), Criterion::Random));
    assert!(random.iter().all(|x| (0.0..1.0).contains(x)) && random[0] != random[1]);
}

/// Three batches of two samples.
fn batches(graph: &Graph) -> [IndexMap<Name, Tensor>; 3] {
    let input = &graph.inputs[0];
    let dims = input.tensor_type().and_then(|known| known.shape.clone()).expect("a shape");
    let shape: Vec<usize> = dims.iter().map(|dim| dim.known().unwrap_or(2)).collect();
    [0.1, 0.4, 1.9].map(|phase| IndexMap::from([(input.name.clone(), wave(&shape, phase))]))
}

/// What a plain loop makes of the elements of each unit of a value, over all batches.
fn seen(graph: &Graph, value: &Name, member: &Member, n_units: usize, of: impl Fn(f64) -> f64) -> Vec<f64> {
    let (mut sums, mut counts) = (vec![0f64; n_units], vec![0f64; n_units]);
    for batch in batches(graph) {
        let tensor = &eval::run_with(graph, &batch, std::slice::from_ref(value)).expect("it runs")[value];
        let inner: usize = tensor.shape()[member.axis + 1..].iter().product();
        for (position, x) in numbers(tensor).into_iter().enumerate() {
            let index = position / inner % tensor.shape()[member.axis];
            let unit = (0..n_units).find(|&unit| member.of_unit(unit).contains(&index)).expect("all belong to units");
            sums[unit] += of(x);
            counts[unit] += 1.0;
        }
    }
    sums.iter().zip(&counts).map(|(sum, n)| sum / n).collect()
}

/// Every group by its activations, against a plain loop over the values that are to be seen: these.
#[track_caller]
fn check_activations(graph: &Graph, expected: &[&str]) {
    let (types, groups) = found(graph);
    let values = activation_values(graph, &types, &groups);
    assert_eq!(values.keys().map(Name::as_str).collect::<Vec<_>>(), expected);
    let names: Vec<Name> = values.keys().cloned().collect();
    let mut reference = Reference(graph.clone(), names);
    let observed = measure(&mut reference, &values, batches(graph).map(Ok::<_, ObserveError>), |_| ()).expect("seen");
    for criterion in [Criterion::Activation, Criterion::Apoz] {
        for (group, got) in groups.iter().zip(by_activations(&groups, &observed, criterion)) {
            let own = group.with_role(Role::Inner).filter(|member| values.get(&member.value) == Some(&member.axis));
            let own: Vec<&Member> = own.collect();
            let mut total = vec![0f64; group.n_units];
            for member in &own {
                let numbers = match criterion {
                    Criterion::Activation => over_mean(&seen(graph, &member.value, member, group.n_units, f64::abs)),
                    _ => {
                        let is_not_zero = |x: f64| if x == 0.0 { 0.0 } else { 1.0 / own.len() as f64 };
                        seen(graph, &member.value, member, group.n_units, is_not_zero)
                    }
                };
                total.iter_mut().zip(numbers).for_each(|(total, number)| *total += number);
            }
            assert_close(&got.expect("numbers"), &total, 1e-6);
        }
    }
}

#[test]
fn activations_are_those_that_products_read() {
    check_activations(&images(), &["relu"]);
    let attention = sequential(&[Block::Attention { heads: 3, size: 2, fused: false }], 7);
    check_activations(&attention, &["add", "add_6", "reshape_4"]);
    check_activations(&sequential(&[Block::FeedForward { hidden: 5, gelu: false }], 7), &["add", "add_4", "relu"]);
}

#[test]
fn what_was_not_seen_is_refused() {
    let graph = images();
    let (_, groups) = found(&graph);
    let refused = |criterion| by_activations(&groups, &IndexMap::new(), criterion)[0].clone().expect_err("refused");
    assert_eq!(
        refused(Criterion::Apoz).to_string(),
        "`first` cannot be ranked: `first` makes units that no product sums over; use a criterion of weights"
    );
    assert!(refused(Criterion::L2).to_string().ends_with("the criterion is one of weights alone"));
    let (types, groups) = found(&graph);
    let refused = importance(&graph, &types, &groups, Criterion::Taylor, 7)[0].clone().expect_err("refused");
    assert!(refused.to_string().ends_with("the criterion is told by gradients on data"), "{refused}");
}

/// Batches with targets.
fn with_targets(graph: &Graph, target: &Name) -> Vec<IndexMap<Name, Tensor>> {
    let output = &graph.outputs[0].name;
    let of_batch = |mut batch: IndexMap<Name, Tensor>| {
        let shape = eval::run(graph, &batch).expect("it runs")[output].shape().to_vec();
        batch.insert(target.clone(), wave(&shape, 0.6));
        batch
    };
    batches(graph).into_iter().map(of_batch).collect()
}

#[derive(Debug)]
struct Failed(#[expect(dead_code, reason = "shown where a test fails")] String);

impl From<TrainError> for Failed {
    fn from(error: TrainError) -> Failed {
        Failed(error.to_string())
    }
}

impl From<ObserveError> for Failed {
    fn from(error: ObserveError) -> Failed {
        Failed(error.to_string())
    }
}

/// A graph with its loss, changed number by number.
struct Differences {
    graph: Graph,
    loss: Name,
}

impl Differences {
    /// The derivative of the loss by what `change` adds to each number of the initializers: a factor, or nothing.
    fn along(&self, batch: &IndexMap<Name, Tensor>, change: &dyn Fn(&Name, usize) -> f64) -> f64 {
        const STEP: f64 = 4e-3;
        let at = |step: f64| {
            let mut parts = self.graph.to_parts();
            for (name, tensor) in parts.initializers.iter_mut().filter(|(_, tensor)| tensor.dtype() == DType::F32) {
                let moved = numbers(tensor).into_iter().enumerate();
                let moved = moved.map(|(k, x)| (x * (1.0 + step * change(name, k))) as f32).collect();
                *tensor = Tensor::new(tensor.shape(), moved).expect("as many as before");
            }
            let graph = Graph::new(parts).expect("a graph");
            numbers(&eval::run_with(&graph, batch, std::slice::from_ref(&self.loss)).expect("it runs")[&self.loss])[0]
        };
        (at(STEP) - at(-STEP)) / (2.0 * STEP)
    }
}

/// Taylor and movement by scaling all slices of a unit, Fisher number by number.
fn check_gradients(graph: &Graph) {
    let (types, groups) = found(graph);
    let output = graph.outputs[0].name.clone();
    let with_loss = attach(graph, &output, Loss::Mse).expect("a loss");
    let batches = with_targets(graph, with_loss.target.as_ref().expect("a target"));
    let by = |criterion| {
        let batches = batches.iter().cloned().map(Ok::<_, Failed>);
        by_gradients(graph, &types, &groups, &output, Loss::Mse, batches, criterion, 7).expect("gradients")
    };
    let (taylor, fisher) = (by(Criterion::Taylor), by(Criterion::Fisher));
    let differences = Differences { graph: with_loss.graph, loss: with_loss.loss };
    for (group_idx, group) in groups.iter().enumerate() {
        let members: Vec<&Member> = group.members.iter().filter(|member| member.role != Role::Inner).collect();
        let is_of = |unit: usize, name: &Name, k: usize| {
            let own = members.iter().filter(|member| member.value == *name);
            let of_member = |member: &&&Member| {
                let shape = graph.initializers[name].shape();
                let index = k / shape[member.axis + 1..].iter().product::<usize>() % shape[member.axis];
                member.of_unit(unit).contains(&index)
            };
            own.filter(of_member).count() as f64
        };
        let (mut expected_taylor, mut expected_fisher) = (vec![0f64; group.n_units], vec![0f64; group.n_units]);
        for (unit, batch) in (0..group.n_units).flat_map(|unit| batches.iter().map(move |batch| (unit, batch))) {
            let change = differences.along(batch, &|name, k| is_of(unit, name, k));
            expected_taylor[unit] += change * change / 3.0;
            for (name, tensor) in &graph.initializers {
                for k in (0..tensor.len()).filter(|&k| is_of(unit, name, k) > 0.0) {
                    let alone = |other: &Name, position: usize| if other == name && position == k { 1.0 } else { 0.0 };
                    let change = differences.along(batch, &alone);
                    expected_fisher[unit] += is_of(unit, name, k) * 0.5 * change * change / 3.0;
                }
            }
        }
        assert_close(taylor[group_idx].as_ref().expect("numbers"), &expected_taylor, 5e-3);
        assert_close(fisher[group_idx].as_ref().expect("numbers"), &expected_fisher, 5e-3);
    }
}

#[test]
fn gradients_are_those_of_the_loss() {
    check_gradients(&sequential(&[Block::FeedForward { hidden: 3, gelu: true }], 7));
    check_gradients(&sequential(&[Block::LayerNorm, Block::Recurrent { which: 1, hidden: 2, both: false }], 3));
    check_gradients(&convolutional(&[Layer::Swish, Layer::Conv { channels: 2, kernel: 1, bias: true }], false, 7));
}

#[test]
fn movement_is_summed_over_the_steps() {
    let graph = sequential(&[Block::Dense { features: 3 }], 7);
    let (types, groups) = found(&graph);
    let mut gradients = Gradients::new(&graph, &types, &groups);
    assert!(gradients.importance(Criterion::Movement)[0].is_err(), "nothing was added");
    let stored: IndexMap<Name, Vec<f32>> =
        graph.initializers.iter().map(|(name, tensor)| (name.clone(), tensor.to_vec().unwrap_or_default())).collect();
    let slopes: IndexMap<Name, Vec<f32>> = stored
        .iter()
        .map(|(name, values)| (name.clone(), wave(&[values.len()], 0.3).to_vec().expect("floats")))
        .collect();
    let of = |name: &Name| Some((stored.get(name)?.as_slice(), slopes.get(name)?.as_slice()));
    gradients.add(of);
    let once: Vec<Vec<f64>> = gradients.importance(Criterion::Movement).into_iter().flatten().collect();
    gradients.add(of);
    let mut twice: Vec<Vec<f64>> = gradients.importance(Criterion::Movement).into_iter().flatten().collect();
    assert_eq!(once.len(), groups.len());
    assert!(once.iter().zip(&twice).all(|(once, twice)| once.iter().zip(twice).all(|(a, b)| 2.0 * a == *b)));
    let member = groups[0].with_role(Role::Made).next().expect("it is made");
    let own: f64 = groups[0]
        .members
        .iter()
        .filter(|member| member.role != Role::Inner)
        .map(|member| {
            let shape = graph.initializers[&member.value].shape();
            let inner: usize = shape[member.axis + 1..].iter().product();
            let products = stored[&member.value].iter().zip(&slopes[&member.value]).enumerate();
            let own = products.filter(|(k, _)| member.of_unit(0).contains(&(k / inner % shape[member.axis])));
            own.map(|(_, (&w, &g))| f64::from(w) * f64::from(g)).sum::<f64>()
        })
        .sum();
    assert_close(&once[0][..1], &[-own], 1e-9);
    comparable(&mut twice, Normalize::Mean);
    let order = |numbers: &[f64]| ranked(numbers);
    assert_eq!(order(&once[0]), order(&twice[0]), "numbers below zero stay in their order");
    // without a gradient for what makes the units nothing is told
    gradients.add(|name| of(name).filter(|_| *name != member.value));
    let refused = gradients.importance(Criterion::Movement)[0].clone().expect_err("refused").to_string();
    assert!(refused.contains("does not learn, so that it has no gradient"), "{refused}");
}

/// A first step moves what its gradients say; the second begins where that has led.
#[test]
fn movement_is_summed_over_steps_that_are_taken() {
    let graph = sequential(&[Block::FeedForward { hidden: 3, gelu: true }], 7);
    let (types, groups) = found(&graph);
    let output = graph.outputs[0].name.clone();
    let target = attach(&graph, &output, Loss::Mse).expect("a loss").target.expect("a target");
    let batch = with_targets(&graph, &target).remove(0);
    let by = |n_batches: usize, criterion| -> Vec<f64> {
        let batches = vec![batch.clone(); n_batches].into_iter().map(Ok::<_, Failed>);
        let told = by_gradients(&graph, &types, &groups, &output, Loss::Mse, batches, criterion, 7).expect("it learns");
        told.into_iter().flatten().flatten().collect()
    };
    let (once, twice) = (by(1, Criterion::Movement), by(2, Criterion::Movement));
    let squares: Vec<f64> = once.iter().map(|number| number * number).collect();
    assert_close(&squares, &by(1, Criterion::Taylor), 1e-9);
    let is_doubled = |(once, twice): (&f64, &f64)| (2.0 * once - twice).abs() <= 1e-12 * once.abs();
    assert!(!once.iter().zip(&twice).all(is_doubled), "no step was taken: {once:?} {twice:?}");
}

#[test]
fn gradients_that_are_not_there_are_refused() {
    let graph = convolutional(&[Layer::Quantized { channels: 3 }], false, 7);
    let (types, groups) = found(&graph);
    let output = graph.outputs[0].name.clone();
    let target = attach(&graph, &output, Loss::Mse).expect("a loss").target.expect("a target");
    let by = |batches: Vec<IndexMap<Name, Tensor>>, criterion| {
        let batches = batches.into_iter().map(Ok::<_, Failed>);
        by_gradients(&graph, &types, &groups, &output, Loss::Mse, batches, criterion, 7)
    };
    let told = by(with_targets(&graph, &target), Criterion::Taylor).expect("the rest learns");
    assert!(told.iter().all(|group| group.is_err()), "integers make or read every unit");
    let error = by(Vec::new(), Criterion::Fisher).expect_err("nothing to take them on");
    assert!(format!("{error:?}").contains("there are no samples"), "{error:?}");
}

#[test]
fn groups_are_made_comparable() {
    let check = |normalize, expected: [f64; 4]| {
        let mut groups = [Some(vec![1.0, 3.0]), None, Some(vec![0.0, 0.0]), Some(vec![-4.0, 2.0])];
        comparable(groups.iter_mut().flatten(), normalize);
        let numbers: Vec<f64> = groups.into_iter().flatten().flatten().collect();
        assert_eq!(numbers, [expected[0], expected[1], 0.0, 0.0, expected[2], expected[3]], "{normalize:?}");
    };
    check(Normalize::Mean, [0.5, 1.5, -4.0 / 3.0, 2.0 / 3.0]);
    check(Normalize::Max, [1.0 / 3.0, 1.0, -1.0, 0.5]);
    check(Normalize::Sum, [0.25, 0.75, -4.0 / 6.0, 2.0 / 6.0]);
    check(Normalize::None, [1.0, 3.0, -4.0, 2.0]);
    let text = |criterion: Criterion| toml::Value::try_from(criterion).expect("TOML").to_string();
    assert_eq!((text(Criterion::BatchNorm), text(Criterion::L2)), ("\"batch-norm\"".to_string(), "\"l2\"".to_string()));
}
