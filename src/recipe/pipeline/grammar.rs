//! What a recipe of several steps says.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::steps::{by_labels, steps, with_zeros, without_labels};
use crate::compress::distill::objective::Mix;
use crate::compress::distill::student::StudentOptions;
use crate::compress::prune::options::PruneOptions;
use crate::compress::quantize::options::{QuantizeOptions, Target};
use crate::data::{Augmentation, Descriptor, Shares};
use crate::graph::spelling::distance;
use crate::learn::train::fit::TrainOptions;
use crate::recipe::{self, ModelPart, RecipeError};

/// A teacher, its students, and what is done to them.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// What it is called.
    pub name: String,
    /// What everything random depends on.
    pub seed: u64,
    /// What is learned from.
    pub data: Descriptor,
    /// What only a teacher has something to say of; its labels are not looked at.
    pub unlabelled: Option<Descriptor>,
    /// Whom students learn from: one, or several whose mean is the teacher.
    pub teachers: Vec<TeacherPart>,
    /// Who learns.
    pub students: Vec<Student>,
    /// What each student goes through, in order.
    pub steps: Vec<StepPart>,
    /// The folder that paths in the file are relative to.
    pub folder: PathBuf,
}

/// A part `teacher`.
#[derive(Clone, Debug)]
pub struct TeacherPart {
    /// What its step is called: `teacher`, and with several `teacher.` and its name.
    pub label: String,
    /// Its part in the mean of several, in proportion to the others.
    pub weight: f64,
    /// What its draws depend on.
    pub seed: u64,
    /// The network.
    pub model: ModelPart,
    /// How it is trained; a file without it is taken as it is.
    pub train: Option<TrainOptions>,
    /// What is done to the samples that it is trained with, where it is not what the data says.
    pub augment: Option<Vec<Augmentation>>,
    /// The part as it stands.
    pub text: String,
}

/// A part `student`.
#[derive(Clone, Debug)]
pub struct Student {
    /// What it is called.
    pub name: String,
    /// Whom it learns from: `teacher`, or a student before it, such as an assistant of a size between the two (Mirzadeh et al.,
    /// "Improved Knowledge Distillation via Teacher Assistant", 2020) or the generation before (Furlanello et al.,
    /// "Born-Again Neural Networks", 2018).
    pub teacher: String,
    /// What it begins as.
    pub network: StudentNetwork,
    /// The names of the classes that a specialist is for, in the order of its outputs; none of one for all.
    pub classes: Option<Vec<String>>,
    /// The part as it stands.
    pub text: String,
}

/// What a student begins as.
#[derive(Clone, Debug)]
pub enum StudentNetwork {
    /// Made out of the teacher, or of a student before it.
    Derived(StudentOptions),
    /// An architecture or a file of its own.
    Own(ModelPart),
}

/// A part `step`.
#[derive(Clone, Debug)]
pub struct StepPart {
    /// What is done.
    pub step: Step,
    /// The part as it stands.
    pub text: String,
}

/// What is done to a student.
#[derive(Clone, Debug)]
pub enum Step {
    /// It learns from labels alone.
    Train(TrainOptions),
    /// It learns from its teacher.
    Distill(DistillOptions),
    /// What it can do without goes.
    Prune(Box<PruneStep>),
    /// Its numbers become narrow.
    Quantize(Box<QuantizeStep>),
}

impl Step {
    /// The name in TOML.
    pub fn name(&self) -> &'static str {
        match self {
            Step::Train(_) => "train",
            Step::Distill(_) => "distill",
            Step::Prune(_) => "prune",
            Step::Quantize(_) => "quantize",
        }
    }

    /// How it is trained, where it is.
    pub fn train(&self) -> Option<&TrainOptions> {
        match self {
            Step::Train(train) => Some(train),
            Step::Distill(options) => Some(&options.train),
            Step::Prune(step) => step.learn.as_ref().map(|options| &options.train),
            Step::Quantize(step) => step.learn.as_ref().map(|options| &options.train),
        }
    }

    /// How it learns from its teacher, where it does.
    pub fn distill(&self) -> Option<&DistillOptions> {
        match self {
            Step::Train(_) => None,
            Step::Distill(options) => Some(options),
            Step::Prune(step) => step.learn.as_ref(),
            Step::Quantize(step) => step.learn.as_ref(),
        }
    }

    /// Whether it brings single weights to zero, which steps after it keep there.
    pub fn makes_zeros(&self) -> bool {
        match self {
            Step::Prune(step) => step.options.sparse.is_some(),
            Step::Train(_) | Step::Distill(_) | Step::Quantize(_) => false,
        }
    }

    /// The part of the unlabelled samples that it learns from.
    pub fn unlabelled(&self) -> f64 {
        self.train().map_or(0.0, |train| train.unlabelled)
    }
}

