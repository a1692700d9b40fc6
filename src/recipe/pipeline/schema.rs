//! The JSON Schema of a recipe: the keys that [`Pipeline::parse`](super::Pipeline::parse) takes from its tables as types, and
//! the schemas of what it reads whole.
#![expect(dead_code, clippy::large_enum_variant, reason = "only the schema of these types is asked for")]

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Number, Value};

use super::grammar::TeacherOptions;
use crate::compress::distill::objective::Mix;
use crate::compress::distill::student::StudentOptions;
use crate::compress::prune::options::PruneOptions;
use crate::compress::quantize::options::QuantizeOptions;
use crate::data::{Augmentation, Descriptor};
use crate::learn::train::fit::TrainOptions;
use crate::recipe::ModelPart;

/// The JSON Schema (draft 2020-12) of a recipe of several steps, for editors that complete and check TOML by one.
///
/// It knows keys and kinds of values; the parser also knows ranges, names and paths.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(RecursiveTransform(for_toml));
    settings.into_generator().into_root_schema_for::<Recipe>().to_value()
}

/// What `aludel run` carries out: a teacher, its students, and what is done to them.
#[derive(JsonSchema)]
#[schemars(rename = "aludel run", deny_unknown_fields)]
struct Recipe {
    /// What it is called, and the folder that is written into where none is named: letters, digits, `-`, `_` and `.`.
    name: String,
    /// What everything random depends on.
    #[schemars(default)]
    seed: u64,
    data: Descriptor,
    /// What only a teacher has something to say of; its labels are not looked at.
    unlabelled: Option<Descriptor>,
    teacher: Teachers,
    student: Option<Students>,
    /// What each student goes through, in order: `[[step]]`.
    step: Option<Vec<Step>>,
}

/// Whom students learn from: `[teacher]`, or several `[[teacher]]` whose mean is the teacher.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Teachers {
    One(Teacher),
    Several(Vec<NamedTeacher>),
}

/// Whom students learn from: `arch` and `train`, or `onnx`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, transform = network, extend("dependentRequired" = { "arch": ["train"] }))]
struct Teacher {
    #[schemars(flatten)]
    keys: TeacherKeys,
}

/// One of several teachers: `arch` and `train`, or `onnx`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, transform = network, extend("dependentRequired" = { "arch": ["train"] }))]
struct NamedTeacher {
    /// What it is called: `teacher.` and this.
    name: String,
    #[schemars(flatten)]
    keys: TeacherKeys,
}

/// The keys of every teacher.
#[derive(JsonSchema)]
struct TeacherKeys {
    /// Its part in the mean of several, in proportion to the others.
    #[schemars(default = "one")]
    weight: f64,
    /// What its draws depend on; that of the recipe, one more for each of several.
    seed: Option<u64>,
    #[schemars(flatten)]
    model: ModelPart,
    /// How it is trained; a file without it is taken as it is.
    train: Option<TrainOptions>,
    /// What is done to the samples that it is trained with, where it is not what the data says.
    augment: Option<Vec<Augmentation>>,
}

/// Who learns: `[student]`, or several `[[student]]`, each with a name.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Students {
    One(Student),
    Several(Vec<Student>),
}

/// Made out of the teacher or of a student before it, or a network of its own: `arch` or `onnx`.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Student {
    Derived(DerivedStudent),
    Own(OwnStudent),
}

/// A student that is made out of the teacher, or of a student before it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct DerivedStudent {
    #[schemars(flatten)]
    common: StudentKeys,
    #[schemars(flatten)]
    options: StudentOptions,
}

/// A student that is an architecture or a file of its own.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, transform = network)]
struct OwnStudent {
    #[schemars(flatten)]
    common: StudentKeys,
    #[schemars(flatten)]
    model: ModelPart,
}

/// The keys of every student.
#[derive(JsonSchema)]
struct StudentKeys {
    /// What it is called; the recipe's name where there is one student.
    name: Option<String>,
    /// Whom it learns from: `teacher`, one of several teachers, or a student before it.
    teacher: Option<String>,
    /// The classes that a specialist is for, in the order of its outputs.
    classes: Option<Vec<String>>,
}

fn one() -> f64 {
    1.0
}

