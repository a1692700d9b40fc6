//! What is chosen, against plain loops over the weights.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::graph::structure::random_graphs;
use crate::learn::train::loss::Loss;

/// The positions of these that are zero.
fn zeros(weights: &[f32]) -> BTreeSet<usize> {
    (0..weights.len()).filter(|&position| weights[position] == 0.0).collect()
}

/// The `n` positions of these that score least, of equals the last.
fn least(positions: impl IntoIterator<Item = usize>, n: usize, score: impl Fn(usize) -> f64) -> Vec<usize> {
    let mut positions: Vec<usize> = positions.into_iter().collect();
    positions.sort_by(|&a, &b| score(a).total_cmp(&score(b)).then(b.cmp(&a)));
    positions.truncate(n);
    positions
}

#[test]
fn the_least_magnitudes_of_each_weight_go() {
    let graph = one(gemm(), &[2, 5], wave(&[7, 5], 0.4));
    let before = weight(&graph);
    let sparse = by_magnitude(&graph, "sparsity = 0.4");
    let expected = least(0..35, 14, |k| before[k].abs().into());
    assert_eq!(zeros(&weight(&sparse.graph)), expected.into_iter().collect());
    let kept = weight(&sparse.graph);
    assert!(kept.iter().zip(&before).all(|(kept, before)| *kept == 0.0 || kept == before));
}

#[test]
fn globally_the_least_of_all_weights_go() {
    let mut builder = GraphBuilder::new("two");
    let x = builder.input("x", TensorType::new(DType::F32, [2usize, 4]));
    let large: Vec<f32> = wave(&[4, 6], 0.0).to_vec::<f32>().expect("floats").iter().map(|x| x + 3.0).collect();
    let first = builder.initializer("large", Tensor::new(&[4, 6], large).expect("24"));
    let weight = builder.initializer("weight", wave(&[6, 4], 0.5));
    let hidden = builder.node(Op::MatMul, &[&x, &first]);
    let y = builder.node(Op::MatMul, &[&hidden, &weight]);
    builder.output(&y);
    let graph = builder.finish().expect("a graph");
    let sparse = by_magnitude(&graph, "sparsity = 0.25\nscope = 'global'");
    let n_out = |name: &str| sparse.masks.get(&name.into()).map(Mask::n_out);
    assert_eq!((n_out("large"), n_out("weight")), (Some(0), Some(12)));
}

#[test]
fn two_of_every_four_input_channels_of_a_tap_stay() {
    let shape = [3, 8, 2, 3];
    let graph = one(Op::Conv(op::Conv::default()), &[1, 8, 4, 5], wave(&shape, 0.2));
    let before = weight(&graph);
    let after = weight(&by_magnitude(&graph, "pattern = '2:4'").graph);
    let mut expected = BTreeSet::new();
    for output in 0..3 {
        for tap in 0..6 {
            for four in 0..2 {
                let position = |channel: usize| (output * 8 + four * 4 + channel) * 6 + tap;
                expected.extend(least((0..4).map(position), 2, |k| before[k].abs().into()));
            }
        }
    }
    assert_eq!(zeros(&after), expected);
}

#[test]
fn the_inputs_of_a_matmul_are_its_rows() {
    let graph = one(Op::MatMul, &[2, 6], wave(&[6, 5], 0.2));
    let before = weight(&graph);
    let after = weight(&by_magnitude(&graph, "pattern = '1:3'").graph);
    let mut expected = BTreeSet::new();
    for output in 0..5 {
        for three in 0..2 {
            let positions = (0..3).map(|input| (three * 3 + input) * 5 + output);
            expected.extend(least(positions, 2, |k| before[k].abs().into()));
        }
    }
    assert_eq!(zeros(&after), expected);
}

