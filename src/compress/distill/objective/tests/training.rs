//! Sums of objectives, what a learner makes of them, and numbers at the edges.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use proptest::prelude::{ProptestConfig, Strategy, prop_assert, proptest};
use proptest::{collection, num};

use super::plain::Plain;
use super::{
    Differentiable, N_FEATURES, N_SAMPLES, attached, close, ends, inputs, labels, mix, pairs, student, teacher_types,
    teacher_values,
};
use crate::compress::distill::objective::schedule::WeightSchedule;
use crate::compress::distill::objective::{Mix, Objective, Teacher, Weighted, WithObjectives, attach};
use crate::graph::op::{Cast, RoundMode};
use crate::graph::tensor::{DType, Tensor};
use crate::graph::{Dim, GraphBuilder, Name, Op, TensorType, eval};
use crate::learn::exec::run;
use crate::learn::train::learner::Learner;
use crate::learn::train::loss::{self, Loss};

const IMAGES: [[&[usize]; 2]; 3] = [[&[3], &[3]], [&[2, 4, 4], &[3, 2, 2]], [&[2, 3, 3], &[2, 3, 3]]];

fn shapes(of: [[&[usize]; 2]; 3]) -> [[Vec<usize>; 2]; 3] {
    of.map(|both| both.map(<[usize]>::to_vec))
}

fn hinted(alpha: f64) -> (Mix, WithObjectives, [Plain; 3]) {
    let shapes = shapes(IMAGES);
    let mix = Mix {
        loss: vec![
            Weighted {
                objective: Objective::Kd { temperature: None },
                weight: 2.0,
                schedule: WeightSchedule::Linear { start: 0.0, end: 1.0, from: 0.0, to: 1.0 },
            },
            Weighted {
                objective: Objective::Hint { pairs: pairs(&["first"]), projection: true },
                weight: 3.0,
                schedule: WeightSchedule::Between { from: 0.0, to: 0.75 },
            },
        ],
        alpha,
        ..Mix::default()
    };
    let types = teacher_types(&shapes.each_ref().map(|both| both[1].clone()));
    let teacher = Teacher { ends: ends(), types: &types };
    let of_student = student(&shapes.each_ref().map(|both| both[0].clone()));
    let with = attach(&of_student, &"logits".into(), &teacher, &mix, Loss::CrossEntropy, 5).expect("it is attached");
    (mix, with, teacher_values(&shapes.map(|both| both[1].clone())))
}

fn number(values: &IndexMap<Name, Tensor>, name: &Name) -> f64 {
    values[name].to_f32s().expect("a number")[0].into()
}

#[test]
fn terms_are_weighted_as_the_mix_says() {
    let (_, with, teacher) = hinted(0.75);
    let mut wanted: Vec<Name> = with.terms.iter().map(|term| term.value.clone()).collect();
    wanted.extend([with.with_loss.loss.clone(), "logits".into()]);
    for (progress, expected) in [(0.0, [0.0, 2.25, 0.25]), (0.5, [0.75, 2.25, 0.25]), (0.75, [1.125, 0.0, 0.25])] {
        let mut inputs = inputs(&with, &teacher);
        inputs.extend(with.weights(progress).map(|(name, weight)| (name.clone(), weight)));
        let values = eval::run_with(&with.with_loss.graph, &inputs, &wanted).expect("it runs");
        let terms = with.terms.iter().zip(expected).map(|(term, weight)| weight * number(&values, &term.value));
        close("the sum", number(&values, &with.with_loss.loss), terms.sum(), 1e-5);
        let logits = Plain::of(&values[&Name::from("logits")]).rows(1);
        let classes = logits.iter().zip(labels().rows(1));
        let entropies = classes.map(|(z, y)| -super::plain::dot(&y, &super::plain::softmax(z, 1.0).map_ln()));
        close("the labels", number(&values, &with.terms[2].value), super::plain::mean(entropies), 1e-5);
    }
    let read: Vec<String> = with.teacher.iter().map(|input| format!("{} {}", input.input, input.tensor_type)).collect();
    assert_eq!(read, ["teacher.logits f32[batch, 3]", "teacher.first f32[batch, 3, 2, 2]"]);
    assert_eq!(with.with_loss.learned, ["hint.projection.weight", "hint.projection.bias"].map(Name::from));
}

trait Logarithms {
    fn map_ln(&self) -> Vec<f64>;
}

impl Logarithms for Vec<f64> {
    fn map_ln(&self) -> Vec<f64> {
        self.iter().map(|p| p.ln()).collect()
    }
}