/// What is taken out of a student: the keys of a pruning, `runtime`, and with `epochs` those of a distillation. A step of several
/// `rounds` is as many steps, each with its line in the ledger.
#[derive(Clone, Debug)]
pub struct PruneStep {
    /// What goes, in this round.
    pub options: PruneOptions,
    /// Who will run the file, where time decides.
    pub runtime: Option<Target>,
    /// How the network recovers, from its teacher; none where it does not learn.
    pub learn: Option<DistillOptions>,
}

/// How a student's numbers become narrow: the keys of a quantization, `runtime`, and with `epochs` those of a distillation.
#[derive(Clone, Debug)]
pub struct QuantizeStep {
    /// What is quantized, and to what.
    pub options: QuantizeOptions,
    /// Who will run the file: `tract` or `ort`; nobody in particular where it is not given.
    pub runtime: Option<Target>,
    /// How the network learns as it is rounded, from its teacher; none where it is only calibrated.
    pub learn: Option<DistillOptions>,
}

/// How a student learns from its teacher: the keys of a training, the loss of the labels as `label_loss`, and those below.
#[derive(Clone, Debug)]
pub struct DistillOptions {
    /// What it learns by: `loss`, `temperature`, `alpha`, `label_schedule`.
    pub mix: Mix,
    /// How it is trained.
    pub train: TrainOptions,
    /// Where the teacher's values come from.
    pub teacher: TeacherOptions,
}

/// Where a teacher's values come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TeacherOptions {
    /// Whether the teacher's values are computed once and kept in a file.
    pub cache: bool,
    /// How many changes of each sample are kept, where samples are changed and values are kept.
    pub views: u64,
    /// Whether the moving average of the student's own weights teaches, and not the teacher; `ema` says what it is.
    pub mean_teacher: bool,
}

impl Default for TeacherOptions {
    fn default() -> TeacherOptions {
        TeacherOptions { cache: true, views: 4, mean_teacher: false }
    }
}

const PARTS: [&str; 7] = ["name", "seed", "data", "unlabelled", "teacher", "student", "step"];

impl Pipeline {
    /// The recipe in a file, with these keys set to other values (`student.width=0.5`, the value in TOML). Paths in it are
    /// relative to the file's folder.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or has a key that is missing, unknown or wrong; names file and key.
    pub fn read(path: &Path, set: &[(String, String)]) -> Result<Pipeline, RecipeError> {
        recipe::read(path, |text, folder| Pipeline::parse(text, folder, set))
    }

