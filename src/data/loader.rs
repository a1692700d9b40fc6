//! Batches of a split, in an order that a seed decides, read ahead by a thread.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use super::augment::{self, Augmentation, Layout};
use super::column::{Column, Kind, Values};
use super::dataset::{Batch, Dataset, LABEL};
use super::error::DataError;
use super::labels::Labels;
use super::number::wide;
use super::random::{self, Purpose};
use super::split::Split;
use crate::graph::tensor::{DType, Element, Tensor};

/// How batches are made.
#[derive(Clone, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Samples a batch, the last one of an epoch aside.
    pub batch_size: usize,
    /// Whether samples come in another order each epoch, not in their own.
    pub shuffle: bool,
    /// Whether a last batch of fewer samples is left out.
    pub drop_last: bool,
    /// What order and augmentation depend on.
    pub seed: u64,
    /// What is done to every sample.
    pub augment: Vec<Augmentation>,
    /// How many changes of a sample there are, one after another from epoch to epoch; none where every epoch has its own.
    pub views: Option<u64>,
    /// To what length samples of several lengths are padded.
    pub length: Length,
    /// Whether samples of like length come in one batch; batches are then shuffled instead.
    pub buckets: bool,
    /// How many of the data's unlabelled samples there are in an epoch for each of the split; evenly among them.
    pub unlabelled: f64,
    /// How many batches are read ahead; with 0 there is no thread.
    pub n_ahead: usize,
}

impl Default for LoaderOptions {
    /// 32 samples a batch in their own order, two batches ahead.
    fn default() -> LoaderOptions {
        LoaderOptions {
            batch_size: 32,
            shuffle: false,
            drop_last: false,
            seed: 0,
            augment: Vec::new(),
            views: None,
            length: Length::Batch,
            buckets: false,
            unlabelled: 0.0,
            n_ahead: 2,
        }
    }
}

/// To what length samples of several lengths are padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Length {
    /// The longest sample of the batch.
    #[default]
    Batch,
    /// The longest sample of the batch, rounded up to a multiple of this.
    Multiple(usize),
    /// The longest sample of all splits: every batch has the same shape.
    Longest,
    /// This; a longer sample is an error.
    Fixed(usize),
}

/// The batches of a split, by epoch and number.
#[derive(Clone, Debug)]
pub struct Loader {
    dataset: Arc<Dataset>,
    split: Split,
    options: LoaderOptions,
    longest: Option<usize>,
    /// The unlabelled samples of an epoch.
    n_unlabelled: usize,
}

impl Loader {
    /// The batches of a split.
    ///
    /// # Errors
    /// When the split is empty, a batch has no sample, or an augmentation does not fit the samples.
    pub fn new(dataset: &Arc<Dataset>, split: Split, options: LoaderOptions) -> Result<Loader, DataError> {
        if options.batch_size == 0 {
            return Err(DataError::Request("a batch of 0 samples was asked for; give 1 or more".to_owned()));
        }
        if dataset.samples(split).is_empty() {
            let remedy = format!("name its files under `{split}`, or give it a share in `split`");
            return Err(DataError::Request(format!("the data has no {split} samples; {remedy}")));
        }
        if let Length::Multiple(0) = options.length {
            return Err(DataError::Request("lengths cannot be multiples of 0".to_owned()));
        }
        if !(0.0..=MOST_UNLABELLED).contains(&options.unlabelled) {
            let problem = format!("is {}; give a number from 0 to {MOST_UNLABELLED}", options.unlabelled);
            return Err(DataError::key("unlabelled", problem));
        }
        if options.unlabelled > 0.0 && dataset.unlabelled().is_empty() {
            return Err(DataError::key("unlabelled", "there are no such samples; say where they are"));
        }
        let has_no_class = |sample: &usize| !dataset.classes().is_empty() && dataset.class(*sample).is_none();
        if options.augment.iter().any(|it| matches!(it, Augmentation::Mixup { .. }))
            && (options.unlabelled > 0.0 || dataset.samples(split).iter().any(has_no_class))
        {
            return Err(DataError::key("augment", "mixup: a sample without a label cannot be mixed; leave it out"));
        }
        if let Some((_, column)) = quantities(dataset) {
            let rank = column.values.sample_shape(0).len();
            let n_labels = match dataset.labels() {
                Labels::None => 0,
                Labels::Classes(names) | Labels::Numbers(names) | Labels::Flags(names) => names.len(),
            };
            options.augment.iter().try_for_each(|augmentation| augmentation.check(rank, n_labels))?;
            let is_ragged = matches!(column.values, Values::Ragged(_));
            if is_ragged && options.augment.iter().any(|it| matches!(it, Augmentation::Mixup { .. })) {
                return Err(DataError::key("augment", "mixup: samples have several lengths; leave it out"));
            }
        } else if !options.augment.is_empty() {
            return Err(DataError::key("augment", "there is no input of quantities to change; leave it out"));
        }
        let n_unlabelled = (options.unlabelled * dataset.samples(split).len() as f64).round() as usize;
        if options.unlabelled > 0.0 && n_unlabelled == 0 {
            return Err(DataError::key(
                "unlabelled",
                format!("{} of a sample are none; give more", options.unlabelled),
            ));
        }
        let splits = [Split::Train, Split::Validation, Split::Calibration, Split::Test].map(|it| dataset.samples(it));
        let more = if n_unlabelled > 0 { dataset.unlabelled() } else { &[] };
        let lengths = splits.into_iter().flatten().chain(more).filter_map(|&sample| length(dataset, sample));
        let longest = lengths.max();
        Ok(Loader { dataset: Arc::clone(dataset), split, options, longest, n_unlabelled })
    }