#[test]
fn a_learner_trains_projections_and_hands_out_the_student_alone() {
    let (_, with, teacher) = hinted(0.75);
    let of_student = student(&shapes(IMAGES).map(|both| both[0].clone()));
    let validation = loss::attach(&of_student, &"logits".into(), Loss::CrossEntropy).expect("the output is there");
    let learner = Learner::with_losses(&of_student, with.with_loss.clone(), validation, &BTreeSet::new());
    let mut learner = learner.expect("it learns");
    assert_eq!(learner.target().map(Name::as_str), Some("target"));
    let weight = &learner.parameters["hint.projection.weight"];
    assert!(weight.is_learned && weight.decays && weight.values.len() == 6);
    assert!(!learner.parameters["hint.projection.bias"].decays);
    let mut inputs = inputs(&with, &teacher);
    inputs.extend(with.weights(0.5).map(|(name, weight)| (name.clone(), weight)));
    let step = |learner: &mut Learner| {
        let mut learned = learner.learn(&inputs, 0).expect("a step");
        let update = |_, gradient: &[f32], parameter: &mut crate::learn::train::learner::Parameter| {
            parameter.values.iter_mut().zip(gradient).for_each(|(value, slope)| *value -= 0.05 * slope);
        };
        learned.apply(update);
        learned.loss
    };
    let first = step(&mut learner);
    let last = (0..60).map(|_| step(&mut learner)).last().expect("there were steps");
    assert!(last < 0.9 * first, "the loss went from {first} to {last}");
    let network = learner.network().expect("the student alone");
    assert_eq!(network.nodes, of_student.nodes);
    assert!(network.initializers.keys().eq(of_student.initializers.keys()));
    assert_ne!(network.initializers["first.weight"], of_student.initializers["first.weight"]);
    // validation reads samples and labels, and nothing of the teacher
    let plain = ["x", "target"].map(|name| (Name::from(name), inputs[name].clone()));
    let outcome = learner.predict(&plain.into_iter().collect()).expect("a prediction");
    assert_eq!(outcome.prediction.shape(), [N_SAMPLES, 3]);
}

#[test]
fn both_losses_read_the_same_labels() {
    let (_, with, _) = hinted(0.75);
    let of_student = student(&shapes(IMAGES).map(|both| both[0].clone()));
    let mut validation = loss::attach(&of_student, &"logits".into(), Loss::CrossEntropy).expect("the output is there");
    validation.target = Some("other".into());
    let learner = Learner::with_losses(&of_student, with.with_loss, validation, &BTreeSet::new());
    let error = learner.expect_err("it is refused").to_string();
    assert!(error.starts_with("the targets are `target` in training and `other` in validation"), "{error}");
}

#[test]
fn a_student_of_half_precision_is_compared_in_single() {
    let mut builder = GraphBuilder::new("half");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), N_FEATURES.into()]));
    let half = Op::Cast(Cast { to: DType::F16, saturate: true, round_mode: RoundMode::Up });
    let y = builder.node(half, &[&x]);
    builder.output(&y);
    let graph = builder.finish().expect("a graph");
    let types = teacher_types(&shapes(IMAGES).map(|both| both[1].clone()));
    let teacher = Teacher { ends: ends(), types: &types };
    let all = [Objective::Kd { temperature: None }, Objective::Mse {}];
    let mix = Mix { loss: all.map(Weighted::from).to_vec(), alpha: 0.5, ..Mix::default() };
    let with = attach(&graph, &y, &teacher, &mix, Loss::CrossEntropy, 0).expect("it is attached");
    let inputs = inputs(&with, &teacher_values(&shapes(IMAGES).map(|both| both[1].clone())));
    let loss = &with.with_loss.loss;
    let values = eval::run_with(&with.with_loss.graph, &inputs, std::slice::from_ref(loss)).expect("it runs");
    assert_eq!(values[loss].dtype(), DType::F32);
}

