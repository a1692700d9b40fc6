//! A recipe of several steps, carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::grammar::{DistillOptions, Pipeline, Step, StepPart, Student, StudentNetwork};
use super::ledger::{Ledger, Line};
use super::matter::{Matter, specialist};
use super::teacher;
use crate::compress::distill::objective::{Ends, Teacher, WithObjectives, attach, pairing, tensor_types};
use crate::compress::distill::student::derive;
use crate::compress::distill::targets::{Key, targets};
use crate::compress::distill::{DistillError, Distillation, Source};
use crate::compress::prune::sparse::Sparsifier;
use crate::data::{Augmentation, Dataset, Length, Loader, LoaderOptions, Split};
use crate::graph::shape::{Bindings, infer};
use crate::graph::{Model, Name};
use crate::learn::train::diagnosis::Epoch;
use crate::learn::train::fit::{self, Editor, Flow, Guide, State, StepReport, Task, TrainOptions, fit_with};
use crate::learn::train::{TrainError, checkpoint};
use crate::measure::latency::{self, timed};
use crate::measure::runtime::Runtime;
use crate::onnx;

use crate::recipe::prune::keeper_of_zeros;
use crate::recipe::train::{network, output};
use crate::recipe::{ModelPart, RecipeError, normalization, probe};
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
    fn targets(&mut self, _n_done: usize, _n_rows: usize) -> Flow {
        Flow::Continue
    }

    /// A step has ended; whether it had to be done.
    fn ended(&mut self, _line: &Line, _was_done: bool) {}
}

/// Nobody looks.
impl Watcher for () {}

/// Where a written network's metadata says how it came about.
const PROVENANCE: &str = "aludel.provenance";

/// Samples a batch of the teacher's, whatever the student's are.
const TARGETS_A_BATCH: usize = 64;

/// Carries a recipe out, and gives the ledger.
///
/// # Errors
/// When a part of the recipe cannot be carried out, or somebody stopped it; what was done is kept.
pub fn run(pipeline: &Pipeline, options: &RunOptions<'_>, watcher: &mut dyn Watcher) -> Result<Ledger, RecipeError> {
    let wanted = wanted(pipeline, options.only)?;
    let matter = Matter::of(pipeline)?;
    let mut book = Book::open(options, pipeline)?;
    let mut made = book.teachers(&matter, watcher)?;
    for student in pipeline.students.iter().filter(|student| wanted.contains(student.name.as_str())) {
        let own = book.student(student, &made, &matter, watcher)?;
        made.insert(student.name.clone(), own);
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
    let mut teachers = pipeline.teachers.iter().map(|teacher| teacher.label.as_str());
    if only == "teacher" || teachers.any(|label| label == only) {
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
    pub(super) output: Name,
    /// Whether a step brought weights to zero, where later ones keep them.
    pub(super) keeps_zeros: bool,
}

impl Made {
    /// Who holds the zeros of a network that it has become while that learns.
    pub(super) fn keeper(&self, model: &Model) -> Result<Option<Sparsifier>, RecipeError> {
        if self.keeps_zeros { keeper_of_zeros(model) } else { Ok(None) }
    }
}

/// What came of a step.
pub(super) struct Fitted {
    pub(super) model: Model,
    pub(super) output: Name,
    pub(super) line: Line,
}

/// A step that is due.
pub(super) struct Due<'b> {
    name: &'b str,
    /// What its draws depend on.
    seed: u64,
    /// A hash of all that it depends on.
    key: String,
    /// The hash of the network that it begins with, and of that which teaches.
    made_of: Option<String>,
    /// See `made_of`.
    teacher: Option<String>,
}

/// A training that is due.
#[derive(Clone, Copy)]
pub(super) struct Course<'b> {
    pub(super) model: &'b Model,
    pub(super) output: &'b Name,
    pub(super) data: &'b Arc<Dataset>,
    pub(super) augment: &'b [Augmentation],
    pub(super) train: &'b TrainOptions,
    pub(super) seed: u64,
    /// Who holds weights at zero while they learn.
    pub(super) sparsifier: Option<&'b Sparsifier>,
}

/// The places of names among the classes.
fn places(names: &[String], classes: &[String]) -> Result<Vec<usize>, RecipeError> {
    let place = |name: &String| {
        classes.iter().position(|class| class == name).ok_or_else(|| RecipeError::Part {
            part: "student.classes".to_string(),
            problem: format!("has `{name}`; the data has {}", classes.join(", ")),
        })
    };
    names.iter().map(place).collect()
}

