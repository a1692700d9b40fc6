//! The training loop: epochs of steps, a validation after each, and what is kept of them.
//!
//! Everything that a training depends on is in its [`State`]: written down after any step and read again, it goes on to the same
//! bytes. The loop knows no file and no clock; an [`Observer`] does.

mod editor;
mod guide;
mod options;

use std::sync::Arc;

use indexmap::IndexMap;

pub use self::editor::{Editor, Numbers, Pace};
pub use self::guide::{Average, Batch, Guide, Moment, Samples};
pub use self::options::TrainOptions;

use crate::data::{self, Augmentation, Dataset, Length, Loader, LoaderOptions, Split};
use crate::graph::{Graph, Name};
use crate::learn::kernels::elementwise::scale_add;
use crate::learn::kernels::optimizer as kernel;
use crate::learn::train::TrainError;
use crate::learn::train::diagnosis::{Diagnosis, Epoch, LossRange, diagnose};
use crate::learn::train::learner::{Learned, Learner};
use crate::learn::train::loss::attach;
use crate::learn::train::metrics::{Confusion, LossMean};
use crate::learn::train::optimizer::Update;
use crate::learn::train::targets::Targets;

/// Where a training stands: all that the steps to come depend on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The epoch, from 0, and the batches of it that are done.
    pub epoch: usize,
    /// See `epoch`.
    pub n_batches: usize,
    /// Steps of the optimizer so far.
    pub n_steps: u64,
    /// What the learning rate is multiplied by, and how often it was cut.
    pub rate_factor: f64,
    /// See `rate_factor`.
    pub n_cuts: usize,
    /// The training loss of this epoch: the sum over samples, and their number.
    pub loss: (f64, u64),
    /// What each finished epoch came to.
    pub epochs: Vec<Epoch>,
    /// The best epoch so far, by its validation metric.
    pub best: Option<usize>,
    /// Numbers by kind, a list a parameter: `weight`, the moments, `average`, `best`, `start` (of the epoch), `gradient`, and
    /// those of an [`Editor`].
    pub numbers: Numbers,
}

/// What a step came to.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// The epoch, from 0.
    pub epoch: usize,
    /// The batch of the epoch, from 0, and how many there are.
    pub batch: usize,
    /// See `batch`.
    pub n_batches: usize,
    /// The loss of the batch.
    pub loss: f32,
    /// The learning rate.
    pub rate: f64,
    /// The samples of the batch.
    pub n_samples: usize,
    /// Steps of the optimizer so far; as many as before where gradients are still gathered.
    pub n_steps: u64,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// With the next step.
    Continue,
    /// Not now: the state is handed out to be taken up later.
    Pause,
}

/// Who is told how a training goes.
pub trait Observer {
    /// After every step.
    fn step(&mut self, _report: &StepReport) -> Flow {
        Flow::Continue
    }

    /// After every epoch, with the state to be kept.
    ///
    /// # Errors
    /// When the state cannot be kept.
    fn epoch(&mut self, _epoch: &Epoch, _state: &State) -> Result<(), TrainError> {
        Ok(())
    }

    /// Something that a person should know.
    fn note(&mut self, _note: &str) {}
}

/// An observer that does not look.
impl Observer for () {}

/// What a training came to.
#[derive(Debug)]
pub struct Fitted {
    /// The network with the weights of the best epoch; none where training was paused.
    pub network: Option<Graph>,
    /// Where it stands.
    pub state: State,
    /// What the curves say; nothing of a guided training.
    pub diagnosis: Option<Diagnosis>,
}

/// What is to be learned.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The network.
    pub graph: &'a Graph,
    /// Its output that is to meet the labels.
    pub output: &'a Name,
    /// Samples, with labels where there is no guide or it teaches what the network says.
    pub data: &'a Arc<Dataset>,
    /// What is done to training samples.
    pub augment: &'a [Augmentation],
}

/// How often the learning rate is cut before a training is given up.
const MOST_CUTS: usize = 5;

/// Trains a network by its labels; `state` is that of a training to be taken up.
///
/// # Errors
/// When the network, the data and the options do not go together, or the loss stops being a number again and again.
pub fn fit(
    task: &Task<'_>,
    options: &TrainOptions,
    seed: u64,
    state: Option<State>,
    observer: &mut dyn Observer,
) -> Result<Fitted, TrainError> {
    fit_with(task, None, None, options, seed, state, observer)
}