    /// The data that batches are made of.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// How batches are made.
    pub fn options(&self) -> &LoaderOptions {
        &self.options
    }

    /// The length of the longest sample of all splits, and of the unlabelled ones where there are some in an epoch; none where samples are all of one shape.
    pub fn longest(&self) -> Option<usize> {
        self.longest
    }

    /// The number of batches of an epoch.
    pub fn n_batches(&self) -> usize {
        let n_samples = self.dataset.samples(self.split).len() + self.n_unlabelled;
        if self.options.drop_last {
            n_samples / self.options.batch_size
        } else {
            n_samples.div_ceil(self.options.batch_size)
        }
    }

    /// Every sample that an epoch may have, ascending.
    pub fn samples(&self) -> Vec<usize> {
        let mut samples = self.dataset.samples(self.split).to_vec();
        if self.options.unlabelled > 0.0 {
            samples.extend(self.dataset.unlabelled());
        }
        samples.sort_unstable();
        samples
    }

    /// The samples of an epoch, in order: batch `k` has those from `k * batch_size` on.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order = self.dataset.samples(self.split).to_vec();
        let size = self.options.batch_size;
        if self.options.shuffle {
            order.shuffle(&mut random::stream(self.options.seed, Purpose::Order, epoch, 0));
        }
        if self.options.unlabelled > 0.0 {
            order = evenly(&order, &self.unlabelled_of(epoch));
        }
        if self.options.buckets && self.longest.is_some() {
            // Sorted within windows, so that batches are alike in length but not the same ones each epoch.
            let window = if self.options.shuffle { size.saturating_mul(BATCHES_A_WINDOW) } else { order.len() };
            for window in order.chunks_mut(window.max(1)) {
                window.sort_by_key(|&sample| Reverse(length(&self.dataset, sample)));
            }
            if self.options.shuffle {
                let n_whole = order.len() / size;
                let (whole, rest) = order.split_at(n_whole * size);
                let mut batches: Vec<&[usize]> = whole.chunks_exact(size).collect();
                batches.shuffle(&mut random::stream(self.options.seed, Purpose::Buckets, epoch, 0));
                order = [batches.concat(), rest.to_vec()].concat();
            }
        }
        order
    }

    /// The unlabelled samples of an epoch: each comes once before any comes again.
    fn unlabelled_of(&self, epoch: u64) -> Vec<usize> {
        let all = self.dataset.unlabelled();
        let n = self.n_unlabelled;
        let start = wide(n).saturating_mul(epoch);
        let mut samples = Vec::with_capacity(n);
        let mut round = start / wide(all.len()).max(1);
        let mut skipped = usize::try_from(start % wide(all.len()).max(1)).unwrap_or(0);
        while samples.len() < n && !all.is_empty() {
            let mut order = all.to_vec();
            order.shuffle(&mut random::stream(self.options.seed, Purpose::Order, round, 1));
            samples.extend(order.into_iter().skip(skipped).take(n - samples.len()));
            (round, skipped) = (round + 1, 0);
        }
        samples
    }

    /// One batch of an epoch.
    ///
    /// # Errors
    /// When the epoch has no such batch, or a sample is longer than the length that was fixed.
    pub fn batch(&self, epoch: u64, batch_idx: usize) -> Result<Batch, DataError> {
        self.batch_of(&self.order(epoch), epoch, batch_idx)
    }

    /// The batches of an epoch from one on, read ahead.
    pub fn batches(&self, epoch: u64, from: usize) -> Batches {
        let range = from..self.n_batches();
        let loader = self.clone();
        let order = self.order(epoch);
        let read = move |batch_idx| loader.batch_of(&order, epoch, batch_idx);
        if self.options.n_ahead == 0 {
            return Batches(Reading::Here(Box::new(range.map(read))));
        }
        let (sender, receiver) = sync_channel(self.options.n_ahead);
        let thread = std::thread::Builder::new().name("data".to_owned()).spawn(move || {
            for batch in range.map(read) {
                let is_last = batch.is_err();
                if sender.send(batch).is_err() || is_last {
                    break;
                }
            }
        });
        Batches(match thread {
            Ok(thread) => Reading::Ahead { receiver: Some(receiver), thread: Some(thread) },
            Err(error) => {
                let problem = DataError::Request(format!("no thread can be started to read batches ahead: {error}"));
                Reading::Here(Box::new(std::iter::once(Err(problem))))
            }
        })
    }

    fn batch_of(&self, order: &[usize], epoch: u64, batch_idx: usize) -> Result<Batch, DataError> {
        let start = batch_idx.saturating_mul(self.options.batch_size);
        let end = start.saturating_add(self.options.batch_size).min(order.len());
        let samples = order.get(start..end).filter(|_| batch_idx < self.n_batches()).ok_or_else(|| {
            DataError::Request(format!("batch {batch_idx} was asked for; an epoch has {}", self.n_batches()))
        })?;
        self.view(samples, self.view_of(epoch))
    }

    /// The view of its samples that an epoch has.
    pub fn view_of(&self, epoch: u64) -> u64 {
        self.options.views.map_or(epoch, |n_views| epoch % n_views.max(1))
    }

    /// Any samples of the split, changed as the view has it: an epoch's number gives that epoch's changes.
    ///
    /// # Errors
    /// When there is no such sample, or one is longer than the length that was fixed.
    pub fn view(&self, samples: &[usize], view: u64) -> Result<Batch, DataError> {
        gather(&self.dataset, samples, Some((self, view)))
    }

    fn padded(&self, longest: usize) -> Result<usize, DataError> {
        match self.options.length {
            Length::Batch => Ok(longest),
            Length::Multiple(multiple) => Ok(longest.next_multiple_of(multiple)),
            Length::Longest => Ok(self.longest.unwrap_or(longest)),
            Length::Fixed(length) if longest > length => Err(DataError::Request(format!(
                "a sample has the length {longest}, but batches the length {length}; give {longest} or more"
            ))),
            Length::Fixed(length) => Ok(length),
        }
    }

    /// Another sample of the split and the share of this one, where samples are mixed.
    fn partner(&self, sample: usize, view: u64) -> Option<(usize, f32)> {
        let alpha = self.options.augment.iter().find_map(|augmentation| match augmentation {
            Augmentation::Mixup { alpha } => Some(*alpha),
            _ => None,
        })?;
        let mut random = random::stream(self.options.seed, Purpose::Mixup, view, wide(sample));
        let all = self.dataset.samples(self.split);
        let partner = all.get(random.random_range(0..all.len())).copied()?;
        Some((partner, augment::mixing_share(alpha, &mut random)))
    }
}