/// What is done to a student: one of these.
// No enum: of its forms an editor can only say that none fits, and not which key is wrong.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("minProperties" = 1, "maxProperties" = 1))]
struct Step {
    /// It learns from labels alone.
    train: Option<TrainOptions>,
    /// It learns from its teacher.
    distill: Option<Distill>,
    /// What it can do without goes.
    prune: Option<Prune>,
    /// Its numbers become narrow.
    quantize: Option<Quantize>,
}

/// How much goes, and by what it is chosen; with `epochs` the network recovers after it, and the keys of a distillation go with it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Prune {
    #[schemars(flatten)]
    options: PruneOptions,
    /// Into how many steps it is divided, each taking its part of what is left, and recovering.
    #[schemars(default = "one_round")]
    rounds: usize,
    /// Who will run the file; needed where time decides.
    runtime: Option<RuntimeName>,
    #[schemars(flatten, transform = with_default_loss)]
    learn: Distill,
}

fn one_round() -> usize {
    1
}

/// What is quantized, and to what; with `epochs` it learns as it is rounded, and the keys of a distillation go with it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Quantize {
    #[schemars(flatten)]
    options: QuantizeOptions,
    /// Who will run the file; nobody in particular where it is not given.
    runtime: Option<RuntimeName>,
    #[schemars(flatten, transform = with_default_loss)]
    learn: Distill,
}

/// A runtime.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum RuntimeName {
    Tract,
    Ort,
}

/// A quantization learns by `kd` where no loss is given.
fn with_default_loss(schema: &mut Schema) {
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|key| key != "loss");
    }
}

/// How a student learns from its teacher: `loss` of the teacher's values, `label_loss` of the labels, and the keys of a training.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Distill {
    #[schemars(flatten)]
    mix: Mix,
    #[schemars(flatten)]
    teacher: TeacherOptions,
    #[schemars(flatten, schema_with = "train_with_label_loss")]
    train: TrainOptions,
}

fn train_with_label_loss(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = TrainOptions::json_schema(generator);
    let keys = keys(&mut schema);
    let loss = keys.remove("loss").expect("a training has a loss");
    keys.insert("label_loss".to_string(), loss);
    schema
}

/// One of the two networks that a part can have, which is not made to normalise what it takes.
fn network(schema: &mut Schema) {
    keys(schema).remove("embed_normalization").expect("a model has it");
    schema.insert("oneOf".to_string(), serde_json::json!([{ "required": ["arch"] }, { "required": ["onnx"] }]));
}

fn keys(schema: &mut Schema) -> &mut Map<String, Value> {
    schema.get_mut("properties").and_then(Value::as_object_mut).expect("a table has keys")
}

/// Takes out null, which TOML does not have, and rustdoc's links, and writes defaults as they would be typed.
fn for_toml(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [name] = types.as_slice() {
            let name = name.clone();
            schema.insert("type".to_string(), name);
        }
    }
    if let Some(Value::Array(forms)) = schema.get_mut("anyOf") {
        forms.retain(|form| form.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(form)] = forms.as_mut_slice() {
            let form = std::mem::take(form);
            schema.remove("anyOf");
            schema.ensure_object().extend(form);
        }
    }
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = without_links(description);
    }
    match schema.get_mut("default") {
        Some(Value::Null) => drop(schema.remove("default")),
        Some(default) => shorten(default),
        None => {}
    }
}

/// ``[`Weight`](super::Weight)`` as `` `Weight` ``.
fn without_links(text: &str) -> String {
    let mut pieces = text.split("[`");
    let mut plain = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        let (name, rest) = piece.split_once("`]").unwrap_or((piece, ""));
        let path = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        plain.extend(["`", name, "`", path.map_or(rest, |(_, rest)| rest)]);
    }
    plain
}

/// Writes every number that is one of 32 bits with the digits that it needs as such: 0.01, not 0.009999999776482582.
fn shorten(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let narrow =
                number.as_f64().map(|wide| (wide as f32, wide)).filter(|(narrow, wide)| f64::from(*narrow) == *wide);
            if let Some(short) =
                narrow.and_then(|(narrow, _)| narrow.to_string().parse().ok()).and_then(Number::from_f64)
            {
                *number = short;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Object(values) => values.values_mut().for_each(shorten),
        Value::Number(_) | Value::String(_) | Value::Bool(_) | Value::Null => {}
    }
}
