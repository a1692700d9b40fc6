//! Weights fitted on small networks: what they win, that they are the least squares, and what is left.

use proptest::prelude::*;

use super::*;
use crate::compress::prune::testing::{Net, Reference, batches, grouped, noise, outputs, third, typed, wave, without};
use crate::graph::op::{self, Op};
use crate::graph::structure::random_graphs;
use crate::graph::tensor::DType;

fn fitted_with(
    graph: &Graph,
    selection: impl Fn(&Groups) -> Selection,
    damping: f64,
) -> (Compensated, Groups, Selection) {
    let (types, groups) = grouped(graph);
    let selection = selection(&groups);
    let task = task(graph, &types, &groups, &selection);
    let mut network = Reference(graph.clone(), task.values());
    let fitted = compensate(graph, &task, damping, &mut network, batches(graph), |_| ()).expect("fitted");
    fitted.graph.check().expect("a graph");
    (fitted, groups, selection)
}

/// Two dense layers with a Relu between them, of so many hidden units.
fn mlp(first: Tensor, second: Tensor) -> Graph {
    let (mut net, x) = Net::of_rows(first.shape()[0]);
    let hidden = net.dense(&x, "first", first);
    let hidden = net.0.node(Op::Relu, &[&hidden]);
    let y = net.dense(&hidden, "second", second);
    net.finish(&y)
}

/// The rows of a value on all batches.
fn rows(graph: &Graph, value: &str, n: usize) -> Vec<Vec<f64>> {
    let mut network = Reference(graph.clone(), vec![value.into()]);
    let of_batch = |batch: Result<IndexMap<Name, Tensor>, PruneError>| {
        let tensor = network.forward(&batch.expect("a batch")).expect("it runs").remove(0);
        let numbers = tensor.to_vec::<f32>().expect("floats");
        numbers.chunks(n).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect::<Vec<Vec<f64>>>()
    };
    batches(graph).into_iter().flat_map(of_batch).collect()
}

/// Solves `A x = b` by elimination.
fn eliminated(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|&p, &q| a[p][i].abs().total_cmp(&a[q][i].abs())).expect("a row");
        a.swap(i, pivot);
        b.swap(i, pivot);
        for k in i + 1..n {
            let factor = a[k][i] / a[i][i];
            let (above, below) = a.split_at_mut(k);
            below[0][i..].iter_mut().zip(&above[i][i..]).for_each(|(to, from)| *to -= factor * from);
            b[k] -= factor * b[i];
        }
    }
    for i in (0..n).rev() {
        b[i] = (b[i] - (i + 1..n).map(|j| a[i][j] * b[j]).sum::<f64>()) / a[i][i];
    }
    b
}

#[test]
fn weights_and_bias_are_the_damped_least_squares() {
    let graph = mlp(wave(&[3, 7], 0.3), wave(&[7, 2], 0.5));
    let gone = [1, 4];
    let (fitted, ..) = fitted_with(&graph, |_| Selection { units: vec![gone.to_vec()] }, 0.05);
    let x = rows(&graph, "relu", 7);
    let kept: Vec<usize> = (0..7).filter(|unit| !gone.contains(unit)).collect();
    let n = x.len() as f64;
    let means: Vec<f64> = (0..7).map(|j| x.iter().map(|row| row[j]).sum::<f64>() / n).collect();
    let spread = |i: usize, j: usize| x.iter().map(|row| (row[i] - means[i]) * (row[j] - means[j])).sum::<f64>() / n;
    let added = 0.05 * kept.iter().map(|&i| spread(i, i)).sum::<f64>() / kept.len() as f64;
    let numbers = |graph: &Graph, name: &str| graph.initializers[name].to_vec::<f32>().expect("floats");
    let (before, after) = (numbers(&graph, "second"), numbers(&fitted.graph, "second"));
    let (bias_before, bias_after) = (numbers(&graph, "second.bias"), numbers(&fitted.graph, "second.bias"));
    for output in 0..2 {
        let weight = |unit: usize| f64::from(before[unit * 2 + output]);
        // (S_KK + λ I) w′ = S_K w + λ w_K
        let a = kept.iter().map(|&i| kept.iter().map(|&j| spread(i, j) + if i == j { added } else { 0.0 }).collect());
        let b = kept.iter().map(|&i| (0..7).map(|j| spread(i, j) * weight(j)).sum::<f64>() + added * weight(i));
        let expected = eliminated(a.collect(), b.collect());
        let mut shift = (0..7).map(|j| means[j] * weight(j)).sum::<f64>();
        for (&unit, &expected) in kept.iter().zip(&expected) {
            let got = f64::from(after[unit * 2 + output]);
            assert!((got - expected).abs() < 1e-4, "{unit} {output}: {got} for {expected}");
            shift -= means[unit] * expected;
        }
        let got = f64::from(bias_after[output] - bias_before[output]);
        assert!((got - shift).abs() < 1e-4, "{got} for {shift}");
        gone.iter().for_each(|unit| assert_eq!(after[unit * 2 + output], 0.0));
    }
}