/// The samples of both in one order in which every stretch has both in their proportion.
fn evenly(one: &[usize], other: &[usize]) -> Vec<usize> {
    let n = one.len() + other.len();
    let (mut ones, mut others) = (one.iter(), other.iter());
    let is_other = |idx: usize| (idx + 1) * other.len() / n > idx * other.len() / n;
    (0..n).filter_map(|idx| if is_other(idx) { others.next() } else { ones.next() }).copied().collect()
}

/// How many unlabelled samples there may be for each labelled one.
pub(crate) const MOST_UNLABELLED: f64 = 1_000.0;

/// How many batches samples are sorted over by length.
const BATCHES_A_WINDOW: usize = 50;

/// The batches of an epoch. An error ends them.
pub struct Batches(Reading);

enum Reading {
    Here(Box<dyn Iterator<Item = Result<Batch, DataError>> + Send>),
    Ahead { receiver: Option<Receiver<Result<Batch, DataError>>>, thread: Option<JoinHandle<()>> },
}

impl Iterator for Batches {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Result<Batch, DataError>> {
        match &mut self.0 {
            Reading::Here(batches) => {
                let next = batches.next();
                if let Some(Err(_)) = next {
                    *batches = Box::new(std::iter::empty());
                }
                next
            }
            Reading::Ahead { receiver, thread } => match receiver.as_ref()?.recv() {
                Ok(batch) => Some(batch),
                Err(_) => {
                    *receiver = None;
                    thread.take()?.join().is_err().then_some(Err(DataError::Panicked))
                }
            },
        }
    }
}

