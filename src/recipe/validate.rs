//! A student beside its teacher on a data set: what their written files say on every runtime, what that is worth, and how long it
//! takes.

use std::sync::Arc;

use serde::Serialize;

use super::evaluate::{Answers, answers, feeds};
use super::{RecipeError, normalization};
use crate::compress::distill::student::Size;
use crate::data::{Dataset, Labels, Split};
use crate::graph::Name;
use crate::graph::shape::Bindings;
use crate::measure::compressed::compressed;
use crate::measure::latency::{self, Contender, interleaved};
use crate::measure::machine::Machine;
use crate::measure::metrics::classification::{ClassFigures, Confusion};
use crate::measure::metrics::{MetricError, Rows, agreement, binary, calibration, classification, regression};
use crate::measure::paired::bootstrap::{self, statistic_interval};
use crate::measure::paired::verdict::{Judgement, judge};
use crate::measure::paired::{StatisticsError, verdict};
use crate::measure::runtime::{ModelBytes, Options, Runtime, RuntimeError, batch_size};
use crate::measure::statistics::{Interval, mean, proportion_interval};
use crate::onnx;
use crate::report::{Agreement, Beside, DataPart, FilePart, Metric, Report, Run, SCHEMA};
use crate::store;

/// What is to be compared, and how.
pub struct Comparison<'a> {
    /// The reference.
    pub teacher: &'a ModelBytes,
    /// What is to replace it.
    pub student: &'a ModelBytes,
    /// What both say is compared on.
    pub data: &'a Arc<Dataset>,
    /// Where the data is, for the report.
    pub data_path: &'a str,
    /// Which samples of it.
    pub split: Split,
    /// The output that meets labels; the first where none is given.
    pub output: Option<&'a Name>,
    /// What runs the files.
    pub runtimes: &'a [&'a dyn Runtime],
    /// How much worse the student may be: in accuracy, or in the unit of labels that are numbers.
    pub margin: f64,
    /// How the two are timed; not where it is none.
    pub latency: Option<latency::Options>,
}

/// Compares them. `told` hears what is being done.
///
/// # Errors
/// When a file is no network, a runtime refuses it, or its output does not meet the labels; when there are none.
pub fn validate(comparison: &Comparison<'_>, told: &mut dyn FnMut(&str)) -> Result<Report, RecipeError> {
    let Comparison { data, split, .. } = comparison;
    let samples = data.samples(*split);
    let truth = truth(data, *split)?;
    let (teacher, student) = (file(comparison.teacher)?, file(comparison.student)?);
    let mut runs = Vec::new();
    for runtime in comparison.runtimes {
        runs.push(run(comparison, *runtime, samples, &truth, told)?);
    }
    Ok(Report {
        schema: SCHEMA,
        aludel: env!("CARGO_PKG_VERSION").to_string(),
        machine: Machine::this(),
        data: DataPart {
            path: comparison.data_path.to_string(),
            sha256: data.sha256()?,
            split: split.to_string(),
            n_samples: samples.len(),
        },
        margin: comparison.margin,
        teacher,
        student,
        runs,
    })
}

/// What a network's answers are worth on a runtime.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Worth {
    /// The runtime.
    pub runtime: String,
    /// How many samples there are.
    pub n_samples: usize,
    /// By the name of the measure; the accuracy first, where there are classes.
    pub metrics: Vec<(String, f64)>,
    /// Of the accuracy, at 95 %.
    pub interval: Option<Interval>,
    /// Figures of each class, by its name.
    pub classes: Vec<(String, ClassFigures)>,
}

/// What a network's answers are worth on a split; the output is the first where none is named.
///
/// # Errors
/// As [`validate`].
pub fn worth(
    runtime: &dyn Runtime,
    model: &ModelBytes,
    output: Option<&Name>,
    data: &Arc<Dataset>,
    split: Split,
) -> Result<Worth, RecipeError> {
    let samples = data.samples(split);
    let truth = truth(data, split)?;
    let said = said(runtime, model, output, data, samples)?;
    let both = Beside { teacher: &said, student: &said };
    let run = match &truth {
        Truth::Classes(labels, n_classes) => classes(both, labels, *n_classes, 0.0)?,
        Truth::Numbers(targets) => numbers(both, targets, 0.0)?,
    };
    let confusion = run.confusion.map(|both| both.student);
    let n_right = run.wrong.map(|wrong| samples.len() - wrong.len());
    let interval = n_right.and_then(|n| proportion_interval(n as u64, samples.len() as u64, 0.95));
    let figures = confusion.iter().flat_map(Confusion::classes);
    Ok(Worth {
        runtime: runtime.name().to_string(),
        n_samples: samples.len(),
        metrics: run.metrics.into_iter().map(|metric| (metric.name, metric.student)).collect(),
        interval,
        classes: data.classes().iter().cloned().zip(figures).collect(),
    })
}