#[test]
fn reported_errors_are_those_of_the_network() {
    let graph = mlp(wave(&[3, 9], 0.9), wave(&[9, 4], 0.1));
    let (fitted, groups, selection) = fitted_with(&graph, |groups| third(groups, None), DAMPING);
    let types = typed(&graph);
    let of = |graph: &Graph| without(graph, &types, &groups, &selection).expect("they can go");
    let y = rows(&graph, &graph.outputs[0].name, 4);
    let error = |other: &Graph| {
        let got = rows(&of(other), &graph.outputs[0].name, 4);
        let squares = y.iter().flatten().zip(got.iter().flatten()).map(|(a, b)| (a - b).powi(2));
        squares.sum::<f64>() / y.len() as f64
    };
    let weight = &fitted.weights[0];
    for (reported, measured) in [(weight.error_before, error(&graph)), (weight.error_after, error(&fitted.graph))] {
        assert!((reported - measured).abs() <= 1e-4 * weight.error_before, "{reported} for {measured}");
    }
    assert!(weight.error_after < 0.7 * weight.error_before && weight.power > weight.error_after, "{weight:?}");
}

#[test]
fn units_that_others_can_stand_for_cost_nothing() {
    // Unit 2 is twice unit 0, unit 3 a constant.
    let first = Tensor::new(&[2, 4], vec![1f32, -0.5, 2.0, 0.0, 0.3, 1.0, 0.6, 0.0]).expect("numbers");
    let mut parts = mlp(first, wave(&[4, 3], 0.4)).to_parts();
    parts.initializers.insert("first.bias".into(), Tensor::vector(vec![0.2f32, 0.1, 0.4, 1.5]));
    let graph = Graph::new(parts).expect("a graph");
    let (fitted, groups, selection) = fitted_with(&graph, |_| Selection { units: vec![vec![2, 3]] }, 1e-9);
    let types = typed(&graph);
    let plain = without(&graph, &types, &groups, &selection).expect("they can go");
    let fitted = without(&fitted.graph, &types, &groups, &selection).expect("they can go");
    assert!(noise(&graph, &plain) > 0.05, "{}", noise(&graph, &plain));
    assert!(noise(&graph, &fitted) < 1e-10, "{}", noise(&graph, &fitted));
}

#[test]
fn every_tap_of_a_convolution_is_fitted() {
    let (mut net, x) = Net::of_images(2);
    let first = net.conv(&x, 6, 2);
    let hidden = net.0.node(Op::Relu, &[&first]);
    let y = net.conv(&hidden, 3, 6);
    let graph = net.finish(&y);
    let (fitted, groups, selection) = fitted_with(&graph, |groups| third(groups, None), DAMPING);
    let types = typed(&graph);
    let plain = noise(&graph, &without(&graph, &types, &groups, &selection).expect("they can go"));
    let better = noise(&graph, &without(&fitted.graph, &types, &groups, &selection).expect("they can go"));
    assert!(better < 0.6 * plain, "{better} {plain}");
    let weight = fitted.graph.initializers["weight_2"].to_vec::<f32>().expect("floats");
    for &unit in &selection.units[0] {
        (0..3).for_each(|row| assert!(weight[(row * 6 + unit) * 9..][..9].iter().all(|&x| x == 0.0)));
    }
}