impl Drop for Batches {
    /// Ends the thread: without a receiver its next batch goes nowhere.
    fn drop(&mut self) {
        if let Reading::Ahead { receiver, thread } = &mut self.0 {
            *receiver = None;
            if let Some(thread) = thread.take() {
                // Whether it panicked no longer matters to anybody.
                let _ = thread.join();
            }
        }
    }
}

/// The first input that can be normalised and augmented.
fn quantities(dataset: &Dataset) -> Option<(&str, &Column)> {
    dataset.inputs().find(|(_, column)| {
        let is_numbers = matches!(column.kind, Kind::Numbers { .. });
        is_numbers && (column.normalization.is_some() || column.values.dtype() == DType::F32)
    })
}

/// The length of a sample, where samples have several.
fn length(dataset: &Dataset, sample: usize) -> Option<usize> {
    dataset.inputs().filter_map(|(_, column)| column.ragged_length(sample)).max()
}

/// These samples, and with a loader their changes in a view.
pub(super) fn gather(dataset: &Dataset, samples: &[usize], view: Option<(&Loader, u64)>) -> Result<Batch, DataError> {
    if let Some(sample) = samples.iter().find(|&&sample| sample >= dataset.n_samples()) {
        return Err(DataError::Request(format!("sample {sample} was asked for; there are {}", dataset.n_samples())));
    }
    let changed = view.filter(|view| !view.0.options.augment.is_empty());
    let changed_name = quantities(dataset).map(|(name, _)| name);
    let mut batch = Batch::with_capacity(dataset.columns().len());
    for (name, column) in dataset.columns() {
        let change = changed.filter(|_| Some(name.as_str()) == changed_name);
        let tensor = match (name.as_str(), changed) {
            (LABEL, Some((loader, view))) => mixed_labels(dataset, column, samples, loader, view)?,
            _ if column.dtype() == DType::F32 => numbers(column, samples, view.map(|view| view.0), change)?,
            _ => codes(column, samples, view.map(|view| view.0))?,
        };
        batch.insert(name.clone(), tensor);
    }
    Ok(batch)
}

/// The shape of a batch, and the elements of a padded sample.
fn batch_shape(column: &Column, samples: &[usize], loader: Option<&Loader>) -> Result<(Vec<usize>, usize), DataError> {
    let mut shape = column.values.sample_shape(samples.first().copied().unwrap_or(0)).to_vec();
    if let Some(longest) = samples.iter().filter_map(|&sample| column.ragged_length(sample)).max() {
        let padded = loader.map_or(Ok(longest), |loader| loader.padded(longest))?;
        shape.splice(..shape.len().min(1), [padded]);
    }
    let size = shape.iter().product();
    let mut shape = column.shape.clone().unwrap_or(shape);
    shape.insert(0, samples.len());
    Ok((shape, size))
}

