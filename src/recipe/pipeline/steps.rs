//! What a recipe says of its steps.

use serde::Serialize;
use toml::{Table, Value};

use super::grammar::{
    DistillOptions, PruneStep, QuantizeStep, Step, StepPart, Student, TeacherOptions, part, read, table as table_of,
    unknown,
};
use crate::compress::distill::objective::{Mix, Objective};
use crate::compress::prune::options::{PruneOptions, What};
use crate::compress::prune::sparse::{self, Pattern, SparseOptions};
use crate::compress::quantize::Rounding;
use crate::compress::quantize::options::{Form, Ports, QuantizeOptions, Target, To};
use crate::learn::train::fit::TrainOptions;
use crate::learn::train::loss::Loss;
use crate::recipe::RecipeError;

/// A part `step`: a step, or the rounds of one.
pub(super) fn steps(table: Table) -> Result<Vec<StepPart>, RecipeError> {
    const STEPS: [&str; 4] = ["train", "distill", "prune", "quantize"];
    let text = table.to_string();
    let mut entries = table.into_iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return Err(part("step", &format!("should have one key, of: {}", STEPS.join(", "))));
    };
    let step = match name.as_str() {
        "train" => Step::Train(read("step.train", value)?),
        "distill" => Step::Distill(distill("step.distill", table_of("step.distill", Some(value))?)?),
        "prune" => {
            let rounds = prune(table_of("step.prune", Some(value))?)?;
            return Ok(rounds.into_iter().map(|round| part_of(Step::Prune(Box::new(round)), &text)).collect());
        }
        "quantize" => Step::Quantize(Box::new(quantize(table_of("step.quantize", Some(value))?)?)),
        other => return Err(unknown(other, &STEPS)),
    };
    if let Step::Train(train) = &step {
        check("step.train", train)?;
        by_labels("step.train", train)?;
    }
    Ok(vec![part_of(step, &text)])
}

fn part_of(step: Step, text: &str) -> StepPart {
    StepPart { step, text: text.to_string() }
}

fn check(name: &str, train: &TrainOptions) -> Result<(), RecipeError> {
    train.check().map_err(|error| part(name, &error.to_string()))
}

/// Who learns from labels alone has nothing to learn from a sample without one.
pub(super) fn by_labels(name: &str, train: &TrainOptions) -> Result<(), RecipeError> {
    match train.unlabelled > 0.0 {
        true => Err(part(name, "has `unlabelled`, of which only a teacher has something to say; leave it out")),
        false => Ok(()),
    }
}

/// Where samples come without a label, its loss must be one that reads nothing there.
pub(super) fn without_labels(steps: &[StepPart], students: &[Student]) -> Result<(), RecipeError> {
    let is_bounded = |objective: &Objective| matches!(objective, Objective::Regression { bounded: Some(_), .. });
    for StepPart { step, .. } in steps {
        let name = format!("step.{}", step.name());
        let Some(train) = step.train() else { continue };
        if train.unlabelled == 0.0 && students.iter().all(|student| student.classes.is_none()) {
            continue;
        }
        if train.loss != Loss::CrossEntropy {
            return Err(part(
                &name,
                "has samples without a label, which goes with `cross-entropy` of the labels alone",
            ));
        }
        if let Some(options) = step.distill()
            && options.mix.loss.iter().any(|term| is_bounded(&term.objective))
        {
            return Err(part(&name, "has samples without a label, which a `bounded` regression would read"));
        }
    }
    Ok(())
}

/// After a step that makes zeros none may move them.
pub(super) fn with_zeros(steps: &[StepPart]) -> Result<(), RecipeError> {
    let mut made: Option<&SparseOptions> = None;
    for StepPart { step, .. } in steps {
        match (made, step) {
            (Some(sparse), Step::Prune(step)) => {
                kept_by_pruning(sparse, step).map_err(|(key, problem)| part(key, problem))?;
            }
            (Some(_), Step::Quantize(step)) if step.options.moves_zeros() => {
                let problem =
                    "by samples would make other numbers of the zeros of a step before: say `rounding = \"nearest\"`";
                return Err(part("step.quantize.rounding", problem));
            }
            (None, _) | (_, Step::Train(_) | Step::Distill(_) | Step::Quantize(_)) => {}
        }
        if let Step::Prune(step) = step {
            made = step.options.sparse.as_ref().or(made);
        }
    }
    Ok(())
}