/// As [`fit()`], with a guide and an editor where there is one.
///
/// # Errors
/// As [`fit()`], and when the guide does not have what its training graph reads, or the editor cannot do what it is there for.
pub fn fit_with(
    task: &Task<'_>,
    guide: Option<&mut dyn Guide>,
    editor: Option<&mut dyn Editor>,
    options: &TrainOptions,
    seed: u64,
    state: Option<State>,
    observer: &mut dyn Observer,
) -> Result<Fitted, TrainError> {
    options.check()?;
    let is_validated = guide.as_ref().is_none_or(|guide| guide.teaches_output());
    if options.unlabelled > 0.0 && guide.is_none() {
        let (value, range) = (options.unlabelled.to_string(), "0 where nobody says what such a sample is");
        return Err(TrainError::Option { option: "unlabelled", value, range });
    }
    if is_validated && task.data.samples(Split::Validation).is_empty() {
        return Err(TrainError::Task {
            problem: "the data has no validation split".to_string(),
            remedy: "give `split = { validation = 0.1 }` in the data",
        });
    }
    let frozen = options.frozen(task.graph)?;
    let by = guide.as_ref().map(|guide| guide.with_loss().clone());
    let validation = by.clone().filter(|_| !is_validated);
    let validation = validation.map_or_else(|| attach(task.graph, task.output, options.loss), Ok)?;
    let by = by.unwrap_or_else(|| validation.clone());
    let learner = Learner::with_losses(task.graph, by, validation, &frozen)?;
    let mut training = Training::new(learner, task, guide, editor, options, seed)?;
    let mut state = match state {
        Some(state) => training.resume(state)?,
        None => training.begin()?,
    };
    while state.epoch < options.epochs {
        // here, and not after an epoch: a training that was stopped in between ends where it would have ended
        let waited = state.best.map_or(0, |best| state.epoch.saturating_sub(best + 1));
        if options.patience.is_some_and(|patience| waited >= patience) {
            observer.note(&format!("no better epoch since epoch {}: training ends", state.epoch - waited));
            break;
        }
        match training.epoch(&mut state, observer)? {
            Flow::Continue => {}
            Flow::Pause => return Ok(Fitted { network: None, state, diagnosis: None }),
        }
    }
    let best = state.numbers.get("best").map_or(&[][..], Vec::as_slice);
    let names = training.learner.parameters.keys();
    let network = training.learner.network_with(names.zip(best.iter().map(Vec::as_slice)))?;
    let range = LossRange::cross_entropy(training.targets.n_classes().unwrap_or(2), options.label_smoothing);
    // a guided training has two losses that cannot be set beside each other
    let is_by_labels = training.guide.is_none();
    let n_classes = training.targets.n_classes().filter(|_| is_by_labels);
    let diagnosis = n_classes.and_then(|_| diagnose(&state.epochs, range));
    Ok(Fitted { network: Some(network), state, diagnosis })
}

struct Training<'a, 'g, 'e> {
    learner: Learner,
    targets: Targets,
    train: Loader,
    /// None where only the training loss says how good it is.
    validation: Option<Loader>,
    guide: Option<&'a mut (dyn Guide + 'g)>,
    editor: Option<&'a mut (dyn Editor + 'e)>,
    options: &'a TrainOptions,
    seed: u64,
}