fn numbers(
    column: &Column,
    samples: &[usize],
    loader: Option<&Loader>,
    change: Option<(&Loader, u64)>,
) -> Result<Tensor, DataError> {
    let (shape, size) = batch_shape(column, samples, loader)?;
    let mut elements: Vec<f32> = Vec::with_capacity(samples.len().saturating_mul(size));
    let mut scratch = Vec::new();
    let mut other = Vec::new();
    for &sample in samples {
        let start = elements.len();
        match change {
            None => column.push(sample, &mut elements)?,
            Some((loader, view)) => {
                push_changed(column, sample, loader, view, &mut elements, &mut scratch)?;
                if let Some((partner, share)) = loader.partner(sample, view) {
                    other.clear();
                    push_changed(column, partner, loader, view, &mut other, &mut scratch)?;
                    mix(&mut elements[start..], &other, share);
                }
                if let Some(normalization) = column.normalization().filter(|_| column.is_raw) {
                    normalization.undo(&mut elements[start..]);
                }
            }
        }
        column.pad(start, start + size, &mut elements);
    }
    Ok(Tensor::new(&shape, elements)?)
}

fn mix(to: &mut [f32], other: &[f32], share: f32) {
    to.iter_mut().zip(other).for_each(|(x, y)| *x = share * *x + (1.0 - share) * y);
}

fn push_changed(
    column: &Column,
    sample: usize,
    loader: &Loader,
    view: u64,
    out: &mut Vec<f32>,
    scratch: &mut Vec<f32>,
) -> Result<(), DataError> {
    let start = out.len();
    column.push_normalized(sample, out)?;
    let channels_last = matches!(column.kind, Kind::Numbers { channels_last: true, .. });
    let shape = column.values.sample_shape(sample);
    let layout = Layout { shape, channels_last, normalization: column.normalization() };
    let mut random = random::stream(loader.options.seed, Purpose::Augment, view, wide(sample));
    augment::apply(&loader.options.augment, &mut out[start..], layout, &mut random, scratch);
    Ok(())
}

fn codes(column: &Column, samples: &[usize], loader: Option<&Loader>) -> Result<Tensor, DataError> {
    let (shape, size) = batch_shape(column, samples, loader)?;
    if let Values::Dense(tensor) = &column.values {
        let bytes: Vec<u8> = samples.iter().flat_map(|&sample| column.values.sample_bytes(sample)).copied().collect();
        return Ok(Tensor::from_bytes(tensor.dtype(), &shape, bytes.into())?);
    }
    let Kind::Codes { pad } = column.kind else {
        return Err(DataError::Request("samples of several lengths are neither numbers nor codes".to_owned()));
    };
    padded(column, samples, pad, &shape, size)
}

fn padded<T: Element>(
    column: &Column,
    samples: &[usize],
    pad: T,
    shape: &[usize],
    size: usize,
) -> Result<Tensor, DataError> {
    let mut elements: Vec<T> = Vec::with_capacity(samples.len().saturating_mul(size));
    for &sample in samples {
        let end = elements.len() + size;
        elements.extend_from_slice(column.values.sample::<T>(sample)?);
        elements.resize(end, pad);
    }
    Ok(Tensor::new(shape, elements)?)
}

/// Labels as they are, or where samples are mixed f32 [n, classes] with the share of each.
fn mixed_labels(
    dataset: &Dataset,
    column: &Column,
    samples: &[usize],
    loader: &Loader,
    view: u64,
) -> Result<Tensor, DataError> {
    let is_mixed = loader.options.augment.iter().any(|it| matches!(it, Augmentation::Mixup { .. }));
    let is_classes = !dataset.classes().is_empty();
    if !is_mixed {
        return if is_classes { codes(column, samples, None) } else { numbers(column, samples, None, None) };
    }
    let width = if is_classes { dataset.classes().len() } else { batch_shape(column, samples, None)?.1 };
    let mut elements = Vec::with_capacity(samples.len().saturating_mul(width));
    let row = |sample: usize| -> Result<Vec<f32>, DataError> {
        match dataset.class(sample) {
            Some(class) => Ok((0..width).map(|idx| if idx == class { 1.0 } else { 0.0 }).collect()),
            None => Ok(column.values.sample::<f32>(sample)?.to_vec()),
        }
    };
    for &sample in samples {
        let mut label = row(sample)?;
        if let Some((partner, share)) = loader.partner(sample, view) {
            mix(&mut label, &row(partner)?, share);
        }
        elements.extend(label);
    }
    Ok(Tensor::new(&[samples.len(), width], elements)?)
}