/// Why a pruning does not keep the zeros of a step before, and which key says so.
fn kept_by_pruning(made: &SparseOptions, step: &PruneStep) -> Result<(), (&'static str, &'static str)> {
    let Some(sparse) = &step.options.sparse else {
        if step.options.layers.is_some() {
            return Ok(());
        }
        if made.pattern != Pattern::Free {
            return Err((
                "step.prune",
                "takes units out of what the `pattern` of a step before is counted along: take them out first",
            ));
        }
        return match step.options.compensates() {
            true => Err((
                "step.prune.compensate",
                "fits weights anew, and zeros of a step before would be none: take units out first, or say `compensate = \"none\"`",
            )),
            false => Ok(()),
        };
    };
    if sparse.criterion == sparse::Criterion::SparseGpt {
        let problem = "is sparsegpt, which moves the zeros of a step before: take another, or leave that step out";
        return Err(("step.prune.sparse.criterion", problem));
    }
    if step.learn.is_some() && sparse.grows() {
        let problem = "begins without zeros, and a step before has made some: leave that step out";
        return Err(("step.prune.sparse.schedule", problem));
    }
    Ok(())
}

/// A distillation; `name` is that of the part.
fn distill(name: &str, mut table: Table) -> Result<DistillOptions, RecipeError> {
    const MIX: [&str; 4] = ["loss", "temperature", "alpha", "label_schedule"];
    const TEACHER: [&str; 3] = ["cache", "views", "mean_teacher"];
    let own_average = table.get("mean_teacher") == Some(&Value::Boolean(true));
    if let Some(key) = ["cache", "views"].into_iter().find(|key| own_average && table.contains_key(*key)) {
        return Err(part(&format!("{name}.{key}"), "is of values that are kept, which `mean_teacher` changes"));
    }
    let mix: Mix = read(name, Value::Table(taken(&mut table, &MIX)))?;
    mix.check().map_err(|error| part(name, &error.to_string()))?;
    let teacher: TeacherOptions = read(name, Value::Table(taken(&mut table, &TEACHER)))?;
    if let Some(loss) = table.remove("label_loss") {
        table.insert("loss".to_string(), loss);
    }
    let train: TrainOptions = read(name, Value::Table(table))?;
    check(name, &train)?;
    if teacher.views == 0 {
        return Err(part(&format!("{name}.views"), "is 0; give 1 or more"));
    }
    if teacher.mean_teacher && train.ema.is_none() {
        return Err(part(&format!("{name}.mean_teacher"), "needs an average: give `ema = 0.99`"));
    }
    Ok(DistillOptions { mix, train, teacher })
}

/// A quantization, and with `epochs` the training that goes with it: from the teacher's softened predictions where no loss is given.
fn quantize(mut table: Table) -> Result<QuantizeStep, RecipeError> {
    const NAME: &str = "step.quantize";
    let keys = keys_of(&QuantizeOptions::default());
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut options: QuantizeOptions = read(NAME, Value::Table(taken(&mut table, &keys)))?;
    options.check().map_err(|error| part(NAME, &error.to_string()))?;
    let (runtime, learn) = (runtime(NAME, &mut table)?, learn(NAME, table, &keys)?);
    if learn.is_some() && runtime == Some(Target::Onnxruntime) {
        // What learns is rounded by fixed ranges, also where others would be the default.
        options.form.get_or_insert(Form::Qdq);
    }
    if options.ports == Some(Ports::Int) {
        return Err(part("step.quantize.ports", "is for `aludel quantize`: a recipe measures its files on floats"));
    }
    if learn.is_some() && (options.to != To::Int8 || options.form.is_some_and(|form| !form.is_calibrated())) {
        return Err(part("step.quantize.epochs", "is for int8 in the forms qdq and qoperator; leave it out"));
    }
    if learn.is_some() && options.rounding.is_some_and(|rounding| rounding != Rounding::Nearest) {
        return Err(part(
            "step.quantize.rounding",
            "is undone by a training, which rounds as it goes; leave it or `epochs` out",
        ));
    }
    Ok(QuantizeStep { options, runtime, learn })
}