#[test]
fn blocks_go_as_a_whole() {
    // rows of 4, 4 and 2 outputs; 3 inputs at 2 taps
    let graph = one(Op::Conv(op::Conv::default()), &[1, 3, 4], wave(&[10, 3, 2], 0.2));
    let before = weight(&graph);
    let after = weight(&by_magnitude(&graph, "pattern = '4x1'\nsparsity = 0.5").graph);
    let block = |strip: usize, column: usize| {
        (strip * 4..(strip * 4 + 4).min(10)).map(move |row| row * 6 + column).collect::<Vec<usize>>()
    };
    // in the order in which they stand: strips, taps, channels
    let order = |k: usize| block(k / 6, k % 3 * 2 + k % 6 / 3);
    let mean = |k: usize| order(k).iter().map(|&at| f64::from(before[at].abs())).sum::<f64>() / order(k).len() as f64;
    let expected = least(0..18, 9, mean).into_iter().flat_map(order).collect();
    assert_eq!(zeros(&after), expected);
}

#[test]
fn random_choices_hang_on_the_seed() {
    let graph = one(gemm(), &[2, 5], wave(&[7, 5], 0.4));
    let options = options("criterion = 'random'\nsparsity = 0.2");
    let plan = planned(&graph, &options).expect("a weight");
    let of = |seed: u64| by_weights(&graph, &plan, &options, seed).expect("sparse").masks;
    assert!(of(1) == of(1) && of(1) != of(2));
    assert_eq!(of(3).iter().map(|(_, mask)| mask.n_out()).sum::<usize>(), 7);
}

#[test]
fn snip_is_gradient_times_weight() {
    let mut builder = GraphBuilder::new("linear");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 4.into()]));
    let own = builder.initializer("weight", wave(&[4, 3], 0.1));
    let y = builder.node(Op::MatMul, &[&x, &own]);
    builder.output(&y);
    let graph = builder.finish().expect("a graph");
    let options = options("criterion = 'snip'\nsparsity = 0.5");
    let plan = planned(&graph, &options).expect("a weight");
    let mut learner = Learner::new(&graph, &y, Loss::Mse, &BTreeSet::new()).expect("it learns");
    let target = learner.target().cloned().expect("labels are read");
    let weights = weight(&graph);
    let mut gradient = [0f64; 12];
    let mut batches: Vec<Result<IndexMap<Name, Tensor>, PruneError>> = Vec::new();
    for phase in [0.3f32, 1.1] {
        let (inputs, targets) = (wave(&[5, 4], phase), wave(&[5, 3], phase * 2.0));
        let (a, t) = (inputs.to_vec::<f32>().expect("floats"), targets.to_vec::<f32>().expect("floats"));
        for sample in 0..5 {
            for output in 0..3 {
                let made: f32 = (0..4).map(|input| a[sample * 4 + input] * weights[input * 3 + output]).sum();
                let slope = 2.0 / 15.0 * f64::from(made - t[sample * 3 + output]);
                (0..4).for_each(|input| gradient[input * 3 + output] += slope * f64::from(a[sample * 4 + input]));
            }
        }
        batches.push(Ok([(x.clone(), inputs), (target.clone(), targets)].into_iter().collect()));
    }
    let sparse = by_gradients(&graph, &plan, &options, &mut learner, batches, 0).expect("sparse");
    let expected = least(0..12, 6, |k| (gradient[k] * f64::from(weights[k])).abs());
    assert_eq!(zeros(&weight(&sparse.graph)), expected.into_iter().collect());
    let none = std::iter::empty::<Result<IndexMap<Name, Tensor>, PruneError>>();
    assert!(by_gradients(&graph, &plan, &options, &mut learner, none, 0).is_err());
}