impl<'a, 'g, 'e> Training<'a, 'g, 'e> {
    fn new(
        learner: Learner,
        task: &Task<'_>,
        guide: Option<&'a mut (dyn Guide + 'g)>,
        editor: Option<&'a mut (dyn Editor + 'e)>,
        options: &'a TrainOptions,
        seed: u64,
    ) -> Result<Training<'a, 'g, 'e>, TrainError> {
        let Task { data, augment, .. } = task;
        let is_validated = guide.as_ref().is_none_or(|guide| guide.teaches_output());
        let targets = Targets::new(data, &learner, options, is_validated)?;
        let batches = LoaderOptions {
            batch_size: options.batch_size,
            seed,
            length: options.length_multiple.map_or(Length::Batch, Length::Multiple),
            buckets: options.buckets,
            ..LoaderOptions::default()
        };
        let validation = is_validated.then(|| Loader::new(data, Split::Validation, batches.clone())).transpose()?;
        let views = guide.as_ref().and_then(|guide| guide.n_views());
        let shuffled = LoaderOptions {
            shuffle: true,
            augment: augment.to_vec(),
            views,
            unlabelled: options.unlabelled,
            ..batches
        };
        let train = Loader::new(data, Split::Train, shuffled)?;
        if (options.buckets || options.length_multiple.is_some()) && train.longest().is_none() {
            return Err(TrainError::Task {
                problem: "the data's samples are all of one length".to_string(),
                remedy: "leave `buckets` and `length_multiple` out",
            });
        }
        Ok(Training { learner, targets, train, validation, guide, editor, options, seed })
    }

    fn begin(&mut self) -> Result<State, TrainError> {
        let (n_steps, n_moments) = (self.n_steps(), self.options.optimizer.n_moments());
        let edited = match &mut self.editor {
            Some(editor) => editor.begin(&mut self.learner.parameters, n_steps, n_moments)?,
            None => Numbers::new(),
        };
        let weights: Vec<Vec<f32>> = self.learner.parameters.values().map(|it| it.values.clone()).collect();
        let zeros: Vec<Vec<f32>> = weights.iter().map(|values| vec![0.0; values.len()]).collect();
        let mut numbers =
            IndexMap::from([("weight".to_string(), weights.clone()), ("start".to_string(), weights.clone())]);
        for moment in 0..n_moments {
            numbers.insert(format!("moment{moment}"), zeros.clone());
            numbers.insert(format!("start-moment{moment}"), zeros.clone());
        }
        if self.options.ema.is_some() {
            numbers.insert("average".to_string(), weights.clone());
            numbers.insert("start-average".to_string(), weights);
        }
        if self.options.accumulate > 1 {
            numbers.insert("gradient".to_string(), zeros);
        }
        for (kind, lists) in edited {
            numbers.insert(format!("start-{kind}"), lists.clone());
            numbers.insert(kind, lists);
        }
        Ok(State { rate_factor: 1.0, numbers, ..State::default() })
    }

    fn resume(&mut self, state: State) -> Result<State, TrainError> {
        let expected = self.begin()?;
        for (kind, lists) in &expected.numbers {
            let found = state.numbers.get(kind).map(|lists| lists.iter().map(Vec::len).collect::<Vec<_>>());
            if found != Some(lists.iter().map(Vec::len).collect()) {
                return Err(TrainError::Checkpoint { problem: format!("its `{kind}` is of another network") });
            }
        }
        self.take(&state.numbers["weight"]);
        Ok(state)
    }

    /// Gives the network these values.
    fn take(&mut self, weights: &[Vec<f32>]) {
        for (parameter, values) in self.learner.parameters.values_mut().zip(weights) {
            parameter.values.copy_from_slice(values);
        }
    }

    /// The rest of an epoch and its validation.
    fn epoch(&mut self, state: &mut State, observer: &mut dyn Observer) -> Result<Flow, TrainError> {
        let n_batches = self.train.n_batches();
        if state.n_batches == 0 {
            mark_start(state);
        }
        let epoch = state.epoch as u64;
        let (order, view) = (self.train.order(epoch), self.train.view_of(epoch));
        let mut batches = self.train.batches(epoch, state.n_batches);
        while state.n_batches < n_batches {
            let Some(batch) = batches.next().transpose()? else { break };
            let ids = order.chunks(self.options.batch_size).nth(state.n_batches).unwrap_or_default();
            let report = self.step(state, &batch, Samples { ids, view }, n_batches)?;
            if !report.loss.is_finite() {
                self.go_back(state, observer)?;
                return Ok(Flow::Continue);
            }
            state.n_batches += 1;
            if observer.step(&report) == Flow::Pause {
                self.put(state);
                return Ok(Flow::Pause);
            }
        }
        self.put(state);
        let epoch = self.validate(state)?;
        state.epochs.push(epoch);
        let pace = Pace { n_done: state.n_steps, n_steps: self.n_steps() };
        let is_settled = self.editor.as_ref().is_none_or(|editor| editor.is_settled(pace));
        let is_best = is_settled && state.best.is_none_or(|best| epoch.metric > state.epochs[best].metric);
        if is_best {
            state.best = Some(state.epoch);
            let mut kept = state.numbers["weight"].clone();
            if let Some(average) = state.numbers.get("average") {
                // as it was validated: running statistics are not averaged again
                let learned = self.learner.parameters.values().zip(average).zip(&mut kept);
                let learned = learned.filter(|((parameter, _), _)| parameter.is_learned);
                learned.for_each(|((_, average), kept)| kept.clone_from(average));
            }
            state.numbers.insert("best".to_string(), kept);
        }
        (state.epoch, state.n_batches, state.loss) = (state.epoch + 1, 0, (0.0, 0));
        observer.epoch(&epoch, state)?;
        Ok(Flow::Continue)
    }

    /// Writes the network's values into the state.
    fn put(&self, state: &mut State) {
        let weights = self.learner.parameters.values().map(|parameter| parameter.values.clone()).collect();
        state.numbers.insert("weight".to_string(), weights);
    }

    /// One batch: its gradients and, where one is due, a step of the optimizer.
    fn step(
        &mut self,
        state: &mut State,
        batch: &data::Batch,
        samples: Samples<'_>,
        n_batches: usize,
    ) -> Result<StepReport, TrainError> {
        let options = self.options;
        let (mut named, n_samples) = self.targets.prepare(batch, options)?;
        let pace = Pace { n_done: state.n_steps, n_steps: self.n_steps() };
        if let Some(guide) = &mut self.guide {
            let average = state.numbers.get("average");
            let average = average.map(|averages| Average { parameters: &self.learner.parameters, averages });
            let progress = pace.n_done as f64 / pace.n_steps.max(1) as f64;
            guide.add(&Moment { samples, progress, average }, &mut named)?;
        }
        let course = self.editor.as_ref().map_or(pace, |editor| editor.course(pace));
        let rate = options.lr * state.rate_factor * options.schedule.factor(course.n_done, course.n_steps);
        let seed = mix(self.seed, (state.epoch * n_batches + state.n_batches) as u64);
        if let Some(attack) = &options.attack {
            attack.apply(&mut self.learner, &mut named, true, seed)?;
        }
        let mut learned = self.learner.learn(&named, seed)?;
        let loss = learned.loss;
        let (epoch, batch, n_steps) = (state.epoch, state.n_batches, state.n_steps);
        let mut report = StepReport { epoch, batch, n_batches, loss, rate, n_samples, n_steps };
        if !loss.is_finite() {
            return Ok(report);
        }
        state.loss = (state.loss.0 + f64::from(loss) * n_samples as f64, state.loss.1 + n_samples as u64);
        let mut sums = state.numbers.swap_remove("gradient");
        if let Some(sums) = &mut sums {
            let share = 1.0 / options.accumulate as f32;
            learned.apply(|position, gradient, _| scale_add(share, gradient, &mut sums[position]));
        }
        if (state.n_batches + 1).is_multiple_of(options.accumulate) || state.n_batches + 1 == n_batches {
            if let Some(editor) = &mut self.editor {
                for (position, gradient, values) in learned.gradients_and_values() {
                    let gradient = sums.as_ref().map_or(gradient, |sums| &sums[position]);
                    editor.see(position, gradient, values, &mut state.numbers);
                }
            }
            update(
                options,
                state,
                &mut learned,
                Size { rate: rate as f32, n_steps: course.n_done + 1 },
                sums.as_deref(),
            );
            sums.iter_mut().flatten().for_each(|sum| sum.fill(0.0));
            if let (Some(decay), Some(averages)) = (options.ema, state.numbers.get_mut("average")) {
                for (average, parameter) in averages.iter_mut().zip(self.learner.parameters.values()) {
                    kernel::moving_average(decay, &parameter.values, average);
                }
            }
            if let Some(editor) = &mut self.editor {
                let pace = Pace { n_done: state.n_steps, ..pace };
                editor.edit(pace, &mut self.learner.parameters, &mut state.numbers)?;
            }
        }
        if let Some(sums) = sums {
            state.numbers.insert("gradient".to_string(), sums);
        }
        report.n_steps = state.n_steps;
        Ok(report)
    }

    /// Steps of the whole training.
    fn n_steps(&self) -> u64 {
        self.steps_per_epoch() * self.options.epochs as u64
    }

    fn steps_per_epoch(&self) -> u64 {
        self.train.n_batches().div_ceil(self.options.accumulate) as u64
    }

    /// Back to the beginning of the epoch with half the rate.
    fn go_back(&mut self, state: &mut State, observer: &mut dyn Observer) -> Result<(), TrainError> {
        state.n_cuts += 1;
        if state.n_cuts > MOST_CUTS {
            return Err(TrainError::NotANumber { epoch: state.epoch + 1, n_cuts: MOST_CUTS });
        }
        state.rate_factor *= 0.5;
        observer.note(&format!(
            "the loss is no number in epoch {}, batch {}: back to the epoch's beginning with {} of the learning rate",
            state.epoch + 1,
            state.n_batches + 1,
            state.rate_factor,
        ));
        let starts: Vec<(String, Vec<Vec<f32>>)> = state
            .numbers
            .iter()
            .filter_map(|(kind, lists)| Some((kind.strip_prefix("start-")?.to_string(), lists.clone())))
            .collect();
        state.numbers.extend(starts);
        let weights = state.numbers["start"].clone();
        self.take(&weights);
        state.numbers.insert("weight".to_string(), weights);
        if let Some(sums) = state.numbers.get_mut("gradient") {
            sums.iter_mut().for_each(|sum| sum.fill(0.0));
        }
        state.n_steps = state.epoch as u64 * self.steps_per_epoch();
        (state.n_batches, state.loss) = (0, (0.0, 0));
        Ok(())
    }

    /// The epoch's losses and metric, by the averaged weights where there are some.
    fn validate(&mut self, state: &State) -> Result<Epoch, TrainError> {
        let train_loss = state.loss.0 / state.loss.1.max(1) as f64;
        let Some(validation) = &self.validation else {
            return Ok(Epoch { train_loss, validation_loss: f64::NAN, metric: -train_loss });
        };
        let average = state.numbers.get("average");
        if let Some(average) = average {
            // running statistics are those of the batches, not averaged again
            for (parameter, values) in self.learner.parameters.values_mut().zip(average) {
                if parameter.is_learned {
                    parameter.values.copy_from_slice(values);
                }
            }
        }
        let mut loss = LossMean::default();
        let mut score = self.targets.score();
        for batch in validation.batches(0, 0) {
            let batch = batch?;
            let (named, n_samples) = self.targets.prepare(&batch, self.options)?;
            let outcome = self.learner.predict(&named)?;
            loss.add(outcome.loss.into(), n_samples);
            score.add(&batch, &outcome)?;
        }
        if average.is_some() {
            self.take(&state.numbers["weight"]);
        }
        let validation_loss = loss.mean().unwrap_or(f64::NAN);
        Ok(Epoch { train_loss, validation_loss, metric: score.metric().unwrap_or(-validation_loss) })
    }
}

