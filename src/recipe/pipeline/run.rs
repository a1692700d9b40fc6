//! A recipe of several steps, carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::grammar::{DistillOptions, Pipeline, Step, StepPart, Student, StudentNetwork};
use super::ledger::{Ledger, Line, Speed};
use super::teacher;
use crate::compress::distill::objective::{Ends, Teacher, WithObjectives, attach, pairing, tensor_types};
use crate::compress::distill::student::{Size, derive};
use crate::compress::distill::targets::{Key, targets};
use crate::compress::distill::{DistillError, Distillation, Source};
use crate::data::{Augmentation, Dataset, Length, Loader, LoaderOptions, Split};
use crate::graph::shape::{Bindings, infer};
use crate::graph::{Model, Name};
use crate::learn::train::diagnosis::Epoch;
use crate::learn::train::fit::{self, Flow, Guide, State, StepReport, Task, TrainOptions, fit_with};
use crate::learn::train::{TrainError, checkpoint};
use crate::measure::latency::{self, Contender, interleaved, timed};
use crate::measure::runtime::{ModelBytes, Options, Runtime, RuntimeError};
use crate::onnx;
use crate::recipe::evaluate::{Evaluation, evaluate, feeds};
use crate::recipe::train::{network, output};
use crate::recipe::{ModelPart, RecipeError, normalization};
use crate::store;

/// How a recipe is carried out.
#[derive(Clone, Copy)]
pub struct RunOptions<'a> {
    /// Where networks and the ledger are written.
    pub folder: &'a Path,
    /// Whether a training that was stopped goes on; else it begins again.
    pub resume: bool,
    /// The only step to be done, by its name in the ledger; those before it must have been.
    pub only: Option<&'a str>,
    /// What measures; the first tells which network agrees with its teacher.
    pub runtimes: &'a [&'a dyn Runtime],
    /// Decisions to be taken from another run.
    pub replay: Option<&'a Ledger>,
    /// How a network's speed is measured on each runtime.
    pub latency: latency::Options,
}

/// Who is told how a run goes.
pub trait Watcher: fit::Observer {
    /// A step begins that takes so many epochs.
    fn begins(&mut self, _step: &str, _n_epochs: usize) {}

    /// So many rows of the teacher's values are there.
    fn targets(&mut self, _n_done: usize, _n_rows: usize) {}

    /// A step has ended; whether it had to be done.
    fn ended(&mut self, _line: &Line, _was_done: bool) {}
}

/// Nobody looks.
impl Watcher for () {}

/// Samples a batch of the teacher's, whatever the student's are.
const TARGETS_A_BATCH: usize = 64;

/// Carries a recipe out, and gives the ledger.
///
/// # Errors
/// When a part of the recipe cannot be carried out, or somebody stopped it; what was done is kept.
pub fn run(pipeline: &Pipeline, options: &RunOptions<'_>, watcher: &mut dyn Watcher) -> Result<Ledger, RecipeError> {
    let data = Arc::new(Dataset::load(&pipeline.data)?);
    let data_hash = data.sha256()?;
    let wanted = wanted(pipeline, options.only)?;
    let mut book = Book::open(options, pipeline, data, data_hash)?;
    let teacher = book.teacher(watcher)?;
    let mut made = BTreeMap::from([("teacher", teacher)]);
    for student in pipeline.students.iter().filter(|student| wanted.contains(student.name.as_str())) {
        let own = book.student(student, &made, watcher)?;
        made.insert(&student.name, own);
    }
    if options.only.is_none() {
        // lines of another recipe say nothing of this one
        let seen = std::mem::take(&mut book.seen);
        book.ledger.lines.retain(|line| seen.contains(&line.step));
        book.ledger.lines.sort_by_key(|line| seen.iter().position(|step| *step == line.step));
        book.ledger.write(options.folder)?;
    }
    Ok(book.ledger)
}