#[test]
fn what_cannot_be_fitted_is_named() {
    let declined = |layer: random_graphs::Layer| {
        let graph = random_graphs::convolutional(&[layer], false, 7);
        let (types, groups) = grouped(&graph);
        let reasons = task(&graph, &types, &groups, &third(&groups, None)).declined;
        reasons.into_iter().map(|left| format!("{}: {}", left.name, left.reason)).collect::<Vec<String>>()
    };
    assert_eq!(
        declined(random_graphs::Layer::Transposed { channels: 3 }),
        ["weight_2: meets ConvTranspose `convtranspose`: ConvTranspose is no product of a matrix with what it reads"]
    );
    assert_eq!(declined(random_graphs::Layer::Quantized { channels: 4 }), ["integers: is stored as i8"]);
    assert!(declined(random_graphs::Layer::Conv { channels: 4, kernel: 3, bias: true }).is_empty());
}

#[test]
fn bad_damping_and_no_samples_are_refused() {
    let graph = mlp(wave(&[3, 7], 0.3), wave(&[7, 2], 0.5));
    let (types, groups) = grouped(&graph);
    let task = task(&graph, &types, &groups, &third(&groups, None));
    let run = |damping: f64, batches: Vec<Result<IndexMap<Name, Tensor>, PruneError>>| {
        let mut network = Reference(graph.clone(), task.values());
        compensate(&graph, &task, damping, &mut network, batches, |_| ()).map(drop).expect_err("refused").to_string()
    };
    assert_eq!(run(0.0, batches(&graph)), "`damping` is 0; give a number above 0, such as 0.01");
    assert!(run(0.01, Vec::new()).starts_with("there are no samples"));
    let huge = IndexMap::from([("x".into(), Tensor::new(&[1, 3], vec![f32::INFINITY; 3]).expect("numbers"))]);
    assert!(run(0.01, vec![Ok(huge)]).contains("on the calibration data"));
}

#[test]
fn parts_give_what_the_whole_gives() {
    let (mut net, x) = Net::of_rows(4);
    let mut value = x;
    for (layer, phase) in ["a", "b", "c"].into_iter().zip([0.1, 0.5, 0.9]) {
        value = net.dense(&value, layer, wave(&[4 + 2 * usize::from(layer != "a"), 6], phase));
        value = net.0.node(Op::Relu, &[&value]);
    }
    let y = net.dense(&value, "last", wave(&[6, 2], 0.2));
    let graph = net.finish(&y);
    let (types, groups) = grouped(&graph);
    let whole = task(&graph, &types, &groups, &third(&groups, None));
    let run = |graph: &Graph, unpruned: &Graph, task: &Task| {
        let mut network = Reference(unpruned.clone(), task.values());
        compensate(graph, task, DAMPING, &mut network, batches(unpruned), |_| ()).expect("fitted")
    };
    let parts = whole.parts(600);
    assert_eq!((parts.len(), whole.parts(usize::MAX).len()), (2, 1));
    let in_parts = parts.iter().fold(graph.clone(), |fitted, part| run(&fitted, &graph, part).graph);
    assert_eq!(in_parts, run(&graph, &graph, &whole).graph);
}

#[test]
fn a_shared_weight_is_fitted_to_all_that_it_meets() {
    let (mut net, x) = Net::of_rows(3);
    let weight = net.0.initializer("shared", wave(&[6, 2], 0.4));
    let hidden = net.dense(&x, "first", wave(&[3, 6], 0.3));
    let [one, other] = [Op::Relu, Op::Tanh].map(|op| net.0.node(op, &[&hidden]));
    let [one, other] = [one, other].map(|value| net.0.node(Op::MatMul, &[&value, &weight]));
    let y = net.0.node(Op::Concat(op::Concat { axis: 1 }), &[&one, &other]);
    let graph = net.finish(&y);
    let (fitted, groups, selection) = fitted_with(&graph, |groups| third(groups, None), DAMPING);
    let types = typed(&graph);
    let [plain, better] =
        [&graph, &fitted.graph].map(|net| noise(&graph, &without(net, &types, &groups, &selection).expect("gone")));
    assert_eq!(fitted.weights.len(), 1);
    assert!(better < plain, "{better} {plain}");
}

