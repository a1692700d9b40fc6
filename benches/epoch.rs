//! What an epoch costs beside its training steps alone: reading, augmentation and accounts of every step, against the same
//! number of steps on one batch that is at hand. Recipes of `models/`, one epoch each, in turns, two threads.
//!
//! Arguments name the recipes to run.

#![allow(clippy::print_stdout)] // figures are what a bench is for

#[allow(dead_code)] // epochs are timed here, not functions
mod support;

use std::path::Path;
use std::time::Instant;

use aludel::data::{LABEL, Loader, LoaderOptions, Split};
use aludel::graph::Name;
use aludel::graph::tensor::Tensor;
use aludel::learn::train::fit::{Flow, Observer, StepReport, Task, TrainOptions, fit};
use aludel::learn::train::learner::Learner;
use aludel::learn::train::optimizer::Update;
use aludel::measure::statistics::{median, sorted};
use aludel::recipe::{Prepared, Recipe};
use indexmap::IndexMap;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECIPES: [&str; 4] = ["digits", "cifar10-subset", "fashion-mnist", "spoken-digits"];

/// An epoch ends after so many steps, and each is measured so often.
const MOST_STEPS: usize = 80;
const ROUNDS: usize = 5;

fn main() {
    support::print_machine();
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global().expect("the pool is not built yet");
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let has_data = support::data().is_some();
    for name in RECIPES {
        let is_wanted = arguments.is_empty() || arguments.iter().any(|argument| argument == name);
        if is_wanted && (has_data || name == "digits") {
            row(name);
        }
    }
}

fn row(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name).join("recipe.toml");
    let recipe = Recipe::read(&path).expect("the recipe is sound");
    let prepared = Prepared::new(&recipe).expect("its data is there");
    let options = TrainOptions { epochs: 1, ..recipe.train.clone() };
    let (mut epochs_ms, mut steps_ms) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (n_steps, epoch_ms) = epoch(&recipe, &prepared, &options);
        epochs_ms.push(epoch_ms / n_steps as f64);
        steps_ms.push(steps(&prepared, &options, n_steps) / n_steps as f64);
    }
    let [epoch_ms, step_ms] = [epochs_ms, steps_ms].map(|sample| median(&sorted(&sample)));
    println!(
        "{name:<16} {epoch_ms:8.3} ms a step of an epoch, {step_ms:8.3} ms a step alone: {:.3} times (at most 1.1)",
        epoch_ms / step_ms
    );
}

/// Sees when the first step ended and when the last did.
#[derive(Default)]
struct Watch {
    begun: Option<Instant>,
    n_steps: usize,
    elapsed_ms: f64,
}

impl Observer for Watch {
    fn step(&mut self, _: &StepReport) -> Flow {
        match self.begun {
            None => self.begun = Some(Instant::now()),
            Some(begun) => {
                self.n_steps += 1;
                self.elapsed_ms = begun.elapsed().as_secs_f64() * 1e3;
            }
        }
        if self.n_steps < MOST_STEPS { Flow::Continue } else { Flow::Pause }
    }
}

/// The steps of an epoch but for the first, which compiles, and for a smaller last one; and their time.
fn epoch(recipe: &Recipe, prepared: &Prepared, options: &TrainOptions) -> (usize, f64) {
    let Prepared { data, model, output } = prepared;
    let task = Task { graph: &model.graph, output, data, augment: &recipe.data.augment };
    let mut watch = Watch::default();
    fit(&task, options, recipe.seed, None, &mut watch).expect("it trains");
    (watch.n_steps, watch.elapsed_ms)
}

/// As many steps on one batch.
fn steps(prepared: &Prepared, options: &TrainOptions, n_steps: usize) -> f64 {
    let Prepared { data, model, output } = prepared;
    let graph = &model.graph;
    let mut learner = Learner::new(graph, output, options.loss, &options.frozen(graph)).expect("it learns");
    let loader = LoaderOptions { batch_size: options.batch_size, ..LoaderOptions::default() };
    let loader = Loader::new(data, Split::Train, loader).expect("there are samples");
    let batch = loader.batch(0, 0).expect("the first batch");
    let n_classes = data.classes().len();
    let labels = batch[LABEL].as_slice::<i64>().expect("classes");
    let mut target = vec![0f32; labels.len() * n_classes];
    for (row, label) in target.chunks_mut(n_classes).zip(labels) {
        row[usize::try_from(*label).expect("classes count from 0")] = 1.0;
    }
    let target = Tensor::new(&[labels.len(), n_classes], target).expect("a number a class");
    let inputs: Vec<Name> = learner.inputs().cloned().collect();
    let columns: Vec<&Tensor> = batch.iter().filter(|(name, _)| *name != LABEL).map(|(_, column)| column).collect();
    let mut named: IndexMap<Name, Tensor> = inputs.into_iter().zip(columns.into_iter().cloned()).collect();
    named.insert(learner.target().expect("labels are read").clone(), target);
    let zeros = |length: usize| vec![vec![0f32; length]; options.optimizer.n_moments()];
    let mut moments: Vec<Vec<Vec<f32>>> = learner.parameters.values().map(|it| zeros(it.values.len())).collect();
    let mut begun = Instant::now();
    for step in 0..=n_steps as u64 {
        let mut learned = learner.learn(&named, step).expect("a step");
        learned.apply(|position, gradient, parameter| {
            let update = Update { gradient, weight: &mut parameter.values, moments: &mut moments[position] };
            options.optimizer.step(update, 1e-4, options.weight_decay, step + 1, 1.0);
        });
        if step == 0 {
            begun = Instant::now();
        }
    }
    begun.elapsed().as_secs_f64() * 1e3
}