    /// The recipe in a text.
    ///
    /// # Errors
    /// As [`Pipeline::read`].
    pub fn parse(text: &str, folder: &Path, set: &[(String, String)]) -> Result<Pipeline, RecipeError> {
        let mut file: Table = toml::from_str(text).map_err(|error| RecipeError::Toml(Box::new(error)))?;
        for (key, value) in set {
            replace(&mut file, key, value)?;
        }
        if let Some(key) = file.keys().find(|key| !PARTS.contains(&key.as_str())) {
            return Err(unknown(key, &PARTS));
        }
        let name = match file.remove("name") {
            Some(Value::String(name)) if is_file_name(&name) => name,
            Some(_) => return Err(part("name", "is no text that a file can be called")),
            None => return Err(part("name", "is missing")),
        };
        let seed = match file.remove("seed") {
            None => 0,
            Some(Value::Integer(seed)) => u64::try_from(seed).map_err(|_| part("seed", "is below 0"))?,
            Some(_) => return Err(part("seed", "is no whole number")),
        };
        let data = Descriptor::from_table(table("data", file.remove("data"))?, folder)?;
        let unlabelled = file.remove("unlabelled").map(|part| table("unlabelled", Some(part))).transpose()?;
        let unlabelled = unlabelled.map(|part| Descriptor::from_table(part, folder)).transpose()?;
        let teachers = teachers(file.remove("teacher"), seed)?;
        let students = students(&name, &teachers, file.remove("student"))?;
        let steps = match file.remove("step") {
            None => Vec::new(),
            Some(Value::Array(entries)) => {
                let mut steps = Vec::new();
                for entry in entries {
                    steps.extend(self::steps(table("step", Some(entry))?)?);
                }
                steps
            }
            Some(_) => return Err(part("step", "should stand as [[step]]")),
        };
        without_labels(&steps, &students)?;
        with_zeros(&steps)?;
        if let Some(unlabelled) = &unlabelled {
            if !unlabelled.augment.is_empty() {
                return Err(part("unlabelled.augment", "is that of [data] for all samples; leave it out"));
            }
            if unlabelled.split != Shares::default() {
                return Err(part("unlabelled.split", "divides what is learned from whole; leave it out"));
            }
        }
        let is_used = steps.iter().any(|part| part.step.unlabelled() > 0.0);
        match (&unlabelled, is_used) {
            (Some(_), false) => Err(part("unlabelled", "is read by no step: give one `unlabelled = 1.0`")),
            (None, true) => Err(part("unlabelled", "is missing, and a step learns from it")),
            _ => Ok(Pipeline { name, seed, data, unlabelled, teachers, students, steps, folder: folder.to_owned() }),
        }
    }
}

fn teachers(value: Option<Value>, seed: u64) -> Result<Vec<TeacherPart>, RecipeError> {
    let Some(Value::Array(tables)) = value else {
        if value.as_ref().is_some_and(|value| value.get("weight").is_some()) {
            return Err(part("teacher.weight", "is of one teacher alone; leave it out"));
        }
        return Ok(vec![teacher(table("teacher", value)?, "teacher".to_string(), seed)?]);
    };
    let mut teachers: Vec<TeacherPart> = Vec::new();
    for (value, seed) in tables.into_iter().zip(seed..) {
        let mut table = table("teacher", Some(value))?;
        let label = match table.remove("name") {
            Some(Value::String(name)) if is_student_name(&name) => format!("teacher.{name}"),
            Some(_) => return Err(part("teacher.name", "should be of letters, digits, - and _, and not `teacher`")),
            None => return Err(part("teacher", "has no `name`; with several teachers each needs one")),
        };
        if teachers.iter().any(|teacher| teacher.label == label) {
            return Err(part("teacher", &format!("`{label}` is there twice")));
        }
        teachers.push(teacher(table, label, seed)?);
    }
    if teachers.iter().all(|teacher| teacher.weight == 0.0) {
        return Err(part("teacher", "has no weight above 0"));
    }
    Ok(teachers)
}

fn teacher(mut table: Table, label: String, seed: u64) -> Result<TeacherPart, RecipeError> {
    let text = table.to_string();
    let weight = table.remove("weight").map_or(Ok(1.0), |weight| read::<f64>("teacher.weight", weight))?;
    if !(weight >= 0.0 && weight.is_finite()) {
        return Err(part("teacher.weight", &format!("is {weight}; give a number from 0")));
    }
    let seed = table.remove("seed").map_or(Ok(seed), |seed| read::<u64>("teacher.seed", seed))?;
    let train = table.remove("train").map(|train| read::<TrainOptions>("teacher.train", train)).transpose()?;
    let augment = table.remove("augment").map(|augment| read("teacher.augment", augment)).transpose()?;
    if augment.is_some() && train.is_none() {
        return Err(part("teacher.augment", "is of a training: give `train`, too"));
    }
    let model = model("teacher", table)?;
    if let Some(train) = &train {
        train.check().map_err(|error| part("teacher.train", &error.to_string()))?;
        by_labels("teacher.train", train)?;
    }
    if model.arch.is_some() == model.onnx.is_some() {
        return Err(part("teacher", "should have `arch` or `onnx`, one of the two"));
    }
    if model.arch.is_some() && train.is_none() {
        return Err(part("teacher", "has an architecture that nobody trains: give `train = { epochs = … }`"));
    }
    Ok(TeacherPart { label, weight, seed, model, train, augment, text })
}

