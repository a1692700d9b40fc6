//! Normalizations.

use super::some;
use crate::graph::op::{self, Op};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{GraphBuilder, Name, Node, TensorType, eval};
use crate::learn::exec::compile::Mode;
use crate::learn::exec::generic::Generic;
use crate::learn::exec::program::Program;
use crate::learn::exec::testing::{Inputs, check, check_outputs, close, finite_differences, numbers, request};

fn positive(n: usize) -> Option<Tensor> {
    Some(Tensor::vector((0..n).map(|idx| 0.5 + 0.3 * idx as f64).collect()))
}

fn batch(training_mode: bool) -> Op {
    Op::BatchNormalization(op::BatchNormalization { epsilon: 1e-3, momentum: 0.75, training_mode })
}

#[test]
fn by_given_statistics_or_the_batch_s() {
    let inputs = |shape: &[usize]| {
        let mut inputs = some(&[shape, &[3], &[3], &[3]]);
        inputs.push(positive(3));
        inputs
    };
    for shape in [&[2usize, 3, 4] as &[usize], &[4, 3], &[2, 3, 2, 2]] {
        check(batch(false), &inputs(shape), &[0, 1, 2, 3, 4], &[]);
        check(batch(true), &inputs(shape), &[0, 1, 2], &[]);
    }
}

#[test]
fn a_network_that_learns_updates_its_statistics() {
    let mut builder = GraphBuilder::new("batch");
    let x = builder.input("x", TensorType::new(DType::F64, [2usize, 3, 5]));
    let given = [("scale", numbers(&[3])), ("bias", numbers(&[3])), ("mean", numbers(&[3]))];
    let mut names: Vec<Name> = given.map(|(name, tensor)| builder.initializer(name, tensor)).to_vec();
    names.push(builder.initializer("variance", positive(3).expect("a tensor")));
    let mut parts: Vec<Option<Name>> = vec![Some(x.clone())];
    parts.extend(names.iter().cloned().map(Some));
    let y = Name::from("y");
    builder.push(Node::new(batch(false), parts, vec![Some(y.clone())]));
    let weights = builder.initializer("weights", numbers(&[2, 3, 5]));
    let product = builder.node(Op::Mul, &[&y, &weights]);
    let reduce = op::Reduce { keepdims: false, noop_with_empty_axes: false };
    let loss = builder.node(Op::ReduceSum(reduce), &[&product]);
    builder.output(&loss);
    let graph = builder.finish().expect("whole");
    let given: Inputs = [(x.clone(), numbers(&[2, 3, 5]))].into_iter().collect();
    let request =
        request(&given, Mode::Training, std::slice::from_ref(&y), Some(&loss), &[x.clone(), names[0].clone()]);
    let program = Program::compile(&graph, &request).expect("it compiles");
    let updated: Vec<&Name> = program.updates.iter().map(|(name, _)| name).collect();
    assert_eq!(updated, [&names[2], &names[3]]);
    let parameters: Vec<Tensor> = program.parameters.iter().map(|(name, _)| graph.initializers[name].clone()).collect();
    let ends = program.outputs.iter().chain(&program.updates).chain(&program.gradients);
    let ends: Vec<usize> = ends.map(|(_, id)| *id).collect();
    let backend = Generic { dtype: candle_core::DType::F64, device: candle_core::Device::Cpu };
    let found = backend.run(&program, &parameters, &[given[&x].clone()], &ends, 0).expect("it runs");
    // as the operator exported for training has it
    let mut parts = graph.to_parts();
    parts.nodes[0].op = batch(true);
    parts.nodes[0].outputs.extend([Some(Name::from("new mean")), Some(Name::from("new variance"))]);
    let graph = crate::graph::Graph::new(parts).expect("whole");
    let wanted = [y, "new mean".into(), "new variance".into()];
    let expected = eval::run_with(&graph, &given, &wanted).expect("it runs");
    for (name, found) in wanted.iter().zip(&found) {
        close(name, found, &expected[name], 1e-6);
    }
    for ((name, _), found) in program.gradients.iter().zip(&found[3..]) {
        let expected = finite_differences(&graph, &given, &loss, name);
        close(name, found, &Tensor::new(found.shape(), expected).expect("as long"), 1e-5);
    }
}