/// The students that a step needs: its own, and those that this one is made of and learns from; all where none is named.
fn wanted<'a>(pipeline: &'a Pipeline, only: Option<&str>) -> Result<BTreeSet<&'a str>, RecipeError> {
    let students = &pipeline.students;
    let Some(only) = only else { return Ok(students.iter().map(|student| student.name.as_str()).collect()) };
    let labels = students.iter().flat_map(|student| {
        let steps = pipeline.steps.iter().enumerate().map(|(idx, part)| label(&student.name, idx, &part.step));
        [student.name.clone()].into_iter().chain(steps).map(move |label| (label, student.name.as_str()))
    });
    let labels: Vec<(String, &str)> = labels.collect();
    if only == "teacher" {
        return Ok(BTreeSet::new());
    }
    let Some((_, name)) = labels.iter().find(|(label, _)| label == only) else {
        let known: Vec<&str> = labels.iter().map(|(label, _)| label.as_str()).collect();
        let problem = format!("is no step of the recipe; there are: teacher, {}", known.join(", "));
        return Err(RecipeError::Part { part: only.to_string(), problem });
    };
    let mut wanted = BTreeSet::from([*name]);
    for student in students.iter().rev() {
        if wanted.contains(student.name.as_str()) {
            wanted.insert(&student.teacher);
            if let StudentNetwork::Derived(options) = &student.network {
                wanted.insert(&options.from);
            }
        }
    }
    Ok(wanted)
}

/// What a step is called.
fn label(student: &str, idx: usize, step: &Step) -> String {
    format!("{student}.{}-{}", idx + 1, step.name())
}

/// A network that a step made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) model: Model,
    pub(super) sha256: String,
    output: Name,
}

/// What came of a training.
struct Fitted {
    model: Model,
    line: Line,
}

/// A run on its way.
pub(super) struct Book<'a> {
    pub(super) options: &'a RunOptions<'a>,
    pipeline: &'a Pipeline,
    data: Arc<Dataset>,
    data_hash: String,
    ledger: Ledger,
    /// The steps so far.
    seen: Vec<String>,
    /// By what was decided.
    decisions: BTreeMap<String, String>,
    /// Those that the step at work depends on.
    used: BTreeMap<String, String>,
    /// What the teacher says of the test split.
    predictions: Option<Vec<usize>>,
}