fn students(recipe: &str, teachers: &[TeacherPart], value: Option<Value>) -> Result<Vec<Student>, RecipeError> {
    let tables = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(tables)) => tables,
        Some(one) => vec![one],
    };
    let is_one = tables.len() == 1;
    let mut students: Vec<Student> = Vec::new();
    for value in tables {
        let mut table = table("student", Some(value))?;
        let name = match table.remove("name") {
            Some(Value::String(name)) if is_student_name(&name) => name,
            Some(_) => return Err(part("student.name", "should be of letters, digits, - and _, and not `teacher`")),
            None if is_one && is_student_name(recipe) => recipe.to_string(),
            None => return Err(part("student", "has no `name`; with several students each needs one")),
        };
        if students.iter().any(|student| student.name == name) {
            return Err(part("student", &format!("`{name}` is there twice")));
        }
        let text = table.to_string();
        let known = |key: &str, from: &str| {
            let mut known = vec!["teacher"];
            known.extend(teachers.iter().map(|teacher| teacher.label.as_str()).filter(|label| *label != "teacher"));
            known.extend(students.iter().map(|student| student.name.as_str()));
            match known.contains(&from) {
                true => Ok(()),
                false => Err(part(key, &format!("is `{from}`; before `{name}` there are: {}", known.join(", ")))),
            }
        };
        let teacher = match table.remove("teacher") {
            None => "teacher".to_string(),
            Some(Value::String(teacher)) => teacher,
            Some(_) => return Err(part("student.teacher", "is no name")),
        };
        known("student.teacher", &teacher)?;
        if students.iter().any(|other| other.name == teacher && other.classes.is_some()) {
            return Err(part("student.teacher", &format!("is `{teacher}`, which knows some classes; name another")));
        }
        let classes =
            table.remove("classes").map(|classes| read::<Vec<String>>("student.classes", classes)).transpose()?;
        if classes.as_ref().is_some_and(|classes| classes.len() < 2 || has_twice(classes)) {
            return Err(part("student.classes", "should be two classes or more, each once"));
        }
        let network = if table.contains_key("arch") || table.contains_key("onnx") {
            let model = model("student", table)?;
            if model.arch.is_some() && model.onnx.is_some() {
                return Err(part("student", "should have `arch` or `onnx`, one of the two"));
            }
            StudentNetwork::Own(model)
        } else {
            let options: StudentOptions = read("student", Value::Table(table))?;
            known("student.from", &options.from)?;
            if students.iter().any(|other| other.name == options.from && other.classes.is_some()) {
                let problem = format!("is `{}`, which knows some classes; name another", options.from);
                return Err(part("student.from", &problem));
            }
            options.check().map_err(|error| part("student", &error.to_string()))?;
            StudentNetwork::Derived(options)
        };
        students.push(Student { name, teacher, network, classes, text });
    }
    Ok(students)
}

/// Sets a key, its tables on the way made where they are missing; of a list that of every entry that has the table.
fn replace(file: &mut Table, key: &str, value: &str) -> Result<(), RecipeError> {
    let parsed: Result<Table, _> = toml::from_str(&format!("value = {value}"));
    // a bare word is a text
    let value = parsed.ok().and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(value.into()));
    let (path, last) = key.rsplit_once('.').unwrap_or(("", key));
    let mut tables = vec![file];
    let mut is_list = false;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let mut inner = Vec::new();
        if is_list {
            tables.retain(|table| table.contains_key(name));
        }
        is_list = false;
        for table in tables {
            match table.entry(name).or_insert_with(|| Value::Table(Table::new())) {
                Value::Table(table) => inner.push(table),
                Value::Array(entries) => {
                    is_list = true;
                    inner.extend(entries.iter_mut().filter_map(Value::as_table_mut));
                }
                _ => return Err(part(key, &format!("cannot be set: `{name}` is no table"))),
            }
        }
        tables = inner;
    }
    if tables.is_empty() {
        return Err(part(key, "cannot be set: no entry of the list has it"));
    }
    for table in tables {
        table.insert(last.to_string(), value.clone());
    }
    Ok(())
}