/// The recurrence of an LSTM is not fitted: what is behind it reads an LSTM without the units all the same.
#[test]
fn what_is_not_fitted_loses_its_units_in_order() {
    let (mut net, x) = Net::of_rows(3);
    let steps = net.0.initializer("steps", Tensor::vector(vec![2i64, 2, 3]));
    let sequence = net.0.node(Op::Reshape(op::Reshape::default()), &[&x, &steps]);
    let w = net.0.initializer("w", wave(&[1, 24, 3], 0.2));
    let r = net.0.initializer("r", wave(&[1, 24, 6], 0.7));
    let lstm = Op::LSTM(op::LSTM { hidden_size: Some(6), ..op::LSTM::default() });
    let hidden = net.0.node(lstm, &[&sequence, &w, &r]);
    let rows = net.0.initializer("rows", Tensor::vector(vec![4i64, 6]));
    let hidden = net.0.node(Op::Reshape(op::Reshape::default()), &[&hidden, &rows]);
    let y = net.dense(&hidden, "head", wave(&[6, 3], 0.9));
    let graph = net.finish(&y);
    let (types, groups) = grouped(&graph);
    let selection = third(&groups, None);
    let task = task(&graph, &types, &groups, &selection);
    assert_eq!(task.declined.iter().map(|declined| declined.name.as_str()).collect::<Vec<_>>(), ["r"]);
    let fitted = compensate_in_order(&graph, &task, DAMPING, shown, |_, _| ()).expect("fitted");
    let smaller = without(&fitted.graph, &types, &groups, &selection).expect("they can go");
    for k in 0..3 {
        let [silent, gone] = [&fitted.graph, &smaller].map(|graph| outputs(graph, 0.3 + k as f32));
        let distance = silent.iter().zip(&gone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(distance <= 1e-5, "{distance}");
    }
    let plain = without(&graph, &types, &groups, &selection).expect("they can go");
    assert!(noise(&graph, &smaller) < noise(&graph, &plain));
}

/// Dense layers with a Relu behind each but the last.
fn deep(sizes: &[usize]) -> Graph {
    let (mut net, x) = Net::of_rows(sizes[0]);
    let mut value = x;
    for (idx, of_layer) in sizes.windows(2).enumerate() {
        let weight = wave(of_layer, 0.4 * idx as f32 + 0.1);
        value = net.dense(&value, &format!("{idx}"), weight);
        if idx + 2 < sizes.len() {
            value = net.0.node(Op::Relu, &[&value]);
        }
    }
    net.finish(&value)
}

type Shown = (Box<dyn Forward>, Vec<Result<IndexMap<Name, Tensor>, PruneError>>);

fn shown(graph: &Graph, values: &[Name]) -> Result<Shown, PruneError> {
    Ok((Box::new(Reference(graph.clone(), values.to_vec())), batches(graph)))
}

#[test]
fn in_order_errors_of_one_layer_are_made_good_in_the_next() {
    let graph = deep(&[4, 12, 12, 12, 3]);
    let (types, groups) = grouped(&graph);
    let selection = third(&groups, None);
    let task = task(&graph, &types, &groups, &selection);
    let mut network = Reference(graph.clone(), task.values());
    let at_once = compensate(&graph, &task, DAMPING, &mut network, batches(&graph), |_| ()).expect("fitted");
    let mut asked = Vec::new();
    let told = |n_done: usize, _| asked.push(n_done);
    let in_order = compensate_in_order(&graph, &task, DAMPING, shown, told).expect("fitted");
    asked.dedup();
    assert_eq!(asked, [0, 1, 2]);
    let of = |other: &Graph| noise(&graph, &without(other, &types, &groups, &selection).expect("they can go"));
    let [plain, at_once_noise, in_order_noise] = [&graph, &at_once.graph, &in_order.graph].map(of);
    assert!(at_once_noise < plain, "{plain} {at_once_noise} {in_order_noise}");
    assert!(in_order_noise < at_once_noise, "{plain} {at_once_noise} {in_order_noise}");
    // The first weight reads what it did, and is fitted alike.
    let numbers = |graph: &Graph| graph.initializers["1"].to_vec::<f32>().expect("floats");
    for (a, b) in numbers(&at_once.graph).into_iter().zip(numbers(&in_order.graph)) {
        assert!((a - b).abs() < 1e-3, "{a} {b}");
    }
    for weight in &in_order.weights {
        assert!(weight.error_after <= weight.error_before, "{weight:?}");
    }
}

#[test]
fn in_order_the_last_error_is_that_of_the_outputs() {
    let graph = deep(&[3, 9, 9, 4]);
    let (types, groups) = grouped(&graph);
    let selection = third(&groups, None);
    let task = task(&graph, &types, &groups, &selection);
    let fitted = compensate_in_order(&graph, &task, DAMPING, shown, |_, _| ()).expect("fitted");
    let smaller = without(&fitted.graph, &types, &groups, &selection).expect("they can go");
    let [whole, smaller] = [&graph, &smaller].map(|graph| rows(graph, &graph.outputs[0].name, 4));
    let squares = whole.iter().flatten().zip(smaller.iter().flatten()).map(|(a, b)| (a - b).powi(2));
    let measured = squares.sum::<f64>() / whole.len() as f64;
    let last = fitted.weights.last().expect("fitted");
    assert!((last.error_after - measured).abs() <= 1e-3 * last.power, "{last:?} {measured}");
}

/// Every group alone: what its products make is never further off than with zeros, as the report has it and as it is measured.
fn check(graph: &Graph) {
    let (types, groups) = grouped(graph);
    for group_idx in 0..groups.groups.len() {
        let selection = third(&groups, Some(group_idx));
        let task = task(graph, &types, &groups, &selection);
        if task.is_empty() {
            continue;
        }
        let in_order = compensate_in_order(graph, &task, DAMPING, shown, |_, _| ()).expect("fitted");
        for weight in &in_order.weights {
            assert!(weight.error_after <= weight.error_before + 1e-4 * weight.power + 1e-9, "{weight:?}");
        }
        let mut network = Reference(graph.clone(), task.values());
        let fitted = compensate(graph, &task, DAMPING, &mut network, batches(graph), |_| ()).expect("fitted");
        fitted.graph.check().expect("a graph");
        for weight in &fitted.weights {
            assert!(weight.error_after <= weight.error_before * (1.0 + 1e-6) + 1e-9, "{weight:?}");
        }
        for (name, tensor) in &fitted.graph.initializers {
            let before = &graph.initializers[name];
            assert_eq!((tensor.shape(), tensor.dtype()), (before.shape(), before.dtype()), "{name}");
            assert!(
                tensor.dtype() != DType::F32 || tensor.to_vec::<f32>().expect("floats").iter().all(|x| x.is_finite())
            );
        }
        let changes = !groups.groups[group_idx].crosses.is_empty() || !task.declined.is_empty();
        if let Some(smaller) = without(&fitted.graph, &types, &groups, &selection).filter(|_| !changes) {
            // What is zero can go.
            assert!(noise(&fitted.graph, &smaller) < 1e-8, "{}", noise(&fitted.graph, &smaller));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_convolutional_networks(layers in random_graphs::layers(), flat in any::<bool>(), seed in any::<u64>()) {
        check(&random_graphs::convolutional(&layers, flat, seed));
    }

    #[test]
    fn random_sequential_networks(blocks in random_graphs::blocks(), seed in any::<u64>()) {
        check(&random_graphs::sequential(&blocks, seed));
    }
}
