//! Objectives by value, gradient and refusal, on a student of three linear maps.

mod pairing;
mod plain;
mod refusals;
mod training;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;

use super::{Ends, Mix, Objective, Pair, Teacher, WithObjectives, attach};
use crate::compress::distill::DistillError;
use crate::graph::op::Reshape;
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, Graph, GraphBuilder, Name, Node, Op, TensorType, ValueInfo, eval};
use crate::learn::exec::{Mode, Request, run};
use crate::learn::train::learner::Learner;
use crate::learn::train::loss::{self, Loss};
use plain::Plain;

const N_SAMPLES: usize = 4;
const N_FEATURES: usize = 3;

/// Numbers between −1 and 1 that are the same every time.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32) / ((1u64 << 23) as f32) - 1.0
        })
        .collect()
}

/// A student with values `logits`, `first` and `second` of these shapes a sample, each a linear map of its input `x`.
fn student(shapes: &[Vec<usize>; 3]) -> Graph {
    let mut builder = GraphBuilder::new("student");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), N_FEATURES.into()]));
    for (idx, (name, shape)) in NAMES.iter().zip(shapes).enumerate() {
        let n: usize = shape.iter().product();
        let weight = Tensor::new(&[N_FEATURES, n], numbers(idx as u64 + 1, N_FEATURES * n)).expect("as many");
        let weight = builder.initializer(&format!("{name}.weight"), weight);
        let product = builder.node(Op::MatMul, &[&x, &weight]);
        let sizes = [&[0], shape.iter().map(|&size| size as i64).collect::<Vec<_>>().as_slice()].concat();
        let sizes = builder.initializer(&format!("{name}.shape"), Tensor::vector(sizes));
        let reshape = Op::Reshape(Reshape { allowzero: false });
        builder.push(Node::new(reshape, vec![Some(product), Some(sizes)], vec![Some(Name::from(*name))]));
        builder.output(&Name::from(*name));
    }
    builder.finish().expect("a graph")
}

const NAMES: [&str; 3] = ["logits", "first", "second"];

fn teacher_types(shapes: &[Vec<usize>; 3]) -> BTreeMap<Name, TensorType> {
    let known = NAMES.iter().zip(shapes).map(|(name, shape)| {
        let dims = std::iter::once(Dim::from("n")).chain(shape.iter().copied().map(Dim::from));
        (Name::from(*name), TensorType::new(DType::F32, dims))
    });
    known.collect()
}

fn ends() -> Ends {
    Ends { output: "logits".into(), logits: "logits".into() }
}

fn pairs(names: &[&str]) -> Vec<Pair> {
    names.iter().map(|name| Pair::from([name.to_string(), name.to_string()])).collect()
}

fn mix(objective: Objective) -> Mix {
    Mix { loss: vec![objective.into()], alpha: 1.0, ..Mix::default() }
}

fn attached(shapes: [&[Vec<usize>; 2]; 3], objective: Objective) -> Result<WithObjectives, DistillError> {
    let [of_student, of_teacher] = [0, 1].map(|side| shapes.map(|both| both[side].clone()));
    let types = teacher_types(&of_teacher);
    let teacher = Teacher { ends: ends(), types: &types };
    attach(&student(&of_student), &"logits".into(), &teacher, &mix(objective), Loss::CrossEntropy, 3)
}

/// What a training graph is given: samples, the teacher's values, labels and weights of one, in `f32`.
fn inputs(with: &WithObjectives, teacher: &[Plain; 3]) -> IndexMap<Name, Tensor> {
    let x = Tensor::new(&[N_SAMPLES, N_FEATURES], numbers(11, N_SAMPLES * N_FEATURES)).expect("as many");
    let mut inputs = IndexMap::from([(Name::from("x"), x)]);
    for input in &with.teacher {
        let position =
            NAMES.iter().position(|name| *name == input.value.as_str()).expect("it is a value of the teacher");
        inputs.insert(input.input.clone(), teacher[position].single());
    }
    if let Some(target) = &with.with_loss.target {
        inputs.insert(target.clone(), labels().single());
    }
    inputs.extend(with.weights(0.0).map(|(name, weight)| (name.clone(), weight)));
    inputs
}

/// The classes 0, 1, 2, 0 of three.
fn labels() -> Plain {
    Plain::new(&[N_SAMPLES, 3], (0..N_SAMPLES * 3).map(|idx| f64::from(u8::from(idx % 3 == idx / 3 % 3))).collect())
}

fn teacher_values(shapes: &[Vec<usize>; 3]) -> [Plain; 3] {
    [0, 1, 2].map(|idx: usize| {
        let shape = [&[N_SAMPLES], shapes[idx].as_slice()].concat();
        let n = shape.iter().product();
        Plain::new(&shape, numbers(20 + idx as u64, n).into_iter().map(f64::from).collect())
    })
}

/// What an objective is computed from by hand.
struct Known {
    /// The student's `logits`, `first` and `second`.
    s: [Plain; 3],
    /// The teacher's.
    t: [Plain; 3],
    /// What is learned beside the student, in the order of the graph.
    learned: Vec<Plain>,
}