pub(super) fn table(name: &str, value: Option<Value>) -> Result<Table, RecipeError> {
    match value {
        Some(Value::Table(table)) => Ok(table),
        Some(_) => Err(part(name, "should be a table")),
        None => Err(part(name, "is missing")),
    }
}

pub(super) fn read<'de, T: Deserialize<'de>>(name: &str, value: Value) -> Result<T, RecipeError> {
    T::deserialize(value).map_err(|error: toml::de::Error| part(name, error.to_string().trim()))
}

pub(super) fn part(name: &str, problem: &str) -> RecipeError {
    RecipeError::Part { part: name.to_string(), problem: problem.to_string() }
}

pub(super) fn unknown(key: &str, known: &[&str]) -> RecipeError {
    let nearest = known.iter().min_by_key(|name| distance(key, name)).copied().unwrap_or_default();
    part(key, &format!("is no key of a recipe; did you mean `{nearest}`? There are: {}", known.join(", ")))
}

/// A network of a part's own.
fn model(name: &str, table: Table) -> Result<ModelPart, RecipeError> {
    let model: ModelPart = read(name, Value::Table(table))?;
    if model.embed_normalization {
        return Err(part(name, "has `embed_normalization`, which only `aludel train` does; leave it out"));
    }
    Ok(model)
}

fn has_twice(names: &[String]) -> bool {
    names.iter().enumerate().any(|(idx, name)| names[..idx].contains(name))
}

/// Without a dot, which is what comes before a step's name.
fn is_student_name(name: &str) -> bool {
    is_file_name(name) && !name.contains('.') && name != "teacher"
}

fn is_file_name(name: &str) -> bool {
    let is_good = |letter: char| letter.is_alphanumeric() || "-_.".contains(letter);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        name = "digits"
        seed = 7
        [data]
        kind = "digits"
        [teacher]
        arch = { resnet = { blocks = [1, 1], width = 16 } }
        train = { epochs = 3 }
        [student]
        from = "teacher"
        width = 0.25
        [[step]]
        distill = { loss = ["kd"], temperature = 4.0, alpha = 0.9, epochs = 5, views = 2 }
    "#;

    fn parse(text: &str, set: &[(&str, &str)]) -> Result<Pipeline, String> {
        let set: Vec<(String, String)> = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        Pipeline::parse(text, Path::new(""), &set).map_err(|error| error.to_string())
    }

    #[test]
    fn a_recipe_is_read_and_keys_are_set() {
        let pipeline = parse(WHOLE, &[("step.distill.epochs", "9"), ("student.width", "0.5"), ("seed", "8")]);
        let pipeline = pipeline.expect("a recipe");
        assert_eq!((pipeline.seed, pipeline.students[0].name.as_str()), (8, "digits"));
        let StudentNetwork::Derived(options) = &pipeline.students[0].network else {
            panic!("it is made out of the teacher")
        };
        assert_eq!(options.width, crate::compress::distill::student::Width::Factor(0.5));
        let Step::Distill(step) = &pipeline.steps[0].step else { panic!("it is a distillation") };
        assert_eq!((step.train.epochs, step.teacher.views, step.mix.alpha), (9, 2, 0.9));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |from: &str, to: &str, expected: &str| {
            assert!(WHOLE.contains(from), "{from}");
            let error = parse(&WHOLE.replace(from, to), &[]).expect_err("it is wrong");
            assert!(error.contains(expected), "{error}");
        };
        check("[student]", "[studnet]", "did you mean `student`");
        check("distill =", "distil =", "did you mean `distill`");
        check("epochs = 5", "epoch = 5", "epoch");
        check("width = 0.25", "widht = 0.25", "widht");
        check("from = \"teacher\"", "from = \"somebody\"", "somebody");
        check("width = 0.25", "width = 0.25\nteacher = \"somebody\"", "before `digits` there are: teacher");
        check("train = { epochs = 3 }", "", "nobody trains");
        check("views = 2", "views = 0", "views");
        check("name = \"digits\"", "name = \"../digits\"", "name");
        let error = parse(WHOLE, &[("step.train.epochs", "1")]).expect_err("no step trains");
        assert!(error.contains("no entry of the list"), "{error}");
    }
}
