//! A small network on the built-in digits whose zeros stay zeros.

use super::*;
use crate::learn::train::checkpoint;
use crate::learn::train::fit::testing::{data, network};
use crate::learn::train::fit::{
    Batch, Editor, Fitted, Flow, Guide, Moment, Numbers, Observer, Pace, State, StepReport, Task, TrainOptions,
    fit_with,
};
use crate::learn::train::learner::Parameter;
use crate::learn::train::loss::{Loss, WithLoss, attach};

fn train_options() -> TrainOptions {
    TrainOptions { epochs: 4, batch_size: 32, lr: 3e-3, ..TrainOptions::default() }
}

/// Teaches what the labels say.
struct Labels(WithLoss);

impl Guide for Labels {
    fn with_loss(&self) -> &WithLoss {
        &self.0
    }

    fn n_views(&self) -> Option<u64> {
        None
    }

    fn add(&mut self, _: &Moment<'_>, _: &mut Batch) -> Result<(), TrainError> {
        Ok(())
    }
}

/// Stops after so many steps.
struct Stop(usize);

impl Observer for Stop {
    fn step(&mut self, _: &StepReport) -> Flow {
        self.0 -= 1;
        if self.0 == 0 { Flow::Pause } else { Flow::Continue }
    }
}

fn train(
    graph: &Graph,
    editor: &mut dyn Editor,
    train: &TrainOptions,
    state: Option<State>,
    observer: &mut dyn Observer,
) -> Result<Fitted, TrainError> {
    let data = data();
    let output = graph.outputs[0].name.clone();
    let mut guide = Labels(attach(graph, &output, Loss::CrossEntropy).expect("a loss"));
    let task = Task { graph, output: &output, data: &data, augment: &[] };
    fit_with(&task, Some(&mut guide), Some(editor), train, 5, state, observer)
}

/// The network after a training, checked for its zeros.
#[track_caller]
fn check(text: &str, options: &TrainOptions) -> Graph {
    let (graph, _) = network();
    let sparse = super::options(text);
    let plan = planned(&graph, &sparse).expect("weights");
    let editor = || Sparsifier::growing(&plan, &sparse, 9).expect(text);
    let unbroken = train(&graph, &mut editor(), options, None, &mut ()).expect(text);
    let trained = unbroken.network.expect("it is done");
    let report = report(&trained, &plan).expect("its own weights");
    assert!((report.sparsity() - sparse.target()).abs() < 0.005, "{text}: {} are zero", report.sparsity());
    let last = unbroken.state.epochs.last().expect("epochs");
    assert!(last.metric > 0.6, "{text}: {last:?}");
    for n_steps in [1, 60, 130] {
        let paused = train(&graph, &mut editor(), options, None, &mut Stop(n_steps)).expect(text);
        let bytes = checkpoint::to_bytes(&paused.state, "recipe").expect("it can be written");
        let state = checkpoint::from_bytes(&bytes, "recipe").expect("it can be read");
        let resumed = train(&graph, &mut editor(), options, Some(state), &mut ()).expect(text);
        assert!(resumed.network.as_ref() == Some(&trained), "{text}: after {n_steps} steps");
    }
    trained
}

#[test]
fn zeros_that_were_chosen_before_stay_with_averages_and_accumulation() {
    let (graph, _) = network();
    let options = super::options("sparsity = 0.7");
    let plan = planned(&graph, &options).expect("weights");
    let sparse = by_weights(&graph, &plan, &options, 0).expect("sparse");
    for ema in [None, Some(0.9)] {
        let options = TrainOptions { ema, accumulate: 2, clip: Some(1.0), l1: 1e-5, ..train_options() };
        let editor = || Sparsifier::held(&sparse.graph, sparse.masks.clone()).expect("they are kept");
        let fitted = train(&sparse.graph, &mut editor(), &options, None, &mut ()).expect("it learns");
        let trained = fitted.network.expect("it is done");
        hold(&trained, &sparse.masks).expect("kept");
        let name = Name::from("0.weight");
        assert!(trained.initializers[&name] != sparse.graph.initializers[&name]);
        let paused = train(&sparse.graph, &mut editor(), &options, None, &mut Stop(55)).expect("it stops");
        let resumed = train(&sparse.graph, &mut editor(), &options, Some(paused.state), &mut ()).expect("it goes on");
        assert!(resumed.network == Some(trained));
    }
    let error = Sparsifier::held(&graph, sparse.masks).expect_err("they are not applied").to_string();
    assert!(error.starts_with("the mask of `0.weight` is not kept"), "{error}");
}

#[test]
fn masks_grow_in_training_and_are_kept() {
    check("sparsity = 0.8\nschedule = 'cubic'", &train_options());
    check("sparsity = 0.6\nschedule = 'one-shot'", &TrainOptions { ema: Some(0.9), ..train_options() });
    check("sparsity = 0.7\ncriterion = 'movement'\nschedule = 'linear'", &train_options());
    check("sparsity = 0.7\ncriterion = 'snip'\nscope = 'global'\nschedule = 'cubic'", &train_options());
    check("pattern = '4x1'\ncriterion = 'random'\nschedule = 'linear'", &train_options());
}

