//! A small network on the built-in digits: it learns, the same every time, and goes on where it stopped.

use super::testing::{data, network};
use super::{Fitted, Flow, Observer, State, StepReport, Task, TrainOptions, fit};
use crate::learn::train::optimizer::Optimizer;
use crate::learn::train::{TrainError, checkpoint};

fn options() -> TrainOptions {
    TrainOptions { epochs: 3, batch_size: 32, lr: 3e-3, ..TrainOptions::default() }
}

fn train(options: &TrainOptions, state: Option<State>, observer: &mut dyn Observer) -> Result<Fitted, TrainError> {
    let (graph, output) = network();
    let data = data();
    fit(&Task { graph: &graph, output: &output, data: &data, augment: &[] }, options, 5, state, observer)
}

fn weights(fitted: &Fitted) -> Vec<u8> {
    let network = fitted.network.as_ref().expect("the training is done");
    network.initializers.values().flat_map(|tensor| tensor.bytes().expect("numbers").to_vec()).collect()
}

/// Stops after so many steps.
struct Stop(usize);

impl Observer for Stop {
    fn step(&mut self, _: &StepReport) -> Flow {
        self.0 -= 1;
        if self.0 == 0 { Flow::Pause } else { Flow::Continue }
    }
}

#[test]
fn a_network_learns_and_says_how_well() {
    let fitted = train(&options(), None, &mut ()).expect("it learns");
    let last = fitted.state.epochs.last().expect("three epochs");
    assert!(last.metric > 0.9, "{last:?}");
    assert!(fitted.diagnosis.is_some());
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_one_thread_and_on_two() {
    let on = |n_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().expect("a pool");
        pool.install(|| weights(&train(&options(), None, &mut ()).expect("it learns")))
    };
    assert!(on(1) == on(2));
}

#[test]
fn a_training_that_was_stopped_goes_on_to_the_same_bytes() {
    let options = TrainOptions {
        accumulate: 3,
        ema: Some(0.9),
        clip: Some(1.0),
        optimizer: Optimizer::Sgd { momentum: 0.9, nesterov: true },
        ..options()
    };
    let unbroken = train(&options, None, &mut ()).expect("it learns");
    for n_steps in [1, 50] {
        let paused = train(&options, None, &mut Stop(n_steps)).expect("it stops");
        assert!(paused.network.is_none());
        let bytes = checkpoint::to_bytes(&paused.state, "recipe").expect("it can be written");
        let state = checkpoint::from_bytes(&bytes, "recipe").expect("it can be read");
        assert!(state == paused.state);
        let resumed = train(&options, Some(state), &mut ()).expect("it goes on");
        assert!(weights(&resumed) == weights(&unbroken), "after {n_steps} steps");
    }
}

#[test]
fn every_optimizer_learns() {
    let sgd = Optimizer::Sgd { momentum: 0.9, nesterov: false };
    let lion = Optimizer::Lion { beta1: 0.9, beta2: 0.99 };
    for (optimizer, lr) in [(sgd, 0.1), (lion, 3e-3), (Optimizer::default(), 3e-3)] {
        let options = TrainOptions { optimizer, lr, label_smoothing: 0.05, l1: 1e-5, ..options() };
        let fitted = train(&options, None, &mut ()).expect("it learns");
        let last = fitted.state.epochs.last().expect("three epochs");
        assert!(last.metric > 0.85, "{optimizer:?}: {last:?}");
    }
}

#[test]
fn a_step_too_large_is_taken_back_and_at_last_refused() {
    struct Notes(Vec<String>);
    impl Observer for Notes {
        fn note(&mut self, note: &str) {
            self.0.push(note.to_string());
        }
    }
    let mut notes = Notes(Vec::new());
    let sgd = Optimizer::Sgd { momentum: 0.0, nesterov: false };
    let options = TrainOptions { optimizer: sgd, lr: 1e30, ..options() };
    let error = train(&options, None, &mut notes).expect_err("the steps are too large");
    assert!(error.to_string().starts_with("the loss is no number in epoch 1"), "{error}");
    assert_eq!(notes.0.len(), 5, "{:?}", notes.0);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let refused = |options: TrainOptions, why: &str| {
        let error = train(&options, None, &mut ()).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    };
    refused(TrainOptions { lr: -1.0, ..options() }, "`lr` is -1; give a number above 0");
    refused(TrainOptions { class_weights: Some(vec![1.0]), ..options() }, "as many numbers as there are classes");
    refused(TrainOptions { freeze: vec!["*".to_string()], ..options() }, "the network has no weight that could learn");
    refused(TrainOptions { freeze: vec!["stme*".to_string()], ..options() }, "stme*");
    let stopped = train(&options(), None, &mut Stop(1)).expect("it stops");
    let ema = TrainOptions { ema: Some(0.9), ..options() };
    let error = train(&ema, Some(stopped.state), &mut ()).expect_err("no average was kept");
    assert!(error.to_string().contains("its `average` is of another network"), "{error}");
}
