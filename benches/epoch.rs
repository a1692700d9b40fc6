//! What an epoch costs beside its training steps alone: reading, augmentation and accounts of every step, against the same
//! number of steps on one batch that is at hand. Recipes of `models/`, one epoch each, in turns, two threads. Then what an
//! epoch of a student costs that learns from a teacher, whose values are kept or computed on the way, against the student's
//! epoch alone.
//!
//! Arguments name the recipes to run, and `distill`.

#![allow(clippy::print_stdout)] // figures are what a bench is for

#[path = "support/steps.rs"]
mod steps;
#[allow(dead_code)] // epochs are timed here, not functions
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use aludel::compress::distill::objective::{Ends, Mix, Teacher, attach};
use aludel::compress::distill::student::{StudentOptions, Width, derive};
use aludel::compress::distill::targets::{Key, targets};
use aludel::compress::distill::{Distillation, Source};
use aludel::data::{LABEL, Loader, LoaderOptions, Split};
use aludel::graph::Name;
use aludel::graph::probe::{Forward, ProbeError};
use aludel::graph::shape::{Bindings, infer};
use aludel::graph::tensor::Tensor;
use aludel::learn::train::fit::{Flow, Guide, Observer, StepReport, Task, TrainOptions, fit, fit_with};
use aludel::learn::train::learner::Learner;
use aludel::measure::runtime::tract::Tract;
use aludel::measure::runtime::{ModelBytes, Options, Runtime, Session};
use aludel::measure::statistics::{median, sorted};
use aludel::onnx;
use aludel::recipe::{Prepared, Recipe};
use indexmap::IndexMap;
use steps::Steps;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECIPES: [&str; 4] = ["digits", "cifar10-subset", "fashion-mnist", "spoken-digits"];

/// An epoch ends after so many steps, and each is measured so often.
const MOST_STEPS: usize = 80;
const ROUNDS: usize = 5;

/// Of what is drawn at random: kept values are of the changes that a training with this seed sees.
const SEED: u64 = 7;

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
    if has_data && (arguments.is_empty() || arguments.iter().any(|argument| argument == "distill")) {
        distill();
    }
}

fn recipe_of(name: &str) -> Recipe {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name).join("recipe.toml");
    Recipe::read(&path).expect("the recipe is sound")
}

/// A teacher on tract.
struct OnTract(Box<dyn Session>);

impl Forward for OnTract {
    fn forward(&mut self, inputs: &IndexMap<Name, Tensor>) -> Result<Vec<Tensor>, ProbeError> {
        let feeds: Vec<_> = inputs.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        Ok(self.0.run(&feeds).expect("the teacher runs").into_iter().map(|(_, tensor)| tensor).collect())
    }
}

/// The network of `cifar10-subset` teaches one of a quarter of its width.
fn distill() {
    let recipe = recipe_of("cifar10-subset");
    let prepared = Prepared::new(&recipe).expect("its data is there");
    let (data, teacher) = (&prepared.data, &prepared.model);
    let student = derive(
        &teacher.graph,
        &StudentOptions { width: Width::Factor(0.25), ..StudentOptions::default() },
        &Bindings::default(),
        7,
    );
    let student = student.expect("a student").graph;
    let types = infer(&teacher.graph, &Bindings::default()).expect("types fit");
    let ends = Ends::of(&teacher.graph, &prepared.output);
    let known = BTreeMap::from([(ends.logits.clone(), types.tensor(&ends.logits).expect("known").clone())]);
    let facts = Teacher { ends, types: &known };
    let attached =
        || attach(&student, &prepared.output, &facts, &Mix::default(), recipe.train.loss, 7).expect("objectives fit");
    let bytes = ModelBytes::new(onnx::to_bytes(teacher).expect("it can be written"));
    let open = || {
        let options = Options { n_threads: 2, ..Options::default() };
        OnTract(Tract.load(&bytes, &options).expect("tract takes it"))
    };
    let batches = LoaderOptions {
        batch_size: recipe.train.batch_size,
        augment: recipe.data.augment.clone(),
        seed: SEED,
        ..LoaderOptions::default()
    };
    let loader = Loader::new(data, Split::Train, batches).expect("there are samples");
    let columns: Vec<(String, Name)> = data
        .inputs()
        .zip(&teacher.graph.inputs)
        .map(|((column, _), input)| (column.to_string(), input.name.clone()))
        .collect();
    let inputs = columns.iter().map(|(_, name)| (name.clone(), name.clone())).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let key = Key { teacher: "this one", data: "this", n_views: 1 };
    let kept = targets(
        &folder.path().join("targets"),
        &key,
        &attached().teacher,
        &loader,
        &columns,
        |_| Ok(Box::new(open())),
        |_, _| Flow::Continue,
    );
    let source = Source::Kept { targets: kept.expect("targets"), n_views: 1 };
    let mut by_kept = Distillation { student: attached(), source };
    let mut by_live = Distillation { student: attached(), source: Source::Live { teacher: Box::new(open()), inputs } };
    let options = TrainOptions { epochs: 1, ..recipe.train.clone() };
    let task = Task { graph: &student, output: &prepared.output, data, augment: &recipe.data.augment };
    let step_ms = |guide: Option<&mut dyn Guide>| {
        let mut watch = Watch::default();
        fit_with(&task, guide, None, &options, SEED, None, &mut watch).expect("it trains");
        watch.elapsed_ms / watch.n_steps as f64
    };
    let (mut plain, mut kept, mut live) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(step_ms(None));
        kept.push(step_ms(Some(&mut by_kept)));
        live.push(step_ms(Some(&mut by_live)));
    }
    let [plain, kept, live] = [plain, kept, live].map(|sample| median(&sorted(&sample)));
    println!(
        "distill          {plain:.3} ms a step of the student alone; from kept values {kept:.3} ms: {:.3} times (at most 1.15); \
         from the teacher at work {live:.3} ms: {:.2} times that from kept ones",
        kept / plain,
        live / kept,
    );
}

fn row(name: &str) {
    let recipe = recipe_of(name);
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
    let learner = Learner::new(graph, output, options.loss, &options.frozen(graph).expect("names of the graph"))
        .expect("it learns");
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
    let mut steps = Steps::new(learner, options.optimizer, options.weight_decay);
    // the first compiles
    steps.step(&named);
    let begun = Instant::now();
    for _ in 0..n_steps {
        steps.step(&named);
    }
    begun.elapsed().as_secs_f64() * 1e3
}