#[test]
fn groups_of_four_keep_two_in_the_end() {
    let trained = check("pattern = '2:4'\nschedule = 'cubic'", &train_options());
    let weights = trained.initializers[&Name::from("0.weight")].to_vec::<f32>().expect("floats");
    assert!(weights.chunks(4).all(|four| four.iter().filter(|weight| **weight != 0.0).count() <= 2));
}

#[test]
fn rounds_rewind_and_end_at_the_target() {
    let ema = TrainOptions { epochs: 6, ema: Some(0.5), ..train_options() };
    check("sparsity = 0.7\nschedule = { iterative = { rounds = 2, rewind = 0.2 } }", &ema);
}

#[test]
fn weights_go_back_to_what_they_were_at_the_early_step() {
    let graph = one(gemm(), &[1, 4], wave(&[2, 4], 0.1));
    let text = "sparsity = 0.75\nschedule = { iterative = { rounds = 2, rewind = 0.5 } }";
    let options = options(text);
    let plan = planned(&graph, &options).expect("a weight");
    let mut editor = Sparsifier::growing(&plan, &options, 0).expect("it can");
    let values = weight(&graph);
    let parameter = Parameter { values, is_learned: true, decays: true, is_step_size: false };
    let mut parameters = IndexMap::from([(Name::from("weight"), parameter)]);
    // rounds of 10, 5 and 5 steps
    let mut numbers: Numbers = editor.begin(&mut parameters, 20, 1).expect("it begins");
    numbers.insert("moment0".to_string(), vec![vec![0.0; 8]]);
    let mut early = Vec::new();
    for n_done in 1..=20u64 {
        let values = &mut parameters[0].values;
        values.iter_mut().enumerate().for_each(|(k, value)| *value += 0.1 * (k as f32 + 1.0));
        numbers["moment0"][0].fill(n_done as f32);
        editor.edit(Pace { n_done, n_steps: 20 }, &mut parameters, &mut numbers).expect("it can");
        if n_done == 5 {
            early.clone_from(&parameters[0].values);
        }
        let out = parameters[0].values.iter().filter(|value| **value == 0.0).count();
        assert_eq!(out, [0, 4, 6][usize::from(n_done >= 10) + usize::from(n_done >= 15)], "after {n_done} steps");
        if n_done == 10 || n_done == 15 {
            let kept = parameters[0].values.iter().zip(&early).filter(|(value, _)| **value != 0.0);
            assert!(kept.clone().count() > 0 && kept.into_iter().all(|(value, early)| value == early));
            assert_eq!(numbers["moment0"][0], [5.0; 8]);
        }
        assert_eq!(editor.is_settled(Pace { n_done, n_steps: 20 }), n_done >= 15);
    }
}

#[test]
fn movement_sums_what_moves_away_from_zero() {
    let graph = one(gemm(), &[1, 4], wave(&[2, 4], 0.1));
    let options = options("criterion = 'movement'\nschedule = { linear = { begin = 0.0, end = 1.0, updates = 1 } }");
    let plan = planned(&graph, &options).expect("a weight");
    let mut editor = Sparsifier::growing(&plan, &options, 0).expect("it can");
    let values = weight(&graph);
    let parameter = Parameter { values, is_learned: true, decays: true, is_step_size: false };
    let mut parameters = IndexMap::from([(Name::from("weight"), parameter)]);
    let mut numbers = editor.begin(&mut parameters, 3, 0).expect("it begins");
    let mut scores = [0f32; 8];
    for n_done in 1..=3u64 {
        let gradient = wave(&[8], n_done as f32).to_vec::<f32>().expect("floats");
        let values = parameters[0].values.clone();
        editor.see(0, &gradient, &values, &mut numbers);
        (0..8).for_each(|k| scores[k] -= gradient[k] * values[k]);
        editor.edit(Pace { n_done, n_steps: 3 }, &mut parameters, &mut numbers).expect("it can");
    }
    let mut order: Vec<usize> = (0..8).collect();
    order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    assert!(order[..4].iter().all(|&k| parameters[0].values[k] == 0.0), "{scores:?}");
    assert!(order[4..].iter().all(|&k| parameters[0].values[k] != 0.0), "{scores:?}");
}

#[test]
fn trainings_that_cannot_go_sparse_are_refused() {
    let (graph, _) = network();
    let refused = |text: &str, options: TrainOptions, why: &str| {
        let sparse = super::options(text);
        let plan = planned(&graph, &sparse).expect("weights");
        let mut editor = Sparsifier::growing(&plan, &sparse, 0).expect(text);
        let error = train(&graph, &mut editor, &options, None, &mut ()).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    };
    let frozen = TrainOptions { freeze: vec!["0.weight".to_string()], ..train_options() };
    refused("", frozen, "`0.weight` is to go sparse and does not learn");
    let short = TrainOptions { epochs: 1, batch_size: 1000, ..train_options() };
    refused("schedule = { iterative = { rounds = 9 } }", short, "are too few for the rounds");
}