/// With weights and teacher's values of zero there are lengths, variances and distances of zero.
#[test]
fn nothing_breaks_at_zero() {
    let first = || pairs(&["first"]);
    let objectives = [
        Objective::Dist { inter: 1.0, intra: 1.0, temperature: None },
        Objective::AttentionTransfer { pairs: first(), power: 2 },
        Objective::Similarity { pairs: first() },
        Objective::Relational { pairs: first(), distance: 1.0, angle: 2.0 },
        Objective::Pkt { pairs: first() },
        Objective::Nst { pairs: first() },
        Objective::Crd { pairs: first(), size: 2, temperature: 0.07 },
        Objective::Vid { pairs: first() },
    ];
    for objective in objectives {
        let name = objective.name();
        let shapes = shapes(IMAGES);
        let with = attached(shapes.each_ref(), objective).expect("it is attached");
        let teacher = teacher_values(&shapes.map(|both| both[1].clone()))
            .map(|values| Plain::new(&values.shape, vec![0.0; values.data.len()]));
        let mut zeros = Differentiable::new(&with, &inputs(&with, &teacher));
        for weight in ["logits.weight", "first.weight", "second.weight"] {
            let tensor = &zeros.inputs[weight];
            let zero = Tensor::zeros(DType::F64, tensor.shape()).expect("small");
            zeros.inputs.insert(weight.into(), zero);
        }
        let found = run(&zeros.graph, &zeros.inputs, &zeros.request(true)).expect("it runs");
        let all = found.outputs.values().chain(found.gradients.values());
        let is_finite = |tensor: &Tensor| Plain::of(tensor).data.iter().all(|value| value.is_finite());
        assert!(all.into_iter().all(is_finite), "{name}: {found:?}");
    }
}

/// One sample alone has no others to be compared with.
#[test]
fn a_batch_of_one_is_no_error() {
    for objective in [
        Objective::Relational { pairs: pairs(&["first"]), distance: 1.0, angle: 2.0 },
        Objective::Dist { inter: 1.0, intra: 1.0, temperature: None },
        Objective::Crd { pairs: pairs(&["first"]), size: 2, temperature: 0.07 },
    ] {
        let name = objective.name();
        let shapes = shapes(IMAGES);
        let with = attached(shapes.each_ref(), objective).expect("it is attached");
        let inputs = inputs(&with, &teacher_values(&shapes.map(|both| both[1].clone())));
        let cut = |tensor: Tensor| if tensor.rank() == 0 { Ok(tensor) } else { tensor.rows(0, 1) };
        let one = inputs.into_iter().map(|(name, tensor)| (name, cut(tensor).expect("a sample"))).collect();
        let loss = &with.with_loss.loss;
        let values = eval::run_with(&with.with_loss.graph, &one, std::slice::from_ref(loss)).expect("it runs");
        assert!(number(&values, loss).is_finite(), "{name}");
    }
}

/// The value of an objective of logits.
fn of_logits(objective: Objective, s: &[f32], t: &[f32]) -> f64 {
    let mut builder = GraphBuilder::new("logits");
    let x = builder.input("x", TensorType::new(DType::F32, [Dim::from("batch"), 3.into()]));
    let y = builder.node(Op::Identity, &[&x]);
    builder.output(&y);
    let types = teacher_types(&shapes(IMAGES).map(|both| both[1].clone()));
    let teacher = Teacher { ends: ends(), types: &types };
    let graph = builder.finish().expect("a graph");
    let with = attach(&graph, &y, &teacher, &mix(objective), Loss::CrossEntropy, 0).expect("it is attached");
    let tensor = |values: &[f32]| Tensor::new(&[values.len() / 3, 3], values.to_vec()).expect("three classes");
    let mut inputs = IndexMap::from([(x, tensor(s)), (with.teacher[0].input.clone(), tensor(t))]);
    inputs.extend(with.weights(0.0).map(|(name, weight)| (name.clone(), weight)));
    inputs.extend(with.with_loss.target.map(|target| (target, tensor(&[0.0, 1.0, 0.0, 1.0, 0.0, 0.0]))));
    let loss = &with.with_loss.loss;
    number(&eval::run_with(&with.with_loss.graph, &inputs, std::slice::from_ref(loss)).expect("it runs"), loss)
}

fn logits() -> impl Strategy<Value = Vec<f32>> {
    let any = num::f32::NORMAL.prop_map(|value| (value % 1.0) * 2000.0);
    collection::vec(any, 6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn divergences_are_not_negative_and_finite(s in logits(), t in logits()) {
        let objectives = [
            Objective::Kd { temperature: None },
            Objective::Kd { temperature: Some(1.0) },
            Objective::Dkd { alpha: 1.0, beta: 8.0, temperature: None },
            Objective::Binary { temperature: None },
            Objective::SoftCrossEntropy { temperature: Some(1.0) },
        ];
        for objective in objectives {
            let name = objective.name();
            let found = of_logits(objective, &s, &t);
            prop_assert!(found.is_finite() && found >= -1e-3, "{}: {}", name, found);
        }
        let found = of_logits(Objective::Dist { inter: 1.0, intra: 1.0, temperature: Some(1.0) }, &s, &t);
        prop_assert!((-1e-5..=4.00001).contains(&found), "dist: {}", found);
    }
}