#[test]
fn wanda_is_weight_times_norm_among_the_inputs_of_an_output() {
    let graph = one(gemm(), &[6, 5], wave(&[4, 5], 0.4));
    let options = options("criterion = 'wanda'\nsparsity = 0.4");
    let plan = planned(&graph, &options).expect("a weight");
    let samples: Vec<Tensor> = [0.2, 0.9].map(|phase| wave(&[6, 5], phase)).into();
    let batches = samples.iter().map(|x| Ok::<_, PruneError>(IndexMap::from([(Name::from("x"), x.clone())])));
    let mut network = Reference(graph.clone(), plan.values());
    let sparse = by_samples(&graph, &plan, &options, &mut network, batches, |_| ()).expect("sparse");
    let mut squares = [0f64; 5];
    for x in &samples {
        for (k, x) in x.to_vec::<f32>().expect("floats").into_iter().enumerate() {
            squares[k % 5] += f64::from(x) * f64::from(x);
        }
    }
    let before = weight(&graph);
    let mut expected = BTreeSet::new();
    for output in 0..4 {
        let score = |k: usize| f64::from(before[k].abs()) * squares[k % 5].sqrt();
        expected.extend(least(output * 5..output * 5 + 5, 2, score));
    }
    assert_eq!(zeros(&weight(&sparse.graph)), expected);
}

/// What each group of M keeps in a convolution of a network at most; none where the weight was left.
fn most_of_a_group(graph: &Graph, plan: &Plan, m: usize) -> Vec<usize> {
    let most = |operand: &Operand| {
        let constant = &graph.initializers[&operand.name];
        let weights = constant.to_vec::<f32>().expect("floats");
        let mut kept: IndexMap<usize, usize> = IndexMap::new();
        operand
            .layout
            .for_each(|position, unit| *kept.entry(unit / m).or_default() += usize::from(weights[position] != 0.0));
        kept.into_values().max().unwrap_or(0)
    };
    plan.operands.iter().map(most).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_network_goes_as_sparse_as_was_asked(
        layers in random_graphs::layers(),
        pattern in prop::sample::select(vec!["free", "1:2", "2:4", "4x1", "2x3"]),
        scope in prop::sample::select(vec!["local", "global"]),
        sparsity in 0.1f64..0.9,
        seed in 0u64..1000,
    ) {
        let graph = random_graphs::convolutional(&layers, true, seed);
        let pattern: Pattern = pattern.parse().expect("a pattern");
        let (is_nm, scope) = match pattern {
            Pattern::NM { .. } => (true, "local"),
            _ => (false, scope),
        };
        let said = if is_nm { String::new() } else { format!("sparsity = {sparsity}\nscope = '{scope}'\n") };
        let options = options(&format!("{said}pattern = '{pattern}'"));
        let Ok(plan) = planned(&graph, &options) else { return Ok(()) };
        let sparse = by_weights(&graph, &plan, &options, seed).expect("sparse");
        sparse.graph.check().expect("a graph");
        hold(&sparse.graph, &sparse.masks).expect("kept");
        if let Pattern::NM { n, m } = pattern {
            prop_assert!(most_of_a_group(&sparse.graph, &plan, m).into_iter().all(|kept| kept <= n));
        }
        if pattern == Pattern::Free {
            let (n_out, n) = sparse.masks.iter().fold((0, 0), |(out, n), (_, mask)| (out + mask.n_out(), n + mask.n()));
            let slack = plan.operands.len() as f64;
            prop_assert!((n_out as f64 - options.target() * n as f64).abs() <= slack);
        }
        // what is chosen again stays out
        let layouts: Vec<_> = plan.operands.iter().map(|operand| &operand.layout).collect();
        let scores: Vec<Vec<f32>> = layouts.iter().map(|layout| vec![0.5; layout.n_weights()]).collect();
        let masks: Vec<&Mask> = sparse.masks.iter().map(|(_, mask)| mask).collect();
        let more = choose::of_all(&layouts, &scores, &options, options.target(), |idx, at| masks[idx].is_out(at));
        for (mask, more) in masks.iter().zip(more) {
            prop_assert!((0..mask.n()).all(|position| mask.is_out(position) <= more[position]));
            prop_assert_eq!(mask.n_out(), more.iter().filter(|is_out| **is_out).count());
        }
    }
}