/// The rounds of a pruning; with `epochs` the training after each: from the teacher's softened predictions where no loss is given.
fn prune(mut table: Table) -> Result<Vec<PruneStep>, RecipeError> {
    const NAME: &str = "step.prune";
    let rounds = table.remove("rounds").map_or(Ok(1), |rounds| read::<usize>("step.prune.rounds", rounds))?;
    if rounds == 0 {
        return Err(part("step.prune.rounds", "is 0; give 1 or more"));
    }
    let keys = keys_of(&PruneOptions::default());
    let mut keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let options: PruneOptions = read(NAME, Value::Table(taken(&mut table, &keys)))?;
    let what = options.what().map_err(|error| part(NAME, &error.to_string()))?;
    if rounds > 1 && options.sparse.is_some() {
        return Err(part("step.prune.rounds", "is of what is taken out: `sparse` has a `schedule`"));
    }
    if options.curves.is_some() {
        return Err(part("step.prune.curves", "is of `aludel prune`: a recipe's networks have curves of their own"));
    }
    if options.layers.is_some_and(|n_layers| n_layers < rounds) {
        return Err(part("step.prune.rounds", "is more than the `layers` that go"));
    }
    let runtime = runtime(NAME, &mut table)?;
    keys.push("rounds");
    let learn = learn(NAME, table, &keys)?;
    if matches!(what, What::Time(_)) && runtime.is_none() {
        return Err(part("step.prune.runtime", "is missing: `max_time` is measured on one, `tract` or `ort`"));
    }
    let round = |round| PruneStep { options: options.of_round(round, rounds), runtime, learn: learn.clone() };
    Ok((0..rounds).map(round).collect())
}

/// Who will run the file.
fn runtime(name: &str, table: &mut Table) -> Result<Option<Target>, RecipeError> {
    match table.remove("runtime") {
        None => Ok(None),
        Some(Value::String(name)) if name == "tract" => Ok(Some(Target::Tract)),
        Some(Value::String(name)) if name == "ort" => Ok(Some(Target::Onnxruntime)),
        Some(_) => Err(part(&format!("{name}.runtime"), "should be `tract` or `ort`")),
    }
}

/// The training in what is left of a step's table, where it has `epochs`; `keys` are those of the step beside it.
fn learn(name: &str, mut table: Table, keys: &[&str]) -> Result<Option<DistillOptions>, RecipeError> {
    if table.contains_key("epochs") {
        table.entry("loss").or_insert_with(|| Value::Array(vec![Value::String("kd".to_string())]));
        return Ok(Some(distill(name, table)?));
    }
    match table.keys().next() {
        Some(key) if is_training_key(key) => {
            Err(part(&format!("{name}.{key}"), "is of a training: give `epochs`, too"))
        }
        Some(key) => Err(unknown(key, keys)),
        None => Ok(None),
    }
}

/// The keys of options.
fn keys_of(options: &impl Serialize) -> Vec<String> {
    let options = serde_json::to_value(options).expect("options are JSON");
    options.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
}

/// Whether a distillation has this key.
fn is_training_key(key: &str) -> bool {
    let one = Table::from_iter([(key.to_string(), Value::Boolean(false))]);
    let is_unknown = |error: RecipeError| error.to_string().contains("unknown field");
    distill("step", one).err().is_none_or(|error| !is_unknown(error))
}

/// These keys of a table, taken out of it.
fn taken(table: &mut Table, keys: &[&str]) -> Table {
    keys.iter().filter_map(|key| Some(((*key).to_string(), table.remove(*key)?))).collect()
}