impl<'a> Book<'a> {
    fn open(
        options: &'a RunOptions<'a>,
        pipeline: &'a Pipeline,
        data: Arc<Dataset>,
        data_hash: String,
    ) -> Result<Book<'a>, RecipeError> {
        let ledger = Ledger::of_folder(options.folder)?;
        let mut decisions = BTreeMap::new();
        let kept = options.folder.join("decisions.json");
        if kept.exists() {
            let wrong =
                |error: serde_json::Error| RecipeError::Ledger { path: kept.clone(), problem: error.to_string() };
            decisions = serde_json::from_slice(&store::read(&kept)?).map_err(wrong)?;
        }
        let (seen, used) = (Vec::new(), BTreeMap::new());
        Ok(Book { options, pipeline, data, data_hash, ledger, seen, decisions, used, predictions: None })
    }

    /// What another run decided, and what this one did before.
    pub(super) fn decision(&self, name: &str) -> Option<&str> {
        let replayed =
            self.options.replay.and_then(|ledger| ledger.lines.iter().find_map(|line| line.decisions.get(name)));
        replayed.or_else(|| self.decisions.get(name)).map(String::as_str)
    }

    /// Keeps a decision before anything is computed that depends on it.
    pub(super) fn decide(&mut self, name: &str, value: &str) -> Result<(), RecipeError> {
        self.used.insert(name.to_string(), value.to_string());
        if self.decisions.insert(name.to_string(), value.to_string()).as_deref() == Some(value) {
            return Ok(());
        }
        let text = serde_json::to_vec(&self.decisions).expect("texts are JSON");
        Ok(store::write_atomic(&self.options.folder.join("decisions.json"), &text)?)
    }

    fn teacher(&mut self, watcher: &mut dyn Watcher) -> Result<Made, RecipeError> {
        let pipeline = self.pipeline;
        let part = &pipeline.teacher;
        let source = part.model.onnx.as_ref().map(|path| pipeline.folder.join(path));
        let file = source.as_deref().map(store::sha256_of_file).transpose()?.unwrap_or_default();
        let key = self.key(&["teacher", &part.text, &file]);
        let made = self.step("teacher", &key, watcher, |book, line, watcher| {
            let model = network(&pipeline.name, &part.model, &pipeline.folder, &book.data, pipeline.seed)?;
            match &part.train {
                None => Ok(Fitted { model, line }),
                Some(train) => {
                    let output = output(&part.model, &model)?;
                    book.fit(line, &model, &output, None, train, watcher)
                }
            }
        })?;
        let output = output(&part.model, &made.0)?;
        Ok(Made { model: made.0, sha256: made.1, output })
    }

    /// A student after all its steps; `before` are those that it may be made of and learn from.
    fn student(
        &mut self,
        student: &Student,
        before: &BTreeMap<&str, Made>,
        watcher: &mut dyn Watcher,
    ) -> Result<Made, RecipeError> {
        let pipeline = self.pipeline;
        let Student { name, network: begins, text, .. } = student;
        let known = |name: &str| before.get(name).expect("the grammar lets those be named that come before");
        let teacher = known(&student.teacher);
        let source = match begins {
            StudentNetwork::Derived(options) => Some(known(&options.from)),
            StudentNetwork::Own(_) => None,
        };
        let file = match begins {
            StudentNetwork::Own(ModelPart { onnx: Some(path), .. }) => {
                store::sha256_of_file(&pipeline.folder.join(path))?
            }
            StudentNetwork::Own(_) => String::new(),
            StudentNetwork::Derived(_) => source.map(|source| source.sha256.clone()).unwrap_or_default(),
        };
        let key = self.key(&["student", name, text, &file]);
        let (mut model, mut sha256) = self.step(name, &key, watcher, |book, line, _| {
            let model = match begins {
                StudentNetwork::Derived(options) => {
                    let source = source.expect("it is made of another");
                    let derived = derive(&source.model.graph, options, &Bindings::default(), pipeline.seed)?;
                    source.model.with_graph(derived.graph)
                }
                StudentNetwork::Own(own) => network(name, own, &pipeline.folder, &book.data, pipeline.seed)?,
            };
            Ok(Fitted { model, line })
        })?;
        let output = match begins {
            StudentNetwork::Derived(_) => source.expect("it is made of another").output.clone(),
            StudentNetwork::Own(own) => output(own, &model)?,
        };
        for (idx, StepPart { step, text }) in pipeline.steps.iter().enumerate() {
            if self.is_done() {
                break;
            }
            let label = label(name, idx, step);
            let key = self.key(&["step", &label, text, &sha256, &output, &teacher.sha256, &teacher.output]);
            (model, sha256) = self.step(&label, &key, watcher, |book, line, watcher| match step {
                Step::Train(train) => book.fit(line, &model, &output, None, train, watcher),
                Step::Distill(options) => book.distill(line, (&model, &output), teacher, options, watcher),
            })?;
        }
        Ok(Made { model, sha256, output })
    }

    /// A hash of all that a step depends on.
    fn key(&self, parts: &[&str]) -> String {
        let seed = self.pipeline.seed.to_string();
        let augment = format!("{:?}", self.augment());
        let all = [&[env!("CARGO_PKG_VERSION"), &self.pipeline.name, &seed, &self.data_hash, &augment], parts].concat();
        store::sha256(all.join("\n").as_bytes())
    }

    /// Whether the only step that was asked for is behind.
    fn is_done(&self) -> bool {
        self.options.only.is_some_and(|only| self.seen.iter().any(|step| step == only))
    }

    fn augment(&self) -> &'a [Augmentation] {
        &self.pipeline.data.augment
    }

    /// A step's network and its hash: from its file, where the ledger has it, else as it is made and measured now.
    fn step(
        &mut self,
        name: &str,
        key: &str,
        watcher: &mut dyn Watcher,
        make: impl FnOnce(&mut Self, Line, &mut dyn Watcher) -> Result<Fitted, RecipeError>,
    ) -> Result<(Model, String), RecipeError> {
        self.seen.push(name.to_string());
        self.used.clear();
        let found = self.ledger.line(name).filter(|line| line.key == key).cloned();
        if let Some(line) = found {
            let path = self.options.folder.join(&line.file);
            if path.exists() && store::sha256_of_file(&path)? == line.sha256 {
                watcher.ended(&line, false);
                self.forget(name)?;
                return Ok((onnx::read(&path)?, line.sha256));
            }
        }
        if self.options.only.is_some_and(|only| only != name) {
            let problem = "has to be done first: leave out --only, or give its name".to_string();
            return Err(RecipeError::Part { part: name.to_string(), problem });
        }
        let (fitted, elapsed) = timed(|| make(self, Line::new(name, key), watcher));
        let Fitted { model, mut line } = fitted?;
        line.seconds = elapsed.as_secs_f64();
        let bytes = onnx::to_bytes(&model)?;
        line.sha256 = store::sha256(&bytes);
        line.bytes = bytes.len() as u64;
        let path = self.options.folder.join(&line.file);
        store::write_atomic(&path, &bytes)?;
        self.measure(&mut line, &model, &path)?;
        line.decisions = std::mem::take(&mut self.used);
        let sha256 = line.sha256.clone();
        watcher.ended(&line, true);
        self.ledger.put(line);
        self.ledger.write(self.options.folder)?;
        self.forget(name)?;
        Ok((model, sha256))
    }

    fn checkpoint(&self, step: &str) -> PathBuf {
        self.options.folder.join(format!("{step}.checkpoint"))
    }

    /// Removes what a step kept while it was not done.
    fn forget(&self, step: &str) -> Result<(), RecipeError> {
        let path = self.checkpoint(step);
        if path.exists() {
            std::fs::remove_file(&path).map_err(|source| RecipeError::Io { path, source })?;
        }
        Ok(())
    }

    /// Trains a network, with a guide where there is one.
    fn fit(
        &mut self,
        mut line: Line,
        model: &Model,
        output: &Name,
        guide: Option<&mut dyn Guide>,
        train: &TrainOptions,
        watcher: &mut dyn Watcher,
    ) -> Result<Fitted, RecipeError> {
        watcher.begins(&line.step, train.epochs);
        let path = self.checkpoint(&line.step);
        let mut state = None;
        if self.options.resume && path.exists() {
            match checkpoint::from_bytes(&store::read(&path)?, &line.key) {
                Ok(found) => state = Some(found),
                Err(error) => watcher.note(&format!("{}: {error}: the training begins anew", path.display())),
            }
        }
        let data = normalization::data_for(model, &self.data)?;
        let task = Task { graph: &model.graph, output, data: &data, augment: self.augment() };
        let mut keeper = Keeper { watcher, path: &path, key: &line.key };
        let fitted = fit_with(&task, guide, train, self.pipeline.seed, state, &mut keeper)?;
        let Some(graph) = fitted.network else {
            store::write_atomic(&path, &checkpoint::to_bytes(&fitted.state, &line.key)?)?;
            return Err(RecipeError::Stopped { step: line.step });
        };
        let best = fitted.state.best.and_then(|best| fitted.state.epochs.get(best).copied());
        // JSON has no other numbers
        let is_finite =
            |it: &Epoch| [it.train_loss, it.validation_loss, it.metric].iter().all(|number| number.is_finite());
        line.best = best.filter(is_finite);
        line.diagnosis = fitted.diagnosis;
        Ok(Fitted { model: model.with_graph(graph), line })
    }

    fn distill(
        &mut self,
        line: Line,
        (model, output): (&Model, &Name),
        teacher: &Made,
        options: &DistillOptions,
        watcher: &mut dyn Watcher,
    ) -> Result<Fitted, RecipeError> {
        let seed = self.pipeline.seed;
        let types = infer(&teacher.model.graph, &Bindings::default())?;
        let tensor_types = tensor_types(&teacher.model.graph, &types);
        let mix = pairing::resolve(&options.mix, (&model.graph, output), (&teacher.model.graph, &teacher.output))?;
        let facts = Teacher { ends: Ends::of(&teacher.model.graph, &teacher.output), types: &tensor_types };
        let student = attach(&model.graph, output, &facts, &mix, options.train.loss, seed)?;
        let source = self.source(&student, model, teacher, options, watcher)?;
        let mut distillation = Distillation { student, source };
        self.fit(line, model, output, Some(&mut distillation), &options.train, watcher)
    }

    /// Where the teacher's values come from.
    fn source(
        &mut self,
        student: &WithObjectives,
        model: &Model,
        teacher: &Made,
        options: &DistillOptions,
        watcher: &mut dyn Watcher,
    ) -> Result<Source, RecipeError> {
        let augment = self.augment().to_vec();
        let n_views = if augment.is_empty() { 1 } else { options.teacher.views };
        let loader = LoaderOptions {
            batch_size: TARGETS_A_BATCH,
            shuffle: true,
            seed: self.pipeline.seed,
            augment,
            length: Length::Longest,
            views: Some(n_views),
            ..LoaderOptions::default()
        };
        let data = normalization::data_for(&teacher.model, &self.data)?;
        let loader = Loader::new(&data, Split::Train, loader)?;
        let columns = teacher::columns(&teacher.model, &self.data);
        let values: Vec<Name> = student.teacher.iter().map(|input| input.value.clone()).collect();
        let runtime = teacher::decide(self, teacher, &values, &loader)?;
        if !options.teacher.cache {
            let [theirs, ours] = [&teacher.model, model].map(|model| model.about.metadata.get(normalization::KEY));
            if theirs != ours {
                let problem = "asks a teacher at work that takes other values than the student: leave `cache` out";
                return Err(RecipeError::Part { part: "step.distill".to_string(), problem: problem.to_string() });
            }
            let forward = teacher::open(runtime, &teacher.model, &values)?;
            let own = teacher::columns(model, &self.data);
            let ours = |column: &String| own.iter().find(|(other, _)| other == column).map(|(_, name)| name.clone());
            let inputs = columns.iter().filter_map(|(column, theirs)| Some((theirs.clone(), ours(column)?)));
            return Ok(Source::Live { teacher: forward, inputs: inputs.collect() });
        }
        let by = format!("{} on {} {}", teacher.sha256, runtime.name(), runtime.version());
        let key = Key { teacher: &by, data: &self.data_hash, n_views };
        let name = store::sha256(format!("{by} {n_views} {values:?}").as_bytes());
        let path = self.options.folder.join("cache").join(format!("targets-{}", &name[..16]));
        let open = |values: &[Name]| {
            let opened = teacher::open(runtime, &teacher.model, values);
            opened.map_err(|error| match error {
                RecipeError::Distill(error) => error,
                other => DistillError::Target {
                    value: teacher.output.clone(),
                    problem: other.to_string(),
                    remedy: "give a teacher that a runtime takes",
                },
            })
        };
        let told = |n_done, n_rows| watcher.targets(n_done, n_rows);
        let targets = targets(&path, &key, &student.teacher, &loader, &columns, open, told)?;
        Ok(Source::Kept { targets, n_views })
    }

    /// What a network is worth and what it costs, on the bytes that were written.
    fn measure(&mut self, line: &mut Line, model: &Model, path: &Path) -> Result<(), RecipeError> {
        let size = Size::of(&model.graph, &Bindings::default())?;
        (line.parameters, line.macs) = (size.parameters, size.macs);
        let bytes = ModelBytes::new(store::read(path)?).at(path);
        if !self.data.classes().is_empty() {
            line.validation = self.scored(&bytes, Split::Validation)?;
            line.test = self.scored(&bytes, Split::Test)?;
        }
        let said = line.test.first().map(|test| test.predictions.clone());
        if line.step == "teacher" {
            self.predictions = said;
        } else if let Some(said) = said {
            let theirs = self.teacher_predictions()?;
            let n_same = said.iter().zip(theirs).filter(|(a, b)| a == b).count();
            line.agreement = Some(n_same as f64 / said.len().max(1) as f64);
        }
        line.speed = self.speed(&bytes, &line.step)?;
        Ok(())
    }

    fn scored(&self, bytes: &ModelBytes, split: Split) -> Result<Vec<Evaluation>, RecipeError> {
        if self.data.samples(split).is_empty() {
            return Ok(Vec::new());
        }
        self.options.runtimes.iter().map(|runtime| evaluate(*runtime, bytes, &self.data, split, 64)).collect()
    }

    fn teacher_file(&self) -> Result<ModelBytes, RecipeError> {
        let path = self.options.folder.join("teacher.onnx");
        Ok(ModelBytes::new(store::read(&path)?).at(path))
    }

    fn teacher_predictions(&mut self) -> Result<&[usize], RecipeError> {
        if self.predictions.is_none() {
            let file = self.teacher_file()?;
            let first = self.options.runtimes.first().copied();
            let scored = first.map(|runtime| evaluate(runtime, &file, &self.data, Split::Test, 64)).transpose()?;
            self.predictions = Some(scored.map(|scored| scored.predictions).unwrap_or_default());
        }
        Ok(self.predictions.as_deref().unwrap_or_default())
    }

    /// One sample at a time, in turns with the teacher.
    fn speed(&self, bytes: &ModelBytes, step: &str) -> Result<Vec<Speed>, RecipeError> {
        let split = if self.data.samples(Split::Test).is_empty() { Split::Train } else { Split::Test };
        let sample = &self.data.samples(split)[..1];
        let teacher = if step == "teacher" { None } else { Some(self.teacher_file()?) };
        let mut files = Vec::new();
        for bytes in teacher.iter().chain([bytes]) {
            let read = onnx::read_bytes(bytes.bytes().clone(), bytes.folder())?;
            files.push((bytes, normalization::data_for(&read, &self.data)?.batch(sample)?));
        }
        let mut speeds = Vec::new();
        for runtime in self.options.runtimes {
            let mut contenders = Vec::new();
            for (bytes, batch) in &files {
                let mut session = runtime.load(bytes, &Options::default())?;
                let feeds = feeds(session.inputs(), batch, &self.data)?;
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

/// Keeps a training after every epoch, and passes on what is seen of it.
struct Keeper<'a> {
    watcher: &'a mut dyn Watcher,
    path: &'a Path,
    key: &'a str,
}

impl fit::Observer for Keeper<'_> {
    fn step(&mut self, report: &StepReport) -> Flow {
        self.watcher.step(report)
    }

    fn epoch(&mut self, epoch: &Epoch, state: &State) -> Result<(), TrainError> {
        let bytes = checkpoint::to_bytes(state, self.key)?;
        store::write_atomic(self.path, &bytes).map_err(|error| TrainError::Task {
            problem: error.to_string(),
            remedy: "make room on the disk, then --resume",
        })?;
        self.watcher.epoch(epoch, state)
    }

    fn note(&mut self, note: &str) {
        self.watcher.note(note);
    }
}