fn file(model: &ModelBytes) -> Result<FilePart, RecipeError> {
    let read = onnx::read_bytes(model.bytes().clone(), model.folder())?;
    let size = Size::of(&read.graph, &Bindings::default())?;
    Ok(FilePart {
        path: model.name(),
        sha256: store::sha256(model.bytes()),
        bytes: model.bytes().len() as u64,
        compressed: compressed(model.bytes()),
        parameters: size.parameters,
        macs: size.macs,
    })
}

/// What the samples of a split should be said to be.
fn truth(data: &Dataset, split: Split) -> Result<Truth, RecipeError> {
    let part = |problem: String| RecipeError::Part { part: "data".to_string(), problem };
    if data.samples(split).is_empty() {
        return Err(part(format!("has no {split} samples: give a split that has some")));
    }
    Truth::of(data, data.samples(split)).ok_or_else(|| {
        part(
            "has no classes or numbers to be met: `aludel compare --inputs` shows how far outputs lie apart"
                .to_string(),
        )
    })
}

/// What a network says of samples.
fn said(
    runtime: &dyn Runtime,
    model: &ModelBytes,
    output: Option<&Name>,
    data: &Arc<Dataset>,
    samples: &[usize],
) -> Result<Rows, RecipeError> {
    let Answers { numbers, n_columns } = answers(runtime, model, output, data, samples)?;
    Ok(Rows::new(numbers.into_iter().map(f64::from).collect(), n_columns)?)
}

/// What samples should be said to be.
enum Truth {
    /// A class each, of so many.
    Classes(Vec<usize>, usize),
    /// Numbers each.
    Numbers(Rows),
}

impl Truth {
    /// None where the samples have no labels, or flags, of which nothing is known.
    fn of(data: &Dataset, samples: &[usize]) -> Option<Truth> {
        match data.labels() {
            Labels::Classes(classes) => {
                let labels: Option<Vec<usize>> = samples.iter().map(|&sample| data.class(sample)).collect();
                Some(Truth::Classes(labels?, classes.len()))
            }
            Labels::Numbers(_) => {
                let batch = data.batch(samples).ok()?;
                Some(Truth::Numbers(Rows::of(batch.get(crate::data::LABEL)?).ok()?))
            }
            Labels::Flags(_) | Labels::None => None,
        }
    }
}

fn run(
    comparison: &Comparison<'_>,
    runtime: &dyn Runtime,
    samples: &[usize],
    truth: &Truth,
    told: &mut dyn FnMut(&str),
) -> Result<Run, RecipeError> {
    let Comparison { output, data, .. } = *comparison;
    told(&format!("the teacher on {}", runtime.name()));
    let teacher = said(runtime, comparison.teacher, output, data, samples)?;
    told(&format!("the student on {}", runtime.name()));
    let student = said(runtime, comparison.student, output, data, samples)?;
    let both = Beside { teacher: &teacher, student: &student };
    let mut run = match truth {
        Truth::Classes(labels, n_classes) => classes(both, labels, *n_classes, comparison.margin)?,
        Truth::Numbers(targets) => numbers(both, targets, comparison.margin)?,
    };
    if let Some(options) = &comparison.latency {
        told(&format!("timing on {}", runtime.name()));
        run.latency = Some(timed(comparison, runtime, samples, options)?);
    }
    (run.device, run.runtime, run.version) = ("host".to_string(), runtime.name().to_string(), runtime.version());
    Ok(run)
}

/// A run of which nothing is known but what its answers are worth.
fn scored(metrics: Vec<Metric>) -> Run {
    let (device, runtime, version) = (String::new(), String::new(), String::new());
    let (agreement, confusion, wrong, latency) = (None, None, None, None);
    Run { device, runtime, version, metrics, agreement, confusion, wrong, latency }
}

