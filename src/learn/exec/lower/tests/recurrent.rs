//! `RNN`, `GRU` and `LSTM`.

use crate::graph::op::{Direction, GRU, LSTM, Op, RNN, Reduce};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{GraphBuilder, Name, Node, TensorType};
use crate::learn::exec::compile::Mode;
use crate::learn::exec::program::Program;
use crate::learn::exec::testing::{Inputs, check, numbers, request, run_generic};

/// What can differ between two recurrent operators.
#[derive(Clone, Default)]
struct Options {
    direction: Option<Direction>,
    layout: i64,
    clip: Option<f32>,
    activations: Vec<&'static str>,
    alpha: Vec<f32>,
    beta: Vec<f32>,
    flag: bool,
}

fn op(n_gates: usize, options: &Options) -> Op {
    let Options { direction, layout, clip, activations, alpha, beta, flag } = options.clone();
    let direction = direction.unwrap_or(Direction::Forward);
    let activations = activations.into_iter().map(str::to_string).collect();
    let (activation_alpha, activation_beta, hidden_size) = (alpha, beta, None);
    match n_gates {
        1 => Op::RNN(RNN { activation_alpha, activation_beta, activations, clip, direction, hidden_size, layout }),
        3 => Op::GRU(GRU {
            activation_alpha,
            activation_beta,
            activations,
            clip,
            direction,
            hidden_size,
            layout,
            linear_before_reset: flag,
        }),
        _ => Op::LSTM(LSTM {
            activation_alpha,
            activation_beta,
            activations,
            clip,
            direction,
            hidden_size,
            input_forget: flag,
            layout,
        }),
    }
}

const N_STEPS: usize = 3;
const N_BATCHES: usize = 2;
const N_INPUTS: usize = 2;
const HIDDEN: usize = 2;

/// `X`, `W`, `R` and, where there are `more`, everything else that the operator may have.
fn inputs(n_gates: usize, options: &Options, more: bool, lengths: Option<[i32; 2]>) -> Vec<Option<Tensor>> {
    let n_directions = if options.direction == Some(Direction::Bidirectional) { 2 } else { 1 };
    let is_batch_first = options.layout == 1;
    let x = if is_batch_first { [N_BATCHES, N_STEPS, N_INPUTS] } else { [N_STEPS, N_BATCHES, N_INPUTS] };
    let rows = n_gates * HIDDEN;
    let mut all = vec![
        Some(numbers(&x)),
        Some(numbers(&[n_directions, rows, N_INPUTS])),
        Some(numbers(&[n_directions, rows, HIDDEN])),
    ];
    if more {
        let state = if is_batch_first { [N_BATCHES, n_directions, HIDDEN] } else { [n_directions, N_BATCHES, HIDDEN] };
        all.push(Some(numbers(&[n_directions, 2 * rows])));
        all.push(None);
        all.push(Some(numbers(&state)));
        if n_gates == 4 {
            all.push(Some(numbers(&state)));
            all.push(Some(numbers(&[n_directions, 3 * HIDDEN])));
        }
    }
    if let Some(lengths) = lengths {
        all.resize(all.len().max(5), None);
        all[4] = Some(Tensor::vector(lengths.to_vec()));
    }
    all
}

#[track_caller]
fn both(n_gates: usize, options: &Options, more: bool, lengths: Option<[i32; 2]>, fixed: &[usize]) {
    let inputs = inputs(n_gates, options, more, lengths);
    let learns: Vec<usize> = (0..inputs.len()).filter(|&idx| idx != 4 && inputs[idx].is_some()).collect();
    check(op(n_gates, options), &inputs, &[], fixed);
    check(op(n_gates, options), &inputs, &learns, fixed);
}

#[test]
fn every_direction_and_layout() {
    for n_gates in [1, 3, 4] {
        for direction in [Direction::Forward, Direction::Reverse, Direction::Bidirectional] {
            for layout in [0, 1] {
                let options = Options { direction: Some(direction), layout, ..Options::default() };
                both(n_gates, &options, layout == 1, None, &[]);
            }
        }
    }
}

#[test]
fn sequences_of_different_lengths() {
    for n_gates in [1, 3, 4] {
        for (direction, layout) in [(Direction::Forward, 1), (Direction::Bidirectional, 0)] {
            let options = Options { direction: Some(direction), layout, ..Options::default() };
            for fixed in [&[4usize] as &[usize], &[]] {
                both(n_gates, &options, true, Some([3, 1]), fixed);
            }
        }
        both(n_gates, &Options::default(), false, Some([3, 3]), &[4]);
        both(n_gates, &Options::default(), false, Some([0, 2]), &[4]);
    }
}

#[test]
fn variants_of_the_cells() {
    for (n_gates, more) in [(3, true), (3, false), (4, true), (4, false)] {
        let options = Options { flag: true, clip: Some(0.4), ..Options::default() };
        both(n_gates, &options, more, None, &[]);
    }
    let named = ["Affine", "ScaledTanh", "HardSigmoid", "LeakyRelu", "Elu", "Softsign", "Softplus", "Sigmoid"];
    for name in named {
        let options = Options { activations: vec![name], alpha: vec![0.6], beta: vec![0.3], ..Options::default() };
        both(1, &options, true, None, &[]);
    }
    let options = Options {
        activations: vec!["HardSigmoid", "Affine", "Tanh", "Sigmoid", "Tanh", "ScaledTanh"],
        alpha: vec![0.3, 0.7, 0.9],
        beta: vec![0.4, 0.1, 0.8],
        direction: Some(Direction::Bidirectional),
        ..Options::default()
    };
    both(4, &options, true, None, &[]);
}

/// The primitives of a program for the last state of an LSTM and its gradients.
fn of_length(n_steps: usize) -> (crate::graph::Graph, Inputs, Name, Vec<Name>) {
    let mut builder = GraphBuilder::new("long");
    let x = builder.input("x", TensorType::new(DType::F64, [n_steps, 1, 2]));
    let weights = [("w", numbers(&[1, 8, 2])), ("r", numbers(&[1, 8, 2]))];
    let names: Vec<Name> = weights.map(|(name, tensor)| builder.initializer(name, tensor)).to_vec();
    let parts = [x.clone(), names[0].clone(), names[1].clone()].map(Some).to_vec();
    let y = Name::from("y");
    builder.push(Node::new(op(4, &Options::default()), parts, vec![Some(y.clone())]));
    let reduce = Reduce { keepdims: false, noop_with_empty_axes: false };
    let loss = builder.node(Op::ReduceSum(reduce), &[&y]);
    builder.output(&loss);
    let given: Inputs = [(x.clone(), numbers(&[n_steps, 1, 2]))].into_iter().collect();
    (builder.finish().expect("whole"), given, loss, [vec![x], names].concat())
}

#[test]
fn a_thousand_steps() {
    let (graph, given, loss, trainable) = of_length(1000);
    let request = request(&given, Mode::Training, &[], Some(&loss), &trainable);
    let program = Program::compile(&graph, &request).expect("it compiles");
    let n_elements: usize = program.steps.iter().flat_map(|step| &step.outputs).map(|&id| program.n_elements(id)).sum();
    assert!(program.steps.len() < 70_000, "{} steps", program.steps.len());
    // nothing as long as the sequence is made at every step
    assert!(n_elements < 400_000, "{n_elements} elements");
    let (_, gradients) = run_generic(&graph, &given, &request).expect("it runs");
    assert_eq!(gradients.len(), 3);
    for (name, gradient) in gradients {
        assert!(gradient.to_vec::<f64>().expect("numbers").iter().all(|value| value.is_finite()), "{name}");
    }
}