/// The value of an objective is the one by hand, by the reference interpreter in `f32` and by exec in `f64`; its gradients
/// are those of finite differences in `f64`, and those of a learner's step in `f32` are the same.
#[track_caller]
fn check(shapes: [&[Vec<usize>; 2]; 3], objective: Objective, expected: impl Fn(&Known) -> f64) {
    let name = objective.name();
    let with = attached(shapes, objective).unwrap_or_else(|error| panic!("{name}: {error}"));
    let teacher = teacher_values(&shapes.map(|both| both[1].clone()));
    let inputs = inputs(&with, &teacher);
    let loss = &with.with_loss.loss;

    let wanted: Vec<Name> = NAMES.iter().map(|name| Name::from(*name)).chain([loss.clone()]).collect();
    let values = eval::run_with(&with.with_loss.graph, &inputs, &wanted).expect("the reference runs it");
    let initial = &with.with_loss.graph.initializers;
    let known = Known {
        s: NAMES.map(|name| Plain::of(&values[&Name::from(name)])),
        t: teacher,
        learned: with.with_loss.learned.iter().map(|name| Plain::of(&initial[name])).collect(),
    };
    let by_hand = expected(&known);
    let found = Plain::of(&values[loss]).data[0];
    close(&format!("{name} by the reference"), found, by_hand, 2e-5);

    let differentiable = Differentiable::new(&with, &inputs);
    close(&format!("{name} in f64"), differentiable.value(&differentiable.inputs), by_hand, 2e-5);
    let gradients = differentiable.check_gradients(name);

    let of_student = student(&shapes.map(|both| both[0].clone()));
    let validation = loss::attach(&of_student, &"logits".into(), Loss::CrossEntropy).expect("the output is there");
    let learner = Learner::with_losses(&of_student, with.with_loss.clone(), validation, &BTreeSet::new());
    let mut learner = learner.expect("it learns");
    let names: Vec<Name> = learner.parameters.keys().cloned().collect();
    let learned = learner.learn(&inputs, 0).expect("a step");
    close(&format!("{name} on the host"), learned.loss.into(), by_hand, 2e-5);
    for (position, gradient) in learned.gradients() {
        let expected = &gradients[&names[position]].data;
        let largest = expected.iter().fold(1e-2f64, |largest, value| largest.max(value.abs()));
        for (found, expected) in gradient.iter().zip(expected) {
            let difference = (f64::from(*found) - expected).abs();
            assert!(difference <= 2e-3 * largest, "{name}: {} on the host: {found}, not {expected}", names[position]);
        }
    }
    let network = learner.network().expect("the student alone");
    assert_eq!(network, of_student, "{name}: nothing was applied");
}

#[track_caller]
fn close(what: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance * expected.abs().max(1.0), "{what}: {found}, not {expected}");
}

/// A training graph whose weights are inputs of `f64`.
struct Differentiable {
    graph: Graph,
    loss: Name,
    weights: Vec<Name>,
    inputs: IndexMap<Name, Tensor>,
}

impl Differentiable {
    fn new(with: &WithObjectives, inputs: &IndexMap<Name, Tensor>) -> Differentiable {
        let mut parts = with.with_loss.graph.to_parts();
        let of_student = NAMES.iter().map(|name| Name::from(format!("{name}.weight")));
        let weights: Vec<Name> = of_student.chain(with.with_loss.learned.iter().cloned()).collect();
        let double = |tensor: &Tensor| Plain::of(tensor).double();
        let mut inputs: IndexMap<Name, Tensor> =
            inputs.iter().map(|(name, tensor)| (name.clone(), double(tensor))).collect();
        for name in &weights {
            let tensor = parts.initializers.shift_remove(name).expect("it is an initializer");
            parts.inputs.push(ValueInfo::new(name, TensorType::of(&tensor)));
            inputs.insert(name.clone(), double(&tensor));
        }
        let graph = Graph::new(parts).expect("only weights have moved");
        Differentiable { graph, loss: with.with_loss.loss.clone(), weights, inputs }
    }

    fn request(&self, is_trained: bool) -> Request {
        Request {
            shapes: self.inputs.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect(),
            mode: Mode::Training,
            outputs: vec![self.loss.clone()],
            loss: is_trained.then(|| self.loss.clone()),
            trainable: if is_trained { self.weights.iter().cloned().collect() } else { BTreeSet::new() },
            variable: BTreeSet::new(),
        }
    }

    fn value(&self, inputs: &IndexMap<Name, Tensor>) -> f64 {
        let run = run(&self.graph, inputs, &self.request(false)).expect("it runs");
        run.outputs[&self.loss].as_slice::<f64>().expect("numbers are in f64")[0]
    }

    /// The gradients, those of up to a dozen elements of each weight compared with central differences.
    fn check_gradients(&self, name: &str) -> BTreeMap<Name, Plain> {
        let found = run(&self.graph, &self.inputs, &self.request(true)).expect("it is differentiated");
        let step = 1e-5;
        let mut gradients = BTreeMap::new();
        for weight in &self.weights {
            let tensor = &self.inputs[weight];
            let zeros = || Plain::new(tensor.shape(), vec![0.0; tensor.len()]);
            let gradient = found.gradients.get(weight).map_or_else(zeros, Plain::of);
            let largest = gradient.data.iter().fold(1e-3f64, |largest, value| largest.max(value.abs()));
            for idx in (0..tensor.len()).step_by(tensor.len().div_ceil(12)) {
                let moved = |by: f64| {
                    let mut inputs = self.inputs.clone();
                    let mut values = tensor.to_vec::<f64>().expect("f64");
                    values[idx] += by;
                    inputs.insert(weight.clone(), Tensor::new(tensor.shape(), values).expect("the shape stays"));
                    self.value(&inputs)
                };
                let expected = (moved(step) - moved(-step)) / (2.0 * step);
                let difference = (gradient.data[idx] - expected).abs();
                let got = gradient.data[idx];
                assert!(difference <= 1e-5 * largest, "{name}: d {weight}[{idx}] is {got}, not {expected}");
            }
            gradients.insert(weight.clone(), gradient);
        }
        gradients
    }
}