/// The size of a step.
#[derive(Clone, Copy)]
struct Size {
    rate: f32,
    /// Steps as the optimizer counts them, with this one.
    n_steps: u64,
}

/// A step of the optimizer by the gradients of a batch, or by these sums over several.
fn update(options: &TrainOptions, state: &mut State, learned: &mut Learned<'_>, size: Size, sums: Option<&[Vec<f32>]>) {
    state.n_steps += 1;
    let scale = options.clip.map_or(1.0, |clip| {
        let gradients = learned.gradients().map(|(position, gradient)| sums.map_or(gradient, |sums| &sums[position]));
        let norm = gradients.map(|gradient| f64::from(kernel::squared_norm(gradient))).sum::<f64>().sqrt() as f32;
        if norm > clip { clip / norm } else { 1.0 }
    });
    let kinds: Vec<String> = (0..options.optimizer.n_moments()).map(|moment| format!("moment{moment}")).collect();
    let taken = kinds.iter().map(|kind| state.numbers.swap_remove(kind).expect("a training begins with its moments"));
    let mut moments: Vec<Vec<Vec<f32>>> = taken.collect();
    learned.apply(|position, gradient, parameter| {
        let gradient = sums.map_or(gradient, |sums| &sums[position]);
        let decay = if parameter.decays { options.weight_decay } else { 0.0 };
        let mut own: Vec<Vec<f32>> = moments.iter_mut().map(|all| std::mem::take(&mut all[position])).collect();
        let update = Update { gradient, weight: &mut parameter.values, moments: &mut own };
        options.optimizer.step(update, size.rate, decay, size.n_steps, scale);
        moments.iter_mut().zip(own).for_each(|(all, own)| all[position] = own);
        if options.l1 > 0.0 && parameter.decays {
            shrink(&mut parameter.values, size.rate * options.l1);
        }
    });
    state.numbers.extend(kinds.into_iter().zip(moments));
}

/// Remembers what an epoch begins with.
fn mark_start(state: &mut State) {
    let weights = state.numbers["weight"].clone();
    state.numbers.insert("start".to_string(), weights);
    let kinds: Vec<String> =
        state.numbers.keys().filter_map(|kind| kind.strip_prefix("start-").map(String::from)).collect();
    for kind in kinds {
        let values = state.numbers[&kind].clone();
        state.numbers.insert(format!("start-{kind}"), values);
    }
}

/// Each value nearer to zero by this much, and no further: the proximal step of `|w|`.
fn shrink(values: &mut [f32], by: f32) {
    values.iter_mut().for_each(|value| *value = value.signum() * (value.abs() - by).max(0.0));
}

/// A seed of a step (`splitmix64`).
fn mix(seed: u64, step: u64) -> u64 {
    let mut mixed = seed.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What a validation is scored by.
pub(super) enum Score {
    /// The part of samples whose class is met.
    Classes(Confusion),
    /// Nothing but the loss.
    Loss,
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