/// Draws for intervals of figures that do not decide.
fn draws() -> bootstrap::Options {
    bootstrap::Options { n_resamples: 2_000, ..bootstrap::Options::default() }
}

fn classes(both: Beside<&Rows>, labels: &[usize], n_classes: usize, margin: f64) -> Result<Run, RecipeError> {
    let Beside { teacher, student } = both;
    let right = [teacher, student].map(|rows| classification::right(rows, labels));
    let [teacher_right, student_right] = right;
    let (teacher_right, student_right) = (teacher_right?, student_right?);
    let scores = [&teacher_right, &student_right].map(|right| classification::as_scores(right));
    let judged = judge(&scores[1], &scores[0], &verdict::Options::at(margin))?;
    let mut metrics = vec![Metric {
        judgement: Some(judged),
        difference: Some(judged.interval),
        ..metric("accuracy", true, [mean(&scores[0]), mean(&scores[1])])
    }];
    if n_classes > 5 {
        let in_top = |rows| Ok::<_, MetricError>(classification::as_scores(&classification::in_top(rows, labels, 5)?));
        metrics.push(of_scores("top-5 accuracy", true, [in_top(teacher)?, in_top(student)?])?);
    }
    let said = [classification::predicted(teacher)?, classification::predicted(student)?];
    let macro_f1 =
        |said: &[usize], places: &[usize]| classification::macro_f1_of(labels, said, n_classes, places).ok().flatten();
    metrics.extend(of_statistic("macro F1", true, labels.len(), &|idx, places| macro_f1(&said[idx], places))?);
    if n_classes == 2 {
        metrics.extend(of_two_classes(both, labels)?);
    }
    metrics.extend(of_probabilities(both, labels)?);
    let confusion = |said: &[usize]| classification::Confusion::of(labels, said, n_classes);
    let places: Vec<usize> = (0..labels.len()).collect();
    let agrees = classification::as_scores(&agreement::agrees(student, teacher)?);
    Ok(Run {
        agreement: Some(Agreement {
            share: mean(&agrees),
            divergence: agreement::divergences(student, teacher).ok().map(|it| mean(&it)).filter(|it| it.is_finite()),
            flips: agreement::flips(&student_right, &teacher_right, &places)?,
        }),
        confusion: Some(Beside { teacher: confusion(&said[0])?, student: confusion(&said[1])? }),
        wrong: Some(places.into_iter().filter(|&place| !student_right[place]).collect()),
        ..scored(metrics)
    })
}

/// Areas under curves, by how far the second class is before the first.
fn of_two_classes(both: Beside<&Rows>, labels: &[usize]) -> Result<Vec<Metric>, RecipeError> {
    let is_positive: Vec<bool> = labels.iter().map(|&label| label == 1).collect();
    let lead = |rows: &Rows| -> Vec<f64> { rows.iter().map(|row| row[1] - row[0]).collect() };
    let leads = [lead(both.teacher), lead(both.student)];
    let roc = |idx: usize, places: &[usize]| binary::roc_auc_of(&leads[idx], &is_positive, places).ok().flatten();
    let precision =
        |idx: usize, places: &[usize]| binary::average_precision_of(&leads[idx], &is_positive, places).ok().flatten();
    let n = labels.len();
    let found = [of_statistic("ROC AUC", true, n, &roc)?, of_statistic("average precision", true, n, &precision)?];
    Ok(found.into_iter().flatten().collect())
}

/// How far probabilities can be trusted, of outputs that are logits.
fn of_probabilities(both: Beside<&Rows>, labels: &[usize]) -> Result<Vec<Metric>, RecipeError> {
    let losses = [both.teacher, both.student].map(|rows| calibration::log_losses(rows, labels));
    let [Ok(teacher), Ok(student)] = losses else { return Ok(Vec::new()) };
    let mut metrics = Vec::new();
    if teacher.iter().chain(&student).all(|loss| loss.is_finite()) {
        metrics.push(of_scores("log loss", false, [teacher, student])?);
    }
    const N_BINS: usize = 15;
    let error = |rows: &Rows| {
        let (confidences, right) = calibration::confidences(&calibration::probabilities(rows)?, labels)?;
        Ok::<_, MetricError>(calibration::calibration(&confidences, &right, N_BINS)?.expected_error)
    };
    metrics.push(metric("expected calibration error", false, [error(both.teacher)?, error(both.student)?]));
    Ok(metrics)
}