/// A layer that is called twice: its statistics are blended twice, as PyTorch does.
#[test]
fn shared_statistics_are_updated_by_each_node() {
    let mut builder = GraphBuilder::new("shared");
    let x = builder.input("x", TensorType::new(DType::F64, [2usize, 3, 5]));
    let given = [("scale", numbers(&[3])), ("bias", numbers(&[3])), ("mean", numbers(&[3]))];
    let mut names: Vec<Name> = given.map(|(name, tensor)| builder.initializer(name, tensor)).to_vec();
    names.push(builder.initializer("variance", positive(3).expect("a tensor")));
    let layer = |builder: &mut GraphBuilder, x: &Name| {
        builder.node(batch(false), &[x, &names[0], &names[1], &names[2], &names[3]])
    };
    let first = layer(&mut builder, &x);
    let second = layer(&mut builder, &x);
    let y = builder.node(Op::Add, &[&first, &second]);
    builder.output(&y);
    let graph = builder.finish().expect("whole");
    let given: Inputs = [(x.clone(), numbers(&[2, 3, 5]))].into_iter().collect();
    let program =
        Program::compile(&graph, &request(&given, Mode::Training, std::slice::from_ref(&y), None, &[])).expect("whole");
    let updated: Vec<&Name> = program.updates.iter().map(|(name, _)| name).collect();
    assert_eq!(updated, [&names[2], &names[3]]);
    let parameters: Vec<Tensor> = program.parameters.iter().map(|(name, _)| graph.initializers[name].clone()).collect();
    let ends: Vec<usize> = program.updates.iter().map(|(_, id)| *id).collect();
    let backend = Generic { dtype: candle_core::DType::F64, device: candle_core::Device::Cpu };
    let found = backend.run(&program, &parameters, &[given[&x].clone()], &ends, 0).expect("it runs");
    let list = |tensor: &Tensor| tensor.to_vec::<f64>().expect("numbers");
    let x = list(&given[&x]);
    for channel in 0..3 {
        let own = x.iter().enumerate().filter(|(idx, _)| idx / 5 % 3 == channel).map(|(_, x)| x);
        let mean = own.clone().sum::<f64>() / 10.0;
        let variance = own.map(|x| (x - mean).powi(2)).sum::<f64>() / 10.0;
        for (name, found, now) in [(&names[2], &found[0], mean), (&names[3], &found[1], variance)] {
            let before = list(&graph.initializers[name])[channel];
            let expected = 0.75 * (0.75 * before + 0.25 * now) + 0.25 * now;
            assert!((list(found)[channel] - expected).abs() < 1e-9, "{name}: {found:?} for {expected}");
        }
    }
}

#[test]
fn layers() {
    let layer = |axis| Op::LayerNormalization(op::LayerNormalization { axis, epsilon: 1e-2, stash_type: 1 });
    // alone, and with the mean and the inverse deviation
    for n_outputs in [1, 3] {
        check_outputs(layer(-1), &some(&[&[2, 3, 4], &[4], &[4]]), &[0, 1, 2], &[], n_outputs);
        check_outputs(layer(1), &some(&[&[2, 3, 4], &[3, 4]]), &[0, 1], &[], n_outputs);
        check_outputs(layer(-1), &some(&[&[2, 3, 4], &[3, 1], &[1]]), &[0, 1, 2], &[], n_outputs);
    }
    let root = |axis| Op::RMSNormalization(op::LayerNormalization { axis, epsilon: 1e-2, stash_type: 1 });
    check(root(-1), &some(&[&[2, 3, 4], &[4]]), &[0, 1], &[]);
    check(root(1), &some(&[&[2, 3, 4], &[3, 4]]), &[0, 1], &[]);
    let skip = || Op::SkipLayerNormalization(op::SkipLayerNormalization { epsilon: 1e-2 });
    check(skip(), &some(&[&[2, 3, 4], &[2, 3, 4], &[4]]), &[0, 1, 2], &[]);
    check(skip(), &some(&[&[2, 3, 4], &[3, 4], &[4], &[4], &[4]]), &[0, 1, 2, 3, 4], &[]);
    check_outputs(skip(), &some(&[&[2, 3, 4], &[3, 4], &[4], &[4], &[4]]), &[0, 1, 2, 3, 4], &[], 1);
}

#[test]
fn groups_instances_and_neighbours() {
    let instance = Op::InstanceNormalization(op::InstanceNormalization { epsilon: 1e-2 });
    check(instance, &some(&[&[2, 3, 4, 2], &[3], &[3]]), &[0, 1, 2], &[]);
    for num_groups in [1, 2, 4] {
        let group = Op::GroupNormalization(op::GroupNormalization { epsilon: 1e-2, num_groups, stash_type: 1 });
        check(group, &some(&[&[2, 4, 3], &[4], &[4]]), &[0, 1, 2], &[]);
    }
    for size in [1, 2, 3, 9] {
        let lrn = Op::LRN(op::LRN { alpha: 0.5, beta: 0.75, bias: 1.5, size });
        check(lrn, &some(&[&[2, 5, 3]]), &[0], &[]);
    }
}