/// A run on its way.
pub(super) struct Book<'a> {
    pub(super) options: &'a RunOptions<'a>,
    pub(super) pipeline: &'a Pipeline,
    ledger: Ledger,
    /// The steps so far.
    seen: Vec<String>,
    /// By what was decided.
    decisions: BTreeMap<String, String>,
    /// Those that the step at work depends on.
    used: BTreeMap<String, String>,
    /// What teachers say of test splits, by teacher and data.
    pub(super) said: BTreeMap<String, Vec<usize>>,
}

impl<'a> Book<'a> {
    fn open(options: &'a RunOptions<'a>, pipeline: &'a Pipeline) -> Result<Book<'a>, RecipeError> {
        let ledger = Ledger::of_folder(options.folder)?;
        let mut decisions = BTreeMap::new();
        let kept = options.folder.join("decisions.json");
        if kept.exists() {
            let wrong =
                |error: serde_json::Error| RecipeError::Ledger { path: kept.clone(), problem: error.to_string() };
            decisions = serde_json::from_slice(&store::read(&kept)?).map_err(wrong)?;
        }
        let (seen, used, said) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Book { options, pipeline, ledger, seen, decisions, used, said })
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

    /// A student after all its steps; `before` are those that it may be made of and learn from.
    fn student(
        &mut self,
        student: &Student,
        before: &BTreeMap<String, Made>,
        matter: &Matter,
        watcher: &mut dyn Watcher,
    ) -> Result<Made, RecipeError> {
        let pipeline = self.pipeline;
        let Student { name, network: begins, text, .. } = student;
        let known = |name: &str| before.get(name).expect("the grammar lets those be named that come before");
        let all = known("teacher");
        let classes = student.classes.as_ref().map(|names| places(names, matter.data.classes())).transpose()?;
        let narrow = |made: &Made| match &classes {
            Some(classes) => specialist(made, classes),
            None => Ok(made.clone()),
        };
        let matter = match &classes {
            Some(classes) => {
                let runtime = self.options.runtimes.first().copied().ok_or_else(teacher::nobody)?;
                &matter.for_specialist(classes, all, runtime, &self.options.folder.join("cache"))?
            }
            None => matter,
        };
        let (all, teacher) = (&narrow(all)?, &narrow(known(&student.teacher))?);
        let source = match begins {
            StudentNetwork::Derived(options) => Some(narrow(known(&options.from))?),
            StudentNetwork::Own(_) => None,
        };
        let file = match begins {
            StudentNetwork::Own(ModelPart { onnx: Some(path), .. }) => {
                store::sha256_of_file(&pipeline.folder.join(path))?
            }
            StudentNetwork::Own(_) => String::new(),
            StudentNetwork::Derived(_) => source.as_ref().map(|source| source.sha256.clone()).unwrap_or_default(),
        };
        let mut due = self.due(name, pipeline.seed, matter, &["student", name, text, &file]);
        due.made_of = Some(file).filter(|file| !file.is_empty());
        let mut made = self.step(&due, matter, Some(all), watcher, |_, line, _| {
            let (model, output) = match begins {
                StudentNetwork::Derived(options) => {
                    let source = source.as_ref().expect("it is made of another");
                    let derived = derive(&source.model.graph, options, &Bindings::default(), pipeline.seed)?;
                    (source.model.with_graph(derived.graph), source.output.clone())
                }
                StudentNetwork::Own(own) => {
                    let model = network(name, own, &pipeline.folder, &matter.data, pipeline.seed)?;
                    let output = output(own, &model)?;
                    (model, output)
                }
            };
            Ok(Fitted { model, output, line })
        })?;
        for (idx, StepPart { step, text }) in pipeline.steps.iter().enumerate() {
            if self.is_done() {
                break;
            }
            let label = label(name, idx, step);
            let data = if step.unlabelled() > 0.0 { matter.hash_with_unlabelled.as_str() } else { "" };
            let parts = ["step", &label, text, &made.sha256, &made.output, &teacher.sha256, &teacher.output, data];
            let mut due = self.due(&label, pipeline.seed, matter, &parts);
            due.made_of = Some(made.sha256.clone());
            due.teacher = step.distill().map(|options| match options.teacher.mean_teacher {
                true => "the student's average".to_string(),
                false => teacher.sha256.clone(),
            });
            let keeps_zeros = made.keeps_zeros || step.makes_zeros();
            let next = self.step(&due, matter, Some(all), watcher, |book, line, watcher| {
                let keeper = made.keeper(&made.model)?;
                let course = |train| Course {
                    model: &made.model,
                    output: &made.output,
                    data: &matter.data,
                    augment: book.augment(),
                    train,
                    seed: pipeline.seed,
                    sparsifier: keeper.as_ref(),
                };
                match step {
                    Step::Train(train) => book.fit(line, &course(train), None, watcher),
                    Step::Distill(options) => {
                        book.distill(line, &course(&options.train), matter, teacher, options, watcher)
                    }
                    Step::Prune(step) => book.prune(line, &made, matter, teacher, step, watcher),
                    Step::Quantize(step) => book.quantize(line, &made, matter, teacher, step, watcher),
                }
            })?;
            made = Made { keeps_zeros, ..next };
        }
        Ok(made)
    }

    /// A step that depends on these parts of the recipe.
    pub(super) fn due<'b>(&self, name: &'b str, seed: u64, matter: &Matter, parts: &[&str]) -> Due<'b> {
        let (draws, augment) = (seed.to_string(), format!("{:?}", self.augment()));
        let all = [&[env!("CARGO_PKG_VERSION"), &self.pipeline.name, &draws, &matter.hash, &augment], parts].concat();
        Due { name, seed, key: store::sha256(all.join("\n").as_bytes()), made_of: None, teacher: None }
    }

    /// Whether the only step that was asked for is behind.
    pub(super) fn is_done(&self) -> bool {
        self.options.only.is_some_and(|only| self.seen.iter().any(|step| step == only))
    }

    pub(super) fn augment(&self) -> &'a [Augmentation] {
        &self.pipeline.data.augment
    }

    /// What a step made: from its file, where the ledger has it, else as it is made and measured now, beside a teacher where
    /// there is one.
    pub(super) fn step(
        &mut self,
        due: &Due<'_>,
        matter: &Matter,
        teacher: Option<&Made>,
        watcher: &mut dyn Watcher,
        make: impl FnOnce(&mut Self, Line, &mut dyn Watcher) -> Result<Fitted, RecipeError>,
    ) -> Result<Made, RecipeError> {
        let Due { name, seed, key, .. } = due;
        self.seen.push(name.to_string());
        self.used.clear();
        let found = self.ledger.line(name).filter(|line| line.key == *key).cloned();
        if let Some(line) = found {
            let path = self.options.folder.join(&line.file);
            if path.exists() && store::sha256_of_file(&path)? == line.sha256 {
                let (model, sha256) = (onnx::read(&path)?, line.sha256.clone());
                let made = Made { model, sha256, output: line.output.as_str().into(), keeps_zeros: false };
                self.as_before(line, &made, matter, teacher, watcher)?;
                return Ok(made);
            }
        }
        if self.options.only.is_some_and(|only| only != *name) {
            let problem = "has to be done first: leave out --only, or give its name".to_string();
            return Err(RecipeError::Part { part: name.to_string(), problem });
        }
        let (fitted, elapsed) = timed(|| make(self, Line::new(name, *seed, key), watcher));
        let Fitted { mut model, output, mut line } = fitted?;
        line.seconds = elapsed.as_secs_f64();
        line.output = output.to_string();
        line.decisions = std::mem::take(&mut self.used);
        model.about.metadata.insert(PROVENANCE.to_string(), self.provenance(&line, matter, due));
        let bytes = onnx::to_bytes(&model)?;
        line.sha256 = store::sha256(&bytes);
        line.bytes = bytes.len() as u64;
        store::write_atomic(&self.options.folder.join(&line.file), &bytes)?;
        let made = Made { model, sha256: line.sha256.clone(), output, keeps_zeros: false };
        self.measure(&mut line, &made, matter, teacher)?;
        watcher.ended(&line, true);
        self.ledger.put(line);
        self.ledger.write(self.options.folder)?;
        self.forget(name)?;
        Ok(made)
    }

    /// A step that was done is not done again. Its network is measured now on runtimes that were not there, and anew where it
    /// is set beside another teacher or is attacked otherwise.
    fn as_before(
        &mut self,
        mut line: Line,
        made: &Made,
        matter: &Matter,
        teacher: Option<&Made>,
        watcher: &mut dyn Watcher,
    ) -> Result<(), RecipeError> {
        let is_measured = |runtime: &&dyn Runtime| line.speed.iter().any(|speed| speed.runtime == runtime.name());
        if line.beside != self.beside(teacher) {
            self.measure(&mut line, made, matter, teacher)?;
        } else if !self.options.runtimes.iter().all(is_measured) {
            let before = line.clone();
            self.measure(&mut line, made, matter, teacher)?;
            line.keep(&before);
        }
        watcher.ended(&line, false);
        self.forget(&line.step)?;
        if self.ledger.line(&line.step) != Some(&line) {
            self.ledger.put(line);
            self.ledger.write(self.options.folder)?;
        }
        Ok(())
    }

    /// What a written network says of how it came about, as JSON.
    fn provenance(&self, line: &Line, matter: &Matter, due: &Due<'_>) -> String {
        let Line { step, seed, key, decisions, .. } = line;
        serde_json::json!({
            "aludel": env!("CARGO_PKG_VERSION"), "recipe": self.pipeline.name, "seed": seed, "step": step, "key": key,
            "data": matter.hash, "made_of": due.made_of, "teacher": due.teacher, "decisions": decisions,
        })
        .to_string()
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
    pub(super) fn fit(
        &mut self,
        mut line: Line,
        course: &Course<'_>,
        guide: Option<&mut dyn Guide>,
        watcher: &mut dyn Watcher,
    ) -> Result<Fitted, RecipeError> {
        let Course { model, output, train, seed, .. } = *course;
        watcher.begins(&line.step, train.epochs);
        let path = self.checkpoint(&line.step);
        let mut state = None;
        if self.options.resume && path.exists() {
            match checkpoint::from_bytes(&store::read(&path)?, &line.key) {
                Ok(found) => state = Some(found),
                Err(error) => watcher.note(&format!("{}: {error}: the training begins anew", path.display())),
            }
        }
        let data = normalization::data_for(model, course.data)?;
        let task = Task { graph: &model.graph, output, data: &data, augment: course.augment };
        let mut keeper = Keeper { watcher, path: &path, key: &line.key };
        let mut sparsifier = course.sparsifier.cloned();
        let editor = sparsifier.as_mut().map(|sparsifier| sparsifier as &mut dyn Editor);
        let fitted = fit_with(&task, guide, editor, train, seed, state, &mut keeper)?;
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
        Ok(Fitted { model: model.with_graph(graph), output: output.clone(), line })
    }

    pub(super) fn distill(
        &mut self,
        line: Line,
        course: &Course<'_>,
        matter: &Matter,
        teacher: &Made,
        options: &DistillOptions,
        watcher: &mut dyn Watcher,
    ) -> Result<Fitted, RecipeError> {
        let Course { model, output, train, seed, .. } = *course;
        let own = Made { model: model.clone(), sha256: String::new(), output: output.clone(), keeps_zeros: false };
        let teacher = if options.teacher.mean_teacher { &own } else { teacher };
        let types = infer(&teacher.model.graph, &Bindings::default())?;
        let tensor_types = tensor_types(&teacher.model.graph, &types);
        let mix = pairing::resolve(&options.mix, (&model.graph, output), (&teacher.model.graph, &teacher.output))?;
        let facts = Teacher { ends: Ends::of(&teacher.model.graph, &teacher.output), types: &tensor_types };
        let student = attach(&model.graph, output, &facts, &mix, train.loss, seed)?;
        let source = if options.teacher.mean_teacher {
            Ok(Source::Average { network: model.graph.clone(), outputs: None })
        } else {
            self.source(&student, model, (teacher, matter), options, watcher)
        };
        let source = match source {
            Err(RecipeError::Distill(DistillError::Stopped)) => return Err(RecipeError::Stopped { step: line.step }),
            source => source?,
        };
        let mut distillation = Distillation { student, source };
        self.fit(line, course, Some(&mut distillation), watcher)
    }

    /// Where the teacher's values come from.
    fn source(
        &mut self,
        student: &WithObjectives,
        model: &Model,
        (teacher, matter): (&Made, &Matter),
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
            unlabelled: options.train.unlabelled,
            ..LoaderOptions::default()
        };
        let data = normalization::data_for(&teacher.model, &matter.data)?;
        let loader = Loader::new(&data, Split::Train, loader)?;
        let columns = probe::columns(&teacher.model, &matter.data);
        let values: Vec<Name> = student.teacher.iter().map(|input| input.value.clone()).collect();
        let runtime = teacher::decide(self, teacher, &values, &loader)?;
        if !options.teacher.cache {
            let [theirs, ours] = [&teacher.model, model].map(|model| model.about.metadata.get(normalization::KEY));
            if theirs != ours {
                let problem = "asks a teacher at work that takes other values than the student: leave `cache` out";
                return Err(RecipeError::Part { part: "step.distill".to_string(), problem: problem.to_string() });
            }
            let forward = teacher::open(runtime, &teacher.model, &values)?;
            let own = probe::columns(model, &matter.data);
            let ours = |column: &String| own.iter().find(|(other, _)| other == column).map(|(_, name)| name.clone());
            let inputs = columns.iter().filter_map(|(column, theirs)| Some((theirs.clone(), ours(column)?)));
            return Ok(Source::Live { teacher: forward, inputs: inputs.collect() });
        }
        let by = format!("{} on {} {}", teacher.sha256, runtime.name(), runtime.version());
        let with_unlabelled = options.train.unlabelled > 0.0;
        let data = if with_unlabelled { &matter.hash_with_unlabelled } else { &matter.hash };
        let key = Key { teacher: &by, data, n_views };
        let name = store::sha256(format!("{by} {data} {n_views} {values:?}").as_bytes());
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
