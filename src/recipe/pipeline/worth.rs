//! What a network is worth and what it costs, on the bytes that were written.

use super::ledger::{Line, Speed};
use super::matter::Matter;
use super::run::{Book, Made};
use crate::compress::distill::student::Size;
use crate::data::Split;
use crate::graph::Name;
use crate::graph::shape::Bindings;
use crate::learn::train::attack::{self, Attack};
use crate::learn::train::fit::Task;
use crate::measure::latency::{Contender, interleaved};
use crate::measure::runtime::{ModelBytes, Options, RuntimeError, batch_size};
use crate::onnx;
use crate::recipe::evaluate::{Evaluation, evaluate, evaluate_on, feeds, predict};
use crate::recipe::{RecipeError, normalization};
use crate::store;

/// Training samples that are enough to tell how well a network knows them.
const MOST_TRAIN_SAMPLES: usize = 5_000;

impl Book<'_> {
    /// Fills in a line; `teacher` is what a student of this matter is set beside.
    pub(super) fn measure(
        &mut self,
        line: &mut Line,
        made: &Made,
        matter: &Matter,
        teacher: Option<&Made>,
    ) -> Result<(), RecipeError> {
        line.beside = self.beside(teacher);
        let size = Size::of(&made.model.graph, &Bindings::default())?;
        (line.parameters, line.macs) = (size.parameters, size.macs);
        let path = self.options.folder.join(&line.file);
        let bytes = ModelBytes::new(store::read(&path)?).at(&path);
        if !matter.data.classes().is_empty() {
            let output = &made.output;
            line.validation = self.scored(&bytes, output, matter, Split::Validation)?;
            line.test = self.scored(&bytes, output, matter, Split::Test)?;
            line.train_accuracy = self.train_accuracy(&bytes, output, matter)?;
            line.attacked = match self.attacked(made, matter) {
                // a teacher need not be one that the engine has gradients of
                Err(error) if teacher.is_none() => {
                    tracing::warn!("`{}` is not attacked: {error}", line.step);
                    None
                }
                attacked => attacked?,
            };
        }
        match (teacher, line.test.first()) {
            (Some(teacher), Some(said)) => {
                let theirs = self.said(teacher, matter)?;
                let n_same = said.predictions.iter().zip(theirs).filter(|(a, b)| a == b).count();
                line.agreement = Some(n_same as f64 / said.predictions.len().max(1) as f64);
            }
            // students will be set beside it
            (None, Some(said)) => drop(self.said.insert(whose(made, matter), said.predictions.clone())),
            (_, None) => {}
        }
        line.speed = self.speed(&bytes, matter, &line.step, teacher.is_some())?;
        Ok(())
    }

    /// A hash of what a network is set beside.
    pub(super) fn beside(&self, teacher: Option<&Made>) -> String {
        let teacher = teacher.map(|teacher| teacher.sha256.as_str());
        let attack = self.attack().map(|attack| (attack, self.pipeline.seed));
        store::sha256(format!("{teacher:?} {attack:?}").as_bytes())
    }

    /// The attack that networks are put to: the first that a step learns from.
    fn attack(&self) -> Option<Attack> {
        self.pipeline.steps.iter().find_map(|part| part.step.train()?.attack)
    }

    fn scored(
        &self,
        bytes: &ModelBytes,
        output: &Name,
        matter: &Matter,
        split: Split,
    ) -> Result<Vec<Evaluation>, RecipeError> {
        if matter.data.samples(split).is_empty() {
            return Ok(Vec::new());
        }
        self.options.runtimes.iter().map(|runtime| evaluate(*runtime, bytes, output, &matter.data, split)).collect()
    }

    /// The accuracy on training samples as they are, on the first runtime.
    fn train_accuracy(&self, bytes: &ModelBytes, output: &Name, matter: &Matter) -> Result<Option<f64>, RecipeError> {
        let data = &matter.data;
        let labelled = data.samples(Split::Train).iter().copied().filter(|&sample| data.class(sample).is_some());
        let labelled: Vec<usize> = labelled.collect();
        let stride = labelled.len().div_ceil(MOST_TRAIN_SAMPLES).max(1);
        let some: Vec<usize> = labelled.into_iter().step_by(stride).collect();
        let first = self.options.runtimes.first().filter(|_| !some.is_empty());
        let scored = first.map(|runtime| evaluate_on(*runtime, bytes, output, data, &some)).transpose()?;
        Ok(scored.map(|scored| scored.accuracy))
    }

    /// The accuracy on attacked samples, where a step learns from such.
    fn attacked(&self, made: &Made, matter: &Matter) -> Result<Option<f64>, RecipeError> {
        let Some(attack) = self.attack().filter(|_| !matter.data.samples(Split::Test).is_empty()) else {
            return Ok(None);
        };
        let data = normalization::data_for(&made.model, &matter.data)?;
        let task = Task { graph: &made.model.graph, output: &made.output, data: &data, augment: &[] };
        Ok(Some(attack::accuracy(&task, Split::Test, &attack, 64, self.pipeline.seed)?))
    }

    /// What a teacher says of the test split, on the first runtime.
    fn said(&mut self, teacher: &Made, matter: &Matter) -> Result<&[usize], RecipeError> {
        let key = whose(teacher, matter);
        if !self.said.contains_key(&key) {
            let file = ModelBytes::new(onnx::to_bytes(&teacher.model)?);
            let first = self.options.runtimes.first();
            let samples = matter.data.samples(Split::Test);
            let said = first.map(|runtime| predict(*runtime, &file, &teacher.output, &matter.data, samples));
            self.said.insert(key.clone(), said.transpose()?.unwrap_or_default());
        }
        Ok(self.said.get(&key).map_or(&[], Vec::as_slice))
    }

    /// One sample at a time, or one batch of a network of one batch size, in turns with the teacher's file where there is one.
    fn speed(
        &self,
        bytes: &ModelBytes,
        matter: &Matter,
        step: &str,
        has_teacher: bool,
    ) -> Result<Vec<Speed>, RecipeError> {
        let split = if matter.data.samples(Split::Test).is_empty() { Split::Train } else { Split::Test };
        let samples = matter.data.samples(split);
        let path = self.options.folder.join("teacher.onnx");
        let teacher = if has_teacher { Some(ModelBytes::new(store::read(&path)?).at(path)) } else { None };
        let mut files = Vec::new();
        for bytes in teacher.iter().chain([bytes]) {
            let read = onnx::read_bytes(bytes.bytes().clone(), bytes.folder())?;
            files.push((bytes, normalization::data_for(&read, &matter.data)?));
        }
        let mut speeds = Vec::new();
        for runtime in self.options.runtimes {
            let mut contenders = Vec::new();
            for (bytes, data) in &files {
                let mut session = runtime.load(bytes, &Options::default())?;
                let size = batch_size(session.as_ref()).unwrap_or(1);
                let some: Vec<usize> = samples.iter().cycle().take(size).copied().collect();
                let feeds = feeds(session.inputs(), &data.batch(&some)?, data)?;
                let run = move || session.run(&feeds).map(|_| ());
                contenders.push(Contender::<RuntimeError> { label: step.to_string(), run: Box::new(run) });
            }
            let measured = interleaved(&mut contenders, &self.options.latency, &mut |_| ())?;
            speeds.extend(measured.last().map(|last| Speed {
                runtime: runtime.name().to_string(),
                version: runtime.version(),
                median_us: last.median_us,
                p95_us: last.p95_us,
                n: last.n,
                ratio_to_teacher: last.ratio_to_first,
            }));
        }
        Ok(speeds)
    }
}

/// The key of what a network says of a test split.
fn whose(made: &Made, matter: &Matter) -> String {
    format!("{} {}", made.sha256, matter.hash)
}
