//! Statistics of small networks set right.

use super::*;
use crate::compress::prune::testing::{Net, Reference, batches, grouped, noise, third, typed, wave, without};
use crate::graph::op::{self, Op};

type Batches = Vec<Result<IndexMap<Name, Tensor>, PruneError>>;

fn shown(graph: &Graph, values: &[Name]) -> Result<(Box<dyn Forward>, Batches), PruneError> {
    Ok((Box::new(Reference(graph.clone(), values.to_vec())), batches(graph)))
}

fn statistics(graph: &Graph, value: &str) -> ChannelStatistics {
    let values = IndexMap::from([(value.into(), 1)]);
    pass(graph, &values, &mut shown, &mut |_| ()).expect("it runs").swap_remove(value).expect("seen")
}

/// Three convolutions, each with a BatchNormalization behind it if asked, and a Relu.
fn network(norms: bool) -> Graph {
    let (mut net, x) = Net::of_images(2);
    let mut value = x;
    for (to, from) in [(6, 2), (6, 6), (4, 6)] {
        value = net.conv(&value, to, from);
        if norms {
            let [scale, shift, mean] = ["scale", "shift", "mean"].map(|name| net.0.initializer(name, wave(&[to], 0.6)));
            let variance = net.0.initializer("variance", Tensor::vector(vec![1.5f32; to]));
            let op = Op::BatchNormalization(op::BatchNormalization::default());
            value = net.0.node(op, &[&value, &scale, &shift, &mean, &variance]);
        }
        value = net.0.node(Op::Relu, &[&value]);
    }
    let y = net.conv(&value, 3, 4);
    net.finish(&y)
}

#[test]
fn normalisations_normalise_by_what_they_read() {
    let graph = network(true);
    let out = batch_norms(&graph, shown, |_| ()).expect("set right");
    out.graph.check().expect("a graph");
    assert_eq!((out.n_passes, out.done.len(), out.declined.len()), (3, 3, 0));
    for node in out.graph.nodes.iter().filter(|node| matches!(node.op, Op::BatchNormalization(_))) {
        // As the network is now, and not as it was when the others had not been set right.
        let seen = statistics(&out.graph, node.input(0).expect("an input"));
        let numbers = |position: usize| {
            let name = node.input(position).expect("a constant");
            out.graph.initializers[name].to_vec::<f32>().expect("floats")
        };
        for (channel, (mean, variance)) in numbers(3).into_iter().zip(numbers(4)).enumerate() {
            assert!((f64::from(mean) - seen.mean(channel)).abs() < 1e-4, "{mean}");
            let expected = seen.standard_deviation(channel).powi(2);
            assert!((f64::from(variance) - expected).abs() < 1e-4 * expected.max(1.0), "{variance} {expected}");
        }
    }
}

#[test]
fn normalisations_of_branches_are_seen_in_one_pass() {
    let (mut net, x) = Net::of_images(2);
    let branches: Vec<Name> = (0..2)
        .map(|_| {
            let value = net.conv(&x, 4, 2);
            let [scale, shift, mean] = ["scale", "shift", "mean"].map(|name| net.0.initializer(name, wave(&[4], 0.6)));
            let variance = net.0.initializer("variance", Tensor::vector(vec![1.5f32; 4]));
            let op = Op::BatchNormalization(op::BatchNormalization::default());
            net.0.node(op, &[&value, &scale, &shift, &mean, &variance])
        })
        .collect();
    let y = net.0.node(Op::Add, &[&branches[0], &branches[1]]);
    let graph = net.finish(&y);
    assert_eq!(batch_norms(&graph, shown, |_| ()).expect("set right").n_passes, 1);
}