fn numbers(both: Beside<&Rows>, targets: &Rows, margin: f64) -> Result<Run, RecipeError> {
    let Beside { teacher, student } = both;
    let absolute = [regression::absolute_errors(teacher, targets)?, regression::absolute_errors(student, targets)?];
    // the higher the better
    let negated = |errors: &[f64]| -> Vec<f64> { errors.iter().map(|error| -error).collect() };
    let judged: Judgement = judge(&negated(&absolute[1]), &negated(&absolute[0]), &verdict::Options::at(margin))?;
    let mut mean_absolute = of_scores("mean absolute error", false, absolute)?;
    mean_absolute.judgement = Some(judged);
    let squared = [regression::squared_errors(teacher, targets)?, regression::squared_errors(student, targets)?];
    let mut metrics = vec![mean_absolute, of_scores("mean squared error", false, squared)?];
    let r2 = |idx: usize, places: &[usize]| regression::r2_of([teacher, student][idx], targets, places).ok().flatten();
    metrics.extend(of_statistic("R²", true, targets.n_rows(), &r2)?);
    Ok(scored(metrics))
}

fn metric(name: &str, is_higher_better: bool, [teacher, student]: [f64; 2]) -> Metric {
    Metric { name: name.to_string(), is_higher_better, teacher, student, difference: None, judgement: None }
}

/// The mean of a number for each sample, of teacher and student.
fn of_scores(name: &str, is_higher_better: bool, [teacher, student]: [Vec<f64>; 2]) -> Result<Metric, StatisticsError> {
    let differences: Vec<f64> = student.iter().zip(&teacher).map(|(student, teacher)| student - teacher).collect();
    let difference = bootstrap::mean_interval(&differences, &draws())?.interval;
    Ok(Metric { difference: Some(difference), ..metric(name, is_higher_better, [mean(&teacher), mean(&student)]) })
}

/// What a statistic of the samples at some places is for the teacher (0) and the student (1); none where it has no value.
fn of_statistic(
    name: &str,
    is_higher_better: bool,
    n_samples: usize,
    statistic: &(dyn Fn(usize, &[usize]) -> Option<f64> + Sync),
) -> Result<Option<Metric>, RecipeError> {
    let all: Vec<usize> = (0..n_samples).collect();
    let (Some(teacher), Some(student)) = (statistic(0, &all), statistic(1, &all)) else { return Ok(None) };
    let gap = |places: &[usize]| Some(statistic(1, places)? - statistic(0, places)?);
    let difference: Option<Interval> = statistic_interval(n_samples, &gap, &draws()).ok().map(|it| it.interval);
    Ok(Some(Metric { difference, ..metric(name, is_higher_better, [teacher, student]) }))
}

/// One sample at a time on one thread, or one batch of a network of one batch size, in turns.
fn timed(
    comparison: &Comparison<'_>,
    runtime: &dyn Runtime,
    samples: &[usize],
    options: &latency::Options,
) -> Result<Beside<latency::Latency>, RecipeError> {
    let mut contenders = Vec::new();
    for (label, model) in [("teacher", comparison.teacher), ("student", comparison.student)] {
        let read = onnx::read_bytes(model.bytes().clone(), model.folder())?;
        let data = normalization::data_for(&read, comparison.data)?;
        let mut session = runtime.load(model, &Options::default())?;
        let size = batch_size(session.as_ref()).unwrap_or(1);
        let some: Vec<usize> = samples.iter().cycle().take(size).copied().collect();
        let feeds = feeds(session.inputs(), &data.batch(&some)?, &data)?;
        let run = move || session.run(&feeds).map(|_| ());
        contenders.push(Contender::<RuntimeError> { label: label.to_string(), run: Box::new(run) });
    }
    let mut measured = interleaved(&mut contenders, options, &mut |_| ())?.into_iter();
    let (Some(teacher), Some(student)) = (measured.next(), measured.next()) else { unreachable!("two were timed") };
    Ok(Beside { teacher, student })
}