#[test]
fn channels_look_as_in_the_whole_network() {
    let graph = network(false);
    let (types, groups) = grouped(&graph);
    let selection = third(&groups, None);
    let smaller = without(&graph, &types, &groups, &selection).expect("they can go");
    let whole = Before { graph: &graph, groups: &groups, selection: &selection };
    for what in [Match::Mean, Match::Spread] {
        let out = match_outputs(whole, &smaller, &typed(&smaller), what, shown, |_| ()).expect("set right");
        out.graph.check().expect("a graph");
        assert_eq!((out.n_passes, out.done.len(), out.declined.len()), (4, 4, 0));
        for node in out.graph.nodes.iter().filter(|node| matches!(node.op, Op::Conv(_))) {
            let value = node.output(0).expect("an output");
            let (before, after) = (statistics(&graph, value), statistics(&out.graph, value));
            let kept = kept(&groups, &selection, value, 1).unwrap_or_else(|| (0..before.n_channels()).collect());
            assert_eq!(kept.len(), after.n_channels());
            for (own, of_whole) in kept.into_iter().enumerate() {
                let (wanted, got) = (before.mean(of_whole), after.mean(own));
                assert!((wanted - got).abs() < 1e-3 * wanted.abs().max(1.0), "{what:?} {value}: {got} for {wanted}");
                let (wanted, got) = (before.standard_deviation(of_whole), after.standard_deviation(own));
                let differs = (wanted - got).abs() > 1e-3 * wanted.max(1.0);
                assert!(what == Match::Mean || !differs, "{value}: {got} for {wanted}");
            }
        }
        if what == Match::Mean {
            assert!(noise(&graph, &out.graph) < noise(&graph, &smaller));
        }
    }
}

#[test]
fn a_product_without_bias_gets_one_and_a_sum_takes_it_up() {
    let (mut net, x) = Net::of_rows(3);
    let hidden = net.dense(&x, "first", wave(&[3, 9], 0.3));
    let hidden = net.0.node(Op::Relu, &[&hidden]);
    let weight = net.0.initializer("second", wave(&[9, 4], 0.8));
    let hidden = net.0.node(Op::Gemm(op::Gemm { alpha: 0.5, ..op::Gemm::default() }), &[&hidden, &weight]);
    let weight = net.0.initializer("third", wave(&[4, 2], 0.1));
    let y = net.0.node(Op::MatMul, &[&hidden, &weight]);
    let graph = net.finish(&y);
    let (types, groups) = grouped(&graph);
    let selection = Selection { units: vec![vec![0, 3, 8], Vec::new()] };
    let smaller = without(&graph, &types, &groups, &selection).expect("they can go");
    let whole = Before { graph: &graph, groups: &groups, selection: &selection };
    let out = match_outputs(whole, &smaller, &typed(&smaller), Match::Mean, shown, |_| ()).expect("set right");
    assert!(out.graph.initializers.contains_key("gemm_bias"), "{:?}", out.graph.initializers.keys());
    for value in ["gemm", "add"] {
        let (before, after) = (statistics(&graph, value), statistics(&out.graph, value));
        if value == "gemm" {
            (0..4).for_each(|channel| assert!((before.mean(channel) - after.mean(channel)).abs() < 1e-4));
        }
    }
    let reasons: Vec<String> = out.declined.iter().map(|left| format!("{} {}", left.name, left.reason)).collect();
    assert_eq!(reasons, ["MatMul `matmul_2` stays as it is: no constant is added to what it alone makes"]);
}

#[test]
fn where_nothing_applies_it_says_so() {
    let refused = |graph: &Graph| batch_norms(graph, shown, |_| ()).map(drop).expect_err("refused").to_string();
    let plain = network(false);
    assert_eq!(refused(&plain), "nothing can be recalibrated: the network has no BatchNormalization");
    let mut parts = network(true).to_parts();
    parts.nodes.iter_mut().for_each(|node| {
        if let Op::BatchNormalization(op) = &mut node.op {
            op.training_mode = true;
        }
    });
    let error = refused(&Graph::new(parts).expect("a graph"));
    assert!(error.contains("normalises by the samples that it is given together"), "{error}");
    let shared = {
        let mut parts = network(true).to_parts();
        parts.nodes.iter_mut().for_each(|node| {
            if let Op::BatchNormalization(_) = &node.op {
                node.inputs[3] = node.inputs[1].clone();
            }
        });
        Graph::new(parts).expect("a graph")
    };
    assert!(refused(&shared).contains("has statistics that are no constants of f32, or not its own"));
}
